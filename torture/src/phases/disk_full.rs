//! A disk that really runs full: a file of somebody else's takes all that is left. A follower goes on until its own disk
//! has no byte left, and then stops with the system's words; a leader refuses writes before that, and takes them again
//! when there is space. Reads go on.

use std::time::{Duration, Instant};

use super::Outcome;
use crate::trouble::{Result, harness, violation};
use crate::world::World;

/// How long a full disk is waited for to be noticed, under a load that fills segments.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// Fills a disk so many times, the leader's every other time.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    world.load.heavy(true);
    let filled = fill(world, count, outcome).await;
    world.load.heavy(false);
    filled
}

async fn fill(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    while outcome.injected < count {
        world.load.grows_by(50).await?;
        let leader = world.cluster.leader().await?;
        let (what, place) = match outcome.injected % 2 {
            1 => ("leader", leader),
            _ => {
                let followers = world.cluster.followers().await?;
                ("follower", world.any(&followers))
            }
        };
        world.record().listen();
        world.cluster.node_mut(place)?.was_full = true;
        world.cluster.node(place)?.disk.fill()?;
        let how = noticed(world, place).await?;
        world.cluster.node(place)?.disk.free()?;
        if !world.cluster.node(place)?.is_running() {
            world.cluster.start_node(place)?;
        }
        let silence = world.recovered().await?;
        outcome.event(format!("{what}, {how}"), 1, silence);
    }
    Ok(())
}

/// Waits until the node says that its disk is full, in one way or the other.
async fn noticed(world: &mut World, place: u64) -> Result<&'static str> {
    let refused_before = world.load.refused_for_space();
    let began = Instant::now();
    loop {
        let node = world.cluster.node_mut(place)?;
        if let Some(status) = node.ended()? {
            return match status.code() == Some(2) && node.names_a_full_disk() {
                true => Ok("stopped"),
                false => violation(format!(
                    "node {place} on a full disk ended with {status}: {}",
                    node.last_words()
                )),
            };
        }
        // Only a leader refuses: a follower with a full disk goes on until it cannot. By its own account, because it may
        // stop between any two looks, and whoever waits for all to agree on a leader would not see that.
        if world.load.refused_for_space() > refused_before
            && world.cluster.says_it_leads(place).await
        {
            return Ok("writes refused");
        }
        if began.elapsed() > NOTICED_WITHIN {
            let free = node_free(world, place)?;
            return harness(format!(
                "node {place} did not notice its full disk ({free} bytes free) in {NOTICED_WITHIN:?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn node_free(world: &World, place: u64) -> Result<u64> {
    world.cluster.node(place)?.disk.free_bytes()
}
