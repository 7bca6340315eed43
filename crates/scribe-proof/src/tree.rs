//! The Merkle tree as it is stored: one append-only list of hashes per tile level.
//!
//! Hash `i` of level `l` is the root of the *full* subtree over the leaves
//! `[i * 256^l, (i + 1) * 256^l)`: level 0 holds the leaf hashes, level 1 the root of every 256
//! leaves, and so on up to level 7. This is exactly what C2SP tiles are cut from, and every root and
//! proof of RFC 6962 can be computed from it; nothing else needs to be stored.
//!
//! [`TreeBuilder`] says which hashes to store as leaves arrive, [`HashReader`] is how they are read
//! back, [`root_at`] computes the root of any earlier size. [`MemoryTree`] does all of it in memory.

use alloc::vec::Vec;

use crate::hash::{Hash, empty_root, node_hash};
use crate::index::{LeafIndex, TreeSize};

/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 256;
/// The highest level that can exist: 256^8 leaves are more than a `u64` counts.
pub const LEVEL_MAX: u8 = 7;

/// Where stored hashes are read from.
pub trait HashReader {
    /// What can go wrong while reading.
    type Error;

    /// Appends `count` (at most [`TILE_WIDTH`]) hashes of `level`, from number `start` on, to `out`.
    ///
    /// A read never crosses a tile boundary. The reader returns exactly `count` hashes or an error;
    /// the functions of this crate panic on a reader that does neither.
    ///
    /// # Errors
    /// Whatever keeps the reader from returning all of them.
    fn read(
        &self,
        level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Hash>,
    ) -> Result<(), Self::Error>;

    /// The root of the full subtree over the leaves `[number << height, (number + 1) << height)`, if
    /// the reader has it at hand. `None`, unless overridden: it is computed from stored hashes.
    ///
    /// # Errors
    /// Whatever keeps the reader from saying.
    fn subtree(&self, height: u32, number: u64) -> Result<Option<Hash>, Self::Error> {
        let _ = (height, number);
        Ok(None)
    }
}

impl<R: HashReader + ?Sized> HashReader for &R {
    type Error = R::Error;

    fn read(
        &self,
        level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Hash>,
    ) -> Result<(), R::Error> {
        (**self).read(level, start, count, out)
    }

    fn subtree(&self, height: u32, number: u64) -> Result<Option<Hash>, R::Error> {
        (**self).subtree(height, number)
    }
}

/// Why a proof cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError<E> {
    /// The leaf is not in the tree.
    #[error("leaf index {index} is not below the tree size {size}")]
    IndexOutsideTree {
        /// The index asked for.
        index: LeafIndex,
        /// The size asked for.
        size: TreeSize,
    },
    /// The older tree is larger than the newer one.
    #[error("old tree size {old} is larger than the new tree size {new}")]
    SizesOutOfOrder {
        /// The older size.
        old: TreeSize,
        /// The newer size.
        new: TreeSize,
    },
    /// The reader failed.
    #[error("stored hashes cannot be read")]
    Read(#[source] E),
}

impl<E> From<E> for ProveError<E> {
    fn from(error: E) -> ProveError<E> {
        ProveError::Read(error)
    }
}

/// Number of hashes `level` holds at `size`.
pub const fn level_length(level: u8, size: TreeSize) -> u64 {
    if level > LEVEL_MAX {
        0
    } else {
        size.get() >> (8 * level as u32)
    }
}

/// Root of the full tree over `hashes`.
///
/// # Panics
/// If the number of hashes is not a power of two.
pub fn subtree_root(hashes: &[Hash]) -> Hash {
    assert!(
        hashes.len().is_power_of_two(),
        "a full subtree has a power of two of hashes"
    );
    let mut frontier = Frontier::new();
    frontier.append_many(hashes);
    frontier.root()
}

/// Root of a full tile: the hash the next level stores for it.
///
/// # Panics
/// If there are not exactly [`TILE_WIDTH`] hashes.
pub fn tile_root(hashes: &[Hash]) -> Hash {
    assert_eq!(hashes.len(), TILE_WIDTH, "a full tile has 256 hashes");
    subtree_root(hashes)
}

/// The right edge of a growing tree: the roots of its maximal full subtrees.
///
/// At most 64 hashes, enough to append leaves and to know the root, not enough to prove anything.
///
/// Invariant: one hash per set bit of `size`, larger subtrees first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub const fn new() -> Frontier {
        Frontier {
            size: 0,
            peaks: Vec::new(),
        }
    }

    /// The frontier of the first `size` leaves of a stored tree.
    ///
    /// # Errors
    /// What the reader reports.
    ///
    /// # Panics
    /// If the reader breaks its contract, see [`HashReader::read`].
    pub fn from_reader<R: HashReader + ?Sized>(
        reader: &R,
        size: TreeSize,
    ) -> Result<Frontier, R::Error> {
        let peaks = Subtrees::new(reader, size).peaks(0, size.get())?;
        Ok(Frontier {
            size: size.get(),
            peaks,
        })
    }

    /// Appends a leaf hash.
    pub fn append(&mut self, leaf_hash: Hash) {
        self.append_with(leaf_hash, |_, _| ());
    }

    /// Appends leaf hashes in order.
    pub fn append_many(&mut self, leaf_hashes: &[Hash]) {
        for leaf_hash in leaf_hashes {
            self.append(*leaf_hash);
        }
    }

    /// How many leaves were appended.
    pub const fn size(&self) -> TreeSize {
        TreeSize::new(self.size)
    }

    /// The root hash over all of them. At most 63 hashes are computed.
    pub fn root(&self) -> Hash {
        fold_peaks(&self.peaks)
    }

    /// Appends a leaf hash and reports each full subtree of 256^l leaves that it completes.
    #[inline]
    fn append_with(&mut self, leaf_hash: Hash, mut store: impl FnMut(u8, Hash)) {
        store(0, leaf_hash);
        let mut hash = leaf_hash;
        // Each trailing one bit of the size is a full subtree as large as the one in `hash`.
        for height in 1..=self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            if height % 8 == 0 {
                store((height / 8) as u8, hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }
}

/// Says which hashes to store as leaves are appended.
///
/// Every appended leaf yields its own hash at level 0, and one more hash at level `l` whenever it
/// completes 256^l leaves. Appending those to one list per level gives the stored form described in
/// [the module](self).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TreeBuilder {
    frontier: Frontier,
}

impl TreeBuilder {
    /// A builder for a tree without leaves.
    pub const fn new() -> TreeBuilder {
        TreeBuilder {
            frontier: Frontier::new(),
        }
    }

    /// A builder that goes on where a stored tree of `size` leaves ends.
    ///
    /// # Errors
    /// What the reader reports.
    ///
    /// # Panics
    /// If the reader breaks its contract, see [`HashReader::read`].
    pub fn from_reader<R: HashReader + ?Sized>(
        reader: &R,
        size: TreeSize,
    ) -> Result<TreeBuilder, R::Error> {
        Ok(TreeBuilder {
            frontier: Frontier::from_reader(reader, size)?,
        })
    }

    /// Appends a leaf hash and calls `store(level, hash)` for each hash to be stored, level 0 first.
    #[inline]
    pub fn append(&mut self, leaf_hash: Hash, store: impl FnMut(u8, Hash)) {
        self.frontier.append_with(leaf_hash, store);
    }

    /// How many leaves the tree has.
    pub const fn size(&self) -> TreeSize {
        self.frontier.size()
    }

    /// The root hash over all leaves.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The right edge of the tree.
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }
}

impl From<Frontier> for TreeBuilder {
    fn from(frontier: Frontier) -> TreeBuilder {
        TreeBuilder { frontier }
    }
}

/// The root hash over the first `size` leaves of a stored tree.
///
/// # Errors
/// What the reader reports; asking for more leaves than are stored is its business to refuse.
///
/// # Panics
/// If the reader breaks its contract, see [`HashReader::read`].
pub fn root_at<R: HashReader + ?Sized>(reader: &R, size: TreeSize) -> Result<Hash, R::Error> {
    Ok(Frontier::from_reader(reader, size)?.root())
}

/// A whole tree in memory, 32 bytes and a little per leaf.
///
/// ```
/// use scribe_proof::{LeafIndex, MemoryTree, inclusion, leaf_hash};
///
/// let mut tree = MemoryTree::new();
/// for leaf in [b"a", b"b", b"c"] {
///     tree.append(leaf_hash(leaf));
/// }
/// let (index, size) = (LeafIndex::new(1), tree.size());
/// let proof = inclusion::prove(&tree, index, size).unwrap();
/// assert!(inclusion::verify(&leaf_hash(b"b"), index, size, &proof, &tree.root()).is_ok());
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    builder: TreeBuilder,
    levels: Vec<Vec<Hash>>,
}

/// A read beyond what a [`MemoryTree`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hashes {start} to {start}+{count} of level {level} are not in the tree")]
pub struct OutOfRange {
    /// The level read.
    pub level: u8,
    /// The first hash read.
    pub start: u64,
    /// How many were read.
    pub count: usize,
}

impl MemoryTree {
    /// A tree without leaves.
    pub const fn new() -> MemoryTree {
        MemoryTree {
            builder: TreeBuilder::new(),
            levels: Vec::new(),
        }
    }

    /// Appends a leaf hash.
    pub fn append(&mut self, leaf_hash: Hash) {
        let levels = &mut self.levels;
        self.builder.append(leaf_hash, |level, hash| {
            let level = usize::from(level);
            if levels.len() == level {
                levels.push(Vec::new());
            }
            if let Some(hashes) = levels.get_mut(level) {
                hashes.push(hash);
            }
        });
    }

    /// How many leaves the tree has.
    pub const fn size(&self) -> TreeSize {
        self.builder.size()
    }

    /// The root hash over all leaves.
    pub fn root(&self) -> Hash {
        self.builder.root()
    }
}

impl HashReader for MemoryTree {
    type Error = OutOfRange;

    fn read(
        &self,
        level: u8,
        start: u64,
        count: usize,
        out: &mut Vec<Hash>,
    ) -> Result<(), OutOfRange> {
        let hashes = usize::try_from(start).ok().and_then(|first| {
            self.levels
                .get(usize::from(level))?
                .get(first..)?
                .get(..count)
        });
        match hashes {
            Some(hashes) => {
                out.extend_from_slice(hashes);
                Ok(())
            }
            None => Err(OutOfRange {
                level,
                start,
                count,
            }),
        }
    }
}

/// Roots of ranges of a stored tree, reading each tile of the path once.
pub(crate) struct Subtrees<'r, R: ?Sized> {
    reader: &'r R,
    size: TreeSize,
    /// The tile last read of each level; proofs walk up inside one tile per level.
    windows: Vec<Window>,
}

struct Window {
    level: u8,
    start: u64,
    hashes: Vec<Hash>,
}

impl<'r, R: HashReader + ?Sized> Subtrees<'r, R> {
    pub(crate) const fn new(reader: &'r R, size: TreeSize) -> Subtrees<'r, R> {
        Subtrees {
            reader,
            size,
            windows: Vec::new(),
        }
    }

    /// RFC 6962's MTH over the leaves `[low, high)`, not empty, where `low` is a multiple of a power
    /// of two that is at least `high - low` (as it always is in proofs).
    pub(crate) fn range(&mut self, low: u64, high: u64) -> Result<Hash, R::Error> {
        Ok(fold_peaks(&self.peaks(low, high)?))
    }

    /// The roots of the maximal full subtrees of `[low, high)`, larger ones first.
    fn peaks(&mut self, low: u64, high: u64) -> Result<Vec<Hash>, R::Error> {
        let mut peaks = Vec::with_capacity((high - low).count_ones() as usize);
        let mut at = low;
        while at < high {
            let height = (high - at).ilog2();
            peaks.push(self.full(height, at >> height)?);
            at += 1 << height;
        }
        Ok(peaks)
    }

    /// The root of the full subtree over the leaves `[number << height, (number + 1) << height)`.
    fn full(&mut self, height: u32, number: u64) -> Result<Hash, R::Error> {
        if let Some(root) = self.reader.subtree(height, number)? {
            return Ok(root);
        }
        let level = (height / 8) as u8;
        let start = number << (height % 8);
        let within = (start % TILE_WIDTH as u64) as usize;
        let hashes = self.window(level, start - within as u64)?;
        Ok(subtree_root(&hashes[within..within + (1 << (height % 8))]))
    }

    /// The tile of `level` that begins at hash `start`, as much of it as `size` fills.
    fn window(&mut self, level: u8, start: u64) -> Result<&[Hash], R::Error> {
        let place = match self.windows.iter().position(|window| window.level == level) {
            Some(place) => place,
            None => {
                // `u64::MAX` is the start of no tile, so this window holds nothing yet.
                self.windows.push(Window {
                    level,
                    start: u64::MAX,
                    hashes: Vec::new(),
                });
                self.windows.len() - 1
            }
        };
        let window = &mut self.windows[place];
        if window.start != start {
            let count = (level_length(level, self.size) - start).min(TILE_WIDTH as u64) as usize;
            window.start = u64::MAX;
            window.hashes.clear();
            self.reader.read(level, start, count, &mut window.hashes)?;
            assert_eq!(
                window.hashes.len(),
                count,
                "a hash reader returned another number of hashes"
            );
            window.start = start;
        }
        Ok(&window.hashes)
    }
}

/// The root over full subtrees of falling size: each hangs to the left of all that follow it.
fn fold_peaks(peaks: &[Hash]) -> Hash {
    let mut peaks = peaks.iter().rev();
    match peaks.next() {
        None => empty_root(),
        Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
    }
}

/// The largest power of two below `leaves`, which is at least 2: where RFC 6962 splits a tree.
pub(crate) const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}
