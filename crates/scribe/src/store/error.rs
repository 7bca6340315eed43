//! Why the local store cannot be opened or used, shaped by what an operator can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the store.
///
/// Everything but [`StoreError::Io`] is a verdict about what is on disk and stays the same on a retry.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `sync` …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The first error.
        #[source]
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error(
        "{} is locked by another process\nhint: stop the other `scribe`, or name another --data-dir",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, this node is configured for {expected}\nhint: name the data directory of this \
         cluster, or an empty one",
        path.display()
    )]
    OtherCluster {
        /// The data directory or file.
        path: PathBuf,
        /// Cluster id found, in hex.
        found: String,
        /// Cluster id expected, in hex.
        expected: String,
    },
    /// The directory belongs to another node of the cluster.
    #[error(
        "{} belongs to node {found}, this node is {expected}\nhint: node ids are never reused: a copied or wiped \
         directory joins under a new id",
        path.display()
    )]
    OtherNode {
        /// The data directory or file.
        path: PathBuf,
        /// Node id found.
        found: u64,
        /// Node id expected.
        expected: u64,
    },
    /// The files were written by a later release.
    #[error(
        "{} has format {found}, this release reads up to {supported}\nhint: start it with the release that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version this release reads.
        supported: u32,
    },
    /// Bytes that were acknowledged are no longer what was written. Nothing was changed on disk.
    #[error(
        "{} is damaged at byte {offset}: {reason}\nhint: replace this node under a new id (`scribe cluster`); only a \
         node without peers may cut its log there with `scribe repair --accept-loss`",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The rule, the value found, the value allowed.
        reason: String,
    },
    /// An earlier write or sync failed; nothing is written any more.
    #[error("the store stopped after an earlier failure: {first}")]
    Poisoned {
        /// The first error, as text.
        first: String,
    },
}

impl StoreError {
    /// An operating-system error with its context.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether bytes on disk are wrong, missing, or on a sector that is gone.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => super::mend::is_damage(source),
            _ => false,
        }
    }

    /// Damage at a place in a file.
    pub fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            offset,
            reason: reason.into(),
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Io { source, .. } => source.kind(),
            StoreError::Damaged { .. } | StoreError::NewerFormat { .. } => {
                io::ErrorKind::InvalidData
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Adds the action and the file to an [`io::Result`].
pub(crate) trait IoContext<T> {
    /// Names what was tried and on which file.
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(action, path, source))
    }
}
