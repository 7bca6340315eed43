//! Whose signatures a checkpoint carries, and what they are worth to the user.
//!
//! Three kinds of keys: those the user trusts (policy), those the ledger itself announces in its entries, and unknown
//! ones. A signature by a key of the first two kinds must fit; one by an unknown key is reported and means nothing.

use std::collections::BTreeMap;

use scribe_proof::key::{KeyType, VerifierKey};
use scribe_proof::leaf::{Leaf, LeafKind, SystemKind};
use scribe_proof::policy::Policy;
use scribe_proof::{SignedCheckpoint, cosignature};
use serde::Serialize;

use super::Finding;
use crate::roster::parse_node_key;

/// Who signed a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Signatures {
    /// Whether they were checked against a key or policy of the user's.
    pub trusted: bool,
    /// Keys of the user's policy that signed.
    pub by_policy: Vec<String>,
    /// Keys that the ledger announces in its own entries and that signed: information, no proof.
    pub by_announced: Vec<String>,
    /// Keys nobody knows here: their signatures were not checked.
    pub by_unknown: Vec<String>,
}

/// Keys the ledger announces in its entries, by the entry's index.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced {
    ledger: Vec<[u8; 32]>,
    nodes: BTreeMap<u64, Vec<[u8; 32]>>,
}

impl Announced {
    /// Takes the key out of a system entry, if it announces one.
    pub(super) fn take(&mut self, leaf: &Leaf<'_>) {
        if leaf.kind != LeafKind::System {
            return;
        }
        if leaf.subtype == SystemKind::NodeKey as u16 {
            if let Some((node_id, key)) = parse_node_key(leaf.body) {
                self.nodes.entry(node_id).or_default().push(key);
            }
        } else if leaf.subtype == SystemKind::LedgerKey as u16
            && let [key_type, key @ ..] = leaf.body
            && *key_type == KeyType::Ed25519 as u8
            && let Ok(key) = key.try_into()
        {
            self.ledger.push(key);
        }
    }

    /// Takes in what later entries announce.
    pub(super) fn append(&mut self, later: Announced) {
        self.ledger.extend(later.ledger);
        for (node_id, keys) in later.nodes {
            self.nodes.entry(node_id).or_default().extend(keys);
        }
    }

    fn keys(&self, origin: &str) -> Vec<VerifierKey> {
        let ledger = self
            .ledger
            .iter()
            .map(|key| VerifierKey::new(origin, KeyType::Ed25519, key));
        let nodes = self.nodes.iter().flat_map(|(node_id, keys)| {
            let name = format!("{origin}/node/{node_id}");
            keys.iter()
                .map(move |key| VerifierKey::new(&name, KeyType::Cosignature, key))
        });
        ledger.chain(nodes).filter_map(Result::ok).collect()
    }
}

/// Checks a checkpoint against what the user trusts.
///
/// # Errors
/// The policy is not satisfied, or a signature by one of its keys does not fit.
pub(super) fn evaluate(
    signed: &SignedCheckpoint,
    policy: Option<&Policy>,
    place: &str,
) -> Result<(), Finding> {
    let Some(policy) = policy else { return Ok(()) };
    match policy.evaluate(signed) {
        Ok(_) => Ok(()),
        Err(error) => Err(Finding::new(place, error.to_string())
            .hint("is --vkey (or --policy) the one of this ledger?")),
    }
}

/// Looks at every signature of a checkpoint, with the keys the user trusts and those the ledger announces.
///
/// # Errors
/// A signature by a known key that does not fit.
pub(super) fn signatures(
    signed: &SignedCheckpoint,
    policy: Option<&Policy>,
    announced: &Announced,
    place: &str,
) -> Result<Signatures, Finding> {
    evaluate(signed, policy, place)?;
    let mut found = Signatures {
        trusted: policy.is_some(),
        ..Signatures::default()
    };
    let trusted: Vec<VerifierKey> = policy.map_or_else(Vec::new, |policy| {
        let witnesses = policy.witness_keys().map(|(_, key)| key);
        policy.log_keys().chain(witnesses).cloned().collect()
    });
    let announced = announced.keys(&signed.checkpoint().origin);
    let note = signed.note();
    for signature in &note.signatures {
        let shown = format!("{}+{:08x}", signature.name, signature.key_id);
        let known = |keys: &[VerifierKey]| keys.iter().find(|key| signature.is_by(key)).cloned();
        let by_policy = known(&trusted);
        let Some(key) = by_policy.clone().or_else(|| known(&announced)) else {
            found.by_unknown.push(shown);
            continue;
        };
        let fits = match key.key_type() {
            KeyType::Cosignature => cosignature::verify(&note.text, &key, signature).map(|_| ()),
            _ => {
                signed
                    .verify(&key)
                    .map(|_| ())
                    .map_err(|_| scribe_proof::NoteError::BadSignature {
                        name: key.name().to_owned(),
                        key_id: key.key_id(),
                    })
            }
        };
        if let Err(error) = fits {
            return Err(Finding::new(place, format!("{shown}: {error}")));
        }
        match by_policy {
            Some(_) => found.by_policy.push(shown),
            None => found.by_announced.push(shown),
        }
    }
    Ok(found)
}
