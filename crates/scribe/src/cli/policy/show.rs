//! `scribe policy show`: the policy a node proposes.

use super::super::ClientArgs;
use super::super::output::{Failure, print_raw, say};

/// Print the policy a node proposes: the ledger's key and a majority of its nodes
///
/// It is as trustworthy as the way to the node. Compare it with what others see, or ask over a connection you trust; from
/// then on `scribe policy update` keeps it current without trusting anybody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe policy show --server https://ledger.example > ledger.policy")]
pub struct Arguments {
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = arguments.client.output();
    let ledger = arguments.client.connect()?.ledger().await?;
    if output.is_json() {
        return output.print("", &serde_json::json!({ "policy": ledger.policy }));
    }
    print_raw(ledger.policy.as_bytes())?;
    say("this is the node's own word: compare it with what others see before you trust it");
    Ok(())
}
