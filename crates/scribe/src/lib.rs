//! The node and the tool of Scribe Ledger.

pub mod ledger;
pub mod limits;
pub mod store;
