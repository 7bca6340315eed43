//! The cluster: its nodes by their places, and what an operator does with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scribe_client::wire::{Health, HexHash, Member};

use crate::disk::{Disk, Power};
use crate::host::{self, must, text, until};
use crate::network::Network;
use crate::node::Node;
use crate::trouble::{Result, Trouble, harness, violation};

/// How long nodes may take to be ready, to agree, to change their membership.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Free space below which the leader refuses writes, so that small disks can be used.
const DISK_RESERVE: &str = "8MiB";
/// The nodes a cluster begins with.
const NODES: u64 = 3;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    pub binary: PathBuf,
    pub disk_mib: u64,
    /// For every node: variables such as LD_PRELOAD.
    pub environment: Vec<(String, String)>,
}

/// What the members have, when all have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub tree_size: u64,
    pub root: HexHash,
}

/// Nodes, running or not. Killed when dropped.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    pub network: Arc<Network>,
    pub power: Power,
    pub options: Options,
    /// For images, mounts and what nodes say.
    pub directory: PathBuf,
    disks_made: u64,
}

impl Cluster {
    /// Makes a cluster of three with `scribe cluster init`, starts it, and waits until it is ready.
    pub async fn start(
        network: Arc<Network>,
        directory: &Path,
        options: Options,
    ) -> Result<Cluster> {
        std::fs::create_dir_all(directory)?;
        let init = directory.join("init");
        let mut words: Vec<String> = [
            "cluster",
            "init",
            "--origin",
            "torture.example/ledger",
            "--out",
        ]
        .map(String::from)
        .into();
        words.push(text(&init).to_owned());
        for place in 1..=NODES {
            let (raft, http) = (network.raft_addr(place), network.http_addr(place));
            words.extend(["--node".into(), format!("{place}={raft},{http}")]);
        }
        let mut command = Command::new(&options.binary);
        command.args(&words);
        host::finish(command, "").map_err(Trouble::Harness)?;
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            network,
            power: Power::new()?,
            options,
            directory: directory.to_owned(),
            disks_made: 0,
        };
        for place in 1..=NODES {
            let disk = cluster.new_disk(place)?;
            let made = init.join(format!("node-{place}")).join("keys");
            must(&["cp", "-a", text(&made), text(&disk.path().join("keys"))])?;
            must(&["sync", "-f", text(disk.path())])?;
            let mut node = Node::new(place, place, disk, directory);
            node.environment = cluster.options.environment.clone();
            node.flags = ["--member", "--disk-reserve", DISK_RESERVE]
                .map(String::from)
                .into();
            cluster.nodes.insert(place, node);
        }
        std::fs::remove_dir_all(&init)?;
        for place in cluster.places() {
            cluster.start_node(place)?;
        }
        cluster.ready().await?;
        let client = cluster.node(1)?.client(&cluster.network)?;
        until("every node's key is announced", PATIENCE, async || {
            let ledger = client.ledger().await;
            ledger.is_ok_and(|ledger| ledger.verifier_keys.len() == NODES as usize + 1)
        })
        .await?;
        Ok(cluster)
    }

    /// A new disk for a place; the name tells it from those that were there before.
    fn new_disk(&mut self, place: u64) -> Result<Disk> {
        self.disks_made += 1;
        let name = format!("place-{place}-disk-{}", self.disks_made);
        Disk::new(&self.directory, &name, self.options.disk_mib)
    }

    /// The places that have a node.
    pub fn places(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Those whose node runs.
    pub fn running(&self) -> Vec<u64> {
        let running = self.nodes.values().filter(|node| node.is_running());
        running.map(|node| node.place).collect()
    }

    pub fn node(&self, place: u64) -> Result<&Node> {
        let node = self.nodes.get(&place);
        node.ok_or_else(|| Trouble::Harness(format!("there is no node at place {place}")))
    }

    pub fn node_mut(&mut self, place: u64) -> Result<&mut Node> {
        let node = self.nodes.get_mut(&place);
        node.ok_or_else(|| Trouble::Harness(format!("there is no node at place {place}")))
    }

    /// The URLs of all nodes.
    pub fn urls(&self) -> Vec<String> {
        let places = self.nodes.keys();
        places
            .map(|place| Node::url(&self.network, *place))
            .collect()
    }

    pub fn start_node(&mut self, place: u64) -> Result<()> {
        self.start_node_with(place, &[])
    }

    fn start_node_with(&mut self, place: u64, more: &[&str]) -> Result<()> {
        let (network, binary) = (Arc::clone(&self.network), self.options.binary.clone());
        self.node_mut(place)?.start(&network, &binary, more)
    }

    /// How a node is by its own account; `None` if it does not answer.
    pub async fn health(&self, place: u64) -> Option<Health> {
        let client = self.node(place).ok()?.client(&self.network).ok()?;
        client.health().await.ok()
    }

    /// Waits until every node that runs is ready. A node that ended by itself meanwhile is a violation, since nobody asked
    /// it to; but one whose disk was full, and that says so, is started again.
    pub async fn ready(&mut self) -> Result<Duration> {
        let began = Instant::now();
        for place in self.running() {
            self.ready_node(place).await?;
        }
        Ok(began.elapsed())
    }

    /// Waits until this node is ready.
    pub async fn ready_node(&mut self, place: u64) -> Result<()> {
        let client = self.node(place)?.client(&self.network)?;
        let began = Instant::now();
        let mut reason = String::from("no answer");
        loop {
            match client.health().await {
                Ok(health) if health.reason.is_none() => return Ok(()),
                Ok(health) => reason = health.reason.unwrap_or_default(),
                Err(error) => {
                    if let Some(problem) = error.problem() {
                        reason = problem.detail.clone();
                    }
                }
            }
            let node = self.node_mut(place)?;
            if let Some(status) = node.ended()? {
                if !(node.was_full && status.code() == Some(2) && node.names_a_full_disk()) {
                    return violation(format!(
                        "node {place} ended by itself, {status}: {}",
                        node.last_words()
                    ));
                }
                self.start_node(place)?;
                continue;
            }
            if began.elapsed() > PATIENCE {
                let said = node.last_words();
                return violation(format!(
                    "node {place} was not ready within {PATIENCE:?}: {reason}; it said: {said}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every running node names the same leader, which runs. Its place.
    pub async fn leader(&self) -> Result<u64> {
        let mut leader = None;
        until("every node names the same leader", PATIENCE, async || {
            leader = None;
            for place in self.running() {
                let named = self
                    .health(place)
                    .await
                    .and_then(|health| health.current_leader);
                if named.is_none() || leader.is_some() && leader != named {
                    leader = None;
                    return false;
                }
                leader = named;
            }
            let place = leader.and_then(|id| self.place_of(id));
            place.is_some_and(|place| self.nodes[&place].is_running())
        })
        .await?;
        match leader.and_then(|id| self.place_of(id)) {
            Some(place) => Ok(place),
            None => harness("no node runs"),
        }
    }

    /// Whether a node answers, and says that it leads.
    pub async fn says_it_leads(&self, place: u64) -> bool {
        let named = self.health(place).await;
        let named = named.and_then(|health| health.current_leader);
        named.is_some_and(|id| self.place_of(id) == Some(place))
    }

    /// Running nodes that do not lead.
    pub async fn followers(&self) -> Result<Vec<u64>> {
        let leader = self.leader().await?;
        let running = self.running().into_iter();
        Ok(running.filter(|place| *place != leader).collect())
    }

    pub fn place_of(&self, id: u64) -> Option<u64> {
        let mut nodes = self.nodes.values();
        nodes.find(|node| node.id == id).map(|node| node.place)
    }

    /// The members as one of the running nodes sees them.
    pub async fn members(&self) -> Option<Vec<Member>> {
        for place in self.running() {
            let client = self.node(place).ok()?.client(&self.network).ok()?;
            if let Ok(members) = client.members().await {
                return Some(members);
            }
        }
        None
    }

    /// Waits until all members have the same tree size, which they do only while nobody writes, and checks that they
    /// have the same root at it.
    pub async fn agreed(&self) -> Result<Agreed> {
        let mut trees = Vec::new();
        until(
            "all members have the same tree size",
            PATIENCE,
            async || {
                let Some(members) = self.members().await else {
                    return false;
                };
                trees = members
                    .into_iter()
                    .map(|member| member.tree_size.zip(member.root))
                    .collect();
                let sizes = trees.iter().map(|tree| tree.map(|(size, _)| size));
                trees[0].is_some()
                    && sizes
                        .into_iter()
                        .all(|size| size == trees[0].map(|(size, _)| size))
            },
        )
        .await?;
        match trees[0] {
            Some((tree_size, root)) if trees.iter().all(|tree| *tree == trees[0]) => {
                Ok(Agreed { tree_size, root })
            }
            _ => violation(format!(
                "members with the same tree size have different roots: {trees:?}"
            )),
        }
    }

    /// Runs a verb of the binary on a node's machine, as its operator does.
    ///
    /// # Errors
    /// What it said if it failed, which may be a good reason.
    pub fn operate(
        &self,
        place: u64,
        words: &[&str],
    ) -> Result<std::result::Result<String, String>> {
        let mut command = Command::new(&self.options.binary);
        command
            .args(words)
            .args(["--server", "http://127.0.0.1:8001"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = self.network.spawn(place, command)?.wait_with_output()?;
        Ok(match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        })
    }

    /// Runs a verb of the binary on a node's machine until it succeeds: elections may be in its way.
    pub async fn operate_until_done(&self, place: u64, words: &[&str]) -> Result<String> {
        let began = Instant::now();
        loop {
            match self.operate(place, words)? {
                Ok(said) => return Ok(said),
                Err(why) if began.elapsed() > PATIENCE => {
                    return violation(format!(
                        "`scribe {}` was refused for {PATIENCE:?}: {why}",
                        words.join(" ")
                    ));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// A new node with an empty disk at a free place joins as a learner, by a token of the node at `by`. Returns its
    /// place once it has caught up.
    pub async fn join(&mut self, by: u64) -> Result<u64> {
        let free = self
            .network
            .places()
            .find(|place| !self.nodes.contains_key(place));
        let place = free.ok_or(Trouble::Harness("no place is free for a new node".into()))?;
        let token = self.operate_until_done(by, &["cluster", "token"]).await?;
        let disk = self.new_disk(place)?;
        std::fs::write(disk.path().join("token"), token.trim())?;
        let mut node = Node::new(place, 0, disk, &self.directory);
        node.environment = self.options.environment.clone();
        node.flags = ["--disk-reserve", DISK_RESERVE].map(String::from).into();
        self.nodes.insert(place, node);
        self.start_node_with(place, &["--join", "token", "--learner"])?;
        let address = self.network.raft_addr(place);
        let mut id = None;
        let caught_up = until("a node that joined has caught up", PATIENCE, async || {
            // Seen by the one that let it in: others may not have heard of it.
            let Some(members) = self.members().await else {
                return false;
            };
            let member = members.iter().find(|member| member.raft_addr == address);
            id = member.map(|member| member.node_id);
            member
                .is_some_and(|member| member.reachable && member.lag.is_some_and(|lag| lag < 1_000))
        })
        .await;
        if let Err(trouble) = caught_up {
            return violation(format!(
                "{trouble}; it said: {}",
                self.node(place)?.last_words()
            ));
        }
        let node = self.node_mut(place)?;
        node.id = id.ok_or(Trouble::Harness("a node joined without an id".into()))?;
        node.flags.push("--member".into());
        Ok(place)
    }

    /// A new node takes the place of one that is lost, as the operator's manual says, and the old one's disk is thrown
    /// away. Returns the new one's place.
    pub async fn replace(&mut self, lost: u64) -> Result<u64> {
        self.node_mut(lost)?.kill()?;
        let by = self.leader().await?;
        let new = self.join(by).await?;
        let (old_id, new_id) = (
            self.node(lost)?.id.to_string(),
            self.node(new)?.id.to_string(),
        );
        self.operate_until_done(by, &["cluster", "replace", &old_id, "--by", &new_id])
            .await?;
        self.scrap(lost);
        self.ready_node(new).await?;
        Ok(new)
    }

    /// A node that is no member any more goes, and its disk with it.
    pub fn scrap(&mut self, place: u64) {
        if let Some(mut node) = self.nodes.remove(&place) {
            node.disk.throw_away();
        }
    }

    /// Cuts the power of these nodes at the same moment, and starts them again.
    pub fn power_cut(&mut self, places: &[u64]) -> Result<()> {
        for place in places {
            self.node(*place)?.disk.leave_unsynced()?;
        }
        let paths: Vec<PathBuf> = places
            .iter()
            .filter_map(|place| self.nodes.get(place))
            .map(|node| node.disk.path().to_owned())
            .collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        // Processors stop first, as without power. A sync that is under way when a file system is shut down may be answered
        // with success although it wrote nothing (about one in a hundred is): a process that went on would acknowledge it.
        for place in places {
            self.node_mut(*place)?.pause()?;
        }
        for place in places {
            self.node(*place)?.stands_still()?;
        }
        self.power.cut(&paths)?;
        for place in places {
            self.node_mut(*place)?.kill_now()?;
        }
        for place in places {
            let node = self.node_mut(*place)?;
            node.kill()?;
            node.disk.unmount()?;
            node.disk.mount()?;
            if !node.disk.lost_what_was_unsynced()? {
                return harness("a power cut kept what was never synced: there was no cut");
            }
        }
        for place in places {
            self.start_node(*place)?;
        }
        Ok(())
    }
}
