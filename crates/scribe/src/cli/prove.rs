//! `scribe prove`: fetches receipts.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use scribe_client::Client;
use scribe_client::wire::bytes::to_members;
use scribe_proof::{Leaf, LeafIndex, Receipt};
use serde::Serialize;

use super::output::{Failure, Output, print_raw, say, show_key, show_time};
use super::{ClientArgs, key_bytes};
use crate::limits;

/// Longest file of keys that is read: a million of the longest in base64.
const KEYS_FILE_LENGTH_MAX: u64 = 1 << 31;

/// Fetch a receipt: proof that a version is in the ledger
///
/// A receipt is a small text file. With the value and the ledger's public key anyone can check it offline, for ever,
/// without asking this node: `scribe verify`. If no checkpoint covers the version yet, one is made first.
///
/// Several keys at once go to a directory, one file each, named by the leaf index. Up to 1,000 receipts are made under
/// one checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe prove greeting --out greeting.tlog-proof
  $ scribe get greeting --out greeting.txt
  $ scribe verify greeting.tlog-proof --value greeting.txt --entry-key greeting --vkey \"$VKEY\"

Example: receipts for every key under a prefix
  $ scribe list --prefix invoices/ --all | cut -f2 | scribe prove --keys-from - --out-dir receipts")]
#[command(group(clap::ArgGroup::new("where").required(true).args(["out", "out_dir"])))]
#[command(group(clap::ArgGroup::new("which").required(true).args(["keys", "keys_from"])))]
pub struct Arguments {
    /// The key, taken byte for byte; several with --out-dir
    #[arg(value_name = "KEY")]
    keys: Vec<OsString>,
    /// File with a key per line, taken byte for byte; `-` is stdin
    #[arg(long, value_name = "FILE", requires = "out_dir")]
    keys_from: Option<PathBuf>,
    /// KEY is base64, for keys that no command line can hold
    #[arg(long)]
    base64: bool,
    /// File for the receipt; `-` is stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Directory for receipts, each in a file `INDEX.tlog-proof`
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// The version with this index [default: the newest]
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["out_dir", "keys_from"])]
    index: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct Proved {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    index: u64,
    timestamp_ms: u64,
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// No such key or version, no checkpoint in time, or a receipt for something else than was asked for (exit 3).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let keys = keys_of(&arguments)?;
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    match (&arguments.out_dir, &arguments.out) {
        (Some(directory), _) => prove_all(&client, &keys, directory, output).await,
        (None, Some(file)) => match keys.as_slice() {
            [key] => prove_one(&client, key, arguments.index, file, output).await,
            keys => Err(Failure::user(format!(
                "--out takes the receipt of one key, found {} keys",
                keys.len()
            ))
            .hint("--out-dir takes several")),
        },
        // The group of arguments asks for one of them.
        (None, None) => Err(Failure::user("--out or --out-dir is needed")),
    }
}

fn keys_of(arguments: &Arguments) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(path) = &arguments.keys_from else {
        let keys = arguments.keys.iter();
        return keys.map(|key| key_bytes(key, arguments.base64)).collect();
    };
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let text = match path.as_os_str() == "-" {
        true => {
            let mut text = Vec::new();
            let mut stdin = std::io::Read::take(std::io::stdin().lock(), KEYS_FILE_LENGTH_MAX);
            std::io::Read::read_to_end(&mut stdin, &mut text).map_err(failed)?;
            text
        }
        false => {
            let length = fs::metadata(path).map_err(failed)?.len();
            if length > KEYS_FILE_LENGTH_MAX {
                return Err(Failure::user(format!(
                    "`{}` is {length} bytes long, allowed are {KEYS_FILE_LENGTH_MAX}",
                    path.display()
                )));
            }
            fs::read(path).map_err(failed)?
        }
    };
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| key_bytes(std::ffi::OsStr::from_bytes(line), arguments.base64))
        .collect()
}

async fn prove_one(
    client: &Client,
    key: &[u8],
    index: Option<u64>,
    path: &Path,
    output: Output,
) -> Result<(), Failure> {
    let mut request = client.receipt(key);
    if let Some(index) = index {
        request = request.index(index);
    }
    let receipt = request.send().await?;
    let timestamp_ms = expect_entry(&receipt, key)?;
    if index.is_some_and(|index| LeafIndex::new(index) != receipt.index) {
        return Err(Failure::verification(format!(
            "the node's receipt is for index {}, asked for was another",
            receipt.index
        )));
    }
    if path.as_os_str() == "-" {
        return print_raw(receipt.to_text().as_bytes());
    }
    let proved = write(&receipt, key, timestamp_ms, path)?;
    if output.is_json() {
        return output.print("", &proved);
    }
    say(format_args!(
        "receipt for index {}, appended {}, written to {}",
        proved.index,
        show_time(timestamp_ms),
        path.display()
    ));
    Ok(())
}

async fn prove_all(
    client: &Client,
    keys: &[Vec<u8>],
    directory: &Path,
    output: Output,
) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| Failure::file("create", directory, &error))?;
    let mut refused = Vec::new();
    for keys in keys.chunks(limits::RECEIPTS_MAX) {
        let batch = keys
            .iter()
            .fold(client.receipts(), |batch, key| batch.key(key));
        for (key, answer) in keys.iter().zip(batch.send().await?) {
            let receipt = match answer {
                Ok(receipt) => receipt,
                Err(problem) => {
                    refused.push(format!("`{}`: {}", show_key(key), problem.detail));
                    continue;
                }
            };
            let timestamp_ms = expect_entry(&receipt, key)?;
            let path = directory.join(format!("{}.tlog-proof", receipt.index));
            let proved = write(&receipt, key, timestamp_ms, &path)?;
            output.print(
                format_args!("{}\t{}", path.display(), show_key(key)),
                &proved,
            )?;
        }
    }
    let Some(first) = refused.first() else {
        return Ok(());
    };
    Err(Failure::user(format!(
        "{} of {} keys have no receipt; the first is {first}",
        refused.len(),
        keys.len()
    )))
}

/// When the entry was appended, if the receipt is for this key. Nothing is trusted here, `verify` decides; but a receipt
/// for another entry is of no use to anyone.
fn expect_entry(receipt: &Receipt, key: &[u8]) -> Result<u64, Failure> {
    let leaf = Leaf::parse(&receipt.leaf).map_err(|error| {
        Failure::verification(format!("the node's receipt has no leaf: {error}"))
    })?;
    if leaf.key != key {
        return Err(Failure::verification(format!(
            "the node's receipt is for key `{}`, asked for was `{}`",
            show_key(leaf.key),
            show_key(key)
        )));
    }
    Ok(leaf.timestamp_ms)
}

fn write(receipt: &Receipt, key: &[u8], timestamp_ms: u64, path: &Path) -> Result<Proved, Failure> {
    fs::write(path, receipt.to_text()).map_err(|error| Failure::file("write", path, &error))?;
    let (key, key_base64) = to_members(key);
    Ok(Proved {
        key,
        key_base64,
        index: receipt.index.get(),
        timestamp_ms,
        file: path.to_owned(),
    })
}
