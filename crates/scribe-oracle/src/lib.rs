//! What the clients of a Scribe ledger were promised, and whether it was kept.
//!
//! A [`Judge`] is told everything that a run shows from outside: operations as clients begin them and what they are told
//! ([`Judge::invoked`], [`Judge::returned`]), checkpoints, states, segments, watches, and in the end the whole ledger of
//! each node ([`Judge::whole_ledger`], [`Judge::finish`]). It holds that against the ten promises of [`Invariant`], one
//! file each under `src/invariants/`, and answers with the first [`Violation`].
//!
//! **A simulation** has one judge for all its hosts, calls it at every step, and takes as [`Moment`] a counter that grows
//! with each event. **Torture of real processes** shares one behind a lock and reads its clock while it holds the lock:
//! `invoked` before a request leaves, `returned` after its answer has come, so that intervals are never too short. Both
//! end with faults healed, every node caught up, `whole_ledger` for each, `finish`, and [`Checked::at_least`]: a run in
//! which nothing was checked has not passed.
//!
//! What it cannot know: whether signatures are good, whether anything happens in time, and what nobody told it. It is
//! pure: no clock, no I/O, no randomness, and nothing of the ledger's own code but its hashes and its tree
//! ([`scribe_proof`]).
//!
//! ```
//! use scribe_oracle::*;
//!
//! let mut judge = Judge::new();
//! let (client, node) = (ClientId(1), Some(NodeId(1)));
//! let put = judge.invoked(Moment(1), client, node, Request::Write(Write::put("k", b"v")));
//! judge.returned(Moment(2), put, Outcome::acknowledged_at(0))?;
//! let get = judge.invoked(Moment(3), client, node, Request::Read(Read::of("k")));
//! let nothing = Answer { tree_size: None, saw: vec![None] };
//! let violation = judge.returned(Moment(4), get, Outcome::Answered(nothing)).unwrap_err();
//! assert_eq!(violation.invariant, Invariant::Linearizable);
//! # Ok::<(), Violation>(())
//! ```

#![deny(missing_docs)]
#![warn(unreachable_pub)]
#![warn(clippy::unwrap_used)]

mod book;
mod checked;
mod entries;
mod event;
mod floor;
mod heads;
mod invariants;
mod judge;
mod places;
mod violation;

pub use checked::Checked;
pub use event::{
    Answer, Appended, Change, ClientId, Condition, Consistency, Entry, Filter, Moment, NodeId,
    NodeState, OperationId, Outcome, Read, Request, Seen, Step, Version, WatchId, Write,
};
pub use judge::Judge;
pub use violation::{Invariant, Violation};
