//! Agrees on a tree head, then signs it, then makes it public: in that order, always.
//!
//! The leader takes the applied tree size, which is always on a transaction boundary, recomputes the root hash from the
//! stored tree, and asks every voter for the root it finds and its cosignature (`agree`). When a majority has the same
//! root it proposes the head through Raft, and when that is applied every node has compared it with its own tree. Only
//! then does the ledger key sign, and before a signature leaves a node the signed head is durable in its key directory.
//! A head once signed is never contradicted: the root at the last signed size is recomputed first.
//!
//! A leader that is outvoted hands leadership to a voter that is right, signs nothing more, and stops.
//!
//! Which keys sign is what the applied entries say (`signers`): two of them while one takes the place of the other.
//! Cosignatures that come late are merged in (`late`). Without a record of what was signed last, nothing is signed.
//!
//! Publishing happens on an interval when there are new user entries, and at once when somebody waits for it. A node
//! that does not lead shows the checkpoints the leader sends it, and asks for one when somebody waits.
//!
//! What a node shows never goes back, not over a restart either: a head is in the record of what was signed (`record`)
//! before it is shown, and after a start nothing smaller than that record is shown.

mod agree;
mod late;
mod record;
mod shown;
mod signers;
mod witnesses;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use scribe_client::witness::WitnessAddress;
use scribe_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use scribe_proof::cosignature;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::key::{SigningKey, VerifierKey};
use scribe_proof::note::Signature;
use scribe_proof::rotation::LedgerKeys;
use scribe_proof::witness::Cosignature;
use tokio::sync::{Notify, watch};

use agree::{Agreement, Answers, Found};
use record::Recorded;
use shown::Witnessed;
use witnesses::Outside;

use crate::cluster::wire::{CheckpointMessage, PublishRequest, kind, parts};
use crate::consensus::{
    AppliedOutcome, ConsensusNode, Leadership, NodeId, Proposal, ProposalResult,
};
use crate::error::PublishError;
use crate::keys::{KeyError, Keys};
use crate::limits;
use crate::peer::{Lane, Wait};
use crate::store::Store;
use crate::world::World;

pub use witnesses::OutsideStats;

/// How long a node waits to apply the entries of a head it is asked about or shown.
const APPLY_WAIT: Duration = Duration::from_secs(1);
/// How long an outvoted leader waits for another to take over before it stops.
const HAND_OVER_WAIT: Duration = Duration::from_secs(2);
/// Pause before a leader that did not answer is asked again for a checkpoint, and before a leader tries again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often in a row a leader may fail to record what it is to sign before it asks another to lead.
const UNRECORDED_MAX: u32 = 3;

/// A tree head that anyone may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Tree size.
    pub size: TreeSize,
    /// Root hash.
    pub root: Hash,
    /// The signed note: checkpoint, ledger signature, cosignatures of nodes and outside witnesses.
    pub note: String,
}

/// Asks for checkpoints and waits for them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    newest: watch::Receiver<Option<Arc<Published>>>,
    failed: watch::Receiver<Option<String>>,
}

/// What the task and its handles share.
#[derive(Debug)]
struct Shared {
    consensus: ConsensusNode,
    store: Store,
    keys: Arc<Keys>,
    key_dir: PathBuf,
    world: World,
    wanted: Notify,
    /// Largest tree size anybody waits for.
    wanted_size: AtomicU64,
    newest: watch::Sender<Option<Arc<Published>>>,
    /// Outside witnesses that are asked for cosignatures, and whose cosignatures are kept.
    outside: Vec<Outside>,
    witnessed: Witnessed,
    /// Nothing smaller is shown: what this node may have shown before it was started.
    floor: TreeSize,
    /// Held while a head is recorded as signed: one at a time, in order.
    signing: tokio::sync::Mutex<Recorded>,
    /// The ledger's keys as they were last read from its entries.
    known_keys: Mutex<Option<LedgerKeys>>,
    /// The nodes' cosigning keys, likewise.
    known_node_keys: Mutex<BTreeMap<NodeId, VerifierKey>>,
    /// Why nothing may be signed any more.
    failed: watch::Sender<Option<String>>,
    /// The task that waits for late cosignatures of the newest checkpoint: one at a time, so that a voter that hangs does
    /// not gather calls.
    collecting: Mutex<Option<tokio::task::AbortHandle>>,
}

/// Why nothing may be signed. The node stops, unless it passes.
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
    /// The system refused to read or write the record of what was signed last: nothing is signed before it can be.
    #[error("{0}")]
    Record(KeyError),
    #[error(
        "this node cosigned a tree of {signed} leaves and remembers none larger than {remembered}: its key directory is \
         an older copy, or a copy of this node runs elsewhere; put a new node in its place (`scribe cluster replace`)"
    )]
    Forgotten {
        signed: TreeSize,
        remembered: TreeSize,
    },
    #[error(
        "this node's root hash at tree size {size} is {found}, voters {by:?} agree on {root}: this node's data is \
         damaged"
    )]
    Outvoted {
        size: TreeSize,
        found: Hash,
        root: Hash,
        by: Vec<NodeId>,
    },
}

impl SignError {
    /// Whether the same may succeed later, as when a disk is full or there are too many open files. A record that is
    /// damaged, missing or contradicts stays so.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Record(_))
    }
}

impl From<KeyError> for SignError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Io { .. } => Self::Record(error),
            _ => Self::Keys(error.to_string()),
        }
    }
}

impl Publisher {
    /// Starts publishing. The first checkpoint after a start is made as soon as this node leads, so that a restarted
    /// ledger is never without one. `floor` is the size of the head recorded as signed last: until there is a checkpoint
    /// that is not smaller, none is shown, and one is asked for.
    // Each is another part of the node.
    #[expect(clippy::too_many_arguments)]
    pub fn start(
        consensus: ConsensusNode,
        store: Store,
        keys: Arc<Keys>,
        key_dir: PathBuf,
        world: World,
        interval: Duration,
        outside: Vec<WitnessAddress>,
        floor: TreeSize,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (newest_sender, newest) = watch::channel(None);
        let (failed_sender, failed) = watch::channel(None);
        let leadership = consensus.leadership();
        let shared = Arc::new(Shared {
            consensus,
            store,
            keys,
            key_dir,
            world,
            wanted: Notify::new(),
            wanted_size: AtomicU64::new(floor.get()),
            newest: newest_sender,
            floor,
            outside: open_witnesses(outside),
            witnessed: Witnessed::default(),
            signing: tokio::sync::Mutex::default(),
            known_keys: Mutex::new(None),
            known_node_keys: Mutex::default(),
            failed: failed_sender,
            collecting: Mutex::new(None),
        });
        let task = Task {
            leadership,
            interval,
            unrecorded: 0,
            shared: Arc::clone(&shared),
        };
        let witnesses = witnesses::start(&shared, &task.leadership);
        let handle = tokio::spawn(async move {
            let shared = Arc::clone(&task.shared);
            // They end with this task.
            let _witnesses = witnesses;
            if let Err(error) = task.run().await {
                shared.fail(&error);
            }
        });
        (
            Self {
                shared,
                newest,
                failed,
            },
            handle,
        )
    }

    /// The newest published checkpoint.
    pub fn newest(&self) -> Option<Arc<Published>> {
        self.newest.borrow().clone()
    }

    /// The checkpoint of at least `size` leaves that most outside witnesses cosigned, or else the newest if it has as
    /// many leaves.
    pub fn covering(&self, size: TreeSize) -> Option<Arc<Published>> {
        let newest = self.newest().filter(|newest| newest.size >= size);
        self.shared.witnessed.covering(size).or(newest)
    }

    /// The outside witnesses and what is known of each.
    pub fn outside(&self) -> impl Iterator<Item = (&VerifierKey, &OutsideStats)> {
        let outside = self.shared.outside.iter();
        outside.map(|witness| (witness.key(), witness.stats()))
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
                if let Some(reason) = self.shared.keys.withheld() {
                    return Err(PublishError::Unavailable(reason.to_owned()));
                }
                self.shared
                    .wanted_size
                    .fetch_max(size.get(), Ordering::AcqRel);
                self.shared.wanted.notify_one();
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
                // It ended without having failed, because consensus did: whoever listens there hears why.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Publisher {
    /// Recomputes the root at `size` for the leader, and cosigns the checkpoint of it.
    ///
    /// # Errors
    /// Entries below `size` are not applied here in time, the tree cannot be read, or the head contradicts one that was
    /// signed before.
    pub async fn cosign(&self, size: TreeSize) -> Result<(Hash, Signature), String> {
        if let Some(reason) = self.shared.keys.withheld() {
            return Err(reason.to_owned());
        }
        self.shared.wait_applied(size).await?;
        let root = self
            .shared
            .root_at(size)
            .await
            .map_err(|error| error.to_string())?;
        let mut recorded = self.shared.signing.lock().await;
        self.shared
            .check_last_signed(size)
            .await
            .map_err(|error| error.to_string())?;
        self.shared
            .record_signed(&mut recorded, size, root)
            .await
            .map_err(|error| error.to_string())?;
        let checkpoint = Checkpoint::new(self.shared.keys.origin.clone(), size, root);
        let signature = self
            .shared
            .cosignature(&checkpoint.to_text())
            .map_err(|error| error.to_string())?;
        Ok((root, signature))
    }

    /// Takes in a checkpoint that another node sent: shown from now on, if the ledger key signed it, this node's own
    /// tree has the same root, and it is not older than what is shown already.
    ///
    /// # Errors
    /// Why it is not shown.
    pub async fn take(&self, note: &str) -> Result<(), String> {
        self.shared.take(note).await
    }
}

impl Shared {
    async fn wait_applied(&self, size: TreeSize) -> Result<(), String> {
        let mut applied = self.store.watch_applied();
        let reached = applied.wait_for(|applied| applied.tree_size >= size);
        match tokio::time::timeout(APPLY_WAIT, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!("tree size {size} is not applied on this node yet")),
        }
    }

    /// The root at a size, off the tasks that serve others: a cold tree is read from disk.
    async fn root_at(&self, size: TreeSize) -> Result<Hash, SignError> {
        let store = self.store.clone();
        let root = crate::blocking::run(move || store.root_at(size)).await;
        Ok(root.map_err(std::io::Error::other)??)
    }

    fn cosignature(&self, text: &str) -> Result<Signature, SignError> {
        cosignature::sign(text, &self.keys.node, self.world.now_ms() / 1_000)
            .map_err(|error| SignError::Keys(error.to_string()))
    }

    /// Nothing is signed from here on, and the node stops.
    fn fail(&self, error: &SignError) {
        tracing::error!(%error, "nothing may be signed any more");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| error.to_string());
            first
        });
    }

    /// Makes a checkpoint the newest, unless a larger one is or may have been shown already. One of a head that is shown
    /// adds its signatures to it. Every line of it was verified, and its head is recorded.
    fn show(&self, mut published: Published) {
        // Outside cosignatures of this head that came before this note, in another one.
        let kept = self.witnessed.of_size(published.size);
        if let Some(note) = kept.and_then(|kept| shown::merged(&published.note, &kept.note)) {
            published.note = note;
        }
        self.newest.send_if_modified(|newest| {
            match newest.as_ref() {
                None if published.size < self.floor => return false,
                Some(shown) if published.size < shown.size => return false,
                Some(shown) if published.size == shown.size => {
                    match shown::merged(&shown.note, &published.note) {
                        Some(note) => published.note = note,
                        None => return false,
                    }
                }
                _ => {}
            }
            *newest = Some(Arc::new(published.clone()));
            true
        });
        self.keep_witnessed(published);
    }

    /// Keeps what outside witnesses cosigned for receipts, also if it came too late to be the newest.
    fn keep_witnessed(&self, published: Published) {
        if self.outside.is_empty() {
            return;
        }
        let Ok(signed) = SignedCheckpoint::parse(&published.note) else {
            return;
        };
        for outside in &self.outside {
            if let Ok(Some(timestamp_s)) = cosignature::find(signed.note(), outside.key()) {
                outside.saw(published.size, timestamp_s);
            }
        }
        self.witnessed.keep(published, |signed| {
            shown::count_lines(signed, self.outside.iter().map(Outside::key))
        });
    }

    /// Adds what an outside witness signed to the checkpoint it was asked about, shows that, and tells the other nodes.
    fn add_cosignature(&self, published: &Published, cosignature: Cosignature) {
        let Ok(mut signed) = SignedCheckpoint::parse(&published.note) else {
            return;
        };
        if let Err(error) = signed.add_signature(cosignature.signature) {
            tracing::warn!(%error, "a cosignature does not fit into the checkpoint");
            return;
        }
        let note = signed.to_text();
        self.tell(&note);
        self.show(Published {
            note,
            ..published.clone()
        });
    }

    async fn take(&self, note: &str) -> Result<(), String> {
        let signed = SignedCheckpoint::parse(note).map_err(|error| error.to_string())?;
        let origin = &signed.checkpoint().origin;
        if *origin != self.keys.origin {
            return Err(format!(
                "the checkpoint is of `{origin}`, this ledger is `{}`",
                self.keys.origin
            ));
        }
        if let Err(error) = self.check_remembered(&signed) {
            if !error.may_pass() {
                self.fail(&error);
            }
            return Err(not_shown(&error));
        }
        // Which keys sign is said by entries that may not be applied here yet.
        self.wait_applied(signed.checkpoint().size).await?;
        let checkpoint = self.check_signed(&signed)?;
        let own = self
            .root_at(checkpoint.size)
            .await
            .map_err(|error| error.to_string())?;
        if own != checkpoint.root {
            // The agreed head, applied through Raft, is what stops a node whose tree is wrong.
            return Err(format!(
                "this node's root at tree size {} is {own}, the checkpoint's {}",
                checkpoint.size, checkpoint.root
            ));
        }
        let nodes = self.node_keys().map_err(|error| error.to_string())?;
        let ledger = self.ledger_keys().map_err(|error| error.to_string())?;
        let known = ledger
            .signing(self.store.applied().last_timestamp_ms)
            .into_iter()
            .chain(nodes.values())
            .chain(self.outside.iter().map(Outside::key));
        let signed = shown::with_known_lines(&signed, known)
            .ok_or("the checkpoint has more signatures than fit")?;
        self.record_shown(checkpoint.size, checkpoint.root)
            .await
            .map_err(|error| not_shown(&error))?;
        self.show(Published {
            size: checkpoint.size,
            root: checkpoint.root,
            note: signed.to_text(),
        });
        Ok(())
    }

    /// Sends a checkpoint to every other node. One that misses it asks when it needs it.
    fn tell(&self, note: &str) {
        let message = parts(&CheckpointMessage {
            note: note.to_owned(),
        });
        for id in self.consensus.other_members() {
            let (consensus, message) = (self.consensus.clone(), message.clone());
            tokio::spawn(async move {
                let wait = Wait::Deadline(APPLY_WAIT * 2);
                let told = consensus
                    .call(id, Lane::Control, kind::CHECKPOINT, message, wait)
                    .await;
                if let Err(error) = told {
                    tracing::debug!(node = id, %error, "a checkpoint was not delivered");
                }
            });
        }
    }

    /// Asks the leader for a checkpoint that covers what is waited for, or its newest.
    async fn ask(&self, leader: NodeId) -> Result<(), String> {
        let request = parts(&PublishRequest {
            size: self.wanted_size.load(Ordering::Acquire),
        });
        let wait = Wait::Deadline(Duration::from_millis(limits::PUBLISH_WAIT_MS));
        let body = self
            .consensus
            .call(leader, Lane::Control, kind::PUBLISH, request, wait)
            .await
            .map_err(|error| error.to_string())?;
        let message = CheckpointMessage::decode(body).map_err(|error| error.to_string())?;
        if message.note.is_empty() {
            return Err("the leader has no checkpoint yet".to_owned());
        }
        self.take(&message.note).await
    }

    /// Not leading: what somebody waits for, or a first checkpoint to show, is asked from the leader.
    async fn follow(&self, leader: Option<NodeId>) {
        loop {
            if !self.is_wanted() {
                self.wanted.notified().await;
                continue;
            }
            if let Some(leader) = leader
                && let Err(reason) = self.ask(leader).await
            {
                tracing::debug!(leader, reason, "no checkpoint from the leader");
            }
            if self.is_wanted() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Whether somebody waits for more than is shown.
    fn is_wanted(&self) -> bool {
        let shown = self.newest.borrow().as_ref().map(|shown| shown.size.get());
        shown.is_none_or(|size| size < self.wanted_size.load(Ordering::Acquire))
    }
}

/// Why a checkpoint is not shown. An operator must hear of a record that cannot be written.
fn not_shown(error: &SignError) -> String {
    if error.may_pass() {
        tracing::warn!(%error, "this node shows no checkpoint before it can record it");
    }
    error.to_string()
}

/// Clients of the configured witnesses. One whose client cannot be made is left out, which is said: checkpoints are
/// published without its cosignature.
fn open_witnesses(addresses: Vec<WitnessAddress>) -> Vec<Outside> {
    let mut opened = Vec::with_capacity(addresses.len());
    for address in addresses {
        let name = address.key.name().to_owned();
        match Outside::new(address) {
            Ok(outside) => opened.push(outside),
            Err(error) => tracing::error!(witness = name, %error, "a witness cannot be asked"),
        }
    }
    opened
}

struct Task {
    shared: Arc<Shared>,
    interval: Duration,
    leadership: watch::Receiver<Leadership>,
    /// How often in a row what was to be signed could not be recorded.
    unrecorded: u32,
}

impl Task {
    async fn run(mut self) -> Result<(), SignError> {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let leadership = *self.leadership.borrow_and_update();
            match leadership {
                Leadership::Leading { term } => {
                    let unmet = self.shared.is_wanted();
                    let asked = tokio::select! {
                        _ = tick.tick() => false,
                        () = self.shared.wanted.notified() => true,
                        // What could not be signed a moment ago is still waited for.
                        () = tokio::time::sleep(ASK_AGAIN), if unmet => true,
                        changed = self.leadership.changed() => {
                            if changed.is_err() {
                                return Ok(());
                            }
                            continue;
                        }
                    };
                    self.publish(term, asked).await?;
                }
                Leadership::Waiting { leader } => {
                    tokio::select! {
                        () = self.shared.follow(leader) => {}
                        changed = self.leadership.changed() => {
                            if changed.is_err() {
                                return Ok(());
                            }
                        }
                    }
                }
                Leadership::Stopped => return Ok(()),
            }
        }
    }

    /// Publishes the applied tree if there is something new in it.
    async fn publish(&mut self, term: u64, asked: bool) -> Result<(), SignError> {
        let shared = Arc::clone(&self.shared);
        let applied = shared.store.applied();
        let size = applied.tree_size;
        let newest = shared.newest.borrow().as_ref().map(|shown| shown.size);
        let new = newest.is_none_or(|newest| newest < size);
        // Agreed on already, and not shown: who led before did not get to sign it.
        let unsigned = newest.is_none_or(|newest| newest < applied.published.0);
        let due = asked || unsigned || applied.user_entries_since_published;
        if size == TreeSize::EMPTY || !new || !due {
            return Ok(());
        }
        if shared.keys.withheld().is_some() || shared.signers()?.is_none() {
            return Ok(());
        }
        let known = shared.node_keys()?;
        if !shared.can_be_cosigned(&known) {
            tracing::debug!(%size, "a majority of the voters has not announced its keys yet");
            return Ok(());
        }
        let may_sign = {
            let _signing = shared.signing.lock().await;
            shared.may_sign(size).await
        };
        let can_record = match may_sign {
            Ok(true) => true,
            Ok(false) => return Ok(()),
            // Who else can sign is known when the others have answered.
            Err(error) if error.may_pass() => {
                self.could_not_record(&error);
                false
            }
            Err(error) => return Err(error),
        };
        // Recomputed from the stored tree, not taken from a running sum: a bit that flipped in memory must not be
        // signed.
        let root = shared.root_at(size).await?;
        let Answers {
            agreement,
            asked,
            missing,
        } = agree::ask_voters(&shared.consensus, root, size).await;
        let others = match agreement {
            Agreement::Agreed(others) => others,
            Agreement::Open { answered, voters } => {
                tracing::info!(%size, answered, voters, "too few voters have recomputed the tree head");
                return Ok(());
            }
            Agreement::Outvoted { root: theirs, by } => {
                self.hand_over(by.iter().copied()).await;
                return Err(SignError::Outvoted {
                    size,
                    found: root,
                    root: theirs,
                    by,
                });
            }
        };
        let checkpoint = Checkpoint::new(shared.keys.origin.clone(), size, root);
        let Some(cosigned) = shared.cosigned(&checkpoint.to_text(), &known, &others) else {
            tracing::info!(%size, "too few voters have cosigned the tree head");
            return Ok(());
        };
        let able = cosigned.len();
        if !can_record {
            self.leave_signing_to(&others, able).await;
            return Ok(());
        }
        // One that was agreed on and could not be signed is in the log already.
        if shared.store.applied().published != (size, root) {
            let mut pending = shared
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
        }
        let signed = match self.sign(checkpoint, cosigned).await {
            Err(error) if error.may_pass() => {
                self.could_not_record(&error);
                self.leave_signing_to(&others, able).await;
                return Ok(());
            }
            signed => signed?,
        };
        self.unrecorded = 0;
        if let Some(note) = signed {
            shared.tell(&note);
            let late = late::collect(Arc::clone(&shared), size, root, asked, missing);
            let task = tokio::spawn(late).abort_handle();
            if let Some(former) = shared.collecting.lock().replace(task) {
                former.abort();
            }
        }
        Ok(())
    }

    async fn sign(
        &self,
        checkpoint: Checkpoint,
        cosigned: Vec<Signature>,
    ) -> Result<Option<String>, SignError> {
        let shared = &self.shared;
        let (size, root) = (checkpoint.size, checkpoint.root);
        let keys_error = |error: &dyn std::fmt::Display| SignError::Keys(error.to_string());
        let mut recorded = shared.signing.lock().await;
        // Leadership may have moved while this head was agreed on.
        if !shared.may_sign(size).await? {
            return Ok(None);
        }
        let Some(signers) = shared.signers()? else {
            return Ok(None);
        };
        shared.record_signed(&mut recorded, size, root).await?;
        let text = checkpoint.to_text();
        let signers: Vec<&SigningKey> = signers.iter().map(|key| &**key).collect();
        let mut signed =
            SignedCheckpoint::sign(checkpoint, &signers).map_err(|error| keys_error(&error))?;
        signed
            .add_signature(shared.cosignature(&text)?)
            .map_err(|error| keys_error(&error))?;
        for signature in cosigned {
            signed
                .add_signature(signature)
                .map_err(|error| keys_error(&error))?;
        }
        let note = signed.to_text();
        shared.show(Published {
            size,
            root,
            note: note.clone(),
        });
        Ok(Some(note))
    }

    fn could_not_record(&mut self, error: &SignError) {
        self.unrecorded = self.unrecorded.saturating_add(1);
        // Said less and less often: it is tried several times a second while somebody waits.
        if self.unrecorded.is_power_of_two() {
            tracing::warn!(%error, attempts = self.unrecorded, "this node signs nothing before it can record it");
        }
    }

    /// This node cannot record what it signs, so it signs nothing. When that goes on, one of those that have just recorded
    /// this head is to lead in its place, if the `able`, whose cosignatures were verified, are a majority without this
    /// node: else nothing would be published there, either. It goes on as a follower, and cosigns again once it can.
    async fn leave_signing_to(&self, others: &BTreeMap<NodeId, Found>, able: usize) {
        let voters = self.shared.consensus.voters().len();
        if self.unrecorded.is_multiple_of(UNRECORDED_MAX) && able > voters / 2 {
            let cosigners = others.iter().filter(|(_, found)| found.signature.is_some());
            self.hand_over(cosigners.map(|(id, _)| *id)).await;
        }
    }

    /// Leadership goes to the first of these voters that takes it.
    async fn hand_over(&self, to: impl Iterator<Item = NodeId>) {
        for id in to {
            if self.shared.consensus.transfer_leader(id).await.is_err() {
                continue;
            }
            let mut leadership = self.leadership.clone();
            let left =
                leadership.wait_for(|leadership| !matches!(leadership, Leadership::Leading { .. }));
            if tokio::time::timeout(HAND_OVER_WAIT, left).await.is_ok() {
                tracing::info!(to = id, "leadership was handed over");
                return;
            }
        }
        tracing::warn!("no other voter took over leadership");
    }
}
