//! What the storage engine costs: ratios to the raw disk in the same run, bytes written, and the parts.
//!
//! `cargo bench -p scribe --bench storage [-- seconds | -- parts]`; the directory is `SCRIBE_BENCH_DIR` or the system's temporary
//! one, which must be on a real disk for the numbers to mean anything. The engine here is encoding, hashing, log,
//! apply, sealing and indexing, without consensus and network. Raw is one `write` and one `fdatasync` per batch to a
//! growing file. Both run alternately, three times; the table shows medians.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scribe::ledger::batch::{Batch, BatchBuilder};
use scribe::store::frame::{Frame, FrameKind, LogId, LogIndex};
use scribe::store::log::{Flushed, LogIdentity};
use scribe::store::real_disk::RealDisk;
use scribe::store::{Effects, LeafEffect, ScanRange, Store, StoreOptions};
use scribe_proof::hash::{Hash, leaf_hash, sha256};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Prev};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Versions per key, on average.
const VERSIONS_PER_KEY: u64 = 5;

fn main() -> Outcome<()> {
    if std::env::args().any(|argument| argument == "parts") {
        return parts();
    }
    let seconds = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    println!("engine against raw append + fdatasync, {seconds} s each, medians of 3");
    println!(
        "{:>14} {:>11} {:>11} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "values", "raw/s", "engine/s", "ratio", "written/B", "p50", "p99", "max"
    );
    for (value, batch, in_flight) in [(256, 256, 1), (256, 256, 4), (4_096, 64, 1), (4_096, 64, 4)]
    {
        let mut runs = Vec::new();
        for _ in 0..3 {
            let raw = raw(value, batch, time)?;
            let engine = engine(value, batch, in_flight, time)?;
            runs.push((engine.rate / raw, raw, engine));
        }
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, raw, engine) = &runs[1];
        println!(
            "{:>14} {:>11.0} {:>11.0} {:>6.2} {:>9.2} {:>9} {:>9} {:>9}",
            format!("{value} B x {batch}/{in_flight}"),
            raw,
            engine.rate,
            ratio,
            engine.written_per_byte,
            us(engine.latencies[engine.latencies.len() / 2]),
            us(engine.latencies[engine.latencies.len() * 99 / 100]),
            us(engine.latencies[engine.latencies.len() - 1]),
        );
    }
    parts()
}

fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

fn directory() -> Outcome<tempfile::TempDir> {
    Ok(match std::env::var_os("SCRIBE_BENCH_DIR") {
        Some(path) => tempfile::tempdir_in(path)?,
        None => tempfile::tempdir()?,
    })
}

/// Records per second.
fn raw(value: usize, batch: usize, time: Duration) -> Outcome<f64> {
    let dir = directory()?;
    let mut file = File::create(dir.path().join("raw"))?;
    let bytes = vec![0x5a; value * batch];
    let started = Instant::now();
    let mut records = 0;
    while started.elapsed() < time {
        file.write_all(&bytes)?;
        file.sync_data()?;
        records += batch;
    }
    Ok(records as f64 / started.elapsed().as_secs_f64())
}

struct Engine {
    rate: f64,
    written_per_byte: f64,
    /// From handing a frame to the log until it is on disk, sorted.
    latencies: Vec<Duration>,
}

/// Makes frames as the leader would: encode, commit to the value, hash.
struct Maker {
    random: u64,
    next_leaf: u64,
    next_index: u64,
    value: Vec<u8>,
    record_bytes: u64,
}

impl Maker {
    fn new(value: usize) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            next_leaf: 0,
            next_index: 0,
            value: vec![0x33; value],
            record_bytes: 0,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn frame(&mut self, count: usize) -> Outcome<(Frame, Effects)> {
        let mut batch = BatchBuilder::new();
        let mut hashes = Vec::with_capacity(count);
        let mut bytes = Vec::with_capacity(256);
        for _ in 0..count {
            let random = self.random();
            // Keys grow in number with the ledger, spread evenly.
            let key = sha256(&(random % (self.next_leaf / VERSIONS_PER_KEY + 1_000)).to_be_bytes());
            self.value[..8].copy_from_slice(&random.to_be_bytes());
            let salt = [random as u8; 16];
            let leaf = Leaf {
                kind: LeafKind::Put,
                subtype: 0,
                timestamp_ms: 1_700_000_000_000 + self.next_leaf / 100,
                transaction_position: 0,
                transaction_length: 1,
                prev: Prev::NotAsserted,
                commitment: scribe_proof::commitment(&salt, &[0, 0], &self.value),
                key: key.as_bytes(),
                author: b"",
                body: b"",
            };
            bytes.clear();
            leaf.encode_into(&mut bytes)?;
            hashes.push((leaf_hash(&bytes), leaf.timestamp_ms));
            batch.push(&bytes, Some((&salt, &[0, 0], &self.value)));
            self.record_bytes += (bytes.len() + 18 + 2 + self.value.len()) as u64;
        }
        let (public, private) = batch.finish();
        let frame = Frame {
            log_id: LogId {
                term: 1,
                index: LogIndex(self.next_index),
            },
            kind: FrameKind::Entries,
            sequencing_term: 1,
            first_leaf: LeafIndex::new(self.next_leaf),
            count: count as u32,
            public,
            private,
        };
        self.next_index += 1;
        self.next_leaf += count as u64;
        let effects = effects(&frame, &hashes)?;
        Ok((frame, effects))
    }
}

fn effects(frame: &Frame, hashes: &[(Hash, u64)]) -> Outcome<Effects> {
    let (public, private) = (frame.public.clone(), frame.private.clone());
    let batch = Batch::parse(frame.count as usize, public, private)?;
    let mut leaves = Vec::with_capacity(hashes.len());
    for (slot, (hash, timestamp_ms)) in hashes.iter().enumerate() {
        let bytes = batch.leaf(slot).unwrap_or_default();
        let leaf = Leaf::parse(&bytes)?;
        leaves.push(LeafEffect {
            leaf_hash: *hash,
            key: bytes.slice_ref(leaf.key),
            kind: leaf.kind,
            timestamp_ms: *timestamp_ms,
        });
    }
    Ok(Effects::Entries(leaves, Vec::new()))
}

fn open(dir: &Path) -> Outcome<Store> {
    let identity = LogIdentity {
        cluster_id: [1; 16],
        node_id: 1,
    };
    let (store, _) = Store::open(Arc::new(RealDisk), dir, identity, StoreOptions::default())?;
    Ok(store)
}

fn apply(store: &Store, frame: &Frame, effects: Effects) -> Outcome<()> {
    let position = store
        .log()
        .position(frame.log_id.index)
        .ok_or("no position")?;
    store.apply(frame, position, effects)?;
    Ok(())
}

fn engine(value: usize, batch: usize, in_flight: usize, time: Duration) -> Outcome<Engine> {
    let dir = directory()?;
    let store = open(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut maker = Maker::new(value);
    let mut latencies = Vec::new();
    let (sender, flushed) = mpsc::channel();
    let mut waiting = std::collections::VecDeque::new();
    let written_before = written_bytes()?;
    let started = Instant::now();
    let mut acknowledged = 0;
    loop {
        let end = started.elapsed() >= time;
        let made = if end { None } else { Some(maker.frame(batch)?) };
        // Encoding ran while the frames in flight were synced; now wait for room.
        while waiting.len() >= in_flight || (end && !waiting.is_empty()) {
            let latency: Duration = flushed.recv()??;
            latencies.push(latency);
            let (frame, effects) = waiting.pop_front().ok_or("nothing waits")?;
            runtime.block_on(store.apply_room());
            apply(&store, &frame, effects)?;
            acknowledged += batch;
        }
        let Some((frame, effects)) = made else {
            break;
        };
        let sender = sender.clone();
        let handed = Instant::now();
        let done = Flushed::new(move |outcome: std::io::Result<()>| {
            let _ = sender.send(outcome.map(|()| handed.elapsed()));
        });
        store.log().append(vec![frame.clone()], done)?;
        waiting.push_back((frame, effects));
    }
    let rate = acknowledged as f64 / started.elapsed().as_secs_f64();
    while store.segments_waiting() > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let written = written_bytes()? - written_before;
    store.shutdown();
    latencies.sort();
    Ok(Engine {
        rate,
        written_per_byte: written as f64 / maker.record_bytes as f64,
        latencies,
    })
}

/// Bytes this process caused to be written, `write_bytes` of `/proc/self/io`.
fn written_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes")?.parse()?)
}

/// Single operations, in a store with a few sealed segments.
fn parts() -> Outcome<()> {
    let dir = directory()?;
    let store = open(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut maker = Maker::new(256);
    let (mut spent, mut frames, mut applied) = (Duration::ZERO, Vec::new(), 0u32);
    while store.log().sealed().len() < 4 {
        let (frame, effects) = maker.frame(256)?;
        store.log().append(vec![frame.clone()], Flushed::ignore())?;
        runtime.block_on(store.apply_room());
        let position = store
            .log()
            .position(frame.log_id.index)
            .ok_or("no position")?;
        let (started, wall) = (thread_time()?, Instant::now());
        store.apply(&frame, position, effects)?;
        frames.push(wall.elapsed());
        spent += thread_time()? - started;
        applied += 256;
    }
    println!(
        "\nparts, 256 B values, {applied} entries, {} sealed segments",
        store.log().sealed().len()
    );
    let show =
        |what: &str, time: Duration| println!("{what:>42} {:>9.2} us", time.as_secs_f64() * 1e6);
    show("apply, per entry of a 256-entry frame", spent / applied);
    // By the wall clock: what readers may wait, while sealing goes on. The machine's other work shows here, too.
    frames.sort();
    show(
        "apply of a frame, p50 by the clock",
        frames[frames.len() / 2],
    );
    show(
        "apply of a frame, p99 by the clock",
        frames[frames.len() * 99 / 100],
    );
    show(
        "apply of a frame, p99.9 by the clock",
        frames[frames.len() * 999 / 1000],
    );

    let size = store.applied().tree_size;
    let keys: Vec<Bytes> = (0..size.get() / 6)
        .map(|i| Bytes::copy_from_slice(sha256(&i.to_be_bytes()).as_bytes()))
        .collect();
    let hot = &keys[..1_000.min(keys.len())];
    let get = |key: &Bytes| -> Outcome<()> {
        if let Some(version) = store.latest(key, size)? {
            std::hint::black_box(store.entry_of(&version)?);
        }
        Ok(())
    };
    hot.iter().try_for_each(get)?;
    show(
        "latest + entry, hot key",
        each(100_000, |i| get(&hot[i % hot.len()]))?,
    );
    let newest = &store.applied();
    let latest = |i: usize| -> Outcome<()> {
        let key = &keys[(i * 7_919) % keys.len()];
        std::hint::black_box(store.latest(key, TreeSize::new(newest.tree_size.get() / 2))?);
        Ok(())
    };
    show(
        "latest as of half the ledger, any key",
        each(20_000, latest)?,
    );
    show(
        "latest + entry, any key",
        each(20_000, |i| get(&keys[(i * 104_729) % keys.len()]))?,
    );
    let entry = |i: usize| -> Outcome<()> {
        let index = (i as u64).wrapping_mul(2_654_435_761) % size.get();
        std::hint::black_box(store.entry(LeafIndex::new(index))?);
        Ok(())
    };
    show("entry by index, any", each(20_000, entry)?);
    let scan = |i: usize| -> Outcome<()> {
        let range = ScanRange {
            start: keys[(i * 31) % keys.len()].to_vec(),
            end: None,
        };
        std::hint::black_box(store.scan(&range, size, 100)?);
        Ok(())
    };
    show("scan of 100 keys", each(500, scan)?);
    let root = |i: usize| -> Outcome<()> {
        let at = (i as u64).wrapping_mul(48_271) % size.get();
        std::hint::black_box(store.root_at(TreeSize::new(at))?);
        Ok(())
    };
    show("root at any size", each(5_000, root)?);
    let started = Instant::now();
    store.check(|_, _| {})?;
    show("check, per entry", started.elapsed() / applied);
    let started = Instant::now();
    store.rebuild_index(|_, _| {})?;
    show("index rebuild, per entry", started.elapsed() / applied);
    let started = Instant::now();
    store.shutdown();
    drop(store);
    show("shutdown", started.elapsed());
    let started = Instant::now();
    let store = open(dir.path())?;
    show("open", started.elapsed());
    store.shutdown();
    Ok(())
}

fn each(count: usize, mut run: impl FnMut(usize) -> Outcome<()>) -> Outcome<Duration> {
    let started = thread_time()?;
    for i in 0..count {
        run(i)?;
    }
    Ok((thread_time()? - started) / count as u32)
}

/// Processor time of this thread: what an operation costs even when the machine is busy with other things.
fn thread_time() -> Outcome<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().ok_or("no time in schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
