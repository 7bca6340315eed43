//! `GET /v1/watch`: server-sent events that can be resumed.

use serde_json::Value;

use crate::support::{Connection, TestServer, request};

struct Watch {
    connection: Connection,
    pending: String,
}

/// Id, name and data of an event.
type Event = (Option<u64>, String, Value);

impl Watch {
    async fn open(server: &TestServer, query: &str, headers: &[(&str, &str)]) -> Watch {
        let mut connection = server.connect().await;
        connection
            .write(&request(
                "GET",
                &format!("/v1/watch?{query}"),
                headers,
                None,
            ))
            .await;
        let head = connection.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        Watch {
            connection,
            pending: String::new(),
        }
    }

    /// The next event; comments and the reconnection time are skipped. `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.pending.find("\n\n") {
                let block: String = self.pending.drain(..end + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                if let Some(data) = field("data: ") {
                    let id = field("id: ").map(|id| id.parse().unwrap());
                    let data = serde_json::from_str(&data).unwrap();
                    return Some((id, field("event: ").unwrap(), data));
                }
            }
            let data = self.connection.chunk().await.ok()??;
            self.pending.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    async fn entry(&mut self) -> Value {
        let (id, name, data) = self.next().await.expect("an event");
        assert_eq!(name, "entry");
        assert_eq!(id, data["index"].as_u64());
        data
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_arrive_and_a_reconnect_misses_none() {
    let server = TestServer::start().await;
    let first = server.must_put("a", b"1").await;
    let mut old = Watch::open(&server, &format!("from={first}"), &[]).await;
    assert_eq!(old.entry().await["value"], "1");
    let second = server.must_put("a", b"\xff").await;
    server.send("DELETE", "/v1/keys/a", &[], None).await;
    let entry = old.entry().await;
    assert_eq!(
        (&entry["index"], &entry["value_base64"]),
        (&second.into(), &"/w==".into())
    );
    assert_eq!(old.entry().await["kind"], "delete");
    drop(old);

    // As a browser would: the same address, and the last id it saw.
    let last = first.to_string();
    let headers = [("Last-Event-ID", last.as_str())];
    let mut resumed = Watch::open(&server, &format!("from={first}"), &headers).await;
    assert_eq!(resumed.entry().await["index"], second);

    // From the start: what the ledger wrote about itself is there too.
    let mut all = Watch::open(&server, "from=0", &[]).await;
    for index in 0..=second {
        assert_eq!(all.entry().await["index"], index);
    }
    // Without `from`: only what is new.
    let mut new = Watch::open(&server, "", &[]).await;
    let third = server.must_put("b", b"3").await;
    assert_eq!(new.entry().await["index"], third);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_watch_tells_how_far_it_is() {
    let server = TestServer::start().await;
    let mut watch = Watch::open(&server, "from=0&prefix=a/", &[]).await;
    server.must_put("b%2F1", b"x").await;
    let match_index = server.must_put("a%2F1", b"x").await;
    let mut last = None;
    loop {
        let (id, name, data) = watch.next().await.unwrap();
        assert!(last < id);
        last = id;
        if name == "entry" {
            assert_eq!(data["index"], match_index);
            break;
        }
        assert_eq!(name, "progress");
        assert_eq!(data["index"], id.unwrap());
    }
    let skipped = server.must_put("b%2F2", b"x").await;
    loop {
        let (id, name, _) = watch.next().await.unwrap();
        assert_eq!(name, "progress");
        if id.unwrap() >= skipped {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_left_out() {
    let server = TestServer::start().await;
    let mut watch = Watch::open(&server, "", &[]).await;
    server.must_put("k", &[b'v'; 64 * 1024]).await;
    server.must_put("k", &[b'v'; 64 * 1024 + 1]).await;
    assert_eq!(
        watch.entry().await["value"].as_str().unwrap().len(),
        64 * 1024
    );
    let large = watch.entry().await;
    assert!(large.get("value").is_none());
    assert_eq!(large["value_length"], 64 * 1024 + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entries_are_all_delivered_in_order() {
    let server = TestServer::start().await;
    let mut watch = Watch::open(&server, "prefix=k", &[]).await;
    let body: String = (0..3_000)
        .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"v\"}}\n"))
        .collect();
    server
        .send("POST", "/v1/entries", &[], Some(body.as_bytes()))
        .await;
    for n in 0..3_000 {
        let event = loop {
            let (_, name, data) = watch.next().await.unwrap();
            if name == "entry" {
                break data;
            }
        };
        assert_eq!(event["key"], format!("k{n}"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_its_watches() {
    let mut server = TestServer::start().await;
    let mut watch = Watch::open(&server, "", &[]).await;
    server.must_put("k", b"v").await;
    watch.entry().await;
    server.begin_stop();
    assert!(watch.next().await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused() {
    let server = TestServer::start().await;
    server
        .get("/v1/watch?from=1000000")
        .await
        .problem(400, "future");
    server
        .get("/v1/watch?from=x")
        .await
        .problem(400, "invalid_argument");
    server
        .get("/v1/watch?to=5")
        .await
        .problem(400, "unknown_parameter");
    server
        .send("GET", "/v1/watch", &[("Last-Event-ID", "abc")], None)
        .await
        .problem(400, "invalid_argument");
    server.stop().await;
}
