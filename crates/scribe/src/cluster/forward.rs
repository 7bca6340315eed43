//! Carries writes that arrived here to the node that leads: one hop, several writes a message.
//!
//! The leader does with them what it does with its own; the answer is exactly what it would have told the client. A
//! message that provably was not sent is an error that says so (nothing was written, ask again); one whose answer is
//! lost leaves an unknown outcome. The leader never passes a forwarded write on, so there are no loops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::wire::{ForwardAnswer, ForwardRequest, Job, JobMessage, code, kind};
use crate::consensus::{ConsensusNode, NodeId};
use crate::error::AppendError;
use crate::limits;
use crate::peer::{CallError, Lane, Wait};
use crate::sequencer::UnitOutcome;

/// A job and the way back.
struct Item {
    leader: NodeId,
    job: Job,
    reply: oneshot::Sender<UnitOutcome>,
}

/// The way to the forwarding task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forwarder {
    sender: mpsc::Sender<Item>,
    consensus: ConsensusNode,
}

impl Forwarder {
    /// Starts the task; it ends when every handle is dropped.
    pub fn start(consensus: ConsensusNode) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Item>(limits::FORWARD_WAITING_MAX);
        let caller = consensus.clone();
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(limits::FORWARDS_IN_FLIGHT_MAX));
            let mut taken: Vec<Item> = Vec::new();
            let mut left_over: Option<Item> = None;
            loop {
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                    return;
                };
                taken.extend(left_over.take());
                if taken.is_empty() {
                    match receiver.recv().await {
                        Some(item) => taken.push(item),
                        None => return,
                    }
                }
                let mut bytes: usize = taken.iter().map(|item| item.job.byte_length()).sum();
                // What waits travels together, without a timer: while one message is on its way the next one fills.
                while taken.len() < limits::FORWARD_JOBS_MAX && bytes < limits::FRAME_BYTES_TARGET {
                    let Ok(item) = receiver.try_recv() else { break };
                    if item.leader != taken[0].leader {
                        left_over = Some(item);
                        break;
                    }
                    bytes += item.job.byte_length();
                    taken.push(item);
                }
                let batch = std::mem::take(&mut taken);
                let consensus = caller.clone();
                tokio::spawn(async move {
                    send(&consensus, batch).await;
                    drop(permit);
                });
            }
        });
        Self { sender, consensus }
    }

    /// Has jobs appended by `leader`, in this order, in one message.
    pub(crate) async fn append_all(&self, leader: NodeId, jobs: Vec<Job>) -> Vec<UnitOutcome> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut batch = Vec::with_capacity(jobs.len());
        for job in jobs {
            let (reply, outcome) = oneshot::channel();
            batch.push(Item { leader, job, reply });
            outcomes.push(outcome);
        }
        send(&self.consensus, batch).await;
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(outcome.await.unwrap_or(Err(AppendError::UnknownOutcome)));
        }
        results
    }

    /// Has `job` appended by `leader`.
    pub(crate) async fn append(&self, leader: NodeId, job: Job) -> UnitOutcome {
        let (reply, outcome) = oneshot::channel();
        let item = Item { leader, job, reply };
        if self.sender.try_send(item).is_err() {
            return Err(AppendError::Overloaded { retry_after_ms: 50 });
        }
        outcome.await.unwrap_or(Err(AppendError::UnknownOutcome))
    }
}

async fn send(consensus: &ConsensusNode, batch: Vec<Item>) {
    let Some(leader) = batch.first().map(|item| item.leader) else {
        return;
    };
    let mut jobs = Vec::with_capacity(batch.len());
    let mut replies = Vec::with_capacity(batch.len());
    for item in batch {
        match JobMessage::new(&item.job) {
            Ok(message) => {
                jobs.push(message);
                replies.push(item.reply);
            }
            Err(error) => drop(item.reply.send(Err(error))),
        }
    }
    let body: Bytes = ForwardRequest { jobs }.encode_to_vec().into();
    let wait = Wait::Deadline(Duration::from_millis(limits::REQUEST_TIMEOUT_MS));
    let call = consensus.call(leader, Lane::Forward, kind::FORWARD, vec![body], wait);
    let grace = Duration::from_millis(limits::FORMER_LEADER_GRACE_MS);
    let answer = tokio::select! {
        answer = call => answer,
        () = consensus.superseded(leader, grace) => Err(CallError::TimedOut),
    };
    let failed = match answer {
        Ok(body) => match ForwardAnswer::read(body, replies.len()) {
            Ok(answer) if answer.outcomes.len() == replies.len() => {
                for (reply, outcome) in replies.into_iter().zip(answer.outcomes) {
                    let _ = reply.send(outcome.outcome());
                }
                return;
            }
            _ => AppendError::UnknownOutcome,
        },
        Err(error @ (CallError::Unreachable { .. } | CallError::Refused { .. })) => {
            AppendError::Unavailable(format!("leader {leader} was not reached: {error}"))
        }
        Err(CallError::Remote { code, text }) if code::nothing_was_done(code) => {
            AppendError::Unavailable(format!("leader {leader} did not take the write: {text}"))
        }
        // An error of the peer module on the other side, or of a later version: it may have been carried out in part.
        Err(error @ CallError::Remote { .. }) => {
            tracing::warn!(leader, %error, "forwarded writes have an unknown outcome");
            AppendError::UnknownOutcome
        }
        Err(CallError::Lost { .. } | CallError::TimedOut) => AppendError::UnknownOutcome,
    };
    for reply in replies {
        let _ = reply.send(Err(failed.clone()));
    }
}
