//! `scribe get`: a value, byte for byte.

use std::path::PathBuf;

use scribe_client::wire::{At, Kind};
use serde::Serialize;

use super::output::{Failure, print_raw, say, show_key, show_time};
use super::{ClientArgs, KeyArgs, parse_at};

/// Read a value
///
/// The value goes to stdout (or --out) byte for byte, with nothing added. With --output json, a line about the version
/// goes to stdout instead, and the value only to --out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: the value as it was a year ago
  $ scribe get config/limits --at 2025-06-01T00:00:00Z --out limits.json")]
pub struct Arguments {
    #[command(flatten)]
    key: KeyArgs,
    /// The version with this index
    #[arg(long, value_name = "INDEX", conflicts_with = "at")]
    index: Option<u64>,
    /// The version that was current then: a tree size or an RFC 3339 time
    #[arg(long, value_name = "SIZE|TIME", value_parser = parse_at)]
    at: Option<At>,
    /// Write the value to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct Got {
    index: u64,
    timestamp_ms: u64,
    leaf_hash: String,
    content_type: Option<String>,
    metadata: std::collections::BTreeMap<String, String>,
    value_length: usize,
}

/// Runs the command.
///
/// # Errors
/// A key without that version (exit 1), a node that cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = arguments.key.bytes()?;
    let client = arguments.client.connect()?;
    let mut get = client.get(&key);
    if let Some(index) = arguments.index {
        get = get.index(index);
    }
    if let Some(at) = arguments.at.clone() {
        get = get.at(at);
    }
    let Some(value) = get.send().await? else {
        return Err(missing(&client, &key, &arguments).await);
    };
    if let Some(path) = &arguments.out {
        std::fs::write(path, &value.bytes).map_err(|error| Failure::file("write", path, &error))?;
        say(format_args!(
            "{} bytes written to {}",
            value.bytes.len(),
            path.display()
        ));
    }
    let output = arguments.client.output();
    if output.is_json() {
        let got = Got {
            index: value.head.index,
            timestamp_ms: value.head.timestamp_ms,
            leaf_hash: value.head.leaf_hash.to_string(),
            content_type: value.head.content_type,
            metadata: value.head.metadata,
            value_length: value.bytes.len(),
        };
        return output.print("", &got);
    }
    match arguments.out {
        Some(_) => Ok(()),
        None => print_raw(&value.bytes),
    }
}

/// Says why there is no value: no such key, no such version, or deleted.
async fn missing(client: &scribe_client::Client, key: &[u8], arguments: &Arguments) -> Failure {
    let key_text = show_key(key);
    if arguments.index.is_some() || arguments.at.is_some() {
        return Failure::user(format!("key `{key_text}` has no such version"))
            .hint(format!("`scribe history {key_text}` lists its versions"));
    }
    // Only for the message, so a failure here does not matter.
    let newest = client.history(key).limit(1).send().await.ok();
    match newest.and_then(|history| history.versions.into_iter().next()) {
        Some(version) if version.kind == Kind::Delete => Failure::user(format!(
            "key `{key_text}` was deleted at index {}, {}",
            version.index,
            show_time(version.timestamp_ms)
        ))
        .hint(format!(
            "`scribe history {key_text}` lists its earlier versions"
        )),
        _ => Failure::user(format!("no such key: `{key_text}`")),
    }
}
