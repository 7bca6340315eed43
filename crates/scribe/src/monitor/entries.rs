//! New entries between two checkpoints: read, checked one by one, and put into a tree whose root must be the signed one.

use scribe_client::verify::check_entry;
use scribe_client::wire::Kind as EntryKind;
use scribe_client::{Client, Error};
use scribe_proof::tile::{Tile, TilePath, parse_bundle};
use scribe_proof::tree::{Frontier, TILE_WIDTH};
use scribe_proof::{Hash, Leaf, SignedCheckpoint, TreeSize, leaf_hash};

use super::Kind;
use super::proof::{TileReader, has_no_api};
use crate::limits;

/// Entries looked at to find one of a user's behind a checkpoint: the few system entries a cluster adds come in no
/// checkpoint of their own.
const LOOK_AHEAD: u64 = 32;

/// Derives the tree from the accepted checkpoint to a newer one. Returns its right edge.
///
/// # Errors
/// What does not hold ([`Kind::Entries`]), or that somebody could not be asked ([`Kind::Unproved`]).
pub(super) async fn read(
    client: &Client,
    accepted: &SignedCheckpoint,
    frontier: Option<Frontier>,
    signed: &SignedCheckpoint,
) -> Result<Frontier, (Kind, String)> {
    let (old, new) = (accepted.checkpoint(), signed.checkpoint());
    let mut frontier = match frontier.filter(|edge| edge.size() == old.size) {
        Some(frontier) => frontier,
        // After a start: the edge comes from tiles, and must have the root that was accepted.
        None => edge(client, old.size, new.size).await?,
    };
    if frontier.root() != old.root {
        return Err((
            Kind::Entries,
            format!(
                "its tiles do not give the root hash accepted at tree size {}",
                old.size
            ),
        ));
    }
    while frontier.size() < new.size {
        let from = frontier.size();
        let hashes = match page(client, from, new.size).await {
            Err(Failed::NoApi) => bundle(client, from, new.size).await,
            other => other,
        };
        match hashes {
            Ok(hashes) if hashes.is_empty() => {
                let message = format!("it sent no entries from index {from} on, of {}", new.size);
                return Err((Kind::Unproved, message));
            }
            Ok(hashes) => frontier.append_many(&hashes),
            Err(Failed::Wrong(message)) => return Err((Kind::Entries, message)),
            Err(Failed::Unanswered(message)) => return Err((Kind::Unproved, message)),
            Err(Failed::NoApi) => return Err((Kind::Unproved, "it has no entries".to_owned())),
        }
    }
    match frontier.root() == new.root {
        true => Ok(frontier),
        false => Err((
            Kind::Entries,
            format!(
                "entries {} to {} do not give the signed root hash {}",
                old.size, new.size, new.root
            ),
        )),
    }
}

enum Failed {
    /// It serves plain files.
    NoApi,
    Unanswered(String),
    Wrong(String),
}

async fn edge(client: &Client, old: TreeSize, new: TreeSize) -> Result<Frontier, (Kind, String)> {
    let reader = TileReader::new(client, new);
    let read = tokio::task::spawn_blocking(move || Frontier::from_reader(&reader, old)).await;
    match read {
        Ok(Ok(frontier)) => Ok(frontier),
        Ok(Err(error)) => Err((Kind::Unproved, error.to_string())),
        Err(error) => Err((Kind::Unproved, error.to_string())),
    }
}

/// Leaf hashes of the next entries, each checked against its value.
async fn page(client: &Client, from: TreeSize, size: TreeSize) -> Result<Vec<Hash>, Failed> {
    let limit = (size.get() - from.get()).min(limits::PAGE_LIMIT_MAX as u64);
    let page = client.entries(from.get()).limit(limit).raw().stale();
    let page = match page.send().await {
        Ok(page) => page,
        Err(error) if has_no_api(&error) => return Err(Failed::NoApi),
        Err(error) => return Err(Failed::Unanswered(error.to_string())),
    };
    let mut hashes = Vec::with_capacity(page.entries.len());
    for entry in page.entries.iter().take(limit as usize) {
        let expected = from.get() + hashes.len() as u64;
        if entry.index != expected {
            let message = format!("found entry {}, expected {expected}", entry.index);
            return Err(Failed::Wrong(message));
        }
        hashes.push(check_entry(entry).map_err(|error| Failed::Wrong(error.to_string()))?);
    }
    Ok(hashes)
}

/// The same from a bundle of leaves; values are not in it.
async fn bundle(client: &Client, from: TreeSize, size: TreeSize) -> Result<Vec<Hash>, Failed> {
    let index = from.get() / TILE_WIDTH as u64;
    let Some(tile) = Tile::at(0, index, size) else {
        return Err(Failed::Wrong(format!("there is no entry {from}")));
    };
    let path = TilePath::Entries(tile);
    let bytes = client
        .tile(&path)
        .await
        .map_err(|error: Error| Failed::Unanswered(error.to_string()))?;
    let leaves = parse_bundle(&bytes, tile.width())
        .map_err(|error| Failed::Wrong(format!("{path}: {error}")))?;
    let skip = (from.get() - tile.start()) as usize;
    leaves[skip..]
        .iter()
        .map(|leaf| match Leaf::parse(leaf) {
            Ok(_) => Ok(leaf_hash(leaf)),
            Err(error) => Err(Failed::Wrong(format!("{path}: {error}"))),
        })
        .collect()
}

/// Whether a node says that it has entries of users behind its checkpoint. Its word is enough for a warning.
pub(super) async fn user_entries_behind(client: &Client, published: TreeSize) -> bool {
    let page = client.entries(published.get()).limit(LOOK_AHEAD).stale();
    page.send().await.is_ok_and(|page| {
        let mut entries = page.entries.iter();
        entries.any(|entry| entry.kind != EntryKind::System)
    })
}
