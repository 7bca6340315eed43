//! What a [`Judge`](crate::Judge) is told: who asked for what, what came back, what was seen of the nodes.
//!
//! Plain data. Values are known by their SHA-256 alone ([`scribe_proof::sha256`] of their bytes), so that an hour of a
//! run fits into memory; so a write that is to be recognised should have a value that no other write of its key has.

use std::fmt;

use scribe_proof::{Hash, LeafIndex, LeafKind, TreeSize, sha256};

/// A point on the caller's own clock, in any unit: it never goes back, and all events of a run share it.
///
/// What touches counts as overlapping: an operation that returned at the moment another one began is not before it. A
/// counter that grows with each event is therefore sharper than a clock that stands still for a while, as that of a
/// simulation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

/// A node, by the id it has in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A client, by a number of the caller's choice. Only named in evidence: one client may do many things at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// An operation, as [`Judge::invoked`](crate::Judge::invoked) numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub(crate) usize);

/// A watch, as [`Judge::watch_began`](crate::Judge::watch_began) numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) usize);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}", self.0)
    }
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch {}", self.0)
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A put, a delete, or a transaction of several.
    Write(Write),
    /// One or more keys, in one state.
    Read(Read),
}

/// A write: all of its steps take effect, one entry after the other, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// One step for a put or a delete, several for a transaction. No key twice.
    pub steps: Vec<Step>,
    /// Attempts under one idempotency key are one write, however often and through whichever node they are sent. Give
    /// it only while the ledger still remembers it (24 hours of its own time).
    pub idempotency_key: Option<String>,
}

/// One step of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key, 1 to 1,024 bytes.
    pub key: Vec<u8>,
    /// What becomes of the key.
    pub change: Change,
    /// What must hold of the key just before the write.
    pub condition: Condition,
}

/// What a step does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new version with a value of this SHA-256.
    Put(Hash),
    /// A tombstone.
    Delete,
    /// Nothing: only the condition counts.
    Check,
}

/// What a step asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// The key has no value: it was never written, or its newest version is a tombstone.
    Absent,
    /// The key's newest version, also a tombstone, is the entry at this index.
    Index(LeafIndex),
}

/// A read of one or more keys in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The keys asked for.
    pub keys: Vec<Vec<u8>>,
    /// What the read may see.
    pub consistency: Consistency,
}

/// Which states a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every write that was acknowledged before the read began.
    Linearizable,
    /// Any state there ever was, if it is one, and holds the entry at `min_index` where one is named.
    Stale {
        /// The entry that the state must hold (`Scribe-Min-Index`).
        min_index: Option<LeafIndex>,
    },
    /// The state of this tree size (`?at=`).
    At(TreeSize),
}

/// What became of an operation, as far as its client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write is in the ledger: one entry for each step that is not a check, in their order.
    Acknowledged(Vec<Appended>),
    /// The write was definitely not appended, or the read not answered.
    Refused,
    /// The write may be appended, now or later; or the read was not answered.
    Unknown,
    /// The write was not appended, because a condition did not hold.
    ConditionFailed {
        /// The step whose condition failed, from 0.
        step: usize,
        /// The key's newest version then, also a tombstone; `None` if it had none.
        current: Option<LeafIndex>,
    },
    /// The read was answered.
    Answered(Answer),
}

/// An entry as an acknowledgement names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the ledger.
    pub index: LeafIndex,
    /// Its time, in milliseconds since 1970, if the answer said it.
    pub timestamp_ms: Option<u64>,
    /// Its leaf hash, if the answer said it.
    pub leaf_hash: Option<Hash>,
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The tree size of the state, if the answer said it.
    pub tree_size: Option<TreeSize>,
    /// For each key of the request, in its order, the newest version; `None` if there was none.
    pub saw: Vec<Option<Seen>>,
}

/// A version as a read names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its place in the ledger.
    pub index: LeafIndex,
    /// What it is.
    pub version: Version,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A value, with its SHA-256 if it was read.
    Value(Option<Hash>),
    /// A tombstone.
    Tombstone,
}

/// An entry as it was seen in a list, by its index, in a watch or in a whole ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the ledger.
    pub index: LeafIndex,
    /// Put, delete, or the ledger's own.
    pub kind: LeafKind,
    /// Its key.
    pub key: Vec<u8>,
    /// SHA-256 of its value, if it has one and it was read.
    pub value: Option<Hash>,
    /// Its time, in milliseconds since 1970, if known.
    pub timestamp_ms: Option<u64>,
    /// Its leaf hash, if known. The entries of a whole ledger must have one.
    pub leaf_hash: Option<Hash>,
}

/// What a node applied, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Leaves applied.
    pub tree_size: TreeSize,
    /// The root over them, if it was computed.
    pub root_hash: Option<Hash>,
    /// The time of the last of them, if known.
    pub last_timestamp_ms: Option<u64>,
}

/// Which entries a watch tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All, the ledger's own included.
    All,
    /// Those of one key; not the ledger's own.
    Key(Vec<u8>),
    /// Those whose key begins with this; not the ledger's own.
    Prefix(Vec<u8>),
}

impl Filter {
    /// Whether a watch with this filter tells of such an entry.
    pub fn admits(&self, kind: LeafKind, key: &[u8]) -> bool {
        match self {
            Filter::All => true,
            Filter::Key(wanted) => kind != LeafKind::System && key == wanted,
            Filter::Prefix(prefix) => kind != LeafKind::System && key.starts_with(prefix),
        }
    }
}

impl Write {
    /// A put of a value, without a condition or an idempotency key.
    pub fn put(key: impl Into<Vec<u8>>, value: &[u8]) -> Write {
        Write::of([Step::put(key, value)])
    }

    /// A delete, without a condition or an idempotency key.
    pub fn delete(key: impl Into<Vec<u8>>) -> Write {
        Write::of([Step::delete(key)])
    }

    /// A transaction, without an idempotency key.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Write {
        Write {
            steps: steps.into_iter().collect(),
            idempotency_key: None,
        }
    }

    /// The same, under an idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Write {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl Step {
    /// A put of a value, without a condition.
    pub fn put(key: impl Into<Vec<u8>>, value: &[u8]) -> Step {
        Step {
            key: key.into(),
            change: Change::Put(sha256(value)),
            condition: Condition::None,
        }
    }

    /// A delete, without a condition.
    pub fn delete(key: impl Into<Vec<u8>>) -> Step {
        Step {
            key: key.into(),
            change: Change::Delete,
            condition: Condition::None,
        }
    }

    /// A check of a key: appends nothing.
    pub fn check(key: impl Into<Vec<u8>>, condition: Condition) -> Step {
        Step {
            key: key.into(),
            change: Change::Check,
            condition,
        }
    }

    /// The same, only if the condition holds.
    #[must_use]
    pub fn only_if(mut self, condition: Condition) -> Step {
        self.condition = condition;
        self
    }
}

impl Read {
    /// A linearizable read of one key.
    pub fn of(key: impl Into<Vec<u8>>) -> Read {
        Read {
            keys: vec![key.into()],
            consistency: Consistency::Linearizable,
        }
    }

    /// A linearizable read of several keys in one state.
    pub fn many<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Read {
        Read {
            keys: keys.into_iter().map(Into::into).collect(),
            consistency: Consistency::Linearizable,
        }
    }

    /// The same keys, with another consistency.
    #[must_use]
    pub fn with(mut self, consistency: Consistency) -> Read {
        self.consistency = consistency;
        self
    }
}

impl Outcome {
    /// A single write acknowledged at this index, of which nothing else was said.
    pub fn acknowledged_at(index: u64) -> Outcome {
        Outcome::Acknowledged(vec![Appended::at(index)])
    }
}

impl Appended {
    /// An entry of which only the index is known.
    pub fn at(index: u64) -> Appended {
        Appended {
            index: LeafIndex::new(index),
            timestamp_ms: None,
            leaf_hash: None,
        }
    }
}

impl Seen {
    /// A version with this value.
    pub fn value(index: u64, value: &[u8]) -> Seen {
        Seen {
            index: LeafIndex::new(index),
            version: Version::Value(Some(sha256(value))),
        }
    }

    /// A tombstone.
    pub fn tombstone(index: u64) -> Seen {
        Seen {
            index: LeafIndex::new(index),
            version: Version::Tombstone,
        }
    }
}
