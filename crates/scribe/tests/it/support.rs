//! A node with its HTTP API on a free port, and a client that sends exactly what it is told to.

use std::net::SocketAddr;

use scribe::http::{self, HttpOptions};
use scribe::node::{Node, NodeOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest value the test servers take.
pub const VALUE_LENGTH_MAX: usize = 1 << 20;

/// A running node with its HTTP API.
pub struct TestServer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The node behind it.
    pub node: Node,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<std::io::Result<()>>,
    /// The node's directory, if it is this server's.
    dir: Option<TempDir>,
}

impl TestServer {
    /// A node in a directory of its own, on any port.
    pub async fn start() -> TestServer {
        TestServer::start_with(HttpOptions::default()).await
    }

    /// As [`TestServer::start`], served with these options but the address.
    pub async fn start_with(options: HttpOptions) -> TestServer {
        let dir = TempDir::new().unwrap();
        let node_options = NodeOptions {
            data_dir: dir.path().join("data"),
            key_dir: dir.path().join("keys"),
            value_length_max: VALUE_LENGTH_MAX,
            publish_interval_ms: 50,
            ..NodeOptions::default()
        };
        let node = Node::start(node_options).await.unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = TestServer::serve(node, addr, options).await;
        server.dir = Some(dir);
        server
    }

    /// Serves a node that runs already and goes on when the server stops.
    pub async fn over(node: &Node, addr: SocketAddr) -> TestServer {
        TestServer::serve(node.clone(), addr, HttpOptions::default()).await
    }

    async fn serve(node: Node, addr: SocketAddr, options: HttpOptions) -> TestServer {
        let options = HttpOptions {
            addr,
            value_length_max: VALUE_LENGTH_MAX,
            ..options
        };
        let listener = http::bind(&options).await.unwrap();
        let addr = listener.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = node.clone();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            http::serve(listener, serving, options, stopped).await
        });
        TestServer {
            addr,
            node,
            stop: Some(stop),
            served,
            dir: None,
        }
    }

    /// Asks the server to stop without waiting for it.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server, and the node if it is its own.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.served.await.unwrap().unwrap();
        if self.dir.is_some() {
            self.node.shutdown().await;
        }
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(self.addr).await
    }

    /// One request on a connection of its own. A body, also an empty one, is sent with its length; `None` sends none.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Reply {
        let mut connection = self.connect().await;
        connection
            .write(&request(method, target, headers, body))
            .await;
        connection.reply(method == "HEAD").await
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], None).await
    }

    pub async fn put(&self, target: &str, value: &[u8]) -> Reply {
        self.send("PUT", target, &[], Some(value)).await
    }

    pub async fn post(&self, target: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        self.send("POST", target, &headers, Some(body.to_string().as_bytes()))
            .await
    }

    /// Puts, and returns the index.
    pub async fn must_put(&self, key: &str, value: &[u8]) -> u64 {
        let reply = self.put(&format!("/v1/keys/{key}"), value).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["index"].as_u64().unwrap()
    }
}

/// The bytes of a request.
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// One chunk of a chunked body.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A connection whose every byte the test decides.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection to whatever listens there.
    pub async fn open(addr: SocketAddr) -> Connection {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                true
            }
        }
    }

    /// Reads up to and including `end`; `None` if the connection closes first.
    pub async fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.buffer.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// Status and headers of the next reply.
    pub async fn head(&mut self) -> Reply {
        let head = self.read_until(b"\r\n\r\n").await.expect("a reply");
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Reply {
            status,
            headers,
            body: Vec::new(),
        }
    }

    /// The next chunk of a chunked body; `None` at its end, an empty error if it was cut off.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let line = self.read_until(b"\r\n").await.ok_or(())?;
        let length = std::str::from_utf8(&line).unwrap().trim();
        let length = usize::from_str_radix(length, 16).unwrap();
        let mut data = self.read_exactly(length + 2).await.ok_or(())?;
        data.truncate(length);
        Ok((length > 0).then_some(data))
    }

    /// The next reply with its body.
    pub async fn reply(&mut self, bodiless: bool) -> Reply {
        let mut reply = self.head().await;
        if bodiless || reply.status == 304 || reply.status < 200 {
            return reply;
        }
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.read_exactly(length).await.expect("the whole body");
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(data) = self.chunk().await.expect("the whole body") {
                reply.body.extend_from_slice(&data);
            }
        }
        reply
    }

    /// Whether the server closes without sending anything more.
    pub async fn closes(&mut self) -> bool {
        while self.fill().await {}
        self.buffer.is_empty()
    }
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The lines of an NDJSON body.
    pub fn lines(&self) -> Vec<Value> {
        self.body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Checks that this is a refusal of the contract, and returns it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:scribe-ledger:problem:{code}"));
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        problem
    }
}
