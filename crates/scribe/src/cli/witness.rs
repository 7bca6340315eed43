//! `scribe witness`: follows logs and cosigns their checkpoints, until it is told to stop.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::OutputArgs;
use super::output::{Failure, Output, say};
use super::serve::{hangup_signal, start_logging, stop_signal};
use crate::http::{self, HttpTls};
use crate::limits;
use crate::witness::{Witness, WitnessOptions, WitnessStartError, parse_logs};
use crate::world::World;

/// Run a witness: cosign the checkpoints of logs that only ever grow
///
/// A witness remembers one checkpoint of each log it follows and cosigns the next one only if it extends that. Whoever
/// asks for its cosignature in a policy cannot be shown another history than everybody else. It follows any log of
/// c2sp.org/tlog-witness, needs none of the entries, and should run where the log's operator has no say.
///
/// Its public key goes to stdout. The key is made on the first start. Both directories are the witness: the key directory
/// remembers that there was a state, and a start without it is refused. Never run two with one key, and never put an old
/// copy of the state back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: a witness of one ledger, and a node that submits to it
  $ scribe witness --name witness.example/w1 --http-addr 0.0.0.0:8101 --log \"$(scribe checkpoint --print vkey)\"
  witness.example/w1+…+BD…
  $ scribe serve --witness 'witness.example/w1+…+BD… http://witness.example:8101'

What it cosigned last, for monitors:
  $ curl \"http://witness.example:8101/$(printf %s ORIGIN | sha256sum | cut -c1-64)/checkpoint\""
)]
pub struct Arguments {
    /// Public key of a log to follow, and its origin if that is not the key's name; can be repeated
    #[arg(long = "log", value_name = "VKEY [ORIGIN]")]
    logs: Vec<String>,
    /// File with such a log on each line
    #[arg(long = "logs", value_name = "FILE")]
    logs_file: Option<PathBuf>,
    /// Directory of the key
    #[arg(long, value_name = "DIR", default_value = "./witness-keys")]
    key_dir: PathBuf,
    /// Directory of what was cosigned; not in backups
    #[arg(long, value_name = "DIR", default_value = "./witness-state")]
    state_dir: PathBuf,
    /// Name of a new key, such as a host name and path you own [default: part of the key's hash]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where to listen; anyone may reach a witness
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8101")]
    http_addr: SocketAddr,
    /// PEM file with the certificate chain to show; plain HTTP without one
    #[arg(long, value_name = "FILE", requires = "http_tls_key")]
    http_tls_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "http_tls_cert")]
    http_tls_key: Option<PathBuf>,
    /// Go on although what was cosigned is lost: the next checkpoint of such a log is believed as it comes
    #[arg(long)]
    accept_lost_state: bool,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter
    #[arg(
        long,
        value_name = "TEXT",
        env = "SCRIBE_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    log_filter: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Started<'a> {
    verifier_key: &'a str,
    url: &'a str,
}

/// Runs the command.
///
/// # Errors
/// Wrong arguments, directories that cannot be used, a lost state, and a disk that failed while it ran.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    start_logging(&arguments.log_filter)?;
    let stop = stop_signal()?;
    let mut hangup = hangup_signal()?;
    let tls = certificate(&arguments)?;
    let options = options(&arguments)?;
    let listener = http::bind_at(arguments.http_addr).await.map_err(|error| {
        Failure::user(format!("cannot listen on {}: {error}", arguments.http_addr))
            .hint("another one may be running; --http-addr 127.0.0.1:0 takes any free port")
    })?;
    let address = listener.local_addr();
    let witness = tokio::task::spawn_blocking(move || Witness::open(options))
        .await
        .map_err(|error| Failure::unexpected(format!("cannot open the directories: {error}")))?
        .map_err(refused)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(&arguments, &witness, &format!("{scheme}://{address}"))?;

    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = http::serve_witness(listener, witness.clone(), tls.clone(), async {
        // A dropped sender means the same: this function is over.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    let reload = async {
        loop {
            if hangup.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            if let Some(Err(error)) = tls.as_ref().map(|tls| tls.reload()) {
                tracing::warn!(%error, "the certificate stays as it was");
            }
        }
    };
    let outcome = tokio::select! {
        outcome = &mut serving => match outcome {
            Ok(()) => Err(Failure::unexpected("the HTTP server stopped by itself")),
            Err(error) => Err(Failure::unexpected(format!("the HTTP server failed: {error}"))),
        },
        reason = witness.failed() => Err(Failure::unexpected(format!("the witness stopped itself: {reason}"))
            .hint("no cosignature left that is not on disk; look at the disk before starting again")),
        () = reload => Ok(()),
        () = stop => {
            tracing::info!("stopping: requests in flight are finished first; a second signal ends at once");
            let again = stop_signal()?;
            let _ = stopping.send(());
            tokio::select! {
                outcome = &mut serving => {
                    outcome.map_err(|error| Failure::unexpected(format!("the HTTP server failed: {error}")))
                }
                () = again => Ok(()),
            }
        }
    };
    if let Err(error) = witness.close().await {
        tracing::warn!(%error, "how far the logs were followed could not be written down");
    }
    outcome
}

fn options(arguments: &Arguments) -> Result<WitnessOptions, Failure> {
    let listed = match &arguments.logs_file {
        Some(path) => read_logs(path)?,
        None => String::new(),
    };
    let lines = arguments.logs.iter().map(String::as_str);
    let logs = parse_logs(lines.chain(listed.lines())).map_err(|error| {
        Failure::user(error).hint("`scribe checkpoint --print vkey` prints a ledger's key")
    })?;
    Ok(WitnessOptions {
        key_dir: arguments.key_dir.clone(),
        state_dir: arguments.state_dir.clone(),
        name: arguments.name.clone(),
        logs,
        accept_lost_state: arguments.accept_lost_state,
        world: World::real(),
    })
}

fn read_logs(path: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::file("read the logs", path, &error);
    let mut text = String::new();
    File::open(path)
        .map_err(unreadable)?
        .take(limits::WITNESS_LOGS_LENGTH_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > limits::WITNESS_LOGS_LENGTH_MAX {
        return Err(Failure::user(format!(
            "`{}` must have at most {} bytes, found more",
            path.display(),
            limits::WITNESS_LOGS_LENGTH_MAX
        )));
    }
    Ok(text)
}

fn certificate(arguments: &Arguments) -> Result<Option<Arc<HttpTls>>, Failure> {
    match (&arguments.http_tls_cert, &arguments.http_tls_key) {
        (Some(certificate), Some(key)) => HttpTls::load(certificate, key)
            .map(|tls| Some(Arc::new(tls)))
            .map_err(|error| Failure::user(error.to_string())),
        _ => Ok(None),
    }
}

fn refused(error: WitnessStartError) -> Failure {
    let failure = match &error {
        WitnessStartError::Directory(_) => Failure::unexpected(error.to_string()),
        _ => Failure::user(error.to_string()),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn announce(arguments: &Arguments, witness: &Witness, url: &str) -> Result<(), Failure> {
    let key = witness.verifier_key().to_text();
    let mut logs = String::new();
    for (origin, size) in witness.sizes() {
        logs.push_str(&format!(
            "\n  follows     {origin}, cosigned up to size {size}"
        ));
    }
    say(format_args!(
        "scribe witness {version} is ready

  URL         {url}
  keys        {keys}
  state       {state}{logs}
",
        version = env!("CARGO_PKG_VERSION"),
        keys = arguments.key_dir.display(),
        state = arguments.state_dir.display(),
    ));
    Output::new(arguments.output.output).print(
        &key,
        &Started {
            verifier_key: &key,
            url,
        },
    )
}
