//! Cursors: where a listing goes on, as opaque text.
//!
//! A cursor holds the tree size of the first page, so that all pages together are one consistent view, and the scan
//! position. It is not signed: a made-up cursor can only ask for what any request may ask for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use scribe_proof::index::TreeSize;

use super::error::ApiError;
use crate::limits;

/// Where a listing of keys goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysCursor {
    /// The tree size all pages are read at.
    pub size: TreeSize,
    /// The first key not yet looked at.
    pub start: Bytes,
}

/// Where a history goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCursor {
    /// Only versions below it are left.
    pub below: TreeSize,
}

const KEYS: u8 = 1;
const HISTORY: u8 = 2;

impl KeysCursor {
    /// The cursor as text.
    pub fn encode(&self) -> String {
        encode(KEYS, self.size, &self.start)
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// Not a cursor of this listing.
    pub fn parse(text: &str) -> Result<KeysCursor, ApiError> {
        let (size, start) = parse(KEYS, text)?;
        // One more than the longest key: the position after it.
        if start.len() > limits::KEY_LENGTH_MAX + 1 {
            return Err(refused());
        }
        Ok(KeysCursor { size, start })
    }
}

impl HistoryCursor {
    /// The cursor as text.
    pub fn encode(self) -> String {
        encode(HISTORY, self.below, b"")
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// Not a cursor of this listing.
    pub fn parse(text: &str) -> Result<HistoryCursor, ApiError> {
        match parse(HISTORY, text)? {
            (below, rest) if rest.is_empty() => Ok(HistoryCursor { below }),
            _ => Err(refused()),
        }
    }
}

fn encode(kind: u8, size: TreeSize, rest: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(9 + rest.len());
    bytes.push(kind);
    bytes.extend_from_slice(&size.get().to_be_bytes());
    bytes.extend_from_slice(rest);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse(kind: u8, text: &str) -> Result<(TreeSize, Bytes), ApiError> {
    if text.len() > limits::KEY_LENGTH_MAX * 2 {
        return Err(refused());
    }
    let bytes = Bytes::from(URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?);
    match bytes.split_first_chunk::<9>() {
        Some(([found, size @ ..], _)) if *found == kind => {
            Ok((TreeSize::new(u64::from_be_bytes(*size)), bytes.slice(9..)))
        }
        _ => Err(refused()),
    }
}

fn refused() -> ApiError {
    ApiError::invalid_argument("cursor is not one that this listing gave out")
        .hint("pass the `next` of a page unchanged, with the page's other parameters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        let keys = KeysCursor {
            size: TreeSize::new(7),
            start: Bytes::from_static(b"a\0"),
        };
        assert_eq!(KeysCursor::parse(&keys.encode()).unwrap(), keys);
        let history = HistoryCursor {
            below: TreeSize::new(u64::MAX),
        };
        assert_eq!(HistoryCursor::parse(&history.encode()).unwrap(), history);
        assert!(HistoryCursor::parse(&keys.encode()).is_err());
        assert!(KeysCursor::parse(&history.encode()).is_err());
        for wrong in ["", "AQ", "not a cursor", &"A".repeat(4_000)] {
            assert!(KeysCursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}
