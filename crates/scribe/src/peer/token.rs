//! Join tokens: what a new node is given by hand to be let in once, and the book of those that were given out.
//!
//! A token carries the addresses of members, the fingerprint of the cluster's CA (so that the new node talks to the
//! right cluster before it has a certificate) and a secret (so that the cluster lets it in). The book keeps only the
//! hash of the secret, when it expires and whether it was used:
//!
//! ```text
//! token                scribe-join-v1.<base64url of:>
//!                      u64 expires ms | 32 CA fingerprint | 32 secret | u8 addresses | each: u8 length | text
//!                      | 4 first bytes of the SHA-256 of all before
//! <key dir>/join-tokens        scribe-ledger/join-tokens/v1
//!                              <hash, 64 hex> <expires ms> <used ms, or ->          one line per token
//! <key dir>/join-tokens.lock   held while the book is read and rewritten
//! ```
//!
//! The book of one node knows only its own tokens. Whether a redeemed token makes a member is the caller's business.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use scribe_proof::hash::{Hash, sha256};

use crate::world::World;

/// File with the book.
pub const TOKENS_FILE: &str = "join-tokens";
const LOCK_FILE: &str = "join-tokens.lock";
const PREFIX: &str = "scribe-join-v1.";
const MAGIC: &str = "scribe-ledger/join-tokens/v1";
/// Members named in one token.
const ADDRESSES_MAX: usize = 16;
/// Longest token text: 16 addresses of 255 bytes in base64, and the rest.
const TEXT_LENGTH_MAX: usize = 8 * 1_024;
/// Tokens in the book; more than anybody needs at once.
const TOKENS_MAX: usize = 1_024;
/// Longest book.
const FILE_LENGTH_MAX: u64 = 256 * 1_024;
/// A token is forgotten this long after it expired. Until then its use is answered with the reason.
const REMEMBERED_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Why a token or the book cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The text is no token.
    #[error("not a join token: {0}")]
    Malformed(&'static str),
    /// It cannot be made.
    #[error("a join token has 1 to {ADDRESSES_MAX} addresses of 1 to 255 bytes each")]
    Addresses,
    /// The book is full.
    #[error("there are {found} join tokens, allowed are {TOKENS_MAX}")]
    TooMany {
        /// Tokens in the book.
        found: usize,
    },
    /// The book cannot be understood.
    #[error("`{}` is damaged: {rule}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it must be.
        rule: &'static str,
    },
    /// The system refused.
    #[error("cannot {what} `{}`: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl TokenError {
    /// A next step for the user, when there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => Some(
                "copy the whole text that starts with scribe-join-v1., without spaces or line breaks",
            ),
            Self::TooMany { .. } => Some("wait until some have expired"),
            Self::Damaged { .. } => {
                Some("remove the file: tokens given out before are void then, make new ones")
            }
            _ => None,
        }
    }

    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Io {
            what,
            path: path.to_path_buf(),
            error,
        }
    }
}

/// What a new node is given. Its `Display` is the secret text; its `Debug` is not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Addresses of members, any of which can be asked.
    pub addresses: Vec<String>,
    /// SHA-256 of the cluster's CA certificate. All zeros in a cluster without TLS.
    pub ca_fingerprint: [u8; 32],
    /// Lets the node in, once.
    pub secret: [u8; 32],
    /// When it is void, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl JoinToken {
    /// Whether a text is meant as a token, and not as the name of a file that holds one.
    pub fn looks_like(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.expires_ms.to_be_bytes());
        bytes.extend_from_slice(&self.ca_fingerprint);
        bytes.extend_from_slice(&self.secret);
        // `TokenBook::issue` and `from_str` keep both counts within a byte.
        bytes.push(self.addresses.len() as u8);
        for address in &self.addresses {
            bytes.push(address.len() as u8);
            bytes.extend_from_slice(address.as_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = TokenError::Malformed;
        if text.len() > TEXT_LENGTH_MAX {
            return Err(wrong("it is longer than any token"));
        }
        let text = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(wrong("it does not start with scribe-join-v1."))?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| wrong("it is not base64url"))?;
        let (body, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or(wrong("it is too short"))?;
        if *sum != checksum(body) {
            return Err(wrong("a part is missing or was changed"));
        }
        let mut rest = body;
        let short = || wrong("it is too short");
        let expires_ms = u64::from_be_bytes(take(&mut rest).ok_or_else(short)?);
        let ca_fingerprint = take(&mut rest).ok_or_else(short)?;
        let secret = take(&mut rest).ok_or_else(short)?;
        let [count] = take(&mut rest).ok_or_else(short)?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let [length] = take(&mut rest).ok_or_else(short)?;
            let (address, after) = rest
                .split_at_checked(usize::from(length))
                .ok_or_else(short)?;
            rest = after;
            addresses.push(
                String::from_utf8(address.to_vec())
                    .map_err(|_| wrong("an address is not UTF-8"))?,
            );
        }
        if !rest.is_empty() {
            return Err(wrong("it is too long"));
        }
        if !addresses_fit(&addresses) {
            return Err(TokenError::Addresses);
        }
        Ok(JoinToken {
            addresses,
            ca_fingerprint,
            secret,
            expires_ms,
        })
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = *sha256(bytes).as_bytes();
    [a, b, c, d]
}

fn addresses_fit(addresses: &[String]) -> bool {
    (1..=ADDRESSES_MAX).contains(&addresses.len())
        && addresses
            .iter()
            .all(|address| (1..=255).contains(&address.len()))
}

/// What became of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Redeem {
    /// It was good, and is used up now.
    Ok,
    /// It was good once.
    Expired,
    /// Somebody used it before.
    Used,
    /// It was never given out here.
    Unknown,
}

/// The tokens one node has given out. Several processes may use the same book.
#[derive(Debug, Clone)]
pub struct TokenBook {
    directory: PathBuf,
}

/// A token that was given out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    hash: Hash,
    expires_ms: u64,
    used_ms: Option<u64>,
}

impl TokenBook {
    /// The book of a key directory. It need not exist yet.
    pub fn new(key_dir: &Path) -> TokenBook {
        TokenBook {
            directory: key_dir.to_owned(),
        }
    }

    /// Gives out a new token. It is in the book, durably, before it is returned.
    pub fn issue(
        &self,
        addresses: Vec<String>,
        ca_fingerprint: [u8; 32],
        valid_ms: u64,
        world: &World,
    ) -> Result<JoinToken, TokenError> {
        if !addresses_fit(&addresses) {
            return Err(TokenError::Addresses);
        }
        let now_ms = world.now_ms();
        let token = JoinToken {
            addresses,
            ca_fingerprint,
            secret: world.random(),
            expires_ms: now_ms.saturating_add(valid_ms),
        };
        let _lock = self.lock()?;
        let mut lines = self.read()?;
        lines.retain(|line| line.expires_ms.saturating_add(REMEMBERED_MS) > now_ms);
        if lines.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany { found: lines.len() });
        }
        lines.push(Line {
            hash: sha256(&token.secret),
            expires_ms: token.expires_ms,
            used_ms: None,
        });
        // A crash before the end of this leaves a book without the token, which nobody has seen; after it, a token in
        // the book that nobody has: it expires.
        self.write(&lines)?;
        Ok(token)
    }

    /// Uses a secret up. Blocks on the disk.
    pub fn redeem(&self, secret: &[u8; 32], now_ms: u64) -> Result<Redeem, TokenError> {
        let hash = sha256(secret);
        let _lock = self.lock()?;
        let mut lines = self.read()?;
        let Some(line) = lines.iter_mut().find(|line| line.hash == hash) else {
            return Ok(Redeem::Unknown);
        };
        if line.used_ms.is_some() {
            return Ok(Redeem::Used);
        }
        if line.expires_ms <= now_ms {
            return Ok(Redeem::Expired);
        }
        line.used_ms = Some(now_ms);
        // A crash before the end of this leaves the token unused, and nobody was let in by it; after it, used, and the
        // node that sent it may have got no answer. Then it needs a new token, which is cheaper than a token that works
        // twice.
        self.write(&lines)?;
        Ok(Redeem::Ok)
    }

    /// Tokens that could still be redeemed.
    pub fn outstanding(&self, now_ms: u64) -> Result<usize, TokenError> {
        let _lock = self.lock()?;
        let lines = self.read()?;
        let open = |line: &&Line| line.used_ms.is_none() && line.expires_ms > now_ms;
        Ok(lines.iter().filter(open).count())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(TOKENS_FILE)
    }

    /// Released when the file is closed.
    fn lock(&self) -> Result<File, TokenError> {
        let path = self.directory.join(LOCK_FILE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(TokenError::io("open", &path))?;
        file.lock().map_err(TokenError::io("lock", &path))?;
        Ok(file)
    }

    fn read(&self) -> Result<Vec<Line>, TokenError> {
        let path = self.path();
        let damaged = |rule| TokenError::Damaged {
            path: path.clone(),
            rule,
        };
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TokenError::io("read", &path)(error)),
        };
        if length > FILE_LENGTH_MAX {
            return Err(damaged("it is longer than any book"));
        }
        let text = fs::read_to_string(&path).map_err(TokenError::io("read", &path))?;
        parse_book(&text).map_err(damaged)
    }

    /// Replaces the book. When this returns, the new one survives a crash; until then, the old one does.
    fn write(&self, lines: &[Line]) -> Result<(), TokenError> {
        let path = self.path();
        let temporary = self.directory.join(format!("{TOKENS_FILE}.new"));
        let text = book_text(lines);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(TokenError::io("create", &temporary))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(TokenError::io("write", &temporary))?;
        // A crash here leaves the old book and a temporary file that the next write replaces.
        fs::rename(&temporary, &path).map_err(TokenError::io("replace", &path))?;
        // A crash here leaves either book: the caller has not been told yet.
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(TokenError::io("sync", &self.directory))
    }
}

/// The lines of a book; the error is the rule it breaks.
pub(super) fn parse_book(text: &str) -> Result<Vec<Line>, &'static str> {
    let lines = text
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.strip_prefix('\n'))
        .ok_or("its first line must be scribe-ledger/join-tokens/v1")?;
    lines
        .split_inclusive('\n')
        .map(|line| line.strip_suffix('\n').and_then(Line::parse))
        .map(|line| line.ok_or("each line must be a hash, an expiry and a use"))
        .collect()
}

/// A book as text.
pub(super) fn book_text(lines: &[Line]) -> String {
    let mut text = format!("{MAGIC}\n");
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let mut fields = text.split(' ');
        let line = Line {
            hash: Hash::from_hex(fields.next()?).ok()?,
            expires_ms: fields.next()?.parse().ok()?,
            used_ms: match fields.next()? {
                "-" => None,
                used => Some(used.parse().ok()?),
            },
        };
        // One spelling only: what follows the last field, a plus sign and leading zeros are none of this program's.
        (line.to_string() == text).then_some(line)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.hash.to_hex(), self.expires_ms)?;
        match self.used_ms {
            Some(used_ms) => write!(f, "{used_ms}"),
            None => f.write_str("-"),
        }
    }
}
