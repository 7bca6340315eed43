//! What a ledger and a witness say to each other (<https://c2sp.org/tlog-witness>, `add-checkpoint`).
//!
//! The ledger sends a checkpoint with the proof that it extends the one the witness cosigned last;
//! the witness answers with cosignatures, or with the size it remembers, or refuses. Here are the
//! bytes of both and what an answer proves. Whether a witness *should* cosign is not decided here:
//! that takes a memory of what it cosigned before.
//!
//! ```text
//! old <size>                        the tree size the witness cosigned last, 0 for none
//! <base64 hash>                     consistency proof, 0 to 63 lines
//!                                   an empty line
//! <checkpoint>                      a signed note
//! ```

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::cosignature;
use crate::hash::{Hash, HashError};
use crate::index::{TreeSize, parse_decimal};
use crate::key::{KeyType, VerifierKey};
use crate::note::{NOTE_LENGTH_MAX, NoteError, SIGNATURES_MAX, Signature};

/// Most consistency proof lines of a request. Trees of up to 2^62 leaves need no more.
pub const PROOF_LINES_MAX: usize = 63;
/// Longest request, in bytes: the `old` line, 63 lines of 45 bytes, an empty line and a note.
pub const REQUEST_LENGTH_MAX: usize = 25 + PROOF_LINES_MAX * 45 + 1 + NOTE_LENGTH_MAX;
/// Longest answer that is read, in bytes.
pub const ANSWER_LENGTH_MAX: usize = 16 * 1024;
/// `Content-Type` of an answer that is a tree size.
pub const SIZE_MEDIA_TYPE: &str = "text/x.tlog.size";
/// How far the time of a new cosignature may be ahead of the reader's clock, in seconds.
pub const TIME_AHEAD_MAX_S: u64 = 5 * 60;
/// How far the time of a new cosignature may be behind the reader's clock, in seconds.
pub const TIME_BEHIND_MAX_S: u64 = 60 * 60;

/// Why a request or an answer is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Longer than any request or answer.
    #[error("{what} is {found} bytes long, at most {allowed} are allowed")]
    TooLong {
        /// Request or answer.
        what: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// The body is not text.
    #[error("{what} must be UTF-8")]
    Text {
        /// Request or answer.
        what: &'static str,
    },
    /// The first line is not `old` and a size.
    #[error("the first line must be `old`, a space and a decimal number without leading zeros")]
    OldLine,
    /// No empty line between proof and checkpoint.
    #[error("request has no empty line between proof and checkpoint")]
    NoEmptyLine,
    /// A proof line that is not a hash.
    #[error("proof line {line}: {problem}")]
    ProofLine {
        /// 1-based line of the proof.
        line: usize,
        /// What is wrong with it.
        problem: HashError,
    },
    /// Too many proof lines.
    #[error("request has {found} proof lines, at most 63 are allowed")]
    TooManyProofLines {
        /// Lines found.
        found: usize,
    },
    /// The checkpoint is malformed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A size that is not a decimal number and a newline.
    #[error("a tree size must be a decimal number below 2^64 without leading zeros, and a newline")]
    Size,
    /// An answer of status 200 without signature lines, or with a malformed one.
    #[error("answer must be one or more signature lines: {0}")]
    Lines(#[from] NoteError),
}

/// What a ledger sends to a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The tree size of the checkpoint that the witness cosigned last; 0 if it has none.
    pub old: TreeSize,
    /// The proof that the checkpoint extends that tree. Empty if `old` is 0 or the checkpoint's size.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// The body of the request.
    ///
    /// # Errors
    /// [`WitnessError::TooManyProofLines`].
    pub fn to_text(&self) -> Result<String, WitnessError> {
        check_proof_lines(self.proof.len())?;
        let note = self.checkpoint.to_text();
        let mut text = String::with_capacity(note.len() + 45 * self.proof.len() + 26);
        text.push_str("old ");
        text.push_str(&self.old.to_string());
        text.push('\n');
        for hash in &self.proof {
            text.push_str(&hash.to_base64());
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&note);
        Ok(text)
    }

    /// Reads the body of a request. No signature and no proof is checked here.
    ///
    /// # Errors
    /// Anything but what [`AddCheckpoint::to_text`] writes for a well-formed checkpoint.
    pub fn parse(body: &[u8]) -> Result<AddCheckpoint, WitnessError> {
        let text = text("request", body, REQUEST_LENGTH_MAX)?;
        let (head, note) = text.split_once("\n\n").ok_or(WitnessError::NoEmptyLine)?;
        // Counted before any of them is read: the limit is on lines, not on hashes.
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(WitnessError::OldLine)?;
        check_proof_lines(head.bytes().filter(|byte| *byte == b'\n').count())?;
        let mut proof = Vec::new();
        for (at, line) in lines.enumerate() {
            let hash = Hash::from_base64(line).map_err(|problem| WitnessError::ProofLine {
                line: at + 1,
                problem,
            })?;
            proof.push(hash);
        }
        Ok(AddCheckpoint {
            old: TreeSize::new(old),
            proof,
            checkpoint: SignedCheckpoint::parse(note)?,
        })
    }
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: signature lines. What they prove is for [`cosignature_by`] to say.
    Cosigned(Vec<Signature>),
    /// 409 with a size: the witness cosigned this tree size last, not the one the request named.
    Conflict {
        /// The size it cosigned last.
        size: TreeSize,
    },
    /// Anything else.
    Refused(Refusal),
}

/// Why a witness refuses, by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the request is malformed, or `old` is larger than the checkpoint.
    Malformed,
    /// 403: no key the witness trusts for this ledger signed the checkpoint.
    NotSigned,
    /// 404: the witness does not follow this ledger.
    UnknownOrigin,
    /// 409 without a size: the witness cosigned *another root hash* at this very size.
    OtherRoot,
    /// 422: the proof does not lead from what the witness cosigned to this checkpoint.
    Inconsistent,
    /// 413, 429 and 5xx: not now.
    Busy {
        /// The status.
        status: u16,
    },
    /// A status the specification does not know.
    Other {
        /// The status.
        status: u16,
    },
}

impl Refusal {
    /// The refusal a status stands for, or `None` for 200.
    pub const fn from_status(status: u16) -> Option<Refusal> {
        Some(match status {
            200 => return None,
            400 => Refusal::Malformed,
            403 => Refusal::NotSigned,
            404 => Refusal::UnknownOrigin,
            409 => Refusal::OtherRoot,
            422 => Refusal::Inconsistent,
            413 | 429 | 500..=599 => Refusal::Busy { status },
            status => Refusal::Other { status },
        })
    }

    /// Whether the witness says that it holds another history of this ledger. One of the two was
    /// rewritten, or is shown to some and not to others.
    pub const fn is_fork(self) -> bool {
        matches!(self, Refusal::OtherRoot | Refusal::Inconsistent)
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refusal::Malformed => f.write_str("it calls the request malformed (400)"),
            Refusal::NotSigned => f.write_str("it trusts no key that signed the checkpoint (403)"),
            Refusal::UnknownOrigin => f.write_str("it does not follow this ledger (404)"),
            Refusal::OtherRoot => {
                f.write_str("it cosigned another root hash at this tree size (409)")
            }
            Refusal::Inconsistent => f.write_str(
                "the proof does not lead from the checkpoint it cosigned last to this one (422)",
            ),
            Refusal::Busy { status } => write!(f, "it cannot answer now ({status})"),
            Refusal::Other { status } => write!(f, "it answered with status {status}"),
        }
    }
}

impl Answer {
    /// Reads an answer: its status, its `Content-Type` and its body. Nothing it says is believed
    /// here.
    ///
    /// A missing newline behind the last signature line is forgiven, as nothing hangs on it.
    ///
    /// # Errors
    /// [`WitnessError::TooLong`]; [`WitnessError::Size`] for a 409 whose type is
    /// [`SIZE_MEDIA_TYPE`] and whose body is no size; [`WitnessError::Lines`] or
    /// [`WitnessError::Text`] for a 200 that has something else than signature lines.
    pub fn parse(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Answer, WitnessError> {
        match Refusal::from_status(status) {
            None => signature_lines(body).map(Answer::Cosigned),
            Some(Refusal::OtherRoot) if content_type.is_some_and(is_size) => {
                let size = text("answer", body, ANSWER_LENGTH_MAX)?
                    .strip_suffix('\n')
                    .and_then(parse_decimal)
                    .ok_or(WitnessError::Size)?;
                Ok(Answer::Conflict {
                    size: TreeSize::new(size),
                })
            }
            Some(refusal) => Ok(Answer::Refused(refusal)),
        }
    }
}

/// The body of a 409: the size cosigned last.
pub fn size_text(size: TreeSize) -> String {
    let mut text = size.to_string();
    text.push('\n');
    text
}

/// A cosignature that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The signature line's content.
    pub signature: Signature,
    /// When it was made, in seconds since 1970-01-01 UTC, by the cosigner's clock.
    pub timestamp_s: u64,
}

/// Why signature lines hold no cosignature by the key asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotCosigned {
    /// The key asked about cannot cosign, or its line does not fit the checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// No line is by the key.
    #[error("no signature line is by {name}+{key_id:08x}{}", others(.found))]
    NoLine {
        /// The key's name.
        name: String,
        /// The key's id.
        key_id: u32,
        /// Whose lines there are: name and key id, the first few.
        found: Vec<(String, u32)>,
    },
    /// The same public key made a plain signature.
    #[error(
        "the signature by {name}+{found:08x} is a plain one of type 0x01 over the checkpoint alone: it names no time and \
         is no cosignature/v1, which would be by {name}+{key_id:08x} (type 0x04)"
    )]
    Plain {
        /// The key's name.
        name: String,
        /// The id of the plain key.
        found: u32,
        /// The id of the cosigning key.
        key_id: u32,
    },
    /// The time is too far off.
    #[error(
        "the cosignature is of second {found}, it must be within 3600 s before and 300 s after {now_s}"
    )]
    Time {
        /// The time found.
        found: u64,
        /// The reader's clock.
        now_s: u64,
    },
}

fn others(found: &[(String, u32)]) -> String {
    let mut text = String::new();
    for (at, (name, key_id)) in found.iter().enumerate() {
        text.push_str(if at == 0 { ", found " } else { ", " });
        text.push_str(&alloc::format!("{name}+{key_id:08x}"));
    }
    text
}

/// The newest cosignature by `key` over the text of a checkpoint among these lines. Lines of other
/// keys are ignored; one by this key that does not fit spoils them all.
///
/// `now_s` is the reader's clock, in seconds since 1970: a cosignature just asked for was made now,
/// up to [`TIME_BEHIND_MAX_S`] and [`TIME_AHEAD_MAX_S`].
///
/// # Errors
/// [`NotCosigned`]: there is none, and why what there is does not count.
pub fn cosignature_by(
    text: &str,
    key: &VerifierKey,
    signatures: &[Signature],
    now_s: u64,
) -> Result<Cosignature, NotCosigned> {
    key.expect_type(KeyType::Cosignature)?;
    let mut newest: Option<Cosignature> = None;
    for signature in signatures.iter().filter(|line| line.is_by(key)) {
        let timestamp_s = cosignature::verify(text, key, signature)?;
        if newest
            .as_ref()
            .is_none_or(|newest| newest.timestamp_s < timestamp_s)
        {
            newest = Some(Cosignature {
                signature: signature.clone(),
                timestamp_s,
            });
        }
    }
    let Some(newest) = newest else {
        return Err(no_line(key, signatures));
    };
    let found = newest.timestamp_s;
    let earliest = now_s.saturating_sub(TIME_BEHIND_MAX_S);
    if found < earliest || found > now_s.saturating_add(TIME_AHEAD_MAX_S) {
        return Err(NotCosigned::Time { found, now_s });
    }
    Ok(newest)
}

fn no_line(key: &VerifierKey, signatures: &[Signature]) -> NotCosigned {
    let name = key.name().to_string();
    let key_id = key.key_id();
    // A witness that signs checkpoints as a ledger would: same public key, another kind of signature.
    if let Ok(plain) = VerifierKey::new(&name, KeyType::Ed25519, &key.public_key())
        && signatures.iter().any(|signature| signature.is_by(&plain))
    {
        return NotCosigned::Plain {
            name,
            found: plain.key_id(),
            key_id,
        };
    }
    let found = signatures
        .iter()
        .take(3)
        .map(|signature| (signature.name.clone(), signature.key_id))
        .collect();
    NotCosigned::NoLine {
        name,
        key_id,
        found,
    }
}

fn signature_lines(body: &[u8]) -> Result<Vec<Signature>, WitnessError> {
    let text = text("answer", body, ANSWER_LENGTH_MAX)?;
    let lines = text.strip_suffix('\n').unwrap_or(text);
    if lines.is_empty() {
        return Err(NoteError::NoSignatures.into());
    }
    if lines.bytes().filter(|byte| *byte == b'\n').count() >= SIGNATURES_MAX {
        return Err(NoteError::TooManySignatures.into());
    }
    lines
        .split('\n')
        .enumerate()
        .map(|(at, line)| {
            Signature::parse_line(line).map_err(|error| match error {
                NoteError::SignatureLine { .. } => NoteError::SignatureLine { line: at + 1 },
                other => other,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(WitnessError::from)
}

fn text<'a>(what: &'static str, body: &'a [u8], allowed: usize) -> Result<&'a str, WitnessError> {
    if body.len() > allowed {
        return Err(WitnessError::TooLong {
            what,
            found: body.len(),
            allowed,
        });
    }
    core::str::from_utf8(body).map_err(|_| WitnessError::Text { what })
}

fn check_proof_lines(found: usize) -> Result<(), WitnessError> {
    if found > PROOF_LINES_MAX {
        return Err(WitnessError::TooManyProofLines { found });
    }
    Ok(())
}

/// Parameters of a media type say nothing about a number.
fn is_size(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(SIZE_MEDIA_TYPE)
}
