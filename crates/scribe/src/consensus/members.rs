//! Who belongs to the group, and how that changes.
//!
//! The replicated membership is the truth; a change takes effect when it is committed, one at a time, by joint
//! consensus. A change that would leave the group without a majority that can be reached is refused before it begins:
//! once begun, it could not be undone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref as _;
use std::time::Duration;

use openraft::Instant as _;
use openraft::error::RaftError;
use openraft::raft::Precondition;
use openraft::type_config::alias::LogIdOf;
use openraft::{ChangeMembers, ServerState};

use super::{ConsensusError, ConsensusNode, NodeId, PeerAddress, TypeConfig, write_error};
use crate::limits;
use crate::store::frame::LogIndex;

/// A voter that acknowledged something within this time counts as reachable.
const REACHABLE_WITHIN: Duration = Duration::from_secs(5);

/// A majority that acknowledged a leader within this time has not replaced it.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);

/// One member, as the replicated membership and, on a leader, replication knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node_id: NodeId,
    /// Where it is reached.
    pub address: PeerAddress,
    /// Whether it votes.
    pub voter: bool,
    /// Last log index known to be on its disk; `None` on a node that does not lead, or if nothing is known.
    pub matched: Option<LogIndex>,
    /// How long ago it last acknowledged anything to this leader.
    pub last_seen: Option<Duration>,
}

impl ConsensusNode {
    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Whether this node has no way to reach others.
    pub fn is_alone(&self) -> bool {
        self.transport.pool.is_none()
    }

    /// Why this node is no member any more, once a leader has told it.
    pub fn removed(&self) -> Option<String> {
        self.transport.removed().filter(|_| !self.is_leader())
    }

    /// Ends the pause before a peer that could not be reached is tried again.
    pub fn retry_now(&self, id: NodeId) {
        if let Some(pool) = &self.transport.pool {
            pool.retry_now(id);
        }
    }

    /// Closes the connections to a peer that is no member any more.
    pub fn forget_peer(&self, id: NodeId) {
        if let Some(pool) = &self.transport.pool {
            pool.forget(id);
        }
    }

    /// All voters, of both configurations while a change is under way.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.metrics().membership_config.voter_ids().collect()
    }

    /// Every member but this node.
    pub fn other_members(&self) -> Vec<NodeId> {
        let metrics = self.metrics();
        metrics
            .membership_config
            .nodes()
            .map(|(id, _)| *id)
            .filter(|id| *id != self.node_id)
            .collect()
    }

    /// Whether `id` may speak to this node. Whom it has seen leave, it refuses. Whom it does not know, only a leader
    /// that a majority has just confirmed refuses: its membership is the newest there is. A node that lags may not know
    /// the newest member yet, and a leader that was cut off may have been replaced by just those it does not know.
    pub fn is_welcome(&self, id: NodeId) -> bool {
        if self.departed.contains(id) {
            return false;
        }
        let metrics = self.metrics();
        let confirmed = metrics
            .last_quorum_acked
            .is_some_and(|acked| acked.deref().elapsed() < CONFIRMED_WITHIN);
        metrics.state != ServerState::Leader
            || !confirmed
            || metrics.membership_config.get_node(&id).is_some()
            // A removal that is not committed may never be.
            || *metrics.membership_config.log_id() > metrics.local_committed
    }

    /// Whether `id` is a member, as far as this node knows; everybody is while there is no membership yet.
    pub fn knows(&self, id: NodeId) -> bool {
        let metrics = self.metrics();
        let membership = &metrics.membership_config;
        membership.nodes().next().is_none() || membership.get_node(&id).is_some()
    }

    /// Every member, with what this node knows of it.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.metrics();
        // While a change is under way, those who will vote after it.
        let voters: BTreeSet<NodeId> = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .last()
            .cloned()
            .unwrap_or_default();
        metrics
            .membership_config
            .nodes()
            .map(|(id, address)| {
                let own = *id == self.node_id;
                let matched = match &metrics.replication {
                    Some(replication) if !own => replication
                        .get(id)
                        .and_then(Option::as_ref)
                        .map(|id| LogIndex(id.index)),
                    _ if own => metrics.last_log_index.map(LogIndex),
                    _ => None,
                };
                let last_seen = metrics
                    .heartbeat
                    .as_ref()
                    .and_then(|heartbeat| heartbeat.get(id))
                    .and_then(Option::as_ref)
                    .map(|instant| instant.deref().elapsed());
                Member {
                    node_id: *id,
                    address: address.clone(),
                    voter: voters.contains(id),
                    matched,
                    last_seen: if own { Some(Duration::ZERO) } else { last_seen },
                }
            })
            .collect()
    }

    /// A node id that was never used and never will be: the log index of a committed blank entry.
    pub async fn allocate_node_id(&self) -> Result<NodeId, ConsensusError> {
        loop {
            let written = self.raft.write_blank().await.map_err(write_error)?;
            let id = written.log_id.index;
            // The ids a cluster begins with are small numbers that no log index stands for.
            if id > limits::BOOTSTRAP_MEMBERS_MAX as u64 {
                return Ok(id);
            }
        }
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// It is no learner, it lags, or too few voters could be reached afterwards.
    pub async fn promote(&self, id: NodeId) -> Result<(), ConsensusError> {
        let judged = self.judged();
        let member = find(&judged.members, id)?;
        if member.voter && judged.settled {
            return Ok(());
        }
        if member.voter {
            return Err(ConsensusError::Unavailable(
                "a change of the membership is under way".to_owned(),
            ));
        }
        self.check_caught_up(member)?;
        check_majority(&judged.members, &[], &[id])?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change(judged, change, true).await
    }

    /// Removes a member for good.
    ///
    /// # Errors
    /// It is no member, the last voter, or too few voters could be reached afterwards.
    pub async fn remove(&self, id: NodeId) -> Result<(), ConsensusError> {
        let judged = self.judged();
        let members = &judged.members;
        if !find(members, id)?.voter {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            return self.change(judged, change, false).await;
        }
        if members.iter().filter(|member| member.voter).count() == 1 {
            return Err(ConsensusError::Refused(format!(
                "a ledger needs at least one voter, node {id} is the last"
            )));
        }
        check_majority(members, &[id], &[])?;
        let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
        self.change(judged, change, false).await
    }

    /// Puts `by` in the place of `old`, in one change.
    ///
    /// # Errors
    /// As [`Self::promote`] and [`Self::remove`].
    pub async fn replace(&self, old: NodeId, by: NodeId) -> Result<(), ConsensusError> {
        let judged = self.judged();
        let members = &judged.members;
        if !find(members, old)?.voter {
            return Err(ConsensusError::Refused(format!(
                "only a voter is replaced, node {old} is a learner"
            )));
        }
        let member = find(members, by)?;
        if member.voter {
            return Err(ConsensusError::Refused(format!(
                "node {by} is a voter already; remove node {old} instead"
            )));
        }
        self.check_caught_up(member)?;
        check_majority(members, &[old], &[by])?;
        // One change, so that there are never fewer voters in between; and only these two, whoever else may have become
        // a voter meanwhile.
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([by])),
            ChangeMembers::RemoveVoters(BTreeSet::from([old])),
        ]);
        self.change(judged, change, false).await
    }

    /// Finishes a change that was begun and not ended: the Raft core takes the second step of joint consensus on behalf
    /// of whoever asked for it, and a leader that was lost in between leaves the group with two configurations, each of
    /// which needs its majority.
    pub async fn finish_change(&self) -> Result<(), ConsensusError> {
        let judged = self.judged();
        if !judged.joint {
            return Ok(());
        }
        tracing::info!("a change of the membership was left half done and is finished");
        let change = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.change(judged, change, false).await
    }

    /// The members as they are now, for a change that is only to be made if they still are when it begins.
    fn judged(&self) -> Judged {
        let metrics = self.metrics();
        let membership = &metrics.membership_config;
        let joint = membership.membership().get_joint_config().len() > 1;
        Judged {
            members: self.members(),
            joint,
            settled: !joint && *membership.log_id() <= metrics.local_committed,
            log_id: *membership.log_id(),
        }
    }

    fn check_caught_up(&self, member: &Member) -> Result<(), ConsensusError> {
        let last = self.metrics().last_log_index.unwrap_or(0);
        let matched = member.matched.map_or(0, |index| index.0);
        let lag = last.saturating_sub(matched);
        if member.matched.is_none() || lag > limits::PROMOTE_LAG_MAX {
            return Err(ConsensusError::Refused(format!(
                "a learner becomes a voter when it lags at most {} log entries, node {} lags {lag}",
                limits::PROMOTE_LAG_MAX,
                member.node_id
            )));
        }
        Ok(())
    }

    /// Makes a change, if the membership is still the one it was judged by. It goes on when the caller is gone: half
    /// a change is worse than none.
    async fn change(
        &self,
        judged: Judged,
        change: ChangeMembers<NodeId, PeerAddress>,
        retain: bool,
    ) -> Result<(), ConsensusError> {
        let raft = self.raft.clone();
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: judged.log_id,
        };
        let changing = tokio::spawn(async move {
            let changed: Result<_, RaftError<TypeConfig, _>> =
                raft.change_membership_if(change, retain, [unchanged]).await;
            changed.map(drop).map_err(write_error)
        });
        changing
            .await
            .unwrap_or_else(|error| Err(ConsensusError::Unavailable(error.to_string())))
    }
}

/// What a change was judged by.
struct Judged {
    members: Vec<Member>,
    /// Whether a change is half done.
    joint: bool,
    /// Whether the newest membership is committed and whole.
    settled: bool,
    log_id: Option<LogIdOf<TypeConfig>>,
}

fn find(members: &[Member], id: NodeId) -> Result<&Member, ConsensusError> {
    members
        .iter()
        .find(|member| member.node_id == id)
        .ok_or_else(|| {
            let known: Vec<NodeId> = members.iter().map(|member| member.node_id).collect();
            ConsensusError::Refused(format!("node {id} is no member; members are {known:?}"))
        })
}

/// Refuses a change after which fewer than a majority of the voters could be reached.
fn check_majority(
    members: &[Member],
    leaving: &[NodeId],
    coming: &[NodeId],
) -> Result<(), ConsensusError> {
    let after: BTreeMap<NodeId, bool> = members
        .iter()
        .filter(|member| {
            coming.contains(&member.node_id) || member.voter && !leaving.contains(&member.node_id)
        })
        .map(|member| {
            let reachable = member
                .last_seen
                .is_some_and(|seen| seen <= REACHABLE_WITHIN);
            (member.node_id, reachable)
        })
        .collect();
    let majority = after.len() / 2 + 1;
    let reachable = after.values().filter(|reachable| **reachable).count();
    if reachable < majority {
        let missing: Vec<NodeId> = after
            .iter()
            .filter(|(_, reachable)| !**reachable)
            .map(|(id, _)| *id)
            .collect();
        return Err(ConsensusError::Refused(format!(
            "a majority of the voters must be reachable after the change: {reachable} of {} are, needed are \
             {majority}; not reachable: {missing:?}",
            after.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: NodeId, voter: bool, seen: bool) -> Member {
        Member {
            node_id,
            address: PeerAddress::default(),
            voter,
            matched: None,
            last_seen: seen.then_some(Duration::ZERO),
        }
    }

    #[test]
    fn a_change_must_leave_a_majority_that_can_be_reached() {
        let one_down = [
            member(1, true, true),
            member(2, true, true),
            member(3, true, false),
            member(4, false, true),
        ];
        // Removing the dead one, or replacing it, leaves everybody reachable.
        check_majority(&one_down, &[3], &[]).unwrap();
        check_majority(&one_down, &[3], &[4]).unwrap();
        check_majority(&one_down, &[], &[4]).unwrap();
        // Removing a live one would leave one of two.
        let error = check_majority(&one_down, &[2], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a majority of the voters must be reachable after the change: 1 of 2 are, needed are 2; not reachable: [3]"
        );
    }

    #[test]
    fn who_is_no_member_is_named_with_those_who_are() {
        let members = [member(1, true, true)];
        assert_eq!(
            find(&members, 7).unwrap_err().to_string(),
            "node 7 is no member; members are [1]"
        );
    }
}
