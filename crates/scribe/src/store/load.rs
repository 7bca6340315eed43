//! One entry: where its leaf lies, its bytes from the frame cache or from disk, and the checks those must pass.
//!
//! From disk nothing is believed: whole frames are checked by their CRCs, single entries by their leaf hash and
//! commitment. Which version of a key is wanted is decided by [`super::read`].

use std::io;

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind};

use super::cache::ENTRY_BYTES_MAX;
use super::frame::{self, Frame, FrameHeader, FramePosition, HEADER_LENGTH};
use super::mend::is_damage;
use super::segment::{SEGMENT_HEADER_LENGTH, SealedSegment};
use super::view::StoredEntry;
use super::walk::{FrameWalk, Place, sealed_path, takes_leaves};
use super::{Inner, Store};
use crate::ledger::batch::{DIGEST_LENGTH, PrivateRecord};

/// Frames up to this many bytes are read whole; from longer ones only the entry is read.
const WHOLE_FRAME_BYTES_MAX: u32 = 16 * 1_024;

impl Inner {
    /// The frame and slot of a leaf; `None` at or beyond the tree size.
    pub(super) fn locate(&self, index: LeafIndex) -> io::Result<Option<(FramePosition, u16)>> {
        {
            let view = self.view.read();
            if !view.sealed_size().contains(index) {
                return Ok(view.newest_first().find_map(|open| open.locate(index)));
            }
        }
        match self.sealed_segment_of(index) {
            Some(segment) => self.locate_sealed(&segment, index).map(Some),
            None => Ok(None),
        }
    }

    /// The sealed segment that holds a leaf.
    pub(super) fn sealed_segment_of(&self, index: LeafIndex) -> Option<SealedSegment> {
        let sealed = self.log.sealed();
        let place = sealed.partition_point(|segment| !segment.footer.end_size.contains(index));
        sealed.get(place).cloned()
    }

    /// Finds a leaf's frame by the sparse table and the headers from there on. No CRC is checked here, so a header with
    /// damage may pass for one that takes no leaves: a leaf of the segment that is not found is damage, never absence.
    pub(super) fn locate_sealed(
        &self,
        sealed: &SealedSegment,
        index: LeafIndex,
    ) -> io::Result<(FramePosition, u16)> {
        let after = sealed
            .sparse
            .partition_point(|entry| entry.first_leaf <= index.get());
        let (offset, mut tree_size) =
            match after.checked_sub(1).and_then(|at| sealed.sparse.get(at)) {
                Some(entry) => (u64::from(entry.offset), TreeSize::new(entry.first_leaf)),
                None => (SEGMENT_HEADER_LENGTH as u64, sealed.footer.start_size),
            };
        let path = sealed_path(sealed);
        let walk = FrameWalk::new(&self.log, sealed.number, path, offset, sealed.body_length);
        let mut walk = walk.small_steps();
        while let Some((position, header)) = walk.next_header()? {
            if !header_takes_leaves(&header, tree_size) {
                continue;
            }
            let end = tree_size.grown_by(u64::from(header.count));
            if end.contains(index) {
                return Ok((position, (index.get() - tree_size.get()) as u16));
            }
            tree_size = end;
        }
        self.log.suspects().add(sealed.number);
        Err(corrupt(format!("leaf {index} is not in its segment")))
    }

    /// Reads an entry from the frame cache or from disk, and keeps it for the next reader.
    pub(super) fn load(
        &self,
        index: LeafIndex,
        position: FramePosition,
        slot: u16,
    ) -> io::Result<StoredEntry> {
        let entry = self.load_uncached(index, position, slot)?;
        if entry.byte_length() <= ENTRY_BYTES_MAX {
            // In memory of its own: a slice would keep the whole frame alive for as long as the entry is cached.
            let entry = compact(entry);
            self.caches.insert_entry(&entry);
            return Ok(entry);
        }
        Ok(entry)
    }

    /// Everything that comes from disk is checked: whole frames by their CRCs, single entries by their leaf hash and
    /// commitment.
    pub(super) fn load_uncached(
        &self,
        index: LeafIndex,
        position: FramePosition,
        slot: u16,
    ) -> io::Result<StoredEntry> {
        if let Some(frame) = self.log.cached(position) {
            return entry_from(&frame, index, slot);
        }
        let loaded = self.load_from_disk(index, position, slot);
        if loaded.as_ref().is_err_and(is_damage) {
            self.log.suspects().add(position.segment);
        }
        loaded
    }

    fn load_from_disk(
        &self,
        index: LeafIndex,
        position: FramePosition,
        slot: u16,
    ) -> io::Result<StoredEntry> {
        if position.length <= WHOLE_FRAME_BYTES_MAX {
            return self.load_whole(index, position, slot);
        }
        match self.load_part(index, position, slot) {
            // The tables and the metadata length have no hash of their own. Only the CRCs of the whole frame tell
            // whether it is damaged.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let entry = self.load_whole(index, position, slot)?;
                self.check_leaf(index, &entry.leaf)?;
                check_commitment(&entry)?;
                Ok(entry)
            }
            loaded => loaded,
        }
    }

    /// Reads bytes of a frame; `at` counts from its start.
    fn read_frame_bytes(&self, position: FramePosition, at: u32, length: u32) -> io::Result<Bytes> {
        match position.offset.checked_add(at) {
            Some(offset) => self.log.read_raw(position.segment, offset, length),
            None => Err(damaged_at(position, &"the frame ends beyond 4 GiB")),
        }
    }

    /// Reads a frame and checks its CRCs.
    fn load_whole(
        &self,
        index: LeafIndex,
        position: FramePosition,
        slot: u16,
    ) -> io::Result<StoredEntry> {
        let bytes = self.read_frame_bytes(position, 0, position.length)?;
        let parsed = frame::parse(&bytes).map_err(|error| damaged_at(position, &error))?;
        entry_from(&parsed.frame, index, slot)
    }

    /// Reads no more of a long frame than the entry and what leads to it.
    fn load_part(
        &self,
        index: LeafIndex,
        position: FramePosition,
        slot: u16,
    ) -> io::Result<StoredEntry> {
        let read = |at: u32, length: u32| self.read_frame_bytes(position, at, length);
        // Header and leaf table up to the wanted slot in one read.
        let head = read(0, HEADER_LENGTH as u32 + (u32::from(slot) + 1) * 4)?;
        let header = FrameHeader::parse(&head).map_err(|error| damaged_at(position, &error))?;
        check_place(&header.first_leaf, header.count, index, slot)?;
        if header.total_length() != position.length as usize {
            return Err(damaged_at(
                position,
                &"the frame's length is not what the index says",
            ));
        }
        if header.count == 1 {
            return self.load_whole(index, position, slot);
        }
        let out_of_bounds = || damaged_at(position, &"an end offset lies outside its part");
        let public = HEADER_LENGTH as u32;
        let (start, end) =
            table_range(&head[HEADER_LENGTH..], 0, slot).ok_or_else(out_of_bounds)?;
        let leaves = header.count * 4;
        if end < start || u64::from(leaves) + u64::from(end) > u64::from(header.public_length) {
            return Err(out_of_bounds());
        }
        let leaf = read(public + leaves + start, end - start)?;
        self.check_leaf(index, &leaf)?;

        let private = header.private_start() as u32;
        let digests = be32(&read(private, 4)?, 0).ok_or_else(out_of_bounds)?;
        if digests > header.count {
            return Err(out_of_bounds());
        }
        let table = 4 + digests * DIGEST_LENGTH as u32;
        let records = table + leaves;
        if records > header.private_length {
            return Err(out_of_bounds());
        }
        let entry_at = table + u32::from(slot.saturating_sub(1)) * 4;
        let ends = read(private + entry_at, if slot == 0 { 4 } else { 8 })?;
        let (start, end) = table_range(&ends, 0, u16::from(slot != 0)).ok_or_else(out_of_bounds)?;
        if end < start || u64::from(records) + u64::from(end) > u64::from(header.private_length) {
            return Err(out_of_bounds());
        }
        let record = if start == end {
            Bytes::new()
        } else {
            read(private + records + start, end - start)?
        };
        let private = PrivateRecord::parse(&record);
        let entry = StoredEntry {
            index,
            leaf,
            private,
        };
        check_commitment(&entry)?;
        Ok(entry)
    }

    /// Compares a leaf read from disk with its hash in the tree.
    fn check_leaf(&self, index: LeafIndex, leaf: &[u8]) -> io::Result<()> {
        let mut stored = Vec::with_capacity(1);
        Store::read_hash(self, index, &mut stored)?;
        let found = leaf_hash(leaf);
        if stored.first() != Some(&found) {
            return Err(corrupt(format!(
                "leaf {} hashes to {}, the tree has {}",
                index.get(),
                found.to_hex(),
                stored.first().copied().unwrap_or_default().to_hex()
            )));
        }
        Ok(())
    }

    /// Adds the entries of a sealed segment from a located frame on.
    pub(super) fn fill_from_sealed(
        &self,
        sealed: &SealedSegment,
        position: FramePosition,
        slot: u16,
        page: &mut Page,
    ) -> io::Result<()> {
        let path = sealed_path(sealed);
        let offset = u64::from(position.offset);
        let walk = FrameWalk::new(&self.log, sealed.number, path, offset, sealed.body_length);
        let mut walk = walk.steps_of(page.bytes_left as u64);
        let mut place = Place {
            tree_size: TreeSize::new(page.next.get() - u64::from(slot)),
            previous: None,
        };
        let mut slot = slot;
        while !page.full() {
            let Some((position, parsed, raw)) = walk.next_frame()? else {
                break;
            };
            let placed = place
                .step(&walk, position, &parsed, &raw)
                .map_err(corrupt)?;
            if placed.batch.is_some() {
                page.take_from(&parsed.frame, slot)?;
                slot = 0;
            }
        }
        Ok(())
    }
}

impl Store {
    fn read_hash(inner: &Inner, index: LeafIndex, out: &mut Vec<Hash>) -> io::Result<()> {
        {
            let view = inner.view.read();
            for open in view.newest_first() {
                let run = open.levels().first();
                let at = index.get().checked_sub(open.start_size().get());
                if let (Some(run), Some(at)) = (run, at) {
                    out.extend(run.hashes.get(at as usize));
                    return Ok(());
                }
            }
        }
        inner.tree.read_run(0, index.get(), 1, out)
    }
}

/// A page of entries being filled.
pub(super) struct Page {
    pub(super) out: Vec<StoredEntry>,
    pub(super) limit: usize,
    pub(super) bytes_left: usize,
    pub(super) next: LeafIndex,
}

impl Page {
    pub(super) fn full(&self) -> bool {
        self.out.len() >= self.limit || (self.bytes_left == 0 && !self.out.is_empty())
    }

    pub(super) fn take_from(&mut self, frame: &Frame, from_slot: u16) -> io::Result<()> {
        for slot in u32::from(from_slot)..frame.count {
            if self.full() {
                break;
            }
            let entry = entry_from(frame, self.next, slot as u16)?;
            self.bytes_left = self.bytes_left.saturating_sub(entry.byte_length());
            self.out.push(entry);
            self.next = self.next.next();
        }
        Ok(())
    }
}

fn header_takes_leaves(header: &FrameHeader, tree_size: TreeSize) -> bool {
    takes_leaves(
        header.kind,
        header.log_id.term,
        header.sequencing_term,
        header.first_leaf,
        tree_size,
    )
}

/// Slices one entry out of a frame that is known to be good.
pub(super) fn entry_from(frame: &Frame, index: LeafIndex, slot: u16) -> io::Result<StoredEntry> {
    check_place(&frame.first_leaf, frame.count, index, slot)?;
    let out_of_bounds = || corrupt(format!("frame {}: tables do not fit", frame.log_id));
    let count = frame.count as usize;
    let leaf = slice_of(&frame.public, 0, count, slot).ok_or_else(out_of_bounds)?;
    let digests = be32(&frame.private, 0).ok_or_else(out_of_bounds)? as usize;
    let table = digests
        .checked_mul(DIGEST_LENGTH)
        .and_then(|bytes| bytes.checked_add(4))
        .ok_or_else(out_of_bounds)?;
    let record = slice_of(&frame.private, table, count, slot).ok_or_else(out_of_bounds)?;
    Ok(StoredEntry {
        index,
        leaf,
        private: PrivateRecord::parse(&record),
    })
}

fn check_place(first: &LeafIndex, count: u32, index: LeafIndex, slot: u16) -> io::Result<()> {
    if u32::from(slot) < count && first.get().checked_add(u64::from(slot)) == Some(index.get()) {
        return Ok(());
    }
    Err(corrupt(format!(
        "entry {} was looked for at slot {slot} of a frame with {count} leaves from {}\n\
         hint: stop the node and run `scribe repair`",
        index.get(),
        first.get()
    )))
}

/// Checks the opening of an entry's commitment. System leaves have none, all others must.
pub(super) fn check_commitment(entry: &StoredEntry) -> io::Result<()> {
    let leaf = Leaf::parse(&entry.leaf).map_err(|error| corrupt(error.to_string()))?;
    let Some(private) = &entry.private else {
        if leaf.kind == LeafKind::System {
            return Ok(());
        }
        return Err(corrupt(format!(
            "the private part of entry {} is missing or damaged",
            entry.index.get()
        )));
    };
    let opened = scribe_proof::commitment(&private.salt, &private.metadata, &private.value);
    if opened != leaf.commitment {
        return Err(corrupt(format!(
            "salt, metadata and value of entry {} do not open its commitment",
            entry.index.get()
        )));
    }
    Ok(())
}

/// The same entry in one allocation of its own.
fn compact(entry: StoredEntry) -> StoredEntry {
    let Some(private) = &entry.private else {
        return StoredEntry {
            leaf: Bytes::copy_from_slice(&entry.leaf),
            ..entry
        };
    };
    let mut bytes = Vec::with_capacity(entry.byte_length());
    bytes.extend_from_slice(&entry.leaf);
    bytes.extend_from_slice(&private.metadata);
    bytes.extend_from_slice(&private.value);
    let bytes = Bytes::from(bytes);
    let metadata_start = entry.leaf.len();
    let value_start = metadata_start + private.metadata.len();
    StoredEntry {
        index: entry.index,
        leaf: bytes.slice(..metadata_start),
        private: Some(PrivateRecord {
            salt: private.salt,
            metadata: bytes.slice(metadata_start..value_start),
            value: bytes.slice(value_start..),
        }),
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Start and end of record `slot` by a table of ends.
fn table_range(bytes: &[u8], table: usize, slot: u16) -> Option<(u32, u32)> {
    let slot = usize::from(slot);
    let start = match slot.checked_sub(1) {
        Some(before) => be32(bytes, table + before * 4)?,
        None => 0,
    };
    Some((start, be32(bytes, table + slot * 4)?))
}

pub(super) fn slice_of(bytes: &Bytes, table: usize, count: usize, slot: u16) -> Option<Bytes> {
    let (start, end) = table_range(bytes, table, slot)?;
    let base = table.checked_add(count * 4)?;
    let (start, end) = (base + start as usize, base + end as usize);
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

pub(super) fn corrupt(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

pub(super) fn damaged_at(position: FramePosition, reason: &dyn std::fmt::Display) -> io::Error {
    corrupt(format!(
        "segment {} is damaged at byte {}: {reason}",
        position.segment, position.offset
    ))
}
