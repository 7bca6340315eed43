//! Stand-in for the node: the contract's signatures, nothing behind them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Metadata};
use scribe_proof::receipt::Receipt;
use tokio::sync::watch;

use crate::error::{AppendError, PublishError, ReadError};
use crate::ledger::batch::PrivateRecord;
use crate::sequencer::{Appended, CarriedEntry, Transaction, TransactionAppended, Write};

#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    pub data_dir: PathBuf,
    pub key_dir: PathBuf,
    pub raft_addr: String,
    pub http_addr: String,
    pub origin: Option<String>,
    pub value_length_max: usize,
    pub publish_interval_ms: u64,
    pub segment_bytes_max: u64,
    pub segment_leaves_max: u64,
    pub disk_reserve_bytes: u64,
    pub index_cache_bytes: u64,
    pub entry_cache_bytes: u64,
    pub scrub_bytes_per_second: u64,
}

#[derive(Debug, Clone)]
pub struct Node(watch::Receiver<TreeSize>);

#[derive(Debug)]
pub struct Published {
    pub size: TreeSize,
    pub root: Hash,
    pub note: String,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub index: LeafIndex,
    pub leaf: Bytes,
    pub private: Option<PrivateRecord>,
}

impl Entry {
    pub fn parsed(&self) -> Result<Leaf<'_>, ReadError> {
        Leaf::parse(&self.leaf)
            .map_err(|error| ReadError::Damaged(format!("leaf {}: {error}", self.index)))
    }
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.leaf)
    }
    pub fn metadata(&self) -> Result<Metadata, ReadError> {
        Ok(Metadata::default())
    }
    pub fn value(&self) -> Bytes {
        Bytes::new()
    }
    pub fn value_length(&self) -> usize {
        0
    }
}

#[derive(Debug, Clone, Copy)]
pub struct VersionSummary {
    pub index: LeafIndex,
    pub kind: LeafKind,
}

#[derive(Debug)]
pub struct LedgerInfo {
    pub origin: String,
    pub verifier_keys: Vec<String>,
    pub policy: String,
}

#[derive(Debug, Clone, Copy)]
pub struct LogIndex(pub u64);

#[derive(Debug)]
pub struct HealthStatus {
    pub node_id: u64,
    pub is_leader: bool,
    pub current_leader: Option<u64>,
    pub state: &'static str,
    pub last_log_index: Option<LogIndex>,
    pub last_applied: Option<LogIndex>,
    pub current_term: u64,
}


type Read<T> = Result<T, ReadError>;
fn no<T>() -> Read<T> {
    Err(ReadError::Unavailable("stand-in".into()))
}
fn not() -> AppendError {
    AppendError::Unavailable("stand-in".into())
}

impl Node {
    pub async fn start(_: NodeOptions) -> Result<Node, String> {
        Ok(Node(watch::channel(TreeSize::EMPTY).1))
    }
    pub async fn shutdown(&self) {}
    pub fn fatal(&self) -> impl Future<Output = String> {
        std::future::pending()
    }
    pub async fn append(&self, _: Write) -> Result<Appended, AppendError> {
        Err(not())
    }
    pub async fn append_many(&self, writes: Vec<Write>) -> Vec<Result<Appended, AppendError>> {
        writes.iter().map(|_| Err(not())).collect()
    }
    pub async fn append_transaction(
        &self,
        _: Transaction,
    ) -> Result<TransactionAppended, AppendError> {
        Err(not())
    }
    pub async fn import(&self, _: Vec<CarriedEntry>) -> Result<TreeSize, AppendError> {
        Err(not())
    }
    pub async fn barrier(&self) -> Read<TreeSize> {
        no()
    }
    pub fn applied_size(&self) -> TreeSize {
        TreeSize::EMPTY
    }
    pub async fn wait_size(&self, _: TreeSize, _: Duration) -> Read<()> {
        no()
    }
    pub fn latest(&self, _: &[u8], _: TreeSize) -> Read<Option<Entry>> {
        no()
    }
    pub fn version(&self, _: &[u8], _: LeafIndex) -> Read<Option<Entry>> {
        no()
    }
    pub fn history(&self, _: &[u8], _: TreeSize, _: usize) -> Read<Vec<Entry>> {
        no()
    }
    pub fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: TreeSize,
        _: usize,
    ) -> Read<Vec<(Bytes, VersionSummary)>> {
        no()
    }
    pub fn entry(&self, _: LeafIndex) -> Read<Option<Entry>> {
        no()
    }
    pub fn entries(&self, _: LeafIndex, _: usize, _: usize) -> Read<Vec<Entry>> {
        no()
    }
    pub fn size_at_time(&self, _: u64) -> Read<TreeSize> {
        no()
    }
    pub fn watch_applied(&self) -> watch::Receiver<TreeSize> {
        self.0.clone()
    }
    pub fn checkpoint(&self) -> Option<Arc<Published>> {
        None
    }
    pub async fn publish(&self, _: TreeSize) -> Result<Arc<Published>, PublishError> {
        Err(PublishError::NotPublished)
    }
    pub fn receipt(&self, _: &Entry, _: &Published) -> Read<Receipt> {
        no()
    }
    pub fn inclusion(&self, _: LeafIndex, _: TreeSize) -> Read<(Hash, Vec<Hash>)> {
        no()
    }
    pub fn consistency(&self, _: TreeSize, _: TreeSize) -> Read<Vec<Hash>> {
        no()
    }
    pub fn root_at(&self, _: TreeSize) -> Read<Hash> {
        no()
    }
    pub fn ledger(&self) -> LedgerInfo {
        LedgerInfo {
            origin: String::new(),
            verifier_keys: vec![],
            policy: String::new(),
        }
    }
    pub fn ready(&self) -> Result<(), String> {
        Err("stand-in".into())
    }
    pub fn health(&self) -> HealthStatus {
        HealthStatus {
            node_id: 1,
            is_leader: false,
            current_leader: None,
            state: "follower",
            last_log_index: None,
            last_applied: None,
            current_term: 0,
        }
    }
}
