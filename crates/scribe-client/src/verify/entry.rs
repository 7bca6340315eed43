//! Checking one entry as the ledger lists it, for audits and imports.

use scribe_proof::{
    Hash, Leaf, LeafError, LeafKind, Metadata, Prev, SALT_LENGTH, commitment, leaf_hash,
};

use crate::wire::bytes::{BytesError, from_base64};
use crate::wire::{EntryView, Kind, PrevView, TransactionPlace};

/// Why an [`EntryView`] does not hold together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A part is not there; ask for the entry with `raw`.
    #[error("entry {index}: `{member}` is missing; hint: ask for raw entries")]
    Missing {
        /// The entry.
        index: u64,
        /// The member.
        member: &'static str,
    },
    /// A part is not what its encoding allows.
    #[error("entry {index}: {source}")]
    Bytes {
        /// The entry.
        index: u64,
        /// What is wrong.
        source: BytesError,
    },
    /// The leaf or the metadata break a rule of the format.
    #[error("entry {index}: {source}")]
    Leaf {
        /// The entry.
        index: u64,
        /// What is wrong.
        source: LeafError,
    },
    /// A member says something else than the leaf.
    #[error("entry {index}: `{member}` does not match the leaf")]
    Mismatch {
        /// The entry.
        index: u64,
        /// The member.
        member: &'static str,
    },
}

/// Checks that a raw entry's members say what its leaf says, and that the leaf commits to its
/// metadata and value. Returns the leaf hash, computed from the leaf.
///
/// Whether that leaf is in the ledger at that index is for a proof, or a root hash over all leaves,
/// to show.
///
/// # Errors
/// See [`EntryError`]. A leaf of a later format is refused as [`EntryError::Leaf`] with
/// [`LeafError::is_unknown`].
pub fn check_entry(entry: &EntryView) -> Result<Hash, EntryError> {
    let index = entry.index;
    let bytes_error = |source| EntryError::Bytes { index, source };
    let leaf_error = |source| EntryError::Leaf { index, source };
    let member = |name, text: &Option<String>| match text {
        Some(text) => from_base64(name, text).map_err(bytes_error),
        None => Err(EntryError::Missing {
            index,
            member: name,
        }),
    };
    let bytes = member("leaf", &entry.leaf_base64)?;
    let leaf = Leaf::parse(&bytes).map_err(leaf_error)?;
    let hash = leaf_hash(&bytes);

    let author = match (&entry.author, &entry.author_base64) {
        (None, None) => Vec::new(),
        (Some(text), None) => text.as_bytes().to_vec(),
        (_, Some(base64)) => from_base64("author", base64).map_err(bytes_error)?,
    };
    let key = match (&entry.key, &entry.key_base64) {
        (None, None) if leaf.kind == LeafKind::System => Vec::new(),
        _ => entry.key_bytes().map_err(bytes_error)?,
    };
    let parts = [
        ("leaf_hash", entry.leaf_hash.0 == hash.0),
        ("kind", entry.kind == kind(leaf.kind)),
        ("subtype", entry.subtype.unwrap_or(0) == leaf.subtype),
        ("key", key == leaf.key),
        ("timestamp_ms", entry.timestamp_ms == leaf.timestamp_ms),
        ("prev", entry.prev == prev(leaf.prev)),
        ("transaction", entry.transaction == transaction(&leaf)),
        ("author", author == leaf.author),
    ];
    if let Some((member, _)) = parts.into_iter().find(|(_, holds)| !holds) {
        return Err(EntryError::Mismatch { index, member });
    }
    match leaf.kind {
        LeafKind::System => {
            let stored = entry.value.is_some() || entry.value_base64.is_some();
            if stored || !entry.metadata.is_empty() || entry.content_type.is_some() {
                return Err(EntryError::Mismatch {
                    index,
                    member: "value",
                });
            }
            if let Some(body) = &entry.body_base64
                && from_base64("body", body).map_err(bytes_error)? != leaf.body
            {
                return Err(EntryError::Mismatch {
                    index,
                    member: "body",
                });
            }
        }
        LeafKind::Put | LeafKind::Delete => {
            let salt: [u8; SALT_LENGTH] =
                member("salt", &entry.salt_base64)?
                    .try_into()
                    .map_err(|_| EntryError::Mismatch {
                        index,
                        member: "salt",
                    })?;
            let content_type = entry.content_type.clone().unwrap_or_default();
            let pairs = entry.metadata.clone().into_iter().collect();
            let metadata = Metadata::new(content_type, pairs)
                .and_then(|metadata| metadata.encode())
                .map_err(leaf_error)?;
            let value = match (&entry.value, &entry.value_base64) {
                (None, None) if leaf.kind == LeafKind::Delete => Vec::new(),
                _ => entry.value_bytes().map_err(bytes_error)?,
            };
            if value.len() as u64 != entry.value_length {
                return Err(EntryError::Mismatch {
                    index,
                    member: "value_length",
                });
            }
            if commitment(&salt, &metadata, &value) != leaf.commitment {
                return Err(EntryError::Mismatch {
                    index,
                    member: "value",
                });
            }
        }
    }
    Ok(hash)
}

fn kind(kind: LeafKind) -> Kind {
    match kind {
        LeafKind::Put => Kind::Put,
        LeafKind::Delete => Kind::Delete,
        LeafKind::System => Kind::System,
    }
}

fn prev(prev: Prev) -> PrevView {
    match prev {
        Prev::None => PrevView::None,
        Prev::Version(index) => PrevView::Version(index.get()),
        Prev::NotAsserted => PrevView::NotAsserted,
    }
}

fn transaction(leaf: &Leaf<'_>) -> Option<TransactionPlace> {
    let (position, length) = (leaf.transaction_position, leaf.transaction_length);
    (length != 1).then_some(TransactionPlace { position, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HexHash;
    use crate::wire::bytes::to_base64;

    fn entry() -> EntryView {
        let salt = [9; SALT_LENGTH];
        let pairs = vec![("unit".to_owned(), "kg".to_owned())];
        let metadata = Metadata::new("text/plain", pairs.clone())
            .unwrap()
            .encode()
            .unwrap();
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 5,
            transaction_position: 1,
            transaction_length: 2,
            prev: Prev::None,
            commitment: commitment(&salt, &metadata, b"v"),
            key: b"k",
            author: b"me",
            body: b"",
        };
        let mut bytes = Vec::new();
        leaf.encode_into(&mut bytes).unwrap();
        EntryView {
            index: 3,
            kind: Kind::Put,
            subtype: None,
            key: Some("k".into()),
            key_base64: None,
            timestamp_ms: 5,
            prev: PrevView::None,
            transaction: Some(TransactionPlace {
                position: 1,
                length: 2,
            }),
            author: Some("me".into()),
            author_base64: None,
            content_type: Some("text/plain".into()),
            metadata: pairs.into_iter().collect(),
            value: Some("v".into()),
            value_base64: None,
            value_length: 1,
            leaf_hash: HexHash(leaf_hash(&bytes).0),
            leaf_base64: Some(to_base64(&bytes)),
            salt_base64: Some(to_base64(&salt)),
            body_base64: None,
        }
    }

    #[test]
    fn every_member_is_compared_with_the_leaf() {
        let honest = entry();
        assert_eq!(check_entry(&honest).unwrap().0, honest.leaf_hash.0);
        let changes: [(&str, fn(&mut EntryView)); 14] = [
            ("leaf_hash", |entry| entry.leaf_hash.0[0] ^= 1),
            ("kind", |entry| entry.kind = Kind::Delete),
            ("subtype", |entry| entry.subtype = Some(1)),
            ("key", |entry| entry.key = Some("l".into())),
            ("timestamp_ms", |entry| entry.timestamp_ms += 1),
            ("prev", |entry| entry.prev = PrevView::NotAsserted),
            ("transaction", |entry| entry.transaction = None),
            ("author", |entry| entry.author = None),
            ("`value`", |entry| entry.value = Some("w".into())),
            ("`value`", |entry| entry.content_type = None),
            ("`value`", |entry| entry.metadata.clear()),
            ("`value`", |entry| {
                entry.salt_base64 = Some(to_base64(&[8; 16]))
            }),
            ("value_length", |entry| entry.value_length = 2),
            ("raw", |entry| entry.leaf_base64 = None),
        ];
        for (expected, change) in changes {
            let mut entry = honest.clone();
            change(&mut entry);
            let error = check_entry(&entry).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
