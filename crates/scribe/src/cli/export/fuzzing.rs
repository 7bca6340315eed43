//! Fuzz target: the openings beside an exported bundle.

use std::sync::OnceLock;

use bytes::Bytes;
use scribe_proof::{Hash, Leaf, LeafKind, Prev, Tile, TreeSize, commitment};

use super::super::transfer::Carried;
use super::tiles::{check_openings, write_opening};
use crate::ledger::batch::PrivateRecord;

/// A few entries of every kind: what they are called, and what they are.
pub(in crate::cli) fn entries() -> &'static [(&'static str, Carried)] {
    static ENTRIES: OnceLock<Vec<(&str, Carried)>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let put = |key: &'static [u8], value: &'static [u8]| entry(LeafKind::Put, key, value);
        vec![
            ("put", put(b"key", b"value")),
            ("bytes", put(b"\xff\0", b"\xfe")),
            ("delete", entry(LeafKind::Delete, b"key", b"")),
            ("system", entry(LeafKind::System, b"", b"")),
            (
                "erased",
                Carried {
                    private: None,
                    ..put(b"gone", b"nothing")
                },
            ),
        ]
    })
}

fn entry(kind: LeafKind, key: &[u8], value: &'static [u8]) -> Carried {
    let private = (kind != LeafKind::System).then(|| PrivateRecord {
        salt: [7; 16],
        metadata: Bytes::from_static(&[0, 0]),
        value: Bytes::from_static(value),
    });
    let commits = private.as_ref();
    let mut leaf = Vec::new();
    let fields = Leaf {
        kind,
        subtype: u16::from(kind == LeafKind::System),
        timestamp_ms: 5,
        transaction_position: 0,
        transaction_length: 1,
        prev: if kind == LeafKind::System {
            Prev::None
        } else {
            Prev::NotAsserted
        },
        commitment: commits.map_or(Hash::default(), |record| {
            commitment(&record.salt, &record.metadata, &record.value)
        }),
        key,
        author: b"",
        body: if kind == LeafKind::System {
            b"body"
        } else {
            b""
        },
    };
    fields.encode_into(&mut leaf).expect("a good leaf");
    Carried {
        leaf: leaf.into(),
        private,
    }
}

/// A file of openings: what is accepted opens the leaves it stands beside, and is written again byte for byte.
pub(crate) fn openings(data: &[u8]) {
    let entries = entries();
    let leaves: Vec<&[u8]> = entries.iter().map(|(_, entry)| &entry.leaf[..]).collect();
    let tile = Tile::at(0, 0, TreeSize::new(leaves.len() as u64)).expect("a tile");
    let Ok(erased) = check_openings(data, &tile, &leaves) else {
        return;
    };
    // Salt, metadata and value follow from the commitment; whether they are there does not.
    let mut rest = data;
    let mut found = 0;
    let mut again = Vec::new();
    for (_, entry) in entries {
        let length = rest
            .first_chunk::<4>()
            .map_or(0, |length| u32::from_be_bytes(*length));
        rest = &rest[4 + length as usize..];
        let opening = match (&entry.private, length) {
            (_, 0) => None,
            (Some(private), _) => Some(private.clone()),
            // The one whose value this ledger has lost.
            (None, _) => return,
        };
        let system = Leaf::parse(&entry.leaf).is_ok_and(|leaf| leaf.kind == LeafKind::System);
        found += u64::from(opening.is_none() && !system);
        write_opening(&mut again, opening.as_ref()).expect("memory");
    }
    assert_eq!(erased, found);
    assert_eq!(again, data, "a second encoding");
}

/// Inputs as the export writes them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let written = |without: &str| {
        let mut bytes = Vec::new();
        for (name, entry) in entries() {
            let opening = entry.private.as_ref().filter(|_| *name != without);
            write_opening(&mut bytes, opening).expect("memory");
        }
        bytes
    };
    let all = written("");
    let mut longer = all.clone();
    longer.push(0);
    let mut declared = all.clone();
    declared[..4].copy_from_slice(&30_000_000_u32.to_be_bytes());
    vec![
        ("openings", "all", all.clone()),
        ("openings", "one-erased", written("put")),
        ("openings", "tombstone-erased", written("delete")),
        ("openings", "cut", all[..all.len() - 5].to_vec()),
        ("openings", "longer", longer),
        ("openings", "declared", declared),
    ]
}
