//! Inclusion proofs from memory: tiles with the hashes between their levels, kept for the next proof.
//!
//! A stored tile has 256 hashes, and a proof needs the roots of subtrees inside it, which cost some 250 hashes to
//! compute. [`ProofTree`] computes them once per tile, together with the check that the tile is what was written
//! ([`Store::tile`] makes the same), and keeps them: a proof then costs a few look-ups.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use scribe_proof::hash::{Hash, node_hash};
use scribe_proof::index::TreeSize;
use scribe_proof::tile::Tile;
use scribe_proof::tree::{HashReader, LEVEL_MAX};

use super::{Store, invalid};

/// Levels of nodes within a tile, its own hashes included: 256, 128, … 2.
const ROWS: usize = 8;

/// A tile's hashes and the full subtrees over them.
#[derive(Debug)]
pub(crate) struct TileNodes {
    /// Where each row begins; row k has the roots of every 2^k hashes.
    rows: [u16; ROWS],
    nodes: Box<[Hash]>,
}

impl TileNodes {
    pub(super) fn new(hashes: &[Hash]) -> Self {
        let mut nodes = Vec::with_capacity(hashes.len() * 2);
        nodes.extend_from_slice(hashes);
        let mut rows = [0; ROWS];
        let mut below = 0..hashes.len();
        for row in &mut rows[1..] {
            let start = nodes.len();
            *row = start as u16;
            let (pairs, _) = nodes[below].as_chunks::<2>();
            let above: Vec<Hash> = pairs
                .iter()
                .map(|[left, right]| node_hash(left, right))
                .collect();
            nodes.extend_from_slice(&above);
            below = start..nodes.len();
        }
        Self {
            rows,
            nodes: nodes.into(),
        }
    }

    /// The root of the `number`th 2^`height` hashes, if they are all in the tile.
    fn node(&self, height: usize, number: usize) -> Option<Hash> {
        let start = usize::from(*self.rows.get(height)?);
        let end = match self.rows.get(height + 1) {
            Some(next) => usize::from(*next),
            None => self.nodes.len(),
        };
        self.nodes.get(start..end)?.get(number).copied()
    }

    /// Bytes it takes.
    pub(crate) fn byte_length(&self) -> u64 {
        (self.nodes.len() * Hash::LENGTH) as u64
    }
}

/// The tile of a level that was touched last, by its index.
type Touched = Option<(u64, Arc<TileNodes>)>;

/// The tree of a checkpoint, as proofs read it. For one proof: it remembers the tiles it has touched.
pub struct ProofTree<'a> {
    store: &'a Store,
    size: TreeSize,
    root: &'a Hash,
    /// Whether nothing may be read from disk.
    memory_only: bool,
    touched: RefCell<[Touched; LEVEL_MAX as usize + 1]>,
}

impl<'a> ProofTree<'a> {
    /// The tree of `size` leaves with this root hash. With `memory_only` a tile that is not in memory is an error of
    /// kind `WouldBlock`.
    pub fn new(store: &'a Store, size: TreeSize, root: &'a Hash, memory_only: bool) -> Self {
        Self {
            store,
            size,
            root,
            memory_only,
            touched: RefCell::default(),
        }
    }

    fn tile(&self, level: u8, index: u64) -> io::Result<Arc<TileNodes>> {
        let tile = Tile::at(level, index, self.size)
            .ok_or_else(|| invalid(format!("tile {index} of level {level} is not in the tree")))?;
        let caches = &self.store.0.caches;
        if let Some(nodes) = caches.tile_nodes(&tile) {
            return Ok(nodes);
        }
        if self.memory_only {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let hashes = self.store.checked_hashes(&tile, self.size, self.root)?;
        let nodes = Arc::new(TileNodes::new(&hashes));
        caches.insert_tile_nodes(&tile, &nodes);
        Ok(nodes)
    }
}

impl HashReader for ProofTree<'_> {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        HashReader::read(self.store, level, start, count, out)
    }

    fn subtree(&self, height: u32, number: u64) -> io::Result<Option<Hash>> {
        let (level, row) = ((height / 8) as u8, height % 8);
        let (index, within) = (number >> (8 - row), number & ((1 << (8 - row)) - 1));
        let mut touched = self.touched.borrow_mut();
        let Some(slot) = touched.get_mut(usize::from(level)) else {
            return Ok(None);
        };
        let nodes = match slot {
            Some((place, nodes)) if *place == index => nodes,
            _ => &slot.insert((index, self.tile(level, index)?)).1,
        };
        Ok(nodes.node(row as usize, within as usize))
    }
}

#[cfg(test)]
mod tests {
    use scribe_proof::hash::leaf_hash;
    use scribe_proof::tree::subtree_root;

    use super::*;

    #[test]
    fn a_tile_has_every_full_subtree_and_no_other() {
        let hashes: Vec<Hash> = (0..256_u16).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        for width in [1, 2, 3, 7, 100, 255, 256] {
            let nodes = TileNodes::new(&hashes[..width]);
            for height in 0..ROWS {
                let span = 1 << height;
                for number in 0..width.div_ceil(span) + 1 {
                    let range = number * span..(number + 1) * span;
                    let expected = hashes[..width].get(range).map(subtree_root);
                    assert_eq!(
                        nodes.node(height, number),
                        expected,
                        "{width}: {height} {number}"
                    );
                }
            }
            assert_eq!(nodes.node(ROWS, 0), None);
        }
    }
}
