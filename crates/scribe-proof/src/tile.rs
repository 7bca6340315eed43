//! Tiles and entry bundles: how a tree is cut into files (<https://c2sp.org/tlog-tiles>).
//!
//! A tile is up to 256 consecutive hashes of one level, so a byte range of the stored form of
//! [`crate::tree`]. An entry bundle is the leaves under a level-0 tile, each after its 16-bit length.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::index::TreeSize;
use crate::tree::{LEVEL_MAX, TILE_WIDTH, level_length};

/// Highest level a path may name. No tree of ours reaches beyond [`LEVEL_MAX`].
const PATH_LEVEL_MAX: u8 = 63;

/// Why a tile, a path or an entry bundle is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The level is too high.
    #[error("tile level is {found}, at most 63 is allowed")]
    Level {
        /// Level found.
        found: u8,
    },
    /// The width is zero or too large.
    #[error("tile width is {found}, 1 to 256 are allowed")]
    Width {
        /// Width found.
        found: u16,
    },
    /// The tile would hold hashes beyond the last leaf a `u64` counts.
    #[error("tile index is beyond the last possible tile")]
    Index,
    /// Not a tile path.
    #[error("path must be tile/<level or entries>/<index in groups of three digits>[.p/<width>]")]
    Path,
    /// An entry is too long for a bundle.
    #[error("entry is {found} bytes long, at most 65535 fit an entry bundle")]
    EntryLength {
        /// Bytes found.
        found: usize,
    },
    /// A bundle ends early.
    #[error("entry bundle ends within entry {entry} of {expected}")]
    BundleTruncated {
        /// 0-based entry.
        entry: u16,
        /// Entries expected.
        expected: u16,
    },
    /// Bytes follow the last entry.
    #[error("{found} bytes follow the last of {expected} entries in the bundle")]
    BundleTrailing {
        /// Bytes that follow.
        found: usize,
        /// Entries expected.
        expected: u16,
    },
}

/// The coordinates of a tile: up to 256 hashes of one level.
///
/// Invariants: level at most 63, width 1 to 256 (256 is a full tile).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile with these coordinates.
    ///
    /// # Errors
    /// [`TileError::Level`], [`TileError::Width`], [`TileError::Index`].
    pub const fn new(level: u8, index: u64, width: u16) -> Result<Tile, TileError> {
        if level > PATH_LEVEL_MAX {
            return Err(TileError::Level { found: level });
        }
        if width == 0 || width as usize > TILE_WIDTH {
            return Err(TileError::Width { found: width });
        }
        if index >= 1 << 56 {
            return Err(TileError::Index);
        }
        Ok(Tile {
            level,
            index,
            width,
        })
    }

    /// The tile with this level and index as a tree of `size` leaves has it: full, or as wide as the
    /// tree fills it. `None` if the tree has no hash there.
    pub fn at(level: u8, index: u64, size: TreeSize) -> Option<Tile> {
        let start = index.checked_mul(TILE_WIDTH as u64)?;
        let left = level_length(level, size).checked_sub(start)?;
        Tile::new(level, index, left.min(TILE_WIDTH as u64) as u16).ok()
    }

    /// Every tile of a tree of `size` leaves, lowest level first; no tile is empty.
    pub fn all(size: TreeSize) -> impl Iterator<Item = Tile> {
        Tile::new_since(TreeSize::EMPTY, size)
    }

    /// Every tile that a tree of `new` leaves has and one of `old` leaves does not, lowest level
    /// first.
    pub fn new_since(old: TreeSize, new: TreeSize) -> impl Iterator<Item = Tile> {
        (0..=LEVEL_MAX).flat_map(move |level| {
            let width = TILE_WIDTH as u64;
            let (before, after) = (level_length(level, old), level_length(level, new));
            // The tile at the old edge is wider now, so it is another tile.
            let tiles = if before < after {
                before / width..after.div_ceil(width)
            } else {
                0..0
            };
            tiles.filter_map(move |index| Tile::at(level, index, new))
        })
    }

    /// The level; 0 holds leaf hashes.
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// The place among the tiles of the level, 0-based.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes (or entries), 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether the tile has all 256 hashes.
    pub const fn is_full(&self) -> bool {
        self.width as usize == TILE_WIDTH
    }

    /// Number of the first hash within its level: what [`crate::HashReader::read`] takes as start.
    pub const fn start(&self) -> u64 {
        // `index` is below 2^56.
        self.index * TILE_WIDTH as u64
    }

    /// Whether a tree of `size` leaves has all hashes of this tile.
    pub const fn exists_at(&self, size: TreeSize) -> bool {
        match self.start().checked_add(self.width as u64) {
            Some(end) => end <= level_length(self.level, size),
            None => false,
        }
    }

    /// `tile/<level>/<index>[.p/<width>]`.
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, Place(self))
    }

    /// `tile/entries/<index>[.p/<width>]`: the bundle of the entries under this tile, if it is of
    /// level 0.
    pub fn entries_path(&self) -> Option<String> {
        if self.level == 0 {
            Some(format!("tile/entries/{}", Place(self)))
        } else {
            None
        }
    }
}

/// Index and width as in a path.
struct Place<'a>(&'a Tile);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scale = 1_u64;
        while self.0.index / scale >= 1000 {
            scale *= 1000;
        }
        while scale > 1 {
            write!(f, "x{:03}/", self.0.index / scale % 1000)?;
            scale /= 1000;
        }
        write!(f, "{:03}", self.0.index % 1000)?;
        if !self.0.is_full() {
            write!(f, ".p/{}", self.0.width)?;
        }
        Ok(())
    }
}

/// What a tile path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TilePath {
    /// A tile of hashes.
    Hashes(Tile),
    /// The bundle of the entries under a tile of level 0.
    Entries(Tile),
}

impl TilePath {
    /// Reads a path without leading slash, in its one canonical form.
    ///
    /// # Errors
    /// [`TileError::Path`], or what [`Tile::new`] refuses.
    pub fn parse(path: &str) -> Result<TilePath, TileError> {
        // A path of any length costs no memory, and its groups end it where 64 bits do.
        let rest = path.strip_prefix("tile/").ok_or(TileError::Path)?;
        let (level, place) = rest.split_once('/').ok_or(TileError::Path)?;
        let (groups, width) = match place.split_once(".p/") {
            Some((groups, width)) => match small_number(width) {
                // A full tile has no width in its path.
                Some(width @ 1..=255) => (groups, width),
                _ => return Err(TileError::Path),
            },
            None => (place, TILE_WIDTH as u16),
        };
        let index = parse_groups(groups).ok_or(TileError::Path)?;
        if level == "entries" {
            return Ok(TilePath::Entries(Tile::new(0, index, width)?));
        }
        let level = small_number(level).ok_or(TileError::Path)?;
        Ok(TilePath::Hashes(Tile::new(level as u8, index, width)?))
    }

    /// The coordinates.
    pub const fn tile(&self) -> &Tile {
        match self {
            TilePath::Hashes(tile) | TilePath::Entries(tile) => tile,
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TilePath::Hashes(tile) => write!(f, "tile/{}/{}", tile.level, Place(tile)),
            TilePath::Entries(tile) => write!(f, "tile/entries/{}", Place(tile)),
        }
    }
}

/// Appends one entry to a bundle.
///
/// # Errors
/// [`TileError::EntryLength`]; the bundle stays as it was.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length =
        u16::try_from(entry.len()).map_err(|_| TileError::EntryLength { found: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// Reads a bundle of exactly `width` entries.
///
/// # Errors
/// [`TileError::Width`], [`TileError::BundleTruncated`], [`TileError::BundleTrailing`].
pub fn parse_bundle(mut bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    if width == 0 || usize::from(width) > TILE_WIDTH {
        return Err(TileError::Width { found: width });
    }
    let mut entries = Vec::with_capacity(width.into());
    for entry in 0..width {
        let parts = bundle
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        let Some((bytes, rest)) = parts else {
            return Err(TileError::BundleTruncated {
                entry,
                expected: width,
            });
        };
        entries.push(bytes);
        bundle = rest;
    }
    match bundle.len() {
        0 => Ok(entries),
        found => Err(TileError::BundleTrailing {
            found,
            expected: width,
        }),
    }
}

/// Up to three digits without leading zeros, at most 255.
fn small_number(text: &str) -> Option<u16> {
    let number = crate::index::parse_decimal(text)?;
    if number <= 255 {
        Some(number as u16)
    } else {
        None
    }
}

/// `x001/x234/067`: groups of three digits, each but the last after an `x`.
fn parse_groups(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut groups = text.split('/').peekable();
    let mut first = true;
    while let Some(group) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // Another leading group of zeros would be a second name of the same tile.
        if first && digits == "000" && groups.peek().is_some() {
            return None;
        }
        first = false;
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}
