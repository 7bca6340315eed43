//! `Processes`: a cluster of real nodes, each a process of the real binary, with TLS between them.
//!
//! The directories come from `scribe cluster init` and each node is a `scribe serve` of its own. `scribe cluster up`
//! would be shorter, but does not start a node again that was killed, which is what most of these tests are about.
//!
//! `SCRIBE_BIN` names another binary to test, such as a release build. A test that fails leaves its directory behind
//! and says where; what the nodes said is in `node-<id>/said` there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use scribe_client::wire::Cluster;
use scribe_client::{Client, RetryPolicy};
use scribe_proof::hash::sha256;
use scribe_proof::leaf::SystemKind;
use tempfile::TempDir;

use crate::test_cluster::eventually;

/// How long a client of these tests goes on asking.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn binary() -> PathBuf {
    match std::env::var_os("SCRIBE_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_scribe").into(),
    }
}

/// A whole number from the environment, for runs by hand that are longer than CI's.
pub fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A command of the binary, in this directory, that no setting of the caller's reaches.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCRIBE_")) {
        command.env_remove(name);
    }
    command
}

/// An address that stays a node's own while it is down: its port is below those the system gives to outgoing
/// connections, one of which could otherwise hold it when the node comes back.
pub fn lasting_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let _ = NEXT.compare_exchange(
        0,
        rand::rng().random_range(11_000..29_000),
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    loop {
        let address = format!("127.0.0.1:{}", NEXT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Sends a signal by its name, such as `TERM`.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// One node: its directories, its addresses, and its process while that runs.
pub struct NodeProcess {
    pub home: PathBuf,
    pub http_addr: String,
    pub raft_addr: String,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node that is not started, in a new directory.
    pub fn new(home: PathBuf) -> Self {
        std::fs::create_dir_all(&home).unwrap();
        Self {
            home,
            http_addr: lasting_address(),
            raft_addr: lasting_address(),
            child: None,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http_addr)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// `scribe serve` with the directories and addresses of this node.
    pub fn serve(&self, more: &[&str]) -> Command {
        let mut command = command(&self.home);
        command
            .args(["serve", "--data-dir", "data", "--key-dir", "keys"])
            .args([
                "--http-addr",
                &self.http_addr,
                "--raft-addr",
                &self.raft_addr,
            ])
            .args(more);
        command
    }

    pub fn start(&mut self, more: &[&str]) {
        let said = self.home.join("said");
        let said = OpenOptions::new().create(true).append(true).open(said);
        // The process stops when this end of its standard input goes away, whatever becomes of the test.
        let child = self
            .serve(more)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said.unwrap())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Runs `scribe serve` where it is expected to refuse: its exit code and what it says.
    pub fn refused(&self, more: &[&str]) -> (i32, String) {
        let output = self.serve(more).arg("--stop-with-stdin").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `kill -9`. The process is gone when this returns.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits until it has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        let pid = self.pid();
        signal(pid, "TERM");
        let mut status = None;
        let child = self.child.as_mut().unwrap();
        eventually("the process ends after SIGTERM", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        self.child = None;
        status.unwrap()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    pub fn key_dir(&self) -> PathBuf {
        self.home.join("keys")
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.home.join("said")).unwrap_or_default()
    }

    /// The values of `/metrics` by their names with labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut stream = TcpStream::connect(&self.http_addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let values = answer.lines().filter(|line| line.starts_with("scribe_"));
        values
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// One metric, summed over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let values = self.metrics().into_iter().filter(|(full, _)| {
            let rest = full.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        values.map(|(_, value)| value as u64).sum()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The nodes of one cluster, by id. Killed when dropped.
pub struct Processes {
    pub nodes: BTreeMap<u64, NodeProcess>,
    directory: TempDir,
}

impl Processes {
    /// Makes a cluster of three with `scribe cluster init`, starts it, and waits until it is ready.
    pub async fn start() -> Self {
        let mut directory = tempfile::tempdir().unwrap();
        directory.disable_cleanup(true);
        let out = directory.path().join("cluster");
        let mut init = command(directory.path());
        init.args(["cluster", "init", "--out"]).arg(&out);
        let mut addresses = BTreeMap::new();
        for id in 1..=3 {
            let (raft, http) = (lasting_address(), lasting_address());
            init.args(["--node", &format!("{id}={raft},{http}")]);
            addresses.insert(id, (raft, http));
        }
        let made = init.output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "{said}");
        let nodes = addresses.into_iter().map(|(id, (raft_addr, http_addr))| {
            let home = out.join(format!("node-{id}"));
            let node = NodeProcess {
                home,
                http_addr,
                raft_addr,
                child: None,
            };
            (id, node)
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            directory,
        };
        for node in cluster.nodes.values_mut() {
            node.start(&[]);
        }
        cluster.all_ready().await;
        let client = cluster.client(1);
        eventually("every node's key is announced", async || {
            let ledger = client.ledger().await;
            ledger.is_ok_and(|ledger| ledger.verifier_keys.len() == 4)
        })
        .await;
        let first = client.entry(0).send().await.unwrap();
        assert_eq!(first.subtype, Some(SystemKind::Genesis as u16), "{first:?}");
        cluster
    }

    pub fn node(&self, id: u64) -> &NodeProcess {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut NodeProcess {
        self.nodes.get_mut(&id).unwrap()
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// The nodes but this one, by id.
    pub fn all_but(&self, node: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|id| *id != node).collect()
    }

    /// A directory for a further node, not started.
    pub fn new_node(&self, name: &str) -> NodeProcess {
        NodeProcess::new(self.directory.path().join(name))
    }

    /// A client of this node alone, that does not give up for long.
    pub fn client(&self, id: u64) -> Client {
        Client::builder(self.node(id).url())
            .retry(patient())
            .build()
            .unwrap()
    }

    /// The URLs of all nodes, beginning with the one at this place.
    pub fn urls_from(&self, place: usize) -> Vec<String> {
        let mut urls: Vec<String> = self.nodes.values().map(NodeProcess::url).collect();
        let places = urls.len();
        urls.rotate_left(place % places);
        urls
    }

    /// Waits until every node that runs is ready.
    pub async fn all_ready(&self) {
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.is_running()) {
            let client = Client::new(node.url()).unwrap();
            eventually(&format!("node {id} is ready"), async || {
                let health = client.health().await;
                health.is_ok_and(|health| health.reason.is_none())
            })
            .await;
        }
    }

    /// Waits until every running node names the same leader, which runs.
    pub async fn leader(&self) -> u64 {
        let running = self.nodes.iter().filter(|(_, node)| node.is_running());
        let clients: Vec<Client> = running.map(|(id, _)| self.client(*id)).collect();
        let mut leader = None;
        eventually("every node names the same leader", async || {
            let mut named = Vec::new();
            for client in &clients {
                named.push(client.leader().await.ok().and_then(|said| said.node_id));
            }
            leader = named[0];
            named.iter().all(|id| *id == leader)
                && leader.is_some_and(|id| self.node(id).is_running())
        })
        .await;
        leader.unwrap()
    }

    /// Waits until all members have applied the same, and checks that they have the same root at it.
    pub async fn same_everywhere(&self) -> Cluster {
        let client = self.client(self.leader().await);
        let mut seen = None;
        eventually("all members have the same tree size", async || {
            let Ok(cluster) = client.cluster().await else {
                return false;
            };
            let mut sizes = cluster.members.iter().map(|member| member.tree_size);
            let first = sizes.next().flatten();
            let same = first.is_some() && sizes.all(|size| size == first);
            seen = Some(cluster);
            same
        })
        .await;
        let cluster = seen.unwrap();
        let root = cluster.members[0].root;
        assert!(
            cluster.members.iter().all(|member| member.root == root),
            "{cluster:?}"
        );
        cluster
    }

    /// Stops all in order, and has `scribe repair --check` read every byte again.
    pub async fn stop_and_check(&mut self) {
        for id in self.ids() {
            let status = self.node_mut(id).terminate().await;
            assert_eq!(status.code(), Some(0), "node {id} was stopped by SIGTERM");
        }
        for (id, node) in &self.nodes {
            let check = self.run(&[
                "repair",
                "--check",
                "--data-dir",
                node.data_dir().to_str().unwrap(),
            ]);
            let said = String::from_utf8_lossy(&check.stderr);
            assert!(check.status.success(), "node {id}: {said}");
        }
    }

    /// Name and SHA-256 of a node's `count` oldest segment files.
    pub fn segments(&self, id: u64, count: usize) -> Vec<(String, String)> {
        let files = std::fs::read_dir(self.node(id).data_dir().join("log")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .filter(|name| name.ends_with(".seg") && name != "next.seg")
            .collect();
        names.sort();
        names.truncate(count);
        let hashed = names.into_iter().map(|name| {
            let mut bytes = Vec::new();
            let path = self.node(id).data_dir().join("log").join(&name);
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            (name, sha256(&bytes).to_string())
        });
        hashed.collect()
    }

    /// Runs a command of the binary.
    pub fn run(&self, arguments: &[&str]) -> Output {
        command(self.directory.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed; its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            println!(
                "left for you to look at: {}",
                self.directory.path().display()
            );
        }
        self.nodes.clear();
        self.directory.disable_cleanup(failed);
    }
}

/// Repeats for as long as these tests wait for anything.
pub fn patient() -> RetryPolicy {
    RetryPolicy {
        deadline: PATIENCE,
        ..RetryPolicy::default()
    }
}

/// Tries once, and says at once how that went.
pub fn impatient() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::ZERO,
        ..RetryPolicy::default()
    }
}

/// Smallest, median, 90th percentile and largest, in words.
pub fn distribution(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    format!(
        "min {:.2?}, p50 {:.2?}, p90 {:.2?}, max {:.2?} of {}",
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0),
        times.len()
    )
}

/// How long this takes.
pub async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (what.await, began.elapsed())
}
