//! The transport between nodes, as openraft sees it.
//!
//! A ledger of one voter has no peers, and this program carries no peer transport yet: every call to another node is
//! answered `Unreachable`, never with a made-up grant, so that a membership with a second voter waits instead of
//! pretending (a synthesized pre-vote grant would let an isolated node disturb the others).

use std::future::Future;

use openraft::OptionalSend;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::state_machine::SnapshotManifest;
use super::type_config::{NodeId, PeerAddress, TypeConfig};

/// Makes a `Network` for each peer.
#[derive(Debug, Clone, Default)]
pub struct NetworkFactory;

/// The way to one peer.
#[derive(Debug, Clone)]
pub struct Network {
    target: NodeId,
    address: PeerAddress,
}

impl Network {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        let text = format!(
            "node {} at {} cannot be reached: this node runs alone",
            self.target, self.address.raft_addr
        );
        Unreachable::new(&std::io::Error::new(std::io::ErrorKind::NotConnected, text))
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &PeerAddress) -> Network {
        Network {
            target,
            address: node.clone(),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotManifest;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: openraft::type_config::alias::VoteOf<TypeConfig>,
        _snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotManifest>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }

    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }
}
