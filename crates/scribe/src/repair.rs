//! Checking and mending the data directory of a stopped node.
//!
//! A node repairs by itself what a crash can cause. What is here is for a person: reading everything again, making the
//! derived index again, and cutting a damaged log where nothing else is left. Each opens the directory itself, and
//! fails if a node has it open.

use std::path::Path;
use std::sync::Arc;

use crate::node::{Node, NodeOptions, StartError};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::log::LogOptions;
use crate::store::real_disk::RealDisk;
use crate::store::{CheckError, CheckReport, Store, StoreOptions, recovery, vote};

/// Why a repair did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Damage, named with its place.
    #[error("{0}")]
    Damaged(String),
    /// There is no ledger in the directory.
    #[error("no ledger in `{0}`: it has no vote file")]
    NoLedger(String),
    /// The node does not start for another reason.
    #[error(transparent)]
    Start(StartError),
    /// The directory cannot be opened for another reason.
    #[error(transparent)]
    Store(StoreError),
    /// The operating system refused a read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl RepairError {
    /// What to do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Start(error) => error.hint(),
            Self::NoLedger(_) => Some("--data-dir names the directory of a ledger".to_owned()),
            _ => None,
        }
    }
}

impl From<StoreError> for RepairError {
    fn from(error: StoreError) -> RepairError {
        match error {
            StoreError::Damaged { .. } => Self::Damaged(error.to_string()),
            other => Self::Store(other),
        }
    }
}

impl From<StartError> for RepairError {
    fn from(error: StartError) -> RepairError {
        match error {
            StartError::Store(error) => error.into(),
            other => Self::Start(other),
        }
    }
}

/// What cutting a damaged log left.
#[derive(Debug)]
pub struct AcceptedLoss {
    /// The damage the log was cut at; `None` if there was none, and nothing was changed.
    pub damage: Option<String>,
    /// Bytes cut from the damaged file.
    pub cut_bytes: u64,
    /// Files removed because they lay behind it.
    pub removed_files: usize,
}

/// Starts the node without serving it, reads everything again and derives every hash again. Adds no entries.
///
/// # Errors
/// [`RepairError::Damaged`] names the first bad place.
pub async fn check(
    mut options: NodeOptions,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<CheckReport, RepairError> {
    expect_ledger(&options.data_dir)?;
    options.importing = true;
    let node = Node::start(options).await?;
    let checked = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || node.check(progress)).await
    };
    node.shutdown().await;
    match checked {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(CheckError::Damage(damage))) => Err(RepairError::Damaged(damage.to_string())),
        Ok(Err(CheckError::Io(error))) => Err(error.into()),
        Err(stopped) => Err(std::io::Error::other(stopped).into()),
    }
}

/// Makes the key index again from the sealed segments; returns how many there are. It is derived data: a crash here
/// leaves an incomplete index, which the next start completes.
///
/// # Errors
/// Damage in a sealed segment, or what the system refuses.
pub fn rebuild_index(
    options: &NodeOptions,
    progress: impl FnMut(u64, u64),
) -> Result<u64, RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let identity = expect_ledger(&options.data_dir)?;
    let store_options = StoreOptions {
        log: log_options(options),
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(disk, &options.data_dir, identity, store_options)?;
    let rebuilt = store.rebuild_index(progress);
    store.shutdown();
    rebuilt.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => RepairError::Damaged(error.to_string()),
        _ => error.into(),
    })
}

/// Cuts the log before its first damaged frame, **also where entries behind it were acknowledged**. Changes nothing
/// when there is no damage. For a node without peers only.
///
/// # Errors
/// Damage that cutting does not mend (in a sealed segment), or what the system refuses.
pub fn accept_loss(options: &NodeOptions) -> Result<AcceptedLoss, RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    expect_ledger(&options.data_dir)?;
    let report = recovery::repair_accept_loss(&disk, &options.data_dir, &log_options(options))?;
    Ok(AcceptedLoss {
        damage: report.damage,
        cut_bytes: report.cut_bytes,
        removed_files: report.removed.len(),
    })
}

/// Opening a directory that holds no ledger would make one.
fn expect_ledger(data_dir: &Path) -> Result<crate::store::log::LogIdentity, RepairError> {
    vote::read_identity(&RealDisk, data_dir)?
        .ok_or_else(|| RepairError::NoLedger(data_dir.display().to_string()))
}

fn log_options(options: &NodeOptions) -> LogOptions {
    LogOptions {
        segment_bytes_max: options.segment_bytes_max,
        segment_leaves_max: options.segment_leaves_max,
        ..LogOptions::default()
    }
}
