//! Reads a segment file front to back in large pieces, and judges the place where frames stop.

use std::io;

use bytes::Bytes;

use super::disk::{DiskFile, SECTOR_LENGTH, read_full_at};
use super::frame::{
    self, FRAME_LENGTH_MAX, FrameError, FrameHeader, HEADER_LENGTH, LogId, LogIndex, ParsedFrame,
};
use super::segment::SEGMENT_HEADER_LENGTH;
use crate::limits;

/// Bytes read at once, unless a frame is longer.
const READ_LENGTH: usize = 1_024 * 1_024;

/// A window that moves over a file. What it hands out stays valid after it moved on.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    /// Bytes of the file that may be read.
    end: u64,
    window: Bytes,
    window_start: u64,
    read_length: usize,
}

impl<'a> Scanner<'a> {
    /// Scans the first `end` bytes of `file`.
    pub(crate) fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self {
            file,
            end,
            window: Bytes::new(),
            window_start: 0,
            read_length: READ_LENGTH,
        }
    }

    /// As [`Scanner::new`], for a caller that expects to need only about `read_length` bytes.
    pub(crate) fn with_read_length(file: &'a dyn DiskFile, end: u64, read_length: usize) -> Self {
        Self {
            read_length: read_length.clamp(HEADER_LENGTH, READ_LENGTH),
            ..Self::new(file, end)
        }
    }

    /// Up to `length` bytes from `offset`; fewer at the end.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        let length = (self.end.saturating_sub(offset)).min(length as u64) as usize;
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + length as u64 > window_end {
            let wanted = length.max(self.read_length) as u64;
            let wanted = wanted.min(self.end.saturating_sub(offset)) as usize;
            let mut buffer = vec![0; wanted];
            let read = read_full_at(self.file, &mut buffer, offset)?;
            buffer.truncate(read);
            self.window = buffer.into();
            self.window_start = offset;
        }
        let start = ((offset - self.window_start) as usize).min(self.window.len());
        let end = (start + length).min(self.window.len());
        Ok(self.window.slice(start..end))
    }

    /// The frame header at `offset`, no CRC checked.
    pub(crate) fn header(&mut self, offset: u64) -> io::Result<Result<FrameHeader, FrameError>> {
        Ok(FrameHeader::parse(&self.bytes(offset, HEADER_LENGTH)?))
    }

    /// The frame at `offset`, all CRCs checked.
    pub(crate) fn frame(&mut self, offset: u64) -> io::Result<Result<ParsedFrame, FrameError>> {
        let header = match self.header(offset)? {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        debug_assert!(header.total_length() <= FRAME_LENGTH_MAX);
        Ok(frame::parse(&self.bytes(offset, header.total_length())?))
    }

    /// Where the last byte behind `offset` ends that is not zero; `offset` if there is none.
    pub(crate) fn content_end(&mut self, offset: u64) -> io::Result<u64> {
        let (mut at, mut end) = (offset, offset);
        while at < self.end {
            let piece = self.bytes(at, self.read_length)?;
            if piece.is_empty() {
                break;
            }
            if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
                end = at + last as u64 + 1;
            }
            at += piece.len() as u64;
        }
        Ok(end)
    }

    /// Looks for a frame at or behind `from` that is whole and may follow the frame `missing`, which was to start at
    /// `missing_at`: its log index is greater, but by no more than as many frames as fit in between.
    ///
    /// A value can be full of headers that each claim a long frame, and each claim costs a checksum over its length:
    /// after [`limits::TORN_SEARCH_BYTES_MAX`] the search is given up.
    pub(super) fn find_frame(
        &mut self,
        from: u64,
        missing: LogIndex,
        missing_at: u64,
    ) -> io::Result<Later> {
        let mut offset = from.next_multiple_of(8);
        let mut left = limits::TORN_SEARCH_BYTES_MAX;
        while offset + HEADER_LENGTH as u64 <= self.end {
            let piece = self.bytes(offset, self.read_length)?;
            if piece.len() < HEADER_LENGTH {
                break;
            }
            for at in (0..=piece.len() - HEADER_LENGTH).step_by(8) {
                let Ok(header) = FrameHeader::parse(&piece[at..at + HEADER_LENGTH]) else {
                    continue;
                };
                let start = offset + at as u64;
                let fits = start + header.total_length() as u64 <= self.end;
                let distance = start.saturating_sub(missing_at) / HEADER_LENGTH as u64;
                let most = LogIndex(missing.0.saturating_add(distance));
                if !fits || header.log_id.index <= missing || header.log_id.index > most {
                    continue;
                }
                let Some(rest) = left.checked_sub(header.private_start()) else {
                    return Ok(Later::Unclear);
                };
                left = rest;
                let covered = self.bytes(start, header.private_start())?;
                if frame::check_chain(&header, &covered).is_ok() {
                    return Ok(Later::Frame(start));
                }
            }
            offset += (piece.len() - HEADER_LENGTH) as u64 / 8 * 8 + 8;
        }
        Ok(Later::Nothing)
    }
}

/// What lies behind the place where frames stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// No whole frame.
    Nothing,
    /// One that starts here.
    Frame(u64),
    /// More that looks like one than can be looked at.
    Unclear,
}

/// What the next frame of the log must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Its log index.
    pub(crate) index: LogIndex,
    /// Its term is at least this.
    pub(crate) term: u64,
    /// The chain CRC it names as the one before.
    pub(crate) chain: u32,
}

impl Expected {
    /// What follows the frame `last`.
    pub(crate) fn after(last: LogId, chain: u32) -> Self {
        Self {
            index: last.index.next(),
            term: last.term,
            chain,
        }
    }

    /// Whether a parsed frame is the expected one; otherwise the rule it breaks.
    pub(crate) fn check(&self, found: &ParsedFrame) -> Result<(), String> {
        let id = found.frame.log_id;
        if id.index != self.index {
            return Err(format!("log index is {}, allowed {}", id.index, self.index));
        }
        if id.term < self.term {
            return Err(format!(
                "term is {}, allowed {} or later",
                id.term, self.term
            ));
        }
        if found.previous_chain != self.chain {
            return Err(format!(
                "frame follows chain CRC {:08x}, the frame before has {:08x}",
                found.previous_chain, self.chain
            ));
        }
        Ok(())
    }

    fn may_be(&self, header: &FrameHeader) -> bool {
        header.log_id.index == self.index && header.previous_chain == self.chain
    }
}

/// How the frames of the last segment end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Zeros to the end of the file.
    Clean,
    /// What a power cut leaves of a group that was never acknowledged.
    Torn,
    /// Anything else: the reason.
    Damaged(String),
}

/// Judges the bytes at `offset`, where the frame `expected` does not stand for the reason `problem`.
///
/// A group is written with one call and acknowledged after a sync, so at a power cut at most one group is incomplete,
/// and what is missing of it is missing in whole sectors, which then read as zero. Hence torn means: (1) some sector
/// under the damaged part of the first bad frame is zero, and (2) no whole frame starts `group_bytes_max` or more
/// behind it, or anywhere behind it if it is longer than that, for then it was a group of its own. A frame whose
/// header is missing is taken for a short one: bytes of a long value that look like a frame then refuse the start, where
/// the other choice could cut acknowledged frames behind a header that rotted. Whether the frame may have been
/// acknowledged is for the caller to ask of the watermarks.
pub(crate) fn judge_end(
    scanner: &mut Scanner<'_>,
    offset: u64,
    expected: Expected,
    problem: &str,
    group_bytes_max: usize,
) -> io::Result<End> {
    if scanner.content_end(offset)? == offset {
        return Ok(End::Clean);
    }
    let header = scanner
        .header(offset)?
        .ok()
        .filter(|header| expected.may_be(header));
    // The 8 bytes at 56 and the private part have a CRC of their own: if the chain is right, the damage is there.
    let (damaged, frame_length) = match header {
        None => {
            let header = offset..offset + HEADER_LENGTH as u64;
            ([header, 0..0], 0)
        }
        Some(header) => {
            let private_start = offset + header.private_start() as u64;
            let private_end = private_start + u64::from(header.private_length);
            let covered = scanner.bytes(offset, header.private_start())?;
            let whole = covered.len() == header.private_start();
            let ranges = if whole && frame::check_chain(&header, &covered).is_ok() {
                [
                    offset + 56..offset + HEADER_LENGTH as u64,
                    private_start..private_end,
                ]
            } else {
                [offset..private_start, 0..0]
            };
            (ranges, header.total_length() as u64)
        }
    };
    let mut missing = false;
    for range in damaged {
        missing = missing || has_missing_sector(scanner, range)?;
    }
    if !missing {
        return Ok(End::Damaged(format!(
            "{problem}, and no sector of it is missing"
        )));
    }
    let window = frame_length.max(group_bytes_max as u64);
    let frames_from = offset.max(SEGMENT_HEADER_LENGTH as u64);
    Ok(
        match scanner.find_frame(frames_from + window, expected.index, offset)? {
            Later::Nothing => End::Torn,
            Later::Frame(later) => End::Damaged(format!(
                "{problem}, and a whole frame follows at byte {later}"
            )),
            // Refused rather than guessed: cutting could lose frames that were acknowledged.
            Later::Unclear => End::Damaged(format!(
                "{problem}, and more follows that looks like frames than can be looked at"
            )),
        },
    )
}

/// Whether some 512-byte sector has nothing but zeros within `range`, or the file ends inside it: a length that was not
/// made durable cuts anywhere.
fn has_missing_sector(scanner: &mut Scanner<'_>, range: std::ops::Range<u64>) -> io::Result<bool> {
    if !range.is_empty() && range.end > scanner.end {
        return Ok(true);
    }
    let mut at = range.start;
    while at < range.end {
        let sector_end = (at / SECTOR_LENGTH as u64 + 1) * SECTOR_LENGTH as u64;
        let end = sector_end.min(range.end);
        let bytes = scanner.bytes(at, (end - at) as usize)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        at = end;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::disk::{Disk, Open};
    use super::super::frame::{Frame, FrameKind, encode_header};
    use super::super::sim_disk::SimDisk;
    use super::*;
    use scribe_proof::index::LeafIndex;

    const BAD_AT: usize = 4_096;
    const LATER_AT: usize = BAD_AT + 10_000 / 8 * 8;
    const GROUP: usize = 4_096;
    const EXPECTED: Expected = Expected {
        index: LogIndex(7),
        term: 1,
        chain: 99,
    };

    fn encode(index: u64, public_length: usize, previous_chain: u32) -> Vec<u8> {
        let frame = Frame {
            log_id: LogId::new(1, index),
            kind: FrameKind::Entries,
            sequencing_term: 1,
            first_leaf: LeafIndex::new(0),
            count: 1,
            public: vec![5; public_length].into(),
            private: vec![6; 40].into(),
        };
        let (header, _) = encode_header(&frame, previous_chain);
        let mut bytes = [&header[..], &frame.public, &frame.private].concat();
        bytes.resize(frame.length(), 0);
        bytes
    }

    /// How a file is judged in which one sector of the frame at `BAD_AT` is missing and another frame stands behind.
    fn judge(missing_sector: usize, later_index: u64) -> End {
        let mut bytes = vec![1; BAD_AT];
        bytes.extend(encode(7, 3_000, EXPECTED.chain));
        bytes.resize(LATER_AT, 2);
        bytes.extend(encode(later_index, 100, 1));
        let missing = BAD_AT + missing_sector * SECTOR_LENGTH;
        bytes[missing..missing + SECTOR_LENGTH].fill(0);
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/f"), Open::CREATE_NEW).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut scanner = Scanner::new(&*file, bytes.len() as u64);
        judge_end(&mut scanner, BAD_AT as u64, EXPECTED, "bad", GROUP).unwrap()
    }

    #[test]
    fn a_whole_frame_of_a_later_group_is_no_torn_tail() {
        let damaged = |end| matches!(end, End::Damaged(reason) if reason.contains("follows"));
        let most = 7 + (LATER_AT - BAD_AT) as u64 / 64;
        assert!(damaged(judge(2, 8)));
        assert!(damaged(judge(2, most)));
    }

    #[test]
    fn what_cannot_be_a_later_frame_is_not_taken_for_one() {
        let most = 7 + (LATER_AT - BAD_AT) as u64 / 64;
        for index in [0, 7, most + 1, 1_000_000, u64::MAX] {
            assert_eq!(judge(2, index), End::Torn, "log index {index}");
        }
    }

    #[test]
    fn a_value_full_of_headers_does_not_keep_the_start_waiting() {
        // Half a mebibyte of headers, each of which claims everything behind it: checksums over 2 GiB in all.
        const HEADERS: usize = 8_192;
        let end = BAD_AT + GROUP + HEADERS * HEADER_LENGTH;
        let mut bytes = vec![1; BAD_AT];
        bytes.resize(BAD_AT + GROUP, 0);
        while bytes.len() < end {
            let mut header = encode(8, 0, 1)[..HEADER_LENGTH].to_vec();
            let claimed = (end - bytes.len() - HEADER_LENGTH) as u32;
            header[48..52].copy_from_slice(&claimed.to_be_bytes());
            header[60..].fill(0);
            bytes.extend(header);
        }
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/f"), Open::CREATE_NEW).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut scanner = Scanner::new(&*file, bytes.len() as u64);
        let end = judge_end(&mut scanner, BAD_AT as u64, EXPECTED, "bad", GROUP).unwrap();
        assert!(matches!(end, End::Damaged(reason) if reason.contains("looks like frames")));
    }

    #[test]
    fn a_later_frame_behind_a_missing_header_is_no_torn_tail() {
        assert!(matches!(judge(0, 8), End::Damaged(reason) if reason.contains("follows")));
        assert_eq!(
            judge(0, u64::MAX),
            End::Torn,
            "but one that cannot follow is none"
        );
    }
}
