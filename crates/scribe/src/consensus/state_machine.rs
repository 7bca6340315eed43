//! The one place that asks the ledger and hands its effects to the store.
//!
//! Applying a frame is: verify and decide (`ledger::apply`, pure), then make it visible (`Store::apply`), then answer the
//! proposer. Nothing here decides anything itself. An error from here stops the node: it is only returned for what no
//! correct leader can have committed, or when this node's own tree disagrees with what the voters agreed on.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StoredMembership};
use parking_lot::Mutex;

use super::log_store::{entry_of, frame_of, to_raft_id, to_store_id};
use super::membership;
use super::type_config::{AppliedOutcome, Proposal, TypeConfig};
use crate::ledger::{self, EntriesFrame, LedgerState, Outcome};
use crate::store::frame::{Frame, FrameKind, FramePosition, LogIndex};
use crate::store::segment::SealedSegment;
use crate::store::{Applied, Effects, LeafEffect, Store};

/// The state machine: the store, seen as openraft wants it.
#[derive(Debug, Clone)]
pub struct StateMachine {
    store: Store,
    /// The last snapshot built or installed; shared with the builders openraft takes from here.
    snapshot: Arc<Mutex<Option<SnapshotManifest>>>,
}

/// What a snapshot is here: a list of sealed segments with their hashes and the state after them, never a serialized
/// map. The files travel on their own and are checked against it.
#[derive(Debug, Clone)]
pub struct SnapshotManifest {
    /// State after the last applied frame.
    pub applied: Applied,
    /// Every sealed segment, oldest first.
    pub segments: Vec<SealedSegment>,
    /// Log indexes of the frames after the last sealed segment; read from the log when the snapshot is sent.
    pub tail: Range<LogIndex>,
}

/// Applies what the log holds behind the applied state, committed or not: for looking at a stopped node's data. A
/// running node applies only what is committed, and only what is committed may be sealed: nothing is sealed from here.
pub fn replay(store: &Store) -> io::Result<()> {
    store.stop_sealing();
    let state_machine = StateMachine::new(store.clone());
    let mut next = store.applied().last_log_id.map_or(0, |id| id.index.0 + 1);
    loop {
        let frames = store.log().read(next..u64::MAX, 4 * crate::limits::MIB)?;
        let Some(last) = frames.last() else {
            return Ok(());
        };
        next = last.log_id.index.0 + 1;
        for frame in &frames {
            state_machine.apply_frame(frame, &entry_of(frame)?.payload)?;
        }
    }
}

impl StateMachine {
    /// Over an open store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            snapshot: Arc::default(),
        }
    }

    fn apply_frame(
        &self,
        frame: &Frame,
        payload: &EntryPayload<Proposal, u64, super::PeerAddress>,
    ) -> io::Result<AppliedOutcome> {
        let applied = self.store.applied();
        let (effects, outcome) = match payload {
            EntryPayload::Blank => (Effects::Nothing, AppliedOutcome::Nothing),
            EntryPayload::Membership(members) => {
                let stored = StoredMembership::new(Some(to_raft_id(frame.log_id)), members.clone());
                (
                    Effects::Membership(membership::encode_stored(&stored)),
                    AppliedOutcome::Nothing,
                )
            }
            EntryPayload::Normal(Proposal::Publish { size, root }) => {
                // Every node compares at the same size: one whose tree differs from what a majority agreed on is
                // wrong and must stop before it serves or signs anything more.
                let own = self.store.root_at(*size)?;
                if own != *root {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "this node's root at tree size {size} is {own}, the agreed one is {root}"
                        ),
                    ));
                }
                (
                    Effects::Publish {
                        size: *size,
                        root: *root,
                    },
                    AppliedOutcome::Published {
                        size: *size,
                        root: *root,
                    },
                )
            }
            EntryPayload::Normal(Proposal::Entries {
                sequencing_term,
                first_leaf,
                count,
                public,
                private,
            }) => {
                let state = LedgerState {
                    tree_size: applied.tree_size,
                    last_timestamp_ms: applied.last_timestamp_ms,
                };
                let entries = EntriesFrame {
                    term: frame.log_id.term,
                    sequencing_term: *sequencing_term,
                    first_leaf: *first_leaf,
                    count: *count,
                    public: public.clone(),
                    private: private.clone(),
                };
                match ledger::apply(state, &entries)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
                {
                    Outcome::Void => (Effects::Void, AppliedOutcome::Void),
                    Outcome::Valid(entries) => {
                        let leaf_hashes =
                            entries.leaves.iter().map(|leaf| leaf.leaf_hash).collect();
                        let leaves = entries
                            .leaves
                            .into_iter()
                            .map(|leaf| LeafEffect {
                                leaf_hash: leaf.leaf_hash,
                                key: leaf.key,
                                kind: leaf.kind,
                                timestamp_ms: leaf.timestamp_ms,
                            })
                            .collect();
                        (
                            Effects::Entries(leaves, entries.digests),
                            AppliedOutcome::Entries {
                                first: *first_leaf,
                                leaf_hashes,
                            },
                        )
                    }
                }
            }
        };
        self.store.apply(frame, self.position_of(frame)?, effects)?;
        Ok(outcome)
    }

    /// Where the frame lies in the log. Only frames that carry leaves must be there; openraft's conformance suite
    /// applies blank and membership entries it never appended.
    fn position_of(&self, frame: &Frame) -> io::Result<FramePosition> {
        match self.store.log().position(frame.log_id.index) {
            Some(position) => Ok(position),
            None if frame.count == 0 => {
                let tail = self.store.log().tail();
                Ok(FramePosition {
                    segment: tail.segment,
                    offset: tail.offset,
                    length: 0,
                })
            }
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "the frame at log index {} is applied but not in the log",
                    frame.log_id.index
                ),
            )),
        }
    }

    fn stored_membership(bytes: &[u8]) -> io::Result<StoredMembershipOf<TypeConfig>> {
        membership::decode_stored(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn meta(manifest: &SnapshotManifest) -> io::Result<SnapshotMetaOf<TypeConfig>> {
        Ok(SnapshotMeta {
            last_log_id: manifest.applied.last_log_id.map(to_raft_id),
            last_membership: Self::stored_membership(&manifest.applied.membership)?,
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotManifest;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        let applied = self.store.applied();
        Ok((
            applied.last_log_id.map(to_raft_id),
            Self::stored_membership(&applied.membership)?,
        ))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            // Waiting here, and in the sequencer, is the only back-pressure: log appends never wait for sealing.
            self.store.apply_room().await;
            let frame = frame_of(&entry);
            let outcome = self.apply_frame(&frame, &entry.payload)?;
            // Visible before answered: whoever hears of the write can read it.
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotManifest,
    ) -> Result<(), io::Error> {
        let own = self.store.applied();
        if snapshot.applied.tree_size != own.tree_size {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the snapshot has {} leaves, this node {}: segments cannot be fetched from peers yet",
                    snapshot.applied.tree_size, own.tree_size
                ),
            ));
        }
        if let Some(last) = &meta.last_log_id {
            let frame = Frame {
                log_id: to_store_id(last),
                kind: FrameKind::Membership,
                sequencing_term: 0,
                first_leaf: own.tree_size.next_index(),
                count: 0,
                public: bytes::Bytes::new(),
                private: bytes::Bytes::new(),
            };
            let position = self.position_of(&frame)?;
            let members = membership::encode_stored(&meta.last_membership);
            self.store
                .apply(&frame, position, Effects::Membership(members))?;
        }
        *self.snapshot.lock() = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotManifest>>, io::Error> {
        let Some(manifest) = self.snapshot.lock().clone() else {
            return Ok(None);
        };
        Ok(Some(openraft::Snapshot {
            meta: Self::meta(&manifest)?,
            snapshot: manifest,
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotManifest;

    async fn build_snapshot(
        &mut self,
    ) -> Result<SnapshotOf<TypeConfig, SnapshotManifest>, io::Error> {
        let applied = self.store.applied();
        let segments: Vec<SealedSegment> = self.store.log().sealed().to_vec();
        let first = segments
            .last()
            .map_or(0, |segment| segment.last_log_id.index.0 + 1);
        let end = applied.last_log_id.map_or(0, |id| id.index.0 + 1);
        let tail = LogIndex(first)..LogIndex(end.max(first));
        let manifest = SnapshotManifest {
            applied,
            segments,
            tail,
        };
        let meta = Self::meta(&manifest)?;
        *self.snapshot.lock() = Some(manifest.clone());
        Ok(openraft::Snapshot {
            meta,
            snapshot: manifest,
        })
    }
}
