//! The calling side: long-lived connections to other nodes, one per target and lane (a few on the forward lane), made
//! when first needed and again after they broke, with growing pauses while a node cannot be reached.
//!
//! Decides nothing about repeating a call: only the caller knows whether that is safe.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::{Dial, Patience};
use super::frame::Totals;
use super::pki::PeerName;
use super::slot::Slot;
use super::{CallError, Lane, NodeId, PeerOptions, PeerTimeouts, Security, Wait};

/// Connections to other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: PeerOptions,
    targets: Mutex<BTreeMap<NodeId, Arc<Target>>>,
    next_forward: AtomicUsize,
}

/// One other node.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub totals: Arc<Totals>,
    pub open: Arc<AtomicU64>,
    slots: Mutex<HashMap<(Lane, usize), Arc<Slot>>>,
    opened: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    last_rtt_us: AtomicU64,
}

/// Counts of one target since the pool was made (or the target forgotten).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStats {
    /// The node.
    pub target: NodeId,
    /// Connections ever made.
    pub connections_opened: u64,
    /// Connections standing now.
    pub connections_open: u64,
    /// Calls begun.
    pub calls: u64,
    /// Calls that got no answer. An error from the other node's handler is an answer.
    pub failures: u64,
    /// Bytes sent, before encryption.
    pub bytes_sent: u64,
    /// Bytes received, after decryption.
    pub bytes_received: u64,
    /// How long the last answered call took, in microseconds. Zero before the first.
    pub last_rtt_us: u64,
}

impl Target {
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }
}

impl Pool {
    /// No connection is made before it is needed.
    pub fn new(options: PeerOptions) -> Pool {
        Pool {
            inner: Arc::new(Inner {
                options,
                targets: Mutex::default(),
                next_forward: AtomicUsize::new(0),
            }),
        }
    }

    /// How long it waits for what.
    pub fn timeouts(&self) -> &PeerTimeouts {
        &self.inner.options.timeouts
    }

    /// Asks a node and waits for its answer. The parts are sent one after another as one body, long ones without being
    /// copied. Dropping the future gives the call up; what was sent of it stays sent.
    ///
    /// While the connection stands and has room, calls leave in the order in which their futures are first polled.
    pub async fn call(
        &self,
        target: NodeId,
        address: &str,
        lane: Lane,
        kind: u8,
        parts: Vec<Bytes>,
        wait: Wait,
    ) -> Result<Bytes, CallError> {
        let started = Instant::now();
        let patience = Patience::from(wait);
        let node = Arc::clone(self.inner.targets.lock().entry(target).or_default());
        node.calls.fetch_add(1, Relaxed);
        let slot = self.slot(&node, address, lane);
        let dial = || self.dial(target, address, lane);
        let answer = match slot.connection(&node, dial, patience).await {
            Ok(connection) => connection.call(kind, parts, patience).await,
            Err(error) => Err(error),
        };
        match &answer {
            Ok(_) | Err(CallError::Remote { .. }) => {
                let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                node.last_rtt_us.store(us.max(1), Relaxed);
            }
            Err(_) => {
                node.failures.fetch_add(1, Relaxed);
            }
        }
        answer
    }

    /// Closes the connections to a node: it was removed, or lives elsewhere now. Calls under way end as lost.
    pub fn forget(&self, target: NodeId) {
        let node = self.inner.targets.lock().remove(&target);
        if let Some(node) = node {
            for (_, slot) in node.slots.lock().drain() {
                slot.close("the node was removed");
            }
        }
    }

    /// Ends the pause after failed connections to a node: it has just been heard of, by a connection of its own.
    pub fn retry_now(&self, target: NodeId) {
        let node = self.inner.targets.lock().get(&target).cloned();
        if let Some(node) = node {
            for slot in node.slots.lock().values() {
                slot.retry_now();
            }
        }
    }

    /// Counts, by target.
    pub fn stats(&self) -> Vec<PeerStats> {
        let targets = self.inner.targets.lock();
        targets
            .iter()
            .map(|(target, node)| PeerStats {
                target: *target,
                connections_opened: node.opened.load(Relaxed),
                connections_open: node.open.load(Relaxed),
                calls: node.calls.load(Relaxed),
                failures: node.failures.load(Relaxed),
                bytes_sent: node.totals.sent.load(Relaxed),
                bytes_received: node.totals.received.load(Relaxed),
                last_rtt_us: node.last_rtt_us.load(Relaxed),
            })
            .collect()
    }

    fn slot(&self, node: &Target, address: &str, lane: Lane) -> Arc<Slot> {
        let number = match lane {
            Lane::Forward => {
                self.inner.next_forward.fetch_add(1, Relaxed)
                    % self.inner.options.forward_connections.max(1)
            }
            _ => 0,
        };
        let mut slots = node.slots.lock();
        let slot = slots
            .entry((lane, number))
            .or_insert_with(|| Arc::new(Slot::new(address)));
        if slot.address() != address {
            slot.close("the node has another address now");
            *slot = Arc::new(Slot::new(address));
        }
        Arc::clone(slot)
    }

    fn dial(&self, target: NodeId, address: &str, lane: Lane) -> Dial {
        let options = &self.inner.options;
        let tls = match &options.security {
            Security::Plain => None,
            Security::Tls(identity) => {
                let name = PeerName {
                    cluster_id: options.cluster_id,
                    node_id: target,
                };
                Some((identity.client(), name.dns()))
            }
        };
        Dial {
            address: address.to_owned(),
            tls,
            lane,
            cluster_id: options.cluster_id,
            sender: options.node_id,
            target: Some(target),
            timeouts: options.timeouts.clone(),
        }
    }
}

impl From<Wait> for Patience {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Deadline(deadline) => Patience::Until(Instant::now() + deadline),
            Wait::Progress(patience) => Patience::Progress(patience),
        }
    }
}
