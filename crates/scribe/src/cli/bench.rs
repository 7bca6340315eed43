//! `scribe bench`: a load generator for whole servers, over real HTTP/1.1 connections, with TLS or without.
//!
//! It is lean on purpose (a raw socket per connection, requests built in place, answers skipped rather than parsed),
//! because on one machine every microsecond it uses is one the server does not get. The same generator measures any
//! URL, a server that does nothing (`--hello`) and the disk alone (`--operation fdatasync`), so that a number can be
//! judged beside the limits of the machine it was measured on.

mod connection;
mod disk;
mod hello;
mod load;

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use self::connection::Target;
use self::load::{Load, Measured};
use super::output::{Failure, Output, say};
use super::{ClientArgs, read_certificates};
use crate::http::TlsTarget;
use crate::units;

/// Connections one run may open: each costs a descriptor here and one at the server.
const CONNECTIONS_MAX: usize = 10_000;
/// Longest latency the histogram tells apart, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Measure a server, or the limits of this machine
///
/// Every connection sends its next request as soon as the last one is answered (or at --rate). Latencies are counted
/// in an HDR histogram from the first byte sent to the last byte read. The generator shares the machine with a local
/// server: compare runs made in the same minute, and look at --hello and --operation fdatasync beside them.
///
/// It appends entries under keys that begin with `bench-`, and a ledger keeps them for ever: use a ledger of its own.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: durable writes, beside what HTTP and the disk allow
  $ scribe bench --operation put --connections 256 --seconds 5
  $ scribe bench --operation put --connections 256 --seconds 5 --hello
  $ scribe bench --operation fdatasync --seconds 5"
)]
pub struct Arguments {
    #[command(flatten)]
    client: ClientArgs,
    /// What to do
    #[arg(long, value_name = "OPERATION", default_value = "put")]
    operation: Operation,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// How long to run before measuring
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup_seconds: u64,
    /// Length of each value, in bytes or with a unit
    #[arg(long, value_name = "SIZE", default_value = "256")]
    value_bytes: String,
    /// Keys to spread the operations over; get, receipt and mixed put each once first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u64,
    /// Do not put the keys first: they are there from an earlier run
    #[arg(long)]
    no_fill: bool,
    /// Operations per second over all connections [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Entries in one bulk upload
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    bulk_lines: usize,
    /// Path of the requests, for other servers; {key} is replaced
    #[arg(long, value_name = "PATH", default_value = "/v1/keys/{key}")]
    path: String,
    /// Method of writes, for other servers
    #[arg(long, value_name = "METHOD", default_value = "PUT")]
    method: String,
    /// Measure a server inside this program that does nothing, instead of --server
    #[arg(long)]
    hello: bool,
    /// Measure a server that does nothing first, and say what part of its rate --server reaches
    #[arg(long, conflicts_with = "hello")]
    beside_hello: bool,
    /// Directory for --operation fdatasync
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// What a run repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Put a random key.
    Put,
    /// Get a random key.
    Get,
    /// Get the receipt of a random key.
    Receipt,
    /// Half put, half get.
    Mixed,
    /// Upload many entries in one request; each entry counts.
    Bulk,
    /// Append a value to a file and sync it: no server, the disk's own limit.
    Fdatasync,
}

/// What a run found.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    operation: Operation,
    connections: usize,
    seconds: f64,
    value_bytes: usize,
    operations: u64,
    per_second: f64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    latency_us: Latency,
    /// What a server that does nothing reached just before.
    #[serde(skip_serializing_if = "Option::is_none")]
    hello_per_second: Option<f64>,
    /// `per_second` by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_hello: Option<f64>,
}

/// Latencies in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// Runs the command.
///
/// # Errors
/// Arguments out of range, a server that cannot be reached, or a run in which nothing succeeded.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = arguments.client.output();
    let value_bytes = units::parse_bytes(&arguments.value_bytes).map_err(|rule| {
        Failure::user(format!(
            "invalid --value-bytes `{}`: {rule}",
            arguments.value_bytes
        ))
    })?;
    let value_bytes = in_range(
        "--value-bytes",
        value_bytes,
        0,
        crate::limits::VALUE_LENGTH_CEILING as u64,
    )? as usize;
    let seconds = in_range("--seconds", arguments.seconds, 1, 86_400)?;
    if arguments.operation == Operation::Fdatasync {
        let dir = arguments.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || {
            disk::measure(&dir, value_bytes, Duration::from_secs(seconds))
        })
        .await
        .map_err(|error| Failure::unexpected(format!("the measurement stopped: {error}")))??;
        let target = arguments.data_dir.display().to_string();
        return print(
            output,
            target,
            arguments.operation,
            1,
            value_bytes,
            measured,
            None,
        );
    }

    let mut hello_per_second = None;
    let target = match arguments.hello || arguments.beside_hello {
        true => {
            let address = hello::start(value_bytes)?;
            say(format_args!(
                "measuring a server that does nothing on {address}"
            ));
            format!("http://{address}")
        }
        false => arguments.client.server.clone(),
    };
    let mut load = load(&arguments, &target, value_bytes)?;
    let (operation, connections) = (load.operation, load.connections);
    if arguments.beside_hello {
        load.fill = false;
        let measured = load::run(load).await?;
        hello_per_second = Some(measured.per_second());
        let target = &arguments.client.server;
        say(format_args!("measuring {target}"));
        load = self::load(&arguments, target, value_bytes)?;
    } else if arguments.hello {
        load.fill = false;
    }
    if operation == Operation::Receipt && !arguments.hello {
        load.read_suffix = "/receipt";
    }
    let measured = load::run(load).await?;
    let target = match arguments.hello {
        true => format!("{target} (does nothing)"),
        false => arguments.client.server.clone(),
    };
    print(
        output,
        target,
        operation,
        connections,
        value_bytes,
        measured,
        hello_per_second,
    )
}

/// What to send to a server.
fn load(arguments: &Arguments, server: &str, value_bytes: usize) -> Result<Load, Failure> {
    let (address, host) = resolve(server)?;
    let connections = arguments.connections as u64;
    Ok(Load {
        target: Target {
            address,
            tls: tls(server, &arguments.client)?,
        },
        host,
        operation: arguments.operation,
        connections: in_range("--connections", connections, 1, CONNECTIONS_MAX as u64)? as usize,
        duration: Duration::from_secs(in_range("--seconds", arguments.seconds, 1, 86_400)?),
        warmup: Duration::from_secs(arguments.warmup_seconds.min(3_600)),
        value: load::random_text(value_bytes),
        keys: in_range("--keys", arguments.keys, 1, 1 << 32)?,
        fill: !arguments.no_fill,
        rate: match arguments.rate {
            Some(rate) => Some(in_range("--rate", rate, 1, 10_000_000)?),
            None => None,
        },
        bulk_lines: in_range("--bulk-lines", arguments.bulk_lines as u64, 1, 1_000_000)? as usize,
        path: arguments.path.clone(),
        read_suffix: "",
        method: arguments.method.clone(),
    })
}

fn in_range(name: &str, found: u64, low: u64, high: u64) -> Result<u64, Failure> {
    if (low..=high).contains(&found) {
        return Ok(found);
    }
    Err(Failure::user(format!(
        "{name} must be {low} to {high}, found {found}"
    )))
}

/// How to speak TLS, if the URL asks for it. The generator reads no store of the system's CAs: it measures nodes, whose
/// CA is at hand.
fn tls(server: &str, client: &ClientArgs) -> Result<Option<TlsTarget>, Failure> {
    let uri: http::Uri = server.parse().unwrap_or_default();
    if uri.scheme_str() != Some("https") {
        return Ok(None);
    }
    let Some(path) = &client.trust.cacert else {
        return Err(
            Failure::user("an https:// node needs --cacert to be measured")
                .hint("--cacert FILE names the certificate of the CA that vouches for the node"),
        );
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = TlsTarget::new(host, &read_certificates(path)?)
        .map_err(|error| Failure::user(format!("cannot use `{}`: {error}", path.display())))?;
    Ok(Some(tls))
}

/// Address and Host header of an `http://` or `https://` URL.
pub(super) fn resolve(server: &str) -> Result<(std::net::SocketAddr, String), Failure> {
    let form = || {
        Failure::user(format!(
            "--server must be a URL like http://127.0.0.1:8001, found `{server}`"
        ))
    };
    let uri: http::Uri = server.parse().map_err(|_| form())?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(form()),
    };
    let authority = uri.authority().ok_or_else(form)?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let address = (host, authority.port_u16().unwrap_or(port))
        .to_socket_addrs()
        .map_err(|error| Failure::user(format!("cannot resolve `{host}`: {error}")))?
        .next()
        .ok_or_else(|| Failure::user(format!("`{host}` has no address")))?;
    Ok((address, authority.to_string()))
}

fn print(
    output: Output,
    target: String,
    operation: Operation,
    connections: usize,
    value_bytes: usize,
    measured: Measured,
    hello_per_second: Option<f64>,
) -> Result<(), Failure> {
    if measured.operations == 0 {
        let reason = measured
            .first_error
            .unwrap_or_else(|| "no answer arrived in time".to_owned());
        return Err(Failure::unexpected(format!(
            "no operation succeeded: {reason}"
        )));
    }
    let per_second = measured.per_second();
    let report = Report {
        target,
        operation,
        connections,
        seconds: measured.elapsed.as_secs_f64(),
        value_bytes,
        operations: measured.operations,
        per_second,
        errors: measured.errors,
        first_error: measured.first_error,
        latency_us: Latency::of(&measured.latency_us),
        hello_per_second,
        of_hello: hello_per_second.map(|hello| per_second / hello),
    };
    output.print(report.to_text(), &report)
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let operation = format!("{:?}", self.operation).to_lowercase();
        let latency = &self.latency_us;
        let columns = ["p50", "p90", "p99", "p99.9", "max"]
            .map(|name| format!("{name:>9}"))
            .concat();
        let values = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
        ]
        .map(|microseconds| format!("{:>9}", show_latency(microseconds)))
        .concat();
        let per = if self.operation == Operation::Bulk {
            "  (latency per upload)"
        } else {
            ""
        };
        let mut text = format!(
            "{target}\n{:<10}{:>6}{:>10}{:>12}{columns}{:>8}\n{operation:<10}{:>6}{:>10}{:>12.0}{values}{:>8}{per}\n",
            "operation",
            "conns",
            "value",
            "per second",
            "errors",
            self.connections,
            units::format_bytes(self.value_bytes as u64),
            self.per_second,
            self.errors,
            target = self.target,
        );
        if let (Some(hello), Some(part)) = (self.hello_per_second, self.of_hello) {
            text.push_str(&format!(
                "{part:.2} of the {hello:.0} per second of a server that does nothing\n"
            ));
        }
        if let Some(error) = &self.first_error {
            text.push_str(&format!("first error: {error}\n"));
        }
        text
    }
}

/// Three figures of a latency, in the unit that suits it.
fn show_latency(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds}us"),
        1_000..1_000_000 => format!("{:.2}ms", microseconds as f64 / 1e3),
        _ => format!("{:.2}s", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_urls() {
        let (address, host) = resolve("http://127.0.0.1:8001").unwrap();
        assert_eq!(
            (address.to_string().as_str(), host.as_str()),
            ("127.0.0.1:8001", "127.0.0.1:8001")
        );
        assert_eq!(
            resolve("http://[::1]:7/x").unwrap().0.to_string(),
            "[::1]:7"
        );
        assert_eq!(
            resolve("https://127.0.0.1").unwrap().0.to_string(),
            "127.0.0.1:443"
        );
        for wrong in ["127.0.0.1:8001", "ftp://127.0.0.1", "http://", "nonsense"] {
            assert!(resolve(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_operation_measures_the_server_that_does_nothing() {
        for operation in [
            Operation::Put,
            Operation::Get,
            Operation::Receipt,
            Operation::Mixed,
            Operation::Bulk,
        ] {
            let address = hello::start(100).unwrap();
            let measured = load::run(Load {
                target: Target { address, tls: None },
                host: address.to_string(),
                operation,
                connections: 3,
                duration: Duration::from_millis(100),
                warmup: Duration::ZERO,
                value: load::random_text(100),
                keys: 10,
                fill: true,
                rate: None,
                bulk_lines: 7,
                path: "/v1/keys/{key}".to_owned(),
                read_suffix: "",
                method: "PUT".to_owned(),
            })
            .await
            .unwrap();
            assert_eq!(
                (measured.errors, measured.first_error),
                (0, None),
                "{operation:?}"
            );
            assert!(measured.operations > 3, "{operation:?}");
            assert!(!measured.latency_us.is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refusals_are_counted_with_the_first_one_shown() {
        let address = hello::start(10).unwrap();
        let measured = load::run(Load {
            target: Target { address, tls: None },
            host: address.to_string(),
            operation: Operation::Put,
            connections: 1,
            duration: Duration::from_millis(50),
            warmup: Duration::ZERO,
            value: load::random_text(10),
            keys: 1,
            fill: false,
            rate: Some(1_000),
            bulk_lines: 1,
            path: "/nowhere".to_owned(),
            read_suffix: "",
            method: "PUT".to_owned(),
        })
        .await
        .unwrap();
        assert_eq!(measured.operations, 0);
        assert!(measured.errors > 0);
        assert!(measured.first_error.unwrap().contains("404"));
    }

    #[test]
    fn the_disk_alone() {
        let dir = tempfile::tempdir().unwrap();
        let measured = disk::measure(dir.path(), 4_096, Duration::from_millis(50)).unwrap();
        assert!(measured.operations > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
