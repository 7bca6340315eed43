//! Honest trees of any size, and the RFC's definitions as they read.
//!
//! A dense tree has a leaf of its own at each index. A sparse one has the same leaf nearly
//! everywhere, so that trees of up to 2^64-1 leaves have roots and proofs too. Forks share a trunk.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use scribe_proof::{Hash, empty_root, leaf_hash, node_hash};

/// A tree nobody lies about.
pub struct Honest {
    /// What its own leaves say.
    label: &'static str,
    /// Leaves below this index are the trunk's.
    fork_at: u64,
    /// Where a sparse tree has leaves of their own; `None` for a dense one.
    special: Option<BTreeSet<u64>>,
    /// The sizes it was published at, ascending.
    pub sizes: Vec<u64>,
    roots: HashMap<u64, Hash>,
    ranges: RefCell<HashMap<(u64, u64), Hash>>,
}

impl Honest {
    /// A tree of up to `largest` leaves, all of them different, published at every size.
    pub fn dense(label: &'static str, fork_at: u64, largest: u64) -> Honest {
        Honest::build(label, fork_at, None, (0..=largest).collect())
    }

    /// A tree of up to 2^64-1 leaves, published at sizes around powers of two.
    pub fn sparse(label: &'static str, fork_at: u64) -> Honest {
        let mut sizes = BTreeSet::from([u64::MAX - 1, u64::MAX]);
        let mut special = BTreeSet::from([0, 1, u64::MAX - 2, u64::MAX - 1]);
        for height in 0..64 {
            let power = 1_u64 << height;
            sizes.extend([power - 1, power, power.saturating_add(1)]);
            if height % 8 == 5 {
                special.extend([power - 1, power, power + 3]);
                sizes.insert(power + 4);
            }
        }
        Honest::build(label, fork_at, Some(special), sizes.into_iter().collect())
    }

    fn build(
        label: &'static str,
        fork_at: u64,
        special: Option<BTreeSet<u64>>,
        sizes: Vec<u64>,
    ) -> Honest {
        let mut tree = Honest {
            label,
            fork_at,
            special,
            sizes,
            roots: HashMap::new(),
            ranges: RefCell::default(),
        };
        tree.roots = tree
            .sizes
            .iter()
            .map(|size| (*size, tree.range(0, *size)))
            .collect();
        tree
    }

    /// The bytes of the leaf at `index`.
    pub fn leaf(&self, index: u64) -> Vec<u8> {
        match &self.special {
            Some(special) if !special.contains(&index) => b"common".to_vec(),
            _ if index < self.fork_at => format!("trunk {index}").into_bytes(),
            _ => format!("{} {index}", self.label).into_bytes(),
        }
    }

    /// The root at `size`, if the tree was published at that size.
    pub fn root(&self, size: u64) -> Option<Hash> {
        self.roots.get(&size).copied()
    }

    /// MTH of RFC 6962, 2.1, over the leaves `[low, high)`.
    pub fn range(&self, low: u64, high: u64) -> Hash {
        // Leaves that are all alike have the same hash wherever they are.
        let key = match &self.special {
            Some(special) if special.range(low..high).next().is_none() => (u64::MAX, high - low),
            _ => (low, high),
        };
        if let Some(hash) = self.ranges.borrow().get(&key) {
            return *hash;
        }
        let hash = match high - low {
            0 => empty_root(),
            1 => leaf_hash(&self.leaf(low)),
            leaves => {
                let middle = low + split(leaves);
                node_hash(&self.range(low, middle), &self.range(middle, high))
            }
        };
        self.ranges.borrow_mut().insert(key, hash);
        hash
    }

    /// PATH of RFC 6962, 2.1.1.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Hash> {
        let mut proof = Vec::new();
        let (mut low, mut high) = (0, size);
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                proof.push(self.range(middle, high));
                high = middle;
            } else {
                proof.push(self.range(low, middle));
                low = middle;
            }
        }
        proof.reverse();
        proof
    }

    /// PROOF of RFC 6962, 2.1.2; nothing is to be shown for an older tree without leaves.
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Hash> {
        let mut proof = Vec::new();
        if old > 0 {
            self.subproof(old, 0, new, true, &mut proof);
        }
        proof
    }

    fn subproof(&self, old: u64, low: u64, high: u64, whole: bool, proof: &mut Vec<Hash>) {
        if old == high - low {
            if !whole {
                proof.push(self.range(low, high));
            }
            return;
        }
        let middle = low + split(high - low);
        if old <= middle - low {
            self.subproof(old, low, middle, whole, proof);
            proof.push(self.range(middle, high));
        } else {
            self.subproof(old - (middle - low), middle, high, false, proof);
            proof.push(self.range(low, middle));
        }
    }
}

/// The largest power of two below `leaves`, which is at least 2.
pub fn split(leaves: u64) -> u64 {
    let mut split = 1;
    while split < leaves - split {
        split *= 2;
    }
    split
}

/// The root that an inclusion proof leads to, top down: the last hash belongs to the topmost split.
pub fn root_of_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    if size == 1 {
        return proof.is_empty().then_some(leaf);
    }
    let (top, below) = proof.split_last()?;
    let left = split(size);
    Some(if index < left {
        node_hash(&root_of_inclusion(leaf, index, left, below)?, top)
    } else {
        node_hash(
            top,
            &root_of_inclusion(leaf, index - left, size - left, below)?,
        )
    })
}

/// The older and the newer root that a consistency proof leads to, for `0 < old <= new`.
pub fn roots_of_consistency(
    old: u64,
    old_root: Hash,
    new: u64,
    proof: &[Hash],
) -> Option<(Hash, Hash)> {
    fn climb(old: u64, new: u64, whole: Option<Hash>, proof: &[Hash]) -> Option<(Hash, Hash)> {
        if old == new {
            return match (whole, proof) {
                (Some(root), []) => Some((root, root)),
                (None, [root]) => Some((*root, *root)),
                _ => None,
            };
        }
        let (top, below) = proof.split_last()?;
        let left = split(new);
        if old <= left {
            let (older, newer) = climb(old, left, whole, below)?;
            Some((older, node_hash(&newer, top)))
        } else {
            let (older, newer) = climb(old - left, new - left, None, below)?;
            Some((node_hash(top, &older), node_hash(top, &newer)))
        }
    }
    if old == 0 || old > new {
        return None;
    }
    climb(old, new, Some(old_root), proof)
}
