//! The one integration-test binary of the node: each module is a kind of test.

mod tidy;
