//! TLS towards clients: this node's certificate, how long a handshake may take, and taking a new certificate into use.
//!
//! The client is not asked for a certificate: TLS here says who the node is and keeps others from listening, not who
//! may write. TLS 1.3 and 1.2 (for clients that have nothing newer), one crypto provider, HTTP/1.1. What nodes believe
//! about each other is in [`crate::peer`] and shares nothing with this but the library.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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

/// The certificate the HTTP API shows.
pub struct HttpTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl HttpTls {
    /// Reads a certificate chain (this node's first) and its private key, both PEM.
    ///
    /// # Errors
    /// A file cannot be read or is no PEM, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<HttpTls, HttpTlsError> {
        let config = read(certificate, key)?;
        Ok(HttpTls {
            certificate: certificate.to_path_buf(),
            key: key.to_path_buf(),
            current: RwLock::new(Arc::new(config)),
        })
    }

    /// Reads the files again; connections made from now on see what they hold. Those that stand go on with the old
    /// certificate.
    ///
    /// # Errors
    /// As [`HttpTls::load`]; nothing changes then.
    pub fn reload(&self) -> Result<(), HttpTlsError> {
        let config = read(&self.certificate, &self.key)?;
        *self.current.write() = Arc::new(config);
        Ok(())
    }

    /// Greets a client.
    ///
    /// # Errors
    /// The client is no TLS client, does not believe the certificate, or takes longer than
    /// [`limits::HTTP_TLS_HANDSHAKE_TIMEOUT_MS`].
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.read()));
        let deadline = Duration::from_millis(limits::HTTP_TLS_HANDSHAKE_TIMEOUT_MS);
        match tokio::time::timeout(deadline, acceptor.accept(stream)).await {
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

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, HttpTlsError> {
    let malformed = |what, path: &Path, text: String| HttpTlsError::Malformed {
        what,
        path: path.to_path_buf(),
        text,
    };
    let pem = read_file(CERTIFICATE, certificate)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(CERTIFICATE, certificate, error.to_string()))?;
    if chain.is_empty() {
        let text = "it holds no certificate".to_owned();
        return Err(malformed(CERTIFICATE, certificate, text));
    }
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
    Ok(config)
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
