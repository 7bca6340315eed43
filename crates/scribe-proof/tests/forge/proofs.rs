//! Forged inclusion and consistency proofs.
//!
//! What a verifier trusts in such a proof is the pair of tree size and root hash: it comes from a
//! signed checkpoint. Where that pair is an honest one, the plain judge demands that the leaf is the
//! honest leaf and the proof the honest proof, hash by hash. Where it is not (nobody signed it), a
//! proof can only show what would follow; then the judge climbs from the proof to the root by the
//! RFC's recursion, and the verifier must come to the same verdict.

use scribe_proof::{Hash, LeafIndex, TreeSize, consistency, empty_root, inclusion, leaf_hash};

use crate::Forger;
use crate::flaws::{ConsistencyFlaw, InclusionFlaw};
use crate::rng::Rng;
use crate::trees::{Honest, root_of_inclusion, roots_of_consistency};
use crate::walks;

/// A trunk, a fork of it, a stranger, and two sparse trees of which one is a fork of the other.
fn trees() -> Vec<Honest> {
    vec![
        Honest::dense("trunk", 0, 700),
        Honest::dense("fork", 137, 700),
        Honest::dense("stranger", 0, 300),
        Honest::sparse("trunk", 0),
        Honest::sparse("fork", 1 << 21),
    ]
}

/// A number near something interesting, below `end` where that is possible.
fn place(rng: &mut Rng, end: u64) -> u64 {
    match rng.below(6) {
        0 => rng.below(3),
        1 => end.wrapping_sub(1 + rng.below(3)),
        2 => (1_u64 << rng.below(64))
            .wrapping_add(rng.below(3))
            .wrapping_sub(1),
        _ => rng.below(end.max(1)),
    }
}

fn index_below(rng: &mut Rng, size: u64) -> u64 {
    place(rng, size) % size.max(1)
}

fn pick_size(rng: &mut Rng, tree: &Honest) -> u64 {
    match rng.below(3) {
        0 => *rng.pick(&tree.sizes[..12]),
        _ => *rng.pick(&tree.sizes),
    }
}

/// Changes a list of hashes; `other` is another honest list, `known` hashes worth having.
fn change_hashes(
    rng: &mut Rng,
    proof: &mut Vec<Hash>,
    other: &[Hash],
    known: &[Hash],
) -> &'static str {
    let length = proof.len();
    let stranger = |rng: &mut Rng| match rng.below(3) {
        0 => Hash(rng.bytes()),
        _ => *rng.pick(known),
    };
    let (a, b) = match length {
        0 => (0, 0),
        _ => (rng.place(length), rng.place(length)),
    };
    match rng.below(16) {
        0 if length > 0 => {
            proof.pop();
            "last hash cut off"
        }
        1 if length > 0 => {
            proof.remove(0);
            "first hash cut off"
        }
        2 if length > 0 => {
            proof.remove(a);
            "a hash left out"
        }
        3 => {
            proof.push(stranger(rng));
            "hash appended"
        }
        4 => {
            proof.insert(0, stranger(rng));
            "hash put in front"
        }
        5 if length > 0 => {
            proof.insert(a, proof[a]);
            "hash doubled"
        }
        6 if length > 1 => {
            proof.swap(a, b);
            "hashes swapped"
        }
        7 if length > 1 => {
            proof.reverse();
            "hashes reversed"
        }
        8 if length > 1 => {
            proof.rotate_left(1 + a.min(length - 2));
            "hashes rotated"
        }
        9 if length > 0 => {
            proof[a].0[rng.place(32)] ^= 1 << rng.below(8);
            "bit of a hash flipped"
        }
        10 if length > 0 => {
            proof[a] = stranger(rng);
            "hash replaced"
        }
        11 if length > 0 && !other.is_empty() => {
            proof[a] = *rng.pick(other);
            "hash of another proof"
        }
        12 => {
            let cut = a.min(other.len());
            proof.truncate(cut);
            proof.extend_from_slice(&other[cut..]);
            "spliced with another proof"
        }
        13 => {
            *proof = other.to_vec();
            "another proof"
        }
        14 => {
            proof.extend_from_slice(other);
            "another proof appended"
        }
        _ => {
            proof.clear();
            "all hashes cut off"
        }
    }
}

fn show(proof: &[Hash]) -> String {
    proof
        .iter()
        .fold(String::new(), |text, hash| text + "\n    " + &hash.to_hex())
}

/// A claim that a leaf is in a tree, with its proof.
#[derive(Clone, PartialEq)]
pub struct InclusionCase {
    pub leaf: Vec<u8>,
    pub index: u64,
    pub size: u64,
    pub root: Hash,
    pub proof: Vec<Hash>,
}

/// Forger of inclusion proofs.
pub struct Inclusion {
    trees: Vec<Honest>,
}

impl Inclusion {
    fn honest(&self, size: u64, root: Hash) -> Option<&Honest> {
        self.trees.iter().find(|tree| tree.root(size) == Some(root))
    }

    fn change(&self, rng: &mut Rng, tree: &Honest, case: &mut InclusionCase) -> &'static str {
        let other_tree = rng.pick(&self.trees);
        match rng.below(20) {
            0 => {
                case.index = case.index.wrapping_add(1);
                "index + 1"
            }
            1 => {
                case.index = case.index.wrapping_sub(1);
                "index - 1"
            }
            2 => {
                case.index ^= 1 << rng.below(64);
                "bit of the index flipped"
            }
            3 => {
                case.index = place(rng, case.size);
                "another index"
            }
            4 => {
                case.index = *rng.pick(&[case.size, case.size.wrapping_add(1), u64::MAX]);
                "index beyond the tree"
            }
            5 => {
                let (size, root) = match rng.below(3) {
                    0 => (0, empty_root()),
                    _ => {
                        let size = pick_size(rng, other_tree);
                        (size, other_tree.root(size).unwrap_or_default())
                    }
                };
                (case.size, case.root) = (size, root);
                "another checkpoint"
            }
            6 => {
                case.size = place(rng, case.size.wrapping_add(8));
                "size nobody signed with that root"
            }
            7 => {
                let random = Hash(rng.bytes());
                case.root = *rng.pick(&[empty_root(), leaf_hash(&case.leaf), random]);
                "root nobody signed"
            }
            8 => {
                case.leaf = other_tree.leaf(place(rng, case.size));
                "another leaf"
            }
            9 => {
                match case.leaf.len() {
                    0 => case.leaf.push(0),
                    length => case.leaf[rng.place(length)] ^= 1 << rng.below(8),
                }
                "bit of the leaf flipped"
            }
            10 if !case.proof.is_empty() => {
                // The leaf is said to be what its parent was hashed from.
                let (own, sibling) = (leaf_hash(&case.leaf), case.proof.remove(0));
                let (left, right) = match case.index & 1 {
                    0 => (own, sibling),
                    _ => (sibling, own),
                };
                case.leaf = [&[0x01][..], &left.0, &right.0].concat();
                if rng.one_in(4) {
                    case.leaf.remove(0);
                }
                if rng.one_in(2) {
                    case.index >>= 1;
                }
                "interior node as leaf"
            }
            11 if case.size > 0 && !case.proof.is_empty() => {
                // Leaf and first sibling change places; with the index that is another true claim.
                let sibling = case.index ^ 1;
                case.proof[0] = leaf_hash(&case.leaf);
                case.leaf = tree.leaf(sibling);
                if rng.one_in(2) {
                    case.index = sibling;
                }
                "leaf and sibling swapped"
            }
            _ => {
                let size = pick_size(rng, other_tree);
                let other = match size {
                    0 => Vec::new(),
                    _ => match rng.below(3) {
                        0 => other_tree.consistency(1 + index_below(rng, size), size),
                        1 if case.size > 0 && tree.root(case.size).is_some() => {
                            tree.inclusion(index_below(rng, case.size), case.size)
                        }
                        _ => other_tree.inclusion(index_below(rng, size), size),
                    },
                };
                let known = [
                    case.root,
                    leaf_hash(&case.leaf),
                    empty_root(),
                    Hash::default(),
                ];
                change_hashes(rng, &mut case.proof, &other, &known)
            }
        }
    }
}

impl Forger for Inclusion {
    const KIND: &'static str = "inclusion";
    const SHARE: u64 = 40;
    type Case = InclusionCase;
    type Claim = ();
    type Flaw = InclusionFlaw;
    const FLAWS: &'static [InclusionFlaw] = InclusionFlaw::ALL;

    fn new() -> Inclusion {
        Inclusion { trees: trees() }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> InclusionCase {
        let tree = rng.pick(&self.trees);
        let size = pick_size(rng, tree).max(1);
        let index = index_below(rng, size);
        let mut case = InclusionCase {
            leaf: tree.leaf(index),
            index,
            size,
            root: tree.root(size).unwrap_or_default(),
            proof: tree.inclusion(index, size),
        };
        let honest = case.clone();
        for _ in 0..rng.changes() {
            changes.push(self.change(rng, tree, &mut case));
        }
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &InclusionCase) -> Option<()> {
        inclusion::verify(
            &leaf_hash(&case.leaf),
            LeafIndex::new(case.index),
            TreeSize::new(case.size),
            &case.proof,
            &case.root,
        )
        .ok()
    }

    fn plain(&self, case: &InclusionCase, flaw: Option<InclusionFlaw>) -> Option<()> {
        if let Some(flaw) = flaw {
            return walks::weak_inclusion(case, flaw).then_some(());
        }
        let leaf = leaf_hash(&case.leaf);
        let climbed = root_of_inclusion(leaf, case.index, case.size, &case.proof);
        let accepted = climbed == Some(case.root);
        if let Some(tree) = self.honest(case.size, case.root) {
            let truth = case.index < case.size
                && case.leaf == tree.leaf(case.index)
                && case.proof == tree.inclusion(case.index, case.size);
            assert_eq!(
                truth,
                accepted,
                "the plain judges differ: {}",
                self.show(case)
            );
        }
        accepted.then_some(())
    }

    fn truth(&self, case: &InclusionCase) -> &'static str {
        match self.honest(case.size, case.root) {
            Some(_) => "true",
            None => "true if anybody had signed that size and root",
        }
    }

    fn show(&self, case: &InclusionCase) -> String {
        format!(
            "  leaf {:?}\n  index {} of {}, root {}{}",
            case.leaf.escape_ascii().to_string(),
            case.index,
            case.size,
            case.root,
            show(&case.proof)
        )
    }
}

/// A claim that one tree extends another, with its proof.
#[derive(Clone, PartialEq)]
pub struct ConsistencyCase {
    pub old: u64,
    pub old_root: Hash,
    pub new: u64,
    pub new_root: Hash,
    pub proof: Vec<Hash>,
}

/// Forger of consistency proofs.
pub struct Consistency {
    trees: Vec<Honest>,
}

impl Consistency {
    fn honest(&self, size: u64, root: Hash) -> Option<&Honest> {
        self.trees.iter().find(|tree| tree.root(size) == Some(root))
    }

    fn change(&self, rng: &mut Rng, tree: &Honest, case: &mut ConsistencyCase) -> &'static str {
        let other_tree = rng.pick(&self.trees);
        let size = pick_size(rng, other_tree);
        let root = other_tree.root(size).unwrap_or_default();
        match rng.below(20) {
            0 => {
                (case.old, case.old_root) = (size, root);
                "another older checkpoint"
            }
            1 => {
                (case.new, case.new_root) = (size, root);
                "another newer checkpoint"
            }
            2 => {
                // A rewritten history: the fork's root for the same size.
                case.new_root = other_tree.root(case.new).unwrap_or(root);
                "newer root of another tree"
            }
            3 => {
                case.old_root = other_tree.root(case.old).unwrap_or(root);
                "older root of another tree"
            }
            4 => {
                std::mem::swap(&mut case.old, &mut case.new);
                if rng.one_in(2) {
                    std::mem::swap(&mut case.old_root, &mut case.new_root);
                }
                "sizes swapped"
            }
            5 => {
                case.old = place(rng, case.new);
                "older size nobody signed with that root"
            }
            6 => {
                case.new = place(rng, case.new.wrapping_add(8));
                "newer size nobody signed with that root"
            }
            7 => {
                case.old = 0;
                if rng.one_in(2) {
                    case.proof.clear();
                }
                "older size 0 with another root"
            }
            8 => {
                (case.old, case.old_root) = (0, empty_root());
                "older tree empty"
            }
            9 => {
                case.old = case.new;
                case.proof.clear();
                if rng.one_in(2) {
                    case.old_root = case.new_root;
                }
                "both sizes the same"
            }
            10 => {
                let hash = *rng.pick(&[root, empty_root(), Hash::default()]);
                match rng.below(2) {
                    0 => case.old_root = hash,
                    _ => case.new_root = hash,
                }
                "root nobody signed"
            }
            11 => {
                case.proof.insert(0, case.old_root);
                "older root put in front"
            }
            _ => {
                let other = match rng.below(3) {
                    0 if size > 0 => other_tree.inclusion(index_below(rng, size), size),
                    1 if tree.root(case.new).is_some() => {
                        tree.consistency(index_below(rng, case.new), case.new)
                    }
                    _ => other_tree.consistency(index_below(rng, size), size),
                };
                let known = [case.old_root, case.new_root, empty_root(), root];
                change_hashes(rng, &mut case.proof, &other, &known)
            }
        }
    }
}

impl Forger for Consistency {
    const KIND: &'static str = "consistency";
    const SHARE: u64 = 35;
    type Case = ConsistencyCase;
    type Claim = ();
    type Flaw = ConsistencyFlaw;
    const FLAWS: &'static [ConsistencyFlaw] = ConsistencyFlaw::ALL;

    fn new() -> Consistency {
        Consistency { trees: trees() }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> ConsistencyCase {
        let tree = rng.pick(&self.trees);
        let (a, b) = (pick_size(rng, tree), pick_size(rng, tree));
        let (old, new) = (a.min(b), a.max(b));
        let mut case = ConsistencyCase {
            old,
            old_root: tree.root(old).unwrap_or_default(),
            new,
            new_root: tree.root(new).unwrap_or_default(),
            proof: tree.consistency(old, new),
        };
        let honest = case.clone();
        for _ in 0..rng.changes() {
            changes.push(self.change(rng, tree, &mut case));
        }
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &ConsistencyCase) -> Option<()> {
        consistency::verify(
            TreeSize::new(case.old),
            &case.old_root,
            TreeSize::new(case.new),
            &case.new_root,
            &case.proof,
        )
        .ok()
    }

    fn plain(&self, case: &ConsistencyCase, flaw: Option<ConsistencyFlaw>) -> Option<()> {
        if let Some(flaw) = flaw {
            return walks::weak_consistency(case, flaw).then_some(());
        }
        let accepted = match case.old {
            // Every tree extends the one without leaves, whose root is known.
            0 => case.proof.is_empty() && case.old_root == empty_root(),
            _ => {
                roots_of_consistency(case.old, case.old_root, case.new, &case.proof)
                    == Some((case.old_root, case.new_root))
            }
        };
        // With a newer size of 0 the plain rule above needs the one thing it does not look at.
        let accepted = accepted && (case.new > 0 || case.new_root == empty_root());
        let older = self.honest(case.old, case.old_root);
        let newer = self.honest(case.new, case.new_root);
        if let (Some(_), Some(newer)) = (older, newer) {
            let truth = case.old <= case.new
                && newer.range(0, case.old) == case.old_root
                && case.proof == newer.consistency(case.old, case.new);
            assert_eq!(
                truth,
                accepted,
                "the plain judges differ: {}",
                self.show(case)
            );
        }
        accepted.then_some(())
    }

    fn truth(&self, case: &ConsistencyCase) -> &'static str {
        let older = self.honest(case.old, case.old_root);
        let newer = self.honest(case.new, case.new_root);
        match older.and(newer) {
            Some(_) => "true",
            None => "true if anybody had signed those sizes and roots",
        }
    }

    fn show(&self, case: &ConsistencyCase) -> String {
        format!(
            "  {} with {}\n  to {} with {}{}",
            case.old,
            case.old_root,
            case.new,
            case.new_root,
            show(&case.proof)
        )
    }
}
