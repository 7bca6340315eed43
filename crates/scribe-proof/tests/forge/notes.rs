//! Forged notes, checkpoints, cosignatures and verifier keys.

use scribe_proof::{KeyType, Note, SignedCheckpoint, VerifierKey, cosignature};

use crate::Forger;
use crate::documents;
use crate::flaws::TextFlaw;
use crate::plain::{ANYBODYS_SIGNATURE, Plain, PlainCheckpoint, PlainKey, forbidden_keys};
use crate::rng::Rng;
use crate::text;
use crate::world::{LEDGER, MAIN_ORIGIN, NODE_1, NODE_2, OTHER, ROTATED, WITNESS, World, line};

/// What a reader is given: keys it trusts, and a note.
#[derive(Clone, PartialEq)]
pub struct NoteCase {
    keys: Vec<String>,
    note: String,
}

/// The text, who signed it (and the latest time of a cosignature), and the checkpoint it is, if the
/// first key is its ledger's.
#[derive(Debug, PartialEq)]
pub struct NoteClaim {
    text: String,
    signed: Vec<Option<u64>>,
    checkpoint: Option<PlainCheckpoint>,
}

/// Forger of notes.
pub struct Notes {
    world: World,
}

impl Forger for Notes {
    const KIND: &'static str = "notes";
    const SHARE: u64 = 5;
    type Case = NoteCase;
    type Claim = NoteClaim;
    type Flaw = TextFlaw;
    const FLAWS: &'static [TextFlaw] = &[
        TextFlaw::LooseBase64,
        TextFlaw::TrimmedLines,
        TextFlaw::AnyDash,
        TextFlaw::FirstSignatureOnly,
        TextFlaw::BadSignatureSkipped,
        TextFlaw::NameIgnored,
        TextFlaw::IdIsEnough,
        TextFlaw::MalleableSignature,
        TextFlaw::TimeUnbound,
        TextFlaw::ExtensionsUnbound,
        TextFlaw::FirstEmptyLine,
        TextFlaw::OriginUnchecked,
        TextFlaw::KeyIdUnchecked,
        TextFlaw::WeakKeys,
        TextFlaw::SignatureUnchecked,
    ];

    fn new() -> Notes {
        let world = World::new();
        Notes { world }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> NoteCase {
        let world = &self.world;
        let document = documents::pick(rng, world);
        let ledger = match document.ledger {
            _ if rng.one_in(4) => *rng.pick(&[LEDGER, ROTATED, OTHER, NODE_1]),
            0 => *rng.pick(&[LEDGER, LEDGER, ROTATED]),
            _ => OTHER,
        };
        let others = [NODE_1, NODE_2, WITNESS, OTHER, LEDGER];
        let mut keys = vec![world.keys[ledger].text.clone()];
        for _ in 0..rng.below(3) {
            keys.push(world.keys[*rng.pick(&others)].text.clone());
        }
        let mut note = document.note.clone();
        let honest = NoteCase {
            keys: keys.clone(),
            note: note.clone(),
        };
        for _ in 0..rng.changes() {
            changes.push(match rng.below(12) {
                0 => {
                    let other = world.keys[*rng.pick(&others)].text.clone();
                    let key = rng.place(keys.len());
                    text::change(rng, &mut keys[key], &other)
                }
                1 => {
                    // A key of which everybody has the private half, and its signature.
                    let public = *rng.pick(&forbidden_keys());
                    let key = PlainKey::new(MAIN_ORIGIN, 1, public);
                    note.push_str(&line(&key.name, key.id, &ANYBODYS_SIGNATURE));
                    keys[0] = key.to_text();
                    "key that fits everybody"
                }
                2 => {
                    let key = rng.place(keys.len());
                    let id = world.keys[*rng.pick(&others)].id;
                    let parts: Vec<String> = keys[key].splitn(3, '+').map(String::from).collect();
                    if let [name, _, encoded] = &parts[..] {
                        keys[key] = format!("{name}+{id:08x}+{encoded}");
                    }
                    "key with another id"
                }
                _ => documents::change(rng, world, &mut note),
            });
        }
        let case = NoteCase { keys, note };
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &NoteCase) -> Option<NoteClaim> {
        let mut keys = Vec::new();
        for text in &case.keys {
            keys.push(VerifierKey::parse(text).ok()?);
        }
        let note = Note::parse(&case.note).ok()?;
        let mut signed = Vec::new();
        for key in &keys {
            let found = note.verify(key).ok()?;
            signed.push(match key.key_type() {
                KeyType::Ed25519 => found.then_some(0),
                KeyType::Cosignature => cosignature::find(&note, key).ok()?,
            });
        }
        let checkpoint = SignedCheckpoint::parse(&case.note).ok().and_then(|signed| {
            let checkpoint = signed.verify(&keys[0]).ok()?;
            Some(PlainCheckpoint {
                origin: checkpoint.origin.clone(),
                size: checkpoint.size.get(),
                root: checkpoint.root.0,
                extensions: checkpoint.extensions.clone(),
            })
        });
        let claim = NoteClaim {
            text: note.text,
            signed,
            checkpoint,
        };
        claim.signed.iter().any(Option::is_some).then_some(claim)
    }

    fn plain(&self, case: &NoteCase, flaw: Option<TextFlaw>) -> Option<NoteClaim> {
        let plain = Plain {
            world: &self.world,
            flaw,
        };
        let mut keys = Vec::new();
        for text in &case.keys {
            keys.push(plain.key(text)?);
        }
        let note = plain.note(&case.note)?;
        let mut signed = Vec::new();
        for key in &keys {
            signed.push(plain.signatures(key, &note)?.into_iter().max());
        }
        let checkpoint = plain.checkpoint(&note.text).filter(|checkpoint| {
            let own = checkpoint.origin == keys[0].name || plain.weak(TextFlaw::OriginUnchecked);
            own && keys[0].kind == 1 && signed[0].is_some()
        });
        let claim = NoteClaim {
            text: note.text,
            signed,
            checkpoint,
        };
        claim.signed.iter().any(Option::is_some).then_some(claim)
    }

    fn show(&self, case: &NoteCase) -> String {
        format!("  keys {:#?}\n  note {:?}", case.keys, case.note)
    }
}
