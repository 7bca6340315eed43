//! Every limit at its edge: the longest is accepted, one more is refused.

mod common;

use common::{ORIGIN, ledger_key, node_key, receipt};
use scribe_proof::key::KEY_NAME_LENGTH_MAX;
use scribe_proof::note::{NOTE_LENGTH_MAX, SIGNATURES_MAX};
use scribe_proof::policy::{LineProblem, POLICY_LENGTH_MAX, POLICY_MEMBERS_MAX};
use scribe_proof::receipt::{RECEIPT_LENGTH_MAX, RECEIPT_PROOF_MAX};
use scribe_proof::{
    AUTHOR_LENGTH_MAX, Checkpoint, CheckpointError, Hash, KEY_LENGTH_MAX, KeyType, LEAF_LENGTH_MAX,
    Leaf, LeafError, LeafKind, METADATA_LENGTH_MAX, METADATA_PAIRS_MAX, Metadata, Note, NoteError,
    Policy, PolicyError, Prev, ReceiptError, Signature, SigningKey, Tile, TileError, TilePath,
    TreeSize, VerifierKey, cosignature, leaf_hash, sign_note,
};

#[test]
fn checkpoint_text() {
    let mut checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(1), leaf_hash(b"x"));
    let room = NOTE_LENGTH_MAX - checkpoint.to_text().len() - 1;
    checkpoint.extensions = vec!["x".repeat(room)];
    assert_eq!(checkpoint.to_text().len(), NOTE_LENGTH_MAX);
    assert_eq!(
        Checkpoint::parse(&checkpoint.to_text()),
        Ok(checkpoint.clone())
    );
    // Spaces are no control characters.
    let spaced = Checkpoint {
        extensions: vec!["two words".to_string(), " ".to_string()],
        ..Checkpoint::new("an origin", TreeSize::new(1), leaf_hash(b"x"))
    };
    assert_eq!(Checkpoint::parse(&spaced.to_text()), Ok(spaced));
    checkpoint.extensions[0].push('x');
    assert_eq!(
        Checkpoint::parse(&checkpoint.to_text()),
        Err(CheckpointError::TooLong { found: 65_537 })
    );
}

#[test]
fn note_text() {
    let signatures = sign_note("text\n", &[&ledger_key()]).unwrap().signatures;
    let note = |length: usize| {
        let text = String::from("\n");
        let mut note = Note {
            text,
            signatures: signatures.clone(),
        };
        let room = length - note.to_text().len();
        note.text = "x".repeat(room) + "\n";
        assert_eq!(note.to_text().len(), length);
        note
    };
    let longest = note(NOTE_LENGTH_MAX);
    assert_eq!(Note::parse(&longest.to_text()), Ok(longest));
    assert_eq!(
        Note::parse(&note(NOTE_LENGTH_MAX + 1).to_text()),
        Err(NoteError::TooLong { found: 65_537 })
    );
    let text = "x".repeat(NOTE_LENGTH_MAX) + "\n";
    assert_eq!(
        sign_note(&text, &[&ledger_key()]),
        Err(NoteError::TooLong { found: 65_537 })
    );
    // Within the limit as a text, beyond it with the signature.
    let text = &text[1..];
    assert!(matches!(
        sign_note(text, &[&ledger_key()]),
        Err(NoteError::TooLong { found }) if found > NOTE_LENGTH_MAX
    ));
    let line = "x".repeat(NOTE_LENGTH_MAX + 1);
    assert_eq!(
        Signature::parse_line(&line),
        Err(NoteError::TooLong { found: 65_537 })
    );
    assert_eq!(
        Signature::parse_line(&line[1..]),
        Err(NoteError::SignatureLine { line: 1 })
    );
    assert_eq!(sign_note("text\n", &[]), Err(NoteError::NoSignatures));
}

#[test]
fn adding_a_signature_keeps_the_note_within_its_length() {
    let key = ledger_key();
    let mut note = sign_note("text\n", &[&key]).unwrap();
    let stranger = |length: usize| Signature {
        name: "stranger.example".to_string(),
        key_id: 1,
        bytes: vec![7; length],
    };
    // Four characters for three bytes: the longest that fits exactly.
    let length = (1..NOTE_LENGTH_MAX)
        .rev()
        .find(|length| note.to_text().len() + stranger(*length).to_line().len() <= NOTE_LENGTH_MAX)
        .unwrap();
    let before = note.clone();
    let refused = note.add_signature(stranger(length + 1));
    assert!(matches!(refused, Err(NoteError::TooLong { .. })));
    assert_eq!(note, before, "a refused signature leaves the note alone");
    note.add_signature(stranger(length)).unwrap();
    assert!(Note::parse(&note.to_text()).is_ok());
    // A text of the length that fills the note to the last byte.
    let room = NOTE_LENGTH_MAX - before.to_text().len() - stranger(64).to_line().len();
    let mut note = before;
    note.text = "x".repeat(room) + &note.text;
    note.add_signature(stranger(64)).unwrap();
    assert_eq!(note.to_text().len(), NOTE_LENGTH_MAX);
    assert!(Note::parse(&note.to_text()).is_ok());
}

#[test]
fn signatures_of_a_note() {
    let mut note = sign_note("text\n", &[&ledger_key()]).unwrap();
    let stranger = |number: usize| Signature {
        name: "stranger.example".to_string(),
        key_id: number as u32,
        bytes: vec![7; 64],
    };
    for number in 1..SIGNATURES_MAX {
        note.add_signature(stranger(number)).unwrap();
    }
    assert_eq!(Note::parse(&note.to_text()), Ok(note.clone()));
    assert_eq!(
        note.verify(ledger_key().verifier_key()),
        Ok(true),
        "strangers' signatures are ignored"
    );
    assert_eq!(
        note.add_signature(stranger(SIGNATURES_MAX)),
        Err(NoteError::TooManySignatures)
    );
    // One in place of another is always possible.
    note.add_signature(stranger(5)).unwrap();
    // The same id under another name, and another id under the same name, are other keys.
    let mut few = sign_note("text\n", &[&ledger_key()]).unwrap();
    few.add_signature(stranger(1)).unwrap();
    few.add_signature(stranger(2)).unwrap();
    let namesake = Signature {
        name: "other.example".to_string(),
        ..stranger(1)
    };
    few.add_signature(namesake).unwrap();
    assert_eq!(few.signatures.len(), 4);
    let malformed = Signature {
        name: "a b".to_string(),
        ..stranger(1)
    };
    assert_eq!(few.add_signature(malformed), Err(NoteError::KeyName));
}

#[test]
fn cosignature_times() {
    let (key, last) = (node_key(1), (1 << 63) - 1);
    let cosignature = cosignature::sign("text\n", &key, last).unwrap();
    assert_eq!(
        cosignature::verify("text\n", key.verifier_key(), &cosignature),
        Ok(last)
    );
    let mut beyond = cosignature;
    beyond.bytes[..8].copy_from_slice(&(last + 1).to_be_bytes());
    assert_eq!(
        cosignature::verify("text\n", key.verifier_key(), &beyond),
        Err(NoteError::Timestamp { found: last + 1 })
    );
}

#[test]
fn key_names_and_texts() {
    let longest = "n".repeat(KEY_NAME_LENGTH_MAX);
    let key = SigningKey::from_seed(&longest, &[1; 32]).unwrap();
    let text = key.verifier_key().to_text();
    assert_eq!(VerifierKey::parse(&text), Ok(key.verifier_key().clone()));
    assert_eq!(
        SigningKey::from_seed(&(longest + "n"), &[1; 32]).unwrap_err(),
        NoteError::KeyName
    );
    // A key of another algorithm may be longer, and is told apart from nonsense up to 4 KiB.
    let long = |digits: usize| format!("name+00000000+BgAA{}", "A".repeat(digits - 4));
    assert_eq!(
        VerifierKey::parse(&long(4096)),
        Err(NoteError::UnknownKeyType { found: 6 })
    );
    assert!(matches!(
        VerifierKey::parse(&long(4100)),
        Err(NoteError::KeyForm { .. })
    ));
}

#[test]
fn policy_text() {
    let policy = common::policy_text();
    let room = POLICY_LENGTH_MAX - policy.len();
    let longest = policy + "#" + &"x".repeat(room - 1);
    assert_eq!(longest.len(), POLICY_LENGTH_MAX);
    assert!(Policy::parse(&longest).is_ok());
    assert_eq!(
        Policy::parse(&(longest + "x")),
        Err(PolicyError::TooLong { found: 262_145 })
    );
}

#[test]
fn policy_members() {
    let log = |number: usize| {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_seed(ORIGIN, &seed).unwrap();
        format!("log {}\n", key.verifier_key())
    };
    let witness = |number: usize| {
        let mut seed = [2; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::cosigner_from_seed(&format!("w/{number}"), &seed).unwrap();
        format!("witness w{number} {}\n", key.verifier_key())
    };
    let group = |number: usize| format!("group g{number} any w{number}\n");
    let many =
        |line: &dyn Fn(usize) -> String, count: usize| -> String { (0..count).map(line).collect() };
    let full = many(&log, POLICY_MEMBERS_MAX)
        + &many(&witness, POLICY_MEMBERS_MAX)
        + &many(&group, POLICY_MEMBERS_MAX);
    let policy = Policy::parse(&(full.clone() + "quorum g127\n")).unwrap();
    assert_eq!(policy.log_keys().count(), POLICY_MEMBERS_MAX);
    assert_eq!(policy.witness_keys().count(), POLICY_MEMBERS_MAX);
    for more in [
        log(POLICY_MEMBERS_MAX),
        witness(POLICY_MEMBERS_MAX),
        "group more any g0\n".to_string(),
    ] {
        assert!(matches!(
            Policy::parse(&(full.clone() + &more + "quorum none\n")),
            Err(PolicyError::Line {
                problem: LineProblem::TooMany,
                ..
            })
        ));
    }
    // A group of everything: all witnesses, and all groups but itself.
    let names: Vec<String> = (0..POLICY_MEMBERS_MAX)
        .map(|number| format!("w{number}"))
        .collect();
    let everything = format!(
        "{}{}group all-of-them 128 {}\nquorum all-of-them\n",
        log(0),
        many(&witness, POLICY_MEMBERS_MAX),
        names.join(" ")
    );
    let policy = Policy::parse(&everything).unwrap();
    assert_eq!(policy.to_text(), everything, "no name is cut off");
    // However many names follow, one of them is refused.
    let endless = everything.replace("\nquorum", &format!("{}\nquorum", " w1".repeat(500)));
    assert!(matches!(
        Policy::parse(&endless),
        Err(PolicyError::Line {
            problem: LineProblem::DuplicateMember(_),
            ..
        })
    ));
}

#[test]
fn receipt_text() {
    let good = receipt();
    let mut padded = good.clone();
    padded.proof.resize(RECEIPT_PROOF_MAX, Hash::default());
    let text = padded.to_text();
    assert_eq!(scribe_proof::Receipt::parse(&text), Ok(padded.clone()));
    padded.proof.push(Hash::default());
    assert!(matches!(
        scribe_proof::Receipt::parse(&padded.to_text()),
        Err(ReceiptError::Line { .. })
    ));
    let key = ledger_key().verifier_key().clone();
    assert!(matches!(
        padded.verify(&key),
        Err(ReceiptError::TooLong { .. })
    ));
    // A receipt built by hand is held to the length of a note as well.
    let mut long = good.clone();
    let note = long.checkpoint_note.clone();
    let (text, lines) = note.split_once("\n\n").unwrap();
    let room = NOTE_LENGTH_MAX - note.len() - 1;
    long.checkpoint_note = format!("{text}\n{}\n\n{lines}", "x".repeat(room));
    assert_eq!(long.checkpoint_note.len(), NOTE_LENGTH_MAX);
    assert!(
        matches!(long.verify(&key), Err(ReceiptError::Signature(_))),
        "the longest note is looked at"
    );
    long.checkpoint_note.insert(text.len() + 1, 'x');
    assert!(matches!(
        long.verify(&key),
        Err(ReceiptError::TooLong { .. })
    ));
    // As text: at the limit it is read (and found to be no receipt), beyond it is not.
    let nonsense = "x".repeat(RECEIPT_LENGTH_MAX);
    assert!(matches!(
        scribe_proof::Receipt::parse(&nonsense),
        Err(ReceiptError::Line { .. })
    ));
    assert_eq!(
        scribe_proof::Receipt::parse(&(nonsense + "x")),
        Err(ReceiptError::TooLong { found: 131_073 })
    );
}

#[test]
fn extra_data_of_a_receipt() {
    // The longest leaf and the longest metadata together, which no valid leaf has but the layout does.
    let mut extra = vec![1];
    extra.extend((LEAF_LENGTH_MAX as u16).to_be_bytes());
    extra.extend(vec![1; LEAF_LENGTH_MAX]);
    extra.extend([0; 16]);
    extra.extend((METADATA_LENGTH_MAX as u16).to_be_bytes());
    extra.extend(vec![0; METADATA_LENGTH_MAX]);
    let with = |extra: &[u8]| {
        let text = receipt().to_text();
        let line = text.lines().nth(1).unwrap().to_string();
        scribe_proof::Receipt::parse(&text.replacen(
            &line,
            &format!("extra {}", base64_of(extra)),
            1,
        ))
    };
    assert!(matches!(with(&extra), Err(ReceiptError::Leaf(_))));
    extra.extend([0; 3]);
    match with(&extra) {
        Err(ReceiptError::Line { line: 2, expected }) => {
            assert!(expected.contains("32796"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
}

/// Standard base64 with padding.
fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for at in 0..4 {
            if at <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[test]
fn metadata() {
    let of = |content_type: String, pairs: Vec<(String, String)>| Metadata {
        content_type,
        pairs,
    };
    let both = |metadata: &Metadata, expected: Result<(), LeafError>| {
        assert_eq!(metadata.encode().map(drop), expected);
        let raw = raw_metadata(metadata);
        assert_eq!(Metadata::parse(&raw).map(drop), expected, "{}", raw.len());
        if expected.is_ok() {
            assert_eq!(Metadata::parse(&raw).as_ref(), Ok(metadata));
            assert_eq!(metadata.encode().unwrap(), raw);
        }
    };
    both(&of("t".repeat(255), vec![]), Ok(()));
    assert_eq!(
        of("t".repeat(256), vec![]).encode(),
        Err(LeafError::ContentType)
    );
    both(&of("a\nb".into(), vec![]), Err(LeafError::ContentType));
    let pair = |number: usize| (format!("n{number:02}"), String::new());
    both(
        &of(String::new(), (0..METADATA_PAIRS_MAX).map(pair).collect()),
        Ok(()),
    );
    both(
        &of(String::new(), (0..=METADATA_PAIRS_MAX).map(pair).collect()),
        Err(LeafError::MetadataPairs { found: 17 }),
    );
    let named = |name: String| of(String::new(), vec![(name, String::new())]);
    both(&named("n".repeat(255)), Ok(()));
    let wrong = Err(LeafError::MetadataName { pair: 0 });
    assert_eq!(named("n".repeat(256)).encode().map(drop), wrong);
    both(&named(String::new()), wrong);
    both(&named("N".into()), wrong);
    both(&named("a-b_c.d9".into()), Ok(()));
    // 1 + 1 + (1 + 1 + 2 + value) bytes.
    let valued = |length: usize| of(String::new(), vec![("n".into(), "v".repeat(length))]);
    both(&valued(METADATA_LENGTH_MAX - 6), Ok(()));
    both(
        &valued(METADATA_LENGTH_MAX - 5),
        Err(LeafError::MetadataLength { found: 8193 }),
    );
    assert_eq!(
        Metadata::parse(&vec![0; METADATA_LENGTH_MAX]),
        Err(LeafError::TrailingBytes { found: 8190 })
    );
}

/// The layout without the rules.
fn raw_metadata(metadata: &Metadata) -> Vec<u8> {
    let mut bytes = vec![metadata.content_type.len() as u8];
    bytes.extend(metadata.content_type.bytes());
    bytes.push(metadata.pairs.len() as u8);
    for (name, value) in &metadata.pairs {
        bytes.push(name.len() as u8);
        bytes.extend(name.bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value.bytes());
    }
    bytes
}

#[test]
fn leaf() {
    let put = Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 1,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: Hash([3; 32]),
        key: b"k",
        author: b"",
        body: b"",
    };
    let check = |leaf: &Leaf<'_>, expected: Result<(), LeafError>| {
        let mut bytes = Vec::new();
        assert_eq!(leaf.encode_into(&mut bytes), expected);
        if expected.is_ok() {
            assert_eq!(Leaf::parse(&bytes).as_ref(), Ok(leaf));
        }
    };
    let key = [7; KEY_LENGTH_MAX + 1];
    let of_key = |length: usize| Leaf {
        key: &key[..length],
        ..put
    };
    check(&of_key(KEY_LENGTH_MAX), Ok(()));
    check(
        &of_key(KEY_LENGTH_MAX + 1),
        Err(LeafError::KeyLength {
            found: 1025,
            min: 1,
        }),
    );
    let author = [7; AUTHOR_LENGTH_MAX + 1];
    let of_author = |length: usize| Leaf {
        author: &author[..length],
        ..put
    };
    check(&of_author(AUTHOR_LENGTH_MAX), Ok(()));
    check(
        &of_author(AUTHOR_LENGTH_MAX + 1),
        Err(LeafError::AuthorLength { found: 65 }),
    );
    let body = vec![7; LEAF_LENGTH_MAX];
    let of_body = |length: usize| Leaf {
        kind: LeafKind::System,
        subtype: 6,
        commitment: Hash::default(),
        key: b"",
        body: &body[..length],
        ..put
    };
    let room = LEAF_LENGTH_MAX - scribe_proof::leaf::LEAF_LENGTH_MIN;
    check(&of_body(room), Ok(()));
    check(
        &of_body(room + 1),
        Err(LeafError::LeafLength { found: 16_385 }),
    );
    assert_eq!(
        Leaf::parse(&[0; LEAF_LENGTH_MAX]),
        Err(LeafError::UnknownVersion(0))
    );
    assert_eq!(
        Leaf::parse(&[0; LEAF_LENGTH_MAX + 1]),
        Err(LeafError::LeafLength { found: 16_385 })
    );
}

#[test]
fn tiles() {
    assert!(Tile::new(63, (1 << 56) - 1, 256).is_ok());
    assert_eq!(Tile::new(64, 0, 1), Err(TileError::Level { found: 64 }));
    assert_eq!(Tile::new(0, 1 << 56, 1), Err(TileError::Index));
    let last = Tile::new(0, (1 << 56) - 1, 255).unwrap();
    assert_eq!(TilePath::parse(&last.path()), Ok(TilePath::Hashes(last)));
    assert!(last.exists_at(TreeSize::new(u64::MAX)));
    assert!(!last.exists_at(TreeSize::new(u64::MAX - 1)));
    let full = Tile::new(0, (1 << 56) - 1, 256).unwrap();
    assert!(!full.exists_at(TreeSize::new(u64::MAX)));
    let long = "tile/0/".to_string() + &"x001/".repeat(100_000) + "001";
    assert_eq!(TilePath::parse(&long), Err(TileError::Path));
}

#[test]
fn two_keys_of_one_key_id_are_refused() {
    // Found by trying: two key pairs whose key ids are the same.
    let seed = |number: u64| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        seed
    };
    let of = |name: &str, kind: KeyType, number: u64| {
        SigningKey::from_seed_typed(name, kind, &seed(number)).unwrap()
    };
    let (ledger, twin) = (
        of(ORIGIN, KeyType::Ed25519, 50_882),
        of(ORIGIN, KeyType::Ed25519, 51_933),
    );
    assert_eq!(ledger.verifier_key().key_id(), twin.verifier_key().key_id());
    // The twin's signature does not pass for the ledger's: it spoils the note.
    let forged = sign_note("text\n", &[&twin]).unwrap();
    assert!(matches!(
        forged.verify(ledger.verifier_key()),
        Err(NoteError::BadSignature { .. })
    ));
    let refused = |text: String| match Policy::parse(&text) {
        Err(PolicyError::Line {
            line: 2,
            problem: problem @ LineProblem::SameKeyId { .. },
        }) => problem.to_string(),
        other => panic!("{other:?}"),
    };
    let problem = refused(format!(
        "log {}\nlog {}\nquorum none\n",
        ledger.verifier_key(),
        twin.verifier_key()
    ));
    assert!(
        problem.contains("0dff8136") && problem.contains("hint:"),
        "{problem}"
    );
    let node = format!("{ORIGIN}/node/1");
    let (one, two) = (
        of(&node, KeyType::Cosignature, 6631),
        of(&node, KeyType::Cosignature, 62_723),
    );
    refused(format!(
        "witness a {}\nwitness b {}\nquorum none\n",
        one.verifier_key(),
        two.verifier_key()
    ));
    // The same key pair as ledger and as witness has two ids, and so may be both.
    let both = of(ORIGIN, KeyType::Cosignature, 50_882);
    Policy::parse(&format!(
        "log {}\nwitness same {}\nquorum same\n",
        ledger.verifier_key(),
        both.verifier_key()
    ))
    .unwrap();
}
