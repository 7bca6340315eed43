//! Who does the store's slow work, and how others wait for it.
//!
//! Ordinarily four threads: the log's writer, the one that makes the next segment's file, the sealer, the scrubber. Who
//! waits for one of them sleeps on a [`Condition`] until it is notified.
//!
//! In the simulated world (feature `simulation`) there is one thread for everything, and a worker is a task of the
//! node's own runtime: it is notified, pauses for as long as the simulated disk takes, and takes one step. Whoever waits
//! for it has it take its steps at once. So the order of everything follows the seed, and what waits cannot tell.

#[cfg(not(feature = "simulation"))]
pub(crate) use parking_lot::Condvar as Condition;

#[cfg(feature = "simulation")]
pub(crate) use simulated::{Condition, Step, start};

#[cfg(feature = "simulation")]
mod simulated {
    use std::sync::{Arc, OnceLock};

    use parking_lot::{Mutex, MutexGuard};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::super::disk::Disk;

    /// What came of one step of a worker.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Step {
        /// It did something, and there may be more.
        Done,
        /// There was nothing to do.
        Idle,
        /// It has ended.
        Ended,
    }

    type Helper = Box<dyn Fn() -> Step + Send + Sync>;

    /// What is waited for: something only one worker brings about.
    #[derive(Default)]
    pub(crate) struct Condition {
        bell: Arc<Notify>,
        helper: OnceLock<Helper>,
    }

    impl std::fmt::Debug for Condition {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Condition")
        }
    }

    impl Condition {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        /// Says whose steps bring it about.
        pub(crate) fn worked_by(&self, step: impl Fn() -> Step + Send + Sync + 'static) {
            // Set once, at start.
            let _ = self.helper.set(Box::new(step));
        }

        /// Tells the worker that there is something to do.
        pub(crate) fn notify_one(&self) {
            self.bell.notify_one();
        }

        /// As [`Self::notify_one`]: nobody else sleeps.
        pub(crate) fn notify_all(&self) {
            self.bell.notify_one();
        }

        /// Lets the worker take a step instead of waiting for it.
        ///
        /// # Panics
        /// If it can take none: then nothing would ever end the wait, which is a bug of the store or of the simulation.
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let step = MutexGuard::unlocked(guard, || self.help());
            assert!(
                step == Step::Done,
                "somebody waits for a worker of the store that is {step:?}"
            );
        }

        /// Has the worker take a step.
        pub(crate) fn help(&self) -> Step {
            self.helper.get().map_or(Step::Ended, |helper| helper())
        }

        pub(crate) fn bell(&self) -> Arc<Notify> {
            Arc::clone(&self.bell)
        }
    }

    /// Starts a worker: at each ring of the bell it steps until it is idle, each time after as long as the disk takes.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        bell: Arc<Notify>,
        step: impl FnMut() -> Step + Send + 'static,
    ) -> JoinHandle<()> {
        let step = Mutex::new(step);
        tokio::spawn(async move {
            loop {
                loop {
                    tokio::time::sleep(disk.latency()).await;
                    match (step.lock())() {
                        Step::Done => {}
                        Step::Idle => break,
                        Step::Ended => return,
                    }
                }
                bell.notified().await;
            }
        })
    }
}
