//! `/v1/cluster…`: who the members are, how each of them is, and what an operator changes.
//!
//! Any node takes these requests: it asks every member how it is, and has the leader carry changes out. What a change
//! may do is decided there, who may ask for one in `operator`; this module only says what came of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use http::header::CACHE_CONTROL;
use http::{Response, StatusCode};
use scribe_client::wire::{
    CatchUp, Cluster, ClusterChanged, ClusterToken, ClusterTokenRequest, HexHash, KeyRotated,
    Leader, LeaderRequest, Member, Members, ReplaceRequest,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::{ReplyBody, read_body};
use super::connection::Watch;
use super::error::{ApiError, bad_json, json_bytes, json_reply};
use super::operator::Operator;
use super::request::{self, Query};
use super::{App, headers, health};
use crate::limits;
use crate::node::{Change, MemberStatus};

const MEMBERS_PREFIX: &str = "/v1/cluster/members/";

/// `GET /v1/cluster`
pub(super) async fn cluster(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let members = members_of(&app).await;
    let node = health::now(&app);
    let voters = members.iter().filter(|member| member.role == VOTER).count();
    let answering = answering(&members);
    Ok(fresh(json_reply(&Cluster {
        leader: node.current_leader,
        node,
        failures_tolerated: failures_tolerated(voters, answering),
        warning: warning(voters, &members),
        members,
    })))
}

/// `GET /v1/cluster/members`
pub(super) async fn members(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let members = members_of(&app).await;
    Ok(fresh(json_reply(&Members { members })))
}

/// `GET /v1/cluster/leader`
pub(super) async fn leader(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let health = app.node.health();
    let is_this_node = health.current_leader == Some(health.node_id);
    let http_addr = match health.current_leader {
        Some(_) if app.node.is_alone() => Some(app.options.http_addr.clone()),
        Some(leader) => app
            .node
            .consensus()
            .peer_address(leader)
            .map(|address| address.http_addr),
        None => None,
    };
    Ok(fresh(json_reply(&Leader {
        node_id: health.current_leader,
        is_this_node,
        http_addr: http_addr.filter(|address| !address.is_empty()),
    })))
}

/// `POST /v1/cluster/tokens`
pub(super) async fn token(
    State(app): State<App>,
    _: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let asked: ClusterTokenRequest = read_json(&app, request).await?;
    let seconds = asked
        .expires_in_s
        .unwrap_or(limits::JOIN_TOKEN_VALIDITY_DEFAULT_S);
    if !(1..=limits::JOIN_TOKEN_VALIDITY_MAX_S).contains(&seconds) {
        return Err(ApiError::invalid_argument(format!(
            "expires_in_s is {seconds}, allowed are 1 to {}",
            limits::JOIN_TOKEN_VALIDITY_MAX_S
        )));
    }
    let node = app.node.clone();
    // Waits for the disk: a token that is handed out must be known after a restart.
    let token = tokio::task::spawn_blocking(move || node.join_token(Duration::from_secs(seconds)))
        .await
        .map_err(ApiError::task_failed)??;
    let json = serde_json::to_vec(&ClusterToken {
        token: token.to_string(),
        expires_ms: token.expires_ms,
    });
    Ok(fresh(json_bytes(
        StatusCode::CREATED,
        json.unwrap_or_default(),
    )))
}

/// `POST /v1/cluster/members/{id}/promote`
pub(super) async fn promote(
    State(app): State<App>,
    operator: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let id = member_id(request.uri().path())?;
    let Nothing {} = read_json(&app, request).await?;
    change(&app, operator, Change::Promote(id)).await
}

/// `DELETE /v1/cluster/members/{id}`
pub(super) async fn remove(
    State(app): State<App>,
    operator: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let id = member_id(request.uri().path())?;
    change(&app, operator, Change::Remove(id)).await
}

/// `POST /v1/cluster/members/{id}/replace`
pub(super) async fn replace(
    State(app): State<App>,
    operator: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let old = member_id(request.uri().path())?;
    let ReplaceRequest { by } = read_json(&app, request).await?;
    change(&app, operator, Change::Replace { old, by }).await
}

/// `POST /v1/cluster/leader`
pub(super) async fn transfer(
    State(app): State<App>,
    operator: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let LeaderRequest { node_id } = read_json(&app, request).await?;
    change(&app, operator, Change::Transfer(node_id)).await
}

/// `POST /v1/cluster/ledger-key`
pub(super) async fn rotate_key(
    State(app): State<App>,
    _: Operator,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let Nothing {} = read_json(&app, request).await?;
    let rotated = app.node.rotate_ledger_key().await?;
    Ok(fresh(json_reply(&KeyRotated {
        verifier_key: rotated.verifier_key,
        index: rotated.index.get(),
    })))
}

/// A body that says nothing more.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn change(app: &App, _: Operator, change: Change) -> Result<Response<ReplyBody>, ApiError> {
    app.node.administer(change).await?;
    Ok(fresh(json_reply(&ClusterChanged { done: true })))
}

/// The id between `/v1/cluster/members/` and the next slash.
fn member_id(path: &str) -> Result<u64, ApiError> {
    let rest = path.strip_prefix(MEMBERS_PREFIX).unwrap_or_default();
    let text = rest.split('/').next().unwrap_or_default();
    request::parse_number("node id", text)
}

/// A small JSON body; none at all means `{}`.
async fn read_json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, ApiError> {
    request::refuse_encoding(request.headers())?;
    let (parts, mut body): (_, Body) = request.into_parts();
    let Some(watch) = parts.extensions.get::<Arc<Watch>>() else {
        return Err(ApiError::bad_request("the request has no connection"));
    };
    let limit = limits::CLUSTER_BODY_LENGTH_MAX;
    let body = read_body(&mut body, limit, &app.budget, watch, |found| {
        ApiError::body_too_large(found, limit)
    })
    .await?;
    let bytes: &[u8] = if body.bytes.is_empty() {
        b"{}"
    } else {
        &body.bytes
    };
    // Serde would take an array with the members' values in their order as well.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::bad_request("the body is not a JSON object")
            .hint("/openapi.json describes every body"));
    }
    serde_json::from_slice(bytes).map_err(|error| bad_json(&error))
}

/// What is true of a cluster now must not come from a cache, and a token must not be kept by one.
fn fresh(mut reply: Response<ReplyBody>) -> Response<ReplyBody> {
    reply.headers_mut().insert(CACHE_CONTROL, headers::NO_STORE);
    reply
}

const VOTER: &str = "voter";
const LEARNER: &str = "learner";

async fn members_of(app: &App) -> Vec<Member> {
    let statuses = app.node.cluster_status().await;
    let leader = app.node.health().current_leader;
    let leaders_last = statuses
        .iter()
        .find(|status| Some(status.member.node_id) == leader)
        .and_then(|status| status.status.as_ref().ok())
        .and_then(|status| status.last_log_index);
    let mut members: Vec<Member> = statuses
        .into_iter()
        .map(|status| member(status, leaders_last))
        .collect();
    members.sort_by_key(|member| member.node_id);
    // A node that runs alone has told nobody where it is reached, and may listen elsewhere every time it starts.
    if app.node.is_alone()
        && let [only] = members.as_mut_slice()
    {
        only.raft_addr.clone_from(&app.options.raft_addr);
        only.http_addr.clone_from(&app.options.http_addr);
    }
    members
}

fn member(status: MemberStatus, leaders_last: Option<u64>) -> Member {
    let MemberStatus { member, status } = status;
    let role = if member.voter { VOTER } else { LEARNER };
    let mut answer = Member {
        node_id: member.node_id,
        role: role.to_owned(),
        raft_addr: member.address.raft_addr,
        http_addr: member.address.http_addr,
        reachable: false,
        error: None,
        state: None,
        term: None,
        matched_log_index: member.matched.map(|index| index.0),
        last_applied: None,
        lag: None,
        tree_size: None,
        root: None,
        not_ready: None,
        version: None,
        catch_up: None,
        mending: None,
    };
    match status {
        Err(error) => answer.error = Some(error),
        Ok(said) => {
            let applied = said.last_applied.unwrap_or(0);
            answer.reachable = true;
            // The answers are not of one instant: a member may by now have applied more than the leader had then.
            answer.lag = leaders_last.map(|last| last.saturating_sub(applied));
            answer.last_applied = said.last_applied;
            answer.state = Some(said.state);
            answer.term = Some(said.term);
            answer.tree_size = Some(said.tree_size);
            answer.root = <[u8; 32]>::try_from(said.root.as_ref()).ok().map(HexHash);
            answer.not_ready = said.not_ready;
            answer.version = Some(said.version);
            // The numbers of a transfer stay until the next one begins.
            answer.catch_up = (said.catch_up_done < said.catch_up_total).then_some(CatchUp {
                done_bytes: said.catch_up_done,
                total_bytes: said.catch_up_total,
            });
            answer.mending = (said.mending_total > 0).then_some(CatchUp {
                done_bytes: said.mending_done,
                total_bytes: said.mending_total,
            });
        }
    }
    answer
}

/// Voters that answer.
fn answering(members: &[Member]) -> usize {
    members
        .iter()
        .filter(|member| member.role == VOTER && member.reachable)
        .count()
}

/// Voters that may fail from now on while a majority is left; those that do not answer have failed already.
fn failures_tolerated(voters: usize, answering: usize) -> u64 {
    answering.saturating_sub(voters / 2 + 1) as u64
}

fn warning(voters: usize, members: &[Member]) -> Option<String> {
    let mut warnings = Vec::new();
    if voters == 2 {
        warnings.push(
            "two voters tolerate no failure: while either is gone nothing can be written; add a third".to_owned(),
        );
    }
    let up = answering(members);
    if voters > 2 && up <= voters / 2 + 1 && up < voters {
        warnings.push(format!(
            "{up} of {voters} voters answer, a majority is {}",
            voters / 2 + 1
        ));
    }
    for (place, one) in members.iter().enumerate() {
        let differs = members[place + 1..].iter().find(|other| {
            one.tree_size == other.tree_size
                && one.root.is_some()
                && other.root.is_some()
                && one.root != other.root
        });
        if let Some(other) = differs {
            warnings.push(format!(
                "nodes {} and {} have different trees of the same size: one of them is damaged, see \
                 docs/operating.md",
                one.node_id, other.node_id
            ));
        }
    }
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(node_id: u64, reachable: bool, tree_size: u64, root: u8) -> Member {
        Member {
            node_id,
            role: VOTER.to_owned(),
            raft_addr: String::new(),
            http_addr: String::new(),
            reachable,
            error: None,
            state: None,
            term: None,
            matched_log_index: None,
            last_applied: None,
            lag: None,
            tree_size: reachable.then_some(tree_size),
            root: reachable.then_some(HexHash([root; 32])),
            not_ready: None,
            version: None,
            catch_up: None,
            mending: None,
        }
    }

    #[test]
    fn failures_tolerated_leave_a_majority() {
        for (voters, tolerated) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (7, 3)] {
            assert_eq!(
                failures_tolerated(voters, voters),
                tolerated,
                "{voters} voters"
            );
        }
        for (voters, answering, tolerated) in [
            (3, 2, 0),
            (3, 1, 0),
            (3, 0, 0),
            (5, 4, 1),
            (5, 3, 0),
            (4, 3, 0),
        ] {
            let found = failures_tolerated(voters, answering);
            assert_eq!(found, tolerated, "{answering} of {voters}");
        }
    }

    #[test]
    fn warnings_name_what_is_unwise() {
        let check = |members: &[Member], expected: Option<&str>| {
            let found = warning(members.len(), members);
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(&[voter(1, true, 5, 1)], None);
        check(
            &[voter(1, true, 5, 1), voter(2, true, 5, 1)],
            Some("tolerate no failure"),
        );
        let mut three = [
            voter(1, true, 5, 1),
            voter(2, true, 5, 1),
            voter(3, true, 4, 9),
        ];
        check(&three, None);
        three[2] = voter(3, false, 0, 0);
        check(&three, Some("2 of 3 voters answer"));
        three[2] = voter(3, true, 5, 9);
        check(&three, Some("nodes 1 and 3 have different trees"));
    }

    #[test]
    fn ids_are_read_from_the_path() {
        assert_eq!(member_id("/v1/cluster/members/12/promote").unwrap(), 12);
        assert_eq!(member_id("/v1/cluster/members/12").unwrap(), 12);
        for path in ["/v1/cluster/members/x", "/v1/cluster/members//promote"] {
            assert!(member_id(path).is_err(), "{path}");
        }
    }
}
