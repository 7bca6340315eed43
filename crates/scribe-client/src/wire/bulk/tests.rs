//! Which lines are taken, which are refused and with what words.

use super::*;
use crate::code::ErrorCode;

fn check(line: &str, expected: &str) {
    let found = match BulkLine::parse(line.as_bytes()) {
        Ok(operation) => {
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            let change = match &operation.change {
                BulkChange::Put {
                    value,
                    content_type,
                    metadata,
                } => {
                    let metadata: Vec<_> = metadata
                        .iter()
                        .map(|(name, value)| format!(" {name}={value}"))
                        .collect();
                    let content_type = content_type.as_deref().unwrap_or("-");
                    format!("put {} {content_type}{}", text(value), metadata.concat())
                }
                BulkChange::Delete => "delete".to_owned(),
            };
            let idempotency_key = operation.idempotency_key.as_deref().unwrap_or("-");
            format!("{} {change} {idempotency_key}", text(&operation.key))
        }
        Err(error) => format!("refused: {error}"),
    };
    if expected.starts_with("refused") {
        assert!(
            found.starts_with(expected),
            "{line}\n  found {found}\n  expected {expected}"
        );
    } else {
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn lines_that_are_taken() {
    check(r#"{"key":"a","value":"1"}"#, "a put 1 - -");
    check(r#" { "value" : "" , "key" : "" } "#, " put  - -");
    check(
        r#"{"key_base64":"/w==","value_base64":"AAE="}"#,
        r"\xff put \x00\x01 - -",
    );
    check(
        r#"{"key":"a\u00e9\n","value":"\"x\""}"#,
        r#"a\xc3\xa9\n put \"x\" - -"#,
    );
    check(r#"{"key":"a","delete":true}"#, "a delete -");
    check(r#"{"key":"a","value":"1","delete":false}"#, "a put 1 - -");
    check(
        r#"{"key":"a","value":"1","content_type":"text/plain"}"#,
        "a put 1 text/plain -",
    );
    check(
        r#"{"key":"a","value":"1","metadata":{"z":"1","b":"2"}}"#,
        "a put 1 - b=2 z=1 -",
    );
    check(
        r#"{"key":"a","delete":true,"idempotency_key":"i"}"#,
        "a delete i",
    );
    check(
        r#"{"key":"a","value":"1","metadata":null,"content_type":null}"#,
        "a put 1 - -",
    );
}

#[test]
fn lines_that_are_refused() {
    let json = "refused: a line is one JSON object with known members: ";
    check("", json);
    check("[]", json);
    check(r#"["a",null,"1"]"#, json);
    check(r#"{"key":"a","value":"1"} {"#, json);
    check(r#"{"key":"a","value":"1""#, json);
    check(r#"{"key":1,"value":"1"}"#, json);
    check(r#"{"key":"a","value":{"json":1}}"#, json);
    check(
        r#"{"key":"a","key":"b","value":"1"}"#,
        &format!("{json}duplicate field `key`"),
    );
    check(
        r#"{"key":"a","value":"1","ttl":5}"#,
        &format!("{json}unknown field `ttl`"),
    );
    check(r#"{"key":"\ud800","value":"1"}"#, json);
    check(r#"{"key":"a","value":"1","delete":1}"#, json);
    check(r#"{"key":"a","value":"1","metadata":["x"]}"#, json);
    check(r#"{"key":"a","value":"1","metadata":{"x":1}}"#, json);
    check(
        r#"{"key":"a","value":"1","metadata":{"x":"1","x":"2"}}"#,
        &format!("{json}metadata names are unique, found \"x\" twice"),
    );
    let many: Vec<_> = (0..17).map(|n| format!("\"n{n}\":\"\"")).collect();
    check(
        &format!(
            r#"{{"key":"a","value":"1","metadata":{{{}}}}}"#,
            many.join(",")
        ),
        &format!("{json}metadata has at most 16 pairs, found more"),
    );
    check(
        r#"{"value":"1"}"#,
        "refused: exactly one of `key` and `key_base64` is needed, found n",
    );
    check(
        r#"{"key":"a","key_base64":"YQ==","value":"1"}"#,
        "refused: exactly one of `key` and `key_base64` is needed, found both",
    );
    check(
        r#"{"key":"a"}"#,
        "refused: exactly one of `value` and `value_base64` is needed, found n",
    );
    check(
        r#"{"key":"a","value":"1","value_base64":"MQ=="}"#,
        "refused: exactly one of `value` and `value_base64` is needed, found both",
    );
    check(
        r#"{"key":"a","value_base64":"MQ"}"#,
        "refused: `value_base64` must be standard base64 with padding",
    );
    check(
        r#"{"key":"a","delete":true,"value":""}"#,
        "refused: a delete has a key and nothing to store, found `value`",
    );
    check(
        r#"{"key":"a","delete":true,"metadata":{"x":"1"}}"#,
        "refused: a delete has a key and nothing to store, found `metadata`",
    );
    assert!(BulkLine::parse(b"{\"key\":\"\xff\",\"value\":\"1\"}").is_err());
}

#[test]
fn plain_text_is_borrowed() {
    let line = br#"{"key":"a","value":"plain","metadata":{"n":"v"}}"#;
    let operation = BulkLine::parse(line).unwrap();
    assert!(matches!(operation.key, Cow::Borrowed(_)));
    let BulkChange::Put {
        value, metadata, ..
    } = operation.change
    else {
        panic!("not a put")
    };
    assert!(matches!(value, Cow::Borrowed(_)));
    assert!(matches!(
        metadata.0[0],
        (Cow::Borrowed(_), Cow::Borrowed(_))
    ));
}

#[test]
fn lines_made_here_are_read_back() {
    for (key, value) in [
        (&b"k"[..], &b"v"[..]),
        (b"\xff", b"\x80\x81"),
        ("é\"\\".as_bytes(), b""),
    ] {
        let mut line = BulkLine::put(key, value);
        line.metadata = [("b", "2"), ("a", "1")].into_iter().collect();
        line.idempotency_key = Some("once".into());
        let json = serde_json::to_vec(&line.clone().into_owned()).unwrap();
        assert_eq!(BulkLine::parse(&json).unwrap(), line.operation().unwrap());
        let line = BulkLine::delete(key);
        let json = serde_json::to_vec(&line).unwrap();
        assert_eq!(BulkLine::parse(&json).unwrap(), line.operation().unwrap());
    }
}

#[test]
fn replies() {
    let check = |reply: BulkReply, json: &str| {
        let mut line = Vec::new();
        reply.write_line(&mut line);
        assert_eq!(String::from_utf8(line).unwrap(), format!("{json}\n"));
        assert_eq!(serde_json::from_str::<BulkReply>(json).unwrap(), reply);
    };
    let hash = HexHash([0; 32]);
    let zeros = "0".repeat(64);
    let appended = Appended {
        index: 4,
        timestamp_ms: 5,
        leaf_hash: hash,
        tree_size: 5,
        replayed: true,
    };
    check(
        BulkReply::Result(BulkResult {
            line: 1,
            outcome: Ok(appended),
        }),
        &format!(
            r#"{{"line":1,"index":4,"timestamp_ms":5,"leaf_hash":"{zeros}","tree_size":5,"replayed":true}}"#
        ),
    );
    let problem = Box::new(Problem::new(ErrorCode::InvalidKey, "a key is not empty"));
    check(
        BulkReply::Result(BulkResult {
            line: 2,
            outcome: Err(problem),
        }),
        r#"{"line":2,"error":{"type":"urn:scribe-ledger:problem:invalid_key","title":"The key is not valid","status":400,"code":"invalid_key","detail":"a key is not empty"}}"#,
    );
    check(
        BulkReply::Done(BulkDone {
            done: true,
            lines: 2,
            failed: 1,
        }),
        r#"{"done":true,"lines":2,"failed":1}"#,
    );
    assert!(serde_json::from_str::<BulkReply>(r#"{"line":1,"index":4}"#).is_err());
}
