//! Import into the directory of a stopped node: leaves, salts, metadata and values byte for byte.

use scribe_proof::{Hash, Leaf, LeafIndex, TreeSize};
use serde::Serialize;
use tokio::sync::mpsc;

use super::super::expect_no_member;
use super::super::output::{Failure, say};
use super::super::serve::{node_options, start_logging, start_node};
use super::super::transfer::{Carried, Checked, End, read_line};
use super::lines::{ExportLine, parse_export};
use super::{Arguments, Input, LineFormat, open};
use crate::limits;
use crate::node::{IMPORTING_FILE, Node, NodeOptions};
use crate::sequencer::CarriedEntry;

/// Entries in one batch: one frame of the log.
const BATCH_ENTRIES_MAX: usize = limits::FRAME_OPERATIONS_MAX;
/// Bytes after which a batch is closed. A transaction is never split, so a batch may grow to the largest one.
const BATCH_BYTES_TARGET: usize = 4 * limits::MIB;
/// Batches read and checked ahead of the node.
const BATCHES_AHEAD: usize = 4;

#[derive(Serialize)]
struct Imported {
    tree_size: u64,
    root_hash: String,
    /// Entries the directory had already.
    skipped: u64,
}

/// Consecutive entries from the file, checked.
struct Batch {
    first: LeafIndex,
    entries: Vec<CarriedEntry>,
    bytes: usize,
}

/// What the whole file says.
struct Summary {
    size: TreeSize,
    root: Hash,
    /// Entries the file's first line announces.
    announced: Option<u64>,
    end: Option<End>,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.format != LineFormat::Export {
        return Err(
            Failure::user("an offline import takes --format export only").hint(
                "start the node and import with --server: it gives times and salts to new entries",
            ),
        );
    }
    let config = arguments.directory.load()?;
    expect_no_member(
        &config,
        "import into directories of no cluster, then make them the first member: `scribe cluster init`",
    )?;
    start_logging(&config.log)?;
    let (input, bar) = open(&arguments.file)?;
    // The entries bring their own genesis.
    let options = NodeOptions {
        importing: true,
        ..node_options(&config)
    };
    // Until everything is in and compared, this directory is not a ledger to be served.
    let marker = options.data_dir.join(IMPORTING_FILE);
    let unmarked = |error: std::io::Error| {
        Failure::unexpected(format!("cannot write `{}`: {error}", marker.display()))
    };
    std::fs::create_dir_all(&options.data_dir).map_err(unmarked)?;
    std::fs::write(&marker, b"").map_err(unmarked)?;
    let node = start_node(options).await?;
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_all(input, &sender));
    let appended = append_all(&node, batches).await;
    let read = reading
        .await
        .map_err(|error| Failure::unexpected(format!("reading stopped: {error}")))?;
    bar.finish_and_clear();
    // Whichever failed first made the other end early: the node's failure drops the channel, a bad line closes it.
    let outcome = match (appended, read) {
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
        (Ok(skipped), Ok(summary)) => compare(&node, &summary).map(|()| (skipped, summary)),
    };
    node.shutdown().await;
    let (skipped, summary) = outcome?;
    let imported = Imported {
        tree_size: summary.size.get(),
        root_hash: summary.root.to_hex(),
        skipped,
    };
    say(format_args!(
        "{} entries imported\nroot hash {}",
        imported.tree_size - imported.skipped,
        imported.root_hash
    ));
    let output = arguments.client.output();
    if output.is_json() {
        output.print("", &imported)?;
    }
    if summary.end.is_none() {
        let of = summary
            .announced
            .map(|all| format!(" of {all}"))
            .unwrap_or_default();
        let size = summary.size;
        return Err(Failure::user(format!(
            "the file was cut off: it has {size}{of} entries and no last line"
        ))
        .hint("what it has is in and checked; import the complete file to go on"));
    }
    std::fs::remove_file(&marker).map_err(unmarked)?;
    Ok(())
}

/// Reads the file to its end, or until nobody wants more.
fn read_all(mut input: Input, sender: &mpsc::Sender<Batch>) -> Result<Summary, Failure> {
    let (mut line, mut number) = (Vec::new(), 0);
    let mut checked = Checked::default();
    let mut batch = Batch {
        first: LeafIndex::FIRST,
        entries: Vec::new(),
        bytes: 0,
    };
    let (mut announced, mut end) = (None, None);
    while end.is_none() && read_line(&mut input, &mut line, number + 1)? {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let wrong = |error: String| Failure::user(format!("line {number}: {error}"));
        match parse_export(&line).map_err(wrong)? {
            ExportLine::Header(header) => announced = Some(header.tree_size),
            ExportLine::End(found) => end = Some(found),
            ExportLine::Entry(found) => {
                let entry = Carried::from_line(&found).map_err(wrong)?;
                let place = transaction(&entry).map_err(wrong)?;
                let does_not_hold =
                    |error| Failure::verification(format!("line {number}: {error}"));
                checked.add(found.index, &entry).map_err(does_not_hold)?;
                if batch.is_full_before(place) {
                    let next = Batch {
                        first: LeafIndex::new(found.index),
                        entries: Vec::new(),
                        bytes: 0,
                    };
                    if sender
                        .blocking_send(std::mem::replace(&mut batch, next))
                        .is_err()
                    {
                        break;
                    }
                }
                batch.bytes += entry.length();
                batch.entries.push(CarriedEntry {
                    leaf: entry.leaf,
                    private: entry.private,
                });
            }
        }
    }
    if !batch.entries.is_empty() {
        // A closed channel means that the node failed, which is told elsewhere.
        let _ = sender.blocking_send(batch);
    }
    let (size, root) = (checked.size(), checked.root());
    if let Some(end) = &end
        && (end.tree_size != size.get() || end.root_hash.0 != root.0)
    {
        return Err(Failure::verification(format!(
            "the file does not match its last line: it has {size} entries with root hash {root}, the line says {} \
             and {}",
            end.tree_size, end.root_hash
        )));
    }
    Ok(Summary {
        size,
        root,
        announced,
        end,
    })
}

/// An entry's position in its transaction, and the transaction's length.
fn transaction(entry: &Carried) -> Result<(u16, u16), String> {
    let leaf = Leaf::parse(&entry.leaf).map_err(|error| error.to_string())?;
    Ok((leaf.transaction_position, leaf.transaction_length))
}

impl Batch {
    /// Whether an entry at this place of a transaction must begin another batch.
    fn is_full_before(&self, (position, length): (u16, u16)) -> bool {
        // In the middle of a transaction nothing is cut.
        !self.entries.is_empty()
            && position == 0
            && (self.entries.len() + usize::from(length) > BATCH_ENTRIES_MAX
                || self.bytes >= BATCH_BYTES_TARGET)
    }
}

/// Gives the batches to the node; returns how many entries it had already.
async fn append_all(node: &Node, mut batches: mpsc::Receiver<Batch>) -> Result<u64, Failure> {
    let mut skipped = 0;
    while let Some(mut batch) = batches.recv().await {
        let had = node.applied_size().get().saturating_sub(batch.first.get());
        let had = usize::try_from(had)
            .unwrap_or(usize::MAX)
            .min(batch.entries.len());
        for (position, entry) in batch.entries.drain(..had).enumerate() {
            let index = LeafIndex::new(batch.first.get() + position as u64);
            expect_same(node, index, &entry)?;
            skipped += 1;
        }
        if batch.entries.is_empty() {
            continue;
        }
        node.import(batch.entries).await.map_err(|error| {
            Failure::unexpected(format!(
                "cannot append from index {} on: {error}",
                batch.first
            ))
        })?;
    }
    Ok(skipped)
}

/// The directory may hold the beginning of the same ledger, and nothing else.
fn expect_same(node: &Node, index: LeafIndex, entry: &CarriedEntry) -> Result<(), Failure> {
    let found = node
        .entry(index)
        .map_err(|error| Failure::unexpected(error.to_string()))?;
    if found.is_some_and(|found| found.leaf == entry.leaf) {
        return Ok(());
    }
    Err(Failure::user(format!("the data directory holds another ledger: its entry {index} differs from the file's"))
        .hint("an offline import takes a new --data-dir, or one that holds the beginning of the same ledger"))
}

/// The node's root hash over the file's entries must be the file's.
fn compare(node: &Node, summary: &Summary) -> Result<(), Failure> {
    let root = node
        .root_at(summary.size)
        .map_err(|error| Failure::unexpected(format!("cannot compute the root hash: {error}")))?;
    if root == summary.root {
        return Ok(());
    }
    Err(Failure::verification(format!(
        "the ledger's root hash at tree size {} is {root}, the file's is {}",
        summary.size, summary.root
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_not_cut() {
        let entry = || CarriedEntry {
            leaf: bytes::Bytes::new(),
            private: None,
        };
        let batch = |entries: usize, bytes| Batch {
            first: LeafIndex::FIRST,
            entries: (0..entries).map(|_| entry()).collect(),
            bytes,
        };
        assert!(!batch(0, 0).is_full_before((0, 1_024)));
        assert!(!batch(1_023, 0).is_full_before((0, 1)));
        assert!(batch(1_024, 0).is_full_before((0, 1)));
        assert!(batch(1_023, 0).is_full_before((0, 2)));
        assert!(!batch(1_023, 0).is_full_before((1, 2)));
        assert!(batch(1, BATCH_BYTES_TARGET).is_full_before((0, 1)));
        assert!(!batch(1, BATCH_BYTES_TARGET).is_full_before((1, 3)));
    }
}
