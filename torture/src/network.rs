//! A network of one's own: a namespace per node, and faults between nodes that are real dropped packets.
//!
//! ```text
//! place 1: raft0 10.77.0.1 ─┐                    ┌─ http0 10.78.0.1 :place 1
//! place 2: raft0 10.77.0.2 ─┼─ bridge ─ hub ─ bridge ┼─ http0 10.78.0.2 :place 2
//! place 3: raft0 10.77.0.3 ─┘      10.78.0.254   └─ http0 10.78.0.3 :place 3
//! ```
//!
//! Nodes talk over the first bridge and nothing else does; clients live in the hub and reach every node over the
//! second, which no fault ever touches. All links and addresses are inside the namespaces: nothing of this can be seen
//! from, or reach, the machine's own network. Faults are nftables rules on what a node receives.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::{PREFIX, is_dead, must, run};
use crate::trouble::{Result, Trouble, harness};

/// Where nodes listen for each other.
pub const RAFT_PORT: u16 = 9_001;
/// Where nodes listen for clients.
pub const HTTP_PORT: u16 = 8_001;

/// Removed with all its links when dropped.
#[derive(Debug)]
pub struct Network {
    places: u64,
}

fn ip(text: &str) -> Result<()> {
    let mut words = vec!["ip"];
    words.extend(text.split_whitespace());
    must(&words).map(|_| ())
}

fn enter(space: &str) -> std::io::Result<()> {
    let file = std::fs::File::open(Path::new("/run/netns").join(space))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Removes the namespaces of runs whose process is gone.
fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let rest = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(is_dead) {
            let _ = run(&["ip", "netns", "del", &name], "");
        }
    }
}

impl Network {
    /// A network with this many places for nodes.
    ///
    /// # Errors
    /// What the system does not let us do.
    pub fn new(places: u64) -> Result<Network> {
        sweep();
        let network = Network { places };
        let hub = network.hub();
        ip(&format!("netns add {hub}"))?;
        for bridge in ["raft", "http"] {
            ip(&format!("-n {hub} link add name {bridge} type bridge"))?;
            ip(&format!("-n {hub} link set {bridge} up"))?;
        }
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} addr add 10.78.0.254/24 dev http"))?;
        for place in 1..=places {
            let space = network.space(place);
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {space} link set lo up"))?;
            for (bridge, net) in [("raft", 77), ("http", 78)] {
                ip(&format!(
                    "-n {space} link add name {bridge}0 type veth peer name {bridge}{place} netns {hub}"
                ))?;
                ip(&format!(
                    "-n {space} addr add 10.{net}.0.{place}/24 dev {bridge}0"
                ))?;
                ip(&format!("-n {space} link set {bridge}0 up"))?;
                ip(&format!(
                    "-n {hub} link set {bridge}{place} master {bridge} up"
                ))?;
            }
            network.nft(
                place,
                "table inet fault { chain input { type filter hook input priority 0; }; }",
            )?;
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{PREFIX}-{}-hub", std::process::id())
    }

    fn space(&self, place: u64) -> String {
        format!("{PREFIX}-{}-{place}", std::process::id())
    }

    /// The places there are.
    pub fn places(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.places
    }

    pub fn raft_addr(&self, place: u64) -> String {
        format!("10.77.0.{place}:{RAFT_PORT}")
    }

    pub fn http_addr(&self, place: u64) -> String {
        format!("10.78.0.{place}:{HTTP_PORT}")
    }

    /// Moves this thread, and those it starts from now on, to where the clients are.
    pub fn enter_hub(&self) -> Result<()> {
        Ok(enter(&self.hub())?)
    }

    /// Starts a command at a place: no wrapper, so the child is the program itself.
    pub fn spawn(&self, place: u64, mut command: Command) -> Result<Child> {
        let space = self.space(place);
        // A thread of its own moves there, so that this one stays where it is.
        let there = std::thread::spawn(move || {
            enter(&space)?;
            command.spawn()
        });
        match there.join() {
            Ok(spawned) => Ok(spawned?),
            Err(_) => harness("a thread that starts a process panicked"),
        }
    }

    fn nft(&self, place: u64, rules: &str) -> Result<String> {
        let space = self.space(place);
        run(&["ip", "netns", "exec", &space, "nft", "-f", "-"], rules).map_err(Trouble::Harness)
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub fn cut(&self, from: u64, to: u64) -> Result<()> {
        let rule = format!("add rule inet fault input ip saddr 10.77.0.{from} counter drop");
        self.nft(to, &rule).map(|_| ())
    }

    /// From now on every node loses so many of a hundred packets that others send it.
    pub fn lose(&self, percent: u32) -> Result<()> {
        for place in self.places() {
            self.nft(
                place,
                &format!(
                    "add rule inet fault input iifname raft0 numgen random mod 100 < {percent} counter drop"
                ),
            )?;
        }
        Ok(())
    }

    /// Sends one packet over the link between two nodes, which nobody there answers: the nodes themselves may have nothing
    /// to say to each other while it is broken.
    pub fn knock(&self, from: u64, to: u64) -> Result<()> {
        let (space, address) = (self.space(from), self.raft_addr(to));
        let there = std::thread::spawn(move || {
            enter(&space)?;
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"knock", address).map(|_| ())
        });
        match there.join() {
            Ok(sent) => Ok(sent?),
            Err(_) => harness("a thread that sends a packet panicked"),
        }
    }

    /// Runs a program at a place to its end.
    pub fn run_at(&self, place: u64, words: &[&str]) -> Result<()> {
        let space = self.space(place);
        let exec = ["ip", "netns", "exec", &space];
        must(&[&exec[..], words].concat()).map(|_| ())
    }

    /// Whether the bridge between the nodes carries their packets. If it does not, and nobody else does, they hear nothing.
    pub fn bridge(&self, carries: bool) -> Result<()> {
        let hub = self.hub();
        for place in self.places() {
            let master = match carries {
                true => "master raft",
                false => "nomaster",
            };
            ip(&format!("-n {hub} link set raft{place} {master}"))?;
        }
        Ok(())
    }

    /// Ends every fault. Returns how many packets were dropped.
    pub fn heal(&self) -> Result<u64> {
        let mut dropped = 0;
        for place in self.places() {
            let rules = self.nft(place, "list chain inet fault input")?;
            for line in rules.lines() {
                let count = line.split_once("counter packets ");
                let count = count.and_then(|(_, rest)| rest.split(' ').next());
                dropped += count.map_or(0, |count| count.parse::<u64>().unwrap_or(0));
            }
            self.nft(place, "flush chain inet fault input")?;
        }
        Ok(dropped)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in self.places() {
            let _ = run(&["ip", "netns", "del", &self.space(place)], "");
        }
        let _ = run(&["ip", "netns", "del", &self.hub()], "");
    }
}
