//! Whether what clients saw of a ledger is linearizable: a recorded history against the ledger that came of it.
//!
//! No search is needed. The ledger is the order of the writes, so every operation has a place in it, or an interval of
//! places: a write its index, a read the tree size it saw, or the versions it saw. What is left to check is that places
//! follow real time ([`places`](crate::places)). A write whose outcome is unknown is in the ledger or not; if it is, it
//! may have taken effect at any time after it was sent.
//!
//! This is the small form, for a history of puts and reads that is complete when it is checked. A [`Judge`](crate::Judge)
//! holds more against the ledger, and while the run goes on; both rest on the same places and the same sweep.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::places::{NEVER, Span, Versions, of_entry, of_state, sweep};

/// Violations described before the rest is only counted.
const DESCRIBED_MAX: usize = 10;

/// What a client did, and between which moments. All operations share one clock of any unit.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Before anything of it was sent.
    pub start: u64,
    /// After all of the answer had come.
    pub end: u64,
    /// What was asked, and answered.
    pub action: Action,
}

/// What a client asked for, and what it was told.
#[derive(Clone, Debug)]
pub enum Action {
    /// A put. No two puts of a history have the same value.
    Put {
        /// The key.
        key: String,
        /// The value, unique in the history.
        value: String,
        /// What it asked of the key.
        condition: Condition,
        /// What became of it.
        outcome: Outcome,
    },
    /// A linearizable read of one or more keys in one state.
    Read {
        /// The tree size the read saw, if the answer said so.
        tree_size: Option<u64>,
        /// Each key with its newest version, if it had one.
        saw: Vec<(String, Option<Version>)>,
    },
}

/// What a put asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// The key's newest version has this index.
    Index(u64),
}

/// What became of a put, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Appended at this index.
    Acknowledged(u64),
    /// Perhaps appended, now or later.
    Unknown,
    /// Not appended, and never will be.
    Refused,
    /// Not appended, because this was the key's newest version.
    ConditionFailed(Option<u64>),
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its place in the ledger.
    pub index: u64,
    /// Its value.
    pub value: String,
}

/// Key and value of the ledger's entries by index; those of the ledger about itself are left out. So it does not say how
/// large the ledger is: a read of a state beyond its end is not found here.
pub type Ledger = BTreeMap<u64, (String, String)>;

/// What a history that holds consisted of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Reads.
    pub reads: usize,
    /// Puts that were refused.
    pub refused: usize,
    /// Puts that were refused because their condition did not hold.
    pub conditions_failed: usize,
    /// Puts of unknown outcome that are in the ledger.
    pub unknown_appended: usize,
    /// Puts of unknown outcome that are not.
    pub unknown_not_appended: usize,
}

#[derive(Default)]
struct Violations {
    text: String,
    count: usize,
}

impl Violations {
    fn add(&mut self, text: impl AsRef<str>) {
        self.count += 1;
        if self.count <= DESCRIBED_MAX {
            let _ = writeln!(self.text, "- {}", text.as_ref());
        }
    }
}

/// Checks a history against the ledger as it is in the end.
///
/// # Errors
/// The violations, in words.
///
/// # Panics
/// If two puts have the same value: then nobody can tell which of them an entry is.
pub fn check(history: &[Operation], ledger: &Ledger) -> Result<Checked, String> {
    let mut violations = Violations::default();
    let appended = match_writes(history, ledger, &mut violations);
    let versions = Versions::of(
        ledger
            .iter()
            .map(|(index, (key, _))| (*index, key.as_str())),
    );
    let mut checked = Checked::default();
    // Operations that have a place, and where it may be.
    let mut placed: Vec<(usize, Span)> = Vec::with_capacity(history.len());
    for (number, (operation, at)) in history.iter().zip(&appended).enumerate() {
        let span = |first, last| Span {
            start: operation.start,
            end: operation.end,
            first,
            last,
        };
        let seen = match &operation.action {
            Action::Put {
                key,
                condition,
                outcome,
                ..
            } => {
                if let (Some(index), Condition::Index(expected)) = (at, condition) {
                    let found = versions.newest_before(&key.as_str(), *index);
                    if found != Some(*expected) {
                        violations.add(format!(
                            "a put of `{key}` after version {expected} was appended at {index}, after {found:?}"
                        ));
                    }
                }
                match (outcome, at) {
                    (Outcome::Acknowledged(_), _) => checked.acknowledged += 1,
                    (Outcome::Unknown, Some(_)) => checked.unknown_appended += 1,
                    (Outcome::Unknown, None) => checked.unknown_not_appended += 1,
                    (Outcome::Refused, _) => checked.refused += 1,
                    (Outcome::ConditionFailed(_), _) => checked.conditions_failed += 1,
                }
                match outcome {
                    Outcome::Acknowledged(_) | Outcome::Unknown => {
                        if let Some(index) = at {
                            let mut span = span(of_entry(*index), of_entry(*index));
                            // It may have taken effect long after its client gave up.
                            if *outcome == Outcome::Unknown {
                                span.end = NEVER;
                            }
                            placed.push((number, span));
                        }
                        continue;
                    }
                    Outcome::Refused => continue,
                    Outcome::ConditionFailed(current) => {
                        let held = match condition {
                            Condition::None => true,
                            Condition::Index(index) => *current == Some(*index),
                        };
                        if held {
                            violations.add(format!(
                                "a put of `{key}` was refused although its condition held: {condition:?}"
                            ));
                        }
                        vec![(key.as_str(), *current)]
                    }
                }
            }
            Action::Read { tree_size, saw } => {
                checked.reads += 1;
                for (key, version) in saw {
                    let Some(version) = version else { continue };
                    let found = ledger.get(&version.index);
                    if found.is_none_or(|(_, value)| *value != version.value) {
                        violations.add(format!(
                            "a read of `{key}` saw {version:?}, in the ledger is {found:?}"
                        ));
                    }
                }
                let seen: Vec<_> = saw
                    .iter()
                    .map(|(key, version)| {
                        (key.as_str(), version.as_ref().map(|version| version.index))
                    })
                    .collect();
                if let Some(size) = *tree_size {
                    for (key, version) in &seen {
                        let found = versions.newest_before(key, size);
                        if found != *version {
                            violations.add(format!(
                                "a read of `{key}` at tree size {size} saw version {version:?}, newest there is {found:?}"
                            ));
                        }
                    }
                    placed.push((number, span(of_state(size), of_state(size))));
                    continue;
                }
                seen
            }
        };
        // Versions without a tree size: any state in which all of them are the newest.
        let mut interval = (0, NEVER);
        for (key, version) in seen {
            let Some((first, last)) = versions.places(&key, version) else {
                violations.add(format!(
                    "`{key}` never had the version {} that was seen",
                    version.unwrap_or_default()
                ));
                continue;
            };
            interval = (interval.0.max(first), interval.1.min(last));
        }
        placed.push((number, span(interval.0, interval.1)));
    }
    let (numbers, spans): (Vec<usize>, Vec<Span>) = placed.into_iter().unzip();
    for misplaced in sweep(&spans) {
        let before = misplaced.after.map(|span| &history[numbers[span]]);
        violations.add(format!(
            "{:?} came after {before:?}, but is before it in the ledger",
            history[numbers[misplaced.span]]
        ));
    }
    match violations.count {
        0 => Ok(checked),
        count => Err(format!("{count} violations:\n{}", violations.text)),
    }
}

/// The index each write of the history has in the ledger, if it is there.
fn match_writes(
    history: &[Operation],
    ledger: &Ledger,
    violations: &mut Violations,
) -> Vec<Option<u64>> {
    let mut writes = HashMap::new();
    for (number, operation) in history.iter().enumerate() {
        if let Action::Put { value, .. } = &operation.action {
            let twice = writes.insert(value.as_str(), number);
            assert!(twice.is_none(), "the value `{value}` is not unique");
        }
    }
    let mut appended = vec![None; history.len()];
    for (index, (key, value)) in ledger {
        let Some(number) = writes.get(value.as_str()).copied() else {
            violations.add(format!("nobody wrote entry {index}: `{key}` `{value}`"));
            continue;
        };
        let Action::Put {
            key: written,
            outcome,
            ..
        } = &history[number].action
        else {
            continue;
        };
        if written != key {
            violations.add(format!(
                "entry {index} has key `{key}`, written was `{written}`"
            ));
        }
        if let Some(other) = appended[number].replace(*index) {
            violations.add(format!(
                "one put was appended at {other} and at {index}: `{value}`"
            ));
        }
        if let Outcome::Refused | Outcome::ConditionFailed(_) = outcome {
            violations.add(format!("a refused put is entry {index}: `{key}` `{value}`"));
        }
    }
    for (operation, at) in history.iter().zip(&appended) {
        if let Action::Put {
            key,
            value,
            outcome: Outcome::Acknowledged(index),
            ..
        } = &operation.action
            && *at != Some(*index)
        {
            violations.add(format!(
                "acknowledged at {index}, found at {at:?}: `{key}` `{value}`"
            ));
        }
    }
    appended
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom as _;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// A ledger of `key=value` by index.
    fn ledger(entries: &[(u64, &str)]) -> Ledger {
        let split = |(index, text): &(u64, &str)| {
            let (key, value) = text.split_once('=').unwrap();
            (*index, (key.to_owned(), value.to_owned()))
        };
        entries.iter().map(split).collect()
    }

    fn put(start: u64, end: u64, text: &str, outcome: Outcome) -> Operation {
        conditional(start, end, text, Condition::None, outcome)
    }

    fn conditional(
        start: u64,
        end: u64,
        text: &str,
        condition: Condition,
        outcome: Outcome,
    ) -> Operation {
        let (key, value) = text.split_once('=').unwrap();
        Operation {
            start,
            end,
            action: Action::Put {
                key: key.to_owned(),
                value: value.to_owned(),
                condition,
                outcome,
            },
        }
    }

    fn get(start: u64, end: u64, key: &str, saw: Option<(u64, &str)>) -> Operation {
        read(start, end, None, &[(key, saw)])
    }

    fn read(
        start: u64,
        end: u64,
        tree_size: Option<u64>,
        saw: &[(&str, Option<(u64, &str)>)],
    ) -> Operation {
        let version = |(index, value): (u64, &str)| Version {
            index,
            value: value.to_owned(),
        };
        let saw = saw
            .iter()
            .map(|(key, saw)| ((*key).to_owned(), saw.map(version)))
            .collect();
        Operation {
            start,
            end,
            action: Action::Read { tree_size, saw },
        }
    }

    fn refused(history: &[Operation], entries: &[(u64, &str)], why: &str) {
        let violations = check(history, &ledger(entries)).unwrap_err();
        assert!(violations.contains(why), "{violations}");
    }

    use Outcome::{Acknowledged, ConditionFailed, Refused, Unknown};

    #[test]
    fn what_happened_in_order_holds() {
        let history = [
            get(0, 1, "k", None),
            put(2, 3, "k=a", Acknowledged(5)),
            get(4, 5, "k", Some((5, "a"))),
            conditional(6, 7, "k=b", Condition::Index(5), Acknowledged(9)),
            conditional(8, 9, "k=c", Condition::Index(5), ConditionFailed(Some(9))),
            read(10, 11, Some(10), &[("k", Some((9, "b"))), ("l", None)]),
        ];
        let checked = check(&history, &ledger(&[(5, "k=a"), (9, "k=b")])).unwrap();
        let expected = Checked {
            acknowledged: 2,
            reads: 3,
            conditions_failed: 1,
            ..Checked::default()
        };
        assert_eq!(checked, expected);
    }

    #[test]
    fn what_overlaps_may_be_in_either_order() {
        let entries = ledger(&[(1, "k=a"), (2, "k=b")]);
        for saw in [None, Some((1, "a")), Some((2, "b"))] {
            let history = [
                put(0, 9, "k=a", Acknowledged(1)),
                put(0, 9, "k=b", Acknowledged(2)),
                get(3, 4, "k", saw),
            ];
            check(&history, &entries).unwrap();
        }
    }

    #[test]
    fn an_unknown_write_may_happen_at_any_later_time_or_never() {
        let history = [
            put(0, 1, "k=a", Unknown),
            put(0, 1, "k=b", Unknown),
            get(5, 6, "k", None),
            put(7, 8, "k=c", Acknowledged(3)),
            get(9, 10, "k", Some((4, "a"))),
        ];
        let checked = check(&history, &ledger(&[(3, "k=c"), (4, "k=a")])).unwrap();
        assert_eq!(
            (checked.unknown_appended, checked.unknown_not_appended),
            (1, 1)
        );
    }

    #[test]
    fn an_unknown_write_does_not_happen_before_it_was_sent() {
        let history = [put(0, 1, "k=b", Acknowledged(8)), put(2, 3, "k=a", Unknown)];
        refused(&history, &[(7, "k=a"), (8, "k=b")], "came after");
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [put(0, 1, "k=a", Acknowledged(1))];
        refused(&history, &[], "acknowledged at 1, found at None");
        refused(
            &history,
            &[(2, "k=a")],
            "acknowledged at 1, found at Some(2)",
        );
    }

    #[test]
    fn an_index_given_twice_is_found() {
        let history = [
            put(0, 1, "k=a", Acknowledged(1)),
            put(0, 1, "k=b", Acknowledged(1)),
        ];
        refused(&history, &[(1, "k=a")], "acknowledged at 1, found at None");
    }

    #[test]
    fn a_write_that_happened_twice_is_found() {
        let history = [put(0, 1, "k=a", Unknown)];
        refused(
            &history,
            &[(1, "k=a"), (2, "k=a")],
            "appended at 1 and at 2",
        );
    }

    #[test]
    fn a_refused_write_must_not_appear() {
        let entries = [(1, "k=a")];
        refused(
            &[put(0, 1, "k=a", Refused)],
            &entries,
            "a refused put is entry 1",
        );
        let failed = conditional(0, 1, "k=a", Condition::Index(0), ConditionFailed(None));
        refused(&[failed], &entries, "a refused put is entry 1");
    }

    #[test]
    fn entries_nobody_wrote_and_changed_entries_are_found() {
        refused(&[], &[(1, "k=a")], "nobody wrote entry 1");
        let history = [put(0, 1, "k=a", Acknowledged(1))];
        refused(&history, &[(1, "l=a")], "written was `k`");
        let history = [
            put(0, 1, "k=a", Acknowledged(1)),
            get(2, 3, "k", Some((1, "x"))),
        ];
        refused(&history, &[(1, "k=a")], "in the ledger is");
    }

    #[test]
    fn writes_out_of_real_time_order_are_found() {
        let history = [
            put(0, 1, "k=a", Acknowledged(2)),
            put(2, 3, "l=b", Acknowledged(1)),
        ];
        refused(&history, &[(1, "l=b"), (2, "k=a")], "came after");
    }

    #[test]
    fn a_stale_read_is_found() {
        let entries = [(1, "k=a"), (2, "k=b")];
        let writes = [
            put(0, 1, "k=a", Acknowledged(1)),
            put(2, 3, "k=b", Acknowledged(2)),
        ];
        for saw in [None, Some((1, "a"))] {
            let mut history = writes.to_vec();
            history.push(get(4, 5, "k", saw));
            refused(&history, &entries, "came after");
        }
        let mut history = writes.to_vec();
        history.push(read(4, 5, Some(2), &[("k", Some((1, "a")))]));
        refused(&history, &entries, "came after");
    }

    #[test]
    fn a_read_that_goes_back_is_found_although_both_writes_were_unknown() {
        let history = [
            put(0, 1, "k=a", Unknown),
            put(0, 1, "k=b", Unknown),
            get(2, 3, "k", Some((2, "b"))),
            get(4, 5, "k", Some((1, "a"))),
        ];
        refused(&history, &[(1, "k=a"), (2, "k=b")], "came after");
    }

    #[test]
    fn a_read_of_what_was_not_yet_sent_is_found() {
        let history = [
            get(0, 1, "k", Some((1, "a"))),
            put(2, 3, "k=a", Acknowledged(1)),
        ];
        refused(&history, &[(1, "k=a")], "came after");
    }

    #[test]
    fn reads_of_several_keys_see_one_state() {
        let entries = [(1, "k=a"), (2, "l=b"), (3, "k=c")];
        let mut history = vec![
            put(0, 9, "k=a", Acknowledged(1)),
            put(0, 9, "l=b", Acknowledged(2)),
            put(0, 9, "k=c", Acknowledged(3)),
        ];
        history.push(read(
            0,
            9,
            None,
            &[("k", Some((1, "a"))), ("l", Some((2, "b")))],
        ));
        check(&history, &ledger(&entries)).unwrap();
        history.push(read(0, 9, None, &[("k", Some((3, "c"))), ("l", None)]));
        refused(&history, &entries, "came after None");
        history.pop();
        history.push(read(0, 9, Some(3), &[("k", Some((3, "c")))]));
        refused(&history, &entries, "newest there is Some(1)");
    }

    #[test]
    fn conditions_hold_where_the_write_is() {
        let history = [
            put(0, 9, "k=a", Acknowledged(1)),
            put(0, 9, "k=b", Acknowledged(2)),
            conditional(0, 9, "k=c", Condition::Index(1), Acknowledged(3)),
        ];
        let entries = [(1, "k=a"), (2, "k=b"), (3, "k=c")];
        refused(&history, &entries, "appended at 3, after Some(2)");
        let history = [
            put(0, 1, "k=a", Acknowledged(1)),
            conditional(2, 3, "k=b", Condition::Index(1), ConditionFailed(Some(1))),
        ];
        refused(&history, &[(1, "k=a")], "although its condition held");
        let history = [
            put(0, 1, "k=a", Acknowledged(1)),
            conditional(2, 3, "k=b", Condition::Index(0), ConditionFailed(Some(7))),
        ];
        refused(&history, &[(1, "k=a")], "never had the version 7");
        let history = [
            put(0, 1, "k=a", Acknowledged(1)),
            put(2, 3, "k=b", ConditionFailed(Some(1))),
        ];
        refused(&history, &[(1, "k=a")], "although its condition held");
    }

    /// Linearizable by trying every order.
    fn search(history: &[Operation], entries: &[(String, String)], done: &mut [bool]) -> bool {
        let appended = |operation: &Operation| match &operation.action {
            Action::Put { value, .. } => entries.iter().any(|(_, found)| found == value),
            Action::Read { .. } => true,
        };
        let applied = (0..history.len())
            .filter(|at| done[*at] && matches!(history[*at].action, Action::Put { .. }))
            .count();
        let newest = |key: &str| {
            let found = entries[..applied].iter().rposition(|(of, _)| of == key);
            found.map(|index| index as u64)
        };
        let end = |operation: &Operation| match operation.action {
            Action::Put {
                outcome: Unknown, ..
            } => NEVER,
            _ => operation.end,
        };
        let left: Vec<usize> = (0..history.len())
            .filter(|at| !done[*at] && appended(&history[*at]))
            .collect();
        if left.is_empty() {
            return true;
        }
        left.iter().any(|at| {
            let operation = &history[*at];
            if left
                .iter()
                .any(|other| end(&history[*other]) < operation.start)
            {
                return false;
            }
            let fits = match &operation.action {
                Action::Put { value, .. } => entries.get(applied).is_some_and(|(_, v)| v == value),
                Action::Read { tree_size, saw } => {
                    tree_size.is_none_or(|size| size == applied as u64)
                        && saw.iter().all(|(key, version)| {
                            newest(key) == version.as_ref().map(|version| version.index)
                        })
                }
            };
            done[*at] = true;
            let found = fits && search(history, entries, done);
            done[*at] = false;
            found
        })
    }

    #[test]
    fn it_agrees_with_a_search_through_all_orders() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut held = 0;
        for _ in 0..20_000 {
            let writes = rng.random_range(0..5_usize);
            let entries: Vec<(String, String)> = (0..writes)
                .map(|n| {
                    (
                        ["k", "l"].choose(&mut rng).unwrap().to_string(),
                        n.to_string(),
                    )
                })
                .collect();
            let mut history = Vec::new();
            let interval = |rng: &mut StdRng| {
                let start = rng.random_range(0..10);
                (start, start + rng.random_range(0..6))
            };
            for (index, (key, value)) in entries.iter().enumerate() {
                let (start, end) = interval(&mut rng);
                // Mostly in about the order of the ledger, so that many hold.
                let (start, end) = (start / 2 + 2 * index as u64, end / 2 + 3 * index as u64);
                let outcome = match rng.random_range(0..4) {
                    0 => Unknown,
                    _ => Acknowledged(index as u64),
                };
                let text = format!("{key}={value}");
                history.push(put(start, end.max(start), &text, outcome));
            }
            for _ in 0..rng.random_range(0..4) {
                let (start, end) = interval(&mut rng);
                let state = rng.random_range(0..=writes);
                let see = |key: &'static str| {
                    let found = entries[..state].iter().rposition(|(of, _)| of == key);
                    (
                        key,
                        found.map(|index| (index as u64, entries[index].1.as_str())),
                    )
                };
                let size = rng.random_bool(0.3).then_some(state as u64);
                history.push(match rng.random_bool(0.3) {
                    true => read(start, end, size, &[see("k"), see("l")]),
                    false => read(start, end, size, &[see("l")]),
                });
            }
            let ledger = entries
                .iter()
                .enumerate()
                .map(|(index, entry)| (index as u64, entry.clone()))
                .collect();
            let expected = search(&history, &entries, &mut vec![false; history.len()]);
            let found = check(&history, &ledger);
            assert_eq!(found.is_ok(), expected, "{history:?} {entries:?} {found:?}");
            held += usize::from(expected);
        }
        assert!(
            (4_000..16_000).contains(&held),
            "{held} of 20000 held: both must be frequent"
        );
    }
}
