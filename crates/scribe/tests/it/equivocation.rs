//! Never two different checkpoints for one size, whatever comes back: a node with an old copy of its data, a copy of a
//! node's data without its keys, a leader that slept, a leader whose tree is damaged, a node with an old copy of both its
//! directories.
//!
//! Real processes where the fault needs them. Every checkpoint that any node ever shows is kept, over all its lives, and
//! all pairs are compared at the end ([`crate::checkpoints`]). Each time the healthy majority goes on publishing, and the
//! node that is at fault is stopped by what the test names.

use std::path::Path;
use std::time::Duration;

use scribe::keys::LastSigned;
use scribe_client::{Client, Wait};
use scribe_proof::policy::Policy;
use scribe_proof::{SignedCheckpoint, cosignature};

use crate::checkpoints::{Checkpoints, ledger_at, ledger_of};
use crate::cluster::{check_goes_on, copy_dir, damage_tree_of, on_demand};
use crate::processes::{Processes, patient, signal};
use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::put;

/// A cluster whose checkpoints are watched on every node.
async fn watched() -> (Processes, Checkpoints) {
    let cluster = Processes::start().await;
    let seen = Checkpoints::default();
    for (id, node) in &cluster.nodes {
        seen.watch_url(&format!("node {id}"), &node.url());
    }
    (cluster, seen)
}

/// Writes some entries and has each published; the receipts are kept as well. Any of the nodes may be down.
async fn publish_some(client: &Client, seen: &Checkpoints, name: &str, count: usize) {
    for n in 0..count {
        let key = format!("{name}/{n}");
        let put = client.put(&key, key.clone()).wait(Wait::Published);
        put.send().await.unwrap();
        let receipt = client.receipt(&key).send().await.unwrap();
        seen.add_receipt(name, &receipt);
    }
}

/// A client of all nodes but one, patient enough for an election.
fn client_of_others(cluster: &Processes, id: u64) -> Client {
    let others = cluster.nodes.iter().filter(|(other, _)| **other != id);
    let urls: Vec<String> = others.map(|(_, node)| node.url()).collect();
    Client::builder_for(urls).retry(patient()).build().unwrap()
}

/// Waits until a node has cosigned the newest checkpoint that the others show.
async fn cosigned_by(cluster: &Processes, id: u64, client: &Client) {
    let key = cosigning_key(cluster, id, client).await;
    eventually(
        "the node's cosignature is on the newest checkpoint",
        async || {
            let signed = client.checkpoint().await;
            signed.is_ok_and(|signed| matches!(cosignature::find(signed.note(), &key), Ok(Some(_))))
        },
    )
    .await;
}

async fn cosigning_key(cluster: &Processes, id: u64, client: &Client) -> scribe_proof::VerifierKey {
    assert!(cluster.nodes.contains_key(&id));
    let ledger = client.ledger().await.unwrap();
    let policy = Policy::parse(&ledger.policy).unwrap();
    let name = format!("node-{id}");
    let key = policy.witness_keys().find(|(found, _)| *found == name);
    key.unwrap().1.clone()
}

/// All pairs, and the newest checkpoint satisfies the policy of the healthy.
async fn compare(seen: &Checkpoints, client: &Client, sizes_min: usize) {
    let newest: SignedCheckpoint = client.checkpoint().await.unwrap();
    let policy = Policy::parse(&client.ledger().await.unwrap().policy).unwrap();
    policy.evaluate(&newest).unwrap();
    let (hashes, keys) = ledger_at(client).await;
    let compared = seen.compare(&keys, &hashes);
    assert!(compared.sizes >= sizes_min, "{compared:?}");
    assert_eq!(compared.foreign, 0, "{compared:?}");
    println!("compared all pairs: {compared:?}");
}

fn replace_dir(dir: &Path, copy: &Path) {
    std::fs::remove_dir_all(dir).unwrap();
    copy_dir(copy, dir);
}

/// (a) The log of the copy ends before what `last-signed` in the key directory says: the node's own check at start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_old_copy_of_its_data_signs_nothing() {
    let (mut cluster, seen) = watched().await;
    // The one that leads has signed with the ledger's key, too.
    let id = cluster.leader().await;
    let others = client_of_others(&cluster, id);
    publish_some(&others, &seen, "before", 3).await;
    cluster.node_mut(id).terminate().await;
    let (data, copy) = (
        cluster.node(id).data_dir(),
        cluster.node(id).home.join("copy"),
    );
    copy_dir(&data, &copy);
    publish_some(&others, &seen, "away", 2).await;
    cluster.node_mut(id).start(&[]);
    cluster.all_ready().await;
    publish_some(&others, &seen, "back", 3).await;
    cosigned_by(&cluster, id, &others).await;
    cluster.node_mut(id).kill();
    replace_dir(&data, &copy);
    let (code, said) = cluster.node(id).refused(&["--member"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it is an older copy"), "{said}");
    publish_some(&others, &seen, "without", 3).await;
    compare(&seen, &others, 8).await;
}

/// (b) Nothing else than its own key directory starts the data of a member: the check of identity at start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_nodes_data_without_its_keys_is_no_node() {
    let (mut cluster, seen) = watched().await;
    let client = cluster.client(1);
    publish_some(&client, &seen, "before", 3).await;
    cluster.node_mut(3).terminate().await;
    let data = cluster.node(3).data_dir();
    let clone = cluster.new_node("clone");
    copy_dir(&data, &clone.data_dir());
    cluster.node_mut(3).start(&[]);
    cluster.all_ready().await;
    seen.watch_url("clone", &clone.url());
    let origin = client.ledger().await.unwrap().origin;

    // Alone, with new keys, also under the ledger's own name; as a new member; as a member that has joined already.
    for more in [&[][..], &["--origin", &origin]] {
        let (code, said) = clone.refused(more);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("is not that node's key directory"), "{said}");
        std::fs::remove_dir_all(clone.key_dir()).unwrap();
    }
    let token = cluster.ok(&["cluster", "token", "--server", &cluster.node(1).url()]);
    let (code, said) = clone.refused(&["--join", token.trim()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("holds the ledger of node 3"), "{said}");

    let mut joined = cluster.new_node("joined");
    joined.start(&["--join", token.trim()]);
    eventually("the new node is a voter", async || {
        let members = client.members().await.unwrap();
        let voters = members.iter().filter(|member| member.role == "voter");
        voters.count() == 4
    })
    .await;
    publish_some(&client, &seen, "with a fourth", 2).await;
    joined.terminate().await;
    replace_dir(&joined.data_dir(), &clone.data_dir());
    let (code, said) = joined.refused(&["--member"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the data directory is of node 3"), "{said}");
    publish_some(&client, &seen, "after", 3).await;
    compare(&seen, &client, 7).await;
}

/// (b) The copy of a ledger that runs alone does start, with keys of its own: it is another ledger, also when it takes the
/// same name, and nobody who trusts the first one believes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_lone_ledger_under_other_keys_is_another_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let seen = Checkpoints::default();
    let mut first = crate::processes::NodeProcess::new(directory.path().join("first"));
    let mut clone = crate::processes::NodeProcess::new(directory.path().join("clone"));
    let client = |node: &crate::processes::NodeProcess| {
        Client::builder(node.url())
            .retry(patient())
            .build()
            .unwrap()
    };
    let (first_client, clone_client) = (client(&first), client(&clone));
    first.start(&["--origin", "example.com/lone"]);
    publish_some(&first_client, &seen, "before", 3).await;
    first.terminate().await;
    copy_dir(&first.data_dir(), &clone.data_dir());
    first.start(&[]);
    clone.start(&["--origin", "example.com/lone"]);
    seen.watch_url("first", &first.url());
    seen.watch_url("clone", &clone.url());
    publish_some(&first_client, &seen, "first", 3).await;
    publish_some(&clone_client, &seen, "clone", 3).await;
    let trusted = Policy::parse(&first_client.ledger().await.unwrap().policy).unwrap();
    let forked = clone_client.checkpoint().await.unwrap();
    let refused = trusted.evaluate(&forked).unwrap_err().to_string();
    assert!(refused.contains("not signed"), "{refused}");
    let (hashes, keys) = ledger_at(&first_client).await;
    let compared = seen.compare(&keys, &hashes);
    assert!(compared.sizes >= 6 && compared.foreign > 0, "{compared:?}");
}

/// (c) What an old leader was about to sign is agreed on by Raft first: its term is over, and it signs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_signs_nothing_else() {
    let (cluster, seen) = watched().await;
    for round in 0..3 {
        let sleeper = cluster.leader().await;
        let others = client_of_others(&cluster, sleeper);
        let pid = cluster.node(sleeper).pid();
        let busy = cluster.client(sleeper);
        // It falls asleep in the middle of its work: some of these are on their way, to voters or to the disk.
        let load = tokio::spawn(async move {
            for n in 0.. {
                let key = format!("asleep {round}/{n}");
                let put = busy.put(&key, "value").wait(Wait::Published);
                if put.send().await.is_err() {
                    return;
                }
            }
        });
        let before = seen.largest();
        eventually("the leader publishes", async || seen.largest() > before + 2).await;
        signal(pid, "STOP");
        publish_some(&others, &seen, &format!("while it sleeps {round}"), 3).await;
        signal(pid, "CONT");
        publish_some(&others, &seen, &format!("awake {round}"), 2).await;
        load.abort();
        cluster.all_ready().await;
    }
    cluster.same_everywhere().await;
    compare(&seen, &cluster.client(1), 15).await;
}

/// (d) The voters recompute the root: the leader is outvoted, hands over and stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_damaged_tree_publishes_nothing() {
    let mut cluster = TestCluster::with(3, on_demand).await;
    let seen = Checkpoints::default();
    for id in cluster.ids() {
        seen.watch_node(&format!("node {id}"), cluster.node(id));
    }
    let damaged = cluster.leader().await;
    check_goes_on(&cluster, damaged).await;
    let fatal = cluster.node(damaged).fatal();
    damage_tree_of(&cluster, damaged).await;
    let node = cluster.node(damaged);
    let appended = node.append(put("one more", "value")).await.unwrap();
    node.publish(appended.tree_size).await.unwrap_err();
    tokio::time::timeout(Duration::from_secs(30), fatal)
        .await
        .unwrap();
    cluster.stop(damaged).await;
    let healthy = cluster.leader().await;
    check_goes_on(&cluster, healthy).await;
    check_goes_on(&cluster, cluster.follower().await).await;
    // Its tree is made again from the segments: it comes back, and shows what the others show.
    cluster.start(damaged).await;
    seen.watch_node("the damaged one, mended", cluster.node(damaged));
    cluster.same_everywhere().await;
    check_goes_on(&cluster, damaged).await;
    let (hashes, keys) = ledger_of(cluster.node(healthy));
    let compared = seen.compare(&keys, &hashes);
    assert!(compared.sizes >= 3, "{compared:?}");
    assert_eq!(compared.foreign, 0);
    cluster.stop_all().await;
}

/// (e) Nothing in its own directories tells the node that they are old. The others do: the newest checkpoint bears its own
/// cosignature for a tree it does not remember, at which it stops by itself. The leader it had acknowledged entries to
/// counts it as unreachable meanwhile, and is not ended by it.
async fn an_old_copy_of_data_and_keys(change_leader: bool) {
    let (mut cluster, seen) = watched().await;
    let leader = cluster.leader().await;
    let followers = cluster.all_but(leader);
    let (id, other) = (followers[0], followers[1]);
    let others = client_of_others(&cluster, id);
    publish_some(&others, &seen, "before", 3).await;
    cluster.node_mut(id).terminate().await;
    let home = cluster.node(id).home.clone();
    for name in ["data", "keys"] {
        copy_dir(&home.join(name), &home.join("copy").join(name));
    }
    cluster.node_mut(id).start(&["--member"]);
    cluster.all_ready().await;
    publish_some(&others, &seen, "back", 3).await;
    cosigned_by(&cluster, id, &others).await;
    cluster.node_mut(id).kill();
    let record = |dir: &Path| LastSigned::load(dir).unwrap().unwrap().size;
    let signed = record(&home.join("keys"));
    for name in ["data", "keys"] {
        replace_dir(&home.join(name), &home.join("copy").join(name));
    }
    let old = record(&home.join("keys"));
    assert!(old < signed, "{old} {signed}");
    if change_leader {
        // To one that never heard of this node's log.
        cluster.client(leader).transfer(other).await.unwrap();
        eventually("another leads", async || {
            let said = others.leader().await;
            said.is_ok_and(|said| said.node_id == Some(other))
        })
        .await;
    }
    let before = cluster.node(id).said().len();
    let node = cluster.node_mut(id);
    node.start(&["--member"]);
    let mut status = None;
    eventually("the node stops by itself", async || {
        status = node.ended();
        status.is_some()
    })
    .await;
    let said = node.said()[before..].to_owned();
    assert_eq!(status.unwrap().code(), Some(2), "{said}");
    assert!(said.contains("and remembers none larger"), "{said}");
    // Whether the leader heard of the older log before the node was gone is a matter of chance; it goes on either way.
    publish_some(&others, &seen, "without", 3).await;
    compare(&seen, &others, 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_old_copy_of_data_and_keys_stops() {
    an_old_copy_of_data_and_keys(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_old_copy_of_data_and_keys_stops_under_another_leader() {
    an_old_copy_of_data_and_keys(true).await;
}
