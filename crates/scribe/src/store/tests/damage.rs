//! Damage is noticed and named, and repaired where the segments allow it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::LeafKind;

use super::model::*;
use crate::ledger::batch::DIGEST_LENGTH;
use crate::store::disk::{Disk, Open};
use crate::store::frame::{HEADER_LENGTH, LogIndex};
use crate::store::index::IndexKind;
use crate::store::load::check_commitment;
use crate::store::scrub::{ScrubOptions, Scrubbed};
use crate::store::sim_disk::SimDisk;
use crate::store::{CheckError, Damage, Store};

const DIR: &str = "/data";

fn sealed_store() -> (SimDisk, Model, Store) {
    let model = Model::of(&some_ops(120));
    let disk = SimDisk::new();
    let (store, _) = open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    (disk, model, store)
}

fn damage_of(outcome: Result<impl std::fmt::Debug, CheckError>) -> Damage {
    match outcome {
        Err(CheckError::Damage(damage)) => damage,
        other => panic!("damage was not noticed: {other:?}"),
    }
}

#[test]
fn a_changed_byte_of_a_sealed_segment_is_named() {
    let (disk, _, store) = sealed_store();
    let number = 2;
    let sealed = store.log().sealed()[number].clone();
    let path = segment_path(&store, Path::new(DIR), number);
    let length = sealed.file_length;
    // Everywhere: header, frames, footer.
    for offset in (0..length)
        .step_by(173)
        .chain([length - 1, sealed.body_length])
    {
        assert!(disk.flip(&path, offset, 0x10));
        let damage = damage_of(store.check(|_, _| {}));
        assert_eq!(
            Path::new(DIR).join(&damage.path),
            path,
            "flip at {offset}: {damage}"
        );
        let damage = damage_of(store.scrub_segment(number as u32));
        assert_eq!(
            Path::new(DIR).join(&damage.path),
            path,
            "flip at {offset}: {damage}"
        );
        assert!(disk.flip(&path, offset, 0x10));
    }
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn a_changed_tree_hash_is_named() {
    let (disk, model, store) = sealed_store();
    let path = Path::new(DIR).join("tree/L0");
    let length = disk.bytes(&path).unwrap().len() as u64;
    for offset in (0..length).step_by(320) {
        assert!(disk.flip(&path, offset, 1));
        let damage = damage_of(store.check(|_, _| {}));
        assert!(
            damage.path.starts_with("tree"),
            "flip at {offset}: {damage}"
        );
        let sealed = store.log().sealed();
        let holder = sealed
            .iter()
            .find(|segment| segment.footer.end_size.get() * 32 > offset)
            .unwrap();
        let damage = damage_of(store.scrub_segment(holder.number));
        assert!(
            damage.path.starts_with("tree"),
            "flip at {offset}: {damage}"
        );
        assert!(disk.flip(&path, offset, 1));
    }
    store.check(|_, _| {}).unwrap();
    model.compare(&store);
    store.shutdown();
}

#[test]
fn a_read_does_not_return_changed_bytes() {
    let put = |key, length| EntryOp::Put {
        key,
        length,
        remember: false,
    };
    // A frame so long that only parts of it are read.
    let mut ops = vec![FrameOp::Entries(
        (0..20).map(|i| put(i % 10, 1_500)).collect(),
    )];
    ops.extend(some_ops(20));
    let model = Model::of(&ops);
    let disk = SimDisk::new();
    let (store, _) = open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    store.shutdown();
    drop(store);
    let first_segment = Path::new(DIR).join("log").join(format!("{:016x}.seg", 0));
    for offset in (64..30_000).step_by(331) {
        let image = disk.kill();
        let (store, _) = open(Arc::new(image.clone()), Path::new(DIR), IndexKind::Memory);
        assert!(image.flip(&first_segment, offset, 0x40));
        for index in 0..20 {
            let index = scribe_proof::index::LeafIndex::new(index);
            if let Ok(Some(entry)) = store.entry(index) {
                let (leaf, value, _) = &model.leaves[index.get() as usize];
                assert_eq!(&entry.leaf, leaf, "flip at {offset}");
                let found = entry.private.as_ref().map(|private| &private.value);
                assert_eq!(found, value.as_ref(), "flip at {offset}");
            }
        }
        store.shutdown();
    }
}

#[test]
fn a_rotten_table_of_a_big_frame_is_no_empty_value() {
    let put = |key| EntryOp::Put {
        key,
        length: 1_500,
        remember: key == 3,
    };
    let mut ops = vec![FrameOp::Entries((0..20).map(|i| put(i % 10)).collect())];
    ops.extend(some_ops(20));
    let model = Model::of(&ops);
    let disk = SimDisk::new();
    let (store, _) = open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    store.shutdown();
    drop(store);
    let (store, _) = open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory);
    let position = store.log().position(LogIndex(0)).unwrap();
    let frame = &model.frames[0];
    let path = segment_path(&store, Path::new(DIR), 0);
    let digests = u32::from_be_bytes(frame.private[..4].try_into().unwrap()) as usize;
    let table = 4 + digests * DIGEST_LENGTH;
    let ends: Vec<usize> = frame.private[table..table + 80]
        .chunks(4)
        .map(|end| u32::from_be_bytes(end.try_into().unwrap()) as usize)
        .collect();
    let starts = [0].iter().chain(&ends[..19]);
    // The digest count, the table of ends, and the length of each metadata.
    let metadata_lengths = starts.flat_map(|start| {
        let at = table + 80 + start + 16;
        [at, at + 1]
    });
    let mut noticed = 0;
    for at in (0..4).chain(table..table + 80).chain(metadata_lengths) {
        let offset = u64::from(position.offset) + (HEADER_LENGTH + frame.public.len() + at) as u64;
        for mask in [0x01, 0x80] {
            assert!(disk.flip(&path, offset, mask));
            for slot in 0..20_u16 {
                let index = LeafIndex::new(slot.into());
                match store.0.load_uncached(index, position, slot) {
                    Ok(entry) => {
                        let (leaf, value, _) = &model.leaves[usize::from(slot)];
                        assert_eq!(&entry.leaf, leaf, "flip at {at}");
                        let found = entry.private.as_ref().map(|private| &private.value);
                        assert_eq!(found, value.as_ref(), "flip at {at}");
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
                        noticed += 1;
                    }
                }
            }
            assert!(disk.flip(&path, offset, mask));
        }
    }
    assert!(noticed > 100, "{noticed}");
    apply_rest(&store, &model.frames).unwrap();
    model.compare(&store);
    store.shutdown();
}

#[test]
fn a_put_without_its_private_part_is_damage() {
    let (_, model, store) = sealed_store();
    for index in 0..model.leaves.len() as u64 {
        let mut entry = store.entry(LeafIndex::new(index)).unwrap().unwrap();
        check_commitment(&entry).unwrap();
        entry.private = None;
        let system = entry.parse().unwrap().kind == LeafKind::System;
        assert_eq!(check_commitment(&entry).is_ok(), system);
    }
    store.shutdown();
}

#[test]
fn short_and_wrong_tree_files_are_derived_again_at_open() {
    let (disk, model, store) = sealed_store();
    store.shutdown();
    drop(store);
    let path = Path::new(DIR).join("tree/L0");
    let good = disk.bytes(&path).unwrap();
    let length = good.len() as u64;
    for cut in [0, 1, 31, 32, length / 2, length - 1] {
        let image = disk.kill();
        let file = image.open(&path, Open::READ_WRITE).unwrap();
        file.set_len(cut).unwrap();
        let (store, report) = open(Arc::new(image.clone()), Path::new(DIR), IndexKind::Memory);
        assert!(report.tree_segments_rebuilt > 0, "cut at {cut}");
        assert_eq!(image.bytes(&path).unwrap(), good, "cut at {cut}");
        apply_rest(&store, &model.frames).unwrap();
        store.check(|_, _| {}).unwrap();
        store.shutdown();
    }
    // The right edge is wrong; the file is too long; the file is gone.
    let image = disk.kill();
    assert!(image.flip(&path, length - 5, 1));
    let file = image.open(&path, Open::READ_WRITE).unwrap();
    file.write_all_at(&[7; 100], length).unwrap();
    let (store, report) = open(Arc::new(image.clone()), Path::new(DIR), IndexKind::Memory);
    assert!(report.tree_segments_rebuilt > 0);
    assert_eq!(image.bytes(&path).unwrap(), good);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
    let image = disk.kill();
    image.remove(&path).unwrap();
    let (store, report) = open(Arc::new(image.clone()), Path::new(DIR), IndexKind::Memory);
    assert_eq!(report.tree_segments_rebuilt, store.log().sealed().len());
    assert_eq!(image.bytes(&path).unwrap(), good);
    store.shutdown();
}

#[test]
fn the_scrubber_reports_good_and_bad_segments_and_goes_on() {
    let (disk, _, store) = sealed_store();
    let path = segment_path(&store, Path::new(DIR), 1);
    assert!(disk.flip(&path, 200, 1));
    let (sender, reports) = std::sync::mpsc::channel();
    let options = ScrubOptions {
        bytes_per_second: u64::MAX,
        round_interval: Duration::from_secs(3_600),
    };
    let scrubber = store
        .start_scrubber(options, move |scrubbed| {
            let _ = sender.send(match scrubbed {
                Scrubbed::Good { segment, bytes } => (segment, bytes > 0),
                Scrubbed::Damaged { segment, .. } => (segment, false),
                Scrubbed::Unreadable { segment, error } => panic!("{segment}: {error}"),
            });
        })
        .unwrap();
    for number in 0..store.log().sealed().len() as u32 {
        assert_eq!(reports.recv().unwrap(), (number, number != 1));
    }
    drop(scrubber);
    store.shutdown();
}
