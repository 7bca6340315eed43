//! Read barriers, shared: many readers wait for one round with the other voters.
//!
//! A barrier serves exactly the readers that were waiting when it *started*; those that come while it runs wait for the
//! next. So a reader never rests on a round that began before its request.

use tokio::sync::{mpsc, oneshot};

use crate::consensus::{ConsensusError, ConsensusNode};

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
                if receiver.recv_many(&mut waiters, usize::MAX).await == 0 {
                    return;
                }
                let result = consensus.read_barrier().await;
                for waiter in waiters.drain(..) {
                    drop(waiter.send(result.clone()));
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
