//! The ledger's key is replaced: by an entry that both keys signed, and not before every voter has the new one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use scribe::cluster::wire::{ForwardRequest, Job, JobMessage, kind, parts};
use scribe::keys::{new_key, write_new_key};
use scribe::node::{AdminError, Node};
use scribe::peer::{CallError, Lane, Wait};
use scribe::roster::key_body;
use scribe::world::{Clock, SystemClock, SystemEntropy, World};
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::leaf::SystemKind;
use scribe_proof::policy::Policy;
use scribe_proof::rotation::{ROTATION_OVERLAP_MS, Rotation};

use crate::cluster::on_demand;
use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{self, TestLedger, check_log, put};

/// The system's clock, and a while.
#[derive(Debug, Default)]
struct Later(AtomicU64);

impl Clock for Later {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

fn policy(node: &Node) -> Policy {
    Policy::parse(&node.ledger().policy).unwrap()
}

fn ledger_key(node: &Node) -> VerifierKey {
    policy(node).log_keys().next().unwrap().clone()
}

/// Writes an entry and has it published; which of these keys signed.
async fn published(node: &Node, key: &str, keys: &[&VerifierKey]) -> (SignedCheckpoint, Vec<bool>) {
    let appended = node.append(put(key, "value")).await.unwrap();
    let published = node.publish(appended.tree_size).await.unwrap();
    let signed = SignedCheckpoint::parse(&published.note).unwrap();
    let by = keys.iter().map(|key| signed.verify(key).is_ok()).collect();
    (signed, by)
}

/// Files of ledger keys in a key directory, `ledger.key` among them.
fn key_files(dir: &Path) -> usize {
    std::fs::read_dir(dir)
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            let name = name.to_string_lossy();
            name.starts_with("ledger") && name.ends_with(".key")
        })
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_keys_sign_for_thirty_days_of_ledger_time_then_the_new_one_alone() {
    let clock = Arc::new(Later::default());
    let directory = tempfile::tempdir().unwrap();
    let mut options = test_ledger::options(directory.path());
    options.world = World::new(clock.clone(), Arc::new(SystemEntropy));
    let node = Node::start(options.clone()).await.unwrap();
    let mut ledger = TestLedger {
        node,
        options,
        directory,
    };
    let (old_policy, old) = (policy(&ledger.node), ledger_key(&ledger.node));
    let (_, by) = published(&ledger.node, "before", &[&old]).await;
    assert_eq!(by, [true]);

    let rotated = ledger.node.rotate_ledger_key().await.unwrap();
    let new = VerifierKey::parse(&rotated.verifier_key).unwrap();
    assert_ne!(new, old);
    // The entry is the note, at the place it names.
    let entry = ledger.node.entry(rotated.index).unwrap().unwrap();
    let leaf = entry.parsed().unwrap();
    assert_eq!(leaf.system_kind(), Some(SystemKind::LedgerKey));
    let note = String::from_utf8(leaf.body.to_vec()).unwrap();
    let rotation = Rotation::parse(&note).unwrap();
    assert_eq!((rotation.old(), rotation.new_key()), (&old, &new));
    assert_eq!(rotation.index(), rotated.index);
    let info = ledger.node.ledger();
    assert_eq!(info.rotations, [note]);
    assert_eq!(info.verifier_keys[..2], [new.to_text(), old.to_text()]);
    assert_eq!(ledger_key(&ledger.node), new);

    let (signed, by) = published(&ledger.node, "after", &[&old, &new]).await;
    assert_eq!(by, [true, true]);
    old_policy.evaluate(&signed).unwrap();
    policy(&ledger.node).evaluate(&signed).unwrap();
    ledger.restart().await;
    let (_, by) = published(&ledger.node, "after a restart", &[&old, &new]).await;
    assert_eq!(by, [true, true]);

    let minute = 60_000;
    clock
        .0
        .store(ROTATION_OVERLAP_MS - minute, Ordering::Relaxed);
    let (signed, by) = published(&ledger.node, "on the last day", &[&old, &new]).await;
    assert_eq!(by, [true, true]);
    old_policy.evaluate(&signed).unwrap();
    clock
        .0
        .store(ROTATION_OVERLAP_MS + minute, Ordering::Relaxed);
    for round in 0..2 {
        let (signed, by) = published(&ledger.node, &format!("later {round}"), &[&old, &new]).await;
        assert_eq!(by, [false, true]);
        old_policy.evaluate(&signed).unwrap_err();
        policy(&ledger.node).evaluate(&signed).unwrap();
        assert_eq!(ledger.node.ledger().verifier_keys[0], new.to_text());
        // The retired key is kept, and stays silent after a restart as well.
        assert_eq!(key_files(&ledger.options.key_dir), 2);
        ledger.restart().await;
    }
    let again = ledger.node.rotate_ledger_key().await.unwrap();
    let newest = VerifierKey::parse(&again.verifier_key).unwrap();
    let (_, by) = published(&ledger.node, "again", &[&old, &new, &newest]).await;
    assert_eq!(by, [false, true, true]);
    check_log(&ledger.node, ledger.node.applied_size().get()).await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_voter_can_sign_with_both_keys_and_so_can_who_joins_later() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let leader = cluster.leader().await;
    let old_policy = policy(cluster.node(leader));
    let old = ledger_key(cluster.node(leader));
    // Asked of a node that does not lead.
    let follower = cluster.follower().await;
    let rotated = cluster.node(follower).rotate_ledger_key().await.unwrap();
    let new = VerifierKey::parse(&rotated.verifier_key).unwrap();
    let joined = cluster.join(follower).await;
    eventually("the new node is a voter", async || {
        cluster.node(leader).consensus().voters().contains(&joined)
    })
    .await;
    for id in cluster.ids() {
        assert_eq!(key_files(&cluster.key_dir(id)), 2, "node {id}");
        if cluster.leader().await != id {
            let from = cluster.leader().await;
            let change = scribe::node::Change::Transfer(id);
            cluster.node(from).administer(change).await.unwrap();
        }
        eventually("it leads", async || cluster.leader().await == id).await;
        let key = format!("led by {id}");
        let (signed, by) = published(cluster.node(id), &key, &[&old, &new]).await;
        assert_eq!(by, [true, true], "node {id}");
        old_policy.evaluate(&signed).unwrap();
        // The others take it as well.
        for other in cluster.ids() {
            let shown = cluster.node(other).publish(signed.checkpoint().size).await;
            assert_eq!(shown.unwrap().root, signed.checkpoint().root);
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_of_the_voters_nothing_is_rotated() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let leader = cluster.leader().await;
    let gone = cluster.follower().await;
    cluster.stop(gone).await;
    let old = ledger_key(cluster.node(leader));
    let refused = cluster.node(leader).rotate_ledger_key().await.unwrap_err();
    assert!(
        matches!(&refused, AdminError::Refused { rule, .. } if rule.contains(&format!("not stored by [{gone}]"))),
        "{refused}"
    );
    assert_eq!(cluster.node(leader).ledger().rotations, [""; 0]);
    let (_, by) = published(cluster.node(leader), "goes on", &[&old]).await;
    assert_eq!(by, [true]);
    // A key that no entry names was made and delivered to one: it never signs, and stands in nobody's way.
    cluster.start(gone).await;
    eventually("it rotates with all of them", async || {
        cluster.node(leader).rotate_ledger_key().await.is_ok()
    })
    .await;
    let new = ledger_key(cluster.node(leader));
    let (signed, by) = published(cluster.node(leader), "rotated", &[&old, &new]).await;
    assert_eq!(by, [true, true]);
    let by_ledger = |name: &str| name == old.name();
    let signatures = signed.note().signatures.iter();
    assert_eq!(signatures.filter(|line| by_ledger(&line.name)).count(), 2);
    cluster.stop_all().await;
}

/// What a crash leaves behind, step by step: the new key on no disk but the leader's, on some, on all, and named by the
/// entry. Every time all nodes start again and the ledger goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_leaves_a_ledger_that_works() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let leader = cluster.leader().await;
    let old = ledger_key(cluster.node(leader));
    for stored in 1..=3 {
        let ids = cluster.ids();
        let stray = new_key(old.name(), KeyType::Ed25519).unwrap();
        for id in &ids {
            cluster.stop(*id).await;
        }
        for id in &ids[..stored] {
            let name = format!("ledger-{:08x}.key", stray.verifier_key().key_id());
            write_new_key(&cluster.key_dir(*id).join(name), &stray).unwrap();
        }
        for id in &ids {
            cluster.start(*id).await;
        }
        let leader = cluster.leader().await;
        let key = format!("stored {stored}");
        let keys = [&old, stray.verifier_key()];
        let (_, by) = published(cluster.node(leader), &key, &keys).await;
        assert_eq!(
            by,
            [true, false],
            "a key on {stored} disks that no entry names"
        );
    }
    // The entry is committed, and its leader is gone before it has signed anything.
    let leader = cluster.leader().await;
    let rotated = cluster.node(leader).rotate_ledger_key().await.unwrap();
    let new = VerifierKey::parse(&rotated.verifier_key).unwrap();
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    let (_, by) = published(cluster.node(next), "named", &[&old, &new]).await;
    assert_eq!(by, [true, true]);
    cluster.start(leader).await;

    // A node without the key (it was promoted while the key was on its way) gets it, and signs nothing before.
    let poor = cluster.follower().await;
    cluster.stop(poor).await;
    let name = format!("ledger-{:08x}.key", new.key_id());
    let path = cluster.key_dir(poor).join(name);
    std::fs::remove_file(&path).unwrap();
    cluster.start(poor).await;
    eventually("the key is fetched", async || path.exists()).await;
    let from = cluster.leader().await;
    let change = scribe::node::Change::Transfer(poor);
    cluster.node(from).administer(change).await.unwrap();
    eventually("it leads", async || cluster.leader().await == poor).await;
    let (_, by) = published(cluster.node(poor), "fetched", &[&old, &new]).await;
    assert_eq!(by, [true, true]);
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_member_names_keys_for_others() {
    let cluster = TestCluster::with(3, on_demand).await;
    let leader = cluster.leader().await;
    let member = cluster.follower().await;
    let node = cluster.node(member);
    let thief = new_key("x", KeyType::Ed25519).unwrap();
    let public_key = thief.verifier_key().public_key();
    let before = cluster.node(leader).applied_size();
    for (subtype, body) in [
        (SystemKind::LedgerKey, key_body(None, 1, &public_key)),
        (SystemKind::NodeKey, key_body(Some(leader), 4, &public_key)),
        (SystemKind::NodeKey, key_body(Some(99), 4, &public_key)),
        (SystemKind::Restore, bytes::Bytes::new()),
    ] {
        let job = Job::System {
            subtype: subtype as u16,
            body,
        };
        let request = ForwardRequest {
            jobs: vec![JobMessage::new(&job).unwrap()],
        };
        let wait = Wait::Deadline(std::time::Duration::from_secs(10));
        let told = node
            .consensus()
            .call(leader, Lane::Forward, kind::FORWARD, parts(&request), wait)
            .await;
        let Err(CallError::Remote { text, .. }) = told else {
            panic!("{subtype:?}: {told:?}");
        };
        assert!(text.contains("announces its own key"), "{text}");
    }
    assert_eq!(cluster.node(leader).applied_size(), before);
    cluster.stop_all().await;
}

/// Published with two of three cosignatures; the third comes when its node does, without a new checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cosignature_that_comes_late_is_merged_in_and_shown_everywhere() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let late = cluster.follower().await;
    cluster.stop(late).await;
    let leader = cluster.leader().await;
    let cosigners = |node: &Node| {
        let shown = node.checkpoint().unwrap();
        let signed = SignedCheckpoint::parse(&shown.note).unwrap();
        policy(node).evaluate(&signed).unwrap().cosigners.len()
    };
    let (signed, _) = published(cluster.node(leader), "two of three", &[]).await;
    let size = signed.checkpoint().size;
    assert_eq!(cosigners(cluster.node(leader)), 2);
    cluster.start(late).await;
    eventually("every node shows all three", async || {
        cluster.ids().iter().all(|id| {
            let node = cluster.node(*id);
            let shown = node.checkpoint();
            shown.is_some_and(|shown| shown.size == size) && cosigners(node) == 3
        })
    })
    .await;
    cluster.stop_all().await;
}
