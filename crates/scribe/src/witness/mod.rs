//! A witness: follows logs, and cosigns their checkpoints as long as each extends the one before
//! (<https://c2sp.org/tlog-witness>).
//!
//! It is *not* a part of a ledger: it follows any C2SP log, ours among them, holds none of their entries, and remembers
//! one checkpoint of each. What it must never do is cosign two checkpoints of one log of which neither extends the other,
//! whatever it is sent and whenever it dies. Therefore looking at what was cosigned last, deciding (`decide`), and
//! putting the new one on disk (`state`) is one step under the log's own lock, and only then does the cosignature leave.
//!
//! ```text
//! http/witness ── Witness ──┬─ decide    pure: state, request and time give an outcome
//!                           ├─ state     one file per log, replaced in one step
//!                           └─ floors    beside the key: that there was a state, and how large
//! ```

mod decide;
mod floors;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod logs;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use scribe_proof::cosignature;
use scribe_proof::index::TreeSize;
use scribe_proof::key::{SigningKey, VerifierKey};
use scribe_proof::note::{Note, Signature};
use scribe_proof::witness::AddCheckpoint;
use tokio::sync::{Semaphore, watch};

pub use decide::{Cosign, Refused, Remembered};
pub use logs::{FollowedLog, parse_logs};

use crate::keys::{KeyError, cosigner_key, create_dir};
use crate::limits;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::lock::DirLock;
use crate::store::real_disk::RealDisk;
use crate::world::World;
use floors::Floors;
use state::{State, StateDir};

/// File with the witness's key.
pub const WITNESS_KEY_FILE: &str = "witness.key";

/// How to start a witness.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// Where the key is.
    pub key_dir: PathBuf,
    /// Where is remembered what was cosigned.
    pub state_dir: PathBuf,
    /// Name of the key; an existing one must have it. `None` takes what is there, or makes
    /// `scribe.invalid/witness/<16 hex of the key hash>`.
    pub name: Option<String>,
    /// The logs to follow.
    pub logs: Vec<FollowedLog>,
    /// Whether to go on although a log's state is gone or older than it was.
    pub accept_lost_state: bool,
    /// Clock.
    pub world: World,
}

/// Why a witness does not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessStartError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another process has one of the directories.
    #[error(transparent)]
    Lock(#[from] StoreError),
    /// A directory cannot be used.
    #[error("{0}")]
    Directory(String),
    /// What is remembered of a log cannot be understood.
    #[error("{0}")]
    Damaged(String),
    /// The key has cosigned, and what it cosigned is not remembered any more.
    #[error(
        "this witness has followed `{origin}` up to size {floor} at least, but {found}: starting from there it could cosign \
         another history of that log"
    )]
    Lost {
        /// The log.
        origin: String,
        /// The size it is known to have reached.
        floor: TreeSize,
        /// What is there instead.
        found: String,
    },
}

impl WitnessStartError {
    /// A next step, when there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Key(KeyError::WrongName { .. }) => Some(
                "the name is fixed when the key is made: leave --name out, or use another --key-dir".to_owned(),
            ),
            Self::Key(error) => error.hint(),
            Self::Lost { .. } => Some(
                "check --state-dir; if the state is gone for good, begin as a new witness with a new key in an empty \
                 --key-dir. --accept-lost-state goes on with the old key and believes the next checkpoint it is shown"
                    .to_owned(),
            ),
            Self::Damaged(_) => Some(
                "with another key, use an empty --state-dir; a damaged state is as good as lost: remove the file, and the \
                 start says what that means"
                    .to_owned(),
            ),
            Self::Lock(_) | Self::Directory(_) => None,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200: the cosignature, on disk before it is here.
    Cosigned(Signature),
    /// The specification's refusals.
    Refused(Refused),
    /// 429: too many requests for this log wait already.
    Busy,
    /// 503 or 500: the state could not be stored. Nothing was cosigned.
    Failed(String),
}

/// What a witness has done since it started.
#[derive(Debug, Default)]
pub struct WitnessStats {
    /// Cosignatures given.
    pub cosigned: AtomicU64,
    /// Requests refused, by the specification.
    pub refused: AtomicU64,
    /// … of which because the log signed another history.
    pub forks: AtomicU64,
    /// Requests not answered for lack of room, or because the disk failed.
    pub failed: AtomicU64,
}

/// A running witness. Clone = another handle to the same.
#[derive(Debug, Clone)]
pub struct Witness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: SigningKey,
    key_dir: PathBuf,
    states: StateDir,
    /// By the name in paths.
    logs: BTreeMap<String, Arc<Followed>>,
    world: World,
    stats: WitnessStats,
    failed: watch::Sender<Option<String>>,
    /// One process at a time cosigns with a key and remembers in a directory; let go when the witness closes.
    locks: Mutex<Vec<DirLock>>,
}

#[derive(Debug)]
struct Followed {
    log: FollowedLog,
    /// Held from the look at what was cosigned last until the new one is on disk.
    last: Arc<tokio::sync::Mutex<Option<Remembered>>>,
    /// Requests that wait for it or have it.
    room: Arc<Semaphore>,
    /// The note cosigned last, for monitors.
    newest: RwLock<Option<Arc<str>>>,
}

impl Witness {
    /// Opens the directories and takes up what was remembered. Makes a key and an empty memory the first time.
    ///
    /// # Errors
    /// A key that others may read, a directory in use, and a state that is lost, older than it was, or damaged.
    pub fn open(options: WitnessOptions) -> Result<Witness, WitnessStartError> {
        Self::open_on(options, Arc::new(RealDisk))
    }

    /// As [`Witness::open`], with the states on a disk of the caller's making.
    pub fn open_on(
        options: WitnessOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Witness, WitnessStartError> {
        let WitnessOptions {
            key_dir,
            state_dir,
            name,
            logs,
            accept_lost_state,
            world,
        } = options;
        create_dir(&key_dir)?;
        let key_lock = DirLock::take(&RealDisk, &key_dir)?;
        let key = cosigner_key(&key_dir.join(WITNESS_KEY_FILE), name.as_deref())?;
        let states = StateDir::create(Arc::clone(&disk), &state_dir).map_err(|error| {
            WitnessStartError::Directory(format!("cannot make `{}`: {error}", state_dir.display()))
        })?;
        let state_lock = DirLock::take(&*disk, &state_dir)?;

        let mut floors = Floors::load(&key_dir).map_err(WitnessStartError::Damaged)?;
        let mut followed = BTreeMap::new();
        for log in logs {
            let floor = floors.0.get(&log.id()).copied();
            let state = states
                .load(&log, key.verifier_key())
                .map_err(WitnessStartError::Damaged)?;
            if let Some(floor) = floor
                && let Some(found) = lost(&state, floor, &states.path(&log).display())
            {
                let lost = WitnessStartError::Lost {
                    origin: log.origin.clone(),
                    floor,
                    found,
                };
                if !accept_lost_state {
                    return Err(lost);
                }
                tracing::warn!("{lost}; going on all the same, as --accept-lost-state says");
            }
            if state == State::Missing {
                // Before the floor: a crash in between leaves a file that is not listed, which the next start lists. The
                // other way round it would look like a loss.
                states
                    .put(&log, None)
                    .map_err(|error| WitnessStartError::Directory(error.text))?;
            }
            let (last, newest) = match state {
                State::Cosigned { head, note } => (Some(head), Some(Arc::from(note))),
                State::Missing | State::Fresh => (None, None),
            };
            let size = last.map_or(TreeSize::EMPTY, |last| last.size);
            floors.0.insert(log.id(), size);
            let entry = Followed {
                last: Arc::new(tokio::sync::Mutex::new(last)),
                room: Arc::new(Semaphore::new(limits::WITNESS_WAITING_PER_LOG_MAX)),
                newest: RwLock::new(newest),
                log,
            };
            followed.insert(entry.log.id(), Arc::new(entry));
        }
        floors.store(&key_dir)?;
        Ok(Witness {
            inner: Arc::new(Inner {
                key,
                key_dir,
                states,
                logs: followed,
                world,
                stats: WitnessStats::default(),
                failed: watch::channel(None).0,
                locks: Mutex::new(vec![key_lock, state_lock]),
            }),
        })
    }

    /// The public half of the key: what goes into policies.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.inner.key.verifier_key()
    }

    /// The logs followed, and the size cosigned last of each.
    pub fn sizes(&self) -> Vec<(String, TreeSize)> {
        let logs = self.inner.logs.values();
        logs.map(|followed| {
            let newest = followed.newest.read().clone();
            let size = newest.and_then(|note| {
                let signed = scribe_proof::SignedCheckpoint::parse(&note).ok()?;
                Some(signed.checkpoint().size)
            });
            (followed.log.origin.clone(), size.unwrap_or(TreeSize::EMPTY))
        })
        .collect()
    }

    /// The note cosigned last of the log with this name (hex of SHA-256 of its origin), with the log's signatures and
    /// this witness's. `None` if the log is not followed, or nothing was cosigned yet.
    pub fn newest(&self, id: &str) -> Option<Arc<str>> {
        self.inner.logs.get(id)?.newest.read().clone()
    }

    /// What was done so far, for metrics.
    pub fn stats(&self) -> &WitnessStats {
        &self.inner.stats
    }

    /// Resolves with the reason once the disk cannot be trusted any more. The process must stop then.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().as_ref() {
                return reason.clone();
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Answers an `add-checkpoint` request. A cosignature that is in the answer is on disk.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Outcome {
        let outcome = match self.judged(body).await {
            Ok(outcome) => outcome,
            Err(refused) => Outcome::Refused(refused),
        };
        let stats = &self.inner.stats;
        let counter = match &outcome {
            Outcome::Cosigned(_) => &stats.cosigned,
            Outcome::Refused(refused) => {
                if refused.is_fork() {
                    stats.forks.fetch_add(1, Ordering::Relaxed);
                }
                &stats.refused
            }
            Outcome::Busy | Outcome::Failed(_) => &stats.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn judged(&self, body: &[u8]) -> Result<Outcome, Refused> {
        let request = decide::read(body)?;
        let origin = &request.checkpoint.checkpoint().origin;
        let found = self
            .inner
            .logs
            .values()
            .find(|followed| followed.log.origin == *origin);
        let Some(followed) = found.map(Arc::clone) else {
            return Err(Refused::UnknownOrigin {
                origin: origin.clone(),
            });
        };
        // Before the lock: only a log's own key gets to use it.
        let signatures = decide::signed_by(&followed.log, &request.checkpoint)?;
        let Ok(room) = Arc::clone(&followed.room).try_acquire_owned() else {
            return Ok(Outcome::Busy);
        };
        let last = Arc::clone(&followed.last).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        // Off the tasks that serve others, for it waits for the disk. It runs to its end even if whoever asked goes away:
        // the lock is held until memory and disk say the same.
        let done = tokio::task::spawn_blocking(move || {
            let mut last = last;
            let _room = room;
            inner.cosign(&followed, &mut last, &request, signatures)
        });
        done.await
            .unwrap_or_else(|error| Ok(Outcome::Failed(format!("the task failed: {error}"))))
    }

    /// Writes down beside the key how far each log was followed, and lets the directories go.
    ///
    /// # Errors
    /// The system refused: the next start compares with an older floor.
    pub async fn close(&self) -> Result<(), KeyError> {
        let mut floors = Floors::load(&self.inner.key_dir).unwrap_or_default();
        for (id, followed) in &self.inner.logs {
            let last = followed.last.lock().await;
            let size = last.map_or(TreeSize::EMPTY, |last| last.size);
            floors.0.insert(id.clone(), size);
        }
        let stored = floors.store(&self.inner.key_dir);
        self.inner.locks.lock().clear();
        stored
    }
}

impl Inner {
    /// The one step: decide, store, then hand the cosignature out. The caller holds the log's lock, and `last` is what
    /// it guards.
    fn cosign(
        &self,
        followed: &Followed,
        last: &mut Option<Remembered>,
        request: &AddCheckpoint,
        log_signatures: Vec<Signature>,
    ) -> Result<Outcome, Refused> {
        if let Some(reason) = self.failed.borrow().as_ref() {
            return Ok(Outcome::Failed(reason.clone()));
        }
        let new = request.checkpoint.checkpoint();
        let origin = &followed.log.origin;
        let decided = decide::decide(last.as_ref(), request, self.world.now_ms() / 1_000);
        let cosign = match decided {
            Ok(cosign) => cosign,
            Err(refused) => {
                self.tell(origin, &refused, request);
                return Err(refused);
            }
        };
        let text = &request.checkpoint.note().text;
        let signature = match cosignature::sign(text, &self.key, cosign.timestamp_s) {
            Ok(signature) => signature,
            Err(error) => return Ok(Outcome::Failed(error.to_string())),
        };
        // The log's own lines and ours; whatever else the request carried is not vouched for here.
        let mut note = Note {
            text: text.clone(),
            signatures: log_signatures,
        };
        note.signatures.push(signature.clone());
        let note = note.to_text();
        if cosign.is_new
            && let Err(error) = self.states.put(&followed.log, Some(&note))
        {
            if !error.harmless {
                tracing::error!("{}; the witness stops", error.text);
                let _ = self.failed.send_replace(Some(error.text.clone()));
            }
            return Ok(Outcome::Failed(error.text));
        }
        *last = Some(Remembered {
            size: new.size,
            root: new.root,
            timestamp_s: cosign.timestamp_s,
        });
        *followed.newest.write() = Some(Arc::from(note));
        tracing::debug!(origin, size = %new.size, "cosigned");
        Ok(Outcome::Cosigned(signature))
    }

    /// What an operator must hear of: a log that signed two histories, and a log that remembers more than this witness.
    fn tell(&self, origin: &str, refused: &Refused, request: &AddCheckpoint) {
        match refused {
            Refused::OtherRoot { .. } => tracing::error!(
                origin,
                checkpoint = %request.checkpoint.to_text(),
                "{refused}: the log has signed two histories. Keep this checkpoint, it is evidence"
            ),
            Refused::Inconsistent { .. } => tracing::warn!(
                origin,
                checkpoint = %request.checkpoint.to_text(),
                "{refused}: a wrong proof, or another history"
            ),
            Refused::Conflict { old, size } if old > size => tracing::warn!(
                origin,
                "{refused}: the log believes that this witness has seen more than it remembers; was the state directory \
                 restored from a copy?"
            ),
            _ => {}
        }
    }
}

/// Why a state is less than it was, if it is.
fn lost(state: &State, floor: TreeSize, path: &dyn std::fmt::Display) -> Option<String> {
    match state {
        State::Missing => Some(format!("`{path}` is missing")),
        State::Fresh if floor > TreeSize::EMPTY => Some(format!("`{path}` remembers nothing")),
        State::Cosigned { head, .. } if head.size < floor => {
            Some(format!("`{path}` remembers size {}", head.size))
        }
        State::Fresh | State::Cosigned { .. } => None,
    }
}

#[cfg(test)]
mod tests;
