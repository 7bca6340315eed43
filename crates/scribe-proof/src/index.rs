//! Where a leaf is, and how many leaves there are: two numbers that must never mix.
//!
//! The conversions between them are named, so that an off-by-one is a word in the code and not a
//! `+ 1`. Neither is a Raft log index.

use core::fmt;

/// 0-based place of a leaf in the ledger: contiguous, assigned once, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeafIndex(u64);

/// How many leaves a tree holds. A tree of size `n` holds the leaf indexes below `n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreeSize(u64);

impl LeafIndex {
    /// The index of the first leaf.
    pub const FIRST: LeafIndex = LeafIndex(0);

    /// The leaf index with this number.
    pub const fn new(index: u64) -> LeafIndex {
        LeafIndex(index)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The index of the leaf after this one (saturating at 2^64-1, which no ledger reaches).
    pub const fn next(self) -> LeafIndex {
        LeafIndex(self.0.saturating_add(1))
    }

    /// The size of the smallest tree that holds this leaf: index + 1 (saturating).
    pub const fn tree_size(self) -> TreeSize {
        TreeSize(self.0.saturating_add(1))
    }
}

impl TreeSize {
    /// The size of a tree without leaves.
    pub const EMPTY: TreeSize = TreeSize(0);

    /// The tree size with this number.
    pub const fn new(size: u64) -> TreeSize {
        TreeSize(size)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the tree has no leaves.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The index the next leaf gets when it is appended to a tree of this size.
    pub const fn next_index(self) -> LeafIndex {
        LeafIndex(self.0)
    }

    /// The index of the last leaf, or `None` for the empty tree.
    pub const fn last_index(self) -> Option<LeafIndex> {
        match self.0.checked_sub(1) {
            Some(last) => Some(LeafIndex(last)),
            None => None,
        }
    }

    /// Whether a tree of this size holds the leaf at `index`.
    pub const fn contains(self, index: LeafIndex) -> bool {
        index.0 < self.0
    }

    /// The size after `leaves` more leaves (saturating at 2^64-1, which no ledger reaches).
    #[must_use]
    pub const fn grown_by(self, leaves: u64) -> TreeSize {
        TreeSize(self.0.saturating_add(leaves))
    }
}

impl fmt::Display for LeafIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for LeafIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafIndex({})", self.0)
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeSize({})", self.0)
    }
}

/// Reads a decimal number as the text formats write it: digits only, no leading zero, below 2^64.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    // Nothing at all is no number for the standard library either.
    let canonical = match bytes {
        [b'0'] => true,
        [b'0', ..] => false,
        _ => bytes.len() <= 20 && bytes.iter().all(u8::is_ascii_digit),
    };
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        let size = TreeSize::new(7);
        assert_eq!(size.next_index(), LeafIndex::new(7));
        assert_eq!(size.last_index(), Some(LeafIndex::new(6)));
        assert_eq!(LeafIndex::new(6).tree_size(), size);
        assert!(size.contains(LeafIndex::new(6)) && !size.contains(LeafIndex::new(7)));
        assert_eq!(TreeSize::EMPTY.last_index(), None);
        assert_eq!(size.grown_by(3), TreeSize::new(10));
        assert_eq!(LeafIndex::new(6).next(), LeafIndex::new(7));
    }

    #[test]
    fn decimal_is_canonical() {
        assert_eq!(parse_decimal("0"), Some(0));
        assert_eq!(parse_decimal("18446744073709551615"), Some(u64::MAX));
        for wrong in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "18446744073709551616",
            "1_0",
            "0x1",
        ] {
            assert_eq!(parse_decimal(wrong), None, "{wrong:?}");
        }
    }
}
