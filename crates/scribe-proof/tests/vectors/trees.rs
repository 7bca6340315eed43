//! Cases for trees, inclusion and consistency proofs.

use super::*;

pub(super) fn classic_leaves() -> Vec<Vec<u8>> {
    let parts = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
    ];
    let mut leaves: Vec<Vec<u8>> = parts.iter().map(|part| unhex(&json!(part))).collect();
    leaves.push((0x60..0x70).collect());
    leaves
}

pub(super) fn tree_cases() -> Vec<Value> {
    let leaves = classic_leaves();
    let mut cases = Vec::new();
    for size in 0..=leaves.len() {
        let now: Vec<Hash> = leaves[..size].iter().map(|leaf| leaf_hash(leaf)).collect();
        let hex_leaves: Vec<String> = leaves[..size].iter().map(|leaf| hex(leaf)).collect();
        cases.push(valid(
            &format!("RFC 6962, {size} leaves"),
            json!({ "leaves": hex_leaves, "size": size, "root": naive_root(&now).to_hex() }),
        ));
    }
    let three = cases[3].clone();
    let [a, b, c]: [Hash; 3] = core::array::from_fn(|at| leaf_hash(&leaves[at]));
    for size in [255_u64, 256, 257, 65_535, 65_536, 65_537] {
        let (_, hashes) = number_tree(size);
        cases.push(valid(
            &format!("{size} leaves, each its index in 8 bytes"),
            json!({ "size": size, "root": naive_root(&hashes).to_hex() }),
        ));
    }
    let mut refuse = |name: &str, reason: &str, root: Hash| {
        cases.push(wrong(
            name,
            reason,
            "root",
            &three,
            json!({ "root": root.to_hex() }),
        ));
    };
    let doubled = node_hash(&node_hash(&a, &b), &node_hash(&c, &c));
    refuse(
        "last leaf doubled",
        "an odd leaf is carried up, not paired with itself",
        doubled,
    );
    let plain: Vec<Hash> = leaves[..3].iter().map(|leaf| sha256(leaf)).collect();
    refuse(
        "leaves without prefix",
        "a leaf hash begins with 0x00",
        naive_root(&plain),
    );
    refuse(
        "wrong shape",
        "the left subtree is the full one",
        node_hash(&a, &node_hash(&b, &c)),
    );
    refuse("wrong order", "leaves are in order", naive_root(&[b, a, c]));
    cases
}

pub(super) fn check_tree(case: &Value) -> Result<(), String> {
    let size = case["size"].as_u64().unwrap();
    let mut tree = MemoryTree::new();
    match case["leaves"].as_array() {
        Some(leaves) => leaves
            .iter()
            .for_each(|leaf| tree.append(leaf_hash(&unhex(leaf)))),
        None => (0..size).for_each(|number| tree.append(number_hash(number))),
    }
    assert_eq!(tree.size().get(), size);
    if tree.root() == hash(&case["root"]) {
        Ok(())
    } else {
        Err("root does not match".into())
    }
}

pub(super) fn inclusion_cases() -> Vec<Value> {
    let case = |index: u64, size: u64| {
        let (tree, hashes) = number_tree(size);
        let proof = inclusion::prove(&tree, LeafIndex::new(index), tree.size()).unwrap();
        assert_eq!(proof, naive_inclusion(index as usize, &hashes));
        valid(
            &format!("leaf {index} of {size}"),
            json!({
                "leaf_hash": number_hash(index).to_hex(),
                "index": index,
                "size": size,
                "proof": hex_all(&proof),
                "root": tree.root().to_hex(),
            }),
        )
    };
    let pairs = [
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 3),
        (0, 7),
        (3, 7),
        (6, 7),
        (7, 8),
        (8, 9),
        (137, 300),
        (255, 256),
        (256, 257),
        (0, 70_000),
        (65_535, 70_000),
        (65_536, 70_000),
        (69_999, 70_000),
    ];
    let mut cases: Vec<Value> = pairs
        .iter()
        .map(|(index, size)| case(*index, *size))
        .collect();
    let base = case(3, 7);
    let proof = hashes(&base["proof"]);
    let mut flipped = proof.clone();
    flipped[1].0[0] ^= 1;
    let swapped = [proof[1], proof[0], proof[2]];
    let longer = [&proof[..], &[Hash::default()]].concat();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    let root = "leads to root hash";
    cases.extend([
        refuse(
            "other leaf",
            "the leaf hash differs",
            root,
            json!({ "leaf_hash": number_hash(4).to_hex() }),
        ),
        refuse(
            "other index",
            "the leaf is at index 3",
            root,
            json!({ "index": 2 }),
        ),
        refuse(
            "index outside",
            "the index is below the size",
            "is not below the tree size",
            json!({ "index": 7 }),
        ),
        refuse(
            "empty tree",
            "the empty tree has no leaves",
            "is not below the tree size",
            json!({ "index": 0, "size": 0 }),
        ),
        refuse(
            "one hash short",
            "the length follows from index and size",
            "it must have 3",
            json!({ "proof": hex_all(&proof[..2]) }),
        ),
        refuse(
            "one hash more",
            "the length follows from index and size",
            "it must have 3",
            json!({ "proof": hex_all(&longer) }),
        ),
        refuse(
            "one bit flipped",
            "the second hash differs",
            root,
            json!({ "proof": hex_all(&flipped) }),
        ),
        refuse(
            "hashes swapped",
            "they go from leaf to root",
            root,
            json!({ "proof": hex_all(&swapped) }),
        ),
        refuse(
            "other root",
            "the root differs",
            root,
            json!({ "root": sha256(b"other").to_hex() }),
        ),
        refuse(
            "other size",
            "the proof has the wrong length for 9 leaves",
            "it must have 4",
            json!({ "size": 9 }),
        ),
    ]);
    cases
}

pub(super) fn check_inclusion(case: &Value) -> Result<(), String> {
    check(inclusion::verify(
        &hash(&case["leaf_hash"]),
        LeafIndex::new(case["index"].as_u64().unwrap()),
        TreeSize::new(case["size"].as_u64().unwrap()),
        &hashes(&case["proof"]),
        &hash(&case["root"]),
    ))
}

pub(super) fn consistency_cases() -> Vec<Value> {
    let case = |old: u64, new: u64| {
        let (tree, hashes) = number_tree(new);
        let proof = consistency::prove(&tree, TreeSize::new(old), tree.size()).unwrap();
        if old > 0 {
            assert_eq!(proof, naive_consistency(old as usize, &hashes));
        }
        valid(
            &format!("{old} to {new} leaves"),
            json!({
                "old_size": old,
                "old_root": naive_root(&hashes[..old as usize]).to_hex(),
                "new_size": new,
                "new_root": tree.root().to_hex(),
                "proof": hex_all(&proof),
            }),
        )
    };
    let pairs = [
        (0, 0),
        (0, 5),
        (1, 1),
        (1, 2),
        (2, 3),
        (3, 7),
        (4, 7),
        (6, 7),
        (6, 8),
        (7, 8),
        (8, 9),
        (255, 256),
        (256, 257),
        (137, 300),
        (60_000, 70_000),
        (65_536, 70_000),
    ];
    let mut cases: Vec<Value> = pairs.iter().map(|(old, new)| case(*old, *new)).collect();
    let base = case(3, 7);
    let proof = hashes(&base["proof"]);
    let mut flipped = proof.clone();
    flipped[0].0[31] ^= 128;
    let longer = [&proof[..], &[Hash::default()]].concat();
    let other = sha256(b"other").to_hex();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    cases.extend([
        refuse(
            "other old root",
            "history was changed",
            "leads to old root hash",
            json!({ "old_root": other }),
        ),
        refuse(
            "other new root",
            "the new root differs",
            "leads to root hash",
            json!({ "new_root": other }),
        ),
        refuse(
            "sizes out of order",
            "the old tree is larger",
            "is larger than",
            json!({ "old_size": 8 }),
        ),
        refuse(
            "one hash short",
            "the length follows from the sizes",
            "it must have 4",
            json!({ "proof": hex_all(&proof[..3]) }),
        ),
        refuse(
            "one hash more",
            "the length follows from the sizes",
            "it must have 4",
            json!({ "proof": hex_all(&longer) }),
        ),
        refuse(
            "one bit flipped",
            "the first hash differs",
            "leads to old root hash",
            json!({ "proof": hex_all(&flipped) }),
        ),
        refuse(
            "empty proof",
            "only equal sizes and an empty old tree need none",
            "it must have 4",
            json!({ "proof": [] }),
        ),
        wrong(
            "same size, other root",
            "two trees of one size",
            "leads to root hash",
            &case(1, 1),
            json!({ "new_root": other }),
        ),
        wrong(
            "same size with a proof",
            "equal trees need none",
            "it must have 0",
            &case(1, 1),
            json!({ "proof": [other] }),
        ),
        wrong(
            "empty old tree, other root",
            "the empty tree has one root",
            "leads to old root hash",
            &case(0, 5),
            json!({ "old_root": other }),
        ),
    ]);
    cases
}

pub(super) fn check_consistency(case: &Value) -> Result<(), String> {
    check(consistency::verify(
        TreeSize::new(case["old_size"].as_u64().unwrap()),
        &hash(&case["old_root"]),
        TreeSize::new(case["new_size"].as_u64().unwrap()),
        &hash(&case["new_root"]),
        &hashes(&case["proof"]),
    ))
}
