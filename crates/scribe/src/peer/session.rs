//! The answering end of one connection after its handshake: reads requests, hands them to the handler within limits,
//! sends the answers as they are ready.
//!
//! What is over a limit stays unread in the socket, so that the sender feels it; only a body that is too long for its
//! kind ends the connection. On the replication lane one task answers one request after another.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Receiving, Sending};
use super::frame::{Activity, FrameError, FrameReader, Header, Role, put_error};
use super::outbox::{Outbox, Outgoing};
use super::{
    Handler, Lane, NodeId, PeerTimeouts, RemoteError, Request, Response, outbox, remote_code,
};
use crate::limits;

/// A sign of life is sent at most this often per request.
const PROGRESS_INTERVAL_MS: u64 = 100;

/// Tells the asking node that its request is being worked on, which renews a [`super::Wait::Progress`].
#[derive(Debug, Clone)]
pub struct ProgressHandle {
    outbox: Outbox,
    request_id: u64,
    started: Instant,
    /// Milliseconds after `started` before which nothing is sent.
    quiet_until_ms: Arc<AtomicU64>,
}

impl ProgressHandle {
    fn new(outbox: &Outbox, request_id: u64) -> ProgressHandle {
        ProgressHandle {
            outbox: outbox.clone(),
            request_id,
            started: Instant::now(),
            quiet_until_ms: Arc::default(),
        }
    }

    /// Work goes on. Cheap enough to be called for every step; most calls send nothing.
    pub fn tick(&self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let quiet = self.quiet_until_ms.load(Relaxed);
        let due = now_ms >= quiet
            && self
                .quiet_until_ms
                .compare_exchange(quiet, now_ms + PROGRESS_INTERVAL_MS, Relaxed, Relaxed)
                .is_ok();
        if due {
            self.outbox
                .push(Outgoing::bare(Role::Progress, self.request_id));
        }
    }
}

/// A connection whose handshake is through.
pub(super) struct Session {
    pub reader: FrameReader<Receiving>,
    pub writer: Sending,
    pub activity: Arc<Activity>,
    pub sender: Option<NodeId>,
    pub lane: Lane,
    pub handler: Arc<dyn Handler>,
    pub timeouts: PeerTimeouts,
    /// Cut off at once.
    pub closed: CancellationToken,
    /// Take no more requests.
    pub stopping: CancellationToken,
    /// Requests answered.
    pub requests: Arc<AtomicU64>,
}

/// A request and its share of the limits.
struct Job {
    request: Request,
    request_id: u64,
    shares: [OwnedSemaphorePermit; 2],
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By either side, between two frames, or because the network broke.
    Closed,
    /// The other side sent what is no frame, or one too long, or half of one.
    Malformed,
}

impl Session {
    /// Serves until either side closes.
    pub async fn serve(self) -> Ended {
        let Session {
            mut reader,
            writer,
            activity,
            sender,
            lane,
            handler,
            timeouts,
            closed,
            stopping,
            requests,
        } = self;
        let (outbox, queue) = Outbox::new();
        let write = outbox::write(writer, queue, activity, timeouts.clone(), closed.clone());
        let writing = tokio::spawn({
            let closed = closed.clone();
            async move {
                if let Err(error) = write.await {
                    tracing::debug!(%error, "nothing could be written to a node");
                    closed.cancel();
                }
            }
        });
        let answerer = Answerer {
            handler,
            outbox,
            requests,
        };
        // A stranger is heard one request at a time.
        let places = match lane {
            Lane::Join => 1,
            _ => limits::PEER_REQUESTS_IN_FLIGHT_MAX,
        };
        let places = Arc::new(Semaphore::new(places));
        let bytes = Arc::new(Semaphore::new(limits::PEER_REQUEST_BYTES_MAX));
        let in_order =
            (lane == Lane::Replication).then(|| answerer.clone().one_by_one(closed.clone()));

        let reading = async {
            loop {
                let header = reader.header().await?;
                match header.role {
                    Role::Request => {}
                    Role::Ping => {
                        reader.skip(&header, 0).await?;
                        if header.request_id != 0 {
                            answerer.outbox.push(Outgoing::bare(Role::Ping, 0));
                        }
                        continue;
                    }
                    _ => return Err(FrameError::Malformed("a client does not send such a frame")),
                }
                let allowed = allowed(&*answerer.handler, lane, sender, header.kind);
                if header.body_length > allowed {
                    return Err(FrameError::TooLong { header, allowed });
                }
                let weight = header.body_length.min(limits::PEER_REQUEST_BYTES_MAX);
                let weight = u32::try_from(weight).unwrap_or(u32::MAX);
                // Neither semaphore is ever closed.
                let (Ok(place), Ok(weight)) = (
                    Arc::clone(&places).acquire_owned().await,
                    Arc::clone(&bytes).acquire_many_owned(weight).await,
                ) else {
                    return Err(FrameError::Closed);
                };
                let progress = ProgressHandle::new(&answerer.outbox, header.request_id);
                // What the kernel's buffers swallowed of a slow link is progress only here.
                let body = reader.body(&header, allowed, || progress.tick()).await?;
                let job = Job {
                    request: Request {
                        sender,
                        lane,
                        kind: header.kind,
                        body,
                        progress,
                    },
                    request_id: header.request_id,
                    shares: [place, weight],
                };
                match &in_order {
                    // Held back by the shares of the jobs.
                    Some(jobs) => drop(jobs.send(job)),
                    None => {
                        tokio::spawn(answerer.clone().answer(job));
                    }
                }
            }
        };
        let ended: Result<(), FrameError> = tokio::select! {
            biased;
            () = closed.cancelled() => Ok(()),
            () = stopping.cancelled() => Ok(()),
            ended = reading => ended,
        };
        let outcome = match &ended {
            Err(FrameError::Malformed(_) | FrameError::TooLong { .. } | FrameError::Half) => {
                Ended::Malformed
            }
            _ => Ended::Closed,
        };
        if let Err(error) = &ended {
            tracing::debug!(?sender, ?lane, %error, "a node's connection ended");
        }
        if let Err(FrameError::TooLong { header, .. }) = &ended {
            let text = ended
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default();
            answerer.refuse(header.request_id, remote_code::TOO_LONG, &text);
        }
        if matches!(ended, Ok(()) | Err(FrameError::TooLong { .. })) && !closed.is_cancelled() {
            // In order: what is at work finishes, what is answered gets out, and the other side closes first.
            let drain = Duration::from_millis(limits::PEER_DRAIN_MS);
            let all = u32::try_from(limits::PEER_REQUESTS_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
            let _ = timeout(drain, places.acquire_many(all)).await;
            drop(in_order);
            drop(answerer);
            let _ = timeout(drain, writing).await;
            let _ = timeout(drain, reader.linger()).await;
        }
        closed.cancel();
        outcome
    }
}

/// Longest body of a request; short, whatever the handler says, for somebody unknown.
fn allowed(handler: &dyn Handler, lane: Lane, sender: Option<NodeId>, kind: u8) -> usize {
    let most = match sender {
        Some(_) => limits::PEER_BODY_LENGTH_MAX,
        None => limits::PEER_JOIN_BODY_LENGTH_MAX,
    };
    handler.body_length_max(lane, kind).min(most)
}

#[derive(Clone)]
struct Answerer {
    handler: Arc<dyn Handler>,
    outbox: Outbox,
    requests: Arc<AtomicU64>,
}

impl Answerer {
    /// A task that answers jobs in their order. Its queue is bounded by the shares each job holds. Jobs that wait when
    /// the connection is cut are dropped: what the sender has to say now comes on its next connection.
    fn one_by_one(self, closed: CancellationToken) -> mpsc::UnboundedSender<Job> {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                if closed.is_cancelled() {
                    return;
                }
                self.clone().answer(job).await;
            }
        });
        sender
    }

    async fn answer(self, job: Job) {
        let Job {
            request,
            request_id,
            shares,
        } = job;
        let kind = request.kind;
        let handled = AssertUnwindSafe(async { self.handler.handle(request).await })
            .catch_unwind()
            .await;
        self.requests.fetch_add(1, Relaxed);
        match handled {
            Ok(Ok(response)) => self.respond(request_id, kind, response).await,
            Ok(Err(RemoteError { code, text })) => self.refuse(request_id, code, &text),
            Err(_) => {
                tracing::error!(kind, "a handler of a node's request panicked");
                self.refuse(request_id, remote_code::PANICKED, "the handler panicked");
            }
        }
        drop(shares);
    }

    async fn respond(&self, request_id: u64, kind: u8, response: Response) {
        let length = response.parts.iter().map(Bytes::len).sum::<usize>();
        if length > limits::PEER_BODY_LENGTH_MAX {
            let text = format!(
                "the answer has {length} bytes, allowed are {}",
                limits::PEER_BODY_LENGTH_MAX
            );
            self.refuse(request_id, remote_code::ANSWER_TOO_LONG, &text);
            return;
        }
        let room = self.outbox.room_for(length).await;
        self.outbox.push(Outgoing {
            header: Header::new(Role::Response, kind, request_id, length),
            parts: response.parts,
            state: None,
            room,
        });
    }

    fn refuse(&self, request_id: u64, code: u16, text: &str) {
        let body = put_error(code, text);
        self.outbox.push(Outgoing {
            header: Header::new(Role::Error, 0, request_id, body.len()),
            parts: vec![body],
            state: None,
            room: None,
        });
    }
}
