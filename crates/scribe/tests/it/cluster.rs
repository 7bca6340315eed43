//! A cluster as a whole: any node serves, nothing acknowledged is lost when one goes, roots and segments are equal.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use scribe::keys::LastSigned;
use scribe::node::{AdminError, AppendError, Change, Condition, NodeOptions, Write};
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::index::TreeSize;
use scribe_proof::policy::Policy;

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{check_log, index_let_go, put};

fn keyed(write: Write, key: &str) -> Write {
    Write {
        idempotency_key: Some(key.to_owned()),
        ..write
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_writes_and_answers_linearizable_reads() {
    let cluster = TestCluster::new(3).await;
    for id in cluster.ids() {
        let key = format!("through {id}");
        let appended = cluster.node(id).append(put(&key, "value")).await.unwrap();
        for reader in cluster.ids() {
            let node = cluster.node(reader);
            let size = node.barrier().await.unwrap();
            assert!(size > TreeSize::new(appended.index.get()));
            let entry = node.latest(key.as_bytes(), size).unwrap().unwrap();
            assert_eq!(entry.index, appended.index);
        }
    }
    let (size, _) = cluster.same_everywhere().await;
    for id in cluster.ids() {
        check_log(cluster.node(id), size.get()).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gives_the_leaders_answers() {
    let cluster = TestCluster::new(3).await;
    let follower = cluster.node(cluster.follower().await);
    let first = follower.append(put("key", "1")).await.unwrap();
    let absent = Write {
        condition: Condition::Absent,
        ..put("key", "2")
    };
    match follower.append(absent).await {
        Err(AppendError::ConditionFailed { current_index, .. }) => {
            assert_eq!(current_index, Some(first.index));
        }
        other => panic!("{other:?}"),
    }
    let once = follower.append(keyed(put("key", "3"), "k")).await.unwrap();
    let again = follower.append(keyed(put("key", "3"), "k")).await.unwrap();
    assert_eq!((again.index, again.replayed), (once.index, true));
    let other = follower.append(keyed(put("key", "4"), "k")).await;
    assert_eq!(other, Err(AppendError::IdempotencyMismatch));
    let writes = (0..500).map(|n| put("bulk", &n.to_string())).collect();
    let outcomes = follower.append_many(writes).await;
    let indexes: Vec<u64> = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap().index.get())
        .collect();
    assert!(indexes.is_sorted(), "a bulk upload enters in its order");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_has_a_majority_of_cosignatures_and_every_node_shows_it() {
    let cluster = TestCluster::new(3).await;
    let appended = cluster.node(1).append(put("key", "value")).await.unwrap();
    for id in cluster.ids() {
        let node = cluster.node(id);
        let published = node.publish(appended.tree_size).await.unwrap();
        let policy = Policy::parse(&node.ledger().policy).unwrap();
        let signed = SignedCheckpoint::parse(&published.note).unwrap();
        policy.evaluate(&signed).unwrap();
        assert!(published.size >= appended.tree_size);
    }
    cluster.stop_all().await;
}

/// A cluster is ready a moment before its nodes have announced the keys their cosignatures count under.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_checkpoint_of_a_cluster_has_a_majority_of_cosignatures_too() {
    for _ in 0..3 {
        let cluster = TestCluster::begin(3, |_| {}).await;
        let leader = cluster.leader().await;
        let first = cluster.node(leader).publish(TreeSize::new(1)).await;
        let first = SignedCheckpoint::parse(&first.unwrap().note).unwrap();
        eventually("every node's key is announced", async || {
            cluster.node(leader).ledger().verifier_keys.len() == 4
        })
        .await;
        let policy = Policy::parse(&cluster.node(leader).ledger().policy).unwrap();
        let report = policy.evaluate(&first).unwrap();
        assert!(report.cosigners.len() >= 2, "{report:?}");
        cluster.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_goes_another_answers_and_nothing_is_lost() {
    let mut cluster = TestCluster::new(3).await;
    let mut last = TreeSize::EMPTY;
    for round in 0..3 {
        let leader = cluster.leader().await;
        let through = cluster.follower().await;
        for n in 0..50 {
            let write = put(&format!("{round}/{n}"), "value");
            last = cluster.node(through).append(write).await.unwrap().tree_size;
        }
        cluster.stop(leader).await;
        let appended = cluster
            .node(through)
            .append(put(&format!("{round}/after"), "value"))
            .await
            .unwrap();
        assert!(appended.tree_size > last);
        cluster.start(leader).await;
    }
    let (size, _) = cluster.same_everywhere().await;
    for id in cluster.ids() {
        check_log(cluster.node(id), size.get()).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_and_linearizable_reads_are_refused() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.node(leader).append(put("key", "1")).await.unwrap();
    cluster.same_everywhere().await;
    for id in cluster.ids() {
        if id != leader {
            cluster.stop(id).await;
        }
    }
    let node = cluster.node(leader);
    let (written, read) = tokio::join!(node.append(put("key", "2")), node.barrier());
    assert!(
        matches!(
            written,
            Err(AppendError::UnknownOutcome
                | AppendError::Unavailable(_)
                | AppendError::NotLeader { .. })
        ),
        "{written:?}"
    );
    assert!(read.is_err(), "{read:?}");
    // What is applied can still be read, for those who ask for it.
    let size = node.applied_size();
    assert!(node.latest(b"key", size).unwrap().is_some());
    for id in [1, 2, 3] {
        if id != leader {
            cluster.start(id).await;
        }
    }
    cluster.leader().await;
    cluster.node(leader).append(put("key", "3")).await.unwrap();
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up_by_segments_and_all_are_identical() {
    let mut cluster = TestCluster::new(3).await;
    let away = cluster.follower().await;
    let lacks_from = cluster.node(away).health().last_log_index.unwrap();
    cluster.stop(away).await;
    let through = cluster.leader().await;
    for round in 0..30 {
        let writes = (0..100)
            .map(|n| put(&format!("key {n}"), &format!("{round} {}", "x".repeat(100))))
            .collect();
        for outcome in cluster.node(through).append_many(writes).await {
            outcome.unwrap();
        }
    }
    eventually(
        "what it lacks is sealed, and no longer sent as entries",
        async || {
            let purged = cluster.node(through).consensus().metrics().purged;
            purged.is_some_and(|id| id.index > lacks_from.0)
        },
    )
    .await;
    cluster.start(away).await;
    let (size, _) = cluster.same_everywhere().await;
    check_log(cluster.node(away), size.get()).await;
    let (fetched, _) = cluster.node(away).consensus().catch_up().bytes();
    assert!(fetched > 0, "the node caught up by entries alone");
    eventually("every node has sealed the same", async || {
        let counts: Vec<usize> = cluster
            .ids()
            .iter()
            .map(|id| cluster.node(*id).sealed_segments())
            .collect();
        counts.iter().all(|count| *count == counts[0])
    })
    .await;
    let hashes = |id: u64| -> Vec<String> {
        let segments = cluster.node(id).sealed_list();
        segments
            .iter()
            .map(|segment| format!("{} {}", segment.number, segment.body_sha256))
            .collect()
    };
    let first = hashes(1);
    assert!(first.len() > 5);
    assert_eq!(first, hashes(2));
    assert_eq!(first, hashes(3));
    tokio::time::timeout(Duration::from_secs(30), cluster.stop_all())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_joins_becomes_a_voter_and_takes_the_place_of_a_dead_one() {
    let mut cluster = TestCluster::new(3).await;
    let dead = cluster.follower().await;
    let through = cluster.leader().await;
    for n in 0..100 {
        let write = put(&format!("key {n}"), "value");
        cluster.node(through).append(write).await.unwrap();
    }
    cluster.stop(dead).await;
    let new = cluster.join(through).await;
    assert!(new > 3, "ids are never reused");
    eventually("the new node is a voter", async || {
        cluster.node(through).consensus().voters().contains(&new)
    })
    .await;
    cluster
        .node(new)
        .administer(Change::Remove(dead))
        .await
        .unwrap();
    let voters = cluster.node(through).consensus().voters();
    assert!(!voters.contains(&dead) && voters.len() == 3, "{voters:?}");
    // One more may fail now.
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let left = cluster.ids()[0];
    let appended = cluster
        .node(left)
        .append(put("after", "value"))
        .await
        .unwrap();
    let (size, _) = cluster.same_everywhere().await;
    assert!(size >= appended.tree_size);
    check_log(cluster.node(new), size.get()).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_refused_and_disturbs_nobody() {
    let mut cluster = TestCluster::new(3).await;
    let removed = cluster.follower().await;
    let leader = cluster.leader().await;
    cluster
        .node(leader)
        .administer(Change::Remove(removed))
        .await
        .unwrap();
    let term = cluster.node(leader).health().current_term;
    // It comes back with everything it had, and asks for votes for a while.
    cluster.stop(removed).await;
    cluster.start(removed).await;
    let mut appended = 0;
    let refused = cluster.node(removed).consensus();
    eventually("the removed node was refused", async || {
        cluster
            .node(leader)
            .append(put(&format!("key {appended}"), "value"))
            .await
            .unwrap();
        appended += 1;
        let failures: u64 = refused.peer_stats().iter().map(|peer| peer.failures).sum();
        failures > 5
    })
    .await;
    assert_eq!(cluster.node(leader).health().current_term, term);
    assert!(cluster.node(leader).health().is_leader);
    // It knows by now, says so, and takes nothing for the others.
    eventually("the removed node knows", async || {
        cluster
            .node(removed)
            .ready()
            .is_err_and(|reason| reason.contains("not a member"))
    })
    .await;
    let written = cluster.node(removed).append(put("late", "value")).await;
    assert!(
        matches!(written, Err(AppendError::Unavailable(_))),
        "{written:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_would_stop_the_ledger_are_refused_with_why() {
    let mut cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.all_but(leader);
    let refused = |outcome: Result<(), AdminError>| match outcome {
        Err(AdminError::Refused { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    let node = cluster.node(leader);
    assert!(refused(node.administer(Change::Remove(77)).await).contains("is no member"));
    assert!(refused(node.administer(Change::Promote(77)).await).contains("is no member"));
    assert!(refused(node.administer(Change::Transfer(77)).await).contains("handed to a voter"));
    // With one follower down, taking the other out would leave the leader alone with a dead one.
    cluster.stop(followers[0]).await;
    let node = cluster.node(leader);
    eventually("the stopped node counts as unreachable", async || {
        let members = node.consensus().members();
        members.iter().any(|member| {
            member
                .last_seen
                .is_none_or(|seen| seen > Duration::from_secs(6))
        })
    })
    .await;
    let rule = refused(node.administer(Change::Remove(followers[1])).await);
    assert!(
        rule.contains("a majority of the voters must be reachable"),
        "{rule}"
    );
    node.administer(Change::Remove(followers[0])).await.unwrap();
    node.administer(Change::Remove(followers[1])).await.unwrap();
    assert!(refused(node.administer(Change::Remove(leader)).await).contains("is the last"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked_and_when_its_holder_leaves() {
    let cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let to = cluster.follower().await;
    // Asked of one that does not lead: the leader does it.
    cluster
        .node(to)
        .administer(Change::Transfer(to))
        .await
        .unwrap();
    eventually("the node asked for leads", async || {
        cluster.leader().await == to
    })
    .await;
    // A leader that is to be removed hands over first.
    cluster
        .node(leader)
        .administer(Change::Remove(to))
        .await
        .unwrap();
    let voters = cluster.node(leader).consensus().voters();
    assert!(!voters.contains(&to), "{voters:?}");
    cluster
        .node(leader)
        .append(put("key", "value"))
        .await
        .unwrap();
    cluster.stop_all().await;
}

/// Publishes only when somebody waits for it.
pub fn on_demand(options: &mut NodeOptions) {
    options.publish_interval_ms = 3_600_000;
}

/// Seals more than one segment everywhere, then flips a byte of a running node's tree that every root rests on.
pub async fn damage_tree_of(cluster: &TestCluster, id: u64) {
    for round in 0..4 {
        let writes = (0..300)
            .map(|n| put(&format!("key {n}"), &format!("{round}")))
            .collect();
        for outcome in cluster.node(id).append_many(writes).await {
            outcome.unwrap();
        }
    }
    eventually("the first tiles are on disk", async || {
        cluster
            .ids()
            .iter()
            .all(|id| cluster.node(*id).sealed_segments() >= 2)
    })
    .await;
    let path = cluster.data_dir(id).join("tree/L1");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], 5).unwrap();
    let other = *cluster.ids().iter().find(|other| **other != id).unwrap();
    let size = TreeSize::new(600);
    let (own, true_root) = (
        cluster.node(id).root_at(size),
        cluster.node(other).root_at(size),
    );
    assert_ne!(own.unwrap(), true_root.unwrap());
}

/// The healthy nodes go on writing and publishing.
pub async fn check_goes_on(cluster: &TestCluster, healthy: u64) {
    let node = cluster.node(healthy);
    let appended = node.append(put("after", "value")).await.unwrap();
    let published = node.publish(appended.tree_size).await.unwrap();
    let policy = Policy::parse(&node.ledger().policy).unwrap();
    policy
        .evaluate(&SignedCheckpoint::parse(&published.note).unwrap())
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_flipped_byte_stops_itself_and_nobody_else() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let damaged = cluster.follower().await;
    let fatal = cluster.node(damaged).fatal();
    damage_tree_of(&cluster, damaged).await;
    let leader = cluster.leader().await;
    check_goes_on(&cluster, leader).await;
    let reason = tokio::time::timeout(Duration::from_secs(30), fatal)
        .await
        .unwrap();
    assert!(reason.contains("the agreed one is"), "{reason}");
    cluster.stop(damaged).await;
    check_goes_on(&cluster, cluster.ids()[0]).await;
    check_goes_on(&cluster, cluster.ids()[1]).await;
    // The tree is derived data: a restart makes it again from the segments, and the node is as good as the others.
    cluster.start(damaged).await;
    let (size, _) = cluster.same_everywhere().await;
    check_log(cluster.node(damaged), size.get()).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_flipped_byte_hands_over_and_stops() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let damaged = cluster.leader().await;
    let fatal = cluster.node(damaged).fatal();
    damage_tree_of(&cluster, damaged).await;
    let node = cluster.node(damaged);
    let appended = node.append(put("one more", "value")).await.unwrap();
    node.publish(appended.tree_size).await.unwrap_err();
    let reason = tokio::time::timeout(Duration::from_secs(30), fatal)
        .await
        .unwrap();
    // Whichever it finds first: that it was outvoted, that the others have agreed without it, or that it signed another
    // root once.
    let reasons = ["agree on", "the agreed one is", "was signed for it"];
    assert!(
        reasons.iter().any(|expected| reason.contains(expected)),
        "{reason}"
    );
    cluster.stop(damaged).await;
    let healthy = cluster.leader().await;
    assert_ne!(healthy, damaged);
    check_goes_on(&cluster, healthy).await;
    check_goes_on(&cluster, cluster.follower().await).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_back_at_other_addresses_are_found_one_after_another() {
    let mut cluster = TestCluster::new(3).await;
    for round in 0..2 {
        for id in cluster.ids() {
            cluster.stop(id).await;
            cluster.start_elsewhere(id).await;
            // Two others lead and follow meanwhile; the next one is stopped when this one is known again, because
            // without it there would be no majority.
            let leader = cluster.leader().await;
            eventually("the new address is known", async || {
                let members = cluster.node(leader).members();
                members.iter().any(|member| {
                    member.node_id == id && member.address.raft_addr == cluster.node(id).raft_addr()
                })
            })
            .await;
            let key = format!("{round} {id}");
            let appended = cluster.node(id).append(put(&key, "v")).await;
            assert!(appended.is_ok(), "{appended:?}");
        }
    }
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}

pub fn copy_dir(from: &Path, to: &Path) {
    if from.ends_with("index") {
        index_let_go(from);
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_an_older_copy_of_its_data_does_not_come_back() {
    let mut cluster = TestCluster::new(3).await;
    let id = cluster.follower().await;
    let data = cluster.data_dir(id);
    let copy = data.with_file_name("copy");
    cluster.stop(id).await;
    copy_dir(&data, &copy);
    cluster.start(id).await;
    let appended = cluster
        .node(id)
        .append(put("promised", "value"))
        .await
        .unwrap();
    // It signs for the new entry, so it has promised to keep it.
    cluster.node(id).publish(appended.tree_size).await.unwrap();
    eventually("the node has cosigned it", async || {
        let signed = LastSigned::load(cluster.key_dir(id).as_path()).unwrap();
        signed.is_some_and(|signed| signed.size >= appended.tree_size)
    })
    .await;
    cluster.stop(id).await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    let refused = cluster.try_start(id).await.unwrap_err();
    assert!(
        refused.to_string().contains("it is an older copy"),
        "{refused}"
    );
    assert!(refused.hint().unwrap().contains("cluster remove"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_an_empty_or_a_foreign_data_directory_does_not_start() {
    let mut cluster = TestCluster::new(3).await;
    let id = cluster.follower().await;
    let other = cluster.leader().await;
    cluster.stop(id).await;
    let data = cluster.data_dir(id);
    let kept = data.with_file_name("kept");
    std::fs::rename(&data, &kept).unwrap();
    let wiped = cluster.try_start(id).await.unwrap_err();
    assert!(wiped.to_string().contains("is gone"), "{wiped}");
    cluster.stop(other).await;
    let _ = std::fs::remove_dir_all(&data);
    copy_dir(&cluster.data_dir(other), &data);
    let foreign = cluster.try_start(id).await.unwrap_err();
    assert!(
        foreign.to_string().contains("the key directory of node"),
        "{foreign}"
    );
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&kept, &data).unwrap();
    cluster.start(id).await;
    cluster.start(other).await;
    cluster.same_everywhere().await;
    cluster.stop_all().await;
}
