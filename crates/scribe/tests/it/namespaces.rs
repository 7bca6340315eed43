//! A network of one's own: a namespace per node, and faults between nodes that are real dropped packets.
//!
//! ```text
//! node 1: raft0 10.77.0.1 ─┐                    ┌─ http0 10.78.0.1 :node 1
//! node 2: raft0 10.77.0.2 ─┼─ bridge ─ hub ─ bridge ┼─ http0 10.78.0.2 :node 2
//! node 3: raft0 10.77.0.3 ─┘      10.78.0.254   └─ http0 10.78.0.3 :node 3
//! ```
//!
//! Nodes talk over the first bridge and nothing else does; clients live in the hub and reach every node over the
//! second, which no fault ever touches. All links and addresses are inside the namespaces: nothing of this can be seen
//! from, or reach, the machine's own network. Faults are nftables rules on what a node receives.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "scribe-test";
const RAFT_PORT: u16 = 9_001;
const HTTP_PORT: u16 = 8_001;

/// Removed with all its links when dropped.
pub struct Network {
    name: String,
    nodes: u64,
}

/// Runs a program; what it said if it failed.
fn run(words: &[&str], input: &str) -> Result<String, String> {
    let failed = |error: String| format!("`{}`: {error}", words.join(" "));
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // One that fails early does not read: its exit code says more than the broken pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

fn ip(text: &str) {
    let mut words = vec!["ip"];
    words.extend(text.split_whitespace());
    run(&words, "").unwrap();
}

/// Says on the terminal, past whatever keeps the output of tests, that a test did not test.
pub fn skipped(what: &str, why: &str) {
    let text = format!("\n!!! SKIPPED: {what}: {why}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// What keeps this process from making such a network, found out by trying.
fn not_permitted() -> Option<String> {
    let name = unique();
    if let Err(reason) = run(&["ip", "netns", "add", &name], "") {
        return Some(reason);
    }
    let inside = ["ip", "netns", "exec", &name];
    let tried = [
        (
            &["ip", "link", "add", "name", "br0", "type", "bridge"][..],
            "",
        ),
        (
            &[
                "ip", "link", "add", "name", "a0", "type", "veth", "peer", "name", "b0",
            ],
            "",
        ),
        (
            &["nft", "-f", "-"],
            "table inet try { chain input { type filter hook input priority 0; }; }
             add rule inet try input numgen random mod 100 < 20 counter drop",
        ),
    ]
    .iter()
    .find_map(|(words, input)| run(&[&inside[..], words].concat(), input).err());
    ip(&format!("netns del {name}"));
    tried
}

fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}-{}-{number}", std::process::id())
}

/// Removes what test processes that were killed left behind.
fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        if let Some(owner) = owner
            && !Path::new("/proc").join(owner).exists()
        {
            // Another test process may be at it too.
            let _ = run(&["ip", "netns", "del", &name], "");
        }
    }
}

impl Network {
    /// A network of this many nodes; why there cannot be one, if the system does not let us.
    pub fn new(nodes: u64) -> Result<Network, String> {
        sweep();
        if let Some(reason) = not_permitted() {
            return Err(reason);
        }
        let network = Network {
            name: unique(),
            nodes,
        };
        let hub = network.hub();
        ip(&format!("netns add {hub}"));
        for bridge in ["raft", "http"] {
            ip(&format!("-n {hub} link add name {bridge} type bridge"));
            ip(&format!("-n {hub} link set {bridge} up"));
        }
        ip(&format!("-n {hub} link set lo up"));
        ip(&format!("-n {hub} addr add 10.78.0.254/24 dev http"));
        for id in 1..=nodes {
            let space = network.space(id);
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
            for (bridge, net) in [("raft", 77), ("http", 78)] {
                ip(&format!(
                    "-n {space} link add name {bridge}0 type veth peer name {bridge}{id} netns {hub}"
                ));
                ip(&format!(
                    "-n {space} addr add 10.{net}.0.{id}/24 dev {bridge}0"
                ));
                ip(&format!("-n {space} link set {bridge}0 up"));
                ip(&format!(
                    "-n {hub} link set {bridge}{id} master {bridge} up"
                ));
            }
            network.nft(
                id,
                "table inet fault { chain input { type filter hook input priority 0; }; }",
            );
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// Name of a node's namespace.
    pub fn space(&self, id: u64) -> String {
        format!("{}-{id}", self.name)
    }

    pub fn raft_addr(&self, id: u64) -> String {
        format!("10.77.0.{id}:{RAFT_PORT}")
    }

    pub fn http_addr(&self, id: u64) -> String {
        format!("10.78.0.{id}:{HTTP_PORT}")
    }

    /// Moves this thread, and those it starts from now on, to where the clients are.
    pub fn enter(&self) {
        use std::os::fd::AsFd as _;
        let hub = std::fs::File::open(Path::new("/run/netns").join(self.hub())).unwrap();
        move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn nft(&self, id: u64, rules: &str) -> String {
        let space = self.space(id);
        run(&["ip", "netns", "exec", &space, "nft", "-f", "-"], rules).unwrap()
    }

    /// From now on nothing that node `from` sends reaches node `to`.
    pub fn cut(&self, from: u64, to: u64) {
        self.nft(
            to,
            &format!("add rule inet fault input ip saddr 10.77.0.{from} counter drop"),
        );
    }

    /// From now on every node loses so many of a hundred packets that others send it.
    pub fn lose(&self, percent: u32) {
        for id in 1..=self.nodes {
            self.nft(
                id,
                &format!(
                    "add rule inet fault input iifname raft0 numgen random mod 100 < {percent} counter drop"
                ),
            );
        }
    }

    /// Ends every fault. Returns how many packets were dropped.
    pub fn heal(&self) -> u64 {
        let mut dropped = 0;
        for id in 1..=self.nodes {
            let rules = self.nft(id, "list chain inet fault input");
            for line in rules.lines() {
                let count = line.split_once("counter packets ");
                let count = count.and_then(|(_, rest)| rest.split(' ').next());
                dropped += count.map_or(0, |count| count.parse::<u64>().unwrap());
            }
            self.nft(id, "flush chain inet fault input");
        }
        dropped
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for id in 1..=self.nodes {
            let _ = run(&["ip", "netns", "del", &self.space(id)], "");
        }
        let _ = run(&["ip", "netns", "del", &self.hub()], "");
    }
}
