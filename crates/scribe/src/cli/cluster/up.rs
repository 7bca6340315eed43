//! `scribe cluster up`: a whole cluster on this machine, in one command.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use scribe_client::{Client, Error, TransportError, wire::LedgerInfo};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::TrustArgs;
use super::super::output::{Failure, print_raw, say};
use super::super::serve::{config_of, scheme, stop_signal};
use super::children::{self, Ended, Node};
use super::seeds::{self, Members};
use crate::cluster::files;
use crate::consensus::{NodeId, PeerAddress};
use crate::world::World;

/// Nodes of a new cluster unless told otherwise: the fewest that go on without one.
const NODES_DEFAULT: usize = 3;
/// Pause between two looks whether a node is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait before those that are not ready are named, and how long for all of them.
const PATIENCE: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Run a whole cluster on this machine, to try it
///
/// Makes the cluster in a new directory, or starts the one that is there, each node as a process of its own, and stays
/// until SIGINT or SIGTERM, which stops them all. What the nodes say goes to stderr behind their number. A node that
/// ends by itself is reported and not started again: kill one with `kill -9` to see the others go on, then stop and
/// start the cluster to have it back.
///
/// One machine is one point of failure: for a ledger that matters, see `scribe cluster init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: watch a cluster lose its leader
  $ scribe cluster up
  and in a second terminal:
  $ scribe put greeting hello --server http://127.0.0.1:8001
  $ scribe cluster status --server http://127.0.0.1:8001
  $ kill -9 PID                       (of the leader, from the lines `up` printed)
  $ scribe get greeting --server http://127.0.0.1:8002

Example: settings of `scribe serve` for every node
  $ scribe cluster up --nodes 5 -- --publish-interval 100ms")]
pub struct Arguments {
    /// Nodes of a new cluster [default: 3]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Directory of the cluster; made when it is missing
    #[arg(long, value_name = "DIR", default_value = "./scribe-cluster")]
    data_dir: PathBuf,
    /// HTTP port of node 1 of a new cluster; the others take the next ones
    #[arg(long, value_name = "PORT", default_value_t = 8001)]
    base_http_port: u16,
    /// Raft port of node 1 of a new cluster; the others take the next ones
    #[arg(long, value_name = "PORT", default_value_t = 9001)]
    base_raft_port: u16,
    /// Take free ports for a new cluster; it keeps them
    #[arg(long, conflicts_with_all = ["base_http_port", "base_raft_port"])]
    any_port: bool,
    /// Name of a new cluster's ledger [default: scribe.invalid/ and part of its key's hash]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Settings for every node, as `scribe serve` takes them
    #[arg(last = true, value_name = "SETTINGS")]
    settings: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Ports that are taken (exit 1), and nodes that end before the cluster is ready.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    // Asked for first, so that a signal while nodes start is not lost.
    let stop = stop_signal()?;
    let members = prepare(&arguments)?;
    if let Some(warning) = seeds::warn_even(members.len()) {
        say(format_args!("warning: {warning}"));
    }
    let (sender, ended) = mpsc::unbounded_channel();
    let mut cluster = Running {
        members: BTreeMap::new(),
        nodes: BTreeMap::new(),
        curl: match &arguments.trust.cacert {
            Some(path) => format!(
                "curl --cacert {}",
                seeds::shell(&[path.display().to_string()])
            ),
            None => "curl".to_owned(),
        },
        ended,
    };
    let mut all_flags = Vec::new();
    for (id, address) in members {
        let mut flags = seeds::flags(&seeds::node_dir(&arguments.data_dir, id), &address);
        // A settings file is for one node: what must differ between nodes is set here.
        flags.extend(["--join=", "--raft-listen=", "--http-advertise-addr="].map(str::to_owned));
        flags.extend(arguments.settings.iter().cloned());
        // Read as the node will read them, so that a mistake is reported once and before anything runs.
        let url = format!("{}://{}", scheme(&config_of(&flags)?), address.http_addr);
        let client = arguments.trust.client(&url)?;
        cluster.members.insert(id, Member { address, client });
        all_flags.push((id, flags));
    }
    for (id, flags) in all_flags {
        match Node::start(id, &flags, sender.clone()) {
            Ok(node) => {
                cluster.nodes.insert(id, node);
            }
            Err(failure) => {
                cluster.stop(std::future::pending()).await;
                return Err(failure);
            }
        }
    }
    drop(sender);
    tokio::pin!(stop);
    let outcome = tokio::select! {
        outcome = cluster.serve() => outcome,
        () = &mut stop => Ok(()),
    };
    if !cluster.nodes.is_empty() {
        say("stopping all nodes; a second signal ends them at once");
    }
    let again = stop_signal()?;
    cluster.stop(again).await;
    outcome
}

/// The voters to start: those in the directory, or new ones.
fn prepare(arguments: &Arguments) -> Result<Members, Failure> {
    let dir = &arguments.data_dir;
    let found = seeds::find(dir)?;
    let members: Members = found
        .values()
        .filter_map(|files| Some((files.node_id, files.members.get(&files.node_id)?.clone())))
        .collect();
    if found.is_empty() {
        return create(arguments);
    }
    for id in found.keys().filter(|id| !members.contains_key(id)) {
        say(format_args!(
            "node {id} joined later: start it with `scribe serve`, `up` does not know its addresses"
        ));
    }
    if let Some(asked) = arguments.nodes
        && asked != members.len()
    {
        return Err(Failure::user(format!(
            "`{}` holds a cluster that began with {} nodes, found --nodes {asked}",
            dir.display(),
            members.len()
        ))
        .hint("nodes join with `scribe cluster token`; another --data-dir makes a new cluster"));
    }
    for address in members.values() {
        for text in [&address.http_addr, &address.raft_addr] {
            if let Err(error) = TcpListener::bind(text) {
                return Err(taken(text, &error).hint(format!(
                    "the cluster in `{}` keeps its ports; is it running already?",
                    dir.display()
                )));
            }
        }
    }
    Ok(members)
}

fn create(arguments: &Arguments) -> Result<Members, Failure> {
    let count = arguments.nodes.unwrap_or(NODES_DEFAULT);
    seeds::check_count(count)?;
    // All are held until the last is found, so that none is found twice.
    let mut held = Vec::new();
    let mut members = Members::new();
    for position in 0..count {
        let offset = u16::try_from(position).unwrap_or(u16::MAX);
        let mut hold = |base: u16| {
            let port = match arguments.any_port {
                true => 0,
                false => base.checked_add(offset).ok_or_else(|| {
                    Failure::user(format!(
                        "ports end at 65535, found {base} for node 1 of {count}"
                    ))
                })?,
            };
            let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                taken(&format!("127.0.0.1:{port}"), &error).hint(
                    "--any-port takes free ports, --base-http-port and --base-raft-port others",
                )
            })?;
            let address = listener.local_addr().map_err(|error| {
                Failure::unexpected(format!("cannot find a free port: {error}"))
            })?;
            held.push(listener);
            Ok::<_, Failure>(address.to_string())
        };
        let address = PeerAddress {
            http_addr: hold(arguments.base_http_port)?,
            raft_addr: hold(arguments.base_raft_port)?,
        };
        members.insert(position as NodeId + 1, address);
    }
    let dir = &arguments.data_dir;
    let origin = arguments.origin.as_deref();
    files::create_cluster(&members, origin, &World::real(), |id| {
        seeds::key_dir(dir, id)
    })?;
    say(format_args!(
        "made a cluster of {count} in {}",
        dir.display()
    ));
    Ok(members)
}

fn taken(address: &str, error: &std::io::Error) -> Failure {
    Failure::user(format!("cannot listen on {address}: {error}"))
}

/// A node to run, and how it is asked.
struct Member {
    address: PeerAddress,
    client: Client,
}

/// The nodes that run.
struct Running {
    members: BTreeMap<NodeId, Member>,
    /// How the command to try begins.
    curl: String,
    nodes: BTreeMap<NodeId, Node>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Running {
    /// Waits until the cluster is ready, says so, and goes on until no node is left.
    async fn serve(&mut self) -> Result<(), Failure> {
        let ledger = self.wait_ready().await?;
        self.announce(&ledger)?;
        while !self.nodes.is_empty() {
            let Some(ended) = self.ended.recv().await else {
                break;
            };
            self.report(&ended);
        }
        Err(Failure::unexpected("every node has ended")
            .hint("what was acknowledged is on disk; run it again"))
    }

    /// What the ledger says of itself, once every node that runs is ready, or a majority when the others take too long.
    async fn wait_ready(&mut self) -> Result<LedgerInfo, Failure> {
        let began = Instant::now();
        let mut named = false;
        loop {
            while let Ok(ended) = self.ended.try_recv() {
                self.report(&ended);
            }
            let majority = self.members.len() / 2 + 1;
            if self.nodes.len() < majority {
                return Err(Failure::unexpected(format!(
                    "the cluster cannot begin: {} of {} nodes run, and {majority} are needed",
                    self.nodes.len(),
                    self.members.len()
                ))
                .hint("the lines above say why the others ended"));
            }
            let (ready, waiting) = self.look().await?;
            if let Some(first) = ready.first() {
                let enough = waiting.is_empty()
                    || (began.elapsed() > READY_TIMEOUT && ready.len() >= majority);
                if enough {
                    // Not repeated for long: a node that is ready answers.
                    if let Ok(ledger) = first.ledger().await {
                        return Ok(ledger);
                    }
                }
            }
            if began.elapsed() > PATIENCE && !named {
                named = true;
                for (id, reason) in &waiting {
                    say(format_args!("waiting for node {id}: {reason}"));
                }
            }
            if began.elapsed() > 2 * READY_TIMEOUT {
                return Err(Failure::unexpected(format!(
                    "the cluster is not ready after {} s: {} of {} nodes are",
                    began.elapsed().as_secs(),
                    ready.len(),
                    self.members.len()
                )));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The nodes that are ready, and what keeps the others.
    async fn look(&self) -> Result<(Vec<Client>, Vec<(NodeId, String)>), Failure> {
        let (mut ready, mut waiting) = (Vec::new(), Vec::new());
        for id in self.nodes.keys() {
            let Some(Member { client, .. }) = self.members.get(id) else {
                continue;
            };
            match client.health().await {
                Ok(health) if health.reason.is_none() => ready.push(client.clone()),
                Ok(health) => waiting.push((*id, health.reason.unwrap_or_default())),
                // It stays so, however long is waited.
                Err(error @ Error::Transport(TransportError::Certificate(_))) => {
                    return Err(error.into());
                }
                Err(error) => waiting.push((*id, error.to_string())),
            }
        }
        Ok((ready, waiting))
    }

    fn announce(&self, ledger: &LedgerInfo) -> Result<(), Failure> {
        let mut text = String::new();
        for (id, node) in &self.nodes {
            let Member { address, client } = &self.members[id];
            text.push_str(&format!(
                "node {}  http {}  raft {}  pid {}\n",
                node.id(),
                client.url(),
                address.raft_addr,
                node.pid()
            ));
        }
        let some = self.nodes.keys().next().and_then(|id| self.members.get(id));
        text.push_str(&format!(
            "origin      {}\npublic key  {}\ntry         {} -X PUT --data-binary 'hello' {}/v1/keys/greeting\n\
             cluster is ready\n",
            ledger.origin,
            ledger.verifier_keys.first().map_or("", String::as_str),
            self.curl,
            some.map_or("", |member| member.client.url()),
        ));
        print_raw(text.as_bytes())
    }

    fn report(&mut self, ended: &Ended) {
        self.nodes.remove(&ended.id);
        say(format_args!(
            "node {} {}; it is not started again: {} of {} nodes run",
            ended.id,
            children::how(&ended.status),
            self.nodes.len(),
            self.members.len()
        ));
    }

    /// Stops every node in order, or at once when `again` resolves, and waits until all have ended.
    async fn stop(&mut self, again: impl Future<Output = ()>) {
        for node in self.nodes.values_mut() {
            node.stop();
        }
        tokio::pin!(again);
        let mut killed = false;
        while !self.nodes.is_empty() {
            tokio::select! {
                ended = self.ended.recv() => match ended {
                    Some(ended) => {
                        self.nodes.remove(&ended.id);
                        if !matches!(&ended.status, Ok(status) if status.success()) {
                            say(format_args!("node {} {}", ended.id, children::how(&ended.status)));
                        }
                    }
                    None => return,
                },
                () = &mut again, if !killed => {
                    killed = true;
                    for node in self.nodes.values() {
                        node.kill();
                    }
                }
            }
        }
    }
}
