//! Leaf indexes are contiguous, timestamps never decrease, and no node goes back.
//!
//! Of the ledger: a whole ledger has every index once, the entries of one transaction follow each other, and no later
//! entry has an earlier time. Of a node: within one life what it applied only grows; over all its lives what it signed,
//! and the checkpoint it shows, only grow. After a start a node may have applied less than before, until it has caught
//! up: that is no violation. In the end: no node had applied more than the ledger has, and no state, checkpoint or read
//! is in the middle of a transaction.

use std::collections::{BTreeMap, HashMap};

use scribe_proof::{LeafIndex, TreeSize};

use crate::book::{Book, WriteId};
use crate::event::{Appended, Consistency, Moment, NodeId, NodeState, OperationId};
use crate::heads::Heads;
use crate::places::{NEVER, of_state};
use crate::violation::Invariant::Order as Promise;

use super::bytes::state_size;
use super::{Check, broken};

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// How often it has started.
    life: u64,
    /// The largest tree size that it told of in this life, in a state or an answer.
    size: u64,
    /// The tree size of its last state in this life.
    state: (u64, Moment),
    signed: (u64, Moment),
    shown: (u64, Moment),
}

#[derive(Debug, Default)]
pub(crate) struct Order {
    nodes: HashMap<NodeId, Node>,
    /// Time by leaf index, and when it was told.
    times: BTreeMap<u64, (u64, Moment)>,
    /// The largest state any node told of.
    largest: (u64, Moment, Option<NodeId>),
}

impl Order {
    /// A node begins a new life: it may have applied less than before.
    pub(crate) fn started(&mut self, node: NodeId) {
        let node = self.nodes.entry(node).or_default();
        node.life += 1;
        node.size = 0;
        node.state = (0, Moment::default());
    }

    /// Which life a node is in, and the tree size it has shown in it.
    pub(crate) fn life(&self, node: NodeId) -> (u64, u64) {
        self.nodes
            .get(&node)
            .map_or((0, 0), |node| (node.life, node.size))
    }

    /// A node said what it applied.
    pub(crate) fn state(&mut self, at: Moment, id: NodeId, state: &NodeState) -> Check {
        let size = state.tree_size.get();
        let node = self.nodes.entry(id).or_default();
        let (before, when) = node.state;
        if size < before {
            let evidence = format!(
                "{id} had tree size {before} at moment {when} and has {size} now, without a start in between"
            );
            return Err(broken(Promise, at, evidence));
        }
        node.state = (size, at);
        self.largest = self.largest.max((size, at, Some(id)));
        node.size = node.size.max(size);
        if let (Some(last), Some(time)) = (state.tree_size.last_index(), state.last_timestamp_ms) {
            self.time(at, last.get(), time)?;
        }
        Ok(())
    }

    /// A node answered a read from a state of this size: it is not smaller than what the node had shown when the read
    /// began, if it has not started since.
    pub(crate) fn answered(&mut self, at: Moment, book: &Book, id: OperationId) -> Check {
        let operation = book.operation(id);
        let Some((_, consistency, answer)) = operation.answer() else {
            return Ok(());
        };
        let (Some(node), Some(size)) = (operation.node, answer.tree_size) else {
            return Ok(());
        };
        if matches!(consistency, Consistency::At(_)) {
            return Ok(());
        }
        let state = self.nodes.entry(node).or_default();
        if state.life != operation.life {
            return Ok(());
        }
        if size.get() < operation.node_size {
            let evidence = format!(
                "{node} had shown tree size {} before this read began, without a start in between: {}",
                operation.node_size,
                book.text(id)
            );
            return Err(broken(Promise, at, evidence));
        }
        state.size = state.size.max(size.get());
        Ok(())
    }

    /// What a node signed last, as it remembers it.
    pub(crate) fn signed(&mut self, at: Moment, node: NodeId, size: TreeSize) -> Check {
        let last = &mut self.nodes.entry(node).or_default().signed;
        forward(at, node, "signed", last, size.get())
    }

    /// The checkpoint a node shows.
    pub(crate) fn shown(&mut self, at: Moment, node: NodeId, size: TreeSize) -> Check {
        let last = &mut self.nodes.entry(node).or_default().shown;
        forward(at, node, "showed", last, size.get())
    }

    /// No node had applied more than there is in the end.
    pub(crate) fn finish(&self, at: Moment, ledger_size: u64) -> Check {
        match self.largest {
            (size, when, Some(node)) if size > ledger_size => {
                let evidence = format!(
                    "{node} had tree size {size} at moment {when}, no ledger has more than {ledger_size} entries"
                );
                Err(broken(Promise, at, evidence))
            }
            _ => Ok(()),
        }
    }

    /// The time of an entry.
    pub(crate) fn time(&mut self, at: Moment, index: u64, time: u64) -> Check {
        if let Some((known, when)) = self.times.get(&index) {
            if *known != time {
                let evidence = format!(
                    "the entry at index {index} had time {known} ms at moment {when}, and has {time} ms now"
                );
                return Err(broken(Promise, at, evidence));
            }
            return Ok(());
        }
        let before = self.times.range(..index).next_back();
        let after = self.times.range(index..).next();
        let decrease = match (before, after) {
            (Some((other, (earlier, _))), _) if *earlier > time => {
                Some((*other, *earlier, index, time))
            }
            (_, Some((other, (later, _)))) if *later < time => Some((index, time, *other, *later)),
            _ => None,
        };
        if let Some((first, earlier, second, later)) = decrease {
            let evidence = format!(
                "time decreases: index {first} has {earlier} ms, index {second} has {later} ms"
            );
            return Err(broken(Promise, at, evidence));
        }
        self.times.insert(index, (time, at));
        Ok(())
    }
}

fn forward(at: Moment, node: NodeId, what: &str, last: &mut (u64, Moment), size: u64) -> Check {
    if size < last.0 {
        let evidence = format!(
            "{node} {what} a checkpoint of tree size {} at moment {}, and one of {size} now",
            last.0, last.1
        );
        return Err(broken(Promise, at, evidence));
    }
    *last = (size, at);
    Ok(())
}

/// The entries of one write follow each other.
pub(crate) fn contiguous(
    at: Moment,
    book: &Book,
    operation: OperationId,
    entries: &[Appended],
) -> Check {
    for pair in entries.windows(2) {
        if pair[1].index != pair[0].index.next() {
            let evidence = format!(
                "the entries of one transaction do not follow each other: {}",
                book.text(operation)
            );
            return Err(broken(Promise, at, evidence));
        }
    }
    Ok(())
}

/// The next entry of a whole ledger is the one that is due.
pub(crate) fn next_of_ledger(at: Moment, node: NodeId, expected: u64, found: LeafIndex) -> Check {
    if found.get() == expected {
        return Ok(());
    }
    let evidence = format!(
        "the ledger of {node} has the entry at index {found} where index {expected} is due"
    );
    Err(broken(Promise, at, evidence))
}

/// The transactions of the ledger: what no state may split.
#[derive(Debug, Default)]
pub(crate) struct Transactions(BTreeMap<u64, (u64, WriteId)>);

impl Transactions {
    /// From the places of the writes that are in the ledger.
    pub(crate) fn of(book: &Book, places: impl Iterator<Item = (WriteId, u64)>) -> Transactions {
        let longer = places.filter_map(|(id, first)| {
            let length = book.write(id).length() as u64;
            (length > 1).then_some((first, (first + length, id)))
        });
        Transactions(longer.collect())
    }

    /// The largest size up to `size` that splits none of them.
    pub(crate) fn whole(&self, size: u64) -> u64 {
        match self.0.range(..size).next_back() {
            Some((first, (end, _))) if *end > size => *first,
            _ => size,
        }
    }

    /// The places from `first` to `last`, both of states, without states that split one of them at either end.
    pub(crate) fn within(&self, (first, last): (u64, u64)) -> (u64, u64) {
        let up = |size: u64| match self.0.range(..size).next_back() {
            Some((_, (end, _))) if *end > size => *end,
            _ => size,
        };
        let last = match last {
            NEVER => NEVER,
            last => of_state(self.whole(last / 2)),
        };
        (of_state(up(first / 2)), last)
    }

    /// No state, checkpoint or read is in the middle of one.
    pub(crate) fn finish(&self, at: Moment, book: &Book, heads: &Heads) -> Check {
        for (first, (end, id)) in &self.0 {
            if let Some((size, shown)) = heads.between(*first, *end) {
                let evidence = format!(
                    "{}, in the middle of a transaction: {}",
                    shown.text(size),
                    book.text(book.write(*id).attempts[0])
                );
                return Err(broken(Promise, at, evidence));
            }
        }
        for id in book.operation_ids() {
            let Some((_, consistency, answer)) = book.operation(id).answer() else {
                continue;
            };
            let in_the_past = matches!(consistency, Consistency::At(_));
            let Some(size) = state_size(consistency, answer).filter(|_| !in_the_past) else {
                continue;
            };
            if self.whole(size) != size {
                let evidence = format!(
                    "a read saw a state in the middle of a transaction: {}",
                    book.text(id)
                );
                return Err(broken(Promise, at, evidence));
            }
        }
        Ok(())
    }
}
