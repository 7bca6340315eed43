//! `GET /v1/ledger`: who the ledger is and how far it is signed. The checkpoint alone is in [`super::tiles`].

use axum::extract::{Request, State};
use http::Response;
use scribe_client::wire::{KeyAnnouncement, LedgerInfo};

use super::App;
use super::body::ReplyBody;
use super::error::{ApiError, json_reply};
use super::request::Query;

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
