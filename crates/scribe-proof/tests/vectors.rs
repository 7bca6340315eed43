//! The vectors in `testdata/vectors`: what other people's implementations can be checked against.
//!
//! Every file holds cases that must be accepted and cases that must be refused, with the reason. Two
//! tests: the files on disk hold, and they are what this test would write. After a deliberate change
//! of a format, `REGENERATE=1 cargo test -p scribe-proof --test vectors` writes them anew.

mod common;

use std::path::PathBuf;

use common::*;
use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafIndex, LeafKind, MemoryTree, Metadata, Note, Opening, Policy, Prev,
    Receipt, SignedCheckpoint, SigningKey, TreeSize, VerifierKey, commitment, consistency,
    cosignature, inclusion, leaf_hash, node_hash, sha256, sign_note,
};
use serde_json::{Value, json};

const FILES: [(&str, fn() -> Vec<Value>, fn(&Value) -> Result<(), String>); 8] = [
    ("leaf", leaf_cases, check_leaf),
    ("commitment", commitment_cases, check_commitment),
    ("tree", tree_cases, check_tree),
    ("inclusion", inclusion_cases, check_inclusion),
    ("consistency", consistency_cases, check_consistency),
    ("note", note_cases, check_note),
    ("checkpoint", checkpoint_cases, check_checkpoint),
    ("receipt", receipt_cases, check_receipt),
];

fn path(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("../../testdata/vectors")
        .join(format!("{name}.json"))
}

#[test]
fn vectors_hold() {
    if std::env::var_os("REGENERATE").is_some() {
        return;
    }
    for (name, _, check) in FILES {
        let text = std::fs::read_to_string(path(name)).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(
            cases.iter().any(|case| case["valid"] == true),
            "{name} has no valid case"
        );
        assert!(
            cases.iter().any(|case| case["valid"] == false),
            "{name} has no wrong case"
        );
        for case in cases {
            let title = &case["name"];
            match (case["valid"].as_bool().unwrap(), check(case)) {
                (true, Ok(())) => (),
                (true, Err(error)) => panic!("{name}: {title} is refused: {error}"),
                (false, Ok(())) => panic!("{name}: {title} is accepted: {}", case["reason"]),
                (false, Err(error)) => {
                    let expected = case["error"].as_str().unwrap();
                    assert!(error.contains(expected), "{name}: {title}: {error}");
                }
            }
        }
    }
}

#[test]
fn vectors_are_current() {
    for (name, cases, _) in FILES {
        let file = json!({ "format": format!("scribe/{name}/v1"), "cases": cases() });
        let text = serde_json::to_string_pretty(&file).unwrap() + "\n";
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), text).unwrap();
        } else {
            let found = std::fs::read_to_string(path(name)).unwrap();
            assert!(
                found == text,
                "{name}.json differs; hint: REGENERATE=1 if the format changed"
            );
        }
    }
}

// --- small helpers ---

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn hash(value: &Value) -> Hash {
    Hash::from_hex(value.as_str().unwrap()).unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

fn hex_all(proof: &[Hash]) -> Vec<String> {
    proof.iter().map(Hash::to_hex).collect()
}

/// `base` with its name, and these members added or replaced.
fn valid(name: &str, members: Value) -> Value {
    let mut case = json!({ "name": name, "valid": true });
    merge(&mut case, members);
    case
}

fn wrong(name: &str, reason: &str, error: &str, base: &Value, members: Value) -> Value {
    let mut case = base.clone();
    merge(
        &mut case,
        json!({ "name": name, "valid": false, "reason": reason, "error": error }),
    );
    merge(&mut case, members);
    case
}

fn merge(case: &mut Value, members: Value) {
    case.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
}

fn check<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

// --- leaves ---

fn leaf_fields(leaf: &Leaf<'_>) -> Value {
    json!({
        "kind": leaf.kind as u8,
        "subtype": leaf.subtype,
        "timestamp_ms": leaf.timestamp_ms,
        "transaction_position": leaf.transaction_position,
        "transaction_length": leaf.transaction_length,
        "prev": match leaf.prev {
            Prev::None => json!("none"),
            Prev::NotAsserted => json!("not asserted"),
            Prev::Version(index) => json!(index.get()),
        },
        "commitment": leaf.commitment.to_hex(),
        "key": hex(leaf.key),
        "author": hex(leaf.author),
        "body": hex(leaf.body),
    })
}

fn leaf_cases() -> Vec<Value> {
    let put = Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 1_790_000_000_123,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: commitment(&SALT, &metadata().encode().unwrap(), VALUE),
        key: KEY,
        author: b"",
        body: b"",
    };
    let empty = commitment(&SALT, Metadata::EMPTY_ENCODING, b"");
    let system = Leaf {
        kind: LeafKind::System,
        subtype: 1,
        commitment: Hash::default(),
        key: b"",
        body: b"genesis",
        ..put
    };
    let case = |name: &str, leaf: &Leaf<'_>| {
        let bytes = encode(leaf);
        valid(
            name,
            json!({
                "leaf": hex(&bytes),
                "leaf_hash": leaf_hash(&bytes).to_hex(),
                "fields": leaf_fields(leaf),
            }),
        )
    };
    let long_key = [b'k'; 1024];
    let long_body = vec![0xab; 16_384 - 61];
    let mut cases = vec![
        case("put of a new key", &put),
        case(
            "put, previous version not asserted",
            &Leaf {
                prev: Prev::NotAsserted,
                ..put
            },
        ),
        case(
            "put by an author after version 0",
            &Leaf {
                author: b"alice",
                prev: Prev::Version(LeafIndex::new(0)),
                ..put
            },
        ),
        case(
            "delete, third of three in a transaction",
            &Leaf {
                kind: LeafKind::Delete,
                commitment: empty,
                transaction_position: 2,
                transaction_length: 3,
                prev: Prev::Version(LeafIndex::new(41)),
                ..put
            },
        ),
        case(
            "longest key and author",
            &Leaf {
                key: &long_key,
                author: &[b'a'; 64],
                ..put
            },
        ),
        case(
            "largest numbers",
            &Leaf {
                timestamp_ms: u64::MAX,
                transaction_position: u16::MAX - 1,
                transaction_length: u16::MAX,
                prev: Prev::Version(LeafIndex::new(u64::MAX - 2)),
                ..put
            },
        ),
        case("genesis", &system),
        case(
            "longest leaf",
            &Leaf {
                body: &long_body,
                ..system
            },
        ),
    ];
    let bytes = encode(&put);
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        json!({ "leaf": hex(&bytes) })
    };
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &json!({}), members)
    };
    let system_bytes = encode(&system);
    cases.extend([
        refuse("empty", "a leaf has at least 61 bytes", "ends early", json!({ "leaf": "" })),
        refuse(
            "cut",
            "the body length is missing",
            "ends early",
            json!({ "leaf": hex(&bytes[..bytes.len() - 1]) }),
        ),
        refuse(
            "extra byte",
            "no bytes may follow the body",
            "follow the end",
            json!({ "leaf": hex(&[&bytes[..], &[0]].concat()) }),
        ),
        refuse("version 2", "unknown version", "leaf version 2 is unknown", changed(0, &[2])),
        refuse("kind 0", "unknown kind", "leaf kind 0 is unknown", changed(1, &[0])),
        refuse("put of subtype 1", "unknown subtype", "leaf subtype 1 is unknown", changed(3, &[1])),
        refuse(
            "transaction of no leaves",
            "the transaction length is at least 1",
            "transaction position 0 is not below",
            changed(14, &[0, 0]),
        ),
        refuse(
            "position outside the transaction",
            "the position is below the length",
            "transaction position 1 is not below",
            changed(12, &[0, 1]),
        ),
        refuse(
            "key longer than the leaf",
            "the key length reaches beyond the end",
            "ends early",
            changed(56, &[3, 0]),
        ),
        refuse(
            "put without key",
            "a user's key has at least 1 byte",
            "key is 0 bytes long",
            json!({ "leaf": hex(&[&bytes[..56], &[0, 0, 0, 0, 0]].concat()) }),
        ),
        refuse(
            "put with a body",
            "only system leaves have a body",
            "a put or delete has a body",
            json!({ "leaf": hex(&[&bytes[..bytes.len() - 1], &[1, 7]].concat()) }),
        ),
        refuse(
            "author of 65 bytes",
            "an author has at most 64 bytes",
            "author is 65 bytes long",
            json!({ "leaf": hex(&[&bytes[..bytes.len() - 3], &[65], &[b'a'; 65], &[0, 0]].concat()) }),
        ),
        refuse(
            "system leaf with a commitment",
            "the commitment of a system leaf is 32 zero bytes",
            "a system leaf has a commitment",
            json!({ "leaf": hex(&[&system_bytes[..24], &[1], &system_bytes[25..]].concat()) }),
        ),
        refuse(
            "system leaf of subtype 7",
            "unknown subtype",
            "leaf subtype 7 is unknown",
            json!({ "leaf": hex(&[&system_bytes[..3], &[7], &system_bytes[4..]].concat()) }),
        ),
    ]);
    cases
}

fn check_leaf(case: &Value) -> Result<(), String> {
    let bytes = unhex(&case["leaf"]);
    let leaf = Leaf::parse(&bytes).map_err(|error| error.to_string())?;
    assert_eq!(leaf_fields(&leaf), case["fields"]);
    assert_eq!(leaf_hash(&bytes), hash(&case["leaf_hash"]));
    assert_eq!(encode(&leaf), bytes);
    Ok(())
}

// --- commitments ---

fn commitment_cases() -> Vec<Value> {
    let case = |name: &str, salt: [u8; 16], metadata: &Metadata, value: &[u8]| {
        let encoded = metadata.encode().unwrap();
        valid(
            name,
            json!({
                "salt": hex(&salt),
                "content_type": metadata.content_type,
                "pairs": metadata.pairs,
                "metadata": hex(&encoded),
                "value": hex(value),
                "commitment": commitment(&salt, &encoded, value).to_hex(),
            }),
        )
    };
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    let pairs = vec![pair("a", ""), pair("a-b_c.9", "x"), pair("language", "en")];
    let base = case("text with a pair", SALT, &metadata(), VALUE);
    let salt: [u8; 16] = core::array::from_fn(|at| at as u8);
    let mut cases = vec![
        base.clone(),
        case(
            "delete: empty metadata, empty value",
            salt,
            &Metadata::default(),
            b"",
        ),
        case(
            "three pairs",
            salt,
            &Metadata::new("", pairs).unwrap(),
            &[0, 255, 10],
        ),
        case(
            "not ASCII",
            salt,
            &Metadata::new("text/é", vec![pair("n", "日本")]).unwrap(),
            b"1",
        ),
    ];
    let other = sha256(b"other").to_hex();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    cases.extend([
        refuse(
            "other commitment",
            "it is another hash",
            "commitment",
            json!({ "commitment": other }),
        ),
        refuse(
            "other value",
            "one byte differs",
            "commitment",
            json!({ "value": hex(b"hellO") }),
        ),
        refuse(
            "longer value",
            "a zero byte follows",
            "commitment",
            json!({ "value": hex(b"hello\0") }),
        ),
        refuse(
            "other salt",
            "one byte differs",
            "commitment",
            json!({ "salt": hex(&salt) }),
        ),
        refuse(
            "no metadata",
            "empty metadata is 0000, not nothing",
            "ends early",
            json!({ "metadata": "" }),
        ),
        refuse(
            "extra byte",
            "no bytes may follow",
            "follow the end",
            json!({ "metadata": "000000" }),
        ),
        refuse(
            "unsorted names",
            "names are in byte order",
            "unique and in byte order",
            json!({ "metadata": hex(b"\x00\x02\x01b\x00\x00\x01a\x00\x00") }),
        ),
        refuse(
            "name twice",
            "names are unique",
            "unique and in byte order",
            json!({ "metadata": hex(b"\x00\x02\x01a\x00\x00\x01a\x00\x00") }),
        ),
        refuse(
            "uppercase name",
            "names are lowercase",
            "metadata name must be",
            json!({ "metadata": hex(b"\x00\x01\x01A\x00\x00") }),
        ),
        refuse(
            "line break in a value",
            "values have no control characters",
            "metadata value must be",
            json!({ "metadata": hex(b"\x00\x01\x01a\x00\x02\r\n") }),
        ),
        refuse(
            "seventeen pairs",
            "at most 16 pairs",
            "at most 16",
            json!({ "metadata": format!("0011{}", "01610000".repeat(17)) }),
        ),
        refuse(
            "content type not UTF-8",
            "text is UTF-8",
            "content type must be",
            json!({ "metadata": "01ff00" }),
        ),
    ]);
    cases
}

fn check_commitment(case: &Value) -> Result<(), String> {
    let bytes = unhex(&case["metadata"]);
    let metadata = Metadata::parse(&bytes).map_err(|error| error.to_string())?;
    assert_eq!(metadata.encode().unwrap(), bytes);
    assert_eq!(json!(metadata.content_type), case["content_type"]);
    assert_eq!(json!(metadata.pairs), case["pairs"]);
    let salt = unhex(&case["salt"]).try_into().unwrap();
    if commitment(&salt, &bytes, &unhex(&case["value"])) != hash(&case["commitment"]) {
        return Err("commitment does not match".into());
    }
    Ok(())
}

// --- trees ---

fn classic_leaves() -> Vec<Vec<u8>> {
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

fn tree_cases() -> Vec<Value> {
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

fn check_tree(case: &Value) -> Result<(), String> {
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

fn inclusion_cases() -> Vec<Value> {
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

fn check_inclusion(case: &Value) -> Result<(), String> {
    check(inclusion::verify(
        &hash(&case["leaf_hash"]),
        LeafIndex::new(case["index"].as_u64().unwrap()),
        TreeSize::new(case["size"].as_u64().unwrap()),
        &hashes(&case["proof"]),
        &hash(&case["root"]),
    ))
}

fn consistency_cases() -> Vec<Value> {
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

fn check_consistency(case: &Value) -> Result<(), String> {
    check(consistency::verify(
        TreeSize::new(case["old_size"].as_u64().unwrap()),
        &hash(&case["old_root"]),
        TreeSize::new(case["new_size"].as_u64().unwrap()),
        &hash(&case["new_root"]),
        &hashes(&case["proof"]),
    ))
}

// --- notes and checkpoints ---

fn note_cases() -> Vec<Value> {
    let key = ledger_key();
    let vkey = key.verifier_key().to_text();
    let case = |name: &str, note: &str| valid(name, json!({ "note": note, "key": vkey }));
    let plain = sign_note("some text\n", &[&key]).unwrap();
    let other = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let both = sign_note("some text\n", &[&other, &key]).unwrap();
    let text = plain.to_text();
    let base = case("one signature", &text);
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(7), number_tree(7).0.root());
    let mut cosigned = SignedCheckpoint::sign(checkpoint, &[&key]).unwrap();
    let body = cosigned.note().text.clone();
    cosigned
        .add_signature(cosignature::sign(&body, &node_key(1), 1_790_000_001).unwrap())
        .unwrap();
    let node = json!({ "key": node_key(1).verifier_key().to_text(), "timestamp_s": 1_790_000_001 });
    let mut cosigned_case = case("cosignature", &cosigned.to_text());
    merge(&mut cosigned_case, node);
    let mut cases = vec![
        base.clone(),
        case(
            "empty lines in the text",
            &sign_note("a\n\nb\n\n", &[&key]).unwrap().to_text(),
        ),
        case(
            "signature of an unknown key of the same name first",
            &both.to_text(),
        ),
        cosigned_case.clone(),
        wrong(
            "key in its private form",
            "it is not a verifier key",
            "verifier key must be",
            &base,
            json!({ "key": key.to_text() }),
        ),
    ];
    let late = cosigned.to_text().replacen("\n7\n", "\n8\n", 1);
    let crlf = text.replace('\n', "\r\n");
    let line = text.lines().last().unwrap();
    let bad_line = "signature line 1 must be";
    let refuse = |name: &str, reason: &str, error: &str, note: &str| {
        wrong(name, reason, error, &base, json!({ "note": note }))
    };
    cases.extend([
        refuse(
            "changed text",
            "the signature is over another text",
            "does not fit the text",
            &text.replace("some", "sone"),
        ),
        refuse(
            "no final newline",
            "a line ends in a newline",
            "must end in a newline",
            text.trim_end(),
        ),
        refuse(
            "no empty line",
            "text and signatures are separated",
            "no empty line",
            &format!("some text\n{line}\n"),
        ),
        refuse(
            "no signature",
            "a note has one at least",
            "no signature line",
            "some text\n\n",
        ),
        refuse(
            "hyphen for em dash",
            "U+2014",
            bad_line,
            &text.replace('\u{2014}', "-"),
        ),
        refuse(
            "padding missing",
            "base64 is canonical",
            bad_line,
            &text.replace("=\n", "\n"),
        ),
        refuse(
            "plus in the name",
            "a name has no plus",
            "key name must be",
            &text.replace("example", "ex+mple"),
        ),
        refuse(
            "carriage returns",
            "newline is the only control character",
            "control character",
            &crlf,
        ),
        refuse(
            "signed by another key only",
            "no trusted key signed",
            "not signed",
            &sign_note("some text\n", &[&other]).unwrap().to_text(),
        ),
        wrong(
            "cosignature for another size",
            "it is over the whole text",
            "does not fit the text",
            &cosigned_case,
            json!({ "note": late }),
        ),
        wrong(
            "wrong key id",
            "the id belongs to another key",
            "does not belong to the key",
            &base,
            json!({ "key": vkey.replacen(ORIGIN, "example.com/other", 1) }),
        ),
        wrong(
            "key of type 6",
            "a type this software does not know",
            "unknown key type 0x06",
            &base,
            json!({ "key": vkey.replacen("+A", "+B", 1) }),
        ),
    ]);
    // Type 0x01 is `AQ…` in base64, `+B` makes it something else; set it exactly instead.
    let (head, base64) = vkey.rsplit_once('+').unwrap();
    if let Some(last) = cases.last_mut() {
        merge(last, json!({ "key": format!("{head}+Bg{}", &base64[2..]) }));
    }
    cases
}

fn check_note(case: &Value) -> Result<(), String> {
    let text = case["note"].as_str().unwrap();
    let note = Note::parse(text).map_err(|error| error.to_string())?;
    assert_eq!(note.to_text(), text);
    let key = VerifierKey::parse(case["key"].as_str().unwrap()).map_err(|e| e.to_string())?;
    if !note.verify(&key).map_err(|error| error.to_string())? {
        return Err("not signed by the key".into());
    }
    if let Some(time) = case["timestamp_s"].as_u64() {
        assert_eq!(cosignature::find(&note, &key), Ok(Some(time)));
    }
    Ok(())
}

fn checkpoint_cases() -> Vec<Value> {
    let key = ledger_key();
    let case = |name: &str, checkpoint: Checkpoint| {
        let (origin, size, root) = (checkpoint.origin.clone(), checkpoint.size, checkpoint.root);
        valid(
            name,
            json!({
                "note": SignedCheckpoint::sign(checkpoint, &[&key]).unwrap().to_text(),
                "key": key.verifier_key().to_text(),
                "origin": origin,
                "size": size.get(),
                "root": root.to_hex(),
            }),
        )
    };
    let root = number_tree(7).0.root();
    let base = case(
        "seven leaves",
        Checkpoint::new(ORIGIN, TreeSize::new(7), root),
    );
    let extensions = vec!["one".to_string(), "two words".to_string()];
    let mut cases = vec![
        base.clone(),
        case(
            "no leaves",
            Checkpoint::new(ORIGIN, TreeSize::EMPTY, scribe_proof::empty_root()),
        ),
        case(
            "with extension lines",
            Checkpoint {
                extensions,
                ..Checkpoint::new(ORIGIN, TreeSize::new(7), root)
            },
        ),
    ];
    // Signed all the same: the signature is not what is wrong with them.
    let signed = |text: &str| json!({ "note": sign_note(text, &[&key]).unwrap().to_text() });
    let root = root.to_base64();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    let other = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    let note = base["note"].as_str().unwrap();
    cases.extend([
        refuse("leading zero", "sizes have no leading zeros", "tree size must be", signed(&format!("{ORIGIN}\n07\n{root}\n"))),
        refuse("sign", "sizes are digits", "tree size must be", signed(&format!("{ORIGIN}\n+7\n{root}\n"))),
        refuse("size 2^64", "sizes are below 2^64", "tree size must be", signed(&format!("{ORIGIN}\n18446744073709551616\n{root}\n"))),
        refuse("two lines", "a root hash is missing", "has 2 lines", signed(&format!("{ORIGIN}\n7\n"))),
        refuse("no origin", "the first line is not empty", "origin must be", signed(&format!("\n7\n{root}\n"))),
        refuse("root without padding", "base64 is canonical", "root hash is malformed", signed(&format!("{ORIGIN}\n7\n{}\n", root.trim_end_matches('=')))),
        refuse("root in hex", "roots are base64", "root hash is malformed", signed(&format!("{ORIGIN}\n7\n{}\n", base["root"].as_str().unwrap()))),
        refuse("no leaves, other root", "the empty tree has one root", "without leaves", signed(&format!("{ORIGIN}\n0\n{root}\n"))),
        refuse("empty extension line", "extension lines are not empty", "extension line 1", signed(&format!("{ORIGIN}\n7\n{root}\n\nx\n"))),
        refuse("other origin", "the key is of another ledger", "checkpoint is of origin", signed(&format!("example.com/else\n7\n{root}\n"))),
        refuse("other key", "the key is of another ledger", "checkpoint is of origin", json!({ "key": other.verifier_key().to_text() })),
        refuse("changed size", "the signature is over another size", "does not fit the text", json!({ "note": note.replacen("\n7\n", "\n8\n", 1) })),
        refuse("cosigner for ledger", "a cosigner's key cannot sign for the ledger", "type 0x01 is needed", json!({ "key": SigningKey::cosigner_from_seed(ORIGIN, &[1; 32]).unwrap().verifier_key().to_text() })),
    ]);
    cases
}

fn check_checkpoint(case: &Value) -> Result<(), String> {
    let text = case["note"].as_str().unwrap();
    let signed = SignedCheckpoint::parse(text).map_err(|error| error.to_string())?;
    let key = VerifierKey::parse(case["key"].as_str().unwrap()).unwrap();
    let checkpoint = signed.verify(&key).map_err(|error| error.to_string())?;
    assert_eq!(checkpoint.origin, case["origin"].as_str().unwrap());
    assert_eq!(checkpoint.size.get(), case["size"].as_u64().unwrap());
    assert_eq!(checkpoint.root, hash(&case["root"]));
    Ok(())
}

// --- receipts ---

fn receipt_cases() -> Vec<Value> {
    let case = |name: &str, receipt: &Receipt| {
        valid(
            name,
            json!({
                "receipt": receipt.to_text(),
                "policy": policy_text(),
                "key": hex(KEY),
                "value": hex(VALUE),
                "index": RECEIPT_INDEX,
                "size": RECEIPT_SIZE,
            }),
        )
    };
    let good = receipt();
    let base = case("opened receipt", &good);
    let mut redacted = case("redacted receipt", &good.redacted());
    merge(&mut redacted, json!({ "value": null }));
    let mut ledger_only = case("ledger key alone is trusted", &good);
    let policy = format!("log {}\nquorum none\n", ledger_key().verifier_key());
    merge(&mut ledger_only, json!({ "policy": policy }));
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    let with = |receipt: Receipt| json!({ "receipt": receipt.to_text() });
    let text = good.to_text();
    let edit = |from: &str, to: &str| json!({ "receipt": text.replacen(from, to, 1) });
    let mut other_leaf = good.clone();
    other_leaf.leaf[4] ^= 1;
    let mut short = good.clone();
    short.proof.pop();
    let mut spoiled = good.clone();
    spoiled.proof[2].0[5] ^= 1;
    let one_cosigner = {
        let signed = SignedCheckpoint::parse(&good.checkpoint_note).unwrap();
        let checkpoint = signed.checkpoint();
        common::signed(checkpoint.size, checkpoint.root, &[1]).to_text()
    };
    let mut imposter = {
        let key = SigningKey::from_seed(ORIGIN, &[66; 32]).unwrap();
        let checkpoint = SignedCheckpoint::parse(&good.checkpoint_note).unwrap();
        SignedCheckpoint::sign(checkpoint.checkpoint().clone(), &[&key]).unwrap()
    };
    for id in [1, 2] {
        let text = imposter.note().text.clone();
        imposter
            .add_signature(cosignature::sign(&text, &node_key(id), 1_790_000_000).unwrap())
            .unwrap();
    }
    let opening = |salt: [u8; 16], metadata: &[u8]| {
        with(Receipt {
            opening: Some(Opening {
                salt,
                metadata: metadata.to_vec(),
            }),
            ..good.clone()
        })
    };
    let encoded = metadata().encode().unwrap();
    let later = receipt_for(b"\x02 of a later version".to_vec()).redacted();
    vec![
        base.clone(),
        redacted.clone(),
        ledger_only,
        refuse(
            "other value",
            "the leaf commits to another value",
            "value does not match",
            json!({ "value": hex(b"hellO") }),
        ),
        refuse(
            "other key",
            "the receipt is for another key",
            "entry key does not match",
            json!({ "key": hex(b"greetings") }),
        ),
        refuse(
            "other salt",
            "the commitment needs the salt",
            "value does not match",
            opening([0; 16], &encoded),
        ),
        refuse(
            "other metadata",
            "the commitment covers metadata",
            "value does not match",
            opening(SALT, &[0, 0]),
        ),
        refuse(
            "malformed metadata",
            "metadata is canonical",
            "metadata does not match",
            opening(SALT, &[0]),
        ),
        refuse(
            "value of a redacted receipt",
            "nothing opens the commitment",
            "value cannot be checked",
            with(good.redacted()),
        ),
        refuse(
            "other leaf",
            "one bit of the timestamp differs",
            "inclusion does not match",
            with(other_leaf),
        ),
        refuse(
            "other index",
            "the leaf is elsewhere",
            "inclusion does not match",
            edit("index 137", "index 136"),
        ),
        refuse(
            "index outside the tree",
            "the tree has 300 leaves",
            "inclusion does not match",
            edit("index 137", "index 300"),
        ),
        refuse(
            "proof one hash short",
            "the length follows from index and size",
            "inclusion does not match",
            with(short),
        ),
        refuse(
            "proof with a flipped bit",
            "it leads to another root",
            "inclusion does not match",
            with(spoiled),
        ),
        refuse(
            "later leaf version",
            "included, not understood: never valid",
            "included but not understood",
            with(later),
        ),
        refuse(
            "quorum not met",
            "one of three nodes cosigned, two are needed",
            "signature does not match: quorum",
            with(Receipt {
                checkpoint_note: one_cosigner,
                ..good.clone()
            }),
        ),
        refuse(
            "another ledger key",
            "cosignatures do not replace the ledger's",
            "signature does not match",
            with(Receipt {
                checkpoint_note: imposter.to_text(),
                ..good.clone()
            }),
        ),
        refuse(
            "another origin",
            "the policy has no log of that name",
            "origin does not match",
            json!({ "policy": format!("log {}\nquorum none\n", SigningKey::from_seed("example.com/other", &[1; 32]).unwrap().verifier_key()) }),
        ),
        refuse(
            "changed size in the checkpoint",
            "300 leaves became 138",
            "inclusion does not match",
            edit("\n300\n", "\n138\n"),
        ),
        refuse(
            "index with leading zero",
            "numbers are canonical",
            "receipt line 3",
            edit("index 137", "index 0137"),
        ),
        refuse(
            "no extra line",
            "ours carries the leaf there",
            "receipt line 2",
            edit("extra ", "Extra "),
        ),
        refuse(
            "another format",
            "the first line names the format",
            "receipt line 1",
            edit("tlog-proof@v1", "tlog-proof@v2"),
        ),
        refuse(
            "no checkpoint",
            "a checkpoint follows the empty line",
            "followed by an empty line",
            json!({ "receipt": text.split("\n\n").next().unwrap() }),
        ),
    ]
}

fn check_receipt(case: &Value) -> Result<(), String> {
    let text = case["receipt"].as_str().unwrap();
    let receipt = Receipt::parse(text).map_err(|error| error.to_string())?;
    assert_eq!(receipt.to_text(), text);
    let policy = Policy::parse(case["policy"].as_str().unwrap()).unwrap();
    let entry = receipt.verify(&policy).map_err(|error| error.to_string())?;
    assert_eq!(entry.index().get(), case["index"].as_u64().unwrap());
    assert_eq!(entry.tree_size().get(), case["size"].as_u64().unwrap());
    check(entry.check_key(&unhex(&case["key"])))?;
    if !case["value"].is_null() {
        check(entry.check_value(&unhex(&case["value"])).map(|_| ()))?;
    }
    Ok(())
}
