//! Directories that were restored or copied: nothing is signed that could contradict what others hold.

use std::path::Path;

use scribe::keys::{LAST_SIGNED_FILE, LastSigned};
use scribe::node::{AppendError, Node, NodeOptions, PublishError};
use scribe::repair::{TrustError, trust_checkpoint};
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::key::SigningKey;
use scribe_proof::{Checkpoint, SignedCheckpoint};

use scribe_client::{Client, Wait};

use crate::cluster::copy_dir;
use crate::processes::{NodeProcess, command, impatient, patient};
use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{TestLedger, check_log, put};

const HINT: &str = "scribe repair --trust-checkpoint";

fn forget(options: &NodeOptions) {
    std::fs::remove_file(options.key_dir.join(LAST_SIGNED_FILE)).unwrap();
}

/// Serves what it has, signs and writes nothing, and says what to do.
async fn check_withheld(node: &Node, key: &str) {
    let size = node.applied_size();
    assert!(node.latest(key.as_bytes(), size).unwrap().is_some());
    assert!(node.ready().unwrap_err().contains(HINT));
    match node.append(put("new", "value")).await {
        Err(AppendError::Unavailable(reason)) => assert!(reason.contains(HINT), "{reason}"),
        other => panic!("{other:?}"),
    }
    match node.publish(size).await {
        Err(PublishError::Unavailable(reason)) => assert!(reason.contains(HINT), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(node.checkpoint().is_none());
}

fn refusal(options: &NodeOptions, note: &str) -> String {
    match trust_checkpoint(options, note).unwrap_err() {
        TrustError::Refused(rule) => rule,
        TrustError::Start(error) => panic!("{error}"),
    }
}

fn ledger_key(dir: &Path) -> SigningKey {
    let text = std::fs::read_to_string(dir.join("ledger.key")).unwrap();
    SigningKey::parse(text.trim_end()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_without_their_record_sign_nothing_until_shown_the_largest_checkpoint() {
    let mut ledger = TestLedger::start().await;
    ledger.put("key", "1").await;
    let early = ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap();
    ledger.node.shutdown().await;
    let options = ledger.options.clone();
    let copy = ledger.directory.path().join("copy");
    copy_dir(&options.data_dir, &copy);
    ledger.node = Node::start(options.clone()).await.unwrap();
    ledger.put("key", "2").await;
    let newest = ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap();
    let size = ledger.node.applied_size();
    ledger.node.shutdown().await;

    forget(&options);
    let node = Node::start(options.clone()).await.unwrap();
    check_withheld(&node, "key").await;
    assert_eq!(node.applied_size(), size, "nothing was written at start");
    node.shutdown().await;

    // Not of this ledger, not of this history, and not of a key of this ledger.
    let key = ledger_key(&options.key_dir);
    let signed = |key: &SigningKey, size, root| {
        let head = Checkpoint::new(key.name(), size, root);
        SignedCheckpoint::sign(head, &[key]).unwrap().to_text()
    };
    let stranger = SigningKey::from_seed(key.name(), &[9; 32]).unwrap();
    for (note, expected) in [
        (
            signed(&stranger, newest.size, newest.root),
            "is not signed by a key of this ledger",
        ),
        (
            signed(&key, newest.size, Hash([7; 32])),
            "the history differs",
        ),
        (
            signed(&key, newest.size.grown_by(1), Hash([7; 32])),
            "entries are missing",
        ),
        ("nonsense".to_owned(), "no checkpoint"),
    ] {
        let refused = refusal(&options, &note);
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(LastSigned::load(&options.key_dir).unwrap(), None);
    }
    trust_checkpoint(&options, &newest.note).unwrap();
    let last = LastSigned::load(&options.key_dir).unwrap().unwrap();
    assert_eq!((last.size, last.root), (newest.size, newest.root));
    // An earlier one takes nothing back.
    trust_checkpoint(&options, &early.note).unwrap();
    assert_eq!(LastSigned::load(&options.key_dir).unwrap(), Some(last));
    ledger.node = Node::start(options.clone()).await.unwrap();
    ledger.put("key", "3").await;
    check_log(&ledger.node, ledger.node.applied_size().get()).await;
    ledger.node.shutdown().await;

    // The data is older than what was shown to others: whoever shows that is told so.
    std::fs::remove_dir_all(&options.data_dir).unwrap();
    std::fs::rename(&copy, &options.data_dir).unwrap();
    forget(&options);
    let refused = refusal(&options, &newest.note);
    assert!(refused.contains("entries are missing"), "{refused}");
    let node = Node::start(options.clone()).await.unwrap();
    check_withheld(&node, "key").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_keys_do_not_begin_a_second_ledger_in_an_empty_directory() {
    let ledger = TestLedger::start().await;
    ledger.put("key", "1").await;
    let newest = ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap();
    ledger.node.shutdown().await;
    let options = ledger.options.clone();
    std::fs::remove_dir_all(&options.data_dir).unwrap();
    // With the record the start is refused; without it, as from a backup, nothing is written and nothing signed.
    let refused = Node::start(options.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("holds 0 leaves"), "{refused}");
    forget(&options);
    let node = Node::start(options.clone()).await.unwrap();
    assert_eq!(node.applied_size(), TreeSize::EMPTY);
    assert!(node.append(put("new", "value")).await.is_err());
    assert!(node.publish(TreeSize::new(1)).await.is_err());
    node.shutdown().await;
    let refused = refusal(&options, &newest.note);
    assert!(refused.contains("entries are missing"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_made_again_from_a_checkpoint() {
    let mut ledger = TestLedger::start().await;
    ledger.put("key", "1").await;
    let newest = ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap();
    ledger.node.shutdown().await;
    let path = ledger.options.key_dir.join(LAST_SIGNED_FILE);
    std::fs::write(&path, "torn").unwrap();
    let refused = Node::start(ledger.options.clone()).await.unwrap_err();
    assert!(refused.hint().unwrap().contains(HINT), "{refused}");
    trust_checkpoint(&ledger.options, &newest.note).unwrap();
    ledger.node = Node::start(ledger.options.clone()).await.unwrap();
    ledger.put("key", "2").await;
    check_log(&ledger.node, ledger.node.applied_size().get()).await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_record_does_not_cosign_and_the_others_go_on() {
    let mut cluster = TestCluster::new(3).await;
    let id = cluster.leader().await;
    let appended = cluster.node(id).append(put("key", "1")).await.unwrap();
    cluster.node(id).publish(appended.tree_size).await.unwrap();
    cluster.stop(id).await;
    std::fs::remove_file(cluster.key_dir(id).join(LAST_SIGNED_FILE)).unwrap();
    cluster.start(id).await;
    let other = *cluster.ids().iter().find(|other| **other != id).unwrap();
    let appended = cluster.node(other).append(put("key", "2")).await.unwrap();
    let published = cluster
        .node(other)
        .publish(appended.tree_size)
        .await
        .unwrap();
    eventually("it follows", async || {
        cluster.node(id).applied_size() >= appended.tree_size
    })
    .await;
    assert!(cluster.node(id).ready().unwrap_err().contains(HINT));
    assert_eq!(LastSigned::load(&cluster.key_dir(id)).unwrap(), None);
    let name = format!("/node/{id} ");
    assert!(!published.note.contains(&name), "{}", published.note);

    cluster.stop(id).await;
    let options = cluster.options(id).clone();
    trust_checkpoint(&options, &published.note).unwrap();
    cluster.start(id).await;
    let appended = cluster.node(id).append(put("key", "3")).await.unwrap();
    cluster.node(id).publish(appended.tree_size).await.unwrap();
    eventually("it cosigns again", async || {
        let shown = cluster.node(other).checkpoint().unwrap();
        shown.size >= appended.tree_size && shown.note.contains(&name)
    })
    .await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_from_backups_waits_until_it_is_shown_what_was_signed() {
    let mut cluster = TestCluster::new(3).await;
    let id = cluster.leader().await;
    let appended = cluster.node(id).append(put("key", "1")).await.unwrap();
    let newest = cluster.node(id).publish(appended.tree_size).await.unwrap();
    let ids = cluster.ids();
    for id in &ids {
        cluster.stop(*id).await;
    }
    for id in &ids {
        // What docs/operating.md says to back up: the keys, not the record.
        std::fs::remove_file(cluster.key_dir(*id).join(LAST_SIGNED_FILE)).unwrap();
        cluster.start(*id).await;
    }
    for id in &ids {
        eventually("the entry is served", async || {
            let node = cluster.node(*id);
            node.latest(b"key", node.applied_size()).unwrap().is_some()
        })
        .await;
        check_withheld(cluster.node(*id), "key").await;
    }
    for id in &ids {
        cluster.stop(*id).await;
        trust_checkpoint(cluster.options(*id), &newest.note).unwrap();
    }
    for id in &ids {
        cluster.start(*id).await;
    }
    let leader = cluster.leader().await;
    let appended = cluster.node(leader).append(put("key", "2")).await.unwrap();
    let published = cluster
        .node(leader)
        .publish(appended.tree_size)
        .await
        .unwrap();
    assert!(published.size > newest.size);
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

/// The same by the command line, as an operator does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_shows_a_stopped_node_what_was_signed() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(directory.path().join("node"));
    node.start(&["--publish-interval", "1h"]);
    let client = Client::builder(node.url())
        .retry(patient())
        .build()
        .unwrap();
    let publish = async |key: &str| {
        let put = client.put(key, "value").wait(Wait::Published);
        put.send().await.unwrap();
        client.checkpoint().await.unwrap().to_text()
    };
    let newest = publish("key").await;
    node.terminate().await;
    let (dir, keys) = (node.data_dir(), node.key_dir());
    let file = directory.path().join("newest.txt");
    let repair = |note: &str| {
        std::fs::write(&file, note).unwrap();
        let mut command = command(directory.path());
        command.arg("repair").arg("--trust-checkpoint").arg(&file);
        command
            .arg("--data-dir")
            .arg(&dir)
            .arg("--key-dir")
            .arg(&keys);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    std::fs::remove_file(keys.join(LAST_SIGNED_FILE)).unwrap();
    node.start(&[]);
    let impatient = Client::builder(node.url())
        .retry(impatient())
        .build()
        .unwrap();
    let found = client.get("key").send().await.unwrap().unwrap();
    assert_eq!(found.bytes, "value");
    let refused = impatient.put("key", "2").send().await.unwrap_err();
    assert!(refused.to_string().contains(HINT), "{refused}");
    let health = client.health().await.unwrap();
    assert!(health.reason.unwrap().contains(HINT));
    assert!(impatient.checkpoint().await.is_err());
    let (code, said) = repair(&newest);
    assert_eq!(code, 2, "the node runs: {said}");
    node.terminate().await;

    let (code, said) = repair(&newest.replacen('\n', "\n9", 1));
    assert_eq!(code, 3, "{said}");
    let (code, said) = repair(&newest);
    assert_eq!(code, 0, "{said}");
    node.start(&[]);
    publish("key").await;
    node.terminate().await;
}

/// Entries carried over under new keys are a ledger of their own, which needs nobody's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_data_under_new_keys_signs_at_once() {
    let ledger = TestLedger::start().await;
    ledger.put("key", "1").await;
    ledger.node.shutdown().await;
    let options = NodeOptions {
        key_dir: ledger.directory.path().join("new-keys"),
        ..ledger.options.clone()
    };
    // Also with a key made beforehand.
    std::fs::create_dir(&options.key_dir).unwrap();
    let key = scribe::keys::new_ledger_key(Some("example.com/again")).unwrap();
    scribe::keys::write_new_key(&options.key_dir.join("ledger.key"), &key).unwrap();
    let node = Node::start(options).await.unwrap();
    check_log(&node, node.applied_size().get()).await;
    node.shutdown().await;
}
