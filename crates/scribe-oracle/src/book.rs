//! The book of what clients did: operations, the writes they are attempts of, and how to name them to a person.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use scribe_proof::{Hash, LeafIndex, LeafKind};

use crate::event::{
    Answer, Change, ClientId, Condition, Consistency, Moment, NodeId, OperationId, Outcome,
    Request, Version,
};
use crate::floor::Mark;

/// A key by number: each is kept once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(u32);

/// The names of keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    ids: HashMap<Vec<u8>, KeyId>,
    names: Vec<Vec<u8>>,
}

impl Keys {
    pub(crate) fn id(&mut self, key: &[u8]) -> KeyId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = KeyId(self.names.len() as u32);
        self.names.push(key.to_vec());
        self.ids.insert(key.to_vec(), id);
        id
    }

    pub(crate) fn name(&self, id: KeyId) -> &[u8] {
        &self.names[id.0 as usize]
    }

    /// For evidence.
    pub(crate) fn text(&self, id: KeyId) -> String {
        format!("`{}`", self.name(id).escape_ascii())
    }
}

/// What a user's entry is, but for its place: an acknowledged write is recognised by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    pub(crate) key: KeyId,
    /// SHA-256 of the value; `None` for a tombstone.
    pub(crate) value: Option<Hash>,
}

impl Content {
    pub(crate) fn kind(self) -> LeafKind {
        match self.value {
            Some(_) => LeafKind::Put,
            None => LeafKind::Delete,
        }
    }

    pub(crate) fn text(self, keys: &Keys) -> String {
        match self.value {
            Some(value) => format!("put {} = {}", keys.text(self.key), short(&value)),
            None => format!("delete {}", keys.text(self.key)),
        }
    }
}

/// The first 12 digits of a hash: enough to tell values apart.
pub(crate) fn short(hash: &Hash) -> String {
    let mut hex = hash.to_hex();
    hex.truncate(12);
    hex + "…"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: KeyId,
    pub(crate) change: Change,
    pub(crate) condition: Condition,
}

impl Step {
    /// What it appends; a check appends nothing.
    pub(crate) fn content(self) -> Option<Content> {
        let value = match self.change {
            Change::Put(value) => Some(value),
            Change::Delete => None,
            Change::Check => return None,
        };
        Some(Content {
            key: self.key,
            value,
        })
    }
}

/// A write, whatever number of attempts were made at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriteId(pub(crate) usize);

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) steps: Vec<Step>,
    pub(crate) idempotency_key: Option<Arc<str>>,
    /// In the order they began.
    pub(crate) attempts: Vec<OperationId>,
    /// Attempts that may have appended it, or may yet: not returned, or of unknown outcome.
    pub(crate) open: usize,
    pub(crate) acknowledged: Option<Acknowledgement>,
    /// What had returned before its first attempt began.
    pub(crate) floor: Mark,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) first: LeafIndex,
    /// Which attempt said so first, and when.
    pub(crate) operation: OperationId,
    pub(crate) at: Moment,
}

impl Write {
    /// Whether it is in the ledger, or may be.
    pub(crate) fn may_appear(&self) -> bool {
        self.acknowledged.is_some() || self.open > 0
    }

    /// What it appends, in order.
    pub(crate) fn contents(&self) -> impl Iterator<Item = Content> + '_ {
        self.steps.iter().filter_map(|step| step.content())
    }

    /// How many entries it appends.
    pub(crate) fn length(&self) -> usize {
        self.contents().count()
    }
}

#[derive(Debug)]
pub(crate) enum Action {
    Write(WriteId),
    Read {
        keys: Vec<KeyId>,
        consistency: Consistency,
        floor: Mark,
    },
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) client: ClientId,
    pub(crate) node: Option<NodeId>,
    /// How often the node had started when the operation began.
    pub(crate) life: u64,
    /// The tree size the node had shown until then, in that life.
    pub(crate) node_size: u64,
    pub(crate) invoked: Moment,
    pub(crate) action: Action,
    pub(crate) returned: Option<(Moment, Outcome)>,
}

impl Operation {
    /// What the read saw, if it is one that was answered.
    pub(crate) fn answer(&self) -> Option<(&[KeyId], Consistency, &Answer)> {
        match (&self.action, &self.returned) {
            (
                Action::Read {
                    keys, consistency, ..
                },
                Some((_, Outcome::Answered(answer))),
            ) => Some((keys, *consistency, answer)),
            _ => None,
        }
    }
}

/// Everything clients did.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) keys: Keys,
    pub(crate) operations: Vec<Operation>,
    pub(crate) writes: Vec<Write>,
    by_idempotency_key: HashMap<Arc<str>, WriteId>,
}

impl Book {
    pub(crate) fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[id.0]
    }

    pub(crate) fn write(&self, id: WriteId) -> &Write {
        &self.writes[id.0]
    }

    pub(crate) fn operation_ids(&self) -> impl Iterator<Item = OperationId> + use<> {
        (0..self.operations.len()).map(OperationId)
    }

    pub(crate) fn write_ids(&self) -> impl Iterator<Item = WriteId> + use<> {
        (0..self.writes.len()).map(WriteId)
    }

    /// Records what begins, with what had returned by then. The second part says whether the write is a new one.
    pub(crate) fn begin(
        &mut self,
        at: Moment,
        client: ClientId,
        (node, life, node_size): (Option<NodeId>, u64, u64),
        request: Request,
        floor: Mark,
    ) -> (OperationId, Option<WriteId>) {
        let id = OperationId(self.operations.len());
        let mut new = None;
        let action = match request {
            Request::Read(read) => Action::Read {
                keys: read.keys.iter().map(|key| self.keys.id(key)).collect(),
                consistency: read.consistency,
                floor,
            },
            Request::Write(write) => {
                let steps: Vec<Step> = write
                    .steps
                    .iter()
                    .map(|step| Step {
                        key: self.keys.id(&step.key),
                        change: step.change,
                        condition: step.condition,
                    })
                    .collect();
                let idempotency_key = write.idempotency_key.map(Arc::<str>::from);
                let known = idempotency_key.as_ref().and_then(|key| {
                    let known = *self.by_idempotency_key.get(key)?;
                    // Another write under a key that was used is refused by the ledger; here it is a write of its own.
                    (self.write(known).steps == steps).then_some(known)
                });
                let write = known.unwrap_or_else(|| {
                    let write_id = WriteId(self.writes.len());
                    if let Some(key) = &idempotency_key {
                        self.by_idempotency_key
                            .entry(Arc::clone(key))
                            .or_insert(write_id);
                    }
                    self.writes.push(Write {
                        steps,
                        idempotency_key,
                        attempts: Vec::new(),
                        open: 0,
                        acknowledged: None,
                        floor,
                    });
                    new = Some(write_id);
                    write_id
                });
                self.writes[write.0].attempts.push(id);
                self.writes[write.0].open += 1;
                Action::Write(write)
            }
        };
        self.operations.push(Operation {
            client,
            node,
            life,
            node_size,
            invoked: at,
            action,
            returned: None,
        });
        (id, new)
    }

    /// An operation in words: who, what, when, and what it was told.
    pub(crate) fn text(&self, id: OperationId) -> String {
        let operation = self.operation(id);
        let mut text = format!("{id} ({}", operation.client);
        if let Some(node) = operation.node {
            let _ = write!(text, " of {node}");
        }
        text.push_str(": ");
        match &operation.action {
            Action::Write(write) => self.write_text(*write, &mut text),
            Action::Read {
                keys, consistency, ..
            } => {
                text.push_str(match consistency {
                    Consistency::Linearizable => "read",
                    Consistency::Stale { .. } => "stale read",
                    Consistency::At(_) => "read in the past",
                });
                for key in keys {
                    let _ = write!(text, " {}", self.keys.text(*key));
                }
                if let Consistency::At(size) = consistency {
                    let _ = write!(text, " at tree size {size}");
                }
                if let Consistency::Stale {
                    min_index: Some(index),
                } = consistency
                {
                    let _ = write!(text, " not before index {index}");
                }
            }
        }
        match &operation.returned {
            None => {
                let _ = write!(text, "; begun at {}, not returned", operation.invoked);
            }
            Some((at, outcome)) => {
                let _ = write!(text, "; {} to {at}, ", operation.invoked);
                outcome_text(outcome, &mut text);
            }
        }
        text.push(')');
        text
    }

    fn write_text(&self, id: WriteId, text: &mut String) {
        let write = self.write(id);
        for (number, step) in write.steps.iter().enumerate() {
            if number > 0 {
                text.push_str(" + ");
            }
            match step.content() {
                Some(content) => text.push_str(&content.text(&self.keys)),
                None => {
                    let _ = write!(text, "check {}", self.keys.text(step.key));
                }
            }
            match step.condition {
                Condition::None => {}
                Condition::Absent => text.push_str(" if absent"),
                Condition::Index(index) => {
                    let _ = write!(text, " if at index {index}");
                }
            }
        }
        if let Some(key) = &write.idempotency_key {
            let _ = write!(text, ", idempotency key `{key}`");
        }
    }
}

fn outcome_text(outcome: &Outcome, text: &mut String) {
    let _ = match outcome {
        Outcome::Acknowledged(entries) => {
            text.push_str("acknowledged at");
            for entry in entries {
                let _ = write!(text, " {}", entry.index);
            }
            Ok(())
        }
        Outcome::Refused => write!(text, "refused"),
        Outcome::Unknown => write!(text, "outcome unknown"),
        Outcome::ConditionFailed { step, current } => match current {
            Some(index) => write!(
                text,
                "refused: condition of step {step} failed, current index {index}"
            ),
            None => write!(
                text,
                "refused: condition of step {step} failed, no current version"
            ),
        },
        Outcome::Answered(answer) => {
            text.push_str("saw");
            for seen in &answer.saw {
                let _ = match seen {
                    None => write!(text, " nothing"),
                    Some(seen) => match seen.version {
                        Version::Tombstone => write!(text, " a tombstone at {}", seen.index),
                        Version::Value(None) => write!(text, " a version at {}", seen.index),
                        Version::Value(Some(value)) => {
                            write!(text, " {} at {}", short(&value), seen.index)
                        }
                    },
                };
            }
            match answer.tree_size {
                Some(size) => write!(text, " at tree size {size}"),
                None => Ok(()),
            }
        }
    };
}
