//! `scribe witness` as a process: what it prints, what it refuses, and `kill -9` at any moment.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rand::Rng as _;
use scribe_proof::note::Signature;
use scribe_proof::{VerifierKey, cosignature};

use crate::processes::{command, lasting_address, number, signal};
use crate::test_witness::ForkingLog;

const ORIGIN: &str = "example.com/log";

struct Process {
    child: Child,
    vkey: String,
    url: String,
}

fn arguments(dir: &Path, address: &str, more: &[&str]) -> Command {
    let log = ForkingLog::new(ORIGIN, 1);
    let mut command = command(dir);
    command
        .args(["witness", "--output", "json", "--http-addr", address])
        .args(["--name", "witness.example/w1", "--log", &log.vkey()])
        .args(more);
    command
}

impl Process {
    fn start(dir: &Path, address: &str, more: &[&str]) -> Process {
        let mut child = arguments(dir, address, more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).expect("it starts");
        Process {
            child,
            vkey: started["verifier_key"].as_str().unwrap().to_owned(),
            url: started["url"].as_str().unwrap().to_owned(),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body; `None` if the connection breaks.
fn post(address: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn it_prints_its_key_refuses_a_second_process_and_a_lost_state() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "127.0.0.1:0", &[]);
    let address = process.url.strip_prefix("http://").unwrap().to_owned();
    let key = VerifierKey::parse(&process.vkey).unwrap();
    assert_eq!(key.name(), "witness.example/w1");
    let log = ForkingLog::new(ORIGIN, 1);
    assert_eq!(post(&address, &log.request(0, 5, 0)).unwrap().0, 200);

    let refused = |more: &[&str]| {
        let output = arguments(dir.path(), "127.0.0.1:0", more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("is in use") || said.contains("another process"),
        "{said}"
    );
    let pid = process.child.id();
    signal(pid, "TERM");
    let mut process = process;
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    drop(process);

    std::fs::remove_dir_all(dir.path().join("witness-state")).unwrap();
    let (code, said) = refused(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("up to size 5 at least") && said.contains("--accept-lost-state"),
        "{said}"
    );
    let process = Process::start(dir.path(), "127.0.0.1:0", &["--accept-lost-state"]);
    assert_eq!(process.vkey, key.to_text());
    drop(process);
    let (code, said) = refused(&["--log", "nonsense"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("a log is `<verifier key> [<origin>]`"),
        "{said}"
    );
}

/// A log with two histories asks without pause while the witness is killed again and again. Whatever it ever answered is
/// one history, and no start forgets any of it.
#[test]
fn killed_again_and_again_it_never_goes_back_and_never_cosigns_two_histories() {
    let rounds = number("SCRIBE_WITNESS_KILLS", 12);
    let dir = tempfile::tempdir().unwrap();
    let address = lasting_address();
    let done = Arc::new(AtomicBool::new(false));
    // Largest size that was answered so far.
    let answered = Arc::new(AtomicU64::new(0));
    let asking: Vec<_> = [0_u8, 1]
        .into_iter()
        .map(|fork| {
            let (address, done, answered) =
                (address.clone(), Arc::clone(&done), Arc::clone(&answered));
            thread::spawn(move || {
                let log = ForkingLog::new(ORIGIN, 1);
                let mut cosigned: Vec<(u64, u8, String)> = Vec::new();
                let mut old = 0;
                let mut random = rand::rng();
                while !done.load(Ordering::Relaxed) {
                    // From leaf 4 on the histories differ: from there on one of the two gets nothing.
                    let size = old + random.random_range(0..3);
                    let size = size.max(4);
                    match post(&address, &log.request(old, size, fork)) {
                        Some((200, line)) => {
                            answered.fetch_max(size, Ordering::SeqCst);
                            cosigned.push((size, fork, line));
                            old = size;
                        }
                        Some((409, body)) => {
                            if let Ok(size) = body.trim_end().parse() {
                                old = size;
                            }
                        }
                        Some((422, _)) => {}
                        Some(other) => panic!("{other:?}"),
                        // Killed, or not up again yet.
                        None => thread::yield_now(),
                    }
                }
                cosigned
            })
        })
        .collect();
    let mut vkey = None;
    for round in 0..rounds {
        let floor = answered.load(Ordering::SeqCst);
        let process = Process::start(dir.path(), &address, &[]);
        let key = vkey.get_or_insert_with(|| process.vkey.clone());
        assert_eq!(*key, process.vkey);
        // What was answered before the start is known after it.
        let log = ForkingLog::new(ORIGIN, 1);
        let probe = log.request(2, 3, 0);
        loop {
            match post(&address, &probe) {
                Some((409, size)) => {
                    let size: u64 = size.trim_end().parse().unwrap();
                    assert!(size >= floor, "round {round}: {size} after {floor}");
                    break;
                }
                Some(other) => panic!("{other:?}"),
                None => thread::yield_now(),
            }
        }
        // Killed in the middle of work, as soon as some more was cosigned.
        let target =
            answered.load(Ordering::SeqCst).max(floor) + 1 + u64::try_from(round % 5).unwrap();
        while answered.load(Ordering::SeqCst) < target {
            thread::yield_now();
        }
        process.kill();
    }
    done.store(true, Ordering::Relaxed);
    let cosigned: Vec<_> = asking
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let key = VerifierKey::parse(&vkey.unwrap()).unwrap();
    let mut forks: BTreeMap<u64, u8> = BTreeMap::new();
    for (size, fork, line) in &cosigned {
        let text = ForkingLog::new(ORIGIN, 1)
            .signed(*size, *fork)
            .note()
            .text
            .clone();
        let line = Signature::parse_line(line).unwrap();
        cosignature::verify(&text, &key, &line).unwrap();
        let other = forks.insert(*size, *fork);
        assert!(
            other.is_none_or(|other| other == *fork),
            "two roots of size {size}"
        );
    }
    let histories: std::collections::BTreeSet<u8> = forks.values().copied().collect();
    assert_eq!(histories.len(), 1, "{forks:?}");
    assert!(cosigned.len() >= rounds, "{} cosignatures", cosigned.len());
    println!(
        "{rounds} kills, {} cosignatures, {} sizes",
        cosigned.len(),
        forks.len()
    );
}
