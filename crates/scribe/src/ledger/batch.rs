//! The replicated vocabulary: how a batch of entries is laid out in the two parts of a frame.
//!
//! A frame's **public part** holds what is hashed into the tree (the leaves); its **private part** holds what the
//! leaves only commit to (salts, metadata, values) and the idempotency digests. They are kept apart so that private
//! bytes can be erased later without touching anything a proof or the frame chain covers. Byte maps are in
//! `docs/format.md`. This module encodes and parses; it decides nothing and does no I/O.
//!
//! ```text
//! public   count x u32 (end of leaf i, counted from the end of this table) ‖ leaves
//! private  u32 digest count ‖ digests x (u16 first operation ‖ u16 operations ‖ 16 key hash ‖ 16 fingerprint)
//!          ‖ count x u32 (end of record i, counted from the end of this table) ‖ records
//! record   empty (system entry, or erased) | 16 salt ‖ u16 metadata length ‖ metadata ‖ value
//! ```
//! All integers are big-endian.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use scribe_proof::leaf::SALT_LENGTH;

use crate::limits;

/// Bytes of one idempotency digest in the private part.
pub const DIGEST_LENGTH: usize = 36;

/// One successful write remembered under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyDigest {
    /// First operation of the write within its frame.
    pub first: u16,
    /// How many operations (leaves) the write has.
    pub count: u16,
    /// First 16 bytes of SHA-256 over principal and idempotency key.
    pub key_hash: [u8; 16],
    /// First 16 bytes of SHA-256 over the request: the same key with another request is refused.
    pub fingerprint: [u8; 16],
}

/// What lies beside a leaf: the opening of its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateRecord {
    /// 16 random bytes.
    pub salt: [u8; SALT_LENGTH],
    /// Encoded metadata.
    pub metadata: Bytes,
    /// The value.
    pub value: Bytes,
}

/// A [`PrivateRecord`] where it lies: nothing is copied, and no reference is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening<'a> {
    /// 16 random bytes.
    pub salt: &'a [u8; SALT_LENGTH],
    /// Encoded metadata.
    pub metadata: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Why the parts of a frame are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A table or a record ends beyond its part.
    #[error("{part} part is {length} bytes, too short for its {what}")]
    TooShort {
        /// `public` or `private`.
        part: &'static str,
        /// Length found.
        length: usize,
        /// What did not fit.
        what: &'static str,
    },
    /// Offsets must not decrease and the last one must be the end of the part.
    #[error("{part} part: end offset of record {position} is {found}, allowed {low} to {high}")]
    Offset {
        /// `public` or `private`.
        part: &'static str,
        /// Which record.
        position: usize,
        /// Offset found.
        found: usize,
        /// Smallest allowed.
        low: usize,
        /// Largest allowed.
        high: usize,
    },
    /// A frame carries 1 to [`limits::FRAME_OPERATIONS_MAX`] leaves.
    #[error(
        "a batch has {found} leaves, allowed 1 to {}",
        limits::FRAME_OPERATIONS_MAX
    )]
    Count {
        /// Count found.
        found: usize,
    },
}

/// Builds the two parts of a frame, one entry after the other.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    leaf_ends: Vec<u32>,
    leaves: BytesMut,
    record_ends: Vec<u32>,
    records: BytesMut,
    digests: Vec<IdempotencyDigest>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries so far.
    pub fn count(&self) -> usize {
        self.leaf_ends.len()
    }

    /// Bytes so far, tables left out.
    pub fn byte_length(&self) -> usize {
        self.leaves.len() + self.records.len()
    }

    /// Adds one entry: its encoded leaf and, unless it is a system entry, the opening of its commitment.
    pub fn push(&mut self, leaf: &[u8], private: Option<(&[u8; SALT_LENGTH], &[u8], &[u8])>) {
        self.leaves.extend_from_slice(leaf);
        self.leaf_ends.push(self.leaves.len() as u32);
        if let Some((salt, metadata, value)) = private {
            self.records
                .reserve(SALT_LENGTH + 2 + metadata.len() + value.len());
            self.records.extend_from_slice(salt);
            self.records.put_u16(metadata.len() as u16);
            self.records.extend_from_slice(metadata);
            self.records.extend_from_slice(value);
        }
        self.record_ends.push(self.records.len() as u32);
    }

    /// Remembers a write under its idempotency key.
    pub fn push_digest(&mut self, digest: IdempotencyDigest) {
        self.digests.push(digest);
    }

    /// The public and the private part.
    pub fn finish(self) -> (Bytes, Bytes) {
        let mut public = BytesMut::with_capacity(self.leaf_ends.len() * 4 + self.leaves.len());
        for end in &self.leaf_ends {
            public.put_u32(*end);
        }
        public.extend_from_slice(&self.leaves);
        let tables = 4 + self.digests.len() * DIGEST_LENGTH + self.record_ends.len() * 4;
        let mut private = BytesMut::with_capacity(tables + self.records.len());
        private.put_u32(self.digests.len() as u32);
        for digest in &self.digests {
            private.put_u16(digest.first);
            private.put_u16(digest.count);
            private.extend_from_slice(&digest.key_hash);
            private.extend_from_slice(&digest.fingerprint);
        }
        for end in &self.record_ends {
            private.put_u32(*end);
        }
        private.extend_from_slice(&self.records);
        (public.freeze(), private.freeze())
    }
}

/// A parsed batch: slices into the two parts, nothing copied.
///
/// Invariants, checked by [`Batch::parse`]: `count` is 1 to [`limits::FRAME_OPERATIONS_MAX`]; the end offsets of both
/// tables never decrease and end exactly at the end of their part.
#[derive(Debug, Clone)]
pub struct Batch {
    count: usize,
    public: Bytes,
    private: Bytes,
    digests: usize,
}

impl Batch {
    /// Checks the tables of both parts of a frame that declares `count` leaves.
    pub fn parse(count: usize, public: Bytes, private: Bytes) -> Result<Self, BatchError> {
        if count == 0 || count > limits::FRAME_OPERATIONS_MAX {
            return Err(BatchError::Count { found: count });
        }
        check_table("public", &public, 0, count)?;
        let digests = read_u32(&private, 0).ok_or(BatchError::TooShort {
            part: "private",
            length: private.len(),
            what: "digest count",
        })? as usize;
        if digests > count {
            return Err(BatchError::TooShort {
                part: "private",
                length: private.len(),
                what: "digests",
            });
        }
        check_table("private", &private, 4 + digests * DIGEST_LENGTH, count)?;
        Ok(Self {
            count,
            public,
            private,
            digests,
        })
    }

    /// How many leaves.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Leaf `position` (0-based within the frame), as encoded; `None` beyond the last.
    pub fn leaf(&self, position: usize) -> Option<Bytes> {
        range_of(&self.public, 0, self.count, position).map(|range| self.public.slice(range))
    }

    /// [`leaf`](Self::leaf), borrowed.
    pub fn leaf_bytes(&self, position: usize) -> Option<&[u8]> {
        let range = range_of(&self.public, 0, self.count, position)?;
        self.public.get(range)
    }

    /// The opening beside leaf `position`; `None` for a system entry, an erased one, or beyond the last.
    pub fn private(&self, position: usize) -> Option<PrivateRecord> {
        let range = range_of(&self.private, self.record_table(), self.count, position)?;
        PrivateRecord::parse(&self.private.slice(range))
    }

    /// [`private`](Self::private), borrowed.
    pub fn opening(&self, position: usize) -> Option<Opening<'_>> {
        let range = range_of(&self.private, self.record_table(), self.count, position)?;
        Opening::parse(self.private.get(range)?)
    }

    /// The idempotency digests, in the order of their writes.
    pub fn digests(&self) -> impl Iterator<Item = IdempotencyDigest> + '_ {
        (0..self.digests).filter_map(|i| {
            let bytes = self
                .private
                .get(4 + i * DIGEST_LENGTH..4 + (i + 1) * DIGEST_LENGTH)?;
            Some(IdempotencyDigest {
                first: u16::from_be_bytes(bytes[0..2].try_into().ok()?),
                count: u16::from_be_bytes(bytes[2..4].try_into().ok()?),
                key_hash: bytes[4..20].try_into().ok()?,
                fingerprint: bytes[20..36].try_into().ok()?,
            })
        })
    }

    fn record_table(&self) -> usize {
        4 + self.digests * DIGEST_LENGTH
    }
}

impl PrivateRecord {
    /// Parses one record; `None` when it is empty (erased, or of a system entry) or too short to be one.
    pub fn parse(record: &Bytes) -> Option<Self> {
        let opening = Opening::parse(record)?;
        Some(Self {
            salt: *opening.salt,
            metadata: record.slice_ref(opening.metadata),
            value: record.slice_ref(opening.value),
        })
    }

    /// The same, borrowed.
    pub fn as_opening(&self) -> Opening<'_> {
        Opening {
            salt: &self.salt,
            metadata: &self.metadata,
            value: &self.value,
        }
    }
}

impl<'a> Opening<'a> {
    /// Parses one record; `None` when it is empty (erased, or of a system entry) or too short to be one.
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let (salt, rest) = record.split_first_chunk::<SALT_LENGTH>()?;
        let (metadata_length, rest) = rest.split_first_chunk::<2>()?;
        let (metadata, value) =
            rest.split_at_checked(u16::from_be_bytes(*metadata_length).into())?;
        Some(Self {
            salt,
            metadata,
            value,
        })
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn check_table(
    part: &'static str,
    bytes: &[u8],
    table: usize,
    count: usize,
) -> Result<(), BatchError> {
    let start = table + count * 4;
    if bytes.len() < start {
        return Err(BatchError::TooShort {
            part,
            length: bytes.len(),
            what: "table",
        });
    }
    let high = bytes.len() - start;
    let mut low = 0;
    for position in 0..count {
        let found = read_u32(bytes, table + position * 4).map_or(usize::MAX, |end| end as usize);
        let floor = if position + 1 == count { high } else { low };
        if found < floor || found > high {
            return Err(BatchError::Offset {
                part,
                position,
                found,
                low: floor,
                high,
            });
        }
        low = found;
    }
    Ok(())
}

/// Where record `position` lies in a part whose table of ends starts at `table`.
fn range_of(bytes: &[u8], table: usize, count: usize, position: usize) -> Option<Range<usize>> {
    if position >= count {
        return None;
    }
    let base = table + count * 4;
    let start = if position == 0 {
        0
    } else {
        read_u32(bytes, table + (position - 1) * 4)? as usize
    };
    let end = read_u32(bytes, table + position * 4)? as usize;
    (base + end <= bytes.len() && start <= end).then_some(base + start..base + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Bytes, Bytes) {
        let mut builder = BatchBuilder::new();
        builder.push(b"leaf one", Some((&[1; 16], b"m", b"value")));
        builder.push(b"system", None);
        builder.push(b"leaf 3", Some((&[3; 16], b"", b"")));
        builder.push_digest(IdempotencyDigest {
            first: 0,
            count: 1,
            key_hash: [7; 16],
            fingerprint: [8; 16],
        });
        builder.finish()
    }

    #[test]
    fn what_was_built_is_read_back() {
        let (public, private) = sample();
        let batch = Batch::parse(3, public, private).unwrap();
        assert_eq!(batch.leaf(0).unwrap(), "leaf one");
        assert_eq!(batch.leaf(2).unwrap(), "leaf 3");
        assert_eq!(batch.leaf(3), None);
        assert_eq!(batch.private(0).unwrap().value, "value");
        assert_eq!(batch.private(0).unwrap().metadata, "m");
        assert_eq!(batch.private(1), None);
        assert_eq!(batch.private(2).unwrap().salt, [3; 16]);
        for position in 0..4 {
            let (leaf, private) = (batch.leaf(position), batch.private(position));
            assert_eq!(batch.leaf_bytes(position), leaf.as_deref());
            let opening = private.as_ref().map(PrivateRecord::as_opening);
            assert_eq!(batch.opening(position), opening);
        }
        assert_eq!(batch.digests().next().unwrap().key_hash, [7; 16]);
    }

    #[test]
    fn every_cut_and_every_flip_of_a_table_is_refused_or_harmless() {
        let (public, private) = sample();
        for cut in 0..public.len() {
            assert!(Batch::parse(3, public.slice(..cut), private.clone()).is_err());
        }
        for at in 0..private.len() {
            let mut bytes = private.to_vec();
            bytes[at] ^= 0xff;
            if let Ok(batch) = Batch::parse(3, public.clone(), bytes.into()) {
                for position in 0..4 {
                    let _ = batch.private(position);
                }
                let _ = batch.digests().count();
            }
        }
    }

    #[test]
    fn a_count_outside_the_limits_is_refused() {
        let (public, private) = sample();
        assert_eq!(
            Batch::parse(0, public.clone(), private.clone()).unwrap_err(),
            BatchError::Count { found: 0 }
        );
        assert!(Batch::parse(limits::FRAME_OPERATIONS_MAX + 1, public, private).is_err());
    }
}
