//! A log whose acknowledged end is damaged: whether it may be cut there and fetched again from the others, and what is
//! written down before it is cut.
//!
//! Others count on what this node acknowledged. So the directory gets a mark, `restoring`, before anything of the log
//! goes, and with it this node neither votes nor stands for election until its log has all of that again
//! (`consensus/restore` says when, decision 20 why that is enough). What is cut is kept in `damaged/` until then, because
//! it may hold the only other copy of an entry if the others lose theirs meanwhile.
//!
//! Not everything may be restored. The vote must be intact, because a vote that was given cannot be fetched; a majority
//! must be left without this node, or nobody could lead; and the files must show that this is no older copy of the
//! directory, whose vote would be an older one, too.

use std::io;
use std::path::Path;

use scribe_proof::index::{LeafIndex, TreeSize};

use super::Store;
use super::disk::{Disk, Open, read_full_at};
use super::error::{IoContext, StoreError};
use super::frame::{FrameHeader, FrameKind, LogIndex};
use super::scan::{Later, Scanner};
use super::segment::{SEGMENT_HEADER_LENGTH, file_path, parse_file_name};

/// The mark, within the data directory. That it is there counts, not what it says.
pub const RESTORING_NAME: &str = "restoring";
/// Directory of what was cut, within the data directory.
pub const DAMAGED_DIR: &str = "damaged";
/// Bytes read at once in search of frames behind the damage.
const SEARCH_LENGTH: usize = 64 * 1024;
/// Bytes copied at once.
const PIECE_LENGTH: usize = crate::limits::MIB;
const MARK_FIRST_LINE: &str = "scribe-restoring/v1";
/// Bytes of the mark that are read: two lines of it.
const MARK_READ_LENGTH: usize = 64;

/// The last membership that is known from what is good of the log.
#[derive(Debug, Clone, Copy)]
pub enum KnownMembership<'a> {
    /// As a footer has it.
    Stored(&'a [u8]),
    /// As a membership frame has it.
    Frame(&'a [u8]),
}

/// When a log may be restored from others.
#[derive(Debug, Clone, Copy)]
pub struct RestoreRule {
    /// The largest tree this node signed for: a log that never reached it is an older copy.
    pub signed: TreeSize,
    /// Whether the voters of a membership can elect a leader without this node, given its id.
    pub others_can_lead: fn(KnownMembership<'_>, u64) -> bool,
}

/// What to do with a log whose acknowledged end is damaged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss<'a> {
    /// Do not open it.
    Refuse,
    /// Cut it there; a person has said so.
    Accept,
    /// Cut it there, and remember that it has to be restored, if the rule allows it.
    Restore(&'a RestoreRule),
}

/// Leaves there are behind a frame of `count` leaves from `first` on.
pub(super) fn frame_end(first: LeafIndex, count: u32) -> TreeSize {
    TreeSize::new(first.get().saturating_add(u64::from(count)))
}

/// Leaves there are behind the frame with this header, as far as it says.
fn leaves_after(header: &FrameHeader) -> TreeSize {
    match header.kind {
        FrameKind::Entries => frame_end(header.first_leaf, header.count),
        _ => TreeSize::EMPTY,
    }
}

/// How many leaves the log reached, going by frames that lie behind the damage: at byte `offset` of the segment that
/// begins at `first`, whose next frame was to be `missing`, and in the segments after it. A frame is believed by its
/// chain CRC alone; this is evidence of what the files once held, and nothing is read from them.
pub(super) fn reach_behind(
    disk: &dyn Disk,
    log_dir: &Path,
    first: LogIndex,
    offset: u64,
    missing: LogIndex,
) -> Result<TreeSize, StoreError> {
    let mut reach = TreeSize::EMPTY;
    for segment in segments_from(disk, log_dir, first)? {
        let path = file_path(log_dir, segment);
        let file = disk.open(&path, Open::READ).context("open", &path)?;
        let length = file.len().context("read", &path)?.min(u64::from(u32::MAX));
        // Frames mostly follow each other: each search finds the next one right away.
        let mut scanner = Scanner::with_read_length(&*file, length, SEARCH_LENGTH);
        let (mut from, mut before, start) = if segment == first {
            (offset, missing, offset)
        } else {
            let header = SEGMENT_HEADER_LENGTH as u64;
            (header, LogIndex(segment.0.saturating_sub(1)), 0)
        };
        // The damaged frame itself says how far it reaches, if its header is whole.
        if let Ok(header) = scanner.header(from).context("read", &path)?
            && header.log_id.index == missing
        {
            reach = reach.max(leaves_after(&header));
        }
        loop {
            let found = match scanner
                .find_frame(from, before, start)
                .context("read", &path)?
            {
                Later::Nothing => break,
                Later::Frame(found) => found,
                Later::Unclear => {
                    let reason = "more looks like a frame behind the damage than can be looked at: how far the log \
                                  reached is not known";
                    return Err(StoreError::damaged(&path, from, reason));
                }
            };
            let Ok(header) = scanner.header(found).context("read", &path)? else {
                break;
            };
            reach = reach.max(leaves_after(&header));
            before = header.log_id.index;
            from = found + header.total_length() as u64;
        }
    }
    Ok(reach)
}

/// Copies the segments from `first` on into `damaged/`, durably. If the log was cut before (`marked`), the files may hold
/// less than the copies made then: those stay, and these are made beside them.
pub(super) fn keep_aside(
    disk: &dyn Disk,
    dir: &Path,
    log_dir: &Path,
    first: LogIndex,
    marked: bool,
) -> Result<(), StoreError> {
    let aside = dir.join(DAMAGED_DIR);
    disk.create_dir_all(&aside).context("create", &aside)?;
    for segment in segments_from(disk, log_dir, first)? {
        let (from, mut to) = (file_path(log_dir, segment), file_path(&aside, segment));
        let mut copies = 1;
        while marked && disk.exists(&to).context("look for", &to)? {
            copies += 1;
            to = file_path(&aside, segment).with_extension(format!("seg.{copies}"));
        }
        let source = disk.open(&from, Open::READ).context("open", &from)?;
        let length = source.len().context("read", &from)?;
        // What was only allocated need not be kept.
        let end = Scanner::new(&*source, length)
            .content_end(0)
            .context("read", &from)?;
        let copy = disk.open(&to, Open::CREATE).context("create", &to)?;
        copy.set_len(0).context("cut", &to)?;
        let mut at = 0;
        while at < end {
            let mut bytes = vec![0; PIECE_LENGTH.min((end - at) as usize)];
            source
                .read_exact_at(&mut bytes, at)
                .context("read", &from)?;
            // A crash here leaves part of a copy, and the log as it was: it is copied again, over this one unless the
            // mark is there from before.
            copy.write_all_at(&bytes, at).context("write", &to)?;
            at += bytes.len() as u64;
        }
        copy.sync_all().context("sync", &to)?;
    }
    disk.sync_dir(&aside).context("sync", &aside)?;
    disk.sync_dir(dir).context("sync", dir)
}

/// Puts the mark there, durably, with the size of the largest tree this node has signed for until now.
pub(super) fn mark(
    disk: &dyn Disk,
    dir: &Path,
    signed: TreeSize,
    reason: &str,
) -> Result<(), StoreError> {
    let path = dir.join(RESTORING_NAME);
    let file = disk.open(&path, Open::CREATE).context("create", &path)?;
    let text = format!("{MARK_FIRST_LINE}\nsigned {signed}\n{reason}\n");
    // A crash before the last sync leaves a mark, any part of one, or none; the log is not cut yet.
    file.write_all_at(text.as_bytes(), 0)
        .context("write", &path)?;
    file.set_len(text.len() as u64).context("cut", &path)?;
    file.sync_all().context("sync", &path)?;
    disk.sync_dir(dir).context("sync", dir)
}

/// Whether the mark is there.
pub(super) fn is_marked(disk: &dyn Disk, dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join(RESTORING_NAME);
    disk.exists(&path).context("look for", &path)
}

/// The size in the mark, see [`mark`]; `None` if there is no mark, or one that says nothing.
pub(super) fn marked_size(disk: &dyn Disk, dir: &Path) -> Result<Option<TreeSize>, StoreError> {
    let path = dir.join(RESTORING_NAME);
    if !disk.exists(&path).context("look for", &path)? {
        return Ok(None);
    }
    let mut bytes = [0; MARK_READ_LENGTH];
    let file = disk.open(&path, Open::READ).context("open", &path)?;
    let read = read_full_at(&*file, &mut bytes, 0).context("read", &path)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let mut lines = text.lines();
    let known = lines.next() == Some(MARK_FIRST_LINE);
    let signed = lines.next().and_then(|line| line.strip_prefix("signed "));
    let size = signed.filter(|_| known).and_then(|size| size.parse().ok());
    Ok(size.map(TreeSize::new))
}

/// Segment files from the one that begins at `first` on, ascending.
fn segments_from(
    disk: &dyn Disk,
    log_dir: &Path,
    first: LogIndex,
) -> Result<Vec<LogIndex>, StoreError> {
    let names = disk.list(log_dir).context("list", log_dir)?;
    let mut segments: Vec<LogIndex> = names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .filter(|segment| *segment >= first)
        .collect();
    segments.sort_unstable();
    Ok(segments)
}

impl Store {
    /// Whether this node's log lost what it had acknowledged, and does not have it back: it may not vote.
    ///
    /// # Errors
    /// When the disk does not say.
    pub fn is_restoring(&self) -> io::Result<bool> {
        Ok(is_marked(self.0.log.disk(), &self.0.directory)?)
    }

    /// The largest tree this node had signed for when the end of its log was cut, while that is not back. `None` also for a
    /// mark that says nothing.
    ///
    /// # Errors
    /// When the disk does not say.
    pub fn signed_before_loss(&self) -> io::Result<Option<TreeSize>> {
        Ok(marked_size(self.0.log.disk(), &self.0.directory)?)
    }

    /// The log has everything again that it ever acknowledged: removes the mark, then what was kept aside.
    ///
    /// # Errors
    /// When the disk refuses to remove the mark, or the store is closed: the mark is another process's business then.
    pub fn restored(&self) -> io::Result<()> {
        let _held = self.0.working()?;
        let (disk, dir) = (self.0.log.disk(), &self.0.directory);
        let mark = dir.join(RESTORING_NAME);
        if disk.exists(&mark)? {
            disk.remove(&mark)?;
            // A crash here leaves the mark or not: with it, the node asks the leader once more how far it has to be.
            disk.sync_dir(dir)?;
        }
        if let Err(error) = remove_aside(disk, dir) {
            tracing::warn!(%error, "what was kept in `{DAMAGED_DIR}` cannot be removed; it counts for nothing");
        }
        Ok(())
    }
}

/// Removes what was kept aside. A crash in between leaves some of it, for a person to remove: it counts for nothing.
fn remove_aside(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let aside = dir.join(DAMAGED_DIR);
    if disk.exists(&aside)? {
        for name in disk.list(&aside)? {
            disk.remove(&aside.join(name))?;
        }
        disk.sync_dir(&aside)?;
    }
    Ok(())
}
