//! A watch misses nothing, repeats nothing, and keeps the order; also over reconnections, and through whichever node.
//!
//! At once: each event is after the one before, fits the filter, and skips no entry that is known to fit. In the end,
//! when all entries are known: nothing that fits was skipped up to where the watch had looked.

use crate::book::Book;
use crate::entries::Entries;
use crate::event::{Entry, Filter, Moment, WatchId};
use crate::violation::Invariant::Watch as Promise;
use crate::violation::Violation;

use super::{Check, broken};

#[derive(Debug)]
struct Watch {
    filter: Filter,
    /// Everything that fits from here on is still to be told.
    next: u64,
    /// Ranges that were passed without an event.
    passed: Vec<(u64, u64)>,
    last: Option<(u64, Moment)>,
}

#[derive(Debug, Default)]
pub(crate) struct Watches(Vec<Watch>);

impl Watches {
    /// A watch begins to tell of entries from `from` on.
    pub(crate) fn began(&mut self, filter: Filter, from: u64) -> WatchId {
        self.0.push(Watch {
            filter,
            next: from,
            passed: Vec::new(),
            last: None,
        });
        WatchId(self.0.len() - 1)
    }

    /// The first index of which a watch has not told yet.
    pub(crate) fn next(&self, id: WatchId) -> u64 {
        self.0[id.0].next
    }

    /// A watch told of an entry.
    pub(crate) fn event(
        &mut self,
        at: Moment,
        (book, entries): (&Book, &Entries),
        id: WatchId,
        entry: &Entry,
    ) -> Check {
        let watch = &mut self.0[id.0];
        let index = entry.index.get();
        if !watch.filter.admits(entry.kind, &entry.key) {
            let evidence = format!(
                "{id} asked for {:?} and was told of the entry at index {index}, key `{}`",
                watch.filter,
                entry.key.escape_ascii()
            );
            return Err(broken(Promise, at, evidence));
        }
        if index < watch.next {
            let last = match watch.last {
                Some((last, when)) => format!("told of index {last} at moment {when}"),
                None => "begun".to_owned(),
            };
            let evidence = format!(
                "{id} was told of index {index}, although it was {last} and index {} was due",
                watch.next
            );
            return Err(broken(Promise, at, evidence));
        }
        watch.pass(at, (book, entries), id, index)?;
        watch.next = index.saturating_add(1);
        watch.last = Some((index, at));
        Ok(())
    }

    /// A watch said that it has looked at everything up to and including `index`.
    pub(crate) fn progress(
        &mut self,
        at: Moment,
        known: (&Book, &Entries),
        id: WatchId,
        index: u64,
    ) -> Check {
        let watch = &mut self.0[id.0];
        let next = index.saturating_add(1);
        if next > watch.next {
            watch.pass(at, known, id, next)?;
            watch.next = next;
        }
        Ok(())
    }

    /// Nothing that fits was passed, now that all entries are known.
    pub(crate) fn finish(&self, at: Moment, book: &Book, entries: &Entries) -> Check {
        for (number, watch) in self.0.iter().enumerate() {
            for (from, to) in &watch.passed {
                for index in *from..(*to).min(entries.size()) {
                    if let Some(known) = entries.get(index)
                        && watch.filter.admits(known.kind, book.keys.name(known.key))
                    {
                        let missed = format!("{index}: {}", known.text(book));
                        return Err(missing(at, WatchId(number), watch, &missed));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Watch {
    /// Goes on to `to` without an event.
    fn pass(
        &mut self,
        at: Moment,
        (book, entries): (&Book, &Entries),
        id: WatchId,
        to: u64,
    ) -> Check {
        if self.next == to {
            return Ok(());
        }
        if self.filter == Filter::All {
            let missed = self.next.to_string();
            return Err(missing(at, id, self, &missed));
        }
        for index in self.next..to.min(entries.size()) {
            if let Some(known) = entries.get(index)
                && self.filter.admits(known.kind, book.keys.name(known.key))
            {
                let missed = format!("{index}: {}", known.text(book));
                return Err(missing(at, id, self, &missed));
            }
        }
        self.passed.push((self.next, to));
        Ok(())
    }
}

fn missing(at: Moment, id: WatchId, watch: &Watch, missed: &str) -> Violation {
    let last = match watch.last {
        Some((last, when)) => format!("last told of index {last} at moment {when}"),
        None => "told of nothing".to_owned(),
    };
    let evidence = format!(
        "{id} for {:?}, {last}, was not told of index {missed}",
        watch.filter
    );
    broken(Promise, at, evidence)
}
