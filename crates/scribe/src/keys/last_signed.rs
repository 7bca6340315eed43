//! The newest head signed with the keys of a directory: what notices an older copy of the data.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;

use super::error::KeyError;
use super::files::{FILE_LENGTH_MAX, read_text, sync_dir, temporary_name, write_durably};

/// File with the last signed head.
pub const LAST_SIGNED_FILE: &str = "last-signed";
/// First line of `last-signed`: what the file is, and its version.
const LAST_SIGNED_MAGIC: &str = "scribe-ledger/last-signed/v1";

/// The newest head signed with the keys of a directory.
///
/// It is stored *before* a signature leaves the node, so what anybody may hold is never newer than what is stored.
/// Before signing anything else the caller recomputes the root hash at this size from its data. A checkpoint that a node
/// shows without having signed it is recorded in the same way before it is shown: after a start nothing smaller is shown.
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
        let text = match read_text(file, &path, FILE_LENGTH_MAX) {
            Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::InvalidData => {
                let rule = "it must be text";
                return Err(KeyError::LastSignedDamaged { path, rule });
            }
            text => text?,
        };
        match LastSigned::parse(&text) {
            Ok(last) => Ok(Some(last)),
            Err(rule) => Err(KeyError::LastSignedDamaged { path, rule }),
        }
    }

    /// Reads the text of the record; the error is the rule it breaks.
    pub(super) fn parse(text: &str) -> Result<LastSigned, &'static str> {
        let mut lines = text.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let [magic, origin, size, root] = [line(), line(), line(), line()];
        if (lines.next(), lines.next()) != (Some(""), None) {
            return Err("it must be four lines, each ended by a newline");
        }
        if magic != LAST_SIGNED_MAGIC {
            return Err("its first line must be scribe-ledger/last-signed/v1");
        }
        if origin.is_empty() {
            return Err("its second line must be an origin");
        }
        let last = LastSigned {
            origin: origin.to_owned(),
            size: TreeSize::new(
                size.parse()
                    .map_err(|_| "its third line must be a tree size")?,
            ),
            root: Hash::from_base64(root).map_err(|_| "its fourth line must be a root hash")?,
        };
        // One spelling only: a number has no plus sign and no leading zeros.
        if last.to_text() != text {
            return Err("its third line must be a tree size");
        }
        Ok(last)
    }

    /// The text of the record.
    pub(super) fn to_text(&self) -> String {
        let LastSigned { origin, size, root } = self;
        format!(
            "{LAST_SIGNED_MAGIC}\n{origin}\n{size}\n{}\n",
            root.to_base64()
        )
    }

    /// Makes this the last signed head of a key directory; durable when it returns. One that is there already is written
    /// again: a sync may have failed after it was put in place, and what can be read need not be on the disk.
    ///
    /// # Errors
    /// [`KeyError::WouldFork`] if the head stored already is of another origin, is larger, or has another root hash
    /// at the same size: then nothing may be signed. Otherwise what the system refused ([`KeyError::Io`]): the old head is
    /// there or this one, and the same call may be made again.
    pub fn store(&self, dir: &Path) -> Result<(), KeyError> {
        if let Some(last) = LastSigned::load(dir)? {
            self.check_follows(&last)?;
        }
        let path = dir.join(LAST_SIGNED_FILE);
        let temporary = temporary_name(&path);
        let text = self.to_text();
        // A crash here leaves the old head and perhaps a temporary file: nothing newer was signed.
        write_durably(&temporary, text.as_bytes())?;
        // A crash here leaves the old or the new head; the new one is not signed yet, and signing it later is the
        // same statement.
        fs::rename(&temporary, &path).map_err(KeyError::io("replace", &path))?;
        sync_dir(dir)
    }

    /// Takes a damaged record away. Nothing may be signed before another is stored.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn discard(dir: &Path) -> Result<(), KeyError> {
        let path = dir.join(LAST_SIGNED_FILE);
        // A crash right here leaves no record: the keys are withheld until one is made.
        fs::remove_file(&path).map_err(KeyError::io("remove", &path))?;
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
pub(super) mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::tests::names;
    use super::*;

    pub(in crate::keys) fn head(size: u64, root: u8) -> LastSigned {
        LastSigned {
            origin: "example.com/a".to_owned(),
            size: TreeSize::new(size),
            root: Hash([root; 32]),
        }
    }

    #[test]
    fn the_last_signed_head_only_moves_forward() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastSigned::load(dir.path()).unwrap(), None);
        head(5, 1).store(dir.path()).unwrap();
        let inode = || {
            fs::metadata(dir.path().join(LAST_SIGNED_FILE))
                .unwrap()
                .ino()
        };
        let first = inode();
        head(5, 1).store(dir.path()).unwrap();
        assert_ne!(inode(), first, "written again, not taken for durable");
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
        let text_damaged = [
            String::new(),
            text[..text.len() - 1].to_owned(),
            text.replace("/v1", "/v2"),
            text.replace("\n5\n", "\nfive\n"),
            text.replace("AQEB", "AQE!"),
            format!("{text}more\n"),
        ];
        let no_text = [text.as_bytes(), b"\xff"].concat();
        for damaged in text_damaged
            .map(String::into_bytes)
            .into_iter()
            .chain([no_text])
        {
            fs::write(&path, &damaged).unwrap();
            let error = LastSigned::load(dir.path()).unwrap_err();
            assert!(
                matches!(error, KeyError::LastSignedDamaged { .. }),
                "{damaged:?}: {error}"
            );
            assert!(head(6, 1).store(dir.path()).is_err());
        }
    }
}
