//! HTTPS: who is believed, what a handshake may take, and a certificate that is replaced while clients are connected.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use scribe::http::{HttpOptions, HttpTls, HttpTlsError};
use scribe_client::wire::WatchEvent;
use scribe_client::{Client, Error, TransportError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TestServer, VALUE_LENGTH_MAX};

/// A CA of one's own, and the files of a server it vouches for.
struct Certificates {
    dir: TempDir,
    ca_pem: String,
}

impl Certificates {
    fn new() -> Certificates {
        let mut certificates = Certificates {
            dir: TempDir::new().unwrap(),
            ca_pem: String::new(),
        };
        certificates.renew();
        certificates
    }

    /// Another CA, another certificate, the same files.
    fn renew(&mut self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
        params.subject_alt_names.push(own);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(self.certificate(), certificate.pem()).unwrap();
        std::fs::write(self.key(), key.serialize_pem()).unwrap();
        self.ca_pem = ca.pem();
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    fn load(&self) -> Result<HttpTls, HttpTlsError> {
        HttpTls::load(&self.certificate(), &self.key())
    }

    async fn serve(&self) -> (TestServer, Arc<HttpTls>) {
        let tls = Arc::new(self.load().unwrap());
        let options = HttpOptions {
            tls: Some(Arc::clone(&tls)),
            ..HttpOptions::default()
        };
        (TestServer::start_with(options).await, tls)
    }

    /// A client that believes this CA alone.
    fn client(&self, server: &TestServer) -> Client {
        let url = format!("https://{}", server.addr);
        let builder = Client::builder(url).ca_pem(self.ca_pem.clone());
        builder.build().unwrap()
    }

    /// A TLS connection that offers these versions and protocols.
    async fn connect(
        &self,
        server: &TestServer,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(server.addr).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The value of the next entry a watch tells of.
async fn next_value(events: &mut BoxStream<'static, Result<WatchEvent, Error>>) -> Option<String> {
    loop {
        if let WatchEvent::Entry(entry) = events.next().await.unwrap().unwrap() {
            return entry.value;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_over_tls() {
    let certificates = Certificates::new();
    let (server, _) = certificates.serve().await;
    let client = certificates.client(&server);
    let mut events = client.watch().from(1).prefix("k").open().await.unwrap();
    let value: Vec<u8> = (0..VALUE_LENGTH_MAX).map(|n| (n % 251) as u8).collect();
    let appended = client.put("k", value.clone()).send().await.unwrap();
    let read = client.get("k").send().await.unwrap().unwrap();
    assert_eq!(read.bytes, value);
    let event = loop {
        match events.next().await.unwrap().unwrap() {
            WatchEvent::Entry(entry) => break entry,
            WatchEvent::Progress(_) => {}
        }
    };
    assert_eq!(event.index, appended.index);
    let receipt = client.receipt("k").send().await.unwrap();
    assert_eq!(receipt.index.get(), appended.index);
    drop(events);
    let started = Instant::now();
    server.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "idle connections end at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_not_believed() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let (server, _) = certificates.serve().await;
    let url = format!("https://{}", server.addr);
    for client in [others.client(&server), Client::new(url).unwrap()] {
        let started = Instant::now();
        let error = client.put("k", "v").send().await.unwrap_err();
        let disbelieved = Error::Transport(TransportError::Certificate(String::new()));
        assert_eq!(
            std::mem::discriminant(&error),
            std::mem::discriminant(&disbelieved)
        );
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "it was not repeated"
        );
    }
    // One that does not speak TLS at all gets no answer, and the server goes on.
    let mut plain = server.connect().await;
    plain
        .write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let _ = plain.stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"));
    let client = certificates.client(&server);
    assert_eq!(client.health().await.unwrap().status, "ok");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_are_served_and_other_protocols_are_not() {
    let certificates = Certificates::new();
    let (server, _) = certificates.serve().await;
    for (versions, protocols) in [
        (&BOTH[1..], &[&b"http/1.1"[..]][..]),
        (BOTH, &[]),
        (BOTH, &[&b"h2"[..], b"http/1.1"]),
    ] {
        let stream = certificates.connect(&server, versions, protocols).await;
        let mut stream = stream.unwrap();
        stream
            .write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{versions:?}");
    }
    assert!(certificates.connect(&server, BOTH, &[b"h2"]).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stands_still_is_given_up() {
    let certificates = Certificates::new();
    let (server, _) = certificates.serve().await;
    let started = Instant::now();
    let mut silent = server.connect().await;
    let mut begun = server.connect().await;
    // The head of a handshake record whose body never comes.
    begun.write(&[0x16, 0x03, 0x01, 0x02, 0x00]).await;
    let closed = async { tokio::join!(silent.closes(), begun.closes()) };
    let closed = tokio::time::timeout(Duration::from_secs(15), closed).await;
    assert_eq!(closed.unwrap(), (true, true));
    assert!(started.elapsed() >= Duration::from_secs(4));
    // One that is under way does not keep the server from stopping.
    let _silent = server.connect().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_without_closing_a_connection() {
    let mut certificates = Certificates::new();
    let (server, tls) = certificates.serve().await;
    let old = certificates.client(&server);
    let mut events = old.watch().from(1).prefix("k").open().await.unwrap();
    old.put("k", "before").send().await.unwrap();
    assert_eq!(next_value(&mut events).await.as_deref(), Some("before"));
    certificates.renew();
    tls.reload().unwrap();
    let new = certificates.client(&server);
    new.put("k", "after").send().await.unwrap();
    // The watch stands since before: opened again it would find a certificate that it does not believe.
    assert_eq!(next_value(&mut events).await.as_deref(), Some("after"));

    // Files that do not belong together change nothing.
    let others = Certificates::new();
    std::fs::copy(others.key(), certificates.key()).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, HttpTlsError::Mismatch { .. }), "{error}");
    std::fs::write(certificates.certificate(), "nothing").unwrap();
    assert!(matches!(tls.reload(), Err(HttpTlsError::Malformed { .. })));
    std::fs::remove_file(certificates.key()).unwrap();
    assert!(tls.reload().is_err());
    assert!(certificates.load().is_err());
    let fresh = certificates.client(&server);
    let read = fresh.get("k").send().await.unwrap().unwrap();
    assert_eq!(read.bytes, "after");
    drop(events);
    server.stop().await;
}
