//! Bytes that changed on the disk of a stopped node: what each kind of file does about it, at the next start and under
//! `check`. The store's own tests flip every byte; here it is the whole node that is asked, once per kind of file.

use std::fs;
use std::path::{Path, PathBuf};

use scribe::node::{Node, StartError};

use crate::test_ledger::{TestLedger, index_let_go, put, wait_until};

/// A stopped ledger with a few sealed segments and a log behind them.
async fn stopped() -> TestLedger {
    let ledger = TestLedger::start().await;
    for round in 0..3 {
        let writes = (0..400)
            .map(|n| put(&format!("key {n}"), &format!("round {round} value {n}")))
            .collect();
        for outcome in ledger.node.append_many(writes).await {
            outcome.unwrap();
        }
    }
    // The sealer works on its own thread, at its own pace.
    wait_until(|| ledger.node.sealed_segments() >= 2).await;
    ledger.node.shutdown().await;
    index_let_go(&ledger.options.data_dir.join("index"));
    ledger
}

fn segments(ledger: &TestLedger) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(ledger.options.data_dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name != "next.seg"))
        .collect();
    files.sort();
    files
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

async fn start(ledger: &TestLedger) -> Result<Node, StartError> {
    Node::start(ledger.options.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_acknowledged_frame_behind_the_last_sealed_segment_refuses_to_start() {
    let ledger = stopped().await;
    let last = segments(&ledger).pop().unwrap();
    flip(&last, 64 + 100);
    let error = start(&ledger).await.unwrap_err();
    assert!(error.to_string().contains("is damaged at byte"), "{error}");
    assert!(error.hint().is_some(), "says how to go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_sealed_segment_is_named_and_the_rest_is_served() {
    // In the middle, and in the first entries of all, which a start looks at.
    for offset in [None, Some(64 + 64 + 10), Some(64 + 400)] {
        a_flip_in_the_first_segment_is_named(offset).await;
    }
}

async fn a_flip_in_the_first_segment_is_named(offset: Option<usize>) {
    let ledger = stopped().await;
    let first = segments(&ledger).remove(0);
    let middle = fs::read(&first).unwrap().len() / 2;
    flip(&first, offset.unwrap_or(middle));
    let node = start(&ledger).await.unwrap();
    let damage = node.check(|_, _| {}).unwrap_err().to_string();
    let name = first.file_name().unwrap().to_string_lossy().into_owned();
    assert!(damage.contains(&name), "{damage} should name {name}");
    // What lies in other segments is served, and writes go on.
    let size = node.applied_size();
    let newest = node.latest(b"key 399", size).unwrap().unwrap();
    assert_eq!(newest.value(), "round 2 value 399");
    node.append(put("still", "works")).await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_tree_file_is_named_or_made_again_but_never_believed() {
    let ledger = stopped().await;
    let tree = ledger.options.data_dir.join("tree/L0");
    flip(&tree, 40);
    match start(&ledger).await {
        Ok(node) => {
            // Either the start noticed and derived it again, or the check names it.
            if let Err(damage) = node.check(|_, _| {}) {
                assert!(damage.to_string().contains("L0"), "{damage}");
            }
            node.shutdown().await;
        }
        // The root that was signed last no longer follows from the tree: not served at all.
        Err(error) => assert!(error.to_string().contains("root hash"), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_index_is_made_again() {
    for missing in [false, true] {
        let ledger = stopped().await;
        let index = ledger.options.data_dir.join("index");
        if missing {
            fs::remove_dir_all(&index).unwrap();
        } else {
            for path in files_below(&index) {
                let length = fs::metadata(&path).unwrap().len();
                fs::write(&path, vec![0xa5; length as usize]).unwrap();
            }
        }
        let node = start(&ledger).await.unwrap();
        node.check(|_, _| {}).unwrap();
        let size = node.applied_size();
        assert_eq!(
            node.latest(b"key 7", size).unwrap().unwrap().value(),
            "round 2 value 7"
        );
        assert_eq!(node.history(b"key 7", size, 10).unwrap().len(), 3);
        node.shutdown().await;
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_manifest_is_made_again_from_the_segments() {
    let ledger = stopped().await;
    fs::remove_file(ledger.options.data_dir.join("MANIFEST")).unwrap();
    let node = start(&ledger).await.unwrap();
    node.check(|_, _| {}).unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_refuses_to_start_or_is_made_again() {
    let ledger = stopped().await;
    flip(&ledger.options.data_dir.join("MANIFEST"), 30);
    match start(&ledger).await {
        Ok(node) => {
            node.check(|_, _| {}).unwrap();
            node.shutdown().await;
        }
        Err(error) => assert!(error.to_string().contains("MANIFEST"), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_rotten_vote_slot_is_survived_and_two_refuse_to_start() {
    let ledger = stopped().await;
    let vote = ledger.options.data_dir.join("vote");
    flip(&vote, 20);
    let node = start(&ledger).await.unwrap();
    node.append(put("still", "works")).await.unwrap();
    node.shutdown().await;
    flip(&vote, 20);
    flip(&vote, 21);
    flip(&vote, 4_096 + 20);
    let error = start(&ledger).await.unwrap_err();
    assert!(error.to_string().contains("vote"), "{error}");
}
