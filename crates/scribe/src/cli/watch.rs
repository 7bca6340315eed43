//! `scribe watch`: entries as they are appended.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use futures::StreamExt as _;
use scribe_client::wire::{EntryView, Kind, WatchEvent};

use super::ClientArgs;
use super::output::{Failure, show_key, show_time};

/// Follow the ledger as it grows
///
/// Prints each entry in ledger order, without gaps, until you stop it; a broken connection is opened again where it
/// broke. Starts at --from, or with the next entry to come. To go on later, pass the last index seen plus one. With
/// --output json, one JSON object per entry, with its value up to 64 KiB.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: everything so far and everything to come below config/
  $ scribe watch --from 0 --prefix config/ --output json"
)]
pub struct Arguments {
    /// Begin with the entry at this index
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,
    /// Stop after this many entries
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// A node that cannot be reached, or that ends the watch.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    let mut watch = client.watch();
    if let Some(from) = arguments.from {
        watch = watch.from(from);
    }
    if let Some(prefix) = &arguments.prefix {
        watch = watch.prefix(prefix.as_bytes());
    }
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut events = watch.open().await?;
    while left > 0 {
        match events.next().await {
            Some(Ok(WatchEvent::Entry(entry))) => {
                output.print(show_entry(&entry)?, entry.as_ref())?;
                left -= 1;
            }
            Some(Ok(WatchEvent::Progress(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failure::unexpected("the node ended the watch")),
        }
    }
    Ok(())
}

fn show_entry(entry: &EntryView) -> Result<String, Failure> {
    let kind = match entry.kind {
        Kind::Put => "put",
        Kind::Delete => "delete",
        Kind::System => "system",
    };
    let key = match entry.kind {
        Kind::System => String::new(),
        _ => show_key(
            &entry
                .key_bytes()
                .map_err(|error| Failure::unexpected(format!("unexpected answer: {error}")))?,
        ),
    };
    Ok(format!(
        "{}\t{}\t{kind}\t{} bytes\t{key}",
        entry.index,
        show_time(entry.timestamp_ms),
        entry.value_length
    ))
}
