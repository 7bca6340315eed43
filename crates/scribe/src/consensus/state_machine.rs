//! The one place that asks the ledger and hands its effects to the store.
//!
//! Applying a frame is: verify and decide (`ledger::apply`, pure), then make it visible (`Store::apply`), then answer the
//! proposer. Nothing here decides anything itself. An error from here stops the node: it is only returned for what no
//! correct leader can have committed, or when this node's own tree disagrees with what the voters agreed on.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StoredMembership};
use parking_lot::Mutex;
use scribe_proof::index::TreeSize;

use super::log_store::{entry_of, frame_of, to_raft_id, to_store_id};
use super::membership;
use super::type_config::{AppliedOutcome, Proposal, TypeConfig};
use crate::blocking;
use crate::ledger::{self, EntriesFrame, LedgerState, Outcome};
use crate::planted;
use crate::store::frame::{Frame, FrameKind, FramePosition};
use crate::store::segment::SealedSegment;
use crate::store::{Effects, LeafEffect, Store};

/// The state machine: the store, seen as openraft wants it.
#[derive(Debug, Clone)]
pub struct StateMachine {
    store: Store,
    /// The last snapshot built or installed; shared with the builders openraft takes from here.
    snapshot: Arc<Mutex<Option<Snapshot>>>,
}

type Snapshot = SnapshotOf<TypeConfig, SnapshotManifest>;

/// Bytes of frames read at once to be applied.
const APPLY_BYTES_MAX: usize = 4 * crate::limits::MIB;

/// What a snapshot is here: the list of sealed segments, never a serialized map. The state is that at the end of the
/// last one, and everything openraft wants to know of it is in that segment's footer, so nothing but the list has to
/// travel; the files are fetched and checked against it before the snapshot is installed. What follows the last
/// segment is replicated as log entries.
#[derive(Debug, Clone, Default)]
pub struct SnapshotManifest {
    /// Every sealed segment, oldest first.
    pub segments: Arc<Vec<SealedSegment>>,
}

impl SnapshotManifest {
    /// What openraft knows a snapshot with these segments by.
    ///
    /// # Errors
    /// Kind `InvalidData` for a membership this program cannot read.
    pub fn meta(&self) -> io::Result<SnapshotMetaOf<TypeConfig>> {
        let Some(last) = self.segments.last() else {
            return Ok(SnapshotMeta::default());
        };
        Ok(SnapshotMeta {
            last_log_id: Some(to_raft_id(last.last_log_id)),
            last_membership: stored_membership(&last.footer.membership)?,
        })
    }
}

fn stored_membership(bytes: &[u8]) -> io::Result<StoredMembershipOf<TypeConfig>> {
    membership::decode_stored(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Applies what the log holds behind the applied state, committed or not: for looking at a stopped node's data. A
/// running node applies only what is committed, and only what is committed may be sealed: nothing is sealed from here.
pub fn replay(store: &Store) -> io::Result<()> {
    store.stop_sealing();
    let state_machine = StateMachine::new(store.clone());
    let mut next = store.applied().last_log_id.map_or(0, |id| id.index.0 + 1);
    loop {
        let frames = store.log().read(next..u64::MAX, APPLY_BYTES_MAX)?;
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
                    // planted
                    sequencing_term: match planted::has("void-frame-applied") {
                        true => frame.log_id.term,
                        false => *sequencing_term,
                    },
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

    /// The snapshot there is now.
    fn newest_snapshot(&self) -> io::Result<Snapshot> {
        let manifest = SnapshotManifest {
            segments: self.store.log().sealed(),
        };
        let applied = self.store.applied();
        let meta = if manifest.segments.is_empty() && applied.tree_size == TreeSize::EMPTY {
            // Without a leaf, log id and membership are all the state there is. Nobody asks for such a snapshot but
            // openraft's conformance suite, which applies frames it never appended and purges what was never sealed; a
            // node purges only what is sealed, so it never has to send one, and cannot: only segments travel.
            SnapshotMeta {
                last_log_id: applied.last_log_id.map(to_raft_id),
                last_membership: stored_membership(&applied.membership)?,
            }
        } else {
            manifest.meta()?
        };
        Ok(openraft::Snapshot {
            meta,
            snapshot: manifest,
        })
    }

    /// Applies the frames of this node's own log up to the end of a sealed segment of another node.
    async fn apply_own(&self, last: &SealedSegment) -> io::Result<()> {
        let end = last.last_log_id.index.0 + 1;
        loop {
            let applied = self.store.applied().last_log_id;
            let next = applied.map_or(0, |id| id.index.0 + 1);
            if next >= end {
                break;
            }
            let frames = self.store.log().read(next..end, APPLY_BYTES_MAX)?;
            if frames.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("log index {next} is not in the log, which ends behind it"),
                ));
            }
            for frame in &frames {
                self.store.apply_room().await;
                self.apply_frame(frame, &entry_of(frame)?.payload)?;
            }
        }
        let own = self.store.root_at(last.footer.end_size)?;
        if own != last.footer.end_root {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "this node's root at tree size {} is {own}, that of the snapshot is {}: this node has diverged",
                    last.footer.end_size, last.footer.end_root
                ),
            ));
        }
        Ok(())
    }

    /// Brings log and state to the end of a snapshot whose segments were fetched and verified.
    async fn install(&self, segments: Arc<Vec<SealedSegment>>) -> io::Result<()> {
        let Some(last) = segments.last() else {
            return Ok(());
        };
        let applied = self.store.applied().last_log_id;
        if applied.map(|id| id.index) >= Some(last.last_log_id.index) {
            return Ok(());
        }
        let store = self.store.clone();
        if store.log().id_at(last.last_log_id.index) == Some(last.last_log_id) {
            // The log already holds the snapshot's last entry, so all before it is the same, too (log matching), and
            // committed. No file has to be touched, and what the log holds behind it stays, as openraft expects: it
            // drops nothing either.
            self.apply_own(last).await?;
            let end = last.last_log_id;
            return blocking::io(move || store.log().wait_flushed(end)).await;
        }
        // Otherwise no frame behind the snapshot is to stay: the log ends before it, or holds another frame at its last
        // place, and openraft has then dropped all that is not committed.
        blocking::io(move || store.install(&segments)).await
    }

    /// Takes over a snapshot that says nothing but log id and membership: see [`StateMachine::newest_snapshot`].
    fn install_bare(&self, meta: &SnapshotMetaOf<TypeConfig>) -> io::Result<()> {
        let Some(last) = &meta.last_log_id else {
            return Ok(());
        };
        if self.store.log().last().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the snapshot ends at log index {} and lists no segment",
                    last.index
                ),
            ));
        }
        let frame = Frame {
            log_id: to_store_id(last),
            kind: FrameKind::Membership,
            sequencing_term: 0,
            first_leaf: self.store.applied().tree_size.next_index(),
            count: 0,
            public: bytes::Bytes::new(),
            private: bytes::Bytes::new(),
        };
        let position = self.position_of(&frame)?;
        let members = membership::encode_stored(&meta.last_membership);
        self.store
            .apply(&frame, position, Effects::Membership(members))?;
        Ok(())
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
            stored_membership(&applied.membership)?,
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
        if snapshot.segments.is_empty() {
            self.install_bare(meta)?;
        } else {
            if snapshot.meta()? != *meta {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the snapshot is said to end at {meta:?}, its last segment says otherwise"
                    ),
                ));
            }
            self.install(snapshot.segments.clone()).await?;
        }
        *self.snapshot.lock() = Some(openraft::Snapshot {
            meta: meta.clone(),
            snapshot,
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some(built) = self.snapshot.lock().clone() else {
            return Ok(None);
        };
        // What was sealed since it was built is in the list by now, and whoever gets it has less to catch up.
        let newest = self.newest_snapshot()?;
        if newest.meta.last_log_id > built.meta.last_log_id {
            return Ok(Some(newest));
        }
        Ok(Some(built))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotManifest;

    /// The end of the last sealed segment, which may be long before what is applied; an empty one, which openraft takes
    /// for none, before the first.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let snapshot = self.newest_snapshot()?;
        *self.snapshot.lock() = Some(snapshot.clone());
        Ok(snapshot)
    }
}
