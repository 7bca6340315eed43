//! The decision, pure: what a committed frame means for the ledger.
//!
//! Nothing here reads a clock, a disk or a socket, draws a random number or awaits: every replica that applies the same
//! frames reaches the same state, and every rule can be tested in microseconds.

pub mod apply;
pub mod batch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub use apply::{AppliedLeaf, ApplyError, Entries, EntriesFrame, LedgerState, Outcome, apply};
