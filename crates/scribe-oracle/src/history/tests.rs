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
