//! Puts damaged sealed segments back while the node runs: each one that anybody had trouble with is examined, and what is
//! damaged is derived again from good segments (tree files) or fetched again from other members (segments).
//!
//! One segment at a time. What cannot be mended now is tried again later, and said again each time: until then what can
//! be read of the segment is served, and the rest is an error.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::blocking;
use crate::consensus::ConsensusNode;
use crate::store::{Store, Verdict};

/// Pause before segments that could not be mended are tried again; doubled each time …
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What was damaged and mended since the start.
#[derive(Debug, Default)]
pub struct MendStats {
    /// Sealed segments found damaged or missing.
    pub segments_damaged: AtomicU64,
    /// Sealed segments put back.
    pub segments_mended: AtomicU64,
    /// Bytes of them.
    pub mended_bytes: AtomicU64,
    /// Segments whose tree hashes were derived again.
    pub tree_segments_mended: AtomicU64,
    /// Attempts to put a segment back that failed.
    pub failures: AtomicU64,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl MendStats {
    /// Bytes that are back and bytes there are to put back, of the segments that are damaged now; both 0 if none is.
    pub fn progress(&self) -> (u64, u64) {
        (
            self.done_bytes.load(Ordering::Relaxed),
            self.total_bytes.load(Ordering::Relaxed),
        )
    }
}

/// Gets back what the end of the log lost, if it did.
pub(super) async fn restore(inner: Weak<Inner>) {
    let Some(consensus) = inner.upgrade().map(|inner| inner.consensus.clone()) else {
        return;
    };
    consensus.restore().await;
}

/// Mends for as long as the node lives.
pub(super) async fn run(inner: Weak<Inner>) {
    let Some((store, consensus, stats)) = inner.upgrade().map(|inner| {
        let stats = Arc::clone(&inner.mended);
        (inner.store.clone(), inner.consensus.clone(), stats)
    }) else {
        return;
    };
    let mender = Mender {
        store,
        consensus,
        stats,
    };
    let mut suspects = mender.store.suspects();
    if let Err(error) = mender.store.suspect_half_mended() {
        tracing::warn!(%error, "what an earlier process left half mended cannot be listed");
    }
    let mut damaged = BTreeSet::new();
    let mut trees = BTreeSet::new();
    let mut pause = RETRY_PAUSE;
    loop {
        if damaged.is_empty() {
            pause = RETRY_PAUSE;
            mender.show(&damaged, 0);
            let store = mender.store.clone();
            match blocking::io(move || store.complete_index()).await {
                Ok(0) => {}
                Ok(segments) => tracing::info!(segments, "the key index is complete"),
                Err(error) => tracing::error!(%error, "the key index is not complete yet"),
            }
            let store = mender.store.clone();
            if let Err(error) = blocking::io(move || store.clear_mended()).await {
                tracing::warn!(%error, "what is left of mended segments cannot be removed");
            }
        }
        let waited = async {
            let waiting = suspects.wait_for(|waiting| !waiting.is_empty()).await;
            waiting.is_ok()
        };
        let nothing_left = damaged.is_empty() && trees.is_empty();
        let alive = if nothing_left && !mender.store.index_is_incomplete() {
            waited.await
        } else {
            tokio::select! {
                alive = waited => alive,
                () = tokio::time::sleep(pause) => true,
            }
        };
        if !alive || inner.strong_count() == 0 {
            return;
        }
        while let Some(number) = mender.store.next_suspect() {
            mender.look(number, &mut damaged, &mut trees).await;
        }
        // Those in whose way a damaged segment was.
        for number in std::mem::take(&mut trees) {
            mender.look(number, &mut damaged, &mut trees).await;
        }
        if damaged.is_empty() && trees.is_empty() {
            continue;
        }
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
        for number in damaged.clone() {
            // Somebody may have put a good copy in its place.
            mender.look(number, &mut damaged, &mut trees).await;
            if damaged.contains(&number) && mender.put_back(number, &damaged).await {
                damaged.remove(&number);
                pause = RETRY_PAUSE;
                // Its tree hashes may have gone the same way.
                mender.look(number, &mut damaged, &mut trees).await;
            }
        }
    }
}

struct Mender {
    store: Store,
    consensus: ConsensusNode,
    stats: Arc<MendStats>,
}

impl Mender {
    /// Examines a segment. `damaged` says afterwards whether it has to be put back, `trees` whether its tree hashes have to be
    /// derived again later.
    async fn look(&self, number: u32, damaged: &mut BTreeSet<u32>, trees: &mut BTreeSet<u32>) {
        let store = self.store.clone();
        match blocking::io(move || store.examine(number)).await {
            Ok(Verdict::Sound) => {
                if damaged.remove(&number) {
                    tracing::info!(segment = number, "the segment is what it must be again");
                }
            }
            Ok(Verdict::Tree(reason)) => {
                damaged.remove(&number);
                tracing::error!(
                    segment = number,
                    reason,
                    "hashes in the tree files are damaged"
                );
                if !self.derive(number).await {
                    trees.insert(number);
                }
            }
            Ok(Verdict::Segment(reason)) => {
                if damaged.insert(number) {
                    self.stats.segments_damaged.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(segment = number, reason, "a sealed segment is damaged");
                }
            }
            Err(error) => {
                // Neither good nor bad: asked again when somebody has trouble with it again.
                tracing::error!(segment = number, %error, "a sealed segment cannot be examined");
            }
        }
        self.show(damaged, 0);
    }

    /// Derives the tree hashes of a segment again; `false` if that is not possible now.
    async fn derive(&self, number: u32) -> bool {
        let store = self.store.clone();
        match blocking::io(move || store.mend_tree(number)).await {
            Ok(segments) => {
                let stats = &self.stats.tree_segments_mended;
                stats.fetch_add(u64::from(segments), Ordering::Relaxed);
                tracing::info!(
                    segment = number,
                    segments,
                    "the tree hashes are derived again from the entries"
                );
                true
            }
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                // If it is a segment that is damaged, that one is suspected by now.
                tracing::error!(segment = number, %error, "tree hashes cannot be derived again");
                false
            }
        }
    }

    /// Puts a damaged segment back; `false` if that is not possible now.
    async fn put_back(&self, number: u32, damaged: &BTreeSet<u32>) -> bool {
        let started = Instant::now();
        let store = self.store.clone();
        let mend = match blocking::io(move || store.mend(number)).await {
            Ok(mend) => mend,
            Err(error) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(segment = number, %error, "a damaged segment is not mended");
                return false;
            }
        };
        self.show(damaged, mend.have());
        let mended = (self.consensus).mend_segment(mend, |done| self.show(damaged, done));
        match mended.await {
            Ok(bytes) => {
                // In this order: who sees a segment counted sees its bytes counted.
                self.stats.mended_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.stats.segments_mended.fetch_add(1, Ordering::Release);
                tracing::info!(
                    segment = number,
                    bytes,
                    seconds = started.elapsed().as_secs_f64(),
                    "the segment is mended"
                );
                true
            }
            Err(reasons) => {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                self.show(damaged, 0);
                tracing::error!(
                    segment = number,
                    reasons,
                    "a damaged segment cannot be mended now and is tried again: no copy of it is whole"
                );
                false
            }
        }
    }

    /// Shows how far it is: `done` bytes of the segment that is on its way.
    fn show(&self, damaged: &BTreeSet<u32>, done: u64) {
        let sealed = self.store.log().sealed();
        let lengths = damaged
            .iter()
            .filter_map(|number| sealed.get(*number as usize));
        let total: u64 = lengths.map(|segment| segment.file_length).sum();
        self.stats.total_bytes.store(total, Ordering::Relaxed);
        self.stats
            .done_bytes
            .store(done.min(total), Ordering::Relaxed);
    }
}
