//! `POST /v1/transactions`, `POST /v1/keys:get` and `GET /v1/keys`: many keys at once.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use scribe_client::code::ErrorCode;
use scribe_client::wire::bytes::to_members;
use scribe_client::wire::{self, KeyEntry, KeyList, KeyVersion, KeysGetResponse};
use scribe_proof::index::TreeSize;
use scribe_proof::leaf::LeafKind;

use super::body::{ReadBody, ReplyBody, read_body};
use super::connection::Watch;
use super::convert::{self, View};
use super::cursor::KeysCursor;
use super::error::{ApiError, bad_json, json_bytes, json_reply};
use super::keys::wait_published;
use super::request::{self, Query, Wait};
use super::{App, headers};
use crate::limits;
use crate::node::Node;
use crate::sequencer::Transaction;

/// Keys looked at for one page of a listing: deleted keys are skipped, and a page must end even among many of them.
const SCAN_KEYS_MAX: usize = 20_000;

/// Reads the JSON body of a router's request.
///
/// # Errors
/// Encoded, too large, or broken.
pub(super) async fn read_json(app: &App, request: Request) -> Result<ReadBody, ApiError> {
    request::refuse_encoding(request.headers())?;
    let (parts, mut body): (_, Body) = request.into_parts();
    let watch = parts.extensions.get::<Arc<Watch>>();
    let limit = limits::JSON_BODY_LENGTH_MAX;
    let Some(watch) = watch else {
        return Err(ApiError::bad_request("the request has no connection"));
    };
    read_body(&mut body, limit, &app.budget, watch, |found| {
        ApiError::body_too_large(found, limit)
    })
    .await
}

/// `POST /v1/transactions`
pub(super) async fn transaction(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["wait"])?;
    let wait = query.wait()?;
    drop(query);
    let idempotency_key = request::idempotency_key(request.headers())?;
    let body = read_json(&app, request).await?;
    let wire: wire::TransactionRequest =
        serde_json::from_slice(&body.bytes).map_err(|error| bad_json(&error))?;
    let count = wire.operations.len();
    if count == 0 {
        return Err(ApiError::invalid_argument(format!(
            "a transaction has 0 operations, allowed are 1 to {}",
            limits::TRANSACTION_OPERATIONS_MAX
        )));
    }
    if count > limits::TRANSACTION_OPERATIONS_MAX {
        return Err(ApiError::new(
            ErrorCode::TransactionTooLarge,
            format!(
                "a transaction has at least {count} operations, allowed are 1 to {}",
                limits::TRANSACTION_OPERATIONS_MAX
            ),
        ));
    }
    let operations = wire
        .operations
        .into_iter()
        .enumerate()
        .map(|(place, operation)| {
            convert::operation(operation).map_err(|error| error.about_operation(place))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let appended = app
        .node
        .append_transaction(Transaction {
            operations,
            idempotency_key,
            author: Bytes::new(),
        })
        .await
        .map_err(|error| ApiError::from_append(error, true))?;
    drop(body);
    if wait == Wait::Published
        && let Some(last) = appended.tree_size.last_index()
    {
        wait_published(&app, appended.tree_size, last).await?;
    }
    let json = serde_json::to_vec(&convert::transaction_response(&appended)).unwrap_or_default();
    let mut reply = json_bytes(StatusCode::CREATED, json);
    if appended.replayed {
        reply
            .headers_mut()
            .insert(headers::SCRIBE_REPLAYED, headers::TRUE);
    }
    Ok(reply)
}

/// `POST /v1/keys:get`
pub(super) async fn keys_get(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["consistency"])?;
    let consistency = query.consistency()?;
    drop(query);
    let fields = request.headers().clone();
    let body = read_json(&app, request).await?;
    let wire: wire::KeysGetRequest =
        serde_json::from_slice(&body.bytes).map_err(|error| bad_json(&error))?;
    let count = wire.keys.len() + wire.keys_base64.len();
    if count > limits::KEYS_GET_MAX {
        return Err(ApiError::new(
            ErrorCode::BodyTooLarge,
            format!(
                "at least {count} keys were asked for, allowed are {}",
                limits::KEYS_GET_MAX
            ),
        ));
    }
    let keys = wire
        .key_bytes()
        .map_err(|error| ApiError::invalid_key(error.to_string()))?;
    for key in &keys {
        super::key_path::check_length(key).map_err(|error| error.about_key(key))?;
    }
    let at = match wire.at {
        None => None,
        Some(wire::At::Size(size)) => Some(request::At::Size(TreeSize::new(size))),
        Some(wire::At::Time(text)) => Some(request::parse_at(&text)?),
    };
    drop(body);
    let size = request::read_size(&app, at, consistency, &fields).await?;
    let node = app.node.clone();
    let entries = tokio::task::spawn_blocking(move || entries_of(&node, &keys, size))
        .await
        .map_err(ApiError::task_failed)??;
    Ok(json_reply(&KeysGetResponse {
        tree_size: size.get(),
        entries,
    }))
}

fn entries_of(node: &Node, keys: &[Vec<u8>], size: TreeSize) -> Result<Vec<KeyEntry>, ApiError> {
    let mut byte_length = 0;
    keys.iter()
        .map(|key| {
            let entry = node.latest(key, size)?;
            byte_length += entry.as_ref().map_or(0, |entry| entry.value().len());
            if byte_length > limits::KEYS_GET_BYTES_MAX && keys.len() > 1 {
                return Err(ApiError::new(
                    ErrorCode::BodyTooLarge,
                    format!(
                        "the values asked for have more than the {} bytes one answer holds",
                        limits::KEYS_GET_BYTES_MAX
                    ),
                )
                .hint("ask for fewer keys at once; `at` gives every request the same view"));
            }
            let (key, key_base64) = to_members(key);
            let entry = entry.map(|entry| convert::entry(&entry, View::WHOLE));
            Ok(KeyEntry {
                key,
                key_base64,
                entry,
            })
        })
        .collect()
}

/// `GET /v1/keys`
pub(super) async fn list(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let known = [
        "prefix",
        "start",
        "end",
        "at",
        "limit",
        "cursor",
        "key_encoding",
        "consistency",
    ];
    let query = Query::parse(request.uri().query(), &known)?;
    let encoding = query.key_encoding()?;
    let prefix = query.key_part("prefix", encoding)?.unwrap_or_default();
    let start = query.key_part("start", encoding)?.unwrap_or_default();
    let end = query.key_part("end", encoding)?;
    let limit = query.limit()?;
    let cursor = query.text("cursor")?.map(KeysCursor::parse).transpose()?;
    let at = match &cursor {
        // Every page of a listing sees what the first one saw.
        Some(cursor) => Some(request::At::Size(cursor.size)),
        None => query.at()?,
    };
    let size = request::read_size(&app, at, query.consistency()?, request.headers()).await?;
    let mut range = KeyRange {
        start: start.max(prefix.clone()),
        end,
    };
    range.end = match (range.end, successor(&prefix)) {
        (Some(end), Some(beyond)) => Some(end.min(beyond)),
        (end, beyond) => end.or(beyond),
    };
    if let Some(cursor) = cursor {
        range.start = range.start.max(cursor.start);
    }
    let node = app.node.clone();
    let page = tokio::task::spawn_blocking(move || scan_page(&node, range, size, limit))
        .await
        .map_err(ApiError::task_failed)??;
    let mut reply = json_reply(&page);
    let fields = reply.headers_mut();
    fields.insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size.get()));
    fields.insert(CACHE_CONTROL, headers::NO_CACHE);
    Ok(reply)
}

struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

fn scan_page(
    node: &Node,
    range: KeyRange,
    size: TreeSize,
    limit: usize,
) -> Result<KeyList, ApiError> {
    let KeyRange { mut start, end } = range;
    let mut keys = Vec::new();
    let mut looked_at = 0;
    let next = loop {
        if end.as_ref().is_some_and(|end| start >= *end) {
            break None;
        }
        let wanted = (limit - keys.len()).clamp(64, limits::PAGE_LIMIT_MAX);
        let found = node.scan(&start, end.as_deref(), size, wanted)?;
        let exhausted = found.len() < wanted;
        looked_at += found.len();
        let mut full = false;
        for (key, version) in found {
            if keys.len() == limit {
                // This key is the next page's first.
                start = key;
                full = true;
                break;
            }
            start = after(&key);
            if version.kind == LeafKind::Put {
                let (text, base64) = to_members(&key);
                keys.push(KeyVersion {
                    key: text,
                    key_base64: base64,
                    index: version.index.get(),
                    kind: None,
                });
            }
        }
        if full {
            break Some(start);
        }
        if exhausted {
            break None;
        }
        if looked_at >= SCAN_KEYS_MAX {
            break Some(start);
        }
    };
    Ok(KeyList {
        keys,
        next: next.map(|start| KeysCursor { size, start }.encode()),
        tree_size: size.get(),
    })
}

/// The first key after this one in byte order.
fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// The first key in byte order after all that start with `prefix`; `None` if there is none such.
fn successor(prefix: &Bytes) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(Bytes::from(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_one_starts() {
        let check = |prefix: &'static [u8], expected: Option<&'static [u8]>| {
            let found = successor(&Bytes::from_static(prefix));
            assert_eq!(found.as_deref(), expected);
        };
        check(b"", None);
        check(b"a", Some(b"b"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"ab", Some(b"ac"));
    }
}
