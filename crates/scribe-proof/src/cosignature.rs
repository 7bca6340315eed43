//! Cosignatures: somebody else saw this checkpoint (<https://c2sp.org/tlog-cosignature>, v1).
//!
//! A cosignature says: at that second, this was the largest tree of that ledger the cosigner had
//! seen, and it extends every one it saw before. The signed message does not name the cosigner, so
//! a cosigner uses one key per identity.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::key::{KeyType, SigningKey, VerifierKey};
use crate::note::{Note, NoteError, Signature};

/// The time must be below this many seconds.
const TIMESTAMP_S_END: u64 = 1 << 63;

/// Cosigns the text of a checkpoint (with its final newline) at `timestamp_s`, seconds since 1970.
///
/// The caller has checked that the checkpoint extends what it saw before.
///
/// # Errors
/// [`NoteError::WrongKeyType`] if `key` is not a [`KeyType::Cosignature`] key,
/// [`NoteError::Timestamp`].
pub fn sign(text: &str, key: &SigningKey, timestamp_s: u64) -> Result<Signature, NoteError> {
    key.expect_type(KeyType::Cosignature)?;
    let message = message(text, timestamp_s)?;
    let mut bytes = Vec::with_capacity(72);
    bytes.extend_from_slice(&timestamp_s.to_be_bytes());
    bytes.extend_from_slice(&key.sign(message.as_bytes()));
    Ok(key.signature(bytes))
}

/// Checks one cosignature over the text of a checkpoint and returns its time, in seconds since 1970.
///
/// Whether that time is plausible is for the caller to judge: this crate has no clock.
///
/// # Errors
/// [`NoteError::WrongKeyType`], [`NoteError::Timestamp`], or [`NoteError::BadSignature`] if the
/// signature is by another key or does not fit.
pub fn verify(text: &str, key: &VerifierKey, signature: &Signature) -> Result<u64, NoteError> {
    key.expect_type(KeyType::Cosignature)?;
    let bad = || NoteError::BadSignature {
        name: key.name().into(),
        key_id: key.key_id(),
    };
    if !signature.is_by(key) {
        return Err(bad());
    }
    let (timestamp, bytes) = signature.bytes.split_first_chunk::<8>().ok_or_else(bad)?;
    let timestamp_s = u64::from_be_bytes(*timestamp);
    key.check(message(text, timestamp_s)?.as_bytes(), bytes)?;
    Ok(timestamp_s)
}

/// Finds and checks the cosignatures by `key` on a note and returns the latest time, or `None`.
///
/// # Errors
/// As [`verify`], if one of them does not fit.
pub fn find(note: &Note, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
    let mut latest = None;
    for signature in note
        .signatures
        .iter()
        .filter(|signature| signature.is_by(key))
    {
        latest = latest.max(Some(verify(&note.text, key, signature)?));
    }
    Ok(latest)
}

fn message(text: &str, timestamp_s: u64) -> Result<String, NoteError> {
    if timestamp_s >= TIMESTAMP_S_END {
        return Err(NoteError::Timestamp { found: timestamp_s });
    }
    Ok(format!("cosignature/v1\ntime {timestamp_s}\n{text}"))
}
