use crate::support::*;
use scribe_oracle::*;

use scribe_oracle::Invariant::Refused as Promise;

#[test]
fn what_is_kept_passes() {
    let mut run = Run::new();
    // Refused and not there; unknown and not there; unknown and there; sent again under its key.
    let refused = run.write(Write::put("a", b"refused"));
    run.end(refused, Outcome::Refused).unwrap();
    let never = run.write(Write::put("a", b"never"));
    run.end(never, Outcome::Unknown).unwrap();
    let late = run.write(Write::put("a", b"late"));
    run.end(late, Outcome::Unknown).unwrap();
    let write = Write::put("a", b"again").idempotency_key("k");
    let first = run.write(write.clone());
    run.end(first, Outcome::Unknown).unwrap();
    run.append("a", Some("again"));
    for _ in 0..2 {
        let again = run.write(write.clone());
        run.end(again, Outcome::acknowledged_at(0)).unwrap();
    }
    // Refused in an attempt after it was acknowledged: it stays where it is.
    let again = run.write(write);
    run.end(again, Outcome::Refused).unwrap();
    run.append("a", Some("late"));
    let checked = run.finish().unwrap();
    assert_eq!(
        (checked.acknowledged, checked.replayed, checked.refused),
        (1, 1, 1)
    );
    assert_eq!(
        (checked.unknown_appended, checked.unknown_not_appended),
        (1, 1)
    );
}

#[test]
fn a_refused_write_in_the_ledger() {
    let mut run = Run::new();
    let id = run.write(Write::put("a", b"1"));
    run.append("a", Some("1"));
    run.end(id, Outcome::Refused).unwrap();
    found(
        run.finish(),
        Promise,
        &["a refused write is in the ledger", "index 0", "put `a`"],
    );
}

#[test]
fn a_write_seen_before_it_was_refused() {
    let mut run = Run::new();
    let id = run.write(Write::put("a", b"1"));
    run.read(Read::of("a"), None, seen(0, "1")).unwrap();
    found(
        run.end(id, Outcome::Refused),
        Promise,
        &["a refused write", "read `a`"],
    );
}

#[test]
fn a_write_refused_by_its_condition_in_the_ledger() {
    let mut run = Run::new();
    run.put("a", "0");
    let id = run.write(only_if_absent("a", "1"));
    run.end(id, failed(Some(0))).unwrap();
    let entry = entry(1, "a", Some("1"));
    found(
        run.entry_seen(&entry),
        Promise,
        &["a refused write", "if absent"],
    );
}

#[test]
fn an_unknown_write_twice() {
    let mut run = Run::new();
    let id = run.write(Write::put("a", b"1"));
    run.end(id, Outcome::Unknown).unwrap();
    run.append("a", Some("1"));
    run.append("a", Some("1"));
    found(
        run.finish(),
        Promise,
        &["there 2 times", "index 0", "index 1"],
    );
}

#[test]
fn an_acknowledged_write_twice() {
    let mut run = Run::new();
    run.put("a", "1");
    run.append("a", Some("1"));
    found(run.finish(), Promise, &["1 writes", "there 2 times"]);
}

#[test]
fn an_idempotency_key_with_two_indexes() {
    let mut run = Run::new();
    let write = Write::put("a", b"1").idempotency_key("k");
    for (index, broken) in [(0, false), (1, true)] {
        let id = run.write(write.clone());
        run.append("a", Some("1"));
        let end = run.end(id, Outcome::acknowledged_at(index));
        match broken {
            false => end.unwrap(),
            true => found(end, Promise, &["at two indexes", "idempotency key `k`"]),
        }
    }
}

#[test]
fn another_write_under_a_used_idempotency_key() {
    let mut run = Run::new();
    let first = run.write(Write::put("a", b"1").idempotency_key("k"));
    run.end(first, Outcome::acknowledged_at(0)).unwrap();
    let other = run.write(Write::put("a", b"2").idempotency_key("k"));
    found(
        run.end(other, Outcome::acknowledged_at(1)),
        Promise,
        &["the idempotency key `k` was acknowledged at two indexes"],
    );
}

#[test]
fn an_entry_that_nobody_wrote() {
    let mut run = Run::new();
    run.put("a", "1");
    run.append("a", Some("2"));
    found(run.finish(), Promise, &["nobody wrote put `a`", "index 1"]);
}

#[test]
fn half_of_an_unknown_transaction() {
    let mut run = Run::new();
    let id = run.write(Write::of([Step::put("a", b"1"), Step::put("b", b"2")]));
    run.end(id, Outcome::Unknown).unwrap();
    run.append("a", Some("1"));
    found(run.finish(), Promise, &["as a whole", "put `a`", "put `b`"]);
}

#[test]
fn an_unknown_transaction_in_pieces() {
    let mut run = Run::new();
    let id = run.write(Write::of([Step::put("a", b"1"), Step::put("b", b"2")]));
    run.end(id, Outcome::Unknown).unwrap();
    run.append("a", Some("1"));
    run.append_system();
    run.append("b", Some("2"));
    found(run.finish(), Promise, &["as a whole"]);
}

#[test]
fn of_unknown_deletes_any_may_be_the_one() {
    // Only the second was sent early enough; only the first has no condition in the way: they must be told apart.
    let mut run = Run::new();
    run.put("a", "1");
    let step = Step::delete("a").only_if(Condition::Index(scribe_proof::LeafIndex::new(0)));
    let conditional = run.write(Write::of([step]));
    run.end(conditional, Outcome::Unknown).unwrap();
    let plain = run.write(Write::delete("a"));
    run.end(plain, Outcome::Unknown).unwrap();
    run.append("a", None);
    run.append("a", None);
    assert_eq!(run.finish().unwrap().unknown_appended, 2);
}
