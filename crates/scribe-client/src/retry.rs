//! When a call is sent again, and what is known after the last attempt.
//!
//! A call is repeated if its failure says that waiting may help, after 100, 200, 400 and again
//! 400 ms (or longer if the node asks for it), until the deadline. With several nodes to ask, the
//! next one is asked at once where it may do better; the pauses are between rounds. A node that
//! was waited for until the deadline is no reason not to ask one other. A write is repeated after an
//! unknown outcome only under an idempotency key. Once an attempt's outcome was unknown it stays
//! so, unless a later attempt is answered for good.

use std::time::Duration;

use tokio::time::Instant;

use crate::code::ErrorCode;
use crate::error::{Error, TransportError};
use crate::wire::Problem;

/// How long calls are repeated, and how long one attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// No attempt begins after this time, except one at another node after one that was not
    /// answered. 10 s unless set; zero means a single attempt.
    pub deadline: Duration,
    /// How long one attempt may wait for its answer to begin, not counting one second per MiB
    /// sent. 12 s unless set: above the 10 s after which a node says by itself why it cannot write
    /// or read, so that its reason is heard.
    pub attempt_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(12),
        }
    }
}

impl RetryPolicy {
    /// How long an attempt that sends `body_length` bytes may wait for its answer to begin.
    pub(crate) fn attempt_timeout(&self, body_length: usize) -> Duration {
        let sending = Duration::from_millis(body_length as u64 / 1_049);
        self.attempt_timeout.saturating_add(sending)
    }
}

/// The pause after this many failed attempts (from 1).
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.saturating_sub(1).min(2))
}

/// What a failed attempt may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Certainly nothing.
    None,
    /// Perhaps what was asked.
    Unknown,
    /// The write is in the ledger; only its checkpoint is missing. Sent again without an idempotency key, it would be
    /// written twice.
    Appended,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    pub effect: Effect,
    pub retryable: bool,
    /// The node asks for at least this pause.
    pub after: Option<Duration>,
    /// The node could not be reached, or cannot reach the others: another one may do better.
    pub elsewhere: bool,
}

impl Failure {
    /// What follows from a refusal.
    pub(crate) fn refused(problem: Problem, retry_after: Option<Duration>) -> Failure {
        let effect = match problem.error_code() {
            Some(ErrorCode::UnknownOutcome) => Effect::Unknown,
            // A fault may have come after the append.
            Some(ErrorCode::Internal | ErrorCode::Damaged) => Effect::Unknown,
            Some(ErrorCode::NotPublished) => Effect::Appended,
            Some(_) => Effect::None,
            // A proxy's 502 or 504, or a newer node's code.
            None if problem.status >= 500 && problem.status != 503 => Effect::Unknown,
            None => Effect::None,
        };
        let elsewhere = match problem.error_code() {
            Some(code) => matches!(
                code,
                ErrorCode::NotApplied
                    | ErrorCode::NotLeader
                    | ErrorCode::Unavailable
                    | ErrorCode::UnknownOutcome
            ),
            // A load balancer in front of a node that is gone.
            None => matches!(problem.status, 502..=504),
        };
        Failure {
            retryable: problem.is_retryable(),
            elsewhere,
            after: problem
                .retry_after_ms
                .map(Duration::from_millis)
                .or(retry_after),
            effect,
            error: Error::Server(Box::new(problem)),
        }
    }

    /// What follows from a broken or missing connection.
    pub(crate) fn transport(error: TransportError) -> Failure {
        let effect = match error {
            TransportError::Connect(_) | TransportError::Certificate(_) => Effect::None,
            TransportError::Broken(_) | TransportError::TimedOut { .. } => Effect::Unknown,
        };
        Failure {
            // The same certificate comes again.
            retryable: !matches!(error, TransportError::Certificate(_)),
            error: Error::Transport(error),
            effect,
            after: None,
            elsewhere: true,
        }
    }

    /// What follows from an answer that cannot be understood.
    pub(crate) fn unexpected(text: String) -> Failure {
        Failure {
            error: Error::UnexpectedAnswer(text),
            effect: Effect::Unknown,
            retryable: false,
            after: None,
            elsewhere: false,
        }
    }
}

/// Whether a call writes, and if so what makes repeating it safe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Safety<'a> {
    /// A read: always safe.
    Read,
    /// A write, under this idempotency key if there is one.
    Write(Option<&'a str>),
}

/// Calls `attempt` until it succeeds or must not be repeated. After a failure that says so, the
/// next attempt asks another of so many nodes.
pub(crate) async fn run<T, F, A>(
    policy: &RetryPolicy,
    nodes: usize,
    safety: Safety<'_>,
    mut attempt: A,
) -> Result<T, Error>
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let mut pauses = Pauses {
        end: Instant::now() + policy.deadline,
        late: !policy.deadline.is_zero(),
        nodes,
        asked: 0,
        rounds: 0,
    };
    let mut unknown = false;
    // Once an attempt is known to have written, that is what the caller must hear in the end.
    let mut appended: Option<Error> = None;
    loop {
        let failure = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let Safety::Write(idempotency_key) = safety else {
            if failure.retryable && pauses.next(&failure).await {
                continue;
            }
            return Err(failure.error);
        };
        unknown |= failure.effect == Effect::Unknown;
        let (effect, retryable) = (failure.effect, failure.retryable);
        let wrote = unknown || appended.is_some() || effect == Effect::Appended;
        let may_repeat = retryable && (!wrote || idempotency_key.is_some());
        let repeat = may_repeat && pauses.next(&failure).await;
        let error = match effect {
            Effect::Appended => {
                appended = Some(failure.error);
                None
            }
            Effect::None | Effect::Unknown => Some(failure.error),
        };
        if repeat {
            continue;
        }
        if let Some(appended) = appended {
            return Err(appended);
        }
        let Some(error) = error else { continue };
        // A refusal for good answers for the earlier attempts too: the node looks up the
        // idempotency key before anything else. Without a key it does not: what was written by the
        // earlier attempt may be why the condition does not hold.
        let settled = effect == Effect::None && !retryable && idempotency_key.is_some();
        if unknown && !settled {
            return Err(Error::OutcomeUnknown {
                idempotency_key: idempotency_key.map(str::to_owned),
                last: Box::new(error),
            });
        }
        return Err(error);
    }
}

/// The pauses of one call.
struct Pauses {
    /// No attempt begins after it.
    end: Instant,
    /// Whether one may all the same, at another node.
    late: bool,
    /// How many nodes can be asked.
    nodes: usize,
    /// Nodes asked since the last pause, besides the one that is asked now.
    asked: usize,
    /// Times all nodes were asked, or the one that answers was.
    rounds: u32,
}

impl Pauses {
    /// Waits before the next attempt; false if that would begin too late.
    async fn next(&mut self, failure: &Failure) -> bool {
        if failure.elsewhere && self.asked + 1 < self.nodes {
            self.asked += 1;
            if Instant::now() < self.end {
                return true;
            }
            let unanswered = matches!(
                failure.error,
                Error::Transport(TransportError::TimedOut { .. })
            );
            return unanswered && std::mem::take(&mut self.late);
        }
        self.asked = 0;
        self.rounds = self.rounds.saturating_add(1);
        // Up to a quarter more, so that clients refused together do not come back together.
        let backoff = backoff(self.rounds).mul_f64(1.0 + rand::random::<f64>() / 4.0);
        let next = Instant::now() + backoff.max(failure.after.unwrap_or_default());
        if next > self.end {
            return false;
        }
        tokio::time::sleep_until(next).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn refused(code: ErrorCode) -> Failure {
        Failure::refused(Problem::new(code, "found"), None)
    }

    fn broken() -> Failure {
        Failure::transport(TransportError::Broken("reset".into()))
    }

    fn unreachable() -> Failure {
        Failure::transport(TransportError::Connect("refused".into()))
    }

    /// Runs a scripted call (the last answer repeats); says how it ended, how often it was
    /// attempted and about how long it took.
    async fn check(safety: Safety<'_>, script: &[fn() -> Result<(), Failure>], expected: &str) {
        let start = Instant::now();
        let attempts = Cell::new(0);
        let result = run(&RetryPolicy::default(), 1, safety, || {
            let at = attempts.get();
            attempts.set(at + 1);
            std::future::ready(script[at.min(script.len() - 1)]())
        })
        .await;
        let outcome = match result {
            Ok(()) => "ok".to_owned(),
            Err(Error::OutcomeUnknown {
                idempotency_key, ..
            }) => {
                format!(
                    "unknown under {}",
                    idempotency_key.as_deref().unwrap_or("nothing")
                )
            }
            Err(Error::Server(problem)) => problem.code,
            Err(Error::Transport(TransportError::Connect(text))) => text,
            Err(error) => panic!("{error}"),
        };
        let tries = if attempts.get() > 9 {
            "many".into()
        } else {
            attempts.get().to_string()
        };
        assert_eq!(format!("{outcome}, {tries}"), expected);
        assert!(start.elapsed() <= Duration::from_secs(10));
    }

    const READ: Safety<'_> = Safety::Read;
    const SAFE: Safety<'_> = Safety::Write(Some("k"));
    const UNSAFE: Safety<'_> = Safety::Write(None);

    #[tokio::test(start_paused = true)]
    async fn the_retry_table() {
        let ok = || Ok(());
        let broken = || Err(broken());
        let unreachable = || Err(unreachable());
        let overloaded = || Err(refused(ErrorCode::Overloaded));
        let unknown = || Err(refused(ErrorCode::UnknownOutcome));
        let condition = || Err(refused(ErrorCode::ConditionFailed));
        let internal = || Err(refused(ErrorCode::Internal));
        let unpublished = || Err(refused(ErrorCode::NotPublished));

        check(READ, &[broken, unreachable, overloaded, ok], "ok, 4").await;
        check(READ, &[condition], "condition_failed, 1").await;
        check(READ, &[unreachable], "refused, many").await;
        check(READ, &[internal], "internal, 1").await;

        check(SAFE, &[broken, unknown, overloaded, ok], "ok, 4").await;
        check(SAFE, &[condition], "condition_failed, 1").await;
        check(SAFE, &[broken], "unknown under k, many").await;
        check(SAFE, &[overloaded], "overloaded, many").await;
        // Later refusals do not say what became of the attempt that broke off.
        check(SAFE, &[broken, unreachable], "unknown under k, many").await;
        check(SAFE, &[unknown, overloaded], "unknown under k, many").await;
        check(SAFE, &[broken, condition], "condition_failed, 2").await;
        check(SAFE, &[internal], "unknown under k, 1").await;

        check(UNSAFE, &[overloaded, unreachable, ok], "ok, 3").await;
        check(UNSAFE, &[broken, ok], "unknown under nothing, 1").await;
        check(UNSAFE, &[unknown, ok], "unknown under nothing, 1").await;
        // A condition may fail because of what the attempt before it wrote.
        check(UNSAFE, &[broken, condition], "unknown under nothing, 1").await;
        check(UNSAFE, &[unknown, condition], "unknown under nothing, 1").await;
        // What was certainly not written cannot be why.
        check(UNSAFE, &[unreachable, condition], "condition_failed, 2").await;

        // Appended, only its checkpoint is missing: never sent again without a key, never called a refusal.
        check(UNSAFE, &[unpublished, ok], "not_published, 1").await;
        check(SAFE, &[unpublished, ok], "ok, 2").await;
        check(SAFE, &[unpublished, overloaded], "not_published, many").await;
        check(SAFE, &[unpublished, condition], "not_published, 2").await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_may_ask_for_a_longer_pause() {
        let mut problem = Problem::new(ErrorCode::Overloaded, "full");
        problem.retry_after_ms = Some(3_000);
        let start = Instant::now();
        let attempts = Cell::new(0);
        let result: Result<(), Error> = run(&RetryPolicy::default(), 1, READ, || {
            attempts.set(attempts.get() + 1);
            std::future::ready(Err(Failure::refused(problem.clone(), None)))
        })
        .await;
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::Overloaded));
        assert_eq!(attempts.get(), 4);
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn other_nodes_are_asked_before_any_pause() {
        let policy = RetryPolicy {
            deadline: Duration::from_millis(350),
            ..RetryPolicy::default()
        };
        let start = Instant::now();
        let mut at_ms = Vec::new();
        let result: Result<(), Error> = run(&policy, 3, READ, || {
            at_ms.push(start.elapsed().as_millis());
            std::future::ready(Err(refused(ErrorCode::NotLeader)))
        })
        .await;
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::NotLeader));
        // Three at once, a pause of 100 to 125 ms, three more; 200 ms later would be too late or a last round.
        assert_eq!(at_ms[..3], [0, 0, 0]);
        assert!(at_ms[3] >= 100 && at_ms[3] == at_ms[5], "{at_ms:?}");

        // What another node cannot do better is left where it is.
        let attempts = Cell::new(0);
        let result: Result<(), Error> = run(&policy, 3, READ, || {
            attempts.set(attempts.get() + 1);
            std::future::ready(Err(refused(ErrorCode::Overloaded)))
        })
        .await;
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::Overloaded));
        assert!(attempts.get() <= 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stood_still_to_the_end_leaves_time_for_one_other() {
        let policy = RetryPolicy::default();
        for (nodes, attempted) in [(1, 1), (2, 2), (3, 2)] {
            let attempts = Cell::new(0);
            let result: Result<(), Error> = run(&policy, nodes, READ, || async {
                attempts.set(attempts.get() + 1);
                tokio::time::sleep(policy.attempt_timeout).await;
                let timeout_ms = 12_000;
                Err(Failure::transport(TransportError::TimedOut { timeout_ms }))
            })
            .await;
            assert!(matches!(result, Err(Error::Transport(_))));
            assert_eq!(attempts.get(), attempted, "{nodes} nodes");
        }
    }

    #[test]
    fn pauses_double_up_to_400_ms() {
        let pauses: Vec<_> = (1..=5)
            .map(|failures| backoff(failures).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 400, 400]);
    }
}
