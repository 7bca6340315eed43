//! `scribe cluster transfer`: leadership goes to another voter.

use super::super::ClientArgs;
use super::super::output::Failure;
use super::done;

/// Hand leadership to a voter
///
/// Costs a few milliseconds and no write. A leader that is stopped does it by itself, so this is for machines that
/// should lead because they are nearer or faster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe cluster transfer 2")]
pub struct Arguments {
    /// Id of the voter that is to lead
    id: u64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The cluster refuses (exit 1), or nobody leads it.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let id = arguments.id;
    arguments.client.connect()?.transfer(id).await?;
    done(
        arguments.client.output(),
        &format!("leadership was handed over to node {id}"),
    )
}
