//! Fuzz targets: the two parts of a frame, and what a committed frame does.

use bytes::Bytes;
use scribe_proof::hash::leaf_hash;
use scribe_proof::index::TreeSize;

use super::apply::{EntriesFrame, LedgerState, Outcome, apply as decide};
use super::batch::{Batch, BatchBuilder};
use crate::limits;

/// Cuts the input into a number of leaves, a public and a private part.
fn parts(data: &[u8]) -> Option<(u16, Bytes, Bytes)> {
    let ([c, d, e, f], rest) = data.split_first_chunk()?;
    let count = u16::from_be_bytes([*c, *d]) % 1_100;
    let public = usize::from(u16::from_be_bytes([*e, *f])).min(rest.len());
    let (public, private) = rest.split_at(public);
    Some((
        count,
        Bytes::copy_from_slice(public),
        Bytes::copy_from_slice(private),
    ))
}

/// The tables of both parts. What is accepted is built again byte for byte, but for what a record too short to be one
/// holds, which reads as erased.
pub(crate) fn batch(data: &[u8]) {
    let Some((count, public, private)) = parts(data) else {
        return;
    };
    let Ok(batch) = Batch::parse(usize::from(count), public.clone(), private.clone()) else {
        return;
    };
    assert!((1..=limits::FRAME_OPERATIONS_MAX).contains(&batch.count()));
    let mut builder = BatchBuilder::new();
    let digests: Vec<_> = batch.digests().collect();
    assert!(digests.len() <= batch.count());
    digests
        .iter()
        .for_each(|digest| builder.push_digest(*digest));
    for position in 0..batch.count() {
        let leaf = batch.leaf(position).expect("every leaf is there");
        let record = batch.private(position);
        let opening = record
            .as_ref()
            .map(|record| (&record.salt, &record.metadata[..], &record.value[..]));
        builder.push(&leaf, opening);
    }
    assert_eq!(batch.leaf(batch.count()), None);
    assert_eq!(batch.private(batch.count()), None);
    let (public_again, private_again) = builder.finish();
    assert_eq!(public_again, public, "a second encoding");
    assert!(private_again.len() <= private.len());
    if private_again.len() == private.len() {
        assert_eq!(private_again, private, "a second encoding");
    }
}

/// A frame of entries as it would be applied: decided alike each time, and taken only if every leaf is good.
pub(crate) fn applied_frame(data: &[u8]) {
    let Some(([size, time, terms], rest)) = data.split_first_chunk() else {
        return;
    };
    let Some((count, public, private)) = parts(rest) else {
        return;
    };
    let state = LedgerState {
        tree_size: TreeSize::new(u64::from(*size)),
        last_timestamp_ms: u64::from(*time),
    };
    let follows = terms & 2 == 0;
    let frame = EntriesFrame {
        term: 2,
        sequencing_term: 2 - u64::from(terms & 1),
        first_leaf: if follows {
            state.tree_size.next_index()
        } else {
            state.tree_size.next_index().next()
        },
        count: u32::from(count),
        public,
        private,
    };
    let outcome = decide(state, &frame);
    assert_eq!(outcome, decide(state, &frame), "decided two ways");
    match outcome {
        Ok(Outcome::Void) => assert!(frame.sequencing_term != frame.term || !follows),
        Ok(Outcome::Valid(entries)) => {
            assert!(frame.sequencing_term == frame.term && follows);
            assert_eq!(entries.leaves.len(), usize::from(count));
            assert!(entries.digests.len() <= entries.leaves.len());
            let batch = Batch::parse(usize::from(count), frame.public, frame.private)
                .expect("what was applied is a batch");
            let mut last = state.last_timestamp_ms;
            for (position, leaf) in entries.leaves.iter().enumerate() {
                assert!(leaf.timestamp_ms >= last, "time goes back");
                last = leaf.timestamp_ms;
                assert!(leaf.key.len() <= limits::KEY_LENGTH_MAX);
                let bytes = batch.leaf(position).expect("every leaf is there");
                assert_eq!(leaf.leaf_hash, leaf_hash(&bytes));
            }
        }
        Err(_) => assert!(frame.sequencing_term == frame.term && follows),
    }
}

/// Inputs made by the encoders themselves: target, name, bytes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use scribe_proof::hash::Hash;
    use scribe_proof::leaf::{Leaf, LeafKind, Prev};

    use super::batch::IdempotencyDigest;

    let leaf = |kind: LeafKind, timestamp_ms: u64, key: &[u8]| {
        let mut bytes = Vec::new();
        let leaf = Leaf {
            kind,
            subtype: u16::from(kind == LeafKind::System),
            timestamp_ms,
            transaction_position: 0,
            transaction_length: 1,
            prev: match kind {
                LeafKind::System => Prev::None,
                _ => Prev::NotAsserted,
            },
            commitment: match kind {
                LeafKind::System => Hash::default(),
                _ => Hash([7; 32]),
            },
            key,
            author: b"",
            body: match kind {
                LeafKind::System => b"body",
                _ => b"",
            },
        };
        leaf.encode_into(&mut bytes).expect("a good leaf");
        bytes
    };
    let put = leaf(LeafKind::Put, 9, b"key");
    let delete = leaf(LeafKind::Delete, 10, b"\0\xff");
    let system = leaf(LeafKind::System, 10, b"");
    let opening = Some((&[5; 16], &[0, 0][..], &b"value"[..]));
    let digest = IdempotencyDigest {
        first: 0,
        count: 1,
        key_hash: [1; 16],
        fingerprint: [2; 16],
    };
    let mut mixed = BatchBuilder::new();
    mixed.push(&put, opening);
    mixed.push(&delete, opening);
    mixed.push(&system, None);
    mixed.push_digest(digest);
    mixed.push_digest(IdempotencyDigest { first: 1, ..digest });
    let mut one = BatchBuilder::new();
    one.push(&put, opening);
    let mut erased = BatchBuilder::new();
    erased.push(&put, None);
    erased.push(&put, opening);
    let mut no_leaf = BatchBuilder::new();
    no_leaf.push(b"not a leaf", opening);
    let mut backwards = BatchBuilder::new();
    backwards.push(&delete, opening);
    backwards.push(&put, opening);
    let mut made = Vec::new();
    for (name, batch) in [
        ("mixed", mixed),
        ("one", one),
        ("erased", erased),
        ("no-leaf", no_leaf),
        ("backwards", backwards),
    ] {
        let mut bytes = (batch.count() as u16).to_be_bytes().to_vec();
        let (public, private) = batch.finish();
        bytes.extend((public.len() as u16).to_be_bytes());
        bytes.extend(public);
        bytes.extend(private);
        made.push(("batch", name, bytes.clone()));
        let with = |head: [u8; 3]| [&head[..], &bytes].concat();
        made.push(("applied_frame", name, with([3, 1, 0])));
        if name == "mixed" {
            made.push(("applied_frame", "void", with([0, 0, 1])));
            made.push(("applied_frame", "elsewhere", with([0, 0, 2])));
            made.push(("applied_frame", "late", with([0, 200, 0])));
        }
    }
    made
}
