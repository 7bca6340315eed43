//! Reading the frames of a segment file one after the other, and saying which entry a bad one damages.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::TreeSize;
use scribe_proof::hash::leaf_hash;
use scribe_proof::leaf::{Leaf, LeafKind};
use scribe_proof::tree::HashReader as _;

use super::derived::TreeReader;
use crate::audit::{AuditError, Finding};
use crate::ledger::batch::Batch;
use crate::store::frame::{self, FrameError, FrameHeader, FrameKind, HEADER_LENGTH, ParsedFrame};
use crate::store::takes_leaves;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// A segment file that is read front to back.
pub(super) struct Frames<'a> {
    file: &'a File,
    /// The file, relative to the data directory.
    name: &'a str,
    offset: u64,
    end: u64,
    buffer: Bytes,
    buffer_start: u64,
    /// What `buffer` is a part of.
    memory: Arc<Memory>,
}

/// What pieces are read into, over and over: new memory for each costs as much as hashing a tenth of it.
#[derive(Default)]
struct Memory(Vec<u8>);

/// [`Memory`] that somebody looks at.
struct Shared(Arc<Memory>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

/// What stands at one place of the file.
pub(super) struct Found {
    /// Where its header starts.
    pub(super) offset: u64,
    /// The frame, or why it is none.
    pub(super) frame: Result<ParsedFrame, FrameError>,
    /// The bytes looked at.
    pub(super) raw: Bytes,
}

impl<'a> Frames<'a> {
    /// Reads from byte `start` up to byte `end`, which the file has.
    pub(super) fn new(file: &'a File, name: &'a str, start: u64, end: u64) -> Frames<'a> {
        Frames {
            file,
            name,
            offset: start,
            end,
            buffer: Bytes::new(),
            buffer_start: start,
            memory: Arc::default(),
        }
    }

    /// Where the next frame is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What stands at the next place; `None` at the end. A bad frame is not stepped over.
    pub(super) fn next_frame(&mut self) -> Result<Option<Found>, AuditError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let offset = self.offset;
        let mut raw = self.bytes_here(HEADER_LENGTH as u64)?;
        let mut parsed = frame::parse(&raw);
        if let Err(FrameError::Short { needed, .. }) = parsed {
            raw = self.bytes_here(needed)?;
            parsed = frame::parse(&raw);
        }
        if let Ok(parsed) = &parsed {
            raw.truncate(parsed.length);
            self.offset += parsed.length as u64;
        }
        Ok(Some(Found {
            offset,
            frame: parsed,
            raw,
        }))
    }

    /// At least `needed` bytes from here on, fewer only at the end.
    fn bytes_here(&mut self, needed: u64) -> Result<Bytes, AuditError> {
        let left = self.end - self.offset;
        let needed = needed.min(left);
        let buffer_end = self.buffer_start + self.buffer.len() as u64;
        if self.offset < self.buffer_start || self.offset + needed > buffer_end {
            self.buffer = Bytes::new();
            // Whoever still holds a frame keeps the memory it is in.
            if Arc::get_mut(&mut self.memory).is_none() {
                self.memory = Arc::default();
            }
            let length = needed.max(PIECE).min(left) as usize;
            if let Some(Memory(bytes)) = Arc::get_mut(&mut self.memory) {
                if bytes.len() < length {
                    bytes.resize(length, 0);
                }
                self.file
                    .read_exact_at(&mut bytes[..length], self.offset)
                    .map_err(|error| AuditError::io(self.name, &error))?;
            }
            self.buffer = Bytes::from_owner(Shared(self.memory.clone())).slice(..length);
            self.buffer_start = self.offset;
        }
        Ok(self
            .buffer
            .slice((self.offset - self.buffer_start) as usize..))
    }
}

/// Says what a bad frame damages: the first entry that differs from the hash the tree files have for it, or that no
/// longer opens its commitment.
pub(super) fn locate(
    name: &str,
    found: &Found,
    error: &FrameError,
    tree_size: TreeSize,
    tree: &TreeReader,
) -> Finding {
    let bytes = &found.raw;
    let whole = Finding::new(name, format!("the frame is damaged: {error}")).at(found.offset);
    let Ok(header) = FrameHeader::parse(bytes) else {
        return whole.entry(tree_size.get());
    };
    let (public_end, private_end) = (
        header.private_start(),
        header.private_start() + header.private_length as usize,
    );
    if *error == FrameError::Padding {
        return whole.at(found.offset + private_end as u64);
    }
    let takes_leaves = takes_leaves(
        header.kind,
        header.log_id.term,
        header.sequencing_term,
        header.first_leaf,
        tree_size,
    );
    if header.kind != FrameKind::Entries || !takes_leaves || bytes.len() < private_end {
        return whole.entry(tree_size.get());
    }
    let batch = Batch::parse(
        header.count as usize,
        bytes.slice(HEADER_LENGTH..public_end),
        bytes.slice(public_end..private_end),
    );
    let Ok(batch) = batch else {
        return whole.entry(tree_size.get());
    };
    // Of a part of these bytes.
    let within = |part: &[u8]| {
        let at = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
        found.offset + at as u64
    };
    for slot in 0..batch.count() {
        let index = tree_size.get() + slot as u64;
        let leaf = batch.leaf_bytes(slot).unwrap_or_default();
        let parsed = Leaf::parse(leaf).ok();
        let key = parsed.as_ref().map_or(&[][..], |leaf| leaf.key);
        let mut stored = Vec::new();
        let known = tree.read(0, index, 1, &mut stored).is_ok();
        if parsed.is_none() || known && stored.first() != Some(&leaf_hash(leaf)) {
            return Finding::new(name, format!("the leaf is not what was appended: {error}"))
                .at(within(leaf))
                .entry(index)
                .key(key);
        }
        let Some(parsed) = &parsed else { continue };
        let private = batch.opening(slot);
        let opens = private.map(|private| {
            scribe_proof::commitment(private.salt, private.metadata, private.value)
                == parsed.commitment
        });
        if opens != (parsed.kind != LeafKind::System).then_some(true) {
            let at = private.map_or(found.offset + public_end as u64, |private| {
                within(private.salt)
            });
            let reason = format!("salt, metadata or value is not what was appended: {error}");
            return Finding::new(name, reason).at(at).entry(index).key(key);
        }
    }
    whole.entry(tree_size.get())
}
