//! The only door to the disk: every access to `log/`, `tree/`, `vote`, `watermarks` and `MANIFEST` goes through
//! [`Disk`], so that a simulated disk can lose, tear and refuse anything the real one could.
//!
//! What implementations promise, and no more:
//! - bytes written are durable after [`DiskFile::sync_data`] or [`DiskFile::sync_all`] returned `Ok`, and a later
//!   failed sync says nothing about them;
//! - a write that was not synced may survive in any subset of its 512-byte sectors; a sector is old or new, never mixed;
//! - a name (created, renamed, removed) is durable after [`Disk::sync_dir`] on its directory;
//! - bytes never written, within the length of the file, read as zero.

use std::any::Any;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// Unit in which a write may survive a power cut, bytes.
pub const SECTOR_LENGTH: usize = 512;

/// How to open a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Must not exist yet.
    pub create_new: bool,
    /// Created if it does not exist.
    pub create: bool,
}

impl Open {
    /// An existing file, to read.
    pub const READ: Self = Self {
        read: true,
        write: false,
        create_new: false,
        create: false,
    };
    /// An existing file, to read and write.
    pub const READ_WRITE: Self = Self {
        write: true,
        ..Self::READ
    };
    /// A new file; an error if the name is taken.
    pub const CREATE_NEW: Self = Self {
        create_new: true,
        ..Self::READ_WRITE
    };
    /// An existing or a new file.
    pub const CREATE: Self = Self {
        create: true,
        ..Self::READ_WRITE
    };
}

/// A directory tree on a disk.
pub trait Disk: Send + Sync + Debug {
    /// Creates a directory and its parents; names are durable after [`Disk::sync_dir`] on the parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files (not directories) in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name in the same file system, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes an unprivileged process may still write.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock on a file, created if need be, until the guard is dropped. An error of kind
    /// [`io::ErrorKind::WouldBlock`] means another holder.
    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>>;
    /// How long what comes next would take. Nothing waits for it here: a worker of the store does before it works.
    #[cfg(feature = "simulation")]
    fn latency(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// An open file. Offsets and lengths are bytes; nothing here moves a shared position.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; 0 at or beyond the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes, growing the file if need be.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all slices one behind the other, with as few system calls as possible.
    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the content, and the length needed to read it, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and attributes durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Cuts or grows the file; new bytes are zero.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Sets space aside so that later writes in the range need none; the file grows to the end of the range.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Makes a range read as zero; does not grow the file.
    fn zero_range(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Length of the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Asks the system to forget cached clean pages, so that the next read comes from the device. Advisory.
    fn drop_cache(&self) {}

    /// Fills the buffer, or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let read = read_full_at(self, buffer, offset)?;
        if read < buffer.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "file ends {} bytes before the {} asked for",
                    buffer.len() - read,
                    buffer.len()
                ),
            ));
        }
        Ok(())
    }
}

/// Reads until the buffer is full or the file ends; returns how much was read.
pub fn read_full_at<F: DiskFile + ?Sized>(
    file: &F,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
