//! `POST /v1/entries`: newline-delimited JSON, streamed both ways.
//!
//! One [`BulkLine`] per operation goes up; one [`BulkResult`] per line comes back, then one
//! [`BulkDone`]. An answer that ends without it was cut off: the lines without a result have an
//! unknown outcome and may be sent again only under the same idempotency keys.

use std::borrow::Cow;
use std::fmt;

use scribe_proof::METADATA_PAIRS_MAX;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::bytes::{BytesError, HexHash, Text, from_base64, to_base64};
use super::{Appended, Problem};

/// One line of a bulk upload, borrowing from the input.
///
/// Exactly one of `key` and `key_base64`. For a put, exactly one of `value` and `value_base64`;
/// for a delete, `"delete": true` and neither value, content type nor metadata.
/// [`BulkLine::operation`] checks these rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkLine<'a> {
    /// The key, if it is UTF-8.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<Text<'a>>,
    /// The key in standard base64.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_base64: Option<Text<'a>>,
    /// The value, if it is UTF-8.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub value: Option<Text<'a>>,
    /// The value in standard base64.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub value_base64: Option<Text<'a>>,
    /// Media type of the value.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub content_type: Option<Text<'a>>,
    /// User metadata: names to values.
    #[serde(borrow, default, skip_serializing_if = "Pairs::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub metadata: Pairs<'a>,
    /// Makes a retry of this line safe.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub idempotency_key: Option<Text<'a>>,
    /// Append a tombstone instead of a value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
}

/// What a bulk line asks for, once its members have been checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkOperation<'a> {
    /// The key; its length is not checked here.
    pub key: Cow<'a, [u8]>,
    /// Put or delete.
    pub change: BulkChange<'a>,
    /// The line's own idempotency key.
    pub idempotency_key: Option<Cow<'a, str>>,
}

/// The change a bulk line makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkChange<'a> {
    /// Append a version.
    Put {
        /// The value; its length is not checked here.
        value: Cow<'a, [u8]>,
        /// Media type, if named.
        content_type: Option<Cow<'a, str>>,
        /// User pairs, sorted by name.
        metadata: Pairs<'a>,
    },
    /// Append a tombstone.
    Delete,
}

/// Why a line is not an operation. The display text is a complete message.
#[derive(Debug, thiserror::Error)]
pub enum BulkLineError {
    /// Not an object. serde would read an array as the members in their order.
    #[error("a line is one JSON object with known members: it does not start with `{{`")]
    NotAnObject,
    /// Not one JSON object with the known members.
    #[error("a line is one JSON object with known members: {0}")]
    Json(#[source] serde_json::Error),
    /// Key or value are missing, twice there, or not base64.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// A delete names something only a put has.
    #[error("a delete has a key and nothing to store, found `{0}`")]
    DeleteWith(&'static str),
}

impl<'a> BulkLine<'a> {
    /// A line that appends a version.
    #[must_use]
    pub fn put(key: &'a [u8], value: &'a [u8]) -> BulkLine<'a> {
        let (value, value_base64) = borrowed_members(value);
        BulkLine {
            value,
            value_base64,
            ..BulkLine::with_key(key)
        }
    }

    /// A line that appends a tombstone.
    #[must_use]
    pub fn delete(key: &'a [u8]) -> BulkLine<'a> {
        BulkLine {
            delete: true,
            ..BulkLine::with_key(key)
        }
    }

    fn with_key(key: &'a [u8]) -> BulkLine<'a> {
        let (key, key_base64) = borrowed_members(key);
        BulkLine {
            key,
            key_base64,
            ..BulkLine::default()
        }
    }

    /// The same line, owning its bytes.
    #[must_use]
    pub fn into_owned(self) -> BulkLine<'static> {
        BulkLine {
            key: self.key.map(Text::into_owned),
            key_base64: self.key_base64.map(Text::into_owned),
            value: self.value.map(Text::into_owned),
            value_base64: self.value_base64.map(Text::into_owned),
            content_type: self.content_type.map(Text::into_owned),
            metadata: self.metadata.into_owned(),
            idempotency_key: self.idempotency_key.map(Text::into_owned),
            delete: self.delete,
        }
    }

    /// Reads one line (without its newline) and checks it. Text is borrowed where it can be.
    ///
    /// # Errors
    /// See [`BulkLineError`]; the server answers with the code `malformed_line`. The limits on
    /// lengths and metadata are the ledger's to check.
    pub fn parse(line: &'a [u8]) -> Result<BulkOperation<'a>, BulkLineError> {
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(BulkLineError::NotAnObject);
        }
        let line: BulkLine<'a> = serde_json::from_slice(line).map_err(BulkLineError::Json)?;
        line.operation()
    }

    /// Checks the members against each other.
    ///
    /// # Errors
    /// See [`BulkLineError`].
    pub fn operation(self) -> Result<BulkOperation<'a>, BulkLineError> {
        let key = one_of("key", self.key, self.key_base64)?;
        let idempotency_key = self.idempotency_key.map(|text| text.0);
        let change = if self.delete {
            let stored = [
                ("value", self.value.is_some()),
                ("value_base64", self.value_base64.is_some()),
                ("content_type", self.content_type.is_some()),
                ("metadata", !self.metadata.is_empty()),
            ];
            if let Some((name, _)) = stored.into_iter().find(|(_, found)| *found) {
                return Err(BulkLineError::DeleteWith(name));
            }
            BulkChange::Delete
        } else {
            BulkChange::Put {
                value: one_of("value", self.value, self.value_base64)?,
                content_type: self.content_type.map(|text| text.0),
                metadata: self.metadata,
            }
        };
        Ok(BulkOperation {
            key,
            change,
            idempotency_key,
        })
    }
}

fn borrowed_members(bytes: &[u8]) -> (Option<Text<'_>>, Option<Text<'_>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.into()), None),
        Err(_) => (None, Some(to_base64(bytes).into())),
    }
}

/// As [`super::bytes::from_members`], without copying text that is borrowed.
fn one_of<'a>(
    name: &'static str,
    text: Option<Text<'a>>,
    base64: Option<Text<'a>>,
) -> Result<Cow<'a, [u8]>, BytesError> {
    match (text, base64) {
        (Some(Text(Cow::Borrowed(text))), None) => Ok(Cow::Borrowed(text.as_bytes())),
        (Some(Text(Cow::Owned(text))), None) => Ok(Cow::Owned(text.into_bytes())),
        (None, Some(base64)) => Ok(Cow::Owned(from_base64(name, &base64.0)?)),
        (None, None) => Err(BytesError::Missing { name }),
        (Some(_), Some(_)) => Err(BytesError::Both { name }),
    }
}

/// User metadata as pairs sorted by name, borrowing from the input.
///
/// In JSON an object; a repeated name or more than [`METADATA_PAIRS_MAX`] pairs are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Pairs<'a> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The pairs in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The same pairs, owned.
    #[must_use]
    pub fn into_owned(self) -> Pairs<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Pairs(
            self.0
                .into_iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
        )
    }
}

/// Sorts by name. Of two pairs with one name the later stays, as in a map.
impl<'a, N: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> FromIterator<(N, V)> for Pairs<'a> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Pairs<'a> {
        let map: std::collections::BTreeMap<_, _> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Pairs(map.into_iter().collect())
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'a>, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Pairs<'de>, E> {
                Ok(Pairs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    if pairs.len() == METADATA_PAIRS_MAX {
                        return Err(serde::de::Error::custom(format_args!(
                            "metadata has at most {METADATA_PAIRS_MAX} pairs, found more"
                        )));
                    }
                    pairs.push((name.0, value.0));
                }
                pairs.sort_unstable();
                if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
                    return Err(serde::de::Error::custom(format_args!(
                        "metadata names are unique, found {:?} twice",
                        twice[0].0
                    )));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_any(PairsVisitor)
    }
}

/// One line of the answer to a bulk upload: what became of one line of the upload.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkResult {
    /// The line's number in the upload; the first is 1. Empty lines count and have no result.
    pub line: u64,
    /// Where the entry is, or why there is none.
    pub outcome: Result<Appended, Box<Problem>>,
}

/// The last line of the answer to a bulk upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkDone {
    /// Always `true`.
    pub done: bool,
    /// Lines read, whatever became of them; empty lines are not counted.
    pub lines: u64,
    /// Lines that were refused.
    pub failed: u64,
}

/// Any line of the answer to a bulk upload.
#[derive(Clone, Debug, PartialEq)]
pub enum BulkReply {
    /// What became of one line.
    Result(BulkResult),
    /// The end; without it the answer was cut off.
    Done(BulkDone),
}

/// The JSON form of [`BulkResult`] and [`BulkDone`]: the members of [`Appended`], or `error`.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[schema(as = BulkResult)]
pub struct BulkReplyMembers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf_hash: Option<HexHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree_size: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Box<Problem>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
}

impl BulkReply {
    /// Appends the line, newline included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        // Writing JSON of these types into memory cannot fail: no maps with other keys than text,
        // and `Vec` takes every byte.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}

impl Serialize for BulkReply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            BulkReply::Result(result) => result.serialize(serializer),
            BulkReply::Done(done) => done.serialize(serializer),
        }
    }
}

impl Serialize for BulkResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("line", &self.line)?;
        match &self.outcome {
            Ok(appended) => {
                map.serialize_entry("index", &appended.index)?;
                map.serialize_entry("timestamp_ms", &appended.timestamp_ms)?;
                map.serialize_entry("leaf_hash", &appended.leaf_hash)?;
                map.serialize_entry("tree_size", &appended.tree_size)?;
                if appended.replayed {
                    map.serialize_entry("replayed", &true)?;
                }
            }
            Err(problem) => map.serialize_entry("error", problem)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for BulkReply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BulkReply, D::Error> {
        let members = BulkReplyMembers::deserialize(deserializer)?;
        let missing = |name| serde::de::Error::missing_field(name);
        if let Some(done) = members.done {
            return Ok(BulkReply::Done(BulkDone {
                done,
                lines: members.lines.ok_or_else(|| missing("lines"))?,
                failed: members.failed.ok_or_else(|| missing("failed"))?,
            }));
        }
        let line = members.line.ok_or_else(|| missing("line"))?;
        let outcome = match members.error {
            Some(problem) => Err(problem),
            None => Ok(Appended {
                index: members.index.ok_or_else(|| missing("index"))?,
                timestamp_ms: members
                    .timestamp_ms
                    .ok_or_else(|| missing("timestamp_ms"))?,
                leaf_hash: members.leaf_hash.ok_or_else(|| missing("leaf_hash"))?,
                tree_size: members.tree_size.ok_or_else(|| missing("tree_size"))?,
                replayed: members.replayed,
            }),
        };
        Ok(BulkReply::Result(BulkResult { line, outcome }))
    }
}

#[cfg(test)]
mod tests;
