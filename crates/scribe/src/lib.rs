//! The node and the tool of Scribe Ledger.

pub mod error;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod sequencer;
