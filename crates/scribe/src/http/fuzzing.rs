//! Fuzz targets: what a request says in its path, its parameters, its headers and its body.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use scribe_client::wire::{
    self, BulkLine, ClusterTokenRequest, KeysGetRequest, LeaderRequest, ReceiptsRequest,
    ReplaceRequest, TransactionRequest,
};
use scribe_proof::index::LeafIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cursor::{HistoryCursor, KeysCursor};
use super::key_path::{self, KeyEncoding, percent_decode};
use super::range::{self, ByteRange};
use super::request::{self, At, Query, WriteHeaders};
use super::{bulk, convert, operator};
use crate::limits;
use crate::sequencer::{Condition, Operation, WriteKind};

/// Parameters of every kind.
const KNOWN: [&str; 8] = [
    "prefix",
    "cursor",
    "at",
    "limit",
    "key_encoding",
    "wait",
    "consistency",
    "raw",
];

/// A query string, and all that can be asked of it.
pub(crate) fn http_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(decoded) = percent_decode(data, true) {
        assert!(decoded.len() <= data.len());
        assert_eq!(percent_decode(data, true).as_ref(), Ok(&decoded));
    }
    let Ok(query) = Query::parse(Some(text), &KNOWN) else {
        return;
    };
    // Nothing that was not known, nothing twice: at most one value for each.
    let pieces = text.split('&').filter(|piece| !piece.is_empty());
    let given = KNOWN.iter().filter(|name| query.bytes(name).is_some());
    assert_eq!(pieces.count(), given.count());
    if let Ok(limit) = query.limit() {
        assert!((1..=limits::PAGE_LIMIT_MAX).contains(&limit));
    }
    if let Ok(Some(number)) = query.number("limit") {
        let text = query.text("limit").ok().flatten().unwrap_or_default();
        assert!(text.trim_start_matches('0').is_empty() || text.ends_with(&number.to_string()));
    }
    if let Ok(encoding) = query.key_encoding()
        && let Ok(Some(part)) = query.key_part("prefix", encoding)
    {
        assert!(part.len() <= limits::KEY_LENGTH_MAX);
    }
    if let Ok(Some(at)) = query.at() {
        check_at(at);
    }
    let _ = (query.flag("raw"), query.wait(), query.consistency());
    if let Ok(Some(cursor)) = query.text("cursor") {
        check_cursor(cursor);
    }
    check_cursor(text);
    if let Ok(at) = request::parse_at(text) {
        check_at(at);
    }
}

fn check_at(at: At) {
    if let At::Size(size) = at {
        let again = request::parse_at(&size.get().to_string());
        assert!(matches!(again, Ok(At::Size(found)) if found == size));
    }
}

fn check_cursor(text: &str) {
    if let Ok(cursor) = KeysCursor::parse(text) {
        assert!(cursor.start.len() <= limits::KEY_LENGTH_MAX + 1);
        assert_eq!(cursor.encode(), text, "a second form");
        assert!(HistoryCursor::parse(text).is_err());
    }
    if let Ok(cursor) = HistoryCursor::parse(text) {
        assert_eq!(cursor.encode(), text, "a second form");
    }
}

/// What stands behind `/v1/keys/`: the key in both encodings, and what is asked about it.
pub(crate) fn http_key(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok((segment, _)) = key_path::split(text)
    {
        assert!(!segment.contains('/') && text.starts_with(segment));
        for encoding in [KeyEncoding::Percent, KeyEncoding::Base64Url] {
            if let Ok(key) = key_path::decode(segment, encoding) {
                assert!((1..=limits::KEY_LENGTH_MAX).contains(&key.len()));
                check_key(&key);
            }
        }
    }
    check_key(&data[..data.len().min(2 * limits::KEY_LENGTH_MAX)]);
}

/// A key as a client writes it into a path is the same key again.
fn check_key(key: &[u8]) {
    let written: String = key.iter().map(|byte| format!("%{byte:02X}")).collect();
    let read = key_path::decode(&written, KeyEncoding::Percent);
    match key.len() {
        1..=limits::KEY_LENGTH_MAX => assert_eq!(read.as_deref().ok(), Some(key)),
        _ => assert!(read.is_err()),
    }
}

/// Lines of `name: value` as headers.
fn headers_of(data: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in data
        .split(|byte| *byte == b'\n')
        .take(limits::HTTP_HEADERS_MAX)
    {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            fields.append(name, value);
        }
    }
    fields
}

/// The headers of a write and of a read.
pub(crate) fn http_headers(data: &[u8]) {
    let fields = headers_of(data);
    if let Ok(headers) = WriteHeaders::parse(&fields) {
        let metadata = headers.metadata.encode().expect("metadata within limits");
        assert!(metadata.len() <= limits::METADATA_LENGTH_MAX);
        assert!(headers.metadata.pairs.len() <= limits::METADATA_PAIRS_MAX);
        if let Some(key) = &headers.idempotency_key {
            assert!((1..=limits::IDEMPOTENCY_KEY_LENGTH_MAX).contains(&key.len()));
        }
        if let Condition::Version(index) = headers.condition {
            let tag = format!("\"{}\"", index.get());
            let value = HeaderValue::from_str(&tag).expect("a tag");
            assert_eq!(request::parse_if_match(&value).ok(), Some(index));
        }
        // The same key by the reading of other routes.
        let alone = request::idempotency_key(&fields).ok().flatten();
        assert_eq!(alone, headers.idempotency_key);
        assert!(request::refuse_encoding(&fields).is_ok());
    }
    let _ = request::none_match_names(&fields, LeafIndex::new(42));
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let changed = operator::check(loopback, &Method::POST, &fields);
    if changed.is_ok() {
        assert!(!fields.contains_key("origin") && fields.contains_key("content-type"));
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert!(operator::check(elsewhere, &Method::POST, &fields).is_err());
    }
    for value in fields.get_all("range") {
        for length in [0, 1, 10, usize::MAX] {
            if let ByteRange::Part { start, end } = range::parse(value, length) {
                assert!(start < end && end <= length, "{value:?} of {length}");
            }
        }
    }
}

/// One line of a bulk upload.
pub(crate) fn bulk_line(data: &[u8]) {
    let line = Bytes::copy_from_slice(data);
    let Ok(operation) = BulkLine::parse(&line) else {
        return;
    };
    let most = 4_096;
    let Ok(write) = bulk::write_of(&line, operation, most) else {
        return;
    };
    assert!((1..=limits::KEY_LENGTH_MAX).contains(&write.key.len()));
    if let WriteKind::Put { metadata, value } = &write.kind {
        assert!(value.len() <= most && value.len() <= data.len());
        assert!(metadata.encode().is_ok());
        // As another client would have written it.
        if *metadata == scribe_proof::leaf::Metadata::default() && write.idempotency_key.is_none() {
            let text = serde_json::to_vec(&BulkLine::put(&write.key, value)).expect("JSON");
            let text = Bytes::from(text);
            let again = BulkLine::parse(&text).expect("what was written can be read");
            let again = bulk::write_of(&text, again, most).ok();
            assert_eq!(
                again.map(|again| (again.key, again.kind)),
                Some((write.key, write.kind))
            );
        }
    }
}

/// A JSON body of a route; the first byte says which.
pub(crate) fn json_body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => {
            let Some(request) = json::<TransactionRequest>(body) else {
                return;
            };
            assert!(request.operations.len() <= limits::TRANSACTION_OPERATIONS_MAX + 1);
            for operation in request.operations {
                check_operation(operation);
            }
        }
        1 => {
            let Some(request) = json::<KeysGetRequest>(body) else {
                return;
            };
            for list in [&request.keys, &request.keys_base64] {
                assert!(list.len() <= limits::KEYS_GET_MAX + 1);
            }
            if let Ok(keys) = request.key_bytes() {
                assert_eq!(keys.len(), request.keys.len() + request.keys_base64.len());
            }
            if let Some(wire::At::Time(text)) = &request.at {
                let _ = request::parse_at(text);
            }
        }
        2 => {
            if let Some(request) = json::<ReceiptsRequest>(body) {
                assert!(request.entries.len() <= limits::RECEIPTS_MAX + 1);
            }
        }
        3 => drop(json::<ClusterTokenRequest>(body)),
        4 => drop(json::<LeaderRequest>(body)),
        _ => drop(json::<ReplaceRequest>(body)),
    }
}

/// Reads, writes, and reads again.
fn json<T: DeserializeOwned + Serialize>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&read).expect("JSON");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    Some(read)
}

fn check_operation(operation: wire::Operation) {
    match convert::operation(operation) {
        Ok(Operation::Write { key, kind, .. }) => {
            assert!((1..=limits::KEY_LENGTH_MAX).contains(&key.len()));
            if let WriteKind::Put { metadata, .. } = kind {
                assert!(metadata.encode().is_ok());
            }
        }
        Ok(Operation::Check { key, condition }) => {
            assert!((1..=limits::KEY_LENGTH_MAX).contains(&key.len()));
            assert!(condition != Condition::None);
        }
        Err(_) => {}
    }
}

/// Inputs as clients write them: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use scribe_proof::index::TreeSize;

    let mut made = Vec::new();
    let mut add = |target, name, bytes: &[u8]| made.push((target, name, bytes.to_vec()));
    let keys = KeysCursor {
        size: TreeSize::new(70),
        start: Bytes::from_static(b"a\0"),
    };
    let history = HistoryCursor {
        below: TreeSize::new(9),
    };
    for (name, text) in [
        (
            "listing",
            "prefix=a%2Fb+c&limit=5&consistency=stale".to_owned(),
        ),
        (
            "base64",
            "prefix=YS9i&key_encoding=base64url&raw=true".to_owned(),
        ),
        (
            "keys-cursor",
            format!("cursor={}&limit=1000", keys.encode()),
        ),
        ("history-cursor", history.encode()),
        ("at-size", "at=1234&wait=published".to_owned()),
        ("at-time", "at=2030-01-31T12:00:00+02:00".to_owned()),
        ("time", "2030-01-31T12:00:00Z".to_owned()),
        ("twice", "limit=1&limit=2".to_owned()),
        ("percent", "prefix=%zz".to_owned()),
    ] {
        add("http_query", name, text.as_bytes());
    }
    for (name, text) in [
        ("plain", "plain"),
        ("slash", "a%2Fb%2f"),
        ("bytes", "%00%ff"),
        ("dots", "%2e%2E/history"),
        ("receipt", "_-8=/receipt"),
        ("base64", "Li4"),
        ("bare-slash", "a/b"),
    ] {
        add("http_key", name, text.as_bytes());
    }
    for (name, text) in [
        (
            "put",
            "content-type: text/plain\nscribe-meta-author: \u{e9}\nscribe-meta-b: 2\nidempotency-key: k-1",
        ),
        (
            "if-match",
            "if-match: \"42\"\nrange: bytes=0-3\nrange: bytes=-2",
        ),
        ("if-absent", "if-none-match: *\ncontent-encoding: gzip"),
        (
            "lists",
            "if-none-match: W/\"41\", \"42\"\nrange: bytes=9-18446744073709551616",
        ),
        (
            "operator",
            "host: localhost:7000\ncontent-type: application/json; charset=utf-8",
        ),
        (
            "web-page",
            "host: [::1]\norigin: https://example.com\ncontent-type: application/json",
        ),
        (
            "twice",
            "if-match: \"1\"\nif-match: \"2\"\nscribe-meta-a: 1\nscribe-meta-a: 2",
        ),
    ] {
        add("http_headers", name, text.as_bytes());
    }
    for (name, text) in [
        ("put", r#"{"key":"k","value":"v"}"#),
        ("base64", r#"{"key_base64":"/w==","value_base64":"AA=="}"#),
        (
            "metadata",
            r#"{"key":"k","value":"v","content_type":"text/plain","metadata":{"a":"1","b":"2"},"idempotency_key":"i"}"#,
        ),
        ("escaped", r#"{"key":"\u00e9\n","value":"a\"b"}"#),
        ("delete", r#"{"key":"k","delete":true}"#),
        ("both", r#"{"key":"k","key_base64":"aw==","value":""}"#),
        ("array", r#"["k",null,"v"]"#),
    ] {
        add("bulk_line", name, text.as_bytes());
    }
    for (kind, name, text) in [
        (
            0,
            "transaction",
            r#"{"operations":[{"put":{"key":"a","value":"1","if_absent":true}},{"delete":{"key":"b","if_index":7}},{"check":{"key_base64":"/w==","if_index":3}}]}"#,
        ),
        (
            0,
            "metadata",
            r#"{"operations":[{"put":{"key":"a","value_base64":"AA==","content_type":"text/plain","metadata":{"m":"1"}}}]}"#,
        ),
        (
            1,
            "keys",
            r#"{"keys":["a","b"],"keys_base64":["/w=="],"at":17}"#,
        ),
        (
            1,
            "keys-at-time",
            r#"{"keys":["a"],"at":"2030-01-31T12:00:00Z"}"#,
        ),
        (
            2,
            "receipts",
            r#"{"entries":[{"key":"a"},{"key_base64":"/w==","index":4}]}"#,
        ),
        (3, "token", r#"{"expires_in_s":60}"#),
        (3, "nothing", "{}"),
        (4, "leader", r#"{"node_id":2}"#),
        (5, "replace", r#"{"by":4}"#),
    ] {
        add("json_body", name, &[&[kind], text.as_bytes()].concat());
    }
    made
}
