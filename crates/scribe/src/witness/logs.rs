//! The logs a witness follows: an origin, and the keys it trusts to sign for it.

use std::collections::BTreeMap;

use scribe_proof::hash::sha256;
use scribe_proof::key::{KeyType, VerifierKey};

use crate::limits;

/// A log that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedLog {
    /// The first line of its checkpoints.
    pub origin: String,
    /// Keys whose signature counts, at least one; two while the log replaces its key.
    pub keys: Vec<VerifierKey>,
}

impl FollowedLog {
    /// Lowercase hex of SHA-256 of the origin: the log's name in paths.
    pub fn id(&self) -> String {
        sha256(self.origin.as_bytes()).to_hex()
    }
}

/// Reads lines of `<verifier key> [<origin>]`; the origin is the key's name unless it is given. Empty lines and lines
/// that begin with `#` say nothing. Several keys of one origin are one log.
///
/// # Errors
/// The first line that breaks a rule, too many logs, or none at all.
pub fn parse_logs<'a>(
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<FollowedLog>, String> {
    let mut logs: BTreeMap<String, Vec<VerifierKey>> = BTreeMap::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, origin) = match line.split_once(char::is_whitespace) {
            Some((key, origin)) => (key, Some(origin.trim())),
            None => (line, None),
        };
        let key = VerifierKey::parse(key).map_err(|error| {
            format!("a log is `<verifier key> [<origin>]`, found `{line}`: {error}")
        })?;
        if key.key_type() != KeyType::Ed25519 {
            return Err(format!(
                "a log signs with a key of type 0x01, `{}` has type 0x{:02x}",
                key.name(),
                key.key_type() as u8
            ));
        }
        let origin = origin.unwrap_or_else(|| key.name()).to_owned();
        if origin.chars().any(char::is_control) {
            return Err(format!(
                "an origin has no control characters, found {origin:?}"
            ));
        }
        let keys = logs.entry(origin).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
        if keys.len() > limits::WITNESS_KEYS_PER_LOG_MAX {
            return Err(format!(
                "a log has at most {} keys, found more for `{}`",
                limits::WITNESS_KEYS_PER_LOG_MAX,
                keys[0].name()
            ));
        }
    }
    if logs.is_empty() {
        return Err("a witness needs at least one log to follow, found none".to_owned());
    }
    if logs.len() > limits::WITNESS_LOGS_MAX {
        return Err(format!(
            "a witness follows at most {} logs, found {}",
            limits::WITNESS_LOGS_MAX,
            logs.len()
        ));
    }
    Ok(logs
        .into_iter()
        .map(|(origin, keys)| FollowedLog { origin, keys })
        .collect())
}

#[cfg(test)]
mod tests {
    use scribe_proof::key::SigningKey;

    use super::*;

    fn vkey(name: &str, seed: u8) -> String {
        let key = SigningKey::from_seed(name, &[seed; 32]).unwrap();
        key.verifier_key().to_text()
    }

    #[test]
    fn a_line_is_a_key_and_perhaps_another_origin() {
        let lines = [
            "# what we follow".to_owned(),
            String::new(),
            vkey("example.com/a", 1),
            format!("  {}  an origin - 42 ", vkey("example.com/b", 2)),
            vkey("example.com/a", 3),
            vkey("example.com/a", 1),
        ];
        let logs = parse_logs(lines.iter().map(String::as_str)).unwrap();
        let found: Vec<_> = logs
            .iter()
            .map(|log| (log.origin.as_str(), log.keys.len()))
            .collect();
        assert_eq!(found, [("an origin - 42", 1), ("example.com/a", 2)]);
        assert_eq!(
            logs[1].id(),
            sha256(b"example.com/a").to_hex(),
            "hex of the origin's hash"
        );
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let cosigner = SigningKey::cosigner_from_seed("example.com/w", &[1; 32]).unwrap();
        let cosigner = cosigner.verifier_key().to_text();
        let damaged = vkey("example.com/a", 1).replace("+0", "+1");
        for (lines, expected) in [
            (vec![], "at least one log"),
            (vec!["# none"], "at least one log"),
            (
                vec!["example.com/a"],
                "a log is `<verifier key> [<origin>]`",
            ),
            (vec![cosigner.as_str()], "type 0x04"),
            (vec![damaged.as_str(), "x+y"], "a log is"),
        ] {
            let error = parse_logs(lines.iter().copied()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<String> = (0..=u8::try_from(limits::WITNESS_KEYS_PER_LOG_MAX).unwrap())
            .map(|seed| vkey("example.com/a", seed))
            .collect();
        let error = parse_logs(many.iter().map(String::as_str)).unwrap_err();
        assert!(error.contains("at most"), "{error}");
    }
}
