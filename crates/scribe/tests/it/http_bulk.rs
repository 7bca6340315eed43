//! `POST /v1/entries`: NDJSON, streamed both ways.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Connection, Reply, TestServer, chunk, request};

const CHUNKED: [(&str, &str); 1] = [("Transfer-Encoding", "chunked")];

async fn upload(server: &TestServer, body: &str) -> Reply {
    let headers = [("Content-Type", "application/x-ndjson")];
    let reply = server
        .send("POST", "/v1/entries", &headers, Some(body.as_bytes()))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    reply
}

/// An upload whose pieces the test sends and whose results it reads one by one.
struct Streamed {
    connection: Connection,
    pending: Vec<u8>,
}

impl Streamed {
    async fn open(server: &TestServer, target: &str) -> Streamed {
        let mut connection = server.connect().await;
        connection
            .write(&request("POST", target, &CHUNKED, None))
            .await;
        assert_eq!(connection.head().await.status, 200);
        Streamed {
            connection,
            pending: Vec::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.connection.write(&chunk(text.as_bytes())).await;
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.connection.chunk().await {
                Ok(Some(data)) => self.pending.extend_from_slice(&data),
                Ok(None) | Err(()) => return None,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_has_its_result_and_the_last_says_done() {
    let server = TestServer::start().await;
    let body = concat!(
        "{\"key\":\"a\",\"value\":\"1\",\"content_type\":\"text/plain\",\"metadata\":{\"z\":\"2\",\"a\":\"1\"}}\n",
        "\n",
        "{\"key_base64\":\"/w==\",\"value_base64\":\"/g==\"}\r\n",
        "{\"key\":\"esc\\u0061ped\\n\",\"value\":\"\\ud83e\\udd80\"}\n",
        "{\"key\":\"a\",\"delete\":true}\n",
        "{\"key\":\"last\",\"value\":\"\"}",
    );
    let lines = upload(&server, body).await.lines();
    let numbers: Vec<u64> = lines[..5]
        .iter()
        .map(|line| line["line"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6]);
    let first = lines[0]["index"].as_u64().unwrap();
    for (place, line) in lines[..5].iter().enumerate() {
        let index = first + place as u64;
        assert_eq!(line["index"], index);
        assert_eq!(line["tree_size"], index + 1);
        let entry = server.get(&format!("/v1/entries/{index}")).await.json();
        assert_eq!(line["leaf_hash"], entry["leaf_hash"]);
        assert_eq!(line["timestamp_ms"], entry["timestamp_ms"]);
    }
    assert_eq!(lines[5], json!({"done": true, "lines": 5, "failed": 0}));
    assert_eq!(lines.len(), 6);

    let version = server.get(&format!("/v1/keys/a?index={first}")).await;
    assert_eq!(version.header("content-type"), Some("text/plain"));
    assert_eq!(version.header("scribe-meta-a"), Some("1"));
    assert_eq!(server.get("/v1/keys/%ff").await.body, b"\xfe");
    assert_eq!(server.get("/v1/keys/escaped%0A").await.text(), "\u{1f980}");
    server.get("/v1/keys/a").await.problem(404, "deleted");
    assert_eq!(
        upload(&server, "").await.lines(),
        [json!({"done": true, "lines": 0, "failed": 0})]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_line_ends_the_upload_and_is_named() {
    let server = TestServer::start().await;
    for (n, wrong) in [
        "not json",
        "{\"key\":\"x\"}",
        "{\"key\":\"x\",\"value\":\"1\",\"value_base64\":\"MQ==\"}",
        "{\"key\":\"x\",\"key_base64\":\"eA==\",\"value\":\"1\"}",
        "{\"key\":\"x\",\"vaule\":\"1\"}",
        "{\"key\":\"x\",\"delete\":true,\"value\":\"1\"}",
        "{\"key_base64\":\"*\",\"value\":\"1\"}",
        "[1]",
        "{\"key\":\"x\",\"value\":\"1\"} {}",
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            "{{\"key\":\"before{n}\",\"value\":\"1\"}}\n\n{wrong}\n{{\"key\":\"after{n}\",\"value\":\"1\"}}\n"
        );
        let lines = upload(&server, &body).await.lines();
        assert_eq!(lines.len(), 3, "{wrong}: {lines:?}");
        assert_eq!(lines[0]["line"], 1);
        assert!(lines[0]["index"].is_u64());
        assert_eq!(lines[1]["line"], 3);
        assert_eq!(lines[1]["error"]["code"], "malformed_line", "{wrong}");
        assert!(
            lines[1]["error"]["detail"]
                .as_str()
                .unwrap()
                .contains("line 3")
        );
        assert_eq!(lines[2], json!({"done": true, "lines": 2, "failed": 1}));
        assert_eq!(server.get(&format!("/v1/keys/before{n}")).await.status, 200);
        server
            .get(&format!("/v1/keys/after{n}"))
            .await
            .problem(404, "not_found");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_refused_fails_alone() {
    let server = TestServer::start().await;
    let long_key = "k".repeat(1_025);
    let large = "v".repeat((1 << 20) + 1);
    let body = [
        json!({"key": "a", "value": "1", "idempotency_key": "i"}),
        json!({"key": "", "value": "1"}),
        json!({"key": long_key, "value": "1"}),
        json!({"key": "b", "value": large}),
        json!({"key": "b", "value": "1", "metadata": {"Upper": "1"}}),
        json!({"key": "b", "value": "1", "idempotency_key": ""}),
        json!({"key": "a", "value": "other", "idempotency_key": "i"}),
        json!({"key": "a", "value": "1", "idempotency_key": "i"}),
        json!({"key": "c", "value": "1"}),
    ]
    .map(|line| line.to_string())
    .join("\n");
    let lines = upload(&server, &body).await.lines();
    let outcomes: Vec<&str> = lines[..9]
        .iter()
        .map(|line| line["error"]["code"].as_str().unwrap_or("ok"))
        .collect();
    assert_eq!(
        outcomes,
        [
            "ok",
            "invalid_key",
            "key_too_long",
            "value_too_large",
            "metadata_invalid",
            "invalid_argument",
            "idempotency_mismatch",
            "ok",
            "ok"
        ]
    );
    assert_eq!(lines[7]["replayed"], true);
    assert_eq!(lines[7]["index"], lines[0]["index"]);
    assert_eq!(lines[9], json!({"done": true, "lines": 9, "failed": 6}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_while_lines_still_go() {
    let server = TestServer::start().await;
    let mut upload = Streamed::open(&server, "/v1/entries").await;
    for n in 1..=5 {
        upload.send(&format!("{{\"key\":\"k{n}\",")).await;
        upload.send("\"value\":\"v\"}\n").await;
        // The upload is not over, and yet its line is answered.
        let line = upload.line().await.unwrap();
        assert_eq!(line["line"], n);
        assert_eq!(server.get(&format!("/v1/keys/k{n}")).await.status, 200);
    }
    upload.send("").await;
    assert_eq!(
        upload.line().await.unwrap(),
        json!({"done": true, "lines": 5, "failed": 0})
    );
    assert!(upload.line().await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_upload_is_covered_by_a_checkpoint() {
    let server = TestServer::start().await;
    let mut upload = Streamed::open(&server, "/v1/entries?wait=published").await;
    upload.send("{\"key\":\"k\",\"value\":\"v\"}\n").await;
    let line = upload.line().await.unwrap();
    let size = line["tree_size"]
        .as_u64()
        .unwrap_or_else(|| panic!("{line}"));
    assert!(server.node.checkpoint().unwrap().size.get() >= size);
    server.stop().await;
}

/// Everything is sent before anything is read, and it is far more than sockets and the text of results may hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_upload_before_it_reads() {
    const LINES: u64 = 120_000;
    let server = TestServer::start().await;
    let mut connection = server.connect().await;
    connection
        .write(&request("POST", "/v1/entries", &CHUNKED, None))
        .await;
    let mut sent = 0;
    while sent < LINES {
        let mut text = String::new();
        for n in sent..(sent + 1_000) {
            text.push_str(&format!(
                "{{\"key\":\"k{}\",\"value\":\"v{n}\"}}\n",
                n % 1_000
            ));
        }
        let piece = chunk(text.as_bytes());
        let write = connection.write(&piece);
        tokio::time::timeout(Duration::from_secs(60), write)
            .await
            .expect("the upload goes on");
        sent += 1_000;
    }
    connection.write(&chunk(b"")).await;
    let reply = connection.reply(false).await;
    let lines = reply.lines();
    assert_eq!(lines.len() as u64, LINES + 1);
    let mut last = None;
    for (place, line) in lines[..LINES as usize].iter().enumerate() {
        assert_eq!(line["line"], place as u64 + 1);
        let index = line["index"].as_u64().unwrap();
        assert_eq!(line["tree_size"], index + 1);
        assert!(last.is_none_or(|last| index > last));
        last = Some(index);
    }
    assert_eq!(
        lines[LINES as usize],
        json!({"done": true, "lines": LINES, "failed": 0})
    );
    // Lines that were made again from the ledger say what the ledger says.
    for place in [0, 59_999, LINES - 2] {
        let line = &lines[place as usize];
        let entry = server
            .get(&format!("/v1/entries/{}", line["index"]))
            .await
            .json();
        assert_eq!(entry["value"], format!("v{place}"));
        assert_eq!(entry["leaf_hash"], line["leaf_hash"]);
        assert_eq!(entry["timestamp_ms"], line["timestamp_ms"]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_before_a_disconnect_are_in() {
    let server = TestServer::start().await;
    let mut upload = Streamed::open(&server, "/v1/entries").await;
    let mut text = String::new();
    for n in 0..500 {
        text.push_str(&format!("{{\"key\":\"k{n}\",\"value\":\"v\"}}\n"));
    }
    upload.send(&text).await;
    upload.send("{\"key\":\"half").await;
    // At least the first result is here when the client goes.
    let first = upload.line().await.unwrap()["index"].as_u64().unwrap();
    drop(upload);
    let mut applied = server.node.watch_applied();
    applied
        .wait_for(|size| size.tree_size.get() >= first + 500)
        .await
        .unwrap();
    assert_eq!(server.get("/v1/keys/k499").await.text(), "v");
    server.get("/v1/keys/half").await.problem(404, "not_found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_cuts_the_answer_off() {
    let mut server = TestServer::start().await;
    let mut upload = Streamed::open(&server, "/v1/entries").await;
    upload.send("{\"key\":\"k\",\"value\":\"v\"}\n").await;
    assert!(upload.line().await.unwrap()["index"].is_u64());
    server.begin_stop();
    // No `done`: what has no result is unknown.
    assert!(upload.line().await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_cannot_be_taken_are_refused_at_once() {
    let server = TestServer::start().await;
    let send = async |target: &str, headers: &[(&str, &str)]| {
        server.send("POST", target, headers, Some(b"{}")).await
    };
    send("/v1/entries", &[("Content-Encoding", "gzip")])
        .await
        .problem(415, "unsupported_encoding");
    send("/v1/entries?wait=forever", &[])
        .await
        .problem(400, "invalid_argument");
    send("/v1/entries?limit=1", &[])
        .await
        .problem(400, "unknown_parameter");
    send("/v1/entries", &[("Idempotency-Key", "i")])
        .await
        .problem(400, "invalid_argument");
    let reply = server.send("PUT", "/v1/entries", &[], Some(b"{}")).await;
    reply.problem(405, "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("GET, HEAD, POST"));
    server.stop().await;
}
