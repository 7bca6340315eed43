//! Fuzz targets: what members say to each other beyond Raft, and the file that says which member this is.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::files::ClusterFiles;
use super::wire::{
    AdminAnswer, AdminRequest, CheckpointMessage, CosignAnswer, CosignRequest, ForwardAnswer,
    ForwardRequest, Job, JobMessage, JoinAnswer, JoinRequest, LedgerKeysMessage, OutcomeMessage,
    PublishRequest, StatusAnswer,
};
use crate::limits;

fn again<T: Message + Default + PartialEq>(message: &T) {
    let read = T::decode(&*message.encode_to_vec());
    assert!(read.as_ref() == Ok(message), "what was written is not read");
}

fn plain<T: Message + Default + PartialEq>(body: &[u8]) {
    if let Ok(message) = T::decode(body) {
        again(&message);
    }
}

/// A message; the first byte says which one.
pub(crate) fn cluster_message(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(body);
    match kind % 12 {
        0 => plain::<CosignRequest>(body),
        1 => plain::<CosignAnswer>(body),
        2 => plain::<PublishRequest>(body),
        3 => plain::<CheckpointMessage>(body),
        4 => plain::<StatusAnswer>(body),
        5 => plain::<AdminRequest>(body),
        6 => plain::<AdminAnswer>(body),
        7 => {
            if let Ok(message) = LedgerKeysMessage::read(bytes) {
                let most = 1 + limits::LEDGER_KEYS_MAX;
                assert!(message.keys.len() <= most && message.wanted.len() <= most);
                again(&message);
                check_hidden(&format!("{message:?}"), &message.keys);
            }
        }
        8 => {
            if let Ok(request) = JoinRequest::decode(body) {
                again(&request);
                assert!(!format!("{request:?}").contains(&format!("{:?}", request.secret)));
            }
        }
        9 => {
            if let Ok(answer) = JoinAnswer::read(bytes) {
                assert!(answer.more_ledger_keys.len() <= 1 + limits::LEDGER_KEYS_MAX);
                again(&answer);
                check_hidden(&format!("{answer:?}"), &answer.more_ledger_keys);
            }
        }
        10 => {
            let jobs = 3;
            if let Ok(answer) = ForwardAnswer::read(bytes, jobs) {
                assert!(answer.outcomes.len() <= jobs);
                answer.outcomes.into_iter().for_each(check_outcome);
            }
        }
        _ => check_forward(bytes),
    }
}

/// Secrets of some length are not in what is printed.
fn check_hidden(shown: &str, secrets: &[String]) {
    let mut long = secrets.iter().filter(|secret| secret.len() > 40);
    assert!(!long.any(|secret| shown.contains(secret.as_str())));
}

/// An outcome that was understood is written again as the same one.
fn check_outcome(message: OutcomeMessage) {
    let outcome = message.outcome();
    let again = OutcomeMessage::new(&outcome).outcome();
    assert_eq!(format!("{outcome:?}"), format!("{again:?}"));
}

/// Writes for the leader: counted before they are decoded, and each job as it was.
fn check_forward(body: Bytes) {
    let Ok(request) = ForwardRequest::read(body) else {
        return;
    };
    assert!(request.jobs.len() <= limits::FRAME_OPERATIONS_MAX);
    for message in request.jobs {
        let Ok(job) = message.job() else {
            continue;
        };
        if let Job::Transaction(transaction) = &job {
            let operations = transaction.operations.len();
            assert!(operations <= limits::TRANSACTION_OPERATIONS_MAX);
        }
        let written = JobMessage::new(&job).expect("what was read can be written");
        let again = written.clone().job().expect("what was written can be read");
        assert_eq!(JobMessage::new(&again).as_ref(), Ok(&written));
        assert_eq!(again.byte_length(), job.byte_length());
        assert_eq!(again.has_idempotency_key(), job.has_idempotency_key());
    }
}

/// The file that makes a key directory a member's.
pub(crate) fn cluster_file(data: &[u8]) {
    let data = &data[..data.len().min(crate::fuzzing::TOML_LENGTH_MAX)];
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let dir = Path::new("keys");
    let Ok(files) = ClusterFiles::parse(dir, text) else {
        return;
    };
    let written = ClusterFiles::text_of(
        files.cluster_id,
        files.node_id,
        files.joined,
        &files.members,
    );
    // TOML has no numbers above 2^63 - 1, and no reader takes one.
    let written = written.expect("what was read can be written");
    let again = ClusterFiles::parse(dir, &written).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{files:?}"));
}

/// Inputs made by the encoders themselves: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use std::collections::BTreeMap;

    use scribe_proof::hash::Hash;
    use scribe_proof::index::LeafIndex;
    use scribe_proof::leaf::Metadata;

    use crate::consensus::PeerAddress;
    use crate::error::AppendError;
    use crate::sequencer::{Condition, Operation, Transaction, UnitAppended, Write, WriteKind};

    let mut made = Vec::new();
    let mut add = |name, kind: u8, body: Vec<u8>| {
        made.push(("cluster_message", name, [&[kind][..], &body].concat()));
    };
    add("cosign", 0, CosignRequest { size: 70_000 }.encode_to_vec());
    let cosigned = CosignAnswer {
        root: Bytes::from_static(&[4; 32]),
        signature: "\u{2014} example.com AAAA\n".to_owned(),
    };
    add("cosigned", 1, cosigned.encode_to_vec());
    add("publish", 2, PublishRequest { size: 3 }.encode_to_vec());
    let note = CheckpointMessage {
        note: "example.com\n5\nAAAA\n\n".to_owned(),
    };
    add("checkpoint", 3, note.encode_to_vec());
    let status = StatusAnswer {
        state: "leader".to_owned(),
        term: 4,
        last_log_index: Some(9),
        last_applied: Some(8),
        tree_size: 30,
        root: Bytes::from_static(&[4; 32]),
        not_ready: None,
        version: "1".to_owned(),
        catch_up_done: 0,
        catch_up_total: 0,
        leaving: true,
        mending_done: 5,
        mending_total: 7,
    };
    add("status", 4, status.encode_to_vec());
    let change = AdminRequest {
        action: 2,
        node_id: 3,
        by: 4,
        raft_addr: "n3:7001".to_owned(),
        http_addr: String::new(),
    };
    add("admin", 5, change.encode_to_vec());
    let changed = AdminAnswer {
        outcome: 1,
        text: "no".to_owned(),
        hint: Some("wait".to_owned()),
        ..AdminAnswer::default()
    };
    add("admin-answer", 6, changed.encode_to_vec());
    let keys = LedgerKeysMessage {
        keys: vec!["PRIVATE+KEY+example.com+00000000+AAAA".to_owned()],
        wanted: vec!["example.com+00000000+AAAA".to_owned()],
    };
    add("ledger-keys", 7, keys.encode_to_vec());
    let many = LedgerKeysMessage {
        keys: vec![String::new(); 70],
        wanted: Vec::new(),
    };
    add("too-many-keys", 7, many.encode_to_vec());
    let join = JoinRequest {
        secret: Bytes::from_static(&[9; 32]),
        raft_addr: "n4:7001".to_owned(),
        http_addr: "n4:7000".to_owned(),
        certificate_request: "-----BEGIN CERTIFICATE REQUEST-----".to_owned(),
    };
    add("join", 8, join.encode_to_vec());
    let joined = JoinAnswer {
        cluster_id: Bytes::from_static(&[7; 16]),
        node_id: 4,
        certificate: "a".to_owned(),
        ca_certificate: "b".to_owned(),
        ca_key: "c".to_owned(),
        ledger_key: "d".to_owned(),
        more_ledger_keys: vec!["e".to_owned()],
    };
    add("joined", 9, joined.encode_to_vec());
    let outcomes = [
        Ok(UnitAppended {
            first: LeafIndex::new(7),
            timestamp_ms: 8,
            leaf_hashes: vec![Hash([3; 32])],
            replayed: false,
        }),
        Err(AppendError::Overloaded { retry_after_ms: 9 }),
        Err(AppendError::TooLarge {
            what: "key",
            found: 2_000,
            allowed: 1_024,
        }),
    ];
    let answer = ForwardAnswer {
        outcomes: outcomes.iter().map(OutcomeMessage::new).collect(),
    };
    add("forwarded", 10, answer.encode_to_vec());
    let key = Bytes::from_static(b"key");
    let put = WriteKind::Put {
        metadata: Metadata::new("text/plain", vec![("a".to_owned(), "1".to_owned())])
            .expect("metadata"),
        value: Bytes::from_static(b"value"),
    };
    let jobs = [
        Job::Write(Write {
            key: key.clone(),
            kind: put.clone(),
            condition: Condition::Version(LeafIndex::new(5)),
            idempotency_key: Some("i".to_owned()),
            author: Bytes::new(),
        }),
        Job::Transaction(Transaction {
            operations: vec![
                Operation::Write {
                    key: key.clone(),
                    kind: WriteKind::Delete,
                    condition: Condition::None,
                },
                Operation::Check {
                    key,
                    condition: Condition::Absent,
                },
            ],
            idempotency_key: None,
            author: Bytes::new(),
        }),
        Job::System {
            subtype: 2,
            body: Bytes::from_static(b"body"),
        },
    ];
    let request = ForwardRequest {
        jobs: jobs
            .iter()
            .map(|job| JobMessage::new(job).expect("a good job"))
            .collect(),
    };
    add("forward", 11, request.encode_to_vec());
    // One transaction of 1,100 checks of four bytes each.
    let mut transaction = vec![0x08, 2];
    transaction.extend([0x12, 2, 0x08, 3].repeat(1_100));
    let mut crowded = vec![0x0a];
    prost::encoding::encode_varint(transaction.len() as u64, &mut crowded);
    crowded.extend(transaction);
    add("too-many-operations", 11, crowded);

    let address = |node: u64| PeerAddress {
        raft_addr: format!("n{node}:7001"),
        http_addr: format!("n{node}:7000"),
    };
    let members: BTreeMap<_, _> = (1..=3).map(|node| (node, address(node))).collect();
    let text = |joined, members: &BTreeMap<_, _>| {
        ClusterFiles::text_of([0xab; 16], 2, joined, members).expect("TOML")
    };
    let three = text(false, &members);
    for (name, text) in [
        ("three", three.clone()),
        ("joined", text(true, &BTreeMap::new())),
        ("plus", three.replacen("ab", "+b", 1)),
        ("newer", three.replace("version = 1", "version = 2")),
        ("unknown", format!("{three}\nmore = 1\n")),
        ("twice", three.replace("node_id = 3", "node_id = 1")),
    ] {
        made.push(("cluster_file", name, text.into_bytes()));
    }
    made
}
