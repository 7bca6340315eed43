//! Consensus: the façade over openraft, and the adapters it stands on.
//!
//! Only this module names openraft. It gives the rest of the node a [`ConsensusNode`]: propose a frame, wait for a read
//! barrier, change the membership, ask how it is. It decides nothing about entries: frames arrive complete from the
//! sequencer and are judged by [`crate::ledger`].

mod acknowledged;
mod answer;
mod contact;
mod departures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod judge;
mod log_store;
mod members;
pub mod membership;
mod mend;
mod network;
mod restore;
pub mod rpc;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;
mod type_config;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::error::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardToLeader, InitializeError,
    LinearizableReadError, RaftError,
};
use openraft::impls::OneshotResponder;
use openraft::type_config::alias::WriteResponderOf;
use openraft::{ChangeMembers, Config, Raft, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy};
use tokio::sync::{Mutex, oneshot, watch};

use acknowledged::Acknowledged;
pub use answer::AnswerError;
use contact::Contact;
use departures::Departed;
use judge::HandOver;
pub use log_store::LogStore;
pub use members::Member;
use mend::Doubts;
pub use network::Transport;
use network::{NetworkFactory, Overrides};
use restore::Restoring;
pub use restore::others_can_lead;
pub use snapshot::CatchUp;
pub use state_machine::{SnapshotManifest, StateMachine, replay};
use type_config::leader_of;
pub use type_config::{AppliedOutcome, NodeId, PeerAddress, Proposal, TypeConfig};

use crate::planted;
use crate::store::Store;
use crate::store::frame::{LogId, LogIndex};

/// The name under which the library behind this module logs.
pub const LOG_TARGET: &str = "openraft";

/// Timers of the Raft core, in milliseconds. The defaults fit a local network and SSDs; they must exceed the 99th
/// percentile of a sync plus a round trip, and the election timeout ten times that.
#[derive(Debug, Clone, Copy)]
pub struct ConsensusOptions {
    /// How often a leader says it is there.
    pub heartbeat_interval_ms: u64,
    /// Shortest time after the lease of a silent leader at which a follower stands for election.
    pub election_timeout_min_ms: u64,
    /// Longest such time, and the lease: how long after a leader's last word nobody votes for another one. So a silence
    /// of `max + min` to `max + max` ends in an election.
    pub election_timeout_max_ms: u64,
    /// How fast this node fetches sealed segments it lacks; 0 means as fast as it can.
    pub snapshot_bytes_per_second: u64,
}

impl Default for ConsensusOptions {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 250,
            // An election after 2.25 to 3 s of silence; with a split vote after it, writes go on within 5 s.
            election_timeout_min_ms: 750,
            election_timeout_max_ms: 1_500,
            snapshot_bytes_per_second: 0,
        }
    }
}

/// How a node is, as it sees itself. For people and probes; never for correctness, because it may be stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthStatus {
    /// This node.
    pub node_id: NodeId,
    /// Whether it believes it leads.
    pub is_leader: bool,
    /// Who it believes leads.
    pub current_leader: Option<NodeId>,
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub state: &'static str,
    /// Last log index in its log.
    pub last_log_index: Option<LogIndex>,
    /// Last log index it has applied.
    pub last_applied: Option<LogIndex>,
    /// Its current term.
    pub current_term: u64,
    /// Why it can no longer serve, if so.
    pub fatal: Option<String>,
}

/// Where leadership stands, followed by the sequencer and the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// This node leads term `term` and has applied an entry of it: what was committed before is settled.
    Leading {
        /// The term.
        term: u64,
    },
    /// It does not, or not yet.
    Waiting {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// The Raft core has stopped.
    Stopped,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposalResult {
    /// Committed and applied.
    Applied(AppliedOutcome),
    /// Refused before it entered the log: it will never take effect. `leader` is who to ask, if known. This node may
    /// still lead: its lease may have lapsed for a moment.
    Refused {
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// It may or may not take effect.
    Unknown(String),
}

/// Why a call to the façade failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// Another node leads, or nobody does.
    #[error("this node does not lead{}", leader.map_or(String::new(), |id| format!(", node {id} does")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// A majority of voters cannot be reached.
    #[error("a majority of voters cannot be reached")]
    NoQuorum,
    /// Another node that was needed did not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The change asked for is not allowed now.
    #[error("{0}")]
    Refused(String),
    /// The Raft core has stopped.
    #[error("consensus has stopped: {0}")]
    Stopped(String),
}

type RaftHandle = Raft<TypeConfig, StateMachine>;

/// One node of the Raft group.
#[derive(Clone)]
pub struct ConsensusNode {
    raft: RaftHandle,
    node_id: NodeId,
    leadership: watch::Receiver<Leadership>,
    store: Store,
    transport: Transport,
    overrides: Overrides,
    /// Held while a snapshot is received.
    receiving: Arc<Mutex<()>>,
    catch_up: Arc<CatchUp>,
    contact: Contact,
    hand_over: HandOver,
    departed: Departed,
    doubts: Doubts,
    restoring: Restoring,
    votes_withheld: Arc<AtomicU64>,
    acknowledged: Acknowledged,
}

impl std::fmt::Debug for ConsensusNode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConsensusNode")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl ConsensusNode {
    /// Starts the Raft core over an open store. It re-applies what the log holds beyond the last sealed segment once
    /// that is known to be committed.
    pub async fn start(
        node_id: NodeId,
        store: Store,
        options: ConsensusOptions,
        transport: Transport,
    ) -> Result<Self, ConsensusError> {
        let restoring = store
            .is_restoring()
            .map_err(|error| ConsensusError::Stopped(error.to_string()))?;
        let config = Config {
            // A log that lost what it acknowledged must not lead.
            enable_elect: !restoring,
            cluster_name: "scribe".to_owned(),
            heartbeat_interval: options.heartbeat_interval_ms,
            heartbeat_min_interval: Some(options.heartbeat_interval_ms * 4 / 5),
            election_timeout_min: options.election_timeout_min_ms,
            election_timeout_max: options.election_timeout_max_ms,
            // Snapshots are manifests of sealed segments and purging is a watermark below them: both are explicit.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            install_snapshot_timeout: 60_000,
            max_payload_entries: 256,
            api_channel_size: Some(1_024),
            purge_batch_size: 256,
            enable_pre_vote: Some(true),
            backoff: "100ms 200ms 400ms ...5s".to_owned(),
            allow_log_reversion: None,
            // A restarted leader must stand for election again: the state machine is rebuilt from the log.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let config = config
            .validate()
            .map_err(|error| ConsensusError::Refused(error.to_string()))?;
        let log_store = LogStore::new(store.log().clone());
        let state_machine = StateMachine::new(store.clone());
        let overrides = Overrides::default();
        let network = NetworkFactory::new(
            node_id,
            transport.clone(),
            Arc::clone(&overrides),
            store.log().clone(),
        );
        let newest = network.newest_membership();
        let acknowledged = network.acknowledged();
        let raft = Raft::new(node_id, Arc::new(config), network, log_store, state_machine)
            .await
            .map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))?;
        newest.follow(raft.metrics());
        let leadership = follow_leadership(&raft);
        let node = Self {
            raft,
            node_id,
            leadership,
            store,
            transport,
            overrides,
            receiving: Arc::default(),
            catch_up: Arc::new(CatchUp::new(options.snapshot_bytes_per_second)),
            contact: Contact::new(Duration::from_millis(options.election_timeout_max_ms)),
            hand_over: HandOver::default(),
            departed: Departed::default(),
            doubts: Doubts::default(),
            restoring: Restoring::new(restoring),
            votes_withheld: Arc::default(),
            acknowledged,
        };
        // Alone, there is nobody whose lease must run out first: stand for election at once instead of after a timeout.
        let voters: Vec<NodeId> = node.metrics().membership_config.voter_ids().collect();
        if voters == [node_id] && !restoring {
            node.raft
                .trigger()
                .elect(false)
                .await
                .map_err(|fatal| fatal_error(&fatal))?;
        }
        Ok(node)
    }

    /// Gives a group that has never had a membership its first one. The same members again are a success: a crash
    /// between this and what follows it is repeated by the next start.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, PeerAddress>,
    ) -> Result<(), ConsensusError> {
        match self.raft.initialize(members.clone()).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(not_allowed))) => {
                let metrics = self.raft.metrics().borrow_watched().clone();
                let same = metrics
                    .membership_config
                    .voter_ids()
                    .collect::<BTreeSet<_>>()
                    == members.keys().copied().collect::<BTreeSet<_>>();
                if same {
                    Ok(())
                } else {
                    Err(ConsensusError::Refused(not_allowed.to_string()))
                }
            }
            Err(RaftError::APIError(error)) => Err(ConsensusError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(ConsensusError::Stopped(fatal.to_string())),
        }
    }

    /// Whether this group has a membership.
    pub async fn is_initialized(&self) -> Result<bool, ConsensusError> {
        self.raft
            .is_initialized()
            .await
            .map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))
    }

    /// Adds a node that receives the log without voting. Returns once the change is committed, not once it caught up.
    pub async fn add_learner(
        &self,
        id: NodeId,
        address: PeerAddress,
    ) -> Result<(), ConsensusError> {
        self.raft
            .add_learner(id, address, false)
            .await
            .map(drop)
            .map_err(write_error)
    }

    /// Makes exactly `voters` the voters. With `retain`, those that no longer vote stay as learners.
    pub async fn change_membership(
        &self,
        voters: BTreeSet<NodeId>,
        retain: bool,
    ) -> Result<(), ConsensusError> {
        if voters.is_empty() {
            return Err(ConsensusError::Refused(
                "a ledger needs at least one voter, found none".to_owned(),
            ));
        }
        self.raft
            .change_membership(voters, retain)
            .await
            .map(drop)
            .map_err(write_error)
    }

    /// Replicates a new address of a node that is already a member.
    pub async fn set_address(
        &self,
        id: NodeId,
        address: PeerAddress,
    ) -> Result<(), ConsensusError> {
        if !self.members().iter().any(|member| member.node_id == id) {
            return Err(ConsensusError::Refused(format!(
                "node {id} is no member: only members have an address"
            )));
        }
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, address)]));
        self.raft
            .change_membership(change, true)
            .await
            .map(drop)
            .map_err(write_error)
    }

    /// Remembers where a peer is reached from here. An override of the replicated address only: it neither adds the
    /// peer to the group nor survives a restart.
    pub fn register_peer(&self, id: NodeId, address: PeerAddress) {
        self.overrides.write().insert(id, address);
    }

    /// Forgets every address of [`Self::register_peer`].
    pub fn unregister_peers(&self) {
        self.overrides.write().clear();
    }

    /// How far this node is with fetching segments it lacks.
    pub fn catch_up(&self) -> &CatchUp {
        &self.catch_up
    }

    /// How often this node was asked for its vote, or to lead, and did not answer because its log lost entries.
    pub fn votes_withheld(&self) -> &AtomicU64 {
        &self.votes_withheld
    }

    /// Counters of the connections to each peer.
    pub fn peer_stats(&self) -> Vec<crate::peer::PeerStats> {
        self.transport
            .pool
            .as_ref()
            .map(crate::peer::Pool::stats)
            .unwrap_or_default()
    }

    /// Where a peer is reached: the local override, else the replicated membership.
    pub fn peer_address(&self, id: NodeId) -> Option<PeerAddress> {
        if let Some(address) = self.overrides.read().get(&id) {
            return Some(address.clone());
        }
        self.raft
            .metrics()
            .borrow_watched()
            .membership_config
            .get_node(&id)
            .cloned()
    }

    /// Whether this node believes it leads. May be stale: never decide a write or a read by it.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Who leads, as far as this node knows. May be stale.
    pub async fn current_leader(&self) -> Option<NodeId> {
        self.raft.current_leader().await
    }

    /// How this node is.
    pub fn health_check(&self) -> HealthStatus {
        let metrics = self.metrics();
        HealthStatus {
            node_id: self.node_id,
            is_leader: metrics.state == ServerState::Leader,
            current_leader: metrics.current_leader,
            state: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "shutdown",
            },
            last_log_index: metrics.last_log_index.map(LogIndex),
            last_applied: metrics.last_applied.map(|id| LogIndex(id.index)),
            current_term: metrics.current_term,
            fatal: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }

    /// A copy of the Raft core's metrics. Never hold the watched value itself across an await.
    pub fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Proposes and waits until it is applied, with the Raft core choosing the term.
    pub async fn client_write(&self, proposal: Proposal) -> ProposalResult {
        match self.raft.client_write(proposal).await {
            Ok(response) => ProposalResult::Applied(response.data),
            Err(RaftError::APIError(error)) => refused(error),
            Err(RaftError::Fatal(fatal)) => ProposalResult::Unknown(fatal.to_string()),
        }
    }

    /// Enqueues a proposal that only the leader of `term` may append, and returns at once with the place where its
    /// result will appear. Calls made one after another enter the log in that order, or not at all.
    pub async fn propose(&self, proposal: Proposal, term: u64) -> PendingProposal {
        let (responder, receiver) = OneshotResponder::new_pair();
        let responder: WriteResponderOf<TypeConfig> = responder;
        match self
            .raft
            .write(proposal)
            .with_leader(leader_of(term))
            .responder(responder)
            .await
        {
            Ok(()) => PendingProposal {
                receiver: Some(receiver),
                failed: None,
            },
            Err(fatal) => PendingProposal {
                receiver: None,
                failed: Some(fatal.to_string()),
            },
        }
    }

    /// Waits until everything committed before the call is applied here, confirmed by a majority: on a node that does
    /// not lead, through the leader's read index. What is read after it is linearizable. One call may serve any number
    /// of readers that were waiting when it began.
    pub async fn read_barrier(&self) -> Result<(), ConsensusError> {
        match self.read_index().await {
            Ok(read) => self.wait_read(read).await,
            Err(ConsensusError::NotLeader {
                leader: Some(leader),
                // This node may lead with a lapsed lease: then there is nobody else to ask.
            }) if leader != self.node_id => {
                let read = self.remote_read_index(leader).await?;
                self.wait_read(read).await
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::read_barrier`], but only if this very node leads term `term` throughout: what it judged from its own
    /// applied state before the call was true when a majority confirmed it. Another leader's word would say nothing
    /// about that judgement.
    pub async fn leader_barrier(&self, term: u64) -> Result<(), ConsensusError> {
        let read = self.read_index().await?;
        if read.term != term {
            return Err(ConsensusError::NotLeader { leader: None });
        }
        self.wait_read(read).await
    }

    /// The log id up to which a read that begins now must have applied, if this node leads.
    async fn read_index(&self) -> Result<LogId, ConsensusError> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(log_store::to_store_id(read.log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ConsensusError::NotLeader {
                    leader: forward.leader_id,
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ConsensusError::NoQuorum)
            }
            Err(RaftError::Fatal(fatal)) => Err(ConsensusError::Stopped(fatal.to_string())),
        }
    }

    /// Waits until this node has applied what a read needs. Compared by term first: the entry named may be one that a
    /// leader appended and lost, but whatever a later term applied comes after everything committed in that one.
    async fn wait_read(&self, read: LogId) -> Result<(), ConsensusError> {
        // planted
        if planted::has("follower-reads-early") {
            return Ok(());
        }
        let mut applied = self.store.watch_applied();
        let reached = applied.wait_for(|applied| {
            applied
                .last_log_id
                .is_some_and(|id| (id.term, id.index) >= (read.term, read.index))
        });
        match reached.await {
            Ok(_) => Ok(()),
            Err(_) => Err(ConsensusError::Stopped("the store is closed".to_owned())),
        }
    }

    /// Asks the Raft core to hand leadership to `to`. It happens, or not, soon after; follow [`Self::leadership`].
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ConsensusError> {
        if to == self.node_id {
            return Err(ConsensusError::Refused(format!(
                "node {to} cannot hand leadership to itself"
            )));
        }
        let voters: Vec<NodeId> = self.metrics().membership_config.voter_ids().collect();
        if !voters.contains(&to) {
            return Err(ConsensusError::Refused(format!(
                "leadership is handed to a voter, node {to} is none; voters are {voters:?}"
            )));
        }
        // Before the other one is told: its call for an election must not find this node unprepared.
        self.hand_over.note(self.metrics().current_term, to);
        self.raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))
    }

    /// Tells the Raft core that log entries up to `index` may be fetched as sealed segments only. A watermark: nothing
    /// is deleted. The core purges only what a snapshot covers, and a snapshot is a list, so one is made first.
    pub async fn purge_log(&self, index: LogIndex) -> Result<(), ConsensusError> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|fatal| fatal_error(&fatal))?;
        self.raft
            .trigger()
            .purge_log(index.0)
            .await
            .map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))
    }

    /// Follows leadership from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Resolves once this node has known for `grace` that another node than `leader` leads: its answer may never come,
    /// and whoever waits for it could long have asked again elsewhere.
    pub async fn superseded(&self, leader: NodeId, grace: Duration) {
        let own = self.node_id;
        let is_other = |now: &Leadership| match now {
            Leadership::Leading { .. } => leader != own,
            Leadership::Waiting { leader: known } => known.is_some_and(|known| known != leader),
            Leadership::Stopped => true,
        };
        let mut leadership = self.leadership();
        while leadership.wait_for(is_other).await.is_ok() {
            tokio::time::sleep(grace).await;
            // What is known may lag behind what the caller goes by; then it was wrong for a moment.
            if is_other(&leadership.borrow()) {
                return;
            }
        }
    }

    /// Resolves with the reason once the Raft core can no longer work (a failed sync, a diverged tree).
    pub async fn fatal(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "consensus has stopped".to_owned();
            }
        }
    }

    /// Waits until this node leads and has applied an entry of its own term.
    pub async fn wait_leading(&self, timeout: Duration) -> Result<u64, ConsensusError> {
        let mut leadership = self.leadership();
        let waited = tokio::time::timeout(timeout, async {
            loop {
                match *leadership.borrow_and_update() {
                    Leadership::Leading { term } => return Ok(term),
                    Leadership::Stopped => {
                        let reason = self.health_check().fatal.unwrap_or_default();
                        return Err(ConsensusError::Stopped(reason));
                    }
                    Leadership::Waiting { .. } => {}
                }
                if leadership.changed().await.is_err() {
                    return Err(ConsensusError::Stopped(
                        "no more news of leadership".to_owned(),
                    ));
                }
            }
        })
        .await;
        waited.unwrap_or(Err(ConsensusError::NoQuorum))
    }

    /// Stops the Raft core. The store is closed by its owner afterwards.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.raft
            .shutdown()
            .await
            .map_err(|error| io::Error::other(error.to_string()))
    }
}

/// A proposal on its way.
#[derive(Debug)]
pub struct PendingProposal {
    receiver: Option<oneshot::Receiver<openraft::raft::ClientWriteResult<TypeConfig>>>,
    failed: Option<String>,
}

impl PendingProposal {
    /// Waits for its result. May be called again after being cancelled.
    pub async fn result(&mut self) -> ProposalResult {
        let Some(receiver) = &mut self.receiver else {
            return ProposalResult::Unknown(self.failed.clone().unwrap_or_default());
        };
        match receiver.await {
            Ok(Ok(response)) => ProposalResult::Applied(response.data),
            Ok(Err(error)) => refused(error),
            // The core dropped the responder: it stopped, or a snapshot superseded the entry.
            Err(_) => {
                ProposalResult::Unknown("the proposal was dropped without an answer".to_owned())
            }
        }
    }
}

/// Turns the core's metrics into a watch of leadership alone. It listens to what changes with every entry only while a
/// new leader waits for the first entry of its term: a busy leader is not woken for it.
fn follow_leadership(raft: &RaftHandle) -> watch::Receiver<Leadership> {
    let mut metrics = raft.metrics();
    let mut server = raft.server_metrics();
    let (sender, receiver) = watch::channel(leadership_of(&metrics.borrow_watched()));
    tokio::spawn(async move {
        loop {
            // Decided by the value that woke the task: the core sends its server metrics before the complete ones.
            let (state, term, leader) = {
                let server = server.borrow_and_update();
                (
                    server.state,
                    server.vote.leader_id.term,
                    server.current_leader,
                )
            };
            let now = {
                let metrics = metrics.borrow_and_update();
                match leadership_of(&metrics) {
                    Leadership::Leading { term: led }
                        if state != ServerState::Leader || led != term =>
                    {
                        Leadership::Waiting {
                            leader: leader.filter(|id| *id != metrics.id),
                        }
                    }
                    other => other,
                }
            };
            sender.send_if_modified(|last| std::mem::replace(last, now) != now);
            let alive = match now {
                Leadership::Stopped => return,
                Leadership::Leading { .. } => tokio::select! {
                    changed = server.changed() => changed.is_ok(),
                    () = sender.closed() => return,
                },
                Leadership::Waiting { .. } => tokio::select! {
                    changed = metrics.changed() => changed.is_ok(),
                    changed = server.changed() => changed.is_ok(),
                    () = sender.closed() => return,
                },
            };
            if !alive {
                sender.send_replace(Leadership::Stopped);
                return;
            }
        }
    });
    receiver
}

fn leadership_of(metrics: &RaftMetrics<TypeConfig>) -> Leadership {
    if metrics.running_state.is_err() || metrics.state == ServerState::Shutdown {
        return Leadership::Stopped;
    }
    let term = metrics.current_term;
    let settled = metrics
        .last_applied
        .is_some_and(|id| id.leader_id.term == term);
    if metrics.state == ServerState::Leader && settled {
        Leadership::Leading { term }
    } else {
        Leadership::Waiting {
            leader: metrics.current_leader.filter(|id| *id != metrics.id),
        }
    }
}

fn refused(error: ClientWriteError<TypeConfig>) -> ProposalResult {
    match error {
        ClientWriteError::ForwardToLeader(forward) => ProposalResult::Refused {
            leader: forward.leader_id,
        },
        // The entry was in this node's log and another leader's log replaced it; it may still commit elsewhere.
        ClientWriteError::LogEntryDiscarded(ForwardToLeader { leader_id, .. }) => {
            ProposalResult::Unknown(format!(
                "leadership changed before it was answered, leader now {leader_id:?}"
            ))
        }
        other => ProposalResult::Unknown(other.to_string()),
    }
}

fn write_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ConsensusError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ConsensusError::NotLeader {
                leader: forward.leader_id,
            }
        }
        // Two administrators at once: one waits for the other.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => {
            ConsensusError::Unavailable("another change of the membership is under way".to_owned())
        }
        RaftError::APIError(
            ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_),
        ) => ConsensusError::Unavailable(
            "the membership or leadership has just changed: the change may or may not have been made"
                .to_owned(),
        ),
        RaftError::APIError(error) => ConsensusError::Refused(error.to_string()),
        RaftError::Fatal(fatal) => fatal_error(&fatal),
    }
}

fn fatal_error(fatal: &Fatal<TypeConfig>) -> ConsensusError {
    ConsensusError::Stopped(fatal.to_string())
}
