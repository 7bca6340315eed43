//! Which signatures a shown checkpoint carries, and which checkpoints are kept to be shown.
//!
//! A note may be sent by any member, and whoever holds the ledger key can make one with any lines under it. Only lines
//! that verify under a key this node knows are kept: the ledger's, the nodes' as the ledger announces them, and the
//! outside witnesses' as configured here. So a note has at most as many lines as there are such keys, and a line that
//! would spoil it for a client never gets in.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::cosignature;
use scribe_proof::index::TreeSize;
use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::note::Note;

use super::Published;

/// The checkpoint with those of its signature lines that verify under one of `keys`, one for each key.
pub(super) fn with_known_lines<'a>(
    signed: &SignedCheckpoint,
    keys: impl IntoIterator<Item = &'a VerifierKey>,
) -> Option<SignedCheckpoint> {
    let Note { text, signatures } = signed.note();
    let mut known = Note {
        text: text.clone(),
        signatures: Vec::new(),
    };
    for key in keys {
        let good = signatures
            .iter()
            .filter(|line| line.is_by(key))
            .find(|line| match key.key_type() {
                KeyType::Cosignature => cosignature::verify(text, key, line).is_ok(),
                KeyType::Ed25519 => {
                    let alone = Note {
                        text: text.clone(),
                        signatures: vec![(*line).clone()],
                    };
                    alone.verify(key) == Ok(true)
                }
            });
        if let Some(line) = good {
            known.add_signature(line.clone()).ok()?;
        }
    }
    SignedCheckpoint::from_note(known).ok()
}

/// `shown` with the signatures that `other`, a note over the same text, has on top of it. `None` if there are none, or
/// the texts differ: then nothing is to be shown in its place.
pub(super) fn merged(shown: &str, other: &str) -> Option<String> {
    let mut shown = SignedCheckpoint::parse(shown).ok()?;
    let other = SignedCheckpoint::parse(other).ok()?;
    if shown.note().text != other.note().text {
        return None;
    }
    let mut grown = false;
    for line in &other.note().signatures {
        let has = shown
            .note()
            .signatures
            .iter()
            .any(|has| has.key_id == line.key_id && has.name == line.name);
        if !has {
            shown.add_signature(line.clone()).ok()?;
            grown = true;
        }
    }
    grown.then(|| shown.to_text())
}

/// How many of these keys have a line on the note.
pub(super) fn count_lines<'a>(
    note: &SignedCheckpoint,
    keys: impl IntoIterator<Item = &'a VerifierKey>,
) -> usize {
    let lines = &note.note().signatures;
    keys.into_iter()
        .filter(|key| lines.iter().any(|line| line.is_by(key)))
        .count()
}

/// For each number of outside cosignatures, the largest checkpoint that has as many.
///
/// A witness answers after the checkpoint was shown, perhaps after the next one was: what it cosigned is kept here, for
/// receipts of the entries it covers. There are at most as many as there are witnesses.
#[derive(Debug, Default)]
pub(super) struct Witnessed(Mutex<BTreeMap<usize, Arc<Published>>>);

impl Witnessed {
    /// Keeps a checkpoint that outside witnesses cosigned (`count` says how many), with what is kept of the same head,
    /// unless a larger one with as many is kept.
    pub fn keep(&self, mut published: Published, count: impl Fn(&SignedCheckpoint) -> usize) {
        let mut kept = self.0.lock();
        if let Some(other) = kept.values().find(|other| other.size == published.size)
            && let Some(note) = merged(&published.note, &other.note)
        {
            published.note = note;
        }
        let count = SignedCheckpoint::parse(&published.note).map_or(0, |signed| count(&signed));
        let better = kept
            .range(count..)
            .any(|(_, other)| other.size >= published.size);
        if count == 0 || better {
            return;
        }
        // What has no more cosignatures and covers no more is of no use any more.
        kept.retain(|with, other| *with > count || other.size > published.size);
        kept.insert(count, Arc::new(published));
    }

    /// The one of this size, if it is kept.
    pub fn of_size(&self, size: TreeSize) -> Option<Arc<Published>> {
        let kept = self.0.lock();
        kept.values().find(|kept| kept.size == size).cloned()
    }

    /// The one with most outside cosignatures that covers `size` leaves.
    pub fn covering(&self, size: TreeSize) -> Option<Arc<Published>> {
        let kept = self.0.lock();
        let mut most_first = kept.values().rev();
        most_first.find(|kept| kept.size >= size).cloned()
    }
}

#[cfg(test)]
mod tests {
    use scribe_proof::checkpoint::Checkpoint;
    use scribe_proof::hash::leaf_hash;
    use scribe_proof::key::SigningKey;
    use scribe_proof::note::Signature;

    use super::*;

    const ORIGIN: &str = "example.com/ledger";

    fn ledger() -> SigningKey {
        SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap()
    }

    fn witness(seed: u8) -> SigningKey {
        SigningKey::cosigner_from_seed(&format!("witness.example/{seed}"), &[seed; 32]).unwrap()
    }

    fn signed(size: u64, cosigners: &[&SigningKey]) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(size), leaf_hash(b"x"));
        let mut signed = SignedCheckpoint::sign(checkpoint, &[&ledger()]).unwrap();
        let text = signed.note().text.clone();
        for key in cosigners {
            let line = cosignature::sign(&text, key, 1_000).unwrap();
            signed.add_signature(line).unwrap();
        }
        signed
    }

    fn published(size: u64, cosigners: &[&SigningKey]) -> Published {
        Published {
            size: TreeSize::new(size),
            root: leaf_hash(b"x"),
            note: signed(size, cosigners).to_text(),
        }
    }

    #[test]
    fn only_lines_that_verify_under_known_keys_are_kept() {
        let (known, unknown, forged) = (witness(2), witness(3), witness(4));
        let mut note = signed(7, &[&known, &unknown]);
        let text = note.note().text.clone();
        // A line by a known key over another text, and a plain signature under a cosigner's name.
        let elsewhere = cosignature::sign("another text\n", &forged, 1_000).unwrap();
        note.add_signature(elsewhere).unwrap();
        for at in 0..100 {
            note.add_signature(Signature {
                name: "example.com/hostile".to_owned(),
                key_id: at,
                bytes: vec![7; 72],
            })
            .unwrap();
        }
        let keys = [&ledger(), &known, &forged].map(|key| key.verifier_key().clone());
        let kept = with_known_lines(&note, &keys).unwrap();
        assert_eq!(kept.note().text, text);
        let names: Vec<&str> = kept
            .note()
            .signatures
            .iter()
            .map(|line| line.name.as_str())
            .collect();
        assert_eq!(names, [ORIGIN, "witness.example/2"]);
        assert!(kept.verify(ledger().verifier_key()).is_ok());
    }

    #[test]
    fn a_good_line_is_found_behind_a_bad_one_of_the_same_key() {
        let key = witness(2);
        let good = signed(7, &[&key]);
        let mut note = good.note().clone();
        let mut bad = note.signatures[1].clone();
        bad.bytes[20] ^= 1;
        note.signatures.insert(0, bad);
        let note = SignedCheckpoint::from_note(note).unwrap();
        let keys = [&ledger(), &key].map(|key| key.verifier_key().clone());
        assert_eq!(
            with_known_lines(&note, &keys).unwrap().to_text(),
            good.to_text()
        );
    }

    #[test]
    fn without_any_known_line_there_is_no_note() {
        let key = witness(2).verifier_key().clone();
        // `from_note` takes it, a note as text needs a line: whoever shows it has checked the ledger's.
        let kept = with_known_lines(&signed(7, &[]), [&key]).unwrap();
        assert!(kept.note().signatures.is_empty());
    }

    #[test]
    fn notes_over_the_same_text_are_merged_and_others_are_not() {
        let (a, b) = (witness(2), witness(3));
        let merged_note = merged(&signed(7, &[&a]).to_text(), &signed(7, &[&b]).to_text());
        assert_eq!(merged_note, Some(signed(7, &[&a, &b]).to_text()));
        let both = signed(7, &[&a, &b]).to_text();
        assert_eq!(merged(&both, &signed(7, &[&b]).to_text()), None);
        assert_eq!(merged(&both, &signed(8, &[&witness(4)]).to_text()), None);
    }

    #[test]
    fn cosigned_checkpoints_are_kept_as_long_as_they_are_of_use() {
        let (a, b) = (witness(2), witness(3));
        let keys = [&a, &b].map(|key| key.verifier_key().clone());
        let witnessed = Witnessed::default();
        let keep = |size, cosigners: &[&SigningKey]| {
            witnessed.keep(published(size, cosigners), |note| count_lines(note, &keys));
        };
        let covering = |size| {
            witnessed
                .covering(TreeSize::new(size))
                .map(|kept| kept.size.get())
        };
        keep(5, &[]);
        keep(5, &[&witness(4)]);
        assert_eq!(
            covering(1),
            None,
            "without a witness's line there is nothing to keep"
        );
        keep(10, &[&a]);
        keep(8, &[&a, &b]);
        // More cosignatures first, size where that does not reach.
        assert_eq!(
            (covering(8), covering(9), covering(11)),
            (Some(8), Some(10), None)
        );
        // Smaller with fewer: nothing new.
        keep(7, &[&b]);
        assert_eq!(witnessed.of_size(TreeSize::new(7)), None);
        // Larger with as many: the others have had their day.
        keep(12, &[&a, &b]);
        assert_eq!((covering(1), covering(12)), (Some(12), Some(12)));
        assert_eq!(witnessed.0.lock().len(), 1);
        keep(20, &[&a]);
        assert_eq!((covering(12), covering(13)), (Some(12), Some(20)));
        // One late cosignature after the other, each on the bare checkpoint.
        keep(20, &[&b]);
        let kept = witnessed.covering(TreeSize::new(1)).unwrap();
        assert_eq!(kept.note, signed(20, &[&b, &a]).to_text());
        assert_eq!(witnessed.0.lock().len(), 1);
    }
}
