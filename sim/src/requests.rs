//! What a client or an operator asks of a node, and how the node answers: calls of [`Node`], carried out in the node's own
//! runtime.

use std::collections::BTreeMap;
use std::time::Duration;

use scribe::node::{AdminError, AppendError, Appended, Change, Entry, Node, ReadError, Write};
use scribe::peer::JoinToken;
use scribe_proof::index::{LeafIndex, TreeSize};
use tokio::sync::oneshot;

/// Most entries one look returns.
const LOOK_MAX: usize = 64;

/// A question with the way back. A node that goes away drops it, and the client never hears.
#[derive(Debug)]
pub enum Request {
    /// Append one entry.
    Write(Write, oneshot::Sender<Result<Appended, AppendError>>),
    /// Linearizable read of a key: the tree size it was read at, and what was there.
    Read(
        Vec<u8>,
        oneshot::Sender<Result<(TreeSize, Option<Entry>), ReadError>>,
    ),
    /// Entries as this node has them, from an index on, perhaps stale; and its tree size.
    Follow(
        LeafIndex,
        oneshot::Sender<Result<(TreeSize, Vec<Entry>), ReadError>>,
    ),
    /// A key as this node has it, perhaps stale: the tree size it was read at, and what was there.
    ReadStale(
        Vec<u8>,
        oneshot::Sender<Result<(TreeSize, Option<Entry>), ReadError>>,
    ),
    /// Hand leadership over.
    Transfer,
    /// A token for one new machine.
    Token(oneshot::Sender<Result<JoinToken, AdminError>>),
    /// Change the membership.
    Administer(Change, oneshot::Sender<Result<(), AdminError>>),
    /// Who belongs to the cluster.
    Membership(oneshot::Sender<Result<Membership, ReadError>>),
}

/// Who belongs to the cluster.
#[derive(Debug)]
pub struct Membership {
    /// Ids of those who did when the question was asked, for certain, and whether they vote.
    pub committed: BTreeMap<u64, bool>,
    /// Addresses and ids of everybody the node knows of.
    pub known: BTreeMap<String, u64>,
}

/// How long a token is good.
const TOKEN_VALIDITY: Duration = Duration::from_secs(3_600);

/// Answers one request.
pub async fn serve(node: Node, request: Request) {
    // Whoever asked may be gone.
    match request {
        Request::Write(write, reply) => drop(reply.send(node.append(write).await)),
        Request::Read(key, reply) => {
            let read = async {
                let size = node.barrier().await?;
                Ok((size, node.latest(&key, size)?))
            };
            drop(reply.send(read.await));
        }
        Request::Follow(from, reply) => {
            let look = || {
                let size = node.applied_size();
                let entries = node.entries(from, LOOK_MAX, 1 << 20)?;
                Ok((size, entries))
            };
            drop(reply.send(look()));
        }
        Request::ReadStale(key, reply) => {
            let size = node.applied_size();
            let found = node.latest(&key, size).map(|found| (size, found));
            drop(reply.send(found));
        }
        Request::Transfer => {
            node.hand_over().await;
        }
        Request::Token(reply) => drop(reply.send(node.join_token(TOKEN_VALIDITY))),
        Request::Administer(change, reply) => drop(reply.send(node.administer(change).await)),
        Request::Membership(reply) => {
            let members = async {
                node.barrier().await?;
                let known = node.members().into_iter();
                Ok(Membership {
                    committed: node.committed_members(),
                    known: known
                        .map(|member| (member.address.raft_addr, member.node_id))
                        .collect(),
                })
            };
            drop(reply.send(members.await));
        }
    }
}
