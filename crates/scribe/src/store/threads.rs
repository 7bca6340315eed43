//! The log's own workers, from start to stop: the writer, and the one that makes the next segment's file ahead.
//!
//! What they do is written in `writer.rs` and `next_segment.rs`; who runs them is [`super::worker`]'s matter.

use std::io;
use std::sync::Arc;
#[cfg(not(feature = "simulation"))]
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
#[cfg(feature = "simulation")]
use tokio::task::JoinHandle;

#[cfg(not(feature = "simulation"))]
use super::error::IoContext as _;
use super::error::StoreError;
use super::log::Inner;
#[cfg(feature = "simulation")]
use super::worker::{self, Step};
use super::writer::{Item, Writer};

/// Ends the workers when the last handle to the log goes away.
#[derive(Debug)]
pub(super) struct Threads {
    inner: Arc<Inner>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    /// Stops the store because the next segment's file cannot be made.
    fn poison_next(&self) -> impl Fn(io::Error) + '_ {
        |error| {
            self.poison(&format!("allocate next.seg: {error}"));
        }
    }
}

#[cfg(not(feature = "simulation"))]
impl Threads {
    /// Starts both.
    pub(super) fn start(inner: Arc<Inner>, writer: Writer) -> Result<Self, StoreError> {
        let threads = Self {
            inner: inner.clone(),
            handles: Mutex::default(),
        };
        threads.spawn("scribe-log", move || writer.run())?;
        if inner.next.is_some() {
            threads.spawn("scribe-log-next", move || {
                if let Some(next) = &inner.next {
                    let length = inner.options.segment_bytes_max;
                    next.run(&*inner.disk, &inner.log_dir, length, inner.poison_next());
                }
            })?;
        }
        Ok(threads)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let handle = thread::Builder::new().name(name.into()).spawn(run);
        let handle = handle.context("start a thread for", &self.inner.log_dir)?;
        self.handles.lock().push(handle);
        Ok(())
    }

    /// Writes what waits, ends the threads, and lets go of the directory.
    pub(super) fn stop(&self) {
        // Refused if the store has stopped already.
        let _ = self.inner.queue.push(Item::Stop);
        let handles = std::mem::take(&mut *self.handles.lock());
        let own = thread::current().id();
        for handle in handles {
            // The last handle may go away inside a callback, which runs on the writer thread; that thread then lets
            // go of the directory when it ends.
            if handle.thread().id() == own {
                return;
            }
            if handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
            // The writer, which is first, may have waited for a file made ahead; now nobody does.
            if let Some(next) = &self.inner.next {
                next.stop();
            }
        }
        *self.inner.lock.lock() = None;
    }
}

#[cfg(feature = "simulation")]
impl Threads {
    /// Starts both as tasks of the runtime this is called in.
    pub(super) fn start(inner: Arc<Inner>, writer: Writer) -> Result<Self, StoreError> {
        let disk = inner.disk.clone();
        // The task owns the writer: if the node is gone, so is the task, and with it the writer.
        let writer = Arc::new(Mutex::new(writer));
        let weak = Arc::downgrade(&writer);
        inner.flushed_changed.worked_by(move || {
            let writer = weak.upgrade();
            // A callback of the writer that waits for the writer would wait for ever.
            let mut writer = writer.as_ref().and_then(|writer| writer.try_lock());
            writer.as_mut().map_or(Step::Ended, |writer| writer.step())
        });
        let mut handles = vec![worker::start(disk.clone(), inner.queue.bell(), move || {
            writer.lock().step()
        })];
        if let Some(next) = &inner.next {
            let weak = Arc::downgrade(&inner);
            let step = move || {
                let Some(inner) = weak.upgrade() else {
                    return Step::Ended;
                };
                let Some(next) = &inner.next else {
                    return Step::Ended;
                };
                let length = inner.options.segment_bytes_max;
                next.step(&*inner.disk, &inner.log_dir, length, inner.poison_next())
            };
            next.condition().worked_by(step.clone());
            handles.push(worker::start(disk, next.condition().bell(), step));
        }
        Ok(Self {
            inner,
            handles: Mutex::new(handles),
        })
    }

    /// Writes what waits, ends the tasks, and lets go of the directory.
    pub(super) fn stop(&self) {
        // Refused if the store has stopped already.
        let _ = self.inner.queue.push(Item::Stop);
        while self.inner.flushed_changed.help() == Step::Done {}
        if let Some(next) = &self.inner.next {
            next.stop();
        }
        for handle in std::mem::take(&mut *self.handles.lock()) {
            handle.abort();
        }
        *self.inner.lock.lock() = None;
    }
}
