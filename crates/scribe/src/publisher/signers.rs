//! Which of the ledger's keys sign now and which nodes' cosignatures count, and what a signed note that comes from outside
//! says about this node.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use scribe_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use scribe_proof::cosignature;
use scribe_proof::key::{SigningKey, VerifierKey};
use scribe_proof::note::Signature;
use scribe_proof::rotation::LedgerKeys;

use super::agree::Found;
use super::{Shared, SignError};
use crate::consensus::NodeId;
use crate::keys::LastSigned;
use crate::planted;
use crate::roster;

impl Shared {
    /// The keys that the applied entries name. If damage hides those entries, the last ones known count on: a segment
    /// that cannot be read must not keep a ledger from being published.
    pub(super) fn ledger_keys(&self) -> Result<LedgerKeys, SignError> {
        let found = match roster::ledger_keys(&self.store, &self.keys.origin) {
            Ok(Some(found)) => found,
            Ok(None) => LedgerKeys::begin(self.keys.ledger.first().clone()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "a system entry cannot be read");
                let known = self.known_keys.lock().clone();
                return Ok(
                    known.unwrap_or_else(|| LedgerKeys::begin(self.keys.ledger.first().clone()))
                );
            }
            Err(error) => return Err(error.into()),
        };
        *self.known_keys.lock() = Some(found.clone());
        Ok(found)
    }

    /// The keys that sign now; `None` if this node lacks one of them, which it is asking the others for.
    pub(super) fn signers(&self) -> Result<Option<Vec<Arc<SigningKey>>>, SignError> {
        let keys = self.ledger_keys()?;
        let mut signers = Vec::new();
        for key in keys.signing(self.store.applied().last_timestamp_ms) {
            let Some(signer) = self.keys.ledger.find(key) else {
                tracing::warn!(%key, "this node does not hold a key the ledger signs with, so it signs nothing yet");
                return Ok(None);
            };
            signers.push(signer);
        }
        Ok(Some(signers))
    }

    /// The cosigning keys the nodes announced. As with the ledger's, the last ones known count on if damage hides them.
    pub(super) fn node_keys(&self) -> Result<BTreeMap<NodeId, VerifierKey>, SignError> {
        match roster::node_keys(&self.store, &self.keys.origin) {
            Ok(found) => {
                *self.known_node_keys.lock() = found.clone();
                Ok(found)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "a system entry cannot be read");
                Ok(self.known_node_keys.lock().clone())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a majority of the voters can cosign: until they have announced their keys, a checkpoint would carry fewer
    /// cosignatures than the policy of this ledger asks for, for ever.
    pub(super) fn can_be_cosigned(&self, known: &BTreeMap<NodeId, VerifierKey>) -> bool {
        let voters = self.consensus.voters();
        let announced = voters.iter().filter(|id| match self.is_this_node(**id) {
            true => known.get(id) == Some(self.keys.node.verifier_key()),
            false => known.contains_key(id),
        });
        announced.count() > voters.len() / 2
    }

    /// The cosignatures of other voters that verify under the keys they announced, over a checkpoint's text. `None` if
    /// with this node's own they are no majority: nothing may be signed then.
    pub(super) fn cosigned(
        &self,
        text: &str,
        known: &BTreeMap<NodeId, VerifierKey>,
        others: &BTreeMap<NodeId, Found>,
    ) -> Option<Vec<Signature>> {
        let mut good = Vec::with_capacity(others.len());
        for (id, found) in others {
            // One that does not verify must not spoil the note.
            if let (Some(key), Some(signature)) = (known.get(id), &found.signature)
                && cosignature::verify(text, key, signature).is_ok()
            {
                good.push(signature.clone());
            }
        }
        let voters = self.consensus.voters();
        let own = usize::from(voters.iter().any(|id| self.is_this_node(*id)));
        // planted
        let enough = good.len() + own > voters.len() / 2 || planted::has("outvoted-signs");
        enough.then_some(good)
    }

    fn is_this_node(&self, id: NodeId) -> bool {
        id == self.consensus.node_id()
    }

    /// The checkpoint of a note that a key of this ledger signed which signs now.
    pub(super) fn check_signed(&self, signed: &SignedCheckpoint) -> Result<Checkpoint, String> {
        let keys = self.ledger_keys().map_err(|error| error.to_string())?;
        let mut refused = "no key signs now".to_owned();
        for key in keys.signing(self.store.applied().last_timestamp_ms) {
            match signed.verify(key) {
                Ok(checkpoint) => return Ok(checkpoint.clone()),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    }

    /// What this node cosigned, it remembers: the record is durable before a cosignature leaves. A note with a
    /// cosignature of this node's own key for a head it has no record of shows that the record is an older copy, or that
    /// a copy of this node runs elsewhere. It has then forgotten votes and entries, too, and must stop.
    pub(super) fn check_remembered(&self, signed: &SignedCheckpoint) -> Result<(), SignError> {
        let own = cosignature::find(signed.note(), self.keys.node.verifier_key());
        // One that does not fit was made by somebody else, and says nothing about this node.
        let Ok(Some(_)) = own else { return Ok(()) };
        let last = LastSigned::load(&self.key_dir)?;
        // Without a record nothing is signed at all until an operator has made one.
        let Some(last) = last else { return Ok(()) };
        let head = signed.checkpoint();
        if last.size > head.size || (last.size == head.size && last.root == head.root) {
            return Ok(());
        }
        Err(SignError::Forgotten {
            signed: head.size,
            remembered: last.size,
        })
    }
}
