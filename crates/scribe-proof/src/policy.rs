//! Whom you trust: which ledger keys, and how many cosigners (<https://c2sp.org/tlog-policy>).
//!
//! ```text
//! log <verifier key> [<url>]
//! witness <name> <verifier key> [<url>]
//! group <name> <k|any|all> <member>...
//! quorum <name|none>
//! ```
//!
//! A checkpoint satisfies a policy if one of its logs signed it and its quorum cosigned it. Names are
//! local to the policy; what counts are the keys.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::cosignature;
use crate::key::{KeyType, VerifierKey};
use crate::note::NoteError;

/// Longest policy text, in bytes.
pub const POLICY_LENGTH_MAX: usize = 256 * 1024;
/// Most logs, most witnesses and most groups of a policy, each. The specification asks for 32.
pub const POLICY_MEMBERS_MAX: usize = 128;

/// Why a policy is refused, or a checkpoint does not satisfy it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is too long.
    #[error("policy is {found} bytes long, at most 262144 are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A line breaks a rule.
    #[error("policy line {line}: {problem}")]
    Line {
        /// 1-based line.
        line: usize,
        /// The rule.
        problem: LineProblem,
    },
    /// No quorum line.
    #[error("policy has no quorum line; hint: `quorum none` asks for no cosignatures")]
    NoQuorum,
    /// No log of the policy has this origin.
    #[error("checkpoint is of origin {found:?}, the policy has no log of that name")]
    UnknownOrigin {
        /// The origin found.
        found: String,
    },
    /// No log of the policy signed.
    #[error("checkpoint of {origin:?} is not signed by any key the policy has for that log")]
    NotSigned {
        /// The origin.
        origin: String,
    },
    /// A known key's signature does not fit, or the checkpoint cannot be checked with a key.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Too few cosignatures.
    #[error("quorum {quorum:?} is not met: cosigned by {found} of the policy's {of} witnesses")]
    QuorumNotMet {
        /// Name of the quorum.
        quorum: String,
        /// Witnesses that cosigned.
        found: usize,
        /// Witnesses of the policy.
        of: usize,
    },
}

/// The rule a policy line breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// Control characters other than tab.
    #[error("control characters other than tab are not allowed")]
    ControlCharacter,
    /// Neither log, witness, group nor quorum.
    #[error("a line begins with log, witness, group, quorum or #")]
    Keyword,
    /// Too few or too many items.
    #[error("expected {0}")]
    Items(&'static str),
    /// A verifier key that cannot be used.
    #[error(transparent)]
    Key(#[from] NoteError),
    /// The same public key twice.
    #[error("this public key was listed before")]
    DuplicateKey,
    /// The name is taken, reserved or malformed.
    #[error("name {0:?} is empty, has spaces, is reserved or was defined before")]
    Name(String),
    /// The name is not defined above.
    #[error("name {0:?} is not defined on an earlier line")]
    UnknownName(String),
    /// The name is a member of a group already.
    #[error("name {0:?} is a member of a group already")]
    DuplicateMember(String),
    /// A threshold outside 1 to the number of members.
    #[error("threshold must be any, all, or a number from 1 to {members}")]
    Threshold {
        /// Members of the group.
        members: usize,
    },
    /// More than one quorum line.
    #[error("there must be exactly one quorum line")]
    SecondQuorum,
    /// Too many logs, witnesses or groups.
    #[error("at most 128 logs, witnesses and groups each are allowed")]
    TooMany,
}

/// A trusted set of ledgers and cosigners.
///
/// Invariants: no two logs and no two witnesses share a public key; witness and group names are
/// unique; a group's members come before it and no name is a member twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Log {
    key: VerifierKey,
    url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Witness {
    name: String,
    key: VerifierKey,
    url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: Threshold,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threshold {
    Any,
    All,
    AtLeast(usize),
}

/// A place in `witnesses` or `groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// What satisfied a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyReport {
    /// The ledger key that signed.
    pub log: VerifierKey,
    /// The policy's witnesses that cosigned, in the policy's order; also beyond the quorum.
    pub cosigners: Vec<Cosigner>,
}

/// A witness that cosigned a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cosigner {
    /// The witness's name in the policy.
    pub name: String,
    /// The name of its key.
    pub key_name: String,
    /// When it cosigned, in seconds since 1970-01-01 UTC, by its own clock.
    pub timestamp_s: u64,
}

impl Policy {
    /// The policy that trusts one ledger key and asks for no cosignatures.
    ///
    /// # Errors
    /// [`PolicyError::Line`] with the rule `log` lines break, if `key` is not a
    /// [`KeyType::Ed25519`] key.
    pub fn from_key(key: VerifierKey) -> Result<Policy, PolicyError> {
        Policy::majority(key, Vec::new())
    }

    /// The policy that asks for a ledger key and for cosignatures by a majority of `nodes`, given as
    /// names and keys. Without nodes it asks for no cosignatures.
    ///
    /// # Errors
    /// [`PolicyError::Line`] with the line that the policy's text would have.
    pub fn majority(
        ledger: VerifierKey,
        nodes: Vec<(String, VerifierKey)>,
    ) -> Result<Policy, PolicyError> {
        let mut text = format!("log {ledger}\n");
        let mut members = String::new();
        for (at, (name, key)) in nodes.iter().enumerate() {
            // A name of several words or lines would become something else in the text.
            if name.is_empty() || name.bytes().any(|byte| byte <= b' ') {
                let problem = LineProblem::Name(name.clone());
                return Err(PolicyError::Line {
                    line: at + 2,
                    problem,
                });
            }
            text.push_str(&format!("witness {name} {key}\n"));
            members.push(' ');
            members.push_str(name);
        }
        if nodes.is_empty() {
            text.push_str("quorum none\n");
        } else {
            let threshold = nodes.len() / 2 + 1;
            text.push_str(&format!("group node-majority {threshold}{members}\n"));
            text.push_str("quorum node-majority\n");
        }
        // Through the parser, so that every rule holds for it as for a policy from a file.
        Policy::parse(&text)
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError::TooLong`], [`PolicyError::Line`] with the first line that breaks a rule,
    /// [`PolicyError::NoQuorum`].
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        if text.len() > POLICY_LENGTH_MAX {
            return Err(PolicyError::TooLong { found: text.len() });
        }
        let mut reader = PolicyReader::default();
        for (at, line) in text.split('\n').enumerate() {
            reader.line(line).map_err(|problem| PolicyError::Line {
                line: at + 1,
                problem,
            })?;
        }
        match reader.quorum {
            Some(quorum) => Ok(Policy {
                quorum,
                ..reader.policy
            }),
            None => Err(PolicyError::NoQuorum),
        }
    }

    /// The policy as text: one line per log, witness and group, then the quorum. Comments and the
    /// order between kinds of lines are not kept.
    pub fn to_text(&self) -> String {
        let url = |url: &Option<String>| match url {
            Some(url) => format!(" {url}"),
            None => String::new(),
        };
        let mut text = String::new();
        for log in &self.logs {
            text.push_str(&format!("log {}{}\n", log.key, url(&log.url)));
        }
        for Witness { name, key, url: at } in &self.witnesses {
            text.push_str(&format!("witness {name} {key}{}\n", url(at)));
        }
        for Group {
            name,
            threshold,
            members,
        } in &self.groups
        {
            let threshold = match threshold {
                Threshold::Any => "any".to_string(),
                Threshold::All => "all".to_string(),
                Threshold::AtLeast(k) => k.to_string(),
            };
            text.push_str(&format!("group {name} {threshold}"));
            for member in members {
                text.push(' ');
                text.push_str(self.name_of(*member));
            }
            text.push('\n');
        }
        text.push_str(&format!("quorum {}\n", self.quorum_name()));
        text
    }

    /// The ledger keys, in order.
    pub fn log_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.logs.iter().map(|log| &log.key)
    }

    /// The witnesses' names and keys, in order.
    pub fn witness_keys(&self) -> impl Iterator<Item = (&str, &VerifierKey)> {
        self.witnesses
            .iter()
            .map(|witness| (witness.name.as_str(), &witness.key))
    }

    /// The name of the quorum, `none` if no cosignatures are asked for.
    pub fn quorum_name(&self) -> &str {
        match self.quorum {
            Some(member) => self.name_of(member),
            None => "none",
        }
    }

    /// Checks a checkpoint: the signature of a log of this policy, then the quorum.
    ///
    /// # Errors
    /// [`PolicyError::UnknownOrigin`], [`PolicyError::NotSigned`], [`PolicyError::QuorumNotMet`], or
    /// [`PolicyError::Checkpoint`] if *any* key of the policy has a signature that does not fit.
    pub fn evaluate(&self, checkpoint: &SignedCheckpoint) -> Result<PolicyReport, PolicyError> {
        let origin = &checkpoint.checkpoint().origin;
        let mut known = false;
        let mut signed_by = None;
        // Every key of that name is looked at, as while a key is being replaced there are two.
        for log in self.logs.iter().filter(|log| log.key.name() == *origin) {
            known = true;
            match checkpoint.verify(&log.key) {
                Ok(_) => signed_by = signed_by.or(Some(&log.key)),
                Err(CheckpointError::NotSigned { .. }) => (),
                Err(error) => return Err(error.into()),
            }
        }
        if !known {
            return Err(PolicyError::UnknownOrigin {
                found: origin.clone(),
            });
        }
        let Some(log) = signed_by else {
            return Err(PolicyError::NotSigned {
                origin: origin.clone(),
            });
        };
        let (cosigners, cosigned) = self.find_cosigners(checkpoint)?;
        if !self.quorum_met(&cosigned) {
            return Err(PolicyError::QuorumNotMet {
                quorum: self.quorum_name().to_string(),
                found: cosigners.len(),
                of: self.witnesses.len(),
            });
        }
        Ok(PolicyReport {
            log: log.clone(),
            cosigners,
        })
    }

    /// The policy's witnesses that cosigned a checkpoint, in the policy's order, whether or not they are
    /// enough. It says nothing about the ledger's own signature.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] if the cosignature of one of them does not fit.
    pub fn cosigners(&self, checkpoint: &SignedCheckpoint) -> Result<Vec<Cosigner>, PolicyError> {
        Ok(self.find_cosigners(checkpoint)?.0)
    }

    /// Who cosigned, and for each witness in order whether it did.
    fn find_cosigners(
        &self,
        checkpoint: &SignedCheckpoint,
    ) -> Result<(Vec<Cosigner>, Vec<bool>), PolicyError> {
        let mut cosigners = Vec::new();
        let mut cosigned = Vec::with_capacity(self.witnesses.len());
        for witness in &self.witnesses {
            let timestamp = cosignature::find(checkpoint.note(), &witness.key)
                .map_err(CheckpointError::from)?;
            cosigned.push(timestamp.is_some());
            if let Some(timestamp_s) = timestamp {
                cosigners.push(Cosigner {
                    name: witness.name.clone(),
                    key_name: witness.key.name().to_string(),
                    timestamp_s,
                });
            }
        }
        Ok((cosigners, cosigned))
    }

    /// Whether the quorum holds when these witnesses (one flag each, in order) cosigned.
    fn quorum_met(&self, cosigned: &[bool]) -> bool {
        let mut met: Vec<bool> = Vec::with_capacity(self.groups.len());
        let holds = |member: Member, met: &[bool]| match member {
            Member::Witness(at) => cosigned[at],
            Member::Group(at) => met[at],
        };
        // Members come before their group, so one pass in order is enough.
        for group in &self.groups {
            let count = group
                .members
                .iter()
                .filter(|member| holds(**member, &met))
                .count();
            met.push(match group.threshold {
                Threshold::Any => count >= 1,
                Threshold::All => count == group.members.len(),
                Threshold::AtLeast(k) => count >= k,
            });
        }
        match self.quorum {
            Some(member) => holds(member, &met),
            None => true,
        }
    }

    fn name_of(&self, member: Member) -> &str {
        match member {
            Member::Witness(at) => &self.witnesses[at].name,
            Member::Group(at) => &self.groups[at].name,
        }
    }

    fn find(&self, name: &str) -> Option<Member> {
        let witness = self
            .witnesses
            .iter()
            .position(|witness| witness.name == name);
        let group = || self.groups.iter().position(|group| group.name == name);
        witness
            .map(Member::Witness)
            .or_else(|| group().map(Member::Group))
    }
}

impl core::str::FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text)
    }
}

/// A policy as far as it was read.
struct PolicyReader {
    policy: Policy,
    quorum: Option<Option<Member>>,
    /// Every member of every group so far.
    grouped: Vec<Member>,
}

impl Default for PolicyReader {
    fn default() -> PolicyReader {
        let policy = Policy {
            logs: Vec::new(),
            witnesses: Vec::new(),
            groups: Vec::new(),
            quorum: None,
        };
        PolicyReader {
            policy,
            quorum: None,
            grouped: Vec::new(),
        }
    }
}

impl PolicyReader {
    fn line(&mut self, line: &str) -> Result<(), LineProblem> {
        if line
            .bytes()
            .any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f)
        {
            return Err(LineProblem::ControlCharacter);
        }
        // Only space and tab separate; other Unicode spaces belong to names.
        let mut items = line.split([' ', '\t']).filter(|item| !item.is_empty());
        let Some(keyword) = items.next() else {
            return Ok(());
        };
        if keyword.starts_with('#') {
            return Ok(());
        }
        // More names than there can be witnesses and groups: one of them is refused as a second use or
        // as unknown, so cutting the rest off changes no answer.
        let items: Vec<&str> = items.take(2 * POLICY_MEMBERS_MAX + 3).collect();
        match keyword {
            "log" => self.log(&items),
            "witness" => self.witness(&items),
            "group" => self.group(&items),
            "quorum" => self.quorum(&items),
            _ => Err(LineProblem::Keyword),
        }
    }

    fn log(&mut self, items: &[&str]) -> Result<(), LineProblem> {
        let (key, url) = match items {
            [key] => (key, None),
            [key, url] => (key, Some((*url).to_string())),
            _ => return Err(LineProblem::Items("log <verifier key> [<url>]")),
        };
        let key = parse_key(key, KeyType::Ed25519)?;
        let logs = &mut self.policy.logs;
        check_room(logs.len())?;
        if logs
            .iter()
            .any(|log| log.key.public_key() == key.public_key())
        {
            return Err(LineProblem::DuplicateKey);
        }
        logs.push(Log { key, url });
        Ok(())
    }

    fn witness(&mut self, items: &[&str]) -> Result<(), LineProblem> {
        let (name, key, url) = match items {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some((*url).to_string())),
            _ => return Err(LineProblem::Items("witness <name> <verifier key> [<url>]")),
        };
        let key = parse_key(key, KeyType::Cosignature)?;
        let name = self.new_name(name)?;
        let witnesses = &mut self.policy.witnesses;
        check_room(witnesses.len())?;
        if witnesses
            .iter()
            .any(|witness| witness.key.public_key() == key.public_key())
        {
            return Err(LineProblem::DuplicateKey);
        }
        witnesses.push(Witness { name, key, url });
        Ok(())
    }

    fn group(&mut self, items: &[&str]) -> Result<(), LineProblem> {
        let (name, threshold, names) = match items {
            [name, threshold, names @ ..] if !names.is_empty() => (name, threshold, names),
            _ => return Err(LineProblem::Items("group <name> <k|any|all> <member>...")),
        };
        let name = self.new_name(name)?;
        check_room(self.policy.groups.len())?;
        let threshold = match *threshold {
            "any" => Threshold::Any,
            "all" => Threshold::All,
            number => match crate::index::parse_decimal(number) {
                Some(k) if k >= 1 && k <= names.len() as u64 => Threshold::AtLeast(k as usize),
                _ => {
                    return Err(LineProblem::Threshold {
                        members: names.len(),
                    });
                }
            },
        };
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let member = self
                .policy
                .find(name)
                .ok_or_else(|| LineProblem::UnknownName((*name).to_string()))?;
            if self.grouped.contains(&member) {
                return Err(LineProblem::DuplicateMember((*name).to_string()));
            }
            self.grouped.push(member);
            members.push(member);
        }
        self.policy.groups.push(Group {
            name,
            threshold,
            members,
        });
        Ok(())
    }

    fn quorum(&mut self, items: &[&str]) -> Result<(), LineProblem> {
        let [name] = items else {
            return Err(LineProblem::Items("quorum <name|none>"));
        };
        if self.quorum.is_some() {
            return Err(LineProblem::SecondQuorum);
        }
        self.quorum = Some(match *name {
            "none" => None,
            name => Some(
                self.policy
                    .find(name)
                    .ok_or_else(|| LineProblem::UnknownName(name.to_string()))?,
            ),
        });
        Ok(())
    }

    fn new_name(&self, name: &str) -> Result<String, LineProblem> {
        if name == "none" || self.policy.find(name).is_some() {
            return Err(LineProblem::Name(name.to_string()));
        }
        Ok(name.to_string())
    }
}

fn parse_key(text: &str, expected: KeyType) -> Result<VerifierKey, LineProblem> {
    let key = VerifierKey::parse(text)?;
    key.expect_type(expected)?;
    Ok(key)
}

fn check_room(length: usize) -> Result<(), LineProblem> {
    if length >= POLICY_MEMBERS_MAX {
        Err(LineProblem::TooMany)
    } else {
        Ok(())
    }
}

/// What a receipt or checkpoint can be verified against: a [`Policy`], or one [`VerifierKey`].
///
/// A single ledger key is held by every voter of a cluster, so one stolen node can fork the ledger
/// for those who check only that key; a policy that also asks for a majority of nodes cannot be
/// satisfied that way.
pub trait Trust {
    /// Checks a checkpoint and says who signed it.
    ///
    /// # Errors
    /// Whatever is missing or wrong, see [`Policy::evaluate`].
    fn evaluate(&self, checkpoint: &SignedCheckpoint) -> Result<PolicyReport, PolicyError>;
}

impl Trust for Policy {
    fn evaluate(&self, checkpoint: &SignedCheckpoint) -> Result<PolicyReport, PolicyError> {
        Policy::evaluate(self, checkpoint)
    }
}

impl Trust for VerifierKey {
    fn evaluate(&self, checkpoint: &SignedCheckpoint) -> Result<PolicyReport, PolicyError> {
        checkpoint.verify(self)?;
        Ok(PolicyReport {
            log: self.clone(),
            cosigners: Vec::new(),
        })
    }
}

impl<T: Trust + ?Sized> Trust for &T {
    fn evaluate(&self, checkpoint: &SignedCheckpoint) -> Result<PolicyReport, PolicyError> {
        (**self).evaluate(checkpoint)
    }
}
