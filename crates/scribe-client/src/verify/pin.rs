//! Where the last verified checkpoint is remembered.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Longest note that is read from a file; the format's own limit.
const NOTE_LENGTH_MAX: u64 = 64 * 1_024;

/// Remembers one checkpoint, a signed note, across restarts.
///
/// It is the user's memory: whoever can change it can make the user accept a fork.
pub trait PinStore: Send + Sync + 'static {
    /// The note remembered, or `None` before the first.
    ///
    /// # Errors
    /// If there may be one, but it cannot be read.
    fn load(&self) -> io::Result<Option<String>>;

    /// Remembers this note in place of the one before. Called with larger checkpoints only, one
    /// call at a time, on a thread that may block.
    ///
    /// # Errors
    /// If it is not certain to be remembered; what was verified is then not returned.
    fn store(&self, note: &str) -> io::Result<()>;
}

/// Remembers the checkpoint in a file, which is replaced as a whole.
///
/// Give each program its own file: of two that share one, the last to write wins.
#[derive(Clone, Debug)]
pub struct FilePin {
    path: PathBuf,
}

impl FilePin {
    /// A file, which need not exist yet, in a directory that does.
    pub fn new(path: impl Into<PathBuf>) -> FilePin {
        FilePin { path: path.into() }
    }
}

impl PinStore for FilePin {
    fn load(&self) -> io::Result<Option<String>> {
        let length = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > NOTE_LENGTH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} has {length} bytes, a checkpoint at most 65536",
                    self.path.display()
                ),
            ));
        }
        fs::read_to_string(&self.path).map(Some)
    }

    fn store(&self, note: &str) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
        let temporary = self.path.with_file_name(name);
        let replaced = write_synced(&temporary, note)
            // Cut off before this, the old file is still there; after it, the new one.
            .and_then(|()| fs::rename(&temporary, &self.path));
        if replaced.is_err() {
            // The write's own error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        replaced?;
        // A rename is durable once its directory is.
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

fn write_synced(path: &std::path::Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Remembers the checkpoint as long as the program runs. The first one a program meets is then
/// trusted as far as the policy goes.
#[derive(Debug, Default)]
pub struct MemoryPin {
    note: Mutex<Option<String>>,
}

impl MemoryPin {
    /// Remembers this note from the start.
    pub fn with_note(note: impl Into<String>) -> MemoryPin {
        MemoryPin {
            note: Mutex::new(Some(note.into())),
        }
    }
}

impl PinStore for MemoryPin {
    fn load(&self) -> io::Result<Option<String>> {
        Ok(self
            .note
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    fn store(&self, note: &str) -> io::Result<()> {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(note.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_remembers_the_last_note_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let pin = FilePin::new(directory.path().join("ledger.checkpoint"));
        assert_eq!(pin.load().unwrap(), None);
        for note in ["one\n", "two\n"] {
            pin.store(note).unwrap();
            assert_eq!(pin.load().unwrap().as_deref(), Some(note));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_a_note_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.checkpoint");
        fs::write(&path, vec![b'x'; 65_537]).unwrap();
        assert!(FilePin::new(&path).load().is_err());
        fs::write(&path, b"\xff").unwrap();
        assert!(FilePin::new(&path).load().is_err());
        assert!(
            FilePin::new(directory.path().join("no/such"))
                .store("x")
                .is_err()
        );
    }
}
