//! Our witness over raw HTTP: the exact bytes of each answer, its limits, and what it says to strangers.

use std::time::{SystemTime, UNIX_EPOCH};

use scribe_proof::hash::sha256;
use scribe_proof::note::Signature;
use scribe_proof::witness::REQUEST_LENGTH_MAX;
use scribe_proof::{SignedCheckpoint, cosignature};

use crate::support::{Connection, Reply, request};
use crate::test_witness::{ForkingLog, TestWitness};

const ORIGIN: &str = "example.com/log";

async fn start() -> (TestWitness, ForkingLog) {
    let log = ForkingLog::new(ORIGIN, 1);
    let mut witness = TestWitness::prepare("witness.example/w1").await;
    witness.start(&[log.vkey()]).await;
    (witness, log)
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

#[track_caller]
fn refused(reply: &Reply, status: u16, expected: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.text().contains(expected), "{}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(reply.text().matches('\n').count(), 1, "{:?}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_of_the_specification_in_bytes() {
    let (mut witness, log) = start().await;
    let before = now_s();
    let reply = witness.post(log.request(0, 5, 0).as_bytes()).await;
    // 200: one line, the em dash first and a newline last; 4 bytes key id, 8 bytes time, 64 bytes Ed25519.
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    assert!(text.starts_with("\u{2014} witness.example/w1 "), "{text}");
    assert!(
        text.ends_with('\n') && text.matches('\n').count() == 1,
        "{text}"
    );
    let line = Signature::parse_line(&text).unwrap();
    assert_eq!(line.bytes.len(), 72);
    assert_eq!(line.key_id, witness.address.key.key_id());
    let time = u64::from_be_bytes(line.bytes[..8].try_into().unwrap());
    assert!((before..=now_s()).contains(&time), "{time}");
    let note = log.signed(5, 0).note().text.clone();
    assert_eq!(
        cosignature::verify(&note, &witness.address.key, &line),
        Ok(time)
    );

    // 409 with a size: the body is the number and a newline, the type is the specification's.
    for old in [0, 4, 6] {
        let reply = witness.post(log.request(old, 9, 0).as_bytes()).await;
        assert_eq!((reply.status, reply.body.as_slice()), (409, &b"5\n"[..]));
        assert_eq!(reply.header("content-type"), Some("text/x.tlog.size"));
        assert_eq!(reply.header("content-length"), Some("2"));
    }
    // 409 without one: another root at the same size.
    refused(
        &witness.post(log.request(5, 5, 1).as_bytes()).await,
        409,
        "was cosigned at size 5",
    );
    // 422: another history, a proof where none is due, none where one is due.
    refused(
        &witness.post(log.request(5, 9, 1).as_bytes()).await,
        422,
        "is not proved",
    );
    let honest = log.request(5, 9, 0);
    let proof_at = honest.find('\n').unwrap() + 1;
    let needless = log.request(5, 5, 0).replacen(
        "\n\n",
        &format!("\n{}\n\n", &honest[proof_at..proof_at + 44]),
        1,
    );
    refused(
        &witness.post(needless.as_bytes()).await,
        422,
        "is not proved",
    );
    let checkpoint_at = honest.find("\n\n").unwrap();
    let without = format!("old 5{}", &honest[checkpoint_at..]);
    refused(
        &witness.post(without.as_bytes()).await,
        422,
        "is not proved",
    );
    // 400: more old than new; no request at all.
    refused(
        &witness.post(log.request(5, 4, 0).as_bytes()).await,
        400,
        "old size must be at most",
    );
    for garbage in [&b""[..], b"\xff\xfe", b"old 5\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let reply = witness.post(garbage).await;
        assert_eq!(reply.status, 400, "{garbage:?}");
    }
    // 404: a log nobody told it of, whoever signed. 403: this log, but not its key; its key over another text.
    let unknown = ForkingLog::new("example.com/unknown", 1);
    refused(
        &witness.post(unknown.request(0, 5, 0).as_bytes()).await,
        404,
        "does not follow",
    );
    let stranger = ForkingLog::new(ORIGIN, 2);
    refused(
        &witness.post(stranger.request(5, 9, 0).as_bytes()).await,
        403,
        "not signed by a key trusted",
    );
    let altered = honest.replacen("\n9\n", "\n8\n", 1);
    refused(&witness.post(altered.as_bytes()).await, 403, "does not fit");

    // None of it has moved it.
    assert_eq!(witness.witness().sizes()[0].1.get(), 5);
    assert_eq!(witness.post(honest.as_bytes()).await.status, 200);
    let stats = witness.get("/metrics").await.text();
    assert!(
        stats.contains("scribe_witness_cosigned_total 2\n"),
        "{stats}"
    );
    assert!(stats.contains("scribe_witness_log_size_leaves{log=\"example.com/log\"} 9\n"));
    assert!(stats.contains("scribe_witness_forks_total 4\n"), "{stats}");
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_read_what_was_cosigned_last() {
    let (mut witness, log) = start().await;
    let id = sha256(ORIGIN.as_bytes()).to_hex();
    let path = format!("/{id}/checkpoint");
    witness.get(&path).await.problem(404, "not_found");
    for (old, size) in [(0, 5), (5, 9)] {
        witness.post(log.request(old, size, 0).as_bytes()).await;
        let reply = witness.get(&path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        let signed = SignedCheckpoint::parse(&reply.text()).unwrap();
        assert_eq!(
            signed.verify(log.key.verifier_key()).unwrap().size.get(),
            size
        );
        assert_eq!(signed.note().verify(&witness.address.key), Ok(true));
        assert_eq!(signed.note().signatures.len(), 2);
    }
    // The same after a restart.
    let before = witness.get(&path).await.text();
    witness.stop().await;
    witness.start(&[log.vkey()]).await;
    assert_eq!(witness.get(&path).await.text(), before);
    for wrong in [
        format!("/{}/checkpoint", id.to_uppercase()),
        "/x/checkpoint".to_owned(),
        "//checkpoint".to_owned(),
        "/checkpoint".to_owned(),
    ] {
        assert_eq!(witness.get(&wrong).await.status, 404, "{wrong}");
    }
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_their_limits_are_refused_unread() {
    let (mut witness, log) = start().await;
    // A declared length is refused before a byte of the body is there.
    let mut connection = Connection::open(witness.addr).await;
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n",
        REQUEST_LENGTH_MAX + 1
    );
    connection.write(head.as_bytes()).await;
    connection.reply(false).await.problem(413, "body_too_large");
    // An undeclared one as soon as it is too long.
    let mut connection = Connection::open(witness.addr).await;
    let head = "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.write(head.as_bytes()).await;
    let piece = crate::support::chunk(&vec![b'x'; REQUEST_LENGTH_MAX / 2 + 1]);
    connection.write(&piece).await;
    connection.write(&piece).await;
    connection.reply(false).await.problem(413, "body_too_large");
    // Routes and methods.
    for (method, target, status, code) in [
        ("GET", "/add-checkpoint", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/ledger", 404, "not_found"),
    ] {
        let mut connection = Connection::open(witness.addr).await;
        connection.write(&request(method, target, &[], None)).await;
        connection.reply(false).await.problem(status, code);
    }
    // Keep-alive: several requests on one connection, as a log sends them.
    let mut connection = Connection::open(witness.addr).await;
    for (old, size) in [(0, 4), (4, 6), (6, 6), (6, 20)] {
        let body = log.request(old, size, 0);
        let bytes = request("POST", "/add-checkpoint", &[], Some(body.as_bytes()));
        connection.write(&bytes).await;
        assert_eq!(connection.reply(false).await.status, 200);
    }
    witness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_progress_is_answered_when_the_witness_stops() {
    let (mut witness, log) = start().await;
    let body = log.request(0, 5, 0);
    let bytes = request("POST", "/add-checkpoint", &[], Some(body.as_bytes()));
    let mut connection = Connection::open(witness.addr).await;
    let (first, rest) = bytes.split_at(bytes.len() - 10);
    connection.write(first).await;
    // Answered on another connection: by then the first one's head was read as well.
    assert_eq!(witness.get("/health/live").await.status, 200);
    let stopping = witness.stop();
    let finishing = async {
        connection.write(rest).await;
        connection.reply(false).await
    };
    let ((), reply) = tokio::join!(stopping, finishing);
    assert_eq!(reply.status, 200, "{}", reply.text());
}
