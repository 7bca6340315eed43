//! `/v1/keys/{key}`: put, get, delete, history, receipt, and all that is refused.

use scribe_proof::note::Note;
use scribe_proof::receipt::Receipt;
use serde_json::json;

use crate::support::{TestServer, VALUE_LENGTH_MAX, chunk, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_back_with_all_that_was_said_about_it() {
    let server = TestServer::start().await;
    let headers = [
        ("Content-Type", "text/html"),
        ("Scribe-Meta-Zone", "b"),
        ("scribe-meta-author", "é"),
    ];
    let put = server
        .send("PUT", "/v1/keys/a%2Fb", &headers, Some(b"<p>hi"))
        .await;
    assert_eq!(put.status, 201);
    let appended = put.json();
    let index = appended["index"].as_u64().unwrap();
    assert_eq!(appended["tree_size"], index + 1);
    assert_eq!(appended["leaf_hash"].as_str().unwrap().len(), 64);
    assert!(appended.get("replayed").is_none());
    assert_eq!(put.header("etag"), Some(format!("\"{index}\"").as_str()));

    let get = server.get("/v1/keys/a%2fb").await;
    assert_eq!((get.status, get.text().as_str()), (200, "<p>hi"));
    let index_text = index.to_string();
    let timestamp = appended["timestamp_ms"].to_string();
    for (name, expected) in [
        ("content-type", "text/html"),
        ("content-length", "5"),
        ("scribe-meta-zone", "b"),
        ("scribe-meta-author", "é"),
        ("scribe-index", index_text.as_str()),
        ("scribe-timestamp", timestamp.as_str()),
        ("scribe-leaf-hash", appended["leaf_hash"].as_str().unwrap()),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(get.header(name), Some(expected), "{name}");
    }
    assert_eq!(get.header("etag"), put.header("etag"));

    let plain = server.must_put("plain", b"").await;
    let get = server.get("/v1/keys/plain").await;
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    assert_eq!(get.header("content-length"), Some("0"));
    assert_eq!(get.header("scribe-index"), Some(plain.to_string().as_str()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_bytes() {
    let server = TestServer::start().await;
    let longest = "k".repeat(1_024);
    for (n, key) in [
        "a",
        "%00%ff",
        "a%2Fhistory",
        "%25",
        "+",
        "~!$&'()*,;=:@",
        &longest,
    ]
    .into_iter()
    .enumerate()
    {
        server.must_put(key, format!("{n}").as_bytes()).await;
        assert_eq!(
            server.get(&format!("/v1/keys/{key}")).await.text(),
            format!("{n}"),
            "{key}"
        );
    }
    for (encoded, value) in [("Lg", "one"), ("Li4", "two"), ("AP8", "three")] {
        let target = format!("/v1/keys/{encoded}?key_encoding=base64url");
        assert_eq!(server.put(&target, value.as_bytes()).await.status, 201);
        assert_eq!(server.get(&target).await.text(), value);
    }
    // The same key, written the other way; and dots that nobody normalised away.
    assert_eq!(server.get("/v1/keys/%00%ff").await.text(), "three");
    assert_eq!(server.get("/v1/keys/..").await.text(), "two");

    for (target, code) in [
        ("/v1/keys/", "invalid_key"),
        ("/v1/keys/a%2", "invalid_key"),
        ("/v1/keys/%zz", "invalid_key"),
        ("/v1/keys/a%20b?key_encoding=base64url", "invalid_key"),
        ("/v1/keys/a?key_encoding=hex", "invalid_argument"),
    ] {
        server.put(target, b"").await.problem(400, code);
        server.get(target).await.problem(400, code);
    }
    let too_long = format!("/v1/keys/{longest}k");
    let problem = server
        .put(&too_long, b"")
        .await
        .problem(400, "key_too_long");
    assert!(problem["detail"].as_str().unwrap().contains("1025"));

    let problem = server
        .put("/v1/keys/a/b", b"")
        .await
        .problem(404, "not_found");
    assert!(problem["hint"].as_str().unwrap().contains("%2F"));
    server
        .get("/v1/keys/a/history/b")
        .await
        .problem(404, "not_found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_kept_or_say_what_is_there() {
    let server = TestServer::start().await;
    let put = async |headers: &[(&str, &str)]| {
        server.send("PUT", "/v1/keys/k", headers, Some(b"v")).await
    };
    let absent = [("If-None-Match", "*")];

    let missing = put(&[("If-Match", "\"7\"")])
        .await
        .problem(412, "condition_failed");
    assert!(missing.get("current_index").is_none());
    let first = put(&absent).await.json()["index"].as_u64().unwrap();
    let refused = put(&absent).await;
    assert_eq!(
        refused.problem(412, "condition_failed")["current_index"],
        first
    );
    assert_eq!(
        refused.header("scribe-index"),
        Some(first.to_string().as_str())
    );

    let tag = format!("\"{first}\"");
    let second = put(&[("If-Match", &tag)]).await.json()["index"]
        .as_u64()
        .unwrap();
    let refused = put(&[("If-Match", &tag)])
        .await
        .problem(412, "condition_failed");
    assert_eq!(refused["current_index"], second);

    // A tombstone counts as absent, and has an index that can be matched.
    let tag = format!("\"{second}\"");
    let deleted = server
        .send("DELETE", "/v1/keys/k", &[("If-Match", &tag)], None)
        .await;
    assert_eq!(deleted.status, 201);
    let tombstone = deleted.json()["index"].as_u64().unwrap();
    let refused = put(&[("If-Match", &tag)])
        .await
        .problem(412, "condition_failed");
    assert_eq!(refused["current_index"], tombstone);
    let tag = format!("\"{tombstone}\"");
    assert_eq!(put(&[("If-Match", &tag)]).await.status, 201);
    assert_eq!(
        server.send("DELETE", "/v1/keys/k", &[], None).await.status,
        201
    );
    assert_eq!(put(&absent).await.status, 201);

    for (name, value) in [
        ("If-Match", "W/\"1\""),
        ("If-Match", "\"1\", \"2\""),
        ("If-Match", "*"),
        ("If-Match", "1"),
        ("If-Match", "\"01\""),
        ("If-None-Match", "\"1\""),
        ("If-None-Match", "*, *"),
    ] {
        put(&[(name, value)]).await.problem(400, "invalid_argument");
    }
    put(&[("If-Match", "\"1\""), ("If-None-Match", "*")])
        .await
        .problem(400, "invalid_argument");
    put(&[("If-Match", "\"1\""), ("If-Match", "\"1\"")])
        .await
        .problem(400, "invalid_argument");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_back_in_time() {
    let server = TestServer::start().await;
    let first = server.must_put("k", b"one").await;
    let other = server.must_put("other", b"x").await;
    let second = server.must_put("k", b"two").await;
    let text = async |query: &str| server.get(&format!("/v1/keys/k?{query}")).await.text();

    assert_eq!(text(&format!("index={first}")).await, "one");
    assert_eq!(text(&format!("index={second}")).await, "two");
    assert_eq!(text(&format!("at={}", first + 1)).await, "one");
    assert_eq!(text(&format!("at={second}")).await, "one");
    assert_eq!(text(&format!("at={}", second + 1)).await, "two");
    assert_eq!(text("consistency=stale").await, "two");
    server
        .get(&format!("/v1/keys/k?at={first}"))
        .await
        .problem(404, "not_found");

    let get = server.get(&format!("/v1/keys/k?index={first}")).await;
    let time: u64 = get.header("scribe-timestamp").unwrap().parse().unwrap();
    let time = jiff::Timestamp::from_millisecond(i64::try_from(time).unwrap() - 1).unwrap();
    server
        .get(&format!("/v1/keys/k?at={time}"))
        .await
        .problem(404, "not_found");
    let now = jiff::Timestamp::now();
    assert_eq!(text(&format!("at={now}")).await, "two");

    let wrong = server.get(&format!("/v1/keys/k?index={other}")).await;
    wrong.problem(404, "not_found");
    let size = second + 1;
    let problem = server
        .get(&format!("/v1/keys/k?index={size}"))
        .await
        .problem(400, "future");
    assert_eq!(problem["tree_size"], size);
    let problem = server
        .get("/v1/keys/k?at=1000000")
        .await
        .problem(400, "future");
    assert_eq!(problem["tree_size"], size);
    server
        .get("/v1/keys/k?at=2999-01-01T00:00:00Z")
        .await
        .problem(400, "future");
    for query in [
        "at=1&index=1",
        "at=yesterday",
        "index=-1",
        "index=",
        "consistency=eventual",
    ] {
        server
            .get(&format!("/v1/keys/k?{query}"))
            .await
            .problem(400, "invalid_argument");
    }
    let min = [("Scribe-Min-Index", second.to_string())];
    let min: Vec<(&str, &str)> = min.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(
        server
            .send("GET", "/v1/keys/k?consistency=stale", &min, None)
            .await
            .text(),
        "two"
    );
    server
        .send("GET", "/v1/keys/k", &[("Scribe-Min-Index", "x")], None)
        .await
        .problem(400, "invalid_argument");
    // Also where the version asked for is there already.
    server
        .send(
            "GET",
            "/v1/keys/k?index=1",
            &[("Scribe-Min-Index", "x")],
            None,
        )
        .await
        .problem(400, "invalid_argument");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_in_the_ledger_never_splits_a_transaction() {
    let server = TestServer::start().await;
    let reply = server
        .post(
            "/v1/transactions",
            &json!({"operations": [
                {"put": {"key": "a", "value": "1"}},
                {"put": {"key": "b", "value": "2"}},
                {"put": {"key": "c", "value": "3"}},
            ]}),
        )
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let size = reply.json()["tree_size"].as_u64().unwrap();
    server.must_put("later", b"x").await;
    for within in [size - 1, size - 2] {
        let list = server.get(&format!("/v1/keys?at={within}")).await.json();
        assert_eq!(list["keys"], json!([]));
        assert_eq!(list["tree_size"], size - 3);
        server
            .get(&format!("/v1/keys/a?at={within}"))
            .await
            .problem(404, "not_found");
    }
    let list = server.get(&format!("/v1/keys?at={size}")).await.json();
    assert_eq!(list["keys"].as_array().unwrap().len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_and_downloads_are_served() {
    let server = TestServer::start().await;
    let index = server.must_put("k", b"0123456789").await;
    let tag = format!("\"{index}\"");
    let get =
        async |headers: &[(&str, &str)]| server.send("GET", "/v1/keys/k", headers, None).await;

    for value in [
        tag.as_str(),
        "*",
        &format!("W/{tag}"),
        &format!("\"999\", {tag}"),
    ] {
        let reply = get(&[("If-None-Match", value)]).await;
        assert_eq!(reply.status, 304, "{value}");
        assert_eq!(reply.header("etag"), Some(tag.as_str()));
    }
    assert_eq!(get(&[("If-None-Match", "\"999\"")]).await.status, 200);
    assert_eq!(get(&[("If-Match", &tag)]).await.status, 200);
    get(&[("If-Match", "\"999\"")])
        .await
        .problem(412, "condition_failed");

    for (range, body, content_range) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=5-500", "56789", "bytes 5-9/10"),
    ] {
        let reply = get(&[("Range", range)]).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (206, body),
            "{range}"
        );
        assert_eq!(reply.header("content-range"), Some(content_range));
        assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
    }
    for range in ["bytes=10-", "bytes=-0"] {
        let reply = get(&[("Range", range)]).await;
        reply.problem(416, "range_not_satisfiable");
        assert_eq!(reply.header("content-range"), Some("bytes */10"));
    }
    for range in ["bytes=0-1,3-4", "bytes=x-", "items=0-1"] {
        assert_eq!(get(&[("Range", range)]).await.status, 200, "{range}");
    }
    assert_eq!(
        get(&[("Range", "bytes=0-3"), ("If-Range", &tag)])
            .await
            .status,
        206
    );
    assert_eq!(
        get(&[("Range", "bytes=0-3"), ("If-Range", "\"999\"")])
            .await
            .status,
        200
    );

    let head = server.send("HEAD", "/v1/keys/k", &[], None).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("10"))
    );
    assert_eq!(head.header("etag"), Some(tag.as_str()));
    assert_eq!(
        server.send("HEAD", "/v1/keys/none", &[], None).await.status,
        404
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_says_so_and_keeps_its_history() {
    let server = TestServer::start().await;
    let first = server.must_put("k", b"v").await;
    let deleted = server.send("DELETE", "/v1/keys/k", &[], None).await;
    assert_eq!(deleted.status, 201);
    let tombstone = deleted.json()["index"].as_u64().unwrap();
    let get = server.get("/v1/keys/k").await;
    assert_eq!(get.problem(404, "deleted")["current_index"], tombstone);
    assert_eq!(
        get.header("scribe-index"),
        Some(tombstone.to_string().as_str())
    );
    server
        .get(&format!("/v1/keys/k?index={tombstone}"))
        .await
        .problem(404, "deleted");
    assert_eq!(
        server
            .get(&format!("/v1/keys/k?index={first}"))
            .await
            .text(),
        "v"
    );
    assert_eq!(
        server.send("HEAD", "/v1/keys/k", &[], None).await.status,
        404
    );

    let history = server.get("/v1/keys/k/history").await.json();
    let versions = history["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0]["kind"], "delete");
    assert_eq!(versions[0]["value_length"], 0);
    assert_eq!(versions[1]["kind"], "put");
    assert_eq!(versions[1]["value_length"], 1);
    assert_eq!(versions[1]["index"], first);

    server
        .send("DELETE", "/v1/keys/k", &[], Some(b"why"))
        .await
        .problem(400, "invalid_argument");
    server
        .send("DELETE", "/v1/keys/k", &[("Scribe-Meta-Why", "x")], None)
        .await
        .problem(400, "invalid_argument");
    // A key that never was can be deleted all the same: the tombstone is an entry.
    assert_eq!(
        server
            .send("DELETE", "/v1/keys/never", &[], None)
            .await
            .status,
        201
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_pages_are_one_view() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        expected.push(server.must_put("k", format!("{n}").as_bytes()).await);
        server.must_put("other", b"x").await;
    }
    expected.reverse();
    let mut found = Vec::new();
    let mut target = "/v1/keys/k/history?limit=10".to_owned();
    loop {
        let page = server.get(&target).await.json();
        let versions = page["versions"].as_array().unwrap();
        found.extend(
            versions
                .iter()
                .map(|version| version["index"].as_u64().unwrap()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        assert_eq!(versions.len(), 10);
        // Written in between: not part of the view.
        server.must_put("k", b"later").await;
        target = format!("/v1/keys/k/history?limit=10&cursor={next}");
    }
    assert_eq!(found, expected);
    server
        .get("/v1/keys/none/history")
        .await
        .problem(404, "not_found");
    for query in ["limit=0", "limit=1001", "cursor=x", "cursor="] {
        server
            .get(&format!("/v1/keys/k/history?{query}"))
            .await
            .problem(400, "invalid_argument");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_verifies_offline() {
    let server = TestServer::start().await;
    let first = server.must_put("k", b"one").await;
    server.must_put("k", b"two").await;
    let info = server.get("/v1/ledger").await.json();
    let policy = scribe_proof::policy::Policy::parse(info["policy"].as_str().unwrap()).unwrap();
    for (query, value) in [("", "two"), (&*format!("?index={first}"), "one")] {
        let reply = server.get(&format!("/v1/keys/k/receipt{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let receipt = Receipt::parse(&reply.text()).unwrap();
        let included = receipt.verify(&policy).unwrap();
        included.get().check_key(b"k").unwrap();
        included.get().check_value(value.as_bytes()).unwrap();
        assert!(included.get().check_value(b"other").is_err());
        Note::parse(&receipt.checkpoint_note).unwrap();
    }
    // A deletion has a receipt too.
    server.send("DELETE", "/v1/keys/k", &[], None).await;
    let receipt = Receipt::parse(&server.get("/v1/keys/k/receipt").await.text()).unwrap();
    receipt.verify(&policy).unwrap();
    server
        .get("/v1/keys/none/receipt")
        .await
        .problem(404, "not_found");
    server
        .get("/v1/keys/k/receipt?index=100")
        .await
        .problem(400, "future");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_until_it_is_published() {
    let server = TestServer::start().await;
    let reply = server.put("/v1/keys/k?wait=published", b"v").await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let size = reply.json()["tree_size"].as_u64().unwrap();
    let published: u64 = server
        .get("/checkpoint")
        .await
        .header("scribe-tree-size")
        .unwrap()
        .parse()
        .unwrap();
    assert!(published >= size);
    let reply = server
        .send("DELETE", "/v1/keys/k?wait=published", &[], None)
        .await;
    assert_eq!(reply.status, 201);
    server
        .put("/v1/keys/k?wait=archived", b"v")
        .await
        .problem(400, "invalid_argument");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_under_its_idempotency_key_is_answered_as_before() {
    let server = TestServer::start().await;
    let put = async |key: &str, idempotency: &str, value: &str| {
        let headers = [("Idempotency-Key", idempotency)];
        server
            .send(
                "PUT",
                &format!("/v1/keys/{key}"),
                &headers,
                Some(value.as_bytes()),
            )
            .await
    };
    let first = put("k", "once", "v").await;
    let again = put("k", "once", "v").await;
    assert_eq!(again.status, 201);
    assert_eq!(again.header("scribe-replayed"), Some("true"));
    assert_eq!(again.json()["replayed"], true);
    for member in ["index", "timestamp_ms", "leaf_hash", "tree_size"] {
        assert_eq!(first.json()[member], again.json()[member]);
    }
    put("k", "once", "other")
        .await
        .problem(422, "idempotency_mismatch");
    put("k2", "once", "v")
        .await
        .problem(422, "idempotency_mismatch");
    put("k", "", "v").await.problem(400, "invalid_argument");
    put("k", &"i".repeat(256), "v")
        .await
        .problem(400, "invalid_argument");
    assert_eq!(put("k", &"i".repeat(255), "v").await.status, 201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_over_its_limits_is_refused() {
    let server = TestServer::start().await;
    let put = async |headers: &[(&str, &str)]| {
        server.send("PUT", "/v1/keys/k", headers, Some(b"v")).await
    };
    let twice = [("Scribe-Meta-A", "1"), ("scribe-meta-a", "2")];
    put(&twice).await.problem(400, "metadata_invalid");
    put(&[("Scribe-Meta-", "x")])
        .await
        .problem(400, "metadata_invalid");
    put(&[("Scribe-Meta-A~", "x")])
        .await
        .problem(400, "metadata_invalid");
    put(&[("Content-Type", &"t".repeat(256))])
        .await
        .problem(400, "metadata_invalid");
    put(&[("Scribe-Meta-A", &"v".repeat(8_192))])
        .await
        .problem(400, "metadata_invalid");
    let names: Vec<String> = (0..17).map(|n| format!("Scribe-Meta-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    put(&many).await.problem(400, "metadata_invalid");
    assert_eq!(put(&many[..16]).await.status, 201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_as_early_as_can_be() {
    let server = TestServer::start().await;
    let largest = vec![7; VALUE_LENGTH_MAX];
    server.must_put("k", &largest).await;
    assert_eq!(server.get("/v1/keys/k").await.body, largest);

    // Declared: refused before a byte of it is sent.
    let mut connection = server.connect().await;
    let length = (VALUE_LENGTH_MAX + 1).to_string();
    let head = request(
        "PUT",
        "/v1/keys/k",
        &[("Content-Length", &length), ("Expect", "100-continue")],
        None,
    );
    connection.write(&head).await;
    connection
        .reply(false)
        .await
        .problem(413, "value_too_large");

    // Not declared: stopped at the limit, and the sender still gets to read why.
    let mut connection = server.connect().await;
    connection
        .write(&request(
            "PUT",
            "/v1/keys/k",
            &[("Transfer-Encoding", "chunked")],
            None,
        ))
        .await;
    for _ in 0..32 {
        connection.write(&chunk(&[7; 64 * 1024])).await;
    }
    connection
        .reply(false)
        .await
        .problem(413, "value_too_large");

    // A whole body that nobody will read, sent before the answer is read.
    let mut connection = server.connect().await;
    let body = vec![7; 4 * VALUE_LENGTH_MAX];
    connection
        .write(&request("PUT", "/v1/keys/k", &[], Some(&body)))
        .await;
    connection
        .reply(false)
        .await
        .problem(413, "value_too_large");

    let encoded = server
        .send(
            "PUT",
            "/v1/keys/k",
            &[("Content-Encoding", "gzip")],
            Some(b"x"),
        )
        .await;
    encoded.problem(415, "unsupported_encoding");
    assert_eq!(server.get("/v1/keys/k").await.body.len(), VALUE_LENGTH_MAX);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_and_taken_in_pieces() {
    let server = TestServer::start().await;
    let mut connection = server.connect().await;
    let headers = [("Content-Length", "6"), ("Expect", "100-continue")];
    connection
        .write(&request("PUT", "/v1/keys/k", &headers, None))
        .await;
    assert_eq!(connection.head().await.status, 100);
    connection.write(b"abc").await;
    connection.write(b"def").await;
    assert_eq!(connection.reply(false).await.status, 201);
    assert_eq!(server.get("/v1/keys/k").await.text(), "abcdef");

    // The same connection goes on, with a body of unknown length.
    let headers = [("Transfer-Encoding", "chunked")];
    connection
        .write(&request("PUT", "/v1/keys/k", &headers, None))
        .await;
    for piece in [&b"12"[..], b"34", b""] {
        connection.write(&chunk(piece)).await;
    }
    assert_eq!(connection.reply(false).await.status, 201);
    assert_eq!(server.get("/v1/keys/k").await.text(), "1234");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_methods_that_are_not_there_are_named() {
    let server = TestServer::start().await;
    let problem = server
        .get("/v1/keys/k?indx=1")
        .await
        .problem(400, "unknown_parameter");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("indx") && detail.contains("known are key_encoding, index"),
        "{detail}"
    );
    server
        .put("/v1/keys/k?at=1", b"")
        .await
        .problem(400, "unknown_parameter");
    server
        .get("/v1/keys/k?at=1&at=2")
        .await
        .problem(400, "bad_request");
    for (method, target, allow) in [
        ("POST", "/v1/keys/k", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/v1/keys/k", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v1/keys/k/history", "GET, HEAD"),
        ("DELETE", "/v1/keys/k/receipt", "GET, HEAD"),
    ] {
        let reply = server.send(method, target, &[], Some(b"")).await;
        reply.problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow));
    }
    server.stop().await;
}
