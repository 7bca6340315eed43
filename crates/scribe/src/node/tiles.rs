//! The static read side: tiles and entry bundles below the newest published checkpoint.

use scribe_proof::tile::TilePath;

use super::{Node, Published, ReadError, StoredTile};

impl Node {
    /// A tile or entry bundle that is in memory. Whatever is there was published once, so it is for ever.
    pub fn tile_in_memory(&self, path: &TilePath) -> Option<StoredTile> {
        self.inner.store.tile_in_memory(path)
    }

    /// A tile or entry bundle of the tree a checkpoint covers. May read from disk: not for a task that serves others.
    ///
    /// # Errors
    /// [`ReadError::Invalid`] if the checkpoint does not cover all of it; [`ReadError::Damaged`] if the stored bytes
    /// do not hash to what is above them in the tree.
    pub fn tile(&self, path: &TilePath, published: &Published) -> Result<StoredTile, ReadError> {
        if !path.tile().exists_at(published.size) {
            return Err(ReadError::Invalid(format!(
                "{path} is not in the published tree of {} leaves",
                published.size
            )));
        }
        Ok(self
            .inner
            .store
            .tile(path, published.size, &published.root)?)
    }
}
