//! Who a node is, whether its keys belong to its data, and the system entries a ledger begins with.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use scribe_proof::index::TreeSize;
use scribe_proof::leaf::SystemKind;
use tokio::sync::oneshot;

use super::{NodeOptions, StartError, outcome};
use crate::cluster::files::ClusterFiles;
use crate::consensus::{ConsensusError, NodeId};
use crate::hex::Hex;
use crate::keys::{self, KeyDir, Keys, LastSigned};
use crate::limits;
use crate::roster::{key_body, ledger_keys, system_entries};
use crate::sequencer::{Preparer, Reply, Sequencer, Unit};
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::lock::DirLock;
use crate::store::log::LogIdentity;
use crate::store::mend::is_damage;
use crate::store::real_disk::RealDisk;

/// Lies in a data directory while an offline import is not finished.
pub const IMPORTING_FILE: &str = "IMPORTING";

/// A ledger that is half carried over must not go on as if it were whole: it would take the places of what is missing.
pub(super) fn refuse_unfinished_import(options: &NodeOptions) -> Result<(), StartError> {
    let marker = options.data_dir.join(IMPORTING_FILE);
    if options.importing || !marker.exists() {
        return Ok(());
    }
    Err(StartError::Identity {
        rule: format!(
            "an import into `{}` is not finished",
            options.data_dir.display()
        ),
        hint: format!(
            "run the same `scribe import` again, it goes on where it stopped; to keep what is there as it is, remove \
             `{}`",
            marker.display()
        ),
    })
}

/// The keys of this node, locked: two processes that sign with the same keys could sign two histories. A member's that
/// have no record of what was signed last are withheld.
pub(super) fn open_keys(
    options: &NodeOptions,
    node_id: NodeId,
    store: &Store,
    member: bool,
) -> Result<(Arc<Keys>, DirLock), StartError> {
    let data_is_new = store.log().last().is_none() && store.applied().last_log_id.is_none();
    let keys = KeyDir::open_or_create(
        &options.key_dir,
        options.origin.as_deref(),
        node_id,
        data_is_new && !options.importing,
    )?;
    let lock = DirLock::take(&RealDisk, &options.key_dir)?;
    if (member || options.importing) && LastSigned::load(&options.key_dir)?.is_none() {
        keys.withhold(&options.key_dir);
    }
    Ok((Arc::new(keys), lock))
}

/// As [`open_keys`] does for members, for a node that runs alone: once all its log is applied it is known whether the
/// ledger was ever signed with this key. With one that its entries do not name, nothing was.
pub(super) fn check_record(
    options: &NodeOptions,
    store: &Store,
    keys: &Keys,
) -> Result<(), StartError> {
    if keys.withheld().is_some() || LastSigned::load(&options.key_dir)?.is_some() {
        return Ok(());
    }
    let named = match ledger_keys(store, &keys.origin) {
        Ok(named) => named,
        // What cannot be read may well name it.
        Err(error) if is_damage(&error) => None,
        Err(error) => return Err(ConsensusError::Stopped(error.to_string()).into()),
    };
    match named {
        Some(named) if !named.names(keys.ledger.first()) => {
            keys::begin_record(&options.key_dir, &keys.origin)?;
        }
        _ => keys.withhold(&options.key_dir),
    }
    Ok(())
}

/// Who this node is: what data and key directory agree on, or, where both are new, node 1 of a new cluster.
pub(super) fn identity(
    options: &NodeOptions,
    disk: &dyn Disk,
    files: Option<&ClusterFiles>,
) -> Result<LogIdentity, StartError> {
    let found = crate::store::vote::read_identity(disk, &options.data_dir)?;
    let expected = files.map(|files| LogIdentity {
        cluster_id: files.cluster_id,
        node_id: files.node_id,
    });
    match (found, expected) {
        (Some(found), Some(expected)) if found != expected => Err(StartError::Identity {
            rule: format!(
                "the data directory is of node {} of cluster {}, the key directory of node {} of cluster {}",
                found.node_id,
                Hex(&found.cluster_id),
                expected.node_id,
                Hex(&expected.cluster_id)
            ),
            hint: "each node keeps its own two directories: a copy of another node's data is no new node; give it \
                   empty directories and a join token"
                .to_owned(),
        }),
        // Others count on what this node promised and stored; an empty disk under its id would forget both.
        (None, Some(expected)) if files.is_some_and(ClusterFiles::has_started) => {
            Err(StartError::Identity {
                rule: format!(
                    "the data of node {} is gone: `{}` holds none, but it had begun",
                    expected.node_id,
                    options.data_dir.display()
                ),
                hint: format!(
                    "check --data-dir; if the disk is lost, remove node {} (`scribe cluster remove {}` on another node) \
                     and join as a new node with empty directories and a new token",
                    expected.node_id, expected.node_id
                ),
            })
        }
        (Some(found), _) => Ok(found),
        (None, Some(expected)) => Ok(expected),
        (None, None) => Ok(LogIdentity {
            cluster_id: options.world.random(),
            node_id: 1,
        }),
    }
}

/// The head signed last must be in this ledger: else entries are missing, or the keys belong elsewhere.
pub(super) fn check_last_signed(
    options: &NodeOptions,
    store: &Store,
    keys: &Keys,
) -> Result<(), StartError> {
    let Some(last) = LastSigned::load(&options.key_dir)? else {
        return Ok(());
    };
    let size = store.applied().tree_size;
    let hint = "start it with the key directory it was created with, or restore the newest copy of the data; a copy \
                that stays behind must get keys of its own"
        .to_owned();
    if last.origin != keys.origin {
        let rule = format!(
            "the last signed head is of `{}`, the ledger key of `{}`",
            last.origin, keys.origin
        );
        return Err(StartError::Identity { rule, hint });
    }
    if last.size > size {
        let rule = format!(
            "the data directory holds {size} leaves, but a checkpoint of {} was signed with these keys",
            last.size
        );
        return Err(StartError::Identity { rule, hint });
    }
    let root = store
        .root_at(last.size)
        .map_err(|error| ConsensusError::Stopped(error.to_string()))?;
    if root != last.root {
        let rule = format!(
            "the data directory is of another ledger: its root hash at tree size {} is {root}, the one signed with \
             these keys is {}",
            last.size, last.root
        );
        return Err(StartError::Identity { rule, hint });
    }
    Ok(())
}

/// A member's log must reach what this node signed for: an older copy of its data has forgotten entries it promised to
/// keep and votes it gave, and others count on both. Counted generously, so that a true log never fails it.
pub(super) fn check_not_older(store: &Store, key_dir: &Path) -> Result<(), StartError> {
    let Some(last) = LastSigned::load(key_dir)? else {
        return Ok(());
    };
    let failed = |error: std::io::Error| ConsensusError::Stopped(error.to_string());
    if store.signed_before_loss().map_err(failed)? == Some(last.size) {
        // Looked at before its end was cut; this node does not vote before it is there again. What it signed for since was
        // on its disk again.
        return Ok(());
    }
    let mut reach = store.applied().tree_size.get();
    let mut next = store.applied().last_log_id.map_or(0, |id| id.index.0 + 1);
    while reach < last.size.get() {
        let frames = store
            .log()
            .read(next..u64::MAX, limits::REPLICATION_BYTES_MAX)
            .map_err(failed)?;
        let Some(newest) = frames.last() else {
            return Err(StartError::Identity {
                rule: format!(
                    "the data directory holds at most {reach} leaves, but this node signed for a tree of {}: it is an \
                     older copy",
                    last.size
                ),
                hint: "a member never goes back: put the newest data directory back, or remove this node \
                       (`scribe cluster remove` on another) and join as a new one with empty directories"
                    .to_owned(),
            });
        };
        next = newest.log_id.index.0 + 1;
        reach += frames
            .iter()
            .map(|frame| u64::from(frame.count))
            .sum::<u64>();
    }
    Ok(())
}

/// The system entries a ledger begins with: genesis, its key, and each node's key.
pub(super) struct FirstEntries<'a> {
    pub(super) store: &'a Store,
    pub(super) sequencer: &'a Sequencer,
    pub(super) preparer: &'a Preparer,
}

impl FirstEntries<'_> {
    /// Writes what is missing. A crash between two of them is finished by the next start.
    pub(super) async fn write(
        &self,
        options: &NodeOptions,
        node_id: NodeId,
        keys: &Keys,
    ) -> Result<(), StartError> {
        if options.importing || keys.withheld().is_some() {
            return Ok(());
        }
        let empty = self.store.applied().tree_size == TreeSize::EMPTY;
        if empty {
            // It may be on its way already, from an attempt whose outcome is not known: there must be one.
            let body = Bytes::from_static(b"scribe-ledger/genesis/v1\n");
            let genesis =
                |reply| (self.preparer).system_once(SystemKind::Genesis as u16, body, reply);
            self.submit(genesis).await?;
        }
        let ledger_key = key_body(None, 0x01, &keys.ledger.first().public_key());
        let node_key = key_body(Some(node_id), 0x04, &keys.node.verifier_key().public_key());
        let (ledger_known, any_ledger_key) = self.ledger_key_named(keys)?;
        if !ledger_known {
            if any_ledger_key {
                // The entries came from another copy of the ledger: say so before the new key is announced.
                self.append(
                    SystemKind::Restore,
                    Bytes::from_static(b"scribe-ledger/restore/v1\n"),
                )
                .await?;
            }
            self.append(SystemKind::LedgerKey, ledger_key).await?;
        }
        if !self.announced(SystemKind::NodeKey, &node_key)? {
            self.append(SystemKind::NodeKey, node_key).await?;
        }
        Ok(())
    }

    /// Whether the ledger's entries name the key in `ledger.key`, as the newest or one that was replaced, and whether they
    /// name any. One that was replaced is as good: a member that lacks its successor must not begin anew with it.
    fn ledger_key_named(&self, keys: &Keys) -> Result<(bool, bool), StartError> {
        match ledger_keys(self.store, &keys.origin) {
            Ok(Some(named)) => Ok((named.names(keys.ledger.first()), true)),
            Ok(None) => Ok((false, false)),
            Err(error) => unreadable(&error).map(|()| (true, true)),
        }
    }

    /// Whether this body is announced by a system entry of this kind.
    fn announced(&self, kind: SystemKind, body: &Bytes) -> Result<bool, StartError> {
        let mut known = false;
        let visited = system_entries(self.store, |entry| {
            known = entry.subtype == kind as u16 && entry.body == &body[..];
            known
        });
        match visited {
            Ok(()) => Ok(known),
            Err(error) => unreadable(&error).map(|()| true),
        }
    }

    async fn append(&self, kind: SystemKind, body: Bytes) -> Result<(), StartError> {
        self.submit(|reply| self.preparer.system(kind as u16, body, reply))
            .await
    }

    async fn submit(&self, unit: impl FnOnce(Reply) -> Unit) -> Result<(), StartError> {
        let (sender, receiver) = oneshot::channel();
        self.sequencer.submit(unit(Reply::One(sender)));
        outcome(receiver).await?;
        Ok(())
    }
}

/// Damage in a sealed segment must not keep the rest from being served. What cannot be read was announced when it could:
/// announcing it again would be the wrong guess.
fn unreadable(error: &std::io::Error) -> Result<(), StartError> {
    if !is_damage(error) {
        return Err(ConsensusError::Stopped(error.to_string()).into());
    }
    tracing::error!(%error, "a system entry cannot be read");
    Ok(())
}

#[cfg(test)]
mod tests {
    use scribe_proof::index::LeafIndex;

    use super::*;
    use crate::node::Node;

    /// One task runs at a time, so that an attempt can be given up before the sequencer has looked at it.
    #[tokio::test(flavor = "current_thread")]
    async fn a_genesis_whose_outcome_is_unknown_is_not_written_twice() {
        let directory = tempfile::tempdir().unwrap();
        let empty = NodeOptions {
            data_dir: directory.path().join("data"),
            key_dir: directory.path().join("keys"),
            disk_reserve_bytes: 0,
            scrub_bytes_per_second: 0,
            // Leads, and writes nothing by itself.
            importing: true,
            ..NodeOptions::default()
        };
        let node = Node::start(empty.clone()).await.unwrap();
        let first_entries = FirstEntries {
            store: &node.inner.store,
            sequencer: &node.inner.sequencer,
            preparer: &node.inner.preparer,
        };
        let options = NodeOptions {
            importing: false,
            ..empty
        };
        let write = || first_entries.write(&options, 1, &node.inner.keys);
        {
            let mut given_up = std::pin::pin!(write());
            assert!(futures::poll!(&mut given_up).is_pending());
        }
        assert_eq!(node.applied_size(), TreeSize::EMPTY, "its outcome is known");
        write().await.unwrap();
        // And once more: nothing is missing.
        write().await.unwrap();
        let kinds: Vec<u16> = (0..node.applied_size().get())
            .map(|index| {
                let entry = node.inner.store.entry(LeafIndex::new(index)).unwrap();
                entry.unwrap().parse().unwrap().subtype
            })
            .collect();
        let expected = [
            SystemKind::Genesis,
            SystemKind::LedgerKey,
            SystemKind::NodeKey,
        ];
        assert_eq!(kinds, expected.map(|kind| kind as u16));
        node.shutdown().await;
    }
}
