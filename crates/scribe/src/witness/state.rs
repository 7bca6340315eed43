//! What a witness remembers of each log, on disk.
//!
//! ```text
//! <state dir>/LOCK                 one process at a time
//!             <64 hex>.state       per log, named after SHA-256 of its origin
//!             <64 hex>.tmp         left by a crash; says nothing
//! ```
//!
//! A state is the note that was cosigned last: the checkpoint, the log's signatures and this witness's own, which is
//! also what shows that the file is whole. A log that is followed and has nothing cosigned yet has a file that says so,
//! so that a file that is missing is always a loss. Invariant: what is on disk is never older than any cosignature that
//! left the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::cosignature;
use scribe_proof::key::VerifierKey;
use scribe_proof::note::NOTE_LENGTH_MAX;

use super::decide::Remembered;
use super::logs::FollowedLog;
use crate::store::disk::{Disk, Open};

/// First line of a state: what the file is, and its version.
const STATE_MAGIC: &str = "scribe-ledger/witness-state/v1";
/// Longest state file: the note, and two lines above it.
const STATE_LENGTH_MAX: u64 = NOTE_LENGTH_MAX as u64 + 8 * 1_024;

/// The directory with the states. Whoever has it holds its lock.
#[derive(Debug, Clone)]
pub(super) struct StateDir {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What a state file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// There is no file.
    Missing,
    /// Nothing was cosigned yet.
    Fresh,
    /// This note was cosigned last.
    Cosigned { head: Remembered, note: String },
}

/// Why a state was not stored.
#[derive(Debug)]
pub(super) struct PutError {
    /// Whether the old state is certainly still in place and another attempt may succeed.
    pub harmless: bool,
    /// What failed.
    pub text: String,
}

impl StateDir {
    /// # Errors
    /// The directory cannot be made.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<StateDir> {
        if !disk.exists(dir)? {
            disk.create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|path| !path.as_os_str().is_empty()) {
                disk.sync_dir(parent)?;
            }
        }
        Ok(StateDir {
            disk,
            dir: dir.to_path_buf(),
        })
    }

    pub fn path(&self, log: &FollowedLog) -> PathBuf {
        self.dir.join(format!("{}.state", log.id()))
    }

    /// What is remembered of a log.
    ///
    /// # Errors
    /// The file cannot be read, or is not one this witness wrote.
    pub fn load(&self, log: &FollowedLog, key: &VerifierKey) -> Result<State, String> {
        let path = self.path(log);
        let Some(text) = self
            .read(&path)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?
        else {
            return Ok(State::Missing);
        };
        parse(&text, log, key).map_err(|rule| format!("`{}` is damaged: {rule}", path.display()))
    }

    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let file = match self.disk.open(path, Open::READ) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.len()?;
        if length > STATE_LENGTH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is {length} bytes long, at most {STATE_LENGTH_MAX} are allowed"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0)?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// Makes this the state of a log: `note` with this witness's cosignature, or nothing cosigned yet. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`PutError`]. The state on disk is the old one or the new one then, never a mixture, and the new one has not left
    /// the process: either may be gone on from.
    pub fn put(&self, log: &FollowedLog, note: Option<&str>) -> Result<(), PutError> {
        let path = self.path(log);
        let temporary = path.with_extension("tmp");
        let failed = |harmless: bool, what: &str, error: io::Error| PutError {
            harmless,
            text: format!("cannot {what} the state `{}`: {error}", path.display()),
        };
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(true, "replace", error));
            }
            _ => {}
        }
        // A crash up to the rename leaves the old state and perhaps a temporary file, which the next attempt replaces.
        // The cosignature has not left the process: to the log it is as if it had never asked.
        let file = self
            .disk
            .open(&temporary, Open::CREATE_NEW)
            .map_err(|error| failed(true, "create", error))?;
        file.write_all_at(render(&log.origin, note).as_bytes(), 0)
            .map_err(|error| failed(true, "write", error))?;
        // After a failed sync nobody knows what the device holds: the process stops rather than trust a later one.
        file.sync_all()
            .map_err(|error| failed(false, "sync", error))?;
        // A crash at the rename leaves the old or the new state. If it is the new one, its cosignature is on disk and
        // nowhere else: the log hears the new size (409) and goes on from there, which is the same tree.
        self.disk
            .rename(&temporary, &path)
            .map_err(|error| failed(false, "rename", error))?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(|error| failed(false, "sync the directory of", error))
    }
}

pub(super) fn render(origin: &str, note: Option<&str>) -> String {
    format!("{STATE_MAGIC}\n{origin}\n\n{}", note.unwrap_or_default())
}

/// Reads the text of a state; the error is the rule it breaks.
pub(super) fn parse(text: &str, log: &FollowedLog, key: &VerifierKey) -> Result<State, String> {
    let rest = text
        .strip_prefix(STATE_MAGIC)
        .and_then(|rest| rest.strip_prefix('\n'))
        .ok_or_else(|| format!("its first line must be {STATE_MAGIC}"))?;
    let (origin, note) = rest
        .split_once("\n\n")
        .ok_or("its second line must be an origin, its third empty")?;
    if origin != log.origin {
        return Err(format!(
            "it is of origin {origin:?}, expected {:?}",
            log.origin
        ));
    }
    if note.is_empty() {
        return Ok(State::Fresh);
    }
    let signed = SignedCheckpoint::parse(note).map_err(|error| error.to_string())?;
    let checkpoint = signed.checkpoint();
    if checkpoint.origin != log.origin {
        return Err(format!(
            "its checkpoint is of origin {:?}, expected {:?}",
            checkpoint.origin, log.origin
        ));
    }
    // What was written is proved by this witness's own signature: a flipped bit, or the state of another witness, is no
    // memory of ours.
    let timestamp_s = cosignature::find(signed.note(), key)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| {
            format!(
                "it is not cosigned by {}+{:08x}: it is the state of another key",
                key.name(),
                key.key_id()
            )
        })?;
    Ok(State::Cosigned {
        head: Remembered {
            size: checkpoint.size,
            root: checkpoint.root,
            timestamp_s,
        },
        note: note.to_owned(),
    })
}
