//! Stand-in for the sequencer's public types.

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::Metadata;

use crate::ledger::batch::PrivateRecord;
#[allow(unused_imports)]
use crate::limits;

/// One write as a caller means it.
#[derive(Debug, Clone)]
pub struct Write {
    /// 1 to 1,024 opaque bytes.
    pub key: Bytes,
    /// Put or delete.
    pub kind: WriteKind,
    /// What must hold for it to take effect.
    pub condition: Condition,
    /// Makes a retry of the same request answer with the first outcome, for 24 hours of ledger time.
    pub idempotency_key: Option<String>,
    /// Opaque id of the authenticated principal; empty without authentication.
    pub author: Bytes,
}

/// What a write does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// Appends a version.
    Put {
        /// Content type and user pairs.
        metadata: Metadata,
        /// The value.
        value: Bytes,
    },
    /// Appends a tombstone. History stays.
    Delete,
}

/// A precondition on a key's current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// None: nothing is read.
    None,
    /// The key has no version, or its newest is a tombstone.
    Absent,
    /// The key's newest version (or tombstone) is exactly this one.
    Version(LeafIndex),
}

/// Several operations that take effect together or not at all.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// At most [`limits::TRANSACTION_OPERATIONS_MAX`], no key twice, at least one write.
    pub operations: Vec<Operation>,
    /// As for a single write.
    pub idempotency_key: Option<String>,
    /// As for a single write.
    pub author: Bytes,
}

/// One operation of a transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A put or delete.
    Write {
        /// Its key.
        key: Bytes,
        /// Put or delete.
        kind: WriteKind,
        /// What must hold.
        condition: Condition,
    },
    /// Only a condition; takes no leaf.
    Check {
        /// Its key.
        key: Bytes,
        /// What must hold.
        condition: Condition,
    },
}

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the ledger, for ever.
    pub index: LeafIndex,
    /// Its timestamp.
    pub timestamp_ms: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// Last index of the operation plus one: the smallest tree that holds all of it.
    pub tree_size: TreeSize,
    /// Whether this is the outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// An acknowledged transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionAppended {
    /// One per put or delete, in order.
    pub entries: Vec<Appended>,
    /// The smallest tree that holds all of it.
    pub tree_size: TreeSize,
    /// Whether this is the outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// An entry carried over from another copy of the ledger, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedEntry {
    /// The encoded leaf.
    pub leaf: Bytes,
    /// Its opening; `None` for a system entry or one whose private part is erased.
    pub private: Option<PrivateRecord>,
}
