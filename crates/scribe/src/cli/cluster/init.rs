//! `scribe cluster init`: the files a cluster begins with.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::output::{Failure, Output, say};
use super::super::{DirectoryArgs, OutputArgs};
use super::seeds::{self, NodeSpec};
use crate::cluster::files::{self, ClusterFiles};
use crate::consensus::NodeId;
use crate::hex::hex;
use crate::keys::KeyDir;
use crate::store::lock::DirLock;
use crate::store::log::LogIdentity;
use crate::store::real_disk::RealDisk;
use crate::store::vote::read_identity;
use crate::world::World;

/// Make the key directories of a cluster
///
/// With --out and --node: makes a new ledger's key, a CA and a key directory for each of the nodes the cluster begins
/// with, and prints the command that starts each, to be run where the directory was copied to. The directories are secret:
/// each holds the ledger's signing key and the CA's. Copy each to its machine by a way nobody reads along, and delete it
/// here. The order in which the nodes are started does not matter; the cluster begins when all of them run.
///
/// Without: makes this node, which must be stopped and may have a ledger already, the first member of a cluster of one,
/// which others can join (`scribe cluster token`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: three nodes
  $ scribe cluster init --out ./cluster --origin example.com/ledger \\
      --node 1=10.0.0.1:9001,10.0.0.1:8001 \\
      --node 2=10.0.0.2:9001,10.0.0.2:8001 \\
      --node 3=10.0.0.3:9001,10.0.0.3:8001

Example: a node that runs alone becomes one that others can join
  $ scribe cluster init --data-dir ./scribe-data --key-dir ./scribe-keys
  $ scribe serve --raft-addr 10.0.0.1:9001")]
pub struct Arguments {
    /// New directory for the directories of all nodes
    #[arg(
        long,
        value_name = "DIR",
        requires = "nodes",
        conflicts_with = "data_dir"
    )]
    out: Option<PathBuf>,
    /// A node: its id and where other nodes and clients reach it; repeated
    #[arg(
        id = "nodes",
        long = "node",
        value_name = "ID=RAFT,HTTP",
        requires = "out"
    )]
    nodes: Vec<NodeSpec>,
    /// Name of a new ledger [default: scribe.invalid/ and part of its key's hash]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    #[command(flatten)]
    directory: DirectoryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A node that can be started now.
#[derive(Serialize)]
struct Made<'a> {
    node_id: NodeId,
    cluster_id: &'a str,
    key_dir: &'a Path,
    start: String,
}

/// Runs the command.
///
/// # Errors
/// Nodes that cannot make a cluster, and directories that are members' already (exit 1).
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.out {
        Some(out) => seed(arguments, out),
        None => first_member(arguments),
    }
}

fn seed(arguments: &Arguments, out: &Path) -> Result<(), Failure> {
    let members = seeds::members(&arguments.nodes)?;
    // Looked at before anything is made: half a cluster under a second CA would be of no use.
    if let Some((id, files)) = seeds::find(out)?.into_iter().next() {
        return Err(Failure::user(format!(
            "`{}` holds a cluster already: node {id} of {}",
            out.display(),
            hex(&files.cluster_id)
        ))
        .hint("--out names a new directory"));
    }
    if let Some(warning) = seeds::warn_even(members.len()) {
        say(format_args!("warning: {warning}"));
    }
    let origin = arguments.origin.as_deref();
    let key_dir = |id| seeds::key_dir(out, id);
    let cluster_id = hex(&files::create_cluster(
        &members,
        origin,
        &World::real(),
        key_dir,
    )?);
    say(format_args!(
        "made a cluster of {} in {dir}\nthese directories are secret: each holds the ledger's signing key and the key of the \
         cluster's CA\ncopy each {dir}/node-<id> to its machine by a way nobody reads along, delete it here, and start \
         it there, from the directory it was copied into:",
        members.len(),
        dir = out.display()
    ));
    let output = Output::new(arguments.output.output);
    let mut exposed = false;
    for (id, address) in &members {
        let flags = seeds::flags(Path::new("."), address);
        exposed |= flags.iter().any(|flag| flag == "--insecure");
        let made = Made {
            node_id: *id,
            cluster_id: &cluster_id,
            key_dir: &seeds::key_dir(out, *id),
            start: format!("cd node-{id} && scribe serve {}", seeds::shell(&flags)),
        };
        output.print(&made.start, &made)?;
    }
    if exposed {
        say(
            "--insecure: the HTTP API has no authentication: whoever reaches its port can read every value, write and \
             delete any key, and fill the disk; let nobody but your clients reach it (the cluster itself is changed \
             from a member's own machine alone)",
        );
    }
    Ok(())
}

fn first_member(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.directory.load()?;
    let (data_dir, key_dir) = (&config.data_dir, &config.key_dir);
    if let Some(files) = ClusterFiles::load(key_dir)? {
        return Err(Failure::user(format!(
            "`{}` is a member's key directory already: node {} of {}",
            key_dir.display(),
            files.node_id,
            hex(&files.cluster_id)
        ))
        .hint("others can join it: `scribe cluster token`, asked of the running node"));
    }
    // Held to the end: a node that runs would go on as one that is alone, beside the files of one that is not.
    let mut locks = Vec::new();
    for dir in [data_dir, key_dir].into_iter().filter(|dir| dir.is_dir()) {
        locks.push(DirLock::take(&RealDisk, dir)?);
    }
    let world = World::real();
    let found = read_identity(&RealDisk, data_dir)?;
    if found.is_some() {
        config.expect_keys()?;
    }
    let identity = found.unwrap_or_else(|| LogIdentity {
        cluster_id: world.random(),
        node_id: 1,
    });
    // A new node gets its keys now, so that its directory is complete; an existing one keeps its own.
    let origin = arguments.origin.as_deref().or(config.origin.as_deref());
    KeyDir::open_or_create(key_dir, origin, identity.node_id, found.is_none())?;
    let files = files::create_for_one(key_dir, identity.cluster_id, identity.node_id, &world)?;
    if found.is_some() {
        files.mark_started()?;
    }
    drop(locks);
    let words = [
        "scribe".to_owned(),
        "serve".to_owned(),
        "--member".to_owned(),
        "--data-dir".to_owned(),
        data_dir.display().to_string(),
        "--key-dir".to_owned(),
        key_dir.display().to_string(),
        "--raft-addr".to_owned(),
        config.raft_addr.clone(),
    ];
    let made = Made {
        node_id: identity.node_id,
        cluster_id: &hex(&identity.cluster_id),
        key_dir,
        start: seeds::shell(&words),
    };
    say(format_args!(
        "node {} is the first member of a cluster; start it with the address at which others reach it, then let them \
         in with `scribe cluster token`",
        made.node_id
    ));
    Output::new(arguments.output.output).print(&made.start, &made)
}
