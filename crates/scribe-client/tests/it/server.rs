//! A server of a few lines: one request per connection, answered by a function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lowercase.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What to send back.
#[derive(Clone, Debug)]
pub enum Response {
    /// Status, more header lines, body; with its length.
    Full(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Status 200 and a body without length, which ends with the connection.
    Open(Vec<u8>),
    /// Nothing.
    HangUp,
}

impl Response {
    pub fn json(status: u16, body: &impl serde::Serialize) -> Response {
        Response::Full(status, vec![], serde_json::to_vec(body).unwrap())
    }

    pub fn text(body: impl Into<String>) -> Response {
        Response::Full(200, vec![], body.into().into_bytes())
    }

    pub fn problem(code: scribe_client::ErrorCode) -> Response {
        Response::json(
            code.status(),
            &scribe_client::wire::Problem::new(code, "scripted"),
        )
    }
}

/// A running server; its requests are kept.
pub struct Server {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&requests), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let _ = serve(stream, &kept, &*answer).await;
                });
            }
        });
        Server {
            url,
            requests,
            task,
        }
    }

    /// The targets of the requests so far.
    pub fn targets(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|request| format!("{} {}", request.method, request.target))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads up to and including the empty line; returns the head and what came after it.
pub async fn read_head(stream: &mut TcpStream) -> std::io::Result<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let mut piece = [0; 4_096];
        match stream.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&piece[..length]),
        }
    };
    let rest = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let request = Request {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers,
        body: Vec::new(),
    };
    Ok((request, rest))
}

async fn serve(
    mut stream: TcpStream,
    kept: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request) -> Response + ?Sized),
) -> std::io::Result<()> {
    let (mut request, mut body) = read_head(&mut stream).await?;
    if request.headers.contains_key("transfer-encoding") {
        while !body.ends_with(b"0\r\n\r\n") {
            if stream.read_buf(&mut body).await? == 0 {
                return Ok(());
            }
        }
    } else {
        let length = request
            .headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let have = body.len();
        body.resize(length, 0);
        stream.read_exact(&mut body[have..]).await?;
    }
    request.body = body;
    kept.lock().unwrap().push(request.clone());
    let (head, body) = match answer(&request) {
        Response::HangUp => return Ok(()),
        Response::Open(body) => ("HTTP/1.1 200 OK\r\n".to_owned(), body),
        Response::Full(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            (head, body)
        }
    };
    stream
        .write_all(format!("{head}connection: close\r\n\r\n").as_bytes())
        .await?;
    if request.method != "HEAD" {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}
