//! What a peer's Raft message must fulfil before the Raft core sees it.
//!
//! openraft takes messages of its own kind on trust: one vote with an absurd term, one append with a hole, or a snapshot
//! beyond its leader's term ends a node, or all of them, for good. A certificate says who speaks; these rules say what
//! that node may say: only for itself, only in terms a cluster can have reached, and only frames that follow each other.

use std::sync::Arc;

use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use parking_lot::Mutex;

use super::type_config::{NodeId, TypeConfig};
use crate::store::segment::SealedSegment;

/// How far a term may lie above the highest one this node knows. Each election raises it by one; a node that was away
/// for years is still far below.
const TERM_STEP_MAX: u64 = 1 << 20;
/// Terms end here, whatever came before: above it there would be no room for elections.
const TERM_MAX: u64 = 1 << 62;

/// Judges the messages of one sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge {
    /// Who sent the message, as its certificate says.
    pub sender: NodeId,
    /// This node.
    pub own: NodeId,
    /// This node's term.
    pub term: u64,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a Raft message is refused: {0}")]
pub struct RefusedMessage(String);

/// The last hand-over of leadership this node knows of: its term, and to whom. Told by the leader it follows, or begun
/// by itself.
///
/// A vote that is asked for after a hand-over says so and is given although the leader's lease still runs. Without a
/// look at who handed what to whom, a node that was removed could end every term by saying so.
#[derive(Debug, Clone, Default)]
pub(super) struct HandOver(Arc<Mutex<Option<(u64, NodeId)>>>);

impl HandOver {
    /// The leader of `term` hands leadership to `to`.
    pub(super) fn note(&self, term: u64, to: NodeId) {
        *self.0.lock() = Some((term, to));
    }

    /// Whether the sender was handed leadership by the leader of this node's own term, and asks for the term after it.
    /// If its request overtakes the leader's word it is as any other candidate: then the lease holds for a while more.
    pub(super) fn allows(&self, judge: &Judge, request: &VoteRequest<TypeConfig>) -> bool {
        *self.0.lock() == Some((judge.term, judge.sender))
            && judge.term.checked_add(1) == Some(request.vote.leader_id.term)
    }
}

type Judged = Result<(), RefusedMessage>;

fn refuse(why: String) -> Judged {
    Err(RefusedMessage(why))
}

/// A term this cluster can have reached, as far as a node in term `known` can tell.
pub(super) fn is_plausible_term(term: u64, known: u64) -> bool {
    // A node that has never taken part, as one that joins, has no term to measure by.
    term <= TERM_MAX && (known == 0 || term <= known.saturating_add(TERM_STEP_MAX))
}

impl Judge {
    fn vote(&self, vote: &VoteOf<TypeConfig>) -> Judged {
        let (term, node_id) = (vote.leader_id.term, vote.leader_id.voted_for);
        if node_id != self.sender || node_id == self.own {
            return refuse(format!(
                "it speaks for node {node_id}, its sender is node {}",
                self.sender
            ));
        }
        if !is_plausible_term(term, self.term) {
            return refuse(format!(
                "its term is {term}, this node is in term {}",
                self.term
            ));
        }
        Ok(())
    }

    fn not_beyond(&self, id: Option<&LogIdOf<TypeConfig>>, vote: &VoteOf<TypeConfig>) -> Judged {
        match id {
            Some(id) if id.leader_id.term > vote.leader_id.term => refuse(format!(
                "a log id has term {}, its vote {}",
                id.leader_id.term, vote.leader_id.term
            )),
            _ => Ok(()),
        }
    }

    /// A request for a vote.
    pub(super) fn vote_request(&self, request: &VoteRequest<TypeConfig>) -> Judged {
        self.vote(&request.vote)?;
        self.not_beyond(request.last_log_id.as_ref(), &request.vote)
    }

    /// A request to take leadership over.
    pub(super) fn transfer(&self, request: &TransferLeaderRequest<TypeConfig>) -> Judged {
        self.vote(request.from_leader())?;
        self.not_beyond(request.last_log_id(), request.from_leader())
    }

    /// Entries of a leader: each follows the one before.
    pub(super) fn append(&self, request: &AppendEntriesRequest<TypeConfig>) -> Judged {
        self.leader(&request.vote)?;
        self.not_beyond(request.prev_log_id.as_ref(), &request.vote)?;
        let mut next = request
            .prev_log_id
            .map_or(0, |id| id.index.saturating_add(1));
        let mut term = request.prev_log_id.map_or(0, |id| id.leader_id.term);
        for entry in &request.entries {
            let id = entry.log_id();
            if id.index != next || id.leader_id.term < term {
                return refuse(format!(
                    "entry {}-{} follows {term}-{}",
                    id.leader_id.term,
                    id.index,
                    next.wrapping_sub(1)
                ));
            }
            (next, term) = (id.index.saturating_add(1), id.leader_id.term);
        }
        if term > request.vote.leader_id.term {
            return refuse(format!(
                "an entry has term {term}, its leader {}",
                request.vote.leader_id.term
            ));
        }
        Ok(())
    }

    /// A snapshot of a leader, for a node that has committed up to `committed`.
    pub(super) fn snapshot(
        &self,
        vote: &VoteOf<TypeConfig>,
        segments: &[SealedSegment],
        committed: Option<LogIdOf<TypeConfig>>,
    ) -> Judged {
        self.leader(vote)?;
        let Some(last) = segments.last().map(|segment| segment.last_log_id) else {
            return refuse("a snapshot has no segments".to_owned());
        };
        if last.term > vote.leader_id.term {
            return refuse(format!(
                "the snapshot ends with {last}, its leader is in term {}",
                vote.leader_id.term
            ));
        }
        // What is committed here is committed everywhere: another entry at its place, or a later term before it, is
        // no history of this ledger.
        if let Some(committed) = committed {
            let same_place = committed.index == last.index.0;
            let differs = same_place && committed.leader_id.term != last.term;
            let earlier = last.index.0 < committed.index && last.term > committed.leader_id.term;
            if differs || earlier {
                return refuse(format!(
                    "the snapshot ends with {last}, this node has committed {}-{}",
                    committed.leader_id.term, committed.index
                ));
            }
        }
        Ok(())
    }

    fn leader(&self, vote: &VoteOf<TypeConfig>) -> Judged {
        self.vote(vote)?;
        if !vote.committed {
            return refuse("its sender was not elected".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;
    use openraft::type_config::alias::EntryOf;

    use super::*;
    use crate::consensus::log_store::to_raft_id;
    use crate::store::frame::LogId;

    const JUDGE: Judge = Judge {
        sender: 2,
        own: 1,
        term: 5,
    };

    fn id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
        to_raft_id(LogId::new(term, index))
    }

    fn append(vote: VoteOf<TypeConfig>, prev: (u64, u64), ids: &[(u64, u64)]) -> Judged {
        let entries = ids
            .iter()
            .map(|(term, index)| EntryOf::<TypeConfig>::new(id(*term, *index), EntryPayload::Blank))
            .collect();
        JUDGE.append(&AppendEntriesRequest {
            vote,
            prev_log_id: Some(id(prev.0, prev.1)),
            entries,
            leader_commit: None,
        })
    }

    fn elected(term: u64, node_id: u64) -> VoteOf<TypeConfig> {
        VoteOf::<TypeConfig>::new_committed(term, node_id)
    }

    #[test]
    fn a_vote_speaks_for_its_sender_in_a_term_there_can_be() {
        let request = |term, node_id| {
            JUDGE.vote_request(&VoteRequest::new(
                VoteOf::<TypeConfig>::new(term, node_id),
                Some(id(5, 9)),
            ))
        };
        request(6, 2).unwrap();
        request(u64::MAX, 2).unwrap_err();
        request(5 + TERM_STEP_MAX + 1, 2).unwrap_err();
        request(6, 3).unwrap_err();
        request(6, 1).unwrap_err();
        // A candidate whose log is of a later term than its candidacy.
        request(4, 2).unwrap_err();
    }

    #[test]
    fn the_lease_is_skipped_only_by_whom_leadership_was_handed_to_in_this_term() {
        let asks = |term| VoteRequest::new(VoteOf::<TypeConfig>::new(term, 2), Some(id(5, 9)));
        let hand_over = HandOver::default();
        assert!(!hand_over.allows(&JUDGE, &asks(6)), "nobody handed over");
        hand_over.note(5, 3);
        assert!(!hand_over.allows(&JUDGE, &asks(6)), "to another node");
        hand_over.note(5, 2);
        assert!(hand_over.allows(&JUDGE, &asks(6)));
        assert!(!hand_over.allows(&JUDGE, &asks(7)), "not the next term");
        let later = Judge { term: 6, ..JUDGE };
        assert!(!hand_over.allows(&later, &asks(7)), "another leader's term");
    }

    #[test]
    fn entries_follow_each_other_and_their_leader_was_elected() {
        append(elected(5, 2), (4, 9), &[(4, 10), (5, 11)]).unwrap();
        append(elected(5, 2), (4, 9), &[]).unwrap();
        append(elected(5, 2), (4, 9), &[(4, 11)]).unwrap_err();
        append(elected(5, 2), (4, 9), &[(4, 10), (4, 12)]).unwrap_err();
        append(elected(5, 2), (4, 9), &[(3, 10)]).unwrap_err();
        append(elected(5, 2), (4, 9), &[(6, 10)]).unwrap_err();
        append(elected(5, 2), (6, 9), &[]).unwrap_err();
        append(elected(5, 1), (4, 9), &[]).unwrap_err();
        append(VoteOf::<TypeConfig>::new(5, 2), (4, 9), &[]).unwrap_err();
    }
}
