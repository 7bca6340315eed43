//! The machines of a run and the network between them: what can be done to them from outside, and how it is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use scribe::cluster::files::create_cluster;
use scribe::consensus::PeerAddress;
use scribe_oracle::NodeId;
use turmoil::Sim;

use crate::chance::Chance;
use crate::court::Court;
use crate::machine::{self, Machine, Presence, Process};
use crate::options::Options;
use crate::trace::Trace;

/// How often something was done, for the closing line.
pub type Counts = BTreeMap<&'static str, u64>;

/// Of 100 bits that flip, so many do so in what was written last: the frames that only a majority has, and that look most
/// like a torn tail.
const TAIL_PERCENT: u64 = 30;
/// How far that reaches, bytes: a few frames.
const TAIL_BYTES: u64 = 1_500;

/// The log segment that is written to, among a machine's files.
fn newest_segment(files: &[PathBuf]) -> Option<&PathBuf> {
    let segment = |path: &&PathBuf| path.extension().is_some_and(|end| end == "seg");
    files.iter().filter(segment).max()
}

/// The cluster as the world handles it.
pub struct Cluster {
    /// By id, from 1.
    pub machines: Vec<Arc<Machine>>,
    /// What happened.
    pub counts: Counts,
    trace: Trace,
    court: Court,
    chance: Chance,
    /// When a machine that is down is started again, milliseconds.
    restarts: BTreeMap<u64, u64>,
    /// Machines that are in the simulated network.
    placed: BTreeSet<u64>,
    /// Machines whose disk was made to fail, or is about to: until when, milliseconds, or `None` until their next start.
    disturbed: BTreeMap<u64, Option<u64>>,
}

impl Cluster {
    /// Makes key directories below `home`, and machines that are all down.
    pub fn new(
        options: &Options,
        home: &Path,
        world_ms: &Arc<AtomicU64>,
        trace: Trace,
        court: Court,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let addresses: BTreeMap<u64, PeerAddress> = (1..=options.nodes)
            .map(|id| {
                let address = PeerAddress {
                    raft_addr: machine::address(id),
                    http_addr: format!("{}:8001", machine::name(id)),
                };
                (id, address)
            })
            .collect();
        create_cluster(
            &addresses,
            Some("sim.example/ledger"),
            &machine::outside(options.seed, Arc::clone(world_ms)),
            |id| home.join(machine::name(id)),
        )?;
        let machines = (1..=options.nodes + options.spares)
            .map(|id| {
                let keys = home.join(machine::name(id));
                Arc::new(Machine::new(
                    id,
                    options,
                    keys,
                    Arc::clone(world_ms),
                    trace.clone(),
                ))
            })
            .collect();
        Ok(Self {
            placed: BTreeSet::new(),
            machines,
            counts: Counts::new(),
            trace,
            court,
            chance: Chance::new(options.seed, "cluster"),
            restarts: BTreeMap::new(),
            disturbed: BTreeMap::new(),
        })
    }

    /// Puts machines that are to run, and never did, into the world; their processes start.
    pub fn place(&mut self, sim: &mut Sim<'_>) {
        for machine in self.machines.iter().filter(|machine| machine.is_present()) {
            if self.placed.insert(machine.id) {
                let machine = Arc::clone(machine);
                sim.host(machine.name.clone(), move || Arc::clone(&machine).run());
            }
        }
    }

    /// Counts something that happened.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The machine of a node.
    pub fn machine(&self, id: u64) -> Arc<Machine> {
        Arc::clone(&self.machines[id as usize - 1])
    }

    /// All that may run.
    pub fn ids(&self) -> Vec<u64> {
        let present = self.machines.iter().filter(|machine| machine.is_present());
        present.map(|machine| machine.id).collect()
    }

    /// Machines with a process.
    pub fn running(&self) -> Vec<u64> {
        let running = self.machines.iter().filter(|machine| !machine.is_down());
        running.map(|machine| machine.id).collect()
    }

    /// Who leads, as far as the nodes say.
    pub fn leader(&self) -> Option<u64> {
        self.machines
            .iter()
            .filter_map(|machine| Some((machine.id, machine.node()?.health())))
            .filter(|(_, health)| health.is_leader)
            .max_by_key(|(_, health)| health.current_term)
            .map(|(id, _)| id)
    }

    /// The disk of a machine may fail from here on, for so long or to its next start.
    pub fn disturb(&mut self, id: u64, ms: Option<u64>) {
        let until = ms.map(|ms| self.trace.now_ms() + ms);
        self.disturbed.insert(id, until);
    }

    /// The power of a machine goes: unsynced writes are lost or torn, as the seed has it.
    pub fn cut_power(&mut self, sim: &mut Sim<'_>, id: u64, restart_ms: u64) {
        let seed = self.chance.next();
        self.take_down(sim, id, restart_ms, "loses its power", |disk| {
            disk.crash(seed)
        });
        self.count("power_cuts");
    }

    /// The process of a machine is killed: what it wrote stays.
    pub fn kill(&mut self, sim: &mut Sim<'_>, id: u64, restart_ms: u64) {
        self.take_down(sim, id, restart_ms, "is killed", |disk| disk.kill());
        self.count("kills");
    }

    fn take_down(
        &mut self,
        sim: &mut Sim<'_>,
        id: u64,
        restart_ms: u64,
        what: &str,
        image: impl FnOnce(&scribe::store::sim_disk::SimDisk) -> scribe::store::sim_disk::SimDisk,
    ) {
        let machine = self.machine(id);
        let down = machine.is_down();
        // What it has at the last moment it has to find again.
        if let Some(forgot) = machine.look_at_disk() {
            self.court.broken(forgot);
        }
        let operations = {
            let mut disk = machine.disk.lock();
            let old = disk.clone();
            *disk = image(&old);
            // Whatever the process still does while it goes reaches no disk.
            old.cut_power();
            old.operations()
        };
        self.trace.line(format_args!(
            "{} {what} after {operations} disk operations",
            machine.name
        ));
        *machine.process.lock() = Process::Down;
        if !down {
            sim.crash(machine.name.as_str());
        }
        self.disturbed
            .retain(|other, until| *other != id || until.is_some());
        self.restart_in(id, restart_ms);
    }

    /// Starts a machine that is down after so long.
    pub fn restart_in(&mut self, id: u64, ms: u64) {
        self.restarts.insert(id, self.trace.now_ms() + ms);
    }

    /// Lets bits of a machine's files change while it is down.
    pub fn rot(&mut self, sim: &mut Sim<'_>, id: u64, flips: u64, restart_ms: u64) {
        self.kill(sim, id, restart_ms);
        let machine = self.machine(id);
        machine.rotten.store(true, Relaxed);
        let disk = machine.disk.lock().clone();
        let files = disk.files();
        // A new machine may have none yet.
        let flips = if files.is_empty() { 0 } else { flips };
        for _ in 0..flips {
            let path = match self.chance.percent(TAIL_PERCENT) {
                true => newest_segment(&files),
                false => None,
            };
            let tail = path.is_some();
            let path = path.unwrap_or_else(|| self.chance.pick(&files));
            let bytes = disk.bytes(path).unwrap_or_default();
            // Segments end in zeros until they are full.
            let end = match tail {
                true => bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1,
                false => bytes.len(),
            } as u64;
            let reach = if tail { end.min(TAIL_BYTES) } else { end };
            let (offset, bit) = (end - reach + self.chance.below(reach), self.chance.below(8));
            if disk.flip(path, offset, 1 << bit) {
                self.count("bit_flips");
                self.trace.line(format_args!(
                    "{}: bit {bit} of byte {offset} of {} flips",
                    machine.name,
                    path.display()
                ));
            }
        }
    }

    /// What is due now: machines whose process has ended, or that are no members any more, are taken down; those that are
    /// to start are started.
    pub fn tend(&mut self, sim: &mut Sim<'_>) {
        self.place(sim);
        for machine in self.machines.clone() {
            if machine.presence() == Presence::Gone && !machine.is_down() {
                self.take_down(sim, machine.id, 0, "is switched off for good", |disk| {
                    disk.kill()
                });
            }
        }
        for id in self.ids() {
            let machine = self.machine(id);
            let crashed = machine.disk.lock().crashed();
            if crashed && !machine.is_down() {
                let restart = self.chance.between(100..=3_000);
                self.cut_power(sim, id, restart);
            } else if machine.has_ended() {
                self.ended(sim, &machine);
            }
        }
        let now = self.trace.now_ms();
        let due: Vec<u64> = self
            .restarts
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.restarts.remove(&id);
            let machine = self.machine(id);
            if machine.is_down() && machine.is_present() {
                self.court.tell(|judge, at| {
                    judge.node_started(at, NodeId(id));
                    Ok(())
                });
                self.count("starts");
                sim.bounce(machine.name.as_str());
            }
        }
    }

    fn ended(&mut self, sim: &mut Sim<'_>, machine: &Machine) {
        let reason = match &*machine.process.lock() {
            Process::Ended(reason) => reason.clone(),
            _ => return,
        };
        let now = self.trace.now_ms();
        let disturbed = self.disturbed.get(&machine.id);
        // An error that the simulated disk was told to make may come long after: at the next file that is created.
        let excused = disturbed.is_some_and(|until| until.is_none_or(|until| now <= until))
            || reason.contains("simulated ")
            || machine.rotten.load(Relaxed)
            // One that does not get in, or is of no use any more.
            || !machine.is_member();
        if !excused {
            self.court
                .broken(format!("{} {reason}, for no reason", machine.name));
        }
        self.count("ended_by_itself");
        let restart = self.chance.between(200..=4_000);
        self.take_down(sim, machine.id, restart, "is restarted", |disk| disk.kill());
    }

    /// Everything that is down starts now.
    pub fn start_all(&mut self) {
        for id in self.ids() {
            if self.machine(id).is_down() {
                self.restart_in(id, 0);
            }
        }
    }

    /// FNV-1a over all files of a machine, for comparing two runs of a seed.
    pub fn disk_digest(&self, id: u64) -> u64 {
        let disk = self.machine(id).disk.lock().clone();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for path in disk.files() {
            let name = path.to_string_lossy().into_owned().into_bytes();
            for byte in name
                .into_iter()
                .chain(disk.bytes(&path).unwrap_or_default())
            {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        hash
    }
}
