//! Cases for notes and checkpoints.

use super::*;

pub(super) fn note_cases() -> Vec<Value> {
    let key = ledger_key();
    let vkey = key.verifier_key().to_text();
    let case = |name: &str, note: &str| valid(name, json!({ "note": note, "key": vkey }));
    let plain = sign_note("some text\n", &[&key]).unwrap();
    let other = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
    let both = sign_note("some text\n", &[&other, &key]).unwrap();
    let text = plain.to_text();
    let base = case("one signature", &text);
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(7), number_tree(7).0.root());
    let mut cosigned = SignedCheckpoint::sign(checkpoint, &[&key]).unwrap();
    let body = cosigned.note().text.clone();
    cosigned
        .add_signature(cosignature::sign(&body, &node_key(1), 1_790_000_001).unwrap())
        .unwrap();
    let node = json!({ "key": node_key(1).verifier_key().to_text(), "timestamp_s": 1_790_000_001 });
    let mut cosigned_case = case("cosignature", &cosigned.to_text());
    merge(&mut cosigned_case, node);
    let mut cases = vec![
        base.clone(),
        case(
            "empty lines in the text",
            &sign_note("a\n\nb\n\n", &[&key]).unwrap().to_text(),
        ),
        case(
            "signature of an unknown key of the same name first",
            &both.to_text(),
        ),
        cosigned_case.clone(),
        wrong(
            "key in its private form",
            "it is not a verifier key",
            "verifier key must be",
            &base,
            json!({ "key": key.to_text() }),
        ),
    ];
    let late = cosigned.to_text().replacen("\n7\n", "\n8\n", 1);
    let crlf = text.replace('\n', "\r\n");
    let line = text.lines().last().unwrap();
    let bad_line = "signature line 1 must be";
    let refuse = |name: &str, reason: &str, error: &str, note: &str| {
        wrong(name, reason, error, &base, json!({ "note": note }))
    };
    cases.extend([
        refuse(
            "changed text",
            "the signature is over another text",
            "does not fit the text",
            &text.replace("some", "sone"),
        ),
        refuse(
            "no final newline",
            "a line ends in a newline",
            "must end in a newline",
            text.trim_end(),
        ),
        refuse(
            "no empty line",
            "text and signatures are separated",
            "no empty line",
            &format!("some text\n{line}\n"),
        ),
        refuse(
            "no signature",
            "a note has one at least",
            "no signature line",
            "some text\n\n",
        ),
        refuse(
            "hyphen for em dash",
            "U+2014",
            bad_line,
            &text.replace('\u{2014}', "-"),
        ),
        refuse(
            "padding missing",
            "base64 is canonical",
            bad_line,
            &text.replace("=\n", "\n"),
        ),
        refuse(
            "plus in the name",
            "a name has no plus",
            "key name must be",
            &text.replace("example", "ex+mple"),
        ),
        refuse(
            "carriage returns",
            "newline is the only control character",
            "control character",
            &crlf,
        ),
        refuse(
            "signed by another key only",
            "no trusted key signed",
            "not signed",
            &sign_note("some text\n", &[&other]).unwrap().to_text(),
        ),
        wrong(
            "cosignature for another size",
            "it is over the whole text",
            "does not fit the text",
            &cosigned_case,
            json!({ "note": late }),
        ),
        wrong(
            "wrong key id",
            "the id belongs to another key",
            "does not belong to the key",
            &base,
            json!({ "key": vkey.replacen(ORIGIN, "example.com/other", 1) }),
        ),
        wrong(
            "key of type 6",
            "a type this software does not know",
            "unknown key type 0x06",
            &base,
            json!({ "key": vkey.replacen("+A", "+B", 1) }),
        ),
    ]);
    // Type 0x01 is `AQ…` in base64, `+B` makes it something else; set it exactly instead.
    let (head, base64) = vkey.rsplit_once('+').unwrap();
    if let Some(last) = cases.last_mut() {
        merge(last, json!({ "key": format!("{head}+Bg{}", &base64[2..]) }));
    }
    cases
}

pub(super) fn check_note(case: &Value) -> Result<(), String> {
    let text = case["note"].as_str().unwrap();
    let note = Note::parse(text).map_err(|error| error.to_string())?;
    assert_eq!(note.to_text(), text);
    let key = VerifierKey::parse(case["key"].as_str().unwrap()).map_err(|e| e.to_string())?;
    if !note.verify(&key).map_err(|error| error.to_string())? {
        return Err("not signed by the key".into());
    }
    if let Some(time) = case["timestamp_s"].as_u64() {
        assert_eq!(cosignature::find(&note, &key), Ok(Some(time)));
    }
    Ok(())
}

pub(super) fn checkpoint_cases() -> Vec<Value> {
    let key = ledger_key();
    let case = |name: &str, checkpoint: Checkpoint| {
        let (origin, size, root) = (checkpoint.origin.clone(), checkpoint.size, checkpoint.root);
        valid(
            name,
            json!({
                "note": SignedCheckpoint::sign(checkpoint, &[&key]).unwrap().to_text(),
                "key": key.verifier_key().to_text(),
                "origin": origin,
                "size": size.get(),
                "root": root.to_hex(),
            }),
        )
    };
    let root = number_tree(7).0.root();
    let base = case(
        "seven leaves",
        Checkpoint::new(ORIGIN, TreeSize::new(7), root),
    );
    let extensions = vec!["one".to_string(), "two words".to_string()];
    let mut cases = vec![
        base.clone(),
        case(
            "no leaves",
            Checkpoint::new(ORIGIN, TreeSize::EMPTY, scribe_proof::empty_root()),
        ),
        case(
            "with extension lines",
            Checkpoint {
                extensions,
                ..Checkpoint::new(ORIGIN, TreeSize::new(7), root)
            },
        ),
    ];
    // Signed all the same: the signature is not what is wrong with them.
    let signed = |text: &str| json!({ "note": sign_note(text, &[&key]).unwrap().to_text() });
    let root = root.to_base64();
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    let other = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    let note = base["note"].as_str().unwrap();
    cases.extend([
        refuse("leading zero", "sizes have no leading zeros", "tree size must be", signed(&format!("{ORIGIN}\n07\n{root}\n"))),
        refuse("sign", "sizes are digits", "tree size must be", signed(&format!("{ORIGIN}\n+7\n{root}\n"))),
        refuse("size 2^64", "sizes are below 2^64", "tree size must be", signed(&format!("{ORIGIN}\n18446744073709551616\n{root}\n"))),
        refuse("two lines", "a root hash is missing", "has 2 lines", signed(&format!("{ORIGIN}\n7\n"))),
        refuse("no origin", "the first line is not empty", "origin must be", signed(&format!("\n7\n{root}\n"))),
        refuse("root without padding", "base64 is canonical", "root hash is malformed", signed(&format!("{ORIGIN}\n7\n{}\n", root.trim_end_matches('=')))),
        refuse("root in hex", "roots are base64", "root hash is malformed", signed(&format!("{ORIGIN}\n7\n{}\n", base["root"].as_str().unwrap()))),
        refuse("no leaves, other root", "the empty tree has one root", "without leaves", signed(&format!("{ORIGIN}\n0\n{root}\n"))),
        refuse("empty extension line", "extension lines are not empty", "extension line 1", signed(&format!("{ORIGIN}\n7\n{root}\n\nx\n"))),
        refuse("other origin", "the key is of another ledger", "checkpoint is of origin", signed(&format!("example.com/else\n7\n{root}\n"))),
        refuse("other key", "the key is of another ledger", "checkpoint is of origin", json!({ "key": other.verifier_key().to_text() })),
        refuse("changed size", "the signature is over another size", "does not fit the text", json!({ "note": note.replacen("\n7\n", "\n8\n", 1) })),
        refuse("cosigner for ledger", "a cosigner's key cannot sign for the ledger", "type 0x01 is needed", json!({ "key": SigningKey::cosigner_from_seed(ORIGIN, &[1; 32]).unwrap().verifier_key().to_text() })),
    ]);
    cases
}

pub(super) fn check_checkpoint(case: &Value) -> Result<(), String> {
    let text = case["note"].as_str().unwrap();
    let signed = SignedCheckpoint::parse(text).map_err(|error| error.to_string())?;
    let key = VerifierKey::parse(case["key"].as_str().unwrap()).unwrap();
    let checkpoint = signed.verify(&key).map_err(|error| error.to_string())?;
    assert_eq!(checkpoint.origin, case["origin"].as_str().unwrap());
    assert_eq!(checkpoint.size.get(), case["size"].as_u64().unwrap());
    assert_eq!(checkpoint.root, hash(&case["root"]));
    Ok(())
}
