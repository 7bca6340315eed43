//! What voters and learners say to each other for Raft: own messages, converted to openraft's types and back by hand.
//!
//! Control fields are prost messages, which can grow; the frames of an append travel beside them as they are, so that
//! values are never copied on the way to a socket. No type of openraft is ever serialized: its layouts are not a
//! contract. Byte maps are in `docs/format-wire.md`.
//!
//! This module turns messages into bytes and back. It opens no connection.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use prost::Message;
use scribe_proof::index::LeafIndex;

use super::log_store::{entry_of, frame_of, to_raft_id, to_store_id};
use super::state_machine::SnapshotManifest;
use super::type_config::TypeConfig;
use crate::limits;
use crate::store::frame::{self, Frame, FrameKind, LogIndex};
use crate::store::segment::SealedSegment;

/// Kinds of Raft messages on the wire. The numbers are the protocol's, for ever.
pub mod kind {
    /// Append entries, or say that the leader is there.
    pub const APPEND: u8 = 0x01;
    /// Ask for a vote.
    pub const VOTE: u8 = 0x02;
    /// Ask whether a vote would be granted.
    pub const PRE_VOTE: u8 = 0x03;
    /// Hand over leadership.
    pub const TRANSFER: u8 = 0x04;
    /// Offer a snapshot: the list of sealed segments.
    pub const SNAPSHOT: u8 = 0x05;
    /// Read bytes of a sealed segment.
    pub const SEGMENT: u8 = 0x06;
    /// Ask the leader up to where a linearizable read must have applied.
    pub const READ_INDEX: u8 = 0x07;
    /// Tell the leader that this node's log lost what it had acknowledged, and ask how far it must be again.
    pub const RESTORE: u8 = 0x08;
}

/// Why bytes from a peer are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message from a peer is malformed: {0}")]
pub struct MalformedMessage(pub String);

impl From<prost::DecodeError> for MalformedMessage {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

fn malformed(what: impl Into<String>) -> MalformedMessage {
    MalformedMessage(what.into())
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VoteMessage {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct LogIdMessage {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct VoteRequestMessage {
    #[prost(message, required, tag = "1")]
    vote: VoteMessage,
    #[prost(message, optional, tag = "2")]
    last_log_id: Option<LogIdMessage>,
    #[prost(bool, tag = "3")]
    leadership_transfer: bool,
}

#[derive(Clone, PartialEq, Message)]
struct VoteResponseMessage {
    #[prost(message, required, tag = "1")]
    vote: VoteMessage,
    #[prost(bool, tag = "2")]
    granted: bool,
    #[prost(message, optional, tag = "3")]
    last_log_id: Option<LogIdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct TransferRequestMessage {
    #[prost(message, required, tag = "1")]
    from: VoteMessage,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(message, optional, tag = "3")]
    last_log_id: Option<LogIdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct TransferResponseMessage {
    /// 0 accepted, 1 the vote changed, 2 the log is not flushed.
    #[prost(uint32, tag = "1")]
    outcome: u32,
    #[prost(message, optional, tag = "2")]
    expected_vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "3")]
    actual_vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "4")]
    expected_log_id: Option<LogIdMessage>,
    #[prost(message, optional, tag = "5")]
    actual_log_id: Option<LogIdMessage>,
}

/// The head of an append; its frames' parts follow it.
#[derive(Clone, PartialEq, Message)]
struct AppendHead {
    #[prost(message, required, tag = "1")]
    vote: VoteMessage,
    #[prost(message, optional, tag = "2")]
    prev_log_id: Option<LogIdMessage>,
    #[prost(message, optional, tag = "3")]
    commit: Option<LogIdMessage>,
    #[prost(message, repeated, tag = "4")]
    frames: Vec<FrameHead>,
}

#[derive(Clone, PartialEq, Message)]
struct FrameHead {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(uint64, tag = "4")]
    sequencing_term: u64,
    #[prost(uint64, tag = "5")]
    first_leaf: u64,
    #[prost(uint32, tag = "6")]
    count: u32,
    #[prost(uint32, tag = "7")]
    public_length: u32,
    #[prost(uint32, tag = "8")]
    private_length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AppendResponseMessage {
    /// 0 success, 1 partial, 2 conflict, 3 a higher vote is known.
    #[prost(uint32, tag = "1")]
    outcome: u32,
    #[prost(message, optional, tag = "2")]
    partial: Option<LogIdMessage>,
    #[prost(message, optional, tag = "3")]
    vote: Option<VoteMessage>,
}

/// An offer of a snapshot: who offers it, and the sealed segments it consists of.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotOffer {
    #[prost(message, required, tag = "1")]
    pub vote: VoteMessage,
    /// Where the segments can be fetched.
    #[prost(string, tag = "2")]
    pub raft_addr: String,
    /// Summaries of the sealed segments, oldest first.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub segments: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotAnswer {
    #[prost(message, required, tag = "1")]
    pub vote: VoteMessage,
}

/// Asks for bytes of a sealed segment.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SegmentRequest {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    #[prost(uint64, tag = "3")]
    pub length_max: u64,
    /// What came of this segment before was not what it must be: the asked node should look at its copy.
    #[prost(bool, tag = "4")]
    pub doubted: bool,
    /// A damaged copy will do: each frame is checked by itself.
    #[prost(bool, tag = "5")]
    pub any_copy: bool,
}

/// How far a node must be again that lost what it had acknowledged.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RestoreAnswer {
    /// The leader's term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Its last log index plus one.
    #[prost(uint64, tag = "2")]
    pub end: u64,
}

/// Up to where a linearizable read must have applied.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadIndexAnswer {
    #[prost(message, optional, tag = "1")]
    pub log_id: Option<LogIdMessage>,
    /// Set when the asked node does not lead: who does, 0 if it does not know.
    #[prost(uint64, optional, tag = "2")]
    pub other_leader: Option<u64>,
    /// Set when a majority cannot be reached.
    #[prost(bool, tag = "3")]
    pub no_quorum: bool,
}

pub(super) fn vote_message(vote: &VoteOf<TypeConfig>) -> VoteMessage {
    VoteMessage {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn to_vote(message: &VoteMessage) -> VoteOf<TypeConfig> {
    if message.committed {
        VoteOf::<TypeConfig>::new_committed(message.term, message.node_id)
    } else {
        VoteOf::<TypeConfig>::new(message.term, message.node_id)
    }
}

pub(super) fn log_id_message(id: &LogIdOf<TypeConfig>) -> LogIdMessage {
    let id = to_store_id(id);
    LogIdMessage {
        term: id.term,
        index: id.index.0,
    }
}

pub(super) fn to_log_id(message: LogIdMessage) -> LogIdOf<TypeConfig> {
    to_raft_id(frame::LogId::new(message.term, message.index))
}

fn log_ids(id: &Option<LogIdOf<TypeConfig>>) -> Option<LogIdMessage> {
    id.as_ref().map(log_id_message)
}

/// One message as the parts of a body.
pub(super) fn parts(message: &impl Message) -> Vec<Bytes> {
    vec![message.encode_to_vec().into()]
}

pub(super) fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> Vec<Bytes> {
    parts(&VoteRequestMessage {
        vote: vote_message(&request.vote),
        last_log_id: log_ids(&request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(super) fn decode_vote_request(
    body: &[u8],
) -> Result<VoteRequest<TypeConfig>, MalformedMessage> {
    let message = VoteRequestMessage::decode(body)?;
    let mut request = VoteRequest::new(to_vote(&message.vote), message.last_log_id.map(to_log_id));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(super) fn encode_vote_response(response: &VoteResponse<TypeConfig>) -> Vec<Bytes> {
    parts(&VoteResponseMessage {
        vote: vote_message(&response.vote),
        granted: response.vote_granted,
        last_log_id: log_ids(&response.last_log_id),
    })
}

pub(super) fn decode_vote_response(
    body: &[u8],
) -> Result<VoteResponse<TypeConfig>, MalformedMessage> {
    let message = VoteResponseMessage::decode(body)?;
    Ok(VoteResponse::new(
        to_vote(&message.vote),
        message.last_log_id.map(to_log_id),
        message.granted,
    ))
}

pub(super) fn encode_transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> Vec<Bytes> {
    parts(&TransferRequestMessage {
        from: vote_message(request.from_leader()),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_message),
    })
}

pub(super) fn decode_transfer_request(
    body: &[u8],
) -> Result<TransferLeaderRequest<TypeConfig>, MalformedMessage> {
    let message = TransferRequestMessage::decode(body)?;
    Ok(TransferLeaderRequest::new(
        to_vote(&message.from),
        message.to,
        message.last_log_id.map(to_log_id),
    ))
}

pub(super) fn encode_transfer_response(
    response: &TransferLeaderResponse<TypeConfig>,
) -> Vec<Bytes> {
    let mut message = TransferResponseMessage::default();
    match response {
        Ok(()) => {}
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            message.outcome = 1;
            message.expected_vote = Some(vote_message(expected));
            message.actual_vote = Some(vote_message(actual));
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            message.outcome = 2;
            message.expected_log_id = log_ids(expected);
            message.actual_log_id = log_ids(actual);
        }
    }
    parts(&message)
}

pub(super) fn decode_transfer_response(
    body: &[u8],
) -> Result<TransferLeaderResponse<TypeConfig>, MalformedMessage> {
    let message = TransferResponseMessage::decode(body)?;
    match (message.outcome, message.expected_vote, message.actual_vote) {
        (0, _, _) => Ok(Ok(())),
        (1, Some(expected), Some(actual)) => Ok(Err(TransferLeaderError::VoteChanged {
            expected: to_vote(&expected),
            actual: to_vote(&actual),
        })),
        (2, _, _) => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: message.expected_log_id.map(to_log_id),
            actual: message.actual_log_id.map(to_log_id),
        })),
        (other, _, _) => Err(malformed(format!("transfer outcome {other}"))),
    }
}

/// Refuses a message with more than `max` elements in its field `tag`, before a byte of memory is set aside for them:
/// an element may take two bytes on the wire and a hundred in memory.
pub(crate) fn check_count(body: &[u8], tag: u32, max: usize) -> Result<(), MalformedMessage> {
    let mut rest = body;
    let mut found = 0;
    while !rest.is_empty() {
        let (field, wire_type) = prost::encoding::decode_key(&mut rest)?;
        prost::encoding::skip_field(
            wire_type,
            field,
            &mut rest,
            prost::encoding::DecodeContext::default(),
        )?;
        found += usize::from(field == tag);
        if found > max {
            return Err(malformed(format!(
                "a message has more than {max} elements in field {tag}"
            )));
        }
    }
    Ok(())
}

/// `u32 head length ‖ head ‖ for each frame its public and private part`, as parts that share the frames' memory.
pub(super) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Vec<Bytes> {
    let frames: Vec<Frame> = request.entries.iter().map(frame_of).collect();
    let head = AppendHead {
        vote: vote_message(&request.vote),
        prev_log_id: log_ids(&request.prev_log_id),
        commit: log_ids(&request.leader_commit),
        frames: frames
            .iter()
            .map(|frame| FrameHead {
                term: frame.log_id.term,
                index: frame.log_id.index.0,
                kind: u32::from(frame.kind as u8),
                sequencing_term: frame.sequencing_term,
                first_leaf: frame.first_leaf.get(),
                count: frame.count,
                public_length: frame.public.len() as u32,
                private_length: frame.private.len() as u32,
            })
            .collect(),
    };
    let length = head.encoded_len();
    let mut first = BytesMut::with_capacity(4 + length);
    first.put_u32(length as u32);
    first.extend_from_slice(&head.encode_to_vec());
    let mut parts = Vec::with_capacity(1 + 2 * frames.len());
    parts.push(first.freeze());
    for frame in frames {
        parts.extend(
            [frame.public, frame.private]
                .into_iter()
                .filter(|part| !part.is_empty()),
        );
    }
    parts
}

/// The append in a body. Frames share the body's memory.
pub(super) fn decode_append(
    mut body: Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, MalformedMessage> {
    if body.len() < 4 {
        return Err(malformed("an append has no head"));
    }
    let length = body.get_u32() as usize;
    if length > body.len() || length > limits::PEER_CONTROL_LENGTH_MAX {
        return Err(malformed(format!(
            "the head of an append is {length} bytes, {} follow, allowed {}",
            body.len(),
            limits::PEER_CONTROL_LENGTH_MAX
        )));
    }
    let head = body.split_to(length);
    check_count(&head, 4, limits::APPEND_FRAMES_MAX)?;
    let head = AppendHead::decode(head)?;
    let mut entries = Vec::with_capacity(head.frames.len());
    for frame in head.frames {
        let (public, private) = (frame.public_length as usize, frame.private_length as usize);
        if public > limits::FRAME_PART_LENGTH_MAX || private > limits::FRAME_PART_LENGTH_MAX {
            return Err(malformed(format!(
                "a frame part is {} bytes, allowed {}",
                public.max(private),
                limits::FRAME_PART_LENGTH_MAX
            )));
        }
        if public + private > body.len() {
            return Err(malformed(format!(
                "frame {} needs {} bytes, {} follow",
                frame.index,
                public + private,
                body.len()
            )));
        }
        let kind = u8::try_from(frame.kind)
            .ok()
            .and_then(FrameKind::from_u8)
            .ok_or_else(|| malformed(format!("frame kind {}", frame.kind)))?;
        let frame = Frame {
            log_id: frame::LogId {
                term: frame.term,
                index: LogIndex(frame.index),
            },
            kind,
            sequencing_term: frame.sequencing_term,
            first_leaf: LeafIndex::new(frame.first_leaf),
            count: frame.count,
            public: body.split_to(public),
            private: body.split_to(private),
        };
        frame
            .check()
            .map_err(|error| malformed(error.to_string()))?;
        entries.push(entry_of(&frame).map_err(|error| malformed(error.to_string()))?);
    }
    if !body.is_empty() {
        return Err(malformed(format!(
            "{} bytes follow the last frame of an append",
            body.len()
        )));
    }
    Ok(AppendEntriesRequest {
        vote: to_vote(&head.vote),
        prev_log_id: head.prev_log_id.map(to_log_id),
        entries,
        leader_commit: head.commit.map(to_log_id),
    })
}

pub(super) fn encode_append_response(response: &AppendEntriesResponse<TypeConfig>) -> Vec<Bytes> {
    let mut message = AppendResponseMessage::default();
    match response {
        AppendEntriesResponse::Success => {}
        AppendEntriesResponse::PartialSuccess(id) => {
            message.outcome = 1;
            message.partial = log_ids(id);
        }
        AppendEntriesResponse::Conflict => message.outcome = 2,
        AppendEntriesResponse::HigherVote(vote) => {
            message.outcome = 3;
            message.vote = Some(vote_message(vote));
        }
    }
    parts(&message)
}

pub(super) fn decode_append_response(
    body: &[u8],
) -> Result<AppendEntriesResponse<TypeConfig>, MalformedMessage> {
    let message = AppendResponseMessage::decode(body)?;
    Ok(match (message.outcome, message.vote) {
        (0, _) => AppendEntriesResponse::Success,
        (1, _) => AppendEntriesResponse::PartialSuccess(message.partial.map(to_log_id)),
        (2, _) => AppendEntriesResponse::Conflict,
        (3, Some(vote)) => AppendEntriesResponse::HigherVote(to_vote(&vote)),
        (other, _) => return Err(malformed(format!("append outcome {other}"))),
    })
}

/// An offer of the segments of `manifest`, to be fetched at `raft_addr`.
pub(super) fn encode_snapshot_offer(
    vote: &VoteOf<TypeConfig>,
    raft_addr: &str,
    manifest: &SnapshotManifest,
) -> Vec<Bytes> {
    parts(&SnapshotOffer {
        vote: vote_message(vote),
        raft_addr: raft_addr.to_owned(),
        segments: manifest
            .segments
            .iter()
            .map(SealedSegment::encode_summary)
            .collect(),
    })
}

/// Vote, address and segments of an offer.
pub(super) fn decode_snapshot_offer(
    body: Bytes,
) -> Result<(VoteOf<TypeConfig>, String, Vec<SealedSegment>), MalformedMessage> {
    check_count(&body, 3, limits::SNAPSHOT_SEGMENTS_MAX)?;
    let offer = SnapshotOffer::decode(body)?;
    let segments = offer
        .segments
        .iter()
        .map(|summary| {
            SealedSegment::parse_summary(summary).map_err(|error| malformed(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    Ok((to_vote(&offer.vote), offer.raft_addr, segments))
}

pub(super) fn encode_snapshot_answer(vote: &VoteOf<TypeConfig>) -> Vec<Bytes> {
    parts(&SnapshotAnswer {
        vote: vote_message(vote),
    })
}

pub(super) fn decode_snapshot_answer(
    body: &[u8],
) -> Result<SnapshotResponse<TypeConfig>, MalformedMessage> {
    let answer = SnapshotAnswer::decode(body)?;
    Ok(SnapshotResponse::new(to_vote(&answer.vote)))
}
