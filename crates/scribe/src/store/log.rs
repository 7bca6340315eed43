//! The Raft log that is the ledger: the public face of `log/`, `vote`, `watermarks` and `MANIFEST`.
//!
//! A call that writes puts what it wants into a queue and returns; the writer thread (`writer.rs`) carries it out
//! in order and then calls back. What was appended can be read at once. Where a frame lies is decided when it is
//! appended and depends on the frames of the log alone, so that sealed segments are the same on every node.
//!
//! The first failed write or sync ends the store: every later call fails with that first error. A sync that failed
//! once may report success the next time without having written anything, so nothing is ever retried.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};
use super::error::StoreError;
use super::frame::{
    self, FRAME_LENGTH_MAX, Frame, FramePosition, LogId, LogIndex, Vote, private_crc,
};
use super::lock::DirLock;
use super::manifest::{ManifestFile, ManifestRecord};
use super::mend::Suspects;
use super::next_segment::NextSegment;
use super::reading::corrupt;
use super::recovery::{LOG_DIR, Recovered, recover};
use super::restore::{Loss, RestoreRule};
use super::segment::{FooterState, SealedSegment};
use super::state::{Cut, LogState, at_most, invalid, show};
use super::threads::Threads;
use super::worker::Condition;
use super::writer::{Counters, Item, Queue, Writer, poisoned};
use crate::limits;

/// Offsets in a segment are 32-bit numbers, and one frame may begin right below the limit.
const SEGMENT_BYTES_CEILING: u64 = 1 << 31;

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
    /// Bytes one synced group may have; a longer frame is a group of its own. Recovery takes at most this much for a
    /// torn tail, so it must never be lowered below what the files were written with.
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
    /// Where acknowledged frames were damaged, and the log was cut to be restored from others.
    pub lost: Option<String>,
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

/// The Raft log of this node. Clone = another handle to the same log; the last one to go stops the threads.
#[derive(Debug, Clone)]
pub struct Log {
    pub(super) inner: Arc<Inner>,
    threads: Arc<Threads>,
}

/// What the handles, the writer and the thread that allocates ahead share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) identity: LogIdentity,
    pub(crate) options: LogOptions,
    /// Held while something is given its place in the order of writes. Taken before `state` and `queue`.
    pub(super) order: Mutex<Order>,
    pub(crate) state: Mutex<LogState>,
    pub(crate) flushed_changed: Condition,
    pub(crate) queue: Queue,
    pub(crate) files: Mutex<BTreeMap<u32, Arc<dyn DiskFile>>>,
    /// How often a sealed file was replaced by another one; changed with `files` locked.
    pub(crate) replaced: AtomicU64,
    pub(crate) suspects: Suspects,
    /// Used by whoever seals or installs, one at a time, and locked over its own I/O.
    pub(super) manifest: Mutex<ManifestFile>,
    pub(crate) next: Option<NextSegment>,
    pub(crate) counters: Counters,
    pub(super) lock: Mutex<Option<DirLock>>,
}

#[derive(Debug)]
pub(super) struct Order {
    /// Term of the last vote enqueued.
    vote_term: u64,
    /// Where the segments end that wait in `incoming/` to be installed, all of them verified.
    pub(super) staged: Option<LogId>,
    /// Cuts that were made in memory and not asked of the writer yet: see [`Log::truncate_after`].
    pub(super) deferred: Vec<Cut>,
}

impl Log {
    /// Opens or creates the log in `dir`, cuts a torn tail, and refuses to open what it cannot vouch for.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::OtherCluster`], [`StoreError::OtherNode`], [`StoreError::NewerFormat`],
    /// [`StoreError::Damaged`], or what the operating system says.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: LogIdentity,
        mut options: LogOptions,
    ) -> Result<(Self, RecoveredLog), StoreError> {
        options.segment_bytes_max = options.segment_bytes_max.min(SEGMENT_BYTES_CEILING);
        let recovered = recover(&disk, dir, Some(identity), &options, Loss::Refuse)?;
        Self::start(disk, dir, options, recovered)
    }

    /// As [`Log::open`], but a log whose acknowledged end is damaged is cut there if `rule` allows it. Then the directory
    /// is marked, and this node must not vote: see [`super::restore`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_or_restore(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: LogIdentity,
        mut options: LogOptions,
        rule: &RestoreRule,
    ) -> Result<(Self, RecoveredLog), StoreError> {
        options.segment_bytes_max = options.segment_bytes_max.min(SEGMENT_BYTES_CEILING);
        let recovered = recover(&disk, dir, Some(identity), &options, Loss::Restore(rule))?;
        Self::start(disk, dir, options, recovered)
    }

    fn start(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        recovered: Recovered,
    ) -> Result<(Self, RecoveredLog), StoreError> {
        let Recovered {
            sealed,
            open,
            last,
            chain,
            ..
        } = recovered;
        let current = recovered
            .files
            .iter()
            .next_back()
            .map(|(n, file)| (*n, file.clone()));
        let marks = recovered.marks.marks();
        let mut state = LogState::new(sealed, open, last, chain);
        state.committed = at_most(marks.committed, last);
        state.purged = marks.purged;
        state.vote = recovered.vote.vote();
        let sealed_last = state.sealed.last().map(|sealed| sealed.last_log_id);
        let report = RecoveredLog {
            sealed: state.sealed.clone(),
            first_unsealed: state.open.front().map_or_else(
                || sealed_last.map_or(LogIndex(0), |last| last.index.next()),
                |open| open.first,
            ),
            last,
            cut_bytes: recovered.cut_bytes,
            sealed_damage: recovered.sealed_damage,
            lost: recovered.accepted_damage,
            warnings: recovered.warnings,
        };
        let vote_term = state.vote.map_or(0, |vote| vote.term);
        let inner = Arc::new(Inner {
            disk,
            dir: dir.to_path_buf(),
            log_dir: dir.join(LOG_DIR),
            identity: recovered.identity,
            next: options.preallocate.then(NextSegment::new),
            options,
            order: Mutex::new(Order {
                vote_term,
                staged: None,
                deferred: Vec::new(),
            }),
            state: Mutex::new(state),
            flushed_changed: Condition::new(),
            queue: Queue::default(),
            files: Mutex::new(recovered.files),
            replaced: AtomicU64::new(0),
            suspects: Suspects::default(),
            manifest: Mutex::new(recovered.manifest),
            counters: Counters::default(),
            lock: Mutex::new(Some(recovered.lock)),
        });
        for damage in &report.sealed_damage {
            inner.suspects.add(damage.segment);
        }
        let writer = Writer::new(inner.clone(), current, recovered.vote, recovered.marks);
        let threads = Arc::new(Threads::start(inner.clone(), writer)?);
        Ok((Self { inner, threads }, report))
    }

    /// Appends frames behind the last one. They can be read when this returns; `done` hears when they are on disk.
    ///
    /// The log indexes must follow each other and the last one's; terms must not decrease.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if a rule is broken (nothing was changed); otherwise the store has stopped.
    /// `done` hears of the error, too.
    pub fn append(&self, frames: Vec<Frame>, done: Flushed) -> io::Result<()> {
        let inner = &self.inner;
        if let Err(error) = inner.queue.check() {
            return refuse(done, error);
        }
        let private: Vec<u32> = frames
            .iter()
            .map(|frame| private_crc(&frame.private))
            .collect();
        let mut order = inner.order.lock();
        let mut cursor = inner.state.lock().cursor();
        if let Err(error) = check_order(cursor.last, &frames) {
            drop(order);
            return refuse(done, error);
        }
        if let Err(error) = inner.push_deferred(&mut order) {
            drop(order);
            return refuse(done, error);
        }
        // Encoded outside the lock readers take; only holders of `order` move the end of the log.
        let cluster_id = inner.identity.cluster_id;
        let placed: Vec<_> = frames
            .into_iter()
            .zip(private)
            .map(|(frame, crc)| cursor.place(frame, crc, &inner.options, cluster_id))
            .collect();
        inner.state.lock().commit(&placed, &cursor);
        let pushed = inner.queue.push(Item::Append(placed.into(), done));
        drop(order);
        pushed
    }

    /// Drops every frame behind `keep` (`None`: all of them), in order with appends. They cannot be read any more when
    /// this returns; `done` hears when they cannot come back after a crash.
    ///
    /// Except while verified segments that reach further wait to be installed: then the frames stay on disk until those
    /// segments take their place, or until something is appended in their place. The consensus core cuts before it
    /// installs, and what it cuts may hold acknowledged entries of a majority: they must not be gone before the same
    /// entries in the installed segments count. A crash in between finds the log as it was before the cut, which is
    /// what a node looks like that never heard of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the log does not have `keep`, or frames behind it are sealed.
    pub fn truncate_after(&self, keep: Option<LogId>, done: Flushed) -> io::Result<()> {
        let inner = &self.inner;
        if let Err(error) = inner.queue.check() {
            return refuse(done, error);
        }
        let mut order = inner.order.lock();
        let cut = inner.state.lock().cut(keep);
        let cut = match cut {
            Ok(cut) => cut,
            Err(error) => {
                drop(order);
                return refuse(done, error);
            }
        };
        if order.staged.map(|staged| staged.index) > keep.map(|keep| keep.index) {
            order.deferred.push(cut);
            drop(order);
            done.complete(Ok(()));
            return Ok(());
        }
        if let Err(error) = inner.push_deferred(&mut order) {
            drop(order);
            return refuse(done, error);
        }
        let pushed = inner.queue.push(Item::Cut(cut, done));
        drop(order);
        pushed
    }

    /// Saves a vote, in order with appends: what was appended before it is on disk before the vote is.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a term before that of the last vote.
    pub fn save_vote(&self, vote: Vote, done: Flushed) -> io::Result<()> {
        let inner = &self.inner;
        if let Err(error) = inner.queue.check() {
            return refuse(done, error);
        }
        let mut order = inner.order.lock();
        if vote.term < order.vote_term {
            let message = format!(
                "vote has term {}, allowed {} or later",
                vote.term, order.vote_term
            );
            drop(order);
            return refuse(done, invalid(message));
        }
        order.vote_term = vote.term;
        let pushed = inner.queue.push(Item::Vote(vote, done));
        drop(order);
        pushed
    }

    /// The last vote that is on disk.
    pub fn vote(&self) -> Option<Vote> {
        self.inner.state.lock().vote
    }

    /// Remembers how far the log is committed. Advisory: written with the next group, not synced, and never beyond
    /// what is on disk.
    pub fn save_committed(&self, id: Option<LogId>) {
        let mut state = self.inner.state.lock();
        let id = at_most(id, state.flushed);
        if id.map(|id| id.index) > state.committed.map(|id| id.index) {
            state.committed = id;
        }
    }

    /// How far the log is known to be committed; after a restart this may be less than before.
    pub fn committed(&self) -> Option<LogId> {
        self.inner.state.lock().committed
    }

    /// Moves the purge watermark. No file is touched, and the frames can still be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] beyond the last sealed frame.
    pub fn purge(&self, id: LogId) -> io::Result<()> {
        let inner = &self.inner;
        {
            let mut state = inner.state.lock();
            let sealed_last = state.sealed.last().map(|sealed| sealed.last_log_id);
            if Some(id.index) > sealed_last.map(|last| last.index) {
                return Err(invalid(format!(
                    "purge is asked up to {id}, allowed up to {}, the last sealed",
                    show(sealed_last)
                )));
            }
            if Some(id.index) <= state.purged.map(|purged| purged.index) {
                return Ok(());
            }
            state.purged = Some(id);
        }
        inner.queue.push(Item::Marks)
    }

    /// The purge watermark.
    pub fn purged(&self) -> Option<LogId> {
        self.inner.state.lock().purged
    }

    /// The first frame's log index; `None` for an empty log.
    pub fn first(&self) -> Option<LogIndex> {
        let state = self.inner.state.lock();
        let sealed = state.sealed.first().map(|sealed| sealed.first_log_index);
        sealed.or_else(|| state.open.front().map(|open| open.first))
    }

    /// The last frame, on disk or not yet.
    pub fn last(&self) -> Option<LogId> {
        self.inner.state.lock().last
    }

    /// The last frame that is on disk.
    pub fn flushed(&self) -> Option<LogId> {
        self.inner.state.lock().flushed
    }

    /// Whose data this is.
    pub fn identity(&self) -> LogIdentity {
        self.inner.identity
    }

    /// Frames of a range of log indexes, from memory where possible.
    ///
    /// Ends early at a gap, at the end of the log, or before a frame that would make it more than `bytes_max` bytes;
    /// the first frame is returned whatever its length.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Frame>> {
        self.inner.read(range, bytes_max, true)
    }

    /// As [`Log::read`], but everything comes from the disk; ends before the first frame that is not there yet.
    pub fn read_from_disk(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Frame>> {
        self.inner.read(range, bytes_max, false)
    }

    /// Where a frame lies; `None` if the log does not have it. In a sealed segment this reads headers from disk.
    pub fn position(&self, index: LogIndex) -> Option<FramePosition> {
        if let Some(position) = self.inner.state.lock().position(index) {
            return Some(position);
        }
        self.inner.sealed_position(index).ok().flatten()
    }

    /// The frame at a position that [`Log::position`] gave, all CRCs checked.
    pub fn frame_at(&self, position: FramePosition) -> io::Result<Frame> {
        let inner = &self.inner;
        {
            let state = inner.state.lock();
            let cached = state
                .open_segment(position.segment)
                .and_then(|open| open.index_at(position.offset))
                .and_then(|index| state.cache.get(index));
            if let Some(cached) = cached {
                return Ok(cached.frame.clone());
            }
        }
        if position.length as usize > FRAME_LENGTH_MAX {
            return Err(invalid(format!(
                "frame at {position:?} is longer than a frame may be, {FRAME_LENGTH_MAX} bytes"
            )));
        }
        let file = inner.segment_file(position.segment)?;
        let mut bytes = vec![0; position.length as usize];
        file.read_exact_at(&mut bytes, u64::from(position.offset))?;
        let parsed = frame::parse(&bytes.into())
            .map_err(|error| corrupt(format!("frame at {position:?}: {error}")))?;
        Ok(parsed.frame)
    }

    /// The frame at a position, if it is in memory.
    pub fn cached(&self, position: FramePosition) -> Option<Frame> {
        let state = self.inner.state.lock();
        let open = state.open_segment(position.segment)?;
        let cached = state.cache.get(open.index_at(position.offset)?)?;
        Some(cached.frame.clone())
    }

    /// Bytes of a segment file, unchecked; from memory as far as they are not on disk yet.
    pub fn read_raw(&self, segment: u32, offset: u32, length: u32) -> io::Result<Bytes> {
        let inner = &self.inner;
        let end = u64::from(offset) + u64::from(length);
        let mut out = Vec::new();
        {
            let state = inner.state.lock();
            let mut at = offset;
            while u64::from(at) < end
                && let Some(open) = state.open_segment(segment)
                && let Some(index) = open.index_at(at)
                && let (Some(meta), Some(cached)) = (open.meta(index), state.cache.get(index))
            {
                let step = (end.min(u64::from(meta.end())) - u64::from(at)) as usize;
                if cached
                    .slice((at - meta.offset) as usize, step, &mut out)
                    .is_none()
                {
                    break;
                }
                at += step as u32;
            }
        }
        let cached = out.len();
        if cached == length as usize {
            return Ok(out.into());
        }
        let file = inner.segment_file(segment)?;
        // Compared before anything is set aside: the length may come from a damaged index.
        let found = file.len()?;
        if end > found {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("segment {segment} has {found} bytes, asked for {offset} to {end}"),
            ));
        }
        out.resize(length as usize, 0);
        file.read_exact_at(&mut out[cached..], u64::from(offset) + cached as u64)?;
        Ok(out.into())
    }

    /// The file of a segment, for reading it as it is on disk.
    pub fn segment_file(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.segment_file(segment)
    }

    /// Where the next frame would go if it fits.
    pub fn tail(&self) -> LogTail {
        let state = self.inner.state.lock();
        let open = state.open.back();
        let sealed = state.sealed.last();
        LogTail {
            segment: open
                .map(|o| o.number)
                .or(sealed.map(|s| s.number))
                .unwrap_or(0),
            offset: open.map_or_else(|| sealed.map_or(0, |s| s.body_length as u32), |o| o.end()),
            last: state.last,
        }
    }

    /// The sealed segments, oldest first.
    pub fn sealed(&self) -> Arc<Vec<SealedSegment>> {
        self.inner.state.lock().sealed.clone()
    }

    /// Writes and syncs the footer of the oldest unsealed segment. Blocks: for the sealer's own thread.
    ///
    /// To be called when the **first frame of the segment behind it is committed**, not earlier: until then that frame
    /// may be replaced by a shorter one that still fits into this segment. The segment counts as sealed after
    /// [`Log::manifest_append`] of its [`ManifestRecord::Sealed`]; until then this may be repeated, with the same
    /// result. Every frame is read back from disk and checked on the way.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is not the next segment to seal, is not full, or `footer` is not the state
    /// around it. Any other error has stopped the store.
    pub fn seal_segment(&self, segment: u32, footer: FooterState) -> io::Result<SealedSegment> {
        self.inner.seal_segment(segment, footer)
    }

    /// Appends a record to the MANIFEST and syncs it. Blocks: for the sealer's own thread.
    pub fn manifest_append(&self, record: ManifestRecord) -> io::Result<()> {
        let inner = &self.inner;
        inner.queue.check()?;
        let mut manifest = inner.manifest.lock();
        if let ManifestRecord::Sealed(sealed) = &record {
            let state = inner.state.lock();
            let next = state
                .open
                .front()
                .filter(|_| state.open.len() > 1)
                .map(|open| open.number);
            if next != Some(sealed.number) {
                return Err(invalid(format!(
                    "segment {} is recorded as sealed, allowed {next:?}",
                    sealed.number
                )));
            }
        }
        if let Err(error) = manifest.append(&record) {
            return Err(poisoned(&inner.poison(&error.to_string())));
        }
        if let ManifestRecord::Sealed(sealed) = record {
            let mut state = inner.state.lock();
            Arc::make_mut(&mut state.sealed).push(*sealed);
            state.open.pop_front();
        }
        Ok(())
    }

    /// Bytes the disk has left; 0 if it does not say.
    pub fn free_bytes(&self) -> u64 {
        self.inner.disk.free_bytes(&self.inner.dir).unwrap_or(0)
    }

    /// The first error, if the store has stopped.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.queue.poison()
    }

    /// Stops the store because of an error outside the log (tree files, index): every later call fails with it.
    pub fn poison(&self, error: &str) {
        self.inner.poison(error);
    }

    /// Writes what waits, stops the threads and lets go of the directory. Later calls fail.
    pub fn shutdown(&self) {
        self.threads.stop();
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.inner.counters.read()
    }
}

fn refuse(done: Flushed, error: io::Error) -> io::Result<()> {
    done.complete(Err(io::Error::new(error.kind(), error.to_string())));
    Err(error)
}

fn check_order(mut last: Option<LogId>, frames: &[Frame]) -> io::Result<()> {
    for frame in frames {
        frame
            .check()
            .map_err(|error| invalid(format!("frame {}: {error}", frame.log_id)))?;
        if let Some(last) = last
            && (frame.log_id.index != last.index.next() || frame.log_id.term < last.term)
        {
            return Err(invalid(format!(
                "frame {} is appended behind {last}",
                frame.log_id
            )));
        }
        last = Some(frame.log_id);
    }
    Ok(())
}
