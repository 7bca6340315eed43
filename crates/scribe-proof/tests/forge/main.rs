//! A prover that lies, against the verifier.
//!
//! Each kind of proof has a *forger*. It takes honest proofs, receipts, notes, policies or tiles and
//! changes, splices and re-encodes them as somebody would who wants a false claim accepted. Two
//! judges look at the result: the crate under test, and a *plain* one, written a second time in the
//! simplest way that works (recursion as the RFC has it, and a table of what the honest keys really
//! signed instead of cryptography). They must agree on every case, on the verdict and on what was
//! claimed. So a change that leaves the claim true, such as another signature line by an unknown
//! key, is recognised as such and counted, never waved through; and a proof that is refused although
//! it is sound is a failure as well.
//!
//! The plain judge also exists with one check left out at a time (`Flaw`). The `control_…` tests
//! demand that the same forger deceives each of these weak verifiers within the default number of
//! cases: that is the proof that a forgery would be found.
//!
//! ```text
//! SCRIBE_FORGE_CASES   how many cases in all kinds together (default 100,000)
//! SCRIBE_FORGE_SEED    a number, or `random` (default 1)
//! SCRIBE_FORGE_CASE    only this case of each kind, to replay one
//! SCRIBE_FORGE_SEED_OF_CONTROL   the seed of the `control_…` tests (default 1)
//! ```
//!
//! `just forge` runs ten million.

mod documents;
mod flaws;
mod notes;
mod plain;
mod policies;
mod proofs;
mod receipts;
mod rng;
mod text;
mod tiles;
mod trees;
mod walks;
mod world;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rng::Rng;

/// Cases of all kinds together, unless the environment says otherwise.
const CASES_DEFAULT: u64 = 100_000;
/// Where the random numbers start, unless the environment says otherwise.
const SEED_DEFAULT: u64 = 1;

/// One kind of forgery.
trait Forger {
    /// Its name, also the test's.
    const KIND: &'static str;
    /// Its part of all cases, in hundredths.
    const SHARE: u64;
    /// What is shown to a verifier.
    type Case: Clone + PartialEq;
    /// What a verifier believes after it accepted.
    type Claim: PartialEq + Debug;
    /// A check a weak verifier leaves out.
    type Flaw: Copy + Debug + 'static;
    /// All of them.
    const FLAWS: &'static [Self::Flaw];

    /// The honest world of this kind.
    fn new() -> Self;
    /// An honest case with some changes, which are named in `changes`; none is named if they left
    /// the case as it was.
    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> Self::Case;
    /// The verifier under test.
    fn verify(&self, case: &Self::Case) -> Option<Self::Claim>;
    /// The plain judge, or a weak verifier. Without flaw it returns only claims that are true.
    fn plain(&self, case: &Self::Case, flaw: Option<Self::Flaw>) -> Option<Self::Claim>;
    /// What kind of truth an accepted case tells.
    fn truth(&self, _case: &Self::Case) -> &'static str {
        "true"
    }
    /// The case as text.
    fn show(&self, case: &Self::Case) -> String;
}

/// What became of one case.
enum Outcome {
    /// Both refuse it.
    Refused,
    /// Both accept it, for the same claim.
    True(&'static str),
}

/// Lets `verifier` and the plain judge look at one case; an error if they differ.
fn judge<F: Forger>(
    forger: &F,
    seed: u64,
    number: u64,
    changes: &mut Vec<&'static str>,
    verifier: impl Fn(&F::Case) -> Option<F::Claim>,
) -> Result<Outcome, String> {
    changes.clear();
    let mut rng = Rng::of_case(seed, F::KIND, number);
    let case = forger.forge(&mut rng, changes);
    let believed = catch_unwind(AssertUnwindSafe(|| verifier(&case)));
    let fact = forger.plain(&case, None);
    let complaint = match (&believed, &fact) {
        (Ok(None), None) => return Ok(Outcome::Refused),
        (Ok(Some(claim)), Some(fact)) if claim == fact => {
            return Ok(Outcome::True(forger.truth(&case)));
        }
        (Ok(Some(_)), _) => "the verifier ACCEPTED what is not true",
        (Ok(None), Some(_)) => "the verifier refused what is true",
        (Err(_), _) => "the verifier panicked",
    };
    let kind = F::KIND;
    Err(format!(
        "{complaint}\n  kind {kind}, seed {seed}, case {number}, changes {changes:?}\n  \
         believed: {:?}\n  fact: {fact:?}\n{}\n  replay: SCRIBE_FORGE_SEED={seed} \
         SCRIBE_FORGE_CASE={number} cargo test -p scribe-proof --test forge -- {kind}",
        believed.ok(),
        forger.show(&case),
    ))
}

/// Shows the verifier under test as many cases as this kind's share.
fn run<F: Forger>() {
    let started = Instant::now();
    let (seed, cases) = (seed(), cases::<F>());
    let forger = F::new();
    let (mut refused, mut untouched) = (0_u64, 0_u64);
    let mut accepted: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut tried: BTreeMap<&str, u64> = BTreeMap::new();
    let mut changes = Vec::new();
    for number in cases.clone() {
        let outcome = judge(&forger, seed, number, &mut changes, |case| {
            forger.verify(case)
        });
        for change in &changes {
            *tried.entry(change).or_default() += 1;
        }
        match outcome {
            Err(complaint) => panic!("{complaint}"),
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::True(_)) if changes.is_empty() => untouched += 1,
            Ok(Outcome::True(truth)) => {
                *accepted.entry((truth, changes.join(", "))).or_default() += 1;
            }
        }
    }
    let total = cases.end - cases.start;
    let changed: u64 = accepted.values().sum();
    println!(
        "{}: seed {seed}, {total} cases in {:.1} s, {} changes of {} sorts; {refused} refused, \
         {untouched} honest and accepted, {changed} changed, accepted and true; 0 forgeries",
        F::KIND,
        started.elapsed().as_secs_f64(),
        tried.values().sum::<u64>(),
        tried.len(),
    );
    let mut accepted: Vec<_> = accepted.into_iter().collect();
    accepted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((truth, changes), count) in accepted.iter().take(30) {
        println!("  {count:>8} {truth}: {changes}");
    }
    if total >= 1000 {
        // A forger whose honest proofs are refused, or whose every change is harmless, tests nothing.
        assert!(untouched > 0, "no honest case was accepted");
        assert!(refused > total / 4, "too few cases were worth refusing");
    }
}

/// Shows the same cases to every weak verifier until each has been deceived.
fn control<F: Forger>() {
    let forger = F::new();
    // Not a random one: a control that depends on luck cries wolf.
    let seed = number("SCRIBE_FORGE_SEED_OF_CONTROL").unwrap_or(SEED_DEFAULT);
    let mut open: Vec<F::Flaw> = F::FLAWS.to_vec();
    let mut changes = Vec::new();
    let cases = CASES_DEFAULT * F::SHARE / 100;
    for number in 0..cases {
        open.retain(|flaw| {
            let weak = |case: &F::Case| forger.plain(case, Some(*flaw));
            match judge(&forger, seed, number, &mut changes, weak) {
                Err(complaint) if complaint.contains("ACCEPTED") => {
                    // What is printed is enough to see it again.
                    assert!(complaint.contains(&format!("SCRIBE_FORGE_SEED={seed}")));
                    let again = judge(&forger, seed, number, &mut changes, weak);
                    assert_eq!(again.err(), Some(complaint), "the case does not replay");
                    println!(
                        "{}: {flaw:?} deceived by case {number}: {changes:?}",
                        F::KIND
                    );
                    false
                }
                // A weak verifier that refuses more than it must is no finding.
                _ => true,
            }
        });
        if open.is_empty() {
            return;
        }
    }
    panic!(
        "{}: {cases} cases did not deceive {open:?}: the forger would miss such a bug",
        F::KIND
    );
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    match text.replace('_', "").parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is {text:?}, it must be a number"),
    }
}

fn seed() -> u64 {
    if variable("SCRIBE_FORGE_SEED").as_deref() == Some("random") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        return now.as_micros() as u64;
    }
    number("SCRIBE_FORGE_SEED").unwrap_or(SEED_DEFAULT)
}

fn cases<F: Forger>() -> std::ops::Range<u64> {
    match number("SCRIBE_FORGE_CASE") {
        Some(only) => only..only + 1,
        None => 0..number("SCRIBE_FORGE_CASES").unwrap_or(CASES_DEFAULT) * F::SHARE / 100,
    }
}

#[test]
fn inclusion() {
    run::<proofs::Inclusion>();
}

#[test]
fn consistency() {
    run::<proofs::Consistency>();
}

#[test]
fn tiles() {
    run::<tiles::Tiles>();
}

#[test]
fn notes() {
    run::<notes::Notes>();
}

#[test]
fn policies() {
    run::<policies::Policies>();
}

#[test]
fn receipts() {
    run::<receipts::Receipts>();
}

#[test]
fn control_inclusion() {
    control::<proofs::Inclusion>();
}

#[test]
fn control_consistency() {
    control::<proofs::Consistency>();
}

#[test]
fn control_tiles() {
    control::<tiles::Tiles>();
}

#[test]
fn control_notes() {
    control::<notes::Notes>();
}

#[test]
fn control_policies() {
    control::<policies::Policies>();
}

#[test]
fn control_receipts() {
    control::<receipts::Receipts>();
}

#[test]
fn shares_are_the_whole() {
    let shares = [
        proofs::Inclusion::SHARE,
        proofs::Consistency::SHARE,
        tiles::Tiles::SHARE,
        notes::Notes::SHARE,
        policies::Policies::SHARE,
        receipts::Receipts::SHARE,
    ];
    assert_eq!(shares.iter().sum::<u64>(), 100);
}

#[test]
fn every_flaw_is_planted_somewhere() {
    let planted = [
        notes::Notes::FLAWS,
        policies::Policies::FLAWS,
        receipts::Receipts::FLAWS,
    ]
    .concat();
    for flaw in flaws::TextFlaw::ALL {
        assert!(planted.contains(flaw), "{flaw:?} is in no control");
    }
}
