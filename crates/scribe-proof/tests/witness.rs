//! The bytes between a ledger and a witness: round trips, every rule and limit, and what an answer proves.

mod common;

use common::{ORIGIN, ledger_key, node_key};
use proptest::prelude::*;
use scribe_proof::witness::{
    ANSWER_LENGTH_MAX, Answer, PROOF_LINES_MAX, REQUEST_LENGTH_MAX, Refusal, TIME_AHEAD_MAX_S,
    TIME_BEHIND_MAX_S, cosignature_by, size_text,
};
use scribe_proof::{
    AddCheckpoint, Checkpoint, Hash, KeyType, NotCosigned, NoteError, Signature, SignedCheckpoint,
    SigningKey, TreeSize, VerifierKey, WitnessError, cosignature, leaf_hash, sign_note,
};

const NOW_S: u64 = 1_800_000_000;
const SIZE_TYPE: Option<&str> = Some("text/x.tlog.size");

fn checkpoint() -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(9), leaf_hash(b"root"));
    SignedCheckpoint::sign(checkpoint, &[&ledger_key()]).unwrap()
}

fn request(hashes: usize) -> AddCheckpoint {
    AddCheckpoint {
        old: TreeSize::new(5),
        proof: (0..hashes).map(|at| leaf_hash(&[at as u8])).collect(),
        checkpoint: checkpoint(),
    }
}

#[test]
fn a_request_is_a_size_a_proof_and_a_note() {
    let text = request(2).to_text().unwrap();
    let expected = format!(
        "old 5\n{}\n{}\n\n{}",
        leaf_hash(&[0]).to_base64(),
        leaf_hash(&[1]).to_base64(),
        checkpoint().to_text()
    );
    assert_eq!(text, expected);
    assert_eq!(AddCheckpoint::parse(text.as_bytes()), Ok(request(2)));
    let none = request(0).to_text().unwrap();
    assert!(
        none.starts_with(&format!("old 5\n\n{ORIGIN}\n9\n")),
        "{none}"
    );
    assert_eq!(AddCheckpoint::parse(none.as_bytes()), Ok(request(0)));
}

/// The example of the specification, byte for byte. Its signatures are real, its keys are not published.
#[test]
fn the_specifications_example_is_read() {
    let body = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let request = AddCheckpoint::parse(body.as_bytes()).unwrap();
    assert_eq!(request.old, TreeSize::new(20_852_014));
    assert_eq!(request.proof.len(), 4);
    assert_eq!(
        request.checkpoint.checkpoint().size,
        TreeSize::new(20_852_163)
    );
    assert_eq!(request.checkpoint.note().signatures.len(), 2);
    assert_eq!(request.to_text().unwrap(), body);
    let answer = "\u{2014} witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n\
        \u{2014} witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==\n";
    let Ok(Answer::Cosigned(lines)) = Answer::parse(200, None, answer.as_bytes()) else {
        panic!("two signature lines");
    };
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.bytes.len() == 72));
}

#[test]
fn at_most_63_proof_lines_are_written_and_read() {
    let text = request(PROOF_LINES_MAX).to_text().unwrap();
    assert!(AddCheckpoint::parse(text.as_bytes()).is_ok());
    assert_eq!(
        request(PROOF_LINES_MAX + 1).to_text(),
        Err(WitnessError::TooManyProofLines { found: 64 })
    );
    // Counted before a hash is read: these are none.
    let many = format!("old 5\n{}\n{}", "x\n".repeat(5_000), checkpoint().to_text());
    assert_eq!(
        AddCheckpoint::parse(many.as_bytes()),
        Err(WitnessError::TooManyProofLines { found: 5_000 })
    );
}

#[test]
fn the_longest_request_is_read_and_a_longer_one_is_not() {
    let mut longest = request(PROOF_LINES_MAX);
    longest.old = TreeSize::new(u64::MAX);
    let mut note = longest.checkpoint.note().clone();
    let room = scribe_proof::note::NOTE_LENGTH_MAX - note.to_text().len();
    note.text.push_str(&"x".repeat(room - 1));
    note.text.push('\n');
    assert_eq!(note.to_text().len(), scribe_proof::note::NOTE_LENGTH_MAX);
    longest.checkpoint = SignedCheckpoint::from_note(note).unwrap();
    let text = longest.to_text().unwrap();
    assert!(text.len() <= REQUEST_LENGTH_MAX && text.len() + 1 >= REQUEST_LENGTH_MAX);
    assert!(AddCheckpoint::parse(text.as_bytes()).is_ok());
    let longer = vec![b'x'; REQUEST_LENGTH_MAX + 1];
    assert!(matches!(
        AddCheckpoint::parse(&longer),
        Err(WitnessError::TooLong {
            what: "request",
            ..
        })
    ));
}

#[test]
fn what_is_no_request_is_refused_by_its_rule() {
    let good = request(1).to_text().unwrap();
    let hash = leaf_hash(&[0]).to_base64();
    for (body, expected) in [
        (String::new(), WitnessError::NoEmptyLine),
        (good.replacen("\n\n", "\n", 2), WitnessError::NoEmptyLine),
        (good.replace("old 5", "old 05"), WitnessError::OldLine),
        (good.replace("old 5", "old +5"), WitnessError::OldLine),
        (good.replace("old 5", "old  5"), WitnessError::OldLine),
        (good.replace("old 5", "old 5 "), WitnessError::OldLine),
        (good.replace("old 5", "Old 5"), WitnessError::OldLine),
        (
            good.replace("old 5", "old 18446744073709551616"),
            WitnessError::OldLine,
        ),
        (good.replace("old 5\n", ""), WitnessError::OldLine),
    ] {
        assert_eq!(
            AddCheckpoint::parse(body.as_bytes()),
            Err(expected),
            "{body:?}"
        );
    }
    for proof_line in [
        hash.trim_end_matches('=').to_owned(),
        format!("{hash} "),
        leaf_hash(&[0]).to_hex(),
        hash.replace('\n', "\r\n") + "\r",
    ] {
        let body = good.replace(&hash, &proof_line);
        let error = AddCheckpoint::parse(body.as_bytes()).unwrap_err();
        assert!(
            matches!(error, WitnessError::ProofLine { line: 1, .. }),
            "{proof_line:?}: {error}"
        );
    }
    // The proof without its empty line: the checkpoint's lines are taken for proof.
    let error = AddCheckpoint::parse(good.replacen("\n\n", "\n", 1).as_bytes()).unwrap_err();
    assert!(
        matches!(error, WitnessError::ProofLine { line: 2, .. }),
        "{error}"
    );
    let cut = &good[..good.len() - 1];
    assert!(matches!(
        AddCheckpoint::parse(cut.as_bytes()),
        Err(WitnessError::Checkpoint(_))
    ));
    assert_eq!(
        AddCheckpoint::parse(b"old 5\n\xff\n\n"),
        Err(WitnessError::Text { what: "request" })
    );
}

#[test]
fn answers_are_told_apart_by_status_and_type() {
    let parse =
        |status, content_type, body: &str| Answer::parse(status, content_type, body.as_bytes());
    assert_eq!(size_text(TreeSize::new(7)), "7\n");
    let size = TreeSize::new(7);
    for content_type in [
        "text/x.tlog.size",
        "text/x.tlog.size; charset=utf-8",
        "TEXT/X.tlog.size",
    ] {
        assert_eq!(
            parse(409, Some(content_type), "7\n"),
            Ok(Answer::Conflict { size })
        );
    }
    for body in [
        "7",
        "07\n",
        "7\n\n",
        "+7\n",
        "",
        "\n",
        "18446744073709551616\n",
        " 7\n",
    ] {
        assert_eq!(
            parse(409, SIZE_TYPE, body),
            Err(WitnessError::Size),
            "{body:?}"
        );
    }
    // Another 409 is about the root: the body is for people.
    for content_type in [None, Some("text/plain"), Some("text/x.tlog.sizes")] {
        let refused = Answer::Refused(Refusal::OtherRoot);
        assert_eq!(parse(409, content_type, "7\n"), Ok(refused));
    }
    for (status, refusal) in [
        (400, Refusal::Malformed),
        (403, Refusal::NotSigned),
        (404, Refusal::UnknownOrigin),
        (422, Refusal::Inconsistent),
        (413, Refusal::Busy { status: 413 }),
        (429, Refusal::Busy { status: 429 }),
        (500, Refusal::Busy { status: 500 }),
        (503, Refusal::Busy { status: 503 }),
        (201, Refusal::Other { status: 201 }),
        (302, Refusal::Other { status: 302 }),
    ] {
        assert_eq!(
            parse(status, SIZE_TYPE, "7\n"),
            Ok(Answer::Refused(refusal))
        );
        assert!(refusal.to_string().contains(&status.to_string()));
        assert_eq!(refusal.is_fork(), status == 422);
    }
    assert!(Refusal::OtherRoot.is_fork());
}

#[test]
fn a_200_is_signature_lines_and_nothing_else() {
    let line = cosigned(&node_key(1), NOW_S).to_line();
    let lines = |body: &str| Answer::parse(200, None, body.as_bytes());
    let one = Ok(Answer::Cosigned(vec![cosigned(&node_key(1), NOW_S)]));
    assert_eq!(lines(&line), one);
    // A last newline that is missing is forgiven.
    assert_eq!(lines(line.trim_end()), one);
    assert_eq!(lines(""), Err(NoteError::NoSignatures.into()));
    assert_eq!(lines("\n"), Err(NoteError::NoSignatures.into()));
    for (body, at) in [
        (format!("{line}\n"), 2),
        (format!("{line}ok\n"), 2),
        (format!("\n{line}"), 1),
        ("<html>".to_owned(), 1),
        (line.replace('\u{2014}', "-"), 1),
    ] {
        let error = NoteError::SignatureLine { line: at };
        assert_eq!(lines(&body), Err(error.into()), "{body:?}");
    }
    let crowd = line.repeat(129);
    assert!(crowd.len() <= ANSWER_LENGTH_MAX * 2);
    let few = "\u{2014} a AAAAAAA=\n";
    assert_eq!(
        lines(&few.repeat(129)),
        Err(NoteError::TooManySignatures.into())
    );
    assert!(matches!(lines(&few.repeat(128)), Ok(Answer::Cosigned(lines)) if lines.len() == 128));
    let long = vec![b'x'; ANSWER_LENGTH_MAX + 1];
    assert!(matches!(
        Answer::parse(200, None, &long),
        Err(WitnessError::TooLong { what: "answer", .. })
    ));
    assert_eq!(
        Answer::parse(200, None, b"\xff"),
        Err(WitnessError::Text { what: "answer" })
    );
}

fn text() -> String {
    checkpoint().note().text.clone()
}

fn cosigned(key: &SigningKey, timestamp_s: u64) -> Signature {
    cosignature::sign(&text(), key, timestamp_s).unwrap()
}

fn by(key: &SigningKey, lines: &[Signature]) -> Result<u64, NotCosigned> {
    let found = cosignature_by(&text(), key.verifier_key(), lines, NOW_S)?;
    assert_eq!(found.signature, cosigned(key, found.timestamp_s));
    Ok(found.timestamp_s)
}

#[test]
fn the_newest_cosignature_of_the_key_counts_and_others_are_ignored() {
    let (key, other) = (node_key(1), node_key(2));
    assert_eq!(by(&key, &[cosigned(&key, NOW_S)]), Ok(NOW_S));
    let lines = [
        cosigned(&other, NOW_S),
        cosigned(&key, NOW_S - 2),
        cosigned(&key, NOW_S - 1),
        cosigned(&key, NOW_S - 3),
    ];
    assert_eq!(by(&key, &lines), Ok(NOW_S - 1));
    let error = by(&node_key(3), &lines).unwrap_err();
    assert!(matches!(&error, NotCosigned::NoLine { found, .. } if found.len() == 3));
    let said = error.to_string();
    assert!(
        said.contains(other.name()) && said.contains("found"),
        "{said}"
    );
    assert!(matches!(by(&key, &[]), Err(NotCosigned::NoLine { found, .. }) if found.is_empty()));
}

#[test]
fn a_line_of_the_key_that_does_not_fit_spoils_them_all() {
    let key = node_key(1);
    let elsewhere = cosignature::sign("another text\n", &key, NOW_S).unwrap();
    let lines = [cosigned(&key, NOW_S), elsewhere];
    assert!(matches!(
        by(&key, &lines),
        Err(NotCosigned::Note(NoteError::BadSignature { .. }))
    ));
    for at in 0..72 {
        let mut line = cosigned(&key, NOW_S);
        line.bytes[at] ^= 1;
        assert!(by(&key, &[line]).is_err(), "byte {at}");
    }
    let mut short = cosigned(&key, NOW_S);
    short.bytes.pop();
    assert!(by(&key, &[short]).is_err());
}

#[test]
fn the_time_must_be_about_now() {
    let key = node_key(1);
    for good in [NOW_S - TIME_BEHIND_MAX_S, NOW_S, NOW_S + TIME_AHEAD_MAX_S] {
        assert_eq!(by(&key, &[cosigned(&key, good)]), Ok(good));
    }
    for wrong in [
        0,
        NOW_S - TIME_BEHIND_MAX_S - 1,
        NOW_S + TIME_AHEAD_MAX_S + 1,
    ] {
        let error = by(&key, &[cosigned(&key, wrong)]).unwrap_err();
        assert_eq!(
            error,
            NotCosigned::Time {
                found: wrong,
                now_s: NOW_S
            }
        );
    }
    let ends = cosigned(&key, (1 << 63) - 1);
    let found = cosignature_by(&text(), key.verifier_key(), &[ends], u64::MAX);
    assert!(matches!(found, Err(NotCosigned::Time { .. })));
}

/// What a witness answers that signs as a ledger does: right key, right text, and still no cosignature.
#[test]
fn a_plain_signature_by_the_same_key_is_no_cosignature() {
    let seed = [42; 32];
    let plain = SigningKey::from_seed("witness.example/w", &seed).unwrap();
    let cosigner = SigningKey::cosigner_from_seed("witness.example/w", &seed).unwrap();
    let lines = sign_note(&text(), &[&plain]).unwrap().signatures;
    assert_eq!(lines[0].bytes.len(), 64);
    let error = by(&cosigner, &lines).unwrap_err();
    let expected = NotCosigned::Plain {
        name: "witness.example/w".to_owned(),
        found: plain.verifier_key().key_id(),
        key_id: cosigner.verifier_key().key_id(),
    };
    assert_eq!(error, expected);
    assert!(
        error.to_string().contains("is no cosignature/v1"),
        "{error}"
    );
    // With the cosigner's key id on it, it is a line of the key that does not fit.
    let mut relabelled = lines[0].clone();
    relabelled.key_id = cosigner.verifier_key().key_id();
    assert!(matches!(
        by(&cosigner, &[relabelled]),
        Err(NotCosigned::Note(_))
    ));
    // A plain key is never asked for cosignatures.
    let vkey = VerifierKey::new(
        "witness.example/w",
        KeyType::Ed25519,
        &plain.verifier_key().public_key(),
    )
    .unwrap();
    assert!(matches!(
        cosignature_by(&text(), &vkey, &lines, NOW_S),
        Err(NotCosigned::Note(NoteError::WrongKeyType { .. }))
    ));
}

proptest! {
    /// What is read is what would be written: one body per request.
    #[test]
    fn a_body_that_is_read_is_canonical(
        old in any::<u64>(),
        hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..6),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let request = AddCheckpoint {
            old: TreeSize::new(old),
            proof: hashes.into_iter().map(Hash).collect(),
            checkpoint: checkpoint(),
        };
        let body = request.to_text().unwrap().into_bytes();
        prop_assert_eq!(AddCheckpoint::parse(&body), Ok(request));
        let mut changed = body;
        let at = cut.index(changed.len());
        changed[at] = byte;
        if let Ok(read) = AddCheckpoint::parse(&changed) {
            prop_assert_eq!(read.to_text().unwrap().into_bytes(), changed);
        }
    }

    /// No bytes make the readers panic.
    #[test]
    fn any_bytes_are_an_answer_or_refused(
        status in any::<u16>(),
        content_type in proptest::option::of("\\PC{0,30}"),
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = Answer::parse(status, content_type.as_deref(), &body);
        let _ = Answer::parse(200, None, &body);
        let _ = Answer::parse(409, SIZE_TYPE, &body);
        let _ = AddCheckpoint::parse(&body);
    }
}
