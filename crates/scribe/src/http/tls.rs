//! TLS towards clients: this node's certificate, how long a handshake may take, and taking a new certificate into use.
//!
//! The client is not asked for a certificate: TLS here says who the node is and keeps others from listening, not who
//! may write. TLS 1.3 and 1.2 (for clients that have nothing newer), one crypto provider, HTTP/1.1. What nodes believe
//! about each other is in [`crate::peer`] and shares nothing with this but the library.
//!
//! A client that comes with plain HTTP is told so in plain HTTP: its own error would speak of a broken connection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use scribe_client::wire::MEDIA_PROBLEM;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::error::ApiError;
use crate::limits;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpTlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} `{}`: {source}", path.display())]
    Read {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("the {what} must be PEM: `{}` is not, {text}", path.display())]
    Malformed {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error(
        "certificate and private key must belong together: `{}` and `{}` do not, {text}",
        certificate.display(),
        key.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        text: String,
    },
}

/// How the load generator reaches a node over TLS: the library is named here alone.
#[derive(Clone)]
pub struct TlsTarget {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for TlsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsTarget({:?})", self.name)
    }
}

impl TlsTarget {
    /// A node of this host name or IP address, believed if one of the CAs in `ca_pem` vouches for it.
    ///
    /// # Errors
    /// A text for people: no certificate in the PEM, or no name.
    pub fn new(host: &str, ca_pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("a file of CAs holds at least one PEM certificate, found none".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// Shakes hands over a connection.
    ///
    /// # Errors
    /// The other side is no TLS server, or is not believed.
    pub async fn connect(
        &self,
        stream: TcpStream,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// The certificate the HTTP API shows.
pub struct HttpTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<Material>>,
}

struct Material {
    config: Arc<ServerConfig>,
    expires_ms: u64,
}

impl HttpTls {
    /// Reads a certificate chain (this node's first) and its private key, both PEM.
    ///
    /// # Errors
    /// A file cannot be read or is no PEM, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<HttpTls, HttpTlsError> {
        let material = read(certificate, key)?;
        Ok(HttpTls {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            current: RwLock::new(Arc::new(material)),
        })
    }

    /// Reads the files again; connections made from now on see what they hold. Those that stand go on with the old
    /// certificate.
    ///
    /// # Errors
    /// As [`HttpTls::load`]; nothing changes then.
    pub fn reload(&self) -> Result<(), HttpTlsError> {
        let material = read(&self.certificate, &self.key)?;
        *self.current.write() = Arc::new(material);
        Ok(())
    }

    /// When the certificate in use ends, in milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        self.current.read().expires_ms
    }

    /// Greets a client.
    ///
    /// # Errors
    /// The client is no TLS client (one that speaks HTTP was told), does not believe the certificate, or takes longer than
    /// [`limits::HTTP_TLS_HANDSHAKE_TIMEOUT_MS`].
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.read().config));
        let deadline = Duration::from_millis(limits::HTTP_TLS_HANDSHAKE_TIMEOUT_MS);
        let accepted = async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            // A handshake begins with byte 0x16, a request with the letters of its method.
            if first[0].is_ascii_alphabetic() {
                return Err(refuse_plain(stream).await);
            }
            acceptor.accept(stream).await
        };
        match tokio::time::timeout(deadline, accepted).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl fmt::Debug for HttpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTls")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Tells a client that speaks plain HTTP what this port speaks. The caller bounds how long that may take.
async fn refuse_plain(mut stream: TcpStream) -> io::Error {
    let problem = ApiError::bad_request("this port speaks TLS, the request came in plain HTTP")
        .hint("use https:// in the URL")
        .into_problem();
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let reply = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_PROBLEM}\r\ncontent-length: {}\r\nconnection: close\r\n\
         cache-control: no-store\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes may overtake the answer.
        let mut discarded = [0_u8; 8_192];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    match told.await {
        Ok(()) => io::Error::other("the client spoke plain HTTP"),
        Err(error) => error,
    }
}

/// When the first certificate of a PEM file ends, in milliseconds since 1970.
///
/// # Errors
/// The file cannot be read, or is no PEM file with a certificate.
pub fn certificate_expires_ms(path: &Path) -> Result<u64, HttpTlsError> {
    read_chain(path).map(|(_, expires_ms)| expires_ms)
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";

fn malformed(what: &'static str, path: &Path, text: String) -> HttpTlsError {
    HttpTlsError::Malformed {
        what,
        path: path.to_path_buf(),
        text,
    }
}

/// The certificates of a file, and when the first of them ends.
fn read_chain(path: &Path) -> Result<(Vec<CertificateDer<'static>>, u64), HttpTlsError> {
    let pem = read_file(CERTIFICATE, path)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(CERTIFICATE, path, error.to_string()))?;
    let Some(first) = chain.first() else {
        let text = "it holds no certificate".to_owned();
        return Err(malformed(CERTIFICATE, path, text));
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(first)
        .map_err(|error| malformed(CERTIFICATE, path, error.to_string()))?;
    let seconds = parsed.validity().not_after.timestamp();
    let expires_ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    Ok((chain, expires_ms))
}

fn read(certificate: &Path, key: &Path) -> Result<Material, HttpTlsError> {
    let (chain, expires_ms) = read_chain(certificate)?;
    let private_key = PrivateKeyDer::from_pem_slice(&read_file(KEY, key)?)
        .map_err(|error| malformed(KEY, key, error.to_string()))?;
    let mismatch = |error: rustls::Error| HttpTlsError::Mismatch {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        text: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(mismatch)?;
    // A client that offers only HTTP/2 is refused in the handshake, where it can tell why.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Material {
        config: Arc::new(config),
        expires_ms,
    })
}

/// A file of at most [`limits::PEM_LENGTH_MAX`] bytes.
fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, HttpTlsError> {
    let bounded = || {
        let length = std::fs::metadata(path)?.len();
        if length > limits::PEM_LENGTH_MAX {
            let text = format!(
                "it is {length} bytes long, allowed are {}",
                limits::PEM_LENGTH_MAX
            );
            return Err(io::Error::other(text));
        }
        std::fs::read(path)
    };
    bounded().map_err(|source| HttpTlsError::Read {
        what,
        path: path.to_path_buf(),
        source,
    })
}
