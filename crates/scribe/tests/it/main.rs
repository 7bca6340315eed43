//! The one integration-test binary.

mod append;
mod crash;
mod test_ledger;
