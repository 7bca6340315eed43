//! The ledger's signing keys of one directory: the one it began with, and those that took its place.
//!
//! ```text
//! <key dir>/ledger.key                the first one this directory had; names the origin
//!           ledger-<key id>.key       one that was delivered or made later
//! ```
//!
//! Which of them sign is not decided here and not by files: the applied entries of the ledger say so
//! ([`scribe_proof::LedgerKeys`]). A key that no entry names never signs, and one that was replaced stays where it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use scribe_proof::key::{KeyType, SigningKey, VerifierKey};

use super::error::KeyError;
use super::files::{read_key, write_key};
use super::{LEDGER_KEY_FILE, expect_name};
use crate::limits;

/// The ledger's signing keys of one directory.
#[derive(Debug)]
pub struct LedgerKeyring {
    dir: PathBuf,
    first: Arc<SigningKey>,
    others: RwLock<Vec<Arc<SigningKey>>>,
}

impl LedgerKeyring {
    /// The keys beside `first`, which is the one in `ledger.key`.
    ///
    /// # Errors
    /// A key that others may read, that is malformed, of another type or of another ledger.
    pub(super) fn load(dir: &Path, first: SigningKey) -> Result<Self, KeyError> {
        let listed = KeyError::io("list", dir);
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir).map_err(listed)? {
            let entry = entry.map_err(KeyError::io("list", dir))?;
            if is_further_key(&entry.file_name().to_string_lossy()) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        let mut others = Vec::with_capacity(paths.len());
        for path in paths {
            if let Some(key) = read_key(&path, KeyType::Ed25519)? {
                expect_name(&path, &key, first.name())?;
                others.push(Arc::new(key));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            first: Arc::new(first),
            others: RwLock::new(others),
        })
    }

    /// The key in `ledger.key`.
    pub fn first(&self) -> &VerifierKey {
        self.first.verifier_key()
    }

    /// The signing key with this public half, if this directory has it.
    pub fn find(&self, key: &VerifierKey) -> Option<Arc<SigningKey>> {
        if self.first.verifier_key() == key {
            return Some(Arc::clone(&self.first));
        }
        let others = self.others.read();
        others
            .iter()
            .find(|other| other.verifier_key() == key)
            .cloned()
    }

    /// Keeps another key of this ledger: durable in the directory when this returns. A key that is there already is a
    /// success; a crash before the end leaves no file, or a complete one that no entry names.
    ///
    /// # Errors
    /// A key of another ledger or kind, too many of them, and what the system refused.
    pub fn keep(&self, key: SigningKey) -> Result<Arc<SigningKey>, KeyError> {
        let verifier = key.verifier_key().clone();
        let path = self.dir.join(further_key_file(&verifier));
        if verifier.key_type() != KeyType::Ed25519 {
            return Err(KeyError::WrongType {
                path,
                found: verifier.key_type() as u8,
                expected: KeyType::Ed25519 as u8,
            });
        }
        expect_name(&path, &key, self.first.name())?;
        if let Some(known) = self.find(&verifier) {
            return Ok(known);
        }
        let mut others = self.others.write();
        if others.len() >= limits::LEDGER_KEYS_MAX {
            return Err(KeyError::TooMany {
                path,
                allowed: limits::LEDGER_KEYS_MAX,
            });
        }
        if !write_key(&path, &key)? {
            // The file name carries 32 bits of the key's hash, so this is most likely the same key, written by a call
            // that came between.
            let found = read_key(&path, KeyType::Ed25519)?;
            if found.is_none_or(|found| found.verifier_key() != &verifier) {
                let taken = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(KeyError::io("create", &path)(taken));
            }
        }
        let key = Arc::new(key);
        if !others.iter().any(|other| other.verifier_key() == &verifier) {
            others.push(Arc::clone(&key));
        }
        Ok(key)
    }
}

pub(super) fn further_key_file(key: &VerifierKey) -> String {
    format!("ledger-{:08x}.key", key.key_id())
}

/// Whether a file name is that of a ledger key beside `ledger.key`.
pub(super) fn is_further_key(name: &str) -> bool {
    name != LEDGER_KEY_FILE
        && name
            .strip_prefix("ledger-")
            .and_then(|rest| rest.strip_suffix(".key"))
            .is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{KeyDir, new_key};
    use super::*;

    #[test]
    fn further_keys_are_kept_found_again_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::open_or_create(dir.path(), Some("example.com/a"), 1, true).unwrap();
        let second = new_key("example.com/a", KeyType::Ed25519).unwrap();
        let verifier = second.verifier_key().clone();
        assert!(keys.ledger.find(&verifier).is_none());
        let text = second.to_text();
        keys.ledger.keep(second).unwrap();
        keys.ledger.keep(SigningKey::parse(&text).unwrap()).unwrap();
        assert!(keys.ledger.find(&verifier).is_some());

        let again = KeyDir::open_or_create(dir.path(), None, 1, false).unwrap();
        assert!(again.ledger.find(&verifier).is_some());
        assert_eq!(again.ledger.first(), keys.ledger.first());

        for (name, kind) in [
            ("example.com/b", KeyType::Ed25519),
            ("example.com/a", KeyType::Cosignature),
        ] {
            again.ledger.keep(new_key(name, kind).unwrap()).unwrap_err();
        }
        let path = dir.path().join(further_key_file(&verifier));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyDir::open_or_create(dir.path(), None, 1, false).unwrap_err();
        assert!(matches!(error, KeyError::Permissions { .. }), "{error}");
    }

    #[test]
    fn no_member_can_fill_the_directory_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::open_or_create(dir.path(), Some("example.com/a"), 1, true).unwrap();
        let new = || new_key("example.com/a", KeyType::Ed25519).unwrap();
        for _ in 0..limits::LEDGER_KEYS_MAX {
            keys.ledger.keep(new()).unwrap();
        }
        let error = keys.ledger.keep(new()).unwrap_err();
        assert!(matches!(error, KeyError::TooMany { .. }), "{error}");
    }

    #[test]
    fn a_further_key_without_the_first_one_is_no_new_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::open_or_create(dir.path(), Some("example.com/a"), 1, true).unwrap();
        keys.ledger
            .keep(new_key("example.com/a", KeyType::Ed25519).unwrap())
            .unwrap();
        for name in [LEDGER_KEY_FILE, "node-1.key", "last-signed"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let error = KeyDir::open_or_create(dir.path(), Some("example.com/a"), 1, true).unwrap_err();
        assert!(
            matches!(error, KeyError::LedgerKeyMissing { .. }),
            "{error}"
        );
    }
}
