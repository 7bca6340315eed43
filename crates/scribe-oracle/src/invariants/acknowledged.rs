//! An acknowledged entry is in every later state and checkpoint, unchanged, at its leaf index.
//!
//! At once: an index belongs to one write; whatever anybody tells of the entry there (a read, a list, a watch, another
//! node's ledger) is what was acknowledged: key, kind, value, leaf hash. In the end: the whole ledger of every node that
//! is asked goes beyond the last acknowledged index, and has these entries. With them the tree is built that every
//! checkpoint is compared with ([`checkpoints`](super::checkpoints)), so they are in every checkpoint that covers them.

use std::collections::BTreeMap;

use crate::book::{Book, WriteId};
use crate::event::{Appended, Moment, NodeId, OperationId};
use crate::violation::Invariant::Acknowledged as Promise;

use super::{Check, broken};

#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    owners: BTreeMap<u64, WriteId>,
}

impl Acknowledged {
    /// The write that was acknowledged at this index.
    pub(crate) fn owner(&self, index: u64) -> Option<WriteId> {
        self.owners.get(&index).copied()
    }

    /// An attempt was acknowledged: it names as many entries as it has, and none of another write.
    pub(crate) fn acknowledge(
        &mut self,
        at: Moment,
        book: &Book,
        operation: OperationId,
        write: WriteId,
        entries: &[Appended],
    ) -> Check {
        let length = book.write(write).length();
        if entries.len() != length {
            let evidence = format!(
                "{} appends {length} entries, the acknowledgement names {}",
                book.text(operation),
                entries.len()
            );
            return Err(broken(Promise, at, evidence));
        }
        for entry in entries {
            let owner = *self.owners.entry(entry.index.get()).or_insert(write);
            if owner != write {
                let evidence = format!(
                    "index {} was given to two writes: {}; {}",
                    entry.index,
                    book.text(book.write(owner).attempts[0]),
                    book.text(operation)
                );
                return Err(broken(Promise, at, evidence));
            }
        }
        Ok(())
    }

    /// The whole ledger of a node goes beyond everything that was acknowledged.
    pub(crate) fn covers(&self, at: Moment, book: &Book, node: NodeId, size: u64) -> Check {
        let Some((index, write)) = self.owners.range(size..).next() else {
            return Ok(());
        };
        let lost = self.owners.range(size..).count();
        let evidence = format!(
            "the ledger of {node} ends at tree size {size}; {lost} acknowledged entries are not in it, the first at index \
             {index}: {}",
            acknowledged_by(book, *write)
        );
        Err(broken(Promise, at, evidence))
    }
}

/// The attempt that was acknowledged, in words.
pub(crate) fn acknowledged_by(book: &Book, write: WriteId) -> String {
    let write = book.write(write);
    let operation = match write.acknowledged {
        Some(acknowledged) => acknowledged.operation,
        None => write.attempts[0],
    };
    book.text(operation)
}
