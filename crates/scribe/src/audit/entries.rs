//! The rules one entry after another must keep, wherever the entries come from.
//!
//! Pure: bytes in, a leaf hash or the broken rule out.

use scribe_proof::leaf::{Leaf, LeafKind};

use super::checkpoint::Announced;
use crate::ledger::batch::Opening;

/// Follows the entries in order.
#[derive(Debug, Default, Clone)]
pub(super) struct EntryRules {
    /// Timestamp of the first and the last entry so far.
    pub(super) first_timestamp_ms: Option<u64>,
    pub(super) last_timestamp_ms: u64,
    /// Position the next leaf of the transaction under way must have, and the transaction's length.
    transaction: Option<(u16, u16)>,
    pub(super) values: u64,
    pub(super) system_entries: u64,
    pub(super) announced: Announced,
}

/// What a broken rule is about, to be given a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) key: Vec<u8>,
    pub(super) reason: String,
}

impl EntryRules {
    /// Rules for entries that follow one with this timestamp; no transaction is under way.
    pub(super) fn after(last_timestamp_ms: u64) -> EntryRules {
        EntryRules {
            last_timestamp_ms,
            ..EntryRules::default()
        }
    }

    /// Checks the leaf alone and its place among its neighbours, and returns it taken apart.
    pub(super) fn leaf<'a>(&mut self, bytes: &'a [u8]) -> Result<Leaf<'a>, Broken> {
        let leaf = Leaf::parse(bytes).map_err(|error| Broken {
            key: Vec::new(),
            reason: format!("the leaf is malformed: {error}"),
        })?;
        let broken = |reason: String| Broken {
            key: leaf.key.to_vec(),
            reason,
        };
        if leaf.timestamp_ms < self.last_timestamp_ms {
            return Err(broken(format!(
                "timestamps never decrease: found {} ms, the entry before has {} ms",
                leaf.timestamp_ms, self.last_timestamp_ms
            )));
        }
        self.last_timestamp_ms = leaf.timestamp_ms;
        self.first_timestamp_ms.get_or_insert(leaf.timestamp_ms);
        let place = (leaf.transaction_position, leaf.transaction_length);
        let expected = self.transaction.unwrap_or((0, place.1));
        if place != expected {
            return Err(broken(format!(
                "a transaction is contiguous: found operation {} of {}, expected {} of {}",
                place.0, place.1, expected.0, expected.1
            )));
        }
        self.transaction = (place.0 + 1 < place.1).then_some((place.0 + 1, place.1));
        self.announced.take(&leaf);
        Ok(leaf)
    }

    /// Checks that a leaf commits to what lies beside it.
    pub(super) fn opening(
        &mut self,
        leaf: &Leaf<'_>,
        private: Option<Opening<'_>>,
    ) -> Result<(), Broken> {
        let broken = |reason: String| Broken {
            key: leaf.key.to_vec(),
            reason,
        };
        match (leaf.kind, private) {
            (LeafKind::System, None) => {
                self.system_entries += 1;
                Ok(())
            }
            (LeafKind::System, Some(_)) => Err(broken(
                "a system entry has no commitment, yet there is something to open it".into(),
            )),
            (_, None) => Err(broken(
                "salt, metadata and value are not here: nothing shows what was committed to".into(),
            )),
            (_, Some(private)) => {
                let computed =
                    scribe_proof::commitment(private.salt, private.metadata, private.value);
                if computed != leaf.commitment {
                    return Err(broken(format!(
                        "salt, metadata and value hash to {computed}, the leaf commits to {}",
                        leaf.commitment
                    )));
                }
                self.values += 1;
                Ok(())
            }
        }
    }

    /// The same for a record as it lies beside its leaf in a batch: empty, or an opening.
    pub(super) fn record(&mut self, leaf: &Leaf<'_>, record: &[u8]) -> Result<(), Broken> {
        let private = Opening::parse(record);
        if private.is_none() && !record.is_empty() {
            return Err(Broken {
                key: leaf.key.to_vec(),
                reason: format!(
                    "an opening of {} bytes is too short to be one",
                    record.len()
                ),
            });
        }
        self.opening(leaf, private)
    }

    /// A transaction that the entries end in the middle of.
    pub(super) fn open_transaction(&self) -> Option<String> {
        let (position, length) = self.transaction?;
        Some(format!(
            "a transaction is never split: {position} of its {length} operations are here"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scribe_proof::Hash;
    use scribe_proof::hash::leaf_hash;
    use scribe_proof::leaf::Prev;

    impl EntryRules {
        fn entry(&mut self, bytes: &[u8], record: &[u8]) -> Result<Hash, Broken> {
            let leaf = self.leaf(bytes)?;
            self.record(&leaf, record)?;
            Ok(leaf_hash(bytes))
        }
    }

    fn leaf(timestamp_ms: u64, position: u16, length: u16, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let salt = [7; 16];
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms,
            transaction_position: position,
            transaction_length: length,
            prev: Prev::NotAsserted,
            commitment: scribe_proof::commitment(&salt, &[0, 0], value),
            key: b"k",
            author: b"",
            body: b"",
        };
        let mut bytes = Vec::new();
        leaf.encode_into(&mut bytes).unwrap();
        let record = [&salt[..], &[0, 2], &[0, 0], value].concat();
        (bytes, record)
    }

    #[test]
    fn a_changed_salt_metadata_or_value_does_not_open_the_leaf() {
        let (bytes, record) = leaf(5, 0, 1, b"value");
        assert_eq!(
            EntryRules::default().entry(&bytes, &record).unwrap(),
            leaf_hash(&bytes)
        );
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            let broken = EntryRules::default().entry(&bytes, &changed);
            assert!(broken.is_err(), "byte {at}");
        }
        for cut in 0..record.len() {
            let broken = EntryRules::default().entry(&bytes, &record[..cut]);
            assert!(broken.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn order_is_kept() {
        let mut rules = EntryRules::after(6);
        let (bytes, record) = leaf(5, 0, 1, b"");
        let broken = rules.entry(&bytes, &record).unwrap_err();
        assert!(broken.reason.contains("never decrease") && broken.key == b"k");

        for (places, good) in [
            (vec![(0, 2), (1, 2), (0, 1)], true),
            (vec![(1, 2)], false),
            (vec![(0, 2), (0, 1)], false),
            (vec![(0, 3), (2, 3)], false),
            (vec![(0, 2), (1, 3)], false),
        ] {
            let mut rules = EntryRules::default();
            let outcome = places.iter().try_for_each(|(position, length)| {
                let (bytes, record) = leaf(5, *position, *length, b"");
                rules.entry(&bytes, &record).map(|_| ())
            });
            assert_eq!(outcome.is_ok(), good, "{places:?}");
        }
        let mut rules = EntryRules::default();
        let (bytes, record) = leaf(5, 0, 2, b"");
        rules.entry(&bytes, &record).unwrap();
        assert!(rules.open_transaction().is_some());
    }
}
