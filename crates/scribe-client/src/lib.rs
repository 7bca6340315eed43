//! How to ask: an HTTP client for Scribe Ledger that verifies what it hears.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod code;
pub mod wire;
