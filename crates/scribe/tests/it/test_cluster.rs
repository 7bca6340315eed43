//! `TestCluster`: several whole nodes in one process, over real sockets with real certificates.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use scribe::cluster::files::create_cluster;
use scribe::cluster::join::join;
use scribe::consensus::{ConsensusOptions, PeerAddress};
use scribe::node::{Node, NodeOptions, StartError};
use scribe::world::World;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use tempfile::TempDir;

use crate::test_ledger;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestCluster {
    nodes: BTreeMap<u64, Node>,
    options: BTreeMap<u64, NodeOptions>,
    /// Removed with everything in it at the end.
    directory: TempDir,
}

/// A port nobody listens on now.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Waits until `what` holds, and says what it was if it never does.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, holds).await;
}

/// As [`eventually`], for what may take longer.
pub async fn eventually_within(
    patience: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl TestCluster {
    /// Starts a cluster of `count` voters and waits until one leads.
    pub async fn new(count: u64) -> Self {
        Self::with(count, |_| {}).await
    }

    /// As [`Self::new`], with options changed.
    pub async fn with(count: u64, change: impl Fn(&mut NodeOptions)) -> Self {
        let cluster = Self::begin(count, change).await;
        cluster.leader().await;
        eventually("every node's key is announced everywhere", async || {
            cluster
                .nodes
                .values()
                .all(|node| node.ledger().verifier_keys.len() as u64 == 1 + count)
        })
        .await;
        cluster
    }

    /// As [`Self::with`], without waiting for anything.
    pub async fn begin(count: u64, change: impl Fn(&mut NodeOptions)) -> Self {
        if let Ok(filter) = std::env::var("SCRIBE_TEST_LOG") {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer()
                .try_init();
        }
        let directory = tempfile::tempdir().unwrap();
        let members: BTreeMap<u64, PeerAddress> = (1..=count)
            .map(|id| {
                let address = PeerAddress {
                    raft_addr: free_address(),
                    http_addr: "127.0.0.1:1".to_owned(),
                };
                (id, address)
            })
            .collect();
        let root = directory.path().to_owned();
        let home = |id: u64| root.join(format!("node-{id}"));
        create_cluster(&members, None, &World::real(), |id| home(id).join("keys")).unwrap();
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            options: BTreeMap::new(),
            directory,
        };
        for (id, address) in members {
            let mut options = cluster.options_for(home(id), &address.raft_addr);
            change(&mut options);
            cluster.options.insert(id, options);
            cluster.start(id).await;
        }
        cluster
    }

    /// Options of a node in `home` reached at `raft_addr`.
    pub fn options_for(&self, home: PathBuf, raft_addr: &str) -> NodeOptions {
        NodeOptions {
            raft_addr: raft_addr.to_owned(),
            http_addr: "127.0.0.1:1".to_owned(),
            consensus: ConsensusOptions {
                heartbeat_interval_ms: 100,
                election_timeout_min_ms: 500,
                election_timeout_max_ms: 1_000,
                ..ConsensusOptions::default()
            },
            ..test_ledger::options(&home)
        }
    }

    pub async fn start(&mut self, id: u64) {
        let node = Node::start(self.options[&id].clone()).await.unwrap();
        self.nodes.insert(id, node);
    }

    /// Lets a new node in by a token of node `through` and starts it. Returns its id.
    pub async fn join(&mut self, through: u64) -> u64 {
        let token = self.node(through).join_token(PATIENCE).unwrap();
        let home = self
            .directory
            .path()
            .join(format!("joined-{}", token.expires_ms));
        let options = self.options_for(home, &free_address());
        let address = PeerAddress {
            raft_addr: options.raft_addr.clone(),
            http_addr: "127.0.0.1:1".to_owned(),
        };
        let files = join(&options.key_dir, &token, &address).await.unwrap();
        self.options.insert(files.node_id, options);
        self.start(files.node_id).await;
        files.node_id
    }

    /// Starts a node that was stopped at an address it did not have before.
    pub async fn start_elsewhere(&mut self, id: u64) {
        if let Some(options) = self.options.get_mut(&id) {
            options.raft_addr = free_address();
        }
        self.start(id).await;
    }

    pub async fn stop(&mut self, id: u64) {
        if let Some(node) = self.nodes.remove(&id) {
            node.shutdown().await;
        }
    }

    pub async fn stop_all(mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.shutdown().await;
        }
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    /// Starts a node that may refuse to.
    pub async fn try_start(&mut self, id: u64) -> Result<(), StartError> {
        let node = Node::start(self.options[&id].clone()).await?;
        self.nodes.insert(id, node);
        Ok(())
    }

    pub fn options(&self, id: u64) -> &NodeOptions {
        &self.options[&id]
    }

    pub fn key_dir(&self, id: u64) -> PathBuf {
        self.options[&id].key_dir.clone()
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.options[&id].data_dir.clone()
    }

    pub fn raft_addr(&self, id: u64) -> String {
        self.options[&id].raft_addr.clone()
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Waits until every running node agrees on a leader that runs, and returns it.
    pub async fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("every node knows the same leader", async || {
            let mut seen = self.nodes.values().map(|node| node.health().current_leader);
            leader = seen.next().flatten();
            let same = leader.is_some_and(|id| {
                self.nodes
                    .get(&id)
                    .is_some_and(|node| node.health().is_leader)
            });
            same && self
                .nodes
                .values()
                .all(|node| node.health().current_leader == leader)
        })
        .await;
        leader.unwrap()
    }

    /// Any running node that does not lead.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.all_but(leader)[0]
    }

    /// The running nodes but this one, by id.
    pub fn all_but(&self, node: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|id| *id != node).collect()
    }

    /// Waits until every running node has applied as much as the one that has most, and checks that their trees are
    /// equal. Returns size and root.
    pub async fn same_everywhere(&self) -> (TreeSize, Hash) {
        eventually("every node has applied the same", async || {
            let mut sizes = self.nodes.values().map(Node::applied_size);
            let first = sizes.next();
            sizes.all(|size| Some(size) == first)
        })
        .await;
        let size = self.nodes.values().next().unwrap().applied_size();
        let mut roots = self.nodes.values().map(|node| node.root_at(size).unwrap());
        let root = roots.next().unwrap();
        assert!(roots.all(|other| other == root), "roots differ at {size}");
        (size, root)
    }
}
