//! A log whose acknowledged end is damaged is cut only where it may be, and never without the mark that keeps the node from
//! voting.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scribe_proof::index::TreeSize;

use super::model::*;
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::frame::{FramePosition, LogIndex};
use crate::store::index::IndexKind;
use crate::store::segment::file_name;
use crate::store::sim_disk::SimDisk;
use crate::store::{OpenReport, RestoreRule, Store};

const DIR: &str = "/data";

/// A stopped node's disk, what it holds, and a frame behind its sealed segments that others follow.
struct Stopped {
    disk: SimDisk,
    model: Model,
    path: PathBuf,
    offset: u64,
    /// Log index of that frame.
    lost: u64,
}

fn stopped() -> Stopped {
    (100..160)
        .find_map(stopped_after)
        .expect("a log with enough behind its sealed segments")
}

fn stopped_after(frames: usize) -> Option<Stopped> {
    let model = Model::of(&some_ops(frames));
    let disk = SimDisk::new();
    let (store, _) = open(Arc::new(disk.clone()), Path::new(DIR), IndexKind::Memory);
    feed(&store, &model.frames).unwrap();
    settle(&store);
    let found = frame_to_lose(&store, &model);
    store.shutdown();
    let (lost, position) = found?;
    Some(Stopped {
        disk: disk.kill(),
        path: Path::new(DIR).join("log").join(file_name(
            store.log().sealed().last()?.last_log_id.index.next(),
        )),
        offset: u64::from(position.offset),
        model,
        lost,
    })
}

/// A frame with entries in the segment right behind the sealed ones, with another such frame behind it.
fn frame_to_lose(store: &Store, model: &Model) -> Option<(u64, FramePosition)> {
    let sealed = store.log().sealed().last()?.last_log_id.index.0;
    let mut behind = model
        .frames
        .iter()
        .filter(|frame| frame.log_id.index.0 > sealed + 1 && frame.count > 0);
    let (lost, _) = (behind.next()?.log_id.index, behind.next()?);
    let position = store.log().position(lost)?;
    let first = store.log().position(LogIndex(sealed + 1))?;
    (position.segment == first.segment).then_some((lost.0, position))
}

fn open_with(disk: &SimDisk, restore: RestoreRule) -> Result<(Store, OpenReport), StoreError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut options = options(IndexKind::Memory);
    options.restore = Some(restore);
    Store::open(shared, Path::new(DIR), IDENTITY, options)
}

fn allowed() -> RestoreRule {
    RestoreRule {
        signed: TreeSize::EMPTY,
        others_can_lead: |_, _| true,
    }
}

#[test]
fn a_damaged_end_is_cut_marked_and_kept_aside_until_it_is_back() {
    let node = stopped();
    let disk = node.disk.kill();
    assert!(disk.flip(&node.path, node.offset + 70, 1));
    let damaged = disk.bytes(&node.path).unwrap();
    let (store, report) = open_with(&disk, allowed()).unwrap();
    assert!(report.log.lost.is_some());
    assert_eq!(store.log().last().map(|id| id.index.0), Some(node.lost - 1));
    assert!(store.is_restoring().unwrap());
    let name = node.path.file_name().unwrap();
    let aside = Path::new(DIR).join("damaged").join(name);
    let kept = disk.bytes(&aside).unwrap();
    assert!(damaged.starts_with(&kept));
    assert!(damaged[kept.len()..].iter().all(|byte| *byte == 0));
    store.shutdown();
    // The mark outlives a restart, whatever the log looks like by then.
    let (store, report) = open_with(&disk.kill(), allowed()).unwrap();
    assert_eq!(report.log.lost, None);
    assert!(store.is_restoring().unwrap());
    apply_rest(&store, &node.model.frames[..node.lost as usize]).unwrap();
    feed(&store, &node.model.frames[node.lost as usize..]).unwrap();
    store.restored().unwrap();
    assert!(!store.is_restoring().unwrap());
    node.model.compare(&store);
    store.check(|_, _| {}).unwrap();
    store.shutdown();
}

#[test]
fn what_may_not_be_restored_is_refused_and_left_alone() {
    let node = stopped();
    let size = TreeSize::new(node.model.leaves.len() as u64);
    let rules = [
        RestoreRule {
            others_can_lead: |_, _| false,
            ..allowed()
        },
        // It signed for more than its files ever held: an older copy.
        RestoreRule {
            signed: size.grown_by(1),
            ..allowed()
        },
    ];
    for rule in rules {
        let disk = node.disk.kill();
        assert!(disk.flip(&node.path, node.offset + 70, 1));
        let before = disk.bytes(&node.path);
        let error = open_with(&disk, rule).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(disk.bytes(&node.path), before);
        assert!(!disk.exists(&Path::new(DIR).join("restoring")).unwrap());
    }
    // What lies behind the damage shows how far it was.
    let disk = node.disk.kill();
    assert!(disk.flip(&node.path, node.offset + 70, 1));
    let rule = RestoreRule {
        signed: size,
        ..allowed()
    };
    let (store, _) = open_with(&disk, rule).unwrap();
    assert!(store.applied().tree_size < size);
    assert_eq!(store.signed_before_loss().unwrap(), Some(size));
    store.shutdown();
    // A log without damage is not marked.
    let (store, report) = open_with(&node.disk.kill(), rule).unwrap();
    assert_eq!(report.log.lost, None);
    assert!(!store.is_restoring().unwrap());
    store.shutdown();
}

#[test]
fn a_power_cut_at_any_operation_never_leaves_a_log_cut_and_unmarked() {
    let node = stopped();
    let size = TreeSize::new(node.model.leaves.len() as u64);
    // The cut takes away the frames that show how far the log reached, which is asked for before it.
    for signed in [TreeSize::EMPTY, size] {
        let rule = RestoreRule {
            signed,
            ..allowed()
        };
        cut_at_any_operation(&node, rule);
    }
}

fn cut_at_any_operation(node: &Stopped, rule: RestoreRule) {
    let harmed = node.disk.kill();
    assert!(harmed.flip(&node.path, node.offset + 70, 1));
    let whole = harmed.kill();
    let before = whole.operations();
    open_with(&whole, rule).unwrap().0.shutdown();
    let operations = whole.operations() - before;
    let mut seen = [0, 0];
    for operation in 0..operations {
        let disk = harmed.kill();
        disk.crash_at(disk.operations() + operation);
        if let Ok((store, _)) = open_with(&disk, rule) {
            store.shutdown();
        }
        for image in [disk.crash(operation), disk.crash(!operation), disk.kill()] {
            let marked = image.exists(&Path::new(DIR).join("restoring")).unwrap();
            let cut = image.bytes(&node.path) != harmed.bytes(&node.path);
            assert!(marked || !cut, "operation {operation}");
            seen[usize::from(cut)] += 1;
            // And it is restored all the same.
            let (store, _) = open_with(&image, rule).unwrap();
            assert!(store.is_restoring().unwrap(), "operation {operation}");
            // Whatever was in the log lies in one of the copies.
            let name = node.path.file_name().unwrap();
            let kept = Path::new(DIR).join("damaged").join(name);
            let kept = image.bytes(&kept).unwrap();
            assert!(harmed.bytes(&node.path).unwrap().starts_with(&kept));
            assert!(
                kept.len() as u64 > node.offset + 70,
                "operation {operation}"
            );
            assert_eq!(store.log().last().map(|id| id.index.0), Some(node.lost - 1));
            store.shutdown();
        }
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}
