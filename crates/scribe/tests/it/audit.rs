//! The audit against real ledgers, healthy and wrong.
