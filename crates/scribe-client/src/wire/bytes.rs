//! Bytes in JSON: hashes as lowercase hex, text as it is, everything else as standard base64.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// A SHA-256 hash, written in JSON as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
#[schema(
    value_type = String,
    pattern = "^[0-9a-f]{64}$",
    example = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
)]
pub struct HexHash(pub [u8; 32]);

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl HexHash {
    fn digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        digits
    }
}

impl From<scribe_proof::Hash> for HexHash {
    fn from(hash: scribe_proof::Hash) -> HexHash {
        HexHash(hash.0)
    }
}

impl From<HexHash> for scribe_proof::Hash {
    fn from(hash: HexHash) -> scribe_proof::Hash {
        scribe_proof::Hash(hash.0)
    }
}

impl fmt::Display for HexHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The digits are ASCII, so this never falls back.
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl fmt::Debug for HexHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lowercase hexadecimal digits, found {found} bytes of other text")]
pub struct NotAHash {
    /// Length of the text in bytes.
    pub found: usize,
}

impl FromStr for HexHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<HexHash, NotAHash> {
        let refused = NotAHash { found: text.len() };
        if text.len() != 64 {
            return Err(refused);
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(refused),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(HexHash(bytes))
    }
}

impl Serialize for HexHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for HexHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HexHash, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(serde::de::Error::custom)
    }
}

/// A JSON string that is borrowed from the input wherever it holds no escapes.
///
/// A plain `Option<Cow<str>>` would be copied by serde in every case; this is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> Text<'a> {
    /// The same text, owned.
    #[must_use]
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text))
    }
}

/// Splits bytes into the pair of JSON members that carry them: `(text, base64)`, one of them `None`.
///
/// Valid UTF-8 is carried as it is, anything else in standard base64 with padding.
#[must_use]
pub fn to_members(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(to_base64(bytes))),
    }
}

/// Reads bytes from the pair of JSON members `name` and `name_base64`.
///
/// # Errors
/// Exactly one of the two must be there, and base64 must be canonical.
pub fn from_members(
    name: &'static str,
    text: Option<&str>,
    base64: Option<&str>,
) -> Result<Vec<u8>, BytesError> {
    match (text, base64) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(base64)) => from_base64(name, base64),
        (None, None) => Err(BytesError::Missing { name }),
        (Some(_), Some(_)) => Err(BytesError::Both { name }),
    }
}

/// Standard base64 with padding (RFC 4648 section 4).
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes standard base64; `name` is the member's name without `_base64`, for the message.
///
/// # Errors
/// Other alphabets, missing padding and stray bits are refused.
pub fn from_base64(name: &'static str, base64: &str) -> Result<Vec<u8>, BytesError> {
    STANDARD
        .decode(base64)
        .map_err(|source| BytesError::Base64 { name, source })
}

/// Why a pair of members does not hold bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// Neither member is there.
    #[error("exactly one of `{name}` and `{name}_base64` is needed, found neither")]
    Missing {
        /// The member's name.
        name: &'static str,
    },
    /// Both members are there.
    #[error("exactly one of `{name}` and `{name}_base64` is needed, found both")]
    Both {
        /// The member's name.
        name: &'static str,
    },
    /// The text is not canonical standard base64.
    #[error("`{name}_base64` must be standard base64 with padding: {source}")]
    Base64 {
        /// The member's name.
        name: &'static str,
        /// What the decoder found.
        source: base64::DecodeError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_lowercase_digits() {
        let hash = HexHash(std::array::from_fn(|i| (i as u8).wrapping_mul(37)));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<HexHash>(&json).unwrap(), hash);
        let text = hash.to_string();
        for wrong in [
            &text[1..],
            &text.to_uppercase(),
            &text.replace('0', "g"),
            "",
        ] {
            assert!(wrong.parse::<HexHash>().is_err(), "{wrong}");
        }
        // 64 bytes, but not 64 characters: must be refused, not cut in the middle of one.
        assert!("é".repeat(32).parse::<HexHash>().is_err());
    }

    #[test]
    fn bytes_travel_as_text_or_base64() {
        for bytes in [
            &b""[..],
            b"plain",
            "\u{1f980}\n\0".as_bytes(),
            b"\xff\xfe",
            b"\x80",
        ] {
            let (text, base64) = to_members(bytes);
            assert_ne!(text.is_some(), base64.is_some());
            assert_eq!(
                from_members("key", text.as_deref(), base64.as_deref()).unwrap(),
                bytes
            );
        }
        assert!(matches!(
            from_members("key", None, None),
            Err(BytesError::Missing { .. })
        ));
        assert!(matches!(
            from_members("key", Some(""), Some("")),
            Err(BytesError::Both { .. })
        ));
        for wrong in ["YQ", "YR==", "_w==", "YQ==\n", " YQ=="] {
            assert!(from_base64("key", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_borrows_unless_escaped() {
        let plain: Option<Text<'_>> = serde_json::from_slice(b"\"abc\"").unwrap();
        assert!(matches!(plain, Some(Text(Cow::Borrowed("abc")))));
        let escaped: Text<'_> = serde_json::from_slice(b"\"a\\nb\"").unwrap();
        assert_eq!(escaped.0, "a\nb");
    }
}
