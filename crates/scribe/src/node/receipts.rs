//! Receipts: what a user keeps of an entry.

use scribe_proof::receipt::{Opening, Receipt};
use scribe_proof::tree::ProveError;
use scribe_proof::{Hash, LeafIndex, TreeSize, inclusion, leaf_hash};

use super::{Entry, Node, Published, ReadError, proof_error};
use crate::store::ProofTree;

impl Node {
    /// The receipt of an entry under a checkpoint that covers it. May read tiles from disk: not for a task that serves
    /// others.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] if the checkpoint does not cover the entry; [`ReadError::Damaged`] if what is stored does
    /// not hash to the checkpoint's root.
    pub fn receipt(&self, entry: &Entry, published: &Published) -> Result<Receipt, ReadError> {
        let proof = self.prove(entry, published, false).map_err(proof_error)?;
        receipt_of(entry, published, proof)
    }

    /// As [`Node::receipt`], from memory alone; `None` if a tile must be read first.
    ///
    /// # Errors
    /// As [`Node::receipt`].
    pub fn receipt_in_memory(
        &self,
        entry: &Entry,
        published: &Published,
    ) -> Result<Option<Receipt>, ReadError> {
        match self.prove(entry, published, true) {
            Ok(proof) => receipt_of(entry, published, proof).map(Some),
            Err(ProveError::Read(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(error) => Err(proof_error(error)),
        }
    }

    /// The index of a key's version among the first `at` leaves, without its value being read: the newest, or the one at
    /// `index` if that is a version of the key.
    ///
    /// # Errors
    /// What the index cannot read.
    pub fn find_version(
        &self,
        key: &[u8],
        index: Option<LeafIndex>,
        at: TreeSize,
    ) -> Result<Option<LeafIndex>, ReadError> {
        let version = match index {
            None => self.inner.store.latest(key, at)?,
            Some(index) => self.inner.store.is_version(key, index)?,
        };
        Ok(version.map(|version| version.index))
    }

    fn prove(
        &self,
        entry: &Entry,
        published: &Published,
        memory_only: bool,
    ) -> Result<Vec<Hash>, ProveError<std::io::Error>> {
        let store = &self.inner.store;
        let tree = ProofTree::new(store, published.size, &published.root, memory_only);
        inclusion::prove(&tree, entry.index, published.size)
    }
}

fn receipt_of(
    entry: &Entry,
    published: &Published,
    proof: Vec<Hash>,
) -> Result<Receipt, ReadError> {
    // A receipt is kept for ever: one that does not hold, because a bit flipped in memory, must not leave.
    let leaf_hash = leaf_hash(&entry.leaf);
    inclusion::verify(
        &leaf_hash,
        entry.index,
        published.size,
        &proof,
        &published.root,
    )
    .map_err(|error| {
        ReadError::Damaged(format!(
            "the receipt of entry {} is wrong: {error}",
            entry.index
        ))
    })?;
    let opening = entry.private.as_ref().map(|private| Opening {
        salt: private.salt,
        metadata: private.metadata.to_vec(),
    });
    Ok(Receipt {
        leaf: entry.leaf.to_vec(),
        opening,
        index: entry.index,
        proof,
        checkpoint_note: published.note.clone(),
    })
}
