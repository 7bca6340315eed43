//! The node and the tool of Scribe Ledger.

pub mod cli;
pub mod config;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod node;
pub mod units;
