//! `scribe serve`: starts a node and stays until it is told to stop.

use std::future::Future;
use std::io::IsTerminal as _;

use tokio::signal::unix::{SignalKind, signal};

use super::SettingArgs;
use super::output::{Failure, say};
use crate::config::Config;
use crate::http::{self, HttpOptions};
use crate::node::{Node, NodeOptions};

/// Start a node (what `scribe` alone does)
///
/// Makes the data and key directories when they are missing, then serves the HTTP API until SIGINT or SIGTERM. Each
/// setting can be given as a flag, as a SCRIBE_* variable or in scribe.toml, in this order. Stop it at any time, also
/// with kill -9: what was acknowledged is on disk.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Example: a ledger under a name of your own, elsewhere on the disk
  $ scribe serve --origin example.com/ledger --data-dir /srv/ledger --key-dir /etc/scribe-keys

Then, from another terminal:
  $ curl -X PUT --data-binary 'hello' http://127.0.0.1:8001/v1/keys/greeting
  $ scribe get greeting"
)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingArgs,
}

/// Runs the command.
///
/// # Errors
/// Wrong settings, a node that cannot start, and a node that had to stop by itself.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.settings.load()?;
    config.check_exposure()?;
    start_logging(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // Asked for first, so that a signal during a long recovery is not lost.
    let stop = stop_signal()?;

    let http_options = http_options(&config);
    let listener = http::bind(&http_options).await.map_err(|error| {
        Failure::user(format!("cannot listen on {}: {error}", config.http_addr))
            .hint("another node may be running; --http-addr 127.0.0.1:0 takes any free port")
    })?;
    let address = listener.local_addr();
    let mut options = node_options(&config);
    options.http_addr = address.to_string();
    let node = start_node(options).await?;
    announce(&config, &node, &format!("http://{address}"));

    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = http::serve(listener, node.clone(), http_options, async {
        // A dropped sender means the same: this function is over.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => match outcome {
            Ok(()) => Err(Failure::unexpected("the HTTP server stopped by itself")),
            Err(error) => Err(Failure::unexpected(format!("the HTTP server failed: {error}"))),
        },
        reason = node.fatal() => {
            Err(Failure::unexpected(format!("the node stopped itself: {reason}"))
                .hint("what was acknowledged is on disk; see docs/operating.md before starting again"))
        }
        () = stop => {
            tracing::info!("stopping: requests in flight are finished first; a second signal ends at once");
            let _ = stopping.send(());
            let again = stop_signal()?;
            tokio::select! {
                outcome = &mut serving => {
                    outcome.map_err(|error| Failure::unexpected(format!("the HTTP server failed: {error}")))
                }
                () = again => Ok(()),
            }
        }
    };
    node.shutdown().await;
    outcome
}

/// Starts a node, with the message and the next step of whatever keeps it from starting.
pub(super) async fn start_node(options: NodeOptions) -> Result<Node, Failure> {
    Node::start(options).await.map_err(|error| {
        let failure = Failure::unexpected(error.to_string());
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
        http_addr: config.http_addr.to_string(),
        origin: config.origin.clone(),
        value_length_max: config.value_length_max,
        publish_interval_ms: config.publish_interval_ms,
        disk_reserve_bytes: config.disk_reserve_bytes,
        index_cache_bytes: config.index_cache_bytes,
        entry_cache_bytes: config.entry_cache_bytes,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        ..NodeOptions::default()
    }
}

fn http_options(config: &Config) -> HttpOptions {
    HttpOptions {
        addr: config.http_addr,
        value_length_max: config.value_length_max,
        raft_addr: config.raft_addr.clone(),
        ..HttpOptions::default()
    }
}

/// Tells the user where the ledger is and what to try.
fn announce(config: &Config, node: &Node, url: &str) {
    let ledger = node.ledger();
    let public_key = ledger.verifier_keys.first().map_or("", String::as_str);
    say(format_args!(
        "scribe {version} is ready

  URL         {url}
  origin      {origin}
  public key  {public_key}
  data        {data}
  keys        {keys}

Try it:
  curl -X PUT --data-binary 'hello' {url}/v1/keys/greeting
",
        version = env!("CARGO_PKG_VERSION"),
        origin = ledger.origin,
        data = config.data_dir.display(),
        keys = config.key_dir.display(),
    ));
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
    // At `info` the libraries below would tell more than the node itself.
    let filter = match filter {
        "info" => "warn,scribe=info",
        other => other,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(check_log_filter(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Resolves at the next SIGINT or SIGTERM; both are caught from now on.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let unavailable = |error| Failure::unexpected(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
