//! Submits checkpoints to outside witnesses, behind everybody's back: a checkpoint is shown first, and gains their
//! cosignatures as they come (<https://c2sp.org/tlog-witness>).
//!
//! Each witness has a task of its own on every node, which works while the node leads. It submits the newest checkpoint
//! only: one that was overtaken while the witness was busy or away is never sent. A witness that fails is asked again
//! after a pause that doubles, and nothing else waits for it: publishing does not know that these tasks exist.
//!
//! What a witness signed is merged once its signature verifies under the configured key; the other nodes get the note
//! like any new one. A witness that remembers another history than this ledger's is the one thing that must not be
//! missed: it is logged as an error and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use scribe_client::witness::{NoCosignature, Witness, WitnessAddress, for_witnesses};
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::consistency;
use scribe_proof::index::TreeSize;
use scribe_proof::key::VerifierKey;
use scribe_proof::witness::{AddCheckpoint, Cosignature};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Published, Shared};
use crate::consensus::Leadership;
use crate::limits;

/// A witness this node submits to while it leads.
#[derive(Debug)]
pub(super) struct Outside {
    client: Witness,
    stats: OutsideStats,
}

/// What is known of an outside witness, for metrics.
#[derive(Debug, Default)]
pub struct OutsideStats {
    /// Largest size whose cosignature by this witness was seen, as the leader or in a note of the leader's.
    pub cosigned_size: AtomicU64,
    /// When that was cosigned, in seconds since 1970, by the witness's clock; 0 before the first.
    pub cosigned_at_s: AtomicU64,
    /// Attempts that brought no cosignature.
    pub failures: AtomicU64,
    /// … of which because the witness holds another history of this ledger.
    pub forks: AtomicU64,
    /// Whether the last attempt failed.
    pub failing: AtomicBool,
}

/// Why there is no cosignature this time.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error(transparent)]
    Witness(#[from] NoCosignature),
    #[error(
        "the witness has cosigned size {witness} of this ledger, this node has {own} leaves: entries are missing here, or \
         somebody else signs with this ledger's key"
    )]
    Beyond { witness: TreeSize, own: TreeSize },
    #[error("the witness has cosigned size {0} already, a larger checkpoint is on its way")]
    Overtaken(TreeSize),
    #[error("the consistency proof cannot be made: {0}")]
    Proof(String),
}

impl Outside {
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(address: WitnessAddress) -> Result<Outside, scribe_client::Error> {
        let timeout = Duration::from_millis(limits::WITNESS_TIMEOUT_MS);
        Ok(Outside {
            client: Witness::new(address)?.timeout(timeout),
            stats: OutsideStats::default(),
        })
    }

    pub fn key(&self) -> &VerifierKey {
        &self.client.address().key
    }

    pub fn stats(&self) -> &OutsideStats {
        &self.stats
    }

    /// Notes a cosignature by this witness on a checkpoint that is shown.
    pub fn saw(&self, size: TreeSize, timestamp_s: u64) {
        let before = self
            .stats
            .cosigned_size
            .fetch_max(size.get(), Ordering::Relaxed);
        if before <= size.get() {
            self.stats
                .cosigned_at_s
                .fetch_max(timestamp_s, Ordering::Relaxed);
        }
    }

    fn failed(&self, problem: &NotNow) {
        let witness = self.key().name();
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        let first = !self.stats.failing.swap(true, Ordering::Relaxed);
        let fork = match problem {
            NotNow::Beyond { .. } => true,
            NotNow::Witness(NoCosignature::Refused { refusal, .. }) => refusal.is_fork(),
            _ => false,
        };
        if fork {
            self.stats.forks.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                witness,
                "{problem}. Two histories of this ledger exist: see docs/operating.md, Witnesses"
            );
        } else if first {
            tracing::warn!(
                witness,
                "{problem}; publishing goes on without its cosignature, and it is asked again"
            );
        } else {
            tracing::debug!(witness, "{problem}");
        }
    }

    fn recovered(&self) {
        if self.stats.failing.swap(false, Ordering::Relaxed) {
            tracing::warn!(witness = self.key().name(), "the witness cosigns again");
        }
    }
}

/// Starts a task for each witness. They end when the set is dropped.
pub(super) fn start(shared: &Arc<Shared>, leadership: &watch::Receiver<Leadership>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for at in 0..shared.outside.len() {
        let (shared, leadership) = (Arc::clone(shared), leadership.clone());
        tasks.spawn(async move { attend(&shared, &shared.outside[at], leadership).await });
    }
    tasks
}

/// Gets every newest checkpoint cosigned, as far as the witness keeps up.
async fn attend(shared: &Shared, outside: &Outside, mut leadership: watch::Receiver<Leadership>) {
    let mut newest = shared.newest.subscribe();
    // What the witness cosigned last, as far as this node knows; its own word corrects that.
    let mut remembered = TreeSize::EMPTY;
    let mut failures: u32 = 0;
    loop {
        let leading = match *leadership.borrow_and_update() {
            Leadership::Leading { .. } => true,
            Leadership::Waiting { .. } => false,
            Leadership::Stopped => return,
        };
        let published = newest.borrow_and_update().clone();
        let due = published.filter(|published| leading && lacks(published, outside.key()));
        let Some(published) = due else {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
            }
            continue;
        };
        match submit(shared, outside, &published, &mut remembered).await {
            Ok(cosignature) => {
                failures = 0;
                outside.recovered();
                shared.add_cosignature(&published, cosignature);
            }
            // Not its fault, and nothing to be had by asking again before there is more.
            Err(NotNow::Overtaken(size)) => {
                tracing::debug!(witness = outside.key().name(), %size, "a larger one was cosigned");
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            Err(problem) => {
                outside.failed(&problem);
                failures = failures.saturating_add(1);
                tokio::select! {
                    () = tokio::time::sleep(pause(failures)) => {}
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// The pause after this many failed attempts, from 1.
fn pause(failures: u32) -> Duration {
    let doubled =
        limits::WITNESS_BACKOFF_MIN_MS.saturating_mul(1 << failures.saturating_sub(1).min(20));
    Duration::from_millis(doubled.min(limits::WITNESS_BACKOFF_MAX_MS))
}

fn lacks(published: &Published, key: &VerifierKey) -> bool {
    SignedCheckpoint::parse(&published.note).is_ok_and(|signed| {
        let lines = &signed.note().signatures;
        !lines.iter().any(|line| line.is_by(key))
    })
}

/// One checkpoint, and once more if the witness remembers another size than was thought.
async fn submit(
    shared: &Shared,
    outside: &Outside,
    published: &Published,
    remembered: &mut TreeSize,
) -> Result<Cosignature, NotNow> {
    let signed = SignedCheckpoint::parse(&published.note)
        .map_err(|error| NotNow::Proof(error.to_string()))?;
    let checkpoint = for_witnesses(&signed)?;
    let mut corrected = false;
    loop {
        // Asked with what it should remember; if that is more than this checkpoint has, asked what it does remember.
        let old = if *remembered > published.size {
            TreeSize::EMPTY
        } else {
            *remembered
        };
        let request = AddCheckpoint {
            old,
            proof: proof(shared, old, published.size).await?,
            checkpoint: checkpoint.clone(),
        };
        let now_s = shared.world.now_ms() / 1_000;
        match outside.client.add_checkpoint(&request, now_s).await {
            Ok(cosignature) => {
                *remembered = published.size;
                return Ok(cosignature);
            }
            Err(NoCosignature::Conflict { size }) => {
                *remembered = size;
                let own = shared.store.applied().tree_size;
                if size > own {
                    return Err(NotNow::Beyond { witness: size, own });
                }
                if size > published.size {
                    return Err(NotNow::Overtaken(size));
                }
                // Twice in a row: somebody else submits to it at the same time, or it does not know what it wants.
                if corrected || size == old {
                    return Err(NoCosignature::Conflict { size }.into());
                }
                corrected = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Off the tasks that serve others: a cold tree is read from disk.
async fn proof(
    shared: &Shared,
    old: TreeSize,
    new: TreeSize,
) -> Result<Vec<scribe_proof::hash::Hash>, NotNow> {
    let store = shared.store.clone();
    crate::blocking::run(move || consistency::prove(&store, old, new))
        .await
        .map_err(|error| NotNow::Proof(error.to_string()))?
        .map_err(|error| NotNow::Proof(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = [1, 2, 3, 8, 9, 40, u32::MAX]
            .into_iter()
            .map(|failures| pause(failures).as_millis() as u64)
            .collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 60_000, 60_000, 60_000, 60_000]);
    }
}
