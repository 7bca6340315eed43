//! `scribe policy`: whom you trust, as a file; one file per verb.
//!
//! Rules and edits are [`scribe_proof::policy_update`]'s; this only asks, shows and writes.

mod check;
mod show;
mod update;

use std::path::Path;

use scribe_proof::{Policy, SignedCheckpoint};

use super::output::Failure;
use super::verify::{POLICY_LENGTH_MAX, SMALL_FILE_LENGTH_MAX, read_text};

/// Show, check and update the file that says whose signatures you ask for
///
/// A policy (c2sp.org/tlog-policy) names the ledger's key and how many of its nodes, and of outside witnesses, must have
/// cosigned a checkpoint before you believe it. One member that is stolen can sign as the ledger; it cannot cosign for a
/// majority.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Example: begin to trust a ledger, by a way you trust, and keep up with it
  $ scribe policy show > ledger.policy                 (compare it with what somebody else sees)
  $ scribe checkpoint --policy ledger.policy > pinned.txt
  $ scribe policy check ledger.policy --checkpoint pinned.txt
  later, when nodes were added or the ledger's key was rotated:
  $ scribe policy update --policy ledger.policy --out ledger.policy --pin pinned.txt"
)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Show(show::Arguments),
    Check(check::Arguments),
    Update(update::Arguments),
}

/// Runs the command.
///
/// # Errors
/// Those of its verbs.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Show(arguments) => show::run(arguments).await,
        Verb::Check(arguments) => check::run(arguments).await,
        Verb::Update(arguments) => update::run(arguments).await,
    }
}

/// A policy's text, and what it says.
fn read_policy(path: &Path) -> Result<(String, Policy), Failure> {
    let text = read_text(path, POLICY_LENGTH_MAX)?;
    match Policy::parse(&text) {
        Ok(policy) => Ok((text, policy)),
        Err(error) => Err(Failure::user(format!(
            "cannot read policy `{}`: {error}",
            path.display()
        ))),
    }
}

/// A checkpoint from a file; nothing in it is checked.
fn read_checkpoint(path: &Path) -> Result<SignedCheckpoint, Failure> {
    let text = read_text(path, SMALL_FILE_LENGTH_MAX)?;
    SignedCheckpoint::parse(&text).map_err(|error| {
        Failure::user(format!(
            "cannot read checkpoint `{}`: {error}",
            path.display()
        ))
    })
}
