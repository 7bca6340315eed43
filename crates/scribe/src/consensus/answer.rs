//! The server side of Raft: what a peer asks, answered by the Raft core.
//!
//! A message of an unknown kind or with malformed bytes is an error to its sender and nothing else. What breaks a rule
//! of Raft is refused before the Raft core sees it (`judge`); the rest is the core's to judge, by vote and
//! lease, also for a node that was removed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{AppendEntriesResponse, VoteRequest};
use prost::Message as _;

use super::judge::{Judge, RefusedMessage};
use super::restore::Appended;
use super::rpc::{self, LogIdMessage, MalformedMessage, ReadIndexAnswer, SegmentRequest, kind};
use super::{ConsensusError, ConsensusNode, NodeId, TypeConfig};
use crate::limits;
use crate::peer::{CallError, Lane, ProgressHandle, Wait};
use crate::store::frame::LogId;

/// Why a peer's message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Its bytes are no message.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// It breaks a rule of Raft.
    #[error(transparent)]
    Refused(#[from] RefusedMessage),
    /// No message of this kind is known.
    #[error("message kind 0x{0:02x} is not known")]
    UnknownKind(u8),
    /// This node cannot answer, now or for ever.
    #[error("{0}")]
    Failed(String),
}

fn failed(error: &dyn std::fmt::Display) -> AnswerError {
    AnswerError::Failed(error.to_string())
}

impl ConsensusNode {
    /// Whether [`Self::answer`] knows this kind of message.
    pub const fn answers(kind: u8) -> bool {
        matches!(kind, kind::APPEND..=kind::RESTORE)
    }

    /// Whether a node this one does not know as a member is answered: messages that carry Raft on, and none that hands
    /// out entries or says what a leader alone can say.
    pub const fn is_for_anyone(kind: u8) -> bool {
        Self::answers(kind) && !matches!(kind, kind::SEGMENT | kind::READ_INDEX | kind::RESTORE)
    }

    /// The longest body a message of this kind may have; it is refused before memory is set aside.
    pub const fn body_length_max(kind: u8) -> usize {
        match kind {
            // One read of the log, which may be a little more than its target, or one frame of any size.
            kind::APPEND => limits::REPLICATION_BYTES_MAX + 2 * limits::FRAME_PART_LENGTH_MAX,
            kind::SNAPSHOT => limits::SNAPSHOT_OFFER_LENGTH_MAX,
            _ => limits::PEER_CONTROL_LENGTH_MAX,
        }
    }

    /// Answers one message of `sender`.
    ///
    /// # Errors
    /// Malformed bytes, an unknown kind, or a Raft core that has stopped.
    pub async fn answer(
        &self,
        sender: NodeId,
        kind: u8,
        body: Bytes,
        progress: &ProgressHandle,
    ) -> Result<Vec<Bytes>, AnswerError> {
        let judge = Judge {
            sender,
            own: self.node_id,
            term: self.metrics().current_term,
        };
        if matches!(kind, kind::VOTE | kind::PRE_VOTE | kind::TRANSFER)
            && let Some(reason) = self.restoring()
        {
            self.votes_withheld.fetch_add(1, Ordering::Relaxed);
            return Err(AnswerError::Failed(reason.to_owned()));
        }
        match kind {
            kind::APPEND => {
                let request = rpc::decode_append(body)?;
                judge.append(&request)?;
                let appended = Appended::of(&request);
                let answer = self.raft.append_entries(request).await;
                let answer = answer.map_err(|error| failed(&error))?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.contact.heard();
                    self.transport.heard_leader();
                }
                self.note_acknowledged(appended, &answer);
                Ok(rpc::encode_append_response(&answer))
            }
            kind::VOTE | kind::PRE_VOTE => {
                let mut request = rpc::decode_vote_request(&body)?;
                judge.vote_request(&request)?;
                request.leadership_transfer &= self.may_skip_lease(&judge, &request);
                let answer = if kind == kind::VOTE {
                    self.raft.vote(request).await
                } else {
                    self.raft.pre_vote(request).await
                };
                Ok(rpc::encode_vote_response(
                    &answer.map_err(|error| failed(&error))?,
                ))
            }
            kind::TRANSFER => {
                let request = rpc::decode_transfer_request(&body)?;
                judge.transfer(&request)?;
                let (term, to) = (request.from_leader().leader_id.term, *request.to_node_id());
                let answer = self.raft.handle_transfer_leader(request).await;
                let answer = answer.map_err(|error| failed(&error))?;
                // The core has found that it comes from the leader of this very term.
                if answer.is_ok() {
                    self.hand_over.note(term, to);
                }
                Ok(rpc::encode_transfer_response(&answer))
            }
            kind::SNAPSHOT => self.receive_snapshot(judge, body, progress).await,
            kind::SEGMENT => {
                let request = SegmentRequest::decode(body).map_err(MalformedMessage::from)?;
                self.segment_bytes(sender, request).await
            }
            kind::RESTORE => Ok(rpc::parts(&self.answer_restore(sender).await?)),
            kind::READ_INDEX => Ok(rpc::parts(&self.answer_read_index().await?)),
            other => Err(AnswerError::UnknownKind(other)),
        }
    }

    /// Whether a call for an election may be believed that its sender was handed leadership: then the lease of the
    /// leader there is does not protect it.
    fn may_skip_lease(&self, judge: &Judge, request: &VoteRequest<TypeConfig>) -> bool {
        let allowed =
            self.hand_over.allows(judge, request) && self.voters().contains(&judge.sender);
        if request.leadership_transfer && !allowed {
            tracing::warn!(
                sender = judge.sender,
                term = request.vote.leader_id.term,
                "a node calls for an election as if leadership had been handed to it; the lease holds"
            );
        }
        allowed
    }

    /// Answers a follower that wants to read.
    async fn answer_read_index(&self) -> Result<ReadIndexAnswer, AnswerError> {
        let mut answer = ReadIndexAnswer::default();
        match self.read_index().await {
            Ok(read) => {
                answer.log_id = Some(LogIdMessage {
                    term: read.term,
                    index: read.index.0,
                });
            }
            Err(ConsensusError::NotLeader { leader }) => {
                answer.other_leader = Some(leader.unwrap_or(0));
            }
            Err(ConsensusError::NoQuorum) => answer.no_quorum = true,
            Err(error) => return Err(failed(&error)),
        }
        Ok(answer)
    }

    /// Asks `leader` up to where a read that begins now must have applied.
    pub(super) async fn remote_read_index(&self, leader: NodeId) -> Result<LogId, ConsensusError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            ConsensusError::Unavailable(format!("leader {leader} did not answer: {error}"))
        };
        let call = self.call(
            leader,
            Lane::Control,
            kind::READ_INDEX,
            Vec::new(),
            self.transport.request(),
        );
        let body = tokio::select! {
            answer = call => answer.map_err(|error| unavailable(&error))?,
            // Asked again at once, of the one that leads now.
            () = self.superseded(leader, Duration::ZERO) => {
                return Err(unavailable(&"another node leads"));
            }
        };
        let answer = ReadIndexAnswer::decode(body).map_err(|error| unavailable(&error))?;
        if let Some(other) = answer.other_leader {
            return Err(ConsensusError::NotLeader {
                leader: Some(other).filter(|id| *id != 0),
            });
        }
        match answer.log_id {
            Some(read) => Ok(LogId::new(read.term, read.index)),
            None => Err(ConsensusError::NoQuorum),
        }
    }

    /// Calls a peer at the address this node knows for it.
    ///
    /// # Errors
    /// As [`crate::peer::Pool::call`]; `Unreachable` if this node runs alone or knows no address.
    pub async fn call(
        &self,
        target: NodeId,
        lane: Lane,
        kind: u8,
        parts: Vec<Bytes>,
        wait: Wait,
    ) -> Result<Bytes, CallError> {
        let unreachable = |text: String| CallError::Unreachable { text };
        let Some(pool) = &self.transport.pool else {
            return Err(unreachable("this node runs alone".to_owned()));
        };
        let Some(address) = self.peer_address(target) else {
            return Err(unreachable(format!("no address of node {target} is known")));
        };
        pool.call(target, &address.raft_addr, lane, kind, parts, wait)
            .await
            .map_err(|error| self.transport.listen(error))
    }
}
