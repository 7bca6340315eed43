//! Looking at a stopped node's data, and mending what can be mended.
//!
//! Works on the directories alone: no consensus runs, nothing is appended. A node repairs by itself what a crash can
//! cause; this is for bytes that changed on the disk.

use std::sync::Arc;

use crate::consensus;
use crate::node::{NodeOptions, StartError, store_options};
use crate::store::disk::Disk;
use crate::store::index::IndexKind;
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
