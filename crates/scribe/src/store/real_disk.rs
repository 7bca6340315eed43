//! [`Disk`] on the file system of the machine: `pread`, `pwritev`, `fdatasync`, `fallocate`. Never `mmap`: an I/O error
//! must be an error, not a signal.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, Open};

/// Most slices one `pwritev` takes on the systems we know (`IOV_MAX`).
const SLICES_MAX: usize = 1_024;
/// Zeros are written in pieces of this many bytes where the file system cannot zero a range by itself.
const ZERO_LENGTH: usize = 64 * 1_024;

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(how.read)
            .write(how.write)
            .create(how.create)
            .create_new(how.create_new)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut slices = slices.to_vec();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // drops empty slices in front
        while !rest.is_empty() {
            let most = rest.len().min(SLICES_MAX);
            match rustix::io::pwritev(&self.0, &rest[..most], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            let done = rustix::io::retry_on_intr(|| {
                fallocate(&self.0, FallocateFlags::empty(), offset, length)
            });
            match done {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.0.metadata()?.len() < offset + length {
            self.0.set_len(offset + length)?;
        }
        Ok(())
    }

    fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = (offset + length).min(self.0.metadata()?.len());
        if end <= offset {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            let done =
                rustix::io::retry_on_intr(|| fallocate(&self.0, flags, offset, end - offset));
            match done {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let zeros = [0; ZERO_LENGTH];
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZERO_LENGTH as u64);
            self.0.write_all_at(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn drop_cache(&self) {
        #[cfg(target_os = "linux")]
        {
            // Advice: a file system that ignores it only makes a later check weaker.
            let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slices_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk
            .open(&dir.path().join("f"), Open::CREATE_NEW)
            .unwrap();
        let pieces: Vec<Vec<u8>> = (0..3_000_usize).map(|i| vec![i as u8; i % 5]).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_all_vectored_at(&slices, 10).unwrap();
        let expected: Vec<u8> = pieces.concat();
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 10).unwrap();
        assert_eq!(found, expected);
        assert_eq!(file.len().unwrap(), 10 + expected.len() as u64);
    }

    #[test]
    fn zeroing_and_allocating_keep_what_they_must() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk
            .open(&dir.path().join("f"), Open::CREATE_NEW)
            .unwrap();
        file.write_all_at(&[7; 3_000], 0).unwrap();
        file.allocate(0, 8_192).unwrap();
        assert_eq!(file.len().unwrap(), 8_192);
        file.zero_range(1_000, 1_000_000).unwrap();
        assert_eq!(file.len().unwrap(), 8_192);
        let mut found = vec![1; 8_192];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[..1_000].iter().all(|byte| *byte == 7));
        assert!(found[1_000..].iter().all(|byte| *byte == 0));
        assert_eq!(file.read_at(&mut found, 9_000).unwrap(), 0);
        let error = file.read_exact_at(&mut [0; 2], 8_191).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let guard = RealDisk.try_lock(&path).unwrap();
        assert_eq!(
            RealDisk.try_lock(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(guard);
        RealDisk.try_lock(&path).unwrap();
    }
}
