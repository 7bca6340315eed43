//! The answers over `testdata/vectors`, asked for as the page asks.

use std::path::Path;

use serde_json::Value;

use super::*;

fn put(session: &mut Session, input: Input, bytes: &[u8]) {
    session
        .reserve(input, bytes.len())
        .unwrap()
        .copy_from_slice(bytes);
}

fn answer(session: &Session) -> Value {
    serde_json::from_str(session.answer()).unwrap()
}

/// All the page does with what a user dropped. `Err` holds the step and what was said.
fn judge(
    receipt: &[u8],
    trust: &str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Value, (String, String)> {
    let mut session = Session::default();
    let ok = |session: &Session| {
        let answer = answer(session);
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        match answer["ok"].as_bool().unwrap() {
            true => Ok(answer),
            false => Err((text("step"), text("error"))),
        }
    };
    put(&mut session, Input::Trust, trust.as_bytes());
    session.read_trust();
    ok(&session)?;
    put(&mut session, Input::Receipt, receipt);
    if let Some(key) = key {
        put(&mut session, Input::EntryKey, show_bytes(key).as_bytes());
    }
    session.verify(key.is_some());
    let verified = ok(&session)?;
    if let Some(value) = value {
        session.value_begin(value.len() as u64);
        ok(&session)?;
        // Unequal pieces: where they end must not matter.
        let (first, second) = value.split_at(value.len() / 3);
        for piece in [first, second, b""] {
            put(&mut session, Input::Piece, piece);
            session.value_piece();
        }
        session.value_end();
        ok(&session)?;
    }
    Ok(verified)
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/vectors/receipt.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn bytes(hex: &Value) -> Option<Vec<u8>> {
    let hex = hex.as_str()?.as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(hex.chunks(2).map(digits).collect())
}

#[test]
fn the_vectors_are_judged_as_they_say() {
    let cases = cases();
    assert!(cases.len() > 20);
    for case in cases {
        let receipt = case["receipt"].as_str().unwrap().as_bytes();
        let policy = case["policy"].as_str().unwrap();
        let (key, value) = (bytes(&case["key"]), bytes(&case["value"]));
        let judged = judge(receipt, policy, key.as_deref(), value.as_deref());
        assert_eq!(
            judged.is_ok(),
            case["valid"],
            "{}: {judged:?}",
            case["name"]
        );
        match judged {
            Ok(answer) => assert_eq!(answer["entry"]["index"], case["index"].to_string()),
            Err((step, error)) => {
                assert!(!step.is_empty());
                assert!(
                    error.contains(case["error"].as_str().unwrap()),
                    "{}: {error}",
                    case["name"]
                );
            }
        }
    }
}

#[test]
fn what_is_told_of_the_trusted_and_the_entry() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case["name"] == "opened receipt")
        .unwrap();
    let policy = case["policy"].as_str().unwrap();
    let mut session = Session::default();
    put(&mut session, Input::Trust, policy.as_bytes());
    session.read_trust();
    let trust = answer(&session);
    assert_eq!(trust["kind"], "policy");
    assert_eq!(trust["logs"][0]["name"], "example.com/ledger");
    assert_eq!(trust["witnesses"].as_array().unwrap().len(), 3);
    assert_eq!(
        trust["witnesses"][2]["key_name"],
        "example.com/ledger/node/3"
    );
    assert_eq!(trust["rules"][0]["threshold"], "2");
    assert_eq!(trust["rules"][0]["members"][1], "node-2");
    assert_eq!(trust["quorum"], "nodes");

    put(
        &mut session,
        Input::Receipt,
        case["receipt"].as_str().unwrap().as_bytes(),
    );
    session.verify(false);
    let told = answer(&session);
    assert_eq!(told["entry"]["key"], "greeting");
    assert_eq!(told["entry"]["index"], "137");
    assert_eq!(told["entry"]["kind"], "put");
    assert_eq!(told["entry"]["timestamp_ms"], "1790000000123");
    assert_eq!(told["entry"]["author"], "alice");
    assert_eq!(told["entry"]["redacted"], false);
    assert_eq!(told["checkpoint"]["tree_size"], "300");
    assert_eq!(told["checkpoint"]["origin"], "example.com/ledger");
    // Two of the three nodes cosigned; each has its own time.
    assert_eq!(told["cosigned"][0], "1790000001");
    assert_eq!(told["cosigned"][2], Value::Null);

    session.value_begin(5);
    put(&mut session, Input::Piece, b"hello");
    session.value_piece();
    session.value_end();
    let told = answer(&session);
    assert_eq!(told["content_type"], "text/plain; charset=utf-8");
    assert_eq!(told["pairs"][0]["name"], "language");
    assert_eq!(told["pairs"][0]["value"], "en");
}

#[test]
fn a_key_alone_is_trust_enough_but_not_any_key() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case["name"] == "opened receipt")
        .unwrap();
    let receipt = case["receipt"].as_str().unwrap().as_bytes();
    let policy = case["policy"].as_str().unwrap();
    let word = |line: usize, at: usize| {
        let line = policy.lines().nth(line).unwrap();
        line.split(' ').nth(at).unwrap().to_owned()
    };
    let (ledger, node) = (word(0, 1), word(1, 2));
    assert!(judge(receipt, &format!("  {ledger}\n"), None, Some(b"hello")).is_ok());
    let refused = |trust: &str| judge(receipt, trust, None, None).unwrap_err();
    // A node's key is not the ledger's, whatever it signed.
    assert_eq!(refused(&node).0, "trust");
    assert_eq!(refused("").0, "trust");
    assert_eq!(refused("  \n ").0, "trust");
    assert_eq!(refused("example.com/ledger").0, "trust");
    // One flipped digit of the key id.
    assert_eq!(refused(&ledger.replace("+3481", "+3482")).0, "trust");
}

#[test]
fn an_answer_never_outlives_its_inputs() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case["name"] == "opened receipt")
        .unwrap();
    let receipt = case["receipt"].as_str().unwrap().as_bytes();
    let policy = case["policy"].as_str().unwrap().as_bytes();
    for changed in [Input::Receipt, Input::Trust, Input::EntryKey] {
        let mut session = Session::default();
        put(&mut session, Input::Trust, policy);
        session.read_trust();
        put(&mut session, Input::Receipt, receipt);
        session.verify(false);
        assert_eq!(answer(&session)["ok"], true);
        session.value_begin(5);
        put(&mut session, changed, b"x");
        // The value was begun under an entry that is not the one in question any more.
        put(&mut session, Input::Piece, b"hello");
        session.value_piece();
        session.value_end();
        assert_eq!(answer(&session)["ok"], false, "{changed:?}");
        session.value_begin(5);
        assert_eq!(answer(&session)["ok"], false, "{changed:?}");
        if changed == Input::Trust {
            session.verify(false);
            assert_eq!(answer(&session)["step"], "trust");
        }
    }
}

#[test]
fn a_value_shorter_or_longer_than_said_does_not_match() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case["name"] == "opened receipt")
        .unwrap();
    let mut session = Session::default();
    put(
        &mut session,
        Input::Trust,
        case["policy"].as_str().unwrap().as_bytes(),
    );
    session.read_trust();
    put(
        &mut session,
        Input::Receipt,
        case["receipt"].as_str().unwrap().as_bytes(),
    );
    session.verify(false);
    for (said, value) in [
        (5, "hell"),
        (5, "hello!"),
        (4, "hello"),
        (u64::MAX, "hello"),
    ] {
        session.value_begin(said);
        put(&mut session, Input::Piece, value.as_bytes());
        session.value_piece();
        session.value_end();
        assert_eq!(answer(&session)["step"], "value", "{said} {value}");
    }
    session.value_begin(5);
    put(&mut session, Input::Piece, b"hello");
    session.value_piece();
    session.value_end();
    assert_eq!(answer(&session)["ok"], true);
}

#[test]
fn inputs_have_limits_and_garbage_is_refused() {
    let mut session = Session::default();
    for number in 0..4 {
        let input = Input::from_number(number).unwrap();
        assert!(session.reserve(input, input.longest()).is_some());
        assert!(session.reserve(input, input.longest() + 1).is_none());
    }
    assert!(Input::from_number(4).is_none());
    let cases = cases();
    let policy = cases[0]["policy"].as_str().unwrap();
    for garbage in [&b""[..], b"\xff\xfe", b"hello", b"\n\n\n", &[0; 70_000]] {
        assert_eq!(judge(garbage, policy, None, None).unwrap_err().0, "receipt");
    }
}

#[test]
fn every_byte_of_a_receipt_counts() {
    let cases = cases();
    let case = cases
        .iter()
        .find(|case| case["name"] == "opened receipt")
        .unwrap();
    let receipt = case["receipt"].as_str().unwrap().as_bytes();
    let policy = case["policy"].as_str().unwrap();
    for at in 0..receipt.len() {
        let mut changed = receipt.to_vec();
        changed[at] ^= 1;
        let judged = judge(&changed, policy, Some(b"greeting"), Some(b"hello"));
        // What may change without harm is a signature's name or key id, so that it counts as a stranger's: with two of
        // three nodes needed and two there, none here.
        assert!(
            judged.is_err(),
            "byte {at} is {:?}",
            char::from(receipt[at])
        );
    }
}

#[test]
fn keys_are_read_as_they_are_shown() {
    for key in [
        &b"greeting"[..],
        b"\xff\x00",
        b"base64:YQ==",
        "\u{1f980}".as_bytes(),
        b"a\nb",
    ] {
        assert_eq!(read_key(show_bytes(key).as_bytes()).unwrap(), key);
    }
    assert_eq!(show_bytes(b"\xff"), "base64:/w==");
    assert!(read_key(b"base64:***").is_err());
}
