//! Sealed segments on their way from another node: files in `incoming/` that nobody believes yet.
//!
//! A segment arrives in `<first>.part`, front to back, in pieces of any size; an interrupted transfer goes on where it
//! ended, also after a restart. When all bytes are there, [`Staging::finish`] syncs and re-reads them, checks all of it
//! (SHA-256, frame chain, root hash after it from the root hash before it), takes its hashes into the tree files and
//! its versions into the key index, and names it `<first>.seg`: that name stands for a verified file. What is in tree
//! files and index beyond the sealed segments is seen by no reader, and is what sealing the same frames here would have
//! put there. [`Store::install`](super::Store::install) makes it count.
//!
//! Nothing here names a peer: how the bytes travel is the caller's business.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::hash::Hash;
use scribe_proof::tree::TreeBuilder;
use sha2::{Digest, Sha256};

use super::disk::{Disk, DiskFile, Open};
use super::frame::FrameHeader;
use super::install::not_sealed;
use super::open_segment::OpenSegment;
use super::rebuild::load_frames;
use super::scan::{Expected, Scanner};
use super::sealed_list::read_footer;
use super::segment::{
    SEGMENT_HEADER_LENGTH, SealedSegment, SegmentHeader, SparseBuilder, file_name, file_path,
};
use super::switch::INCOMING_DIR;
use super::walk::{CheckError, Damage, FrameWalk};
use super::{Inner, Store, invalid};
use crate::limits;

/// A segment that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The segment.
    pub segment: SealedSegment,
    /// Bytes of its file.
    pub file_length: u64,
    /// Bytes that are there already: where to go on.
    pub have: u64,
}

/// What is known of the segments that were asked for.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    wanted: Vec<SealedSegment>,
    /// Numbers of those that are complete and verified.
    verified: BTreeSet<u32>,
    arriving: BTreeMap<u32, Transfer>,
}

/// A segment that arrives, front to back.
#[derive(Debug)]
pub(super) struct Transfer {
    segment: SealedSegment,
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) have: u64,
    pub(super) synced: u64,
}

impl Transfers {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Where the verified segments end, if none is missing.
    fn complete(&self) -> Option<super::frame::LogId> {
        let complete = self.verified.len() == self.wanted.len();
        let last = self.wanted.last().filter(|_| complete);
        last.map(|segment| segment.last_log_id)
    }
}

/// The place where segments from another node arrive. Its calls block, and wait for each other.
#[derive(Debug, Clone)]
pub struct Staging(Arc<Inner>);

impl Store {
    /// Where segments from another node arrive.
    pub fn staging(&self) -> Staging {
        Staging(self.0.clone())
    }

    /// Bytes of a sealed segment's file from `offset` on, at most `length_max`; none at or beyond its end. The file is
    /// the same on every node.
    ///
    /// # Errors
    /// Kind `NotFound` if there is no such sealed segment here; kind `InvalidData` if its file has another length than
    /// it must have, or is known to be damaged; what the disk cannot read. The bytes are not checked: whoever receives them
    /// checks them.
    pub fn segment_bytes(&self, number: u32, offset: u64, length_max: usize) -> io::Result<Bytes> {
        if let Some(reason) = self.0.log.suspects().damage_of(number) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("segment {number} is damaged here: {reason}"),
            ));
        }
        let file_length = |segment: &SealedSegment| segment.file_length;
        self.bytes_of_segment(number, offset, length_max, file_length)
    }

    /// The same of a copy that may be damaged or cut: for who checks each frame by itself, and has other sources as well.
    ///
    /// # Errors
    /// Kind `NotFound` if there is no such sealed segment here, or no file of it; what the disk cannot read.
    pub fn doubtful_bytes(&self, number: u32, offset: u64, length_max: usize) -> io::Result<Bytes> {
        self.bytes_of_segment(number, offset, length_max, |_| 0)
    }

    /// Bytes of a file that must have the length `must_have`, if that is not 0.
    fn bytes_of_segment(
        &self,
        number: u32,
        offset: u64,
        length_max: usize,
        must_have: impl Fn(&SealedSegment) -> u64,
    ) -> io::Result<Bytes> {
        let sealed = self.0.log.sealed();
        let segment = sealed.iter().find(|segment| segment.number == number);
        let Some(segment) = segment else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no sealed segment {number}"),
            ));
        };
        let file = self.0.log.segment_file(number)?;
        let (found, allowed) = (file.len()?, must_have(segment));
        if allowed != 0 && found != allowed {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "segment {number} has {found} bytes on disk, its record says {}",
                    segment.file_length
                ),
            ));
        }
        let left = segment.file_length.min(found).saturating_sub(offset);
        let mut bytes = vec![0; left.min(length_max as u64) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

impl Staging {
    /// Takes the list of another node's sealed segments, oldest first, and says which of them are still to be fetched;
    /// none when [`Store::install`] can be called. Removes what lies in `incoming/` and is not wanted any more.
    ///
    /// To be called before the first [`Staging::write`], and again whenever the list changes.
    ///
    /// # Errors
    /// Kind `InvalidData` if the list contradicts this node's own sealed segments, or itself; what the disk refuses.
    pub fn missing(&self, wanted: &[SealedSegment]) -> io::Result<Vec<Missing>> {
        let inner = &*self.0;
        let rest = not_sealed(&inner.log, wanted)?;
        let disk = inner.log.disk();
        let directory = inner.incoming();
        let mut transfers = inner.staging.lock();
        if !rest.is_empty() && !disk.exists(&directory)? {
            // A crash before the sync leaves no directory, or an empty one.
            disk.create_dir_all(&directory)?;
            disk.sync_dir(&inner.directory)?;
        }
        remove_all_but(disk, &directory, rest)?;
        let mut arriving = std::mem::take(&mut transfers.arriving);
        transfers.clear();
        transfers.wanted = rest.to_vec();
        let mut missing = Vec::new();
        for segment in rest {
            let done = file_path(&directory, segment.first_log_index);
            if read_footer(disk, &done)?.is_ok_and(|found| found.is_same(segment)) {
                transfers.verified.insert(segment.number);
                continue;
            }
            if disk.exists(&done)? {
                disk.remove(&done)?;
            }
            let known = arriving.remove(&segment.number);
            let transfer = match known.filter(|known| known.segment.is_same(segment)) {
                Some(known) => known,
                None => resume(disk, &directory, segment)?,
            };
            missing.push(Missing {
                segment: segment.clone(),
                file_length: segment.file_length,
                have: transfer.have,
            });
            transfers.arriving.insert(segment.number, transfer);
        }
        inner.log.set_staged(transfers.complete());
        Ok(missing)
    }

    /// Takes the next bytes of a segment.
    ///
    /// # Errors
    /// Kind `InvalidInput`, and nothing is changed, for a segment that [`Staging::missing`] did not name, bytes that do
    /// not follow those that are there, or bytes beyond its end; what the disk refuses, and then the same bytes may be
    /// written again.
    pub fn write(&self, number: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inner = &*self.0;
        let disk = inner.log.disk();
        let mut transfers = inner.staging.lock();
        let Some(transfer) = transfers.arriving.get_mut(&number) else {
            return Err(invalid(format!("segment {number} is not awaited")));
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != transfer.have || end > transfer.segment.file_length {
            return Err(invalid(format!(
                "bytes {offset} to {end} of segment {number} arrive, allowed from {} and up to {}",
                transfer.have, transfer.segment.file_length
            )));
        }
        let path = part_path(&inner.incoming(), &transfer.segment);
        let file = match &transfer.file {
            Some(file) => file.clone(),
            None => disk.open(&path, Open::CREATE)?,
        };
        file.write_all_at(bytes, offset)?;
        transfer.file = Some(file.clone());
        if end - transfer.synced >= limits::STAGING_SYNC_BYTES {
            if let Err(error) = file.sync_data() {
                // What a failed sync leaves cannot be told from what is on disk: the transfer begins again.
                transfer.begin_again(disk, &path);
                return Err(error);
            }
            transfer.synced = end;
        }
        transfer.have = end;
        Ok(())
    }

    /// Verifies a segment whose bytes are all there. Blocks for a few tenths of a second per full segment; `progress` is
    /// told of bytes done and bytes in all. Segments are finished in order.
    ///
    /// # Errors
    /// Kind `InvalidData` if the bytes are not the segment; they are deleted, and the transfer begins again. Kind
    /// `InvalidInput` if bytes are missing, or a segment before it is not finished. What the disk refuses.
    pub fn finish(
        &self,
        segment: &SealedSegment,
        mut progress: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        let inner = &*self.0;
        let number = segment.number;
        let mut transfers = inner.staging.lock();
        if transfers.verified.contains(&number) {
            return Ok(());
        }
        let before: Vec<_> = transfers
            .wanted
            .iter()
            .take_while(|wanted| wanted.number != number)
            .cloned()
            .collect();
        let unverified = before
            .iter()
            .find(|before| !transfers.verified.contains(&before.number));
        if let Some(first) = unverified {
            return Err(invalid(format!(
                "segment {number} is finished before segment {}",
                first.number
            )));
        }
        let Some(transfer) = transfers.arriving.get_mut(&number) else {
            return Err(invalid(format!("segment {number} is not awaited")));
        };
        if transfer.have != transfer.segment.file_length {
            return Err(invalid(format!(
                "segment {number} has {} of {} bytes",
                transfer.have, transfer.segment.file_length
            )));
        }
        inner.verify(transfer, &before, &mut progress)?;
        transfers.arriving.remove(&number);
        transfers.verified.insert(number);
        inner.log.set_staged(transfers.complete());
        Ok(())
    }
}

impl Transfer {
    /// Deletes what arrived.
    pub(super) fn begin_again(&mut self, disk: &dyn Disk, path: &Path) {
        self.file = None;
        (self.have, self.synced) = (0, 0);
        if let Err(error) = disk.remove(path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove a segment that arrived damaged");
        }
    }
}

impl Inner {
    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join(INCOMING_DIR)
    }

    /// Checks a complete transfer, takes it into tree and index, and gives it the name of a verified segment. `before`
    /// are the verified ones in front of it.
    fn verify(
        &self,
        transfer: &mut Transfer,
        before: &[SealedSegment],
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<()> {
        let disk = self.log.disk();
        let directory = self.incoming();
        let segment = transfer.segment.clone();
        let path = part_path(&directory, &segment);
        let file = match transfer.file.take() {
            Some(file) => file,
            None => disk.open(&path, Open::READ_WRITE)?,
        };
        if let Err(error) = file.sync_all() {
            transfer.begin_again(disk, &path);
            return Err(error);
        }
        // What is checked has to be what the device has.
        file.drop_cache();

        let _one_at_a_time = self.sealing.lock();
        let sealed = self.log.sealed();
        if sealed.len() > segment.number as usize {
            // This node sealed it meanwhile.
            disk.remove(&path)?;
            return Ok(());
        }
        let footer = &segment.footer;
        if !self.tree.agrees(footer.start_size, &footer.start_root)? {
            // They were verified by an earlier process, and the tree files were cut since.
            let staged = self.staged(before, &sealed)?;
            self.derive(&sealed, &staged)?;
        }
        let previous = before.last().or(sealed.last());
        let name = Path::new(INCOMING_DIR).join(path.file_name().unwrap_or_default());
        let mut builder = self.builder_at(&segment)?;
        let builder = Some(&mut builder);
        let checked = check_staged(&file, &segment, previous, builder, &name, progress);
        let loaded = match checked {
            Ok((loaded, _)) => loaded,
            Err(error) => {
                if matches!(error, CheckError::Damage(_)) {
                    transfer.begin_again(disk, &path);
                }
                return Err(error.into());
            }
        };
        self.take_in(&segment, &loaded)?;
        // A crash before the directory is synced leaves the name of an unverified file: it is verified again.
        disk.rename(&path, &file_path(&directory, segment.first_log_index))?;
        disk.sync_dir(&directory)
    }

    /// The right edge of the tree before a segment, which is in the tree files.
    pub(super) fn builder_at(&self, segment: &SealedSegment) -> io::Result<TreeBuilder> {
        TreeBuilder::from_reader(&self.tree, segment.footer.start_size)
    }
}

/// Where a segment's bytes arrive.
pub(super) fn part_path(directory: &Path, segment: &SealedSegment) -> PathBuf {
    directory.join(part_name(segment))
}

pub(super) fn part_name(segment: &SealedSegment) -> String {
    format!("{:016x}.part", segment.first_log_index.0)
}

/// Removes every file in `incoming/` that is none of these segments.
pub(super) fn remove_all_but(
    disk: &dyn Disk,
    directory: &Path,
    wanted: &[SealedSegment],
) -> io::Result<()> {
    if !disk.exists(directory)? {
        return Ok(());
    }
    let names: BTreeSet<String> = wanted
        .iter()
        .flat_map(|segment| [part_name(segment), file_name(segment.first_log_index)])
        .collect();
    // A crash in between leaves some of them: they are removed the next time.
    for name in disk.list(directory)? {
        if !names.contains(&name) {
            disk.remove(&directory.join(name))?;
        }
    }
    Ok(())
}

/// Finds out how much of a segment an earlier process has received: up to the last whole frame. A power cut may have
/// taken any sector that was not synced, so the length of the file says nothing.
pub(super) fn resume(
    disk: &dyn Disk,
    directory: &Path,
    segment: &SealedSegment,
) -> io::Result<Transfer> {
    let mut transfer = Transfer {
        segment: segment.clone(),
        file: None,
        have: 0,
        synced: 0,
    };
    let path = part_path(directory, segment);
    if !disk.exists(&path)? {
        return Ok(transfer);
    }
    let file = disk.open(&path, Open::READ_WRITE)?;
    let length = file.len()?.min(segment.body_length);
    let mut scanner = Scanner::new(&*file, length);
    let header = SegmentHeader::parse(&scanner.bytes(0, SEGMENT_HEADER_LENGTH)?);
    if let Ok(header) = header
        && header.first_log_index == segment.first_log_index
    {
        let mut expected = Expected {
            index: header.first_log_index,
            term: 0,
            chain: header.previous_chain,
        };
        transfer.have = SEGMENT_HEADER_LENGTH as u64;
        while transfer.have < length
            && let Ok(found) = scanner.frame(transfer.have)?
            && expected.check(&found).is_ok()
        {
            transfer.have += found.length as u64;
            expected = Expected::after(found.frame.log_id, found.chain);
        }
    }
    file.set_len(transfer.have)?;
    transfer.file = Some(file);
    Ok(transfer)
}

/// Checks that a file is a sealed segment byte for byte, and reads what tree and index need of it, and its sparse table.
/// `builder` is the tree before it; without one the roots in its footer are not derived, which its SHA-256 covers.
pub(super) fn check_staged(
    file: &Arc<dyn DiskFile>,
    wanted: &SealedSegment,
    previous: Option<&SealedSegment>,
    builder: Option<&mut TreeBuilder>,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(OpenSegment, SealedSegment), CheckError> {
    let damage = |offset: u64, reason: String| Damage::new(path, offset, reason);
    let length = file.len()?;
    if length != wanted.file_length {
        let reason = format!("it has {length} bytes, allowed {}", wanted.file_length);
        return Err(damage(length, reason).into());
    }
    let (loaded, segment) = check_frames(file, wanted, previous, builder, path, progress)?;
    // The footer follows from the list and the frames, so the file has to end in exactly these bytes.
    let footer = segment.encode_footer();
    let mut found = vec![0; wanted.file_length.saturating_sub(wanted.body_length) as usize];
    file.read_exact_at(&mut found, wanted.body_length)?;
    if found != footer {
        let reason = "the footer is not that of the segment".to_owned();
        return Err(damage(wanted.body_length, reason).into());
    }
    progress(wanted.file_length, wanted.file_length);
    Ok((loaded, segment))
}

/// The same for header and frames alone: nothing is asked of what lies behind them.
pub(super) fn check_frames(
    file: &Arc<dyn DiskFile>,
    wanted: &SealedSegment,
    previous: Option<&SealedSegment>,
    builder: Option<&mut TreeBuilder>,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(OpenSegment, SealedSegment), CheckError> {
    let damage = |offset: u64, reason: String| Damage::new(path, offset, reason);
    let length = file.len()?;
    if length < wanted.body_length {
        let reason = format!("it has {length} bytes, its frames {}", wanted.body_length);
        return Err(damage(length, reason).into());
    }
    let chain = previous.map_or(0, |previous| previous.last_chain);
    let header = SegmentHeader {
        number: wanted.number,
        first_log_index: wanted.first_log_index,
        cluster_id: wanted.cluster_id,
        previous_chain: chain,
    };
    let mut start = [0; SEGMENT_HEADER_LENGTH];
    file.read_exact_at(&mut start, 0)?;
    if start != header.encode() {
        return Err(damage(0, format!("the segment header is not {header:?}")).into());
    }
    let mut sha = Sha256::new();
    sha.update(start);
    let mut sparse = SparseBuilder::new(wanted.footer.start_size);
    let mut frames = 0;
    let mut term = previous.map_or(0, |previous| previous.last_log_id.term);
    let mut term_falls = None;
    let mut last = None;
    let walk = FrameWalk::staged(file, wanted, path.to_owned());
    let before = Some((chain, wanted.first_log_index.0.wrapping_sub(1)));
    let loaded = load_frames(
        walk,
        wanted,
        path.to_owned(),
        before,
        builder,
        |position, parsed, raw| {
            sha.update(raw);
            if let Ok(header) = FrameHeader::parse(raw) {
                sparse.push(&header, position.offset);
            }
            let id = parsed.frame.log_id;
            if id.term < term && term_falls.is_none() {
                term_falls = Some((position.offset, id));
            }
            term = id.term;
            last = Some((id, parsed.chain));
            frames += 1;
            progress(
                u64::from(position.offset) + raw.len() as u64,
                wanted.file_length,
            );
        },
    )?;
    if let Some((offset, id)) = term_falls {
        let reason = format!("frame {id} has a lower term than the frame before it");
        return Err(damage(u64::from(offset), reason).into());
    }
    let whole = (
        Hash(sha.finalize().into()),
        last == Some((wanted.last_log_id, wanted.last_chain)),
        frames,
    );
    if whole != (wanted.body_sha256, true, wanted.frame_count) {
        return Err(damage(0, "the frames are not those of the segment".into()).into());
    }
    let (_, sparse) = sparse.finish();
    let segment = SealedSegment {
        sparse,
        ..wanted.clone()
    };
    Ok((loaded, segment))
}
