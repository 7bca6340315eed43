//! `scribe checkpoint`: the newest signed checkpoint, and what it takes to check one.

use std::path::PathBuf;

use serde::Serialize;

use super::ClientArgs;
use super::output::{Failure, print_raw, say};
use super::verify::trust;

/// Print the newest signed checkpoint
///
/// A checkpoint says how many entries the ledger has and what they hash to, signed by the ledger. Keep one in a safe
/// place: later ones can be checked against it (`scribe verify --old`), which shows that nothing was rewritten.
///
/// With --print it prints instead what the node says about itself. A key asked of the node it is to check proves
/// nothing; get it from somewhere else when it matters.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: keep today's checkpoint, checked against the key you know
  $ scribe checkpoint --vkey \"$VKEY\" > checkpoint-$(date +%F).txt"
)]
pub struct Arguments {
    /// Public key of the ledger, or a file that holds it: check the checkpoint before printing it
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    vkey: Option<String>,
    /// File that says whose signatures are needed: check the checkpoint before printing it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What to print
    #[arg(long, value_name = "WHAT", default_value = "checkpoint")]
    print: What,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The newest signed checkpoint.
    Checkpoint,
    /// The ledger's name.
    Origin,
    /// The ledger's public key.
    Vkey,
    /// A policy that asks for the ledger's signature and a majority of the nodes'.
    Policy,
}

#[derive(Serialize)]
struct Shown {
    origin: String,
    tree_size: u64,
    root_hash: String,
    note: String,
    verified: bool,
}

/// Runs the command.
///
/// # Errors
/// No checkpoint yet, or one that does not hold (exit 3).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    if arguments.print != What::Checkpoint {
        let ledger = client.ledger().await?;
        let text = match arguments.print {
            What::Vkey => ledger.verifier_keys.first().cloned().unwrap_or_default(),
            What::Policy => ledger.policy.clone(),
            _ => ledger.origin.clone(),
        };
        return output.print(text, &ledger);
    }
    let trust = trust(arguments.vkey.as_deref(), arguments.policy.as_deref())?;
    let signed = client.checkpoint().await?;
    if let Some(trust) = &trust {
        trust.evaluate(&signed).map_err(|error| {
            Failure::verification(format!("checkpoint does not match: {error}"))
        })?;
        say("the signatures are valid");
    }
    let checkpoint = signed.checkpoint();
    let shown = Shown {
        origin: checkpoint.origin.clone(),
        tree_size: checkpoint.size.get(),
        root_hash: checkpoint.root.to_hex(),
        note: signed.to_text(),
        verified: trust.is_some(),
    };
    match output.is_json() {
        true => output.print("", &shown),
        false => print_raw(shown.note.as_bytes()),
    }
}
