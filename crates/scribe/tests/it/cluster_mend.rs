//! Damaged sealed segments in a cluster: the node notices by itself, fetches them again from the others, and never gives
//! out a byte that was not written.
//!
//! `SCRIBE_MEND_BYTES` sets how much of a node is lost in the last test, in segments of full size; `--nocapture` shows how
//! long it took.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use scribe_proof::index::LeafIndex;
use sha2::{Digest, Sha256};

use crate::test_cluster::{TestCluster, eventually, eventually_within};
use crate::test_ledger::{check_log, index_let_go, put};

/// Sealed segments each of these clusters has at least.
const SEGMENTS: usize = 7;

/// A cluster with the same sealed segments on every node. `scrub` is how fast they are re-read.
async fn sealed_cluster(scrub: u64) -> TestCluster {
    let cluster = TestCluster::with(3, |options| options.scrub_bytes_per_second = scrub).await;
    let through = cluster.leader().await;
    let mut round = 0;
    while cluster.node(through).sealed_segments() < SEGMENTS {
        let writes = (0..50)
            .map(|n| put(&format!("key {n}"), &value_of(round, n)))
            .collect();
        for outcome in cluster.node(through).append_many(writes).await {
            outcome.unwrap();
        }
        round += 1;
    }
    cluster.same_everywhere().await;
    eventually("every node has sealed the same", async || {
        let mut counts = cluster
            .ids()
            .into_iter()
            .map(|id| cluster.node(id).sealed_segments());
        let first = counts.next();
        counts.all(|count| Some(count) == first)
    })
    .await;
    cluster
}

fn value_of(round: usize, n: usize) -> String {
    format!("{round} {n} {}", "x".repeat(100))
}

/// The files of a node's sealed segments, oldest first.
fn files(cluster: &TestCluster, id: u64) -> Vec<PathBuf> {
    let log = cluster.data_dir(id).join("log");
    let sealed = cluster.node(id).sealed_list();
    let name = |first: u64| log.join(format!("{first:016x}.seg"));
    sealed
        .iter()
        .map(|segment| name(segment.first_log_index.0))
        .collect()
}

fn sha256(path: &Path) -> Option<[u8; 32]> {
    Some(Sha256::digest(fs::read(path).ok()?).into())
}

/// Bytes changed in the place they are, as a disk does it.
fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

fn length(path: &Path) -> usize {
    fs::metadata(path).unwrap().len() as usize
}

/// Something else for each of the first segments: header, frames, footer, its end, the file.
fn harm_each(files: &[PathBuf]) -> usize {
    flip(&files[0], 20);
    flip(&files[1], length(&files[1]) / 2);
    flip(&files[2], length(&files[2]) - 100);
    let file = fs::File::options().write(true).open(&files[3]).unwrap();
    file.set_len(length(&files[3]) as u64 / 2).unwrap();
    fs::remove_file(&files[4]).unwrap();
    fs::write(&files[5], vec![0; length(&files[5])]).unwrap();
    6
}

/// What the first sealed segments must be, by the copy of a node nothing has happened to.
fn good(cluster: &TestCluster, id: u64) -> Vec<[u8; 32]> {
    let files = files(cluster, id);
    files.iter().map(|path| sha256(path).unwrap()).collect()
}

/// Waits until a node's sealed files are these, and reads all of it.
async fn whole_again(cluster: &TestCluster, id: u64, files: &[PathBuf], good: &[[u8; 32]]) {
    eventually("every segment is what it was", async || {
        files
            .iter()
            .zip(good)
            .all(|(path, good)| sha256(path) == Some(*good))
    })
    .await;
    eventually("nothing is being mended", async || {
        cluster.node(id).mend_stats().progress() == (0, 0)
    })
    .await;
    check_log(cluster.node(id), cluster.node(id).applied_size().get()).await;
}

fn mended(cluster: &TestCluster, id: u64) -> u64 {
    cluster
        .node(id)
        .mend_stats()
        .segments_mended
        .load(Ordering::Relaxed)
}

fn failures(cluster: &TestCluster, id: u64) -> u64 {
    cluster
        .node(id)
        .mend_stats()
        .failures
        .load(Ordering::Relaxed)
}

/// Every value of a node by the index of its entry, as another node has it.
fn values(cluster: &TestCluster, id: u64) -> BTreeMap<u64, Vec<u8>> {
    let size = cluster.node(id).applied_size().get();
    let entry = |index| {
        cluster
            .node(id)
            .entry(LeafIndex::new(index))
            .unwrap()
            .unwrap()
    };
    (0..size)
        .map(|index| (index, entry(index).value().to_vec()))
        .collect()
}

/// Reads everything once; what is read is what was written. Returns how many reads were refused.
fn read_all(cluster: &TestCluster, id: u64, values: &BTreeMap<u64, Vec<u8>>) -> usize {
    let mut refused = 0;
    for (index, value) in values {
        match cluster.node(id).entry(LeafIndex::new(*index)) {
            Ok(Some(entry)) => assert_eq!(entry.value(), value[..], "entry {index}"),
            // Damaged, or not applied again since the start.
            Ok(None) | Err(_) => refused += 1,
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_segments_were_damaged_while_it_was_stopped_comes_back_whole() {
    let mut cluster = sealed_cluster(100_000_000).await;
    let values = values(&cluster, cluster.leader().await);
    for leads in [false, true] {
        let leader = cluster.leader().await;
        let id = if leads {
            leader
        } else {
            cluster.follower().await
        };
        let other = cluster
            .ids()
            .into_iter()
            .find(|other| *other != id)
            .unwrap();
        let (files, good) = (files(&cluster, id), good(&cluster, other));
        cluster.stop(id).await;
        index_let_go(&cluster.data_dir(id).join("index"));
        let harmed = harm_each(&files);
        cluster.start(id).await;
        read_all(&cluster, id, &values);
        whole_again(&cluster, id, &files, &good).await;
        assert_eq!(mended(&cluster, id), harmed as u64);
        assert_eq!(read_all(&cluster, id, &values), 0);
        cluster.same_everywhere().await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_has_its_segment_fetched_again_while_the_node_runs() {
    let cluster = sealed_cluster(0).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let values = values(&cluster, leader);
    for id in [follower, leader] {
        let other = if id == leader { follower } else { leader };
        let (files, good) = (files(&cluster, id), good(&cluster, other));
        for at in [3, 5] {
            flip(&files[1], length(&files[1]) * at / 8);
        }
        flip(&files[2], length(&files[2]) / 3);
        assert_eq!(mended(&cluster, id), 0, "nobody has looked yet");
        // Reads come from memory where they were just read; the check reads the disk.
        let refused = read_all(&cluster, id, &values);
        let damage = cluster.node(id).check(|_, _| {});
        assert!(refused > 0 || damage.is_err());
        while sha256(&files[1]) != Some(good[1]) || sha256(&files[2]) != Some(good[2]) {
            read_all(&cluster, id, &values);
            // It stops at the first damaged place, so it may take two.
            let _ = cluster.node(id).check(|_, _| {});
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        whole_again(&cluster, id, &files, &good).await;
        assert_eq!(read_all(&cluster, id, &values), 0);
        assert_eq!(cluster.leader().await, leader, "it led on");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrubber_finds_what_nobody_reads() {
    // A second and a half for each segment: the newest is looked at long after it was damaged.
    let mut cluster = sealed_cluster(40_000).await;
    let id = cluster.follower().await;
    cluster.stop(id).await;
    index_let_go(&cluster.data_dir(id).join("index"));
    cluster.start(id).await;
    cluster.leader().await;
    let other = cluster.leader().await;
    let (files, good) = (files(&cluster, id), good(&cluster, other));
    let newest = files.len() - 1;
    flip(&files[newest], length(&files[newest]) / 2);
    whole_again(&cluster, id, &files, &good).await;
    assert_eq!(mended(&cluster, id), 1);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_damaged_on_every_node_at_once_are_all_mended() {
    let mut cluster = sealed_cluster(100_000_000).await;
    let ids = cluster.ids();
    let good = good(&cluster, ids[0]);
    let all: Vec<Vec<PathBuf>> = ids.iter().map(|id| files(&cluster, *id)).collect();
    for id in &ids {
        cluster.stop(*id).await;
    }
    let mut harmed = [0; 3];
    for number in 0..SEGMENTS - 1 {
        // Another segment on each node, in turn; the last but one on all of them, each at another place.
        for (node, files) in all.iter().enumerate() {
            let everywhere = number == SEGMENTS - 2;
            if number % 3 == node || everywhere {
                let place = length(&files[number]) * (node + 2) / 7;
                flip(&files[number], place);
                harmed[node] += 1;
            }
        }
    }
    for id in &ids {
        cluster.start(*id).await;
    }
    for (id, files) in ids.iter().zip(&all) {
        whole_again(&cluster, *id, files, &good).await;
    }
    for (id, harmed) in ids.iter().zip(harmed) {
        assert_eq!(mended(&cluster, *id), harmed);
    }
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_copy_damaged_at_one_place_nothing_is_invented() {
    let cluster = sealed_cluster(0).await;
    let ids = cluster.ids();
    let good = good(&cluster, ids[0]);
    let all: Vec<Vec<PathBuf>> = ids.iter().map(|id| files(&cluster, *id)).collect();
    let place = length(&all[0][1]) / 2;
    for files in &all {
        flip(&files[1], place);
    }
    let damaged = sha256(&all[0][1]);
    for id in &ids {
        cluster.node(*id).check(|_, _| {}).unwrap_err();
    }
    eventually("every node has tried", async || {
        ids.iter().all(|id| failures(&cluster, *id) > 1)
    })
    .await;
    for (id, files) in ids.iter().zip(&all) {
        assert_eq!(sha256(&files[1]), damaged, "the file is left as it is");
        cluster.node(*id).check(|_, _| {}).unwrap_err();
        assert_eq!(mended(&cluster, *id), 0);
    }
    // Any node says so of every node.
    let statuses = cluster.node(ids[0]).cluster_status().await;
    for status in statuses {
        let said = status.status.unwrap();
        assert_eq!(said.mending_total, length(&all[0][1]) as u64);
        assert!(said.mending_done < said.mending_total);
    }
    // The ledger goes on, and one good copy is enough for all.
    let leader = cluster.leader().await;
    cluster
        .node(leader)
        .append(put("still", "works"))
        .await
        .unwrap();
    flip(&all[1][1], place);
    for (id, files) in ids.iter().zip(&all) {
        whole_again(&cluster, *id, files, &good).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_damaged_copy_is_not_believed_and_mends_its_own() {
    let mut cluster = sealed_cluster(0).await;
    let leader = cluster.leader().await;
    let followers = cluster.all_but(leader);
    let (id, peer) = (followers[0], followers[1]);
    let good = good(&cluster, leader);
    let (own, theirs) = (files(&cluster, id), files(&cluster, peer));
    // Nothing else makes the peer look: it does not scrub, and nobody reads there.
    flip(&theirs[3], length(&theirs[3]) / 2);
    cluster.stop(id).await;
    index_let_go(&cluster.data_dir(id).join("index"));
    fs::remove_file(&own[3]).unwrap();
    cluster.start(id).await;
    whole_again(&cluster, id, &own, &good).await;
    // It was asked first, because it does not lead.
    whole_again(&cluster, peer, &theirs, &good).await;
    assert_eq!(mended(&cluster, id), 1);
    assert_eq!(mended(&cluster, peer), 1);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_every_sealed_segment_has_them_all_again() {
    let wanted = std::env::var("SCRIBE_MEND_BYTES");
    let full = wanted.is_ok();
    let wanted: u64 = wanted.map_or(2 << 20, |text| text.parse().unwrap());
    let mut cluster = TestCluster::with(3, |options| {
        if full {
            options.segment_bytes_max = scribe::limits::SEGMENT_BYTES_MAX;
            options.segment_leaves_max = scribe::limits::SEGMENT_LEAVES_MAX;
        }
    })
    .await;
    let leader = cluster.leader().await;
    let sealed_bytes = |cluster: &TestCluster, id: u64| {
        let sealed = cluster.node(id).sealed_list();
        sealed
            .iter()
            .map(|segment| segment.file_length)
            .sum::<u64>()
    };
    let value = "x".repeat(2_000);
    let mut round = 0;
    while sealed_bytes(&cluster, leader) < wanted {
        let writes = (0..500)
            .map(|n| put(&format!("key {n}"), &format!("{round} {value}")))
            .collect();
        for outcome in cluster.node(leader).append_many(writes).await {
            outcome.unwrap();
        }
        round += 1;
    }
    let id = cluster.follower().await;
    eventually("the other one has sealed as much", async || {
        sealed_bytes(&cluster, id) >= wanted
    })
    .await;
    let (own, good) = (files(&cluster, id), good(&cluster, id));
    let bytes = sealed_bytes(&cluster, id);
    cluster.stop(id).await;
    index_let_go(&cluster.data_dir(id).join("index"));
    for path in &own {
        fs::remove_file(path).unwrap();
    }
    let started = Instant::now();
    cluster.start(id).await;
    let stats = cluster.node(id).mend_stats();
    eventually_within(
        std::time::Duration::from_secs(600),
        "all is mended",
        async || stats.segments_mended.load(Ordering::Acquire) == own.len() as u64,
    )
    .await;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} segments, {bytes} bytes, mended {seconds:.1} s after the start: {:.1} s for each GiB",
        own.len(),
        seconds * f64::from(1 << 30) / bytes as f64
    );
    assert_eq!(stats.mended_bytes.load(Ordering::Relaxed), bytes);
    whole_again(&cluster, id, &own, &good).await;
    cluster.stop_all().await;
}
