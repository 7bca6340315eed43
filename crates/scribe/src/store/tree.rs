//! The tree files: one append-only file of 32-byte hashes per tile level, for the sealed part of the tree.
//!
//! `tree/L0` holds leaf hashes, `tree/L1` the root of every 256 of them, and so on: a C2SP tile is a byte range of one
//! of these files. Leaves of open segments are not here but in memory ([`super::open_segment`]), so that after a crash
//! the files are simply cut to the length the last sealed segment calls for.
//!
//! A hash is written once, at an offset that follows from its number: writing again after a crash writes the same
//! bytes. There is no checksum; [`TreeFiles::root_at`] against the roots in segment footers is the check.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::tree::{HashReader, LEVEL_MAX, level_length, root_at};

use super::disk::{Disk, DiskFile, Open};
use super::error::{IoContext, StoreError};
use crate::planted;

/// Bytes of one hash.
pub const HASH_LENGTH: u64 = 32;

/// Consecutive hashes of one level that one segment brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LevelRun {
    /// Number of the first one within its level.
    pub start: u64,
    /// The hashes.
    pub hashes: Vec<Hash>,
}

/// The files under `tree/`.
#[derive(Debug)]
pub struct TreeFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// By level. Files are made when the level gets its first hash.
    files: RwLock<Vec<Arc<dyn DiskFile>>>,
}

impl TreeFiles {
    /// Opens the files in `directory`, which is created if it is not there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, StoreError> {
        disk.create_dir_all(directory)
            .context("create directory", directory)?;
        // Always, not only when they are new: a process killed in between leaves names that are not durable yet.
        for directory in directory.parent().into_iter().chain([directory]) {
            disk.sync_dir(directory)
                .context("sync directory", directory)?;
        }
        let mut files = Vec::new();
        for level in 0..=LEVEL_MAX {
            let path = directory.join(format!("L{level}"));
            if !disk.exists(&path).context("look for", &path)? {
                break;
            }
            files.push(disk.open(&path, Open::READ_WRITE).context("open", &path)?);
        }
        Ok(Self {
            disk,
            directory: directory.to_owned(),
            files: RwLock::new(files),
        })
    }

    /// Where a level's file is.
    pub fn path(&self, level: u8) -> PathBuf {
        self.directory.join(format!("L{level}"))
    }

    /// Cuts every file to what a tree of `size` leaves needs. Bytes beyond are of a segment whose sealing a crash
    /// interrupted; they will be written again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn cut(&self, size: TreeSize) -> Result<(), StoreError> {
        for (level, file) in self.files.read().iter().enumerate() {
            let path = self.path(level as u8);
            let needed = level_length(level as u8, size) * HASH_LENGTH;
            if file.len().context("measure", &path)? > needed {
                file.set_len(needed).context("cut", &path)?;
                file.sync_all().context("sync", &path)?;
            }
        }
        Ok(())
    }

    /// Whether the files are long enough for `size` leaves and their right edge hashes to `root`.
    ///
    /// # Errors
    /// When the disk refuses; files that are too short or say something else are `Ok(false)`.
    pub fn agrees(&self, size: TreeSize, root: &Hash) -> io::Result<bool> {
        for level in 0..=LEVEL_MAX {
            let needed = level_length(level, size) * HASH_LENGTH;
            let length = match self.files.read().get(usize::from(level)) {
                Some(file) => file.len()?,
                None => 0,
            };
            if length < needed {
                return Ok(false);
            }
        }
        Ok(self.root_at(size)? == *root)
    }

    /// Writes a run at its place in a level's file; not durable before [`TreeFiles::sync`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, level: u8, run: &LevelRun) -> io::Result<()> {
        if run.hashes.is_empty() {
            return Ok(());
        }
        let file = self.file_for_writing(level)?;
        let mut bytes = Vec::with_capacity(run.hashes.len() * HASH_LENGTH as usize);
        for hash in &run.hashes {
            bytes.extend_from_slice(hash.as_bytes());
        }
        file.write_all_at(&bytes, run.start * HASH_LENGTH)
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        // planted
        if planted::has("manifest-before-data") {
            return Ok(());
        }
        let files = self.files.read().clone();
        files.iter().try_for_each(|file| file.sync_data())
    }

    /// The root over the first `size` leaves.
    ///
    /// # Errors
    /// When the disk refuses or the files are too short.
    pub fn root_at(&self, size: TreeSize) -> io::Result<Hash> {
        root_at(self, size)
    }

    /// Reads `count` hashes of `level` from number `start` on; `count` may be any number.
    ///
    /// # Errors
    /// When the disk refuses or the file is too short.
    pub fn read_run(
        &self,
        level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Hash>,
    ) -> io::Result<()> {
        let file = self.files.read().get(usize::from(level)).cloned();
        let file = file.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} does not exist", self.path(level).display()),
            )
        })?;
        let mut bytes = vec![0; count * HASH_LENGTH as usize];
        file.read_exact_at(&mut bytes, start * HASH_LENGTH)
            .map_err(|error| {
                let path = self.path(level);
                io::Error::new(error.kind(), format!("read {}: {error}", path.display()))
            })?;
        let (hashes, _) = bytes.as_chunks::<{ HASH_LENGTH as usize }>();
        out.extend(hashes.iter().map(|hash| Hash(*hash)));
        Ok(())
    }

    fn file_for_writing(&self, level: u8) -> io::Result<Arc<dyn DiskFile>> {
        let wanted = usize::from(level);
        if let Some(file) = self.files.read().get(wanted) {
            return Ok(file.clone());
        }
        let mut files = self.files.write();
        while files.len() <= wanted {
            let path = self.path(files.len() as u8);
            let file = self.disk.open(&path, Open::CREATE)?;
            // Name before content: a crash here leaves an empty file, which is what a new level is.
            self.disk.sync_dir(&self.directory)?;
            files.push(file);
        }
        Ok(files[wanted].clone())
    }
}

impl HashReader for TreeFiles {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        self.read_run(level, start, count, out)
    }
}
