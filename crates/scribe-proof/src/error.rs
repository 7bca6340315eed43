//! Errors shared by several modules. Errors of one operation stand beside it.

use crate::checkpoint::CheckpointError;
use crate::hash::Hash;
use crate::hash::HashError;
use crate::index::{LeafIndex, TreeSize};
use crate::leaf::LeafError;
use crate::note::NoteError;
use crate::policy::PolicyError;
use crate::receipt::ReceiptError;
use crate::tile::TileError;
use crate::witness::WitnessError;

/// Why an inclusion or consistency proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The leaf cannot be in the tree.
    #[error("leaf index {index} is not below the tree size {size}")]
    IndexOutsideTree {
        /// The leaf index.
        index: LeafIndex,
        /// The tree size.
        size: TreeSize,
    },
    /// The older tree is larger than the newer one.
    #[error("old tree size {old} is larger than the new tree size {new}")]
    SizesOutOfOrder {
        /// The older size.
        old: TreeSize,
        /// The newer size.
        new: TreeSize,
    },
    /// The number of hashes follows from the sizes; the proof has another.
    #[error("proof has {found} hashes, it must have {expected}")]
    Length {
        /// Hashes found.
        found: usize,
        /// Hashes such a proof has.
        expected: usize,
    },
    /// The proof leads to another root than the tree's (for consistency: the newer tree's).
    #[error("proof leads to root hash {computed}, the tree has {expected}")]
    Root {
        /// What the proof leads to.
        computed: Hash,
        /// What the tree has.
        expected: Hash,
    },
    /// The proof leads to another root than the older tree's.
    #[error("proof leads to old root hash {computed}, the old tree has {expected}")]
    OldRoot {
        /// What the proof leads to.
        computed: Hash,
        /// What the older tree has.
        expected: Hash,
    },
}

/// Any error of this crate that concerns bytes from outside, for callers who do not tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// See [`HashError`].
    #[error(transparent)]
    Hash(#[from] HashError),
    /// See [`LeafError`].
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// See [`ProofError`].
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// See [`NoteError`].
    #[error(transparent)]
    Note(#[from] NoteError),
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// See [`PolicyError`].
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// See [`ReceiptError`].
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// See [`TileError`].
    #[error(transparent)]
    Tile(#[from] TileError),
    /// See [`WitnessError`].
    #[error(transparent)]
    Witness(#[from] WitnessError),
}
