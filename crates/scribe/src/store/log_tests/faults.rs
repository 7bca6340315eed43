//! A disk that fails and says so.

use super::super::sim_disk::{DiskFault, DiskOperation, SimDisk};
use super::*;

#[test]
fn a_failed_sync_stops_the_store_for_good() {
    for kinds in [
        [DiskOperation::Sync],
        [DiskOperation::Write],
        [DiskOperation::SyncDir],
    ] {
        let disk = SimDisk::new();
        let (log, _) = open(&disk, small(false)).unwrap();
        append(&log, vec![frame(1, 0, 10)]).unwrap();
        disk.fail(&kinds, 0, DiskFault::Io);
        // Too long for the first segment, so that a name has to be synced as well.
        let error = append(&log, vec![frame(1, 1, 5_000)]).unwrap_err();
        assert!(error.to_string().contains("simulated I/O error"), "{error}");
        assert!(log.poisoned().unwrap().contains("simulated I/O error"));
        // The disk is fine again, and nothing is tried.
        let operations = disk.operations();
        assert!(append(&log, vec![frame(1, 2, 10)]).is_err());
        assert!(save_vote(&log, vote(1)).is_err());
        assert!(truncate(&log, None).is_err());
        assert_eq!(disk.operations(), operations);
        assert_eq!(log.flushed(), Some(LogId::new(1, 0)));
        log.shutdown();
        drop(log);
        let (log, _) = open(&disk.crash(3), small(false)).unwrap();
        assert_eq!(read_all(&log)[0], frame(1, 0, 10));
    }
}

#[test]
fn everyone_who_waits_hears_of_the_failure() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    disk.fail(&[DiskOperation::Sync], 3, DiskFault::Io);
    let mut waiting = Vec::new();
    for i in 0..50 {
        let (done, wait) = Waiting::new();
        let _ = log.append(vec![frame(1, i, 600)], done);
        let (vote_done, vote_wait) = Waiting::new();
        let _ = log.save_vote(vote(1), vote_done);
        waiting.extend([wait, vote_wait]);
    }
    let outcomes: Vec<bool> = waiting
        .into_iter()
        .map(|wait| wait.wait().is_ok())
        .collect();
    let good = outcomes.iter().take_while(|good| **good).count();
    assert!(
        outcomes[good..].iter().all(|good| !good),
        "nothing succeeds behind a failure"
    );
    assert!(good < 10);
    assert!(log.poisoned().is_some());
}

#[test]
fn a_failed_vote_or_cut_or_seal_stops_the_store() {
    for what in 0..3 {
        let disk = SimDisk::new();
        let (log, _) = open(&disk, small(false)).unwrap();
        append(&log, (0..30).map(|i| frame(1, i, 200)).collect()).unwrap();
        disk.fail(&[DiskOperation::Sync], 0, DiskFault::Io);
        let failed = match what {
            0 => save_vote(&log, vote(1)).is_err() && log.vote().is_none(),
            1 => truncate(&log, Some(LogId::new(1, 20))).is_err(),
            _ => seal_next(&log).is_err(),
        };
        assert!(failed && log.poisoned().is_some(), "case {what}");
        assert!(append(&log, vec![frame(1, log.last().unwrap().index.0 + 1, 1)]).is_err());
    }
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    for preallocate in [false, true] {
        let disk = SimDisk::new();
        let (log, _) = open(&disk, small(preallocate)).unwrap();
        append(&log, vec![frame(1, 0, 500)]).unwrap();
        let used = (1 << 50) - disk.free_bytes(std::path::Path::new(DIR)).unwrap();
        assert_eq!(used, 0, "no limit is set yet");
        disk.set_capacity(Some(40_000));
        let mut good = 1;
        while append(&log, vec![frame(1, good, 500)]).is_ok() {
            good += 1;
            assert!(good < 1_000);
        }
        assert!(log.poisoned().unwrap().contains("full disk"));
        assert!(log.free_bytes() < 10_000);
        log.shutdown();
        drop(log);
        disk.set_capacity(None);
        let (log, _) = open(&disk, small(preallocate)).unwrap();
        assert!(read_all(&log).len() as u64 >= good);
        append(&log, vec![frame(2, log.last().unwrap().index.0 + 1, 9)]).unwrap();
    }
}

#[test]
fn a_dropped_callback_reports_an_error() {
    let (done, waiting) = Waiting::new();
    drop(done);
    assert!(
        waiting
            .wait()
            .unwrap_err()
            .to_string()
            .contains("stopped before")
    );
}

#[test]
fn a_panic_in_a_callback_does_not_leave_others_waiting() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(false)).unwrap();
    log.append(
        vec![frame(1, 0, 1)],
        Flushed::new(|_| panic!("a test panics")),
    )
    .unwrap();
    let (done, waiting) = Waiting::new();
    let _ = log.append(vec![frame(1, 1, 1)], done);
    let _ = waiting.wait();
    let error = (2..)
        .find_map(|i| append(&log, vec![frame(1, i, 1)]).err())
        .unwrap();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, small(true)).unwrap();
    let (done, waiting) = Waiting::new();
    let held = log.clone();
    let done = Flushed::new(move |outcome| {
        drop(held);
        done.complete(outcome);
    });
    let inner = log.clone();
    inner.append(vec![frame(1, 0, 1)], done).unwrap();
    drop(inner);
    drop(log);
    waiting.wait().unwrap();
}

#[test]
fn frames_whose_sync_failed_are_durable_once_the_next_process_has_read_them() {
    // In the middle of a segment, and at its beginning with the header.
    for (before, length) in [(1, 10), (0, 10), (4, 2_000)] {
        let disk = SimDisk::new();
        let (log, _) = open(&disk, small(false)).unwrap();
        append(&log, (0..before).map(|i| frame(1, i, 900)).collect()).unwrap();
        disk.fail(&[DiskOperation::Sync], 0, DiskFault::Io);
        append(&log, vec![frame(1, before, length)]).unwrap_err();
        drop(log);
        // The process ends, and the next one finds the frame in the system's cache. It takes it for its own, as it would
        // after a kill, and others count on that.
        let disk = disk.kill();
        let (log, recovered) = open(&disk, small(false)).unwrap();
        assert_eq!(recovered.last, Some(LogId::new(1, before)));
        append(&log, vec![frame(1, before + 1, 10)]).unwrap();
        let frames = read_all(&log);
        drop(log);
        for seed in 0..30 {
            let (log, _) = open(&disk.crash(seed), small(false)).unwrap();
            assert_eq!(read_all(&log), frames, "{before} before, seed {seed}");
        }
    }
}
