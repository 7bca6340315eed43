//! The plain judge of the text formats: notes, keys and checkpoints, written a second time.
//!
//! It knows no cryptography. A signature is good if it is, byte for byte, one that the key in question
//! made over that text, which the world remembers. With a flaw it is one of the weak verifiers.

use scribe_proof::sha256;

use crate::flaws::TextFlaw;
use crate::text::DASHES;
use crate::world::World;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The order of the group Ed25519 signs in, little-endian.
pub const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The base point, and 1: a signature that fits every text for the key that is the neutral element.
pub const ANYBODYS_SIGNATURE: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < 32 {
        bytes[at] = if at == 0 { 0x58 } else { 0x66 };
        at += 1;
    }
    bytes[32] = 1;
    bytes
};

/// Encodings of points nobody may have as a key: of small order, or a second encoding of a point.
pub fn forbidden_keys() -> Vec<[u8; 32]> {
    let mut keys = Vec::new();
    let mut add = |mut key: [u8; 32]| {
        key[31] &= 0x7f;
        keys.push(key);
        key[31] |= 0x80;
        keys.push(key);
    };
    let mut one = [0; 32];
    add(one);
    one[0] = 1;
    add(one);
    // From p - 1 on: the point of order 2, then what is written again above p.
    for low in 0xec..=0xff {
        let mut key = [0xff; 32];
        key[0] = low;
        add(key);
    }
    for key in [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ] {
        add(scribe_proof::Hash::from_hex(key).unwrap().0);
    }
    keys
}

/// Standard base64 with padding.
pub fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0));
        }
        for at in 0..4 {
            if at > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]));
            }
        }
    }
    text
}

/// What base64 means; only the one encoding, unless `loose` about the bits after the last byte.
pub fn decode_base64(text: &str, loose: bool) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (loose || encode_base64(&bytes) == text).then_some(bytes)
}

/// A decimal number.
pub fn number_text(number: u64) -> String {
    format!("{number}")
}

/// Reads what [`number_text`] writes.
pub fn plain_number(text: &str, leading_zeros: bool) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let short = if leading_zeros {
        text.trim_start_matches('0')
    } else {
        text
    };
    let number = match short {
        "" => 0,
        _ => short.parse().ok()?,
    };
    (leading_zeros || number_text(number) == text).then_some(number)
}

/// A note's parts.
pub struct PlainNote {
    pub text: String,
    pub lines: Vec<PlainLine>,
}

/// A signature line's parts.
#[derive(Clone)]
pub struct PlainLine {
    pub name: String,
    pub id: u32,
    pub bytes: Vec<u8>,
}

impl PlainNote {
    /// The note as text.
    pub fn to_text(&self) -> String {
        let lines: String = self
            .lines
            .iter()
            .map(|line| crate::world::line(&line.name, line.id, &line.bytes))
            .collect();
        format!("{}\n{lines}", self.text)
    }
}

/// A verifier key's parts.
#[derive(Clone, PartialEq)]
pub struct PlainKey {
    pub name: String,
    pub id: u32,
    pub kind: u8,
    pub public: [u8; 32],
}

impl PlainKey {
    /// The key as text.
    pub fn to_text(&self) -> String {
        let content = [&[self.kind][..], &self.public].concat();
        format!("{}+{:08x}+{}", self.name, self.id, encode_base64(&content))
    }

    /// The key with these parts, and the id they have.
    pub fn new(name: &str, kind: u8, public: [u8; 32]) -> PlainKey {
        let content = [name.as_bytes(), b"\n", &[kind], &public].concat();
        let [a, b, c, d, ..] = sha256(&content).0;
        PlainKey {
            name: name.to_string(),
            id: u32::from_be_bytes([a, b, c, d]),
            kind,
            public,
        }
    }
}

/// What a checkpoint says.
#[derive(Debug, PartialEq)]
pub struct PlainCheckpoint {
    pub origin: String,
    pub size: u64,
    pub root: [u8; 32],
    pub extensions: Vec<String>,
}

/// The judge, or a weak verifier.
pub struct Plain<'a> {
    pub world: &'a World,
    pub flaw: Option<TextFlaw>,
}

impl Plain<'_> {
    /// Whether this check is left out.
    pub fn weak(&self, flaw: TextFlaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Base64, as strict as this judge is.
    pub fn base64(&self, text: &str) -> Option<Vec<u8>> {
        decode_base64(text, self.weak(TextFlaw::LooseBase64))
    }

    /// A number, as strict as this judge is.
    pub fn number(&self, text: &str) -> Option<u64> {
        plain_number(text, self.weak(TextFlaw::LeadingZeros))
    }

    fn name_is_good(name: &str) -> bool {
        let good = |letter: char| !(letter.is_whitespace() || letter.is_control() || letter == '+');
        (1..=1024).contains(&name.len()) && name.chars().all(good)
    }

    /// Takes a note apart.
    pub fn note(&self, note: &str) -> Option<PlainNote> {
        let trimmed: String;
        let note = if self.weak(TextFlaw::TrimmedLines) {
            let lines: Vec<&str> = note
                .split('\n')
                .map(|line| line.trim_end_matches([' ', '\r', '\t']))
                .collect();
            trimmed = lines.join("\n");
            &trimmed
        } else {
            note
        };
        if note.len() > 65_536 || note.bytes().any(|byte| byte < 32 && byte != 10) {
            return None;
        }
        let bytes = note.as_bytes();
        let empty_line = |at: &usize| bytes[*at..].starts_with(b"\n\n");
        let last = (0..bytes.len()).rev().find(empty_line)?;
        let at = match self.weak(TextFlaw::FirstEmptyLine) {
            true => (0..bytes.len()).find(empty_line)?,
            false => last,
        };
        let (text, rest) = (&note[..=at], &note[at + 2..]);
        let mut lines = Vec::new();
        let mut left = rest;
        while !left.is_empty() {
            let (line, after) = left.split_once('\n')?;
            match self.line(line) {
                Some(line) => lines.push(line),
                None if self.weak(TextFlaw::FirstEmptyLine) => (),
                None => return None,
            }
            left = after;
        }
        if lines.is_empty() || lines.len() > 128 {
            return None;
        }
        Some(PlainNote {
            text: text.to_string(),
            lines,
        })
    }

    fn line(&self, line: &str) -> Option<PlainLine> {
        let words: Vec<&str> = line.split(' ').collect();
        let [dash, name, encoded] = words[..] else {
            return None;
        };
        let dash_fits =
            dash == "\u{2014}" || self.weak(TextFlaw::AnyDash) && DASHES.contains(&dash);
        if !dash_fits || !Self::name_is_good(name) {
            return None;
        }
        let bytes = self.base64(encoded)?;
        if bytes.len() < 5 {
            return None;
        }
        Some(PlainLine {
            name: name.to_string(),
            id: u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            bytes: bytes[4..].to_vec(),
        })
    }

    /// Takes a verifier key apart.
    pub fn key(&self, text: &str) -> Option<PlainKey> {
        let (name, rest) = text.split_once('+')?;
        let (id, encoded) = rest.split_once('+')?;
        let lower = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if !Self::name_is_good(name) || id.len() != 8 || !id.bytes().all(lower) {
            return None;
        }
        let content = self.base64(encoded)?;
        if content.len() != 33 || !matches!(content[0], 1 | 4) {
            return None;
        }
        let public: [u8; 32] = content[1..].try_into().ok()?;
        let mut key = PlainKey::new(name, content[0], public);
        let found = u32::from_str_radix(id, 16).ok()?;
        if found != key.id && !self.weak(TextFlaw::KeyIdUnchecked) {
            return None;
        }
        key.id = found;
        // Whether any other bytes are a point of the curve is never asked: their id would not fit.
        let honest = self.world.keys.iter().any(|key| key.public == public);
        let forbidden = || forbidden_keys().contains(&public);
        (honest || self.weak(TextFlaw::WeakKeys) && forbidden()).then_some(key)
    }

    /// The times of the key's signatures under a note (0 for plain ones); `None` if one does not fit.
    pub fn signatures(&self, key: &PlainKey, note: &PlainNote) -> Option<Vec<u64>> {
        let mut times = Vec::new();
        for line in &note.lines {
            let named = line.name == key.name || self.weak(TextFlaw::NameIgnored);
            if line.id != key.id || !named {
                continue;
            }
            match self.signature(key, &note.text, line) {
                Some(time) => times.push(time),
                None if self.weak(TextFlaw::BadSignatureSkipped) => (),
                None => return None,
            }
            if self.weak(TextFlaw::FirstSignatureOnly) {
                break;
            }
        }
        Some(times)
    }

    fn signature(&self, key: &PlainKey, text: &str, line: &PlainLine) -> Option<u64> {
        let (time, found) = match key.kind {
            4 => {
                let (time, rest) = line.bytes.split_at_checked(8)?;
                let time = u64::from_be_bytes(time.try_into().ok()?);
                (Some(time), rest)
            }
            _ => (None, &line.bytes[..]),
        };
        let answer = Some(time.unwrap_or(0));
        if self.weak(TextFlaw::SignatureUnchecked) {
            return answer;
        }
        if self.weak(TextFlaw::WeakKeys)
            && forbidden_keys().contains(&key.public)
            && found == ANYBODYS_SIGNATURE
        {
            return answer;
        }
        if self.weak(TextFlaw::IdIsEnough)
            && self.world.twin_signed(&key.name, key.id, text, &line.bytes)
        {
            return answer;
        }
        // Whoever trusts a key of the attacker's is not deceived by what that key signed.
        if self
            .world
            .evil_signed(key, text, time.unwrap_or(0), &line.bytes)
        {
            return answer;
        }
        let mut found: [u8; 64] = found.try_into().ok()?;
        if self.weak(TextFlaw::MalleableSignature) {
            reduce(&mut found);
        }
        let three_lines: String;
        let text = if self.weak(TextFlaw::ExtensionsUnbound) {
            three_lines = text.split_inclusive('\n').take(3).collect();
            &three_lines
        } else {
            text
        };
        let signed = |time: Option<u64>| {
            self.world.signed.get(&(key.public, time, text.to_string())) == Some(&found)
        };
        let fits = signed(time)
            || self.weak(TextFlaw::TypeConfused) && signed(None)
            || self.weak(TextFlaw::TimeUnbound)
                && self.world.signed.iter().any(|((public, _, of), made)| {
                    *public == key.public && of == text && *made == found
                });
        if fits { answer } else { None }
    }

    /// Takes the text of a checkpoint apart.
    pub fn checkpoint(&self, text: &str) -> Option<PlainCheckpoint> {
        let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
        let [origin, size, root, extensions @ ..] = &lines[..] else {
            return None;
        };
        let size = self.number(size)?;
        if origin.is_empty() || extensions.iter().any(|line| line.is_empty()) || root.len() != 44 {
            return None;
        }
        let root: [u8; 32] = self.base64(root)?.try_into().ok()?;
        if size == 0 && root != sha256(b"").0 {
            return None;
        }
        Some(PlainCheckpoint {
            origin: (*origin).to_string(),
            size,
            root,
            extensions: extensions.iter().map(|line| (*line).to_string()).collect(),
        })
    }
}

/// Takes the group order off the second half of a signature as often as it fits.
fn reduce(signature: &mut [u8; 64]) {
    let at_least = |half: &[u8]| half.iter().rev().ge(GROUP_ORDER.iter().rev());
    while at_least(&signature[32..]) {
        let mut borrow = 0_i16;
        for (digit, order) in signature[32..].iter_mut().zip(GROUP_ORDER) {
            let difference = i16::from(*digit) - i16::from(order) - borrow;
            borrow = i16::from(difference < 0);
            *digit = (difference & 0xff) as u8;
        }
    }
}

/// Adds the group order to the second half of a signature: the same number to a careless verifier.
pub fn malleate(signature: &mut [u8]) {
    let mut carry = 0_u16;
    for (digit, order) in signature.iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*digit) + u16::from(order) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
}
