//! `TestLedger`: a whole node in a temporary directory, and the check every test makes after every step.

use std::path::Path;

use bytes::Bytes;
use scribe::node::{AppendError, Appended, Condition, Node, NodeOptions, Write, WriteKind};
use scribe_proof::index::TreeSize;
use scribe_proof::leaf::Metadata;
use scribe_proof::policy::Policy;
use scribe_proof::tree::MemoryTree;
use tempfile::TempDir;

pub struct TestLedger {
    pub node: Node,
    pub options: NodeOptions,
    pub directory: TempDir,
}

/// Options for a node below `directory`, with small segments so that a short test seals some.
pub fn options(directory: &Path) -> NodeOptions {
    NodeOptions {
        data_dir: directory.join("data"),
        key_dir: directory.join("keys"),
        publish_interval_ms: 20,
        segment_bytes_max: 64 * 1_024,
        segment_leaves_max: 300,
        // A test machine may be short of space; the full disk has a test of its own.
        disk_reserve_bytes: 0,
        scrub_bytes_per_second: 0,
        ..NodeOptions::default()
    }
}

impl TestLedger {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As [`Self::start`], with options changed.
    pub async fn start_with(change: impl FnOnce(&mut NodeOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(directory.path());
        change(&mut options);
        let node = Node::start(options.clone()).await.unwrap();
        Self {
            node,
            options,
            directory,
        }
    }

    /// Stops the node and starts it again on the same directories.
    pub async fn restart(&mut self) {
        self.node.shutdown().await;
        self.node = Node::start(self.options.clone()).await.unwrap();
    }

    pub async fn put(&self, key: &str, value: &str) -> Appended {
        self.node.append(put(key, value)).await.unwrap()
    }

    pub fn value(&self, key: &str) -> Option<Bytes> {
        let size = self.node.applied_size();
        let entry = self.node.latest(key.as_bytes(), size).unwrap()?;
        (entry.parsed().unwrap().kind == scribe_proof::leaf::LeafKind::Put).then(|| entry.value())
    }

    /// Re-reads everything and re-derives every hash: what is on disk, what reads return, what proofs say.
    pub async fn check_log(&self, size: u64) {
        check_log(&self.node, size).await;
    }
}

pub async fn check_log(node: &Node, size: u64) {
    assert_eq!(node.applied_size(), TreeSize::new(size), "tree size");
    let mut tree = MemoryTree::default();
    let mut last_timestamp_ms = 0;
    let mut from = 0;
    while from < size {
        let entries = node
            .entries(scribe_proof::index::LeafIndex::new(from), 1_000, usize::MAX)
            .unwrap();
        assert!(!entries.is_empty(), "entries from {from} on are missing");
        for entry in entries {
            assert_eq!(entry.index.get(), from, "leaf indexes are contiguous");
            let leaf = entry.parsed().unwrap();
            assert!(
                leaf.timestamp_ms >= last_timestamp_ms,
                "timestamps never decrease"
            );
            last_timestamp_ms = leaf.timestamp_ms;
            if let Some(private) = &entry.private {
                let found = scribe_proof::leaf::commitment(
                    &private.salt,
                    &private.metadata,
                    &private.value,
                );
                assert_eq!(found, leaf.commitment, "entry {from} opens its commitment");
            }
            tree.append(entry.leaf_hash());
            from += 1;
        }
    }
    assert_eq!(
        node.root_at(TreeSize::new(size)).unwrap(),
        tree.root(),
        "root hash"
    );
    let mut report = node.check(|_, _| {}).unwrap();
    while report.tree_size.get() < size {
        // A follower may apply what the others have on disk a moment before it has it there itself.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        report = node.check(|_, _| {}).unwrap();
    }
    assert_eq!(
        report.tree_size,
        TreeSize::new(size),
        "what the check on disk found"
    );
    if size > 0 {
        let published = node.publish(TreeSize::new(size)).await.unwrap();
        assert_eq!(published.root, node.root_at(published.size).unwrap());
        let policy = Policy::parse(&node.ledger().policy).unwrap();
        for index in [0, size / 2, size - 1] {
            let entry = node
                .entry(scribe_proof::index::LeafIndex::new(index))
                .unwrap()
                .unwrap();
            let receipt = node.receipt(&entry, &published).unwrap();
            receipt.verify(&policy).unwrap();
        }
    }
}

pub fn put(key: &str, value: &str) -> Write {
    Write {
        key: Bytes::copy_from_slice(key.as_bytes()),
        kind: WriteKind::Put {
            metadata: Metadata::default(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        },
        condition: Condition::None,
        idempotency_key: None,
        author: Bytes::new(),
    }
}

pub fn delete(key: &str) -> Write {
    Write {
        kind: WriteKind::Delete,
        ..put(key, "")
    }
}

pub fn condition_failed(error: AppendError) -> Option<u64> {
    match error {
        AppendError::ConditionFailed { current_index, .. } => {
            current_index.map(scribe_proof::index::LeafIndex::get)
        }
        other => panic!("expected a failed condition, got {other:?}"),
    }
}

/// Waits for a condition; a test that waits for ever is stopped by its runner.
pub async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Waits until nobody has the key index of a stopped node open: its database is closed on a thread of its own, which
/// may still delete files after the node has stopped. For tests that copy or change the files of a stopped node.
pub fn index_let_go(index: &Path) {
    let Ok(lock) = std::fs::File::open(index.join("lock")) else {
        return;
    };
    lock.lock().unwrap();
}
