//! Fuzz targets: what a witness remembers, and the list of the logs it follows.

use std::sync::OnceLock;

use scribe_proof::cosignature;
use scribe_proof::key::{SigningKey, VerifierKey};

use super::floors;
use super::logs::{FollowedLog, parse_logs};
use super::state::{self, State};
use crate::limits;

/// A log, and a witness of it.
fn parties() -> &'static (SigningKey, SigningKey) {
    static PARTIES: OnceLock<(SigningKey, SigningKey)> = OnceLock::new();
    PARTIES.get_or_init(|| {
        let log = SigningKey::from_seed("example.com/log", &[1; 32]).expect("a key");
        let witness =
            SigningKey::cosigner_from_seed("example.com/witness", &[2; 32]).expect("a key");
        (log, witness)
    })
}

fn followed() -> (FollowedLog, &'static VerifierKey) {
    let (log, witness) = parties();
    let log = FollowedLog {
        origin: log.name().to_owned(),
        keys: vec![log.verifier_key().clone()],
    };
    (log, witness.verifier_key())
}

/// The state of one log: nothing is remembered that this witness did not cosign.
pub(crate) fn witness_state(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (log, key) = followed();
    match state::parse(text, &log, key) {
        Ok(State::Fresh) => assert_eq!(state::render(&log.origin, None), text),
        Ok(State::Cosigned { head, note }) => {
            assert_eq!(state::render(&log.origin, Some(&note)), text);
            let signed = scribe_proof::SignedCheckpoint::parse(&note).expect("a checkpoint");
            let found = cosignature::find(signed.note(), key).expect("a good cosignature");
            assert_eq!(found, Some(head.timestamp_s));
            assert_eq!(signed.checkpoint().origin, log.origin);
            let remembered = (head.size, head.root);
            assert_eq!(
                (signed.checkpoint().size, signed.checkpoint().root),
                remembered
            );
        }
        Ok(State::Missing) => panic!("a text is no missing file"),
        Err(_) => {}
    }
}

/// The sizes remembered beside the key.
pub(crate) fn witness_floors(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(floors) = floors::parse(text)
    {
        assert_eq!(floors.to_text(), text, "a second form");
    }
}

/// The list of followed logs: each origin once, each with good keys.
pub(crate) fn witness_logs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(logs) = parse_logs(text.lines()) else {
        return;
    };
    assert!((1..=limits::WITNESS_LOGS_MAX).contains(&logs.len()));
    assert!(logs.is_sorted_by(|a, b| a.origin < b.origin));
    let mut again = Vec::new();
    for log in &logs {
        assert!((1..=limits::WITNESS_KEYS_PER_LOG_MAX).contains(&log.keys.len()));
        assert!(!log.origin.chars().any(char::is_control));
        for key in &log.keys {
            again.push(format!("{} {}", key.to_text(), log.origin));
        }
    }
    let read = parse_logs(again.iter().map(String::as_str));
    assert_eq!(read, Ok(logs), "what was read is read again");
}

/// Inputs as this program and its users write them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use scribe_proof::Checkpoint;
    use scribe_proof::hash::Hash;
    use scribe_proof::index::TreeSize;
    use scribe_proof::note::sign_note;

    let (log, witness) = parties();
    let checkpoint = Checkpoint::new(log.name(), TreeSize::new(5), Hash([3; 32]));
    let mut note = sign_note(&checkpoint.to_text(), &[log]).expect("a signature");
    let unwitnessed = note.to_text();
    let cosigned = cosignature::sign(&note.text, witness, 1_700_000_000).expect("a cosignature");
    note.add_signature(cosigned).expect("room");
    let note = note.to_text();
    let origin = log.name();
    let id = scribe_proof::hash::sha256(origin.as_bytes()).to_hex();
    let floors = |lines: &str| format!("{}\n{lines}", floors::MAGIC).into_bytes();
    let key = log.verifier_key().to_text();
    let other = SigningKey::from_seed("example.com/other", &[4; 32]).expect("a key");
    let other = other.verifier_key().to_text();
    vec![
        ("witness_state", "fresh", state::render(origin, None).into()),
        (
            "witness_state",
            "cosigned",
            state::render(origin, Some(&note)).into(),
        ),
        (
            "witness_state",
            "not-cosigned",
            state::render(origin, Some(&unwitnessed)).into(),
        ),
        (
            "witness_state",
            "elsewhere",
            state::render("example.com/b", Some(&note)).into(),
        ),
        (
            "witness_state",
            "cut",
            state::render(origin, Some(&note[..note.len() - 9])).into(),
        ),
        ("witness_floors", "none", floors("")),
        ("witness_floors", "one", floors(&format!("{id} 5\n"))),
        (
            "witness_floors",
            "two",
            floors(&format!("{0} 5\n{1} 6\n", "0a".repeat(32), "0b".repeat(32))),
        ),
        (
            "witness_floors",
            "out-of-order",
            floors(&format!("{id} 5\n{} 6\n", "00".repeat(32))),
        ),
        ("witness_floors", "plus", floors(&format!("{id} +5\n"))),
        ("witness_logs", "one", key.clone().into()),
        (
            "witness_logs",
            "comment",
            format!("# followed\n\n{key}\n").into(),
        ),
        (
            "witness_logs",
            "origin",
            format!("{key}  an origin - 42 \n{other}").into(),
        ),
        (
            "witness_logs",
            "two-keys",
            format!("{key}\n{other} {origin}").into(),
        ),
        (
            "witness_logs",
            "cosigner",
            witness.verifier_key().to_text().into(),
        ),
    ]
}
