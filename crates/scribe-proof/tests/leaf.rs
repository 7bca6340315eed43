//! Leaves and metadata: one encoding each, and every rule enforced both ways.

mod common;

use proptest::prelude::*;
use scribe_proof::{Hash, Leaf, LeafError, LeafIndex, LeafKind, Metadata, Prev};

fn put() -> Leaf<'static> {
    Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 5,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: Hash([3; 32]),
        key: b"k",
        author: b"",
        body: b"",
    }
}

fn system() -> Leaf<'static> {
    Leaf {
        kind: LeafKind::System,
        subtype: 1,
        commitment: Hash::default(),
        key: b"",
        body: b"hi",
        ..put()
    }
}

/// Encoding is refused for this reason; and the same bytes, made without checks, are refused too.
#[track_caller]
fn refused(leaf: &Leaf<'_>, expected: LeafError) {
    let mut out = b"before".to_vec();
    assert_eq!(leaf.encode_into(&mut out), Err(expected));
    assert_eq!(out, b"before");
    assert_eq!(Leaf::parse(&raw(leaf)), Err(expected));
}

/// The layout without the rules, written a second time.
fn raw(leaf: &Leaf<'_>) -> Vec<u8> {
    let mut out = vec![1, leaf.kind as u8];
    out.extend(leaf.subtype.to_be_bytes());
    out.extend(leaf.timestamp_ms.to_be_bytes());
    out.extend(leaf.transaction_position.to_be_bytes());
    out.extend(leaf.transaction_length.to_be_bytes());
    out.extend(match leaf.prev {
        Prev::None => [0; 8],
        Prev::Version(index) => (index.get() + 1).to_be_bytes(),
        Prev::NotAsserted => [255; 8],
    });
    out.extend(leaf.commitment.0);
    out.extend((leaf.key.len() as u16).to_be_bytes());
    out.extend(leaf.key);
    out.push(leaf.author.len() as u8);
    out.extend(leaf.author);
    out.extend((leaf.body.len() as u16).to_be_bytes());
    out.extend(leaf.body);
    out
}

#[test]
fn layout_is_the_documented_one() {
    let leaf = Leaf {
        subtype: 0,
        timestamp_ms: 0x0102_0304_0506_0708,
        transaction_position: 0x0a0b,
        transaction_length: 0x0c0d,
        prev: Prev::Version(LeafIndex::new(0xff)),
        author: b"me",
        ..put()
    };
    let bytes = common::encode(&leaf);
    assert_eq!(bytes, raw(&leaf));
    assert_eq!(bytes.len(), leaf.encoded_length());
    assert_eq!(&bytes[..4], [1, 1, 0, 0]);
    assert_eq!(&bytes[4..12], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(&bytes[12..16], [0x0a, 0x0b, 0x0c, 0x0d]);
    assert_eq!(&bytes[16..24], [0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(&bytes[24..56], [3; 32]);
    assert_eq!(&bytes[56..], b"\x00\x01k\x02me\x00\x00");
}

#[test]
fn rules() {
    refused(
        &Leaf { key: b"", ..put() },
        LeafError::KeyLength { found: 0, min: 1 },
    );
    refused(
        &Leaf {
            key: &[b'k'; 1025],
            ..put()
        },
        LeafError::KeyLength {
            found: 1025,
            min: 1,
        },
    );
    refused(
        &Leaf {
            author: &[b'a'; 65],
            ..put()
        },
        LeafError::AuthorLength { found: 65 },
    );
    refused(
        &Leaf {
            body: b"b",
            ..put()
        },
        LeafError::BodyNotAllowed { found: 1 },
    );
    refused(
        &Leaf {
            subtype: 1,
            ..put()
        },
        LeafError::UnknownSubtype {
            kind: 1,
            subtype: 1,
        },
    );
    refused(
        &Leaf {
            subtype: 0,
            ..system()
        },
        LeafError::UnknownSubtype {
            kind: 3,
            subtype: 0,
        },
    );
    refused(
        &Leaf {
            subtype: 7,
            ..system()
        },
        LeafError::UnknownSubtype {
            kind: 3,
            subtype: 7,
        },
    );
    refused(
        &Leaf {
            commitment: Hash([1; 32]),
            ..system()
        },
        LeafError::CommitmentNotZero,
    );
    refused(
        &Leaf {
            transaction_length: 0,
            ..put()
        },
        LeafError::TransactionPosition {
            position: 0,
            length: 0,
        },
    );
    refused(
        &Leaf {
            transaction_position: 2,
            transaction_length: 2,
            ..put()
        },
        LeafError::TransactionPosition {
            position: 2,
            length: 2,
        },
    );
    let body = vec![0; 16_384 - 61 + 1];
    refused(
        &Leaf {
            body: &body,
            ..system()
        },
        LeafError::LeafLength { found: 16_385 },
    );
    assert_eq!(
        common::encode(&Leaf {
            body: &body[1..],
            ..system()
        })
        .len(),
        16_384
    );

    // The two indexes whose encoding would mean something else.
    for index in [u64::MAX - 1, u64::MAX] {
        let leaf = Leaf {
            prev: Prev::Version(LeafIndex::new(index)),
            ..put()
        };
        let refused = Err(LeafError::PrevTooLarge { index });
        assert_eq!(leaf.encode_into(&mut Vec::new()), refused);
    }
}

#[test]
fn unknown_is_told_apart_from_wrong() {
    let bytes = common::encode(&put());
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        Leaf::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(changed(0, 2), LeafError::UnknownVersion(2));
    assert_eq!(changed(1, 4), LeafError::UnknownKind(4));
    assert_eq!(
        changed(3, 9),
        LeafError::UnknownSubtype {
            kind: 1,
            subtype: 9
        }
    );
    for error in [changed(0, 2), changed(1, 4), changed(3, 9)] {
        assert!(error.is_unknown());
    }
    assert!(!changed(57, 2).is_unknown());
}

#[test]
fn every_cut_and_every_extra_byte_is_refused() {
    for leaf in [put(), system()] {
        let mut bytes = common::encode(&leaf);
        for length in 0..bytes.len() {
            let error = Leaf::parse(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, LeafError::Truncated { .. }),
                "{length}: {error}"
            );
        }
        bytes.push(0);
        assert_eq!(
            Leaf::parse(&bytes),
            Err(LeafError::TrailingBytes { found: 1 })
        );
    }
    let long = vec![1; 16_385];
    assert_eq!(
        Leaf::parse(&long),
        Err(LeafError::LeafLength { found: 16_385 })
    );
}

prop_compose! {
    fn leaves()(
        kind in prop_oneof![Just(LeafKind::Put), Just(LeafKind::Delete), Just(LeafKind::System)],
        subtype in 1..=6_u16,
        timestamp_ms in any::<u64>(),
        transaction_length in 1..=u16::MAX,
        position in any::<prop::sample::Index>(),
        prev in prop_oneof![
            Just(Prev::None),
            Just(Prev::NotAsserted),
            (0..u64::MAX - 1).prop_map(|index| Prev::Version(LeafIndex::new(index))),
        ],
        commitment in any::<[u8; 32]>(),
        key in prop::collection::vec(any::<u8>(), 1..=1024),
        author in prop::collection::vec(any::<u8>(), 0..=64),
        body in prop::collection::vec(any::<u8>(), 0..=4096),
    ) -> (Leaf<'static>, Vec<u8>, Vec<u8>, Vec<u8>) {
        let system = kind == LeafKind::System;
        let leaf = Leaf {
            kind,
            subtype: if system { subtype } else { 0 },
            timestamp_ms,
            transaction_position: position.index(transaction_length.into()) as u16,
            transaction_length,
            prev,
            commitment: if system { Hash::default() } else { Hash(commitment) },
            key: b"",
            author: b"",
            body: b"",
        };
        (leaf, key, author, if system { body } else { Vec::new() })
    }
}

proptest! {
    #[test]
    fn leaf_round_trip((leaf, key, author, body) in leaves()) {
        let leaf = Leaf { key: &key, author: &author, body: &body, ..leaf };
        let bytes = common::encode(&leaf);
        prop_assert_eq!(Leaf::parse(&bytes).unwrap(), leaf);
        prop_assert_eq!(bytes, raw(&leaf));
    }

    /// Whatever parses is its own canonical encoding, and nothing panics.
    #[test]
    fn parse_is_canonical(
        (leaf, key, author, body) in leaves(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let leaf = Leaf { key: &key, author: &author, body: &body, ..leaf };
        let mut bytes = raw(&leaf);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(parsed) = Leaf::parse(&bytes) {
            prop_assert_eq!(common::encode(&parsed), bytes);
        }
    }

    #[test]
    fn leaf_parse_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Leaf::parse(&bytes);
        let _ = Metadata::parse(&bytes);
    }

    #[test]
    fn metadata_round_trip(
        content_type in "[ -~é]{0,100}",
        pairs in prop::collection::btree_map("[a-z0-9._-]{1,20}", "[^\\p{Cc}]{0,100}", 0..16),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let metadata = Metadata { content_type, pairs: pairs.into_iter().collect() };
        let mut bytes = metadata.encode().unwrap();
        prop_assert_eq!(bytes.len(), metadata.encoded_length());
        prop_assert_eq!(&Metadata::parse(&bytes).unwrap(), &metadata);
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(parsed) = Metadata::parse(&bytes) {
                prop_assert_eq!(parsed.encode().unwrap(), bytes);
            }
        }
    }
}
