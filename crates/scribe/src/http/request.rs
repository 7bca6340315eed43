//! What requests say besides their bodies: query parameters, write headers, conditions, and the tree size to read at.
//!
//! Everything is strict: a parameter a route does not have, or a header that is given twice, is refused, because a
//! request that was half understood is worse than one that was refused.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use scribe_client::code::ErrorCode;
use scribe_client::wire::{HEADER_IDEMPOTENCY_KEY, HEADER_META_PREFIX};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::Metadata;

use super::App;
use super::error::ApiError;
use super::headers;
use super::key_path::{self, KeyEncoding, percent_decode};
use crate::error::ReadError;
use crate::limits;
use crate::sequencer::Condition;

/// The query parameters of a request, decoded.
#[derive(Debug)]
pub struct Query<'a> {
    pairs: Vec<(&'static str, Cow<'a, [u8]>)>,
}

impl<'a> Query<'a> {
    /// Reads a query string that may name each of `known` once.
    ///
    /// # Errors
    /// Another parameter, one given twice, or a `%` that encodes nothing.
    pub fn parse(query: Option<&'a str>, known: &[&'static str]) -> Result<Query<'a>, ApiError> {
        let mut pairs = Vec::new();
        let Some(query) = query else {
            return Ok(Query { pairs });
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(unknown_parameter(name, known));
            };
            if pairs.iter().any(|(given, _)| given == name) {
                return Err(ApiError::bad_request(format!(
                    "parameter {name} is given twice"
                )));
            }
            let value = percent_decode(value.as_bytes(), true).map_err(|_| {
                ApiError::bad_request(format!(
                    "parameter {name} has a % that is not followed by two hexadecimal digits"
                ))
            })?;
            pairs.push((*name, value));
        }
        Ok(Query { pairs })
    }

    /// The bytes of a parameter.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.pairs
            .iter()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| value.as_ref())
    }

    /// A parameter that is text.
    ///
    /// # Errors
    /// Not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.bytes(name)
            .map(|value| {
                std::str::from_utf8(value)
                    .map_err(|_| ApiError::invalid_argument(format!("{name} is not UTF-8")))
            })
            .transpose()
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// Anything but decimal digits below 2^64.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.text(name)?
            .map(|text| parse_number(name, text))
            .transpose()
    }

    /// A parameter that is `true` or `false`; absent is false.
    ///
    /// # Errors
    /// Any other text.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid_argument(format!(
                "{name} is {other:?}, allowed are true and false"
            ))),
        }
    }

    /// `limit`: 1 to [`limits::PAGE_LIMIT_MAX`].
    ///
    /// # Errors
    /// Not a number, or outside the range.
    pub fn limit(&self) -> Result<usize, ApiError> {
        match self.number("limit")? {
            None => Ok(limits::PAGE_LIMIT_DEFAULT),
            Some(limit) if (1..=limits::PAGE_LIMIT_MAX as u64).contains(&limit) => {
                Ok(limit as usize)
            }
            Some(limit) => Err(ApiError::invalid_argument(format!(
                "limit is {limit}, allowed are 1 to {}",
                limits::PAGE_LIMIT_MAX
            ))),
        }
    }

    /// `key_encoding`.
    ///
    /// # Errors
    /// An unknown encoding.
    pub fn key_encoding(&self) -> Result<KeyEncoding, ApiError> {
        self.text("key_encoding")?
            .map_or(Ok(KeyEncoding::default()), KeyEncoding::parse)
    }

    /// A parameter that is a key or a part of one: any bytes up to a key's length, in the given encoding.
    ///
    /// # Errors
    /// Not decodable or too long.
    pub fn key_part(&self, name: &str, encoding: KeyEncoding) -> Result<Option<Bytes>, ApiError> {
        let Some(value) = self.bytes(name) else {
            return Ok(None);
        };
        let part = match encoding {
            KeyEncoding::Percent => Bytes::copy_from_slice(value),
            KeyEncoding::Base64Url => key_path::decode_base64url(value)?,
        };
        if part.len() > limits::KEY_LENGTH_MAX {
            return Err(ApiError::key_length(Some(part.len())));
        }
        Ok(Some(part))
    }

    /// `wait`.
    ///
    /// # Errors
    /// An unknown moment.
    pub fn wait(&self) -> Result<Wait, ApiError> {
        match self.text("wait")? {
            None | Some("appended") => Ok(Wait::Appended),
            Some("published") => Ok(Wait::Published),
            Some(other) => Err(ApiError::invalid_argument(format!(
                "wait is {other:?}, allowed are appended and published"
            ))),
        }
    }

    /// `consistency`.
    ///
    /// # Errors
    /// An unknown level.
    pub fn consistency(&self) -> Result<Consistency, ApiError> {
        match self.text("consistency")? {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("stale") => Ok(Consistency::Stale),
            Some(other) => Err(ApiError::invalid_argument(format!(
                "consistency is {other:?}, allowed are linearizable and stale"
            ))),
        }
    }

    /// `at`.
    ///
    /// # Errors
    /// Neither a tree size nor an RFC 3339 time.
    pub fn at(&self) -> Result<Option<At>, ApiError> {
        self.text("at")?.map(parse_at).transpose()
    }
}

fn unknown_parameter(name: &str, known: &[&'static str]) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let known = if known.is_empty() {
        "this route has none".to_owned()
    } else {
        format!("known are {}", known.join(", "))
    };
    ApiError::new(
        ErrorCode::UnknownParameter,
        format!("query parameter {shown:?} is not known here, {known}"),
    )
}

pub(super) fn parse_number(name: &str, text: &str) -> Result<u64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(ApiError::invalid_argument(format!(
                "{name} is {shown:?}, allowed are decimal numbers below 2^64"
            )))
        }
    }
}

/// A leaf index in a path.
///
/// # Errors
/// Anything but decimal digits below 2^64.
pub fn parse_index(text: &str) -> Result<LeafIndex, ApiError> {
    parse_number("index", text).map(LeafIndex::new)
}

/// How far a write is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Durable on a majority.
    Appended,
    /// Covered by a signed checkpoint.
    Published,
}

/// What a read must have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Every write answered before the read was asked.
    Linearizable,
    /// Whatever this node has applied.
    Stale,
}

/// A point in the ledger, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A tree size: sees the indexes below it.
    Size(TreeSize),
    /// A time: sees what was appended up to it.
    Time {
        /// Milliseconds since 1970-01-01 UTC.
        timestamp_ms: u64,
    },
}

/// Reads a tree size or an RFC 3339 time.
///
/// # Errors
/// Neither.
pub fn parse_at(text: &str) -> Result<At, ApiError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return parse_number("at", text).map(|size| At::Size(TreeSize::new(size)));
    }
    // A + in a query string means a space, and no RFC 3339 time ends in one followed by an offset: give it back.
    let text: Cow<'_, str> = match text.rfind(' ') {
        Some(place) if place > 10 => {
            Cow::Owned(format!("{}+{}", &text[..place], &text[place + 1..]))
        }
        _ => Cow::Borrowed(text),
    };
    let refused = |why: String| {
        let shown: String = text.chars().take(64).collect();
        ApiError::invalid_argument(format!(
            "at is {shown:?}, allowed are a tree size or an RFC 3339 time{why}"
        ))
        .hint("for example at=1234 or at=2030-01-31T12:00:00Z")
    };
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|error| refused(format!(": {error}")))?;
    match u64::try_from(time.as_millisecond()) {
        Ok(timestamp_ms) => Ok(At::Time { timestamp_ms }),
        Err(_) => Err(refused(", not before 1970".to_owned())),
    }
}

/// The tree size a read is to see: `at` if given, else the newest that `consistency` asks for, and in any case not
/// before `Scribe-Min-Index` is applied.
///
/// # Errors
/// Beyond the ledger's end, no majority within the node's patience, or a malformed header.
pub async fn read_size(
    app: &App,
    at: Option<At>,
    consistency: Consistency,
    fields: &HeaderMap,
) -> Result<TreeSize, ApiError> {
    if let Some(index) = min_index(fields)? {
        wait_applied(app, index).await?;
    }
    match at {
        None => newest(app, consistency).await,
        // What is applied here will never change: no need to ask anybody.
        Some(At::Size(size)) if size <= app.node.applied_size() => whole_transactions(app, size),
        Some(At::Size(size)) => {
            let newest = newest(app, consistency).await?;
            if size > newest {
                return Err(ApiError::future(
                    format!("at is tree size {size}, the ledger has {newest} entries"),
                    newest.get(),
                ));
            }
            whole_transactions(app, size)
        }
        Some(At::Time { timestamp_ms }) => {
            let newest = newest(app, consistency).await?;
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            if u128::from(timestamp_ms) > now.as_millis() {
                return Err(ApiError::future(
                    format!(
                        "at is {timestamp_ms} ms after 1970, which is {} ms ahead of this node",
                        u128::from(timestamp_ms) - now.as_millis()
                    ),
                    newest.get(),
                ));
            }
            Ok(app.node.size_at_time(timestamp_ms)?.min(newest))
        }
    }
}

/// Waits until the entry at `index` is applied here.
async fn wait_applied(app: &App, index: LeafIndex) -> Result<(), ApiError> {
    let wait = Duration::from_millis(limits::MIN_INDEX_WAIT_MS);
    match app.node.wait_size(index.tree_size(), wait).await {
        Err(ReadError::BeyondTree { size, .. }) => Err(ApiError::not_applied(index, size)),
        other => Ok(other?),
    }
}

async fn newest(app: &App, consistency: Consistency) -> Result<TreeSize, ApiError> {
    match consistency {
        Consistency::Linearizable => Ok(app.node.barrier().await?),
        Consistency::Stale => Ok(app.node.applied_size()),
    }
}

/// The largest size up to `size` that ends no transaction in its middle.
fn whole_transactions(app: &App, size: TreeSize) -> Result<TreeSize, ApiError> {
    let Some(last) = size.last_index() else {
        return Ok(size);
    };
    if size >= app.node.applied_size() {
        return Ok(size);
    }
    let Some(entry) = app.node.entry(last)? else {
        return Ok(size);
    };
    let Ok(leaf) = scribe_proof::leaf::Leaf::parse(&entry.leaf) else {
        // Included, not understood: whatever it is, it cannot be told to belong to more.
        return Ok(size);
    };
    if leaf.transaction_position + 1 < leaf.transaction_length {
        let within = u64::from(leaf.transaction_position) + 1;
        return Ok(TreeSize::new(size.get().saturating_sub(within)));
    }
    Ok(size)
}

/// Whether a read names an entry that it is to see.
pub fn has_min_index(fields: &HeaderMap) -> bool {
    fields.contains_key(headers::SCRIBE_MIN_INDEX)
}

fn min_index(fields: &HeaderMap) -> Result<Option<LeafIndex>, ApiError> {
    match fields.get(headers::SCRIBE_MIN_INDEX) {
        None => Ok(None),
        Some(value) => {
            let text = value.to_str().unwrap_or("");
            parse_number("Scribe-Min-Index", text).map(|index| Some(LeafIndex::new(index)))
        }
    }
}

/// What the headers of a write say.
#[derive(Debug)]
pub struct WriteHeaders {
    /// Under which condition.
    pub condition: Condition,
    /// Makes a retry safe.
    pub idempotency_key: Option<String>,
    /// Content type and user pairs.
    pub metadata: Metadata,
}

impl WriteHeaders {
    /// Reads them in one pass.
    ///
    /// # Errors
    /// A header given twice, a malformed condition or idempotency key, metadata over its limits, or a Content-Encoding.
    pub fn parse(fields: &HeaderMap) -> Result<WriteHeaders, ApiError> {
        let mut content_type = None;
        let mut if_match = None;
        let mut if_none_match = None;
        let mut idempotency_key = None;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in fields {
            match *name {
                CONTENT_TYPE => once(&mut content_type, name, value)?,
                IF_MATCH => once(&mut if_match, name, value)?,
                IF_NONE_MATCH => once(&mut if_none_match, name, value)?,
                CONTENT_ENCODING => return Err(unsupported_encoding(value)),
                _ => {
                    let text = name.as_str();
                    if let Some(pair) = text.strip_prefix(HEADER_META_PREFIX) {
                        if pairs.iter().any(|(given, _)| given == pair) {
                            return Err(ApiError::new(
                                ErrorCode::MetadataInvalid,
                                format!("header {name} is given twice, metadata names are unique"),
                            ));
                        }
                        pairs.push((pair.to_owned(), metadata_text(name, value)?));
                    } else if text == HEADER_IDEMPOTENCY_KEY {
                        once(&mut idempotency_key, name, value)?;
                    }
                }
            }
        }
        let condition = match (if_match, if_none_match) {
            (None, None) => Condition::None,
            (Some(value), None) => Condition::Version(parse_if_match(value)?),
            (None, Some(value)) => parse_if_none_match_any(value)?,
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid_argument(
                    "If-Match and If-None-Match are both given, allowed is one of them",
                ));
            }
        };
        let content_type = match content_type {
            Some(value) => metadata_text(&CONTENT_TYPE, value)?,
            None => String::new(),
        };
        let metadata = if pairs.is_empty() && content_type.is_empty() {
            Metadata::default()
        } else {
            Metadata::new(content_type, pairs)?
        };
        Ok(WriteHeaders {
            condition,
            idempotency_key: idempotency_key.map(parse_idempotency_key).transpose()?,
            metadata,
        })
    }
}

fn once<'a>(
    slot: &mut Option<&'a HeaderValue>,
    name: &HeaderName,
    value: &'a HeaderValue,
) -> Result<(), ApiError> {
    if slot.replace(value).is_some() {
        return Err(ApiError::invalid_argument(format!(
            "header {name} is given twice"
        )));
    }
    Ok(())
}

fn metadata_text(name: &HeaderName, value: &HeaderValue) -> Result<String, ApiError> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ApiError::new(
            ErrorCode::MetadataInvalid,
            format!("header {name} is not UTF-8"),
        )),
    }
}

/// Refuses a request whose body is encoded: the ledger keeps bodies as they are.
///
/// # Errors
/// There is a Content-Encoding.
pub fn refuse_encoding(fields: &HeaderMap) -> Result<(), ApiError> {
    fields
        .get(CONTENT_ENCODING)
        .map_or(Ok(()), |value| Err(unsupported_encoding(value)))
}

fn unsupported_encoding(value: &HeaderValue) -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedEncoding,
        format!("Content-Encoding is {value:?}, bodies are taken as they are"),
    )
    .hint("send the body unencoded, or store the encoded bytes without the header")
    .leaving_request_unread()
}

/// The idempotency key of a request whose other headers do not matter.
///
/// # Errors
/// Given twice or malformed.
pub fn idempotency_key(fields: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut given = fields.get_all(HEADER_IDEMPOTENCY_KEY).iter();
    let first = given.next();
    if given.next().is_some() {
        return Err(ApiError::invalid_argument(
            "header idempotency-key is given twice",
        ));
    }
    first.map(parse_idempotency_key).transpose()
}

fn parse_idempotency_key(value: &HeaderValue) -> Result<String, ApiError> {
    match value.to_str() {
        Ok(text) => {
            check_idempotency_key(text)?;
            Ok(text.to_owned())
        }
        Err(_) => Err(ApiError::invalid_argument(
            "Idempotency-Key has other bytes than visible ASCII characters and spaces",
        )),
    }
}

/// Checks the length of an idempotency key.
///
/// # Errors
/// Empty or too long.
pub fn check_idempotency_key(text: &str) -> Result<(), ApiError> {
    if text.is_empty() || text.len() > limits::IDEMPOTENCY_KEY_LENGTH_MAX {
        return Err(ApiError::invalid_argument(format!(
            "idempotency key is {} bytes long, allowed are 1 to {}",
            text.len(),
            limits::IDEMPOTENCY_KEY_LENGTH_MAX
        )));
    }
    Ok(())
}

/// The index in `If-Match: "N"`, exactly so.
///
/// # Errors
/// Weak, a list, `*`, or no index of this ledger's form.
pub fn parse_if_match(value: &HeaderValue) -> Result<LeafIndex, ApiError> {
    strong_tag(value.as_bytes()).ok_or_else(|| {
        ApiError::invalid_argument(format!(
            "If-Match is {value:?}, allowed is one strong tag like \"42\": the index of the version expected"
        ))
        .hint("the ETag of a key is its current index in quotes; weak tags (W/), lists and * are not taken")
    })
}

fn parse_if_none_match_any(value: &HeaderValue) -> Result<Condition, ApiError> {
    if value.as_bytes() == b"*" {
        return Ok(Condition::Absent);
    }
    Err(ApiError::invalid_argument(format!(
        "If-None-Match is {value:?}, allowed on a write is * (only if the key has no value)"
    ))
    .hint("to replace a version you have seen, use If-Match with its index in quotes"))
}

/// Whether an `If-None-Match` of a read names this index: the tag in any list, weak or not, or `*` (RFC 9110, 13.1.2).
pub fn none_match_names(fields: &HeaderMap, index: LeafIndex) -> bool {
    none_match(fields, |tag| strong_tag(tag) == Some(index))
}

/// Whether an `If-None-Match` of a read has a tag that `is_ours`, quotes included, or is `*`.
pub(super) fn none_match(fields: &HeaderMap, is_ours: impl Fn(&[u8]) -> bool) -> bool {
    fields.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || is_ours(tag.strip_prefix(b"W/").unwrap_or(tag))
        })
    })
}

/// The index in `"N"`.
pub(super) fn strong_tag(tag: &[u8]) -> Option<LeafIndex> {
    let digits = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let canonical = match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    canonical.then(|| LeafIndex::new(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query<'a>(text: &'a str, known: &[&'static str]) -> Result<Query<'a>, ApiError> {
        Query::parse(Some(text), known)
    }

    #[test]
    fn parameters_are_known_and_given_once() {
        let read = query("limit=5&prefix=a%2Fb+c&", &["limit", "prefix"]).unwrap();
        assert_eq!(read.limit().unwrap(), 5);
        assert_eq!(read.bytes("prefix").unwrap(), b"a/b c");
        let unknown = query("limt=5", &["limit", "prefix"]).unwrap_err();
        assert_eq!(unknown.code(), ErrorCode::UnknownParameter);
        assert!(
            unknown
                .into_problem()
                .detail
                .contains("known are limit, prefix")
        );
        assert!(query("limit=5&limit=5", &["limit"]).is_err());
        assert!(query("limit=%5", &["limit"]).is_err());
        for limit in [
            "0",
            "1001",
            "-1",
            "",
            "1e3",
            " 1",
            "+1",
            "99999999999999999999",
        ] {
            assert!(
                query(&format!("limit={limit}"), &["limit"])
                    .unwrap()
                    .limit()
                    .is_err()
            );
        }
    }

    #[test]
    fn at_is_a_size_or_a_time() {
        assert_eq!(parse_at("17").unwrap(), At::Size(TreeSize::new(17)));
        let time = At::Time {
            timestamp_ms: 1_500,
        };
        assert_eq!(parse_at("1970-01-01T00:00:01.5Z").unwrap(), time);
        assert_eq!(parse_at("1970-01-01T02:00:01.5+02:00").unwrap(), time);
        // As it arrives when the + was not encoded.
        assert_eq!(parse_at("1970-01-01T02:00:01.5 02:00").unwrap(), time);
        for wrong in [
            "",
            "-1",
            "now",
            "1969-12-31T00:00:00Z",
            "2030-01-01",
            "99999999999999999999",
        ] {
            assert!(parse_at(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_condition_is_one_strong_tag() {
        let tag = |text: &str| parse_if_match(&HeaderValue::from_str(text).unwrap());
        assert_eq!(tag("\"0\"").unwrap(), LeafIndex::new(0));
        assert_eq!(tag("\"42\"").unwrap(), LeafIndex::new(42));
        for wrong in [
            "42",
            "W/\"42\"",
            "\"1\", \"2\"",
            "*",
            "\"\"",
            "\"042\"",
            "\"x\"",
            "\"",
            "\"-1\"",
        ] {
            assert!(tag(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_read_takes_lists_and_weak_tags() {
        let names = |text: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(IF_NONE_MATCH, HeaderValue::from_str(text).unwrap());
            none_match_names(&fields, LeafIndex::new(7))
        };
        assert!(names("\"7\"") && names("W/\"7\"") && names("\"6\", \"7\"") && names("*"));
        assert!(!names("\"70\"") && !names("7") && !names("\"6\",\"8\""));
    }

    #[test]
    fn write_headers_are_read_in_one_pass() {
        let mut fields = HeaderMap::new();
        fields.append("content-type", HeaderValue::from_static("text/plain"));
        fields.append("Scribe-Meta-B", HeaderValue::from_static("2"));
        fields.append("scribe-meta-a", HeaderValue::from_static("1"));
        fields.append("if-match", HeaderValue::from_static("\"9\""));
        fields.append("idempotency-key", HeaderValue::from_static("once"));
        let read = WriteHeaders::parse(&fields).unwrap();
        assert_eq!(read.condition, Condition::Version(LeafIndex::new(9)));
        assert_eq!(read.idempotency_key.as_deref(), Some("once"));
        let names: Vec<&str> = read
            .metadata
            .pairs
            .iter()
            .map(|pair| pair.0.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);

        for (name, value) in [
            ("if-none-match", "*"),
            ("scribe-meta-a", "again"),
            ("content-type", "text/html"),
            ("idempotency-key", "twice"),
            ("content-encoding", "gzip"),
            ("scribe-meta-n!", "name"),
        ] {
            let mut wrong = fields.clone();
            wrong.append(name, HeaderValue::from_str(value).unwrap());
            assert!(WriteHeaders::parse(&wrong).is_err(), "{name}");
        }
    }
}
