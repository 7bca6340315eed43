//! The honest world of the text formats: keys, what they really signed, two ledgers and their entries.

use std::cell::RefCell;
use std::collections::HashMap;

use scribe_proof::{
    Hash, KeyType, Leaf, LeafIndex, LeafKind, Metadata, Note, Prev, SigningKey, commitment,
    cosignature, leaf_hash, sign_note,
};

use crate::plain::{PlainKey, decode_base64, encode_base64, number_text};
use crate::trees::split;

pub const LEDGER: usize = 0;
/// Another key of the ledger's name that has the same key id (found by trying 52,000 seeds).
pub const LEDGER_TWIN: usize = 1;
/// The ledger's next key.
pub const ROTATED: usize = 2;
pub const OTHER: usize = 3;
pub const NODE_1: usize = 4;
pub const NODE_1_TWIN: usize = 5;
pub const NODE_2: usize = 6;
pub const NODE_3: usize = 7;
pub const WITNESS: usize = 8;
/// The ledger's key pair, listed as a cosigner.
pub const LEDGER_AS_WITNESS: usize = 9;
/// Keys of the attacker, under honest names.
pub const EVIL_LEDGER: usize = 10;
pub const EVIL_NODE: usize = 11;
/// Whose signatures the attacker can make.
pub const EVIL: [usize; 4] = [LEDGER_TWIN, NODE_1_TWIN, EVIL_LEDGER, EVIL_NODE];

pub const MAIN_ORIGIN: &str = "example.com/ledger";
pub const OTHER_ORIGIN: &str = "example.com/other";
/// A second in 2026.
pub const TIME: u64 = 1_790_000_000;

/// A key, and its parts as the plain judge sees them.
pub struct Key {
    pub signing: SigningKey,
    pub name: String,
    pub id: u32,
    pub kind: u8,
    pub public: [u8; 32],
    /// The verifier key's text.
    pub text: String,
}

/// A note that honest keys signed.
pub struct Document {
    pub ledger: usize,
    pub size: u64,
    /// The checkpoint's text.
    pub text: String,
    /// The whole note.
    pub note: String,
}

/// An entry as it was written.
pub struct Fact {
    pub leaf: Vec<u8>,
    pub kind: u8,
    pub key: Vec<u8>,
    pub author: Vec<u8>,
    pub body: Vec<u8>,
    pub timestamp_ms: u64,
    pub prev: Option<u64>,
    pub salt: [u8; 16],
    pub metadata: Vec<u8>,
    pub value: Vec<u8>,
    /// Whether today's software knows what the leaf says.
    pub understood: bool,
}

/// A ledger's entries.
pub struct Ledger {
    pub origin: &'static str,
    pub entries: Vec<Fact>,
    hashes: Vec<Hash>,
    /// By size.
    pub roots: Vec<Hash>,
    proofs: RefCell<HashMap<(u64, u64), Vec<Hash>>>,
}

impl Ledger {
    fn new(origin: &'static str, entries: u64) -> Ledger {
        let entries: Vec<Fact> = (0..entries).map(|index| entry(origin, index)).collect();
        let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(&entry.leaf)).collect();
        let roots = (0..=hashes.len())
            .map(|size| root(&hashes[..size]))
            .collect();
        Ledger {
            origin,
            entries,
            hashes,
            roots,
            proofs: RefCell::default(),
        }
    }

    /// PATH of RFC 6962, 2.1.1.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Hash> {
        let make = || {
            let mut proof = Vec::new();
            let (mut index, mut part) = (index as usize, &self.hashes[..size as usize]);
            while part.len() > 1 {
                let (left, right) = part.split_at(split(part.len() as u64) as usize);
                if index < left.len() {
                    proof.insert(0, root(right));
                    part = left;
                } else {
                    proof.insert(0, root(left));
                    index -= left.len();
                    part = right;
                }
            }
            proof
        };
        let mut proofs = self.proofs.borrow_mut();
        proofs.entry((index, size)).or_insert_with(make).clone()
    }
}

/// MTH of RFC 6962, 2.1.
fn root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => scribe_proof::empty_root(),
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(split(hashes.len() as u64) as usize);
            scribe_proof::node_hash(&root(left), &root(right))
        }
    }
}

/// Everything there is.
pub struct World {
    pub keys: Vec<Key>,
    pub ledgers: Vec<Ledger>,
    pub documents: Vec<Document>,
    /// What honest keys signed: public key, time of a cosignature, text; and the signature.
    pub signed: HashMap<([u8; 32], Option<u64>, String), [u8; 64]>,
}

impl World {
    pub fn new() -> World {
        let mut world = World {
            keys: keys(),
            ledgers: vec![Ledger::new(MAIN_ORIGIN, 120), Ledger::new(OTHER_ORIGIN, 64)],
            documents: Vec::new(),
            signed: HashMap::new(),
        };
        let (a, b) = (TIME, TIME + 60);
        // Ledger, size, extension, who signed, who cosigned when.
        type Plan<'a> = (usize, u64, &'a str, &'a [usize], &'a [(usize, u64)]);
        let everybody = [
            (NODE_1, a),
            (NODE_1, b),
            (NODE_2, a),
            (NODE_3, a),
            (WITNESS, a),
        ];
        let plans: [Plan<'_>; 14] = [
            (0, 120, "", &[LEDGER], &everybody),
            (0, 119, "", &[LEDGER], &[(NODE_1, a), (NODE_1, b)]),
            (
                0,
                117,
                "",
                &[LEDGER],
                &[(NODE_2, a), (NODE_2, b), (WITNESS, a)],
            ),
            (0, 99, "", &[LEDGER], &[(NODE_2, a), (NODE_3, b)]),
            (0, 100, "note 7", &[LEDGER], &[(NODE_1, a), (NODE_2, b)]),
            (0, 65, "", &[LEDGER, ROTATED], &[(NODE_3, a), (WITNESS, b)]),
            (0, 64, "", &[LEDGER, ROTATED], &[]),
            // Cosigned, but the ledger's own signature is still to come.
            (0, 3, "", &[], &[(NODE_1, a), (NODE_2, a), (WITNESS, a)]),
            (0, 2, "", &[LEDGER], &[(LEDGER_AS_WITNESS, a), (NODE_1, b)]),
            (0, 0, "", &[LEDGER], &[(NODE_1, a), (NODE_2, a)]),
            (1, 64, "", &[OTHER], &[(WITNESS, a)]),
            (1, 33, "", &[OTHER], &[(WITNESS, a), (WITNESS, b)]),
            // The ledger's key vouches for a checkpoint of another origin; that proves nothing.
            (1, 32, "", &[LEDGER, OTHER], &[(WITNESS, a)]),
            (1, 1, "", &[OTHER], &[]),
        ];
        for (ledger, size, extension, signers, cosigners) in plans {
            world.publish(ledger, size, extension, signers, cosigners);
        }
        world
    }

    fn publish(
        &mut self,
        ledger: usize,
        size: u64,
        extension: &str,
        signers: &[usize],
        cosigners: &[(usize, u64)],
    ) {
        let origin = self.ledgers[ledger].origin;
        let root = encode_base64(&self.ledgers[ledger].roots[size as usize].0);
        let mut text = format!("{origin}\n{}\n{root}\n", number_text(size));
        if !extension.is_empty() {
            text += &format!("{extension}\n");
        }
        let mut note = text.clone() + "\n";
        for key in signers {
            let key = &self.keys[*key];
            let bytes = sign_note(&text, &[&key.signing]).unwrap().signatures[0]
                .bytes
                .clone();
            note += &line(&key.name, key.id, &bytes);
            let signature = bytes.try_into().unwrap();
            self.signed
                .insert((key.public, None, text.clone()), signature);
        }
        for (key, time) in cosigners {
            let key = &self.keys[*key];
            let bytes = cosignature::sign(&text, &key.signing, *time).unwrap().bytes;
            note += &line(&key.name, key.id, &bytes);
            let signature = bytes[8..].try_into().unwrap();
            self.signed
                .insert((key.public, Some(*time), text.clone()), signature);
        }
        self.documents.push(Document {
            ledger,
            size,
            text,
            note,
        });
    }

    /// What an attacker's key makes of any text.
    pub fn evil_signature(&self, key: usize, text: &str, time: u64) -> Vec<u8> {
        assert!(EVIL.contains(&key), "honest keys sign nothing more");
        let key = &self.keys[key];
        let time = time % (1 << 63);
        match key.kind {
            4 => cosignature::sign(text, &key.signing, time).map(|signature| signature.bytes),
            _ => sign_note(text, &[&key.signing]).map(|note| note.signatures[0].bytes.clone()),
        }
        .unwrap_or_default()
    }

    /// Whether this is a key of the attacker's, and this what it makes of the text.
    pub fn evil_signed(&self, key: &PlainKey, text: &str, time: u64, bytes: &[u8]) -> bool {
        let same = |evil: &&usize| {
            let evil = &self.keys[**evil];
            (evil.public, evil.kind) == (key.public, key.kind)
        };
        let evil = EVIL.iter().find(same);
        evil.is_some_and(|evil| self.evil_signature(*evil, text, time) == bytes)
    }

    /// Whether the attacker's key of the same name and id made this signature.
    pub fn twin_signed(&self, name: &str, id: u32, text: &str, bytes: &[u8]) -> bool {
        let note = Note {
            text: text.to_string(),
            signatures: vec![scribe_proof::Signature {
                name: name.to_string(),
                key_id: id,
                bytes: bytes.to_vec(),
            }],
        };
        [LEDGER_TWIN, NODE_1_TWIN]
            .iter()
            .any(|twin| note.verify(self.keys[*twin].signing.verifier_key()) == Ok(true))
    }
}

/// A signature line.
pub fn line(name: &str, id: u32, bytes: &[u8]) -> String {
    let content = [&id.to_be_bytes()[..], bytes].concat();
    format!("\u{2014} {name} {}\n", encode_base64(&content))
}

fn keys() -> Vec<Key> {
    let seed = |number: u64| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        seed
    };
    let (plain, cosigner) = (KeyType::Ed25519, KeyType::Cosignature);
    let node = |id: u8| format!("{MAIN_ORIGIN}/node/{id}");
    let all = [
        (MAIN_ORIGIN.to_string(), plain, 50_882),
        (MAIN_ORIGIN.to_string(), plain, 51_933),
        (MAIN_ORIGIN.to_string(), plain, 2),
        (OTHER_ORIGIN.to_string(), plain, 3),
        (node(1), cosigner, 6631),
        (node(1), cosigner, 62_723),
        (node(2), cosigner, 6),
        (node(3), cosigner, 7),
        ("witness.example/w".to_string(), cosigner, 8),
        (MAIN_ORIGIN.to_string(), cosigner, 50_882),
        (MAIN_ORIGIN.to_string(), plain, 10),
        (node(2), cosigner, 11),
    ];
    let keys: Vec<Key> = all
        .into_iter()
        .map(|(name, kind, number)| {
            let signing = SigningKey::from_seed_typed(&name, kind, &seed(number)).unwrap();
            let text = signing.verifier_key().to_text();
            let (_, encoded) = text.rsplit_once('+').unwrap_or_default();
            let encoded = match encoded.len() {
                44 => encoded.to_string(),
                // Base64 has plus signs of its own.
                _ => text.splitn(3, '+').nth(2).unwrap_or_default().to_string(),
            };
            let content = decode_base64(&encoded, false).unwrap();
            Key {
                id: signing.verifier_key().key_id(),
                kind: content[0],
                public: content[1..].try_into().unwrap(),
                signing,
                name,
                text,
            }
        })
        .collect();
    assert_eq!(keys[LEDGER].id, keys[LEDGER_TWIN].id);
    assert_eq!(keys[NODE_1].id, keys[NODE_1_TWIN].id);
    keys
}

/// Puts, tombstones, system leaves, and one leaf of a format to come.
fn entry(origin: &str, index: u64) -> Fact {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&index.to_be_bytes());
    salt[8..].copy_from_slice(&(origin.len() as u64).to_be_bytes());
    let (kind, subtype) = match index {
        0 => (LeafKind::System, 1),
        _ if index % 23 == 5 => (LeafKind::System, 3),
        _ if index % 11 == 4 => (LeafKind::Delete, 0),
        _ => (LeafKind::Put, 0),
    };
    let pairs = (0..index % 4)
        .map(|pair| (format!("name-{pair}"), format!("of {index}")))
        .collect();
    let metadata = match kind {
        LeafKind::Put => Metadata::new("text/plain", pairs)
            .unwrap()
            .encode()
            .unwrap(),
        _ => Metadata::EMPTY_ENCODING.to_vec(),
    };
    let value = match kind {
        LeafKind::Put => format!("value {index} of {origin}").into_bytes(),
        _ => Vec::new(),
    };
    // Every third entry writes the same key again.
    let key = match kind {
        LeafKind::System => Vec::new(),
        _ if index.is_multiple_of(3) => b"again".to_vec(),
        _ => format!("key {index}").into_bytes(),
    };
    let prev = match index % 5 {
        0 => Prev::None,
        1 => Prev::NotAsserted,
        _ => Prev::Version(LeafIndex::new(index - 1)),
    };
    let body = match kind {
        LeafKind::System => format!("about {index}").into_bytes(),
        _ => Vec::new(),
    };
    let author = match index % 2 {
        0 => b"alice".to_vec(),
        _ => Vec::new(),
    };
    let timestamp_ms = TIME * 1000 + index;
    let mut leaf = Vec::new();
    Leaf {
        kind,
        subtype,
        timestamp_ms,
        transaction_position: 0,
        transaction_length: 1,
        prev,
        commitment: match kind {
            LeafKind::System => Hash::default(),
            _ => commitment(&salt, &metadata, &value),
        },
        key: &key,
        author: &author,
        body: &body,
    }
    .encode_into(&mut leaf)
    .unwrap();
    let understood = index % 29 != 6;
    if !understood {
        leaf[0] = 2;
    }
    Fact {
        leaf,
        kind: kind as u8,
        key,
        author,
        body,
        timestamp_ms,
        prev: match prev {
            Prev::None => Some(0),
            Prev::Version(index) => Some(index.get() + 1),
            Prev::NotAsserted => None,
        },
        salt,
        metadata,
        value,
        understood,
    }
}
