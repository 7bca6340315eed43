//! The keys of the ledger and of its nodes, as the ledger's own system entries name them.
//!
//! An announcement of a node's key is a hint for whoever shows or merges cosignatures; a client trusts the keys in its
//! policy, never these. Which of the ledger's keys sign is said by its entries alone, the same on every node.

use std::collections::BTreeMap;
use std::io;

use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::leaf::{Leaf, SystemKind};
use scribe_proof::rotation::{LedgerKeys, Rotation};

use crate::consensus::NodeId;
use crate::limits;
use crate::store::Store;

/// Body of a key announcement: `[u64 node id ‖] u8 key type ‖ 32-byte public key`.
pub fn key_body(node_id: Option<NodeId>, key_type: u8, public_key: &[u8; 32]) -> bytes::Bytes {
    let mut body = Vec::with_capacity(41);
    if let Some(node_id) = node_id {
        body.extend_from_slice(&node_id.to_be_bytes());
    }
    body.push(key_type);
    body.extend_from_slice(public_key);
    body.into()
}

/// Node id and public key of a node-key announcement.
pub fn parse_node_key(body: &[u8]) -> Option<(NodeId, [u8; 32])> {
    let (node_id, rest) = body.split_first_chunk::<8>()?;
    let (key_type, public_key) = rest.split_first()?;
    if *key_type != KeyType::Cosignature as u8 {
        return None;
    }
    Some((u64::from_be_bytes(*node_id), public_key.try_into().ok()?))
}

/// The key a ledger begins with, in the announcement of it: `u8 key type ‖ 32-byte public key`.
fn parse_ledger_key(origin: &str, body: &[u8]) -> Option<VerifierKey> {
    let (key_type, public_key) = body.split_first()?;
    if *key_type != KeyType::Ed25519 as u8 {
        return None;
    }
    VerifierKey::new(origin, KeyType::Ed25519, public_key.try_into().ok()?).ok()
}

/// A system entry.
#[derive(Debug, Clone, Copy)]
pub struct SystemEntry<'a> {
    /// Its place in the ledger.
    pub index: LeafIndex,
    /// Its time, in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: u64,
    /// What it is about.
    pub subtype: u16,
    /// What it says.
    pub body: &'a [u8],
}

/// Calls `visit` with every system entry, newest first, until it says `true`. An entry that cannot be read because its
/// bytes are damaged is an error of kind `InvalidData`.
pub fn system_entries(
    store: &Store,
    mut visit: impl FnMut(&SystemEntry<'_>) -> bool,
) -> io::Result<()> {
    let mut below = store.applied().tree_size;
    loop {
        let page = store.history(b"", below, limits::PAGE_LIMIT_DEFAULT)?;
        let Some(oldest) = page.last() else {
            return Ok(());
        };
        below = TreeSize::new(oldest.index.get());
        for version in &page {
            let entry = store.entry_of(version)?;
            let Ok(leaf) = Leaf::parse(&entry.leaf) else {
                continue;
            };
            let found = SystemEntry {
                index: version.index,
                timestamp_ms: leaf.timestamp_ms,
                subtype: leaf.subtype,
                body: leaf.body,
            };
            if visit(&found) {
                return Ok(());
            }
        }
    }
}

/// The newest announced cosigning key of each node.
pub fn node_keys(store: &Store, origin: &str) -> io::Result<BTreeMap<NodeId, VerifierKey>> {
    let announced = announcements(store, origin)?;
    Ok(announced
        .into_iter()
        .map(|(id, (key, _))| (id, key))
        .collect())
}

/// The newest announced cosigning key of each node, with the place of the entry that announces it.
pub fn announcements(
    store: &Store,
    origin: &str,
) -> io::Result<BTreeMap<NodeId, (VerifierKey, LeafIndex)>> {
    let mut keys = BTreeMap::new();
    system_entries(store, |entry| {
        if entry.subtype == SystemKind::NodeKey as u16
            && let Some((node_id, public_key)) = parse_node_key(entry.body)
        {
            let name = format!("{origin}/node/{node_id}");
            if let Ok(key) = VerifierKey::new(&name, KeyType::Cosignature, &public_key) {
                keys.entry(node_id).or_insert((key, entry.index));
            }
        }
        false
    })?;
    Ok(keys)
}

/// The ledger's keys since it was begun, or restored under another key; `None` if no entry names one yet. A rotation that
/// does not hold changes nothing.
pub fn ledger_keys(store: &Store, origin: &str) -> io::Result<Option<LedgerKeys>> {
    let mut begin = None;
    let mut rotations = Vec::new();
    system_entries(store, |entry| {
        if entry.subtype != SystemKind::LedgerKey as u16 {
            return false;
        }
        begin = parse_ledger_key(origin, entry.body);
        if begin.is_none() {
            rotations.push((entry.index, entry.timestamp_ms, entry.body.to_vec()));
        }
        begin.is_some()
    })?;
    let Some(begin) = begin else { return Ok(None) };
    let mut keys = LedgerKeys::begin(begin);
    for (index, timestamp_ms, body) in rotations.into_iter().rev() {
        let taken = String::from_utf8(body)
            .map_err(|error| error.to_string())
            .and_then(|note| Rotation::parse(&note).map_err(|error| error.to_string()))
            .and_then(|rotation| {
                keys.rotate(rotation, index, timestamp_ms)
                    .map_err(|error| error.to_string())
            });
        if let Err(reason) = taken {
            tracing::debug!(%index, reason, "an entry is no rotation of the ledger's key");
        }
    }
    Ok(Some(keys))
}
