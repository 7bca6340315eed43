//! Power cuts. A node on a simulated disk is cut off at a chosen disk operation; whatever the disk then keeps of what
//! was not synced, the next start must find every acknowledged write, unchanged, at its index.

use std::path::PathBuf;

use scribe::node::{AppendError, Appended, Node, NodeOptions};
use scribe::store::disk::Disk;
use scribe::store::index::IndexKind;
use scribe::store::sim_disk::SimDisk;
use scribe_proof::index::TreeSize;
use std::sync::Arc;
use std::time::Duration;

use crate::test_ledger::{check_log, options, put};

fn sim_options(directory: &std::path::Path) -> NodeOptions {
    NodeOptions {
        data_dir: PathBuf::from("/data"),
        segment_bytes_max: 8 * 1_024,
        segment_leaves_max: 24,
        publish_interval_ms: 5,
        ..options(directory)
    }
}

async fn start(options: &NodeOptions, disk: &SimDisk) -> Option<Node> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let started = Node::start_on(options.clone(), disk, IndexKind::Memory);
    tokio::time::timeout(Duration::from_secs(20), started)
        .await
        .ok()?
        .ok()
}

/// Writes until the disk is cut off, and returns what was acknowledged.
async fn write_until_cut(node: &Node, disk: &SimDisk, round: u64) -> Vec<(String, Appended)> {
    let mut acknowledged = Vec::new();
    for n in 0..40 {
        let keys: Vec<String> = (0..4).map(|k| format!("{round}/{n}/{k}")).collect();
        let writes = keys
            .iter()
            .map(|key| put(key, &format!("value of {key}")))
            .collect();
        let outcomes = tokio::select! {
            outcomes = node.append_many(writes) => outcomes,
            _ = node.fatal() => break,
        };
        for (key, outcome) in keys.into_iter().zip(outcomes) {
            match outcome {
                Ok(appended) => acknowledged.push((key, appended)),
                Err(AppendError::UnknownOutcome | AppendError::Unavailable(_)) => {}
                Err(other) => panic!("a power cut is no reason for `{other}`"),
            }
        }
        if disk.crashed() {
            break;
        }
    }
    acknowledged
}

async fn check_acknowledged(node: &Node, acknowledged: &[(String, Appended)]) {
    let size = node.applied_size();
    for (key, appended) in acknowledged {
        let entry = node
            .version(key.as_bytes(), appended.index)
            .unwrap()
            .unwrap_or_else(|| {
                panic!(
                    "acknowledged write {key} at index {} is gone (size {size})",
                    appended.index
                )
            });
        assert_eq!(entry.value(), format!("value of {key}"));
        assert_eq!(
            entry.leaf_hash(),
            appended.leaf_hash,
            "acknowledged write {key} is unchanged"
        );
    }
}

/// One life of a ledger: runs until operation `cut`, crashes, recovers, checks. `None` when the run ended before.
async fn live_and_die(cut: u64, seed: u64) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let options = sim_options(directory.path());
    let disk = SimDisk::new();
    disk.crash_at(cut);
    let mut acknowledged = Vec::new();
    if let Some(node) = start(&options, &disk).await {
        acknowledged = write_until_cut(&node, &disk, 0).await;
        node.shutdown().await;
    }
    let was_cut = disk.crashed();
    let survivor = disk.crash(seed);
    let node = start(&options, &survivor)
        .await
        .unwrap_or_else(|| panic!("no start after a cut at operation {cut}, seed {seed}"));
    check_acknowledged(&node, &acknowledged).await;
    check_log(&node, node.applied_size().get()).await;
    let after = node.append(put("after", "the cut")).await.unwrap();
    assert!(
        acknowledged
            .iter()
            .all(|(_, appended)| appended.index < after.index)
    );
    node.publish(after.tree_size).await.unwrap();
    node.shutdown().await;
    was_cut
}

/// Every disk operation of start, append, sync, seal, tree, manifest, vote and publish is a place to die.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_disk_operation_loses_no_acknowledged_write() {
    let mut cut = 0;
    let mut cuts = 0;
    loop {
        if !live_and_die(cut, cut * 31 + 7).await {
            break;
        }
        cuts += 1;
        // Every operation of the start, then every third: the steps repeat with each frame and segment.
        cut += if cut < 60 { 1 } else { 3 };
    }
    println!("{cuts} power cuts survived");
    assert!(
        cuts > 60,
        "only {cuts} cuts: the run must be long enough to seal segments"
    );
}

/// The control: a store that does not sync must be caught by the same test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_ignores_syncs_is_caught() {
    let directory = tempfile::tempdir().unwrap();
    let options = sim_options(directory.path());
    let mut lost = false;
    for seed in 0..10 {
        let disk = SimDisk::new();
        disk.ignore_syncs(true);
        let fresh = tempfile::tempdir().unwrap();
        let options = NodeOptions {
            key_dir: fresh.path().join("keys"),
            ..options.clone()
        };
        let Some(node) = start(&options, &disk).await else {
            continue;
        };
        let acknowledged = write_until_cut(&node, &disk, seed).await;
        assert!(!acknowledged.is_empty());
        let survivor = disk.crash(seed);
        node.shutdown().await;
        let found = match start(&options, &survivor).await {
            Some(node) => {
                let size = node.applied_size();
                node.shutdown().await;
                size
            }
            None => TreeSize::EMPTY,
        };
        lost |= acknowledged
            .iter()
            .any(|(_, appended)| !found.contains(appended.index));
    }
    assert!(
        lost,
        "without syncs, power cuts must lose acknowledged writes, or this test proves nothing"
    );
}
