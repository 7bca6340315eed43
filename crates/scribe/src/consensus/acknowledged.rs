//! What each follower has acknowledged to this leader: a log that went back behind it has forgotten entries.
//!
//! A follower acknowledges an entry once it is on its disk, and a leader counts on it. If it comes back with an older copy
//! of its directories, its log ends before what it acknowledged, and openraft takes that for a bug of its own: a build with
//! assertions ends the *leader*. So such an answer never reaches the core: the follower counts as unreachable, and is
//! named in the log. It cannot be let back in: which votes it gave, and to whom, is forgotten as well. One that lost the end
//! of its log and nothing else says so by itself, and is forgiven ([`super::restore`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;

use super::type_config::{NodeId, TypeConfig};

/// By follower: the leader's term, and the last log index acknowledged in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(Arc<Mutex<BTreeMap<NodeId, Progress>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    term: u64,
    /// Last log index plus one; 0 for none.
    end: u64,
    /// Whether it was said that this follower has gone back.
    said: bool,
}

impl Acknowledged {
    /// Takes in what `target` answered.
    ///
    /// # Errors
    /// The answer shows that the target has lost what it acknowledged to this leader in this term. Before, its log may
    /// rightly have been cut.
    pub(super) fn judge(
        &self,
        target: NodeId,
        request: &AppendEntriesRequest<TypeConfig>,
        response: &AppendEntriesResponse<TypeConfig>,
    ) -> Result<(), String> {
        let term = request.vote.leader_id.term;
        let before = request.prev_log_id.map_or(0, |id| id.index + 1);
        let mut all = self.0.lock();
        let progress = all.entry(target).or_default();
        if progress.term != term {
            *progress = Progress {
                term,
                ..Progress::default()
            };
        }
        match response {
            AppendEntriesResponse::Success => {
                let end = before + request.entries.len() as u64;
                progress.end = progress.end.max(end);
                Ok(())
            }
            AppendEntriesResponse::PartialSuccess(matching) => {
                let end = matching.map_or(0, |id| id.index + 1);
                progress.end = progress.end.max(end);
                Ok(())
            }
            AppendEntriesResponse::Conflict if before > 0 && before <= progress.end => {
                let text = format!(
                    "node {target} has lost log entry {}, which it had acknowledged: its directories are an older copy; \
                     put a new node in its place",
                    before - 1
                );
                if !std::mem::replace(&mut progress.said, true) {
                    tracing::error!(node = target, "{text}");
                }
                Err(text)
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => Ok(()),
        }
    }
}

impl Acknowledged {
    /// Forgets what `target` acknowledged: it has lost it, has said so, and does not vote before it has it back.
    pub(super) fn forgive(&self, target: NodeId) {
        self.0.lock().remove(&target);
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;
    use openraft::type_config::alias::{EntryOf, VoteOf};

    use super::*;
    use crate::consensus::log_store::to_raft_id;
    use crate::store::frame::LogId;

    fn request(term: u64, prev: u64, count: u64) -> AppendEntriesRequest<TypeConfig> {
        let entry = |index| {
            EntryOf::<TypeConfig>::new(to_raft_id(LogId::new(1, index)), EntryPayload::Blank)
        };
        AppendEntriesRequest {
            vote: VoteOf::<TypeConfig>::new_committed(term, 1),
            prev_log_id: Some(to_raft_id(LogId::new(1, prev))),
            entries: (prev + 1..=prev + count).map(entry).collect(),
            leader_commit: None,
        }
    }

    #[test]
    fn a_follower_may_lack_what_it_never_acknowledged_and_nothing_else() {
        let acknowledged = Acknowledged::default();
        let conflict = |term, prev| {
            acknowledged.judge(2, &request(term, prev, 0), &AppendEntriesResponse::Conflict)
        };
        conflict(3, 9).unwrap();
        acknowledged
            .judge(2, &request(3, 4, 3), &AppendEntriesResponse::Success)
            .unwrap();
        conflict(3, 8).unwrap();
        let lost = conflict(3, 7).unwrap_err();
        assert!(lost.contains("node 2 has lost log entry 7"), "{lost}");
        conflict(3, 2).unwrap_err();
        // Another follower's word is another's.
        acknowledged
            .judge(3, &request(3, 7, 0), &AppendEntriesResponse::Conflict)
            .unwrap();
        // In between somebody else led, and may have cut what was never committed.
        conflict(5, 7).unwrap();
        let part = AppendEntriesResponse::PartialSuccess(Some(to_raft_id(LogId::new(1, 5))));
        acknowledged.judge(2, &request(5, 4, 9), &part).unwrap();
        conflict(5, 6).unwrap();
        conflict(5, 5).unwrap_err();
    }
}
