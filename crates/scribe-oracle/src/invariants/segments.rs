//! A sealed segment has the same bytes on every node, at any time.

use std::collections::HashMap;

use scribe_proof::Hash;

use crate::event::{Moment, NodeId};
use crate::violation::Invariant::Segments as Promise;

use super::{Check, broken};

#[derive(Debug, Default)]
pub(crate) struct Segments {
    seen: HashMap<u64, (Hash, NodeId, Moment)>,
    /// How many were compared with an earlier sight.
    pub(crate) compared: u64,
}

impl Segments {
    /// A node has a sealed segment of this number and SHA-256.
    pub(crate) fn sealed(&mut self, at: Moment, node: NodeId, number: u64, sha256: Hash) -> Check {
        let Some((known, by, when)) = self.seen.get(&number) else {
            self.seen.insert(number, (sha256, node, at));
            return Ok(());
        };
        self.compared += 1;
        if *known != sha256 {
            let evidence = format!(
                "segment {number} has SHA-256 {known} on {by} at moment {when}, and {sha256} on {node}"
            );
            return Err(broken(Promise, at, evidence));
        }
        Ok(())
    }
}
