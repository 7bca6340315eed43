//! The bodies and headers of the HTTP API, one type each, shared by the node and its clients.
//!
//! These types are the contract: a member keeps its name and meaning for ever. Requests refuse
//! members they do not know; answers may gain members, and a client ignores those it does not
//! know. Bytes that are valid UTF-8 travel as `key`, `value`, `author`; any others as
//! `key_base64` and so on, in standard base64 with padding. Hashes are lowercase hex, times are
//! milliseconds since 1970-01-01 UTC. Nothing here is verified: see [`crate::verify`].

pub mod bulk;
pub mod bytes;
mod capped;
pub mod cluster;
pub mod receipts;

use std::collections::BTreeMap;

use scribe_proof::METADATA_PAIRS_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

pub use bulk::{
    BulkChange, BulkDone, BulkLine, BulkLineError, BulkOperation, BulkReply, BulkResult,
};
pub use bytes::{BytesError, HexHash, Text};
pub use cluster::{
    CatchUp, Cluster, ClusterChanged, ClusterToken, ClusterTokenRequest, Health, KeyRotated,
    Leader, LeaderRequest, Member, Members, ReplaceRequest,
};
pub use receipts::{EntryReceipt, ReceiptWanted, ReceiptsRequest, ReceiptsResponse};

use crate::code::ErrorCode;

/// Operations in one transaction.
pub const TRANSACTION_OPERATIONS_MAX: usize = 1_024;
/// Keys in one `POST /v1/keys:get`.
pub const KEYS_GET_MAX: usize = 1_000;
/// Receipts in one `POST /v1/receipts`.
pub const RECEIPTS_MAX: usize = 1_000;

/// Response header: leaf index of the entry.
pub const HEADER_INDEX: &str = "scribe-index";
/// Response header: the entry's timestamp in milliseconds.
pub const HEADER_TIMESTAMP: &str = "scribe-timestamp";
/// Response header: the entry's leaf hash, lowercase hex.
pub const HEADER_LEAF_HASH: &str = "scribe-leaf-hash";
/// Response header: the tree size a read saw.
pub const HEADER_TREE_SIZE: &str = "scribe-tree-size";
/// Request header: wait until the node has applied the entry at this index.
pub const HEADER_MIN_INDEX: &str = "scribe-min-index";
/// Prefix of the headers that carry user metadata; the rest is the pair's name.
pub const HEADER_META_PREFIX: &str = "scribe-meta-";
/// Response header: `true` if the answer was remembered under the idempotency key.
pub const HEADER_REPLAYED: &str = "scribe-replayed";
/// Request header: makes a retry of a write safe.
pub const HEADER_IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Media type of [`Problem`].
pub const MEDIA_PROBLEM: &str = "application/problem+json";
/// Media type of bulk uploads and their answers.
pub const MEDIA_NDJSON: &str = "application/x-ndjson";
/// Media type of receipts, checkpoints and other signed notes.
pub const MEDIA_NOTE: &str = "text/plain; charset=utf-8";
/// Name of a watch event that carries an [`EntryView`].
pub const EVENT_ENTRY: &str = "entry";
/// Name of a watch event that carries a [`WatchProgress`].
pub const EVENT_PROGRESS: &str = "progress";
/// Name of a watch event that carries a [`Problem`] and ends the stream.
pub const EVENT_ERROR: &str = "error";

/// Answer to a put or delete (201).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Appended {
    /// Leaf index of the new entry.
    pub index: u64,
    /// When the leader took it; never decreases along the ledger.
    pub timestamp_ms: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
    /// Index of the operation's last entry + 1: the smallest tree that has all of it.
    pub tree_size: u64,
    /// This is the remembered answer to an earlier request with the same idempotency key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A value.
    Put,
    /// A tombstone.
    Delete,
    /// Written by the ledger about itself.
    System,
}

/// Answer to `GET /v1/keys/{key}/history?limit=&cursor=`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The versions of this page.
    pub versions: Vec<Version>,
    /// The next page's `cursor`; `null` at the end. Opaque.
    pub next: Option<String>,
}

/// One version in a [`History`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Leaf index.
    pub index: u64,
    /// When it was appended.
    pub timestamp_ms: u64,
    /// Put or delete.
    pub kind: Kind,
    /// Bytes of the value; 0 for a tombstone.
    pub value_length: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
    /// Media type, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Answer to `GET /v1/keys`, in byte order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The keys of this page.
    pub keys: Vec<KeyVersion>,
    /// The next page's `cursor`; `null` at the end. Opaque.
    pub next: Option<String>,
    /// The tree size the page was read at; pass it as `at` to read all pages of one state.
    pub tree_size: u64,
}

/// One key in a [`KeyList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyVersion {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Leaf index of its current version.
    pub index: u64,
    /// The version's kind; left out where it can only be a put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
}

/// A point in the ledger: a tree size (which sees the indexes below it) or an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum At {
    /// A tree size.
    Size(u64),
    /// An RFC 3339 time: sees the entries appended up to it.
    Time(String),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Size(size) => write!(f, "{size}"),
            At::Time(time) => f.write_str(time),
        }
    }
}

/// Body of `POST /v1/keys:get`: keys as text in `keys`, any others in `keys_base64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysGetRequest {
    /// Keys that are UTF-8.
    #[serde(
        default,
        deserialize_with = "capped::list::<_, _, KEYS_GET_MAX>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub keys: Vec<String>,
    /// Keys in standard base64.
    #[serde(
        default,
        deserialize_with = "capped::list::<_, _, KEYS_GET_MAX>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub keys_base64: Vec<String>,
    /// Read as of this point; the current state if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

impl KeysGetRequest {
    /// All keys asked for: those of `keys`, then those of `keys_base64`.
    ///
    /// # Errors
    /// Base64 must be canonical.
    pub fn key_bytes(&self) -> Result<Vec<Vec<u8>>, BytesError> {
        let text = self.keys.iter().map(|key| Ok(key.as_bytes().to_vec()));
        let base64 = self
            .keys_base64
            .iter()
            .map(|key| bytes::from_base64("keys", key));
        text.chain(base64).collect()
    }
}

/// Answer to `POST /v1/keys:get`: one consistent read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeysGetResponse {
    /// The tree size the read saw.
    pub tree_size: u64,
    /// One per key asked for: those of `keys`, then those of `keys_base64`, in their order.
    pub entries: Vec<KeyEntry>,
}

/// One key's state in a [`KeysGetResponse`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyEntry {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Its version, possibly a tombstone; `null` if it never had one.
    pub entry: Option<EntryView>,
}

/// Body of `POST /v1/transactions`: all of it is appended, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionRequest {
    /// In the order of their leaves; a key may appear once.
    #[serde(deserialize_with = "capped::list::<_, _, TRANSACTION_OPERATIONS_MAX>")]
    pub operations: Vec<Operation>,
}

/// One operation of a transaction: an object with one member, `put`, `delete` or `check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Append a version.
    Put(PutOperation),
    /// Append a tombstone.
    Delete(DeleteOperation),
    /// Append nothing, but refuse the transaction unless the condition holds.
    Check(CheckOperation),
}

/// `put` in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutOperation {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The value, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Media type of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// User metadata.
    #[serde(
        default,
        deserialize_with = "capped::pairs::<_, METADATA_PAIRS_MAX>",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub metadata: BTreeMap<String, String>,
    /// Only if the key has no version, or a tombstone as its newest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_absent: bool,
    /// Only if the key's newest version, also a tombstone, has this index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_index: Option<u64>,
}

/// `delete` in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteOperation {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Only if the key's newest version, also a tombstone, has this index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_index: Option<u64>,
}

/// `check` in a transaction: exactly one of the two conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckOperation {
    /// The key, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The key must have no version, or a tombstone as its newest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_absent: bool,
    /// The key's newest version, also a tombstone, must have this index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_index: Option<u64>,
}

/// Answer to `POST /v1/transactions` (201).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionResponse {
    /// One per put and delete, in order, with contiguous indexes; checks append nothing.
    pub entries: Vec<TransactionEntry>,
    /// Index of the last entry + 1: the smallest tree that has all of it.
    pub tree_size: u64,
    /// This is the remembered answer to an earlier request with the same idempotency key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

/// One entry of a [`TransactionResponse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionEntry {
    /// Leaf index.
    pub index: u64,
    /// When the leader took it; the same for all of a transaction.
    pub timestamp_ms: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
}

/// What an entry says about its key's previous version (member `prev`).
///
/// Left out: nothing was asserted. `null`: the key had no version. A number: its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrevView {
    /// Nothing was asserted.
    #[default]
    NotAsserted,
    /// The key had no version.
    None,
    /// The key's previous version has this index.
    Version(u64),
}

impl PrevView {
    fn is_not_asserted(&self) -> bool {
        *self == PrevView::NotAsserted
    }
}

impl Serialize for PrevView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            PrevView::NotAsserted | PrevView::None => serializer.serialize_none(),
            PrevView::Version(index) => serializer.serialize_some(index),
        }
    }
}

impl<'de> Deserialize<'de> for PrevView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PrevView, D::Error> {
        let index = Option::<u64>::deserialize(deserializer)?;
        Ok(index.map_or(PrevView::None, PrevView::Version))
    }
}

/// One entry as JSON: `GET /v1/entries/{index}`, pages, watch events, multi-gets.
///
/// `leaf_base64`, `salt_base64` and `body_base64` are there only if asked for with `?raw=true`:
/// with them an export can be verified, and imported again byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    /// Leaf index.
    pub index: u64,
    /// Put, delete or system.
    pub kind: Kind,
    /// What a system entry is about; left out for users' entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<u16>,
    /// The key, if it is UTF-8. System entries have an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// When it was appended.
    pub timestamp_ms: u64,
    /// What it says about the key's previous version.
    #[serde(default, skip_serializing_if = "PrevView::is_not_asserted")]
    #[schema(value_type = Option<u64>)]
    pub prev: PrevView,
    /// Its place in a transaction of more than one entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<TransactionPlace>,
    /// Who wrote it, if known and UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Who wrote it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_base64: Option<String>,
    /// Media type, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// User metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The value, if it is UTF-8 and not left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Bytes of the value, also where the value is left out; 0 for tombstones and system entries.
    pub value_length: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
    /// The leaf, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_base64: Option<String>,
    /// The 16 random bytes that open the commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt_base64: Option<String>,
    /// A system entry's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// An entry's place in its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionPlace {
    /// 0 for the first.
    pub position: u16,
    /// Entries in the transaction.
    pub length: u16,
}

/// Answer to `GET /v1/entries?from=&limit=`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EntryPage {
    /// In the order of their indexes, without gaps.
    pub entries: Vec<EntryView>,
    /// The next page's `from`; `null` if this page reached the end of the ledger.
    pub next: Option<u64>,
    /// The tree size the page was read at.
    pub tree_size: u64,
}

/// An event of `GET /v1/watch`. The event's id is the leaf index; resume with `from` = id + 1.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// An entry, without its value if that has more than 64 KiB.
    Entry(Box<EntryView>),
    /// Nothing matched up to and including this index.
    Progress(WatchProgress),
}

impl WatchEvent {
    /// The index to resume after.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            WatchEvent::Entry(entry) => entry.index,
            WatchEvent::Progress(progress) => progress.index,
        }
    }
}

/// Data of a `progress` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchProgress {
    /// Everything up to and including this index was looked at.
    pub index: u64,
}

/// Answer to `GET /v1/proofs/inclusion?index=&tree_size=` (RFC 6962).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InclusionProof {
    /// The leaf proved.
    pub index: u64,
    /// The tree it is proved to be in.
    pub tree_size: u64,
    /// SHA-256 of the leaf.
    pub leaf_hash: HexHash,
    /// Root hash of that tree, as this node computes it; not signed.
    pub root_hash: HexHash,
    /// The siblings, from the leaf up.
    pub hashes: Vec<HexHash>,
}

/// Answer to `GET /v1/proofs/consistency?old=&new=` (RFC 6962).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsistencyProof {
    /// The smaller tree size.
    pub old_size: u64,
    /// The larger tree size.
    pub new_size: u64,
    /// Root hash of the smaller tree, as this node computes it; not signed.
    pub old_root_hash: HexHash,
    /// Root hash of the larger tree, as this node computes it; not signed.
    pub new_root_hash: HexHash,
    /// The proof's hashes.
    pub hashes: Vec<HexHash>,
}

/// Answer to `GET /v1/ledger`. A hint for people: pin what you checked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerInfo {
    /// The ledger's name, first line of each checkpoint.
    pub origin: String,
    /// Verifier keys: the ledger's newest first, then those it takes the place of and that still sign,
    /// then the voters'.
    pub verifier_keys: Vec<String>,
    /// A policy that demands the ledger's signature and a majority of the nodes'.
    pub policy: String,
    /// Entries appended so far, published or not.
    pub tree_size: u64,
    /// The newest published checkpoint, a signed note; `null` before the first.
    pub checkpoint: Option<String>,
    /// Key rotations, signed notes, oldest first.
    #[serde(default)]
    pub rotations: Vec<String>,
    /// Where each of the voters' keys is announced.
    #[serde(default)]
    pub announcements: Vec<KeyAnnouncement>,
}

/// Where a node's cosigning key is announced: a system entry whose inclusion can be proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyAnnouncement {
    /// The node's verifier key.
    pub verifier_key: String,
    /// Leaf index of the entry.
    pub index: u64,
}

/// Every refusal: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URN that ends in the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary, the same for every occurrence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code; a newer node may send one this version does not know.
    #[schema(value_type = ErrorCode)]
    pub code: String,
    /// The rule, what was found, what is allowed.
    pub detail: String,
    /// A next step, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Index of the key's newest version, also a tombstone (`condition_failed`, `deleted`). Left
    /// out if the key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_index: Option<u64>,
    /// Position of the operation in its transaction, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<u64>,
    /// The key that was refused, if it is UTF-8 and one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The ledger's tree size (`future`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_size: Option<u64>,
    /// When to try again, as in Retry-After but finer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Address of the leader, where one is known (`not_leader`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

impl Problem {
    /// A problem with its code's status and title.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:scribe-ledger:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code: code.as_str().to_owned(),
            detail: detail.into(),
            hint: None,
            current_index: None,
            operation: None,
            key: None,
            key_base64: None,
            tree_size: None,
            retry_after_ms: None,
            leader: None,
        }
    }

    /// The same problem with a next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// The code, if this version knows it.
    #[must_use]
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.code.parse().ok()
    }

    /// Whether the same request may succeed later; unknown codes are judged by their status.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.error_code() {
            Some(code) => code.is_retryable(),
            None => matches!(self.status, 408 | 429 | 502 | 503 | 504),
        }
    }
}

/// Gives the types that carry a key (and a value) in two members a way to read and make them.
macro_rules! key_members {
    ($($name:ident),+) => { $(
        impl $name {
            /// The key's bytes.
            ///
            /// # Errors
            /// Exactly one of `key` and `key_base64` must be there, and base64 must be canonical.
            pub fn key_bytes(&self) -> Result<Vec<u8>, BytesError> {
                bytes::from_members("key", self.key.as_deref(), self.key_base64.as_deref())
            }
        }
    )+ };
}
macro_rules! value_members {
    ($($name:ident),+) => { $(
        impl $name {
            /// The value's bytes.
            ///
            /// # Errors
            /// Exactly one of `value` and `value_base64` must be there, and base64 must be
            /// canonical.
            pub fn value_bytes(&self) -> Result<Vec<u8>, BytesError> {
                bytes::from_members("value", self.value.as_deref(), self.value_base64.as_deref())
            }
        }
    )+ };
}
key_members!(
    KeyVersion,
    KeyEntry,
    EntryView,
    PutOperation,
    DeleteOperation,
    CheckOperation
);
value_members!(EntryView, PutOperation);

#[cfg(test)]
mod tests;
