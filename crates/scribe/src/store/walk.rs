//! Walking the frames of a segment file from disk, in order, with everything checked that the file alone can say.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::Leaf;

use super::disk::DiskFile;
use super::frame::{
    self, FrameError, FrameHeader, FrameKind, FramePosition, HEADER_LENGTH, ParsedFrame,
};
use super::log::Log;
use super::mend::is_damage;
use super::segment::{SEGMENT_HEADER_LENGTH, SealedSegment, file_name};
use super::view::indexed_key;
use crate::ledger::batch::Batch;

/// Bytes read at once when all frames are wanted.
const WALK_BYTES: u64 = 1 << 20;
/// Bytes read at once when only headers are wanted.
const HEADER_WALK_BYTES: u64 = 8 * 1_024;

/// Whether a frame's leaves are taken into the ledger at `tree_size`, or the frame is void.
///
/// A pure function of the frame and of what is before it: the leader of the frame's own term sequenced it, for exactly
/// this place.
pub fn takes_leaves(
    kind: FrameKind,
    term: u64,
    sequencing_term: u64,
    first_leaf: LeafIndex,
    tree_size: TreeSize,
) -> bool {
    kind == FrameKind::Entries && term == sequencing_term && first_leaf == tree_size.next_index()
}

/// Something on disk is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {offset}: {reason}", path.display())]
pub struct Damage {
    /// The file, relative to the data directory.
    pub path: PathBuf,
    /// Where in the file, as exactly as it is known.
    pub offset: u64,
    /// The rule, the value found, the value allowed.
    pub reason: String,
}

impl Damage {
    /// Damage of `path` at byte `offset`.
    pub(crate) fn new(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            offset,
            reason: reason.into(),
        }
    }
}

/// Why looking at the store's files ended.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The first bad place.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The operating system refused a read: the bytes may be good or bad.
    #[error("cannot read the store: {0}")]
    Io(#[from] io::Error),
}

impl From<CheckError> for io::Error {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Damage(damage) => io::Error::new(io::ErrorKind::InvalidData, damage),
            CheckError::Io(error) => error,
        }
    }
}

/// Where the bytes come from.
enum Source<'a> {
    Log(&'a Log),
    File(&'a Arc<dyn DiskFile>),
}

/// Reads frames one after the other.
pub(crate) struct FrameWalk<'a> {
    source: Source<'a>,
    segment: u32,
    path: PathBuf,
    offset: u64,
    end: u64,
    buffer: Bytes,
    buffer_start: u64,
    buffer_length: u64,
}

impl<'a> FrameWalk<'a> {
    /// Walks from byte `offset` to byte `end` of a segment file, both on frame boundaries.
    pub(crate) fn new(log: &'a Log, segment: u32, path: PathBuf, offset: u64, end: u64) -> Self {
        Self::over(Source::Log(log), segment, path, offset, end)
    }

    /// A walk over all frames of a sealed segment in a file that is not in the log.
    pub(crate) fn staged(
        file: &'a Arc<dyn DiskFile>,
        sealed: &SealedSegment,
        path: PathBuf,
    ) -> Self {
        let start = SEGMENT_HEADER_LENGTH as u64;
        let source = Source::File(file);
        Self::over(source, sealed.number, path, start, sealed.body_length)
    }

    fn over(source: Source<'a>, segment: u32, path: PathBuf, offset: u64, end: u64) -> Self {
        Self {
            source,
            segment,
            path,
            offset,
            end,
            buffer: Bytes::new(),
            buffer_start: offset,
            buffer_length: WALK_BYTES,
        }
    }

    /// The same, reading in small steps: for few frames, or headers only.
    pub(crate) fn small_steps(mut self) -> Self {
        self.buffer_length = HEADER_WALK_BYTES;
        self
    }

    /// The same, reading about `bytes` at once.
    pub(crate) fn steps_of(mut self, bytes: u64) -> Self {
        self.buffer_length = bytes.clamp(HEADER_WALK_BYTES, WALK_BYTES);
        self
    }

    /// A walk over all frames of a sealed segment.
    pub(crate) fn sealed(log: &'a Log, sealed: &SealedSegment) -> Self {
        Self::new(
            log,
            sealed.number,
            sealed_path(sealed),
            SEGMENT_HEADER_LENGTH as u64,
            sealed.body_length,
        )
    }

    /// The next frame with its position and its bytes as they lie on disk; `None` at the end.
    pub(crate) fn next_frame(
        &mut self,
    ) -> Result<Option<(FramePosition, ParsedFrame, Bytes)>, CheckError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let mut bytes = self.bytes_here(HEADER_LENGTH as u64)?;
        let parsed = match frame::parse(&bytes) {
            Err(FrameError::Short { needed, .. }) if needed <= self.end - self.offset => {
                bytes = self.bytes_here(needed)?;
                frame::parse(&bytes)
            }
            other => other,
        };
        let parsed = parsed.map_err(|error| self.damage(error.to_string()))?;
        let position = self.position(parsed.length);
        let raw = bytes.slice(..parsed.length);
        self.offset += parsed.length as u64;
        Ok(Some((position, parsed, raw)))
    }

    /// The next header only, without any CRC being checked; `None` at the end.
    pub(crate) fn next_header(
        &mut self,
    ) -> Result<Option<(FramePosition, FrameHeader)>, CheckError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let bytes = self.bytes_here(HEADER_LENGTH as u64)?;
        let header = FrameHeader::parse(&bytes).map_err(|error| self.damage(error.to_string()))?;
        let length = header.total_length();
        if length as u64 > self.end - self.offset {
            let left = self.end - self.offset;
            let reason = format!("frame needs {length} bytes, {left} are left");
            return Err(self.damage(reason).into());
        }
        let position = self.position(length);
        self.offset += length as u64;
        Ok(Some((position, header)))
    }

    /// The next header and public part, their chain CRC checked; private parts are passed over. `None` at the end.
    pub(crate) fn next_public(&mut self) -> Result<Option<(FrameHeader, Bytes)>, CheckError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let bytes = self.bytes_here(HEADER_LENGTH as u64)?;
        let header = FrameHeader::parse(&bytes).map_err(|error| self.damage(error.to_string()))?;
        let length = header.total_length() as u64;
        let left = self.end - self.offset;
        if length > left {
            let reason = format!("frame needs {length} bytes, {left} are left");
            return Err(self.damage(reason).into());
        }
        let public_end = header.private_start();
        let bytes = self.bytes_here(public_end as u64)?.slice(..public_end);
        frame::check_chain(&header, &bytes).map_err(|error| self.damage(error.to_string()))?;
        self.offset += length;
        Ok(Some((header, bytes.slice(HEADER_LENGTH..))))
    }

    fn read(&self, length: u64) -> Result<Bytes, CheckError> {
        let file = match self.source {
            Source::Log(log) => log.segment_file(self.segment)?,
            Source::File(file) => file.clone(),
        };
        if file.len()? < self.offset + length {
            return Err(self.damage("the file ends before its frames do").into());
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes.into())
    }

    /// Has a segment of the log examined in which something is not right.
    fn suspect(&self) {
        if let Source::Log(log) = self.source {
            log.suspects().add(self.segment);
        }
    }

    fn position(&self, length: usize) -> FramePosition {
        FramePosition {
            segment: self.segment,
            offset: self.offset as u32,
            length: length as u32,
        }
    }

    /// At least `needed` bytes from the current offset on, fewer only at the end of the walk.
    fn bytes_here(&mut self, needed: u64) -> Result<Bytes, CheckError> {
        let left = self.end - self.offset;
        let needed = needed.min(left);
        let buffer_end = self.buffer_start + self.buffer.len() as u64;
        if self.offset < self.buffer_start || self.offset + needed > buffer_end {
            let length = needed.max(self.buffer_length).min(left);
            // From the file itself, never from memory: what is checked here is the disk.
            self.buffer = self.read(length).inspect_err(|error| match error {
                CheckError::Io(error) if is_damage(error) => self.suspect(),
                _ => {}
            })?;
            self.buffer_start = self.offset;
        }
        let start = (self.offset - self.buffer_start) as usize;
        Ok(self.buffer.slice(start..))
    }

    pub(crate) fn damage(&self, reason: impl Into<String>) -> Damage {
        self.suspect();
        Damage {
            path: self.path.clone(),
            offset: self.offset,
            reason: reason.into(),
        }
    }
}

/// The file of a sealed segment, relative to the data directory.
pub(crate) fn sealed_path(sealed: &SealedSegment) -> PathBuf {
    PathBuf::from("log").join(file_name(sealed.first_log_index))
}

/// One frame of a segment whose place in the ledger is known.
pub(crate) struct PlacedFrame<'a> {
    pub position: FramePosition,
    pub raw: &'a Bytes,
    pub tree_size: TreeSize,
    /// Its entries, unless it has none or is void.
    pub batch: Option<Batch>,
}

impl PlacedFrame<'_> {
    /// Each leaf with its slot, index and parsed form.
    pub(crate) fn for_each_leaf(
        &self,
        path: &std::path::Path,
        mut visit: impl FnMut(u16, LeafIndex, &Bytes, &Leaf<'_>) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        for slot in 0..batch.count() {
            let index = self.tree_size.grown_by(slot as u64).next_index();
            let leaf = batch.leaf(slot).unwrap_or_default();
            let parsed = Leaf::parse(&leaf).map_err(|error| Damage {
                path: path.to_owned(),
                offset: u64::from(self.position.offset),
                reason: format!("leaf {}: {error}", index.get()),
            })?;
            visit(slot as u16, index, &leaf, &parsed)?;
        }
        Ok(())
    }
}

/// Follows a chain of frames: log indexes without a gap, each chained to the one before, tree size known.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub tree_size: TreeSize,
    /// Chain CRC and log index of the frame before (wrapping: 2^64-1 before index 0); `None` where they are not known.
    pub previous: Option<(u32, u64)>,
}

impl Place {
    /// Checks that a frame belongs here, and moves on behind it.
    pub(crate) fn step<'a>(
        &mut self,
        walk: &FrameWalk<'_>,
        position: FramePosition,
        parsed: &ParsedFrame,
        raw: &'a Bytes,
    ) -> Result<PlacedFrame<'a>, Damage> {
        let frame = &parsed.frame;
        let here = |reason: String| {
            walk.suspect();
            Damage {
                path: walk.path.clone(),
                offset: u64::from(position.offset),
                reason,
            }
        };
        if let Some((chain, index)) = self.previous {
            if parsed.previous_chain != chain {
                return Err(here(format!(
                    "previous chain CRC is {:08x}, the frame before has {chain:08x}",
                    parsed.previous_chain
                )));
            }
            if frame.log_id.index.0 != index.wrapping_add(1) {
                return Err(here(format!(
                    "log index is {}, the frame before has {index}",
                    frame.log_id.index
                )));
            }
        }
        self.previous = Some((parsed.chain, frame.log_id.index.0));
        let tree_size = self.tree_size;
        let takes_leaves = takes_leaves(
            frame.kind,
            frame.log_id.term,
            frame.sequencing_term,
            frame.first_leaf,
            tree_size,
        );
        let batch = if takes_leaves && frame.count > 0 {
            let batch = Batch::parse(
                frame.count as usize,
                frame.public.clone(),
                frame.private.clone(),
            );
            let batch = batch.map_err(|error| here(error.to_string()))?;
            self.tree_size = tree_size.grown_by(u64::from(frame.count));
            Some(batch)
        } else {
            None
        };
        Ok(PlacedFrame {
            position,
            raw,
            tree_size,
            batch,
        })
    }
}

/// The key a parsed leaf is indexed under.
pub(crate) fn key_of<'a>(leaf: &Leaf<'a>) -> &'a [u8] {
    indexed_key(leaf.kind, leaf.key)
}
