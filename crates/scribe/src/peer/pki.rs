//! The cluster's own certificate authority and the certificates of its nodes.
//!
//! ```text
//! CA    self-signed, ECDSA P-256; lives where `cluster init` put it, signs nodes and nothing else
//! node  key made on the node and never leaves it; certificate names  scribe://<cluster id>/node/<id>
//!                                                             and    n<id>.<cluster id>.scribe.internal
//! ```
//!
//! The URI says who a node is; the DNS name is what TLS libraries compare with the name a client asks for, so that a
//! client reaches the node it means or none. Does no I/O and has no clock: the caller keeps the PEM texts and says what
//! time it is. Randomness of keys is the crypto provider's, from the system.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use scribe_proof::hash::sha256;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;

use super::NodeId;
use crate::hex::Hex;
use crate::world::World;

/// How long a CA is valid: longer than anybody wants to think about it.
const CA_VALIDITY: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
/// Certificates are valid from this long before they were made: clocks of nodes differ.
const BACKDATED_MS: u64 = 60 * 60 * 1_000;

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// The text is not what it should be.
    #[error("not a valid {what}: {text}")]
    Malformed {
        /// CA certificate, CA key, node key, certificate request …
        what: &'static str,
        /// What is wrong.
        text: String,
    },
    /// Key and certificate do not belong together.
    #[error("the key is not the one of the {0} certificate")]
    WrongKey(&'static str),
    /// A point in time that no certificate can carry.
    #[error("no certificate can be valid at {0} ms after 1970")]
    Time(u64),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}

fn malformed(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |error| PkiError::Malformed {
        what,
        text: error.to_string(),
    }
}

/// Who a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerName {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The node.
    pub node_id: NodeId,
}

impl PeerName {
    /// The name in the certificate that says who this is.
    pub fn uri(&self) -> String {
        format!("scribe://{}/node/{}", Hex(&self.cluster_id), self.node_id)
    }

    /// The name a client asks for in the TLS handshake.
    pub fn dns(&self) -> String {
        format!(
            "n{}.{}.scribe.internal",
            self.node_id,
            Hex(&self.cluster_id)
        )
    }

    /// Reads it from a certificate (DER). Says nothing about who signed it.
    pub fn of_certificate(der: &[u8]) -> Result<PeerName, PkiError> {
        let wrong = |text: &str| PkiError::Malformed {
            what: "node certificate",
            text: text.to_owned(),
        };
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| wrong(&error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| wrong(&error.to_string()))?
            .ok_or_else(|| wrong("it carries no alternative names"))?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(wrong(
                "it must carry exactly one URI, scribe://<cluster>/node/<id>",
            ));
        };
        PeerName::parse(uri)
            .ok_or_else(|| wrong("its URI is not of the form scribe://<cluster>/node/<id>"))
    }

    fn parse(uri: &str) -> Option<PeerName> {
        let (cluster, node) = uri.strip_prefix("scribe://")?.split_once("/node/")?;
        let mut cluster_id = [0; 16];
        if cluster.len() != 32 || !cluster.is_ascii() {
            return None;
        }
        for (byte, pair) in cluster_id.iter_mut().zip(cluster.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let name = PeerName {
            cluster_id,
            node_id: node.parse().ok()?,
        };
        // One spelling only: no plus sign, no leading zeros, no upper case.
        (name.uri() == uri).then_some(name)
    }
}

/// The private key of one node. Made on the node; only its request leaves.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new key.
    pub fn generate() -> Result<NodeKey, PkiError> {
        Ok(NodeKey(KeyPair::generate()?))
    }

    /// Reads back what [`NodeKey::secret_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<NodeKey, PkiError> {
        Ok(NodeKey(
            KeyPair::from_pem(pem).map_err(malformed("node key"))?,
        ))
    }

    /// The private key. Only for a file its owner alone can read.
    pub fn secret_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A certificate request: the public key, signed by itself to prove that the private one is there.
    pub fn request_pem(&self) -> Result<String, PkiError> {
        let mut params = CertificateParams::default();
        // Names are the CA's to give; a request carries none.
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.pem()?)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

/// The cluster's certificate authority, with its private key.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    cluster_id: [u8; 16],
}

impl ClusterCa {
    /// Makes the CA of a new cluster.
    pub fn create(cluster_id: [u8; 16], world: &World) -> Result<ClusterCa, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(
            DnType::CommonName,
            format!("scribe cluster {}", Hex(&cluster_id)),
        );
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        // Read back by `from_pem`: a CA belongs to one cluster.
        params.subject_alt_names = vec![SanType::URI(ia5(&ca_uri(&cluster_id))?)];
        valid(&mut params, world.now_ms(), CA_VALIDITY)?;
        params.serial_number = Some(serial(world));
        let certificate = params.self_signed(&key)?;
        Ok(ClusterCa {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            cluster_id,
        })
    }

    /// Reads back what [`ClusterCa::certificate_pem`] and [`ClusterCa::secret_pem`] wrote.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<ClusterCa, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(malformed("CA key"))?;
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| {
                PkiError::Malformed {
                    what: "CA certificate",
                    text: error.to_string(),
                }
            })?;
        let cluster_id = cluster_of(&certificate, key.subject_public_key_info())?;
        Ok(ClusterCa {
            issuer: Issuer::from_ca_cert_der(&certificate, key)
                .map_err(malformed("CA certificate"))?,
            certificate_pem: certificate_pem.to_owned(),
            certificate,
            cluster_id,
        })
    }

    /// The certificate, for everybody.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key. Whoever has it can join the cluster as any node.
    pub fn secret_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The cluster it belongs to.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.cluster_id
    }

    /// SHA-256 of the certificate (DER): what a join token pins.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// Signs a node's certificate for the key of its request, which must prove that the node has the private key.
    /// What names the request asks for is ignored: the id is the caller's decision. The answer is the chain to give
    /// to [`super::TlsIdentity`]: node certificate, then CA.
    pub fn issue(
        &self,
        node_id: NodeId,
        request_pem: &str,
        world: &World,
        validity: Duration,
    ) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(malformed("certificate request"))?;
        let name = PeerName {
            cluster_id: self.cluster_id,
            node_id,
        };
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, format!("scribe node {node_id}"));
        params.distinguished_name = subject;
        params.subject_alt_names = vec![
            SanType::URI(ia5(&name.uri())?),
            SanType::DnsName(ia5(&name.dns())?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, world.now_ms(), validity)?;
        params.serial_number = Some(serial(world));
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.certificate_pem))
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa")
            .field("cluster_id", &Hex(&self.cluster_id).to_string())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate (DER).
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    *sha256(certificate.as_ref()).as_bytes()
}

/// SHA-256 of the CA certificate in a PEM text, as join tokens carry it.
pub fn fingerprint_of_pem(ca_pem: &str) -> Result<[u8; 32], PkiError> {
    let certificate =
        CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| PkiError::Malformed {
            what: "CA certificate",
            text: error.to_string(),
        })?;
    Ok(fingerprint(&certificate))
}

fn ca_uri(cluster_id: &[u8; 16]) -> String {
    format!("scribe://{}/ca", Hex(cluster_id))
}

/// The cluster a CA certificate names, if it is the certificate of this key.
fn cluster_of(certificate: &CertificateDer<'_>, spki: Vec<u8>) -> Result<[u8; 16], PkiError> {
    let wrong = |text: String| PkiError::Malformed {
        what: "CA certificate",
        text,
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| wrong(error.to_string()))?;
    if parsed.public_key().raw != spki {
        return Err(PkiError::WrongKey("CA"));
    }
    if !parsed.is_ca() {
        return Err(wrong("it may not sign other certificates".to_owned()));
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| wrong(error.to_string()))?;
    names
        .into_iter()
        .flat_map(|names| &names.value.general_names)
        .find_map(|name| match name {
            GeneralName::URI(uri) => {
                let cluster = uri.strip_suffix("/ca")?;
                PeerName::parse(&format!("{cluster}/node/0"))
            }
            _ => None,
        })
        .map(|name| name.cluster_id)
        .ok_or_else(|| wrong("it names no cluster (scribe://<cluster>/ca)".to_owned()))
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, PkiError> {
    Ok(rcgen::string::Ia5String::try_from(text)?)
}

/// Random and positive, as RFC 5280 wants it.
fn serial(world: &World) -> SerialNumber {
    let mut bytes: [u8; 16] = world.random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn valid(params: &mut CertificateParams, now_ms: u64, validity: Duration) -> Result<(), PkiError> {
    let end = now_ms.saturating_add(u64::try_from(validity.as_millis()).unwrap_or(u64::MAX));
    params.not_before = instant(now_ms.saturating_sub(BACKDATED_MS))?;
    params.not_after = instant(end)?;
    Ok(())
}

fn instant(ms: u64) -> Result<OffsetDateTime, PkiError> {
    i64::try_from(ms / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(PkiError::Time(ms))
}
