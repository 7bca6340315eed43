//! Checkpoints: the ledger's name, its tree size and root hash, as signed text
//! (<https://c2sp.org/tlog-checkpoint>).
//!
//! [`Checkpoint`] is the text alone, [`SignedCheckpoint`] the note around it. Neither is to be
//! believed before [`SignedCheckpoint::verify`] or [`crate::Policy::evaluate`] said so.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::hash::{Hash, HashError, empty_root};
use crate::index::{TreeSize, parse_decimal};
use crate::key::{KeyType, SigningKey, VerifierKey};
use crate::note::{NOTE_LENGTH_MAX, Note, NoteError, sign_note};

/// What a ledger says about itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name: one non-empty line.
    pub origin: String,
    /// How many leaves.
    pub size: TreeSize,
    /// The root hash over them; SHA-256 of nothing if there are none.
    pub root: Hash,
    /// Further lines, not empty. Not recommended: cosigners do not vouch for them.
    pub extensions: Vec<String>,
}

/// Why a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Longer than a note may be.
    #[error("checkpoint is {found} bytes long, at most 65536 are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// The text does not end in a newline.
    #[error("checkpoint must end in a newline")]
    End,
    /// Fewer than three lines.
    #[error("checkpoint has {found} lines, it needs an origin, a tree size and a root hash")]
    Lines {
        /// Lines found.
        found: usize,
    },
    /// Origin empty or with control characters.
    #[error("origin must be one line that is not empty and has no control characters")]
    Origin,
    /// Tree size not a canonical decimal number.
    #[error("tree size must be a decimal number below 2^64 without leading zeros")]
    Size,
    /// Root hash not canonical base64 of 32 bytes.
    #[error("root hash is malformed: {0}")]
    Root(#[from] HashError),
    /// The tree size is 0 and the root hash is not that of the empty tree.
    #[error("root hash of a tree without leaves must be SHA-256 of nothing, found {found}")]
    EmptyRoot {
        /// The root hash found.
        found: Hash,
    },
    /// An extension line that is empty or not one line.
    #[error("extension line {line} must be one line that is not empty")]
    Extension {
        /// 1-based, counting extension lines only.
        line: usize,
    },
    /// The note around it is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint is of another ledger than the key.
    #[error("checkpoint is of origin {found:?}, the key is for {expected:?}")]
    OtherOrigin {
        /// The origin found.
        found: String,
        /// The key's name.
        expected: String,
    },
    /// The ledger's key did not sign it.
    #[error("checkpoint is not signed by {name}+{key_id:08x}")]
    NotSigned {
        /// The key's name.
        name: String,
        /// The key's id.
        key_id: u32,
    },
}

impl Checkpoint {
    /// A checkpoint without extension lines.
    pub fn new(origin: impl Into<String>, size: TreeSize, root: Hash) -> Checkpoint {
        Checkpoint {
            origin: origin.into(),
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// The text to be signed, with its final newline.
    ///
    /// Not checked: [`SignedCheckpoint::sign`] and [`Checkpoint::parse`] refuse an origin or
    /// extension that is not one line.
    pub fn to_text(&self) -> String {
        let size = self.size.to_string();
        let root = self.root.to_base64();
        let mut text = String::with_capacity(self.origin.len() + size.len() + root.len() + 3);
        let lines = [self.origin.as_str(), &size, &root].into_iter();
        for line in lines.chain(self.extensions.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Reads the text of a checkpoint.
    ///
    /// # Errors
    /// Anything but what [`Checkpoint::to_text`] writes for a well-formed checkpoint.
    pub fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        if text.len() > NOTE_LENGTH_MAX {
            return Err(CheckpointError::TooLong { found: text.len() });
        }
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::End)?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines {
                found: text.matches('\n').count(),
            });
        };
        let checkpoint = Checkpoint {
            origin: origin.to_string(),
            size: TreeSize::new(parse_decimal(size).ok_or(CheckpointError::Size)?),
            root: Hash::from_base64(root)?,
            extensions: lines.map(String::from).collect(),
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let is_line = |line: &str| !line.is_empty() && !line.chars().any(|c| c < ' ');
        if !is_line(&self.origin) {
            return Err(CheckpointError::Origin);
        }
        if let Some(at) = self.extensions.iter().position(|line| !is_line(line)) {
            return Err(CheckpointError::Extension { line: at + 1 });
        }
        if self.size.is_empty() && self.root != empty_root() {
            return Err(CheckpointError::EmptyRoot { found: self.root });
        }
        Ok(())
    }
}

/// A checkpoint with the note that carries its signatures.
///
/// Invariant: the checkpoint is what the note's text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Reads a signed checkpoint. No signature is checked here.
    ///
    /// # Errors
    /// What [`Note::parse`] or [`Checkpoint::parse`] refuses.
    pub fn parse(note: &str) -> Result<SignedCheckpoint, CheckpointError> {
        SignedCheckpoint::from_note(Note::parse(note)?)
    }

    /// Reads the checkpoint inside a note. No signature is checked here.
    ///
    /// # Errors
    /// What [`Checkpoint::parse`] refuses.
    pub fn from_note(note: Note) -> Result<SignedCheckpoint, CheckpointError> {
        let checkpoint = Checkpoint::parse(&note.text)?;
        Ok(SignedCheckpoint { note, checkpoint })
    }

    /// Signs a checkpoint with the ledger's keys (two of them while a key is being replaced).
    ///
    /// A ledger must never sign two checkpoints that are not consistent; making sure is the
    /// caller's business.
    ///
    /// # Errors
    /// A malformed checkpoint; a key whose name is not the origin
    /// ([`CheckpointError::OtherOrigin`]); what [`sign_note`] refuses.
    pub fn sign(
        checkpoint: Checkpoint,
        keys: &[&SigningKey],
    ) -> Result<SignedCheckpoint, CheckpointError> {
        checkpoint.check()?;
        if let Some(key) = keys.iter().find(|key| key.name() != checkpoint.origin) {
            return Err(CheckpointError::OtherOrigin {
                found: checkpoint.origin.clone(),
                expected: key.name().to_string(),
            });
        }
        let note = sign_note(&checkpoint.to_text(), keys)?;
        Ok(SignedCheckpoint { note, checkpoint })
    }

    /// Checks that the ledger with this key signed the checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::OtherOrigin`] if the key's name is not the origin,
    /// [`CheckpointError::NotSigned`] if the key did not sign,
    /// [`CheckpointError::Note`] if its signature does not fit or the key cannot sign checkpoints.
    pub fn verify(&self, key: &VerifierKey) -> Result<&Checkpoint, CheckpointError> {
        key.expect_type(KeyType::Ed25519)?;
        if key.name() != self.checkpoint.origin {
            return Err(CheckpointError::OtherOrigin {
                found: self.checkpoint.origin.clone(),
                expected: key.name().to_string(),
            });
        }
        if !self.note.verify(key)? {
            return Err(CheckpointError::NotSigned {
                name: key.name().to_string(),
                key_id: key.key_id(),
            });
        }
        Ok(&self.checkpoint)
    }

    /// The checkpoint, not to be believed before it is verified.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note around it.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a signature or cosignature, in place of an earlier one by the same key.
    ///
    /// # Errors
    /// As [`Note::add_signature`].
    pub fn add_signature(&mut self, signature: crate::note::Signature) -> Result<(), NoteError> {
        self.note.add_signature(signature)
    }

    /// The note as text: what [`SignedCheckpoint::parse`] reads.
    pub fn to_text(&self) -> String {
        self.note.to_text()
    }
}
