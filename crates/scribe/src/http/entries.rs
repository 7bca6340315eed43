//! `GET /v1/entries/{index}` and `GET /v1/entries`: the ledger in order. Uploads are in [`super::bulk`].

use axum::extract::{Request, State};

use http::{HeaderValue, Response};
use scribe_client::wire::EntryPage;
use scribe_proof::index::LeafIndex;

use super::body::ReplyBody;
use super::convert::{self, View};
use super::error::{ApiError, json_reply};
use super::request::{self, Query};
use super::{App, headers};
use crate::limits;

/// `GET /v1/entries/{index}`
pub(super) async fn entry(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(request.uri().query(), &["raw", "consistency"])?;
    let raw = query.flag("raw")?;
    let text = request.uri().path().rsplit('/').next().unwrap_or_default();
    let index = request::parse_index(text)?;
    let consistency = query.consistency()?;
    if !app.node.applied_size().contains(index) || request::has_min_index(request.headers()) {
        let size = request::read_size(&app, None, consistency, request.headers()).await?;
        if !size.contains(index) {
            return Err(ApiError::not_found(format!(
                "there is no entry at index {index}, the ledger has {size} entries"
            )));
        }
    }
    let Some(entry) = app.node.entry(index)? else {
        return Err(ApiError::not_found(format!(
            "there is no entry at index {index}"
        )));
    };
    let mut reply = json_reply(&convert::entry(&entry, View { raw, ..View::WHOLE }));
    let fields = reply.headers_mut();
    fields.insert(headers::SCRIBE_INDEX, HeaderValue::from(index.get()));
    Ok(reply)
}

/// `GET /v1/entries`
pub(super) async fn page(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    let query = Query::parse(
        request.uri().query(),
        &["from", "limit", "raw", "consistency"],
    )?;
    let from = LeafIndex::new(query.number("from")?.unwrap_or(0));
    let limit = query.limit()?;
    let raw = query.flag("raw")?;
    let size = request::read_size(&app, None, query.consistency()?, request.headers()).await?;
    if from.get() > size.get() {
        return Err(ApiError::future(
            format!("from is {from}, the ledger has {size} entries"),
            size.get(),
        ));
    }
    let limit = limit.min(usize::try_from(size.get() - from.get()).unwrap_or(limit));
    let node = app.node.clone();
    let page = tokio::task::spawn_blocking(move || -> Result<EntryPage, ApiError> {
        let mut entries = match limit {
            0 => Vec::new(),
            _ => node.entries(from, limit, limits::PAGE_BYTES_MAX)?,
        };
        // The page is of one tree size, also if the ledger grew since.
        entries.retain(|entry| size.contains(entry.index));
        let next = entries.last().map_or(from, |last| last.index.next());
        Ok(EntryPage {
            entries: entries
                .iter()
                .map(|entry| convert::entry(entry, View { raw, ..View::WHOLE }))
                .collect(),
            next: size.contains(next).then_some(next.get()),
            tree_size: size.get(),
        })
    })
    .await
    .map_err(ApiError::task_failed)??;
    let mut reply = json_reply(&page);
    reply
        .headers_mut()
        .insert(headers::SCRIBE_TREE_SIZE, HeaderValue::from(size.get()));
    Ok(reply)
}
