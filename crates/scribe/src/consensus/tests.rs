//! openraft's own conformance suite, and what it does not look at.
//!
//! The suite says nothing about durability: a store that keeps everything in memory passes it. That a reopened log
//! still holds what it promised is tested beside the log, and here once through openraft's eyes.

use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::type_config::alias::{EntryOf, VoteOf};
use openraft::{EntryPayload, RaftLogReader, StorageError};
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Prev};
use tempfile::TempDir;

use super::type_config::leader_of;
use super::{LogStore, Proposal, StateMachine, TypeConfig};
use crate::ledger::batch::BatchBuilder;
use crate::store::index::IndexKind;
use crate::store::log::LogIdentity;
use crate::store::real_disk::RealDisk;
use crate::store::{Store, StoreOptions};

struct Builder;

fn open(directory: &Path) -> Store {
    let identity = LogIdentity {
        cluster_id: [7; 16],
        node_id: 1,
    };
    let options = StoreOptions {
        index: IndexKind::Memory,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(RealDisk), directory, identity, options)
        .unwrap()
        .0
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, Closer)> for Builder {
    async fn build(
        &self,
    ) -> Result<((TempDir, Closer), LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let log_store = LogStore::new(store.log().clone());
        Ok((
            (directory, Closer(store.clone())),
            log_store,
            StateMachine::new(store),
        ))
    }
}

/// Closes the store before its directory goes.
struct Closer(Store);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conformance_suite_passes() {
    Suite::<TypeConfig, LogStore, StateMachine, Builder, (TempDir, Closer)>::test_all(Builder)
        .await
        .unwrap();
}

fn entries_proposal(
    term: u64,
    first: u64,
    keys: &[&str],
) -> EntryPayload<Proposal, u64, super::PeerAddress> {
    let mut builder = BatchBuilder::new();
    for key in keys {
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 1_000 + first,
            transaction_position: 0,
            transaction_length: 1,
            prev: Prev::NotAsserted,
            commitment: Hash([9; 32]),
            key: key.as_bytes(),
            author: b"",
            body: b"",
        };
        let mut bytes = Vec::new();
        leaf.encode_into(&mut bytes).unwrap();
        builder.push(&bytes, Some((&[1; 16], b"", b"value")));
    }
    let (public, private) = builder.finish();
    EntryPayload::Normal(Proposal::Entries {
        sequencing_term: term,
        first_leaf: LeafIndex::new(first),
        count: keys.len() as u32,
        public,
        private,
    })
}

fn entry(
    term: u64,
    index: u64,
    payload: EntryPayload<Proposal, u64, super::PeerAddress>,
) -> EntryOf<TypeConfig> {
    EntryOf::<TypeConfig>::new(openraft::LogId::new(leader_of(term), index), payload)
}

async fn append(log: &mut LogStore, entries: Vec<EntryOf<TypeConfig>>) {
    let (done, flushed) = TypeConfig::oneshot();
    log.append(entries, openraft::storage::IOFlushed::signal(done))
        .await
        .unwrap();
    flushed.await.unwrap().unwrap();
}

async fn apply(
    state_machine: &mut StateMachine,
    entries: Vec<EntryOf<TypeConfig>>,
) -> Result<(), std::io::Error> {
    let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    state_machine.apply(stream).await
}

#[tokio::test]
async fn what_was_promised_is_still_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let vote = VoteOf::<TypeConfig>::new_committed(3, 1);
    let written = vec![
        entry(1, 0, EntryPayload::Blank),
        entry(1, 1, entries_proposal(1, 0, &["a", "b"])),
        entry(
            3,
            2,
            EntryPayload::Normal(Proposal::Publish {
                size: TreeSize::new(2),
                root: Hash([4; 32]),
            }),
        ),
    ];
    {
        let store = open(directory.path());
        let mut log = LogStore::new(store.log().clone());
        append(&mut log, written.clone()).await;
        log.save_vote(&vote).await.unwrap();
        store.shutdown();
    }
    let store = open(directory.path());
    let mut log = LogStore::new(store.log().clone());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), written);
    store.shutdown();
}

#[tokio::test]
async fn a_frame_of_another_term_takes_no_leaves_and_the_next_one_fits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut log = LogStore::new(store.log().clone());
    let mut state_machine = StateMachine::new(store.clone());
    let entries = vec![
        entry(1, 0, EntryPayload::Blank),
        entry(1, 1, entries_proposal(1, 0, &["a"])),
        // Sequenced by the leader of term 1, appended by that of term 2.
        entry(2, 2, entries_proposal(1, 1, &["void"])),
        // At a place that is taken.
        entry(2, 3, entries_proposal(2, 0, &["void"])),
        entry(2, 4, entries_proposal(2, 1, &["b"])),
    ];
    append(&mut log, entries.clone()).await;
    apply(&mut state_machine, entries).await.unwrap();
    assert_eq!(store.applied().tree_size, TreeSize::new(2));
    assert!(store.latest(b"void", TreeSize::new(2)).unwrap().is_none());
    assert_eq!(
        store.latest(b"b", TreeSize::new(2)).unwrap().unwrap().index,
        LeafIndex::new(1)
    );
    store.shutdown();
}

#[tokio::test]
async fn a_node_whose_tree_differs_from_the_agreed_one_stops() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut log = LogStore::new(store.log().clone());
    let mut state_machine = StateMachine::new(store.clone());
    let entries = vec![
        entry(1, 0, entries_proposal(1, 0, &["a"])),
        entry(
            1,
            1,
            EntryPayload::Normal(Proposal::Publish {
                size: TreeSize::new(1),
                root: Hash([4; 32]),
            }),
        ),
    ];
    append(&mut log, entries.clone()).await;
    let error = apply(&mut state_machine, entries).await.unwrap_err();
    assert!(error.to_string().contains("the agreed one is"), "{error}");
    store.shutdown();
}
