//! The small files of a data directory, and the names in it: which files belong, and what may lie there unread.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::audit::{AuditError, Finding};
use crate::store::Damage;
use crate::store::disk::Disk as _;
use crate::store::frame::LogIndex;
use crate::store::lock::LOCK_NAME;
use crate::store::manifest::{self, MANIFEST_NAME, ManifestRecord};
use crate::store::mend::MENDING_DIR;
use crate::store::real_disk::RealDisk;
use crate::store::restore::{DAMAGED_DIR, RESTORING_NAME};
use crate::store::segment::{NEXT_NAME, SealedSegment, parse_file_name};
use crate::store::vote::{self, VOTE_NAME};
use crate::store::watermarks::{self, WATERMARKS_NAME, Watermarks};

/// Longest small file that is read whole: a MANIFEST with a record for each of the most segments a snapshot lists.
const SMALL_FILE_LENGTH_MAX: u64 = 512 << 20;
/// Bytes compared with zero at once.
const PIECE: usize = 1 << 16;

impl From<Damage> for Finding {
    fn from(damage: Damage) -> Finding {
        Finding::new(damage.path.display().to_string(), damage.reason).at(damage.offset)
    }
}

impl From<Damage> for AuditError {
    fn from(damage: Damage) -> AuditError {
        Finding::from(damage).into()
    }
}

/// What is in a data directory.
pub(super) struct Inventory {
    pub(super) cluster_id: [u8; 16],
    pub(super) watermarks: Option<Watermarks>,
    /// Sealed segments, from the MANIFEST.
    pub(super) sealed: Vec<SealedSegment>,
    /// First log indexes of the segment files behind them.
    pub(super) open: Vec<LogIndex>,
    /// Files that are compared, tree files left out.
    pub(super) files: u64,
    pub(super) notes: Vec<String>,
    /// Held while the audit reads.
    _lock: Option<Box<dyn std::any::Any + Send>>,
}

impl Inventory {
    /// Reads vote, watermarks and MANIFEST, and looks at every name.
    pub(super) fn take(directory: &Path) -> Result<Inventory, AuditError> {
        let lock = take_lock(directory)?;
        let (identity, _) = vote::check_bytes(&read_small(directory, VOTE_NAME)?)?;
        let watermarks = watermarks::check_bytes(&read_small(directory, WATERMARKS_NAME)?)?;
        let records =
            manifest::check_bytes(&read_small(directory, MANIFEST_NAME)?, identity.cluster_id)?;
        let mut inventory = Inventory {
            cluster_id: identity.cluster_id,
            watermarks,
            sealed: sealed(records)?,
            open: Vec::new(),
            files: 3,
            notes: Vec::new(),
            _lock: lock,
        };
        if let Some(wrong) = inventory
            .sealed
            .iter()
            .find(|segment| segment.cluster_id != identity.cluster_id)
        {
            let reason = format!(
                "its record of segment {} is of another ledger",
                wrong.number
            );
            return Err(Finding::new(MANIFEST_NAME, reason).into());
        }
        inventory.names(directory)?;
        inventory.log_names(directory)?;
        Ok(inventory)
    }

    /// Bytes of all segment files: what progress is measured against.
    pub(super) fn log_bytes(&self, directory: &Path) -> Result<u64, AuditError> {
        let mut total: u64 = self.sealed.iter().map(|sealed| sealed.file_length).sum();
        for first in &self.open {
            let name = format!("log/{}", crate::store::segment::file_name(*first));
            total += length_of(&directory.join(&name), &name)?;
        }
        Ok(total)
    }

    /// What must be blank: the segment file that is allocated ahead, and the journal of the index, which is never used.
    pub(super) fn check_blank(&self, directory: &Path) -> Result<(), AuditError> {
        let next = directory.join("log").join(NEXT_NAME);
        if next.exists() {
            blank(&next, &format!("log/{NEXT_NAME}"), 0)?;
        }
        let index = directory.join("index");
        for name in list(&index).unwrap_or_default() {
            let path = index.join(&name);
            if name.ends_with(".jnl") && path.is_file() {
                blank(&path, &format!("index/{name}"), 0)?;
            }
        }
        Ok(())
    }

    fn names(&mut self, directory: &Path) -> Result<(), AuditError> {
        for name in list(directory).map_err(|error| AuditError::io(directory.display(), &error))? {
            match name.as_str() {
                VOTE_NAME | WATERMARKS_NAME | MANIFEST_NAME | "log" | "index" => {}
                LOCK_NAME => {
                    let length = length_of(&directory.join(LOCK_NAME), LOCK_NAME)?;
                    if length > 0 {
                        return Err(Finding::new(LOCK_NAME, "the lock file is empty by rule")
                            .at(0)
                            .into());
                    }
                }
                "tree" => {
                    let known = |name: &str| matches!(name.as_bytes(), [b'L', digit] if (b'0'..=b'7').contains(digit));
                    for name in list(&directory.join("tree")).unwrap_or_default() {
                        if !known(&name) {
                            self.notes.push(format!(
                                "`tree/{name}` is no file of a ledger and was not read"
                            ));
                        }
                    }
                }
                "incoming" => {
                    for name in list(&directory.join("incoming")).unwrap_or_default() {
                        self.notes.push(format!(
                            "`incoming/{name}` is on its way from another node, counts for nothing and was not read"
                        ));
                    }
                }
                MENDING_DIR => {
                    for name in list(&directory.join(MENDING_DIR)).unwrap_or_default() {
                        self.notes.push(format!(
                            "`{MENDING_DIR}/{name}` is a damaged segment on its way back, counts for nothing and was not read"
                        ));
                    }
                }
                RESTORING_NAME => self.notes.push(format!(
                    "`{RESTORING_NAME}`: the end of the log was damaged, and is not back from the other nodes yet"
                )),
                DAMAGED_DIR => {
                    for name in list(&directory.join(DAMAGED_DIR)).unwrap_or_default() {
                        self.notes.push(format!(
                            "`{DAMAGED_DIR}/{name}` is what was cut from the log, counts for nothing and was not read"
                        ));
                    }
                }
                other => self
                    .notes
                    .push(format!("`{other}` is no file of a ledger and was not read")),
            }
        }
        Ok(())
    }

    fn log_names(&mut self, directory: &Path) -> Result<(), AuditError> {
        let names = list(&directory.join("log")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Finding::new("log", "the directory is missing").into(),
            _ => AuditError::io("log", &error),
        })?;
        let first_open = self
            .sealed
            .last()
            .map_or(LogIndex(0), |last| last.last_log_id.index.next());
        for name in names {
            match parse_file_name(&name) {
                Some(first) if first >= first_open => self.open.push(first),
                Some(first) => {
                    let known = self
                        .sealed
                        .iter()
                        .any(|sealed| sealed.first_log_index == first);
                    if !known {
                        let reason = "no segment of the MANIFEST begins at this log index";
                        return Err(Finding::new(format!("log/{name}"), reason).into());
                    }
                }
                None if name == NEXT_NAME => {}
                None => self.notes.push(format!(
                    "`log/{name}` is no file of a ledger and was not read"
                )),
            }
        }
        self.open.sort_unstable();
        self.files += (self.sealed.len() + self.open.len()) as u64;
        Ok(())
    }
}

fn take_lock(directory: &Path) -> Result<Option<Box<dyn std::any::Any + Send>>, AuditError> {
    let path = directory.join(LOCK_NAME);
    if !path.exists() {
        // Locking would make it, and an audit changes nothing.
        return Ok(None);
    }
    match RealDisk.try_lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(AuditError::User {
            message: format!("`{}` is open: a node runs on it", directory.display()),
            hint: "audit a running node by its URL, or stop it first".to_owned(),
        }),
        // A copy that nobody can write to.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(AuditError::io(LOCK_NAME, &error)),
    }
}

/// The sealed segments as the records have them, each behind the one before.
fn sealed(records: Vec<ManifestRecord>) -> Result<Vec<SealedSegment>, AuditError> {
    let mut sealed: Vec<SealedSegment> = Vec::new();
    for record in records {
        let found = match record {
            ManifestRecord::Sealed(found) => vec![*found],
            ManifestRecord::Installed(found) => found,
            ManifestRecord::Archived { .. } | ManifestRecord::Restored { .. } => continue,
            ManifestRecord::Evicted { segment, .. } => {
                let reason = format!("segment {segment} is not here but in an object store");
                return Err(Finding::new(MANIFEST_NAME, reason).into());
            }
        };
        for found in found {
            let follows = match sealed.last() {
                Some(last) => (last.number + 1, last.last_log_id.index.next()),
                None => (0, LogIndex(0)),
            };
            if follows != (found.number, found.first_log_index) {
                let reason = format!("segment {} does not follow the one before", found.number);
                return Err(Finding::new(MANIFEST_NAME, reason).into());
            }
            sealed.push(found);
        }
    }
    Ok(sealed)
}

/// Names of everything in a directory, sorted.
fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn length_of(path: &Path, name: &str) -> Result<u64, AuditError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Finding::new(name, "the file is missing").into())
        }
        Err(error) => Err(AuditError::io(name, &error)),
    }
}

fn read_small(directory: &Path, name: &str) -> Result<Vec<u8>, AuditError> {
    let path = directory.join(name);
    let length = length_of(&path, name)?;
    if length > SMALL_FILE_LENGTH_MAX {
        let reason = format!("the file has {length} bytes, allowed {SMALL_FILE_LENGTH_MAX}");
        return Err(Finding::new(name, reason).into());
    }
    fs::read(&path).map_err(|error| AuditError::io(name, &error))
}

/// A file must have nothing but zeros from byte `start` on.
pub(super) fn blank(path: &Path, name: &str, start: u64) -> Result<u64, AuditError> {
    let failed = |error: io::Error| AuditError::io(name, &error);
    let file = fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (mut at, mut piece, zeros) = (start, vec![0; PIECE], [0; PIECE]);
    while at < length {
        // What was allocated and never written need not be read: a file may have 64 MiB of it.
        match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that does not know holes has none.
            Err(_) => {}
        }
        let wanted = length.saturating_sub(at).min(PIECE as u64) as usize;
        let piece = &mut piece[..wanted];
        file.read_exact_at(piece, at).map_err(failed)?;
        if *piece != zeros[..wanted] {
            let within = piece.iter().take_while(|byte| **byte == 0).count();
            return Err(Finding::new(name, "this part of the file is not written yet and must be zero")
                .at(at + within as u64)
                .hint(
                    "a loss of power may leave this behind the last acknowledged frame: start the node once, which \
                     cuts it, and audit again",
                )
                .into());
        }
        at += wanted as u64;
    }
    Ok(length - start.min(length))
}
