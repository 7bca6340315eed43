//! What can go wrong, one enum per kind of operation, shaped by what the caller can do about it.
//!
//! These carry the values; the HTTP layer turns them into stable codes, the command line into messages with a hint.

use bytes::Bytes;
use scribe_proof::index::{LeafIndex, TreeSize};

/// Why a write was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The write breaks a rule. Sending it again will not help.
    #[error("{rule}")]
    Invalid {
        /// The rule, the value found and the value allowed.
        rule: String,
        /// A next step, if there is one.
        hint: Option<String>,
    },
    /// Something is over its limit.
    #[error("{what} is {found} bytes, allowed {allowed}")]
    TooLarge {
        /// `key`, `value`, `metadata`, `transaction` …
        what: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// A condition did not hold. Nothing was written.
    #[error("{}", condition_text(*.current_index, *.deleted))]
    ConditionFailed {
        /// Which operation of a transaction, 0 for a single write.
        operation: usize,
        /// Its key.
        key: Bytes,
        /// Leaf index of the key's current version (or tombstone), if it has one.
        current_index: Option<LeafIndex>,
        /// Whether that version is a tombstone.
        deleted: bool,
    },
    /// The idempotency key was used for another request within its window.
    #[error("the idempotency key was used before for a different request")]
    IdempotencyMismatch,
    /// Too many writes wait; none was lost. Try again after the pause.
    #[error("too many writes are waiting, try again in {retry_after_ms} ms")]
    Overloaded {
        /// Suggested pause.
        retry_after_ms: u64,
    },
    /// The disk is nearly full; reads go on.
    #[error("the disk is nearly full, writes are refused until space returns")]
    DiskFull,
    /// Another node leads.
    #[error("this node does not lead")]
    NotLeader {
        /// HTTP address of the leader, if known.
        leader: Option<String>,
    },
    /// The write may or may not take effect. Only the same idempotency key settles it.
    #[error("the outcome is unknown: the write may or may not have taken effect")]
    UnknownOutcome,
    /// The node cannot write now. Nothing was written.
    #[error("writes are not possible now: {0}")]
    Unavailable(String),
}

fn condition_text(current_index: Option<LeafIndex>, deleted: bool) -> String {
    match current_index {
        None => "the condition does not hold: the key has no version".to_owned(),
        Some(index) if deleted => {
            format!("the condition does not hold: the key was deleted at index {index}")
        }
        Some(index) => {
            format!("the condition does not hold: the key's current version is index {index}")
        }
    }
}

/// Why a read was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The question breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The question is about leaves that are not there yet.
    #[error("tree size {asked} is beyond the ledger's {size}")]
    BeyondTree {
        /// Tree size asked about.
        asked: TreeSize,
        /// Tree size now.
        size: TreeSize,
    },
    /// No answer can be given now; a later one may.
    #[error("reads are not possible now: {0}")]
    Unavailable(String),
    /// Another node leads and this one cannot answer for it.
    #[error("this node does not lead")]
    NotLeader {
        /// HTTP address of the leader, if known.
        leader: Option<String>,
    },
    /// Bytes on disk are not what they were.
    #[error("stored bytes are damaged: {0}")]
    Damaged(String),
    /// The disk failed to answer.
    #[error("the disk failed: {0}")]
    Io(String),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self::Damaged(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

/// Why there is no checkpoint that covers what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not within the time allowed. It will be published later.
    #[error("no checkpoint covers it yet")]
    NotPublished,
    /// Publishing is not possible now.
    #[error("publishing is not possible now: {0}")]
    Unavailable(String),
}
