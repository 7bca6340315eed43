//! Bulk uploads and watches.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use reqwest::Method;

use super::ndjson::Lines;
use super::sse::{Event, Events};
use super::{Call, Client, Wait};
use crate::error::{Error, TransportError, with_causes};
use crate::retry::{self, Failure, Safety};
use crate::wire::{
    BulkLine, BulkReply, EVENT_ENTRY, EVENT_ERROR, EVENT_PROGRESS, MEDIA_NDJSON, WatchEvent,
};

/// Lines of an upload are sent in pieces of about this size, or sooner if no more are ready.
const PIECE_LENGTH: usize = 64 * 1_024;
/// A watch on which nothing arrives, not even a comment, is opened again after this time.
const WATCH_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Uploads many operations. Lines are sent as they come, and results arrive while they are
    /// sent: read the results, or the upload stops once buffers are full.
    ///
    /// One [`BulkReply::Result`] per line, then [`BulkReply::Done`]; without the latter the stream
    /// ends with [`Error::OutcomeUnknown`]. Nothing is sent twice: give lines idempotency keys to
    /// be able to send the unanswered ones again.
    ///
    /// # Errors
    /// As [`Error`], before the first line was taken.
    pub async fn bulk<S>(
        &self,
        lines: S,
        wait: Wait,
    ) -> Result<BoxStream<'static, Result<BulkReply, Error>>, Error>
    where
        S: Stream<Item = BulkLine<'static>> + Send + 'static,
    {
        let mut call = Call::new(Method::POST, "/v1/entries");
        if wait == Wait::Published {
            call.query("wait", "published");
        }
        call.header("content-type", MEDIA_NDJSON)?;
        if self.inner.servers.len() > 1 {
            // An upload cannot be begun twice: find a node that is there before the first line is taken.
            self.call(&Call::get("/health/ready"), Safety::Read).await?;
        }
        let body = reqwest::Body::wrap_stream(encode(Box::pin(lines)));
        let (request, server) = self.request(&call);
        // No deadline for the head of the answer: the first line may be long in coming.
        let opened = self.open(request.body(body), server, Duration::MAX).await;
        let response = opened.map_err(|failure| match failure.effect {
            retry::Effect::None => failure.error,
            retry::Effect::Unknown | retry::Effect::Appended => unknown(failure.error),
        })?;
        let replies = Replies {
            response,
            lines: Lines::default(),
            ended: false,
        };
        Ok(stream::unfold(replies, |mut replies| async move {
            let reply = replies.next().await?;
            Some((reply, replies))
        })
        .boxed())
    }

    /// Follows the ledger: past entries from an index on, then new ones as they are appended.
    pub fn watch(&self) -> Watch<'_> {
        Watch {
            client: self,
            from: None,
            prefix: None,
        }
    }
}

fn unknown(last: Error) -> Error {
    Error::OutcomeUnknown {
        idempotency_key: None,
        last: Box::new(last),
    }
}

/// The lines as pieces of a body.
fn encode<S>(mut lines: Pin<Box<S>>) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send
where
    S: Stream<Item = BulkLine<'static>> + Send,
{
    let mut ended = false;
    stream::poll_fn(move |context| {
        let mut piece = Vec::new();
        while !ended && piece.len() < PIECE_LENGTH {
            match lines.as_mut().poll_next(context) {
                Poll::Ready(Some(line)) => {
                    if let Err(error) = serde_json::to_writer(&mut piece, &line) {
                        ended = true;
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    piece.push(b'\n');
                }
                Poll::Ready(None) => ended = true,
                Poll::Pending if piece.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(piece.into())))
    })
}

struct Replies {
    response: reqwest::Response,
    lines: Lines,
    ended: bool,
}

impl Replies {
    async fn next(&mut self) -> Option<Result<BulkReply, Error>> {
        if self.ended {
            return None;
        }
        let reply = self.read().await;
        self.ended = !matches!(reply, Ok(BulkReply::Result(_)));
        Some(reply)
    }

    async fn read(&mut self) -> Result<BulkReply, Error> {
        loop {
            let line = self.lines.next().map_err(|_| {
                unknown(Error::UnexpectedAnswer(
                    "a result line is too long".to_owned(),
                ))
            })?;
            if let Some(line) = line {
                return serde_json::from_slice(&line).map_err(|error| {
                    let text = format!("a result line cannot be read: {error}");
                    unknown(Error::UnexpectedAnswer(text))
                });
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.lines.push(&piece),
                Ok(None) => {
                    let text = "the answer ended before its last line".to_owned();
                    return Err(unknown(TransportError::Broken(text).into()));
                }
                Err(error) => {
                    return Err(unknown(TransportError::Broken(with_causes(&error)).into()));
                }
            }
        }
    }
}

/// A watch to be opened; see [`Client::watch`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct Watch<'a> {
    client: &'a Client,
    from: Option<u64>,
    prefix: Option<Vec<u8>>,
}

impl Watch<'_> {
    /// Begins with the entry at this index; with the next one to be appended unless set.
    pub fn from(mut self, index: u64) -> Self {
        self.from = Some(index);
        self
    }

    /// Only entries whose key begins with this, and progress events in between.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = Some(prefix.as_ref().to_vec());
        self
    }

    /// The events, in order and without gaps: a connection that breaks is opened again after the
    /// last index seen. The stream ends only with an error: a refusal for good, or no connection
    /// for as long as calls are repeated.
    ///
    /// # Errors
    /// See [`Error`]: where the ledger ends is asked for first, unless
    /// [`from`](Watch::from) says where to begin.
    pub async fn open(self) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        let next = match self.from {
            Some(from) => from,
            None => self.client.ledger().await?.tree_size,
        };
        let watching = Watching {
            client: self.client.clone(),
            prefix: self.prefix,
            next,
            response: None,
            events: Events::default(),
            ready: VecDeque::new(),
            failures: 0,
            ended: false,
        };
        Ok(stream::unfold(watching, |mut watching| async move {
            if watching.ended {
                return None;
            }
            let event = watching.next().await;
            watching.ended = event.is_err();
            Some((event, watching))
        })
        .boxed())
    }
}

struct Watching {
    client: Client,
    prefix: Option<Vec<u8>>,
    /// The index to begin with after a reconnect.
    next: u64,
    response: Option<reqwest::Response>,
    events: Events,
    ready: VecDeque<WatchEvent>,
    /// Connections in a row that broke without an event.
    failures: u32,
    ended: bool,
}

impl Watching {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let response = match &mut self.response {
                Some(response) => response,
                none => {
                    none.insert(connect(&self.client, self.next, self.prefix.as_deref()).await?)
                }
            };
            let piece = tokio::time::timeout(WATCH_IDLE_TIMEOUT, response.chunk()).await;
            let Ok(Ok(Some(piece))) = piece else {
                // Ended, broken or silent: all the same, go on after what was seen.
                self.reconnect().await;
                continue;
            };
            self.events.push(&piece);
            while let Some(event) = self.events.next().map_err(|_| too_long())? {
                match read_event(&event)? {
                    // A node may send again what was seen before a reconnect; nobody else does.
                    Some(event) if event.index() >= self.next => {
                        self.next = event.index().saturating_add(1);
                        self.failures = 0;
                        self.ready.push_back(event);
                    }
                    _ => (),
                }
            }
        }
    }

    async fn reconnect(&mut self) {
        self.response = None;
        self.events = Events::default();
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(retry::backoff(self.failures)).await;
    }
}

async fn connect(
    client: &Client,
    from: u64,
    prefix: Option<&[u8]>,
) -> Result<reqwest::Response, Error> {
    let mut call = Call::get("/v1/watch");
    call.query("from", from.to_string());
    if let Some(prefix) = prefix {
        call.query("prefix", prefix);
    }
    call.header("accept", "text/event-stream")?;
    let policy = &client.inner.retry;
    let timeout = policy.attempt_timeout(0);
    let nodes = client.inner.servers.len();
    retry::run(policy, nodes, Safety::Read, || async {
        let (request, server) = client.request(&call);
        client.open(request, server, timeout).await
    })
    .await
}

fn too_long() -> Error {
    Error::UnexpectedAnswer("a watch event is too long".to_owned())
}

/// An event of a kind this version knows.
fn read_event(event: &Event) -> Result<Option<WatchEvent>, Error> {
    let unreadable = |error: serde_json::Error| {
        Error::UnexpectedAnswer(format!("a {} event cannot be read: {error}", event.name))
    };
    match event.name.as_str() {
        EVENT_ENTRY => serde_json::from_str(&event.data)
            .map(|entry| Some(WatchEvent::Entry(entry)))
            .map_err(unreadable),
        EVENT_PROGRESS => serde_json::from_str(&event.data)
            .map(|progress| Some(WatchEvent::Progress(progress)))
            .map_err(unreadable),
        EVENT_ERROR => {
            let failure =
                Failure::refused(serde_json::from_str(&event.data).map_err(unreadable)?, None);
            // A node that goes away says so and closes; the reconnect finds another.
            if failure.retryable {
                Ok(None)
            } else {
                Err(failure.error)
            }
        }
        _ => Ok(None),
    }
}
