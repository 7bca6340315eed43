//! The promises, one file each. Each file has what it remembers, the check at once where what is known suffices, and
//! the check in the end, when the whole ledger is known. What is found at once is never a false alarm: it contradicts
//! something that was already told, whatever else is still unknown.

pub(crate) mod acknowledged;
pub(crate) mod bytes;
pub(crate) mod checkpoints;
pub(crate) mod conditions;
pub(crate) mod linearizable;
pub(crate) mod order;
pub(crate) mod refused;
pub(crate) mod roots;
pub(crate) mod segments;
pub(crate) mod watch;

use crate::event::Moment;
use crate::violation::{Invariant, Violation};

/// What a check says.
pub(crate) type Check = Result<(), Violation>;

/// A broken promise.
pub(crate) fn broken(invariant: Invariant, at: Moment, evidence: impl Into<String>) -> Violation {
    Violation {
        invariant,
        at,
        evidence: evidence.into(),
    }
}
