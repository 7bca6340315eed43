//! `scribe repair`: checks a stopped node's data, and mends what can be mended.

use serde::Serialize;

use super::output::{Failure, Output, ProgressUnit, progress};
use super::serve::{node_options, start_logging};
use super::{DirectoryArgs, OutputArgs};
use crate::config::Config;
use crate::repair::{self, RepairError};

/// Check or repair the data of a stopped node
///
/// A node repairs by itself what a crash or a power cut can cause. This is for what is left: bytes that changed on the
/// disk. Nothing is lost without --accept-loss; copy the data directory before you use it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: is everything that was acknowledged still there, and unchanged?
  $ scribe repair --check --data-dir ./scribe-data --key-dir ./scribe-keys

Exit code 3: damage was found, or is left."
)]
#[command(group(clap::ArgGroup::new("action").required(true).args(["check", "rebuild_index", "accept_loss"])))]
pub struct Arguments {
    /// Read everything again: frames, hashes, commitments, tree, index; name the first bad place
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
#[serde(tag = "done", rename_all = "snake_case")]
enum Done {
    Check {
        entries: u64,
        root_hash: String,
        frames: u64,
        segments: u64,
        bytes: u64,
    },
    RebuildIndex {
        segments: u64,
    },
    AcceptLoss {
        damage: Option<String>,
        cut_bytes: u64,
        removed_files: usize,
    },
}

/// Runs the command.
///
/// # Errors
/// Damage that was found or is left (exit 3), a directory in use, or that holds no ledger.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.directory.load()?;
    start_logging(&config.log)?;
    let done = match (arguments.check, arguments.rebuild_index) {
        (true, _) => check(&config).await,
        (_, true) => rebuild_index(&config).await,
        _ => accept_loss(&config).await,
    }?;
    Output::new(arguments.output.output).print(done.to_text(), &done)
}

async fn check(config: &Config) -> Result<Done, Failure> {
    config.expect_keys()?;
    let bar = progress(Some(0), ProgressUnit::Bytes);
    let shown = bar.clone();
    let report = repair::check(node_options(config), move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    Ok(Done::Check {
        entries: report.tree_size.get(),
        root_hash: report.root.to_hex(),
        frames: report.frames,
        segments: report.segments,
        bytes: report.bytes,
    })
}

async fn rebuild_index(config: &Config) -> Result<Done, Failure> {
    let options = node_options(config);
    let bar = progress(Some(0), ProgressUnit::Entries);
    bar.set_message("(segments)");
    let shown = bar.clone();
    let rebuilt = tokio::task::spawn_blocking(move || {
        repair::rebuild_index(&options, |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    })
    .await
    .map_err(|error| Failure::unexpected(format!("the repair stopped: {error}")))?;
    bar.finish_and_clear();
    Ok(Done::RebuildIndex { segments: rebuilt? })
}

async fn accept_loss(config: &Config) -> Result<Done, Failure> {
    let options = node_options(config);
    let accepted = tokio::task::spawn_blocking(move || repair::accept_loss(&options))
        .await
        .map_err(|error| Failure::unexpected(format!("the repair stopped: {error}")))??;
    Ok(Done::AcceptLoss {
        damage: accepted.damage,
        cut_bytes: accepted.cut_bytes,
        removed_files: accepted.removed_files,
    })
}

impl Done {
    fn to_text(&self) -> String {
        match self {
            Done::Check {
                entries,
                root_hash,
                frames,
                segments,
                bytes,
            } => format!(
                "no damage: {entries} entries in {frames} frames, {segments} sealed segments, {bytes} bytes\nroot hash \
                 {root_hash}"
            ),
            Done::RebuildIndex { segments } => {
                format!("the key index was made again from {segments} sealed segments")
            }
            Done::AcceptLoss { damage: None, .. } => {
                "no damage found: nothing was changed".to_owned()
            }
            Done::AcceptLoss {
                damage: Some(damage),
                cut_bytes,
                removed_files,
            } => format!(
                "cut at: {damage}\n{cut_bytes} bytes and {removed_files} files behind it were dropped"
            ),
        }
    }
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Failure {
        let failure = match &error {
            RepairError::Damaged(damage) => {
                return Failure::verification(damage.clone())
                    .hint("docs/operating.md says what each kind of damage means, and what to do");
            }
            RepairError::NoLedger(_) => Failure::user(error.to_string()),
            _ => Failure::unexpected(error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
