//! `witnessed`, in the key directory: which logs this key has a memory of, and how far that reached at the last start
//! or orderly stop.
//!
//! The states themselves are in another directory, which can be wiped or restored from a backup without the key noticing.
//! This file is what notices: a log that is listed here has a state, and one that is not smaller than the size here. It is
//! not written at each cosignature, so a copy of the states younger than the last start or stop passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scribe_proof::index::TreeSize;

use crate::keys::{KeyError, put_private, read_private};
use crate::limits;

/// Name of the file.
pub(super) const WITNESSED_FILE: &str = "witnessed";
/// First line: what the file is, and its version.
pub(super) const MAGIC: &str = "scribe-ledger/witnessed/v1";

/// Sizes by log, named as in paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Floors(pub BTreeMap<String, TreeSize>);

impl Floors {
    /// # Errors
    /// The file cannot be read, or is not what [`Floors::store`] writes.
    pub fn load(key_dir: &Path) -> Result<Floors, String> {
        let path = file(key_dir);
        let text =
            read_private(&path, limits::WITNESSED_LENGTH_MAX).map_err(|error| error.to_string())?;
        let Some(text) = text else {
            return Ok(Floors::default());
        };
        parse(&text).ok_or_else(|| {
            format!(
                "`{}` is damaged: it must be {MAGIC}, then lines of 64 hexadecimal digits and a size",
                path.display()
            )
        })
    }

    /// Durable when it returns; a crash before leaves the old file.
    ///
    /// # Errors
    /// The system refused.
    pub fn store(&self, key_dir: &Path) -> Result<(), KeyError> {
        put_private(&file(key_dir), self.to_text().as_bytes())
    }

    /// The text of the file.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        for (log, size) in &self.0 {
            text.push_str(&format!("{log} {size}\n"));
        }
        text
    }
}

fn file(key_dir: &Path) -> PathBuf {
    key_dir.join(WITNESSED_FILE)
}

/// Reads the text of the file: exactly what [`Floors::to_text`] writes.
pub(super) fn parse(text: &str) -> Option<Floors> {
    let lines = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
    let mut floors = BTreeMap::new();
    for line in lines.split_inclusive('\n') {
        let (log, size) = line.strip_suffix('\n')?.split_once(' ')?;
        if log.len() != 64 || !log.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        floors.insert(log.to_owned(), TreeSize::new(size.parse().ok()?));
    }
    // One spelling only: each log once, in order, in lower case, its size without sign or leading zeros.
    Some(Floors(floors)).filter(|floors| floors.to_text() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_damage_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Floors::load(dir.path()), Ok(Floors::default()));
        let floors = Floors(BTreeMap::from([
            ("0".repeat(64), TreeSize::new(7)),
            ("a".repeat(64), TreeSize::EMPTY),
        ]));
        floors.store(dir.path()).unwrap();
        assert_eq!(Floors::load(dir.path()), Ok(floors));
        let path = dir.path().join(WITNESSED_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            text.trim_end().to_owned(),
            text.replace("/v1", "/v2"),
            text.replace(" 7", " x"),
            text.replace("aaaa", "a"),
            text.replace("aaaa", "gggg"),
        ] {
            put_private(&path, damaged.as_bytes()).unwrap();
            assert!(Floors::load(dir.path()).is_err(), "{damaged:?}");
        }
    }
}
