//! What a leaf commits to without disclosing it: salt, metadata and value.
//!
//! The commitment is SHA-256 over a label, a random salt, the metadata and the value, each with its
//! length. The salt hides even a value that could be guessed, so erasing salt, metadata and value
//! later leaves nothing to be recovered, and every proof stays valid.

use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::hash::Hash;
use crate::leaf::{Cursor, LeafError};

/// Length of the salt, in bytes. It must come from a cryptographic random source.
pub const SALT_LENGTH: usize = 16;
/// Longest encoded metadata, in bytes.
pub const METADATA_LENGTH_MAX: usize = 8192;
/// Most user pairs in metadata.
pub const METADATA_PAIRS_MAX: usize = 16;

/// Keeps commitments apart from every other use of SHA-256 here.
const LABEL: &[u8] = b"scribe/entry/v1\n";

/// What a user says about a value: its content type and some pairs.
///
/// [`Metadata::encode`] writes only, and [`Metadata::parse`] returns only, metadata for which:
///
/// - the content type is at most 255 bytes, without control characters (it ends up in an HTTP
///   header), and may be empty;
/// - there are at most [`METADATA_PAIRS_MAX`] pairs, their names 1 to 255 of `a-z 0-9 - _ .`,
///   unique and in byte order, their values without control characters;
/// - the encoding is at most [`METADATA_LENGTH_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Media type of the value, or empty.
    pub content_type: String,
    /// Names and values, in byte order of the names.
    pub pairs: Vec<(String, String)>,
}

impl Metadata {
    /// The encoding of empty metadata, which is what a delete commits to.
    pub const EMPTY_ENCODING: &'static [u8] = &[0, 0];

    /// Metadata with the pairs put in order.
    ///
    /// # Errors
    /// The first rule of [`Metadata`] that does not hold; a name given twice is one.
    pub fn new(
        content_type: impl Into<String>,
        mut pairs: Vec<(String, String)>,
    ) -> Result<Metadata, LeafError> {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let metadata = Metadata {
            content_type: content_type.into(),
            pairs,
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// Length of the encoding in bytes, also of metadata that would be refused.
    pub fn encoded_length(&self) -> usize {
        let pairs: usize = self
            .pairs
            .iter()
            .map(|(name, value)| 1 + name.len() + 2 + value.len())
            .sum();
        1 + self.content_type.len() + 1 + pairs
    }

    /// The canonical encoding.
    ///
    /// # Errors
    /// The first rule of [`Metadata`] that does not hold.
    pub fn encode(&self) -> Result<Vec<u8>, LeafError> {
        self.check()?;
        // `check` bounds every length, so none of these casts cuts anything off.
        let mut out = Vec::with_capacity(self.encoded_length());
        out.push(self.content_type.len() as u8);
        out.extend_from_slice(self.content_type.as_bytes());
        out.push(self.pairs.len() as u8);
        for (name, value) in &self.pairs {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        Ok(out)
    }

    /// Reads the canonical encoding.
    ///
    /// # Errors
    /// Anything but the canonical encoding of metadata that follows the rules of [`Metadata`].
    pub fn parse(bytes: &[u8]) -> Result<Metadata, LeafError> {
        if bytes.len() > METADATA_LENGTH_MAX {
            return Err(LeafError::MetadataLength { found: bytes.len() });
        }
        let mut cursor = Cursor { bytes };
        let length = cursor.u8("content type length")?;
        let content_type = core::str::from_utf8(cursor.take("content type", length.into())?)
            .map_err(|_| LeafError::ContentType)?;
        let count = usize::from(cursor.u8("pair count")?);
        if count > METADATA_PAIRS_MAX {
            return Err(LeafError::MetadataPairs { found: count });
        }
        let mut pairs = Vec::with_capacity(count);
        for pair in 0..count {
            let length = cursor.u8("name length")?;
            let name = core::str::from_utf8(cursor.take("name", length.into())?)
                .map_err(|_| LeafError::MetadataName { pair })?;
            let length = cursor.u16("value length")?;
            let value = core::str::from_utf8(cursor.take("value", length.into())?)
                .map_err(|_| LeafError::MetadataValue { pair })?;
            pairs.push((String::from(name), String::from(value)));
        }
        cursor.end()?;
        let metadata = Metadata {
            content_type: String::from(content_type),
            pairs,
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// The value of the pair with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|pair| pair.0 == name)
            .map(|pair| pair.1.as_str())
    }

    fn check(&self) -> Result<(), LeafError> {
        if self.content_type.len() > 255 || self.content_type.chars().any(char::is_control) {
            return Err(LeafError::ContentType);
        }
        if self.pairs.len() > METADATA_PAIRS_MAX {
            return Err(LeafError::MetadataPairs {
                found: self.pairs.len(),
            });
        }
        for (pair, (name, value)) in self.pairs.iter().enumerate() {
            let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
            if name.is_empty() || name.len() > 255 || !name.bytes().all(allowed) {
                return Err(LeafError::MetadataName { pair });
            }
            if value.chars().any(char::is_control) {
                return Err(LeafError::MetadataValue { pair });
            }
            if pair > 0 && self.pairs[pair - 1].0 >= *name {
                return Err(LeafError::MetadataOrder { pair });
            }
        }
        // Also what keeps each value within its 16-bit length.
        match self.encoded_length() {
            0..=METADATA_LENGTH_MAX => Ok(()),
            found => Err(LeafError::MetadataLength { found }),
        }
    }
}

/// The commitment to a salt, encoded metadata and a value.
///
/// # Panics
/// If `metadata` is longer than [`METADATA_LENGTH_MAX`]: pass what [`Metadata::encode`] returned,
/// or what [`Metadata::parse`] accepted.
pub fn commitment(salt: &[u8; SALT_LENGTH], metadata: &[u8], value: &[u8]) -> Hash {
    let mut hasher = CommitmentHasher::new(salt, metadata, value.len() as u64);
    hasher.update(value);
    Hash(hasher.hasher.finalize().into())
}

/// [`commitment`] for a value that arrives in pieces.
#[derive(Clone)]
pub struct CommitmentHasher {
    hasher: Sha256,
    announced: u64,
    found: u64,
}

impl CommitmentHasher {
    /// Starts a commitment to a value of `value_length` bytes.
    ///
    /// # Panics
    /// If `metadata` is longer than [`METADATA_LENGTH_MAX`], see [`commitment`].
    pub fn new(salt: &[u8; SALT_LENGTH], metadata: &[u8], value_length: u64) -> CommitmentHasher {
        assert!(
            metadata.len() <= METADATA_LENGTH_MAX,
            "metadata is longer than 8192 bytes"
        );
        let mut hasher = Sha256::new();
        hasher.update(LABEL);
        hasher.update(salt);
        hasher.update((metadata.len() as u16).to_be_bytes());
        hasher.update(metadata);
        hasher.update(value_length.to_be_bytes());
        CommitmentHasher {
            hasher,
            announced: value_length,
            found: 0,
        }
    }

    /// Hashes the next piece of the value.
    pub fn update(&mut self, piece: &[u8]) -> &mut CommitmentHasher {
        self.hasher.update(piece);
        self.found = self.found.saturating_add(piece.len() as u64);
        self
    }

    /// The commitment.
    ///
    /// # Errors
    /// [`LeafError::ValueLength`] if other than the announced number of bytes arrived: no value has
    /// that commitment.
    pub fn finish(self) -> Result<Hash, LeafError> {
        if self.found != self.announced {
            return Err(LeafError::ValueLength {
                found: self.found,
                announced: self.announced,
            });
        }
        Ok(Hash(self.hasher.finalize().into()))
    }
}

impl core::fmt::Debug for CommitmentHasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Without the state: it holds the salt.
        f.debug_struct("CommitmentHasher")
            .field("announced", &self.announced)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    #[test]
    fn empty_metadata_has_two_bytes() {
        assert_eq!(
            Metadata::default().encode().unwrap(),
            Metadata::EMPTY_ENCODING
        );
        assert_eq!(
            Metadata::parse(Metadata::EMPTY_ENCODING).unwrap(),
            Metadata::default()
        );
        assert!(Metadata::parse(&[]).is_err());
    }

    #[test]
    fn metadata_rules() {
        let sorted = Metadata::new("text/plain", vec![pair("b", "2"), pair("a", "1")]).unwrap();
        assert_eq!(sorted.get("b"), Some("2"));
        assert_eq!(Metadata::parse(&sorted.encode().unwrap()).unwrap(), sorted);

        let check = |pairs: Vec<(String, String)>, expected: LeafError| {
            let metadata = Metadata {
                content_type: String::new(),
                pairs,
            };
            assert_eq!(metadata.encode(), Err(expected));
        };
        check(
            vec![pair("b", ""), pair("a", "")],
            LeafError::MetadataOrder { pair: 1 },
        );
        check(
            vec![pair("a", ""), pair("a", "")],
            LeafError::MetadataOrder { pair: 1 },
        );
        check(vec![pair("A", "")], LeafError::MetadataName { pair: 0 });
        check(vec![pair("", "")], LeafError::MetadataName { pair: 0 });
        check(
            vec![pair("a", "x\r\ny: z")],
            LeafError::MetadataValue { pair: 0 },
        );
        check(
            vec![pair("a", &"v".repeat(8192))],
            LeafError::MetadataLength { found: 8198 },
        );
        let many = (0..17)
            .map(|n| pair(&alloc::format!("n{n:02}"), ""))
            .collect();
        check(many, LeafError::MetadataPairs { found: 17 });
    }

    #[test]
    fn streaming_agrees_and_counts() {
        let salt = [7; SALT_LENGTH];
        let mut hasher = CommitmentHasher::new(&salt, &[0, 0], 5);
        hasher.update(b"he").update(b"llo");
        assert_eq!(
            hasher.clone().finish(),
            Ok(commitment(&salt, &[0, 0], b"hello"))
        );
        hasher.update(b"!");
        assert_eq!(
            hasher.finish(),
            Err(LeafError::ValueLength {
                found: 6,
                announced: 5
            })
        );
    }

    #[test]
    fn no_two_inputs_share_a_commitment() {
        // Moving a byte between metadata and value, or changing the salt, changes the hash.
        let salt = [1; SALT_LENGTH];
        let base = commitment(&salt, &[0, 0], &[9]);
        assert_ne!(base, commitment(&salt, &[0], &[0, 9]));
        assert_ne!(base, commitment(&[2; SALT_LENGTH], &[0, 0], &[9]));
        assert_ne!(base, commitment(&salt, &[0, 0], &[9, 0]));
    }
}
