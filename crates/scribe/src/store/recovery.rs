//! Opens the log: finds what is sealed, reads the rest, cuts a torn tail, and refuses anything it cannot vouch for.
//!
//! No frame is changed before it is decided that the log is good; what was read is synced first, because a killed
//! process leaves bytes that so far are only in the page cache.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::index::TreeSize;

use super::disk::{Disk, DiskFile, Open, read_full_at};
use super::error::{IoContext, StoreError};
use super::frame::{Frame, FrameKind, LogId, LogIndex};
use super::lock::DirLock;
use super::log::{LogIdentity, LogOptions, SealedDamage};
use super::manifest::{MANIFEST_NAME, ManifestFile};
use super::restore::{self, KnownMembership, Loss, frame_end};
use super::scan::{End, Expected, Scanner, judge_end};
use super::sealed_list::open_manifest;
use super::segment::{
    NEXT_NAME, SEGMENT_FORMAT, SEGMENT_HEADER_LENGTH, SealedSegment, SegmentError, SegmentHeader,
    file_path, parse_file_name,
};
use super::state::{FrameMeta, OpenSegment, show};
use super::vote::VoteFile;
use super::watermarks::{WATERMARKS_NAME, WatermarksFile};
use crate::hex::hex;
use crate::limits::MIB;
use crate::planted;

/// Directory of the segments, within the data directory.
pub const LOG_DIR: &str = "log";

/// What a repair cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// Last frame of the log now.
    pub last: Option<LogId>,
    /// Where the first bad frame was, and why it was bad; `None` if there was none.
    pub damage: Option<String>,
    /// Bytes cut from the segment with the bad frame.
    pub cut_bytes: u64,
    /// Segment files removed because they lay behind it.
    pub removed: Vec<PathBuf>,
}

/// Cuts the log at the first bad frame of the unsealed segments, **acknowledged or not**, and drops everything behind.
///
/// For a node without peers only: with peers, what is cut here may be elected back by others or contradict a vote.
/// Sealed segments are never touched. The directory must not be open.
pub fn repair_accept_loss(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &LogOptions,
) -> Result<RepairReport, StoreError> {
    let recovered = recover(disk, dir, None, options, Loss::Accept)?;
    Ok(RepairReport {
        last: recovered.last,
        damage: recovered.accepted_damage,
        cut_bytes: recovered.cut_bytes,
        removed: recovered.removed,
    })
}

/// Everything opening found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) lock: DirLock,
    pub(crate) identity: LogIdentity,
    pub(crate) vote: VoteFile,
    pub(crate) marks: WatermarksFile,
    pub(crate) manifest: ManifestFile,
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) open: VecDeque<OpenSegment>,
    pub(crate) files: BTreeMap<u32, Arc<dyn DiskFile>>,
    pub(crate) last: Option<LogId>,
    pub(crate) chain: u32,
    pub(crate) cut_bytes: u64,
    pub(crate) removed: Vec<PathBuf>,
    pub(crate) accepted_damage: Option<String>,
    pub(crate) sealed_damage: Vec<SealedDamage>,
    pub(crate) warnings: Vec<String>,
}

/// Opens the directory. Without `identity` it must hold one already.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: Option<LogIdentity>,
    options: &LogOptions,
    loss: Loss<'_>,
) -> Result<Recovered, StoreError> {
    let disk: &dyn Disk = &**disk;
    let log_dir = dir.join(LOG_DIR);
    if identity.is_some() {
        create_dirs(disk, dir, &log_dir)?;
    }
    let lock = DirLock::take(disk, dir)?;
    let names = disk.list(&log_dir).context("list", &log_dir)?;
    let mut segments: Vec<LogIndex> = names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect();
    segments.sort_unstable();

    let mut has_log = !segments.is_empty();
    for name in [MANIFEST_NAME, WATERMARKS_NAME] {
        let path = dir.join(name);
        has_log |= disk.exists(&path).context("look for", &path)?;
    }
    let vote = open_vote(disk, dir, identity, has_log)?;
    let identity = vote.identity();
    let mut marks = WatermarksFile::open(disk, dir)?;
    if names.iter().any(|name| name == NEXT_NAME) {
        // It never held a frame: it gets its final name before the first one is written.
        let path = log_dir.join(NEXT_NAME);
        disk.remove(&path).context("remove", &path)?;
    }
    disk.sync_dir(&log_dir).context("sync", &log_dir)?;

    let mut warnings = Vec::new();
    let mut sealed_damage = Vec::new();
    let (manifest, sealed) = open_manifest(
        disk,
        dir,
        identity.cluster_id,
        &segments,
        marks.marks().purged,
        &mut sealed_damage,
        &mut warnings,
    )?;
    // Names made by a process that was killed before it synced them.
    disk.sync_dir(dir).context("sync", dir)?;
    let first_unsealed = sealed.last().map(|last| last.last_log_id.index.next());
    segments.retain(|first| first_unsealed.is_none_or(|unsealed| *first >= unsealed));

    let mut scan = Scan {
        disk,
        log_dir: &log_dir,
        options,
        cluster_id: identity.cluster_id,
        expected: None,
        next_number: sealed.last().map_or(0, |last| last.number + 1),
        last: sealed.last().map(|last| last.last_log_id),
        open: VecDeque::new(),
        files: BTreeMap::new(),
        reach: sealed
            .last()
            .map_or(TreeSize::EMPTY, |last| last.footer.end_size),
        membership: None,
        stop: None,
    };
    if let Some(last) = sealed.last() {
        scan.expected = Some(Expected::after(last.last_log_id, last.last_chain));
    }
    scan.run(&segments)?;

    // The last frame that was ever known to be durable. The file may say too little, never too much.
    let known = marks.marks().known();
    let mut short = known.map(|id| id.index) > scan.last.map(|id| id.index);
    // planted
    if planted::has("cut-at-first-bad-checksum")
        && let Some(stop) = &mut scan.stop
    {
        stop.end = End::Torn;
        short = false;
    }
    let mut damage = None;
    if let Some(stop) = &scan.stop {
        let problem = match &stop.end {
            End::Damaged(reason) => Some(reason.clone()),
            End::Torn if short => Some(format!(
                "{}, and the log was known to be on disk up to {}",
                stop.problem,
                show(known)
            )),
            _ => None,
        };
        if let Some(problem) = problem {
            damage = Some(StoreError::damaged(&stop.path, stop.offset, problem));
        }
    }
    if short && damage.is_none() {
        let (path, offset) = match scan.open.back() {
            Some(open) => (file_path(&log_dir, open.first), u64::from(open.end())),
            None => (log_dir.clone(), 0),
        };
        let reason = format!(
            "the log ends at {}, it was known to be on disk up to {}",
            show(scan.last),
            show(known)
        );
        damage = Some(StoreError::damaged(&path, offset, reason));
    }
    let accepted_damage = damage.as_ref().map(ToString::to_string);
    if let Some(error) = damage {
        match loss {
            Loss::Refuse => return Err(error),
            Loss::Accept => {}
            Loss::Restore(rule) => {
                let membership = known_membership(scan.membership.as_deref(), sealed.last());
                let others_lead =
                    membership.is_some_and(|known| (rule.others_can_lead)(known, identity.node_id));
                // A mark for the same tree says that it was shown before: the cut, in the middle of which a crash may have
                // come, takes away what showed it.
                let marked = restore::is_marked(disk, dir)?;
                let shown = restore::marked_size(disk, dir)? == Some(rule.signed);
                if !others_lead || !shown && scan.reach_with_lost()? < rule.signed {
                    return Err(error);
                }
                // In this order: a crash after the first leaves the log as it was, and a copy of its end; one after the
                // second a log that is whole, and a node that does not vote before a leader has confirmed it.
                if let Some(first) = scan.stopped_in() {
                    restore::keep_aside(disk, dir, &log_dir, first, marked)?;
                }
                restore::mark(disk, dir, rule.signed, &error.to_string())?;
            }
        }
    }

    // Decided. From here on the directory is changed.
    if short {
        // Before the cut: a crash behind it must not find watermarks beyond the end of the log.
        let mut lowered = marks.marks();
        lowered.flushed = scan.last;
        lowered.committed = super::state::at_most(lowered.committed, scan.last);
        lowered.purged = super::state::at_most(lowered.purged, scan.last);
        marks.write(lowered)?;
        marks.sync()?;
    }
    let (cut_bytes, removed) = scan.cut()?;
    scan.write_again(known)?;
    for file in scan.files.values() {
        file.sync_all().context("sync", &log_dir)?;
    }
    let chain = scan.expected.map_or(0, |expected| expected.chain);
    Ok(Recovered {
        lock,
        identity,
        vote,
        marks,
        manifest,
        sealed,
        last: scan.last,
        chain,
        open: scan.open,
        files: scan.files,
        cut_bytes,
        removed,
        accepted_damage,
        sealed_damage,
        warnings,
    })
}

fn known_membership<'a>(
    frame: Option<&'a [u8]>,
    sealed: Option<&'a SealedSegment>,
) -> Option<KnownMembership<'a>> {
    let stored = sealed.map(|sealed| KnownMembership::Stored(&sealed.footer.membership));
    frame.map(KnownMembership::Frame).or(stored)
}

fn create_dirs(disk: &dyn Disk, dir: &Path, log_dir: &Path) -> Result<(), StoreError> {
    // The vote file is made after the directories are durable, so where it exists they are.
    let vote = dir.join(super::vote::VOTE_NAME);
    if disk.exists(&vote).context("look for", &vote)? {
        return Ok(());
    }
    disk.create_dir_all(log_dir).context("create", log_dir)?;
    for made in [dir, log_dir] {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        disk.sync_dir(parent).context("sync", parent)?;
    }
    Ok(())
}

fn open_vote(
    disk: &dyn Disk,
    dir: &Path,
    identity: Option<LogIdentity>,
    has_log: bool,
) -> Result<VoteFile, StoreError> {
    let Some(vote) = VoteFile::open(disk, dir)? else {
        // The vote file is durable before anything else is made, so its absence beside any of it is a loss.
        let path = dir.join(super::vote::VOTE_NAME);
        return match identity {
            Some(identity) if !has_log => VoteFile::create(disk, dir, identity),
            _ => Err(StoreError::damaged(
                &path,
                0,
                "there is no vote file, but there is a log",
            )),
        };
    };
    let found = vote.identity();
    if let Some(expected) = identity {
        if found.cluster_id != expected.cluster_id {
            return Err(StoreError::OtherCluster {
                path: dir.to_path_buf(),
                found: hex(&found.cluster_id),
                expected: hex(&expected.cluster_id),
            });
        }
        if found.node_id != expected.node_id {
            return Err(StoreError::OtherNode {
                path: dir.to_path_buf(),
                found: found.node_id,
                expected: expected.node_id,
            });
        }
    }
    Ok(vote)
}

fn leaves_after_frame(frame: &Frame) -> TreeSize {
    match frame.kind {
        FrameKind::Entries => frame_end(frame.first_leaf, frame.count),
        _ => TreeSize::EMPTY,
    }
}

/// Where the frames stop before the end of the last file.
struct Stop {
    path: PathBuf,
    offset: u64,
    problem: String,
    end: End,
    /// Segments from this one on (by first log index) have no good frame.
    remove_from: Option<LogIndex>,
    all: Vec<LogIndex>,
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    log_dir: &'a Path,
    options: &'a LogOptions,
    cluster_id: [u8; 16],
    expected: Option<Expected>,
    next_number: u32,
    last: Option<LogId>,
    open: VecDeque<OpenSegment>,
    files: BTreeMap<u32, Arc<dyn DiskFile>>,
    /// Leaves there are behind the last good frame, counted generously.
    reach: TreeSize,
    /// The last membership frame behind the sealed segments.
    membership: Option<Bytes>,
    stop: Option<Stop>,
}

impl Scan<'_> {
    fn run(&mut self, segments: &[LogIndex]) -> Result<(), StoreError> {
        for (i, first) in segments.iter().enumerate() {
            let next = segments.get(i + 1).copied();
            self.scan_segment(*first, next)?;
            if let Some(stop) = &mut self.stop {
                stop.all = segments.to_vec();
                break;
            }
        }
        Ok(())
    }

    fn stop(
        &mut self,
        path: &Path,
        offset: u64,
        problem: String,
        end: End,
        remove: Option<LogIndex>,
    ) {
        self.stop = Some(Stop {
            path: path.to_path_buf(),
            offset,
            problem,
            end,
            remove_from: remove,
            all: Vec::new(),
        });
    }

    fn scan_segment(&mut self, first: LogIndex, next: Option<LogIndex>) -> Result<(), StoreError> {
        let path = file_path(self.log_dir, first);
        let file = self
            .disk
            .open(&path, Open::READ_WRITE)
            .context("open", &path)?;
        // After a failed sync the cache holds bytes the device does not: what can be dropped is read from the device.
        file.sync_data().context("sync", &path)?;
        file.drop_cache();
        let length = file.len().context("read", &path)?;
        let mut scanner = Scanner::new(&*file, length.min(u64::from(u32::MAX)));
        let mut start = vec![0; SEGMENT_HEADER_LENGTH];
        let read = read_full_at(&*file, &mut start, 0).context("read", &path)?;
        start.truncate(read);
        let expected = self.expected.unwrap_or(Expected {
            index: first,
            term: 0,
            chain: 0,
        });
        let header = match SegmentHeader::parse(&start) {
            Ok(header) => header,
            Err(SegmentError::Newer { found }) => {
                return Err(StoreError::NewerFormat {
                    path,
                    found,
                    supported: SEGMENT_FORMAT,
                });
            }
            Err(SegmentError::Blank) if next.is_none() && first == expected.index => {
                // The file got its name and no frame of the first group is known to have followed.
                let problem = "the segment header was never written".to_owned();
                let group = self.options.group_bytes_max;
                let end = judge_end(&mut scanner, 0, expected, &problem, group);
                let end = match end.context("read", &path)? {
                    End::Clean => End::Torn,
                    end => end,
                };
                self.stop(&path, 0, problem, end, Some(first));
                return Ok(());
            }
            Err(error) => {
                self.stop(
                    &path,
                    0,
                    error.to_string(),
                    End::Damaged(error.to_string()),
                    Some(first),
                );
                return Ok(());
            }
        };
        if header.cluster_id != self.cluster_id {
            return Err(StoreError::OtherCluster {
                path,
                found: hex(&header.cluster_id),
                expected: hex(&self.cluster_id),
            });
        }
        let wanted = SegmentHeader {
            number: self.next_number,
            first_log_index: expected.index,
            cluster_id: self.cluster_id,
            previous_chain: expected.chain,
        };
        if header != wanted || first != expected.index {
            let problem = format!("segment header is {header:?}, allowed {wanted:?}");
            self.stop(
                &path,
                0,
                problem.clone(),
                End::Damaged(problem),
                Some(first),
            );
            return Ok(());
        }
        let open = self.scan_frames(&path, &mut scanner, &header, expected, next)?;
        if open.frames.is_empty() {
            // Header without a frame: both were in one write, so the rest of its group is missing.
            if let Some(stop) = &mut self.stop {
                stop.remove_from = Some(first);
                stop.offset = 0;
                if stop.end == End::Clean {
                    stop.end = End::Torn;
                }
            }
            return Ok(());
        }
        self.next_number += 1;
        self.files.insert(header.number, file);
        self.open.push_back(open);
        Ok(())
    }

    fn scan_frames(
        &mut self,
        path: &Path,
        scanner: &mut Scanner<'_>,
        header: &SegmentHeader,
        mut expected: Expected,
        next: Option<LogIndex>,
    ) -> Result<OpenSegment, StoreError> {
        let mut open = OpenSegment::new(header);
        let mut offset = SEGMENT_HEADER_LENGTH as u64;
        // What lies behind the last frame of a segment that has a successor is a footer, or part of one.
        while next != Some(expected.index) {
            let problem = match scanner.frame(offset).context("read", path)? {
                Err(error) => error.to_string(),
                Ok(found) => match expected.check(&found) {
                    Err(problem) => problem,
                    Ok(()) => {
                        let id = found.frame.log_id;
                        open.push(FrameMeta {
                            term: id.term,
                            chain: found.chain,
                            offset: offset as u32,
                            length: found.length as u32,
                            count: found.frame.count,
                        });
                        self.reach = self.reach.max(leaves_after_frame(&found.frame));
                        if found.frame.kind == FrameKind::Membership {
                            self.membership = Some(found.frame.public.clone());
                        }
                        expected = Expected::after(id, found.chain);
                        self.last = Some(id);
                        self.expected = Some(expected);
                        offset += found.length as u64;
                        continue;
                    }
                },
            };
            let problem = format!("frame {}: {problem}", expected.index);
            let end = if next.is_some() {
                // Synced before the next segment was begun, so nothing here can be torn.
                End::Damaged(problem.clone())
            } else {
                let group = self.options.group_bytes_max;
                judge_end(scanner, offset, expected, &problem, group).context("read", path)?
            };
            self.stop(path, offset, problem, end, next);
            break;
        }
        Ok(open)
    }

    /// First log index of the segment in which the good frames end, if something follows them.
    fn stopped_in(&self) -> Option<LogIndex> {
        let name = self.stop.as_ref()?.path.file_name()?;
        parse_file_name(name.to_str()?)
    }

    /// Leaves the log once reached, going by everything in its files that still looks like a frame of it.
    fn reach_with_lost(&self) -> Result<TreeSize, StoreError> {
        let (Some(stop), Some(first)) = (&self.stop, self.stopped_in()) else {
            return Ok(self.reach);
        };
        let missing = self.last.map_or(LogIndex(0), |last| last.index.next());
        let offset = stop.offset.max(SEGMENT_HEADER_LENGTH as u64);
        let behind = restore::reach_behind(self.disk, self.log_dir, first, offset, missing)?;
        Ok(self.reach.max(behind))
    }

    /// Removes what lies behind the last good frame; returns the bytes cut and the files removed.
    fn cut(&mut self) -> Result<(u64, Vec<PathBuf>), StoreError> {
        let Some(stop) = self.stop.take() else {
            return Ok((0, Vec::new()));
        };
        let mut removed = Vec::new();
        let mut cut_bytes = 0;
        let kept = self
            .open
            .back()
            .map(|open| (file_path(self.log_dir, open.first), u64::from(open.end())));
        if let Some(from) = stop.remove_from {
            // The last segment that is kept has all its frames and may have a footer, or part of one, that no MANIFEST
            // record names. As the last one it must end in zeros, or the next start takes the footer for a bad frame.
            if let (Some((path, end)), Some(file)) = (&kept, self.files.values().last())
                && *path != stop.path
            {
                // A crash here leaves it with the segment behind it: then nobody looks behind its frames.
                cut_bytes += zero_behind(&**file, path, *end)?;
            }
            for first in stop.all.iter().rev().filter(|first| **first >= from) {
                let path = file_path(self.log_dir, *first);
                let file = self.disk.open(&path, Open::READ).context("open", &path)?;
                cut_bytes += content(&*file, 0).context("read", &path)?;
                // From the end backwards: a crash between two removals leaves a log without a hole.
                self.disk.remove(&path).context("remove", &path)?;
                self.disk
                    .sync_dir(self.log_dir)
                    .context("sync", self.log_dir)?;
                removed.push(path);
            }
        }
        let Some(file) = self.files.values().last() else {
            return Ok((cut_bytes, removed));
        };
        if stop.end != End::Clean && kept.is_some_and(|(path, _)| path == stop.path) {
            // A crash here leaves some sectors zeroed and others not: still a torn tail, cut again.
            // planted
            if !planted::has("recovery-keeps-torn-group") {
                cut_bytes += zero_behind(&**file, &stop.path, stop.offset)?;
            }
        }
        Ok((cut_bytes, removed))
    }
}

impl Scan<'_> {
    /// Writes the frames behind `known`, the last that was ever known to be on disk, where they are.
    ///
    /// A process before this one may have ended because a sync had failed. Then the system takes what is in its cache for
    /// written: the frames can be read, no sync makes them durable any more, and the next power cut leaves a hole in their
    /// place, in front of frames that were acknowledged. The same bytes: a crash in here changes none.
    fn write_again(&self, known: Option<LogId>) -> Result<(), StoreError> {
        for open in &self.open {
            let known_here =
                known.map_or(0, |known| (known.index.0 + 1).saturating_sub(open.first.0));
            let (Some(first), Some(file)) = (
                open.frames.get(known_here as usize),
                self.files.get(&open.number),
            ) else {
                continue;
            };
            let path = file_path(self.log_dir, open.first);
            // The header is written with the first frame.
            let mut at = if known_here == 0 {
                0
            } else {
                u64::from(first.offset)
            };
            let end = u64::from(open.end());
            let mut piece = vec![0; MIB.min((end - at) as usize)];
            while at < end {
                let length = piece.len().min((end - at) as usize);
                let piece = &mut piece[..length];
                file.read_exact_at(piece, at).context("read", &path)?;
                file.write_all_at(piece, at).context("write", &path)?;
                at += length as u64;
            }
        }
        Ok(())
    }
}

/// Zeroes a file from `offset` to its end, durably; returns how many bytes there were not just allocated.
fn zero_behind(file: &dyn DiskFile, path: &Path, offset: u64) -> Result<u64, StoreError> {
    let length = file.len().context("read", path)?;
    let cut_bytes = content(file, offset).context("read", path)?;
    file.zero_range(offset, length.saturating_sub(offset))
        .context("zero", path)?;
    file.sync_all().context("sync", path)?;
    Ok(cut_bytes)
}

/// How many bytes behind `offset` are not just allocated.
fn content(file: &dyn DiskFile, offset: u64) -> std::io::Result<u64> {
    Ok(Scanner::new(file, file.len()?).content_end(offset)? - offset)
}
