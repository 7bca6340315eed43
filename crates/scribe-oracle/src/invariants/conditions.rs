//! A conditional write is appended only where its condition holds, and refused only where it does not.
//!
//! At once: a refusal names a current version with which the condition does not hold; a write acknowledged under a
//! condition on an index has no known version of its key in between. In the end: the condition of every write that is
//! in the ledger, acknowledged or not, held in the state just before it. That a refusal saw a state of its own time is
//! for [`linearizable`](super::linearizable), where it counts as a read.

use scribe_proof::{LeafIndex, LeafKind};

use crate::book::{Book, KeyId, Step, WriteId};
use crate::entries::Entries;
use crate::event::{Condition, Moment, OperationId};
use crate::places::Versions;
use crate::violation::Invariant::Conditions as Promise;
use crate::violation::Violation;

use super::acknowledged::acknowledged_by;
use super::{Check, broken};

/// An attempt was refused because the condition of a step did not hold.
pub(crate) fn failed(
    at: Moment,
    book: &Book,
    entries: &Entries,
    id: OperationId,
    step: Option<&Step>,
    current: Option<LeafIndex>,
) -> Check {
    let held = match step.map(|step| step.condition) {
        // A refusal by a condition that was not asked for.
        None | Some(Condition::None) => true,
        Some(Condition::Index(index)) => current == Some(index),
        Some(Condition::Absent) => match current {
            None => true,
            Some(index) => entries
                .get(index.get())
                .is_some_and(|known| known.kind == LeafKind::Delete),
        },
    };
    if held {
        let evidence = format!("refused although its condition held: {}", book.text(id));
        return Err(broken(Promise, at, evidence));
    }
    Ok(())
}

/// A write was acknowledged at `first`: none of the known versions contradicts its conditions.
pub(crate) fn acknowledged(
    at: Moment,
    book: &Book,
    entries: &Entries,
    id: WriteId,
    first: u64,
) -> Check {
    for step in &book.write(id).steps {
        let Condition::Index(index) = step.condition else {
            continue;
        };
        let other = entries
            .get(index.get())
            .filter(|known| known.key != step.key);
        let newer = entries.version_between(step.key, Some(index.get()), first);
        if index.get() >= first || other.is_some() || newer.is_some() {
            return Err(did_not_hold(at, book, id, first, step.key, newer));
        }
    }
    Ok(())
}

/// Whether the condition of a step holds in the state of tree size `size`.
pub(crate) fn holds(entries: &Entries, versions: &Versions<KeyId>, step: &Step, size: u64) -> bool {
    let newest = || versions.newest_before(&step.key, size);
    match step.condition {
        Condition::None => true,
        Condition::Absent => newest().is_none_or(|index| {
            entries
                .get(index)
                .is_some_and(|known| known.kind == LeafKind::Delete)
        }),
        Condition::Index(index) => newest() == Some(index.get()),
    }
}

/// The conditions of every write that is in the ledger held just before it. Returns how many there were.
pub(crate) fn finish(
    at: Moment,
    book: &Book,
    entries: &Entries,
    versions: &Versions<KeyId>,
    places: impl Iterator<Item = (WriteId, u64)>,
) -> Result<u64, Violation> {
    let mut held = 0;
    for (id, first) in places {
        for step in &book.write(id).steps {
            if !holds(entries, versions, step, first) {
                let newest = versions.newest_before(&step.key, first);
                return Err(did_not_hold(at, book, id, first, step.key, newest));
            }
            held += u64::from(step.condition != Condition::None);
        }
    }
    // What a refusal by "absent" named as current has a value.
    for id in book.operation_ids() {
        if let Some((step, current)) = book.failed_condition(id) {
            failed(at, book, entries, id, step, current)?;
        }
    }
    Ok(held)
}

fn did_not_hold(
    at: Moment,
    book: &Book,
    id: WriteId,
    first: u64,
    key: KeyId,
    newest: Option<u64>,
) -> Violation {
    let newest = match newest {
        Some(index) => format!("the version at index {index}"),
        None => "no version".to_owned(),
    };
    let evidence = format!(
        "the condition on {} did not hold just before index {first}, where {newest} was in its way: {}",
        book.keys.text(key),
        acknowledged_by(book, id)
    );
    broken(Promise, at, evidence)
}

impl Book {
    /// The step and the current version that a refusal by a condition named.
    pub(crate) fn failed_condition(
        &self,
        id: OperationId,
    ) -> Option<(Option<&Step>, Option<LeafIndex>)> {
        use crate::book::Action;
        use crate::event::Outcome;
        let operation = self.operation(id);
        match (&operation.action, &operation.returned) {
            (Action::Write(write), Some((_, Outcome::ConditionFailed { step, current }))) => {
                Some((self.write(*write).steps.get(*step), *current))
            }
            _ => None,
        }
    }
}
