//! What is sent again, and under which key.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use scribe_client::wire::{Appended, At, HexHash, Operation};
use scribe_client::{Client, Error, ErrorCode, RetryPolicy, TransportError, Wait};

use crate::server::{Response, Server};

const APPENDED: Appended = Appended {
    index: 4,
    timestamp_ms: 5,
    leaf_hash: HexHash([7; 32]),
    tree_size: 5,
    replayed: false,
};

/// A server that answers with these, one after the other; the last repeats.
async fn scripted(script: Vec<Response>) -> (Server, Client) {
    let at = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let at = at.fetch_add(1, Ordering::SeqCst);
        script[at.min(script.len() - 1)].clone()
    })
    .await;
    let client = Client::new(&server.url).unwrap();
    (server, client)
}

#[tokio::test]
async fn a_write_is_repeated_under_the_same_key() {
    let (server, client) = scripted(vec![
        Response::HangUp,
        Response::problem(ErrorCode::Overloaded),
        Response::json(201, &APPENDED),
    ])
    .await;
    let put = client
        .put("a/b", "value")
        .content_type("text/plain")
        .metadata("unit", "kg");
    let appended = put.if_index(3).wait(Wait::Published).send().await.unwrap();
    assert_eq!(appended, APPENDED);
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    let key = &requests[0].headers["idempotency-key"];
    assert_eq!(key.len(), 32);
    for request in requests.iter() {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.target, "/v1/keys/a%2Fb?wait=published");
        assert_eq!(request.body, b"value");
        assert_eq!(&request.headers["idempotency-key"], key);
        assert_eq!(request.headers["content-type"], "text/plain");
        assert_eq!(request.headers["scribe-meta-unit"], "kg");
        assert_eq!(request.headers["if-match"], "\"3\"");
    }
}

#[tokio::test]
async fn two_writes_have_two_keys() {
    let (server, client) = scripted(vec![Response::json(201, &APPENDED)]).await;
    client.put("k", "1").send().await.unwrap();
    client.delete("k").send().await.unwrap();
    client
        .delete("k")
        .idempotency_key("mine")
        .send()
        .await
        .unwrap();
    client
        .put("k", "1")
        .if_absent()
        .no_idempotency_key()
        .send()
        .await
        .unwrap();
    let requests = server.requests.lock().unwrap();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| request.headers.get("idempotency-key"))
        .collect();
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[2].map(String::as_str), Some("mine"));
    assert_eq!(keys[3], None);
    assert_eq!(requests[3].headers["if-none-match"], "*");
}

#[tokio::test]
async fn without_a_key_a_broken_write_is_not_repeated() {
    let (server, client) = scripted(vec![Response::HangUp]).await;
    let error = client
        .put("k", "v")
        .no_idempotency_key()
        .send()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::OutcomeUnknown {
                idempotency_key: None,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(server.targets().len(), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_leaves_the_outcome_unknown() {
    let (server, client) = scripted(vec![Response::Full(201, vec![], b"{}".to_vec())]).await;
    let error = client
        .put("k", "v")
        .idempotency_key("once")
        .send()
        .await
        .unwrap_err();
    let Error::OutcomeUnknown {
        idempotency_key,
        last,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(idempotency_key.as_deref(), Some("once"));
    assert!(matches!(*last, Error::UnexpectedAnswer(_)));
    assert_eq!(server.targets().len(), 1);
}

#[tokio::test]
async fn a_refusal_for_good_is_not_repeated() {
    let (server, client) = scripted(vec![Response::problem(ErrorCode::ConditionFailed)]).await;
    let operations = vec![Operation::check_absent("a"), Operation::put("b", b"\xff")];
    let error = client.transaction(operations).send().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ConditionFailed));
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        String::from_utf8_lossy(&requests[0].body),
        r#"{"operations":[{"check":{"key":"a","if_absent":true}},{"put":{"key":"b","value_base64":"/w=="}}]}"#
    );
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_asked_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = RetryPolicy {
        deadline: Duration::from_millis(300),
        attempt_timeout: Duration::from_millis(50),
    };
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::builder(url).retry(policy).build().unwrap();
    let (error, attempts) = tokio::join!(client.put("k", "v").send(), async {
        // Held open, never answered.
        let first = listener.accept().await.unwrap();
        let second = listener.accept().await.unwrap();
        vec![first, second]
    });
    assert_eq!(attempts.len(), 2);
    let Error::OutcomeUnknown { last, .. } = error.unwrap_err() else {
        panic!()
    };
    assert!(matches!(
        *last,
        Error::Transport(TransportError::TimedOut { timeout_ms: 50 })
    ));
}

#[tokio::test]
async fn a_node_that_is_not_there_wrote_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let policy = RetryPolicy {
        deadline: Duration::ZERO,
        ..RetryPolicy::default()
    };
    let client = Client::builder(url).retry(policy).build().unwrap();
    let error = client.put("k", "v").send().await.unwrap_err();
    assert!(
        matches!(error, Error::Transport(TransportError::Connect(_))),
        "{error}"
    );
}

#[tokio::test]
async fn values_come_with_what_the_headers_say() {
    let headers = vec![
        ("scribe-index", "7".to_owned()),
        ("scribe-timestamp", "9".to_owned()),
        ("scribe-leaf-hash", "ab".repeat(32)),
        ("scribe-tree-size", "8".to_owned()),
        ("scribe-meta-unit", "kg".to_owned()),
        ("content-type", "text/plain".to_owned()),
    ];
    let found = Response::Full(200, headers, b"value".to_vec());
    let (server, client) = scripted(vec![
        found.clone(),
        found,
        Response::problem(ErrorCode::Deleted),
    ])
    .await;
    let value = client
        .get("k")
        .at(At::Size(8))
        .stale()
        .min_index(3)
        .send()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(value.bytes, "value");
    assert_eq!((value.head.index, value.head.timestamp_ms), (7, 9));
    assert_eq!(value.head.metadata["unit"], "kg");
    let head = client.head("k").index(7).send().await.unwrap().unwrap();
    assert_eq!(head.length, Some(5));
    assert_eq!(head.content_type.as_deref(), Some("text/plain"));
    assert_eq!(client.get("k").send().await.unwrap(), None);
    assert_eq!(
        server.targets(),
        [
            "GET /v1/keys/k?at=8&consistency=stale",
            "HEAD /v1/keys/k?index=7",
            "GET /v1/keys/k"
        ]
    );
    assert_eq!(
        server.requests.lock().unwrap()[0].headers["scribe-min-index"],
        "3"
    );
}

#[tokio::test]
async fn every_read_of_what_is_now_may_say_how_fresh() {
    let (server, client) = scripted(vec![Response::problem(ErrorCode::NotFound)]).await;
    let _ = client.get_many(["k"]).stale().min_index(3).send().await;
    let _ = client.entry(3).stale().min_index(3).send().await;
    let _ = client.entries(1).stale().min_index(3).send().await;
    let _ = client.history("k").stale().min_index(3).send().await;
    let _ = client.list().stale().min_index(3).send().await;
    assert_eq!(
        server.targets(),
        [
            "POST /v1/keys:get?consistency=stale",
            "GET /v1/entries/3?consistency=stale",
            "GET /v1/entries?from=1&consistency=stale",
            "GET /v1/keys/k/history?consistency=stale",
            "GET /v1/keys?consistency=stale",
        ]
    );
    for request in server.requests.lock().unwrap().iter() {
        assert_eq!(request.headers["scribe-min-index"], "3");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused() {
    let server = Server::start(|_| Response::text("x".repeat(1_000))).await;
    let client = Client::builder(&server.url)
        .answer_length_max(999)
        .build()
        .unwrap();
    assert!(matches!(
        client.ledger().await,
        Err(Error::UnexpectedAnswer(_))
    ));
}
