//! `POST /v1/receipts`: many receipts under one checkpoint. A single one is in [`super::keys`].

use std::sync::Arc;

use axum::extract::{Request, State};
use http::{HeaderValue, Response};
use scribe_client::code::ErrorCode;
use scribe_client::wire::bytes::{from_members, to_members};
use scribe_client::wire::{EntryReceipt, ReceiptWanted, ReceiptsRequest, ReceiptsResponse};
use scribe_proof::index::{LeafIndex, TreeSize};

use super::body::ReplyBody;
use super::error::{ApiError, bad_json, json_reply};
use super::request::{self, Query};
use super::transactions::read_json;
use super::{App, headers, key_path};
use crate::limits;
use crate::node::{Node, Published};

/// A version asked for.
struct Wanted {
    key: Vec<u8>,
    index: Option<LeafIndex>,
}

/// `POST /v1/receipts`
pub(super) async fn receipts(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["consistency"])?;
    let consistency = query.consistency()?;
    drop(query);
    let fields = request.headers().clone();
    let body = read_json(&app, request).await?;
    let wire: ReceiptsRequest =
        serde_json::from_slice(&body.bytes).map_err(|error| bad_json(&error))?;
    drop(body);
    let count = wire.entries.len();
    if !(1..=limits::RECEIPTS_MAX).contains(&count) {
        let detail = format!(
            "at least {count} receipts were asked for, allowed are 1 to {}",
            limits::RECEIPTS_MAX
        );
        return Err(match count {
            0 => ApiError::invalid_argument(detail),
            _ => ApiError::new(ErrorCode::BodyTooLarge, detail),
        });
    }
    let wanted = wire
        .entries
        .into_iter()
        .enumerate()
        .map(|(place, entry)| wanted(entry).map_err(|error| error.about_operation(place)))
        .collect::<Result<Vec<_>, ApiError>>()?;

    let applied = app.node.applied_size();
    let settled = |wanted: &Wanted| wanted.index.is_some_and(|index| applied.contains(index));
    // A version never changes: what is applied here needs no majority.
    let size = match wanted.iter().all(settled) && !request::has_min_index(&fields) {
        true => applied,
        false => request::read_size(&app, None, consistency, &fields).await?,
    };
    let node = app.node.clone();
    let found = tokio::task::spawn_blocking(move || {
        let find = |wanted: Wanted| {
            let index = find(&node, &wanted, size);
            (wanted.key, index)
        };
        wanted.into_iter().map(find).collect::<Vec<_>>()
    })
    .await
    .map_err(ApiError::task_failed)?;
    let newest = found
        .iter()
        .filter_map(|(_, index)| index.as_ref().ok())
        .max();
    let published = match newest.copied() {
        None => None,
        Some(newest) => Some(covering(&app, newest).await?),
    };
    let tree_size = published.as_ref().map(|published| published.size.get());
    let node = app.node.clone();
    let prove = move || {
        let prove = |(key, index)| receipt(&node, key, index, published.as_deref());
        found
            .into_iter()
            .map(prove)
            .collect::<Result<Vec<_>, ApiError>>()
    };
    let receipts = app.read_tiles(prove).await??;
    let mut reply = json_reply(&ReceiptsResponse {
        tree_size,
        receipts,
    });
    if let Some(size) = tree_size {
        let fields = reply.headers_mut();
        fields.insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size));
    }
    Ok(reply)
}

fn wanted(entry: ReceiptWanted) -> Result<Wanted, ApiError> {
    let key = from_members("key", entry.key.as_deref(), entry.key_base64.as_deref())
        .map_err(|error| ApiError::invalid_key(error.to_string()))?;
    key_path::check_length(&key)?;
    Ok(Wanted {
        key,
        index: entry.index.map(LeafIndex::new),
    })
}

/// The index of a version, without its value being read.
fn find(node: &Node, wanted: &Wanted, size: TreeSize) -> Result<LeafIndex, ApiError> {
    if let Some(index) = wanted.index
        && !size.contains(index)
    {
        return Err(ApiError::future(
            format!("index {index} was asked for, the ledger has {size} entries"),
            size.get(),
        ));
    }
    match (
        node.find_version(&wanted.key, wanted.index, size)?,
        wanted.index,
    ) {
        (Some(index), _) => Ok(index),
        (None, Some(index)) => Err(ApiError::not_found(format!(
            "the entry at index {index} is not a version of this key"
        ))),
        (None, None) => Err(ApiError::not_found("the key has no version")),
    }
}

/// A checkpoint that covers the entry at `index`, and so every one before it.
async fn covering(app: &App, index: LeafIndex) -> Result<Arc<Published>, ApiError> {
    match app.node.checkpoint() {
        Some(published) if published.size.contains(index) => Ok(published),
        _ => app.node.publish(index.tree_size()).await.map_err(|error| {
            ApiError::not_published(
                format!("the entries up to index {index} are safe, but: {error}"),
                Some(index.get()),
            )
        }),
    }
}

/// One receipt, or why there is none. The entry is let go with its value before the next one is read.
fn receipt(
    node: &Node,
    key: Vec<u8>,
    index: Result<LeafIndex, ApiError>,
    published: Option<&Published>,
) -> Result<EntryReceipt, ApiError> {
    let (text, base64) = to_members(&key);
    let mut answer = EntryReceipt {
        key: text,
        key_base64: base64,
        index: None,
        receipt: None,
        error: None,
    };
    let (index, published) = match (index, published) {
        (Ok(index), Some(published)) => (index, published),
        (Err(error), _) => {
            // Damage, or a disk that does not answer, concerns the whole request.
            if error.code().status() >= 500 {
                return Err(error);
            }
            answer.error = Some(error.into_problem());
            return Ok(answer);
        }
        (Ok(index), None) => {
            return Err(ApiError::not_published(
                "there is no checkpoint",
                Some(index.get()),
            ));
        }
    };
    let entry = node
        .version(&key, index)?
        .ok_or_else(|| ApiError::not_found(format!("there is no entry at index {index}")))?;
    answer.index = Some(index.get());
    answer.receipt = Some(node.receipt(&entry, published)?.to_text());
    Ok(answer)
}
