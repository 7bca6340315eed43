//! Checking everything: each byte the store keeps against what it was derived from.
//!
//! [`Store::check`] reads every frame from disk and trusts nothing but the roots in the footers: chain and private
//! CRCs, log indexes, leaf hashes, value commitments, tree files, segment hashes, footers, and the index both ways. It
//! reports the first bad place. The scrubber ([`super::scrub`]) does the same to one segment at a time, without the
//! index.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;
use scribe_proof::tree::{HashReader, TILE_WIDTH, TreeBuilder, level_length};
use sha2::{Digest, Sha256};

use super::frame::LogIndex;
use super::index::{encode_version, version_key_into};
use super::load::check_commitment;
use super::seal::identity;
use super::segment::{SEGMENT_HEADER_LENGTH, SealedSegment, SegmentHeader, file_name};
use super::tree::{HASH_LENGTH, LevelRun};
use super::view::{Remembered, StoredEntry, Version};
use super::walk::{CheckError, Damage, FrameWalk, Place, PlacedFrame, key_of, sealed_path};
use super::{Inner, Store};
use crate::limits;

/// What a complete check looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Sealed segments.
    pub segments: u64,
    /// Frames, in sealed segments and behind them.
    pub frames: u64,
    /// Frames behind the sealed segments.
    pub frames_unsealed: u64,
    /// Leaves.
    pub leaves: u64,
    /// Salts, metadata and values that open their commitment.
    pub commitments: u64,
    /// Bytes of frames read.
    pub bytes: u64,
    /// Tree size reached.
    pub tree_size: TreeSize,
    /// Root hash at that size, derived from the entries.
    pub root: Hash,
}

/// Checks the frames of one segment after the other.
pub(super) struct Checker<'a> {
    inner: &'a Inner,
    pub builder: TreeBuilder,
    pub report: CheckReport,
    /// Whether to open commitments: the segment's hash covers the same bytes, but not what they should be.
    pub commitments: bool,
    /// Order-independent sum over the versions that must be in the index.
    versions: u64,
    sum: u128,
    scratch: Vec<u8>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(inner: &'a Inner, builder: TreeBuilder) -> Self {
        Self {
            inner,
            builder,
            report: CheckReport::default(),
            commitments: true,
            versions: 0,
            sum: 0,
            scratch: Vec::new(),
        }
    }

    /// Checks one sealed segment: file, and its part of the tree files. `visit` is told of each frame.
    pub(super) fn sealed(
        &mut self,
        sealed: &SealedSegment,
        previous: Option<&SealedSegment>,
        mut visit: impl FnMut(&PlacedFrame<'_>) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let footer = &sealed.footer;
        let path = sealed_path(sealed);
        let damage = |offset: u64, reason: String| Damage::new(&path, offset, reason);
        if self.builder.size() != footer.start_size || self.builder.root() != footer.start_root {
            return Err(damage(
                sealed.body_length,
                format!(
                    "the segment starts at size {} with root {}, the one before ends at {} with {}",
                    footer.start_size.get(),
                    footer.start_root.to_hex(),
                    self.builder.size().get(),
                    self.builder.root().to_hex()
                ),
            )
            .into());
        }
        let header = self.read(sealed, 0, SEGMENT_HEADER_LENGTH as u64, &path)?;
        let parsed = SegmentHeader::parse(&header).map_err(|error| damage(0, error.to_string()))?;
        let chain = previous.map_or(parsed.previous_chain, |previous| previous.last_chain);
        if parsed.number != sealed.number
            || parsed.first_log_index != sealed.first_log_index
            || parsed.previous_chain != chain
        {
            return Err(damage(0, "the segment header is of another segment".into()).into());
        }

        let mut body = Sha256::new();
        body.update(&header);
        let mut walk = FrameWalk::sealed(&self.inner.log, sealed);
        let mut place = Place {
            tree_size: footer.start_size,
            previous: Some((chain, sealed.first_log_index.0.wrapping_sub(1))),
        };
        let mut levels: Vec<LevelRun> = Vec::new();
        let mut frames = 0;
        let mut last = None;
        while let Some((position, parsed, raw)) = walk.next_frame()? {
            body.update(&raw);
            let placed = place.step(&walk, position, &parsed, &raw)?;
            self.leaves(&placed, &path, |level, start, hash| {
                let level = usize::from(level);
                if levels.len() <= level {
                    levels.resize_with(level + 1, LevelRun::default);
                }
                if levels[level].hashes.is_empty() {
                    levels[level].start = start;
                }
                levels[level].hashes.push(hash);
            })?;
            frames += 1;
            last = Some((parsed.frame.log_id, parsed.chain));
            visit(&placed)?;
        }
        if last != Some((sealed.last_log_id, sealed.last_chain))
            || frames != u64::from(sealed.frame_count)
        {
            return Err(damage(
                sealed.body_length,
                format!(
                    "{frames} frames up to {last:?}, the footer says {} up to {}",
                    sealed.frame_count, sealed.last_log_id
                ),
            )
            .into());
        }
        let root = self.builder.root();
        if place.tree_size != footer.end_size || root != footer.end_root {
            return Err(damage(
                sealed.body_length,
                format!(
                    "the entries give size {} with root {}, the footer says {} with {}",
                    place.tree_size.get(),
                    root.to_hex(),
                    footer.end_size.get(),
                    footer.end_root.to_hex()
                ),
            )
            .into());
        }
        let found = Hash(body.finalize().into());
        if found != sealed.body_sha256 {
            return Err(damage(
                0,
                format!(
                    "SHA-256 of the body is {}, the footer says {}",
                    found.to_hex(),
                    sealed.body_sha256.to_hex()
                ),
            )
            .into());
        }
        let length = sealed.file_length.saturating_sub(sealed.body_length);
        let footer = self.read(sealed, sealed.body_length, length, &path)?;
        // A segment whose footer could not be read at open is kept without its sparse table.
        if sealed.sparse.is_empty() || footer != sealed.encode_footer() {
            return Err(damage(sealed.body_length, "the footer changed".into()).into());
        }
        for (level, run) in levels.iter().enumerate() {
            self.tree_run(level as u8, run)?;
        }
        self.report.segments += 1;
        Ok(())
    }

    fn read(
        &self,
        sealed: &SealedSegment,
        offset: u64,
        length: u64,
        path: &Path,
    ) -> Result<Bytes, CheckError> {
        let bytes = self
            .inner
            .log
            .read_raw(sealed.number, offset as u32, length as u32);
        bytes.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Damage {
                path: path.to_owned(),
                offset,
                reason: format!("the file ends before byte {}", offset + length),
            }
            .into(),
            _ => CheckError::Io(error),
        })
    }

    /// Hashes the leaves of a frame and opens their commitments; `store` is told of each tree hash.
    fn leaves(
        &mut self,
        placed: &PlacedFrame<'_>,
        path: &Path,
        mut store: impl FnMut(u8, u64, Hash),
    ) -> Result<(), CheckError> {
        self.report.frames += 1;
        self.report.bytes += placed.raw.len() as u64;
        let Some(batch) = &placed.batch else {
            return Ok(());
        };
        let damage = |reason: String| Damage {
            path: path.to_owned(),
            offset: u64::from(placed.position.offset),
            reason,
        };
        placed.for_each_leaf(path, |slot, index, bytes, leaf| {
            let size = TreeSize::new(index.get());
            self.builder.append(leaf_hash(bytes), |level, hash| {
                store(level, level_length(level, size), hash);
            });
            self.report.leaves += 1;
            let entry = StoredEntry {
                index,
                leaf: bytes.clone(),
                private: batch.private(slot.into()),
            };
            if entry.private.is_some() && leaf.kind == LeafKind::System {
                return Err(
                    damage(format!("system leaf {} has a private part", index.get())).into(),
                );
            }
            if self.commitments && leaf.kind != LeafKind::System {
                check_commitment(&entry).map_err(|error| damage(error.to_string()))?;
                self.report.commitments += 1;
            }
            let version = Version {
                index,
                kind: leaf.kind,
                position: placed.position,
                slot,
            };
            self.versions += 1;
            self.sum =
                self.sum
                    .wrapping_add(fingerprint(key_of(leaf), &version, &mut self.scratch));
            Ok(())
        })
    }

    fn tree_run(&self, level: u8, run: &LevelRun) -> Result<(), CheckError> {
        let tree = &self.inner.tree;
        let mut stored = Vec::new();
        let path = PathBuf::from("tree").join(format!("L{level}"));
        let read = tree.read_run(level, run.start, run.hashes.len(), &mut stored);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => CheckError::Damage(Damage {
                path: path.clone(),
                offset: run.start * HASH_LENGTH,
                reason: format!(
                    "the file ends before hash {}",
                    run.start + run.hashes.len() as u64
                ),
            }),
            _ => CheckError::Io(error),
        })?;
        let wrong = run
            .hashes
            .iter()
            .zip(&stored)
            .position(|(derived, stored)| derived != stored);
        match wrong {
            None => Ok(()),
            Some(at) => {
                let number = run.start + at as u64;
                Err(Damage {
                    path,
                    offset: number * HASH_LENGTH,
                    reason: format!(
                        "hash {number} of level {level} is {}, the entries give {}",
                        stored[at].to_hex(),
                        run.hashes[at].to_hex()
                    ),
                }
                .into())
            }
        }
    }
}

impl Store {
    /// Checks everything there is at the moment of the call: all sealed segments, and the applied and flushed frames
    /// behind them. Reads, apply and sealing go on meanwhile. `progress` is told how many of how many bytes are done.
    ///
    /// # Errors
    /// The first bad place, or what the disk cannot read.
    pub fn check(&self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport, CheckError> {
        let inner = &*self.0;
        let (sealed_state, applied) = {
            let view = inner.view.read();
            (view.sealed.clone(), view.applied.clone())
        };
        let sealed: Vec<SealedSegment> = inner
            .log
            .sealed()
            .iter()
            .filter(|segment| Some(segment.last_log_id) <= sealed_state.last_log_id)
            .cloned()
            .collect();
        let total: u64 = sealed.iter().map(|segment| segment.body_length).sum();
        let oldest_ms = applied
            .last_timestamp_ms
            .saturating_sub(limits::IDEMPOTENCY_WINDOW_MS);

        let mut checker = Checker::new(inner, TreeBuilder::new());
        let mut previous = None;
        let mut done = 0;
        for segment in &sealed {
            progress(done, total);
            let checked = checker.sealed(segment, previous, |placed| {
                self.check_remembered(placed, oldest_ms)
            });
            // What is damaged in the index is looked at for nothing; the rest is mended.
            checked.inspect_err(|_| self.suspect(segment.number))?;
            self.check_published(segment.footer.published, &sealed_path(segment))?;
            previous = Some(segment);
            done += segment.body_length;
        }
        progress(total, total);
        self.check_index(&sealed, checker.versions, checker.sum)?;

        let limit = applied.last_log_id.min(inner.log.flushed());
        if let Some(limit) = limit {
            let first = previous.map_or(LogIndex(0), |last| last.last_log_id.index.next());
            let chain = previous.map(|last| (last.last_chain, last.last_log_id.index.0));
            self.check_unsealed(&mut checker, first, limit.index, chain)?;
        }
        let mut report = checker.report;
        report.tree_size = checker.builder.size();
        report.root = checker.builder.root();
        if limit == applied.last_log_id {
            let stored = self.root_at(applied.tree_size)?;
            if report.tree_size != applied.tree_size || report.root != stored {
                return Err(Damage {
                    path: PathBuf::from("tree"),
                    offset: 0,
                    reason: format!(
                        "the entries give size {} with root {}, the view has {} with {}",
                        report.tree_size.get(),
                        report.root.to_hex(),
                        applied.tree_size.get(),
                        stored.to_hex()
                    ),
                }
                .into());
            }
            self.check_published(applied.published, Path::new("log"))?;
        }
        Ok(report)
    }

    fn check_published(
        &self,
        (size, root): (TreeSize, Hash),
        path: &Path,
    ) -> Result<(), CheckError> {
        let derived = self.root_at(size)?;
        if derived != root {
            return Err(Damage {
                path: path.to_owned(),
                offset: 0,
                reason: format!(
                    "the agreed root at size {} is {}, the tree gives {}",
                    size.get(),
                    root.to_hex(),
                    derived.to_hex()
                ),
            }
            .into());
        }
        Ok(())
    }

    /// Every idempotency key of the frame that may still be asked for must be found, or a newer write under it.
    fn check_remembered(&self, placed: &PlacedFrame<'_>, oldest_ms: u64) -> Result<(), CheckError> {
        let Some(batch) = &placed.batch else {
            return Ok(());
        };
        for digest in batch.digests() {
            let leaf = batch.leaf(usize::from(digest.first)).unwrap_or_default();
            let timestamp_ms =
                scribe_proof::leaf::Leaf::parse(&leaf).map_or(0, |leaf| leaf.timestamp_ms);
            if timestamp_ms < oldest_ms {
                continue;
            }
            let expected = Remembered {
                first: LeafIndex::new(placed.tree_size.get() + u64::from(digest.first)),
                count: digest.count,
                fingerprint: digest.fingerprint,
                timestamp_ms,
            };
            // An index that is ahead may know a later write under this key.
            let found = match self.idempotent(&digest.key_hash, 0)? {
                None => self.0.index()?.remembered(&digest.key_hash)?,
                found => found,
            };
            let good = found.is_some_and(|found| found == expected || found.first > expected.first);
            if !good {
                return Err(in_index(format!(
                    "the idempotency key of entry {} gives {found:?}",
                    expected.first.get()
                )));
            }
        }
        Ok(())
    }

    /// The index must have exactly the versions of the sealed segments.
    fn check_index(
        &self,
        sealed: &[SealedSegment],
        versions: u64,
        sum: u128,
    ) -> Result<(), CheckError> {
        let inner = &*self.0;
        let index = inner.index()?;
        let known = index.segments()?;
        for segment in sealed {
            let place = segment.number as usize;
            let good = known
                .get(place)
                .is_some_and(|known| *known == identity(segment, known.versions));
            if !good {
                return Err(in_index(format!("segment {place} is not in it")));
            }
        }
        let sealed_size = sealed
            .last()
            .map_or(TreeSize::EMPTY, |last| last.footer.end_size);
        let (mut found_versions, mut found_sum) = (0, 0u128);
        let mut scratch = Vec::new();
        index.visit(&mut |key, version| {
            if sealed_size.contains(version.index) {
                found_versions += 1;
                found_sum = found_sum.wrapping_add(fingerprint(key, &version, &mut scratch));
            }
            Ok(())
        })?;
        if (found_versions, found_sum) == (versions, sum) {
            return Ok(());
        }
        // They differ: look for the first one that does.
        for segment in sealed {
            self.check_versions(segment)?;
        }
        index.visit(&mut |key, version| {
            if !sealed_size.contains(version.index) {
                return Ok(());
            }
            let entry = inner.load_uncached(version.index, version.position, version.slot);
            let wrong = match &entry {
                Ok(entry) => entry.parse().map_or(true, |leaf| key_of(&leaf) != key),
                Err(_) => true,
            };
            if wrong {
                let text = String::from_utf8_lossy(key);
                return Err(in_index(format!(
                    "it has version {} of key {text:?}, the segments do not",
                    version.index.get()
                ))
                .into());
            }
            Ok(())
        })?;
        Err(in_index(format!(
            "it has {found_versions} versions, the segments have {versions}"
        )))
    }

    /// Looks each version of a segment up in the index.
    fn check_versions(&self, sealed: &SealedSegment) -> Result<(), CheckError> {
        let index = self.0.index()?;
        let path = sealed_path(sealed);
        let mut walk = FrameWalk::sealed(&self.0.log, sealed);
        let mut place = Place {
            tree_size: sealed.footer.start_size,
            previous: None,
        };
        while let Some((position, parsed, raw)) = walk.next_frame()? {
            let placed = place.step(&walk, position, &parsed, &raw)?;
            placed.for_each_leaf(&path, |slot, at, _, leaf| {
                let expected = Version {
                    index: at,
                    kind: leaf.kind,
                    position,
                    slot,
                };
                let found = index.version(key_of(leaf), at)?;
                expect_version(key_of(leaf), found, expected)
            })?;
        }
        Ok(())
    }

    /// Checks frames behind the sealed segments, and that the view has what they say.
    fn check_unsealed(
        &self,
        checker: &mut Checker<'_>,
        first: LogIndex,
        last: LogIndex,
        mut previous: Option<(u32, u64)>,
    ) -> Result<(), CheckError> {
        let inner = &*self.0;
        let mut segment = None;
        let mut path = PathBuf::new();
        let mut hashes = Vec::new();
        let mut stored = Vec::with_capacity(TILE_WIDTH);
        for index in first.0..=last.0 {
            let Some(position) = inner.log.position(LogIndex(index)) else {
                if previous.is_none() {
                    continue; // the log starts later than at 0
                }
                return Err(Damage {
                    path,
                    offset: 0,
                    reason: format!("log index {index} is missing"),
                }
                .into());
            };
            if segment != Some(position.segment) {
                segment = Some(position.segment);
                path = PathBuf::from("log").join(file_name(LogIndex(index)));
            }
            let offset = u64::from(position.offset);
            let end = offset + u64::from(position.length);
            let mut walk = FrameWalk::new(&inner.log, position.segment, path.clone(), offset, end);
            let Some((position, parsed, raw)) = walk.next_frame()? else {
                continue;
            };
            let mut place = Place {
                tree_size: checker.builder.size(),
                previous,
            };
            let placed = place.step(&walk, position, &parsed, &raw)?;
            previous = place.previous;
            hashes.clear();
            checker.leaves(&placed, &path, |level, start, hash| {
                hashes.push((level, start, hash))
            })?;
            checker.report.frames_unsealed += 1;
            for (level, start, hash) in &hashes {
                stored.clear();
                self.read(*level, *start, 1, &mut stored)?;
                if stored.first() != Some(hash) {
                    return Err(Damage {
                        path: PathBuf::from("tree").join(format!("L{level}")),
                        offset: start * HASH_LENGTH,
                        reason: format!(
                            "hash {start} of level {level} is not what the entries give"
                        ),
                    }
                    .into());
                }
            }
            placed.for_each_leaf(&path, |slot, at, _, leaf| {
                let expected = Version {
                    index: at,
                    kind: leaf.kind,
                    position,
                    slot,
                };
                let found = self.is_version(key_of(leaf), at)?;
                expect_version(key_of(leaf), found, expected)
            })?;
            self.check_remembered(&placed, 0)?;
        }
        Ok(())
    }
}

/// The index must say of a key's version exactly what the frames say.
fn expect_version(key: &[u8], found: Option<Version>, expected: Version) -> Result<(), CheckError> {
    if found == Some(expected) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(key).into_owned();
    Err(in_index(format!(
        "version {} of key {text:?} is {found:?}, must be {expected:?}",
        expected.index.get()
    )))
}

fn in_index(reason: String) -> CheckError {
    Damage {
        path: PathBuf::from("index"),
        offset: 0,
        reason: format!("{reason}\nhint: the key index is derived: `scribe repair` rebuilds it"),
    }
    .into()
}

fn fingerprint(key: &[u8], version: &Version, scratch: &mut Vec<u8>) -> u128 {
    version_key_into(key, version.index, scratch);
    scratch.extend_from_slice(&encode_version(version));
    let hash = leaf_hash(scratch);
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_be_bytes(half)
}
