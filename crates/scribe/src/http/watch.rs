//! `GET /v1/watch`: entries as server-sent events, as they are appended.
//!
//! The event's id is the leaf index, so a client that reconnects with `Last-Event-ID` misses nothing and sees nothing
//! twice. The stream reads the ledger at the pace of its client: a slow one costs a page in memory, never a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, Response};
use scribe_client::code::ErrorCode;
use scribe_client::wire::{EVENT_ENTRY, EVENT_ERROR, EVENT_PROGRESS, WatchProgress};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::body::ReplyBody;
use super::convert::{self, View};
use super::error::ApiError;
use super::request::{self, Query};
use super::{App, headers};
use crate::limits;
use crate::node::{Applied, Entry};

/// Entries read at once.
const PAGE_ENTRIES: usize = 256;
/// Bytes read at once.
const PAGE_BYTES: usize = limits::MIB;
/// A comment after this much silence keeps proxies from closing the connection, and notices a client that is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Progress of a filtered watch is told at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// `GET /v1/watch`
pub(super) async fn watch(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["from", "prefix", "key_encoding"])?;
    let prefix = query
        .key_part("prefix", query.key_encoding()?)?
        .filter(|prefix| !prefix.is_empty());
    let from = match last_event_id(request.headers())? {
        // A browser reconnects to the same address with the last id it saw, which then counts for more.
        Some(last) => Some(last.next()),
        None => query.number("from")?.map(LeafIndex::new),
    };
    let from = match from {
        None => app.node.barrier().await?.next_index(),
        Some(from) if from.get() <= app.node.applied_size().get() => from,
        Some(from) => {
            let newest = app.node.barrier().await?;
            if from.get() > newest.get() {
                return Err(ApiError::future(
                    format!("from is {from}, the ledger has {newest} entries"),
                    newest.get(),
                ));
            }
            from
        }
    };
    let Ok(permit) = Arc::clone(&app.watchers).try_acquire_owned() else {
        return Err(ApiError::overloaded(
            format!(
                "{} watchers are connected, which is the most",
                limits::WATCHERS_MAX
            ),
            1_000,
        ));
    };
    app.metrics.watchers.fetch_add(1, Relaxed);
    let watcher = Watcher {
        applied: app.node.watch_applied(),
        app,
        next: from,
        told: from,
        prefix,
        last_event: Instant::now(),
        greeted: false,
        ended: false,
        _permit: permit,
    };
    let stream = futures::stream::unfold(watcher, Watcher::next);
    let mut reply = Response::new(ReplyBody::streamed(Body::from_stream(stream)));
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::EVENT_STREAM);
    fields.insert(CACHE_CONTROL, headers::NO_STORE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    Ok(reply)
}

fn last_event_id(fields: &HeaderMap) -> Result<Option<LeafIndex>, ApiError> {
    match fields.get(headers::LAST_EVENT_ID) {
        None => Ok(None),
        // What a browser sends before it has seen an event.
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => {
            let text = value.to_str().unwrap_or("?");
            request::parse_number("Last-Event-ID", text).map(|index| Some(LeafIndex::new(index)))
        }
    }
}

struct Watcher {
    app: App,
    applied: watch::Receiver<Applied>,
    /// The first entry not yet looked at.
    next: LeafIndex,
    /// The client knows that everything below was looked at.
    told: LeafIndex,
    prefix: Option<Bytes>,
    last_event: Instant,
    greeted: bool,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.app.metrics.watchers.fetch_sub(1, Relaxed);
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Watcher)> {
        let text = self.text().await?;
        Some((Ok(Bytes::from(text)), self))
    }

    /// The next piece of the stream; `None` at its end.
    async fn text(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            // How long a browser waits before it reconnects; also makes the head leave at once.
            return Some(b"retry: 1000\n\n".to_vec());
        }
        loop {
            if self.app.stopping.is_cancelled() {
                return None;
            }
            let size = self.applied.borrow_and_update().tree_size;
            if size.contains(self.next) {
                match self.page(size).await {
                    Ok(text) if text.is_empty() => continue,
                    Ok(text) => {
                        self.last_event = Instant::now();
                        return Some(text);
                    }
                    Err(error) => {
                        self.ended = true;
                        return Some(error_event(error));
                    }
                }
            }
            let owes_progress = self.told < self.next;
            let patience = if owes_progress {
                PROGRESS_INTERVAL
            } else {
                HEARTBEAT
            };
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() {
                    return None;
                },
                () = self.app.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.last_event + patience) => {
                    self.last_event = Instant::now();
                    let mut text = Vec::new();
                    if owes_progress {
                        self.write_progress(&mut text);
                    } else {
                        text.extend_from_slice(b": heartbeat\n\n");
                    }
                    return Some(text);
                }
            }
        }
    }

    /// The events of the next page of entries; possibly none, if none matches.
    async fn page(&mut self, size: TreeSize) -> Result<Vec<u8>, ApiError> {
        let node = self.app.node.clone();
        let from = self.next;
        let left = usize::try_from(size.get() - from.get()).unwrap_or(PAGE_ENTRIES);
        let limit = left.min(PAGE_ENTRIES);
        let prefix = self.prefix.clone();
        let read = move || -> Result<Page, ApiError> {
            let entries = node.entries(from, limit, PAGE_BYTES)?;
            let mut text = Vec::new();
            let mut matched = None;
            for entry in &entries {
                if matches(entry, prefix.as_deref()) {
                    write_entry(&mut text, entry);
                    matched = Some(entry.index);
                }
            }
            Ok(Page {
                text,
                last: entries.last().map(|entry| entry.index),
                matched,
            })
        };
        // A handful of entries that were just appended are in memory: not worth a hop to another thread.
        let Page {
            mut text,
            last,
            matched,
        } = if limit <= 16 {
            read()?
        } else {
            tokio::task::spawn_blocking(read)
                .await
                .map_err(ApiError::task_failed)??
        };
        let Some(last) = last else {
            return Err(ApiError::new(
                ErrorCode::Damaged,
                format!("the entry at index {from} cannot be read"),
            ));
        };
        self.next = last.next();
        if let Some(matched) = matched {
            self.told = matched.next();
        }
        if self.told < self.next && self.last_event.elapsed() >= PROGRESS_INTERVAL {
            self.write_progress(&mut text);
        }
        Ok(text)
    }

    fn write_progress(&mut self, text: &mut Vec<u8>) {
        let Some(last) = TreeSize::new(self.next.get()).last_index() else {
            return;
        };
        self.told = self.next;
        let json = serde_json::to_vec(&WatchProgress { index: last.get() }).unwrap_or_default();
        write_event(text, EVENT_PROGRESS, Some(last), &json);
    }
}

/// What one read of the ledger gave.
struct Page {
    text: Vec<u8>,
    /// The last entry looked at.
    last: Option<LeafIndex>,
    /// The last one that matched.
    matched: Option<LeafIndex>,
}

fn matches(entry: &Entry, prefix: Option<&[u8]>) -> bool {
    let Some(prefix) = prefix else { return true };
    Leaf::parse(&entry.leaf)
        .is_ok_and(|leaf| leaf.kind != LeafKind::System && leaf.key.starts_with(prefix))
}

fn write_entry(text: &mut Vec<u8>, entry: &Entry) {
    let view = View {
        raw: false,
        value_length_max: limits::WATCH_VALUE_LENGTH_MAX,
    };
    let json = serde_json::to_vec(&convert::entry(entry, view)).unwrap_or_default();
    write_event(text, EVENT_ENTRY, Some(entry.index), &json);
}

fn error_event(error: ApiError) -> Vec<u8> {
    let mut text = Vec::new();
    let json = serde_json::to_vec(&error.into_problem()).unwrap_or_default();
    write_event(&mut text, EVENT_ERROR, None, &json);
    text
}

/// JSON has no bare newlines, so one `data` line holds it.
fn write_event(text: &mut Vec<u8>, name: &str, id: Option<LeafIndex>, json: &[u8]) {
    if let Some(id) = id {
        text.extend_from_slice(b"id: ");
        convert::write_number(text, id.get());
        text.push(b'\n');
    }
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(json);
    text.extend_from_slice(b"\n\n");
}
