//! The answering side: accepts connections, shakes hands, refuses strangers, bounds how many there are, and counts.
//!
//! A connection that has not said who it is costs one task and a few kilobytes, for a few seconds; when there are too
//! many of them the oldest goes. Who is who is decided here; what a request means is the [`Handler`]'s.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::net::{TcpListener, TcpStream};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{Activity, Totals};
use super::greeting::{Greeted, Refused, greet};
use super::session::{Ended, Session};
use super::{Handler, NodeId, PeerOptions, RefusalCode, socket};
use crate::limits;

/// Pause after `accept` failed: out of descriptors must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers other nodes. Dropping it cuts every connection; [`Server::shutdown`] lets requests at work finish.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    local_address: SocketAddr,
}

/// Counts since the server started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections whose handshake is through, now.
    pub open: u64,
    /// Connections that have not said who they are, now.
    pub handshaking: u64,
    /// Requests answered.
    pub requests: u64,
    /// Connections closed because their node had too many; its newest stay.
    pub displaced: u64,
    /// Bytes received, after decryption.
    pub bytes_received: u64,
    /// Bytes sent, before encryption.
    pub bytes_sent: u64,
    /// Refused or cut off, by reason: in the handshake, and later for bytes that are no frame.
    pub refused: BTreeMap<RefusalCode, u64>,
}

impl ServerStats {
    /// How many were refused for this reason.
    pub fn refused(&self, code: RefusalCode) -> u64 {
        self.refused.get(&code).copied().unwrap_or(0)
    }
}

pub(super) struct Shared {
    pub options: PeerOptions,
    pub handler: Arc<dyn Handler>,
    /// Cuts everything off.
    closed: CancellationToken,
    /// Accepts nothing new.
    stopping: CancellationToken,
    tasks: TaskTracker,
    registry: Mutex<Registry>,
    accepted: AtomicU64,
    displaced: AtomicU64,
    requests: Arc<AtomicU64>,
    totals: Arc<Totals>,
    refused: [AtomicU64; RefusalCode::ALL.len()],
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The connections there are, oldest first.
#[derive(Debug, Default)]
struct Registry {
    next: u64,
    handshaking: VecDeque<(u64, Ends)>,
    open: BTreeMap<u64, (Option<NodeId>, Ends)>,
}

/// The two ways in which a connection ends from this side.
#[derive(Debug, Clone)]
struct Ends {
    /// At once.
    closed: CancellationToken,
    /// In order: no more requests, and those at work are answered.
    stopping: CancellationToken,
}

impl Server {
    /// Starts to accept.
    pub async fn start(
        listener: TcpListener,
        options: PeerOptions,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Server> {
        let local_address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            handler,
            closed: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            registry: Mutex::default(),
            accepted: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
            requests: Arc::default(),
            totals: Arc::default(),
            refused: Default::default(),
        });
        shared.tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Server {
            shared,
            local_address,
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Takes no more requests, lets those at work finish for [`limits::PEER_DRAIN_MS`], then closes everything.
    pub async fn shutdown(self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        let patience = Duration::from_millis(limits::PEER_DRAIN_MS);
        if timeout(patience, self.shared.tasks.wait()).await.is_err() {
            tracing::debug!("requests of other nodes still at work were cut off");
        }
        self.shared.closed.cancel();
        self.shared.tasks.wait().await;
    }

    /// Takes no more requests from a node, and closes its connections as soon as those at work are answered: one of
    /// them may be what it was asked to do, such as to have itself removed. Whether it may come back is
    /// [`Handler::admit`]'s to say, which must refuse it before this is called.
    pub fn let_go(&self, sender: NodeId) {
        let registry = self.shared.registry.lock();
        for (other, ends) in registry.open.values() {
            if *other == Some(sender) {
                ends.stopping.cancel();
            }
        }
    }

    /// Counts.
    pub fn stats(&self) -> ServerStats {
        let shared = &self.shared;
        let (open, handshaking) = {
            let registry = shared.registry.lock();
            (registry.open.len(), registry.handshaking.len())
        };
        let refused = RefusalCode::ALL
            .into_iter()
            .zip(&shared.refused)
            .map(|(code, count)| (code, count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        ServerStats {
            accepted: shared.accepted.load(Relaxed),
            open: open as u64,
            handshaking: handshaking as u64,
            requests: shared.requests.load(Relaxed),
            displaced: shared.displaced.load(Relaxed),
            bytes_received: shared.totals.received.load(Relaxed),
            bytes_sent: shared.totals.sent.load(Relaxed),
            refused,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.closed.cancelled() => return,
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                shared.accepted.fetch_add(1, Relaxed);
                let (id, ends) = shared.arrived();
                let connection = drive(stream, address, id, ends, Arc::clone(&shared));
                shared.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a node's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection from accept to end.
async fn drive(
    stream: TcpStream,
    address: SocketAddr,
    id: u64,
    Ends { closed, stopping }: Ends,
    shared: Arc<Shared>,
) {
    let timeouts = &shared.options.timeouts;
    socket::prepare(&stream, timeouts.progress());
    let activity = Arc::new(Activity::new(Arc::clone(&shared.totals)));
    let greeting = greet(stream, Arc::clone(&activity), &shared, id);
    let greeted = tokio::select! {
        biased;
        () = closed.cancelled() => Err(Refused::silently(RefusalCode::Busy)),
        greeted = timeout(timeouts.handshake(), greeting) => {
            greeted.unwrap_or(Err(Refused::silently(RefusalCode::TooSlow)))
        }
    };
    match greeted {
        Ok(Greeted {
            reader,
            writer,
            sender,
            lane,
        }) => {
            tracing::debug!(%address, ?sender, ?lane, "a node connected");
            let session = Session {
                reader,
                writer,
                activity,
                sender,
                lane,
                handler: Arc::clone(&shared.handler),
                timeouts: timeouts.clone(),
                closed: closed.clone(),
                stopping,
                requests: Arc::clone(&shared.requests),
            };
            let serving = session.serve();
            let ended = match sender {
                Some(_) => serving.await,
                // A stranger has one errand and the time for it.
                None => {
                    let lifetime = Duration::from_millis(limits::PEER_JOIN_LIFETIME_MS);
                    timeout(lifetime, serving).await.unwrap_or(Ended::Closed)
                }
            };
            if ended == Ended::Malformed {
                shared.count(RefusalCode::Malformed);
            }
        }
        Err(refused) => {
            // Not while a server stops: that is nobody's fault.
            if !shared.closed.is_cancelled() {
                shared.count(refused.code);
                tracing::debug!(%address, code = refused.code.name(), text = refused.text, "a connection was refused");
            }
            refused.say_goodbye(&closed).await;
        }
    }
    shared.left(id);
    closed.cancel();
}

impl Shared {
    fn count(&self, code: RefusalCode) {
        self.refused[code as usize].fetch_add(1, Relaxed);
    }

    /// A newcomer. If too many have not said who they are, the oldest of them goes.
    fn arrived(&self) -> (u64, Ends) {
        let mut registry = self.registry.lock();
        let id = registry.next;
        registry.next += 1;
        let ends = Ends {
            closed: self.closed.child_token(),
            stopping: self.stopping.child_token(),
        };
        registry.handshaking.push_back((id, ends.clone()));
        if registry.handshaking.len() > limits::PEER_HANDSHAKES_MAX
            && let Some((_, oldest)) = registry.handshaking.pop_front()
        {
            oldest.closed.cancel();
        }
        (id, ends)
    }

    /// The newcomer is known. If there are too many in all it is refused; if its own node has too many, the oldest of
    /// those goes: it is most likely one whose other end has long forgotten it.
    pub fn admit(&self, id: u64, sender: Option<NodeId>) -> Result<(), (RefusalCode, String)> {
        let mut registry = self.registry.lock();
        let Some(position) = registry
            .handshaking
            .iter()
            .position(|(other, _)| *other == id)
        else {
            return Err((RefusalCode::Busy, "too many connections at once".to_owned()));
        };
        let mut same = registry
            .open
            .iter()
            .filter(|(_, (other, _))| *other == sender)
            .map(|(id, _)| *id);
        let oldest = same.next();
        let count = same.count() + usize::from(oldest.is_some());
        let displaced = match sender {
            Some(_) if count >= limits::PEER_CONNECTIONS_PER_SENDER_MAX => oldest,
            None if count >= limits::PEER_JOINS_MAX => {
                return Err((
                    RefusalCode::Busy,
                    format!(
                        "{count} nodes are joining, allowed are {}",
                        limits::PEER_JOINS_MAX
                    ),
                ));
            }
            _ => None,
        };
        if displaced.is_none() && registry.open.len() >= limits::PEER_CONNECTIONS_MAX {
            return Err((
                RefusalCode::Busy,
                format!(
                    "there are {} connections, allowed are {}",
                    registry.open.len(),
                    limits::PEER_CONNECTIONS_MAX
                ),
            ));
        }
        if let Some((_, oldest)) = displaced.and_then(|oldest| registry.open.remove(&oldest)) {
            self.displaced.fetch_add(1, Relaxed);
            oldest.closed.cancel();
        }
        if let Some((id, ends)) = registry.handshaking.remove(position) {
            registry.open.insert(id, (sender, ends));
        }
        Ok(())
    }

    fn left(&self, id: u64) {
        let mut registry = self.registry.lock();
        registry.open.remove(&id);
        registry.handshaking.retain(|(other, _)| *other != id);
    }
}
