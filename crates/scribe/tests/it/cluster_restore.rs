//! A node that lost log entries it had acknowledged: it gets them back from the others, and does not vote before it has.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use scribe::keys::LastSigned;
use scribe_proof::index::LeafIndex;

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{check_log, index_let_go, put};

/// The segment that is written to, of a stopped node.
fn open_segment(cluster: &TestCluster, id: u64) -> PathBuf {
    let log = cluster.data_dir(id).join("log");
    let mut files: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name != "next.seg"))
        .collect();
    files.sort();
    files.pop().unwrap()
}

fn flip(path: &PathBuf, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// Where the frame with this value lies.
fn place_of(path: &PathBuf, value: &str) -> usize {
    let bytes = fs::read(path).unwrap();
    let found = bytes
        .windows(value.len())
        .position(|bytes| bytes == value.as_bytes());
    found.unwrap()
}

async fn write(cluster: &TestCluster, through: u64, values: &[&str]) -> Vec<LeafIndex> {
    let mut indexes = Vec::new();
    for value in values {
        let written = cluster.node(through).append(put("key", value)).await;
        indexes.push(written.unwrap().index);
    }
    indexes
}

/// Waits until a node votes again, and checks all of it.
async fn whole_again(cluster: &TestCluster, id: u64) {
    eventually("it votes again", async || {
        cluster.node(id).consensus().restoring().is_none()
    })
    .await;
    assert!(!cluster.data_dir(id).join("restoring").exists());
    let (size, _) = cluster.same_everywhere().await;
    check_log(cluster.node(id), size.get()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_acknowledged_frame_is_fetched_again() {
    let mut cluster = TestCluster::new(3).await;
    for leads in [false, true] {
        let leader = cluster.leader().await;
        let term = cluster.node(leader).health().current_term;
        let id = if leads {
            leader
        } else {
            cluster.follower().await
        };
        write(
            &cluster,
            leader,
            &["before", "a value to lose", "after", "and after"],
        )
        .await;
        cluster.same_everywhere().await;
        cluster.stop(id).await;
        index_let_go(&cluster.data_dir(id).join("index"));
        let path = open_segment(&cluster, id);
        flip(&path, place_of(&path, "a value to lose"));
        cluster.start(id).await;
        assert!(cluster.node(id).open_report().log.lost.is_some());
        whole_again(&cluster, id).await;
        if !leads {
            // The leader was told that this node's log goes back, and led on.
            assert_eq!(cluster.node(leader).health().current_term, term);
            assert!(cluster.node(leader).health().is_leader);
        }
        cluster.leader().await;
        write(&cluster, id, &["goes on"]).await;
    }
    // It votes and leads like any other: with one of the others away, its vote is needed.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    cluster.leader().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_vote_nobody_leads_who_lacks_what_it_lost() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.all_but(leader);
    let (damaged, behind) = (followers[0], followers[1]);
    // Committed by the leader and one follower; the other one never hears of it.
    cluster.stop(behind).await;
    let acknowledged = write(&cluster, leader, &["one", "two to lose", "three", "four"]).await;
    cluster.same_everywhere().await;
    cluster.stop(damaged).await;
    cluster.stop(leader).await;
    index_let_go(&cluster.data_dir(damaged).join("index"));
    let path = open_segment(&cluster, damaged);
    flip(&path, place_of(&path, "two to lose"));
    // Those two are a majority, and neither has what was acknowledged.
    cluster.start(damaged).await;
    cluster.start(behind).await;
    let withheld = || {
        cluster
            .node(damaged)
            .consensus()
            .votes_withheld()
            .load(Ordering::Relaxed)
    };
    eventually("its vote is asked for", async || withheld() > 4).await;
    for id in [damaged, behind] {
        assert!(!cluster.node(id).health().is_leader, "node {id} leads");
    }
    assert!(cluster.node(damaged).ready().is_err());
    cluster.start(leader).await;
    whole_again(&cluster, damaged).await;
    for id in cluster.ids() {
        for (index, value) in acknowledged
            .iter()
            .zip(["one", "two to lose", "three", "four"])
        {
            let entry = cluster.node(id).entry(*index).unwrap().unwrap();
            assert_eq!(entry.value(), value, "entry {index} of node {id}");
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_others_cannot_lead_alone_it_refuses_to_start() {
    let mut cluster = TestCluster::new(2).await;
    let leader = cluster.leader().await;
    let id = cluster.follower().await;
    write(&cluster, leader, &["before", "a value to lose", "after"]).await;
    cluster.same_everywhere().await;
    cluster.stop(id).await;
    index_let_go(&cluster.data_dir(id).join("index"));
    let path = open_segment(&cluster, id);
    let before = fs::read(&path).unwrap();
    let place = place_of(&path, "a value to lose");
    flip(&path, place);
    let error = cluster.try_start(id).await.unwrap_err();
    assert!(error.to_string().contains("is damaged at byte"), "{error}");
    assert!(error.hint().is_some());
    flip(&path, place);
    assert!(fs::read(&path).unwrap() == before, "nothing was cut");
    cluster.start(id).await;
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_signed_for_more_than_its_files_show_is_an_older_copy() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let id = cluster.follower().await;
    write(&cluster, leader, &["before", "a value to lose", "after"]).await;
    let (size, _) = cluster.same_everywhere().await;
    cluster.node(leader).publish(size).await.unwrap();
    eventually("it has signed for all of it", async || {
        let last = LastSigned::load(&cluster.key_dir(id)).unwrap();
        last.is_some_and(|last| last.size >= size)
    })
    .await;
    cluster.stop(id).await;
    index_let_go(&cluster.data_dir(id).join("index"));
    // Nothing is left behind the damaged place that could show how far the log was.
    let path = open_segment(&cluster, id);
    let mut bytes = fs::read(&path).unwrap();
    let place = place_of(&path, "a value to lose");
    bytes.truncate(place);
    fs::write(&path, bytes).unwrap();
    cluster.try_start(id).await.unwrap_err();
    assert!(!cluster.data_dir(id).join("restoring").exists());
    cluster.stop_all().await;
}
