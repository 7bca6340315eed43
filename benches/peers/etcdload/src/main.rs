//! `etcdload`: a closed-loop load generator for etcd over gRPC, the counterpart of `scribe bench`.
//!
//! It makes the same load: every client sends its next request when the last one is answered, keys are never put twice,
//! latencies run from the first byte sent to the answer and are counted in an HDR histogram. What differs is etcd's
//! own: gRPC over at most 16 HTTP/2 connections that the clients share, because that is how etcd is used and more
//! connections make it slower.
//!
//! It is not a benchmark of its own: `../compare` starts etcd, calls it and judges the figures.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use etcd_client::{Client, ConnectOptions, GetOptions};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

/// Connections that the clients share.
const CONNECTIONS_MAX: usize = 16;
/// How long a request may take before it counts as an error.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this many failed requests in a row a client gives up.
const FAILURES_MAX: u32 = 20;
/// Longest latency the histogram tells apart, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Put a load on etcd and print what it answered, as one line of JSON
///
/// Every client sends its next request as soon as the last one is answered. `put` never puts a key twice, also not
/// over several runs. The gets read random keys out of --keys, which are put first and not measured.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Example: an etcd on this machine, 64 clients, five seconds
  $ etcd --data-dir /var/tmp/etcd &
  $ etcdload --operation put --clients 64 --seconds 5
  $ etcdload --operation get-linear --clients 64 --seconds 5"
)]
struct Arguments {
    /// Where etcd answers clients; several, with commas, share the connections evenly
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// What to do
    #[arg(long, value_name = "OPERATION", default_value = "put")]
    operation: Operation,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// How long to measure, after one second that is not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How long to run before measuring
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warmup_seconds: u64,
    /// Bytes in each value; etcd itself refuses requests above 1.5 MiB
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    value_length: u64,
    /// Keys the gets are spread over
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Do not put the keys first: they are there from an earlier run
    #[arg(long)]
    no_fill: bool,
}

/// What a run repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    /// Put a key that was never put.
    Put,
    /// Get a random key, with etcd's default: it asks the majority whether it is still the leader.
    GetLinear,
    /// Get a random key as this node knows it, which may be old.
    GetSerial,
}

/// What a run found, as it is printed.
#[derive(Debug, Serialize)]
struct Report {
    operation: Operation,
    clients: u64,
    seconds: f64,
    operations: u64,
    per_second: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

/// What one client found, or all.
struct Measured {
    latency_us: Histogram<u64>,
    operations: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Measured {
    fn new() -> Result<Self, String> {
        Ok(Self {
            latency_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
                .map_err(|error| error.to_string())?,
            operations: 0,
            errors: 0,
            first_error: None,
        })
    }

    fn add(&mut self, other: Measured) -> Result<(), String> {
        self.latency_us
            .add(&other.latency_us)
            .map_err(|error| error.to_string())?;
        self.operations += other.operations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

/// Where the keys and values of a run come from.
struct Source {
    operation: Operation,
    keys: u64,
    value: Vec<u8>,
    /// Number of the next key to put. It begins at the time in microseconds: a later run begins above every number an
    /// earlier one used, as long as fewer than a million are put in a second.
    next: AtomicU64,
}

impl Source {
    fn new(arguments: &Arguments) -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let start = since_1970.as_micros() as u64;
        Self {
            operation: arguments.operation,
            keys: arguments.keys,
            value: letters(arguments.value_length as usize, start | 1),
            next: AtomicU64::new(start),
        }
    }

    fn unique_key(&self) -> String {
        format!("bench-{:016x}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A key that the gets read, as `scribe bench` names it.
fn known_key(number: u64) -> String {
    format!("bench-{number:08}")
}

/// xorshift64: the quality of the draw does not matter here, its cost does. Zero would be a fixed point.
fn draw(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Random letters and digits, which do not compress.
fn letters(length: usize, mut random: u64) -> Vec<u8> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length)
        .map(|_| ALPHABET[(draw(&mut random) >> 32) as usize % ALPHABET.len()])
        .collect()
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<String, String> {
    let connections = connect(&arguments).await?;
    let source = Arc::new(Source::new(&arguments));
    if arguments.operation != Operation::Put && !arguments.no_fill {
        fill(&source, &connections, arguments.clients).await?;
    }
    let begin = Instant::now() + Duration::from_secs(arguments.warmup_seconds);
    let end = begin + Duration::from_secs(arguments.seconds);
    let mut clients = JoinSet::new();
    for number in 0..arguments.clients {
        let connection = connections[number as usize % connections.len()].clone();
        clients.spawn(client(Arc::clone(&source), connection, number, begin, end));
    }
    let mut total = Measured::new()?;
    while let Some(measured) = clients.join_next().await {
        total.add(measured.map_err(|error| format!("a client's task failed: {error}"))??)?;
    }
    if total.operations == 0 {
        let reason = total
            .first_error
            .unwrap_or_else(|| "no answer arrived in time".to_owned());
        return Err(format!("no operation succeeded: {reason}"));
    }
    let seconds = arguments.seconds as f64;
    let report = Report {
        operation: arguments.operation,
        clients: arguments.clients,
        seconds,
        operations: total.operations,
        per_second: total.operations as f64 / seconds,
        p50_us: total.latency_us.value_at_quantile(0.5),
        p99_us: total.latency_us.value_at_quantile(0.99),
        max_us: total.latency_us.max(),
        errors: total.errors,
        first_error: total.first_error,
    };
    serde_json::to_string(&report).map_err(|error| error.to_string())
}

/// Opens the connections that the clients share, evenly over the endpoints.
async fn connect(arguments: &Arguments) -> Result<Vec<Client>, String> {
    let count = CONNECTIONS_MAX.min(arguments.clients as usize).max(1);
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT);
    let mut connections = Vec::with_capacity(count);
    for endpoint in arguments.endpoints.iter().cycle().take(count) {
        let mut connection = Client::connect([endpoint], Some(options.clone()))
            .await
            .map_err(|error| format!("cannot connect to {endpoint}: {error}"))?;
        // Connecting is lazy: asked once, so that a wrong address is told once and not by every client.
        connection
            .status()
            .await
            .map_err(|error| format!("etcd does not answer on {endpoint}: {error}"))?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Puts every key that the gets read once.
async fn fill(source: &Arc<Source>, connections: &[Client], clients: u64) -> Result<(), String> {
    let mut workers = JoinSet::new();
    for first in 0..clients {
        let source = Arc::clone(source);
        let mut connection = connections[first as usize % connections.len()].clone();
        workers.spawn(async move {
            for number in (first..source.keys).step_by(clients as usize) {
                connection
                    .put(known_key(number), source.value.clone(), None)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(filled) = workers.join_next().await {
        filled
            .map_err(|error| error.to_string())
            .and_then(|filled| filled)
            .map_err(|error| format!("cannot put the keys first: {error}"))?;
    }
    Ok(())
}

/// One request after another until `end`.
async fn client(
    source: Arc<Source>,
    mut connection: Client,
    number: u64,
    begin: Instant,
    end: Instant,
) -> Result<Measured, String> {
    let mut measured = Measured::new()?;
    // Any odd multiplier spreads the clients.
    let mut random = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut failures = 0;
    while failures < FAILURES_MAX {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        match request(&source, &mut connection, &mut random).await {
            Ok(()) => {
                failures = 0;
                let now = Instant::now();
                // What ends after the end would stretch the time measured.
                if begun >= begin && now <= end {
                    measured.operations += 1;
                    measured
                        .latency_us
                        .saturating_record((now - begun).as_micros().max(1) as u64);
                }
            }
            Err(error) => {
                failures += 1;
                measured.errors += 1;
                measured.first_error.get_or_insert(error);
            }
        }
    }
    Ok(measured)
}

async fn request(source: &Source, connection: &mut Client, random: &mut u64) -> Result<(), String> {
    let options = match source.operation {
        Operation::Put => {
            return match connection
                .put(source.unique_key(), source.value.clone(), None)
                .await
            {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
        }
        Operation::GetLinear => None,
        Operation::GetSerial => Some(GetOptions::new().with_serializable()),
    };
    let key = known_key(draw(random) % source.keys);
    match connection.get(key.as_str(), options).await {
        Ok(answer) if answer.kvs().len() == 1 => Ok(()),
        // An empty answer is quick: counted as success it would make etcd look better than it is.
        Ok(_) => Err(format!("key {key} was not found")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::try_parse_from(std::iter::once("etcdload").chain(words.iter().copied())).unwrap()
    }

    #[test]
    fn a_later_run_puts_other_keys() {
        let first = Source::new(&arguments(&[]));
        let keys: Vec<_> = (0..3).map(|_| first.unique_key()).collect();
        assert!(keys.is_sorted_by(|left, right| left < right));
        let start = first.next.load(Ordering::Relaxed);
        while SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros() as u64
            <= start
        {}
        assert!(Source::new(&arguments(&[])).unique_key() > keys[2]);
    }

    #[test]
    fn values_have_their_length_and_do_not_repeat() {
        let value = Source::new(&arguments(&["--value-length", "300"])).value;
        assert_eq!(value.len(), 300);
        assert!(value.iter().all(u8::is_ascii_alphanumeric));
        assert_ne!(value[..150], value[150..]);
        assert!(letters(0, 1).is_empty());
    }

    #[test]
    fn endpoints_are_split_at_commas() {
        let endpoints = arguments(&["--endpoints", "http://a:1,http://b:2"]).endpoints;
        assert_eq!(endpoints, ["http://a:1", "http://b:2"]);
    }
}
