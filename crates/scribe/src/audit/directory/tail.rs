//! Frames behind the sealed segments, one after the other; what lies behind the last of them; and whether the log is as
//! long as it is known to be.

use std::path::Path;

use scribe_proof::hash::Hash;

use super::derived::TreeReader;
use super::files::Inventory;
use super::frames::{Frames, locate};
use super::segment::{FrameRules, expect_header, open_file, read_header};
use super::{Ledger, files};
use crate::audit::entries::EntryRules;
use crate::audit::{AuditError, Finding};
use crate::store::frame::{FrameError, LogIndex};
use crate::store::segment::{SEGMENT_HEADER_LENGTH, SegmentHeader, file_name};

/// Takes in every frame behind the sealed segments.
pub(super) fn audit(
    directory: &Path,
    inventory: &Inventory,
    tree: &mut TreeReader,
    ledger: &mut Ledger,
    read: &dyn Fn(u64),
) -> Result<(), AuditError> {
    let mut number = inventory.sealed.len() as u32;
    let mut next = inventory
        .sealed
        .last()
        .map_or(LogIndex(0), |last| last.last_log_id.index.next());
    for (at, first) in inventory.open.iter().enumerate() {
        let name = format!("log/{}", file_name(*first));
        if *first != next {
            let reason = format!("the frames before it end at log index {next}");
            return Err(Finding::new(name, reason)
                .entry(ledger.builder.size().get())
                .into());
        }
        let wanted = SegmentHeader {
            number,
            first_log_index: *first,
            cluster_id: inventory.cluster_id,
            previous_chain: ledger.previous.map_or(0, |(_, chain)| chain),
        };
        let behind = inventory.open.get(at + 1).copied();
        let path = directory.join(&name);
        let end = segment(&path, &name, &wanted, behind, tree, ledger)?;
        read(end);
        read(files::blank(&path, &name, end)?);
        if let Some((last, _)) = ledger.previous {
            next = last.index.next();
        }
        number += 1;
    }
    let last = ledger.previous.map(|(last, _)| last);
    let Some(marks) = inventory.watermarks else {
        return match last {
            None => Ok(()),
            Some(_) => Err(
                Finding::new("watermarks", "nothing says how long the log is")
                    .at(0)
                    .into(),
            ),
        };
    };
    match marks.known() {
        // A file that is missing at the end of the log shows only here.
        Some(known) if last.is_none_or(|last| last.index < known.index) => Err(Finding::new(
            last_file(inventory, next),
            format!(
                "the log ends at {}, it was known to be on disk up to {known}",
                last.map_or("nothing".to_owned(), |last| last.to_string())
            ),
        )
        .entry(ledger.builder.size().get())
        .hint("acknowledged entries are lost here: replace the node, or see `scribe repair`")
        .into()),
        _ => Ok(()),
    }
}

/// The file that must have the frame at log index `next`, which is in none: the last one, if it has frames at all, or
/// one of that name.
fn last_file(inventory: &Inventory, next: LogIndex) -> String {
    let last = inventory.open.last().copied().unwrap_or(next);
    format!("log/{}", file_name(last))
}

/// Reads one file; returns where its frames end.
fn segment(
    path: &Path,
    name: &str,
    wanted: &SegmentHeader,
    behind: Option<LogIndex>,
    tree: &mut TreeReader,
    ledger: &mut Ledger,
) -> Result<u64, AuditError> {
    let file = open_file(path, name)?;
    let length = file
        .metadata()
        .map_err(|error| AuditError::io(name, &error))?
        .len();
    let header = read_header(&file, name, length)?;
    if behind.is_none() && header.iter().all(|byte| *byte == 0) && !header.is_empty() {
        // It got its name, and nothing was written to it yet.
        return Ok(0);
    }
    expect_header(name, &header, wanted)?;
    let mut frames = Frames::new(&file, name, SEGMENT_HEADER_LENGTH as u64, length);
    loop {
        let end = frames.offset();
        if behind.is_some() && behind == ledger.previous.map(|(last, _)| last.index.next()) {
            // Full, and not sealed yet. The footer of one whose sealing was interrupted would come here.
            return Ok(end);
        }
        let Some(found) = frames.next_frame()? else {
            return Ok(end);
        };
        let first = ledger.builder.size();
        let (mut hashes, mut heads) = (Vec::new(), Vec::new());
        match &found.frame {
            Err(FrameError::Blank) => return Ok(end),
            // Fewer bytes than a header may be left.
            Err(FrameError::Short { .. }) if found.raw.iter().all(|byte| *byte == 0) => {
                return Ok(end);
            }
            Err(error) => {
                if !found.raw.iter().take(64).all(|byte| *byte == 0) {
                    return Err(locate(name, &found, error, first, tree)
                        .hint(
                            "a loss of power may leave a torn frame that nobody was told of: start the node once, \
                             which cuts it or refuses, and audit again",
                        )
                        .into());
                }
                return Ok(end);
            }
            Ok(parsed) => {
                let mut entries = EntryRules::after(ledger.last_timestamp_ms);
                std::mem::swap(&mut entries.announced, &mut ledger.announced);
                let mut rules = FrameRules {
                    name,
                    previous: ledger.previous,
                    tree_size: first,
                    entries,
                    hashes,
                    heads,
                    membership: None,
                    frames: 0,
                };
                rules.frame(found.offset, &found.raw, parsed)?;
                ledger.previous = rules.previous;
                ledger.last_timestamp_ms = rules.entries.last_timestamp_ms;
                ledger.values += rules.entries.values;
                ledger.system_entries += rules.entries.system_entries;
                ledger.announced = rules.entries.announced;
                (hashes, heads) = (rules.hashes, rules.heads);
            }
        }
        let mut stored: Vec<(u8, Hash)> = Vec::new();
        ledger.append(&hashes, name, |level, hash| stored.push((level, hash)))?;
        for (level, hash) in stored {
            tree.push(level, hash);
        }
        ledger.check_heads(&heads, tree, name)?;
    }
}
