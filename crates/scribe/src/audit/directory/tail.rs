//! Frames behind the sealed segments, one after the other; what lies behind the last of them; and whether the log is as
//! long as it is known to be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use scribe_proof::hash::Hash;
use scribe_proof::leaf::Prev;
use scribe_proof::{LeafIndex, TreeSize};

use super::Ledger;
use super::derived::{IndexCopy, TreeReader};
use super::files::{Inventory, blank};
use super::frames::{Frames, locate};
use super::segment::{
    Claim, FrameRules, Head, Keep, before, expect_header, open_file, read_header,
};
use crate::audit::entries::EntryRules;
use crate::audit::{AuditError, Finding};
use crate::store::frame::{FrameError, LogId, LogIndex};
use crate::store::segment::{SEGMENT_HEADER_LENGTH, SegmentHeader, file_name};

/// An open segment to look at: what must come before it is known.
pub(super) struct OpenJob {
    path: PathBuf,
    name: String,
    wanted: SegmentHeader,
    /// First log index of the file behind it.
    behind: Option<LogIndex>,
    previous: Option<(LogId, u32)>,
    tree_size: TreeSize,
    last_timestamp_ms: u64,
}

/// What an open segment says.
pub(super) struct OpenFacts {
    hashes: Vec<Hash>,
    heads: Vec<Head>,
    entries: EntryRules,
    last: Option<(LogId, u32)>,
    claims: Vec<Claim>,
}

impl OpenJob {
    /// The first one: what comes before it is the last sealed segment, as the MANIFEST has it. It is looked at side by
    /// side with the sealed ones.
    pub(super) fn first(directory: &Path, inventory: &Inventory) -> Option<OpenJob> {
        let first = *inventory.open.first()?;
        let sealed = inventory.sealed.last();
        let next = sealed.map_or(LogIndex(0), |last| last.last_log_id.index.next());
        let job = OpenJob::new(
            directory,
            inventory,
            0,
            sealed.map(|last| (last.last_log_id, last.last_chain)),
            sealed.map_or(TreeSize::EMPTY, |last| last.footer.end_size),
            sealed.map_or(0, |last| last.footer.last_timestamp_ms),
        );
        (first == next).then_some(job)
    }

    fn new(
        directory: &Path,
        inventory: &Inventory,
        at: usize,
        previous: Option<(LogId, u32)>,
        tree_size: TreeSize,
        last_timestamp_ms: u64,
    ) -> OpenJob {
        let first = inventory.open.get(at).copied().unwrap_or(LogIndex(0));
        let name = format!("log/{}", file_name(first));
        OpenJob {
            path: directory.join(&name),
            name,
            wanted: SegmentHeader {
                number: (inventory.sealed.len() + at) as u32,
                first_log_index: first,
                cluster_id: inventory.cluster_id,
                previous_chain: previous.map_or(0, |(_, chain)| chain),
            },
            behind: inventory.open.get(at + 1).copied(),
            previous,
            tree_size,
            last_timestamp_ms,
        }
    }

    /// Reads the file from its first to its last byte.
    ///
    /// # Errors
    /// The first thing that does not hold, or what the disk cannot read.
    pub(super) fn run(
        &self,
        tree: &TreeReader,
        read: &(dyn Fn(u64) + Sync),
    ) -> Result<OpenFacts, AuditError> {
        let name = self.name.as_str();
        let mut rules = FrameRules {
            name,
            previous: self
                .previous
                .or_else(|| before(self.wanted.first_log_index)),
            tree_size: self.tree_size,
            entries: EntryRules::after(self.last_timestamp_ms),
            hashes: Vec::new(),
            heads: Vec::new(),
            membership: None,
            frames: 0,
            in_index: None,
            sum: 0,
            index_key: Vec::new(),
            keep: Keep::All,
            claims: Vec::new(),
        };
        let end = self.frames(&mut rules, tree, read)?;
        read(blank(&self.path, name, end)?);
        Ok(OpenFacts {
            hashes: rules.hashes,
            heads: rules.heads,
            entries: rules.entries,
            last: rules.previous,
            claims: rules.claims,
        })
    }

    /// Every frame; returns where they end.
    fn frames(
        &self,
        rules: &mut FrameRules<'_>,
        tree: &TreeReader,
        read: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, AuditError> {
        let name = self.name.as_str();
        let file = open_file(&self.path, name)?;
        let length = file
            .metadata()
            .map_err(|error| AuditError::io(name, &error))?
            .len();
        let header = read_header(&file, name, length)?;
        if self.behind.is_none() && !header.is_empty() && header.iter().all(|byte| *byte == 0) {
            // It got its name, and nothing was written to it yet.
            return Ok(0);
        }
        expect_header(name, &header, &self.wanted)?;
        let mut frames = Frames::new(&file, name, SEGMENT_HEADER_LENGTH as u64, length);
        loop {
            let end = frames.offset();
            if self.behind.is_some()
                && self.behind == rules.previous.map(|(last, _)| last.index.next())
            {
                // Full, and not sealed yet. The footer of one whose sealing was interrupted would come here.
                return Ok(end);
            }
            let Some(found) = frames.next_frame()? else {
                return Ok(end);
            };
            match &found.frame {
                Ok(parsed) => {
                    rules.frame(found.offset, &found.raw, parsed)?;
                    read(found.raw.len() as u64);
                }
                // Nothing was written from here on; that it is blank to the end is looked at next. Fewer bytes than a
                // header may be left.
                Err(FrameError::Blank) => return Ok(end),
                Err(FrameError::Short { .. }) if found.raw.iter().all(|byte| *byte == 0) => {
                    return Ok(end);
                }
                Err(error) => {
                    return Err(locate(name, &found, error, rules.tree_size, tree)
                        .hint(
                            "a loss of power may leave a torn frame that nobody was told of: start the node once, \
                             which cuts it or refuses, and audit again",
                        )
                        .into());
                }
            }
        }
    }
}

/// Takes in every frame behind the sealed segments; `first` is what the first file says, if it was looked at.
pub(super) fn audit(
    directory: &Path,
    inventory: &Inventory,
    mut first: Option<OpenFacts>,
    tree: &mut TreeReader,
    index: Option<&IndexCopy>,
    ledger: &mut Ledger,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(), AuditError> {
    let mut next = inventory
        .sealed
        .last()
        .map_or(LogIndex(0), |last| last.last_log_id.index.next());
    // By key, of the entries behind the sealed segments.
    let mut newest: HashMap<Vec<u8>, LeafIndex> = HashMap::new();
    for (at, begins) in inventory.open.iter().enumerate() {
        let name = format!("log/{}", file_name(*begins));
        if *begins != next {
            let reason = format!("the frames before it end at log index {next}");
            return Err(Finding::new(name, reason)
                .entry(ledger.builder.size().get())
                .into());
        }
        let facts = match first.take() {
            Some(facts) => facts,
            None => {
                let (previous, size) = (ledger.previous, ledger.builder.size());
                let last_ms = ledger.last_timestamp_ms;
                OpenJob::new(directory, inventory, at, previous, size, last_ms).run(tree, read)?
            }
        };
        let mut stored: Vec<(u8, Hash)> = Vec::new();
        ledger.append(&facts.hashes, &name, |level, hash| {
            stored.push((level, hash));
        })?;
        for (level, hash) in stored {
            tree.push(level, hash);
        }
        ledger.check_heads(&facts.heads, tree, &name)?;
        for claim in facts.claims {
            let in_sealed = index.filter(|_| !inventory.sealed.is_empty());
            let known = newest.get(&claim.key).copied();
            // Without an index what lies in sealed segments is not known, and the report says so.
            let comparable = known.is_some() || in_sealed.is_some() || inventory.sealed.is_empty();
            if comparable && claim.prev != Prev::NotAsserted {
                let before = match (known, in_sealed) {
                    (None, Some(index)) => index.before(&claim.key, claim.index)?,
                    (known, _) => known,
                };
                claim.compare(&name, before)?;
            }
            newest.insert(claim.key, claim.index);
        }
        ledger.previous = facts.last;
        ledger.last_timestamp_ms = facts.entries.last_timestamp_ms;
        ledger.values += facts.entries.values;
        ledger.system_entries += facts.entries.system_entries;
        ledger.announced.append(facts.entries.announced);
        if let Some((last, _)) = ledger.previous {
            next = last.index.next();
        }
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
