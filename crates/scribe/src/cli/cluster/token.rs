//! `scribe cluster token`: lets one new node in.

use std::time::Duration;

use super::super::ClientArgs;
use super::super::output::{Failure, print_raw, say, show_time};
use crate::units;

/// Make a token with which one new node can join
///
/// The token is a secret: whoever has it gets a certificate and the ledger's signing key. It works once, until it
/// expires, and only while the member it was asked of runs. It goes to stdout, what to do with it to stderr.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: a token that is good for ten minutes, in a file only you may read
  $ (umask 077; scribe cluster token --expires 10m > token)
  on the new machine, with the file copied there:
  $ scribe serve --join token --raft-addr 10.0.0.4:9001"
)]
pub struct Arguments {
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_validity)]
    expires: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

fn parse_validity(text: &str) -> Result<Duration, String> {
    let ms = units::parse_duration_ms(text).map_err(|error| error.to_string())?;
    if ms < 1_000 {
        return Err("a token must be good for at least 1s".to_owned());
    }
    Ok(Duration::from_millis(ms))
}

/// Runs the command.
///
/// # Errors
/// The node runs alone (exit 1), or cannot be reached.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    let token = client.cluster_token(arguments.expires).await?;
    if output.is_json() {
        return output.print("", &token);
    }
    print_raw(format!("{}\n", token.token).as_bytes())?;
    say(format_args!(
        "
This lets one new node in, until {until}. Put it in a file on the new machine, and start
the node there, with the address at which the others reach it:

  scribe serve --join FILE --raft-addr HOST:9001

On this machine it also needs directories and ports of its own:

  scribe serve --join FILE --data-dir ./node-4/data --key-dir ./node-4/keys \\
    --raft-addr 127.0.0.1:9004 --http-addr 127.0.0.1:8004

`scribe cluster status` shows how it catches up.",
        until = show_time(token.expires_ms),
    ));
    Ok(())
}
