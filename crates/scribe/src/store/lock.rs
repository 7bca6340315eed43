//! `LOCK`: one process at a time has a data directory open.

use std::any::Any;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::error::StoreError;

/// Name of the lock file; it is empty, and its existence says nothing.
pub const LOCK_NAME: &str = "LOCK";

/// Held while a data directory is open. The operating system lets go of it when the process ends, however it ends.
pub struct DirLock {
    _guard: Box<dyn Any + Send>,
}

impl std::fmt::Debug for DirLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirLock")
    }
}

impl DirLock {
    /// Takes the lock of a data directory or says who may have it.
    pub fn take(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_NAME);
        match disk.try_lock(&path) {
            Ok(guard) => Ok(Self { _guard: guard }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(StoreError::Locked { path })
            }
            Err(error) => Err(StoreError::io("lock", &path, error)),
        }
    }
}
