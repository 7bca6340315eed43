//! Cases for rotations of the ledger's key.

use scribe_proof::Rotation;

use super::*;

pub(super) fn rotation_cases() -> Vec<Value> {
    let old = ledger_key();
    let new = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let rotation = Rotation::sign(&old, &new, LeafIndex::new(70_212)).unwrap();
    let note = rotation.to_text();
    let base = valid(
        "a rotation",
        json!({
            "note": note,
            "origin": ORIGIN,
            "old": old.verifier_key().to_text(),
            "new": new.verifier_key().to_text(),
            "index": "70212",
        }),
    );
    let refuse = |name: &str, reason: &str, error: &str, note: &str| {
        wrong(name, reason, error, &base, json!({ "note": note }))
    };
    // Signed as it stands, so that only the text is wrong.
    let signed = |text: &str| sign_note(text, &[&old, &new]).unwrap().to_text();
    let text = Note::parse(&note).unwrap().text;
    let signatures = note.split_once("\n\n").unwrap().1;
    let (by_old, by_new) = signatures.split_once('\n').unwrap();
    let alone = |line: &str| format!("{text}\n{}\n", line.trim_end());
    let elsewhere = SigningKey::from_seed("example.com/other", &[3; 32]).unwrap();
    vec![
        base.clone(),
        refuse(
            "another index",
            "the signatures are over another text",
            "does not fit the text",
            &note.replace("70212", "70213"),
        ),
        refuse(
            "signed by the old key alone",
            "the new key must agree, too",
            "must be signed by the old key",
            &alone(by_old),
        ),
        refuse(
            "signed by the new key alone",
            "the old key vouches for the new one",
            "must be signed by the old key",
            &alone(by_new),
        ),
        refuse(
            "signatures in the other order",
            "there is one encoding",
            "must be signed by the old key",
            &format!("{text}\n{by_new}{by_old}\n"),
        ),
        refuse(
            "a third signature",
            "there is one encoding",
            "must be signed by the old key",
            &format!(
                "{note}{}",
                sign_note(&text, &[&elsewhere]).unwrap().signatures[0].to_line()
            ),
        ),
        refuse(
            "another header",
            "it is another kind of note",
            "rotation line 1 must be",
            &signed(&text.replace("/v1", "/v2")),
        ),
        refuse(
            "index with a leading zero",
            "there is one encoding",
            "rotation line 5 must be",
            &signed(&text.replace("70212", "070212")),
        ),
        refuse(
            "a line more",
            "there is one encoding",
            "rotation line 6 must be",
            &signed(&format!("{text}more\n")),
        ),
        refuse(
            "another origin than the keys'",
            "a rotation is of one ledger",
            "has a key named",
            &signed(&text.replacen("\nexample.com/ledger\n", "\nexample.com/other\n", 1)),
        ),
        refuse(
            "the same key twice",
            "nothing is replaced",
            "replaces a key by itself",
            &signed(&text.replace(&new.verifier_key().to_text(), &old.verifier_key().to_text())),
        ),
        refuse(
            "a node's key",
            "a ledger key has type 01",
            "has type 0x04",
            &signed(&text.replace(
                &new.verifier_key().to_text(),
                &node_key(1).verifier_key().to_text(),
            )),
        ),
    ]
}

pub(super) fn check_rotation(case: &Value) -> Result<(), String> {
    let rotation = Rotation::parse(case["note"].as_str().unwrap()).map_err(|e| e.to_string())?;
    assert_eq!(rotation.to_text(), case["note"]);
    assert_eq!(rotation.origin(), case["origin"]);
    assert_eq!(rotation.old().to_text(), case["old"]);
    assert_eq!(rotation.new_key().to_text(), case["new"]);
    assert_eq!(rotation.index().to_string(), case["index"]);
    Ok(())
}
