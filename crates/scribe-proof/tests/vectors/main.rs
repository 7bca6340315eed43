//! The vectors in `testdata/vectors`: what other people's implementations can be checked against.
//!
//! Every file holds cases that must be accepted and cases that must be refused, with the reason. Two
//! tests: the files on disk hold, and they are what this test would write. After a deliberate change
//! of a format, `REGENERATE=1 cargo test -p scribe-proof --test vectors` writes them anew.

#[path = "../common/mod.rs"]
mod common;
mod entries;
mod notes;
mod receipts;
mod rotations;
mod trees;
mod witnesses;

use std::path::PathBuf;

use common::*;
use entries::*;
use notes::*;
use receipts::*;
use rotations::*;
use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafIndex, LeafKind, MemoryTree, Metadata, Note, Opening, Policy, Prev,
    Receipt, SignedCheckpoint, SigningKey, TreeSize, VerifierKey, commitment, consistency,
    cosignature, inclusion, leaf_hash, node_hash, sha256, sign_note,
};
use serde_json::{Value, json};
use trees::*;
use witnesses::*;

/// What makes a file's cases, and what checks one of them.
type File = (
    &'static str,
    fn() -> Vec<Value>,
    fn(&Value) -> Result<(), String>,
);

const FILES: [File; 11] = [
    ("leaf", leaf_cases, check_leaf),
    ("commitment", commitment_cases, check_commitment),
    ("tree", tree_cases, check_tree),
    ("inclusion", inclusion_cases, check_inclusion),
    ("consistency", consistency_cases, check_consistency),
    ("note", note_cases, check_note),
    ("checkpoint", checkpoint_cases, check_checkpoint),
    ("receipt", receipt_cases, check_receipt),
    ("rotation", rotation_cases, check_rotation),
    ("witness-request", request_cases, check_request),
    ("witness-answer", answer_cases, check_answer),
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
