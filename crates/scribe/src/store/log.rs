//! The Raft log that is the ledger (signatures first).
#![allow(unused_variables)]

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::error::StoreError;
use super::frame::{Frame, FramePosition, LogId, LogIndex, Vote};
use super::manifest::ManifestRecord;
use super::segment::{FooterState, SealedSegment};
use crate::limits;

/// Whose data this is; written into the vote file, checked at every open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// Chosen once for the cluster.
    pub cluster_id: [u8; 16],
    /// This node; never reused.
    pub node_id: u64,
}

/// Sizes of a log. Every node of a cluster must use the same segment limits: they decide where segments end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes after which a segment is full.
    pub segment_bytes_max: u64,
    /// Leaves after which a segment is full.
    pub segment_leaves_max: u64,
    /// Bytes one synced group may have; a longer frame is a group of its own.
    pub group_bytes_max: usize,
    /// Bytes of frames kept in memory.
    pub cache_bytes: usize,
    /// Whether a background thread allocates the next segment ahead.
    pub preallocate: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes_max: limits::SEGMENT_BYTES_MAX,
            segment_leaves_max: limits::SEGMENT_LEAVES_MAX,
            group_bytes_max: limits::SYNC_GROUP_BYTES_MAX,
            cache_bytes: limits::FRAME_CACHE_BYTES,
            preallocate: true,
        }
    }
}

/// Told once when something is on disk, or that it will never be known to be.
pub struct Flushed(Option<Box<dyn FnOnce(io::Result<()>) + Send>>);

impl Flushed {
    /// Calls `f` with the outcome.
    pub fn new(f: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Self(Some(Box::new(f)))
    }

    /// Nobody waits.
    pub fn ignore() -> Self {
        Self(None)
    }

    /// Reports the outcome.
    pub fn complete(mut self, outcome: io::Result<()>) {
        if let Some(f) = self.0.take() {
            f(outcome);
        }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f(Err(io::Error::other(
                "the store stopped before the write was known to be on disk",
            )));
        }
    }
}

impl std::fmt::Debug for Flushed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flushed")
    }
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct RecoveredLog {
    /// Sealed segments, oldest first.
    pub sealed: Arc<Vec<SealedSegment>>,
    /// Log index of the first frame behind the sealed segments (where the next frame goes if there is none).
    pub first_unsealed: LogIndex,
    /// Last frame of the log.
    pub last: Option<LogId>,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Sealed segments whose file is missing or whose footer cannot be read.
    pub sealed_damage: Vec<SealedDamage>,
    /// Things an operator may want to know.
    pub warnings: Vec<String>,
}

/// A sealed segment that has to be fetched again by hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedDamage {
    /// Segment number.
    pub segment: u32,
    /// What was found.
    pub reason: String,
}

/// Where the next frame would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTail {
    /// Number of the last segment.
    pub segment: u32,
    /// End of its last frame, bytes; 0 if there is no segment yet.
    pub offset: u32,
    /// Last frame of the log.
    pub last: Option<LogId>,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes written to segment files.
    pub bytes_written: u64,
    /// Frames written.
    pub frames_written: u64,
    /// Syncs of segment files on the write path.
    pub syncs: u64,
    /// Time spent in them, microseconds.
    pub sync_us_total: u64,
    /// Syncs by duration: bucket `i` counts those of less than 2^i microseconds not in a bucket before.
    pub sync_us_buckets: [u64; 32],
}

/// The Raft log of this node. Clone = another handle to the same log.
#[derive(Debug, Clone)]
pub struct Log {}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Log {
    /// Opens or creates the log in `dir`, cuts a torn tail, refuses anything else that is damaged.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: LogIdentity,
        options: LogOptions,
    ) -> Result<(Log, RecoveredLog), StoreError> {
        Err(StoreError::Poisoned {
            first: "not built yet".into(),
        })
    }
    /// Appends consecutive frames behind the last one.
    pub fn append(&self, frames: Vec<Frame>, done: Flushed) -> io::Result<()> {
        unsupported()
    }
    /// Drops everything behind `keep`.
    pub fn truncate_after(&self, keep: Option<LogId>, done: Flushed) -> io::Result<()> {
        unsupported()
    }
    /// Saves a vote.
    pub fn save_vote(&self, vote: Vote, done: Flushed) -> io::Result<()> {
        unsupported()
    }
    /// Last vote.
    pub fn vote(&self) -> Option<Vote> {
        None
    }
    /// Advisory committed id.
    pub fn save_committed(&self, id: Option<LogId>) {}
    /// Advisory committed id.
    pub fn committed(&self) -> Option<LogId> {
        None
    }
    /// Moves the purge watermark.
    pub fn purge(&self, id: LogId) -> io::Result<()> {
        unsupported()
    }
    /// Purge watermark.
    pub fn purged(&self) -> Option<LogId> {
        None
    }
    /// Last frame.
    pub fn last(&self) -> Option<LogId> {
        None
    }
    /// Last durable frame.
    pub fn flushed(&self) -> Option<LogId> {
        None
    }
    /// Frames of a range of log indexes.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Frame>> {
        unsupported()
    }
    /// Where a frame lies.
    pub fn position(&self, index: LogIndex) -> Option<FramePosition> {
        None
    }
    /// The frame at a position.
    pub fn frame_at(&self, position: FramePosition) -> io::Result<Frame> {
        unsupported()
    }
    /// Bytes of a segment file.
    pub fn read_raw(&self, segment: u32, offset: u32, length: u32) -> io::Result<Bytes> {
        unsupported()
    }
    /// Where the next frame would go.
    pub fn tail(&self) -> LogTail {
        LogTail {
            segment: 0,
            offset: 0,
            last: None,
        }
    }
    /// Sealed segments.
    pub fn sealed(&self) -> Arc<Vec<SealedSegment>> {
        Arc::default()
    }
    /// Seals a segment.
    pub fn seal_segment(&self, segment: u32, footer: FooterState) -> io::Result<SealedSegment> {
        unsupported()
    }
    /// Appends to the MANIFEST and syncs it.
    pub fn manifest_append(&self, record: ManifestRecord) -> io::Result<()> {
        unsupported()
    }
    /// Free bytes of the disk.
    pub fn free_bytes(&self) -> u64 {
        0
    }
    /// First error, if the store is poisoned.
    pub fn poisoned(&self) -> Option<String> {
        None
    }
    /// Stops the threads.
    pub fn shutdown(&self) {}
    /// Counters.
    pub fn stats(&self) -> LogStats {
        LogStats::default()
    }
}
