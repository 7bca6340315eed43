//! What is handed to the sequencer: writes that are checked, salted and committed to, and the way back to their writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_proof::hash::{Hash, sha256};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::key::SigningKey;
use scribe_proof::leaf::{Metadata, SALT_LENGTH, commitment};
use scribe_proof::rotation::ROTATION_LENGTH_MAX;
use tokio::sync::oneshot;

use crate::error::AppendError;
use crate::ledger::batch::PrivateRecord;
use crate::limits;
use crate::planted;
use crate::world::World;

/// One write as a caller means it.
#[derive(Debug, Clone)]
pub struct Write {
    /// 1 to 1,024 opaque bytes.
    pub key: Bytes,
    /// Put or delete.
    pub kind: WriteKind,
    /// What must hold for it to take effect.
    pub condition: Condition,
    /// Makes a retry of the same request answer with the first outcome, for 24 hours of ledger time.
    pub idempotency_key: Option<String>,
    /// Opaque id of the authenticated principal; empty without authentication.
    pub author: Bytes,
}

/// What a write does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// Appends a version.
    Put {
        /// Content type and user pairs.
        metadata: Metadata,
        /// The value.
        value: Bytes,
    },
    /// Appends a tombstone. History stays.
    Delete,
}

/// A precondition on a key's current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// None: nothing is read.
    None,
    /// The key has no version, or its newest is a tombstone.
    Absent,
    /// The key's newest version (or tombstone) is exactly this one.
    Version(LeafIndex),
}

/// Several operations that take effect together or not at all.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// At most [`limits::TRANSACTION_OPERATIONS_MAX`], no key twice, at least one write.
    pub operations: Vec<Operation>,
    /// As for a single write.
    pub idempotency_key: Option<String>,
    /// As for a single write.
    pub author: Bytes,
}

/// One operation of a transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A put or delete.
    Write {
        /// Its key.
        key: Bytes,
        /// Put or delete.
        kind: WriteKind,
        /// What must hold.
        condition: Condition,
    },
    /// Only a condition; takes no leaf.
    Check {
        /// Its key.
        key: Bytes,
        /// What must hold.
        condition: Condition,
    },
}

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the ledger, for ever.
    pub index: LeafIndex,
    /// Its timestamp.
    pub timestamp_ms: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// Last index of the operation plus one: the smallest tree that holds all of it.
    pub tree_size: TreeSize,
    /// Whether this is the outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// An acknowledged transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionAppended {
    /// One per put or delete, in order.
    pub entries: Vec<Appended>,
    /// The smallest tree that holds all of it.
    pub tree_size: TreeSize,
    /// Whether this is the outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// An entry carried over from another copy of the ledger, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedEntry {
    /// The encoded leaf.
    pub leaf: Bytes,
    /// Its opening; `None` for a system entry or one whose private part is erased.
    pub private: Option<PrivateRecord>,
}

/// A unit's outcome: consecutive leaves from `first` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitAppended {
    pub first: LeafIndex,
    pub timestamp_ms: u64,
    pub leaf_hashes: Vec<Hash>,
    pub replayed: bool,
}

impl UnitAppended {
    pub(crate) fn tree_size(&self) -> TreeSize {
        TreeSize::new(self.first.get() + self.leaf_hashes.len() as u64)
    }

    pub(crate) fn into_entries(self) -> Vec<Appended> {
        let tree_size = self.tree_size();
        let mut index = self.first;
        self.leaf_hashes
            .iter()
            .map(|leaf_hash| {
                let appended = Appended {
                    index,
                    timestamp_ms: self.timestamp_ms,
                    leaf_hash: *leaf_hash,
                    tree_size,
                    replayed: self.replayed,
                };
                index = index.next();
                appended
            })
            .collect()
    }
}

pub(crate) type UnitOutcome = Result<UnitAppended, AppendError>;

/// What is placed in a frame whole or not at all: a write, a transaction, or entries that belong together.
#[derive(Debug)]
pub(crate) struct Unit {
    pub operations: Vec<Prepared>,
    pub author: Bytes,
    pub idempotency: Option<Idempotency>,
    pub replies: Vec<Reply>,
    pub byte_length: usize,
    pub permit: Option<Permit>,
}

/// One operation, ready to become a leaf.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub key: Bytes,
    pub condition: Condition,
    pub content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Put {
        salt: [u8; SALT_LENGTH],
        commitment: Hash,
        metadata: Bytes,
        value: Bytes,
    },
    Delete {
        salt: [u8; SALT_LENGTH],
        commitment: Hash,
        metadata: Bytes,
    },
    Check,
    System {
        subtype: u16,
        body: Bytes,
    },
    /// A rotation of the ledger's key, signed when its place is known.
    Rotation {
        old: Arc<SigningKey>,
        new: Arc<SigningKey>,
    },
    Carried(CarriedEntry),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Idempotency {
    pub key_hash: [u8; 16],
    pub fingerprint: [u8; 16],
}

/// The way back to a writer.
#[derive(Debug)]
pub(crate) enum Reply {
    One(oneshot::Sender<UnitOutcome>),
    Slot {
        collector: Arc<Collector>,
        slot: usize,
    },
}

impl Reply {
    pub(crate) fn send(self, outcome: UnitOutcome) {
        match self {
            // The writer may be gone; its write stands all the same.
            Self::One(sender) => drop(sender.send(outcome)),
            Self::Slot { collector, slot } => collector.put(slot, outcome),
        }
    }
}

/// Gathers the outcomes of a group of writes and wakes the caller once.
#[derive(Debug)]
pub(crate) struct Collector {
    outcomes: Mutex<Vec<Option<UnitOutcome>>>,
    remaining: AtomicUsize,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Collector {
    pub(crate) fn new(slots: usize) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let collector = Self {
            outcomes: Mutex::new((0..slots).map(|_| None).collect()),
            remaining: AtomicUsize::new(slots),
            done: Mutex::new(Some(sender)),
        };
        (Arc::new(collector), receiver)
    }

    pub(crate) fn put(&self, slot: usize, outcome: UnitOutcome) {
        if let Some(place) = self.outcomes.lock().get_mut(slot) {
            *place = Some(outcome);
        }
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = self.done.lock().take()
        {
            let _ = done.send(());
        }
    }

    /// The outcomes; what is missing is unknown.
    pub(crate) fn take(&self) -> Vec<UnitOutcome> {
        let outcomes = std::mem::take(&mut *self.outcomes.lock());
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(AppendError::UnknownOutcome)))
            .collect()
    }
}

/// Bytes admitted to the sequencer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    pub bytes: usize,
    pub admitted: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admitted.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Checks a key.
pub fn check_key(key: &[u8]) -> Result<(), AppendError> {
    if key.is_empty() {
        return Err(AppendError::Invalid {
            rule: format!("a key has 1 to {} bytes, found 0", limits::KEY_LENGTH_MAX),
            hint: None,
        });
    }
    if key.len() > limits::KEY_LENGTH_MAX {
        return Err(AppendError::TooLarge {
            what: "key",
            found: key.len(),
            allowed: limits::KEY_LENGTH_MAX,
        });
    }
    Ok(())
}

/// Turns writes into units: checks the limits, draws the salts, hashes the commitments. All of it happens on the
/// caller's task, so that the sequencer only orders.
#[derive(Debug, Clone)]
pub(crate) struct Preparer {
    pub world: World,
    pub value_length_max: usize,
    /// Encoding of the metadata of most entries: none at all.
    pub empty_metadata: Bytes,
}

impl Preparer {
    pub(crate) fn new(world: World, value_length_max: usize) -> Self {
        let empty_metadata = Metadata::default().encode().unwrap_or_default().into();
        Self {
            world,
            value_length_max,
            empty_metadata,
        }
    }

    fn content(&self, kind: WriteKind) -> Result<Content, AppendError> {
        let salt = self.world.random::<SALT_LENGTH>();
        match kind {
            WriteKind::Put { metadata, value } => {
                if value.len() > self.value_length_max {
                    return Err(AppendError::TooLarge {
                        what: "value",
                        found: value.len(),
                        allowed: self.value_length_max,
                    });
                }
                let metadata: Bytes = metadata
                    .encode()
                    .map_err(|error| AppendError::Invalid {
                        rule: error.to_string(),
                        hint: None,
                    })?
                    .into();
                // planted
                let flips = salt[0] < 8 && !value.is_empty() && planted::has("flip-before-hash");
                let value = match flips {
                    true => [&[value[0] ^ 1], &value[1..]].concat().into(),
                    false => value,
                };
                let commitment = commitment(&salt, &metadata, &value);
                Ok(Content::Put {
                    salt,
                    commitment,
                    metadata,
                    value,
                })
            }
            WriteKind::Delete => {
                let metadata = self.empty_metadata.clone();
                Ok(Content::Delete {
                    salt,
                    commitment: commitment(&salt, &metadata, b""),
                    metadata,
                })
            }
        }
    }

    pub(crate) fn write(&self, write: Write, reply: Reply) -> Result<Unit, (AppendError, Reply)> {
        let prepared = check_key(&write.key).and_then(|()| {
            // Only a write with an idempotency key pays for a second hash of its value.
            let fingerprint = || Fingerprint::of(&write.kind, &write.key, write.condition).finish();
            let idempotency =
                idempotency(write.idempotency_key.as_deref(), &write.author, fingerprint)?;
            Ok((self.content(write.kind)?, idempotency))
        });
        match prepared {
            Ok((content, idempotency)) => {
                let prepared = Prepared {
                    key: write.key,
                    condition: write.condition,
                    content,
                };
                Ok(unit(vec![prepared], write.author, idempotency, reply))
            }
            Err(error) => Err((error, reply)),
        }
    }

    pub(crate) fn transaction(
        &self,
        transaction: Transaction,
        reply: Reply,
    ) -> Result<Unit, (AppendError, Reply)> {
        match self.transaction_operations(&transaction) {
            Ok((operations, idempotency)) => {
                Ok(unit(operations, transaction.author, idempotency, reply))
            }
            Err(error) => Err((error, reply)),
        }
    }

    fn transaction_operations(
        &self,
        transaction: &Transaction,
    ) -> Result<(Vec<Prepared>, Option<Idempotency>), AppendError> {
        let invalid = |rule: String, hint: Option<&str>| AppendError::Invalid {
            rule,
            hint: hint.map(str::to_owned),
        };
        let count = transaction.operations.len();
        if count == 0 || count > limits::TRANSACTION_OPERATIONS_MAX {
            return Err(invalid(
                format!(
                    "a transaction has 1 to {} operations, found {count}",
                    limits::TRANSACTION_OPERATIONS_MAX
                ),
                None,
            ));
        }
        let mut keys = std::collections::HashSet::with_capacity(count);
        let mut digest = Fingerprint::transaction();
        let mut operations = Vec::with_capacity(count);
        let mut byte_length = 0;
        let mut writes = 0;
        for operation in &transaction.operations {
            let (key, condition, content) = match operation {
                Operation::Write {
                    key,
                    kind,
                    condition,
                } => {
                    check_key(key)?;
                    digest.operation(kind, key, *condition);
                    writes += 1;
                    (key, *condition, self.content(kind.clone())?)
                }
                Operation::Check { key, condition } => {
                    check_key(key)?;
                    if *condition == Condition::None {
                        return Err(invalid(
                            "a check needs a condition, found none".to_owned(),
                            None,
                        ));
                    }
                    digest.check(key, *condition);
                    (key, *condition, Content::Check)
                }
            };
            if !keys.insert(key.clone()) {
                return Err(invalid(
                    format!(
                        "each key may appear once in a transaction, `{}` appears twice",
                        key.escape_ascii()
                    ),
                    Some("combine the operations on one key into one"),
                ));
            }
            let prepared = Prepared {
                key: key.clone(),
                condition,
                content,
            };
            byte_length += prepared.byte_length();
            operations.push(prepared);
        }
        if byte_length > limits::TRANSACTION_BYTES_MAX {
            return Err(AppendError::TooLarge {
                what: "transaction",
                found: byte_length,
                allowed: limits::TRANSACTION_BYTES_MAX,
            });
        }
        if writes == 0 {
            return Err(invalid(
                "a transaction needs at least one put or delete, found only checks".to_owned(),
                Some("to read several keys at one point, use POST /v1/keys:get"),
            ));
        }
        let idempotency = idempotency(
            transaction.idempotency_key.as_deref(),
            &transaction.author,
            || digest.finish(),
        )?;
        Ok((operations, idempotency))
    }

    pub(crate) fn system(&self, subtype: u16, body: Bytes, reply: Reply) -> Unit {
        let prepared = Prepared {
            key: Bytes::new(),
            condition: Condition::None,
            content: Content::System { subtype, body },
        };
        unit(vec![prepared], Bytes::new(), None, reply)
    }

    /// The entry by which `new` takes the place of the ledger's key `old`. It names its own place, so it is signed when
    /// that is known.
    pub(crate) fn rotation(
        &self,
        old: Arc<SigningKey>,
        new: Arc<SigningKey>,
        reply: Reply,
    ) -> Unit {
        let prepared = Prepared {
            key: Bytes::new(),
            condition: Condition::None,
            content: Content::Rotation { old, new },
        };
        unit(vec![prepared], Bytes::new(), None, reply)
    }

    /// A system entry that is written once, however often it is asked for within a day: whoever did not hear what became
    /// of it asks again.
    pub(crate) fn system_once(&self, subtype: u16, body: Bytes, reply: Reply) -> Unit {
        // Shorter than what a client's key is hashed with if its author has 255 bytes, and begins as nothing else does.
        let mut scoped = vec![0xff];
        scoped.extend_from_slice(&subtype.to_be_bytes());
        scoped.extend_from_slice(sha256(&body).as_bytes());
        let mut unit = self.system(subtype, body, reply);
        unit.idempotency = Some(Idempotency {
            key_hash: half(sha256(&scoped)),
            fingerprint: half(sha256(&scoped[1..])),
        });
        unit
    }

    pub(crate) fn carried(&self, entries: Vec<CarriedEntry>, reply: Reply) -> Unit {
        let operations = entries
            .into_iter()
            .map(|entry| Prepared {
                key: Bytes::new(),
                condition: Condition::None,
                content: Content::Carried(entry),
            })
            .collect();
        unit(operations, Bytes::new(), None, reply)
    }
}

impl Prepared {
    fn byte_length(&self) -> usize {
        let content = match &self.content {
            Content::Put {
                metadata, value, ..
            } => metadata.len() + value.len(),
            Content::System { body, .. } => body.len(),
            Content::Rotation { .. } => ROTATION_LENGTH_MAX,
            Content::Carried(entry) => {
                entry.leaf.len()
                    + entry
                        .private
                        .as_ref()
                        .map_or(0, |p| p.metadata.len() + p.value.len())
            }
            Content::Delete { .. } | Content::Check => 0,
        };
        self.key.len() + content
    }
}

fn unit(
    operations: Vec<Prepared>,
    author: Bytes,
    idempotency: Option<Idempotency>,
    reply: Reply,
) -> Unit {
    let byte_length = operations.iter().map(Prepared::byte_length).sum();
    Unit {
        operations,
        author,
        idempotency,
        replies: vec![reply],
        byte_length,
        permit: None,
    }
}

fn idempotency(
    key: Option<&str>,
    author: &[u8],
    fingerprint: impl FnOnce() -> [u8; 16],
) -> Result<Option<Idempotency>, AppendError> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_LENGTH_MAX {
        return Err(AppendError::Invalid {
            rule: format!(
                "an idempotency key has 1 to {} bytes, found {}",
                limits::IDEMPOTENCY_KEY_LENGTH_MAX,
                key.len()
            ),
            hint: None,
        });
    }
    let mut scoped = Vec::with_capacity(1 + author.len() + key.len());
    scoped.push(author.len() as u8);
    scoped.extend_from_slice(author);
    scoped.extend_from_slice(key.as_bytes());
    Ok(Some(Idempotency {
        key_hash: half(sha256(&scoped)),
        fingerprint: fingerprint(),
    }))
}

/// Collects what makes two requests the same request.
struct Fingerprint {
    parts: Vec<u8>,
}

impl Fingerprint {
    fn of(kind: &WriteKind, key: &[u8], condition: Condition) -> Self {
        let mut fingerprint = Self { parts: vec![1] };
        fingerprint.operation(kind, key, condition);
        fingerprint
    }

    fn transaction() -> Self {
        Self { parts: vec![2] }
    }

    fn operation(&mut self, kind: &WriteKind, key: &[u8], condition: Condition) {
        match kind {
            WriteKind::Put { metadata, value } => {
                self.parts.push(1);
                let metadata = metadata.encode().unwrap_or_default();
                self.parts.extend_from_slice(sha256(&metadata).as_bytes());
                self.parts.extend_from_slice(sha256(value).as_bytes());
            }
            WriteKind::Delete => self.parts.push(2),
        }
        self.target(key, condition);
    }

    fn check(&mut self, key: &[u8], condition: Condition) {
        self.parts.push(3);
        self.target(key, condition);
    }

    fn target(&mut self, key: &[u8], condition: Condition) {
        self.parts
            .extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.parts.extend_from_slice(key);
        match condition {
            Condition::None => self.parts.push(0),
            Condition::Absent => self.parts.push(1),
            Condition::Version(index) => {
                self.parts.push(2);
                self.parts.extend_from_slice(&index.get().to_be_bytes());
            }
        }
    }

    fn finish(&self) -> [u8; 16] {
        half(sha256(&self.parts))
    }
}

fn half(hash: Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}
