//! Clients: each does one thing after another through whichever node, keeps its word about what it was told, and tries
//! an unknown outcome again only under an idempotency key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use scribe::node::{AppendError, Appended, Condition, Write, WriteKind};
use scribe_oracle::{
    Answer, Change, ClientId, Consistency, Filter, NodeId, Outcome, Read, Request as Asked, Step,
    WatchId, Write as AskedWrite,
};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::Metadata;
use scribe_proof::sha256;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::court::{self, Court};
use crate::machine::Machine;
use crate::options::Options;
use crate::requests::Request;

/// A client gives up on an answer after this long.
const PATIENCE: Duration = Duration::from_secs(12);
/// Attempts under one idempotency key.
const ATTEMPTS_MAX: u64 = 6;

/// What all clients share.
#[derive(Debug)]
pub struct Clients {
    /// The run.
    pub options: Options,
    /// The nodes.
    pub machines: Vec<Arc<Machine>>,
    /// The judge.
    pub court: Court,
    /// Whether to begin nothing more.
    pub stopping: AtomicBool,
    /// Clients that have not finished.
    pub running: AtomicU64,
}

/// What came back: nothing if the node was not reached, or went away.
enum Reply<T> {
    NotSent,
    Lost,
    Said(T),
}

impl Clients {
    /// Runs all of them; ends when they were asked to stop and have.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let tasks: Vec<_> = (0..self.options.clients)
            .map(|id| tokio::spawn(Client::new(Arc::clone(&self), id).run()))
            .collect();
        let watch = tokio::spawn(Client::new(Arc::clone(&self), self.options.clients).watch());
        for task in tasks {
            task.await?;
            self.running.fetch_sub(1, Relaxed);
        }
        watch.await?;
        Ok(())
    }
}

struct Client {
    all: Arc<Clients>,
    id: u64,
    chance: Chance,
    /// Writes so far.
    writes: u64,
    /// The newest version of each key this client heard of.
    heard: BTreeMap<u64, LeafIndex>,
}

impl Client {
    fn new(all: Arc<Clients>, id: u64) -> Self {
        let chance = Chance::new(all.options.seed, &format!("client {id}"));
        Self {
            all,
            id,
            chance,
            writes: 0,
            heard: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        while !self.all.stopping.load(Relaxed) {
            sleep(self.chance.ms(1..=self.all.options.think_ms_max)).await;
            match self.chance.below(100) {
                0..=59 => self.write().await,
                60..=89 => self.read().await,
                _ => self.look().await,
            }
        }
    }

    /// Follows the ledger from its beginning, through one node after the other.
    async fn watch(mut self) {
        let watch = self
            .all
            .court
            .tell(|judge, at| Ok(judge.watch_began(at, Filter::All, LeafIndex::new(0))));
        let Some(watch) = watch else { return };
        let mut next = LeafIndex::new(0);
        let mut machine = self.machine();
        while !self.all.stopping.load(Relaxed) {
            sleep(self.chance.ms(50..=500)).await;
            if self.chance.percent(10) {
                machine = self.machine();
            }
            next = self.follow(&machine, next, Some(watch)).await;
        }
    }

    fn machine(&mut self) -> Arc<Machine> {
        let machines = self.all.machines.iter();
        let present: Vec<_> = machines
            .filter(|machine| machine.is_present())
            .cloned()
            .collect();
        Arc::clone(self.chance.pick(&present))
    }

    async fn ask<T>(
        &mut self,
        machine: &Machine,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Reply<T> {
        let Some(door) = machine.door() else {
            return Reply::NotSent;
        };
        sleep(self.chance.ms(0..=5)).await;
        let (sender, receiver) = oneshot::channel();
        if door.send(request(sender)).is_err() {
            return Reply::NotSent;
        }
        match timeout(PATIENCE, receiver).await {
            Ok(Ok(said)) => {
                sleep(self.chance.ms(0..=5)).await;
                Reply::Said(said)
            }
            Ok(Err(_)) | Err(_) => Reply::Lost,
        }
    }

    async fn write(&mut self) {
        let number = self.chance.below(self.all.options.keys);
        let key = key(number);
        self.writes += 1;
        let delete = self.chance.percent(10);
        let mut value = format!("{} of client {} ", self.writes, self.id).into_bytes();
        let length = self.chance.below(self.all.options.value_length_max) as usize;
        value.resize(value.len().max(length), b'.');
        let condition = match (self.chance.below(100), self.heard.get(&number)) {
            (0..=19, Some(index)) => Condition::Version(*index),
            (20..=29, _) => Condition::Absent,
            _ => Condition::None,
        };
        let idempotency_key = self
            .chance
            .percent(60)
            .then(|| format!("{}-{}", self.id, self.writes));
        let write = Write {
            key: key.clone(),
            kind: match delete {
                true => WriteKind::Delete,
                false => WriteKind::Put {
                    metadata: Metadata::default(),
                    value: Bytes::from(value.clone()),
                },
            },
            condition,
            idempotency_key: idempotency_key.clone(),
            author: Bytes::new(),
        };
        let step = Step {
            key: key.to_vec(),
            change: match delete {
                true => Change::Delete,
                false => Change::Put(sha256(&value)),
            },
            condition: match condition {
                Condition::None => scribe_oracle::Condition::None,
                Condition::Absent => scribe_oracle::Condition::Absent,
                Condition::Version(index) => scribe_oracle::Condition::Index(index),
            },
        };
        let asked = AskedWrite {
            steps: vec![step],
            idempotency_key: idempotency_key.clone(),
        };
        if idempotency_key.is_some() && self.chance.percent(10) {
            // At once through two nodes, or twice through one: written once.
            let mut other = Client {
                all: Arc::clone(&self.all),
                id: self.id,
                chance: Chance::new(self.chance.next(), "at once"),
                writes: 0,
                heard: BTreeMap::new(),
            };
            tokio::join!(
                self.attempt(number, write.clone(), asked.clone()),
                other.attempt(number, write.clone(), asked.clone())
            );
        }
        for _ in 0..ATTEMPTS_MAX {
            let known = self.attempt(number, write.clone(), asked.clone()).await;
            let again = match known {
                true => self.chance.percent(10),
                false => true,
            };
            if !again || idempotency_key.is_none() {
                return;
            }
            sleep(self.chance.ms(10..=2_000)).await;
        }
    }

    /// Writes once; whether the outcome is known.
    async fn attempt(&mut self, key: u64, write: Write, asked: AskedWrite) -> bool {
        let machine = self.machine();
        if machine.door().is_none() {
            return false;
        }
        let (client, node) = (ClientId(self.id), Some(NodeId(machine.id)));
        let court = self.all.court.clone();
        let began =
            court.tell(|judge, at| Ok(judge.invoked(at, client, node, Asked::Write(asked))));
        let Some(operation) = began else {
            return true;
        };
        let reply = self
            .ask(&machine, |reply| Request::Write(write, reply))
            .await;
        let outcome = match reply {
            Reply::NotSent => Outcome::Refused,
            Reply::Lost => Outcome::Unknown,
            Reply::Said(said) => {
                if let Ok(appended) = &said {
                    self.heard.insert(key, appended.index);
                }
                if said == Err(AppendError::IdempotencyMismatch) {
                    court.broken(format!(
                        "client {} is told that its idempotency key was used for another request",
                        self.id
                    ));
                }
                outcome(said)
            }
        };
        let known = outcome != Outcome::Unknown;
        court.returned(operation, outcome);
        known
    }

    async fn read(&mut self) {
        let machine = self.machine();
        if machine.door().is_none() {
            return;
        }
        let number = self.chance.below(self.all.options.keys);
        let key = key(number);
        let (client, node) = (ClientId(self.id), Some(NodeId(machine.id)));
        let court = self.all.court.clone();
        let stale = self.chance.percent(25);
        let mut asked = Read::of(key.to_vec());
        if stale {
            asked.consistency = Consistency::Stale { min_index: None };
        }
        let asked = Asked::Read(asked);
        let began = court.tell(|judge, at| Ok(judge.invoked(at, client, node, asked)));
        let Some(operation) = began else { return };
        let reply = self
            .ask(&machine, |reply| match stale {
                true => Request::ReadStale(key.to_vec(), reply),
                false => Request::Read(key.to_vec(), reply),
            })
            .await;
        let outcome = match reply {
            Reply::Said(Ok((size, found))) => {
                let saw = found.as_ref().map(court::seen);
                match saw {
                    Some(None) => {
                        court.broken(format!(
                            "node {} serves an entry that no longer parses",
                            machine.id
                        ));
                        return;
                    }
                    Some(Some(seen)) => {
                        self.heard.insert(number, seen.index);
                    }
                    None => {}
                }
                Outcome::Answered(Answer {
                    tree_size: Some(size),
                    saw: vec![saw.flatten()],
                })
            }
            Reply::Said(Err(_)) | Reply::NotSent | Reply::Lost => Outcome::Refused,
        };
        court.returned(operation, outcome);
    }

    /// Looks at a few entries somewhere in the ledger, as a node has them.
    async fn look(&mut self) {
        let machine = self.machine();
        let newest = self.heard.values().max().map_or(0, |index| index.get());
        let from = LeafIndex::new(self.chance.below(newest + 1));
        self.follow(&machine, from, None).await;
    }

    /// Takes entries from an index on; returns the next one to ask for.
    async fn follow(
        &mut self,
        machine: &Machine,
        from: LeafIndex,
        watch: Option<WatchId>,
    ) -> LeafIndex {
        let reply = self
            .ask(machine, |reply| Request::Follow(from, reply))
            .await;
        let Reply::Said(Ok((_, entries))) = reply else {
            return from;
        };
        let mut next = from;
        for found in &entries {
            let Some(entry) = court::entry(found) else {
                self.all.court.broken(format!(
                    "node {} serves an entry that no longer parses",
                    machine.id
                ));
                return next;
            };
            next = LeafIndex::new(entry.index.get() + 1);
            self.all.court.tell(|judge, at| match watch {
                Some(watch) => judge.watch_event(at, watch, &entry),
                None => judge.entry_seen(at, NodeId(machine.id), &entry),
            });
        }
        next
    }
}

/// A key of the run.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

/// What an answer means: everything that is said to be not written is not, and never will be.
pub fn outcome(said: Result<Appended, AppendError>) -> Outcome {
    match said {
        Ok(appended) => Outcome::Acknowledged(vec![scribe_oracle::Appended {
            index: appended.index,
            timestamp_ms: Some(appended.timestamp_ms),
            leaf_hash: Some(appended.leaf_hash),
        }]),
        Err(AppendError::UnknownOutcome) => Outcome::Unknown,
        Err(AppendError::ConditionFailed {
            operation,
            current_index,
            ..
        }) => Outcome::ConditionFailed {
            step: operation,
            current: current_index,
        },
        Err(_) => Outcome::Refused,
    }
}
