//! `watermarks`: how far the log is known to be durable, committed and purged. Byte map in `docs/format-log.md`.
//!
//! Advisory: written without a sync after each group, so it lags behind what it describes and never runs ahead. What
//! it does say is believed: a log that ends before the flushed watermark has lost acknowledged frames. Before frames
//! are cut on purpose it is therefore lowered and synced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, Open, read_full_at};
use super::error::{IoContext, StoreError};
use super::frame::LogId;
use super::slots::clear_around;
use super::walk::Damage;

/// Name of the file.
pub const WATERMARKS_NAME: &str = "watermarks";
const SLOT_LENGTH: usize = 4_096;
const RECORD_LENGTH: usize = 80;
const MAGIC: &[u8; 8] = b"SCRMARK1";

/// What the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The log is durable up to here, at least.
    pub flushed: Option<LogId>,
    /// Committed up to here, at least; never beyond `flushed`.
    pub committed: Option<LogId>,
    /// Raft need not be served entries up to here; never beyond the last sealed segment.
    pub purged: Option<LogId>,
}

impl Watermarks {
    /// The furthest log index that was ever known to be durable.
    pub fn known(&self) -> Option<LogId> {
        [self.flushed, self.committed, self.purged]
            .into_iter()
            .flatten()
            .max_by_key(|id| id.index)
    }

    fn encode(&self, sequence: u64) -> [u8; RECORD_LENGTH] {
        let mut bytes = [0; RECORD_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
        for (i, id) in [self.flushed, self.committed, self.purged]
            .into_iter()
            .enumerate()
        {
            if let Some(id) = id {
                bytes[16] |= 1 << i;
                let at = 24 + i * 16;
                bytes[at..at + 8].copy_from_slice(&id.term.to_be_bytes());
                bytes[at + 8..at + 16].copy_from_slice(&id.index.0.to_be_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8; RECORD_LENGTH]) -> Option<(u64, Self)> {
        if bytes[..8] != *MAGIC || bytes[76..] != crc32c::crc32c(&bytes[..76]).to_be_bytes() {
            return None;
        }
        let u64_at = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        let id = |i: usize| {
            let at = 24 + i * 16;
            (bytes[16] & 1 << i != 0).then(|| LogId::new(u64_at(at), u64_at(at + 8)))
        };
        Some((
            u64_at(8),
            Self {
                flushed: id(0),
                committed: id(1),
                purged: id(2),
            },
        ))
    }
}

/// Reads a whole watermarks file the strict way, for an audit: every slot that was ever written is good, and there is
/// nothing beside them. `None` if nothing was ever written. Opening a log is content with what it can read.
pub(crate) fn check_bytes(bytes: &[u8]) -> Result<Option<Watermarks>, Damage> {
    let damage = |offset: usize, reason: &str| Damage {
        path: WATERMARKS_NAME.into(),
        offset: offset as u64,
        reason: reason.to_owned(),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    // The first slot written is the second one.
    let second = SLOT_LENGTH;
    let Some(slots) = bytes.get(..second + RECORD_LENGTH) else {
        return Err(damage(bytes.len(), "the file ends before its second slot"));
    };
    if bytes.len() > slots.len() {
        return Err(damage(slots.len(), "there is something behind the slots"));
    }
    let between = &bytes[RECORD_LENGTH..second];
    if let Some(at) = between.iter().position(|byte| *byte != 0) {
        return Err(damage(
            RECORD_LENGTH + at,
            "there is something between the two slots",
        ));
    }
    let mut newest: Option<(u64, Watermarks)> = None;
    let mut blank = None;
    for (number, at) in [0, second].into_iter().enumerate() {
        let Some(slot) = slots[at..].first_chunk::<RECORD_LENGTH>() else {
            return Err(damage(at, "the slot is cut off"));
        };
        if slot.iter().all(|byte| *byte == 0) {
            blank = Some(at);
            continue;
        }
        let parsed = Watermarks::parse(slot)
            .filter(|(sequence, marks)| marks.encode(*sequence) == *slot)
            .filter(|(sequence, _)| sequence % 2 == number as u64);
        let Some(found) = parsed else {
            return Err(damage(at, "the slot does not hold good watermarks"));
        };
        if newest.is_none_or(|newest| newest.0 < found.0) {
            newest = Some(found);
        }
    }
    match (newest, blank) {
        // The slots are written in turn.
        (Some((2.., _)), Some(at)) => Err(damage(at, "the slot is blank")),
        (newest, _) => Ok(newest.map(|(_, marks)| marks)),
    }
}

/// The open file: two slots, written in turn, so that a torn write leaves the one before.
#[derive(Debug)]
pub struct WatermarksFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    sequence: u64,
    marks: Watermarks,
}

impl WatermarksFile {
    /// Opens or creates the file. Unreadable slots count as never written: the file is advisory.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(WATERMARKS_NAME);
        let existed = disk.exists(&path).context("look for", &path)?;
        let file = disk.open(&path, Open::CREATE).context("open", &path)?;
        if !existed {
            disk.sync_dir(dir).context("sync", dir)?;
        }
        // A killed process leaves marks that are only in the page cache, and a failed sync some that the device does not
        // have. What is believed from here on, and compared with before a write, must be what the device has.
        file.sync_data().context("sync", &path)?;
        file.drop_cache();
        clear_around(&*file, SLOT_LENGTH, RECORD_LENGTH).context("clear", &path)?;
        let mut best = (0, Watermarks::default());
        for slot in 0..2 {
            let mut bytes = [0; RECORD_LENGTH];
            read_full_at(&*file, &mut bytes, slot * SLOT_LENGTH as u64).context("read", &path)?;
            if let Some(found) = Watermarks::parse(&bytes)
                && found.0 >= best.0
            {
                best = found;
            }
        }
        Ok(Self {
            file,
            path,
            sequence: best.0,
            marks: best.1,
        })
    }

    /// What the file says.
    pub fn marks(&self) -> Watermarks {
        self.marks
    }

    /// Writes without a sync, and only if something changed.
    pub fn write(&mut self, marks: Watermarks) -> Result<(), StoreError> {
        if marks == self.marks {
            return Ok(());
        }
        self.sequence += 1;
        let offset = (self.sequence % 2) * SLOT_LENGTH as u64;
        let bytes = marks.encode(self.sequence);
        self.file
            .write_all_at(&bytes, offset)
            .context("write", &self.path)?;
        self.marks = marks;
        Ok(())
    }

    /// Makes everything written durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().context("sync", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim_disk::SimDisk;
    use super::*;

    #[test]
    fn the_newest_readable_slot_counts() {
        let disk = SimDisk::new();
        let dir = Path::new("/");
        let mut file = WatermarksFile::open(&disk, dir).unwrap();
        assert_eq!(file.marks(), Watermarks::default());
        let first = Watermarks {
            flushed: Some(LogId::new(1, 0)),
            ..Watermarks::default()
        };
        let second = Watermarks {
            flushed: Some(LogId::new(2, 9)),
            committed: Some(LogId::new(1, 4)),
            purged: None,
        };
        file.write(first).unwrap();
        file.write(second).unwrap();
        assert_eq!(WatermarksFile::open(&disk, dir).unwrap().marks(), second);
        disk.flip(Path::new("/watermarks"), 30, 1);
        assert_eq!(WatermarksFile::open(&disk, dir).unwrap().marks(), first);
        assert_eq!(second.known(), Some(LogId::new(2, 9)));
    }

    #[test]
    fn what_was_read_survives_a_power_cut() {
        let dir = Path::new("/");
        for seed in 0..20 {
            let disk = SimDisk::new();
            let mut file = WatermarksFile::open(&disk, dir).unwrap();
            for index in 0..3 {
                let flushed = Some(LogId::new(1, index));
                file.write(Watermarks {
                    flushed,
                    ..Watermarks::default()
                })
                .unwrap();
            }
            drop(file);
            let found = WatermarksFile::open(&disk, dir).unwrap().marks();
            assert_eq!(found.flushed, Some(LogId::new(1, 2)));
            let after = WatermarksFile::open(&disk.crash(seed), dir).unwrap();
            assert_eq!(after.marks(), found, "seed {seed}");
        }
    }

    #[test]
    fn what_damage_left_beside_the_slots_is_cleared_by_the_next_start() {
        for at in [RECORD_LENGTH, SLOT_LENGTH - 1, SLOT_LENGTH + RECORD_LENGTH] {
            let disk = SimDisk::new();
            let dir = Path::new("/");
            let mut file = WatermarksFile::open(&disk, dir).unwrap();
            for index in 0..2 {
                file.write(Watermarks {
                    flushed: Some(LogId::new(1, index)),
                    ..Watermarks::default()
                })
                .unwrap();
            }
            let raw = disk
                .open(&dir.join(WATERMARKS_NAME), Open::READ_WRITE)
                .unwrap();
            raw.write_all_at(&[1], at as u64).unwrap();
            let read = || disk.bytes(&dir.join(WATERMARKS_NAME)).unwrap();
            check_bytes(&read()).unwrap_err();
            let marks = WatermarksFile::open(&disk, dir).unwrap().marks();
            assert_eq!(check_bytes(&read()).unwrap(), Some(marks));
            assert_eq!(marks, file.marks());
        }
    }
}
