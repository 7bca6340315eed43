//! The calling end of one connection: dial, handshake, then many calls at once, each answered under its own id.
//!
//! Two tasks: a writer ([`super::outbox`]) and a reader that hands answers to their callers. A call that is dropped
//! takes its entry with it; an answer that comes later is passed over unread.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::net::TcpStream;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::{Activity, ERROR_BODY_MAX, FrameError, FrameReader, Header, Role, Totals};
use super::frame::{PROTOCOL, PROTOCOL_MIN, parse_error};
use super::hello::{HELLO_LENGTH_MAX, HELLO_PROTOCOL, Hello};
use super::outbox::{CallState, Outbox, Outgoing};
use super::pki::PeerName;
use super::{CallError, Lane, NodeId, PeerTimeouts, RefusalCode, outbox, remote_code, socket, tls};
use crate::limits;

/// The receiving half of a connection, encrypted or not.
pub(super) type Receiving = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half.
pub(super) type Sending = Box<dyn AsyncWrite + Send + Unpin>;

/// Whom to call and how.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub address: String,
    pub tls: Option<(Arc<ClientConfig>, String)>,
    pub lane: Lane,
    pub cluster_id: [u8; 16],
    pub sender: NodeId,
    /// `None` for whichever node answers: joining only.
    pub target: Option<NodeId>,
    pub timeouts: PeerTimeouts,
}

/// A call's patience, with its start behind it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    Until(Instant),
    Progress(Duration),
}

impl Patience {
    /// Waits for something that has no progress to speak of: only a deadline ends it.
    pub async fn wait<F: Future>(self, future: F) -> Option<F::Output> {
        match self {
            Patience::Until(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
            Patience::Progress(_) => Some(future.await),
        }
    }
}

type Answer = Result<Bytes, CallError>;

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Answer>,
    state: Arc<CallState>,
}

/// What reader, writer and callers share.
#[derive(Debug)]
struct Shared {
    /// Calls waiting for their answer; `None` once the connection is over.
    pending: Mutex<Option<HashMap<u64, Pending>>>,
    /// Why it is over.
    ended: Mutex<String>,
    activity: Arc<Activity>,
    closed: CancellationToken,
    /// Whether a frame came in after the handshake: the other side does more than accept.
    proved: AtomicBool,
    /// Whether the other side has announced that it will close: no further call is sent here.
    retired: AtomicBool,
    /// Whether it is being asked for a sign of life.
    asking: AtomicBool,
}

/// One connection to another node.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    outbox: Outbox,
    in_flight: Semaphore,
    next_id: AtomicU64,
    opened: Instant,
    silent_max_ms: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

/// Takes a call's entry away, whatever way the call ends.
struct Entry<'a> {
    shared: &'a Shared,
    id: u64,
    state: Arc<CallState>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.state.cancel();
        if let Some(pending) = self.shared.pending.lock().as_mut() {
            pending.remove(&self.id);
        }
    }
}

impl Connection {
    /// Connects and shakes hands. `open` counts standing connections.
    pub async fn dial(
        dial: &Dial,
        totals: &Arc<Totals>,
        open: Arc<AtomicU64>,
    ) -> Result<Connection, CallError> {
        let stream = socket::connect(&dial.address, dial.timeouts.connect())
            .await
            .map_err(|why| CallError::unreachable(format!("{}: {why}", dial.address)))?;
        socket::prepare(&stream, dial.timeouts.progress());
        let activity = Arc::new(Activity::new(Arc::clone(totals)));
        let (reader, writer) = timeout(
            dial.timeouts.handshake(),
            handshake(stream, dial, Arc::clone(&activity)),
        )
        .await
        .map_err(|_| {
            let ms = dial.timeouts.handshake_ms;
            let address = &dial.address;
            CallError::unreachable(format!("{address} did not shake hands within {ms} ms"))
        })??;
        Ok(Self::start(reader, writer, activity, &dial.timeouts, open))
    }

    fn start(
        reader: FrameReader<Receiving>,
        writer: Sending,
        activity: Arc<Activity>,
        timeouts: &PeerTimeouts,
        open: Arc<AtomicU64>,
    ) -> Connection {
        let closed = CancellationToken::new();
        let (outbox, queue) = Outbox::new();
        let shared = Arc::new(Shared {
            pending: Mutex::new(Some(HashMap::new())),
            ended: Mutex::new(String::new()),
            activity: Arc::clone(&activity),
            closed: closed.clone(),
            proved: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            asking: AtomicBool::new(false),
        });
        let writing = outbox::write(writer, queue, activity, timeouts.clone(), closed);
        let over = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = writing.await {
                over.end(format!("nothing could be written: {error}"));
            }
        });
        open.fetch_add(1, Relaxed);
        let receiving = Arc::clone(&shared);
        tokio::spawn(async move {
            let reason = receiving.read(reader).await;
            receiving.end(reason);
            open.fetch_sub(1, Relaxed);
        });
        Connection {
            shared,
            outbox,
            in_flight: Semaphore::new(limits::PEER_REQUESTS_IN_FLIGHT_MAX),
            next_id: AtomicU64::new(1),
            opened: Instant::now(),
            // Whoever cannot be heard for as long as connecting may take is better connected to again.
            silent_max_ms: timeouts.connect_ms,
        }
    }

    /// Whether it still stands.
    pub fn stands(&self) -> bool {
        !self.shared.closed.is_cancelled() && !self.shared.retired.load(Relaxed)
    }

    /// Whether the other side ever answered, or at least kept it open for a while. One that did not counts as a
    /// failure, lest a node that accepts and hangs up is called in a tight loop.
    pub fn proved(&self, long_enough: Duration) -> bool {
        self.shared.proved.load(Relaxed) || self.opened.elapsed() > long_enough
    }

    /// Why it is over.
    pub fn reason(&self) -> String {
        self.shared.ended.lock().clone()
    }

    pub fn close(&self, reason: &str) {
        self.shared.end(reason.to_owned());
    }

    /// One call.
    pub async fn call(&self, kind: u8, parts: Vec<Bytes>, patience: Patience) -> Answer {
        let body_length = parts.iter().map(Bytes::len).sum::<usize>();
        if body_length > limits::PEER_BODY_LENGTH_MAX {
            return Err(CallError::unreachable(format!(
                "a request has {body_length} bytes, allowed are {}",
                limits::PEER_BODY_LENGTH_MAX
            )));
        }
        let entry = Entry {
            shared: &self.shared,
            id: self.next_id.fetch_add(1, Relaxed),
            state: Arc::default(),
        };
        let (answer, answered) = oneshot::channel();
        let mut unsent = Some((parts, answer));
        // At once if there is room, before anything could yield: calls then leave in the order they are first polled.
        let mut place = self.in_flight.try_acquire().ok();
        if place.is_some()
            && let Some(room) = self.outbox.try_room_for(body_length)
        {
            self.send(&entry, kind, body_length, &mut unsent, room)?;
        }
        let exchange = async {
            if unsent.is_some() {
                if place.is_none() {
                    place = self.in_flight.acquire().await.ok();
                }
                // The queue is never closed.
                let Some(room) = self.outbox.room_for(body_length).await else {
                    return Err(CallError::unreachable(self.reason()));
                };
                self.send(&entry, kind, body_length, &mut unsent, room)?;
            }
            let answer = answered.await.unwrap_or_else(|_| {
                let text = self.reason();
                if entry.state.cancel() {
                    Err(CallError::Unreachable { text })
                } else {
                    Err(CallError::Lost { text })
                }
            });
            drop(place);
            answer
        };
        // Waiting for a place or for room ends with the connection, too.
        let exchange = async {
            let mut exchange = pin!(exchange);
            tokio::select! {
                biased;
                answer = &mut exchange => answer,
                () = self.shared.closed.cancelled() => {
                    // The answer may have come in the same instant; otherwise the entry's sender is gone, or was
                    // never there.
                    match futures::poll!(&mut exchange) {
                        std::task::Poll::Ready(answer) => answer,
                        std::task::Poll::Pending if entry.state.cancel() => {
                            Err(CallError::unreachable(self.reason()))
                        }
                        std::task::Poll::Pending => Err(CallError::Lost { text: self.reason() }),
                    }
                }
            }
        };
        let answer = match patience {
            Patience::Until(deadline) => tokio::time::timeout_at(deadline, exchange).await.ok(),
            Patience::Progress(patience) => {
                self.while_moving(exchange, &entry.state, patience).await
            }
        };
        match answer {
            Some(answer) => answer,
            None if entry.state.cancel() => Err(CallError::unreachable(
                "it could not be sent in time, others are being sent before it",
            )),
            None => {
                self.suspect();
                Err(CallError::TimedOut)
            }
        }
    }

    /// A call ran out of time. If not a byte has come back since questions went out, the connection is asked for a sign
    /// of life, and given up without one: after a partition it would stay dead long after the network has healed. A
    /// handler that is merely slow does not cost the other calls their connection.
    fn suspect(&self) {
        let shared = &self.shared;
        let silent_max_ms = self.silent_max_ms;
        if shared.activity.silent_for_ms() < silent_max_ms || shared.asking.swap(true, Relaxed) {
            return;
        }
        self.outbox.push(Outgoing::bare(Role::Ping, 1));
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            sleep(Duration::from_millis(silent_max_ms)).await;
            // Any byte since then has started the count anew.
            if shared.activity.silent_for_ms() >= 2 * silent_max_ms {
                shared.end("it no longer answers".to_owned());
            }
            shared.asking.store(false, Relaxed);
        });
    }

    /// Registers a call and leaves it with the writer.
    fn send(
        &self,
        entry: &Entry<'_>,
        kind: u8,
        body_length: usize,
        unsent: &mut Option<(Vec<Bytes>, oneshot::Sender<Answer>)>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), CallError> {
        let mut pending = self.shared.pending.lock();
        let Some(pending) = pending.as_mut() else {
            return Err(CallError::unreachable(self.reason()));
        };
        if let Some((parts, answer)) = unsent.take() {
            let state = Arc::clone(&entry.state);
            pending.insert(entry.id, Pending { answer, state });
            self.outbox.push(Outgoing {
                header: Header::new(Role::Request, kind, entry.id, body_length),
                parts,
                state: Some(Arc::clone(&entry.state)),
                room: Some(room),
            });
        }
        Ok(())
    }

    /// Waits as long as something moves.
    async fn while_moving(
        &self,
        exchange: impl Future<Output = Answer>,
        state: &CallState,
        patience: Duration,
    ) -> Option<Answer> {
        let activity = &self.shared.activity;
        let began_ms = activity.now_ms();
        let mut exchange = pin!(exchange);
        loop {
            let mut moved_ms = began_ms.max(activity.content_ms()).max(state.progress_ms());
            if !state.written() {
                // Its own bytes, or those of the frames before it.
                moved_ms = moved_ms.max(activity.written_ms());
            }
            let idle_ms = activity.now_ms().saturating_sub(moved_ms);
            let left = patience.saturating_sub(Duration::from_millis(idle_ms));
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                biased;
                answer = &mut exchange => return Some(answer),
                () = sleep_until(Instant::now() + left) => {}
            }
        }
    }
}

impl Shared {
    fn end(&self, reason: String) {
        {
            let mut ended = self.ended.lock();
            if ended.is_empty() {
                *ended = reason;
            }
        }
        // Before the callers are told: a new call must not land here.
        self.closed.cancel();
        // Dropping the senders tells the callers.
        drop(self.pending.lock().take());
    }

    async fn read(&self, mut reader: FrameReader<Receiving>) -> String {
        loop {
            let next = tokio::select! {
                biased;
                () = self.closed.cancelled() => return "closed on this side".to_owned(),
                next = self.read_one(&mut reader) => next,
            };
            if let Err(error) = next {
                return error.to_string();
            }
        }
    }

    async fn read_one(&self, reader: &mut FrameReader<Receiving>) -> Result<(), FrameError> {
        let header = reader.header().await?;
        let allowed = match header.role {
            Role::Response => limits::PEER_BODY_LENGTH_MAX,
            Role::Error => ERROR_BODY_MAX,
            Role::Progress | Role::Ping => 0,
            Role::Request | Role::Hello | Role::Refusal => {
                return Err(FrameError::Malformed("a server does not send such a frame"));
            }
        };
        // Before anybody can act on the answer.
        self.proved.store(true, Relaxed);
        let waiting = {
            let pending = self.pending.lock();
            pending
                .as_ref()
                .and_then(|pending| pending.get(&header.request_id))
                .map(|pending| Arc::clone(&pending.state))
        };
        let Some(state) = waiting else {
            // Nobody waits for it any more.
            return reader.skip(&header, allowed).await;
        };
        let body = reader.body(&header, allowed, || ()).await?;
        let answer = match header.role {
            Role::Response => Ok(body),
            Role::Error => {
                let (code, text) = parse_error(&body);
                if code == remote_code::TOO_LONG {
                    self.retired.store(true, Relaxed);
                }
                Err(CallError::Remote { code, text })
            }
            _ => {
                state.progressed(self.activity.now_ms());
                return Ok(());
            }
        };
        let pending = self
            .pending
            .lock()
            .as_mut()
            .and_then(|pending| pending.remove(&header.request_id));
        if let Some(pending) = pending {
            // The caller may just have gone.
            let _ = pending.answer.send(answer);
        }
        Ok(())
    }
}

fn broken(error: std::io::Error) -> CallError {
    match tls::refusal(&error) {
        Some((code, text)) => CallError::Refused { code, text },
        None => CallError::unreachable(format!("the handshake broke off: {error}")),
    }
}

async fn handshake(
    stream: TcpStream,
    dial: &Dial,
    activity: Arc<Activity>,
) -> Result<(FrameReader<Receiving>, Sending), CallError> {
    let (receiving, mut sending, certified): (Receiving, Sending, Option<PeerName>) =
        match &dial.tls {
            None => {
                let (receiving, sending) = stream.into_split();
                (Box::new(receiving), Box::new(sending), None)
            }
            Some((config, name)) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|error| CallError::unreachable(error.to_string()))?;
                let stream = tokio_rustls::TlsConnector::from(Arc::clone(config))
                    .connect(name, stream)
                    .await
                    .map_err(broken)?;
                let certified = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|chain| PeerName::of_certificate(chain.first()?).ok());
                if certified.is_none() {
                    return Err(refused(
                        RefusalCode::Certificate,
                        "its certificate names no node",
                    ));
                }
                let (receiving, sending) = tokio::io::split(stream);
                (Box::new(receiving), Box::new(sending), certified)
            }
        };
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL,
        lane: dial.lane,
        cluster_id: dial.cluster_id,
        sender: dial.sender,
        target: dial.target.unwrap_or(0),
    };
    let body = hello.encode();
    let mut out = BytesMut::new();
    let mut header = Header::new(Role::Hello, 0, 0, body.len());
    header.protocol = HELLO_PROTOCOL;
    header.put(&mut out);
    out.extend_from_slice(&body);
    sending.write_all(&out).await.map_err(broken)?;
    sending.flush().await.map_err(broken)?;
    activity.wrote(out.len());

    let mut reader = FrameReader::new(receiving, activity, &dial.timeouts);
    let broken_frame = |error| match error {
        FrameError::Io(error) => broken(error),
        other => CallError::unreachable(format!("the handshake broke off: {other}")),
    };
    let header = reader.header().await.map_err(broken_frame)?;
    match header.role {
        Role::Hello => {
            let body = reader
                .body(&header, HELLO_LENGTH_MAX, || ())
                .await
                .map_err(broken_frame)?;
            let answer = Hello::parse(&body).map_err(|(code, text)| refused(code, text))?;
            check(&answer, &hello, dial, certified)?;
            Ok((reader, sending))
        }
        Role::Refusal => {
            let body = reader
                .body(&header, ERROR_BODY_MAX, || ())
                .await
                .map_err(broken_frame)?;
            let (code, text) = parse_error(&body);
            Err(refused(RefusalCode::from_number(code), text))
        }
        _ => Err(CallError::unreachable("it does not answer with a hello")),
    }
}

fn refused(code: RefusalCode, text: impl Into<String>) -> CallError {
    CallError::Refused {
        code,
        text: text.into(),
    }
}

/// Whether the node that answered is the one meant, in its own words and in its certificate's.
fn check(
    answer: &Hello,
    sent: &Hello,
    dial: &Dial,
    certified: Option<PeerName>,
) -> Result<(), CallError> {
    if answer.protocol_max < PROTOCOL_MIN || answer.protocol_max > PROTOCOL {
        return Err(refused(
            RefusalCode::Protocol,
            format!(
                "it chose protocol {}, allowed are {PROTOCOL_MIN} to {PROTOCOL}",
                answer.protocol_max
            ),
        ));
    }
    if let Some(name) = certified
        && (name.node_id, name.cluster_id) != (answer.sender, answer.cluster_id)
    {
        return Err(refused(
            RefusalCode::Certificate,
            format!(
                "it says it is node {}, its certificate is for {}",
                answer.sender,
                name.uri()
            ),
        ));
    }
    let Some(target) = dial.target else {
        return Ok(());
    };
    if answer.cluster_id != sent.cluster_id {
        return Err(refused(
            RefusalCode::WrongCluster,
            "it belongs to another cluster",
        ));
    }
    if answer.sender != target {
        return Err(refused(
            RefusalCode::WrongTarget,
            format!("it is node {}, node {target} was meant", answer.sender),
        ));
    }
    Ok(())
}
