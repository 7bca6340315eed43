//! Members that come and go under load: a new node joins and an old one is removed, or is killed for good and replaced.
//! The leader is removed as well.

use super::Outcome;
use crate::cluster::PATIENCE;
use crate::host::until;
use crate::trouble::Result;
use crate::world::World;

/// The load before a change, in writes.
const WRITES_MAX: u64 = 2_000;

/// Changes the membership so many times.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    let changes = [
        "leader removed",
        "follower replaced",
        "follower removed",
        "leader replaced",
    ];
    for what in changes.into_iter().cycle() {
        if outcome.injected >= count {
            break;
        }
        world.some_load(WRITES_MAX).await?;
        let leader = world.cluster.leader().await?;
        let followers = world.cluster.followers().await?;
        let old = match what.starts_with("leader") {
            true => leader,
            false => world.any(&followers),
        };
        world.record().listen();
        match what.ends_with("replaced") {
            true => {
                world.cluster.replace(old).await?;
            }
            false => remove(world, old).await?,
        }
        world.load.shared.set_urls(world.cluster.urls());
        let silence = world.recovered().await?;
        outcome.event(what, 1, silence);
    }
    Ok(())
}

/// A new node becomes a voter, and then this one leaves.
async fn remove(world: &mut World, old: u64) -> Result<()> {
    let stays = world
        .cluster
        .running()
        .into_iter()
        .find(|place| *place != old);
    let by = stays.unwrap_or(old);
    let new = world.cluster.join(by).await?;
    let id = world.cluster.node(new)?.id.to_string();
    world
        .cluster
        .operate_until_done(by, &["cluster", "promote", &id])
        .await?;
    world.cluster.ready_node(new).await?;
    let id = world.cluster.node(old)?.id;
    world
        .cluster
        .operate_until_done(by, &["cluster", "remove", &id.to_string()])
        .await?;
    world.cluster.node_mut(old)?.kill()?;
    world.cluster.scrap(old);
    until("a removed node is no member", PATIENCE, async || {
        let members = world.cluster.members().await;
        members.is_some_and(|members| members.iter().all(|member| member.node_id != id))
    })
    .await?;
    Ok(())
}
