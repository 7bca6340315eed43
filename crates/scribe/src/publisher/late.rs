//! Cosignatures that come after a checkpoint was published: merged in, shown again, and told to the others.
//!
//! A checkpoint is published as soon as a majority agrees, so that one slow or absent node holds nobody up. Its
//! cosignature is worth having all the same: a policy may ask for more than a majority, and what a node cosigned is
//! what notices if its directories are ever replaced by older ones.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt as _;
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::cosignature;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::note::Signature;

use super::agree::{self, Asked};
use super::{Published, Shared};
use crate::consensus::{Leadership, NodeId};

/// Pauses before voters that gave no cosignature are asked again, for as long as the checkpoint is the newest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Adds the cosignatures of the voters in `asked`, and of those in `missing` once they answer, to the checkpoint of this
/// size and root while it is the newest and this node leads.
pub(super) async fn collect(
    shared: Arc<Shared>,
    size: TreeSize,
    root: Hash,
    mut asked: Asked,
    mut missing: Vec<NodeId>,
) {
    let mut pause = PAUSES.0;
    loop {
        while let Some((id, answer)) = asked.next().await {
            match answer {
                Ok(found) if found.root == root => {
                    let added = found
                        .signature
                        .is_some_and(|signature| shared.add(size, root, id, signature));
                    if !added {
                        tracing::debug!(node = id, %size, "a late cosignature was not added");
                    }
                }
                // The agreed head, applied through Raft, is what stops a node whose tree is wrong.
                Ok(found) => {
                    tracing::error!(node = id, %size, root = %found.root, "a voter has another root hash");
                }
                Err(reason) => {
                    tracing::debug!(node = id, %size, reason, "a voter did not cosign yet");
                    missing.push(id);
                }
            }
        }
        if missing.is_empty() {
            return;
        }
        if shared.is_over(size, pause).await {
            return;
        }
        pause = (pause * 2).min(PAUSES.1);
        let voters = shared.consensus.voters();
        missing.retain(|id| voters.contains(id));
        asked = agree::ask(&shared.consensus, missing.drain(..), size);
    }
}

impl Shared {
    /// Waits; `true` as soon as the checkpoint of this size is not the newest any more or this node does not lead.
    async fn is_over(&self, size: TreeSize, pause: Duration) -> bool {
        let mut newest = self.newest.subscribe();
        let mut leadership = self.consensus.leadership();
        let replaced =
            newest.wait_for(|newest| newest.as_ref().is_none_or(|newest| newest.size != size));
        let left = leadership.wait_for(|now| !matches!(now, Leadership::Leading { .. }));
        tokio::select! {
            _ = replaced => true,
            _ = left => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Adds one node's cosignature, if it verifies under the key that node announced, and tells the others.
    fn add(&self, size: TreeSize, root: Hash, id: NodeId, signature: Signature) -> bool {
        let known = match self.node_keys() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "the keys of the nodes cannot be read");
                return false;
            }
        };
        let Some(key) = known.get(&id) else {
            return false;
        };
        let newest = self.newest.borrow().clone();
        let Some(shown) = newest.filter(|shown| shown.size == size && shown.root == root) else {
            return false;
        };
        let Ok(mut signed) = SignedCheckpoint::parse(&shown.note) else {
            return false;
        };
        let good = cosignature::verify(&signed.note().text, key, &signature).is_ok()
            && signed.add_signature(signature).is_ok();
        if good {
            let note = signed.to_text();
            self.tell(&note);
            self.show(Published { size, root, note });
        }
        good
    }
}
