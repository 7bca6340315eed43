//! Sealed log entries that a leader cannot read any more, and a follower that needs them.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{check_log, put};

/// The file of the sealed segment that is served as log entries and is not the newest.
fn segment_file(cluster: &TestCluster, id: u64) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(cluster.data_dir(id).join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "seg"))
        .collect();
    files.sort();
    files[0].clone()
}

/// Flips bits of what the segment's frames hold; again, and they are as they were.
fn flip(path: &Path) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    // All of a stretch in the middle: one byte might be in a part that nobody has to read.
    let mut bytes = [0; 512];
    let at = 24 * 1_024;
    file.read_exact_at(&mut bytes, at).unwrap();
    for byte in &mut bytes {
        *byte ^= 0x20;
    }
    file.write_all_at(&bytes, at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_entry_that_cannot_be_read_ends_the_stream_and_comes_as_a_segment() {
    let mut cluster = TestCluster::new(3).await;
    let away = cluster.follower().await;
    cluster.stop(away).await;
    let through = cluster.leader().await;
    // One segment sealed and a second one, so that neither is new enough to be checked at a start, nor old enough to
    // be sent as a file anyway. Counted in bytes: segments are sealed some time after they are full.
    let bytes = cluster.options(through).segment_bytes_max * 5 / 2;
    let mut round = 0;
    while cluster.node(through).log_stats().bytes_written < bytes {
        let writes = (0..50)
            .map(|n| put(&format!("key {n}"), &format!("{round} {}", "x".repeat(100))))
            .collect();
        for outcome in cluster.node(through).append_many(writes).await {
            outcome.unwrap();
        }
        round += 1;
    }
    eventually("both have sealed", async || {
        cluster
            .ids()
            .iter()
            .all(|id| cluster.node(*id).sealed_segments() == 2)
    })
    .await;
    assert_eq!(cluster.node(through).consensus().metrics().purged, None);
    // What is in memory could be sent; after a restart nothing is.
    let present = cluster.ids();
    for id in &present {
        cluster.stop(*id).await;
    }
    for id in &present {
        flip(&segment_file(&cluster, *id));
        cluster.start(*id).await;
    }
    let leader = cluster.leader().await;
    cluster.start(away).await;
    // With the stream at its end the core can purge what cannot be read, which is how it comes to send a snapshot.
    eventually("the leader sends entries no more", async || {
        cluster.node(leader).consensus().metrics().purged.is_some()
    })
    .await;
    // The file is damaged, too, so nobody takes it; somebody restores it from a good copy.
    for id in &present {
        flip(&segment_file(&cluster, *id));
    }
    let (size, _) = cluster.same_everywhere().await;
    check_log(cluster.node(away), size.get()).await;
    let (fetched, _) = cluster.node(away).consensus().catch_up().bytes();
    assert!(fetched > 0, "the node caught up by entries alone");
    cluster.stop_all().await;
}
