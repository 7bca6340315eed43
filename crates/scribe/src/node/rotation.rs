//! The ledger's key is replaced: made by the leader, delivered to every voter, and only then named by an entry.
//!
//! What signs is decided by the entries alone, so every step before the entry can be cut off without harm: a crash leaves
//! a key file that no entry names, which never signs. Once the entry is committed every voter has the key on disk, and
//! whoever leads next signs with both. A node that was no voter then gets it when it joins, or asks for it ([`keep_up`]).

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use scribe_proof::index::LeafIndex;
use scribe_proof::key::{KeyType, SigningKey, VerifierKey};
use tokio::sync::oneshot;

use super::members::AdminError;
use super::{Inner, Node, outcome};
use crate::cluster::wire::{AdminAnswer, AdminRequest, LedgerKeysMessage, admin, kind, parts};
use crate::consensus::{ConsensusError, NodeId};
use crate::error::AppendError;
use crate::keys;
use crate::peer::{Lane, Wait};
use crate::roster;
use crate::sequencer::Reply;

/// How long each node has to store a key.
const DELIVERY: Wait = Wait::Deadline(Duration::from_secs(5));
/// How often a node looks whether it lacks a key.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A ledger key that has taken another one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The new verifier key.
    pub verifier_key: String,
    /// Leaf index of the entry that says so.
    pub index: LeafIndex,
}

impl Node {
    /// Puts a new key in the place of the ledger's, wherever the leader is. Both sign for 30 days of ledger time.
    ///
    /// # Errors
    /// A voter cannot be reached, or no leader answered in time.
    pub async fn rotate_ledger_key(&self) -> Result<Rotated, AdminError> {
        let request = AdminRequest {
            action: admin::ROTATE_KEY,
            ..AdminRequest::default()
        };
        let answer = self.ask_leader(request).await?;
        Ok(Rotated {
            verifier_key: answer.verifier_key,
            index: LeafIndex::new(answer.index),
        })
    }

    /// As leader, which a majority has just confirmed.
    pub(super) async fn rotate_here(&self) -> AdminAnswer {
        match self.try_rotate().await {
            Ok(rotated) => {
                tracing::info!(
                    key = rotated.verifier_key, index = %rotated.index,
                    "the ledger has a new key; both sign for 30 days of ledger time"
                );
                AdminAnswer {
                    verifier_key: rotated.verifier_key,
                    index: rotated.index.get(),
                    ..AdminAnswer::default()
                }
            }
            Err(ConsensusError::Refused(text)) => AdminAnswer {
                outcome: admin::REFUSED,
                text,
                hint: Some(
                    "nothing was changed; `scribe cluster status` shows who is there".to_owned(),
                ),
                ..AdminAnswer::default()
            },
            Err(error) => AdminAnswer {
                begun: true,
                ..AdminAnswer::unavailable(error.to_string())
            },
        }
    }

    async fn try_rotate(&self) -> Result<Rotated, ConsensusError> {
        let inner = &self.inner;
        let Ok(_one) = inner.rotating.try_lock() else {
            return Err(ConsensusError::Refused(
                "the ledger's key is being rotated already".to_owned(),
            ));
        };
        if let Some(reason) = inner.keys.withheld() {
            return Err(ConsensusError::Refused(reason.to_owned()));
        }
        let old = self.newest_key()?;
        let refused = |error: &dyn std::fmt::Display| ConsensusError::Refused(error.to_string());
        let new = keys::new_key(&inner.keys.origin, KeyType::Ed25519).map_err(|e| refused(&e))?;
        let text = new.to_text();
        // A crash from here to the entry leaves files that no entry names: they never sign, and the next rotation makes
        // another key.
        let new = self.keep_key(new).await?;
        self.deliver(&text).await?;
        let (sender, receiver) = oneshot::channel();
        let unit = inner
            .preparer
            .rotation(old, Arc::clone(&new), Reply::One(sender));
        inner.sequencer.submit(unit);
        match outcome(receiver).await {
            Ok(appended) => Ok(Rotated {
                verifier_key: new.verifier_key().to_text(),
                index: appended.first,
            }),
            // Whoever leads next has the key as well, and knows by its log whether it counts.
            Err(AppendError::UnknownOutcome) => Err(ConsensusError::Unavailable(
                "leadership moved while the key was being rotated: it may have been".to_owned(),
            )),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The ledger's newest key, which this node must hold.
    fn newest_key(&self) -> Result<Arc<SigningKey>, ConsensusError> {
        let (store, keys) = (&self.inner.store, &self.inner.keys);
        let named = roster::ledger_keys(store, &keys.origin)
            .map_err(|error| ConsensusError::Refused(error.to_string()))?
            .ok_or_else(|| {
                ConsensusError::Refused("no entry names the ledger's key yet".to_owned())
            })?;
        keys.ledger.find(named.newest()).ok_or_else(|| {
            ConsensusError::Refused(
                "the leader does not hold the ledger's newest key yet".to_owned(),
            )
        })
    }

    /// Keeps a key of this ledger; on disk when this returns.
    pub(super) async fn keep_key(
        &self,
        key: SigningKey,
    ) -> Result<Arc<SigningKey>, ConsensusError> {
        let keys = Arc::clone(&self.inner.keys);
        crate::blocking::run(move || keys.ledger.keep(key))
            .await
            .map_err(|error| ConsensusError::Refused(error.to_string()))?
            .map_err(|error| ConsensusError::Refused(error.to_string()))
    }

    /// Has every other member store a key. Every voter must: any of them may be the next to sign.
    async fn deliver(&self, text: &str) -> Result<(), ConsensusError> {
        let consensus = &self.inner.consensus;
        let voters = consensus.voters();
        let message = parts(&LedgerKeysMessage {
            keys: vec![text.to_owned()],
            wanted: Vec::new(),
        });
        let told = consensus.other_members().into_iter().map(|id| {
            let message = message.clone();
            async move {
                let told = consensus
                    .call(id, Lane::Control, kind::LEDGER_KEYS, message, DELIVERY)
                    .await;
                (id, told)
            }
        });
        let mut missing: Vec<NodeId> = Vec::new();
        for (id, told) in join_all(told).await {
            if let Err(error) = told {
                tracing::warn!(node = id, %error, "a node did not store the ledger's new key");
                missing.push(id);
            }
        }
        missing.retain(|id| voters.contains(id));
        if missing.is_empty() {
            return Ok(());
        }
        Err(ConsensusError::Refused(format!(
            "every voter must hold the new key before it counts; not stored by {missing:?}"
        )))
    }

    /// What a member says about signing keys: stores those it delivers, answers with those it asks for.
    pub(super) async fn ledger_keys_message(
        &self,
        message: LedgerKeysMessage,
    ) -> Result<LedgerKeysMessage, String> {
        for text in &message.keys {
            // The error repeats nothing of the text.
            let key = SigningKey::parse(text).map_err(|error| error.to_string())?;
            self.keep_key(key)
                .await
                .map_err(|error| error.to_string())?;
        }
        let wanted = message.wanted.iter().filter_map(|text| {
            let key = VerifierKey::parse(text).ok()?;
            Some(self.inner.keys.ledger.find(&key)?.to_text())
        });
        Ok(LedgerKeysMessage {
            keys: wanted.collect(),
            wanted: Vec::new(),
        })
    }

    /// The keys that sign now, newest first, as their files have them; for a node that joins.
    pub(super) fn signing_texts(&self) -> Vec<String> {
        let (store, keys) = (&self.inner.store, &self.inner.keys);
        let named = roster::ledger_keys(store, &keys.origin).ok().flatten();
        let now_ms = store.applied().last_timestamp_ms;
        let held = named.iter().flat_map(|named| named.signing(now_ms));
        let mut texts: Vec<String> = held
            .filter_map(|key| Some(keys.ledger.find(key)?.to_text()))
            .collect();
        if texts.is_empty()
            && let Some(first) = keys.ledger.find(keys.ledger.first())
        {
            texts.push(first.to_text());
        }
        texts
    }

    /// The keys the ledger signs with that this node lacks.
    fn lacking(&self) -> Vec<VerifierKey> {
        let (store, keys) = (&self.inner.store, &self.inner.keys);
        let Ok(Some(named)) = roster::ledger_keys(store, &keys.origin) else {
            return Vec::new();
        };
        let now_ms = store.applied().last_timestamp_ms;
        let signing = named.signing(now_ms).into_iter();
        signing
            .filter(|key| keys.ledger.find(key).is_none())
            .cloned()
            .collect()
    }

    /// Asks the other members, one after another, for the keys this node lacks.
    async fn fetch(&self, lacking: &[VerifierKey]) {
        let consensus = &self.inner.consensus;
        let message = parts(&LedgerKeysMessage {
            keys: Vec::new(),
            wanted: lacking.iter().map(VerifierKey::to_text).collect(),
        });
        for id in consensus.other_members() {
            let asked = consensus
                .call(
                    id,
                    Lane::Control,
                    kind::LEDGER_KEYS,
                    message.clone(),
                    DELIVERY,
                )
                .await;
            let Some(answer) = asked
                .ok()
                .and_then(|body| LedgerKeysMessage::read(body).ok())
            else {
                continue;
            };
            for text in &answer.keys {
                let Ok(key) = SigningKey::parse(text) else {
                    continue;
                };
                // Nothing is stored that was not asked for.
                let verifier_key = key.verifier_key().clone();
                if !lacking.contains(&verifier_key) {
                    continue;
                }
                match self.keep_key(key).await {
                    Ok(_) => {
                        tracing::info!(node = id, %verifier_key, "a key of the ledger was fetched")
                    }
                    Err(error) => tracing::warn!(%error, "a key of the ledger cannot be kept"),
                }
            }
            if self.lacking().is_empty() {
                return;
            }
        }
    }
}

/// Keeps this node in possession of every key the ledger signs with, for as long as it lives.
pub(super) async fn keep_up(inner: Weak<Inner>) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(node) = inner.upgrade().map(|inner| Node { inner }) else {
            return;
        };
        let size = node.applied_size();
        if seen == Some(size) {
            continue;
        }
        let lacking = node.lacking();
        if lacking.is_empty() {
            seen = Some(size);
        } else {
            node.fetch(&lacking).await;
        }
    }
}
