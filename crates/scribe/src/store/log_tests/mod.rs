//! The log on both disks: what it promises, and that it keeps it when the disk does not.

mod crash;
mod faults;
mod plain;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};

use super::disk::Disk;
use super::error::StoreError;
use super::frame::{Frame, FrameKind, LogId, LogIndex, Vote};
use super::log::{Flushed, Log, LogIdentity, LogOptions, RecoveredLog};
use super::manifest::ManifestRecord;
use super::segment::{FooterState, SealedSegment};

const DIR: &str = "/data";
const ID: LogIdentity = LogIdentity {
    cluster_id: [0xc1; 16],
    node_id: 1,
};

/// Segments of a few frames, groups of one or two.
fn small(preallocate: bool) -> LogOptions {
    LogOptions {
        segment_bytes_max: 4_096,
        segment_leaves_max: 64,
        group_bytes_max: 2_048,
        cache_bytes: 3_000,
        preallocate,
    }
}

fn open(disk: &impl ToDisk, options: LogOptions) -> Result<(Log, RecoveredLog), StoreError> {
    Log::open(disk.to_disk(), Path::new(DIR), ID, options)
}

trait ToDisk {
    fn to_disk(&self) -> Arc<dyn Disk>;
}

impl<D: Disk + Clone + 'static> ToDisk for D {
    fn to_disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

/// An outcome to be waited for.
struct Waiting(mpsc::Receiver<io::Result<()>>);

impl Waiting {
    fn new() -> (Flushed, Self) {
        let (sender, receiver) = mpsc::channel();
        let done = Flushed::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        (done, Self(receiver))
    }

    fn wait(self) -> io::Result<()> {
        self.0.recv().expect("every callback is called")
    }
}

fn append(log: &Log, frames: Vec<Frame>) -> io::Result<()> {
    let (done, waiting) = Waiting::new();
    let _ = log.append(frames, done);
    waiting.wait()
}

fn truncate(log: &Log, keep: Option<LogId>) -> io::Result<()> {
    let (done, waiting) = Waiting::new();
    let _ = log.truncate_after(keep, done);
    waiting.wait()
}

fn save_vote(log: &Log, vote: Vote) -> io::Result<()> {
    let (done, waiting) = Waiting::new();
    let _ = log.save_vote(vote, done);
    waiting.wait()
}

fn vote(term: u64) -> Vote {
    Vote {
        term,
        node_id: 2,
        committed: false,
    }
}

fn read_all(log: &Log) -> Vec<Frame> {
    try_read_all(log).expect("what was recovered can be read")
}

fn try_read_all(log: &Log) -> Result<Vec<Frame>, String> {
    let end = log.last().map_or(0, |last| last.index.0 + 1);
    let frames = log
        .read(0..end, usize::MAX)
        .map_err(|error| error.to_string())?;
    if frames.len() as u64 != end {
        return Err(format!("the log has a hole at {}", frames.len()));
    }
    Ok(frames)
}

/// Makes frames whose bytes depend on their place and term only, and never have a run of zeros as long as a sector.
fn frame(term: u64, index: u64, private_length: usize) -> Frame {
    let byte = |i: usize| (i as u64 * 31 + index * 7 + term * 13) as u8 | 1;
    Frame {
        log_id: LogId::new(term, index),
        kind: FrameKind::Entries,
        sequencing_term: term,
        first_leaf: LeafIndex::new(index * 2),
        count: 2,
        public: (0..40).map(byte).collect::<Vec<u8>>().into(),
        private: (0..private_length).map(byte).collect::<Vec<u8>>().into(),
    }
}

/// The state around the oldest unsealed segment, if it is full.
fn next_footer(log: &Log) -> Option<(u32, FooterState)> {
    let sealed = log.sealed();
    let number = sealed.last().map_or(0, |last| last.number + 1);
    let first = sealed.last().map_or(0, |last| last.last_log_id.index.0 + 1);
    let start = first * 2;
    let mut last = None;
    for index in first.. {
        match log.position(LogIndex(index)) {
            Some(position) if position.segment == number => last = Some(index),
            Some(_) => break,
            None => return None,
        }
    }
    let last_log_id = log.read(last?..last? + 1, 1).ok()?.first()?.log_id;
    let end = (last? + 1) * 2;
    let state = FooterState {
        start_size: TreeSize::new(start),
        start_root: Hash([start as u8; 32]),
        end_size: TreeSize::new(end),
        end_root: Hash([end as u8; 32]),
        last_log_id,
        membership: Bytes::from_static(b"members"),
        last_timestamp_ms: end,
        published: (TreeSize::new(start), Hash([start as u8; 32])),
    };
    Some((number, state))
}

/// Seals the oldest unsealed segment, if it is full.
fn seal_next(log: &Log) -> io::Result<Option<SealedSegment>> {
    let Some((number, footer)) = next_footer(log) else {
        return Ok(None);
    };
    let sealed = log.seal_segment(number, footer)?;
    log.manifest_append(ManifestRecord::Sealed(Box::new(sealed.clone())))?;
    Ok(Some(sealed))
}
