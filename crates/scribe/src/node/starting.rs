//! Starting and stopping a node: who it is, its parts in the order they need each other, its place in a cluster.
//!
//! A node that runs alone leads before [`Node::start`] returns. A member of a cluster answers its peers as soon as its
//! log is open, and the rest follows from leadership ([`super::upkeep`]): a follower must not wait for anything that
//! needs a majority.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scribe_proof::index::TreeSize;
use tokio::task::JoinHandle;

use super::background::{follow_seals, start_scrubber, watch_disk};
use super::beginning::{
    check_last_signed, check_not_older, check_record, identity, open_keys, refuse_unfinished_import,
};
use super::serving::Service;
use super::{
    Inner, Node, NodeOptions, RECOVERY_TIMEOUT, ScrubStats, StartError, mending, rotation,
    store_options, upkeep,
};
use crate::barrier::ReadBarrier;
use crate::cluster::files::ClusterFiles;
use crate::cluster::forward::Forwarder;
use crate::consensus::{
    ConsensusError, ConsensusNode, NodeId, PeerAddress, Transport, others_can_lead,
};
use crate::keys::{Keys, LastSigned};
use crate::peer::net::TcpListener;
use crate::peer::{PeerOptions, Pool, Security, Server};
use crate::publisher::Publisher;
use crate::sequencer::{Preparer, Sequencer};
use crate::store::disk::Disk;
use crate::store::index::IndexKind;
use crate::store::lock::DirLock;
use crate::store::real_disk::RealDisk;
use crate::store::{OpenReport, RestoreRule, Store};

/// What opening the directories gave.
struct Opened {
    store: Store,
    open_report: OpenReport,
    node_id: NodeId,
    keys: Arc<Keys>,
    key_lock: DirLock,
    files: Option<ClusterFiles>,
}

/// The Raft port, bound and not served yet.
struct RaftPort {
    listener: TcpListener,
    options: PeerOptions,
}

impl Node {
    /// Opens the directories, recovers, and takes its place: a node that runs alone leads and has written the first
    /// entries of a new ledger when this returns; a member of a cluster listens to its peers.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        Self::start_on(options, Arc::new(RealDisk), IndexKind::Fjall).await
    }

    /// As [`Node::start`], on a disk and an index of the caller's making.
    pub async fn start_on(
        options: NodeOptions,
        disk: Arc<dyn Disk>,
        index: IndexKind,
    ) -> Result<Self, StartError> {
        refuse_unfinished_import(&options)?;
        let mut options = options;
        let files = ClusterFiles::load(&options.key_dir)?;
        let port = match &files {
            Some(files) => Some(open_port(&mut options, files).await?),
            None => None,
        };
        let opened = open(&options, disk, index, files).await?;
        let store = opened.store.clone();
        let pool = port.as_ref().map(|port| Pool::new(port.options.clone()));
        let transport = Transport::new(pool, options.raft_addr.clone());
        let consensus =
            ConsensusNode::start(opened.node_id, store.clone(), options.consensus, transport).await;
        let consensus = match consensus {
            Ok(consensus) => consensus,
            Err(error) => {
                store.shutdown();
                return Err(error.into());
            }
        };
        let started = Self::run(options, opened, consensus.clone(), port).await;
        if started.is_err() {
            let _ = consensus.shutdown().await;
            store.shutdown();
        }
        started
    }

    async fn run(
        options: NodeOptions,
        opened: Opened,
        consensus: ConsensusNode,
        port: Option<RaftPort>,
    ) -> Result<Self, StartError> {
        let Opened {
            store,
            open_report,
            node_id,
            keys,
            key_lock,
            files,
        } = opened;
        let own_address = PeerAddress {
            raft_addr: options.raft_addr.clone(),
            http_addr: options.http_addr.clone(),
        };
        let alone = files.is_none();
        if alone {
            if !consensus.is_initialized().await? {
                let members = BTreeMap::from([(node_id, own_address.clone())]);
                consensus.initialize(members).await?;
            }
            let voters = consensus.voters();
            // A group that was just begun has none to name yet.
            if voters.iter().any(|id| *id != node_id) {
                return Err(StartError::Identity {
                    rule: format!(
                        "`{}` holds the data of node {node_id} of a cluster with the voters {voters:?}, but `{}` is not \
                         that node's key directory",
                        options.data_dir.display(),
                        options.key_dir.display()
                    ),
                    hint: "a copy of a member's data is no node: join with empty directories and a token, or begin a new \
                           ledger with it (`scribe export`, then `scribe import`)"
                        .to_owned(),
                });
            }
            // Leading with an entry of the own term applied means: everything the log holds is applied too.
            consensus.wait_leading(RECOVERY_TIMEOUT).await?;
            check_last_signed(&options, &store, &keys)?;
            check_record(&options, &store, &keys)?;
        }
        let disk_full = Arc::new(AtomicBool::new(false));
        let (sequencer, sequencer_task) = Sequencer::start(
            consensus.clone(),
            store.clone(),
            options.world.clone(),
            Arc::clone(&disk_full),
        );
        let preparer = Preparer::new(options.world.clone(), options.value_length_max);
        let (publisher, publisher_task) = Publisher::start(
            consensus.clone(),
            store.clone(),
            Arc::clone(&keys),
            options.key_dir.clone(),
            options.world.clone(),
            Duration::from_millis(options.publish_interval_ms),
            options.witnesses.clone(),
            LastSigned::load(&options.key_dir)?.map_or(TreeSize::EMPTY, |last| last.size),
        );
        let disk_task = watch_disk(
            store.clone(),
            options.disk_reserve_bytes,
            Arc::clone(&disk_full),
        );
        let purge_task = follow_seals(store.clone(), consensus.clone());
        let scrub = Arc::new(ScrubStats::default());
        let scrubber = start_scrubber(&store, options.scrub_bytes_per_second, Arc::clone(&scrub));
        let tls = port.as_ref().and_then(|port| match &port.options.security {
            Security::Tls(identity) => Some(Arc::clone(identity)),
            Security::Plain => None,
        });
        let node = Self {
            inner: Arc::new(Inner {
                barrier: ReadBarrier::start(consensus.clone()),
                forwarder: Forwarder::start(consensus.clone()),
                leadership: consensus.leadership(),
                store,
                consensus,
                sequencer,
                publisher,
                preparer,
                keys,
                key_lock: Mutex::new(Some(key_lock)),
                options,
                open_report,
                disk_full,
                leaving: AtomicBool::new(false),
                begun: AtomicBool::new(false),
                scrub,
                scrubber: Mutex::new(scrubber),
                mended: Arc::default(),
                tasks: Mutex::new(vec![sequencer_task, publisher_task, disk_task, purge_task]),
                files,
                tls,
                raft_server: Mutex::new(None),
                rotating: tokio::sync::Mutex::new(()),
            }),
        };
        if let Some(port) = port {
            let service = Arc::new(Service::new(&node));
            let server = Server::start(port.listener, port.options, service)
                .await
                .map_err(|error| listen_error(&node.inner.options.raft_addr, &error))?;
            *node.inner.raft_server.lock() = Some(server);
            node.spawn(upkeep::bootstrap(Arc::downgrade(&node.inner)));
            node.spawn(rotation::keep_up(Arc::downgrade(&node.inner)));
            node.spawn(upkeep::part_with_those_who_left(Arc::downgrade(
                &node.inner,
            )));
        } else {
            upkeep::lead(&node).await?;
        }
        node.spawn(upkeep::run(Arc::downgrade(&node.inner)));
        node.spawn(mending::run(Arc::downgrade(&node.inner)));
        node.spawn(mending::restore(Arc::downgrade(&node.inner)));
        Ok(node)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle: JoinHandle<()> = tokio::spawn(task);
        self.inner.tasks.lock().push(handle);
    }

    /// Prepares a planned stop while clients are still served: the node is not ready any more, and a leader hands
    /// leadership to another voter. What clients send until [`Node::shutdown`] goes to that one.
    pub async fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
        self.hand_over().await;
    }

    /// Stops: a leader hands leadership to another voter first, no new writes are taken, what was proposed is settled,
    /// the Raft core ends, the store is closed. A kill at any point loses nothing that was acknowledged.
    pub async fn shutdown(&self) {
        self.leave().await;
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        drop(self.inner.scrubber.lock().take());
        let server = self.inner.raft_server.lock().take();
        if let Err(error) = self.inner.consensus.shutdown().await {
            tracing::warn!(%error, "the Raft core did not stop cleanly");
        }
        if let Some(server) = server {
            server.shutdown().await;
        }
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // A task that is just writing the last signed head finishes that first.
            let _ = task.await;
        }
        drop(self.inner.key_lock.lock().take());
        let store = self.inner.store.clone();
        let _ = crate::blocking::run(move || store.shutdown()).await;
    }
}

/// Binds the Raft port of a member and puts the port it got into its address.
async fn open_port(
    options: &mut NodeOptions,
    files: &ClusterFiles,
) -> Result<RaftPort, StartError> {
    let wanted = match options.raft_listen.as_str() {
        "" => options.raft_addr.clone(),
        listen => listen.to_owned(),
    };
    let listener = TcpListener::bind(&wanted)
        .await
        .map_err(|error| listen_error(&wanted, &error))?;
    let bound = listener
        .local_addr()
        .map_err(|error| listen_error(&wanted, &error))?;
    if let Some(host) = options.raft_addr.strip_suffix(":0") {
        options.raft_addr = format!("{host}:{}", bound.port());
    }
    let security = if options.raft_plaintext {
        tracing::warn!("nodes talk in plain text: whoever reaches the Raft port is believed");
        Security::Plain
    } else {
        Security::Tls(files.tls_identity()?)
    };
    let peer_options = PeerOptions {
        cluster_id: files.cluster_id,
        node_id: files.node_id,
        security,
        timeouts: options.peer_timeouts.clone(),
        forward_connections: FORWARD_CONNECTIONS,
    };
    Ok(RaftPort {
        listener,
        options: peer_options,
    })
}

/// Connections to the leader for clients' writes.
const FORWARD_CONNECTIONS: usize = 4;

fn listen_error(address: &str, error: &std::io::Error) -> StartError {
    StartError::Identity {
        rule: format!("cannot listen on {address} for other nodes: {error}"),
        hint: "--raft-addr is the address others use, --raft-listen the one to bind if it differs"
            .to_owned(),
    }
}

/// Opens data and keys, after making sure that they are this node's.
async fn open(
    options: &NodeOptions,
    disk: Arc<dyn Disk>,
    index: IndexKind,
    files: Option<ClusterFiles>,
) -> Result<Opened, StartError> {
    let identity = identity(options, &*disk, files.as_ref())?;
    let mut store_options = store_options(options, index);
    if files.is_some() {
        let signed = LastSigned::load(&options.key_dir)?.map_or(TreeSize::EMPTY, |last| last.size);
        store_options.restore = Some(RestoreRule {
            signed,
            others_can_lead,
        });
    }
    let data_dir = options.data_dir.clone();
    // Recovery reads files and may hash a segment or two: not on a task that serves others.
    let (store, open_report) =
        crate::blocking::run(move || Store::open(disk, &data_dir, identity, store_options))
            .await
            .map_err(|error| ConsensusError::Stopped(error.to_string()))??;
    let incomplete = open_report.index_incomplete.as_ref();
    if let (None, Some(reason)) = (&files, incomplete) {
        // Nobody can send what is missing.
        store.shutdown();
        return Err(StartError::Identity {
            rule: format!("the key index cannot be made: {reason}"),
            hint: "restore the segment from a good copy".to_owned(),
        });
    }
    let checked = if files.is_some() {
        let (store, key_dir) = (store.clone(), options.key_dir.clone());
        crate::blocking::run(move || check_not_older(&store, &key_dir))
            .await
            .map_err(|error| ConsensusError::Stopped(error.to_string()).into())
            .and_then(|checked| checked)
    } else {
        // A node alone is asked once all of its log is applied.
        Ok(())
    };
    let keys = checked.and_then(|()| open_keys(options, identity.node_id, &store, files.is_some()));
    let keys = keys.and_then(|keys| {
        // The data directory has its identity by now. A crash right here leaves it without the mark; the next start
        // sets it before anything is promised.
        if let Some(files) = &files {
            files.mark_started()?;
        }
        Ok(keys)
    });
    match keys {
        Ok((keys, key_lock)) => Ok(Opened {
            store,
            open_report,
            node_id: identity.node_id,
            keys,
            key_lock,
            files,
        }),
        Err(error) => {
            store.shutdown();
            Err(error)
        }
    }
}
