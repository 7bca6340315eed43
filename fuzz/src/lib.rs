//! What the fuzz targets do with the bytes they are given, one function each.
//!
//! The functions stand here, and not in `fuzz_targets/`, so that a plain test on stable includes the
//! same file and runs them over the corpora.

pub mod proof;
