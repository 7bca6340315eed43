//! The audit of a tile directory: what a web server or a bucket serves, checked as files.
//!
//! ```text
//! checkpoint                     signed
//! tile/<L>/<N>[.p/<W>]           hashes, every tile of the checkpoint's tree; also stale partial ones
//! tile/entries/<N>[.p/<W>]       leaves
//! openings/<N>[.p/<W>]           salt, metadata and value of each leaf, if the export has them
//! ```
//! Every file under `tile/` and `openings/` is compared; one that is missing, or that no tree of this size has, is named.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::leaf::Leaf;
use scribe_proof::tile::{Tile, TilePath, parse_bundle};
use scribe_proof::tree::{LEVEL_MAX, TILE_WIDTH, TreeBuilder, tile_root};
use scribe_proof::{LeafIndex, LeafKind, SignedCheckpoint, TreeSize};

use super::checkpoint::{evaluate, signatures};
use super::entries::{Broken, EntryRules};
use super::lineage::Lineage;
use super::parallel::in_order;
use super::{AuditError, AuditOptions, AuditReport, Expected, Finding, Progress};
use crate::limits;

/// Name of the signed checkpoint.
const CHECKPOINT: &str = "checkpoint";
/// Longest checkpoint: the format's own limit.
const CHECKPOINT_LENGTH_MAX: u64 = 64 * 1_024;
/// Longest file of hashes or leaves: 256 leaves of 65,535 bytes, each behind its length.
const TILE_LENGTH_MAX: u64 = 256 * (65_535 + 2);
/// Longest opening: salt, the longest metadata behind its length, and the longest value.
const OPENING_LENGTH_MAX: u64 =
    (18 + limits::METADATA_LENGTH_MAX + limits::VALUE_LENGTH_CEILING) as u64;
/// Bytes of openings read at once.
const PIECE: usize = 1 << 18;
/// Hashes in a tile.
const WIDTH: u64 = TILE_WIDTH as u64;

/// Audits a tile directory. Progress is counted in bytes.
///
/// # Errors
/// The first thing that does not hold, or what the disk cannot read.
pub fn audit(
    directory: &Path,
    options: &AuditOptions,
    progress: Progress<'_>,
) -> Result<AuditReport, AuditError> {
    let policy = options.policy.as_ref();
    let signed = read_checkpoint(directory)?;
    evaluate(&signed, policy, CHECKPOINT)?;
    let checkpoint = signed.checkpoint();
    let size = checkpoint.size;
    let mut report = AuditReport {
        source: "tiles",
        origin: Some(checkpoint.origin.clone()),
        checkpoint_size: Some(size.get()),
        ..AuditReport::default()
    };
    let mut expected = Expected::default();
    expected.add(size, checkpoint.root, "the checkpoint");
    if let Some(pinned) = &options.pinned {
        evaluate(pinned, policy, "the checkpoint given")?;
        let pinned = pinned.checkpoint();
        if pinned.origin != checkpoint.origin {
            let reason = format!(
                "it is of {:?}, the one given of {:?}",
                checkpoint.origin, pinned.origin
            );
            return Err(Finding::new(CHECKPOINT, reason).into());
        }
        expected.add(pinned.size, pinned.root, "the checkpoint given");
        report.pinned_size = Some(pinned.size.get());
    }
    let mut walk = Walk {
        size,
        files: 1,
        bytes: 0,
    };
    walk.root(directory, &mut report.notes)?;
    let openings = directory.join("openings").is_dir();
    if !openings {
        report.notes.push(
            "the export has no openings/: leaves are checked, the values they commit to are not here".to_owned(),
        );
    }

    let done = AtomicU64::new(0);
    let reader = Reader {
        directory,
        size,
        openings,
        read: &|bytes| {
            let before = done.fetch_add(bytes, Ordering::Relaxed);
            progress((before + bytes).min(walk.bytes), walk.bytes);
        },
    };
    let mut above: Vec<Vec<Hash>> = vec![Vec::new(); usize::from(LEVEL_MAX) + 1];
    let mut tiles_done = [0; LEVEL_MAX as usize + 1];
    let mut builder = TreeBuilder::new();
    let mut rules = EntryRules::default();
    let mut lineage = Lineage::default();
    let mut check_root = |builder: &TreeBuilder| match expected.awaits(builder.size()) {
        true => expected.check(builder.size(), builder.root(), CHECKPOINT),
        false => Ok(()),
    };
    check_root(&builder)?;
    in_order(
        size.get().div_ceil(WIDTH),
        |index| reader.bundle(index),
        |index, bundle: Bundle| {
            for (slot, leaf) in bundle.leaves.iter().enumerate() {
                let place = LeafIndex::new(builder.size().get());
                let leaf = rules.leaf(leaf).and_then(|leaf| {
                    let followed = lineage.follow(place, &leaf);
                    followed.map_err(|reason| Broken {
                        key: leaf.key.to_vec(),
                        reason,
                    })?;
                    Ok(leaf)
                });
                let leaf = leaf.map_err(|broken| {
                    reader.broken(index, slot, &bundle.leaves, &bundle.name, broken)
                })?;
                if leaf.kind == LeafKind::System {
                    rules.system_entries += 1;
                }
                builder.append(bundle.hashes[slot], |level, hash| {
                    above[usize::from(level)].push(hash);
                });
                // Where leaves and hashes of the last tile differ, the signed root says which of the two changed.
                check_root(&builder).map_err(|wrong| match &bundle.differs {
                    Some(differs) => differs.leaf.clone(),
                    None => wrong,
                })?;
            }
            if let Some(differs) = bundle.differs {
                return Err(differs.hash.into());
            }
            rules.values += bundle.values;
            // Level 0 was compared with its own file.
            above[0].clear();
            for level in 1..=LEVEL_MAX {
                let hashes = &mut above[usize::from(level)];
                if hashes.len() == TILE_WIDTH {
                    reader.hashes(level, tiles_done[usize::from(level)], hashes)?;
                    tiles_done[usize::from(level)] += 1;
                    hashes.clear();
                }
            }
            Ok(())
        },
    )?;
    for level in 1..=LEVEL_MAX {
        let hashes = &above[usize::from(level)];
        if !hashes.is_empty() {
            reader.hashes(level, tiles_done[usize::from(level)], hashes)?;
        }
    }
    expected.finish(builder.size(), CHECKPOINT)?;
    if let Some(reason) = rules.open_transaction() {
        return Err(Finding::new(CHECKPOINT, reason).into());
    }
    report.tree_size = builder.size().get();
    report.root_hash = builder.root().to_hex();
    report.notes.extend(lineage.note());
    report.values = rules.values;
    report.system_entries = rules.system_entries;
    report.bytes = walk.bytes;
    report.files = walk.files;
    report.signatures = signatures(&signed, policy, &rules.announced, CHECKPOINT)?;
    if let Some(pinned) = &options.pinned {
        signatures(pinned, policy, &rules.announced, "the checkpoint given")?;
    }
    Ok(report)
}

fn read_checkpoint(directory: &Path) -> Result<SignedCheckpoint, AuditError> {
    let bytes = read_file(directory, CHECKPOINT, CHECKPOINT_LENGTH_MAX)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to() as u64;
        Finding::new(CHECKPOINT, "it is no text").at(at)
    })?;
    let signed = SignedCheckpoint::parse(&text)
        .map_err(|error| Finding::new(CHECKPOINT, error.to_string()))?;
    match signed.to_text() == text {
        true => Ok(signed),
        false => {
            Err(Finding::new(CHECKPOINT, "it is not written in its one canonical form").into())
        }
    }
}

fn read_file(directory: &Path, name: &str, allowed: u64) -> Result<Vec<u8>, AuditError> {
    let path = directory.join(name);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => AuditError::from(Finding::new(name, "the file is missing")),
        _ => AuditError::io(name, &error),
    };
    let length = fs::metadata(&path).map_err(failed)?.len();
    if length > allowed {
        let reason = format!("the file has {length} bytes, allowed {allowed}");
        return Err(Finding::new(name, reason).into());
    }
    fs::read(&path).map_err(failed)
}

/// Looks at every name: a file that no tree of this size has is found here, whatever is in it.
struct Walk {
    size: TreeSize,
    files: u64,
    bytes: u64,
}

impl Walk {
    fn root(&mut self, directory: &Path, notes: &mut Vec<String>) -> Result<(), AuditError> {
        for (name, path) in sorted(directory, "")? {
            match name.as_str() {
                CHECKPOINT => {
                    let metadata = fs::metadata(&path);
                    self.bytes += metadata.map_or(0, |metadata| metadata.len());
                }
                "tile" | "openings" if path.is_dir() => self.directory(&path, &name, notes)?,
                other => notes.push(format!(
                    "`{other}` is no file of a tile directory and was not read"
                )),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        directory: &Path,
        name: &str,
        notes: &mut Vec<String>,
    ) -> Result<(), AuditError> {
        for (child, path) in sorted(directory, name)? {
            let name = format!("{name}/{child}");
            let metadata = fs::metadata(&path).map_err(|error| AuditError::io(&name, &error))?;
            if metadata.is_dir() {
                self.directory(&path, &name, notes)?;
                continue;
            }
            if name.ends_with(".partial") {
                notes.push(format!(
                    "`{name}` is of an export that was cut short, counts for nothing and was not read"
                ));
                continue;
            }
            // Openings are named like the bundles they belong to.
            let as_tile = match name.strip_prefix("openings/") {
                Some(rest) => format!("tile/entries/{rest}"),
                None => name.clone(),
            };
            let exists =
                TilePath::parse(&as_tile).is_ok_and(|path| path.tile().exists_at(self.size));
            if !exists {
                let reason = format!(
                    "the file does not belong here: no tree of {} entries has it",
                    self.size
                );
                return Err(Finding::new(name, reason).into());
            }
            self.files += 1;
            self.bytes += metadata.len();
        }
        Ok(())
    }
}

fn sorted(directory: &Path, name: &str) -> Result<Vec<(String, PathBuf)>, AuditError> {
    let failed = |error: io::Error| AuditError::io(name, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    found.sort_unstable();
    Ok(found)
}

/// A bundle that was compared with its tile and its openings.
struct Bundle {
    name: String,
    leaves: Vec<Bytes>,
    hashes: Vec<Hash>,
    values: u64,
    differs: Option<Differs>,
}

/// A leaf and its hash in a tile do not agree, and nothing nearby says which of the two changed.
struct Differs {
    leaf: Finding,
    hash: Finding,
}

/// Reads and compares what belongs to one tile.
struct Reader<'a> {
    directory: &'a Path,
    size: TreeSize,
    openings: bool,
    read: &'a (dyn Fn(u64) + Sync),
}

impl Reader<'_> {
    /// Everything under tile `index` of level 0: hashes, leaves, openings, and stale partial forms of each.
    fn bundle(&self, index: u64) -> Result<Bundle, AuditError> {
        let tile = self.tile(0, index)?;
        let name = tile.entries_path().unwrap_or_default();
        let bytes = Bytes::from(self.file(&name, TILE_LENGTH_MAX)?);
        let leaves = parse_bundle(&bytes, tile.width())
            .map_err(|error| Finding::new(&name, error.to_string()).entry(tile.start()))?;
        let leaves: Vec<Bytes> = leaves
            .into_iter()
            .map(|leaf| bytes.slice_ref(leaf))
            .collect();
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let differs = self.compare_leaves(&tile, &name, &leaves, &hashes)?;
        self.stale(&tile.path(), |width| {
            (width * Hash::LENGTH, as_bytes(&hashes))
        })?;
        let mut ends = Vec::with_capacity(leaves.len());
        let mut end = 0;
        for leaf in &leaves {
            end += 2 + leaf.len();
            ends.push(end);
        }
        self.stale(&name, |width| (ends[width - 1], bytes.to_vec()))?;
        let mut bundle = Bundle {
            name,
            hashes,
            values: 0,
            differs,
            leaves,
        };
        if self.openings {
            let opened = self.openings(&tile, &mut bundle);
            match (opened, bundle.differs.take()) {
                // Hash and opening agree with each other, and the leaf with neither.
                (Err(_), Some(differs)) => return Err(differs.leaf.into()),
                (opened, differs) => {
                    opened?;
                    bundle.differs = differs;
                }
            }
        }
        Ok(bundle)
    }

    /// Leaves and hashes must agree. Where they do not, the level above says which of the two changed.
    fn compare_leaves(
        &self,
        tile: &Tile,
        name: &str,
        leaves: &[Bytes],
        hashes: &[Hash],
    ) -> Result<Option<Differs>, AuditError> {
        let path = tile.path();
        let stored = self.file(&path, TILE_LENGTH_MAX)?;
        if stored.len() != hashes.len() * Hash::LENGTH {
            let wanted = hashes.len() * Hash::LENGTH;
            let reason = format!("the file has {} bytes, must have {wanted}", stored.len());
            return Err(Finding::new(path, reason)
                .at(stored.len().min(wanted) as u64)
                .entry(tile.start())
                .into());
        }
        let (stored, _) = stored.as_chunks::<{ Hash::LENGTH }>();
        let Some(slot) = hashes.iter().zip(stored).position(|(a, b)| a.0 != *b) else {
            return Ok(None);
        };
        let index = tile.start() + slot as u64;
        let broken = Broken {
            key: Leaf::parse(&leaves[slot]).map_or_else(|_| Vec::new(), |leaf| leaf.key.to_vec()),
            reason: format!(
                "the leaf of entry {index} in {name} has hash {}, {path} has {}",
                hashes[slot],
                Hash(stored[slot])
            ),
        };
        let same = hashes[slot]
            .0
            .iter()
            .zip(&stored[slot])
            .take_while(|(a, b)| a == b);
        let hash = Finding::new(path, &*broken.reason)
            .at((slot * Hash::LENGTH + same.count()) as u64)
            .entry(index)
            .key(&broken.key);
        let leaf = self.broken(tile.index(), slot, leaves, name, broken);
        let stored: Vec<Hash> = stored.iter().map(|hash| Hash(*hash)).collect();
        match self.tile_is_good(tile, &stored) {
            Some(true) => Err(leaf.into()),
            Some(false) => Err(hash.into()),
            None => Ok(Some(Differs { leaf, hash })),
        }
    }

    /// Whether the level above has the root of a full tile; `None` where there is nothing to compare with.
    fn tile_is_good(&self, tile: &Tile, stored: &[Hash]) -> Option<bool> {
        if !tile.is_full() {
            return None;
        }
        let above = Tile::at(tile.level() + 1, tile.index() / WIDTH, self.size)?;
        let bytes = read_file(self.directory, &above.path(), TILE_LENGTH_MAX).ok()?;
        let at = (tile.index() % WIDTH) as usize * 32;
        Some(bytes.get(at..at + 32)? == tile_root(stored).as_bytes())
    }

    /// A rule that an entry of a bundle breaks.
    fn broken(
        &self,
        tile: u64,
        slot: usize,
        leaves: &[Bytes],
        name: &str,
        broken: Broken,
    ) -> Finding {
        let offset: usize = leaves[..slot].iter().map(|leaf| 2 + leaf.len()).sum();
        Finding::new(name, broken.reason)
            .at(offset as u64 + 2)
            .entry(tile * WIDTH + slot as u64)
            .key(&broken.key)
    }

    /// Reads what opens the leaves, one record at a time: a bundle of large values is larger than memory may be.
    fn openings(&self, tile: &Tile, bundle: &mut Bundle) -> Result<(), AuditError> {
        let name = bundle.name.replacen("tile/entries/", "openings/", 1);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => AuditError::from(Finding::new(&name, "the file is missing")),
            _ => AuditError::io(&name, &error),
        };
        let file = File::open(self.directory.join(&name)).map_err(failed)?;
        let file_length = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::with_capacity(PIECE, file);
        let mut rules = EntryRules::default();
        let (mut at, mut ends) = (0, Vec::with_capacity(bundle.leaves.len()));
        for (slot, leaf) in bundle.leaves.iter().enumerate() {
            let index = tile.start() + slot as u64;
            let wrong = |at: u64, reason: String| Finding::new(&name, reason).at(at).entry(index);
            let mut length = [0; 4];
            if file_length - at < 4 {
                return Err(wrong(at, "the file ends before its openings do".into()).into());
            }
            reader.read_exact(&mut length).map_err(failed)?;
            let length = u64::from(u32::from_be_bytes(length));
            let end = at + 4 + length;
            if length > OPENING_LENGTH_MAX || end > file_length {
                let reason = format!(
                    "an opening declares {length} bytes, allowed {OPENING_LENGTH_MAX}, and {} are left",
                    file_length - at - 4
                );
                return Err(wrong(at, reason).into());
            }
            let mut record = vec![0; length as usize];
            reader.read_exact(&mut record).map_err(failed)?;
            let leaf = Leaf::parse(leaf).map_err(|error| wrong(at, error.to_string()))?;
            rules
                .record(&leaf, &record)
                .map_err(|broken| wrong(at + 4, broken.reason).key(&broken.key))?;
            at = end;
            ends.push(end);
            (self.read)(4 + length);
        }
        if at != file_length {
            let reason = format!("{} bytes follow the last opening", file_length - at);
            return Err(Finding::new(name, reason).at(at).into());
        }
        for (width, stale) in self.stale_forms(&name)? {
            self.same_beginning(&stale, &name, ends[width - 1])?;
        }
        bundle.values = rules.values;
        Ok(())
    }

    /// A stale form must be the first `length` bytes of the newest one.
    fn same_beginning(&self, stale: &str, newest: &str, length: u64) -> Result<(), AuditError> {
        let open = |name: &str| {
            File::open(self.directory.join(name)).map_err(|error| AuditError::io(name, &error))
        };
        let (old, new) = (open(stale)?, open(newest)?);
        let found = old
            .metadata()
            .map_err(|error| AuditError::io(stale, &error))?
            .len();
        let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
        let mut at = 0;
        let wrong =
            |at: u64| Finding::new(stale, format!("it is not the beginning of {newest}")).at(at);
        while at < length.min(found) {
            let piece = (length.min(found) - at).min(PIECE as u64) as usize;
            let (one, other) = (&mut one[..piece], &mut other[..piece]);
            old.read_exact_at(one, at)
                .map_err(|error| AuditError::io(stale, &error))?;
            new.read_exact_at(other, at)
                .map_err(|error| AuditError::io(newest, &error))?;
            if one != other {
                let same = one.iter().zip(other.iter()).take_while(|(a, b)| a == b);
                return Err(wrong(at + same.count() as u64).into());
            }
            at += piece as u64;
        }
        (self.read)(found);
        match found == length {
            true => Ok(()),
            false => Err(wrong(length.min(found)).into()),
        }
    }

    /// A tile of hashes above level 0, and its stale partial forms.
    fn hashes(&self, level: u8, index: u64, hashes: &[Hash]) -> Result<(), AuditError> {
        let tile = self.tile(level, index)?;
        let path = tile.path();
        let (stored, derived) = (self.file(&path, TILE_LENGTH_MAX)?, as_bytes(hashes));
        if stored != derived {
            let good = stored
                .iter()
                .zip(&derived)
                .take_while(|(a, b)| a == b)
                .count();
            let entry = (tile.start() + (good / 32) as u64) << (8 * u32::from(level));
            let reason = "the hashes are not those of the tiles below";
            return Err(Finding::new(path, reason)
                .at(good as u64)
                .entry(entry)
                .into());
        }
        self.stale(&path, |width| (width * Hash::LENGTH, derived.clone()))
    }

    /// Partial forms of a file that were exported when the tree was smaller: each must be its beginning. `whole` gives
    /// the length of the form with so many entries, and the bytes of the newest form.
    fn stale(
        &self,
        path: &str,
        whole: impl Fn(usize) -> (usize, Vec<u8>),
    ) -> Result<(), AuditError> {
        for (entries, name) in self.stale_forms(path)? {
            let stored = self.file(&name, TILE_LENGTH_MAX)?;
            let (length, bytes) = whole(entries);
            if stored != bytes[..length] {
                let same = stored
                    .iter()
                    .zip(&bytes[..length])
                    .take_while(|(a, b)| a == b);
                let reason = format!("it is not the beginning of {path}");
                return Err(Finding::new(name, reason).at(same.count() as u64).into());
            }
        }
        Ok(())
    }

    /// Width and name of each partial form of a file beside the newest one.
    fn stale_forms(&self, path: &str) -> Result<Vec<(usize, String)>, AuditError> {
        let (base, newest) = match path.split_once(".p/") {
            Some((base, width)) => (base, Some(width)),
            None => (path, None),
        };
        let partial = format!("{base}.p");
        let directory = self.directory.join(&partial);
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let widths = sorted(&directory, &partial)?.into_iter();
        Ok(widths
            .filter(|(width, _)| newest != Some(width.as_str()))
            // Names that are no widths were refused before.
            .filter_map(|(width, _)| Some((width.parse().ok()?, format!("{partial}/{width}"))))
            .filter(|(width, _)| (1..TILE_WIDTH).contains(width))
            .collect())
    }

    fn tile(&self, level: u8, index: u64) -> Result<Tile, AuditError> {
        Tile::at(level, index, self.size).ok_or_else(|| {
            AuditError::Unexpected(format!("there is no tile {index} of level {level}"))
        })
    }

    fn file(&self, name: &str, allowed: u64) -> Result<Vec<u8>, AuditError> {
        let bytes = read_file(self.directory, name, allowed)?;
        (self.read)(bytes.len() as u64);
        Ok(bytes)
    }
}

fn as_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}
