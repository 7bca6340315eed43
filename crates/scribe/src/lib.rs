//! The node and the tool of Scribe Ledger.
//!
//! Arrows mean "uses"; nothing points back:
//!
//! ```text
//! cli ─┬─ http ─ node ─┬─ sequencer ─ consensus ─ ledger
//!      │               ├─ publisher      │
//!      │               └─ store ◄────────┘ (state machine only)
//!      └─ scribe-client, scribe-proof
//! ```
//! `ledger` decides and is pure; `store` keeps; `consensus` orders; `sequencer` batches; `publisher` signs.

#![warn(missing_docs)]
#![warn(clippy::unwrap_used)]

pub mod audit;
pub mod barrier;
mod blocking;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod consensus;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hex;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod monitor;
pub mod node;
pub mod peer;
pub mod planted;
pub mod publisher;
pub mod repair;
pub mod roster;
pub mod sequencer;
pub mod store;
pub mod units;
pub mod witness;
pub mod world;
