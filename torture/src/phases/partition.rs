//! Partitions between the nodes: real dropped packets, each seen to be dropped. Clients reach every node all the while.

use std::time::Duration;

use rand::Rng as _;

use super::Outcome;
use crate::trouble::{Result, harness};
use crate::world::World;

/// The load before a partition, in writes.
const WRITES_MAX: u64 = 2_000;
/// The writes that a majority must take before the network heals.
const SERVED_MIN: u64 = 500;
/// Of a hundred packets, those that are lost.
const LOSS_PERCENT: u32 = 20;

/// What is wrong with the network, in turn.
const FAULTS: [&str; 6] = [
    "leader apart",
    "follower apart",
    "leader is not heard",
    "follower does not hear",
    "one link broken",
    "20 % lost",
];

/// Breaks the network so many times.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    for what in FAULTS.into_iter().cycle() {
        if outcome.injected >= count {
            break;
        }
        world.some_load(WRITES_MAX).await?;
        let leader = world.cluster.leader().await?;
        let followers = world.cluster.followers().await?;
        let follower = world.any(&followers);
        let network = std::sync::Arc::clone(&world.cluster.network);
        world.record().listen();
        let places = world.cluster.running();
        let others = |of: u64| places.iter().copied().filter(move |place| *place != of);
        match what {
            "leader apart" | "follower apart" => {
                let apart = if what.starts_with('l') {
                    leader
                } else {
                    follower
                };
                for other in others(apart) {
                    network.cut(apart, other)?;
                    network.cut(other, apart)?;
                }
            }
            "leader is not heard" => {
                for other in others(leader) {
                    network.cut(leader, other)?;
                }
            }
            "follower does not hear" => {
                for other in others(follower) {
                    network.cut(other, follower)?;
                }
            }
            "one link broken" => {
                // Between a follower and the leader, or between two followers.
                let other = followers.iter().copied().find(|place| *place != follower);
                let end = match other {
                    Some(other) if world.rng.random_bool(0.5) => other,
                    _ => leader,
                };
                network.cut(follower, end)?;
                network.cut(end, follower)?;
                // Followers talk to each other when there is an election, and not in every fault.
                network.knock(follower, end)?;
                network.knock(end, follower)?;
            }
            _ => network.lose(LOSS_PERCENT)?,
        }
        let lasts = Duration::from_millis(world.rng.random_range(500..2_500));
        tokio::time::sleep(lasts).await;
        world.load.grows_by(SERVED_MIN).await?;
        if network.heal()? == 0 {
            return harness(format!(
                "{what}: no packet was dropped, so there was no fault"
            ));
        }
        let silence = world.recovered().await?;
        outcome.event(what, 1, silence);
    }
    Ok(())
}
