//! The one thread that writes segment files, `vote` and `watermarks`.
//!
//! It takes what waits in the queue in order, as one group: one write per contiguous run of frames, one sync, then the
//! callbacks. While one group syncs, the next one forms; nothing waits for a timer. Votes and cuts end a group.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::{DiskFile, Open};
use super::error::StoreError;
use super::frame::{LogId, Vote};
use super::log::{Flushed, Inner, LogStats};
use super::segment::{NEXT_NAME, SealedSegment, SegmentHeader, file_path};
use super::state::{Cut, Placed};
use super::vote::VoteFile;
use super::watermarks::{Watermarks, WatermarksFile};
use super::worker::Condition;
#[cfg(feature = "simulation")]
use super::worker::Step;
use crate::planted;

/// Parts of a frame up to this many bytes are copied next to each other; longer ones are written from where they are.
const COPY_LENGTH_MAX: usize = 16 * 1_024;

/// How long the writer looks around for more work, giving its processor away at every look, before it sleeps. Waking a
/// sleeping thread costs a lone writer about as much as half a sync; a client that writes again at once finds the writer
/// awake. An idle node looks around once and sleeps.
const LOOK_AROUND: Duration = Duration::from_micros(300);

/// What waits for the writer.
#[derive(Debug)]
pub(crate) enum Item {
    /// Frames with their places.
    Append(VecDeque<Placed>, Flushed),
    /// Frames to cut.
    Cut(Cut, Flushed),
    /// A vote.
    Vote(Vote, Flushed),
    /// Segments, staged and verified, that take the place of everything that is not sealed.
    Install(Vec<SealedSegment>, Flushed),
    /// The watermarks changed.
    Marks,
    /// Finish and end the thread.
    Stop,
}

impl Item {
    fn fail(self, first: &str) {
        if let Self::Append(_, done)
        | Self::Cut(_, done)
        | Self::Vote(_, done)
        | Self::Install(_, done) = self
        {
            done.complete(Err(poisoned(first)));
        }
    }
}

/// The error every call gets after the first failure.
pub(crate) fn poisoned(first: &str) -> io::Error {
    StoreError::Poisoned {
        first: first.to_owned(),
    }
    .into()
}

#[derive(Debug, Default)]
struct QueueState {
    items: VecDeque<Item>,
    /// First error; nothing is taken in any more.
    poison: Option<String>,
    stopping: bool,
    writer_waits: bool,
}

/// What is to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    /// Something came in since the writer last looked; seen without the lock.
    news: AtomicBool,
    changed: Condition,
}

/// What the writer does next.
#[derive(Debug)]
enum Work {
    Append(Group),
    Cut(Cut, Flushed),
    Vote(Vote, Flushed),
    Install(Vec<SealedSegment>, Flushed),
    Marks,
    Stop,
}

#[derive(Debug, Default)]
struct Group {
    frames: Vec<Placed>,
    bytes: usize,
    done: Vec<Flushed>,
}

impl Queue {
    /// Takes an item in, or reports why not to whoever waits for it.
    pub(crate) fn push(&self, item: Item) -> io::Result<()> {
        let mut state = self.state.lock();
        let refused = match &state.poison {
            Some(first) => first.clone(),
            None if state.stopping => "the store was shut down".to_owned(),
            None => {
                state.stopping = matches!(item, Item::Stop);
                state.items.push_back(item);
                self.news.store(true, Ordering::Release);
                let notify = state.writer_waits || cfg!(feature = "simulation");
                drop(state);
                if notify {
                    self.changed.notify_one();
                }
                return Ok(());
            }
        };
        drop(state);
        item.fail(&refused);
        Err(poisoned(&refused))
    }

    /// First error.
    pub(crate) fn poison(&self) -> Option<String> {
        self.state.lock().poison.clone()
    }

    /// Fails if the store takes nothing in any more.
    pub(crate) fn check(&self) -> io::Result<()> {
        let state = self.state.lock();
        match &state.poison {
            Some(first) => Err(poisoned(first)),
            None if state.stopping => Err(poisoned("the store was shut down")),
            None => Ok(()),
        }
    }

    /// Rings when there is work.
    #[cfg(feature = "simulation")]
    pub(super) fn bell(&self) -> Arc<tokio::sync::Notify> {
        self.changed.bell()
    }

    /// Whether [`Self::take`] would not wait.
    #[cfg(feature = "simulation")]
    fn has_work(&self) -> bool {
        let state = self.state.lock();
        state.poison.is_some() || !state.items.is_empty()
    }

    /// Takes nothing in any more and fails what waits. The first error is kept.
    fn set_poison(&self, error: &str) -> String {
        let mut state = self.state.lock();
        if state.poison.is_none() {
            tracing::error!(%error, "the store stops: a write or sync failed");
        }
        let first = state.poison.get_or_insert_with(|| error.to_owned()).clone();
        self.news.store(true, Ordering::Release);
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.changed.notify_all();
        items.into_iter().for_each(|item| item.fail(&first));
        first
    }

    /// Waits for work. After an error there is none but to stop.
    fn take(&self, bytes_max: usize) -> Work {
        let mut look_until = Some(Instant::now() + LOOK_AROUND);
        let mut state = self.state.lock();
        self.news.store(false, Ordering::Release);
        loop {
            if state.poison.is_some() {
                return Work::Stop;
            }
            if !state.items.is_empty() {
                break;
            }
            if let Some(until) = look_until {
                drop(state);
                while !self.news.load(Ordering::Acquire) && Instant::now() < until {
                    std::thread::yield_now();
                }
                look_until = None;
                state = self.state.lock();
                continue;
            }
            state.writer_waits = true;
            self.changed.wait(&mut state);
            state.writer_waits = false;
        }
        let mut group = Group::default();
        while let Some(item) = state.items.pop_front() {
            match item {
                Item::Append(mut frames, done) => {
                    while let Some(placed) = frames.pop_front() {
                        let length = placed.frame.length();
                        if group.bytes > 0 && group.bytes + length > bytes_max {
                            frames.push_front(placed);
                            state.items.push_front(Item::Append(frames, done));
                            return Work::Append(group);
                        }
                        group.bytes += length;
                        group.frames.push(placed);
                    }
                    group.done.push(done);
                }
                other if !group.done.is_empty() => {
                    state.items.push_front(other);
                    break;
                }
                Item::Cut(cut, done) => return Work::Cut(cut, done),
                Item::Vote(vote, done) => return Work::Vote(vote, done),
                Item::Install(segments, done) => return Work::Install(segments, done),
                Item::Marks => return Work::Marks,
                Item::Stop => return Work::Stop,
            }
        }
        Work::Append(group)
    }
}

/// Counters of the write path.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    bytes_written: AtomicU64,
    frames_written: AtomicU64,
    syncs: AtomicU64,
    sync_us_total: AtomicU64,
    sync_us_buckets: [AtomicU64; 32],
}

impl Counters {
    fn synced(&self, us: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us_total.fetch_add(us, Ordering::Relaxed);
        let bucket = (u64::BITS - us.leading_zeros()).min(31) as usize;
        self.sync_us_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> LogStats {
        LogStats {
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            frames_written: self.frames_written.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            sync_us_total: self.sync_us_total.load(Ordering::Relaxed),
            sync_us_buckets: std::array::from_fn(|i| {
                self.sync_us_buckets[i].load(Ordering::Relaxed)
            }),
        }
    }
}

/// The writer thread's own state.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) inner: Arc<Inner>,
    /// Number and file of the segment that is written to.
    pub(super) current: Option<(u32, Arc<dyn DiskFile>)>,
    vote: VoteFile,
    pub(super) marks: WatermarksFile,
    /// Reused between groups.
    pool: Vec<u8>,
    /// Whether it has taken its last turn.
    #[cfg(feature = "simulation")]
    ended: bool,
}

/// Makes a panic of the writer an error for everybody who waits, instead of silence.
struct PoisonOnPanic(Arc<Inner>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer thread panicked");
        }
    }
}

impl Inner {
    /// Stops the store for good. Returns the first error, which may be an earlier one.
    pub(crate) fn poison(&self, error: &str) -> String {
        let first = self.queue.set_poison(error);
        // Whoever waits for a flush looks at the poison again; the lock makes sure it is not missed.
        drop(self.state.lock());
        self.flushed_changed.notify_all();
        if let Some(next) = &self.next {
            next.stop();
        }
        first
    }
}

impl Writer {
    pub(crate) fn new(
        inner: Arc<Inner>,
        current: Option<(u32, Arc<dyn DiskFile>)>,
        vote: VoteFile,
        marks: WatermarksFile,
    ) -> Self {
        Self {
            inner,
            current,
            vote,
            marks,
            pool: Vec::new(),
            #[cfg(feature = "simulation")]
            ended: false,
        }
    }

    /// Works until it is stopped.
    #[cfg(not(feature = "simulation"))]
    pub(crate) fn run(mut self) {
        let _guard = PoisonOnPanic(self.inner.clone());
        while self.turn() {}
    }

    /// Does what is next, if there is anything.
    #[cfg(feature = "simulation")]
    pub(super) fn step(&mut self) -> Step {
        let _guard = PoisonOnPanic(self.inner.clone());
        if self.ended {
            return Step::Ended;
        }
        if !self.inner.queue.has_work() {
            return Step::Idle;
        }
        self.ended = !self.turn();
        Step::Done
    }

    /// Waits for work and does it; `false` at the end.
    fn turn(&mut self) -> bool {
        let work = self.inner.queue.take(self.inner.options.group_bytes_max);
        let outcome = match work {
            Work::Append(group) => self.append(group),
            Work::Cut(cut, done) => {
                let outcome = self.cut(&cut);
                self.finish(outcome, done, |inner| inner.state.lock().cut_done())
            }
            Work::Vote(vote, done) => {
                let outcome = self.vote.save(vote);
                self.finish(outcome, done, |inner| inner.state.lock().vote = Some(vote))
            }
            Work::Install(segments, done) => {
                let outcome = self.install(&segments);
                let outcome =
                    self.finish(outcome, done, |inner| inner.switch_to_installed(segments));
                outcome.and_then(|()| self.write_marks())
            }
            Work::Marks => self.write_marks(),
            Work::Stop => {
                self.end();
                return false;
            }
        };
        if let Err(error) = outcome {
            self.inner.poison(&error.to_string());
            return false;
        }
        true
    }

    fn end(&mut self) {
        if self.inner.queue.poison().is_none() {
            let outcome = self.write_marks().and_then(|()| self.marks.sync());
            if let Err(error) = outcome {
                self.inner.poison(&error.to_string());
            }
        }
    }

    /// Completes one waiter; on an error the store is poisoned before it hears of it.
    fn finish(
        &self,
        outcome: Result<(), StoreError>,
        done: Flushed,
        commit: impl FnOnce(&Inner),
    ) -> Result<(), StoreError> {
        match outcome {
            Ok(()) => {
                commit(&self.inner);
                done.complete(Ok(()));
                Ok(())
            }
            Err(error) => {
                let first = self.inner.poison(&error.to_string());
                done.complete(Err(poisoned(&first)));
                Err(error)
            }
        }
    }

    fn append(&mut self, group: Group) -> Result<(), StoreError> {
        let Group { frames, done, .. } = group;
        let last = frames.last().map(|placed| placed.frame.log_id);
        if let Err(error) = self.write_group(&frames) {
            let first = self.inner.poison(&error.to_string());
            done.into_iter()
                .for_each(|done| done.complete(Err(poisoned(&first))));
            return Err(error);
        }
        if let Some(last) = last {
            self.inner.appended(Some(last));
        }
        done.into_iter().for_each(|done| done.complete(Ok(())));
        self.write_marks()
    }

    /// Writes and syncs a group. Nothing in it is acknowledged before all of it is on disk.
    fn write_group(&mut self, frames: &[Placed]) -> Result<(), StoreError> {
        for run in frames.chunk_by(|a, b| a.segment == b.segment) {
            // A crash in here leaves any sectors of this run and whole runs before it: file n is synced before the
            // first write to file n + 1, so only the last file can be torn.
            let started = run[0].starts.as_ref();
            if let Some(header) = started {
                let file = self.start_segment(header)?;
                self.current = Some((header.number, file));
            }
            let file = match &self.current {
                Some((number, file)) if *number == run[0].segment => file.clone(),
                _ => return Err(self.error("find", io::ErrorKind::NotFound.into())),
            };
            self.write_run(&*file, run)
                .map_err(|error| self.error("write", error))?;
            let begun = Instant::now();
            // planted
            let mut synced = match planted::has("ack-before-sync") {
                true => Ok(()),
                false => file.sync_data(),
            };
            // planted
            if synced.is_err() && planted::has("sync-error-retried") {
                synced = file.sync_data();
            }
            synced.map_err(|error| self.error("sync", error))?;
            self.inner
                .counters
                .synced(begun.elapsed().as_micros() as u64);
        }
        Ok(())
    }

    fn write_run(&mut self, file: &dyn DiskFile, run: &[Placed]) -> io::Result<()> {
        enum Piece<'a> {
            Pooled(usize),
            Shared(&'a Bytes),
        }
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        let pool = &mut self.pool;
        pool.clear();
        let mut pooled_from = 0;
        let mut offset = u64::from(run[0].offset);
        if let Some(header) = &run[0].starts {
            pool.extend_from_slice(&header.encode());
            offset = 0;
        }
        let mut bytes = 0;
        for placed in run {
            pool.extend_from_slice(&placed.header);
            for part in [&placed.frame.public, &placed.frame.private] {
                if part.len() <= COPY_LENGTH_MAX {
                    pool.extend_from_slice(part);
                } else {
                    pieces.push(Piece::Pooled(pool.len() - pooled_from));
                    pooled_from = pool.len();
                    pieces.push(Piece::Shared(part));
                }
            }
            let length = placed.frame.length();
            let content =
                placed.header.len() + placed.frame.public.len() + placed.frame.private.len();
            pool.resize(pool.len() + length - content, 0);
            bytes += length as u64;
        }
        pieces.push(Piece::Pooled(pool.len() - pooled_from));
        let mut rest = &pool[..];
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Pooled(length) => {
                    let (head, tail) = rest.split_at(*length);
                    rest = tail;
                    IoSlice::new(head)
                }
                Piece::Shared(part) => IoSlice::new(part),
            })
            .collect();
        file.write_all_vectored_at(&slices, offset)?;
        let counters = &self.inner.counters;
        counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        counters
            .frames_written
            .fetch_add(run.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the next segment its file. The name is durable when this returns; the header is written with the first
    /// group.
    fn start_segment(&self, header: &SegmentHeader) -> Result<Arc<dyn DiskFile>, StoreError> {
        let inner = &self.inner;
        let disk = &*inner.disk;
        let path = file_path(&inner.log_dir, header.first_log_index);
        let io_error = |action, error| StoreError::io(action, &path, error);
        let ready = inner
            .next
            .as_ref()
            .and_then(super::next_segment::NextSegment::take);
        // A crash before the directory is synced leaves `next.seg`, which is removed at open, or a segment without a
        // header, which is removed too: no frame of it was written yet.
        let file = match ready {
            Some(file) => {
                if disk.exists(&path).map_err(|e| io_error("look for", e))? {
                    return Err(io_error("create", io::ErrorKind::AlreadyExists.into()));
                }
                let next = inner.log_dir.join(NEXT_NAME);
                disk.rename(&next, &path)
                    .map_err(|e| io_error("rename", e))?;
                file
            }
            None => disk
                .open(&path, Open::CREATE_NEW)
                .map_err(|e| io_error("create", e))?,
        };
        // planted
        if !planted::has("directory-not-synced") {
            disk.sync_dir(&inner.log_dir)
                .map_err(|e| io_error("sync", e))?;
        }
        inner.files.lock().insert(header.number, file.clone());
        if let Some(next) = &inner.next {
            next.want();
        }
        Ok(file)
    }

    fn cut(&mut self, cut: &Cut) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let disk = &*inner.disk;
        // First the watermarks: a crash anywhere below must not find a log shorter than they say.
        self.write_marks()?;
        self.marks.sync()?;
        for (number, first) in cut.remove.iter().rev() {
            let path = file_path(&inner.log_dir, *first);
            inner.files.lock().remove(number);
            self.current = None;
            // From the end backwards, one by one: a crash leaves a log that is longer than asked, never one with a hole.
            disk.remove(&path)
                .map_err(|e| StoreError::io("remove", &path, e))?;
            disk.sync_dir(&inner.log_dir)
                .map_err(|e| StoreError::io("sync", &inner.log_dir, e))?;
        }
        self.current = match cut.tail {
            None => None,
            Some((number, first)) => {
                let file = inner.file(number, first);
                Some((number, file.map_err(|error| self.error("open", error))?))
            }
        };
        if let (Some((_, starts, end)), Some((_, file))) = (&cut.zero, &self.current) {
            let mut end = *end;
            // Also what an unfinished footer left behind the frames.
            let mut zero_end = file.len().map_err(|error| self.error("read", error))?;
            let mut rest = &starts[..];
            while let Some(newest) = rest.last() {
                // Backwards, and never more at once than a group has: a crash leaves what looks like a torn group, and
                // is cut like one.
                let mut from = *newest;
                while let Some(start) = rest.last()
                    && (end - start) as usize
                        <= inner.options.group_bytes_max.max((end - newest) as usize)
                {
                    from = *start;
                    rest = &rest[..rest.len() - 1];
                }
                let zero = |file: &Arc<dyn DiskFile>| {
                    file.zero_range(u64::from(from), zero_end - u64::from(from))?;
                    // planted
                    match planted::has("cut-not-durable") {
                        true => Ok(()),
                        false => file.sync_all(),
                    }
                };
                zero(file).map_err(|error| self.error("cut", error))?;
                end = from;
                zero_end = u64::from(from);
            }
        }
        Ok(())
    }

    pub(super) fn write_marks(&mut self) -> Result<(), StoreError> {
        let marks = self.inner.watermarks();
        self.marks.write(marks)
    }

    fn error(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::io(action, &self.inner.log_dir, source)
    }
}

impl Inner {
    fn appended(&self, last: Option<LogId>) {
        self.state.lock().appended(last, &self.options);
        self.flushed_changed.notify_all();
    }

    fn watermarks(&self) -> Watermarks {
        let state = self.state.lock();
        Watermarks {
            flushed: state.flushed,
            committed: state.committed,
            purged: state.purged,
        }
    }
}
