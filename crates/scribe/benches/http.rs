//! A real node behind real HTTP: what a client gets, everything included.
//!
//! One iteration is a number of concurrent operations, each on a connection of its own that stays open: put, get, and
//! half of each, at 10, 100 and 500 operations with values of 256 B; and put and get of 100 B to 100 KB at 100
//! operations. The node writes to a temporary directory and syncs as it always does. Clients and node share the
//! machine, so the numbers are a floor, and comparable only within one machine.
//!
//! `cargo bench -p scribe --bench http`

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scribe::http::{self, HttpOptions};
use scribe::node::{Node, NodeOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Concurrent operations of an iteration.
const OPERATIONS: [usize; 3] = [10, 100, 500];
/// Value lengths in bytes.
const PAYLOADS: [usize; 4] = [100, 1_024, 10 * 1_024, 100 * 1_024];
/// Value length where it is not what is measured.
const PAYLOAD: usize = 256;
/// Keys in use.
const KEYS: usize = 1_000;

/// What an operation does.
#[derive(Clone, Copy)]
enum Mix {
    Put,
    Get,
    Half,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Mix::Put => "put",
            Mix::Get => "get",
            Mix::Half => "mixed",
        }
    }

    fn is_put(self, operation: usize) -> bool {
        match self {
            Mix::Put => true,
            Mix::Get => false,
            Mix::Half => operation.is_multiple_of(2),
        }
    }
}

/// A node and its HTTP server in a directory of their own.
struct Server {
    addr: SocketAddr,
    node: Node,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: TempDir,
}

impl Server {
    async fn start() -> Server {
        let dir = TempDir::new().expect("a temporary directory");
        let node = Node::start(NodeOptions {
            data_dir: dir.path().join("data"),
            key_dir: dir.path().join("keys"),
            ..NodeOptions::default()
        })
        .await
        .expect("the node starts");
        let options = HttpOptions {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..HttpOptions::default()
        };
        let listener = http::bind(&options).await.expect("a free port");
        let addr = listener.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = node.clone();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            http::serve(listener, serving, options, stopped).await
        });
        Server {
            addr,
            node,
            stop,
            served,
            _dir: dir,
        }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.served
            .await
            .expect("the server ends")
            .expect("the server ends well");
        self.node.shutdown().await;
    }
}

/// One connection, reused: requests made once, answers read as far as their length says.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    puts: Vec<Vec<u8>>,
    gets: Vec<Vec<u8>>,
    turn: usize,
}

impl Client {
    async fn connect(addr: SocketAddr, place: usize, payload: usize) -> Client {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        // Keys spread over the connections; a few requests each, made in advance.
        let keys: Vec<String> = (0..4)
            .map(|n| format!("bench%2F{:06}", (place * 7 + n * 131) % KEYS))
            .collect();
        let value = vec![b'v'; payload];
        let puts = keys
            .iter()
            .map(|key| {
                let mut bytes = format!(
                    "PUT /v1/keys/{key} HTTP/1.1\r\nhost: bench\r\ncontent-length: {payload}\r\n\r\n"
                )
                .into_bytes();
                bytes.extend_from_slice(&value);
                bytes
            })
            .collect();
        let gets = keys
            .iter()
            .map(|key| format!("GET /v1/keys/{key} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes())
            .collect();
        Client {
            stream,
            buffer: vec![0; payload + 4_096],
            puts,
            gets,
            turn: 0,
        }
    }

    async fn operate(&mut self, put: bool) {
        let requests = if put { &self.puts } else { &self.gets };
        let request = &requests[self.turn % requests.len()];
        self.turn += 1;
        self.stream
            .write_all(request)
            .await
            .expect("the request is sent");
        let mut filled = 0;
        let mut needed = None;
        while needed.is_none_or(|needed| filled < needed) {
            let read = self
                .stream
                .read(&mut self.buffer[filled..])
                .await
                .expect("an answer");
            assert!(read > 0, "the connection closed");
            filled += read;
            if needed.is_none() {
                needed = answer_length(&self.buffer[..filled]);
            }
        }
        let status = &self.buffer[9..12];
        assert!(
            status == b"201" || status == b"200",
            "{}",
            self.buffer[..filled].escape_ascii()
        );
    }
}

/// Length of the whole answer, once its head is there.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("an ASCII head");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .expect("a content length");
    Some(head + length.parse::<usize>().expect("a number"))
}

async fn connect_all(addr: SocketAddr, operations: usize, payload: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(operations);
    for place in 0..operations {
        let mut client = Client::connect(addr, place, payload).await;
        // Every key a get may ask for exists.
        for _ in 0..client.puts.len() {
            client.operate(true).await;
        }
        clients.push(client);
    }
    clients
}

/// Time of `iterations` times `clients.len()` concurrent operations.
async fn iterate(clients: &mut Vec<Client>, mix: Mix, iterations: u64) -> Duration {
    let started = Instant::now();
    for _ in 0..iterations {
        let running: Vec<_> = std::mem::take(clients)
            .into_iter()
            .enumerate()
            .map(|(place, mut client)| {
                tokio::spawn(async move {
                    let put = mix.is_put(place + client.turn);
                    client.operate(put).await;
                    client
                })
            })
            .collect();
        for client in running {
            clients.push(client.await.expect("the operation"));
        }
    }
    started.elapsed()
}

fn measure(
    criterion: &mut Criterion,
    runtime: &Runtime,
    group: &str,
    cases: &[(Mix, usize, usize, String)],
) {
    let server = runtime.block_on(Server::start());
    let mut group = criterion.benchmark_group(group);
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(4));
    for (mix, operations, payload, parameter) in cases {
        let mut clients = runtime.block_on(connect_all(server.addr, *operations, *payload));
        group.throughput(Throughput::Elements(*operations as u64));
        group.bench_function(BenchmarkId::new(mix.name(), parameter), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(iterate(&mut clients, *mix, iterations))
            });
        });
    }
    group.finish();
    runtime.block_on(server.stop());
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut cases = Vec::new();
    for mix in [Mix::Put, Mix::Get, Mix::Half] {
        for operations in OPERATIONS {
            cases.push((mix, operations, PAYLOAD, operations.to_string()));
        }
    }
    measure(criterion, &runtime, "http/operations", &cases);
    let mut cases = Vec::new();
    for mix in [Mix::Put, Mix::Get] {
        for payload in PAYLOADS {
            cases.push((mix, 100, payload, format!("{payload}B")));
        }
    }
    measure(criterion, &runtime, "http/payload", &cases);
}

criterion_group!(http_benches, benches);
criterion_main!(http_benches);
