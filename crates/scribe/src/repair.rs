//! Looking at a stopped node's data, and mending what can be mended.
//!
//! Works on the directories alone: no consensus runs, nothing is appended. A node repairs by itself what a crash can
//! cause; this is for bytes that changed on the disk.

use std::sync::Arc;

use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::rotation::LedgerKeys;

use crate::consensus;
use crate::keys::{KeyDir, KeyError, Keys, LastSigned};
use crate::node::{NodeOptions, StartError, store_options};
use crate::roster;
use crate::store::disk::Disk;
use crate::store::index::IndexKind;
use crate::store::lock::DirLock;
use crate::store::real_disk::RealDisk;
use crate::store::recovery::repair_accept_loss;
use crate::store::vote::read_identity;
use crate::store::{CheckError, Store};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Re-read everything and name the first bad place.
    Check,
    /// Delete the key index and make it again from the segments.
    RebuildIndex,
    /// Cut the log before its first damaged frame, acknowledged or not.
    AcceptLoss,
}

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairOutcome {
    /// One sentence.
    pub summary: String,
    /// Damaged places that are left.
    pub damage: Vec<String>,
}

/// Why a checkpoint is not taken for what was signed last.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Data or keys cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The checkpoint is not this ledger's, or this is not the ledger it was signed for.
    #[error("{0}")]
    Refused(String),
}

impl From<KeyError> for TrustError {
    fn from(error: KeyError) -> Self {
        Self::Start(error.into())
    }
}

/// Makes a checkpoint that an operator brings from outside the head signed last with the keys of a stopped node, so that
/// it may sign again what extends it. One that is smaller than the record changes nothing.
///
/// # Errors
/// A checkpoint that no key of this ledger signed; one with more entries than the data directory has, or with another
/// root hash than the data has at its size: then this is not the newest copy, or not this ledger.
pub fn trust_checkpoint(options: &NodeOptions, note: &str) -> Result<RepairOutcome, TrustError> {
    let refused = |text: String| TrustError::Refused(text);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let identity = read_identity(&*disk, &options.data_dir).map_err(StartError::from)?;
    let Some(identity) = identity else {
        return Err(refused(format!(
            "`{}` holds no ledger: entries are missing",
            options.data_dir.display()
        )));
    };
    // Held to the end: nothing signs meanwhile.
    let _lock = DirLock::take(&RealDisk, &options.key_dir).map_err(StartError::from)?;
    let keys = KeyDir::open_or_create(&options.key_dir, None, identity.node_id, false)?;
    let signed = SignedCheckpoint::parse(note)
        .map_err(|error| refused(format!("the file is no checkpoint: {error}")))?;
    let settings = store_options(options, IndexKind::Fjall);
    let (store, _) =
        Store::open(disk, &options.data_dir, identity, settings).map_err(StartError::from)?;
    let compared = compare_with(&store, &keys, &signed);
    store.shutdown();
    let head = compared?;
    let recorded = LastSigned::load(&options.key_dir);
    let summary = match recorded {
        Ok(Some(last)) if last.size > head.size => format!(
            "the checkpoint is this ledger's; a larger one, of {} entries, is recorded already, and stays",
            last.size
        ),
        // A damaged record is as good as none; what is there otherwise only moves forward.
        recorded => {
            if matches!(recorded, Err(KeyError::LastSignedDamaged { .. })) {
                LastSigned::discard(&options.key_dir)?;
            }
            head.store(&options.key_dir)?;
            format!(
                "the checkpoint of {} entries is this ledger's and is recorded as signed last: the node signs what \
                 extends it",
                head.size
            )
        }
    };
    Ok(RepairOutcome {
        summary,
        damage: Vec::new(),
    })
}

fn compare_with(
    store: &Store,
    keys: &Keys,
    signed: &SignedCheckpoint,
) -> Result<LastSigned, TrustError> {
    let failed = |error: std::io::Error| {
        TrustError::Start(consensus::ConsensusError::Stopped(error.to_string()).into())
    };
    // What lies behind the last sealed segment counts as far as the log has it.
    consensus::replay(store).map_err(failed)?;
    let named = roster::ledger_keys(store, &keys.origin).map_err(failed)?;
    let known = named.unwrap_or_else(|| LedgerKeys::begin(keys.ledger.first().clone()));
    let verified = known.all().find_map(|key| signed.verify(key).ok());
    let Some(head) = verified else {
        return Err(TrustError::Refused(format!(
            "the checkpoint of `{}` is not signed by a key of this ledger, `{}`",
            signed.checkpoint().origin,
            keys.origin
        )));
    };
    let size = store.applied().tree_size;
    if head.size > size {
        return Err(TrustError::Refused(format!(
            "entries are missing: the checkpoint has {} entries, the data directory {size}",
            head.size
        )));
    }
    let root = store.root_at(head.size).map_err(failed)?;
    if root != head.root {
        return Err(TrustError::Refused(format!(
            "the history differs: the root hash at tree size {} is {root} in the data directory and {} in the checkpoint",
            head.size, head.root
        )));
    }
    Ok(LastSigned {
        origin: keys.origin.clone(),
        size: head.size,
        root,
    })
}

/// Checks or repairs the data directory of a stopped node. `progress` hears what is done and what there is in all.
pub fn repair(
    options: &NodeOptions,
    action: Repair,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairOutcome, StartError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let settings = store_options(options, IndexKind::Fjall);
    let Some(identity) = read_identity(&*disk, &options.data_dir)? else {
        return Err(StartError::Identity {
            rule: format!("`{}` holds no ledger", options.data_dir.display()),
            hint: "--data-dir names the directory of a ledger; `scribe serve` makes a new one"
                .to_owned(),
        });
    };
    if action == Repair::AcceptLoss {
        let report = repair_accept_loss(&disk, &options.data_dir, &settings.log)?;
        if report.damage.is_some() {
            // The index may know what was cut. It is derived data: the next start makes it again.
            let index = options.data_dir.join("index");
            if let Err(error) = std::fs::remove_dir_all(&index)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(consensus::ConsensusError::Stopped(format!(
                    "the log is cut, but `{}` cannot be removed: {error}; remove it by hand",
                    index.display()
                ))
                .into());
            }
        }
        let summary = match report.damage {
            None => "nothing was damaged, nothing was cut".to_owned(),
            Some(reason) => format!(
                "cut {} bytes and {} segment files: {reason}",
                report.cut_bytes,
                report.removed.len()
            ),
        };
        return Ok(RepairOutcome {
            summary,
            damage: Vec::new(),
        });
    }
    let (store, opened) = Store::open(disk, &options.data_dir, identity, settings)?;
    if let Some(reason) = opened.index_incomplete {
        store.shutdown();
        return Ok(RepairOutcome {
            summary: "the key index cannot be completed".to_owned(),
            damage: vec![reason],
        });
    }
    let done = inspect(&store, action, progress);
    store.shutdown();
    let mut outcome = done?;
    let sealed = opened
        .log
        .sealed_damage
        .iter()
        .map(|found| format!("segment {}: {}", found.segment, found.reason));
    outcome.damage.extend(sealed);
    Ok(outcome)
}

fn inspect(
    store: &Store,
    action: Repair,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairOutcome, StartError> {
    let failed = |error: std::io::Error| consensus::ConsensusError::Stopped(error.to_string());
    if action == Repair::RebuildIndex {
        let segments = store.rebuild_index(progress).map_err(failed)?;
        let summary = format!("the key index was made again from {segments} sealed segments");
        return Ok(RepairOutcome {
            summary,
            damage: Vec::new(),
        });
    }
    // What lies behind the last sealed segment is in nobody's index until it is applied again.
    if let Err(error) = consensus::replay(store) {
        return Ok(RepairOutcome {
            summary: "the log cannot be applied again".to_owned(),
            damage: vec![error.to_string()],
        });
    }
    match store.check(progress) {
        Ok(report) => Ok(RepairOutcome {
            summary: format!(
                "{} leaves, {} frames, {} values in {} sealed segments and behind them are what they were; root hash {}",
                report.leaves, report.frames, report.commitments, report.segments, report.root
            ),
            damage: Vec::new(),
        }),
        Err(CheckError::Damage(damage)) => Ok(RepairOutcome {
            summary: "the data directory is damaged".to_owned(),
            damage: vec![damage.to_string()],
        }),
        Err(error) => Err(consensus::ConsensusError::Stopped(error.to_string()).into()),
    }
}
