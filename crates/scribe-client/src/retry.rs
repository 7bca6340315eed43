//! When a call is sent again, and what is known after the last attempt.
//!
//! A call is repeated if its failure says that waiting may help, after 100, 200, 400 and again
//! 400 ms (or longer if the node asks for it), until the deadline. A write is repeated after an
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
    /// No attempt begins after this time. 10 s unless set; zero means a single attempt.
    pub deadline: Duration,
    /// How long one attempt may wait for its answer to begin, not counting one second per MiB
    /// sent. 6 s unless set: above the 5 s a node waits for a checkpoint.
    pub attempt_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(6),
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
        Failure {
            retryable: problem.is_retryable(),
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
            TransportError::Connect(_) => Effect::None,
            TransportError::Broken(_) | TransportError::TimedOut { .. } => Effect::Unknown,
        };
        Failure {
            error: Error::Transport(error),
            effect,
            retryable: true,
            after: None,
        }
    }

    /// What follows from an answer that cannot be understood.
    pub(crate) fn unexpected(text: String) -> Failure {
        Failure {
            error: Error::UnexpectedAnswer(text),
            effect: Effect::Unknown,
            retryable: false,
            after: None,
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

/// Calls `attempt` until it succeeds or must not be repeated.
pub(crate) async fn run<T, F, A>(
    policy: &RetryPolicy,
    safety: Safety<'_>,
    mut attempt: A,
) -> Result<T, Error>
where
    A: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let end = Instant::now() + policy.deadline;
    let mut unknown = false;
    // Once an attempt is known to have written, that is what the caller must hear in the end.
    let mut appended: Option<Error> = None;
    let mut failures = 0;
    loop {
        let failure = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        failures += 1;
        let Safety::Write(idempotency_key) = safety else {
            if failure.retryable && pause(end, failures, failure.after).await {
                continue;
            }
            return Err(failure.error);
        };
        unknown |= failure.effect == Effect::Unknown;
        let (effect, retryable, after) = (failure.effect, failure.retryable, failure.after);
        let error = match effect {
            Effect::Appended => {
                appended = Some(failure.error);
                None
            }
            Effect::None | Effect::Unknown => Some(failure.error),
        };
        let wrote = unknown || appended.is_some();
        let may_repeat = retryable && (!wrote || idempotency_key.is_some());
        if may_repeat && pause(end, failures, after).await {
            continue;
        }
        if let Some(appended) = appended {
            return Err(appended);
        }
        let Some(error) = error else { continue };
        // A refusal for good answers for the earlier attempts too: the node looks up the
        // idempotency key before anything else.
        let settled = effect == Effect::None && !retryable;
        if unknown && !settled {
            return Err(Error::OutcomeUnknown {
                idempotency_key: idempotency_key.map(str::to_owned),
                last: Box::new(error),
            });
        }
        return Err(error);
    }
}

/// Waits before the next attempt; false if that would begin after `end`.
async fn pause(end: Instant, failures: u32, after: Option<Duration>) -> bool {
    // Up to a quarter more, so that clients refused together do not come back together.
    let backoff = backoff(failures).mul_f64(1.0 + rand::random::<f64>() / 4.0);
    let next = Instant::now() + backoff.max(after.unwrap_or_default());
    if next > end {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
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
        let result = run(&RetryPolicy::default(), safety, || {
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
            Err(Error::Transport(error)) => error.to_string(),
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
        let result: Result<(), Error> = run(&RetryPolicy::default(), READ, || {
            attempts.set(attempts.get() + 1);
            std::future::ready(Err(Failure::refused(problem.clone(), None)))
        })
        .await;
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::Overloaded));
        assert_eq!(attempts.get(), 4);
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[test]
    fn pauses_double_up_to_400_ms() {
        let pauses: Vec<_> = (1..=5)
            .map(|failures| backoff(failures).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 400, 400]);
    }
}
