//! What is true about a Scribe ledger, checked offline.
//!
//! This crate holds the formats and rules a ledger is bound to: the leaf each entry becomes, the
//! RFC 6962 Merkle tree over the leaves, inclusion and consistency proofs, signed checkpoints and
//! their cosignatures, the policy that says whose signatures count, and the receipt a user keeps.
//! The node, the client and the command line all use it, and so can an auditor who trusts none of
//! them. Formats are those of <https://c2sp.org> where one exists.
//!
//! It is *not* a client and not a store: no I/O, no clock, no randomness, no `unsafe`, no `std`. It
//! compiles to WebAssembly. It also does not claim more than it proves: an [`Included`] entry is in
//! the ledger, but nothing here says that it is the latest version of its key or that something is
//! absent.
//!
//! # Verifying a receipt
//!
//! ```
//! # use scribe_proof::*;
//! # let seed = [7; 32];
//! # let ledger = SigningKey::from_seed("example.com/ledger", &seed).unwrap();
//! # let metadata = Metadata::default().encode().unwrap();
//! # let leaf = Leaf { kind: LeafKind::Put, subtype: 0, timestamp_ms: 1, transaction_position: 0,
//! #     transaction_length: 1, prev: Prev::None, commitment: commitment(&seed[..16].try_into().unwrap(),
//! #     &metadata, b"hello"), key: b"greeting", author: b"", body: b"" };
//! # let mut bytes = Vec::new();
//! # leaf.encode_into(&mut bytes).unwrap();
//! # let root = leaf_hash(&bytes);
//! # let checkpoint = Checkpoint::new("example.com/ledger", TreeSize::new(1), root);
//! # let signed = SignedCheckpoint::sign(checkpoint, &[&ledger]).unwrap();
//! # let text = Receipt { leaf: bytes, opening: Some(Opening { salt: [7; 16], metadata }),
//! #     index: LeafIndex::new(0), proof: vec![], checkpoint_note: signed.to_text() }.to_text();
//! # let verifier_key_text = ledger.verifier_key().to_text();
//! // Known beforehand: the ledger's public key. Kept by the user: the receipt and the value.
//! let key = VerifierKey::parse(&verifier_key_text)?;
//! let receipt = Receipt::parse(&text)?;
//!
//! let entry = receipt.verify(&key)?; // leaf, inclusion, origin, signatures
//! entry.check_key(b"greeting")?; // it is the entry you mean
//! entry.check_value(b"hello")?; // and this is its value
//! assert_eq!(entry.index(), LeafIndex::new(0));
//!
//! assert!(entry.check_value(b"hallo").is_err());
//! # Ok::<(), Error>(())
//! ```
//!
//! A [`Policy`] in place of the key also asks for cosignatures.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(unreachable_pub)]
#![warn(clippy::unwrap_used)]

extern crate alloc;

pub mod checkpoint;
pub mod commitment;
pub mod consistency;
pub mod cosignature;
pub mod error;
pub mod hash;
pub mod inclusion;
pub mod index;
pub mod key;
pub mod leaf;
pub mod note;
pub mod policy;
pub mod policy_update;
pub mod receipt;
pub mod rotation;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
#[doc(inline)]
pub use commitment::commitment;
pub use commitment::{
    CommitmentHasher, METADATA_LENGTH_MAX, METADATA_PAIRS_MAX, Metadata, SALT_LENGTH,
};
pub use error::{Error, ProofError};
pub use hash::{Hash, HashError, empty_root, leaf_hash, node_hash, sha256};
pub use index::{LeafIndex, TreeSize};
pub use key::{KeyType, SigningKey, VerifierKey};
pub use leaf::{
    AUTHOR_LENGTH_MAX, KEY_LENGTH_MAX, LEAF_LENGTH_MAX, Leaf, LeafError, LeafKind, Prev, SystemKind,
};
pub use note::{Note, NoteError, Signature, sign_note};
pub use policy::{Cosigner, Policy, PolicyError, PolicyReport, Trust};
pub use policy_update::{Announced, PolicyChange, PolicyUpdate, PolicyUpdateError};
pub use receipt::{Entry, Included, Opening, Receipt, ReceiptError};
pub use rotation::{LedgerKeys, ROTATION_OVERLAP_MS, Rotation, RotationError};
pub use tile::{Tile, TileError, TilePath};
pub use tree::{
    Frontier, HashReader, MemoryTree, ProveError, TreeBuilder, root_at, subtree_root, tile_root,
};
pub use witness::{AddCheckpoint, NotCosigned, WitnessError};
