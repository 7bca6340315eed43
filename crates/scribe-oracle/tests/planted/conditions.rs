use crate::support::*;
use scribe_oracle::*;

use scribe_oracle::Invariant::Conditions as Promise;

#[test]
fn what_is_kept_passes() {
    let mut run = Run::new();
    run.write_well(only_if_absent("a", "1"), &[Some("1")]);
    run.write_well(only_if_index("a", "2", 0), &[Some("2")]);
    run.delete("a");
    run.write_well(only_if_absent("a", "3"), &[Some("3")]);
    for (write, current) in [
        (only_if_absent("a", "4"), Some(3)),
        (only_if_index("a", "5", 2), Some(3)),
        (only_if_index("b", "6", 0), None),
    ] {
        let id = run.write(write);
        run.end(id, failed(current)).unwrap();
    }
    let check = Step::check("b", Condition::Absent);
    let transaction = Write::of([check, Step::put("a", b"7")]);
    run.write_well(transaction, &[Some("7")]);
    // A tombstone's index is a version like any other.
    run.delete("a");
    run.write_well(only_if_index("a", "8", 5), &[Some("8")]);
    let checked = run.finish().unwrap();
    assert_eq!((checked.conditions_held, checked.conditions_failed), (5, 3));
}

#[test]
fn appended_although_another_version_was_newer() {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("a", "2");
    let id = run.write(only_if_index("a", "3", 0));
    found(
        run.end(id, Outcome::acknowledged_at(2)),
        Promise,
        &["just before index 2", "version at index 1", "if at index 0"],
    );
}

#[test]
fn appended_although_the_key_had_a_value() {
    let mut run = Run::new();
    run.put("a", "1");
    let id = run.write(only_if_absent("a", "2"));
    run.append("a", Some("2"));
    run.end(id, Outcome::acknowledged_at(1)).unwrap();
    found(
        run.finish(),
        Promise,
        &["just before index 1", "version at index 0"],
    );
}

#[test]
fn appended_although_the_version_is_of_another_key() {
    let mut run = Run::new();
    run.put("b", "1");
    let id = run.write(only_if_index("a", "2", 0));
    found(
        run.end(id, Outcome::acknowledged_at(1)),
        Promise,
        &["`a`", "if at index 0"],
    );
}

#[test]
fn appended_although_a_check_of_the_transaction_did_not_hold() {
    let mut run = Run::new();
    run.put("b", "1");
    let check = Step::check("b", Condition::Absent);
    let write = Write::of([check, Step::put("a", b"2")]);
    run.write_well(write, &[Some("2")]);
    found(
        run.finish(),
        Promise,
        &["condition on `b`", "check `b` if absent"],
    );
}

#[test]
fn an_unknown_write_appended_although_its_condition_did_not_hold() {
    let mut run = Run::new();
    run.put("a", "1");
    let id = run.write(only_if_index("a", "3", 0));
    run.end(id, Outcome::Unknown).unwrap();
    run.put("a", "2");
    run.append("a", Some("3"));
    found(
        run.finish(),
        Promise,
        &["just before index 2", "outcome unknown"],
    );
}

#[test]
fn refused_although_the_version_was_current() {
    let mut run = Run::new();
    run.put("a", "1");
    let id = run.write(only_if_index("a", "2", 0));
    found(
        run.end(id, failed(Some(0))),
        Promise,
        &["although its condition held"],
    );
}

#[test]
fn refused_as_present_although_it_was_absent() {
    let mut run = Run::new();
    let id = run.write(only_if_absent("a", "1"));
    found(
        run.end(id, failed(None)),
        Promise,
        &["although its condition held"],
    );
    let mut run = Run::new();
    run.put("a", "1");
    run.delete("a");
    let id = run.write(only_if_absent("a", "2"));
    found(
        run.end(id, failed(Some(1))),
        Promise,
        &["although its condition held"],
    );
    // The same, if only the whole ledger tells that the version was a tombstone.
    let mut run = Run::new();
    let unknown = run.write(Write::delete("a"));
    let id = run.write(only_if_absent("a", "2"));
    run.append("a", None);
    run.end(id, failed(Some(0))).unwrap();
    run.end(unknown, Outcome::Unknown).unwrap();
    found(run.finish(), Promise, &["although its condition held"]);
}

#[test]
fn refused_by_a_condition_that_was_not_asked_for() {
    let mut run = Run::new();
    run.put("a", "1");
    let id = run.write(Write::put("a", b"2"));
    found(
        run.end(id, failed(Some(0))),
        Promise,
        &["although its condition held"],
    );
}

#[test]
fn refused_with_a_version_that_never_was() {
    let mut run = Run::new();
    let id = run.write(only_if_index("a", "1", 0));
    run.end(id, failed(Some(7))).unwrap();
    run.append_system();
    found(
        run.finish(),
        Invariant::Linearizable,
        &["`a` never had the version", "current index 7"],
    );
}
