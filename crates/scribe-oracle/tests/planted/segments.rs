use crate::support::*;
use scribe_oracle::*;
use scribe_proof::sha256;

use scribe_oracle::Invariant::Segments as Promise;

impl Run {
    fn sealed(&mut self, node: u64, number: u64, bytes: &[u8]) -> Result<(), Violation> {
        let at = self.tick();
        self.judge
            .segment_sealed(at, NodeId(node), number, sha256(bytes))
    }
}

#[test]
fn what_is_kept_passes() {
    let mut run = Run::new();
    for number in 0..3 {
        for node in 1..=NODES {
            run.sealed(node, number, &[number as u8]).unwrap();
        }
    }
    let checked = run.finish().unwrap();
    assert_eq!((checked.segments, checked.segments_compared), (9, 6));
}

#[test]
fn two_nodes_differ() {
    let mut run = Run::new();
    run.sealed(1, 0, b"a").unwrap();
    run.sealed(1, 1, b"b").unwrap();
    found(
        run.sealed(2, 1, b"c"),
        Promise,
        &["segment 1", "node 1", "node 2"],
    );
}

#[test]
fn one_node_changes_its_own() {
    let mut run = Run::new();
    run.sealed(3, 4, b"a").unwrap();
    found(run.sealed(3, 4, b"b"), Promise, &["segment 4", "node 3"]);
}

#[test]
fn it_is_remembered_over_a_start() {
    let mut run = Run::new();
    run.sealed(1, 0, b"a").unwrap();
    let at = run.tick();
    run.judge.node_started(at, NodeId(1));
    found(run.sealed(1, 0, b"b"), Promise, &["segment 0"]);
}
