//! Damaged sealed segments are put back from other copies, whatever is damaged and wherever a crash comes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scribe_proof::index::LeafIndex;

use super::model::*;
use crate::store::disk::{Disk, Open};
use crate::store::frame::HEADER_LENGTH;
use crate::store::index::IndexKind;
use crate::store::segment::SEGMENT_HEADER_LENGTH;
use crate::store::sim_disk::SimDisk;
use crate::store::{Finished, Store, Verdict};

const DIR: &str = "/data";
/// The segment that is damaged in most of these tests: neither the first nor the last.
const NUMBER: usize = 2;
/// Bytes handed over at once: not a divisor of anything.
const CHUNK: usize = 2_500;

/// A store with several sealed segments, and their files as they must be.
struct Whole {
    disk: SimDisk,
    model: Model,
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn whole() -> Whole {
    let model = Model::of(&some_ops(120));
    let disk = SimDisk::new();
    let store = open_sim(&disk);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    store.shutdown();
    let files = (0..store.log().sealed().len())
        .map(|number| {
            let path = segment_path(&store, Path::new(DIR), number);
            let bytes = disk.bytes(&path).unwrap();
            (path, bytes)
        })
        .collect();
    Whole {
        disk: disk.kill(),
        model,
        files,
    }
}

fn open_sim(disk: &SimDisk) -> Store {
    open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory).0
}

/// Gives a mend all it lacks out of `source`, which may be anything.
fn give(store: &Store, number: usize, source: &[u8]) -> io::Result<Finished> {
    let mend = store.mend(number as u32)?;
    while mend.have() < mend.wanted() {
        let have = mend.have() as usize;
        let end = source.len().min(have + CHUNK);
        let bytes = source.get(have..end).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or_else(|| io::Error::other("the source ends"))?;
        mend.write(have as u64, bytes)?;
    }
    mend.finish()
}

fn is_segment(verdict: io::Result<Verdict>) -> bool {
    matches!(verdict, Ok(Verdict::Segment(_)))
}

/// Everything is what it was, also for readers that had the damaged file open.
fn compare(whole: &Whole, store: &Store, disk: &SimDisk) {
    for (number, (path, bytes)) in whole.files.iter().enumerate() {
        assert!(disk.bytes(path).as_ref() == Some(bytes), "segment {number}");
        assert_eq!(store.examine(number as u32).unwrap(), Verdict::Sound);
        let served = store.segment_bytes(number as u32, 0, usize::MAX).unwrap();
        assert!(served == bytes[..], "segment {number} as it is served");
    }
    store.complete_index().unwrap();
    if store.applied() == store.sealed_applied() {
        apply_rest(store, &whole.model.frames).unwrap();
    }
    store.check(|_, _| {}).unwrap();
    whole.model.compare(store);
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(u64),
    Cut(u64),
    Zero,
    Remove,
}

fn harm(disk: &SimDisk, path: &Path, what: Harm) {
    match what {
        Harm::Flip(offset) => assert!(disk.flip(path, offset, 0x20)),
        Harm::Remove => disk.remove(path).unwrap(),
        Harm::Cut(length) => disk
            .open(path, Open::READ_WRITE)
            .unwrap()
            .set_len(length)
            .unwrap(),
        Harm::Zero => {
            let file = disk.open(path, Open::READ_WRITE).unwrap();
            file.write_all_at(&vec![0; file.len().unwrap() as usize], 0)
                .unwrap();
        }
    }
}

fn harms(whole: &Whole) -> Vec<Harm> {
    let length = whole.files[NUMBER].1.len() as u64;
    let mut all = vec![
        Harm::Remove,
        Harm::Zero,
        Harm::Cut(0),
        Harm::Cut(40),
        Harm::Cut(length / 2),
        Harm::Cut(length - 1),
        // The last byte of the magic that says which format a footer is of.
        Harm::Flip(length - 1),
    ];
    all.extend((0..length).step_by(531).map(Harm::Flip));
    all
}

#[test]
fn whatever_happened_to_a_segment_while_running_it_is_put_back() {
    let whole = whole();
    let disk = whole.disk.kill();
    let store = open_sim(&disk);
    let (path, good) = &whole.files[NUMBER];
    for what in harms(&whole) {
        harm(&disk, path, what);
        assert!(is_segment(store.examine(NUMBER as u32)), "{what:?}");
        // It is not given to others.
        store.segment_bytes(NUMBER as u32, 0, 1).unwrap_err();
        // Unless they ask for any copy.
        if matches!(what, Harm::Flip(_)) {
            let any = store.doubtful_bytes(NUMBER as u32, 0, 1).unwrap();
            assert_eq!(any.len(), 1);
        }
        let done = give(&store, NUMBER, good).unwrap();
        assert_eq!(done, Finished::Mended(good.len() as u64), "{what:?}");
        assert!(disk.bytes(path).as_ref() == Some(good), "{what:?}");
        assert_eq!(store.examine(NUMBER as u32).unwrap(), Verdict::Sound);
    }
    compare(&whole, &store, &disk);
    store.shutdown();
}

#[test]
fn whatever_happened_to_a_segment_of_a_stopped_node_it_starts_and_is_put_back() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    for what in harms(&whole) {
        let disk = whole.disk.kill();
        harm(&disk, path, what);
        let store = open_sim(&disk);
        assert!(is_segment(store.examine(NUMBER as u32)), "{what:?}");
        give(&store, NUMBER, good).unwrap();
        compare(&whole, &store, &disk);
        store.shutdown();
    }
}

#[test]
fn a_read_that_finds_damage_has_the_segment_examined() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    let mut noticed = 0;
    for offset in (64..good.len() as u64).step_by(97) {
        let disk = whole.disk.kill();
        let store = open_sim(&disk);
        harm(&disk, path, Harm::Flip(offset));
        let mut failed = false;
        for index in 0..store.applied().tree_size.get() {
            failed |= store.entry(LeafIndex::new(index)).is_err();
        }
        let suspected = store.next_suspect() == Some(NUMBER as u32);
        assert_eq!(suspected, failed, "flip at {offset}");
        noticed += usize::from(failed);
        store.shutdown();
    }
    assert!(noticed > 20, "{noticed}");
}

/// A header with damage may say that its frame takes no leaves: what is looked for is then not there, and is not absent.
#[test]
fn damage_in_a_header_never_makes_an_entry_absent() {
    let whole = whole();
    let (path, _) = &whole.files[NUMBER];
    let store = open_sim(&whole.disk.kill());
    let sealed = store.log().sealed()[NUMBER].clone();
    store.shutdown();
    let leaves = sealed.footer.start_size.get()..sealed.footer.end_size.get();
    let mut refused = 0;
    for offset in 0..HEADER_LENGTH as u64 {
        let disk = whole.disk.kill();
        let store = open_sim(&disk);
        harm(
            &disk,
            path,
            Harm::Flip(SEGMENT_HEADER_LENGTH as u64 + offset),
        );
        let (mut absent, mut failed) = (0, 0);
        for index in leaves.clone() {
            match store.entry(LeafIndex::new(index)) {
                Ok(Some(entry)) => assert_eq!(entry.leaf, whole.model.leaves[index as usize].0),
                Ok(None) => absent += 1,
                Err(_) => failed += 1,
            }
        }
        assert_eq!(absent, 0, "of {leaves:?} with a flip at {offset}");
        if failed > 0 {
            refused += 1;
            assert_eq!(store.next_suspect(), Some(NUMBER as u32), "{offset}");
            // Whoever reads on does not take it for the end of the ledger.
            let from = LeafIndex::new(leaves.start);
            let read = store.entries(from, leaves.clone().count(), usize::MAX);
            assert!(
                read.is_err() || read.is_ok_and(|read| !read.is_empty()),
                "{offset}"
            );
        }
        store.shutdown();
    }
    assert!(refused > HEADER_LENGTH / 2, "{refused}");
}

#[test]
fn frames_of_several_damaged_copies_make_a_whole_one() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    let third = good.len() / 3;
    let disk = whole.disk.kill();
    let store = open_sim(&disk);
    harm(&disk, path, Harm::Flip(third as u64));
    assert!(is_segment(store.examine(NUMBER as u32)));
    let mut other = good.clone();
    other[2 * third] ^= 1;
    // The damaged file itself is as good as any other copy, up to where it is damaged.
    let own = disk.bytes(path).unwrap();
    let kept = |have: u64| 0 < have && have < good.len() as u64;
    assert!(matches!(give(&store, NUMBER, &own), Ok(Finished::Wrong(_))));
    let after_own = store.mend(NUMBER as u32).unwrap().have();
    assert!(kept(after_own) && after_own <= third as u64, "{after_own}");
    assert!(matches!(
        give(&store, NUMBER, &other),
        Ok(Finished::Wrong(_))
    ));
    let after_other = store.mend(NUMBER as u32).unwrap().have();
    assert!(after_own < after_other && after_other <= 2 * third as u64);
    assert_eq!(
        give(&store, NUMBER, &own).unwrap(),
        Finished::Mended(good.len() as u64)
    );
    compare(&whole, &store, &disk);
    store.shutdown();
}

#[test]
fn bytes_of_another_segment_or_another_history_are_not_believed() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    // Another ledger's segment of the same number: every frame is good by itself.
    let mut ops = some_ops(120);
    ops.reverse();
    let other_disk = SimDisk::new();
    let other = open_sim(&other_disk);
    feed(&other, &Model::of(&ops).frames).unwrap();
    settle(&other);
    let mut forged = other_disk
        .bytes(&segment_path(&other, Path::new(DIR), NUMBER))
        .unwrap();
    other.shutdown();
    forged.resize(good.len().max(forged.len()), 0);
    let disk = whole.disk.kill();
    let store = open_sim(&disk);
    harm(&disk, path, Harm::Flip(200));
    let damaged = disk.bytes(path);
    assert!(is_segment(store.examine(NUMBER as u32)));
    for source in [&forged, &whole.files[NUMBER + 1].1, &vec![0; good.len()]] {
        let mut source = source.clone();
        source.resize(good.len(), 0);
        assert!(matches!(
            give(&store, NUMBER, &source),
            Ok(Finished::Wrong(_))
        ));
        assert_eq!(disk.bytes(path), damaged, "nothing is put in its place");
        store.mend(NUMBER as u32).unwrap().clear();
    }
    give(&store, NUMBER, good).unwrap();
    compare(&whole, &store, &disk);
    store.shutdown();
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_damaged_file_or_the_good_one() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    let harmed = whole.disk.kill();
    harm(&harmed, path, Harm::Flip(good.len() as u64 / 2));
    let damaged = harmed.bytes(path).unwrap();
    let mend_all = |disk: &SimDisk| {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Store::open(shared, Path::new(DIR), IDENTITY, options(IndexKind::Memory));
        let Ok((store, _)) = opened else { return false };
        let examined = is_segment(store.examine(NUMBER as u32));
        let mended = examined && give(&store, NUMBER, good).is_ok();
        store.shutdown();
        mended
    };
    let run = harmed.kill();
    let before = run.operations();
    assert!(mend_all(&run));
    let operations = run.operations() - before;
    let mut seen = [0, 0, 0];
    for operation in 0..operations {
        let disk = harmed.kill();
        disk.crash_at(disk.operations() + operation);
        let mended = mend_all(&disk);
        for image in [disk.crash(operation), disk.crash(!operation), disk.kill()] {
            let found = image.bytes(path).unwrap();
            assert!(found == damaged || found == *good, "operation {operation}");
            assert!(found == *good || !mended, "operation {operation}: undone");
            let store = open_sim(&image);
            store.suspect_half_mended().unwrap();
            let half = store.next_suspect();
            let verdict = store.examine(NUMBER as u32).unwrap();
            if found == *good {
                seen[1] += 1;
                assert_eq!(verdict, Verdict::Sound);
            } else {
                seen[0] += 1;
                seen[2] += usize::from(half == Some(NUMBER as u32));
                // The damage is in the middle: no open notices it, but what was left half mended says where to look.
                assert!(matches!(verdict, Verdict::Segment(_)));
                give(&store, NUMBER, good).unwrap();
            }
            compare(&whole, &store, &image);
            store.clear_mended().unwrap();
            let left: BTreeSet<String> = image
                .list(&Path::new(DIR).join("mending"))
                .map(|names| names.into_iter().collect())
                .unwrap_or_default();
            assert_eq!(left, BTreeSet::new(), "operation {operation}");
            store.shutdown();
        }
    }
    assert!(seen[0] > 10 && seen[1] > 2 && seen[2] > 5, "{seen:?}");
}

#[test]
fn damaged_tree_hashes_are_derived_again_while_running() {
    let whole = whole();
    let disk = whole.disk.kill();
    let store = open_sim(&disk);
    let sealed = store.log().sealed();
    let mut mended = 0;
    for level in 0..=1 {
        let path = Path::new(DIR).join(format!("tree/L{level}"));
        let Some(good) = disk.bytes(&path) else {
            continue;
        };
        for offset in (0..good.len() as u64).step_by(97) {
            assert!(disk.flip(&path, offset, 1));
            // As the scrubber does: every segment is looked at, in order.
            for segment in sealed.iter() {
                match store.examine(segment.number).unwrap() {
                    Verdict::Sound => {}
                    Verdict::Tree(_) => {
                        store.mend_tree(segment.number).unwrap();
                        mended += 1;
                    }
                    Verdict::Segment(reason) => panic!("{reason}"),
                }
            }
            assert!(disk.bytes(&path).unwrap() == good, "L{level} at {offset}");
        }
    }
    assert!(mended > 20, "{mended}");
    compare(&whole, &store, &disk);
    store.shutdown();
}

#[test]
fn a_segment_that_does_not_fit_beside_the_damaged_one_is_left_as_it_is() {
    let whole = whole();
    let (path, good) = &whole.files[NUMBER];
    let disk = whole.disk.kill();
    let store = open_sim(&disk);
    harm(&disk, path, Harm::Flip(100));
    assert!(is_segment(store.examine(NUMBER as u32)));
    let damaged = disk.bytes(path);
    disk.set_capacity(Some(1));
    let error = give(&store, NUMBER, good).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert_eq!(disk.bytes(path), damaged);
    disk.set_capacity(None);
    give(&store, NUMBER, good).unwrap();
    compare(&whole, &store, &disk);
    store.shutdown();
}
