//! Inner types to wire types, and back. No rule of the ledger is decided here.

use bytes::Bytes;
use scribe_client::wire::bytes::{to_base64, to_members};
use scribe_client::wire::{
    self, EntryView, HexHash, Kind, PrevView, TransactionEntry, TransactionPlace, Version,
};
use scribe_proof::hash::Hash;
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{Leaf, LeafKind, Metadata, Prev};

use super::error::ApiError;
use super::key_path;
use crate::node::Entry;
use crate::sequencer::{Appended, Condition, Operation, TransactionAppended, WriteKind};

/// A hash as it is written in JSON.
pub fn hex(hash: &Hash) -> HexHash {
    HexHash(*hash.as_bytes())
}

/// Hashes as they are written in JSON.
pub fn hexes(hashes: &[Hash]) -> Vec<HexHash> {
    hashes.iter().map(hex).collect()
}

/// A kind as it is written in JSON.
pub fn kind(kind: LeafKind) -> Kind {
    match kind {
        LeafKind::Put => Kind::Put,
        LeafKind::Delete => Kind::Delete,
        LeafKind::System => Kind::System,
    }
}

/// How much of an entry a reader asked for.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// With leaf, salt and body, byte for byte.
    pub raw: bool,
    /// Values longer than this are left out.
    pub value_length_max: usize,
}

impl View {
    /// Everything but the raw bytes.
    pub const WHOLE: View = View {
        raw: false,
        value_length_max: usize::MAX,
    };
}

/// An entry as JSON.
///
/// A leaf this software cannot read ("included, not understood") is shown as a system entry of which only the hash and
/// the raw bytes are known.
pub fn entry(entry: &Entry, view: View) -> EntryView {
    let raw = |bytes: &[u8]| view.raw.then(|| to_base64(bytes));
    let mut shown = EntryView {
        index: entry.index.get(),
        kind: Kind::System,
        subtype: None,
        key: None,
        key_base64: None,
        timestamp_ms: 0,
        prev: PrevView::NotAsserted,
        transaction: None,
        author: None,
        author_base64: None,
        content_type: None,
        metadata: std::collections::BTreeMap::new(),
        value: None,
        value_base64: None,
        value_length: 0,
        leaf_hash: hex(&entry.leaf_hash()),
        leaf_base64: raw(&entry.leaf),
        salt_base64: entry
            .private
            .as_ref()
            .and_then(|private| raw(&private.salt)),
        body_base64: None,
    };
    let Ok(leaf) = Leaf::parse(&entry.leaf) else {
        return shown;
    };
    shown.kind = kind(leaf.kind);
    (shown.key, shown.key_base64) = to_members(leaf.key);
    shown.timestamp_ms = leaf.timestamp_ms;
    shown.prev = match leaf.prev {
        Prev::None => PrevView::None,
        Prev::Version(index) => PrevView::Version(index.get()),
        Prev::NotAsserted => PrevView::NotAsserted,
    };
    if leaf.kind == LeafKind::System {
        shown.subtype = Some(leaf.subtype);
        shown.body_base64 = raw(leaf.body);
    }
    if leaf.transaction_length > 1 {
        shown.transaction = Some(TransactionPlace {
            position: leaf.transaction_position,
            length: leaf.transaction_length,
        });
    }
    if !leaf.author.is_empty() {
        (shown.author, shown.author_base64) = to_members(leaf.author);
    }
    if entry.private.is_some() {
        // Metadata that cannot be read must not hide the entry; an audit reports it.
        let Metadata {
            content_type,
            pairs,
        } = entry.metadata().unwrap_or_default();
        shown.content_type = (!content_type.is_empty()).then_some(content_type);
        shown.metadata = pairs.into_iter().collect();
        let value = entry.value();
        shown.value_length = value.len() as u64;
        if leaf.kind == LeafKind::Put && value.len() <= view.value_length_max {
            (shown.value, shown.value_base64) = to_members(&value);
        }
    }
    shown
}

/// An entry as one line of a key's history.
pub fn version(entry: &Entry) -> Version {
    let leaf = Leaf::parse(&entry.leaf).ok();
    let content_type = entry.metadata().unwrap_or_default().content_type;
    Version {
        index: entry.index.get(),
        timestamp_ms: leaf.map_or(0, |leaf| leaf.timestamp_ms),
        kind: leaf.map_or(Kind::System, |leaf| kind(leaf.kind)),
        value_length: entry.value().len() as u64,
        leaf_hash: hex(&entry.leaf_hash()),
        content_type: (!content_type.is_empty()).then_some(content_type),
    }
}

/// The JSON of an acknowledged write, as [`wire::Appended`] would be written; by hand, because every write pays for it.
pub fn write_appended(out: &mut Vec<u8>, appended: &Appended) {
    out.extend_from_slice(b"{");
    write_appended_members(out, appended);
    out.push(b'}');
}

/// The members of [`wire::Appended`] without their braces: a bulk result line has the same ones.
pub fn write_appended_members(out: &mut Vec<u8>, appended: &Appended) {
    out.extend_from_slice(b"\"index\":");
    write_number(out, appended.index.get());
    out.extend_from_slice(b",\"timestamp_ms\":");
    write_number(out, appended.timestamp_ms);
    out.extend_from_slice(b",\"leaf_hash\":\"");
    write_hex(out, &appended.leaf_hash);
    out.extend_from_slice(b"\",\"tree_size\":");
    write_number(out, appended.tree_size.get());
    if appended.replayed {
        out.extend_from_slice(b",\"replayed\":true");
    }
}

/// Decimal digits.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// 64 lowercase hexadecimal digits.
pub fn write_hex(out: &mut Vec<u8>, hash: &Hash) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in hash.as_bytes() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// An acknowledged transaction as JSON.
pub fn transaction_response(appended: &TransactionAppended) -> wire::TransactionResponse {
    wire::TransactionResponse {
        entries: appended
            .entries
            .iter()
            .map(|entry| TransactionEntry {
                index: entry.index.get(),
                timestamp_ms: entry.timestamp_ms,
                leaf_hash: hex(&entry.leaf_hash),
            })
            .collect(),
        tree_size: appended.tree_size.get(),
        replayed: appended.replayed,
    }
}

/// One operation of a transaction, checked for its form.
///
/// # Errors
/// Key or value missing or not base64, metadata over its limits, or conditions that exclude each other.
pub fn operation(operation: wire::Operation) -> Result<Operation, ApiError> {
    match operation {
        wire::Operation::Put(mut put) => {
            let key = key(put.key_bytes())?;
            let condition = condition(put.if_absent, put.if_index)?;
            let metadata = Metadata::new(
                put.content_type.take().unwrap_or_default(),
                std::mem::take(&mut put.metadata).into_iter().collect(),
            )?;
            // Text is moved, not copied: a value may be the whole body.
            let value = match (put.value.take(), put.value_base64.is_some()) {
                (Some(text), false) => Bytes::from(text),
                (text, _) => {
                    put.value = text;
                    put.value_bytes()
                        .map(Bytes::from)
                        .map_err(|error| ApiError::invalid_argument(error.to_string()))?
                }
            };
            Ok(Operation::Write {
                key,
                kind: WriteKind::Put { metadata, value },
                condition,
            })
        }
        wire::Operation::Delete(delete) => Ok(Operation::Write {
            key: key(delete.key_bytes())?,
            kind: WriteKind::Delete,
            condition: condition(false, delete.if_index)?,
        }),
        wire::Operation::Check(check) => {
            let condition = condition(check.if_absent, check.if_index)?;
            if condition == Condition::None {
                return Err(ApiError::invalid_argument(
                    "a check has neither if_absent nor if_index, needed is one of them",
                ));
            }
            Ok(Operation::Check {
                key: key(check.key_bytes())?,
                condition,
            })
        }
    }
}

fn key(bytes: Result<Vec<u8>, wire::BytesError>) -> Result<Bytes, ApiError> {
    let key = bytes.map_err(|error| ApiError::invalid_key(error.to_string()))?;
    key_path::check_length(&key)?;
    Ok(Bytes::from(key))
}

fn condition(if_absent: bool, if_index: Option<u64>) -> Result<Condition, ApiError> {
    match (if_absent, if_index) {
        (false, None) => Ok(Condition::None),
        (true, None) => Ok(Condition::Absent),
        (false, Some(index)) => Ok(Condition::Version(LeafIndex::new(index))),
        (true, Some(_)) => Err(ApiError::invalid_argument(
            "if_absent and if_index are both given, allowed is one of them",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scribe_proof::index::TreeSize;

    #[test]
    fn the_hand_written_json_is_the_contracts() {
        for (number, replayed) in [(0, false), (9, true), (10, false), (u64::MAX, true)] {
            let appended = Appended {
                index: LeafIndex::new(number),
                timestamp_ms: number,
                leaf_hash: Hash([0xa5; 32]),
                tree_size: TreeSize::new(number),
                replayed,
            };
            let wire = wire::Appended {
                index: number,
                timestamp_ms: number,
                leaf_hash: hex(&appended.leaf_hash),
                tree_size: number,
                replayed,
            };
            let mut written = Vec::new();
            write_appended(&mut written, &appended);
            assert_eq!(written, serde_json::to_vec(&wire).unwrap());
        }
    }
}
