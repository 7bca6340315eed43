//! The ledger's key is replaced: what the old and the new key say together, and which keys sign when.
//!
//! A rotation is a signed note, the body of a system leaf, signed by both keys:
//!
//! ```text
//! scribe-ledger/key-rotation/v1
//! example.com/ledger                     origin
//! example.com/ledger+3481d542+AYqI...    old verifier key
//! example.com/ledger+9f3c1a07+AbZ4...    new verifier key
//! 70212                                  leaf index the note is written at
//!
//! — example.com/ledger ...               by the old key
//! — example.com/ledger ...               by the new key
//! ```
//!
//! A valid note alone says that the holders of both keys agreed once. That the key *was* replaced is
//! said by the ledger: the note must be the body of the leaf at the index it names, and that leaf
//! proved included. [`LedgerKeys`] follows the leaves of one ledger in order.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::index::{LeafIndex, parse_decimal};
use crate::key::{KeyType, SigningKey, VerifierKey};
use crate::note::{Note, NoteError, sign_note};

/// First line of a rotation's text.
pub const ROTATION_HEADER: &str = "scribe-ledger/key-rotation/v1";
/// How long a replaced key goes on signing beside its successor, in milliseconds of ledger time: 30
/// days, so that whoever trusts the old key has time to learn of the new one.
pub const ROTATION_OVERLAP_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Longest rotation note, in bytes: three names of the greatest length, and what stands around them.
pub const ROTATION_LENGTH_MAX: usize = 8 * 1024;

/// Why a rotation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The note is too long.
    #[error("rotation is {found} bytes long, at most 8192 are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// The text has other lines.
    #[error("rotation line {line} must be {expected}")]
    Line {
        /// 1-based line.
        line: usize,
        /// What the format has there.
        expected: &'static str,
    },
    /// The note, a key or a signature is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A key is named after another ledger.
    #[error("rotation of origin {origin:?} has a key named {found:?}")]
    KeyName {
        /// The origin.
        origin: String,
        /// The name found.
        found: String,
    },
    /// Both keys are the same.
    #[error("rotation replaces a key by itself")]
    SameKey,
    /// Not exactly the signatures of the old and the new key, in this order.
    #[error("rotation must be signed by the old key, then the new one, and nobody else")]
    Signatures,
    /// The note was made for another place of the ledger.
    #[error("rotation is for leaf index {expected}, it was found at {found}")]
    Index {
        /// The index in the note.
        expected: LeafIndex,
        /// Where it was found.
        found: LeafIndex,
    },
    /// The old key is not the one in use.
    #[error("rotation replaces {old}, the newest key of the ledger is another")]
    NotNewest {
        /// The old key of the note.
        old: String,
    },
    /// The new key was in use before: a key never comes back.
    #[error("rotation brings back {new}, which was in use before")]
    UsedBefore {
        /// The new key of the note.
        new: String,
    },
}

/// A replaced ledger key, signed by both keys.
///
/// Invariants: both keys are [`KeyType::Ed25519`] keys named after the origin and differ; the note is
/// canonical and both signatures fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    old: VerifierKey,
    new: VerifierKey,
    index: LeafIndex,
    note: Note,
}

impl Rotation {
    /// Signs that `new` replaces `old` by the leaf at `index`.
    ///
    /// # Errors
    /// Keys of another type, of two names, or the same key twice.
    pub fn sign(
        old: &SigningKey,
        new: &SigningKey,
        index: LeafIndex,
    ) -> Result<Rotation, RotationError> {
        let (old_key, new_key) = (old.verifier_key(), new.verifier_key());
        check_keys(old.name(), old_key, new_key)?;
        let text = text_of(old_key, new_key, index);
        Ok(Rotation {
            old: old_key.clone(),
            new: new_key.clone(),
            index,
            note: sign_note(&text, &[old, new])?,
        })
    }

    /// Reads a rotation note and checks both signatures.
    ///
    /// # Errors
    /// Anything but what [`Rotation::to_text`] writes.
    pub fn parse(note: &str) -> Result<Rotation, RotationError> {
        if note.len() > ROTATION_LENGTH_MAX {
            return Err(RotationError::TooLong { found: note.len() });
        }
        let note = Note::parse(note)?;
        let wrong = |line, expected| RotationError::Line { line, expected };
        let mut lines = note.text.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        if next() != ROTATION_HEADER {
            return Err(wrong(1, ROTATION_HEADER));
        }
        let (origin, old, new, index) = (next(), next(), next(), next());
        let index = parse_decimal(index).ok_or(wrong(
            5,
            "a leaf index, a decimal number without leading zeros",
        ))?;
        if !next().is_empty() || lines.next().is_some() {
            return Err(wrong(6, "the empty line before the signatures"));
        }
        let (old, new) = (VerifierKey::parse(old)?, VerifierKey::parse(new)?);
        check_keys(origin, &old, &new)?;
        let index = LeafIndex::new(index);
        // Base64 and hexadecimal digits have one form each, but that is for the key parser to know.
        if text_of(&old, &new, index) != note.text {
            return Err(wrong(3, "the canonical text of a verifier key"));
        }
        let [by_old, by_new] = note.signatures.as_slice() else {
            return Err(RotationError::Signatures);
        };
        for (signature, key) in [(by_old, &old), (by_new, &new)] {
            if !signature.is_by(key) {
                return Err(RotationError::Signatures);
            }
            // The line is there, so this finds it and checks it.
            note.verify(key)?;
        }
        Ok(Rotation {
            old,
            new,
            index,
            note,
        })
    }

    /// The key that was in use.
    pub const fn old(&self) -> &VerifierKey {
        &self.old
    }

    /// The key that takes its place.
    pub const fn new_key(&self) -> &VerifierKey {
        &self.new
    }

    /// The leaf index the note is written at.
    pub const fn index(&self) -> LeafIndex {
        self.index
    }

    /// The ledger's name.
    pub fn origin(&self) -> &str {
        self.old.name()
    }

    /// The note as text: the body of the leaf, and what [`Rotation::parse`] reads.
    pub fn to_text(&self) -> String {
        self.note.to_text()
    }
}

fn text_of(old: &VerifierKey, new: &VerifierKey, index: LeafIndex) -> String {
    format!("{ROTATION_HEADER}\n{}\n{old}\n{new}\n{index}\n", old.name())
}

fn check_keys(origin: &str, old: &VerifierKey, new: &VerifierKey) -> Result<(), RotationError> {
    for key in [old, new] {
        key.expect_type(KeyType::Ed25519)?;
        if key.name() != origin {
            return Err(RotationError::KeyName {
                origin: origin.to_string(),
                found: key.name().to_string(),
            });
        }
    }
    if old.public_key() == new.public_key() {
        return Err(RotationError::SameKey);
    }
    Ok(())
}

/// The keys of one ledger since it was begun or restored, as its leaves name them in order.
///
/// It holds nothing secret and decides nothing about trust: it says which keys the ledger itself signs
/// with at a moment of ledger time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKeys {
    /// Oldest first, each with the time of the leaf that replaced it. Never empty.
    replaced: Vec<(VerifierKey, u64)>,
    newest: VerifierKey,
    rotations: Vec<Rotation>,
}

impl LedgerKeys {
    /// A ledger that begins with this key.
    pub const fn begin(key: VerifierKey) -> LedgerKeys {
        LedgerKeys {
            replaced: Vec::new(),
            newest: key,
            rotations: Vec::new(),
        }
    }

    /// Takes in the rotation found in the leaf at `index`, of time `timestamp_ms`.
    ///
    /// # Errors
    /// A rotation for another place, of another key than the newest, or to one that was in use before;
    /// nothing changes then.
    pub fn rotate(
        &mut self,
        rotation: Rotation,
        index: LeafIndex,
        timestamp_ms: u64,
    ) -> Result<(), RotationError> {
        if rotation.index != index {
            return Err(RotationError::Index {
                expected: rotation.index,
                found: index,
            });
        }
        if rotation.old != self.newest {
            return Err(RotationError::NotNewest {
                old: rotation.old.to_text(),
            });
        }
        if self.names(&rotation.new) {
            return Err(RotationError::UsedBefore {
                new: rotation.new.to_text(),
            });
        }
        let old = core::mem::replace(&mut self.newest, rotation.new.clone());
        self.replaced.push((old, timestamp_ms));
        self.rotations.push(rotation);
        Ok(())
    }

    /// The key in use.
    pub const fn newest(&self) -> &VerifierKey {
        &self.newest
    }

    /// The keys that sign at this ledger time (the timestamp of the newest leaf): the newest first, then
    /// those replaced less than [`ROTATION_OVERLAP_MS`] ago, the latest first.
    pub fn signing(&self, ledger_time_ms: u64) -> Vec<&VerifierKey> {
        let overlapping = self
            .replaced
            .iter()
            .rev()
            .filter(|(_, at)| ledger_time_ms < at.saturating_add(ROTATION_OVERLAP_MS))
            .map(|(key, _)| key);
        core::iter::once(&self.newest).chain(overlapping).collect()
    }

    /// Every key the ledger ever signed with, the newest first.
    pub fn all(&self) -> impl Iterator<Item = &VerifierKey> {
        let replaced = self.replaced.iter().rev().map(|(key, _)| key);
        core::iter::once(&self.newest).chain(replaced)
    }

    /// Whether the ledger ever signed with this key.
    pub fn names(&self, key: &VerifierKey) -> bool {
        self.all().any(|known| known == key)
    }

    /// The rotations, oldest first.
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }
}
