//! The entries of the ledger as far as anybody has told of them: each index once, and what is told must agree.

use std::collections::{BTreeSet, HashMap};

use scribe_proof::{Hash, LeafKind};

use crate::book::{Book, Content, KeyId, short};
use crate::event::{Moment, NodeId, OperationId, WatchId};

/// Who told of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Acknowledged(OperationId),
    Read(OperationId),
    Seen(NodeId),
    Watch(WatchId),
    Ledger(NodeId),
}

impl Source {
    pub(crate) fn text(self, book: &Book) -> String {
        match self {
            Source::Acknowledged(operation) => {
                format!("the acknowledgement of {}", book.text(operation))
            }
            Source::Read(operation) => book.text(operation),
            Source::Seen(node) => format!("an entry seen on {node}"),
            Source::Watch(watch) => format!("an event of {watch}"),
            Source::Ledger(node) => format!("the whole ledger of {node}"),
        }
    }
}

/// What is known of the entry at one index. What nobody has told yet is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) kind: LeafKind,
    pub(crate) key: KeyId,
    pub(crate) value: Option<Hash>,
    pub(crate) leaf_hash: Option<Hash>,
    pub(crate) source: Source,
    pub(crate) at: Moment,
}

impl Known {
    /// The content of a user's entry, once it is known.
    pub(crate) fn content(&self) -> Option<Content> {
        match (self.kind, self.value) {
            (LeafKind::Put, Some(_)) | (LeafKind::Delete, None) => Some(Content {
                key: self.key,
                value: self.value,
            }),
            _ => None,
        }
    }

    pub(crate) fn text(&self, book: &Book) -> String {
        let kind = match self.kind {
            LeafKind::Put => "put",
            LeafKind::Delete => "delete",
            LeafKind::System => "system entry",
        };
        let mut text = format!("{kind} {}", book.keys.text(self.key));
        if let Some(value) = &self.value {
            text = format!("{text} = {}", short(value));
        }
        if let Some(leaf) = &self.leaf_hash {
            text = format!("{text}, leaf hash {}", short(leaf));
        }
        format!(
            "{text}, by {} at moment {}",
            self.source.text(book),
            self.at
        )
    }
}

/// What was new in what was told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Learned {
    /// The content of a user's entry became known.
    pub(crate) content: bool,
    /// The leaf hash became known.
    pub(crate) leaf_hash: bool,
}

/// Two tell different things of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contradiction {
    /// What was known before.
    pub(crate) known: Known,
    /// What differs.
    pub(crate) what: &'static str,
}

#[derive(Debug, Default)]
pub(crate) struct Entries {
    known: HashMap<u64, Known>,
    versions: HashMap<KeyId, BTreeSet<u64>>,
    /// One more than the highest index known.
    size: u64,
}

impl Entries {
    pub(crate) fn get(&self, index: u64) -> Option<&Known> {
        self.known.get(&index)
    }

    /// One more than the highest index anybody has told of.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The first known version of a key above `after` and below `before`.
    pub(crate) fn version_between(
        &self,
        key: KeyId,
        after: Option<u64>,
        before: u64,
    ) -> Option<u64> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        if from >= before {
            return None;
        }
        self.versions.get(&key)?.range(from..before).next().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Known)> {
        self.known.iter().map(|(index, known)| (*index, known))
    }

    /// Takes in what is told of the entry at `index`.
    pub(crate) fn learn(&mut self, index: u64, told: Known) -> Result<Learned, Contradiction> {
        let Some(known) = self.known.get_mut(&index) else {
            self.known.insert(index, told);
            self.size = self.size.max(index.saturating_add(1));
            if told.kind != LeafKind::System {
                self.versions.entry(told.key).or_default().insert(index);
            }
            return Ok(Learned {
                content: told.content().is_some(),
                leaf_hash: told.leaf_hash.is_some(),
            });
        };
        let differs = |what| Contradiction {
            known: *known,
            what,
        };
        if known.kind != told.kind {
            return Err(differs("the kind"));
        }
        if known.key != told.key {
            return Err(differs("the key"));
        }
        let mut learned = Learned::default();
        match (known.value, told.value) {
            (Some(before), Some(now)) if before != now => return Err(differs("the value")),
            (None, Some(_)) if known.kind == LeafKind::Put => learned.content = true,
            _ => {}
        }
        match (known.leaf_hash, told.leaf_hash) {
            (Some(before), Some(now)) if before != now => return Err(differs("the leaf hash")),
            (None, Some(_)) => learned.leaf_hash = true,
            _ => {}
        }
        known.value = known.value.or(told.value);
        known.leaf_hash = known.leaf_hash.or(told.leaf_hash);
        Ok(learned)
    }
}
