//! Power cuts at every single operation on the disk.
//!
//! A script of steps runs until the disk dies; then the disk is what a power cut may leave, by several seeds, and the
//! log is opened again. Whatever was acknowledged must be there, in a log that some prefix of the script explains.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::sim_disk::SimDisk;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// So many frames with so many private bytes.
    Append(u64, usize),
    /// Drops so many frames and enters the next term.
    Cut(usize),
    Vote,
    Seal,
}

use Step::{Append, Cut, Seal, Vote as SaveVote};

/// Rolls, cuts within and across segments, seals, writes long frames alone and short ones together.
fn script() -> Vec<Step> {
    vec![
        SaveVote,
        Append(1, 30),
        Append(4, 300),
        SaveVote,
        Append(3, 900),
        Cut(2),
        Append(2, 500),
        Append(6, 350),
        Seal,
        Cut(3),
        SaveVote,
        Append(1, 6_000),
        Append(8, 20),
        Cut(9),
        Append(5, 700),
        Seal,
        Seal,
        Append(2, 1_500),
        SaveVote,
    ]
}

/// What the log is after the first steps of a script.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    frames: Vec<Frame>,
    vote: Option<Vote>,
    term: u64,
}

impl Model {
    fn step(&mut self, step: &Step) -> Vec<Frame> {
        match step {
            Append(count, length) => {
                let from = self.frames.len() as u64;
                let new: Vec<Frame> = (from..from + count)
                    .map(|i| frame(self.term, i, *length))
                    .collect();
                self.frames.extend(new.clone());
                return new;
            }
            Cut(count) => {
                self.frames.truncate(self.frames.len() - count);
                self.term += 1;
            }
            SaveVote => {
                self.term += 1;
                self.vote = Some(vote(self.term));
            }
            Seal => {}
        }
        Vec::new()
    }
}

/// The states a script goes through; one more than it has steps.
fn states(script: &[Step]) -> Vec<Model> {
    let mut states = vec![Model {
        term: 1,
        ..Model::default()
    }];
    for step in script {
        let mut next = states.last().cloned().unwrap_or_default();
        next.step(step);
        states.push(next);
    }
    states
}

/// Runs a script, each step after the one before was acknowledged or (`pipelined`) all at once. Returns how many of
/// the first steps were acknowledged.
fn run(disk: &SimDisk, options: &LogOptions, script: &[Step], pipelined: bool) -> usize {
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let Ok((log, _)) = open(disk, options.clone()) else {
        return 0;
    };
    let mut model = Model {
        term: 1,
        ..Model::default()
    };
    for (i, step) in script.iter().enumerate() {
        let new = model.step(step);
        let (done, waiting) = Waiting::new();
        let outcomes = acknowledged.clone();
        let done = Flushed::new(move |outcome| {
            outcomes.lock().insert(i, outcome.is_ok());
            done.complete(outcome);
        });
        let _ = match step {
            Append(..) => log.append(new, done),
            Cut(_) => log.truncate_after(model.frames.last().map(|frame| frame.log_id), done),
            SaveVote => model.vote.map_or(Ok(()), |vote| log.save_vote(vote, done)),
            Seal => {
                done.complete(seal_next(&log).map(|_| ()));
                Ok(())
            }
        };
        if !pipelined && waiting.wait().is_err() {
            break;
        }
    }
    drop(log);
    let acknowledged = acknowledged.lock();
    acknowledged.iter().take_while(|(_, good)| **good).count()
}

/// Whether the log is what it may be: between two neighbouring states, not before the acknowledged one, and not before
/// the vote it has. The error says what is wrong.
fn check(log: &Log, states: &[Model], acknowledged: usize) -> Result<(), String> {
    let frames = try_read_all(log)?;
    if log
        .read_from_disk(0..frames.len() as u64, usize::MAX)
        .map_err(|e| e.to_string())?
        != frames
    {
        return Err("memory and disk differ".into());
    }
    let is_prefix = |short: &[Frame], long: &[Frame]| long.starts_with(short);
    let fits = |i: usize| {
        let (low, high) = (&states[i], &states[(i + 1).min(states.len() - 1)]);
        let between = is_prefix(&low.frames, &frames) && is_prefix(&frames, &high.frames)
            || is_prefix(&high.frames, &frames) && is_prefix(&frames, &low.frames);
        between && (log.vote() == low.vote || log.vote() == high.vote)
    };
    if (acknowledged..states.len()).any(fits) {
        return Ok(());
    }
    Err(format!(
        "{acknowledged} steps were acknowledged: {:?} with vote {:?}; found {:?} with vote {:?}",
        states[acknowledged].frames.last().map(|frame| frame.log_id),
        states[acknowledged].vote,
        log.last(),
        log.vote()
    ))
}

/// Opens a disk after a power cut, checks it, and checks that it can be used and opened once more.
fn survive(
    disk: &SimDisk,
    options: &LogOptions,
    states: &[Model],
    acknowledged: usize,
) -> Result<(), String> {
    let (log, _) = open(disk, options.clone()).map_err(|error| error.to_string())?;
    check(&log, states, acknowledged)?;
    let frames = try_read_all(&log)?;
    let next = frame(90, frames.len() as u64, 333);
    append(&log, vec![next.clone()]).map_err(|error| error.to_string())?;
    save_vote(&log, vote(90)).map_err(|error| error.to_string())?;
    drop(log);
    let again = disk.crash(9);
    let (log, _) = open(&again, options.clone()).map_err(|error| error.to_string())?;
    let expected: Vec<Frame> = frames.into_iter().chain([next]).collect();
    if try_read_all(&log)? != expected || log.vote() != Some(vote(90)) {
        return Err("what was appended after recovery is gone".into());
    }
    Ok(())
}

fn crash_everywhere(
    options: &LogOptions,
    script: &[Step],
    pipelined: bool,
    seeds: u64,
    lie: bool,
) -> Vec<String> {
    let states = states(script);
    let whole = SimDisk::new();
    whole.ignore_syncs(lie);
    assert_eq!(run(&whole, options, script, pipelined), script.len());
    let mut violations = Vec::new();
    for at in 0..=whole.operations() {
        let disk = SimDisk::new();
        disk.ignore_syncs(lie);
        disk.crash_at(at);
        let acknowledged = run(&disk, options, script, pipelined);
        for seed in 0..seeds {
            let image = disk.crash(seed * 1_000 + at);
            if let Err(violation) = survive(&image, options, &states, acknowledged) {
                violations.push(format!("operation {at}, seed {seed}: {violation}"));
            }
        }
        // Killed, not cut off: everything written is there, synced or not.
        if let Err(violation) = survive(&disk.kill(), options, &states, acknowledged) {
            violations.push(format!("operation {at}, killed: {violation}"));
        }
    }
    violations
}

#[test]
fn nothing_acknowledged_is_lost_at_any_operation() {
    let violations = crash_everywhere(&small(false), &script(), false, 6, false);
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn nor_with_segments_allocated_ahead() {
    let violations = crash_everywhere(&small(true), &script(), false, 4, false);
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn nor_with_everything_in_flight_at_once() {
    // Seals block until the frames behind are on disk, so they stand at the end.
    let mut script: Vec<Step> = script()
        .into_iter()
        .filter(|step| !matches!(step, Seal))
        .collect();
    script.extend([Seal, Seal, Append(3, 100)]);
    for preallocate in [false, true] {
        let violations = crash_everywhere(&small(preallocate), &script, true, 4, false);
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// A script by chance. Cuts stay behind what a seal may have covered, as they do in Raft.
fn random_script(seed: u64) -> Vec<Step> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(seed);
    let mut loose = 0;
    let mut script = vec![SaveVote];
    for _ in 0..14 {
        let step = match random.random_range(0..10) {
            0..=5 => {
                let count = random.random_range(1..9);
                loose += count as usize;
                Append(
                    count,
                    random.random_range(0..1_400) * random.random_range(1..5) / 2,
                )
            }
            6 | 7 if loose > 0 => {
                let count = random.random_range(1..=loose);
                loose -= count;
                Cut(count)
            }
            8 => {
                loose = 0;
                Seal
            }
            _ => SaveVote,
        };
        script.push(step);
    }
    script
}

/// More of them: `SCRIBE_CRASH_SCRIPTS=1000 cargo test -p scribe --lib scripts_by_chance`.
#[test]
fn nor_in_scripts_by_chance() {
    let count = std::env::var("SCRIBE_CRASH_SCRIPTS")
        .ok()
        .and_then(|count| count.parse().ok());
    for seed in 0..count.unwrap_or(3) {
        let script = random_script(seed);
        for (preallocate, pipelined) in [(false, false), (true, false), (true, true)] {
            let violations = crash_everywhere(&small(preallocate), &script, pipelined, 2, false);
            assert!(
                violations.is_empty(),
                "script {seed}, {script:?}: {violations:#?}"
            );
        }
    }
}

#[test]
fn a_store_that_skips_the_sync_is_caught() {
    let violations = crash_everywhere(&small(false), &script(), false, 4, true);
    assert!(
        violations.len() > 20,
        "only {} violations: the test above proves nothing",
        violations.len()
    );
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    let (options, script) = (small(false), script());
    let states = states(&script);
    let whole = SimDisk::new();
    run(&whole, &options, &script, false);
    for at in (0..=whole.operations()).step_by(3) {
        let disk = SimDisk::new();
        disk.crash_at(at);
        let acknowledged = run(&disk, &options, &script, false);
        let image = disk.crash(at);
        let probe = image.crash(0);
        drop(open(&probe, options.clone()).unwrap());
        for during in 0..=probe.operations() {
            let torn = image.crash(1);
            torn.crash_at(during);
            drop(open(&torn, options.clone()));
            let found = survive(&torn.crash(during), &options, &states, acknowledged);
            assert_eq!(
                found,
                Ok(()),
                "operation {at}, then operation {during} of recovery"
            );
        }
    }
}

#[test]
fn long_groups_torn_in_any_way_are_cut() {
    // One group of many frames over many sectors; and one frame longer than a group.
    for step in [Append(12, 130), Append(1, 9_000)] {
        let options = LogOptions {
            segment_bytes_max: 1 << 16,
            ..small(false)
        };
        let script = [Append(1, 10), step];
        let states = states(&script);
        let whole = SimDisk::new();
        run(&whole, &options, &script, false);
        let mut cut = 0;
        for at in 0..=whole.operations() {
            let disk = SimDisk::new();
            disk.crash_at(at);
            let acknowledged = run(&disk, &options, &script, false);
            for seed in 0..40 {
                let image = disk.crash(seed);
                let (log, recovered) = open(&image, options.clone()).unwrap();
                check(&log, &states, acknowledged).unwrap();
                cut += u64::from(recovered.cut_bytes > 0);
                // What is written over the tail stands alone: nothing of the tail is found behind it.
                let next = recovered.last.map_or(0, |last| last.index.0 + 1);
                append(&log, vec![frame(9, next, 20)]).unwrap();
                drop(log);
                let (_, again) = open(&image, options.clone()).unwrap();
                assert_eq!(
                    (again.last, again.cut_bytes),
                    (Some(LogId::new(9, next)), 0),
                    "operation {at}, seed {seed}"
                );
            }
        }
        assert!(cut > 10, "torn tails were seen: {cut}");
    }
}

#[test]
fn every_flipped_byte_of_acknowledged_frames_is_refused() {
    let options = LogOptions {
        segment_bytes_max: 2_000,
        ..small(false)
    };
    let disk = SimDisk::new();
    let (log, _) = open(&disk, options.clone()).unwrap();
    let frames: Vec<Frame> = (0..12).map(|i| frame(1, i, 60 + i as usize)).collect();
    append(&log, frames.clone()).unwrap();
    drop(log);
    let log_dir = Path::new(DIR).join("log");
    let names = disk.list(&log_dir).unwrap();
    assert!(names.len() > 1);
    for name in names {
        let path = log_dir.join(name);
        for at in 0..disk.bytes(&path).unwrap().len() as u64 {
            let bad = disk.kill();
            assert!(bad.flip(&path, at, 1 << (at % 8)));
            let before = bad.bytes(&path);
            let error = match open(&bad, options.clone()) {
                Ok((log, _)) => panic!(
                    "{} byte {at}: opened up to {:?}",
                    path.display(),
                    log.last()
                ),
                Err(error) => error,
            };
            assert!(
                matches!(error, StoreError::Damaged { .. }),
                "byte {at}: {error}"
            );
            assert_eq!(bad.bytes(&path), before, "a refusal changes nothing");
        }
    }
}

#[test]
fn zeroed_sectors_of_acknowledged_frames_are_refused() {
    let options = small(false);
    let disk = SimDisk::new();
    let (log, _) = open(&disk, options.clone()).unwrap();
    append(&log, (0..6).map(|i| frame(1, i, 400)).collect()).unwrap();
    drop(log);
    let path = Path::new(DIR).join("log/0000000000000000.seg");
    let sectors = disk.bytes(&path).unwrap().len() as u64 / 512;
    for sector in 0..sectors {
        let bad = disk.kill();
        let file = bad
            .open(&path, super::super::disk::Open::READ_WRITE)
            .unwrap();
        file.zero_range(sector * 512, 512).unwrap();
        let error = open(&bad, options.clone()).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "sector {sector}: {error}"
        );
    }
}
