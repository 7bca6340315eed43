//! A follower whose disk is full, on a real file system of a few megabytes: it says so and stops, the others go on, and
//! it comes back when there is space.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use scribe::node::Change;

use crate::namespaces::skipped;
use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{check_log, put};

/// Room for the index and some segments.
const SIZE: &str = "size=48m";
/// The node on the small disk.
const SMALL: u64 = 3;

/// A file system in memory, mounted over a directory until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(at.to_owned()))
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-elses-file");
        let mut file = std::fs::File::create(&path).unwrap();
        for length in [64 * 1_024, 1_024, 1] {
            while file.write_all(&vec![b'x'; length]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_stops_and_comes_back_when_there_is_space() {
    let trial = tempfile::tempdir().unwrap();
    if let Err(reason) = SmallDisk::mount(trial.path()) {
        skipped("a follower with a full disk", &reason);
        return;
    }
    // Before the cluster's directory goes, so declared first and dropped by hand.
    let mounted: Arc<Mutex<Option<SmallDisk>>> = Arc::default();
    let mounting = Arc::clone(&mounted);
    let mut cluster = TestCluster::with(3, move |options| {
        if options.data_dir.to_string_lossy().contains("node-3") {
            *mounting.lock().unwrap() = Some(SmallDisk::mount(&options.data_dir).unwrap());
        }
    })
    .await;
    let disk = mounted.lock().unwrap().take().unwrap();
    if cluster.leader().await == SMALL {
        let change = Change::Transfer(1);
        cluster.node(SMALL).administer(change).await.unwrap();
        assert_ne!(cluster.leader().await, SMALL);
    }
    let leader = cluster.leader().await;
    cluster
        .node(leader)
        .append(put("before", "it"))
        .await
        .unwrap();
    let filler = disk.fill();

    // The others take every write, also those behind the one that did not fit.
    let mut written = 0;
    eventually("the node on the full disk says so", async || {
        let key = format!("key {written}");
        let appended = cluster.node(leader).append(put(&key, &"x".repeat(4_096)));
        appended.await.unwrap();
        written += 1;
        cluster.node(SMALL).ready().is_err_and(|reason| {
            let reason = reason.to_lowercase();
            reason.contains("no space") || reason.contains("full")
        })
    })
    .await;
    for number in 0..100 {
        let write = put(&format!("later {number}"), "value");
        cluster.node(leader).append(write).await.unwrap();
    }
    // It is in nobody's way, and refuses what it cannot keep.
    let refused = cluster.node(SMALL).append(put("through it", "v")).await;
    refused.unwrap_err();

    cluster.stop(SMALL).await;
    std::fs::remove_file(filler).unwrap();
    cluster.start(SMALL).await;
    let (size, _) = cluster.same_everywhere().await;
    assert!(size.get() > 100 + written);
    check_log(cluster.node(SMALL), size.get()).await;
    cluster.stop_all().await;
    drop(disk);
}
