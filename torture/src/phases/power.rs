//! Power cuts: what was not synced is gone, on one node or on all at the same moment.

use super::Outcome;
use crate::trouble::Result;
use crate::world::World;

/// The load before a cut, in writes.
const WRITES_MAX: u64 = 3_000;

/// Cuts the power of the whole cluster so many times.
pub async fn all(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    while outcome.injected < count {
        cut_all(world, outcome).await?;
    }
    Ok(())
}

/// Cuts the power of the whole cluster once, and waits until it serves again.
pub async fn cut_all(world: &mut World, outcome: &mut Outcome) -> Result<()> {
    world.some_load(WRITES_MAX).await?;
    world.record().listen();
    let places = world.cluster.running();
    world.cluster.power_cut(&places)?;
    let silence = world.recovered().await?;
    outcome.event("whole cluster", 1, silence);
    Ok(())
}

/// Cuts the power of one node so many times, of a leader every third time.
pub async fn one(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    while outcome.injected < count {
        world.some_load(WRITES_MAX).await?;
        let (what, place) = world.leader_every_third(outcome.injected).await?;
        world.record().listen();
        world.cluster.power_cut(&[place])?;
        let silence = world.recovered().await?;
        outcome.event(what, 1, silence);
    }
    Ok(())
}
