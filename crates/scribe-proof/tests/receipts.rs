//! Receipts from end to end: what holds, and that each thing that does not is named.

mod common;

use common::{KEY, ORIGIN, VALUE, encode, ledger_key, metadata, policy_text, receipt, receipt_for};
use proptest::prelude::*;
use scribe_proof::{
    Hash, Leaf, LeafIndex, LeafKind, Opening, Policy, Prev, Receipt, ReceiptError, SigningKey,
    TreeSize,
};

#[test]
fn a_good_receipt() {
    let text = receipt().to_text();
    let parsed = Receipt::parse(&text).unwrap();
    assert_eq!(parsed, receipt());
    assert_eq!(parsed.to_text(), text);

    let entry = parsed
        .verify(&Policy::parse(&policy_text()).unwrap())
        .unwrap();
    entry.check_key(KEY).unwrap();
    assert_eq!(entry.check_value(VALUE).unwrap(), &metadata());
    assert_eq!(
        (entry.index(), entry.tree_size()),
        (LeafIndex::new(137), TreeSize::new(300))
    );
    assert_eq!(
        (entry.kind, entry.prev, &*entry.author),
        (LeafKind::Put, Prev::None, &b"alice"[..])
    );
    assert_eq!(entry.origin(), ORIGIN);
    assert_eq!(entry.cosigners().len(), 2);

    let entry = parsed.verify(ledger_key().verifier_key()).unwrap();
    assert_eq!(entry.cosigners(), []);
    let mut hasher = entry.value_hasher(VALUE.len() as u64).unwrap();
    VALUE.iter().for_each(|byte| {
        hasher.update(&[*byte]);
    });
    entry.check_commitment(hasher.finish().unwrap()).unwrap();
}

#[test]
fn a_redacted_receipt_proves_existence_only() {
    let redacted = Receipt::parse(&receipt().redacted().to_text()).unwrap();
    let entry = redacted.verify(ledger_key().verifier_key()).unwrap();
    entry.check_key(KEY).unwrap();
    assert!(entry.is_redacted());
    assert_eq!(entry.check_value(VALUE), Err(ReceiptError::Redacted));
}

#[test]
fn each_mismatch_is_named() {
    let key = ledger_key().verifier_key().clone();
    let verify = |receipt: &Receipt| receipt.verify(&key).unwrap_err();
    let entry = receipt().verify(&key).unwrap();
    assert_eq!(entry.check_key(b"greetinG"), Err(ReceiptError::EntryKey));
    assert!(matches!(
        entry.check_value(b"hellO"),
        Err(ReceiptError::Value { .. })
    ));

    let mut other = receipt();
    other.leaf[60] ^= 1;
    assert!(matches!(verify(&other), ReceiptError::Inclusion(_)));
    let other = Receipt {
        index: LeafIndex::new(138),
        ..receipt()
    };
    assert!(matches!(verify(&other), ReceiptError::Inclusion(_)));
    let mut other = receipt();
    other.proof.pop();
    assert!(matches!(verify(&other), ReceiptError::Inclusion(_)));
    let mut other = receipt();
    other.leaf.push(0);
    assert!(matches!(verify(&other), ReceiptError::Leaf(_)));

    // Salt and metadata are checked with the value, not before.
    let opening = Opening {
        salt: [0; 16],
        metadata: metadata().encode().unwrap(),
    };
    let entry = Receipt {
        opening: Some(opening),
        ..receipt()
    }
    .verify(&key)
    .unwrap();
    assert!(matches!(
        entry.check_value(VALUE),
        Err(ReceiptError::Value { .. })
    ));
    let opening = Opening {
        salt: common::SALT,
        metadata: vec![0, 0],
    };
    let entry = Receipt {
        opening: Some(opening),
        ..receipt()
    }
    .verify(&key)
    .unwrap();
    assert!(matches!(
        entry.check_value(VALUE),
        Err(ReceiptError::Value { .. })
    ));
    let opening = Opening {
        salt: common::SALT,
        metadata: vec![0],
    };
    assert!(matches!(
        verify(&Receipt {
            opening: Some(opening),
            ..receipt()
        }),
        ReceiptError::Metadata(_)
    ));

    // A checkpoint of the same size with another root, properly signed.
    let root = common::number_tree(300).0.root();
    let checkpoint_note = common::signed(TreeSize::new(300), root, &[]).to_text();
    assert!(matches!(
        verify(&Receipt {
            checkpoint_note,
            ..receipt()
        }),
        ReceiptError::Inclusion(_)
    ));
    let checkpoint_note =
        receipt()
            .checkpoint_note
            .replacen("\u{2014} example", "\u{2014} fxample", 1);
    assert!(matches!(
        verify(&Receipt {
            checkpoint_note,
            ..receipt()
        }),
        ReceiptError::Signature(_)
    ));
    let checkpoint_note = receipt().checkpoint_note.replacen('\n', "\n0", 1);
    assert!(matches!(
        verify(&Receipt {
            checkpoint_note,
            ..receipt()
        }),
        ReceiptError::Checkpoint(_)
    ));
    let other = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    let error = receipt().verify(other.verifier_key()).unwrap_err();
    assert!(matches!(error, ReceiptError::Origin(_)), "{error}");

    // Enough for the ledger key, not for the policy.
    let mut note = scribe_proof::Note::parse(&receipt().checkpoint_note).unwrap();
    note.signatures.pop();
    let alone = Receipt {
        checkpoint_note: note.to_text(),
        ..receipt()
    };
    alone.verify(&key).unwrap();
    let error = alone
        .verify(&Policy::parse(&policy_text()).unwrap())
        .unwrap_err();
    assert!(matches!(error, ReceiptError::Signature(_)), "{error}");
}

#[test]
fn leaves_of_a_later_format_are_included_but_not_understood() {
    let key = ledger_key().verifier_key().clone();
    let receipt = receipt_for(b"\x02a later format".to_vec()).redacted();
    let receipt = Receipt::parse(&receipt.to_text()).unwrap();
    assert!(matches!(
        receipt.verify(&key),
        Err(ReceiptError::NotUnderstood(_))
    ));
    // Not included at all is the stronger complaint.
    let moved = Receipt {
        index: LeafIndex::new(0),
        ..receipt
    };
    assert!(matches!(
        moved.verify(&key),
        Err(ReceiptError::Inclusion(_))
    ));
}

#[test]
fn system_leaves_have_receipts_without_opening() {
    let leaf = Leaf {
        kind: LeafKind::System,
        subtype: 1,
        timestamp_ms: 1,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: Hash::default(),
        key: b"",
        author: b"",
        body: b"genesis",
    };
    let opened = receipt_for(encode(&leaf));
    let key = ledger_key().verifier_key().clone();
    assert_eq!(opened.verify(&key), Err(ReceiptError::OpeningNotAllowed));
    let entry = opened.redacted().verify(&key).unwrap();
    assert_eq!(entry.system_kind, Some(scribe_proof::SystemKind::Genesis));
    assert_eq!(entry.body, b"genesis");
}

#[test]
fn malformed_text() {
    let good = receipt().to_text();
    let check = |text: &str, expected: &str| {
        let error = Receipt::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    check("", "followed by an empty line");
    check(
        &good.replacen("@v1", "@v2", 1),
        "line 1 must be c2sp.org/tlog-proof@v1",
    );
    check(
        &good.replacen("@v1", "@v10", 1),
        "line 1 must be c2sp.org/tlog-proof@v1",
    );
    check(
        &good.replacen("extra ", "Extra ", 1),
        "line 2 must be extra",
    );
    check(
        &good.replacen("index 137", "index 0137", 1),
        "line 3 must be index",
    );
    check(&good.replacen("index 137\n", "", 1), "line 3 must be index");
    check(&good.replacen("\n", "\r\n", 1), "line 1 must be");
    let proof = receipt().proof;
    let first = proof[0].to_base64();
    check(
        &good.replacen(&first, first.trim_end_matches('='), 1),
        "line 4 must be canonical",
    );
    let (head, note) = good.split_once("\n\n").unwrap();
    let many = format!("{head}{}\n\n{note}", format!("\n{first}").repeat(64));
    check(&many, "empty after 64 proof hashes");
    check(head, "followed by an empty line");
    check(
        &format!("{head}\n\n"),
        "checkpoint does not match the format",
    );
    check(&"x".repeat(131_073), "at most 131072");
    // The extra line: another version, a cut, an extra byte.
    let line = good.lines().nth(1).unwrap();
    check(&good.replacen(line, "extra ", 1), "extra data is malformed");
    check(&good.replacen(line, "extra AgAA", 1), "version 2");
    check(&good.replacen(line, "extra AQAB", 1), "ends early");
    check(&good.replacen(line, "extra AQ", 1), "line 2 must be extra");
    let cut = Receipt {
        opening: Some(Opening {
            salt: [0; 16],
            metadata: vec![],
        }),
        ..receipt()
    };
    check(&cut.to_text(), "metadata does not match");
}

#[test]
fn the_largest_receipt_fits() {
    let body = vec![7; scribe_proof::LEAF_LENGTH_MAX - scribe_proof::leaf::LEAF_LENGTH_MIN];
    let leaf = Leaf {
        kind: LeafKind::System,
        subtype: 4,
        timestamp_ms: 1,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: Hash::default(),
        key: b"",
        author: b"",
        body: &body,
    };
    let text = receipt_for(encode(&leaf)).redacted().to_text();
    Receipt::parse(&text)
        .unwrap()
        .verify(ledger_key().verifier_key())
        .unwrap();
}

proptest! {
    /// No single changed character leaves a receipt valid for the same entry and value.
    #[test]
    fn changed_receipts_fail(at in any::<prop::sample::Index>(), to in 10..127_u8) {
        let text = common::receipt_for(common::put_leaf()).to_text();
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        if bytes[at] < 0x80 {
            bytes[at] = to;
        }
        let changed = String::from_utf8(bytes).unwrap();
        if changed != text {
            let policy = Policy::parse(&policy_text()).unwrap();
            let result = Receipt::parse(&changed)
                .and_then(|receipt| receipt.verify(&policy))
                .and_then(|entry| entry.check_key(KEY).and_then(|()| entry.check_value(VALUE).cloned()));
            prop_assert!(result.is_err(), "byte {at} to {to}");
        }
    }
}

#[test]
fn a_text_that_ends_early_is_refused_at_the_line_that_is_missing() {
    for (text, line) in [
        ("c2sp.org/tlog-proof@v1", 1),
        ("c2sp.org/tlog-proof@v1\nextra AA==\nindex 5", 3),
        ("c2sp.org/tlog-proof@v1\n\nnote", 2),
        ("c2sp.org/tlog-proof@v1\nextra AA==\n\nnote", 3),
    ] {
        match Receipt::parse(text) {
            Err(ReceiptError::Line { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
            other => panic!("{text:?} gives {other:?}"),
        }
    }
}
