//! Fuzz targets: what members say to each other for Raft, and the bytes of a membership.
//!
//! What is understood is written again and then read as the same message. Nothing may be asked for by a number in a
//! message, and what the judge lets through follows.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use prost::Message;

use super::judge::Judge;
use super::log_store::{entry_of, frame_of};
use super::rpc::{self, MalformedMessage};
use super::{SnapshotManifest, membership};
use crate::limits;

/// A member that sent the message, and this node.
const JUDGE: Judge = Judge {
    sender: 2,
    own: 1,
    term: 5,
};

/// Reads, writes, and reads again; compared as text and as bytes.
fn again<T: Debug>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, MalformedMessage>,
    encode: impl Fn(&T) -> Vec<Bytes>,
) -> Option<T> {
    let message = decode(body).ok()?;
    let written = encode(&message).concat();
    let read = decode(&written).expect("what was written can be read");
    assert_eq!(format!("{read:?}"), format!("{message:?}"));
    assert_eq!(encode(&read).concat(), written, "a second encoding");
    Some(message)
}

fn plain<T: Message + Default + PartialEq>(body: &[u8]) {
    if let Ok(message) = T::decode(body) {
        let again = T::decode(&*message.encode_to_vec());
        assert!(again == Ok(message), "what was written is not read");
    }
}

/// A small message; the first byte says which one.
pub(crate) fn raft_message(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    match kind % 9 {
        0 => {
            let (decode, encode) = (rpc::decode_vote_request, rpc::encode_vote_request);
            if let Some(request) = again(body, decode, encode)
                && JUDGE.vote_request(&request).is_ok()
            {
                assert_eq!(request.vote.leader_id.voted_for, JUDGE.sender);
            }
        }
        1 => drop(again(
            body,
            rpc::decode_vote_response,
            rpc::encode_vote_response,
        )),
        2 => {
            let (decode, encode) = (rpc::decode_transfer_request, rpc::encode_transfer_request);
            if let Some(request) = again(body, decode, encode)
                && JUDGE.transfer(&request).is_ok()
            {
                assert_eq!(request.from_leader().leader_id.voted_for, JUDGE.sender);
            }
        }
        3 => drop(again(
            body,
            rpc::decode_transfer_response,
            rpc::encode_transfer_response,
        )),
        4 => drop(again(
            body,
            rpc::decode_append_response,
            rpc::encode_append_response,
        )),
        5 => {
            if let Ok(answer) = rpc::decode_snapshot_answer(body) {
                let written = rpc::encode_snapshot_answer(&answer.vote).concat();
                let read = rpc::decode_snapshot_answer(&written).expect("it can be read");
                assert_eq!(read.vote, answer.vote);
            }
        }
        6 => plain::<rpc::SegmentRequest>(body),
        7 => plain::<rpc::ReadIndexAnswer>(body),
        _ => {
            // No more elements than were counted are ever decoded.
            let most = 3;
            if rpc::check_count(body, 4, most).is_ok()
                && let Ok(many) = Many::decode(body)
            {
                assert!(many.elements.len() <= most);
            }
        }
    }
}

/// A message with a list that has to be counted first.
#[derive(Clone, PartialEq, Message)]
struct Many {
    #[prost(bytes = "bytes", repeated, tag = "4")]
    elements: Vec<Bytes>,
}

/// Entries from a leader.
pub(crate) fn raft_append(data: &[u8]) {
    let decode = |body: &[u8]| rpc::decode_append(Bytes::copy_from_slice(body));
    let Some(request) = again(data, decode, rpc::encode_append) else {
        return;
    };
    assert!(request.entries.len() <= limits::APPEND_FRAMES_MAX);
    let mut held = 0;
    for entry in &request.entries {
        let frame = frame_of(entry);
        assert_eq!(frame.check(), Ok(()));
        let again = entry_of(&frame).expect("what was read is an entry");
        assert_eq!(frame_of(&again), frame);
        held += frame.public.len() + frame.private.len();
    }
    assert!(held <= data.len(), "more bytes than came");
    if JUDGE.append(&request).is_ok() {
        let first = request
            .prev_log_id
            .map_or(0, |id| id.index.saturating_add(1));
        for (place, entry) in request.entries.iter().enumerate() {
            assert_eq!(entry.log_id().index, first.saturating_add(place as u64));
            assert!(entry.log_id().leader_id.term <= request.vote.leader_id.term);
        }
    }
}

/// A leader's offer of its sealed segments.
pub(crate) fn snapshot_offer(data: &[u8]) {
    let decoded = rpc::decode_snapshot_offer(Bytes::copy_from_slice(data));
    let Ok((vote, raft_addr, segments)) = decoded else {
        return;
    };
    assert!(segments.len() <= limits::SNAPSHOT_SEGMENTS_MAX);
    let manifest = SnapshotManifest {
        segments: Arc::new(segments.clone()),
    };
    let written = rpc::encode_snapshot_offer(&vote, &raft_addr, &manifest).concat();
    let read = rpc::decode_snapshot_offer(written.into()).expect("what was written can be read");
    assert_eq!(read.0, vote);
    assert_eq!(read.1, raft_addr);
    // An offer has no sparse tables.
    assert_eq!(read.2.len(), segments.len());
    let same = read.2.iter().zip(&segments).all(|(a, b)| a.is_same(b));
    assert!(same);
    let meta = manifest.meta();
    let last = segments.last().map(|segment| segment.last_log_id);
    if JUDGE.snapshot(&vote, &segments, None).is_ok() {
        assert!(last.is_some_and(|last| last.term <= vote.leader_id.term));
    }
    if let Ok(meta) = meta {
        assert_eq!(
            meta.last_log_id.map(|id| id.index),
            last.map(|id| id.index.0)
        );
    }
}

/// The bytes of a membership, alone and with the log id that set it.
pub(crate) fn membership(data: &[u8]) {
    if let Ok(found) = membership::decode(data) {
        assert_eq!(membership::encode(&found), data, "a second encoding");
    }
    if let Ok(stored) = membership::decode_stored(data)
        && !data.is_empty()
    {
        assert_eq!(
            membership::encode_stored(&stored),
            data,
            "a second encoding"
        );
    }
}

/// Inputs made by the encoders themselves: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
        VoteRequest, VoteResponse,
    };
    use openraft::type_config::alias::VoteOf;
    use openraft::{Membership, StoredMembership};
    use scribe_proof::hash::Hash;
    use scribe_proof::index::{LeafIndex, TreeSize};

    use super::log_store::to_raft_id;
    use super::type_config::{PeerAddress, TypeConfig, leader_of};
    use crate::store::frame::{Frame, FrameKind, LogId};

    let mut made = Vec::new();
    let mut add = |target, name, bytes: Vec<u8>| made.push((target, name, bytes));
    let message = |kind: u8, parts: Vec<Bytes>| [&[kind][..], &parts.concat()].concat();

    let vote = VoteOf::<TypeConfig>::new(6, 2);
    let elected = VoteOf::<TypeConfig>::new_committed(5, 2);
    let id = |term, index| Some(to_raft_id(LogId::new(term, index)));
    let request = VoteRequest::new(vote, id(5, 9));
    add(
        "raft_message",
        "vote",
        message(0, rpc::encode_vote_request(&request)),
    );
    let response = VoteResponse::new(vote, id(5, 9), true);
    add(
        "raft_message",
        "voted",
        message(1, rpc::encode_vote_response(&response)),
    );
    let transfer = TransferLeaderRequest::new(elected, 3, id(5, 9));
    add(
        "raft_message",
        "transfer",
        message(2, rpc::encode_transfer_request(&transfer)),
    );
    let refused = Err(TransferLeaderError::VoteChanged {
        expected: vote,
        actual: elected,
    });
    add(
        "raft_message",
        "transferred",
        message(3, rpc::encode_transfer_response(&Ok(()))),
    );
    add(
        "raft_message",
        "not-transferred",
        message(3, rpc::encode_transfer_response(&refused)),
    );
    for (name, answer) in [
        ("appended", AppendEntriesResponse::Success),
        ("partly", AppendEntriesResponse::PartialSuccess(id(5, 4))),
        ("conflict", AppendEntriesResponse::Conflict),
        ("higher", AppendEntriesResponse::HigherVote(vote)),
    ] {
        add(
            "raft_message",
            name,
            message(4, rpc::encode_append_response(&answer)),
        );
    }
    add(
        "raft_message",
        "installed",
        message(5, rpc::encode_snapshot_answer(&vote)),
    );
    let segment = rpc::SegmentRequest {
        number: 3,
        offset: 70_000,
        length_max: 1 << 20,
        doubted: true,
        any_copy: false,
    };
    add("raft_message", "segment", message(6, rpc::parts(&segment)));
    let read = rpc::ReadIndexAnswer {
        log_id: None,
        other_leader: Some(2),
        no_quorum: true,
    };
    add("raft_message", "read-index", message(7, rpc::parts(&read)));
    let many = Many {
        elements: vec![Bytes::new(); 4],
    };
    add("raft_message", "many", message(8, rpc::parts(&many)));

    let members: BTreeMap<_, _> = [1, 2, 3]
        .into_iter()
        .map(|node| {
            let address = PeerAddress {
                raft_addr: format!("n{node}:7001"),
                http_addr: format!("n{node}:7000"),
            };
            (node, address)
        })
        .collect();
    let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
    let plain = Membership::new(vec![voters(&[1, 2, 3])], members.clone()).expect("members");
    let joint =
        Membership::new(vec![voters(&[1, 2]), voters(&[1, 2, 3])], members).expect("members");
    let stored = |log_id, members: &Membership<_, _>| {
        membership::encode_stored(&StoredMembership::new(log_id, members.clone())).to_vec()
    };
    add("membership", "three", membership::encode(&plain).to_vec());
    add("membership", "joint", membership::encode(&joint).to_vec());
    add(
        "membership",
        "none",
        membership::encode(&Membership::default()).to_vec(),
    );
    let at = openraft::LogId::new(leader_of(4), 8);
    add("membership", "stored", stored(Some(at), &joint));
    add("membership", "stored-first", stored(None, &plain));

    let frame = |index, kind, public: Vec<u8>, private: Vec<u8>| Frame {
        log_id: LogId::new(5, index),
        kind,
        sequencing_term: if kind == FrameKind::Entries { 5 } else { 0 },
        first_leaf: LeafIndex::new(if kind == FrameKind::Entries { 7 } else { 0 }),
        count: u32::from(kind == FrameKind::Entries),
        public: public.into(),
        private: private.into(),
    };
    let head = [&1_u64.to_be_bytes()[..], &[4; 32]].concat();
    let frames = [
        frame(10, FrameKind::Blank, vec![], vec![]),
        frame(11, FrameKind::Entries, vec![1; 30], vec![2; 50]),
        frame(12, FrameKind::Publish, head, vec![]),
        frame(
            13,
            FrameKind::Membership,
            membership::encode(&joint).to_vec(),
            vec![],
        ),
    ];
    for (name, count) in [
        ("nothing", 0),
        ("blank", 1),
        ("entries", 2),
        ("head", 3),
        ("all", 4),
    ] {
        let entries = frames.iter().take(count);
        let request = AppendEntriesRequest {
            vote: elected,
            prev_log_id: id(5, 9),
            entries: entries
                .map(|frame| entry_of(frame).expect("an entry"))
                .collect(),
            leader_commit: id(5, 9),
        };
        add("raft_append", name, rpc::encode_append(&request).concat());
    }

    let summary = |number: u32| {
        let fields: Vec<u8> = (0..crate::store::fuzzing::SUMMARY_FIELDS)
            .map(|at| (at % 7) as u8)
            .collect();
        let mut sealed = crate::store::fuzzing::summary_of(&fields).expect("a summary");
        sealed.number = number;
        sealed.footer.membership = stored(None, &plain).into();
        sealed.footer.published = (TreeSize::new(3), Hash([6; 32]));
        sealed
    };
    for (name, count) in [("none", 0), ("one", 1), ("two", 2), ("three", 3)] {
        let manifest = SnapshotManifest {
            segments: Arc::new((0..count).map(summary).collect()),
        };
        let offer = rpc::encode_snapshot_offer(&elected, "n2:7001", &manifest).concat();
        add("snapshot_offer", name, offer);
    }
    let mut many = rpc::encode_snapshot_offer(&vote, "", &SnapshotManifest::default()).concat();
    many.extend([0x1a, 0].repeat(40));
    add("snapshot_offer", "empty-summaries", many);
    made
}
