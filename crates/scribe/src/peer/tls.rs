//! TLS between nodes: who this node is, whom it believes, and what a failed handshake means.
//!
//! TLS 1.3 only, one crypto provider, no session resumption: connections live long, and a resumed session would carry
//! a certificate that may have been replaced since. A client certificate is optional for TLS itself, because a node
//! that joins has none; the server refuses every other lane without one. Reads no files: PEM texts come from
//! the caller.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::pki::{PeerName, fingerprint};
use super::{PkiError, RefusalCode};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A text is no PEM of the kind expected.
    #[error("not a valid {what}: {text}")]
    Malformed {
        /// Certificate chain, private key, CA certificates.
        what: &'static str,
        /// What is wrong.
        text: String,
    },
    /// The certificate says nothing about who this is.
    #[error(transparent)]
    Name(#[from] PkiError),
    /// Certificate and key, or certificate and CA, do not belong together.
    #[error("certificate, key and CA do not belong together: {0}")]
    Mismatch(rustls::Error),
    /// The new certificate is another node's.
    #[error("the new certificate is for {found}, this node is {expected}")]
    OtherNode {
        /// Name in the new certificate.
        found: String,
        /// Name of this node.
        expected: String,
    },
}

/// A node's certificate chain and key, and the CAs it believes.
pub struct TlsIdentity {
    name: PeerName,
    current: RwLock<Arc<Material>>,
}

struct Material {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    expires_ms: u64,
}

impl TlsIdentity {
    /// Takes the chain as [`super::ClusterCa::issue`] returned it (node certificate first, then the CA's, which a
    /// joining node needs to see), the node's key, and the certificates of the CAs to believe.
    pub fn from_pem(chain_pem: &str, key_pem: &str, ca_pem: &str) -> Result<TlsIdentity, TlsError> {
        let (name, material) = material(chain_pem, key_pem, ca_pem)?;
        Ok(TlsIdentity {
            name,
            current: RwLock::new(Arc::new(material)),
        })
    }

    /// Uses other certificates from now on. Connections that stand go on with the old ones; new ones use the new. On
    /// an error nothing changes.
    pub fn reload(&self, chain_pem: &str, key_pem: &str, ca_pem: &str) -> Result<(), TlsError> {
        let (name, material) = material(chain_pem, key_pem, ca_pem)?;
        if name != self.name {
            return Err(TlsError::OtherNode {
                found: name.uri(),
                expected: self.name.uri(),
            });
        }
        *self.current.write() = Arc::new(material);
        Ok(())
    }

    /// Who the certificate says this is.
    pub fn name(&self) -> PeerName {
        self.name
    }

    /// When the certificate ends, in milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        self.current.read().expires_ms
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().server)
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().client)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("name", &self.name.uri())
            .finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Malformed {
            what,
            text: error.to_string(),
        })?;
    if found.is_empty() {
        return Err(TlsError::Malformed {
            what,
            text: "it holds no certificate".to_owned(),
        });
    }
    Ok(found)
}

fn material(
    chain_pem: &str,
    key_pem: &str,
    ca_pem: &str,
) -> Result<(PeerName, Material), TlsError> {
    let chain = certificates(chain_pem, "certificate chain")?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| TlsError::Malformed {
            what: "private key",
            text: error.to_string(),
        })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem, "CA certificate")? {
        roots.add(certificate).map_err(TlsError::Mismatch)?;
    }
    let roots = Arc::new(roots);
    let name = PeerName::of_certificate(&chain[0])?;
    let (begins_ms, expires_ms) = validity(&chain[0])?;
    // Whether it belongs to the CA, as of its own first second: whether it has expired is for the other side to say,
    // and no reason not to start.
    signed_by(&chain[0], &chain[1..], &roots, begins_ms / 1_000 + 1).map_err(TlsError::Mismatch)?;

    let versions = &[&rustls::version::TLS13];
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Malformed {
            what: "CA certificate",
            text: error.to_string(),
        })?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Mismatch)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(TlsError::Mismatch)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Mismatch)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Mismatch)?;
    client.resumption = Resumption::disabled();
    let material = Material {
        server: Arc::new(server),
        client: Arc::new(client),
        expires_ms,
    };
    Ok((name, material))
}

/// First and last millisecond since 1970 at which a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), TlsError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| TlsError::Malformed {
            what: "certificate chain",
            text: error.to_string(),
        })?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    let validity = parsed.validity();
    Ok((
        ms(validity.not_before.timestamp()),
        ms(validity.not_after.timestamp()),
    ))
}

fn signed_by(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    at_seconds: u64,
) -> Result<(), rustls::Error> {
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &rustls::server::ParsedCertificate::try_from(certificate)?,
        roots,
        intermediates,
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(at_seconds)),
        provider().signature_verification_algorithms.all,
    )
}

/// The configuration of a node that has no certificate and knows nothing of the cluster but its CA's fingerprint.
pub(super) fn joining(ca_fingerprint: [u8; 32]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa {
            fingerprint: ca_fingerprint,
            provider: provider(),
        }))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// Believes a server whose chain ends in the one CA with this fingerprint. The server's name is not compared: who
/// joins knows an address, not which node is there, and any node of the cluster may answer.
#[derive(Debug)]
struct PinnedCa {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        signed_by(end_entity, intermediates, &roots, now.as_secs())?;
        // A node's certificate, not anything else the CA may have signed.
        PeerName::of_certificate(end_entity)
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What an I/O error of a TLS stream says about the two nodes, if it is more than a broken connection.
pub(super) fn refusal(error: &io::Error) -> Option<(RefusalCode, String)> {
    use AlertDescription as Alert;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let code = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => RefusalCode::WrongTarget,
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => RefusalCode::Certificate,
        _ => RefusalCode::Tls,
    };
    let text = match error {
        rustls::Error::AlertReceived(_) => format!("the other node refused: {error}"),
        _ => error.to_string(),
    };
    Some((code, text))
}
