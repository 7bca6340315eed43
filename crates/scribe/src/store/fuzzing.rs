//! Fuzz targets: what the store reads from its own files and from those another node sent.
//!
//! Checksums keep a fuzzer out, so most targets look at the input twice: as it is, and *mended*, with lengths cut to
//! what is there and checksums put right. The disk is the simulated one.

mod image;
#[cfg(test)]
mod seeds;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;

use super::disk::{Disk, DiskFile, Open};
use super::frame::{
    self, FRAME_VERSION, FrameHeader, FrameKind, HEADER_LENGTH, LogId, LogIndex, Vote,
};
use super::index::{
    encode_remembered, encode_segment, encode_version, parse_remembered, parse_segment,
    parse_version, parse_version_key, version_key_into,
};
use super::install::check_listed;
use super::manifest::{self, MANIFEST_NAME, ManifestFile, Replay};
use super::scan::{Expected, Scanner, judge_end};
use super::sealed_list::read_footer;
use super::segment::{
    FOOTER_LENGTH_MAX, FooterState, SEGMENT_HEADER_LENGTH, SealedSegment, SegmentHeader,
    TRAILER_LENGTH, parse_file_name,
};
use super::sim_disk::SimDisk;
use super::vote::{self, SLOT_LENGTH, VOTE_NAME, VoteFile};
use super::watermarks::{self, WATERMARKS_NAME, WatermarksFile};
use crate::limits;

pub(crate) use self::image::{directory, staged_segment};
#[cfg(test)]
pub(crate) use self::seeds::seeds;

const DIR: &str = "/data";
const CLUSTER: [u8; 16] = [0xc1; 16];

/// A simulated disk with one file on it.
fn disk_with(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("a new disk");
    let file = disk
        .open(&Path::new(DIR).join(name), Open::CREATE_NEW)
        .expect("a new file");
    file.write_all_at(bytes, 0).expect("room");
    (disk, file)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

/// A frame of the log.
pub(crate) fn frame(data: &[u8]) {
    check_frame(&Bytes::copy_from_slice(data));
    if let Some(mended) = mended_frame(data) {
        assert!(check_frame(&mended.into()), "a good frame was refused");
    }
}

fn check_frame(bytes: &Bytes) -> bool {
    let Ok(parsed) = frame::parse(bytes) else {
        return false;
    };
    let frame = &parsed.frame;
    assert!(parsed.length <= bytes.len() && parsed.length.is_multiple_of(8));
    assert_eq!((frame.check(), frame.length()), (Ok(()), parsed.length));
    let (header, chain) = frame::encode_header(frame, parsed.previous_chain);
    assert_eq!(chain, parsed.chain);
    let mut again = [&header[..], &frame.public, &frame.private].concat();
    again.resize(frame.length(), 0);
    assert_eq!(again, bytes[..parsed.length], "a second encoding");
    assert!(frame::parse(&bytes.slice(..parsed.length - 1)).is_err());
    true
}

/// The input as a frame whose lengths fit and whose checksums are right.
fn mended_frame(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let room = bytes.len().checked_sub(HEADER_LENGTH)?;
    let public = be32(&bytes, 48) as usize % (room + 1);
    let private = be32(&bytes, 60) as usize % (room - public + 1);
    let private_start = HEADER_LENGTH + public;
    let end = private_start + private;
    bytes.truncate(end);
    bytes.resize(end.next_multiple_of(8), 0);
    bytes[4] = FRAME_VERSION;
    bytes[5] = FrameKind::Blank as u8 + bytes[5] % 4;
    bytes[6..8].fill(0);
    bytes[40..44].fill(0);
    // An index that another one can follow.
    bytes[16] &= 0x7f;
    let count = be32(&bytes, 44) % (limits::FRAME_OPERATIONS_MAX as u32 + 1);
    put32(&mut bytes, 44, count);
    put32(&mut bytes, 48, public as u32);
    let private_crc = frame::private_crc(&bytes[private_start..end]);
    put32(&mut bytes, 56, private_crc);
    put32(&mut bytes, 60, private as u32);
    let chain = crc32c::crc32c_append(
        crc32c::crc32c(&bytes[4..56]),
        &bytes[HEADER_LENGTH..private_start],
    );
    put32(&mut bytes, 0, chain);
    Some(bytes)
}

/// A segment file: its name, header, frames up to where they stop, how the end is judged, and the footer.
pub(crate) fn segment_file(data: &[u8]) {
    check_segment_file(data);
    let Some(mut mended) = data.get(SEGMENT_HEADER_LENGTH..).and_then(mended_frame) else {
        return;
    };
    let mut header = [0; SEGMENT_HEADER_LENGTH];
    header.copy_from_slice(&data[..SEGMENT_HEADER_LENGTH]);
    header[..8].copy_from_slice(b"SCRSEG1\n");
    header[40..60].fill(0);
    let crc = crc32c::crc32c(&header[..60]);
    put32(&mut header, 60, crc);
    let parsed = SegmentHeader::parse(&header).expect("a good header");
    // The frame, and behind it the same bytes as they came: a good frame, then whatever it may be.
    mended.splice(..0, header);
    mended.extend_from_slice(data);
    let frames = check_segment_file(&mended);
    let first = FrameHeader::parse(&mended[SEGMENT_HEADER_LENGTH..]).expect("a good frame");
    let follows = first.log_id.index == parsed.first_log_index
        && first.previous_chain == parsed.previous_chain;
    assert_eq!(frames > 0, follows, "a good frame was not found");
}

/// How many frames there are.
fn check_segment_file(bytes: &[u8]) -> usize {
    let header = match SegmentHeader::parse(&bytes[..bytes.len().min(SEGMENT_HEADER_LENGTH)]) {
        Ok(header) => {
            assert_eq!(
                header.encode(),
                bytes[..SEGMENT_HEADER_LENGTH],
                "a second encoding"
            );
            header
        }
        Err(_) => SegmentHeader {
            number: 0,
            first_log_index: LogIndex(0),
            cluster_id: CLUSTER,
            previous_chain: 0,
        },
    };
    let (disk, file) = disk_with("s", bytes);
    let length = bytes.len() as u64;
    let mut scanner = Scanner::new(&*file, length);
    let mut expected = Expected {
        index: header.first_log_index,
        term: 0,
        chain: header.previous_chain,
    };
    let mut offset = SEGMENT_HEADER_LENGTH as u64;
    let mut frames = 0;
    while let Ok(found) = scanner.frame(offset).expect("a disk without faults") {
        if expected.check(&found).is_err() {
            break;
        }
        frames += 1;
        offset += found.length as u64;
        assert!(offset <= length, "a frame goes on behind the end");
        expected = Expected::after(found.frame.log_id, found.chain);
    }
    for group in [256, limits::SYNC_GROUP_BYTES_MAX] {
        let mut judge = || judge_end(&mut scanner, offset, expected, "bad", group);
        let end = judge().expect("a disk without faults");
        assert_eq!(end, judge().expect("a disk without faults"));
    }
    let footer = read_footer(&disk, &Path::new(DIR).join("s"));
    if let Ok(Ok(sealed)) = footer {
        assert_eq!(sealed.file_length, length);
        assert!(bytes.ends_with(&sealed.encode_footer()));
    }
    frames
}

/// A footer, a summary of one, and the name of a segment file.
pub(crate) fn footer(data: &[u8]) {
    check_footer(data);
    if let Some(mended) = mended_footer(data) {
        assert!(check_footer(&mended), "a good footer was refused");
    }
    if let Ok(sealed) = SealedSegment::parse_summary(data) {
        assert_eq!(sealed.file_length.to_be_bytes(), data[..8]);
        if sealed.sparse.is_empty() {
            assert_eq!(sealed.encode_summary(), data, "a second encoding");
        }
    }
    if let Ok(name) = std::str::from_utf8(data)
        && let Some(first) = parse_file_name(name)
    {
        assert_eq!(super::segment::file_name(first), name, "a second name");
    }
}

fn check_footer(bytes: &[u8]) -> bool {
    let Ok(sealed) = SealedSegment::parse_footer(bytes) else {
        return false;
    };
    assert!(bytes.len() <= FOOTER_LENGTH_MAX);
    assert_eq!(sealed.encode_footer(), bytes, "a second encoding");
    let summary = sealed.encode_summary();
    let again = SealedSegment::parse_summary(&summary).expect("what was written can be read");
    assert!(again.is_same(&sealed) && again.sparse.is_empty());
    true
}

/// The input as a footer whose lengths fit and whose checksum is right.
fn mended_footer(data: &[u8]) -> Option<Vec<u8>> {
    const FIXED: usize = 240;
    const SPARSE: usize = 24;
    let mut bytes = data.to_vec();
    let room = bytes.len().checked_sub(FIXED + TRAILER_LENGTH)?;
    let membership = be32(&bytes, 216) as usize % (room + 1);
    let padded = membership.next_multiple_of(8);
    let sparse = room.checked_sub(padded)? / SPARSE;
    let length = FIXED + padded + sparse * SPARSE + TRAILER_LENGTH;
    bytes.truncate(length - TRAILER_LENGTH);
    bytes[..8].copy_from_slice(b"SCRFOOT1");
    // First and last log index, ascending and below the highest number.
    let at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (first, last) = (at(16), at(32));
    let (first, last) = (first.min(last) / 2, first.max(last) / 2);
    bytes[16..24].copy_from_slice(&first.to_be_bytes());
    bytes[32..40].copy_from_slice(&last.to_be_bytes());
    put32(&mut bytes, 216, membership as u32);
    put32(&mut bytes, 220, sparse as u32);
    bytes[FIXED + membership..FIXED + padded].fill(0);
    for entry in bytes[FIXED + padded..].chunks_exact_mut(SPARSE) {
        entry[20..].fill(0);
    }
    bytes.extend((length as u32).to_be_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_be_bytes());
    bytes.extend(b"SCRFEND1");
    Some(bytes)
}

/// Bytes of an input that make one segment of a list.
pub(crate) const SUMMARY_FIELDS: usize = 96;

/// The segment with these numbers and hashes, as it is read from a list.
pub(crate) fn summary_of(fields: &[u8]) -> Option<SealedSegment> {
    let number = |at: usize| {
        let bytes = fields.get(at * 8..at * 8 + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let hash = |byte: usize| Hash([fields[88 + byte]; 32]);
    let last_log_id = LogId::new(number(6)?, number(1)?);
    let sealed = SealedSegment {
        number: number(7)? as u32,
        generation: 0,
        first_log_index: LogIndex(number(0)?),
        last_log_id,
        last_chain: number(8)? as u32,
        frame_count: number(9)? as u32,
        body_length: number(4)?,
        file_length: number(5)?,
        body_sha256: hash(0),
        cluster_id: CLUSTER,
        footer: FooterState {
            start_size: TreeSize::new(number(2)?),
            start_root: hash(1),
            end_size: TreeSize::new(number(3)?),
            end_root: hash(2),
            last_log_id,
            membership: Bytes::new(),
            last_timestamp_ms: number(10)?,
            published: (TreeSize::EMPTY, hash(3)),
        },
        sparse: Arc::default(),
    };
    let read = SealedSegment::parse_summary(&sealed.encode_summary()).ok()?;
    assert!(read.is_same(&sealed) && read.file_length == sealed.file_length);
    Some(read)
}

/// A list of segments from another node, each with a good checksum: what a list may say.
pub(crate) fn segment_list(data: &[u8]) {
    let pieces = data.chunks_exact(SUMMARY_FIELDS).take(16);
    let list: Vec<SealedSegment> = pieces.filter_map(summary_of).collect();
    for (place, segment) in list.iter().enumerate() {
        let before = place.checked_sub(1).map(|place| &list[place]);
        if check_listed(segment, before).is_err() {
            continue;
        }
        let footer = segment.file_length - segment.body_length;
        assert!(footer <= FOOTER_LENGTH_MAX as u64 && segment.body_length <= 1 << 32);
        assert!(segment.first_log_index <= segment.last_log_id.index);
        if let Some(before) = before {
            assert!(before.last_log_id.index < segment.first_log_index);
            assert_eq!(before.footer.end_size, segment.footer.start_size);
        }
    }
}

/// The vote file. What is opened is the same at the next opening, and a later vote takes its place.
pub(crate) fn vote_file(data: &[u8]) {
    check_vote_file(data);
    let mut mended = data.to_vec();
    mended.resize(SLOT_LENGTH + 64, 0);
    for at in [0, SLOT_LENGTH] {
        let slot = &mut mended[at..at + 64];
        slot[..8].copy_from_slice(b"SCRVOTE1");
        // A sequence that was reached by counting.
        slot[8] = 0;
        slot[56] %= 2;
        slot[57] %= 2;
        let crc = crc32c::crc32c(&slot[..60]);
        put32(slot, 60, crc);
    }
    assert!(check_vote_file(&mended), "a good vote file was refused");
}

fn check_vote_file(bytes: &[u8]) -> bool {
    let bytes = &bytes[..bytes.len().min(3 * SLOT_LENGTH)];
    let (disk, _) = disk_with(VOTE_NAME, bytes);
    let dir = Path::new(DIR);
    let strict = vote::check_bytes(bytes);
    let Ok(Some(mut opened)) = VoteFile::open(&disk, dir) else {
        assert!(strict.is_err(), "a good vote file was not opened");
        return false;
    };
    let found = (opened.identity(), opened.vote());
    if let Ok(strict) = strict {
        assert_eq!(strict, found);
    }
    let again = |expected: Option<Vote>| {
        let opened = VoteFile::open(&disk, dir).expect("it was opened before");
        let opened = opened.expect("it held a vote before");
        assert_eq!((opened.identity(), opened.vote()), (found.0, expected));
    };
    again(found.1);
    let later = Vote {
        term: found.1.map_or(1, |vote| vote.term.saturating_add(1)),
        node_id: 3,
        committed: false,
    };
    opened.save(later).expect("room");
    again(Some(later));
    true
}

/// The watermarks. Opening never fails: the file is advisory.
pub(crate) fn watermarks(data: &[u8]) {
    check_watermarks(data);
    let mut mended = data.to_vec();
    mended.resize(4_096 + 80, 0);
    for at in [0, 4_096] {
        let slot = &mut mended[at..at + 80];
        slot[..8].copy_from_slice(b"SCRMARK1");
        // A sequence that was reached by counting.
        slot[8] = 0;
        slot[17..24].fill(0);
        let crc = crc32c::crc32c(&slot[..76]);
        put32(slot, 76, crc);
    }
    check_watermarks(&mended);
}

fn check_watermarks(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(3 * 4_096)];
    let (disk, _) = disk_with(WATERMARKS_NAME, bytes);
    let dir = Path::new(DIR);
    let open = || WatermarksFile::open(&disk, dir).expect("a disk without faults");
    let mut opened = open();
    let marks = opened.marks();
    if let Ok(strict) = watermarks::check_bytes(bytes) {
        assert_eq!(strict.unwrap_or_default(), marks);
    }
    assert_eq!(open().marks(), marks);
    let mut lowered = marks;
    lowered.committed = None;
    lowered.purged = None;
    opened.write(lowered).expect("room");
    assert_eq!(open().marks(), lowered);
}

/// The MANIFEST: as it is, and as records with right checksums whose payloads are pieces of the input.
pub(crate) fn manifest(data: &[u8]) {
    check_manifest(data);
    let mut mended = data.get(..32).unwrap_or_default().to_vec();
    mended.resize(32, 0);
    mended[..8].copy_from_slice(b"SCRMANI1");
    mended[8..24].copy_from_slice(&CLUSTER);
    mended[24..28].fill(0);
    let crc = crc32c::crc32c(&mended[..28]);
    put32(&mut mended, 28, crc);
    let mut rest = data.get(32..).unwrap_or_default();
    while let Some(([kind, high, low], tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (payload, tail) = tail.split_at(length);
        let start = mended.len();
        mended.extend((length as u32).to_be_bytes());
        mended.extend([kind % 7, 1, 0, 0, 0, 0, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&mended[start..]), payload);
        mended.extend(crc.to_be_bytes());
        mended.extend_from_slice(payload);
        mended.resize(mended.len().next_multiple_of(8), 0);
        rest = tail;
    }
    check_manifest(&mended);
}

fn check_manifest(bytes: &[u8]) {
    let (disk, _) = disk_with(MANIFEST_NAME, bytes);
    let dir = Path::new(DIR);
    let strict = manifest::check_bytes(bytes, CLUSTER);
    let replay = ManifestFile::replay(&disk, dir, CLUSTER);
    let Ok((file, Replay::Good { records, cut_bytes })) = replay else {
        assert!(strict.is_err(), "a good MANIFEST was not replayed");
        return;
    };
    assert!(file.is_some() && cut_bytes <= bytes.len() as u64);
    if let Ok(strict) = strict {
        assert_eq!((strict, 0), (records.clone(), cut_bytes));
    }
    drop(file);
    match ManifestFile::replay(&disk, dir, CLUSTER) {
        Ok((
            Some(_),
            Replay::Good {
                records: r,
                cut_bytes: 0,
            },
        )) => assert_eq!(r, records),
        other => panic!("the second replay gives {other:?}"),
    }
    // What is written anew with the same records says the same, by the strict reading, too.
    ManifestFile::create(&disk, dir, CLUSTER, &records, false).expect("room");
    let written = disk.bytes(&dir.join(MANIFEST_NAME)).expect("a file");
    assert_eq!(
        manifest::check_bytes(&written, CLUSTER).as_ref(),
        Ok(&records)
    );
}

/// Keys and values of the key index.
pub(crate) fn index_record(data: &[u8]) {
    if let Some((key, index)) = parse_version_key(data) {
        let mut again = Vec::new();
        version_key_into(&key, index, &mut again);
        assert_eq!(again, data, "a second encoding");
    }
    let index = scribe_proof::index::LeafIndex::new(7);
    if let Some(version) = parse_version(index, data) {
        assert_eq!(encode_version(&version), data, "a second encoding");
    }
    if let Some((key, value)) = data.split_first_chunk::<5>() {
        if let Some(segment) = parse_segment(key, value) {
            assert_eq!(super::index::segment_key(segment.number), *key);
            assert_eq!(encode_segment(&segment), value, "a second encoding");
        }
        // Any key can be asked for, and is found again.
        let mut made = Vec::new();
        version_key_into(value, index, &mut made);
        assert_eq!(parse_version_key(&made), Some((value.to_vec(), index)));
    }
    if let Some(remembered) = parse_remembered(data) {
        assert_eq!(encode_remembered(&remembered), data, "a second encoding");
    }
}
