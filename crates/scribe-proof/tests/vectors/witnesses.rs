//! Cases for `add-checkpoint`: requests, and answers with what they prove.

use scribe_proof::AddCheckpoint;
use scribe_proof::witness::{Answer, cosignature_by};

use super::*;

const NOW_S: u64 = 1_790_000_001;

fn witness_key() -> SigningKey {
    SigningKey::cosigner_from_seed("witness.example/w1", &[11; 32]).unwrap()
}

fn checkpoint(size: u64) -> SignedCheckpoint {
    let root = number_tree(size).0.root();
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(size), root);
    SignedCheckpoint::sign(checkpoint, &[&ledger_key()]).unwrap()
}

fn request(old: u64, size: u64) -> AddCheckpoint {
    let proof = consistency::prove(
        &number_tree(size).0,
        TreeSize::new(old),
        TreeSize::new(size),
    );
    AddCheckpoint {
        old: TreeSize::new(old),
        proof: proof.unwrap(),
        checkpoint: checkpoint(size),
    }
}

pub(super) fn request_cases() -> Vec<Value> {
    let case = |name: &str, old: u64, size: u64| {
        let request = request(old, size);
        valid(
            name,
            json!({
                "body": request.to_text().unwrap(),
                "old": old,
                "old_root": number_tree(old).0.root().to_hex(),
                "size": size,
                "root": number_tree(size).0.root().to_hex(),
                "proof": hex_all(&request.proof),
            }),
        )
    };
    let base = case("from 3 to 7 leaves", 3, 7);
    let body = base["body"].as_str().unwrap();
    let first_line = request(3, 7).proof[0].to_base64();
    let refuse = |name: &str, reason: &str, error: &str, body: &str| {
        wrong(name, reason, error, &base, json!({ "body": body }))
    };
    let mut cases = vec![
        base.clone(),
        case("a first checkpoint", 0, 7),
        case("the same checkpoint again", 7, 7),
        case("no leaves", 0, 0),
    ];
    let many = format!("{first_line}\n").repeat(64);
    cases.extend([
        refuse(
            "size with a leading zero",
            "sizes have none",
            "the first line must be",
            &body.replace("old 3", "old 03"),
        ),
        refuse(
            "no size",
            "the first line is `old` and a size",
            "the first line must be",
            &body.replace("old 3", "old"),
        ),
        refuse(
            "no empty line",
            "proof and checkpoint are separated",
            "proof line",
            &body.replacen("\n\n", "\n", 1),
        ),
        refuse(
            "hash in hex",
            "hashes are base64",
            "proof line 1",
            &body.replace(&first_line, &request(3, 7).proof[0].to_hex()),
        ),
        refuse(
            "hash without padding",
            "base64 is canonical",
            "proof line 1",
            &body.replace(&first_line, first_line.trim_end_matches('=')),
        ),
        refuse(
            "carriage returns",
            "lines end in a newline alone",
            "no empty line",
            &body.replace('\n', "\r\n"),
        ),
        refuse(
            "64 proof lines",
            "at most 63 are allowed",
            "64 proof lines",
            &body.replace(
                &format!(
                    "{first_line}\n{}",
                    &body[6 + first_line.len() + 1..body.find("\n\n").unwrap() + 1]
                ),
                &many,
            ),
        ),
        refuse(
            "no final newline",
            "a note ends in a newline",
            "must end in a newline",
            body.trim_end(),
        ),
        refuse(
            "no signature",
            "a checkpoint is signed",
            "no signature line",
            &body[..body.find('\u{2014}').unwrap()],
        ),
        wrong(
            "a changed proof",
            "it leads to another root",
            "proof leads to",
            &base,
            json!({ "body": body.replacen(&first_line, &leaf_hash(b"x").to_base64(), 1) }),
        ),
    ]);
    cases
}

pub(super) fn check_request(case: &Value) -> Result<(), String> {
    let body = case["body"].as_str().unwrap();
    let request = AddCheckpoint::parse(body.as_bytes()).map_err(|error| error.to_string())?;
    assert_eq!(request.to_text().unwrap(), body);
    let checkpoint = request.checkpoint.verify(ledger_key().verifier_key());
    let checkpoint = checkpoint.map_err(|error| error.to_string())?;
    assert_eq!(request.old.get(), case["old"].as_u64().unwrap());
    assert_eq!(checkpoint.size.get(), case["size"].as_u64().unwrap());
    assert_eq!(checkpoint.root, hash(&case["root"]));
    check(consistency::verify(
        request.old,
        &hash(&case["old_root"]),
        checkpoint.size,
        &checkpoint.root,
        &request.proof,
    ))?;
    assert_eq!(request.proof, hashes(&case["proof"]));
    Ok(())
}

pub(super) fn answer_cases() -> Vec<Value> {
    let key = witness_key();
    let text = checkpoint(7).note().text.clone();
    let line = |timestamp_s| {
        cosignature::sign(&text, &key, timestamp_s)
            .unwrap()
            .to_line()
    };
    let other = cosignature::sign(&text, &node_key(1), NOW_S)
        .unwrap()
        .to_line();
    let case = |name: &str, status: u16, content_type: &str, body: &str, means: Value| {
        let mut case = valid(
            name,
            json!({
                "status": status,
                "content_type": content_type,
                "body": body,
                "checkpoint": text,
                "key": key.verifier_key().to_text(),
                "now_s": NOW_S,
            }),
        );
        merge(&mut case, means);
        case
    };
    let plain = "text/plain; charset=utf-8";
    let base = case(
        "a cosignature",
        200,
        plain,
        &line(NOW_S),
        json!({ "timestamp_s": NOW_S }),
    );
    let size = case(
        "the size cosigned last",
        409,
        "text/x.tlog.size",
        "5\n",
        json!({ "size": 5 }),
    );
    let refuse = |name: &str, reason: &str, error: &str, body: &str| {
        wrong(name, reason, error, &base, json!({ "body": body }))
    };
    let signed_plainly = {
        let plain = SigningKey::from_seed("witness.example/w1", &[11; 32]).unwrap();
        sign_note(&text, &[&plain]).unwrap().signatures[0].to_line()
    };
    let elsewhere = cosignature::sign(&checkpoint(8).note().text, &key, NOW_S).unwrap();
    vec![
        base.clone(),
        case(
            "the newest of two, behind another's",
            200,
            plain,
            &format!("{other}{}{}", line(NOW_S - 9), line(NOW_S)),
            json!({ "timestamp_s": NOW_S }),
        ),
        size.clone(),
        case(
            "another root at this size",
            409,
            plain,
            "another root hash\n",
            json!({ "refused": 409, "fork": true }),
        ),
        case(
            "a proof that does not lead there",
            422,
            plain,
            "",
            json!({ "refused": 422, "fork": true }),
        ),
        case(
            "a ledger that is not followed",
            404,
            plain,
            "",
            json!({ "refused": 404, "fork": false }),
        ),
        case(
            "no trusted signature",
            403,
            plain,
            "",
            json!({ "refused": 403, "fork": false }),
        ),
        refuse(
            "nothing",
            "a 200 has a signature line",
            "no signature line",
            "",
        ),
        refuse(
            "a page",
            "a 200 has signature lines alone",
            "signature line 1",
            "<html></html>\n",
        ),
        refuse(
            "another's cosignature alone",
            "it is not by the key asked about",
            "no signature line is by",
            &other,
        ),
        refuse(
            "a plain signature by the same public key",
            "type 0x01 names no time",
            "is no cosignature/v1",
            &signed_plainly,
        ),
        refuse(
            "over another checkpoint",
            "the signature is over another text",
            "does not fit the text",
            &elsewhere.to_line(),
        ),
        refuse(
            "of the future",
            "it is more than five minutes ahead",
            "it must be within",
            &line(NOW_S + 301),
        ),
        refuse(
            "of long ago",
            "it is more than an hour old",
            "it must be within",
            &line(NOW_S - 3601),
        ),
        wrong(
            "a size without its newline",
            "a line ends in a newline",
            "a tree size must be",
            &size,
            json!({ "body": "5" }),
        ),
        wrong(
            "a size with a leading zero",
            "sizes have none",
            "a tree size must be",
            &size,
            json!({ "body": "05\n" }),
        ),
    ]
}

pub(super) fn check_answer(case: &Value) -> Result<(), String> {
    let body = case["body"].as_str().unwrap();
    let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
    let answer = Answer::parse(status, case["content_type"].as_str(), body.as_bytes());
    match answer.map_err(|error| error.to_string())? {
        Answer::Cosigned(lines) => {
            let key = VerifierKey::parse(case["key"].as_str().unwrap()).unwrap();
            let text = case["checkpoint"].as_str().unwrap();
            let now_s = case["now_s"].as_u64().unwrap();
            let found = cosignature_by(text, &key, &lines, now_s).map_err(|e| e.to_string())?;
            assert_eq!(case["timestamp_s"], found.timestamp_s);
        }
        Answer::Conflict { size } => assert_eq!(case["size"], size.get()),
        Answer::Refused(refusal) => {
            assert_eq!(case["refused"], status);
            assert_eq!(case["fork"], refusal.is_fork());
        }
    }
    Ok(())
}
