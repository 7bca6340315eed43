//! `/health/live`, `/health/ready`, and the cluster as this node sees it.

use axum::extract::{Request, State};
use http::header::CACHE_CONTROL;
use http::{Response, StatusCode};
use scribe_client::wire::{Cluster, Health, Member};

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
    let reason = match app.node.ready() {
        _ if app.stopping.is_cancelled() => Some("the node is stopping".to_owned()),
        Ok(()) => None,
        Err(reason) => Some(reason),
    };
    Ok(health_reply(&health(&app, reason)))
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

/// `GET /v1/cluster`
pub(super) async fn cluster(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let reason = app.node.ready().err();
    let node = health(&app, reason);
    let cluster = Cluster {
        members: vec![Member {
            node_id: node.node_id,
            role: "voter".to_owned(),
            raft_addr: app.options.raft_addr.clone(),
            http_addr: app.options.http_addr.clone(),
            matched_log_index: node.last_log_index,
        }],
        node,
        failures_tolerated: 0,
    };
    Ok(json_bytes(
        StatusCode::OK,
        serde_json::to_vec(&cluster).unwrap_or_default(),
    ))
}

/// `GET /v1/cluster/leader`
pub(super) async fn leader(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let status = app.node.health();
    Ok(json_bytes(
        StatusCode::OK,
        leader_json(status.node_id, status.current_leader),
    ))
}

fn leader_json(node_id: u64, leader: Option<u64>) -> String {
    serde_json::json!({ "node_id": leader, "is_this_node": leader == Some(node_id) }).to_string()
}
