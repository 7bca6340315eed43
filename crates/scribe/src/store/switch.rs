//! Puts sealed segments from another node in the place of this node's own unsealed frames: the log's part of taking
//! over a snapshot. How the files get into `incoming/` and are checked is [`super::staging`]'s business.
//!
//! What counts is one synced record in the MANIFEST. Before it, the log is the old one and `incoming/` holds files
//! nobody believes; after it, the log is the new one, and files that are still in `incoming/` only have to be given
//! their names. So no frame of the old log, which may be an acknowledged entry of a majority, is gone before the
//! segment with the same entry counts.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::mpsc;

use super::disk::Disk;
use super::error::{IoContext, StoreError};
use super::frame::{LogId, LogIndex};
use super::log::{Flushed, Inner, Log, Order};
use super::manifest::ManifestRecord;
use super::recovery::LOG_DIR;
use super::sealed_list::read_footer;
use super::segment::{SealedSegment, file_path, parse_file_name};
use super::state::{invalid, show};
use super::writer::{Item, Writer, poisoned};

/// Directory of files on their way from another node, within the data directory.
pub const INCOMING_DIR: &str = "incoming";

impl Log {
    /// The log id at an index, if the frame is in the log and not in a sealed segment, or is the last sealed one.
    pub fn id_at(&self, index: LogIndex) -> Option<LogId> {
        self.inner.state.lock().id_at(index)
    }

    /// The disk everything is on.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.inner.disk
    }

    /// Waits until the frame is on disk. Blocks.
    ///
    /// # Errors
    /// Kind `InvalidInput` if the log does not have it; otherwise the store has stopped.
    pub fn wait_flushed(&self, id: LogId) -> io::Result<()> {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        loop {
            if let Some(first) = inner.queue.poison() {
                return Err(poisoned(&first));
            }
            if state
                .flushed
                .is_some_and(|flushed| id.index <= flushed.index)
            {
                return Ok(());
            }
            if state.id_at(id.index) != Some(id) {
                return Err(invalid(format!("frame {id} is not in the log")));
            }
            inner.flushed_changed.wait(&mut state);
        }
    }

    /// Says where verified segments in `incoming/` end, once all that are wanted are there; `None` when they are not.
    pub(super) fn set_staged(&self, last: Option<LogId>) {
        self.inner.order.lock().staged = last;
    }

    /// Puts staged segments in the place of every unsealed frame. Durable when this returns. Blocks, and keeps appends,
    /// cuts and votes waiting meanwhile.
    ///
    /// # Errors
    /// Kind `InvalidInput`, and nothing was changed, if they do not follow the sealed segments or the log holds frames
    /// that go on behind them. Any other error has stopped the store.
    pub(super) fn install(&self, segments: Vec<SealedSegment>) -> io::Result<()> {
        let inner = &self.inner;
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(());
        };
        inner.queue.check()?;
        // Held to the end: what comes later gets its place behind the last segment.
        let mut order = inner.order.lock();
        {
            let mut state = inner.state.lock();
            let next = state.sealed.last().map_or((0, first.first_log_index), |s| {
                (s.number + 1, s.last_log_id.index.next())
            });
            if next != (first.number, first.first_log_index) {
                return Err(invalid(format!(
                    "segment {} from log index {} is installed, allowed segment {} from {}",
                    first.number, first.first_log_index, next.0, next.1
                )));
            }
            if state.last.map(|end| end.index) > Some(last.last_log_id.index) {
                let own = state.id_at(last.last_log_id.index);
                if own == Some(last.last_log_id) {
                    return Err(invalid(format!(
                        "the log goes on behind {} up to {}: those frames are applied, not replaced",
                        last.last_log_id,
                        show(state.last)
                    )));
                }
                // A frame that differs at a committed place was never committed, nor was anything behind it. In memory
                // only; the writer removes what lies beyond the segments before it switches, the rest after it.
                state.cut(own)?;
            }
        }
        order.deferred.clear();
        order.staged = None;
        let (sender, outcome) = mpsc::channel();
        let done = Flushed::new(move |result| drop(sender.send(result)));
        inner.queue.push(Item::Install(segments, done))?;
        #[cfg(feature = "simulation")]
        while inner.flushed_changed.help() == super::worker::Step::Done {}
        outcome
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the writer stopped before the switch")))
    }

    /// Up to where log entries are served as sealed segments only: all but the last two sealed segments, so that a
    /// follower that is a little behind catches up by entries. Further if one of those two turned out damaged.
    pub fn purge_due(&self) -> Option<LogId> {
        let state = self.inner.state.lock();
        let kept = crate::limits::SEGMENTS_KEPT_AS_LOG;
        let behind = state.sealed.len().checked_sub(kept + 1);
        let due = behind.and_then(|at| state.sealed.get(at));
        due.map(|sealed| sealed.last_log_id).max(state.unreadable)
    }

    /// Remembers that a frame of a sealed segment cannot be read as a log entry: see [`Log::purge_due`]. `false` if it
    /// is in no sealed segment.
    pub fn mark_unreadable(&self, index: LogIndex) -> bool {
        let mut state = self.inner.state.lock();
        let Some(last) = state.sealed_segment_of(index).map(|s| s.last_log_id) else {
            return false;
        };
        state.unreadable = state.unreadable.max(Some(last));
        drop(state);
        self.suspect_at(index);
        true
    }

    /// Whether the frame at `index` is at or before one that was marked so.
    pub fn is_unreadable(&self, index: LogIndex) -> bool {
        let unreadable = self.inner.state.lock().unreadable;
        unreadable.is_some_and(|last| index <= last.index)
    }
}

impl Inner {
    /// Asks the writer for the cuts that were put off; to be done before anything takes the place of what they drop.
    pub(super) fn push_deferred(&self, order: &mut Order) -> io::Result<()> {
        order
            .deferred
            .drain(..)
            .try_for_each(|cut| self.queue.push(Item::Cut(cut, Flushed::ignore())))
    }

    /// The switch in memory, after the one on disk.
    pub(super) fn switch_to_installed(&self, segments: Vec<SealedSegment>) {
        let mut state = self.state.lock();
        let sealed = state.sealed.len();
        state.install(segments);
        // Handles of replaced files. Whoever reads from one reads the old frames and then starts over.
        let kept = state.sealed.get(sealed).map_or(0, |first| first.number);
        self.files.lock().retain(|number, _| *number < kept);
        drop(state);
        self.flushed_changed.notify_all();
    }
}

impl Writer {
    /// Switches to staged segments: the files in `incoming/` are complete, verified, synced, and durably named.
    pub(super) fn install(&mut self, segments: &[SealedSegment]) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let disk = &*inner.disk;
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Ok(());
        };
        let end = last.last_log_id.index;
        // Frames may have been cut in memory, and the new log must not be found shorter than the watermarks say. Synced
        // even if they were lowered before: that write may not have reached the disk. A crash here leaves the old log
        // with a weaker check.
        self.write_marks()?;
        self.marks.sync()?;
        let own = own_segments(disk, &inner.log_dir)?;
        for beyond in own.iter().rev().filter(|first| **first > end) {
            // These never were committed. From the end backwards, one by one: a crash leaves the old log, shorter.
            let path = file_path(&inner.log_dir, *beyond);
            disk.remove(&path).context("remove", &path)?;
            disk.sync_dir(&inner.log_dir)
                .context("sync", &inner.log_dir)?;
        }
        // A crash before the sync in here leaves a torn record, which is cut: the old log, and staged files for
        // another attempt. A crash after it leaves the new log: recovery does what comes now.
        let record = ManifestRecord::Installed(segments.to_vec());
        inner.manifest.lock().append(&record)?;
        self.current = None;
        // A crash in here leaves some files with their names and others in `incoming/`, and old files beside them.
        let range = (first.first_log_index, end);
        name_installed(disk, &inner.dir, segments, &[range])
    }
}

/// Log indexes of the segment files in the directory, ascending.
fn own_segments(disk: &dyn Disk, log_dir: &Path) -> Result<Vec<LogIndex>, StoreError> {
    let names = disk.list(log_dir).context("list", log_dir)?;
    let mut own: Vec<LogIndex> = names.iter().filter_map(|n| parse_file_name(n)).collect();
    own.sort_unstable();
    Ok(own)
}

/// Gives installed segments that are still in `incoming/` their names in `log/`, and removes the files of the frames
/// they replaced: those in the installed `ranges` of log indexes. To be repeated until it succeeds; what is done
/// already is not done again.
pub(super) fn name_installed(
    disk: &dyn Disk,
    dir: &Path,
    sealed: &[SealedSegment],
    ranges: &[(LogIndex, LogIndex)],
) -> Result<(), StoreError> {
    let log_dir = dir.join(LOG_DIR);
    let incoming = dir.join(INCOMING_DIR);
    let mut changed = false;
    let staged = if disk.exists(&incoming).context("look for", &incoming)? {
        own_segments(disk, &incoming)?
    } else {
        Vec::new()
    };
    for first in staged {
        let at = sealed.binary_search_by_key(&first, |segment| segment.first_log_index);
        let Some(segment) = at.ok().and_then(|at| sealed.get(at)) else {
            continue; // on its way, not installed
        };
        let (from, to) = (file_path(&incoming, first), file_path(&log_dir, first));
        let is_it = |path: &Path| -> Result<bool, StoreError> {
            Ok(read_footer(disk, path)?.is_ok_and(|found| found.is_same(segment)))
        };
        changed = true;
        if is_it(&to)? || !is_it(&from)? {
            // There already, or not what the MANIFEST calls for: then it is damage of a sealed segment, and fetched
            // again like one.
            disk.remove(&from).context("remove", &from)?;
        } else {
            disk.rename(&from, &to).context("rename", &from)?;
        }
    }
    let names: BTreeSet<LogIndex> = sealed.iter().map(|s| s.first_log_index).collect();
    let replaced = |first: &LogIndex| {
        let within = ranges
            .iter()
            .any(|(low, high)| low <= first && first <= high);
        within && !names.contains(first)
    };
    for first in own_segments(disk, &log_dir)?.iter().filter(|f| replaced(f)) {
        let path = file_path(&log_dir, *first);
        disk.remove(&path).context("remove", &path)?;
        changed = true;
    }
    if changed {
        disk.sync_dir(&log_dir).context("sync", &log_dir)?;
        if disk.exists(&incoming).context("look for", &incoming)? {
            disk.sync_dir(&incoming).context("sync", &incoming)?;
        }
    }
    Ok(())
}
