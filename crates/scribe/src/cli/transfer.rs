//! The export format: what `scribe export` writes and `scribe import` reads. `docs/format-export.md` describes it.
//!
//! One JSON object per line: a header, the entries in ledger order without gaps, an end with the root hash. An entry's
//! line carries everything that is hashed and everything that opens it, so a reader can verify each line by itself and
//! the whole file by its root hash. Exporting and importing both check every entry through [`Checked`].

use std::io::{BufRead, Read as _};

use bytes::Bytes;
use scribe_client::wire::bytes::{from_base64, from_members, to_base64, to_members};
use scribe_client::wire::{EntryView, HexHash, Kind};
use scribe_proof::tree::Frontier;
use scribe_proof::{Hash, Leaf, LeafIndex, LeafKind, Metadata, TreeSize, commitment, leaf_hash};
use serde::{Deserialize, Serialize};

use super::output::Failure;
use crate::ledger::batch::PrivateRecord;
use crate::limits;

/// Version of the format.
pub(super) const VERSION: u32 = 1;

/// First line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// [`VERSION`]; its presence makes a line a header.
    pub(super) scribe_export: u32,
    /// Name of the ledger it was taken from.
    pub(super) origin: String,
    /// Entries that follow.
    pub(super) tree_size: u64,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Leaf index.
    pub(super) index: u64,
    /// `put`, `delete` or `system`; for readers, the leaf says the same.
    pub(super) kind: String,
    /// The key, if it is UTF-8; for readers, the leaf says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// The key otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_base64: Option<String>,
    /// Milliseconds since 1970; for readers, the leaf says the same.
    pub(super) timestamp_ms: u64,
    /// The leaf, byte for byte.
    pub(super) leaf_base64: String,
    /// Opens the commitment, with metadata and value. Left out, with them, for system entries and erased ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) salt_base64: Option<String>,
    /// Encoded metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata_base64: Option<String>,
    /// The value, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// The value otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value_base64: Option<String>,
}

/// Last line; without it the file is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// Always `true`.
    pub(super) end: bool,
    /// Entries in the file.
    pub(super) tree_size: u64,
    /// Root hash over them.
    pub(super) root_hash: HexHash,
}

/// An entry as it is carried: its leaf, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) leaf: Bytes,
    pub(super) private: Option<PrivateRecord>,
}

impl Carried {
    /// From a line of a file.
    pub(super) fn from_line(line: &Line) -> Result<Carried, String> {
        let text = |error: scribe_client::wire::BytesError| error.to_string();
        let leaf = from_base64("leaf", &line.leaf_base64).map_err(text)?;
        let private = match &line.salt_base64 {
            None => None,
            Some(salt) => Some(PrivateRecord {
                salt: read_salt(salt)?,
                metadata: match &line.metadata_base64 {
                    Some(metadata) => from_base64("metadata", metadata).map_err(text)?.into(),
                    None => Bytes::from_static(Metadata::EMPTY_ENCODING),
                },
                value: read_value(line.value.as_deref(), line.value_base64.as_deref())?,
            }),
        };
        Ok(Carried {
            leaf: leaf.into(),
            private,
        })
    }

    /// From what a node answers to `?raw=true`.
    pub(super) fn from_view(view: &EntryView) -> Result<Carried, String> {
        let leaf = view
            .leaf_base64
            .as_deref()
            .ok_or("the answer has no leaf")?;
        let leaf = from_base64("leaf", leaf).map_err(|error| error.to_string())?;
        let private = match (&view.salt_base64, view.kind) {
            (None, _) | (_, Kind::System) => None,
            (Some(salt), _) => {
                let pairs = view.metadata.clone().into_iter().collect();
                let metadata = Metadata::new(view.content_type.clone().unwrap_or_default(), pairs)
                    .and_then(|metadata| metadata.encode())
                    .map_err(|error| error.to_string())?;
                Some(PrivateRecord {
                    salt: read_salt(salt)?,
                    metadata: metadata.into(),
                    value: read_value(view.value.as_deref(), view.value_base64.as_deref())?,
                })
            }
        };
        Ok(Carried {
            leaf: leaf.into(),
            private,
        })
    }

    /// As a line of a file.
    pub(super) fn to_line(&self, index: LeafIndex) -> Result<Line, String> {
        let leaf = Leaf::parse(&self.leaf).map_err(|error| error.to_string())?;
        let (key, key_base64) = to_members(leaf.key);
        let kind = match leaf.kind {
            LeafKind::Put => "put",
            LeafKind::Delete => "delete",
            LeafKind::System => "system",
        };
        let mut line = Line {
            index: index.get(),
            kind: kind.to_owned(),
            key,
            key_base64,
            timestamp_ms: leaf.timestamp_ms,
            leaf_base64: to_base64(&self.leaf),
            ..Line::default()
        };
        if let Some(private) = &self.private {
            line.salt_base64 = Some(to_base64(&private.salt));
            if private.metadata.as_ref() != Metadata::EMPTY_ENCODING {
                line.metadata_base64 = Some(to_base64(&private.metadata));
            }
            if leaf.kind == LeafKind::Put {
                (line.value, line.value_base64) = to_members(&private.value);
            }
        }
        Ok(line)
    }

    /// Bytes it takes, roughly.
    pub(super) fn length(&self) -> usize {
        let private = self.private.as_ref();
        self.leaf.len()
            + private.map_or(0, |private| {
                18 + private.metadata.len() + private.value.len()
            })
    }
}

fn read_salt(text: &str) -> Result<[u8; scribe_proof::SALT_LENGTH], String> {
    let salt = from_base64("salt", text).map_err(|error| error.to_string())?;
    salt.try_into().map_err(|salt: Vec<u8>| {
        format!(
            "a salt is {} bytes long, found {}",
            scribe_proof::SALT_LENGTH,
            salt.len()
        )
    })
}

/// A value from its two members; neither means an empty one, as for a tombstone.
fn read_value(value: Option<&str>, value_base64: Option<&str>) -> Result<Bytes, String> {
    match (value, value_base64) {
        (None, None) => Ok(Bytes::new()),
        (value, base64) => from_members("value", value, base64)
            .map(Bytes::from)
            .map_err(|error| error.to_string()),
    }
}

/// Checks entries one after another: each leaf is sound, each opening opens its leaf, and the tree over them.
#[derive(Debug, Default)]
pub(super) struct Checked {
    tree: Frontier,
}

impl Checked {
    /// How many entries were checked.
    pub(super) fn size(&self) -> TreeSize {
        self.tree.size()
    }

    /// Root hash over the entries checked.
    pub(super) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Checks the next entry and takes it into the tree.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn add(&mut self, index: u64, entry: &Carried) -> Result<(), String> {
        let expected = self.tree.size().next_index().get();
        if index != expected {
            return Err(format!(
                "entries follow each other without gaps: found index {index}, expected {expected}"
            ));
        }
        let leaf = Leaf::parse(&entry.leaf).map_err(|error| format!("entry {index}: {error}"))?;
        if let Some(private) = &entry.private {
            if leaf.kind == LeafKind::System {
                return Err(format!(
                    "entry {index} is a system entry and has no commitment to open"
                ));
            }
            let computed = commitment(&private.salt, &private.metadata, &private.value);
            if computed != leaf.commitment {
                return Err(format!(
                    "entry {index}: value, metadata and salt hash to commitment {computed}, the leaf has {}",
                    leaf.commitment
                ));
            }
        }
        self.tree.append(leaf_hash(&entry.leaf));
        Ok(())
    }
}

/// Reads a line of at most [`limits::BULK_LINE_LENGTH_MAX`] bytes, without its newline; `false` at the end.
///
/// # Errors
/// The file cannot be read, or the line is longer.
pub(super) fn read_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: u64,
) -> Result<bool, Failure> {
    line.clear();
    let allowed = limits::BULK_LINE_LENGTH_MAX;
    let read = reader
        .by_ref()
        .take(allowed as u64 + 1)
        .read_until(b'\n', line)
        .map_err(|error| Failure::unexpected(format!("cannot read line {number}: {error}")))?;
    if read == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > allowed {
        return Err(Failure::user(format!(
            "line {number} has more than the {allowed} bytes allowed"
        )));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use scribe_proof::Prev;

    use super::*;

    /// An entry as a node would have made it.
    fn entry(kind: LeafKind, key: &[u8], metadata: &Metadata, value: &[u8]) -> Carried {
        let private = (kind != LeafKind::System).then(|| PrivateRecord {
            salt: [7; 16],
            metadata: metadata.encode().unwrap().into(),
            value: Bytes::copy_from_slice(value),
        });
        let commitment = match &private {
            Some(private) => commitment(&private.salt, &private.metadata, &private.value),
            None => Hash::default(),
        };
        let mut leaf = Vec::new();
        Leaf {
            kind,
            subtype: u16::from(kind == LeafKind::System),
            timestamp_ms: 5,
            transaction_position: 0,
            transaction_length: 1,
            prev: Prev::NotAsserted,
            commitment,
            key,
            author: b"",
            body: if kind == LeafKind::System {
                b"body"
            } else {
                b""
            },
        }
        .encode_into(&mut leaf)
        .unwrap();
        Carried {
            leaf: leaf.into(),
            private,
        }
    }

    fn entries() -> Vec<Carried> {
        let metadata = Metadata::new("text/plain", vec![("a".into(), "b".into())]).unwrap();
        let none = Metadata::default();
        vec![
            entry(LeafKind::System, b"", &none, b""),
            entry(LeafKind::Put, b"key", &metadata, b"value"),
            entry(LeafKind::Put, b"\xff", &none, b"\xfe\0"),
            entry(LeafKind::Put, b"empty", &none, b""),
            entry(LeafKind::Delete, b"key", &none, b""),
        ]
    }

    #[test]
    fn entries_survive_the_format_byte_for_byte() {
        let mut checked = Checked::default();
        for (index, entry) in entries().iter().enumerate() {
            let line = entry.to_line(LeafIndex::new(index as u64)).unwrap();
            let json = serde_json::to_string(&line).unwrap();
            let read: Line = serde_json::from_str(&json).unwrap();
            assert_eq!(&Carried::from_line(&read).unwrap(), entry, "{json}");
            checked.add(read.index, entry).unwrap();
        }
        assert_eq!(checked.size(), TreeSize::new(5));
    }

    #[test]
    fn what_was_changed_is_refused() {
        let original = &entries()[1];
        let changed = |change: fn(&mut PrivateRecord)| {
            let mut entry = original.clone();
            change(entry.private.as_mut().unwrap());
            Checked::default().add(0, &entry).unwrap_err()
        };
        assert!(
            changed(|private| private.value = Bytes::from_static(b"valuf")).contains("commitment")
        );
        assert!(changed(|private| private.salt[3] ^= 1).contains("commitment"));
        assert!(
            changed(|private| private.metadata = Bytes::from_static(&[0, 0]))
                .contains("commitment")
        );
        assert!(
            Checked::default()
                .add(1, original)
                .unwrap_err()
                .contains("expected 0")
        );
        let mut cut = original.clone();
        cut.leaf.truncate(20);
        assert!(Checked::default().add(0, &cut).is_err());
        let mut opened = entries()[0].clone();
        opened.private = original.private.clone();
        assert!(Checked::default().add(0, &opened).is_err());
    }

    #[test]
    fn an_erased_entry_is_carried_without_its_opening() {
        let erased = Carried {
            private: None,
            ..entries()[1].clone()
        };
        let line = erased.to_line(LeafIndex::new(0)).unwrap();
        assert_eq!((&line.value, &line.salt_base64), (&None, &None));
        assert_eq!(Carried::from_line(&line).unwrap(), erased);
        Checked::default().add(0, &erased).unwrap();
    }

    #[test]
    fn lines_end_at_newlines_or_the_end() {
        let mut reader = &b"a\n\nlast"[..];
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut reader, &mut line, 1).unwrap() {
            lines.push(line.clone());
        }
        assert_eq!(lines, [&b"a"[..], b"", b"last"]);
    }
}
