//! `/v1/keys/{key}` and below: put, get, delete, history, receipt.
//!
//! Put and get are the hot routes. They are reached without the router, read their headers in one pass, answer with
//! bytes that were written by hand or come straight from the store, and box nothing.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use scribe_client::wire::{self, HEADER_META_PREFIX};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;

use super::App;
use super::body::{ReplyBody, read_body};
use super::connection::Watch;
use super::convert;
use super::cursor::HistoryCursor;
use super::error::{ApiError, json_reply};
use super::headers;
use super::key_path::{self, KeyResource};
use super::metrics::Route;
use super::range::{self, ByteRange};
use super::request::{self, Query, Wait, WriteHeaders};
use crate::limits;
use crate::node::Entry;
use crate::sequencer::{Appended, Write, WriteKind};

/// Answers a request whose path is [`key_path::KEYS_PREFIX`] and `rest`.
pub(super) async fn answer(
    app: &App,
    watch: &Watch,
    request: Request<Incoming>,
) -> (Route, Result<Response<ReplyBody>, ApiError>) {
    let (mut parts, mut body) = request.into_parts();
    let rest = parts
        .uri
        .path()
        .strip_prefix(key_path::KEYS_PREFIX)
        .unwrap_or_default();
    let (segment, resource) = match key_path::split(rest) {
        Ok(split) => split,
        Err(error) => return (Route::Other, Err(error)),
    };
    let query = parts.uri.query();
    match resource {
        KeyResource::Value => match parts.method {
            Method::GET | Method::HEAD => (
                Route::Get,
                get(app, segment, query, &mut parts.headers).await,
            ),
            Method::PUT => (
                Route::Put,
                put(app, watch, segment, query, &mut parts.headers, &mut body).await,
            ),
            Method::DELETE => (
                Route::Delete,
                Box::pin(delete(
                    app,
                    watch,
                    segment,
                    query,
                    &mut parts.headers,
                    &mut body,
                ))
                .await,
            ),
            ref method => (
                Route::Other,
                Err(ApiError::method_not_allowed(
                    method,
                    "GET, HEAD, PUT, DELETE",
                )),
            ),
        },
        KeyResource::History => match parts.method {
            Method::GET | Method::HEAD => (
                Route::History,
                Box::pin(history(app, segment, query, &parts.headers)).await,
            ),
            ref method => (
                Route::Other,
                Err(ApiError::method_not_allowed(method, "GET, HEAD")),
            ),
        },
        KeyResource::Receipt => match parts.method {
            Method::GET | Method::HEAD => (
                Route::Receipt,
                Box::pin(receipt(app, segment, query, &parts.headers)).await,
            ),
            ref method => (
                Route::Other,
                Err(ApiError::method_not_allowed(method, "GET, HEAD")),
            ),
        },
    }
}

async fn put(
    app: &App,
    watch: &Watch,
    segment: &str,
    query: Option<&str>,
    fields: &mut HeaderMap,
    body: &mut Incoming,
) -> Result<Response<ReplyBody>, ApiError> {
    // All that can be refused without the body is refused before it is read.
    let query = Query::parse(query, &["key_encoding", "wait"]);
    let checked = query.and_then(|query| {
        let wait = query.wait()?;
        let key = key_path::decode(segment, query.key_encoding()?)?;
        Ok((key, wait, WriteHeaders::parse(fields)?))
    });
    let (key, wait, write) = checked.map_err(ApiError::leaving_request_unread)?;
    let limit = app.options.value_length_max;
    let value = read_body(body, limit, &app.budget, watch, |found| {
        ApiError::value_too_large(found, limit)
    })
    .await?;
    let appended = app
        .node
        .append(Write {
            key,
            kind: WriteKind::Put {
                metadata: write.metadata,
                value: value.bytes.clone(),
            },
            condition: write.condition,
            idempotency_key: write.idempotency_key,
            author: Bytes::new(),
        })
        .await
        .map_err(|error| ApiError::from_append(error, false))?;
    drop(value);
    if wait == Wait::Published {
        wait_published(app, appended.tree_size, appended.index).await?;
    }
    Ok(appended_reply(&appended, recycled(fields)))
}

async fn delete(
    app: &App,
    watch: &Watch,
    segment: &str,
    query: Option<&str>,
    fields: &mut HeaderMap,
    body: &mut Incoming,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(query, &["key_encoding", "wait"])?;
    let wait = query.wait()?;
    let key = key_path::decode(segment, query.key_encoding()?)?;
    let write = WriteHeaders::parse(fields)?;
    if !write.metadata.pairs.is_empty() {
        return Err(ApiError::invalid_argument(
            "a delete carries no metadata, found Scribe-Meta headers",
        ));
    }
    read_body(body, 0, &app.budget, watch, |found| {
        let found = found.map_or_else(|| "one".to_owned(), |found| format!("{found} bytes"));
        ApiError::invalid_argument(format!("a delete takes no body, found {found}"))
    })
    .await?;
    let appended = app
        .node
        .append(Write {
            key,
            kind: WriteKind::Delete,
            condition: write.condition,
            idempotency_key: write.idempotency_key,
            author: Bytes::new(),
        })
        .await
        .map_err(|error| ApiError::from_append(error, false))?;
    if wait == Wait::Published {
        wait_published(app, appended.tree_size, appended.index).await?;
    }
    // A tombstone is an entry like any other: the answer is the same as to a put.
    Ok(appended_reply(&appended, recycled(fields)))
}

/// The request's header map, emptied for the reply. hyper in turn reads the next request's headers into the reply's map,
/// so that a connection at work allocates none.
fn recycled(fields: &mut HeaderMap) -> HeaderMap {
    let mut map = std::mem::take(fields);
    map.clear();
    map
}

fn appended_reply(appended: &Appended, map: HeaderMap) -> Response<ReplyBody> {
    let mut json = Vec::with_capacity(192);
    convert::write_appended(&mut json, appended);
    let mut reply = Response::new(ReplyBody::full(json));
    *reply.status_mut() = StatusCode::CREATED;
    *reply.headers_mut() = map;
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::JSON);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    fields.insert(ETAG, etag(appended.index));
    if appended.replayed {
        fields.insert(headers::SCRIBE_REPLAYED, headers::TRUE);
    }
    reply
}

/// Waits until a checkpoint covers a write that is already durable.
///
/// # Errors
/// None in time: the refusal says that the entry is safe, and where it is.
pub(super) async fn wait_published(
    app: &App,
    size: TreeSize,
    index: LeafIndex,
) -> Result<(), ApiError> {
    match app.node.publish(size).await {
        Ok(_) => Ok(()),
        Err(error) => Err(ApiError::not_published(
            format!("the entry was appended at index {index}, but: {error}"),
            Some(index.get()),
        )
        .hint("the entry is safe; read its receipt later, or retry with the same Idempotency-Key")),
    }
}

async fn get(
    app: &App,
    segment: &str,
    query: Option<&str>,
    fields: &mut HeaderMap,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(query, &["key_encoding", "index", "at", "consistency"])?;
    let key = key_path::decode(segment, query.key_encoding()?)?;
    let (entry, size) = find(app, &key, &query, fields).await?;
    if let Some(value) = fields.get(IF_MATCH)
        && value.as_bytes() != b"*"
        && request::parse_if_match(value)? != entry.index
    {
        return Err(ApiError::condition_failed(Some(entry.index.get()), false));
    }
    if request::none_match_names(fields, entry.index) {
        let mut reply = Response::new(ReplyBody::empty());
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        *reply.headers_mut() = recycled(fields);
        entry_headers(reply.headers_mut(), &entry, size)?;
        return Ok(reply);
    }
    let value = entry.value();
    let range = match fields.get(RANGE) {
        Some(asked) if if_range_holds(fields, entry.index) => range::parse(asked, value.len()),
        _ => ByteRange::Whole,
    };
    let (status, slice) = match range {
        ByteRange::Whole => (StatusCode::OK, value.clone()),
        ByteRange::Part { start, end } => (StatusCode::PARTIAL_CONTENT, value.slice(start..end)),
        ByteRange::Unsatisfiable => return Err(ApiError::range_not_satisfiable(value.len())),
    };
    let mut reply = Response::new(ReplyBody::full(slice));
    *reply.status_mut() = status;
    *reply.headers_mut() = recycled(fields);
    let fields = reply.headers_mut();
    entry_headers(fields, &entry, size)?;
    value_headers(fields, &entry)?;
    if let ByteRange::Part { start, end } = range
        && let Ok(text) =
            HeaderValue::from_str(&format!("bytes {start}-{}/{}", end - 1, value.len()))
    {
        fields.insert(CONTENT_RANGE, text);
    }
    Ok(reply)
}

/// The version a request names, and the tree size it was read at.
async fn find(
    app: &App,
    key: &Bytes,
    query: &Query<'_>,
    fields: &HeaderMap,
) -> Result<(Entry, TreeSize), ApiError> {
    let index = query.number("index")?.map(LeafIndex::new);
    let at = query.at()?;
    if index.is_some() && at.is_some() {
        return Err(ApiError::invalid_argument(
            "index and at are both given, allowed is one of them",
        ));
    }
    let consistency = query.consistency()?;
    let applied = app.node.applied_size();
    let size = match index {
        // A version never changes: what is applied here needs no majority.
        Some(index) if applied.contains(index) && !request::has_min_index(fields) => applied,
        _ => request::read_size(app, at, consistency, fields).await?,
    };
    let entry = match index {
        None => app.node.latest(key, size)?,
        Some(index) if !size.contains(index) => {
            return Err(ApiError::future(
                format!("index {index} was asked for, the ledger has {size} entries"),
                size.get(),
            ));
        }
        Some(index) => {
            let version = app.node.version(key, index)?;
            let Some(version) = version else {
                return Err(ApiError::not_found(format!(
                    "the entry at index {index} is not a version of this key"
                ))
                .hint("the key's history lists its versions"));
            };
            Some(version)
        }
    };
    match entry {
        None => Err(ApiError::not_found("the key has no version")),
        Some(entry) if entry.parsed()?.kind == LeafKind::Delete => {
            Err(ApiError::deleted(entry.index.get()))
        }
        Some(entry) => Ok((entry, size)),
    }
}

fn etag(index: LeafIndex) -> HeaderValue {
    let mut text = Vec::with_capacity(22);
    text.push(b'"');
    convert::write_number(&mut text, index.get());
    text.push(b'"');
    // Digits in quotes are a valid header value.
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("\"\""))
}

fn entry_headers(fields: &mut HeaderMap, entry: &Entry, size: TreeSize) -> Result<(), ApiError> {
    let timestamp_ms = entry.parsed()?.timestamp_ms;
    let mut hash = Vec::with_capacity(64);
    convert::write_hex(&mut hash, &entry.leaf_hash());
    fields.insert(ETAG, etag(entry.index));
    fields.insert(headers::SCRIBE_INDEX, HeaderValue::from(entry.index.get()));
    fields.insert(headers::SCRIBE_TIMESTAMP, HeaderValue::from(timestamp_ms));
    if let Ok(hash) = HeaderValue::from_maybe_shared(Bytes::from(hash)) {
        fields.insert(headers::SCRIBE_LEAF_HASH, hash);
    }
    fields.insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size.get()));
    fields.insert(CACHE_CONTROL, headers::NO_CACHE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    fields.insert(headers::CONTENT_SECURITY_POLICY, headers::SANDBOX);
    Ok(())
}

fn value_headers(fields: &mut HeaderMap, entry: &Entry) -> Result<(), ApiError> {
    let metadata = entry.metadata()?;
    let content_type = if metadata.content_type.is_empty() {
        None
    } else {
        HeaderValue::from_bytes(metadata.content_type.as_bytes()).ok()
    };
    fields.insert(CONTENT_TYPE, content_type.unwrap_or(headers::OCTET_STREAM));
    fields.insert(ACCEPT_RANGES, headers::BYTES);
    for (name, value) in &metadata.pairs {
        let name = format!("{HEADER_META_PREFIX}{name}");
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            fields.append(name, value);
        }
    }
    Ok(())
}

/// `If-Range`: the range counts only for the version it was meant for (RFC 9110, 13.1.5: strong comparison).
fn if_range_holds(fields: &HeaderMap, index: LeafIndex) -> bool {
    fields
        .get(IF_RANGE)
        .is_none_or(|value| request::strong_tag(value.as_bytes()) == Some(index))
}

async fn history(
    app: &App,
    segment: &str,
    query: Option<&str>,
    fields: &HeaderMap,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(
        query,
        &["key_encoding", "limit", "cursor", "at", "consistency"],
    )?;
    let key = key_path::decode(segment, query.key_encoding()?)?;
    let limit = query.limit()?;
    let cursor = query
        .text("cursor")?
        .map(HistoryCursor::parse)
        .transpose()?;
    let size = request::read_size(app, query.at()?, query.consistency()?, fields).await?;
    let below = cursor.map_or(size, |cursor| cursor.below.min(size));
    let node = app.node.clone();
    let (versions, more) =
        tokio::task::spawn_blocking(move || versions_below(&node, &key, below, limit))
            .await
            .map_err(ApiError::task_failed)??;
    if versions.is_empty() && cursor.is_none() {
        return Err(ApiError::not_found("the key has no version"));
    }
    let next = match versions.last() {
        Some(last) if more => Some(
            HistoryCursor {
                below: TreeSize::new(last.index),
            }
            .encode(),
        ),
        _ => None,
    };
    let mut reply = json_reply(&wire::History { versions, next });
    reply
        .headers_mut()
        .insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size.get()));
    Ok(reply)
}

/// Up to `limit` versions, newest first, and whether there are more. Loads a few at a time: a version is listed without
/// its value, and a thousand values of 8 MiB must not be in memory at once for it.
fn versions_below(
    node: &crate::node::Node,
    key: &[u8],
    mut below: TreeSize,
    limit: usize,
) -> Result<(Vec<wire::Version>, bool), ApiError> {
    let mut versions = Vec::new();
    let mut step = 16;
    // One more than asked for tells whether there is a next page.
    while versions.len() <= limit {
        let wanted = step.min(limit + 1 - versions.len());
        let entries = node.history(key, below, wanted)?;
        let Some(last) = entries.last() else { break };
        below = TreeSize::new(last.index.get());
        let bytes: usize = entries.iter().map(|entry| entry.value().len()).sum();
        let found = entries.len();
        versions.extend(entries.iter().map(convert::version));
        if found < wanted {
            break;
        }
        step = (limits::PAGE_BYTES_MAX / (bytes / found).max(1)).clamp(1, 256);
    }
    let more = versions.len() > limit;
    versions.truncate(limit);
    Ok((versions, more))
}

async fn receipt(
    app: &App,
    segment: &str,
    query: Option<&str>,
    fields: &HeaderMap,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(query, &["key_encoding", "index", "at", "consistency"])?;
    let key = key_path::decode(segment, query.key_encoding()?)?;
    let entry = match find_any(app, &key, &query, fields).await? {
        Some(entry) => entry,
        None => return Err(ApiError::not_found("the key has no version")),
    };
    receipt_of(app, entry).await
}

/// As [`find`], but a tombstone is an answer: a receipt for it proves the deletion.
async fn find_any(
    app: &App,
    key: &Bytes,
    query: &Query<'_>,
    fields: &HeaderMap,
) -> Result<Option<Entry>, ApiError> {
    match find(app, key, query, fields).await {
        Ok((entry, _)) => Ok(Some(entry)),
        Err(error) => match error.deleted_index() {
            Some(index) => Ok(app.node.version(key, LeafIndex::new(index))?),
            None => Err(error),
        },
    }
}

async fn receipt_of(app: &App, entry: Entry) -> Result<Response<ReplyBody>, ApiError> {
    let published = match app.node.checkpoint_covering(entry.index.tree_size()) {
        Some(published) => published,
        None => app
            .node
            .publish(entry.index.tree_size())
            .await
            .map_err(|error| {
                ApiError::not_published(
                    format!("the entry at index {} is safe, but: {error}", entry.index),
                    Some(entry.index.get()),
                )
            })?,
    };
    let (index, size) = (entry.index, published.size);
    // Mostly from memory: another thread is asked only where a disk may have to be.
    let receipt = match app.node.receipt_in_memory(&entry, &published)? {
        Some(receipt) => receipt,
        None => {
            let node = app.node.clone();
            app.read_tiles(move || node.receipt(&entry, &published))
                .await??
        }
    };
    let text = receipt.to_text();
    let mut reply = Response::new(ReplyBody::full(text));
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::NOTE);
    fields.insert(headers::SCRIBE_INDEX, HeaderValue::from(index.get()));
    fields.insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size.get()));
    fields.insert(CACHE_CONTROL, headers::NO_CACHE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    if let Ok(name) =
        HeaderValue::from_str(&format!("inline; filename=\"entry-{index}.tlog-proof\""))
    {
        fields.insert(CONTENT_DISPOSITION, name);
    }
    Ok(reply)
}
