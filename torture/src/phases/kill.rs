//! `kill -9` at random moments. A process that dies keeps what it wrote to the page cache, so this finds what a crash in
//! the middle of anything leaves behind, not a missing sync: that is [`super::power`]'s part.

use rand::Rng as _;

use super::Outcome;
use crate::trouble::Result;
use crate::world::World;

/// The load before a kill, in writes.
const WRITES_MAX: u64 = 6_000;

/// Who is killed, in turn.
const VICTIMS: [&str; 6] = [
    "follower", "leader", "follower", "all", "follower", "majority",
];

/// Kills until so many processes were.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    for what in VICTIMS.into_iter().cycle() {
        if outcome.injected >= count {
            break;
        }
        world.some_load(WRITES_MAX).await?;
        let leader = world.cluster.leader().await?;
        let followers = world.cluster.followers().await?;
        let victims = match what {
            "leader" => vec![leader],
            "follower" => vec![world.any(&followers)],
            "majority" => vec![leader, world.any(&followers)],
            _ => world.cluster.running(),
        };
        world.record().listen();
        for place in &victims {
            world.cluster.node_mut(*place)?.kill_now()?;
        }
        for place in &victims {
            world.cluster.node_mut(*place)?.kill()?;
        }
        // Sometimes they are back before the others notice.
        if world.rng.random_bool(0.5) {
            let pause = world.rng.random_range(1..300);
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        }
        for place in &victims {
            world.cluster.start_node(*place)?;
        }
        let silence = world.recovered().await?;
        outcome.event(what, victims.len() as u64, silence);
    }
    Ok(())
}
