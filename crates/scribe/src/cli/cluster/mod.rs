//! `scribe cluster`: make a cluster, see how it is, and change it; one file per verb.
//!
//! `init`, `up` and `renew` work on directories of this machine. All others ask a node over HTTP, any node: the one
//! that leads carries changes out. Nothing here decides what a cluster allows.

mod children;
mod init;
mod promote;
mod remove;
mod renew;
mod replace;
mod rotate_key;
mod seeds;
mod status;
mod token;
mod transfer;
mod up;

use super::output::{Failure, Output, say};

/// Make a cluster of nodes, see how it is, and change it
///
/// A cluster is one ledger on several nodes: each has all of it. A write is acknowledged when a majority of the voters
/// has it on disk, so three voters go on without one of them and five without two. Every node takes every request.
/// Nodes talk over TLS with certificates of the cluster's own CA; `init` makes them.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Example: three nodes on this machine, to try it
  $ scribe cluster up
  $ scribe put greeting hello --server http://127.0.0.1:8002
  $ scribe get greeting --server http://127.0.0.1:8003
  $ scribe cluster status

Example: three nodes on three machines, from the beginning
  $ scribe cluster init --out ./cluster --origin example.com/ledger \\
      --node 1=10.0.0.1:9001,10.0.0.1:8001 \\
      --node 2=10.0.0.2:9001,10.0.0.2:8001 \\
      --node 3=10.0.0.3:9001,10.0.0.3:8001
  copy ./cluster/node-<id> to each machine, and start each with the command that was printed

Example: a node that ran alone becomes the first of three
  $ scribe cluster init --data-dir ./scribe-data --key-dir ./scribe-keys      (the node is stopped)
  $ scribe serve --raft-addr 10.0.0.1:9001                                    (and started again)
  $ scribe cluster token > token                                              (once for each new node)
  on each new machine, with the token copied there:
  $ scribe serve --join token --raft-addr 10.0.0.2:9001
  It becomes a learner, fetches the ledger, and is made a voter when it has caught up.

Example: node 2 is lost for good, a new node takes its place
  $ scribe cluster token > token
  $ scribe serve --join token --learner --raft-addr 10.0.0.4:9001             (on the new machine)
  $ scribe cluster status                                                     (say it is node 10)
  $ scribe cluster replace 2 --by 10

docs/operating.md tells more, also what to do when a majority is lost."
)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Init(init::Arguments),
    Up(up::Arguments),
    Status(status::Arguments),
    Token(token::Arguments),
    Promote(promote::Arguments),
    Remove(remove::Arguments),
    Replace(replace::Arguments),
    Transfer(transfer::Arguments),
    RotateKey(rotate_key::Arguments),
    Renew(renew::Arguments),
}

/// Runs the command.
///
/// # Errors
/// Those of its verbs.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.verb {
        Verb::Init(arguments) => init::run(&arguments),
        Verb::Up(arguments) => up::run(arguments).await,
        Verb::Status(arguments) => status::run(arguments).await,
        Verb::Token(arguments) => token::run(arguments).await,
        Verb::Promote(arguments) => promote::run(arguments).await,
        Verb::Remove(arguments) => remove::run(arguments).await,
        Verb::Replace(arguments) => replace::run(arguments).await,
        Verb::Transfer(arguments) => transfer::run(arguments).await,
        Verb::RotateKey(arguments) => rotate_key::run(arguments).await,
        Verb::Renew(arguments) => renew::run(&arguments),
    }
}

/// Says that a change was made: people read a sentence, programs `{"done": true}`.
fn done(output: Output, sentence: &str) -> Result<(), Failure> {
    if output.is_json() {
        return output.print("", &serde_json::json!({ "done": true }));
    }
    say(sentence);
    Ok(())
}
