//! Any two checkpoints ever seen, from any node at any time, are consistent.
//!
//! At once: two of one size have one root; and each has the root of the tree over the entries as soon as their leaf
//! hashes are known from index 0 on. In the end every checkpoint has the root of that one tree at its size. Trees that
//! are prefixes of one tree are consistent with each other: so every pair is, without a proof for each.
//!
//! Checkpoints are to be told with whatever else is seen of them outside of what may fail: those a client got in a
//! receipt, and those a witness keeps. Signatures are not looked at here.

use crate::event::Moment;
use crate::heads::{Against, Fork, Heads};
use crate::violation::Invariant::{Checkpoints as Promise, Roots};
use crate::violation::Violation;

use super::{Check, broken};

/// A head contradicts another one, or the tree. If no checkpoint is involved, or only one side of two is signed, it is
/// the nodes' states that differ.
pub(crate) fn forked(at: Moment, fork: &Fork) -> Violation {
    let Fork {
        size,
        shown,
        against,
    } = fork;
    let (signed, other) = match against {
        Against::Head(other) => (shown.signed && other.signed, other.text(*size)),
        Against::Tree(root) => (
            shown.signed,
            format!("the entries told of have root {root} at tree size {size}"),
        ),
    };
    let promise = if signed { Promise } else { Roots };
    broken(promise, at, format!("{}; but {other}", shown.text(*size)))
}

/// No head is larger than the ledger that came of it.
pub(crate) fn finish(at: Moment, heads: &Heads, ledger_size: u64) -> Check {
    if let Some((size, shown)) = heads.beyond()
        && size > ledger_size
    {
        let promise = if shown.signed { Promise } else { Roots };
        let evidence = format!(
            "{}; but no ledger has more than {ledger_size} entries",
            shown.text(size)
        );
        return Err(broken(promise, at, evidence));
    }
    Ok(())
}
