//! Connections: limits on the head, slow clients, pipelining, and the end of it all.

use std::time::{Duration, Instant};

use crate::support::{TestServer, request};

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_their_limits_are_refused() {
    let server = TestServer::start().await;
    let long = format!("/v1/keys?start={}", "a".repeat(4_096));
    server.get(&long).await.problem(414, "uri_too_long");

    let names: Vec<String> = (0..70).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    server
        .send("GET", "/v1/keys/k", &many, None)
        .await
        .problem(431, "headers_too_large");

    let large = "v".repeat(17 * 1_024);
    server
        .send("GET", "/v1/keys/k", &[("x-large", &large)], None)
        .await
        .problem(431, "headers_too_large");
    // Beyond the read buffer hyper refuses by itself, without our body but with the same status.
    let huge = "v".repeat(200 * 1_024);
    let mut connection = server.connect().await;
    connection
        .write(&request("GET", "/v1/keys/k", &[("x-huge", &huge)], None))
        .await;
    assert_eq!(connection.head().await.status, 431);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused() {
    let server = TestServer::start().await;
    let mut connection = server.connect().await;
    connection.write(b"GET / HTTP/9.9\r\n\r\n").await;
    assert_eq!(connection.head().await.status, 400);
    assert!(connection.closes().await);

    let mut connection = server.connect().await;
    connection
        .write(b"PUT /v1/keys/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await;
    connection.reply(false).await.problem(400, "bad_request");
    server.get("/v1/keys/k").await.problem(404, "not_found");
    server.stop().await;
}

/// A head that trickles in, and a body that stands still, are given up on; an idle connection is kept.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_keep_their_connections() {
    let server = TestServer::start().await;
    let mut idle = server.connect().await;
    let started = Instant::now();
    let trickle = async {
        let mut connection = server.connect().await;
        connection.write(b"GET /v1/keys/k HTTP/1.1\r\nhost: ").await;
        let (mut reader, mut writer) = connection.stream.into_split();
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            // One byte at a time, for ever: each is progress, but not enough.
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        use tokio::io::AsyncReadExt as _;
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        writing.abort();
        assert!(rest.is_empty());
    };
    let stalled = async {
        let mut connection = server.connect().await;
        connection
            .write(&request(
                "PUT",
                "/v1/keys/k",
                &[("Content-Length", "10")],
                None,
            ))
            .await;
        connection.write(b"12345").await;
        assert!(connection.closes().await);
    };
    let both = async { tokio::join!(trickle, stalled) };
    tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("both were given up on");
    assert!(started.elapsed() >= Duration::from_secs(5));
    server.get("/v1/keys/k").await.problem(404, "not_found");

    idle.write(&request("GET", "/health/live", &[], None)).await;
    assert_eq!(idle.reply(false).await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_sent_before_the_answers_are_read() {
    let server = TestServer::start().await;
    let mut connection = server.connect().await;
    let mut bytes = Vec::new();
    for n in 0..20 {
        let value = format!("{n}");
        bytes.extend(request("PUT", "/v1/keys/k", &[], Some(value.as_bytes())));
        bytes.extend(request("GET", "/v1/keys/k", &[], None));
        bytes.extend(request("GET", "/v1/keys/none", &[], None));
        bytes.extend(request("GET", "/v1/keys", &[], None));
    }
    connection.write(&bytes).await;
    for n in 0..20 {
        assert_eq!(connection.reply(false).await.status, 201);
        assert_eq!(connection.reply(false).await.text(), format!("{n}"));
        connection.reply(false).await.problem(404, "not_found");
        assert_eq!(connection.reply(false).await.status, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_progress_is_finished_before_the_server_stops() {
    let mut server = TestServer::start().await;
    let mut idle = server.connect().await;
    idle.write(&request("GET", "/health/live", &[], None)).await;
    assert_eq!(idle.reply(false).await.status, 200);
    let mut busy = server.connect().await;
    let headers = [("Content-Length", "2"), ("Expect", "100-continue")];
    busy.write(&request("PUT", "/v1/keys/k", &headers, None))
        .await;
    assert_eq!(busy.head().await.status, 100);
    server.begin_stop();
    // Idle connections close at once; the request that began is answered.
    assert!(idle.closes().await);
    busy.write(b"ok").await;
    let reply = busy.reply(false).await;
    assert_eq!(reply.status, 201);
    assert!(busy.closes().await);
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests() {
    let server = TestServer::start().await;
    let mut connection = server.connect().await;
    for n in 0..300_u32 {
        let target = format!("/v1/keys/k{}", n % 7);
        connection
            .write(&request("PUT", &target, &[], Some(&n.to_be_bytes())))
            .await;
        assert_eq!(connection.reply(false).await.status, 201);
        connection.write(&request("GET", &target, &[], None)).await;
        assert_eq!(connection.reply(false).await.body, n.to_be_bytes());
    }
    server.stop().await;
}
