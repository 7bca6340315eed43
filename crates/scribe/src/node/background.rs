//! What a node does on the side: watches free space, scrubs, moves the purge watermark.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::consensus::ConsensusNode;
use crate::store::Store;
use crate::store::scrub::{ScrubOptions, Scrubbed, Scrubber};

/// How often free space is looked at.
const DISK_WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How often newly sealed segments are looked for.
const SEAL_WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps an eye on free space: below the reserve writes are refused, and resume by themselves when it returns.
pub(super) fn watch_disk(
    store: Store,
    reserve_bytes: u64,
    full: Arc<AtomicBool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(DISK_WATCH_INTERVAL);
        loop {
            tick.tick().await;
            let now_full = store.log().free_bytes() < reserve_bytes;
            if full.swap(now_full, Ordering::Relaxed) != now_full {
                if now_full {
                    tracing::warn!(
                        reserve_bytes,
                        "the disk is nearly full: writes are refused until space returns"
                    );
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
pub(super) fn start_scrubber(
    store: &Store,
    bytes_per_second: u64,
    stats: Arc<ScrubStats>,
) -> Option<Scrubber> {
    if bytes_per_second == 0 {
        return None;
    }
    let options = ScrubOptions {
        bytes_per_second,
        ..ScrubOptions::default()
    };
    let started = store.start_scrubber(options, move |scrubbed| match scrubbed {
        Scrubbed::Good { bytes, .. } => {
            stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Scrubbed::Damaged { segment, damage } => {
            stats.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment, %damage, "the scrubber has found damage");
        }
        Scrubbed::Unreadable { segment, error } => {
            stats.unreadable.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment, %error, "the scrubber cannot read a sealed segment");
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

/// Moves the purge watermark: all but the newest sealed segments are fetched as files, not as log entries. Looks now and
/// then instead of after every entry: a watermark that is late costs nothing. The core may put it off (a follower is
/// just being sent those entries), so what it says is compared each time.
pub(super) fn follow_seals(store: Store, consensus: ConsensusNode) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(SEAL_WATCH_INTERVAL);
        loop {
            tick.tick().await;
            let Some(due) = store.log().purge_due() else {
                continue;
            };
            let purged = consensus.metrics().purged.map(|id| id.index);
            if purged < Some(due.index.0) && consensus.purge_log(due.index).await.is_err() {
                return;
            }
        }
    })
}
