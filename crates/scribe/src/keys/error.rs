//! Why keys or the last signed head cannot be used, with a next step for whoever has to mend it.

use std::io;
use std::path::{Path, PathBuf};

use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::note::NoteError;

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
    /// More ledger keys than any ledger needs.
    #[error(
        "cannot keep `{}`: the directory has {allowed} ledger keys beside the first one, more are not allowed",
        path.display()
    )]
    TooMany {
        /// The file that would be one too many.
        path: PathBuf,
        /// Most allowed.
        allowed: usize,
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
                Some(
                    "make it again from the largest checkpoint known outside: scribe repair --trust-checkpoint FILE"
                        .to_owned(),
                )
            }
            _ => None,
        }
    }

    pub(super) fn io<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Io {
            what,
            path: path.to_path_buf(),
            error,
        }
    }
}
