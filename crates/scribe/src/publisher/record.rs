//! The record of what was signed last, as signing and showing need it: nothing contradicts it, and nothing that is shown is
//! larger than it.

use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;

use super::{Shared, SignError};
use crate::keys::LastSigned;
use crate::planted;

/// The head that this process recorded last.
pub(super) type Recorded = Option<(TreeSize, Hash)>;

impl Shared {
    /// Whether the leader may sign a head of this size: `false` if another leader had a larger one signed here since the
    /// size was taken, which covers it. A larger one than all that is applied means that entries are missing.
    pub(super) async fn may_sign(&self, size: TreeSize) -> Result<bool, SignError> {
        match self.check_last_signed(size).await {
            Ok(()) => Ok(true),
            Err(SignError::Behind { signed, .. }) if self.store.applied().tree_size >= signed => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A head once signed is never contradicted: the root at the last signed size is recomputed first.
    pub(super) async fn check_last_signed(&self, size: TreeSize) -> Result<(), SignError> {
        if let Some(reason) = self.failed.borrow().clone() {
            return Err(SignError::Keys(reason));
        }
        let Some(last) = LastSigned::load(&self.key_dir)? else {
            // It was there when this node started, or nothing would have come this far.
            let reason = "the record of what was signed last is gone from the key directory";
            return Err(SignError::Keys(reason.to_owned()));
        };
        if last.size > size {
            return Err(SignError::Behind {
                found: size,
                signed: last.size,
            });
        }
        let found = self.root_at(last.size).await?;
        if found != last.root {
            return Err(SignError::Contradiction {
                size: last.size,
                found,
                signed: last.root,
            });
        }
        Ok(())
    }

    /// Durable before any signature leaves the node, and after the entries it stands for: what is applied may be on the
    /// disks of a majority and not yet on this one, and a start takes a log that ends before the last signed head for
    /// an older copy. A crash right here leaves a head recorded that nobody has seen: the next one extends it. What an
    /// earlier process or a failed attempt left in place may not be on the disk: only what succeeded here is not repeated.
    pub(super) async fn record_signed(
        &self,
        recorded: &mut Recorded,
        size: TreeSize,
        root: Hash,
    ) -> Result<(), SignError> {
        if *recorded == Some((size, root)) {
            return Ok(());
        }
        // planted
        if let Some(applied) = self.store.applied().last_log_id
            && !planted::has("signed-before-durable")
        {
            let log = self.store.log().clone();
            crate::blocking::run(move || log.wait_flushed(applied))
                .await
                .map_err(std::io::Error::other)??;
        }
        LastSigned {
            origin: self.keys.origin.clone(),
            size,
            root,
        }
        .store(&self.key_dir)?;
        *recorded = Some((size, root));
        Ok(())
    }

    /// What a node that did not cosign it shows of others' is recorded like what it signed, before it is shown: after a
    /// start nothing smaller is shown, so that no reader sees this node go back. A crash right here leaves a head
    /// recorded that was not shown yet: the next one that is shown covers it.
    pub(super) async fn record_shown(&self, size: TreeSize, root: Hash) -> Result<(), SignError> {
        // Without a record nothing is signed until an operator has made one from the largest checkpoint known outside:
        // what is merely shown must not take its place.
        if self.keys.withheld().is_some() {
            return Ok(());
        }
        let mut recorded = self.signing.lock().await;
        match self.check_last_signed(size).await {
            Ok(()) => self.record_signed(&mut recorded, size, root).await,
            // Recorded with a larger one, as when the leader that asked for a cosignature of that did not get to sign it. It
            // may not be on the disk, if that failed or another process did it.
            Err(SignError::Behind { .. }) => match LastSigned::load(&self.key_dir)? {
                Some(last) => {
                    self.record_signed(&mut recorded, last.size, last.root)
                        .await
                }
                None => Ok(()),
            },
            // This node signed another root once, when its tree was damaged: it signs nothing more, the record stays as
            // evidence, and it shows what the others sign and its entries give.
            Err(error @ SignError::Contradiction { .. }) => {
                tracing::warn!(%error, "what is shown is not recorded");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
