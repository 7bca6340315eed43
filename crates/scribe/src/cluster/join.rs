//! The joining side of a join: a new node shows its token to a member and becomes a member itself.
//!
//! The member is known by the fingerprint of the cluster CA in the token, so nothing else has to be trusted; what comes
//! back (certificate, CA, ledger key) travels inside that TLS connection only. Afterwards the key directory is a
//! member's, and the node starts like any other.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;

use super::files::{ClusterFiles, FilesError, NewMember};
use super::wire::{JoinAnswer, JoinRequest, kind};
use crate::consensus::PeerAddress;
use crate::peer::{CallError, JoinToken, NodeKey, PeerTimeouts, join_call, join_call_plain};

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No member in the token answered.
    #[error("no member in the token could be reached: {0}")]
    Unreachable(String),
    /// The member said no.
    #[error("{0}")]
    Refused(String),
    /// It may have been let in, but the answer is lost.
    #[error("the answer was lost: {0}")]
    Lost(String),
    /// The answer cannot be used.
    #[error("the answer cannot be used: {0}")]
    Malformed(String),
    /// Keys cannot be made or kept.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl JoinError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(_) => Some("make a new token on a member with `scribe cluster token`"),
            Self::Lost(_) => Some(
                "look at `scribe cluster status` on a member, remove the node that never came, and use a new token",
            ),
            Self::Unreachable(_) => {
                Some("check that the member runs and its Raft port can be reached from here")
            }
            Self::Malformed(_) | Self::Files(_) => None,
        }
    }
}

/// Joins the cluster of `token` as a new node reached at `address`, and makes `key_dir` its key directory. A directory
/// that is a member's already is left as it is.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(
    key_dir: &Path,
    token: &JoinToken,
    address: &PeerAddress,
) -> Result<ClusterFiles, JoinError> {
    if let Some(files) = ClusterFiles::load(key_dir)? {
        return Ok(files);
    }
    let key = NodeKey::generate().map_err(FilesError::from)?;
    let request = JoinRequest {
        secret: token.secret.to_vec().into(),
        raft_addr: address.raft_addr.clone(),
        http_addr: address.http_addr.clone(),
        certificate_request: key.request_pem().map_err(FilesError::from)?,
    };
    let answer = ask(token, &request).await?;
    let cluster_id = answer
        .cluster_id
        .as_ref()
        .try_into()
        .map_err(|_| JoinError::Malformed("a cluster id is 16 bytes".to_owned()))?;
    let files = ClusterFiles::create(
        key_dir,
        &NewMember {
            cluster_id,
            node_id: answer.node_id,
            members: &BTreeMap::new(),
            joined: true,
            ca_certificate: &answer.ca_certificate,
            ca_key: &answer.ca_key,
            certificate: &answer.certificate,
            tls_key: &key.secret_pem(),
            ledger_key: Some(&answer.ledger_key),
            more_ledger_keys: &answer.more_ledger_keys,
        },
    )?;
    Ok(files)
}

async fn ask(token: &JoinToken, request: &JoinRequest) -> Result<JoinAnswer, JoinError> {
    let timeouts = PeerTimeouts::default();
    let mut failures = Vec::new();
    for address in &token.addresses {
        let body = request.encode_to_vec().into();
        let asked = if token.ca_fingerprint == [0; 32] {
            join_call_plain(address, kind::JOIN, body, &timeouts).await
        } else {
            join_call(address, token.ca_fingerprint, kind::JOIN, body, &timeouts).await
        };
        match asked {
            Ok(body) => {
                return JoinAnswer::read(body)
                    .map_err(|error| JoinError::Malformed(error.to_string()));
            }
            Err(CallError::Remote { text, .. }) => return Err(JoinError::Refused(text)),
            Err(error @ (CallError::Lost { .. } | CallError::TimedOut)) => {
                return Err(JoinError::Lost(error.to_string()));
            }
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(JoinError::Unreachable(failures.join("; ")))
}
