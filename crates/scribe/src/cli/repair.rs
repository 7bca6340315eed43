//! `scribe repair`: checks a stopped node's data, and mends what can be mended.

use serde::Serialize;

use super::output::{Failure, Output, ProgressUnit, progress, say};
use super::serve::{node_options, start_logging};
use super::verify::{SMALL_FILE_LENGTH_MAX, read_text};
use super::{DirectoryArgs, OutputArgs, expect_no_member};
use crate::node::StartError;
use crate::repair::{Repair, RepairOutcome, TrustError, repair, trust_checkpoint};
use crate::store::error::StoreError;

/// Check or repair the data of a stopped node
///
/// A node repairs by itself what a crash or a power cut can cause. This is for what is left: bytes that changed on the
/// disk. Nothing is changed without --accept-loss or --rebuild-index. Copy the data directory before --accept-loss.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: is everything that was acknowledged still there, and unchanged?
  $ scribe repair --data-dir ./scribe-data --check

Example: keys and data were restored from backups; the ledger signs again from the largest checkpoint anybody has
  $ scribe repair --trust-checkpoint newest-known.txt --data-dir ./scribe-data --key-dir ./scribe-keys"
)]
#[command(group(clap::ArgGroup::new("action").required(true)
    .args(["check", "rebuild_index", "accept_loss", "trust_checkpoint"])))]
pub struct Arguments {
    /// Read everything again: frames, hashes, commitments, tree, index; name the first bad place (exit 3)
    #[arg(long)]
    check: bool,
    /// Make the key index again from the ledger: it is derived data, nothing can be lost
    #[arg(long)]
    rebuild_index: bool,
    /// Cut the log before its first damaged frame: what was acknowledged after it is lost for good
    #[arg(long)]
    accept_loss: bool,
    /// Record this checkpoint as the last one signed: the largest one known outside, after keys were restored. Refused if
    /// entries are missing or the history differs (exit 3)
    #[arg(long, value_name = "FILE")]
    trust_checkpoint: Option<std::path::PathBuf>,
    #[command(flatten)]
    directory: DirectoryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Repaired {
    healthy: bool,
    summary: String,
    damage: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Damage that is left (exit 3), a directory in use, damage that cannot be repaired.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.directory.load()?;
    start_logging(&config.log)?;
    let action = match (arguments.check, arguments.rebuild_index) {
        (true, _) => Repair::Check,
        (_, true) => Repair::RebuildIndex,
        _ => Repair::AcceptLoss,
    };
    if action == Repair::AcceptLoss {
        // Others counted these entries when they called them durable: a member must not come back without them.
        expect_no_member(
            &config,
            "stop it for good and let a new node take its place: `scribe cluster replace`",
        )?;
    }
    if !config.data_dir.is_dir() {
        return Err(
            Failure::user(format!("no data directory `{}`", config.data_dir.display()))
                .hint("--data-dir names it"),
        );
    }
    let options = node_options(&config);
    if let Some(path) = &arguments.trust_checkpoint {
        config.expect_keys()?;
        let note = read_text(path, SMALL_FILE_LENGTH_MAX)?;
        let done = tokio::task::spawn_blocking(move || trust_checkpoint(&options, &note))
            .await
            .map_err(|error| Failure::unexpected(format!("the repair stopped: {error}")))?;
        return match done {
            Ok(outcome) => show(&arguments, outcome),
            Err(TrustError::Refused(rule)) => Err(Failure::verification(rule).hint(
                "a newer copy of the data must be somewhere, or this is another ledger; nothing was changed, and nothing \
                 is signed: see docs/operating.md, Backup and restore",
            )),
            Err(TrustError::Start(error)) => Err(start_failure(&error)),
        };
    }
    let report = tokio::task::spawn_blocking(move || {
        let bar = progress(None, ProgressUnit::Bytes);
        let report = repair(&options, action, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        report
    })
    .await
    .map_err(|error| Failure::unexpected(format!("the repair stopped: {error}")))?
    .map_err(|error| start_failure(&error))?;
    let check = action == Repair::Check;
    show(&arguments, report).map_err(|failure| match check {
        true => {
            failure.hint("docs/operating.md says what each kind of damage means, and what to do")
        }
        false => failure,
    })
}

fn start_failure(error: &StartError) -> Failure {
    let failure = match error {
        // Damage that keeps the directory from being opened; the message carries its own hint.
        StartError::Store(StoreError::Damaged { .. }) => {
            return Failure::verification(error.to_string());
        }
        _ => Failure::unexpected(error.to_string()),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn show(arguments: &Arguments, report: RepairOutcome) -> Result<(), Failure> {
    let healthy = report.damage.is_empty();
    let shown = Repaired {
        healthy,
        summary: report.summary,
        damage: report.damage,
    };
    Output::new(arguments.output.output).print(&shown.summary, &shown)?;
    if healthy {
        return Ok(());
    }
    for place in &shown.damage {
        say(format_args!("damaged: {place}"));
    }
    Err(Failure::verification(format!(
        "{} damaged places are left",
        shown.damage.len()
    )))
}
