//! Many connections, each repeating one operation.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::Rng as _;

use super::super::output::{Failure, NO_NODE_HINT, ProgressUnit, progress};
use super::connection::{Connection, Target};
use super::{LATENCY_MAX_US, Operation};

/// After this many failed connections or exchanges in a row a connection gives up.
const FAILURES_MAX: u32 = 20;

/// What to do, how often, where.
pub(super) struct Load {
    pub(super) target: Target,
    pub(super) host: String,
    pub(super) operation: Operation,
    pub(super) connections: usize,
    pub(super) duration: Duration,
    pub(super) warmup: Duration,
    pub(super) value: Vec<u8>,
    pub(super) keys: u64,
    /// Put every key once before reading.
    pub(super) fill: bool,
    /// Operations per second over all connections.
    pub(super) rate: Option<u64>,
    pub(super) bulk_lines: usize,
    pub(super) path: String,
    /// What reads have behind the path.
    pub(super) read_suffix: &'static str,
    pub(super) method: String,
}

/// What was found, by one connection or by all.
pub(super) struct Measured {
    pub(super) latency_us: Histogram<u64>,
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) elapsed: Duration,
}

impl Measured {
    /// Operations in a second.
    pub(super) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// Letters and digits: a value that is its own JSON string and does not compress.
pub(super) fn random_text(length: usize) -> Vec<u8> {
    rand::rng()
        .sample_iter(rand::distr::Alphanumeric)
        .take(length)
        .collect()
}

/// Fills if asked to, warms up, measures.
pub(super) async fn run(load: Load) -> Result<Measured, Failure> {
    let load = Arc::new(load);
    // Found out once, with a clear message, rather than by every connection.
    Connection::open(&load.target).await.map_err(|error| {
        Failure::unexpected(format!("cannot connect to {}: {error}", load.target))
            .hint(NO_NODE_HINT)
    })?;
    if load.fill
        && matches!(
            load.operation,
            Operation::Get | Operation::Receipt | Operation::Mixed
        )
    {
        fill(&load).await?;
    }
    let bar = progress(None, ProgressUnit::Entries);
    bar.set_message(format!("measuring for {:?}", load.warmup + load.duration));
    bar.enable_steady_tick(Duration::from_millis(200));
    let begin = Instant::now() + load.warmup;
    let end = begin + load.duration;
    let workers: Vec<_> = (0..load.connections)
        .map(|number| tokio::spawn(worker(Arc::clone(&load), number as u64, begin, end)))
        .collect();
    let mut total = Measured {
        latency_us: histogram()?,
        operations: 0,
        errors: 0,
        first_error: None,
        elapsed: load.duration,
    };
    for worker in workers {
        let measured = worker.await.map_err(|error| {
            Failure::unexpected(format!("a connection's task failed: {error}"))
        })??;
        total
            .latency_us
            .add(&measured.latency_us)
            .map_err(|error| Failure::unexpected(error.to_string()))?;
        total.operations += measured.operations;
        total.errors += measured.errors;
        total.first_error = total.first_error.or(measured.first_error);
    }
    bar.finish_and_clear();
    Ok(total)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
        .map_err(|error| Failure::unexpected(error.to_string()))
}

/// Puts every key once, spread over the connections.
async fn fill(load: &Arc<Load>) -> Result<(), Failure> {
    let bar = progress(Some(load.keys), ProgressUnit::Entries);
    bar.set_message("putting the keys");
    let workers: Vec<_> = (0..load.connections as u64)
        .map(|first| {
            let (load, bar) = (Arc::clone(load), bar.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&load.target)
                    .await
                    .map_err(|error| error.to_string())?;
                let mut request = Requests::new(&load, first);
                for key in (first..load.keys).step_by(load.connections) {
                    request.put(&load, key);
                    let status = connection
                        .exchange(&request.bytes, false)
                        .await
                        .map_err(|error| error.to_string())?;
                    if !(200..300).contains(&status) {
                        return Err(refusal(status, connection.tail()));
                    }
                    bar.inc(1);
                }
                Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker
            .await
            .map_err(|error| error.to_string())
            .and_then(|filled| filled)
            .map_err(|error| Failure::unexpected(format!("cannot put the keys first: {error}")))?;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn worker(
    load: Arc<Load>,
    number: u64,
    begin: Instant,
    end: Instant,
) -> Result<Measured, Failure> {
    let mut measured = Measured {
        latency_us: histogram()?,
        operations: 0,
        errors: 0,
        first_error: None,
        elapsed: load.duration,
    };
    let mut requests = Requests::new(&load, number);
    let mut connection = None;
    let mut failures = 0;
    // With a rate, each connection has its own times to send at, evenly spread; a late answer counts from the time
    // its request was due, not from when it could be sent.
    let interval = load
        .rate
        .map(|rate| Duration::from_secs_f64(load.connections as f64 / rate as f64));
    let mut due = Instant::now()
        + interval
            .unwrap_or_default()
            .mul_f64(number as f64 / load.connections as f64);
    while failures < FAILURES_MAX {
        if interval.is_some() {
            tokio::time::sleep_until(due.into()).await;
        }
        let begun = if interval.is_some() {
            due
        } else {
            Instant::now()
        };
        if begun >= end {
            break;
        }
        due += interval.unwrap_or_default();
        let entries = requests.next(&load);
        match exchange(&mut connection, &load, &requests.bytes).await {
            Ok(()) => {
                failures = 0;
                let now = Instant::now();
                // What ends after the end would stretch the time measured.
                if begun >= begin && now <= end {
                    measured.operations += entries;
                    let microseconds = (now - begun).as_micros().max(1);
                    measured.latency_us.saturating_record(microseconds as u64);
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

/// One request and its answer, over a new connection if the last one failed.
async fn exchange(
    connection: &mut Option<Connection>,
    load: &Load,
    request: &[u8],
) -> Result<(), String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(&load.target)
            .await
            .map_err(|error| format!("cannot connect: {error}"))?,
    };
    let is_bulk = load.operation == Operation::Bulk;
    let status = open
        .exchange(request, is_bulk)
        .await
        .map_err(|error| error.to_string())?;
    let outcome = if !(200..300).contains(&status) {
        Err(refusal(status, open.tail()))
    } else if is_bulk {
        check_bulk(open.tail())
    } else {
        Ok(())
    };
    // The answer was read to its end: the connection can be used again, whatever the status.
    *connection = Some(open);
    outcome
}

/// The last line of a bulk answer says whether everything was taken.
fn check_bulk(tail: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(tail);
    let last = text.trim_end().rsplit('\n').next().unwrap_or_default();
    match serde_json::from_str::<serde_json::Value>(last) {
        Ok(line) if line["done"] == true && line["failed"] == 0 => Ok(()),
        _ => Err(format!("bulk upload ended with: {last}")),
    }
}

fn refusal(status: u16, tail: &[u8]) -> String {
    format!("status {status}: {}", String::from_utf8_lossy(tail).trim())
}

/// Makes one connection's requests in one reused buffer.
struct Requests {
    /// The request to send.
    bytes: Vec<u8>,
    number: u64,
    random: u64,
}

impl Requests {
    fn new(load: &Load, number: u64) -> Requests {
        let mut requests = Requests {
            bytes: Vec::new(),
            number,
            // Any odd multiplier spreads the connections; zero would be a fixed point.
            random: (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        if load.operation == Operation::Bulk {
            requests.bulk(load);
        }
        requests
    }

    /// Makes the next request; returns how many entries it counts for.
    fn next(&mut self, load: &Load) -> u64 {
        let random = self.draw();
        let key = random % load.keys;
        match load.operation {
            Operation::Get | Operation::Receipt => self.get(load, key),
            Operation::Mixed if random >> 40 & 1 == 0 => self.get(load, key),
            // Made once; the same lines again append new versions.
            Operation::Bulk => return load.bulk_lines as u64,
            _ => self.put(load, key),
        }
        1
    }

    /// xorshift64: the quality of the draw does not matter here, its cost does.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn put(&mut self, load: &Load, key: u64) {
        self.head(load, &load.method, key, "");
        self.text(format_args!(
            "content-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            load.value.len()
        ));
        self.bytes.extend_from_slice(&load.value);
    }

    fn get(&mut self, load: &Load, key: u64) {
        self.head(load, "GET", key, load.read_suffix);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, load: &Load, method: &str, key: u64, suffix: &str) {
        self.bytes.clear();
        let (before, after) = load.path.split_once("{key}").unwrap_or((&load.path, ""));
        let has_key = before.len() < load.path.len();
        self.text(format_args!("{method} {before}"));
        if has_key {
            self.text(format_args!("bench-{key:08}{after}"));
        }
        self.text(format_args!("{suffix} HTTP/1.1\r\nhost: {}\r\n", load.host));
    }

    fn bulk(&mut self, load: &Load) {
        let value = String::from_utf8_lossy(&load.value);
        let mut body = Vec::with_capacity(load.bulk_lines * (load.value.len() + 48));
        for line in 0..load.bulk_lines as u64 {
            let key = (self.number * load.bulk_lines as u64 + line) % load.keys;
            // Writing to a vector cannot fail.
            let _ = writeln!(body, "{{\"key\":\"bench-{key:08}\",\"value\":\"{value}\"}}");
        }
        self.bytes.clear();
        self.text(format_args!(
            "POST /v1/entries HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            load.host,
            body.len()
        ));
        self.bytes.extend_from_slice(&body);
    }

    fn text(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a vector cannot fail.
        let _ = self.bytes.write_fmt(text);
    }
}
