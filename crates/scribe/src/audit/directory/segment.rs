//! One sealed segment: everything that its file says, derived again, without looking at any other.
//!
//! Segments are checked side by side; what one says about the next is compared when they are put in order.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_proof::hash::Hash;
use scribe_proof::leaf::{LeafKind, Prev};
use scribe_proof::{LeafIndex, TreeSize};
use sha2::{Digest as _, Sha256};

use super::derived::{IndexCopy, TreeReader};
use super::frames::{Frames, locate};
use crate::audit::entries::EntryRules;
use crate::audit::lineage::disagreement;
use crate::audit::{AuditError, Finding};
use crate::ledger::batch::Batch;
use crate::store::frame::{FrameHeader, FrameKind, FramePosition, LogId, LogIndex, ParsedFrame};
use crate::store::index::{encode_version, version_key_into};
use crate::store::segment::{
    SEGMENT_HEADER_LENGTH, SealedSegment, SegmentHeader, SparseBuilder, SparseEntry,
};
use crate::store::view::indexed_key;
use crate::store::{Remembered, Version, takes_leaves};

/// A tree head that the nodes agreed on, as a frame has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) size: TreeSize,
    pub(super) root: Hash,
    /// Tree size when it was agreed.
    pub(super) at_size: TreeSize,
    /// Where its frame is.
    pub(super) offset: u64,
}

/// What follows frame by frame, in sealed segments and behind them.
pub(super) struct FrameRules<'a> {
    pub(super) name: &'a str,
    /// Log id and chain CRC of the frame before.
    pub(super) previous: Option<(LogId, u32)>,
    pub(super) tree_size: TreeSize,
    pub(super) entries: EntryRules,
    pub(super) hashes: Vec<Hash>,
    pub(super) heads: Vec<Head>,
    /// As a footer has it: the last membership with the log id of its frame.
    pub(super) membership: Option<Bytes>,
    pub(super) frames: u32,
    /// Of a sealed segment: its number, and what the versions in it add up to in the index.
    pub(super) in_index: Option<(u32, &'a RandomState)>,
    pub(super) sum: u64,
    /// Reused between entries: an index key is put together in it.
    pub(super) index_key: Vec<u8>,
    /// Of which entries [`FrameRules::claims`] are kept.
    pub(super) keep: Keep,
    /// What entries say about the version of their key before them.
    pub(super) claims: Vec<Claim>,
}

/// Whose claims are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nobody's: there is nothing to compare them with.
    None,
    /// Of entries that claim something.
    Asserted,
    /// Of every entry that is a version of a key.
    All,
}

/// What an entry says about the version of its key before it.
pub(super) struct Claim {
    pub(super) index: LeafIndex,
    pub(super) key: Vec<u8>,
    pub(super) prev: Prev,
    /// Where its leaf is in the file.
    pub(super) offset: u64,
}

impl Claim {
    /// Compares it with the version before.
    pub(super) fn compare(&self, name: &str, before: Option<LeafIndex>) -> Result<(), Finding> {
        match disagreement(self.prev, before) {
            None => Ok(()),
            Some(reason) => Err(Finding::new(name, reason)
                .at(self.offset)
                .entry(self.index.get())
                .key(&self.key)),
        }
    }
}

impl<'a> FrameRules<'a> {
    /// Checks that a good frame belongs here, and everything in it. Returns its entries, unless it has none or is void.
    pub(super) fn frame(
        &mut self,
        offset: u64,
        raw: &Bytes,
        parsed: &ParsedFrame,
    ) -> Result<Option<Batch>, Finding> {
        let frame = &parsed.frame;
        let first = self.tree_size;
        let wrong = |reason: String| {
            Finding::new(self.name, reason)
                .at(offset)
                .entry(first.get())
        };
        if let Some((last, chain)) = self.previous {
            if parsed.previous_chain != chain {
                return Err(wrong(format!(
                    "the frame follows chain CRC {:08x}, the frame before has {chain:08x}",
                    parsed.previous_chain
                )));
            }
            if frame.log_id.index != last.index.next() || frame.log_id.term < last.term {
                return Err(wrong(format!(
                    "log id is {}, the frame before has {last}",
                    frame.log_id
                )));
            }
        }
        self.previous = Some((frame.log_id, parsed.chain));
        self.frames += 1;
        match frame.kind {
            FrameKind::Blank => Ok(None),
            FrameKind::Membership => {
                let mut stored = vec![1];
                stored.extend_from_slice(&frame.log_id.term.to_be_bytes());
                stored.extend_from_slice(&frame.log_id.index.0.to_be_bytes());
                stored.extend_from_slice(&frame.public);
                self.membership = Some(stored.into());
                Ok(None)
            }
            FrameKind::Publish => {
                let Some((size, root)) = frame.public.split_first_chunk::<8>() else {
                    return Err(wrong("an agreed tree head has 40 bytes".into()));
                };
                let size = TreeSize::new(u64::from_be_bytes(*size));
                let root = Hash::try_from(root)
                    .map_err(|_| wrong("an agreed tree head has 40 bytes".into()))?;
                if size > first {
                    return Err(wrong(format!(
                        "the nodes agreed on tree size {size} when there were {first} entries"
                    )));
                }
                self.heads.push(Head {
                    size,
                    root,
                    at_size: first,
                    offset,
                });
                Ok(None)
            }
            FrameKind::Entries => {
                let takes_leaves = takes_leaves(
                    frame.kind,
                    frame.log_id.term,
                    frame.sequencing_term,
                    frame.first_leaf,
                    first,
                );
                if !takes_leaves || frame.count == 0 {
                    return Ok(None);
                }
                let (public, private) = (frame.public.clone(), frame.private.clone());
                let batch = Batch::parse(frame.count as usize, public, private)
                    .map_err(|error| wrong(error.to_string()))?;
                self.batch(offset, raw, &batch)?;
                Ok(Some(batch))
            }
        }
    }

    fn batch(&mut self, offset: u64, raw: &Bytes, batch: &Batch) -> Result<(), Finding> {
        for slot in 0..batch.count() {
            let index = self.tree_size.get();
            let bytes = batch.leaf_bytes(slot).unwrap_or_default();
            let within = bytes.as_ptr() as usize - raw.as_ptr() as usize;
            let checked = self.entries.leaf(bytes).and_then(|leaf| {
                self.entries.opening(&leaf, batch.opening(slot))?;
                let keep = match self.keep {
                    Keep::None => false,
                    Keep::Asserted => leaf.prev != Prev::NotAsserted,
                    Keep::All => true,
                };
                if keep && leaf.kind != LeafKind::System {
                    self.claims.push(Claim {
                        index: LeafIndex::new(index),
                        key: leaf.key.to_vec(),
                        prev: leaf.prev,
                        offset: offset + within as u64,
                    });
                }
                if let Some((segment, hasher)) = self.in_index {
                    let version = Version {
                        index: LeafIndex::new(index),
                        kind: leaf.kind,
                        position: FramePosition {
                            segment,
                            offset: offset as u32,
                            length: raw.len() as u32,
                        },
                        slot: slot as u16,
                    };
                    let key = indexed_key(leaf.kind, leaf.key);
                    version_key_into(key, version.index, &mut self.index_key);
                    let record = encode_version(&version);
                    let print = record_fingerprint(hasher, &self.index_key, &record);
                    self.sum = self.sum.wrapping_add(print);
                }
                Ok(scribe_proof::leaf_hash(bytes))
            });
            let hash = checked.map_err(|broken| {
                Finding::new(self.name, broken.reason)
                    .at(offset + within as u64)
                    .entry(index)
                    .key(&broken.key)
            })?;
            self.hashes.push(hash);
            self.tree_size = self.tree_size.grown_by(1);
        }
        match self.entries.open_transaction() {
            Some(reason) => Err(Finding::new(self.name, reason)
                .at(offset)
                .entry(self.tree_size.get())),
            None => Ok(()),
        }
    }
}

/// Every idempotency key of a frame that may still be asked for must be found, or a newer write under it. `first` is the
/// tree size before the frame.
fn remembered(
    batch: &Batch,
    first: TreeSize,
    index: &IndexCopy,
    oldest_ms: u64,
) -> Result<(), AuditError> {
    for digest in batch.digests() {
        let leaf = batch.leaf(usize::from(digest.first)).unwrap_or_default();
        let timestamp_ms = scribe_proof::Leaf::parse(&leaf).map_or(0, |leaf| leaf.timestamp_ms);
        if timestamp_ms < oldest_ms {
            continue;
        }
        let expected = Remembered {
            first: LeafIndex::new(first.get() + u64::from(digest.first)),
            count: digest.count,
            fingerprint: digest.fingerprint,
            timestamp_ms,
        };
        let found = index.remembered(&digest.key_hash)?;
        if !found.is_some_and(|found| found == expected || found.first > expected.first) {
            return Err(IndexCopy::finding(format!(
                "the idempotency key of entry {} gives {found:?}",
                expected.first
            ))
            .entry(expected.first.get())
            .into());
        }
    }
    Ok(())
}

/// What is added up to compare an index with the entries: its records as they are stored, so that none has to be taken
/// apart. Random per run, so that nothing can be made to add up.
pub(super) fn record_fingerprint(hasher: &RandomState, index_key: &[u8], record: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    // The record first: it has one length, so where the key begins is no question.
    state.write(record);
    // Whole words from here on: a record is a byte short of two.
    state.write_u8(0);
    state.write(index_key);
    state.finish()
}

/// A sealed segment to look at.
pub(super) struct Job {
    /// The file.
    pub(super) path: PathBuf,
    /// The same, relative to the data directory.
    pub(super) name: String,
    /// What the MANIFEST says of it.
    pub(super) sealed: SealedSegment,
    /// Log id and chain CRC of the last frame of the segment before.
    pub(super) previous: Option<(LogId, u32)>,
}

/// What the file of a sealed segment says.
pub(super) struct Facts {
    pub(super) hashes: Vec<Hash>,
    pub(super) heads: Vec<Head>,
    pub(super) membership: Option<Bytes>,
    pub(super) entries: EntryRules,
    pub(super) last: Option<(LogId, u32)>,
    pub(super) frames: u32,
    pub(super) end_size: TreeSize,
    pub(super) body_sha256: Hash,
    pub(super) sparse: Arc<[SparseEntry]>,
    /// The bytes behind the body.
    pub(super) footer: Vec<u8>,
    /// Sum over the versions the index must have.
    pub(super) sum: u64,
    /// An entry that differs from the index, which may itself be what is wrong.
    pub(super) doubt: Option<Finding>,
}

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) tree: &'a TreeReader,
    pub(super) index: Option<&'a IndexCopy>,
    pub(super) hasher: &'a RandomState,
    pub(super) oldest_ms: u64,
    /// Told how many bytes were read.
    pub(super) read: &'a (dyn Fn(u64) + Sync),
    /// Memory of segments that were taken in, for the hashes of those to come.
    pub(super) spare: Mutex<Vec<Vec<Hash>>>,
}

impl Shared<'_> {
    fn room(&self) -> Vec<Hash> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Lets the memory be used again.
    pub(super) fn give_back(&self, mut hashes: Vec<Hash>) {
        hashes.clear();
        self.spare.lock().push(hashes);
    }
}

impl Job {
    /// Reads the file from its first to its last byte.
    ///
    /// # Errors
    /// The first thing that does not hold, or what the disk cannot read.
    pub(super) fn run(&self, shared: &Shared<'_>) -> Result<Facts, AuditError> {
        let (name, sealed) = (self.name.as_str(), &self.sealed);
        let file = open_file(&self.path, name)?;
        let length = file
            .metadata()
            .map_err(|error| AuditError::io(name, &error))?
            .len();
        if length != sealed.file_length || sealed.body_length > length {
            let reason = format!(
                "the file has {length} bytes, the MANIFEST says {}",
                sealed.file_length
            );
            return Err(Finding::new(name, reason)
                .at(length.min(sealed.file_length))
                .entry(sealed.footer.start_size.get())
                .into());
        }
        let header = read_header(&file, name, length)?;
        let wanted = SegmentHeader {
            number: sealed.number,
            first_log_index: sealed.first_log_index,
            cluster_id: sealed.cluster_id,
            previous_chain: self.previous.map_or(0, |(_, chain)| chain),
        };
        expect_header(name, &header, &wanted)?;

        let mut sha256 = Sha256::new();
        sha256.update(&header);
        let mut rules = FrameRules {
            name,
            previous: self.previous.or_else(|| before(sealed.first_log_index)),
            tree_size: sealed.footer.start_size,
            entries: EntryRules::after(0),
            hashes: shared.room(),
            heads: Vec::new(),
            membership: None,
            frames: 0,
            in_index: shared.index.map(|_| (sealed.number, shared.hasher)),
            sum: 0,
            index_key: Vec::new(),
            keep: match shared.index {
                Some(_) => Keep::Asserted,
                None => Keep::None,
            },
            claims: Vec::new(),
        };
        let mut doubt = None;
        let mut sparse = SparseBuilder::new(sealed.footer.start_size);
        let start = SEGMENT_HEADER_LENGTH as u64;
        let mut frames = Frames::new(&file, name, start, sealed.body_length);
        while let Some(found) = frames.next_frame()? {
            let parsed = match &found.frame {
                Ok(parsed) => parsed,
                Err(error) => {
                    return Err(locate(name, &found, error, rules.tree_size, shared.tree).into());
                }
            };
            sha256.update(&found.raw);
            let first = rules.tree_size;
            if let Ok(header) = FrameHeader::parse(&found.raw) {
                sparse.push(&header, found.offset as u32);
            }
            if let Some(batch) = rules.frame(found.offset, &found.raw, parsed)?
                && let Some(index) = shared.index
            {
                remembered(&batch, first, index, shared.oldest_ms)?;
                for claim in rules.claims.drain(..) {
                    let before = index.before(&claim.key, claim.index)?;
                    doubt = doubt.or(claim.compare(name, before).err());
                }
            }
            (shared.read)(found.raw.len() as u64);
        }
        let mut footer = vec![0; (length - sealed.body_length) as usize];
        file.read_exact_at(&mut footer, sealed.body_length)
            .map_err(|error| AuditError::io(name, &error))?;
        (shared.read)(footer.len() as u64);
        Ok(Facts {
            hashes: rules.hashes,
            heads: rules.heads,
            membership: rules.membership,
            entries: rules.entries,
            last: rules.previous,
            frames: rules.frames,
            end_size: rules.tree_size,
            body_sha256: Hash(sha256.finalize().into()),
            sparse: sparse.finish().1,
            footer,
            sum: rules.sum,
            doubt,
        })
    }
}

/// What stands before the first frame of a log that does not begin at index 0; `None` at its very beginning.
pub(super) fn before(first: LogIndex) -> Option<(LogId, u32)> {
    let index = first.0.checked_sub(1)?;
    Some((LogId::new(0, index), 0))
}

/// Opens a file that must be there.
pub(super) fn open_file(path: &std::path::Path, name: &str) -> Result<File, AuditError> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Finding::new(name, "the file is missing").into(),
        _ => AuditError::io(name, &error),
    })
}

/// The first bytes of a segment file.
pub(super) fn read_header(file: &File, name: &str, length: u64) -> Result<Vec<u8>, AuditError> {
    let mut header = vec![0; length.min(SEGMENT_HEADER_LENGTH as u64) as usize];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| AuditError::io(name, &error))?;
    Ok(header)
}

/// Compares a segment header with the only one that can stand there.
pub(super) fn expect_header(
    name: &str,
    found: &[u8],
    wanted: &SegmentHeader,
) -> Result<(), Finding> {
    let expected = wanted.encode();
    if *found == expected {
        return Ok(());
    }
    let good = found.iter().zip(&expected).take_while(|(a, b)| a == b);
    Err(Finding::new(
        name,
        format!(
            "the segment header is not that of segment {}",
            wanted.number
        ),
    )
    .at(good.count() as u64))
}
