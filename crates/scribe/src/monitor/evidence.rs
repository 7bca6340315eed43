//! Two signed checkpoints that contradict each other, as a file that shows it to anybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use scribe_proof::{SignedCheckpoint, TreeSize};

/// Files of one name at most: the same fork is written once.
const FILES_MAX: u32 = 1_000;

/// What is written: why, and both notes byte for byte.
pub(super) fn text(
    accepted: &SignedCheckpoint,
    found: &SignedCheckpoint,
    node: &str,
    reason: &str,
) -> String {
    format!(
        "Two checkpoints of one ledger that do not go together: {reason}.\n\
         Each is a signed note (https://c2sp.org/signed-note) between its two lines of dashes. If the signatures of both \
         are good, the ledger's history was forked or rewritten. Keep this file.\n\n\
         Accepted before:\n{DASHES}\n{}{DASHES}\n\n\
         Shown by {node}:\n{DASHES}\n{}{DASHES}\n",
        accepted.to_text(),
        found.to_text()
    )
}

const DASHES: &str = "----------------------------------------";

/// Writes `fork-<size>.txt`, or `fork-<size>-<n>.txt` if there is another fork of that size. An existing file is never
/// changed; the same evidence is not written twice.
pub(super) fn write(directory: &Path, size: TreeSize, text: &str) -> io::Result<PathBuf> {
    for number in 1..FILES_MAX {
        let name = match number {
            1 => format!("fork-{size}.txt"),
            _ => format!("fork-{size}-{number}.txt"),
        };
        let path = directory.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                // A crash here leaves a part of it; the next round finds other text and writes a file of its own.
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::File::open(directory)?.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(&path)? == text.as_bytes() {
                    return Ok(path);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "there are {FILES_MAX} other forks of tree size {size}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_written_once_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let size = TreeSize::new(7);
        let first = write(directory.path(), size, "one").unwrap();
        assert_eq!(first.file_name().unwrap(), "fork-7.txt");
        assert_eq!(write(directory.path(), size, "one").unwrap(), first);
        let second = write(directory.path(), size, "two").unwrap();
        assert_eq!(second.file_name().unwrap(), "fork-7-2.txt");
        assert_eq!(fs::read_to_string(first).unwrap(), "one");
    }
}
