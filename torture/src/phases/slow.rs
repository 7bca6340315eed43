//! A network in which every packet is late, and packets overtake each other: followers lag, elections are slow, answers
//! come when nobody waits for them any more.

use std::time::Duration;

use rand::Rng as _;

use super::Outcome;
use crate::slow::Slow;
use crate::trouble::{Result, harness};
use crate::world::World;

/// The load before, in writes.
const WRITES_MAX: u64 = 2_000;
/// The writes that must be taken while it is slow.
const SERVED_MIN: u64 = 100;
/// The longest delay of a packet in one direction, milliseconds, in turn. The last is close to an election's timeout.
const DELAYS_MS: [u64; 3] = [5, 50, 300];

/// Slows the network down so many times.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    for delay_ms in DELAYS_MS.into_iter().cycle() {
        if outcome.injected >= count {
            break;
        }
        world.some_load(WRITES_MAX).await?;
        world.record().listen();
        let seed = world.rng.random();
        let slow = Slow::begin(&world.cluster.network, seed, delay_ms)?;
        let lasts = Duration::from_millis(world.rng.random_range(500..3_000));
        tokio::time::sleep(lasts).await;
        world.load.grows_by(SERVED_MIN).await?;
        let (carried, overtaken) = slow.end()?;
        if overtaken == 0 {
            return harness(format!(
                "of {carried} packets none was overtaken, so there was no fault"
            ));
        }
        let silence = world.recovered().await?;
        outcome.count("packets overtaken", overtaken);
        outcome.event(format!("up to {delay_ms} ms late"), 1, silence);
    }
    Ok(())
}
