//! Consistency proofs: the newer tree only appended to the older one (RFC 6962, 2.1.2).
//!
//! Two cases need no hashes: equal sizes, where the roots must be equal, and an older tree without
//! leaves, which every tree extends.

use alloc::vec::Vec;

use crate::error::ProofError;
use crate::hash::{Hash, empty_root, node_hash};
use crate::inclusion::inner_length;
use crate::index::TreeSize;
use crate::tree::{HashReader, ProveError, Subtrees, split};

/// Makes the proof that the tree of `new` leaves extends the tree of `old` leaves.
///
/// # Errors
/// [`ProveError::SizesOutOfOrder`], or what the reader reports.
///
/// # Panics
/// If the reader breaks its contract, see [`HashReader::read`].
pub fn prove<R: HashReader + ?Sized>(
    reader: &R,
    old: TreeSize,
    new: TreeSize,
) -> Result<Vec<Hash>, ProveError<R::Error>> {
    if old > new {
        return Err(ProveError::SizesOutOfOrder { old, new });
    }
    if old.is_empty() || old == new {
        return Ok(Vec::new());
    }
    // RFC 6962's SUBPROOF, walking down from the root and reading from the bottom up.
    let mut ranges = Vec::with_capacity(proof_length(old, new));
    let (mut low, mut high) = (0, new.get());
    while high != old.get() {
        let middle = low + split(high - low);
        if old.get() <= middle {
            ranges.push((middle, high));
            high = middle;
        } else {
            ranges.push((low, middle));
            low = middle;
        }
    }
    if low > 0 {
        // The older tree ends in a subtree of its own; if that were the whole older tree, the
        // verifier would know its root already.
        ranges.push((low, high));
    }
    let mut subtrees = Subtrees::new(reader, new);
    let mut proof = Vec::with_capacity(ranges.len());
    for (low, high) in ranges.into_iter().rev() {
        proof.push(subtrees.range(low, high)?);
    }
    Ok(proof)
}

/// Checks that the tree with `new` leaves and `new_root` extends the one with `old` and `old_root`.
///
/// # Errors
/// [`ProofError::SizesOutOfOrder`], [`ProofError::Length`] if the proof does not have exactly
/// [`proof_length`] hashes, [`ProofError::OldRoot`] or [`ProofError::Root`] if it leads to other
/// roots.
pub fn verify(
    old: TreeSize,
    old_root: &Hash,
    new: TreeSize,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::SizesOutOfOrder { old, new });
    }
    let expected = proof_length(old, new);
    if proof.len() != expected {
        return Err(ProofError::Length {
            found: proof.len(),
            expected,
        });
    }
    if old.is_empty() && *old_root != empty_root() {
        return Err(ProofError::OldRoot {
            computed: empty_root(),
            expected: *old_root,
        });
    }
    if old == new && old_root != new_root {
        return Err(ProofError::Root {
            computed: *old_root,
            expected: *new_root,
        });
    }
    if old.is_empty() || old == new {
        return Ok(());
    }
    let shape = Shape::of(old.get(), new.get());
    let (seed, path) = match proof.split_first() {
        Some((first, rest)) if shape.seeded => (*first, rest),
        _ => (*old_root, proof),
    };
    let (inner, border) = path.split_at(shape.inner);
    // Left siblings belong to both trees, right siblings to the newer one only.
    let (mut old_hash, mut new_hash) = (seed, seed);
    for (height, sibling) in inner.iter().enumerate() {
        if shape.path >> height & 1 == 1 {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
    }
    for sibling in border {
        old_hash = node_hash(sibling, &old_hash);
        new_hash = node_hash(sibling, &new_hash);
    }
    if old_hash != *old_root {
        return Err(ProofError::OldRoot {
            computed: old_hash,
            expected: *old_root,
        });
    }
    if new_hash != *new_root {
        return Err(ProofError::Root {
            computed: new_hash,
            expected: *new_root,
        });
    }
    Ok(())
}

/// How many hashes the proof from `old` to `new` leaves has, at most 65.
///
/// 0 if there is no such proof.
pub const fn proof_length(old: TreeSize, new: TreeSize) -> usize {
    if old.is_empty() || old.get() >= new.get() {
        return 0;
    }
    let shape = Shape::of(old.get(), new.get());
    shape.seeded as usize + shape.inner + shape.border
}

/// What the two sizes say about the form of a proof.
struct Shape {
    /// Whether the proof begins with the last full subtree of the older tree; it does not when the
    /// whole older tree is one.
    seeded: bool,
    /// Steps from that subtree to where the paths to both trees' last leaves meet.
    inner: usize,
    /// Steps from there to the root, all with left siblings.
    border: usize,
    /// Bit `i` set: the sibling of inner step `i` is on the left.
    path: u64,
}

impl Shape {
    /// For `0 < old < new`.
    const fn of(old: u64, new: u64) -> Shape {
        let last = old - 1;
        // The last full subtree of the older tree has 2^height leaves.
        let height = old.trailing_zeros();
        let meeting = inner_length(last, new - 1);
        let border = match last.checked_shr(meeting) {
            Some(rest) => rest.count_ones(),
            None => 0,
        };
        Shape {
            seeded: !old.is_power_of_two(),
            inner: (meeting - height) as usize,
            border: border as usize,
            path: last >> height,
        }
    }
}
