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
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::tree::{HashReader, level_length, root_at};

use super::index::{KeyIndex, ScanRange};
use super::load::{Page, corrupt};
use super::view::{Remembered, StoredEntry, Version};
use super::{Inner, Store, invalid};
use crate::limits;

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
            let (position, slot) = self.0.locate_sealed(segment, index)?;
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
