//! The one handle to a running node: start it, append, read, prove, shut it down.
//!
//! HTTP and the command line speak to this and to nothing below it. It wires the parts together (store, consensus,
//! sequencer, publisher) and holds what belongs to none of them: the identity of the ledger, the system entries at its
//! beginning, and the watch on free disk space. It decides nothing about entries.

mod background;
mod beginning;
mod entry;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;
use scribe_proof::policy::Policy;
use scribe_proof::receipt::{Opening, Receipt};
use scribe_proof::tree::{HashReader, ProveError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::barrier::ReadBarrier;
use crate::consensus::{ConsensusError, ConsensusNode, ConsensusOptions, NodeId, PeerAddress};
use crate::keys::Keys;
use crate::limits;
use crate::publisher::Publisher;
use crate::sequencer::{Collector, Preparer, Reply, Sequencer, SequencerStats, UnitOutcome};
use crate::store::cache::CacheSizes;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::index::IndexKind;
use crate::store::lock::DirLock;
use crate::store::log::{LogOptions, LogStats};
use crate::store::real_disk::RealDisk;
use crate::store::scrub::Scrubber;
use crate::store::{CheckError, CheckReport, OpenReport, ScanRange, Store, StoreOptions, Version};
use crate::world::World;

use background::{follow_seals, start_scrubber, watch_disk};
pub use beginning::IMPORTING_FILE;
use beginning::{FirstEntries, check_last_signed, identity, open_keys, refuse_unfinished_import};

pub use background::ScrubStats;
pub use entry::Entry;

pub use crate::consensus::HealthStatus;
pub use crate::error::{AppendError, PublishError, ReadError};
pub use crate::publisher::Published;
pub use crate::sequencer::{
    Appended, CarriedEntry, Condition, Operation, Transaction, TransactionAppended, Write,
    WriteKind,
};
pub use crate::store::Applied;

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where entries live.
    pub data_dir: PathBuf,
    /// Where keys and the last signed head live; outside `data_dir` and its backups.
    pub key_dir: PathBuf,
    /// Host and port other nodes reach this one at.
    pub raft_addr: String,
    /// Host and port clients reach this one at.
    pub http_addr: String,
    /// Name of a new ledger; an existing one must have it.
    pub origin: Option<String>,
    /// Longest value accepted.
    pub value_length_max: usize,
    /// How often new entries are published.
    pub publish_interval_ms: u64,
    /// Size at which a segment is sealed. Part of the ledger's format: the same on every node, for ever.
    pub segment_bytes_max: u64,
    /// Leaves at which a segment is sealed. Likewise.
    pub segment_leaves_max: u64,
    /// Free bytes below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// Memory for the key index.
    pub index_cache_bytes: u64,
    /// Memory for entries read lately.
    pub entry_cache_bytes: u64,
    /// How fast sealed data is re-hashed in the background; 0 turns it off.
    pub scrub_bytes_per_second: u64,
    /// Whether a new ledger gets no genesis of its own, because entries are carried over from another copy.
    pub importing: bool,
    /// Raft timers.
    pub consensus: ConsensusOptions,
    /// Clock and randomness.
    pub world: World,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("scribe-data"),
            key_dir: PathBuf::from("scribe-keys"),
            raft_addr: "127.0.0.1:9001".to_owned(),
            http_addr: "127.0.0.1:8001".to_owned(),
            origin: None,
            value_length_max: limits::VALUE_LENGTH_DEFAULT_MAX,
            publish_interval_ms: 1_000,
            segment_bytes_max: limits::SEGMENT_BYTES_MAX,
            segment_leaves_max: limits::SEGMENT_LEAVES_MAX,
            disk_reserve_bytes: limits::DISK_RESERVE_BYTES,
            index_cache_bytes: limits::INDEX_CACHE_BYTES,
            entry_cache_bytes: limits::ENTRY_CACHE_BYTES,
            scrub_bytes_per_second: 20 * limits::MIB as u64,
            importing: false,
            consensus: ConsensusOptions::default(),
            world: World::real(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("{}", split_hint(&.0.to_string()).0)]
    Store(#[from] StoreError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyError),
    /// Data and keys do not belong together, or entries are missing.
    #[error("{rule}")]
    Identity {
        /// The rule and what was found.
        rule: String,
        /// What to do.
        hint: String,
    },
    /// The Raft core does not start.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The first entries cannot be written.
    #[error("the first entries cannot be written: {0}")]
    Genesis(#[from] AppendError),
}

impl StartError {
    /// What to do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => split_hint(&error.to_string()).1,
            Self::Keys(error) => error.hint(),
            Self::Identity { hint, .. } => Some(hint.clone()),
            Self::Consensus(_) | Self::Genesis(_) => None,
        }
    }
}

/// A store error's message carries its next step on a line of its own.
fn split_hint(message: &str) -> (String, Option<String>) {
    match message.split_once("\nhint: ") {
        Some((rule, hint)) => (rule.to_owned(), Some(hint.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// What a ledger says about itself. Nothing in it is to be trusted by a client that has no key of its own yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerInfo {
    /// Its name.
    pub origin: String,
    /// Verifier keys: the ledger's first, then the nodes'.
    pub verifier_keys: Vec<String>,
    /// A ready policy that demands the ledger's signature and a majority of the nodes.
    pub policy: String,
}

/// One key of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionSummary {
    /// Leaf index of the key's version.
    pub index: LeafIndex,
    /// Put or delete.
    pub kind: LeafKind,
}

/// A running node. Clone = another handle to the same node.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    consensus: ConsensusNode,
    sequencer: Sequencer,
    publisher: Publisher,
    barrier: ReadBarrier,
    preparer: Preparer,
    keys: Arc<Keys>,
    /// One process at a time signs with the keys of a directory; let go at shutdown.
    key_lock: Mutex<Option<DirLock>>,
    options: NodeOptions,
    open_report: OpenReport,
    disk_full: Arc<AtomicBool>,
    scrub: Arc<ScrubStats>,
    scrubber: Mutex<Option<Scrubber>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Opens the directories, recovers, leads (a single voter always does), and writes the first entries of a new
    /// ledger. When it returns, the node takes writes.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        Self::start_on(options, Arc::new(RealDisk), IndexKind::Fjall).await
    }

    /// As [`Node::start`], on a disk and an index of the caller's making.
    pub async fn start_on(
        options: NodeOptions,
        disk: Arc<dyn Disk>,
        index: IndexKind,
    ) -> Result<Self, StartError> {
        refuse_unfinished_import(&options)?;
        let identity = identity(&options, &*disk)?;
        let store_options = store_options(&options, index);
        let data_dir = options.data_dir.clone();
        // Recovery reads files and may hash a segment or two: not on a task that serves others.
        let (store, open_report) = tokio::task::spawn_blocking(move || {
            Store::open(disk, &data_dir, identity, store_options)
        })
        .await
        .map_err(|error| ConsensusError::Stopped(error.to_string()))??;
        let keys = match open_keys(&options, identity.node_id) {
            Ok(keys) => keys,
            Err(error) => {
                store.shutdown();
                return Err(error);
            }
        };
        let node_id = identity.node_id;
        let consensus = match ConsensusNode::start(node_id, store.clone(), options.consensus).await
        {
            Ok(consensus) => consensus,
            Err(error) => {
                store.shutdown();
                return Err(error.into());
            }
        };
        let started = Self::run(
            options,
            store.clone(),
            open_report,
            node_id,
            keys,
            consensus.clone(),
        )
        .await;
        if started.is_err() {
            let _ = consensus.shutdown().await;
            store.shutdown();
        }
        started
    }

    async fn run(
        options: NodeOptions,
        store: Store,
        open_report: OpenReport,
        node_id: NodeId,
        (keys, key_lock): (Arc<Keys>, DirLock),
        consensus: ConsensusNode,
    ) -> Result<Self, StartError> {
        let address = PeerAddress {
            raft_addr: options.raft_addr.clone(),
            http_addr: options.http_addr.clone(),
        };
        if !consensus.is_initialized().await? {
            consensus
                .initialize(BTreeMap::from([(node_id, address.clone())]))
                .await?;
        }
        // Leading with an entry of the own term applied means: everything the log holds is applied too.
        consensus.wait_leading(RECOVERY_TIMEOUT).await?;
        check_last_signed(&options, &store, &keys)?;
        if consensus
            .peer_address(node_id)
            .is_some_and(|known| known != address)
        {
            consensus.set_address(node_id, address).await?;
        }
        let disk_full = Arc::new(AtomicBool::new(false));
        let (sequencer, sequencer_task) = Sequencer::start(
            consensus.clone(),
            store.clone(),
            options.world.clone(),
            Arc::clone(&disk_full),
        );
        let preparer = Preparer::new(options.world.clone(), options.value_length_max);
        let first_entries = FirstEntries {
            store: &store,
            sequencer: &sequencer,
            preparer: &preparer,
        };
        first_entries.write(&options, node_id, &keys).await?;
        let (publisher, publisher_task) = Publisher::start(
            consensus.clone(),
            store.clone(),
            Arc::clone(&keys),
            options.key_dir.clone(),
            options.world.clone(),
            Duration::from_millis(options.publish_interval_ms),
        );
        let disk_task = watch_disk(
            store.clone(),
            options.disk_reserve_bytes,
            Arc::clone(&disk_full),
        );
        let purge_task = follow_seals(store.clone(), consensus.clone());
        let scrub = Arc::new(ScrubStats::default());
        let scrubber = start_scrubber(&store, options.scrub_bytes_per_second, Arc::clone(&scrub));
        let node = Self {
            inner: Arc::new(Inner {
                barrier: ReadBarrier::start(consensus.clone()),
                store,
                consensus,
                sequencer,
                publisher,
                preparer,
                keys,
                key_lock: Mutex::new(Some(key_lock)),
                options,
                open_report,
                disk_full,
                scrub,
                scrubber: Mutex::new(scrubber),
                tasks: Mutex::new(vec![sequencer_task, publisher_task, disk_task, purge_task]),
            }),
        };
        Ok(node)
    }

    /// Stops: no new writes, what was proposed is settled, the Raft core ends, the store is closed. A kill at any point
    /// loses nothing that was acknowledged.
    pub async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        drop(self.inner.scrubber.lock().take());
        if let Err(error) = self.inner.consensus.shutdown().await {
            tracing::warn!(%error, "the Raft core did not stop cleanly");
        }
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // A task that is just writing the last signed head finishes that first.
            let _ = task.await;
        }
        drop(self.inner.key_lock.lock().take());
        let store = self.inner.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.shutdown()).await;
    }

    /// Resolves with the reason when the node must stop: a failed sync, a diverged tree, a signature that would
    /// contradict an earlier one.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + 'static {
        let consensus = self.inner.consensus.clone();
        let publisher = self.inner.publisher.clone();
        let sequencer = self.inner.sequencer.clone();
        async move {
            tokio::select! {
                reason = consensus.fatal() => reason,
                () = sequencer.ended() => "the sequencer has ended".to_owned(),
                reason = publisher.failed() => reason,
            }
        }
    }

    /// What opening the data directory found and repaired.
    pub fn open_report(&self) -> &OpenReport {
        &self.inner.open_report
    }

    // Writes.

    /// Appends one write; returns once a majority has it on disk and it is applied here.
    pub async fn append(&self, write: Write) -> Result<Appended, AppendError> {
        let (sender, receiver) = oneshot::channel();
        match self.inner.preparer.write(write, Reply::One(sender)) {
            Ok(unit) => self.inner.sequencer.submit(unit),
            Err((error, _)) => return Err(error),
        }
        let entries = outcome(receiver).await?.into_entries();
        entries
            .into_iter()
            .next()
            .ok_or(AppendError::UnknownOutcome)
    }

    /// Appends writes in order, each for itself: the bulk path. The results are in the order of the writes.
    pub async fn append_many(&self, writes: Vec<Write>) -> Vec<Result<Appended, AppendError>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let (collector, done) = Collector::new(writes.len());
        for (slot, write) in writes.into_iter().enumerate() {
            let reply = Reply::Slot {
                collector: Arc::clone(&collector),
                slot,
            };
            match self.inner.preparer.write(write, reply) {
                Ok(unit) => self.inner.sequencer.submit(unit),
                Err((error, reply)) => reply.send(Err(error)),
            }
        }
        // What has not answered by the deadline is unknown.
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, done).await;
        collector
            .take()
            .into_iter()
            .map(|outcome| {
                outcome?
                    .into_entries()
                    .into_iter()
                    .next()
                    .ok_or(AppendError::UnknownOutcome)
            })
            .collect()
    }

    /// Appends all operations of a transaction, or none.
    pub async fn append_transaction(
        &self,
        transaction: Transaction,
    ) -> Result<TransactionAppended, AppendError> {
        let (sender, receiver) = oneshot::channel();
        match self
            .inner
            .preparer
            .transaction(transaction, Reply::One(sender))
        {
            Ok(unit) => self.inner.sequencer.submit(unit),
            Err((error, _)) => return Err(error),
        }
        let appended = outcome(receiver).await?;
        let (tree_size, replayed) = (appended.tree_size(), appended.replayed);
        Ok(TransactionAppended {
            entries: appended.into_entries(),
            tree_size,
            replayed,
        })
    }

    /// Appends entries carried over from another copy of the ledger, byte for byte. Only for an offline import: a
    /// server never offers it. At most [`limits::FRAME_OPERATIONS_MAX`] at once.
    pub async fn import(&self, entries: Vec<CarriedEntry>) -> Result<TreeSize, AppendError> {
        if entries.is_empty() {
            return Ok(self.applied_size());
        }
        if entries.len() > limits::FRAME_OPERATIONS_MAX {
            return Err(AppendError::Invalid {
                rule: format!(
                    "at most {} entries are carried over at once, found {}",
                    limits::FRAME_OPERATIONS_MAX,
                    entries.len()
                ),
                hint: None,
            });
        }
        let (sender, receiver) = oneshot::channel();
        self.inner
            .sequencer
            .submit(self.inner.preparer.carried(entries, Reply::One(sender)));
        Ok(outcome(receiver).await?.tree_size())
    }

    // Reads. All but the barrier are synchronous: mostly a few microseconds from a cache or the page cache.

    /// Waits until everything acknowledged before this call is applied here, and returns the tree size to read at.
    /// Reads at that size are linearizable.
    pub async fn barrier(&self) -> Result<TreeSize, ReadError> {
        let waited = tokio::time::timeout(REQUEST_TIMEOUT, self.inner.barrier.wait()).await;
        match waited {
            Ok(Ok(())) => Ok(self.applied_size()),
            Ok(Err(ConsensusError::NotLeader { leader })) => Err(ReadError::NotLeader {
                leader: leader
                    .and_then(|id| self.inner.consensus.peer_address(id))
                    .map(|peer| peer.http_addr),
            }),
            Ok(Err(error)) => Err(ReadError::Unavailable(error.to_string())),
            Err(_) => Err(ReadError::Unavailable(
                "a majority did not answer in time".to_owned(),
            )),
        }
    }

    /// Tree size applied on this node now; reads at it may be stale.
    pub fn applied_size(&self) -> TreeSize {
        self.inner.store.applied().tree_size
    }

    /// Waits until this node has applied at least `size` leaves.
    pub async fn wait_size(&self, size: TreeSize, timeout: Duration) -> Result<(), ReadError> {
        let mut applied = self.inner.store.watch_applied();
        let reached = async {
            while applied.borrow_and_update().tree_size < size {
                if applied.changed().await.is_err() {
                    return Err(ReadError::Unavailable(
                        "the node is shutting down".to_owned(),
                    ));
                }
            }
            Ok(())
        };
        tokio::time::timeout(timeout, reached)
            .await
            .unwrap_or_else(|_| {
                Err(ReadError::BeyondTree {
                    asked: size,
                    size: self.applied_size(),
                })
            })
    }

    /// Follows the applied state.
    pub fn watch_applied(&self) -> watch::Receiver<Applied> {
        self.inner.store.watch_applied()
    }

    /// The newest version of a key among the first `at` leaves; a tombstone is one.
    pub fn latest(&self, key: &[u8], at: TreeSize) -> Result<Option<Entry>, ReadError> {
        self.within(at)?;
        match self.inner.store.latest(key, at)? {
            Some(version) => Ok(Some(self.load(&version)?)),
            None => Ok(None),
        }
    }

    /// The version of a key at exactly this leaf index, if it is one.
    pub fn version(&self, key: &[u8], index: LeafIndex) -> Result<Option<Entry>, ReadError> {
        match self.inner.store.is_version(key, index)? {
            Some(version) => Ok(Some(self.load(&version)?)),
            None => Ok(None),
        }
    }

    /// Versions of a key below tree size `below`, newest first.
    pub fn history(
        &self,
        key: &[u8],
        below: TreeSize,
        limit: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let versions = self.inner.store.history(key, below, limit)?;
        versions.iter().map(|version| self.load(version)).collect()
    }

    /// Keys from `start` up to but not including `end`, in byte order, each with its version at tree size `at`.
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        at: TreeSize,
        limit: usize,
    ) -> Result<Vec<(Bytes, VersionSummary)>, ReadError> {
        self.within(at)?;
        // System entries are filed under the empty key, which no user can have.
        let start = if start.is_empty() { &[0][..] } else { start };
        let range = ScanRange {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
        };
        let found = self.inner.store.scan(&range, at, limit)?;
        Ok(found
            .into_iter()
            .map(|(key, version)| {
                (
                    key,
                    VersionSummary {
                        index: version.index,
                        kind: version.kind,
                    },
                )
            })
            .collect())
    }

    /// The entry at a leaf index.
    pub fn entry(&self, index: LeafIndex) -> Result<Option<Entry>, ReadError> {
        Ok(self.inner.store.entry(index)?.map(Entry::new))
    }

    /// Entries in order, from `from` on: at most `limit`, and no more than fit in `bytes_max` (but at least one).
    pub fn entries(
        &self,
        from: LeafIndex,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let stored = self.inner.store.entries(from, limit, bytes_max)?;
        Ok(stored.into_iter().map(Entry::new).collect())
    }

    /// How many leaves have a timestamp at or before this one.
    pub fn size_at_time(&self, timestamp_ms: u64) -> Result<TreeSize, ReadError> {
        Ok(self.inner.store.size_at_time(timestamp_ms)?)
    }

    fn load(&self, version: &Version) -> Result<Entry, ReadError> {
        Ok(Entry::new(self.inner.store.entry_of(version)?))
    }

    fn within(&self, at: TreeSize) -> Result<(), ReadError> {
        let size = self.applied_size();
        if at > size {
            Err(ReadError::BeyondTree { asked: at, size })
        } else {
            Ok(())
        }
    }

    // Proofs.

    /// The newest published checkpoint.
    pub fn checkpoint(&self) -> Option<Arc<Published>> {
        self.inner.publisher.newest()
    }

    /// Waits for a checkpoint that covers `at_least` leaves, and has one made if need be.
    pub async fn publish(&self, at_least: TreeSize) -> Result<Arc<Published>, PublishError> {
        self.inner
            .publisher
            .wait(at_least, Duration::from_millis(limits::PUBLISH_WAIT_MS))
            .await
    }

    /// The receipt of an entry under a checkpoint that covers it.
    pub fn receipt(&self, entry: &Entry, published: &Published) -> Result<Receipt, ReadError> {
        let (_, proof) = self.inclusion(entry.index, published.size)?;
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

    /// Leaf hash and inclusion proof of a leaf in the tree of `size` leaves.
    pub fn inclusion(
        &self,
        index: LeafIndex,
        size: TreeSize,
    ) -> Result<(Hash, Vec<Hash>), ReadError> {
        self.within(size)?;
        let proof =
            scribe_proof::inclusion::prove(&self.inner.store, index, size).map_err(proof_error)?;
        let mut leaf = Vec::new();
        HashReader::read(&&self.inner.store, 0, index.get(), 1, &mut leaf)?;
        let leaf_hash = leaf
            .first()
            .copied()
            .ok_or_else(|| ReadError::Damaged(format!("leaf hash {index} is missing")))?;
        Ok((leaf_hash, proof))
    }

    /// Proof that the tree of `new` leaves extends the tree of `old`.
    pub fn consistency(&self, old: TreeSize, new: TreeSize) -> Result<Vec<Hash>, ReadError> {
        self.within(new)?;
        scribe_proof::consistency::prove(&self.inner.store, old, new).map_err(proof_error)
    }

    /// Root hash of the first `size` leaves.
    pub fn root_at(&self, size: TreeSize) -> Result<Hash, ReadError> {
        self.within(size)?;
        Ok(self.inner.store.root_at(size)?)
    }

    /// What the ledger says about itself.
    pub fn ledger(&self) -> LedgerInfo {
        let keys = &self.inner.keys;
        let node_key = keys.node.verifier_key().clone();
        let name = format!("node-{}", self.inner.consensus.health_check().node_id);
        let policy = Policy::majority(keys.ledger.verifier_key().clone(), vec![(name, node_key)]);
        LedgerInfo {
            origin: keys.origin.clone(),
            verifier_keys: vec![
                keys.ledger.verifier_key().to_text(),
                keys.node.verifier_key().to_text(),
            ],
            policy: policy.map(|policy| policy.to_text()).unwrap_or_default(),
        }
    }

    // Operations.

    /// How the node is, as it sees itself.
    pub fn health(&self) -> HealthStatus {
        self.inner.consensus.health_check()
    }

    /// Whether the node should be sent traffic, and if not, why.
    pub fn ready(&self) -> Result<(), String> {
        let health = self.health();
        if let Some(fatal) = health.fatal {
            return Err(fatal);
        }
        if let Some(reason) = self.inner.store.log().poisoned() {
            return Err(reason);
        }
        if health.current_leader.is_none() {
            return Err("no leader is known".to_owned());
        }
        Ok(())
    }

    /// Whether writes are refused because the disk is nearly full.
    pub fn disk_full(&self) -> bool {
        self.inner.disk_full.load(Ordering::Relaxed)
    }

    /// Counters of the log, for metrics.
    pub fn log_stats(&self) -> LogStats {
        self.inner.store.log().stats()
    }

    /// Counters of the sequencer, for metrics.
    pub fn sequencer_stats(&self) -> &SequencerStats {
        self.inner.sequencer.stats()
    }

    /// Bytes of writes that wait, for metrics.
    pub fn admitted_bytes(&self) -> usize {
        self.inner.sequencer.admitted_bytes()
    }

    /// Sealed segments, for metrics.
    pub fn sealed_segments(&self) -> usize {
        self.inner.store.log().sealed().len()
    }

    /// What the scrubber has looked at and found, for metrics.
    pub fn scrub_stats(&self) -> &ScrubStats {
        &self.inner.scrub
    }

    /// Free bytes on the data directory's file system.
    pub fn free_bytes(&self) -> u64 {
        self.inner.store.log().free_bytes()
    }

    /// The longest value this node accepts.
    pub fn value_length_max(&self) -> usize {
        self.inner.options.value_length_max
    }

    /// Consensus, for cluster status and administration.
    pub fn consensus(&self) -> &ConsensusNode {
        &self.inner.consensus
    }

    /// Re-reads everything on disk and re-derives every hash; `progress` hears bytes done and bytes in all.
    pub fn check(&self, progress: impl FnMut(u64, u64)) -> Result<CheckReport, CheckError> {
        self.inner.store.check(progress)
    }
}

/// How long re-applying the log may take at start. Bounded work (two or three segments), generous for a slow disk.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(limits::REQUEST_TIMEOUT_MS);

async fn outcome(
    receiver: oneshot::Receiver<UnitOutcome>,
) -> Result<crate::sequencer::UnitAppended, AppendError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, receiver).await {
        Ok(Ok(outcome)) => outcome,
        // The deadline passed, or the sequencer ended, with the write on its way.
        Ok(Err(_)) | Err(_) => Err(AppendError::UnknownOutcome),
    }
}

fn proof_error(error: ProveError<std::io::Error>) -> ReadError {
    match error {
        ProveError::Read(error) => error.into(),
        other => ReadError::Invalid(other.to_string()),
    }
}

/// How a node's store is opened.
pub(crate) fn store_options(options: &NodeOptions, index: IndexKind) -> StoreOptions {
    StoreOptions {
        log: LogOptions {
            segment_bytes_max: options.segment_bytes_max,
            segment_leaves_max: options.segment_leaves_max,
            ..LogOptions::default()
        },
        index,
        caches: CacheSizes {
            entry_bytes: options.entry_cache_bytes,
            index_bytes: options.index_cache_bytes,
            ..CacheSizes::default()
        },
    }
}
