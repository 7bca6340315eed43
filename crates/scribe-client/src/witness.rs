//! Asks a witness for its cosignature (<https://c2sp.org/tlog-witness>).
//!
//! One request, one answer: what to do about a refusal, and when to ask again, is the caller's.
//! What the witness answers is believed only as far as its signature goes: [`Witness::add_checkpoint`]
//! returns a cosignature that was checked against the key you configured, or says why there is none.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::witness::{
    ANSWER_LENGTH_MAX, AddCheckpoint, Answer, Cosignature, NotCosigned, Refusal, WitnessError,
    cosignature_by,
};
use scribe_proof::{SignedCheckpoint, TreeSize};

use crate::client::{base, http_client, transport};
use crate::error::{Error, TransportError, with_causes};

/// How long a witness may take, from the connection to the end of its answer, unless set.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a witness is and which key it cosigns with: `<verifier key> <submission URL>`.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessAddress {
    /// Its key, of type 0x04.
    pub key: VerifierKey,
    /// The submission prefix, without a slash at the end.
    pub url: String,
}

impl FromStr for WitnessAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<WitnessAddress, String> {
        let mut words = text.split_whitespace();
        let (Some(key), Some(url), None) = (words.next(), words.next(), words.next()) else {
            return Err("a witness is `<verifier key> <submission URL>`".to_owned());
        };
        let key = VerifierKey::parse(key).map_err(|error| error.to_string())?;
        if key.key_type() != KeyType::Cosignature {
            return Err(format!(
                "a witness cosigns with a key of type 0x04, {} has type 0x{:02x}: a signature of that type names no time \
                 and says nothing of what came before",
                key.name(),
                key.key_type() as u8
            ));
        }
        let url = base(url).map_err(|error| error.to_string())?;
        Ok(WitnessAddress { key, url })
    }
}

impl fmt::Display for WitnessAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.url)
    }
}

impl fmt::Debug for WitnessAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessAddress({self})")
    }
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCosignature {
    /// The witness cosigned this size last; the proof must begin there.
    #[error("the witness cosigned size {size} last, not the size the proof begins with")]
    Conflict {
        /// The size it cosigned last.
        size: TreeSize,
    },
    /// The witness refuses.
    #[error("the witness refuses: {refusal}{}", said(.text))]
    Refused {
        /// Why, by its status.
        refusal: Refusal,
        /// What it said, shortened.
        text: String,
    },
    /// The answer holds no cosignature by the key configured.
    #[error("the witness did not cosign: {0}")]
    NotCosigned(#[from] NotCosigned),
    /// The request cannot be made, or the answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Malformed(#[from] WitnessError),
    /// No answer.
    #[error("the witness does not answer: {}", reason(.0))]
    Transport(#[from] TransportError),
}

/// A transport error speaks of nodes.
fn reason(error: &TransportError) -> String {
    match error {
        TransportError::Connect(text) => text.clone(),
        TransportError::Certificate(text) => format!("its certificate is not believed: {text}"),
        TransportError::Broken(text) => format!("the connection broke: {text}"),
        TransportError::TimedOut { timeout_ms } => format!("nothing came within {timeout_ms} ms"),
    }
}

fn said(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!(", saying {text:?}")
}

/// A client of one witness, cheap to clone.
#[derive(Clone, Debug)]
pub struct Witness {
    http: reqwest::Client,
    address: WitnessAddress,
    timeout: Duration,
}

impl Witness {
    /// A client of the witness at this address. Nothing is sent. For `https` those certificates
    /// count that the operating system believes.
    ///
    /// # Errors
    /// [`Error::Transport`] if the HTTP client cannot be made.
    pub fn new(address: WitnessAddress) -> Result<Witness, Error> {
        let http = http_client(address.url.starts_with("https:"), None)?;
        Ok(Witness::with_http(address, http))
    }

    /// As [`Witness::new`], with this HTTP client, which should not follow redirects.
    #[must_use]
    pub fn with_http(address: WitnessAddress, http: reqwest::Client) -> Witness {
        Witness {
            http,
            address,
            timeout: TIMEOUT,
        }
    }

    /// How long the witness may take, from the connection to the end of its answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Witness {
        self.timeout = timeout;
        self
    }

    /// Where the witness is, and its key.
    #[must_use]
    pub fn address(&self) -> &WitnessAddress {
        &self.address
    }

    /// Submits a checkpoint and returns the witness's cosignature on it, checked. `now_s` is the
    /// caller's clock, in seconds since 1970: a cosignature of another time does not count.
    ///
    /// # Errors
    /// [`NoCosignature`].
    pub async fn add_checkpoint(
        &self,
        request: &AddCheckpoint,
        now_s: u64,
    ) -> Result<Cosignature, NoCosignature> {
        let body = request.to_text()?;
        let asked = tokio::time::timeout(self.timeout, self.ask(body));
        let (status, content_type, body) =
            asked.await.map_err(|_| TransportError::TimedOut {
                timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            })??;
        match Answer::parse(status, content_type.as_deref(), &body)? {
            Answer::Cosigned(signatures) => {
                let text = &request.checkpoint.note().text;
                let key = &self.address.key;
                Ok(cosignature_by(text, key, &signatures, now_s)?)
            }
            Answer::Conflict { size } => Err(NoCosignature::Conflict { size }),
            Answer::Refused(refusal) => {
                let text = String::from_utf8_lossy(&body);
                let line = text.lines().next().unwrap_or_default();
                Err(NoCosignature::Refused {
                    refusal,
                    text: line.chars().take(200).collect(),
                })
            }
        }
    }

    async fn ask(&self, body: String) -> Result<(u16, Option<String>, Vec<u8>), NoCosignature> {
        let request = self
            .http
            .post(format!("{}/add-checkpoint", self.address.url))
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(body);
        let mut response = request.send().await.map_err(|error| transport(&error))?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| TransportError::Broken(with_causes(&error)))?
        {
            let found = body.len() + chunk.len();
            if found > ANSWER_LENGTH_MAX {
                return Err(NoCosignature::Malformed(WitnessError::TooLong {
                    what: "answer",
                    found,
                    allowed: ANSWER_LENGTH_MAX,
                }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, content_type, body))
    }
}

/// The part of a checkpoint that a witness looks at: the note with the ledger's own signatures alone.
///
/// A witness ignores all others, and some cannot read them.
///
/// # Errors
/// The ledger did not sign it.
pub fn for_witnesses(checkpoint: &SignedCheckpoint) -> Result<SignedCheckpoint, NoCosignature> {
    let mut note = checkpoint.note().clone();
    let origin = &checkpoint.checkpoint().origin;
    note.signatures.retain(|line| line.name == *origin);
    if note.signatures.is_empty() {
        return Err(WitnessError::from(scribe_proof::NoteError::NoSignatures).into());
    }
    SignedCheckpoint::from_note(note).map_err(|error| WitnessError::from(error).into())
}
