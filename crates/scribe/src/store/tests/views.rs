//! The view says what the model says, whatever happens in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use scribe_proof::index::TreeSize;

use super::model::*;
use crate::store::Effects;
use crate::store::frame::LogId;
use crate::store::index::fjall::FjallIndex;
use crate::store::index::{IndexKind, KeyIndex};
use crate::store::real_disk::RealDisk;
use crate::store::sim_disk::SimDisk;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_the_model(
        steps in proptest::collection::vec(
            (proptest::collection::vec(frame_op(), 1..30), any::<bool>()), 1..5),
    ) {
        let disk = Arc::new(SimDisk::new());
        run_steps(disk, Path::new("/data"), IndexKind::Memory, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_is_the_model(
        steps in proptest::collection::vec(
            (proptest::collection::vec(frame_op(), 1..30), any::<bool>()), 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        run_steps(Arc::new(RealDisk), dir.path(), IndexKind::Fjall, &steps);
    }
}

fn run_steps(
    disk: Arc<dyn crate::store::disk::Disk>,
    dir: &Path,
    index: IndexKind,
    steps: &[(Vec<FrameOp>, bool)],
) {
    let mut model = Model::default();
    let (mut store, _) = open(disk.clone(), dir, index);
    for (ops, reopen) in steps {
        let before = model.frames.len();
        ops.iter().for_each(|op| model.push(op));
        feed(&store, &model.frames[before..]).unwrap();
        if *reopen {
            store.shutdown();
            drop(store);
            store = open(disk.clone(), dir, index).0;
            let sealed = store.applied();
            assert_eq!(sealed, store.sealed_applied());
            let count = sealed.last_log_id.map_or(0, |id| id.index.0 as usize + 1);
            model.prefix(count).compare(&store);
            apply_rest(&store, &model.frames).unwrap();
        }
        // Twice: with whatever is sealed by now, and with all that can be.
        model.compare(&store);
        settle(&store);
        model.compare(&store);
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!(report.leaves, model.leaves.len() as u64);
        assert_eq!(report.frames, model.frames.len() as u64);
        assert_eq!(report.root, model.root(report.leaves));
    }
    store.shutdown();
}

#[test]
fn big_frames_are_read_in_parts_and_alone() {
    let disk = Arc::new(SimDisk::new());
    let dir = Path::new("/data");
    let put = |key, length| EntryOp::Put {
        key,
        length,
        remember: key == 2,
    };
    let model = Model::of(&[
        FrameOp::Entries((0..30).map(|i| put(i % 10, 2_000)).collect()),
        FrameOp::Entries(vec![put(1, 60_000)]),
        FrameOp::Entries(
            (0..39)
                .map(|i| put(i % 10, if i == 7 { 0 } else { 900 }))
                .collect(),
        ),
        FrameOp::Entries(vec![
            EntryOp::System,
            put(3, 30_000),
            EntryOp::Delete { key: 3 },
        ]),
        FrameOp::Blank,
    ]);
    let (store, _) = open(disk.clone(), dir, IndexKind::Memory);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    store.shutdown();
    // Nothing is in memory now.
    let (store, report) = open(disk, dir, IndexKind::Memory);
    assert!(report.index_segments_ingested >= 4);
    let count = store.applied().last_log_id.unwrap().index.0 as usize + 1;
    model.prefix(count).compare(&store);
}

#[test]
fn frames_out_of_place_are_refused() {
    let model = Model::of(&some_ops(6));
    let (store, _) = open(
        Arc::new(SimDisk::new()),
        Path::new("/data"),
        IndexKind::Memory,
    );
    append(&store, &model.frames, 1).unwrap();
    apply_rest(&store, &model.frames[..2]).unwrap();
    let before = store.applied();
    let position = |i: usize| store.log().position(model.frames[i].log_id.index).unwrap();
    let effects = |i: usize| effects_of(&model.frames[i], before.tree_size);
    let mut wrong = vec![
        store.apply(&model.frames[4], position(4), effects(4)), // a gap
        store.apply(&model.frames[1], position(1), effects(1)), // again
    ];
    let Effects::Entries(mut leaves, digests) = effects(2) else {
        panic!("frame 2 has entries");
    };
    leaves.pop();
    wrong.push(store.apply(
        &model.frames[2],
        position(2),
        Effects::Entries(leaves, digests),
    ));
    for outcome in wrong {
        assert_eq!(
            outcome.unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput
        );
    }
    assert_eq!(store.applied(), before);
    apply_rest(&store, &model.frames).unwrap();
    model.compare(&store);
}

#[test]
fn published_state_follows() {
    let put = FrameOp::Entries(vec![EntryOp::Put {
        key: 0,
        length: 3,
        remember: false,
    }]);
    let system = FrameOp::Entries(vec![EntryOp::System]);
    let model = Model::of(&[system.clone(), put.clone(), FrameOp::Publish, system, put]);
    let (store, _) = open(
        Arc::new(SimDisk::new()),
        Path::new("/data"),
        IndexKind::Memory,
    );
    append(&store, &model.frames, 1).unwrap();
    let mut watch = store.watch_applied();
    let mut seen = Vec::new();
    for count in 1..=model.frames.len() {
        apply_rest(&store, &model.frames[..count]).unwrap();
        assert!(watch.has_changed().unwrap());
        seen.push(watch.borrow_and_update().user_entries_since_published);
    }
    assert_eq!(seen, [false, true, false, false, true]);
}

#[test]
fn sealed_segments_are_the_same_bytes_whatever_the_groups() {
    let model = Model::of(&some_ops(120));
    let mut images = Vec::new();
    for group in [1, 4, 50] {
        let disk = SimDisk::new();
        let dir = Path::new("/data");
        let (store, _) = open(Arc::new(disk.clone()), dir, IndexKind::Memory);
        for frames in model.frames.chunks(60) {
            append(&store, frames, group).unwrap();
            apply_rest(&store, frames).unwrap();
        }
        settle(&store);
        let count = store.log().sealed().len();
        assert!(count > 4, "{count} segments are too few for this test");
        let mut files: Vec<(PathBuf, Vec<u8>)> = (0..count)
            .map(|number| segment_path(&store, dir, number))
            .chain([dir.join("tree/L0")])
            .map(|path| (path.clone(), disk.bytes(&path).unwrap()))
            .collect();
        files.sort();
        images.push(files);
        store.shutdown();
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(images[0], images[2]);
}

#[test]
fn sealed_segments_leave_memory() {
    let model = Model::of(&some_ops(150));
    let (store, _) = open(
        Arc::new(SimDisk::new()),
        Path::new("/data"),
        IndexKind::Memory,
    );
    let mut open_segments = Vec::new();
    for frames in model.frames.chunks(5) {
        feed(&store, frames).unwrap();
        open_segments.extend(store.0.view.read().complete.iter().map(Arc::downgrade));
    }
    settle(&store);
    let view = store.0.view.read();
    assert!(view.complete.is_empty());
    let in_memory = view.applied.tree_size.get() - view.sealed.tree_size.get();
    assert!(in_memory <= 40, "{in_memory} leaves are still in memory");
    assert_eq!(
        view.current.as_ref().map(|c| c.version_count()),
        Some(in_memory)
    );
    drop(view);
    // The sealer drops what it sealed right after the view is changed.
    store.shutdown();
    assert!(
        open_segments
            .iter()
            .all(|segment| segment.upgrade().is_none())
    );
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A data directory with the frames of a model, everything sealed that can be, and closed.
fn directory(model: &Model, frames: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Arc::new(RealDisk), dir.path(), IndexKind::Fjall);
    feed(&store, &model.frames[..frames]).unwrap();
    settle(&store);
    store.shutdown();
    // Until the index is really closed it cannot be copied.
    drop(FjallIndex::open(&dir.path().join("index"), 1 << 20).unwrap());
    dir
}

#[test]
fn a_deleted_index_is_rebuilt_and_equal() {
    let model = Model::of(&some_ops(100));
    let dir = directory(&model, 100);
    let segments = {
        let index = FjallIndex::open(&dir.path().join("index"), 1 << 20).unwrap();
        index.segments().unwrap()
    };
    FjallIndex::remove(&dir.path().join("index")).unwrap();
    let (store, report) = open(Arc::new(RealDisk), dir.path(), IndexKind::Fjall);
    assert_eq!(report.index_segments_ingested, segments.len());
    assert_eq!(store.0.index.segments().unwrap(), segments);
    apply_rest(&store, &model.frames).unwrap();
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    // The same on request.
    let rebuilt = store.rebuild_index(|_, _| {}).unwrap();
    assert_eq!(rebuilt, segments.len() as u64);
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn an_index_that_lost_its_idempotency_keys_is_rebuilt() {
    let model = Model::of(&some_ops(100));
    let dir = directory(&model, 100);
    let path = dir.path().join("index");
    FjallIndex::open(&path, 1 << 20)
        .unwrap()
        .forget_remembered();
    let (store, report) = open(Arc::new(RealDisk), dir.path(), IndexKind::Fjall);
    let why = report.index_deleted.unwrap();
    assert!(why.contains("idempotency keys"), "{why}");
    apply_rest(&store, &model.frames).unwrap();
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn an_index_is_not_cleared_under_a_reader() {
    use std::sync::atomic::Ordering;
    let model = Model::of(&some_ops(100));
    let (store, _) = open(
        Arc::new(SimDisk::new()),
        Path::new("/data"),
        IndexKind::Memory,
    );
    feed(&store, &model.frames).unwrap();
    settle(&store);
    let segments = store.0.index.segments().unwrap();
    let index = store.0.index().unwrap();
    std::thread::scope(|scope| {
        let rebuild = scope.spawn(|| store.rebuild_index(|_, _| {}).unwrap());
        while !store.0.index_rebuilding.load(Ordering::Acquire) && !rebuild.is_finished() {
            std::thread::yield_now();
        }
        assert!(store.0.index().is_err(), "new readers are turned away");
        for _ in 0..10_000 {
            assert_eq!(index.segments().unwrap(), segments);
        }
        drop(index);
        assert_eq!(rebuild.join().unwrap(), segments.len() as u64);
    });
    model.compare(&store);
    store.shutdown();
}

#[test]
fn an_index_that_is_behind_is_completed() {
    let model = Model::of(&some_ops(100));
    let (old, new) = (directory(&model, 50), directory(&model, 100));
    let index = new.path().join("index");
    FjallIndex::remove(&index).unwrap();
    copy_dir(&old.path().join("index"), &index);
    let (store, report) = open(Arc::new(RealDisk), new.path(), IndexKind::Fjall);
    assert_eq!(report.index_deleted, None);
    assert!(report.index_segments_ingested > 0);
    assert!(report.index_segments_ingested < store.log().sealed().len());
    apply_rest(&store, &model.frames).unwrap();
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn an_index_that_is_ahead_is_not_believed_until_the_log_gets_there() {
    let model = Model::of(&some_ops(100));
    let (old, new) = (directory(&model, 50), directory(&model, 100));
    let index = old.path().join("index");
    FjallIndex::remove(&index).unwrap();
    copy_dir(&new.path().join("index"), &index);
    let (store, report) = open(Arc::new(RealDisk), old.path(), IndexKind::Fjall);
    assert_eq!(
        (report.index_deleted, report.index_segments_ingested),
        (None, 0)
    );
    apply_rest(&store, &model.frames[..50]).unwrap();
    // An idempotency key used again further on hides its earlier use, which by then was forgotten.
    model.prefix(50).compare_entries(&store);
    store.check(|_, _| {}).unwrap();
    feed(&store, &model.frames[50..]).unwrap();
    settle(&store);
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn an_index_of_another_history_is_rebuilt() {
    let model = Model::of(&some_ops(100));
    let mut other = model.prefix(30);
    other.salt = 99;
    some_ops(70).iter().for_each(|op| other.push(op));
    let (old, new) = (directory(&model, 50), directory(&other, 100));

    // Known to be another one at open: a sealed segment differs.
    let index = old.path().join("index");
    FjallIndex::remove(&index).unwrap();
    copy_dir(&new.path().join("index"), &index);
    let (store, report) = open(Arc::new(RealDisk), old.path(), IndexKind::Fjall);
    assert!(report.index_deleted.is_some());
    apply_rest(&store, &model.frames[..50]).unwrap();
    model.prefix(50).compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();

    // Known only when the segment is sealed: the index was ahead.
    let old = directory(&model, 30);
    let sealed = {
        let (store, _) = open(Arc::new(RealDisk), old.path(), IndexKind::Fjall);
        let sealed = store.log().sealed().len();
        store.shutdown();
        drop(store);
        sealed
    };
    let index = old.path().join("index");
    drop(FjallIndex::open(&index, 1 << 20).unwrap());
    FjallIndex::remove(&index).unwrap();
    copy_dir(&new.path().join("index"), &index);
    let (store, report) = open(Arc::new(RealDisk), old.path(), IndexKind::Fjall);
    assert_eq!(
        report.index_deleted, None,
        "{sealed} segments are the same in both"
    );
    apply_rest(&store, &model.frames[..30]).unwrap();
    feed(&store, &model.frames[30..]).unwrap();
    settle(&store);
    assert_eq!(store.poisoned(), None);
    model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn a_reader_never_sees_a_key_go_back() {
    // Readers run while frames are applied and segments sealed: versions only grow, and none is lost on its way from
    // memory to the index.
    let model = Model::of(&some_ops(400));
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(Arc::new(RealDisk), dir.path(), IndexKind::Fjall);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..2u8)
        .map(|reader| {
            let (store, stop) = (store.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut newest = [None; 10];
                let mut rounds = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rounds += 1;
                    for key in 0..10u8 {
                        let size = store.applied().tree_size;
                        let key_bytes = key_bytes(key);
                        let found = store.latest(&key_bytes, size).unwrap().map(|v| v.index);
                        assert!(found >= newest[usize::from(key)], "key {key} went back");
                        newest[usize::from(key)] = found;
                        if reader == 1 {
                            let history = store.history(&key_bytes, size, 10_000).unwrap();
                            assert_eq!(history.first().map(|v| v.index), found);
                            assert!(history.is_sorted_by(|a, b| a.index > b.index));
                            let range = crate::store::ScanRange {
                                start: key_bytes.clone(),
                                end: Some([key_bytes.as_slice(), b"\0"].concat()),
                            };
                            let scan = store.scan(&range, size, 10).unwrap();
                            assert_eq!(scan.first().map(|(_, v)| v.index), found);
                        }
                    }
                }
                rounds
            })
        })
        .collect();
    for frames in model.frames.chunks(7) {
        feed(&store, frames).unwrap();
    }
    settle(&store);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    model.compare(&store);
    store.shutdown();
}

#[test]
fn nothing_is_applied_once_sealing_failed() {
    use crate::store::sim_disk::{DiskFault, DiskOperation};
    let model = Model::of(&some_ops(100));
    let disk = SimDisk::new();
    let (store, _) = open(
        Arc::new(disk.clone()),
        Path::new("/data"),
        IndexKind::Memory,
    );
    append(&store, &model.frames, 100).unwrap();
    disk.fail(&[DiskOperation::Sync], 0, DiskFault::Io);
    let outcome = apply_rest(&store, &model.frames);
    settle(&store);
    assert!(store.poisoned().unwrap().contains("simulated I/O error"));
    let last = store
        .applied()
        .last_log_id
        .unwrap_or(LogId::new(0, 0))
        .index
        .0 as usize;
    if outcome.is_ok() {
        assert_eq!(last + 1, model.frames.len());
    } else {
        let frame = &model.frames[last + 1];
        let position = store.log().position(frame.log_id.index).unwrap();
        let refused = store.apply(frame, position, Effects::Nothing).unwrap_err();
        assert!(
            refused.to_string().contains("simulated I/O error"),
            "{refused}"
        );
    }
    assert!(
        store.root_at(TreeSize::new(1)).is_ok(),
        "what was applied can still be read"
    );
    store.shutdown();
}
