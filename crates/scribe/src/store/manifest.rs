//! `MANIFEST`: what became of the segments, one record after another. Byte map in `docs/format-log.md`.
//!
//! It decides which segments count as sealed. Nothing in it is the only copy: a record that is lost with the end of
//! the file is written again when its step is repeated, and a file damaged elsewhere is rebuilt from the footers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scribe_proof::hash::Hash;

use super::disk::{Disk, DiskFile, Open};
use super::error::{IoContext, StoreError};
use super::segment::SealedSegment;
use super::walk::Damage;
use crate::limits::MIB;
use crate::planted;

/// Name of the file.
pub const MANIFEST_NAME: &str = "MANIFEST";
const TEMPORARY_NAME: &str = "MANIFEST.new";
const DAMAGED_NAME: &str = "MANIFEST.damaged";
const MAGIC: &[u8; 8] = b"SCRMANI1";
const HEADER_LENGTH: usize = 32;
const RECORD_HEADER_LENGTH: usize = 16;
const FORMAT: u32 = 1;
/// A record is a list of segments at most: some 400 bytes for each. Far beyond what one install can list, and far
/// below what a damaged length may claim.
const RECORD_LENGTH_MAX: usize = 256 * MIB;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestRecord {
    /// A segment is sealed: its footer, its tree hashes and its index entries are durable.
    Sealed(Box<SealedSegment>),
    /// A segment is in the object store, re-read and re-hashed.
    Archived {
        /// Segment number.
        segment: u32,
        /// Generation of its private bytes.
        generation: u32,
        /// SHA-256 of the file as uploaded.
        file_sha256: Hash,
    },
    /// The local file was removed; it is in the object store.
    Evicted {
        /// Segment number.
        segment: u32,
        /// Generation of its private bytes.
        generation: u32,
    },
    /// The local file is back.
    Restored {
        /// Segment number.
        segment: u32,
        /// Generation of its private bytes.
        generation: u32,
    },
    /// Segments sealed elsewhere took the place of every unsealed frame this node had: as good as one
    /// [`ManifestRecord::Sealed`] for each, all at once. Their files are in `log/`, or still in `incoming/` after a crash.
    Installed(Vec<SealedSegment>),
}

impl ManifestRecord {
    fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Sealed(sealed) => (1, sealed.encode_summary().to_vec()),
            Self::Installed(segments) => (5, encode_list(segments)),
            Self::Archived {
                segment,
                generation,
                file_sha256,
            } => {
                let mut payload = pair(*segment, *generation);
                payload.extend_from_slice(&file_sha256.0);
                (2, payload)
            }
            Self::Evicted {
                segment,
                generation,
            } => (3, pair(*segment, *generation)),
            Self::Restored {
                segment,
                generation,
            } => (4, pair(*segment, *generation)),
        };
        let mut bytes = vec![0; RECORD_HEADER_LENGTH];
        bytes[..4].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes[4] = kind;
        bytes[5] = FORMAT as u8;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &payload);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// Parses the record at the start of `bytes`: the record and the bytes it takes; `None` if there is none.
    /// `Err` names the version of a record written by a later release.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, u32> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_LENGTH>() else {
            return Ok(None);
        };
        let u32_at = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = u32_at(0) as usize;
        if length > RECORD_LENGTH_MAX {
            return Ok(None);
        }
        let total = (RECORD_HEADER_LENGTH + length).next_multiple_of(8);
        let Some(payload) = bytes.get(RECORD_HEADER_LENGTH..RECORD_HEADER_LENGTH + length) else {
            return Ok(None);
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), payload);
        if u32_at(12) != crc || bytes.len() < total {
            return Ok(None);
        }
        let version = u32::from(header[5]);
        if version > FORMAT || header[4] > 5 {
            return Err(version.max(FORMAT + 1));
        }
        let numbers = || -> Option<(u32, u32)> {
            let segment = u32::from_be_bytes(payload.get(..4)?.try_into().ok()?);
            Some((
                segment,
                u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?),
            ))
        };
        let parse = || -> Option<Self> {
            match header[4] {
                1 => {
                    let sealed = SealedSegment::parse_summary(payload).ok()?;
                    Some(Self::Sealed(Box::new(sealed)))
                }
                5 => parse_list(payload).map(Self::Installed),
                2 => {
                    let (segment, generation) = numbers()?;
                    let file_sha256 = Hash(payload.get(8..40)?.try_into().ok()?);
                    Some(Self::Archived {
                        segment,
                        generation,
                        file_sha256,
                    })
                }
                3 => numbers().map(|(segment, generation)| Self::Evicted {
                    segment,
                    generation,
                }),
                4 => numbers().map(|(segment, generation)| Self::Restored {
                    segment,
                    generation,
                }),
                _ => None,
            }
        };
        Ok(parse().map(|record| (record, total)))
    }
}

fn pair(segment: u32, generation: u32) -> Vec<u8> {
    [segment.to_be_bytes(), generation.to_be_bytes()].concat()
}

fn encode_list(segments: &[SealedSegment]) -> Vec<u8> {
    let mut out = pair(segments.len() as u32, 0);
    for segment in segments {
        let summary = segment.encode_summary();
        out.extend_from_slice(&pair(summary.len() as u32, 0));
        out.extend_from_slice(&summary);
    }
    out
}

fn parse_list(payload: &[u8]) -> Option<Vec<SealedSegment>> {
    let (count, mut rest) = parse_pair(payload)?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let (length, tail) = parse_pair(rest)?;
        let (summary, tail) = tail.split_at_checked(length as usize)?;
        segments.push(SealedSegment::parse_summary(summary).ok()?);
        rest = tail;
    }
    rest.is_empty().then_some(segments)
}

/// A number and four reserved bytes, and what follows them.
fn parse_pair(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [a, b, c, d, 0, 0, 0, 0] = *head else {
        return None;
    };
    Some((u32::from_be_bytes([a, b, c, d]), rest))
}

fn encode_header(cluster_id: [u8; 16]) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&cluster_id);
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads a whole MANIFEST the strict way, for an audit: every byte is what its records encode to, up to the last one.
/// Opening a log cuts a bad record at the end, and rebuilds the file if there is one elsewhere.
pub(crate) fn check_bytes(
    bytes: &[u8],
    cluster_id: [u8; 16],
) -> Result<Vec<ManifestRecord>, Damage> {
    let damage = |offset: usize, reason: String| Damage {
        path: MANIFEST_NAME.into(),
        offset: offset as u64,
        reason,
    };
    let header = encode_header(cluster_id);
    if bytes.get(..HEADER_LENGTH) != Some(&header) {
        let good = bytes.iter().zip(&header).take_while(|(a, b)| a == b);
        return Err(damage(
            good.count(),
            "the header is not that of this ledger".to_owned(),
        ));
    }
    let mut records = Vec::new();
    let mut at = HEADER_LENGTH;
    while at < bytes.len() {
        let number = records.len();
        match ManifestRecord::parse(&bytes[at..]) {
            Ok(Some((record, length))) => {
                let encoded = record.encode();
                let stored = &bytes[at..at + length];
                if encoded != stored {
                    let good = encoded.iter().zip(stored).take_while(|(a, b)| a == b);
                    let reason = format!("record {number} has bytes it must not have");
                    return Err(damage(at + good.count(), reason));
                }
                records.push(record);
                at += length;
            }
            Ok(None) => return Err(damage(at, format!("record {number} is damaged"))),
            Err(version) => {
                let reason = format!("record {number} is of version {version}, allowed {FORMAT}");
                return Err(damage(at, reason));
            }
        }
    }
    Ok(records)
}

/// What opening the file found.
#[derive(Debug)]
pub(crate) enum Replay {
    /// All records up to the end, or up to a torn last one, which was cut.
    Good {
        records: Vec<ManifestRecord>,
        cut_bytes: u64,
    },
    /// There is no file, or its header never reached the disk.
    Missing,
    /// Something before the end is damaged.
    Damaged { offset: u64 },
}

/// The open file.
#[derive(Debug)]
pub struct ManifestFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    length: u64,
}

impl ManifestFile {
    /// Reads the file. A torn last record is cut; nothing else is changed.
    pub(crate) fn replay(
        disk: &dyn Disk,
        dir: &Path,
        cluster_id: [u8; 16],
    ) -> Result<(Option<Self>, Replay), StoreError> {
        let path = dir.join(MANIFEST_NAME);
        if !disk.exists(&path).context("look for", &path)? {
            return Ok((None, Replay::Missing));
        }
        let file = disk.open(&path, Open::READ_WRITE).context("open", &path)?;
        let mut bytes = vec![0; file.len().context("read", &path)? as usize];
        file.read_exact_at(&mut bytes, 0).context("read", &path)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok((None, Replay::Missing));
        }
        if bytes.len() >= 8 && bytes[..7] == MAGIC[..7] && (b'2'..=b'9').contains(&bytes[7]) {
            let found = u32::from(bytes[7] - b'0');
            return Err(StoreError::NewerFormat {
                path,
                found,
                supported: FORMAT,
            });
        }
        if bytes.get(..HEADER_LENGTH) != Some(&encode_header(cluster_id)) {
            return Ok((None, Replay::Damaged { offset: 0 }));
        }
        let mut records = Vec::new();
        let mut at = HEADER_LENGTH;
        let parse = |at: usize| {
            ManifestRecord::parse(bytes.get(at..).unwrap_or_default()).map_err(|found| {
                StoreError::NewerFormat {
                    path: path.clone(),
                    found,
                    supported: FORMAT,
                }
            })
        };
        let mut last = at..at;
        while let Some((record, length)) = parse(at)? {
            records.push(record);
            last = at..at + length;
            at += length;
        }
        for later in (at + 8..bytes.len()).step_by(8) {
            if parse(later)?.is_some() {
                return Ok((None, Replay::Damaged { offset: at as u64 }));
            }
        }
        let cut_bytes = (bytes.len() - at) as u64;
        if cut_bytes > 0 {
            // A crash here leaves the torn record or nothing of it; both are cut again.
            file.set_len(at as u64).context("cut", &path)?;
        }
        // Records read from the cache become durable before anything is built on them. The last one is written again: a
        // process before this one may have ended because its sync had failed, and then the system takes what is in its
        // cache for written, and a sync alone writes nothing. The same bytes: a crash here changes none.
        file.write_all_at(
            bytes.get(last.clone()).unwrap_or_default(),
            last.start as u64,
        )
        .context("write", &path)?;
        file.sync_all().context("sync", &path)?;
        let manifest = Self {
            file,
            path,
            length: at as u64,
        };
        Ok((Some(manifest), Replay::Good { records, cut_bytes }))
    }

    /// Writes a new file with these records and puts it in the place of the old one, which is kept beside it if it was
    /// damaged.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        cluster_id: [u8; 16],
        records: &[ManifestRecord],
        keep_old: bool,
    ) -> Result<Self, StoreError> {
        let path = dir.join(MANIFEST_NAME);
        let temporary = dir.join(TEMPORARY_NAME);
        if disk.exists(&temporary).context("look for", &temporary)? {
            disk.remove(&temporary).context("remove", &temporary)?;
        }
        let file = disk
            .open(&temporary, Open::CREATE_NEW)
            .context("create", &temporary)?;
        let mut bytes = encode_header(cluster_id).to_vec();
        records
            .iter()
            .for_each(|record| bytes.extend_from_slice(&record.encode()));
        file.write_all_at(&bytes, 0).context("write", &temporary)?;
        file.sync_all().context("sync", &temporary)?;
        if keep_old {
            // A crash here leaves no MANIFEST: it is rebuilt from the footers again.
            disk.rename(&path, &dir.join(DAMAGED_NAME))
                .context("rename", &path)?;
        }
        disk.rename(&temporary, &path)
            .context("rename", &temporary)?;
        disk.sync_dir(dir).context("sync", dir)?;
        Ok(Self {
            file,
            path,
            length: bytes.len() as u64,
        })
    }

    /// Appends a record; durable when this returns.
    pub fn append(&mut self, record: &ManifestRecord) -> Result<(), StoreError> {
        let bytes = record.encode();
        if bytes.len() > RECORD_LENGTH_MAX {
            let reason = format!(
                "a record has {} bytes, allowed {RECORD_LENGTH_MAX}",
                bytes.len()
            );
            let error = io::Error::new(io::ErrorKind::InvalidInput, reason);
            return Err(error).context("append to", &self.path);
        }
        // A crash before the sync leaves a torn last record: it is cut, and the step it stands for is repeated.
        self.file
            .write_all_at(&bytes, self.length)
            .context("write", &self.path)?;
        // planted
        if !planted::has("manifest-not-synced") {
            self.file.sync_data().context("sync", &self.path)?;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use scribe_proof::index::TreeSize;

    use super::super::frame::{LogId, LogIndex};
    use super::super::segment::FooterState;
    use super::super::sim_disk::{DiskFault, DiskOperation, SimDisk};
    use super::*;

    const DIR: &str = "/";

    fn records() -> Vec<ManifestRecord> {
        vec![
            ManifestRecord::Archived {
                segment: 1,
                generation: 0,
                file_sha256: Hash([5; 32]),
            },
            ManifestRecord::Evicted {
                segment: 1,
                generation: 0,
            },
            ManifestRecord::Restored {
                segment: 1,
                generation: 2,
            },
        ]
    }

    fn written() -> SimDisk {
        let disk = SimDisk::new();
        let dir = Path::new(DIR);
        let mut file = ManifestFile::create(&disk, dir, [1; 16], &[], false).unwrap();
        records()
            .iter()
            .for_each(|record| file.append(record).unwrap());
        disk
    }

    fn replay(disk: &SimDisk) -> Replay {
        ManifestFile::replay(disk, Path::new(DIR), [1; 16])
            .unwrap()
            .1
    }

    #[test]
    fn a_record_whose_sync_failed_is_durable_once_the_next_process_has_read_it() {
        let disk = SimDisk::new();
        let dir = Path::new(DIR);
        let mut file = ManifestFile::create(&disk, dir, [1; 16], &[], false).unwrap();
        let records = records();
        file.append(&records[0]).unwrap();
        disk.fail(&[DiskOperation::Sync], 0, DiskFault::Io);
        file.append(&records[1]).unwrap_err();
        // The process ends, and the next one finds the record in the system's cache.
        let disk = disk.kill();
        let (file, _) = ManifestFile::replay(&disk, dir, [1; 16]).unwrap();
        file.unwrap().append(&records[2]).unwrap();
        for seed in 0..20 {
            let Replay::Good { records: found, .. } = replay(&disk.crash(seed)) else {
                panic!("seed {seed}")
            };
            assert_eq!(found, records, "seed {seed}");
        }
    }

    #[test]
    fn records_are_read_back() {
        let Replay::Good {
            records: found,
            cut_bytes: 0,
        } = replay(&written())
        else {
            panic!()
        };
        assert_eq!(found, records());
    }

    fn installed(number: u32) -> SealedSegment {
        let mut sealed = SealedSegment {
            number,
            generation: 0,
            first_log_index: LogIndex(u64::from(number) * 10),
            last_log_id: LogId::new(3, u64::from(number) * 10 + 9),
            last_chain: 0xdead_beef,
            frame_count: 10,
            body_length: 4_096,
            file_length: 4_096,
            body_sha256: Hash([9; 32]),
            cluster_id: [1; 16],
            footer: FooterState {
                start_size: TreeSize::new(100),
                start_root: Hash([1; 32]),
                end_size: TreeSize::new(900),
                end_root: Hash([2; 32]),
                last_log_id: LogId::new(3, u64::from(number) * 10 + 9),
                membership: Bytes::from_static(b"members"),
                last_timestamp_ms: 1_234,
                published: (TreeSize::new(50), Hash([3; 32])),
            },
            sparse: Arc::default(),
        };
        sealed.file_length += 280;
        sealed
    }

    #[test]
    fn the_bytes_of_an_installed_record_stay_what_they_are() {
        let record = ManifestRecord::Installed(vec![installed(0), installed(1)]);
        let bytes = record.encode();
        // Header; count; per segment its length, the length of its file, and its footer of 240 + 8 + 16 bytes.
        assert_eq!(bytes.len(), 16 + 8 + 2 * (8 + 8 + 264));
        let head = [0, 0, 2, 56, 5, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..12], head);
        assert_eq!(bytes[16..24], [0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(
            bytes[24..40],
            [0, 0, 1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 24]
        );
        assert_eq!(&bytes[40..48], b"SCRFOOT1");
        assert_eq!(
            scribe_proof::hash::sha256(&bytes).to_hex(),
            "340ee5714ae530a640f18d310eb94384f9c3a4abb3f677914682a2c774042699"
        );
        let length = bytes.len();
        assert_eq!(ManifestRecord::parse(&bytes), Ok(Some((record, length))));
        for at in 0..length {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(
                !matches!(ManifestRecord::parse(&changed), Ok(Some(_))),
                "byte {at}"
            );
            assert_eq!(ManifestRecord::parse(&bytes[..at]), Ok(None), "cut at {at}");
        }
    }

    #[test]
    fn a_torn_end_is_cut_and_damage_before_it_is_not() {
        let length = written().bytes(Path::new("/MANIFEST")).unwrap().len();
        for at in HEADER_LENGTH..length {
            let disk = written();
            disk.flip(Path::new("/MANIFEST"), at as u64, 0x40);
            match replay(&disk) {
                Replay::Good {
                    records: found,
                    cut_bytes,
                } => {
                    assert!(at + 24 >= length, "byte {at}");
                    assert_eq!((found.len(), cut_bytes), (2, 24));
                    assert!(matches!(replay(&disk), Replay::Good { cut_bytes: 0, .. }));
                }
                other => assert!(at + 24 < length, "byte {at}: {other:?}"),
            }
        }
    }
}
