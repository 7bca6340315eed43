//! What an audit costs: entries a second of a data directory, and the ratio to raw SHA-256 and CRC-32C over the same
//! segment files in the same run.
//!
//! `cargo bench -p scribe --bench audit [-- entries]`; the directory is `SCRIBE_BENCH_DIR` or the system's temporary one.
//! Raw is one thread that reads the segment files and puts every byte through both; the audit opens commitments, derives
//! the tree, and compares tree files and index as well, on all processors. They run alternately, three times; the
//! figures are medians. The files are in the page cache for both.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use scribe::audit::{AuditOptions, directory};
use scribe::ledger::batch::BatchBuilder;
use scribe::store::frame::{Frame, FrameKind, LogId};
use scribe::store::log::{Flushed, LogIdentity};
use scribe::store::real_disk::RealDisk;
use scribe::store::{Effects, LeafEffect, Store, StoreOptions};
use scribe_proof::hash::leaf_hash;
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::{Leaf, LeafKind, Prev};
use sha2::{Digest as _, Sha256};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Enough segments that the last one, which one processor looks at alone, does not count.
const ENTRIES: u64 = 4_000_000;
const VALUE_LENGTH: usize = 256;
const FRAME_ENTRIES: u64 = 256;
const RUNS: usize = 3;

fn main() -> Outcome<()> {
    let entries = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(ENTRIES);
    let dir = match std::env::var_os("SCRIBE_BENCH_DIR") {
        Some(path) => tempfile::tempdir_in(path)?,
        None => tempfile::tempdir()?,
    };
    build(dir.path(), entries)?;
    let segments = segments(dir.path())?;
    let (mut whole, mut audits, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    let audit = |skip_index: bool| -> Outcome<f64> {
        let options = AuditOptions {
            skip_index,
            ..AuditOptions::default()
        };
        let started = Instant::now();
        let report = directory::audit(dir.path(), &options, &|_, _| ())?;
        assert_eq!(report.values, entries);
        Ok(started.elapsed().as_secs_f64())
    };
    for _ in 0..RUNS {
        let started = Instant::now();
        bytes = raw(&segments)?;
        raws.push(started.elapsed().as_secs_f64());
        audits.push(audit(true)?);
        whole.push(audit(false)?);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[RUNS / 2]
    };
    let (whole, audit, raw) = (median(&mut whole), median(&mut audits), median(&mut raws));
    println!("{entries} entries of {VALUE_LENGTH} B, {bytes} bytes of segments, medians of {RUNS}");
    println!(
        "raw SHA-256 + CRC-32C, one thread {:>10.0} entries/s",
        entries as f64 / raw
    );
    for (what, time) in [
        ("audit without the key index      ", audit),
        ("audit with the key index         ", whole),
    ] {
        println!(
            "{what} {:>10.0} entries/s, ratio {:.2}",
            entries as f64 / time,
            raw / time
        );
    }
    Ok(())
}

fn segments(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir.join("log"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != "next.seg") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes read.
fn raw(files: &[PathBuf]) -> Outcome<u64> {
    let (mut sha256, mut crc, mut bytes) = (Sha256::new(), 0, 0);
    let mut piece = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path)?;
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            sha256.update(&piece[..read]);
            crc = crc32c::crc32c_append(crc, &piece[..read]);
            bytes += read as u64;
        }
    }
    std::hint::black_box((sha256.finalize(), crc));
    Ok(bytes)
}

/// Fills a data directory, and cuts off what its last segment was allocated ahead, so that both read the same bytes.
fn build(dir: &Path, entries: u64) -> Outcome<()> {
    let identity = LogIdentity {
        cluster_id: [1; 16],
        node_id: 1,
    };
    let (store, _) = Store::open(Arc::new(RealDisk), dir, identity, StoreOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (mut first, mut index) = (0, 0);
    while first < entries {
        let count = FRAME_ENTRIES.min(entries - first);
        let (frame, effects) = frame(index, first, count)?;
        let (sender, flushed) = std::sync::mpsc::channel();
        let done = Flushed::new(move |outcome| drop(sender.send(outcome)));
        store.log().append(vec![frame.clone()], done)?;
        flushed.recv()??;
        runtime.block_on(store.apply_room());
        let position = store
            .log()
            .position(frame.log_id.index)
            .ok_or("no position")?;
        store.apply(&frame, position, effects)?;
        first += count;
        index += 1;
    }
    while store.segments_waiting() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    store.shutdown();
    let last = segments(dir)?.pop().ok_or("no segment")?;
    let bytes = std::fs::read(&last)?;
    // Frames end at a multiple of 8, and these end in a value that is not zero.
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&last)?
        .set_len(end.next_multiple_of(8))?;
    Ok(())
}

fn frame(index: u64, first: u64, count: u64) -> Outcome<(Frame, Effects)> {
    let mut batch = BatchBuilder::new();
    let mut leaves = Vec::new();
    let mut bytes = Vec::new();
    let mut value = [0x33; VALUE_LENGTH];
    for leaf_index in first..first + count {
        // Keys come in no order, each about five times.
        let key = scribe_proof::sha256(
            &(leaf_index.wrapping_mul(2_654_435_761) % (first / 5 + 1_000)).to_be_bytes(),
        );
        value[..8].copy_from_slice(&leaf_index.to_be_bytes());
        let salt = scribe_proof::sha256(&leaf_index.to_be_bytes()).0;
        let salt: &[u8; 16] = salt.first_chunk().ok_or("no salt")?;
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 1_700_000_000_000 + leaf_index / 100,
            transaction_position: 0,
            transaction_length: 1,
            prev: Prev::NotAsserted,
            commitment: scribe_proof::commitment(salt, &[0, 0], &value),
            key: key.as_bytes(),
            author: b"",
            body: b"",
        };
        bytes.clear();
        leaf.encode_into(&mut bytes)?;
        batch.push(&bytes, Some((salt, &[0, 0], &value)));
        leaves.push(LeafEffect {
            leaf_hash: leaf_hash(&bytes),
            key: Bytes::copy_from_slice(key.as_bytes()),
            kind: LeafKind::Put,
            timestamp_ms: leaf.timestamp_ms,
        });
    }
    let (public, private) = batch.finish();
    let frame = Frame {
        log_id: LogId::new(1, index),
        kind: FrameKind::Entries,
        sequencing_term: 1,
        first_leaf: LeafIndex::new(first),
        count: count as u32,
        public,
        private,
    };
    Ok((frame, Effects::Entries(leaves, Vec::new())))
}
