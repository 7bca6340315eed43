//! What a member of a cluster keeps beside its keys: who it is, the cluster's CA, its certificate, and the tokens it
//! gave out.
//!
//! ```text
//! <key dir>/cluster.toml     cluster id, node id, the members a new cluster begins with
//!           cluster-ca.pem   certificate of the cluster CA        cluster-ca.key   its private key
//!           node.pem         this node's certificate chain        node-tls.key     its private key
//!           join-tokens      hashes of the join tokens given out, and which were used
//!           started          there is, or was, a data directory with entries of this node
//! ```
//!
//! `cluster.toml` is written last: a directory that has it has everything. Every file is readable by its owner only.
//! Each member holds the CA's key, so that a new node can join while any member is up; whoever reads one member's key
//! directory can therefore make certificates, as it can sign as the ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use scribe_proof::key::{KeyType, SigningKey};
use serde::{Deserialize, Serialize};

use crate::consensus::{NodeId, PeerAddress};
use crate::hex::hex;
use crate::keys::{self, KeyError, LEDGER_KEY_FILE};
use crate::limits;
use crate::peer::{ClusterCa, NodeKey, PkiError, TlsError, TlsIdentity};
use crate::world::World;

/// Says who a member is.
pub const CLUSTER_FILE: &str = "cluster.toml";
const CA_CERTIFICATE_FILE: &str = "cluster-ca.pem";
const CA_KEY_FILE: &str = "cluster-ca.key";
/// Certificate chain of the node.
pub const CERTIFICATE_FILE: &str = "node.pem";
const TLS_KEY_FILE: &str = "node-tls.key";
const STARTED_FILE: &str = "started";

/// Longest of these files that is read.
const FILE_LENGTH_MAX: u64 = 256 * 1_024;
/// How long a node's certificate is valid. `scribe cluster renew` makes another at any time.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// Why these files cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system refused, or others may read a file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file is missing or damaged.
    #[error("`{}` {rule}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is a cluster already.
    #[error("`{}` is already a member's key directory: node {node_id}", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        node_id: NodeId,
    },
}

/// One member's files.
#[derive(Debug, Clone)]
pub struct ClusterFiles {
    dir: PathBuf,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// This node.
    pub node_id: NodeId,
    /// The voters a new cluster begins with, identical on each of them; empty for a node that joined, or that was alone.
    pub members: BTreeMap<NodeId, PeerAddress>,
    /// Whether it joined a cluster that was there already: then it never begins one.
    pub joined: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterToml {
    version: u32,
    cluster_id: String,
    node_id: NodeId,
    #[serde(default)]
    joined: bool,
    #[serde(default, rename = "member")]
    members: Vec<MemberToml>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberToml {
    node_id: NodeId,
    raft_addr: String,
    http_addr: String,
}

/// What a new member's key directory is made of.
#[derive(Debug)]
pub struct NewMember<'a> {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The member.
    pub node_id: NodeId,
    /// The voters a new cluster begins with; empty otherwise.
    pub members: &'a BTreeMap<NodeId, PeerAddress>,
    /// Whether it joins a cluster that is there already.
    pub joined: bool,
    /// CA certificate, PEM.
    pub ca_certificate: &'a str,
    /// CA key, PEM.
    pub ca_key: &'a str,
    /// Certificate chain of the member, PEM.
    pub certificate: &'a str,
    /// Its private key, PEM.
    pub tls_key: &'a str,
    /// The ledger's signing key as text, unless the directory has it already.
    pub ledger_key: Option<&'a str>,
    /// Keys that still sign beside it.
    pub more_ledger_keys: &'a [String],
}

impl ClusterFiles {
    /// The files in a key directory, if it is a member's.
    ///
    /// # Errors
    /// A damaged file, or one that others may read.
    pub fn load(dir: &Path) -> Result<Option<Self>, FilesError> {
        let path = dir.join(CLUSTER_FILE);
        let Some(text) = keys::read_private(&path, FILE_LENGTH_MAX)? else {
            return Ok(None);
        };
        match Self::parse(dir, &text) {
            Ok(files) => Ok(Some(files)),
            Err(rule) => Err(FilesError::Damaged { path, rule }),
        }
    }

    /// Reads the text of [`CLUSTER_FILE`]; the error is the rule it breaks.
    pub(super) fn parse(dir: &Path, text: &str) -> Result<Self, String> {
        let parsed: ClusterToml =
            toml::from_str(text).map_err(|error| format!("is damaged: {error}"))?;
        if parsed.version != 1 {
            return Err(format!("has version {}, allowed is 1", parsed.version));
        }
        let cluster_id = parse_cluster_id(&parsed.cluster_id)
            .ok_or("has no cluster id of 32 hexadecimal digits")?;
        let members = parsed
            .members
            .into_iter()
            .map(|member| {
                let address = PeerAddress {
                    raft_addr: member.raft_addr,
                    http_addr: member.http_addr,
                };
                (member.node_id, address)
            })
            .collect();
        Ok(Self {
            dir: dir.to_owned(),
            cluster_id,
            node_id: parsed.node_id,
            members,
            joined: parsed.joined,
        })
    }

    /// The text of [`CLUSTER_FILE`].
    pub(super) fn text_of(
        cluster_id: [u8; 16],
        node_id: NodeId,
        joined: bool,
        members: &BTreeMap<NodeId, PeerAddress>,
    ) -> Result<String, String> {
        let toml = ClusterToml {
            version: 1,
            cluster_id: hex(&cluster_id),
            node_id,
            joined,
            members: members
                .iter()
                .map(|(node_id, address)| MemberToml {
                    node_id: *node_id,
                    raft_addr: address.raft_addr.clone(),
                    http_addr: address.http_addr.clone(),
                })
                .collect(),
        };
        toml::to_string(&toml).map_err(|error| error.to_string())
    }

    /// Makes a member's key directory. A crash before the end leaves a directory that is no member's; making it again
    /// replaces what is there.
    ///
    /// # Errors
    /// The directory is a member's already, or the system refused.
    pub fn create(dir: &Path, new: &NewMember<'_>) -> Result<Self, FilesError> {
        if let Some(existing) = Self::load(dir)? {
            return Err(FilesError::Exists {
                path: dir.to_owned(),
                node_id: existing.node_id,
            });
        }
        keys::create_dir(dir)?;
        if let Some(ledger_key) = new.ledger_key {
            let key = SigningKey::parse(ledger_key.trim_end_matches('\n'))
                .ok()
                .filter(|key| key.verifier_key().key_type() == KeyType::Ed25519)
                .ok_or_else(|| FilesError::Damaged {
                    path: dir.join(LEDGER_KEY_FILE),
                    rule: "was given as something that is no ledger key".to_owned(),
                })?;
            keys::write_new_key(&dir.join(LEDGER_KEY_FILE), &key)?;
            // Nothing was signed with these keys by this node, and it says so from the beginning.
            keys::begin_record(dir, key.name())?;
            for text in new.more_ledger_keys {
                keys::write_further_key(dir, text)?;
            }
        }
        for (name, text) in [
            (CA_CERTIFICATE_FILE, new.ca_certificate),
            (CA_KEY_FILE, new.ca_key),
            (CERTIFICATE_FILE, new.certificate),
            (TLS_KEY_FILE, new.tls_key),
        ] {
            keys::put_private(&dir.join(name), text.as_bytes())?;
        }
        let path = dir.join(CLUSTER_FILE);
        let text = Self::text_of(new.cluster_id, new.node_id, new.joined, new.members);
        let text = text.map_err(|rule| FilesError::Damaged {
            path: path.clone(),
            rule,
        })?;
        // Last: a directory that has it has everything.
        keys::put_private(&path, text.as_bytes())?;
        Ok(Self {
            dir: dir.to_owned(),
            cluster_id: new.cluster_id,
            node_id: new.node_id,
            members: new.members.clone(),
            joined: new.joined,
        })
    }

    fn text(&self, name: &str) -> Result<String, FilesError> {
        let path = self.dir.join(name);
        keys::read_private(&path, FILE_LENGTH_MAX)?.ok_or_else(|| FilesError::Damaged {
            path,
            rule: "is missing".to_owned(),
        })
    }

    /// The node's certificate and key, and the CA it believes.
    ///
    /// # Errors
    /// Missing, damaged or mismatched files.
    pub fn tls_identity(&self) -> Result<Arc<TlsIdentity>, FilesError> {
        let (chain, key, ca) = self.tls_texts()?;
        Ok(Arc::new(TlsIdentity::from_pem(&chain, &key, &ca)?))
    }

    /// Takes certificates that were replaced on disk into use, for new connections.
    ///
    /// # Errors
    /// As [`Self::tls_identity`], and a certificate of another node; nothing changes then.
    pub fn reload(&self, identity: &TlsIdentity) -> Result<(), FilesError> {
        let (chain, key, ca) = self.tls_texts()?;
        Ok(identity.reload(&chain, &key, &ca)?)
    }

    fn tls_texts(&self) -> Result<(String, String, String), FilesError> {
        Ok((
            self.text(CERTIFICATE_FILE)?,
            self.text(TLS_KEY_FILE)?,
            self.text(CA_CERTIFICATE_FILE)?,
        ))
    }

    /// The cluster CA.
    ///
    /// # Errors
    /// Missing or damaged files.
    pub fn ca(&self) -> Result<ClusterCa, FilesError> {
        let (certificate, key) = (self.text(CA_CERTIFICATE_FILE)?, self.text(CA_KEY_FILE)?);
        Ok(ClusterCa::from_pem(&certificate, &key)?)
    }

    /// Texts of the CA's certificate and key, for a node that joins.
    ///
    /// # Errors
    /// Missing files.
    pub fn ca_texts(&self) -> Result<(String, String), FilesError> {
        Ok((self.text(CA_CERTIFICATE_FILE)?, self.text(CA_KEY_FILE)?))
    }

    /// Makes a new certificate and key for this node and puts them in place of the old ones.
    ///
    /// # Errors
    /// Missing or damaged files, and what the system refused.
    pub fn renew(&self, world: &World) -> Result<(), FilesError> {
        let ca = self.ca()?;
        let key = NodeKey::generate()?;
        let chain = ca.issue(
            self.node_id,
            &key.request_pem()?,
            world,
            CERTIFICATE_VALIDITY,
        )?;
        // A crash between the two leaves a certificate with another key: the next start says so, and renewing again
        // mends it.
        keys::put_private(&self.dir.join(TLS_KEY_FILE), key.secret_pem().as_bytes())?;
        keys::put_private(&self.dir.join(CERTIFICATE_FILE), chain.as_bytes())?;
        Ok(())
    }

    /// The key directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether this node ever had a data directory.
    pub fn has_started(&self) -> bool {
        self.dir.join(STARTED_FILE).exists()
    }

    /// Remembers that there is a data directory now: should it be gone one day, the node must not come back under the
    /// same id with an empty one, because others count on what it promised.
    ///
    /// # Errors
    /// The system refused.
    pub fn mark_started(&self) -> Result<(), FilesError> {
        if !self.has_started() {
            keys::put_private(&self.dir.join(STARTED_FILE), b"")?;
        }
        Ok(())
    }
}

/// Makes the key directories of a cluster that begins with these voters: one ledger key and one CA, a certificate each.
/// `directory` says where each member's goes.
///
/// # Errors
/// Too few or too many members, a directory that is in use, and what the system refused.
pub fn create_cluster(
    members: &BTreeMap<NodeId, PeerAddress>,
    origin: Option<&str>,
    world: &World,
    directory: impl Fn(NodeId) -> PathBuf,
) -> Result<[u8; 16], FilesError> {
    debug_assert!(members.len() <= limits::BOOTSTRAP_MEMBERS_MAX);
    let cluster_id: [u8; 16] = world.random();
    let ca = ClusterCa::create(cluster_id, world)?;
    let ca_key = ca.secret_pem();
    let ledger_key = keys::new_ledger_key(origin)?.to_text();
    for node_id in members.keys() {
        let key = NodeKey::generate()?;
        let chain = ca.issue(*node_id, &key.request_pem()?, world, CERTIFICATE_VALIDITY)?;
        let new = NewMember {
            cluster_id,
            node_id: *node_id,
            members,
            joined: false,
            ca_certificate: ca.certificate_pem(),
            ca_key: &ca_key,
            certificate: &chain,
            tls_key: &key.secret_pem(),
            ledger_key: Some(&ledger_key),
            more_ledger_keys: &[],
        };
        ClusterFiles::create(&directory(*node_id), &new)?;
    }
    Ok(cluster_id)
}

/// Makes the key directory of a node that runs alone a member's, so that others can join it.
///
/// # Errors
/// As [`ClusterFiles::create`].
pub fn create_for_one(
    key_dir: &Path,
    cluster_id: [u8; 16],
    node_id: NodeId,
    world: &World,
) -> Result<ClusterFiles, FilesError> {
    let ca = ClusterCa::create(cluster_id, world)?;
    let key = NodeKey::generate()?;
    let chain = ca.issue(node_id, &key.request_pem()?, world, CERTIFICATE_VALIDITY)?;
    ClusterFiles::create(
        key_dir,
        &NewMember {
            cluster_id,
            node_id,
            members: &BTreeMap::new(),
            joined: false,
            ca_certificate: ca.certificate_pem(),
            ca_key: &ca.secret_pem(),
            certificate: &chain,
            tls_key: &key.secret_pem(),
            ledger_key: None,
            more_ledger_keys: &[],
        },
    )
}

fn parse_cluster_id(text: &str) -> Option<[u8; 16]> {
    // Digits and nothing else: a plus sign is read as part of a number.
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}
