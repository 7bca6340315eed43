//! Fuzz targets: what arrives on the Raft port before anybody is believed, and what a new node and its member hand each
//! other.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::frame::{
    Activity, ERROR_BODY_MAX, FrameError, FrameReader, HEADER_LENGTH, Totals, parse_error,
    put_error,
};
use super::hello::{HELLO_LENGTH_MAX, Hello};
use super::pki::{ClusterCa, PeerName};
use super::token::{JoinToken, book_text, parse_book};
use super::{NodeKey, PeerTimeouts};
use crate::world::World;

/// A socket whose bytes come in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.length.min(into.remaining()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(count);
        into.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// Waits for what never has to wait.
fn ready<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().expect("a runtime")
    });
    let _timers = runtime.enter();
    let mut work = pin!(work);
    let mut context = Context::from_waker(std::task::Waker::noop());
    loop {
        // Pending only because a task has had its share of work; every byte is there.
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
}

/// The stream of frames from another node, in pieces of any length. What was read is the stream, byte for byte, and a
/// length that is only declared costs nothing.
pub(crate) fn peer_frames(data: &[u8]) {
    let Some(([piece, allowed], stream)) = data.split_first_chunk() else {
        return;
    };
    // From tiny bodies to the longest there are.
    let allowed = 1 << (u32::from(*allowed) % 28);
    let socket = Pieces {
        bytes: stream,
        length: usize::from(*piece) + 1,
    };
    ready(async {
        let activity = Arc::new(Activity::new(Arc::new(Totals::default())));
        let mut reader = FrameReader::new(socket, activity, &PeerTimeouts::default());
        let mut read = 0;
        loop {
            let header = match reader.header().await {
                Ok(header) => header,
                Err(FrameError::Closed) => {
                    assert_eq!(read, stream.len(), "bytes were left out");
                    return;
                }
                Err(FrameError::Half) => {
                    assert!(stream.len() - read < HEADER_LENGTH);
                    return;
                }
                Err(_) => return,
            };
            let mut again = BytesMut::new();
            header.put(&mut again);
            assert_eq!(again, stream[read..read + HEADER_LENGTH], "another header");
            read += HEADER_LENGTH;
            if header.request_id % 5 == 4 {
                if reader.skip(&header, allowed).await.is_err() {
                    return;
                }
                read += header.body_length;
                continue;
            }
            match reader.body(&header, allowed, || ()).await {
                Ok(body) => {
                    assert!(body.len() == header.body_length && body.len() <= allowed);
                    assert_eq!(body, stream[read..read + body.len()], "another body");
                    read += body.len();
                    check_error_body(&body);
                }
                Err(FrameError::TooLong { header, .. }) => {
                    assert!(header.body_length > allowed);
                    return;
                }
                Err(_) => {
                    assert!(header.body_length > stream.len() - read);
                    return;
                }
            }
        }
    });
}

fn check_error_body(body: &[u8]) {
    let (code, text) = parse_error(body);
    assert!(!text.contains(char::is_control));
    let written = put_error(code, &text);
    assert!(written.len() <= ERROR_BODY_MAX);
    let (code_again, text_again) = parse_error(&written);
    assert!(code_again == code && text.starts_with(&text_again));
}

/// A hello: of 44 bytes, or of a later version with more.
pub(crate) fn hello(data: &[u8]) {
    let data = &data[..data.len().min(HELLO_LENGTH_MAX)];
    let Ok(hello) = Hello::parse(data) else {
        return;
    };
    let mut again = hello.encode().to_vec();
    // A later version may use it.
    again[11] = data[11];
    assert!(data.starts_with(&again), "a second encoding");
    assert_eq!(Hello::parse(&again), Ok(hello));
}

/// A join token, and the book of those given out.
pub(crate) fn join_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim(), "a second form");
        assert!(JoinToken::looks_like(text) && !token.addresses.is_empty());
        let shown = format!("{token:?}");
        assert!(!shown.contains("secret"), "a secret is shown");
    }
    if let Ok(lines) = parse_book(text) {
        assert_eq!(book_text(&lines), text, "a second form");
    }
}

/// A certificate (DER), and a certificate request (PEM) of a node that joins: whatever it asks for, it gets the name it
/// is given.
pub(crate) fn certificate(data: &[u8]) {
    if let Ok(name) = PeerName::of_certificate(data) {
        assert!(name.uri().starts_with("scribe://") && name.dns().ends_with(".scribe.internal"));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    static CA: OnceLock<ClusterCa> = OnceLock::new();
    let world = World::real();
    let ca = CA.get_or_init(|| ClusterCa::create([7; 16], &world).expect("a new CA"));
    let validity = Duration::from_secs(60);
    if let Ok(chain) = ca.issue(9, text, &world, validity) {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let issued = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
        let name = PeerName::of_certificate(&issued).expect("a node's certificate");
        assert_eq!((name.cluster_id, name.node_id), ([7; 16], 9));
    }
    let _ = NodeKey::from_pem(text);
    let _ = ClusterCa::from_pem(text, text);
}

/// Inputs made by the encoders themselves: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use super::Lane;
    use super::frame::{Header, Role};

    let mut made = Vec::new();
    let mut add = |target, name, bytes: &[u8]| made.push((target, name, bytes.to_vec()));
    let frame = |role, kind, id, body: &[u8]| {
        let mut bytes = BytesMut::new();
        let mut header = Header::new(role, kind, id, body.len());
        if matches!(role, Role::Hello | Role::Refusal) {
            header.protocol = super::hello::HELLO_PROTOCOL;
        }
        header.put(&mut bytes);
        bytes.extend_from_slice(body);
        bytes.to_vec()
    };
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        lane: Lane::Control,
        cluster_id: [7; 16],
        sender: 2,
        target: 1,
    };
    let greeting = frame(Role::Hello, 0, 0, &hello.encode());
    let request = frame(Role::Request, 2, 7, b"a request");
    let answer = frame(Role::Response, 2, 7, b"its answer");
    let refusal = frame(Role::Refusal, 0, 0, &put_error(3, "not\nhere"));
    let error = frame(Role::Error, 2, 4, &put_error(2, "not now"));
    let pings = [
        frame(Role::Ping, 0, 0, b""),
        frame(Role::Progress, 1, 9, b""),
    ]
    .concat();
    let stream = [&greeting[..], &request, &answer, &pings, &error].concat();
    for (name, head, bytes) in [
        ("session", [255, 20], &stream),
        ("byte-by-byte", [0, 20], &stream),
        ("small-bodies", [9, 3], &stream),
        ("refusal", [20, 12], &refusal),
        ("half", [20, 12], &stream[..stream.len() - 3].to_vec()),
        (
            "declared",
            [20, 27],
            &[&[7, 0, 0, 0], &request[4..]].concat(),
        ),
    ] {
        add("peer_frames", name, &[&head[..], bytes].concat());
    }
    for (name, lane) in [
        ("replication", Lane::Replication),
        ("control", Lane::Control),
        ("forward", Lane::Forward),
        ("join", Lane::Join),
    ] {
        add("hello", name, &Hello { lane, ..hello }.encode());
    }
    add(
        "hello",
        "later",
        &[&hello.encode()[..], b"what a later version adds"].concat(),
    );
    add("hello", "short", &hello.encode()[..40]);

    let token = JoinToken {
        addresses: vec!["n1:7001".to_owned(), "192.0.2.1:7001".to_owned()],
        ca_fingerprint: [5; 32],
        secret: [6; 32],
        expires_ms: 1_900_000_000_000,
    };
    add("join_token", "two-addresses", token.to_string().as_bytes());
    add("join_token", "spaces", format!(" {token}\n").as_bytes());
    let plain = JoinToken {
        addresses: vec!["[2001:db8::1]:7001".to_owned()],
        ca_fingerprint: [0; 32],
        ..token
    };
    add("join_token", "plain", plain.to_string().as_bytes());
    let book = format!(
        "scribe-ledger/join-tokens/v1\n{0} 5 -\n{0} 17 16\n",
        "0a".repeat(32)
    );
    add("join_token", "book", book.as_bytes());
    add(
        "join_token",
        "empty-book",
        b"scribe-ledger/join-tokens/v1\n",
    );

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let world = World::real();
    let ca = ClusterCa::create([7; 16], &world).expect("a new CA");
    let key = NodeKey::generate().expect("a new key");
    let request = key.request_pem().expect("a request");
    let day = Duration::from_secs(86_400);
    let chain = ca.issue(3, &request, &world, day).expect("a certificate");
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
    let ca_der = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes());
    add("certificate", "node", &der);
    add("certificate", "ca", &ca_der.expect("a certificate"));
    add("certificate", "request", request.as_bytes());
    add("certificate", "chain", chain.as_bytes());
    add(
        "certificate",
        "no-key",
        b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
    );
    made
}
