//! Every tree head anybody has shown, by size, and the tree over the entries to compare them with.

use std::collections::BTreeMap;

use scribe_proof::{Hash, MemoryTree, TreeSize, root_at};

use crate::entries::Entries;
use crate::event::{Moment, NodeId};

/// Who showed a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Node(NodeId),
    Other(String),
}

impl Holder {
    pub(crate) fn text(&self) -> String {
        match self {
            Holder::Node(node) => node.to_string(),
            Holder::Other(name) => name.clone(),
        }
    }
}

/// A root somebody showed.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) root: Hash,
    pub(crate) holder: Holder,
    pub(crate) at: Moment,
    /// A checkpoint or a head that was signed, not a mere state.
    pub(crate) signed: bool,
}

impl Shown {
    pub(crate) fn text(&self, size: u64) -> String {
        let what = if self.signed { "checkpoint" } else { "state" };
        format!(
            "the {what} of {} at moment {} has root {} at tree size {size}",
            self.holder.text(),
            self.at,
            self.root
        )
    }
}

/// The first that was shown of each size: all others had the same root.
#[derive(Clone, Debug, Default)]
struct OfSize {
    signed: Option<Shown>,
    state: Option<Shown>,
}

impl OfSize {
    fn both(&self) -> impl Iterator<Item = &Shown> {
        self.signed.iter().chain(&self.state)
    }
}

/// A head that contradicts another one, or the tree.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    pub(crate) size: u64,
    pub(crate) shown: Shown,
    /// What it contradicts: an earlier head, or the root of the tree over the entries.
    pub(crate) against: Against,
}

#[derive(Clone, Debug)]
pub(crate) enum Against {
    Head(Shown),
    Tree(Hash),
}

#[derive(Debug, Default)]
pub(crate) struct Heads {
    by_size: BTreeMap<u64, OfSize>,
    /// Over the entries from index 0 on whose leaf hashes are known.
    tree: MemoryTree,
    /// Heads compared with the tree.
    pub(crate) compared: u64,
}

impl Heads {
    /// Takes in a head.
    pub(crate) fn show(&mut self, size: u64, shown: Shown) -> Result<(), Box<Fork>> {
        let of_size = self.by_size.entry(size).or_default();
        // One of the same sort first: two checkpoints are worse than a checkpoint and a state.
        let (same, other) = if shown.signed {
            (&of_size.signed, &of_size.state)
        } else {
            (&of_size.state, &of_size.signed)
        };
        let differs = |before: &&Shown| before.root != shown.root;
        if let Some(before) = same.iter().chain(other).find(differs) {
            return Err(Box::new(Fork {
                size,
                against: Against::Head(before.clone()),
                shown,
            }));
        }
        let new = same.is_none();
        if new && size <= self.tree.size().get() {
            compare(&self.tree, size, &shown)?;
            self.compared += 1;
        }
        if new {
            let place = match shown.signed {
                true => &mut of_size.signed,
                false => &mut of_size.state,
            };
            *place = Some(shown);
        }
        Ok(())
    }

    /// Lets the tree grow over the entries that are known, and compares with every head it passes.
    pub(crate) fn grow(&mut self, entries: &Entries) -> Result<(), Box<Fork>> {
        while let Some(leaf) = entries
            .get(self.tree.size().get())
            .and_then(|known| known.leaf_hash)
        {
            self.tree.append(leaf);
            let size = self.tree.size().get();
            if let Some(of_size) = self.by_size.get(&size) {
                for shown in of_size.both() {
                    compare(&self.tree, size, shown)?;
                    self.compared += 1;
                }
            }
        }
        Ok(())
    }

    /// How many leaves the tree over the entries has.
    pub(crate) fn tree_size(&self) -> u64 {
        self.tree.size().get()
    }

    /// The heads larger than the tree: what they cover, nobody has.
    pub(crate) fn beyond(&self) -> Option<(u64, &Shown)> {
        let (size, of_size) = self.by_size.range(self.tree_size() + 1..).next()?;
        Some((*size, of_size.both().next()?))
    }

    /// A head of a size within `(after, before)`.
    pub(crate) fn between(&self, after: u64, before: u64) -> Option<(u64, &Shown)> {
        if after + 1 >= before {
            return None;
        }
        let (size, of_size) = self.by_size.range(after + 1..before).next()?;
        Some((*size, of_size.both().next()?))
    }
}

fn compare(tree: &MemoryTree, size: u64, shown: &Shown) -> Result<(), Box<Fork>> {
    // The size is at most that of the tree, so the tree has what is read.
    match root_at(tree, TreeSize::new(size)) {
        Ok(root) if root != shown.root => Err(Box::new(Fork {
            size,
            shown: shown.clone(),
            against: Against::Tree(root),
        })),
        _ => Ok(()),
    }
}
