//! Who belongs to the cluster, and how that is changed: asked of any node, done by the one that leads.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use tokio::time::Instant;

use super::{Node, REQUEST_TIMEOUT, serving};
use crate::cluster::files::{CERTIFICATE_VALIDITY, FilesError};
use crate::cluster::wire::{
    AdminAnswer, AdminRequest, JoinAnswer, JoinRequest, StatusAnswer, admin, kind, parts,
};
use crate::consensus::{ConsensusError, Leadership, Member, NodeId, PeerAddress};
use crate::hex::hex;
use crate::peer::{
    CallError, JoinToken, Lane, Redeem, Server, ServerStats, TokenBook, TokenError, Wait,
};

/// How long each node has to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a change of membership may take: it may wait for an election and for entries to replicate.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a majority has to confirm the leader before it changes anything.
const MAJORITY_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before a change is asked for again while there is no leader.
const ADMIN_PAUSE: Duration = Duration::from_millis(200);

/// Why a change of the cluster was not made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It breaks a rule.
    #[error("{rule}")]
    Refused {
        /// The rule and what was found.
        rule: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It cannot be done now. It may or may not have been begun.
    #[error("{0}")]
    Unavailable(String),
    /// Tokens cannot be made or kept.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The files of this member cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl AdminError {
    /// What to do about it, if there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Token(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<ConsensusError> for AdminError {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::Refused(rule) => Self::Refused { rule, hint: None },
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A change an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Make a learner a voter.
    Promote(NodeId),
    /// Remove a member for good.
    Remove(NodeId),
    /// Put a learner in the place of a voter.
    Replace {
        /// The voter that leaves.
        old: NodeId,
        /// The learner that takes its place.
        by: NodeId,
    },
    /// Hand leadership to a voter.
    Transfer(NodeId),
}

/// One member, with what it says of itself.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// What the membership says.
    pub member: Member,
    /// What it says; an error if it did not answer.
    pub status: Result<StatusAnswer, String>,
}

impl Node {
    /// Whether this node is no member of a cluster: nobody can join it, and it has no peers.
    pub fn is_alone(&self) -> bool {
        self.inner.files.is_none()
    }

    /// The cluster this node is a member of, in hexadecimal; `None` on a node that runs alone.
    pub fn cluster_id(&self) -> Option<String> {
        let files = self.inner.files.as_ref()?;
        Some(hex(&files.cluster_id))
    }

    /// Host and port other nodes reach this one at, with the port it got.
    pub fn raft_addr(&self) -> &str {
        &self.inner.options.raft_addr
    }

    /// Every member this node knows of now; none before it has heard from the cluster it joins.
    pub fn members(&self) -> Vec<Member> {
        self.inner.consensus.members()
    }

    /// Counters of the connections from other nodes; `None` on a node that runs alone.
    pub fn peer_server_stats(&self) -> Option<ServerStats> {
        self.inner.raft_server.lock().as_ref().map(Server::stats)
    }

    /// Every member and how it is. Those that do not answer within a second are reported as such.
    pub async fn cluster_status(&self) -> Vec<MemberStatus> {
        let own = self.inner.consensus.node_id();
        let asked = self
            .inner
            .consensus
            .members()
            .into_iter()
            .map(|member| async move {
                let status = if member.node_id == own {
                    Ok(serving::status(self).await)
                } else {
                    self.ask_status(member.node_id).await
                };
                MemberStatus { member, status }
            });
        join_all(asked).await
    }

    pub(super) async fn ask_status(&self, id: NodeId) -> Result<StatusAnswer, String> {
        let wait = Wait::Deadline(STATUS_TIMEOUT);
        let body = self
            .inner
            .consensus
            .call(id, Lane::Control, kind::STATUS, Vec::new(), wait)
            .await
            .map_err(|error| error.to_string())?;
        StatusAnswer::decode(body).map_err(|error| error.to_string())
    }

    /// Changes the cluster, wherever the leader is.
    ///
    /// # Errors
    /// The change breaks a rule, or no leader answered in time.
    pub async fn administer(&self, change: Change) -> Result<(), AdminError> {
        let request = match change {
            Change::Promote(node_id) => AdminRequest {
                action: admin::PROMOTE,
                node_id,
                ..AdminRequest::default()
            },
            Change::Remove(node_id) => AdminRequest {
                action: admin::REMOVE,
                node_id,
                ..AdminRequest::default()
            },
            Change::Replace { old, by } => AdminRequest {
                action: admin::REPLACE,
                node_id: old,
                by,
                ..AdminRequest::default()
            },
            Change::Transfer(node_id) => AdminRequest {
                action: admin::TRANSFER,
                node_id,
                ..AdminRequest::default()
            },
        };
        self.ask_leader(request).await.map(drop)
    }

    /// Has the leader carry out a request, for as long as one may take.
    pub(super) async fn ask_leader(
        &self,
        request: AdminRequest,
    ) -> Result<AdminAnswer, AdminError> {
        let consensus = &self.inner.consensus;
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let mut asking = Asking::default();
        while Instant::now() < deadline {
            let leadership = *self.inner.leadership.borrow();
            let answer = match leadership {
                Leadership::Leading { .. } => {
                    self.administer_here(consensus.node_id(), request.clone())
                        .await
                }
                Leadership::Waiting {
                    leader: Some(leader),
                } => {
                    let wait = Wait::Deadline(deadline - Instant::now());
                    let asked = consensus
                        .call(leader, Lane::Forward, kind::ADMIN, parts(&request), wait)
                        .await;
                    match asked.map(AdminAnswer::decode) {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(error)) => return Err(AdminError::Unavailable(error.to_string())),
                        Err(
                            error @ (CallError::Unreachable { .. } | CallError::Refused { .. }),
                        ) => AdminAnswer::unavailable(error.to_string()),
                        // It may have been done: asking again could do it twice, or call it wrong because it is done.
                        Err(error) => {
                            return Err(AdminError::Unavailable(format!(
                                "the answer of the leader was lost ({error}): the change may have been made, look at \
                                 `scribe cluster status`"
                            )));
                        }
                    }
                }
                Leadership::Waiting { leader: None } | Leadership::Stopped => {
                    AdminAnswer::unavailable("no leader is known".to_owned())
                }
            };
            if let Some(settled) = asking.hear(answer) {
                return settled;
            }
            tokio::time::sleep(ADMIN_PAUSE).await;
        }
        Err(AdminError::Unavailable(asking.last))
    }

    /// Carries out a request of `sender`, if this node leads.
    pub(super) async fn administer_here(
        &self,
        sender: NodeId,
        request: AdminRequest,
    ) -> AdminAnswer {
        let consensus = &self.inner.consensus;
        let own = consensus.node_id();
        if !matches!(*self.inner.leadership.borrow(), Leadership::Leading { .. }) {
            return AdminAnswer::unavailable("this node does not lead".to_owned());
        }
        let id = request.node_id;
        // Without a majority nothing can be changed, and a change that was begun could not be taken back.
        let confirmed = tokio::time::timeout(MAJORITY_TIMEOUT, consensus.read_barrier()).await;
        if !matches!(confirmed, Ok(Ok(()))) {
            let silent: Vec<NodeId> = consensus
                .members()
                .into_iter()
                .filter(|member| member.voter)
                .filter(|member| member.last_seen.is_none_or(|seen| seen > MAJORITY_TIMEOUT))
                .map(|member| member.node_id)
                .collect();
            return AdminAnswer {
                outcome: admin::REFUSED,
                text: format!(
                    "a majority of the voters must be reachable to change the cluster; not reachable: {silent:?}"
                ),
                hint: Some(
                    "start them again; if they are lost for good, see docs/operating.md".to_owned(),
                ),
                ..AdminAnswer::default()
            };
        }
        let done = match request.action {
            admin::PROMOTE => consensus.promote(id).await,
            // A leader that is to go hands over first; whoever leads then does the rest.
            admin::REMOVE if id == own && consensus.voters().len() > 1 => {
                self.hand_over().await;
                return AdminAnswer::unavailable("leadership is being handed over".to_owned());
            }
            admin::REPLACE if id == own => {
                self.hand_over().await;
                return AdminAnswer::unavailable("leadership is being handed over".to_owned());
            }
            admin::REMOVE => consensus.remove(id).await,
            admin::REPLACE => consensus.replace(id, request.by).await,
            admin::TRANSFER if id == own => Ok(()),
            admin::TRANSFER => self.transfer(id).await,
            admin::SET_ADDRESS if id != sender => Err(ConsensusError::Refused(format!(
                "node {sender} cannot change the address of node {id}"
            ))),
            admin::SET_ADDRESS | admin::ADMIT if check_address(&request.address()).is_err() => {
                let error = check_address(&request.address()).err();
                Err(ConsensusError::Refused(
                    error.map(|error| error.to_string()).unwrap_or_default(),
                ))
            }
            // Whoever still answers at the old address is the node, and this is a copy of it.
            admin::SET_ADDRESS if self.runs_elsewhere(id, &request.address()).await => {
                Err(ConsensusError::Refused(format!(
                    "node {id} runs at another address and answers there: a copy of its directories is no new node"
                )))
            }
            admin::SET_ADDRESS => consensus.set_address(id, request.address()).await,
            admin::ADMIT => match self.admit(request.address()).await {
                Ok(node_id) => {
                    return AdminAnswer {
                        node_id,
                        ..AdminAnswer::default()
                    };
                }
                Err(error) => Err(error),
            },
            admin::ROTATE_KEY => return self.rotate_here().await,
            other => Err(ConsensusError::Refused(format!("unknown request {other}"))),
        };
        match done {
            Ok(()) => {
                let change = admin::name(request.action);
                tracing::info!(change, node = id, "the cluster was changed");
                AdminAnswer::default()
            }
            Err(ConsensusError::Refused(text)) => AdminAnswer {
                outcome: admin::REFUSED,
                text,
                ..AdminAnswer::default()
            },
            Err(error) => AdminAnswer {
                begun: true,
                ..AdminAnswer::unavailable(error.to_string())
            },
        }
    }

    /// Whether node `id` answers at the Raft address the membership has, which is not the one it wants.
    async fn runs_elsewhere(&self, id: NodeId, wanted: &PeerAddress) -> bool {
        let known = self.inner.consensus.peer_address(id);
        known.is_some_and(|known| known.raft_addr != wanted.raft_addr)
            && self.ask_status(id).await.is_ok()
    }

    /// Hands leadership to `id` and waits until it has left.
    async fn transfer(&self, id: NodeId) -> Result<(), ConsensusError> {
        let mut leadership = self.inner.consensus.leadership();
        self.inner.consensus.transfer_leader(id).await?;
        let gone = leadership.wait_for(|now| !matches!(now, Leadership::Leading { .. }));
        match tokio::time::timeout(REQUEST_TIMEOUT / 2, gone).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ConsensusError::Refused(format!(
                "node {id} did not take leadership over in time: it may be unreachable or lag"
            ))),
        }
    }

    /// Gives a new node an id and makes it a learner.
    async fn admit(&self, address: PeerAddress) -> Result<NodeId, ConsensusError> {
        let node_id = self.inner.consensus.allocate_node_id().await?;
        self.inner.consensus.add_learner(node_id, address).await?;
        tracing::info!(node = node_id, "a new node may join");
        Ok(node_id)
    }

    /// A token with which one new node can join through this one, until it expires.
    ///
    /// # Errors
    /// This node is no member of a cluster, and what the system refused.
    pub fn join_token(&self, validity: Duration) -> Result<JoinToken, AdminError> {
        let Some(files) = &self.inner.files else {
            return Err(alone());
        };
        let fingerprint = match &self.inner.tls {
            Some(_) => files.ca()?.fingerprint(),
            None => [0; 32],
        };
        let token = TokenBook::new(files.dir()).issue(
            vec![self.inner.options.raft_addr.clone()],
            fingerprint,
            validity.as_millis() as u64,
            &self.inner.options.world,
        )?;
        Ok(token)
    }

    /// Lets a node with a good token in: it gets an id, a certificate, and the keys a member holds.
    ///
    /// # Errors
    /// The token is unknown, used or expired, or nobody leads.
    pub(super) async fn welcome(&self, request: JoinRequest) -> Result<JoinAnswer, AdminError> {
        let Some(files) = &self.inner.files else {
            return Err(alone());
        };
        // Asked before the token is used up: without a leader nobody can join, and the token stays good.
        if self.inner.consensus.current_leader().await.is_none() {
            return Err(AdminError::Unavailable(
                "nobody leads now, so nobody can join; the token stays good, try again".to_owned(),
            ));
        }
        check_address(&PeerAddress {
            raft_addr: request.raft_addr.clone(),
            http_addr: request.http_addr.clone(),
        })?;
        // A leader that cannot reach a majority can let nobody in, and does not know it.
        if let Err(error) = self.barrier().await {
            return Err(AdminError::Unavailable(format!(
                "nobody can join now: {error}; the token stays good, try again"
            )));
        }
        let secret = request.secret.as_ref().try_into().map_err(|_| {
            token_refused(&format!(
                "a secret is 32 bytes, found {}",
                request.secret.len()
            ))
        })?;
        let (book, now_ms) = (
            TokenBook::new(files.dir()),
            self.inner.options.world.now_ms(),
        );
        // A crash after this leaves a used token and perhaps no new member: a new token is needed, and nothing else is
        // lost.
        let redeemed = crate::blocking::run(move || book.redeem(&secret, now_ms))
            .await
            .map_err(|error| AdminError::Unavailable(error.to_string()))??;
        match redeemed {
            Redeem::Ok => {}
            Redeem::Expired => return Err(token_refused("the token has expired")),
            Redeem::Used => {
                return Err(token_refused(
                    "the token was used before: each lets one node in",
                ));
            }
            Redeem::Unknown => {
                return Err(token_refused("the token was not given out by this member"));
            }
        }
        let admitted = self
            .ask_leader(AdminRequest {
                action: admin::ADMIT,
                raft_addr: request.raft_addr.clone(),
                http_addr: request.http_addr.clone(),
                ..AdminRequest::default()
            })
            .await?;
        let certificate = files
            .ca()?
            .issue(
                admitted.node_id,
                &request.certificate_request,
                &self.inner.options.world,
                CERTIFICATE_VALIDITY,
            )
            .map_err(FilesError::from)?;
        let (ca_certificate, ca_key) = files.ca_texts()?;
        let mut ledger_keys = self.signing_texts().into_iter();
        Ok(JoinAnswer {
            cluster_id: Bytes::copy_from_slice(&files.cluster_id),
            node_id: admitted.node_id,
            certificate,
            ca_certificate,
            ca_key,
            ledger_key: ledger_keys.next().unwrap_or_default(),
            more_ledger_keys: ledger_keys.collect(),
        })
    }

    /// Takes certificates that were replaced in the key directory into use, without closing a connection.
    ///
    /// # Errors
    /// The new files do not belong together or are another node's; the old ones stay in use.
    pub fn reload_certificates(&self) -> Result<(), FilesError> {
        match (&self.inner.files, &self.inner.tls) {
            (Some(files), Some(identity)) => files.reload(identity),
            _ => Ok(()),
        }
    }
}

fn token_refused(rule: &str) -> AdminError {
    AdminError::Refused {
        rule: rule.to_owned(),
        hint: Some("make a new one with `scribe cluster token`".to_owned()),
    }
}

fn alone() -> AdminError {
    AdminError::Refused {
        rule: "this node runs alone: it has no cluster others could join".to_owned(),
        hint: Some(
            "stop it, run `scribe cluster init` with the same --data-dir and --key-dir, and start it again".to_owned(),
        ),
    }
}

/// Both addresses of a node are `host:port`. They are replicated, so this is checked where they are proposed.
fn check_address(address: &PeerAddress) -> Result<(), AdminError> {
    for text in [&address.raft_addr, &address.http_addr] {
        let port = text.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0).then_some(port)
        });
        let plain = text.chars().all(|c| c.is_ascii_graphic());
        if port.is_none() || !plain || text.len() > crate::limits::ADDRESS_LENGTH_MAX {
            let shown: String = text.chars().take(200).collect();
            return Err(AdminError::Refused {
                rule: format!(
                    "an address is `host:port` of at most {} visible ASCII characters, found `{}`",
                    crate::limits::ADDRESS_LENGTH_MAX,
                    shown.escape_debug()
                ),
                hint: None,
            });
        }
    }
    Ok(())
}

/// What was heard while a change was asked for, of one leader after another.
#[derive(Debug)]
struct Asking {
    /// Whether one of them began the change and could not say what became of it.
    begun: bool,
    /// Why it is not done, in the words of the last one.
    last: String,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            begun: false,
            last: "no leader is known".to_owned(),
        }
    }
}

impl Asking {
    /// What the asker is told, if this answer settles it.
    fn hear(&mut self, answer: AdminAnswer) -> Option<Result<AdminAnswer, AdminError>> {
        match answer.outcome {
            admin::DONE => Some(Ok(answer)),
            // An earlier leader may have made the change, and this one calls it wrong because it is made.
            admin::REFUSED if self.begun => Some(Err(AdminError::Unavailable(format!(
                "leadership moved while the change was asked for, and the next leader says: {}; the change may have \
                 been made, look at `scribe cluster status`",
                answer.text
            )))),
            admin::REFUSED => Some(Err(AdminError::Refused {
                rule: answer.text,
                hint: answer.hint,
            })),
            _ => {
                self.begun |= answer.begun;
                self.last = answer.text;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> AdminAnswer {
        AdminAnswer {
            outcome: admin::REFUSED,
            text: "node 3 is no member".to_owned(),
            ..AdminAnswer::default()
        }
    }

    fn begun() -> AdminAnswer {
        AdminAnswer {
            begun: true,
            ..AdminAnswer::unavailable("leadership was lost".to_owned())
        }
    }

    #[test]
    fn a_change_that_was_not_begun_is_refused_by_whoever_refuses_it() {
        let mut asking = Asking::default();
        let nobody = AdminAnswer::unavailable("no leader".to_owned());
        assert!(asking.hear(nobody).is_none());
        assert!(matches!(
            asking.hear(refused()),
            Some(Err(AdminError::Refused { .. }))
        ));
        assert!(matches!(asking.hear(AdminAnswer::default()), Some(Ok(_))));
    }

    #[test]
    fn a_change_that_was_begun_is_not_called_refused_by_the_next_leader() {
        let mut asking = Asking::default();
        assert!(asking.hear(begun()).is_none());
        // The next ones do not know of it.
        let nobody = AdminAnswer::unavailable("no leader".to_owned());
        assert!(asking.hear(nobody).is_none());
        assert_eq!(asking.last, "no leader");
        match asking.hear(refused()) {
            Some(Err(AdminError::Unavailable(text))) => {
                assert!(text.contains("may have been made"), "{text}");
                assert!(text.contains("node 3 is no member"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}
