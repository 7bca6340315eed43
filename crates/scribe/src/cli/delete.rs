//! `scribe delete`: appends a tombstone.

use super::output::Failure;
use super::put::show_appended;
use super::{ClientArgs, KeyArgs};

/// Append a tombstone: the key has no value from here on
///
/// Nothing is removed: earlier versions stay readable with `scribe get --index` and provable with `scribe prove
/// --index`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe delete config/limits --if-index 41")]
pub struct Arguments {
    #[command(flatten)]
    key: KeyArgs,
    /// Only if the key's newest version has this index
    #[arg(long, value_name = "INDEX")]
    if_index: Option<u64>,
    /// Makes running the same command again safe, for 24 hours
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// A condition that does not hold, a node that cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = arguments.key.bytes()?;
    let client = arguments.client.connect()?;
    let mut delete = client.delete(&key);
    if let Some(index) = arguments.if_index {
        delete = delete.if_index(index);
    }
    if let Some(key) = arguments.idempotency_key {
        delete = delete.idempotency_key(key);
    }
    let appended = delete.send().await?;
    arguments
        .client
        .output()
        .print(show_appended(&appended), &appended)
}
