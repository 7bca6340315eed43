//! `scribe cluster rotate-key`: a new signing key for the ledger.

use super::super::ClientArgs;
use super::super::output::{Failure, print_raw, say};

/// Put a new key in the place of the ledger's signing key
///
/// The leader makes the key, every voter stores it, and an entry signed by both keys says so; a node that runs alone does
/// the same by itself. From then on checkpoints are signed by both keys for 30 days of ledger time, then by the new one
/// only. Whoever verifies moves to the new key with `scribe policy update`, or asks you for the key that is printed.
///
/// Refused while a voter cannot be reached. The old key file stays where it is and signs nothing more after the 30 days.
/// If the old key was stolen, its holder can sign as the ledger for whoever trusts that key alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe cluster rotate-key > new-ledger.vkey")]
pub struct Arguments {
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses (exit 1), or nobody leads it.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = arguments.client.output();
    let rotated = arguments.client.connect()?.rotate_ledger_key().await?;
    if output.is_json() {
        return output.print("", &rotated);
    }
    print_raw(format!("{}\n", rotated.verifier_key).as_bytes())?;
    say(format_args!(
        "the ledger has a new key since entry {}; both sign for 30 days",
        rotated.index
    ));
    Ok(())
}
