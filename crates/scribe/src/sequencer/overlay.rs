//! What the frames in flight change on top of the applied state.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use scribe_proof::index::LeafIndex;

use super::InFlight;
use super::submission::{Content, Idempotency, Unit};

/// The frames in flight and what they change on top of the applied state.
pub(super) struct Overlay {
    pub(super) next_index: LeafIndex,
    pub(super) last_timestamp_ms: u64,
    pub(super) next_frame: u64,
    pub(super) frames: VecDeque<InFlight>,
    /// Newest version of each key that a frame in flight writes.
    pub(super) keys: HashMap<Bytes, InFlightVersion>,
    /// Idempotency keys of units in flight.
    pub(super) idempotency: HashMap<[u8; 16], InFlightWrite>,
}

#[derive(Clone, Copy)]
pub(super) struct InFlightVersion {
    pub(super) index: LeafIndex,
    pub(super) deleted: bool,
    pub(super) frame: u64,
}

pub(super) struct InFlightWrite {
    pub(super) fingerprint: [u8; 16],
    pub(super) frame: u64,
    pub(super) unit: usize,
}

impl Overlay {
    pub(super) fn frame_mut(&mut self, number: u64) -> Option<&mut InFlight> {
        let oldest = self.frames.front()?.number;
        self.frames
            .get_mut(usize::try_from(number.checked_sub(oldest)?).ok()?)
    }

    /// Notes what an accepted unit will change.
    pub(super) fn place(&mut self, unit: &Unit, frame: u64, position: usize) {
        for prepared in &unit.operations {
            let deleted = match &prepared.content {
                Content::Check => continue,
                Content::Put { .. } => false,
                Content::Delete { .. } => true,
                Content::System { .. } | Content::Rotation { .. } | Content::Carried(_) => {
                    self.next_index = self.next_index.next();
                    continue;
                }
            };
            let version = InFlightVersion {
                index: self.next_index,
                deleted,
                frame,
            };
            self.keys.insert(prepared.key.clone(), version);
            self.next_index = self.next_index.next();
        }
        if let Some(Idempotency {
            key_hash,
            fingerprint,
        }) = unit.idempotency
        {
            self.idempotency.insert(
                key_hash,
                InFlightWrite {
                    fingerprint,
                    frame,
                    unit: position,
                },
            );
        }
    }

    /// Forgets a frame that is applied: the store answers for it now.
    pub(super) fn forget(&mut self, frame: &InFlight) {
        for placed in &frame.units {
            for prepared in &placed.unit.operations {
                if self
                    .keys
                    .get(&prepared.key)
                    .is_some_and(|version| version.frame == frame.number)
                {
                    self.keys.remove(&prepared.key);
                }
            }
            if let Some(Idempotency { key_hash, .. }) = &placed.unit.idempotency {
                self.idempotency.remove(key_hash);
            }
        }
    }
}
