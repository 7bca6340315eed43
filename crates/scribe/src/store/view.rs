//! What goes into the store's view of the ledger and what comes out of it: plain data.

use bytes::Bytes;
use scribe_proof::hash::{Hash, empty_root};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafError, LeafKind};

use super::frame::{FramePosition, LogId};
use crate::ledger::batch::{IdempotencyDigest, PrivateRecord};

/// The state of the ledger after the last applied frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The last frame applied; `None` before the first.
    pub last_log_id: Option<LogId>,
    /// The newest applied membership, opaque to the store; its own log id is inside. Empty before the first.
    pub membership: Bytes,
    /// How many leaves the ledger has.
    pub tree_size: TreeSize,
    /// Newest timestamp of any leaf; 0 before the first.
    pub last_timestamp_ms: u64,
    /// The newest agreed tree head: size, and root hash at that size.
    pub published: (TreeSize, Hash),
    /// Whether a put or delete lies at or above the published size. After a restart it is true when *any* leaf does:
    /// one publication too many is harmless.
    pub user_entries_since_published: bool,
}

impl Default for Applied {
    fn default() -> Self {
        Self {
            last_log_id: None,
            membership: Bytes::new(),
            tree_size: TreeSize::EMPTY,
            last_timestamp_ms: 0,
            published: (TreeSize::EMPTY, empty_root()),
            user_entries_since_published: false,
        }
    }
}

/// What one frame does to the view. The ledger decides it, the store carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effects {
    /// A blank frame: only the log id moves on.
    Nothing,
    /// A void frame: its sequencing no longer fitted, it takes no leaves.
    Void,
    /// A new membership, as opaque bytes.
    Membership(Bytes),
    /// A tree head was agreed on.
    Publish {
        /// Tree size of the head.
        size: TreeSize,
        /// Root hash at that size.
        root: Hash,
    },
    /// The frame's leaves, in order, and the writes to be remembered under an idempotency key.
    Entries(Vec<LeafEffect>, Vec<IdempotencyDigest>),
}

/// One leaf to be taken into tree and index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafEffect {
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// Its key.
    pub key: Bytes,
    /// Put, delete or system.
    pub kind: LeafKind,
    /// Its timestamp.
    pub timestamp_ms: u64,
}

/// What applying a frame did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyTicket {
    /// The frame.
    pub log_id: LogId,
    /// Index of its first leaf (the tree size before it, if it has none).
    pub first_leaf: LeafIndex,
    /// How many leaves it took.
    pub count: u32,
    /// Tree size after it.
    pub tree_size: TreeSize,
}

/// One version of a key, and where its entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its leaf index.
    pub index: LeafIndex,
    /// Put or delete (or system, for the versions of the empty key).
    pub kind: LeafKind,
    /// The frame that holds it.
    pub position: FramePosition,
    /// Its place within the frame, 0-based.
    pub slot: u16,
}

/// A write remembered under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Its first leaf.
    pub first: LeafIndex,
    /// How many leaves it took.
    pub count: u16,
    /// First 16 bytes of SHA-256 over the request.
    pub fingerprint: [u8; 16],
    /// When it was written, in ledger time.
    pub timestamp_ms: u64,
}

/// An entry as stored: the canonical leaf, and the opening of its commitment unless it has none (system leaves) or
/// it was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its leaf index.
    pub index: LeafIndex,
    /// The leaf, exactly as hashed into the tree.
    pub leaf: Bytes,
    /// Salt, metadata and value.
    pub private: Option<PrivateRecord>,
}

impl StoredEntry {
    /// The leaf taken apart.
    ///
    /// # Errors
    /// When the bytes are not a leaf this software knows.
    pub fn parse(&self) -> Result<Leaf<'_>, LeafError> {
        Leaf::parse(&self.leaf)
    }

    /// Bytes of leaf, metadata and value.
    pub fn byte_length(&self) -> usize {
        let private = self.private.as_ref();
        self.leaf.len() + private.map_or(0, |record| record.metadata.len() + record.value.len())
    }
}

/// The key a leaf is indexed under.
///
/// System leaves go under the empty key, which no user can write: its history is the list of all of them. A key
/// named inside a system leaf (of an erasure, say) gains no version by it.
pub(crate) fn indexed_key(kind: LeafKind, key: &[u8]) -> &[u8] {
    match kind {
        LeafKind::System => &[],
        LeafKind::Put | LeafKind::Delete => key,
    }
}
