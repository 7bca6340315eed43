//! Verifiers of proofs with one check left out each, as such bugs are really made.

use scribe_proof::{Hash, empty_root, leaf_hash, node_hash, sha256};

use crate::flaws::{ConsistencyFlaw, InclusionFlaw};
use crate::proofs::{ConsistencyCase, InclusionCase};
use crate::trees::{root_of_inclusion, roots_of_consistency};

/// Whether a verifier with this flaw accepts.
pub fn weak_inclusion(case: &InclusionCase, flaw: InclusionFlaw) -> bool {
    let InclusionCase {
        leaf,
        index,
        size,
        root,
        proof,
    } = case;
    let hash = leaf_hash(leaf);
    let climbs = |index: u64, size: u64, hash: Hash, proof: &[Hash]| {
        root_of_inclusion(hash, index, size, proof) == Some(*root)
    };
    match flaw {
        InclusionFlaw::LeftoverIgnored => {
            (0..=proof.len()).any(|length| climbs(*index, *size, hash, &proof[..length]))
        }
        InclusionFlaw::IndexBeyondTree => walk(hash, *index, *size, proof, true) == *root,
        InclusionFlaw::NotToTheTop => {
            index < size && walk(hash, *index, *size, proof, false) == *root
        }
        InclusionFlaw::EmptyTree => *size == 0 || climbs(*index, *size, hash, proof),
        InclusionFlaw::AnySide => {
            // The side is chosen by whatever fits.
            let sides = 1_u64 << proof.len().min(10);
            (0..sides).any(|sides| {
                let up = |(at, sibling): (usize, &Hash), hash: Hash| match sides >> at & 1 {
                    0 => node_hash(&hash, sibling),
                    _ => node_hash(sibling, &hash),
                };
                proof
                    .iter()
                    .enumerate()
                    .fold(hash, |hash, step| up(step, hash))
                    == *root
            })
        }
        InclusionFlaw::NodeAsLeaf => {
            // No prefix tells leaf and node apart, and the length of the proof says how deep it is.
            climbs(*index, *size, hash, proof)
                || (1..64).any(|depth| {
                    let (index, size) = (index >> depth, size.saturating_sub(1) >> depth);
                    climbs(index, size.saturating_add(1), sha256(leaf), proof)
                })
        }
        InclusionFlaw::LeafUnbound => {
            // The proof is followed from its own first hash.
            match proof.split_first() {
                Some((first, rest)) => {
                    climbs(*index, *size, hash, proof)
                        || climbs(index >> 1, size.div_ceil(2), *first, rest)
                }
                None => climbs(*index, *size, hash, proof) || proof.is_empty() && *size == 1,
            }
        }
    }
}

/// The loop of RFC 9162, 2.1.3.2, without its checks before and after; with `to_the_top` the one
/// that the size is used up.
fn walk(leaf: Hash, index: u64, size: u64, proof: &[Hash], to_the_top: bool) -> Hash {
    let (mut here, mut last, mut hash) = (index, size.wrapping_sub(1), leaf);
    for sibling in proof {
        if here & 1 == 1 || here == last {
            hash = node_hash(sibling, &hash);
            while here & 1 == 0 && here != 0 {
                here >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        here >>= 1;
        last >>= 1;
    }
    if to_the_top && last != 0 {
        return Hash::default();
    }
    hash
}

/// Whether a verifier with this flaw accepts.
pub fn weak_consistency(case: &ConsistencyCase, flaw: ConsistencyFlaw) -> bool {
    let ConsistencyCase {
        old,
        old_root,
        new,
        new_root,
        proof,
    } = case;
    let climbed = |proof: &[Hash]| roots_of_consistency(*old, *old_root, *new, proof);
    let sound = |proof: &[Hash]| match old {
        0 => proof.is_empty() && *old_root == empty_root(),
        _ => climbed(proof) == Some((*old_root, *new_root)),
    };
    match flaw {
        ConsistencyFlaw::EmptyUnchecked => *old == 0 && proof.is_empty() || sound(proof),
        ConsistencyFlaw::EmptyLeftover => *old == 0 && *old_root == empty_root() || sound(proof),
        ConsistencyFlaw::EqualUnchecked => old == new && proof.is_empty() || sound(proof),
        ConsistencyFlaw::OrderUnchecked => old > new && proof.is_empty() || sound(proof),
        ConsistencyFlaw::OldRootUnchecked => {
            // The seed is the proof's own, also where it must be the root that is known.
            let seeded = |seed: Hash, proof: &[Hash]| {
                roots_of_consistency(*old, seed, *new, proof)
                    .is_some_and(|(_, newer)| newer == *new_root)
            };
            sound(proof)
                || seeded(*old_root, proof)
                || proof
                    .split_first()
                    .is_some_and(|(seed, rest)| seeded(*seed, rest))
        }
        ConsistencyFlaw::NewRootUnchecked => {
            sound(proof) || climbed(proof).is_some_and(|(older, _)| older == *old_root)
        }
        ConsistencyFlaw::LeftoverIgnored => (0..=proof.len()).any(|length| sound(&proof[..length])),
        ConsistencyFlaw::NothingToShow => proof.is_empty() && old <= new || sound(proof),
    }
}
