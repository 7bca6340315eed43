//! The faults, a phase each: many events of one kind under load, with a comparison of everything at the end.

mod churn;
pub mod clock;
mod damage;
mod disk_full;
mod kill;
mod partition;
mod pause;
mod power;
mod rolling;
mod slow;
pub mod sync_error;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::trouble::Result;
use crate::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Kind {
    /// kill -9 of the leader, a follower, a majority, or all
    Kill,
    /// Power cuts of all nodes at the same moment: what was not synced is lost
    PowerCut,
    /// Power cuts of one node
    PowerCutOne,
    /// Partitions, one-way ones, a broken link, lost packets
    Partition,
    /// Packets that are late and overtake each other
    Slow,
    /// SIGSTOP of the leader or a follower for some seconds
    Pause,
    /// Jumps of one node's wall clock while it runs
    Clock,
    /// A sync that fails with EIO
    SyncError,
    /// A disk that runs full
    DiskFull,
    /// Restarts in order, one node after the other
    Rolling,
    /// A node is removed, a new one joins
    Churn,
    /// Byte flips and truncations in the files of one stopped node
    Flip,
    /// Damage to every node's files, to another part on each
    Helical,
}

impl Kind {
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What became of a phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Faults that were injected, and were seen to happen.
    pub injected: u64,
    /// What makes them up.
    pub counts: BTreeMap<String, u64>,
    /// The longest time without any acknowledged write, per event.
    #[serde(skip)]
    pub silences: Vec<Duration>,
}

impl Outcome {
    pub fn count(&mut self, what: impl Into<String>, number: u64) {
        *self.counts.entry(what.into()).or_default() += number;
    }

    /// One event is over.
    fn event(&mut self, what: impl Into<String>, faults: u64, silence: Duration) {
        self.injected += faults;
        self.count(what, 1);
        self.silences.push(silence);
    }
}

/// A phase that is over.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub phase: Kind,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub took_s: f64,
    /// Of which the comparison at the end.
    pub compared_s: f64,
    pub acknowledged: u64,
    /// Over all of the phase but the comparison, outages and all.
    pub acknowledged_per_s: f64,
    pub unavailable_p50_s: f64,
    pub unavailable_p99_s: f64,
}

/// Runs a phase until so many faults were injected, and compares what the nodes have with what was promised.
pub async fn run(world: &mut World, kind: Kind, count: u64) -> Result<Report> {
    let began = Instant::now();
    let before = world.record().acknowledged();
    world.record().listen();
    let mut outcome = Outcome::default();
    match kind {
        Kind::Kill => kill::run(world, count, &mut outcome).await?,
        Kind::PowerCut => power::all(world, count, &mut outcome).await?,
        Kind::PowerCutOne => power::one(world, count, &mut outcome).await?,
        Kind::Partition => partition::run(world, count, &mut outcome).await?,
        Kind::Slow => slow::run(world, count, &mut outcome).await?,
        Kind::Pause => pause::run(world, count, &mut outcome).await?,
        Kind::Clock => clock::run(world, count, &mut outcome).await?,
        Kind::SyncError => sync_error::run(world, count, &mut outcome).await?,
        Kind::DiskFull => disk_full::run(world, count, &mut outcome).await?,
        Kind::Rolling => rolling::run(world, count, &mut outcome).await?,
        Kind::Churn => churn::run(world, count, &mut outcome).await?,
        Kind::Flip => damage::flips(world, count, &mut outcome).await?,
        Kind::Helical => damage::helical(world, count, &mut outcome).await?,
    }
    let loaded = began.elapsed();
    let acknowledged = world.record().acknowledged() - before;
    let size = world.verify().await?;
    let took = began.elapsed();
    let report = Report {
        phase: kind,
        took_s: took.as_secs_f64(),
        compared_s: (took - loaded).as_secs_f64(),
        acknowledged,
        acknowledged_per_s: acknowledged as f64 / loaded.as_secs_f64(),
        unavailable_p50_s: part(&outcome.silences, 0.5),
        unavailable_p99_s: part(&outcome.silences, 0.99),
        outcome,
    };
    eprintln!(
        "{}: {} faults in {:.1} s and {:.1} s to compare, {} acknowledged ({:.0}/s), ledger of {size}",
        kind.name(),
        report.outcome.injected,
        loaded.as_secs_f64(),
        report.compared_s,
        acknowledged,
        report.acknowledged_per_s
    );
    Ok(report)
}

/// The part of these times that is at most so long, in seconds.
fn part(times: &[Duration], part: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    let place = (times.len().saturating_sub(1) as f64 * part).round() as usize;
    times.get(place).map_or(0.0, Duration::as_secs_f64)
}

pub use power::cut_all as cut_power_of_all;
