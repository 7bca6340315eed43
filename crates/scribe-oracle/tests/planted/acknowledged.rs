use crate::support::*;
use scribe_oracle::*;

use scribe_oracle::Invariant::Acknowledged as Promise;

/// Two acknowledged writes.
fn run() -> Run {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("b", "2");
    run
}

#[test]
fn what_is_kept_passes() {
    let checked = run().finish().unwrap();
    assert_eq!((checked.acknowledged, checked.ledgers), (2, 3));
}

#[test]
fn an_entry_lost_from_every_ledger() {
    let mut run = run();
    run.ledger.pop();
    found(
        run.finish(),
        Promise,
        &[
            "node 1 ends at tree size 1",
            "index 1",
            "put `b`",
            "acknowledged at 1",
        ],
    );
}

#[test]
fn an_entry_lost_from_one_nodes_ledger() {
    let mut run = run();
    let ledger = run.ledger.clone();
    run.give(1, &ledger).unwrap();
    run.give(2, &ledger[..1]).unwrap();
    found(run.judge.finish(), Promise, &["node 2 ends at tree size 1"]);
}

#[test]
fn all_is_lost_when_no_ledger_is_given() {
    found(
        run().judge.finish(),
        Promise,
        &["no whole ledger was given"],
    );
}

#[test]
fn another_value_at_its_index() {
    let mut run = run();
    run.ledger[0].value = entry(0, "a", Some("x")).value;
    found(
        run.finish(),
        Promise,
        &["the value", "index 0", "ledger of node 1"],
    );
}

#[test]
fn another_leaf_under_the_same_value() {
    let mut run = run();
    run.ledger[1].leaf_hash = run.ledger[0].leaf_hash;
    found(run.finish(), Promise, &["the leaf hash", "index 1"]);
}

#[test]
fn two_entries_reordered() {
    let mut run = run();
    let (a, b) = (run.ledger[0].clone(), run.ledger[1].clone());
    run.ledger[0] = Entry {
        index: a.index,
        ..b.clone()
    };
    run.ledger[1] = Entry {
        index: b.index,
        ..a
    };
    found(run.finish(), Promise, &["the key", "index 0"]);
}

#[test]
fn a_tombstone_in_its_place_is_seen_at_once() {
    let mut run = run();
    found(
        run.entry_seen(&entry(0, "a", None)),
        Promise,
        &["the kind", "seen on node 2"],
    );
}

#[test]
fn one_index_for_two_writes() {
    let mut run = run();
    let id = run.write(Write::put("c", b"3"));
    found(
        run.end(id, Outcome::acknowledged_at(1)),
        Promise,
        &["index 1 was given to two writes", "put `b`", "put `c`"],
    );
}

#[test]
fn an_acknowledgement_of_too_few_entries() {
    let mut run = run();
    let id = run.write(Write::of([Step::put("c", b"3"), Step::delete("a")]));
    found(
        run.end(id, Outcome::acknowledged_at(2)),
        Promise,
        &["appends 2 entries, the acknowledgement names 1"],
    );
}

#[test]
fn an_acknowledgement_of_a_write_that_appends_nothing() {
    let mut run = run();
    let id = run.write(Write::of([Step::check("c", Condition::Absent)]));
    found(
        run.end(id, Outcome::Acknowledged(Vec::new())),
        Promise,
        &["appends nothing"],
    );
}

#[test]
fn a_write_acknowledged_where_another_was_read() {
    let mut run = run();
    let id = run.write(Write::put("c", b"3"));
    let other = run.write(Write::put("c", b"4"));
    run.read(Read::of("c"), None, seen(2, "4")).unwrap();
    run.end(other, Outcome::Unknown).unwrap();
    found(
        run.end(id, Outcome::acknowledged_at(2)),
        Promise,
        &["the value", "index 2"],
    );
}
