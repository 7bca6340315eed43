//! The targets for `scribe-proof`: every parser of bytes from outside.
//!
//! Each demands more than that nothing panics. What is accepted has one encoding, so it is written
//! again byte for byte; it is within the limits; it takes no more memory than its text; and no
//! signature fits that was not made.

use scribe_proof::note::{NOTE_LENGTH_MAX, SIGNATURES_MAX};
use scribe_proof::policy::{POLICY_LENGTH_MAX, POLICY_MEMBERS_MAX};
use scribe_proof::receipt::{RECEIPT_LENGTH_MAX, RECEIPT_PROOF_MAX};
use scribe_proof::rotation::{LedgerKeys, ROTATION_LENGTH_MAX};
use scribe_proof::tile::{parse_bundle, push_entry};
use scribe_proof::witness::{AddCheckpoint, Answer, PROOF_LINES_MAX, cosignature_by};
use scribe_proof::{
    Checkpoint, Hash, KEY_LENGTH_MAX, LEAF_LENGTH_MAX, Leaf, LeafIndex, LeafKind,
    METADATA_LENGTH_MAX, METADATA_PAIRS_MAX, Metadata, Note, Policy, Prev, Receipt, Rotation,
    Signature, SignedCheckpoint, SigningKey, TilePath, TreeSize, VerifierKey, cosignature,
};

/// A target: what it is called, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("leaf", leaf),
    ("metadata", metadata),
    ("note", note),
    ("checkpoint", checkpoint),
    ("cosignature", cosignature),
    ("policy", policy),
    ("rotation", rotation),
    ("receipt", receipt),
    ("tile_path", tile_path),
    ("entry_bundle", entry_bundle),
    ("verifier_key", verifier_key),
    ("witness_request", witness_request),
    ("witness_answer", witness_answer),
];

/// The keys of the vectors in `testdata/`: so that a corpus made from them reaches what follows a
/// good signature.
const LEDGER: &str = "example.com/ledger+3481d542+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const NODE: &str =
    "example.com/ledger/node/1+44662db4+BNYvAWoe/R5P33k+tCzYRHHhup8M8E0Sh7XMcfYWKHy4";

fn key(text: &str) -> VerifierKey {
    VerifierKey::parse(text).expect("a good key")
}

/// Bytes as a leaf, and as the fields of one.
pub fn leaf(data: &[u8]) {
    match Leaf::parse(data) {
        Ok(leaf) => {
            assert!(data.len() <= LEAF_LENGTH_MAX && leaf.key.len() <= KEY_LENGTH_MAX);
            assert_eq!(leaf.encoded_length(), data.len());
            assert_eq!(leaf.system_kind().is_some(), leaf.kind == LeafKind::System);
            assert!(leaf.transaction_position < leaf.transaction_length);
            let mut again = Vec::new();
            leaf.encode_into(&mut again)
                .expect("what was read can be written");
            assert_eq!(again, data, "a second encoding");
        }
        Err(error) => {
            // "Not understood" is about version, kind and subtype, the first four bytes, alone.
            if error.is_unknown() {
                assert!(!(data.starts_with(&[1, 1, 0, 0]) || data.starts_with(&[1, 2, 0, 0])));
            }
        }
    }
    let Some((fields, rest)) = data.split_first_chunk::<24>() else {
        return;
    };
    let number = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
    let (key, rest) = rest.split_at(rest.len().min(usize::from(number(0)) % 1200));
    let (author, body) = rest.split_at(rest.len().min(usize::from(fields[2]) % 80));
    let made = Leaf {
        kind: [LeafKind::Put, LeafKind::Delete, LeafKind::System][usize::from(fields[3] % 3)],
        subtype: u16::from(fields[4] % 8),
        timestamp_ms: u64::from(number(5)),
        transaction_position: number(7),
        transaction_length: number(9),
        prev: match fields[11] % 3 {
            0 => Prev::None,
            1 => Prev::NotAsserted,
            _ => Prev::Version(LeafIndex::new(u64::MAX - u64::from(fields[12]))),
        },
        commitment: Hash([fields[13] % 2; 32]),
        key,
        author,
        body: if fields[14] % 2 == 0 { &[] } else { body },
    };
    let mut bytes = b"before".to_vec();
    match made.encode_into(&mut bytes) {
        Ok(()) => assert_eq!(Leaf::parse(&bytes[6..]), Ok(made)),
        Err(_) => assert_eq!(bytes, b"before", "a refused leaf left something behind"),
    }
}

/// Bytes as metadata, and as a content type and pairs.
pub fn metadata(data: &[u8]) {
    if let Ok(metadata) = Metadata::parse(data) {
        assert!(data.len() <= METADATA_LENGTH_MAX && metadata.pairs.len() <= METADATA_PAIRS_MAX);
        assert_eq!(metadata.encoded_length(), data.len());
        assert_eq!(metadata.encode().as_deref(), Ok(data), "a second encoding");
        // It ends up in HTTP headers.
        let texts = metadata.pairs.iter().map(|pair| &pair.1);
        for text in texts.chain([&metadata.content_type]) {
            assert!(!text.contains(['\r', '\n', '\0']));
        }
        let mut pairs = metadata.pairs.clone();
        pairs.reverse();
        assert_eq!(
            Metadata::new(metadata.content_type.clone(), pairs),
            Ok(metadata)
        );
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.split('|').map(String::from);
    let content_type = parts.next().unwrap_or_default();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((name, value));
    }
    if let Ok(made) = Metadata::new(content_type, pairs) {
        let bytes = made.encode().expect("what was made can be written");
        assert_eq!(Metadata::parse(&bytes), Ok(made));
    }
}

/// Bytes as a signed note.
pub fn note(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(mut note) = Note::parse(text) else {
        return;
    };
    assert!(text.len() <= NOTE_LENGTH_MAX);
    assert!((1..=SIGNATURES_MAX).contains(&note.signatures.len()));
    assert_eq!(note.to_text(), text, "a second form");
    let held: usize = note
        .signatures
        .iter()
        .map(|it| it.name.len() + it.bytes.len())
        .sum();
    assert!(
        note.text.len() + held <= text.len(),
        "more memory than text"
    );
    for signature in &note.signatures {
        assert_eq!(
            Signature::parse_line(&signature.to_line()).as_ref(),
            Ok(signature)
        );
    }
    let (ledger, node) = (key(LEDGER), key(NODE));
    for key in [&ledger, &node] {
        let claims = note.signatures.iter().any(|signature| signature.is_by(key));
        // Signed, spoiled, or nothing to say; never signed without a line that claims it.
        assert_eq!(note.verify(key) == Ok(false), !claims);
    }
    if note.verify(&ledger) == Ok(true) {
        note.text.insert(0, 'x');
        assert!(note.verify(&ledger).is_err(), "a signature fits two texts");
        note.text.remove(0);
    }
    let before = note.clone();
    let more = Signature {
        name: "stranger.example".to_string(),
        key_id: 7,
        bytes: vec![7; 64],
    };
    match note.add_signature(more) {
        Ok(()) => assert_eq!(Note::parse(&note.to_text()), Ok(note)),
        Err(_) => assert_eq!(note, before),
    }
}

/// Bytes as a checkpoint, signed or not.
pub fn checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_text(), text, "a second form");
        assert!(!checkpoint.origin.is_empty() && text.len() <= NOTE_LENGTH_MAX);
        assert!(!checkpoint.size.is_empty() || checkpoint.root == scribe_proof::empty_root());
    }
    if let Ok(signed) = SignedCheckpoint::parse(text) {
        assert_eq!(signed.to_text(), text, "a second form");
        assert_eq!(signed.checkpoint().to_text(), signed.note().text);
        let key = key(LEDGER);
        if let Ok(checkpoint) = signed.verify(&key) {
            assert_eq!(checkpoint.origin, key.name());
            assert_eq!(signed.note().verify(&key), Ok(true));
        }
        // A cosigner is no ledger.
        assert!(signed.verify(&self::key(NODE)).is_err());
    }
}

/// The first line as a cosignature, the rest as the text it is over.
pub fn cosignature(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (line, text) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(mut signature) = Signature::parse_line(line) else {
        return;
    };
    assert_eq!(
        signature.to_line().strip_suffix('\n'),
        Some(line),
        "a second form"
    );
    let key = key(NODE);
    let claims = signature.is_by(&key);
    let found = cosignature::verify(text, &key, &signature);
    assert!(claims || found.is_err(), "a cosignature of somebody else");
    if let Ok(time) = found {
        assert!(time < 1 << 63 && signature.bytes.len() == 72);
        assert_eq!(signature.bytes[..8], time.to_be_bytes());
        signature.bytes[7] ^= 1;
        assert!(
            cosignature::verify(text, &key, &signature).is_err(),
            "at two times"
        );
        assert!(cosignature::verify("x", &key, &signature).is_err());
    }
}

/// Bytes as the note that names a ledger's next key.
pub fn rotation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(rotation) = Rotation::parse(text) else {
        return;
    };
    assert!(text.len() <= ROTATION_LENGTH_MAX);
    assert_eq!(rotation.to_text(), text, "one encoding");
    let (old, new) = (rotation.old().clone(), rotation.new_key().clone());
    assert_eq!(
        (old.name(), new.name()),
        (rotation.origin(), rotation.origin())
    );
    assert_ne!(old.public_key(), new.public_key());
    // It counts once, at its own place, for the key it replaces.
    let index = rotation.index();
    let elsewhere = LeafIndex::new(index.get() ^ 1);
    let mut keys = LedgerKeys::begin(old.clone());
    assert!(keys.rotate(rotation.clone(), elsewhere, 1).is_err());
    assert_eq!(keys.newest(), &old);
    keys.rotate(rotation.clone(), index, 1)
        .expect("it replaces the newest key, at its place");
    assert!(keys.rotate(rotation, index, 2).is_err());
    assert_eq!(keys.newest(), &new);
    assert_eq!(keys.signing(1), [&new, &old]);
}

/// Bytes as a policy, shown a checkpoint.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(policy) = Policy::parse(text) else {
        return;
    };
    assert!(text.len() <= POLICY_LENGTH_MAX);
    assert!(policy.log_keys().count() <= POLICY_MEMBERS_MAX);
    let witnesses = policy.witness_keys().count();
    assert!(witnesses <= POLICY_MEMBERS_MAX);
    // Its text says the same, and is the same ever after.
    let written = policy.to_text();
    let again = Policy::parse(&written).expect("what was read can be written");
    assert_eq!(again, policy);
    assert_eq!(again.to_text(), written);
    let mut keys: Vec<_> = policy
        .witness_keys()
        .map(|(_, key)| key.public_key())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), witnesses, "one key, two witnesses");
    // An unsigned checkpoint satisfies nobody.
    let origin = policy.log_keys().next().map_or("none", VerifierKey::name);
    let checkpoint = Checkpoint::new(origin, TreeSize::new(1), Hash::default());
    let unsigned = Note {
        text: checkpoint.to_text(),
        signatures: Vec::new(),
    };
    let unsigned = SignedCheckpoint::from_note(unsigned).expect("a good checkpoint");
    assert!(policy.evaluate(&unsigned).is_err());
}

/// Bytes as a receipt.
pub fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(receipt) = Receipt::parse(text) else {
        return;
    };
    assert!(text.len() <= RECEIPT_LENGTH_MAX);
    assert!(receipt.proof.len() <= RECEIPT_PROOF_MAX && receipt.leaf.len() <= LEAF_LENGTH_MAX);
    assert_eq!(receipt.to_text(), text, "a second form");
    let redacted = receipt.redacted();
    assert_eq!(Receipt::parse(&redacted.to_text()).as_ref(), Ok(&redacted));
    let key = key(LEDGER);
    if let Ok(entry) = receipt.verify(&key) {
        assert_eq!(entry.origin(), key.name());
        assert!(entry.index().get() < entry.tree_size().get());
        assert_eq!(entry.leaf_hash, scribe_proof::leaf_hash(&receipt.leaf));
        assert!(entry.check_value(b"a value that nobody wrote").is_err());
        // Without its opening it still holds; at another index it does not.
        assert!(redacted.verify(&key).is_ok());
        let mut moved = receipt.clone();
        moved.index = moved.index.next();
        assert!(moved.verify(&key).is_err());
    }
}

/// Bytes as the path of a tile or bundle.
pub fn tile_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(path) = TilePath::parse(text) else {
        return;
    };
    assert_eq!(path.to_string(), text, "a second form");
    let tile = *path.tile();
    assert!(tile.level() <= 63 && tile.index() < 1 << 56 && (1..=256).contains(&tile.width()));
    assert_eq!(tile.start() / 256, tile.index());
    match path {
        TilePath::Hashes(tile) => assert_eq!(tile.path(), text),
        TilePath::Entries(tile) => assert_eq!(tile.entries_path().as_deref(), Some(text)),
    }
    for size in [0, 1, 255, 256, 70_000, u64::MAX] {
        let size = TreeSize::new(size);
        if let Some(there) = scribe_proof::Tile::at(tile.level(), tile.index(), size) {
            assert!(there.exists_at(size));
            assert_eq!(tile.exists_at(size), tile.width() <= there.width());
        } else {
            assert!(!tile.exists_at(size));
        }
    }
}

/// A width, and bytes as an entry bundle of that width.
pub fn entry_bundle(data: &[u8]) {
    let Some((width, bundle)) = data.split_first_chunk::<2>() else {
        return;
    };
    let width = u16::from_be_bytes(*width) % 300;
    let Ok(entries) = parse_bundle(bundle, width) else {
        return;
    };
    assert_eq!(entries.len(), usize::from(width));
    let mut again = Vec::new();
    for entry in &entries {
        push_entry(&mut again, entry).expect("what was read can be written");
    }
    assert_eq!(again, bundle, "a second encoding");
    assert!(parse_bundle(bundle, width + 1).is_err());
    assert!(parse_bundle(bundle, width - 1).is_err());
}

/// Bytes as a verifier key, and as a signing key.
pub fn verifier_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_text(), text, "a second form");
        assert!(!key.name().contains(['\n', ' ', '+']));
        let again = VerifierKey::new(key.name(), key.key_type(), &key.public_key());
        assert_eq!(again, Ok(key));
    }
    let private = format!("PRIVATE+KEY+{text}");
    for text in [text, &private] {
        if let Ok(key) = SigningKey::parse(text) {
            assert_eq!(key.to_text(), text, "a second form");
            let secret = text.rsplit('+').next().unwrap_or(text);
            assert!(secret.len() < 20 || !format!("{key:?}").contains(secret));
        }
    }
}

/// Bytes as what a ledger asks of a witness.
pub fn witness_request(data: &[u8]) {
    let Ok(request) = AddCheckpoint::parse(data) else {
        return;
    };
    assert!(request.proof.len() <= PROOF_LINES_MAX);
    let text = request.to_text().expect("what was read can be written");
    assert_eq!(text.as_bytes(), data, "a second form");
}

/// A status, a media type, and bytes as what a witness answers.
pub fn witness_answer(data: &[u8]) {
    let Some(([status, media_type], body)) = data.split_first_chunk::<2>() else {
        return;
    };
    let status = [200, 200, 409, 409, 400, 403, 404, 422, 500, 302][usize::from(status % 10)];
    let media_type = [
        None,
        Some("text/x.tlog.size"),
        Some("TEXT/x.tlog.size; charset=utf-8"),
        Some("text/plain"),
    ][usize::from(media_type % 4)];
    match Answer::parse(status, media_type, body) {
        Ok(Answer::Cosigned(lines)) => {
            assert_eq!(status, 200);
            assert!((1..=SIGNATURES_MAX).contains(&lines.len()));
            let text: String = lines.iter().map(Signature::to_line).collect();
            let found = std::str::from_utf8(body).expect("signature lines are text");
            // The one thing forgiven is the last newline.
            assert_eq!(text.trim_end_matches('\n'), found.trim_end_matches('\n'));
            let key = key(NODE);
            if let Ok(cosignature) = cosignature_by("text\n", &key, &lines, 1_790_000_001) {
                assert!(cosignature.signature.is_by(&key));
            }
        }
        Ok(Answer::Conflict { size }) => {
            assert_eq!(status, 409);
            assert_eq!(format!("{size}\n").as_bytes(), body, "a second form");
        }
        Ok(Answer::Refused(refusal)) => {
            assert!(status != 200 && !refusal.to_string().is_empty());
        }
        Err(_) => assert!(status == 200 || status == 409),
    }
}
