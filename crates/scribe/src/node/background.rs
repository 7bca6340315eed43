//! What a node does on the side: watches free space, scrubs, follows the applied state, moves the purge watermark.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use scribe_proof::index::TreeSize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::consensus::ConsensusNode;
use crate::store::Store;
use crate::store::scrub::{ScrubOptions, Scrubbed, Scrubber};

/// How often free space is looked at.
const DISK_WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Keeps an eye on free space: below the reserve writes are refused, and resume by themselves when it returns.
pub(super) fn watch_disk(store: Store, reserve_bytes: u64, full: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(DISK_WATCH_INTERVAL);
        loop {
            tick.tick().await;
            let now_full = store.log().free_bytes() < reserve_bytes;
            if full.swap(now_full, Ordering::Relaxed) != now_full {
                if now_full {
                    tracing::warn!(reserve_bytes, "the disk is nearly full: writes are refused until space returns");
                } else {
                    tracing::info!("space has returned: writes are taken again");
                }
            }
        }
    })
}

/// What the scrubber has looked at and found.
#[derive(Debug, Default)]
pub struct ScrubStats {
    /// Bytes of sealed segments re-read and re-hashed.
    pub bytes: AtomicU64,
    /// Times a segment was found damaged.
    pub damaged: AtomicU64,
    /// Times the operating system refused a read.
    pub unreadable: AtomicU64,
}

/// Re-reads sealed data in the background, so that rot is heard of before somebody needs the bytes.
pub(super) fn start_scrubber(store: &Store, bytes_per_second: u64, stats: Arc<ScrubStats>) -> Option<Scrubber> {
    if bytes_per_second == 0 {
        return None;
    }
    let options = ScrubOptions { bytes_per_second, ..ScrubOptions::default() };
    let started = store.start_scrubber(options, move |scrubbed| match scrubbed {
        Scrubbed::Good { bytes, .. } => {
            stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Scrubbed::Damaged { segment, damage } => {
            stats.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment, %damage, "a sealed segment is damaged: restore it from a good copy");
        }
        Scrubbed::Unreadable { segment, error } => {
            stats.unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment, %error, "a sealed segment cannot be read");
        }
    });
    match started {
        Ok(scrubber) => Some(scrubber),
        Err(error) => {
            tracing::warn!(%error, "the scrubber could not be started");
            None
        }
    }
}

/// Turns the store's applied state into a watch of the tree size alone.
pub(super) fn follow_applied(store: &Store) -> (watch::Receiver<TreeSize>, JoinHandle<()>) {
    let mut applied = store.watch_applied();
    let (sender, receiver) = watch::channel(applied.borrow().tree_size);
    let task = tokio::spawn(async move {
        while applied.changed().await.is_ok() {
            let size = applied.borrow_and_update().tree_size;
            sender.send_if_modified(|last| std::mem::replace(last, size) != size);
        }
    });
    (receiver, task)
}

/// Moves the purge watermark behind the last sealed segment: what is sealed is fetched as a file, not as log entries.
pub(super) fn follow_seals(store: Store, consensus: ConsensusNode) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut applied = store.watch_applied();
        let mut purged = store.log().purged();
        while applied.changed().await.is_ok() {
            applied.borrow_and_update();
            let sealed = store.log().sealed().last().map(|segment| segment.last_log_id);
            if sealed > purged
                && let Some(id) = sealed
            {
                if consensus.purge_log(id.index).await.is_err() {
                    return;
                }
                purged = sealed;
            }
        }
    })
}

