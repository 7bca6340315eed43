//! The node and the tool from outside, in one test binary.

mod cli_help;
mod cli_offline;
