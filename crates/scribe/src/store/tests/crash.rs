//! Power cuts at every operation, sealing included: nothing acknowledged is lost, and all that is derived comes back.

use std::path::Path;
use std::sync::Arc;

use super::model::*;
use crate::store::disk::Disk;
use crate::store::index::IndexKind;
use crate::store::sim_disk::SimDisk;
use crate::store::{Store, StoreOptions};

const DIR: &str = "/data";

/// Feeds frames in small groups until all are in or the disk fails; returns how many are known to be on disk, and how
/// many of those were applied.
fn work(disk: &SimDisk, model: &Model) -> (usize, usize) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = Store::open(shared, Path::new(DIR), IDENTITY, options());
    let Ok((store, _)) = opened else {
        return (0, 0);
    };
    let mut acknowledged = 0;
    for frames in model.frames.chunks(4) {
        if append(&store, frames, 2).is_err() {
            break;
        }
        acknowledged += frames.len();
        if apply_rest(&store, frames).is_err() {
            break;
        }
        // In step with the sealer, so that the operations come in the same order in each run.
        settle(&store);
    }
    let applied = store
        .applied()
        .last_log_id
        .map_or(0, |id| id.index.0 as usize + 1);
    store.shutdown();
    (acknowledged, applied)
}

fn options() -> StoreOptions {
    super::model::options(IndexKind::Memory)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing() {
    let model = Model::of(&some_ops(60));
    let whole = SimDisk::new();
    assert_eq!(work(&whole, &model), (60, 60));
    let operations = whole.operations();
    let (store, _) = open(Arc::new(whole.clone()), Path::new(DIR), IndexKind::Memory);
    let segments = store.log().sealed().len();
    assert!(
        segments >= 3,
        "{segments} segments are too few for this test"
    );
    let files: Vec<_> = (0..segments)
        .map(|number| segment_path(&store, Path::new(DIR), number))
        .map(|path| (path.clone(), whole.bytes(&path).unwrap()))
        .collect();
    store.shutdown();

    for operation in 0..operations {
        let disk = SimDisk::new();
        disk.crash_at(operation);
        let (acknowledged, applied) = work(&disk, &model);
        for image in [disk.crash(operation), disk.crash(!operation), disk.kill()] {
            let (store, report) =
                match Store::open(Arc::new(image.clone()), Path::new(DIR), IDENTITY, options()) {
                    Ok(opened) => opened,
                    Err(error) => panic!("operation {operation}: {error}"),
                };
            // What the MANIFEST calls sealed has its tree hashes on disk, always.
            assert_eq!(report.tree_segments_rebuilt, 0, "operation {operation}");
            let last = store.log().last().map_or(0, |id| id.index.0 as usize + 1);
            assert!(
                last >= acknowledged && last >= applied.min(acknowledged),
                "operation {operation}: {last} frames of {acknowledged} acknowledged"
            );
            let sealed = store
                .applied()
                .last_log_id
                .map_or(0, |id| id.index.0 as usize + 1);
            model.prefix(sealed).compare(&store);
            apply_rest(&store, &model.frames[..last]).unwrap();
            model.prefix(last).compare(&store);
            store
                .check(|_, _| {})
                .unwrap_or_else(|error| panic!("operation {operation}: {error}"));
            // And it goes on as if nothing had been.
            feed(&store, &model.frames[last..]).unwrap();
            settle(&store);
            assert_eq!(store.poisoned(), None);
            assert_eq!(store.log().sealed().len(), segments);
            store.check(|_, _| {}).unwrap();
            for (path, bytes) in &files {
                assert!(
                    image.bytes(path).as_ref() == Some(bytes),
                    "operation {operation}: {} differs",
                    path.display()
                );
            }
            store.shutdown();
        }
    }
}
