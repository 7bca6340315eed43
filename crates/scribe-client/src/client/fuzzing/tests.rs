//! The targets over their corpora, on stable; and the corpora themselves.

#[path = "../../../../../fuzz/src/replay.rs"]
mod replay;

use std::fs;

use super::TARGETS;

#[test]
fn answer() {
    replay::replay(TARGETS, "answer", false);
}

#[test]
fn answer_stream() {
    replay::replay(TARGETS, "answer_stream", false);
}

#[test]
fn witness_address() {
    replay::replay(TARGETS, "witness_address", false);
}

#[test]
fn no_target_is_forgotten() {
    assert_eq!(TARGETS.len(), 3);
    replay::check_programs(TARGETS, "scribe_client::fuzzing");
}

/// Writes the corpora again: `cargo test -p scribe-client --lib corpora -- --ignored`.
#[test]
#[ignore = "writes files"]
fn corpora_are_written() {
    let hash = "0a".repeat(32);
    let entry = format!(
        r#"{{"index":3,"kind":"put","key":"k","timestamp_ms":5,"prev":null,"value":"v","value_length":1,"leaf_hash":"{hash}"}}"#
    );
    let appended = format!(r#"{{"index":3,"timestamp_ms":5,"leaf_hash":"{hash}","tree_size":4}}"#);
    let problem = r#"{"type":"urn:scribe-ledger:problem:not_found","title":"Not found","status":404,"code":"not_found","detail":"nothing"}"#;
    let raw = raw_entry();
    let answers = [
        (0, "appended", appended.clone()),
        (1, "history", format!(r#"{{"versions":[{{"index":3,"timestamp_ms":5,"kind":"put","value_length":1,"leaf_hash":"{hash}"}}],"next":null}}"#)),
        (2, "keys", r#"{"keys":[{"key":"a","index":3},{"key_base64":"/w==","index":4}],"next":"AQ","tree_size":5}"#.to_owned()),
        (3, "keys-get", format!(r#"{{"tree_size":5,"entries":[{{"key":"k","entry":{entry}}},{{"key":"n","entry":null}}]}}"#)),
        (4, "transaction", format!(r#"{{"entries":[{{"index":3,"timestamp_ms":5,"leaf_hash":"{hash}"}}],"tree_size":4}}"#)),
        (5, "entry", entry.clone()),
        (5, "raw-entry", raw),
        (6, "page", format!(r#"{{"entries":[{entry}],"next":4,"tree_size":9}}"#)),
        (7, "inclusion", format!(r#"{{"index":3,"tree_size":5,"leaf_hash":"{hash}","root_hash":"{hash}","hashes":["{hash}"]}}"#)),
        (8, "consistency", format!(r#"{{"old_size":3,"new_size":5,"old_root_hash":"{hash}","new_root_hash":"{hash}","hashes":["{hash}"]}}"#)),
        (9, "ledger", r#"{"origin":"example.com/ledger","verifier_keys":["example.com/ledger+0+A"],"policy":"","tree_size":5,"checkpoint":null}"#.to_owned()),
        (10, "receipts", format!(r#"{{"tree_size":5,"receipts":[{{"key":"k","index":3,"receipt":"text"}},{{"key":"n","error":{problem}}}]}}"#)),
        (11, "problem", problem.to_owned()),
    ];
    for (kind, name, text) in answers {
        write("answer", name, &[&[kind], text.as_bytes()].concat());
    }
    let bulk = format!(
        "{{\"line\":1,{}\n{{\"line\":2,\"error\":{problem}}}\n\n{{\"done\":true,\"lines\":2,\"failed\":1}}\n",
        &appended[1..]
    );
    let events = format!(
        ": hello\n\nid: 3\nevent: entry\ndata: {entry}\n\nevent: progress\r\ndata: {{\"index\":7}}\r\n\r\nevent: error\ndata: {problem}\ndata: more\n\n"
    );
    for (name, piece, text) in [
        ("bulk", 255, &*bulk),
        ("bulk-bytes", 0, &bulk),
        ("events", 255, &events),
        ("events-bytes", 0, &events),
        ("unfinished", 6, "event: x\ndata"),
    ] {
        write("answer_stream", name, &[&[piece], text.as_bytes()].concat());
    }
    for (name, text) in [
        ("plain", "https://witness.example.com"),
        ("path", "https://witness.example.com/w/"),
        ("port", "http://127.0.0.1:8080"),
        (
            "key",
            "example.com/w+44662db4+BNYvAWoe/R5P33k+tCzYRHHhup8M8E0Sh7XMcfYWKHy4 https://w.example.com",
        ),
        ("no-host", "https://"),
    ] {
        write("witness_address", name, text.as_bytes());
    }
}

/// An entry whose members say what its leaf says.
fn raw_entry() -> String {
    use scribe_proof::{Leaf, LeafKind, Prev, commitment, leaf_hash};

    use crate::wire::bytes::to_base64;

    let (salt, metadata, value) = ([7; 16], [0, 0], b"v");
    let leaf = Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 5,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::NotAsserted,
        commitment: commitment(&salt, &metadata, value),
        key: b"k",
        author: b"",
        body: b"",
    };
    let mut bytes = Vec::new();
    leaf.encode_into(&mut bytes).unwrap();
    let hash = crate::wire::HexHash(leaf_hash(&bytes).0);
    format!(
        r#"{{"index":3,"kind":"put","key":"k","timestamp_ms":5,"value":"v","value_length":1,"leaf_hash":"{hash}","leaf_base64":"{}","salt_base64":"{}"}}"#,
        to_base64(&bytes),
        to_base64(&salt)
    )
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = replay::fuzz().join("corpus").join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), bytes).unwrap();
}
