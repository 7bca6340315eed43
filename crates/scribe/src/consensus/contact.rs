//! Whether this node is in touch with the cluster: a leader with a majority, any other with its leader.
//!
//! The Raft core goes on naming the leader it heard last, for as long as nobody else is elected: a node that is cut off
//! from all others would seem well for ever. This only tells; who leads is the core's to decide.

use std::ops::Deref as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;

use super::ConsensusNode;

/// When a leader was last heard.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    heard: Arc<Mutex<Instant>>,
    /// A longer silence would have ended in an election, had this node been in touch.
    silence_max: Duration,
}

impl Contact {
    /// `election_timeout_max` is also the lease, after which a follower waits once more for up to as long.
    pub(super) fn new(election_timeout_max: Duration) -> Self {
        Self {
            heard: Arc::new(Mutex::new(Instant::now())),
            silence_max: election_timeout_max * 2,
        }
    }

    /// A leader was heard, and is one.
    pub(super) fn heard(&self) {
        *self.heard.lock() = Instant::now();
    }
}

impl ConsensusNode {
    /// Whether this node is in touch with the cluster.
    ///
    /// # Errors
    /// Who has been silent, and for how long.
    pub fn in_touch(&self) -> Result<(), String> {
        let metrics = self.metrics();
        let (who, silence) = match metrics.state {
            ServerState::Leader if self.voters().len() < 2 => return Ok(()),
            // Without a value it was elected just now, which took a majority.
            ServerState::Leader => (
                "no majority of the voters has answered this leader",
                metrics.last_quorum_acked.map(|at| at.deref().elapsed()),
            ),
            _ => (
                "no leader was heard",
                Some(self.contact.heard.lock().elapsed()),
            ),
        };
        match silence {
            Some(silence) if silence > self.contact.silence_max => {
                Err(format!("{who} for {} s", silence.as_secs()))
            }
            _ => Ok(()),
        }
    }
}
