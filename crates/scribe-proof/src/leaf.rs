//! The leaf: the only thing hashed into the tree, and for ever.
//!
//! A leaf names a key in the open and *commits* to the value and its metadata without disclosing
//! them. Its bytes are canonical: there is exactly one encoding of a leaf and [`Leaf::parse`]
//! refuses every other, so two parties who hold the same leaf hash hold the same leaf. Integers are
//! big-endian. `docs/format.md` has the byte map.
//!
//! A leaf knows nothing of terms, log indexes, nodes or the ledger's name: a ledger survives being
//! restored elsewhere.

use alloc::vec::Vec;

use crate::hash::Hash;
use crate::index::LeafIndex;

#[doc(no_inline)]
pub use crate::commitment::{
    CommitmentHasher, METADATA_LENGTH_MAX, METADATA_PAIRS_MAX, Metadata, SALT_LENGTH, commitment,
};

/// Longest key, in bytes. A user's key has at least one byte.
pub const KEY_LENGTH_MAX: usize = 1024;
/// Longest author id, in bytes.
pub const AUTHOR_LENGTH_MAX: usize = 64;
/// Longest leaf, in bytes.
pub const LEAF_LENGTH_MAX: usize = 16_384;
/// Length of a leaf whose key, author and body are empty, in bytes.
pub const LEAF_LENGTH_MIN: usize = FIXED_LENGTH + 2 + 1 + 2;

/// The version byte of every leaf written today.
pub const LEAF_VERSION: u8 = 1;

/// Bytes before the key length.
const FIXED_LENGTH: usize = 56;
/// The encoding of [`Prev::NotAsserted`].
const PREV_NOT_ASSERTED: u64 = u64::MAX;

/// What a leaf records. The numbers are the bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LeafKind {
    /// A version with a value.
    Put = 1,
    /// A tombstone: the key has no value from here on; its history stays.
    Delete = 2,
    /// Written by the ledger about itself, see [`SystemKind`].
    System = 3,
}

impl LeafKind {
    /// The kind with this byte, if it is known.
    pub const fn from_byte(byte: u8) -> Option<LeafKind> {
        match byte {
            1 => Some(LeafKind::Put),
            2 => Some(LeafKind::Delete),
            3 => Some(LeafKind::System),
            _ => None,
        }
    }
}

/// What a system leaf is about. The numbers are the subtype on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum SystemKind {
    /// The first leaf of a ledger.
    Genesis = 1,
    /// A new ledger key, signed by the old and the new one.
    LedgerKey = 2,
    /// A node's cosigning key: a hint, not a trust root.
    NodeKey = 3,
    /// A commitment to the current version of every key.
    State = 4,
    /// The private part of an entry was erased.
    Erasure = 5,
    /// The ledger was restored from a copy.
    Restore = 6,
}

impl SystemKind {
    /// The system kind with this subtype, if it is known.
    pub const fn from_subtype(subtype: u16) -> Option<SystemKind> {
        match subtype {
            1 => Some(SystemKind::Genesis),
            2 => Some(SystemKind::LedgerKey),
            3 => Some(SystemKind::NodeKey),
            4 => Some(SystemKind::State),
            5 => Some(SystemKind::Erasure),
            6 => Some(SystemKind::Restore),
            _ => None,
        }
    }
}

/// What a leaf says about its key's previous version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prev {
    /// The key had no version.
    None,
    /// The key's previous version (a tombstone counts) is the leaf at this index.
    Version(LeafIndex),
    /// The write was unconditional and says nothing.
    NotAsserted,
}

impl Prev {
    /// The eight bytes' number: 0, index + 1, or 2^64-1.
    const fn encode(self) -> Result<u64, LeafError> {
        match self {
            Prev::None => Ok(0),
            Prev::NotAsserted => Ok(PREV_NOT_ASSERTED),
            // index + 1 must not look like "not asserted".
            Prev::Version(index) if index.get() >= PREV_NOT_ASSERTED - 1 => {
                Err(LeafError::PrevTooLarge { index: index.get() })
            }
            Prev::Version(index) => Ok(index.get() + 1),
        }
    }

    const fn decode(number: u64) -> Prev {
        match number {
            0 => Prev::None,
            PREV_NOT_ASSERTED => Prev::NotAsserted,
            _ => Prev::Version(LeafIndex::new(number - 1)),
        }
    }
}

/// A leaf, borrowing its variable parts.
///
/// [`Leaf::encode_into`] writes only, and [`Leaf::parse`] returns only, leaves for which all of
/// this holds:
///
/// - put and delete: key of 1 to [`KEY_LENGTH_MAX`] bytes, subtype 0, empty body;
/// - system: known subtype, zero commitment, key of 0 to [`KEY_LENGTH_MAX`] bytes;
/// - author of at most [`AUTHOR_LENGTH_MAX`] bytes;
/// - `transaction_position < transaction_length`;
/// - at most [`LEAF_LENGTH_MAX`] bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// Put, delete or system.
    pub kind: LeafKind,
    /// 0 for put and delete, a [`SystemKind`] for system leaves.
    pub subtype: u16,
    /// Milliseconds since 1970-01-01 UTC, set by the leader; never decreases along the ledger.
    pub timestamp_ms: u64,
    /// 0-based place within the transaction the leaf was written by.
    pub transaction_position: u16,
    /// How many leaves that transaction has; 1 means the leaf was written alone.
    pub transaction_length: u16,
    /// The key's previous version, if asserted.
    pub prev: Prev,
    /// Commitment to salt, metadata and value, see [`commitment()`]; zeros for system
    /// leaves.
    pub commitment: Hash,
    /// The key, public and permanent.
    pub key: &'a [u8],
    /// Opaque id of the authenticated author, public and permanent; empty without authentication.
    pub author: &'a [u8],
    /// What a system leaf says; empty for put and delete.
    pub body: &'a [u8],
}

/// Why a leaf, or the metadata it commits to, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The bytes end early.
    #[error("leaf ends early: {needed} bytes needed for {field}, {found} left")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that were left.
        found: usize,
    },
    /// Bytes follow the end.
    #[error("{found} bytes follow the end, a canonical encoding has none")]
    TrailingBytes {
        /// How many.
        found: usize,
    },
    /// The whole leaf is too long.
    #[error("leaf is {found} bytes long, at most 16384 are allowed")]
    LeafLength {
        /// Bytes found.
        found: usize,
    },
    /// A later version of the format.
    #[error("leaf version {0} is unknown, this software knows version 1")]
    UnknownVersion(u8),
    /// A kind this software does not know.
    #[error("leaf kind {0} is unknown, this software knows 1 (put), 2 (delete) and 3 (system)")]
    UnknownKind(u8),
    /// A subtype this software does not know.
    #[error("leaf subtype {subtype} is unknown for kind {kind}")]
    UnknownSubtype {
        /// The kind byte.
        kind: u8,
        /// The subtype.
        subtype: u16,
    },
    /// Key too short or too long.
    #[error("key is {found} bytes long, {min} to 1024 are allowed")]
    KeyLength {
        /// Bytes found.
        found: usize,
        /// 1 for put and delete, 0 for system leaves.
        min: usize,
    },
    /// Author too long.
    #[error("author is {found} bytes long, at most 64 are allowed")]
    AuthorLength {
        /// Bytes found.
        found: usize,
    },
    /// A put or delete with a body.
    #[error("a put or delete has a body of {found} bytes, only system leaves have one")]
    BodyNotAllowed {
        /// Bytes found.
        found: usize,
    },
    /// A system leaf with a commitment.
    #[error("a system leaf has a commitment, it must be 32 zero bytes")]
    CommitmentNotZero,
    /// A transaction of no leaves, or a position outside it.
    #[error("transaction position {position} is not below the transaction length {length}")]
    TransactionPosition {
        /// Position found.
        position: u16,
        /// Length found.
        length: u16,
    },
    /// A previous version that cannot be encoded.
    #[error("previous version {index} is too large to be encoded")]
    PrevTooLarge {
        /// The index.
        index: u64,
    },
    /// Metadata too long.
    #[error("metadata is {found} bytes long, at most 8192 are allowed")]
    MetadataLength {
        /// Bytes found.
        found: usize,
    },
    /// Too many metadata pairs.
    #[error("metadata has {found} pairs, at most 16 are allowed")]
    MetadataPairs {
        /// Pairs found.
        found: usize,
    },
    /// Content type too long, not UTF-8, or with control characters.
    #[error("content type must be at most 255 bytes of UTF-8 without control characters")]
    ContentType,
    /// A metadata name with other characters, empty or too long.
    #[error("metadata name must be 1 to 255 of a-z 0-9 - _ . (pair {pair})")]
    MetadataName {
        /// 0-based place of the pair.
        pair: usize,
    },
    /// A metadata value too long, not UTF-8, or with control characters.
    #[error("metadata value must be UTF-8 without control characters (pair {pair})")]
    MetadataValue {
        /// 0-based place of the pair.
        pair: usize,
    },
    /// Names not strictly ascending: unsorted or twice the same.
    #[error("metadata names must be unique and in byte order (pair {pair})")]
    MetadataOrder {
        /// 0-based place of the first pair out of order.
        pair: usize,
    },
    /// More or fewer value bytes were hashed than announced.
    #[error("value is {found} bytes long, {announced} were announced")]
    ValueLength {
        /// Bytes hashed.
        found: u64,
        /// Bytes announced to [`crate::CommitmentHasher::new`].
        announced: u64,
    },
}

impl LeafError {
    /// Whether the leaf may be sound but of a later format: "included, not understood".
    ///
    /// Such a leaf is never valid here; newer software may be able to read it.
    pub const fn is_unknown(&self) -> bool {
        matches!(
            self,
            LeafError::UnknownVersion(_)
                | LeafError::UnknownKind(_)
                | LeafError::UnknownSubtype { .. }
        )
    }
}

impl<'a> Leaf<'a> {
    /// Length of the encoding in bytes, also of a leaf that would be refused.
    pub const fn encoded_length(&self) -> usize {
        LEAF_LENGTH_MIN + self.key.len() + self.author.len() + self.body.len()
    }

    /// The system kind, or `None` for put, delete and unknown subtypes.
    pub const fn system_kind(&self) -> Option<SystemKind> {
        match self.kind {
            LeafKind::System => SystemKind::from_subtype(self.subtype),
            LeafKind::Put | LeafKind::Delete => None,
        }
    }

    /// Appends the canonical encoding to `out`, or leaves `out` untouched.
    ///
    /// # Errors
    /// The first rule of [`Leaf`] that does not hold.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), LeafError> {
        self.check()?;
        let prev = self.prev.encode()?;
        out.reserve(self.encoded_length());
        let mut fixed = [0_u8; FIXED_LENGTH + 2];
        fixed[0] = LEAF_VERSION;
        fixed[1] = self.kind as u8;
        fixed[2..4].copy_from_slice(&self.subtype.to_be_bytes());
        fixed[4..12].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        fixed[12..14].copy_from_slice(&self.transaction_position.to_be_bytes());
        fixed[14..16].copy_from_slice(&self.transaction_length.to_be_bytes());
        fixed[16..24].copy_from_slice(&prev.to_be_bytes());
        fixed[24..56].copy_from_slice(&self.commitment.0);
        // `check` bounds all three lengths, so none of these casts cuts anything off.
        fixed[56..58].copy_from_slice(&(self.key.len() as u16).to_be_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(self.key);
        out.push(self.author.len() as u8);
        out.extend_from_slice(self.author);
        out.extend_from_slice(&(self.body.len() as u16).to_be_bytes());
        out.extend_from_slice(self.body);
        Ok(())
    }

    /// Reads a leaf, borrowing from `bytes`.
    ///
    /// # Errors
    /// Anything but the canonical encoding of a leaf that follows the rules of [`Leaf`]. Where
    /// [`LeafError::is_unknown`] holds, a later version of the format may allow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Leaf<'a>, LeafError> {
        if bytes.len() > LEAF_LENGTH_MAX {
            return Err(LeafError::LeafLength { found: bytes.len() });
        }
        let mut cursor = Cursor { bytes };
        // Unknown versions and kinds are told apart before anything else is looked at: the rest of
        // the layout may differ there.
        let version = cursor.u8("version")?;
        if version != LEAF_VERSION {
            return Err(LeafError::UnknownVersion(version));
        }
        let kind_byte = cursor.u8("kind")?;
        let kind = LeafKind::from_byte(kind_byte).ok_or(LeafError::UnknownKind(kind_byte))?;
        let leaf = Leaf {
            kind,
            subtype: cursor.u16("subtype")?,
            timestamp_ms: cursor.u64("timestamp")?,
            transaction_position: cursor.u16("transaction position")?,
            transaction_length: cursor.u16("transaction length")?,
            prev: Prev::decode(cursor.u64("prev")?),
            commitment: Hash(cursor.array("commitment")?),
            key: {
                let length = cursor.u16("key length")?;
                cursor.take("key", usize::from(length))?
            },
            author: {
                let length = cursor.u8("author length")?;
                cursor.take("author", usize::from(length))?
            },
            body: {
                let length = cursor.u16("body length")?;
                cursor.take("body", usize::from(length))?
            },
        };
        cursor.end()?;
        leaf.check()?;
        Ok(leaf)
    }

    /// Every rule of [`Leaf`] but the one on `prev`, which only encoding can break.
    fn check(&self) -> Result<(), LeafError> {
        let key_length_min = match self.kind {
            LeafKind::Put | LeafKind::Delete => {
                if self.subtype != 0 {
                    return Err(self.unknown_subtype());
                }
                if !self.body.is_empty() {
                    return Err(LeafError::BodyNotAllowed {
                        found: self.body.len(),
                    });
                }
                1
            }
            LeafKind::System => {
                if SystemKind::from_subtype(self.subtype).is_none() {
                    return Err(self.unknown_subtype());
                }
                if self.commitment != Hash::default() {
                    return Err(LeafError::CommitmentNotZero);
                }
                0
            }
        };
        if self.key.len() < key_length_min || self.key.len() > KEY_LENGTH_MAX {
            return Err(LeafError::KeyLength {
                found: self.key.len(),
                min: key_length_min,
            });
        }
        if self.author.len() > AUTHOR_LENGTH_MAX {
            return Err(LeafError::AuthorLength {
                found: self.author.len(),
            });
        }
        if self.transaction_position >= self.transaction_length {
            return Err(LeafError::TransactionPosition {
                position: self.transaction_position,
                length: self.transaction_length,
            });
        }
        if self.encoded_length() > LEAF_LENGTH_MAX {
            return Err(LeafError::LeafLength {
                found: self.encoded_length(),
            });
        }
        Ok(())
    }

    const fn unknown_subtype(&self) -> LeafError {
        LeafError::UnknownSubtype {
            kind: self.kind as u8,
            subtype: self.subtype,
        }
    }
}

/// Takes fields off the front of a byte string, never past its end.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn take(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<&'a [u8], LeafError> {
        match self.bytes.split_at_checked(length) {
            Some((head, tail)) => {
                self.bytes = tail;
                Ok(head)
            }
            None => Err(LeafError::Truncated {
                field,
                needed: length,
                found: self.bytes.len(),
            }),
        }
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], LeafError> {
        match self.bytes.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.bytes = tail;
                Ok(*head)
            }
            None => Err(LeafError::Truncated {
                field,
                needed: N,
                found: self.bytes.len(),
            }),
        }
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, LeafError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, LeafError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, LeafError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn end(&self) -> Result<(), LeafError> {
        match self.bytes.len() {
            0 => Ok(()),
            found => Err(LeafError::TrailingBytes { found }),
        }
    }
}
