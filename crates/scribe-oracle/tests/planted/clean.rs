//! A run in which everything happens and all is well: every kind of check must have been at work. And one in which
//! nothing happens, which must not pass for it.

use crate::support::*;
use scribe_oracle::*;
use scribe_proof::{LeafIndex, TreeSize, sha256};

fn everything() -> Checked {
    let mut run = Run::new();
    run.append_system();
    run.put("a", "1");
    run.delete("b");
    let write = Write::put("a", b"2").idempotency_key("k");
    let first = run.write_well(write.clone(), &[Some("2")]);
    let again = run.write(write);
    let outcome = Outcome::Acknowledged(vec![appended(&run.ledger[first as usize])]);
    run.end(again, outcome).unwrap();
    let refused = run.write(Write::put("a", b"refused"));
    run.end(refused, Outcome::Refused).unwrap();
    for value in ["there", "not there"] {
        let unknown = run.write(Write::put("c", value.as_bytes()));
        run.end(unknown, Outcome::Unknown).unwrap();
    }
    run.append("c", Some("there"));
    run.write_well(only_if_index("a", "3", 3), &[Some("3")]);
    let late = run.write(only_if_index("a", "4", 3));
    run.end(late, failed(Some(5))).unwrap();
    run.write_well(
        Write::of([Step::put("x", b"x"), Step::put("y", b"y")]),
        &[Some("x"), Some("y")],
    );
    run.read(Read::of("a"), Some(8), seen(5, "3")).unwrap();
    let stale = Consistency::Stale { min_index: None };
    run.read(Read::of("c").with(stale), None, None).unwrap();
    run.entry_seen(&run.ledger[4].clone()).unwrap();
    for (node, size) in [(1, 4), (2, 4), (2, 6)] {
        run.checkpoint(node, size, run.root(size)).unwrap();
    }
    for node in 1..=NODES {
        run.state(node, 8, Some(run.root(8))).unwrap();
        let at = run.tick();
        run.judge.node_started(at, NodeId(node));
        let at = run.tick();
        run.judge
            .segment_sealed(at, NodeId(node), 0, sha256(b"segment"))
            .unwrap();
        let at = run.tick();
        let (size, root) = (TreeSize::new(6), run.root(6));
        run.judge.signed(at, NodeId(node), size, root).unwrap();
    }
    let at = run.tick();
    let watch = run.judge.watch_began(at, Filter::All, LeafIndex::FIRST);
    for entry in run.ledger.clone() {
        let at = run.tick();
        run.judge.watch_event(at, watch, &entry).unwrap();
    }
    run.finish().unwrap()
}

#[test]
fn every_kind_of_check_is_at_work() {
    let checked = everything();
    for (name, count) in checked.counts() {
        assert!(count > 0, "{name}: nothing was checked");
    }
    assert_eq!(checked.placed, 8);
    let text = checked.to_string();
    assert!(text.contains("checkpoint pairs 15"), "{text}");
    checked.at_least(&checked).unwrap();
}

#[test]
fn an_empty_run_does_not_reach_its_floors() {
    let floors = Checked {
        acknowledged: 1,
        linearizable_reads: 1,
        checkpoint_pairs: 3,
        ..Checked::default()
    };
    let checked = Run::new().finish().unwrap();
    let below = checked.at_least(&floors).unwrap_err();
    for word in [
        "acknowledged 0, at least 1",
        "linearizable_reads 0, at least 1",
        "checkpoint_pairs 0, at least 3",
    ] {
        assert!(below.contains(word), "{below}");
    }
    // What is not asked for is not missed.
    assert!(!below.contains("watch"), "{below}");
    everything().at_least(&floors).unwrap();
}

#[test]
#[should_panic(expected = "moments never go back")]
fn events_out_of_order_are_the_callers_fault() {
    let mut judge = Judge::new();
    judge.node_started(Moment(2), NodeId(1));
    judge.node_started(Moment(1), NodeId(1));
}

#[test]
#[should_panic(expected = "returns a second time")]
fn a_second_outcome_is_the_callers_fault() {
    let mut run = Run::new();
    let id = run.write(Write::put("a", b"1"));
    run.end(id, Outcome::Unknown).unwrap();
    let _ = run.end(id, Outcome::Refused);
}

#[test]
#[should_panic(expected = "has its leaf hash and its value")]
fn a_ledger_without_values_is_the_callers_fault() {
    let mut run = Run::new();
    run.put("a", "1");
    run.ledger[0].value = None;
    let _ = run.finish();
}

#[test]
fn many_threads_may_share_a_judge() {
    fn is_send<T: Send>() {}
    is_send::<Judge>();
    is_send::<Violation>();
}
