//! What a witness does with a request, decided from what it remembers, the request and the time. Pure: no disk, no
//! clock, no network (<https://c2sp.org/tlog-witness>, `add-checkpoint`).
//!
//! The order of the checks is the specification's: who the log is (404), whether it signed (403), whether the sizes make
//! sense (400), whether the log knows what this witness cosigned last (409 with that size), whether the tree is an
//! extension of that (409 for another root at the same size, 422 for a proof that does not lead there).

use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::error::ProofError;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::note::{Note, Signature};
use scribe_proof::witness::AddCheckpoint;
use scribe_proof::{consistency, empty_root};

use super::logs::FollowedLog;

/// The head of a log that this witness cosigned last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Tree size.
    pub size: TreeSize,
    /// Root hash.
    pub root: Hash,
    /// When it was cosigned, in seconds since 1970.
    pub timestamp_s: u64,
}

/// What is to be cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosign {
    /// The time to name: now, or that of the cosignature before if the clock went back.
    pub timestamp_s: u64,
    /// Whether the head is one that was not cosigned before, and must be on disk before the cosignature leaves.
    pub is_new: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 400: the request is no `add-checkpoint` request.
    #[error("{0}")]
    Malformed(String),
    /// 400: the checkpoint is smaller than what the log says was cosigned.
    #[error("old size must be at most the size of the checkpoint, which is {size}, found {old}")]
    OldBeyond {
        /// Size the request names.
        old: TreeSize,
        /// Size of the checkpoint.
        size: TreeSize,
    },
    /// 403: no trusted key signed, or one whose signature does not fit.
    #[error("{0}")]
    NotSigned(String),
    /// 404: this witness does not follow the log.
    #[error("this witness does not follow a log of origin {origin:?}")]
    UnknownOrigin {
        /// The origin found.
        origin: String,
    },
    /// 409 with the size: the request extends another checkpoint than the one cosigned last.
    #[error("the checkpoint cosigned last has size {size}, the request extends {old}")]
    Conflict {
        /// Size the request names.
        old: TreeSize,
        /// Size cosigned last.
        size: TreeSize,
    },
    /// 409: another root hash was cosigned at this size.
    #[error("root hash {root} was cosigned at size {size}, the checkpoint has {found}")]
    OtherRoot {
        /// The size of both.
        size: TreeSize,
        /// The root hash cosigned.
        root: Hash,
        /// The root hash of the checkpoint.
        found: Hash,
    },
    /// 422: the proof does not lead from the one to the other.
    #[error("consistency with the checkpoint of size {old} is not proved: {problem}")]
    Inconsistent {
        /// Size cosigned last.
        old: TreeSize,
        /// What is wrong with the proof.
        problem: ProofError,
    },
}

impl Refused {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldBeyond { .. } => 400,
            Self::NotSigned(_) => 403,
            Self::UnknownOrigin { .. } => 404,
            Self::Conflict { .. } | Self::OtherRoot { .. } => 409,
            Self::Inconsistent { .. } => 422,
        }
    }

    /// Whether the log itself, by its own signature, shows another history than the one cosigned before.
    pub fn is_fork(&self) -> bool {
        matches!(self, Self::OtherRoot { .. } | Self::Inconsistent { .. })
    }
}

/// The signatures of a log's own keys on its checkpoint. Lines of other keys are ignored.
///
/// # Errors
/// [`Refused::UnknownOrigin`] if the checkpoint is not of this log; [`Refused::NotSigned`] if no key of the log signed
/// it, or one whose signature does not fit.
pub fn signed_by(
    log: &FollowedLog,
    checkpoint: &SignedCheckpoint,
) -> Result<Vec<Signature>, Refused> {
    let origin = &checkpoint.checkpoint().origin;
    if *origin != log.origin {
        return Err(Refused::UnknownOrigin {
            origin: origin.clone(),
        });
    }
    let Note { signatures, .. } = checkpoint.note();
    let mut own = Vec::new();
    for key in &log.keys {
        let signed = checkpoint
            .note()
            .verify(key)
            .map_err(|error| Refused::NotSigned(error.to_string()))?;
        if signed {
            // Two lines by one key say nothing more than one.
            own.extend(signatures.iter().find(|line| line.is_by(key)).cloned());
        }
    }
    if own.is_empty() {
        let names: Vec<String> = log
            .keys
            .iter()
            .map(|key| format!("{}+{:08x}", key.name(), key.key_id()))
            .collect();
        return Err(Refused::NotSigned(format!(
            "the checkpoint is not signed by a key trusted for this log: {}",
            names.join(", ")
        )));
    }
    Ok(own)
}

/// Decides a request whose checkpoint is signed by the log.
///
/// # Errors
/// Why it is not cosigned.
pub fn decide(
    last: Option<&Remembered>,
    request: &AddCheckpoint,
    now_s: u64,
) -> Result<Cosign, Refused> {
    let AddCheckpoint {
        old,
        proof,
        checkpoint,
    } = request;
    let new = checkpoint.checkpoint();
    if *old > new.size {
        return Err(Refused::OldBeyond {
            old: *old,
            size: new.size,
        });
    }
    let known = last.map_or((TreeSize::EMPTY, empty_root()), |last| {
        (last.size, last.root)
    });
    if *old != known.0 {
        return Err(Refused::Conflict {
            old: *old,
            size: known.0,
        });
    }
    if new.size == known.0 && new.root != known.1 {
        return Err(Refused::OtherRoot {
            size: new.size,
            root: known.1,
            found: new.root,
        });
    }
    // From no leaves, and from a tree to itself, there is nothing to prove: a proof that is there is a wrong one.
    consistency::verify(known.0, &known.1, new.size, &new.root, proof).map_err(|problem| {
        Refused::Inconsistent {
            old: known.0,
            problem,
        }
    })?;
    Ok(Cosign {
        // A cosignature says "the largest tree I have seen by this second": a later one must not name an earlier second.
        timestamp_s: last.map_or(now_s, |last| now_s.max(last.timestamp_s)),
        is_new: last.is_none_or(|last| last.size != new.size),
    })
}

/// Reads a request.
///
/// # Errors
/// [`Refused::Malformed`].
pub fn read(body: &[u8]) -> Result<AddCheckpoint, Refused> {
    AddCheckpoint::parse(body).map_err(|error| Refused::Malformed(error.to_string()))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
