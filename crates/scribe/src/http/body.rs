//! Bodies: reading a request's within its limit, and the reply's without a box.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{BusyGuard, Watch};
use super::error::ApiError;
use crate::limits;

/// A reply's body: bytes at hand, or a stream.
///
/// The first kind is what every hot route answers with; it needs no allocation beyond its bytes.
#[derive(Debug)]
pub struct ReplyBody(Content);

#[derive(Debug)]
enum Content {
    Full(Bytes),
    Streamed(axum::body::Body, Option<BusyGuard>),
}

/// Extension of a reply: the request's body was refused without being read to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestUnread;

impl ReplyBody {
    /// Nothing.
    pub fn empty() -> ReplyBody {
        ReplyBody::full(Bytes::new())
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> ReplyBody {
        ReplyBody(Content::Full(bytes.into()))
    }

    /// Whatever the router's handlers answered.
    pub fn streamed(body: axum::body::Body) -> ReplyBody {
        ReplyBody(Content::Streamed(body, None))
    }

    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.0, Content::Streamed(..))
    }

    pub(super) fn hold(&mut self, guard: BusyGuard) {
        if let Content::Streamed(_, held) = &mut self.0 {
            *held = Some(guard);
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Content::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(body, _) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BoxError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Full(bytes) => bytes.is_empty(),
            Content::Streamed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(body, _) => body.size_hint(),
        }
    }
}

/// What a request body may take: a length, and a share of the memory set aside for bodies in progress.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Semaphore>);

/// One permit is this many bytes; bodies up to it are free, for they fit a read buffer.
const BUDGET_UNIT: usize = 64 * 1_024;

impl BodyBudget {
    /// A budget of [`limits::HTTP_BODIES_BYTES_MAX`] for all requests of a server.
    pub fn new() -> BodyBudget {
        BodyBudget(Arc::new(Semaphore::new(
            limits::HTTP_BODIES_BYTES_MAX / BUDGET_UNIT,
        )))
    }

    async fn reserve(&self, units: usize) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if units == 0 {
            return Ok(None);
        }
        let wait = Duration::from_millis(limits::HTTP_BODY_STALL_MS);
        match tokio::time::timeout(wait, Arc::clone(&self.0).acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(ApiError::overloaded(
                "too many large request bodies are being received",
                1_000,
            )),
        }
    }
}

impl Default for BodyBudget {
    fn default() -> Self {
        BodyBudget::new()
    }
}

/// A request body read whole, and the memory it occupies of the budget until it is dropped.
#[derive(Debug)]
pub struct ReadBody {
    /// The bytes.
    pub bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `limit` bytes. A declared length above it is refused before anything is read, an undeclared
/// one as soon as it passes the limit; `too_large` makes the refusal from the declared length.
///
/// # Errors
/// Too large, broken, or no memory for it within [`limits::HTTP_BODY_STALL_MS`]. A body that stalls closes the
/// connection instead.
pub(super) async fn read_body<B>(
    body: &mut B,
    limit: usize,
    budget: &BodyBudget,
    watch: &Watch,
    too_large: impl Fn(Option<u64>) -> ApiError,
) -> Result<ReadBody, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return Ok(ReadBody {
            bytes: Bytes::new(),
            _permit: None,
        });
    }
    let declared = body.size_hint().exact();
    if let Some(declared) = declared
        && declared > limit as u64
    {
        return Err(too_large(Some(declared)).leaving_request_unread());
    }
    let declared = declared.map(|declared| declared as usize);
    let mut permit = match declared {
        Some(declared) if declared > BUDGET_UNIT => {
            budget.reserve(declared.div_ceil(BUDGET_UNIT)).await?
        }
        // An undeclared body reserves what it may become only once it outgrows what is free.
        _ => None,
    };
    let reading = watch.reading_body();
    let Some(first) = next_data(body).await? else {
        return Ok(ReadBody {
            bytes: Bytes::new(),
            _permit: permit,
        });
    };
    if body.is_end_stream() && first.len() <= limit {
        return Ok(ReadBody {
            bytes: first,
            _permit: permit,
        });
    }
    let mut collected = BytesMut::new();
    let mut next = Some(first);
    while let Some(data) = next {
        let length = collected.len() + data.len();
        if length > limit {
            return Err(too_large(None).leaving_request_unread());
        }
        if permit.is_none() && declared.is_none() && length > BUDGET_UNIT {
            permit = budget.reserve(limit.div_ceil(BUDGET_UNIT)).await?;
        }
        if collected.is_empty() {
            // The budget covers it; an undeclared body grows as it comes.
            collected.reserve(declared.unwrap_or(data.len() * 2));
        }
        collected.extend_from_slice(&data);
        next = next_data(body).await?;
    }
    drop(reading);
    Ok(ReadBody {
        bytes: collected.freeze(),
        _permit: permit,
    })
}

/// The next piece of a body, or `None` at its end.
///
/// # Errors
/// The connection broke, or the chunks are malformed.
pub async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(ApiError::body_broken().leaving_request_unread()),
            // Trailers say nothing here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_) => {}
            },
        }
    }
}
