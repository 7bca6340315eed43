//! Clusters with outside witnesses: what they cosign is shown by every node, what they do wrong costs nothing, and a
//! second history is refused by them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use prost::Message as _;
use scribe::cluster::files::ClusterFiles;
use scribe::cluster::wire::{CheckpointMessage, kind};
use scribe::node::{Node, Published};
use scribe::peer::{Lane, PeerOptions, Pool, Security, Wait};
use scribe_client::witness::WitnessAddress;
use scribe_proof::hash::leaf_hash;
use scribe_proof::note::Signature;
use scribe_proof::policy::Policy;
use scribe_proof::witness::AddCheckpoint;
use scribe_proof::{
    Checkpoint, SignedCheckpoint, SigningKey, TreeSize, VerifierKey, cosignature, sign_note,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{put, wait_until};
use crate::test_witness::TestWitness;

fn address(key: &SigningKey, url: &str) -> WitnessAddress {
    format!("{} {url}", key.verifier_key()).parse().unwrap()
}

fn cosigner(name: &str, seed: u8) -> SigningKey {
    SigningKey::cosigner_from_seed(name, &[seed; 32]).unwrap()
}

fn has(published: &Published, key: &VerifierKey) -> bool {
    let signed = SignedCheckpoint::parse(&published.note).unwrap();
    signed.note().verify(key).unwrap()
}

/// Names of the keys on what a node shows.
fn names(node: &Node) -> Vec<String> {
    let note = node.checkpoint().unwrap().note.clone();
    let signed = SignedCheckpoint::parse(&note).unwrap();
    let lines = signed.note().signatures.iter();
    lines.map(|line| line.name.clone()).collect()
}

/// Appends, and waits until a checkpoint covers it.
async fn publish(node: &Node, key: &str) -> Arc<Published> {
    let appended = node.append(put(key, "v")).await.unwrap();
    node.publish(appended.index.tree_size()).await.unwrap()
}

/// The ledger's own policy, and a group of witnesses on top of it.
fn policy(node: &Node, threshold: &str, witnesses: &[&VerifierKey]) -> Policy {
    let own = node.ledger().policy;
    let (own, quorum) = own.trim_end().rsplit_once('\n').unwrap();
    let quorum = quorum.strip_prefix("quorum ").unwrap();
    let mut text = format!("{own}\n");
    let mut members = String::new();
    for (at, key) in witnesses.iter().enumerate() {
        text.push_str(&format!("witness outside-{at} {key}\n"));
        members.push_str(&format!(" outside-{at}"));
    }
    text.push_str(&format!(
        "group w {threshold}{members}\ngroup both all {quorum} w\nquorum both\n"
    ));
    Policy::parse(&text).unwrap()
}

/// Whether a receipt of the newest entry, made now, satisfies a policy.
fn receipt_satisfies(node: &Node, size: TreeSize, policy: &Policy) -> bool {
    let index = size.last_index().unwrap();
    let entry = node.entry(index).unwrap().unwrap();
    let Some(published) = node.checkpoint_covering(size) else {
        return false;
    };
    node.receipt(&entry, &published)
        .unwrap()
        .verify(policy)
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checkpoints_gain_the_cosignature_of_a_living_witness_and_do_not_wait_for_a_dead_one() {
    let mut living = TestWitness::prepare("witness.example/living").await;
    let away = cosigner("witness.example/away", 9);
    let configured = [living.address.clone(), address(&away, "http://127.0.0.1:1")];
    let cluster = TestCluster::with(3, |options| options.witnesses = configured.to_vec()).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let vkey = node.ledger().verifier_keys[0].clone();

    // Neither answers yet, and there is a checkpoint all the same: ledger and nodes.
    let published = publish(node, "before").await;
    let expected: BTreeSet<String> = [
        String::new(),
        "/node/1".into(),
        "/node/2".into(),
        "/node/3".into(),
    ]
    .map(|end| node.ledger().origin + &end)
    .into();
    let signed = SignedCheckpoint::parse(&published.note).unwrap();
    let own: BTreeSet<String> = signed
        .note()
        .signatures
        .iter()
        .map(|line| line.name.clone())
        .collect();
    assert!(own.is_subset(&expected) && own.len() >= 3, "{own:?}");

    living.start(std::slice::from_ref(&vkey)).await;
    let size = published.size;
    for id in cluster.ids() {
        let node = cluster.node(id);
        wait_until(|| {
            let newest = node.checkpoint();
            newest.is_some_and(|newest| newest.size >= size && has(&newest, &living.address.key))
        })
        .await;
        assert!(!names(node).contains(&away.name().to_owned()));
    }
    // What a user's policy asks for on top of the ledger's own.
    let keys = [&living.address.key, away.verifier_key()];
    let size = publish(node, "after").await.size;
    for id in cluster.ids() {
        let node = cluster.node(id);
        wait_until(|| receipt_satisfies(node, size, &policy(node, "any", &keys))).await;
        assert!(receipt_satisfies(node, size, &policy(node, "1", &keys)));
        assert!(!receipt_satisfies(node, size, &policy(node, "all", &keys)));
        assert!(!receipt_satisfies(node, size, &policy(node, "2", &keys)));
    }
    // The witness and the ledger agree, and the operator can see how far.
    let (origin, cosigned) = living.witness().sizes()[0].clone();
    assert_eq!(origin, node.ledger().origin);
    assert!(cosigned >= size, "{cosigned} of {size}");
    let metrics = scribe::metrics::render(node);
    let value = |name: &str, witness: &str| {
        let line =
            format!("scribe_outside_witness_{name}{{witness=\"witness.example/{witness}\"}} ");
        let found = metrics.lines().find_map(|found| found.strip_prefix(&line));
        found.map(|value| value.parse::<u64>().unwrap()).unwrap()
    };
    assert_eq!(value("cosigned_size_leaves", "living"), cosigned.get());
    assert_eq!(value("failing", "living"), 0);
    assert_eq!(value("cosigned_size_leaves", "away"), 0);
    assert_eq!(value("failing", "away"), 1);
    assert!(value("failures_total", "away") >= 1);
    assert_eq!(
        value("forks_total", "living") + value("forks_total", "away"),
        0
    );
    cluster.stop_all().await;
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_witness_that_goes_away_or_stands_still_delays_nothing_and_is_asked_again() {
    let mut coming_and_going = TestWitness::prepare("witness.example/a").await;
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_key = cosigner("witness.example/silent", 9);
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let configured = [
        coming_and_going.address.clone(),
        address(&silent_key, &silent_url),
    ];
    let cluster = TestCluster::with(3, |options| options.witnesses = configured.to_vec()).await;
    let node = cluster.node(cluster.leader().await);
    let vkey = node.ledger().verifier_keys[0].clone();
    let key = coming_and_going.address.key.clone();
    coming_and_going.start(std::slice::from_ref(&vkey)).await;
    publish(node, "first").await;
    wait_until(|| node.checkpoint().is_some_and(|newest| has(&newest, &key))).await;

    coming_and_going.stop().await;
    for at in 0..5 {
        // Each is there within the wait for a checkpoint, without either of them.
        let published = publish(node, &format!("meanwhile-{at}")).await;
        assert!(!has(&published, &key), "nobody was there to cosign it");
    }
    let overtaken = node.checkpoint().unwrap().size;

    coming_and_going.start(&[vkey]).await;
    for id in cluster.ids() {
        let node = cluster.node(id);
        wait_until(|| {
            let newest = node.checkpoint();
            newest.is_some_and(|newest| newest.size >= overtaken && has(&newest, &key))
        })
        .await;
    }
    let stats = scribe::metrics::render(node);
    assert!(
        stats.contains("scribe_outside_witness_failing{witness=\"witness.example/a\"} 0"),
        "{stats}"
    );
    drop(silent);
    cluster.stop_all().await;
    coming_and_going.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_leader_goes_on_where_the_last_one_was() {
    let mut witness = TestWitness::prepare("witness.example/w").await;
    let configured = vec![witness.address.clone()];
    let cluster = TestCluster::with(3, |options| options.witnesses = configured.clone()).await;
    let key = witness.address.key.clone();
    let first = cluster.leader().await;
    witness
        .start(&[cluster.node(first).ledger().verifier_keys[0].clone()])
        .await;
    let mut leaders = BTreeSet::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        leaders.insert(leader);
        let size = publish(cluster.node(leader), &format!("round-{round}"))
            .await
            .size;
        for id in cluster.ids() {
            let node = cluster.node(id);
            wait_until(|| {
                let newest = node.checkpoint();
                newest.is_some_and(|newest| newest.size >= size && has(&newest, &key))
            })
            .await;
        }
        cluster.node(leader).hand_over().await;
        eventually("another node leads", async || {
            cluster.leader().await != leader
        })
        .await;
    }
    assert!(leaders.len() >= 2, "{leaders:?}");
    // All of it was one history to the witness.
    let stats = witness.witness().stats();
    assert_eq!(stats.forks.load(Ordering::Relaxed), 0);
    cluster.stop_all().await;
    witness.stop().await;
}

/// A node that starts again does not know what the witness remembers: the witness tells it (409), and it goes on from
/// there at once, which is no failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_starts_again_learns_what_the_witness_remembers() {
    let mut witness = TestWitness::prepare("witness.example/w").await;
    let configured = vec![witness.address.clone()];
    let mut cluster = TestCluster::with(1, |options| options.witnesses = configured.clone()).await;
    let key = witness.address.key.clone();
    let vkey = cluster.node(1).ledger().verifier_keys[0].clone();
    witness.start(&[vkey]).await;
    publish(cluster.node(1), "before").await;
    let cosigned = |node: &Node| node.checkpoint().is_some_and(|newest| has(&newest, &key));
    wait_until(|| cosigned(cluster.node(1))).await;
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.leader().await;
    let refused = || witness.witness().stats().refused.load(Ordering::Relaxed);
    let before = refused();
    let size = publish(cluster.node(1), "after").await.size;
    let node = cluster.node(1);
    wait_until(|| cosigned(node) && node.checkpoint().is_some_and(|newest| newest.size >= size))
        .await;
    let (_, stats) = node.outside_witnesses().next().unwrap();
    assert_eq!(stats.failures.load(Ordering::Relaxed), 0);
    assert!(stats.cosigned_size.load(Ordering::Relaxed) >= size.get());
    assert!(refused() <= before + 1, "asked wrongly {} times", refused());
    cluster.stop_all().await;
    witness.stop().await;
}

/// Somebody with the ledger's key signs a second history: the witness does not cosign it, whatever proof comes with it,
/// and the ledger hears of a history that somebody else got cosigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_history_under_the_same_key_is_refused_and_noticed() {
    let mut witness = TestWitness::prepare("witness.example/w").await;
    let configured = vec![witness.address.clone()];
    let cluster = TestCluster::with(3, |options| options.witnesses = configured.clone()).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let key = witness.address.key.clone();
    witness
        .start(&[node.ledger().verifier_keys[0].clone()])
        .await;
    publish(node, "true").await;
    wait_until(|| node.checkpoint().is_some_and(|newest| has(&newest, &key))).await;

    let stolen = std::fs::read_to_string(cluster.key_dir(leader).join("ledger.key")).unwrap();
    let stolen = SigningKey::parse(stolen.trim_end()).unwrap();
    let cosigned = witness.witness().sizes()[0].1;
    let forged = |old: TreeSize, size: TreeSize, proof: usize| {
        let checkpoint = Checkpoint::new(stolen.name(), size, leaf_hash(b"another history"));
        let request = AddCheckpoint {
            old,
            proof: vec![leaf_hash(b"a"); proof],
            checkpoint: SignedCheckpoint::sign(checkpoint, &[&stolen]).unwrap(),
        };
        request.to_text().unwrap()
    };
    // The same size with another root; a larger one that does not extend it; from the beginning.
    let reply = witness.post(forged(cosigned, cosigned, 0).as_bytes()).await;
    assert_eq!(reply.status, 409);
    assert_ne!(reply.header("content-type"), Some("text/x.tlog.size"));
    let larger = cosigned.grown_by(5);
    for proof in 0..8 {
        assert_eq!(
            witness
                .post(forged(cosigned, larger, proof).as_bytes())
                .await
                .status,
            422
        );
    }
    let reply = witness
        .post(forged(TreeSize::EMPTY, larger, 0).as_bytes())
        .await;
    assert_eq!(
        (reply.status, reply.body),
        (409, format!("{cosigned}\n").into_bytes())
    );
    assert_eq!(witness.witness().sizes()[0].1, cosigned);
    witness.stop().await;

    // A witness that was shown the other history first: the ledger is told that it is not the one it remembers.
    std::fs::remove_dir_all(witness.state_dir()).unwrap();
    let mut options = witness
        .options(scribe::witness::parse_logs([node.ledger().verifier_keys[0].as_str()]).unwrap());
    options.accept_lost_state = true;
    let deceived = scribe::witness::Witness::open(options).unwrap();
    let ahead = TreeSize::new(3);
    let outcome = deceived
        .add_checkpoint(forged(TreeSize::EMPTY, ahead, 0).as_bytes())
        .await;
    assert!(
        matches!(outcome, scribe::witness::Outcome::Cosigned(_)),
        "{outcome:?}"
    );
    deceived.close().await.unwrap();
    drop(deceived);
    witness
        .start(&[node.ledger().verifier_keys[0].clone()])
        .await;
    publish(node, "still true").await;
    let forks = || {
        let mut stats = node
            .outside_witnesses()
            .map(|(_, stats)| stats.forks.load(Ordering::Relaxed));
        stats.next().unwrap()
    };
    wait_until(|| forks() > 0).await;
    // It goes on without the cosignature.
    let published = publish(node, "as ever").await;
    assert!(!has(&published, &key));
    cluster.stop_all().await;
    witness.stop().await;
}

/// Answers every request with these bytes, and counts.
async fn scripted(
    answer: impl Fn(&AddCheckpoint) -> String + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (Arc::clone(&asked), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let body = loop {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&piece[..read]);
                    if let Some(at) = bytes.windows(4).position(|found| found == b"\r\n\r\n")
                        && let Ok(request) = AddCheckpoint::parse(&bytes[at + 4..])
                    {
                        break request;
                    }
                };
                count.fetch_add(1, Ordering::SeqCst);
                let reply = answer(&body);
                let _ = stream.write_all(reply.as_bytes()).await;
            });
        }
    });
    (url, asked)
}

fn http(status: u16, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Everything a witness can do wrong, at once, on one node: nothing of it gets into a checkpoint, and each is told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn witnesses_that_lie_get_nothing_into_a_checkpoint() {
    const PLAIN: &str = "text/plain";
    const SIZE: &str = "text/x.tlog.size";
    let plain = SigningKey::from_seed("witness.example/plain", &[21; 32]).unwrap();
    let namesake = cosigner("witness.example/garbage", 99);
    let honest_key = cosigner("witness.example/honest", 30);
    type Answer = Box<dyn Fn(&AddCheckpoint) -> String + Send + Sync>;
    let answers: Vec<(&str, u8, Answer)> = vec![
        (
            "garbage",
            20,
            Box::new(|_| http(200, PLAIN, "<html>welcome</html>")),
        ),
        // What siglog's witness does: a signature over the checkpoint alone, without a final newline.
        (
            "plain",
            21,
            Box::new(move |request| {
                let note = sign_note(&request.checkpoint.note().text, &[&plain]).unwrap();
                http(200, PLAIN, note.signatures[0].to_line().trim_end())
            }),
        ),
        (
            "other-key",
            22,
            Box::new(move |request| {
                let text = &request.checkpoint.note().text;
                let line = cosignature::sign(text, &namesake, 1_800_000_000).unwrap();
                http(200, PLAIN, &line.to_line())
            }),
        ),
        (
            "old",
            23,
            Box::new(|request| {
                let text = &request.checkpoint.note().text;
                let line =
                    cosignature::sign(text, &cosigner("witness.example/old", 23), 1).unwrap();
                http(200, PLAIN, &line.to_line())
            }),
        ),
        (
            "long",
            24,
            Box::new(|_| http(200, PLAIN, &"x".repeat(1 << 20))),
        ),
        (
            "never-content",
            25,
            Box::new(|request| http(409, SIZE, &format!("{}\n", request.old.get() + 1))),
        ),
        (
            "stubborn",
            26,
            Box::new(|request| http(409, SIZE, &format!("{}\n", request.old))),
        ),
        ("far-ahead", 27, Box::new(|_| http(409, SIZE, "1000000\n"))),
        ("no-size", 28, Box::new(|_| http(409, SIZE, "many\n"))),
        (
            "unwilling",
            29,
            Box::new(|_| http(403, PLAIN, "who are you\n")),
        ),
        (
            "honest",
            30,
            Box::new(move |request| {
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                let text = &request.checkpoint.note().text;
                let own = cosignature::sign(text, &honest_key, now.as_secs()).unwrap();
                // Lines nobody asked for come along.
                let other =
                    cosignature::sign(text, &cosigner("x.example/x", 1), now.as_secs()).unwrap();
                http(200, PLAIN, &format!("{}{}", other.to_line(), own.to_line()))
            }),
        ),
    ];
    let mut configured = Vec::new();
    let mut counts = Vec::new();
    for (name, seed, answer) in answers {
        let (url, asked) = scripted(answer).await;
        configured.push(address(
            &cosigner(&format!("witness.example/{name}"), seed),
            &url,
        ));
        counts.push((name, asked));
    }
    let cluster = TestCluster::with(1, |options| options.witnesses = configured.clone()).await;
    let node = cluster.node(1);
    publish(node, "k").await;
    let honest = cosigner("witness.example/honest", 30);
    wait_until(|| {
        node.checkpoint()
            .is_some_and(|newest| has(&newest, honest.verifier_key()))
    })
    .await;
    // Each was asked, and found wanting.
    let stats = |name: &str| {
        let full = format!("witness.example/{name}");
        node.outside_witnesses()
            .find(|(found, _)| *found == full)
            .unwrap()
            .1
    };
    for (name, asked) in &counts {
        wait_until(|| asked.load(Ordering::SeqCst) > 0).await;
        if *name != "honest" {
            wait_until(|| stats(name).failures.load(Ordering::Relaxed) > 0).await;
        }
    }
    assert_eq!(stats("honest").failures.load(Ordering::Relaxed), 0);
    // Somebody cosigned more of this ledger than there is: as grave as a fork, for it is one.
    wait_until(|| stats("far-ahead").forks.load(Ordering::Relaxed) > 0).await;
    assert_eq!(stats("unwilling").forks.load(Ordering::Relaxed), 0);
    let published = publish(node, "again").await;
    wait_until(|| {
        node.checkpoint().is_some_and(|newest| {
            newest.size >= published.size && has(&newest, honest.verifier_key())
        })
    })
    .await;
    let origin = node.ledger().origin;
    assert_eq!(
        names(node),
        [
            origin.clone(),
            format!("{origin}/node/1"),
            honest.name().to_owned()
        ]
    );
    cluster.stop_all().await;
}

/// A member that sends the true checkpoint with whatever it likes under it: what verifies under known keys stays, the rest
/// is gone, and nothing grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hostile_member_cannot_make_a_checkpoint_grow_or_spoil_it() {
    let known = cosigner("witness.example/known", 9);
    let configured = vec![address(&known, "http://127.0.0.1:1")];
    let cluster = TestCluster::with(3, |options| options.witnesses = configured.clone()).await;
    let leader = cluster.leader().await;
    let published = publish(cluster.node(leader), "k").await;
    let hostile = *cluster.ids().iter().find(|id| **id != leader).unwrap();
    let target = *cluster
        .ids()
        .iter()
        .find(|id| ![leader, hostile].contains(*id))
        .unwrap();
    let node = cluster.node(target);
    wait_until(|| {
        node.checkpoint()
            .is_some_and(|newest| newest.size >= published.size)
    })
    .await;

    let files = ClusterFiles::load(&cluster.key_dir(hostile))
        .unwrap()
        .unwrap();
    let pool = Pool::new(PeerOptions {
        cluster_id: files.cluster_id,
        node_id: hostile,
        security: Security::Tls(files.tls_identity().unwrap()),
        timeouts: Default::default(),
        forward_connections: 1,
    });
    let send = async |note: &SignedCheckpoint| {
        let message = CheckpointMessage {
            note: note.to_text(),
        };
        let parts = vec![Bytes::from(message.encode_to_vec())];
        let wait = Wait::Deadline(std::time::Duration::from_secs(20));
        pool.call(
            target,
            node.raft_addr(),
            Lane::Control,
            kind::CHECKPOINT,
            parts,
            wait,
        )
        .await
    };
    let newest = node.checkpoint().unwrap();
    let good = SignedCheckpoint::parse(&newest.note).unwrap();
    let before: BTreeSet<String> = names(node).into_iter().collect();
    let text = good.note().text.clone();

    let mut stuffed = good.note().clone();
    stuffed.signatures.truncate(1);
    while stuffed.signatures.len() < 126 {
        let at = stuffed.signatures.len() as u32;
        stuffed.signatures.push(Signature {
            name: "hostile.example/x".to_owned(),
            key_id: at,
            bytes: vec![1; 72],
        });
    }
    // Lines that would spoil it: known keys over something else.
    let elsewhere = cosignature::sign("something else\n", &known, 1_800_000_000).unwrap();
    stuffed.signatures.push(elsewhere);
    send(&SignedCheckpoint::from_note(stuffed).unwrap())
        .await
        .unwrap();
    let after: BTreeSet<String> = names(node).into_iter().collect();
    assert_eq!(after, before);
    Policy::parse(&node.ledger().policy)
        .unwrap()
        .evaluate(&SignedCheckpoint::parse(&node.checkpoint().unwrap().note).unwrap())
        .unwrap();

    // A true cosignature of a configured witness is taken, and added to what is shown.
    let mut cosigned = good.note().clone();
    cosigned.signatures.truncate(1);
    let line = cosignature::sign(&text, &known, 1_800_000_000).unwrap();
    cosigned.signatures.push(line);
    send(&SignedCheckpoint::from_note(cosigned).unwrap())
        .await
        .unwrap();
    let after: BTreeSet<String> = names(node).into_iter().collect();
    if node.checkpoint().unwrap().size == newest.size {
        let expected: BTreeSet<String> = before
            .into_iter()
            .chain([known.name().to_owned()])
            .collect();
        assert_eq!(after, expected);
    }
    // In a receipt, whatever is shown by now.
    let kept = node.checkpoint_covering(newest.size).unwrap();
    assert!(has(&kept, known.verifier_key()));
    // Without the ledger's signature nothing is looked at.
    let mut unsigned = good.note().clone();
    unsigned.signatures.remove(0);
    assert!(
        send(&SignedCheckpoint::from_note(unsigned).unwrap())
            .await
            .is_err()
    );
    cluster.stop_all().await;
}
