//! Our judgement of a history against somebody else's: stateright searches through orders of the operations for one that
//! explains what clients saw; the judge, and the small check, go by places and search for nothing. On 100,000 small
//! histories, right ones and spoilt ones, they must say the same.
//!
//! The ledger that came of a history is to stateright a last operation, which read all of it. `SCRIBE_AGREEMENT_SEED`
//! makes other histories.

mod generate;
mod model;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scribe_oracle::history;
use scribe_oracle::{
    Appended, Change, ClientId, Condition, Entry, Judge, Moment, NodeId, Outcome, Read, Request,
    Seen, Step, Version, Violation, Write,
};
use scribe_proof::{Hash, LeafIndex, LeafKind, TreeSize, leaf_hash, sha256};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

use generate::{Event, History, Operation, generate, spoil};
use model::{Asked, Does, Model, Requires, Told};

const HISTORIES: usize = 100_000;

#[test]
fn it_agrees_with_a_search_by_stateright() {
    let seed = std::env::var("SCRIBE_AGREEMENT_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut right, mut wrong, mut plain) = (0, 0, 0);
    let mut by_invariant: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..HISTORIES {
        let mut history = generate(&mut rng);
        let spoilt = rng.random_bool(0.6);
        if spoilt {
            for _ in 0..rng.random_range(1..=2) {
                spoil(&mut history, &mut rng);
            }
        }
        let expected = searched(&history);
        assert!(spoilt || expected, "history {number}: {history:?}");
        let found = judged(&history);
        assert_eq!(
            found.is_ok(),
            expected,
            "history {number}: {found:?} {history:?}"
        );
        match found {
            Ok(()) => right += 1,
            Err(violation) => {
                wrong += 1;
                *by_invariant.entry(violation.invariant.name()).or_default() += 1;
            }
        }
        if let Some((operations, ledger)) = as_plain(&history) {
            let found = history::check(&operations, &ledger);
            assert_eq!(
                found.is_ok(),
                expected,
                "history {number}: {found:?} {history:?}"
            );
            plain += 1;
        }
    }
    println!("{right} right, {wrong} wrong, {plain} also by the small check: {by_invariant:?}");
    // Otherwise little was compared.
    assert!(right > HISTORIES / 4 && wrong > HISTORIES / 4 && plain > HISTORIES / 4);
    for invariant in [
        "acknowledged",
        "bytes",
        "conditions",
        "linearizable",
        "refused",
    ] {
        let found = by_invariant.get(invariant).copied().unwrap_or_default();
        assert!(
            found > HISTORIES / 500,
            "{invariant} was broken {found} times"
        );
    }
}

/// Whether some order explains the history.
fn searched(history: &History) -> bool {
    let mut tester = LinearizabilityTester::new(Model::default());
    // A client whose operation never ended goes on as another one.
    let mut threads: BTreeMap<usize, usize> = BTreeMap::new();
    let mut next = 100;
    for event in &history.events {
        let operation = &history.operations[event.operation()];
        let thread = *threads.entry(operation.client).or_insert(operation.client);
        let never = operation.told == Told::Refused;
        match event {
            Event::Begins(_) if never => {}
            Event::Begins(_) => {
                let asked = operation.asked.clone();
                tester.on_invoke(thread, asked).unwrap();
            }
            Event::Ends(_) if never => {}
            Event::Ends(_) if operation.told == Told::Unknown => {
                threads.insert(operation.client, next);
                next += 1;
            }
            Event::Ends(_) => {
                tester.on_return(thread, operation.told.clone()).unwrap();
            }
        }
    }
    let all = Told::All(history.ledger.clone());
    tester.on_invret(99, Asked::All, all).unwrap();
    tester.is_consistent()
}

/// What the judge says, who is told event by event.
fn judged(history: &History) -> Result<(), Violation> {
    let mut judge = Judge::new();
    let mut ids = BTreeMap::new();
    let mut now = 0;
    for event in &history.events {
        now += 1;
        let number = event.operation();
        let operation = &history.operations[number];
        match event {
            Event::Begins(_) => {
                let client = ClientId(operation.client as u64);
                let id = judge.invoked(Moment(now), client, None, request(&operation.asked));
                ids.insert(number, id);
            }
            Event::Ends(_) => judge.returned(Moment(now), ids[&number], outcome(operation))?,
        }
    }
    let entries = history
        .ledger
        .iter()
        .enumerate()
        .map(|(index, entry)| Entry {
            index: LeafIndex::new(index as u64),
            kind: match entry.1 {
                Some(_) => LeafKind::Put,
                None => LeafKind::Delete,
            },
            key: vec![entry.0],
            value: entry.1.map(value),
            timestamp_ms: None,
            leaf_hash: Some(leaf_hash(&[index as u8])),
        });
    judge.whole_ledger(Moment(now + 1), NodeId(1), entries)?;
    judge.finish().map(|_| ())
}

fn value(number: u32) -> Hash {
    sha256(&number.to_be_bytes())
}

fn request(asked: &Asked) -> Request {
    match asked {
        Asked::Write(steps) => Request::Write(Write::of(steps.iter().map(|step| Step {
            key: vec![step.key],
            change: match step.does {
                Does::Put(number) => Change::Put(value(number)),
                Does::Delete => Change::Delete,
                Does::Check => Change::Check,
            },
            condition: match step.requires {
                Requires::Nothing => Condition::None,
                Requires::Absent => Condition::Absent,
                Requires::Index(index) => Condition::Index(LeafIndex::new(index as u64)),
            },
        }))),
        Asked::Read(keys) => Request::Read(Read::many(keys.iter().map(|key| vec![*key]))),
        Asked::All => unreachable!("only stateright is asked that"),
    }
}

fn outcome(operation: &Operation) -> Outcome {
    match &operation.told {
        Told::Refused => Outcome::Refused,
        Told::Unknown => Outcome::Unknown,
        Told::Acknowledged(first) => {
            let entries = operation.asked.entries() as u64;
            let first = *first as u64;
            Outcome::Acknowledged((first..first + entries).map(Appended::at).collect())
        }
        Told::Failed(step, current) => Outcome::ConditionFailed {
            step: *step,
            current: current.map(|index| LeafIndex::new(index as u64)),
        },
        Told::Saw(size, versions) => Outcome::Answered(scribe_oracle::Answer {
            tree_size: size.map(|size| TreeSize::new(size as u64)),
            saw: versions
                .iter()
                .map(|version| {
                    version.map(|(index, found)| Seen {
                        index: LeafIndex::new(index as u64),
                        version: match found {
                            Some(number) => Version::Value(Some(value(number))),
                            None => Version::Tombstone,
                        },
                    })
                })
                .collect(),
        }),
        Told::All(_) => unreachable!("only stateright is told that"),
    }
}

/// The history for the small check, if it has nothing but what that knows: it is not told how large the ledger is.
fn as_plain(history: &History) -> Option<(Vec<history::Operation>, history::Ledger)> {
    let mut operations = Vec::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let place = |event| {
            let found = history.events.iter().position(|found| *found == event);
            found.map(|at| at as u64)
        };
        let action = match (&operation.asked, &operation.told) {
            (Asked::Read(keys), Told::Saw(size, versions)) => {
                if size.is_some_and(|size| size > history.ledger.len()) {
                    return None;
                }
                let mut saw = Vec::new();
                for (key, version) in keys.iter().zip(versions) {
                    let version = match version {
                        None => None,
                        Some((index, found)) => Some(history::Version {
                            index: *index as u64,
                            value: (*found)?.to_string(),
                        }),
                    };
                    saw.push((key.to_string(), version));
                }
                let tree_size = size.map(|size| size as u64);
                history::Action::Read { tree_size, saw }
            }
            (Asked::Write(steps), told) => {
                let [step] = &steps[..] else { return None };
                let Does::Put(number) = step.does else {
                    return None;
                };
                history::Action::Put {
                    key: step.key.to_string(),
                    value: number.to_string(),
                    condition: match step.requires {
                        Requires::Nothing => history::Condition::None,
                        Requires::Index(index) => history::Condition::Index(index as u64),
                        Requires::Absent => return None,
                    },
                    outcome: match told {
                        Told::Acknowledged(index) => history::Outcome::Acknowledged(*index as u64),
                        Told::Unknown => history::Outcome::Unknown,
                        Told::Failed(_, current) => {
                            history::Outcome::ConditionFailed(current.map(|index| index as u64))
                        }
                        _ => history::Outcome::Refused,
                    },
                }
            }
            _ => return None,
        };
        operations.push(history::Operation {
            start: place(Event::Begins(number))?,
            end: place(Event::Ends(number))?,
            action,
        });
    }
    let mut ledger = history::Ledger::new();
    for (index, (key, value)) in history.ledger.iter().enumerate() {
        ledger.insert(index as u64, (key.to_string(), (*value)?.to_string()));
    }
    Some((operations, ledger))
}
