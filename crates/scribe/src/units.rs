//! Human units: `64MiB`, `50ms`. Settings are written with their unit and printed back the same way.
//!
//! A quantity is a whole number followed by a unit, with an optional space between them. Fractions are refused:
//! `1536MiB` says the same as `1.5GiB` and cannot round.

/// Why a text is not a quantity. The message is the rule; the caller adds which setting and the text it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size in bytes.
    #[error("a size is a whole number with a unit: B, KiB, MiB, GiB, TiB, kB, MB, GB or TB")]
    Bytes,
    /// Not a duration.
    #[error("a duration is a whole number with a unit: ms, s, m, h or d")]
    Duration,
    /// Not a plain number.
    #[error("a count is a whole number without a unit")]
    Count,
    /// The number does not fit 64 bits.
    #[error("the number is larger than {} allows", u64::MAX)]
    TooLarge,
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Bytes in `text`: `64MiB`, `10kB`, or a bare number of bytes. Unit names may be in any case except that the
/// binary and decimal ones stay apart (`MiB` is 1,048,576, `MB` is 1,000,000).
///
/// # Errors
/// [`UnitError::Bytes`] when it is not a size, [`UnitError::TooLarge`] when it does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Bytes)?;
    let number = number.ok_or(UnitError::TooLarge)?;
    if unit.is_empty() {
        return Ok(number);
    }
    let (_, scale) = BYTE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or(UnitError::Bytes)?;
    number.checked_mul(*scale).ok_or(UnitError::TooLarge)
}

/// Milliseconds in `text`: `50ms`, `1s`, `10m`, `24h`, `7d`. A bare number is refused, except `0`.
///
/// # Errors
/// [`UnitError::Duration`] when it is not a duration, [`UnitError::TooLarge`] when it does not fit 64 bits.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Duration)?;
    let number = number.ok_or(UnitError::TooLarge)?;
    if unit.is_empty() && number == 0 {
        return Ok(0);
    }
    let (_, scale) = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::Duration)?;
    number.checked_mul(*scale).ok_or(UnitError::TooLarge)
}

/// A plain whole number; `_` may group digits.
///
/// # Errors
/// [`UnitError::Count`] when it is not a whole number, [`UnitError::TooLarge`] when it does not fit 64 bits.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    match split(text) {
        Some((Some(number), "")) => Ok(number),
        Some((None, "")) => Err(UnitError::TooLarge),
        _ => Err(UnitError::Count),
    }
}

/// `bytes` in the largest binary unit that divides it exactly, so that parsing gives the same number back.
pub fn format_bytes(bytes: u64) -> String {
    BYTE_UNITS
        .iter()
        .filter(|(name, _)| name.ends_with("iB") || *name == "B")
        .find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale))
        .map_or_else(
            || format!("{bytes}B"),
            |(name, scale)| format!("{}{name}", bytes / scale),
        )
}

/// `milliseconds` in the largest unit that divides it exactly, so that parsing gives the same number back.
pub fn format_duration_ms(milliseconds: u64) -> String {
    DURATION_UNITS
        .iter()
        .find(|(_, scale)| milliseconds != 0 && milliseconds.is_multiple_of(*scale))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(name, scale)| format!("{}{name}", milliseconds / scale),
        )
}

/// The leading digits as a number (`None`: they overflow) and what follows them. `None` when there are no digits.
fn split(text: &str) -> Option<(Option<u64>, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut number = Some(0u64);
    for digit in digits.bytes().filter(u8::is_ascii_digit) {
        number = number
            .and_then(|n| n.checked_mul(10))
            .and_then(|n| n.checked_add(u64::from(digit - b'0')));
    }
    Some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1_024KiB", 1 << 20),
            ("2GB", 2_000_000_000),
            ("3kB", 3_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "1.5GiB",
            "-1MiB",
            "5 parsecs",
            "64Mi",
            "_1",
            "1MiB2",
        ] {
            assert_eq!(parse_bytes(text), Err(UnitError::Bytes), "{text}");
        }
        assert_eq!(
            parse_bytes("18446744073709551616"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(parse_bytes("16777216TiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("50ms", 50),
            ("1s", 1_000),
            ("10 m", 600_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(milliseconds), "{text}");
        }
        for text in ["", "50", "1.5s", "5M", "1s2", "ms"] {
            assert_eq!(parse_duration_ms(text), Err(UnitError::Duration), "{text}");
        }
        assert_eq!(
            parse_duration_ms("18446744073709551615s"),
            Err(UnitError::TooLarge)
        );
    }

    #[test]
    fn counts() {
        assert_eq!(parse_count("262_144"), Ok(262_144));
        assert_eq!(parse_count("4k"), Err(UnitError::Count));
        assert_eq!(
            parse_count("99999999999999999999"),
            Err(UnitError::TooLarge)
        );
    }

    #[test]
    fn what_is_printed_parses_to_the_same_number() {
        for bytes in [
            0,
            1,
            1_023,
            1_024,
            64 << 20,
            3 << 30,
            (1 << 40) + 1,
            1_000_000,
        ] {
            assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
        for milliseconds in [0, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000] {
            assert_eq!(
                parse_duration_ms(&format_duration_ms(milliseconds)),
                Ok(milliseconds)
            );
        }
        assert_eq!(format_bytes(64 << 20), "64MiB");
        assert_eq!(format_duration_ms(90_000), "90s");
    }
}
