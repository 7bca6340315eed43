//! How a leader that stops, or is to be removed, gives leadership away, so that it costs no election.

use std::cmp::Reverse;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::Node;
use crate::consensus::{Leadership, Member, NodeId};

/// How long a leader tries to hand leadership over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the one that is to take it is asked whether it is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What became of handing leadership over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandedOver {
    /// This node did not lead.
    NotLeading,
    /// This voter was asked to take it, and leadership has left.
    To(NodeId),
    /// No other voter runs and stays: nobody was asked to take it.
    NobodyThere,
    /// Those that are there did not take it in time; if this node goes, they elect one among themselves.
    NotTaken,
}

impl Node {
    /// Gives leadership to the voter whose log is closest among those that answer and are not stopping themselves. Where
    /// all nodes of a cluster stop at once there is none, and nothing to wait for.
    pub async fn hand_over(&self) -> HandedOver {
        let consensus = &self.inner.consensus;
        let mut leadership = consensus.leadership();
        if !matches!(*leadership.borrow(), Leadership::Leading { .. }) {
            return HandedOver::NotLeading;
        }
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        let candidates = self.able_to_lead().await;
        if candidates.is_empty() {
            return HandedOver::NobodyThere;
        }
        for candidate in candidates {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || consensus.transfer_leader(candidate.node_id).await.is_err() {
                continue;
            }
            let gone =
                leadership.wait_for(|leadership| !matches!(leadership, Leadership::Leading { .. }));
            let taken = tokio::time::timeout(left.min(HAND_OVER_TIMEOUT / 2), gone);
            let taken = tokio::select! {
                taken = taken => taken.is_ok(),
                () = self.stopped_answering(candidate.node_id) => false,
            };
            if taken {
                tracing::info!(to = candidate.node_id, "leadership was handed over");
                return HandedOver::To(candidate.node_id);
            }
        }
        HandedOver::NotTaken
    }

    /// The other voters that run and stay, closest log first.
    async fn able_to_lead(&self) -> Vec<Member> {
        let consensus = &self.inner.consensus;
        let own = consensus.node_id();
        let others = consensus.members().into_iter();
        let asked = others
            .filter(|member| member.voter && member.node_id != own)
            .map(|member| async move {
                let status = self.ask_status(member.node_id).await;
                status.is_ok_and(|status| !status.leaving).then_some(member)
            });
        let mut able: Vec<Member> = join_all(asked).await.into_iter().flatten().collect();
        able.sort_by_key(|member| Reverse(member.matched));
        able
    }

    /// Resolves once a node that was there no longer answers, or is stopping.
    async fn stopped_answering(&self, id: NodeId) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let status = self.ask_status(id).await;
            if status.is_ok_and(|status| !status.leaving) {
                continue;
            }
            return;
        }
    }
}
