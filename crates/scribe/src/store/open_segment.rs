//! What is known in memory of a segment that is not sealed yet: its part of the tree, of the key index, of the
//! idempotency table and of the time line.
//!
//! One per segment. While frames still go into it, it is changed under the view's write lock; complete, it is frozen
//! behind an `Arc`, read without a lock, and dropped once the sealer has put all of it on disk. Everything here is
//! derived from the frames: after a restart it comes back by applying them again.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;

use super::frame::FramePosition;
use super::index::ScanRange;
use super::tree::LevelRun;
use super::view::{Remembered, Version};
use crate::limits;

/// A segment whose frames are applied and not yet sealed.
#[derive(Debug)]
pub struct OpenSegment {
    number: u32,
    start_size: TreeSize,
    start_root: Hash,
    /// Frames that hold leaves, in order.
    frames: Vec<FramePlace>,
    leaves: u32,
    keys: BTreeMap<MapKey, Versions>,
    /// Versions of the keys that have several, oldest first.
    many: Vec<Vec<OpenVersion>>,
    /// One run of hashes per tree level that grew in this segment.
    levels: Vec<LevelRun>,
    /// Ordered, as the index wants it, and without the pauses of a hash table that grows.
    remembered: BTreeMap<[u8; 16], Remembered>,
    /// Each timestamp with the first leaf that has it; both ascending.
    times: Vec<(u64, LeafIndex)>,
}

#[derive(Debug, Clone, Copy)]
struct FramePlace {
    first_leaf: u32,
    offset: u32,
    length: u32,
}

/// One version, relative to its segment: 12 bytes, as there may be hundreds of thousands.
#[derive(Debug, Clone, Copy)]
struct OpenVersion {
    leaf: u32,
    frame: u32,
    kind: LeafKind,
}

/// Most keys have one version in a segment; it is kept without a heap allocation.
#[derive(Debug, Clone, Copy)]
enum Versions {
    One(OpenVersion),
    /// Place in [`OpenSegment::many`].
    Many(u32),
}

/// Bytes of a key that is kept inside the map's nodes.
const SHORT_KEY_LENGTH: usize = 38;

/// A key of the map. Short ones lie in the map's nodes, so that a look-up compares without following a pointer for each
/// key it passes: in a full segment that is most of the cost of applying an entry.
#[derive(Debug)]
enum MapKey {
    Short {
        length: u8,
        bytes: [u8; SHORT_KEY_LENGTH],
    },
    Long(Box<[u8]>),
}

impl MapKey {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_KEY_LENGTH];
        match bytes.get_mut(..key.len()) {
            Some(start) => {
                start.copy_from_slice(key);
                Self::Short {
                    length: key.len() as u8,
                    bytes,
                }
            }
            None => Self::Long(key.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(key) => key,
        }
    }
}

impl Borrow<[u8]> for MapKey {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for MapKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for MapKey {}

impl PartialOrd for MapKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MapKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl OpenSegment {
    /// An empty segment that begins at a tree size.
    pub fn new(number: u32, start_size: TreeSize, start_root: Hash) -> Self {
        Self {
            number,
            start_size,
            start_root,
            frames: Vec::new(),
            leaves: 0,
            keys: BTreeMap::new(),
            many: Vec::new(),
            levels: Vec::new(),
            remembered: BTreeMap::new(),
            times: Vec::new(),
        }
    }

    /// Segment number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Tree size before its first frame.
    pub fn start_size(&self) -> TreeSize {
        self.start_size
    }

    /// Root hash at that size.
    pub fn start_root(&self) -> Hash {
        self.start_root
    }

    /// Tree size after its last applied frame.
    pub fn end_size(&self) -> TreeSize {
        self.start_size.grown_by(u64::from(self.leaves))
    }

    /// How many versions its keys have: one per leaf.
    pub fn version_count(&self) -> u64 {
        u64::from(self.leaves)
    }

    /// Runs of tree hashes that lie in this segment, by level.
    pub fn levels(&self) -> &[LevelRun] {
        &self.levels
    }

    /// Begins a frame that holds leaves; the leaves follow with [`OpenSegment::push_leaf`].
    pub fn push_frame(&mut self, position: FramePosition) {
        self.frames.push(FramePlace {
            first_leaf: self.leaves,
            offset: position.offset,
            length: position.length,
        });
    }

    /// Adds the next leaf of the frame begun last: its version and its time. Tree hashes come separately.
    pub fn push_leaf(&mut self, key: &[u8], kind: LeafKind, timestamp_ms: u64) {
        let version = OpenVersion {
            leaf: self.leaves,
            frame: self.frames.len().saturating_sub(1) as u32,
            kind,
        };
        match self.keys.entry(MapKey::new(key)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Versions::One(version));
            }
            Entry::Occupied(mut occupied) => match *occupied.get() {
                Versions::One(first) => {
                    occupied.insert(Versions::Many(self.many.len() as u32));
                    self.many.push(vec![first, version]);
                }
                Versions::Many(place) => {
                    if let Some(versions) = self.many.get_mut(place as usize) {
                        versions.push(version);
                    }
                }
            },
        }
        if self
            .times
            .last()
            .is_none_or(|(last, _)| timestamp_ms > *last)
        {
            self.times
                .push((timestamp_ms, self.end_size().next_index()));
        }
        self.leaves += 1;
    }

    /// Appends one run of hashes of a level, which must go on where the level's last run ended.
    pub fn push_hashes(&mut self, level: u8, start: u64, hashes: &[Hash]) {
        let level = usize::from(level);
        while self.levels.len() <= level {
            self.levels.push(LevelRun::default());
        }
        let run = &mut self.levels[level];
        if run.hashes.is_empty() {
            run.start = start;
            // Address space, not memory: growing by copying megabytes would keep readers out for milliseconds.
            let expected = limits::SEGMENT_LEAVES_MAX >> (8 * level);
            run.hashes.reserve(expected as usize);
        }
        debug_assert_eq!(run.start + run.hashes.len() as u64, start);
        run.hashes.extend_from_slice(hashes);
    }

    /// Remembers a write under an idempotency key.
    pub fn push_remembered(&mut self, key_hash: [u8; 16], remembered: Remembered) {
        self.remembered.insert(key_hash, remembered);
    }

    /// The write remembered under an idempotency key.
    pub fn remembered(&self, key_hash: &[u8; 16]) -> Option<Remembered> {
        self.remembered.get(key_hash).copied()
    }

    /// All remembered writes by ascending key hash: the order the index wants.
    pub fn remembered_sorted(&self) -> impl Iterator<Item = ([u8; 16], Remembered)> + '_ {
        self.remembered
            .iter()
            .map(|(key_hash, value)| (*key_hash, *value))
    }

    /// Newest version of `key` in this segment with an index below `below`.
    pub fn latest(&self, key: &[u8], below: TreeSize) -> Option<Version> {
        let versions = self.keys.get(key)?;
        self.newest_below(versions, below)
    }

    /// Versions of `key` below `below`, newest first, at most `limit`, appended to `out`.
    pub fn versions(&self, key: &[u8], below: TreeSize, limit: usize, out: &mut Vec<Version>) {
        if let Some(versions) = self.keys.get(key) {
            let versions = self.slice(versions);
            let end = self.count_below(versions, below);
            out.extend(
                versions[..end]
                    .iter()
                    .rev()
                    .take(limit)
                    .map(|v| self.version_at(*v)),
            );
        }
    }

    /// The version of `key` at `index`, if there is one.
    pub fn version(&self, key: &[u8], index: LeafIndex) -> Option<Version> {
        let newest = self.latest(key, index.tree_size())?;
        (newest.index == index).then_some(newest)
    }

    /// Keys of the range in order, each with its newest version below `at`, at most `limit`, appended to `out`.
    ///
    /// Looks at `steps` keys at most and returns the key to go on from when there may be more.
    pub fn scan(
        &self,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
        steps: usize,
        out: &mut Vec<(Bytes, Version)>,
    ) -> Option<Vec<u8>> {
        let upper = match &range.end {
            Some(end) if *end <= range.start => return None,
            Some(end) => Bound::Excluded(end.as_slice()),
            None => Bound::Unbounded,
        };
        if at <= self.start_size {
            return None;
        }
        let keys = self
            .keys
            .range::<[u8], _>((Bound::Included(range.start.as_slice()), upper));
        for (step, (key, versions)) in keys.enumerate() {
            if step == steps || out.len() == limit {
                return Some(key.as_slice().to_vec());
            }
            if let Some(version) = self.newest_below(versions, at) {
                out.push((Bytes::copy_from_slice(key.as_slice()), version));
            }
        }
        None
    }

    /// Every version, keys ascending, newest first within a key: the order the index wants.
    pub fn sorted(&self) -> impl Iterator<Item = (&[u8], Version)> + '_ {
        self.keys.iter().flat_map(move |(key, versions)| {
            let versions = self.slice(versions).iter().rev();
            versions.map(move |version| (key.as_slice(), self.version_at(*version)))
        })
    }

    /// The frame that holds leaf `index`, and the leaf's place in it; `None` when it is not in this segment.
    pub fn locate(&self, index: LeafIndex) -> Option<(FramePosition, u16)> {
        let leaf = self.relative(index)?;
        let frame = self
            .frames
            .partition_point(|frame| frame.first_leaf <= leaf);
        let frame = self.frames.get(frame.checked_sub(1)?)?;
        Some((self.position(frame), (leaf - frame.first_leaf) as u16))
    }

    /// How many leaves of the ledger have a timestamp at or before `timestamp_ms`, if this segment can tell: `None`
    /// when all of its leaves are later.
    pub fn size_at_time(&self, timestamp_ms: u64) -> Option<TreeSize> {
        let later = self
            .times
            .partition_point(|(time, _)| *time <= timestamp_ms);
        match (later, self.times.get(later)) {
            (0, _) => None,
            (_, Some((_, first))) => Some(TreeSize::new(first.get())),
            (_, None) => Some(self.end_size()),
        }
    }

    fn slice<'a>(&'a self, versions: &'a Versions) -> &'a [OpenVersion] {
        match versions {
            Versions::One(version) => std::slice::from_ref(version),
            Versions::Many(place) => self.many.get(*place as usize).map_or(&[], Vec::as_slice),
        }
    }

    fn relative(&self, index: LeafIndex) -> Option<u32> {
        let leaf = index.get().checked_sub(self.start_size.get())?;
        (leaf < u64::from(self.leaves)).then_some(leaf as u32)
    }

    fn count_below(&self, versions: &[OpenVersion], below: TreeSize) -> usize {
        if below >= self.end_size() {
            return versions.len();
        }
        let below = below.get().saturating_sub(self.start_size.get());
        versions.partition_point(|version| u64::from(version.leaf) < below)
    }

    fn newest_below(&self, versions: &Versions, below: TreeSize) -> Option<Version> {
        let versions = self.slice(versions);
        let newest = self.count_below(versions, below).checked_sub(1)?;
        Some(self.version_at(versions[newest]))
    }

    fn version_at(&self, version: OpenVersion) -> Version {
        let frame = &self.frames[version.frame as usize];
        Version {
            index: self
                .start_size
                .grown_by(u64::from(version.leaf))
                .next_index(),
            kind: version.kind,
            position: self.position(frame),
            slot: (version.leaf - frame.first_leaf) as u16,
        }
    }

    fn position(&self, frame: &FramePlace) -> FramePosition {
        FramePosition {
            segment: self.number,
            offset: frame.offset,
            length: frame.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> OpenSegment {
        let mut segment = OpenSegment::new(3, TreeSize::new(100), Hash([0; 32]));
        let place = |offset| FramePosition {
            segment: 3,
            offset,
            length: 80,
        };
        segment.push_frame(place(64));
        segment.push_leaf(b"a", LeafKind::Put, 10);
        segment.push_leaf(b"b", LeafKind::Put, 10);
        segment.push_frame(place(144));
        segment.push_leaf(b"a", LeafKind::Delete, 20);
        segment
    }

    #[test]
    fn versions_know_their_frame_and_slot() {
        let segment = sample();
        let newest = segment.latest(b"a", TreeSize::new(u64::MAX)).unwrap();
        assert_eq!((newest.index.get(), newest.slot), (102, 0));
        assert_eq!(newest.position.offset, 144);
        assert_eq!(newest.kind, LeafKind::Delete);
        let older = segment.latest(b"a", TreeSize::new(102)).unwrap();
        assert_eq!(
            (older.index.get(), older.slot, older.position.offset),
            (100, 0, 64)
        );
        assert_eq!(segment.latest(b"a", TreeSize::new(100)), None);
        assert_eq!(
            segment.version(b"b", LeafIndex::new(101)).map(|v| v.slot),
            Some(1)
        );
        assert_eq!(segment.version(b"b", LeafIndex::new(102)), None);
    }

    #[test]
    fn leaves_are_located() {
        let segment = sample();
        let offsets: Vec<_> = (99..104)
            .map(|i| {
                segment
                    .locate(LeafIndex::new(i))
                    .map(|(p, s)| (p.offset, s))
            })
            .collect();
        assert_eq!(
            offsets,
            [None, Some((64, 0)), Some((64, 1)), Some((144, 0)), None]
        );
    }

    #[test]
    fn time_line() {
        let segment = sample();
        let sizes: Vec<_> = [9, 10, 19, 20, 21]
            .map(|t| segment.size_at_time(t).map(TreeSize::get))
            .to_vec();
        assert_eq!(sizes, [None, Some(102), Some(102), Some(103), Some(103)]);
    }

    #[test]
    fn scan_stops_after_its_steps_and_says_where_to_go_on() {
        let segment = sample();
        let mut out = Vec::new();
        let range = ScanRange::default();
        let next = segment.scan(&range, TreeSize::new(103), 10, 1, &mut out);
        assert_eq!(next.as_deref(), Some(&b"b"[..]));
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].1.index.get(), 102);
    }
}
