//! `scribe list`: keys in byte order.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use scribe_client::wire::At;

use super::output::{Failure, say, show_key};
use super::{ClientArgs, parse_at};
use crate::limits::PAGE_LIMIT_MAX;

/// List keys that have a value, in byte order
///
/// Each line is the index of the key's current version, a tab, and the key; a key that is not printable text is shown
/// as base64:…. All pages together are one consistent view. With --output json, one JSON object per key.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: what was below config/ when the ledger had 1000 entries
  $ scribe list --prefix config/ --at 1000 --all"
)]
pub struct Arguments {
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY")]
    start: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    end: Option<OsString>,
    /// As it was then: a tree size or an RFC 3339 time
    #[arg(long, value_name = "SIZE|TIME", value_parser = parse_at)]
    at: Option<At>,
    /// Most keys to list
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "all")]
    limit: u64,
    /// List every key
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// A node that cannot be reached or that refuses the range.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    let mut left = if arguments.all {
        u64::MAX
    } else {
        arguments.limit
    };
    let mut cursor: Option<String> = None;
    while left > 0 {
        let mut request = client.list().limit(left.min(PAGE_LIMIT_MAX as u64));
        if let Some(prefix) = &arguments.prefix {
            request = request.prefix(prefix.as_bytes());
        }
        if let Some(start) = &arguments.start {
            request = request.start(start.as_bytes());
        }
        if let Some(end) = &arguments.end {
            request = request.end(end.as_bytes());
        }
        match (cursor, arguments.at.clone()) {
            (Some(cursor), _) => request = request.cursor(cursor),
            (None, Some(at)) => request = request.at(at),
            (None, None) => {}
        }
        let page = request.send().await?;
        left = left.saturating_sub(page.keys.len() as u64);
        for version in &page.keys {
            let key = version
                .key_bytes()
                .map_err(|error| Failure::unexpected(format!("unexpected answer: {error}")))?;
            output.print(
                format_args!("{}\t{}", version.index, show_key(&key)),
                version,
            )?;
        }
        cursor = page.next;
        // A page of tombstones may be empty and still not be the last.
        if cursor.is_none() {
            return Ok(());
        }
    }
    say("there are more keys: --all lists them");
    Ok(())
}
