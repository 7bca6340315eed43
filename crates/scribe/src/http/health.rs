//! `/health/live` and `/health/ready`: this node as it sees itself. The others are in [`super::cluster`].

use axum::extract::{Request, State};
use http::header::CACHE_CONTROL;
use http::{Response, StatusCode};
use scribe_client::wire::Health;

use super::body::ReplyBody;
use super::error::{ApiError, json_bytes};
use super::request::Query;
use super::{App, headers};

/// `GET /health/live`: the process answers.
pub(super) async fn live(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    Ok(health_reply(&health(&app, None)))
}

/// `GET /health/ready`: the node takes reads and writes.
pub(super) async fn ready(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    Ok(health_reply(&now(&app)))
}

/// How the node is, and why it should not be sent traffic, if so.
pub(super) fn now(app: &App) -> Health {
    let reason = match app.node.ready() {
        _ if app.stopping.is_cancelled() => Some("the node is stopping".to_owned()),
        Ok(()) => None,
        Err(reason) => Some(reason),
    };
    health(app, reason)
}

fn health(app: &App, reason: Option<String>) -> Health {
    let status = app.node.health();
    Health {
        status: if reason.is_none() {
            "ok"
        } else {
            "unavailable"
        }
        .to_owned(),
        reason,
        node_id: status.node_id,
        is_leader: status.is_leader,
        current_leader: status.current_leader,
        state: status.state.to_owned(),
        last_log_index: status.last_log_index.map(|index| index.0),
        last_applied: status.last_applied.map(|index| index.0),
        current_term: status.current_term,
    }
}

fn health_reply(health: &Health) -> Response<ReplyBody> {
    let status = match health.reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut reply = json_bytes(status, serde_json::to_vec(health).unwrap_or_default());
    reply.headers_mut().insert(CACHE_CONTROL, headers::NO_STORE);
    reply
}
