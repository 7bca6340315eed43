//! Cases for receipts.

use super::*;

pub(super) fn receipt_cases() -> Vec<Value> {
    let case = |name: &str, receipt: &Receipt| {
        valid(
            name,
            json!({
                "receipt": receipt.to_text(),
                "policy": policy_text(),
                "key": hex(KEY),
                "value": hex(VALUE),
                "index": RECEIPT_INDEX,
                "size": RECEIPT_SIZE,
            }),
        )
    };
    let good = receipt();
    let base = case("opened receipt", &good);
    let mut redacted = case("redacted receipt", &good.redacted());
    merge(&mut redacted, json!({ "value": null }));
    let mut ledger_only = case("ledger key alone is trusted", &good);
    let policy = format!("log {}\nquorum none\n", ledger_key().verifier_key());
    merge(&mut ledger_only, json!({ "policy": policy }));
    let refuse = |name: &str, reason: &str, error: &str, members: Value| {
        wrong(name, reason, error, &base, members)
    };
    let with = |receipt: Receipt| json!({ "receipt": receipt.to_text() });
    let text = good.to_text();
    let edit = |from: &str, to: &str| json!({ "receipt": text.replacen(from, to, 1) });
    let mut other_leaf = good.clone();
    other_leaf.leaf[4] ^= 1;
    let mut short = good.clone();
    short.proof.pop();
    let mut spoiled = good.clone();
    spoiled.proof[2].0[5] ^= 1;
    let one_cosigner = {
        let signed = SignedCheckpoint::parse(&good.checkpoint_note).unwrap();
        let checkpoint = signed.checkpoint();
        common::signed(checkpoint.size, checkpoint.root, &[1]).to_text()
    };
    let mut imposter = {
        let key = SigningKey::from_seed(ORIGIN, &[66; 32]).unwrap();
        let checkpoint = SignedCheckpoint::parse(&good.checkpoint_note).unwrap();
        SignedCheckpoint::sign(checkpoint.checkpoint().clone(), &[&key]).unwrap()
    };
    for id in [1, 2] {
        let text = imposter.note().text.clone();
        imposter
            .add_signature(cosignature::sign(&text, &node_key(id), 1_790_000_000).unwrap())
            .unwrap();
    }
    let opening = |salt: [u8; 16], metadata: &[u8]| {
        with(Receipt {
            opening: Some(Opening {
                salt,
                metadata: metadata.to_vec(),
            }),
            ..good.clone()
        })
    };
    let encoded = metadata().encode().unwrap();
    let later = receipt_for(b"\x02 of a later version".to_vec()).redacted();
    vec![
        base.clone(),
        redacted.clone(),
        ledger_only,
        refuse(
            "other value",
            "the leaf commits to another value",
            "value does not match",
            json!({ "value": hex(b"hellO") }),
        ),
        refuse(
            "other key",
            "the receipt is for another key",
            "entry key does not match",
            json!({ "key": hex(b"greetings") }),
        ),
        refuse(
            "other salt",
            "the commitment needs the salt",
            "value does not match",
            opening([0; 16], &encoded),
        ),
        refuse(
            "other metadata",
            "the commitment covers metadata",
            "value does not match",
            opening(SALT, &[0, 0]),
        ),
        refuse(
            "malformed metadata",
            "metadata is canonical",
            "metadata does not match",
            opening(SALT, &[0]),
        ),
        refuse(
            "value of a redacted receipt",
            "nothing opens the commitment",
            "value cannot be checked",
            with(good.redacted()),
        ),
        refuse(
            "other leaf",
            "one bit of the timestamp differs",
            "inclusion does not match",
            with(other_leaf),
        ),
        refuse(
            "other index",
            "the leaf is elsewhere",
            "inclusion does not match",
            edit("index 137", "index 136"),
        ),
        refuse(
            "index outside the tree",
            "the tree has 300 leaves",
            "inclusion does not match",
            edit("index 137", "index 300"),
        ),
        refuse(
            "proof one hash short",
            "the length follows from index and size",
            "inclusion does not match",
            with(short),
        ),
        refuse(
            "proof with a flipped bit",
            "it leads to another root",
            "inclusion does not match",
            with(spoiled),
        ),
        refuse(
            "later leaf version",
            "included, not understood: never valid",
            "included but not understood",
            with(later),
        ),
        refuse(
            "quorum not met",
            "one of three nodes cosigned, two are needed",
            "signature does not match: quorum",
            with(Receipt {
                checkpoint_note: one_cosigner,
                ..good.clone()
            }),
        ),
        refuse(
            "another ledger key",
            "cosignatures do not replace the ledger's",
            "signature does not match",
            with(Receipt {
                checkpoint_note: imposter.to_text(),
                ..good.clone()
            }),
        ),
        refuse(
            "another origin",
            "the policy has no log of that name",
            "origin does not match",
            json!({ "policy": format!("log {}\nquorum none\n", SigningKey::from_seed("example.com/other", &[1; 32]).unwrap().verifier_key()) }),
        ),
        refuse(
            "changed size in the checkpoint",
            "300 leaves became 138",
            "inclusion does not match",
            edit("\n300\n", "\n138\n"),
        ),
        refuse(
            "index with leading zero",
            "numbers are canonical",
            "receipt line 3",
            edit("index 137", "index 0137"),
        ),
        refuse(
            "no extra line",
            "ours carries the leaf there",
            "receipt line 2",
            edit("extra ", "Extra "),
        ),
        refuse(
            "another format",
            "the first line names the format",
            "receipt line 1",
            edit("tlog-proof@v1", "tlog-proof@v2"),
        ),
        refuse(
            "no checkpoint",
            "a checkpoint follows the empty line",
            "followed by an empty line",
            json!({ "receipt": text.split("\n\n").next().unwrap() }),
        ),
    ]
}

pub(super) fn check_receipt(case: &Value) -> Result<(), String> {
    let text = case["receipt"].as_str().unwrap();
    let receipt = Receipt::parse(text).map_err(|error| error.to_string())?;
    assert_eq!(receipt.to_text(), text);
    let policy = Policy::parse(case["policy"].as_str().unwrap()).unwrap();
    let entry = receipt.verify(&policy).map_err(|error| error.to_string())?;
    assert_eq!(entry.index().get(), case["index"].as_u64().unwrap());
    assert_eq!(entry.tree_size().get(), case["size"].as_u64().unwrap());
    check(entry.check_key(&unhex(&case["key"])))?;
    if !case["value"].is_null() {
        check(entry.check_value(&unhex(&case["value"])).map(|_| ()))?;
    }
    Ok(())
}
