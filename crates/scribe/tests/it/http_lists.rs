//! Many keys at once: listings, multi-get, transactions, the ledger in order.

use serde_json::{Value, json};

use crate::support::TestServer;

fn names(list: &Value) -> Vec<&str> {
    list["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["key"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_by_prefix_and_range() {
    let server = TestServer::start().await;
    for key in ["b%2F2", "a", "b%2F1", "b", "c", "b%2F3"] {
        server.must_put(key, b"v").await;
    }
    server.send("DELETE", "/v1/keys/b%2F2", &[], None).await;
    for (query, expected) in [
        ("", &["a", "b", "b/1", "b/3", "c"][..]),
        ("prefix=b/", &["b/1", "b/3"]),
        ("prefix=b%2f", &["b/1", "b/3"]),
        ("prefix=Yi8&key_encoding=base64url", &["b/1", "b/3"]),
        ("start=b&end=c", &["b", "b/1", "b/3"]),
        ("prefix=b&start=b/2", &["b/3"]),
        ("prefix=b&end=b/2", &["b", "b/1"]),
        ("start=c&end=a", &[]),
        ("prefix=zzz", &[]),
    ] {
        let list = server.get(&format!("/v1/keys?{query}")).await.json();
        assert_eq!(names(&list), expected, "{query}");
        assert_eq!(list["next"], Value::Null);
    }
    server.must_put("%ff%fe", b"v").await;
    let list = server.get("/v1/keys?start=%ff").await.json();
    assert_eq!(list["keys"][0]["key_base64"], "//4=");
    assert!(list["keys"][0].get("key").is_none());
    server
        .get("/v1/keys?prefix=%f")
        .await
        .problem(400, "bad_request");
    server
        .get("/v1/keys?limit=5000")
        .await
        .problem(400, "invalid_argument");
    server
        .get("/v1/keys?cursor=AAAA")
        .await
        .problem(400, "invalid_argument");
    server
        .get("/v1/keys?after=a")
        .await
        .problem(400, "unknown_parameter");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_listing_are_one_view() {
    let server = TestServer::start().await;
    for n in 0..25 {
        server.must_put(&format!("k{n:02}"), b"v").await;
    }
    let mut found = Vec::new();
    let mut size = None;
    let mut target = "/v1/keys?limit=10&prefix=k".to_owned();
    loop {
        let page = server.get(&target).await.json();
        found.extend(names(&page).into_iter().map(str::to_owned));
        assert_eq!(
            *size.get_or_insert(page["tree_size"].clone()),
            page["tree_size"]
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        // Keys that come, go and change while the listing is under way are not part of it.
        server.must_put("k12a", b"new").await;
        server.send("DELETE", "/v1/keys/k24", &[], None).await;
        target = format!("/v1/keys?limit=10&prefix=k&cursor={next}");
    }
    let expected: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    assert_eq!(found, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_read_at_one_point() {
    let server = TestServer::start().await;
    let a = server.must_put("a", b"1").await;
    server.must_put("%ff", b"\xfe").await;
    let before = server.must_put("gone", b"x").await + 1;
    server.send("DELETE", "/v1/keys/gone", &[], None).await;
    server.must_put("a", b"2").await;

    let body = json!({"keys": ["a", "none", "gone"], "keys_base64": ["/w=="]});
    let reply = server.post("/v1/keys:get", &body).await.json();
    let entries = reply["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0]["entry"]["value"], "2");
    assert_eq!(entries[1]["entry"], Value::Null);
    assert_eq!(entries[2]["entry"]["kind"], "delete");
    assert_eq!(entries[3]["key_base64"], "/w==");
    assert_eq!(entries[3]["entry"]["value_base64"], "/g==");

    let body = json!({"keys": ["a", "gone"], "at": before});
    let reply = server.post("/v1/keys:get", &body).await.json();
    assert_eq!(reply["tree_size"], before);
    assert_eq!(reply["entries"][0]["entry"]["index"], a);
    assert_eq!(reply["entries"][1]["entry"]["value"], "x");

    let post = async |body: Value| server.post("/v1/keys:get", &body).await;
    post(json!({"keys": ["a"], "at": 1_000_000}))
        .await
        .problem(400, "future");
    post(json!({"keys": ["a"], "at": "soon"}))
        .await
        .problem(400, "invalid_argument");
    post(json!({"keys": [""]}))
        .await
        .problem(400, "invalid_key");
    post(json!({"keys_base64": ["*"]}))
        .await
        .problem(400, "invalid_key");
    post(json!({"key": "a"})).await.problem(400, "bad_request");
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    post(json!({"keys": many}))
        .await
        .problem(413, "body_too_large");
    server
        .send("POST", "/v1/keys:get", &[], Some(b"{\"keys\": [\"a\""))
        .await
        .problem(400, "bad_request");
    server
        .send(
            "POST",
            "/v1/keys:get",
            &[("Content-Encoding", "br")],
            Some(b"{}"),
        )
        .await
        .problem(415, "unsupported_encoding");
    let declared = (64_usize << 20).to_string();
    server
        .send(
            "POST",
            "/v1/keys:get",
            &[("Content-Length", &declared)],
            None,
        )
        .await
        .problem(413, "body_too_large");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_be_too_large_is_refused() {
    let server = TestServer::start().await;
    let value = vec![b'v'; 1 << 20];
    let keys: Vec<String> = (0..17).map(|n| format!("k{n}")).collect();
    for key in &keys {
        server.must_put(key, &value).await;
    }
    let reply = server.post("/v1/keys:get", &json!({"keys": keys})).await;
    reply.problem(413, "body_too_large");
    let reply = server
        .post("/v1/keys:get", &json!({"keys": keys[..15]}))
        .await;
    assert_eq!(reply.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_all_or_nothing() {
    let server = TestServer::start().await;
    server.must_put("old", b"v").await;
    let guard = server.must_put("guard", b"v").await;
    let post = async |body: Value| server.post("/v1/transactions", &body).await;
    let reply = post(json!({"operations": [
        {"put": {"key": "a", "value": "1", "content_type": "text/plain", "metadata": {"m": "x"}, "if_absent": true}},
        {"check": {"key": "guard", "if_index": guard}},
        {"delete": {"key": "old"}},
        {"put": {"key_base64": "/w==", "value_base64": "/g=="}},
    ]}))
    .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let body = reply.json();
    let entries = body["entries"].as_array().unwrap();
    let first = entries[0]["index"].as_u64().unwrap();
    let indexes: Vec<u64> = entries
        .iter()
        .map(|entry| entry["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, [first, first + 1, first + 2]);
    assert_eq!(body["tree_size"], first + 3);
    let get = server.get("/v1/keys/a").await;
    assert_eq!(get.header("content-type"), Some("text/plain"));
    assert_eq!(get.header("scribe-meta-m"), Some("x"));
    assert_eq!(server.get("/v1/keys/%ff").await.body, b"\xfe");
    server.get("/v1/keys/old").await.problem(404, "deleted");

    let refused = post(json!({"operations": [
        {"put": {"key": "b", "value": "1"}},
        {"check": {"key": "a", "if_absent": true}},
    ]}))
    .await
    .problem(412, "condition_failed");
    assert_eq!(refused["operation"], 1);
    assert_eq!(refused["key"], "a");
    assert_eq!(refused["current_index"], first);
    server.get("/v1/keys/b").await.problem(404, "not_found");

    for (operations, status, code) in [
        (json!([]), 400, "invalid_argument"),
        (
            json!([{"check": {"key": "a", "if_absent": true}}]),
            400,
            "invalid_argument",
        ),
        (json!([{"check": {"key": "a"}}]), 400, "invalid_argument"),
        (
            json!([{"put": {"key": "a", "value": "1"}}, {"delete": {"key": "a"}}]),
            400,
            "invalid_argument",
        ),
        (json!([{"put": {"key": "a"}}]), 400, "invalid_argument"),
        (
            json!([{"put": {"key": "", "value": "1"}}]),
            400,
            "invalid_key",
        ),
        (json!([{"put": {"value": "1"}}]), 400, "invalid_key"),
        (
            json!([{"put": {"key": "a", "value": "1", "if_absent": true, "if_index": 1}}]),
            400,
            "invalid_argument",
        ),
        (
            json!([{"put": {"key": "a", "value": "1", "metadata": {"A": "1"}}}]),
            400,
            "metadata_invalid",
        ),
        (json!([{"append": {"key": "a"}}]), 400, "bad_request"),
        (
            json!([{"put": {"key": "k".repeat(1_025), "value": ""}}]),
            400,
            "key_too_long",
        ),
        (
            json!([{"put": {"key": "k", "value": "v".repeat((1 << 20) + 1)}}]),
            413,
            "value_too_large",
        ),
        (
            json!(
                (0..1_025)
                    .map(|n| json!({"delete": {"key": n.to_string()}}))
                    .collect::<Vec<_>>()
            ),
            413,
            "transaction_too_large",
        ),
        (
            json!(
                (0..17)
                    .map(|n| json!({"put": {"key": n.to_string(), "value": "v".repeat(1 << 20)}}))
                    .collect::<Vec<_>>()
            ),
            413,
            "transaction_too_large",
        ),
    ] {
        post(json!({"operations": operations}))
            .await
            .problem(status, code);
    }
    let largest: Vec<Value> = (0..1_024)
        .map(|n| json!({"put": {"key": format!("n{n}"), "value": "v"}}))
        .collect();
    let reply = server
        .post(
            "/v1/transactions?wait=published",
            &json!({"operations": largest}),
        )
        .await;
    assert_eq!(reply.json()["entries"].as_array().unwrap().len(), 1_024);

    let body = json!({"operations": [{"put": {"key": "i", "value": "1"}}]}).to_string();
    let headers = [("Idempotency-Key", "t1")];
    let send = async |body: &str| {
        server
            .send("POST", "/v1/transactions", &headers, Some(body.as_bytes()))
            .await
    };
    let first = send(&body).await.json();
    let again = send(&body).await;
    assert_eq!(again.header("scribe-replayed"), Some("true"));
    assert_eq!(again.json()["entries"], first["entries"]);
    assert_eq!(again.json()["replayed"], true);
    send(&body.replace('1', "2"))
        .await
        .problem(422, "idempotency_mismatch");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_read_in_order() {
    let server = TestServer::start().await;
    let first = server.must_put("a", b"1").await;
    server.must_put("a", b"\xff").await;
    let last = server.must_put("b", b"3").await;
    let entry = server.get(&format!("/v1/entries/{first}")).await.json();
    assert_eq!(entry["index"], first);
    assert_eq!(
        (&entry["kind"], &entry["key"], &entry["value"]),
        (&json!("put"), &json!("a"), &json!("1"))
    );
    assert!(entry.get("leaf_base64").is_none());
    let raw = server
        .get(&format!("/v1/entries/{first}?raw=true"))
        .await
        .json();
    assert!(raw["leaf_base64"].is_string() && raw["salt_base64"].is_string());
    // What the ledger wrote about itself comes first.
    assert_eq!(server.get("/v1/entries/0").await.json()["kind"], "system");

    let page = server
        .get(&format!("/v1/entries?from={first}&limit=2"))
        .await
        .json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 2);
    assert_eq!(page["entries"][1]["value_base64"], "/w==");
    assert_eq!(page["next"], first + 2);
    let page = server
        .get(&format!("/v1/entries?from={}", first + 2))
        .await
        .json();
    assert_eq!(
        page["entries"].as_array().unwrap().last().unwrap()["index"],
        page["tree_size"].as_u64().unwrap() - 1
    );
    assert_eq!(page["next"], Value::Null);
    let size = page["tree_size"].as_u64().unwrap();
    assert!(size > last);
    let empty = server.get(&format!("/v1/entries?from={size}")).await.json();
    assert_eq!(empty["entries"], json!([]));
    assert_eq!(empty["next"], Value::Null);
    let all = server.get("/v1/entries").await.json();
    let indexes: Vec<u64> = all["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, (0..size).collect::<Vec<_>>());

    server
        .get(&format!("/v1/entries?from={}", size + 100))
        .await
        .problem(400, "future");
    server
        .get(&format!("/v1/entries/{}", size + 100))
        .await
        .problem(404, "not_found");
    server
        .get("/v1/entries/x")
        .await
        .problem(400, "invalid_argument");
    server
        .get("/v1/entries/1?raw=yes")
        .await
        .problem(400, "invalid_argument");
    server
        .get("/v1/entries/1/2")
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_values_ends_early() {
    let server = TestServer::start().await;
    let value = vec![b'v'; 1 << 20];
    let mut from = server.must_put("k0", &value).await;
    for n in 1..12 {
        server.must_put(&format!("k{n}"), &value).await;
    }
    let mut pages = 0;
    let mut found = 0;
    loop {
        let reply = server.get(&format!("/v1/entries?from={from}")).await;
        assert!(reply.body.len() < 10 << 20, "{}", reply.body.len());
        let page = reply.json();
        let puts = page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["kind"] == "put");
        found += puts.count();
        pages += 1;
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        from = next;
    }
    assert_eq!(found, 12);
    assert!(pages > 1);
    server.stop().await;
}
