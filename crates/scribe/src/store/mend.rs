//! A sealed segment that is damaged or gone is put back: suspected, examined, fetched again, and swapped in by a rename.
//!
//! ```text
//! read, scrub, check, open -> suspected -> examine -> sound
//!                                             |-> its tree hashes differ -> mend_tree (from the entries)
//!                                             `-> damaged -> Mend: write … finish -> rename over the damaged file
//! ```
//!
//! What the segment must be is known: the MANIFEST has its length, SHA-256, chain and roots. So nothing is believed of
//! whoever sends bytes, and bytes of several damaged copies may be put together: each frame is checked by itself, and
//! all of them by the SHA-256. The footer is not fetched at all: it follows from the frames and the record.
//!
//! Until the rename the damaged file stays where it is: what can be read of it is served, what cannot is an error. It is
//! not kept afterwards. All it had is in the file that takes its place, byte for byte, and a disk that loses bits is no
//! place to leave a second copy of each segment it loses.
//!
//! Nothing here names a peer, and nothing decides when: see `consensus/mend` and `node/mending`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use scribe_proof::tree::TreeBuilder;
use tokio::sync::watch;

use super::disk::{Disk, Open};
use super::frame::LogIndex;
use super::recovery::LOG_DIR;
use super::sealed_list::read_footer;
use super::segment::{SealedSegment, file_path};
use super::staging::{Transfer, check_frames, check_staged, part_name, part_path, resume};
use super::walk::{CheckError, Damage, sealed_path};
use super::{Inner, Store, invalid, rebuild};
use crate::limits;

/// Directory of segments that are being fetched again, within the data directory.
pub const MENDING_DIR: &str = "mending";

/// What the operating system says of a sector it cannot read (`EIO`). Other refusals say nothing about the bytes.
const UNREADABLE_SECTOR: i32 = 5;

/// Segments that somebody had trouble with, and those that are known to be damaged.
#[derive(Debug)]
pub(crate) struct Suspects {
    waiting: watch::Sender<BTreeSet<u32>>,
    damaged: Mutex<BTreeMap<u32, String>>,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            waiting: watch::Sender::new(BTreeSet::new()),
            damaged: Mutex::default(),
        }
    }
}

impl Suspects {
    /// Asks for segment `number` to be examined. Nothing happens if it is damaged for sure, or waits already.
    pub(crate) fn add(&self, number: u32) {
        if self.damaged.lock().contains_key(&number) {
            return;
        }
        self.waiting
            .send_if_modified(|waiting| waiting.insert(number));
    }

    /// Why segment `number` is damaged, if it is known to be.
    pub(crate) fn damage_of(&self, number: u32) -> Option<String> {
        self.damaged.lock().get(&number).cloned()
    }
}

/// Whether this is what damage of a file looks like: bytes that are wrong, missing, or on a sector that is gone.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    ) || error.raw_os_error() == Some(UNREADABLE_SECTOR)
}

/// What looking at a suspected segment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no such sealed segment, or every byte of it and of its tree hashes is what it must be.
    Sound,
    /// The segment is good, its hashes in the tree files are not: [`Store::mend_tree`].
    Tree(String),
    /// The segment is damaged or missing: [`Store::mend`].
    Segment(String),
}

/// What became of a segment whose bytes were all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It is in its place, durably; this many bytes.
    Mended(u64),
    /// The bytes are not the segment's. Those that may be are kept: go on at [`Mend::have`], with another source.
    Wrong(String),
}

/// One segment on its way back. Clone = another handle. Its calls block.
#[derive(Debug, Clone)]
pub struct Mend {
    inner: Arc<Inner>,
    segment: Arc<SealedSegment>,
    transfer: Arc<Mutex<Transfer>>,
}

impl Store {
    /// Asks for sealed segment `number` to be examined; see [`Store::suspects`].
    pub fn suspect(&self, number: u32) {
        self.0.log.suspects().add(number);
    }

    /// Follows the segments that wait to be examined.
    pub fn suspects(&self) -> watch::Receiver<BTreeSet<u32>> {
        self.0.log.suspects().waiting.subscribe()
    }

    /// Takes the next segment that waits to be examined.
    pub fn next_suspect(&self) -> Option<u32> {
        let mut next = None;
        self.0.log.suspects().waiting.send_if_modified(|waiting| {
            next = waiting.pop_first();
            false
        });
        next
    }

    /// The segments known to be damaged.
    pub fn damaged_segments(&self) -> Vec<SealedSegment> {
        let damaged = self.0.log.suspects().damaged.lock();
        let sealed = self.0.log.sealed();
        let known = |segment: &&SealedSegment| damaged.contains_key(&segment.number);
        sealed.iter().filter(known).cloned().collect()
    }

    /// Suspects what an earlier process left half mended: it had found those segments damaged.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn suspect_half_mended(&self) -> io::Result<()> {
        let inner = &*self.0;
        let (disk, directory) = (inner.log.disk(), inner.mending_dir());
        if !disk.exists(&directory)? {
            return Ok(());
        }
        let names: BTreeSet<String> = disk.list(&directory)?.into_iter().collect();
        for segment in inner.log.sealed().iter() {
            if names.contains(&part_name(segment)) {
                self.suspect(segment.number);
            }
        }
        Ok(())
    }

    /// Reads every byte of a sealed segment and of its tree hashes, from the disk, and remembers whether the segment is
    /// damaged: it is not given to other nodes then.
    ///
    /// # Errors
    /// What the disk refuses for another reason than damage: then nothing is known.
    pub fn examine(&self, number: u32) -> io::Result<Verdict> {
        let inner = &*self.0;
        let suspects = inner.log.suspects();
        let verdict = match inner.examine_file(number) {
            Ok(()) => match inner.scrub_segment(number) {
                Ok(_) => Verdict::Sound,
                Err(CheckError::Damage(damage)) => Verdict::Tree(damage.to_string()),
                Err(CheckError::Io(error)) if is_damage(&error) => Verdict::Tree(error.to_string()),
                Err(CheckError::Io(error)) => return Err(error),
            },
            Err(CheckError::Damage(damage)) => Verdict::Segment(damage.to_string()),
            Err(CheckError::Io(error)) if is_damage(&error) => Verdict::Segment(error.to_string()),
            Err(CheckError::Io(error)) => return Err(error),
        };
        let mut damaged = suspects.damaged.lock();
        match &verdict {
            Verdict::Segment(reason) => drop(damaged.insert(number, reason.clone())),
            Verdict::Sound | Verdict::Tree(_) => drop(damaged.remove(&number)),
        }
        drop(damaged);
        // Whatever came up while it was looked at is answered.
        suspects.waiting.send_if_modified(|waiting| {
            waiting.remove(&number);
            false
        });
        Ok(verdict)
    }

    /// Derives the hashes of a good segment again, and those of the segments before it that the right edge it begins
    /// with needs. Returns how many segments were derived.
    ///
    /// # Errors
    /// Kind `InvalidData` if a segment on the way is damaged: it is suspected by then, and comes first.
    pub fn mend_tree(&self, number: u32) -> io::Result<u32> {
        let inner = &*self.0;
        let _one_at_a_time = inner.sealing.lock();
        let sealed = inner.log.sealed();
        let Some(until) = sealed.get(..=number as usize) else {
            return Ok(0);
        };
        // The hashes of a right edge either belong to the right edge of a shorter tree, whose root tells whether they
        // are good, or were brought by a segment since.
        let mut from = until.len() - 1;
        while from > 0 && !inner.edge_agrees(&until[from]) {
            from -= 1;
        }
        let mut builder = TreeBuilder::from_reader(&inner.tree, until[from].footer.start_size)?;
        for segment in &until[from..] {
            let loaded = rebuild::load_segment(&inner.log, segment, Some(&mut builder))?;
            // Over what was there: the right bytes at their right place, whatever a crash leaves of them. Whoever reads
            // in the middle of it finds what it found before, bytes that a check refuses, or good ones.
            for (level, run) in loaded.levels().iter().enumerate() {
                inner.tree.write(level as u8, run)?;
            }
            inner.tree.sync()?;
        }
        Ok((until.len() - from) as u32)
    }

    /// Begins to put a damaged segment back, or goes on where an earlier attempt or process stopped.
    ///
    /// # Errors
    /// Kind `NotFound` if there is no such sealed segment; kind `StorageFull` if it does not fit beside the damaged one;
    /// what the disk refuses.
    pub fn mend(&self, number: u32) -> io::Result<Mend> {
        let inner = &*self.0;
        let sealed = inner.log.sealed();
        let Some(segment) = sealed.get(number as usize) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no sealed segment {number}"),
            ));
        };
        let (disk, directory) = (inner.log.disk(), inner.mending_dir());
        if !disk.exists(&directory)? {
            // A crash before the sync leaves no directory, or an empty one.
            disk.create_dir_all(&directory)?;
            disk.sync_dir(&inner.directory)?;
        }
        let transfer = {
            let _held = inner.working()?;
            resume(disk, &directory, segment)?
        };
        let (free, needed) = (inner.log.free_bytes(), segment.file_length - transfer.have);
        if free < needed.saturating_add(limits::MEND_RESERVE_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "segment {number} needs {needed} bytes beside the damaged file: {free} are free, {} of them are \
                     kept back\nhint: make room on the disk of `{}`",
                    limits::MEND_RESERVE_BYTES,
                    inner.directory.display()
                ),
            ));
        }
        Ok(Mend {
            inner: self.0.clone(),
            segment: Arc::new(segment.clone()),
            transfer: Arc::new(Mutex::new(transfer)),
        })
    }
}

impl Inner {
    /// Keeps the store from stopping while files in `mending/`, `damaged/` and the mark `restoring` are worked on: somebody
    /// else may open the directory once it has stopped.
    pub(super) fn working(&self) -> io::Result<MutexGuard<'_, ()>> {
        let held = self.mending.lock();
        if self.stopping.load(Ordering::Acquire) {
            return Err(io::Error::other("the store is closed"));
        }
        Ok(held)
    }

    fn mending_dir(&self) -> PathBuf {
        self.directory.join(MENDING_DIR)
    }

    /// Whether the tree files have the root that a segment begins with.
    fn edge_agrees(&self, segment: &SealedSegment) -> bool {
        let footer = &segment.footer;
        let agrees = self.tree.agrees(footer.start_size, &footer.start_root);
        // What cannot be read is derived again like what is wrong; if it cannot be written either, that is said then.
        agrees.unwrap_or(false)
    }

    /// Checks the file of a sealed segment, whatever the tree files say.
    fn examine_file(&self, number: u32) -> Result<(), CheckError> {
        let sealed = self.log.sealed();
        let Some(segment) = sealed.get(number as usize) else {
            return Ok(());
        };
        let previous = number.checked_sub(1).and_then(|at| sealed.get(at as usize));
        // By its name, not by an open handle: somebody may have put a good copy there.
        let path = file_path(&self.directory.join(LOG_DIR), segment.first_log_index);
        let file = self.log.disk().open(&path, Open::READ)?;
        file.drop_cache();
        let nobody = &mut |_, _| {};
        let name = sealed_path(segment);
        let (_, whole) = check_staged(&file, segment, previous, None, &name, nobody)?;
        // An open handle may be of another file than this good one.
        self.log.replaced(&whole);
        Ok(())
    }
}

impl Mend {
    /// The segment.
    pub fn segment(&self) -> &SealedSegment {
        &self.segment
    }

    /// Bytes of header and frames that are there: where to go on.
    pub fn have(&self) -> u64 {
        self.transfer.lock().have
    }

    /// Bytes of header and frames there must be.
    pub fn wanted(&self) -> u64 {
        self.segment.body_length
    }

    /// Bytes of the damaged file itself, from `offset` on: as good a source as any other, because none is believed.
    ///
    /// # Errors
    /// What the disk cannot read.
    pub fn own_bytes(&self, offset: u64, length_max: usize) -> io::Result<Bytes> {
        let file = self.inner.log.segment_file(self.segment.number)?;
        let end = file.len()?.min(self.wanted());
        let mut bytes = vec![0; end.saturating_sub(offset).min(length_max as u64) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Takes the next bytes; what lies behind the last frame is left out.
    ///
    /// # Errors
    /// Kind `InvalidInput`, and nothing is changed, for bytes that do not follow those that are there; what the disk
    /// refuses, and then the same bytes may be written again.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _held = self.inner.working()?;
        let mut transfer = self.transfer.lock();
        if offset != transfer.have {
            return Err(invalid(format!(
                "bytes from {offset} on of segment {} arrive, allowed from {} on",
                self.segment.number, transfer.have
            )));
        }
        let left = self.wanted().saturating_sub(offset).min(bytes.len() as u64);
        self.put(&mut transfer, &bytes[..left as usize], offset)?;
        transfer.have = offset + left;
        Ok(())
    }

    fn put(&self, transfer: &mut Transfer, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (disk, path) = (self.inner.log.disk(), self.path());
        let file = match &transfer.file {
            Some(file) => file.clone(),
            None => {
                let file = disk.open(&path, Open::CREATE)?;
                // The name says where to go on, also after a power cut.
                disk.sync_dir(&self.inner.mending_dir())?;
                file
            }
        };
        // A crash here leaves any sectors of this in the file: the next process finds out by the frames.
        file.write_all_at(bytes, offset)?;
        transfer.file = Some(file.clone());
        let end = offset + bytes.len() as u64;
        if end - transfer.synced.min(end) >= limits::STAGING_SYNC_BYTES {
            if let Err(error) = file.sync_data() {
                // What a failed sync leaves cannot be told from what is on disk: it is fetched again.
                transfer.begin_again(disk, &path);
                return Err(error);
            }
            transfer.synced = end;
        }
        Ok(())
    }

    /// Forgets what arrived.
    pub fn clear(&self) {
        self.transfer
            .lock()
            .begin_again(self.inner.log.disk(), &self.path());
    }

    /// Checks what arrived against the MANIFEST's record, adds the footer, and puts the file in the place of the damaged
    /// one. Blocks for a few tenths of a second per full segment.
    ///
    /// # Errors
    /// Kind `InvalidInput` if bytes are missing; what the disk refuses. The damaged file, or the new one, is in its place.
    pub fn finish(&self) -> io::Result<Finished> {
        let inner = &*self.inner;
        let (disk, path, segment) = (inner.log.disk(), self.path(), &*self.segment);
        let _held = inner.working()?;
        let mut transfer = self.transfer.lock();
        if transfer.have != self.wanted() {
            return Err(invalid(format!(
                "segment {} has {} of {} bytes",
                segment.number,
                transfer.have,
                self.wanted()
            )));
        }
        let file = match &transfer.file {
            Some(file) => file.clone(),
            None => disk.open(&path, Open::READ_WRITE)?,
        };
        transfer.file = Some(file.clone());
        let begin_again = |transfer: &mut Transfer, error: io::Error| {
            transfer.begin_again(disk, &path);
            Err(error)
        };
        if let Err(error) = file.sync_data() {
            return begin_again(&mut transfer, error);
        }
        // What is checked has to be what the device has.
        file.drop_cache();
        let sealed = inner.log.sealed();
        let previous = segment
            .number
            .checked_sub(1)
            .and_then(|at| sealed.get(at as usize));
        let name = Path::new(MENDING_DIR).join(part_name(segment));
        let nobody = &mut |_, _| {};
        let checked = check_frames(&file, segment, previous, None, &name, nobody);
        let (_, whole) = match checked {
            Ok(checked) => checked,
            Err(CheckError::Io(error)) => return Err(error),
            Err(CheckError::Damage(damage)) => return self.keep_good(&mut transfer, &damage),
        };
        // A crash before the rename leaves the damaged file in its place, and this one as far as its frames are good.
        let footer = whole.encode_footer();
        file.write_all_at(&footer, segment.body_length)?;
        file.set_len(segment.file_length)?;
        if let Err(error) = file.sync_all() {
            return begin_again(&mut transfer, error);
        }
        file.drop_cache();
        if !read_footer(disk, &path)?.is_ok_and(|found| found.is_same(segment)) {
            let reason = "the disk does not give back what was written".to_owned();
            return begin_again(&mut transfer, io::Error::other(reason));
        }
        let place = file_path(&inner.directory.join(LOG_DIR), segment.first_log_index);
        // A name that is not durable cannot become another one durably; a killed process may have left it so.
        disk.sync_dir(&inner.mending_dir())?;
        // One step: whoever opens the name finds the damaged file or the good one. A crash before the directory is synced
        // leaves either; if it is the damaged one, it is found damaged and mended again.
        disk.rename(&path, &place)?;
        inner.log.replaced(&whole);
        inner.log.suspects().damaged.lock().remove(&segment.number);
        disk.sync_dir(&inner.directory.join(LOG_DIR))?;
        disk.sync_dir(&inner.mending_dir())?;
        Ok(Finished::Mended(segment.file_length))
    }

    /// Cuts what arrived behind the last frame that is good by itself. If all are, they are those of another segment, or
    /// made up: nothing is kept.
    fn keep_good(&self, transfer: &mut Transfer, damage: &Damage) -> io::Result<Finished> {
        let disk = self.inner.log.disk();
        let all = transfer.have;
        transfer.file = None;
        // A crash here leaves what the next process cuts in the same way.
        *transfer = resume(disk, &self.inner.mending_dir(), &self.segment)?;
        if transfer.have >= all {
            transfer.begin_again(disk, &self.path());
        }
        Ok(Finished::Wrong(damage.to_string()))
    }

    fn path(&self) -> PathBuf {
        part_path(&self.inner.mending_dir(), &self.segment)
    }
}

impl Store {
    /// Removes what is left in `mending/` of segments that are not damaged any more.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_mended(&self) -> io::Result<()> {
        let inner = &*self.0;
        let (disk, directory): (&dyn Disk, _) = (inner.log.disk(), inner.mending_dir());
        if !disk.exists(&directory)? {
            return Ok(());
        }
        let _held = inner.working()?;
        let wanted: BTreeSet<String> = self.damaged_segments().iter().map(part_name).collect();
        // A crash in between leaves some of them: they are removed the next time.
        for name in disk.list(&directory)? {
            if !wanted.contains(&name) {
                disk.remove(&directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Segments whose log entries could not be read, by the place of one of them.
impl super::log::Log {
    /// Asks for the sealed segment with this log index to be examined, if there is one.
    pub fn suspect_at(&self, index: LogIndex) {
        let number = self
            .inner
            .state
            .lock()
            .sealed_segment_of(index)
            .map(|sealed| sealed.number);
        if let Some(number) = number {
            self.suspects().add(number);
        }
    }

    pub(crate) fn suspects(&self) -> &Suspects {
        &self.inner.suspects
    }

    /// Another file has taken the place of a sealed segment's: it is opened anew, and its sparse table is known.
    pub(super) fn replaced(&self, segment: &SealedSegment) {
        let inner = &self.inner;
        let mut state = inner.state.lock();
        let sealed = Arc::make_mut(&mut state.sealed);
        if let Some(known) = sealed
            .get_mut(segment.number as usize)
            .filter(|known| known.is_same(segment))
        {
            known.sparse = segment.sparse.clone();
        }
        let mut files = inner.files.lock();
        files.remove(&segment.number);
        // Whoever has opened the old file and not yet kept it sees this, and does not keep it.
        inner.replaced.fetch_add(1, Ordering::AcqRel);
    }
}
