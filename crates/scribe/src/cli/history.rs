//! `scribe history`: the versions of a key.

use scribe_client::wire::Kind;

use super::output::{Failure, say, show_time};
use super::{ClientArgs, KeyArgs};
use crate::limits::PAGE_LIMIT_MAX;

/// List the versions of a key, newest first
///
/// A tombstone (kind delete) is a version too. With --output json, one JSON object per version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: read the version before the newest one
  $ scribe history config/limits --limit 2
  $ scribe get config/limits --index 41")]
pub struct Arguments {
    #[command(flatten)]
    key: KeyArgs,
    /// Most versions to list
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "all")]
    limit: u64,
    /// List every version
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// A key that never had a version, a node that cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = arguments.key.bytes()?;
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    let mut left = if arguments.all {
        u64::MAX
    } else {
        arguments.limit
    };
    let mut cursor: Option<String> = None;
    while left > 0 {
        let mut request = client.history(&key).limit(left.min(PAGE_LIMIT_MAX as u64));
        if let Some(cursor) = cursor {
            request = request.cursor(cursor);
        }
        let page = request.send().await?;
        left = left.saturating_sub(page.versions.len() as u64);
        for version in &page.versions {
            let kind = match version.kind {
                Kind::Put => "put",
                Kind::Delete => "delete",
                Kind::System => "system",
            };
            let text = format!(
                "{}\t{}\t{kind}\t{} bytes\t{}",
                version.index,
                show_time(version.timestamp_ms),
                version.value_length,
                version.leaf_hash
            );
            output.print(text, version)?;
        }
        cursor = page.next;
        if cursor.is_none() || page.versions.is_empty() {
            return Ok(());
        }
    }
    say("there are older versions: --all lists them");
    Ok(())
}
