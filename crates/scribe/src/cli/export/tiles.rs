//! `scribe export --tiles`: checkpoint, tiles, leaves and, on demand, values as plain files.
//!
//! Whoever is asked may lie. The partial tiles of the tree's right edge are checked against the checkpoint's root first,
//! every full tile against the hash above it, every bundle of leaves against the tile over it, and every opening against
//! its leaf: nothing is written before it is checked, and what does not hold is named.

use std::io::{BufReader, BufWriter, Read};
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt as _;
use scribe_proof::tile::{Tile, TilePath, parse_bundle};
use scribe_proof::tree::{HashReader, LEVEL_MAX, TILE_WIDTH, level_length, root_at, tile_root};
use scribe_proof::{
    Checkpoint, Hash, LEAF_LENGTH_MAX, Leaf, LeafKind, SALT_LENGTH, SignedCheckpoint, TreeSize,
    Trust, leaf_hash,
};
use serde::Serialize;

use super::super::output::{Failure, ProgressUnit, progress, say};
use super::super::transfer::Carried;
use super::super::verify::trust;
use super::directory::Directory;
use super::source::Source;
use super::{Arguments, offline};
use crate::ledger::batch::PrivateRecord;
use crate::limits;

/// Bundles asked for at once.
const BUNDLES_AHEAD: usize = 8;
/// The longest entry bundle: 256 of the longest leaves, each after its length.
const BUNDLE_LENGTH_MAX: u64 = (TILE_WIDTH * (2 + LEAF_LENGTH_MAX)) as u64;
/// The longest opening: the longest value with its metadata and salt.
const OPENING_LENGTH_MAX: usize =
    SALT_LENGTH + 2 + limits::METADATA_LENGTH_MAX + limits::VALUE_LENGTH_CEILING;

#[derive(Serialize)]
struct Exported {
    origin: String,
    tree_size: u64,
    root_hash: String,
    /// Size of the checkpoint that was in the directory before; 0 if there was none.
    old_tree_size: u64,
    /// Tiles, bundles and openings written now.
    files_written: u64,
    /// Entries whose opening the ledger no longer has; counted among those written now.
    erased: u64,
    values: bool,
    /// Whether the signatures were checked, too.
    verified: bool,
}

/// Brings `path` up to the newest checkpoint.
///
/// # Errors
/// A node that cannot be reached, a directory that cannot be written, or anything that does not hold (exit 3).
pub(super) async fn run(arguments: &Arguments, path: &Path) -> Result<(), Failure> {
    let trusted = trust(arguments.vkey.as_deref(), arguments.policy.as_deref())?;
    let directory = Directory::open(path)?;
    let source = match arguments.directory.data_dir.is_some() {
        false => Source::Server(arguments.client.connect()?),
        true => Source::of_directory(offline(&arguments.directory).await?).await?,
    };
    let exported = bring_up_to_date(&source, directory, trusted.as_deref(), arguments.values).await;
    source.close().await;
    let exported = exported?;
    let erased = match exported.erased {
        0 => String::new(),
        erased => format!("\n{erased} entries without an opening: erased"),
    };
    let signatures = match exported.verified {
        true => "the signatures are valid",
        false => "the signatures were not checked: --vkey or --policy does",
    };
    say(format_args!(
        "{} entries of {}, {} files written\nroot hash {}, as in the checkpoint; {signatures}{erased}",
        exported.tree_size, exported.origin, exported.files_written, exported.root_hash
    ));
    let output = arguments.client.output();
    match output.is_json() {
        true => output.print("", &exported),
        false => Ok(()),
    }
}

async fn bring_up_to_date(
    source: &Source,
    directory: Directory,
    trusted: Option<&dyn Trust>,
    values: bool,
) -> Result<Exported, Failure> {
    let note = source.checkpoint().await?;
    let signed = SignedCheckpoint::parse(&note).map_err(|error| {
        Failure::verification(format!("the newest checkpoint does not hold: {error}"))
    })?;
    if let Some(trusted) = trusted {
        trusted.evaluate(&signed).map_err(|error| {
            Failure::verification(format!("the newest checkpoint does not match: {error}"))
        })?;
    }
    let mut export = Export::begin(source, directory, signed.checkpoint()).await?;
    let old = export.check_old().await?;
    export.write_upper_tiles(old).await?;
    export.write_leaves(old, values).await?;
    export.bar.finish_and_clear();
    if !values && export.directory.has_openings() {
        say("warning: openings/ was not brought up to date; --values does");
    }
    export.directory.finish(&note)?;
    Ok(Exported {
        origin: export.checkpoint.origin,
        tree_size: export.checkpoint.size.get(),
        root_hash: export.checkpoint.root.to_hex(),
        old_tree_size: old.get(),
        files_written: export.written,
        erased: export.erased,
        values,
        verified: trusted.is_some(),
    })
}

/// One run.
struct Export<'a> {
    source: &'a Source,
    directory: Directory,
    checkpoint: Checkpoint,
    /// The partial tile of each level that has one, checked against the root.
    edge: Edge,
    /// The full tile of each level that was checked last.
    full: [Option<(u64, Vec<Hash>)>; LEVEL_MAX as usize + 1],
    written: u64,
    erased: u64,
    bar: indicatif::ProgressBar,
}

/// Partial tiles by level.
#[derive(Debug, Default)]
struct Edge([Vec<Hash>; LEVEL_MAX as usize + 1]);

/// What [`root_at`] reads is the right edge and nothing else.
impl HashReader for Edge {
    type Error = String;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> Result<(), String> {
        match self.0.get(usize::from(level)) {
            Some(hashes) if hashes.len() == count => {
                out.extend_from_slice(hashes);
                Ok(())
            }
            _ => Err(format!("no tile of level {level} at hash {start}")),
        }
    }
}

impl<'a> Export<'a> {
    /// Fetches the right edge of the tree and checks it against the root.
    async fn begin(
        source: &'a Source,
        directory: Directory,
        checkpoint: &Checkpoint,
    ) -> Result<Export<'a>, Failure> {
        let size = checkpoint.size;
        let mut edge = Edge::default();
        for level in 0..=LEVEL_MAX {
            let length = level_length(level, size);
            let last = Tile::at(level, length / TILE_WIDTH as u64, size);
            if let (Some(tile), Some(hashes)) = (last, edge.0.get_mut(usize::from(level))) {
                *hashes = fetch(source, &tile).await?;
            }
        }
        let root = root_at(&edge, size).map_err(Failure::verification)?;
        if root != checkpoint.root {
            return Err(Failure::verification(format!(
                "the tiles at the right edge of the tree do not match the checkpoint of tree size {size}: their root hash is {root}, the checkpoint has {}",
                checkpoint.root
            )));
        }
        Ok(Export {
            source,
            directory,
            checkpoint: checkpoint.clone(),
            edge,
            full: Default::default(),
            written: 0,
            erased: 0,
            bar: progress(Some(size.get()), ProgressUnit::Entries),
        })
    }

    /// A tile of the tree in its widest form, checked.
    async fn tile(&mut self, level: u8, index: u64) -> Result<&[Hash], Failure> {
        // Up to the first one that is known to be good, then down again.
        let mut unknown = Vec::new();
        let (mut at, mut place) = (level, index);
        while !self.is_partial(at, place)
            && self.full[usize::from(at)].as_ref().map(|known| known.0) != Some(place)
        {
            unknown.push((at, place));
            (at, place) = (at + 1, place / TILE_WIDTH as u64);
        }
        for (at, place) in unknown.into_iter().rev() {
            let tile = Tile::at(at, place, self.checkpoint.size)
                .ok_or_else(|| Failure::unexpected("a tile beyond the tree was asked for"))?;
            let hashes = fetch(self.source, &tile).await?;
            let above = self.known(at + 1, place / TILE_WIDTH as u64);
            let expected = above.get((place % TILE_WIDTH as u64) as usize);
            let found = tile_root(&hashes);
            if expected != Some(&found) {
                return Err(Failure::verification(format!(
                    "{} does not match the checkpoint of tree size {}: its root hash is {found}, the tree has another",
                    tile.path(),
                    self.checkpoint.size
                )));
            }
            self.full[usize::from(at)] = Some((place, hashes));
        }
        Ok(self.known(level, index))
    }

    fn is_partial(&self, level: u8, index: u64) -> bool {
        level_length(level, self.checkpoint.size) / TILE_WIDTH as u64 == index
    }

    /// A tile that was checked already; empty if it was not.
    fn known(&self, level: u8, index: u64) -> &[Hash] {
        let level = usize::from(level);
        if self.is_partial(level as u8, index) {
            return &self.edge.0[level];
        }
        match &self.full[level] {
            Some((place, hashes)) if *place == index => hashes,
            _ => &[],
        }
    }

    /// Compares what the directory has already with the new checkpoint, and says how large its tree is.
    async fn check_old(&mut self) -> Result<TreeSize, Failure> {
        let Some(note) = self.directory.checkpoint()? else {
            return Ok(TreeSize::EMPTY);
        };
        let place = self.directory.root().display().to_string();
        let old = SignedCheckpoint::parse(&note).map_err(|error| {
            Failure::verification(format!(
                "the checkpoint in `{place}` does not hold: {error}"
            ))
        })?;
        let (old, new) = (old.checkpoint().clone(), self.checkpoint.clone());
        if old.origin != new.origin {
            return Err(Failure::verification(format!(
                "`{place}` holds the ledger `{}`, the newest checkpoint is of `{}`",
                old.origin, new.origin
            )));
        }
        let root = if old.size <= new.size {
            self.root_of(old.size).await?
        } else {
            let reader = self.directory.hashes(old.size);
            let ours = root_at(&reader, new.size).map_err(|error| {
                Failure::verification(format!("the tiles in `{place}` cannot be read: {error}"))
            })?;
            if ours == new.root {
                return Err(Failure::unexpected(format!(
                    "`{place}` has tree size {} already, the newest checkpoint here is of {}",
                    old.size, new.size
                ))
                .hint("this node lags: export from another, or again later"));
            }
            ours
        };
        if old.size <= new.size && root == old.root {
            return Ok(old.size);
        }
        Err(Failure::verification(format!(
            "the ledger's history was changed: `{place}` has tree size {} with root hash {}, the newest checkpoint is of tree size {} with root hash {} and does not agree with it",
            old.size, old.root, new.size, new.root
        ))
        .hint("keep both: two checkpoints that do not agree prove that the ledger, or whoever made the directory, lied"))
    }

    /// Root hash of the tree's first `size` leaves.
    async fn root_of(&mut self, size: TreeSize) -> Result<Hash, Failure> {
        let mut edge = Edge::default();
        for level in 0..=LEVEL_MAX {
            let length = level_length(level, size);
            let width = (length % TILE_WIDTH as u64) as usize;
            if width > 0 {
                let tile = self.tile(level, length / TILE_WIDTH as u64).await?;
                edge.0[usize::from(level)] = tile[..width].to_vec();
            }
        }
        root_at(&edge, size).map_err(Failure::verification)
    }

    /// Writes the tiles above level 0 that a tree of `old` leaves does not have.
    async fn write_upper_tiles(&mut self, old: TreeSize) -> Result<(), Failure> {
        for tile in Tile::new_since(old, self.checkpoint.size).filter(|tile| tile.level() > 0) {
            let hashes = self.tile(tile.level(), tile.index()).await?;
            let bytes = bytes_of(hashes);
            self.write_tile(&tile, &bytes)?;
        }
        Ok(())
    }

    fn write_tile(&mut self, tile: &Tile, bytes: &[u8]) -> Result<(), Failure> {
        self.write_file(&tile.path(), bytes)
    }

    /// Writes a file unless it is there with these bytes.
    fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        let there = self.directory.read(path, bytes.len() as u64);
        if there.is_ok_and(|there| there.as_deref() == Some(bytes)) {
            return Ok(());
        }
        self.written += 1;
        self.directory.write(path, bytes)
    }

    /// Writes bundles, level 0, and values if they are wanted.
    async fn write_leaves(&mut self, old: TreeSize, values: bool) -> Result<(), Failure> {
        let size = self.checkpoint.size;
        let old_full = level_length(1, old);
        let bundles = size.get().div_ceil(TILE_WIDTH as u64);
        let root = self.directory.root().to_owned();
        // What an older checkpoint covers is whole; values may be asked for later than leaves.
        let wanted: Vec<Tile> = (0..bundles)
            .filter_map(|index| Tile::at(0, index, size))
            .filter(|tile| {
                let opened = || openings_path(tile).is_some_and(|path| self.directory.has(&path));
                tile.index() >= old_full || (values && !opened())
            })
            .collect();
        let skipped = bundles - wanted.len() as u64;
        self.bar.set_position(skipped * TILE_WIDTH as u64);
        let source = self.source;
        let mut ahead = futures::stream::iter(wanted.into_iter().map(|tile| {
            let root = root.clone();
            async move {
                // What an export that was cut short has written need not be fetched again.
                let path = tile.entries_path().unwrap_or_default();
                let there = std::fs::metadata(root.join(&path))
                    .is_ok_and(|found| found.len() <= BUNDLE_LENGTH_MAX);
                let bundle = match there.then(|| std::fs::read(root.join(&path))) {
                    Some(Ok(bundle)) => (Bytes::from(bundle), true),
                    _ => (source.tile(TilePath::Entries(tile)).await?, false),
                };
                Ok::<_, Failure>((tile, bundle))
            }
        }))
        .buffered(BUNDLES_AHEAD);
        while let Some(fetched) = ahead.next().await {
            let (tile, (mut bundle, local)) = fetched?;
            let hashes = match self.check_bundle(&tile, &bundle).await {
                Ok(hashes) => hashes,
                Err(_) if local => {
                    bundle = source.tile(TilePath::Entries(tile)).await?;
                    self.check_bundle(&tile, &bundle).await?
                }
                Err(failure) => return Err(failure),
            };
            let path = tile.entries_path().unwrap_or_default();
            self.write_file(&path, &bundle)?;
            self.write_tile(&tile, &bytes_of(&hashes))?;
            if values {
                self.write_openings(&tile, &bundle).await?;
            }
            self.bar.inc(tile.width().into());
        }
        Ok(())
    }

    /// Checks a bundle of leaves against the tree, and returns their hashes.
    async fn check_bundle(&mut self, tile: &Tile, bundle: &[u8]) -> Result<Vec<Hash>, Failure> {
        let path = tile.entries_path().unwrap_or_default();
        let size = self.checkpoint.size;
        let leaves = parse_bundle(bundle, tile.width())
            .map_err(|error| Failure::verification(format!("{path}: {error}")))?;
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let good = match tile.is_full() {
            true => {
                let place = (tile.index() % TILE_WIDTH as u64) as usize;
                let above = self.tile(1, tile.index() / TILE_WIDTH as u64).await?;
                above.get(place) == Some(&tile_root(&hashes))
            }
            false => self.known(0, tile.index()) == hashes,
        };
        if good {
            return Ok(hashes);
        }
        // The tile itself tells which entry it is.
        let expected = self.tile(0, tile.index()).await?;
        let wrong = hashes.iter().zip(expected).position(|(a, b)| a != b);
        let place = wrong.unwrap_or_default();
        Err(Failure::verification(format!(
            "{path}: entry {} hashes to {}, the tree of the checkpoint of tree size {size} has {}",
            tile.start() + place as u64,
            hashes.get(place).copied().unwrap_or_default(),
            expected.get(place).copied().unwrap_or_default()
        )))
    }

    /// Writes what opens the leaves of a bundle, unless it is there and opens them.
    async fn write_openings(&mut self, tile: &Tile, bundle: &[u8]) -> Result<(), Failure> {
        let Some(path) = openings_path(tile) else {
            return Ok(());
        };
        let leaves = parse_bundle(bundle, tile.width())
            .map_err(|error| Failure::verification(format!("{path}: {error}")))?;
        let there = self.directory.open_file(&path);
        let there = there.map_err(|error| Failure::file("read", Path::new(&path), &error))?;
        if let Some(file) = there
            && let Ok(erased) = check_openings(file, tile, &leaves)
        {
            self.erased += erased;
            return Ok(());
        }
        let failed = |error: std::io::Error| Failure::file("write", Path::new(&path), &error);
        let (file, partial, name) = self.directory.begin(&path)?;
        // In pieces: 256 of the longest values do not fit in memory.
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let end = tile.start() + u64::from(tile.width());
        let mut next = tile.start();
        while next < end {
            for (index, entry) in self.source.entries(next, end - next).await? {
                let leaf = (index == next)
                    .then(|| leaves.get((index - tile.start()) as usize))
                    .flatten();
                let Some(leaf) = leaf else {
                    return Err(Failure::verification(format!(
                        "entries follow each other without gaps: found index {index}, expected {next}"
                    )));
                };
                check_opening(index, leaf, &entry)?;
                self.erased += u64::from(is_erased(leaf, entry.private.is_some()));
                write_opening(&mut out, entry.private.as_ref()).map_err(failed)?;
                next += 1;
            }
        }
        let file = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        self.written += 1;
        self.directory.end(file, partial, name)
    }
}

/// Fetches a tile of hashes; only its length is checked.
async fn fetch(source: &Source, tile: &Tile) -> Result<Vec<Hash>, Failure> {
    let bytes = source.tile(TilePath::Hashes(*tile)).await?;
    let expected = usize::from(tile.width()) * Hash::LENGTH;
    if bytes.len() != expected {
        return Err(Failure::verification(format!(
            "{} must be {expected} bytes long, found {}",
            tile.path(),
            bytes.len()
        )));
    }
    let hashes = bytes.as_chunks::<{ Hash::LENGTH }>().0;
    Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
}

fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// `openings/<N>[.p/<W>]`, beside `tile/entries/<N>[.p/<W>]`.
fn openings_path(tile: &Tile) -> Option<String> {
    let path = tile.entries_path()?;
    let place = path.strip_prefix("tile/entries/")?;
    Some(format!("openings/{place}"))
}

/// Whether a leaf that commits to something has nothing to open it.
fn is_erased(leaf: &[u8], opened: bool) -> bool {
    !opened && Leaf::parse(leaf).is_ok_and(|leaf| leaf.kind != LeafKind::System)
}

fn check_opening(index: u64, leaf: &[u8], entry: &Carried) -> Result<(), Failure> {
    if entry.leaf != leaf {
        return Err(Failure::verification(format!(
            "entry {index}: the leaf sent with its value is not the leaf of the tree"
        )));
    }
    let Some(private) = &entry.private else {
        return Ok(());
    };
    let parsed = Leaf::parse(leaf)
        .map_err(|error| Failure::verification(format!("entry {index}: {error}")))?;
    let found = scribe_proof::commitment(&private.salt, &private.metadata, &private.value);
    if parsed.kind == LeafKind::System || found != parsed.commitment {
        return Err(Failure::verification(format!(
            "entry {index}: value, metadata and salt hash to commitment {found}, the leaf has {}",
            parsed.commitment
        )));
    }
    Ok(())
}

/// `u32 length ‖ record`; the record is empty, or salt, length of metadata, metadata, value.
pub(super) fn write_opening(
    out: &mut impl std::io::Write,
    private: Option<&PrivateRecord>,
) -> std::io::Result<()> {
    let Some(private) = private else {
        return out.write_all(&0_u32.to_be_bytes());
    };
    let too_long = || std::io::Error::other("an opening is longer than its format allows");
    let length = SALT_LENGTH + 2 + private.metadata.len() + private.value.len();
    let length = u32::try_from(length).map_err(|_| too_long())?;
    let metadata = u16::try_from(private.metadata.len()).map_err(|_| too_long())?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&private.salt)?;
    out.write_all(&metadata.to_be_bytes())?;
    out.write_all(&private.metadata)?;
    out.write_all(&private.value)
}

/// Reads a file of openings and checks each against its leaf. Returns how many are erased.
pub(super) fn check_openings(
    file: impl Read,
    tile: &Tile,
    leaves: &[&[u8]],
) -> Result<u64, Failure> {
    let broken = |error: std::io::Error| Failure::verification(error.to_string());
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut erased = 0;
    for (place, leaf) in leaves.iter().enumerate() {
        let mut length = [0; 4];
        reader.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > OPENING_LENGTH_MAX {
            return Err(Failure::verification(format!(
                "an opening is {length} bytes long, allowed are {OPENING_LENGTH_MAX}"
            )));
        }
        // Memory follows the bytes that are there, not the number in front of them.
        let mut record = Vec::new();
        let mut limited = reader.by_ref().take(length as u64);
        if limited.read_to_end(&mut record).map_err(broken)? < length {
            return Err(Failure::verification("the last opening is cut off"));
        }
        let private = PrivateRecord::parse(&record.into());
        if length > 0 && private.is_none() {
            return Err(Failure::verification("an opening is too short"));
        }
        erased += u64::from(is_erased(leaf, private.is_some()));
        let entry = Carried {
            leaf: Bytes::copy_from_slice(leaf),
            private,
        };
        check_opening(tile.start() + place as u64, leaf, &entry)?;
    }
    match reader.read(&mut [0]).map_err(broken)? {
        0 => Ok(erased),
        _ => Err(Failure::verification("bytes follow the last opening")),
    }
}
