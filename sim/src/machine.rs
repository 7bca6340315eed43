//! One simulated machine: its disk, its clock, its key directory, and the process that runs on it, a whole node.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scribe::cluster::files::ClusterFiles;
use scribe::cluster::join::join;
use scribe::consensus::{ConsensusOptions, PeerAddress};
use scribe::node::{Node, NodeOptions};
use scribe::peer::{JoinToken, PeerTimeouts};
use scribe::store::index::IndexKind;
use scribe::store::sim_disk::SimDisk;
use scribe::world::{Clock, Entropy, World};
use tokio::sync::mpsc;

use crate::chance::Chance;
use crate::kept::Kept;
use crate::options::Options;
use crate::requests::{self, Request};
use crate::trace::Trace;

/// Port between nodes.
const RAFT_PORT: u16 = 9_001;
/// What the clocks of the world say at its beginning: 2026-11-26T00:00:00Z.
const EPOCH_MS: u64 = 1_795_651_200_000;

/// A wall clock: simulated time, plus what this machine is off by.
#[derive(Debug)]
pub struct SimClock {
    world_ms: Arc<AtomicU64>,
    off_ms: AtomicI64,
}

impl SimClock {
    /// Jumps.
    pub fn jump(&self, ms: i64) {
        self.off_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + self.world_ms.load(Ordering::Relaxed))
            .saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
}

/// Random bytes that follow the seed.
#[derive(Debug)]
struct SimEntropy(Mutex<Chance>);

impl Entropy for SimEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut chance = self.0.lock();
        for chunk in out.chunks_mut(8) {
            let bytes = chance.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// The world of whoever makes the cluster, before any machine runs.
pub fn outside(seed: u64, world_ms: Arc<AtomicU64>) -> World {
    let clock = SimClock {
        world_ms,
        off_ms: AtomicI64::new(0),
    };
    let entropy = SimEntropy(Mutex::new(Chance::new(seed, "outside")));
    World::new(Arc::new(clock), Arc::new(entropy))
}

/// What a process is doing.
#[derive(Debug, Default)]
pub enum Process {
    /// There is none.
    #[default]
    Down,
    /// It starts: recovery, mostly.
    Starting,
    /// It serves.
    Up(Box<Node>, mpsc::UnboundedSender<Request>),
    /// It has ended by itself, or did not start: why.
    Ended(String),
}

/// What a machine is to the cluster, as far as the operator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has never run.
    Waiting,
    /// It has a token, and is to join with it.
    Coming,
    /// Its node is a member.
    Member,
    /// Its node is to be a member no more, or is none already: it may find that it is of no use.
    Leaving,
    /// It never runs again.
    Gone,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Its number. Also its node's id, if its node was there from the beginning.
    pub id: u64,
    /// Its name in the network.
    pub name: String,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// Its disk as the process sees it.
    pub disk: Mutex<SimDisk>,
    /// The process.
    pub process: Mutex<Process>,
    /// Whether bits of its files were flipped: it may refuse to start, and may refuse to serve what is damaged.
    pub rotten: AtomicBool,
    /// Whether its disk may have written something to the wrong place: what it has lost by that, it may not notice.
    pub lied: AtomicBool,
    presence: Mutex<Presence>,
    /// Whether its node certainly votes.
    voter: AtomicBool,
    /// Its node's id, once it has one.
    node_id: Mutex<Option<u64>>,
    /// What its node joins with.
    token: Mutex<Option<JoinToken>>,
    /// What has to be on its disk.
    kept: Mutex<Kept>,
    /// What its node had, and had not after a start.
    forgot: Mutex<Option<String>>,
    /// Processes it has had.
    lives: AtomicU64,
    options: NodeOptions,
    trace: Trace,
}

impl Machine {
    /// A machine that was never started. Those with a number above `options.nodes` are no members yet.
    pub fn new(
        id: u64,
        options: &Options,
        key_dir: PathBuf,
        world_ms: Arc<AtomicU64>,
        trace: Trace,
    ) -> Self {
        let mut chance = Chance::new(options.seed, &format!("machine {id}"));
        let off = chance.between(0..=2 * options.skew_ms_max) as i64 - options.skew_ms_max as i64;
        let clock = Arc::new(SimClock {
            world_ms,
            off_ms: AtomicI64::new(off),
        });
        let entropy = SimEntropy(Mutex::new(Chance::new(chance.next(), "entropy")));
        let disk = SimDisk::new();
        set_speed(&disk, options.disk_us_max, chance.next());
        let name = name(id);
        let founder = id <= options.nodes;
        let options = NodeOptions {
            data_dir: "/data".into(),
            key_dir,
            raft_addr: address(id),
            raft_listen: format!("0.0.0.0:{RAFT_PORT}"),
            raft_plaintext: true,
            peer_timeouts: PeerTimeouts {
                ping_ms: 2_000,
                backoff_max_ms: 1_000,
                ..PeerTimeouts::default()
            },
            http_addr: format!("{name}:8001"),
            // The others become voters by themselves.
            stay_learner: id.is_multiple_of(2),
            publish_interval_ms: options.publish_interval_ms,
            segment_bytes_max: options.segment_bytes_max,
            segment_leaves_max: options.segment_leaves_max,
            disk_reserve_bytes: 64 * 1_024,
            consensus: ConsensusOptions {
                heartbeat_interval_ms: 100,
                election_timeout_min_ms: 400,
                election_timeout_max_ms: 800,
                ..ConsensusOptions::default()
            },
            world: World::new(clock.clone(), Arc::new(entropy)),
            ..NodeOptions::default()
        };
        Self {
            id,
            name,
            clock,
            disk: Mutex::new(disk),
            process: Mutex::default(),
            rotten: AtomicBool::new(false),
            lied: AtomicBool::new(false),
            presence: Mutex::new(match founder {
                true => Presence::Member,
                false => Presence::Waiting,
            }),
            voter: AtomicBool::new(founder),
            node_id: Mutex::new(founder.then_some(id)),
            token: Mutex::default(),
            kept: Mutex::default(),
            forgot: Mutex::default(),
            lives: AtomicU64::new(0),
            options,
            trace,
        }
    }

    /// What runs on it, from the start of the process to its end.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let disk = self.disk.lock().clone();
        *self.process.lock() = Process::Starting;
        self.lives.fetch_add(1, Ordering::Relaxed);
        self.trace.line(format_args!("{} starts", self.name));
        if let Err(error) = self.join().await {
            return self.end(format!("does not join: {error}")).await;
        }
        let started = Node::start_on(self.options.clone(), Arc::new(disk), IndexKind::Memory).await;
        let node = match started {
            Ok(node) => node,
            Err(error) => return self.end(format!("does not start: {error}")).await,
        };
        let health = node.health();
        self.trace.line(format_args!(
            "{} is up: tree size {}, last log index {:?}, term {}",
            self.name,
            node.applied_size(),
            health.last_log_index,
            health.current_term
        ));
        let (sender, mut receiver) = mpsc::unbounded_channel();
        *self.process.lock() = Process::Up(Box::new(node.clone()), sender);
        // Before it hears from others. Whoever watches the nodes asks what came of it.
        self.look_at_disk();
        let mut fatal = std::pin::pin!(node.fatal());
        loop {
            tokio::select! {
                biased;
                reason = &mut fatal => return self.end(format!("stops: {reason}")).await,
                request = receiver.recv() => match request {
                    Some(request) => drop(tokio::spawn(requests::serve(node.clone(), request))),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Joins, if it has not.
    async fn join(&self) -> Result<(), String> {
        let files = ClusterFiles::load(&self.options.key_dir).map_err(|error| error.to_string())?;
        let files = match files {
            Some(files) => files,
            None => {
                let token = self.token.lock().clone();
                let token = token.ok_or("it has no token")?;
                let address = PeerAddress {
                    raft_addr: self.options.raft_addr.clone(),
                    http_addr: self.options.http_addr.clone(),
                };
                let joined = join(&self.options.key_dir, &token, &address).await;
                joined.map_err(|error| error.to_string())?
            }
        };
        *self.node_id.lock() = Some(files.node_id);
        Ok(())
    }

    /// It is to join with this, as soon as it runs.
    pub fn invite(&self, token: JoinToken) {
        *self.token.lock() = Some(token);
        self.set_presence(Presence::Coming);
    }

    /// The process ends by itself. Its tasks go on until the world takes them away, at its next step.
    async fn end(&self, reason: String) -> turmoil::Result {
        self.trace.line(format_args!("{} {reason}", self.name));
        *self.process.lock() = Process::Ended(reason);
        std::future::pending().await
    }

    /// The node, if it serves.
    pub fn node(&self) -> Option<Node> {
        match &*self.process.lock() {
            Process::Up(node, _) => Some((**node).clone()),
            _ => None,
        }
    }

    /// Compares what its node has with what it had, and remembers that. Returns what it has ever forgotten.
    pub fn look_at_disk(&self) -> Option<String> {
        if let Some(node) = self.node() {
            let (life, rotten, lied) = (
                self.lives.load(Ordering::Relaxed),
                self.rotten.load(Ordering::Relaxed),
                self.lied.load(Ordering::Relaxed),
            );
            if let Err(forgot) = self.kept.lock().look(life, &node, rotten, lied) {
                let text = format!("disk: {} {forgot}", self.name);
                self.forgot.lock().get_or_insert(text);
            }
        }
        self.forgot.lock().clone()
    }

    /// What it is to the cluster.
    pub fn presence(&self) -> Presence {
        *self.presence.lock()
    }

    /// It is something else to the cluster from now on.
    pub fn set_presence(&self, presence: Presence) {
        *self.presence.lock() = presence;
    }

    /// Whether it may run.
    pub fn is_present(&self) -> bool {
        !matches!(self.presence(), Presence::Waiting | Presence::Gone)
    }

    /// Whether its node is a member that is to stay.
    pub fn is_member(&self) -> bool {
        self.presence() == Presence::Member
    }

    /// Whether its node certainly votes, unless it is leaving.
    pub fn is_voter(&self) -> bool {
        self.voter.load(Ordering::Relaxed)
    }

    /// Its node votes from now on.
    pub fn set_voter(&self) {
        self.voter.store(true, Ordering::Relaxed);
    }

    /// Whether its node, if it joins, votes only once it is told to.
    pub fn stays_learner(&self) -> bool {
        self.options.stay_learner
    }

    /// Its node's id, once it has one.
    pub fn node_id(&self) -> Option<u64> {
        *self.node_id.lock()
    }

    /// Where requests go, if it serves.
    pub fn door(&self) -> Option<mpsc::UnboundedSender<Request>> {
        match &*self.process.lock() {
            Process::Up(_, sender) => Some(sender.clone()),
            _ => None,
        }
    }

    /// Whether there is no process.
    pub fn is_down(&self) -> bool {
        matches!(*self.process.lock(), Process::Down)
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&self) -> bool {
        matches!(*self.process.lock(), Process::Ended(_))
    }
}

/// Name of a machine in the network.
pub fn name(id: u64) -> String {
    format!("n{id}")
}

/// Where other nodes reach a node.
pub fn address(id: u64) -> String {
    format!("{}:{RAFT_PORT}", name(id))
}

/// How long disk operations take.
pub fn set_speed(disk: &SimDisk, us_max: u64, seed: u64) {
    let most = Duration::from_micros(us_max);
    disk.set_latency(most / 20, most, seed);
}
