//! The sealer: one thread that turns complete segments into sealed ones.
//!
//! For each segment, in log order: footer into the file (synced), hashes into the tree files (synced), one sorted batch
//! into the key index, one record into the MANIFEST (synced), and only then is the memory let go. Each step is a
//! function of the segment and may be repeated: after a crash the segment is applied again and sealed again, or, if its
//! footer was durable already, [`super::rebuild`] derives at the next open what the later steps had not reached.
//!
//! Readers are kept out only while a pointer is swapped at the end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Weak};
#[cfg(not(feature = "simulation"))]
use std::thread::{self, JoinHandle};

use scribe_proof::hash::Hash;
#[cfg(feature = "simulation")]
use tokio::{sync::Notify, task::JoinHandle};

use super::Inner;
use super::index::{IndexedSegment, SegmentBatch};
use super::manifest::ManifestRecord;
use super::mend::is_damage;
use super::open_segment::OpenSegment;
use super::segment::{FooterState, SealedSegment};
use super::view::Applied;

/// A complete segment.
#[derive(Debug)]
pub(crate) struct SealJob {
    pub segment: Arc<OpenSegment>,
    /// Root hash after its last frame.
    pub end_root: Hash,
    /// State after its last frame.
    pub state: Applied,
}

/// The handle to the thread.
#[derive(Debug)]
pub(crate) struct Sealer {
    jobs: mpsc::Sender<SealJob>,
    thread: JoinHandle<()>,
    #[cfg(feature = "simulation")]
    bell: Arc<Notify>,
}

/// Seals one segment on behalf of whoever has the jobs; `false` at the end. It holds the store only meanwhile, so that a
/// dropped store ends the sealer.
fn seal_next(store: &Weak<Inner>, job: SealJob) -> bool {
    let Some(store) = store.upgrade() else {
        return false;
    };
    if store.stopping.load(Ordering::Acquire) {
        return false;
    }
    // The index database asserts some of its rules: a panic must stop the store, not just this thread, or apply would
    // wait for room for ever.
    let went_on = catch_unwind(AssertUnwindSafe(|| store.run(job)));
    if went_on.is_err() {
        store.fail(&"the sealer panicked");
    }
    went_on.unwrap_or(false)
}

#[cfg(feature = "simulation")]
impl Sealer {
    /// Starts the task of the runtime this is called in.
    pub(crate) fn start(store: Weak<Inner>) -> io::Result<Self> {
        use super::worker::{self, Step};
        let (jobs, queue) = mpsc::channel::<SealJob>();
        let bell = Arc::new(Notify::new());
        let disk = store
            .upgrade()
            .map(|store| store.log.inner.disk.clone())
            .ok_or_else(|| io::Error::other("the store is gone"))?;
        let queue = parking_lot::Mutex::new(queue);
        let thread = worker::start(disk, Arc::clone(&bell), move || {
            let job = match queue.lock().try_recv() {
                Ok(job) => job,
                Err(mpsc::TryRecvError::Empty) => return Step::Idle,
                Err(mpsc::TryRecvError::Disconnected) => return Step::Ended,
            };
            match seal_next(&store, job) {
                true => Step::Done,
                false => Step::Ended,
            }
        });
        Ok(Self { jobs, thread, bell })
    }

    pub(crate) fn hand(&self, job: SealJob) {
        // An error says that the task ended after a failure, which the store remembers.
        let _ = self.jobs.send(job);
        self.bell.notify_one();
    }

    pub(crate) fn join(self) {
        self.thread.abort();
    }
}

#[cfg(not(feature = "simulation"))]
impl Sealer {
    /// Starts the thread.
    pub(crate) fn start(store: Weak<Inner>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<SealJob>();
        let thread = thread::Builder::new()
            .name("sealer".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    if !seal_next(&store, job) {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, thread })
    }

    pub(crate) fn hand(&self, job: SealJob) {
        // An error says that the thread ended after a failure, which the store remembers.
        let _ = self.jobs.send(job);
    }

    pub(crate) fn join(self) {
        drop(self.jobs);
        if self.thread.thread().id() != thread::current().id() {
            let _ = self.thread.join();
        }
    }
}

impl Inner {
    /// Seals one segment; `false` when the sealer has to stop.
    fn run(&self, job: SealJob) -> bool {
        // Until readers see it, so that an install comes before all of this or after it.
        let one_at_a_time = self.sealing.lock();
        let sealed = self.log.sealed().last().map(|last| last.number);
        if sealed >= Some(job.segment.number()) {
            // Installed from another node since it was handed over, and out of memory.
            return true;
        }
        if let Err(error) = self.seal(&job) {
            let number = job.segment.number();
            tracing::error!(segment = number, %error, "a segment cannot be sealed");
            self.fail(&format_args!("seal segment {number}: {error}"));
            return false;
        }
        let SealJob { segment, state, .. } = job;
        let done = {
            let mut view = self.view.write();
            view.sealed = state;
            view.complete.pop_front()
        };
        self.waiting
            .send_modify(|waiting| *waiting = waiting.saturating_sub(1));
        drop(one_at_a_time);
        // Tens of milliseconds for a full segment: outside the lock, on this thread.
        drop(segment);
        drop(done);
        true
    }

    /// The lock is held.
    fn seal(&self, job: &SealJob) -> io::Result<()> {
        let segment = &job.segment;
        let last_log_id = job
            .state
            .last_log_id
            .ok_or_else(|| io::Error::other("a complete segment without frames"))?;

        let sealed = self.log.seal_segment(
            segment.number(),
            FooterState {
                start_size: segment.start_size(),
                start_root: segment.start_root(),
                end_size: segment.end_size(),
                end_root: job.end_root,
                last_log_id,
                membership: job.state.membership.clone(),
                last_timestamp_ms: job.state.last_timestamp_ms,
                published: job.state.published,
            },
        )?;
        // A crash here leaves a segment with a footer; tree files and index are behind and are brought up at open.

        for (level, run) in segment.levels().iter().enumerate() {
            self.tree.write(level as u8, run)?;
        }
        self.tree.sync()?;
        // A crash here, or in the middle, leaves tree files that are longer than the last recorded segment calls for
        // (cut at open) or shorter (derived again).

        self.seal_index(segment, &sealed, job.state.last_timestamp_ms)?;
        // A crash here leaves an index that is ahead: what it knows of this segment is compared when it is sealed
        // again, and versions at or beyond the sealed size are never taken from it.

        // From here on the segment is sealed: the next start begins behind it.
        self.log
            .manifest_append(ManifestRecord::Sealed(Box::new(sealed)))
    }

    /// Takes the segment into the index, unless it is in there from before a crash.
    fn seal_index(
        &self,
        segment: &OpenSegment,
        sealed: &SealedSegment,
        now_ms: u64,
    ) -> io::Result<()> {
        match self.complete_index(&self.log.sealed()) {
            Ok(_) => {}
            Err(error) => {
                let error = io::Error::from(error);
                if !is_damage(&error) {
                    return Err(error);
                }
                // This one is read again from its file when the damaged one before it is mended, or by the next open.
                return Ok(());
            }
        }
        let known = self.index.segments()?;
        let identity = identity(sealed, segment.version_count());
        let number = sealed.number as usize;
        if known.get(number) == Some(&identity) {
            return Ok(());
        }
        if known.len() != number {
            // Something else was taken in before a crash, and then the log was cut (`--accept-loss`) and went on
            // differently.
            tracing::warn!(
                segment = sealed.number,
                "the key index knows other segments than the log and is rebuilt"
            );
            let all = self.log.sealed();
            self.refill_index(&all, |_, _| {})?;
        }
        ingest(&*self.index, segment, identity, now_ms)
    }
}

/// What the index remembers of a segment.
pub(crate) fn identity(sealed: &SealedSegment, versions: u64) -> IndexedSegment {
    IndexedSegment {
        number: sealed.number,
        end_size: sealed.footer.end_size,
        end_root: sealed.footer.end_root,
        versions,
    }
}

/// Takes one segment into the index.
pub(crate) fn ingest(
    index: &dyn super::index::KeyIndex,
    segment: &OpenSegment,
    identity: IndexedSegment,
    now_ms: u64,
) -> io::Result<()> {
    index.ingest(SegmentBatch {
        segment: identity,
        versions: &mut segment.sorted(),
        remembered: &mut segment.remembered_sorted(),
        now_ms,
    })
}
