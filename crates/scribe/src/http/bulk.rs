//! `POST /v1/entries`: many entries, one JSON line each, streamed both ways.
//!
//! A task reads lines as they come, gathers them into groups, and hands up to [`GROUPS_IN_FLIGHT_MAX`] groups at a time
//! to the node; results leave in the order of the lines. Three things shape it:
//!
//! - **A client may upload everything before it reads anything.** Results it does not take yet wait in memory; once
//!   they are many, a run of successes shrinks to its first line and index, and its lines are made again from the ledger
//!   when the client comes for them. So the upload goes on, and memory stays bounded.
//! - **A malformed line ends the upload**, because nothing after it can be trusted to be a line. The lines before it
//!   are in; the answer says which line it was. A line that is well-formed but refused (a key too long, say) fails alone.
//! - **The last line is `done`.** An answer that ends without it was cut off (the client went away, the node stopped), and
//!   lines without a result have an unknown outcome.

mod lines;
mod results;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Response, StatusCode};
use scribe_client::code::ErrorCode;
use scribe_client::wire::{
    BulkChange, BulkDone, BulkLine, BulkOperation, BulkReply, HEADER_IDEMPOTENCY_KEY,
};
use scribe_proof::leaf::Metadata;
use tokio::sync::OwnedSemaphorePermit;

use lines::LineReader;
use results::{Outcomes, ResultReader, Results};

use super::body::ReplyBody;
use super::connection::Watch;
use super::error::ApiError;
use super::request::{self, Query, Wait};
use super::{App, headers, key_path};
use crate::error::AppendError;
use crate::limits;
use crate::node::Node;
use crate::sequencer::{Appended, Condition, Write, WriteKind};

/// Groups of one upload handed to a node that runs alone and not yet answered. In a cluster it is one: a group that is
/// tried again with another leader must not be overtaken by the next.
const GROUPS_IN_FLIGHT_MAX: usize = 4;
/// How long it is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// `POST /v1/entries`
pub(super) async fn upload(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    request::refuse_encoding(request.headers())?;
    if request.headers().contains_key(HEADER_IDEMPOTENCY_KEY) {
        return Err(ApiError::invalid_argument(
            "Idempotency-Key is given for a whole upload, allowed is `idempotency_key` on each line",
        )
        .leaving_request_unread());
    }
    let wait = Query::parse(request.uri().query(), &["wait"])
        .and_then(|query| query.wait())
        .map_err(ApiError::leaving_request_unread)?;
    let Ok(stream_permit) = Arc::clone(&app.bulk_streams).try_acquire_owned() else {
        return Err(ApiError::overloaded(
            format!(
                "{} bulk uploads are running, which is the most",
                limits::BULK_STREAMS_MAX
            ),
            1_000,
        )
        .leaving_request_unread());
    };
    let (parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Watch>>().cloned();
    let results = Arc::new(Results::default());
    let node = app.node.clone();
    let upload = Upload {
        app,
        wait,
        lines: LineReader::new(body),
        results: Arc::clone(&results),
        lines_read: 0,
        failed: 0,
        stopped: false,
    };
    tokio::spawn(async move {
        upload.run(connection).await;
        drop(stream_permit);
    });
    let reader = ResultReader::new(results, node);
    let stream = futures::stream::unfold(reader, ResultReader::next);
    let mut reply = Response::new(ReplyBody::streamed(Body::from_stream(stream)));
    *reply.status_mut() = StatusCode::OK;
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::NDJSON);
    fields.insert(CACHE_CONTROL, headers::NO_STORE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    Ok(reply)
}

/// One upload in progress.
struct Upload {
    app: App,
    wait: Wait,
    lines: LineReader,
    results: Arc<Results>,
    lines_read: u64,
    failed: u64,
    /// No more lines are taken, whether there are any or not.
    stopped: bool,
}

/// How an upload came to its end.
enum End {
    /// All lines were read, or the last one taken says why not: the answer is complete.
    Complete,
    /// The client went away or the node stops: the answer is cut off.
    CutOff,
}

impl Upload {
    async fn run(mut self, connection: Option<Arc<Watch>>) {
        match self.pump().await {
            End::Complete => {
                let done = BulkDone {
                    done: true,
                    lines: self.lines_read,
                    failed: self.failed,
                };
                let mut text = Vec::new();
                BulkReply::Done(done).write_line(&mut text);
                self.results.push_text(text);
                self.results.close(false);
            }
            End::CutOff => self.results.close(true),
        }
        if self.stopped {
            if let Some(connection) = connection {
                connection.linger();
            }
            let _ = tokio::time::timeout(DISCARD_TIMEOUT, self.lines.discard()).await;
        }
    }

    async fn pump(&mut self) -> End {
        let app = self.app.clone();
        let mut group = Group::default();
        let mut in_flight = FuturesOrdered::new();
        let in_flight_max = if app.node.is_alone() {
            GROUPS_IN_FLIGHT_MAX
        } else {
            1
        };
        let mut ended = false;
        loop {
            while !self.stopped && !group.is_full() {
                let Some(line) = self.lines.take(ended) else {
                    break;
                };
                self.take_line(line, &mut group);
            }
            let no_more = ended || self.stopped;
            // A group that is not full waits for more lines only while others are on their way: what comes in
            // meanwhile is what makes the next group worthwhile.
            let ready = group.is_full() || no_more || in_flight.is_empty();
            if !group.is_empty() && ready && in_flight.len() < in_flight_max {
                let permit = match admit(&app, group.admission_units(), in_flight.is_empty()).await
                {
                    Some(permit) => Some(permit),
                    None if in_flight.is_empty() => return End::CutOff,
                    None => None,
                };
                if let Some(permit) = permit {
                    let group = std::mem::take(&mut group);
                    in_flight.push_back(submit(app.clone(), self.wait, group, permit));
                    continue;
                }
            }
            if group.is_empty() && in_flight.is_empty() && no_more {
                return End::Complete;
            }
            let reading = !no_more && !group.is_full();
            tokio::select! {
                biased;
                Some(outcomes) = in_flight.next(), if !in_flight.is_empty() => {
                    if !self.report(outcomes).await {
                        return End::CutOff;
                    }
                }
                () = app.stopping.cancelled(), if reading => {
                    self.stopped = true;
                    // What is on its way is still reported, then the answer is cut off.
                    while let Some(outcomes) = in_flight.next().await {
                        if !self.report(outcomes).await {
                            break;
                        }
                    }
                    return End::CutOff;
                }
                more = self.lines.more(), if reading => match more {
                    Ok(more) => ended = !more,
                    Err(error) => {
                        if error.code() == ErrorCode::BadRequest {
                            // The connection broke in the middle of the body. What was taken is appended all the
                            // same; there is nobody left to tell.
                            while let Some(outcomes) = in_flight.next().await {
                                if !self.report(outcomes).await {
                                    break;
                                }
                            }
                            return End::CutOff;
                        }
                        self.refuse_line(error, &mut group);
                    }
                },
            }
        }
    }

    fn take_line(&mut self, line: Bytes, group: &mut Group) {
        let number = self.lines.number;
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.lines_read += 1;
        match BulkLine::parse(&line) {
            Ok(operation) => {
                let write = write_of(&line, operation, self.app.options.value_length_max);
                group.push(number, write);
            }
            Err(error) => {
                let error = ApiError::new(
                    ErrorCode::MalformedLine,
                    format!("line {number} is malformed: {error}"),
                )
                .hint("the lines before it were taken; no line after it was");
                group.push(number, Err(error));
                self.stopped = true;
            }
        }
    }

    /// The next line cannot be read at all.
    fn refuse_line(&mut self, error: ApiError, group: &mut Group) {
        self.lines_read += 1;
        self.stopped = true;
        group.push(self.lines.number + 1, Err(error));
    }

    /// Hands results to the reader; `false` if there is none any more.
    async fn report(&mut self, outcomes: Outcomes) -> bool {
        for (_, outcome) in &outcomes {
            if let Err(error) = outcome {
                self.failed += 1;
                self.stopped |= ends_upload(error.code());
            }
        }
        self.results.push(outcomes).await
    }
}

/// Room among the bulk groups of this node, so that they never crowd single writes out of the sequencer. Waits for it
/// only if `patient`; `None` means that there is none now, or that the node stops.
async fn admit(app: &App, units: u32, patient: bool) -> Option<OwnedSemaphorePermit> {
    let room = Arc::clone(&app.bulk_room);
    if !patient {
        return room.try_acquire_many_owned(units).ok();
    }
    tokio::select! {
        permit = room.acquire_many_owned(units) => permit.ok(),
        () = app.stopping.cancelled() => None,
    }
}

/// Failures that every further line would share.
fn ends_upload(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DiskFull
            | ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::UnknownOutcome
            | ErrorCode::Internal
    )
}

/// Lines that travel together.
#[derive(Default)]
struct Group {
    /// Line number, and why it is not among the writes.
    lines: Vec<(u64, Option<ApiError>)>,
    writes: Vec<Write>,
    byte_length: usize,
}

impl Group {
    fn push(&mut self, line: u64, write: Result<Write, ApiError>) {
        match write {
            Ok(write) => {
                self.byte_length += write.key.len();
                if let WriteKind::Put { value, .. } = &write.kind {
                    self.byte_length += value.len();
                }
                self.writes.push(write);
                self.lines.push((line, None));
            }
            Err(error) => self.lines.push((line, Some(error))),
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= limits::FRAME_OPERATIONS_MAX
            || self.byte_length >= limits::FRAME_BYTES_TARGET
    }

    /// One unit per full frame's worth, at least one, never more than there are.
    fn admission_units(&self) -> u32 {
        let units = 1 + self.byte_length / limits::FRAME_BYTES_TARGET;
        u32::try_from(units.min(limits::BULK_ROOM_FRAMES)).unwrap_or(1)
    }
}

/// Appends a group and, if asked for, waits until it is published. Lines the sequencer had no room for are tried again
/// until the request's time is over.
async fn submit(app: App, wait: Wait, group: Group, permit: OwnedSemaphorePermit) -> Outcomes {
    let Group { lines, writes, .. } = group;
    let mut outcomes = append_all(&app.node, writes).await;
    if wait == Wait::Published {
        let newest = outcomes
            .iter()
            .flatten()
            .map(|appended| appended.tree_size)
            .max();
        if let Some(size) = newest
            && let Err(error) = app.node.publish(size).await
        {
            for outcome in &mut outcomes {
                if let Ok(appended) = outcome {
                    let index = appended.index;
                    *outcome = Err(ApiError::not_published(
                        format!("the entry was appended at index {index}, but: {error}"),
                        Some(index.get()),
                    ));
                }
            }
        }
    }
    drop(permit);
    let mut outcomes = outcomes.into_iter();
    lines
        .into_iter()
        .map(|(line, refused)| match refused {
            Some(error) => (line, Err(error)),
            None => (line, outcomes.next().unwrap_or_else(|| Err(unanswered()))),
        })
        .collect()
}

fn unanswered() -> ApiError {
    ApiError::from_append(AppendError::UnknownOutcome, false)
}

async fn append_all(node: &Node, writes: Vec<Write>) -> Vec<Result<Appended, ApiError>> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(limits::REQUEST_TIMEOUT_MS);
    // Cheap: a write is a few reference counts and an empty string or two.
    let retained = writes.clone();
    let mut outcomes = node.append_many(writes).await;
    loop {
        let mut pause = 0;
        let mut again = Vec::new();
        for (place, outcome) in outcomes.iter().enumerate() {
            if let Err(AppendError::Overloaded { retry_after_ms }) = outcome {
                pause = pause.max(*retry_after_ms);
                again.push(place);
            }
        }
        let resume = tokio::time::Instant::now() + Duration::from_millis(pause);
        if again.is_empty() || resume > deadline {
            break;
        }
        tokio::time::sleep_until(resume).await;
        let writes = again
            .iter()
            .filter_map(|place| retained.get(*place).cloned())
            .collect();
        for (place, outcome) in again.into_iter().zip(node.append_many(writes).await) {
            outcomes[place] = outcome;
        }
    }
    outcomes
        .into_iter()
        .map(|outcome| outcome.map_err(|error| ApiError::from_append(error, false)))
        .collect()
}

/// The write a line asks for. What the line holds literally is shared with it, not copied.
pub(super) fn write_of(
    line: &Bytes,
    operation: BulkOperation<'_>,
    value_length_max: usize,
) -> Result<Write, ApiError> {
    let shared = |bytes: std::borrow::Cow<'_, [u8]>| match bytes {
        std::borrow::Cow::Borrowed(bytes) => line.slice_ref(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    key_path::check_length(&operation.key)?;
    let idempotency_key = operation.idempotency_key.map(std::borrow::Cow::into_owned);
    if let Some(key) = &idempotency_key {
        request::check_idempotency_key(key)?;
    }
    let kind = match operation.change {
        BulkChange::Delete => WriteKind::Delete,
        BulkChange::Put {
            value,
            content_type,
            metadata,
        } => {
            if value.len() > value_length_max {
                return Err(ApiError::value_too_large(
                    Some(value.len() as u64),
                    value_length_max,
                ));
            }
            let metadata = if content_type.is_none() && metadata.is_empty() {
                Metadata::default()
            } else {
                let pairs = metadata
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                let content_type = content_type.map(std::borrow::Cow::into_owned);
                Metadata::new(content_type.unwrap_or_default(), pairs)?
            };
            WriteKind::Put {
                metadata,
                value: shared(value),
            }
        }
    };
    Ok(Write {
        key: shared(operation.key),
        kind,
        condition: Condition::None,
        idempotency_key,
        author: Bytes::new(),
    })
}
