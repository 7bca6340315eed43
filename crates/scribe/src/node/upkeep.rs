//! What a node does for its place in the ledger, over and over: begins a cluster, writes the first entries while it
//! leads, announces its key and address, and asks to become a voter once it has caught up.
//!
//! Every step is safe to repeat, and a crash between two of them is finished by the next start.

use std::sync::Weak;
use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use scribe_proof::leaf::SystemKind;

use super::beginning::FirstEntries;
use super::{Inner, Node, StartError};
use crate::cluster::wire::{AdminAnswer, AdminRequest, Job, StatusAnswer, admin, kind, parts};
use crate::consensus::{Leadership, NodeId, PeerAddress};
use crate::peer::{Lane, Wait};
use crate::roster;

/// How often a node that does not lead looks whether its key is announced and it may vote.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the voters of a new cluster are looked for.
const SEED_INTERVAL: Duration = Duration::from_millis(200);
/// After how many looks those that do not answer are named.
const SEED_LOOKS_QUIET: u32 = 25;
/// How long a node that may sign nothing leads before it hands over.
const WITHHELD_PAUSE: Duration = Duration::from_secs(2);
const CALL: Wait = Wait::Deadline(Duration::from_secs(2));

/// Follows leadership for as long as the node lives.
pub(super) async fn run(inner: Weak<Inner>) {
    let Some(mut leadership) = inner.upgrade().map(|inner| inner.leadership.clone()) else {
        return;
    };
    loop {
        let now = *leadership.borrow_and_update();
        let Some(node) = inner.upgrade().map(|inner| Node { inner }) else {
            return;
        };
        let work = async {
            match now {
                Leadership::Leading { .. } => loop {
                    match lead(&node).await {
                        Ok(()) => return std::future::pending().await,
                        Err(error) => {
                            tracing::warn!(%error, "the first entries are not written yet");
                            tokio::time::sleep(LOOK_INTERVAL).await;
                        }
                    }
                },
                Leadership::Waiting {
                    leader: Some(leader),
                } => follow(&node, leader).await,
                Leadership::Waiting { leader: None } => seek(&node).await,
                Leadership::Stopped => std::future::pending().await,
            }
        };
        tokio::select! {
            () = work => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
        if now == Leadership::Stopped {
            return;
        }
    }
}

/// Closes the connections of each node that was removed, in both directions, as soon as the change is committed here. A
/// connection that stood before it would otherwise stand for as long as the removed node likes.
pub(super) async fn part_with_those_who_left(inner: Weak<Inner>) {
    let Some(consensus) = inner.upgrade().map(|inner| inner.consensus.clone()) else {
        return;
    };
    let left = |id| {
        let Some(inner) = inner.upgrade() else { return };
        if let Some(server) = &*inner.raft_server.lock() {
            server.let_go(id);
        }
        inner.consensus.forget_peer(id);
        tracing::info!(node = id, "a node was removed; its connections are closed");
    };
    consensus.follow_departures(left).await;
}

/// As leader: the ledger has its first entries, the others know this node's address.
pub(super) async fn lead(node: &Node) -> Result<(), StartError> {
    let inner = &node.inner;
    let own = own_address(node);
    let node_id = inner.consensus.node_id();
    inner.consensus.finish_change().await?;
    if inner
        .consensus
        .peer_address(node_id)
        .is_some_and(|known| known != own)
    {
        inner.consensus.set_address(node_id, own).await?;
    }
    if inner.keys.withheld().is_some() {
        // It takes no writes and signs nothing: let somebody lead who can. If nobody can, leadership goes round slowly.
        while !node.is_alone() {
            tokio::time::sleep(WITHHELD_PAUSE).await;
            node.hand_over().await;
        }
        return Ok(());
    }
    // Conditions and idempotency keys are judged by the key index.
    while !node.is_alone() && inner.store.index_is_incomplete() {
        tokio::time::sleep(WITHHELD_PAUSE).await;
        if inner.store.index_is_incomplete() {
            node.hand_over().await;
        }
    }
    let first_entries = FirstEntries {
        store: &inner.store,
        sequencer: &inner.sequencer,
        preparer: &inner.preparer,
    };
    first_entries
        .write(&inner.options, node_id, &inner.keys)
        .await
}

/// As anything else: the leader knows this node's address and key, and makes it a voter when it has caught up. Ends
/// when nothing is left to do; leadership that changes begins it anew.
async fn follow(node: &Node, leader: NodeId) {
    let inner = &node.inner;
    let consensus = &inner.consensus;
    let node_id = consensus.node_id();
    loop {
        let own = own_address(node);
        if consensus
            .peer_address(node_id)
            .is_some_and(|known| known != own)
        {
            let request = new_address(node_id, own);
            ask(node, leader, request, "the new address is not known yet").await;
            // Looked at again: another change may have been under way.
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        }
        let member = consensus
            .members()
            .into_iter()
            .find(|member| member.node_id == node_id);
        if member.is_some() && !announce_key(node).await {
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        }
        match member {
            Some(member) if member.voter || inner.options.stay_learner => {
                std::future::pending::<()>().await;
            }
            Some(_) => {
                let request = AdminRequest {
                    action: admin::PROMOTE,
                    node_id,
                    ..AdminRequest::default()
                };
                ask(node, leader, request, "not a voter yet").await;
            }
            None => {}
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Without a leader that reaches this node. If it came back at another address than the others know, none ever will: so
/// it tells all of them, and the one that leads has the address replicated.
async fn seek(node: &Node) {
    let consensus = &node.inner.consensus;
    let node_id = consensus.node_id();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let own = own_address(node);
        if consensus
            .peer_address(node_id)
            .is_none_or(|known| known == own)
        {
            continue;
        }
        let members = consensus.members();
        let told = members
            .iter()
            .filter(|member| member.node_id != node_id)
            .map(|member| {
                let request = new_address(node_id, own.clone());
                ask(
                    node,
                    member.node_id,
                    request,
                    "the new address is not known yet",
                )
            });
        join_all(told).await;
    }
}

fn new_address(node_id: NodeId, address: PeerAddress) -> AdminRequest {
    AdminRequest {
        action: admin::SET_ADDRESS,
        node_id,
        raft_addr: address.raft_addr,
        http_addr: address.http_addr,
        ..AdminRequest::default()
    }
}

async fn ask(node: &Node, leader: NodeId, request: AdminRequest, otherwise: &'static str) {
    let answer = node
        .inner
        .consensus
        .call(leader, Lane::Forward, kind::ADMIN, parts(&request), CALL)
        .await;
    match answer.map(AdminAnswer::decode) {
        Ok(Ok(answer)) if answer.outcome == admin::DONE => {}
        Ok(Ok(answer)) => tracing::debug!(leader, reason = answer.text, otherwise),
        Ok(Err(error)) => tracing::debug!(leader, %error, otherwise),
        Err(error) => tracing::debug!(leader, %error, otherwise),
    }
}

/// Whether this node's cosigning key is announced; has it announced if not.
async fn announce_key(node: &Node) -> bool {
    let inner = &node.inner;
    let key = inner.keys.node.verifier_key();
    let node_id = inner.consensus.node_id();
    // What is not applied here yet may announce it already.
    if inner.consensus.read_barrier().await.is_err() {
        return false;
    }
    let known = roster::node_keys(&inner.store, &inner.keys.origin);
    match known {
        Ok(known) if known.get(&node_id) == Some(key) => return true,
        Ok(_) => {}
        Err(error) => {
            // It may well be announced: announcing it again would be the wrong guess.
            tracing::debug!(%error, "the announced keys cannot be read");
            return false;
        }
    }
    let body = roster::key_body(Some(node_id), 0x04, &key.public_key());
    let announced = node
        .append_job(Job::System {
            subtype: SystemKind::NodeKey as u16,
            body,
        })
        .await;
    if let Err(error) = &announced {
        tracing::debug!(%error, "this node's key is not announced yet");
    }
    announced.is_ok()
}

fn own_address(node: &Node) -> PeerAddress {
    PeerAddress {
        raft_addr: node.inner.options.raft_addr.clone(),
        http_addr: node.inner.options.http_addr.clone(),
    }
}

/// Gives a new cluster its first membership: the one all its voters have in their files. The voter with the lowest id
/// proposes it, once every other one has answered that it has none either: so a cluster never begins twice.
pub(super) async fn bootstrap(inner: Weak<Inner>) {
    let mut looks = 0;
    loop {
        let Some(node) = inner.upgrade().map(|inner| Node { inner }) else {
            return;
        };
        let missing = match try_bootstrap(&node).await {
            Ok(missing) if missing.is_empty() => return,
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(%error, "the cluster has not begun yet");
                Vec::new()
            }
        };
        looks += 1;
        if looks % SEED_LOOKS_QUIET == 0 {
            tracing::info!(
                ?missing,
                "waiting for the voters this cluster begins with; start them, or check their addresses"
            );
        }
        drop(node);
        tokio::time::sleep(SEED_INTERVAL).await;
    }
}

/// Who is still missing; nobody if there is nothing left to do.
async fn try_bootstrap(node: &Node) -> Result<Vec<NodeId>, StartError> {
    let inner = &node.inner;
    let consensus = &inner.consensus;
    let Some(files) = &inner.files else {
        return Ok(Vec::new());
    };
    if files.joined || consensus.is_initialized().await? {
        return Ok(Vec::new());
    }
    let own = consensus.node_id();
    let mut members = files.members.clone();
    if members.is_empty() {
        members.insert(own, own_address(node));
    }
    if members.keys().next() != Some(&own) {
        // Another one proposes; this node hears of it through its log.
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for (id, address) in members.iter().filter(|(id, _)| **id != own) {
        consensus.register_peer(*id, address.clone());
        let answer = consensus
            .call(*id, Lane::Control, kind::STATUS, Vec::new(), CALL)
            .await;
        match answer.map(StatusAnswer::decode) {
            Ok(Ok(status)) if status.last_log_index.is_none() => {}
            // It has a log: the cluster has begun already, and its leader will find this node.
            Ok(Ok(_)) => {
                consensus.unregister_peers();
                return Ok(Vec::new());
            }
            Ok(Err(_)) | Err(_) => missing.push(*id),
        }
    }
    if missing.is_empty() {
        // From here on the replicated addresses count.
        consensus.unregister_peers();
        consensus.initialize(members).await?;
        tracing::info!("the cluster begins");
    }
    Ok(missing)
}
