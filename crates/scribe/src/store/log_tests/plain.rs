//! On a disk that does what it is told.

use std::path::{Path, PathBuf};

use super::super::disk::Open;
use super::super::frame::FramePosition;
use super::super::real_disk::RealDisk;
use super::super::recovery::repair_accept_loss;
use super::super::segment::{SEGMENT_HEADER_LENGTH, file_path};
use super::super::sim_disk::SimDisk;
use super::super::vote::SLOT_LENGTH;
use super::*;

fn open_real(dir: &Path, options: LogOptions) -> Result<(Log, RecoveredLog), StoreError> {
    Log::open(Arc::new(RealDisk), dir, ID, options)
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let names = RealDisk.list(&dir.join("log")).unwrap();
    names
        .iter()
        .filter(|name| *name != "next.seg")
        .map(|name| dir.join("log").join(name))
        .collect()
}

#[test]
fn what_was_appended_is_read_back_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for preallocate in [true, false] {
        let dir = dir.path().join(preallocate.to_string());
        let frames: Vec<Frame> = (0..40)
            .map(|i| frame(1 + i / 10, i, 10 * i as usize))
            .collect();
        {
            let (log, recovered) = open_real(&dir, small(preallocate)).unwrap();
            assert_eq!(recovered.last, None);
            for piece in frames.chunks(7) {
                append(&log, piece.to_vec()).unwrap();
            }
            assert_eq!(read_all(&log), frames);
            assert_eq!(log.flushed(), log.last());
            assert!(log.stats().syncs >= 6);
            log.shutdown();
            assert!(append(&log, vec![frame(4, 40, 0)]).is_err());
        }
        let (log, recovered) = open_real(&dir, small(preallocate)).unwrap();
        assert_eq!(
            (recovered.last, recovered.cut_bytes),
            (Some(LogId::new(4, 39)), 0)
        );
        assert_eq!(read_all(&log), frames);
        assert_eq!(log.read_from_disk(3..9, usize::MAX).unwrap(), frames[3..9]);
        append(&log, vec![frame(9, 40, 5)]).unwrap();
        assert_eq!(log.read(40..99, 0).unwrap(), [frame(9, 40, 5)]);
        assert!(segment_files(&dir).len() > 2);
    }
}

#[test]
fn reads_stop_at_their_budget_but_return_one_frame() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    let frames: Vec<Frame> = (0..20).map(|i| frame(1, i, 300)).collect();
    append(&log, frames.clone()).unwrap();
    for cached in [true, false] {
        let read = |range, bytes_max| match cached {
            true => log.read(range, bytes_max).unwrap(),
            false => log.read_from_disk(range, bytes_max).unwrap(),
        };
        assert_eq!(read(0..20, 1), frames[..1]);
        assert_eq!(read(2..20, 3 * frames[0].length()), frames[2..5]);
        assert_eq!(read(18..30, usize::MAX), frames[18..]);
        assert!(read(20..30, usize::MAX).is_empty());
    }
}

#[test]
fn every_frame_has_a_position_sealed_or_not() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(true)).unwrap();
    let frames: Vec<Frame> = (0..30).map(|i| frame(1, i, 200)).collect();
    append(&log, frames.clone()).unwrap();
    let before: Vec<FramePosition> = (0..30)
        .map(|i| log.position(LogIndex(i)).unwrap())
        .collect();
    while seal_next(&log).unwrap().is_some() {}
    assert!(log.sealed().len() >= 2);
    for (i, position) in before.iter().enumerate() {
        assert_eq!(log.position(LogIndex(i as u64)), Some(*position));
        assert_eq!(log.frame_at(*position).unwrap(), frames[i]);
        let raw = log
            .read_raw(position.segment, position.offset + 64, 40)
            .unwrap();
        assert_eq!(raw, frames[i].public);
    }
    assert_eq!(log.position(LogIndex(30)), None);
    assert!(log.read_raw(0, 0, u32::MAX).is_err());
    assert_eq!(log.tail().last, log.last());
}

#[test]
fn bytes_can_be_read_raw_before_they_are_on_disk() {
    let disk = SimDisk::new();
    let (log, _) = open(
        &disk,
        LogOptions {
            cache_bytes: 1 << 20,
            ..small(false)
        },
    )
    .unwrap();
    append(
        &log,
        vec![frame(1, 0, 33), frame(1, 1, 44), frame(1, 2, 55)],
    )
    .unwrap();
    let file = log.segment_file(0).unwrap();
    let mut bytes = vec![0; log.tail().offset as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for start in (SEGMENT_HEADER_LENGTH..bytes.len()).step_by(5) {
        for end in (start..bytes.len()).step_by(7) {
            let raw = log.read_raw(0, start as u32, (end - start) as u32).unwrap();
            assert_eq!(raw, bytes[start..end], "{start}..{end}");
        }
    }
}

#[test]
fn a_cut_drops_frames_for_good_and_others_take_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    {
        let (log, _) = open_real(dir.path(), small(true)).unwrap();
        append(&log, expected.clone()).unwrap();
        for (keep, term) in [(35, 2), (20, 3), (19, 4), (7, 5)] {
            let (done, first) = Waiting::new();
            log.truncate_after(Some(expected[keep as usize].log_id), done)
                .unwrap();
            expected.truncate(keep as usize + 1);
            assert_eq!(log.last().map(|last| last.index.0), Some(keep));
            assert!(log.read(keep + 1..keep + 2, 100).unwrap().is_empty());
            let new: Vec<Frame> = (keep + 1..keep + 12).map(|i| frame(term, i, 170)).collect();
            expected.extend(new.clone());
            let (done, second) = Waiting::new();
            log.append(new, done).unwrap();
            assert_eq!(read_all(&log), expected);
            first.wait().unwrap();
            second.wait().unwrap();
            assert_eq!(log.flushed(), log.last());
            let last = expected.len() as u64;
            assert_eq!(log.read_from_disk(0..last, usize::MAX).unwrap(), expected);
        }
        let wrong = LogId::new(9, 3);
        assert_eq!(
            truncate(&log, Some(wrong)).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(log.poisoned(), None);
    }
    let (log, recovered) = open_real(dir.path(), small(true)).unwrap();
    assert_eq!(recovered.cut_bytes, 0);
    assert_eq!(read_all(&log), expected);
    truncate(&log, None).unwrap();
    assert_eq!((log.last(), segment_files(dir.path())), (None, vec![]));
    append(&log, vec![frame(6, 0, 1)]).unwrap();
}

#[test]
fn where_segments_end_depends_on_the_frames_alone() {
    let frames: Vec<Frame> = (0..60)
        .map(|i| frame(2, i, [10, 700, 90, 5_000, 40][i as usize % 5]))
        .collect();
    let one_by_one = SimDisk::new();
    let (log, _) = open(&one_by_one, small(true)).unwrap();
    frames
        .iter()
        .for_each(|frame| append(&log, vec![frame.clone()]).unwrap());
    while seal_next(&log).unwrap().is_some() {}
    let sealed = log.sealed();
    drop(log);

    let otherwise = SimDisk::new();
    let other_id = LogIdentity { node_id: 2, ..ID };
    let open_other = || {
        Log::open(otherwise.to_disk(), Path::new(DIR), other_id, small(false))
            .unwrap()
            .0
    };
    let log = open_other();
    for from in (0..60).step_by(20) {
        // Frames of another leader, longer ones, which are cut again.
        append(&log, (from..from + 5).map(|i| frame(1, i, 900)).collect()).unwrap_or_default();
        truncate(&log, from.checked_sub(1).map(|i| frames[i as usize].log_id)).unwrap();
        append(&log, frames[from as usize..from as usize + 20].to_vec()).unwrap();
    }
    drop(log);
    let log = open_other();
    assert_eq!(read_all(&log), frames);
    while seal_next(&log).unwrap().is_some() {}
    assert_eq!(log.sealed(), sealed);
    assert!(sealed.len() > 10);
    for segment in sealed.iter() {
        let path = file_path(&Path::new(DIR).join("log"), segment.first_log_index);
        assert_eq!(
            one_by_one.bytes(&path).unwrap(),
            otherwise.bytes(&path).unwrap()
        );
        assert_eq!(
            one_by_one.bytes(&path).unwrap().len() as u64,
            segment.file_length
        );
    }
}

#[test]
fn sealed_segments_come_back_and_are_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let frames: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    let sealed = {
        let (log, _) = open_real(dir.path(), small(true)).unwrap();
        append(&log, frames.clone()).unwrap();
        let first = seal_next(&log).unwrap().unwrap();
        let again = next_footer(&log).unwrap();
        let twice = log.seal_segment(again.0, again.1.clone()).unwrap();
        assert_eq!(
            log.seal_segment(again.0, again.1).unwrap(),
            twice,
            "sealing can be repeated"
        );
        let wrong = FooterState {
            end_size: TreeSize::new(1),
            ..first.footer.clone()
        };
        assert_eq!(
            log.seal_segment(0, wrong).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let last = first.last_log_id;
        let before = LogId::new(1, last.index.0 - 1);
        assert_eq!(
            truncate(&log, Some(before)).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(log.purge(LogId::new(1, last.index.0 + 1)).is_err());
        log.purge(last).unwrap();
        log.save_committed(Some(LogId::new(1, 999)));
        assert_eq!(log.committed(), log.flushed());
        first
    };
    let (log, recovered) = open_real(dir.path(), small(true)).unwrap();
    assert_eq!(*recovered.sealed, std::slice::from_ref(&sealed));
    assert_eq!(recovered.first_unsealed, sealed.last_log_id.index.next());
    assert_eq!(log.purged(), Some(sealed.last_log_id));
    assert_eq!(log.committed(), log.last());
    assert_eq!(read_all(&log), frames);
    drop(log);

    // The MANIFEST is derived: without it the footers say the same, and more.
    std::fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    let (log, recovered) = open_real(dir.path(), small(true)).unwrap();
    assert_eq!(recovered.sealed.len(), 2);
    assert_eq!(recovered.sealed[0], sealed);
    assert_eq!(read_all(&log), frames);
}

#[test]
fn a_manifest_that_lost_records_of_what_was_purged_is_made_again() {
    let disk = SimDisk::new();
    let path = Path::new("/data/MANIFEST");
    let frames: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    let (log, _) = open(&disk, small(true)).unwrap();
    append(&log, frames.clone()).unwrap();
    let first = seal_next(&log).unwrap().unwrap();
    log.purge(first.last_log_id).unwrap();
    drop(log);
    // What is left looks like a record that a crash tore, which it cannot be: nothing is purged before it is durable.
    let file = disk.open(path, Open::READ_WRITE).unwrap();
    file.set_len(file.len().unwrap() - 8).unwrap();
    let (log, recovered) = open(&disk, small(true)).unwrap();
    assert_eq!(*recovered.sealed, std::slice::from_ref(&first));
    assert_eq!(log.purged(), Some(first.last_log_id));
    assert_eq!(read_all(&log), frames);
    drop(log);

    assert!(disk.flip(path, 100, 1));
    let (log, recovered) = open(&disk, small(true)).unwrap();
    assert_eq!(*recovered.sealed, std::slice::from_ref(&first));
    drop(log);

    // With the footer damaged as well nobody vouches for the segment, and what was purged cannot be applied again.
    assert!(disk.flip(path, 100, 1));
    let segment = file_path(&Path::new(DIR).join("log"), LogIndex(0));
    assert!(disk.flip(&segment, first.body_length + 20, 4));
    let error = open(&disk, small(true)).unwrap_err().to_string();
    assert!(
        error.contains("MANIFEST") && error.contains("purged"),
        "{error}"
    );
}

#[test]
fn a_bad_footer_is_reported_and_the_rest_still_served() {
    let disk = SimDisk::new();
    let frames: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    let (log, _) = open(&disk, small(true)).unwrap();
    append(&log, frames.clone()).unwrap();
    let sealed = seal_next(&log).unwrap().unwrap();
    drop(log);
    let path = file_path(&Path::new(DIR).join("log"), LogIndex(0));
    assert!(disk.flip(&path, sealed.body_length + 20, 4));
    let (log, recovered) = open(&disk, small(true)).unwrap();
    assert_eq!(recovered.sealed_damage[0].segment, 0);
    assert_eq!(
        read_all(&log),
        frames,
        "positions are found without the sparse table"
    );
    drop(log);
    disk.remove(Path::new("/data/MANIFEST")).unwrap();
    let (log, recovered) = open(&disk, small(true)).unwrap();
    assert_eq!(
        recovered.sealed.len(),
        0,
        "nobody vouches for the footer: it is made again"
    );
    assert_eq!(read_all(&log), frames);
    assert_eq!(seal_next(&log).unwrap().unwrap(), sealed);
}

#[test]
fn votes_come_back_in_order_and_never_go_back() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    assert_eq!(log.vote(), None);
    save_vote(&log, vote(3)).unwrap();
    append(&log, vec![frame(3, 0, 9)]).unwrap();
    let committed = Vote {
        committed: true,
        ..vote(3)
    };
    save_vote(&log, committed).unwrap();
    assert_eq!(
        save_vote(&log, vote(2)).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(log.vote(), Some(committed));
    drop(log);
    let (log, _) = open(&disk, small(false)).unwrap();
    assert_eq!(log.vote(), Some(committed));
}

#[test]
fn frames_that_do_not_follow_are_refused_and_change_nothing() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    append(&log, vec![frame(2, 0, 0)]).unwrap();
    for wrong in [
        vec![frame(2, 2, 0)],
        vec![frame(1, 1, 0)],
        vec![frame(2, 1, 0), frame(2, 1, 0)],
        vec![Frame {
            count: u32::MAX,
            ..frame(2, 1, 0)
        }],
    ] {
        assert_eq!(
            append(&log, wrong).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
    assert_eq!((log.last(), log.poisoned()), (Some(LogId::new(2, 0)), None));
    append(&log, vec![]).unwrap();
    append(&log, vec![frame(2, 1, 0)]).unwrap();
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open_real(dir.path(), small(true)).unwrap();
    let error = open_real(dir.path(), small(true)).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("hint:"));
    let other_handle = log.clone();
    log.shutdown();
    open_real(dir.path(), small(true)).unwrap();
    drop(other_handle);
}

#[test]
fn directories_of_others_and_of_later_releases_are_refused() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    append(&log, vec![frame(1, 0, 9)]).unwrap();
    drop(log);
    let open_as = |disk: &SimDisk, id| {
        Log::open(disk.to_disk(), Path::new(DIR), id, small(false)).unwrap_err()
    };
    let other = open_as(
        &disk,
        LogIdentity {
            cluster_id: [1; 16],
            ..ID
        },
    );
    assert!(matches!(other, StoreError::OtherCluster { .. }), "{other}");
    let other = open_as(&disk, LogIdentity { node_id: 9, ..ID });
    assert!(
        matches!(
            other,
            StoreError::OtherNode {
                found: 1,
                expected: 9,
                ..
            }
        ),
        "{other}"
    );
    // Both slots of the vote: one of them alone is damage.
    let both = [7, SLOT_LENGTH as u64 + 7];
    for (name, places) in [
        ("log/0000000000000000.seg", &[6][..]),
        ("vote", &both),
        ("MANIFEST", &[7]),
    ] {
        let path = Path::new(DIR).join(name);
        let flip = || {
            let flipped = places.iter().all(|at| disk.flip(&path, *at, b'1' ^ b'2'));
            assert!(flipped);
        };
        flip();
        let newer = open_as(&disk, ID);
        assert!(
            matches!(newer, StoreError::NewerFormat { found: 2, .. }),
            "{newer}"
        );
        flip();
    }
    disk.remove(&Path::new(DIR).join("vote")).unwrap();
    let lost = open_as(&disk, ID);
    assert!(matches!(lost, StoreError::Damaged { .. }), "{lost}");
}

#[test]
fn repair_leaves_no_footer_on_what_becomes_the_last_segment() {
    let disk = SimDisk::new();
    let frames: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    let (log, _) = open(&disk, small(false)).unwrap();
    append(&log, frames.clone()).unwrap();
    seal_next(&log).unwrap().unwrap();
    // The second segment gets its footer, and then the process ends before the MANIFEST is written.
    let (number, footer) = next_footer(&log).unwrap();
    let sealed = log.seal_segment(number, footer).unwrap();
    log.shutdown();
    drop(log);
    let last = sealed.last_log_id;
    // The third cannot be read from its header on.
    let path = file_path(&Path::new(DIR).join("log"), last.index.next());
    assert!(disk.flip(&path, 20, 1));
    assert!(open(&disk, small(false)).is_err());
    let handle = disk.to_disk();
    let report = repair_accept_loss(&handle, Path::new(DIR), &small(false)).unwrap();
    assert_eq!(report.last, Some(last));
    assert_eq!(report.removed.last(), Some(&path));
    let (log, recovered) = open(&disk, small(false)).unwrap();
    assert_eq!((recovered.last, recovered.cut_bytes), (Some(last), 0));
    let kept = last.index.0 as usize + 1;
    assert_eq!(read_all(&log), frames[..kept]);
    append(&log, vec![frame(2, kept as u64, 9)]).unwrap();
    log.shutdown();
    drop(log);
    let (log, _) = open(&disk, small(false)).unwrap();
    assert_eq!(read_all(&log).len(), kept + 1);
}

#[test]
fn repair_cuts_at_the_first_bad_frame_and_only_there() {
    let disk = SimDisk::new();
    let frames: Vec<Frame> = (0..40).map(|i| frame(1, i, 200)).collect();
    let (log, _) = open(&disk, small(false)).unwrap();
    append(&log, frames.clone()).unwrap();
    seal_next(&log).unwrap().unwrap();
    let position = log.position(LogIndex(17)).unwrap();
    let first = (0..17)
        .rev()
        .find(|i| log.position(LogIndex(*i)).unwrap().segment != position.segment);
    log.shutdown();
    let path = file_path(&Path::new(DIR).join("log"), LogIndex(first.unwrap() + 1));
    assert!(disk.flip(&path, u64::from(position.offset) + 90, 1));
    let error = open(&disk, small(false)).unwrap_err();
    assert!(error.to_string().contains("accept-loss"), "{error}");
    let disk_handle = disk.to_disk();
    let report = repair_accept_loss(&disk_handle, Path::new(DIR), &small(false)).unwrap();
    assert_eq!(report.last, Some(LogId::new(1, 16)));
    assert!(report.damage.unwrap().contains("frame 17"));
    assert!(!report.removed.is_empty());
    let (log, recovered) = open(&disk, small(false)).unwrap();
    assert_eq!(recovered.cut_bytes, 0);
    assert_eq!(read_all(&log), frames[..17]);
    append(&log, vec![frame(2, 17, 4)]).unwrap();
    drop(log);
    let nothing = repair_accept_loss(&disk_handle, Path::new(DIR), &small(false)).unwrap();
    assert_eq!((nothing.damage, nothing.cut_bytes), (None, 0));
}

#[test]
fn the_next_segment_waits_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open_real(dir.path(), small(true)).unwrap();
    append(&log, vec![frame(1, 0, 9)]).unwrap();
    append(&log, vec![frame(1, 1, 5_000)]).unwrap();
    // Taken by the second segment, so made before; the third is being made.
    let file = RealDisk
        .open(&segment_files(dir.path())[0], Open::READ)
        .unwrap();
    assert_eq!(file.len().unwrap(), 4_096);
    log.shutdown();
    open_real(dir.path(), small(false)).unwrap();
    assert!(
        !dir.path().join("log/next.seg").exists(),
        "never used twice"
    );
}

/// How close the writer comes to the disk. A measurement, run by hand:
/// `cargo test -p scribe --lib writer_keeps_up -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn writer_keeps_up_with_raw_appends() {
    use std::time::Instant;
    const GROUPS: u64 = 1_500;
    let dir = tempfile::tempdir_in(std::env::var("SCRIBE_BENCH_DIR").unwrap_or("/var/tmp".into()))
        .unwrap();
    let group: Vec<Frame> = (0..1).map(|i| frame(1, i, 65_536 - 128)).collect();
    for round in 0..3 {
        let raw_path = dir.path().join(format!("raw{round}"));
        let raw = RealDisk.open(&raw_path, Open::CREATE_NEW).unwrap();
        let bytes = vec![7; 65_536];
        let begun = Instant::now();
        for i in 0..GROUPS {
            raw.write_all_at(&bytes, i * 65_536).unwrap();
            raw.sync_data().unwrap();
        }
        let raw_time = begun.elapsed();
        let log_dir = dir.path().join(format!("log{round}"));
        let (log, _) = open_real(&log_dir, LogOptions::default()).unwrap();
        let begun = Instant::now();
        for i in 0..GROUPS {
            let mut frame = group[0].clone();
            frame.log_id.index = LogIndex(i);
            append(&log, vec![frame]).unwrap();
        }
        let one = begun.elapsed();
        // As in use: a few groups in flight.
        let begun = Instant::now();
        let mut flying = std::collections::VecDeque::new();
        for i in GROUPS..2 * GROUPS {
            let mut frame = group[0].clone();
            frame.log_id.index = LogIndex(i);
            let (done, waiting) = Waiting::new();
            log.append(vec![frame], done).unwrap();
            flying.push_back(waiting);
            if flying.len() == 4 {
                flying.pop_front().unwrap().wait().unwrap();
            }
        }
        flying
            .into_iter()
            .for_each(|waiting| waiting.wait().unwrap());
        let four = begun.elapsed();
        let ratio = |time: std::time::Duration| raw_time.as_secs_f64() / time.as_secs_f64();
        println!(
            "raw {raw_time:?}; one in flight {one:?} ({:.2}); four in flight {four:?} ({:.2}); {:?}",
            ratio(one),
            ratio(four),
            log.stats()
        );
        std::fs::remove_file(&raw_path).unwrap();
    }
}

#[test]
fn a_vote_is_not_begun_anew_beside_what_is_left_of_a_log() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    save_vote(&log, vote(7)).unwrap();
    for index in 0..30 {
        append(&log, vec![frame(7, index, 200)]).unwrap();
    }
    while seal_next(&log).unwrap().is_some() {}
    log.shutdown();
    // Everything a person may take for useless but the MANIFEST is gone, and with it the vote.
    let dir = Path::new(DIR);
    for name in disk.list(&dir.join("log")).unwrap() {
        disk.remove(&dir.join("log").join(name)).unwrap();
    }
    for name in ["vote", "watermarks"] {
        disk.remove(&dir.join(name)).unwrap();
    }
    let refused = open(&disk, small(false)).map(drop).unwrap_err();
    assert!(refused.to_string().contains("no vote file"), "{refused}");
    // With nothing left it is a new node.
    disk.remove(&dir.join("MANIFEST")).unwrap();
    let (log, recovered) = open(&disk, small(false)).unwrap();
    assert_eq!((log.vote(), recovered.last), (None, None));
    log.shutdown();
}
