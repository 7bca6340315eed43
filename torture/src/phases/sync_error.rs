//! A sync that fails with EIO: strace attaches to the running node and answers one of its next `fdatasync` or `fsync`
//! calls itself. The node must stop, with exit code 2, and never try again: the system may have dropped what it could
//! not write, and would say that all is well.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::Rng as _;

use super::Outcome;
use crate::trouble::{Result, violation};
use crate::world::World;

/// The load before an error, in writes.
const WRITES_MAX: u64 = 1_000;
/// Within this time of strace's being told the node must have ended.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// What a node that had to stop by itself ends with.
const EXIT_CODE: i32 = 2;

/// Lets syncs fail so many times, on the leader every third time.
pub async fn run(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    while outcome.injected < count {
        world.some_load(WRITES_MAX).await?;
        let (what, place) = world.leader_every_third(outcome.injected).await?;
        world.record().listen();
        let which = world.rng.random_range(1..30);
        let mut strace = inject(world.cluster.node(place)?.pid()?, which)?;
        let node = world.cluster.node_mut(place)?;
        let status = node.wait(ENDS_WITHIN, "ends after a sync failed").await;
        let _ = strace.kill();
        let _ = strace.wait();
        let status = status?;
        let said = node.said_since_start();
        if status.code() != Some(EXIT_CODE) || !said.contains("os error 5") {
            return violation(format!(
                "node {place} ended with {status} after a sync failed, and not with {EXIT_CODE} and the error: {}",
                node.last_words()
            ));
        }
        world.cluster.start_node(place)?;
        let silence = world.recovered().await?;
        outcome.event(what, 1, silence);
    }
    Ok(())
}

/// What strace is told, that the sync number `which` of each thread fails.
pub fn fail_sync(which: u32) -> [String; 8] {
    let inject = format!("inject=fdatasync,fsync:error=EIO:when={which}");
    let trace = "trace=fdatasync,fsync";
    [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        trace,
        "-e",
        inject.as_str(),
    ]
    .map(str::to_owned)
}

/// Lets the n-th sync of each of the process's threads fail from now on.
pub fn inject(pid: u32, which: u32) -> Result<Child> {
    Ok(Command::new("strace")
        .args(fail_sync(which))
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}
