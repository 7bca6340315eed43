//! What the log knows in memory: where each frame of the unsealed segments lies, the newest frames themselves, and how
//! far everything is. No I/O happens here, and the lock around it is never held over any.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::frame::{
    Frame, FramePosition, HEADER_LENGTH, LogId, LogIndex, Vote, encode_header_with,
};
use super::log::LogOptions;
use super::segment::{SEGMENT_HEADER_LENGTH, SealedSegment, SegmentHeader};

/// A frame of an unsealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameMeta {
    pub(crate) term: u64,
    pub(crate) chain: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) count: u32,
}

impl FrameMeta {
    pub(crate) fn end(&self) -> u32 {
        self.offset + self.length
    }
}

/// A segment that is not sealed.
///
/// Invariants: frames are consecutive in log index and in offset, the first at [`SEGMENT_HEADER_LENGTH`]; there is at
/// least one.
#[derive(Debug, Clone)]
pub(crate) struct OpenSegment {
    pub(crate) number: u32,
    pub(crate) first: LogIndex,
    pub(crate) previous_chain: u32,
    pub(crate) frames: Vec<FrameMeta>,
    /// Sum of the frames' counts.
    pub(crate) leaves: u64,
}

impl OpenSegment {
    pub(crate) fn new(header: &SegmentHeader) -> Self {
        Self {
            number: header.number,
            first: header.first_log_index,
            previous_chain: header.previous_chain,
            frames: Vec::new(),
            leaves: 0,
        }
    }

    pub(crate) fn push(&mut self, meta: FrameMeta) {
        self.leaves += u64::from(meta.count);
        self.frames.push(meta);
    }

    /// End of the last frame.
    pub(crate) fn end(&self) -> u32 {
        self.frames
            .last()
            .map_or(SEGMENT_HEADER_LENGTH as u32, FrameMeta::end)
    }

    pub(crate) fn meta(&self, index: LogIndex) -> Option<&FrameMeta> {
        self.frames
            .get(usize::try_from(index.0.checked_sub(self.first.0)?).ok()?)
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.first.0 + self.frames.len().saturating_sub(1) as u64)
    }

    /// The frame whose bytes include `offset`.
    pub(crate) fn index_at(&self, offset: u32) -> Option<LogIndex> {
        let behind = self.frames.partition_point(|meta| meta.offset <= offset);
        let at = behind.checked_sub(1)?;
        (offset < self.frames[at].end()).then(|| LogIndex(self.first.0 + at as u64))
    }
}

/// A frame with its header as it is on disk or will be.
#[derive(Debug, Clone)]
pub(crate) struct CachedFrame {
    pub(crate) frame: Frame,
    pub(crate) header: [u8; HEADER_LENGTH],
}

impl CachedFrame {
    /// Part of the frame's bytes, `None` beyond its end.
    pub(crate) fn slice(&self, start: usize, length: usize, out: &mut Vec<u8>) -> Option<()> {
        let end = start.checked_add(length)?;
        if end > self.frame.length() {
            return None;
        }
        let wanted = out.len() + length;
        let mut base = 0;
        for part in [&self.header[..], &self.frame.public, &self.frame.private] {
            let from = start.clamp(base, base + part.len()) - base;
            let to = end.clamp(base, base + part.len()) - base;
            out.extend_from_slice(&part[from..to]);
            base += part.len();
        }
        out.resize(wanted, 0); // padding
        Some(())
    }
}

/// The newest frames, consecutive up to the last of the log.
///
/// Invariant: every frame that is not yet flushed is here, for it can be read from nowhere else.
#[derive(Debug, Default)]
pub(crate) struct FrameCache {
    frames: VecDeque<CachedFrame>,
    bytes: usize,
}

impl FrameCache {
    pub(crate) fn get(&self, index: LogIndex) -> Option<&CachedFrame> {
        let first = self.frames.front()?.frame.log_id.index;
        self.frames
            .get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    fn push(&mut self, frame: CachedFrame) {
        self.bytes += frame.frame.length();
        self.frames.push_back(frame);
    }

    /// Forgets the oldest frames beyond `bytes_max`, as far as they are flushed.
    pub(crate) fn shrink(&mut self, bytes_max: usize, flushed: Option<LogId>) {
        while self.bytes > bytes_max
            && let Some(first) = self.frames.front()
            && flushed.is_some_and(|flushed| first.frame.log_id.index <= flushed.index)
        {
            self.bytes -= first.frame.length();
            self.frames.pop_front();
        }
    }

    fn cut(&mut self, keep: Option<LogId>) {
        while let Some(last) = self.frames.back()
            && keep.is_none_or(|keep| last.frame.log_id.index > keep.index)
        {
            self.bytes -= last.frame.length();
            self.frames.pop_back();
        }
    }
}

/// A frame with its place, on its way to the disk.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) frame: Frame,
    pub(crate) header: [u8; HEADER_LENGTH],
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// The frame opens its segment.
    pub(crate) starts: Option<SegmentHeader>,
}

/// Where the next frame goes. A copy is advanced while frames are encoded outside the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) last: Option<LogId>,
    pub(crate) chain: u32,
    /// Number of the last segment, sealed or not; `None` in an empty log.
    pub(crate) segment: Option<u32>,
    /// End of the last frame in it; `None` if nothing may be added to it.
    room: Option<(u32, u64)>,
}

impl Cursor {
    /// Places the next frame. Where it goes depends on the frames of the log and on nothing else.
    pub(crate) fn place(
        &mut self,
        frame: Frame,
        private_crc: u32,
        options: &LogOptions,
        cluster_id: [u8; 16],
    ) -> Placed {
        let length = frame.length() as u64;
        let count = u64::from(frame.count);
        let (header, chain) = encode_header_with(&frame, self.chain, private_crc);
        let fits = self.room.filter(|(offset, leaves)| {
            u64::from(*offset) + length <= options.segment_bytes_max
                && leaves + count <= options.segment_leaves_max
        });
        let number = match (self.segment, fits) {
            (None, _) => 0,
            (Some(number), Some(_)) => number,
            (Some(number), None) => number + 1,
        };
        let starts = fits.is_none().then_some(SegmentHeader {
            number,
            first_log_index: frame.log_id.index,
            cluster_id,
            previous_chain: self.chain,
        });
        let (offset, leaves) = fits.unwrap_or((SEGMENT_HEADER_LENGTH as u32, 0));
        self.last = Some(frame.log_id);
        self.chain = chain;
        self.segment = Some(number);
        self.room = Some((offset + length as u32, leaves + count));
        Placed {
            frame,
            header,
            segment: number,
            offset,
            starts,
        }
    }
}

/// Frames to be cut from the files, last to first.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// Segments to remove, oldest first.
    pub(crate) remove: Vec<(u32, LogIndex)>,
    /// In the segment that stays: where each dropped frame starts, and where the last one ends.
    pub(crate) zero: Option<(u32, Vec<u32>, u32)>,
    /// Number and first log index of the segment that is the last one then, if it is not sealed.
    pub(crate) tail: Option<(u32, LogIndex)>,
}

/// Everything the log knows in memory.
#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) sealed: Arc<Vec<SealedSegment>>,
    pub(crate) open: VecDeque<OpenSegment>,
    pub(crate) last: Option<LogId>,
    pub(crate) chain: u32,
    pub(crate) flushed: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) vote: Option<Vote>,
    /// End of the newest sealed segment with a frame that could not be read as a log entry.
    pub(crate) unreadable: Option<LogId>,
    pub(crate) cache: FrameCache,
    /// What each cut keeps that is enqueued and not yet done: appends before it must not raise `flushed` beyond.
    pending_cuts: VecDeque<Option<LogId>>,
    cuts: u64,
}

impl LogState {
    pub(crate) fn new(
        sealed: Vec<SealedSegment>,
        open: VecDeque<OpenSegment>,
        last: Option<LogId>,
        chain: u32,
    ) -> Self {
        Self {
            sealed: Arc::new(sealed),
            open,
            last,
            chain,
            flushed: last,
            committed: None,
            purged: None,
            vote: None,
            unreadable: None,
            cache: FrameCache::default(),
            pending_cuts: VecDeque::new(),
            cuts: 0,
        }
    }

    pub(crate) fn cursor(&self) -> Cursor {
        let open = self.open.back();
        Cursor {
            last: self.last,
            chain: self.chain,
            segment: open
                .map(|open| open.number)
                .or(self.sealed.last().map(|s| s.number)),
            room: open.map(|open| (open.end(), open.leaves)),
        }
    }

    /// Takes placed frames up: they can be read from now on.
    pub(crate) fn commit(&mut self, placed: &[Placed], cursor: &Cursor) {
        for item in placed {
            if let Some(header) = &item.starts {
                self.open.push_back(OpenSegment::new(header));
            }
            let [a, b, c, d, ..] = item.header;
            if let Some(open) = self.open.back_mut() {
                open.push(FrameMeta {
                    term: item.frame.log_id.term,
                    chain: u32::from_be_bytes([a, b, c, d]),
                    offset: item.offset,
                    length: item.frame.length() as u32,
                    count: item.frame.count,
                });
            }
            self.cache.push(CachedFrame {
                frame: item.frame.clone(),
                header: item.header,
            });
        }
        self.last = cursor.last;
        self.chain = cursor.chain;
    }

    pub(crate) fn open_segment(&self, number: u32) -> Option<&OpenSegment> {
        let first = self.open.front()?.number;
        self.open.get(number.checked_sub(first)? as usize)
    }

    pub(crate) fn open_segment_of(&self, index: LogIndex) -> Option<&OpenSegment> {
        let behind = self.open.partition_point(|open| open.first <= index);
        self.open
            .get(behind.checked_sub(1)?)
            .filter(|open| index <= open.last_index())
    }

    pub(crate) fn sealed_segment_of(&self, index: LogIndex) -> Option<&SealedSegment> {
        let at = self
            .sealed
            .partition_point(|sealed| sealed.last_log_id.index < index);
        self.sealed.get(at).filter(|sealed| sealed.contains(index))
    }

    pub(crate) fn sealed_segment(&self, number: u32) -> Option<&SealedSegment> {
        let first = self.sealed.first()?.number;
        self.sealed.get(number.checked_sub(first)? as usize)
    }

    pub(crate) fn position(&self, index: LogIndex) -> Option<FramePosition> {
        let open = self.open_segment_of(index)?;
        let meta = open.meta(index)?;
        Some(FramePosition {
            segment: open.number,
            offset: meta.offset,
            length: meta.length,
        })
    }

    /// Drops the frames behind `keep` from memory and says what has to be cut from the files.
    pub(crate) fn cut(&mut self, keep: Option<LogId>) -> io::Result<Cut> {
        let sealed_last = self.sealed.last().map(|sealed| sealed.last_log_id);
        if keep.map(|keep| keep.index) < sealed_last.map(|last| last.index) {
            return Err(invalid(format!(
                "log is cut behind {}, allowed {} and later, which is sealed",
                show(keep),
                show(sealed_last)
            )));
        }
        let chain = match keep {
            None => 0,
            Some(keep) => {
                let kept = match self.sealed.last() {
                    Some(last) if last.last_log_id.index == keep.index => {
                        Some((last.last_log_id.term, last.last_chain))
                    }
                    _ => {
                        let meta = self
                            .open_segment_of(keep.index)
                            .and_then(|o| o.meta(keep.index));
                        meta.map(|meta| (meta.term, meta.chain))
                    }
                };
                match kept {
                    Some((term, chain)) if term == keep.term => chain,
                    _ => {
                        return Err(invalid(format!(
                            "log is cut behind {keep}, which it does not have"
                        )));
                    }
                }
            }
        };
        let mut cut = Cut::default();
        while let Some(open) = self.open.back_mut() {
            if keep.is_none_or(|keep| open.first > keep.index) {
                cut.remove.insert(0, (open.number, open.first));
                self.open.pop_back();
                continue;
            }
            let kept = keep.map_or(0, |keep| keep.index.0 + 1 - open.first.0) as usize;
            let end = open.end();
            let dropped = open.frames.split_off(kept);
            open.leaves -= dropped
                .iter()
                .map(|meta| u64::from(meta.count))
                .sum::<u64>();
            if !dropped.is_empty() {
                let starts = dropped.iter().map(|meta| meta.offset).collect();
                cut.zero = Some((open.number, starts, end));
            }
            break;
        }
        cut.tail = self.open.back().map(|open| (open.number, open.first));
        self.cache.cut(keep);
        self.last = keep;
        self.chain = chain;
        self.flushed = at_most(self.flushed, keep);
        self.committed = at_most(self.committed, keep);
        self.pending_cuts.push_back(keep);
        self.cuts += 1;
        Ok(cut)
    }

    /// Sealed segments from another node are on disk in the place of everything that was not sealed.
    pub(crate) fn install(&mut self, segments: Vec<SealedSegment>) {
        let Some(last) = segments.last() else {
            return;
        };
        let (last, chain) = (last.last_log_id, last.last_chain);
        Arc::make_mut(&mut self.sealed).extend(segments);
        self.open.clear();
        self.cache.cut(None);
        self.last = Some(last);
        self.chain = chain;
        self.flushed = Some(last);
        self.committed = Some(last);
        // What was asked for before is done or superseded, and nothing was asked for since.
        self.pending_cuts.clear();
        self.cuts += 1;
    }

    /// The log id at an index of an unsealed frame, or of the last sealed one.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        if let Some(last) = self.sealed.last()
            && last.last_log_id.index == index
        {
            return Some(last.last_log_id);
        }
        let term = self.open_segment_of(index)?.meta(index)?.term;
        Some(LogId { term, index })
    }

    /// First log index of a segment.
    pub(crate) fn first_of(&self, number: u32) -> Option<LogIndex> {
        let open = self.open_segment(number).map(|open| open.first);
        let sealed = || {
            self.sealed_segment(number)
                .map(|sealed| sealed.first_log_index)
        };
        open.or_else(sealed)
    }

    /// How often frames were cut: what was read from disk meanwhile may be of two histories.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// The frames up to `last` are on disk. Appends and cuts finish in the order they were asked for.
    pub(crate) fn appended(&mut self, last: Option<LogId>, options: &LogOptions) {
        self.flushed = self
            .pending_cuts
            .iter()
            .fold(last, |id, keep| at_most(id, *keep));
        self.cache.shrink(options.cache_bytes, self.flushed);
    }

    /// The oldest pending cut is done.
    pub(crate) fn cut_done(&mut self) {
        self.pending_cuts.pop_front();
    }
}

/// The smaller of two places in a log; `None` is before the first.
pub(crate) fn at_most(id: Option<LogId>, limit: Option<LogId>) -> Option<LogId> {
    match (id, limit) {
        (Some(id), Some(limit)) if id.index <= limit.index => Some(id),
        (Some(_), Some(limit)) => Some(limit),
        _ => None,
    }
}

/// A log id for a message.
pub(crate) fn show(id: Option<LogId>) -> String {
    id.map_or_else(|| "the start".to_owned(), |id| id.to_string())
}

/// A call that breaks a rule of the log; nothing was changed.
pub(crate) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
