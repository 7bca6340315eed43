//! Deriving again what is derived: tree files and key index from sealed segments.
//!
//! At open this closes whatever gap a crash, a deletion or damage left; [`Store::rebuild_index`] does it on request.
//! Segments are read from disk frame by frame with all their checks, so that nothing is derived from damaged bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use scribe_proof::hash::leaf_hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::tree::{TreeBuilder, level_length};

use super::error::{IoContext, StoreError};
use super::frame::{FramePosition, ParsedFrame};
use super::index::fjall::FjallIndex;
use super::index::memory::MemoryIndex;
use super::index::{IndexKind, KeyIndex};
use super::log::Log;
use super::open_segment::OpenSegment;
use super::seal::{identity, ingest};
use super::segment::SealedSegment;
use super::tree::TreeFiles;
use super::view::Remembered;
use super::walk::{CheckError, FrameWalk, Place, key_of, sealed_path};
use super::{Inner, OpenReport, Store, StoreOptions};
use crate::planted;

/// Makes the tree files say what the sealed segments say: cut if longer, derived again from the first segment that
/// does not agree. Returns how many segments were derived again.
///
/// Only the right edge is compared here; damage elsewhere is what the scrubber and `check` are for.
pub(super) fn bring_tree_up(
    directory: &Path,
    log: &Log,
    tree: &TreeFiles,
    sealed: &[SealedSegment],
) -> Result<usize, StoreError> {
    let size = sealed
        .last()
        .map_or(TreeSize::EMPTY, |last| last.footer.end_size);
    tree.cut(size)?;
    let mut good = sealed.len();
    while good > 0 {
        let footer = &sealed[good - 1].footer;
        let agrees = tree
            .agrees(footer.end_size, &footer.end_root)
            .context("read", &tree.path(0))?;
        if agrees {
            break;
        }
        good -= 1;
    }
    if good < sealed.len() {
        tracing::warn!(
            from = good,
            segments = sealed.len() - good,
            "tree files are behind or damaged and are derived again from the segments"
        );
        rebuild_tree(log, tree, sealed, good)
            .map_err(|error| refused(directory, "derive again", &tree.path(0), error))?;
    }
    Ok(sealed.len() - good)
}

/// Derives the hashes of all segments from number `first` on.
fn rebuild_tree(
    log: &Log,
    tree: &TreeFiles,
    sealed: &[SealedSegment],
    first: usize,
) -> Result<(), CheckError> {
    let start = first
        .checked_sub(1)
        .map_or(TreeSize::EMPTY, |before| sealed[before].footer.end_size);
    let mut builder = TreeBuilder::from_reader(tree, start)?;
    for segment in &sealed[first..] {
        let loaded = load_segment(log, segment, Some(&mut builder))?;
        for (level, run) in loaded.levels().iter().enumerate() {
            tree.write(level as u8, run)?;
        }
    }
    Ok(tree.sync()?)
}

/// Something derived cannot be derived again: because its segment is damaged, or the disk refuses.
fn refused(directory: &Path, action: &'static str, path: &Path, error: CheckError) -> StoreError {
    match error {
        CheckError::Damage(damage) => {
            StoreError::damaged(&directory.join(&damage.path), damage.offset, damage.reason)
        }
        CheckError::Io(error) => StoreError::io(action, path, error),
    }
}

/// Reads a sealed segment from disk into the form it had before it was sealed. With a builder (of the tree before the
/// segment) its hashes are computed too, and compared with the root in its footer.
pub(super) fn load_segment(
    log: &Log,
    sealed: &SealedSegment,
    builder: Option<&mut TreeBuilder>,
) -> Result<OpenSegment, CheckError> {
    let walk = FrameWalk::sealed(log, sealed);
    load_frames(
        walk,
        sealed,
        sealed_path(sealed),
        None,
        builder,
        |_, _, _| (),
    )
}

/// The same from any walk over the segment's frames in the file `path`. `previous` is the chain CRC and log index before
/// the first frame, if they are to be checked, too; `each` is told of every frame, void or not.
pub(super) fn load_frames(
    mut walk: FrameWalk<'_>,
    sealed: &SealedSegment,
    path: PathBuf,
    previous: Option<(u32, u64)>,
    mut builder: Option<&mut TreeBuilder>,
    mut each: impl FnMut(FramePosition, &ParsedFrame, &Bytes),
) -> Result<OpenSegment, CheckError> {
    let footer = &sealed.footer;
    let mut segment = OpenSegment::new(sealed.number, footer.start_size, footer.start_root);
    let mut place = Place {
        tree_size: footer.start_size,
        previous,
    };
    let mut hashes = Vec::new();
    while let Some((position, parsed, raw)) = walk.next_frame()? {
        each(position, &parsed, &raw);
        let placed = place.step(&walk, position, &parsed, &raw)?;
        let Some(batch) = &placed.batch else {
            continue;
        };
        segment.push_frame(position);
        let mut times = Vec::with_capacity(batch.count());
        placed.for_each_leaf(&path, |_, index, bytes, leaf| {
            segment.push_leaf(key_of(leaf), leaf.kind, leaf.timestamp_ms);
            times.push(leaf.timestamp_ms);
            if let Some(builder) = &mut builder {
                let size = TreeSize::new(index.get());
                builder.append(leaf_hash(bytes), |level, hash| hashes.push((level, hash)));
                for (level, hash) in hashes.drain(..) {
                    segment.push_hashes(level, level_length(level, size), &[hash]);
                }
            }
            Ok(())
        })?;
        for digest in batch.digests() {
            // planted
            if planted::has("idempotency-lost-on-restart") {
                continue;
            }
            let first = usize::from(digest.first);
            let timestamp_ms = times.get(first).copied().unwrap_or_default();
            segment.push_remembered(
                digest.key_hash,
                Remembered {
                    first: LeafIndex::new(placed.tree_size.get() + first as u64),
                    count: digest.count,
                    fingerprint: digest.fingerprint,
                    timestamp_ms,
                },
            );
        }
    }
    if place.tree_size != footer.end_size {
        return Err(walk
            .damage(format!(
                "tree size after the segment is {}, its footer says {}",
                place.tree_size.get(),
                footer.end_size.get()
            ))
            .into());
    }
    if let Some(builder) = builder {
        let root = builder.root();
        if root != footer.end_root {
            return Err(walk
                .damage(format!(
                    "root after the segment is {}, its footer says {}",
                    root.to_hex(),
                    footer.end_root.to_hex()
                ))
                .into());
        }
    }
    Ok(segment)
}

/// Opens the key index; one that cannot be opened is deleted first.
pub(super) fn open_index(
    directory: &Path,
    options: &StoreOptions,
    report: &mut OpenReport,
) -> Result<Box<dyn KeyIndex>, StoreError> {
    match options.index {
        IndexKind::Memory => Ok(Box::new(MemoryIndex::default())),
        IndexKind::Fjall => {
            let path = directory.join("index");
            let opened = FjallIndex::open(&path, options.caches.index_bytes);
            let index = match opened {
                Ok(index) => index,
                Err(error) => {
                    tracing::warn!(%error, "the key index cannot be opened and is rebuilt");
                    report.index_deleted = Some(error.to_string());
                    FjallIndex::remove(&path).context("remove", &path)?;
                    FjallIndex::open(&path, options.caches.index_bytes).context("open", &path)?
                }
            };
            Ok(Box::new(index))
        }
    }
}

/// Takes into the index what it lacks; deletes it first if it knows other segments than the log. Returns how many
/// segments were taken in. An index that is ahead is left alone: see [`super::seal`].
pub(super) fn bring_index_up(
    directory: &Path,
    log: &Log,
    index: &dyn KeyIndex,
    sealed: &[SealedSegment],
    deleted: &mut Option<String>,
) -> Result<usize, StoreError> {
    let path = directory.join("index");
    let mut known = index.segments().and_then(|known| {
        for (place, segment) in known.iter().enumerate() {
            let other = sealed
                .get(place)
                .is_some_and(|sealed| identity(sealed, segment.versions) != *segment);
            if segment.number as usize != place || other {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("segment {place} is another one than in the log"),
                ));
            }
        }
        Ok(known.len())
    });
    if let Err(error) = &known {
        tracing::warn!(%error, "the key index does not fit the log and is rebuilt");
        *deleted = Some(error.to_string());
        index.clear().context("remove", &path)?;
        known = Ok(0);
    }
    let first = known.unwrap_or(0).min(sealed.len());
    ingest_segments(log, index, sealed, first, |done, of| {
        if of > 8 {
            tracing::info!(done, of, "filling the key index");
        }
    })
    .map_err(|error| refused(directory, "fill", &path, error))
}

/// Takes the segments from number `first` on into the index.
pub(super) fn ingest_segments(
    log: &Log,
    index: &dyn KeyIndex,
    sealed: &[SealedSegment],
    first: usize,
    mut progress: impl FnMut(u64, u64),
) -> Result<usize, CheckError> {
    let missing = sealed.get(first..).unwrap_or_default();
    for (done, segment) in missing.iter().enumerate() {
        progress(done as u64, missing.len() as u64);
        let loaded = load_segment(log, segment, None)?;
        let identity = identity(segment, loaded.version_count());
        ingest(index, &loaded, identity, segment.footer.last_timestamp_ms)?;
    }
    Ok(missing.len())
}

impl Inner {
    /// Deletes the index and fills it from these segments, `sealing` held. Readers are turned away from the start, and
    /// those that are reading are waited for: none may take an index that is being filled for one that lacks a key.
    ///
    /// After an error readers are still turned away; the next open completes the index.
    pub(super) fn refill_index(
        &self,
        sealed: &[SealedSegment],
        progress: impl FnMut(u64, u64),
    ) -> Result<usize, CheckError> {
        self.index_rebuilding.store(true, Ordering::Release);
        drop(self.index_readers.write());
        self.index.clear()?;
        let segments = ingest_segments(&self.log, &*self.index, sealed, 0, progress)?;
        self.index_rebuilding.store(false, Ordering::Release);
        Ok(segments)
    }
}

impl Inner {
    /// Takes into an incomplete index what it lacks, `sealing` held. Readers are let in again if nothing is missing then.
    pub(super) fn complete_index(&self, sealed: &[SealedSegment]) -> Result<usize, CheckError> {
        if !self.index_rebuilding.load(Ordering::Acquire) {
            return Ok(0);
        }
        let first = self.index.segments()?.len().min(sealed.len());
        let segments = ingest_segments(&self.log, &*self.index, sealed, first, |_, _| {})?;
        self.index_rebuilding.store(false, Ordering::Release);
        Ok(segments)
    }
}

impl Store {
    /// Whether sealed keys cannot be read, because the index lacks a segment or is being rebuilt.
    pub fn index_is_incomplete(&self) -> bool {
        self.0.index_rebuilding.load(Ordering::Acquire)
    }

    /// Takes into the key index what it lacks, once the damaged segment that kept it from being complete at the start is
    /// mended. Returns how many segments were taken in; nothing happens if none is missing.
    ///
    /// # Errors
    /// Damage in a sealed segment (kind `InvalidData`), which is suspected then; what the disk or the index refuses.
    pub fn complete_index(&self) -> io::Result<u64> {
        let inner = &self.0;
        let _one_at_a_time = inner.sealing.lock();
        let sealed = inner.log.sealed();
        Ok(inner.complete_index(&sealed)? as u64)
    }

    /// Deletes the key index and fills it from the sealed segments. Reads of sealed keys fail meanwhile; apply goes on,
    /// sealing waits. `progress` is told how many of how many segments are done.
    ///
    /// # Errors
    /// Damage in a sealed segment (kind `InvalidData`), or what the disk or the index refuses. The index is then
    /// incomplete; the next open completes it.
    pub fn rebuild_index(&self, progress: impl FnMut(u64, u64)) -> io::Result<u64> {
        let inner = &self.0;
        let _one_at_a_time = inner.sealing.lock();
        let sealed = inner.log.sealed();
        Ok(inner.refill_index(&sealed, progress)? as u64)
    }
}
