//! Whole witnesses, on a real directory and on a disk that crashes: what is remembered, what a loss looks like, and that
//! no cosignature is ever out that a later start does not know of.

use std::path::Path;

use scribe_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use scribe_proof::consistency;
use scribe_proof::hash::{Hash, leaf_hash};
use scribe_proof::tree::MemoryTree;

use super::*;
use crate::store::sim_disk::{DiskFault, DiskOperation, SimDisk};

const ORIGIN: &str = "example.com/log";

fn log_key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap()
}

fn tree(size: u64, fork: u8) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for at in 0..size {
        tree.append(leaf_hash(&[if at < 3 { 0 } else { fork }, at as u8]));
    }
    tree
}

fn request(old: u64, size: u64, fork: u8) -> Vec<u8> {
    let (old, new) = (TreeSize::new(old), TreeSize::new(size));
    let tree = tree(size, fork);
    let checkpoint = Checkpoint::new(ORIGIN, new, tree.root());
    AddCheckpoint {
        old,
        proof: consistency::prove(&tree, old, new).unwrap(),
        checkpoint: SignedCheckpoint::sign(checkpoint, &[&log_key()]).unwrap(),
    }
    .to_text()
    .unwrap()
    .into_bytes()
}

fn options(dir: &Path) -> WitnessOptions {
    WitnessOptions {
        key_dir: dir.join("keys"),
        state_dir: dir.join("state"),
        name: Some("witness.example/w".to_owned()),
        logs: vec![FollowedLog {
            origin: ORIGIN.to_owned(),
            keys: vec![log_key().verifier_key().clone()],
        }],
        accept_lost_state: false,
        world: World::real(),
    }
}

fn size_of(witness: &Witness) -> u64 {
    witness.sizes()[0].1.get()
}

async fn cosigned(witness: &Witness, old: u64, size: u64) -> Signature {
    match witness.add_checkpoint(&request(old, size, 0)).await {
        Outcome::Cosigned(signature) => signature,
        other => panic!("{old} to {size}: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_cosigned_is_remembered_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    let signature = cosigned(&witness, 0, 5).await;
    let text = format!("{ORIGIN}\n5\n{}\n", tree(5, 0).root().to_base64());
    cosignature::verify(&text, witness.verifier_key(), &signature).unwrap();
    let note = witness.newest(&options(dir.path()).logs[0].id()).unwrap();
    let key = witness.verifier_key().clone();
    drop(witness);

    let witness = Witness::open(options(dir.path())).unwrap();
    assert_eq!(*witness.verifier_key(), key);
    assert_eq!(size_of(&witness), 5);
    assert_eq!(
        witness.newest(&options(dir.path()).logs[0].id()).unwrap(),
        note
    );
    // The log's signature and the witness's, nothing else.
    let signed = SignedCheckpoint::parse(&note).unwrap();
    assert_eq!(signed.note().signatures.len(), 2);
    signed.verify(log_key().verifier_key()).unwrap();
    let refused = witness.add_checkpoint(&request(0, 9, 0)).await;
    assert!(
        matches!(refused, Outcome::Refused(Refused::Conflict { size, .. }) if size.get() == 5),
        "{refused:?}"
    );
    cosigned(&witness, 5, 9).await;
}

#[tokio::test]
async fn a_key_of_another_name_and_a_shared_key_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Witness::open(options(dir.path())).unwrap());
    let mut other = options(dir.path());
    other.name = Some("witness.example/other".to_owned());
    let error = Witness::open(other).unwrap_err();
    assert!(error.hint().unwrap().contains("--name"), "{error}");

    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.path().join("keys").join(WITNESS_KEY_FILE);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Witness::open(options(dir.path())).unwrap_err();
    assert!(
        error.to_string().contains("readable by its owner only"),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_is_made_from_the_key_if_none_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut unnamed = options(dir.path());
    unnamed.name = None;
    let witness = Witness::open(unnamed.clone()).unwrap();
    let name = witness.verifier_key().name().to_owned();
    assert!(name.starts_with("scribe.invalid/witness/"), "{name}");
    drop(witness);
    assert_eq!(Witness::open(unnamed).unwrap().verifier_key().name(), name);
}

#[tokio::test]
async fn two_processes_never_have_one_key_or_one_state() {
    let dir = tempfile::tempdir().unwrap();
    let _witness = Witness::open(options(dir.path())).unwrap();
    let mut same_key = options(dir.path());
    same_key.state_dir = dir.path().join("other-state");
    let mut same_state = options(dir.path());
    same_state.key_dir = dir.path().join("other-keys");
    for second in [same_key, same_state] {
        let error = Witness::open(second).unwrap_err();
        assert!(matches!(error, WitnessStartError::Lock(_)), "{error}");
    }
}

/// Each way to lose the state: the start says so, and goes on only if told to.
#[tokio::test]
async fn a_lost_state_is_never_taken_for_none() {
    type Lose = fn(&Path, &Path);
    let losses: [(&str, Lose); 4] = [
        ("the directory", |state, _| {
            std::fs::remove_dir_all(state).unwrap();
        }),
        ("the file", |_, file| std::fs::remove_file(file).unwrap()),
        ("an older copy", |state, file| {
            std::fs::copy(state.with_file_name("older"), file).unwrap();
        }),
        ("the copy of a beginning", |state, file| {
            std::fs::copy(state.with_file_name("fresh"), file).unwrap();
        }),
    ];
    for (what, lose) in losses {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let file = state.join(format!("{}.state", options(dir.path()).logs[0].id()));
        let witness = Witness::open(options(dir.path())).unwrap();
        std::fs::copy(&file, dir.path().join("fresh")).unwrap();
        cosigned(&witness, 0, 5).await;
        std::fs::copy(&file, dir.path().join("older")).unwrap();
        cosigned(&witness, 5, 9).await;
        witness.close().await.unwrap();
        drop(witness);

        lose(&state, &file);
        let error = Witness::open(options(dir.path())).unwrap_err();
        assert!(
            matches!(error, WitnessStartError::Lost { floor, .. } if floor.get() == 9),
            "{what}: {error}"
        );
        assert!(error.hint().unwrap().contains("--accept-lost-state"));
        // Refusing changed nothing: it is refused again.
        assert!(Witness::open(options(dir.path())).is_err(), "{what}");

        let mut accepting = options(dir.path());
        accepting.accept_lost_state = true;
        let witness = Witness::open(accepting).unwrap();
        let at = size_of(&witness);
        cosigned(&witness, at, 7).await;
        drop(witness);
        // What was accepted once need not be accepted again.
        drop(Witness::open(options(dir.path())).unwrap());
    }
}

#[tokio::test]
async fn a_log_that_was_never_cosigned_may_not_disappear_either() {
    let dir = tempfile::tempdir().unwrap();
    drop(Witness::open(options(dir.path())).unwrap());
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let error = Witness::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, WitnessStartError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_key_made_beforehand_begins_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::cosigner_from_seed("witness.example/w", &[7; 32]).unwrap();
    create_dir(&dir.path().join("keys")).unwrap();
    crate::keys::write_new_key(&dir.path().join("keys").join(WITNESS_KEY_FILE), &key).unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    assert_eq!(witness.verifier_key(), key.verifier_key());
    cosigned(&witness, 0, 5).await;
}

#[tokio::test]
async fn a_log_that_is_dropped_and_followed_again_is_still_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    cosigned(&witness, 0, 5).await;
    witness.close().await.unwrap();
    drop(witness);
    let other = SigningKey::from_seed("example.com/other", &[2; 32]).unwrap();
    let mut without = options(dir.path());
    without.logs = vec![FollowedLog {
        origin: "example.com/other".to_owned(),
        keys: vec![other.verifier_key().clone()],
    }];
    drop(Witness::open(without).unwrap());
    assert_eq!(size_of(&Witness::open(options(dir.path())).unwrap()), 5);
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert!(Witness::open(options(dir.path())).is_err());
}

/// Every single bit of a state, flipped: never taken for what was cosigned.
#[tokio::test]
async fn a_damaged_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    cosigned(&witness, 0, 5).await;
    let path = dir
        .path()
        .join("state")
        .join(format!("{}.state", options(dir.path()).logs[0].id()));
    let key = witness.verifier_key().clone();
    drop(witness);
    let good = std::fs::read(&path).unwrap();
    let log = &options(dir.path()).logs[0];
    let states = StateDir::create(Arc::new(RealDisk), &dir.path().join("state")).unwrap();
    let whole = states.load(log, &key).unwrap();
    let State::Cosigned { head, .. } = &whole else {
        panic!("{whole:?}");
    };
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, &damaged).unwrap();
            match states.load(log, &key) {
                // The log's own signature is carried along; what is remembered is under the witness's.
                Ok(State::Cosigned { head: found, .. }) => assert_eq!(found, *head, "byte {at}"),
                Ok(other) => panic!("byte {at} bit {bit}: {other:?}"),
                Err(_) => {}
            }
        }
    }
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).unwrap();
        match states.load(log, &key) {
            Err(_) => {}
            // Cut at the empty line it says that nothing was cosigned: the floor beside the key is what notices.
            Ok(State::Fresh) => assert!(good[..cut].ends_with(b"\n\n"), "cut at {cut}"),
            Ok(other) => panic!("cut at {cut}: {other:?}"),
        }
    }
    std::fs::write(&path, &good[..good.len() - 9]).unwrap();
    let error = Witness::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, WitnessStartError::Damaged(_)), "{error}");
    // The state of another key is no memory of this one.
    std::fs::write(&path, &good).unwrap();
    let other = SigningKey::cosigner_from_seed("witness.example/w", &[9; 32]).unwrap();
    let error = states.load(log, other.verifier_key()).unwrap_err();
    assert!(error.contains("state of another key"), "{error}");
}

#[tokio::test]
async fn a_disk_that_cannot_write_costs_one_answer_and_one_that_cannot_sync_stops_the_witness() {
    let harmless = [DiskOperation::Create, DiskOperation::Write];
    let fatal = [
        DiskOperation::Sync,
        DiskOperation::Rename,
        DiskOperation::SyncDir,
    ];
    for kind in harmless.into_iter().chain(fatal) {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        let mut options = options(dir.path());
        options.state_dir = "/state".into();
        let witness = Witness::open_on(options.clone(), Arc::new(disk.clone())).unwrap();
        cosigned(&witness, 0, 5).await;
        disk.fail(&[kind], 0, DiskFault::Full);
        let failed = witness.add_checkpoint(&request(5, 9, 0)).await;
        assert!(matches!(failed, Outcome::Failed(_)), "{kind:?}: {failed:?}");
        // What is shown is what is remembered: nothing of the failed one.
        assert_eq!(size_of(&witness), 5, "{kind:?}");
        let again = witness.add_checkpoint(&request(5, 8, 0)).await;
        if harmless.contains(&kind) {
            assert!(matches!(again, Outcome::Cosigned(_)), "{kind:?}: {again:?}");
        } else {
            assert!(matches!(again, Outcome::Failed(_)), "{kind:?}: {again:?}");
            witness.failed().await;
        }
    }
}

/// A power cut after every single disk operation, with many ways for what was not synced to survive: whatever left the
/// witness before is known to it afterwards, and what it cosigns then extends all of it.
#[tokio::test]
async fn no_power_cut_makes_it_forget_or_fork() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.state_dir = "/state".into();
    let sizes = [4_u64, 7, 7, 9];
    let whole = SimDisk::new();
    drop(run(&options, &whole, &sizes).await);
    let operations = whole.operations();
    assert!(operations > 10, "{operations} operations");
    let mut cut_before_the_last = 0;
    for crash_at in 0..=operations {
        let disk = SimDisk::new();
        disk.crash_at(crash_at);
        let keys = options.key_dir.clone();
        std::fs::remove_dir_all(&keys).ok();
        let given = run(&options, &disk, &sizes).await;
        // What the key directory says at the crash must fit every state the crash may leave.
        let at_crash: Vec<_> = std::fs::read_dir(&keys)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
            .collect();
        if given.len() < sizes.len() {
            cut_before_the_last += 1;
        }
        for seed in 0..12 {
            let disk = disk.crash(seed);
            std::fs::remove_dir_all(&keys).unwrap();
            create_dir(&keys).unwrap();
            for (path, text) in &at_crash {
                crate::keys::put_private(path, text.as_bytes()).unwrap();
            }
            let witness =
                Witness::open_on(options.clone(), Arc::new(disk)).unwrap_or_else(|error| {
                    panic!("crash at {crash_at}, seed {seed}: {error}");
                });
            let at = size_of(&witness);
            let last = given.last().map_or(0, |(size, _)| *size);
            assert!(
                at >= last,
                "crash at {crash_at}, seed {seed}: {at} after {last}"
            );
            if at > 3 {
                let fork = witness.add_checkpoint(&request(at, 12, 1)).await;
                let fork_refused = matches!(&fork, Outcome::Refused(refused) if refused.is_fork());
                assert!(fork_refused, "crash at {crash_at}, seed {seed}: {fork:?}");
            }
            cosigned(&witness, at, 12).await;
            drop(witness);
        }
    }
    assert!(cut_before_the_last > 8, "the cuts came too late");
}

/// Opens a witness and asks for these sizes one after another, until the disk is gone. What it cosigned.
async fn run(options: &WitnessOptions, disk: &SimDisk, sizes: &[u64]) -> Vec<(u64, Hash)> {
    let mut given = Vec::new();
    let Ok(witness) = Witness::open_on(options.clone(), Arc::new(disk.clone())) else {
        return given;
    };
    let mut old = 0;
    for size in sizes {
        match witness.add_checkpoint(&request(old, *size, 0)).await {
            Outcome::Cosigned(_) => given.push((*size, tree(*size, 0).root())),
            Outcome::Failed(_) => return given,
            other => panic!("{other:?}"),
        }
        old = *size;
    }
    given
}

/// Many at once, of two histories: those that are cosigned are one chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_once_are_decided_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for round in 0..12_u64 {
        let witness = witness.clone();
        asked.spawn(async move {
            // All extend nothing: one may win.
            let (size, fork) = (4 + round, (round % 2) as u8);
            let outcome = witness.add_checkpoint(&request(0, size, fork)).await;
            (size, fork, outcome)
        });
    }
    let mut won = Vec::new();
    while let Some(done) = asked.join_next().await {
        let (size, fork, outcome) = done.unwrap();
        match outcome {
            Outcome::Cosigned(_) => won.push((size, fork)),
            Outcome::Refused(Refused::Conflict { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(size_of(&witness), won[0].0);
}

#[tokio::test]
async fn a_crowd_at_one_log_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(options(dir.path())).unwrap();
    let followed = witness.inner.logs.values().next().unwrap();
    let busy = Arc::clone(&followed.last).lock_owned().await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..limits::WITNESS_WAITING_PER_LOG_MAX {
        let witness = witness.clone();
        waiting.spawn(async move { witness.add_checkpoint(&request(0, 5, 0)).await });
    }
    while followed.room.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let turned_away = witness.add_checkpoint(&request(0, 5, 0)).await;
    assert_eq!(turned_away, Outcome::Busy);
    // Those without the log's signature never get that far.
    let unsigned = String::from_utf8(request(0, 5, 0))
        .unwrap()
        .replace("\n5\n", "\n6\n");
    let refused = witness.add_checkpoint(unsigned.as_bytes()).await;
    assert!(
        matches!(refused, Outcome::Refused(Refused::NotSigned(_))),
        "{refused:?}"
    );
    drop(busy);
    let mut cosigned = 0;
    while let Some(done) = waiting.join_next().await {
        cosigned += usize::from(matches!(done.unwrap(), Outcome::Cosigned(_)));
    }
    assert_eq!(cosigned, 1, "the first; the others are told the size");
}
