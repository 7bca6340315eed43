//! The key directory: private keys, and the last head that was signed with them.
//!
//! ```text
//! <key dir>/ledger.key       the ledger's signing key, named after the origin
//!           node-<id>.key    this node's cosigning key, named <origin>/node/<id>
//!           last-signed      origin, tree size and root hash of the newest checkpoint signed
//! ```
//!
//! Keys are in the text form of Go's note package, so that other tools read them. The directory is kept apart from
//! the data directory on purpose: an old copy of the data with its keys could sign a second history, and
//! `last-signed` is what notices. Invariants:
//!
//! - a private key is never read from a file that group or others may access;
//! - a key file is complete or does not exist, and is never overwritten;
//! - a ledger key is made only in a directory where nothing was ever signed;
//! - `last-signed` never goes back, and never to another root hash at the same size.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rand::TryRngCore as _;
use scribe_proof::hash::{Hash, sha256};
use scribe_proof::index::TreeSize;
use scribe_proof::key::{KeyType, SigningKey};
use scribe_proof::note::NoteError;

/// File with the ledger key.
pub const LEDGER_KEY_FILE: &str = "ledger.key";
/// File with the last signed head.
pub const LAST_SIGNED_FILE: &str = "last-signed";

/// First line of `last-signed`: what the file is, and its version.
const LAST_SIGNED_MAGIC: &str = "scribe-ledger/last-signed/v1";
/// Longest key or `last-signed` file that is read: a key name may have 1,024 bytes.
const FILE_LENGTH_MAX: u64 = 4_096;
/// Permission bits of group and others.
const SHARED_BITS: u32 = 0o077;

/// The keys of one node.
#[derive(Debug)]
pub struct Keys {
    /// Name of the ledger: the first line of its checkpoints and the name of the ledger key.
    pub origin: String,
    /// Signs checkpoints for the ledger.
    pub ledger: SigningKey,
    /// Cosigns checkpoints for this node; named `<origin>/node/<id>`.
    pub node: SigningKey,
}

/// Why keys or the last signed head cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system refused.
    #[error("cannot {what} `{}`: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read a private key.
    #[error(
        "a key file must be readable by its owner only: `{}` has mode {mode:04o}, allowed are 0600 and 0400",
        path.display()
    )]
    Permissions {
        /// Key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no key.
    #[error("`{}` is not a signing key: {error}", path.display())]
    Malformed {
        /// Key file.
        path: PathBuf,
        /// What is wrong with its text.
        error: NoteError,
    },
    /// The file is longer than any key.
    #[error("`{}` is {found} bytes long, at most {allowed} are allowed", path.display())]
    TooLong {
        /// Key file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// Longest allowed.
        allowed: u64,
    },
    /// The key is of another kind.
    #[error("key in `{}` has type 0x{found:02x}, expected 0x{expected:02x}", path.display())]
    WrongType {
        /// Key file.
        path: PathBuf,
        /// Its type byte.
        found: u8,
        /// The type byte needed.
        expected: u8,
    },
    /// The key has another name.
    #[error("key in `{}` is named `{found}`, expected `{expected}`", path.display())]
    WrongName {
        /// Key file.
        path: PathBuf,
        /// Its name.
        found: String,
        /// The name needed.
        expected: String,
    },
    /// The name asked for is no key name.
    #[error("origin `{origin}` cannot be a key name: {error}")]
    Origin {
        /// Origin asked for.
        origin: String,
        /// The rule.
        error: NoteError,
    },
    /// The ledger key is gone, but something in the directory was made with it.
    #[error("`{}` is missing, but `{}` was made with it", missing.display(), found.display())]
    LedgerKeyMissing {
        /// The ledger key file.
        missing: PathBuf,
        /// What shows that there was one.
        found: PathBuf,
    },
    /// `last-signed` cannot be understood.
    #[error("`{}` is damaged: {rule}", path.display())]
    LastSignedDamaged {
        /// The file.
        path: PathBuf,
        /// What it must be.
        rule: &'static str,
    },
    /// Signing this head would fork the ledger.
    #[error(
        "refusing to sign tree size {size} of `{origin}`: {rule} (size {last_size}, root hash {last_root})"
    )]
    WouldFork {
        /// Origin of the refused head.
        origin: String,
        /// Tree size of the refused head.
        size: TreeSize,
        /// The rule it breaks.
        rule: &'static str,
        /// Tree size signed last.
        last_size: TreeSize,
        /// Root hash signed last.
        last_root: Hash,
    },
    /// The system has no random bytes.
    #[error("cannot get random bytes from the system: {message}")]
    Random {
        /// What the system said.
        message: String,
    },
}

impl KeyError {
    /// A next step for the user, when there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permissions { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::LedgerKeyMissing { .. } => Some(
                "put the key back from its backup; a new key would make another ledger, for which use another \
                 --key-dir and --data-dir"
                    .to_owned(),
            ),
            Self::WrongName { .. } => Some(
                "the origin is fixed when a ledger is made: leave `origin` unset, or use another --key-dir"
                    .to_owned(),
            ),
            Self::WouldFork { .. } => Some(
                "the data directory is older than what was signed already: restore a newer copy, never delete \
                 last-signed"
                    .to_owned(),
            ),
            Self::LastSignedDamaged { .. } => {
                Some("restore the file from the newest checkpoint somebody kept".to_owned())
            }
            _ => None,
        }
    }

    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Io {
            what,
            path: path.to_path_buf(),
            error,
        }
    }
}

/// The key directory of a node.
#[derive(Debug, Clone, Copy)]
pub struct KeyDir;

impl KeyDir {
    /// The keys in `path`, made first where they are missing.
    ///
    /// `origin` names a new ledger; `None` takes what is there or makes `scribe.invalid/<16 hex of the key hash>`.
    /// `node_id` picks the node key.
    ///
    /// # Errors
    /// A key that others may read, that is malformed, of another type or name, or that cannot be made.
    pub fn open_or_create(
        path: &Path,
        origin: Option<&str>,
        node_id: u64,
    ) -> Result<Keys, KeyError> {
        create_dir(path)?;
        let ledger_path = path.join(LEDGER_KEY_FILE);
        let ledger = match read_key(&ledger_path, KeyType::Ed25519)? {
            Some(key) => key,
            None => {
                refuse_second_ledger(path, &ledger_path)?;
                let key = new_ledger_key(origin)?;
                // A crash before the link inside leaves no key file; after it, a complete one.
                write_key(&ledger_path, &key)?;
                // Another process may have been first: what is in the file counts.
                read_key(&ledger_path, KeyType::Ed25519)?.unwrap_or(key)
            }
        };
        if let Some(expected) = origin {
            expect_name(&ledger_path, &ledger, expected)?;
        }
        let origin = ledger.name().to_owned();

        let node_name = format!("{origin}/node/{node_id}");
        let node_path = path.join(format!("node-{node_id}.key"));
        let node = match read_key(&node_path, KeyType::Cosignature)? {
            Some(key) => key,
            None => {
                // A crash between the two keys leaves a ledger key alone: the next start goes on here.
                let key = new_key(&node_name, KeyType::Cosignature)?;
                write_key(&node_path, &key)?;
                read_key(&node_path, KeyType::Cosignature)?.unwrap_or(key)
            }
        };
        expect_name(&node_path, &node, &node_name)?;
        Ok(Keys {
            origin,
            ledger,
            node,
        })
    }
}

/// A new key with this name and kind, from the system's random source.
///
/// # Errors
/// A name no key may have, or a system without random bytes.
pub fn new_key(name: &str, key_type: KeyType) -> Result<SigningKey, KeyError> {
    key_from_seed(name, key_type, &random_seed()?)
}

/// A new ledger key; its name is `origin`, or `scribe.invalid/<16 hex of SHA-256 of the public key>`.
///
/// # Errors
/// As [`new_key`].
pub fn new_ledger_key(origin: Option<&str>) -> Result<SigningKey, KeyError> {
    let seed = random_seed()?;
    if let Some(origin) = origin {
        return key_from_seed(origin, KeyType::Ed25519, &seed);
    }
    // The public key does not depend on the name, so a first key with any name tells it.
    let unnamed = key_from_seed("scribe.invalid", KeyType::Ed25519, &seed)?;
    let key_hash = sha256(&unnamed.verifier_key().public_key()).to_hex();
    key_from_seed(
        &format!("scribe.invalid/{}", &key_hash[..16]),
        KeyType::Ed25519,
        &seed,
    )
}

/// Writes a key to a new file that only its owner may read; an existing file is left as it is.
///
/// # Errors
/// The system refused, or there is a file already.
pub fn write_new_key(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    if write_key(path, key)? {
        return Ok(());
    }
    let error = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "a key file is never overwritten",
    );
    Err(KeyError::Io {
        what: "create",
        path: path.to_path_buf(),
        error,
    })
}

fn key_from_seed(name: &str, key_type: KeyType, seed: &[u8; 32]) -> Result<SigningKey, KeyError> {
    SigningKey::from_seed_typed(name, key_type, seed).map_err(|error| KeyError::Origin {
        origin: name.to_owned(),
        error,
    })
}

fn random_seed() -> Result<[u8; 32], KeyError> {
    let mut seed = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| KeyError::Random {
            message: error.to_string(),
        })?;
    Ok(seed)
}

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

/// A directory with a node key or a signed head had a ledger key: making another would start a second ledger.
fn refuse_second_ledger(dir: &Path, missing: &Path) -> Result<(), KeyError> {
    let entries = fs::read_dir(dir).map_err(KeyError::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(KeyError::io("list", dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == LAST_SIGNED_FILE || (name.starts_with("node-") && name.ends_with(".key")) {
            return Err(KeyError::LedgerKeyMissing {
                missing: missing.to_path_buf(),
                found: entry.path(),
            });
        }
    }
    Ok(())
}

fn expect_name(path: &Path, key: &SigningKey, expected: &str) -> Result<(), KeyError> {
    if key.name() == expected {
        return Ok(());
    }
    Err(KeyError::WrongName {
        path: path.to_path_buf(),
        found: key.name().to_owned(),
        expected: expected.to_owned(),
    })
}

/// The key in a file, or `None` if there is no such file.
fn read_key(path: &Path, expected: KeyType) -> Result<Option<SigningKey>, KeyError> {
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

fn read_text(file: File, path: &Path, length_max: u64) -> Result<String, KeyError> {
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
fn write_key(path: &Path, key: &SigningKey) -> Result<bool, KeyError> {
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
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Creates a file for its owner only, with these bytes, and syncs it. A leftover of the same name is replaced.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
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

fn sync_dir(dir: &Path) -> Result<(), KeyError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(KeyError::io("sync directory", dir))
}

/// The newest head signed with the keys of a directory.
///
/// It is stored *before* a signature leaves the node, so what anybody may hold is never newer than what is stored.
/// Before signing anything else the caller recomputes the root hash at this size from its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSigned {
    /// Name of the ledger.
    pub origin: String,
    /// Tree size.
    pub size: TreeSize,
    /// Root hash at that size.
    pub root: Hash,
}

impl LastSigned {
    /// The last signed head of a key directory, or `None` if nothing was signed yet.
    ///
    /// # Errors
    /// [`KeyError::LastSignedDamaged`], or the system refused.
    pub fn load(dir: &Path) -> Result<Option<LastSigned>, KeyError> {
        let path = dir.join(LAST_SIGNED_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeyError::io("open", &path)(error)),
        };
        let text = read_text(file, &path, FILE_LENGTH_MAX)?;
        let damaged = |rule| KeyError::LastSignedDamaged {
            path: path.clone(),
            rule,
        };
        let lines: Vec<&str> = text.split('\n').collect();
        let [magic, origin, size, root, ""] = lines[..] else {
            return Err(damaged("it must be four lines, each ended by a newline"));
        };
        if magic != LAST_SIGNED_MAGIC {
            return Err(damaged(
                "its first line must be scribe-ledger/last-signed/v1",
            ));
        }
        let size = size
            .parse()
            .map_err(|_| damaged("its third line must be a tree size"))?;
        let root =
            Hash::from_base64(root).map_err(|_| damaged("its fourth line must be a root hash"))?;
        if origin.is_empty() {
            return Err(damaged("its second line must be an origin"));
        }
        Ok(Some(LastSigned {
            origin: origin.to_owned(),
            size: TreeSize::new(size),
            root,
        }))
    }

    /// Makes this the last signed head of a key directory; durable when it returns.
    ///
    /// # Errors
    /// [`KeyError::WouldFork`] if the head stored already is of another origin, is larger, or has another root hash
    /// at the same size: then nothing may be signed. Otherwise what the system refused.
    pub fn store(&self, dir: &Path) -> Result<(), KeyError> {
        if let Some(last) = LastSigned::load(dir)? {
            if *self == last {
                return Ok(());
            }
            self.check_follows(&last)?;
        }
        let path = dir.join(LAST_SIGNED_FILE);
        let temporary = temporary_name(&path);
        let LastSigned { origin, size, root } = self;
        let text = format!(
            "{LAST_SIGNED_MAGIC}\n{origin}\n{size}\n{}\n",
            root.to_base64()
        );
        // A crash here leaves the old head and perhaps a temporary file: nothing newer was signed.
        write_durably(&temporary, text.as_bytes())?;
        // A crash here leaves the old or the new head; the new one is not signed yet, and signing it later is the
        // same statement.
        fs::rename(&temporary, &path).map_err(KeyError::io("replace", &path))?;
        sync_dir(dir)
    }

    fn check_follows(&self, last: &LastSigned) -> Result<(), KeyError> {
        let rule = if self.origin != last.origin {
            "the head signed last is of another origin"
        } else if self.size < last.size {
            "a larger tree was signed already"
        } else if self.size == last.size && self.root != last.root {
            "another root hash was signed at this size"
        } else {
            return Ok(());
        };
        Err(KeyError::WouldFork {
            origin: self.origin.clone(),
            size: self.size,
            rule,
            last_size: last.size,
            last_root: last.root,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(dir: &Path, origin: Option<&str>) -> Result<Keys, KeyError> {
        KeyDir::open_or_create(dir, origin, 1)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn head(size: u64, root: u8) -> LastSigned {
        LastSigned {
            origin: "example.com/a".to_owned(),
            size: TreeSize::new(size),
            root: Hash([root; 32]),
        }
    }

    #[test]
    fn keys_are_made_once_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/keys");
        let made = open(&dir, None).unwrap();
        assert_eq!(names(&dir), ["ledger.key", "node-1.key"]);
        for name in names(&dir) {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

        let found = open(&dir, None).unwrap();
        assert_eq!(found.origin, made.origin);
        assert_eq!(found.ledger.verifier_key(), made.ledger.verifier_key());
        assert_eq!(found.node.verifier_key(), made.node.verifier_key());
        assert_eq!(found.node.verifier_key().key_type(), KeyType::Cosignature);
        assert_eq!(found.node.name(), format!("{}/node/1", made.origin));

        let second = KeyDir::open_or_create(&dir, None, 2).unwrap();
        assert_eq!(second.ledger.verifier_key(), made.ledger.verifier_key());
        assert_ne!(
            second.node.verifier_key().public_key(),
            made.node.verifier_key().public_key()
        );
    }

    #[test]
    fn the_default_origin_is_made_from_the_public_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path(), None).unwrap();
        let hash = sha256(&keys.ledger.verifier_key().public_key()).to_hex();
        assert_eq!(keys.origin, format!("scribe.invalid/{}", &hash[..16]));
        assert_eq!(keys.ledger.name(), keys.origin);
    }

    #[test]
    fn an_origin_is_fixed_when_the_keys_are_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            open(dir.path(), Some("example.com/a")).unwrap().origin,
            "example.com/a"
        );
        assert_eq!(open(dir.path(), None).unwrap().origin, "example.com/a");
        let error = open(dir.path(), Some("example.com/b")).unwrap_err();
        assert!(matches!(error, KeyError::WrongName { .. }), "{error}");
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            open(dir.path(), Some("a+b")).unwrap_err(),
            KeyError::Origin { .. }
        ));
    }

    #[test]
    fn a_key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), None).unwrap();
        for (name, mode) in [
            ("ledger.key", 0o640),
            ("node-1.key", 0o604),
            ("node-1.key", 0o620),
        ] {
            let path = dir.path().join(name);
            set_mode(&path, mode);
            let error = open(dir.path(), None).unwrap_err();
            assert!(matches!(error, KeyError::Permissions { .. }), "{error}");
            assert!(
                error.to_string().contains(&format!("{mode:04o}")),
                "{error}"
            );
            assert_eq!(
                error.hint().unwrap(),
                format!("chmod 600 {}", path.display())
            );
            set_mode(&path, 0o400);
            open(dir.path(), None).unwrap();
        }
    }

    #[test]
    fn a_damaged_or_exchanged_key_is_refused_without_repeating_it() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), None).unwrap();
        let (ledger, node) = (dir.path().join("ledger.key"), dir.path().join("node-1.key"));
        let text = fs::read_to_string(&node).unwrap();

        fs::write(&node, &text[..text.len() - 9]).unwrap();
        let error = open(dir.path(), None).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
        assert!(
            !error
                .to_string()
                .contains(&text[text.len() - 30..text.len() - 9])
        );

        fs::write(&node, fs::read(&ledger).unwrap()).unwrap();
        assert!(matches!(
            open(dir.path(), None).unwrap_err(),
            KeyError::WrongType { .. }
        ));
        fs::write(&node, "x".repeat(5_000)).unwrap();
        assert!(matches!(
            open(dir.path(), None).unwrap_err(),
            KeyError::TooLong { .. }
        ));
        fs::write(&node, text).unwrap();
        assert!(open(dir.path(), None).is_ok());
    }

    #[test]
    fn a_lost_ledger_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), None).unwrap();
        fs::remove_file(dir.path().join("ledger.key")).unwrap();
        let error = open(dir.path(), None).unwrap_err();
        assert!(
            matches!(error, KeyError::LedgerKeyMissing { .. }),
            "{error}"
        );

        let dir = tempfile::tempdir().unwrap();
        head(1, 1).store(dir.path()).unwrap();
        assert!(matches!(
            open(dir.path(), None).unwrap_err(),
            KeyError::LedgerKeyMissing { .. }
        ));
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.key");
        let first = new_key("a", KeyType::Ed25519).unwrap();
        write_new_key(&path, &first).unwrap();
        let second = new_key("a", KeyType::Ed25519).unwrap();
        assert!(write_new_key(&path, &second).is_err());
        assert_eq!(
            fs::read_to_string(&path).unwrap().trim_end(),
            first.to_text()
        );
        assert_eq!(names(dir.path()), ["some.key"]);
    }

    #[test]
    fn the_last_signed_head_only_moves_forward() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastSigned::load(dir.path()).unwrap(), None);
        head(5, 1).store(dir.path()).unwrap();
        head(5, 1).store(dir.path()).unwrap();
        head(9, 2).store(dir.path()).unwrap();
        assert_eq!(LastSigned::load(dir.path()).unwrap(), Some(head(9, 2)));
        assert_eq!(names(dir.path()), ["last-signed"]);

        let other_origin = LastSigned {
            origin: "example.com/b".to_owned(),
            ..head(10, 3)
        };
        for refused in [head(8, 2), head(9, 3), other_origin] {
            let error = refused.store(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::WouldFork { .. }), "{error}");
        }
        assert_eq!(LastSigned::load(dir.path()).unwrap(), Some(head(9, 2)));
    }

    #[test]
    fn a_damaged_last_signed_head_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        head(5, 1).store(dir.path()).unwrap();
        let path = dir.path().join(LAST_SIGNED_FILE);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            text[..text.len() - 1].to_owned(),
            text.replace("/v1", "/v2"),
            text.replace("\n5\n", "\nfive\n"),
            text.replace("AQEB", "AQE!"),
            format!("{text}more\n"),
        ] {
            fs::write(&path, &damaged).unwrap();
            let error = LastSigned::load(dir.path()).unwrap_err();
            assert!(
                matches!(error, KeyError::LastSignedDamaged { .. }),
                "{damaged:?}: {error}"
            );
            assert!(head(6, 1).store(dir.path()).is_err());
        }
    }

    #[test]
    fn a_leftover_temporary_file_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = temporary_name(&dir.path().join(LEDGER_KEY_FILE));
        fs::write(&leftover, "torn").unwrap();
        open(dir.path(), None).unwrap();
        assert_eq!(names(dir.path()), ["ledger.key", "node-1.key"]);
    }
}
