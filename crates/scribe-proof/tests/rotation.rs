//! Rotation notes: what is signed is read back, and nothing else is taken for one.

mod common;

use common::{ORIGIN, ledger_key};
use scribe_proof::note::sign_note;
use scribe_proof::rotation::{ROTATION_HEADER, ROTATION_LENGTH_MAX};
use scribe_proof::{
    LeafIndex, NoteError, ROTATION_OVERLAP_MS, Rotation, RotationError, SigningKey,
};

fn successor() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap()
}

fn cosigner() -> SigningKey {
    SigningKey::cosigner_from_seed(ORIGIN, &[3; 32]).unwrap()
}

fn elsewhere() -> SigningKey {
    SigningKey::from_seed("example.com/other", &[4; 32]).unwrap()
}

/// A note with these lines, signed by these keys.
fn note(lines: &str, keys: &[&SigningKey]) -> String {
    sign_note(lines, keys).unwrap().to_text()
}

/// The lines of a rotation as the format has them.
fn lines(origin: &str, old: &SigningKey, new: &SigningKey, index: &str) -> String {
    let (old, new) = (old.verifier_key(), new.verifier_key());
    format!("{ROTATION_HEADER}\n{origin}\n{old}\n{new}\n{index}\n")
}

#[test]
fn what_is_signed_is_read_back() {
    let (old, new) = (ledger_key(), successor());
    let rotation = Rotation::sign(&old, &new, LeafIndex::new(70_212)).unwrap();
    assert_eq!(Rotation::parse(&rotation.to_text()).unwrap(), rotation);
    let by_hand = note(&lines(ORIGIN, &old, &new, "70212"), &[&old, &new]);
    assert_eq!(rotation.to_text(), by_hand);
    assert_eq!(rotation.old(), old.verifier_key());
    assert_eq!(rotation.new_key(), new.verifier_key());
    assert_eq!(rotation.index(), LeafIndex::new(70_212));
    assert_eq!(rotation.origin(), ORIGIN);
}

#[test]
fn its_numbers_are_part_of_the_format() {
    assert_eq!(ROTATION_OVERLAP_MS, 2_592_000_000);
    assert_eq!(ROTATION_LENGTH_MAX, 8_192);
    let longest = Rotation::parse(&"x".repeat(8_192)).unwrap_err();
    assert!(matches!(longest, RotationError::Note(_)), "{longest}");
    let longer = Rotation::parse(&"x".repeat(8_193)).unwrap_err();
    assert_eq!(longer, RotationError::TooLong { found: 8_193 });
}

#[test]
fn every_line_has_its_place() {
    let (old, new) = (ledger_key(), successor());
    let good = lines(ORIGIN, &old, &new, "5");
    let at_line = |text: &str| match Rotation::parse(&note(text, &[&old, &new])) {
        Err(RotationError::Line { line, .. }) => line,
        other => panic!("{text:?} gives {other:?}"),
    };
    assert_eq!(at_line(&good.replace("/v1", "/v2")), 1);
    for index in ["", "05", "+5", "five", "18446744073709551616"] {
        assert_eq!(at_line(&lines(ORIGIN, &old, &new, index)), 5, "{index:?}");
    }
    assert_eq!(at_line(&format!("{good}more\n")), 6);
    assert_eq!(at_line(&format!("{good}\n")), 6);
    assert_eq!(at_line(&format!("{good}\nmore\n")), 6);
    // A key identifier in capitals names the same key, in another text.
    let id = format!("{:08x}", new.verifier_key().key_id());
    assert!(id.bytes().any(|byte| byte.is_ascii_lowercase()));
    let capitals = good.replace(&id, &id.to_ascii_uppercase());
    let refused = Rotation::parse(&note(&capitals, &[&old, &new])).unwrap_err();
    let is_refused = matches!(
        refused,
        RotationError::Line { line: 3, .. } | RotationError::Note(_)
    );
    assert!(is_refused, "{refused}");
}

#[test]
fn both_keys_sign_in_order_and_nobody_else() {
    let (old, new, other) = (
        ledger_key(),
        successor(),
        SigningKey::from_seed(ORIGIN, &[5; 32]).unwrap(),
    );
    let text = lines(ORIGIN, &old, &new, "5");
    for keys in [
        &[&old][..],
        &[&new],
        &[&new, &old],
        &[&old, &other],
        &[&other, &new],
        &[&old, &new, &other],
    ] {
        let refused = Rotation::parse(&note(&text, keys)).unwrap_err();
        assert_eq!(refused, RotationError::Signatures);
    }
    // The lines of both keys are there, made for another place of the ledger.
    let elsewhere = note(&lines(ORIGIN, &old, &new, "6"), &[&old, &new]);
    for from in ["one", "both"] {
        let here = note(&text, &[&old, &new]);
        let (_, signatures) = elsewhere.split_once("\n\n").unwrap();
        let (_, own) = here.split_once("\n\n").unwrap();
        let taken = match from {
            "both" => signatures.to_owned(),
            _ => {
                let first = own.split_once('\n').unwrap().0;
                format!("{first}\n{}", signatures.split_once('\n').unwrap().1)
            }
        };
        let refused = Rotation::parse(&format!("{text}\n{taken}")).unwrap_err();
        let why = matches!(refused, RotationError::Note(NoteError::BadSignature { .. }));
        assert!(why, "{from}: {refused}");
    }
}

#[test]
fn keys_of_another_kind_or_ledger_replace_nothing() {
    let (old, new) = (ledger_key(), successor());
    let at = LeafIndex::new(5);
    for (old, new, origin) in [
        (&old, &cosigner(), ORIGIN),
        (&cosigner(), &new, ORIGIN),
        (&old, &elsewhere(), ORIGIN),
        (&old, &old, ORIGIN),
        (&old, &new, "example.com/other"),
    ] {
        // Whoever signed it: the keys named are looked at first.
        let text = note(
            &lines(origin, old, new, "5"),
            &[&ledger_key(), &successor()],
        );
        let read = Rotation::parse(&text).unwrap_err();
        let expected = if old.verifier_key() == new.verifier_key() {
            matches!(read, RotationError::SameKey)
        } else if old.name() == new.name() && origin == ORIGIN {
            matches!(read, RotationError::Note(_))
        } else {
            matches!(read, RotationError::KeyName { .. })
        };
        assert!(expected, "{read}");
        if origin == ORIGIN {
            assert_eq!(Rotation::sign(old, new, at).unwrap_err(), read);
        }
    }
}
