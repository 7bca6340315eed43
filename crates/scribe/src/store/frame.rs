//! A frame: one Raft entry as it lies in a segment file. Byte map in `docs/format-log.md`.
//!
//! The header and the public part are covered by the **chain CRC**, which also covers the chain CRC of the frame
//! before: a frame that is not the successor of the one before it is recognized wherever it came from. The private part
//! has a CRC of its own outside the chain, so that private bytes can be erased later without breaking it.
//!
//! This module turns bytes into frames and back. It does no I/O and knows nothing of segments.

use std::fmt;

use bytes::Bytes;
use scribe_proof::index::LeafIndex;

use crate::limits;

/// Bytes of a frame header.
pub const HEADER_LENGTH: usize = 64;
/// Format version in each header.
pub const FRAME_VERSION: u8 = 1;
/// Most bytes one frame takes in a file.
pub const FRAME_LENGTH_MAX: usize = HEADER_LENGTH + 2 * limits::FRAME_PART_LENGTH_MAX + 8;

/// A place in the Raft log. Never a [`LeafIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The place behind this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one Raft entry for ever: the term that proposed it and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Place in the log.
    pub index: LogIndex,
}

impl LogId {
    /// A log id from plain numbers.
    pub const fn new(term: u64, index: u64) -> Self {
        Self {
            term,
            index: LogIndex(index),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// What this node promised in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// Term voted in.
    pub term: u64,
    /// Whom the vote is for.
    pub node_id: u64,
    /// Whether a majority granted it: the node it is for is leader of the term.
    pub committed: bool,
}

/// What a frame carries. The numbers are on disk for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Raft's empty entry.
    Blank = 0x10,
    /// A cluster membership; takes no leaves.
    Membership = 0x11,
    /// A batch of entries.
    Entries = 0x12,
    /// An agreed tree head; takes no leaves.
    Publish = 0x13,
}

impl FrameKind {
    /// The kind of this number.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0x10 => Some(Self::Blank),
            0x11 => Some(Self::Membership),
            0x12 => Some(Self::Entries),
            0x13 => Some(Self::Publish),
            _ => None,
        }
    }
}

/// One Raft entry. Cheap to clone: both parts are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Term and place of the entry.
    pub log_id: LogId,
    /// What it carries.
    pub kind: FrameKind,
    /// Term of the leader that fixed the content; differs from `log_id.term` in a void frame.
    pub sequencing_term: u64,
    /// Leaf index of the first leaf.
    pub first_leaf: LeafIndex,
    /// How many leaves the frame carries (a void frame carries some and takes none).
    pub count: u32,
    /// What the chain covers: the leaves, or the body of a frame without leaves.
    pub public: Bytes,
    /// What may be erased later: digests, salts, metadata, values.
    pub private: Bytes,
}

impl Frame {
    /// Bytes the frame takes in a file, padding included.
    pub fn length(&self) -> usize {
        padded_length(self.public.len(), self.private.len())
    }

    /// Whether both parts and the count are within the limits a reader checks.
    pub fn check(&self) -> Result<(), FrameError> {
        check_part("public", self.public.len() as u64)?;
        check_part("private", self.private.len() as u64)?;
        check_count(self.count)
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing was written here.
    #[error("no frame: the header is zero")]
    Blank,
    /// The bytes end inside the frame.
    #[error("frame needs {needed} bytes, {found} are left")]
    Short {
        /// Bytes the frame needs.
        needed: u64,
        /// Bytes found.
        found: u64,
    },
    /// Another version of the header.
    #[error("frame version is {found}, allowed {FRAME_VERSION}")]
    Version {
        /// Version found.
        found: u8,
    },
    /// Unknown kind.
    #[error("frame kind is {found:#04x}, allowed 0x10 to 0x13")]
    Kind {
        /// Kind found.
        found: u8,
    },
    /// A field that must be zero is not.
    #[error("reserved field at byte {at} of the header is not zero")]
    Reserved {
        /// Where in the header.
        at: usize,
    },
    /// No frame could follow this one.
    #[error("log index is {found}, allowed below 2^64 - 1")]
    Index {
        /// Index found.
        found: u64,
    },
    /// A part is longer than a frame may be.
    #[error(
        "{part} part has {found} bytes, allowed {}",
        limits::FRAME_PART_LENGTH_MAX
    )]
    PartLength {
        /// `public` or `private`.
        part: &'static str,
        /// Length found.
        found: u64,
    },
    /// More leaves than a frame may carry.
    #[error(
        "frame carries {found} leaves, allowed {}",
        limits::FRAME_OPERATIONS_MAX
    )]
    Count {
        /// Count found.
        found: u32,
    },
    /// Header or public part changed.
    #[error("chain CRC is {found:08x}, computed {computed:08x}")]
    Chain {
        /// CRC in the header.
        found: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// Private part changed.
    #[error("private CRC is {found:08x}, computed {computed:08x}")]
    Private {
        /// CRC in the header.
        found: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// Padding must be zero: a frame has one encoding.
    #[error("padding is not zero")]
    Padding,
}

/// The fields of a header. What the lengths say is within limits; no CRC has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Chain CRC of this frame.
    pub chain: u32,
    /// Kind.
    pub kind: FrameKind,
    /// Log id.
    pub log_id: LogId,
    /// Sequencing term.
    pub sequencing_term: u64,
    /// First leaf index.
    pub first_leaf: LeafIndex,
    /// Leaves.
    pub count: u32,
    /// Bytes of the public part.
    pub public_length: u32,
    /// Chain CRC of the frame before, 0 for the first of the log.
    pub previous_chain: u32,
    /// CRC of bytes 60..64 and the private part.
    pub private_crc: u32,
    /// Bytes of the private part.
    pub private_length: u32,
}

impl FrameHeader {
    /// Parses the first [`HEADER_LENGTH`] bytes of a frame and checks every field against its limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(FrameError::Short {
                needed: HEADER_LENGTH as u64,
                found: bytes.len() as u64,
            });
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(FrameError::Blank);
        }
        if bytes[4] != FRAME_VERSION {
            return Err(FrameError::Version { found: bytes[4] });
        }
        let kind = FrameKind::from_u8(bytes[5]).ok_or(FrameError::Kind { found: bytes[5] })?;
        if bytes[6..8] != [0; 2] {
            return Err(FrameError::Reserved { at: 6 });
        }
        if bytes[40..44] != [0; 4] {
            return Err(FrameError::Reserved { at: 40 });
        }
        let header = Self {
            chain: get_u32(bytes, 0),
            kind,
            log_id: LogId::new(get_u64(bytes, 8), get_u64(bytes, 16)),
            sequencing_term: get_u64(bytes, 24),
            first_leaf: LeafIndex::new(get_u64(bytes, 32)),
            count: get_u32(bytes, 44),
            public_length: get_u32(bytes, 48),
            previous_chain: get_u32(bytes, 52),
            private_crc: get_u32(bytes, 56),
            private_length: get_u32(bytes, 60),
        };
        if header.log_id.index.0 == u64::MAX {
            return Err(FrameError::Index { found: u64::MAX });
        }
        check_part("public", u64::from(header.public_length))?;
        check_part("private", u64::from(header.private_length))?;
        check_count(header.count)?;
        Ok(header)
    }

    /// Bytes the whole frame takes, padding included.
    pub fn total_length(&self) -> usize {
        padded_length(self.public_length as usize, self.private_length as usize)
    }

    /// Where the private part starts, from the start of the frame.
    pub fn private_start(&self) -> usize {
        HEADER_LENGTH + self.public_length as usize
    }
}

/// A frame read back, with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedFrame {
    /// The frame.
    pub frame: Frame,
    /// Its chain CRC.
    pub chain: u32,
    /// The chain CRC of the frame before.
    pub previous_chain: u32,
    /// Bytes it takes, padding included.
    pub length: usize,
}

/// Parses and checks the frame at the start of `bytes`; the parts are slices of `bytes`, nothing is copied.
///
/// The chain to the frame before is the caller's to compare ([`ParsedFrame::previous_chain`]).
pub fn parse(bytes: &Bytes) -> Result<ParsedFrame, FrameError> {
    let header = FrameHeader::parse(bytes)?;
    let length = header.total_length();
    if bytes.len() < length {
        return Err(FrameError::Short {
            needed: length as u64,
            found: bytes.len() as u64,
        });
    }
    let private_start = header.private_start();
    let private_end = private_start + header.private_length as usize;
    check_chain(&header, &bytes[..private_start])?;
    let private = bytes.slice(private_start..private_end);
    let computed = private_crc(&private);
    if computed != header.private_crc {
        return Err(FrameError::Private {
            found: header.private_crc,
            computed,
        });
    }
    if bytes[private_end..length].iter().any(|byte| *byte != 0) {
        return Err(FrameError::Padding);
    }
    Ok(ParsedFrame {
        frame: Frame {
            log_id: header.log_id,
            kind: header.kind,
            sequencing_term: header.sequencing_term,
            first_leaf: header.first_leaf,
            count: header.count,
            public: bytes.slice(HEADER_LENGTH..private_start),
            private,
        },
        chain: header.chain,
        previous_chain: header.previous_chain,
        length,
    })
}

/// Checks the chain CRC of `header` against the bytes of header and public part.
pub fn check_chain(header: &FrameHeader, header_and_public: &[u8]) -> Result<(), FrameError> {
    let fields = header_and_public.get(4..56).unwrap_or_default();
    let public = header_and_public.get(HEADER_LENGTH..).unwrap_or_default();
    let computed = crc32c::crc32c_append(crc32c::crc32c(fields), public);
    if computed != header.chain {
        return Err(FrameError::Chain {
            found: header.chain,
            computed,
        });
    }
    Ok(())
}

/// The CRC kept in the header for the private part: its length, then its bytes.
pub fn private_crc(private: &[u8]) -> u32 {
    let length = crc32c::crc32c(&(private.len() as u32).to_be_bytes());
    crc32c::crc32c_append(length, private)
}

/// The header of a frame that follows the frame whose chain CRC is `previous_chain` (0 for the first of the log), and
/// its own chain CRC.
pub fn encode_header(frame: &Frame, previous_chain: u32) -> ([u8; HEADER_LENGTH], u32) {
    encode_header_with(frame, previous_chain, private_crc(&frame.private))
}

/// [`encode_header`] with the private CRC computed beforehand, outside a lock.
pub(crate) fn encode_header_with(
    frame: &Frame,
    previous_chain: u32,
    private_crc: u32,
) -> ([u8; HEADER_LENGTH], u32) {
    let mut header = [0; HEADER_LENGTH];
    header[4] = FRAME_VERSION;
    header[5] = frame.kind as u8;
    header[8..16].copy_from_slice(&frame.log_id.term.to_be_bytes());
    header[16..24].copy_from_slice(&frame.log_id.index.0.to_be_bytes());
    header[24..32].copy_from_slice(&frame.sequencing_term.to_be_bytes());
    header[32..40].copy_from_slice(&frame.first_leaf.get().to_be_bytes());
    header[44..48].copy_from_slice(&frame.count.to_be_bytes());
    header[48..52].copy_from_slice(&(frame.public.len() as u32).to_be_bytes());
    header[52..56].copy_from_slice(&previous_chain.to_be_bytes());
    header[56..60].copy_from_slice(&private_crc.to_be_bytes());
    header[60..64].copy_from_slice(&(frame.private.len() as u32).to_be_bytes());
    let chain = crc32c::crc32c_append(crc32c::crc32c(&header[4..56]), &frame.public);
    header[..4].copy_from_slice(&chain.to_be_bytes());
    (header, chain)
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FramePosition {
    /// Segment number, 0-based.
    pub segment: u32,
    /// Bytes from the start of the segment file to the frame's header.
    pub offset: u32,
    /// Bytes the frame takes, padding included.
    pub length: u32,
}

fn padded_length(public: usize, private: usize) -> usize {
    (HEADER_LENGTH + public + private).next_multiple_of(8)
}

fn check_part(part: &'static str, found: u64) -> Result<(), FrameError> {
    if found > limits::FRAME_PART_LENGTH_MAX as u64 {
        return Err(FrameError::PartLength { part, found });
    }
    Ok(())
}

fn check_count(found: u32) -> Result<(), FrameError> {
    if found as usize > limits::FRAME_OPERATIONS_MAX {
        return Err(FrameError::Count { found });
    }
    Ok(())
}

fn get_u32(bytes: &[u8; HEADER_LENGTH], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn get_u64(bytes: &[u8; HEADER_LENGTH], at: usize) -> u64 {
    u64::from(get_u32(bytes, at)) << 32 | u64::from(get_u32(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(public: Vec<u8>, private: Vec<u8>) -> Frame {
        Frame {
            log_id: LogId::new(3, 7),
            kind: FrameKind::Entries,
            sequencing_term: 3,
            first_leaf: LeafIndex::new(100),
            count: 2,
            public: public.into(),
            private: private.into(),
        }
    }

    fn bytes_of(frame: &Frame, previous: u32) -> Vec<u8> {
        let (header, _) = encode_header(frame, previous);
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&frame.public);
        bytes.extend_from_slice(&frame.private);
        bytes.resize(frame.length(), 0);
        bytes
    }

    #[test]
    fn the_chain_leaves_the_private_part_out() {
        let (_, full) = encode_header(&frame(vec![1; 9], vec![2; 30]), 5);
        let (_, erased) = encode_header(&frame(vec![1; 9], vec![]), 5);
        let (_, other) = encode_header(&frame(vec![1; 9], vec![]), 6);
        assert_eq!(full, erased);
        assert_ne!(full, other);
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_read() {
        let mut bytes = bytes_of(&frame(vec![], vec![]), 0);
        bytes[48..52].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            parse(&bytes.into()),
            Err(FrameError::PartLength { part: "public", .. })
        ));
        let mut bytes = bytes_of(&frame(vec![], vec![]), 0);
        bytes[44..48].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            parse(&bytes.into()),
            Err(FrameError::Count { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(
            public in prop::collection::vec(any::<u8>(), 0..700),
            private in prop::collection::vec(any::<u8>(), 0..700),
            previous in any::<u32>(),
        ) {
            let frame = frame(public, private);
            let bytes: Bytes = bytes_of(&frame, previous).into();
            let parsed = parse(&bytes).unwrap();
            prop_assert_eq!(&parsed.frame, &frame);
            prop_assert_eq!(parsed.previous_chain, previous);
            prop_assert_eq!(parsed.length, bytes.len());
            prop_assert_eq!(parsed.length % 8, 0);
        }

        #[test]
        fn a_changed_byte_is_always_noticed(
            public in prop::collection::vec(any::<u8>(), 0..100),
            private in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            mask in 1..=255u8,
        ) {
            let mut bytes = bytes_of(&frame(public, private), 9);
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            prop_assert!(parse(&bytes.into()).is_err());
        }

        #[test]
        fn a_cut_is_always_noticed(
            public in prop::collection::vec(any::<u8>(), 0..100),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes_of(&frame(public, vec![1; 20]), 9);
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(parse(&bytes.into()).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes.into());
        }
    }
}
