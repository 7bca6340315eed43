//! What is kept in memory for reads: entries by leaf index, the newest version by key, and tiles by path.
//!
//! Entries and published tiles never change, so their caches need no care. The newest version of a key does: `replace_latest` is
//! called for every leaf under the view's write lock, and `insert_latest` only under its read lock by a
//! reader that has just made sure that no newer version was applied. So what is cached is never older than what was
//! applied when a reader started.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use scribe_proof::index::LeafIndex;
use scribe_proof::tile::{Tile, TilePath};

use super::proofs::TileNodes;
use super::tiles::StoredTile;
use super::view::{StoredEntry, Version};

/// Entries above this many bytes are not cached: one of them would push out hundreds.
pub const ENTRY_BYTES_MAX: usize = 256 * 1_024;
/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD: u64 = 160;
/// What a cached version costs besides its key.
const LATEST_OVERHEAD: u64 = 112;
/// What a cached tile costs besides its bytes.
const TILE_OVERHEAD: u64 = 128;

/// Sizes of the caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSizes {
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Bytes of keys with their newest version.
    pub latest_bytes: u64,
    /// Bytes the index database may use for its blocks.
    pub index_bytes: u64,
    /// Bytes of tiles and entry bundles.
    pub tile_bytes: u64,
    /// Bytes of tiles with the hashes between their levels, for proofs.
    pub proof_bytes: u64,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self {
            entry_bytes: crate::limits::ENTRY_CACHE_BYTES,
            latest_bytes: crate::limits::ENTRY_CACHE_BYTES / 3,
            index_bytes: crate::limits::INDEX_CACHE_BYTES,
            tile_bytes: crate::limits::TILE_CACHE_BYTES,
            proof_bytes: crate::limits::PROOF_CACHE_BYTES,
        }
    }
}

#[derive(Debug, Clone)]
struct EntryWeight;

impl Weighter<LeafIndex, StoredEntry> for EntryWeight {
    fn weight(&self, _: &LeafIndex, entry: &StoredEntry) -> u64 {
        entry.byte_length() as u64 + ENTRY_OVERHEAD
    }
}

#[derive(Debug, Clone)]
struct LatestWeight;

impl Weighter<Box<[u8]>, Option<Version>> for LatestWeight {
    fn weight(&self, key: &Box<[u8]>, _: &Option<Version>) -> u64 {
        key.len() as u64 + LATEST_OVERHEAD
    }
}

#[derive(Debug, Clone)]
struct TileWeight;

impl Weighter<TilePath, StoredTile> for TileWeight {
    fn weight(&self, _: &TilePath, tile: &StoredTile) -> u64 {
        tile.bytes.len() as u64 + TILE_OVERHEAD
    }
}

#[derive(Debug, Clone)]
struct NodesWeight;

impl Weighter<Tile, Arc<TileNodes>> for NodesWeight {
    fn weight(&self, _: &Tile, nodes: &Arc<TileNodes>) -> u64 {
        nodes.byte_length() + TILE_OVERHEAD
    }
}

/// The caches of one store.
pub(crate) struct Caches {
    entries: Cache<LeafIndex, StoredEntry, EntryWeight>,
    latest: Cache<Box<[u8]>, Option<Version>, LatestWeight>,
    tiles: Cache<TilePath, StoredTile, TileWeight>,
    proofs: Cache<Tile, Arc<TileNodes>, NodesWeight>,
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches")
            .field("entries", &self.entries.len())
            .field("latest", &self.latest.len())
            .field("tiles", &self.tiles.len())
            .field("proofs", &self.proofs.len())
            .finish()
    }
}

impl Caches {
    pub(crate) fn new(sizes: CacheSizes) -> Self {
        // The expected item count only sizes the first table; small values dominate.
        let entries = (sizes.entry_bytes / 512).clamp(64, 1 << 20) as usize;
        let latest = (sizes.latest_bytes / 160).clamp(64, 1 << 20) as usize;
        let tiles = (sizes.tile_bytes / 8_192).clamp(64, 1 << 20) as usize;
        let proofs = (sizes.proof_bytes / 16_384).clamp(64, 1 << 20) as usize;
        Self {
            tiles: Cache::with_weighter(tiles, sizes.tile_bytes, TileWeight),
            proofs: Cache::with_weighter(proofs, sizes.proof_bytes, NodesWeight),
            entries: Cache::with_weighter(entries, sizes.entry_bytes, EntryWeight),
            latest: Cache::with_weighter(latest, sizes.latest_bytes, LatestWeight),
        }
    }

    pub(crate) fn entry(&self, index: LeafIndex) -> Option<StoredEntry> {
        self.entries.get(&index)
    }

    pub(crate) fn insert_entry(&self, entry: &StoredEntry) {
        if entry.byte_length() <= ENTRY_BYTES_MAX {
            self.entries.insert(entry.index, entry.clone());
        }
    }

    pub(crate) fn tile(&self, path: &TilePath) -> Option<StoredTile> {
        self.tiles.get(path)
    }

    pub(crate) fn insert_tile(&self, path: &TilePath, tile: &StoredTile) {
        self.tiles.insert(*path, tile.clone());
    }

    pub(crate) fn tile_nodes(&self, tile: &Tile) -> Option<Arc<TileNodes>> {
        self.proofs.get(tile)
    }

    pub(crate) fn insert_tile_nodes(&self, tile: &Tile, nodes: &Arc<TileNodes>) {
        self.proofs.insert(*tile, Arc::clone(nodes));
    }

    /// The newest version of `key` (`Some(None)`: it has none), if it is known.
    pub(crate) fn latest(&self, key: &[u8]) -> Option<Option<Version>> {
        self.latest.get(key)
    }

    /// Caller holds the view's read lock and knows `newest` to be the newest version there is.
    pub(crate) fn insert_latest(&self, key: &[u8], newest: Option<Version>) {
        self.latest.insert(key.into(), newest);
    }

    /// Forgets everything. Caller holds the view's write lock.
    pub(crate) fn clear(&self) {
        self.entries.clear();
        self.latest.clear();
        self.tiles.clear();
        self.proofs.clear();
    }

    /// Caller holds the view's write lock and is about to apply `version`.
    pub(crate) fn replace_latest(&self, key: &[u8], version: Version) {
        if self.latest.contains_key(key) {
            // An error says that it was pushed out meanwhile, which is as good.
            let _ = self.latest.replace(key.into(), Some(version), true);
        }
    }
}
