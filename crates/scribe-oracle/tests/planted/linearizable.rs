use crate::support::*;
use scribe_oracle::*;

use scribe_oracle::Invariant::Linearizable as Promise;

#[test]
fn what_overlaps_passes_in_either_order() {
    for saw in [None, seen(0, "1"), seen(1, "2")] {
        let mut run = Run::new();
        let first = run.write(Write::put("a", b"1"));
        let second = run.write(Write::put("a", b"2"));
        run.read(Read::of("a"), None, saw).unwrap();
        run.append("a", Some("1"));
        run.append("a", Some("2"));
        run.end(second, Outcome::acknowledged_at(1)).unwrap();
        run.end(first, Outcome::acknowledged_at(0)).unwrap();
        let checked = run.finish().unwrap();
        assert_eq!((checked.placed, checked.linearizable_reads), (3, 1));
    }
}

#[test]
fn what_touches_overlaps() {
    // At one moment a write returns and a read begins: the read need not see it.
    let mut run = Run::new();
    let put = run.write(Write::put("a", b"1"));
    let at = run.tick();
    run.append("a", Some("1"));
    run.judge
        .returned(at, put, Outcome::acknowledged_at(0))
        .unwrap();
    let read = Request::Read(Read::of("a"));
    let read = run.judge.invoked(at, ClientId(2), None, read);
    run.end(read, answer(None, &[None])).unwrap();
    run.finish().unwrap();
}

#[test]
fn a_read_misses_an_acknowledged_write() {
    let mut run = Run::new();
    run.put("a", "1");
    found(
        run.read(Read::of("a"), None, None),
        Promise,
        &["saw nothing", "acknowledged at 0", "began after"],
    );
}

#[test]
fn a_read_from_an_older_state() {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("b", "2");
    found(
        run.read(Read::of("a"), Some(1), seen(0, "1")),
        Promise,
        &["at tree size 1", "acknowledged at 1"],
    );
}

#[test]
fn a_read_goes_back_behind_another() {
    let mut run = Run::new();
    for value in ["1", "2"] {
        let id = run.write(Write::put("a", value.as_bytes()));
        run.end(id, Outcome::Unknown).unwrap();
        run.append("a", Some(value));
    }
    run.read(Read::of("a"), None, seen(1, "2")).unwrap();
    found(
        run.read(Read::of("a"), None, seen(0, "1")),
        Promise,
        &["operation 3", "operation 2"],
    );
}

#[test]
fn a_write_before_one_that_had_returned() {
    let mut run = Run::new();
    let late = run.write(Write::put("a", b"late"));
    run.end(late, Outcome::acknowledged_at(1)).unwrap();
    let early = run.write(Write::put("a", b"early"));
    found(
        run.end(early, Outcome::acknowledged_at(0)),
        Promise,
        &["operation 1", "operation 0", "before it in the ledger"],
    );
}

#[test]
fn a_refusal_from_an_older_state() {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("a", "2");
    let id = run.write(only_if_index("a", "3", 1));
    found(run.end(id, failed(Some(0))), Promise, &["current index 0"]);
}

#[test]
fn a_stale_answer_found_only_in_the_end() {
    // The write that the second read missed is known only from the whole ledger.
    let mut run = Run::new();
    let first = run.write(Write::put("a", b"1"));
    let unknown = run.write(Write::put("a", b"2"));
    run.end(first, Outcome::acknowledged_at(0)).unwrap();
    run.end(unknown, Outcome::Unknown).unwrap();
    run.append("a", Some("1"));
    run.append("a", Some("2"));
    run.put("b", "3");
    run.read(Read::of("a"), None, seen(0, "1")).unwrap();
    found(run.finish(), Promise, &["operation 3", "operation 2"]);
}

#[test]
fn keys_that_were_never_newest_together() {
    let mut run = Run::new();
    let writes = [("a", "0"), ("b", "1"), ("a", "2")].map(|(key, value)| {
        run.append(key, Some(value));
        run.write(Write::put(key, value.as_bytes()))
    });
    let read = run.begin(Request::Read(Read::many(["a", "b"])));
    run.end(read, answer(None, &[seen(2, "2"), None])).unwrap();
    for id in writes {
        run.end(id, Outcome::Unknown).unwrap();
    }
    // No state at all explains it, however old: that is worse than a stale one.
    found(
        run.finish(),
        Invariant::Bytes,
        &["never in a state", "at 2 nothing"],
    );
}

#[test]
fn keys_that_are_known_not_to_have_been_newest_together() {
    let mut run = Run::new();
    for (key, value) in [("a", "0"), ("b", "1"), ("a", "2")] {
        run.append(key, Some(value));
        run.write(Write::put(key, value.as_bytes()));
    }
    run.entry_seen(&run.ledger[1].clone()).unwrap();
    let read = run.begin(Request::Read(Read::many(["a", "b"])));
    found(
        run.end(read, answer(None, &[seen(2, "2"), None])),
        Promise,
        &["no state of the ledger explains", "read `a` `b`"],
    );
}

#[test]
fn an_unknown_write_before_it_was_sent() {
    let mut run = Run::new();
    let put = run.write(Write::put("a", b"2"));
    run.end(put, Outcome::acknowledged_at(1)).unwrap();
    let unknown = run.write(Write::put("a", b"1"));
    run.end(unknown, Outcome::Unknown).unwrap();
    run.append("a", Some("1"));
    run.append("a", Some("2"));
    found(
        run.finish(),
        Promise,
        &["outcome unknown", "acknowledged at 1"],
    );
}
