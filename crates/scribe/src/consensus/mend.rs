//! Where the bytes of a damaged sealed segment come from: the other members, one after the other, and what is good of the
//! damaged file itself.
//!
//! Every node has the same sealed segments, byte for byte, so any member will do, and none is believed: the store checks
//! what arrived against its own record ([`crate::store::mend`]). A source whose bytes are not the segment's is told to
//! look at its own copy, and the next one is asked; frames that are good by themselves are kept, so that several copies
//! that are each damaged elsewhere still make a whole one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::AnswerError;
use super::rpc::{self, SegmentRequest, kind};
use super::snapshot::{PIECES_IN_FLIGHT, blocking};
use super::{ConsensusNode, NodeId};
use crate::limits;
use crate::peer::Lane;
use crate::store::{Finished, Mend};

/// How often all sources are asked, as long as each round brings something.
const ROUNDS_MAX: usize = 8;
/// How often this node looks at a segment because another one doubts it.
const DOUBT_INTERVAL: Duration = Duration::from_secs(5);

/// Somebody who may have bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Peer(NodeId),
    /// The damaged file.
    Own,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(id) => write!(f, "node {id}"),
            Self::Own => f.write_str("the damaged file"),
        }
    }
}

/// When this node last looked at a segment because another one doubted it.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubts(Arc<Mutex<Option<Instant>>>);

impl Doubts {
    /// Whether it is time to look again: a member must not be able to keep this node busy with re-reading its disk.
    fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| last.elapsed() >= DOUBT_INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl ConsensusNode {
    /// Fetches a damaged segment and puts it in its place; `fetched` hears how many bytes are there. Returns the bytes
    /// of its file.
    ///
    /// # Errors
    /// What each source had to say, if none of them, nor all of them together, have the segment. Nothing was changed but
    /// the frames that are kept for the next attempt.
    pub async fn mend_segment(
        &self,
        mend: Mend,
        mut fetched: impl FnMut(u64) + Send,
    ) -> Result<u64, String> {
        let sources = self.sources();
        let mut reasons: Vec<String> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let before = mend.have();
            reasons.clear();
            for source in &sources {
                let began = mend.have();
                let mut outcome = self.mend_from(*source, &mend, &mut fetched).await;
                if let Ok(Finished::Wrong(_)) = &outcome
                    && began > 0
                    && mend.have() <= began
                {
                    // It may be what was kept from others that does not go together with this one's frames.
                    mend.clear();
                    outcome = self.mend_from(*source, &mend, &mut fetched).await;
                }
                match outcome {
                    Ok(Finished::Mended(bytes)) => return Ok(bytes),
                    Ok(Finished::Wrong(reason)) => {
                        reasons.push(format!("{source} has other bytes: {reason}"));
                        if let Source::Peer(id) = *source {
                            self.doubt(id, mend.segment().number).await;
                        }
                    }
                    Err(error) => reasons.push(format!("{source}: {error}")),
                }
            }
            if mend.have() <= before {
                break;
            }
        }
        Err(reasons.join("; "))
    }

    /// Whom to ask, in order. The leader has the most to do and comes last of the members; everybody begins with another
    /// one.
    fn sources(&self) -> Vec<Source> {
        let leader = self.metrics().current_leader;
        let mut peers = self.other_members();
        peers.sort_unstable_by_key(|id| (Some(*id) == leader, *id < self.node_id, *id));
        let peers = peers.into_iter().map(Source::Peer);
        peers.chain([Source::Own]).collect()
    }

    /// Takes what one source has from where the segment stands up to its end, and has it checked.
    async fn mend_from(
        &self,
        source: Source,
        mend: &Mend,
        fetched: &mut (impl FnMut(u64) + Send),
    ) -> Result<Finished, AnswerError> {
        let address = match source {
            Source::Own => String::new(),
            Source::Peer(id) => match self.peer_address(id) {
                Some(address) => address.raft_addr,
                None => return Err(AnswerError::Failed("its address is not known".to_owned())),
            },
        };
        let started = Instant::now();
        let mut done = 0;
        let offsets = (mend.have()..mend.wanted()).step_by(limits::SEGMENT_PIECE_LENGTH);
        let mut pieces = stream::iter(offsets)
            .map(|offset| self.piece_of(source, &address, mend, offset))
            .buffered(PIECES_IN_FLIGHT);
        while let Some(piece) = pieces.next().await {
            let (offset, bytes) = piece?;
            let length = bytes.len() as u64;
            let writing = mend.clone();
            blocking(move || writing.write(offset, &bytes)).await?;
            done += length;
            fetched(mend.have());
            if source != Source::Own {
                self.pace(started, done).await;
            }
        }
        drop(pieces);
        let finishing = mend.clone();
        blocking(move || finishing.finish()).await
    }

    async fn piece_of(
        &self,
        source: Source,
        address: &str,
        mend: &Mend,
        offset: u64,
    ) -> Result<(u64, Bytes), AnswerError> {
        match source {
            Source::Peer(id) => {
                let number = mend.segment().number;
                self.fetch_piece(id, address, number, offset, true).await
            }
            Source::Own => {
                let mend = mend.clone();
                let read = move || mend.own_bytes(offset, limits::SEGMENT_PIECE_LENGTH);
                let bytes = blocking(read).await?;
                if bytes.is_empty() {
                    return Err(AnswerError::Failed(format!("it ends before byte {offset}")));
                }
                Ok((offset, bytes))
            }
        }
    }

    /// Tells a peer that the segment it sent is not what it must be. Whether it hears is its own business.
    pub(super) async fn doubt(&self, peer: NodeId, number: u32) {
        let request = SegmentRequest {
            number,
            offset: 0,
            length_max: 0,
            doubted: true,
            any_copy: true,
        };
        let wait = self.transport.request();
        let parts = rpc::parts(&request);
        let told = self
            .call(peer, Lane::Bulk, kind::SEGMENT, parts, wait)
            .await;
        tracing::warn!(
            peer,
            segment = number,
            heard = told.is_ok(),
            "a segment came damaged from this node; it is asked to look at its copy"
        );
    }

    /// Looks at a segment that another member has found damaged as it came from here.
    pub(super) fn is_doubted(&self, sender: NodeId, number: u32) {
        if self.doubts.is_due() {
            tracing::warn!(
                sender,
                segment = number,
                "a node says that this segment came damaged from here; it is examined"
            );
            self.store.suspect(number);
        }
    }
}
