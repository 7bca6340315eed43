//! `scribe export`: the ledger as one file of lines, or as the files of the static read side.

mod directory;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod lines;
mod source;
mod tiles;

use std::path::PathBuf;

use super::output::Failure;
use super::serve::{node_options, start_logging, start_node};
use super::{ClientArgs, DirectoryArgs, expect_no_member};
use crate::node::{Node, NodeOptions};

/// Write every entry to a file, or the tree as files any web server can serve
///
/// With --out: one file with every entry, its leaf, salt, metadata and value, one JSON object per line, and the root
/// hash at the end. Each entry is checked as it is written, and the tree over them against the ledger's newest
/// checkpoint. `scribe import --data-dir` makes a ledger with the same root hash from it. Takes what the ledger has
/// when the command starts; writes go on meanwhile.
///
/// With --tiles: a directory with the newest checkpoint, the tiles of its tree and its leaves, at the paths where a
/// node serves them (c2sp.org/tlog-tiles), so that any web server or bucket can do so. Everything is checked against
/// the checkpoint before it is written, and the checkpoint is written last. Run again, it adds what is new; a directory
/// of another ledger, or one whose checkpoint the new one does not extend, is refused (exit 3). --values adds what opens
/// the leaves: salts, metadata, values. `scribe audit DIR` re-reads all of it.
///
/// With --data-dir it reads the directory of a stopped node instead of asking --server; the checkpoint is then signed
/// with the keys in --key-dir. With --stale it takes what one node of a cluster has, without asking the others: how to
/// save what is left when a majority is lost for good. Docs: docs/format-export.md
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: a copy of the ledger, compressed
  $ scribe export --out - | zstd > ledger.ndjson.zst

Example: a mirror that a cron job keeps up to date
  $ scribe export --tiles /srv/www/ledger --vkey \"$VKEY\"")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["out", "tiles"])))]
pub struct Arguments {
    /// File to write; `-` is stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Directory to write checkpoint, tiles and leaves to, or to bring up to date
    #[arg(long, value_name = "DIR")]
    tiles: Option<PathBuf>,
    /// With --tiles: also the salts, metadata and values that open the leaves
    #[arg(long, requires = "tiles")]
    values: bool,
    /// With --tiles: public key of the ledger, or a file that holds it; the checkpoint must have its signature
    #[arg(
        long,
        value_name = "VKEY",
        requires = "tiles",
        conflicts_with = "policy"
    )]
    vkey: Option<String>,
    /// With --tiles: file that says whose signatures the checkpoint must have
    #[arg(long, value_name = "FILE", requires = "tiles")]
    policy: Option<PathBuf>,
    /// With --out: take what this node has applied, also while a majority of its cluster is away
    #[arg(long, conflicts_with_all = ["data_dir", "tiles"])]
    stale: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    directory: DirectoryArgs,
}

/// Runs the command.
///
/// # Errors
/// A node that cannot be reached, a file that cannot be written, or entries that do not hold (exit 3).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match (&arguments.tiles, &arguments.out) {
        (Some(directory), _) => tiles::run(&arguments, directory).await,
        (None, Some(file)) => lines::run(&arguments, file).await,
        // The group of arguments asks for one of them.
        (None, None) => Err(Failure::user("--out or --tiles is needed")),
    }
}

/// Starts the stopped node of these directories, to read from it.
async fn offline(directory: &DirectoryArgs) -> Result<Node, Failure> {
    let config = directory.load()?;
    start_logging(&config.log)?;
    // Opening what is not there would make a new ledger.
    if !config.data_dir.is_dir() {
        return Err(Failure::user(format!(
            "no data directory `{}`",
            config.data_dir.display()
        )));
    }
    config.expect_keys()?;
    // What a member committed last it learns from the others.
    expect_no_member(
        &config,
        "start it and export with --server; with --stale if a majority of the cluster is lost",
    )?;
    // Nothing is added, not even the announcement of a key.
    let options = NodeOptions {
        importing: true,
        ..node_options(&config)
    };
    start_node(options).await
}
