//! Who was a member once and is none any more.
//!
//! An id is never given twice, so whoever left by a committed change never comes back under it: it can be turned away
//! by any node that has seen the change, however far that node lags otherwise. Only what was seen since the start is
//! known; a node that restarts leaves it to a leader again ([`ConsensusNode::is_welcome`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;

use super::{ConsensusNode, NodeId};

/// The ids that left while this node watched.
#[derive(Debug, Clone, Default)]
pub(super) struct Departed(Arc<Mutex<BTreeSet<NodeId>>>);

impl Departed {
    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.0.lock().contains(&id)
    }
}

impl ConsensusNode {
    /// Everybody in the newest committed membership that this node has heard of, and whether they vote.
    #[cfg(feature = "simulation")]
    pub fn committed_members(&self) -> std::collections::BTreeMap<NodeId, bool> {
        let server = self.raft.server_metrics();
        let now = server.borrow_watched();
        let committed = &now.committed_membership_config;
        let voters: BTreeSet<NodeId> = committed.voter_ids().collect();
        let members = committed.nodes();
        members.map(|(id, _)| (*id, voters.contains(id))).collect()
    }

    /// Follows the committed membership for as long as the Raft core lives, and calls `left` for each other node that
    /// is no member any more: from then on it is not welcome here.
    pub async fn follow_departures(&self, left: impl Fn(NodeId)) {
        let mut server = self.raft.server_metrics();
        let mut known = BTreeSet::new();
        loop {
            let members: BTreeSet<NodeId> = {
                let now = server.borrow_and_update();
                let committed = &now.committed_membership_config;
                committed.nodes().map(|(id, _)| *id).collect()
            };
            // There is none before the first one is committed.
            if !members.is_empty() {
                for id in known.difference(&members).filter(|id| **id != self.node_id) {
                    // Before the caller closes anything: it must not come back in between.
                    self.departed.0.lock().insert(*id);
                    left(*id);
                }
                known = members;
            }
            if server.changed().await.is_err() {
                return;
            }
        }
    }
}
