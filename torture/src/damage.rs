//! What a disk does to files at rest: bytes that are others, files that are shorter.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::trouble::Result;

/// A kind of file in a node's directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKind {
    pub name: &'static str,
    /// Whether there is so much of it that many flips in one round leave most of it whole.
    pub large: bool,
}

/// Every kind of file there is.
pub const KINDS: [FileKind; 9] = [
    FileKind {
        name: "sealed segment",
        large: true,
    },
    FileKind {
        name: "vote",
        large: false,
    },
    FileKind {
        name: "tree",
        large: true,
    },
    FileKind {
        name: "MANIFEST",
        large: false,
    },
    FileKind {
        name: "open segment",
        large: true,
    },
    FileKind {
        name: "watermarks",
        large: false,
    },
    FileKind {
        name: "index",
        large: true,
    },
    FileKind {
        name: "keys",
        large: false,
    },
    FileKind {
        name: "last-signed",
        large: false,
    },
];

/// The files of this kind that a stopped node has.
pub fn files(data: &Path, keys: &Path, kind: FileKind) -> Result<Vec<PathBuf>> {
    let log = data.join("log");
    Ok(match kind.name {
        "sealed segment" | "open segment" => {
            let mut segments = below(&log)?;
            segments.retain(|path| path.extension().is_some_and(|of| of == "seg"));
            let next = segments.iter().position(|path| path.ends_with("next.seg"));
            let next = next.map(|place| segments.remove(place));
            segments.sort();
            let open = segments.pop();
            match kind.name {
                "sealed segment" => segments,
                _ => open.into_iter().chain(next).collect(),
            }
        }
        "tree" | "index" => below(&data.join(kind.name))?,
        "keys" => {
            let mut files = below(keys)?;
            files.retain(|path| !path.ends_with("last-signed"));
            files
        }
        "last-signed" => vec![keys.join("last-signed")],
        name => vec![data.join(name)],
    })
}

/// All files below a directory that have bytes, in the order of their names.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => directories.push(entry.path()),
                false if entry.metadata()?.len() > 0 => files.push(entry.path()),
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Changes one byte of a file, somewhere before the zeros at its end. Says where.
pub fn flip(path: &Path, rng: &mut StdRng) -> Result<String> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = used(&file)?.max(1);
    let offset = rng.random_range(0..length);
    let mut byte = [0];
    file.read_at(&mut byte, offset)?;
    byte[0] ^= rng.random_range(1..=u8::MAX);
    file.write_all_at(&byte, offset)?;
    file.sync_all()?;
    Ok(format!("{} byte {offset}", path.display()))
}

/// Cuts a file short. Says where.
pub fn truncate(path: &Path, rng: &mut StdRng) -> Result<String> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = rng.random_range(0..used(&file)?.max(1));
    file.set_len(length)?;
    file.sync_all()?;
    Ok(format!("{} cut to {length} bytes", path.display()))
}

/// Bytes of a file without the zeros at its end: what is allocated ahead is nobody's.
fn used(file: &File) -> Result<u64> {
    const STEP: u64 = 64 * 1_024;
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0; STEP as usize];
    while end > 0 {
        let from = end.saturating_sub(STEP);
        let piece = &mut buffer[..(end - from) as usize];
        file.read_exact_at(piece, from)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
