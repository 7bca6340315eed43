//! A ledger as one list: what stateright holds a history against.

use stateright::semantics::SequentialSpec;

#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Write(Vec<Step>),
    Read(Vec<u8>),
    /// The whole ledger.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub key: u8,
    pub does: Does,
    pub requires: Requires,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Does {
    Put(u32),
    Delete,
    Check,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Requires {
    Nothing,
    Absent,
    Index(usize),
}

/// Key, and value or tombstone.
pub type Entry = (u8, Option<u32>);

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Acknowledged(usize),
    Failed(usize, Option<usize>),
    /// The tree size, if it was said, and a version for each key.
    Saw(Option<usize>, Vec<Option<(usize, Option<u32>)>>),
    All(Vec<Entry>),
    Refused,
    Unknown,
}

impl Asked {
    /// Entries it appends.
    pub fn entries(&self) -> usize {
        match self {
            Asked::Write(steps) => steps.iter().filter(|step| step.does != Does::Check).count(),
            _ => 0,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model(pub Vec<Entry>);

impl Model {
    pub fn newest(&self, key: u8) -> Option<usize> {
        self.0.iter().rposition(|(found, _)| *found == key)
    }

    fn holds(&self, step: &Step) -> bool {
        let newest = self.newest(step.key);
        match step.requires {
            Requires::Nothing => true,
            Requires::Absent => newest.is_none_or(|index| self.0[index].1.is_none()),
            Requires::Index(index) => newest == Some(index),
        }
    }

    fn see(&self, keys: &[u8]) -> Vec<Option<(usize, Option<u32>)>> {
        let version = |key: &u8| {
            let index = self.newest(*key)?;
            Some((index, self.0[index].1))
        };
        keys.iter().map(version).collect()
    }
}

impl SequentialSpec for Model {
    type Op = Asked;
    type Ret = Told;

    fn invoke(&mut self, asked: &Asked) -> Told {
        match asked {
            Asked::All => Told::All(self.0.clone()),
            Asked::Read(keys) => Told::Saw(Some(self.0.len()), self.see(keys)),
            Asked::Write(steps) => {
                if let Some(failed) = steps.iter().position(|step| !self.holds(step)) {
                    return Told::Failed(failed, self.newest(steps[failed].key));
                }
                let first = self.0.len();
                for step in steps {
                    match step.does {
                        Does::Put(value) => self.0.push((step.key, Some(value))),
                        Does::Delete => self.0.push((step.key, None)),
                        Does::Check => {}
                    }
                }
                Told::Acknowledged(first)
            }
        }
    }

    fn is_valid_step(&mut self, asked: &Asked, told: &Told) -> bool {
        match (asked, told) {
            (Asked::Read(keys), Told::Saw(size, versions)) => {
                size.is_none_or(|size| size == self.0.len()) && self.see(keys) == *versions
            }
            // Any step that failed may be the one that is named.
            (Asked::Write(steps), Told::Failed(step, current)) => {
                let step = &steps[*step];
                !self.holds(step) && self.newest(step.key) == *current
            }
            _ => self.invoke(asked) == *told,
        }
    }
}
