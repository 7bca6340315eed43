//! openraft's own conformance suite, and what it does not look at.
//!
//! The suite says nothing about durability: a store that keeps everything in memory passes it. That a reopened log
//! still holds what it promised is tested beside the log, and here once through openraft's eyes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::error::RPCError;
use openraft::network::{RPCOption, RaftNetworkFactory as _, RaftNetworkV2 as _};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::type_config::alias::{EntryOf, VoteOf};
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError};
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Prev};
use tempfile::TempDir;

use super::log_store::{entry_of, frame_of, to_raft_id};
use super::type_config::leader_of;
use super::{LogStore, Proposal, StateMachine, TypeConfig};
use crate::ledger::batch::BatchBuilder;
use crate::store::frame::{Frame, FrameKind, LogId, LogIndex};
use crate::store::index::IndexKind;
use crate::store::log::{LogIdentity, LogOptions};
use crate::store::real_disk::RealDisk;
use crate::store::segment::SealedSegment;
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
            commitment: scribe_proof::commitment(&[1; 16], b"", b"value"),
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

/// A store whose segments hold a handful of leaves.
fn open_small(directory: &Path) -> Store {
    let identity = LogIdentity {
        cluster_id: [7; 16],
        node_id: 1,
    };
    let options = StoreOptions {
        log: LogOptions {
            segment_leaves_max: 6,
            preallocate: false,
            cache_bytes: 0,
            ..LogOptions::default()
        },
        index: IndexKind::Memory,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(RealDisk), directory, identity, options)
        .unwrap()
        .0
}

/// A membership, then entries of three terms: two leaves each, so that three fill a segment.
fn a_long_log() -> Vec<EntryOf<TypeConfig>> {
    let members = openraft::Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], []);
    let mut entries = vec![entry(1, 0, EntryPayload::Membership(members))];
    for index in 1..30 {
        let term = 1 + index / 14;
        let first = (index - 1) * 2;
        entries.push(entry(
            term,
            index,
            entries_proposal(term, first, &["a", "b"]),
        ));
    }
    entries
}

async fn a_leader(directory: &Path, entries: &[EntryOf<TypeConfig>]) -> (Store, StateMachine) {
    let store = open_small(directory);
    let mut log = LogStore::new(store.log().clone());
    let mut state_machine = StateMachine::new(store.clone());
    append(&mut log, entries.to_vec()).await;
    apply(&mut state_machine, entries.to_vec()).await.unwrap();
    store.all_sealed().await;
    assert!(store.log().sealed().len() >= 6);
    (store, state_machine)
}

fn fetch(leader: &Store, follower: &Store, segments: &[SealedSegment]) {
    let staging = follower.staging();
    for missing in staging.missing(segments).unwrap() {
        let number = missing.segment.number;
        let bytes = leader.segment_bytes(number, 0, usize::MAX).unwrap();
        staging.write(number, 0, &bytes).unwrap();
        staging.finish(&missing.segment, |_, _| {}).unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_ends_with_the_last_sealed_segment_and_is_installed() {
    let entries = a_long_log();
    let directory = tempfile::tempdir().unwrap();
    let (leader, mut leading) = a_leader(directory.path(), &entries).await;
    let built = leading.build_snapshot().await.unwrap();
    let last = leader.log().sealed().last().unwrap().last_log_id;
    assert_eq!(built.meta.last_log_id, Some(to_raft_id(last)));
    assert_eq!(
        built.meta.last_membership.log_id(),
        &Some(entries[0].log_id())
    );
    assert_eq!(built.meta, built.snapshot.meta().unwrap());
    assert!(leader.applied().last_log_id > Some(last));

    // Nothing; something that is the same; something that was never committed, up to there.
    let next = last.index.0 as usize + 1;
    let divergent = (4..next as u64 + 5).map(|index| entry(1, index, EntryPayload::Blank));
    let divergent: Vec<_> = entries[..4].iter().cloned().chain(divergent).collect();
    for own in [&entries[..0], &entries[..5], &divergent[..]] {
        let directory = tempfile::tempdir().unwrap();
        let store = open_small(directory.path());
        let mut log = LogStore::new(store.log().clone());
        let mut follower = StateMachine::new(store.clone());
        if !own.is_empty() {
            append(&mut log, own.to_vec()).await;
            apply(&mut follower, own[..3].to_vec()).await.unwrap();
        }
        let early = follower
            .install_snapshot(&built.meta, built.snapshot.clone())
            .await;
        assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::NotFound);
        fetch(&leader, &store, &built.snapshot.segments);
        // What openraft does, in its order.
        if own.len() > next {
            log.truncate_after(Some(own[2].log_id())).await.unwrap();
        }
        follower
            .install_snapshot(&built.meta, built.snapshot.clone())
            .await
            .unwrap();
        log.purge(to_raft_id(last)).await.unwrap();
        assert_eq!(
            follower.applied_state().await.unwrap(),
            (built.meta.last_log_id, built.meta.last_membership.clone())
        );
        let current = follower.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(current.meta, built.meta);
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, built.meta.last_log_id);
        assert_eq!(state.last_purged_log_id, built.meta.last_log_id);
        append(&mut log, entries[next..].to_vec()).await;
        apply(&mut follower, entries[next..].to_vec())
            .await
            .unwrap();
        assert_eq!(store.applied(), leader.applied());
        let size = store.applied().tree_size;
        assert_eq!(store.root_at(size).unwrap(), leader.root_at(size).unwrap());
        store.shutdown();
    }
    leader.shutdown();
}

#[tokio::test]
async fn a_snapshot_of_what_the_log_holds_already_is_applied_from_there() {
    let entries = a_long_log();
    let directory = tempfile::tempdir().unwrap();
    let (leader, mut leading) = a_leader(directory.path(), &entries).await;
    let built = leading.build_snapshot().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = open_small(directory.path());
    let mut log = LogStore::new(store.log().clone());
    let mut follower = StateMachine::new(store.clone());
    append(&mut log, entries.clone()).await;
    // Nothing was fetched, and nothing has to be.
    follower
        .install_snapshot(&built.meta, built.snapshot.clone())
        .await
        .unwrap();
    assert_eq!(
        follower.applied_state().await.unwrap().0,
        built.meta.last_log_id
    );
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries);
    let next = built.meta.last_log_id.unwrap().index as usize + 1;
    log.purge(built.meta.last_log_id.unwrap()).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[next..]);
    apply(&mut follower, entries[next..].to_vec())
        .await
        .unwrap();
    store.all_sealed().await;
    assert_eq!(store.log().sealed(), leader.log().sealed());
    store.shutdown();
    leader.shutdown();
}

#[tokio::test]
async fn a_restarted_node_serves_the_newest_sealed_segments_as_entries() {
    let entries = a_long_log();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = a_leader(directory.path(), &entries).await;
    let sealed = store.log().sealed();
    store.shutdown();
    drop(store);
    let [.., third, second, last] = &sealed[..] else {
        panic!("{} segments", sealed.len());
    };
    let (from, end) = (third.last_log_id.index.0 + 1, last.last_log_id.index.0 + 1);

    let store = open_small(directory.path());
    let mut log = LogStore::new(store.log().clone());
    let state = log.get_log_state().await.unwrap();
    assert_eq!(
        state.last_purged_log_id,
        Some(to_raft_id(third.last_log_id))
    );
    let read = log.limited_get_log_entries(from, end).await.unwrap();
    assert_eq!(read, entries[from as usize..end as usize]);
    let range = entries[from as usize].log_id()..=entries[29].log_id();
    let terms = log.get_key_log_ids(range.clone()).await.unwrap();
    let expected: Vec<_> = (from as usize..30)
        .filter(|at| {
            *at == 29 || entries[*at].log_id().leader_id != entries[at + 1].log_id().leader_id
        })
        .map(|at| entries[at].log_id())
        .collect();
    assert_eq!(terms, expected);
    assert!(terms.len() > 1);

    // Damage where openraft does not look at the start: found when a follower asks.
    let path = {
        let name = crate::store::segment::file_name(second.first_log_index);
        directory.path().join("log").join(name)
    };
    let flip = |at: usize| {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    };
    let in_last = second.body_length as usize - 9;
    flip(in_last);
    let mut log = LogStore::new(store.log().clone());
    let damaged = second.last_log_id.index.0;
    let before = log.limited_get_log_entries(from, damaged).await.unwrap();
    assert_eq!(before, entries[from as usize..damaged as usize]);
    assert_eq!(store.log().purge_due(), Some(third.last_log_id));
    let before = log.limited_get_log_entries(damaged - 1, end).await.unwrap();
    assert_eq!(before, entries[damaged as usize - 1..damaged as usize]);
    assert_eq!(store.log().purge_due(), Some(third.last_log_id));
    assert_eq!(log.limited_get_log_entries(damaged, end).await.unwrap(), []);
    assert_eq!(store.log().purge_due(), Some(second.last_log_id));
    flip(in_last);
    store.shutdown();
    drop(store);

    // Where it does look: then the segments are served as files only, and nothing is asked of them.
    let store = open_small(directory.path());
    flip(64 + 70);
    let mut log = LogStore::new(store.log().clone());
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(to_raft_id(last.last_log_id)));
    let rest = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(rest, entries[end as usize..]);
    store.shutdown();
}

/// As a heartbeat, an append without the entry that was asked for would be a success, and the core would wait for that
/// entry for ever.
#[tokio::test]
async fn an_append_without_an_entry_that_cannot_be_read_is_no_heartbeat() {
    let entries = a_long_log();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = a_leader(directory.path(), &entries).await;
    let damaged = store.log().sealed()[1].first_log_index.0 as usize;
    assert!(store.log().mark_unreadable(LogIndex(damaged as u64)));
    let marked = store.log().sealed()[1].last_log_id.index.0 as usize;
    let mut factory = super::network::NetworkFactory::new(
        1,
        super::Transport::default(),
        Default::default(),
        store.log().clone(),
    );
    let address = super::PeerAddress::default();
    let mut replication = factory.new_client(2, &address).await;
    let mut heartbeat = factory.new_heartbeat_client(2, &address).await;
    let sent = |next: usize, count: usize| AppendEntriesRequest {
        vote: VoteOf::<TypeConfig>::new_committed(3, 1),
        prev_log_id: Some(entries[next - 1].log_id()),
        entries: entries[next..next + count].to_vec(),
        leader_commit: None,
    };
    let option = || RPCOption::new(std::time::Duration::from_secs(1));
    let why = |error: RPCError<TypeConfig>| {
        // Either way the core backs off and asks what it can send; there is nobody to talk to here.
        assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
        error.to_string()
    };
    for next in [damaged, marked] {
        let ended = replication.append_entries(sent(next, 0), option()).await;
        let ended = why(ended.unwrap_err());
        let expected = format!("log entry {next} cannot be read");
        assert!(ended.contains(&expected), "{ended}");
    }
    for (next, count) in [(marked + 1, 0), (damaged, 1)] {
        let tried = replication
            .append_entries(sent(next, count), option())
            .await;
        assert!(!why(tried.unwrap_err()).contains("cannot be read"));
    }
    let tried = heartbeat.append_entries(sent(damaged, 0), option()).await;
    assert!(!why(tried.unwrap_err()).contains("cannot be read"));
    store.shutdown();
}

/// The core itself decides what is cut, installed and purged, and when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_core_installs_a_snapshot_and_goes_on_with_entries() {
    let entries = a_long_log();
    let directory = tempfile::tempdir().unwrap();
    let (leader, mut leading) = a_leader(directory.path(), &entries).await;
    let built = leading.build_snapshot().await.unwrap();
    let last = built.meta.last_log_id.unwrap();
    let next = last.index as usize + 1;
    let vote = VoteOf::<TypeConfig>::new_committed(3, 1);
    let divergent = (4..next as u64 + 5).map(|index| entry(1, index, EntryPayload::Blank));
    let divergent: Vec<_> = entries[..4].iter().cloned().chain(divergent).collect();
    for (round, own) in [
        &entries[..0],
        &entries[..5],
        &divergent[..],
        &entries[..next + 1],
    ]
    .into_iter()
    .enumerate()
    {
        let directory = tempfile::tempdir().unwrap();
        let store = open_small(directory.path());
        let mut log = LogStore::new(store.log().clone());
        append(&mut log, own.to_vec()).await;
        let config = openraft::Config {
            election_timeout_min: 60_000,
            election_timeout_max: 120_000,
            heartbeat_interval: 10_000,
            ..openraft::Config::default()
        };
        let raft = openraft::Raft::new(
            2,
            Arc::new(config.validate().unwrap()),
            super::network::NetworkFactory::new(
                2,
                super::Transport::default(),
                Default::default(),
                store.log().clone(),
            ),
            log,
            StateMachine::new(store.clone()),
        )
        .await
        .unwrap();
        if round < 3 {
            fetch(&leader, &store, &built.snapshot.segments);
        }
        raft.install_full_snapshot(vote, built.clone())
            .await
            .unwrap();
        assert_eq!(store.applied().last_log_id.map(to_raft_id), Some(last));
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: Some(last),
            entries: entries[next..].to_vec(),
            leader_commit: entries.last().map(|entry| entry.log_id()),
        };
        raft.append_entries(request).await.unwrap();
        let mut applied = store.watch_applied();
        let end = leader.applied();
        applied.wait_for(|applied| *applied == end).await.unwrap();
        let waiting = raft.wait(Some(std::time::Duration::from_secs(20)));
        waiting
            .purged(Some(last), "behind the snapshot")
            .await
            .unwrap();
        raft.shutdown().await.unwrap();
        assert_eq!(
            store.root_at(end.tree_size).unwrap(),
            leader.root_at(end.tree_size).unwrap()
        );
        store.check(|_, _| {}).unwrap();
        store.shutdown();
        drop(store);

        // And starts again from what is there.
        let store = open_small(directory.path());
        let mut state_machine = StateMachine::new(store.clone());
        let mut log = LogStore::new(store.log().clone());
        let state = openraft::storage::StorageHelper::new(&mut log, &mut state_machine)
            .with_id(2)
            .get_initial_state()
            .await
            .unwrap();
        assert_eq!(
            state.log_ids.last(),
            Some(&entries[29].log_id()),
            "round {round}"
        );
        store.shutdown();
    }
    leader.shutdown();
}

#[test]
fn a_frame_without_entries_carries_nothing_else() {
    let blank = Frame {
        log_id: LogId::new(1, 3),
        kind: FrameKind::Blank,
        sequencing_term: 0,
        first_leaf: LeafIndex::new(0),
        count: 0,
        public: Bytes::new(),
        private: Bytes::new(),
    };
    assert_eq!(frame_of(&entry_of(&blank).unwrap()), blank);
    // Each would be lost on the way through openraft, and the copy of it would have another checksum.
    for other in [
        Frame {
            public: Bytes::from_static(b"x"),
            ..blank.clone()
        },
        Frame {
            private: Bytes::from_static(b"x"),
            ..blank.clone()
        },
        Frame {
            sequencing_term: 1,
            ..blank.clone()
        },
        Frame {
            count: 1,
            ..blank.clone()
        },
    ] {
        assert!(entry_of(&other).is_err(), "{other:?}");
    }
}
