//! The tree against the RFC as it reads, its test vectors, and two other implementations.

mod common;

use common::{naive_consistency, naive_inclusion, naive_root, number_hash, number_tree};
use proptest::prelude::*;
use scribe_proof::tree::{LEVEL_MAX, level_length};
use scribe_proof::{
    Frontier, Hash, HashReader, LeafIndex, MemoryTree, ProofError, ProveError, TreeBuilder,
    TreeSize, consistency, empty_root, inclusion, leaf_hash, root_at, subtree_root, tile_root,
};

fn size(leaves: u64) -> TreeSize {
    TreeSize::new(leaves)
}

fn index(place: u64) -> LeafIndex {
    LeafIndex::new(place)
}

/// The leaves and roots that Certificate Transparency's implementations test with.
const CLASSIC_LEAVES: [&[u8]; 8] = [
    &[],
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[
        0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e,
        0x6f,
    ],
];
const CLASSIC_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn classic_roots() {
    let mut frontier = Frontier::new();
    assert_eq!(frontier.root(), empty_root());
    for (leaf, root) in CLASSIC_LEAVES.iter().zip(CLASSIC_ROOTS) {
        frontier.append(leaf_hash(leaf));
        assert_eq!(frontier.root().to_hex(), root, "size {}", frontier.size());
    }
}

#[test]
fn every_size_to_600_has_the_naive_root() {
    let (tree, hashes) = number_tree(600);
    let mut frontier = Frontier::new();
    for leaves in 0..=600_usize {
        let expected = naive_root(&hashes[..leaves]);
        assert_eq!(frontier.root(), expected, "frontier at {leaves}");
        assert_eq!(
            root_at(&tree, size(leaves as u64)).unwrap(),
            expected,
            "root_at {leaves}"
        );
        let read = Frontier::from_reader(&tree, size(leaves as u64)).unwrap();
        assert_eq!(read, frontier, "from_reader {leaves}");
        if let Some(hash) = hashes.get(leaves) {
            frontier.append(*hash);
        }
    }
}

#[test]
fn stored_hashes_are_roots_of_full_subtrees() {
    let (tree, hashes) = number_tree(70_000);
    let mut level_2 = Vec::new();
    tree.read(2, 0, 1, &mut level_2).unwrap();
    assert_eq!(level_2, [naive_root(&hashes[..65_536])]);
    assert_eq!(level_length(1, tree.size()), 273);
    let mut level_1 = Vec::new();
    tree.read(1, 272, 1, &mut level_1).unwrap();
    assert_eq!(level_1, [tile_root(&hashes[272 * 256..273 * 256])]);
    assert!(tree.read(1, 273, 1, &mut level_1).is_err());
    assert!(tree.read(3, 0, 1, &mut level_1).is_err());
}

#[test]
fn builder_goes_on_where_the_store_ends() {
    let (whole, hashes) = number_tree(1000);
    for start in [0, 1, 2, 255, 256, 257, 511, 512, 700, 999] {
        let mut builder = TreeBuilder::from_reader(&whole, size(start)).unwrap();
        let mut emitted = [Vec::new(), Vec::new()];
        for hash in &hashes[start as usize..] {
            builder.append(*hash, |level, hash| emitted[usize::from(level)].push(hash));
        }
        assert_eq!(builder.root(), whole.root(), "from {start}");
        assert_eq!(emitted[0], hashes[start as usize..]);
        let mut expected = Vec::new();
        let first = start / 256;
        whole
            .read(1, first, (3 - first) as usize, &mut expected)
            .unwrap();
        assert_eq!(emitted[1], expected, "level 1 from {start}");
    }
}

#[test]
fn proofs_of_small_trees_are_the_naive_ones() {
    let (tree, hashes) = number_tree(70);
    for leaves in 0..=70_usize {
        let now = &hashes[..leaves];
        let root = naive_root(now);
        let at = size(leaves as u64);
        for (place, hash) in now.iter().enumerate() {
            let proof = inclusion::prove(&tree, index(place as u64), at).unwrap();
            assert_eq!(proof, naive_inclusion(place, now), "{place} of {leaves}");
            assert_eq!(
                proof.len(),
                inclusion::proof_length(index(place as u64), at)
            );
            inclusion::verify(hash, index(place as u64), at, &proof, &root).unwrap();
        }
        for old in 1..=leaves {
            let old_root = naive_root(&hashes[..old]);
            let proof = consistency::prove(&tree, size(old as u64), at).unwrap();
            assert_eq!(proof, naive_consistency(old, now), "{old} to {leaves}");
            consistency::verify(size(old as u64), &old_root, at, &root, &proof).unwrap();
        }
        let proof = consistency::prove(&tree, TreeSize::EMPTY, at).unwrap();
        assert_eq!(proof, []);
        consistency::verify(TreeSize::EMPTY, &empty_root(), at, &root, &proof).unwrap();
    }
}

#[test]
fn a_proof_holds_for_its_own_numbers_only() {
    let (tree, hashes) = number_tree(40);
    for leaves in 1..=40_u64 {
        let root = root_at(&tree, size(leaves)).unwrap();
        for place in 0..leaves {
            let hash = &hashes[place as usize];
            let proof = inclusion::prove(&tree, index(place), size(leaves)).unwrap();
            for other in (0..leaves + 2).filter(|other| *other != place) {
                let result = inclusion::verify(hash, index(other), size(leaves), &proof, &root);
                assert!(result.is_err(), "{place} as {other} of {leaves}");
            }
        }
    }
}

#[test]
fn errors_name_the_rule() {
    let (tree, hashes) = number_tree(10);
    let (at, root) = (tree.size(), tree.root());
    let mut proof = inclusion::prove(&tree, index(3), at).unwrap();
    assert_eq!(
        inclusion::verify(&hashes[3], index(10), at, &proof, &root),
        Err(ProofError::IndexOutsideTree {
            index: index(10),
            size: at
        })
    );
    assert!(matches!(
        inclusion::verify(&hashes[4], index(3), at, &proof, &root),
        Err(ProofError::Root { .. })
    ));
    proof.push(Hash::default());
    assert_eq!(
        inclusion::verify(&hashes[3], index(3), at, &proof, &root),
        Err(ProofError::Length {
            found: 5,
            expected: 4
        })
    );
    assert!(matches!(
        inclusion::prove(&tree, index(10), at),
        Err(ProveError::IndexOutsideTree { .. })
    ));
    // The tree says so itself when it is asked for more than it holds.
    assert!(matches!(
        inclusion::prove(&tree, index(0), size(11)),
        Err(ProveError::Read(_))
    ));
    assert!(matches!(
        consistency::prove(&tree, size(5), size(4)),
        Err(ProveError::SizesOutOfOrder { .. })
    ));
    assert!(matches!(
        consistency::verify(size(5), &root, size(4), &root, &[]),
        Err(ProofError::SizesOutOfOrder { .. })
    ));
    let proof = consistency::prove(&tree, size(6), at).unwrap();
    let old_root = root_at(&tree, size(6)).unwrap();
    assert!(matches!(
        consistency::verify(size(6), &root, at, &root, &proof),
        Err(ProofError::OldRoot { .. })
    ));
    assert!(matches!(
        consistency::verify(size(6), &old_root, at, &old_root, &proof),
        Err(ProofError::Root { .. })
    ));
    assert!(matches!(
        consistency::verify(size(0), &old_root, at, &root, &[]),
        Err(ProofError::OldRoot { .. })
    ));
    assert!(matches!(
        consistency::verify(at, &old_root, at, &root, &[]),
        Err(ProofError::Root { .. })
    ));
}

#[test]
fn numbers_near_the_end_of_u64_do_not_panic() {
    let last = u64::MAX;
    for leaves in [last, last - 1, 1 << 63, (1 << 63) + 1, (1 << 63) - 1] {
        for place in [0, 1, leaves / 2, leaves - 1] {
            let length = inclusion::proof_length(index(place), size(leaves));
            assert!(length <= 64);
            let proof = vec![Hash::default(); length];
            let root =
                inclusion::root_from(&Hash::default(), index(place), size(leaves), &proof).unwrap();
            inclusion::verify(&Hash::default(), index(place), size(leaves), &proof, &root).unwrap();
        }
        for old in [1, 2, 3, leaves / 2, leaves / 2 + 1, leaves - 1] {
            let length = consistency::proof_length(size(old), size(leaves));
            assert!(length <= 65);
            let proof = vec![Hash::default(); length];
            let zero = Hash::default();
            assert!(consistency::verify(size(old), &zero, size(leaves), &zero, &proof).is_err());
        }
    }
}

#[test]
#[should_panic(expected = "power of two")]
fn subtree_root_wants_a_full_subtree() {
    let _ = subtree_root(&[Hash::default(); 3]);
}

// --- other implementations ---

mod oracle {
    use ct_merkle::digest::{FixedOutput, HashMarker, Output, OutputSizeUser, Update, consts::U32};
    use sha2::Digest as _;

    /// SHA-256 of the version we use, as the digest version that `ct-merkle` uses.
    #[derive(Clone, Default)]
    pub struct Sha256(sha2::Sha256);

    impl Update for Sha256 {
        fn update(&mut self, data: &[u8]) {
            self.0.update(data);
        }
    }
    impl OutputSizeUser for Sha256 {
        type OutputSize = U32;
    }
    impl FixedOutput for Sha256 {
        fn finalize_into(self, out: &mut Output<Self>) {
            out.copy_from_slice(&self.0.finalize());
        }
    }
    impl HashMarker for Sha256 {}

    pub type CtTree = ct_merkle::mem_backed_tree::MemoryBackedTree<Sha256, Vec<u8>>;

    /// Cloudflare's port of Go's tlog, storing every hash.
    #[derive(Default)]
    pub struct Tlog {
        pub hashes: Vec<tlog_tiles::Hash>,
        pub size: u64,
    }

    impl Tlog {
        pub fn push(&mut self, leaf: &[u8]) {
            let new = tlog_tiles::stored_hashes(self.size, leaf, self).unwrap();
            self.hashes.extend(new);
            self.size += 1;
        }
    }

    impl tlog_tiles::HashReader for Tlog {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
            Ok(indexes
                .iter()
                .map(|index| self.hashes[*index as usize])
                .collect())
        }
    }
}

fn bytes(proof: &[Hash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn to_tlog(proof: &[Hash]) -> Vec<tlog_tiles::Hash> {
    proof.iter().map(|hash| tlog_tiles::Hash(hash.0)).collect()
}

#[test]
fn agrees_with_two_other_implementations() {
    let (mut ours, mut theirs, mut tlog) = (
        MemoryTree::new(),
        oracle::CtTree::new(),
        oracle::Tlog::default(),
    );
    for number in 0..300_u64 {
        let leaf = number.to_be_bytes();
        ours.append(number_hash(number));
        theirs.push(leaf.to_vec());
        tlog.push(&leaf);
        let leaves = number + 1;
        let root = ours.root();
        let tlog_root = tlog_tiles::tree_hash(leaves, &tlog).unwrap();
        assert_eq!(theirs.root().as_bytes().as_slice(), root.0, "size {leaves}");
        assert_eq!(tlog_root.0, root.0, "size {leaves}");
        if leaves % 7 != 0 && leaves < 250 {
            continue;
        }
        for place in (0..leaves).step_by(3).chain([number]) {
            let proof = inclusion::prove(&ours, index(place), size(leaves)).unwrap();
            assert_eq!(
                theirs.prove_inclusion(place as usize).as_bytes(),
                bytes(&proof)
            );
            let hash = tlog_tiles::Hash(number_hash(place).0);
            tlog_tiles::check_record(&to_tlog(&proof), leaves, tlog_root, place, hash).unwrap();
            let other = tlog_tiles::prove_record(leaves, place, &tlog).unwrap();
            let other: Vec<Hash> = other.iter().map(|hash| Hash(hash.0)).collect();
            inclusion::verify(
                &number_hash(place),
                index(place),
                size(leaves),
                &other,
                &root,
            )
            .unwrap();
        }
        for old in (1..leaves).step_by(5) {
            let proof = consistency::prove(&ours, size(old), size(leaves)).unwrap();
            let added = (leaves - old) as usize;
            assert_eq!(theirs.prove_consistency(added).as_bytes(), bytes(&proof));
            let old_root = root_at(&ours, size(old)).unwrap();
            let tlog_old = tlog_tiles::Hash(old_root.0);
            tlog_tiles::check_tree(&to_tlog(&proof), leaves, tlog_root, old, tlog_old).unwrap();
            let other = tlog_tiles::prove_tree(leaves, old, &tlog).unwrap();
            let other: Vec<Hash> = other.iter().map(|hash| Hash(hash.0)).collect();
            consistency::verify(size(old), &old_root, size(leaves), &root, &other).unwrap();
        }
    }
}

#[test]
fn large_tree_agrees_at_its_edges() {
    let (tree, _) = number_tree(70_000);
    let mut tlog = oracle::Tlog::default();
    (0..70_000_u64).for_each(|number| tlog.push(&number.to_be_bytes()));
    for leaves in [65_535_u64, 65_536, 65_537, 65_792, 69_999, 70_000] {
        let root = root_at(&tree, size(leaves)).unwrap();
        let tlog_root = tlog_tiles::tree_hash(leaves, &tlog).unwrap();
        assert_eq!(tlog_root.0, root.0);
        for place in [0, 1, 255, 256, 32_767, 65_534, leaves - 1] {
            let proof = inclusion::prove(&tree, index(place), size(leaves)).unwrap();
            let hash = tlog_tiles::Hash(number_hash(place).0);
            tlog_tiles::check_record(&to_tlog(&proof), leaves, tlog_root, place, hash).unwrap();
        }
        for old in [1_u64, 255, 256, 257, 60_000, 65_534] {
            let proof = consistency::prove(&tree, size(old), size(leaves)).unwrap();
            let old_root = tlog_tiles::Hash(root_at(&tree, size(old)).unwrap().0);
            tlog_tiles::check_tree(&to_tlog(&proof), leaves, tlog_root, old, old_root).unwrap();
        }
    }
}

// --- properties ---

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..256_usize).prop_map(|(at, bit)| Change::Flip(at, bit)),
        any::<prop::sample::Index>().prop_map(Change::Drop),
        any::<prop::sample::Index>().prop_map(Change::Repeat),
        any::<prop::sample::Index>().prop_map(Change::SwapWithNext),
    ]
}

/// A way to spoil a proof.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, usize),
    Drop(prop::sample::Index),
    Repeat(prop::sample::Index),
    SwapWithNext(prop::sample::Index),
}

fn spoil(proof: &[Hash], change: &Change) -> Vec<Hash> {
    let mut spoiled = proof.to_vec();
    if spoiled.is_empty() {
        return vec![Hash::default()];
    }
    match change {
        Change::Flip(at, bit) => spoiled[at.index(proof.len())].0[bit / 8] ^= 1 << (bit % 8),
        Change::Drop(at) => drop(spoiled.remove(at.index(proof.len()))),
        Change::Repeat(at) => {
            let at = at.index(proof.len());
            spoiled.insert(at, proof[at]);
        }
        Change::SwapWithNext(at) => {
            let at = at.index(proof.len());
            spoiled.swap(at, (at + 1) % proof.len());
        }
    }
    spoiled
}

proptest! {
    #[test]
    fn spoiled_inclusion_proofs_fail(
        leaves in 1..2000_u64,
        place in any::<prop::sample::Index>(),
        change in changes(),
    ) {
        let (tree, hashes) = number_tree(leaves);
        let place = place.index(leaves as usize);
        let (at, root) = (tree.size(), tree.root());
        let proof = inclusion::prove(&tree, index(place as u64), at).unwrap();
        inclusion::verify(&hashes[place], index(place as u64), at, &proof, &root).unwrap();
        let spoiled = spoil(&proof, &change);
        if spoiled != proof {
            let result = inclusion::verify(&hashes[place], index(place as u64), at, &spoiled, &root);
            prop_assert!(result.is_err());
        }
    }

    #[test]
    fn spoiled_consistency_proofs_fail(
        new in 1..2000_u64,
        old in any::<prop::sample::Index>(),
        change in changes(),
    ) {
        let (tree, _) = number_tree(new);
        let old = old.index(new as usize) as u64 + 1;
        let (old_root, root) = (root_at(&tree, size(old)).unwrap(), tree.root());
        let proof = consistency::prove(&tree, size(old), size(new)).unwrap();
        consistency::verify(size(old), &old_root, size(new), &root, &proof).unwrap();
        let spoiled = spoil(&proof, &change);
        if spoiled != proof {
            let result = consistency::verify(size(old), &old_root, size(new), &root, &spoiled);
            prop_assert!(result.is_err());
        }
    }
}

/// Knows the root of every full subtree, and no stored hash.
struct Subtrees(MemoryTree);

impl HashReader for Subtrees {
    type Error = &'static str;

    fn read(&self, _: u8, _: u64, _: usize, _: &mut Vec<Hash>) -> Result<(), &'static str> {
        Err("no stored hash is needed")
    }

    fn subtree(&self, height: u32, number: u64) -> Result<Option<Hash>, &'static str> {
        let leaves = 1 << height;
        let mut hashes = Vec::new();
        for start in (number * leaves..(number + 1) * leaves).step_by(256) {
            let count = leaves.min(256) as usize;
            self.0.read(0, start, count, &mut hashes).unwrap();
        }
        Ok(Some(subtree_root(&hashes)))
    }
}

#[test]
fn a_reader_that_has_subtrees_is_asked_for_nothing_else() {
    let (tree, _) = number_tree(700);
    let reader = Subtrees(tree.clone());
    for leaves in [1, 2, 255, 256, 257, 511, 512, 700] {
        // Through a reference as well: both ways lead to the reader.
        assert_eq!(
            root_at(&&reader, size(leaves)),
            Ok(root_at(&tree, size(leaves)).unwrap())
        );
        for place in (0..leaves).step_by(37) {
            assert_eq!(
                inclusion::prove(&reader, index(place), size(leaves)).unwrap(),
                inclusion::prove(&tree, index(place), size(leaves)).unwrap()
            );
        }
        assert_eq!(
            consistency::prove(&reader, size(leaves), size(700)).unwrap(),
            consistency::prove(&tree, size(leaves), size(700)).unwrap()
        );
    }
}

#[test]
fn a_reader_may_be_borrowed_and_a_builder_go_on_from_an_edge() {
    let (tree, _) = number_tree(700);
    assert_eq!(root_at(&&tree, size(700)).unwrap(), tree.root());
    let edge = Frontier::from_reader(&tree, size(700)).unwrap();
    let mut builder = TreeBuilder::from(edge);
    assert_eq!((builder.size(), builder.root()), (size(700), tree.root()));
    builder.append(number_hash(700), |_, _| {});
    assert_eq!(builder.root(), number_tree(701).0.root());
}

#[test]
fn the_highest_level_is_the_last_one_with_hashes() {
    let largest = size(u64::MAX);
    assert_eq!(level_length(LEVEL_MAX, largest), 255);
    assert_eq!(level_length(LEVEL_MAX + 1, largest), 0);
    assert_eq!(level_length(u8::MAX, largest), 0);
}
