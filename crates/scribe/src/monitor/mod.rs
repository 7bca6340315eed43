//! The monitor: follows a ledger through its nodes (or static copies of it) and raises an alarm when what they show does
//! not go together.
//!
//! In each [round](Monitor::round) every node's newest checkpoint is taken, checked against what the user trusts, and
//! compared with the largest checkpoint accepted so far: of equal sizes the roots must be equal, of different sizes a
//! consistency proof must be had from somebody. So any two checkpoints that are ever accepted, from any nodes and across
//! restarts, belong to one growing ledger. Two signed checkpoints that nobody can prove consistent are written to a file:
//! they are evidence that the ledger forked.
//!
//! It is *not* an audit of what was there before it started ([`crate::audit`] is), and it notices nothing about
//! checkpoints that are shown to others only: that takes witnesses, or monitors that compare notes.

mod entries;
mod evidence;
mod proof;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use scribe_client::{Client, Error, PinStore};
use scribe_proof::policy::{Policy, PolicyError};
use scribe_proof::tree::Frontier;
use scribe_proof::{CheckpointError, SignedCheckpoint, TreeSize};
use serde::Serialize;

use self::proof::{Consistency, consistent};

/// What to follow, and how.
#[derive(Debug)]
pub struct MonitorOptions {
    /// One client for each node or static copy.
    pub clients: Vec<Client>,
    /// Whose signatures count. Without one, a checkpoint is only compared with others.
    pub policy: Option<Policy>,
    /// Directory for evidence.
    pub evidence_dir: PathBuf,
    /// Whether every new entry is read and the tree derived from it.
    pub entries: bool,
    /// How long user entries may wait for a checkpoint before that is worth a warning.
    pub stale_after: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A larger checkpoint was accepted.
    Accepted,
    /// Two signed checkpoints do not go together.
    Fork,
    /// A signature does not fit.
    Signature,
    /// Signatures that are needed are missing.
    Policy,
    /// A checkpoint is of another ledger.
    OtherLedger,
    /// A node shows a smaller checkpoint than it did.
    WentBack,
    /// Nobody would prove that a checkpoint goes together with the one accepted before: it is not accepted.
    Refused,
    /// New entries do not give the signed root hash, or do not hold together.
    Entries,
    /// User entries wait for a checkpoint for too long.
    Stale,
    /// Nobody could be asked for a proof: the checkpoint is not accepted now.
    Unproved,
    /// A node does not answer, or has no checkpoint.
    Unreachable,
}

impl Kind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Kind::Accepted => Severity::Info,
            Kind::Stale | Kind::Unproved | Kind::Unreachable => Severity::Warning,
            _ => Severity::Alert,
        }
    }
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// All is well.
    Info,
    /// May pass by itself.
    Warning,
    /// Something that must not happen.
    Alert,
}

/// Something a round found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// Whom it is about.
    pub node: String,
    /// Tree size of the checkpoint concerned.
    pub tree_size: Option<u64>,
    /// Its root hash, hexadecimal.
    pub root_hash: Option<String>,
    /// For people.
    pub message: String,
    /// File with the evidence, if there is one.
    pub evidence: Option<PathBuf>,
}

impl Event {
    fn new(kind: Kind, node: &str, message: impl Into<String>) -> Event {
        Event {
            kind,
            severity: kind.severity(),
            node: node.to_owned(),
            tree_size: None,
            root_hash: None,
            message: message.into(),
            evidence: None,
        }
    }

    fn of(mut self, signed: &SignedCheckpoint) -> Event {
        self.tree_size = Some(signed.checkpoint().size.get());
        self.root_hash = Some(signed.checkpoint().root.to_hex());
        self
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity {
            Severity::Info => {}
            Severity::Warning => f.write_str("warning: ")?,
            Severity::Alert => f.write_str("ALERT: ")?,
        }
        write!(f, "{}: {}", self.node, self.message)?;
        match &self.evidence {
            Some(path) => write!(f, "; evidence in {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Why a monitor cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The checkpoint remembered cannot be read or kept.
    #[error("cannot keep the last accepted checkpoint: {0}")]
    State(#[source] io::Error),
    /// The checkpoint remembered is no checkpoint, or of a ledger the policy does not name.
    #[error("the checkpoint remembered cannot be used: {0}")]
    Remembered(String),
    /// The evidence of a fork cannot be written; it is in the message.
    #[error("cannot write the evidence of a fork: {error}\n{text}")]
    Evidence {
        /// What the system said.
        error: io::Error,
        /// The evidence.
        text: String,
    },
}

/// A node as it was last seen.
#[derive(Debug)]
struct Seen {
    client: Client,
    last: Option<TreeSize>,
    /// Since when user entries wait beyond this checkpoint size.
    waiting: Option<(TreeSize, Instant)>,
}

/// Follows one ledger.
pub struct Monitor {
    nodes: Vec<Seen>,
    policy: Option<Policy>,
    store: Box<dyn PinStore>,
    accepted: Option<SignedCheckpoint>,
    evidence_dir: PathBuf,
    /// The right edge at the accepted size, if entries are read.
    frontier: Option<Frontier>,
    entries: bool,
    stale_after: Duration,
}

impl Monitor {
    /// A monitor that goes on from the checkpoint `store` remembers. Nothing is asked yet.
    ///
    /// # Errors
    /// What is remembered cannot be read, or is of a ledger the policy does not name.
    pub fn new(options: MonitorOptions, store: Box<dyn PinStore>) -> Result<Monitor, MonitorError> {
        let accepted = match store.load().map_err(MonitorError::State)? {
            None => None,
            Some(note) => Some(
                // Its signatures are not checked again: it is this user's own memory.
                SignedCheckpoint::parse(&note)
                    .map_err(|error| MonitorError::Remembered(error.to_string()))?,
            ),
        };
        if let (Some(accepted), Some(policy)) = (&accepted, &options.policy) {
            let origin = &accepted.checkpoint().origin;
            if !policy.log_keys().any(|key| key.name() == origin) {
                return Err(MonitorError::Remembered(format!(
                    "it is of {origin:?}, the policy names no such ledger"
                )));
            }
        }
        let nodes = options.clients.into_iter().map(|client| Seen {
            client,
            last: None,
            waiting: None,
        });
        Ok(Monitor {
            nodes: nodes.collect(),
            policy: options.policy,
            store,
            accepted,
            evidence_dir: options.evidence_dir,
            frontier: None,
            entries: options.entries,
            stale_after: options.stale_after,
        })
    }

    /// The largest checkpoint accepted so far.
    pub fn accepted(&self) -> Option<&SignedCheckpoint> {
        self.accepted.as_ref()
    }

    /// Looks at every node once. Events come in the order things were found.
    ///
    /// # Errors
    /// The state or the evidence cannot be kept: then nothing more is claimed.
    pub async fn round(&mut self) -> Result<Vec<Event>, MonitorError> {
        let mut events = Vec::new();
        let asked: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let client = node.client.clone();
                tokio::spawn(async move { client.checkpoint().await })
            })
            .collect();
        let mut shown = Vec::new();
        for (at, answer) in asked.into_iter().enumerate() {
            let node = self.nodes[at].client.url().to_owned();
            match answer.await {
                Ok(Ok(signed)) => shown.push((at, signed)),
                Ok(Err(error)) => events.push(unreachable(&node, &error)),
                Err(error) => events.push(Event::new(Kind::Unreachable, &node, error.to_string())),
            }
        }
        // Smaller ones first: each is compared with the largest one accepted until then, so every two are compared.
        shown.sort_by_key(|(_, signed)| signed.checkpoint().size);
        for (at, signed) in shown {
            self.look_back(at, &signed, &mut events);
            if let Some(refused) = self.judge(at, &signed) {
                events.push(refused);
                continue;
            }
            self.compare(at, signed, &mut events).await?;
        }
        for at in 0..self.nodes.len() {
            if let Some(stale) = self.staleness(at).await {
                events.push(stale);
            }
        }
        Ok(events)
    }

    /// A node never shows less than it did.
    fn look_back(&mut self, at: usize, signed: &SignedCheckpoint, events: &mut Vec<Event>) {
        let size = signed.checkpoint().size;
        let node = &mut self.nodes[at];
        if let Some(last) = node.last
            && size < last
        {
            let message = format!("its checkpoint went back from tree size {last} to {size}");
            events.push(Event::new(Kind::WentBack, node.client.url(), message).of(signed));
        }
        node.last = Some(size);
    }

    /// Checks one checkpoint by itself.
    fn judge(&self, at: usize, signed: &SignedCheckpoint) -> Option<Event> {
        let node = self.nodes[at].client.url();
        if let Some(policy) = &self.policy
            && let Err(error) = policy.evaluate(signed)
        {
            let kind = match &error {
                PolicyError::Checkpoint(CheckpointError::Note(_)) => Kind::Signature,
                PolicyError::UnknownOrigin { .. } => Kind::OtherLedger,
                _ => Kind::Policy,
            };
            return Some(Event::new(kind, node, error.to_string()).of(signed));
        }
        let origin = &signed.checkpoint().origin;
        match &self.accepted {
            Some(accepted) if accepted.checkpoint().origin != *origin => {
                let message = format!(
                    "its checkpoint is of {origin:?}, the one accepted before of {:?}",
                    accepted.checkpoint().origin
                );
                Some(Event::new(Kind::OtherLedger, node, message).of(signed))
            }
            _ => None,
        }
    }

    /// Compares a checkpoint with the largest one accepted, and accepts it if it is larger.
    async fn compare(
        &mut self,
        at: usize,
        signed: SignedCheckpoint,
        events: &mut Vec<Event>,
    ) -> Result<(), MonitorError> {
        let node = self.nodes[at].client.url().to_owned();
        if let Some(accepted) = &self.accepted {
            // Whoever showed it is asked first; another node may prove what this one cannot.
            let mut order: Vec<&Client> = vec![&self.nodes[at].client];
            let others = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at);
            order.extend(others.map(|(_, other)| &other.client));
            match consistent(&order, accepted, &signed).await {
                Consistency::Proved => {}
                Consistency::Unknown(reason) => {
                    events.push(Event::new(Kind::Unproved, &node, reason).of(&signed));
                    return Ok(());
                }
                Consistency::Refused(reason) => {
                    events.push(Event::new(Kind::Refused, &node, reason).of(&signed));
                    return Ok(());
                }
                Consistency::Refuted(reason) => {
                    let text = evidence::text(accepted, &signed, &node, &reason);
                    let size = signed.checkpoint().size;
                    let path = evidence::write(&self.evidence_dir, size, &text)
                        .map_err(|error| MonitorError::Evidence { error, text })?;
                    let message = format!(
                        "FORK: the checkpoint of tree size {size} does not go together with the one of {} accepted before: {reason}",
                        accepted.checkpoint().size
                    );
                    let mut event = Event::new(Kind::Fork, &node, message).of(&signed);
                    event.evidence = Some(path);
                    events.push(event);
                    return Ok(());
                }
            }
            if signed.checkpoint().size <= accepted.checkpoint().size {
                return Ok(());
            }
        }
        let read = match self.read_entries(at, &signed).await {
            Ok(read) => read,
            Err(event) => {
                events.push(*event);
                return Ok(());
            }
        };
        // Stored first, then used. A crash in between leaves a state that is ahead of what was told: the next start
        // demands consistency with a checkpoint that was verified, which is fine.
        self.store
            .store(&signed.to_text())
            .map_err(MonitorError::State)?;
        let size = signed.checkpoint().size;
        let message = match (&self.accepted, read) {
            (None, _) => format!(
                "tree size {size}: the first checkpoint, accepted as far as its signatures go"
            ),
            (Some(_), Some(entries)) => {
                format!(
                    "tree size {size}, grown consistently; {entries} new entries give its root hash"
                )
            }
            (Some(_), None) => format!("tree size {size}, grown consistently"),
        };
        events.push(Event::new(Kind::Accepted, &node, message).of(&signed));
        self.accepted = Some(signed);
        Ok(())
    }

    /// Reads what is new and derives the root, if that was asked for. Returns how many entries were read.
    async fn read_entries(
        &mut self,
        at: usize,
        signed: &SignedCheckpoint,
    ) -> Result<Option<u64>, Box<Event>> {
        let Some(accepted) = self.accepted.as_ref().filter(|_| self.entries) else {
            return Ok(None);
        };
        let client = &self.nodes[at].client;
        let read = entries::read(client, accepted, self.frontier.take(), signed).await;
        match read {
            Ok(frontier) => {
                let old = accepted.checkpoint().size.get();
                self.frontier = Some(frontier);
                Ok(Some(signed.checkpoint().size.get() - old))
            }
            Err((kind, message)) => {
                Err(Box::new(Event::new(kind, client.url(), message).of(signed)))
            }
        }
    }

    /// Whether a node has had user entries beyond its checkpoint for too long. A static copy cannot be asked.
    async fn staleness(&mut self, at: usize) -> Option<Event> {
        let stale_after = self.stale_after;
        let node = &mut self.nodes[at];
        let published = node.last?;
        if !entries::user_entries_behind(&node.client, published).await {
            node.waiting = None;
            return None;
        }
        let since = match node.waiting {
            Some((size, since)) if size == published => since,
            _ => {
                let now = Instant::now();
                node.waiting = Some((published, now));
                now
            }
        };
        if since.elapsed() < stale_after {
            return None;
        }
        let message =
            format!("entries wait for a checkpoint: the newest one is of tree size {published}");
        Some(Event::new(Kind::Stale, node.client.url(), message))
    }
}

fn unreachable(node: &str, error: &Error) -> Event {
    match error {
        // What it sent is no checkpoint.
        Error::UnexpectedAnswer(message) => Event::new(Kind::Signature, node, message.clone()),
        other => Event::new(Kind::Unreachable, node, other.to_string()),
    }
}
