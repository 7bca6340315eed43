//! A client that believes nothing it has not checked.
//!
//! [`VerifyingClient`] is given a policy (or a ledger's public key) that the user got another way,
//! and remembers the largest checkpoint it ever verified. From then on
//!
//! - every version it returns is included in a tree whose checkpoint satisfies the policy, under
//!   the key that was asked for, with the value that was returned;
//! - every checkpoint it meets is consistent with the remembered one, so one ledger cannot show it
//!   two histories. Checkpoints of equal size must have equal roots; a smaller one is fine if it is
//!   consistent.
//!
//! What it does *not* establish: that a version is the key's latest, that a key is absent, or that
//! a list is complete. A node that keeps new versions to itself is not noticed here. Hence the
//! types say [`Included`]. Before the first checkpoint is remembered there is nothing to be
//! consistent with: that first one is trusted as far as the policy goes.

mod entry;
mod pin;

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::{
    Checkpoint, Entry, Hash, Included, LeafKind, Metadata, Policy, PolicyError, Prev, ProofError,
    Receipt, ReceiptError, SignedCheckpoint, VerifierKey, consistency,
};
use tokio::sync::Mutex;

pub use entry::{EntryError, check_entry};
pub use pin::{FilePin, MemoryPin, PinStore};

use crate::client::{Client, Put, Wait};
use crate::error::Error;
use crate::wire::HexHash;

/// What did not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationError {
    /// The receipt, the key in it, or the value.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The checkpoint's signatures.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] PolicyError),
    /// The receipt is for another version than the one asked for.
    #[error("the receipt is for index {found}, index {expected} was asked for")]
    OtherIndex {
        /// The index found.
        found: u64,
        /// The index asked for.
        expected: u64,
    },
    /// The node answered with a version that is no value.
    #[error("the entry at index {index} is no value but a {kind:?}")]
    NotAPut {
        /// Its index.
        index: u64,
        /// What it is.
        kind: LeafKind,
    },
    /// What was appended is not what was sent.
    #[error("the appended entry has another {what} than the one sent")]
    NotAsSent {
        /// The part that differs.
        what: &'static str,
    },
    /// The checkpoint belongs to another ledger than the remembered one.
    #[error("the checkpoint is of {found:?}, the remembered one of {pinned:?}")]
    OtherLedger {
        /// The origin found.
        found: String,
        /// The origin remembered.
        pinned: String,
    },
    /// The remembered checkpoint is of a ledger that the policy does not name.
    #[error("the remembered checkpoint is of {pinned:?}, the policy names no such ledger")]
    PinOutsidePolicy {
        /// The origin remembered.
        pinned: String,
    },
    /// The checkpoint was not shown to be consistent with the remembered one. Both are signed: if
    /// no node can prove them consistent, together they are evidence that the ledger forked.
    #[error("the checkpoint is not consistent with the remembered one: {source}")]
    Inconsistent {
        /// The remembered checkpoint, a signed note.
        pinned_note: String,
        /// The checkpoint found, a signed note.
        found_note: String,
        /// What does not hold.
        source: ProofError,
    },
}

/// A version that is in the ledger, with its value and the receipt that shows it.
///
/// Not a claim that it is the key's latest version.
#[derive(Clone, Debug)]
pub struct IncludedValue {
    /// The entry, with the checkpoint it was verified against.
    pub entry: Included<Entry>,
    /// The value the entry commits to.
    pub value: Bytes,
    /// The metadata the entry commits to.
    pub metadata: Metadata,
    /// What to keep: with the value it shows the same to anyone, offline.
    pub receipt: Receipt,
}

impl Deref for IncludedValue {
    type Target = Included<Entry>;

    fn deref(&self) -> &Included<Entry> {
        &self.entry
    }
}

/// A client that verifies what it returns; cheap to clone. See the [module](self) for what that
/// means.
#[derive(Clone)]
pub struct VerifyingClient {
    client: Client,
    inner: Arc<Inner>,
}

struct Inner {
    policy: Policy,
    store: Arc<dyn PinStore>,
    /// The largest checkpoint verified so far. Held while a newer one is compared with it, so that
    /// no two are accepted against the same one.
    pinned: Mutex<Option<SignedCheckpoint>>,
}

impl std::fmt::Debug for VerifyingClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingClient")
            .field("client", &self.client)
            .field("policy", &self.inner.policy)
            .finish_non_exhaustive()
    }
}

impl VerifyingClient {
    /// A verifying client with a policy, and with the checkpoint that `store` remembers. Nothing
    /// is sent.
    ///
    /// # Errors
    /// [`Error::Pin`] if the remembered checkpoint cannot be read;
    /// [`VerificationError::PinOutsidePolicy`] if it is of a ledger that the policy does not name.
    pub fn new(
        client: Client,
        policy: Policy,
        store: impl PinStore,
    ) -> Result<VerifyingClient, Error> {
        let pinned = store.load().map_err(Error::Pin)?;
        let pinned = pinned
            .map(|note| SignedCheckpoint::parse(&note))
            .transpose();
        // Its signatures are not checked again: it is this user's own memory, and by now the
        // policy may rightly name other keys.
        let pinned = pinned.map_err(|error| {
            Error::Pin(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        })?;
        if let Some(pinned) = &pinned {
            let origin = &pinned.checkpoint().origin;
            if !policy.log_keys().any(|key| key.name() == origin) {
                let pinned = origin.clone();
                return Err(VerificationError::PinOutsidePolicy { pinned }.into());
            }
        }
        let inner = Inner {
            policy,
            store: Arc::new(store),
            pinned: Mutex::new(pinned),
        };
        Ok(VerifyingClient {
            client,
            inner: Arc::new(inner),
        })
    }

    /// As [`VerifyingClient::new`], trusting the ledger's key alone. A node that got hold of that
    /// key could show a fork; a policy that asks for cosignatures is stronger.
    ///
    /// # Errors
    /// As [`VerifyingClient::new`], and [`VerificationError::Checkpoint`] for a key that cannot
    /// sign checkpoints.
    pub fn with_key(
        client: Client,
        key: VerifierKey,
        store: impl PinStore,
    ) -> Result<VerifyingClient, Error> {
        let policy = Policy::from_key(key).map_err(VerificationError::Checkpoint)?;
        VerifyingClient::new(client, policy, store)
    }

    /// The client underneath, for calls whose answers cannot be verified.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whose signatures count.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// The largest checkpoint verified so far.
    pub async fn pinned(&self) -> Option<SignedCheckpoint> {
        self.inner.pinned.lock().await.clone()
    }

    /// Reads what the node calls the current version of `key`, and verifies that it is a version
    /// of `key`. `None` is the node's word only.
    ///
    /// # Errors
    /// [`Error::Verification`], or why the call failed.
    pub async fn get_verified(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<IncludedValue>, Error> {
        self.get_inner(key.as_ref(), None).await
    }

    /// Reads and verifies the version of `key` at `index`. `None` is the node's word only.
    ///
    /// # Errors
    /// [`Error::Verification`], or why the call failed.
    pub async fn get_version_verified(
        &self,
        key: impl AsRef<[u8]>,
        index: u64,
    ) -> Result<Option<IncludedValue>, Error> {
        self.get_inner(key.as_ref(), Some(index)).await
    }

    async fn get_inner(
        &self,
        key: &[u8],
        index: Option<u64>,
    ) -> Result<Option<IncludedValue>, Error> {
        let mut get = self.client.get(key);
        if let Some(index) = index {
            get = get.index(index);
        }
        let Some(found) = get.send().await? else {
            return Ok(None);
        };
        let index = index.unwrap_or(found.head.index);
        self.included_value(key, index, found.bytes).await.map(Some)
    }

    /// Sends a put, waits until a checkpoint covers it, and verifies that what is in the ledger is
    /// what was sent: key, value, content type, metadata, and the condition, if there was one.
    ///
    /// # Errors
    /// [`Error::Verification`], or why a call failed. Except for a refusal of the put itself, the
    /// entry may have been appended.
    pub async fn put_verified(
        &self,
        put: impl FnOnce(&Client) -> Put<'_>,
    ) -> Result<IncludedValue, Error> {
        let put = put(&self.client);
        let sent = Sent::of(&put);
        let appended = put.wait(Wait::Published).send().await?;
        let included = self
            .included_value(&sent.key, appended.index, sent.value.clone())
            .await?;
        sent.check(&included, appended.leaf_hash)?;
        Ok(included)
    }

    /// Fetches the receipt of a version and checks everything about it.
    async fn included_value(
        &self,
        key: &[u8],
        index: u64,
        value: Bytes,
    ) -> Result<IncludedValue, Error> {
        let receipt = self.client.receipt(key).index(index).send().await?;
        let found = receipt.index.get();
        if found != index {
            return Err(VerificationError::OtherIndex {
                found,
                expected: index,
            }
            .into());
        }
        let entry = self.verify_receipt(&receipt, key).await?;
        if entry.kind != LeafKind::Put {
            return Err(VerificationError::NotAPut {
                index,
                kind: entry.kind,
            }
            .into());
        }
        let metadata = entry
            .check_value(&value)
            .map_err(VerificationError::Receipt)?
            .clone();
        Ok(IncludedValue {
            entry,
            value,
            metadata,
            receipt,
        })
    }

    /// Verifies a receipt, from wherever it came: the policy, the key, and that its checkpoint is
    /// consistent with the remembered one (for which the node is asked).
    ///
    /// # Errors
    /// [`Error::Verification`], or why a call failed.
    pub async fn verify_receipt(
        &self,
        receipt: &Receipt,
        key: &[u8],
    ) -> Result<Included<Entry>, Error> {
        let entry = receipt
            .verify(&self.inner.policy)
            .map_err(VerificationError::Receipt)?;
        entry.check_key(key).map_err(VerificationError::Receipt)?;
        let checkpoint = SignedCheckpoint::parse(&receipt.checkpoint_note)
            .map_err(|error| VerificationError::Receipt(ReceiptError::Checkpoint(error)))?;
        self.accept(checkpoint).await?;
        Ok(entry)
    }

    /// Fetches and verifies the newest checkpoint the node has published, and remembers it.
    ///
    /// # Errors
    /// [`Error::Verification`], or why a call failed.
    pub async fn checkpoint_verified(&self) -> Result<Checkpoint, Error> {
        let signed = self.client.checkpoint().await?;
        self.inner
            .policy
            .evaluate(&signed)
            .map_err(VerificationError::Checkpoint)?;
        let checkpoint = signed.checkpoint().clone();
        self.accept(signed).await?;
        Ok(checkpoint)
    }

    /// Compares a checkpoint that satisfies the policy with the remembered one, and remembers the
    /// larger of the two.
    async fn accept(&self, found: SignedCheckpoint) -> Result<(), Error> {
        let mut pinned = self.inner.pinned.lock().await;
        if let Some(pinned) = pinned.as_ref() {
            if pinned.checkpoint().origin != found.checkpoint().origin {
                return Err(VerificationError::OtherLedger {
                    found: found.checkpoint().origin.clone(),
                    pinned: pinned.checkpoint().origin.clone(),
                }
                .into());
            }
            self.check_consistent(pinned, &found).await?;
            if found.checkpoint().size <= pinned.checkpoint().size {
                return Ok(());
            }
        }
        // Stored first, then used. If this is cut off here, the store is ahead: the next start
        // demands consistency with a checkpoint that was verified, which is fine.
        let (store, note) = (Arc::clone(&self.inner.store), found.to_text());
        tokio::task::spawn_blocking(move || store.store(&note))
            .await
            .map_err(|error| Error::Pin(std::io::Error::other(error)))?
            .map_err(Error::Pin)?;
        *pinned = Some(found);
        Ok(())
    }

    async fn check_consistent(
        &self,
        pinned: &SignedCheckpoint,
        found: &SignedCheckpoint,
    ) -> Result<(), Error> {
        let (mut old, mut new) = (pinned.checkpoint(), found.checkpoint());
        if old.size > new.size {
            (old, new) = (new, old);
        }
        // Between equal sizes, and from the empty tree, there is nothing to ask for.
        let proof: Vec<Hash> = if old.size == new.size || old.size.is_empty() {
            Vec::new()
        } else {
            // Only the hashes are taken: sizes and roots are those that were signed.
            let proof = self.client.consistency(old.size, new.size).await?;
            proof.hashes.into_iter().map(Hash::from).collect()
        };
        consistency::verify(old.size, &old.root, new.size, &new.root, &proof).map_err(|source| {
            Error::from(VerificationError::Inconsistent {
                pinned_note: pinned.to_text(),
                found_note: found.to_text(),
                source,
            })
        })
    }
}

/// What a put asked for, to be compared with what the ledger has.
struct Sent {
    key: Vec<u8>,
    value: Bytes,
    content_type: Option<String>,
    pairs: Vec<(String, String)>,
    condition: crate::client::Condition,
}

impl Sent {
    fn of(put: &Put<'_>) -> Sent {
        Sent {
            key: put.key.clone(),
            value: put.value.clone(),
            content_type: put.content_type.clone(),
            pairs: put.metadata.clone().into_iter().collect(),
            condition: put.condition,
        }
    }

    /// Checks what the receipt does not: key and value were compared with it already.
    fn check(&self, included: &IncludedValue, leaf_hash: HexHash) -> Result<(), VerificationError> {
        use crate::client::Condition;
        let metadata = &included.metadata;
        let content_type_holds = match &self.content_type {
            Some(content_type) => metadata.content_type == *content_type,
            // A node may fill in what HTTP says a body without type is.
            None => matches!(
                metadata.content_type.as_str(),
                "" | "application/octet-stream"
            ),
        };
        let prev_holds = match (self.condition, included.entry.prev) {
            (Condition::None, _) => true,
            // `Version` is the tombstone that stood for "absent"; that it is one is the node's word.
            (Condition::Absent, prev) => prev != Prev::NotAsserted,
            (Condition::Index(index), prev) => {
                matches!(prev, Prev::Version(found) if found.get() == index)
            }
        };
        let parts = [
            ("leaf hash", included.entry.leaf_hash.0 == leaf_hash.0),
            ("content type", content_type_holds),
            ("metadata", metadata.pairs == self.pairs),
            ("previous version", prev_holds),
        ];
        match parts.into_iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(VerificationError::NotAsSent { what }),
            None => Ok(()),
        }
    }
}
