//! How frames are found and read: from memory, or from the file of their segment.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::{DiskFile, Open};
use super::frame::{Frame, FramePosition, LogIndex};
use super::log::Inner;
use super::scan::Scanner;
use super::segment::{SEGMENT_HEADER_LENGTH, SPARSE_BYTES, file_path};

/// Segment files kept open at once; sealed ones beyond it are opened again when they are read.
const FILES_OPEN_MAX: usize = 512;
/// How often a read starts over because frames were cut under it.
const READ_ATTEMPTS: usize = 8;

impl Inner {
    /// The open file of a segment, opened for reading if it is not. Unsealed ones are always open.
    pub(crate) fn file(&self, number: u32, first: LogIndex) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.lock().get(&number) {
            return Ok(file.clone());
        }
        let replaced = self.replaced.load(Ordering::Acquire);
        let file = self
            .disk
            .open(&file_path(&self.log_dir, first), Open::READ)?;
        let state = self.state.lock();
        if state.first_of(number) != Some(first) {
            // Another segment took the number meanwhile: this file is good for who asked, and for nobody else.
            return Ok(file);
        }
        let unsealed = state.open.front().map_or(u32::MAX, |open| open.number);
        let mut files = self.files.lock();
        if self.replaced.load(Ordering::Acquire) != replaced {
            // It may be a damaged file that another one has just taken the place of.
            return Ok(file);
        }
        if files.len() >= FILES_OPEN_MAX
            && let Some(oldest) = files
                .keys()
                .next()
                .copied()
                .filter(|oldest| *oldest < unsealed)
        {
            files.remove(&oldest);
        }
        Ok(files.entry(number).or_insert(file).clone())
    }

    pub(crate) fn segment_file(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let first = self.state.lock().first_of(number);
        let Some(first) = first else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no segment {number}"),
            ));
        };
        self.file(number, first)
    }

    /// Reads headers from the closest sparse entry on.
    pub(crate) fn sealed_position(&self, index: LogIndex) -> io::Result<Option<FramePosition>> {
        let Some(run) = self.run_of(index) else {
            return Ok(None);
        };
        let file = self.file(run.number, run.first)?;
        let mut scanner = Scanner::with_read_length(&*file, run.end, run.read_length);
        let mut offset = run.offset;
        while offset < run.end {
            let header = scanner.header(offset)?.map_err(|error| {
                corrupt(format!("segment {} at byte {offset}: {error}", run.number))
            })?;
            let length = header.total_length();
            if header.log_id.index == index {
                let (offset, length) = (offset as u32, length as u32);
                return Ok(Some(FramePosition {
                    segment: run.number,
                    offset,
                    length,
                }));
            }
            offset += length as u64;
        }
        Ok(None)
    }

    /// From where a frame can be read from disk; `None` if it is not there.
    fn run_of(&self, index: LogIndex) -> Option<Run> {
        let state = self.state.lock();
        if let Some(sealed) = state.sealed_segment_of(index) {
            let behind = sealed
                .sparse
                .partition_point(|entry| entry.log_index <= index);
            let entry = behind.checked_sub(1).and_then(|at| sealed.sparse.get(at));
            let start = SEGMENT_HEADER_LENGTH as u32;
            return Some(Run {
                number: sealed.number,
                first: sealed.first_log_index,
                offset: u64::from(entry.map_or(start, |entry| entry.offset)),
                end: sealed.body_length,
                read_length: SPARSE_BYTES as usize,
            });
        }
        if state.flushed.is_none_or(|flushed| flushed.index < index) {
            return None;
        }
        let open = state.open_segment_of(index)?;
        let flushed = state
            .flushed
            .filter(|flushed| flushed.index <= open.last_index());
        let end = flushed
            .and_then(|flushed| open.meta(flushed.index))
            .map(|meta| meta.end());
        let meta = open.meta(index)?;
        Some(Run {
            number: open.number,
            first: open.first,
            offset: u64::from(meta.offset),
            end: u64::from(end.unwrap_or_else(|| open.end())),
            read_length: usize::MAX,
        })
    }

    pub(crate) fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
        cache: bool,
    ) -> io::Result<Vec<Frame>> {
        let mut outcome = Ok(Vec::new());
        for _ in 0..READ_ATTEMPTS {
            let cuts = self.state.lock().cuts();
            outcome = self.read_once(range.clone(), bytes_max, cache);
            // Frames cut and replaced while they were read may look damaged, or be of two histories.
            if self.state.lock().cuts() == cuts {
                break;
            }
        }
        outcome
    }

    fn read_once(
        &self,
        range: Range<u64>,
        bytes_max: usize,
        cache: bool,
    ) -> io::Result<Vec<Frame>> {
        let mut out = Batch {
            frames: Vec::new(),
            bytes: 0,
            bytes_max,
        };
        let mut index = range.start;
        while index < range.end {
            if cache {
                let state = self.state.lock();
                while index < range.end
                    && let Some(cached) = state.cache.get(LogIndex(index))
                {
                    if !out.push(cached.frame.clone()) {
                        return Ok(out.frames);
                    }
                    index += 1;
                }
            }
            if index >= range.end {
                break;
            }
            let Some(run) = self.run_of(LogIndex(index)) else {
                break;
            };
            let file = self.file(run.number, run.first)?;
            let wanted = (bytes_max - out.bytes.min(bytes_max)).min(run.read_length);
            let mut scanner = Scanner::with_read_length(&*file, run.end, wanted);
            let mut offset = run.offset;
            let from = index;
            while index < range.end && offset < run.end {
                let damage =
                    |error| corrupt(format!("segment {} at byte {offset}: {error}", run.number));
                let header = scanner.header(offset)?.map_err(damage)?;
                if header.log_id.index.0 >= index {
                    if header.log_id.index.0 != index {
                        return Err(corrupt(format!(
                            "segment {} at byte {offset}: log index is {}, allowed {index}",
                            run.number, header.log_id.index
                        )));
                    }
                    let parsed = scanner.frame(offset)?.map_err(damage)?;
                    if !out.push(parsed.frame) {
                        return Ok(out.frames);
                    }
                    index += 1;
                    if cache && self.state.lock().cache.get(LogIndex(index)).is_some() {
                        break;
                    }
                }
                offset += header.total_length() as u64;
            }
            if index == from {
                return Err(corrupt(format!(
                    "segment {} has no frame {index}",
                    run.number
                )));
            }
        }
        Ok(out.frames)
    }
}

struct Run {
    number: u32,
    first: LogIndex,
    offset: u64,
    end: u64,
    read_length: usize,
}

struct Batch {
    frames: Vec<Frame>,
    bytes: usize,
    bytes_max: usize,
}

impl Batch {
    /// Takes a frame in unless it would be too much.
    fn push(&mut self, frame: Frame) -> bool {
        let length = frame.length();
        if !self.frames.is_empty() && self.bytes + length > self.bytes_max {
            return false;
        }
        self.bytes += length;
        self.frames.push(frame);
        true
    }
}

/// Bytes that are not what was written.
pub(crate) fn corrupt(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
