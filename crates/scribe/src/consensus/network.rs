//! The transport between nodes, as openraft sees it.
//!
//! Thin: a call becomes a message ([`super::rpc`]) on one of the long-lived connections of [`crate::peer`], and what
//! can go wrong becomes the error openraft acts on. There is no retry in here: openraft repeats a call with its own
//! back-off. A node without peers answers every call `Unreachable`, never with a made-up grant.
//!
//! | went wrong | openraft hears | and then |
//! |---|---|---|
//! | no connection, refused handshake, the peer's node has failed | `Unreachable` | backs off |
//! | connection lost in mid-call | `Network` | tries again at once |
//! | no answer in time | `Timeout` | tries again at once |

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf, WatchReceiverOf};
use openraft::{OptionalSend, RaftMetrics};
use parking_lot::{Mutex, RwLock};

use super::acknowledged::Acknowledged;
use super::judge;
use super::rpc::{self, MalformedMessage, kind};
use super::state_machine::SnapshotManifest;
use super::type_config::{NodeId, PeerAddress, TypeConfig};
use crate::peer::{CallError, Lane, PeerTimeouts, Pool, RefusalCode, Wait};
use crate::planted;
use crate::store::frame::LogIndex;
use crate::store::log::Log;

/// Addresses known locally. They override what the membership says and never replace it as the truth.
pub(super) type Overrides = Arc<RwLock<BTreeMap<NodeId, PeerAddress>>>;

/// The newest membership this node has, also while it is not committed: a change of address is committed over the new
/// address. openraft gives a [`Network`] the address its peer had when it was made, and keeps it when that changes.
#[derive(Clone, Default)]
pub(super) struct NewestMembership(
    Arc<OnceLock<WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>>>,
);

impl NewestMembership {
    /// Listens to the core, which is there only after the network it was given.
    pub(super) fn follow(&self, metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>) {
        // There is one core; a second call would be of the same.
        let _ = self.0.set(metrics);
    }

    fn raft_addr(&self, id: NodeId) -> Option<String> {
        let metrics = self.0.get()?.borrow_watched();
        let node = metrics.membership_config.get_node(&id)?;
        Some(node.raft_addr.clone())
    }
}

impl std::fmt::Debug for NewestMembership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewestMembership")
    }
}

/// How this node reaches its peers.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// Connections; `None` on a node that runs alone.
    pub pool: Option<Pool>,
    /// Where peers reach this node, told to whoever is offered a snapshot.
    pub own_raft_addr: String,
    /// What a leader said when it refused this node for good.
    removed: Arc<Mutex<Option<String>>>,
}

impl Transport {
    /// By `pool`, as a node others reach at `own_raft_addr`.
    pub fn new(pool: Option<Pool>, own_raft_addr: String) -> Self {
        Self {
            pool,
            own_raft_addr,
            removed: Arc::default(),
        }
    }

    /// How long a call whose bytes take their time may stand still.
    pub(super) fn progress(&self) -> Wait {
        Wait::Progress(self.timeouts().progress())
    }

    /// How long a small request may take.
    pub fn request(&self) -> Wait {
        Wait::Deadline(self.timeouts().request())
    }

    fn timeouts(&self) -> PeerTimeouts {
        let pool = self.pool.as_ref();
        pool.map_or_else(PeerTimeouts::default, |pool| pool.timeouts().clone())
    }

    /// Why this node is no member any more, once it has heard so.
    pub fn removed(&self) -> Option<String> {
        self.removed.lock().clone()
    }

    /// A leader was heard, so this node is a member after all: the removal it was told of did not come to be.
    pub(super) fn heard_leader(&self) {
        *self.removed.lock() = None;
    }

    /// Remembers, and says once, that this node was removed.
    pub(super) fn listen(&self, error: CallError) -> CallError {
        if let CallError::Refused {
            code: RefusalCode::Removed,
            text,
        } = &error
            && self.removed.lock().replace(text.clone()).is_none()
        {
            tracing::error!(reason = text, "this node was removed from the cluster");
        }
        error
    }
}

/// Makes a [`Network`] for each peer and purpose, so that a large append or a snapshot never stands in the way of a
/// heartbeat or a vote.
#[derive(Debug, Clone)]
pub struct NetworkFactory {
    node_id: NodeId,
    transport: Transport,
    overrides: Overrides,
    newest: NewestMembership,
    log: Log,
    acknowledged: Acknowledged,
}

/// The way to one peer for one purpose.
#[derive(Debug, Clone)]
pub struct Network {
    factory: NetworkFactory,
    target: NodeId,
    address: PeerAddress,
    lane: Lane,
}

impl NetworkFactory {
    pub(super) fn new(
        node_id: NodeId,
        transport: Transport,
        overrides: Overrides,
        log: Log,
    ) -> Self {
        Self {
            node_id,
            transport,
            overrides,
            log,
            newest: NewestMembership::default(),
            acknowledged: Acknowledged::default(),
        }
    }

    /// What the followers have acknowledged to this node.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.clone()
    }

    /// To be told where the newest membership is, once there is one.
    pub(super) fn newest_membership(&self) -> NewestMembership {
        self.newest.clone()
    }

    fn network(&self, target: NodeId, node: &PeerAddress, lane: Lane) -> Network {
        Network {
            factory: self.clone(),
            target,
            address: node.clone(),
            lane,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Lane::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        self.network(target, node, Lane::Bulk)
    }
}

/// What went wrong with a call, before it is one of openraft's errors.
enum Failure {
    Call(CallError),
    Malformed(MalformedMessage),
}

impl From<MalformedMessage> for Failure {
    fn from(error: MalformedMessage) -> Self {
        Self::Malformed(error)
    }
}

impl Network {
    async fn call(
        &self,
        lane: Lane,
        kind: u8,
        parts: Vec<Bytes>,
        wait: Wait,
    ) -> Result<Bytes, Failure> {
        let Some(pool) = &self.factory.transport.pool else {
            return Err(Failure::Call(CallError::Unreachable {
                text: "this node runs alone".to_owned(),
            }));
        };
        let known = self.factory.overrides.read().get(&self.target).cloned();
        let address = known
            .map(|known| known.raft_addr)
            .or_else(|| self.factory.newest.raft_addr(self.target))
            .unwrap_or_else(|| self.address.raft_addr.clone());
        pool.call(self.target, &address, lane, kind, parts, wait)
            .await
            .map_err(|error| Failure::Call(self.factory.transport.listen(error)))
    }

    /// A vote in an answer is of a term this cluster can have reached; else the answer counts as none.
    fn plausible(
        &self,
        found: &VoteOf<TypeConfig>,
        own: VoteOf<TypeConfig>,
    ) -> Result<(), Failure> {
        // An answer names a vote this node does not know; it cannot be this node's own, or it would lead unelected.
        let own_name = found.leader_id.voted_for == self.factory.node_id && found > &own;
        if judge::is_plausible_term(found.leader_id.term, own.leader_id.term) && !own_name {
            return Ok(());
        }
        let text = format!(
            "term {} in an answer to term {}",
            found.leader_id.term, own.leader_id.term
        );
        Err(Failure::Malformed(MalformedMessage(text)))
    }

    fn error(&self, failure: Failure, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        let failure = match failure {
            Failure::Call(failure) => failure,
            // A peer that speaks another language will not speak ours a moment later.
            Failure::Malformed(error) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                return RPCError::Unreachable(Unreachable::new(&error));
            }
        };
        match failure {
            CallError::TimedOut => RPCError::Timeout(Timeout {
                action,
                id: self.factory.node_id,
                target: self.target,
                timeout,
            }),
            CallError::Lost { .. } => RPCError::Network(NetworkError::from_string(failure)),
            CallError::Unreachable { .. }
            | CallError::Refused { .. }
            | CallError::Remote { .. } => {
                let text = format!("node {}: {failure}", self.target);
                RPCError::Unreachable(Unreachable::from_string(text))
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotManifest;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A heartbeat that is late is as good as none. Entries take as long as they take: openraft's deadline would cut
        // a large value on a slow link for ever.
        let wait = match self.lane {
            Lane::Control => Wait::Deadline(option.hard_ttl()),
            _ => self.factory.transport.progress(),
        };
        // Nothing to send where something was asked for: a sealed entry that cannot be read. The stream is ended, so that
        // the core can purge that entry and send a snapshot instead; as a heartbeat it would wait for the entry for ever.
        let next = request.prev_log_id.map_or(0, |id| id.index + 1);
        if self.lane == Lane::Replication
            && request.entries.is_empty()
            && self.factory.log.is_unreadable(LogIndex(next))
        {
            let text = format!("log entry {next} cannot be read; it is sent as a segment");
            return Err(RPCError::Unreachable(Unreachable::from_string(text)));
        }
        self.call(self.lane, kind::APPEND, rpc::encode_append(&request), wait)
            .await
            .and_then(|body| Ok(rpc::decode_append_response(&body)?))
            .and_then(|response| match &response {
                AppendEntriesResponse::HigherVote(vote) => {
                    self.plausible(vote, request.vote)?;
                    Ok(response)
                }
                // There is no entry before the first that could differ.
                AppendEntriesResponse::Conflict if request.prev_log_id.is_none() => {
                    Err(MalformedMessage("a conflict before the first log entry".to_owned()).into())
                }
                _ => Ok(response),
            })
            .and_then(|response| {
                let judged = self
                    .factory
                    .acknowledged
                    .judge(self.target, &request, &response);
                judged.map_err(MalformedMessage)?;
                Ok(response)
            })
            // planted
            .or_else(|failure| match planted::has("ack-before-majority") {
                true if self.lane == Lane::Replication => Ok(AppendEntriesResponse::Success),
                _ => Err(failure),
            })
            .map_err(|failure| self.error(failure, RPCTypes::AppendEntries, option.hard_ttl()))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_vote(kind::VOTE, &request, option.hard_ttl())
            .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_vote(kind::PRE_VOTE, &request, option.hard_ttl())
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotManifest>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        if snapshot.snapshot.meta().ok().as_ref() != Some(&snapshot.meta) {
            // Only segments travel: a snapshot that is more than their list cannot be sent.
            let text = "a snapshot without segments cannot be sent".to_owned();
            return Err(StreamingError::Unreachable(Unreachable::from_string(text)));
        }
        let own_address = &self.factory.transport.own_raft_addr;
        let parts = rpc::encode_snapshot_offer(&vote, own_address, &snapshot.snapshot);
        // The peer fetches what it lacks and says that it is alive meanwhile.
        let wait = self.factory.transport.progress();
        let call = self.call(Lane::Bulk, kind::SNAPSHOT, parts, wait);
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = call => answer,
        };
        answer
            .and_then(|body| Ok(rpc::decode_snapshot_answer(&body)?))
            .and_then(|response| {
                self.plausible(&response.vote, vote)?;
                Ok(response)
            })
            .map_err(|failure| {
                let error = self.error(failure, RPCTypes::InstallSnapshot, option.hard_ttl());
                tracing::warn!(target_node = self.target, %error, "a snapshot was not taken");
                error.into()
            })
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(
            Lane::Control,
            kind::TRANSFER,
            rpc::encode_transfer_request(&request),
            Wait::Deadline(option.hard_ttl()),
        )
        .await
        .and_then(|body| Ok(rpc::decode_transfer_response(&body)?))
        .map_err(|failure| self.error(failure, RPCTypes::TransferLeader, option.hard_ttl()))
    }
}

impl Network {
    async fn call_vote(
        &self,
        kind: u8,
        request: &VoteRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(
            Lane::Control,
            kind,
            rpc::encode_vote_request(request),
            Wait::Deadline(timeout),
        )
        .await
        .and_then(|body| Ok(rpc::decode_vote_response(&body)?))
        .and_then(|response| {
            self.plausible(&response.vote, request.vote)?;
            Ok(response)
        })
        .map_err(|failure| self.error(failure, RPCTypes::Vote, timeout))
    }
}
