//! The audit: everything a ledger promises, derived again from its bytes, from one of three places.
//!
//! - [`live`](live::audit): a running node, through its HTTP API, up to its newest checkpoint;
//! - [`directory`](directory::audit): the data directory of a stopped node, every file in it;
//! - [`tiles`](tiles::audit): a tile directory, as a web server or a bucket serves it.
//!
//! Each reads every entry, opens every commitment with salt, metadata and value, derives the tree, and compares it with
//! what is signed or stored. The first thing that does not hold is a [`Finding`] that names the place.
//!
//! An audit changes nothing: it opens files to read, and reads the key index through a copy of the names of its files.
//! It is *not* a repair ([`crate::repair`] is), it does not run consensus, and it proves nothing about what a node keeps
//! to itself: that a version is its key's latest, or that an entry nobody was shown does not exist.
//!
//! Memory is bounded whatever the size: the right edge of the tree instead of its hashes, one segment's hashes per
//! worker, one page or one tile at a time, half a hash of each key up to a limit.

mod checkpoint;
pub mod directory;
mod entries;
mod lineage;
pub mod live;
mod parallel;
pub mod tiles;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use scribe_proof::policy::Policy;
use scribe_proof::{Hash, SignedCheckpoint, TreeSize};
use serde::Serialize;

pub use self::checkpoint::Signatures;

/// What the ledger is measured against.
#[derive(Debug, Clone, Default)]
pub struct AuditOptions {
    /// Whose signatures count. Without one, signatures are only compared with what the ledger says about itself.
    pub policy: Option<Policy>,
    /// An earlier checkpoint somebody kept: the ledger must have grown out of it.
    pub pinned: Option<SignedCheckpoint>,
    /// The key directory of a stopped node: the ledger must have the head signed last.
    pub key_dir: Option<PathBuf>,
    /// Whether to leave the key index of a data directory alone: it is derived, and comparing it with the entries takes
    /// as long as everything else.
    pub skip_index: bool,
}

/// Told how much of how much is done, in bytes for files and in entries for a live node. Called from several threads.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What an audit looked at, and what it found to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// `live`, `directory` or `tiles`.
    pub source: &'static str,
    /// Name of the ledger, where the source says it.
    pub origin: Option<String>,
    /// Entries read: the tree size that was derived.
    pub tree_size: u64,
    /// Root hash over them, derived; hexadecimal.
    pub root_hash: String,
    /// Values (with salt and metadata) whose hash is the commitment in the leaf. Tombstones count.
    pub values: u64,
    /// System entries: they have no value.
    pub system_entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files compared; 0 for a live node.
    pub files: u64,
    /// Heads inside the ledger (agreed by its nodes) that the derived tree agrees with.
    pub agreed_heads: u64,
    /// Tree size of the checkpoint the derived tree was compared with, if there was one.
    pub checkpoint_size: Option<u64>,
    /// Tree size of the earlier checkpoint the ledger grew out of, if one was given.
    pub pinned_size: Option<u64>,
    /// Tree size of the head signed last, if a key directory was given and something was signed.
    pub last_signed_size: Option<u64>,
    /// Who signed the checkpoint.
    pub signatures: Signatures,
    /// What was not looked at, or what a reader should know; whole sentences.
    pub notes: Vec<String>,
}

/// The first thing that does not hold, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Finding {
    /// File (relative to the directory), or route of a live node.
    pub place: String,
    /// Byte in that file, as exactly as it is known.
    pub offset: Option<u64>,
    /// The entry concerned.
    pub index: Option<u64>,
    /// Its key, as people read it.
    pub key: Option<Box<str>>,
    /// The rule, the value found, the value allowed.
    pub reason: String,
    /// What may explain it, and what to do.
    pub hint: Option<Box<str>>,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Finding {
        Finding {
            place: place.into(),
            reason: reason.into(),
            ..Finding::default()
        }
    }

    pub(crate) fn at(mut self, offset: u64) -> Finding {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn entry(mut self, index: u64) -> Finding {
        self.index = Some(index);
        self
    }

    pub(crate) fn key(mut self, key: &[u8]) -> Finding {
        if !key.is_empty() {
            self.key = Some(show_key(key).into());
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<Box<str>>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        if let Some(index) = self.index {
            write!(f, ", entry {index}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key {key:?}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Why an audit ended early.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Something does not hold.
    #[error("{0}")]
    Finding(Box<Finding>),
    /// The request makes no sense; trying again fails again.
    #[error("{message}")]
    User {
        /// The rule, the value found, the value allowed.
        message: String,
        /// A next step.
        hint: String,
    },
    /// The system or the network failed: what was to be read may be good or bad.
    #[error("{0}")]
    Unexpected(String),
    /// The node did not answer as it must.
    #[error(transparent)]
    Client(#[from] scribe_client::Error),
}

impl From<Finding> for AuditError {
    fn from(finding: Finding) -> AuditError {
        AuditError::Finding(Box::new(finding))
    }
}

impl AuditError {
    pub(crate) fn io(place: impl fmt::Display, error: &std::io::Error) -> AuditError {
        AuditError::Unexpected(format!("cannot read `{place}`: {error}"))
    }
}

/// Roots the derived tree must have at certain sizes, and who says so.
#[derive(Debug, Default)]
struct Expected {
    roots: BTreeMap<u64, Vec<(Hash, String)>>,
    /// The smallest size that is still awaited.
    next: u64,
}

impl Expected {
    fn add(&mut self, size: TreeSize, root: Hash, who: impl Into<String>) {
        let at = self.roots.entry(size.get()).or_default();
        at.push((root, who.into()));
        self.next = self.roots.keys().next().copied().unwrap_or(u64::MAX);
    }

    /// Whether a root is awaited at this size: cheap, asked for every entry.
    fn awaits(&self, size: TreeSize) -> bool {
        !self.roots.is_empty() && self.next == size.get()
    }

    /// Compares what is awaited at this size.
    fn check(&mut self, size: TreeSize, root: Hash, place: &str) -> Result<(), Finding> {
        let Some(awaited) = self.roots.remove(&size.get()) else {
            return Ok(());
        };
        self.next = self.roots.keys().next().copied().unwrap_or(u64::MAX);
        for (expected, who) in awaited {
            if expected != root {
                return Err(Finding::new(
                    place,
                    format!(
                        "the entries do not give the root hash of {who}: at tree size {size} they give {root}, it has {expected}"
                    ),
                )
                .hint("keep both: if the checkpoint's signatures are good, the ledger was rewritten"));
            }
        }
        Ok(())
    }

    /// Whoever awaits a larger tree than there is.
    fn finish(&self, size: TreeSize, place: &str) -> Result<(), Finding> {
        match self.roots.first_key_value() {
            None => Ok(()),
            Some((awaited, who)) => Err(Finding::new(
                place,
                format!(
                    "the ledger ends at tree size {size}; {} has tree size {awaited}",
                    who.first().map_or("a checkpoint", |(_, who)| who)
                ),
            )
            .hint(
                "entries that were signed are not here: an older copy, a node that lags, or a loss",
            )),
        }
    }
}

/// A key as people read it: text where it is printable, `base64:…` otherwise.
pub(crate) fn show_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) && !text.starts_with("base64:") => {
            text.to_owned()
        }
        _ => format!("base64:{}", scribe_client::wire::bytes::to_base64(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_it_is() {
        let finding = Finding::new("log/x.seg", "wrong").at(7).entry(3).key(b"k");
        assert_eq!(
            finding.to_string(),
            "log/x.seg, byte 7, entry 3, key \"k\": wrong"
        );
        assert_eq!(Finding::new("vote", "gone").to_string(), "vote: gone");
        let key = Finding::default().key(b"\xff").key;
        assert_eq!(key.as_deref(), Some("base64:/w=="));
    }

    #[test]
    fn every_awaited_root_is_compared_and_none_is_forgotten() {
        let root = |byte| Hash([byte; 32]);
        let mut expected = Expected::default();
        assert!(!expected.awaits(TreeSize::new(0)));
        expected.add(TreeSize::new(5), root(1), "one");
        expected.add(TreeSize::new(5), root(1), "two");
        expected.add(TreeSize::new(3), root(2), "three");
        assert!(expected.awaits(TreeSize::new(3)) && !expected.awaits(TreeSize::new(5)));
        expected.check(TreeSize::new(3), root(2), "x").unwrap();
        assert!(
            expected
                .finish(TreeSize::new(4), "x")
                .unwrap_err()
                .reason
                .contains("one")
        );
        assert!(expected.awaits(TreeSize::new(5)));
        assert!(expected.check(TreeSize::new(5), root(9), "x").is_err());
        expected.finish(TreeSize::new(5), "x").unwrap();
    }
}
