//! The judge of a run ([`scribe_oracle::Judge`]), shared by the clients and by who watches the nodes, and the first
//! violation it found.

use std::sync::Arc;

use parking_lot::Mutex;
use scribe::node::Entry;
use scribe_oracle::{Checked, Judge, Moment, OperationId, Outcome, Seen, Version, Violation};
use scribe_proof::leaf::LeafKind;
use scribe_proof::sha256;

use crate::trace::Trace;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Court(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    judge: Judge,
    /// Grows with each event: sharper than the simulated clock, which stands still while many things happen.
    moment: u64,
    violation: Option<String>,
    /// Tree size that covers everything acknowledged.
    reached: u64,
    trace: Trace,
}

impl Court {
    /// Nothing was seen yet.
    pub fn new(trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            judge: Judge::new(),
            moment: 0,
            violation: None,
            reached: 0,
            trace,
        })))
    }

    /// Tells the judge something. After a violation nothing is told any more.
    pub fn tell<T>(
        &self,
        what: impl FnOnce(&mut Judge, Moment) -> Result<T, Violation>,
    ) -> Option<T> {
        let mut inner = self.0.lock();
        if inner.violation.is_some() {
            return None;
        }
        inner.moment += 1;
        let moment = Moment(inner.moment);
        match what(&mut inner.judge, moment) {
            Ok(told) => Some(told),
            Err(violation) => {
                inner.trace.line(format_args!("VIOLATION {violation}"));
                inner.violation = Some(violation.to_string());
                None
            }
        }
    }

    /// An operation has its answer.
    pub fn returned(&self, operation: OperationId, outcome: Outcome) {
        if let Outcome::Acknowledged(appended) = &outcome {
            let mut inner = self.0.lock();
            let sizes = appended.iter().map(|one| one.index.tree_size().get());
            inner.reached = sizes.fold(inner.reached, u64::max);
        }
        self.tell(|judge, at| judge.returned(at, operation, outcome));
    }

    /// The least tree size that covers everything acknowledged: who has caught up has as much.
    pub fn reached(&self) -> u64 {
        self.0.lock().reached
    }

    /// Something is wrong that is not the judge's business.
    pub fn broken(&self, text: impl Into<String>) {
        let mut inner = self.0.lock();
        let text = text.into();
        inner.trace.line(format_args!("VIOLATION {text}"));
        inner.violation.get_or_insert(text);
    }

    /// The first violation.
    pub fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }

    /// Compares everything with what came of it.
    pub fn finish(&self) -> Checked {
        let mut inner = self.0.lock();
        let judge = std::mem::take(&mut inner.judge);
        let so_far = judge.checked();
        if inner.violation.is_some() {
            return so_far;
        }
        match judge.finish() {
            Ok(checked) => checked,
            Err(violation) => {
                inner.trace.line(format_args!("VIOLATION {violation}"));
                inner.violation = Some(violation.to_string());
                so_far
            }
        }
    }
}

/// An entry as the judge knows entries; `None` if it no longer parses, which is damage.
pub fn entry(entry: &Entry) -> Option<scribe_oracle::Entry> {
    let leaf = entry.parsed().ok()?;
    Some(scribe_oracle::Entry {
        index: entry.index,
        kind: leaf.kind,
        key: leaf.key.to_vec(),
        value: (leaf.kind == LeafKind::Put).then(|| sha256(&entry.value())),
        timestamp_ms: Some(leaf.timestamp_ms),
        leaf_hash: Some(entry.leaf_hash()),
    })
}

/// A version as a read saw it.
pub fn seen(found: &Entry) -> Option<Seen> {
    let leaf = found.parsed().ok()?;
    Some(Seen {
        index: found.index,
        version: match leaf.kind {
            LeafKind::Put => Version::Value(Some(sha256(&found.value()))),
            _ => Version::Tombstone,
        },
    })
}
