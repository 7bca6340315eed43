//! Append, prove and verify.
//!
//! The write path allows about 0.36 µs per leaf for the leaf hash and the tree together.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scribe_proof::{
    LeafIndex, MemoryTree, TreeBuilder, TreeSize, consistency, inclusion, leaf_hash, root_at,
};

const LEAVES: u64 = 1_000_000;
const BATCH: u64 = 1_024;

fn append(c: &mut Criterion) {
    // A leaf as a short key makes it.
    let mut leaf = [7_u8; 90];
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("leaf hash", |b| {
        b.iter(|| {
            for number in 0..BATCH {
                leaf[..8].copy_from_slice(&number.to_be_bytes());
                black_box(leaf_hash(&leaf));
            }
        });
    });
    let mut builder = TreeBuilder::new();
    let mut levels: Vec<Vec<_>> = vec![Vec::new(); 8];
    group.bench_function("leaf hash and tree", |b| {
        b.iter(|| {
            levels.iter_mut().for_each(Vec::clear);
            for number in 0..BATCH {
                leaf[..8].copy_from_slice(&number.to_be_bytes());
                builder.append(leaf_hash(&leaf), |level, hash| {
                    levels[level as usize].push(hash)
                });
            }
            black_box(builder.root());
        });
    });
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let mut tree = MemoryTree::new();
    (0..LEAVES).for_each(|number| tree.append(leaf_hash(&number.to_be_bytes())));
    let (size, root) = (tree.size(), tree.root());
    let index = LeafIndex::new(LEAVES / 3);
    let old = TreeSize::new(LEAVES / 3);
    let mut group = c.benchmark_group("proofs of a million leaves");
    group.bench_function("root at a size", |b| b.iter(|| root_at(&tree, old)));
    group.bench_function("prove inclusion", |b| {
        b.iter(|| inclusion::prove(&tree, index, size))
    });
    let proof = inclusion::prove(&tree, index, size).expect("the leaf is in the tree");
    let hash = leaf_hash(&index.get().to_be_bytes());
    group.bench_function("verify inclusion", |b| {
        b.iter(|| inclusion::verify(&hash, index, size, &proof, &root));
    });
    group.bench_function("prove consistency", |b| {
        b.iter(|| consistency::prove(&tree, old, size))
    });
    let old_root = root_at(&tree, old).expect("the tree is larger");
    let proof = consistency::prove(&tree, old, size).expect("the tree is larger");
    group.bench_function("verify consistency", |b| {
        b.iter(|| consistency::verify(old, &old_root, size, &root, &proof));
    });
    group.finish();
}

criterion_group!(benches, append, proofs);
criterion_main!(benches);
