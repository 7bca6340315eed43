//! What can go wrong, by what the caller can do about it.

use crate::code::ErrorCode;
use crate::verify::VerificationError;
use crate::wire::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node could not be reached, did not answer, or the connection broke. Nothing was written.
    #[error("{0}")]
    Transport(#[from] TransportError),
    /// The node refused; see [`Error::code`].
    #[error("{}: {}{}", .0.code, .0.detail, hint(.0))]
    Server(Box<Problem>),
    /// What the node sent does not hold. Do not use it, and keep the error: it may be evidence.
    #[error("verification failed: {0}")]
    Verification(#[from] Box<VerificationError>),
    /// The write may or may not have been appended. Sending it again is safe only with this
    /// idempotency key; without one, read the key's history first.
    #[error("outcome unknown: {last}")]
    OutcomeUnknown {
        /// The key the attempts were made with.
        idempotency_key: Option<String>,
        /// What became of the last attempt.
        last: Box<Error>,
    },
    /// The answer is not what the contract says: another service, or a newer node.
    #[error("unexpected answer: {0}")]
    UnexpectedAnswer(String),
    /// An argument was refused before anything was sent.
    #[error("{0}")]
    InvalidArgument(String),
    /// The last verified checkpoint could not be read or kept.
    #[error("cannot keep the last checkpoint: {0}")]
    Pin(#[source] std::io::Error),
}

fn hint(problem: &Problem) -> String {
    problem
        .hint
        .as_deref()
        .map(|hint| format!("; hint: {hint}"))
        .unwrap_or_default()
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection; nothing was sent.
    #[error("cannot reach the node: {0}")]
    Connect(String),
    /// The node's certificate is not believed; nothing was sent.
    #[error("cannot reach the node: its certificate is not believed: {0}")]
    Certificate(String),
    /// The connection broke after the request was begun.
    #[error("the connection to the node broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("the node was reached, but did not answer within {timeout_ms} ms")]
    TimedOut {
        /// How long was waited.
        timeout_ms: u64,
    },
}

impl Error {
    /// The node's code, if it refused with one this version knows.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Server(problem) => problem.error_code(),
            _ => None,
        }
    }

    /// What the node said, if it refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Server(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the node says that there is no such thing, or that it was deleted.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.problem().is_some_and(|problem| problem.status == 404)
    }
}

impl From<VerificationError> for Error {
    fn from(error: VerificationError) -> Error {
        Error::Verification(Box::new(error))
    }
}

/// An error and its causes in one line; reqwest's own text leaves the causes out.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
