//! Peers that are wrong, broken or hostile: each is refused or cut off, is counted, and good ones are served on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use scribe::limits;
use scribe::peer::{
    ClusterCa, Lane, NodeKey, Pool, RefusalCode, Security, TlsIdentity, Wait, remote_code,
};
use scribe::world::{Clock, SystemEntropy, World};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::peer_support::{
    CLUSTER, ECHO, LENGTH, Link, Node, Proxy, REMOVED, WHO, YEAR, ca, call, certificate, code,
    eventually, identity, options, tls,
};

const HELLO: u16 = 5;
const REFUSAL: u16 = 6;
const ERROR: u16 = 2;
const REQUEST: u16 = 0;

/// A frame, written by hand.
fn frame(protocol: u8, kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(12 + body.len() as u32);
    out.put_u8(protocol);
    out.put_u8(kind);
    out.put_u16(flags);
    out.put_u64(1);
    out.extend_from_slice(body);
    out
}

/// A hello that would be let in as node 2 on the control lane of node 1 …
struct Hello {
    magic: [u8; 8],
    protocols: (u8, u8),
    lane: u8,
    cluster: [u8; 16],
    sender: u64,
    target: u64,
}

/// … unless something is changed.
const GOOD: Hello = Hello {
    magic: *b"scribe\x00\x02",
    protocols: (1, 1),
    lane: Lane::Control as u8,
    cluster: CLUSTER,
    sender: 2,
    target: 1,
};

impl Hello {
    fn frame(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.magic);
        body.put_u8(self.protocols.0);
        body.put_u8(self.protocols.1);
        body.put_u8(self.lane);
        body.put_u8(0);
        body.extend_from_slice(&self.cluster);
        body.put_u64(self.sender);
        body.put_u64(self.target);
        frame(0, 0, HELLO, &body)
    }
}

/// Reads one frame: flags and body.
async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> Option<(u16, Vec<u8>)> {
    let length = io.read_u32().await.ok()?;
    let _protocol_and_kind = io.read_u16().await.ok()?;
    let flags = io.read_u16().await.ok()?;
    let _id = io.read_u64().await.ok()?;
    let mut body = vec![0; length as usize - 12];
    io.read_exact(&mut body).await.ok()?;
    Some((flags, body))
}

/// Reads until the other side closes; a reset counts as that.
async fn closes(io: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 1_024];
    let closing = async { while matches!(io.read(&mut buffer).await, Ok(count) if count > 0) {} };
    tokio::time::timeout(Duration::from_secs(10), closing)
        .await
        .expect("the connection stays open");
}

/// Sends a hello and gets this refusal.
async fn is_refused(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    hello: &Hello,
    expected: RefusalCode,
) {
    io.write_all(&hello.frame()).await.unwrap();
    io.flush().await.unwrap();
    let (flags, body) = read_frame(&mut io).await.expect("a refusal");
    assert_eq!(flags, REFUSAL);
    let text = String::from_utf8_lossy(&body[2..]).into_owned();
    assert_eq!(body[..2], (expected as u16).to_be_bytes(), "{text}");
    assert!(!text.is_empty());
    closes(&mut io).await;
}

async fn plain() -> (Node, Pool) {
    let node = Node::start(options(1, Security::Plain)).await;
    (node, Pool::new(options(3, Security::Plain)))
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_that_do_not_fit_are_refused_with_the_reason() {
    let (node, pool) = plain().await;
    let cases = [
        (
            Hello {
                magic: *b"postgres",
                ..GOOD
            },
            RefusalCode::WrongMagic,
        ),
        (
            Hello {
                protocols: (0, 0),
                ..GOOD
            },
            RefusalCode::Protocol,
        ),
        (
            Hello {
                protocols: (2, 9),
                ..GOOD
            },
            RefusalCode::Protocol,
        ),
        (
            Hello {
                cluster: [8; 16],
                ..GOOD
            },
            RefusalCode::WrongCluster,
        ),
        (Hello { target: 9, ..GOOD }, RefusalCode::WrongTarget),
        (Hello { lane: 77, ..GOOD }, RefusalCode::NotAllowed),
        (
            Hello {
                sender: REMOVED,
                ..GOOD
            },
            RefusalCode::Removed,
        ),
    ];
    for (hello, expected) in cases {
        let before = node.server.stats().refused(expected);
        let io = TcpStream::connect(&node.address).await.unwrap();
        is_refused(io, &hello, expected).await;
        node.refused(expected, before + 1).await;
        node.still_serves(&pool).await;
    }
    // And the good one is good.
    let mut io = TcpStream::connect(&node.address).await.unwrap();
    io.write_all(&GOOD.frame()).await.unwrap();
    assert_eq!(read_frame(&mut io).await.unwrap().0, HELLO);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_handshake_are_cut_off() {
    let (node, pool) = plain().await;
    let mut random = vec![0; 4_096];
    scribe::world::Entropy::fill(&SystemEntropy, &mut random);
    // Not by chance a small length.
    random[0] |= 0x80;
    let half = GOOD.frame()[..30].to_vec();
    let mut giant = GOOD.frame();
    giant[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let request_first = frame(1, ECHO, REQUEST, b"let me in");
    let short = frame(0, 0, HELLO, b"scribe\x00\x02");
    for (number, bytes) in [random, giant, request_first, short]
        .into_iter()
        .enumerate()
    {
        let mut io = TcpStream::connect(&node.address).await.unwrap();
        io.write_all(&bytes).await.unwrap();
        closes(&mut io).await;
        node.refused(RefusalCode::Malformed, number as u64 + 1)
            .await;
        node.still_serves(&pool).await;
    }
    let mut io = TcpStream::connect(&node.address).await.unwrap();
    io.write_all(&half).await.unwrap();
    drop(io);
    node.refused(RefusalCode::Malformed, 5).await;
    node.still_serves(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_trickles_is_cut_off() {
    let ca = ca();
    for security in [Security::Plain, tls(&ca, 1)] {
        let pool = match &security {
            Security::Plain => Pool::new(options(3, Security::Plain)),
            Security::Tls(_) => Pool::new(options(3, tls(&ca, 3))),
        };
        let node = Node::start(options(1, security)).await;
        let mut silent = TcpStream::connect(&node.address).await.unwrap();
        let mut slow = TcpStream::connect(&node.address).await.unwrap();
        slow.write_all(&[0, 0]).await.unwrap();
        closes(&mut silent).await;
        closes(&mut slow).await;
        node.refused(RefusalCode::TooSlow, 1).await;
        node.still_serves(&pool).await;
    }
}

/// Strangers who hold connections open without a word push each other out, not the nodes of the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_does_not_lock_out_nodes() {
    let mut patient = options(1, Security::Plain);
    patient.timeouts.handshake_ms = 60_000;
    let node = Node::start(patient).await;
    let mut crowd = Vec::new();
    for _ in 0..limits::PEER_HANDSHAKES_MAX + 8 {
        crowd.push(TcpStream::connect(&node.address).await.unwrap());
    }
    node.refused(RefusalCode::Busy, 8).await;
    let pool = Pool::new(options(3, Security::Plain));
    node.still_serves(&pool).await;
    assert!(node.server.stats().handshaking <= limits::PEER_HANDSHAKES_MAX as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_too_many_connections_loses_its_oldest() {
    let (node, pool) = plain().await;
    let mut connections = Vec::new();
    for _ in 0..=limits::PEER_CONNECTIONS_PER_SENDER_MAX {
        let mut io = TcpStream::connect(&node.address).await.unwrap();
        io.write_all(&GOOD.frame()).await.unwrap();
        assert_eq!(read_frame(&mut io).await.unwrap().0, HELLO);
        connections.push(io);
    }
    closes(&mut connections[0]).await;
    assert_eq!(node.server.stats().displaced, 1);
    let newest = connections.last_mut().unwrap();
    newest
        .write_all(&frame(1, ECHO, REQUEST, b"here"))
        .await
        .unwrap();
    assert_eq!(read_frame(newest).await.unwrap().1, b"here");
    node.still_serves(&pool).await;
}

/// A node that was let in and then sends nonsense loses its connection, and nobody else theirs.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_after_the_handshake_ends_the_connection() {
    let (node, pool) = plain().await;
    node.still_serves(&pool).await;
    let mut giant = frame(1, LENGTH, REQUEST, b"x");
    giant[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut short = frame(1, ECHO, REQUEST, b"");
    short[..4].copy_from_slice(&3_u32.to_be_bytes());
    let response = frame(1, ECHO, 1, b"nobody asked");
    let unknown = frame(1, ECHO, 0x0100, b"");
    let version = frame(9, ECHO, REQUEST, b"");
    for (number, bytes) in [giant, short, response, unknown, version]
        .into_iter()
        .enumerate()
    {
        let mut io = TcpStream::connect(&node.address).await.unwrap();
        io.write_all(&GOOD.frame()).await.unwrap();
        assert_eq!(read_frame(&mut io).await.unwrap().0, HELLO);
        io.write_all(&bytes).await.unwrap();
        if number == 0 {
            let (flags, body) = read_frame(&mut io).await.unwrap();
            assert_eq!(flags, ERROR);
            assert_eq!(body[..2], remote_code::TOO_LONG.to_be_bytes());
        }
        io.shutdown().await.unwrap();
        closes(&mut io).await;
        node.refused(RefusalCode::Malformed, number as u64 + 1)
            .await;
        node.still_serves(&pool).await;
    }
    let mut io = TcpStream::connect(&node.address).await.unwrap();
    io.write_all(&GOOD.frame()).await.unwrap();
    assert_eq!(read_frame(&mut io).await.unwrap().0, HELLO);
    io.write_all(&frame(1, LENGTH, REQUEST, &[0; 100_000])[..50_000])
        .await
        .unwrap();
    drop(io);
    node.refused(RefusalCode::Malformed, 6).await;
    assert_eq!(pool.stats()[0].connections_opened, 1);
}

/// A raw TLS connection of somebody who knows the CA and shows no certificate.
async fn without_certificate(
    node: &Node,
    ca: &ClusterCa,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = format!("n1.{}.scribe.internal", "07".repeat(16));
    let stream = TcpStream::connect(&node.address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name).unwrap(), stream)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_decide_who_is_who() {
    let ca = ca();
    let node = Node::start(options(1, tls(&ca, 1))).await;
    let good = Pool::new(options(3, tls(&ca, 3)));
    node.still_serves(&good).await;
    let mut certificates_refused = 0;
    let mut one_more = async |node: &Node| {
        certificates_refused += 1;
        node.refused(RefusalCode::Certificate, certificates_refused)
            .await;
        node.still_serves(&good).await;
    };

    // No certificate: only the join lane is open.
    for lane in 0..4 {
        let io = without_certificate(&node, &ca).await;
        is_refused(io, &Hello { lane, ..GOOD }, RefusalCode::Certificate).await;
        one_more(&node).await;
    }

    // A certificate of another CA. The client trusts both, so that it is the server that refuses.
    let stranger = ClusterCa::create(CLUSTER, &World::real()).unwrap();
    let (chain, key) = certificate(&stranger, 2, &World::real());
    let both = format!("{}{}", ca.certificate_pem(), stranger.certificate_pem());
    let identity_of = |ca: &str| Arc::new(TlsIdentity::from_pem(&chain, &key, ca).unwrap());
    let pool = Pool::new(options(2, Security::Tls(identity_of(&both))));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Certificate);
    one_more(&node).await;

    // And the client refuses a server of another CA.
    let pool = Pool::new(options(
        2,
        Security::Tls(identity_of(stranger.certificate_pem())),
    ));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Certificate);
    one_more(&node).await;

    // The certificate of another node.
    let pool = Pool::new(options(9, tls(&ca, 2)));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Certificate);
    one_more(&node).await;

    // An expired one.
    let key = NodeKey::generate().unwrap();
    let long_ago = World::new(Arc::new(LongAgo), Arc::new(SystemEntropy));
    let chain = ca
        .issue(2, &key.request_pem().unwrap(), &long_ago, YEAR)
        .unwrap();
    let expired = TlsIdentity::from_pem(&chain, &key.secret_pem(), ca.certificate_pem());
    let pool = Pool::new(options(2, Security::Tls(Arc::new(expired.unwrap()))));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Certificate);
    one_more(&node).await;

    // Another node than the one meant: its certificate says so before anything is sent.
    let pool = Pool::new(options(2, tls(&ca, 2)));
    let answer = call(&pool, 5, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::WrongTarget);

    // A removed node, with a perfectly good certificate.
    let pool = Pool::new(options(REMOVED, tls(&ca, REMOVED)));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Removed);
    node.refused(RefusalCode::Removed, 1).await;

    // No TLS at all, from either side.
    let pool = Pool::new(options(2, Security::Plain));
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert!(answer.is_err());
    node.refused(RefusalCode::Tls, 1).await;
    let plain = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, tls(&ca, 2)));
    let answer = call(&pool, 1, &plain.address, Lane::Control, ECHO, b"").await;
    assert!(answer.is_err());
    plain.refused(RefusalCode::Malformed, 1).await;
    node.still_serves(&good).await;
    assert_eq!(good.stats()[0].connections_opened, 1);
}

#[derive(Debug)]
struct LongAgo;

impl Clock for LongAgo {
    fn now_ms(&self) -> u64 {
        1_500_000_000_000
    }
}

/// Between two nodes with TLS nothing can be read on the way; without it, everything can.
#[tokio::test(flavor = "multi_thread")]
async fn what_crosses_the_network_is_encrypted() {
    const MARKER: &[u8] = b"the quick brown plaintext";
    let ca = ca();
    for encrypted in [true, false] {
        let security = |node_id| match encrypted {
            true => tls(&ca, node_id),
            false => Security::Plain,
        };
        let node = Node::start(options(1, security(1))).await;
        let pool = Pool::new(options(2, security(2)));
        let proxy = Proxy::start(&node.address, Link::Fast).await;
        let large = Bytes::from(MARKER.repeat(10_000));
        for body in [Bytes::from_static(MARKER), large] {
            let wait = Wait::Deadline(Duration::from_secs(10));
            let parts = vec![body.clone()];
            let answer = pool
                .call(1, &proxy.address(), Lane::Control, ECHO, parts, wait)
                .await;
            assert_eq!(answer.unwrap(), body);
        }
        let seen = proxy.seen.lock();
        assert_eq!(seen.len(), 2);
        for (direction, bytes) in &*seen {
            assert!(bytes.len() > 250_000);
            let readable = bytes.windows(MARKER.len()).any(|window| window == MARKER);
            assert_eq!(readable, !encrypted, "{direction:?}");
            // A TLS record of the handshake.
            assert_eq!(bytes.starts_with(&[22, 3]), encrypted, "{direction:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_calls_go_on() {
    let ca = ca();
    let (ours, theirs) = (identity(&ca, 1), identity(&ca, 2));
    let node = Node::start(options(1, Security::Tls(Arc::clone(&ours)))).await;
    let pool = Pool::new(options(2, Security::Tls(Arc::clone(&theirs))));
    let stop = Arc::new(tokio::sync::Notify::new());
    let calling = tokio::spawn({
        let (pool, address, stop) = (pool.clone(), node.address.clone(), Arc::clone(&stop));
        async move {
            let mut calls = 0_u64;
            let calling = async {
                loop {
                    call(&pool, 1, &address, Lane::Control, ECHO, b"on")
                        .await
                        .unwrap();
                    calls += 1;
                }
            };
            tokio::select! {
                () = calling => {}
                () = stop.notified() => {}
            }
            calls
        }
    });
    let some_more = async || {
        let calls = pool.stats().first().map_or(0, |stats| stats.calls);
        eventually(
            || {
                pool.stats()
                    .first()
                    .is_some_and(|stats| stats.calls > calls + 100)
            },
            || format!("{:?}", pool.stats()),
        )
        .await;
    };
    some_more().await;
    // New certificates of a new CA; for the time of the change both are believed.
    let next = ClusterCa::create(CLUSTER, &World::real()).unwrap();
    let both = format!("{}{}", ca.certificate_pem(), next.certificate_pem());
    for (identity, node_id) in [(&ours, 1), (&theirs, 2)] {
        let (chain, key) = certificate(&ca, node_id, &World::real());
        identity.reload(&chain, &key, &both).unwrap();
    }
    some_more().await;
    for (identity, node_id) in [(&ours, 1), (&theirs, 2)] {
        let (chain, key) = certificate(&next, node_id, &World::real());
        identity
            .reload(&chain, &key, next.certificate_pem())
            .unwrap();
    }
    some_more().await;
    stop.notify_one();
    assert!(calling.await.unwrap() > 300);
    assert_eq!(pool.stats()[0].connections_opened, 1);

    // New connections show the new certificates, and believe nothing else.
    let answer = call(&pool, 1, &node.address, Lane::Bulk, WHO, b"")
        .await
        .unwrap();
    assert_eq!(answer, "Some(2) Bulk");
    let old = Pool::new(options(3, tls(&ca, 3)));
    let answer = call(&old, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert_eq!(code(answer), RefusalCode::Certificate);

    // What does not fit changes nothing.
    let (chain, key) = certificate(&next, 5, &World::real());
    let error = ours
        .reload(&chain, &key, next.certificate_pem())
        .unwrap_err();
    assert!(
        error.to_string().contains("this node is scribe://"),
        "{error}"
    );
    assert!(
        ours.reload(&chain, "no key", next.certificate_pem())
            .is_err()
    );
    let (own_chain, _) = certificate(&next, 1, &World::real());
    assert!(
        ours.reload(&own_chain, &key, next.certificate_pem())
            .is_err()
    );
    assert!(ours.reload(&own_chain, &key, ca.certificate_pem()).is_err());
    call(&pool, 1, &node.address, Lane::Forward, ECHO, b"")
        .await
        .unwrap();
}
