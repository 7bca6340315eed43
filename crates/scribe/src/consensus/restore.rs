//! A node whose log lost entries that it had acknowledged gets them back before it votes again.
//!
//! The leader of a term asks nobody twice for what was acknowledged, and an election counts on every voter having it. So
//! this node refuses to vote, to stand for election and to take leadership over ([`Restoring::blocks`]), and asks the
//! leader how far its log goes. That is at least as far as anything this node ever acknowledged to that leader; what it
//! acknowledged to earlier ones and was committed is in that leader's log, because nobody was elected since without a
//! majority of voters that had it. Once this node has acknowledged, in that same term, everything up to there, its log is
//! as good as one that never lost anything, and it votes again.
//!
//! The leader believes that the node has what it acknowledged. It is told to begin anew before the node's log goes back
//! ([`ConsensusNode::answer_restore`]); otherwise it takes the node for an older copy and lets it be, see
//! [`super::acknowledged`]. Why this is sound: decision 20.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;
use prost::Message as _;

use super::answer::AnswerError;
use super::membership::{decode, decode_stored};
use super::rpc::{RestoreAnswer, kind};
use super::{ConsensusNode, NodeId, TypeConfig};
use crate::peer::Lane;
use crate::store::KnownMembership;

/// How often the leader is asked until the log is back.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the voters of a membership can elect a leader without `node_id`. For a store that has to decide whether its log
/// can be restored.
pub fn others_can_lead(known: KnownMembership<'_>, node_id: NodeId) -> bool {
    let membership = match known {
        KnownMembership::Stored(bytes) => decode_stored(bytes)
            .map(|stored| stored.membership().clone())
            .ok(),
        KnownMembership::Frame(bytes) => decode(bytes).ok(),
    };
    let configs = membership.map(|membership| membership.get_joint_config().clone());
    configs.is_some_and(|configs| {
        let can_lead = |voters: &std::collections::BTreeSet<NodeId>| {
            let others = voters.iter().filter(|id| **id != node_id).count();
            others > voters.len() / 2
        };
        !configs.is_empty() && configs.iter().all(can_lead)
    })
}

/// What this node has to have again.
#[derive(Debug, Clone, Copy)]
struct Goal {
    /// The term of the leader that said so.
    term: u64,
    /// Its last log index plus one then.
    end: u64,
    /// How far this node has acknowledged to that leader since, plus one.
    reached: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing is lost.
    Whole,
    /// Entries are lost; what has to be had again, once a leader has said.
    Lost(Option<Goal>),
}

/// Whether this node is without something it acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Restoring(Arc<Mutex<State>>);

impl Restoring {
    pub(super) fn new(restoring: bool) -> Self {
        let state = if restoring {
            State::Lost(None)
        } else {
            State::Whole
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether this node may neither vote nor lead.
    pub(super) fn blocks(&self) -> bool {
        matches!(*self.0.lock(), State::Lost(_))
    }

    /// The leader of `term` has had a log up to and without `end` since this node restarted.
    fn aim(&self, term: u64, end: u64) {
        if let State::Lost(goal) = &mut *self.0.lock() {
            match goal {
                // The same leader's log has only grown. What is reached stays reached, and the first answer was enough.
                Some(known) if known.term == term => {}
                // A leader of an earlier term that answers late.
                Some(known) if known.term > term => {}
                _ => {
                    *goal = Some(Goal {
                        term,
                        end,
                        reached: 0,
                    });
                }
            }
        }
    }

    /// This node has acknowledged everything before `end` to the leader of `term`: it is on its disk.
    pub(super) fn acknowledged(&self, term: u64, end: u64) {
        if let State::Lost(Some(goal)) = &mut *self.0.lock()
            && goal.term == term
        {
            goal.reached = goal.reached.max(end);
        }
    }

    fn is_reached(&self) -> bool {
        matches!(*self.0.lock(), State::Lost(Some(goal)) if goal.reached >= goal.end)
    }

    fn done(&self) {
        *self.0.lock() = State::Whole;
    }
}

impl ConsensusNode {
    /// Why this node neither votes nor leads for now, if so.
    pub fn restoring(&self) -> Option<&'static str> {
        self.restoring.blocks().then_some(
            "the end of its log was damaged: it does not vote before it has everything back",
        )
    }

    /// Gets back what this node's log lost, if it did: ends when it votes again.
    pub async fn restore(&self) {
        if !self.restoring.blocks() {
            return;
        }
        tracing::warn!(
            "this node does not vote before its log has everything back that it had acknowledged"
        );
        let mut leadership = self.leadership();
        while !self.restoring.is_reached() {
            let leader = self.metrics().current_leader;
            if let Some(leader) = leader.filter(|id| *id != self.node_id)
                && let Err(error) = self.ask_to_restore(leader).await
            {
                tracing::debug!(leader, %error, "the leader does not help to restore the log yet");
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_INTERVAL) => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
        loop {
            let store = self.store.clone();
            match crate::blocking::run(move || store.restored()).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) if self.store.log().poisoned().is_none() => {
                    tracing::error!(%error, "the mark `restoring` cannot be removed; it is tried again");
                }
                // It votes after the next start at the earliest.
                Ok(Err(error)) => {
                    return tracing::error!(%error, "the mark `restoring` cannot be removed");
                }
                Err(error) => {
                    return tracing::error!(%error, "the mark `restoring` was not removed");
                }
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
        self.restoring.done();
        self.raft.runtime_config().elect(true);
        tracing::info!(
            "the log has everything back that it had acknowledged: this node votes again"
        );
    }

    async fn ask_to_restore(&self, leader: NodeId) -> Result<(), String> {
        let wait = self.transport.request();
        let call = self.call(leader, Lane::Control, kind::RESTORE, Vec::new(), wait);
        let body = call.await.map_err(|error| error.to_string())?;
        let answer = RestoreAnswer::decode(body).map_err(|error| error.to_string())?;
        // A leader's log has at least the entry that began its term. An answer of a term that is not the one this node is
        // in would aim at what nobody can reach, or too low.
        let term = self.metrics().current_term;
        if answer.end == 0 || answer.term != term {
            return Err(format!(
                "a leader's log has an entry, and its term is {term}: found {} entries in term {}",
                answer.end, answer.term
            ));
        }
        self.restoring.aim(answer.term, answer.end);
        Ok(())
    }

    /// Answers a node whose log has lost what it acknowledged: how far this leader's log goes. What is known of that node's
    /// log is forgotten, so that it is sent everything it lacks.
    pub(super) async fn answer_restore(
        &self,
        sender: NodeId,
    ) -> Result<RestoreAnswer, AnswerError> {
        let failed = |error: &dyn std::fmt::Display| AnswerError::Failed(error.to_string());
        let before = self.metrics();
        if before.state != ServerState::Leader {
            return Err(failed(&"this node does not lead"));
        }
        // The core first: an answer that goes back must not reach it before it is prepared for one.
        let allowed = self.raft.trigger().allow_next_revert(&sender, true).await;
        allowed
            .map_err(|fatal| failed(&fatal))?
            .map_err(|error| failed(&error))?;
        self.acknowledged.forgive(sender);
        // Read from the log itself, which has an entry before it is sent to anybody.
        let end = self.store.log().last().map_or(0, |last| last.index.0 + 1);
        let after = self.metrics();
        if after.state != ServerState::Leader || after.current_term != before.current_term {
            return Err(failed(&"leadership has just changed"));
        }
        tracing::warn!(
            node = sender,
            end,
            "a node has lost log entries that it had acknowledged, and gets them again"
        );
        Ok(RestoreAnswer {
            term: after.current_term,
            end,
        })
    }

    /// Takes note of what this node has acknowledged to a leader: it is on its disk.
    pub(super) fn note_acknowledged(
        &self,
        request: Appended,
        response: &AppendEntriesResponse<TypeConfig>,
    ) {
        let end = match response {
            AppendEntriesResponse::Success => request.end,
            AppendEntriesResponse::PartialSuccess(matching) => {
                matching.map_or(0, |id| id.index + 1)
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => return,
        };
        self.restoring.acknowledged(request.term, end);
    }
}

/// What an append request was about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    /// Its leader's term.
    term: u64,
    /// Log index behind its last entry.
    end: u64,
}

impl Appended {
    pub(super) fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        let before = request.prev_log_id.map_or(0, |id| id.index + 1);
        Self {
            term: request.vote.leader_id.term,
            end: before + request.entries.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;

    use super::*;
    use crate::consensus::membership::encode;
    use crate::consensus::type_config::PeerAddress;

    #[test]
    fn only_a_log_that_is_acknowledged_to_one_leader_up_to_its_end_is_whole() {
        let restoring = Restoring::new(true);
        assert!(restoring.blocks());
        // Before a leader has said how far, nothing counts.
        restoring.acknowledged(5, 100);
        restoring.aim(5, 90);
        assert!(!restoring.is_reached());
        restoring.acknowledged(5, 89);
        // To another leader it says nothing about what this one's log has.
        restoring.acknowledged(6, 100);
        assert!(!restoring.is_reached());
        // A later leader is asked anew; an earlier one that answers late is not heard.
        restoring.aim(6, 95);
        restoring.aim(5, 1);
        restoring.acknowledged(5, 100);
        assert!(!restoring.is_reached());
        restoring.acknowledged(6, 95);
        assert!(restoring.is_reached());
        assert!(restoring.blocks(), "until the mark is gone");
        restoring.done();
        assert!(!restoring.blocks());
        assert!(!Restoring::new(false).blocks());
    }

    #[test]
    fn the_others_can_lead_if_they_are_a_majority_of_every_configuration() {
        let others_lead = |configs: &[&[u64]], node_id| {
            let sets: Vec<BTreeSet<u64>> = configs
                .iter()
                .map(|ids| ids.iter().copied().collect())
                .collect();
            let nodes: BTreeMap<u64, PeerAddress> =
                (1..=5).map(|id| (id, PeerAddress::default())).collect();
            let membership = Membership::new(sets, nodes).unwrap();
            others_can_lead(KnownMembership::Frame(&encode(&membership)), node_id)
        };
        assert!(others_lead(&[&[1, 2, 3]], 1));
        assert!(others_lead(&[&[1, 2, 3, 4]], 1));
        assert!(!others_lead(&[&[1, 2]], 1));
        assert!(!others_lead(&[&[1]], 1));
        // A learner's vote is not needed.
        assert!(others_lead(&[&[1]], 2));
        assert!(others_lead(&[&[1, 2]], 3));
        assert!(!others_lead(&[&[1, 2, 3], &[1, 2]], 1));
        assert!(!others_can_lead(KnownMembership::Frame(b"rot"), 1));
        assert!(!others_can_lead(KnownMembership::Stored(b""), 1));
    }
}
