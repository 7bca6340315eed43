//! A ledger as simple as it can be, frames for it, and the comparison of a store with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;
use scribe_proof::hash::{Hash, empty_root, leaf_hash, node_hash, sha256};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Prev, SystemKind};

use crate::ledger::batch::{Batch, BatchBuilder, IdempotencyDigest};
use crate::limits;
use crate::store::disk::Disk;
use crate::store::frame::{Frame, FrameKind, LogId};
use crate::store::index::IndexKind;
use crate::store::log::{Flushed, LogIdentity, LogOptions};
use crate::store::{
    Effects, LeafEffect, OpenReport, Remembered, ScanRange, Store, StoreOptions, takes_leaves,
};

pub const IDENTITY: LogIdentity = LogIdentity {
    cluster_id: [7; 16],
    node_id: 1,
};

pub fn options(index: IndexKind) -> StoreOptions {
    StoreOptions {
        log: LogOptions {
            segment_bytes_max: 6_000,
            segment_leaves_max: 40,
            preallocate: false,
            ..LogOptions::default()
        },
        index,
        ..StoreOptions::default()
    }
}

pub fn open(disk: Arc<dyn Disk>, dir: &Path, index: IndexKind) -> (Store, OpenReport) {
    Store::open(disk, dir, IDENTITY, options(index)).expect("the store opens")
}

/// What one frame of a test carries.
#[derive(Debug, Clone)]
pub enum FrameOp {
    Entries(Vec<EntryOp>),
    Void(u8),
    Blank,
    Membership(u8),
    Publish,
}

#[derive(Debug, Clone)]
pub enum EntryOp {
    Put {
        key: u8,
        length: u16,
        remember: bool,
    },
    Delete {
        key: u8,
    },
    System,
}

pub fn frame_op() -> impl Strategy<Value = FrameOp> {
    prop_oneof![
        8 => proptest::collection::vec(entry_op(), 1..12).prop_map(FrameOp::Entries),
        1 => (1u8..6).prop_map(FrameOp::Void),
        1 => Just(FrameOp::Blank),
        1 => any::<u8>().prop_map(FrameOp::Membership),
        1 => Just(FrameOp::Publish),
    ]
}

fn entry_op() -> impl Strategy<Value = EntryOp> {
    prop_oneof![
        8 => (0u8..10, prop_oneof![0u16..300, Just(5_000), Just(20_000)], any::<bool>())
            .prop_map(|(key, length, remember)| EntryOp::Put { key, length, remember }),
        2 => (0u8..10).prop_map(|key| EntryOp::Delete { key }),
        1 => Just(EntryOp::System),
    ]
}

/// A fixed mixture, for tests that need no randomness.
pub fn some_ops(count: usize) -> Vec<FrameOp> {
    (0..count)
        .map(|i| match i % 9 {
            3 => FrameOp::Blank,
            5 => FrameOp::Void(3),
            6 => FrameOp::Membership(i as u8),
            8 => FrameOp::Publish,
            _ => FrameOp::Entries(
                (0..1 + i % 5)
                    .map(|j| match (i + j) % 7 {
                        6 => EntryOp::Delete {
                            key: (i % 10) as u8,
                        },
                        4 if j == 0 => EntryOp::System,
                        _ => EntryOp::Put {
                            key: ((i * 3 + j) % 10) as u8,
                            length: ((i * 37 + j * 211) % 700) as u16,
                            remember: j == 0,
                        },
                    })
                    .collect(),
            ),
        })
        .collect()
}

pub fn key_bytes(key: u8) -> Vec<u8> {
    match key {
        0 => b"a".to_vec(),
        1 => b"a\0".to_vec(),
        2 => b"a\0\xff".to_vec(),
        3 => b"ab".to_vec(),
        4 => b"\0".to_vec(),
        5 => b"\xff\xff".to_vec(),
        6 => vec![b'k'; limits::KEY_LENGTH_MAX],
        key => format!("key/{key}").into_bytes(),
    }
}

pub fn key_hash(number: u8) -> [u8; 16] {
    [number; 16]
}

/// The naive ledger, and the frames that make it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub frames: Vec<Frame>,
    pub leaves: Vec<(Bytes, Option<Bytes>, u64)>,
    pub keys: BTreeMap<Vec<u8>, Vec<(u64, LeafKind)>>,
    pub remembered: BTreeMap<[u8; 16], Remembered>,
    pub membership: Bytes,
    pub published: Option<(u64, Hash)>,
    clock_ms: u64,
    /// Mixed into values, so that two models differ.
    pub salt: u8,
    /// Added to the term of new frames, which is 2.
    pub term_shift: u64,
}

impl Model {
    pub fn of(ops: &[FrameOp]) -> Self {
        let mut model = Self::default();
        ops.iter().for_each(|op| model.push(op));
        model
    }

    /// The ledger made of the first `count` frames.
    pub fn prefix(&self, count: usize) -> Self {
        let mut model = Self::default();
        for frame in &self.frames[..count] {
            model.take(frame);
        }
        model
    }

    pub fn hashes(&self) -> Vec<Hash> {
        self.leaves
            .iter()
            .map(|(leaf, ..)| leaf_hash(leaf))
            .collect()
    }

    pub fn root(&self, size: u64) -> Hash {
        naive_root(&self.hashes()[..size as usize])
    }

    /// Makes the next frame and takes it.
    pub fn push(&mut self, op: &FrameOp) {
        let term = 2 + self.term_shift;
        let log_id = LogId::new(term, self.frames.len() as u64);
        let first_leaf = LeafIndex::new(self.leaves.len() as u64);
        let mut frame = Frame {
            log_id,
            kind: FrameKind::Blank,
            sequencing_term: term,
            first_leaf,
            count: 0,
            public: Bytes::new(),
            private: Bytes::new(),
        };
        match op {
            FrameOp::Blank => {}
            FrameOp::Membership(number) => {
                frame.kind = FrameKind::Membership;
                frame.public = Bytes::from(vec![*number; 20]);
            }
            FrameOp::Publish => {
                frame.kind = FrameKind::Publish;
                let size = self.leaves.len() as u64;
                let mut body = size.to_be_bytes().to_vec();
                body.extend_from_slice(self.root(size).as_bytes());
                frame.public = body.into();
            }
            FrameOp::Void(count) => {
                let entries = vec![
                    EntryOp::Put {
                        key: 1,
                        length: 9,
                        remember: true
                    };
                    usize::from(*count)
                ];
                self.encode(&entries, &mut frame);
                frame.sequencing_term = 1;
            }
            FrameOp::Entries(entries) => self.encode(entries, &mut frame),
        }
        self.take(&frame);
    }

    fn encode(&mut self, entries: &[EntryOp], frame: &mut Frame) {
        frame.kind = FrameKind::Entries;
        frame.count = entries.len() as u32;
        let mut batch = BatchBuilder::new();
        self.clock_ms += 10;
        for (slot, op) in entries.iter().enumerate() {
            let number = self.leaves.len() + slot;
            if slot % 3 == 0 {
                self.clock_ms += 1;
            }
            let mut leaf = Leaf {
                kind: LeafKind::Put,
                subtype: 0,
                timestamp_ms: self.clock_ms,
                transaction_position: 0,
                transaction_length: 1,
                prev: Prev::NotAsserted,
                commitment: Hash([0; 32]),
                key: &[],
                author: b"",
                body: b"",
            };
            let salt = [number as u8 ^ self.salt; 16];
            let metadata = [0, 0];
            let (key, value) = match op {
                EntryOp::Put {
                    key,
                    length,
                    remember,
                } => {
                    if *remember {
                        batch.push_digest(IdempotencyDigest {
                            first: slot as u16,
                            count: 1,
                            key_hash: key_hash((number % 5) as u8),
                            fingerprint: sha256(&number.to_be_bytes()).0[..16].try_into().unwrap(),
                        });
                    }
                    let value = (0..*length).map(|i| (i as u8).wrapping_mul(31) ^ number as u8);
                    (key_bytes(*key), value.collect::<Vec<u8>>())
                }
                EntryOp::Delete { key } => (key_bytes(*key), Vec::new()),
                EntryOp::System => (Vec::new(), Vec::new()),
            };
            let mut bytes = Vec::new();
            if let EntryOp::System = op {
                leaf.kind = LeafKind::System;
                leaf.subtype = SystemKind::NodeKey as u16;
                leaf.body = b"a node key";
                leaf.prev = Prev::None;
                leaf.encode_into(&mut bytes).unwrap();
                batch.push(&bytes, None);
            } else {
                if matches!(op, EntryOp::Delete { .. }) {
                    leaf.kind = LeafKind::Delete;
                }
                leaf.key = &key;
                leaf.commitment = scribe_proof::commitment(&salt, &metadata, &value);
                leaf.encode_into(&mut bytes).unwrap();
                batch.push(&bytes, Some((&salt, &metadata, &value)));
            }
        }
        (frame.public, frame.private) = batch.finish();
    }

    fn take(&mut self, frame: &Frame) {
        let first = self.leaves.len() as u64;
        match effects_of(frame, TreeSize::new(first)) {
            Effects::Nothing | Effects::Void => {}
            Effects::Membership(membership) => self.membership = membership,
            Effects::Publish { size, root } => self.published = Some((size.get(), root)),
            Effects::Entries(_, digests) => {
                let batch = batch_of(frame);
                for slot in 0..batch.count() {
                    let bytes = batch.leaf(slot).unwrap();
                    let leaf = Leaf::parse(&bytes).unwrap();
                    let index = self.leaves.len() as u64;
                    let key = match leaf.kind {
                        LeafKind::System => Vec::new(),
                        _ => leaf.key.to_vec(),
                    };
                    self.keys.entry(key).or_default().push((index, leaf.kind));
                    self.clock_ms = leaf.timestamp_ms;
                    let value = batch.private(slot).map(|private| private.value);
                    self.leaves.push((bytes.clone(), value, leaf.timestamp_ms));
                }
                for digest in digests {
                    let index = first + u64::from(digest.first);
                    let remembered = Remembered {
                        first: LeafIndex::new(index),
                        count: digest.count,
                        fingerprint: digest.fingerprint,
                        timestamp_ms: self.leaves[index as usize].2,
                    };
                    self.remembered.insert(digest.key_hash, remembered);
                }
            }
        }
        self.frames.push(frame.clone());
    }

    /// Compares everything a store can be asked with this ledger.
    pub fn compare(&self, store: &Store) {
        self.compare_entries(store);
        self.compare_remembered(store);
    }

    /// Compares state, tree, versions and entries.
    pub fn compare_entries(&self, store: &Store) {
        let applied = store.applied();
        let size = self.leaves.len() as u64;
        assert_eq!(applied.tree_size.get(), size);
        assert_eq!(
            applied.last_log_id,
            self.frames.last().map(|frame| frame.log_id)
        );
        assert_eq!(applied.membership, self.membership);
        assert_eq!(
            applied.last_timestamp_ms,
            self.leaves.last().map_or(0, |leaf| leaf.2)
        );
        let published = self.published.unwrap_or((0, empty_root()));
        assert_eq!((applied.published.0.get(), applied.published.1), published);

        let hashes = self.hashes();
        let sizes = [0, 1, size / 3, size / 2, size.saturating_sub(1), size];
        for at in sizes.map(|at| at.min(size)) {
            let root = store.root_at(TreeSize::new(at)).unwrap();
            assert_eq!(
                root,
                naive_root(&hashes[..at as usize]),
                "root at {at} of {size}"
            );
        }
        assert!(store.root_at(TreeSize::new(size + 1)).is_err());

        let nothing = Vec::new();
        for key in (0..11).map(key_bytes).chain([Vec::new()]) {
            let all = self.keys.get(&key).unwrap_or(&nothing);
            for below in sizes.into_iter().chain([u64::MAX]) {
                let at = TreeSize::new(below);
                let newest_first: Vec<_> = all
                    .iter()
                    .rev()
                    .copied()
                    .filter(|(i, _)| *i < below)
                    .collect();
                let latest = store.latest(&key, at).unwrap();
                assert_eq!(
                    latest.map(|v| (v.index.get(), v.kind)),
                    newest_first.first().copied(),
                    "latest of {key:?} below {below}"
                );
                for limit in [1, 2, 1_000] {
                    let history: Vec<_> = store
                        .history(&key, at, limit)
                        .unwrap()
                        .iter()
                        .map(|v| (v.index.get(), v.kind))
                        .collect();
                    let expected = &newest_first[..limit.min(newest_first.len())];
                    assert_eq!(history, expected, "history of {key:?} below {below}");
                }
            }
            for version in store.history(&key, TreeSize::new(u64::MAX), 1_000).unwrap() {
                assert_eq!(
                    store.is_version(&key, version.index).unwrap(),
                    Some(version)
                );
                let entry = store.entry_of(&version).unwrap();
                self.compare_entry(version.index.get(), &entry);
            }
            let other = (0..size).find(|index| all.iter().all(|(i, _)| i != index));
            if let Some(other) = other {
                assert_eq!(store.is_version(&key, LeafIndex::new(other)).unwrap(), None);
            }
        }
        self.compare_scans(store, &sizes);

        for index in 0..size {
            let entry = store.entry(LeafIndex::new(index)).unwrap().unwrap();
            self.compare_entry(index, &entry);
        }
        assert_eq!(store.entry(LeafIndex::new(size)).unwrap(), None);
        for (from, limit, bytes) in [
            (0, 1_000, usize::MAX),
            (size / 2, 7, usize::MAX),
            (size / 3, 100, 2_000),
            (size.saturating_sub(1), 5, 1),
            (size, 5, 100),
        ] {
            let page = store.entries(LeafIndex::new(from), limit, bytes).unwrap();
            let mut total = 0;
            for (place, entry) in page.iter().enumerate() {
                assert!(total < bytes, "the page goes on after {bytes} bytes");
                total += entry.byte_length();
                self.compare_entry(from + place as u64, entry);
            }
            let complete = page.len() as u64 == size - from || page.len() == limit;
            assert!(complete || total >= bytes, "the page ends early");
        }

        let mut times: Vec<u64> = self.leaves.iter().map(|leaf| leaf.2).collect();
        times.dedup();
        for time in times.iter().flat_map(|time| [time - 1, *time, *time + 1]) {
            let expected = self.leaves.iter().filter(|leaf| leaf.2 <= time).count();
            assert_eq!(
                store.size_at_time(time).unwrap().get(),
                expected as u64,
                "at {time}"
            );
        }
    }

    /// Compares the idempotency table.
    pub fn compare_remembered(&self, store: &Store) {
        let applied = store.applied();
        for number in 0..6 {
            let expected = self.remembered.get(&key_hash(number)).copied();
            let found = store
                .idempotent(&key_hash(number), applied.last_timestamp_ms)
                .unwrap();
            assert_eq!(found, expected);
            let later = applied.last_timestamp_ms + limits::IDEMPOTENCY_WINDOW_MS + 1;
            assert_eq!(store.idempotent(&key_hash(number), later).unwrap(), None);
        }
    }

    fn compare_entry(&self, index: u64, entry: &crate::store::StoredEntry) {
        let (leaf, value, _) = &self.leaves[index as usize];
        assert_eq!((entry.index.get(), &entry.leaf), (index, leaf));
        assert_eq!(
            entry.private.as_ref().map(|private| &private.value),
            value.as_ref()
        );
    }

    fn compare_scans(&self, store: &Store, sizes: &[u64]) {
        let ranges = [
            ScanRange::default(),
            ScanRange::prefix(b"a"),
            ScanRange::prefix(b"a\0"),
            ScanRange::prefix(b"key/"),
            ScanRange {
                start: b"a\0".to_vec(),
                end: Some(b"key/8".to_vec()),
            },
        ];
        for range in &ranges {
            for at in sizes {
                for limit in [1, 3, 100] {
                    let expected: Vec<(Vec<u8>, u64)> = self
                        .keys
                        .iter()
                        .filter(|(key, _)| {
                            let before_end = range
                                .end
                                .as_ref()
                                .is_none_or(|end| key.as_slice() < end.as_slice());
                            !key.is_empty() && **key >= range.start && before_end
                        })
                        .filter_map(|(key, all)| {
                            let newest = all.iter().rev().find(|(i, _)| i < at)?;
                            Some((key.clone(), newest.0))
                        })
                        .take(limit)
                        .collect();
                    let found: Vec<(Vec<u8>, u64)> = store
                        .scan(range, TreeSize::new(*at), limit)
                        .unwrap()
                        .into_iter()
                        .map(|(key, version)| (key.to_vec(), version.index.get()))
                        .collect();
                    assert_eq!(found, expected, "scan of {range:?} at {at}");
                }
            }
        }
    }
}

fn batch_of(frame: &Frame) -> Batch {
    let (public, private) = (frame.public.clone(), frame.private.clone());
    Batch::parse(frame.count as usize, public, private).unwrap()
}

/// What the ledger would make of a frame.
pub fn effects_of(frame: &Frame, tree_size: TreeSize) -> Effects {
    match frame.kind {
        FrameKind::Blank => Effects::Nothing,
        FrameKind::Membership => Effects::Membership(frame.public.clone()),
        FrameKind::Publish => Effects::Publish {
            size: TreeSize::new(u64::from_be_bytes(frame.public[..8].try_into().unwrap())),
            root: Hash(frame.public[8..40].try_into().unwrap()),
        },
        FrameKind::Entries => {
            let takes = takes_leaves(
                frame.kind,
                frame.log_id.term,
                frame.sequencing_term,
                frame.first_leaf,
                tree_size,
            );
            if !takes {
                return Effects::Void;
            }
            let batch = batch_of(frame);
            let leaves = (0..batch.count()).map(|slot| {
                let bytes = batch.leaf(slot).unwrap();
                let leaf = Leaf::parse(&bytes).unwrap();
                LeafEffect {
                    leaf_hash: leaf_hash(&bytes),
                    key: bytes.slice_ref(leaf.key),
                    kind: leaf.kind,
                    timestamp_ms: leaf.timestamp_ms,
                }
            });
            Effects::Entries(leaves.collect(), batch.digests().collect())
        }
    }
}

/// RFC 6962, section 2.1, word for word.
pub fn naive_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let split = hashes.len().next_power_of_two() / 2;
            node_hash(&naive_root(&hashes[..split]), &naive_root(&hashes[split..]))
        }
    }
}

/// Appends frames in groups of `group` and waits until they are on disk.
pub fn append(store: &Store, frames: &[Frame], group: usize) -> std::io::Result<()> {
    let (sender, done) = mpsc::channel();
    let mut groups = 0;
    for group in frames.chunks(group) {
        let sender = sender.clone();
        let flushed = Flushed::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        groups += 1;
        store.log().append(group.to_vec(), flushed)?;
    }
    (0..groups).try_for_each(|_| done.recv().unwrap())
}

/// Applies the frames of the log behind the applied state.
pub fn apply_rest(store: &Store, frames: &[Frame]) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let next = store.applied().last_log_id.map_or(0, |id| id.index.0 + 1);
    for frame in frames.iter().filter(|frame| frame.log_id.index.0 >= next) {
        runtime.block_on(store.apply_room());
        let effects = effects_of(frame, store.applied().tree_size);
        let position = store
            .log()
            .position(frame.log_id.index)
            .expect("the frame is in the log");
        let ticket = store.apply(frame, position, effects)?;
        assert_eq!(ticket.tree_size, store.applied().tree_size);
    }
    Ok(())
}

pub fn feed(store: &Store, frames: &[Frame]) -> std::io::Result<()> {
    append(store, frames, 3)?;
    apply_rest(store, frames)
}

/// Waits until nothing waits for the sealer, or the store has failed.
pub fn settle(store: &Store) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(store.all_sealed());
}

/// Paths of the sealed segments, and of files of `tree/` and `log/`.
pub fn segment_path(store: &Store, dir: &Path, number: usize) -> PathBuf {
    let sealed = store.log().sealed();
    let first = sealed[number].first_log_index;
    dir.join("log")
        .join(crate::store::segment::file_name(first))
}
