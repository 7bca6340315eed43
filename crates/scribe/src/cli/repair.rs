//! `scribe repair`: checks a stopped node's data, and mends what can be mended.

use serde::Serialize;

use super::output::{Failure, Output, ProgressUnit, progress, say};
use super::serve::{node_options, start_logging};
use super::{DirectoryArgs, OutputArgs, expect_no_member};
use crate::node::StartError;
use crate::repair::{Repair, repair};
use crate::store::error::StoreError;

/// Check or repair the data of a stopped node
///
/// A node repairs by itself what a crash or a power cut can cause. This is for what is left: bytes that changed on the
/// disk. Nothing is changed without --accept-loss or --rebuild-index. Copy the data directory before --accept-loss.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: is everything that was acknowledged still there, and unchanged?
  $ scribe repair --data-dir ./scribe-data --check"
)]
#[command(group(clap::ArgGroup::new("action").required(true).args(["check", "rebuild_index", "accept_loss"])))]
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
    .map_err(|error| {
        let failure = match &error {
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
    })?;
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
    let failure = Failure::verification(format!("{} damaged places are left", shown.damage.len()));
    Err(match action {
        Repair::Check => {
            failure.hint("docs/operating.md says what each kind of damage means, and what to do")
        }
        _ => failure,
    })
}
