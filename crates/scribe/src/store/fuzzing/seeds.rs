//! The corpora of the store's targets, from a small ledger.

use std::path::Path;

use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafKind;

use super::image::Original;
use super::{DIR, SUMMARY_FIELDS};
use crate::store::frame::{FramePosition, LogIndex};
use crate::store::index::{
    IndexedSegment, encode_remembered, encode_segment, encode_version, segment_key,
    version_key_into,
};
use crate::store::manifest::MANIFEST_NAME;
use crate::store::recovery::LOG_DIR;
use crate::store::segment::file_path;
use crate::store::view::{Remembered, Version};
use crate::store::vote::VOTE_NAME;
use crate::store::watermarks::WATERMARKS_NAME;

/// Inputs for the targets of the store, made by its encoders: target, name, bytes.
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let ascending = |step: u64| {
        let mut bytes = Vec::new();
        for number in 0..3_u64 {
            // Log indexes, tree sizes and lengths that follow each other.
            let mut fields = vec![0; SUMMARY_FIELDS];
            let first = number * step;
            let values = [first, first + step - 1, number, number + 1, 100, 400];
            for (at, value) in values.iter().enumerate() {
                fields[at * 8..at * 8 + 8].copy_from_slice(&value.to_be_bytes());
            }
            bytes.extend(fields);
        }
        bytes
    };
    let mut made = of_image();
    for (name, bytes) in [
        ("following", ascending(10)),
        ("single-frames", ascending(1)),
        ("zeros", vec![0; 3 * SUMMARY_FIELDS]),
        ("highest", vec![0xff; 3 * SUMMARY_FIELDS]),
        ("one", vec![9; SUMMARY_FIELDS]),
    ] {
        made.push(("segment_list", name, bytes));
    }
    made
}

/// Inputs that are files of a small ledger, or edits of it.
fn of_image() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let original = Original::get();
    let file = |name: &str| original.files[&Path::new(DIR).join(name)].clone();
    let segment = |number: usize| {
        let first = original.sealed[number].first_log_index;
        original.files[&file_path(&Path::new(DIR).join(LOG_DIR), first)].clone()
    };
    let open_first = original.sealed.last().expect("sealed segments");
    let open_first = open_first.last_log_id.index.next();
    let open = original.files[&file_path(&Path::new(DIR).join(LOG_DIR), open_first)].clone();
    let at = |path: &Path| {
        let place = original.names.iter().position(|name| name == path);
        place.expect("a file") as u8
    };
    let mut made = Vec::new();
    let mut add = |target, name, bytes: &[u8]| made.push((target, name, bytes.to_vec()));

    for (name, number) in [("first", 0), ("second", 1), ("third", 2)] {
        let (bytes, sealed) = (segment(number), &original.sealed[number]);
        add("segment_file", name, &bytes);
        add("footer", name, &bytes[sealed.body_length as usize..]);
        add("frame", name, &bytes[64..sealed.body_length as usize]);
    }
    add("segment_file", "open", &open);
    let mut torn = open.clone();
    torn.resize(open.len().next_multiple_of(512), 0);
    torn[64 + 100..].fill(0);
    add("segment_file", "torn", &torn);
    add("frame", "open", &open[64..]);
    add("frame", "blank", &[0; 64]);
    add("footer", "summary", &original.sealed[1].encode_summary());
    add("footer", "name", b"0000000000000010.seg");

    let vote = file(VOTE_NAME);
    add("vote_file", "voted", &vote);
    add("vote_file", "one-slot", &vote[..64]);
    let mut second = vote.clone();
    second[..64].fill(0);
    add("vote_file", "second-slot", &second);
    let mut newer = vote.clone();
    newer[7] = b'2';
    add("vote_file", "newer", &newer);
    add("vote_file", "blank", &[0; 128]);
    let marks = file(WATERMARKS_NAME);
    add("watermarks", "both", &marks);
    add("watermarks", "first", &marks[..80]);
    let mut second = marks.clone();
    second[..80].fill(0);
    add("watermarks", "second", &second);
    add("watermarks", "blank", &[0; 80]);
    add("watermarks", "short", &marks[..4_100]);

    let manifest = file(MANIFEST_NAME);
    add("manifest", "sealed", &manifest);
    add("manifest", "torn", &manifest[..manifest.len() - 9]);
    add("manifest", "header", &manifest[..32]);
    let pieces = |records: &[(u8, &[u8])]| {
        let mut bytes = manifest[..32].to_vec();
        for (kind, payload) in records {
            bytes.push(*kind);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend_from_slice(payload);
        }
        bytes
    };
    let summary = original.sealed[0].encode_summary();
    add(
        "manifest",
        "pieces",
        &pieces(&[(1, &summary), (2, &[3; 40]), (3, &[0; 8]), (4, &[0; 8])]),
    );
    let mut list = [0, 0, 0, 1, 0, 0, 0, 0].to_vec();
    list.extend((summary.len() as u32).to_be_bytes());
    list.extend([0; 4]);
    list.extend_from_slice(&summary);
    add(
        "manifest",
        "installed",
        &pieces(&[(5, &list), (6, b"later")]),
    );

    let mut key = Vec::new();
    version_key_into(b"a\0key", LeafIndex::new(7), &mut key);
    add("index_record", "key", &key);
    version_key_into(b"", LeafIndex::new(u64::MAX), &mut key);
    add("index_record", "empty-key", &key);
    let version = Version {
        index: LeafIndex::new(7),
        kind: LeafKind::Delete,
        position: FramePosition {
            segment: 1,
            offset: 64,
            length: 300,
        },
        slot: 2,
    };
    add("index_record", "version", &encode_version(&version));
    let indexed = IndexedSegment {
        number: 2,
        end_size: TreeSize::new(9),
        end_root: Hash([3; 32]),
        versions: 8,
    };
    let watermark = [&segment_key(2)[..], &encode_segment(&indexed)].concat();
    add("index_record", "segment", &watermark);
    let remembered = Remembered {
        first: LeafIndex::new(3),
        count: 2,
        fingerprint: [6; 16],
        timestamp_ms: 77,
    };
    add(
        "index_record",
        "remembered",
        &encode_remembered(&remembered),
    );

    let [vote, marks, manifest] =
        [VOTE_NAME, WATERMARKS_NAME, MANIFEST_NAME].map(|name| at(&Path::new(DIR).join(name)));
    let log_file = |first: LogIndex| at(&file_path(&Path::new(DIR).join(LOG_DIR), first));
    let sealed = log_file(original.sealed[1].first_log_index);
    let (first, third) = (
        log_file(original.sealed[0].first_log_index),
        log_file(original.sealed[2].first_log_index),
    );
    let last = log_file(open_first);
    let tree = at(&Path::new(DIR).join("tree/L0"));
    for (name, bytes) in [
        ("as-it-is", &[0][..]),
        ("flip-open", &[0, 0, last, 0, 100, 1, 0, 0]),
        ("flip-sealed", &[0, 0, sealed, 0, 200, 4, 0, 0]),
        ("no-manifest", &[0, 4, manifest, 0, 0, 0, 0, 0]),
        ("flip-manifest", &[0, 0, manifest, 0, 60, 1, 0, 0]),
        ("no-vote", &[0, 4, vote, 0, 0, 0, 0, 0]),
        ("vote-slot", &[0, 2, vote, 0, 0, 0, 0, 64]),
        ("no-watermarks", &[0, 4, marks, 0, 0, 0, 0, 0]),
        ("no-tree", &[0, 4, tree, 0, 0, 0, 0, 0]),
        ("flip-tree", &[0, 0, tree, 0, 3, 1, 0, 0]),
        (
            "torn",
            &[0, 4, marks, 0, 0, 0, 0, 0, 8, last, 0, 200, 0, 0, 0],
        ),
        ("cut-repair", &[1, 1, last, 0, 90, 0, 0, 0]),
        (
            "no-vote-no-log",
            &[
                0, 4, vote, 0, 0, 0, 0, 0, 4, marks, 0, 0, 0, 0, 0, 4, first, 0, 0, 0, 0, 0, 4,
                sealed, 0, 0, 0, 0, 0, 4, third, 0, 0, 0, 0, 0, 4, last, 0, 0, 0, 0, 0,
            ],
        ),
        ("no-segment", &[0, 4, sealed, 0, 0, 0, 0, 0]),
        (
            "staged",
            &[0, 7, 0, 0, 0, sealed, 0, 0, 4, sealed, 0, 0, 0, 0, 0],
        ),
        ("moved", &[0, 7, 0, 0, 2, sealed, 0, 0]),
        ("forged", &[0, 9, manifest, 0, 40, 0, 0, 4, 1, 2, 3, 4]),
        ("swapped", &[0, 6, last, 0, 0, sealed, 0, 0]),
        ("longer", &[0, 3, last, 0, 0, 0, 4, 0]),
    ] {
        add("directory", name, bytes);
    }
    for (name, bytes) in [
        ("as-it-is", &[1][..]),
        ("flip", &[1, 0, sealed, 0, 200, 4, 0, 0]),
        ("cut", &[1, 1, sealed, 1, 0, 4, 0, 0]),
        ("zeros", &[1, 3, sealed, 0, 0, 0, 0, 9]),
        ("footer", &[1, 0, sealed, 4, 0, 4, 0, 0]),
        ("first", &[0, 0, sealed, 4, 0, 4, 0, 0]),
        ("forged", &[1, 9, sealed, 0, 70, 0, 0, 4, 1, 2, 3, 4]),
    ] {
        add("staged_segment", name, bytes);
    }
    made
}
