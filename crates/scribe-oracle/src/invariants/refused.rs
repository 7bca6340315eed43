//! A refused write never appears, an unknown one at most once, and one idempotency key has one outcome.
//!
//! At once: an entry that anybody tells of is one that somebody wrote and that may be there; there are no more entries
//! of one content than writes that may have made them; every acknowledgement under one idempotency key names the same
//! index. In the end: a transaction of unknown outcome is there as a whole, in one piece, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::book::{Book, Content, KeyId, WriteId};
use crate::entries::Entries;
use crate::event::{Appended, Moment, OperationId};
use crate::places::{Versions, of_entry};
use crate::violation::Invariant::Refused as Promise;
use crate::violation::Violation;

use super::acknowledged::{Acknowledged, acknowledged_by};
use super::{Check, broken, conditions};

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
    outcomes: HashMap<Arc<str>, (u64, OperationId)>,
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
        // Without a key there is one attempt, and one outcome.
        let Some(key) = &write.idempotency_key else {
            return Ok(());
        };
        let index = first.index.get();
        let (known, by) = *self
            .outcomes
            .entry(Arc::clone(key))
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
    ///
    /// Of several such writes of one content (deletes of one key, mostly) any may be the one that an entry is of. They
    /// are matched so that as many as possible are where their conditions hold and real time allows it: no violation is
    /// found that another choice would not have.
    pub(crate) fn find_unknown(
        &self,
        at: Moment,
        (book, entries): (&Book, &Entries),
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
        let is_unknown = |id: &WriteId| {
            let write = book.write(*id);
            write.acknowledged.is_none() && write.may_appear()
        };
        let fits = |id: WriteId, first: u64| {
            let write = book.write(id);
            of_entry(first) >= write.floor.place
                && write
                    .steps
                    .iter()
                    .all(|step| conditions::holds(entries, versions, step, first))
        };
        let mut found = BTreeMap::new();
        for id in book.write_ids().filter(is_unknown) {
            let contents: Vec<Content> = book.write(id).contents().collect();
            if contents.len() < 2 {
                continue;
            }
            let is_whole = |start: &u64| {
                contents.iter().zip(*start..).all(|(content, index)| {
                    free.get(content)
                        .is_some_and(|indexes| indexes.contains(&index))
                })
            };
            let starts = free.get(&contents[0]).into_iter().flatten().copied();
            let whole: Vec<u64> = starts.filter(is_whole).collect();
            let best = whole.iter().find(|start| fits(id, **start));
            if let Some(start) = best.or(whole.first()).copied() {
                for (number, content) in contents.iter().enumerate() {
                    if let Some(indexes) = free.get_mut(content) {
                        indexes.retain(|free| *free != start + number as u64);
                    }
                }
                found.insert(id, start);
            }
        }
        for (content, indexes) in &free {
            let writes: Vec<WriteId> = self.contents[content]
                .writes
                .iter()
                .copied()
                .filter(|id| is_unknown(id) && book.write(*id).length() == 1)
                .collect();
            let mut taken = matched(indexes.len(), writes.len(), |slot, write| {
                fits(writes[write], indexes[slot])
            });
            for (slot, index) in indexes.iter().enumerate() {
                if taken.contains(&Some(slot)) {
                    continue;
                }
                // None fits: whichever takes it will be found where it may not be. None at all is left: it is nobody's.
                match taken.iter_mut().find(|slot| slot.is_none()) {
                    Some(none) => *none = Some(slot),
                    None => return Err(self.nobodys(at, book, *content, *index)),
                }
            }
            for (write, slot) in taken.iter().enumerate() {
                if let Some(slot) = slot {
                    found.insert(writes[write], indexes[*slot]);
                }
            }
        }
        Ok(found)
    }

    /// An entry is part of no write: a transaction in pieces.
    fn nobodys(&self, at: Moment, book: &Book, content: Content, index: u64) -> Violation {
        let written: Vec<String> = self.contents[&content]
            .writes
            .iter()
            .map(|id| acknowledged_by(book, *id))
            .collect();
        let evidence = format!(
            "{} is at index {index}, but no write is in the ledger as a whole that has it there: {}",
            content.text(&book.keys),
            written.join("; ")
        );
        broken(Promise, at, evidence)
    }
}

/// For each of `writes` the slot it gets, if any: as many of the slots as possible have one that fits, and of those that
/// fit equally well the earlier write gets the earlier slot.
fn matched(slots: usize, writes: usize, fits: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    /// Gives `slot` a write, if the others can do without it.
    fn place(
        slot: usize,
        fits: &impl Fn(usize, usize) -> bool,
        taken: &mut [Option<usize>],
        seen: &mut [bool],
    ) -> bool {
        for write in 0..taken.len() {
            if seen[write] || !fits(slot, write) {
                continue;
            }
            seen[write] = true;
            if taken[write].is_none_or(|other| place(other, fits, taken, seen)) {
                taken[write] = Some(slot);
                return true;
            }
        }
        false
    }
    let mut taken = vec![None; writes];
    for slot in 0..slots {
        place(slot, &fits, &mut taken, &mut vec![false; writes]);
    }
    taken
}
