use crate::support::*;
use scribe_oracle::*;
use scribe_proof::LeafIndex;

use scribe_oracle::Invariant::Watch as Promise;

/// Entries 0 and 2 of key `a`, 1 of `ab`, 3 the ledger's own, 4 of `b`.
fn run() -> Run {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("ab", "2");
    run.delete("a");
    run.append_system();
    run.put("b", "3");
    run
}

impl Run {
    fn watch(&mut self, filter: Filter, from: u64) -> WatchId {
        let at = self.tick();
        self.judge.watch_began(at, filter, LeafIndex::new(from))
    }

    fn event(&mut self, watch: WatchId, index: u64) -> Result<(), Violation> {
        let at = self.tick();
        let entry = self.ledger[index as usize].clone();
        self.judge.watch_event(at, watch, &entry)
    }

    fn progress(&mut self, watch: WatchId, index: u64) -> Result<(), Violation> {
        let at = self.tick();
        self.judge.watch_progress(at, watch, LeafIndex::new(index))
    }
}

fn key(key: &str) -> Filter {
    Filter::Key(key.as_bytes().to_vec())
}

fn prefix(prefix: &str) -> Filter {
    Filter::Prefix(prefix.as_bytes().to_vec())
}

#[test]
fn what_is_kept_passes() {
    let mut run = run();
    for (filter, from, events) in [
        (Filter::All, 1, &[1, 2, 3, 4][..]),
        (key("a"), 0, &[0, 2]),
        (prefix("a"), 0, &[0, 1, 2]),
        (prefix(""), 2, &[2, 4]),
    ] {
        let watch = run.watch(filter, from);
        for index in events {
            run.event(watch, *index).unwrap();
        }
        run.progress(watch, 4).unwrap();
        assert_eq!(run.judge.watch_next(watch), LeafIndex::new(5));
    }
    let checked = run.finish().unwrap();
    assert_eq!((checked.watches, checked.watch_events), (4, 11));
}

#[test]
fn one_is_missed() {
    let mut run = run();
    let watch = run.watch(Filter::All, 0);
    run.event(watch, 0).unwrap();
    found(
        run.event(watch, 2),
        Promise,
        &["not told of index 1", "last told of index 0"],
    );
}

#[test]
fn the_ledgers_own_is_missed() {
    let mut run = run();
    let watch = run.watch(Filter::All, 2);
    run.event(watch, 2).unwrap();
    found(run.event(watch, 4), Promise, &["not told of index 3"]);
}

#[test]
fn one_is_missed_by_a_filter() {
    let mut run = run();
    let watch = run.watch(prefix("a"), 0);
    run.event(watch, 0).unwrap();
    found(
        run.event(watch, 2),
        Promise,
        &["not told of index 1", "put `ab`"],
    );
}

#[test]
fn one_is_missed_that_is_known_only_in_the_end() {
    let mut run = Run::new();
    let unknown = run.write(Write::put("a", b"1"));
    run.append("a", Some("1"));
    run.end(unknown, Outcome::Unknown).unwrap();
    run.put("a", "2");
    let watch = run.watch(key("a"), 0);
    run.event(watch, 1).unwrap();
    found(
        run.finish(),
        Promise,
        &["not told of index 0", "last told of index 1"],
    );
}

#[test]
fn one_is_passed_by_progress() {
    let mut run = run();
    let watch = run.watch(key("b"), 0);
    run.progress(watch, 3).unwrap();
    found(
        run.progress(watch, 4),
        Promise,
        &["not told of index 4", "told of nothing"],
    );
}

#[test]
fn one_is_repeated() {
    let mut run = run();
    let watch = run.watch(Filter::All, 0);
    run.event(watch, 0).unwrap();
    run.event(watch, 1).unwrap();
    found(
        run.event(watch, 1),
        Promise,
        &["told of index 1", "index 2 was due"],
    );
}

#[test]
fn they_come_out_of_order() {
    let mut run = run();
    let watch = run.watch(prefix("a"), 1);
    run.event(watch, 1).unwrap();
    found(
        run.event(watch, 0),
        Promise,
        &["told of index 0", "index 2 was due"],
    );
}

#[test]
fn one_does_not_fit() {
    let mut run = run();
    let watch = run.watch(prefix("a"), 0);
    found(run.event(watch, 4), Promise, &["index 4", "key `b`"]);
    let watch = run.watch(prefix(""), 3);
    found(run.event(watch, 3), Promise, &["index 3"]);
}

#[test]
fn one_is_told_with_wrong_bytes() {
    let mut run = run();
    let watch = run.watch(Filter::All, 0);
    let at = run.tick();
    let wrong = entry(0, "a", Some("x"));
    found(
        run.judge.watch_event(at, watch, &wrong),
        Invariant::Acknowledged,
        &["the value", "an event of watch 0"],
    );
}
