//! Nodes that only talk: a server with a handler for every case, pools, certificates, and a TCP proxy between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use scribe::peer::{
    CallError, ClusterCa, Handler, Lane, NodeId, NodeKey, PeerOptions, PeerTimeouts, Pool,
    RefusalCode, RemoteError, Request, Response, Security, Server, TlsIdentity, Wait,
};
use scribe::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

pub const CLUSTER: [u8; 16] = [7; 16];
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Kinds of [`Answers`].
pub const ECHO: u8 = 1;
/// Answers once it is released.
pub const HOLD: u8 = 2;
pub const FAIL: u8 = 3;
pub const PANIC: u8 = 4;
/// Answers with the length of the body.
pub const LENGTH: u8 = 5;
/// Answers with who asks.
pub const WHO: u8 = 6;
/// Like `HOLD`, and says all the while that it is at work.
pub const BUSY: u8 = 7;

/// Node that is not let in.
pub const REMOVED: NodeId = 66;

#[derive(Default)]
pub struct Answers {
    pub release: Notify,
    pub seen: Mutex<Vec<Bytes>>,
    pub running: AtomicUsize,
    pub running_most: AtomicUsize,
}

impl Handler for Answering {
    fn admit(&self, sender: NodeId) -> Result<(), (RefusalCode, String)> {
        match sender {
            REMOVED => Err((RefusalCode::Removed, "it was removed".to_owned())),
            _ => Ok(()),
        }
    }

    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Response, RemoteError>> {
        let this = Arc::clone(&self.0);
        async move {
            let running = this.running.fetch_add(1, SeqCst) + 1;
            this.running_most.fetch_max(running, SeqCst);
            let answer = match request.kind {
                ECHO => {
                    if request.lane == Lane::Replication {
                        // Gives another one the chance to overtake.
                        tokio::task::yield_now().await;
                        this.seen.lock().push(request.body.clone());
                    }
                    Ok(Response::from(request.body))
                }
                HOLD => {
                    this.release.notified().await;
                    Ok(Response::from(request.body))
                }
                FAIL => Err(RemoteError {
                    code: 42,
                    text: "no".to_owned(),
                }),
                PANIC => panic!("as asked"),
                LENGTH => Ok(Response::from(Bytes::from(request.body.len().to_string()))),
                WHO => {
                    let who = format!("{:?} {:?}", request.sender, request.lane);
                    Ok(Response::from(Bytes::from(who)))
                }
                BUSY => {
                    let mut step = tokio::time::interval(Duration::from_millis(20));
                    // One future for all rounds, or a release between two of them would be missed.
                    let mut released = std::pin::pin!(this.release.notified());
                    loop {
                        tokio::select! {
                            () = &mut released => break,
                            _ = step.tick() => request.progress.tick(),
                        }
                    }
                    Ok(Response::default())
                }
                other => Err(RemoteError {
                    code: 1,
                    text: format!("kind {other}"),
                }),
            };
            this.running.fetch_sub(1, SeqCst);
            answer
        }
        .boxed()
    }

    fn body_length_max(&self, lane: Lane, kind: u8) -> usize {
        match (lane, kind) {
            (_, LENGTH) => 16 << 20,
            _ => 1 << 20,
        }
    }
}

/// The handler as the server owns it.
pub struct Answering(pub Arc<Answers>);

/// Patience for tests: short where a test waits for it to end.
pub fn timeouts() -> PeerTimeouts {
    PeerTimeouts {
        handshake_ms: 1_000,
        backoff_first_ms: 20,
        backoff_max_ms: 100,
        ..PeerTimeouts::default()
    }
}

pub fn options(node_id: NodeId, security: Security) -> PeerOptions {
    PeerOptions {
        cluster_id: CLUSTER,
        node_id,
        security,
        timeouts: timeouts(),
        forward_connections: 4,
    }
}

pub fn ca() -> ClusterCa {
    ClusterCa::create(CLUSTER, &World::real()).unwrap()
}

/// A node's chain and key.
pub fn certificate(ca: &ClusterCa, node_id: NodeId, world: &World) -> (String, String) {
    let key = NodeKey::generate().unwrap();
    let chain = ca
        .issue(node_id, &key.request_pem().unwrap(), world, YEAR)
        .unwrap();
    (chain, key.secret_pem())
}

pub fn identity(ca: &ClusterCa, node_id: NodeId) -> Arc<TlsIdentity> {
    let (chain, key) = certificate(ca, node_id, &World::real());
    Arc::new(TlsIdentity::from_pem(&chain, &key, ca.certificate_pem()).unwrap())
}

pub fn tls(ca: &ClusterCa, node_id: NodeId) -> Security {
    Security::Tls(identity(ca, node_id))
}

/// A server that runs, and what its handler saw.
pub struct Node {
    pub server: Server,
    pub answers: Arc<Answers>,
    pub address: String,
}

impl Node {
    pub async fn start(options: PeerOptions) -> Node {
        Node::start_at("127.0.0.1:0", options).await
    }

    pub async fn start_at(address: &str, options: PeerOptions) -> Node {
        let answers = Arc::new(Answers::default());
        let listener = TcpListener::bind(address).await.unwrap();
        let handler = Arc::new(Answering(Arc::clone(&answers)));
        let server = Server::start(listener, options, handler).await.unwrap();
        let address = server.local_address().to_string();
        Node {
            server,
            answers,
            address,
        }
    }

    /// Waits until this many were refused for this reason.
    pub async fn refused(&self, code: RefusalCode, count: u64) {
        eventually(
            || self.server.stats().refused(code) >= count,
            || format!("{code:?}: {:?}", self.server.stats()),
        )
        .await;
    }

    /// A good node still gets its answer.
    pub async fn still_serves(&self, pool: &Pool) {
        let answer = call(pool, 1, &self.address, Lane::Control, ECHO, b"still there").await;
        assert_eq!(answer.unwrap(), b"still there"[..]);
    }
}

pub async fn call(
    pool: &Pool,
    target: NodeId,
    address: &str,
    lane: Lane,
    kind: u8,
    body: &'static [u8],
) -> Result<Bytes, CallError> {
    let wait = Wait::Deadline(Duration::from_secs(10));
    let parts = vec![Bytes::from_static(body)];
    pool.call(target, address, lane, kind, parts, wait).await
}

/// The code of a refusal.
pub fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> RefusalCode {
    match result {
        Err(CallError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits for a condition, and says what was there instead when it takes too long.
pub async fn eventually(condition: impl Fn() -> bool, found: impl Fn() -> String) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .is_err()
    {
        panic!("never came true: {}", found());
    }
}

/// How a proxy treats what passes.
#[derive(Clone, Copy)]
pub enum Link {
    Fast,
    /// This many bytes each millisecond.
    Slow(usize),
}

/// Bytes on their way on a slow link.
const LINK_HOLDS: u32 = 64 * 1_024;

/// Passes connections on to one address, and keeps what it saw: by connection and direction.
pub struct Proxy {
    pub address: SocketAddr,
    pub seen: Kept,
    /// From now on nothing passes.
    pub swallow: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn start(to: &str, link: Link) -> Proxy {
        let listener = match link {
            Link::Fast => TcpListener::bind("127.0.0.1:0").await.unwrap(),
            // A link holds little. The megabytes a socket takes by default would pass at once, and the window would stay
            // shut for as long as a good part of them needs.
            Link::Slow(_) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(LINK_HOLDS).unwrap();
                socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
                socket.listen(16).unwrap()
            }
        };
        let address = listener.local_addr().unwrap();
        let seen = Kept::default();
        let swallow = Arc::new(AtomicBool::new(false));
        let swallowing = Arc::clone(&swallow);
        let (to, kept) = (to.to_owned(), Arc::clone(&seen));
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((near, _)) = listener.accept().await else {
                    return;
                };
                let far = TcpStream::connect(&to).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let there = ((number, true), Arc::clone(&kept));
                let back = ((number, false), Arc::clone(&kept));
                tokio::spawn(pass(
                    near_read,
                    far_write,
                    link,
                    there,
                    Arc::clone(&swallowing),
                ));
                tokio::spawn(pass(
                    far_read,
                    near_write,
                    Link::Fast,
                    back,
                    Arc::clone(&swallowing),
                ));
            }
        });
        Proxy {
            address,
            seen,
            swallow,
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Bytes seen, by connection and direction.
type Kept = Arc<Mutex<BTreeMap<(usize, bool), Vec<u8>>>>;

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    link: Link,
    (place, kept): ((usize, bool), Kept),
    swallow: Arc<AtomicBool>,
) {
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let mut buffer = vec![
        0;
        match link {
            Link::Fast => 64 * 1_024,
            Link::Slow(bytes) => bytes * 10,
        }
    ];
    loop {
        if let Link::Slow(_) = link {
            pace.tick().await;
        }
        let count = match from.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            _ => break,
        };
        if let Link::Fast = link {
            kept.lock()
                .entry(place)
                .or_default()
                .extend_from_slice(&buffer[..count]);
        }
        if swallow.load(SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
