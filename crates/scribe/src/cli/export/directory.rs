//! The directory an export of tiles goes to: what is there, and writing so that a file under its own name is whole.
//!
//! A file is written beside its name, synced, and renamed; files come in batches, so that their syncs overlap. The
//! checkpoint is the last: what it covers is there for good by then.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use scribe_proof::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::tile::Tile;
use scribe_proof::tree::HashReader;

use super::super::output::Failure;

/// Files written and not yet under their own names. Each is open until then.
const BATCH_FILES_MAX: usize = 128;
/// A checkpoint with many cosignatures has some thousand bytes.
const CHECKPOINT_LENGTH_MAX: u64 = 1 << 20;
/// Name of the checkpoint's file.
const CHECKPOINT: &str = "checkpoint";

/// A directory of tiles, taken for this process alone.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
    batch: Vec<Written>,
    /// Directories with new names.
    touched: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Written {
    partial: PathBuf,
    path: PathBuf,
    file: File,
}

impl Directory {
    /// Opens or makes it.
    ///
    /// # Errors
    /// It cannot be made, another export is at work in it, or it is a data directory.
    pub(super) fn open(root: &Path) -> Result<Directory, Failure> {
        fs::create_dir_all(root).map_err(|error| Failure::file("create", root, &error))?;
        if root.join("MANIFEST").exists() {
            return Err(
                Failure::user(format!("`{}` is a data directory", root.display()))
                    .hint("--tiles takes a directory of its own"),
            );
        }
        let lock = File::open(root).map_err(|error| Failure::file("open", root, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Failure::user(format!(
                    "another export is at work in `{}`",
                    root.display()
                )));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(Failure::file("lock", root, &error));
            }
        }
        Ok(Directory {
            root: root.to_owned(),
            _lock: lock,
            batch: Vec::new(),
            touched: BTreeSet::new(),
        })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The checkpoint it holds, if it holds one.
    pub(super) fn checkpoint(&self) -> Result<Option<String>, Failure> {
        let path = self.root.join(CHECKPOINT);
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, &error)),
        };
        if length > CHECKPOINT_LENGTH_MAX {
            return Err(Failure::verification(format!(
                "`{}` is {length} bytes long, a checkpoint has at most {CHECKPOINT_LENGTH_MAX}",
                path.display()
            )));
        }
        fs::read_to_string(&path)
            .map(Some)
            .map_err(|error| Failure::file("read", &path, &error))
    }

    /// Whether a file is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).is_file()
    }

    /// Whether any openings were ever written to it.
    pub(super) fn has_openings(&self) -> bool {
        self.root.join("openings").is_dir()
    }

    /// A file of at most `length_max` bytes; `None` if it is not there or longer.
    pub(super) fn read(&self, path: &str, length_max: u64) -> io::Result<Option<Vec<u8>>> {
        read(&self.root.join(path), length_max)
    }

    /// Opens a file for reading; `None` if it is not there.
    pub(super) fn open_file(&self, path: &str) -> io::Result<Option<File>> {
        match File::open(self.root.join(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A tree's stored hashes as its tiles have them.
    pub(super) fn hashes(&self, size: TreeSize) -> TileReader<'_> {
        TileReader {
            root: &self.root,
            size,
        }
    }

    /// Writes a file whole.
    pub(super) fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.write_with(path, |file| {
            file.write_all(bytes)
                .map_err(|error| Failure::file("write", Path::new(path), &error))
        })
    }

    /// Writes a file in pieces. It gets its name with the others of its batch.
    pub(super) fn write_with(
        &mut self,
        path: &str,
        write: impl FnOnce(&mut File) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut file, partial, path) = self.begin(path)?;
        if let Err(failure) = write(&mut file) {
            // A leftover would only take space; the next export overwrites it.
            let _ = fs::remove_file(&partial);
            return Err(failure);
        }
        self.end(file, partial, path)
    }

    /// A file beside its name, to be written and handed to [`Directory::end`].
    pub(super) fn begin(&mut self, path: &str) -> Result<(File, PathBuf, PathBuf), Failure> {
        let path = self.root.join(path);
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        if !self.touched.contains(&parent) {
            fs::create_dir_all(&parent)
                .map_err(|error| Failure::file("create", &parent, &error))?;
            // Each directory above may be new as well.
            let above = parent
                .ancestors()
                .take_while(|above| above.starts_with(&self.root));
            self.touched.extend(above.map(Path::to_owned));
        }
        let file =
            File::create(&partial).map_err(|error| Failure::file("create", &partial, &error))?;
        Ok((file, partial, path))
    }

    /// A file is complete.
    pub(super) fn end(
        &mut self,
        file: File,
        partial: PathBuf,
        path: PathBuf,
    ) -> Result<(), Failure> {
        self.batch.push(Written {
            partial,
            path,
            file,
        });
        match self.batch.len() < BATCH_FILES_MAX {
            true => Ok(()),
            false => self.name_batch(),
        }
    }

    /// Syncs and names what was written. A crash before a rename leaves a file named `.partial`, which the next export
    /// overwrites; after it, a whole file that no checkpoint covers yet.
    fn name_batch(&mut self) -> Result<(), Failure> {
        for written in &self.batch {
            written
                .file
                .sync_all()
                .map_err(|error| Failure::file("sync", &written.partial, &error))?;
        }
        for written in self.batch.drain(..) {
            fs::rename(&written.partial, &written.path)
                .map_err(|error| Failure::file("write", &written.path, &error))?;
        }
        Ok(())
    }

    /// Makes everything durable, and only then shows the checkpoint that covers it. A crash before its rename leaves
    /// the checkpoint of the export before, with more files than it needs.
    pub(super) fn finish(mut self, note: &str) -> Result<(), Failure> {
        self.name_batch()?;
        for directory in &self.touched {
            sync_directory(directory)?;
        }
        if self.checkpoint()?.as_deref() == Some(note) {
            return Ok(());
        }
        self.write(CHECKPOINT, note.as_bytes())?;
        self.name_batch()?;
        sync_directory(&self.root)
    }
}

fn sync_directory(path: &Path) -> Result<(), Failure> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Failure::file("sync", path, &error))
}

fn read(path: &Path, length_max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() <= length_max => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads hashes from the tiles of a tree of this size.
#[derive(Debug)]
pub(super) struct TileReader<'a> {
    root: &'a Path,
    size: TreeSize,
}

impl HashReader for TileReader<'_> {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let tile = Tile::at(level, start / 256, self.size)
            .ok_or_else(|| broken(format!("the tree has no hash {start} of level {level}")))?;
        let path = self.root.join(tile.path());
        let length = usize::from(tile.width()) * Hash::LENGTH;
        let bytes = read(&path, length as u64)?.unwrap_or_default();
        let from = (start - tile.start()) as usize;
        let hashes = bytes
            .as_chunks::<{ Hash::LENGTH }>()
            .0
            .get(from..from + count);
        match hashes {
            Some(hashes) if bytes.len() == length => {
                out.extend(hashes.iter().map(|hash| Hash(*hash)));
                Ok(())
            }
            _ => Err(broken(format!(
                "`{}` must be {length} bytes long, found {}",
                path.display(),
                bytes.len()
            ))),
        }
    }
}
