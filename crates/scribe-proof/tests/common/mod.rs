//! What the tests share: a tree written as the RFC reads, and a few keys.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafKind, MemoryTree, Metadata, Opening, Prev, Receipt,
    SignedCheckpoint, SigningKey, TreeSize, commitment, cosignature, empty_root, inclusion,
    leaf_hash, node_hash,
};

pub const ORIGIN: &str = "example.com/ledger";

/// MTH of RFC 6962, 2.1, as it reads.
pub fn naive_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(naive_split(hashes.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// PATH of RFC 6962, 2.1.1.
pub fn naive_inclusion(index: usize, hashes: &[Hash]) -> Vec<Hash> {
    if hashes.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = hashes.split_at(naive_split(hashes.len()));
    let (mut proof, sibling) = if index < left.len() {
        (naive_inclusion(index, left), naive_root(right))
    } else {
        (naive_inclusion(index - left.len(), right), naive_root(left))
    };
    proof.push(sibling);
    proof
}

/// PROOF of RFC 6962, 2.1.2.
pub fn naive_consistency(old: usize, hashes: &[Hash]) -> Vec<Hash> {
    fn subproof(old: usize, hashes: &[Hash], whole: bool) -> Vec<Hash> {
        if old == hashes.len() {
            return if whole {
                Vec::new()
            } else {
                vec![naive_root(hashes)]
            };
        }
        let (left, right) = hashes.split_at(naive_split(hashes.len()));
        let (mut proof, sibling) = if old <= left.len() {
            (subproof(old, left, whole), naive_root(right))
        } else {
            (subproof(old - left.len(), right, false), naive_root(left))
        };
        proof.push(sibling);
        proof
    }
    subproof(old, hashes, true)
}

fn naive_split(leaves: usize) -> usize {
    let mut split = 1;
    while split * 2 < leaves {
        split *= 2;
    }
    split
}

/// The hash of the leaf whose bytes are the eight of `number`.
pub fn number_hash(number: u64) -> Hash {
    leaf_hash(&number.to_be_bytes())
}

/// A tree of the leaves 0, 1, 2, … and their hashes.
pub fn number_tree(size: u64) -> (MemoryTree, Vec<Hash>) {
    let hashes: Vec<Hash> = (0..size).map(number_hash).collect();
    let mut tree = MemoryTree::new();
    hashes.iter().for_each(|hash| tree.append(*hash));
    (tree, hashes)
}

pub fn ledger_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap()
}

pub fn node_key(id: u8) -> SigningKey {
    SigningKey::cosigner_from_seed(&format!("{ORIGIN}/node/{id}"), &[100 + id; 32]).unwrap()
}

/// A policy text: the ledger key and a majority of three nodes.
pub fn policy_text() -> String {
    let mut text = format!("log {}\n", ledger_key().verifier_key());
    for id in 1..=3 {
        text += &format!("witness node-{id} {}\n", node_key(id).verifier_key());
    }
    text + "group nodes 2 node-1 node-2 node-3\nquorum nodes\n"
}

/// A checkpoint signed by the ledger key and cosigned by these nodes.
pub fn signed(size: TreeSize, root: Hash, nodes: &[u8]) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(ORIGIN, size, root);
    let mut signed = SignedCheckpoint::sign(checkpoint, &[&ledger_key()]).unwrap();
    for id in nodes {
        let text = signed.note().text.clone();
        let time = 1_790_000_000 + u64::from(*id);
        let cosignature = cosignature::sign(&text, &node_key(*id), time).unwrap();
        signed.add_signature(cosignature).unwrap();
    }
    signed
}

pub const SALT: [u8; 16] = [9; 16];
pub const VALUE: &[u8] = b"hello";
pub const KEY: &[u8] = b"greeting";
pub const RECEIPT_INDEX: u64 = 137;
pub const RECEIPT_SIZE: u64 = 300;

pub fn metadata() -> Metadata {
    let pairs = vec![("language".to_string(), "en".to_string())];
    Metadata::new("text/plain; charset=utf-8", pairs).unwrap()
}

pub fn put_leaf() -> Vec<u8> {
    let leaf = Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 1_790_000_000_123,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::None,
        commitment: commitment(&SALT, &metadata().encode().unwrap(), VALUE),
        key: KEY,
        author: b"alice",
        body: b"",
    };
    encode(&leaf)
}

pub fn encode(leaf: &Leaf<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    leaf.encode_into(&mut bytes).unwrap();
    bytes
}

/// A receipt for `leaf` at index 137 of 300, cosigned by nodes 1 and 2.
pub fn receipt_for(leaf: Vec<u8>) -> Receipt {
    let mut tree = MemoryTree::new();
    for number in 0..RECEIPT_SIZE {
        tree.append(if number == RECEIPT_INDEX {
            leaf_hash(&leaf)
        } else {
            number_hash(number)
        });
    }
    let index = TreeSize::new(RECEIPT_INDEX).next_index();
    Receipt {
        leaf,
        opening: Some(Opening {
            salt: SALT,
            metadata: metadata().encode().unwrap(),
        }),
        index,
        proof: inclusion::prove(&tree, index, tree.size()).unwrap(),
        checkpoint_note: signed(tree.size(), tree.root(), &[1, 2]).to_text(),
    }
}

pub fn receipt() -> Receipt {
    receipt_for(put_leaf())
}
