//! What a judge says when a promise was broken.

use std::fmt;

use crate::event::Moment;

/// The promises, one file each under `src/invariants/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An acknowledged entry is in every later state, unchanged, at its leaf index.
    Acknowledged,
    /// A refused write never appears, an unknown one at most once, and one idempotency key has one outcome.
    Refused,
    /// Any two checkpoints ever seen are consistent.
    Checkpoints,
    /// One root hash per tree size, in whatever state of whatever node.
    Roots,
    /// Reads and writes follow real time.
    Linearizable,
    /// Leaf indexes are contiguous, timestamps never decrease, and no node goes back.
    Order,
    /// A watch misses nothing, repeats nothing, and keeps the order.
    Watch,
    /// A sealed segment has the same bytes on every node.
    Segments,
    /// A conditional write is appended only where its condition holds, and refused only where it does not.
    Conditions,
    /// What was read, however stale, is what the ledger has.
    Bytes,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 10] = [
        Invariant::Acknowledged,
        Invariant::Refused,
        Invariant::Checkpoints,
        Invariant::Roots,
        Invariant::Linearizable,
        Invariant::Order,
        Invariant::Watch,
        Invariant::Segments,
        Invariant::Conditions,
        Invariant::Bytes,
    ];

    /// Its short name, which is that of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Invariant::Acknowledged => "acknowledged",
            Invariant::Refused => "refused",
            Invariant::Checkpoints => "checkpoints",
            Invariant::Roots => "roots",
            Invariant::Linearizable => "linearizable",
            Invariant::Order => "order",
            Invariant::Watch => "watch",
            Invariant::Segments => "segments",
            Invariant::Conditions => "conditions",
            Invariant::Bytes => "bytes",
        }
    }

    /// The promise in words.
    pub const fn promise(self) -> &'static str {
        match self {
            Invariant::Acknowledged => {
                "an acknowledged entry is in every later state, unchanged, at its leaf index"
            }
            Invariant::Refused => {
                "a refused write never appears, an unknown one at most once, one idempotency key has one outcome"
            }
            Invariant::Checkpoints => "any two checkpoints ever seen are consistent",
            Invariant::Roots => "one root hash per tree size on all nodes",
            Invariant::Linearizable => {
                "what returned before something else began is before it in the ledger"
            }
            Invariant::Order => {
                "leaf indexes are contiguous, timestamps never decrease, and no node goes back"
            }
            Invariant::Watch => "a watch misses nothing, repeats nothing, and keeps the order",
            Invariant::Segments => "a sealed segment has the same bytes on every node",
            Invariant::Conditions => {
                "a conditional write is appended where its condition holds, and refused where it does not"
            }
            Invariant::Bytes => "what was read, however stale, is what the ledger has",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken promise, with what shows it.
///
/// As text it is for the person who has to find the fault: the promise, and the operations, indexes, nodes and moments
/// that contradict it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{invariant}` is violated at moment {at}: {evidence}\n  promised: {}", invariant.promise())]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// When it was noticed, on the caller's clock.
    pub at: Moment,
    /// What contradicts it, in words.
    pub evidence: String,
}
