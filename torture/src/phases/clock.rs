//! Wall clocks that jump under running nodes, by libfaketime: an hour ahead, an hour back, on one node at a time. Timers
//! are monotonic and do not jump; timestamps in the ledger must not go back, which the comparison checks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng as _;

use super::Outcome;
use crate::host::{library, text};
use crate::trouble::{Result, Trouble, harness};
use crate::world::World;

/// The library that tells a process another time.
pub const LIBRARY: &str = "libfaketimeMT.so.1";
/// How far a clock jumps at most, in seconds.
const JUMP_MAX_S: i64 = 3_600;
/// The load around a jump, in writes.
const WRITES_MAX: u64 = 2_000;
/// How long the library may take to look at its file again.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

/// Lets clocks jump so many times. Every node is restarted before, under the library, and after.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    let library = text(&library(LIBRARY)?).to_owned();
    for place in world.cluster.running() {
        let file = offset_file(world, place);
        std::fs::write(&file, "+0\n")?;
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", text(&file)),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        world
            .cluster
            .node_mut(place)?
            .environment
            .extend(environment);
        restart(world, place).await?;
    }
    while outcome.injected < count {
        world.some_load(WRITES_MAX).await?;
        let leader = world.cluster.leader().await?;
        // The first jump is one that shows in the ledger: an hour ahead, on the node that gives the times.
        let (what, place, offset_s) = match outcome.injected {
            0 => ("leader", leader, JUMP_MAX_S),
            injected => {
                let followers = world.cluster.followers().await?;
                let (what, place) = match injected % 2 {
                    0 => ("leader", leader),
                    _ => ("follower", world.any(&followers)),
                };
                (
                    what,
                    place,
                    world.rng.random_range(-JUMP_MAX_S..=JUMP_MAX_S),
                )
            }
        };
        world.record().listen();
        std::fs::write(offset_file(world, place), format!("{offset_s:+}\n"))?;
        tokio::time::sleep(NOTICED_WITHIN).await;
        world.load.grows_by(100).await?;
        if outcome.injected == 0 {
            must_show(world, leader).await?;
        }
        let silence = world.recovered().await?;
        outcome.event(format!("{what}, by up to an hour"), 1, silence);
    }
    for place in world.cluster.running() {
        let node = world.cluster.node_mut(place)?;
        node.environment
            .retain(|(name, _)| !name.contains("FAKE") && name != "LD_PRELOAD");
        restart(world, place).await?;
    }
    Ok(())
}

fn offset_file(world: &World, place: u64) -> std::path::PathBuf {
    world.cluster.directory.join(format!("place-{place}.clock"))
}

async fn restart(world: &mut World, place: u64) -> Result<()> {
    world.cluster.node_mut(place)?.terminate().await?;
    world.cluster.start_node(place)?;
    world.cluster.ready_node(place).await
}

/// The newest entry must be of the jumped time, or there was no jump.
async fn must_show(world: &World, leader: u64) -> Result<()> {
    let client = world.patient_client(leader)?;
    let failed = |error: scribe_client::Error| Trouble::Harness(error.to_string());
    let size = client.ledger().await.map_err(failed)?.tree_size;
    let entry = client.entry(size - 1).send().await.map_err(failed)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ahead_ms = entry.timestamp_ms as i64 - now.as_millis() as i64;
    match ahead_ms > (JUMP_MAX_S - 60) * 1_000 {
        true => Ok(()),
        false => harness(format!(
            "after a jump by {JUMP_MAX_S} s entries are {ahead_ms} ms ahead: there was no jump"
        )),
    }
}
