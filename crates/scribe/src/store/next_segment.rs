//! Allocates the next segment file ahead, in the background: making a file inline was measured to stall for up to
//! seconds under load, because it waits for the file system's journal.
//!
//! `next.seg` is allocated and synced, and its name is durable, before it is handed out. It gets its final name by a
//! rename when it is needed. It is never a file that held frames before: a stale frame cannot come back.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, Open};
use super::segment::NEXT_NAME;
use super::worker::Condition;
#[cfg(feature = "simulation")]
use super::worker::Step;

#[derive(Debug)]
enum Stage {
    /// The background thread is to make a file.
    Wanted,
    /// It is being made.
    Making,
    /// It can be taken.
    Ready(Arc<dyn DiskFile>),
    /// It was taken, or could not be made; nothing happens until it is wanted again.
    Idle,
    /// No more files are wanted.
    Stopped,
}

/// The file made ahead, between the thread that makes it and the writer that takes it.
#[derive(Debug)]
pub(crate) struct NextSegment {
    stage: Mutex<Stage>,
    changed: Condition,
}

impl NextSegment {
    pub(crate) fn new() -> Self {
        Self {
            stage: Mutex::new(Stage::Wanted),
            changed: Condition::new(),
        }
    }

    /// Takes the file, waiting for one that is being made; `None` if it could not be made.
    pub(crate) fn take(&self) -> Option<Arc<dyn DiskFile>> {
        let mut stage = self.stage.lock();
        while matches!(*stage, Stage::Wanted | Stage::Making) {
            self.changed.wait(&mut stage);
        }
        match std::mem::replace(&mut *stage, Stage::Idle) {
            Stage::Ready(file) => Some(file),
            Stage::Stopped => {
                *stage = Stage::Stopped;
                None
            }
            _ => None,
        }
    }

    /// Asks for another file. To be called once the one taken has its final name.
    pub(crate) fn want(&self) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Idle) {
            *stage = Stage::Wanted;
            self.changed.notify_all();
        }
    }

    /// Ends [`NextSegment::run`].
    pub(crate) fn stop(&self) {
        *self.stage.lock() = Stage::Stopped;
        self.changed.notify_all();
    }

    /// Makes files until stopped. A full disk is no failure: the writer finds out when it has nowhere to write, and
    /// the sequencer refuses writes long before. Any other error is passed to `poison`.
    #[cfg(not(feature = "simulation"))]
    pub(crate) fn run(
        &self,
        disk: &dyn Disk,
        log_dir: &Path,
        length: u64,
        poison: impl Fn(io::Error),
    ) {
        loop {
            let mut stage = self.stage.lock();
            loop {
                match *stage {
                    Stage::Wanted => break,
                    Stage::Stopped => return,
                    _ => self.changed.wait(&mut stage),
                }
            }
            drop(stage);
            self.make_one(disk, log_dir, length, &poison);
        }
    }

    /// Makes a file if one is wanted.
    #[cfg(feature = "simulation")]
    pub(crate) fn step(
        &self,
        disk: &dyn Disk,
        log_dir: &Path,
        length: u64,
        poison: impl Fn(io::Error),
    ) -> Step {
        match *self.stage.lock() {
            Stage::Wanted => {}
            Stage::Stopped => return Step::Ended,
            _ => return Step::Idle,
        }
        self.make_one(disk, log_dir, length, &poison);
        Step::Done
    }

    /// What rings when a file is wanted, and is waited for by who takes it.
    #[cfg(feature = "simulation")]
    pub(crate) fn condition(&self) -> &Condition {
        &self.changed
    }

    fn make_one(&self, disk: &dyn Disk, log_dir: &Path, length: u64, poison: &dyn Fn(io::Error)) {
        {
            let mut stage = self.stage.lock();
            // It may have been stopped just now.
            if !matches!(*stage, Stage::Wanted) {
                return;
            }
            *stage = Stage::Making;
        }
        let made = make(disk, log_dir, length);
        let mut stage = self.stage.lock();
        let mut failed = None;
        if matches!(*stage, Stage::Making) {
            *stage = match made {
                Ok(file) => Stage::Ready(file),
                Err(error) => {
                    failed = Some(error);
                    Stage::Idle
                }
            };
            self.changed.notify_all();
        }
        drop(stage);
        if let Some(error) = failed {
            if is_full(&error) {
                tracing::warn!(%error, "no space to allocate the next segment ahead");
            } else {
                poison(error);
            }
        }
    }
}

fn make(disk: &dyn Disk, log_dir: &Path, length: u64) -> io::Result<Arc<dyn DiskFile>> {
    let path = log_dir.join(NEXT_NAME);
    if disk.exists(&path)? {
        // Left by an attempt that ran out of space.
        disk.remove(&path)?;
    }
    let file = disk.open(&path, Open::CREATE_NEW)?;
    let prepared = file
        .allocate(0, length)
        .and_then(|()| file.sync_all())
        .and_then(|()| disk.sync_dir(log_dir));
    if let Err(error) = prepared {
        drop(file);
        // What was allocated before the disk was full is space the log may still need. If it cannot be removed, the
        // next attempt or the next open does it.
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove an unfinished segment file");
        }
        return Err(error);
    }
    Ok(file)
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::super::sim_disk::{DiskFault, DiskOperation, SimDisk};
    use super::*;

    #[test]
    fn a_file_that_cannot_be_finished_takes_no_space() {
        let (dir, path) = (Path::new("/"), Path::new("/next.seg"));
        let disk = SimDisk::new();
        disk.set_capacity(Some(1_000));
        assert!(is_full(&make(&disk, dir, 4_096).unwrap_err()));
        assert!(!disk.exists(path).unwrap());
        disk.set_capacity(None);
        disk.fail(&[DiskOperation::Sync], 0, DiskFault::Full);
        assert!(is_full(&make(&disk, dir, 4_096).unwrap_err()));
        assert!(!disk.exists(path).unwrap());
        assert_eq!(make(&disk, dir, 4_096).unwrap().len().unwrap(), 4_096);
    }
}
