//! Every status of the specification, the order of the checks, and a long run against a memory kept by hand.

use proptest::prelude::*;
use scribe_proof::checkpoint::Checkpoint;
use scribe_proof::hash::leaf_hash;
use scribe_proof::key::SigningKey;
use scribe_proof::tree::MemoryTree;
use scribe_proof::{VerifierKey, cosignature};

use super::*;

const ORIGIN: &str = "example.com/log";
const NOW_S: u64 = 1_800_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

fn log() -> FollowedLog {
    FollowedLog {
        origin: ORIGIN.to_owned(),
        keys: vec![key(1).verifier_key().clone(), key(2).verifier_key().clone()],
    }
}

/// A tree of this many leaves; `fork` tells histories apart from leaf 3 on.
fn tree(size: u64, fork: u8) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for at in 0..size {
        let history = if at < 3 { 0 } else { fork };
        tree.append(leaf_hash(&[history, at as u8]));
    }
    tree
}

fn head(size: u64, fork: u8) -> Remembered {
    Remembered {
        size: TreeSize::new(size),
        root: tree(size, fork).root(),
        timestamp_s: NOW_S - 10,
    }
}

fn signed(size: u64, fork: u8) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(size), tree(size, fork).root());
    SignedCheckpoint::sign(checkpoint, &[&key(1)]).unwrap()
}

/// An honest request of the log with this history.
fn request(old: u64, size: u64, fork: u8) -> AddCheckpoint {
    let (old, new) = (TreeSize::new(old), TreeSize::new(size));
    let proof = if old <= new {
        consistency::prove(&tree(size, fork), old, new).unwrap()
    } else {
        Vec::new()
    };
    AddCheckpoint {
        old,
        proof,
        checkpoint: signed(size, fork),
    }
}

fn status(last: Option<Remembered>, request: &AddCheckpoint) -> u16 {
    match decide(last.as_ref(), request, NOW_S) {
        Ok(_) => 200,
        Err(refused) => refused.status(),
    }
}

#[test]
fn a_first_checkpoint_and_one_that_extends_it_are_cosigned() {
    let first = decide(None, &request(0, 5, 0), NOW_S).unwrap();
    assert_eq!((first.timestamp_s, first.is_new), (NOW_S, true));
    let next = decide(Some(&head(5, 0)), &request(5, 9, 0), NOW_S).unwrap();
    assert!(next.is_new);
    // The empty tree, too, is something to cosign, and remembered as such.
    assert!(decide(None, &request(0, 0, 0), NOW_S).unwrap().is_new);
    assert_eq!(status(Some(head(0, 0)), &request(0, 9, 0)), 200);
}

#[test]
fn the_same_head_is_cosigned_again_without_anything_new() {
    let again = decide(Some(&head(5, 0)), &request(5, 5, 0), NOW_S).unwrap();
    assert_eq!((again.timestamp_s, again.is_new), (NOW_S, false));
}

#[test]
fn a_clock_that_went_back_does_not_take_the_time_with_it() {
    let mut last = head(5, 0);
    last.timestamp_s = NOW_S + 60;
    let cosign = decide(Some(&last), &request(5, 9, 0), NOW_S).unwrap();
    assert_eq!(cosign.timestamp_s, NOW_S + 60);
}

#[test]
fn bodies_that_are_no_request_are_400() {
    let good = request(5, 9, 0).to_text().unwrap();
    assert!(read(good.as_bytes()).is_ok());
    for body in ["", "old 5\n", &good[1..], &good.replace("old 5", "old 05")] {
        assert_eq!(read(body.as_bytes()).unwrap_err().status(), 400, "{body:?}");
    }
    assert_eq!(read(b"\xff").unwrap_err().status(), 400);
}

#[test]
fn an_old_size_beyond_the_checkpoint_is_400() {
    // Before the comparison with what is remembered, also where that would be right.
    assert_eq!(status(Some(head(9, 0)), &request(9, 5, 0)), 400);
    assert_eq!(status(None, &request(9, 5, 0)), 400);
}

#[test]
fn another_log_is_404() {
    let mut other = log();
    other.origin = "example.com/other".to_owned();
    let error = signed_by(&other, &signed(5, 0)).unwrap_err();
    assert_eq!(error.status(), 404);
}

#[test]
fn a_checkpoint_no_trusted_key_signed_is_403() {
    let mut stranger = log();
    stranger.keys.remove(0);
    assert_eq!(
        signed_by(&stranger, &signed(5, 0)).unwrap_err().status(),
        403
    );
    // Signed by a key of the log's name that nobody trusts.
    let checkpoint = signed(5, 0).checkpoint().clone();
    let other = SignedCheckpoint::sign(checkpoint, &[&key(3)]).unwrap();
    assert_eq!(signed_by(&log(), &other).unwrap_err().status(), 403);
}

#[test]
fn a_trusted_key_whose_signature_does_not_fit_is_403_even_beside_a_good_one() {
    let mut note = signed(5, 0).note().clone();
    let elsewhere = SignedCheckpoint::sign(signed(6, 0).checkpoint().clone(), &[&key(2)]).unwrap();
    note.signatures.extend(elsewhere.note().signatures.clone());
    let spoiled = SignedCheckpoint::from_note(note).unwrap();
    assert_eq!(signed_by(&log(), &spoiled).unwrap_err().status(), 403);
}

#[test]
fn only_the_logs_own_signatures_are_taken_over() {
    let checkpoint = signed(5, 0).checkpoint().clone();
    let mut both = SignedCheckpoint::sign(checkpoint, &[&key(2), &key(1), &key(3)]).unwrap();
    let cosigner = SigningKey::cosigner_from_seed("w.example/w", &[9; 32]).unwrap();
    let text = both.note().text.clone();
    let line = cosignature::sign(&text, &cosigner, NOW_S).unwrap();
    both.add_signature(line).unwrap();
    let own = signed_by(&log(), &both).unwrap();
    let by = |key: &VerifierKey| own.iter().filter(|line| line.is_by(key)).count();
    assert_eq!(
        (
            own.len(),
            by(key(1).verifier_key()),
            by(key(2).verifier_key())
        ),
        (2, 1, 1)
    );
}

#[test]
fn a_request_from_another_size_is_409_with_the_size_remembered() {
    for (last, request, remembered) in [
        (Some(head(5, 0)), request(0, 9, 0), 5),
        (Some(head(5, 0)), request(4, 9, 0), 5),
        (Some(head(5, 0)), request(6, 9, 0), 5),
        (None, request(4, 9, 0), 0),
        // Also where the checkpoint is smaller than what is remembered.
        (Some(head(9, 0)), request(4, 5, 0), 9),
    ] {
        match decide(last.as_ref(), &request, NOW_S) {
            Err(Refused::Conflict { size, .. }) => assert_eq!(size.get(), remembered),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn another_root_at_the_same_size_is_409_without_a_size() {
    let refused = decide(Some(&head(5, 0)), &request(5, 5, 1), NOW_S).unwrap_err();
    assert!(matches!(refused, Refused::OtherRoot { .. }), "{refused:?}");
    assert_eq!(refused.status(), 409);
    assert!(refused.is_fork());
}

#[test]
fn a_proof_that_does_not_lead_there_is_422() {
    let good = request(5, 9, 0);
    let mut cases = vec![("another history", request(5, 9, 1))];
    let mut changed = good.clone();
    changed.proof[0].0[0] ^= 1;
    cases.push(("a changed hash", changed));
    let mut short = good.clone();
    short.proof.pop();
    cases.push(("a hash too few", short));
    let mut long = good.clone();
    long.proof.push(good.proof[0]);
    cases.push(("a hash too many", long));
    let mut none = good;
    none.proof.clear();
    cases.push(("no proof", none));
    for (what, request) in &cases {
        assert_eq!(status(Some(head(5, 0)), request), 422, "{what}");
    }
    let mut needless = request(0, 9, 0);
    needless.proof.push(leaf_hash(b"x"));
    assert_eq!(status(None, &needless), 422, "a proof from nothing");
    let mut needless = request(5, 5, 0);
    needless.proof.push(leaf_hash(b"x"));
    assert_eq!(
        status(Some(head(5, 0)), &needless),
        422,
        "a proof to itself"
    );
}

#[test]
fn refusals_say_what_was_found() {
    let refused = decide(Some(&head(5, 0)), &request(4, 9, 0), NOW_S).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the checkpoint cosigned last has size 5, the request extends 4"
    );
}

proptest! {
    /// Whatever a log with two histories asks, what is cosigned is one history that only grows.
    #[test]
    fn what_is_cosigned_is_one_history(
        asked in proptest::collection::vec((0_u64..12, 0_u64..12, 0_u8..2, any::<bool>()), 1..60)
    ) {
        let mut last: Option<Remembered> = None;
        let mut cosigned: Vec<(u64, u8)> = Vec::new();
        for (old, size, fork, guesses_right) in asked {
            // Half of the requests name the size that is remembered: those go beyond the first checks.
            let old = if guesses_right { last.map_or(0, |last| last.size.get()) } else { old };
            let request = request(old, size, fork);
            if let Ok(cosign) = decide(last.as_ref(), &request, NOW_S) {
                last = Some(Remembered { timestamp_s: cosign.timestamp_s, ..head(size, fork) });
                cosigned.push((size, fork));
            }
        }
        for pair in cosigned.windows(2) {
            let ((a, fork_a), (b, fork_b)) = (pair[0], pair[1]);
            prop_assert!(a <= b, "it went back: {cosigned:?}");
            // Up to leaf 3 both histories are the same.
            prop_assert!(a <= 3 || fork_a == fork_b, "it changed sides: {cosigned:?}");
        }
    }
}
