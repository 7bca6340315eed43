//! Inclusion proofs: this leaf is at this index of the tree with this root (RFC 6962, 2.1.1).
//!
//! A proof lists the hashes needed to get from the leaf to the root, nearest the leaf first, at most
//! 64 of them. It says nothing about later versions of the same key, or about absence.

use alloc::vec::Vec;

use crate::error::ProofError;
use crate::hash::{Hash, node_hash};
use crate::index::{LeafIndex, TreeSize};
use crate::tree::{HashReader, ProveError, Subtrees, split};

/// Makes the proof that the leaf at `index` is in the tree of the first `size` leaves.
///
/// # Errors
/// [`ProveError::IndexOutsideTree`], or what the reader reports.
///
/// # Panics
/// If the reader breaks its contract, see [`HashReader::read`].
pub fn prove<R: HashReader + ?Sized>(
    reader: &R,
    index: LeafIndex,
    size: TreeSize,
) -> Result<Vec<Hash>, ProveError<R::Error>> {
    if !size.contains(index) {
        return Err(ProveError::IndexOutsideTree { index, size });
    }
    // Walk down from the root, remembering the sibling at each step, then read them leaf first.
    let mut siblings = Vec::with_capacity(proof_length(index, size));
    let (mut low, mut high) = (0, size.get());
    while high - low > 1 {
        let middle = low + split(high - low);
        if index.get() < middle {
            siblings.push((middle, high));
            high = middle;
        } else {
            siblings.push((low, middle));
            low = middle;
        }
    }
    let mut subtrees = Subtrees::new(reader, size);
    let mut proof = Vec::with_capacity(siblings.len());
    for (low, high) in siblings.into_iter().rev() {
        proof.push(subtrees.range(low, high)?);
    }
    Ok(proof)
}

/// Checks that the leaf with `leaf_hash` is at `index` of the tree with `size` leaves and `root`.
///
/// # Errors
/// [`ProofError::IndexOutsideTree`], [`ProofError::Length`] if the proof does not have exactly
/// [`proof_length`] hashes, [`ProofError::Root`] if it leads to another root.
pub fn verify(
    leaf_hash: &Hash,
    index: LeafIndex,
    size: TreeSize,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    let computed = root_from(leaf_hash, index, size, proof)?;
    if computed != *root {
        return Err(ProofError::Root {
            computed,
            expected: *root,
        });
    }
    Ok(())
}

/// The root hash that the tree must have if the leaf is at `index` of `size` leaves.
///
/// # Errors
/// As [`verify`], without the comparison.
pub fn root_from(
    leaf_hash: &Hash,
    index: LeafIndex,
    size: TreeSize,
    proof: &[Hash],
) -> Result<Hash, ProofError> {
    if !size.contains(index) {
        return Err(ProofError::IndexOutsideTree { index, size });
    }
    let expected = proof_length(index, size);
    if proof.len() != expected {
        return Err(ProofError::Length {
            found: proof.len(),
            expected,
        });
    }
    let (inner, border) = proof.split_at(inner_length(index.get(), size.get() - 1) as usize);
    // Below the point where the paths to the leaf and to the last leaf meet, the index says on which
    // side the sibling hangs; above it only left siblings remain.
    let mut hash = *leaf_hash;
    for (height, sibling) in inner.iter().enumerate() {
        hash = match index.get() >> height & 1 {
            0 => node_hash(&hash, sibling),
            _ => node_hash(sibling, &hash),
        };
    }
    Ok(border
        .iter()
        .fold(hash, |hash, sibling| node_hash(sibling, &hash)))
}

/// How many hashes the proof for `index` in a tree of `size` leaves has, at most 64.
///
/// 0 if the leaf is not in the tree.
pub const fn proof_length(index: LeafIndex, size: TreeSize) -> usize {
    if !size.contains(index) {
        return 0;
    }
    let inner = inner_length(index.get(), size.get() - 1);
    let border = match index.get().checked_shr(inner) {
        Some(rest) => rest.count_ones(),
        None => 0,
    };
    (inner + border) as usize
}

/// Levels below the point where the paths to two leaves meet.
pub(crate) const fn inner_length(index: u64, last: u64) -> u32 {
    u64::BITS - (index ^ last).leading_zeros()
}
