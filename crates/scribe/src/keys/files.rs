//! Files that only their owner may read: how they are read, and how they come to be.
//!
//! A file appears under its name complete and durable, or not at all; one that others may read is refused. What the
//! keys are and which of them a directory may get is not decided here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use scribe_proof::key::{KeyType, SigningKey};

use super::error::KeyError;

/// Longest key or `last-signed` file that is read: a key name may have 1,024 bytes.
pub(super) const FILE_LENGTH_MAX: u64 = 4_096;
/// Permission bits of group and others.
const SHARED_BITS: u32 = 0o077;

/// Puts a file that only its owner may read beside the keys, in place of one of the same name. Complete and durable
/// when it returns; a crash before leaves the old one.
///
/// # Errors
/// The system refused.
pub(crate) fn put_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let temporary = temporary_name(path);
    write_durably(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(KeyError::io("replace", path))?;
    sync_parent(path)
}

/// The text of a file beside the keys; `None` if there is none.
///
/// # Errors
/// A file that others may read or that is longer than `length_max`, and what the system refused.
pub(crate) fn read_private(path: &Path, length_max: u64) -> Result<Option<String>, KeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyError::io("open", path)(error)),
    };
    refuse_shared(&file, path)?;
    read_text(file, path, length_max).map(Some)
}

/// Makes a directory for keys, readable by its owner only, if there is none.
pub(crate) fn create_dir(path: &Path) -> Result<(), KeyError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(KeyError::io("create directory", path))?;
    match path.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// The key in a file, or `None` if there is no such file.
pub(super) fn read_key(path: &Path, expected: KeyType) -> Result<Option<SigningKey>, KeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyError::io("open", path)(error)),
    };
    refuse_shared(&file, path)?;
    let text = read_text(file, path, FILE_LENGTH_MAX)?;
    let malformed = |error| KeyError::Malformed {
        path: path.to_path_buf(),
        error,
    };
    let key = SigningKey::parse(text.trim_end_matches('\n')).map_err(malformed)?;
    let found = key.verifier_key().key_type();
    if found != expected {
        return Err(KeyError::WrongType {
            path: path.to_path_buf(),
            found: found as u8,
            expected: expected as u8,
        });
    }
    Ok(Some(key))
}

/// Asked of the open file, so that nobody can swap it between the check and the read.
fn refuse_shared(file: &File, path: &Path) -> Result<(), KeyError> {
    let mode = file.metadata().map_err(KeyError::io("read", path))?.mode() & 0o7777;
    if mode & SHARED_BITS != 0 {
        return Err(KeyError::Permissions {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}

pub(super) fn read_text(file: File, path: &Path, length_max: u64) -> Result<String, KeyError> {
    let mut text = String::new();
    let mut limited = file.take(length_max + 1);
    limited
        .read_to_string(&mut text)
        .map_err(KeyError::io("read", path))?;
    if text.len() as u64 > length_max {
        return Err(KeyError::TooLong {
            path: path.to_path_buf(),
            found: text.len() as u64,
            allowed: length_max,
        });
    }
    Ok(text)
}

/// Writes a key file; `false` if there is one already. The file appears under its name complete and durable.
pub(super) fn write_key(path: &Path, key: &SigningKey) -> Result<bool, KeyError> {
    let temporary = temporary_name(path);
    let mut text = key.to_text();
    text.push('\n');
    write_durably(&temporary, text.as_bytes())?;
    // Unlike a rename, a link fails if the name is taken: a key is never overwritten. A crash from here on leaves
    // the temporary file behind, readable by the owner only, and the next attempt replaces it.
    let linked = match fs::hard_link(&temporary, path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(KeyError::io("create", path)(error)),
    };
    fs::remove_file(&temporary).map_err(KeyError::io("remove", &temporary))?;
    sync_parent(path)?;
    Ok(linked)
}

/// A name beside `path` that no other process uses.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Creates a file for its owner only, with these bytes, and syncs it. A leftover of the same name is replaced.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KeyError::io("remove", path)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(KeyError::io("create", path))?;
    file.write_all(bytes).map_err(KeyError::io("write", path))?;
    file.sync_all().map_err(KeyError::io("sync", path))
}

fn sync_parent(path: &Path) -> Result<(), KeyError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), KeyError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(KeyError::io("sync directory", dir))
}
