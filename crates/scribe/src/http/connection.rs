//! Accepts connections, drives them, and closes those that stall.
//!
//! hyper parses; this module decides how long it may take. A connection is always in one of four phases, and each has
//! its own patience: *idle* between requests, *head* from the first byte of a request until its head is complete
//! (slow-loris), *body* while a handler waits for the request's body (each byte renews it), *busy* while a handler or a
//! streamed reply is at work (handlers bound their own waits). Independent of the phase, a write the peer does not
//! accept is given [`limits::HTTP_WRITE_STALL_MS`]. Before all this, a client that comes by TLS has
//! [`limits::HTTP_TLS_HANDSHAKE_TIMEOUT_MS`] for its handshake, and counts as a connection from its first packet on.
//!
//! Phases are plain atomics read by one sweeper task a few times a second, so that a request costs no timer and no
//! lock: at 100,000 requests a second a timer each would be the most expensive part of the head.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::body::{ReplyBody, RequestUnread};
use super::metrics::HttpMetrics;
use super::tls::HttpTls;
use crate::limits;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BODY: u8 = 2;
const BUSY: u8 = 3;
/// No deadline.
const NEVER: u64 = u64::MAX;
/// How often deadlines are looked at; they are late by at most this much.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// How long a connection whose request body was refused unread keeps discarding it, so that the client gets to read
/// the answer: closing a socket with unread bytes makes the kernel send a reset that may overtake the answer.
const LINGER_MS: u64 = 2_000;
/// Largest read buffer of one connection: more than the largest head, and enough to stream a large body.
const READ_BUFFER_MAX: usize = 64 * 1_024;

/// What is served over the connections: the ledger's API, or a witness.
pub(super) trait Site: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        watch: &Arc<Watch>,
    ) -> impl Future<Output = Response<ReplyBody>> + Send;
    /// Where connections are counted.
    fn metrics(&self) -> &HttpMetrics;
    /// The certificate to show; plain HTTP without one.
    fn tls(&self) -> Option<&Arc<HttpTls>>;
    /// Cancelled when nothing more is accepted.
    fn stopping(&self) -> &CancellationToken;
}

/// Milliseconds since the server started, as of the last sweep.
#[derive(Debug, Default)]
struct CoarseClock(AtomicU64);

impl CoarseClock {
    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What the sweeper watches of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    peer: IpAddr,
    clock: Arc<CoarseClock>,
    phase: AtomicU8,
    deadline_ms: AtomicU64,
    write_deadline_ms: AtomicU64,
    expired: AtomicBool,
    linger: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    fn new(peer: IpAddr, clock: Arc<CoarseClock>) -> Watch {
        let deadline_ms = AtomicU64::new(clock.now() + limits::HTTP_IDLE_TIMEOUT_MS);
        Watch {
            peer,
            clock,
            phase: AtomicU8::new(IDLE),
            deadline_ms,
            write_deadline_ms: AtomicU64::new(NEVER),
            expired: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Who is at the other end of the TCP connection, whatever the request says of itself.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// When the connection closes, its sender gets to read the answer first.
    pub(super) fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    fn idle(&self) {
        self.phase.store(IDLE, Relaxed);
        self.deadline_ms
            .store(self.clock.now() + limits::HTTP_IDLE_TIMEOUT_MS, Relaxed);
    }

    fn busy(&self) {
        self.phase.store(BUSY, Relaxed);
        self.deadline_ms.store(NEVER, Relaxed);
    }

    /// The handler waits for body bytes until the guard is dropped.
    pub(super) fn reading_body(&self) -> ReadingBody<'_> {
        self.phase.store(BODY, Relaxed);
        self.deadline_ms
            .store(self.clock.now() + limits::HTTP_BODY_STALL_MS, Relaxed);
        ReadingBody(self)
    }

    fn bytes_read(&self) {
        match self.phase.load(Relaxed) {
            // Only the first byte of a head sets the deadline: more bytes must not extend it.
            IDLE => {
                self.phase.store(HEAD, Relaxed);
                self.deadline_ms
                    .store(self.clock.now() + limits::HTTP_HEAD_TIMEOUT_MS, Relaxed);
            }
            BODY => {
                self.deadline_ms
                    .store(self.clock.now() + limits::HTTP_BODY_STALL_MS, Relaxed);
            }
            _ => {}
        }
    }

    fn bytes_written(&self) {
        if self.write_deadline_ms.load(Relaxed) != NEVER {
            self.write_deadline_ms.store(NEVER, Relaxed);
            // A long download that moves is not idle.
            if self.phase.load(Relaxed) == IDLE {
                self.idle();
            }
        }
    }

    fn write_stalled(&self) {
        if self.write_deadline_ms.load(Relaxed) == NEVER {
            self.write_deadline_ms
                .store(self.clock.now() + limits::HTTP_WRITE_STALL_MS, Relaxed);
        }
    }

    fn expire(&self) {
        self.expired.store(true, Relaxed);
        self.waker.wake();
    }

    fn overdue(&self, now: u64) -> bool {
        now > self.deadline_ms.load(Relaxed) || now > self.write_deadline_ms.load(Relaxed)
    }
}

/// While it lives, a body that does not move closes the connection.
#[derive(Debug)]
pub(super) struct ReadingBody<'a>(&'a Watch);

impl Drop for ReadingBody<'_> {
    fn drop(&mut self) {
        self.0.busy();
    }
}

/// Keeps a connection busy while its streamed reply lives.
#[derive(Debug)]
pub(super) struct BusyGuard(Arc<Watch>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.idle();
    }
}

/// The socket, or TLS over it, reporting to its [`Watch`]. What counts is what the client said and heard, not the
/// bytes it took to encrypt that.
struct WatchedStream<S> {
    io: TokioIo<S>,
    watch: Arc<Watch>,
    lingering: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.watch.bytes_read();
        Poll::Ready(Ok(()))
    }
}

impl<S> WatchedStream<S> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.watch.write_stalled(),
            Poll::Ready(_) => self.watch.bytes_written(),
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        // A socket has nothing to flush. TLS takes more than the socket does, and what it holds back is noticed here.
        match &result {
            Poll::Pending => self.watch.write_stalled(),
            Poll::Ready(_) => self.watch.bytes_written(),
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingering {
            ready!(AsyncWrite::poll_shutdown(Pin::new(self.io.inner_mut()), cx))?;
            // In the middle of a head: hyper refused it, and the rest of it may be on its way.
            let refused_head = self.watch.phase.load(Relaxed) == HEAD;
            if !refused_head && !self.watch.linger.load(Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.lingering = true;
            self.watch.phase.store(BUSY, Relaxed);
            self.watch
                .deadline_ms
                .store(self.watch.clock.now() + LINGER_MS, Relaxed);
        }
        let mut discarded = [0_u8; 8_192];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(self.io.inner_mut()).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The open connections and what they share.
struct Connections {
    clock: Arc<CoarseClock>,
    stopping: AtomicBool,
    open: Mutex<Vec<Arc<Watch>>>,
}

impl Connections {
    fn sweep(&self, now: u64, metrics: &HttpMetrics) {
        self.clock.0.store(now, Relaxed);
        let mut open = self.open.lock();
        open.retain(|watch| {
            if watch.overdue(now) && !watch.expired.load(Relaxed) {
                metrics
                    .stalled
                    .fetch_add(u64::from(watch.phase.load(Relaxed) != IDLE), Relaxed);
                watch.expire();
            }
            // The connection holds one reference; when it is gone, so is the need to watch it.
            Arc::strong_count(watch) > 1
        });
        metrics.connections.store(open.len() as u64, Relaxed);
    }
}

/// Serves until `shutdown` resolves, then lets requests in progress finish for at most
/// [`limits::HTTP_DRAIN_TIMEOUT_MS`].
pub(super) async fn serve(
    listener: TcpListener,
    server: impl Site,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let started = Instant::now();
    let connections = Arc::new(Connections {
        clock: Arc::default(),
        stopping: AtomicBool::new(false),
        open: Mutex::default(),
    });
    let permits = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
    // Each connection holds a sender: once the receiver sees the channel closed, all of them are gone.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            // A full house leaves newcomers in the kernel's backlog until somebody leaves.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = &mut shutdown => break,
            _ = sweep.tick() => connections.sweep(elapsed_ms(started), server.metrics()),
            (accepted, permit) = accept => match accepted {
                Ok((stream, peer)) => {
                    let clock = Arc::clone(&connections.clock);
                    let watch = Arc::new(Watch::new(peer.ip(), clock));
                    connections.open.lock().push(Arc::clone(&watch));
                    let connection = greet(stream, server.clone(), watch, Arc::clone(&connections));
                    let alive = alive.clone();
                    tokio::spawn(async move {
                        connection.await;
                        drop((alive, permit));
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the client was gone before it was accepted. Neither ends the server;
                    // a short pause keeps the first from becoming a busy loop.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    drop(alive);
    server.stopping().cancel();
    connections.stopping.store(true, Relaxed);
    for watch in connections.open.lock().iter() {
        watch.waker.wake();
    }
    let drain_until = started.elapsed() + Duration::from_millis(limits::HTTP_DRAIN_TIMEOUT_MS);
    loop {
        tokio::select! {
            _ = all_gone.recv() => return Ok(()),
            _ = sweep.tick() => {
                connections.sweep(elapsed_ms(started), server.metrics());
                if started.elapsed() > drain_until {
                    for watch in connections.open.lock().iter() {
                        watch.expire();
                    }
                    tracing::warn!("requests still running at the end of the drain time were cut off");
                    return Ok(());
                }
            }
        }
    }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(NEVER - 1)
}

/// Serves a new connection, after a handshake if there is a certificate to show.
async fn greet(
    stream: TcpStream,
    server: impl Site,
    watch: Arc<Watch>,
    connections: Arc<Connections>,
) {
    // Answers are written whole: waiting for more to coalesce only adds 40 ms to the last one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    match server.tls().cloned() {
        None => drive(stream, server, watch, connections).await,
        // Boxed: what TLS keeps per connection is large, and plain connections must not carry its size.
        Some(tls) => Box::pin(greet_by_tls(tls, stream, server, watch, connections)).await,
    }
}

async fn greet_by_tls(
    tls: Arc<HttpTls>,
    stream: TcpStream,
    server: impl Site,
    watch: Arc<Watch>,
    connections: Arc<Connections>,
) {
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        // Nothing was asked yet that would have to be answered.
        () = server.stopping().cancelled() => return,
    };
    match accepted {
        Ok(stream) => {
            // From here on it is idle like any other.
            watch.idle();
            drive(stream, server, watch, connections).await;
        }
        Err(error) => {
            server.metrics().handshakes_failed.fetch_add(1, Relaxed);
            tracing::debug!(%error, "a TLS handshake failed");
        }
    }
}

/// Serves one connection until it closes, stalls, or the server stops.
async fn drive<S>(stream: S, server: impl Site, watch: Arc<Watch>, connections: Arc<Connections>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = WatchedStream {
        io: TokioIo::new(stream),
        watch: Arc::clone(&watch),
        lingering: false,
    };
    let per_request = Arc::new((server, Arc::clone(&watch)));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&per_request);
        async move {
            let (server, watch) = &*shared;
            watch.busy();
            let mut reply = server.answer(request, watch).await;
            if reply.extensions().get::<RequestUnread>().is_some() {
                watch.linger();
            }
            if reply.body().is_streamed() {
                reply.body_mut().hold(BusyGuard(Arc::clone(watch)));
            } else {
                watch.idle();
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(READ_BUFFER_MAX)
        .header_read_timeout(None)
        // `pipeline_flush` stays off: it holds an answer back while any byte of a further request is waiting, which
        // loses the answer to a malformed head and stalls a client that sends half a request ahead.
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut armed = false;
    let mut graceful = false;
    let ended = poll_fn(|cx| {
        if !armed {
            // Once is enough: the waker of a task does not change. Before the flags are read, so that none is missed.
            watch.waker.register(cx.waker());
            armed = true;
        }
        if watch.expired.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        if !graceful && connections.stopping.load(Relaxed) {
            connection.as_mut().graceful_shutdown();
            graceful = true;
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        // The client's doing (reset, bad head, gone in the middle of a body) and its own business.
        tracing::debug!(%error, "connection ended");
    }
}
