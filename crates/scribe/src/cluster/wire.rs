//! Messages between nodes that are not Raft's, and their conversion. All are prost messages: fields may be added, never
//! given another meaning. The table of kinds is in `docs/format-wire.md`.

use bytes::Bytes;
use prost::Message;
use scribe_proof::hash::Hash;
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::Metadata;

use crate::error::AppendError;
use crate::sequencer::{
    Condition, Operation, Transaction, UnitAppended, UnitOutcome, Write, WriteKind,
};

/// Kinds of these messages on the wire. The numbers are the protocol's, for ever.
pub mod kind {
    /// Writes for the leader.
    pub const FORWARD: u8 = 0x20;
    /// A tree head to recompute and cosign.
    pub const COSIGN: u8 = 0x21;
    /// Asks the leader for a checkpoint that covers a tree size.
    pub const PUBLISH: u8 = 0x22;
    /// A new checkpoint, from the leader.
    pub const CHECKPOINT: u8 = 0x23;
    /// How a node is.
    pub const STATUS: u8 = 0x24;
    /// A change of membership or leadership, for the leader.
    pub const ADMIN: u8 = 0x25;
    /// The ledger's signing keys: delivered, or asked for.
    pub const LEDGER_KEYS: u8 = 0x26;
    /// A new node asks to join.
    pub const JOIN: u8 = 0x30;
}

/// Error codes of answers: whatever was asked for was not begun. The numbers are the protocol's.
pub mod code {
    /// The message cannot be understood.
    pub const MALFORMED: u16 = 1;
    /// Not now.
    pub const UNAVAILABLE: u16 = 2;
    /// Not allowed; the text says why.
    pub const REFUSED: u16 = 3;

    /// Whether an error with this code says that nothing was done.
    pub fn nothing_was_done(code: u16) -> bool {
        matches!(code, MALFORMED | UNAVAILABLE | REFUSED)
    }
}

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message from a peer is malformed: {0}")]
pub struct Malformed(pub String);

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// One thing to append, whole or not at all.
#[derive(Debug, Clone)]
pub enum Job {
    /// A single write.
    Write(Write),
    /// Several operations together.
    Transaction(Transaction),
    /// A system entry.
    System {
        /// Its subtype.
        subtype: u16,
        /// Its body.
        body: Bytes,
    },
}

impl Job {
    /// Whether a repetition is recognized by the ledger.
    pub fn has_idempotency_key(&self) -> bool {
        match self {
            Self::Write(write) => write.idempotency_key.is_some(),
            Self::Transaction(transaction) => transaction.idempotency_key.is_some(),
            Self::System { .. } => false,
        }
    }

    /// Bytes it takes on its way, nearly.
    pub fn byte_length(&self) -> usize {
        let of = |kind: &WriteKind| match kind {
            WriteKind::Put { value, .. } => value.len() + 64,
            WriteKind::Delete => 64,
        };
        match self {
            Self::Write(write) => write.key.len() + of(&write.kind),
            Self::Transaction(transaction) => transaction
                .operations
                .iter()
                .map(|operation| match operation {
                    Operation::Write { key, kind, .. } => key.len() + of(kind),
                    Operation::Check { key, .. } => key.len() + 64,
                })
                .sum(),
            Self::System { body, .. } => body.len(),
        }
    }
}

/// Jobs on their way to the leader.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardRequest {
    /// In the order they were asked for.
    #[prost(message, repeated, tag = "1")]
    pub jobs: Vec<JobMessage>,
}

/// One [`Job`].
#[derive(Clone, PartialEq, Message)]
pub struct JobMessage {
    /// 1 write, 2 transaction, 3 system.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(message, repeated, tag = "2")]
    operations: Vec<OperationMessage>,
    #[prost(string, optional, tag = "3")]
    idempotency_key: Option<String>,
    #[prost(bytes = "bytes", tag = "4")]
    author: Bytes,
    #[prost(uint32, tag = "5")]
    subtype: u32,
    #[prost(bytes = "bytes", tag = "6")]
    body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct OperationMessage {
    /// 1 put, 2 delete, 3 check.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    metadata: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    value: Bytes,
    /// 0 none, 1 absent, 2 version.
    #[prost(uint32, tag = "5")]
    condition: u32,
    #[prost(uint64, tag = "6")]
    version: u64,
}

/// What became of each job, in their order.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardAnswer {
    /// One for each job.
    #[prost(message, repeated, tag = "1")]
    pub outcomes: Vec<OutcomeMessage>,
}

/// One outcome.
#[derive(Clone, PartialEq, Message)]
pub struct OutcomeMessage {
    #[prost(message, optional, tag = "1")]
    appended: Option<AppendedMessage>,
    #[prost(message, optional, tag = "2")]
    error: Option<ErrorMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AppendedMessage {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    timestamp_ms: u64,
    /// Leaf hashes, one after another.
    #[prost(bytes = "bytes", tag = "3")]
    leaf_hashes: Bytes,
    #[prost(bool, tag = "4")]
    replayed: bool,
}

/// An [`AppendError`], variant by variant.
#[derive(Clone, PartialEq, Message)]
struct ErrorMessage {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(string, optional, tag = "3")]
    hint: Option<String>,
    #[prost(uint64, tag = "4")]
    found: u64,
    #[prost(uint64, tag = "5")]
    allowed: u64,
    #[prost(bytes = "bytes", tag = "6")]
    key: Bytes,
    #[prost(uint64, optional, tag = "7")]
    current_index: Option<u64>,
    #[prost(bool, tag = "8")]
    deleted: bool,
}

fn condition_parts(condition: Condition) -> (u32, u64) {
    match condition {
        Condition::None => (0, 0),
        Condition::Absent => (1, 0),
        Condition::Version(index) => (2, index.get()),
    }
}

impl OperationMessage {
    fn new(
        key: &Bytes,
        kind: Option<&WriteKind>,
        condition: Condition,
    ) -> Result<Self, AppendError> {
        let (condition, version) = condition_parts(condition);
        let (kind, metadata, value) = match kind {
            Some(WriteKind::Put { metadata, value }) => {
                let metadata = metadata.encode().map_err(|error| AppendError::Invalid {
                    rule: error.to_string(),
                    hint: None,
                })?;
                (1, metadata.into(), value.clone())
            }
            Some(WriteKind::Delete) => (2, Bytes::new(), Bytes::new()),
            None => (3, Bytes::new(), Bytes::new()),
        };
        Ok(Self {
            kind,
            key: key.clone(),
            metadata,
            value,
            condition,
            version,
        })
    }

    fn condition(&self) -> Result<Condition, Malformed> {
        match self.condition {
            0 => Ok(Condition::None),
            1 => Ok(Condition::Absent),
            2 => Ok(Condition::Version(LeafIndex::new(self.version))),
            other => Err(Malformed(format!("condition {other}"))),
        }
    }

    fn operation(self) -> Result<Operation, Malformed> {
        let condition = self.condition()?;
        let kind = match self.kind {
            1 => WriteKind::Put {
                metadata: Metadata::parse(&self.metadata)
                    .map_err(|error| Malformed(error.to_string()))?,
                value: self.value,
            },
            2 => WriteKind::Delete,
            3 => {
                return Ok(Operation::Check {
                    key: self.key,
                    condition,
                });
            }
            other => return Err(Malformed(format!("operation {other}"))),
        };
        Ok(Operation::Write {
            key: self.key,
            kind,
            condition,
        })
    }
}

impl JobMessage {
    /// The message of a job.
    ///
    /// # Errors
    /// Metadata that breaks a rule: the same answer the leader would give.
    pub fn new(job: &Job) -> Result<Self, AppendError> {
        Ok(match job {
            Job::Write(write) => Self {
                kind: 1,
                operations: vec![OperationMessage::new(
                    &write.key,
                    Some(&write.kind),
                    write.condition,
                )?],
                idempotency_key: write.idempotency_key.clone(),
                author: write.author.clone(),
                ..Self::default()
            },
            Job::Transaction(transaction) => Self {
                kind: 2,
                operations: transaction
                    .operations
                    .iter()
                    .map(|operation| match operation {
                        Operation::Write {
                            key,
                            kind,
                            condition,
                        } => OperationMessage::new(key, Some(kind), *condition),
                        Operation::Check { key, condition } => {
                            OperationMessage::new(key, None, *condition)
                        }
                    })
                    .collect::<Result<_, _>>()?,
                idempotency_key: transaction.idempotency_key.clone(),
                author: transaction.author.clone(),
                ..Self::default()
            },
            Job::System { subtype, body } => Self {
                kind: 3,
                subtype: u32::from(*subtype),
                body: body.clone(),
                ..Self::default()
            },
        })
    }

    /// The job of a message. Values share the message's memory.
    pub fn job(self) -> Result<Job, Malformed> {
        let mut operations = self
            .operations
            .into_iter()
            .map(OperationMessage::operation)
            .collect::<Result<Vec<_>, _>>()?;
        match self.kind {
            1 => match (operations.pop(), operations.is_empty()) {
                (
                    Some(Operation::Write {
                        key,
                        kind,
                        condition,
                    }),
                    true,
                ) => Ok(Job::Write(Write {
                    key,
                    kind,
                    condition,
                    idempotency_key: self.idempotency_key,
                    author: self.author,
                })),
                _ => Err(Malformed(
                    "a write has one operation, a put or a delete".to_owned(),
                )),
            },
            2 => Ok(Job::Transaction(Transaction {
                operations,
                idempotency_key: self.idempotency_key,
                author: self.author,
            })),
            3 => Ok(Job::System {
                subtype: u16::try_from(self.subtype)
                    .map_err(|_| Malformed(format!("subtype {}", self.subtype)))?,
                body: self.body,
            }),
            other => Err(Malformed(format!("job {other}"))),
        }
    }
}

impl OutcomeMessage {
    /// The message of an outcome.
    pub(crate) fn new(outcome: &UnitOutcome) -> Self {
        match outcome {
            Ok(appended) => {
                let hashes: Vec<u8> = appended
                    .leaf_hashes
                    .iter()
                    .flat_map(|hash| *hash.as_bytes())
                    .collect();
                Self {
                    appended: Some(AppendedMessage {
                        first: appended.first.get(),
                        timestamp_ms: appended.timestamp_ms,
                        leaf_hashes: hashes.into(),
                        replayed: appended.replayed,
                    }),
                    error: None,
                }
            }
            Err(error) => Self {
                appended: None,
                error: Some(ErrorMessage::new(error)),
            },
        }
    }

    /// The outcome of a message; one that says neither is unknown.
    pub(crate) fn outcome(self) -> UnitOutcome {
        match (self.appended, self.error) {
            (Some(appended), _) => Ok(UnitAppended {
                first: LeafIndex::new(appended.first),
                timestamp_ms: appended.timestamp_ms,
                leaf_hashes: appended
                    .leaf_hashes
                    .chunks_exact(32)
                    .filter_map(|bytes| bytes.try_into().ok().map(Hash))
                    .collect(),
                replayed: appended.replayed,
            }),
            (None, Some(error)) => Err(error.error()),
            (None, None) => Err(AppendError::UnknownOutcome),
        }
    }
}

/// What may be over its limit; the error carries a static name.
const SIZED: [&str; 6] = [
    "key",
    "value",
    "metadata",
    "transaction",
    "author",
    "request",
];

impl ErrorMessage {
    fn new(error: &AppendError) -> Self {
        let text = |code: u32, text: &str| Self {
            code,
            text: text.to_owned(),
            ..Self::default()
        };
        match error {
            AppendError::Invalid { rule, hint } => Self {
                hint: hint.clone(),
                ..text(1, rule)
            },
            AppendError::TooLarge {
                what,
                found,
                allowed,
            } => Self {
                found: *found as u64,
                allowed: *allowed as u64,
                ..text(2, what)
            },
            AppendError::ConditionFailed {
                operation,
                key,
                current_index,
                deleted,
            } => Self {
                found: *operation as u64,
                key: key.clone(),
                current_index: current_index.map(LeafIndex::get),
                deleted: *deleted,
                ..text(3, "")
            },
            AppendError::IdempotencyMismatch => text(4, ""),
            AppendError::Overloaded { retry_after_ms } => Self {
                found: *retry_after_ms,
                ..text(5, "")
            },
            AppendError::DiskFull => text(6, ""),
            AppendError::NotLeader { leader } => Self {
                hint: leader.clone(),
                ..text(7, "")
            },
            AppendError::UnknownOutcome => text(8, ""),
            AppendError::Unavailable(reason) => text(9, reason),
        }
    }

    fn error(self) -> AppendError {
        match self.code {
            1 => AppendError::Invalid {
                rule: self.text,
                hint: self.hint,
            },
            2 => AppendError::TooLarge {
                what: SIZED
                    .into_iter()
                    .find(|what| *what == self.text)
                    .unwrap_or("request"),
                found: self.found as usize,
                allowed: self.allowed as usize,
            },
            3 => AppendError::ConditionFailed {
                operation: self.found as usize,
                key: self.key,
                current_index: self.current_index.map(LeafIndex::new),
                deleted: self.deleted,
            },
            4 => AppendError::IdempotencyMismatch,
            5 => AppendError::Overloaded {
                retry_after_ms: self.found,
            },
            6 => AppendError::DiskFull,
            7 => AppendError::NotLeader { leader: self.hint },
            9 => AppendError::Unavailable(self.text),
            // A code of a later version: whatever it means, it does not say that nothing was written.
            _ => AppendError::UnknownOutcome,
        }
    }
}

/// A tree head to recompute and cosign.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct CosignRequest {
    /// Tree size.
    #[prost(uint64, tag = "1")]
    pub size: u64,
}

/// What a voter found at the size asked about.
#[derive(Clone, PartialEq, Message)]
pub struct CosignAnswer {
    /// Root hash by its own tree, 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub root: Bytes,
    /// A note signature line over the checkpoint of that size and root.
    #[prost(string, tag = "2")]
    pub signature: String,
}

/// Asks the leader for a checkpoint of at least `size` leaves.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct PublishRequest {
    /// Tree size.
    #[prost(uint64, tag = "1")]
    pub size: u64,
}

/// A published checkpoint; empty if there is none.
#[derive(Clone, PartialEq, Message)]
pub struct CheckpointMessage {
    /// The signed note.
    #[prost(string, tag = "1")]
    pub note: String,
}

/// How a node is, as it sees itself.
#[derive(Clone, PartialEq, Message)]
pub struct StatusAnswer {
    /// Raft role.
    #[prost(string, tag = "1")]
    pub state: String,
    /// Current term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Last log index in its log.
    #[prost(uint64, optional, tag = "3")]
    pub last_log_index: Option<u64>,
    /// Last log index applied.
    #[prost(uint64, optional, tag = "4")]
    pub last_applied: Option<u64>,
    /// Leaves applied.
    #[prost(uint64, tag = "5")]
    pub tree_size: u64,
    /// Root hash at that size, 32 bytes.
    #[prost(bytes = "bytes", tag = "6")]
    pub root: Bytes,
    /// Why it is not ready, if so.
    #[prost(string, optional, tag = "7")]
    pub not_ready: Option<String>,
    /// Version of the program.
    #[prost(string, tag = "8")]
    pub version: String,
    /// Bytes of segments fetched so far while catching up.
    #[prost(uint64, tag = "9")]
    pub catch_up_done: u64,
    /// Bytes of segments to fetch in all.
    #[prost(uint64, tag = "10")]
    pub catch_up_total: u64,
    /// Whether it is stopping: leadership handed to it would be handed on at once.
    #[prost(bool, tag = "11")]
    pub leaving: bool,
    /// Bytes of damaged segments that are back.
    #[prost(uint64, tag = "12")]
    pub mending_done: u64,
    /// Bytes of the segments that are damaged now.
    #[prost(uint64, tag = "13")]
    pub mending_total: u64,
}

/// A change the leader is asked to make.
#[derive(Clone, PartialEq, Message)]
pub struct AdminRequest {
    /// One of [`admin`].
    #[prost(uint32, tag = "1")]
    pub action: u32,
    /// The node it is about.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
    /// With replace: the node that takes its place.
    #[prost(uint64, tag = "3")]
    pub by: u64,
    /// A new Raft address.
    #[prost(string, tag = "4")]
    pub raft_addr: String,
    /// A new HTTP address.
    #[prost(string, tag = "5")]
    pub http_addr: String,
}

/// What became of it.
#[derive(Clone, PartialEq, Message)]
pub struct AdminAnswer {
    /// One of [`admin`].
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    /// Why not.
    #[prost(string, tag = "2")]
    pub text: String,
    /// A next step.
    #[prost(string, optional, tag = "3")]
    pub hint: Option<String>,
    /// With admit: the id given.
    #[prost(uint64, tag = "4")]
    pub node_id: u64,
    /// With unavailable: the change was begun, and may have been made.
    #[prost(bool, tag = "5")]
    pub begun: bool,
    /// With a rotation that is done: the new verifier key.
    #[prost(string, tag = "6")]
    pub verifier_key: String,
    /// With a rotation that is done: leaf index of the entry.
    #[prost(uint64, tag = "7")]
    pub index: u64,
}

/// Signing keys of the ledger, on their way between members: those to keep, or the answer to a question for them. Never
/// shown; it travels inside TLS unless the cluster talks in plain text by an explicit setting.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct LedgerKeysMessage {
    /// Keys to keep, each as in its file.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// Verifier keys whose signing halves are asked for.
    #[prost(string, repeated, tag = "2")]
    pub wanted: Vec<String>,
}

impl std::fmt::Debug for LedgerKeysMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerKeysMessage")
            .field("keys", &format_args!("({} secrets)", self.keys.len()))
            .field("wanted", &self.wanted)
            .finish()
    }
}

/// A new node asks to join. The secret is never shown.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct JoinRequest {
    /// Secret of the token.
    #[prost(bytes = "bytes", tag = "1")]
    pub secret: Bytes,
    /// Where the others will reach it.
    #[prost(string, tag = "2")]
    pub raft_addr: String,
    /// Where clients will reach it.
    #[prost(string, tag = "3")]
    pub http_addr: String,
    /// Certificate request for its key, PEM.
    #[prost(string, tag = "4")]
    pub certificate_request: String,
}

/// What a node gets when it joins. It holds private keys and is never shown; only a cluster that talks in plain text by
/// an explicit setting sends it outside TLS.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct JoinAnswer {
    /// The ledger's cluster id, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub cluster_id: Bytes,
    /// The id it has from now on.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
    /// Its certificate, PEM.
    #[prost(string, tag = "3")]
    pub certificate: String,
    /// Certificate of the cluster CA, PEM.
    #[prost(string, tag = "4")]
    pub ca_certificate: String,
    /// Private key of the cluster CA, PEM.
    #[prost(string, tag = "5")]
    pub ca_key: String,
    /// The ledger's newest signing key, as in its file.
    #[prost(string, tag = "6")]
    pub ledger_key: String,
    /// Keys that still sign beside it, each as in its file.
    #[prost(string, repeated, tag = "7")]
    pub more_ledger_keys: Vec<String>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("secret", &"(secret)")
            .field("raft_addr", &self.raft_addr)
            .field("http_addr", &self.http_addr)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JoinAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinAnswer")
            .field("node_id", &self.node_id)
            .field("ca_key", &"(secret)")
            .field("ledger_key", &"(secret)")
            .finish_non_exhaustive()
    }
}

/// One message as the parts of a body.
pub fn parts(message: &impl Message) -> Vec<Bytes> {
    vec![message.encode_to_vec().into()]
}

/// What the leader can be asked to change, and what may come of it. The numbers are the protocol's.
pub mod admin {
    /// Make a learner a voter.
    pub const PROMOTE: u32 = 1;
    /// Remove a member.
    pub const REMOVE: u32 = 2;
    /// Put a learner in the place of a voter.
    pub const REPLACE: u32 = 3;
    /// Hand leadership over.
    pub const TRANSFER: u32 = 4;
    /// The sender's own address has changed.
    pub const SET_ADDRESS: u32 = 5;
    /// Give a new node an id and make it a learner.
    pub const ADMIT: u32 = 6;
    /// Put a new key in the place of the ledger's.
    pub const ROTATE_KEY: u32 = 7;

    /// Outcome: done.
    pub const DONE: u32 = 0;
    /// Outcome: it breaks a rule.
    pub const REFUSED: u32 = 1;
    /// Outcome: not now, or not here.
    pub const UNAVAILABLE: u32 = 2;

    /// What a change is called in logs.
    pub fn name(action: u32) -> &'static str {
        match action {
            PROMOTE => "promote",
            REMOVE => "remove",
            REPLACE => "replace",
            TRANSFER => "transfer",
            SET_ADDRESS => "set address",
            ADMIT => "admit",
            ROTATE_KEY => "rotate the ledger key",
            _ => "unknown",
        }
    }
}

impl AdminRequest {
    /// The addresses in it.
    pub fn address(&self) -> crate::consensus::PeerAddress {
        crate::consensus::PeerAddress {
            raft_addr: self.raft_addr.clone(),
            http_addr: self.http_addr.clone(),
        }
    }
}

impl AdminAnswer {
    /// An answer that says: not now, because of `text`.
    pub fn unavailable(text: String) -> Self {
        Self {
            outcome: admin::UNAVAILABLE,
            text,
            ..Self::default()
        }
    }
}
