//! Receipts from memory and from disk, many at once, and what `?wait=published` promises.

use std::net::SocketAddr;
use std::path::PathBuf;

use scribe::node::NodeOptions;
use scribe_proof::inclusion;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::policy::Policy;
use scribe_proof::receipt::Receipt;
use scribe_proof::tree::MemoryTree;
use serde_json::{Value, json};

use crate::support::TestServer;
use crate::test_cluster::{TestCluster, eventually};
use crate::test_ledger::{TestLedger, put};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Nothing is published by itself within a test.
const NEVER_MS: u64 = 3_600_000;

async fn policy(server: &TestServer) -> Policy {
    let ledger = server.get("/v1/ledger").await.json();
    Policy::parse(ledger["policy"].as_str().unwrap()).unwrap()
}

/// Tree size of the checkpoint shown.
async fn shown(server: &TestServer) -> u64 {
    let reply = server.get("/checkpoint").await;
    let size = reply.header("scribe-tree-size").unwrap();
    size.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_the_same_from_disk_and_from_memory() {
    let mut ledger = TestLedger::start_with(|options| options.publish_interval_ms = NEVER_MS).await;
    let mut size = 0;
    for n in 0..700 {
        size = ledger.put(&format!("k{n}"), "v").await.tree_size.get();
    }
    // Most of it is on disk now, and nothing in memory.
    ledger.restart().await;
    let server = TestServer::over(&ledger.node, ANY).await;
    let mut tree = MemoryTree::new();
    let leaves = ledger
        .node
        .entries(LeafIndex::new(0), 1_000, 1 << 24)
        .unwrap();
    leaves.iter().for_each(|leaf| tree.append(leaf.leaf_hash()));
    for round in 0..2 {
        let policy = policy(&server).await;
        for n in (0..700).step_by(13) {
            for _ in 0..2 {
                let reply = server.get(&format!("/v1/keys/k{n}/receipt")).await;
                let receipt = Receipt::parse(&reply.text()).unwrap();
                let found = receipt.verify(&policy).unwrap();
                found.check_key(format!("k{n}").as_bytes()).unwrap();
                found.check_value(b"v").unwrap();
                let published = found.tree_size();
                assert!(published >= TreeSize::new(size));
                assert_eq!(
                    receipt.proof,
                    inclusion::prove(&tree, receipt.index, published).unwrap(),
                    "{n} in round {round}"
                );
            }
        }
        // Another right edge: the same tiles in another width.
        let reply = server.put("/v1/keys/more?wait=published", b"v").await;
        size = reply.json()["tree_size"].as_u64().unwrap();
        let more = ledger
            .node
            .entry(LeafIndex::new(size - 1))
            .unwrap()
            .unwrap();
        while tree.size() < TreeSize::new(size - 1) {
            let next = ledger
                .node
                .entry(tree.size().next_index())
                .unwrap()
                .unwrap();
            tree.append(next.leaf_hash());
        }
        tree.append(more.leaf_hash());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_receipts_share_one_checkpoint() {
    let ledger = TestLedger::start_with(|options| options.publish_interval_ms = NEVER_MS).await;
    let server = TestServer::over(&ledger.node, ANY).await;
    let mut wanted = Vec::new();
    let mut expected = Vec::new();
    for n in 0..300 {
        let key = format!("k{}", n % 100);
        let index = ledger.put(&key, &format!("value {n}")).await.index.get();
        if n % 3 == 0 {
            wanted.push(json!({"key": key, "index": index}));
            expected.push((key, format!("value {n}")));
        } else if n >= 200 {
            wanted.push(json!({"key": key}));
            expected.push((key, format!("value {n}")));
        }
    }
    let before = shown(&server).await;
    let reply = server
        .post("/v1/receipts", &json!({"entries": wanted}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    let size = answer["tree_size"].as_u64().unwrap();
    assert!(size > before, "what was not published is published at once");
    assert_eq!(reply.header("scribe-tree-size"), Some(&*size.to_string()));
    let receipts = answer["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), expected.len());
    let policy = policy(&server).await;
    for (found, (key, value)) in receipts.iter().zip(&expected) {
        assert_eq!(found["key"], **key);
        let receipt = Receipt::parse(found["receipt"].as_str().unwrap()).unwrap();
        assert_eq!(found["index"], receipt.index.get());
        let entry = receipt.verify(&policy).unwrap();
        assert_eq!(entry.tree_size(), TreeSize::new(size));
        entry.check_key(key.as_bytes()).unwrap();
        entry.check_value(value.as_bytes()).unwrap();
    }

    // What concerns one version leaves the others alone; a tombstone can be proved.
    server.put("/v1/keys/%FF%FE", b"raw").await;
    server.send("DELETE", "/v1/keys/k1", &[], None).await;
    let wanted = json!({"entries": [
        {"key": "never"},
        {"key_base64": "//4="},
        {"key": "k1"},
        {"key": "k2", "index": 0},
        {"key": "k2", "index": 1_000_000},
    ]});
    let answer = server.post("/v1/receipts", &wanted).await.json();
    let codes: Vec<&Value> = answer["receipts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["error"]["code"])
        .collect();
    let codes: Vec<_> = codes.into_iter().map(Value::as_str).collect();
    assert_eq!(
        codes,
        [
            Some("not_found"),
            None,
            None,
            Some("not_found"),
            Some("future")
        ]
    );
    assert_eq!(answer["receipts"][1]["key_base64"], "//4=");
    let text = answer["receipts"][2]["receipt"].as_str().unwrap();
    let tombstone = Receipt::parse(text).unwrap().verify(&policy).unwrap();
    assert_eq!(tombstone.kind, scribe_proof::LeafKind::Delete);
    let nothing = server
        .post("/v1/receipts", &json!({"entries": [{"key": "never"}]}))
        .await
        .json();
    assert_eq!(nothing["tree_size"], Value::Null);

    let many = vec![json!({"key": "k1"}); 1_001];
    for (body, status, code) in [
        (json!({"entries": []}), 400, "invalid_argument"),
        (json!({"entries": many}), 413, "body_too_large"),
        (json!({"entries": [{"key": ""}]}), 400, "invalid_key"),
        (
            json!({"entries": [{"key": "a", "key_base64": "YQ=="}]}),
            400,
            "invalid_key",
        ),
        (json!({"entries": [{}]}), 400, "invalid_key"),
        (
            json!({"entries": [{"key": "a", "at": 5}]}),
            400,
            "bad_request",
        ),
        (json!({"keys": ["a"]}), 400, "bad_request"),
    ] {
        let reply = server.post("/v1/receipts", &body).await;
        reply.problem(status, code);
    }
    let reply = server.get("/v1/receipts").await;
    reply.problem(405, "method_not_allowed");
    server.stop().await;
}

/// Every way to write, each waiting until it is published: the status of the answer, and its body.
async fn write_every_way(server: &TestServer, name: &str) -> Vec<(u16, Value)> {
    let put = format!("/v1/keys/{name}-put?wait=published");
    let delete = format!("/v1/keys/{name}-delete?wait=published");
    let transaction = json!({"operations": [
        {"put": {"key": format!("{name}-a"), "value": "1"}},
        {"put": {"key": format!("{name}-b"), "value": "2"}},
    ]});
    let line = format!("{{\"key\":\"{name}-bulk\",\"value\":\"1\"}}\n");
    let media = [("content-type", "application/x-ndjson")];
    let (put, delete, transaction, bulk) = tokio::join!(
        server.put(&put, b"v"),
        server.send("DELETE", &delete, &[], None),
        server.post("/v1/transactions?wait=published", &transaction),
        server.send(
            "POST",
            "/v1/entries?wait=published",
            &media,
            Some(line.as_bytes())
        ),
    );
    let mut answers: Vec<_> = [put, delete, transaction]
        .iter()
        .map(|reply| (reply.status, reply.json()))
        .collect();
    // A bulk upload answers line by line.
    let line = bulk.lines().swap_remove(0);
    let status = line["error"]["status"]
        .as_u64()
        .map_or(201, |status| status as u16);
    let body = match line["error"].is_object() {
        true => line["error"].clone(),
        false => line,
    };
    answers.push((status, body));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_write_is_covered_by_what_its_node_shows() {
    let cluster = TestCluster::with(3, |options| options.publish_interval_ms = NEVER_MS).await;
    for id in cluster.ids() {
        let server = TestServer::over(cluster.node(id), ANY).await;
        // An appended write is not waited for: nothing publishes it.
        let appended = server.put("/v1/keys/appended", b"v").await.json();
        let shown_before = cluster
            .node(id)
            .checkpoint()
            .map(|newest| newest.size.get());
        assert!(shown_before < appended["tree_size"].as_u64());
        for (status, answer) in write_every_way(&server, &format!("by-{id}")).await {
            assert_eq!(status, 201, "{answer}");
            // Shown already, by the node that answered: no waiting here.
            let size = answer["tree_size"].as_u64().unwrap();
            assert!(shown(&server).await >= size, "{answer}");
        }
        server.stop().await;
    }
    cluster.stop_all().await;
}

/// While it lives, a node can neither read nor write its record of what it signed last.
struct NoRecord {
    record: PathBuf,
    away: PathBuf,
}

impl NoRecord {
    fn of(cluster: &TestCluster, id: u64) -> Self {
        let record = cluster.key_dir(id).join("last-signed");
        let away = cluster.key_dir(id).join("last-signed-away");
        std::fs::create_dir(&away).unwrap();
        let no_record = Self { record, away };
        no_record.exchange();
        no_record
    }

    /// In one step: a moment without any would be a record that is gone.
    fn exchange(&self) {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &self.record, CWD, &self.away, RenameFlags::EXCHANGE).unwrap();
    }

    fn end(self) {
        self.exchange();
        std::fs::remove_dir(&self.away).unwrap();
    }
}

/// What the next record is called until it is complete.
fn next_record() -> String {
    format!("last-signed.{}.tmp", std::process::id())
}

/// Nobody is elected because a machine is slow.
fn patient(options: &mut NodeOptions) {
    options.publish_interval_ms = NEVER_MS;
    options.consensus.election_timeout_min_ms = 3_000;
    options.consensus.election_timeout_max_ms = 6_000;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_record_what_it_signs_lets_another_sign_and_goes_on() {
    let mut cluster = TestCluster::with(3, patient).await;
    let first = cluster.leader().await;
    let server = TestServer::over(cluster.node(first), ANY).await;
    let reply = server.put("/v1/keys/before?wait=published", b"v").await;
    assert_eq!(reply.status, 201);
    let record = NoRecord::of(&cluster, first);
    // Acknowledged by the leader, and published by who leads after it.
    let index = server.put("/v1/keys/kept", b"v").await.json()["index"].clone();
    let others = cluster.all_but(first);
    let other = TestServer::over(cluster.node(others[0]), ANY).await;
    let receipts = json!({"entries": [{"key": "kept"}]});
    eventually("another leads and has published", async || {
        other.post("/v1/receipts", &receipts).await.status == 200
    })
    .await;
    assert!(shown(&other).await > index.as_u64().unwrap());
    assert_ne!(cluster.leader().await, first);
    // It takes part all the same: with one of the others stopped, its vote is needed for a write, and its record for a
    // checkpoint.
    cluster.stop(others[1]).await;
    eventually("two of three take a write", async || {
        other.put("/v1/keys/by-two", b"v").await.status == 201
    })
    .await;
    record.end();
    let receipts = json!({"entries": [{"key": "by-two"}]});
    for server in [&other, &server] {
        eventually("two of three publish", async || {
            server.post("/v1/receipts", &receipts).await.status == 200
        })
        .await;
    }
    server.stop().await;
    other.stop().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_a_leader_could_not_sign_is_signed_by_the_next_without_being_asked() {
    let cluster = TestCluster::with(3, |options| {
        patient(options);
        options.publish_interval_ms = 20;
    })
    .await;
    let first = cluster.leader().await;
    let append = async |key: &str| {
        let appended = cluster.node(first).append(put(key, "value")).await;
        appended.unwrap().tree_size
    };
    let shown_by = |ids: &[u64], size: TreeSize| {
        ids.iter().all(|id| {
            let shown = cluster.node(*id).checkpoint();
            shown.is_some_and(|shown| shown.size >= size)
        })
    };
    // Nothing is left to be signed before.
    let size = append("before").await;
    eventually("all show it", async || shown_by(&cluster.ids(), size)).await;
    // The record can be read, and no new one be made: what is agreed on is not signed here.
    let in_the_way = cluster.key_dir(first).join(next_record());
    std::fs::create_dir(&in_the_way).unwrap();
    let size = append("after").await;
    let others = cluster.all_but(first);
    eventually("the others show it", async || shown_by(&others, size)).await;
    assert_ne!(cluster.leader().await, first);
    std::fs::remove_dir(&in_the_way).unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_that_cannot_record_a_head_agrees_on_it_once_and_signs_it_later() {
    let cluster = TestCluster::with(1, patient).await;
    let server = TestServer::over(cluster.node(1), ANY).await;
    let reply = server.put("/v1/keys/before?wait=published", b"v").await;
    assert_eq!(reply.status, 201);
    let before = shown(&server).await;
    // The record can be read, and no new one be made.
    let in_the_way = cluster.key_dir(1).join(next_record());
    std::fs::create_dir(&in_the_way).unwrap();
    let frames = || cluster.node(1).log_stats().frames_written;
    let frames_before = frames();
    let reply = server.put("/v1/keys/kept?wait=published", b"v").await;
    let index = reply.problem(503, "not_published")["current_index"].clone();
    assert_eq!(shown(&server).await, before);
    // The write and the agreed head, however often it was tried to sign it.
    assert_eq!(frames() - frames_before, 2);
    std::fs::remove_dir(&in_the_way).unwrap();
    eventually("it is published", async || {
        shown(&server).await > index.as_u64().unwrap()
    })
    .await;
    assert_eq!(frames() - frames_before, 2);
    server.stop().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_cannot_be_published_is_kept_and_says_so() {
    let mut cluster = TestCluster::with(3, patient).await;
    let leader = cluster.leader().await;
    let server = TestServer::over(cluster.node(leader), ANY).await;
    server.put("/v1/keys/before?wait=published", b"v").await;
    let before = shown(&server).await;
    // The others can no longer record what they sign, so they cosign nothing: a majority appends, none publishes. They
    // are started again before, so as to take in a checkpoint they cosigned and cannot compare with their record: that is
    // no reason to stop signing for good.
    let mut records = Vec::new();
    for id in cluster.all_but(leader) {
        cluster.stop(id).await;
        cluster.start(id).await;
        records.push(NoRecord::of(&cluster, id));
        cluster.leader().await;
        cluster.same_everywhere().await;
    }
    let answers = write_every_way(&server, "kept").await;
    assert_eq!(answers.len(), 4);
    let mut indexes = Vec::new();
    for (status, problem) in &answers {
        assert_eq!(
            (*status, problem["code"].as_str()),
            (503, Some("not_published")),
            "{problem}"
        );
        indexes.push(problem["current_index"].as_u64().unwrap());
    }
    assert_eq!(shown(&server).await, before);
    // Each of them is in the ledger, at the index the refusal names.
    for (key, index) in ["put", "delete", "b", "bulk"].iter().zip(&indexes) {
        let reply = server.get(&format!("/v1/entries/{index}")).await;
        assert_eq!(reply.json()["key"], format!("kept-{key}"));
    }
    assert_eq!(server.get("/v1/keys/kept-put").await.text(), "v");
    let receipts = json!({"entries": [{"key": "kept-put"}]});
    let (single, batch) = tokio::join!(
        server.get("/v1/keys/kept-put/receipt"),
        server.post("/v1/receipts", &receipts)
    );
    for reply in [single, batch] {
        let problem = reply.problem(503, "not_published");
        assert_eq!(problem["current_index"], indexes[0]);
    }
    // What is published already can be proved all the same.
    let published = json!({"entries": [{"key": "before"}]});
    assert_eq!(server.post("/v1/receipts", &published).await.status, 200);

    // Once they can sign again, all of it is published.
    records.into_iter().for_each(NoRecord::end);
    eventually("what was kept is published", async || {
        server.post("/v1/receipts", &receipts).await.status == 200
    })
    .await;
    assert!(shown(&server).await > *indexes.iter().max().unwrap());
    server.stop().await;
    cluster.stop_all().await;
}
