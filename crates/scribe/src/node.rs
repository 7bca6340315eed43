//! The one handle to a running node: start it, append, read, prove, shut it down.
//!
//! HTTP and the command line speak to this and to nothing below it. It wires the parts together (store, consensus,
//! sequencer, publisher, peers) and holds what belongs to none of them: the identity of the ledger, the system entries
//! at its beginning, its place in a cluster, and the watch on free disk space. It decides nothing about entries.

mod background;
mod beginning;
mod entry;
mod handing_over;
mod members;
mod mending;
mod receipts;
mod rotation;
mod serving;
mod starting;
mod tiles;
mod upkeep;
mod writing;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_client::witness::WitnessAddress;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;
use scribe_proof::policy::Policy;
use scribe_proof::rotation::{LedgerKeys, Rotation};
use scribe_proof::tree::{HashReader, ProveError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::barrier::ReadBarrier;
use crate::cluster::files::{ClusterFiles, FilesError};
use crate::cluster::forward::Forwarder;
use crate::consensus::{ConsensusError, ConsensusNode, ConsensusOptions, Leadership};
use crate::keys::Keys;
use crate::limits;
use crate::peer::{PeerTimeouts, Server, TlsIdentity};
use crate::planted;
use crate::publisher::Publisher;
use crate::roster;
use crate::sequencer::{Preparer, Sequencer, SequencerStats, UnitOutcome};
use crate::store::cache::CacheSizes;
use crate::store::error::StoreError;
use crate::store::index::IndexKind;
use crate::store::lock::DirLock;
use crate::store::log::{LogOptions, LogStats};
use crate::store::scrub::Scrubber;
use crate::store::segment::SealedSegment;
use crate::store::{CheckError, CheckReport, OpenReport, ScanRange, Store, StoreOptions, Version};
use crate::world::World;

pub use background::ScrubStats;
pub use beginning::IMPORTING_FILE;
pub use entry::Entry;
pub use handing_over::HandedOver;
pub use members::{AdminError, Change, MemberStatus};
pub use mending::MendStats;
pub use rotation::Rotated;

pub use crate::consensus::HealthStatus;
pub use crate::error::{AppendError, PublishError, ReadError};
pub use crate::publisher::{OutsideStats, Published};
pub use crate::sequencer::{
    Appended, CarriedEntry, Condition, Operation, Transaction, TransactionAppended, Write,
    WriteKind,
};
pub use crate::store::{Applied, StoredTile};

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where entries live.
    pub data_dir: PathBuf,
    /// Where keys and the last signed head live; outside `data_dir` and its backups.
    pub key_dir: PathBuf,
    /// Host and port other nodes reach this one at; port 0 takes a free one.
    pub raft_addr: String,
    /// Host and port to listen on for other nodes, if it is not `raft_addr`.
    pub raft_listen: String,
    /// Whether nodes talk in plain text. Whoever reaches the port is believed then.
    pub raft_plaintext: bool,
    /// Whether this node never asks to become a voter.
    pub stay_learner: bool,
    /// How long to wait for peers.
    pub peer_timeouts: PeerTimeouts,
    /// Log entries this node may have received and not applied while it calls itself ready.
    pub ready_lag_max: u64,
    /// Host and port clients reach this one at.
    pub http_addr: String,
    /// Name of a new ledger; an existing one must have it.
    pub origin: Option<String>,
    /// Longest value accepted.
    pub value_length_max: usize,
    /// How often new entries are published.
    pub publish_interval_ms: u64,
    /// Outside witnesses that are asked to cosign checkpoints.
    pub witnesses: Vec<WitnessAddress>,
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
            raft_listen: String::new(),
            raft_plaintext: false,
            stay_learner: false,
            peer_timeouts: PeerTimeouts::default(),
            ready_lag_max: limits::READY_LAG_MAX,
            http_addr: "127.0.0.1:8001".to_owned(),
            origin: None,
            value_length_max: limits::VALUE_LENGTH_DEFAULT_MAX,
            publish_interval_ms: 1_000,
            witnesses: Vec::new(),
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
    /// The files that make this node a member of a cluster cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
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
            Self::Files(FilesError::Key(error)) => error.hint(),
            Self::Consensus(_) | Self::Genesis(_) | Self::Files(_) => None,
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
    /// Verifier keys: the ledger's newest first, then one it takes the place of, then the nodes'.
    pub verifier_keys: Vec<String>,
    /// A ready policy that demands the ledger's signature and a majority of the nodes.
    pub policy: String,
    /// The rotations of the ledger's key, signed notes, oldest first.
    pub rotations: Vec<String>,
    /// The nodes' verifier keys, each with the place of the entry that announces it.
    pub announcements: Vec<(String, LeafIndex)>,
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
    leadership: watch::Receiver<Leadership>,
    sequencer: Sequencer,
    forwarder: Forwarder,
    publisher: Publisher,
    barrier: ReadBarrier,
    preparer: Preparer,
    keys: Arc<Keys>,
    /// One process at a time signs with the keys of a directory; let go at shutdown.
    key_lock: Mutex<Option<DirLock>>,
    options: NodeOptions,
    open_report: OpenReport,
    disk_full: Arc<AtomicBool>,
    /// Whether the node is about to stop: it still serves, and should not be sent anything new.
    leaving: AtomicBool,
    /// Whether the ledger was seen to have an entry.
    begun: AtomicBool,
    scrub: Arc<ScrubStats>,
    scrubber: Mutex<Option<Scrubber>>,
    mended: Arc<MendStats>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What makes this node a member of a cluster; `None` on a node that runs alone.
    files: Option<ClusterFiles>,
    tls: Option<Arc<TlsIdentity>>,
    raft_server: Mutex<Option<Server>>,
    /// Held while the ledger's key is replaced: one at a time.
    rotating: tokio::sync::Mutex<()>,
}

impl Node {
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

    // Reads. All but the barrier are synchronous: mostly a few microseconds from a cache or the page cache.

    /// Waits until everything acknowledged before this call is applied here, and returns the tree size to read at.
    /// Reads at that size are linearizable.
    pub async fn barrier(&self) -> Result<TreeSize, ReadError> {
        // planted
        if planted::has("read-without-barrier") && self.health().is_leader {
            return Ok(self.applied_size());
        }
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
        // planted
        let sealed = self.inner.store.sealed_applied().tree_size;
        let skips = from.get() > 0 && from.get() == sealed.get() && planted::has("watch-skips");
        let from = if skips { from.next() } else { from };
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

    /// The checkpoint for a receipt of an entry below `size`: the one that most outside witnesses cosigned, or else the
    /// newest. `None` if none covers it.
    pub fn checkpoint_covering(&self, size: TreeSize) -> Option<Arc<Published>> {
        self.inner.publisher.covering(size)
    }

    /// The outside witnesses this node is configured with, by the names of their keys, and what is known of each.
    pub fn outside_witnesses(&self) -> impl Iterator<Item = (&str, &OutsideStats)> {
        let outside = self.inner.publisher.outside();
        outside.map(|(key, stats)| (key.name(), stats))
    }

    /// Waits for a checkpoint that covers `at_least` leaves, and has one made if need be.
    pub async fn publish(&self, at_least: TreeSize) -> Result<Arc<Published>, PublishError> {
        self.inner
            .publisher
            .wait(at_least, Duration::from_millis(limits::PUBLISH_WAIT_MS))
            .await
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

    /// What the ledger says about itself: its key, the keys its voters announced, and a policy that demands a majority
    /// of them.
    pub fn ledger(&self) -> LedgerInfo {
        let keys = &self.inner.keys;
        let voters = self.inner.consensus.voters();
        // A key that cannot be read is left out: what is here is a hint, and the client's policy is its own.
        let mut announced =
            roster::announcements(&self.inner.store, &keys.origin).unwrap_or_default();
        announced.retain(|id, _| voters.contains(id));
        let named = roster::ledger_keys(&self.inner.store, &keys.origin).unwrap_or_default();
        let named = named.unwrap_or_else(|| LedgerKeys::begin(keys.ledger.first().clone()));
        let now_ms = self.inner.store.applied().last_timestamp_ms;
        let mut verifier_keys: Vec<String> = named
            .signing(now_ms)
            .iter()
            .map(|key| key.to_text())
            .collect();
        verifier_keys.extend(announced.values().map(|(key, _)| key.to_text()));
        let nodes = announced
            .iter()
            .map(|(id, (key, _))| (format!("node-{id}"), key.clone()))
            .collect();
        let policy = Policy::majority(named.newest().clone(), nodes);
        LedgerInfo {
            origin: keys.origin.clone(),
            verifier_keys,
            policy: policy.map(|policy| policy.to_text()).unwrap_or_default(),
            rotations: named.rotations().iter().map(Rotation::to_text).collect(),
            announcements: announced
                .into_values()
                .map(|(key, index)| (key.to_text(), index))
                .collect(),
        }
    }

    // Operations.

    /// How the node is, as it sees itself.
    pub fn health(&self) -> HealthStatus {
        self.inner.consensus.health_check()
    }

    /// Whether the node lost the end of its log to damage and does not have it back. For the simulated world.
    #[cfg(feature = "simulation")]
    pub fn is_restoring(&self) -> bool {
        self.inner.consensus.restoring().is_some()
    }

    /// Last index of the log, counted from 1, that is both applied and on this node's disk: whatever happens to the node,
    /// it has the log up to here after a start. 0 if there is none. For the simulated world, which holds nodes to it.
    #[cfg(feature = "simulation")]
    pub fn kept_log_index(&self) -> u64 {
        let flushed = self.inner.store.log().flushed();
        let applied = self.inner.store.applied().last_log_id;
        let index = |id: Option<crate::store::frame::LogId>| id.map_or(0, |id| id.index.0);
        index(flushed).min(index(applied))
    }

    /// Term of the vote that is on this node's disk: it may never vote in an earlier one. For the simulated world, like
    /// [`Node::kept_log_index`].
    #[cfg(feature = "simulation")]
    pub fn kept_term(&self) -> u64 {
        self.inner.store.log().vote().map_or(0, |vote| vote.term)
    }

    /// Everybody who belongs to the cluster by the newest membership that is committed and that this node has heard of,
    /// and whether they vote: who is missing is gone for good. For the simulated world, like [`Node::kept_log_index`].
    #[cfg(feature = "simulation")]
    pub fn committed_members(&self) -> std::collections::BTreeMap<u64, bool> {
        self.inner.consensus.committed_members()
    }

    /// Whether the node should be sent traffic, and if not, why.
    pub fn ready(&self) -> Result<(), String> {
        if self.inner.leaving.load(Ordering::Relaxed) {
            return Err("the node is stopping".to_owned());
        }
        if let Some(reason) = self.inner.keys.withheld() {
            return Err(reason.to_owned());
        }
        let health = self.health();
        if let Some(fatal) = health.fatal {
            return Err(fatal);
        }
        if let Some(reason) = self.inner.store.log().poisoned() {
            return Err(reason);
        }
        if let Some(removed) = self.inner.consensus.removed() {
            return Err(removed);
        }
        if let Some(reason) = self.inner.consensus.restoring() {
            return Err(reason.to_owned());
        }
        if self.inner.store.index_is_incomplete() {
            return Err("the key index lacks a segment that is damaged".to_owned());
        }
        if health.current_leader.is_none() {
            return Err("no leader is known".to_owned());
        }
        self.inner.consensus.in_touch()?;
        let last = health.last_log_index.map_or(0, |index| index.0);
        let applied = health.last_applied.map_or(0, |index| index.0);
        let lag = last.saturating_sub(applied);
        if lag > self.inner.options.ready_lag_max {
            return Err(format!(
                "{lag} log entries are not applied yet, at most {} are allowed",
                self.inner.options.ready_lag_max
            ));
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

    /// The sealed segments, oldest first: identical on every node.
    pub fn sealed_list(&self) -> Arc<Vec<SealedSegment>> {
        self.inner.store.log().sealed()
    }

    /// What the scrubber has looked at and found, for metrics.
    pub fn scrub_stats(&self) -> &ScrubStats {
        &self.inner.scrub
    }

    /// What was damaged and mended, for metrics.
    pub fn mend_stats(&self) -> &MendStats {
        &self.inner.mended
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
        // What a majority has is applied here, perhaps before it is on this disk.
        if let Some(applied) = self.inner.store.applied().last_log_id {
            self.inner.store.log().wait_flushed(applied)?;
        }
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
        restore: None,
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
