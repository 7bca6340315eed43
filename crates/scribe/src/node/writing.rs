//! Writes: appended here while this node leads, carried to the leader otherwise.
//!
//! Whoever waits hears nothing of elections as long as they are short: what was *definitely* not written is tried again,
//! after 100, 200, 400 ms or as soon as leadership changes, until the request's deadline. An unknown outcome is tried
//! again only with an idempotency key, which settles it. What arrives from another node is appended here or refused, and
//! never carried on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{
    Appended, CarriedEntry, Node, REQUEST_TIMEOUT, Transaction, TransactionAppended, Write, outcome,
};
use crate::cluster::wire::Job;
use crate::consensus::Leadership;
use crate::error::AppendError;
use crate::limits;
use crate::planted;
use crate::sequencer::{Collector, Reply, UnitAppended, UnitOutcome};
use scribe_proof::index::TreeSize;

/// First and longest pause before a write that was refused for lack of a leader is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));
/// Pause after leadership has changed. A follower hears of its new leader by the very entry whose commit makes that one
/// take writes, and so is a round trip too early.
const PAUSE_AFTER_CHANGE: Duration = Duration::from_millis(10);

impl Node {
    /// Appends one write; returns once a majority has it on disk and it is applied on the leader.
    pub async fn append(&self, write: Write) -> Result<Appended, AppendError> {
        first_entry(self.append_job(Job::Write(write)).await?)
    }

    /// Appends writes in order, each for itself: the bulk path. The results are in the order of the writes.
    ///
    /// What was refused is tried again only if nothing behind it was written: an entry never overtakes one that was
    /// asked for before it. Calls whose order matters are made one after another ([`Self::is_alone`]: a node that runs
    /// alone never tries again, and its calls may overlap).
    pub async fn append_many(&self, writes: Vec<Write>) -> Vec<Result<Appended, AppendError>> {
        let mut jobs: Vec<Job> = writes.into_iter().map(Job::Write).collect();
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut results: Vec<UnitOutcome> = Vec::with_capacity(jobs.len());
        // Whether an earlier try at the job of this place had an unknown outcome.
        let mut unknown = vec![false; jobs.len()];
        let mut pause = PAUSES.0;
        loop {
            let mut outcomes = self.append_once(jobs.clone(), deadline).await;
            for (outcome, unknown) in outcomes.iter_mut().zip(&mut unknown) {
                remember_unknown(outcome, unknown);
            }
            let settled = settled(&jobs, &outcomes, |job, outcome| {
                self.is_worth_another_try(job, outcome)
            });
            let goes_on = settled < jobs.len() && self.pause(&mut pause, deadline).await;
            if !goes_on {
                results.extend(outcomes);
                break;
            }
            results.extend(outcomes.into_iter().take(settled));
            jobs.drain(..settled);
            unknown.drain(..settled);
        }
        results
            .into_iter()
            .map(|outcome| first_entry(outcome?))
            .collect()
    }

    /// Appends all operations of a transaction, or none.
    pub async fn append_transaction(
        &self,
        transaction: Transaction,
    ) -> Result<TransactionAppended, AppendError> {
        let appended = self.append_job(Job::Transaction(transaction)).await?;
        let (tree_size, replayed) = (appended.tree_size(), appended.replayed);
        Ok(TransactionAppended {
            entries: appended.into_entries(),
            tree_size,
            replayed,
        })
    }

    /// Appends entries carried over from another copy of the ledger, byte for byte. Only for an offline import: a
    /// server never offers it. At most [`limits::FRAME_OPERATIONS_MAX`] at once.
    pub async fn import(&self, entries: Vec<CarriedEntry>) -> Result<TreeSize, AppendError> {
        if entries.is_empty() {
            return Ok(self.applied_size());
        }
        if entries.len() > limits::FRAME_OPERATIONS_MAX {
            return Err(AppendError::Invalid {
                rule: format!(
                    "at most {} entries are carried over at once, found {}",
                    limits::FRAME_OPERATIONS_MAX,
                    entries.len()
                ),
                hint: None,
            });
        }
        let (sender, receiver) = oneshot::channel();
        self.inner
            .sequencer
            .submit(self.inner.preparer.carried(entries, Reply::One(sender)));
        Ok(outcome(receiver).await?.tree_size())
    }

    /// Appends one job, wherever the leader is.
    pub(super) async fn append_job(&self, job: Job) -> UnitOutcome {
        if self.is_alone() {
            return self.append_one_here(job).await;
        }
        if let Some(removed) = self.inner.consensus.removed() {
            return Err(AppendError::Unavailable(removed));
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut pause = PAUSES.0;
        let mut unknown = false;
        loop {
            let once = self.append_one(job.clone());
            let mut outcome = tokio::time::timeout_at(deadline, once)
                .await
                .unwrap_or(Err(AppendError::UnknownOutcome));
            remember_unknown(&mut outcome, &mut unknown);
            if !self.is_worth_another_try(&job, &outcome) || !self.pause(&mut pause, deadline).await
            {
                // planted
                if planted::has("unknown-called-refused")
                    && matches!(outcome, Err(AppendError::UnknownOutcome))
                {
                    return Err(AppendError::Unavailable("planted".to_owned()));
                }
                return outcome;
            }
        }
    }

    async fn append_one(&self, job: Job) -> UnitOutcome {
        let leadership = *self.inner.leadership.borrow();
        match leadership {
            Leadership::Leading { .. } => self.append_one_here(job).await,
            Leadership::Waiting {
                leader: Some(leader),
            } => self.inner.forwarder.append(leader, job).await,
            Leadership::Waiting { leader: None } => Err(AppendError::Unavailable(
                "no leader is known yet".to_owned(),
            )),
            Leadership::Stopped => {
                Err(AppendError::Unavailable("consensus has stopped".to_owned()))
            }
        }
    }

    async fn append_one_here(&self, job: Job) -> UnitOutcome {
        let (sender, receiver) = oneshot::channel();
        self.submit(job, Reply::One(sender));
        outcome(receiver).await
    }

    /// One attempt at several jobs, in order.
    async fn append_once(&self, jobs: Vec<Job>, deadline: Instant) -> Vec<UnitOutcome> {
        let count = jobs.len();
        let leadership = *self.inner.leadership.borrow();
        match leadership {
            Leadership::Leading { .. } => self.append_here(jobs).await,
            Leadership::Waiting {
                leader: Some(leader),
            } => {
                let forwarded = self.inner.forwarder.append_all(leader, jobs);
                tokio::time::timeout_at(deadline, forwarded)
                    .await
                    .unwrap_or_else(|_| vec![Err(AppendError::UnknownOutcome); count])
            }
            // All or none: the sequencer could refuse the first ones and, leading again, take the rest.
            Leadership::Waiting { leader: None } | Leadership::Stopped => {
                vec![
                    Err(AppendError::Unavailable(
                        "no leader is known yet".to_owned()
                    ));
                    count
                ]
            }
        }
    }

    /// Appends jobs in order on this node, if it leads. The outcomes are in the order of the jobs; those that take
    /// longer than a request may are unknown.
    pub(super) async fn append_here(&self, jobs: Vec<Job>) -> Vec<UnitOutcome> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let (collector, done) = Collector::new(jobs.len());
        for (slot, job) in jobs.into_iter().enumerate() {
            let reply = Reply::Slot {
                collector: Arc::clone(&collector),
                slot,
            };
            self.submit(job, reply);
        }
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, done).await;
        collector.take()
    }

    fn submit(&self, job: Job, reply: Reply) {
        // What may be an older copy takes nothing that a newer one would have to forget.
        if let Some(reason) = self.inner.keys.withheld() {
            return reply.send(Err(AppendError::Unavailable(reason.to_owned())));
        }
        // Clients and other nodes' keys are served before this leader has written the first entry, which must stay the
        // first. It writes that past this function, and then whoever was refused here is heard.
        if !self.inner.begun.load(Ordering::Relaxed) {
            if self.applied_size() == TreeSize::EMPTY {
                let text = "the first entry of the ledger is being written".to_owned();
                return reply.send(Err(AppendError::Unavailable(text)));
            }
            self.inner.begun.store(true, Ordering::Relaxed);
        }
        let preparer = &self.inner.preparer;
        let prepared = match job {
            Job::Write(write) => preparer.write(write, reply),
            Job::Transaction(transaction) => preparer.transaction(transaction, reply),
            Job::System { subtype, body } => Ok(preparer.system(subtype, body, reply)),
        };
        match prepared {
            Ok(unit) => self.inner.sequencer.submit(unit),
            Err((error, reply)) => reply.send(Err(error)),
        }
    }

    /// Whether trying again can help and cannot write anything twice.
    fn is_worth_another_try(&self, job: &Job, outcome: &UnitOutcome) -> bool {
        match outcome {
            Err(AppendError::NotLeader { .. } | AppendError::Unavailable(_)) => !self.is_alone(),
            Err(AppendError::UnknownOutcome) => {
                !self.is_alone()
                    // planted
                    && (job.has_idempotency_key() || planted::has("unknown-tried-again"))
            }
            _ => false,
        }
    }

    /// Waits for a moment or until leadership changes; `false` if the deadline would pass.
    async fn pause(&self, pause: &mut Duration, deadline: Instant) -> bool {
        if Instant::now() + *pause >= deadline {
            return false;
        }
        let mut leadership = self.inner.leadership.clone();
        leadership.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(*pause) => *pause = (*pause * 2).min(PAUSES.1),
            // Fails at once when consensus has stopped, and then the pause goes on.
            Ok(()) = leadership.changed() => *pause = PAUSE_AFTER_CHANGE,
        }
        true
    }
}

/// A try that was refused says nothing about an earlier one whose outcome is unknown: that may still come to be. Only a
/// leader's judgement settles it, which looks at the idempotency key first.
fn remember_unknown(outcome: &mut UnitOutcome, unknown: &mut bool) {
    match outcome {
        Err(AppendError::UnknownOutcome) => *unknown = true,
        Err(
            AppendError::NotLeader { .. }
            | AppendError::Unavailable(_)
            | AppendError::Overloaded { .. },
        ) if *unknown => *outcome = Err(AppendError::UnknownOutcome),
        _ => {}
    }
}

/// How many jobs from the first on are settled: those up to the last one that is not tried again, and those refused
/// before one that may have been written, which they must not overtake.
fn settled(
    jobs: &[Job],
    outcomes: &[UnitOutcome],
    again: impl Fn(&Job, &UnitOutcome) -> bool,
) -> usize {
    let mut settled = 0;
    let mut refused = None;
    for (place, (job, outcome)) in jobs.iter().zip(outcomes).enumerate() {
        if !again(job, outcome) {
            settled = place + 1;
        } else if *outcome != Err(AppendError::UnknownOutcome) {
            refused = Some(place);
        } else if let Some(refused) = refused {
            settled = settled.max(refused + 1);
        }
    }
    settled
}

fn first_entry(appended: UnitAppended) -> Result<Appended, AppendError> {
    appended
        .into_entries()
        .into_iter()
        .next()
        .ok_or(AppendError::UnknownOutcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: UnitOutcome = Err(AppendError::UnknownOutcome);

    fn refused() -> UnitOutcome {
        Err(AppendError::Unavailable("no leader".to_owned()))
    }

    fn full() -> UnitOutcome {
        Err(AppendError::DiskFull)
    }

    #[test]
    fn a_refusal_after_an_unknown_outcome_stays_unknown() {
        let mut unknown = false;
        let mut outcome = refused();
        remember_unknown(&mut outcome, &mut unknown);
        assert_eq!(outcome, refused(), "nothing was written before it");
        let mut first = UNKNOWN;
        remember_unknown(&mut first, &mut unknown);
        for later in [
            refused(),
            Err(AppendError::NotLeader { leader: None }),
            Err(AppendError::Overloaded { retry_after_ms: 1 }),
        ] {
            let mut outcome = later;
            remember_unknown(&mut outcome, &mut unknown);
            assert_eq!(outcome, UNKNOWN);
        }
        // The leader has looked for the idempotency key before it said so.
        let mut outcome = full();
        remember_unknown(&mut outcome, &mut unknown);
        assert_eq!(outcome, full());
    }

    #[test]
    fn only_what_nothing_was_written_behind_is_tried_again() {
        let job = Job::System {
            subtype: 1,
            body: bytes::Bytes::new(),
        };
        let count = |outcomes: &[UnitOutcome]| {
            let jobs = vec![job.clone(); outcomes.len()];
            settled(&jobs, outcomes, |_, outcome| *outcome != full())
        };
        assert_eq!(count(&[refused(), refused()]), 0);
        assert_eq!(count(&[refused(), full(), refused()]), 2);
        assert_eq!(count(&[UNKNOWN, UNKNOWN, refused()]), 0);
        assert_eq!(count(&[refused(), UNKNOWN, refused()]), 1);
        assert_eq!(count(&[full(), refused(), UNKNOWN, refused()]), 2);
    }
}
