//! What entries say about the version of their key before them, held against the entries.
//!
//! Pure. Who has a key index at hand asks it for the version before, and needs [`disagreement`] alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use scribe_proof::LeafIndex;
use scribe_proof::leaf::{Leaf, LeafKind, Prev};

use crate::limits;

/// The newest version of every key, as entry follows entry from the first one on.
#[derive(Debug)]
pub(super) struct Lineage {
    /// By the first half of the key's SHA-256.
    newest: HashMap<[u8; 16], LeafIndex>,
    keys_max: usize,
    /// The entry from which on nothing was compared, for its key was one too many.
    given_up: Option<LeafIndex>,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage::with_keys_max(limits::AUDIT_KEYS_MAX)
    }
}

impl Lineage {
    fn with_keys_max(keys_max: usize) -> Lineage {
        Lineage {
            newest: HashMap::new(),
            keys_max,
            given_up: None,
        }
    }

    /// Takes in the next entry.
    ///
    /// # Errors
    /// In words, how what it says differs from what came before it.
    pub(super) fn follow(&mut self, index: LeafIndex, leaf: &Leaf<'_>) -> Result<(), String> {
        if leaf.kind == LeafKind::System || self.given_up.is_some() {
            return Ok(());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&scribe_proof::sha256(leaf.key).0[..16]);
        let keys = self.newest.len();
        let before = match self.newest.entry(key) {
            Entry::Occupied(mut newest) => Some(newest.insert(index)),
            Entry::Vacant(_) if keys == self.keys_max => {
                self.given_up = Some(index);
                self.newest = HashMap::new();
                return Ok(());
            }
            Entry::Vacant(first) => {
                first.insert(index);
                None
            }
        };
        match disagreement(leaf.prev, before) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// What the reader of a report must know.
    pub(super) fn note(&self) -> Option<String> {
        let index = self.given_up?;
        Some(format!(
            "there are more than {} keys: from entry {index} on, what entries say about the version of their key before \
             them was not compared",
            self.keys_max
        ))
    }
}

/// How what an entry says about the version before it differs from what that is; `None` if it does not.
pub(super) fn disagreement(prev: Prev, before: Option<LeafIndex>) -> Option<String> {
    let found = || match before {
        Some(index) => format!("entry {index} is"),
        None => "there is none".to_owned(),
    };
    match (prev, before) {
        (Prev::NotAsserted, _) | (Prev::None, None) => None,
        (Prev::Version(said), Some(before)) if said == before => None,
        (Prev::None, _) => Some(format!(
            "it says that its key had no version before it: {} one",
            found()
        )),
        (Prev::Version(said), _) => Some(format!(
            "it says that entry {said} is the version of its key before it: {}",
            found()
        )),
    }
}

#[cfg(test)]
mod tests {
    use scribe_proof::Hash;

    use super::*;

    fn follow(lineage: &mut Lineage, index: u64, key: &[u8], prev: Prev) -> Result<(), String> {
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 1,
            transaction_position: 0,
            transaction_length: 1,
            prev,
            commitment: Hash([0; 32]),
            key,
            author: b"",
            body: b"",
        };
        lineage.follow(LeafIndex::new(index), &leaf)
    }

    #[test]
    fn the_version_before_is_the_newest_of_the_same_key() {
        let version = |index| Prev::Version(LeafIndex::new(index));
        let mut lineage = Lineage::default();
        follow(&mut lineage, 1, b"a", Prev::None).unwrap();
        follow(&mut lineage, 2, b"b", Prev::None).unwrap();
        follow(&mut lineage, 3, b"a", Prev::NotAsserted).unwrap();
        follow(&mut lineage, 4, b"a", version(3)).unwrap();
        let error = follow(&mut lineage, 5, b"a", version(3)).unwrap_err();
        assert!(
            error.contains("entry 3 is the version") && error.contains("entry 4 is"),
            "{error}"
        );
        let error = follow(&mut lineage, 6, b"b", Prev::None).unwrap_err();
        assert!(error.contains("entry 2 is one"), "{error}");
        let error = follow(&mut lineage, 7, b"c", version(2)).unwrap_err();
        assert!(error.contains("there is none"), "{error}");
        assert_eq!(lineage.note(), None);
    }

    #[test]
    fn one_key_too_many_is_said_and_accuses_nobody() {
        let mut lineage = Lineage::with_keys_max(1);
        follow(&mut lineage, 1, b"a", Prev::None).unwrap();
        follow(&mut lineage, 2, b"a", Prev::Version(LeafIndex::new(1))).unwrap();
        follow(&mut lineage, 3, b"b", Prev::None).unwrap();
        follow(&mut lineage, 4, b"a", Prev::Version(LeafIndex::new(2))).unwrap();
        assert!(lineage.note().unwrap().contains("from entry 3 on"));
    }
}
