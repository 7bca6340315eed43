//! A segment file: a header, consecutive frames and, once sealed, a footer. Byte maps in `docs/format-log.md`.
//!
//! Everything in a sealed segment is a function of the committed log (and of the cluster id, which all members share),
//! so the file is byte-identical on every node: nothing local may ever be added here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;

use super::frame::{FrameHeader, FrameKind, LogId, LogIndex};
use crate::limits::MIB;

/// Bytes of a segment header.
pub const SEGMENT_HEADER_LENGTH: usize = 64;
/// Newest segment format this release reads.
pub const SEGMENT_FORMAT: u32 = 1;
/// Most bytes a footer may declare.
pub const FOOTER_LENGTH_MAX: usize = 16 * MIB;
/// Most bytes of an encoded membership in a footer.
pub const MEMBERSHIP_LENGTH_MAX: usize = MIB;
/// A sparse entry follows the last one after this many leaves …
pub const SPARSE_LEAVES: u64 = 256;
/// … or this many bytes, whichever comes first.
pub const SPARSE_BYTES: u64 = 256 * 1_024;
/// File being allocated ahead; becomes the next segment by a rename.
pub const NEXT_NAME: &str = "next.seg";

const HEADER_MAGIC: &[u8; 8] = b"SCRSEG1\n";
const FOOTER_MAGIC: &[u8; 8] = b"SCRFOOT1";
const TRAILER_MAGIC: &[u8; 8] = b"SCRFEND1";
const FOOTER_FIXED: usize = 240;
const SPARSE_LENGTH: usize = 24;
/// Bytes at the end of the file from which the footer is found.
pub const TRAILER_LENGTH: usize = 16;

/// File name of the segment whose first frame has this log index.
pub fn file_name(first: LogIndex) -> String {
    format!("{:016x}.seg", first.0)
}

/// Path of the segment whose first frame has this log index.
pub fn file_path(log_dir: &Path, first: LogIndex) -> PathBuf {
    log_dir.join(file_name(first))
}

/// First log index a segment's file name stands for; `None` for other files.
pub fn parse_file_name(name: &str) -> Option<LogIndex> {
    let digits = name.strip_suffix(".seg")?;
    let lower = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if digits.len() != 16 || !lower {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(LogIndex)
}

/// Why bytes are not a segment header or footer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// All zero: allocated, never written.
    #[error("nothing was written here")]
    Blank,
    /// A later format.
    #[error("segment format is {found}, allowed up to {SEGMENT_FORMAT}")]
    Newer {
        /// Format found.
        found: u32,
    },
    /// Anything else.
    #[error("{0}")]
    Damaged(String),
}

/// First bytes of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Segment number, 0-based.
    pub number: u32,
    /// Log index of its first frame.
    pub first_log_index: LogIndex,
    /// Whose ledger this is.
    pub cluster_id: [u8; 16],
    /// Chain CRC of the last frame of the segment before; 0 in the first segment.
    pub previous_chain: u32,
}

impl SegmentHeader {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LENGTH] {
        let mut bytes = [0; SEGMENT_HEADER_LENGTH];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&self.number.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.previous_chain.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.first_log_index.0.to_be_bytes());
        bytes[24..40].copy_from_slice(&self.cluster_id);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Parses a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_LENGTH>() else {
            if bytes.iter().all(|byte| *byte == 0) {
                return Err(SegmentError::Blank);
            }
            return Err(SegmentError::Damaged(format!(
                "segment header is {} bytes, needs {SEGMENT_HEADER_LENGTH}",
                bytes.len()
            )));
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(SegmentError::Blank);
        }
        check_magic(bytes, HEADER_MAGIC, 6)?;
        let mut reader = Reader { bytes: &bytes[8..] };
        let number = reader.u32()?;
        let previous_chain = reader.u32()?;
        let first_log_index = LogIndex(reader.u64()?);
        let cluster_id = reader.array()?;
        reader.skip(20)?;
        let (found, computed) = (reader.u32()?, crc32c::crc32c(&bytes[..60]));
        if found != computed {
            return Err(SegmentError::Damaged(format!(
                "segment header CRC is {found:08x}, computed {computed:08x}"
            )));
        }
        Ok(Self {
            number,
            first_log_index,
            cluster_id,
            previous_chain,
        })
    }
}

/// State of the ledger around a segment, from whoever applied its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterState {
    /// Tree size before the first frame.
    pub start_size: TreeSize,
    /// Root hash at `start_size`.
    pub start_root: Hash,
    /// Tree size after the last frame.
    pub end_size: TreeSize,
    /// Root hash at `end_size`.
    pub end_root: Hash,
    /// Log id of the last frame of the segment.
    pub last_log_id: LogId,
    /// Last applied membership, encoded by the consensus layer together with its own log id.
    pub membership: Bytes,
    /// Timestamp of the last leaf, milliseconds since the epoch.
    pub last_timestamp_ms: u64,
    /// Last tree head agreed at or before the end of the segment.
    pub published: (TreeSize, Hash),
}

/// One step of the table that finds a frame in a segment without reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseEntry {
    /// Log index of the frame.
    pub log_index: LogIndex,
    /// Tree size before the frame.
    pub first_leaf: u64,
    /// Bytes from the start of the file to the frame's header.
    pub offset: u32,
}

/// A sealed segment.
///
/// Invariants: `file_length` is `body_length` plus the length of the footer; `sparse` is empty (the footer was
/// unreadable and the MANIFEST vouched for it) or starts at the first frame and its indexes and offsets increase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Segment number, 0-based.
    pub number: u32,
    /// 0, or how many times private bytes were erased from it.
    pub generation: u32,
    /// Log index of the first frame.
    pub first_log_index: LogIndex,
    /// Log id of the last frame.
    pub last_log_id: LogId,
    /// Chain CRC of the last frame.
    pub last_chain: u32,
    /// How many frames.
    pub frame_count: u32,
    /// Bytes of header and frames; the footer starts here.
    pub body_length: u64,
    /// Bytes of the file.
    pub file_length: u64,
    /// SHA-256 of the first `body_length` bytes.
    pub body_sha256: Hash,
    /// Whose ledger this is.
    pub cluster_id: [u8; 16],
    /// State of the ledger before and after.
    pub footer: FooterState,
    /// Sparse table.
    pub sparse: Arc<[SparseEntry]>,
}

impl SealedSegment {
    /// Whether the frame with this log index is in the segment.
    pub fn contains(&self, index: LogIndex) -> bool {
        self.first_log_index <= index && index <= self.last_log_id.index
    }

    /// The footer as it lies at the end of the file.
    pub fn encode_footer(&self) -> Bytes {
        self.encode(&self.sparse)
    }

    /// What the MANIFEST keeps of a segment and nodes tell each other of it: the length of the file, then the footer
    /// without its sparse table.
    pub fn encode_summary(&self) -> Bytes {
        let footer = self.encode(&[]);
        let mut out = BytesMut::with_capacity(8 + footer.len());
        out.put_u64(self.file_length);
        out.put_slice(&footer);
        out.freeze()
    }

    /// Parses what [`SealedSegment::encode_summary`] made. The sparse table of the result is empty.
    pub fn parse_summary(bytes: &[u8]) -> Result<Self, SegmentError> {
        let Some((length, footer)) = bytes.split_first_chunk::<8>() else {
            return Err(damaged(format!(
                "segment summary is {} bytes, too short",
                bytes.len()
            )));
        };
        let mut sealed = Self::parse_footer(footer)?;
        sealed.file_length = u64::from_be_bytes(*length);
        Ok(sealed)
    }

    /// Whether both describe the same file. The sparse table is not compared: it follows from the rest.
    pub fn is_same(&self, other: &Self) -> bool {
        let other = Self {
            sparse: self.sparse.clone(),
            ..other.clone()
        };
        *self == other
    }

    fn encode(&self, sparse: &[SparseEntry]) -> Bytes {
        let state = &self.footer;
        let variable = state.membership.len().next_multiple_of(8) + sparse.len() * SPARSE_LENGTH;
        let length = FOOTER_FIXED + variable + TRAILER_LENGTH;
        let mut out = BytesMut::with_capacity(length);
        out.put_slice(FOOTER_MAGIC);
        out.put_u32(self.number);
        out.put_u32(self.generation);
        out.put_u64(self.first_log_index.0);
        out.put_u64(self.last_log_id.term);
        out.put_u64(self.last_log_id.index.0);
        out.put_u32(self.last_chain);
        out.put_u32(self.frame_count);
        out.put_u64(self.body_length);
        out.put_slice(&self.body_sha256.0);
        out.put_u64(state.start_size.get());
        out.put_slice(&state.start_root.0);
        out.put_u64(state.end_size.get());
        out.put_slice(&state.end_root.0);
        out.put_u64(state.last_timestamp_ms);
        out.put_u64(state.published.0.get());
        out.put_slice(&state.published.1.0);
        out.put_u32(state.membership.len() as u32);
        out.put_u32(sparse.len() as u32);
        out.put_slice(&self.cluster_id);
        debug_assert_eq!(out.len(), FOOTER_FIXED);
        out.put_slice(&state.membership);
        out.put_bytes(
            0,
            state.membership.len().next_multiple_of(8) - state.membership.len(),
        );
        for entry in sparse {
            out.put_u64(entry.log_index.0);
            out.put_u64(entry.first_leaf);
            out.put_u32(entry.offset);
            out.put_u32(0);
        }
        out.put_u32(length as u32);
        out.put_u32(crc32c::crc32c(&out));
        out.put_slice(TRAILER_MAGIC);
        out.freeze()
    }

    /// Parses a footer: all of its bytes, from its magic to the end of the trailer.
    pub fn parse_footer(bytes: &[u8]) -> Result<Self, SegmentError> {
        let length = parse_trailer(bytes)?;
        if length != bytes.len() {
            return Err(damaged(format!(
                "footer has {} bytes, declares {length}",
                bytes.len()
            )));
        }
        check_magic(bytes, FOOTER_MAGIC, 7)?;
        let crc_at = length - TRAILER_LENGTH + 4;
        let computed = crc32c::crc32c(&bytes[..crc_at]);
        let mut reader = Reader {
            bytes: &bytes[crc_at..],
        };
        let found = reader.u32()?;
        if found != computed {
            return Err(damaged(format!(
                "footer CRC is {found:08x}, computed {computed:08x}"
            )));
        }
        let mut reader = Reader {
            bytes: &bytes[8..length - TRAILER_LENGTH],
        };
        let number = reader.u32()?;
        let generation = reader.u32()?;
        let first_log_index = LogIndex(reader.u64()?);
        let last_log_id = LogId {
            term: reader.u64()?,
            index: LogIndex(reader.u64()?),
        };
        if last_log_id.index < first_log_index || last_log_id.index.0 == u64::MAX {
            return Err(damaged(format!(
                "log indexes are {first_log_index} to {}, allowed ascending and below 2^64 - 1",
                last_log_id.index
            )));
        }
        let last_chain = reader.u32()?;
        let frame_count = reader.u32()?;
        let body_length = reader.u64()?;
        let body_sha256 = Hash(reader.array()?);
        let start_size = TreeSize::new(reader.u64()?);
        let start_root = Hash(reader.array()?);
        let end_size = TreeSize::new(reader.u64()?);
        let end_root = Hash(reader.array()?);
        let last_timestamp_ms = reader.u64()?;
        let published = (TreeSize::new(reader.u64()?), Hash(reader.array()?));
        let membership_length = reader.u32()? as usize;
        let sparse_count = reader.u32()? as usize;
        let cluster_id = reader.array()?;
        if membership_length > MEMBERSHIP_LENGTH_MAX {
            return Err(damaged(format!(
                "membership has {membership_length} bytes, allowed {MEMBERSHIP_LENGTH_MAX}"
            )));
        }
        let membership = Bytes::copy_from_slice(reader.take(membership_length)?);
        reader.skip(membership_length.next_multiple_of(8) - membership_length)?;
        if reader.bytes.len() != sparse_count.saturating_mul(SPARSE_LENGTH) {
            return Err(damaged(format!(
                "sparse table has {} bytes, declares {sparse_count} entries",
                reader.bytes.len()
            )));
        }
        let mut sparse = Vec::with_capacity(sparse_count);
        for _ in 0..sparse_count {
            sparse.push(SparseEntry {
                log_index: LogIndex(reader.u64()?),
                first_leaf: reader.u64()?,
                offset: reader.u32()?,
            });
            reader.skip(4)?;
        }
        Ok(Self {
            number,
            generation,
            first_log_index,
            last_log_id,
            last_chain,
            frame_count,
            body_length,
            file_length: body_length.saturating_add(length as u64),
            body_sha256,
            cluster_id,
            footer: FooterState {
                start_size,
                start_root,
                end_size,
                end_root,
                last_log_id,
                membership,
                last_timestamp_ms,
                published,
            },
            sparse: sparse.into(),
        })
    }
}

/// Length of the footer whose last [`TRAILER_LENGTH`] bytes end `bytes`.
pub fn parse_trailer(bytes: &[u8]) -> Result<usize, SegmentError> {
    let Some(trailer) = bytes.last_chunk::<TRAILER_LENGTH>() else {
        return Err(damaged(format!(
            "footer is {} bytes, too short",
            bytes.len()
        )));
    };
    check_magic(&trailer[8..], TRAILER_MAGIC, 7)?;
    let length = Reader { bytes: trailer }.u32()? as usize;
    if !(FOOTER_FIXED + TRAILER_LENGTH..=FOOTER_LENGTH_MAX).contains(&length) {
        return Err(damaged(format!(
            "footer declares {length} bytes, allowed {} to {FOOTER_LENGTH_MAX}",
            FOOTER_FIXED + TRAILER_LENGTH
        )));
    }
    Ok(length)
}

/// Collects the sparse table while frames pass by in order.
#[derive(Debug)]
pub struct SparseBuilder {
    entries: Vec<SparseEntry>,
    size: u64,
}

impl SparseBuilder {
    /// Starts at the tree size before the segment.
    pub fn new(start_size: TreeSize) -> Self {
        Self {
            entries: Vec::new(),
            size: start_size.get(),
        }
    }

    /// The next frame and where it lies.
    ///
    /// A void frame takes no leaves: a frame takes them if its sequencing term is the term of its own log id and its
    /// first leaf index is the tree size before it.
    pub fn push(&mut self, header: &FrameHeader, offset: u32) {
        let due = self.entries.last().is_none_or(|last| {
            self.size - last.first_leaf >= SPARSE_LEAVES
                || u64::from(offset - last.offset) >= SPARSE_BYTES
        });
        if due {
            self.entries.push(SparseEntry {
                log_index: header.log_id.index,
                first_leaf: self.size,
                offset,
            });
        }
        if header.kind == FrameKind::Entries
            && header.sequencing_term == header.log_id.term
            && header.first_leaf.get() == self.size
        {
            self.size += u64::from(header.count);
        }
    }

    /// Tree size after the last frame, and the table.
    pub fn finish(self) -> (TreeSize, Arc<[SparseEntry]>) {
        (TreeSize::new(self.size), self.entries.into())
    }
}

fn damaged(reason: String) -> SegmentError {
    SegmentError::Damaged(reason)
}

/// Compares a magic whose byte at `digit` is the version, so that a later format is told from damage.
fn check_magic(bytes: &[u8], magic: &[u8; 8], digit: usize) -> Result<(), SegmentError> {
    let found = bytes.get(..8).unwrap_or(bytes);
    if found == magic {
        return Ok(());
    }
    if found.get(..digit) == Some(&magic[..digit])
        && let Some(version @ b'2'..=b'9') = found.get(digit)
    {
        return Err(SegmentError::Newer {
            found: u32::from(version - b'0'),
        });
    }
    Err(damaged(format!(
        "magic is {found:02x?}, allowed {magic:02x?}"
    )))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SegmentError> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            return Err(damaged(format!(
                "ends {} bytes early",
                count - self.bytes.len()
            )));
        };
        self.bytes = tail;
        Ok(head)
    }

    fn skip(&mut self, count: usize) -> Result<(), SegmentError> {
        if self.take(count)?.iter().any(|byte| *byte != 0) {
            return Err(damaged("reserved bytes are not zero".into()));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, SegmentError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SegmentError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use scribe_proof::index::LeafIndex;

    fn sealed(sparse: usize, membership: usize) -> SealedSegment {
        let mut sealed = SealedSegment {
            number: 4,
            generation: 0,
            first_log_index: LogIndex(70),
            last_log_id: LogId::new(3, 99),
            last_chain: 0xdead_beef,
            frame_count: 30,
            body_length: 4_096,
            file_length: 4_096,
            body_sha256: Hash([9; 32]),
            cluster_id: [7; 16],
            footer: FooterState {
                start_size: TreeSize::new(100),
                start_root: Hash([1; 32]),
                end_size: TreeSize::new(900),
                end_root: Hash([2; 32]),
                last_log_id: LogId::new(3, 99),
                membership: vec![5; membership].into(),
                last_timestamp_ms: 1_234,
                published: (TreeSize::new(50), Hash([3; 32])),
            },
            sparse: (0..sparse as u32)
                .map(|i| SparseEntry {
                    log_index: LogIndex(70 + u64::from(i)),
                    first_leaf: 100,
                    offset: 64 + i * 80,
                })
                .collect(),
        };
        sealed.file_length += sealed.encode_footer().len() as u64;
        sealed
    }

    #[test]
    fn a_footer_is_read_back_and_every_flip_and_cut_is_refused() {
        let sealed = sealed(5, 13);
        let bytes = sealed.encode_footer();
        assert_eq!(parse_trailer(&bytes).unwrap(), bytes.len());
        assert_eq!(SealedSegment::parse_footer(&bytes).unwrap(), sealed);
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x21;
            assert!(SealedSegment::parse_footer(&changed).is_err(), "byte {at}");
            assert!(
                SealedSegment::parse_footer(&bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_header_is_read_back_and_every_flip_is_refused() {
        let header = SegmentHeader {
            number: 3,
            first_log_index: LogIndex(u64::MAX / 2),
            cluster_id: [8; 16],
            previous_chain: 77,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::parse(&bytes).unwrap(), header);
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 0x80;
            assert!(matches!(
                SegmentHeader::parse(&changed),
                Err(SegmentError::Damaged(_))
            ));
        }
        let mut newer = bytes;
        newer[6] = b'2';
        assert_eq!(
            SegmentHeader::parse(&newer),
            Err(SegmentError::Newer { found: 2 })
        );
        assert_eq!(SegmentHeader::parse(&[0; 64]), Err(SegmentError::Blank));
    }

    #[test]
    fn names_are_what_they_stand_for() {
        assert_eq!(
            parse_file_name(&file_name(LogIndex(0x1f))),
            Some(LogIndex(0x1f))
        );
        for name in [
            NEXT_NAME,
            "1.seg",
            "000000000000001F.seg",
            "+00000000000001f.seg",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_sparse_table_counts_only_leaves_that_were_taken() {
        let header = |index: u64, first: u64, count: u32, sequencing_term: u64| FrameHeader {
            chain: 0,
            kind: FrameKind::Entries,
            log_id: LogId::new(2, index),
            sequencing_term,
            first_leaf: LeafIndex::new(first),
            count,
            public_length: 0,
            previous_chain: 0,
            private_crc: 0,
            private_length: 0,
        };
        let mut builder = SparseBuilder::new(TreeSize::new(10));
        builder.push(&header(0, 10, 300, 2), 64);
        builder.push(&header(1, 310, 5, 1), 128); // void: of another term
        builder.push(&header(2, 311, 5, 2), 192); // void: does not fit
        builder.push(&header(3, 310, 5, 2), 192 + SPARSE_BYTES as u32);
        let (size, table) = builder.finish();
        assert_eq!(size, TreeSize::new(315));
        let found: Vec<_> = table
            .iter()
            .map(|e| (e.log_index.0, e.first_leaf))
            .collect();
        assert_eq!(found, [(0, 10), (1, 310), (3, 310)]);
    }

    proptest! {
        #[test]
        fn footers_of_any_shape_are_read_back(sparse in 0..40_usize, membership in 0..40_usize) {
            let sealed = sealed(sparse, membership);
            prop_assert_eq!(SealedSegment::parse_footer(&sealed.encode_footer()).unwrap(), sealed);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SealedSegment::parse_footer(&bytes).is_err());
            let _ = SegmentHeader::parse(&bytes);
        }
    }
}
