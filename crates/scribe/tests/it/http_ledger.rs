//! Proofs, the ledger's identity, probes, metrics, and the API's description of itself.

use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::{consistency, inclusion};
use serde_json::Value;

use crate::support::TestServer;

fn hash(value: &Value) -> Hash {
    Hash::from_hex(value.as_str().unwrap()).unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_verify_with_the_proof_crate() {
    let server = TestServer::start().await;
    let mut size = 0;
    for n in 0..20 {
        size = server.must_put(&format!("k{n}"), b"v").await + 1;
    }
    for index in 0..size {
        let proof = server
            .get(&format!(
                "/v1/proofs/inclusion?index={index}&tree_size={size}"
            ))
            .await
            .json();
        inclusion::verify(
            &hash(&proof["leaf_hash"]),
            LeafIndex::new(index),
            TreeSize::new(size),
            &hashes(&proof["hashes"]),
            &hash(&proof["root_hash"]),
        )
        .unwrap();
    }
    for old in 0..=size {
        let proof = server
            .get(&format!("/v1/proofs/consistency?old={old}&new={size}"))
            .await
            .json();
        assert_eq!(
            (&proof["old_size"], &proof["new_size"]),
            (&old.into(), &size.into())
        );
        if old > 0 {
            consistency::verify(
                TreeSize::new(old),
                &hash(&proof["old_root_hash"]),
                TreeSize::new(size),
                &hash(&proof["new_root_hash"]),
                &hashes(&proof["hashes"]),
            )
            .unwrap();
        }
    }
    // Without a size: against the newest checkpoint.
    server.put("/v1/keys/k?wait=published", b"v").await;
    let proof = server.get("/v1/proofs/inclusion?index=0").await.json();
    assert!(proof["tree_size"].as_u64().unwrap() > size);

    for (target, code) in [
        ("inclusion", "invalid_argument"),
        ("inclusion?index=x", "invalid_argument"),
        ("inclusion?index=5&tree_size=5", "invalid_argument"),
        ("inclusion?index=5&tree_size=1000000", "future"),
        ("inclusion?index=5&size=6", "unknown_parameter"),
        ("consistency", "invalid_argument"),
        ("consistency?old=5&new=4", "invalid_argument"),
        ("consistency?old=5&new=1000000", "future"),
    ] {
        server
            .get(&format!("/v1/proofs/{target}"))
            .await
            .problem(400, code);
    }
    server
        .get("/v1/proofs/absence")
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_says_who_it_is() {
    let server = TestServer::start().await;
    server.put("/v1/keys/k?wait=published", b"v").await;
    let ledger = server.get("/v1/ledger").await.json();
    let origin = ledger["origin"].as_str().unwrap();
    assert!(
        ledger["verifier_keys"][0]
            .as_str()
            .unwrap()
            .starts_with(origin)
    );
    assert!(ledger["policy"].as_str().unwrap().contains(origin));
    assert_eq!(ledger["rotations"], serde_json::json!([]));
    let checkpoint = server.get("/checkpoint").await;
    assert_eq!(
        checkpoint.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(checkpoint.text().starts_with(&format!("{origin}\n")));
    assert!(ledger["checkpoint"].as_str().unwrap().starts_with(origin));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_cluster_status() {
    let server = TestServer::start().await;
    for target in ["/health/live", "/health/ready"] {
        let reply = server.get(target).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let health = reply.json();
        assert_eq!(health["status"], "ok");
        assert_eq!(health["is_leader"], true);
        assert_eq!(health["state"], "leader");
        assert_eq!(health["current_leader"], health["node_id"]);
        assert!(health["last_applied"].is_u64());
    }
    let cluster = server.get("/v1/cluster").await.json();
    assert_eq!(cluster["members"][0]["role"], "voter");
    assert_eq!(cluster["members"][0]["http_addr"], server.addr.to_string());
    assert_eq!(cluster["failures_tolerated"], 0);
    let leader = server.get("/v1/cluster/leader").await.json();
    assert_eq!(leader["node_id"], cluster["node"]["node_id"]);
    server
        .get("/health/ready?verbose=1")
        .await
        .problem(400, "unknown_parameter");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_asked() {
    let server = TestServer::start().await;
    server.must_put("k", b"v").await;
    server.get("/v1/keys/k").await;
    server.get("/v1/keys/none").await;
    let reply = server.get("/metrics").await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = reply.text();
    for line in [
        "scribe_http_requests_total{route=\"put\",status=\"2xx\"} 1",
        "scribe_http_requests_total{route=\"get\",status=\"2xx\"} 1",
        "scribe_http_requests_total{route=\"get\",status=\"4xx\"} 1",
        "scribe_http_request_seconds_count{route=\"get\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // Each family is described once, and every sample belongs to a described family.
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(
                described.insert(rest.split(' ').next().unwrap().to_owned()),
                "{line}"
            );
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| described.contains(*name))
                })
                .unwrap_or(name);
            assert!(described.contains(family), "{line}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_described_answers() {
    let server = TestServer::start().await;
    let description = server.get("/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let target = path.replace("{key}", "k").replace("{index}", "0");
            if target == "/v1/watch" {
                // Its answer does not end; it has tests of its own.
                continue;
            }
            let method = method.to_uppercase();
            let body = (method != "GET").then_some(&b""[..]);
            let reply = server.send(&method, &target, &[], body).await;
            // A key that is not there is an answer; a route that is not there has another detail.
            assert_ne!(reply.status, 405, "{method} {target}");
            assert!(
                !reply.text().contains("is not a route"),
                "{method} {target}"
            );
        }
    }
    server.get("/").await.problem(404, "not_found");
    server.get("/v2/keys/k").await.problem(404, "not_found");
    for (method, target, allow) in [
        ("POST", "/v1/keys", "GET, HEAD"),
        ("GET", "/v1/keys:get", "POST"),
        ("GET", "/v1/transactions", "POST"),
        ("DELETE", "/v1/entries/1", "GET, HEAD"),
        ("PUT", "/checkpoint", "GET, HEAD, OPTIONS"),
        ("DELETE", "/tile/0/000", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD"),
        ("OPTIONS", "/v1/watch", "GET, HEAD"),
    ] {
        let reply = server.send(method, target, &[], Some(b"")).await;
        reply.problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {target}");
    }
    assert_eq!(
        server.send("HEAD", "/v1/ledger", &[], None).await.status,
        200
    );
    server.stop().await;
}
