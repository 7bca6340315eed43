//! Reading the view: versions by key, entries by version or index, hashes by level.
//!
//! What lies in open segments is found in memory, the rest in index, tree files and segment files. Open segments are
//! always looked at first: a segment leaves memory only after the disk has all of it, so nothing is missed in between.
//! From the index only versions below the sealed size are believed.

use std::io;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::RwLockReadGuard;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind};
use scribe_proof::tree::{HashReader, level_length, root_at};

use super::cache::ENTRY_BYTES_MAX;
use super::frame::{self, Frame, FrameHeader, FramePosition, HEADER_LENGTH};
use super::index::{KeyIndex, ScanRange};
use super::segment::{SEGMENT_HEADER_LENGTH, SealedSegment};
use super::view::{Remembered, StoredEntry, Version};
use super::walk::{FrameWalk, Place, sealed_path, takes_leaves};
use super::{Inner, Store, invalid};
use crate::ledger::batch::{DIGEST_LENGTH, PrivateRecord};
use crate::limits;

/// Frames up to this many bytes are read whole; from longer ones only the entry is read.
const WHOLE_FRAME_BYTES_MAX: u32 = 16 * 1_024;
/// Keys of the segment being written that a scan looks at before it lets apply in.
const SCAN_STEPS: usize = 512;

impl Store {
    /// The newest version of `key` with an index below `below`.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn latest(&self, key: &[u8], below: TreeSize) -> io::Result<Option<Version>> {
        let inner = &*self.0;
        match inner.caches.latest(key) {
            Some(None) => return Ok(None),
            Some(Some(newest)) if below.contains(newest.index) => return Ok(Some(newest)),
            _ => {}
        }
        let sealed_size = {
            let view = inner.view.read();
            let found = view.newest_first().find_map(|open| open.latest(key, below));
            if let Some(version) = found {
                if below >= view.applied.tree_size {
                    inner.caches.insert_latest(key, Some(version));
                }
                return Ok(Some(version));
            }
            view.sealed_size()
        };
        let found = inner.index()?.latest(key, below.min(sealed_size))?;
        if below >= sealed_size {
            // `found` is the newest sealed version. It is the newest of all if nothing was sealed or applied under
            // this key since, and nothing can be while the lock is held.
            let view = inner.view.read();
            let newest = TreeSize::new(u64::MAX);
            if view.sealed_size() == sealed_size
                && view
                    .newest_first()
                    .all(|open| open.latest(key, newest).is_none())
            {
                inner.caches.insert_latest(key, found);
            }
        }
        Ok(found)
    }

    /// Versions of `key` with an index below `below`, newest first, at most `limit`. The empty key has the ledger's
    /// system leaves as its versions.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn history(&self, key: &[u8], below: TreeSize, limit: usize) -> io::Result<Vec<Version>> {
        let mut out = Vec::new();
        let sealed_size = {
            let view = self.0.view.read();
            for open in view.newest_first() {
                open.versions(key, below, limit - out.len(), &mut out);
                if out.len() == limit {
                    return Ok(out);
                }
            }
            view.sealed_size()
        };
        let left = limit - out.len();
        let index = self.0.index()?;
        index.versions(key, below.min(sealed_size), left, &mut out)?;
        Ok(out)
    }

    /// The version of `key` at `index`, if the leaf there is one of its versions.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn is_version(&self, key: &[u8], index: LeafIndex) -> io::Result<Option<Version>> {
        {
            let view = self.0.view.read();
            if !view.sealed_size().contains(index) {
                return Ok(view
                    .newest_first()
                    .find_map(|open| open.version(key, index)));
            }
        }
        self.0.index()?.version(key, index)
    }

    /// Keys of the range in byte order, each with the version that is current at tree size `at`, at most `limit`.
    /// Tombstones are included. To go on, start again at the last key followed by a zero byte.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn scan(
        &self,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Version)>> {
        let mut range = range.clone();
        if range.start.is_empty() {
            // The smallest key there is; the empty one has the system leaves.
            range.start.push(0);
        }
        loop {
            // Each part yields its first `limit` keys; the first `limit` of all are among them.
            let mut parts = Vec::new();
            let (sealed_size, complete, current) = {
                let view = self.0.view.read();
                let complete: Vec<_> = view.complete.iter().cloned().collect();
                let current = view.current.as_ref().map(|current| current.number());
                (view.sealed_size(), complete, current)
            };
            if let Some(number) = current {
                let Some(found) = self.scan_current(number, &range, at, limit) else {
                    continue; // it was sealed meanwhile: look again where everything is now
                };
                parts.push(found);
            }
            for segment in complete.iter().rev() {
                let mut found = Vec::new();
                segment.scan(&range, at, limit, usize::MAX, &mut found);
                parts.push(found);
            }
            parts.push(self.0.index()?.scan(&range, at.min(sealed_size), limit)?);
            return Ok(merge(parts, limit));
        }
    }

    /// Scans the segment that is being written in small steps, so that apply waits for one step only. `None` when the
    /// segment left memory in between.
    fn scan_current(
        &self,
        number: u32,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
    ) -> Option<Vec<(Bytes, Version)>> {
        let mut found = Vec::new();
        let mut range = range.clone();
        while found.len() < limit {
            let view = self.0.view.read();
            let segment = view.newest_first().find(|open| open.number() == number)?;
            match segment.scan(&range, at, limit, SCAN_STEPS, &mut found) {
                Some(next) => range.start = next,
                None => break,
            }
        }
        Some(found)
    }

    /// The entry at a leaf index; `None` at or beyond the tree size.
    ///
    /// # Errors
    /// What the disk cannot read; kind `InvalidData` for bytes that are not what was written.
    pub fn entry(&self, index: LeafIndex) -> io::Result<Option<StoredEntry>> {
        if let Some(entry) = self.0.caches.entry(index) {
            return Ok(Some(entry));
        }
        match self.0.locate(index)? {
            Some((position, slot)) => self.0.load(index, position, slot).map(Some),
            None => Ok(None),
        }
    }

    /// The entry of a version.
    ///
    /// # Errors
    /// As for [`Store::entry`]; also kind `InvalidData` when the index points at another entry.
    pub fn entry_of(&self, version: &Version) -> io::Result<StoredEntry> {
        if let Some(entry) = self.0.caches.entry(version.index) {
            return Ok(entry);
        }
        self.0.load(version.index, version.position, version.slot)
    }

    /// Consecutive entries from `from` on: at most `limit`, and no more once they reach `bytes_max` bytes, but at least
    /// one if there is one.
    ///
    /// # Errors
    /// As for [`Store::entry`].
    pub fn entries(
        &self,
        from: LeafIndex,
        limit: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<StoredEntry>> {
        let mut page = Page {
            out: Vec::new(),
            limit,
            bytes_left: bytes_max,
            next: from,
        };
        while !page.full() {
            let found = self.0.locate(page.next)?;
            let Some((position, slot)) = found else {
                break;
            };
            let sealed = self.0.sealed_segment_of(page.next);
            match sealed {
                Some(sealed) => self
                    .0
                    .fill_from_sealed(&sealed, position, slot, &mut page)?,
                None => {
                    let frame = self.0.log.frame_at(position)?;
                    page.take_from(&frame, slot)?;
                }
            }
        }
        Ok(page.out)
    }

    /// The write remembered under an idempotency key, if it is not older than the window in ledger time.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn idempotent(&self, key_hash: &[u8; 16], now_ms: u64) -> io::Result<Option<Remembered>> {
        let (open, sealed_size) = {
            let view = self.0.view.read();
            let found = view
                .newest_first()
                .find_map(|open| open.remembered(key_hash));
            (found, view.sealed_size())
        };
        let found = match open {
            Some(found) => Some(found),
            None => {
                let found = self.0.index()?.remembered(key_hash)?;
                found.filter(|found| sealed_size.contains(found.first))
            }
        };
        let oldest_ms = now_ms.saturating_sub(limits::IDEMPOTENCY_WINDOW_MS);
        Ok(found.filter(|found| found.timestamp_ms >= oldest_ms))
    }

    /// How many leaves have a timestamp at or before `timestamp_ms`.
    ///
    /// # Errors
    /// What the disk cannot read.
    pub fn size_at_time(&self, timestamp_ms: u64) -> io::Result<TreeSize> {
        let sealed_size = {
            let view = self.0.view.read();
            let mut open = view.newest_first();
            if let Some(size) = open.find_map(|open| open.size_at_time(timestamp_ms)) {
                return Ok(size);
            }
            view.sealed_size()
        };
        // The log may be ahead of the view for a moment.
        let sealed = self.0.log.sealed();
        let visible = sealed.partition_point(|s| s.footer.end_size <= sealed_size);
        let sealed = &sealed[..visible];
        let whole = sealed.partition_point(|s| s.footer.last_timestamp_ms <= timestamp_ms);
        let Some(segment) = sealed.get(whole) else {
            return Ok(sealed
                .last()
                .map_or(TreeSize::EMPTY, |last| last.footer.end_size));
        };
        let (mut low, mut high) = (
            segment.footer.start_size.get(),
            segment.footer.end_size.get(),
        );
        while low < high {
            let middle = low + (high - low) / 2;
            let index = LeafIndex::new(middle);
            let Some((position, slot)) = self.0.locate_sealed(segment, index)? else {
                return Err(corrupt(format!("leaf {middle} is not in its segment")));
            };
            let entry = self.0.load_uncached(index, position, slot)?;
            let leaf = entry.parse().map_err(|error| corrupt(error.to_string()))?;
            if leaf.timestamp_ms <= timestamp_ms {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(TreeSize::new(low))
    }

    /// The root hash over the first `size` leaves, computed from the stored hashes.
    ///
    /// # Errors
    /// Kind `InvalidInput` when `size` is beyond the applied tree size; what the tree files cannot read.
    pub fn root_at(&self, size: TreeSize) -> io::Result<Hash> {
        let applied = self.0.view.read().applied.tree_size;
        if size > applied {
            return Err(invalid(format!(
                "tree size {} is beyond the applied size {}",
                size.get(),
                applied.get()
            )));
        }
        root_at(self, size)
    }
}

/// Stored hashes of the whole applied tree, on disk and in memory.
impl HashReader for Store {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        let end = start.saturating_add(count as u64);
        let mut in_memory = Vec::new();
        let disk_end = {
            let view = self.0.view.read();
            let disk_end = level_length(level, view.sealed_size()).clamp(start, end);
            let complete = view.complete.iter().map(|segment| &**segment);
            for open in complete.chain(&view.current) {
                let Some(run) = open.levels().get(usize::from(level)) else {
                    continue;
                };
                let next = disk_end + in_memory.len() as u64;
                let run_end = run.start + run.hashes.len() as u64;
                if run.start <= next && next < run_end.min(end) {
                    let from = (next - run.start) as usize;
                    let to = (run_end.min(end) - run.start) as usize;
                    in_memory.extend_from_slice(&run.hashes[from..to]);
                }
            }
            disk_end
        };
        if disk_end + (in_memory.len() as u64) < end {
            return Err(invalid(format!(
                "hashes {start} to {end} of level {level} are not all in the tree"
            )));
        }
        if start < disk_end {
            let count = (disk_end - start) as usize;
            self.0.tree.read_run(level, start, count, out)?;
        }
        out.append(&mut in_memory);
        Ok(())
    }
}

impl Inner {
    /// The index, unless it is being filled again. It is not cleared while what this returns is held.
    pub(super) fn index(&self) -> io::Result<IndexRead<'_>> {
        // Recursive: a reader that asks again must not wait behind whoever waits for it.
        let held = self.index_readers.read_recursive();
        // Looked at with the lock held: whoever set it waits for the lock before it clears anything.
        if self.index_rebuilding.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the key index is being rebuilt\nhint: try again when it is done",
            ));
        }
        Ok(IndexRead {
            index: &*self.index,
            _held: held,
        })
    }

    /// The frame and slot of a leaf; `None` at or beyond the tree size.
    pub(super) fn locate(&self, index: LeafIndex) -> io::Result<Option<(FramePosition, u16)>> {
        {
            let view = self.view.read();
            if !view.sealed_size().contains(index) {
                return Ok(view.newest_first().find_map(|open| open.locate(index)));
            }
        }
        match self.sealed_segment_of(index) {
            Some(segment) => self.locate_sealed(&segment, index),
            None => Ok(None),
        }
    }

    /// The sealed segment that holds a leaf.
    pub(super) fn sealed_segment_of(&self, index: LeafIndex) -> Option<SealedSegment> {
        let sealed = self.log.sealed();
        let place = sealed.partition_point(|segment| !segment.footer.end_size.contains(index));
        sealed.get(place).cloned()
    }

    /// Finds a leaf's frame by the sparse table and the headers from there on.
    fn locate_sealed(
        &self,
        sealed: &SealedSegment,
        index: LeafIndex,
    ) -> io::Result<Option<(FramePosition, u16)>> {
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
                return Ok(Some((position, (index.get() - tree_size.get()) as u16)));
            }
            tree_size = end;
        }
        Ok(None)
    }

    /// Reads an entry from the frame cache or from disk, and keeps it for the next reader.
    fn load(
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
    fn fill_from_sealed(
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

/// Access to the key index, which keeps it from being cleared.
pub(super) struct IndexRead<'a> {
    index: &'a (dyn KeyIndex + 'static),
    _held: RwLockReadGuard<'a, ()>,
}

impl Deref for IndexRead<'_> {
    type Target = dyn KeyIndex;

    fn deref(&self) -> &Self::Target {
        self.index
    }
}

/// A page of entries being filled.
struct Page {
    out: Vec<StoredEntry>,
    limit: usize,
    bytes_left: usize,
    next: LeafIndex,
}

impl Page {
    fn full(&self) -> bool {
        self.out.len() >= self.limit || (self.bytes_left == 0 && !self.out.is_empty())
    }

    fn take_from(&mut self, frame: &Frame, from_slot: u16) -> io::Result<()> {
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

/// Merges lists that are sorted by key; of a key that is in several, the first list's version is the newest.
fn merge(parts: Vec<Vec<(Bytes, Version)>>, limit: usize) -> Vec<(Bytes, Version)> {
    let mut parts: Vec<_> = parts
        .into_iter()
        .map(|part| part.into_iter().peekable())
        .collect();
    let mut out: Vec<(Bytes, Version)> = Vec::new();
    while out.len() < limit {
        let smallest = parts
            .iter_mut()
            .filter_map(|part| part.peek().map(|(key, _)| key.clone()))
            .min();
        let Some(smallest) = smallest else {
            break;
        };
        let mut newest = None;
        for part in &mut parts {
            if let Some(found) = part.next_if(|(key, _)| *key == smallest) {
                newest.get_or_insert(found);
            }
        }
        out.extend(newest);
    }
    out
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
