use crate::support::*;
use scribe_oracle::*;
use scribe_proof::TreeSize;

use scribe_oracle::Invariant::Order as Promise;

fn run() -> Run {
    let mut run = Run::new();
    for value in ["1", "2", "3", "4"] {
        run.put("a", value);
    }
    run
}

impl Run {
    fn started(&mut self, node: u64) {
        let at = self.tick();
        self.judge.node_started(at, NodeId(node));
    }

    fn signed(&mut self, node: u64, size: u64) -> Result<(), Violation> {
        let at = self.tick();
        let root = self.root(size);
        self.judge
            .signed(at, NodeId(node), TreeSize::new(size), root)
    }

    /// A transaction of two puts that is in the ledger and whose outcome is unknown.
    fn transaction(&mut self) {
        let steps = [Step::put("x", b"x"), Step::put("y", b"y")];
        let id = self.write(Write::of(steps));
        self.append("x", Some("x"));
        self.append("y", Some("y"));
        self.end(id, Outcome::Unknown).unwrap();
    }
}

#[test]
fn what_is_kept_passes() {
    let mut run = run();
    run.state(1, 4, None).unwrap();
    run.signed(1, 3).unwrap();
    run.checkpoint(1, 3, run.root(3)).unwrap();
    run.started(1);
    // Behind what it had applied, until it has caught up; not behind what it signed.
    run.state(1, 2, None).unwrap();
    run.signed(1, 3).unwrap();
    run.checkpoint(1, 4, run.root(4)).unwrap();
    run.transaction();
    run.state(2, 6, Some(run.root(6))).unwrap();
    assert_eq!(run.finish().unwrap().starts, 1);
}

#[test]
fn a_state_goes_back_within_a_life() {
    let mut run = run();
    run.state(2, 3, None).unwrap();
    run.started(1);
    found(
        run.state(2, 2, None),
        Promise,
        &["node 2", "tree size 3", "has 2 now"],
    );
}

#[test]
fn a_stale_read_goes_back_within_a_life() {
    let mut run = run();
    let stale = Consistency::Stale { min_index: None };
    let read = Read::of("a").with(stale);
    run.read(read.clone(), Some(3), seen(2, "3")).unwrap();
    let behind = run.read(read.clone(), Some(2), seen(1, "2"));
    found(
        behind,
        Promise,
        &["node 1 had shown tree size 3", "at tree size 2"],
    );
    let mut run = self::run();
    run.read(read.clone(), Some(3), seen(2, "3")).unwrap();
    run.started(1);
    run.read(read, Some(2), seen(1, "2")).unwrap();
    run.finish().unwrap();
}

#[test]
fn what_was_signed_goes_back_over_a_start() {
    let mut run = run();
    run.signed(1, 3).unwrap();
    run.started(1);
    found(
        run.signed(1, 2),
        Promise,
        &["node 1 signed", "tree size 3", "one of 2 now"],
    );
}

#[test]
fn the_checkpoint_goes_back_over_a_start() {
    let mut run = run();
    run.checkpoint(1, 4, run.root(4)).unwrap();
    run.checkpoint(2, 2, run.root(2)).unwrap();
    run.started(1);
    let root = run.root(3);
    found(
        run.checkpoint(1, 3, root),
        Promise,
        &["node 1 showed", "tree size 4"],
    );
}

#[test]
fn a_node_had_more_than_any_ledger_has() {
    let mut run = run();
    run.state(2, 5, None).unwrap();
    found(
        run.finish(),
        Promise,
        &["node 2 had tree size 5", "more than 4 entries"],
    );
}

#[test]
fn a_hole_in_a_ledger() {
    let mut run = run();
    run.ledger.remove(2);
    found(
        run.finish(),
        Promise,
        &["index 3 where index 2 is due", "node 1"],
    );
}

#[test]
fn an_index_twice_in_a_ledger() {
    let mut run = run();
    run.ledger.insert(2, run.ledger[1].clone());
    found(run.finish(), Promise, &["index 1 where index 2 is due"]);
}

#[test]
fn time_decreases() {
    let mut run = run();
    let id = run.write(Write::put("a", b"5"));
    let appended = Appended {
        timestamp_ms: Some(1_000),
        ..Appended::at(4)
    };
    let end = run.end(id, Outcome::Acknowledged(vec![appended]));
    found(
        end,
        Promise,
        &[
            "time decreases",
            "index 3 has 1001 ms",
            "index 4 has 1000 ms",
        ],
    );
    // Also towards what was told before of later ones, and in what a node says of its last entry.
    let mut run = self::run();
    let state = |size, time| NodeState {
        tree_size: TreeSize::new(size),
        root_hash: None,
        last_timestamp_ms: Some(time),
    };
    let at = run.tick();
    run.judge
        .node_state(at, NodeId(1), state(9, 2_000))
        .unwrap();
    let at = run.tick();
    let early = run.judge.node_state(at, NodeId(2), state(8, 2_001));
    found(
        early,
        Promise,
        &["index 7 has 2001 ms", "index 8 has 2000 ms"],
    );
}

#[test]
fn the_time_of_an_entry_changes() {
    let mut run = run();
    run.ledger[3].timestamp_ms = Some(1_002);
    found(
        run.finish(),
        Promise,
        &["index 3 had time 1001 ms", "1002 ms now"],
    );
}

#[test]
fn a_transaction_acknowledged_in_pieces() {
    let mut run = run();
    let id = run.write(Write::of([Step::put("x", b"x"), Step::put("y", b"y")]));
    let pieces = vec![Appended::at(4), Appended::at(6)];
    let end = run.end(id, Outcome::Acknowledged(pieces));
    found(
        end,
        Promise,
        &["do not follow each other", "acknowledged at 4 6"],
    );
}

#[test]
fn states_in_the_middle_of_a_transaction() {
    let mut run = run();
    run.transaction();
    run.checkpoint(1, 5, run.root(5)).unwrap();
    found(
        run.finish(),
        Promise,
        &["checkpoint of node 1", "middle of a transaction"],
    );
    let mut run = self::run();
    run.transaction();
    run.state(2, 5, Some(run.root(5))).unwrap();
    found(
        run.finish(),
        Promise,
        &["state of node 2", "middle of a transaction"],
    );
    let mut run = self::run();
    run.transaction();
    run.read(Read::of("x"), Some(5), seen(4, "x")).unwrap();
    found(
        run.finish(),
        Promise,
        &["middle of a transaction", "read `x`"],
    );
    // A size in the past may be anywhere: it sees none of the transaction.
    let mut run = self::run();
    run.transaction();
    let past = Consistency::At(TreeSize::new(5));
    run.read(Read::of("x").with(past), None, None).unwrap();
    run.finish().unwrap();
    let mut run = self::run();
    run.transaction();
    run.read(Read::of("x").with(past), None, seen(4, "x"))
        .unwrap();
    found(run.finish(), Invariant::Bytes, &["tree size 5", "has none"]);
}
