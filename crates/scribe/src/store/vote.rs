//! `vote`: what this node promised in elections, and whose data this is. Byte map in `docs/format-log.md`.
//!
//! Two slots, 4 KiB apart, hold the same vote; a vote is acknowledged after one and then the other was written and
//! synced. Whatever a crash does to the slot being written, the other holds the last acknowledged vote; and whichever
//! slot rots, no acknowledged vote is forgotten: a node that forgets a vote can elect two leaders in one term.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, Open, read_full_at};
use super::error::{IoContext, StoreError};
use super::frame::Vote;
use super::log::LogIdentity;
use super::slots::clear_around;
use super::walk::Damage;
use crate::planted;

/// Name of the file.
pub const VOTE_NAME: &str = "vote";
/// Distance of the two slots, bytes.
pub const SLOT_LENGTH: usize = 4_096;
/// Bytes used of each slot.
const RECORD_LENGTH: usize = 64;
const MAGIC: &[u8; 8] = b"SCRVOTE1";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    sequence: u64,
    identity: LogIdentity,
    vote: Option<Vote>,
}

enum Slot {
    Blank,
    Valid(Record),
    Newer(u32),
    Damaged,
}

/// The open vote file.
#[derive(Debug)]
pub struct VoteFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    record: Record,
}

impl Record {
    fn encode(&self) -> [u8; RECORD_LENGTH] {
        let mut bytes = [0; RECORD_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.identity.cluster_id);
        bytes[32..40].copy_from_slice(&self.identity.node_id.to_be_bytes());
        if let Some(vote) = self.vote {
            bytes[40..48].copy_from_slice(&vote.term.to_be_bytes());
            bytes[48..56].copy_from_slice(&vote.node_id.to_be_bytes());
            bytes[56] = 1;
            bytes[57] = u8::from(vote.committed);
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Slot {
        if bytes.iter().all(|byte| *byte == 0) {
            return Slot::Blank;
        }
        let Some(bytes) = bytes.first_chunk::<RECORD_LENGTH>() else {
            return Slot::Damaged;
        };
        if bytes[..7] == MAGIC[..7] && (b'2'..=b'9').contains(&bytes[7]) {
            return Slot::Newer(u32::from(bytes[7] - b'0'));
        }
        let u64_at = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        let crc = crc32c::crc32c(&bytes[..60]).to_be_bytes();
        if bytes[..8] != *MAGIC || bytes[60..] != crc || bytes[56] > 1 || bytes[57] > 1 {
            return Slot::Damaged;
        }
        let mut cluster_id = [0; 16];
        cluster_id.copy_from_slice(&bytes[16..32]);
        Slot::Valid(Self {
            sequence: u64_at(8),
            identity: LogIdentity {
                cluster_id,
                node_id: u64_at(32),
            },
            vote: (bytes[56] == 1).then(|| Vote {
                term: u64_at(40),
                node_id: u64_at(48),
                committed: bytes[57] == 1,
            }),
        })
    }
}

impl VoteFile {
    /// Writes a vote file without a vote. Its name is durable when this returns.
    pub fn create(disk: &dyn Disk, dir: &Path, identity: LogIdentity) -> Result<Self, StoreError> {
        let path = dir.join(VOTE_NAME);
        let file = disk.open(&path, Open::CREATE).context("create", &path)?;
        let record = Record {
            sequence: 0,
            identity,
            vote: None,
        };
        let mut vote = Self { file, path, record };
        // A crash before the last sync leaves no file, or one without a vote: the next open starts over.
        vote.write(record)?;
        vote.file.sync_all().context("sync", &vote.path)?;
        disk.sync_dir(dir).context("sync", dir)?;
        Ok(vote)
    }

    /// Opens the vote file; `None` if there is none, or one that never held anything.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(VOTE_NAME);
        if !disk.exists(&path).context("look for", &path)? {
            return Ok(None);
        }
        let file = disk.open(&path, Open::READ_WRITE).context("open", &path)?;
        let mut slots = Vec::with_capacity(2);
        for slot in 0..2 {
            let mut bytes = vec![0; RECORD_LENGTH];
            read_full_at(&*file, &mut bytes, (slot * SLOT_LENGTH) as u64).context("read", &path)?;
            slots.push(Record::parse(&bytes));
        }
        let mut best: Option<Record> = None;
        let (mut blank, mut newer) = (0, None);
        for slot in &slots {
            match slot {
                Slot::Blank => blank += 1,
                Slot::Newer(found) => newer = Some(*found),
                Slot::Damaged => {}
                Slot::Valid(record) => {
                    if best.is_none_or(|best| best.sequence < record.sequence) {
                        best = Some(*record);
                    }
                }
            }
        }
        // Beside a good slot, one that says it is of a newer format is damaged, or was never acknowledged: a vote counts
        // when it is in both.
        let Some(record) = best else {
            if blank == 2 {
                return Ok(None);
            }
            if let Some(found) = newer {
                return Err(StoreError::NewerFormat {
                    path,
                    found,
                    supported: FORMAT,
                });
            }
            return Err(StoreError::damaged(
                &path,
                0,
                "neither of the two slots is valid",
            ));
        };
        let mut vote = Self { file, path, record };
        // What was read may so far be in the cache only, or in one slot only: both are made good before it counts. They
        // are written, not just synced: a process before this one may have ended because a sync had failed, and then the
        // system takes what is in its cache for written. Where both are the same one of them was synced; that case is not
        // told apart, for two syncs at the start.
        vote.write(record)?;
        clear_around(&*vote.file, SLOT_LENGTH, RECORD_LENGTH).context("clear", &vote.path)?;
        Ok(Some(vote))
    }

    /// Whose data this is.
    pub fn identity(&self) -> LogIdentity {
        self.record.identity
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Vote> {
        self.record.vote
    }

    /// Saves a vote; durable in both slots when this returns.
    pub fn save(&mut self, vote: Vote) -> Result<(), StoreError> {
        let sequence = self.record.sequence + 1;
        self.write(Record {
            sequence,
            vote: Some(vote),
            ..self.record
        })
    }

    fn write(&mut self, record: Record) -> Result<(), StoreError> {
        let bytes = record.encode();
        for slot in 0..2 {
            // A crash here leaves the vote in the slots before this one, the last acknowledged vote in the others.
            let offset = (slot * SLOT_LENGTH) as u64;
            self.file
                .write_all_at(&bytes, offset)
                .context("write", &self.path)?;
            // planted
            if !planted::has("vote-not-synced") {
                self.file.sync_data().context("sync", &self.path)?;
            }
        }
        self.record = record;
        Ok(())
    }
}

/// Reads a whole vote file the strict way, for an audit: both slots are good and of one node, and there is nothing
/// beside them. Opening a log is content with one good slot.
pub(crate) fn check_bytes(bytes: &[u8]) -> Result<(LogIdentity, Option<Vote>), Damage> {
    let damage = |offset: usize, reason: String| Damage {
        path: VOTE_NAME.into(),
        offset: offset as u64,
        reason,
    };
    let length = SLOT_LENGTH + RECORD_LENGTH;
    if bytes.len() != length {
        let reason = format!("the file has {} bytes, must have {length}", bytes.len());
        return Err(damage(bytes.len().min(length), reason));
    }
    let between = &bytes[RECORD_LENGTH..SLOT_LENGTH];
    if let Some(at) = between.iter().position(|byte| *byte != 0) {
        return Err(damage(
            RECORD_LENGTH + at,
            "there is something between the two slots".into(),
        ));
    }
    let mut newest: Option<Record> = None;
    for at in [0, SLOT_LENGTH] {
        let slot = &bytes[at..at + RECORD_LENGTH];
        let record = match Record::parse(slot) {
            Slot::Valid(record) if record.encode()[..] == *slot => record,
            _ => return Err(damage(at, "the slot does not hold a good vote".into())),
        };
        if newest.is_some_and(|other| other.identity != record.identity) {
            return Err(damage(at, "the two slots are of two nodes".into()));
        }
        if newest.is_none_or(|other| other.sequence < record.sequence) {
            newest = Some(record);
        }
    }
    match newest {
        Some(record) => Ok((record.identity, record.vote)),
        None => Err(damage(0, "there is no good slot".into())),
    }
}

/// Whose data is in this directory; `None` if it holds none.
pub fn read_identity(disk: &dyn Disk, dir: &Path) -> Result<Option<LogIdentity>, StoreError> {
    let path = dir.join(VOTE_NAME);
    if !disk.exists(&path).context("look for", &path)? {
        return Ok(None);
    }
    let file = disk.open(&path, Open::READ).context("open", &path)?;
    let mut newer = None;
    for slot in 0..2 {
        let mut bytes = vec![0; RECORD_LENGTH];
        read_full_at(&*file, &mut bytes, (slot * SLOT_LENGTH) as u64).context("read", &path)?;
        match Record::parse(&bytes) {
            Slot::Valid(record) => return Ok(Some(record.identity)),
            Slot::Newer(found) => newer = Some(found),
            Slot::Blank | Slot::Damaged => {}
        }
    }
    match newer {
        Some(found) => Err(StoreError::NewerFormat {
            path,
            found,
            supported: FORMAT,
        }),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim_disk::{DiskFault, DiskOperation, SimDisk};
    use super::*;

    const ID: LogIdentity = LogIdentity {
        cluster_id: [3; 16],
        node_id: 7,
    };

    fn vote(term: u64) -> Vote {
        Vote {
            term,
            node_id: 7,
            committed: term.is_multiple_of(2),
        }
    }

    #[test]
    fn a_rotten_slot_forgets_no_vote() {
        for slot in [0, SLOT_LENGTH as u64] {
            let disk = SimDisk::new();
            let dir = Path::new("/");
            let mut file = VoteFile::create(&disk, dir, ID).unwrap();
            file.save(vote(1)).unwrap();
            file.save(vote(2)).unwrap();
            assert!(disk.flip(Path::new("/vote"), slot + 45, 1));
            let file = VoteFile::open(&disk, dir).unwrap().unwrap();
            assert_eq!(file.vote(), Some(vote(2)));
            assert!(disk.flip(Path::new("/vote"), SLOT_LENGTH as u64 - slot + 45, 1));
            assert_eq!(
                VoteFile::open(&disk, dir).unwrap().unwrap().vote(),
                Some(vote(2))
            );
            assert_eq!(read_identity(&disk, dir).unwrap(), Some(ID));
        }
    }

    #[test]
    fn a_vote_whose_sync_failed_is_durable_once_the_next_process_has_read_it() {
        for slot in 0..2 {
            let disk = SimDisk::new();
            let dir = Path::new("/");
            let mut file = VoteFile::create(&disk, dir, ID).unwrap();
            file.save(vote(1)).unwrap();
            disk.fail(&[DiskOperation::Sync], slot, DiskFault::Io);
            file.save(vote(2)).unwrap_err();
            // The process ends, and the next one finds the vote in the system's cache.
            let disk = disk.kill();
            let file = VoteFile::open(&disk, dir).unwrap().unwrap();
            assert_eq!(file.vote(), Some(vote(2)));
            for seed in 0..20 {
                let disk = disk.crash(seed);
                let file = VoteFile::open(&disk, dir).unwrap().unwrap();
                assert_eq!(file.vote(), Some(vote(2)), "slot {slot}, seed {seed}");
            }
        }
    }

    #[test]
    fn two_rotten_slots_are_refused() {
        let disk = SimDisk::new();
        VoteFile::create(&disk, Path::new("/"), ID).unwrap();
        disk.flip(Path::new("/vote"), 1, 1);
        disk.flip(Path::new("/vote"), SLOT_LENGTH as u64 + 9, 1);
        let error = VoteFile::open(&disk, Path::new("/")).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_newer_format_is_named() {
        let disk = SimDisk::new();
        VoteFile::create(&disk, Path::new("/"), ID).unwrap();
        disk.flip(Path::new("/vote"), 7, b'1' ^ b'3');
        disk.flip(Path::new("/vote"), SLOT_LENGTH as u64 + 7, b'1' ^ b'3');
        let error = VoteFile::open(&disk, Path::new("/")).unwrap_err();
        assert!(
            matches!(error, StoreError::NewerFormat { found: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn one_slot_that_looks_newer_is_damage_like_any_other() {
        for slot in [0, SLOT_LENGTH as u64] {
            let disk = SimDisk::new();
            let mut file = VoteFile::create(&disk, Path::new("/"), ID).unwrap();
            file.save(vote(4)).unwrap();
            disk.flip(Path::new("/vote"), slot + 7, b'1' ^ b'3');
            assert_eq!(read_identity(&disk, Path::new("/")).unwrap(), Some(ID));
            let file = VoteFile::open(&disk, Path::new("/")).unwrap().unwrap();
            assert_eq!(file.vote(), Some(vote(4)));
        }
    }

    #[test]
    fn what_damage_left_beside_the_slots_is_cleared_by_the_next_start() {
        for at in [RECORD_LENGTH, SLOT_LENGTH - 1, SLOT_LENGTH + RECORD_LENGTH] {
            let disk = SimDisk::new();
            let dir = Path::new("/");
            let mut file = VoteFile::create(&disk, dir, ID).unwrap();
            file.save(vote(4)).unwrap();
            let raw = disk.open(&dir.join(VOTE_NAME), Open::READ_WRITE).unwrap();
            raw.write_all_at(&[1], at as u64).unwrap();
            let read = || disk.bytes(&dir.join(VOTE_NAME)).unwrap();
            check_bytes(&read()).unwrap_err();
            assert_eq!(
                VoteFile::open(&disk, dir).unwrap().unwrap().vote(),
                Some(vote(4))
            );
            assert_eq!(check_bytes(&read()).unwrap(), (ID, Some(vote(4))));
        }
    }
}
