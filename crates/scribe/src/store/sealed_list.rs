//! Which segments of a log are sealed: what the MANIFEST says, compared with the footers of the files; or the footers alone
//! where it is missing or damaged.
//!
//! Looks at no frame but to hash the body in front of a footer that nothing else vouches for.

use std::path::Path;

use scribe_proof::hash::Hash;
use sha2::{Digest, Sha256};

use super::disk::{Disk, Open};
use super::error::{IoContext, StoreError};
use super::frame::{LogId, LogIndex};
use super::log::SealedDamage;
use super::manifest::{MANIFEST_NAME, ManifestFile, ManifestRecord, Replay};
use super::recovery::LOG_DIR;
use super::scan::Scanner;
use super::segment::{
    SEGMENT_FORMAT, SealedSegment, SegmentError, TRAILER_LENGTH, file_path, parse_trailer,
};
use super::state::show;
use super::switch::name_installed;
use crate::limits::MIB;

/// The sealed segments: from the MANIFEST, or from the footers if it is missing or damaged.
///
/// What was purged from the log was sealed before, and its record was durable: a MANIFEST that ends earlier did not lose
/// its end to a crash but to damage, however much the cut looks like that of a torn record.
pub(super) fn open_manifest(
    disk: &dyn Disk,
    dir: &Path,
    cluster_id: [u8; 16],
    segments: &[LogIndex],
    purged: Option<LogId>,
    damage: &mut Vec<SealedDamage>,
    warnings: &mut Vec<String>,
) -> Result<(ManifestFile, Vec<SealedSegment>), StoreError> {
    let log_dir = dir.join(LOG_DIR);
    let (file, replay) = ManifestFile::replay(disk, dir, cluster_id)?;
    let damaged = match replay {
        Replay::Good { records, cut_bytes } => {
            if cut_bytes > 0 {
                warnings.push(format!(
                    "MANIFEST: a torn last record of {cut_bytes} bytes was cut"
                ));
            }
            match file {
                Some(file) => {
                    let sealed = replay_sealed(disk, dir, records, damage)?;
                    if has_all_purged(&sealed, purged) {
                        return Ok((file, sealed));
                    }
                    warnings.push(format!(
                        "MANIFEST: it ends before {}, up to which the log was purged: rebuilt from the footers",
                        show(purged)
                    ));
                    damage.clear();
                    true
                }
                None => false,
            }
        }
        Replay::Missing => false,
        Replay::Damaged { offset } => {
            warnings.push(format!(
                "MANIFEST: damaged at byte {offset}, rebuilt from the footers"
            ));
            true
        }
    };
    let mut sealed: Vec<SealedSegment> = Vec::new();
    for (place, first) in segments.iter().enumerate() {
        let path = file_path(&log_dir, *first);
        let Ok(found) = read_footer(disk, &path)? else {
            break;
        };
        // A segment this node sealed is never the last one: the segment behind it was durable before its footer was
        // written. One that was installed may be, and then its body says whether this is its footer, or the end of an
        // open segment whose last value looks like one.
        if place + 1 == segments.len() && !body_matches(disk, &path, &found)? {
            break;
        }
        let expected = sealed.last().map(|last| last.last_log_id.index.next());
        let follows = expected.unwrap_or(*first) == found.first_log_index
            && found.number as usize == sealed.len();
        if found.cluster_id != cluster_id || found.first_log_index != *first || !follows {
            break;
        }
        sealed.push(found);
    }
    if !has_all_purged(&sealed, purged) {
        let reason = format!(
            "the log was purged up to {}, but MANIFEST and the footers of the segments vouch for no more than {}",
            show(purged),
            show(sealed.last().map(|last| last.last_log_id))
        );
        let path = dir.join(super::manifest::MANIFEST_NAME);
        return Err(StoreError::damaged(&path, 0, reason));
    }
    let records: Vec<ManifestRecord> = sealed
        .iter()
        .cloned()
        .map(|s| ManifestRecord::Sealed(Box::new(s)))
        .collect();
    let file = ManifestFile::create(disk, dir, cluster_id, &records, damaged)?;
    Ok((file, sealed))
}

/// Whether these segments have everything that was purged from the log.
fn has_all_purged(sealed: &[SealedSegment], purged: Option<LogId>) -> bool {
    let end = sealed.last().map(|last| last.last_log_id.index);
    purged.map(|purged| purged.index) <= end
}

fn replay_sealed(
    disk: &dyn Disk,
    dir: &Path,
    records: Vec<ManifestRecord>,
    damage: &mut Vec<SealedDamage>,
) -> Result<Vec<SealedSegment>, StoreError> {
    let log_dir = dir.join(LOG_DIR);
    let mut sealed: Vec<SealedSegment> = Vec::new();
    let mut evicted = std::collections::BTreeSet::new();
    let mut installed = Vec::new();
    for record in records {
        let found = match record {
            ManifestRecord::Sealed(found) => vec![*found],
            ManifestRecord::Installed(found) => {
                if let (Some(first), Some(last)) = (found.first(), found.last()) {
                    installed.push((first.first_log_index, last.last_log_id.index));
                }
                found
            }
            ManifestRecord::Evicted { segment, .. } => {
                evicted.insert(segment);
                continue;
            }
            ManifestRecord::Restored { segment, .. } => {
                evicted.remove(&segment);
                continue;
            }
            ManifestRecord::Archived { .. } => continue,
        };
        for found in found {
            let next = sealed
                .last()
                .map(|last| (last.number + 1, last.last_log_id.index.next()));
            if next.is_some_and(|next| next != (found.number, found.first_log_index)) {
                let path = dir.join(MANIFEST_NAME);
                let reason = format!("segment {} does not follow the one before", found.number);
                return Err(StoreError::damaged(&path, 0, reason));
            }
            sealed.push(found);
        }
    }
    // A crash between the record of an install and the last of its renames is made good here.
    name_installed(disk, dir, &sealed, &installed)?;
    for known in sealed
        .iter_mut()
        .filter(|sealed| !evicted.contains(&sealed.number))
    {
        let path = file_path(&log_dir, known.first_log_index);
        // The MANIFEST vouches for the segment, so a bad file is no reason not to start: it is fetched again by hash.
        // It is in a format this release reads, or the MANIFEST's record would not be: one that says otherwise is damaged.
        let reason = match read_footer(disk, &path).or_else(footer_of_a_newer_release)? {
            Ok(found) => {
                let same = SealedSegment {
                    sparse: known.sparse.clone(),
                    ..found.clone()
                } == *known;
                if same {
                    known.sparse = found.sparse;
                    continue;
                }
                "the footer is not the one in the MANIFEST".to_owned()
            }
            Err(reason) => reason,
        };
        damage.push(SealedDamage {
            segment: known.number,
            reason,
        });
    }
    Ok(sealed)
}

fn footer_of_a_newer_release(
    error: StoreError,
) -> Result<Result<SealedSegment, String>, StoreError> {
    match error {
        StoreError::NewerFormat { .. } => {
            Ok(Err("the footer says it is of a later release".into()))
        }
        other => Err(other),
    }
}

/// The footer at the end of a segment file; the inner error says why it cannot be read.
pub(super) fn read_footer(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Result<SealedSegment, String>, StoreError> {
    if !disk.exists(path).context("look for", path)? {
        return Ok(Err("the file is missing".into()));
    }
    let file = disk.open(path, Open::READ).context("open", path)?;
    let length = file.len().context("read", path)?;
    let mut trailer = [0; TRAILER_LENGTH];
    let Some(trailer_at) = length.checked_sub(TRAILER_LENGTH as u64) else {
        return Ok(Err(format!("the file has {length} bytes")));
    };
    file.read_exact_at(&mut trailer, trailer_at)
        .context("read", path)?;
    let footer_length = match parse_trailer(&trailer) {
        Ok(footer_length) => footer_length,
        Err(error) => return newer_or(path, error),
    };
    let Some(start) = length.checked_sub(footer_length as u64) else {
        return Ok(Err(format!(
            "the footer declares {footer_length} bytes, the file has {length}"
        )));
    };
    let mut footer = vec![0; footer_length];
    file.read_exact_at(&mut footer, start)
        .context("read", path)?;
    match SealedSegment::parse_footer(&footer) {
        Ok(sealed) if sealed.file_length == length => Ok(Ok(sealed)),
        Ok(sealed) => Ok(Err(format!(
            "the file has {length} bytes, its footer says {}",
            sealed.file_length
        ))),
        Err(error) => newer_or(path, error),
    }
}

/// Whether the body in front of a footer is the one it was written for.
fn body_matches(disk: &dyn Disk, path: &Path, footer: &SealedSegment) -> Result<bool, StoreError> {
    let file = disk.open(path, Open::READ).context("open", path)?;
    let mut scanner = Scanner::new(&*file, footer.body_length);
    let mut sha = Sha256::new();
    let mut at = 0;
    while at < footer.body_length {
        let piece = scanner.bytes(at, MIB).context("read", path)?;
        if piece.is_empty() {
            return Ok(false);
        }
        sha.update(&piece);
        at += piece.len() as u64;
    }
    Ok(Hash(sha.finalize().into()) == footer.body_sha256)
}

fn newer_or<T>(path: &Path, error: SegmentError) -> Result<Result<T, String>, StoreError> {
    match error {
        SegmentError::Newer { found } => Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            found,
            supported: SEGMENT_FORMAT,
        }),
        other => Ok(Err(other.to_string())),
    }
}
