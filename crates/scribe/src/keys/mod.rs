//! The key directory: private keys, and the last head that was signed with them.
//!
//! ```text
//! <key dir>/ledger.key            the ledger's signing key, named after the origin
//!           ledger-<key id>.key   a signing key that took its place, or may once (see `ledger`)
//!           node-<id>.key         this node's cosigning key, named <origin>/node/<id>
//!           last-signed           origin, tree size and root hash of the newest checkpoint signed
//! ```
//!
//! Keys are in the text form of Go's note package, so that other tools read them. The directory is kept apart from
//! the data directory on purpose: an old copy of the data with its keys could sign a second history, and
//! `last-signed` is what notices. Invariants:
//!
//! - a private key is never read from a file that group or others may access;
//! - a key file is complete or does not exist, and is never overwritten;
//! - a ledger key is made only in a directory where nothing was ever signed;
//! - `last-signed` never goes back, and never to another root hash at the same size;
//! - `last-signed` is there from the beginning, with size 0: a directory that is in use and has none was restored, and
//!   nothing is signed with it until an operator has shown the largest checkpoint known outside.

mod error;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod last_signed;
mod ledger;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use rand::TryRngCore as _;
use scribe_proof::hash::{empty_root, sha256};
use scribe_proof::index::TreeSize;
use scribe_proof::key::{KeyType, SigningKey};

use files::{read_key, write_key};

pub use error::KeyError;
pub(crate) use files::{create_dir, put_private, read_private};
pub use last_signed::{LAST_SIGNED_FILE, LastSigned};
pub use ledger::LedgerKeyring;

/// File with the ledger key.
pub const LEDGER_KEY_FILE: &str = "ledger.key";

/// The keys of one node.
#[derive(Debug)]
pub struct Keys {
    /// Name of the ledger: the first line of its checkpoints and the name of the ledger key.
    pub origin: String,
    /// Sign checkpoints for the ledger.
    pub ledger: LedgerKeyring,
    /// Cosigns checkpoints for this node; named `<origin>/node/<id>`.
    pub node: SigningKey,
    /// Why nothing is signed with these keys, and nothing new written, until an operator has shown what was signed
    /// before; unset if there is no reason.
    pub withheld: OnceLock<String>,
}

impl Keys {
    /// Lets nothing be signed with these keys: the directory is in use and does not say what was signed last.
    pub fn withhold(&self, key_dir: &Path) {
        let reason = format!(
            "`{}` holds keys that are in use but no record of what was signed with them ({LAST_SIGNED_FILE}): they were \
             restored or copied, and signing could contradict what others hold; show this node, stopped, the largest \
             checkpoint known outside: scribe repair --trust-checkpoint FILE (docs/operating.md, Backup and restore)",
            key_dir.display()
        );
        // Said once: the first reason is the reason.
        if self.withheld.set(reason.clone()).is_ok() {
            tracing::error!("{reason}");
        }
    }

    /// Why nothing may be signed or written, if so.
    pub fn withheld(&self) -> Option<&str> {
        self.withheld.get().map(String::as_str)
    }
}

/// The key directory of a node.
#[derive(Debug, Clone, Copy)]
pub struct KeyDir;

impl KeyDir {
    /// The keys in `path`, made first where they are missing.
    ///
    /// `origin` names a new ledger; `None` takes what is there or makes `scribe.invalid/<16 hex of the key hash>`.
    /// `node_id` picks the node key. `data_is_new` says that the data directory holds nothing: with keys that were never
    /// a node's it begins the record of what was signed, at size 0.
    ///
    /// # Errors
    /// A key that others may read, that is malformed, of another type or name, or that cannot be made.
    pub fn open_or_create(
        path: &Path,
        origin: Option<&str>,
        node_id: u64,
        data_is_new: bool,
    ) -> Result<Keys, KeyError> {
        create_dir(path)?;
        let ledger_path = path.join(LEDGER_KEY_FILE);
        let mut made = false;
        let ledger = match read_key(&ledger_path, KeyType::Ed25519)? {
            Some(key) => key,
            None => {
                refuse_second_ledger(path, &ledger_path)?;
                let key = new_ledger_key(origin)?;
                // A crash before the link inside leaves no key file; after it, a complete one.
                made = write_key(&ledger_path, &key)?;
                // Another process may have been first: what is in the file counts.
                read_key(&ledger_path, KeyType::Ed25519)?.unwrap_or(key)
            }
        };
        if let Some(expected) = origin {
            expect_name(&ledger_path, &ledger, expected)?;
        }
        let origin = ledger.name().to_owned();
        // Before the node key is there: a crash in between leaves a directory that was never a node's, and the next
        // start comes by here again.
        if made || (data_is_new && !was_used(path)?) {
            begin_record(path, &origin)?;
        }

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
            ledger: LedgerKeyring::load(path, ledger)?,
            node,
            withheld: OnceLock::new(),
        })
    }
}

/// Begins the record of what is signed with the keys of a directory, with the empty tree; a record that is there stays
/// as it is.
///
/// # Errors
/// A damaged record, and what the system refused.
pub(crate) fn begin_record(dir: &Path, origin: &str) -> Result<(), KeyError> {
    if LastSigned::load(dir)?.is_some() {
        return Ok(());
    }
    LastSigned {
        origin: origin.to_owned(),
        size: TreeSize::EMPTY,
        root: empty_root(),
    }
    .store(dir)
}

/// Whether a directory was ever a node's: a ledger key that was made beforehand lies in it alone.
fn was_used(dir: &Path) -> Result<bool, KeyError> {
    let entries = fs::read_dir(dir).map_err(KeyError::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(KeyError::io("list", dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_node_key(&name) || ledger::is_further_key(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The cosigning key in a file, made first if there is none. `name` is its name; `None` takes what is there, or makes
/// `scribe.invalid/witness/<16 hex of SHA-256 of the public key>`.
///
/// # Errors
/// A key that others may read, that is malformed, of another type or name, or that cannot be made.
pub(crate) fn cosigner_key(path: &Path, name: Option<&str>) -> Result<SigningKey, KeyError> {
    let key = match read_key(path, KeyType::Cosignature)? {
        Some(key) => key,
        None => {
            let seed = random_seed()?;
            let key = match name {
                Some(name) => key_from_seed(name, KeyType::Cosignature, &seed)?,
                None => named_by_hash("scribe.invalid/witness", KeyType::Cosignature, &seed)?,
            };
            // A crash before the link inside leaves no key file; after it, a complete one.
            write_key(path, &key)?;
            // Another process may have been first: what is in the file counts.
            read_key(path, KeyType::Cosignature)?.unwrap_or(key)
        }
    };
    if let Some(name) = name {
        expect_name(path, &key, name)?;
    }
    Ok(key)
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
    named_by_hash("scribe.invalid", KeyType::Ed25519, &seed)
}

/// The key with this seed, named `<prefix>/<16 hex of SHA-256 of the public key>`.
fn named_by_hash(prefix: &str, key_type: KeyType, seed: &[u8; 32]) -> Result<SigningKey, KeyError> {
    // The public key does not depend on the name, so a first key with any name tells it.
    let unnamed = key_from_seed(prefix, key_type, seed)?;
    let key_hash = sha256(&unnamed.verifier_key().public_key()).to_hex();
    key_from_seed(&format!("{prefix}/{}", &key_hash[..16]), key_type, seed)
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

/// Writes a further ledger key, given as text, beside `ledger.key`; one that is there already stays.
///
/// # Errors
/// A text that is no ledger key, and what the system refused.
pub(crate) fn write_further_key(dir: &Path, text: &str) -> Result<(), KeyError> {
    let path = dir.join("ledger-….key");
    let malformed = |error| KeyError::Malformed { path, error };
    let key = SigningKey::parse(text.trim_end_matches('\n')).map_err(malformed)?;
    write_key(
        &dir.join(ledger::further_key_file(key.verifier_key())),
        &key,
    )?;
    Ok(())
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

/// A directory with a node key, another ledger key or a signed head had a ledger key: making another would start a second ledger.
fn refuse_second_ledger(dir: &Path, missing: &Path) -> Result<(), KeyError> {
    let entries = fs::read_dir(dir).map_err(KeyError::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(KeyError::io("list", dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == LAST_SIGNED_FILE || is_node_key(&name) || ledger::is_further_key(&name) {
            return Err(KeyError::LedgerKeyMissing {
                missing: missing.to_path_buf(),
                found: entry.path(),
            });
        }
    }
    Ok(())
}

/// Whether a file of this name holds a cosigning key: `node-<id>.key`. A member's `node-tls.key` does not, and is
/// there before its ledger key.
fn is_node_key(name: &str) -> bool {
    name.strip_prefix("node-")
        .and_then(|rest| rest.strip_suffix(".key"))
        .is_some_and(|id| id.parse::<u64>().is_ok())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::files::temporary_name;
    use super::last_signed::tests::head;
    use super::*;

    fn open(dir: &Path, origin: Option<&str>) -> Result<Keys, KeyError> {
        KeyDir::open_or_create(dir, origin, 1, true)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn keys_are_made_once_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/keys");
        let made = open(&dir, None).unwrap();
        assert_eq!(names(&dir), ["last-signed", "ledger.key", "node-1.key"]);
        for name in names(&dir) {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

        let found = open(&dir, None).unwrap();
        assert_eq!(found.origin, made.origin);
        assert_eq!(found.ledger.first(), made.ledger.first());
        assert_eq!(found.node.verifier_key(), made.node.verifier_key());
        assert_eq!(found.node.verifier_key().key_type(), KeyType::Cosignature);
        assert_eq!(found.node.name(), format!("{}/node/1", made.origin));

        let second = KeyDir::open_or_create(&dir, None, 2, true).unwrap();
        assert_eq!(second.ledger.first(), made.ledger.first());
        assert_ne!(
            second.node.verifier_key().public_key(),
            made.node.verifier_key().public_key()
        );
    }

    #[test]
    fn the_default_origin_is_made_from_the_public_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path(), None).unwrap();
        let hash = sha256(&keys.ledger.first().public_key()).to_hex();
        assert_eq!(keys.origin, format!("scribe.invalid/{}", &hash[..16]));
        assert_eq!(keys.ledger.first().name(), keys.origin);
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
    fn a_tls_key_is_not_taken_for_a_node_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node-tls.key"), "").unwrap();
        open(dir.path(), None).unwrap();
        assert_eq!(
            names(dir.path()),
            ["last-signed", "ledger.key", "node-1.key", "node-tls.key"]
        );
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
    fn a_leftover_temporary_file_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = temporary_name(&dir.path().join(LEDGER_KEY_FILE));
        fs::write(&leftover, "torn").unwrap();
        open(dir.path(), None).unwrap();
        assert_eq!(
            names(dir.path()),
            ["last-signed", "ledger.key", "node-1.key"]
        );
    }

    #[test]
    fn the_record_of_what_was_signed_begins_with_the_keys_and_is_never_made_up() {
        // A key made beforehand, and data that is new.
        let dir = tempfile::tempdir().unwrap();
        let key = new_ledger_key(Some("example.com/a")).unwrap();
        write_new_key(&dir.path().join(LEDGER_KEY_FILE), &key).unwrap();
        open(dir.path(), None).unwrap();
        let record = LastSigned::load(dir.path()).unwrap().unwrap();
        assert_eq!((record.size, record.root), (TreeSize::EMPTY, empty_root()));

        // Keys that were a node's, put back without the record: whatever the data is, it does not begin again.
        fs::remove_file(dir.path().join(LAST_SIGNED_FILE)).unwrap();
        for data_is_new in [true, false] {
            KeyDir::open_or_create(dir.path(), None, 1, data_is_new).unwrap();
            assert_eq!(LastSigned::load(dir.path()).unwrap(), None);
        }
        // Nor with the ledger's key alone, beside data that is not new.
        fs::remove_file(dir.path().join("node-1.key")).unwrap();
        KeyDir::open_or_create(dir.path(), None, 1, false).unwrap();
        assert_eq!(LastSigned::load(dir.path()).unwrap(), None);
    }
}
