//! `/health/live` and `/health/ready`: this node as it sees itself. The others are in [`super::cluster`].

use std::time::Duration;

use axum::extract::{Request, State};
use http::header::CACHE_CONTROL;
use http::{Response, StatusCode};
use scribe_client::wire::Health;

use super::body::ReplyBody;
use super::error::{ApiError, json_bytes};
use super::request::Query;
use super::{App, headers};
use crate::limits;

/// `GET /health/live`: the process answers.
pub(super) async fn live(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    Ok(health_reply(&health(&app, None)))
}

/// `GET /health/ready`: the node takes reads and writes. That it knows a leader does not say so: a node that was cut off
/// from the others goes on knowing the last one. It is asked, as a read would.
pub(super) async fn ready(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let mut found = now(&app);
    if found.reason.is_none() {
        let wait = Duration::from_millis(limits::READY_BARRIER_MS);
        let reason = match tokio::time::timeout(wait, app.node.barrier()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!(
                "a majority did not answer within {} ms",
                limits::READY_BARRIER_MS
            )),
        };
        found = health(&app, reason);
    }
    Ok(health_reply(&found))
}

/// How the node is by its own account, and why it should not be sent traffic, if so. Asks nobody.
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
