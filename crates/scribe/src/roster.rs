//! The cosigning keys of the nodes, as the ledger's own system entries announce them.
//!
//! An announcement is a hint for whoever shows or merges cosignatures; a client trusts the keys in its policy, never
//! these.

use std::collections::BTreeMap;
use std::io;

use scribe_proof::index::TreeSize;
use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::leaf::{Leaf, SystemKind};

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

/// Calls `visit` with subtype and body of every system entry, newest first, until it says `true`. An entry that cannot
/// be read because its bytes are damaged is an error of kind `InvalidData`.
pub fn system_entries(store: &Store, mut visit: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
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
            if visit(leaf.subtype, leaf.body) {
                return Ok(());
            }
        }
    }
}

/// The newest announced cosigning key of each node.
pub fn node_keys(store: &Store, origin: &str) -> io::Result<BTreeMap<NodeId, VerifierKey>> {
    let mut keys = BTreeMap::new();
    system_entries(store, |subtype, body| {
        if subtype == SystemKind::NodeKey as u16
            && let Some((node_id, public_key)) = parse_node_key(body)
        {
            let name = format!("{origin}/node/{node_id}");
            if let Ok(key) = VerifierKey::new(&name, KeyType::Cosignature, &public_key) {
                keys.entry(node_id).or_insert(key);
            }
        }
        false
    })?;
    Ok(keys)
}
