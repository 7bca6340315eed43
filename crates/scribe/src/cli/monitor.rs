//! `scribe monitor`: follows a ledger and raises an alarm.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use scribe_client::{FilePin, MemoryPin, PinStore, RetryPolicy};

use super::output::{Failure, Output, say};
use super::verify::trusted_policy;
use super::{OutputArgs, TrustArgs};
use crate::monitor::{Event, Kind, Monitor, MonitorError, MonitorOptions, Severity};
use crate::units::parse_duration_ms;

/// How long a node is asked again within one round.
const ROUND_DEADLINE: Duration = Duration::from_secs(5);

/// Follow a ledger and raise an alarm if it is rewritten or forked
///
/// Takes the newest checkpoint of every node (or static copy) again and again, checks it against --vkey or --policy, and
/// demands that it is consistent with every checkpoint accepted before, from whichever node. With --state what was
/// accepted survives a restart. Alerts: a signature that does not fit, a policy that is no longer satisfied, two
/// checkpoints that do not go together (a fork, written to fork-<size>.txt), a checkpoint that goes back, and with
/// --entries entries that do not give the signed root hash. A fork ends it with exit 3 unless --keep-going.
///
/// It sees what these nodes show it. A checkpoint that is shown to somebody else only is noticed by witnesses, or by
/// comparing state files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: three nodes of a cluster, with mail if something is wrong
  $ scribe monitor https://a.example https://b.example https://c.example --policy policy.txt \\
      --state ledger.checkpoint --exec 'mail -s \"ledger: $SCRIBE_ALERT\" ops@example.com'

Example: once, from a timer
  $ scribe monitor http://127.0.0.1:8001 --vkey \"$VKEY\" --state ledger.checkpoint --once"
)]
pub struct Arguments {
    /// Nodes of the ledger, or static copies of it
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// Public key of the ledger, or a file that holds it
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    vkey: Option<String>,
    /// File that says whose signatures are needed (c2sp.org/tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// File that remembers the largest checkpoint accepted; evidence goes into its directory
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Pause between two rounds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// Look once and end: exit 3 if there was an alert
    #[arg(long)]
    once: bool,
    /// Go on after a fork
    #[arg(long, conflicts_with = "once")]
    keep_going: bool,
    /// Read every new entry, too: its value against its leaf, and all of them against the signed root hash
    #[arg(long)]
    entries: bool,
    /// How long entries may wait for a checkpoint before that is a warning
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    stale_after: Duration,
    /// Command for each alert and warning, run by `sh -c` with SCRIBE_ALERT (what it is) and SCRIBE_ALERT_JSON set
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration_ms(text)
        .map(Duration::from_millis)
        .map_err(|error| error.to_string())
}

/// Runs the command.
///
/// # Errors
/// An alert with --once, or a fork (exit 3); a state that cannot be read or kept.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.output.output);
    let policy = trusted_policy(arguments.vkey.as_deref(), arguments.policy.as_deref())?;
    if policy.is_none() {
        say(
            "note: no --vkey or --policy: checkpoints are only compared with each other, anybody could have signed them",
        );
    }
    let retry = RetryPolicy {
        deadline: ROUND_DEADLINE,
        ..RetryPolicy::default()
    };
    let clients = arguments
        .urls
        .iter()
        .map(|url| arguments.trust.client_with(url, Some(retry)))
        .collect::<Result<_, Failure>>()?;
    let store: Box<dyn PinStore> = match &arguments.state {
        Some(path) => Box::new(FilePin::new(path)),
        None => Box::new(MemoryPin::default()),
    };
    let options = MonitorOptions {
        clients,
        policy,
        evidence_dir: evidence_dir(arguments.state.as_deref()),
        entries: arguments.entries,
        stale_after: arguments.stale_after,
    };
    let mut monitor = Monitor::new(options, store).map_err(failure)?;
    // What was told already and still holds is not told again.
    let mut known: BTreeSet<(Kind, String)> = BTreeSet::new();
    loop {
        let events = monitor.round().await.map_err(failure)?;
        let mut now = BTreeSet::new();
        for event in &events {
            let about = (event.kind, event.node.clone());
            let is_new = event.severity == Severity::Info || !known.contains(&about);
            now.insert(about);
            if is_new {
                tell(event, output, arguments.exec.as_deref()).await?;
            }
        }
        known = now;
        let alerts = |kind: Option<Kind>| {
            let mut events = events.iter();
            events.any(|event| {
                event.severity == Severity::Alert && kind.is_none_or(|kind| kind == event.kind)
            })
        };
        if alerts(Some(Kind::Fork)) && !arguments.keep_going {
            return Err(Failure::verification("the ledger forked, or was rewritten")
                .hint("keep the evidence, and show it to whoever else follows this ledger"));
        }
        if arguments.once {
            return match alerts(None) {
                true => Err(Failure::verification("something does not hold, see above")),
                false => once(&monitor, &events),
            };
        }
        tokio::time::sleep(arguments.interval).await;
    }
}

/// A single look that saw no checkpoint at all has not looked.
fn once(monitor: &Monitor, events: &[Event]) -> Result<(), Failure> {
    let nobody = |event: &Event| event.kind == Kind::Unreachable;
    match monitor.accepted() {
        Some(_) if !events.iter().any(nobody) => Ok(()),
        _ => Err(Failure::unexpected("not every node could be asked")),
    }
}

fn evidence_dir(state: Option<&Path>) -> PathBuf {
    match state.and_then(Path::parent) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

async fn tell(event: &Event, output: Output, exec: Option<&str>) -> Result<(), Failure> {
    output.print(event, event)?;
    let Some(command) = exec.filter(|_| event.severity != Severity::Info) else {
        return Ok(());
    };
    let json = serde_json::to_string(event)
        .map_err(|error| Failure::unexpected(format!("cannot write JSON: {error}")))?;
    let mut command_line = Command::new("sh");
    command_line
        .args(["-c", command])
        .env("SCRIBE_ALERT", event.to_string())
        .env("SCRIBE_ALERT_JSON", json);
    // A monitor that stops because its alarm bell is broken would be worse: it is said, and it goes on.
    match tokio::task::spawn_blocking(move || command_line.status()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => say(format_args!("the command of --exec ended with {status}")),
        Ok(Err(error)) => say(format_args!("cannot run the command of --exec: {error}")),
        Err(error) => say(format_args!("cannot run the command of --exec: {error}")),
    }
    Ok(())
}

fn failure(error: MonitorError) -> Failure {
    match error {
        MonitorError::Remembered(_) => Failure::user(error.to_string())
            .hint("--state names the file; if it is of another ledger, take another one"),
        MonitorError::Evidence { .. } => Failure::verification(error.to_string()),
        MonitorError::State(_) => Failure::unexpected(error.to_string()),
    }
}
