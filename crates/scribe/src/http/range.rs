//! `Range: bytes=…` of one range (RFC 9110, 14.1.2).

use http::HeaderValue;

/// What part of a value is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it: no range, several, or one this server does not understand, which it must ignore.
    Whole,
    /// Bytes `start..end`.
    Part {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// A range that lies outside the value.
    Unsatisfiable,
}

/// Reads the header against a value of `length` bytes.
pub fn parse(value: &HeaderValue, length: usize) -> ByteRange {
    let asked = value.to_str().ok().and_then(|text| {
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        (unit.trim().eq_ignore_ascii_case("bytes") && !range.contains(','))
            .then_some((number(first)?, number(last)?))
    });
    match asked {
        None | Some((None, None)) => ByteRange::Whole,
        Some((Some(first), Some(last))) if last < first => ByteRange::Whole,
        Some((Some(first), last)) => {
            if first >= length {
                return ByteRange::Unsatisfiable;
            }
            let end = last.map_or(length, |last| last.saturating_add(1).min(length));
            ByteRange::Part { start: first, end }
        }
        Some((None, Some(suffix))) => {
            if suffix == 0 || length == 0 {
                return ByteRange::Unsatisfiable;
            }
            ByteRange::Part {
                start: length.saturating_sub(suffix),
                end: length,
            }
        }
    }
}

/// `Some(None)` for nothing, `None` for what is no number.
fn number(text: &str) -> Option<Option<usize>> {
    match text {
        "" => Some(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            // A number too large for this machine is beyond every value.
            Some(Some(text.parse().unwrap_or(usize::MAX)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_or_none() {
        let check = |text: &str, expected: ByteRange| {
            assert_eq!(
                parse(&HeaderValue::from_str(text).unwrap(), 10),
                expected,
                "{text}"
            );
        };
        check("bytes=0-3", ByteRange::Part { start: 0, end: 4 });
        check("bytes=4-", ByteRange::Part { start: 4, end: 10 });
        check("bytes=4-99", ByteRange::Part { start: 4, end: 10 });
        check("bytes=-3", ByteRange::Part { start: 7, end: 10 });
        check("bytes=-30", ByteRange::Part { start: 0, end: 10 });
        check(
            "Bytes=9-18446744073709551616",
            ByteRange::Part { start: 9, end: 10 },
        );
        check("bytes=10-", ByteRange::Unsatisfiable);
        check("bytes=-0", ByteRange::Unsatisfiable);
        for ignored in [
            "bytes=0-1,3-4",
            "bytes=3-1",
            "bytes=-",
            "bytes=a-b",
            "lines=0-1",
            "bytes",
        ] {
            check(ignored, ByteRange::Whole);
        }
        assert_eq!(
            parse(&HeaderValue::from_static("bytes=-1"), 0),
            ByteRange::Unsatisfiable
        );
        assert_eq!(
            parse(&HeaderValue::from_static("bytes=0-0"), 0),
            ByteRange::Unsatisfiable
        );
    }
}
