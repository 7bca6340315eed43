//! `scribe verify`: receipts and checkpoints, checked without a network.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use scribe_proof::policy::Trust;
use scribe_proof::{
    Checkpoint, CheckpointError, Entry, Hash, Included, LeafKind, Policy, Receipt, ReceiptError,
    SignedCheckpoint, VerifierKey, consistency,
};
use serde::Serialize;

use super::OutputArgs;
use super::output::{Failure, Output, show_key, show_time};

/// Bytes of the value that are held at once while it is hashed.
const VALUE_CHUNK: usize = 64 * 1024;
/// Longest policy file that is read.
pub(super) const POLICY_LENGTH_MAX: u64 = 256 * 1024;
/// Longest checkpoint or proof file that is read.
pub(super) const SMALL_FILE_LENGTH_MAX: u64 = 128 * 1024;

/// Check a receipt, or two checkpoints, offline
///
/// A receipt (from `scribe prove`) proves that one version of one key is in the ledger. Say what you trust with --vkey
/// (the ledger's public key) or --policy (which also asks for the nodes' cosignatures), and take both from somewhere
/// other than the server that made the receipt. Key, index, kind and time of the entry are always printed: read them,
/// or pass --entry-key, because somebody else's valid receipt is valid too.
///
/// A receipt does not prove that the version is the newest one, nor that any other entry does not exist.
///
/// With --old, --new and --proof it checks instead that one checkpoint's ledger grew out of the other's.
///
/// Exit 3 means that something does not match; the message says what.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe verify greeting.tlog-proof --value greeting.txt --entry-key greeting --vkey \"$VKEY\"

Example: nothing was rewritten between yesterday's checkpoint and today's
  $ curl -s 'http://127.0.0.1:8001/v1/proofs/consistency?old=1000&new=2000' > proof.json
  $ scribe verify --old yesterday.txt --new today.txt --proof proof.json --vkey \"$VKEY\"")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["receipt", "old"])))]
pub struct Arguments {
    /// Receipt to check
    #[arg(value_name = "RECEIPT", conflicts_with_all = ["old", "new", "proof"])]
    receipt: Option<PathBuf>,
    /// File with the value; without it only the entry's existence is checked
    #[arg(long, value_name = "FILE", conflicts_with = "old")]
    value: Option<PathBuf>,
    /// Public key of the ledger, or a file that holds it
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    vkey: Option<String>,
    /// File that says whose signatures are needed (c2sp.org/tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The entry must have this key
    #[arg(long, value_name = "KEY", conflicts_with = "old")]
    entry_key: Option<std::ffi::OsString>,
    /// Older checkpoint
    #[arg(long, value_name = "FILE", requires_all = ["new", "proof"])]
    old: Option<PathBuf>,
    /// Newer checkpoint
    #[arg(long, value_name = "FILE", requires = "old")]
    new: Option<PathBuf>,
    /// Consistency proof: what GET /v1/proofs/consistency returns, or one base64 hash per line
    #[arg(long, value_name = "FILE", requires = "old")]
    proof: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
///
/// # Errors
/// Exit 3 if anything does not match, exit 1 if a file cannot be read.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.output.output);
    let trust = trust(arguments.vkey.as_deref(), arguments.policy.as_deref())?;
    match (
        &arguments.receipt,
        &arguments.old,
        &arguments.new,
        &arguments.proof,
    ) {
        (Some(receipt), ..) => verify_receipt(&arguments, receipt, trust, output),
        (None, Some(old), Some(new), Some(proof)) => {
            verify_growth(old, new, proof, trust.as_deref(), output)
        }
        _ => Err(Failure::user("pass a receipt, or --old, --new and --proof")),
    }
}

type Trusted = Box<dyn Trust>;

/// Whom the user trusts, if they said so.
pub(super) fn trust(vkey: Option<&str>, policy: Option<&Path>) -> Result<Option<Trusted>, Failure> {
    if let Some(path) = policy {
        return Ok(Some(Box::new(read_policy(path)?)));
    }
    match vkey {
        None => Ok(None),
        Some(vkey) => Ok(Some(Box::new(read_vkey(vkey)?))),
    }
}

/// As [`trust`], in the form of a policy: the ledger's key alone asks for no cosignatures.
pub(super) fn trusted_policy(
    vkey: Option<&str>,
    policy: Option<&Path>,
) -> Result<Option<Policy>, Failure> {
    match (vkey, policy) {
        (None, None) => Ok(None),
        (_, Some(path)) => read_policy(path).map(Some),
        (Some(vkey), None) => Policy::from_key(read_vkey(vkey)?)
            .map(Some)
            .map_err(|error| Failure::user(format!("cannot use --vkey: {error}"))),
    }
}

fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let text = read_text(path, POLICY_LENGTH_MAX)?;
    Policy::parse(&text)
        .map_err(|error| Failure::user(format!("cannot read policy `{}`: {error}", path.display())))
}

fn read_vkey(vkey: &str) -> Result<VerifierKey, Failure> {
    // A verifier key always has a `+`; a file of that name is still a file.
    let path = Path::new(vkey);
    let text = match path.is_file() {
        true => read_text(path, SMALL_FILE_LENGTH_MAX)?,
        false => vkey.to_owned(),
    };
    VerifierKey::parse(text.trim()).map_err(|error| {
        Failure::user(format!("cannot read --vkey: {error}"))
            .hint("the node prints it when it starts; `scribe checkpoint --print vkey` asks for it")
    })
}

/// A signed checkpoint from a file; a file that is none is a mistake of the user's. No signature is checked.
pub(super) fn read_signed(path: &Path) -> Result<SignedCheckpoint, Failure> {
    let text = read_proof_text(path)?;
    SignedCheckpoint::parse(&text).map_err(|error| {
        Failure::user(format!(
            "`{}` is no signed checkpoint: {error}",
            path.display()
        ))
        .hint("`scribe checkpoint > FILE` writes one")
    })
}

fn verify_receipt(
    arguments: &Arguments,
    path: &Path,
    trust: Option<Trusted>,
    output: Output,
) -> Result<(), Failure> {
    let Some(trust) = trust else {
        return Err(Failure::user(
            "a receipt is checked against what you trust: pass --vkey or --policy",
        )
        .hint("the node prints its public key (vkey) when it starts"));
    };
    let text = read_proof_text(path)?;
    let receipt = Receipt::parse(&text).map_err(|error| mismatch(path, &error))?;
    let entry = receipt
        .verify(trust.as_ref())
        .map_err(|error| mismatch(path, &error))?;

    // From here on the entry is in the ledger; whether it is the one the user means is what remains. It is printed
    // before the remaining checks, so that a mismatch shows what the receipt is really about.
    let value_checked = arguments.value.is_some() && entry.get().kind == LeafKind::Put;
    let checks = check_entry(arguments, &entry);
    let report = Report::new(&entry, checks.is_ok(), checks.is_ok() && value_checked);
    output.print(report.to_text(), &report)?;
    checks.map_err(|error| match error {
        Check::Mismatch(error) => mismatch(path, &error),
        Check::Failed(failure) => failure,
    })
}

enum Check {
    Mismatch(ReceiptError),
    Failed(Failure),
}

fn check_entry(arguments: &Arguments, entry: &Included<Entry>) -> Result<(), Check> {
    if let Some(key) = &arguments.entry_key {
        let key = super::key_bytes(key, false).map_err(Check::Failed)?;
        entry.get().check_key(&key).map_err(Check::Mismatch)?;
    }
    let Some(path) = &arguments.value else {
        return Ok(());
    };
    if entry.get().kind != LeafKind::Put {
        return Err(Check::Failed(Failure::verification(format!(
            "value does not match: the entry is a {} and has no value",
            kind_name(entry.get().kind)
        ))));
    }
    let failed = |error: std::io::Error| Check::Failed(Failure::file("read value", path, &error));
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut hasher = entry.get().value_hasher(length).map_err(Check::Mismatch)?;
    let mut chunk = vec![0; VALUE_CHUNK];
    loop {
        let read = file.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    let changed = |_| {
        Check::Failed(Failure::unexpected(format!(
            "`{}` changed while it was read",
            path.display()
        )))
    };
    let computed = hasher.finish().map_err(changed)?;
    entry
        .get()
        .check_commitment(computed)
        .map_err(Check::Mismatch)?;
    Ok(())
}

/// A receipt that does not hold, with what usually explains it.
fn mismatch(path: &Path, error: &ReceiptError) -> Failure {
    let failure = Failure::verification(format!("verification failed: {error}"));
    match error {
        ReceiptError::EntryKey => failure.hint(
            "the receipt is valid, but for the entry shown above and not for the key you named",
        ),
        ReceiptError::Value { .. } => failure.hint(
            "the value file, or the salt or metadata in the receipt, is not what was appended",
        ),
        ReceiptError::Redacted => failure.hint("leave --value out to check existence only"),
        ReceiptError::Signature(_) | ReceiptError::Origin(_) => {
            failure.hint("is --vkey (or --policy) the one of the ledger that made the receipt?")
        }
        ReceiptError::Line { .. } | ReceiptError::TooLong { .. } => failure.hint(format!(
            "`{}` is no receipt or was changed; `scribe prove` writes receipts",
            path.display()
        )),
        _ => failure.hint("the receipt was changed or damaged"),
    }
}

#[derive(Serialize)]
struct Report {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    index: u64,
    kind: &'static str,
    timestamp_ms: u64,
    time: String,
    value_checked: bool,
    leaf_hash: String,
    origin: String,
    tree_size: u64,
    root_hash: String,
    cosigners: Vec<String>,
    #[serde(skip)]
    shown_key: String,
}

impl Report {
    fn new(included: &Included<Entry>, valid: bool, value_checked: bool) -> Report {
        let entry = included.get();
        let (key, key_base64) = scribe_client::wire::bytes::to_members(&entry.key);
        Report {
            valid,
            key,
            key_base64,
            index: included.index().get(),
            kind: kind_name(entry.kind),
            timestamp_ms: entry.timestamp_ms,
            time: show_time(entry.timestamp_ms),
            value_checked,
            leaf_hash: entry.leaf_hash.to_hex(),
            origin: included.origin().to_owned(),
            tree_size: included.tree_size().get(),
            root_hash: included.root().to_hex(),
            cosigners: included
                .cosigners()
                .iter()
                .map(|cosigner| cosigner.name.clone())
                .collect(),
            shown_key: show_key(&entry.key),
        }
    }

    fn to_text(&self) -> String {
        let verdict = match (self.valid, self.value_checked) {
            (true, true) => "valid",
            (true, false) => "valid (existence only: no value was checked)",
            (false, _) => "DOES NOT MATCH",
        };
        let cosigners = match self.cosigners.is_empty() {
            true => String::new(),
            false => format!(", cosigned by {}", self.cosigners.join(", ")),
        };
        format!(
            "{verdict}\nkey    {}\nindex  {}\nkind   {}\ntime   {}\nledger {} (tree size {}{cosigners})\n",
            self.shown_key, self.index, self.kind, self.time, self.origin, self.tree_size,
        )
    }
}

fn kind_name(kind: LeafKind) -> &'static str {
    match kind {
        LeafKind::Put => "put",
        LeafKind::Delete => "delete",
        LeafKind::System => "system",
    }
}

#[derive(Serialize)]
struct Growth {
    valid: bool,
    origin: String,
    old_size: u64,
    new_size: u64,
    signatures_checked: bool,
}

fn verify_growth(
    old_path: &Path,
    new_path: &Path,
    proof_path: &Path,
    trust: Option<&dyn Trust>,
    output: Output,
) -> Result<(), Failure> {
    let old = read_checkpoint(old_path, trust)?;
    let new = read_checkpoint(new_path, trust)?;
    if old.origin != new.origin {
        return Err(Failure::verification(format!(
            "origin does not match: the old checkpoint is of `{}`, the new one of `{}`",
            old.origin, new.origin
        )));
    }
    let proof = read_proof(proof_path)?;
    consistency::verify(old.size, &old.root, new.size, &new.root, &proof)
        .map_err(|error| Failure::verification(format!("consistency does not match: {error}")))?;
    let growth = Growth {
        valid: true,
        origin: new.origin,
        old_size: old.size.get(),
        new_size: new.size.get(),
        signatures_checked: trust.is_some(),
    };
    let signatures = match growth.signatures_checked {
        true => "",
        false => " (signatures not checked: no --vkey or --policy)",
    };
    let text = format!(
        "valid{signatures}\norigin {}\nthe first {} entries are the same in the tree of {}\n",
        growth.origin, growth.old_size, growth.new_size
    );
    output.print(text, &growth)
}

fn read_checkpoint(path: &Path, trust: Option<&dyn Trust>) -> Result<Checkpoint, Failure> {
    let text = read_proof_text(path)?;
    let failed = |error: String| {
        Failure::verification(format!(
            "checkpoint `{}` does not match: {error}",
            path.display()
        ))
    };
    let signed = SignedCheckpoint::parse(&text)
        .map_err(|error: CheckpointError| failed(error.to_string()))?;
    if let Some(trust) = trust {
        trust
            .evaluate(&signed)
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(signed.checkpoint().clone())
}

/// A proof as the node returns it (JSON), or one base64 hash per line.
fn read_proof(path: &Path) -> Result<Vec<Hash>, Failure> {
    let text = read_text(path, SMALL_FILE_LENGTH_MAX)?;
    if text.trim_start().starts_with('{') {
        let proof: scribe_client::wire::ConsistencyProof =
            serde_json::from_str(&text).map_err(|error| {
                Failure::user(format!(
                    "`{}` is not a consistency proof: {error}",
                    path.display()
                ))
            })?;
        return Ok(proof.hashes.iter().map(|hash| Hash(hash.0)).collect());
    }
    let mut hashes = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        hashes.push(Hash::from_base64(line.trim()).map_err(|error| {
            Failure::user(format!("`{}` line {}: {error}", path.display(), number + 1))
        })?);
    }
    Ok(hashes)
}

/// A file that is checked: bytes that are no text are damage, not a mistake of the user's.
fn read_proof_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path, SMALL_FILE_LENGTH_MAX)?).map_err(|error| {
        Failure::verification(format!(
            "verification failed: `{}` is no text from byte {} on",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
        .hint("the file was changed or damaged")
    })
}

/// A text file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path, limit)?)
        .map_err(|_| Failure::user(format!("`{}` must be UTF-8 text", path.display())))
}

/// A file of at most `limit` bytes.
fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::user(format!(
            "`{}` is longer than the {limit} bytes allowed for such a file",
            path.display()
        )));
    }
    Ok(bytes)
}
