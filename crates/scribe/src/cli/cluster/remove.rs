//! `scribe cluster remove`: a member leaves for good.

use super::super::ClientArgs;
use super::super::output::Failure;
use super::done;

/// Remove a member for good
///
/// The others go on without it; its id is never used again. Its data stays where it is and can be deleted. A voter
/// that is to be replaced is better replaced in one step (`scribe cluster replace`), so that the cluster never has
/// fewer voters. The leader can be removed too: it hands leadership over first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  $ scribe cluster remove 2")]
pub struct Arguments {
    /// Id of the member
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
    arguments.client.connect()?.remove(id).await?;
    done(
        arguments.client.output(),
        &format!(
            "node {id} is no member any more: stop it, its directories are of no use to the cluster"
        ),
    )
}
