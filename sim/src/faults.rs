//! Who breaks things: one fault after another while the first phase lasts, each healed after a while, all of them at its
//! end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use scribe::store::sim_disk::{DiskFault, DiskOperation};
use turmoil::Sim;

use crate::chance::Chance;
use crate::cluster::Cluster;
use crate::machine::{self, Machine, name};
use crate::operator::Operator;
use crate::options::{Fault, Options};
use crate::requests::Request;
use crate::trace::Trace;

/// What a wall clock may be off by in all, milliseconds.
const OFF_MS_MAX: i64 = 7_200_000;

/// How something is made good again.
#[derive(Debug)]
enum Heal {
    /// What was held between these pairs is delivered.
    Release(Vec<(u64, u64)>),
    /// Messages between these pairs arrive again.
    Repair(Vec<(u64, u64)>),
    /// Messages from the first to the second arrive again.
    RepairOneWay(u64, u64),
    /// No message is lost any more.
    NoLoss,
    /// Messages are as fast as before.
    NoDelay,
    /// A disk is as fast as before.
    Speed(u64),
    /// A disk has room again.
    Room(u64),
    /// No good thing: a disk that wrote to the wrong place loses what is in memory.
    PowerCut(u64),
}

/// The one who breaks things.
pub struct Faults {
    options: Options,
    chance: Chance,
    trace: Trace,
    next_ms: u64,
    heals: Vec<(u64, Heal)>,
    /// Whether there is a partition: there is one at a time.
    parted: bool,
    off_ms: Vec<i64>,
    operator: Operator,
}

impl Faults {
    /// Nothing is broken for the first few seconds.
    pub fn new(options: &Options, operator: Operator, trace: Trace) -> Self {
        Self {
            operator,
            options: options.clone(),
            chance: Chance::new(options.seed, "faults"),
            trace,
            next_ms: 4_000,
            heals: Vec::new(),
            parted: false,
            off_ms: vec![0; (options.nodes + options.spares) as usize],
        }
    }

    /// Breaks and heals what is due.
    pub fn tend(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let now = self.trace.now_ms();
        let (due, later) = std::mem::take(&mut self.heals)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.heals = later;
        for (_, heal) in due {
            self.heal(sim, cluster, heal);
        }
        if now < self.next_ms || self.options.faults.is_empty() {
            return;
        }
        self.next_ms = now + self.chance.between(1..=2 * self.options.fault_every_ms);
        let fault = *self.chance.pick(&self.options.faults.clone());
        self.strike(sim, cluster, fault);
    }

    /// Makes everything good.
    pub fn end(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(sim, cluster, heal);
        }
        for machine in &cluster.machines {
            let disk = machine.disk.lock();
            disk.forget_faults();
            disk.set_capacity(None);
        }
        cluster.start_all();
    }

    fn later(&mut self, ms: std::ops::RangeInclusive<u64>, heal: Heal) {
        let at = self.trace.now_ms() + self.chance.between(ms);
        self.heals.push((at, heal));
    }

    fn heal(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, heal: Heal) {
        self.trace.line(format_args!("heals: {heal:?}"));
        match heal {
            Heal::Release(pairs) => {
                for (a, b) in pairs {
                    sim.release(name(a), name(b));
                }
                self.parted = false;
            }
            Heal::Repair(pairs) => {
                for (a, b) in pairs {
                    sim.repair(name(a), name(b));
                }
                self.parted = false;
            }
            Heal::RepairOneWay(from, to) => {
                sim.repair_oneway(name(from), name(to));
                self.parted = false;
            }
            Heal::NoLoss => sim.set_fail_rate(0.0),
            Heal::NoDelay => {
                sim.set_max_message_latency(Duration::from_millis(self.options.message_ms_max));
            }
            Heal::Speed(id) => {
                let disk = cluster.machine(id).disk.lock().clone();
                machine::set_speed(&disk, self.options.disk_us_max, self.chance.next());
            }
            Heal::PowerCut(id) => {
                let machine = cluster.machine(id);
                let struck = machine.disk.lock().misdirected();
                if struck > 0 && !machine.is_down() {
                    cluster.count("misdirected_syncs");
                    let restart = self.chance.between(20..=2_000);
                    cluster.cut_power(sim, id, restart);
                }
            }
            Heal::Room(id) => cluster.machine(id).disk.lock().set_capacity(None),
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, fault: Fault) {
        let running = cluster.running();
        let Some(victim) = running
            .get(self.chance.below(running.len() as u64) as usize)
            .copied()
        else {
            return;
        };
        // The one that matters most, a third of the time.
        let victim = cluster
            .leader()
            .filter(|_| self.chance.percent(33))
            .unwrap_or(victim);
        let restart = self.chance.between(20..=4_000);
        match fault {
            Fault::PowerCut => cluster.cut_power(sim, victim, restart),
            Fault::PowerCutMany => {
                let all = self.chance.percent(50);
                let least = if all { running.len() } else { 1 };
                for id in self.chance.some(&running, least, running.len()) {
                    let restart = self.chance.between(20..=2_000);
                    cluster.cut_power(sim, id, restart);
                }
                cluster.count("power_cuts_of_many");
            }
            Fault::PowerCutInside => {
                let after = self.chance.between(1..=40);
                let disk = cluster.machine(victim).disk.lock().clone();
                self.trace.line(format_args!(
                    "{} loses its power within {after} disk operations",
                    name(victim)
                ));
                disk.crash_at(disk.operations() + after);
                cluster.disturb(victim, None);
            }
            Fault::Kill => cluster.kill(sim, victim, restart),
            Fault::KillMany => {
                for id in self.chance.some(&running, 1, running.len()) {
                    let restart = self.chance.between(20..=2_000);
                    cluster.kill(sim, id, restart);
                }
            }
            Fault::Partition | Fault::PartitionLossy => {
                let ids = cluster.ids();
                let most = ids.len() - 1;
                let side = self.chance.some(&ids, 1, most);
                self.part(sim, cluster, &side, fault == Fault::PartitionLossy);
            }
            Fault::IsolateLeader => {
                if let Some(leader) = cluster.leader() {
                    let lossy = self.chance.percent(50);
                    self.part(sim, cluster, &[leader], lossy);
                }
            }
            Fault::OneWay => self.part_one_way(sim, cluster),
            Fault::Loss => {
                let rate = self.chance.between(1..=10) as f64 / 1_000.0;
                self.trace.line(format_args!(
                    "of 1,000 messages {} are lost",
                    rate * 1_000.0
                ));
                sim.set_fail_rate(rate);
                cluster.count("losses");
                self.later(500..=5_000, Heal::NoLoss);
            }
            Fault::Delay => {
                let ms = self.chance.between(100..=1_500);
                self.trace.line(format_args!("messages take up to {ms} ms"));
                sim.set_max_message_latency(Duration::from_millis(ms));
                cluster.count("delays");
                self.later(500..=8_000, Heal::NoDelay);
            }
            Fault::Transfer => {
                let leader = cluster.leader().map(|leader| cluster.machine(leader));
                if let Some(door) = leader.and_then(|leader| leader.door()) {
                    self.trace.line("leadership is to be handed over");
                    drop(door.send(Request::Transfer));
                    cluster.count("transfers");
                }
            }
            Fault::Membership => self.operator.change_something(),
            Fault::SlowDisk | Fault::DiskError | Fault::DiskFull => {
                self.strike_disk(cluster, fault, victim);
            }
            Fault::BitFlips => {
                if let Some(victim) = self.who_may_rot(cluster, victim) {
                    let flips = self.chance.between(1..=4);
                    cluster.rot(sim, victim, flips, restart);
                }
            }
            Fault::Misdirect => {
                if let Some(victim) = self.who_may_rot(cluster, victim) {
                    self.trace.line(format_args!(
                        "the next sync of {} goes to the wrong place",
                        name(victim)
                    ));
                    let machine = cluster.machine(victim);
                    machine.rotten.store(true, Relaxed);
                    machine.lied.store(true, Relaxed);
                    machine.disk.lock().misdirect(self.chance.next());
                    self.later(50..=2_000, Heal::PowerCut(victim));
                }
            }
            Fault::ClockJump => {
                let jump = self.chance.between(0..=7_200_000) as i64 - 3_600_000;
                let off = &mut self.off_ms[victim as usize - 1];
                if (*off + jump).abs() <= OFF_MS_MAX {
                    *off += jump;
                    self.trace.line(format_args!(
                        "the clock of {} jumps {jump} ms",
                        name(victim)
                    ));
                    cluster.machine(victim).clock.jump(jump);
                    cluster.count("clock_jumps");
                }
            }
        }
    }

    fn part(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, side: &[u64], lossy: bool) {
        if self.parted {
            return;
        }
        self.parted = true;
        let side: BTreeSet<u64> = side.iter().copied().collect();
        let pairs: Vec<(u64, u64)> = side
            .iter()
            .flat_map(|a| {
                let others = cluster.ids().into_iter().filter(|b| !side.contains(b));
                others.map(|b| (*a, b)).collect::<Vec<_>>()
            })
            .collect();
        self.trace.line(format_args!(
            "{side:?} do not hear the others{}",
            if lossy {
                ", what they send is lost"
            } else {
                ""
            }
        ));
        cluster.count("partitions");
        for (a, b) in &pairs {
            match lossy {
                true => sim.partition(name(*a), name(*b)),
                false => sim.hold(name(*a), name(*b)),
            }
        }
        let heal = match lossy {
            true => Heal::Repair(pairs),
            false => Heal::Release(pairs),
        };
        self.later(300..=12_000, heal);
    }

    fn part_one_way(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        if self.parted {
            return;
        }
        self.parted = true;
        let pair = self.chance.some(&cluster.ids(), 2, 2);
        let (from, to) = (pair[0], pair[1]);
        self.trace
            .line(format_args!("{} does not hear {}", name(to), name(from)));
        cluster.count("partitions");
        sim.partition_oneway(name(from), name(to));
        self.later(300..=12_000, Heal::RepairOneWay(from, to));
    }

    fn strike_disk(&mut self, cluster: &mut Cluster, fault: Fault, victim: u64) {
        let disk = cluster.machine(victim).disk.lock().clone();
        match fault {
            Fault::SlowDisk => {
                let ms = self.chance.between(50..=1_000);
                self.trace.line(format_args!(
                    "the disk of {} takes up to {ms} ms",
                    name(victim)
                ));
                machine::set_speed(&disk, ms * 1_000, self.chance.next());
                cluster.count("slow_disks");
                self.later(500..=6_000, Heal::Speed(victim));
            }
            Fault::DiskFull => {
                let room = self.chance.below(60_000);
                self.trace.line(format_args!(
                    "the disk of {} has {room} bytes left",
                    name(victim)
                ));
                disk.set_capacity(Some(disk.used_bytes() + room));
                // Its node may have begun to end when there is room again.
                cluster.disturb(victim, Some(8_000));
                cluster.count("disks_full");
                self.later(1_000..=6_000, Heal::Room(victim));
            }
            _ => {
                let kind = *self.chance.pick(&[
                    DiskOperation::Sync,
                    DiskOperation::Sync,
                    DiskOperation::Write,
                    DiskOperation::SyncDir,
                    DiskOperation::Create,
                    DiskOperation::Rename,
                    DiskOperation::Allocate,
                ]);
                let after = self.chance.below(10);
                self.trace.line(format_args!(
                    "the disk of {} refuses a {kind:?} after {after} more",
                    name(victim)
                ));
                disk.fail(&[kind], after, DiskFault::Io);
                cluster.disturb(victim, None);
                cluster.count("disk_errors");
            }
        }
    }

    /// The one that is to be damaged: this one, or another, so that damage stays with a minority of the nodes.
    fn who_may_rot(&mut self, cluster: &Cluster, victim: u64) -> Option<u64> {
        let present = |such: &dyn Fn(&Machine) -> bool| -> Vec<u64> {
            let machines = cluster.machines.iter();
            let such = machines.filter(|machine| machine.is_present() && such(machine));
            such.map(|machine| machine.id).collect()
        };
        let rotten = present(&|machine| machine.rotten.load(Relaxed));
        // Of those that certainly vote, and will.
        let voters = present(&|machine| machine.is_member() && machine.is_voter());
        // With this one, still fewer than half: of four voters two are none.
        match (rotten.len() + 1) * 2 < voters.len() {
            true => Some(victim),
            false if rotten.is_empty() => None,
            false => Some(*self.chance.pick(&rotten)),
        }
    }
}
