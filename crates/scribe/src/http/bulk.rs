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

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesOrdered, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use scribe_client::code::ErrorCode;
use scribe_client::wire::{
    BulkChange, BulkDone, BulkLine, BulkOperation, BulkReply, BulkResult, Problem,
};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{Leaf, Metadata};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::body::{ReplyBody, next_data};
use super::connection::Watch;
use super::convert;
use super::error::ApiError;
use super::request::{self, Query, Wait};
use super::{App, headers, key_path};
use crate::error::AppendError;
use crate::limits;
use crate::node::Node;
use crate::sequencer::{Appended, Condition, Write, WriteKind};

/// Groups of one upload handed to the node and not yet answered.
const GROUPS_IN_FLIGHT_MAX: usize = 4;
/// Undelivered result lines kept as text; beyond it successes are kept as runs.
const RESULT_TEXT_MAX: usize = 4 * limits::MIB;
/// Undelivered results kept in any form; beyond it (all failures, say) the upload waits for its reader.
const RESULT_BYTES_MAX: usize = 64 * limits::MIB;
/// What a run is counted as.
const RUN_BYTES: usize = 64;
/// Entries read at once to make the lines of a run again.
const RUN_STEP: usize = 512;
/// What is still read and thrown away of an upload that was stopped, so that its sender gets to read why.
const DISCARD_BYTES_MAX: usize = 256 * limits::MIB;
/// How long it is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// `POST /v1/entries`
pub(super) async fn upload(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    request::refuse_encoding(request.headers())?;
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
    let reader = ResultReader { results, node };
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
            if !group.is_empty() && ready && in_flight.len() < GROUPS_IN_FLIGHT_MAX {
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

type Outcomes = Vec<(u64, Result<Appended, ApiError>)>;

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
fn write_of(
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

/// Cuts a body into lines.
struct LineReader {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to have no newline.
    searched: usize,
    /// Number of the last line taken; the first line is 1.
    number: u64,
}

impl LineReader {
    fn new(body: Body) -> LineReader {
        LineReader {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            number: 0,
        }
    }

    /// The next complete line without its newline; at the end of the body also what has none.
    fn take(&mut self, ended: bool) -> Option<Bytes> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let line = match found {
            Some(place) => {
                let mut line = self.buffer.split_to(self.searched + place + 1);
                line.truncate(line.len() - 1);
                line
            }
            None if ended && !self.buffer.is_empty() => self.buffer.split(),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        self.searched = 0;
        self.number += 1;
        Some(line.freeze())
    }

    /// Reads some more; `false` at the end of the body. Dropping the future loses nothing.
    async fn more(&mut self) -> Result<bool, ApiError> {
        if self.buffer.len() > limits::BULK_LINE_LENGTH_MAX {
            return Err(ApiError::new(
                ErrorCode::MalformedLine,
                format!(
                    "line {} is longer than the {} bytes allowed",
                    self.number + 1,
                    limits::BULK_LINE_LENGTH_MAX
                ),
            ));
        }
        let wait = Duration::from_millis(limits::BULK_IDLE_TIMEOUT_MS);
        match tokio::time::timeout(wait, next_data(&mut self.body)).await {
            Ok(Ok(Some(data))) => {
                self.buffer.extend_from_slice(&data);
                Ok(true)
            }
            Ok(Ok(None)) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::new(
                ErrorCode::RequestTimeout,
                format!("no line came for {} ms", limits::BULK_IDLE_TIMEOUT_MS),
            )),
        }
    }

    /// Reads and throws away.
    async fn discard(&mut self) {
        self.buffer = BytesMut::new();
        let mut discarded = 0;
        while let Ok(Some(data)) = next_data(&mut self.body).await {
            discarded += data.len();
            if discarded > DISCARD_BYTES_MAX {
                break;
            }
        }
    }
}

/// Results on their way from the upload to its reader.
#[derive(Default)]
struct Results {
    state: Mutex<ResultState>,
    /// There is something to read, or the end.
    readable: Notify,
    /// There is room, or no reader.
    writable: Notify,
}

#[derive(Default)]
struct ResultState {
    chunks: VecDeque<Chunk>,
    byte_length: usize,
    closed: bool,
    cut_off: bool,
    reader_gone: bool,
}

enum Chunk {
    /// Result lines as they are sent.
    Text(Bytes),
    /// Successes on consecutive lines with consecutive indexes.
    Run { line: u64, index: u64, count: u64 },
}

impl Chunk {
    fn byte_length(&self) -> usize {
        match self {
            Chunk::Text(text) => text.len(),
            Chunk::Run { .. } => RUN_BYTES,
        }
    }
}

impl Results {
    /// Adds results, waiting for the reader only if even their short form is too much. `false` if there is no reader.
    async fn push(&self, outcomes: Outcomes) -> bool {
        loop {
            let writable = self.writable.notified();
            {
                let state = self.state.lock();
                if state.reader_gone {
                    return false;
                }
                if state.byte_length < RESULT_BYTES_MAX {
                    break;
                }
            }
            writable.await;
        }
        let as_text = self.state.lock().byte_length < RESULT_TEXT_MAX;
        let mut chunks = Vec::new();
        let mut text = Vec::with_capacity(if as_text { outcomes.len() * 160 } else { 0 });
        let mut run: Option<(u64, u64, u64)> = None;
        for (line, outcome) in outcomes {
            if !as_text
                && let Ok(appended) = &outcome
                && can_be_made_again(appended)
            {
                let index = appended.index.get();
                run = match run {
                    Some((first_line, first, count))
                        if first_line + count == line && first + count == index =>
                    {
                        Some((first_line, first, count + 1))
                    }
                    before => {
                        flush_text(&mut chunks, &mut text);
                        flush_run(&mut chunks, before);
                        Some((line, index, 1))
                    }
                };
                continue;
            }
            flush_run(&mut chunks, run.take());
            write_result(&mut text, line, outcome);
        }
        flush_run(&mut chunks, run);
        flush_text(&mut chunks, &mut text);
        let mut state = self.state.lock();
        for chunk in chunks {
            state.add(chunk);
        }
        drop(state);
        self.readable.notify_one();
        true
    }

    fn push_text(&self, text: Vec<u8>) {
        self.state.lock().add(Chunk::Text(Bytes::from(text)));
        self.readable.notify_one();
    }

    fn close(&self, cut_off: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.cut_off = cut_off;
        drop(state);
        self.readable.notify_one();
    }
}

impl ResultState {
    fn add(&mut self, chunk: Chunk) {
        if let (
            Some(Chunk::Run { line, index, count }),
            Chunk::Run {
                line: next_line,
                index: next_index,
                count: more,
            },
        ) = (self.chunks.back_mut(), &chunk)
            && *line + *count == *next_line
            && *index + *count == *next_index
        {
            *count += more;
            return;
        }
        self.byte_length += chunk.byte_length();
        self.chunks.push_back(chunk);
    }
}

/// Whether a success follows from its entry alone.
fn can_be_made_again(appended: &Appended) -> bool {
    !appended.replayed && appended.tree_size == appended.index.tree_size()
}

fn flush_text(chunks: &mut Vec<Chunk>, text: &mut Vec<u8>) {
    if !text.is_empty() {
        chunks.push(Chunk::Text(Bytes::from(std::mem::take(text))));
    }
}

fn flush_run(chunks: &mut Vec<Chunk>, run: Option<(u64, u64, u64)>) {
    if let Some((line, index, count)) = run {
        chunks.push(Chunk::Run { line, index, count });
    }
}

fn write_result(out: &mut Vec<u8>, line: u64, outcome: Result<Appended, ApiError>) {
    match outcome {
        Ok(appended) => {
            out.extend_from_slice(b"{\"line\":");
            convert::write_number(out, line);
            out.push(b',');
            convert::write_appended_members(out, &appended);
            out.extend_from_slice(b"}\n");
        }
        Err(error) => {
            let problem: Box<Problem> = Box::new(error.into_problem());
            BulkReply::Result(BulkResult {
                line,
                outcome: Err(problem),
            })
            .write_line(out);
        }
    }
}

/// The reply's side of [`Results`].
struct ResultReader {
    results: Arc<Results>,
    node: Node,
}

impl Drop for ResultReader {
    fn drop(&mut self) {
        self.results.state.lock().reader_gone = true;
        self.results.writable.notify_one();
    }
}

impl ResultReader {
    async fn next(self) -> Option<(Result<Bytes, std::io::Error>, ResultReader)> {
        loop {
            let results = Arc::clone(&self.results);
            let readable = results.readable.notified();
            let chunk = {
                let mut state = self.results.state.lock();
                match state.chunks.pop_front() {
                    Some(chunk) => {
                        state.byte_length -= chunk.byte_length();
                        Some(chunk)
                    }
                    None if state.closed && !state.cut_off => return None,
                    None if state.closed => {
                        // An error, not an end: the connection must not look as if the answer were complete.
                        state.cut_off = false;
                        drop(state);
                        let error = std::io::Error::other("the upload was cut off");
                        return Some((Err(error), self));
                    }
                    None => None,
                }
            };
            match chunk {
                None => readable.await,
                Some(Chunk::Text(text)) => {
                    self.results.writable.notify_one();
                    return Some((Ok(text), self));
                }
                Some(Chunk::Run { line, index, count }) => {
                    self.results.writable.notify_one();
                    let made = self.lines_of_run(line, index, count).await;
                    return Some((made, self));
                }
            }
        }
    }

    /// Makes the first lines of a run again from the ledger and puts the rest back.
    async fn lines_of_run(
        &self,
        line: u64,
        index: u64,
        count: u64,
    ) -> Result<Bytes, std::io::Error> {
        let node = self.node.clone();
        let wanted = usize::try_from(count).unwrap_or(RUN_STEP).min(RUN_STEP);
        let made = tokio::task::spawn_blocking(move || {
            let entries =
                node.entries(LeafIndex::new(index), wanted, limits::FRAME_BYTES_TARGET)?;
            let mut text = Vec::with_capacity(entries.len() * 160);
            let mut taken = 0;
            for entry in entries.iter().take(wanted) {
                let Ok(leaf) = Leaf::parse(&entry.leaf) else {
                    break;
                };
                let appended = Appended {
                    index: entry.index,
                    timestamp_ms: leaf.timestamp_ms,
                    leaf_hash: entry.leaf_hash(),
                    tree_size: entry.index.tree_size(),
                    replayed: false,
                };
                write_result(&mut text, line + taken, Ok(appended));
                taken += 1;
            }
            Ok::<_, crate::error::ReadError>((text, taken))
        })
        .await;
        match made {
            Ok(Ok((text, taken))) if taken > 0 => {
                if taken < count {
                    let rest = Chunk::Run {
                        line: line + taken,
                        index: index + taken,
                        count: count - taken,
                    };
                    let mut state = self.results.state.lock();
                    state.byte_length += rest.byte_length();
                    state.chunks.push_front(rest);
                }
                Ok(Bytes::from(text))
            }
            Ok(Ok(_)) => Err(std::io::Error::other("an appended entry cannot be read")),
            Ok(Err(error)) => Err(std::io::Error::other(error)),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scribe_proof::hash::Hash;
    use scribe_proof::index::TreeSize;

    fn success(line: u64, index: u64) -> (u64, Result<Appended, ApiError>) {
        let appended = Appended {
            index: LeafIndex::new(index),
            timestamp_ms: 5,
            leaf_hash: Hash([1; 32]),
            tree_size: TreeSize::new(index + 1),
            replayed: false,
        };
        (line, Ok(appended))
    }

    #[tokio::test]
    async fn results_nobody_reads_shrink_to_runs() {
        let results = Results::default();
        let mut line = 1;
        while results.state.lock().byte_length < RESULT_TEXT_MAX {
            assert!(
                results
                    .push((line..line + 1_000).map(|n| success(n, n + 10)).collect())
                    .await
            );
            line += 1_000;
        }
        let texts = results.state.lock().chunks.len();
        let before = results.state.lock().byte_length;
        for _ in 0..1_000 {
            assert!(
                results
                    .push((line..line + 1_000).map(|n| success(n, n + 10)).collect())
                    .await
            );
            line += 1_000;
        }
        // A million more lines are one run.
        assert_eq!(results.state.lock().chunks.len(), texts + 1);
        assert_eq!(results.state.lock().byte_length, before + RUN_BYTES);
        // A gap in the indexes, or an error, starts another.
        results.push(vec![success(line, line + 500)]).await;
        results
            .push(vec![(line + 1, Err(ApiError::not_found("x")))])
            .await;
        results.push(vec![success(line + 2, line + 502)]).await;
        assert_eq!(results.state.lock().chunks.len(), texts + 4);
    }

    #[tokio::test]
    async fn lines_are_cut_wherever_the_pieces_end() {
        let pieces: Vec<Result<&'static str, std::io::Error>> =
            vec![Ok("a"), Ok("b\n\nc"), Ok("\n"), Ok("\nlast")];
        let mut lines = LineReader::new(Body::from_stream(futures::stream::iter(pieces)));
        let mut found = Vec::new();
        let mut ended = false;
        loop {
            while let Some(line) = lines.take(ended) {
                found.push((lines.number, line));
            }
            if ended {
                break;
            }
            ended = !lines.more().await.unwrap();
        }
        let expected = [(1, "ab"), (2, ""), (3, "c"), (4, ""), (5, "last")];
        assert_eq!(
            found,
            expected.map(|(number, line)| (number, Bytes::from(line)))
        );
    }
}
