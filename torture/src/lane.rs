//! What is run, for how long, and how much of it a run must have done to count.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::cluster::Options;
use crate::host::Workshop;
use crate::load::Clients;
use crate::network::Network;
use crate::phases::{self, Kind, Outcome};
use crate::probe;
use crate::report::Summary;
use crate::trouble::{Result, Trouble};
use crate::world::World;

/// The short lane must be over by then.
const SHORT_MAX: Duration = Duration::from_secs(15 * 60);
/// Acknowledged writes per second that kills must be survived under, outages and all.
pub const LOAD_FLOOR: f64 = 1_000.0;
/// A node's disk: no more of it is used than what is written.
const DISK_MIB: u64 = 4_096;

/// One cluster's life: phases under the same clients, compared as a whole and audited at the end.
#[derive(Clone, Debug)]
pub struct Episode {
    pub phases: Vec<(Kind, u64)>,
}

/// The short lane.
pub fn short() -> Vec<Episode> {
    use Kind::*;
    let under_load = vec![
        (Kill, 100),
        (PowerCut, 30),
        (PowerCutOne, 6),
        (Partition, 30),
        (Slow, 6),
        (SyncError, 20),
        (Pause, 6),
        (Rolling, 3),
        (Churn, 2),
        (Clock, 4),
    ];
    // Full disks take a ledger of some hundred megabytes, which would have to be read in every round of damage.
    let full = vec![(DiskFull, 5)];
    let damage = vec![(Flip, 1_000), (Helical, 3)];
    let episodes = [under_load, full, damage].into_iter();
    episodes.map(|phases| Episode { phases }).collect()
}

/// An episode of the long lane: some phases in any order, short ones, so that each meets what the others left.
fn random(rng: &mut StdRng) -> Episode {
    use Kind::*;
    let under_load = [
        Kill,
        PowerCut,
        PowerCutOne,
        Partition,
        Slow,
        SyncError,
        Pause,
        Rolling,
        Churn,
        Clock,
    ];
    let damage = [DiskFull, Flip, Flip, Helical];
    let kinds: Vec<Kind> = match rng.random_bool(0.75) {
        true => (0..6)
            .filter_map(|_| under_load.choose(rng).copied())
            .collect(),
        false => damage.into(),
    };
    let phases = kinds
        .into_iter()
        .map(|kind| (kind, few(kind, rng)))
        .collect();
    Episode { phases }
}

/// How many faults a phase of the long lane has.
fn few(kind: Kind, rng: &mut StdRng) -> u64 {
    match kind {
        Kind::Flip => rng.random_range(100..400),
        Kind::Helical => 1,
        Kind::DiskFull | Kind::Churn | Kind::Clock => rng.random_range(1..4),
        Kind::Kill => rng.random_range(10..40),
        _ => rng.random_range(3..12),
    }
}

/// What all runs have in common.
#[derive(Debug)]
pub struct Bench {
    pub network: Arc<Network>,
    pub workshop: Workshop,
    pub binary: PathBuf,
    pub writers: u32,
    pub seed: u64,
    pub allow_skips: bool,
}

impl Bench {
    fn options(&self, environment: Vec<(String, String)>) -> Options {
        Options {
            binary: self.binary.clone(),
            disk_mib: DISK_MIB,
            environment,
        }
    }

    fn clients(&self) -> Clients {
        Clients {
            writers: self.writers,
            readers: 4,
        }
    }

    /// Says what cannot be injected here, and leaves it out.
    fn without_skipped(&self, episodes: &mut Vec<Episode>, summary: &mut Summary) {
        let mut tried: std::collections::BTreeMap<Kind, Option<String>> = Default::default();
        for episode in episodes.iter_mut() {
            episode.phases.retain(|(kind, _)| {
                let missing = tried
                    .entry(*kind)
                    .or_insert_with(|| probe::missing(*kind, self.workshop.path()));
                if let Some(why) = missing {
                    summary.skipped(*kind, why);
                }
                missing.is_none()
            });
        }
        episodes.retain(|episode| !episode.phases.is_empty());
    }

    /// Runs episodes one after the other.
    pub async fn run(&mut self, mut episodes: Vec<Episode>, summary: &mut Summary) -> Result<()> {
        self.without_skipped(&mut episodes, summary);
        for (number, episode) in episodes.iter().enumerate() {
            self.episode(number as u64, episode, summary).await?;
        }
        Ok(())
    }

    /// The short lane, with its floors.
    pub async fn short(&mut self, summary: &mut Summary) -> Result<()> {
        let began = Instant::now();
        self.run(short(), summary).await?;
        summary.at_least(
            "acknowledged writes/s in the kill phase",
            summary.load_of(Kind::Kill),
            LOAD_FLOOR,
        );
        for episode in short() {
            for (kind, count) in episode.phases {
                if !(self.allow_skips && summary.is_skipped(kind)) {
                    summary.at_least(
                        &format!("{} faults", kind.name()),
                        summary.injected(kind) as f64,
                        count as f64,
                    );
                }
            }
        }
        if began.elapsed() > SHORT_MAX {
            summary.missed(format!(
                "the short lane took {:.0?}, at most {SHORT_MAX:?} are allowed",
                began.elapsed()
            ));
        }
        Ok(())
    }

    /// Random episodes until the time is over.
    pub async fn long(&mut self, lasts: Duration, summary: &mut Summary) -> Result<()> {
        let began = Instant::now();
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut number = 0;
        while began.elapsed() < lasts {
            let mut episodes = vec![random(&mut rng)];
            self.without_skipped(&mut episodes, summary);
            for episode in &episodes {
                eprintln!("--- {:.0?} of {lasts:?}", began.elapsed());
                self.episode(number, episode, summary).await?;
            }
            number += 1;
        }
        summary.at_least(
            "acknowledged writes/s in kill phases",
            summary.load_of(Kind::Kill),
            LOAD_FLOOR,
        );
        Ok(())
    }

    async fn episode(
        &mut self,
        number: u64,
        episode: &Episode,
        summary: &mut Summary,
    ) -> Result<()> {
        let seed = self.seed.wrapping_add(number);
        let directory = self.workshop.path().join(format!("episode-{number}"));
        let phases: Vec<String> = episode
            .phases
            .iter()
            .map(|(kind, count)| format!("{} {count}", kind.name()))
            .collect();
        eprintln!(
            "episode {number}: seed {seed}, {} writers: {}",
            self.writers,
            phases.join(", ")
        );
        let began = Instant::now();
        let network = Arc::clone(&self.network);
        network.heal()?;
        let mut world = World::start(
            network,
            &directory,
            self.options(Vec::new()),
            self.clients(),
            seed,
        )
        .await?;
        eprintln!("a cluster of three is ready after {:.1?}", began.elapsed());
        let gone = self.phases(&mut world, episode, summary).await;
        summary.saw(&world);
        if gone.is_err() {
            // Before the nodes are gone with the world.
            for place in world.cluster.places() {
                if let Ok(node) = world.cluster.node(place) {
                    eprintln!("node {place} said last: {}", node.last_words());
                }
            }
        }
        drop(world);
        if gone.is_ok() {
            std::fs::remove_dir_all(&directory)?;
        }
        gone
    }

    async fn phases(
        &self,
        world: &mut World,
        episode: &Episode,
        summary: &mut Summary,
    ) -> Result<()> {
        for (kind, count) in &episode.phases {
            let report = phases::run(world, *kind, *count).await?;
            summary.add(report);
            if world.abandoned {
                eprintln!(
                    "the rest of the episode is left out: nothing can mend what {} left",
                    kind.name()
                );
                return Ok(());
            }
        }
        let began = Instant::now();
        // After a single phase everything but the last moments was compared just now.
        let size = match episode.phases.len() {
            1 => world.verify().await?,
            _ => world.verify_all().await?,
        };
        let compared = began.elapsed();
        let audited = world.stop_and_audit().await?;
        world.record().check()?;
        eprintln!(
            "all {} acknowledged writes are in the ledger of {size}, in their places, through every node ({compared:.1?}); \
             the audit of every directory passes ({audited:.1?}); {} checkpoints go together",
            world.record().acknowledged(),
            world.record().checkpoints(),
        );
        summary.compared(compared + audited);
        Ok(())
    }

    /// Power cuts of a cluster that does not sync: acknowledged writes must be found lost. Returns what was found, and
    /// after how many cuts; `None` if nothing was.
    pub async fn control(&mut self, cuts: u64) -> Result<Option<(u64, String)>> {
        let library = crate::host::library(probe::NO_SYNC_LIBRARY)?;
        if let Some(why) = probe::no_sync_missing(self.workshop.path()) {
            return Err(Trouble::Harness(format!(
                "a node cannot be run without syncs here: {why}"
            )));
        }
        let environment = vec![("LD_PRELOAD".to_owned(), library.display().to_string())];
        let directory = self.workshop.path().join("control");
        let network = Arc::clone(&self.network);
        let options = self.options(environment);
        let mut world =
            World::start(network, &directory, options, self.clients(), self.seed).await?;
        for cut in 1..=cuts {
            let found = async {
                phases::cut_power_of_all(&mut world, &mut Outcome::default()).await?;
                world.verify().await.map(|_| ())
            };
            match found.await {
                Ok(()) => eprintln!("cut {cut}: nothing was lost"),
                Err(Trouble::Violation(what)) => return Ok(Some((cut, what))),
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }
}

/// Where disks are put unless it is said: in memory, where a sync is fast and a busy machine's disk is in nobody's way.
pub fn default_directory() -> PathBuf {
    match Path::new("/dev/shm").is_dir() {
        true => "/dev/shm".into(),
        false => std::env::temp_dir(),
    }
}
