//! What the page asks, answered as JSON: whom does the user trust, what does the receipt prove, is this the value.
//!
//! Every judgement is `scribe-proof`'s. Numbers are text in the answers, because JavaScript's are exact only up to 2^53.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scribe_proof::policy::POLICY_LENGTH_MAX;
use scribe_proof::receipt::RECEIPT_LENGTH_MAX;
use scribe_proof::{
    CommitmentHasher, Entry, Included, KEY_LENGTH_MAX, KeyType, LeafKind, Policy, Prev, Receipt,
    ReceiptError, SignedCheckpoint, SystemKind, Trust, VerifierKey, cosignature,
};

use crate::json::Json;

/// Longest piece of a value that is taken at once, in bytes.
const PIECE_LENGTH_MAX: usize = 1024 * 1024;

/// What the page hands over. The numbers are those of [`crate::reserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The receipt, as it lies in its file.
    Receipt,
    /// The ledger's verifier key, or a policy.
    Trust,
    /// The key that the entry must have, as `scribe` shows keys.
    EntryKey,
    /// A piece of the value.
    Piece,
}

impl Input {
    /// The input of this number.
    pub fn from_number(number: u32) -> Option<Input> {
        match number {
            0 => Some(Input::Receipt),
            1 => Some(Input::Trust),
            2 => Some(Input::EntryKey),
            3 => Some(Input::Piece),
            _ => None,
        }
    }

    /// Longest it may be, in bytes. One more than is valid where the verifier has its own words for "too long".
    pub fn longest(self) -> usize {
        match self {
            Input::Receipt => RECEIPT_LENGTH_MAX + 1,
            Input::Trust => POLICY_LENGTH_MAX + 1,
            // As base64 with its prefix, a key takes four thirds of its length and some.
            Input::EntryKey => 2 * KEY_LENGTH_MAX,
            Input::Piece => PIECE_LENGTH_MAX,
        }
    }
}

/// What is known so far: the inputs, and what the last calls found.
#[derive(Debug, Default)]
pub struct Session {
    inputs: [Vec<u8>; 4],
    trust: Option<Trusted>,
    entry: Option<Included<Entry>>,
    hasher: Option<CommitmentHasher>,
    answer: String,
}

#[derive(Debug)]
enum Trusted {
    Key(VerifierKey),
    Policy(Policy),
}

impl Trusted {
    fn as_trust(&self) -> &dyn Trust {
        match self {
            Trusted::Key(key) => key,
            Trusted::Policy(policy) => policy,
        }
    }

    /// A lone key, or a policy. A key is one word; a policy never is.
    fn parse(text: &str) -> Result<Trusted, String> {
        let text_trimmed = text.trim();
        if text_trimmed.is_empty() {
            return Err("is empty".to_owned());
        }
        if text_trimmed.contains(char::is_whitespace) {
            let policy = Policy::parse(text).map_err(|error| error.to_string())?;
            return Ok(Trusted::Policy(policy));
        }
        let key = VerifierKey::parse(text_trimmed).map_err(|error| error.to_string())?;
        if key.key_type() != KeyType::Ed25519 {
            return Err(format!(
                "key {} is one of a node or witness; the ledger's own key is needed, or a policy with both",
                key.name()
            ));
        }
        Ok(Trusted::Key(key))
    }
}

impl Session {
    /// Makes place for an input. Whatever was found from the earlier one is forgotten.
    pub fn reserve(&mut self, input: Input, length: usize) -> Option<&mut Vec<u8>> {
        if length > input.longest() {
            return None;
        }
        if input != Input::Piece {
            self.entry = None;
            self.hasher = None;
        }
        if input == Input::Trust {
            self.trust = None;
        }
        let place = &mut self.inputs[input as usize];
        place.clear();
        place.resize(length, 0);
        Some(place)
    }

    /// The last answer.
    pub fn answer(&self) -> &str {
        &self.answer
    }

    fn tell(&mut self, members: Vec<(&'static str, Json)>) {
        self.answer.clear();
        Json::Object(members).write(&mut self.answer);
    }

    fn fail(&mut self, step: &'static str, error: impl ToString) {
        self.tell(vec![
            ("ok", Json::Flag(false)),
            ("step", Json::text(step)),
            ("error", Json::text(error)),
        ]);
    }

    /// See [`crate::read_trust`]. Answers `{ok, kind, logs, witnesses, rules, quorum}`.
    pub fn read_trust(&mut self) {
        let bytes = &self.inputs[Input::Trust as usize];
        let trusted = match std::str::from_utf8(bytes) {
            Ok(text) => Trusted::parse(text),
            Err(error) => Err(format!("is no text from byte {} on", error.valid_up_to())),
        };
        match trusted {
            Ok(trusted) => {
                self.tell(describe(&trusted));
                self.trust = Some(trusted);
            }
            Err(error) => self.fail("trust", error),
        }
    }

    /// See [`crate::verify`]. Answers `{ok, entry, checkpoint, cosigned}`, or `{ok: false, step, error}`, where step is
    /// `trust`, `receipt`, `inclusion`, `origin`, `signature`, `later` or `key`. A key that does not match comes with
    /// the entry: the receipt is valid, but for that one.
    pub fn verify(&mut self, has_key: bool) {
        self.entry = None;
        self.hasher = None;
        let Some(trusted) = &self.trust else {
            return self.fail("trust", "say whom you trust first");
        };
        let text = match std::str::from_utf8(&self.inputs[Input::Receipt as usize]) {
            Ok(text) => text,
            Err(error) => {
                let error = format!("receipt is no text from byte {} on", error.valid_up_to());
                return self.fail("receipt", error);
            }
        };
        let receipt = match Receipt::parse(text) {
            Ok(receipt) => receipt,
            Err(error) => return self.fail("receipt", error),
        };
        let cosigned = cosigned(trusted, &receipt);
        let entry = match receipt.verify(trusted.as_trust()) {
            Ok(entry) => entry,
            Err(error) => {
                let (step, error) = (step(&error), error.to_string());
                return self.tell(vec![
                    ("ok", Json::Flag(false)),
                    ("step", Json::text(step)),
                    ("error", Json::text(error)),
                    ("cosigned", cosigned),
                ]);
            }
        };
        let mut members = vec![
            ("entry", describe_entry(&entry)),
            ("checkpoint", describe_checkpoint(&entry)),
            ("cosigned", cosigned),
        ];
        let key = match has_key {
            true => read_key(&self.inputs[Input::EntryKey as usize])
                .and_then(|key| entry.check_key(&key).map_err(|error| error.to_string())),
            false => Ok(()),
        };
        members.push(("ok", Json::Flag(key.is_ok())));
        match key {
            Ok(()) => self.entry = Some(entry),
            Err(error) => {
                members.push(("step", Json::text("key")));
                members.push(("error", Json::text(error)));
            }
        }
        self.tell(members);
    }

    /// See [`crate::value_begin`]. Answers `{ok}`, or an error with step `value`.
    pub fn value_begin(&mut self, length: u64) {
        self.hasher = None;
        let Some(entry) = &self.entry else {
            return self.fail("value", "verify the receipt first");
        };
        if entry.kind != LeafKind::Put {
            let error = format!(
                "the entry is a {} and has no value",
                kind_name(entry.kind, entry.system_kind)
            );
            return self.fail("value", error);
        }
        match entry.value_hasher(length) {
            Ok(hasher) => {
                self.hasher = Some(hasher);
                self.tell(vec![("ok", Json::Flag(true))]);
            }
            Err(error) => self.fail("value", error),
        }
    }

    /// See [`crate::value_piece`]. Answers nothing: the end does.
    pub fn value_piece(&mut self) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.inputs[Input::Piece as usize]);
        }
    }

    /// See [`crate::value_end`]. Answers `{ok, content_type, pairs}`, or an error with step `value`.
    pub fn value_end(&mut self) {
        let (Some(entry), Some(hasher)) = (&self.entry, self.hasher.take()) else {
            return self.fail("value", "begin with a value first");
        };
        let computed = match hasher.finish() {
            Ok(computed) => computed,
            Err(error) => return self.fail("value", error),
        };
        match entry.check_commitment(computed) {
            Ok(metadata) => {
                let pairs = metadata.pairs.iter().map(|(name, value)| {
                    Json::Object(vec![
                        ("name", Json::text(name)),
                        ("value", Json::text(value)),
                    ])
                });
                let members = vec![
                    ("ok", Json::Flag(true)),
                    ("content_type", Json::text(&metadata.content_type)),
                    ("pairs", Json::List(pairs.collect())),
                ];
                self.tell(members);
            }
            Err(error) => self.fail("value", error),
        }
    }
}

/// Which step of the verification failed.
fn step(error: &ReceiptError) -> &'static str {
    match error {
        ReceiptError::Inclusion(_) => "inclusion",
        ReceiptError::Origin(_) => "origin",
        ReceiptError::Signature(_) => "signature",
        ReceiptError::NotUnderstood(_) => "later",
        ReceiptError::EntryKey => "key",
        ReceiptError::Value { .. } | ReceiptError::Redacted => "value",
        _ => "receipt",
    }
}

fn describe(trusted: &Trusted) -> Vec<(&'static str, Json)> {
    let key = |name: &str, key: &VerifierKey| {
        Json::Object(vec![
            ("name", Json::text(name)),
            ("key_name", Json::text(key.name())),
            ("key", Json::text(key)),
        ])
    };
    let (kind, logs, witnesses, rules, quorum) = match trusted {
        Trusted::Key(log) => (
            "key",
            vec![key(log.name(), log)],
            vec![],
            vec![],
            "none".to_owned(),
        ),
        Trusted::Policy(policy) => {
            let logs = policy.log_keys().map(|log| key(log.name(), log)).collect();
            let witnesses = policy
                .witness_keys()
                .map(|(name, witness)| key(name, witness));
            (
                "policy",
                logs,
                witnesses.collect(),
                rules(policy),
                policy.quorum_name().to_owned(),
            )
        }
    };
    vec![
        ("ok", Json::Flag(true)),
        ("kind", Json::text(kind)),
        ("logs", Json::List(logs)),
        ("witnesses", Json::List(witnesses)),
        ("rules", Json::List(rules)),
        ("quorum", Json::text(quorum)),
    ]
}

/// The groups, from the policy's own text: `group <name> <threshold> <member>...`.
fn rules(policy: &Policy) -> Vec<Json> {
    let text = policy.to_text();
    let groups = text.lines().filter_map(|line| line.strip_prefix("group "));
    groups
        .filter_map(|group| {
            let mut words = group.split(' ');
            let (name, threshold) = (words.next()?, words.next()?);
            let members = words.map(Json::text).collect();
            Some(Json::Object(vec![
                ("name", Json::text(name)),
                ("threshold", Json::text(threshold)),
                ("members", Json::List(members)),
            ]))
        })
        .collect()
}

/// For each witness of the policy, in order: when it cosigned the receipt's checkpoint, or `null` if it did not.
///
/// This says whose signature is there, also when the receipt as a whole does not hold.
fn cosigned(trusted: &Trusted, receipt: &Receipt) -> Json {
    let Trusted::Policy(policy) = trusted else {
        return Json::List(Vec::new());
    };
    let Ok(signed) = SignedCheckpoint::parse(&receipt.checkpoint_note) else {
        return Json::List(Vec::new());
    };
    let times = policy.witness_keys().map(|(_, key)| {
        // One that does not fit is an error of the whole, and told there.
        Json::maybe(cosignature::find(signed.note(), key).ok().flatten())
    });
    Json::List(times.collect())
}

fn describe_entry(included: &Included<Entry>) -> Json {
    let entry = included.get();
    let prev = match entry.prev {
        Prev::None => Json::text("none"),
        Prev::NotAsserted => Json::Null,
        Prev::Version(index) => Json::text(index),
    };
    Json::Object(vec![
        ("key", Json::text(show_bytes(&entry.key))),
        ("index", Json::text(included.index())),
        ("kind", Json::text(kind_name(entry.kind, entry.system_kind))),
        ("timestamp_ms", Json::text(entry.timestamp_ms)),
        ("author", Json::text(show_bytes(&entry.author))),
        ("previous", prev),
        (
            "transaction_position",
            Json::text(entry.transaction_position),
        ),
        ("transaction_length", Json::text(entry.transaction_length)),
        ("leaf_hash", Json::text(entry.leaf_hash)),
        (
            "redacted",
            Json::Flag(entry.kind != LeafKind::System && entry.is_redacted()),
        ),
    ])
}

fn describe_checkpoint(included: &Included<Entry>) -> Json {
    let log = &included.report().log;
    Json::Object(vec![
        ("origin", Json::text(included.origin())),
        ("tree_size", Json::text(included.tree_size())),
        ("root_hash", Json::text(included.root())),
        ("signed_by", Json::text(log)),
    ])
}

fn kind_name(kind: LeafKind, system: Option<SystemKind>) -> &'static str {
    match (kind, system) {
        (LeafKind::Put, _) => "put",
        (LeafKind::Delete, _) => "delete",
        (LeafKind::System, Some(SystemKind::Genesis)) => "system (genesis)",
        (LeafKind::System, Some(SystemKind::LedgerKey)) => "system (ledger key)",
        (LeafKind::System, Some(SystemKind::NodeKey)) => "system (node key)",
        (LeafKind::System, _) => "system",
    }
}

/// Marks bytes that are shown as base64.
const BASE64: &str = "base64:";

/// Bytes as `scribe` shows a key: text where it is printable, `base64:…` otherwise. No two keys look the same.
fn show_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) && !text.starts_with(BASE64) => {
            text.to_owned()
        }
        _ => format!("{BASE64}{}", STANDARD.encode(bytes)),
    }
}

/// A key as [`show_bytes`] shows it.
fn read_key(shown: &[u8]) -> Result<Vec<u8>, String> {
    match shown.strip_prefix(BASE64.as_bytes()) {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|error| format!("entry key after `base64:` must be base64: {error}")),
        None => Ok(shown.to_vec()),
    }
}

#[cfg(test)]
mod tests;
