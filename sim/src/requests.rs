//! What a client asks of a node, and how the node answers: calls of [`Node`], carried out in the node's own runtime.

use scribe::node::{AppendError, Appended, Entry, Node, ReadError, Write};
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
    /// Hand leadership over.
    Transfer,
}

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
        Request::Transfer => {
            node.hand_over().await;
        }
    }
}
