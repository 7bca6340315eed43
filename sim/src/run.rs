//! One run of one seed: a phase with faults, a phase without in which everything must work again, and the comparison
//! with what clients were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use scribe::keys::LastSigned;
use scribe::node::{AppendError, Appended, Condition, Node, Write, WriteKind};
use scribe_oracle::{
    Checked, ClientId, NodeId, NodeState, OperationId, Request as Asked, Write as AskedWrite,
};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::Metadata;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use turmoil::Sim;

use crate::clients::{self, Clients};
use crate::cluster::{Cluster, Counts};
use crate::court::{self, Court};
use crate::faults::Faults;
use crate::machine::Machine;
use crate::operator::Operator;
use crate::options::Options;
use crate::requests::Request;
use crate::trace::Trace;

/// How long the second phase may take, milliseconds: elections, reconnections after lost messages, fetching segments.
const RECOVERY_MS_MAX: u64 = 60_000;
/// How often nodes are looked at, milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// Client number of the writes that show that all is well.
const PROBE: u64 = 1_000;

/// What came of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What is wrong, if something is.
    pub violation: Option<String>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// What happened, counted.
    pub counts: BTreeMap<String, u64>,
    /// Lines of the trace.
    pub lines: u64,
    /// Their hash.
    pub hash: u64,
}

/// Runs a seed. Key directories go below `home`.
///
/// # Errors
/// The simulation itself does not work.
pub fn run(
    options: &Options,
    home: &Path,
    trace: &Trace,
) -> Result<Report, Box<dyn std::error::Error>> {
    trace.line(options);
    let mut world = World::new(options, home, trace)?;
    let mut builder = turmoil::Builder::new();
    if options.random_order {
        builder.enable_random_order();
    }
    let mut sim = builder
        .rng_seed(options.seed)
        .epoch(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .tick_duration(Duration::from_millis(options.tick_ms))
        .simulation_duration(Duration::from_secs(24 * 60 * 60))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(options.message_ms_max))
        .tcp_capacity(4_096)
        .build();
    world.begin(options, &mut sim);
    let mut faults = Faults::new(options, world.operator.clone(), trace.clone());
    let end_ms = options.seconds * 1_000;
    while trace.now_ms() < end_ms && world.court.violation().is_none() {
        world.step(&mut sim)?;
        faults.tend(&mut sim, &mut world.cluster);
    }
    trace.line("faults end");
    faults.end(&mut sim, &mut world.cluster);
    sim.set_fail_rate(0.0);
    sim.set_max_message_latency(Duration::from_millis(options.message_ms_max));
    world.recover(&mut sim)?;
    let checked = world.compare();
    Ok(world.report(options.seed, checked))
}

struct World {
    cluster: Cluster,
    court: Court,
    trace: Trace,
    clients: Arc<Clients>,
    operator: Operator,
    now: Arc<AtomicU64>,
    looked_ms: u64,
    led: (u64, u64),
    home: std::path::PathBuf,
    sealed: BTreeMap<u64, usize>,
    /// By machine: how much of the ledger its process fetched in sealed segments, to catch up.
    fetched: BTreeMap<u64, u64>,
}

impl World {
    fn new(
        options: &Options,
        home: &Path,
        trace: &Trace,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let now = Arc::new(AtomicU64::new(0));
        let court = Court::new(trace.clone());
        let cluster = Cluster::new(options, home, &now, trace.clone(), court.clone())?;
        let clients = Arc::new(Clients {
            options: options.clone(),
            machines: cluster.machines.clone(),
            court: court.clone(),
            stopping: AtomicBool::new(false),
            running: AtomicU64::new(options.clients),
        });
        let operator = Operator::new(cluster.machines.clone(), trace.clone());
        Ok(Self {
            operator,
            cluster,
            court,
            trace: trace.clone(),
            clients,
            now,
            looked_ms: 0,
            led: (0, 0),
            home: home.to_owned(),
            sealed: BTreeMap::new(),
            fetched: BTreeMap::new(),
        })
    }

    fn begin(&mut self, options: &Options, sim: &mut Sim<'_>) {
        self.cluster.place(sim);
        sim.client("clients", Arc::clone(&self.clients).run());
        sim.client("operator", self.operator.run(options));
    }

    /// Time goes on by one tick.
    fn step(&mut self, sim: &mut Sim<'_>) -> Result<(), Box<dyn std::error::Error>> {
        sim.step()?;
        let now = sim.elapsed().as_millis() as u64;
        self.now.store(now, Relaxed);
        self.trace.set_now(now);
        self.cluster.tend(sim);
        if now >= self.looked_ms + LOOK_EVERY_MS {
            self.looked_ms = now;
            for id in self.cluster.ids() {
                self.look(&self.cluster.machine(id));
            }
            self.look_who_leads();
        }
        Ok(())
    }

    fn look_who_leads(&mut self) {
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        let node = self.cluster.machine(leader).node();
        let term = node.map_or(0, |node| node.health().current_term);
        if (leader, term) != self.led {
            self.led = (leader, term);
            self.trace
                .line(format_args!("n{leader} leads in term {term}"));
            self.cluster.count("leaders");
        }
    }

    /// Tells the judge what a node shows.
    fn look(&mut self, machine: &Machine) {
        let Some(node) = machine.node() else { return };
        let id = NodeId(machine.id);
        self.look_at_catching_up(machine.id, &node);
        if let Some(forgot) = machine.look_at_disk() {
            self.court.broken(forgot);
        }
        let applied = node.watch_applied().borrow().clone();
        // What a rotten node cannot read it does not show.
        let root = node.root_at(applied.tree_size);
        self.court.tell(|judge, at| {
            let state = NodeState {
                tree_size: applied.tree_size,
                root_hash: root.as_ref().ok().copied(),
                last_timestamp_ms: Some(applied.last_timestamp_ms),
            };
            judge.node_state(at, id, state)
        });
        self.trace.line(format_args!(
            "{} has {} leaves, root {}",
            machine.name,
            applied.tree_size,
            root.map_or_else(|error| error.to_string(), |root| root.to_hex())
        ));
        if let Some(published) = node.checkpoint() {
            self.court
                .tell(|judge, at| judge.note_seen(at, id, &published.note));
        }
        if let Ok(Some(last)) = LastSigned::load(&self.home.join(&machine.name)) {
            self.court
                .tell(|judge, at| judge.signed(at, id, last.size, last.root));
        }
        let sealed = node.sealed_list();
        let told = self.sealed.entry(machine.id).or_default();
        for segment in sealed.iter().skip(*told) {
            self.court.tell(|judge, at| {
                judge.segment_sealed(at, id, u64::from(segment.number), segment.body_sha256)
            });
        }
        *told = (*told).max(sealed.len());
    }

    /// A node that lacks more than the others' logs hold fetches their sealed segments.
    fn look_at_catching_up(&mut self, id: u64, node: &Node) {
        let (bytes, _) = node.consensus().catch_up().bytes();
        let before = self.fetched.insert(id, bytes).unwrap_or_default();
        if bytes > before {
            self.cluster.count("segments_caught_up");
        }
    }

    /// Without faults everything must work again: each node takes a write, and all have the same.
    fn recover(&mut self, sim: &mut Sim<'_>) -> Result<(), Box<dyn std::error::Error>> {
        self.clients.stopping.store(true, Relaxed);
        let from_ms = self.trace.now_ms();
        let mut probes = Probes::default();
        loop {
            if self.court.violation().is_some() {
                return Ok(());
            }
            self.step(sim)?;
            let waiting = self.waiting_for(&mut probes);
            let now = self.trace.now_ms();
            let Some(waiting) = waiting else {
                let ms = now - from_ms;
                self.trace.line(format_args!("all is well after {ms} ms"));
                *self.cluster.counts.entry("recovery_ms").or_default() += ms;
                return Ok(());
            };
            if now > from_ms + RECOVERY_MS_MAX {
                self.court.broken(format!(
                    "liveness: {RECOVERY_MS_MAX} ms after all faults have ended, {waiting}"
                ));
                return Ok(());
            }
        }
    }

    /// What is not well yet.
    fn waiting_for(&self, probes: &mut Probes) -> Option<String> {
        if self.operator.is_busy() {
            return Some("it is not certain what became of a change of the membership".to_owned());
        }
        let healthy =
            |machine: &&Arc<Machine>| machine.is_present() && !machine.rotten.load(Relaxed);
        for machine in self.cluster.machines.iter().filter(healthy) {
            if !probes.passed(machine, &self.court) {
                return Some(format!("{} has not taken a write", machine.name));
            }
        }
        let running = self.clients.running.load(Relaxed);
        if running > 0 {
            return Some(format!("{running} clients wait for answers"));
        }
        let mut heads = BTreeMap::new();
        for machine in self.cluster.machines.iter().filter(healthy) {
            let Some(node) = machine.node() else {
                return Some(format!("{} is not up", machine.name));
            };
            let size = node.applied_size();
            let root = node.root_at(size).ok();
            heads.insert(machine.id, (size, root));
        }
        // The leader may be one whose bits were flipped: what it acknowledged a moment ago is on the others' disks, and
        // may not be applied there yet.
        let reached = self.court.reached();
        if heads.values().any(|(size, _)| size.get() < reached) {
            return Some(format!(
                "something acknowledged below tree size {reached} is not applied everywhere: {heads:?}"
            ));
        }
        let first = heads.values().next().copied();
        if heads.values().any(|head| Some(*head) != first) {
            return Some(format!("the nodes have different heads: {heads:?}"));
        }
        None
    }

    /// The whole ledger of every node, against everything that was said and seen.
    fn compare(&mut self) -> Checked {
        for machine in &self.cluster.machines {
            let rotten = machine.rotten.load(Relaxed);
            let Some(node) = machine.node() else { continue };
            let size = node.applied_size();
            let mut entries = Vec::new();
            let mut next = LeafIndex::new(0);
            let whole = loop {
                if next.get() >= size.get() {
                    break true;
                }
                match node.entries(next, 256, 1 << 22) {
                    Ok(found) if !found.is_empty() => {
                        next = LeafIndex::new(next.get() + found.len() as u64);
                        entries.extend(found.iter().filter_map(court::entry));
                    }
                    Ok(_) => break false,
                    Err(error) => {
                        if !rotten {
                            let name = &machine.name;
                            self.court
                                .broken(format!("{name} cannot read its entry {next}: {error}"));
                        }
                        break false;
                    }
                }
            };
            // One whose bits were flipped may lag behind, or refuse what it cannot vouch for.
            if whole && (!rotten || self.court.violation().is_some()) {
                let id = NodeId(machine.id);
                self.court
                    .tell(|judge, at| judge.whole_ledger(at, id, entries));
            } else {
                for entry in entries {
                    let id = NodeId(machine.id);
                    self.court
                        .tell(|judge, at| judge.entry_seen(at, id, &entry));
                }
            }
        }
        self.court.finish()
    }

    fn report(&self, seed: u64, checked: Checked) -> Report {
        // Also of those that are gone.
        for id in self.cluster.machines.iter().map(|machine| machine.id) {
            let digest = self.cluster.disk_digest(id);
            self.trace
                .line(format_args!("disk of n{id}: {digest:016x}"));
        }
        let counts: [Counts; 2] = [self.cluster.counts.clone(), self.operator.counts()];
        let mut counts: BTreeMap<String, u64> = counts
            .into_iter()
            .flatten()
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        for (name, count) in checked.counts() {
            counts.insert(format!("checked_{name}"), count);
        }
        self.trace.line(format_args!("{counts:?}"));
        let (lines, hash) = self.trace.digest();
        Report {
            seed,
            violation: self.court.violation(),
            simulated_ms: self.trace.now_ms(),
            counts,
            lines,
            hash,
        }
    }
}

/// One write through each node, until it is acknowledged.
#[derive(Default)]
struct Probes {
    passed: std::collections::BTreeSet<u64>,
    waiting: BTreeMap<
        u64,
        (
            OperationId,
            oneshot::Receiver<Result<Appended, AppendError>>,
        ),
    >,
    tried: u64,
}

impl Probes {
    fn passed(&mut self, machine: &Machine, court: &Court) -> bool {
        if self.passed.contains(&machine.id) {
            return true;
        }
        let outcome = match self.waiting.get_mut(&machine.id) {
            None => {
                self.send(machine, court);
                return false;
            }
            Some((operation, receiver)) => match receiver.try_recv() {
                Ok(said) => (*operation, clients::outcome(said)),
                Err(oneshot::error::TryRecvError::Empty) => return false,
                Err(oneshot::error::TryRecvError::Closed) => {
                    (*operation, scribe_oracle::Outcome::Unknown)
                }
            },
        };
        self.waiting.remove(&machine.id);
        let (operation, outcome) = outcome;
        if matches!(outcome, scribe_oracle::Outcome::Acknowledged(_)) {
            self.passed.insert(machine.id);
        }
        court.returned(operation, outcome);
        false
    }

    fn send(&mut self, machine: &Machine, court: &Court) {
        let Some(door) = machine.door() else { return };
        self.tried += 1;
        let (key, value) = (
            format!("probe-{}", machine.id),
            format!("probe {}", self.tried),
        );
        let asked = Asked::Write(AskedWrite::put(key.clone(), value.as_bytes()));
        let node = Some(NodeId(machine.id));
        let began = court.tell(|judge, at| Ok(judge.invoked(at, ClientId(PROBE), node, asked)));
        let Some(operation) = began else { return };
        let write = Write {
            key: Bytes::from(key),
            kind: WriteKind::Put {
                metadata: Metadata::default(),
                value: Bytes::from(value),
            },
            condition: Condition::None,
            idempotency_key: None,
            author: Bytes::new(),
        };
        let (sender, receiver) = oneshot::channel();
        // If it is gone, the receiver says so.
        drop(door.send(Request::Write(write, sender)));
        self.waiting.insert(machine.id, (operation, receiver));
    }
}
