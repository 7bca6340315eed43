//! `scribe put`: appends a version of a key.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use scribe_client::client::Wait;

use super::output::{Failure, show_time};
use super::{ClientArgs, KeyArgs};
use crate::limits;

/// Append a version of a key
///
/// Nothing is overwritten: earlier versions stay readable with `scribe get --index`. When the command returns, the
/// entry is on the node's disk; with --wait published a signed checkpoint covers it too. Retries are safe: they carry
/// an idempotency key.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: only if nobody else changed it since index 41
  $ scribe put config/limits --file limits.json --content-type application/json --if-index 41")]
#[command(group(clap::ArgGroup::new("input").required(true).args(["value", "file"])))]
pub struct Arguments {
    #[command(flatten)]
    key: KeyArgs,
    /// The value, taken byte for byte; `-` reads it from stdin
    value: Option<OsString>,
    /// Read the value from this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Media type of the value
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A pair of metadata; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    meta: Vec<String>,
    /// Only if the key has no value
    #[arg(long, conflicts_with = "if_index")]
    if_absent: bool,
    /// Only if the key's newest version has this index
    #[arg(long, value_name = "INDEX")]
    if_index: Option<u64>,
    /// Makes running the same command again safe, for 24 hours
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What a write waits for.
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Return when the entry is on disk, or when a signed checkpoint covers it
    #[arg(long, value_name = "MOMENT", default_value = "appended")]
    wait: Moment,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Moment {
    Appended,
    Published,
}

impl WaitArgs {
    pub(super) fn wait(&self) -> Wait {
        match self.wait {
            Moment::Appended => Wait::Appended,
            Moment::Published => Wait::Published,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A key or value out of bounds, a condition that does not hold, a node that cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = arguments.key.bytes()?;
    let value = match (arguments.value, arguments.file) {
        (Some(value), _) if value == "-" => read_value(std::io::stdin().lock(), Path::new("-"))?,
        (Some(value), _) => value.into_vec(),
        (None, Some(path)) => {
            let file = std::fs::File::open(&path)
                .map_err(|error| Failure::file("read value", &path, &error))?;
            read_value(file, &path)?
        }
        (None, None) => return Err(Failure::user("pass a value, `-` for stdin, or --file")),
    };
    let client = arguments.client.connect()?;
    let mut put = client.put(&key, value).wait(arguments.wait.wait());
    if let Some(content_type) = arguments.content_type {
        put = put.content_type(content_type);
    }
    for pair in &arguments.meta {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Failure::user(format!(
                "--meta must be a name, `=` and a value, found `{pair}`"
            ))
        })?;
        put = put.metadata(name, value);
    }
    if arguments.if_absent {
        put = put.if_absent();
    }
    if let Some(index) = arguments.if_index {
        put = put.if_index(index);
    }
    if let Some(key) = arguments.idempotency_key {
        put = put.idempotency_key(key);
    }
    let appended = put.send().await?;
    arguments
        .client
        .output()
        .print(show_appended(&appended), &appended)
}

/// What a write did, for people.
pub(super) fn show_appended(appended: &scribe_client::wire::Appended) -> String {
    let replayed = if appended.replayed {
        "  (appended earlier, not again)"
    } else {
        ""
    };
    format!(
        "index {}  {}  leaf {}{replayed}",
        appended.index,
        show_time(appended.timestamp_ms),
        appended.leaf_hash
    )
}

/// Reads a value, refusing one that no node takes before it is kept.
fn read_value(reader: impl std::io::Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let allowed = limits::VALUE_LENGTH_CEILING;
    let mut value = Vec::new();
    reader
        .take(allowed as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::file("read value", path, &error))?;
    if value.len() > allowed {
        return Err(Failure::user(format!(
            "a value has at most {allowed} bytes, found more in `{}`",
            path.display()
        )));
    }
    Ok(value)
}
