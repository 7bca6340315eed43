//! What was read, however stale, is what the ledger has: damage is repaired or reported, never served.
//!
//! At once: two answers about one index agree (key, kind, value, leaf hash); a read that names its tree size saw the
//! newest versions there, as far as versions are known; a node does not go back within one life; a read with
//! `min_index` sees that entry. In the end, with all versions known: the same for every read, and there is a state in
//! which all that a read saw together were the newest versions; no state that was read is larger than the ledger.

use scribe_proof::LeafIndex;

use crate::book::{Book, KeyId};
use crate::entries::{Contradiction, Entries, Known};
use crate::event::{Answer, Consistency, Moment, OperationId, Seen, Version};
use crate::places::Versions;
use crate::violation::Invariant::{Acknowledged, Bytes as Promise};
use crate::violation::Violation;

use super::order::Transactions;
use super::{Check, broken};

/// Two answers about the entry at `index` differ. If one of them acknowledged it, that promise is the broken one.
pub(crate) fn contradiction(
    at: Moment,
    book: &Book,
    index: u64,
    told: &Known,
    contradiction: Contradiction,
    acknowledged: bool,
) -> Violation {
    let Contradiction { known, what } = contradiction;
    let promise = if acknowledged { Acknowledged } else { Promise };
    let evidence = format!(
        "{what} of the entry at index {index} differs: {}; but {}",
        known.text(book),
        told.text(book)
    );
    broken(promise, at, evidence)
}

/// An answer is possible, as far as versions are known.
pub(crate) fn answered(
    at: Moment,
    book: &Book,
    entries: &Entries,
    id: OperationId,
    (keys, consistency, answer): (&[KeyId], Consistency, &Answer),
) -> Check {
    let Some(size) = state_size(consistency, answer) else {
        return Ok(());
    };
    if let Consistency::Stale {
        min_index: Some(min_index),
    } = consistency
        && size <= min_index.get()
    {
        let evidence = format!(
            "the state read does not hold index {min_index}: {}",
            book.text(id)
        );
        return Err(broken(Promise, at, evidence));
    }
    for (key, seen) in keys.iter().zip(&answer.saw) {
        let seen = seen.map(|seen| seen.index.get());
        if seen.is_some_and(|index| index >= size) {
            return Err(beyond(at, book, id, *key, size));
        }
        // A transaction may hide the last entries before a size in the past: those are judged in the end.
        if matches!(consistency, Consistency::At(_)) {
            continue;
        }
        if let Some(missed) = entries.version_between(*key, seen, size) {
            return Err(not_newest(at, book, id, *key, size, Some(missed)));
        }
    }
    Ok(())
}

/// The tree size of the state a read saw, if it is known.
pub(crate) fn state_size(consistency: Consistency, answer: &Answer) -> Option<u64> {
    match consistency {
        Consistency::At(size) => Some(size.get()),
        _ => answer.tree_size.map(|size| size.get()),
    }
}

/// The same for every read, now that all versions are known.
pub(crate) fn finish(
    at: Moment,
    book: &Book,
    entries: &Entries,
    versions: &Versions<KeyId>,
    transactions: &Transactions,
    ledger_size: u64,
) -> Check {
    for id in book.operation_ids() {
        let Some((keys, consistency, answer)) = book.operation(id).answer() else {
            continue;
        };
        for (key, seen) in keys.iter().zip(&answer.saw) {
            exists(at, book, entries, id, *key, *seen)?;
        }
        match state_size(consistency, answer) {
            Some(size) if size > ledger_size => {
                let evidence = format!(
                    "no ledger has more than {ledger_size} entries, this read saw {size}: {}",
                    book.text(id)
                );
                return Err(broken(Promise, at, evidence));
            }
            Some(size) => {
                let state = match consistency {
                    Consistency::At(_) => transactions.whole(size),
                    _ => size,
                };
                for (key, seen) in keys.iter().zip(&answer.saw) {
                    let newest = versions.newest_before(key, state);
                    if newest != seen.map(|seen| seen.index.get()) {
                        return Err(not_newest(at, book, id, *key, size, newest));
                    }
                }
            }
            None => together(at, book, versions, transactions, id)?,
        }
    }
    Ok(())
}

/// There is a state that a read can have seen.
fn together(
    at: Moment,
    book: &Book,
    versions: &Versions<KeyId>,
    transactions: &Transactions,
    id: OperationId,
) -> Check {
    let Some((keys, consistency, answer)) = book.operation(id).answer() else {
        return Ok(());
    };
    let mut state = match consistency {
        Consistency::Stale {
            min_index: Some(index),
        } => (
            crate::places::of_state(index.get().saturating_add(1)),
            u64::MAX,
        ),
        _ => (0, u64::MAX),
    };
    for (key, seen) in keys.iter().zip(&answer.saw) {
        let seen = seen.map(|seen| seen.index.get());
        if let Some((first, last)) = versions.places(key, seen) {
            state = (state.0.max(first), state.1.min(last));
        }
    }
    let state = transactions.within(state);
    if state.0 > state.1 {
        let evidence = format!(
            "the ledger was never in a state in which all of this was newest: {}",
            book.text(id)
        );
        return Err(broken(Promise, at, evidence));
    }
    Ok(())
}

/// The version that was seen is in the ledger. Its bytes were compared when it was told.
fn exists(
    at: Moment,
    book: &Book,
    entries: &Entries,
    id: OperationId,
    key: KeyId,
    seen: Option<Seen>,
) -> Check {
    let Some(Seen { index, version }) = seen else {
        return Ok(());
    };
    let found = entries.get(index.get());
    let same = found.is_some_and(|known| {
        known.key == key
            && match version {
                Version::Tombstone => known.kind == scribe_proof::LeafKind::Delete,
                Version::Value(_) => known.kind == scribe_proof::LeafKind::Put,
            }
    });
    if same {
        return Ok(());
    }
    let evidence = format!(
        "{} never had the version at index {index} that was seen: {}",
        book.keys.text(key),
        book.text(id)
    );
    Err(broken(Promise, at, evidence))
}

fn beyond(at: Moment, book: &Book, id: OperationId, key: KeyId, size: u64) -> Violation {
    let evidence = format!(
        "the version of {} is not in the state of tree size {size} that was read: {}",
        book.keys.text(key),
        book.text(id)
    );
    broken(Promise, at, evidence)
}

fn not_newest(
    at: Moment,
    book: &Book,
    id: OperationId,
    key: KeyId,
    size: u64,
    newest: Option<u64>,
) -> Violation {
    let newest = match newest.map(LeafIndex::new) {
        Some(index) => format!("the version at index {index}"),
        None => "none".to_owned(),
    };
    let evidence = format!(
        "in the state of tree size {size} {} has {newest}, not what was read: {}",
        book.keys.text(key),
        book.text(id)
    );
    broken(Promise, at, evidence)
}
