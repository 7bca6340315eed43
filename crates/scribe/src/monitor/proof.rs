//! Getting a consistency proof from whoever has one: a node's own, or one computed from tiles.

use std::io;

use scribe_client::{Client, Error};
use scribe_proof::tile::{Tile, TilePath};
use scribe_proof::tree::{HashReader, TILE_WIDTH};
use scribe_proof::{Checkpoint, Hash, ProveError, SignedCheckpoint, TreeSize, consistency};
use tokio::runtime::Handle;

/// Whether two signed checkpoints belong to one growing ledger.
#[derive(Debug)]
pub(super) enum Consistency {
    /// A proof holds.
    Proved,
    /// None can hold, or nobody's does; the reason.
    Refuted(String),
    /// Who answered would not prove it; the reason.
    Refused(String),
    /// Nobody could be asked; the reason.
    Unknown(String),
}

/// Why somebody gave no proof.
enum NoProof {
    Refused(String),
    Unanswered(String),
}

/// Asks `clients`, in this order, until one has a proof that holds.
pub(super) async fn consistent(
    clients: &[&Client],
    one: &SignedCheckpoint,
    other: &SignedCheckpoint,
) -> Consistency {
    let (mut old, mut new) = (one.checkpoint(), other.checkpoint());
    if old.size > new.size {
        (old, new) = (new, old);
    }
    if old.size == new.size || old.size.is_empty() {
        return match consistency::verify(old.size, &old.root, new.size, &new.root, &[]) {
            Ok(()) => Consistency::Proved,
            Err(error) => Consistency::Refuted(error.to_string()),
        };
    }
    let (mut refuted, mut refused, mut unknown) = (None, None, None);
    for client in clients {
        match proof(client, old, new).await {
            // Only the hashes are taken: sizes and roots are those that were signed.
            Ok(hashes) => {
                match consistency::verify(old.size, &old.root, new.size, &new.root, &hashes) {
                    Ok(()) => return Consistency::Proved,
                    Err(error) => refuted = refuted.or(Some(error.to_string())),
                }
            }
            Err(NoProof::Refused(error)) => {
                refused = refused.or(Some(format!("{} says: {error}", client.url())));
            }
            Err(NoProof::Unanswered(error)) => {
                unknown = unknown.or(Some(format!("{}: {error}", client.url())));
            }
        }
    }
    let what = format!("a proof from tree size {} to {}", old.size, new.size);
    match (refuted, refused, unknown) {
        (Some(refuted), ..) => Consistency::Refuted(refuted),
        (_, Some(refused), _) => Consistency::Refused(format!("nobody gives {what}: {refused}")),
        (_, _, Some(unknown)) => {
            Consistency::Unknown(format!("nobody could be asked for {what}: {unknown}"))
        }
        _ => Consistency::Unknown(format!("there is nobody to ask for {what}")),
    }
}

async fn proof(client: &Client, old: &Checkpoint, new: &Checkpoint) -> Result<Vec<Hash>, NoProof> {
    match client.consistency(old.size, new.size).await {
        Ok(proof) => Ok(proof.hashes.into_iter().map(Hash::from).collect()),
        Err(error) if has_no_api(&error) => {
            let reader = TileReader::new(client, new.size);
            let (old, new) = (old.size, new.size);
            let proved = tokio::task::spawn_blocking(move || consistency::prove(&reader, old, new));
            match proved.await {
                Ok(Ok(hashes)) => Ok(hashes),
                Ok(Err(ProveError::Read(error))) => Err(NoProof::Unanswered(error.to_string())),
                Ok(Err(error)) => Err(NoProof::Unanswered(error.to_string())),
                Err(error) => Err(NoProof::Unanswered(error.to_string())),
            }
        }
        // It was understood, and not answered.
        Err(Error::Server(problem)) if (400..500).contains(&problem.status) => {
            Err(NoProof::Refused(problem.detail))
        }
        Err(error) => Err(NoProof::Unanswered(error.to_string())),
    }
}

/// Whether an answer is that of a server of plain files.
pub(super) fn has_no_api(error: &Error) -> bool {
    match error {
        Error::UnexpectedAnswer(_) => true,
        Error::Server(problem) => problem.status == 404 && problem.error_code().is_none(),
        _ => false,
    }
}

/// The tree as a node or a static copy serves it in tiles. Blocks: not for a thread that runs tasks.
pub(super) struct TileReader {
    client: Client,
    size: TreeSize,
    runtime: Handle,
}

impl TileReader {
    /// The tree at a published size.
    pub(super) fn new(client: &Client, size: TreeSize) -> TileReader {
        TileReader {
            client: client.clone(),
            size,
            runtime: Handle::current(),
        }
    }
}

impl HashReader for TileReader {
    type Error = io::Error;

    fn read(&self, level: u8, start: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let tile = Tile::at(level, start / TILE_WIDTH as u64, self.size)
            .ok_or_else(|| wrong(format!("a tree of {} entries has no such tile", self.size)))?;
        let path = TilePath::Hashes(tile);
        let bytes = self
            .runtime
            .block_on(self.client.tile(&path))
            .map_err(|error| wrong(format!("{path}: {error}")))?;
        let (hashes, rest) = bytes.as_chunks::<{ Hash::LENGTH }>();
        let first = (start - tile.start()) as usize;
        let wanted = hashes
            .get(first..first + count)
            .filter(|_| rest.is_empty() && hashes.len() == usize::from(tile.width()))
            .ok_or_else(|| wrong(format!("{path} has {} bytes", bytes.len())))?;
        out.extend(wanted.iter().map(|hash| Hash(*hash)));
        Ok(())
    }
}
