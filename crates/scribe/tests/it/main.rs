//! The one integration-test binary.

mod append;
mod cli_help;
mod cli_node;
mod cli_offline;
mod crash;
mod test_ledger;
