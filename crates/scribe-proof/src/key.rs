//! The keys of signed notes, and their text forms.
//!
//! A verifier key is `name+key id+base64(type, public key)`; a signing key is
//! `PRIVATE+KEY+name+key id+base64(type, seed)`, as Go's note package writes it. The key id is the
//! first four bytes of SHA-256 over name, newline, type and public key: an identifier, not a
//! safeguard.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;

use crate::hash::{hex_digit, sha256};
use crate::note::{NoteError, Signature};

/// Longest key name, in bytes.
pub const KEY_NAME_LENGTH_MAX: usize = 1024;

const VERIFIER_FORM: &str =
    "verifier key must be <name>+<8 lowercase hex digits>+<base64 of type and 32 bytes>";
const SIGNER_FORM: &str =
    "signing key must be PRIVATE+KEY+<name>+<8 lowercase hex digits>+<base64 of type and 32 bytes>";

/// What a key's signatures say. The numbers are the type bytes of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyType {
    /// Plain Ed25519 over the text: the ledger key.
    Ed25519 = 0x01,
    /// Timestamped Ed25519 cosignature: nodes and witnesses, see [`crate::cosignature`].
    Cosignature = 0x04,
}

impl KeyType {
    /// The type with this byte, if this software knows it.
    pub const fn from_byte(byte: u8) -> Option<KeyType> {
        match byte {
            0x01 => Some(KeyType::Ed25519),
            0x04 => Some(KeyType::Cosignature),
            _ => None,
        }
    }
}

/// A public key with its name: what you trust.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: u32,
    key_type: KeyType,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// The verifier key with these parts.
    ///
    /// # Errors
    /// [`NoteError::KeyName`], or [`NoteError::BadKey`] for bytes that are no point of the curve, a
    /// second encoding of one, or one of small order, for which everybody can sign.
    pub fn new(
        name: &str,
        key_type: KeyType,
        public_key: &[u8; 32],
    ) -> Result<VerifierKey, NoteError> {
        check_name(name)?;
        // Some points have a second encoding (RFC 8032, 5.1.3, refuses it); one key must not pass for
        // two, and other people's verifiers must not disagree about it.
        let canonical = |key: &ed25519_dalek::VerifyingKey| {
            key.to_edwards().compress().as_bytes() == public_key
        };
        match ed25519_dalek::VerifyingKey::from_bytes(public_key) {
            Ok(key) if !key.is_weak() && canonical(&key) => Ok(VerifierKey {
                name: name.to_string(),
                key_id: key_id(name, key_type, public_key),
                key_type,
                key,
            }),
            _ => Err(NoteError::BadKey {
                name: name.to_string(),
            }),
        }
    }

    /// Reads `name+key id+base64(type, public key)`.
    ///
    /// # Errors
    /// [`NoteError::KeyForm`], [`NoteError::UnknownKeyType`], [`NoteError::KeyId`] if the id does
    /// not belong to the key, [`NoteError::BadKey`], [`NoteError::KeyName`].
    pub fn parse(text: &str) -> Result<VerifierKey, NoteError> {
        let (name, found, key_type, bytes) = parse_key(text, VERIFIER_FORM)?;
        let key = VerifierKey::new(name, key_type, &bytes)?;
        key.expect_id(found)?;
        Ok(key)
    }

    /// The name: for a ledger key the origin of its checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id, which with the name picks this key's signature lines.
    pub const fn key_id(&self) -> u32 {
        self.key_id
    }

    /// What signatures by this key say.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The 32 bytes of the Ed25519 public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The text form: what [`VerifierKey::parse`] reads.
    pub fn to_text(&self) -> String {
        format!(
            "{}+{:08x}+{}",
            self.name,
            self.key_id,
            encode_key(self.key_type, &self.public_key())
        )
    }

    /// Checks a bare 64-byte Ed25519 signature over `message`.
    ///
    /// Strict: points of small order are refused, so no signature fits two messages.
    pub(crate) fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        let bad = |_| NoteError::BadSignature {
            name: self.name.clone(),
            key_id: self.key_id,
        };
        let signature = ed25519_dalek::Signature::from_slice(signature).map_err(bad)?;
        self.key.verify_strict(message, &signature).map_err(bad)
    }

    pub(crate) fn expect_type(&self, expected: KeyType) -> Result<(), NoteError> {
        expect_type(&self.name, self.key_type, expected)
    }

    fn expect_id(&self, found: u32) -> Result<(), NoteError> {
        if found != self.key_id {
            return Err(NoteError::KeyId {
                found,
                expected: self.key_id,
            });
        }
        Ok(())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl core::str::FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<VerifierKey, NoteError> {
        VerifierKey::parse(text)
    }
}

/// A private key with its name: what signs. The secret is wiped when it is dropped.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The [`KeyType::Ed25519`] key with this seed, for a ledger.
    ///
    /// The seed must come from a cryptographic random source; the caller wipes its own copy.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<SigningKey, NoteError> {
        SigningKey::from_seed_typed(name, KeyType::Ed25519, seed)
    }

    /// The [`KeyType::Cosignature`] key with this seed, for a node or witness.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn cosigner_from_seed(name: &str, seed: &[u8; 32]) -> Result<SigningKey, NoteError> {
        SigningKey::from_seed_typed(name, KeyType::Cosignature, seed)
    }

    /// The key of this type with this seed.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn from_seed_typed(
        name: &str,
        key_type: KeyType,
        seed: &[u8; 32],
    ) -> Result<SigningKey, NoteError> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, key_type, &key.verifying_key().to_bytes())?;
        Ok(SigningKey { key, verifier })
    }

    /// Reads `PRIVATE+KEY+name+key id+base64(type, seed)`.
    ///
    /// # Errors
    /// As [`VerifierKey::parse`]. No error repeats any of the text.
    pub fn parse(text: &str) -> Result<SigningKey, NoteError> {
        let rest = text
            .strip_prefix("PRIVATE+KEY+")
            .ok_or(NoteError::KeyForm { form: SIGNER_FORM })?;
        let (name, found, key_type, seed) = parse_key(rest, SIGNER_FORM)?;
        let key = SigningKey::from_seed_typed(name, key_type, &seed)?;
        key.verifier.expect_id(found)?;
        Ok(key)
    }

    /// The public half.
    pub const fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// The text form: what [`SigningKey::parse`] reads. It *is* the secret; the caller guards it.
    pub fn to_text(&self) -> String {
        let VerifierKey {
            name,
            key_id,
            key_type,
            ..
        } = &self.verifier;
        format!(
            "PRIVATE+KEY+{name}+{key_id:08x}+{}",
            encode_key(*key_type, self.key.as_bytes())
        )
    }

    /// A bare 64-byte Ed25519 signature over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The signature line's content for signature bytes made with this key.
    pub(crate) fn signature(&self, bytes: Vec<u8>) -> Signature {
        Signature {
            name: self.name().to_string(),
            key_id: self.verifier.key_id,
            bytes,
        }
    }

    pub(crate) fn expect_type(&self, expected: KeyType) -> Result<(), NoteError> {
        self.verifier.expect_type(expected)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, secret redacted)", self.verifier)
    }
}

/// Refuses what the specification forbids in key names, and names of unreasonable length.
pub(crate) fn check_name(name: &str) -> Result<(), NoteError> {
    let forbidden = |c: char| c.is_whitespace() || c == '+' || c.is_control();
    if name.is_empty() || name.len() > KEY_NAME_LENGTH_MAX || name.contains(forbidden) {
        return Err(NoteError::KeyName);
    }
    Ok(())
}

fn key_id(name: &str, key_type: KeyType, public_key: &[u8; 32]) -> u32 {
    let mut bytes = Vec::with_capacity(name.len() + 34);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.push(key_type as u8);
    bytes.extend_from_slice(public_key);
    let [a, b, c, d, ..] = sha256(&bytes).0;
    u32::from_be_bytes([a, b, c, d])
}

fn encode_key(key_type: KeyType, key: &[u8; 32]) -> String {
    let mut bytes = [0; 33];
    bytes[0] = key_type as u8;
    bytes[1..].copy_from_slice(key);
    STANDARD.encode(bytes)
}

/// Splits `name+hash+base64`. Names have no `+`, base64 may.
fn parse_key<'a>(
    text: &'a str,
    form: &'static str,
) -> Result<(&'a str, u32, KeyType, [u8; 32]), NoteError> {
    let malformed = || NoteError::KeyForm { form };
    let (name, rest) = text.split_once('+').ok_or_else(malformed)?;
    let (id, encoded) = rest.split_once('+').ok_or_else(malformed)?;
    check_name(name)?;
    if id.len() != 8 {
        return Err(malformed());
    }
    let mut key_id = 0_u32;
    for digit in id.bytes() {
        key_id = key_id << 4 | u32::from(hex_digit(digit).ok_or_else(malformed)?);
    }
    // Long keys belong to other algorithms; 4 KiB of base64 holds any that is specified.
    if encoded.len() > 4096 {
        return Err(malformed());
    }
    let decoded = STANDARD.decode(encoded).map_err(|_| malformed())?;
    let (type_byte, bytes) = decoded.split_first().ok_or_else(malformed)?;
    let key_type =
        KeyType::from_byte(*type_byte).ok_or(NoteError::UnknownKeyType { found: *type_byte })?;
    Ok((
        name,
        key_id,
        key_type,
        bytes.try_into().map_err(|_| malformed())?,
    ))
}

fn expect_type(name: &str, found: KeyType, expected: KeyType) -> Result<(), NoteError> {
    if found != expected {
        return Err(NoteError::WrongKeyType {
            name: name.to_string(),
            found: found as u8,
            expected: expected as u8,
        });
    }
    Ok(())
}
