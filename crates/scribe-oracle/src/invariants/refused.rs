//! A refused write never appears, an unknown one at most once, and one idempotency key has one outcome.
//!
//! At once: an entry that anybody tells of is one that somebody wrote and that may be there; there are no more entries
//! of one content than writes that may have made them; every acknowledgement under one idempotency key names the same
//! index. In the end: a transaction of unknown outcome is there as a whole, in one piece, or not at all.

use std::collections::{BTreeMap, HashMap};

use crate::book::{Book, Content, KeyId, WriteId};
use crate::entries::Entries;
use crate::event::{Appended, Condition, Moment, OperationId};
use crate::places::Versions;
use crate::violation::Invariant::Refused as Promise;
use crate::violation::Violation;

use super::acknowledged::{Acknowledged, acknowledged_by};
use super::{Check, broken};

#[derive(Debug, Default)]
struct Uses {
    /// Writes that append this content.
    writes: Vec<WriteId>,
    /// Indexes where it was seen.
    at: Vec<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Refused {
    contents: HashMap<Content, Uses>,
    /// The index each idempotency key was first acknowledged at.
    outcomes: HashMap<String, (u64, OperationId)>,
}

impl Refused {
    /// A write is about to be made.
    pub(crate) fn begin(&mut self, book: &Book, id: WriteId) {
        for content in book.write(id).contents() {
            self.contents.entry(content).or_default().writes.push(id);
        }
    }

    /// An entry of this content became known.
    pub(crate) fn appeared(
        &mut self,
        at: Moment,
        book: &Book,
        entries: &Entries,
        content: Content,
        index: u64,
    ) -> Check {
        self.contents.entry(content).or_default().at.push(index);
        self.count(at, book, entries, content)
    }

    /// The last open attempt of a write was refused.
    pub(crate) fn refused(&self, at: Moment, book: &Book, entries: &Entries, id: WriteId) -> Check {
        for content in book.write(id).contents() {
            self.count(at, book, entries, content)?;
        }
        Ok(())
    }

    /// No more entries of a content than writes that may have made them.
    fn count(&self, at: Moment, book: &Book, entries: &Entries, content: Content) -> Check {
        let Some(uses) = self.contents.get(&content) else {
            return Ok(());
        };
        let may_appear = |id: &&WriteId| book.write(**id).may_appear();
        let possible = uses.writes.iter().filter(may_appear).count();
        if uses.at.len() <= possible {
            return Ok(());
        }
        let seen: Vec<String> = uses
            .at
            .iter()
            .filter_map(|index| Some((index, entries.get(*index)?)))
            .map(|(index, known)| format!("index {index} ({})", known.text(book)))
            .collect();
        let written: Vec<String> = uses
            .writes
            .iter()
            .flat_map(|id| &book.write(*id).attempts)
            .map(|id| book.text(*id))
            .collect();
        let seen = seen.join(" and ");
        let evidence = match (written.is_empty(), possible) {
            (true, _) => format!(
                "nobody wrote {}, but it is at {seen}",
                content.text(&book.keys)
            ),
            (false, 0) => format!(
                "a refused write is in the ledger at {seen}: {}",
                written.join("; ")
            ),
            (false, _) => format!(
                "{possible} writes that may be in the ledger are there {} times, at {seen}: {}",
                uses.at.len(),
                written.join("; ")
            ),
        };
        Err(broken(Promise, at, evidence))
    }

    /// An attempt was acknowledged. Under one idempotency key there is one outcome, however many writes claim it.
    pub(crate) fn acknowledge(
        &mut self,
        at: Moment,
        book: &Book,
        operation: OperationId,
        id: WriteId,
        entries: &[Appended],
    ) -> Check {
        let write = book.write(id);
        let Some(first) = entries.first() else {
            return Ok(());
        };
        if let Some(acknowledged) = write.acknowledged
            && acknowledged.first != first.index
        {
            let evidence = format!(
                "one write was acknowledged at two indexes: {}; {}",
                book.text(acknowledged.operation),
                book.text(operation)
            );
            return Err(broken(Promise, at, evidence));
        }
        let Some(key) = &write.idempotency_key else {
            return Ok(());
        };
        let index = first.index.get();
        let (known, by) = *self
            .outcomes
            .entry(key.clone())
            .or_insert((index, operation));
        if known != index {
            let evidence = format!(
                "the idempotency key `{key}` was acknowledged at two indexes: {}; {}",
                book.text(by),
                book.text(operation)
            );
            return Err(broken(Promise, at, evidence));
        }
        Ok(())
    }

    /// Where the writes of unknown outcome are in the ledger, now that all of it is known; those that are not there are
    /// left out.
    pub(crate) fn find_unknown(
        &self,
        at: Moment,
        book: &Book,
        acknowledged: &Acknowledged,
        versions: &Versions<KeyId>,
    ) -> Result<BTreeMap<WriteId, u64>, Violation> {
        // Indexes that no acknowledged write has, by content.
        let mut free: HashMap<Content, Vec<u64>> = HashMap::new();
        for (content, uses) in &self.contents {
            let unowned = |index: &u64| acknowledged.owner(*index).is_none();
            let mut indexes: Vec<u64> = uses.at.iter().copied().filter(unowned).collect();
            if !indexes.is_empty() {
                indexes.sort_unstable();
                free.insert(*content, indexes);
            }
        }
        let mut found = BTreeMap::new();
        for id in book.write_ids() {
            let write = book.write(id);
            if write.acknowledged.is_some() || !write.may_appear() {
                continue;
            }
            // Of several unknown writes of one content the first takes the first place that its conditions allow.
            let Some(first) = write.contents().next() else {
                continue;
            };
            let candidates = free.get(&first).cloned().unwrap_or_default();
            let all_there = |start: u64| {
                write.contents().enumerate().all(|(number, content)| {
                    free.get(&content)
                        .is_some_and(|free| free.contains(&(start + number as u64)))
                })
            };
            let allowed = |start: u64| {
                write.steps.iter().all(|step| match step.condition {
                    Condition::Index(index) => {
                        versions.newest_before(&step.key, start) == Some(index.get())
                    }
                    _ => true,
                })
            };
            let start = candidates
                .iter()
                .copied()
                .find(|start| all_there(*start) && allowed(*start))
                .or_else(|| candidates.iter().copied().find(|start| all_there(*start)));
            if let Some(start) = start {
                for (number, content) in write.contents().enumerate() {
                    if let Some(indexes) = free.get_mut(&content) {
                        indexes.retain(|free| *free != start + number as u64);
                    }
                }
                found.insert(id, start);
            }
        }
        // What is left belongs to nobody: part of a transaction, or one in pieces.
        for (content, indexes) in &free {
            let Some(index) = indexes.first() else {
                continue;
            };
            let written: Vec<String> = self.contents[content]
                .writes
                .iter()
                .map(|id| acknowledged_by(book, *id))
                .collect();
            let evidence = format!(
                "{} is at index {index}, but no write is there as a whole that has it: {}",
                content.text(&book.keys),
                written.join("; ")
            );
            return Err(broken(Promise, at, evidence));
        }
        Ok(found)
    }
}
