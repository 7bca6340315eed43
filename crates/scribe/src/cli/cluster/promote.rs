//! `scribe cluster promote`: a learner becomes a voter.

use super::super::ClientArgs;
use super::super::output::Failure;
use super::done;

/// Make a learner a voter
///
/// A node that joined asks for this by itself when it has caught up, unless it was started with --learner. Refused
/// while it lags: a voter that lags is one the others wait for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe cluster promote 10")]
pub struct Arguments {
    /// Id of the learner
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
    arguments.client.connect()?.promote(id).await?;
    done(
        arguments.client.output(),
        &format!("node {id} is a voter now"),
    )
}
