//! `scribe keygen`: a key pair of one's own, for a ledger named in advance or for a witness.

use std::path::PathBuf;

use scribe_proof::KeyType;
use serde::Serialize;

use super::OutputArgs;
use super::output::{Failure, Output, say};
use crate::keys;

/// Make a signing key and print its public half
///
/// A node makes its own keys when it first starts; this is for choosing a ledger's name and key beforehand, and for
/// witnesses. The private key goes to a new file that only you may read; the public key (vkey) goes to stdout, for
/// those who will verify. Keys are in the text form of Go's note package.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: a ledger named before it exists, with the key file where the node looks for it
  $ mkdir -m 700 scribe-keys
  $ scribe keygen --origin example.com/ledger --out scribe-keys/ledger.key
  $ scribe serve"
)]
pub struct Arguments {
    /// Name of the ledger (or witness) the key signs for [default: scribe.invalid/ and part of the key's hash]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    /// New file for the private key
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Make a key that cosigns (type 0x04: a node's or witness's) instead of a ledger's
    #[arg(long, requires = "origin")]
    cosigner: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Made {
    verifier_key: String,
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A name no key may have, or a file that is there already.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let key = match (&arguments.origin, arguments.cosigner) {
        (Some(name), true) => keys::new_key(name, KeyType::Cosignature)?,
        (origin, _) => keys::new_ledger_key(origin.as_deref())?,
    };
    keys::write_new_key(&arguments.out, &key)?;
    say(format_args!(
        "private key written to {}",
        arguments.out.display()
    ));
    let made = Made {
        verifier_key: key.verifier_key().to_text(),
        file: arguments.out,
    };
    Output::new(arguments.output.output).print(&made.verifier_key, &made)
}
