//! A frame under construction: units become leaves, each unit whole or not at all.

use scribe_proof::hash::Hash;
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{Leaf, LeafKind, Prev, SystemKind};
use scribe_proof::rotation::Rotation;

use super::submission::{Content, Unit};
use crate::error::AppendError;
use crate::ledger::batch::BatchBuilder;
use crate::planted;

/// A frame under construction.
pub(super) struct Draft {
    pub(super) builder: BatchBuilder,
    /// Leaf index of the frame's first leaf.
    pub(super) first: LeafIndex,
    /// Timestamp of the last leaf, in the frame or before it.
    pub(super) last_timestamp_ms: u64,
    /// What the clock said when the frame was begun.
    pub(super) now_ms: u64,
    /// The leaves of the unit at hand, and where each ends.
    pub(super) leaves: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Draft {
    /// Adds a unit's leaves and returns their timestamp. Nothing is added if it fails.
    pub(super) fn push_unit(&mut self, unit: &Unit, prevs: &[Prev]) -> Result<u64, AppendError> {
        let invalid = |rule: String| AppendError::Invalid { rule, hint: None };
        self.leaves.clear();
        self.ends.clear();
        let mut timestamp_ms = self.now_ms.max(self.last_timestamp_ms);
        // planted
        if planted::has("timestamp-goes-back") {
            timestamp_ms = self.now_ms;
        }
        let mut last_timestamp_ms = self.last_timestamp_ms;
        let transaction_length = unit.leaf_count() as u16;
        let mut transaction_position = 0;
        for (prepared, prev) in unit.operations.iter().zip(prevs) {
            let rotation;
            let mut leaf = Leaf {
                kind: LeafKind::Put,
                subtype: 0,
                timestamp_ms,
                transaction_position,
                transaction_length,
                prev: *prev,
                commitment: Hash::default(),
                key: &prepared.key,
                author: &unit.author,
                body: b"",
            };
            match &prepared.content {
                Content::Check => continue,
                Content::Put { commitment, .. } => leaf.commitment = *commitment,
                Content::Delete { commitment, .. } => {
                    leaf.kind = LeafKind::Delete;
                    leaf.commitment = *commitment;
                }
                Content::System { subtype, body } => {
                    leaf.kind = LeafKind::System;
                    leaf.subtype = *subtype;
                    leaf.body = body;
                }
                Content::Rotation { old, new } => {
                    let before = self.builder.count() + self.ends.len();
                    let index = LeafIndex::new(self.first.get() + before as u64);
                    rotation = Rotation::sign(old, new, index)
                        .map_err(|error| invalid(error.to_string()))?
                        .to_text();
                    leaf.kind = LeafKind::System;
                    leaf.subtype = SystemKind::LedgerKey as u16;
                    leaf.body = rotation.as_bytes();
                }
                Content::Carried(entry) => {
                    // Byte for byte, its timestamp included: only the order of time is demanded of it.
                    let carried =
                        Leaf::parse(&entry.leaf).map_err(|error| invalid(error.to_string()))?;
                    if carried.timestamp_ms < last_timestamp_ms {
                        return Err(invalid(format!(
                            "timestamps never decrease: a carried leaf has {} ms after {last_timestamp_ms} ms",
                            carried.timestamp_ms
                        )));
                    }
                    last_timestamp_ms = carried.timestamp_ms;
                    self.leaves.extend_from_slice(&entry.leaf);
                    self.ends.push(self.leaves.len());
                    continue;
                }
            }
            leaf.encode_into(&mut self.leaves)
                .map_err(|error| invalid(error.to_string()))?;
            self.ends.push(self.leaves.len());
            last_timestamp_ms = timestamp_ms;
            transaction_position += 1;
        }
        let mut start = 0;
        let written = unit
            .operations
            .iter()
            .filter(|prepared| !matches!(prepared.content, Content::Check));
        for (prepared, end) in written.zip(&self.ends) {
            let private = match &prepared.content {
                Content::Put {
                    salt,
                    metadata,
                    value,
                    ..
                } => Some((salt, &metadata[..], &value[..])),
                Content::Delete { salt, metadata, .. } => Some((salt, &metadata[..], &b""[..])),
                Content::Carried(entry) => entry
                    .private
                    .as_ref()
                    .map(|private| (&private.salt, &private.metadata[..], &private.value[..])),
                Content::System { .. } | Content::Rotation { .. } | Content::Check => None,
            };
            self.builder.push(&self.leaves[start..*end], private);
            start = *end;
        }
        self.last_timestamp_ms = last_timestamp_ms;
        Ok(last_timestamp_ms)
    }
}
