//! What is derived from the segments: the tree files, and the key index.
//!
//! The index is opened through a directory of its own that holds links to its tables and copies of the rest, because
//! opening a database may write to it, and an audit changes nothing.

use std::fs::{self, File};
use std::hash::RandomState;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use scribe_proof::hash::Hash;
use scribe_proof::tree::{HashReader, LEVEL_MAX, level_length};
use scribe_proof::{LeafIndex, TreeSize};

use super::segment::record_fingerprint;
use crate::audit::{AuditError, Finding};
use crate::store::Remembered;
use crate::store::index::fjall::FjallIndex;
use crate::store::index::{IndexedSegment, KeyIndex as _, version_key_index};
use crate::store::segment::SealedSegment;
use crate::store::tree::HASH_LENGTH;

/// Memory for blocks of the index: it is read once, front to back.
const INDEX_CACHE_BYTES: u64 = 2 << 20;
/// Hashes compared at once: as many bytes as stay close to the processor.
const RUN_MAX: usize = 2_048;

/// Hashes by level: in the tree files for sealed segments, in memory behind them.
#[derive(Debug, Default)]
pub(super) struct TreeReader {
    files: Vec<Option<File>>,
    /// Tree size the files must have.
    sealed: TreeSize,
    /// Hashes behind that, by level.
    tail: Vec<Vec<Hash>>,
}

impl TreeReader {
    /// The files of `directory` as far as they are there.
    pub(super) fn open(directory: &Path, sealed: TreeSize) -> TreeReader {
        let files = (0..=LEVEL_MAX)
            .map(|level| File::open(directory.join("tree").join(format!("L{level}"))).ok())
            .collect();
        TreeReader {
            files,
            sealed,
            tail: vec![Vec::new(); usize::from(LEVEL_MAX) + 1],
        }
    }

    /// Adds a hash that is in no file.
    pub(super) fn push(&mut self, level: u8, hash: Hash) {
        if let Some(level) = self.tail.get_mut(usize::from(level)) {
            level.push(hash);
        }
    }

    /// Compares derived hashes with the file that must have them, from hash number `start` of `level` on.
    pub(super) fn compare(
        &self,
        level: u8,
        start: u64,
        derived: &[Hash],
    ) -> Result<(), AuditError> {
        let name = name(level);
        let Some(Some(file)) = self.files.get(usize::from(level)) else {
            return match derived.is_empty() {
                true => Ok(()),
                false => Err(Finding::new(name, "the file is missing")
                    .hint(REBUILD)
                    .into()),
            };
        };
        let mut bytes = Vec::new();
        for (piece, hashes) in derived.chunks(RUN_MAX).enumerate() {
            let first = start + (piece * RUN_MAX) as u64;
            bytes.resize(hashes.len() * HASH_LENGTH as usize, 0);
            match file.read_exact_at(&mut bytes, first * HASH_LENGTH) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let length = file.metadata().map_or(0, |metadata| metadata.len());
                    return Err(Finding::new(name, "the file ends before its hashes do")
                        .at(length)
                        .hint(REBUILD)
                        .into());
                }
                Err(error) => return Err(AuditError::io(name, &error)),
            }
            let (stored, _) = bytes.as_chunks::<{ HASH_LENGTH as usize }>();
            let wrong = hashes.iter().zip(stored).position(|(a, b)| a.0 != *b);
            if let Some(at) = wrong {
                let number = first + at as u64;
                let differs = hashes[at]
                    .0
                    .iter()
                    .zip(&stored[at])
                    .take_while(|(a, b)| a == b);
                let finding = Finding::new(
                    name,
                    format!(
                        "hash {number} of level {level} is {}, the entries give {}",
                        Hash(stored[at]),
                        hashes[at]
                    ),
                )
                .at(number * HASH_LENGTH + differs.count() as u64)
                .entry(number << (8 * u32::from(level)))
                .hint(REBUILD);
                return Err(finding.into());
            }
        }
        Ok(())
    }

    /// Each file must be as long as the sealed part of the tree needs, and no more.
    pub(super) fn check_lengths(&self) -> Result<u64, AuditError> {
        let mut files = 0;
        for (level, file) in self.files.iter().enumerate() {
            let level = level as u8;
            let needed = level_length(level, self.sealed) * HASH_LENGTH;
            let Some(file) = file else { continue };
            files += 1;
            let name = name(level);
            let length = file
                .metadata()
                .map_err(|error| AuditError::io(&name, &error))?
                .len();
            if length != needed {
                let reason = format!(
                    "the file has {length} bytes, {} sealed entries give {needed}",
                    self.sealed
                );
                return Err(Finding::new(name, reason)
                    .at(length.min(needed))
                    .hint(REBUILD)
                    .into());
            }
        }
        Ok(files)
    }
}

const REBUILD: &str = "tree files are derived: the entries are not concerned, and the node mends the files when it starts, \
                       or after `tree/` was removed";

fn name(level: u8) -> String {
    format!("tree/L{level}")
}

impl HashReader for TreeReader {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::UnexpectedEof, "no such hash");
        let in_files = level_length(level, self.sealed);
        let from_files = in_files.saturating_sub(start).min(count as u64) as usize;
        if from_files > 0 {
            let file = self.files.get(usize::from(level));
            let file = file.and_then(Option::as_ref).ok_or_else(missing)?;
            let mut bytes = vec![0; from_files * HASH_LENGTH as usize];
            file.read_exact_at(&mut bytes, start * HASH_LENGTH)?;
            let (hashes, _) = bytes.as_chunks::<{ HASH_LENGTH as usize }>();
            out.extend(hashes.iter().map(|hash| Hash(*hash)));
        }
        if from_files < count {
            let first = (start + from_files as u64 - in_files) as usize;
            let tail = self.tail.get(usize::from(level)).ok_or_else(missing)?;
            let hashes = tail
                .get(first..first + count - from_files)
                .ok_or_else(missing)?;
            out.extend_from_slice(hashes);
        }
        Ok(())
    }
}

/// The key index, opened where it cannot be changed.
pub(super) struct IndexCopy {
    index: Option<FjallIndex>,
    directory: PathBuf,
}

impl IndexCopy {
    /// Opens the index of a data directory.
    pub(super) fn open(directory: &Path) -> Result<IndexCopy, AuditError> {
        let original = directory.join("index");
        if !original.is_dir() {
            return Err(Self::finding("it is missing").into());
        }
        let failed = |error: io::Error| AuditError::io("index", &error);
        let mut copy = IndexCopy {
            index: None,
            directory: temporary_directory().map_err(failed)?,
        };
        let original = fs::canonicalize(&original).map_err(failed)?;
        copy_database(&original, &copy.directory).map_err(failed)?;
        match FjallIndex::open(&copy.directory, INDEX_CACHE_BYTES) {
            Ok(index) => copy.index = Some(index),
            Err(error) => return Err(Self::finding(error.to_string()).into()),
        }
        Ok(copy)
    }

    pub(super) fn finding(reason: impl Into<String>) -> Finding {
        Finding::new("index", reason).hint(
            "the key index is derived: the entries are not concerned; `scribe repair --rebuild-index` makes it again",
        )
    }

    fn ask<T>(&self, ask: impl FnOnce(&FjallIndex) -> io::Result<T>) -> Result<T, AuditError> {
        let index = self.index.as_ref();
        let index = index.ok_or_else(|| AuditError::Unexpected("the index is closed".into()))?;
        // The database asserts some of its invariants on what it reads: damage may come as a panic.
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(index)));
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Self::finding(error.to_string()).into()),
            Err(_) => Err(Self::finding("the database panicked while it was read").into()),
        }
    }

    pub(super) fn remembered(&self, key_hash: &[u8; 16]) -> Result<Option<Remembered>, AuditError> {
        self.ask(|index| index.remembered(key_hash))
    }

    /// The newest version of a key before an entry.
    pub(super) fn before(
        &self,
        key: &[u8],
        entry: LeafIndex,
    ) -> Result<Option<LeafIndex>, AuditError> {
        let found = self.ask(|index| index.latest(key, TreeSize::new(entry.get())))?;
        Ok(found.map(|version| version.index))
    }

    /// The index must have taken in exactly these segments, or more (sealing was interrupted).
    pub(super) fn check_segments(&self, sealed: &[SealedSegment]) -> Result<(), AuditError> {
        let known = self.ask(|index| index.segments())?;
        for segment in sealed {
            let footer = &segment.footer;
            let expected = IndexedSegment {
                number: segment.number,
                end_size: segment.footer.end_size,
                end_root: segment.footer.end_root,
                versions: footer.end_size.get() - footer.start_size.get(),
            };
            if known.get(segment.number as usize) != Some(&expected) {
                let reason = format!("segment {} is not in it as it is", segment.number);
                return Err(Self::finding(reason).into());
            }
        }
        Ok(())
    }

    /// How many versions below `size` the index has, and their sum.
    pub(super) fn sum(
        &self,
        size: TreeSize,
        hasher: &RandomState,
    ) -> Result<(u64, u64), AuditError> {
        self.ask(|index| {
            let (mut versions, mut sum) = (0, 0u64);
            index.visit_records(&mut |key, record| {
                // What ends in no leaf index is no version: it is counted, so that it is noticed.
                if version_key_index(key).is_none_or(|index| size.contains(index)) {
                    versions += 1;
                    sum = sum.wrapping_add(record_fingerprint(hasher, key, record));
                }
            })?;
            Ok((versions, sum))
        })
    }
}

impl Drop for IndexCopy {
    fn drop(&mut self) {
        drop(self.index.take());
        // Only links and small files of this process; if they stay, they are in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn temporary_directory() -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("scribe-audit-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
}

/// Makes a directory through which the database can be read: its tables, which are never changed, as links; the rest,
/// which is small, as copies.
fn copy_database(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            if entry.file_name() == "tables" {
                for table in fs::read_dir(&path)? {
                    let table = table?;
                    std::os::unix::fs::symlink(table.path(), target.join(table.file_name()))?;
                }
            } else {
                copy_database(&path, &target)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "jnl") {
            // The journal is allocated ahead and never used: that it is blank was checked.
            let length = entry.metadata()?.len();
            File::create(&target)?.set_len(length)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
