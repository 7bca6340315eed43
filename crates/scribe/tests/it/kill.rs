//! `kill -9` at random moments under load, on the real binary over real HTTP.
//!
//! A process that dies keeps what it wrote to the page cache, so this finds what a crash in the middle of anything
//! leaves behind, not a missing sync: that is [`crate::crash`]'s part. `SCRIBE_KILL_ROUNDS` sets the rounds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng;
use scribe_client::{Client, RetryPolicy};

const WRITERS: usize = 64;

/// A server process; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub started_in: Duration,
}

impl Server {
    pub fn start(directory: &Path) -> Self {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_scribe"))
            .args(["serve", "--http-addr", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(directory.join("data"))
            .arg("--key-dir")
            .arg(directory.join("keys"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the server ended before it was ready:\n{said}")
            };
            if let Some(url) = line.trim().strip_prefix("URL") {
                break url.trim().to_owned();
            }
            said.push_str(&line);
            said.push('\n');
        };
        // Keeps reading, so that the server never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            url,
            started_in: started.elapsed(),
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was acknowledged: leaf hash by index.
type Acknowledged = Arc<Mutex<BTreeMap<u64, String>>>;

fn client(url: &str) -> Client {
    // A dead server is noticed soon; what was not answered by then counts as unknown.
    let retry = RetryPolicy {
        deadline: Duration::from_millis(500),
        ..RetryPolicy::default()
    };
    Client::builder(url).retry(retry).build().unwrap()
}

/// Writes until the server is gone.
async fn write_until_killed(url: String, round: usize, writer: usize, acknowledged: Acknowledged) {
    let client = client(&url);
    for n in 0.. {
        let key = format!("writer {writer}/{}", n % 100);
        let value = format!("round {round} write {n} {}", "x".repeat(n % 300));
        match client.put(&key, value).send().await {
            Ok(appended) => {
                let before = acknowledged
                    .lock()
                    .insert(appended.index, appended.leaf_hash.to_string());
                assert_eq!(before, None, "index {} was given twice", appended.index);
            }
            Err(_) => return,
        }
    }
}

/// Everything acknowledged from `from` on is in the ledger, unchanged. Returns the tree size.
async fn verify(url: &str, from: u64, acknowledged: &Acknowledged) -> u64 {
    let client = client(url);
    let expected = acknowledged.lock().clone();
    let mut next = from;
    let mut found = 0;
    loop {
        let page = client.entries(next).limit(1_000).send().await.unwrap();
        if page.entries.is_empty() {
            break;
        }
        for entry in page.entries {
            assert_eq!(entry.index, next, "leaf indexes are contiguous");
            if let Some(leaf_hash) = expected.get(&next) {
                assert_eq!(
                    &entry.leaf_hash.to_string(),
                    leaf_hash,
                    "acknowledged write {next} was changed"
                );
                found += 1;
            }
            next += 1;
        }
    }
    assert_eq!(
        found,
        expected.range(from..).count(),
        "acknowledged writes are missing; the ledger ends at {next}"
    );
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    let rounds: usize = std::env::var("SCRIBE_KILL_ROUNDS").map_or(5, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let acknowledged = Acknowledged::default();
    let mut verified = 0;
    let mut server = Server::start(directory.path());
    let mut starts = Vec::new();
    for round in 0..rounds {
        let before = acknowledged.lock().len();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(write_until_killed(
                    server.url.clone(),
                    round,
                    writer,
                    acknowledged,
                ))
            })
            .collect();
        // The random moment is the test: from before the first acknowledgement to well into sealing and publishing.
        let moment = Duration::from_millis(rand::rng().random_range(1..700));
        tokio::time::sleep(moment).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        let check = Command::new(env!("CARGO_BIN_EXE_scribe"))
            .args(["repair", "--check", "--data-dir"])
            .arg(directory.path().join("data"))
            .output()
            .unwrap();
        assert!(
            check.status.success(),
            "round {round}: {}",
            String::from_utf8_lossy(&check.stderr)
        );
        server = Server::start(directory.path());
        starts.push(server.started_in);
        let size = verify(&server.url, verified, &acknowledged).await;
        let added = acknowledged.lock().len() - before;
        println!(
            "round {round}: killed after {moment:?}, {added} acknowledged, ledger {size}, started in {:?}",
            server.started_in
        );
        verified = size;
    }
    let total = verify(&server.url, 0, &acknowledged).await;
    starts.sort();
    println!(
        "{rounds} rounds, {} acknowledged, all present in a ledger of {total}; start p50 {:?}, max {:?}",
        acknowledged.lock().len(),
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
    assert!(
        !acknowledged.lock().is_empty(),
        "the load must have been acknowledged something"
    );
}
