//! `scribe import`: entries from a file, into a running node or into the directory of a stopped one.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod lines;
mod offline;
mod online;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::output::{Failure, ProgressUnit, progress};
use super::{ClientArgs, DirectoryArgs};

/// Append entries from a file
///
/// Into a running node (--server) every line becomes a new entry: with a new index, a new time and a new salt. It is
/// not atomic; lines that are refused are reported and the others are in. With --idempotency-key an interrupted import
/// can be run again within 24 hours without appending anything twice.
///
/// With --data-dir, into the directory of a stopped node, an export is carried over byte for byte: same indexes, times
/// and salts, so the same root hash, which is compared at the end. The directory must be new, or hold the beginning of
/// the same ledger: an interrupted import goes on where it stopped.
///
/// Formats (docs/format-export.md): `export` is what `scribe export` writes; `bulk` is what POST /v1/entries takes, one
/// JSON object per line; `lines` is a key and a value per line, apart by --delimiter.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: the SHA-256 of every file, by path
  $ find /usr -type f -exec sha256sum {} + > sums.txt
  $ scribe import sums.txt --format lines --delimiter '  ' --key-field 2

Example: a ledger moved to another machine
  $ scribe import ledger.ndjson --data-dir ./copy-data --key-dir ./copy-keys")]
pub struct Arguments {
    /// File to read; `-` is stdin
    file: PathBuf,
    /// What a line is
    #[arg(long, value_name = "FORMAT", default_value = "export")]
    format: LineFormat,
    /// For lines: what stands between key and value [default: a tab]
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "\t",
        hide_default_value = true
    )]
    delimiter: String,
    /// For lines: which side of the first delimiter is the key, 1 or 2
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    key_field: u8,
    /// Make running the same import again safe: line n is sent under the idempotency key TEXT-n
    #[arg(long, value_name = "TEXT", conflicts_with = "data_dir")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    directory: DirectoryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LineFormat {
    /// What `scribe export` writes.
    Export,
    /// What POST /v1/entries takes.
    Bulk,
    /// A key and a value per line.
    Lines,
}

/// Runs the command.
///
/// # Errors
/// Lines that are refused (exit 1), a root hash that does not match (exit 3), a node that cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.directory.data_dir.is_some() {
        true => offline::run(arguments).await,
        false => online::run(arguments).await,
    }
}

type Input = Box<dyn BufRead + Send>;

/// The file, with a progress bar over its bytes.
fn open(path: &Path) -> Result<(Input, ProgressBar), Failure> {
    const BUFFER_LENGTH: usize = 1 << 20;
    if path.as_os_str() == "-" {
        let bar = progress(None, ProgressUnit::Bytes);
        let input = bar.wrap_read(std::io::stdin());
        return Ok((
            Box::new(BufReader::with_capacity(BUFFER_LENGTH, input)),
            bar,
        ));
    }
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let bar = progress((length > 0).then_some(length), ProgressUnit::Bytes);
    let input = bar.wrap_read(file);
    Ok((
        Box::new(BufReader::with_capacity(BUFFER_LENGTH, input)),
        bar,
    ))
}
