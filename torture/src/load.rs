//! Clients at work: writers, readers, a watcher, and one that collects every checkpoint.
//!
//! All of them go on through every fault, each through one node after the other. Nothing they see is forgotten; see
//! [`crate::record`].

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scribe_client::wire::WatchEvent;
use scribe_client::{Client, ErrorCode};
use scribe_proof::VerifierKey;
use tokio::task::JoinHandle;

use crate::node::client;
use crate::record::{Operation, Record, SLOTS};
use crate::trouble::{Result, harness, violation};

/// How long one attempt of a client may take. Shorter than a node's own deadline, so that a node that is cut off does
/// not hold its writers back for long: what it leaves open is settled through another one.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a write may stay unsettled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(150);
/// Bytes of each value while the load is heavy.
const HEAVY: usize = 128 * 1_024;
/// Between two rounds of all nodes.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at a node's checkpoint.
const COLLECT_EVERY: Duration = Duration::from_millis(300);
/// A reader's pause: reads are for what they show, the load is the writers'.
const READ_EVERY: Duration = Duration::from_millis(15);

/// What all clients of a cluster share.
#[derive(Debug)]
pub struct Shared {
    pub record: Record,
    /// Makes idempotency keys this run's own.
    name: String,
    urls: RwLock<Vec<String>>,
    clients: Mutex<HashMap<String, Client>>,
    stop: AtomicBool,
    pause: AtomicBool,
    /// Whether every value is long, so that disks and segments fill.
    heavy: AtomicBool,
    /// Writes refused because a disk is full.
    disk_full: AtomicU64,
    /// Writers between two operations while they are paused.
    resting: AtomicU64,
    pub reads: AtomicU64,
    pub reads_refused: AtomicU64,
    /// Reads that a node refused because what it should read is damaged.
    pub reads_damaged: AtomicU64,
    pub unknown: AtomicU64,
}

impl Shared {
    fn urls(&self) -> Vec<String> {
        let urls = self.urls.read();
        urls.unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Says where the nodes are from now on.
    pub fn set_urls(&self, urls: Vec<String>) {
        let mut known = self
            .urls
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *known = urls;
    }

    /// The one client of this node: its connections are shared by all.
    fn client(&self, url: &str) -> Client {
        let mut clients = self
            .clients
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let made = clients.entry(url.to_owned());
        made.or_insert_with(|| client(url, ATTEMPT).unwrap_or_else(|why| panic!("{why}")))
            .clone()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The clients of a cluster. They end when it is dropped.
#[derive(Debug)]
pub struct Load {
    pub shared: Arc<Shared>,
    writers: u32,
    tasks: Vec<JoinHandle<()>>,
}

/// How many clients there are.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    pub writers: u32,
    pub readers: u32,
}

impl Load {
    /// Clients that begin at once. Every checkpoint they see also goes to `notes`, off the nodes' disks.
    pub fn start(
        name: String,
        clients: Clients,
        urls: Vec<String>,
        key: VerifierKey,
        notes: File,
    ) -> Load {
        let shared = Arc::new(Shared {
            record: Record::new(clients.writers),
            name,
            urls: RwLock::new(urls),
            clients: Mutex::default(),
            stop: AtomicBool::new(false),
            pause: AtomicBool::new(false),
            heavy: AtomicBool::new(false),
            disk_full: AtomicU64::new(0),
            resting: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            reads_refused: AtomicU64::new(0),
            reads_damaged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        });
        let mut tasks = Vec::new();
        for writer in 0..clients.writers {
            tasks.push(tokio::spawn(write(Arc::clone(&shared), writer)));
        }
        for reader in 0..clients.readers {
            tasks.push(tokio::spawn(read(Arc::clone(&shared), reader)));
        }
        tasks.push(tokio::spawn(collect(Arc::clone(&shared), key, notes)));
        tasks.push(tokio::spawn(watch(Arc::clone(&shared))));
        Load {
            shared,
            writers: clients.writers,
            tasks,
        }
    }

    pub fn record(&self) -> &Record {
        &self.shared.record
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn grows_by(&self, writes: u64) -> Result<()> {
        let goal = self.record().acknowledged() + writes;
        let mut seen = (self.record().acknowledged(), Instant::now());
        while self.record().acknowledged() < goal {
            self.record().check()?;
            let now = self.record().acknowledged();
            if now != seen.0 {
                seen = (now, Instant::now());
            }
            if seen.1.elapsed() > SETTLE_PATIENCE {
                return violation(format!("no write was acknowledged for {SETTLE_PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whether every value is long from now on.
    pub fn heavy(&self, heavy: bool) {
        self.shared.heavy.store(heavy, Ordering::Relaxed);
    }

    /// How many writes were refused so far because a disk is full.
    pub fn refused_for_space(&self) -> u64 {
        self.shared.disk_full.load(Ordering::Relaxed)
    }

    /// Lets every writer settle what it is at, and then wait.
    pub async fn pause(&self) -> Result<()> {
        self.shared.pause.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while self.shared.resting.load(Ordering::Relaxed) < u64::from(self.writers) {
            self.record().check()?;
            if began.elapsed() > SETTLE_PATIENCE + ATTEMPT {
                return harness("writers do not rest");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Lets the writers go on.
    pub fn resume(&self) {
        self.shared.pause.store(false, Ordering::Relaxed);
        self.record().listen();
    }

    /// Ends all clients.
    pub async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One operation after the other, each settled before the next.
async fn write(shared: Arc<Shared>, writer: u32) {
    for n in 0.. {
        if shared.pause.load(Ordering::Relaxed) {
            shared.resting.fetch_add(1, Ordering::Relaxed);
            while shared.pause.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shared.resting.fetch_sub(1, Ordering::Relaxed);
        }
        let operation = Operation { writer, n };
        let key = operation.key();
        let filler = match shared.heavy.load(Ordering::Relaxed) {
            true => HEAVY,
            false => operation.filler(),
        };
        let value = operation.value(filler);
        let idempotency_key = format!("{}-{writer}-{n}", shared.name);
        let began = Instant::now();
        for attempt in u64::from(writer).. {
            if shared.stopped() {
                return;
            }
            let urls = shared.urls();
            let url = &urls[attempt as usize % urls.len()];
            let client = shared.client(url);
            let put = client
                .put(&key, value.clone())
                .idempotency_key(idempotency_key.clone());
            match put.send().await {
                Ok(appended) => {
                    shared.record.promised(operation, filler, &appended);
                    break;
                }
                Err(error) => {
                    if matches!(error, scribe_client::Error::OutcomeUnknown { .. }) {
                        shared.unknown.fetch_add(1, Ordering::Relaxed);
                    }
                    if error.code() == Some(ErrorCode::DiskFull) {
                        shared.disk_full.fetch_add(1, Ordering::Relaxed);
                    }
                    if began.elapsed() > SETTLE_PATIENCE {
                        let text = format!(
                            "{operation:?} is not settled after {SETTLE_PATIENCE:?}: {error}"
                        );
                        shared.record.violated(text);
                        return;
                    }
                    // Another node at once, and all of them again after a pause.
                    if (attempt - u64::from(writer) + 1) % urls.len() as u64 == 0 {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Linearizable reads: what is read is no older than what was acknowledged before the read began.
async fn read(shared: Arc<Shared>, reader: u32) {
    let mut rng = StdRng::seed_from_u64(u64::from(reader));
    while !shared.stopped() {
        tokio::time::sleep(READ_EVERY).await;
        let (writer, slot) = (
            rng.random_range(0..shared.record.writers()),
            rng.random_range(0..SLOTS),
        );
        let Some(newest) = shared.record.newest(writer, slot) else {
            continue;
        };
        let urls = shared.urls();
        let url = urls[rng.random_range(0..urls.len())].clone();
        let key = Operation { writer, n: slot }.key();
        let client = shared.client(&url);
        match client.get(&key).send().await {
            Ok(Some(read)) => {
                shared.reads.fetch_add(1, Ordering::Relaxed);
                let value = String::from_utf8_lossy(&read.bytes);
                let wrote = Operation::of_value(&value);
                let holds = wrote.is_some_and(|wrote| wrote.key() == key && wrote.n >= newest.n)
                    && read.head.index >= newest.index;
                if !holds {
                    shared.record.violated(format!(
                        "{url} reads `{key}` as {wrote:?} at leaf index {}, though {newest:?} was acknowledged before",
                        read.head.index
                    ));
                }
            }
            Ok(None) => shared.record.violated(format!(
                "{url} has no `{key}`, though {newest:?} was acknowledged before"
            )),
            Err(error) => {
                let counter = match error.code() {
                    Some(ErrorCode::Damaged) => &shared.reads_damaged,
                    _ => &shared.reads_refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Fetches the checkpoint of every node, over and over, and keeps each.
async fn collect(shared: Arc<Shared>, key: VerifierKey, mut notes: File) {
    while !shared.stopped() {
        let urls = shared.urls();
        let asked = urls.iter().map(|url| {
            let client = shared.client(url);
            async move { client.checkpoint_text().await }
        });
        let answers = futures::future::join_all(asked).await;
        for (url, answer) in urls.iter().zip(answers) {
            let Ok(note) = answer else { continue };
            if shared.record.checkpoint(url, &note, &key) {
                let kept = writeln!(notes, "{note}");
                kept.unwrap_or_else(|error| panic!("cannot keep a checkpoint: {error}"));
            }
        }
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

/// Follows the ledger through one node after the other: nothing is missed, nothing comes twice.
async fn watch(shared: Arc<Shared>) {
    let mut next = 0;
    for attempt in 0.. {
        if shared.stopped() {
            return;
        }
        let urls = shared.urls();
        let url = urls[attempt % urls.len()].clone();
        if let Ok(mut events) = shared.client(&url).watch().from(next).open().await {
            while let Ok(Some(Ok(event))) = tokio::time::timeout(ATTEMPT, events.next()).await {
                let (index, due) = (event.index(), next);
                match event {
                    WatchEvent::Entry(entry) if index == due => {
                        shared.record.watched(&entry);
                        next += 1;
                    }
                    WatchEvent::Progress(_) if index + 1 == due => {}
                    _ => {
                        shared.record.violated(format!(
                            "a watch of {url} gives entry {index} where {due} is due"
                        ));
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
