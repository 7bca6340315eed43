//! What is shown to people: short, telling, and without secrets.

mod common;

use common::{ledger_key, node_key, receipt};
use scribe_proof::{
    CommitmentHasher, Hash, LeafIndex, Tile, TilePath, TreeSize, VerifierKey, sign_note,
};

#[test]
fn numbers_and_hashes() {
    assert_eq!(LeafIndex::new(7).to_string(), "7");
    assert_eq!(TreeSize::new(8).to_string(), "8");
    assert_eq!(format!("{:?}", LeafIndex::new(7)), "LeafIndex(7)");
    assert_eq!(format!("{:?}", TreeSize::new(8)), "TreeSize(8)");
    assert_eq!(format!("{:>3}", TreeSize::new(8)), "  8", "widths are kept");
    let hash = Hash([0xa5; 32]);
    assert_eq!(hash.to_string(), "a5".repeat(32));
    assert_eq!(format!("{hash:?}"), hash.to_hex());
    assert_eq!(hash.as_ref(), hash.as_bytes());
    assert_eq!(Hash::from([0xa5; 32]), hash);
}

#[test]
fn keys_and_signatures() {
    let key = ledger_key();
    let text = key.verifier_key().to_text();
    assert_eq!(key.verifier_key().to_string(), text);
    assert_eq!(
        format!("{:?}", key.verifier_key()),
        format!("VerifierKey({text})")
    );
    assert_eq!(text.parse::<VerifierKey>().as_ref(), Ok(key.verifier_key()));
    assert_eq!(
        format!("{key:?}"),
        format!("SigningKey(VerifierKey({text}), secret redacted)")
            .replace("VerifierKey(", "")
            .replace("),", ",")
    );
    assert_eq!(node_key(1).name(), "example.com/ledger/node/1");
    let note = sign_note("text\n", &[&key]).unwrap();
    let shown = format!("{:?}", note.signatures[0]);
    assert_eq!(shown, "Signature(example.com/ledger+3481d542, 64 bytes)");
}

#[test]
fn a_commitment_in_the_making_hides_its_salt() {
    let mut hasher = CommitmentHasher::new(&[0xab; 16], &[0, 0], 5);
    hasher.update(b"he");
    assert_eq!(
        format!("{hasher:?}"),
        "CommitmentHasher { announced: 5, found: 2, .. }"
    );
}

#[test]
fn paths() {
    let tile = Tile::new(0, 1_234_067, 7).unwrap();
    assert_eq!(
        TilePath::Hashes(tile).to_string(),
        "tile/0/x001/x234/067.p/7"
    );
    assert_eq!(
        TilePath::Entries(tile).to_string(),
        "tile/entries/x001/x234/067.p/7"
    );
}

#[test]
fn what_a_receipt_proved() {
    let entry = receipt().verify(ledger_key().verifier_key()).unwrap();
    assert_eq!(entry.index(), LeafIndex::new(137));
    assert_eq!(entry.tree_size(), TreeSize::new(300));
    assert_eq!(entry.origin(), "example.com/ledger");
    assert_eq!(entry.report().log, *ledger_key().verifier_key());
    assert_eq!(entry.get().key, b"greeting");
    assert!(!entry.is_redacted());
    assert_eq!(entry.clone().into_inner(), *entry.get());
}
