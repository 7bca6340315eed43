//! Signed notes: text with signature lines below it (<https://c2sp.org/signed-note>).
//!
//! Parsing is strict and proves nothing; only [`Note::verify`] with a key you trust does. Signatures
//! by unknown keys are ignored, as the specification demands: a note may collect cosignatures from
//! anybody. A *known* key whose signature fails spoils the whole note.
//!
//! Keys are [`SigningKey`] and [`VerifierKey`]. Two kinds exist here, see [`KeyType`].

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cosignature;
use crate::key::check_name;

#[doc(no_inline)]
pub use crate::key::{KeyType, SigningKey, VerifierKey};

/// Longest note, in bytes.
pub const NOTE_LENGTH_MAX: usize = 64 * 1024;
/// Most signature lines of a note. The specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 128;

/// Why a note, a signature line or a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note is too long.
    #[error("note is {found} bytes long, at most 65536 are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A control character other than newline.
    #[error("note has the control character 0x{found:02x}, only newline is allowed")]
    ControlCharacter {
        /// The character.
        found: u8,
    },
    /// The signed text does not end in a newline.
    #[error("note text must end in a newline")]
    TextEnd,
    /// No empty line between text and signatures.
    #[error("note has no empty line between text and signatures")]
    NoSignatureBlock,
    /// A note without signatures.
    #[error("note has no signature line")]
    NoSignatures,
    /// Too many signatures.
    #[error("note has more than 128 signature lines")]
    TooManySignatures,
    /// A malformed signature line.
    #[error("signature line {line} must be an em dash, a key name and base64, one space apart")]
    SignatureLine {
        /// 1-based line within the signatures.
        line: usize,
    },
    /// A name that no key may have.
    #[error("key name must be 1 to 1024 bytes without spaces, control characters or +")]
    KeyName,
    /// Key text of another form.
    #[error("{form}")]
    KeyForm {
        /// The form expected.
        form: &'static str,
    },
    /// A kind of key this software does not know.
    #[error("unknown key type 0x{found:02x}, this software knows 0x01 and 0x04 (both Ed25519)")]
    UnknownKeyType {
        /// The type byte.
        found: u8,
    },
    /// The key id in the text does not belong to the key.
    #[error("key id {found:08x} does not belong to the key, which has {expected:08x}")]
    KeyId {
        /// The id in the text.
        found: u32,
        /// The id of the key.
        expected: u32,
    },
    /// The bytes are not a usable Ed25519 public key.
    #[error("key of {name} is not a usable Ed25519 public key")]
    BadKey {
        /// The key's name.
        name: String,
    },
    /// The key cannot make or check this kind of signature.
    #[error("key {name} has type 0x{found:02x}, type 0x{expected:02x} is needed here")]
    WrongKeyType {
        /// The key's name.
        name: String,
        /// Its type.
        found: u8,
        /// The type needed.
        expected: u8,
    },
    /// A known key's signature does not fit the text.
    #[error("signature of {name}+{key_id:08x} does not fit the text")]
    BadSignature {
        /// The key's name.
        name: String,
        /// The key's id.
        key_id: u32,
    },
    /// A cosignature time beyond what the format allows.
    #[error("cosignature time {found} s is beyond 2^63-1")]
    Timestamp {
        /// The time found.
        found: u64,
    },
}

/// One signature line of a note.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub key_id: u32,
    /// The signature without the key id.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// The line, with its newline.
    pub fn to_line(&self) -> String {
        let mut bytes = Vec::with_capacity(4 + self.bytes.len());
        bytes.extend_from_slice(&self.key_id.to_be_bytes());
        bytes.extend_from_slice(&self.bytes);
        let mut line = String::from("\u{2014} ");
        line.push_str(&self.name);
        line.push(' ');
        line.push_str(&STANDARD.encode(bytes));
        line.push('\n');
        line
    }

    /// Reads one signature line, with or without its newline.
    ///
    /// # Errors
    /// [`NoteError::SignatureLine`] for anything but what [`Signature::to_line`] writes,
    /// [`NoteError::KeyName`], [`NoteError::TooLong`].
    pub fn parse_line(line: &str) -> Result<Signature, NoteError> {
        if line.len() > NOTE_LENGTH_MAX {
            return Err(NoteError::TooLong { found: line.len() });
        }
        Signature::parse_numbered(line.strip_suffix('\n').unwrap_or(line), 1)
    }

    fn parse_numbered(text: &str, line: usize) -> Result<Signature, NoteError> {
        let malformed = || NoteError::SignatureLine { line };
        let rest = text.strip_prefix("\u{2014} ").ok_or_else(malformed)?;
        let (name, encoded) = rest.split_once(' ').ok_or_else(malformed)?;
        check_name(name)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| malformed())?;
        match decoded.split_first_chunk::<4>() {
            // A key id alone is no signature.
            Some((id, bytes)) if !bytes.is_empty() => Ok(Signature {
                name: name.to_string(),
                key_id: u32::from_be_bytes(*id),
                bytes: bytes.to_vec(),
            }),
            _ => Err(malformed()),
        }
    }

    /// Whether the line claims to be by this key.
    pub fn is_by(&self, key: &VerifierKey) -> bool {
        self.key_id == key.key_id() && self.name == key.name()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Signature({}+{:08x}, {} bytes)",
            self.name,
            self.key_id,
            self.bytes.len()
        )
    }
}

/// A text and its signature lines.
///
/// The fields are public for reading; a note built by hand is checked again when it is written and
/// parsed. Nothing in a note is true until [`Note::verify`] returned `true` for a trusted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The signed text, with its final newline.
    pub text: String,
    /// The signatures, in the order of their lines.
    pub signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// Anything but a note as the specification has it, within [`NOTE_LENGTH_MAX`] and
    /// [`SIGNATURES_MAX`].
    pub fn parse(note: &str) -> Result<Note, NoteError> {
        check_text(note)?;
        // The text may have empty lines of its own: the last one separates.
        let (text, lines) = note
            .rsplit_once("\n\n")
            .ok_or(NoteError::NoSignatureBlock)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        if lines.bytes().filter(|byte| *byte == b'\n').count() >= SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(at, line)| Signature::parse_numbered(line, at + 1))
            .collect::<Result<Vec<_>, _>>()?;
        let mut text = text.to_string();
        text.push('\n');
        Ok(Note { text, signatures })
    }

    /// The note as text: what [`Note::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut note = self.text.clone();
        note.push('\n');
        for signature in &self.signatures {
            note.push_str(&signature.to_line());
        }
        note
    }

    /// Checks the signatures that claim to be by `key`.
    ///
    /// `Ok(true)`: there is at least one and each fits the text. `Ok(false)`: there is none; other
    /// keys' lines are not looked at. For a key of [`KeyType::Cosignature`] this checks
    /// cosignatures; [`crate::cosignature::find`] also tells their time.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] if one of them does not fit: the note must be rejected whole.
    pub fn verify(&self, key: &VerifierKey) -> Result<bool, NoteError> {
        let mut found = false;
        for signature in self
            .signatures
            .iter()
            .filter(|signature| signature.is_by(key))
        {
            match key.key_type() {
                KeyType::Ed25519 => {
                    key.check(self.text.as_bytes(), &signature.bytes)?;
                }
                KeyType::Cosignature => {
                    cosignature::verify(&self.text, key, signature)?;
                }
            }
            found = true;
        }
        Ok(found)
    }

    /// Adds a signature, in place of an earlier one by the same key.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`], [`NoteError::KeyName`], [`NoteError::TooLong`]; the note
    /// stays as it was.
    pub fn add_signature(&mut self, signature: Signature) -> Result<(), NoteError> {
        check_name(&signature.name)?;
        let same =
            |other: &Signature| other.key_id == signature.key_id && other.name == signature.name;
        let place = self.signatures.iter().position(same);
        if place.is_none() && self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let found = self.to_text().len() + signature.to_line().len();
        if found > NOTE_LENGTH_MAX {
            return Err(NoteError::TooLong { found });
        }
        match place {
            Some(place) => self.signatures[place] = signature,
            None => self.signatures.push(signature),
        }
        Ok(())
    }
}

/// Signs a text with one or more keys of [`KeyType::Ed25519`].
///
/// # Errors
/// A text that [`Note::parse`] would refuse, no key at all, or a key of another type.
pub fn sign_note(text: &str, keys: &[&SigningKey]) -> Result<Note, NoteError> {
    check_text(text)?;
    if keys.is_empty() {
        return Err(NoteError::NoSignatures);
    }
    let mut note = Note {
        text: text.to_string(),
        signatures: Vec::with_capacity(keys.len()),
    };
    for key in keys {
        key.expect_type(KeyType::Ed25519)?;
        note.add_signature(key.signature(key.sign(text.as_bytes()).to_vec()))?;
    }
    Ok(note)
}

/// What holds for the text and for the note as a whole.
fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > NOTE_LENGTH_MAX {
        return Err(NoteError::TooLong { found: text.len() });
    }
    if let Some(found) = text.bytes().find(|byte| *byte < 0x20 && *byte != b'\n') {
        return Err(NoteError::ControlCharacter { found });
    }
    if !text.ends_with('\n') {
        return Err(NoteError::TextEnd);
    }
    Ok(())
}
