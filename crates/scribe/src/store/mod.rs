//! The local disk: the Raft log that is the ledger, and the view of it that is derived.
//!
//! The log side ([`log`]) keeps frames: appended, synced, truncated, sealed. The view side ([`Store`]) keeps what
//! applied frames mean: the tree, the versions of each key, the idempotency table. For sealed segments the view is on
//! disk (`tree/`, `index/`), for open ones in memory ([`open_segment`]); a restart applies the frames after the last
//! sealed segment again. Nothing in the view is a source of truth: it can all be derived from the segments, and
//! [`Store::check`] does so and compares.
//!
//! ```text
//! apply -> open segment (memory) -> complete (frozen) -> sealer: footer, tree files, index, MANIFEST -> dropped
//! ```

pub mod cache;
pub mod check;
pub mod disk;
pub mod error;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod index;
mod install;
mod load;
pub mod lock;
pub mod log;
pub mod manifest;
pub mod mend;
mod next_segment;
pub mod open_segment;
mod proofs;
mod read;
mod reading;
pub mod real_disk;
mod rebuild;
pub mod recovery;
pub mod restore;
mod scan;
pub mod scrub;
mod seal;
mod sealed_list;
mod sealing;
pub mod segment;
pub mod sim_disk;
mod slots;
mod staging;
mod state;
mod switch;
mod threads;
mod tiles;
pub mod tree;
pub mod view;
pub mod vote;
mod walk;
pub mod watermarks;
mod worker;
mod writer;

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;
use scribe_proof::tree::{LEVEL_MAX, TreeBuilder, level_length};
use tokio::sync::watch;

use self::cache::{CacheSizes, Caches};
use self::disk::Disk;
use self::error::StoreError;
use self::frame::{Frame, FramePosition};
use self::index::{IndexKind, KeyIndex};
use self::log::{Log, LogIdentity, LogOptions, RecoveredLog};
use self::open_segment::OpenSegment;
use self::seal::{SealJob, Sealer};
use self::segment::SealedSegment;
use self::staging::Transfers;
use self::tree::TreeFiles;
use self::view::indexed_key;
use crate::limits;

pub use self::check::CheckReport;
pub use self::index::ScanRange;
pub use self::mend::{Finished, Mend, Verdict};
pub use self::proofs::ProofTree;
pub use self::restore::{KnownMembership, RestoreRule};
pub use self::staging::{Missing, Staging};
pub use self::tiles::StoredTile;
pub use self::view::{Applied, ApplyTicket, Effects, LeafEffect, Remembered, StoredEntry, Version};
pub use self::walk::{CheckError, Damage, takes_leaves};

/// How to open a store.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Sizes of segments and of the frame cache.
    pub log: LogOptions,
    /// Which key index.
    pub index: IndexKind,
    /// Memory for reads.
    pub caches: CacheSizes,
    /// When a log whose acknowledged end is damaged may be cut and fetched again; never, if there is none.
    pub restore: Option<RestoreRule>,
}

/// What opening a store found and did.
#[derive(Debug, Default)]
pub struct OpenReport {
    /// The log's part: sealed segments, torn tail, damage, warnings.
    pub log: RecoveredLog,
    /// Segments whose tree hashes were derived again from their entries.
    pub tree_segments_rebuilt: usize,
    /// Segments taken into the key index, because it was new, behind, or had to be deleted.
    pub index_segments_ingested: usize,
    /// Why the key index was deleted first, if it was.
    pub index_deleted: Option<String>,
    /// The damage that keeps the key index from being complete: see [`Store::complete_index`].
    pub index_incomplete: Option<String>,
}

/// The store of one node. Clone = another handle to the same store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Log,
    directory: PathBuf,
    tree: TreeFiles,
    index: Box<dyn KeyIndex>,
    /// Sealed keys cannot be read while the index is being rebuilt, or lacks a segment that is damaged.
    index_rebuilding: AtomicBool,
    /// Held shared across each read of the index, so that it is not cleared under a reader.
    index_readers: RwLock<()>,
    /// Held while segments are sealed, verified or installed, or the index is rebuilt: one of them at a time.
    sealing: Mutex<()>,
    /// Segments on their way from another node. Taken before `sealing`.
    staging: Mutex<Transfers>,
    /// Held while files in `mending/` are written or renamed; not once the store has stopped.
    mending: Mutex<()>,
    /// Order of locks: `applier`, then `view`.
    applier: Mutex<Applier>,
    view: RwLock<View>,
    caches: Caches,
    applied: watch::Sender<Applied>,
    /// Full segments handed to the sealer and not sealed yet.
    waiting: watch::Sender<usize>,
    sealer: Mutex<Option<Sealer>>,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    stopping: AtomicBool,
}

/// What only apply touches: its own copy of the state, and the right edge of the tree.
#[derive(Debug)]
struct Applier {
    applied: Applied,
    /// Segment of the last applied frame; `None` right after open.
    segment: Option<u32>,
    builder: TreeBuilder,
    /// New hashes of the frame being applied, by level.
    hashes: Vec<Vec<Hash>>,
    /// One past the newest put or delete.
    user_size: u64,
}

/// What readers see of segments that are not sealed.
#[derive(Debug)]
struct View {
    applied: Applied,
    sealed: Applied,
    /// Complete segments the sealer has not finished, oldest first.
    complete: VecDeque<Arc<OpenSegment>>,
    /// The segment frames are applied to; `None` until the first frame after open.
    current: Option<OpenSegment>,
}

impl View {
    /// Leaves below this size are in sealed segments: on disk, in tree files and in the index.
    fn sealed_size(&self) -> TreeSize {
        self.sealed.tree_size
    }

    /// Open segments, newest first.
    fn newest_first(&self) -> impl Iterator<Item = &OpenSegment> {
        let complete = self.complete.iter().rev().map(|segment| &**segment);
        self.current.iter().chain(complete)
    }
}

impl Store {
    /// Opens or creates the store in `directory` and brings tree files and key index up to the last sealed segment.
    ///
    /// Afterwards the applied state is that of the last sealed segment; frames behind it are for the caller to apply.
    ///
    /// # Errors
    /// What the log refuses ([`StoreError`]); damage in a sealed segment that is needed to rebuild a derived file.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: LogIdentity,
        options: StoreOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let (log, recovered) = match &options.restore {
            None => Log::open(disk.clone(), directory, identity, options.log.clone())?,
            Some(rule) => {
                Log::open_or_restore(disk.clone(), directory, identity, options.log.clone(), rule)?
            }
        };
        let opened = Self::open_view(disk, directory, log.clone(), recovered, &options);
        if opened.is_err() {
            log.shutdown();
        }
        opened
    }

    fn open_view(
        disk: Arc<dyn Disk>,
        directory: &Path,
        log: Log,
        recovered: RecoveredLog,
        options: &StoreOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let sealed = recovered.sealed.clone();
        let mut report = OpenReport {
            log: recovered,
            ..OpenReport::default()
        };
        let tree = TreeFiles::open(disk, &directory.join("tree"))?;
        report.tree_segments_rebuilt = rebuild::bring_tree_up(directory, &log, &tree, &sealed)?;
        let index = rebuild::open_index(directory, options, &mut report)?;
        let deleted = &mut report.index_deleted;
        match rebuild::bring_index_up(directory, &log, &*index, &sealed, deleted) {
            Ok(ingested) => report.index_segments_ingested = ingested,
            // What needs no index is served, and the others may have the segment.
            Err(error) if error.is_damage() => {
                report.index_incomplete = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }

        let applied = sealed.last().map_or_else(Applied::default, applied_at_end);
        let size = applied.tree_size;
        let builder = TreeBuilder::from_reader(&tree, size)
            .map_err(|error| StoreError::io("read tree in", directory, error))?;
        let inner = Arc::new(Inner {
            log,
            directory: directory.to_owned(),
            tree,
            index,
            index_rebuilding: AtomicBool::new(report.index_incomplete.is_some()),
            index_readers: RwLock::new(()),
            sealing: Mutex::new(()),
            staging: Mutex::default(),
            mending: Mutex::new(()),
            applier: Mutex::new(Applier {
                applied: applied.clone(),
                segment: None,
                builder,
                hashes: vec![Vec::new(); usize::from(LEVEL_MAX) + 1],
                user_size: if applied.user_entries_since_published {
                    size.get()
                } else {
                    0
                },
            }),
            view: RwLock::new(View {
                applied: applied.clone(),
                sealed: applied.clone(),
                complete: VecDeque::new(),
                current: None,
            }),
            caches: Caches::new(options.caches),
            applied: watch::Sender::new(applied),
            waiting: watch::Sender::new(0),
            sealer: Mutex::new(None),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            stopping: AtomicBool::new(false),
        });
        let sealer = Sealer::start(Arc::downgrade(&inner))
            .map_err(|error| StoreError::io("start the sealer of", directory, error))?;
        *inner.sealer.lock() = Some(sealer);
        Ok((Self(inner), report))
    }

    /// The Raft log.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// The state after the last applied frame.
    pub fn applied(&self) -> Applied {
        self.0.view.read().applied.clone()
    }

    /// The state a restart would begin with: that of the last sealed segment.
    pub fn sealed_applied(&self) -> Applied {
        self.0.view.read().sealed.clone()
    }

    /// Follows the applied state.
    pub fn watch_applied(&self) -> watch::Receiver<Applied> {
        self.0.applied.subscribe()
    }

    /// Waits while more than [`limits::SEGMENTS_UNSEALED_MAX`] full segments wait to be sealed, or the store fails.
    ///
    /// Called before each apply: this is what bounds memory and the time a restart takes.
    pub async fn apply_room(&self) {
        let mut waiting = self.0.waiting.subscribe();
        let room = waiting.wait_for(|waiting| {
            *waiting <= limits::SEGMENTS_UNSEALED_MAX || self.0.failed.load(Ordering::Acquire)
        });
        // An error says that the sender is gone; this handle keeps it alive.
        let _ = room.await;
    }

    /// Waits until no full segment waits to be sealed, or the store fails.
    #[cfg(test)]
    pub(crate) async fn all_sealed(&self) {
        let mut waiting = self.0.waiting.subscribe();
        let idle = waiting.wait_for(|waiting| *waiting == 0 || self.poisoned().is_some());
        drop(idle.await);
    }

    /// Bytes the key index takes on disk.
    pub fn index_disk_bytes(&self) -> u64 {
        self.0.index.disk_bytes()
    }

    /// Seals nothing more: for looking at data whose end may not be committed.
    pub fn stop_sealing(&self) {
        let sealer = self.0.sealer.lock().take();
        if let Some(sealer) = sealer {
            sealer.join();
        }
    }

    /// Full segments that wait to be sealed.
    pub fn segments_waiting(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// The first error that stopped the store, if one did.
    pub fn poisoned(&self) -> Option<String> {
        let own = self.0.failure.lock().clone();
        own.or_else(|| self.0.log.poisoned())
    }

    /// Takes the next frame into the view. Called by one task, for every frame, in log order.
    ///
    /// # Errors
    /// Kind `Other` once the store is poisoned; kind `InvalidInput`, and nothing is changed, when the frame or its
    /// effects do not follow from the state before.
    pub fn apply(
        &self,
        frame: &Frame,
        position: FramePosition,
        effects: Effects,
    ) -> io::Result<ApplyTicket> {
        self.0.check_healthy()?;
        let mut applier = self.0.applier.lock();
        applier.check(frame, position, &effects)?;

        let ticket = ApplyTicket {
            log_id: frame.log_id,
            first_leaf: applier.applied.tree_size.next_index(),
            count: match &effects {
                Effects::Entries(leaves, _) => leaves.len() as u32,
                _ => 0,
            },
            tree_size: match &effects {
                Effects::Entries(leaves, _) => {
                    applier.applied.tree_size.grown_by(leaves.len() as u64)
                }
                _ => applier.applied.tree_size,
            },
        };
        // The frame that opens a segment completes the one before.
        let boundary = (applier.segment != Some(position.segment))
            .then(|| (applier.applied.clone(), applier.builder.root()));
        // All hashing happens here, before readers are kept out.
        applier.advance(frame, position, &effects);

        let complete = {
            let mut view = self.0.view.write();
            let mut complete = None;
            if let Some((state, root)) = &boundary {
                let segment = OpenSegment::new(position.segment, state.tree_size, *root);
                complete = view.current.replace(segment).map(Arc::new);
                view.complete.extend(complete.clone());
            }
            if let (Effects::Entries(leaves, digests), Some(current)) =
                (&effects, view.current.as_mut())
            {
                current.push_frame(position);
                for (slot, leaf) in leaves.iter().enumerate() {
                    let key = indexed_key(leaf.kind, &leaf.key);
                    let version = Version {
                        index: LeafIndex::new(ticket.first_leaf.get() + slot as u64),
                        kind: leaf.kind,
                        position,
                        slot: slot as u16,
                    };
                    self.0.caches.replace_latest(key, version);
                    current.push_leaf(key, leaf.kind, leaf.timestamp_ms);
                }
                applier.give_hashes(current, ticket.first_leaf);
                for digest in digests {
                    let first = usize::from(digest.first);
                    let remembered = Remembered {
                        first: LeafIndex::new(ticket.first_leaf.get() + first as u64),
                        count: digest.count,
                        fingerprint: digest.fingerprint,
                        timestamp_ms: leaves[first].timestamp_ms,
                    };
                    current.push_remembered(digest.key_hash, remembered);
                }
            }
            view.applied = applier.applied.clone();
            complete
        };
        self.0.applied.send_replace(applier.applied.clone());
        if let (Some(segment), Some((state, end_root))) = (complete, boundary) {
            self.0.waiting.send_modify(|waiting| *waiting += 1);
            self.0.hand_to_sealer(SealJob {
                segment,
                end_root,
                state,
            });
        }
        Ok(ticket)
    }

    /// Stops the threads and lets go of the files. A segment that is being sealed is finished first; segments that
    /// wait will be sealed after the next start. Does not wait for the index's background work.
    pub fn shutdown(&self) {
        self.0.stopping.store(true, Ordering::Release);
        let sealer = self.0.sealer.lock().take();
        if let Some(sealer) = sealer {
            sealer.join();
        }
        // Nothing is put in place any more by the time somebody else may open the directory.
        drop(self.0.mending.lock());
        self.0.index.close();
        self.0.log.shutdown();
    }
}

impl Inner {
    fn check_healthy(&self) -> io::Result<()> {
        let first = if self.failed.load(Ordering::Acquire) {
            self.failure.lock().clone()
        } else {
            self.log.poisoned()
        };
        first.map_or(Ok(()), |first| Err(StoreError::Poisoned { first }.into()))
    }

    /// Remembers the first error: from here on nothing is applied or sealed.
    fn fail(&self, error: &dyn std::fmt::Display) {
        self.log.poison(&error.to_string());
        let mut failure = self.failure.lock();
        if failure.is_none() {
            *failure = Some(error.to_string());
        }
        drop(failure);
        self.failed.store(true, Ordering::Release);
        // Wakes whoever waits for room.
        self.waiting.send_modify(|_| ());
    }

    fn hand_to_sealer(&self, job: SealJob) {
        if let Some(sealer) = &*self.sealer.lock() {
            sealer.hand(job);
        }
    }
}

impl Applier {
    fn check(&self, frame: &Frame, position: FramePosition, effects: &Effects) -> io::Result<()> {
        if let Some(last) = self.applied.last_log_id {
            // openraft's conformance suite skips log indexes, with frames that take no leaves; nothing else may.
            let follows = match frame.count {
                0 => frame.log_id.index > last.index,
                _ => frame.log_id.index == last.index.next(),
            };
            if !follows {
                return Err(invalid(format!(
                    "frame {} cannot be applied after frame {last}",
                    frame.log_id
                )));
            }
        }
        if let Some(segment) = self.segment
            && position.segment < segment
        {
            return Err(invalid(format!(
                "frame {} is in segment {}, segment {segment} was reached before",
                frame.log_id, position.segment
            )));
        }
        if let Effects::Entries(leaves, digests) = effects {
            let next = self.applied.tree_size.next_index();
            if leaves.len() != frame.count as usize || leaves.is_empty() || frame.first_leaf != next
            {
                return Err(invalid(format!(
                    "frame {} has {} leaves from index {}, its effects have {} from index {}",
                    frame.log_id,
                    frame.count,
                    frame.first_leaf.get(),
                    leaves.len(),
                    next.get()
                )));
            }
            for digest in digests {
                let end = usize::from(digest.first) + usize::from(digest.count);
                if digest.count == 0 || end > leaves.len() {
                    return Err(invalid(format!(
                        "frame {} remembers operations {} to {end}, it has {}",
                        frame.log_id,
                        digest.first,
                        leaves.len()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Moves state and tree on over a frame that was checked. Nothing here can fail.
    fn advance(&mut self, frame: &Frame, position: FramePosition, effects: &Effects) {
        self.segment = Some(position.segment);
        let applied = &mut self.applied;
        applied.last_log_id = Some(frame.log_id);
        match effects {
            Effects::Nothing | Effects::Void => {}
            Effects::Membership(membership) => applied.membership = membership.clone(),
            Effects::Publish { size, root } => applied.published = (*size, *root),
            Effects::Entries(leaves, _) => {
                for leaf in leaves {
                    let hashes = &mut self.hashes;
                    self.builder.append(leaf.leaf_hash, |level, hash| {
                        if let Some(level) = hashes.get_mut(usize::from(level)) {
                            level.push(hash);
                        }
                    });
                    applied.tree_size = applied.tree_size.grown_by(1);
                    applied.last_timestamp_ms = applied.last_timestamp_ms.max(leaf.timestamp_ms);
                    if leaf.kind != LeafKind::System {
                        self.user_size = applied.tree_size.get();
                    }
                }
            }
        }
        applied.user_entries_since_published = self.user_size > applied.published.0.get();
    }

    /// Moves the new hashes of the frame that begins at `first_leaf` into its segment.
    fn give_hashes(&mut self, segment: &mut OpenSegment, first_leaf: LeafIndex) {
        let size_before = TreeSize::new(first_leaf.get());
        for (level, hashes) in self.hashes.iter_mut().enumerate() {
            if !hashes.is_empty() {
                let level = level as u8;
                segment.push_hashes(level, level_length(level, size_before), hashes);
                hashes.clear();
            }
        }
    }
}

/// The state of the ledger at the end of a sealed segment.
fn applied_at_end(sealed: &SealedSegment) -> Applied {
    let footer = &sealed.footer;
    Applied {
        last_log_id: Some(sealed.last_log_id),
        membership: footer.membership.clone(),
        tree_size: footer.end_size,
        last_timestamp_ms: footer.last_timestamp_ms,
        published: footer.published,
        user_entries_since_published: footer.published.0 < footer.end_size,
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
