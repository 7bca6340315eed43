//! The local disk: the Raft log that is the ledger, and what is derived from it.

pub mod disk;
pub mod error;
pub mod frame;
pub mod lock;
pub mod log;
pub mod manifest;
mod next_segment;
mod reading;
pub mod real_disk;
pub mod recovery;
mod scan;
mod sealing;
pub mod segment;
pub mod sim_disk;
mod state;
pub mod vote;
pub mod watermarks;
mod writer;

#[cfg(test)]
mod log_tests;
