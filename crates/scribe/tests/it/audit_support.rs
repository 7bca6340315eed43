//! A real ledger with some of everything, stopped, with its keys, its policy, checkpoints kept on the way, and an export
//! of tiles: what the audit is tried on.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use scribe::audit::{AuditError, AuditOptions, AuditReport, directory, tiles};
use scribe::node::{Condition, Node, Operation, Transaction, WriteKind};
use scribe_proof::leaf::Metadata;
use scribe_proof::policy::Policy;
use scribe_proof::{SignedCheckpoint, TreeSize};

use crate::cli_node::command;
use crate::support::TestServer;
use crate::test_ledger::{TestLedger, delete, put, wait_until};

/// A stopped ledger and its exports.
pub struct Kept {
    pub ledger: TestLedger,
    pub policy: Policy,
    /// One of an early tree size, one of the last.
    pub checkpoints: Vec<SignedCheckpoint>,
}

impl Kept {
    /// Several sealed segments, an open one, tombstones, transactions, values that are no text, remembered writes,
    /// several agreed heads; exported twice, so that stale partial tiles are there.
    pub async fn make() -> Kept {
        let ledger = TestLedger::start().await;
        let server = TestServer::over(&ledger.node, ([127, 0, 0, 1], 0).into()).await;
        let url = format!("http://{}", server.addr);
        let mut checkpoints = Vec::new();
        for round in 0..3u64 {
            fill(&ledger.node, round, [290, 260, 500][round as usize]).await;
            let size = ledger.node.applied_size();
            let published = ledger.node.publish(size).await.unwrap();
            checkpoints.push(SignedCheckpoint::parse(&published.note).unwrap());
            if round != 1 {
                let exported = command(
                    ledger.directory.path(),
                    &["export", "--tiles", "tiles", "--values"],
                )
                .env("SCRIBE_SERVER", &url)
                .output()
                .unwrap();
                assert!(exported.status.success(), "{exported:?}");
            }
        }
        fill(&ledger.node, 3, 40).await;
        let policy = Policy::parse(&ledger.node.ledger().policy).unwrap();
        wait_until(|| ledger.node.sealed_segments() >= 3).await;
        server.stop().await;
        ledger.node.shutdown().await;
        Kept {
            ledger,
            policy,
            checkpoints,
        }
    }

    pub fn data(&self) -> PathBuf {
        self.ledger.options.data_dir.clone()
    }

    pub fn tiles(&self) -> PathBuf {
        self.ledger.directory.path().join("tiles")
    }

    /// Everything a user may have: a policy, an early checkpoint, and for a data directory the keys.
    pub fn options(&self, keys: bool) -> AuditOptions {
        AuditOptions {
            policy: Some(self.policy.clone()),
            pinned: self.checkpoints.first().cloned(),
            key_dir: keys.then(|| self.ledger.options.key_dir.clone()),
            skip_index: false,
        }
    }

    pub fn audit_data(&self) -> Result<AuditReport, AuditError> {
        loop {
            match directory::audit(&self.data(), &self.options(true), &|_, _| ()) {
                // A child of another test, forked and not yet another program, holds the lock for a moment.
                Err(AuditError::User { message, .. }) if message.contains("is open") => {
                    std::thread::yield_now();
                }
                outcome => return outcome,
            }
        }
    }

    pub fn audit_tiles(&self) -> Result<AuditReport, AuditError> {
        tiles::audit(&self.tiles(), &self.options(false), &|_, _| ())
    }
}

async fn fill(node: &Node, round: u64, count: u64) {
    let mut writes = Vec::new();
    for n in 0..count {
        let mut write = put(
            &format!("key {}", n % 50),
            &format!("round {round} value {n}"),
        );
        match n % 10 {
            0 => write = delete(&format!("key {}", n % 50)),
            1 => {
                let pairs = vec![("unit".to_owned(), n.to_string())];
                let metadata = Metadata::new("application/octet-stream", pairs).unwrap();
                write.key = Bytes::from(vec![0xff, 0, n as u8]);
                write.kind = WriteKind::Put {
                    metadata,
                    value: Bytes::from(vec![n as u8; (n % 97) as usize]),
                };
            }
            2 => write.idempotency_key = Some(format!("{round}/{n}")),
            _ => {}
        }
        writes.push(write);
    }
    for outcome in node.append_many(writes).await {
        outcome.unwrap();
    }
    let operations = (0..7).map(|n| Operation::Write {
        key: format!("transaction {round}/{n}").into(),
        kind: put("", &"x".repeat(n)).kind,
        condition: Condition::None,
    });
    let transaction = Transaction {
        operations: operations.collect(),
        idempotency_key: None,
        author: Bytes::from_static(b"auditor"),
    };
    node.append_transaction(transaction).await.unwrap();
    under_conditions(node, round).await;
    assert!(node.applied_size() > TreeSize::new(count));
}

/// Entries that say what came before them: nothing, the entry before, or one of an earlier round that is sealed by now.
async fn under_conditions(node: &Node, round: u64) {
    let mut write = put(&format!("once {round}"), "first");
    write.condition = Condition::Absent;
    let first = node.append(write).await.unwrap();
    for key in [format!("once {round}"), "since the first round".to_owned()] {
        let before = node.latest(key.as_bytes(), node.applied_size()).unwrap();
        let mut write = put(&key, "next");
        write.condition = match before {
            Some(before) => Condition::Version(before.index),
            None => Condition::Absent,
        };
        let next = node.append(write).await.unwrap();
        assert!(next.index > first.index);
    }
}

/// Every file below a directory, relative to it, sorted.
pub fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(
                    path.strip_prefix(directory)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                ),
            }
        }
    }
    found.sort();
    found
}
