//! The checkpoint a node shows never goes back, not over a restart either: who remembers the one shown before would have
//! to take the older one for a rollback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use scribe::cluster::files::ClusterFiles;
use scribe::cluster::wire::{CheckpointMessage, kind};
use scribe::keys::LastSigned;
use scribe::node::{Node, Published};
use scribe::peer::{Lane, PeerOptions, Pool, Security, Wait};

use crate::test_cluster::TestCluster;
use crate::test_ledger::{put, wait_until};

/// Appends, and waits until a checkpoint covers it.
async fn publish(node: &Node, key: &str) -> Arc<Published> {
    let appended = node.append(put(key, "v")).await.unwrap();
    node.publish(appended.index.tree_size()).await.unwrap()
}

/// Waits until a node shows a checkpoint of at least this size.
async fn shows(node: &Node, published: &Published) -> Arc<Published> {
    wait_until(|| {
        let newest = node.checkpoint();
        newest.is_some_and(|newest| newest.size >= published.size)
    })
    .await;
    node.checkpoint().unwrap()
}

/// The connections of a member to others.
fn pool_of(cluster: &TestCluster, id: u64) -> Pool {
    let files = ClusterFiles::load(&cluster.key_dir(id)).unwrap().unwrap();
    Pool::new(PeerOptions {
        cluster_id: files.cluster_id,
        node_id: id,
        security: Security::Tls(files.tls_identity().unwrap()),
        timeouts: Default::default(),
        forward_connections: 1,
    })
}

/// A voter, which cosigned what it shows, and a node that has just joined, which only shows what others signed: each is
/// stopped while it shows the newer of two checkpoints, starts alone, and is sent the older one, as by a leader that was cut
/// off before the newer one was made. Neither shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_restarted_does_not_show_a_smaller_checkpoint_than_before() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let learner = cluster.join(leader).await;
    let voter = *cluster
        .ids()
        .iter()
        .find(|id| ![leader, learner].contains(*id))
        .unwrap();
    let targets = [voter, learner];
    let older = publish(cluster.node(leader), "older").await;
    for id in targets {
        shows(cluster.node(id), &older).await;
    }
    let newer = publish(cluster.node(leader), "newer").await;
    assert!(newer.size > older.size);
    for id in targets {
        let shown = shows(cluster.node(id), &newer).await;
        let recorded = LastSigned::load(&cluster.key_dir(id)).unwrap().unwrap();
        assert!(
            recorded.size >= shown.size,
            "node {id} shows {}, and has {} on disk",
            shown.size,
            recorded.size
        );
    }
    for id in cluster.ids() {
        cluster.stop(id).await;
    }

    let pool = pool_of(&cluster, leader);
    let message = CheckpointMessage {
        note: older.note.clone(),
    };
    for id in targets {
        cluster.start(id).await;
        let node = cluster.node(id);
        assert!(node.applied_size() >= older.size, "it could show the older");
        let parts = vec![Bytes::from(message.encode_to_vec())];
        let wait = Wait::Deadline(Duration::from_secs(20));
        let address = cluster.raft_addr(id);
        pool.call(id, &address, Lane::Control, kind::CHECKPOINT, parts, wait)
            .await
            .unwrap();
        let shown = node.checkpoint().map(|shown| shown.size);
        assert_eq!(shown, None, "node {id} showed {} before", newer.size);
        cluster.stop(id).await;
    }

    // With the others again, each shows what is not smaller.
    for id in [leader, voter, learner] {
        cluster.start(id).await;
    }
    for id in targets {
        shows(cluster.node(id), &newer).await;
    }
    cluster.stop_all().await;
}
