//! Read barriers, shared: many readers wait for one round with the other voters.
//!
//! A barrier serves exactly the readers that were waiting when it *started*; those that come while it runs wait for the
//! next. So a reader never rests on a round that began before its request.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::consensus::{ConsensusError, ConsensusNode};

/// How long one round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before a barrier is tried again while there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type Waiter = oneshot::Sender<Result<(), ConsensusError>>;

/// The way to the barrier task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadBarrier {
    sender: mpsc::UnboundedSender<Waiter>,
}

impl ReadBarrier {
    /// Starts the task; it ends when every handle is dropped. What waits is bounded by the requests admitted.
    pub fn start(consensus: ConsensusNode) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Waiter>();
        tokio::spawn(async move {
            let mut waiters = Vec::new();
            loop {
                if waiters.is_empty() && receiver.recv_many(&mut waiters, usize::MAX).await == 0 {
                    return;
                }
                // A round that takes long is begun anew: the leader it rests on may be gone.
                let round = tokio::time::timeout(ROUND_TIMEOUT, consensus.read_barrier()).await;
                let round = round.unwrap_or_else(|_| {
                    Err(ConsensusError::Unavailable(
                        "a read barrier took too long".to_owned(),
                    ))
                });
                match round {
                    // Between leaders: those who still wait, and those who came meanwhile, try again together. Each
                    // has a deadline of its own.
                    Err(
                        ConsensusError::NotLeader { .. }
                        | ConsensusError::NoQuorum
                        | ConsensusError::Unavailable(_),
                    ) if !consensus.is_alone() => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        waiters.retain(|waiter| !waiter.is_closed());
                        while let Ok(waiter) = receiver.try_recv() {
                            waiters.push(waiter);
                        }
                    }
                    result => {
                        for waiter in waiters.drain(..) {
                            drop(waiter.send(result.clone()));
                        }
                    }
                }
            }
        });
        Self { sender }
    }

    /// Waits until everything committed before this call is applied on this node.
    pub async fn wait(&self) -> Result<(), ConsensusError> {
        let (sender, receiver) = oneshot::channel();
        let stopped = || ConsensusError::Stopped("the node is shutting down".to_owned());
        self.sender.send(sender).map_err(|_| stopped())?;
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }
}
