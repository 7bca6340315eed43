//! The audit of a running node, through its HTTP API, up to its newest checkpoint. Writes go on meanwhile.
//!
//! Nothing the node says about itself is believed: leaf hashes, the tree and every commitment are computed from raw
//! entries, and the only thing they are compared with is what is signed.

use std::sync::Arc;

use scribe_client::verify::check_entry;
use scribe_client::wire::{EntryPage, EntryView, bytes::from_base64};
use scribe_client::{Client, Error};
use scribe_proof::tree::Frontier;
use scribe_proof::{Hash, LeafIndex, SignedCheckpoint, TreeSize, consistency};

use super::checkpoint::{evaluate, signatures};
use super::entries::EntryRules;
use super::lineage::Lineage;
use super::{AuditError, AuditOptions, AuditReport, Expected, Finding, Progress};
use crate::limits;

const ENTRIES: &str = "/v1/entries";
const CHECKPOINT: &str = "/checkpoint";

/// Audits the ledger of the node that `client` asks. Progress is counted in entries.
///
/// # Errors
/// The first thing that does not hold; a node that does not answer.
pub async fn audit(
    client: &Client,
    options: &AuditOptions,
    progress: Progress<'_>,
) -> Result<AuditReport, AuditError> {
    let signed = client.checkpoint().await?;
    let policy = options.policy.as_ref();
    evaluate(&signed, policy, CHECKPOINT)?;
    let checkpoint = signed.checkpoint();
    let mut report = AuditReport {
        source: "live",
        origin: Some(checkpoint.origin.clone()),
        checkpoint_size: Some(checkpoint.size.get()),
        ..AuditReport::default()
    };
    let mut expected = Expected::default();
    expected.add(checkpoint.size, checkpoint.root, "the node's checkpoint");
    let mut size = checkpoint.size;
    if let Some(pinned) = &options.pinned {
        evaluate(pinned, policy, "the checkpoint given")?;
        let pinned = pinned.checkpoint();
        if pinned.origin != checkpoint.origin {
            let reason = format!(
                "the checkpoint is of {:?}, the one given of {:?}",
                checkpoint.origin, pinned.origin
            );
            return Err(Finding::new(CHECKPOINT, reason).into());
        }
        expected.add(pinned.size, pinned.root, "the checkpoint given");
        report.pinned_size = Some(pinned.size.get());
        if pinned.size > size {
            report.notes.push(format!(
                "the node's newest checkpoint is of tree size {size}, older than the one given: it lags, or it hides something"
            ));
            size = pinned.size;
        }
    }
    let ledger = Ledger {
        tree: Frontier::new(),
        rules: EntryRules::default(),
        lineage: Lineage::default(),
        expected,
        bytes: 0,
        pages: Vec::new(),
    };
    let ledger = match read(client, size, ledger, progress).await {
        Ok(ledger) => ledger,
        Err((AuditError::Finding(finding), ledger)) if finding.place == CHECKPOINT => {
            return Err(narrow(client, *finding, &ledger, &signed).await.into());
        }
        Err((error, _)) => return Err(error),
    };
    ledger.expected.finish(ledger.tree.size(), ENTRIES)?;
    report.tree_size = ledger.tree.size().get();
    report.root_hash = ledger.tree.root().to_hex();
    report.values = ledger.rules.values;
    report.system_entries = ledger.rules.system_entries;
    report.bytes = ledger.bytes;
    report.notes.extend(ledger.lineage.note());
    report.signatures = signatures(&signed, policy, &ledger.rules.announced, CHECKPOINT)?;
    if let Some(pinned) = &options.pinned {
        signatures(
            pinned,
            policy,
            &ledger.rules.announced,
            "the checkpoint given",
        )?;
    }
    Ok(report)
}

/// The ledger as far as it was read.
struct Ledger {
    tree: Frontier,
    rules: EntryRules,
    lineage: Lineage,
    expected: Expected,
    bytes: u64,
    /// Size and root after each page: to find where a wrong root began.
    pages: Vec<(TreeSize, Hash)>,
}

/// Reads entries up to `size`: the next page is on its way while one is checked.
async fn read(
    client: &Client,
    size: TreeSize,
    mut ledger: Ledger,
    progress: Progress<'_>,
) -> Result<Ledger, (AuditError, Ledger)> {
    if let Err(finding) = ledger.compare() {
        return Err((finding.into(), ledger));
    }
    let mut coming = (!size.is_empty()).then(|| fetch(client, 0, size));
    while let Some(page) = coming.take() {
        let page = match page.await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Err((error.into(), ledger)),
            Err(error) => return Err((AuditError::Unexpected(error.to_string()), ledger)),
        };
        let from = ledger.tree.size().get();
        let to = from + page.entries.len() as u64;
        if page.entries.is_empty() {
            let reason = format!("the node sent no entries from index {from} on, of {size}");
            return Err((Finding::new(ENTRIES, reason).entry(from).into(), ledger));
        }
        if to < size.get() {
            coming = Some(fetch(client, to, size));
        }
        let checked = tokio::task::spawn_blocking(move || {
            let outcome = ledger.page(&page, size);
            (outcome, ledger)
        });
        let outcome = match checked.await {
            Ok((outcome, back)) => {
                ledger = back;
                outcome
            }
            // The ledger went down with the task.
            Err(error) => {
                return Err((AuditError::Unexpected(error.to_string()), Ledger::empty()));
            }
        };
        if let Err(finding) = outcome {
            return Err((finding.into(), ledger));
        }
        progress(ledger.tree.size().get(), size.get());
    }
    Ok(ledger)
}

type Coming = tokio::task::JoinHandle<Result<EntryPage, Error>>;

fn fetch(client: &Client, from: u64, size: TreeSize) -> Coming {
    let client = client.clone();
    let limit = (size.get() - from).min(limits::PAGE_LIMIT_MAX as u64);
    // What a checkpoint covers the node has applied: no need to ask its leader.
    tokio::spawn(async move { client.entries(from).limit(limit).raw().stale().send().await })
}

impl Ledger {
    fn empty() -> Ledger {
        Ledger {
            tree: Frontier::new(),
            rules: EntryRules::default(),
            lineage: Lineage::default(),
            expected: Expected::default(),
            bytes: 0,
            pages: Vec::new(),
        }
    }

    fn page(&mut self, page: &EntryPage, size: TreeSize) -> Result<(), Finding> {
        for view in &page.entries {
            let index = self.tree.size();
            if index == size {
                break;
            }
            if view.index != index.get() {
                let reason = format!(
                    "entries follow each other without gaps: found index {}, expected {index}",
                    view.index
                );
                return Err(Finding::new(ENTRIES, reason).entry(index.get()));
            }
            self.entry(view)?;
        }
        self.pages.push((self.tree.size(), self.tree.root()));
        Ok(())
    }

    fn entry(&mut self, view: &EntryView) -> Result<(), Finding> {
        let key = view.key_bytes().unwrap_or_default();
        let wrong = |reason: String| Finding::new(ENTRIES, reason).entry(view.index).key(&key);
        // Every member against the leaf, and the leaf's commitment against salt, metadata and value.
        let hash = check_entry(view).map_err(|error| wrong(error.to_string()))?;
        let leaf = view.leaf_base64.as_deref().unwrap_or_default();
        let bytes = from_base64("leaf", leaf).map_err(|error| wrong(error.to_string()))?;
        let leaf = self
            .rules
            .leaf(&bytes)
            .map_err(|broken| wrong(broken.reason))?;
        self.lineage
            .follow(LeafIndex::new(view.index), &leaf)
            .map_err(wrong)?;
        match leaf.kind {
            scribe_proof::LeafKind::System => self.rules.system_entries += 1,
            _ => self.rules.values += 1,
        }
        self.bytes += bytes.len() as u64 + view.value_length;
        self.tree.append(hash);
        self.compare()
    }

    fn compare(&mut self) -> Result<(), Finding> {
        if !self.expected.awaits(self.tree.size()) {
            return Ok(());
        }
        self.expected
            .check(self.tree.size(), self.tree.root(), CHECKPOINT)
    }
}

/// Entries that hold together by themselves do not give a signed root: asks the node for consistency proofs from what
/// was derived after each page to what is signed, to say between which entries the trees part. A node that lies about
/// those, too, is left with the whole range.
async fn narrow(
    client: &Client,
    finding: Finding,
    ledger: &Ledger,
    signed: &SignedCheckpoint,
) -> Finding {
    let new = signed.checkpoint();
    let client = Arc::new(client.clone());
    let (mut good, mut bad) = (0, ledger.tree.size().get());
    let candidates: Vec<(TreeSize, Hash)> = ledger
        .pages
        .iter()
        .copied()
        .filter(|(size, _)| *size < new.size)
        .collect();
    let (mut low, mut high) = (0, candidates.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let (size, root) = candidates[middle];
        let holds = match client.consistency(size, new.size).await {
            Ok(proof) => {
                let hashes: Vec<Hash> = proof.hashes.into_iter().map(Hash::from).collect();
                consistency::verify(size, &root, new.size, &new.root, &hashes).is_ok()
            }
            Err(_) => false,
        };
        if holds {
            (good, low) = (size.get(), middle + 1);
        } else {
            (bad, high) = (size.get(), middle);
        }
    }
    let reason = format!(
        "{}; the first entry that differs is one of {good} to {}",
        finding.reason,
        bad.saturating_sub(1)
    );
    Finding {
        reason,
        place: ENTRIES.to_owned(),
        index: Some(good),
        ..finding
    }
}
