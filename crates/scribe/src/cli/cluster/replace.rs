//! `scribe cluster replace`: a learner takes the place of a voter.

use super::super::ClientArgs;
use super::super::output::Failure;
use super::done;

/// Put a learner in the place of a voter, in one step
///
/// The old voter leaves for good and may be dead already. Start the new node with --join and --learner first, and wait
/// until it has caught up (`scribe cluster status`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: node 10 in the place of node 2, which is lost
  $ scribe cluster replace 2 --by 10")]
pub struct Arguments {
    /// Id of the voter that leaves
    old: u64,
    /// Id of the learner that takes its place
    #[arg(long, value_name = "ID")]
    by: u64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses (exit 1), or nobody leads it.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (old, by) = (arguments.old, arguments.by);
    arguments.client.connect()?.replace(old, by).await?;
    done(
        arguments.client.output(),
        &format!("node {by} votes in the place of node {old}, which is no member any more"),
    )
}
