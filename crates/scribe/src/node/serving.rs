//! Answers what other nodes ask.
//!
//! Raft's messages go to the consensus module as they are. Everything else is answered here, as a client of the node
//! would be: a forwarded write is appended if this node leads, and never carried on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message as _;
use scribe_proof::index::TreeSize;
use scribe_proof::leaf::SystemKind;
use tokio::sync::Semaphore;

use super::{Inner, Node};
use crate::cluster::wire::{
    AdminRequest, CheckpointMessage, CosignAnswer, CosignRequest, ForwardAnswer, ForwardRequest,
    Job, JoinRequest, LedgerKeysMessage, Malformed, OutcomeMessage, PublishRequest, StatusAnswer,
    code, kind, parts,
};
use crate::consensus::{AnswerError, ConsensusNode, Leadership, NodeId};
use crate::error::AppendError;
use crate::limits;
use crate::peer::{Handler, Lane, RefusalCode, RemoteError, Request, Response};
use crate::roster;

/// The node, as its peers see it.
pub(super) struct Service {
    node: Weak<Inner>,
    consensus: ConsensusNode,
    /// Strangers heard at once.
    joining: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            node: Arc::downgrade(&node.inner),
            consensus: node.inner.consensus.clone(),
            joining: Arc::new(Semaphore::new(limits::JOINS_AT_ONCE_MAX)),
        }
    }
}

impl Handler for Service {
    fn admit(&self, sender: NodeId) -> Result<(), (RefusalCode, String)> {
        if self.consensus.is_welcome(sender) {
            // It is up again: whatever this node has for it need not wait for the end of a pause.
            self.consensus.retry_now(sender);
            return Ok(());
        }
        Err((RefusalCode::Removed, no_member(sender)))
    }

    fn body_length_max(&self, lane: Lane, kind: u8) -> usize {
        match (lane, kind) {
            (Lane::Join, _) => limits::JOIN_LENGTH_MAX,
            (_, kind) if ConsensusNode::answers(kind) => ConsensusNode::body_length_max(kind),
            (Lane::Forward, kind::FORWARD) => limits::FORWARD_LENGTH_MAX,
            _ => limits::PEER_CONTROL_LENGTH_MAX,
        }
    }

    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Response, RemoteError>> {
        let node = self.node.clone();
        let consensus = self.consensus.clone();
        let joining = Arc::clone(&self.joining);
        Box::pin(async move {
            let (Some(sender), false) = (request.sender, request.lane == Lane::Join) else {
                // Without a certificate, or on the lane for those that have none, there is one thing to ask for.
                let Ok(_place) = joining.try_acquire() else {
                    return Err(unavailable(
                        "others are joining just now, try again".to_owned(),
                    ));
                };
                return match (request.kind, node.upgrade()) {
                    (kind::JOIN, Some(inner)) => join(&Node { inner }, request.body).await,
                    _ => Err(refused("this lane is for joining only")),
                };
            };
            // A connection outlives a removal: who asks is looked at each time. What only carries Raft on is judged by
            // Raft, because a node that lags may not know the newest member yet; the rest is a leader's to answer, whose
            // membership is the newest, or can wait.
            if !ConsensusNode::is_for_anyone(request.kind) && !consensus.knows(sender) {
                return Err(refused(&no_member(sender)));
            }
            if ConsensusNode::answers(request.kind) {
                let answer = consensus
                    .answer(sender, request.kind, request.body, &request.progress)
                    .await;
                return match answer {
                    Ok(parts) => Ok(Response { parts }),
                    Err(AnswerError::Failed(text)) => Err(unavailable(text)),
                    Err(AnswerError::Refused(error)) => Err(refused(&error.to_string())),
                    Err(error) => Err(malformed(&error)),
                };
            }
            let Some(inner) = node.upgrade() else {
                return Err(unavailable("the node is stopping".to_owned()));
            };
            answer(&Node { inner }, sender, request).await
        })
    }
}

async fn answer(node: &Node, sender: NodeId, request: Request) -> Result<Response, RemoteError> {
    let body = request.body;
    match request.kind {
        kind::FORWARD => forward(node, sender, body).await,
        kind::COSIGN => {
            let request = CosignRequest::decode(body).map_err(|error| malformed(&error))?;
            let cosigned = node.inner.publisher.cosign(TreeSize::new(request.size));
            let (root, signature) = cosigned.await.map_err(|reason| {
                tracing::warn!(
                    size = request.size,
                    reason,
                    "this node does not cosign a tree head"
                );
                unavailable(reason)
            })?;
            Ok(reply(&CosignAnswer {
                root: Bytes::copy_from_slice(root.as_bytes()),
                signature: signature.to_line(),
            }))
        }
        kind::PUBLISH => {
            let request = PublishRequest::decode(body).map_err(|error| malformed(&error))?;
            if !matches!(*node.inner.leadership.borrow(), Leadership::Leading { .. }) {
                return Err(unavailable("this node does not lead".to_owned()));
            }
            let wait = Duration::from_millis(limits::PUBLISH_WAIT_MS);
            let published = node
                .inner
                .publisher
                .wait(TreeSize::new(request.size), wait)
                .await
                .map_err(|error| unavailable(error.to_string()))?;
            Ok(reply(&CheckpointMessage {
                note: published.note.clone(),
            }))
        }
        kind::CHECKPOINT => {
            let message = CheckpointMessage::decode(body).map_err(|error| malformed(&error))?;
            let taken = node.inner.publisher.take(&message.note).await;
            taken.map_err(unavailable)?;
            Ok(Response::default())
        }
        kind::LEDGER_KEYS => {
            let message = LedgerKeysMessage::read(body).map_err(|error| malformed(&error))?;
            let answer = node.ledger_keys_message(message).await;
            Ok(reply(&answer.map_err(|reason| refused(&reason))?))
        }
        kind::STATUS => Ok(reply(&status(node).await)),
        kind::ADMIN => {
            let request = AdminRequest::decode(body).map_err(|error| malformed(&error))?;
            Ok(reply(&node.administer_here(sender, request).await))
        }
        other => Err(malformed(&format_args!(
            "message kind 0x{other:02x} is not known"
        ))),
    }
}

/// Whether a member may have this written. The ledger's own entries are the leader's to write; a member announces its own
/// key and nothing else, so that no single one names keys for others or for the ledger.
fn may_forward(sender: NodeId, job: &Job) -> Result<(), Malformed> {
    let Job::System { subtype, body } = job else {
        return Ok(());
    };
    let own = *subtype == SystemKind::NodeKey as u16
        && roster::parse_node_key(body).is_some_and(|(id, _)| id == sender);
    if own {
        return Ok(());
    }
    Err(Malformed(format!(
        "a system entry of subtype {subtype}: a member announces its own key and nothing else"
    )))
}

/// Appends what another node's clients want written, if this node leads.
async fn forward(node: &Node, sender: NodeId, body: Bytes) -> Result<Response, RemoteError> {
    let request = ForwardRequest::read(body).map_err(|error| malformed(&error))?;
    let jobs = request
        .jobs
        .into_iter()
        .map(|message| {
            let job = message.job()?;
            may_forward(sender, &job).map(|()| job)
        })
        .collect::<Result<Vec<_>, Malformed>>()
        .map_err(|error| malformed(&error))?;
    let leads = matches!(*node.inner.leadership.borrow(), Leadership::Leading { .. });
    let outcomes = if leads {
        node.append_here(jobs).await
    } else {
        // One hop: whoever sent this looks for the leader again.
        vec![Err(AppendError::NotLeader { leader: None }); jobs.len()]
    };
    Ok(reply(&ForwardAnswer {
        outcomes: outcomes.iter().map(OutcomeMessage::new).collect(),
    }))
}

async fn join(node: &Node, body: Bytes) -> Result<Response, RemoteError> {
    let request = JoinRequest::decode(body).map_err(|error| malformed(&error))?;
    match node.welcome(request).await {
        Ok(answer) => Ok(reply(&answer)),
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// How this node is, for `scribe cluster status` on any node.
pub(super) async fn status(node: &Node) -> StatusAnswer {
    let health = node.health();
    let size = node.applied_size();
    let root = {
        let node = node.clone();
        crate::blocking::run(move || node.root_at(size).ok())
            .await
            .ok()
            .flatten()
    };
    let (catch_up_done, catch_up_total) = node.inner.consensus.catch_up().bytes();
    let (mending_done, mending_total) = node.inner.mended.progress();
    StatusAnswer {
        state: health.state.to_owned(),
        term: health.current_term,
        last_log_index: health.last_log_index.map(|index| index.0),
        last_applied: health.last_applied.map(|index| index.0),
        tree_size: size.get(),
        root: root.map_or_else(Bytes::new, |root| Bytes::copy_from_slice(root.as_bytes())),
        not_ready: node.ready().err(),
        leaving: node.inner.leaving.load(Ordering::Relaxed)
            || node.inner.consensus.restoring().is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        catch_up_done,
        catch_up_total,
        mending_done,
        mending_total,
    }
}

fn reply(message: &impl prost::Message) -> Response {
    Response {
        parts: parts(message),
    }
}

fn malformed(error: &dyn std::fmt::Display) -> RemoteError {
    RemoteError {
        code: code::MALFORMED,
        text: error.to_string(),
    }
}

/// What a node that was removed is told.
fn no_member(sender: NodeId) -> String {
    format!(
        "node {sender} is not a member of this ledger (any more); its id is never used again: join as a new node, with \
         empty directories and a new token"
    )
}

fn unavailable(text: String) -> RemoteError {
    RemoteError {
        code: code::UNAVAILABLE,
        text,
    }
}

fn refused(text: &str) -> RemoteError {
    RemoteError {
        code: code::REFUSED,
        text: text.to_owned(),
    }
}
