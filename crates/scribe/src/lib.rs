//! The node and the tool of Scribe Ledger.

pub mod config;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod units;
