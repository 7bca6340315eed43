//! Bodies survive JSON, and requests refuse what they do not know.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use super::*;

/// The value writes exactly this JSON, and the JSON reads back as the value.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
}

fn hash() -> HexHash {
    HexHash([0xab; 32])
}

const HASH: &str = "abababababababababababababababababababababababababababababababab";

#[test]
fn appended() {
    let fresh = Appended {
        index: 7,
        timestamp_ms: 9,
        leaf_hash: hash(),
        tree_size: 8,
        replayed: false,
    };
    let json = format!(r#"{{"index":7,"timestamp_ms":9,"leaf_hash":"{HASH}","tree_size":8}}"#);
    check(&fresh, &json);
    let json = json.replace('}', r#","replayed":true}"#);
    check(
        &Appended {
            replayed: true,
            ..fresh
        },
        &json,
    );
}

#[test]
fn history_and_lists() {
    let version = Version {
        index: 4,
        timestamp_ms: 5,
        kind: Kind::Delete,
        value_length: 0,
        leaf_hash: hash(),
        content_type: None,
    };
    check(
        &History {
            versions: vec![version],
            next: None,
        },
        &format!(
            r#"{{"versions":[{{"index":4,"timestamp_ms":5,"kind":"delete","value_length":0,"leaf_hash":"{HASH}"}}],"next":null}}"#
        ),
    );
    let key = KeyVersion {
        key: None,
        key_base64: Some("/w==".into()),
        index: 3,
        kind: None,
    };
    assert_eq!(key.key_bytes().unwrap(), [0xff]);
    check(
        &KeyList {
            keys: vec![key],
            next: Some("c".into()),
            tree_size: 9,
        },
        r#"{"keys":[{"key_base64":"/w==","index":3}],"next":"c","tree_size":9}"#,
    );
}

#[test]
fn keys_get() {
    let request = KeysGetRequest {
        keys: vec!["a".into()],
        keys_base64: vec!["/w==".into()],
        at: Some(At::Size(3)),
    };
    assert_eq!(request.key_bytes().unwrap(), [b"a".to_vec(), vec![0xff]]);
    check(&request, r#"{"keys":["a"],"keys_base64":["/w=="],"at":3}"#);
    let time = KeysGetRequest {
        at: Some(At::Time("2030-01-01T00:00:00Z".into())),
        ..request
    };
    check(
        &time,
        r#"{"keys":["a"],"keys_base64":["/w=="],"at":"2030-01-01T00:00:00Z"}"#,
    );
    check(
        &KeysGetResponse {
            tree_size: 2,
            entries: vec![KeyEntry {
                key: Some("a".into()),
                key_base64: None,
                entry: None,
            }],
        },
        r#"{"tree_size":2,"entries":[{"key":"a","entry":null}]}"#,
    );
}

#[test]
fn transactions() {
    let request = TransactionRequest {
        operations: vec![
            Operation::Put(PutOperation {
                key: Some("a".into()),
                value: Some("1".into()),
                if_absent: true,
                ..PutOperation::default()
            }),
            Operation::Delete(DeleteOperation {
                key: Some("b".into()),
                ..DeleteOperation::default()
            }),
            Operation::Check(CheckOperation {
                key: Some("c".into()),
                if_index: Some(5),
                ..CheckOperation::default()
            }),
        ],
    };
    check(
        &request,
        r#"{"operations":[{"put":{"key":"a","value":"1","if_absent":true}},{"delete":{"key":"b"}},{"check":{"key":"c","if_index":5}}]}"#,
    );
}

#[test]
fn requests_refuse_unknown_members() {
    fn refuses<T: DeserializeOwned + Debug>(json: &str) {
        let error = serde_json::from_str::<T>(json).unwrap_err().to_string();
        assert!(error.contains("unknown"), "{json}: {error}");
    }
    refuses::<KeysGetRequest>(r#"{"keys":[],"att":1}"#);
    refuses::<TransactionRequest>(r#"{"operations":[],"atomic":true}"#);
    refuses::<TransactionRequest>(r#"{"operations":[{"upsert":{"key":"a"}}]}"#);
    refuses::<TransactionRequest>(r#"{"operations":[{"put":{"key":"a","vaule":"1"}}]}"#);
    refuses::<TransactionRequest>(r#"{"operations":[{"delete":{"key":"a","value":"1"}}]}"#);
    refuses::<TransactionRequest>(r#"{"operations":[{"check":{"key":"a","absent":true}}]}"#);
    refuses::<LeaderRequest>(r#"{"node_id":1,"force":true}"#);
    refuses::<ClusterTokenRequest>(r#"{"expires_in":1}"#);
    refuses::<ReplaceRequest>(r#"{"by":1,"force":true}"#);
}

#[test]
fn answers_may_gain_members() {
    serde_json::from_str::<WatchProgress>(r#"{"index":1,"new":2}"#).unwrap();
}

#[test]
fn entries_tell_three_kinds_of_prev_apart() {
    let json = |prev: &str| {
        format!(
            r#"{{"index":1,"kind":"put","key":"k","timestamp_ms":2{prev},"value":"v","value_length":1,"leaf_hash":"{HASH}"}}"#
        )
    };
    for (prev, text) in [
        (PrevView::NotAsserted, ""),
        (PrevView::None, r#","prev":null"#),
        (PrevView::Version(0), r#","prev":0"#),
    ] {
        let entry: EntryView = serde_json::from_str(&json(text)).unwrap();
        assert_eq!(entry.prev, prev);
        assert_eq!(entry.value_bytes().unwrap(), b"v");
        check(&entry, &json(text));
    }
}

#[test]
fn problems_keep_codes_they_do_not_know() {
    let problem = Problem::new(ErrorCode::ConditionFailed, "the key exists").with_hint("read it");
    check(
        &problem,
        r#"{"type":"urn:scribe-ledger:problem:condition_failed","title":"The condition does not hold","status":412,"code":"condition_failed","detail":"the key exists","hint":"read it"}"#,
    );
    let newer: Problem = serde_json::from_str(
        r#"{"type":"x","title":"t","status":503,"code":"later","detail":"d","more":[1]}"#,
    )
    .unwrap();
    assert_eq!(newer.error_code(), None);
    assert!(newer.is_retryable());
}

#[test]
fn schemas_say_what_the_json_is() {
    fn schema<T: utoipa::PartialSchema>() -> String {
        serde_json::to_string(&T::schema()).unwrap()
    }
    assert!(
        schema::<HexHash>().contains(r#""type":"string""#),
        "{}",
        schema::<HexHash>()
    );
    assert!(
        schema::<Text<'_>>().contains(r#""type":"string""#),
        "{}",
        schema::<Text<'_>>()
    );
    let entry = schema::<EntryView>();
    assert!(
        entry.contains(r#""prev":{"type":["integer","null"]"#),
        "{entry}"
    );
    let line = schema::<BulkLine<'_>>();
    assert!(
        line.contains(r#""key":{"type":["string","null"]"#),
        "{line}"
    );
    assert!(line.contains(r#""additionalProperties":false"#), "{line}");
}
