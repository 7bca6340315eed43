//! Small histories: right ones, made by clients of a ledger in one place; and ones that were spoilt afterwards.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use stateright::semantics::SequentialSpec as _;

use crate::model::{Asked, Does, Entry, Model, Requires, Step, Told};

const KEYS: [u8; 2] = *b"kl";
const OPERATIONS_MAX: usize = 10;

#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub asked: Asked,
    pub told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Begins(usize),
    Ends(usize),
}

impl Event {
    pub fn operation(self) -> usize {
        match self {
            Event::Begins(operation) | Event::Ends(operation) => operation,
        }
    }
}

#[derive(Clone, Debug)]
pub struct History {
    pub operations: Vec<Operation>,
    /// In the order they were observed.
    pub events: Vec<Event>,
    /// What came of it.
    pub ledger: Vec<Entry>,
}

/// A history that is right: each operation takes effect at one point between its begin and its end; an unknown one at
/// any point after its begin, or never.
pub fn generate(rng: &mut StdRng) -> History {
    let plain = rng.random_bool(0.5);
    let clients = rng.random_range(2..=3);
    let count = rng.random_range(1..=OPERATIONS_MAX);
    let mut model = Model::default();
    let mut history = History {
        operations: Vec::new(),
        events: Vec::new(),
        ledger: Vec::new(),
    };
    // What each client is at, and what it will be told once that took effect.
    let mut active: Vec<Option<(usize, Option<Told>)>> = vec![None; clients];
    // Of unknown outcome, and not in effect yet.
    let mut zombies: Vec<usize> = Vec::new();
    while history.operations.len() < count || active.iter().any(Option::is_some) {
        if !zombies.is_empty() && rng.random_bool(0.1) {
            let at = rng.random_range(0..zombies.len());
            let asked = history.operations[zombies.swap_remove(at)].asked.clone();
            model.invoke(&asked);
        }
        let client = rng.random_range(0..clients);
        match active[client].take() {
            None if history.operations.len() < count => {
                let number = history.operations.len();
                history.operations.push(Operation {
                    client,
                    asked: ask(rng, &model, number as u32, plain),
                    told: Told::Refused,
                });
                history.events.push(Event::Begins(number));
                active[client] = Some((number, None));
            }
            None => {}
            Some((number, None)) => {
                let operation = &mut history.operations[number];
                let write = matches!(operation.asked, Asked::Write(_));
                match rng.random_range(0..20) {
                    0 if write => {
                        operation.told = Told::Unknown;
                        zombies.push(number);
                        history.events.push(Event::Ends(number));
                    }
                    1 if write => history.events.push(Event::Ends(number)),
                    _ => {
                        let told = model.invoke(&operation.asked);
                        active[client] = Some((number, Some(told)));
                    }
                }
            }
            Some((number, Some(mut told))) => {
                if let Told::Saw(size, _) = &mut told
                    && rng.random_bool(0.6)
                {
                    *size = None;
                }
                let write = matches!(history.operations[number].asked, Asked::Write(_));
                if write && rng.random_bool(0.1) {
                    told = Told::Unknown;
                }
                history.operations[number].told = told;
                history.events.push(Event::Ends(number));
            }
        }
    }
    history.ledger = model.0;
    history
}

fn ask(rng: &mut StdRng, model: &Model, value: u32, plain: bool) -> Asked {
    if rng.random_bool(0.45) {
        let both = rng.random_bool(0.4);
        return Asked::Read(match both {
            true => KEYS.to_vec(),
            false => vec![*KEYS.choose(rng).unwrap()],
        });
    }
    let key = *KEYS.choose(rng).unwrap();
    let mut step = |key: u8, number: u32, does: Option<Does>| Step {
        key,
        does: does.unwrap_or(match rng.random_range(0..4) {
            0 if !plain => Does::Delete,
            _ => Does::Put(number),
        }),
        requires: match rng.random_range(0..8) {
            0 if !plain => Requires::Absent,
            1 => Requires::Index(rng.random_range(0..=model.0.len())),
            2 => model.newest(key).map_or(Requires::Nothing, Requires::Index),
            _ => Requires::Nothing,
        },
    };
    let first = step(key, 2 * value, None);
    if plain || !value.is_multiple_of(4) {
        return Asked::Write(vec![first]);
    }
    let other = KEYS[usize::from(key == KEYS[0])];
    let does = value.is_multiple_of(8).then_some(Does::Check);
    let second = step(other, 2 * value + 1, does);
    Asked::Write(vec![first, second])
}

/// Changes something: most likely, but not always, into a history that cannot have been.
pub fn spoil(history: &mut History, rng: &mut StdRng) {
    let size = history.ledger.len();
    let number = rng.random_range(0..history.operations.len());
    match rng.random_range(0..10) {
        // An event comes earlier than it was: never before one of its own client.
        0..=2 => {
            let mut at = rng.random_range(0..history.events.len());
            let client = |history: &History, at: usize| {
                history.operations[history.events[at].operation()].client
            };
            for _ in 0..rng.random_range(1..=6) {
                if at == 0 || client(history, at) == client(history, at - 1) {
                    break;
                }
                history.events.swap(at, at - 1);
                at -= 1;
            }
        }
        // Two entries change places, sometimes with what their writers were told.
        3 | 4 if size >= 2 => {
            let (a, b) = (rng.random_range(0..size), rng.random_range(0..size));
            history.ledger.swap(a, b);
            if rng.random_bool(0.8) {
                for operation in &mut history.operations {
                    match &mut operation.told {
                        Told::Acknowledged(index) if *index == a => *index = b,
                        Told::Acknowledged(index) if *index == b => *index = a,
                        _ => {}
                    }
                }
            }
        }
        // An entry is lost, or there twice.
        5 if size >= 1 => {
            let at = rng.random_range(0..size);
            match rng.random_bool(0.5) {
                true => drop(history.ledger.remove(at)),
                false => history.ledger.push(history.ledger[at]),
            }
        }
        6 => require(&mut history.operations[number], size, rng),
        _ => tell(&mut history.operations[number].told, &history.ledger, rng),
    }
}

fn require(operation: &mut Operation, size: usize, rng: &mut StdRng) {
    if let Asked::Write(steps) = &mut operation.asked {
        let at = rng.random_range(0..steps.len());
        // Only what the operation asked before may ask for more: a plain history stays one.
        steps[at].requires = match rng.random_bool(0.7) {
            true => Requires::Index(rng.random_range(0..=size)),
            false => Requires::Nothing,
        };
    }
}

/// Another answer.
fn tell(told: &mut Told, ledger: &[Entry], rng: &mut StdRng) {
    let near = |index: usize, rng: &mut StdRng| match rng.random_bool(0.5) {
        true => index + 1,
        false => index.saturating_sub(1),
    };
    match told {
        Told::Acknowledged(index) => match rng.random_range(0..3) {
            0 => *index = near(*index, rng),
            1 => *told = Told::Unknown,
            _ => *told = Told::Refused,
        },
        Told::Failed(_, current) => match rng.random_range(0..3) {
            0 => *current = None,
            1 => *current = Some(rng.random_range(0..=ledger.len())),
            _ => *told = Told::Refused,
        },
        Told::Saw(size, versions) => match (size, rng.random_bool(0.4)) {
            (Some(size), true) => *size = near(*size, rng),
            _ => {
                let at = rng.random_range(0..versions.len());
                let key = versions[at].map(|(index, _)| ledger.get(index).map(|entry| entry.0));
                let others: Vec<usize> = (0..ledger.len())
                    .filter(|index| key.is_none_or(|key| key == Some(ledger[*index].0)))
                    .collect();
                versions[at] = match others.choose(rng) {
                    Some(index) if rng.random_bool(0.8) => Some((*index, ledger[*index].1)),
                    _ => None,
                };
            }
        },
        Told::Unknown => *told = Told::Refused,
        Told::Refused | Told::All(_) => *told = Told::Unknown,
    }
}
