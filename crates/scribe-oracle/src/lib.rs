//! What the clients of a Scribe ledger were promised, and whether it was kept.
//!
//! A [`Judge`] is told everything that a run shows from outside: operations as clients begin them and what they are told
//! ([`Judge::invoked`], [`Judge::returned`]), checkpoints, states, segments, watches, and in the end the whole ledger of
//! each node ([`Judge::whole_ledger`], [`Judge::finish`]). It holds that against the ten promises of [`Invariant`], one
//! file each under `src/invariants/`, and answers with the first [`Violation`].
//!
//! **A simulation** has one judge for all its hosts, calls it at every step, and takes as [`Moment`] a counter that grows
//! with each event. For **real processes**, share one behind a lock and read the clock while holding it: `invoked` before
//! a request leaves, `returned` after its answer has come, so that intervals are never too short. Both end with faults
//! healed, every node caught up, `whole_ledger` for each, `finish`, and [`Checked::at_least`]: a run in which nothing was
//! checked has not passed. An operation takes about a kilobyte of memory.
//!
//! # What it must be told, and in which order
//!
//! Events come in the order in which they were observed, each with its moment; moments never go back.
//!
//! - **All writes of a run**, also those that set it up: an entry that nobody wrote is a violation. Reads, as many as one
//!   likes. Values differ, so that an entry is one write's and no other's.
//! - An outcome is [`Outcome::Refused`] only if the ledger promised that it will never be appended; a lost connection, a
//!   deadline, a client that was killed are [`Outcome::Unknown`], and so is what never returns.
//! - States, checkpoints and what was signed, of one node, in the order in which that node gave them: ask each node one at a
//!   time. [`Judge::node_started`] between two lives of it. Checkpoints from elsewhere (receipts, witnesses) in any order.
//! - Events of one watch in their order, over its reconnections.
//! - In the end, with every node caught up and no operation left, the whole ledger of each.
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
pub mod history;
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
