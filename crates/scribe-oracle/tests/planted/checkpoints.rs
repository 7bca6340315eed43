use crate::support::*;
use scribe_oracle::*;
use scribe_proof::{Hash, SigningKey, TreeSize};

use scribe_oracle::Invariant::Checkpoints as Promise;

fn run() -> Run {
    let mut run = Run::new();
    for value in ["1", "2", "3", "4", "5"] {
        run.put("a", value);
    }
    run
}

#[test]
fn what_is_kept_passes() {
    let mut run = run();
    for (node, size) in [(1, 0), (1, 2), (2, 3), (3, 5), (1, 5)] {
        run.checkpoint(node, size, run.root(size)).unwrap();
    }
    let at = run.tick();
    run.judge
        .checkpoint_held(at, "a receipt", TreeSize::new(1), run.root(1))
        .unwrap();
    let checked = run.finish().unwrap();
    assert_eq!((checked.checkpoints, checked.checkpoint_pairs), (6, 15));
    // Each size once.
    assert_eq!(checked.roots, 5);
}

impl Run {
    fn note(&mut self, node: u64, origin: &str, size: u64) -> Result<(), Violation> {
        let key = SigningKey::from_seed(origin, &[7; 32]).unwrap();
        let checkpoint =
            scribe_proof::Checkpoint::new(origin, TreeSize::new(size), self.root(size));
        let note = scribe_proof::SignedCheckpoint::sign(checkpoint, &[&key])
            .unwrap()
            .to_text();
        let at = self.tick();
        self.judge.note_seen(at, NodeId(node), &note)
    }
}

#[test]
fn two_roots_of_one_size() {
    let mut run = run();
    // Not built from entries that were told: the second one contradicts the first alone.
    let (root, other) = (Hash([1; 32]), Hash([2; 32]));
    run.checkpoint(1, 9, root).unwrap();
    found(
        run.checkpoint(2, 9, other),
        Promise,
        &[
            "node 1",
            "node 2",
            "tree size 9",
            &root.to_hex(),
            &other.to_hex(),
        ],
    );
}

#[test]
fn a_checkpoint_that_is_no_prefix_of_the_ledger() {
    let mut run = run();
    let wrong = run.root(4);
    found(
        run.checkpoint(3, 3, wrong),
        Promise,
        &["node 3", "tree size 3", "entries told of"],
    );
}

#[test]
fn a_checkpoint_found_wrong_when_its_entries_come() {
    let mut run = run();
    let index = run.ledger.len() as u64;
    run.checkpoint(1, index + 1, Hash([1; 32])).unwrap();
    let id = run.write(Write::put("a", b"6"));
    run.append("a", Some("6"));
    let last = run.ledger.last().map(appended).unwrap();
    found(
        run.end(id, Outcome::Acknowledged(vec![last])),
        Promise,
        &["tree size 6", "entries told of"],
    );
}

#[test]
fn a_checkpoint_beyond_the_ledger() {
    let mut run = run();
    run.checkpoint(1, 6, Hash([1; 32])).unwrap();
    found(
        run.finish(),
        Promise,
        &["tree size 6", "more than 5 entries"],
    );
}

#[test]
fn a_checkpoint_that_somebody_else_holds() {
    let mut run = run();
    let at = run.tick();
    let held = run
        .judge
        .checkpoint_held(at, "witness w", TreeSize::new(2), Hash([1; 32]));
    found(held, Promise, &["witness w", "tree size 2"]);
}

#[test]
fn notes() {
    let mut run = run();
    run.note(1, "example.com/a", 3).unwrap();
    run.note(2, "example.com/a", 3).unwrap();
    found(run.note(3, "example.com/b", 3), Promise, &["example.com/b"]);
    let at = run.tick();
    found(
        run.judge.note_seen(at, NodeId(1), "no note"),
        Promise,
        &["no note"],
    );
}
