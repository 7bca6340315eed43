//! `GET /v1/ledger` and `GET /checkpoint`: who the ledger is and how far it is signed.

use axum::extract::{Request, State};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use scribe_client::wire::{KeyAnnouncement, LedgerInfo};

use super::body::ReplyBody;
use super::error::{ApiError, json_reply};
use super::request::Query;
use super::{App, headers};

/// `GET /v1/ledger`
pub(super) async fn ledger(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let ledger = app.node.ledger();
    Ok(json_reply(&LedgerInfo {
        origin: ledger.origin,
        verifier_keys: ledger.verifier_keys,
        policy: ledger.policy,
        tree_size: app.node.applied_size().get(),
        checkpoint: app
            .node
            .checkpoint()
            .map(|published| published.note.clone()),
        rotations: ledger.rotations,
        announcements: ledger
            .announcements
            .into_iter()
            .map(|(verifier_key, index)| KeyAnnouncement {
                verifier_key,
                index: index.get(),
            })
            .collect(),
    }))
}

/// `GET /checkpoint` (c2sp.org/tlog-tiles)
pub(super) async fn checkpoint(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let Some(published) = app.node.checkpoint() else {
        return Err(
            ApiError::not_published("there is no checkpoint yet", None).hint(
                "the first one follows the first entry; ?wait=published on a write waits for it",
            ),
        );
    };
    let mut reply = Response::new(ReplyBody::full(published.note.clone()));
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::NOTE);
    // A stale checkpoint from a cache would look like a ledger that stands still.
    fields.insert(CACHE_CONTROL, headers::NO_STORE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    fields.insert(
        headers::SCRIBE_TREE_SIZE,
        HeaderValue::from(published.size.get()),
    );
    Ok(reply)
}
