//! Forged tiles and entry bundles.
//!
//! A reader has a checkpoint it trusts. It is given the path of an entry bundle, the bundle, and the
//! tiles at the right edge of the tree, and believes the entries if bundle and tiles lead to the
//! checkpoint's root hash.

use std::collections::BTreeMap;

use scribe_proof::tile::{parse_bundle, push_entry};
use scribe_proof::{Hash, HashReader, Tile, TilePath, TreeSize, leaf_hash, root_at, tile_root};

use crate::Forger;
use crate::flaws::TileFlaw;
use crate::rng::Rng;
use crate::text;
use crate::trees::Honest;

/// What a reader is given. The root is the trusted checkpoint's.
#[derive(Clone, PartialEq)]
pub struct TileCase {
    tree: usize,
    size: u64,
    path: String,
    bundle: Vec<u8>,
    /// Tile files by level.
    tiles: BTreeMap<u8, Vec<u8>>,
}

/// Place of the bundle and its entries.
type Believed = (u64, Vec<Vec<u8>>);

/// Forger of tiles and bundles.
pub struct Tiles {
    trees: Vec<Honest>,
}

impl Tiles {
    fn root(&self, case: &TileCase) -> Hash {
        self.trees[case.tree].root(case.size).unwrap_or_default()
    }

    fn entries(&self, tree: usize, size: u64, index: u64) -> Vec<Vec<u8>> {
        let end = size.min((index + 1) * 256);
        (index * 256..end)
            .map(|at| self.trees[tree].leaf(at))
            .collect()
    }

    fn honest(&self, tree: usize, size: u64, index: u64) -> TileCase {
        let entries = self.entries(tree, size, index);
        let mut bundle = Vec::new();
        for entry in &entries {
            push_entry(&mut bundle, entry).unwrap();
        }
        let width = entries.len() as u64;
        let path = plain_path("entries", index, width);
        let tiles = self.tiles(tree, size);
        TileCase {
            tree,
            size,
            path,
            bundle,
            tiles,
        }
    }

    /// The tiles at the right edge, as files.
    fn tiles(&self, tree: usize, size: u64) -> BTreeMap<u8, Vec<u8>> {
        let tree = &self.trees[tree];
        let mut tiles = BTreeMap::new();
        for (level, leaves) in [(0, 1), (1, 256)] {
            let hashes = size / leaves;
            let edge = hashes / 256 * 256..hashes;
            let bytes: Vec<u8> = edge
                .flat_map(|at| tree.range(at * leaves, (at + 1) * leaves).0)
                .collect();
            if !bytes.is_empty() {
                tiles.insert(level, bytes);
            }
        }
        tiles
    }

    fn change(&self, rng: &mut Rng, case: &mut TileCase) -> &'static str {
        let other = {
            let (tree, size) = (rng.place(self.trees.len()), self.size(rng));
            self.honest(tree, size, rng.below(size.div_ceil(256)))
        };
        match rng.below(15) {
            13 => {
                // Fewer entries than the tree has there, and the path that says so.
                let mut entries = split_bundle(&case.bundle);
                entries.truncate(1 + rng.place(entries.len().max(1)));
                if let Some((place, _)) = case.path.clone().split_once(".p/") {
                    case.path = format!("{place}.p/{}", entries.len());
                    case.bundle = join_bundle(&entries);
                }
                "narrower bundle"
            }
            0 => {
                case.bundle.truncate(rng.place(case.bundle.len().max(1)));
                "bundle cut"
            }
            1 => {
                case.bundle.push(0);
                if rng.one_in(2) {
                    case.bundle.push(0);
                }
                "bundle extended"
            }
            2 => {
                let mut entries = split_bundle(&case.bundle);
                if !entries.is_empty() {
                    let (a, b) = (rng.place(entries.len()), rng.place(entries.len()));
                    match rng.below(5) {
                        0 => entries.swap(a, b),
                        1 => entries.insert(a, entries[b].clone()),
                        2 => drop(entries.remove(a)),
                        3 => entries.push(b"another entry".to_vec()),
                        _ => drop(entries.pop()),
                    }
                }
                case.bundle = join_bundle(&entries);
                "entries moved"
            }
            3 => {
                // The same bytes, another border between two entries.
                let mut entries = split_bundle(&case.bundle);
                let at = rng.place(entries.len().max(1));
                if at + 1 < entries.len() {
                    let next = entries[at + 1].clone();
                    match (rng.below(2), next.split_first()) {
                        (0, Some((first, rest))) => {
                            entries[at].push(*first);
                            entries[at + 1] = rest.to_vec();
                        }
                        _ => {
                            entries[at].extend(next);
                            entries[at + 1].clear();
                        }
                    }
                }
                case.bundle = join_bundle(&entries);
                "border of an entry moved"
            }
            4 => {
                if !case.bundle.is_empty() {
                    let at = rng.place(case.bundle.len());
                    case.bundle[at] ^= 1 << rng.below(8);
                }
                "bit of the bundle flipped"
            }
            5 => {
                case.bundle = other.bundle;
                "another bundle"
            }
            6 => {
                case.tiles = other.tiles;
                "tiles of another tree"
            }
            7 => {
                (case.tree, case.size) = (other.tree, other.size);
                "another checkpoint"
            }
            8 => {
                case.path = match rng.below(4) {
                    0 => other.path,
                    1 => case.path.replacen("entries/", "entries/x000/", 1),
                    2 => case.path.replacen("entries", "0", 1),
                    _ if case.path.contains(".p/") => {
                        let (place, _) = case.path.split_once(".p/").unwrap_or_default();
                        format!("{place}.p/{}", rng.below(300))
                    }
                    _ => case.path.clone() + ".p/256",
                };
                "another path"
            }
            9 => text::change(rng, &mut case.path, &other.path),
            10 => {
                if let Some(bytes) = case.tiles.values_mut().next() {
                    let length = bytes.len();
                    let at = rng.place(length.max(1));
                    match rng.below(4) {
                        0 if length > 0 => bytes[at] ^= 1 << rng.below(8),
                        1 => bytes.truncate(at / 32 * 32),
                        2 => bytes.extend([7; 32]),
                        _ => bytes.rotate_left(32.min(length)),
                    }
                }
                "tile changed"
            }
            11 => {
                let missing = rng.below(2) as u8;
                case.tiles.remove(&missing);
                "tile left out"
            }
            12 => {
                if let [Some(low), Some(high)] = [0, 1].map(|level| case.tiles.get(&level).cloned())
                {
                    case.tiles = BTreeMap::from([(0, high), (1, low)]);
                }
                "levels swapped"
            }
            _ => {
                // A bundle of one's own, with the tile that belongs to it.
                let mut entries = split_bundle(&case.bundle);
                if let Some(entry) = entries.first_mut() {
                    *entry = b"forged".to_vec();
                }
                if case.path.contains(".p/") {
                    let hashes = entries.iter().flat_map(|entry| leaf_hash(entry).0);
                    case.tiles.insert(0, hashes.collect());
                }
                case.bundle = join_bundle(&entries);
                "bundle and its tile forged"
            }
        }
    }

    fn size(&self, rng: &mut Rng) -> u64 {
        match rng.below(8) {
            0 => *rng.pick(&[255, 256, 257, 511, 512, 513]),
            1 => 256 + rng.below(344),
            _ => 1 + rng.below(40),
        }
    }
}

/// `tile/<level>/<index>[.p/<width>]`, by cutting digits off a padded number.
fn plain_path(level: &str, index: u64, width: u64) -> String {
    let mut digits = index.to_string();
    while !digits.len().is_multiple_of(3) {
        digits.insert(0, '0');
    }
    let groups: Vec<&str> = (0..digits.len() / 3)
        .map(|at| &digits[3 * at..3 * at + 3])
        .collect();
    let place = groups.join("/x");
    let place = match groups.len() {
        1 => place,
        _ => {
            // The last group has no x.
            let (head, last) = place.rsplit_once("/x").unwrap_or_default();
            format!("x{head}/{last}")
        }
    };
    match width {
        256 => format!("tile/{level}/{place}"),
        _ => format!("tile/{level}/{place}.p/{width}"),
    }
}

/// As many entries as there are, whatever follows.
fn split_bundle(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let [high, low, rest @ ..] = bundle {
        let length = (usize::from(*high) << 8 | usize::from(*low)).min(rest.len());
        entries.push(rest[..length].to_vec());
        bundle = &rest[length..];
    }
    entries
}

fn join_bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend((entry.len() as u16).to_be_bytes());
        bundle.extend(entry);
    }
    bundle
}

/// Tiles as files, as a reader of somebody else's tree has them.
struct Files<'a> {
    tiles: &'a BTreeMap<u8, Vec<u8>>,
    size: TreeSize,
}

impl HashReader for Files<'_> {
    type Error = ();

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> Result<(), ()> {
        let tile = Tile::at(level, start / 256, self.size).ok_or(())?;
        let bytes = self.tiles.get(&level).ok_or(())?;
        if bytes.len() != 32 * usize::from(tile.width()) || count != usize::from(tile.width()) {
            return Err(());
        }
        for hash in bytes.chunks(32) {
            out.push(Hash::try_from(hash).map_err(|_| ())?);
        }
        Ok(())
    }
}

impl Forger for Tiles {
    const KIND: &'static str = "tiles";
    const SHARE: u64 = 10;
    type Case = TileCase;
    type Claim = Believed;
    type Flaw = TileFlaw;
    const FLAWS: &'static [TileFlaw] = TileFlaw::ALL;

    fn new() -> Tiles {
        let trees = vec![
            Honest::dense("trunk", 0, 600),
            Honest::dense("fork", 7, 600),
            Honest::dense("stranger", 0, 600),
        ];
        Tiles { trees }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> TileCase {
        let (tree, size) = (rng.place(self.trees.len()), self.size(rng));
        let mut case = self.honest(tree, size, rng.below(size.div_ceil(256)));
        let honest = case.clone();
        for _ in 0..rng.changes() {
            changes.push(self.change(rng, &mut case));
        }
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &TileCase) -> Option<Believed> {
        let Ok(TilePath::Entries(tile)) = TilePath::parse(&case.path) else {
            return None;
        };
        let size = TreeSize::new(case.size);
        if Tile::at(0, tile.index(), size) != Some(tile) {
            return None;
        }
        let entries = parse_bundle(&case.bundle, tile.width()).ok()?;
        let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let files = Files {
            tiles: &case.tiles,
            size,
        };
        if root_at(&files, size).ok()? != self.root(case) {
            return None;
        }
        let mut above = Vec::new();
        let bound = if tile.is_full() {
            let whole = Tile::at(1, 0, size)?;
            files
                .read(1, 0, usize::from(whole.width()), &mut above)
                .ok()?;
            above.get(tile.index() as usize) == Some(&tile_root(&hashes))
        } else {
            files.read(0, tile.start(), hashes.len(), &mut above).ok()?;
            above == hashes
        };
        let entries = entries.into_iter().map(<[u8]>::to_vec).collect();
        bound.then_some((tile.index(), entries))
    }

    fn plain(&self, case: &TileCase, flaw: Option<TileFlaw>) -> Option<Believed> {
        let weak = |this: TileFlaw| flaw == Some(this);
        // Which of the tree's bundles does the path name?
        let (index, width) = (0..case.size.div_ceil(256)).find_map(|index| {
            let width = 256.min(case.size - index * 256);
            let path = plain_path("entries", index, width);
            let loose = case.path.replace("x000/", "").replace(".p/256", "");
            let narrower = |width: &u64| case.path == plain_path("entries", index, *width);
            match () {
                () if case.path == path => Some((index, width)),
                () if weak(TileFlaw::LoosePath) && loose == path => Some((index, width)),
                () if weak(TileFlaw::AnyWidth) => Some((index, (1..width).find(narrower)?)),
                () => None,
            }
        })?;
        let mut honest = self.honest(case.tree, case.size, index);
        let mut entries = self.entries(case.tree, case.size, index);
        entries.truncate(width as usize);
        honest.bundle = join_bundle(&entries);
        let bundle_fits = case.bundle == honest.bundle
            || weak(TileFlaw::TrailingIgnored) && case.bundle.starts_with(&honest.bundle)
            || weak(TileFlaw::ShortBundle) && honest.bundle.starts_with(&case.bundle)
            || weak(TileFlaw::UnboundTile) && width == 256
            || weak(TileFlaw::Boundaries)
                && split_bundle(&case.bundle).concat() == split_bundle(&honest.bundle).concat();
        let tiles_fit = honest.tiles.iter().all(|(level, bytes)| {
            case.tiles.get(level).is_some_and(|found| {
                found == bytes || weak(TileFlaw::LongTile) && found.starts_with(bytes)
            })
        });
        (bundle_fits && tiles_fit).then(|| (index, split_bundle(&case.bundle)))
    }

    fn show(&self, case: &TileCase) -> String {
        let root = self.root(case);
        format!(
            "  tree {} of size {} with root {root}\n  path {:?}\n  bundle {}\n  \
             tiles {:?}",
            case.tree,
            case.size,
            case.path,
            case.bundle.escape_ascii(),
            case.tiles
        )
    }
}
