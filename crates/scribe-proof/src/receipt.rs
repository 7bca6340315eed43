//! Receipts: what a user keeps to prove, offline, that an entry is in the ledger
//! (<https://c2sp.org/tlog-proof>).
//!
//! A receipt carries a leaf, its inclusion proof and a signed checkpoint, and usually the *opening*
//! of the leaf's commitment (salt and metadata). The value stays outside, in the user's own file. A
//! receipt without opening is *redacted*: it proves that the key had an entry, not which value.
//!
//! A receipt proves that this version is in the ledger. It does not prove that it is the latest
//! version, nor that anything is absent; hence [`Included`], not "verified".

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::commitment::{CommitmentHasher, METADATA_LENGTH_MAX, Metadata, SALT_LENGTH, commitment};
use crate::error::ProofError;
use crate::hash::{Hash, leaf_hash};
use crate::inclusion;
use crate::index::{LeafIndex, TreeSize, parse_decimal};
use crate::leaf::{Cursor, LEAF_LENGTH_MAX, Leaf, LeafError, LeafKind, Prev, SystemKind};
use crate::note::NOTE_LENGTH_MAX;
use crate::policy::{Cosigner, PolicyError, PolicyReport, Trust};

/// Longest receipt, in bytes.
pub const RECEIPT_LENGTH_MAX: usize = 128 * 1024;
/// Most hashes in a receipt's proof.
pub const RECEIPT_PROOF_MAX: usize = 64;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
const EXTRA_VERSION: u8 = 1;
const EXTRA_LENGTH_MAX: usize = 3 + LEAF_LENGTH_MAX + SALT_LENGTH + 2 + METADATA_LENGTH_MAX;

/// What opens a leaf's commitment, together with the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The salt.
    pub salt: [u8; SALT_LENGTH],
    /// The encoded metadata, see [`Metadata::encode`].
    pub metadata: Vec<u8>,
}

/// An entry's leaf with the proof that it is in the ledger. Nothing in it is true before
/// [`Receipt::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The leaf's canonical bytes.
    pub leaf: Vec<u8>,
    /// Salt and metadata; `None` in a redacted receipt, and for system leaves.
    pub opening: Option<Opening>,
    /// Where the leaf is said to be.
    pub index: LeafIndex,
    /// The inclusion proof, nearest the leaf first.
    pub proof: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub checkpoint_note: String,
}

/// Why a receipt is refused. Each variant names the one thing that does not match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The text is too long.
    #[error("receipt is {found} bytes long, at most 131072 are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A line is not what the format has there.
    #[error("receipt line {line} must be {expected}")]
    Line {
        /// 1-based line.
        line: usize,
        /// What the format has there.
        expected: &'static str,
    },
    /// The `extra` line does not hold a leaf, or a leaf and an opening.
    #[error("receipt extra data is malformed: {0}")]
    Extra(LeafError),
    /// The `extra` data has another version.
    #[error("receipt extra data has version {found}, this software knows version 1")]
    ExtraVersion {
        /// The version found.
        found: u8,
    },
    /// The leaf breaks a rule of the format.
    #[error("leaf does not match the format: {0}")]
    Leaf(LeafError),
    /// Leaf, inclusion proof and signatures hold, but the leaf is of a later format.
    #[error("leaf is included but not understood: {0}; hint: newer software may read it")]
    NotUnderstood(LeafError),
    /// The metadata breaks a rule of the format.
    #[error("metadata does not match the format: {0}")]
    Metadata(LeafError),
    /// A leaf without commitment cannot have an opening.
    #[error("a system leaf has no commitment, the receipt must not have an opening")]
    OpeningNotAllowed,
    /// The inclusion proof does not lead from the leaf to the checkpoint's root hash.
    #[error("inclusion does not match: {0}")]
    Inclusion(#[from] ProofError),
    /// The checkpoint is malformed.
    #[error("checkpoint does not match the format: {0}")]
    Checkpoint(CheckpointError),
    /// The checkpoint is of another ledger.
    #[error("origin does not match: {0}")]
    Origin(PolicyError),
    /// A signature is missing or does not fit.
    #[error("signature does not match: {0}")]
    Signature(PolicyError),
    /// The entry has another key.
    #[error("entry key does not match: the receipt is for another key")]
    EntryKey,
    /// The value, or salt or metadata, are not what the leaf commits to.
    #[error("value does not match: it hashes to commitment {computed}, the leaf has {expected}")]
    Value {
        /// The commitment to what was given.
        computed: Hash,
        /// The leaf's commitment.
        expected: Hash,
    },
    /// The receipt has no opening, so no value can be checked.
    #[error("value cannot be checked: the receipt is redacted, it proves existence only")]
    Redacted,
}

impl Receipt {
    /// Reads a receipt. Every part is parsed, nothing is verified.
    ///
    /// # Errors
    /// Anything but the canonical text; a leaf or checkpoint that is malformed. A leaf of a later
    /// format is let through, for [`Receipt::verify`] to refuse with
    /// [`ReceiptError::NotUnderstood`].
    pub fn parse(text: &str) -> Result<Receipt, ReceiptError> {
        if text.len() > RECEIPT_LENGTH_MAX {
            return Err(ReceiptError::TooLong { found: text.len() });
        }
        let (head, note) = text.split_once("\n\n").ok_or(ReceiptError::Line {
            line: text.matches('\n').count() + 1,
            expected: "followed by an empty line and a checkpoint",
        })?;
        let mut lines = head
            .split('\n')
            .enumerate()
            .map(|(at, line)| (at + 1, line));
        // Takes the next line, which begins with `prefix`, and returns the rest of it.
        let mut field = |prefix: &str, expected: &'static str| {
            let (line, text) = lines.next().unwrap_or((head.matches('\n').count() + 2, ""));
            text.strip_prefix(prefix)
                .ok_or(ReceiptError::Line { line, expected })
        };
        if !field(HEADER, "c2sp.org/tlog-proof@v1")?.is_empty() {
            return Err(ReceiptError::Line {
                line: 1,
                expected: HEADER,
            });
        }
        const EXTRA: &str = "extra, a space and canonical base64";
        let extra = field("extra ", EXTRA)?;
        const INDEX: &str = "index, a space and a decimal number without leading zeros";
        let index = parse_decimal(field("index ", INDEX)?).ok_or(ReceiptError::Line {
            line: 3,
            expected: INDEX,
        })?;
        let mut proof = Vec::new();
        for (line, hash) in lines {
            if proof.len() == RECEIPT_PROOF_MAX {
                return Err(ReceiptError::Line {
                    line,
                    expected: "empty after 64 proof hashes",
                });
            }
            let expected = "canonical base64 of a 32-byte hash";
            let hash =
                Hash::from_base64(hash).map_err(|_| ReceiptError::Line { line, expected })?;
            proof.push(hash);
        }
        if extra.len() > EXTRA_LENGTH_MAX.div_ceil(3) * 4 {
            return Err(ReceiptError::Line {
                line: 2,
                expected: "at most 32796 base64 characters",
            });
        }
        let extra = STANDARD.decode(extra).map_err(|_| ReceiptError::Line {
            line: 2,
            expected: EXTRA,
        })?;
        let (leaf, opening) = parse_extra(&extra)?;
        let receipt = Receipt {
            leaf,
            opening,
            index: LeafIndex::new(index),
            proof,
            checkpoint_note: note.to_string(),
        };
        receipt.parts()?;
        Ok(receipt)
    }

    /// The receipt as text: what [`Receipt::parse`] reads. File names end in `.tlog-proof`.
    ///
    /// Not checked: a receipt built from parts that break a rule is refused when it is read.
    pub fn to_text(&self) -> String {
        let mut extra = Vec::with_capacity(3 + self.leaf.len());
        extra.push(EXTRA_VERSION);
        push_prefixed(&mut extra, &self.leaf);
        if let Some(opening) = &self.opening {
            extra.extend_from_slice(&opening.salt);
            push_prefixed(&mut extra, &opening.metadata);
        }
        let mut text = String::with_capacity(
            128 + extra.len() * 4 / 3 + 45 * self.proof.len() + self.checkpoint_note.len(),
        );
        text.push_str(HEADER);
        text.push_str("\nextra ");
        STANDARD.encode_string(&extra, &mut text);
        text.push_str("\nindex ");
        text.push_str(&self.index.to_string());
        for hash in &self.proof {
            text.push('\n');
            text.push_str(&hash.to_base64());
        }
        text.push_str("\n\n");
        text.push_str(&self.checkpoint_note);
        text
    }

    /// The receipt without salt and metadata: it still proves existence, and discloses nothing but
    /// the leaf.
    #[must_use]
    pub fn redacted(&self) -> Receipt {
        Receipt {
            opening: None,
            ..self.clone()
        }
    }

    /// Verifies the receipt: leaf, inclusion, origin, signatures, in this order.
    ///
    /// Afterwards check what you know of the entry, with [`Entry::check_key`] and
    /// [`Entry::check_value`]: a valid receipt for somebody else's entry must not pass for yours.
    ///
    /// # Errors
    /// The first thing that does not match. [`ReceiptError::NotUnderstood`] comes last: everything
    /// held, but the leaf is of a later format.
    pub fn verify(&self, trust: &(impl Trust + ?Sized)) -> Result<Included<Entry>, ReceiptError> {
        let Parts {
            leaf,
            metadata,
            checkpoint: signed,
        } = self.parts()?;
        let checkpoint = signed.checkpoint();
        let leaf_hash = leaf_hash(&self.leaf);
        inclusion::verify(
            &leaf_hash,
            self.index,
            checkpoint.size,
            &self.proof,
            &checkpoint.root,
        )?;
        let report = trust.evaluate(&signed).map_err(|error| match error {
            PolicyError::UnknownOrigin { .. }
            | PolicyError::Checkpoint(CheckpointError::OtherOrigin { .. }) => {
                ReceiptError::Origin(error)
            }
            error => ReceiptError::Signature(error),
        })?;
        let leaf = leaf.map_err(ReceiptError::NotUnderstood)?;
        let opening = self.opening.clone().zip(metadata);
        Ok(Included {
            value: Entry::from_leaf(&leaf, leaf_hash, opening),
            index: self.index,
            tree_size: checkpoint.size,
            root: checkpoint.root,
            origin: checkpoint.origin.clone(),
            report,
        })
    }

    /// Parses every part. A leaf of a later format is an inner error, so that the rest is checked.
    fn parts(&self) -> Result<Parts<'_>, ReceiptError> {
        let leaf = match Leaf::parse(&self.leaf) {
            Err(error) if !error.is_unknown() => return Err(ReceiptError::Leaf(error)),
            leaf => leaf,
        };
        let metadata = match &self.opening {
            Some(opening) => {
                Some(Metadata::parse(&opening.metadata).map_err(ReceiptError::Metadata)?)
            }
            None => None,
        };
        if metadata.is_some()
            && matches!(
                leaf,
                Ok(Leaf {
                    kind: LeafKind::System,
                    ..
                })
            )
        {
            return Err(ReceiptError::OpeningNotAllowed);
        }
        if self.proof.len() > RECEIPT_PROOF_MAX || self.checkpoint_note.len() > NOTE_LENGTH_MAX {
            return Err(ReceiptError::TooLong {
                found: self.to_text().len(),
            });
        }
        let checkpoint =
            SignedCheckpoint::parse(&self.checkpoint_note).map_err(ReceiptError::Checkpoint)?;
        Ok(Parts {
            leaf,
            metadata,
            checkpoint,
        })
    }
}

impl core::str::FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Receipt, ReceiptError> {
        Receipt::parse(text)
    }
}

struct Parts<'a> {
    leaf: Result<Leaf<'a>, LeafError>,
    metadata: Option<Metadata>,
    checkpoint: SignedCheckpoint,
}

/// Something that is in the ledger, at an index, under a checkpoint that was verified.
///
/// Only verification makes one. It does not say that the entry is its key's latest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included<T> {
    value: T,
    index: LeafIndex,
    tree_size: TreeSize,
    root: Hash,
    origin: String,
    report: PolicyReport,
}

impl<T> Included<T> {
    /// What is included.
    pub const fn get(&self) -> &T {
        &self.value
    }

    /// What is included, without the proof of it.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Its leaf index.
    pub const fn index(&self) -> LeafIndex {
        self.index
    }

    /// The tree size of the checkpoint it was verified against.
    pub const fn tree_size(&self) -> TreeSize {
        self.tree_size
    }

    /// The root hash of that checkpoint.
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// The ledger's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Who cosigned that checkpoint, of those the policy knows.
    pub fn cosigners(&self) -> &[Cosigner] {
        &self.report.cosigners
    }

    /// Who signed and cosigned that checkpoint.
    pub const fn report(&self) -> &PolicyReport {
        &self.report
    }
}

impl<T> core::ops::Deref for Included<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What a leaf says, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Put, delete or system.
    pub kind: LeafKind,
    /// What a system leaf is about; `None` for put and delete.
    pub system_kind: Option<SystemKind>,
    /// The entry's key.
    pub key: Vec<u8>,
    /// Opaque id of its author, empty without authentication.
    pub author: Vec<u8>,
    /// What a system leaf says; empty for put and delete.
    pub body: Vec<u8>,
    /// Milliseconds since 1970-01-01 UTC, by the leader's clock.
    pub timestamp_ms: u64,
    /// 0-based place within its transaction.
    pub transaction_position: u16,
    /// Leaves of its transaction.
    pub transaction_length: u16,
    /// The key's previous version, if asserted.
    pub prev: Prev,
    /// The commitment to salt, metadata and value.
    pub commitment: Hash,
    /// The hash of the leaf.
    pub leaf_hash: Hash,
    /// Salt and metadata as the receipt gives them, bound to the leaf only once
    /// [`Entry::check_value`] succeeded.
    opening: Option<(Opening, Metadata)>,
}

impl Entry {
    fn from_leaf(leaf: &Leaf<'_>, leaf_hash: Hash, opening: Option<(Opening, Metadata)>) -> Entry {
        Entry {
            kind: leaf.kind,
            system_kind: leaf.system_kind(),
            key: leaf.key.to_vec(),
            author: leaf.author.to_vec(),
            body: leaf.body.to_vec(),
            timestamp_ms: leaf.timestamp_ms,
            transaction_position: leaf.transaction_position,
            transaction_length: leaf.transaction_length,
            prev: leaf.prev,
            commitment: leaf.commitment,
            leaf_hash,
            opening,
        }
    }

    /// Whether the receipt discloses neither salt nor metadata.
    pub const fn is_redacted(&self) -> bool {
        self.opening.is_none()
    }

    /// Checks that the entry is of this key.
    ///
    /// # Errors
    /// [`ReceiptError::EntryKey`].
    pub fn check_key(&self, key: &[u8]) -> Result<(), ReceiptError> {
        if self.key == key {
            Ok(())
        } else {
            Err(ReceiptError::EntryKey)
        }
    }

    /// Checks that the leaf commits to this value, and returns the metadata it commits to as well.
    ///
    /// The value of a delete is empty.
    ///
    /// # Errors
    /// [`ReceiptError::Value`]; [`ReceiptError::Redacted`] without opening.
    pub fn check_value(&self, value: &[u8]) -> Result<&Metadata, ReceiptError> {
        let (opening, _) = self.opening.as_ref().ok_or(ReceiptError::Redacted)?;
        self.check_commitment(commitment(&opening.salt, &opening.metadata, value))
    }

    /// A hasher for a value that arrives in pieces; give what it finishes with to
    /// [`Entry::check_commitment`].
    ///
    /// # Errors
    /// [`ReceiptError::Redacted`] without opening.
    pub fn value_hasher(&self, value_length: u64) -> Result<CommitmentHasher, ReceiptError> {
        let (opening, _) = self.opening.as_ref().ok_or(ReceiptError::Redacted)?;
        Ok(CommitmentHasher::new(
            &opening.salt,
            &opening.metadata,
            value_length,
        ))
    }

    /// Checks a commitment made with [`Entry::value_hasher`], and returns the metadata.
    ///
    /// # Errors
    /// As [`Entry::check_value`].
    pub fn check_commitment(&self, computed: Hash) -> Result<&Metadata, ReceiptError> {
        let (_, metadata) = self.opening.as_ref().ok_or(ReceiptError::Redacted)?;
        if computed != self.commitment {
            return Err(ReceiptError::Value {
                computed,
                expected: self.commitment,
            });
        }
        Ok(metadata)
    }
}

/// `01`, leaf length, leaf, and unless redacted: salt, metadata length, metadata.
fn parse_extra(extra: &[u8]) -> Result<(Vec<u8>, Option<Opening>), ReceiptError> {
    let mut cursor = Cursor { bytes: extra };
    let version = cursor.u8("version").map_err(ReceiptError::Extra)?;
    if version != EXTRA_VERSION {
        return Err(ReceiptError::ExtraVersion { found: version });
    }
    let mut rest = || {
        let length = cursor.u16("leaf length")?;
        let leaf = cursor.take("leaf", length.into())?.to_vec();
        if cursor.bytes.is_empty() {
            return Ok((leaf, None));
        }
        let salt = cursor.array("salt")?;
        let length = cursor.u16("metadata length")?;
        let metadata = cursor.take("metadata", length.into())?.to_vec();
        cursor.end()?;
        Ok((leaf, Some(Opening { salt, metadata })))
    };
    rest().map_err(ReceiptError::Extra)
}

/// Appends a 16-bit length and the bytes. Longer ones cannot be valid; they are cut to a length that
/// does not fit the bytes, which `parse` refuses.
fn push_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}
