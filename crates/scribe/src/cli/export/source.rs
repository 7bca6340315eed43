//! Where an export of tiles comes from: a running node, or the directories of a stopped one. Nothing from either is
//! believed here.

use std::sync::Arc;

use bytes::Bytes;
use scribe_client::Client;
use scribe_proof::index::TreeSize;
use scribe_proof::tile::TilePath;

use super::super::output::Failure;
use super::super::transfer::Carried;
use crate::limits;
use crate::node::{Node, Published};

/// A running node, or a stopped one's directories.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Server(Client),
    Directory(Node, Arc<Published>),
}

impl Source {
    /// The newest checkpoint of a stopped node. None is kept on disk, so its keys sign one over all it has.
    pub(super) async fn of_directory(node: Node) -> Result<Source, Failure> {
        let size = node.applied_size();
        if size == TreeSize::EMPTY {
            return Err(Failure::user(
                "the ledger has no entries, so there is no checkpoint of it",
            ));
        }
        let published = node.publish(size).await.map_err(|error| {
            Failure::unexpected(format!("no checkpoint can be signed: {error}"))
                .hint("the ledger key and the node key are needed: --key-dir names their directory")
        })?;
        Ok(Source::Directory(node, published))
    }

    /// The newest checkpoint, byte for byte.
    pub(super) async fn checkpoint(&self) -> Result<String, Failure> {
        match self {
            Source::Server(client) => Ok(client.checkpoint_text().await?),
            Source::Directory(_, published) => Ok(published.note.clone()),
        }
    }

    /// A tile or an entry bundle.
    pub(super) async fn tile(&self, path: TilePath) -> Result<Bytes, Failure> {
        match self {
            Source::Server(client) => Ok(client.tile(&path).await?),
            Source::Directory(node, published) => {
                let (node, published) = (node.clone(), Arc::clone(published));
                let read = tokio::task::spawn_blocking(move || node.tile(&path, &published)).await;
                let tile = read
                    .map_err(|error| Failure::unexpected(format!("reading stopped: {error}")))?
                    .map_err(failed)?;
                Ok(tile.bytes)
            }
        }
    }

    /// Consecutive entries with what opens them, from index `from` on: some, at most `limit`.
    pub(super) async fn entries(
        &self,
        from: u64,
        limit: u64,
    ) -> Result<Vec<(u64, Carried)>, Failure> {
        let entries = match self {
            Source::Server(client) => {
                // What is published is applied: nobody else needs to be asked.
                let page = client
                    .entries(from)
                    .limit(limit)
                    .raw()
                    .stale()
                    .send()
                    .await?;
                let carried = page.entries.iter().map(|view| {
                    let carried = Carried::from_view(view).map_err(|error| {
                        Failure::verification(format!("entry {}: {error}", view.index))
                    })?;
                    Ok((view.index, carried))
                });
                carried.collect::<Result<Vec<_>, Failure>>()?
            }
            Source::Directory(node, _) => {
                let (node, from) = (node.clone(), scribe_proof::LeafIndex::new(from));
                let limit = limit as usize;
                let read = tokio::task::spawn_blocking(move || {
                    node.entries(from, limit, limits::PAGE_BYTES_MAX)
                });
                let entries = read
                    .await
                    .map_err(|error| Failure::unexpected(format!("reading stopped: {error}")))?
                    .map_err(failed)?;
                entries
                    .into_iter()
                    .map(|entry| {
                        let carried = Carried {
                            leaf: entry.leaf,
                            private: entry.private,
                        };
                        (entry.index.get(), carried)
                    })
                    .collect()
            }
        };
        if entries.is_empty() {
            return Err(Failure::unexpected(format!(
                "the ledger has no entries from index {from} on"
            )));
        }
        Ok(entries)
    }

    /// Stops the node of a stopped node's directories.
    pub(super) async fn close(self) {
        if let Source::Directory(node, _) = self {
            node.shutdown().await;
        }
    }
}

fn failed(error: crate::node::ReadError) -> Failure {
    match error {
        crate::node::ReadError::Damaged(_) => Failure::verification(error.to_string())
            .hint("`scribe repair` checks the directory of a stopped node"),
        other => Failure::unexpected(other.to_string()),
    }
}
