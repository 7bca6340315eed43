//! Restarts in order, one node after the other, as for an upgrade: SIGTERM, start, wait until it is ready.

use super::Outcome;
use crate::trouble::Result;
use crate::world::World;

/// The load before a restart, in writes.
const WRITES_MAX: u64 = 1_500;

/// Restarts so many nodes.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    loop {
        for place in world.cluster.running() {
            if outcome.injected >= count {
                return Ok(());
            }
            world.some_load(WRITES_MAX).await?;
            let what = match world.cluster.leader().await? == place {
                true => "leader",
                false => "follower",
            };
            world.record().listen();
            world.cluster.node_mut(place)?.terminate().await?;
            world.cluster.start_node(place)?;
            let silence = world.recovered().await?;
            outcome.event(what, 1, silence);
        }
    }
}
