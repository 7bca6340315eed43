//! The scrubber: finds silent damage in sealed segments and tree files before somebody needs them.
//!
//! One segment after the other, for ever, at a limited rate. It reports and goes on; what to do about damage (fetch the
//! segment again, derive the tree again) is [`super::mend`]'s business.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
#[cfg(not(feature = "simulation"))]
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(not(feature = "simulation"))]
use parking_lot::{Condvar, Mutex};
use scribe_proof::tree::TreeBuilder;

use super::check::Checker;
use super::walk::{CheckError, Damage, sealed_path};
use super::{Inner, Store};

/// How fast and how often to scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes of segments read per second.
    pub bytes_per_second: u64,
    /// Least time between the starts of two rounds.
    pub round_interval: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            // About 3 % of a core; a terabyte takes a day and a half.
            bytes_per_second: 8_000_000,
            round_interval: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What the scrubber tells about one segment.
#[derive(Debug)]
pub enum Scrubbed {
    /// The segment and its part of the tree are what they were; so many bytes were read.
    Good {
        /// Segment number.
        segment: u32,
        /// Bytes read.
        bytes: u64,
    },
    /// Something changed.
    Damaged {
        /// Segment number.
        segment: u32,
        /// The first bad place.
        damage: Damage,
    },
    /// The operating system refused a read.
    Unreadable {
        /// Segment number.
        segment: u32,
        /// Its error.
        error: io::Error,
    },
}

/// The running scrubber; it stops when this is dropped.
#[derive(Debug)]
pub struct Scrubber {
    #[cfg(not(feature = "simulation"))]
    stop: Arc<Stop>,
    #[cfg(not(feature = "simulation"))]
    thread: Option<JoinHandle<()>>,
    #[cfg(feature = "simulation")]
    task: tokio::task::JoinHandle<()>,
}

#[cfg(not(feature = "simulation"))]
#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

#[cfg(not(feature = "simulation"))]
impl Stop {
    /// Waits; `true` when it is time to stop.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut stopped = self.stopped.lock();
        while !*stopped {
            if self.changed.wait_until(&mut stopped, until).timed_out() {
                break;
            }
        }
        *stopped
    }
}

#[cfg(not(feature = "simulation"))]
impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.stop.stopped.lock() = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(feature = "simulation")]
impl Drop for Scrubber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Re-reads and re-hashes sealed segment `number` and its part of the tree files. Returns how many bytes were read,
    /// `None` when there is no such sealed segment.
    ///
    /// # Errors
    /// The first bad place, or what the disk cannot read.
    pub fn scrub_segment(&self, number: u32) -> Result<Option<u64>, CheckError> {
        self.0.scrub_and_suspect(number)
    }

    /// Starts scrubbing in the background. `report` is called on the scrubber's thread after each segment.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_scrubber(
        &self,
        options: ScrubOptions,
        mut report: impl FnMut(Scrubbed) + Send + 'static,
    ) -> io::Result<Scrubber> {
        let mut rounds = Rounds::new(Arc::downgrade(&self.0), options);
        #[cfg(not(feature = "simulation"))]
        {
            let stop = Arc::new(Stop::default());
            let thread = thread::Builder::new().name("scrubber".into()).spawn({
                let stop = stop.clone();
                move || {
                    while let Some(rest) = rounds.next(&mut report)
                        && !stop.wait(rest)
                    {}
                }
            })?;
            Ok(Scrubber {
                stop,
                thread: Some(thread),
            })
        }
        #[cfg(feature = "simulation")]
        Ok(Scrubber {
            task: tokio::spawn(async move {
                while let Some(rest) = rounds.next(&mut report) {
                    tokio::time::sleep(rest).await;
                }
            }),
        })
    }
}

/// Where the scrubber is.
struct Rounds {
    store: Weak<Inner>,
    options: ScrubOptions,
    /// The segment it looks at next.
    number: u32,
    round: Instant,
}

impl Rounds {
    fn new(store: Weak<Inner>, options: ScrubOptions) -> Self {
        Self {
            store,
            options,
            number: 0,
            round: Instant::now(),
        }
    }

    /// Looks at one segment; how long to rest then, `None` once the store is gone.
    fn next(&mut self, report: &mut impl FnMut(Scrubbed)) -> Option<Duration> {
        let started = Instant::now();
        // Held for one segment only, so that a dropped store ends the scrubber.
        let inner = self.store.upgrade()?;
        if inner.stopping.load(Ordering::Acquire) {
            return None;
        }
        let segment = self.number;
        let (bytes, scrubbed) = match inner.scrub_and_suspect(segment) {
            Ok(None) => {
                let rest = self.options.round_interval;
                let rest = rest.saturating_sub(self.round.elapsed());
                self.number = 0;
                self.round = started + rest;
                return Some(rest);
            }
            Ok(Some(bytes)) => (bytes, Scrubbed::Good { segment, bytes }),
            Err(CheckError::Damage(damage)) => (0, Scrubbed::Damaged { segment, damage }),
            Err(CheckError::Io(error)) => (0, Scrubbed::Unreadable { segment, error }),
        };
        report(scrubbed);
        self.number += 1;
        let due = bytes as f64 / self.options.bytes_per_second.max(1) as f64;
        Some(Duration::from_secs_f64(due).saturating_sub(started.elapsed()))
    }
}

impl Inner {
    /// As [`Self::scrub_segment`]; one with which something is wrong is to be examined.
    fn scrub_and_suspect(&self, number: u32) -> Result<Option<u64>, CheckError> {
        let scrubbed = self.scrub_segment(number);
        if scrubbed.is_err() {
            self.log.suspects().add(number);
        }
        scrubbed
    }

    pub(super) fn scrub_segment(&self, number: u32) -> Result<Option<u64>, CheckError> {
        let sealed = self.log.sealed();
        let last = self.view.read().sealed.last_log_id;
        let found = sealed.get(number as usize);
        let Some(segment) = found.filter(|segment| Some(segment.last_log_id) <= last) else {
            return Ok(None);
        };
        let footer = &segment.footer;
        let builder = TreeBuilder::from_reader(&self.tree, footer.start_size)?;
        if builder.root() != footer.start_root {
            return Err(Damage {
                path: "tree".into(),
                offset: 0,
                reason: format!(
                    "root at size {} is {}, the footer of {} says {}",
                    footer.start_size.get(),
                    builder.root().to_hex(),
                    sealed_path(segment).display(),
                    footer.start_root.to_hex()
                ),
            }
            .into());
        }
        let previous = number
            .checked_sub(1)
            .and_then(|before| sealed.get(before as usize));
        let mut checker = Checker::new(self, builder);
        // The segment's hash covers these bytes already.
        checker.commitments = false;
        checker.sealed(segment, previous, |_| Ok(()))?;
        Ok(Some(checker.report.bytes))
    }
}
