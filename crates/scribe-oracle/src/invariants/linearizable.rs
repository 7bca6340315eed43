//! Reads and writes follow real time: what returned before something else began is before it in the ledger.
//!
//! At once: what an operation shows (its index, the tree size it saw, the version it saw) is not behind what operations
//! that had returned before it began have shown. In the end, when all versions are known: one sweep over the whole
//! history ([`places`](crate::places)), which is exact: it finds a violation if and only if no order of the operations
//! explains what clients saw. A refusal because of a condition is a read of that condition.

use std::collections::BTreeMap;

use crate::book::{Action, Book, KeyId, WriteId};
use crate::entries::Entries;
use crate::event::{Consistency, Moment, OperationId, Outcome};
use crate::floor::Mark;
use crate::places::{NEVER, Span, Versions, of_entry, of_state, sweep};
use crate::violation::Invariant::Linearizable as Promise;
use crate::violation::Violation;

use super::broken;
use super::order::Transactions;

/// The versions an operation saw as a linearizable read, and the tree size if it named one.
type View = (Option<u64>, Vec<(KeyId, Option<u64>)>);

/// What an operation that returned saw as a linearizable read, if it is one.
fn view(book: &Book, id: OperationId) -> Option<View> {
    let operation = book.operation(id);
    if let Some((keys, Consistency::Linearizable, answer)) = operation.answer() {
        let indexes = answer
            .saw
            .iter()
            .map(|seen| seen.map(|seen| seen.index.get()));
        let size = answer.tree_size.map(|size| size.get());
        return Some((size, keys.iter().copied().zip(indexes).collect()));
    }
    match (&operation.action, &operation.returned) {
        (Action::Write(write), Some((_, Outcome::ConditionFailed { step, current }))) => {
            let step = book.write(*write).steps.get(*step)?;
            Some((None, vec![(step.key, current.map(|index| index.get()))]))
        }
        _ => None,
    }
}

/// The place of a write is that of its last entry.
fn place_of_write(book: &Book, id: WriteId, first: u64) -> u64 {
    let length = book.write(id).length() as u64;
    of_entry(first + length.saturating_sub(1))
}

/// A write was acknowledged. Returns the place that the ledger has reached.
pub(crate) fn acknowledged(
    at: Moment,
    book: &Book,
    operation: OperationId,
    id: WriteId,
    first: u64,
) -> Result<u64, Violation> {
    let place = place_of_write(book, id, first);
    let floor = book.write(id).floor;
    if place < floor.place {
        return Err(out_of_order(at, book, operation, floor.by));
    }
    Ok(place)
}

/// A read was answered, or a condition found not to hold. Returns the place that the ledger had reached at least; `None`
/// if the operation says nothing of it.
pub(crate) fn observed(
    at: Moment,
    book: &Book,
    entries: &Entries,
    id: OperationId,
    floor: Mark,
) -> Result<Option<u64>, Violation> {
    let Some((size, saw)) = view(book, id) else {
        return Ok(None);
    };
    let (first, last) = match size {
        Some(size) => (of_state(size), of_state(size)),
        None => {
            let first = saw.iter().filter_map(|(_, index)| *index).max();
            // Only what is known so far: a newer version may still turn up.
            let next = saw
                .iter()
                .filter_map(|(key, index)| entries.version_between(*key, *index, u64::MAX))
                .min();
            (
                first.map_or(0, |index| of_state(index.saturating_add(1))),
                next.map_or(NEVER, of_state),
            )
        }
    };
    if floor.place > last {
        return Err(out_of_order(at, book, id, floor.by));
    }
    if first > last {
        return Err(out_of_order(at, book, id, None));
    }
    Ok(Some(first.max(floor.place)))
}

/// Sweeps over the whole history; `places` has where each write is that is in the ledger. Returns how many operations
/// have a place.
pub(crate) fn finish(
    at: Moment,
    book: &Book,
    versions: &Versions<KeyId>,
    transactions: &Transactions,
    places: &BTreeMap<WriteId, u64>,
) -> Result<u64, Violation> {
    let mut spans = Vec::new();
    let mut operations = Vec::new();
    for (id, first) in places {
        let write = book.write(*id);
        let place = place_of_write(book, *id, *first);
        let attempt = write.attempts[0];
        operations.push(write.acknowledged.map_or(attempt, |known| known.operation));
        spans.push(Span {
            start: book.operation(attempt).invoked.0,
            // An unknown write may have taken effect long after its client gave up.
            end: write.acknowledged.map_or(NEVER, |known| known.at.0),
            first: place,
            last: place,
        });
    }
    for id in book.operation_ids() {
        let operation = book.operation(id);
        let (Some((returned, _)), Some((size, saw))) = (&operation.returned, view(book, id)) else {
            continue;
        };
        let mut place = (0, NEVER);
        if let Some(size) = size {
            place = (of_state(size), of_state(size));
        }
        for (key, version) in saw {
            let Some((first, last)) = versions.places(&key, version) else {
                let evidence = format!(
                    "{} never had the version that was seen: {}",
                    book.keys.text(key),
                    book.text(id)
                );
                return Err(broken(Promise, at, evidence));
            };
            place = (place.0.max(first), place.1.min(last));
        }
        if size.is_none() {
            place = transactions.within(place);
        }
        operations.push(id);
        spans.push(Span {
            start: operation.invoked.0,
            end: returned.0,
            first: place.0,
            last: place.1,
        });
    }
    if let Some(misplaced) = sweep(&spans).first() {
        let after = misplaced.after.map(|span| operations[span]);
        return Err(out_of_order(at, book, operations[misplaced.span], after));
    }
    Ok(spans.len() as u64)
}

fn out_of_order(at: Moment, book: &Book, id: OperationId, after: Option<OperationId>) -> Violation {
    let evidence = match after {
        Some(after) => format!(
            "{} began after {} had returned, but is before it in the ledger",
            book.text(id),
            book.text(after)
        ),
        None => format!("no state of the ledger explains {}", book.text(id)),
    };
    broken(Promise, at, evidence)
}

impl Book {
    /// What had returned before an operation began.
    pub(crate) fn floor_of(&self, id: OperationId) -> Mark {
        match &self.operation(id).action {
            Action::Read { floor, .. } => *floor,
            Action::Write(write) => self.write(*write).floor,
        }
    }
}
