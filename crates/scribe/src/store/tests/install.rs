//! Taking over sealed segments from another node: everything arrives, nothing is lost on the way, and what is not right
//! is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scribe_proof::index::LeafIndex;

use super::model::*;
use crate::store::Store;
use crate::store::disk::{Disk, Open};
use crate::store::frame::{Frame, LogId};
use crate::store::index::IndexKind;
use crate::store::log::Flushed;
use crate::store::real_disk::RealDisk;
use crate::store::segment::{SealedSegment, file_name};
use crate::store::sim_disk::SimDisk;

const DIR: &str = "/data";

/// A node that is ahead.
struct Leader {
    disk: SimDisk,
    store: Store,
    model: Model,
}

impl Leader {
    fn new(model: Model) -> Self {
        let disk = SimDisk::new();
        let store = open_sim(&disk);
        feed(&store, &model.frames).unwrap();
        settle(&store);
        Self { disk, store, model }
    }

    /// Two terms, so that a follower may hold entries of a third that were never committed.
    fn of_two_terms(frames: usize, first: usize) -> Self {
        let ops = some_ops(frames);
        let mut model = Model::of(&ops[..first]);
        model.term_shift = 2;
        ops[first..].iter().for_each(|op| model.push(op));
        Self::new(model)
    }

    /// What went over the wire.
    fn list(&self) -> Vec<SealedSegment> {
        let sealed = self.store.log().sealed();
        let summaries = sealed.iter().map(SealedSegment::encode_summary);
        summaries
            .map(|bytes| SealedSegment::parse_summary(&bytes).unwrap())
            .collect()
    }

    /// Frames in sealed segments.
    fn sealed_frames(&self) -> usize {
        let sealed = self.store.log().sealed();
        sealed
            .last()
            .map_or(0, |last| last.last_log_id.index.0 as usize + 1)
    }

    fn file(&self, number: usize) -> Vec<u8> {
        let path = segment_path(&self.store, Path::new(DIR), number);
        self.disk.bytes(&path).unwrap()
    }
}

fn open_sim(disk: &SimDisk) -> Store {
    open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory).0
}

fn incoming(segment: &SealedSegment, extension: &str) -> PathBuf {
    let name = file_name(segment.first_log_index).replace("seg", extension);
    Path::new(DIR).join("incoming").join(name)
}

/// Fetches what is missing in pieces of `chunk` bytes, at most `budget` bytes; `true` when nothing is missing.
fn ship(leader: &Leader, follower: &Store, chunk: usize, mut budget: usize) -> io::Result<bool> {
    let staging = follower.staging();
    for missing in staging.missing(&leader.list())? {
        let number = missing.segment.number;
        let mut have = missing.have;
        while have < missing.file_length {
            if budget == 0 {
                return Ok(false);
            }
            let length = chunk.min(budget);
            let bytes = leader.store.segment_bytes(number, have, length)?;
            staging.write(number, have, &bytes)?;
            have += bytes.len() as u64;
            budget -= bytes.len();
        }
        let mut last = 0;
        staging.finish(&missing.segment, |done, of| {
            assert!(last <= done && done <= of);
            last = done;
        })?;
    }
    Ok(true)
}

/// Compares a node that has taken over the leader's segments with what it must be then, and lets both go on.
fn compare_and_go_on(leader: &Leader, follower: &Store, file: impl Fn(usize) -> Vec<u8>) {
    let sealed = leader.sealed_frames();
    let model = leader.model.prefix(sealed);
    model.compare(follower);
    model.compare_remembered(follower);
    follower.check(|_, _| {}).unwrap();
    assert_eq!(follower.log().sealed(), leader.store.log().sealed());
    assert_eq!(follower.sealed_applied(), follower.applied());
    assert_eq!(
        follower.log().last().map(|id| id.index.0 as usize + 1),
        Some(sealed)
    );
    assert_eq!(follower.log().flushed(), follower.log().last());
    // Sealed entries are read like any others: as replication does.
    for from in [0, sealed as u64 / 2] {
        let frames = follower
            .log()
            .read(from..sealed as u64, usize::MAX)
            .unwrap();
        assert_eq!(frames, leader.model.frames[from as usize..sealed]);
    }
    feed(follower, &leader.model.frames[sealed..]).unwrap();
    settle(follower);
    leader.model.compare(follower);

    // Both take more, and seal it the same.
    let mut model = leader.model.prefix(leader.model.frames.len());
    model.term_shift = 3;
    let grown = {
        let disk = leader.disk.kill();
        let store = open_sim(&disk);
        apply_rest(&store, &model.frames).unwrap();
        let before = model.frames.len();
        some_ops(50).iter().for_each(|op| model.push(op));
        for node in [&store, follower] {
            feed(node, &model.frames[before..]).unwrap();
            settle(node);
            assert_eq!(node.poisoned(), None);
            model.compare(node);
            model.compare_remembered(node);
        }
        assert!(store.log().sealed().len() > leader.list().len());
        assert_eq!(follower.log().sealed(), store.log().sealed());
        let whole = (0..store.log().sealed().len())
            .map(|number| {
                let path = segment_path(&store, Path::new(DIR), number);
                disk.bytes(&path).unwrap()
            })
            .collect::<Vec<_>>();
        store.shutdown();
        whole
    };
    for (number, bytes) in grown.iter().enumerate() {
        assert!(file(number) == *bytes, "segment {number} differs");
    }
    follower.check(|_, _| {}).unwrap();
}

#[test]
fn a_node_far_behind_takes_segments_over_and_goes_on() {
    let leader = Leader::of_two_terms(120, 70);
    assert!(leader.list().len() >= 5);
    // So many frames the follower has, of which so many are applied.
    for (appended, applied) in [(0, 0), (5, 0), (9, 9), (40, 31), (70, 70)] {
        let disk = SimDisk::new();
        let follower = open_sim(&disk);
        feed(&follower, &leader.model.frames[..applied]).unwrap();
        append(&follower, &leader.model.frames[applied..appended], 3).unwrap();
        settle(&follower);
        // Also fills the caches with what will not be the newest any more.
        leader.model.prefix(applied).compare(&follower);
        assert!(follower.log().sealed().len() + 2 < leader.list().len());

        // Interrupted in the middle of a segment, by a kill; then once more, by an orderly stop.
        assert!(!ship(&leader, &follower, 700, 4_000).unwrap());
        let part: u64 = disk
            .kill()
            .bytes(&incoming(&wanted(&leader, &follower), "part"))
            .unwrap()
            .len() as u64;
        assert!(part > 0);
        let disk = disk.kill();
        let follower = open_sim(&disk);
        let missing = follower.staging().missing(&leader.list()).unwrap();
        // Up to the last whole frame.
        assert!(missing[0].have > 0 && missing[0].have <= part);
        assert!(!ship(&leader, &follower, 701, 9_000).unwrap());
        follower.shutdown();
        drop(follower);
        let follower = open_sim(&disk);
        assert!(ship(&leader, &follower, 1_000, usize::MAX).unwrap());
        assert_eq!(follower.staging().missing(&leader.list()).unwrap(), []);
        follower.install(&leader.list()).unwrap();
        follower.install(&leader.list()).unwrap(); // again: nothing to do
        assert_eq!(disk.list(Path::new("/data/incoming")).unwrap(), [""; 0]);
        compare_and_go_on(&leader, &follower, |number| {
            disk.bytes(&segment_path(&follower, Path::new(DIR), number))
                .unwrap()
        });
        follower.shutdown();
        drop(follower);
        let reopened = open_sim(&disk);
        reopened.check(|_, _| {}).unwrap();
        reopened.shutdown();
    }
}

#[test]
fn segments_that_wait_for_the_sealer_are_installed_instead() {
    let leader = Leader::new(Model::of(&some_ops(120)));
    for round in 0..8 {
        let disk = SimDisk::new();
        let follower = open_sim(&disk);
        if round % 2 == 0 {
            follower.stop_sealing();
        }
        let sealing = follower.0.sealing.lock();
        for frame in &leader.model.frames[..45] {
            append(&follower, std::slice::from_ref(frame), 1).unwrap();
        }
        let runs = leader.model.prefix(45);
        apply_without_room(&follower, &runs.frames);
        assert!(follower.segments_waiting() > 1);
        drop(sealing);
        runs.compare(&follower);
        assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
        follower.install(&leader.list()).unwrap();
        assert_eq!(follower.segments_waiting(), 0);
        if round % 2 == 1 {
            compare_and_go_on(&leader, &follower, |number| {
                disk.bytes(&segment_path(&follower, Path::new(DIR), number))
                    .unwrap()
            });
        } else {
            leader
                .model
                .prefix(leader.sealed_frames())
                .compare(&follower);
        }
        follower.shutdown();
    }
}

/// Applies frames although the sealer is behind.
fn apply_without_room(store: &Store, frames: &[Frame]) {
    for frame in frames {
        let effects = effects_of(frame, store.applied().tree_size);
        let position = store.log().position(frame.log_id.index).unwrap();
        store.apply(frame, position, effects).unwrap();
    }
}

#[test]
fn readers_see_the_state_before_or_after() {
    let leader = Leader::of_two_terms(120, 70);
    let roots: Vec<_> = (0..=leader.model.leaves.len() as u64)
        .map(|size| leader.model.root(size))
        .collect();
    for _ in 0..4 {
        let follower = open_sim(&SimDisk::new());
        feed(&follower, &leader.model.frames[..31]).unwrap();
        settle(&follower);
        let before = follower.applied();
        let started = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    started.wait();
                    let mut seen = before.tree_size;
                    let end = leader.store.sealed_applied().tree_size;
                    while seen < end {
                        let applied = follower.applied();
                        assert!(applied.tree_size == before.tree_size || applied.tree_size == end);
                        let size = applied.tree_size.get();
                        assert_eq!(
                            follower.root_at(applied.tree_size).unwrap(),
                            roots[size as usize]
                        );
                        for index in (0..size).step_by(7) {
                            let entry = follower.entry(LeafIndex::new(index)).unwrap().unwrap();
                            assert_eq!(entry.leaf, leader.model.leaves[index as usize].0);
                        }
                        for (key, versions) in &leader.model.keys {
                            let newest = versions.iter().rev().find(|(index, _)| *index < size);
                            let found = follower.latest(key, applied.tree_size).unwrap();
                            assert_eq!(
                                found.map(|found| found.index.get()),
                                newest.map(|(index, _)| *index)
                            );
                        }
                        seen = applied.tree_size;
                    }
                });
            }
            started.wait();
            assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
            follower.install(&leader.list()).unwrap();
        });
        leader
            .model
            .prefix(leader.sealed_frames())
            .compare(&follower);
        follower.shutdown();
    }
}

/// The first segment the follower lacks and has not verified.
fn wanted(leader: &Leader, follower: &Store) -> SealedSegment {
    let missing = follower.staging().missing(&leader.list()).unwrap();
    missing[0].segment.clone()
}

#[test]
fn the_same_on_a_real_disk_with_a_real_index() {
    let leader = Leader::of_two_terms(120, 70);
    let dir = tempfile::tempdir().unwrap();
    let shared: Arc<dyn Disk> = Arc::new(RealDisk);
    let follower = open(shared.clone(), dir.path(), IndexKind::Fjall).0;
    feed(&follower, &leader.model.frames[..30]).unwrap();
    settle(&follower);
    assert!(!ship(&leader, &follower, 3_000, 20_000).unwrap());
    follower.shutdown();
    drop(follower);
    let (follower, report) = open(shared, dir.path(), IndexKind::Fjall);
    // The index is ahead of the log by the segments verified before, which is no reason to build it again.
    assert_eq!(report.index_deleted, None);
    follower.check(|_, _| {}).unwrap();
    assert!(ship(&leader, &follower, 3_000, usize::MAX).unwrap());
    follower.install(&leader.list()).unwrap();
    compare_and_go_on(&leader, &follower, |number| {
        std::fs::read(segment_path(&follower, dir.path(), number)).unwrap()
    });
    follower.shutdown();
}

/// Frames of a term between the leader's two, behind the first `common` frames: never committed.
fn divergent(leader: &Leader, common: usize, count: usize) -> Vec<Frame> {
    let mut model = leader.model.prefix(common);
    model.term_shift = 1;
    model.salt = 9;
    some_ops(count).iter().for_each(|op| model.push(op));
    model.frames.split_off(common)
}

#[test]
fn uncommitted_frames_that_differ_are_replaced() {
    let leader = Leader::of_two_terms(120, 30);
    // Shorter than the segments, as long as they are, and longer.
    for count in [3, 40, 130] {
        let disk = SimDisk::new();
        let follower = open_sim(&disk);
        feed(&follower, &leader.model.frames[..30]).unwrap();
        settle(&follower);
        append(&follower, &divergent(&leader, 30, count), 3).unwrap();
        assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
        follower.install(&leader.list()).unwrap();
        compare_and_go_on(&leader, &follower, |number| {
            disk.bytes(&segment_path(&follower, Path::new(DIR), number))
                .unwrap()
        });
        follower.shutdown();
    }
}

#[test]
fn frames_behind_the_segments_are_not_replaced() {
    let leader = Leader::new(Model::of(&some_ops(120)));
    let follower = open_sim(&SimDisk::new());
    append(&follower, &leader.model.frames, 3).unwrap();
    assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
    let error = follower.install(&leader.list()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert_eq!(
        follower.log().read(0..120, usize::MAX).unwrap(),
        leader.model.frames
    );
    apply_rest(&follower, &leader.model.frames).unwrap();
    settle(&follower);
    // Sealed here meanwhile: nothing is left to install.
    follower.install(&leader.list()).unwrap();
    leader.model.compare(&follower);
    follower.shutdown();
}

/// What a follower does from its start to the end of an install; returns how many frames are acknowledged.
fn follow(disk: &SimDisk, leader: &Leader, committed: usize, tail: &[Frame]) -> (usize, bool) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = Store::open(shared, Path::new(DIR), IDENTITY, options(IndexKind::Memory));
    let Ok((follower, _)) = opened else {
        return (0, false);
    };
    let work = || -> io::Result<usize> {
        append(&follower, &leader.model.frames[..committed], 4)?;
        apply_rest(&follower, &leader.model.frames[..committed / 2])?;
        settle(&follower);
        append(&follower, tail, 4)?;
        Ok(committed)
    };
    let acknowledged = work().unwrap_or(0);
    let installed =
        acknowledged > 0 && ship(leader, &follower, 2_500, usize::MAX).is_ok_and(|all| all) && {
            // As openraft does before it installs over frames that differ.
            let keep = LogId::new(2, committed as u64 / 2 - 1);
            let longer = tail.len() > 40;
            let cut = !longer
                || follower
                    .log()
                    .truncate_after(Some(keep), Flushed::ignore())
                    .is_ok();
            cut && follower.install(&leader.list()).is_ok()
        };
    follower.shutdown();
    (acknowledged, installed)
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_state_before_or_after() {
    let leader = Leader::of_two_terms(70, 26);
    let sealed = leader.sealed_frames();
    for count in [4, 60] {
        let tail = divergent(&leader, 26, count);
        let whole = SimDisk::new();
        assert_eq!(follow(&whole, &leader, 26, &tail), (26, true));
        let operations = whole.operations();
        let mut seen = (0, 0);
        for operation in 0..operations {
            let disk = SimDisk::new();
            disk.crash_at(operation);
            let (acknowledged, installed) = follow(&disk, &leader, 26, &tail);
            for image in [disk.crash(operation), disk.crash(!operation), disk.kill()] {
                let opened = Store::open(
                    Arc::new(image.clone()),
                    Path::new(DIR),
                    IDENTITY,
                    options(IndexKind::Memory),
                );
                let (follower, report) = match opened {
                    Ok(opened) => opened,
                    Err(error) => panic!("operation {operation}: {error}"),
                };
                assert_eq!(report.log.sealed_damage, [], "operation {operation}");
                assert_eq!(report.tree_segments_rebuilt, 0, "operation {operation}");
                let last = follower
                    .log()
                    .last()
                    .map_or(0, |id| id.index.0 as usize + 1);
                let frames = follower.log().read(0..last as u64, usize::MAX).unwrap();
                let after = follower.log().sealed().len() == leader.list().len();
                assert!(
                    after || !installed,
                    "operation {operation}: an install is undone"
                );
                if after {
                    seen.1 += 1;
                    assert_eq!(
                        frames,
                        leader.model.frames[..sealed],
                        "operation {operation}"
                    );
                } else {
                    seen.0 += 1;
                    assert!(last >= acknowledged, "operation {operation}: {last} frames");
                    let common = last.min(26);
                    assert_eq!(frames[..common], leader.model.frames[..common]);
                    assert_eq!(frames[common..], tail[..last - common]);
                }
                follower.check(|_, _| {}).unwrap();
                // And it goes on to the same end.
                assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
                follower.install(&leader.list()).unwrap();
                feed(&follower, &leader.model.frames[sealed..]).unwrap();
                settle(&follower);
                assert_eq!(follower.log().sealed(), leader.store.log().sealed());
                for number in 0..leader.list().len() {
                    let path = segment_path(&follower, Path::new(DIR), number);
                    assert!(
                        image.bytes(&path) == Some(leader.file(number)),
                        "operation {operation}: segment {number} differs"
                    );
                }
                if operation % 3 == 0 {
                    follower.check(|_, _| {}).unwrap();
                    leader.model.compare(&follower);
                    leader.model.compare_remembered(&follower);
                }
                follower.shutdown();
            }
        }
        assert!(seen.0 > 50 && seen.1 > 5, "{seen:?}");
    }
}

#[test]
fn frames_cut_while_segments_wait_stay_on_disk_until_something_takes_their_place() {
    let leader = Leader::of_two_terms(100, 26);
    let tail = divergent(&leader, 26, 30);
    let own: Vec<Frame> = leader.model.frames[..26]
        .iter()
        .chain(&tail)
        .cloned()
        .collect();
    let disk = SimDisk::new();
    let follower = open_sim(&disk);
    append(&follower, &own, 3).unwrap();
    assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
    let keep = LogId::new(2, 9);
    follower
        .log()
        .truncate_after(Some(keep), Flushed::ignore())
        .unwrap();
    assert_eq!(follower.log().last(), Some(keep));
    assert_eq!(follower.log().read(0..100, usize::MAX).unwrap(), own[..10]);
    {
        let before = open_sim(&disk.crash(3));
        assert_eq!(before.log().read(0..100, usize::MAX).unwrap(), own);
        before.shutdown();
    }
    // Something else comes instead of the install.
    append(&follower, &leader.model.frames[10..40], 3).unwrap();
    for image in [disk.crash(4), disk.kill()] {
        let after = open_sim(&image);
        assert_eq!(
            after.log().read(0..100, usize::MAX).unwrap(),
            leader.model.frames[..40]
        );
        after.shutdown();
    }
    follower.install(&leader.list()).unwrap();
    compare_and_go_on(&leader, &follower, |number| {
        disk.bytes(&segment_path(&follower, Path::new(DIR), number))
            .unwrap()
    });
    follower.shutdown();
}

#[test]
fn a_changed_byte_is_refused_and_fetched_again() {
    let leader = Leader::of_two_terms(60, 30);
    let list = leader.list();
    let segment = &list[1];
    for offset in (0..segment.file_length).step_by(97) {
        let disk = SimDisk::new();
        let follower = open_sim(&disk);
        let staging = follower.staging();
        staging.missing(&list).unwrap();
        for segment in &list[..2] {
            staging
                .write(segment.number, 0, &leader.file(segment.number as usize))
                .unwrap();
        }
        let early = staging.finish(segment, |_, _| {}).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::InvalidInput, "{early}");
        staging.finish(&list[0], |_, _| {}).unwrap();
        assert!(disk.flip(&incoming(segment, "part"), offset, 0x04));
        let refused = staging.finish(segment, |_, _| {}).unwrap_err();
        assert_eq!(
            refused.kind(),
            io::ErrorKind::InvalidData,
            "byte {offset}: {refused}"
        );
        let missing = staging.missing(&list).unwrap();
        assert_eq!((missing[0].segment.number, missing[0].have), (1, 0));
        let not_yet = follower.install(&list).unwrap_err();
        assert_eq!(not_yet.kind(), io::ErrorKind::NotFound, "{not_yet}");
        assert!(ship(&leader, &follower, 5_000, usize::MAX).unwrap());
        follower.install(&list).unwrap();
        follower.shutdown();
    }
}

#[test]
fn a_staged_file_that_was_cut_is_refused_and_fetched_again() {
    let leader = Leader::of_two_terms(60, 30);
    let list = leader.list();
    let disk = SimDisk::new();
    let follower = open_sim(&disk);
    assert!(ship(&leader, &follower, 5_000, usize::MAX).unwrap());
    let file = disk
        .open(&incoming(&list[1], "seg"), Open::READ_WRITE)
        .unwrap();
    file.set_len(list[1].file_length - 1).unwrap();
    let refused = follower.install(&list).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
    assert_eq!(follower.poisoned(), None);
    assert_eq!(follower.staging().missing(&list).unwrap().len(), 1);
    assert!(ship(&leader, &follower, 5_000, usize::MAX).unwrap());
    follower.install(&list).unwrap();
    compare_and_go_on(&leader, &follower, |number| {
        disk.bytes(&segment_path(&follower, Path::new(DIR), number))
            .unwrap()
    });
    follower.shutdown();
}

#[test]
fn writes_out_of_order_are_refused() {
    let leader = Leader::of_two_terms(60, 30);
    let follower = open_sim(&SimDisk::new());
    let staging = follower.staging();
    let list = leader.list();
    let bytes = leader.file(0);
    let refused = |outcome: io::Result<()>| {
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    };
    refused(staging.write(0, 0, &bytes));
    staging.missing(&list).unwrap();
    refused(staging.write(0, 1, &bytes[1..]));
    refused(staging.write(0, 0, &[&bytes[..], b"x"].concat()));
    staging.write(0, 0, &bytes[..100]).unwrap();
    refused(staging.write(0, 0, &bytes[..100]));
    refused(staging.write(list.len() as u32, 0, &bytes));
    refused(staging.finish(&list[0], |_, _| {}));
    // No longer wanted: gone.
    staging.missing(&[]).unwrap();
    refused(staging.write(0, 100, &bytes[100..]));
    assert!(
        staging
            .missing(&list)
            .unwrap()
            .iter()
            .all(|missing| missing.have == 0)
    );
    let served = |offset, length| leader.store.segment_bytes(0, offset, length).unwrap();
    assert_eq!(served(0, usize::MAX), bytes);
    assert_eq!(served(bytes.len() as u64 - 1, 10), bytes[bytes.len() - 1..]);
    assert!(served(bytes.len() as u64, 10).is_empty() && served(u64::MAX, 10).is_empty());
    let none = leader
        .store
        .segment_bytes(list.len() as u32, 0, 1)
        .unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::NotFound);
    follower.shutdown();
}

#[test]
fn a_node_that_has_diverged_takes_nothing_over() {
    let leader = Leader::of_two_terms(120, 70);
    let mut other = Model::default();
    other.salt = 3;
    some_ops(60).iter().for_each(|op| other.push(op));
    // In what is sealed.
    let follower = open_sim(&SimDisk::new());
    feed(&follower, &other.frames).unwrap();
    settle(&follower);
    let sealed = follower.log().sealed();
    for refused in [
        follower.staging().missing(&leader.list()).unwrap_err(),
        follower.install(&leader.list()).unwrap_err(),
    ] {
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains("segment 0"), "{refused}");
    }
    assert_eq!(follower.log().sealed(), sealed);
    other.compare(&follower);
    follower.shutdown();
    // In what is only applied.
    let follower = open_sim(&SimDisk::new());
    feed(&follower, &other.frames[..5]).unwrap();
    assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
    let refused = follower.install(&leader.list()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert!(refused.to_string().contains("has diverged"), "{refused}");
    other.prefix(5).compare(&follower);
    follower.shutdown();
}

#[test]
fn a_list_that_contradicts_itself_is_refused() {
    let leader = Leader::of_two_terms(120, 70);
    let follower = open_sim(&SimDisk::new());
    let good = leader.list();
    let changed = |change: &dyn Fn(&mut Vec<SealedSegment>)| {
        let mut list = good.clone();
        change(&mut list);
        let refused = follower.staging().missing(&list).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
    };
    changed(&|list| drop(list.remove(0)));
    changed(&|list| drop(list.remove(1)));
    changed(&|list| list.swap(1, 2));
    changed(&|list| list[1].cluster_id = [1; 16]);
    changed(&|list| list[1].file_length = u64::MAX);
    changed(&|list| list[1].body_length = 0);
    changed(&|list| list[2].footer.start_root = list[0].footer.start_root);
    follower.shutdown();
}

#[test]
fn a_lost_manifest_is_rebuilt_after_an_install() {
    let leader = Leader::of_two_terms(60, 30);
    let disk = SimDisk::new();
    let follower = open_sim(&disk);
    assert!(ship(&leader, &follower, 4_000, usize::MAX).unwrap());
    follower.install(&leader.list()).unwrap();
    follower.shutdown();
    disk.remove(Path::new("/data/MANIFEST")).unwrap();
    // The last segment has no other behind it, which one sealed here always has.
    let follower = open_sim(&disk);
    compare_and_go_on(&leader, &follower, |number| {
        disk.bytes(&segment_path(&follower, Path::new(DIR), number))
            .unwrap()
    });
    follower.shutdown();
}
