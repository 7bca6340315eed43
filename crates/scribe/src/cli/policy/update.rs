//! `scribe policy update`: a policy follows its ledger, as far as the old policy vouches for it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use scribe_client::Client;
use scribe_client::wire::LedgerInfo;
use scribe_client::wire::bytes::from_base64;
use scribe_proof::policy_update::{self, Announced, PolicyChange, PolicyUpdate};
use scribe_proof::{
    Hash, LeafIndex, Policy, PolicyUpdateError, Rotation, SignedCheckpoint, VerifierKey,
    consistency,
};
use serde::Serialize;

use super::super::ClientArgs;
use super::super::output::{Failure, say};
use super::{read_checkpoint, read_policy};

/// Announcements that are looked at: a policy has room for no more.
const ANNOUNCED_MAX: usize = scribe_proof::policy::POLICY_MEMBERS_MAX;

/// Take new nodes and a new ledger key into a policy
///
/// The newest checkpoint must satisfy the old policy, and be consistent with the one in --pin. A new node's key, or a
/// rotation of the ledger's key, is accepted only if the entry that announces it is proved to be in the ledger under that
/// checkpoint. A node leaves only if --remove names it: a server could otherwise shrink the majority. Outside witnesses,
/// groups and comments stay as they are. The new policy is written only if the checkpoint satisfies it, too.
///
/// That a node was announced says that the ledger has it as an entry, not that it is honest: read the difference before
/// you say yes. Receipts from before a rotation are checked with the old policy: keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe policy update --policy ledger.policy --out new.policy --pin pinned.txt --remove node-2")]
pub struct Arguments {
    /// The policy you trust now
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// File for the new policy, replaced as a whole; may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File with an older checkpoint of yours: the newest one must extend it
    #[arg(long, value_name = "FILE")]
    pin: Option<PathBuf>,
    /// A node that leaves, by its name in the policy; may be repeated
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct Updated<'a> {
    changes: Vec<String>,
    left_out: Vec<String>,
    tree_size: u64,
    file: &'a Path,
}

/// Runs the command.
///
/// # Errors
/// Exit 3 if anything the node says does not hold, exit 1 for policies that cannot be updated and for a "no".
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (old_text, old) = read_policy(&arguments.policy)?;
    let client = arguments.client.connect()?;
    let newest = client.checkpoint().await?;
    if let Some(path) = &arguments.pin {
        check_pin(&client, &read_checkpoint(path)?, &newest).await?;
    }
    // Checked here as well as below, so that nothing is fetched on the word of whoever cannot sign.
    old.evaluate(&newest)
        .map_err(|error| failed(PolicyUpdateError::OldNotSatisfied(error)))?;
    let ledger = client.ledger().await?;
    let announced = fetch(&client, &ledger, &old, &newest).await?;
    let remove: Vec<&str> = arguments.remove.iter().map(String::as_str).collect();
    let update = policy_update::update(&old_text, &newest, &announced, &remove).map_err(failed)?;

    let (changes, left_out) = describe(&update);
    for line in &left_out {
        say(format_args!("left out: {line}"));
    }
    for line in &changes {
        say(line);
    }
    if changes.is_empty() {
        say("nothing to change");
    } else if !arguments.yes {
        confirm()?;
    }
    write_whole(&arguments.out, &update.text)
        .map_err(|error| Failure::file("write", &arguments.out, &error))?;
    let updated = Updated {
        changes,
        left_out,
        tree_size: newest.checkpoint().size.get(),
        file: &arguments.out,
    };
    let output = arguments.client.output();
    if output.is_json() {
        return output.print("", &updated);
    }
    say(format_args!("written to {}", arguments.out.display()));
    Ok(())
}

/// What does not hold is exit 3; what the user asked for and cannot be done is exit 1.
fn failed(error: PolicyUpdateError) -> Failure {
    let text = error.to_string();
    let (rule, hint) = match text.split_once("; hint: ") {
        Some((rule, hint)) => (rule.to_owned(), Some(hint.to_owned())),
        None => (text, None),
    };
    let failure = match &error {
        PolicyUpdateError::Shape { .. }
        | PolicyUpdateError::UnknownNode { .. }
        | PolicyUpdateError::NoNodeLeft
        | PolicyUpdateError::Old(_)
        | PolicyUpdateError::New(_) => Failure::user(rule),
        _ => Failure::verification(rule),
    };
    match (hint, &error) {
        (Some(hint), _) => failure.hint(hint),
        (None, PolicyUpdateError::OldNotSatisfied(_)) => failure.hint(
            "a key that was replaced signs for 30 days beside the new one: if that is longer ago, get the new policy by \
             a way you trust",
        ),
        (None, PolicyUpdateError::NewNotSatisfied(_)) => failure.hint(
            "try again when all nodes run: a checkpoint is cosigned by those that do",
        ),
        _ => failure,
    }
}

/// The newest checkpoint must extend the user's own older one.
async fn check_pin(
    client: &Client,
    pinned: &SignedCheckpoint,
    newest: &SignedCheckpoint,
) -> Result<(), Failure> {
    let (old, new) = (pinned.checkpoint(), newest.checkpoint());
    if old.origin != new.origin {
        return Err(Failure::verification(format!(
            "the node's checkpoint is of {}, the pinned one of {}",
            new.origin, old.origin
        )));
    }
    if old.size > new.size {
        return Err(Failure::verification(format!(
            "the node's newest checkpoint has {} entries, the pinned one {}: entries are missing, or the node holds newer \
             ones back",
            new.size, old.size
        )));
    }
    let proof: Vec<Hash> = if old.size == new.size || old.size.is_empty() {
        Vec::new()
    } else {
        let proof = client.consistency(old.size, new.size).await?;
        proof.hashes.into_iter().map(Hash::from).collect()
    };
    consistency::verify(old.size, &old.root, new.size, &new.root, &proof).map_err(|error| {
        Failure::verification(format!(
            "the node's checkpoint does not extend the pinned one: {error}"
        ))
        .hint("keep both: together they show that history was rewritten")
    })
}

/// The system entries in which the node says that keys the policy does not have are announced, with their proofs. All of
/// it is the node's word until it is checked.
async fn fetch(
    client: &Client,
    ledger: &LedgerInfo,
    old: &Policy,
    newest: &SignedCheckpoint,
) -> Result<Vec<Announced>, Failure> {
    let size = newest.checkpoint().size;
    let mut indexes = Vec::new();
    for note in &ledger.rotations {
        let rotation = Rotation::parse(note).map_err(|error| {
            Failure::verification(format!("a rotation the node shows is refused: {error}"))
        })?;
        indexes.push(rotation.index());
    }
    for announced in &ledger.announcements {
        let known = VerifierKey::parse(&announced.verifier_key)
            .is_ok_and(|key| old.witness_keys().any(|(_, known)| *known == key));
        if !known {
            indexes.push(LeafIndex::new(announced.index));
        }
    }
    if indexes.len() > ANNOUNCED_MAX {
        return Err(Failure::verification(format!(
            "the node names {} entries that announce keys, a policy has room for {ANNOUNCED_MAX}",
            indexes.len()
        )));
    }
    let mut announced = Vec::with_capacity(indexes.len());
    for index in indexes {
        if !size.contains(index) {
            say(format_args!(
                "left out: entry {index}, which no checkpoint covers yet"
            ));
            continue;
        }
        let entry = client.entry(index.get()).raw().send().await?;
        let proof = client.inclusion(index, size).await?;
        let leaf = entry.leaf_base64.unwrap_or_default();
        let leaf = from_base64("leaf", &leaf).map_err(|error| {
            Failure::verification(format!("the node's entry {index} is refused: {error}"))
        })?;
        announced.push(Announced {
            leaf,
            index,
            proof: proof.hashes.into_iter().map(Hash::from).collect(),
        });
    }
    Ok(announced)
}

/// The difference in words.
fn describe(update: &PolicyUpdate) -> (Vec<String>, Vec<String>) {
    let change = |change: &PolicyChange| match change {
        PolicyChange::LedgerKey { old, new, index } => {
            format!("the ledger's key {old} is replaced by {new} (entry {index})")
        }
        PolicyChange::NodeAdded { name, key, index } => {
            format!("+ {name} {key} (entry {index})")
        }
        PolicyChange::NodeRemoved { name } => format!("- {name}"),
        PolicyChange::Threshold { old, new, of } => {
            format!("{new} of {of} nodes must cosign, {old} before")
        }
        other => format!("{other:?}"),
    };
    let left_out = |(key, why): &(VerifierKey, &'static str)| format!("{key}: {why}");
    (
        update.changes.iter().map(change).collect(),
        update.left_out.iter().map(left_out).collect(),
    )
}

fn confirm() -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::user("nobody can be asked whether to accept these changes")
                .hint("--yes accepts them"),
        );
    }
    eprint!("accept these changes? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failure::user("the policy was left as it is")),
    }
}

/// Replaces a file as a whole. A crash before the rename leaves the old one, and perhaps a temporary file.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
