//! The key index: from a key to its versions in sealed segments, and from an idempotency key to its write.
//!
//! It is derived data. Everything in it can be read again from the sealed segments, so it may be deleted at any
//! time; it is filled by one sorted batch per sealed segment and never written to otherwise. Versions in open
//! segments are not here but in [`super::open_segment`]. Byte maps are in `docs/format-index.md`.
//!
//! [`KeyIndex`] is all the store asks of a database: [`fjall`] on disk, [`memory`] for tests and simulation.

pub mod fjall;
pub mod memory;

use std::io;

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;

use super::frame::FramePosition;
use super::view::{Remembered, Version};

/// Which index a store uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexKind {
    /// The fjall database in `index/`.
    #[default]
    Fjall,
    /// Nothing on disk: filled from the sealed segments at each open.
    Memory,
}

/// What the index knows of a segment it has taken in: enough to tell whether it still is the segment in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedSegment {
    /// Segment number, 0-based.
    pub number: u32,
    /// Tree size after the segment.
    pub end_size: TreeSize,
    /// Root hash at that size.
    pub end_root: Hash,
    /// How many versions the segment brought.
    pub versions: u64,
}

/// Everything one sealed segment brings to the index.
pub struct SegmentBatch<'a, 'k> {
    /// Written with the data, in one step: the watermark.
    pub segment: IndexedSegment,
    /// Versions, keys ascending, newest first within a key. No key and index twice.
    pub versions: &'a mut (dyn Iterator<Item = (&'k [u8], Version)> + 'a),
    /// Idempotency keys, ascending, each once (the newest).
    pub remembered: &'a mut (dyn Iterator<Item = ([u8; 16], Remembered)> + 'a),
    /// Newest timestamp of the ledger: what is older than the window may be forgotten.
    pub now_ms: u64,
}

/// A key range, start included, end not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// First key that may be returned; empty for the first key of all.
    pub start: Vec<u8>,
    /// First key that is beyond the range; `None` for no end.
    pub end: Option<Vec<u8>>,
}

impl ScanRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The end is the prefix with its last byte below 255 increased and the rest cut.
        let end = prefix.iter().rposition(|byte| *byte != 0xff).map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        });
        Self {
            start: prefix.to_vec(),
            end,
        }
    }
}

/// The few things the store asks of an index database.
///
/// Calls block and may be made from any thread; [`KeyIndex::ingest`] and [`KeyIndex::clear`] only from one at a time.
pub trait KeyIndex: Send + Sync + std::fmt::Debug {
    /// The segments taken in, ascending. A batch is in completely or not at all.
    fn segments(&self) -> io::Result<Vec<IndexedSegment>>;
    /// Takes in one segment: versions, idempotency keys and the watermark. Repeating it is harmless.
    fn ingest(&self, batch: SegmentBatch<'_, '_>) -> io::Result<()>;
    /// Newest version of `key` whose index is below `below`.
    fn latest(&self, key: &[u8], below: TreeSize) -> io::Result<Option<Version>>;
    /// Versions of `key` with an index below `below`, newest first, at most `limit`, appended to `out`.
    fn versions(
        &self,
        key: &[u8],
        below: TreeSize,
        limit: usize,
        out: &mut Vec<Version>,
    ) -> io::Result<()>;
    /// The version of `key` at `index`, if that is one of its versions.
    fn version(&self, key: &[u8], index: LeafIndex) -> io::Result<Option<Version>>;
    /// Keys of the range in byte order, each with its newest version below `at`; at most `limit`.
    fn scan(
        &self,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Version)>>;
    /// The newest write remembered under an idempotency key, however old.
    fn remembered(&self, key_hash: &[u8; 16]) -> io::Result<Option<Remembered>>;
    /// Visits every version there is, in key order.
    fn visit(&self, visit: &mut dyn FnMut(&[u8], Version) -> io::Result<()>) -> io::Result<()>;
    /// Forgets everything.
    fn clear(&self) -> io::Result<()>;
    /// Bytes on disk (0 in memory).
    fn disk_bytes(&self) -> u64;
    /// Lets go of files and threads, without waiting for background work. Calls after it fail.
    fn close(&self);
}

/// First byte of the key of a segment's watermark.
pub(crate) const TAG_SEGMENT: u8 = 0x00;
/// First byte of the key of a version.
pub(crate) const TAG_VERSION: u8 = 0x01;
/// Bytes of an encoded version.
pub(crate) const VERSION_LENGTH: usize = 15;
/// Bytes of an encoded watermark.
pub(crate) const SEGMENT_LENGTH: usize = 52;
/// Bytes of an encoded idempotency memory.
pub(crate) const REMEMBERED_LENGTH: usize = 34;

/// Ends an escaped key. Below `00 ff`, the escape of a zero byte, so that a key sorts before its extensions.
const TERMINATOR: [u8; 2] = [0x00, 0x01];

/// Appends `key` so that byte order is kept and no escaped key is the beginning of another: `00` becomes `00 ff`.
pub(crate) fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(0xff);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
}

/// The index key of one version: tag, escaped key, terminator, inverted leaf index (newest first).
pub(crate) fn version_key_into(key: &[u8], index: LeafIndex, out: &mut Vec<u8>) {
    out.clear();
    out.push(TAG_VERSION);
    escape_into(key, out);
    out.extend_from_slice(&TERMINATOR);
    out.extend_from_slice(&(!index.get()).to_be_bytes());
}

/// The leaf index at the end of an index key; `None` when it is too short to have one.
pub(crate) fn version_key_index(bytes: &[u8]) -> Option<LeafIndex> {
    let inverted = bytes.last_chunk::<8>()?;
    Some(LeafIndex::new(!u64::from_be_bytes(*inverted)))
}

/// Takes an index key apart again; `None` when it is not one.
pub(crate) fn parse_version_key(bytes: &[u8]) -> Option<(Vec<u8>, LeafIndex)> {
    let (tag, rest) = bytes.split_first()?;
    if *tag != TAG_VERSION || rest.len() < 10 {
        return None;
    }
    let (escaped, inverted) = rest.split_at(rest.len() - 8);
    let escaped = escaped.strip_suffix(&TERMINATOR)?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
    }
    Some((key, version_key_index(inverted)?))
}

pub(crate) fn encode_version(version: &Version) -> [u8; VERSION_LENGTH] {
    let mut out = [0; VERSION_LENGTH];
    out[0..4].copy_from_slice(&version.position.segment.to_be_bytes());
    out[4..8].copy_from_slice(&version.position.offset.to_be_bytes());
    out[8..12].copy_from_slice(&version.position.length.to_be_bytes());
    out[12..14].copy_from_slice(&version.slot.to_be_bytes());
    out[14] = version.kind as u8;
    out
}

pub(crate) fn parse_version(index: LeafIndex, bytes: &[u8]) -> Option<Version> {
    let bytes: &[u8; VERSION_LENGTH] = bytes.try_into().ok()?;
    let kind = match bytes[14] {
        1 => LeafKind::Put,
        2 => LeafKind::Delete,
        3 => LeafKind::System,
        _ => return None,
    };
    Some(Version {
        index,
        kind,
        position: FramePosition {
            segment: be32(&bytes[0..4])?,
            offset: be32(&bytes[4..8])?,
            length: be32(&bytes[8..12])?,
        },
        slot: u16::from_be_bytes([bytes[12], bytes[13]]),
    })
}

pub(crate) fn segment_key(number: u32) -> [u8; 5] {
    let mut key = [TAG_SEGMENT; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn encode_segment(segment: &IndexedSegment) -> [u8; SEGMENT_LENGTH] {
    let mut out = [0; SEGMENT_LENGTH];
    out[0..8].copy_from_slice(&segment.end_size.get().to_be_bytes());
    out[8..40].copy_from_slice(segment.end_root.as_bytes());
    out[40..48].copy_from_slice(&segment.versions.to_be_bytes());
    let crc = crc32c::crc32c_append(segment.number, &out[..48]);
    out[48..52].copy_from_slice(&crc.to_be_bytes());
    out
}

pub(crate) fn parse_segment(key: &[u8], bytes: &[u8]) -> Option<IndexedSegment> {
    let (tag, number) = key.split_first()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let bytes: &[u8; SEGMENT_LENGTH] = bytes.try_into().ok()?;
    if *tag != TAG_SEGMENT || crc32c::crc32c_append(number, &bytes[..48]) != be32(&bytes[48..52])? {
        return None;
    }
    Some(IndexedSegment {
        number,
        end_size: TreeSize::new(be64(&bytes[0..8])?),
        end_root: Hash(bytes[8..40].try_into().ok()?),
        versions: be64(&bytes[40..48])?,
    })
}

pub(crate) fn encode_remembered(remembered: &Remembered) -> [u8; REMEMBERED_LENGTH] {
    let mut out = [0; REMEMBERED_LENGTH];
    out[0..8].copy_from_slice(&remembered.first.get().to_be_bytes());
    out[8..16].copy_from_slice(&remembered.timestamp_ms.to_be_bytes());
    out[16..18].copy_from_slice(&remembered.count.to_be_bytes());
    out[18..34].copy_from_slice(&remembered.fingerprint);
    out
}

pub(crate) fn parse_remembered(bytes: &[u8]) -> Option<Remembered> {
    let bytes: &[u8; REMEMBERED_LENGTH] = bytes.try_into().ok()?;
    Some(Remembered {
        first: LeafIndex::new(be64(&bytes[0..8])?),
        timestamp_ms: be64(&bytes[8..16])?,
        count: u16::from_be_bytes([bytes[16], bytes[17]]),
        fingerprint: bytes[18..34].try_into().ok()?,
    })
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn be64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    pub(crate) fn version(index: u64) -> Version {
        Version {
            index: LeafIndex::new(index),
            kind: if index % 5 == 4 {
                LeafKind::Delete
            } else {
                LeafKind::Put
            },
            position: FramePosition {
                segment: (index / 100) as u32,
                offset: 64 + index as u32 * 8,
                length: 1_000 + index as u32,
            },
            slot: (index % 7) as u16,
        }
    }

    proptest! {
        #[test]
        fn escaped_keys_sort_like_keys_and_newest_first(
            a in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..8),
            b in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..8),
            i in any::<u64>(), j in any::<u64>(),
        ) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            version_key_into(&a, LeafIndex::new(i), &mut left);
            version_key_into(&b, LeafIndex::new(j), &mut right);
            prop_assert_eq!(left.cmp(&right), a.cmp(&b).then(j.cmp(&i)));
            prop_assert_eq!(parse_version_key(&left), Some((a.clone(), LeafIndex::new(i))));
            let mut bound = vec![TAG_VERSION];
            escape_into(&b, &mut bound);
            prop_assert_eq!(left >= bound, a >= b);
        }

        #[test]
        fn index_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_version_key(&bytes);
            let _ = parse_version(LeafIndex::new(0), &bytes);
            let _ = parse_segment(&bytes, &bytes);
            let _ = parse_remembered(&bytes);
        }
    }

    #[test]
    fn values_round_trip() {
        for index in [0, 4, 1_000_000] {
            let value = version(index);
            assert_eq!(
                parse_version(value.index, &encode_version(&value)),
                Some(value)
            );
        }
        let segment = IndexedSegment {
            number: 7,
            end_size: TreeSize::new(99),
            end_root: Hash([3; 32]),
            versions: 12,
        };
        let bytes = encode_segment(&segment);
        assert_eq!(parse_segment(&segment_key(7), &bytes), Some(segment));
        assert_eq!(
            parse_segment(&segment_key(8), &bytes),
            None,
            "a watermark under another number"
        );
        let remembered = Remembered {
            first: LeafIndex::new(5),
            count: 3,
            fingerprint: [9; 16],
            timestamp_ms: 77,
        };
        assert_eq!(
            parse_remembered(&encode_remembered(&remembered)),
            Some(remembered)
        );
    }

    #[test]
    fn prefix_ranges() {
        assert_eq!(ScanRange::prefix(b"ab").end, Some(b"ac".to_vec()));
        assert_eq!(ScanRange::prefix(b"a\xff").end, Some(b"b".to_vec()));
        assert_eq!(ScanRange::prefix(b"\xff\xff").end, None);
        assert_eq!(ScanRange::prefix(b"").end, None);
    }

    type Model = BTreeMap<Vec<u8>, Vec<u64>>;

    fn ingest(index: &dyn KeyIndex, number: u32, model: &Model, end_size: u64) {
        let batch: Vec<(Vec<u8>, Version)> = model
            .iter()
            .flat_map(|(key, versions)| {
                versions
                    .iter()
                    .rev()
                    .map(|index| (key.clone(), version(*index)))
            })
            .collect();
        index
            .ingest(SegmentBatch {
                segment: IndexedSegment {
                    number,
                    end_size: TreeSize::new(end_size),
                    end_root: Hash([number as u8; 32]),
                    versions: batch.len() as u64,
                },
                versions: &mut batch
                    .iter()
                    .map(|(key, version)| (key.as_slice(), *version)),
                remembered: &mut [(
                    [number as u8; 16],
                    Remembered {
                        first: LeafIndex::new(u64::from(number)),
                        count: 1,
                        fingerprint: [1; 16],
                        timestamp_ms: 1_000,
                    },
                )]
                .into_iter(),
                now_ms: 1_000,
            })
            .unwrap();
    }

    /// Every implementation must answer like a map from key to list of indexes.
    pub(crate) fn check_like_model(index: &dyn KeyIndex) {
        let keys: Vec<Vec<u8>> = [
            &b"a"[..],
            b"a\0",
            b"a\0\0",
            b"a\0\xff",
            b"a\x01",
            b"ab",
            b"b",
            b"\0",
            b"\xff",
            b"\xff\xff",
            b"key-with-many-versions",
        ]
        .iter()
        .map(|key| key.to_vec())
        .collect();
        let mut whole = Model::new();
        let mut next = 0;
        for number in 0..3 {
            let mut part = Model::new();
            for round in 0..6 {
                for (place, key) in keys.iter().enumerate() {
                    if (round + place + number as usize).is_multiple_of(3) || place == 10 {
                        part.entry(key.clone()).or_default().push(next);
                        whole.entry(key.clone()).or_default().push(next);
                        next += 1;
                    }
                }
            }
            ingest(index, number, &part, next);
            ingest(index, number, &part, next); // a repeated step changes nothing
        }
        let segments = index.segments().unwrap();
        assert_eq!(
            segments.iter().map(|s| s.number).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(segments[2].end_size, TreeSize::new(next));

        for below in [0, 1, next / 3, next / 2, next, u64::MAX] {
            let at = TreeSize::new(below);
            for key in keys
                .iter()
                .chain([&b"missing".to_vec(), &b"a\x02".to_vec()])
            {
                let versions: Vec<u64> = whole
                    .get(key)
                    .map(|all| all.iter().rev().copied().filter(|i| *i < below).collect())
                    .unwrap_or_default();
                let found = index.latest(key, at).unwrap();
                assert_eq!(
                    found,
                    versions.first().map(|i| version(*i)),
                    "{key:?} below {below}"
                );
                for limit in [0, 1, 3, 100] {
                    let mut out = Vec::new();
                    index.versions(key, at, limit, &mut out).unwrap();
                    let expected: Vec<Version> =
                        versions.iter().take(limit).map(|i| version(*i)).collect();
                    assert_eq!(out, expected, "{key:?} below {below}");
                }
            }
            for start in keys.iter().chain([&Vec::new()]) {
                for end in keys.iter().map(|key| Some(key.clone())).chain([None]) {
                    for limit in [0, 1, 4, 100] {
                        let range = ScanRange {
                            start: start.clone(),
                            end: end.clone(),
                        };
                        let upper = match &end {
                            Some(end) if end <= start => continue,
                            Some(end) => Bound::Excluded(end.clone()),
                            None => Bound::Unbounded,
                        };
                        let expected: Vec<(Bytes, Version)> = whole
                            .range((Bound::Included(start.clone()), upper))
                            .filter_map(|(key, all)| {
                                let newest = all.iter().rev().find(|i| **i < below)?;
                                Some((Bytes::from(key.clone()), version(*newest)))
                            })
                            .take(limit)
                            .collect();
                        assert_eq!(index.scan(&range, at, limit).unwrap(), expected);
                    }
                }
            }
        }
        for (key, all) in &whole {
            for i in 0..next {
                let found = index.version(key, LeafIndex::new(i)).unwrap();
                assert_eq!(found, all.contains(&i).then(|| version(i)));
            }
        }
        let mut visited = Model::new();
        index
            .visit(&mut |key, found| {
                assert_eq!(found, version(found.index.get()));
                visited
                    .entry(key.to_vec())
                    .or_default()
                    .insert(0, found.index.get());
                Ok(())
            })
            .unwrap();
        assert_eq!(visited, whole);
        assert_eq!(
            index.remembered(&[1; 16]).unwrap().map(|r| r.first),
            Some(LeafIndex::new(1))
        );
        assert_eq!(index.remembered(&[9; 16]).unwrap(), None);
        index.clear().unwrap();
        assert_eq!(index.segments().unwrap(), []);
        assert_eq!(index.latest(b"a", TreeSize::new(u64::MAX)).unwrap(), None);
        assert_eq!(index.remembered(&[1; 16]).unwrap(), None);
    }
}
