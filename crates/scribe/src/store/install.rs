//! Taking over sealed segments from another node: how a node that is far behind gets its state.
//!
//! ```text
//! list of the other node -> Staging::missing -> write … finish -> Store::install
//!                           (compared)          (fetched, verified)  (one switch)
//! ```
//!
//! A snapshot of the state machine always is the state at the end of a sealed segment, so nothing but sealed segments
//! travels; what follows them is replicated as log entries. This file compares the lists, makes sure that tree files
//! and index have what the new segments bring, and moves log and view on; [`super::staging`] has the files before that,
//! [`super::switch`] the log's part.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use scribe_proof::tree::TreeBuilder;

use super::disk::Open;
use super::index::IndexedSegment;
use super::log::Log;
use super::open_segment::OpenSegment;
use super::seal::{identity, ingest};
use super::sealed_list::read_footer;
use super::segment::{FOOTER_LENGTH_MAX, SEGMENT_HEADER_LENGTH, SealedSegment, file_path};
use super::staging::{check_staged, remove_all_but};
use super::switch::INCOMING_DIR;
use super::walk::CheckError;
use super::{Inner, Store, applied_at_end, invalid};

/// The segments of another node's list that are not sealed here, after comparing the others with this node's own.
pub(super) fn not_sealed<'a>(
    log: &Log,
    wanted: &'a [SealedSegment],
) -> io::Result<&'a [SealedSegment]> {
    let own = log.sealed();
    for (place, segment) in wanted.iter().enumerate() {
        check_listed(segment, place.checked_sub(1).and_then(|at| wanted.get(at)))
            .map_err(|rule| contradiction(segment, &rule))?;
        let cluster_id = log.identity().cluster_id;
        if segment.cluster_id != cluster_id || segment.number as usize != place {
            return Err(contradiction(segment, "is not of this ledger's list"));
        }
        if let Some(own) = own.get(place)
            && !same_content(own, segment)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "segment {place} ends at {} with root {}, the other node's ends at {} with root {}: one of the two \
                     has diverged\nhint: compare both with a third node; the one that differs is replaced under a new id",
                    own.last_log_id,
                    own.footer.end_root,
                    segment.last_log_id,
                    segment.footer.end_root
                ),
            ));
        }
    }
    Ok(wanted.get(own.len()..).unwrap_or_default())
}

fn contradiction(segment: &SealedSegment, rule: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the other node's list contradicts itself: segment {} {rule}",
            segment.number
        ),
    )
}

/// Whether both hold the same frames. Private bytes may have been erased from one of them: then only the bodies differ.
fn same_content(own: &SealedSegment, other: &SealedSegment) -> bool {
    own.number == other.number
        && own.first_log_index == other.first_log_index
        && own.last_log_id == other.last_log_id
        && own.last_chain == other.last_chain
        && own.footer.end_size == other.footer.end_size
        && own.footer.end_root == other.footer.end_root
        && (own.generation != other.generation || own.body_sha256 == other.body_sha256)
}

/// Checks what a list says of a segment against the segment before it.
pub(super) fn check_listed(
    segment: &SealedSegment,
    previous: Option<&SealedSegment>,
) -> Result<(), String> {
    let footer = segment.file_length.checked_sub(segment.body_length);
    if segment.body_length < SEGMENT_HEADER_LENGTH as u64
        || segment.body_length > u64::from(u32::MAX)
        || footer.is_none_or(|footer| footer > FOOTER_LENGTH_MAX as u64)
    {
        return Err(format!(
            "has {} bytes of frames in a file of {}",
            segment.body_length, segment.file_length
        ));
    }
    let Some(previous) = previous else {
        return Ok(());
    };
    let follows = segment.first_log_index == previous.last_log_id.index.next()
        && segment.last_log_id.index >= segment.first_log_index
        && segment.last_log_id.term >= previous.last_log_id.term
        && segment.footer.start_size == previous.footer.end_size
        && segment.footer.start_root == previous.footer.end_root;
    if follows {
        Ok(())
    } else {
        Err("does not follow the one before it".to_owned())
    }
}

impl Inner {
    /// Those of the verified segments that are not sealed, with what their footers add to the list.
    pub(super) fn staged(
        &self,
        wanted: &[SealedSegment],
        sealed: &[SealedSegment],
    ) -> io::Result<Vec<SealedSegment>> {
        let disk = self.log.disk();
        let directory = self.incoming();
        let rest = wanted
            .iter()
            .filter(|segment| segment.number as usize >= sealed.len());
        rest.map(|segment| {
            let path = file_path(&directory, segment.first_log_index);
            if !disk.exists(&path)? {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("segment {} was not fetched and verified", segment.number),
                ));
            }
            let found = match read_footer(disk, &path)? {
                Ok(found) if found.is_same(segment) => found,
                found => {
                    disk.remove(&path)?;
                    let reason = found.err();
                    let reason = reason.as_deref().unwrap_or("it is another segment");
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("segment {} was staged, but {reason}", segment.number),
                    ));
                }
            };
            Ok(found)
        })
        .collect()
    }

    /// Makes sure that tree files and index have what these segments bring, `sealing` held. They have it already, unless
    /// the process was restarted since the segments were verified.
    pub(super) fn derive(
        &self,
        sealed: &[SealedSegment],
        staged: &[SealedSegment],
    ) -> io::Result<()> {
        let Some(last) = staged.last() else {
            return Ok(());
        };
        let known = self.index.segments()?;
        let fits = known
            .iter()
            .zip(sealed.iter().chain(staged))
            .all(|(known, segment)| is_known(segment, known));
        // One that lacks a damaged segment is completed once that one is mended.
        let waits = self.index_rebuilding.load(Ordering::Acquire);
        if !waits && (!fits || known.len() < sealed.len()) {
            tracing::warn!(
                "the key index does not fit the segments to be installed and is rebuilt"
            );
            self.refill_index(sealed, |_, _| {})
                .map_err(|error| self.failing("fill the key index", error.into()))?;
        }
        let mut indexed = self.index.segments()?.len();
        let footer = &last.footer;
        if indexed > last.number as usize && self.tree.agrees(footer.end_size, &footer.end_root)? {
            return Ok(());
        }
        let mut previous = sealed.last();
        for segment in staged {
            let footer = &segment.footer;
            let in_tree = self.tree.agrees(footer.end_size, &footer.end_root)?;
            let in_index = indexed > segment.number as usize;
            if !in_tree || !in_index {
                let mut builder = self.builder_at(segment)?;
                let path = file_path(&self.incoming(), segment.first_log_index);
                let file = self.log.disk().open(&path, Open::READ)?;
                let name = file_path(Path::new(INCOMING_DIR), segment.first_log_index);
                let nobody = &mut |_, _| {};
                let builder = Some(&mut builder);
                let checked = check_staged(&file, segment, previous, builder, &name, nobody);
                let checked = checked.map(|(loaded, _)| loaded);
                if let Err(CheckError::Damage(_)) = &checked {
                    self.log.disk().remove(&path)?;
                }
                self.take_in(segment, &checked?)?;
                indexed = indexed.max(segment.number as usize + 1);
            }
            previous = Some(segment);
        }
        Ok(())
    }

    /// Takes a verified segment into tree files and index; the index only if it has all segments before it.
    pub(super) fn take_in(&self, segment: &SealedSegment, loaded: &OpenSegment) -> io::Result<()> {
        let taken = self.take_in_unless_known(segment, loaded);
        taken.map_err(|error| self.failing("take in a segment", error))
    }

    fn take_in_unless_known(
        &self,
        segment: &SealedSegment,
        loaded: &OpenSegment,
    ) -> io::Result<()> {
        // A crash in here leaves tree files and an index that are ahead of the log, as while a segment is sealed: the
        // files are cut at open, and from the index nothing beyond the sealed size is believed. (Of an idempotency key
        // it knows the newest write only, and one from before the window is then not found any more. Who may need it is
        // a leader, and a leader has applied all that is committed, which these segments are.)
        for (level, run) in loaded.levels().iter().enumerate() {
            self.tree.write(level as u8, run)?;
        }
        self.tree.sync()?;
        if self.index.segments()?.len() == segment.number as usize {
            let identity = identity(segment, loaded.version_count());
            let now_ms = segment.footer.last_timestamp_ms;
            ingest(&*self.index, loaded, identity, now_ms)?;
        }
        Ok(())
    }

    /// A failed write or sync of tree files or index stops the store, whoever asked for it.
    fn failing(&self, action: &str, error: io::Error) -> io::Error {
        self.fail(&format_args!("{action}: {error}"));
        error
    }

    /// Compares the tree this node has applied with the tree of the segments, which are in the tree files by now.
    fn compare_applied(&self, last: &SealedSegment) -> io::Result<()> {
        let applier = self.applier.lock();
        let applied = &applier.applied;
        if applied.last_log_id.map(|id| id.index) > Some(last.last_log_id.index) {
            return Err(invalid(format!(
                "segments up to {} are installed, this node has applied more",
                last.last_log_id
            )));
        }
        let agreed = self.tree.root_at(applied.tree_size)?;
        let own = applier.builder.root();
        if own != agreed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "this node's root at tree size {} is {own}, that of the segments is {agreed}: this node has diverged",
                    applied.tree_size
                ),
            ));
        }
        Ok(())
    }

    /// Moves the view to the end of the last installed segment. Readers see the state before or this one.
    fn switch_view(&self, last: &SealedSegment) -> io::Result<()> {
        let applied = applied_at_end(last);
        let builder = TreeBuilder::from_reader(&self.tree, applied.tree_size)?;
        let mut applier = self.applier.lock();
        let old = {
            let mut view = self.view.write();
            applier.segment = None;
            applier.builder = builder;
            applier.hashes.iter_mut().for_each(Vec::clear);
            applier.user_size = if applied.user_entries_since_published {
                applied.tree_size.get()
            } else {
                0
            };
            applier.applied = applied.clone();
            view.applied = applied.clone();
            view.sealed = applied.clone();
            // Under the lock that whoever caches the newest version of a key holds.
            self.caches.clear();
            (std::mem::take(&mut view.complete), view.current.take())
        };
        self.waiting.send_replace(0);
        self.applied.send_replace(applied);
        drop(applier);
        // Tens of milliseconds for a full segment: outside the locks.
        drop(old);
        Ok(())
    }
}

fn is_known(segment: &SealedSegment, known: &IndexedSegment) -> bool {
    identity(segment, known.versions) == *known
}

impl Store {
    /// Puts another node's sealed segments in the place of everything here that is not sealed, in one durable switch,
    /// and moves the view to the end of the last one. Blocks. Does nothing if all of them are sealed here.
    ///
    /// Every segment that is not sealed here must have been verified ([`Staging::finish`](super::Staging::finish)). Not
    /// to be called while frames are being applied. If the log already holds the last frame of the last segment, that
    /// frame and all before it are the segments' (two logs with the same log id at a place agree up to it), and applying
    /// them does what this would do, without touching a file: then call it only if the log ends there.
    ///
    /// # Errors
    /// Nothing was changed: kind `NotFound` for a segment that was not verified, `InvalidData` when the node has diverged
    /// or a staged file is damaged, `InvalidInput` when the node is further than the segments. Any other error has
    /// stopped the store; the next open finds the state before or the state after.
    pub fn install(&self, wanted: &[SealedSegment]) -> io::Result<()> {
        let inner = &*self.0;
        inner.check_healthy()?;
        let mut transfers = inner.staging.lock();
        let _one_at_a_time = inner.sealing.lock();
        let rest = not_sealed(&inner.log, wanted)?;
        let sealed = inner.log.sealed();
        let staged = inner.staged(rest, &sealed)?;
        let Some(last) = staged.last() else {
            return Ok(());
        };
        // Tree files and index first, as when a segment is sealed: what the MANIFEST calls sealed always has them. A
        // crash here leaves the state before.
        inner.derive(&sealed, &staged)?;
        inner.compare_applied(last)?;
        inner.log.install(staged.clone())?;
        // A crash here leaves the state after. From here to the end readers find what the view calls open at the same
        // places of the installed segments, which hold the same frames.
        let switched = inner.switch_view(last);
        switched.map_err(|error| inner.failing("read the tree", error))?;
        transfers.clear();
        // What was staged for nothing; left behind by a crash, it is removed the next time.
        remove_all_but(inner.log.disk(), &inner.incoming(), &[])
    }
}
