//! Cases for leaves and commitments.

use super::*;

pub(super) fn leaf_fields(leaf: &Leaf<'_>) -> Value {
    json!({
        "kind": leaf.kind as u8,
        "subtype": leaf.subtype,
        "timestamp_ms": leaf.timestamp_ms,
        "transaction_position": leaf.transaction_position,
        "transaction_length": leaf.transaction_length,
        "prev": match leaf.prev {
            Prev::None => json!("none"),
            Prev::NotAsserted => json!("not asserted"),
            Prev::Version(index) => json!(index.get()),
        },
        "commitment": leaf.commitment.to_hex(),
        "key": hex(leaf.key),
        "author": hex(leaf.author),
        "body": hex(leaf.body),
    })
}

pub(super) fn leaf_cases() -> Vec<Value> {
    let put = Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 1_790_000_000_123,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: commitment(&SALT, &metadata().encode().unwrap(), VALUE),
        key: KEY,
        author: b"",
        body: b"",
    };
    let empty = commitment(&SALT, Metadata::EMPTY_ENCODING, b"");
    let system = Leaf {
        kind: LeafKind::System,
        subtype: 1,
        commitment: Hash::default(),
        key: b"",
        body: b"genesis",
        ..put
    };
    let case = |name: &str, leaf: &Leaf<'_>| {
        let bytes = encode(leaf);
        valid(
            name,
            json!({
                "leaf": hex(&bytes),
                "leaf_hash": leaf_hash(&bytes).to_hex(),
                "fields": leaf_fields(leaf),
            }),
        )
    };
    let long_key = [b'k'; 1024];
    let long_body = vec![0xab; 16_384 - 61];
    let mut cases = vec![
        case("put of a new key", &put),
        case(
            "put, previous version not asserted",
            &Leaf {
                prev: Prev::NotAsserted,
                ..put
            },
        ),
        case(
            "put by an author after version 0",
            &Leaf {
                author: b"alice",
                prev: Prev::Version(LeafIndex::new(0)),
                ..put
            },
        ),
        case(
            "delete, third of three in a transaction",
            &Leaf {
                kind: LeafKind::Delete,
                commitment: empty,
                transaction_position: 2,
                transaction_length: 3,
                prev: Prev::Version(LeafIndex::new(41)),
                ..put
            },
        ),
        case(
            "longest key and author",
            &Leaf {
                key: &long_key,
                author: &[b'a'; 64],
                ..put
            },
        ),
        case(
            "largest numbers",
            &Leaf {
                timestamp_ms: u64::MAX,
                transaction_position: u16::MAX - 1,
                transaction_length: u16::MAX,
                prev: Prev::Version(LeafIndex::new(u64::MAX - 2)),
                ..put
            },
        ),
        case("genesis", &system),
        case(
            "longest leaf",
            &Leaf {
                body: &long_body,
                ..system
            },
        ),
    ];
    let bytes = encode(&put);
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        json!({ "leaf": hex(&bytes) })
    };
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &json!({}), members)
    };
    let system_bytes = encode(&system);
    cases.extend([
        refuse("empty", "a leaf has at least 61 bytes", "ends early", json!({ "leaf": "" })),
        refuse(
            "cut",
            "the body length is missing",
            "ends early",
            json!({ "leaf": hex(&bytes[..bytes.len() - 1]) }),
        ),
        refuse(
            "extra byte",
            "no bytes may follow the body",
            "follow the end",
            json!({ "leaf": hex(&[&bytes[..], &[0]].concat()) }),
        ),
        refuse("version 2", "unknown version", "leaf version 2 is unknown", changed(0, &[2])),
        refuse("kind 0", "unknown kind", "leaf kind 0 is unknown", changed(1, &[0])),
        refuse("put of subtype 1", "unknown subtype", "leaf subtype 1 is unknown", changed(3, &[1])),
        refuse(
            "transaction of no leaves",
            "the transaction length is at least 1",
            "transaction position 0 is not below",
            changed(14, &[0, 0]),
        ),
        refuse(
            "position outside the transaction",
            "the position is below the length",
            "transaction position 1 is not below",
            changed(12, &[0, 1]),
        ),
        refuse(
            "key longer than the leaf",
            "the key length reaches beyond the end",
            "ends early",
            changed(56, &[3, 0]),
        ),
        refuse(
            "put without key",
            "a user's key has at least 1 byte",
            "key is 0 bytes long",
            json!({ "leaf": hex(&[&bytes[..56], &[0, 0, 0, 0, 0]].concat()) }),
        ),
        refuse(
            "put with a body",
            "only system leaves have a body",
            "a put or delete has a body",
            json!({ "leaf": hex(&[&bytes[..bytes.len() - 1], &[1, 7]].concat()) }),
        ),
        refuse(
            "author of 65 bytes",
            "an author has at most 64 bytes",
            "author is 65 bytes long",
            json!({ "leaf": hex(&[&bytes[..bytes.len() - 3], &[65], &[b'a'; 65], &[0, 0]].concat()) }),
        ),
        refuse(
            "system leaf with a commitment",
            "the commitment of a system leaf is 32 zero bytes",
            "a system leaf has a commitment",
            json!({ "leaf": hex(&[&system_bytes[..24], &[1], &system_bytes[25..]].concat()) }),
        ),
        refuse(
            "system leaf of subtype 7",
            "unknown subtype",
            "leaf subtype 7 is unknown",
            json!({ "leaf": hex(&[&system_bytes[..3], &[7], &system_bytes[4..]].concat()) }),
        ),
    ]);
    cases
}

pub(super) fn check_leaf(case: &Value) -> Result<(), String> {
    let bytes = unhex(&case["leaf"]);
    let leaf = Leaf::parse(&bytes).map_err(|error| error.to_string())?;
    assert_eq!(leaf_fields(&leaf), case["fields"]);
    assert_eq!(leaf_hash(&bytes), hash(&case["leaf_hash"]));
    assert_eq!(encode(&leaf), bytes);
    Ok(())
}

pub(super) fn commitment_cases() -> Vec<Value> {
    let case = |name: &str, salt: [u8; 16], metadata: &Metadata, value: &[u8]| {
        let encoded = metadata.encode().unwrap();
        valid(
            name,
            json!({
                "salt": hex(&salt),
                "content_type": metadata.content_type,
                "pairs": metadata.pairs,
                "metadata": hex(&encoded),
                "value": hex(value),
                "commitment": commitment(&salt, &encoded, value).to_hex(),
            }),
        )
    };
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    let pairs = vec![pair("a", ""), pair("a-b_c.9", "x"), pair("language", "en")];
    let base = case("text with a pair", SALT, &metadata(), VALUE);
    let salt: [u8; 16] = core::array::from_fn(|at| at as u8);
    let mut cases = vec![
        base.clone(),
        case(
            "delete: empty metadata, empty value",
            salt,
            &Metadata::default(),
            b"",
        ),
        case(
            "three pairs",
            salt,
            &Metadata::new("", pairs).unwrap(),
            &[0, 255, 10],
        ),
        case(
            "not ASCII",
            salt,
            &Metadata::new("text/é", vec![pair("n", "日本")]).unwrap(),
            b"1",
        ),
    ];
    let other = sha256(b"other").to_hex();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    cases.extend([
        refuse(
            "other commitment",
            "it is another hash",
            "commitment",
            json!({ "commitment": other }),
        ),
        refuse(
            "other value",
            "one byte differs",
            "commitment",
            json!({ "value": hex(b"hellO") }),
        ),
        refuse(
            "longer value",
            "a zero byte follows",
            "commitment",
            json!({ "value": hex(b"hello\0") }),
        ),
        refuse(
            "other salt",
            "one byte differs",
            "commitment",
            json!({ "salt": hex(&salt) }),
        ),
        refuse(
            "no metadata",
            "empty metadata is 0000, not nothing",
            "ends early",
            json!({ "metadata": "" }),
        ),
        refuse(
            "extra byte",
            "no bytes may follow",
            "follow the end",
            json!({ "metadata": "000000" }),
        ),
        refuse(
            "unsorted names",
            "names are in byte order",
            "unique and in byte order",
            json!({ "metadata": hex(b"\x00\x02\x01b\x00\x00\x01a\x00\x00") }),
        ),
        refuse(
            "name twice",
            "names are unique",
            "unique and in byte order",
            json!({ "metadata": hex(b"\x00\x02\x01a\x00\x00\x01a\x00\x00") }),
        ),
        refuse(
            "uppercase name",
            "names are lowercase",
            "metadata name must be",
            json!({ "metadata": hex(b"\x00\x01\x01A\x00\x00") }),
        ),
        refuse(
            "line break in a value",
            "values have no control characters",
            "metadata value must be",
            json!({ "metadata": hex(b"\x00\x01\x01a\x00\x02\r\n") }),
        ),
        refuse(
            "seventeen pairs",
            "at most 16 pairs",
            "at most 16",
            json!({ "metadata": format!("0011{}", "01610000".repeat(17)) }),
        ),
        refuse(
            "content type not UTF-8",
            "text is UTF-8",
            "content type must be",
            json!({ "metadata": "01ff00" }),
        ),
    ]);
    cases
}

pub(super) fn check_commitment(case: &Value) -> Result<(), String> {
    let bytes = unhex(&case["metadata"]);
    let metadata = Metadata::parse(&bytes).map_err(|error| error.to_string())?;
    assert_eq!(metadata.encode().unwrap(), bytes);
    assert_eq!(json!(metadata.content_type), case["content_type"]);
    assert_eq!(json!(metadata.pairs), case["pairs"]);
    let salt = unhex(&case["salt"]).try_into().unwrap();
    if commitment(&salt, &bytes, &unhex(&case["value"])) != hash(&case["commitment"]) {
        return Err("commitment does not match".into());
    }
    Ok(())
}
