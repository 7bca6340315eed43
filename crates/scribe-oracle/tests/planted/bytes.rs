use crate::support::*;
use scribe_oracle::*;
use scribe_proof::{LeafIndex, TreeSize};

use scribe_oracle::Invariant::Bytes as Promise;

const STALE: Consistency = Consistency::Stale { min_index: None };

/// A write that is in the ledger, and of which nobody knows.
fn unknown(run: &mut Run, key: &str, value: &str) -> u64 {
    let id = run.write(Write::put(key, value.as_bytes()));
    run.end(id, Outcome::Unknown).unwrap();
    run.append(key, Some(value))
}

#[test]
fn what_is_kept_passes() {
    let mut run = Run::new();
    run.put("a", "1");
    unknown(&mut run, "a", "2");
    run.delete("b");
    for (size, saw) in [(0, None), (1, seen(0, "1")), (2, seen(1, "2"))] {
        let past = Consistency::At(TreeSize::new(size));
        run.read(Read::of("a").with(past), None, saw).unwrap();
    }
    // Stale, without saying of when; without its bytes; a tombstone.
    run.read(Read::of("a").with(STALE), None, seen(0, "1"))
        .unwrap();
    let head = Seen {
        index: LeafIndex::new(1),
        version: Version::Value(None),
    };
    run.read(Read::of("a"), Some(3), Some(head)).unwrap();
    run.read(Read::of("b"), None, Some(Seen::tombstone(2)))
        .unwrap();
    run.entry_seen(&run.ledger[1].clone()).unwrap();
    let checked = run.finish().unwrap();
    assert_eq!(
        (
            checked.stale_reads,
            checked.versions_read,
            checked.entries_seen
        ),
        (4, 6, 1)
    );
}

#[test]
fn two_reads_of_one_entry_differ() {
    let mut run = Run::new();
    for value in ["1", "2"] {
        let id = run.write(Write::put("a", value.as_bytes()));
        run.end(id, Outcome::Unknown).unwrap();
    }
    let read = Read::of("a").with(STALE);
    run.read(read.clone(), None, seen(0, "1")).unwrap();
    found(
        run.read(read, None, seen(0, "2")),
        Promise,
        &[
            "the value of the entry at index 0",
            "operation 2",
            "operation 3",
        ],
    );
}

#[test]
fn a_read_that_the_ledger_does_not_bear_out() {
    let mut run = Run::new();
    let one = run.write(Write::put("a", b"1"));
    run.end(one, Outcome::Unknown).unwrap();
    let two = run.write(Write::put("a", b"2"));
    run.end(two, Outcome::Unknown).unwrap();
    run.read(Read::of("a").with(STALE), None, seen(0, "1"))
        .unwrap();
    run.append("a", Some("2"));
    found(
        run.finish(),
        Promise,
        &["the value", "index 0", "ledger of node 1"],
    );
}

#[test]
fn an_entry_that_was_read_is_gone() {
    let mut run = Run::new();
    unknown(&mut run, "a", "1");
    unknown(&mut run, "a", "2");
    run.read(Read::of("a").with(STALE), None, seen(1, "2"))
        .unwrap();
    run.ledger.pop();
    found(run.finish(), Promise, &["index 1 is gone", "tree size 1"]);
}

#[test]
fn a_nodes_ledger_differs_from_anothers() {
    let mut run = Run::new();
    run.append_system();
    let mut other = run.ledger.clone();
    other[0].leaf_hash = entry(0, "other", None).leaf_hash;
    run.give(1, &run.ledger.clone()).unwrap();
    found(
        run.give(2, &other),
        Promise,
        &["the leaf hash", "node 1", "node 2"],
    );
}

#[test]
fn a_read_of_the_past_misses_a_version() {
    let mut run = Run::new();
    run.put("a", "1");
    unknown(&mut run, "a", "2");
    run.append_system();
    let past = Consistency::At(TreeSize::new(3));
    run.read(Read::of("a").with(past), None, seen(0, "1"))
        .unwrap();
    found(
        run.finish(),
        Promise,
        &["tree size 3", "version at index 1", "in the past"],
    );
}

#[test]
fn a_read_misses_a_version_of_the_state_it_names() {
    for consistency in [STALE, Consistency::Linearizable] {
        let mut run = Run::new();
        run.put("a", "1");
        run.put("a", "2");
        found(
            run.read(Read::of("a").with(consistency), Some(2), seen(0, "1")),
            Promise,
            &["tree size 2", "version at index 1"],
        );
    }
}

#[test]
fn a_read_sees_more_than_the_state_it_names() {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("a", "2");
    found(
        run.read(Read::of("a").with(STALE), Some(1), seen(1, "2")),
        Promise,
        &["not in the state of tree size 1"],
    );
}

#[test]
fn a_read_sees_a_state_beyond_the_ledger() {
    for consistency in [STALE, Consistency::Linearizable] {
        let mut run = Run::new();
        run.put("a", "1");
        let read = Read::of("a").with(consistency);
        run.read(read, Some(2), seen(0, "1")).unwrap();
        found(run.finish(), Promise, &["more than 1 entries", "saw 2"]);
    }
}

#[test]
fn half_of_a_transaction_is_read() {
    for saw in [[seen(0, "1"), None], [None, seen(1, "2")]] {
        let mut run = Run::new();
        let id = run.write(Write::of([Step::put("a", b"1"), Step::put("b", b"2")]));
        let read = run.begin(Request::Read(Read::many(["a", "b"]).with(STALE)));
        run.append("a", Some("1"));
        run.append("b", Some("2"));
        run.end(read, answer(None, &saw)).unwrap();
        run.end(id, Outcome::Unknown).unwrap();
        found(run.finish(), Promise, &["never in a state", "read `a` `b`"]);
    }
}

#[test]
fn a_read_before_the_entry_it_asked_for() {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("b", "2");
    let after = Consistency::Stale {
        min_index: Some(LeafIndex::new(1)),
    };
    let read = Read::of("a").with(after);
    run.read(read.clone(), Some(2), seen(0, "1")).unwrap();
    found(
        run.read(read, Some(1), seen(0, "1")),
        Promise,
        &["does not hold index 1", "not before index 1"],
    );
}

#[test]
fn a_value_where_a_tombstone_is() {
    let mut run = Run::new();
    run.delete("a");
    let saw = Some(Seen {
        index: LeafIndex::new(0),
        version: Version::Value(None),
    });
    found(
        run.read(Read::of("a"), None, saw),
        Invariant::Acknowledged,
        &["the kind", "index 0"],
    );
}
