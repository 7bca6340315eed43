//! Tiles and entry bundles (<https://c2sp.org/tlog-tiles>), cut from the stored tree and from the log.
//!
//! What leaves here may be kept by anybody for ever, so it is checked first: a full tile against the hash the next level
//! stores for it, a partial one against the root of the checkpoint, each leaf of a bundle against its hash. Values and
//! salts are never read for it.

use std::io;

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::tile::{Tile, TilePath, push_entry};
use scribe_proof::tree::{Frontier, HashReader, root_at, tile_root};

use super::frame::{self, FrameHeader, FramePosition, HEADER_LENGTH};
use super::load::{corrupt, damaged_at, slice_of};
use super::mend::is_damage;
use super::segment::SealedSegment;
use super::walk::{FrameWalk, sealed_path, takes_leaves};
use super::{Inner, Store, invalid};

/// Bytes of a segment read at once for a bundle: 256 small entries and what lies beside them.
const BUNDLE_STEP_BYTES: u64 = 128 * 1_024;

/// A tile or an entry bundle as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTile {
    /// The file's bytes.
    pub bytes: Bytes,
    /// RFC 6962 root over the tile's hashes: differs as soon as any byte of tile or bundle does.
    pub identity: Hash,
}

impl Store {
    /// A tile or bundle that was read lately.
    pub fn tile_in_memory(&self, path: &TilePath) -> Option<StoredTile> {
        self.0.caches.tile(path)
    }

    /// A tile or bundle of the tree of `size` leaves whose root hash is `root`. Reads from disk what is not in memory.
    ///
    /// # Errors
    /// Kind `InvalidInput` when that tree does not have all of the tile; kind `InvalidData` for bytes that are not what
    /// was written; what the disk cannot read.
    pub fn tile(&self, path: &TilePath, size: TreeSize, root: &Hash) -> io::Result<StoredTile> {
        if !path.tile().exists_at(size) {
            return Err(invalid(format!(
                "{path} is not in the tree of {size} leaves"
            )));
        }
        if let Some(tile) = self.0.caches.tile(path) {
            return Ok(tile);
        }
        let read = match path {
            TilePath::Hashes(tile) => self.read_tile(tile, size, root),
            TilePath::Entries(tile) => self.read_bundle(tile, size, root),
        };
        if read.as_ref().is_err_and(is_damage) {
            self.suspect_below(path.tile());
        }
        let tile = read?;
        self.0.caches.insert_tile(path, &tile);
        Ok(tile)
    }

    /// Has every segment examined whose leaves a tile covers: the tile's hashes are theirs, or its leaves.
    fn suspect_below(&self, tile: &Tile) {
        let leaves = 1_u64
            .checked_shl(8 * u32::from(tile.level()))
            .unwrap_or(u64::MAX);
        let start = tile.start().saturating_mul(leaves);
        let end = start.saturating_add(u64::from(tile.width()).saturating_mul(leaves));
        for segment in self.0.log.sealed().iter() {
            let footer = &segment.footer;
            if footer.start_size.get() < end && start < footer.end_size.get() {
                self.suspect(segment.number);
            }
        }
    }

    fn read_tile(&self, tile: &Tile, size: TreeSize, root: &Hash) -> io::Result<StoredTile> {
        let hashes = self.checked_hashes(tile, size, root)?;
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        Ok(StoredTile {
            bytes: bytes.into(),
            identity: identity(&hashes),
        })
    }

    fn read_bundle(&self, tile: &Tile, size: TreeSize, root: &Hash) -> io::Result<StoredTile> {
        let hashes = self.checked_hashes(tile, size, root)?;
        let leaves = self.leaves(LeafIndex::new(tile.start()), hashes.len())?;
        let length = leaves.iter().map(|leaf| leaf.len() + 2).sum();
        let mut bytes = Vec::with_capacity(length);
        for (place, (leaf, hash)) in leaves.iter().zip(&hashes).enumerate() {
            let found = leaf_hash(leaf);
            if found != *hash {
                return Err(corrupt(format!(
                    "leaf {} hashes to {found}, the tree has {hash}",
                    tile.start() + place as u64
                )));
            }
            push_entry(&mut bytes, leaf).map_err(|error| corrupt(error.to_string()))?;
        }
        Ok(StoredTile {
            bytes: bytes.into(),
            identity: identity(&hashes),
        })
    }

    /// The hashes of a tile, taken from the widest form the tree has of it: only that one can be compared with
    /// anything.
    pub(super) fn checked_hashes(
        &self,
        tile: &Tile,
        size: TreeSize,
        root: &Hash,
    ) -> io::Result<Vec<Hash>> {
        let (level, index) = (tile.level(), tile.index());
        let widest = Tile::at(level, index, size)
            .ok_or_else(|| invalid(format!("{} is not in the tree", tile.path())))?;
        let mut hashes = Vec::with_capacity(widest.width().into());
        HashReader::read(
            self,
            level,
            widest.start(),
            widest.width().into(),
            &mut hashes,
        )?;
        if widest.is_full() {
            let mut above = Vec::with_capacity(1);
            HashReader::read(self, level + 1, index, 1, &mut above)?;
            let found = tile_root(&hashes);
            if above.first() != Some(&found) {
                return Err(corrupt(format!(
                    "{} hashes to {found}, level {} has another hash for it",
                    widest.path(),
                    level + 1
                )));
            }
        } else {
            let edge = Edge {
                store: self,
                tile: widest,
                hashes: &hashes,
            };
            let found = root_at(&edge, size)?;
            if found != *root {
                return Err(corrupt(format!(
                    "the tree files have root hash {found} at tree size {size}, the checkpoint has {root}"
                )));
            }
        }
        hashes.truncate(tile.width().into());
        Ok(hashes)
    }

    /// The leaves of `count` entries from `from` on, none of them checked against the tree.
    fn leaves(&self, from: LeafIndex, count: usize) -> io::Result<Vec<Bytes>> {
        let mut page = Leaves {
            out: Vec::with_capacity(count),
            count,
            next: from,
        };
        while !page.full() {
            let index = page.next;
            let Some((position, slot)) = self.0.locate(index)? else {
                return Err(invalid(format!("leaf {index} is not in the tree")));
            };
            match self.0.sealed_segment_of(index) {
                Some(sealed) => self
                    .0
                    .leaves_from_sealed(&sealed, position, slot, &mut page)?,
                None => self.0.leaves_of_frame(position, slot, &mut page)?,
            }
        }
        Ok(page.out)
    }
}

impl Inner {
    /// Adds the leaves of one frame that is not in a sealed segment.
    fn leaves_of_frame(
        &self,
        position: FramePosition,
        slot: u16,
        page: &mut Leaves,
    ) -> io::Result<()> {
        if let Some(frame) = self.log.cached(position) {
            return page.take(frame.count, &frame.public, slot);
        }
        let read = |length: u32| self.log.read_raw(position.segment, position.offset, length);
        let header = FrameHeader::parse(&read(HEADER_LENGTH as u32)?)
            .map_err(|error| damaged_at(position, &error))?;
        let bytes = read(header.private_start() as u32)?;
        frame::check_chain(&header, &bytes).map_err(|error| damaged_at(position, &error))?;
        page.take(header.count, &bytes.slice(HEADER_LENGTH..), slot)
    }

    /// Adds leaves of a sealed segment from a located frame on. Private parts are passed over.
    fn leaves_from_sealed(
        &self,
        sealed: &SealedSegment,
        position: FramePosition,
        mut slot: u16,
        page: &mut Leaves,
    ) -> io::Result<()> {
        let path = sealed_path(sealed);
        let offset = u64::from(position.offset);
        let walk = FrameWalk::new(&self.log, sealed.number, path, offset, sealed.body_length);
        let mut walk = walk.steps_of(BUNDLE_STEP_BYTES);
        let mut size = TreeSize::new(page.next.get().saturating_sub(u64::from(slot)));
        while !page.full() {
            let Some((header, public)) = walk.next_public()? else {
                break;
            };
            let taken = takes_leaves(
                header.kind,
                header.log_id.term,
                header.sequencing_term,
                header.first_leaf,
                size,
            );
            if !taken {
                continue;
            }
            page.take(header.count, &public, slot)?;
            slot = 0;
            size = size.grown_by(u64::from(header.count));
        }
        Ok(())
    }
}

/// Leaves being gathered.
struct Leaves {
    out: Vec<Bytes>,
    count: usize,
    next: LeafIndex,
}

impl Leaves {
    fn full(&self) -> bool {
        self.out.len() >= self.count
    }

    /// Takes the leaves of a frame from `slot` on, at least one.
    fn take(&mut self, count: u32, public: &Bytes, slot: u16) -> io::Result<()> {
        let before = self.out.len();
        for slot in u32::from(slot)..count {
            if self.full() {
                break;
            }
            let leaf = slice_of(public, 0, count as usize, slot as u16).ok_or_else(|| {
                corrupt(format!(
                    "the tables of the frame with leaf {} do not fit",
                    self.next
                ))
            })?;
            self.out.push(leaf);
            self.next = self.next.next();
        }
        if self.out.len() == before {
            return Err(corrupt(format!(
                "leaf {} is not in the frame the index says",
                self.next
            )));
        }
        Ok(())
    }
}

/// The stored tree, with one tile's hashes as they were read: so that the root says something about those bytes and not
/// about what a second read may find.
struct Edge<'a> {
    store: &'a Store,
    tile: Tile,
    hashes: &'a [Hash],
}

impl HashReader for Edge<'_> {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        if level == self.tile.level() && start == self.tile.start() && count == self.hashes.len() {
            out.extend_from_slice(self.hashes);
            return Ok(());
        }
        HashReader::read(self.store, level, start, count, out)
    }
}

fn identity(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.append_many(hashes);
    frontier.root()
}
