//! Agrees on a tree head, then signs it, then makes it public: in that order, always.
//!
//! The leader takes the applied tree size, which is always on a transaction boundary, recomputes the root hash from the
//! stored tree, and proposes it through Raft. When the proposal is applied every node has compared it with its own
//! tree. Only then do this node and the ledger sign, and before a signature leaves the node the signed head is durable
//! in the key directory. A head once signed is never contradicted: the root at the last signed size is recomputed first.
//!
//! Publishing happens on an interval when there are new user entries, and at once when somebody waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use scribe_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use scribe_proof::cosignature;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use tokio::sync::{Notify, watch};

use crate::consensus::{AppliedOutcome, ConsensusNode, Leadership, Proposal, ProposalResult};
use crate::error::PublishError;
use crate::keys::{Keys, LastSigned};
use crate::store::Store;
use crate::world::World;

/// A tree head that anyone may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Tree size.
    pub size: TreeSize,
    /// Root hash.
    pub root: Hash,
    /// The signed note: checkpoint, ledger signature, node cosignatures.
    pub note: String,
}

/// Asks for checkpoints and waits for them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    newest: watch::Receiver<Option<Arc<Published>>>,
    wanted: Arc<Notify>,
    failed: watch::Receiver<Option<String>>,
}

/// Why nothing may be signed any more. The node stops.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("the tree can no longer be read: {0}")]
    Read(#[from] std::io::Error),
    #[error(
        "the root hash at tree size {size} is {found}, but {signed} was signed for it: this data directory is not the \
         one the keys signed for"
    )]
    Contradiction {
        size: TreeSize,
        found: Hash,
        signed: Hash,
    },
    #[error(
        "the ledger has {found} leaves, but a checkpoint of {signed} was signed: entries are missing"
    )]
    Behind { found: TreeSize, signed: TreeSize },
    #[error("{0}")]
    Keys(String),
}

impl Publisher {
    /// Starts publishing. The first checkpoint after a start is made as soon as this node leads, so that a restarted
    /// ledger is never without one.
    pub fn start(
        consensus: ConsensusNode,
        store: Store,
        keys: Arc<Keys>,
        key_dir: PathBuf,
        world: World,
        interval: Duration,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (newest_sender, newest) = watch::channel(None);
        let (failed_sender, failed) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let task = Task {
            leadership: consensus.leadership(),
            consensus,
            store,
            keys,
            key_dir,
            world,
            interval,
            wanted: Arc::clone(&wanted),
            newest: newest_sender,
        };
        let handle = tokio::spawn(async move {
            if let Err(error) = task.run().await {
                tracing::error!(%error, "nothing may be signed any more");
                let _ = failed_sender.send(Some(error.to_string()));
            }
        });
        (
            Self {
                newest,
                wanted,
                failed,
            },
            handle,
        )
    }

    /// The newest published checkpoint.
    pub fn newest(&self) -> Option<Arc<Published>> {
        self.newest.borrow().clone()
    }

    /// Waits for a checkpoint of at least `size` leaves, and has one made if need be.
    pub async fn wait(
        &self,
        size: TreeSize,
        timeout: Duration,
    ) -> Result<Arc<Published>, PublishError> {
        let mut newest = self.newest.clone();
        let covered = async {
            loop {
                if let Some(published) = newest.borrow_and_update().as_ref()
                    && published.size >= size
                {
                    return Ok(Arc::clone(published));
                }
                if let Some(reason) = self.failed.borrow().as_ref() {
                    return Err(PublishError::Unavailable(reason.clone()));
                }
                self.wanted.notify_one();
                if newest.changed().await.is_err() {
                    let reason = self.failed.borrow().clone();
                    return Err(PublishError::Unavailable(
                        reason.unwrap_or_else(|| "the node is shutting down".to_owned()),
                    ));
                }
            }
        };
        tokio::time::timeout(timeout, covered)
            .await
            .unwrap_or(Err(PublishError::NotPublished))
    }

    /// Resolves with the reason once nothing may be signed any more.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        loop {
            if let Some(reason) = failed.borrow_and_update().as_ref() {
                return reason.clone();
            }
            if failed.changed().await.is_err() {
                return "the publisher has ended".to_owned();
            }
        }
    }
}

struct Task {
    consensus: ConsensusNode,
    store: Store,
    keys: Arc<Keys>,
    key_dir: PathBuf,
    world: World,
    interval: Duration,
    wanted: Arc<Notify>,
    leadership: watch::Receiver<Leadership>,
    newest: watch::Sender<Option<Arc<Published>>>,
}

impl Task {
    async fn run(mut self) -> Result<(), SignError> {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let leadership = *self.leadership.borrow_and_update();
            let Leadership::Leading { term } = leadership else {
                if leadership == Leadership::Stopped || self.leadership.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            let asked = tokio::select! {
                _ = tick.tick() => false,
                () = self.wanted.notified() => true,
                changed = self.leadership.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            };
            self.publish(term, asked).await?;
        }
    }

    /// Publishes the applied tree if there is something new in it.
    async fn publish(&mut self, term: u64, asked: bool) -> Result<(), SignError> {
        let applied = self.store.applied();
        let size = applied.tree_size;
        let newest = self
            .newest
            .borrow()
            .as_ref()
            .map(|published| published.size);
        let new = newest.is_none_or(|newest| newest < size);
        let due = asked || newest.is_none() || applied.user_entries_since_published;
        if size == TreeSize::EMPTY || !new || !due {
            return Ok(());
        }
        let last =
            LastSigned::load(&self.key_dir).map_err(|error| SignError::Keys(error.to_string()))?;
        if let Some(last) = &last {
            if last.size > size {
                return Err(SignError::Behind {
                    found: size,
                    signed: last.size,
                });
            }
            let found = self.store.root_at(last.size)?;
            if found != last.root {
                return Err(SignError::Contradiction {
                    size: last.size,
                    found,
                    signed: last.root,
                });
            }
        }
        // Recomputed from the stored tree, not taken from a running sum: a bit that flipped in memory must not be
        // signed.
        let root = self.store.root_at(size)?;
        let mut pending = self
            .consensus
            .propose(Proposal::Publish { size, root }, term)
            .await;
        match pending.result().await {
            ProposalResult::Applied(AppliedOutcome::Published { .. }) => {}
            // Leadership moved, or the node is stopping: nothing was signed, and the next leader begins anew.
            other => {
                tracing::info!(?other, %size, "the tree head was not agreed on");
                return Ok(());
            }
        }
        self.sign(size, root)
    }

    fn sign(&self, size: TreeSize, root: Hash) -> Result<(), SignError> {
        let keys_error = |error: &dyn std::fmt::Display| SignError::Keys(error.to_string());
        // Durable before the signature leaves the node. A crash right here leaves a head recorded that nobody has
        // seen: the next one extends it.
        LastSigned {
            origin: self.keys.origin.clone(),
            size,
            root,
        }
        .store(&self.key_dir)
        .map_err(|error| keys_error(&error))?;
        let checkpoint = Checkpoint::new(self.keys.origin.clone(), size, root);
        let text = checkpoint.to_text();
        let mut signed = SignedCheckpoint::sign(checkpoint, &[&self.keys.ledger])
            .map_err(|error| keys_error(&error))?;
        let now_s = self.world.now_ms() / 1_000;
        let cosigned =
            cosignature::sign(&text, &self.keys.node, now_s).map_err(|error| keys_error(&error))?;
        signed
            .add_signature(cosigned)
            .map_err(|error| keys_error(&error))?;
        let published = Published {
            size,
            root,
            note: signed.to_text(),
        };
        self.newest.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}
