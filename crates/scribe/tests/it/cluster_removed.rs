//! What a node that was removed can still do with its certificate, which nobody takes back: nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use scribe::cluster::files::ClusterFiles;
use scribe::cluster::wire::code;
use scribe::consensus::rpc::kind;
use scribe::node::Change;
use scribe::peer::{
    CallError, Lane, PeerOptions, PeerTimeouts, Pool, RefusalCode, Security, TlsIdentity, Wait,
};

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::put;

const WAIT: Wait = Wait::Deadline(Duration::from_secs(10));

// As in docs/format-wire.md.
#[derive(Clone, PartialEq, Message)]
struct Vote {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node_id: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct LogId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct VoteRequest {
    #[prost(message, required, tag = "1")]
    vote: Vote,
    #[prost(message, optional, tag = "2")]
    last_log_id: Option<LogId>,
    #[prost(bool, tag = "3")]
    leadership_transfer: bool,
}

#[derive(Clone, PartialEq, Message)]
struct VoteResponse {
    #[prost(message, required, tag = "1")]
    vote: Vote,
    #[prost(bool, tag = "2")]
    granted: bool,
}

/// Speaks with a member's certificate, and says what that member's program would not.
struct Impostor {
    id: u64,
    files: ClusterFiles,
    identity: Arc<TlsIdentity>,
}

impl Impostor {
    fn of(cluster: &TestCluster, id: u64) -> Self {
        let files = ClusterFiles::load(&cluster.key_dir(id)).unwrap().unwrap();
        let identity = files.tls_identity().unwrap();
        Self {
            id,
            files,
            identity,
        }
    }

    /// Connections that do not stand yet.
    fn pool(&self) -> Pool {
        Pool::new(PeerOptions {
            cluster_id: self.files.cluster_id,
            node_id: self.id,
            security: Security::Tls(Arc::clone(&self.identity)),
            timeouts: PeerTimeouts::default(),
            forward_connections: 1,
        })
    }

    /// Calls for an election in a term, with a log nobody has more of, as if leadership had been handed to it.
    async fn campaign(
        &self,
        pool: &Pool,
        cluster: &TestCluster,
        target: u64,
        term: u64,
    ) -> Result<VoteResponse, CallError> {
        let request = VoteRequest {
            vote: Vote {
                term,
                node_id: self.id,
                committed: false,
            },
            last_log_id: Some(LogId {
                term: cluster.node(target).health().current_term,
                index: 1 << 40,
            }),
            leadership_transfer: true,
        };
        let answer = call(pool, cluster, target, kind::VOTE, request.encode_to_vec()).await?;
        Ok(VoteResponse::decode(answer).unwrap())
    }
}

async fn call(
    pool: &Pool,
    cluster: &TestCluster,
    target: u64,
    kind: u8,
    body: Vec<u8>,
) -> Result<Bytes, CallError> {
    let address = cluster.raft_addr(target);
    let parts = vec![Bytes::from(body)];
    pool.call(target, &address, Lane::Control, kind, parts, WAIT)
        .await
}

fn term(cluster: &TestCluster, id: u64) -> u64 {
    cluster.node(id).health().current_term
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_past_the_lease_by_saying_that_leadership_was_handed_to_it() {
    let mut cluster = TestCluster::new(4).await;
    let leader = cluster.leader().await;
    let others = cluster.all_but(leader);
    let (member, removed) = (others[0], others[1]);
    let before = term(&cluster, leader);

    // A voter that nobody handed anything to: with its own process stopped, so that it does not disturb.
    cluster.stop(member).await;
    let impostor = Impostor::of(&cluster, member);
    let pool = impostor.pool();
    for id in cluster.ids() {
        let answer = impostor.campaign(&pool, &cluster, id, before + 1).await;
        let answer = answer.unwrap();
        assert!(!answer.granted, "node {id} voted");
        assert_eq!(term(&cluster, id), before, "node {id}");
    }
    // What breaks a rule of Raft is refused, which is not the same as being unreadable.
    let absurd = impostor.campaign(&pool, &cluster, leader, u64::MAX).await;
    assert!(
        matches!(
            absurd,
            Err(CallError::Remote {
                code: code::REFUSED,
                ..
            })
        ),
        "{absurd:?}"
    );
    let garbage = call(&pool, &cluster, leader, kind::VOTE, vec![0xff; 7]).await;
    assert!(
        matches!(
            garbage,
            Err(CallError::Remote {
                code: code::MALFORMED,
                ..
            })
        ),
        "{garbage:?}"
    );
    cluster.start(member).await;
    eventually("all four are in touch", async || {
        cluster
            .ids()
            .into_iter()
            .all(|id| cluster.node(id).ready().is_ok())
    })
    .await;

    // A node that was removed, which the followers may not have heard of yet.
    let remove = cluster.node(leader).administer(Change::Remove(removed));
    remove.await.unwrap();
    cluster.stop(removed).await;
    let impostor = Impostor::of(&cluster, removed);
    let pool = impostor.pool();
    for id in cluster.ids() {
        let answer = impostor.campaign(&pool, &cluster, id, before + 1).await;
        assert!(
            answer.as_ref().is_ok_and(|answer| !answer.granted) || is_removed(&answer),
            "{answer:?}"
        );
        assert_eq!(term(&cluster, id), before, "node {id}");
    }
    assert_eq!(cluster.leader().await, leader);
    let written = cluster.node(leader).append(put("after", "all")).await;
    written.unwrap();
    cluster.stop_all().await;
}

fn is_removed<T>(answer: &Result<T, CallError>) -> bool {
    matches!(
        answer,
        Err(CallError::Refused {
            code: RefusalCode::Removed,
            ..
        })
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_a_removed_node_are_closed_by_every_node() {
    let mut cluster = TestCluster::new(4).await;
    let leader = cluster.leader().await;
    let removed = cluster.follower().await;
    // Its own process is gone; what stands are connections that say nothing.
    cluster.stop(removed).await;
    let impostor = Impostor::of(&cluster, removed);
    let pool = impostor.pool();
    let open = |pool: &Pool| -> u64 { pool.stats().iter().map(|of| of.connections_open).sum() };
    for id in cluster.ids() {
        impostor.campaign(&pool, &cluster, id, 1).await.unwrap();
    }
    assert_eq!(open(&pool), 3);

    let remove = cluster.node(leader).administer(Change::Remove(removed));
    remove.await.unwrap();
    eventually(
        "every connection of the removed node is closed",
        async || open(&pool) == 0,
    )
    .await;
    // Nor does anybody let it in again.
    for id in cluster.ids() {
        let answer = impostor.campaign(&impostor.pool(), &cluster, id, 1).await;
        assert!(is_removed(&answer), "node {id}: {answer:?}");
    }
    cluster.stop_all().await;
}
