//! What a committed frame does to the ledger.
//!
//! A frame that carries entries is **valid** if, and only if, the term of the leader that sequenced it is the term in
//! the frame's own log id and its first leaf index is the tree size before it. Any other is **void**: it takes no
//! leaves, on every replica alike, and its writers are told to sequence again. The term of the leader that happens to
//! commit a frame is never consulted, so replicas that commit the same frame at different times decide the same.

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind};

use super::batch::{Batch, BatchError, IdempotencyDigest};

/// The part of the applied state that decides about the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerState {
    /// Leaves so far.
    pub tree_size: TreeSize,
    /// Timestamp of the last leaf, 0 before the first.
    pub last_timestamp_ms: u64,
}

/// A committed frame of entries, as the log holds it.
#[derive(Debug, Clone)]
pub struct EntriesFrame {
    /// Term in the frame's own log id.
    pub term: u64,
    /// Term of the leader that fixed the frame's leaf indexes and conditions.
    pub sequencing_term: u64,
    /// Leaf index its first leaf claims.
    pub first_leaf: LeafIndex,
    /// Leaves it carries.
    pub count: u32,
    /// Public part: the leaves.
    pub public: Bytes,
    /// Private part: openings and idempotency digests.
    pub private: Bytes,
}

/// What a valid frame adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// One per leaf, in order.
    pub leaves: Vec<AppliedLeaf>,
    /// Writes to remember under their idempotency keys.
    pub digests: Vec<IdempotencyDigest>,
}

/// One leaf of a valid frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedLeaf {
    /// RFC 6962 leaf hash.
    pub leaf_hash: Hash,
    /// The entry's key (empty for system entries).
    pub key: Bytes,
    /// Put, delete or system.
    pub kind: LeafKind,
    /// Leaf timestamp.
    pub timestamp_ms: u64,
}

/// The decision about a frame of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Takes its leaves.
    Valid(Entries),
    /// Takes none.
    Void,
}

/// A committed frame that no correct leader can have proposed. Every replica fails alike, and the node stops: going
/// on would mean guessing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The parts are not a batch.
    #[error("a committed frame is malformed: {0}")]
    Batch(#[from] BatchError),
    /// A leaf is not canonical.
    #[error("leaf {index} of a committed frame is malformed: {reason}")]
    Leaf {
        /// Its leaf index.
        index: LeafIndex,
        /// What is wrong with it.
        reason: String,
    },
    /// Timestamps never decrease.
    #[error("leaf {index} has timestamp {found} ms, before the {last} ms of the leaf before it")]
    Timestamp {
        /// Its leaf index.
        index: LeafIndex,
        /// Its timestamp.
        found: u64,
        /// The timestamp before it.
        last: u64,
    },
}

/// Decides about one committed frame of entries.
pub fn apply(state: LedgerState, frame: &EntriesFrame) -> Result<Outcome, ApplyError> {
    if frame.sequencing_term != frame.term || frame.first_leaf != state.tree_size.next_index() {
        return Ok(Outcome::Void);
    }
    let batch = Batch::parse(
        frame.count as usize,
        frame.public.clone(),
        frame.private.clone(),
    )?;
    let mut leaves = Vec::with_capacity(batch.count());
    let mut last_timestamp_ms = state.last_timestamp_ms;
    let mut index = frame.first_leaf;
    for position in 0..batch.count() {
        let bytes = batch.leaf(position).unwrap_or_default();
        let leaf = Leaf::parse(&bytes).map_err(|error| ApplyError::Leaf {
            index,
            reason: error.to_string(),
        })?;
        if leaf.timestamp_ms < last_timestamp_ms {
            return Err(ApplyError::Timestamp {
                index,
                found: leaf.timestamp_ms,
                last: last_timestamp_ms,
            });
        }
        last_timestamp_ms = leaf.timestamp_ms;
        leaves.push(AppliedLeaf {
            leaf_hash: leaf_hash(&bytes),
            key: bytes.slice_ref(leaf.key),
            kind: leaf.kind,
            timestamp_ms: leaf.timestamp_ms,
        });
        index = index.next();
    }
    Ok(Outcome::Valid(Entries {
        leaves,
        digests: batch.digests().collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::batch::BatchBuilder;
    use scribe_proof::leaf::Prev;

    fn frame(term: u64, sequencing_term: u64, first_leaf: u64, timestamps: &[u64]) -> EntriesFrame {
        let mut builder = BatchBuilder::new();
        for timestamp_ms in timestamps {
            let leaf = Leaf {
                kind: LeafKind::Put,
                subtype: 0,
                timestamp_ms: *timestamp_ms,
                transaction_position: 0,
                transaction_length: 1,
                prev: Prev::NotAsserted,
                commitment: Hash([1; 32]),
                key: b"key",
                author: b"",
                body: b"",
            };
            let mut bytes = Vec::new();
            leaf.encode_into(&mut bytes).unwrap();
            builder.push(&bytes, Some((&[0; 16], b"", b"")));
        }
        let (public, private) = builder.finish();
        EntriesFrame {
            term,
            sequencing_term,
            first_leaf: LeafIndex::new(first_leaf),
            count: timestamps.len() as u32,
            public,
            private,
        }
    }

    fn state(tree_size: u64, last_timestamp_ms: u64) -> LedgerState {
        LedgerState {
            tree_size: TreeSize::new(tree_size),
            last_timestamp_ms,
        }
    }

    #[test]
    fn a_frame_is_valid_only_in_its_own_term_and_at_its_own_place() {
        let valid = |outcome| matches!(outcome, Ok(Outcome::Valid(_)));
        assert!(valid(apply(state(7, 10), &frame(3, 3, 7, &[10, 11]))));
        assert_eq!(
            apply(state(7, 10), &frame(3, 2, 7, &[10])),
            Ok(Outcome::Void),
            "another term"
        );
        assert_eq!(
            apply(state(8, 10), &frame(3, 3, 7, &[10])),
            Ok(Outcome::Void),
            "place taken"
        );
        assert_eq!(
            apply(state(6, 10), &frame(3, 3, 7, &[10])),
            Ok(Outcome::Void),
            "a gap before it"
        );
    }

    #[test]
    fn timestamps_never_decrease() {
        assert!(matches!(
            apply(state(7, 10), &frame(3, 3, 7, &[10, 9])),
            Err(ApplyError::Timestamp {
                found: 9,
                last: 10,
                ..
            })
        ));
        assert!(matches!(
            apply(state(7, 10), &frame(3, 3, 7, &[9])),
            Err(ApplyError::Timestamp {
                found: 9,
                last: 10,
                ..
            })
        ));
    }

    #[test]
    fn a_malformed_leaf_stops_the_node() {
        let mut bad = frame(3, 3, 0, &[5]);
        let mut public = bad.public.to_vec();
        public[4] = 99; // the leaf's version
        bad.public = public.into();
        assert!(matches!(
            apply(state(0, 0), &bad),
            Err(ApplyError::Leaf { .. })
        ));
    }
}
