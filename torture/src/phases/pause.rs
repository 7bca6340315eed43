//! Processes that stand still and go on as if nothing had been (SIGSTOP): a leader that does not know that it was
//! replaced, reads that began in another term.

use std::time::Duration;

use rand::Rng as _;

use super::Outcome;
use crate::trouble::{Result, harness};
use crate::world::World;

/// The load before a pause, in writes.
const WRITES_MAX: u64 = 2_000;

/// Stops a process so many times, the leader every other time.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    while outcome.injected < count {
        world.some_load(WRITES_MAX).await?;
        let (what, place) = match outcome.injected % 2 {
            0 => ("leader", world.cluster.leader().await?),
            _ => {
                let followers = world.cluster.followers().await?;
                ("follower", world.any(&followers))
            }
        };
        world.record().listen();
        world.cluster.node_mut(place)?.pause()?;
        let lasts = Duration::from_millis(world.rng.random_range(100..4_000));
        tokio::time::sleep(lasts).await;
        let state = world.cluster.node(place)?.kernel_state()?;
        if state != 'T' {
            return harness(format!("a stopped process is in state {state}"));
        }
        world.cluster.node_mut(place)?.resume()?;
        let silence = world.recovered().await?;
        outcome.event(what, 1, silence);
    }
    Ok(())
}
