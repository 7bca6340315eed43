//! Notes, keys, checkpoints, cosignatures and policies, also against another implementation.

mod common;

use common::{ORIGIN, ledger_key, node_key, policy_text, signed};
use proptest::prelude::*;
use scribe_proof::policy::LineProblem;
use scribe_proof::{
    Checkpoint, CheckpointError, KeyType, Note, NoteError, Policy, PolicyError, Signature,
    SignedCheckpoint, SigningKey, TreeSize, Trust, VerifierKey, cosignature, leaf_hash, sign_note,
};

/// The example of Go's note package.
const GO_SIGNER: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\
    \n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn go_example() {
    let signer = SigningKey::parse(GO_SIGNER).unwrap();
    let verifier = VerifierKey::parse(GO_VERIFIER).unwrap();
    assert_eq!(signer.to_text(), GO_SIGNER);
    assert_eq!(verifier.to_text(), GO_VERIFIER);
    assert_eq!(signer.verifier_key(), &verifier);
    let note = Note::parse(GO_NOTE).unwrap();
    assert_eq!(note.to_text(), GO_NOTE);
    assert_eq!(note.verify(&verifier), Ok(true));
    assert_eq!(sign_note(&note.text, &[&signer]).unwrap(), note);
    // Two keys of the world outside.
    let sum = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    assert_eq!(
        VerifierKey::parse(sum).unwrap().key_type(),
        KeyType::Ed25519
    );
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let key = ledger_key();
    let shown = format!("{key:?}");
    let text = key.to_text();
    let (_, secret) = text.rsplit_once('+').unwrap();
    assert!(
        shown.contains("redacted") && !shown.contains(secret),
        "{shown}"
    );
}

#[test]
fn agrees_with_another_implementation() {
    use signed_note::{StandardSigner, StandardVerifier, VerifierList};
    let key = ledger_key();
    let text = "first line\n\nafter an empty line\n";
    let ours = sign_note(text, &[&key]).unwrap().to_text();
    let theirs = signed_note::Note::from_bytes(ours.as_bytes()).unwrap();
    let verifier = StandardVerifier::new(&key.verifier_key().to_text()).unwrap();
    let (verified, _) = theirs
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .unwrap();
    assert_eq!(verified.len(), 1);

    let mut other = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
    let signer = StandardSigner::new(&key.to_text()).unwrap();
    other.add_sigs(&[&signer]).unwrap();
    let bytes = String::from_utf8(other.to_bytes()).unwrap();
    assert_eq!(bytes, ours);

    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(12), leaf_hash(b"x"));
    let parsed = tlog_tiles::Checkpoint::from_bytes(checkpoint.to_text().as_bytes()).unwrap();
    assert_eq!((parsed.origin(), parsed.size()), (ORIGIN, 12));
    assert_eq!(parsed.hash().0, checkpoint.root.0);
    assert_eq!(
        Checkpoint::parse(&String::from_utf8(parsed.to_bytes()).unwrap()),
        Ok(checkpoint)
    );
}

#[test]
fn malformed_notes() {
    let good = sign_note("text\n", &[&ledger_key()]).unwrap().to_text();
    let line = good.lines().last().unwrap().to_string();
    let check = |note: &str, expected: NoteError| assert_eq!(Note::parse(note), Err(expected));
    check(good.trim_end(), NoteError::TextEnd);
    check("text\n", NoteError::NoSignatureBlock);
    check("text\n\n", NoteError::NoSignatures);
    check(&format!("text\n{line}\n"), NoteError::NoSignatureBlock);
    check(
        &format!("te\txt\n\n{line}\n"),
        NoteError::ControlCharacter { found: 9 },
    );
    check(
        &format!("te\r\nxt\n\n{line}\n"),
        NoteError::ControlCharacter { found: 13 },
    );
    // Two empty lines: the last one separates, and then the first belongs to the text.
    assert_eq!(
        Note::parse(&format!("text\n\n\n{line}\n")).unwrap().text,
        "text\n\n"
    );
    for wrong in [
        line.replace('\u{2014}', "-"),
        line.replace("\u{2014} ", "\u{2014}"),
        format!("{line} "),
        line.trim_end_matches('=').to_string(),
        "\u{2014} name AAAAAA==".to_string(),
        "\u{2014} name".to_string(),
        "\u{2014} name !!!!".to_string(),
    ] {
        check(
            &format!("text\n\n{line}\n{wrong}\n"),
            NoteError::SignatureLine { line: 2 },
        );
    }
    check("text\n\n\u{2014} a+b AAAAAAA=\n", NoteError::KeyName);
    check("text\n\n\u{2014} a\u{a0}b AAAAAAA=\n", NoteError::KeyName);
    check("text\n\n\u{2014}  AAAAAAA=\n", NoteError::KeyName);
    let many = format!("text\n\n{}", format!("{line}\n").repeat(128));
    assert_eq!(Note::parse(&many).unwrap().signatures.len(), 128);
    check(&format!("{many}{line}\n"), NoteError::TooManySignatures);
    let long = "x".repeat(65_537);
    check(&long, NoteError::TooLong { found: 65_537 });
}

#[test]
fn malformed_keys() {
    let good = ledger_key().verifier_key().to_text();
    let (head, base64) = good.rsplit_once('+').unwrap();
    let check = |text: &str, expected: &str| {
        let error = VerifierKey::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "verifier key must be");
    check(head, "verifier key must be");
    check(&good.to_uppercase(), "verifier key must be");
    check(&good[..good.len() - 4], "verifier key must be");
    check(
        &good.replacen("example", "examble", 1),
        "does not belong to the key",
    );
    check(&good.replacen(ORIGIN, "a b", 1), "key name must be");
    check(
        &format!("{head}+Ag{}", &base64[2..]),
        "unknown key type 0x02",
    );
    check(
        &format!("{head}+Bg{}", &base64[2..]),
        "unknown key type 0x06",
    );
    // The neutral element: everybody can sign for it.
    let mut weak = [0; 32];
    weak[0] = 1;
    let error = VerifierKey::new("weak", KeyType::Ed25519, &weak).unwrap_err();
    assert!(matches!(error, NoteError::BadKey { .. }));
    // Every encoding from p - 1 on: of the point of order 2, and second encodings of other points.
    for low in 0xec..=0xff {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            let error = VerifierKey::new("twice", KeyType::Ed25519, &bytes).unwrap_err();
            assert!(
                matches!(error, NoteError::BadKey { .. }),
                "{low:x} {high:x}"
            );
        }
    }
    let error = SigningKey::parse(&good).unwrap_err().to_string();
    assert!(
        error.contains("PRIVATE+KEY+") && !error.contains(base64),
        "{error}"
    );
    assert!(SigningKey::from_seed("a+b", &[0; 32]).is_err());
}

#[test]
fn unknown_signatures_are_ignored_and_known_ones_are_not() {
    let (ledger, other) = (
        ledger_key(),
        SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap(),
    );
    let mut note = sign_note("text\n", &[&ledger]).unwrap();
    assert_eq!(note.verify(other.verifier_key()), Ok(false));
    // Same name, other id: unknown, so whatever it says is ignored.
    let junk = Signature {
        name: ORIGIN.into(),
        key_id: other.verifier_key().key_id(),
        bytes: vec![1],
    };
    note.add_signature(junk).unwrap();
    let mut note = Note::parse(&note.to_text()).unwrap();
    assert_eq!(note.verify(ledger.verifier_key()), Ok(true));
    assert!(matches!(
        note.verify(other.verifier_key()),
        Err(NoteError::BadSignature { .. })
    ));
    // A good signature first does not excuse a bad one by the same key later.
    let mut bad = note.signatures[0].clone();
    bad.bytes[63] ^= 1;
    note.signatures.push(bad);
    assert!(matches!(
        note.verify(ledger.verifier_key()),
        Err(NoteError::BadSignature { .. })
    ));
    // The same key as cosigner is another key.
    let same = VerifierKey::new(
        ORIGIN,
        KeyType::Cosignature,
        &ledger.verifier_key().public_key(),
    );
    assert_ne!(same.unwrap().key_id(), ledger.verifier_key().key_id());
}

#[test]
fn one_signature_per_key() {
    let (key, text) = (node_key(1), "text\n");
    let mut note = sign_note(text, &[&ledger_key()]).unwrap();
    for time in [10, 30, 20] {
        note.add_signature(cosignature::sign(text, &key, time).unwrap())
            .unwrap();
    }
    assert_eq!(note.signatures.len(), 2);
    assert_eq!(cosignature::find(&note, key.verifier_key()), Ok(Some(20)));
    assert_eq!(note.verify(key.verifier_key()), Ok(true));
    assert_eq!(
        cosignature::find(&note, node_key(2).verifier_key()),
        Ok(None)
    );
}

#[test]
fn cosignatures_bind_text_and_time() {
    let key = node_key(1);
    let good = cosignature::sign("text\n", &key, 77).unwrap();
    assert_eq!(good.bytes.len(), 72);
    assert_eq!(
        cosignature::verify("text\n", key.verifier_key(), &good),
        Ok(77)
    );
    let bad = |result: Result<u64, NoteError>| {
        assert!(
            matches!(result, Err(NoteError::BadSignature { .. })),
            "{result:?}"
        );
    };
    bad(cosignature::verify("texT\n", key.verifier_key(), &good));
    bad(cosignature::verify(
        "text\n",
        node_key(2).verifier_key(),
        &good,
    ));
    for at in 0..72 {
        let mut changed = good.clone();
        changed.bytes[at] ^= 1;
        bad(cosignature::verify("text\n", key.verifier_key(), &changed));
    }
    for length in 0..72 {
        let cut = Signature {
            bytes: good.bytes[..length].to_vec(),
            ..good.clone()
        };
        bad(cosignature::verify("text\n", key.verifier_key(), &cut));
    }
    assert!(matches!(
        cosignature::sign("text\n", &key, 1 << 63),
        Err(NoteError::Timestamp { .. })
    ));
    assert!(matches!(
        cosignature::sign("text\n", &ledger_key(), 1),
        Err(NoteError::WrongKeyType { .. })
    ));
    assert!(matches!(
        sign_note("text\n", &[&key]),
        Err(NoteError::WrongKeyType { .. })
    ));
}

#[test]
fn checkpoints_are_strict() {
    let root = leaf_hash(b"x").to_base64();
    let good = format!("{ORIGIN}\n12\n{root}\n");
    let parsed = Checkpoint::parse(&good).unwrap();
    assert_eq!(parsed.to_text(), good);
    let extended = format!("{good}one\ntwo\n");
    assert_eq!(
        Checkpoint::parse(&extended).unwrap().extensions,
        ["one", "two"]
    );
    assert_eq!(Checkpoint::parse(&extended).unwrap().to_text(), extended);
    let check = |text: &str, expected: &str| {
        let error = Checkpoint::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    };
    check("", "end in a newline");
    check(good.trim_end(), "end in a newline");
    check(&format!("{ORIGIN}\n12\n"), "has 2 lines");
    check(&format!("\n12\n{root}\n"), "origin must be");
    check(&format!("{ORIGIN}\n012\n{root}\n"), "tree size must be");
    check(&format!("{ORIGIN}\n+12\n{root}\n"), "tree size must be");
    check(
        &format!("{ORIGIN}\n18446744073709551616\n{root}\n"),
        "tree size must be",
    );
    check(
        &format!("{ORIGIN}\n12\n{}\n", root.trim_end_matches('=')),
        "root hash is malformed",
    );
    check(&format!("{good}\n"), "extension line 1");
    check(&format!("{good}a\n\nb\n"), "extension line 2");
    check(&format!("{ORIGIN}\n0\n{root}\n"), "without leaves");
    let lines = Checkpoint::new("two\nlines", TreeSize::new(1), leaf_hash(b""));
    let key = SigningKey::from_seed("x", &[0; 32]).unwrap();
    assert_eq!(
        SignedCheckpoint::sign(lines, &[&key]).unwrap_err(),
        CheckpointError::Origin
    );
}

#[test]
fn checkpoint_verification() {
    let signed = signed(TreeSize::new(3), leaf_hash(b"x"), &[]);
    let signed = SignedCheckpoint::parse(&signed.to_text()).unwrap();
    assert_eq!(
        signed.verify(ledger_key().verifier_key()).unwrap().size,
        TreeSize::new(3)
    );
    let other_name = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    assert!(matches!(
        signed.verify(other_name.verifier_key()),
        Err(CheckpointError::OtherOrigin { .. })
    ));
    let other_key = SigningKey::from_seed(ORIGIN, &[3; 32]).unwrap();
    assert!(matches!(
        signed.verify(other_key.verifier_key()),
        Err(CheckpointError::NotSigned { .. })
    ));
    let forged = signed.to_text().replacen("\n3\n", "\n4\n", 1);
    let forged = SignedCheckpoint::parse(&forged).unwrap();
    assert!(matches!(
        forged.verify(ledger_key().verifier_key()),
        Err(CheckpointError::Note(NoteError::BadSignature { .. }))
    ));
    // A cosigner of the same name as the origin is not the ledger.
    let cosigner = SigningKey::cosigner_from_seed(ORIGIN, &[1; 32]).unwrap();
    assert!(matches!(
        signed.verify(cosigner.verifier_key()),
        Err(CheckpointError::Note(NoteError::WrongKeyType { .. }))
    ));
    assert!(matches!(
        SignedCheckpoint::sign(signed.checkpoint().clone(), &[&other_name]),
        Err(CheckpointError::OtherOrigin { .. })
    ));
}

#[test]
fn policy_round_trip() {
    let text = policy_text();
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.to_text(), text);
    let (ledger, node) = (ledger_key(), node_key(1));
    let with_rest = format!(
        "# ours\n\n \tlog\t{} https://example.com/ledger/ \nwitness w {}  http://w\ngroup one any w\n\
         group g all one\nquorum g",
        ledger.verifier_key(),
        node.verifier_key()
    );
    let policy = Policy::parse(&with_rest).unwrap();
    assert_eq!(Policy::parse(&policy.to_text()).unwrap(), policy);
    assert!(policy.to_text().contains("https://example.com/ledger/\n"));
}

#[test]
fn policy_errors_name_line_and_rule() {
    let (log, node) = (
        ledger_key().verifier_key().to_text(),
        node_key(1).verifier_key().to_text(),
    );
    let two = node_key(2).verifier_key().to_text();
    let check = |text: String, line: usize, expected: &str| match Policy::parse(&text) {
        Err(PolicyError::Line {
            line: found,
            problem,
        }) => {
            assert_eq!(found, line, "{text}");
            assert!(problem.to_string().contains(expected), "{text}: {problem}");
        }
        other => panic!("{text}: {other:?}"),
    };
    check("logg x\n".into(), 1, "a line begins with");
    check(format!("log {node}\n"), 1, "type 0x01 is needed");
    check(format!("witness w {log}\n"), 1, "type 0x04 is needed");
    check("log x\n".into(), 1, "verifier key must be");
    check("log\n".into(), 1, "expected log");
    check(format!("log {log} url more\n"), 1, "expected log");
    check(format!("log {log}\nlog {log}\n"), 2, "listed before");
    check(
        format!("witness w {node}\nwitness v {node}\n"),
        2,
        "listed before",
    );
    check(
        format!("witness w {node}\nwitness w {two}\n"),
        2,
        "defined before",
    );
    check(format!("witness none {node}\n"), 1, "reserved");
    check(
        format!("witness w {node}\ngroup g 1 w x\n"),
        2,
        "not defined",
    );
    check(format!("witness w {node}\ngroup g 1 g\n"), 2, "not defined");
    check(
        format!("witness w {node}\ngroup g any none\n"),
        2,
        "not defined",
    );
    check(format!("witness w {node}\ngroup g 2 w\n"), 2, "from 1 to 1");
    check(format!("witness w {node}\ngroup g 0 w\n"), 2, "from 1 to 1");
    check(
        format!("witness w {node}\ngroup g 01 w\n"),
        2,
        "from 1 to 1",
    );
    check(
        format!("witness w {node}\ngroup g any\n"),
        2,
        "expected group",
    );
    check(
        format!("witness w {node}\ngroup g any w w\n"),
        2,
        "member of a group already",
    );
    check(
        format!("witness w {node}\ngroup g any w\ngroup h any w\n"),
        3,
        "member of a group",
    );
    check("quorum w\n".into(), 1, "not defined");
    check("quorum none\nquorum none\n".into(), 2, "exactly one");
    check("quorum none\n\rlog\n".into(), 2, "control characters");
    assert_eq!(
        Policy::parse(&format!("log {log}\n")),
        Err(PolicyError::NoQuorum)
    );
    assert!(matches!(
        Policy::parse(&" ".repeat(262_145)),
        Err(PolicyError::TooLong { found: 262_145 })
    ));
}

#[test]
fn policy_limits() {
    let witnesses = |count: u16| -> String {
        (0..count)
            .map(|n| {
                let mut seed = [5; 32];
                seed[..2].copy_from_slice(&n.to_be_bytes());
                let key = SigningKey::cosigner_from_seed(&format!("w/{n}"), &seed).unwrap();
                format!("witness w{n} {}\n", key.verifier_key())
            })
            .collect()
    };
    Policy::parse(&format!("{}quorum none\n", witnesses(128))).unwrap();
    assert!(matches!(
        Policy::parse(&format!("{}quorum none\n", witnesses(129))),
        Err(PolicyError::Line {
            line: 129,
            problem: LineProblem::TooMany
        })
    ));
}

#[test]
fn policy_evaluation() {
    let policy = Policy::parse(&policy_text()).unwrap();
    let at = |nodes: &[u8]| signed(TreeSize::new(3), leaf_hash(b"x"), nodes);
    let report = policy.evaluate(&at(&[1, 3])).unwrap();
    assert_eq!(report.log, *ledger_key().verifier_key());
    let names: Vec<&str> = report
        .cosigners
        .iter()
        .map(|cosigner| &*cosigner.name)
        .collect();
    assert_eq!(names, ["node-1", "node-3"]);
    assert_eq!(report.cosigners[1].timestamp_s, 1_790_000_003);
    assert_eq!(
        policy.evaluate(&at(&[2])),
        Err(PolicyError::QuorumNotMet {
            quorum: "nodes".into(),
            found: 1,
            of: 3
        })
    );
    // A node the policy does not know changes nothing.
    assert!(policy.evaluate(&at(&[2, 9])).is_err());

    // One known cosignature that does not fit spoils it, even beyond the quorum.
    let mut spoiled = at(&[1, 2]);
    let mut wrong = cosignature::sign("other\n", &node_key(3), 1).unwrap();
    spoiled.add_signature(wrong.clone()).unwrap();
    assert!(matches!(
        policy.evaluate(&spoiled),
        Err(PolicyError::Checkpoint(CheckpointError::Note(
            NoteError::BadSignature { .. }
        )))
    ));
    // The same bytes under another name are somebody unknown.
    wrong.name = "example.com/else".into();
    let mut ignored = at(&[1, 2]);
    ignored.add_signature(wrong).unwrap();
    policy.evaluate(&ignored).unwrap();

    let other = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new(other.name(), TreeSize::new(3), leaf_hash(b"x"));
    let other = SignedCheckpoint::sign(checkpoint, &[&other]).unwrap();
    assert!(matches!(
        policy.evaluate(&other),
        Err(PolicyError::UnknownOrigin { .. })
    ));
    let imposter = SigningKey::from_seed(ORIGIN, &[4; 32]).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(3), leaf_hash(b"x"));
    let imposter = SignedCheckpoint::sign(checkpoint, &[&imposter]).unwrap();
    assert!(matches!(
        policy.evaluate(&imposter),
        Err(PolicyError::NotSigned { .. })
    ));
}

#[test]
fn a_known_key_of_another_ledger_must_fit_as_well() {
    let other = SigningKey::from_seed("example.com/other", &[3; 32]).unwrap();
    let text = format!(
        "log {}\nlog {}\nquorum none\n",
        ledger_key().verifier_key(),
        other.verifier_key()
    );
    let policy = Policy::parse(&text).unwrap();
    let signed = |by: &str| {
        let mut signed = signed(TreeSize::new(1), leaf_hash(b"x"), &[]);
        let text = by.replace("it", &signed.note().text);
        let mut note = sign_note(&text, &[&other]).unwrap();
        signed.add_signature(note.signatures.remove(0)).unwrap();
        signed
    };
    // Good but beside the point: the report names the key of that ledger.
    let report = policy.evaluate(&signed("it")).unwrap();
    assert_eq!(&report.log, ledger_key().verifier_key());
    assert!(matches!(
        policy.evaluate(&signed("something else\n")),
        Err(PolicyError::Checkpoint(CheckpointError::Note(
            NoteError::BadSignature { .. }
        )))
    ));
}

#[test]
fn nested_groups() {
    let mut text = format!("log {}\n", ledger_key().verifier_key());
    for id in 1..=5 {
        text += &format!("witness {id} {}\n", node_key(id).verifier_key());
    }
    text += "group x 2 1 2 3\ngroup y any 4 5\ngroup both all x y\nquorum both\n";
    let policy = Policy::parse(&text).unwrap();
    let met = |nodes: &[u8]| {
        policy
            .evaluate(&signed(TreeSize::new(3), leaf_hash(b"x"), nodes))
            .is_ok()
    };
    assert!(met(&[1, 2, 4]) && met(&[1, 2, 3, 4, 5]) && met(&[2, 3, 5]));
    assert!(!met(&[1, 2, 3]) && !met(&[1, 4, 5]) && !met(&[4, 5]) && !met(&[]));
}

#[test]
fn key_replacement_accepts_either_key() {
    let (old, new) = (
        ledger_key(),
        SigningKey::from_seed(ORIGIN, &[8; 32]).unwrap(),
    );
    let text = format!(
        "log {}\nlog {}\nquorum none\n",
        old.verifier_key(),
        new.verifier_key()
    );
    let policy = Policy::parse(&text).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(3), leaf_hash(b"x"));
    for keys in [&[&old][..], &[&new], &[&old, &new]] {
        let signed = SignedCheckpoint::sign(checkpoint.clone(), keys).unwrap();
        policy.evaluate(&signed).unwrap();
    }
}

#[test]
fn majority_policies() {
    let nodes = |count: u8| {
        (1..=count)
            .map(|id| (format!("node-{id}"), node_key(id).verifier_key().clone()))
            .collect::<Vec<_>>()
    };
    let ledger = || ledger_key().verifier_key().clone();
    for (count, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let policy = Policy::majority(ledger(), nodes(count)).unwrap();
        let expected = format!("group node-majority {needed} node-1");
        assert!(policy.to_text().contains(&expected), "{}", policy.to_text());
    }
    let alone = Policy::from_key(ledger()).unwrap();
    assert_eq!(alone.quorum_name(), "none");
    alone
        .evaluate(&signed(TreeSize::new(3), leaf_hash(b"x"), &[]))
        .unwrap();
    // A name cannot smuggle in a line.
    let name = format!("x {}\nlog", node_key(2).verifier_key());
    for before in 0..3 {
        let mut named = nodes(before);
        named.push((name.clone(), node_key(9).verifier_key().clone()));
        let smuggled = Policy::majority(ledger(), named).unwrap_err();
        let expected = PolicyError::Line {
            line: usize::from(before) + 2,
            problem: LineProblem::Name(name.clone()),
        };
        assert_eq!(smuggled, expected);
    }
}

#[test]
fn trust_is_a_key_or_a_policy() {
    let signed = signed(TreeSize::new(3), leaf_hash(b"x"), &[1, 2]);
    let key = ledger_key().verifier_key().clone();
    let policy = Policy::parse(&policy_text()).unwrap();
    let trusts: [&dyn Trust; 2] = [&key, &policy];
    for trust in trusts {
        assert_eq!(trust.evaluate(&signed).unwrap().log, key);
    }
}

proptest! {
    #[test]
    fn note_round_trip(
        lines in prop::collection::vec("[^\\p{Cc}]{0,40}", 1..6),
        seeds in prop::collection::vec(any::<[u8; 32]>(), 1..5),
    ) {
        let text = lines.join("\n") + "\n";
        let keys: Vec<SigningKey> =
            seeds.iter().map(|seed| SigningKey::from_seed("k/é", seed).unwrap()).collect();
        let note = sign_note(&text, &keys.iter().collect::<Vec<_>>()).unwrap();
        let parsed = Note::parse(&note.to_text()).unwrap();
        prop_assert_eq!(&parsed, &note);
        for key in &keys {
            prop_assert_eq!(parsed.verify(key.verifier_key()), Ok(true));
        }
    }

    /// What parses is its own canonical text, and nothing panics.
    #[test]
    fn parsing_never_panics(text in "(\\PC|\n|\u{2014} |\n\n|[A-Za-z0-9+/=]{4}|log |quorum ){0,60}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_text(), text.clone());
        }
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_text(), text.clone());
        }
        let _ = VerifierKey::parse(&text);
        let _ = SigningKey::parse(&text);
        let _ = Policy::parse(&text);
        let _ = scribe_proof::Receipt::parse(&text);
        let _ = scribe_proof::TilePath::parse(&text);
    }

    #[test]
    fn changed_checkpoints_fail(at in any::<prop::sample::Index>(), to in 32..127_u8) {
        let text = signed(TreeSize::new(12_345), leaf_hash(b"x"), &[]).to_text();
        let mut bytes = text.clone().into_bytes();
        // Only what is signed and the signature itself, not the name in front of it: another name
        // is another, unknown key.
        let at = at.index(bytes.len());
        if bytes[at] < 0x80 {
            bytes[at] = to;
        }
        let changed = String::from_utf8(bytes).unwrap();
        if changed != text
            && let Ok(parsed) = SignedCheckpoint::parse(&changed)
        {
            prop_assert!(parsed.verify(ledger_key().verifier_key()).is_err());
        }
    }
}
