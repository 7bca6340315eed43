//! One entry as readers get it.

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{Leaf, Metadata};

use crate::error::ReadError;
use crate::ledger::batch::PrivateRecord;
use crate::store::StoredEntry;

/// One entry, with what lies beside its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the ledger.
    pub index: LeafIndex,
    /// The encoded leaf.
    pub leaf: Bytes,
    /// Salt, metadata and value; `None` for system entries and erased ones.
    pub private: Option<PrivateRecord>,
}

impl Entry {
    pub(super) fn new(stored: StoredEntry) -> Self {
        Self {
            index: stored.index,
            leaf: stored.leaf,
            private: stored.private,
        }
    }

    /// The leaf's fields. Every stored leaf was checked when it was applied; one that no longer parses is damage.
    pub fn parsed(&self) -> Result<Leaf<'_>, ReadError> {
        Leaf::parse(&self.leaf)
            .map_err(|error| ReadError::Damaged(format!("leaf {}: {error}", self.index)))
    }

    /// RFC 6962 leaf hash.
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.leaf)
    }

    /// The metadata, empty if there is none.
    pub fn metadata(&self) -> Result<Metadata, ReadError> {
        match &self.private {
            Some(private) => Metadata::parse(&private.metadata).map_err(|error| {
                ReadError::Damaged(format!("metadata of entry {}: {error}", self.index))
            }),
            None => Ok(Metadata::default()),
        }
    }

    /// The value, empty if there is none.
    pub fn value(&self) -> Bytes {
        self.private
            .as_ref()
            .map(|private| private.value.clone())
            .unwrap_or_default()
    }

    /// Bytes of the value.
    pub fn value_length(&self) -> usize {
        self.private
            .as_ref()
            .map_or(0, |private| private.value.len())
    }
}
