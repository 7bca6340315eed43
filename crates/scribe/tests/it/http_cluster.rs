//! `/v1/cluster…`, and the rest of the API on a node that does not lead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use scribe_client::{Client, Wait};
use serde_json::{Value, json};

use crate::support::{Reply, TestServer, request};
use crate::test_cluster::{TestCluster, eventually};

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn serve_all(cluster: &TestCluster) -> BTreeMap<u64, TestServer> {
    let mut servers = BTreeMap::new();
    for id in cluster.ids() {
        let server = TestServer::over(cluster.node(id), ANY_PORT).await;
        servers.insert(id, server);
    }
    servers
}

async fn stop_all(servers: BTreeMap<u64, TestServer>, cluster: TestCluster) {
    for server in servers.into_values() {
        server.stop().await;
    }
    cluster.stop_all().await;
}

fn member(cluster: &Value, id: u64) -> &Value {
    let members = cluster["members"].as_array().unwrap();
    members
        .iter()
        .find(|member| member["node_id"] == id)
        .unwrap_or_else(|| panic!("no member {id}: {cluster}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_alone_says_so_and_has_nobody_to_change() {
    let server = TestServer::start().await;
    let reply = server.get("/v1/cluster").await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let cluster = reply.json();
    let id = cluster["node"]["node_id"].as_u64().unwrap();
    assert_eq!(cluster["leader"], id);
    assert_eq!(cluster["failures_tolerated"], 0);
    assert_eq!(cluster["warning"], Value::Null);
    let only = member(&cluster, id);
    assert_eq!(only["role"], "voter");
    assert_eq!(only["reachable"], true);
    assert_eq!(only["state"], "leader");
    assert_eq!(only["not_ready"], Value::Null);
    assert_eq!(only["catch_up"], Value::Null);
    assert_eq!(only["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(only["root"].as_str().unwrap().len(), 64);
    assert_eq!(only["http_addr"], server.addr.to_string());
    let members = server.get("/v1/cluster/members").await.json();
    assert_eq!(members["members"].as_array().unwrap().len(), 1);
    let leader = server.get("/v1/cluster/leader").await.json();
    let expected =
        json!({"node_id": id, "is_this_node": true, "http_addr": server.addr.to_string()});
    assert_eq!(leader, expected);

    let token = server.post("/v1/cluster/tokens", &json!({})).await;
    let problem = token.problem(409, "cluster_refused");
    assert!(
        problem["hint"].as_str().unwrap().contains("cluster init"),
        "{problem}"
    );
    let unknown = "/v1/cluster/members/77";
    let promoted = server.post(&format!("{unknown}/promote"), &json!({})).await;
    let problem = promoted.problem(409, "cluster_refused");
    assert!(problem["detail"].as_str().unwrap().contains("77"));
    let removed = server
        .send("DELETE", &format!("/v1/cluster/members/{id}"), &[], None)
        .await;
    removed.problem(409, "cluster_refused");

    let metrics = server.get("/metrics").await.text();
    for line in [
        "scribe_cluster_members 1",
        "scribe_cluster_voters 1",
        "scribe_cluster_is_voter 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    assert!(!metrics.contains("{peer="), "there are no peers");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_changes_are_refused_before_anybody_is_asked() {
    let server = TestServer::start().await;
    let tokens = "/v1/cluster/tokens";
    for seconds in [0, 7 * 24 * 60 * 60 + 1] {
        let reply = server.post(tokens, &json!({"expires_in_s": seconds})).await;
        reply.problem(400, "invalid_argument");
    }
    for (target, body) in [
        (tokens, json!({"expires": 1})),
        ("/v1/cluster/members/1/promote", json!({"force": true})),
        ("/v1/cluster/members/1/replace", json!({})),
        ("/v1/cluster/leader", json!({"node_id": "1"})),
        // An array with the members' values in their order is no object.
        ("/v1/cluster/leader", json!([1])),
    ] {
        server.post(target, &body).await.problem(400, "bad_request");
    }
    let long = json!({"node_id": 1, "x": "y".repeat(8_192)});
    let reply = server.post("/v1/cluster/leader", &long).await;
    reply.problem(413, "body_too_large");
    let named = server
        .post("/v1/cluster/members/one/promote", &json!({}))
        .await;
    named.problem(400, "invalid_argument");
    for (method, target, allow) in [
        ("PUT", "/v1/cluster/leader", "GET, HEAD, POST"),
        ("GET", "/v1/cluster/tokens", "POST"),
        ("GET", "/v1/cluster/members/1", "DELETE"),
        ("POST", "/v1/cluster/members", "GET, HEAD"),
    ] {
        let reply = server.send(method, target, &[], Some(b"{}")).await;
        reply.problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {target}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_come_is_waited_for_a_while() {
    let server = TestServer::start().await;
    let index = server.must_put("k", b"v").await;
    let next = (index + 1).to_string();
    let min = [("Scribe-Min-Index", next.as_str())];
    let (started, target) = (Instant::now(), "/v1/keys/k?consistency=stale");
    let problem = server.send("GET", target, &min, None).await;
    let problem = problem.problem(503, "not_applied");
    assert!(started.elapsed() >= Duration::from_secs(5));
    assert!(problem["hint"].is_string());
    assert_eq!(problem["tree_size"], index + 1);
    // One that comes while it is waited for is seen.
    let (reply, _) = tokio::join!(
        server.send("GET", target, &min, None),
        server.must_put("k", b"w")
    );
    assert_eq!(reply.text(), "w");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_served_by_a_node_that_does_not_lead() {
    let cluster = TestCluster::new(3).await;
    let id = cluster.follower().await;
    let server = TestServer::over(cluster.node(id), ANY_PORT).await;
    let mut watch = server.connect().await;
    watch
        .write(&request("GET", "/v1/watch?prefix=a", &[], None))
        .await;
    assert_eq!(watch.head().await.status, 200);

    let put = server.put("/v1/keys/a?wait=published", b"1").await;
    assert_eq!(put.status, 201, "{}", put.text());
    let index = put.json()["index"].as_u64().unwrap();
    let event = watch.read_until(b"event: entry").await.unwrap();
    assert!(String::from_utf8_lossy(&event).contains(&format!("id: {index}")));
    let check = |reply: Reply, status: u16| {
        assert_eq!(reply.status, status, "{}", reply.text());
        reply
    };
    assert_eq!(check(server.get("/v1/keys/a").await, 200).text(), "1");
    let headers = [("Scribe-Min-Index", index.to_string())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let stale = server
        .send("GET", "/v1/keys/a?consistency=stale", &headers, None)
        .await;
    assert_eq!(check(stale, 200).text(), "1");
    let receipt = check(server.get("/v1/keys/a/receipt").await, 200);
    assert!(receipt.text().contains("tlog-proof"), "{}", receipt.text());
    let size: u64 = check(server.get("/checkpoint").await, 200)
        .header("scribe-tree-size")
        .unwrap()
        .parse()
        .unwrap();
    assert!(size > index);
    for target in [
        format!("/v1/proofs/inclusion?index={index}"),
        format!("/v1/proofs/consistency?old=1&new={size}"),
        "/v1/keys/a/history".to_owned(),
        "/v1/keys".to_owned(),
        "/v1/entries".to_owned(),
        "/v1/ledger".to_owned(),
        "/health/ready".to_owned(),
    ] {
        check(server.get(&target).await, 200);
    }
    let operations =
        json!({"operations": [{"put": {"key": "b", "value": "2"}}, {"delete": {"key": "a"}}]});
    check(server.post("/v1/transactions", &operations).await, 201);
    let lines = b"{\"key\":\"c\",\"value\":\"3\"}\n{\"key\":\"d\",\"value\":\"4\"}\n";
    let uploaded = check(
        server.send("POST", "/v1/entries", &[], Some(lines)).await,
        200,
    );
    let done = uploaded.lines().pop().unwrap();
    assert_eq!(done, json!({"done": true, "lines": 2, "failed": 0}));
    let deleted = server.send("DELETE", "/v1/keys/b", &[], None).await;
    check(deleted, 201);
    let keys = json!({"keys": ["a", "b", "c"]});
    let many = check(server.post("/v1/keys:get", &keys).await, 200).json();
    assert_eq!(many["entries"][0]["entry"]["kind"], "delete");
    assert_eq!(many["entries"][2]["entry"]["value"], "3");
    server.stop().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_tells_how_all_are_and_changes_who_belongs() {
    let mut cluster = TestCluster::new(3).await;
    let servers = serve_all(&cluster).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    cluster.same_everywhere().await;
    let seen = servers[&follower].get("/v1/cluster").await.json();
    assert_eq!(seen["leader"], leader);
    assert_eq!(seen["node"]["node_id"], follower);
    assert_eq!(seen["failures_tolerated"], 1);
    assert_eq!(seen["warning"], Value::Null);
    for id in cluster.ids() {
        let member = member(&seen, id);
        assert_eq!(member["role"], "voter", "{member}");
        assert_eq!(member["reachable"], true, "{member}");
        assert_eq!(member["state"] == "leader", id == leader, "{member}");
        assert!(member["raft_addr"].as_str().unwrap().contains(':'));
    }
    // Only the leader knows how far the others are.
    let other = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader && *id != follower);
    let other = other.unwrap();
    assert_eq!(member(&seen, other)["matched_log_index"], Value::Null);
    let told = servers[&leader].get("/v1/cluster").await.json();
    assert!(member(&told, other)["matched_log_index"].is_u64(), "{told}");
    let said = servers[&follower].get("/v1/cluster/leader").await.json();
    assert_eq!(
        (&said["node_id"], &said["is_this_node"]),
        (&json!(leader), &json!(false))
    );

    let metrics = servers[&leader].get("/metrics").await.text();
    for line in [
        format!("scribe_peer_connections_opened_total{{peer=\"{follower}\"}} "),
        format!("scribe_peer_matched_log_index{{peer=\"{follower}\"}} "),
        "scribe_cluster_voters 3".to_owned(),
        "scribe_peer_server_requests_total ".to_owned(),
    ] {
        assert!(
            metrics.lines().any(|found| found.starts_with(&line)),
            "{line}"
        );
    }

    // Through a node that does not lead: a token, a learner made a voter, leadership handed over, a voter removed.
    let client = Client::new(format!("http://{}", servers[&follower].addr)).unwrap();
    let token = client.cluster_token(Duration::from_secs(60)).await.unwrap();
    assert!(!token.token.is_empty());
    let joined = cluster.join(follower).await;
    let members = client.members().await.unwrap();
    let learner = members.iter().find(|member| member.node_id == joined);
    assert_eq!(learner.unwrap().role, "learner");
    eventually("the learner is close enough to vote", async || {
        client.promote(joined).await.is_ok()
    })
    .await;
    let voters = client.cluster().await.unwrap();
    assert_eq!((voters.members.len(), voters.failures_tolerated), (4, 1));
    client.transfer(follower).await.unwrap();
    assert_eq!(cluster.leader().await, follower);
    client.remove(other).await.unwrap();
    let left = client.members().await.unwrap();
    assert!(left.iter().all(|member| member.node_id != other));
    let error = client.remove(other).await.unwrap_err();
    let refused = Some(scribe_client::ErrorCode::ClusterRefused);
    assert_eq!(error.code(), refused, "{error}");
    stop_all(servers, cluster).await;
}

/// Without a majority nothing new is written or read for certain, but what is here is still told to who asks for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_others_still_answers_stale_reads() {
    let mut cluster = TestCluster::new(3).await;
    let left = cluster.follower().await;
    let server = TestServer::over(cluster.node(left), ANY_PORT).await;
    server.must_put("k", b"v").await;
    cluster.same_everywhere().await;
    for id in cluster.ids().into_iter().filter(|id| *id != left) {
        cluster.stop(id).await;
    }
    eventually("the node is not ready", async || {
        server.get("/health/ready").await.status == 503
    })
    .await;
    let started = Instant::now();
    let stale = server.get("/v1/keys/k?consistency=stale").await;
    assert_eq!((stale.status, stale.text().as_str()), (200, "v"));
    let seen = server.get("/v1/cluster").await.json();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "nobody was waited for"
    );
    for member in seen["members"].as_array().unwrap() {
        assert_eq!(member["reachable"], member["node_id"] == left, "{member}");
        assert_eq!(
            member["error"].is_null(),
            member["node_id"] == left,
            "{member}"
        );
    }
    assert!(
        seen["warning"].as_str().unwrap().contains("1 of 3 voters"),
        "{seen}"
    );
    server.stop().await;
    cluster.stop_all().await;
}

/// One node after the other is stopped and started again while a client that knows all of them writes and reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_all_nodes_notices_no_rolling_restart() {
    let mut cluster = TestCluster::new(3).await;
    let mut servers = serve_all(&cluster).await;
    let urls = servers
        .values()
        .map(|server| format!("http://{}", server.addr));
    let client = Client::builder_for(urls).build().unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::spawn(async move {
        let mut writes = 0_u64;
        while stopped.try_recv().is_err() {
            let value = writes.to_string();
            let appended = client.put("k", value.clone()).wait(Wait::Appended).send();
            let appended = appended.await.unwrap();
            let read = client.get("k").send().await.unwrap().unwrap();
            assert_eq!(read.head.index, appended.index);
            assert_eq!(read.bytes, value);
            writes += 1;
        }
        (client, writes)
    });
    for id in cluster.ids() {
        let addr = servers[&id].addr;
        servers.remove(&id).unwrap().stop().await;
        cluster.stop(id).await;
        cluster.start(id).await;
        servers.insert(id, TestServer::over(cluster.node(id), addr).await);
        eventually("the node is ready again", async || {
            servers[&id].get("/health/ready").await.status == 200
        })
        .await;
    }
    stop.send(()).unwrap();
    let (client, writes) = writer.await.unwrap();
    assert!(writes > 0);
    // Each write is there once, although some were sent to more than one node.
    let (mut versions, mut cursor) = (0, None::<String>);
    loop {
        let mut page = client.history("k").limit(1_000);
        if let Some(cursor) = cursor.take() {
            page = page.cursor(cursor);
        }
        let page = page.send().await.unwrap();
        versions += page.versions.len() as u64;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(versions, writes);
    stop_all(servers, cluster).await;
}
