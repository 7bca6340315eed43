//! Keys in request paths.
//!
//! A key is any 1 to 1,024 bytes, so in a path it is percent-encoded, and it is decoded here from the *raw* request
//! target: `%2F` is a slash in the key, a bare `/` ends it. Nothing normalises (`.`, `..` and `//` mean themselves), but
//! clients and proxies may, which is what `?key_encoding=base64url` is for: it reaches every key.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::error::ApiError;
use crate::limits;

/// Where the keys are.
pub const KEYS_PREFIX: &str = "/v1/keys/";

/// What a path below [`KEYS_PREFIX`] asks about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyResource {
    /// The key itself.
    Value,
    /// Its versions.
    History,
    /// The receipt of one version.
    Receipt,
}

/// How a key is written in a path or a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyEncoding {
    /// Percent-encoded bytes.
    #[default]
    Percent,
    /// base64url without padding (after percent-decoding, which changes none of its characters).
    Base64Url,
}

impl KeyEncoding {
    /// Reads the value of `key_encoding`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<KeyEncoding, ApiError> {
        match text {
            "percent" => Ok(KeyEncoding::Percent),
            "base64url" => Ok(KeyEncoding::Base64Url),
            _ => Err(ApiError::invalid_argument(format!(
                "key_encoding is {text:?}, allowed are percent and base64url"
            ))),
        }
    }
}

/// Splits what follows [`KEYS_PREFIX`] into the encoded key and what is asked about it.
///
/// # Errors
/// A slash that is neither encoded nor the start of a known suffix: 404 with the remedy.
pub fn split(rest: &str) -> Result<(&str, KeyResource), ApiError> {
    let Some((key, suffix)) = rest.split_once('/') else {
        return Ok((rest, KeyResource::Value));
    };
    match suffix {
        "history" => Ok((key, KeyResource::History)),
        "receipt" => Ok((key, KeyResource::Receipt)),
        _ => Err(ApiError::not_found(format!(
            "/v1/keys/{{key}}/{suffix} is not a route; after a key only /history and /receipt are"
        ))
        .hint("a slash inside a key is written %2F, for example /v1/keys/a%2Fb")),
    }
}

/// Decodes a key from a path segment.
///
/// # Errors
/// Not decodable, empty, or longer than [`limits::KEY_LENGTH_MAX`] bytes.
pub fn decode(segment: &str, encoding: KeyEncoding) -> Result<Bytes, ApiError> {
    // The longest encodings of the longest key: checked before anything is decoded.
    if segment.len() > limits::KEY_LENGTH_MAX * 3 {
        return Err(ApiError::key_length(None));
    }
    let bytes = percent_decode(segment.as_bytes(), false).map_err(|at| {
        ApiError::invalid_key(format!(
            "key has a % at byte {at} that is not followed by two hexadecimal digits"
        ))
        .hint("a % inside a key is written %25")
    })?;
    let key = match encoding {
        KeyEncoding::Percent => Bytes::from(bytes.into_owned()),
        KeyEncoding::Base64Url => decode_base64url(&bytes)?,
    };
    check_length(&key)?;
    Ok(key)
}

/// Decodes a base64url key (padding is tolerated: some encoders cannot leave it out).
///
/// # Errors
/// Not base64url.
pub fn decode_base64url(text: &[u8]) -> Result<Bytes, ApiError> {
    let end = text
        .iter()
        .rposition(|&byte| byte != b'=')
        .map_or(0, |last| last + 1);
    URL_SAFE_NO_PAD
        .decode(&text[..end])
        .map(Bytes::from)
        .map_err(|error| ApiError::invalid_key(format!("key is not base64url: {error}")))
}

/// Checks the length of a user's key.
///
/// # Errors
/// Empty or too long.
pub fn check_length(key: &[u8]) -> Result<(), ApiError> {
    if key.is_empty() || key.len() > limits::KEY_LENGTH_MAX {
        return Err(ApiError::key_length(Some(key.len())));
    }
    Ok(())
}

/// Decodes percent-encoded bytes strictly; `plus_is_space` for query strings. The error is the place of a bad `%`.
pub(super) fn percent_decode(text: &[u8], plus_is_space: bool) -> Result<Cow<'_, [u8]>, usize> {
    let special = |&byte: &u8| byte == b'%' || (plus_is_space && byte == b'+');
    let Some(first) = text.iter().position(special) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text[..first]);
    let mut at = first;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'%' => {
                let digit = |place: usize| {
                    text.get(place)
                        .and_then(|&digit| char::from(digit).to_digit(16))
                };
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                    return Err(at);
                };
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            b'+' if plus_is_space => {
                decoded.push(b' ');
                at += 1;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(segment: &str) -> Bytes {
        decode(segment, KeyEncoding::Percent).unwrap()
    }

    #[test]
    fn a_key_is_what_its_bytes_say() {
        assert_eq!(key("plain"), "plain");
        assert_eq!(key("a%2Fb%2f"), "a/b/");
        assert_eq!(key("%00%ff"), Bytes::from_static(&[0, 255]));
        assert_eq!(key("a+b%25"), "a+b%");
        assert_eq!(key("."), ".");
        assert_eq!(key("%2e%2E"), "..");
        assert_eq!(decode("Li4", KeyEncoding::Base64Url).unwrap(), "..");
        assert_eq!(
            decode("_-8=", KeyEncoding::Base64Url).unwrap(),
            Bytes::from_static(&[255, 239])
        );
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for segment in ["", "%", "%2", "%zz", "a%g0"] {
            assert!(
                decode(segment, KeyEncoding::Percent).is_err(),
                "{segment:?}"
            );
        }
        assert!(decode("a b", KeyEncoding::Base64Url).is_err());
        assert!(decode("ab/c", KeyEncoding::Base64Url).is_err());
        assert!(decode(&"k".repeat(1_025), KeyEncoding::Percent).is_err());
        assert!(decode(&"%6b".repeat(1_024), KeyEncoding::Percent).is_ok());
        assert!(decode(&"k".repeat(5_000), KeyEncoding::Percent).is_err());
    }

    #[test]
    fn a_bare_slash_ends_a_key() {
        assert_eq!(split("a").unwrap(), ("a", KeyResource::Value));
        assert_eq!(
            split("a%2Fhistory").unwrap(),
            ("a%2Fhistory", KeyResource::Value)
        );
        assert_eq!(split("a/history").unwrap(), ("a", KeyResource::History));
        assert_eq!(split("a/receipt").unwrap(), ("a", KeyResource::Receipt));
        for rest in ["a/b", "a/", "a//history", "a/history/", "a/b/history"] {
            assert!(split(rest).is_err(), "{rest:?}");
        }
    }
}
