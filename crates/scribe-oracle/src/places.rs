//! Places in a ledger's order, and whether they follow real time.
//!
//! The entry at index `i` is at place `2 i + 1`, the state that has `n` entries at `2 n`. Every operation has such a
//! place or an interval of them; what is left to check is that places follow real time: what began after another had
//! ended must not come before it. One sweep over starts and ends finds the smallest possible place for each, and the
//! history is refused if and only if one does not fit.

use std::collections::HashMap;
use std::hash::Hash;

/// Beyond every place: what never ended, and the end of a key's newest version.
pub(crate) const NEVER: u64 = u64::MAX;

/// The place of the entry at this index.
pub(crate) const fn of_entry(index: u64) -> u64 {
    index.saturating_mul(2).saturating_add(1)
}

/// The place of the state that has so many entries.
pub(crate) const fn of_state(size: u64) -> u64 {
    size.saturating_mul(2)
}

/// Where an operation may be, and between which moments it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u64,
    /// [`NEVER`] for what may take effect at any later time.
    pub(crate) end: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// A span that has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) span: usize,
    /// What had ended before it began, and is after it in the ledger. `None` if it has no place even by itself.
    pub(crate) after: Option<usize>,
}

/// Gives each span the smallest place that nothing which ended before it began has passed; returns those that have none.
pub(crate) fn sweep(spans: &[Span]) -> Vec<Misplaced> {
    // At one moment starts come first: what touches overlaps.
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * spans.len());
    for (number, span) in spans.iter().enumerate() {
        moments.push((span.start, false, number));
        moments.push((span.end, true, number));
    }
    moments.sort_unstable();
    let mut floor: (u64, Option<usize>) = (0, None);
    let mut taken = vec![0; spans.len()];
    let mut misplaced = Vec::new();
    for (_, ends, number) in moments {
        let span = spans[number];
        if ends {
            if taken[number] > floor.0 {
                floor = (taken[number], Some(number));
            }
            continue;
        }
        taken[number] = span.first.max(floor.0);
        if taken[number] > span.last {
            let after = floor.1.filter(|_| floor.0 > span.last);
            misplaced.push(Misplaced {
                span: number,
                after,
            });
            // One violation is one violation: what follows is judged as if this had not been.
            taken[number] = span.last;
        }
    }
    misplaced
}

/// The versions of each key, by index.
#[derive(Clone, Debug)]
pub(crate) struct Versions<K>(HashMap<K, Vec<u64>>);

impl<K: Eq + Hash> Versions<K> {
    /// From a ledger's entries in order.
    pub(crate) fn of(entries: impl IntoIterator<Item = (u64, K)>) -> Versions<K> {
        let mut versions: HashMap<K, Vec<u64>> = HashMap::new();
        for (index, key) in entries {
            versions.entry(key).or_default().push(index);
        }
        Versions(versions)
    }

    fn all(&self, key: &K) -> &[u64] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The key's newest version in the state that has `size` entries.
    pub(crate) fn newest_before(&self, key: &K, size: u64) -> Option<u64> {
        let all = self.all(key);
        let before = all.partition_point(|index| *index < size);
        before.checked_sub(1).map(|at| all[at])
    }

    /// The first and the last place where `version` (or none) is the key's newest. `None` if the key never had it.
    pub(crate) fn places(&self, key: &K, version: Option<u64>) -> Option<(u64, u64)> {
        let all = self.all(key);
        let (first, next) = match version {
            None => (0, 0),
            Some(index) => (of_state(index + 1), all.binary_search(&index).ok()? + 1),
        };
        let last = all.get(next).map_or(NEVER, |next| of_state(*next));
        Some((first, last))
    }
}
