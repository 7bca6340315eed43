use crate::support::*;
use scribe_proof::Hash;

use scribe_oracle::Invariant::Roots as Promise;

fn run() -> Run {
    let mut run = Run::new();
    run.put("a", "1");
    run.put("b", "2");
    run
}

#[test]
fn what_is_kept_passes() {
    let mut run = run();
    for node in 1..=NODES {
        run.state(node, node - 1, Some(run.root(node - 1))).unwrap();
        run.state(node, 2, Some(run.root(2))).unwrap();
        run.state(node, 2, None).unwrap();
    }
    let checked = run.finish().unwrap();
    assert_eq!((checked.node_states, checked.roots), (9, 3));
}

#[test]
fn two_nodes_differ_at_one_size() {
    let mut run = run();
    run.state(1, 7, Some(Hash([1; 32]))).unwrap();
    found(
        run.state(2, 7, Some(Hash([2; 32]))),
        Promise,
        &["the state of node 1", "the state of node 2", "tree size 7"],
    );
}

#[test]
fn a_state_differs_from_a_checkpoint() {
    let mut run = run();
    run.checkpoint(1, 7, Hash([1; 32])).unwrap();
    found(
        run.state(2, 7, Some(Hash([2; 32]))),
        Promise,
        &["the checkpoint of node 1", "the state of node 2"],
    );
}

#[test]
fn a_state_differs_from_the_ledger() {
    let mut run = run();
    let wrong = Some(run.root(1));
    found(
        run.state(3, 2, wrong),
        Promise,
        &["the state of node 3", "tree size 2", "entries told of"],
    );
}

#[test]
fn a_state_beyond_the_ledger() {
    let mut run = run();
    run.state(1, 3, Some(Hash([1; 32]))).unwrap();
    found(
        run.finish(),
        Promise,
        &["the state of node 1", "more than 2 entries"],
    );
}
