//! SHA-256 hashes, and the two ways RFC 6962 makes them.
//!
//! A leaf is hashed with the prefix byte `0x00` and an interior node with `0x01`, so that no leaf
//! can be passed off as a node. Everything else that is hashed in this crate (commitments, key ids)
//! uses plain SHA-256 with a label of its own.
//!
//! `sha2` picks the SHA extensions of the processor at run time, also without `std`.

use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::digest::core_api::Block as BlockOf;
use sha2::{Digest as _, Sha256, Sha256VarCore};

/// One block of SHA-256, 64 bytes.
type Block = BlockOf<Sha256VarCore>;

/// The initial hash value of SHA-256 (FIPS 180-4, 5.3.3).
const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A SHA-256 hash: a leaf hash, a node hash, a root hash or a commitment.
///
/// Shown as 64 lowercase hexadecimal digits. The text formats (checkpoints, receipts) use
/// [`Hash::to_base64`] instead. The default is all zeros, which is no hash of anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

/// Why text or bytes are not a [`struct@Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The decoded bytes have another length than [`Hash::LENGTH`].
    #[error("a hash is {found} bytes long, it must be 32")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// Not canonical standard base64 with padding.
    #[error("a hash is not canonical base64 of 32 bytes (44 characters, standard alphabet)")]
    Base64,
    /// Not 64 lowercase hexadecimal digits.
    #[error("a hash is not 64 lowercase hexadecimal digits")]
    Hex,
}

impl Hash {
    /// Length of a hash in bytes.
    pub const LENGTH: usize = 32;

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lowercase hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex_encode(&self.0)
    }

    /// Standard base64 with padding, 44 characters, as in checkpoints and receipts.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads what [`Hash::to_base64`] writes and nothing else.
    ///
    /// # Errors
    /// [`HashError::Base64`] for anything that is not 44 canonical characters,
    /// [`HashError::Length`] if they decode to another length.
    pub fn from_base64(text: &str) -> Result<Hash, HashError> {
        // Checked first, so that long input allocates nothing.
        if text.len() != 44 {
            return Err(HashError::Base64);
        }
        let mut bytes = [0_u8; 33];
        let length = STANDARD
            .decode_slice(text, &mut bytes)
            .map_err(|_| HashError::Base64)?;
        Hash::try_from(&bytes[..length])
    }

    /// Reads what [`Hash::to_hex`] writes and nothing else (no uppercase).
    ///
    /// # Errors
    /// [`HashError::Hex`] if `text` is not 64 lowercase hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Hash, HashError> {
        let mut bytes = [0_u8; 32];
        if text.len() != 64 {
            return Err(HashError::Hex);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            match (hex_digit(pair[0]), hex_digit(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(HashError::Hex),
            }
        }
        Ok(Hash(bytes))
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = HashError;

    fn try_from(bytes: &[u8]) -> Result<Hash, HashError> {
        match <[u8; 32]>::try_from(bytes) {
            Ok(array) => Ok(Hash(array)),
            Err(_) => Err(HashError::Length { found: bytes.len() }),
        }
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hash of a leaf: SHA-256 of `0x00` and the leaf's canonical bytes (RFC 6962, 2.1).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(leaf);
    Hash(hasher.finalize().into())
}

/// Hash of an interior node: SHA-256 of `0x01`, the left and the right child (RFC 6962, 2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    // A node is always 65 bytes, so its two padded blocks are laid out here once instead of going
    // through the hasher's buffer: this runs about once per leaf on the write path.
    let mut blocks = [Block::default(); 2];
    blocks[0][0] = 0x01;
    blocks[0][1..33].copy_from_slice(&left.0);
    blocks[0][33..].copy_from_slice(&right.0[..31]);
    blocks[1][0] = right.0[31];
    blocks[1][1] = 0x80;
    // The length in bits, big-endian, in the last eight bytes: 65 * 8 = 0x0208.
    blocks[1][62] = 0x02;
    blocks[1][63] = 0x08;
    let mut state = INITIAL_STATE;
    sha2::compress256(&mut state, &blocks);
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Hash(hash)
}

/// Root hash of a tree without leaves: SHA-256 of nothing (RFC 6962, 2.1).
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// Plain SHA-256.
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

pub(crate) fn hex_encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

pub(crate) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn known_hashes() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty_root().to_hex(), empty);
        // RFC 6962 test vector: the hash of the empty leaf.
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_hex(), leaf);
        assert_eq!(leaf_hash(b"").to_string(), leaf);
    }

    #[test]
    fn node_hash_is_sha256_of_the_concatenation() {
        let (mut left, mut right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        for _ in 0..1000 {
            let mut bytes = alloc::vec![0x01];
            bytes.extend_from_slice(&left.0);
            bytes.extend_from_slice(&right.0);
            let node = node_hash(&left, &right);
            assert_eq!(node, sha256(&bytes));
            (left, right) = (right, node);
        }
    }

    #[test]
    fn text_forms_are_strict() {
        let hash = leaf_hash(b"x");
        assert_eq!(Hash::from_base64(&hash.to_base64()), Ok(hash));
        assert_eq!(Hash::from_hex(&hash.to_hex()), Ok(hash));
        assert_eq!(
            Hash::from_hex(&hash.to_hex().to_uppercase()),
            Err(HashError::Hex)
        );
        assert_eq!(Hash::from_hex("00"), Err(HashError::Hex));
        assert_eq!(Hash::from_base64(""), Err(HashError::Base64));
        assert_eq!(
            Hash::from_base64(hash.to_base64().trim_end_matches('=')),
            Err(HashError::Base64)
        );
        // 44 characters without padding are 33 bytes.
        assert_eq!(
            Hash::from_base64(&"A".repeat(44)),
            Err(HashError::Length { found: 33 })
        );
        // The last character carries two bits that must be zero.
        let zero = Hash::default().to_base64();
        assert!(Hash::from_base64(&zero.replace("A=", "B=")).is_err());
    }
}
