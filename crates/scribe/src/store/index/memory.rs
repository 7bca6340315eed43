//! The key index in memory: the same answers as the database, nothing on disk.
//!
//! For tests, simulation and short-lived tools. A store opened with it fills it from the sealed segments.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;
use scribe_proof::index::{LeafIndex, TreeSize};

use super::{IndexedSegment, KeyIndex, ScanRange, SegmentBatch};
use crate::store::view::{Remembered, Version};

/// An index that lives as long as the store.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u32, IndexedSegment>,
    /// Per key: leaf index to version, oldest first.
    keys: BTreeMap<Bytes, BTreeMap<LeafIndex, Version>>,
    remembered: HashMap<[u8; 16], Remembered>,
}

impl KeyIndex for MemoryIndex {
    fn segments(&self) -> io::Result<Vec<IndexedSegment>> {
        Ok(self.state.read().segments.values().copied().collect())
    }

    fn ingest(&self, batch: SegmentBatch<'_, '_>) -> io::Result<()> {
        let mut state = self.state.write();
        for (key, version) in batch.versions {
            let versions = match state.keys.get_mut(key) {
                Some(versions) => versions,
                None => state.keys.entry(Bytes::copy_from_slice(key)).or_default(),
            };
            versions.insert(version.index, version);
        }
        for (key_hash, remembered) in batch.remembered {
            state.remembered.insert(key_hash, remembered);
        }
        let segment = batch.segment;
        state.segments.insert(segment.number, segment);
        Ok(())
    }

    fn latest(&self, key: &[u8], below: TreeSize) -> io::Result<Option<Version>> {
        let state = self.state.read();
        Ok(state
            .keys
            .get(key)
            .and_then(|versions| newest_below(versions, below)))
    }

    fn versions(
        &self,
        key: &[u8],
        below: TreeSize,
        limit: usize,
        out: &mut Vec<Version>,
    ) -> io::Result<()> {
        if let Some(versions) = self.state.read().keys.get(key) {
            let older = versions.range(..LeafIndex::new(below.get())).rev();
            out.extend(older.take(limit).map(|(_, version)| *version));
        }
        Ok(())
    }

    fn version(&self, key: &[u8], index: LeafIndex) -> io::Result<Option<Version>> {
        let state = self.state.read();
        Ok(state
            .keys
            .get(key)
            .and_then(|versions| versions.get(&index).copied()))
    }

    fn scan(
        &self,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Version)>> {
        let state = self.state.read();
        let upper = match &range.end {
            Some(end) if *end <= range.start => return Ok(Vec::new()),
            Some(end) => Bound::Excluded(end.as_slice()),
            None => Bound::Unbounded,
        };
        let keys = state
            .keys
            .range::<[u8], _>((Bound::Included(range.start.as_slice()), upper));
        Ok(keys
            .filter_map(|(key, versions)| Some((key.clone(), newest_below(versions, at)?)))
            .take(limit)
            .collect())
    }

    fn remembered(&self, key_hash: &[u8; 16]) -> io::Result<Option<Remembered>> {
        Ok(self.state.read().remembered.get(key_hash).copied())
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], Version) -> io::Result<()>) -> io::Result<()> {
        for (key, versions) in &self.state.read().keys {
            for version in versions.values().rev() {
                visit(key, *version)?;
            }
        }
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        *self.state.write() = State::default();
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn close(&self) {}
}

fn newest_below(versions: &BTreeMap<LeafIndex, Version>, below: TreeSize) -> Option<Version> {
    versions
        .range(..LeafIndex::new(below.get()))
        .next_back()
        .map(|(_, version)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_like_the_model() {
        crate::store::index::tests::check_like_model(&MemoryIndex::default());
    }
}
