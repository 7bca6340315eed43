//! `scribe prove`: fetches a receipt.

use std::path::PathBuf;

use scribe_proof::{Leaf, LeafIndex};
use serde::Serialize;

use super::output::{Failure, print_raw, say, show_key, show_time};
use super::{ClientArgs, KeyArgs};

/// Fetch a receipt: proof that a version is in the ledger
///
/// A receipt is a small text file. With the value and the ledger's public key anyone can check it offline, for ever,
/// without asking this node: `scribe verify`. If no checkpoint covers the version yet, one is made first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe prove greeting --out greeting.tlog-proof
  $ scribe get greeting --out greeting.txt
  $ scribe verify greeting.tlog-proof --value greeting.txt --entry-key greeting --vkey \"$VKEY\"")]
pub struct Arguments {
    #[command(flatten)]
    key: KeyArgs,
    /// File for the receipt; `-` is stdout
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The version with this index [default: the newest]
    #[arg(long, value_name = "INDEX")]
    index: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct Proved {
    index: u64,
    timestamp_ms: u64,
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// No such key or version, no checkpoint in time, or a receipt for something else than was asked for (exit 3).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = arguments.key.bytes()?;
    let client = arguments.client.connect()?;
    let mut request = client.receipt(&key);
    if let Some(index) = arguments.index {
        request = request.index(index);
    }
    let receipt = request.send().await?;
    // Nothing is trusted here, `verify` decides; but a receipt for another entry is of no use to anyone.
    let leaf = Leaf::parse(&receipt.leaf).map_err(|error| {
        Failure::verification(format!("the node's receipt has no leaf: {error}"))
    })?;
    if leaf.key != key {
        return Err(Failure::verification(format!(
            "the node's receipt is for key `{}`, asked for was `{}`",
            show_key(leaf.key),
            show_key(&key)
        )));
    }
    if arguments
        .index
        .is_some_and(|index| LeafIndex::new(index) != receipt.index)
    {
        return Err(Failure::verification(format!(
            "the node's receipt is for index {}, asked for was another",
            receipt.index
        )));
    }
    let (index, timestamp_ms, text) = (receipt.index.get(), leaf.timestamp_ms, receipt.to_text());
    if arguments.out.as_os_str() == "-" {
        return print_raw(text.as_bytes());
    }
    std::fs::write(&arguments.out, text)
        .map_err(|error| Failure::file("write", &arguments.out, &error))?;
    let shown = format!(
        "receipt for index {index}, appended {}, written to {}",
        show_time(timestamp_ms),
        arguments.out.display()
    );
    let output = arguments.client.output();
    if output.is_json() {
        return output.print(
            "",
            &Proved {
                index,
                timestamp_ms,
                file: arguments.out,
            },
        );
    }
    say(shown);
    Ok(())
}
