//! Whether what clients saw of a ledger is linearizable: a recorded history against the ledger that came of it.
//!
//! No search is needed. The ledger is the order of the writes, so every operation has a place in it, or an interval of
//! places: a write its index, a read the tree size it saw, or the versions it saw. What is left to check is that places
//! follow real time (`places.rs`). A write whose outcome is unknown is in the ledger or not; if it is, it
//! may have taken effect at any time after it was sent.
//!
//! This is the small form, for a history of puts and reads that is complete when it is checked. A [`Judge`](crate::Judge)
//! holds more against the ledger, and while the run goes on; both rest on the same places and the same sweep.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::places::{NEVER, Span, Versions, of_entry, of_state, sweep};

/// Violations described before the rest is only counted.
const DESCRIBED_MAX: usize = 10;

/// What a client did, and between which moments. All operations share one clock of any unit.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Before anything of it was sent.
    pub start: u64,
    /// After all of the answer had come.
    pub end: u64,
    /// What was asked, and answered.
    pub action: Action,
}

/// What a client asked for, and what it was told.
#[derive(Clone, Debug)]
pub enum Action {
    /// A put. No two puts of a history have the same value.
    Put {
        /// The key.
        key: String,
        /// The value, unique in the history.
        value: String,
        /// What it asked of the key.
        condition: Condition,
        /// What became of it.
        outcome: Outcome,
    },
    /// A linearizable read of one or more keys in one state.
    Read {
        /// The tree size the read saw, if the answer said so.
        tree_size: Option<u64>,
        /// Each key with its newest version, if it had one.
        saw: Vec<(String, Option<Version>)>,
    },
}

/// What a put asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// The key's newest version has this index.
    Index(u64),
}

/// What became of a put, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Appended at this index.
    Acknowledged(u64),
    /// Perhaps appended, now or later.
    Unknown,
    /// Not appended, and never will be.
    Refused,
    /// Not appended, because this was the key's newest version.
    ConditionFailed(Option<u64>),
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its place in the ledger.
    pub index: u64,
    /// Its value.
    pub value: String,
}

/// Key and value of the ledger's entries by index; those of the ledger about itself are left out. So it does not say how
/// large the ledger is: a read of a state beyond its end is not found here.
pub type Ledger = BTreeMap<u64, (String, String)>;

/// What a history that holds consisted of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Reads.
    pub reads: usize,
    /// Puts that were refused.
    pub refused: usize,
    /// Puts that were refused because their condition did not hold.
    pub conditions_failed: usize,
    /// Puts of unknown outcome that are in the ledger.
    pub unknown_appended: usize,
    /// Puts of unknown outcome that are not.
    pub unknown_not_appended: usize,
}

#[derive(Default)]
struct Violations {
    text: String,
    count: usize,
}

impl Violations {
    fn add(&mut self, text: impl AsRef<str>) {
        self.count += 1;
        if self.count <= DESCRIBED_MAX {
            let _ = writeln!(self.text, "- {}", text.as_ref());
        }
    }
}

/// Checks a history against the ledger as it is in the end.
///
/// # Errors
/// The violations, in words.
///
/// # Panics
/// If two puts have the same value: then nobody can tell which of them an entry is.
pub fn check(history: &[Operation], ledger: &Ledger) -> Result<Checked, String> {
    let mut violations = Violations::default();
    let appended = match_writes(history, ledger, &mut violations);
    let versions = Versions::of(
        ledger
            .iter()
            .map(|(index, (key, _))| (*index, key.as_str())),
    );
    let mut checked = Checked::default();
    // Operations that have a place, and where it may be.
    let mut placed: Vec<(usize, Span)> = Vec::with_capacity(history.len());
    for (number, (operation, at)) in history.iter().zip(&appended).enumerate() {
        let span = |first, last| Span {
            start: operation.start,
            end: operation.end,
            first,
            last,
        };
        let seen = match &operation.action {
            Action::Put {
                key,
                condition,
                outcome,
                ..
            } => {
                if let (Some(index), Condition::Index(expected)) = (at, condition) {
                    let found = versions.newest_before(&key.as_str(), *index);
                    if found != Some(*expected) {
                        violations.add(format!(
                            "a put of `{key}` after version {expected} was appended at {index}, after {found:?}"
                        ));
                    }
                }
                match (outcome, at) {
                    (Outcome::Acknowledged(_), _) => checked.acknowledged += 1,
                    (Outcome::Unknown, Some(_)) => checked.unknown_appended += 1,
                    (Outcome::Unknown, None) => checked.unknown_not_appended += 1,
                    (Outcome::Refused, _) => checked.refused += 1,
                    (Outcome::ConditionFailed(_), _) => checked.conditions_failed += 1,
                }
                match outcome {
                    Outcome::Acknowledged(_) | Outcome::Unknown => {
                        if let Some(index) = at {
                            let mut span = span(of_entry(*index), of_entry(*index));
                            // It may have taken effect long after its client gave up.
                            if *outcome == Outcome::Unknown {
                                span.end = NEVER;
                            }
                            placed.push((number, span));
                        }
                        continue;
                    }
                    Outcome::Refused => continue,
                    Outcome::ConditionFailed(current) => {
                        let held = match condition {
                            Condition::None => true,
                            Condition::Index(index) => *current == Some(*index),
                        };
                        if held {
                            violations.add(format!(
                                "a put of `{key}` was refused although its condition held: {condition:?}"
                            ));
                        }
                        vec![(key.as_str(), *current)]
                    }
                }
            }
            Action::Read { tree_size, saw } => {
                checked.reads += 1;
                for (key, version) in saw {
                    let Some(version) = version else { continue };
                    let found = ledger.get(&version.index);
                    if found.is_none_or(|(_, value)| *value != version.value) {
                        violations.add(format!(
                            "a read of `{key}` saw {version:?}, in the ledger is {found:?}"
                        ));
                    }
                }
                let seen: Vec<_> = saw
                    .iter()
                    .map(|(key, version)| {
                        (key.as_str(), version.as_ref().map(|version| version.index))
                    })
                    .collect();
                if let Some(size) = *tree_size {
                    for (key, version) in &seen {
                        let found = versions.newest_before(key, size);
                        if found != *version {
                            violations.add(format!(
                                "a read of `{key}` at tree size {size} saw version {version:?}, newest there is {found:?}"
                            ));
                        }
                    }
                    placed.push((number, span(of_state(size), of_state(size))));
                    continue;
                }
                seen
            }
        };
        // Versions without a tree size: any state in which all of them are the newest.
        let mut interval = (0, NEVER);
        for (key, version) in seen {
            let Some((first, last)) = versions.places(&key, version) else {
                violations.add(format!(
                    "`{key}` never had the version {} that was seen",
                    version.unwrap_or_default()
                ));
                continue;
            };
            interval = (interval.0.max(first), interval.1.min(last));
        }
        placed.push((number, span(interval.0, interval.1)));
    }
    let (numbers, spans): (Vec<usize>, Vec<Span>) = placed.into_iter().unzip();
    for misplaced in sweep(&spans) {
        let before = misplaced.after.map(|span| &history[numbers[span]]);
        violations.add(format!(
            "{:?} came after {before:?}, but is before it in the ledger",
            history[numbers[misplaced.span]]
        ));
    }
    match violations.count {
        0 => Ok(checked),
        count => Err(format!("{count} violations:\n{}", violations.text)),
    }
}

/// The index each write of the history has in the ledger, if it is there.
fn match_writes(
    history: &[Operation],
    ledger: &Ledger,
    violations: &mut Violations,
) -> Vec<Option<u64>> {
    let mut writes = HashMap::new();
    for (number, operation) in history.iter().enumerate() {
        if let Action::Put { value, .. } = &operation.action {
            let twice = writes.insert(value.as_str(), number);
            assert!(twice.is_none(), "the value `{value}` is not unique");
        }
    }
    let mut appended = vec![None; history.len()];
    for (index, (key, value)) in ledger {
        let Some(number) = writes.get(value.as_str()).copied() else {
            violations.add(format!("nobody wrote entry {index}: `{key}` `{value}`"));
            continue;
        };
        let Action::Put {
            key: written,
            outcome,
            ..
        } = &history[number].action
        else {
            continue;
        };
        if written != key {
            violations.add(format!(
                "entry {index} has key `{key}`, written was `{written}`"
            ));
        }
        if let Some(other) = appended[number].replace(*index) {
            violations.add(format!(
                "one put was appended at {other} and at {index}: `{value}`"
            ));
        }
        if let Outcome::Refused | Outcome::ConditionFailed(_) = outcome {
            violations.add(format!("a refused put is entry {index}: `{key}` `{value}`"));
        }
    }
    for (operation, at) in history.iter().zip(&appended) {
        if let Action::Put {
            key,
            value,
            outcome: Outcome::Acknowledged(index),
            ..
        } = &operation.action
            && *at != Some(*index)
        {
            violations.add(format!(
                "acknowledged at {index}, found at {at:?}: `{key}` `{value}`"
            ));
        }
    }
    appended
}

#[cfg(test)]
mod tests;
