//! `scribe serve`: starts a node and stays until it is told to stop.

mod certificates;
mod joining;

use std::future::Future;
use std::io::{IsTerminal as _, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clap::{Args as _, FromArgMatches as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::certificates::Certificates;
use super::SettingArgs;
use super::output::{Failure, say};
use crate::cluster::files::ClusterFiles;
use crate::config::Config;
use crate::consensus::{ConsensusOptions, LOG_TARGET};
use crate::http::{self, HttpOptions, HttpTls};
use crate::node::{Node, NodeOptions, StartError};
use crate::peer::PeerTimeouts;

/// Start a node (what `scribe` alone does)
///
/// Makes the data and key directories when they are missing, then serves the HTTP API until SIGINT or SIGTERM. Each
/// setting can be given as a flag, as a SCRIBE_* variable or in scribe.toml, in this order. Stop it at any time, also
/// with kill -9: what was acknowledged is on disk.
///
/// A node whose key directory says that it is a member of a cluster takes its place there; any other runs alone. With
/// --join, a node with new directories joins a cluster first. SIGHUP takes certificates that were replaced into use.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Example: a ledger under a name of your own, elsewhere on the disk
  $ scribe serve --origin example.com/ledger --data-dir /srv/ledger --key-dir /etc/scribe-keys

Then, from another terminal:
  $ curl -X PUT --data-binary 'hello' http://127.0.0.1:8001/v1/keys/greeting
  $ scribe get greeting

Example: a new node joins a cluster, with a token from `scribe cluster token`
  $ scribe serve --join token --raft-addr 10.0.0.4:9001

`scribe cluster --help` shows how to make a cluster."
)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingArgs,
    /// Start only as a member of a cluster: a key directory that is none, a wrong path perhaps, is refused
    #[arg(long)]
    member: bool,
    /// Stop when standard input is closed: how `scribe cluster up` holds its nodes
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs the command.
///
/// # Errors
/// Wrong settings, a node that cannot start or join, and a node that had to stop by itself.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.settings.load()?;
    config.check_exposure()?;
    start_logging(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Asked for first, so that a signal during a long recovery is not lost.
    let stop = stop_signal()?;
    let parent_gone = parent_gone(arguments.stop_with_stdin)?;
    let hangup = hangup_signal()?;

    let mut http_options = http_options(&config)?;
    let scheme = scheme(&config);
    let listener = http::bind(&http_options).await.map_err(|error| {
        Failure::user(format!("cannot listen on {}: {error}", config.http_addr))
            .hint("another node may be running; --http-addr 127.0.0.1:0 takes any free port")
    })?;
    let address = listener.local_addr();
    let mut options = node_options(&config);
    options.http_addr = advertised(&config, address);
    http_options.http_addr.clone_from(&options.http_addr);
    if let Some(token) = &config.join {
        joining::join(token, &mut options).await?;
    }
    if arguments.member {
        expect_member(&options.key_dir)?;
    }
    let certificates = Certificates::of(&options, &http_options);
    let node = start_node(options).await?;
    // `scribe cluster up` says the rest for all of its nodes at once.
    match arguments.stop_with_stdin {
        true => say(format_args!("node {} runs", node.health().node_id)),
        false => announce(&config, &node, &format!("{scheme}://{address}")),
    }

    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = http::serve(listener, node.clone(), http_options, async {
        // A dropped sender means the same: this function is over.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    let failed = |error| Failure::unexpected(format!("the HTTP server failed: {error}"));
    let outcome = tokio::select! {
        outcome = &mut serving => match outcome {
            Ok(()) => Err(Failure::unexpected("the HTTP server stopped by itself")),
            Err(error) => Err(failed(error)),
        },
        reason = node.fatal() => {
            Err(Failure::unexpected(format!("the node stopped itself: {reason}"))
                .hint("what was acknowledged is on disk; see docs/operating.md before starting again"))
        }
        () = async {
            tokio::select! {
                () = stop => {}
                () = parent_gone => {}
                () = certificates.keep(&node, hangup) => {}
            }
        } => {
            tracing::info!("stopping: requests in flight are finished first; a second signal ends at once");
            let again = stop_signal()?;
            // Clients are served until another node leads: what arrives meanwhile is carried there.
            let leave = async {
                node.leave().await;
                let _ = stopping.send(());
            };
            tokio::select! {
                (outcome, ()) = async { tokio::join!(&mut serving, leave) } => outcome.map_err(failed),
                () = again => Ok(()),
            }
        }
    };
    node.shutdown().await;
    outcome
}

/// The settings a node runs with that is started with these flags behind `scribe serve`.
pub(super) fn config_of(flags: &[String]) -> Result<Config, Failure> {
    let command = Arguments::augment_args(clap::Command::new("scribe serve").no_binary_name(true));
    let arguments = command
        .try_get_matches_from(flags)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    match arguments {
        Ok(arguments) => arguments.settings.load(),
        Err(error) => {
            let text = error.to_string();
            Err(Failure::user(text.trim_start_matches("error: ").trim_end()))
        }
    }
}

/// How the URL of a node with these settings begins.
pub(super) fn scheme(config: &Config) -> &'static str {
    match config.http_tls {
        Some(_) => "https",
        None => "http",
    }
}

/// Without it, a key directory that is not there would be made, and the node would run alone with a ledger of its own.
fn expect_member(key_dir: &Path) -> Result<(), Failure> {
    if ClusterFiles::load(key_dir)?.is_some() {
        return Ok(());
    }
    Err(Failure::user(format!(
        "--member starts a member of a cluster, but `{}` is not a member's key directory",
        key_dir.display()
    ))
    .hint("--key-dir names the `keys` that `scribe cluster init` made for this node; is this the right working directory?"))
}

/// Starts a node, with the message and the next step of whatever keeps it from starting.
pub(super) async fn start_node(options: NodeOptions) -> Result<Node, Failure> {
    Node::start(options).await.map_err(|error| {
        let failure = match &error {
            // Directories that do not belong together, or data that is gone: starting again fails again.
            StartError::Identity { .. } => Failure::user(error.to_string()),
            _ => Failure::unexpected(error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The part of the settings the node itself reads.
pub(super) fn node_options(config: &Config) -> NodeOptions {
    NodeOptions {
        data_dir: config.data_dir.clone(),
        key_dir: config.key_dir.clone(),
        raft_addr: config.raft_addr.clone(),
        raft_listen: config.raft_listen.clone().unwrap_or_default(),
        raft_plaintext: config.raft_plaintext,
        stay_learner: config.learner,
        ready_lag_max: config.ready_lag_max,
        http_addr: config.http_addr.to_string(),
        origin: config.origin.clone(),
        value_length_max: config.value_length_max,
        publish_interval_ms: config.publish_interval_ms,
        witnesses: config.witnesses.clone(),
        disk_reserve_bytes: config.disk_reserve_bytes,
        index_cache_bytes: config.index_cache_bytes,
        entry_cache_bytes: config.entry_cache_bytes,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        peer_timeouts: PeerTimeouts {
            connect_ms: config.peer_connect_ms,
            request_ms: config.peer_request_ms,
            progress_ms: config.peer_progress_ms,
            ..PeerTimeouts::default()
        },
        consensus: ConsensusOptions {
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            election_timeout_min_ms: config.election_timeout_min_ms,
            election_timeout_max_ms: config.election_timeout_max_ms,
            snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        },
        ..NodeOptions::default()
    }
}

fn http_options(config: &Config) -> Result<HttpOptions, Failure> {
    let tls = match &config.http_tls {
        Some((certificate, key)) => {
            let tls = HttpTls::load(certificate, key)
                .map_err(|error| Failure::user(error.to_string()))?;
            Some(Arc::new(tls))
        }
        None => None,
    };
    Ok(HttpOptions {
        addr: config.http_addr,
        value_length_max: config.value_length_max,
        raft_addr: config.raft_addr.clone(),
        tls,
        ..HttpOptions::default()
    })
}

/// Where clients reach the HTTP API, as other nodes are told.
fn advertised(config: &Config, bound: SocketAddr) -> String {
    if let Some(address) = &config.http_advertise_addr {
        return address.clone();
    }
    // Nobody can connect to "every address"; where others reach this node, clients mostly do too.
    match config.raft_addr.rsplit_once(':') {
        Some((host, _)) if bound.ip().is_unspecified() => format!("{host}:{}", bound.port()),
        _ => bound.to_string(),
    }
}

/// Tells the user where the ledger is and what to try.
fn announce(config: &Config, node: &Node, url: &str) {
    let ledger = node.ledger();
    let public_key = ledger.verifier_keys.first().map_or("", String::as_str);
    // A member of a cluster serves when a majority of it runs, which may be later.
    let state = if node.is_alone() { "is ready" } else { "runs" };
    say(format_args!(
        "scribe {version} {state}

  URL         {url}
  origin      {origin}
  public key  {public_key}
  data        {data}
  keys        {keys}
{cluster}
Try it:
  curl -X PUT --data-binary 'hello' {url}/v1/keys/greeting
",
        version = env!("CARGO_PKG_VERSION"),
        origin = ledger.origin,
        data = config.data_dir.display(),
        keys = config.key_dir.display(),
        cluster = cluster_facts(node),
    ));
}

/// Who the node is in its cluster, a line each; nothing for a node that runs alone.
fn cluster_facts(node: &Node) -> String {
    let Some(cluster_id) = node.cluster_id() else {
        return String::new();
    };
    let members = node.members().into_iter().map(|member| {
        let role = if member.voter { "" } else { " (learner)" };
        format!("{} at {}{role}", member.node_id, member.address.raft_addr)
    });
    let members = members.collect::<Vec<_>>().join(", ");
    format!(
        "
  node        {id} of cluster {cluster_id}
  raft        {raft}
  members     {members}
",
        id = node.health().node_id,
        raft = node.raft_addr(),
        members = if members.is_empty() {
            "not known yet"
        } else {
            &members
        },
    )
}

/// Refuses a log filter that cannot be parsed.
///
/// # Errors
/// The filter and what is wrong with it.
pub(super) fn check_log_filter(filter: &str) -> Result<tracing_subscriber::EnvFilter, Failure> {
    tracing_subscriber::EnvFilter::builder()
        .parse(filter)
        .map_err(|error| {
            Failure::user(format!("invalid `log`: found `{filter}`, but {error}")).hint(
                "allowed is error, warn, info, debug, trace, or a filter like info,scribe=debug",
            )
        })
}

/// Sends logs to stderr. A second call in one process changes nothing.
pub(super) fn start_logging(filter: &str) -> Result<(), Failure> {
    // At `info` the libraries below would tell more than the node itself, and the one that does Raft would warn of a node
    // that is away at each heartbeat.
    let filter = match filter {
        "info" => format!("warn,{LOG_TARGET}=error,scribe=info"),
        other => other.to_owned(),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(check_log_filter(&filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Resolves at the next SIGINT or SIGTERM; both are caught from now on.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn unavailable(error: std::io::Error) -> Failure {
    Failure::unexpected(format!("cannot listen for signals: {error}"))
}

/// SIGHUP, which is caught from now on.
pub(super) fn hangup_signal() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(unavailable)
}

/// Resolves when standard input is closed, if that is to be watched: the process that started this node is gone.
fn parent_gone(watched: bool) -> Result<impl Future<Output = ()>, Failure> {
    let (gone, closed) = tokio::sync::oneshot::channel::<()>();
    if watched {
        // A thread of its own: a read of standard input cannot be cancelled, and must not hold the runtime up.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || {
                let mut byte = [0];
                while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
                drop(gone);
            })
            .map_err(|error| Failure::unexpected(format!("cannot start threads: {error}")))?;
        return Ok(futures::future::Either::Left(async {
            let _ = closed.await;
        }));
    }
    Ok(futures::future::Either::Right(std::future::pending()))
}
