//! The audit of a stopped node's data directory: every file in it.
//!
//! What is a promise (frames, and through them entries, values, agreed heads) is derived again from the frames alone;
//! what is derived (tree files, footers, MANIFEST records, key index) is compared with that. Sealed segments are checked
//! side by side on all processors and put in order afterwards; frames behind them follow one by one.
//!
//! A directory holds no signed checkpoint: signatures come in through a checkpoint that somebody kept, and through the
//! head that the key directory says was signed last.

mod derived;
mod files;
mod frames;
mod segment;
mod tail;

use std::hash::RandomState;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_proof::TreeSize;
use scribe_proof::hash::{Hash, empty_root};
use scribe_proof::tree::{LEVEL_MAX, TreeBuilder, level_length, root_at};

use self::derived::{IndexCopy, TreeReader};
use self::files::Inventory;
use self::segment::{Head, Job, Shared};
use self::tail::{OpenFacts, OpenJob};
use super::checkpoint::{Announced, evaluate, signatures};
use super::parallel::in_order;
use super::{AuditError, AuditOptions, AuditReport, Expected, Finding, Progress};
use crate::keys::LastSigned;
use crate::limits;
use crate::store::frame::LogId;
use crate::store::segment::{FooterState, SealedSegment, file_name};

/// Audits the data directory of a stopped node.
///
/// # Errors
/// The first thing that does not hold; a directory that a node has open; what the disk cannot read.
pub fn audit(
    directory: &Path,
    options: &AuditOptions,
    progress: Progress<'_>,
) -> Result<AuditReport, AuditError> {
    let inventory = Inventory::take(directory)?;
    let mut report = AuditReport {
        source: "directory",
        notes: inventory.notes.clone(),
        ..AuditReport::default()
    };
    let mut expected = Expected::default();
    expect_heads(options, &mut expected, &mut report)?;

    let total = inventory.log_bytes(directory)?;
    let done = AtomicU64::new(0);
    let read = |bytes: u64| {
        let before = done.fetch_add(bytes, Ordering::Relaxed);
        progress(before + bytes, total);
    };
    inventory.check_blank(directory)?;
    let sealed = &inventory.sealed;
    let sealed_size = sealed
        .last()
        .map_or(TreeSize::EMPTY, |last| last.footer.end_size);
    let tree = TreeReader::open(directory, sealed_size);
    let index = match options.skip_index {
        true => None,
        false => Some(IndexCopy::open(directory)?),
    };
    let hasher = RandomState::new();
    let shared = Shared {
        tree: &tree,
        index: index.as_ref(),
        hasher: &hasher,
        // The index may forget what is older than the window, counted from its newest segment.
        oldest_ms: sealed.last().map_or(0, |last| {
            let window = limits::IDEMPOTENCY_WINDOW_MS;
            last.footer.last_timestamp_ms.saturating_sub(window)
        }),
        read: &read,
        spare: Mutex::default(),
    };

    let mut ledger = Ledger::new(expected);
    let open = OpenJob::first(directory, &inventory);
    let (in_index, first_open) =
        sealed_segments(directory, sealed, open.as_ref(), &shared, &mut ledger)?;
    let files = tree.check_lengths()?;
    match &index {
        Some(index) => {
            if in_index != (sealed_size.get(), ledger.index_sum) {
                return Err(IndexCopy::finding(format!(
                    "it does not have the {sealed_size} versions that the segments give (it has {})",
                    in_index.0
                ))
                .into());
            }
            index.check_segments(sealed)?;
        }
        None => report.notes.push(
            "the key index was not compared: it is derived, and was left out; what sealed entries say about the version \
             of their key before them could not be compared without it"
                .to_owned(),
        ),
    }
    // The index is what the entries give, so it is right about them.
    if let Some(doubt) = ledger.doubt.take() {
        return Err(doubt.into());
    }

    let mut tree = tree;
    tail::audit(
        directory,
        &inventory,
        first_open,
        &mut tree,
        index.as_ref(),
        &mut ledger,
        &read,
    )?;

    let size = ledger.builder.size();
    ledger.expected.finish(size, "log")?;
    report.tree_size = size.get();
    report.root_hash = ledger.builder.root().to_hex();
    report.values = ledger.values;
    report.system_entries = ledger.system_entries;
    report.agreed_heads = ledger.heads;
    report.bytes = total;
    report.files = files + inventory.files;
    report.notes.append(&mut ledger.notes);
    if let Some(pinned) = &options.pinned {
        report.signatures = signatures(
            pinned,
            options.policy.as_ref(),
            &ledger.announced,
            "the checkpoint given",
        )?;
    }
    Ok(report)
}

/// What the ledger must have, from outside the data directory.
fn expect_heads(
    options: &AuditOptions,
    expected: &mut Expected,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    if let Some(pinned) = &options.pinned {
        evaluate(pinned, options.policy.as_ref(), "the checkpoint given")?;
        let checkpoint = pinned.checkpoint();
        expected.add(checkpoint.size, checkpoint.root, "the checkpoint given");
        report.origin = Some(checkpoint.origin.clone());
        report.pinned_size = Some(checkpoint.size.get());
    } else {
        report.notes.push(
            "a data directory holds no signatures: pass an earlier checkpoint with --checkpoint to compare it with \
             what was signed"
                .to_owned(),
        );
    }
    let Some(key_dir) = &options.key_dir else {
        return Ok(());
    };
    let last = LastSigned::load(key_dir)
        .map_err(|error| Finding::new("last-signed", error.to_string()))?;
    let Some(last) = last else {
        report
            .notes
            .push("the key directory says that nothing was signed yet".to_owned());
        return Ok(());
    };
    if let Some(origin) = &report.origin
        && *origin != last.origin
    {
        let reason = format!(
            "the head signed last is of {:?}, the checkpoint given of {origin:?}",
            last.origin
        );
        return Err(Finding::new("last-signed", reason).into());
    }
    report.last_signed_size = Some(last.size.get());
    report.origin = Some(last.origin);
    expected.add(last.size, last.root, "the head signed last");
    Ok(())
}

/// The ledger as it is put together, segment by segment and then frame by frame.
struct Ledger {
    builder: TreeBuilder,
    expected: Expected,
    announced: Announced,
    last_timestamp_ms: u64,
    /// Of the last frame.
    previous: Option<(LogId, u32)>,
    /// As a footer has them.
    membership: Bytes,
    published: (TreeSize, Hash),
    values: u64,
    system_entries: u64,
    heads: u64,
    index_sum: u64,
    /// The first of its kind.
    doubt: Option<Finding>,
    notes: Vec<String>,
}

impl Ledger {
    fn new(expected: Expected) -> Ledger {
        Ledger {
            builder: TreeBuilder::new(),
            expected,
            announced: Announced::default(),
            last_timestamp_ms: 0,
            previous: None,
            membership: Bytes::new(),
            published: (TreeSize::EMPTY, empty_root()),
            values: 0,
            system_entries: 0,
            heads: 0,
            index_sum: 0,
            doubt: None,
            notes: Vec::new(),
        }
    }

    /// Appends leaf hashes and compares every root that is awaited on the way; `store` gets the hashes of each level.
    fn append(
        &mut self,
        hashes: &[Hash],
        place: &str,
        mut store: impl FnMut(u8, Hash),
    ) -> Result<(), Finding> {
        if self.expected.awaits(self.builder.size()) {
            let (size, root) = (self.builder.size(), self.builder.root());
            self.expected.check(size, root, place)?;
        }
        for hash in hashes {
            self.builder.append(*hash, &mut store);
            if self.expected.awaits(self.builder.size()) {
                let (size, root) = (self.builder.size(), self.builder.root());
                self.expected.check(size, root, place)?;
            }
        }
        Ok(())
    }

    /// Compares agreed heads with the tree as it is stored, which was compared with the entries.
    fn check_heads(
        &mut self,
        heads: &[Head],
        tree: &TreeReader,
        name: &str,
    ) -> Result<(), AuditError> {
        for head in heads {
            let wrong = |reason: String| {
                Finding::new(name, reason)
                    .at(head.offset)
                    .entry(head.at_size.get())
            };
            if head.size < self.published.0 {
                return Err(wrong(format!(
                    "the nodes agreed on tree size {} after {}",
                    head.size, self.published.0
                ))
                .into());
            }
            let root = root_at(tree, head.size).map_err(|error| AuditError::io("tree", &error))?;
            if root != head.root {
                return Err(wrong(format!(
                    "the nodes agreed on root hash {} at tree size {}, the entries give {root}",
                    head.root, head.size
                ))
                .into());
            }
            self.published = (head.size, head.root);
            self.heads += 1;
        }
        Ok(())
    }

    /// Takes in what the next sealed segment says, and compares its footer and its MANIFEST record with it.
    fn take(
        &mut self,
        job: &Job,
        facts: segment::Facts,
        shared: &Shared<'_>,
    ) -> Result<(), AuditError> {
        let tree = shared.tree;
        let (name, sealed) = (job.name.as_str(), &job.sealed);
        let (start_size, start_root) = (self.builder.size(), self.builder.root());
        let first = facts.entries.first_timestamp_ms;
        if first.is_some_and(|first| first < self.last_timestamp_ms) {
            let reason = "its first timestamp is before the last one of the segment before";
            return Err(Finding::new(name, reason).entry(start_size.get()).into());
        }
        // Level 0 is what was derived already.
        let mut above: Vec<Vec<Hash>> = vec![Vec::new(); usize::from(LEVEL_MAX)];
        self.append(&facts.hashes, name, |level, hash| {
            if let Some(level) = usize::from(level).checked_sub(1) {
                above[level].push(hash);
            }
        })?;
        let levels = std::iter::once(&facts.hashes).chain(&above);
        for (level, hashes) in (0..).zip(levels) {
            tree.compare(level, level_length(level, start_size), hashes)?;
        }
        self.check_heads(&facts.heads, tree, name)?;

        if first.is_some() {
            self.last_timestamp_ms = facts.entries.last_timestamp_ms;
        }
        if let Some(membership) = facts.membership {
            self.membership = membership;
        }
        self.values += facts.entries.values;
        self.system_entries += facts.entries.system_entries;
        self.announced.append(facts.entries.announced);
        self.index_sum = self.index_sum.wrapping_add(facts.sum);
        self.previous = facts.last;
        self.doubt = self.doubt.take().or(facts.doubt);
        shared.give_back(facts.hashes);

        let Some((last_log_id, last_chain)) = facts.last.filter(|_| facts.frames > 0) else {
            return Err(Finding::new(name, "a sealed segment without a frame").into());
        };
        let derived = SealedSegment {
            last_log_id,
            last_chain,
            frame_count: facts.frames,
            body_sha256: facts.body_sha256,
            footer: FooterState {
                start_size,
                start_root,
                end_size: self.builder.size(),
                end_root: self.builder.root(),
                last_log_id,
                membership: self.membership.clone(),
                last_timestamp_ms: self.last_timestamp_ms,
                published: self.published,
            },
            sparse: facts.sparse,
            ..sealed.clone()
        };
        let footer = derived.encode_footer();
        if footer != facts.footer {
            let good = footer.iter().zip(&facts.footer).take_while(|(a, b)| a == b);
            let reason = "the footer is not what the frames before it give";
            return Err(Finding::new(name, reason)
                .at(sealed.body_length + good.count() as u64)
                .into());
        }
        if !derived.is_same(sealed) || facts.end_size != sealed.footer.end_size {
            let reason = format!(
                "its record of segment {} is not what the file gives",
                sealed.number
            );
            return Err(Finding::new("MANIFEST", reason).into());
        }
        Ok(())
    }
}

/// What a piece of the log says.
enum Facts {
    Sealed(Box<segment::Facts>),
    Open(OpenFacts),
}

/// Versions in the index and their sum, and what the first open segment says.
type Looked = ((u64, u64), Option<OpenFacts>);

/// Checks all sealed segments and the first open one, on as many threads as there are processors, and takes the sealed
/// ones in in order.
fn sealed_segments(
    directory: &Path,
    sealed: &[SealedSegment],
    open: Option<&OpenJob>,
    shared: &Shared<'_>,
    ledger: &mut Ledger,
) -> Result<Looked, AuditError> {
    let jobs: Vec<Job> = sealed
        .iter()
        .enumerate()
        .map(|(at, segment)| {
            let name = format!("log/{}", file_name(segment.first_log_index));
            let before = at.checked_sub(1).map(|before| &sealed[before]);
            Job {
                path: directory.join(&name),
                name,
                sealed: segment.clone(),
                previous: before.map(|before| (before.last_log_id, before.last_chain)),
            }
        })
        .collect();
    let size = sealed
        .last()
        .map_or(TreeSize::EMPTY, |last| last.footer.end_size);
    let mut first_open = None;
    thread::scope(|scope| {
        let index = scope.spawn(|| match shared.index {
            Some(index) => index.sum(size, shared.hasher),
            None => Ok((0, 0)),
        });
        let outcome = in_order(
            jobs.len() as u64 + u64::from(open.is_some()),
            |number| match (jobs.get(number as usize), open) {
                (Some(job), _) => Ok(Facts::Sealed(Box::new(job.run(shared)?))),
                (None, Some(open)) => Ok(Facts::Open(open.run(shared.tree, shared.read)?)),
                (None, None) => Err(AuditError::Unexpected("there is no such segment".into())),
            },
            |number, facts| {
                match facts {
                    Facts::Sealed(facts) => {
                        ledger.take(&jobs[number as usize], *facts, shared)?;
                    }
                    Facts::Open(facts) => first_open = Some(facts),
                }
                Ok(())
            },
        );
        // A root that is awaited of the empty tree.
        let outcome = outcome.and_then(|()| Ok(ledger.append(&[], "log", |_, _| ())?));
        let index = index.join();
        outcome?;
        let index = index
            .unwrap_or_else(|_| Err(AuditError::Unexpected("reading the index stopped".into())))?;
        Ok((index, first_open))
    })
}
