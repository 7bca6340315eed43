//! The key index on disk: two keyspaces of a fjall database in `index/`.
//!
//! Used in one way only: whole sorted tables are *ingested*, one batch per sealed segment, so that the database's own
//! journal and memtables stay empty. Its open is then a matter of milliseconds, and a batch with its watermark is
//! registered in one version change of the tree: in completely or not at all.
//!
//! Two keyspaces because they are asked differently. `versions` is walked by key prefix, where filters do not help and
//! are left out. `remembered` is asked for single keys that mostly are not there, where filters answer almost
//! always; it is ingested *before* `versions`. A segment is in when both have its watermark.
//!
//! The database is one person's project with an exact version pin; nothing outside this file names it, and whatever
//! it cannot open is deleted and rebuilt from the segments.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use ::fjall::{AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, UserKey};
use bytes::Bytes;
use parking_lot::RwLock;
use scribe_proof::index::{LeafIndex, TreeSize};

use super::{
    IndexedSegment, KeyIndex, ScanRange, SegmentBatch, TAG_SEGMENT, TAG_VERSION, encode_remembered,
    encode_segment, encode_version, escape_into, parse_remembered, parse_segment, parse_version,
    parse_version_key, segment_key, version_key_into,
};
use crate::limits;
use crate::store::view::{Remembered, Version};

/// How long an open waits for an earlier instance in this process to let go of the directory.
const CLOSE_WAIT: Duration = Duration::from_secs(120);
/// Versions of one key a scan steps over before it seeks to the next key instead.
const SCAN_STEPS_MAX: usize = 8;
/// Table files kept open.
const FILES_OPEN_MAX: usize = 256;

/// The index in a directory of its own.
pub struct FjallIndex {
    directory: PathBuf,
    cache_bytes: u64,
    /// Newest ledger time seen: what compaction may forget is measured from here.
    now_ms: Arc<AtomicU64>,
    open: RwLock<Option<Arc<Open>>>,
}

struct Open {
    /// Its threads end when the last handle goes.
    _database: Database,
    versions: Keyspace,
    remembered: Keyspace,
}

impl std::fmt::Debug for FjallIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallIndex")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl FjallIndex {
    /// Opens or creates the index in `directory`.
    ///
    /// Fails when the database cannot be read, whatever the reason; the caller then deletes it with
    /// [`FjallIndex::remove`] and fills a new one.
    pub fn open(directory: &Path, cache_bytes: u64) -> io::Result<Self> {
        remove_dir(&deleting(directory))?;
        let now_ms = Arc::new(AtomicU64::new(0));
        let open = open_database(directory, cache_bytes, &now_ms)?;
        Ok(Self {
            directory: directory.to_owned(),
            cache_bytes,
            now_ms,
            open: RwLock::new(Some(Arc::new(open))),
        })
    }

    /// Deletes the index in `directory`, if there is one. It is derived data.
    ///
    /// First it gets another name, for good: a deletion that is interrupted must not leave an index behind that opens
    /// and has lost one keyspace.
    pub fn remove(directory: &Path) -> io::Result<()> {
        let deleting = deleting(directory);
        // Left by a deletion that was interrupted.
        remove_dir(&deleting)?;
        match std::fs::rename(directory, &deleting) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        if let Some(parent) = directory.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            std::fs::File::open(parent)?.sync_all()?;
        }
        // A crash here, or in the middle, leaves parts under a name that is never opened; the next open deletes them.
        remove_dir(&deleting)
    }

    /// Visits the record of every version as it is stored, key and value; nothing is taken apart or believed. Table by
    /// table, each in the order of its keys: no key is in two tables, and merging them is half the work.
    pub(crate) fn visit_records(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        let open = self.handle()?;
        let range = UserKey::from([TAG_VERSION])..UserKey::from([TAG_VERSION + 1]);
        for table in open.versions.tree.current_version().iter_tables() {
            for item in table.range(range.clone()) {
                let item = item.map_err(|error| index_error(error.into()))?;
                // What was ingested is only ever merged.
                if item.is_tombstone() {
                    return Err(damaged("a deletion"));
                }
                visit(&item.key.user_key, &item.value);
            }
        }
        Ok(())
    }

    /// Empties one of the two keyspaces.
    #[cfg(test)]
    pub(crate) fn forget_remembered(&self) {
        self.handle().unwrap().remembered.clear().unwrap();
    }

    fn handle(&self) -> io::Result<Arc<Open>> {
        self.open
            .read()
            .clone()
            .ok_or_else(|| io::Error::other("the key index is closed"))
    }
}

/// Where an index lies while it is being deleted: beside its directory.
fn deleting(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".deleting");
    name.into()
}

/// Deletes a directory, if there is one.
fn remove_dir(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_database(directory: &Path, cache_bytes: u64, now_ms: &Arc<AtomicU64>) -> io::Result<Open> {
    let started = Instant::now();
    loop {
        match check_lists(directory) {
            Ok(true) => {}
            // As below.
            Ok(false) if started.elapsed() < CLOSE_WAIT => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Ok(false) => return Err(io::Error::other("key index: it is open elsewhere")),
            Err(error) => return Err(error),
        }
        // The database asserts some of its invariants on what it reads: damage may come as a panic.
        let result = catch_unwind(AssertUnwindSafe(|| {
            try_open(directory, cache_bytes, now_ms.clone())
        }));
        match result {
            Ok(Ok(open)) => return Ok(open),
            // Our own lock file keeps other processes out, so this is an instance of this process whose
            // background thread is about to end.
            Ok(Err(::fjall::Error::Locked)) if started.elapsed() < CLOSE_WAIT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(Err(error)) => return Err(index_error(error)),
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "key index: the database panicked while it opened",
                ));
            }
        }
    }
}

/// Compares the list of tables of each keyspace with the checksum beside it; `Ok(false)` while somebody has the database
/// open and may be about to change it. A new database has no lists.
///
/// The database keeps that checksum and does not look at it. It believes the numbers in the list, sets memory aside for as
/// many tables as a flipped bit says, and takes the whole process down when there is no such memory.
fn check_lists(directory: &Path) -> io::Result<bool> {
    let lock = match File::open(directory.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    for keyspace in fs::read_dir(directory.join("keyspaces"))? {
        let keyspace = keyspace?.path();
        let current = match fs::read(keyspace.join("current")) {
            Ok(current) => current,
            // One that was never finished: the database deletes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (number, rest) = current
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged("a list of tables"))?;
        let list = keyspace.join(format!("v{}", u64::from_le_bytes(*number)));
        let list = fs::read(&list).map_err(|_| damaged("the name of a list of tables"))?;
        let checksum = xxhash_rust::xxh3::xxh3_128(&list).to_le_bytes();
        // 0: of this kind of checksum.
        if rest != [&checksum[..], &[0]].concat() {
            return Err(damaged("a list of tables"));
        }
    }
    Ok(true)
}

fn try_open(directory: &Path, cache_bytes: u64, now_ms: Arc<AtomicU64>) -> ::fjall::Result<Open> {
    let forget: Arc<dyn Factory> = Arc::new(Forget { now_ms });
    let database = Database::builder(directory)
        .cache_size(cache_bytes)
        .worker_threads(1)
        .max_cached_files(Some(FILES_OPEN_MAX))
        .with_compaction_filter_factories(Arc::new(move |keyspace: &str| {
            (keyspace == "remembered").then(|| forget.clone())
        }))
        .open()?;
    let versions = database.keyspace("versions", || {
        KeyspaceCreateOptions::default().expect_point_read_hits(true)
    })?;
    let remembered = database.keyspace("remembered", KeyspaceCreateOptions::default)?;
    Ok(Open {
        _database: database,
        versions,
        remembered,
    })
}

impl KeyIndex for FjallIndex {
    fn segments(&self) -> io::Result<Vec<IndexedSegment>> {
        let open = self.handle()?;
        let mut segments = Vec::new();
        for item in open.versions.range([TAG_SEGMENT]..[TAG_VERSION]) {
            let (key, value) = item.into_inner().map_err(index_error)?;
            let segment = parse_segment(&key, &value).ok_or_else(|| damaged("a watermark"))?;
            let other = open.remembered.get(&key).map_err(index_error)?;
            if other.as_deref() != Some(&value[..]) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "key index: the idempotency keys of segment {} are not in it",
                        segment.number
                    ),
                ));
            }
            segments.push(segment);
        }
        Ok(segments)
    }

    fn ingest(&self, batch: SegmentBatch<'_, '_>) -> io::Result<()> {
        let open = self.handle()?;
        self.now_ms.fetch_max(batch.now_ms, Ordering::Relaxed);

        // Each keyspace has the watermark: one that was lost or emptied by itself is noticed. It is shorter than any
        // idempotency key, so it is none of them; it is written where it belongs in their order.
        let mark_key = segment_key(batch.segment.number);
        let mark = encode_segment(&batch.segment);
        let mut ingestion = open.remembered.start_ingestion().map_err(index_error)?;
        let mut marked = false;
        for (key_hash, value) in batch.remembered {
            if !marked && mark_key[..] < key_hash[..] {
                ingestion.write(mark_key, mark).map_err(index_error)?;
                marked = true;
            }
            ingestion
                .write(key_hash, encode_remembered(&value))
                .map_err(index_error)?;
        }
        if !marked {
            ingestion.write(mark_key, mark).map_err(index_error)?;
        }
        ingestion.finish().map_err(index_error)?;

        // A crash here leaves idempotency keys of a segment the watermark does not name: the batch is repeated,
        // and they are overwritten with themselves.
        let mut ingestion = open.versions.start_ingestion().map_err(index_error)?;
        ingestion.write(mark_key, mark).map_err(index_error)?;
        let mut index_key = Vec::new();
        for (key, version) in batch.versions {
            version_key_into(key, version.index, &mut index_key);
            ingestion
                .write(index_key.as_slice(), encode_version(&version))
                .map_err(index_error)?;
        }
        // Table files and their directory are synced before the version that names them is.
        ingestion.finish().map_err(index_error)
    }

    fn latest(&self, key: &[u8], below: TreeSize) -> io::Result<Option<Version>> {
        let mut out = Vec::with_capacity(1);
        self.versions(key, below, 1, &mut out)?;
        Ok(out.pop())
    }

    fn versions(
        &self,
        key: &[u8],
        below: TreeSize,
        limit: usize,
        out: &mut Vec<Version>,
    ) -> io::Result<()> {
        let Some(newest) = below.get().checked_sub(1) else {
            return Ok(());
        };
        let open = self.handle()?;
        let mut low = Vec::with_capacity(key.len() + 16);
        version_key_into(key, LeafIndex::new(newest), &mut low);
        let prefix = low.len() - 8;
        let mut high = low.clone();
        high[prefix..].fill(0xff);
        for item in open.versions.range(low..=high).take(limit) {
            let (index_key, value) = item.into_inner().map_err(index_error)?;
            out.push(version_of(&index_key, prefix, &value)?);
        }
        Ok(())
    }

    fn version(&self, key: &[u8], index: LeafIndex) -> io::Result<Option<Version>> {
        let open = self.handle()?;
        let mut index_key = Vec::with_capacity(key.len() + 16);
        version_key_into(key, index, &mut index_key);
        match open.versions.get(&index_key).map_err(index_error)? {
            Some(value) => parse_version(index, &value)
                .map(Some)
                .ok_or_else(|| damaged("a version")),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        range: &ScanRange,
        at: TreeSize,
        limit: usize,
    ) -> io::Result<Vec<(Bytes, Version)>> {
        let mut found = Vec::new();
        if limit == 0 || at.get() == 0 {
            return Ok(found);
        }
        let open = self.handle()?;
        let mut low = vec![TAG_VERSION];
        escape_into(&range.start, &mut low);
        let mut high = vec![TAG_VERSION];
        match &range.end {
            Some(end) => escape_into(end, &mut high),
            None => high[0] += 1,
        }
        'seek: while low < high {
            let mut steps = 0;
            let mut current: Vec<u8> = Vec::new(); // the last key that was returned or passed by
            let mut current_done = false;
            for item in open.versions.range(low.as_slice()..high.as_slice()) {
                let (index_key, value) = item.into_inner().map_err(index_error)?;
                let prefix = index_key
                    .len()
                    .checked_sub(8)
                    .ok_or_else(|| damaged("a key"))?;
                if current != index_key[..prefix] {
                    current.clear();
                    current.extend_from_slice(&index_key[..prefix]);
                    (current_done, steps) = (false, 0);
                }
                if current_done || version_of(&index_key, prefix, &value)?.index.get() >= at.get() {
                    steps += 1;
                    if steps > SCAN_STEPS_MAX {
                        // Many versions: go to where the wanted one must be, or beyond the key's last one.
                        low.clear();
                        low.extend_from_slice(&current);
                        if current_done {
                            low.extend_from_slice(&[0xff; 9]);
                        } else {
                            low.extend_from_slice(&(!(at.get() - 1)).to_be_bytes());
                        }
                        continue 'seek;
                    }
                    continue;
                }
                let version = version_of(&index_key, prefix, &value)?;
                let (key, _) = parse_version_key(&index_key).ok_or_else(|| damaged("a key"))?;
                found.push((Bytes::from(key), version));
                if found.len() == limit {
                    break 'seek;
                }
                current_done = true;
            }
            break;
        }
        Ok(found)
    }

    fn remembered(&self, key_hash: &[u8; 16]) -> io::Result<Option<Remembered>> {
        let open = self.handle()?;
        match open.remembered.get(key_hash).map_err(index_error)? {
            Some(value) => parse_remembered(&value)
                .map(Some)
                .ok_or_else(|| damaged("an idempotency key")),
            None => Ok(None),
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], Version) -> io::Result<()>) -> io::Result<()> {
        let open = self.handle()?;
        for item in open.versions.range([TAG_VERSION]..[TAG_VERSION + 1]) {
            let (index_key, value) = item.into_inner().map_err(index_error)?;
            let (key, index) = parse_version_key(&index_key).ok_or_else(|| damaged("a key"))?;
            let version = parse_version(index, &value).ok_or_else(|| damaged("a version"))?;
            visit(&key, version)?;
        }
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        let mut open = self.open.write();
        wait_and_close(open.take());
        Self::remove(&self.directory)?;
        let database = open_database(&self.directory, self.cache_bytes, &self.now_ms)?;
        *open = Some(Arc::new(database));
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.open.read().as_ref().map_or(0, |open| {
            open.versions.disk_space() + open.remembered.disk_space()
        })
    }

    fn close(&self) {
        let open = self.open.write().take();
        // Dropping the database waits for a running compaction, which may take long; killing it is safe. So it is
        // dropped aside: a process that ends does not wait, and an open in the same process does (above).
        let aside = std::thread::Builder::new().name("index-close".into());
        let _ = aside.spawn(move || drop(open));
    }
}

impl Drop for FjallIndex {
    /// Waits for background work, unlike [`KeyIndex::close`].
    fn drop(&mut self) {
        wait_and_close(self.open.get_mut().take());
    }
}

/// Closes the database when the last read on it has ended: while it is open its threads may write to its directory.
fn wait_and_close(open: Option<Arc<Open>>) {
    if let Some(mut open) = open {
        while Arc::get_mut(&mut open).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Drops idempotency keys that are older than twice the window when their table is rewritten anyway.
struct Forget {
    now_ms: Arc<AtomicU64>,
}

impl RefUnwindSafe for Forget {}

impl Factory for Forget {
    fn name(&self) -> &str {
        "forget idempotency keys"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        Box::new(ForgetOlder {
            oldest_ms: now_ms.saturating_sub(2 * limits::IDEMPOTENCY_WINDOW_MS),
        })
    }
}

struct ForgetOlder {
    oldest_ms: u64,
}

impl CompactionFilter for ForgetOlder {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let value = item.value()?;
        Ok(match parse_remembered(&value) {
            Some(remembered) if remembered.timestamp_ms < self.oldest_ms => Verdict::Remove,
            _ => Verdict::Keep,
        })
    }
}

fn version_of(index_key: &[u8], prefix: usize, value: &[u8]) -> io::Result<Version> {
    let inverted: [u8; 8] = index_key
        .get(prefix..)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| damaged("a key"))?;
    let index = LeafIndex::new(!u64::from_be_bytes(inverted));
    parse_version(index, value).ok_or_else(|| damaged("a version"))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("key index: {what} does not parse; hint: stop the node and run `scribe repair`"),
    )
}

fn index_error(error: ::fjall::Error) -> io::Error {
    match error {
        ::fjall::Error::Io(error) => io::Error::new(error.kind(), format!("key index: {error}")),
        error => io::Error::other(format!("key index: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_like_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let index = FjallIndex::open(&dir.path().join("index"), 1 << 20).unwrap();
        crate::store::index::tests::check_like_model(&index);
    }

    #[test]
    fn garbage_in_the_directory_is_an_error_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        drop(FjallIndex::open(&path, 1 << 20).unwrap());
        // Opening again waits for the first instance to let go.
        FjallIndex::open(&path, 1 << 20).unwrap().close();
        drop(FjallIndex::open(&path, 1 << 20).unwrap());
        let mut files = vec![path.clone()];
        while let Some(file) = files.pop() {
            if file.is_dir() {
                files.extend(std::fs::read_dir(&file).unwrap().map(|e| e.unwrap().path()));
            } else if file.file_name().is_some_and(|name| name != "lock") {
                std::fs::write(&file, b"not a database").unwrap();
            }
        }
        assert!(FjallIndex::open(&path, 1 << 20).is_err());
        FjallIndex::remove(&path).unwrap();
        FjallIndex::open(&path, 1 << 20).unwrap();
    }

    #[test]
    fn any_flipped_bit_of_a_list_of_tables_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        drop(FjallIndex::open(&path, 1 << 20).unwrap());
        for keyspace in ["0", "1", "2"] {
            let keyspace = path.join("keyspaces").join(keyspace);
            let current = keyspace.join("current");
            let number = u64::from_le_bytes(*fs::read(&current).unwrap().first_chunk().unwrap());
            for file in [current, keyspace.join(format!("v{number}"))] {
                let good = fs::read(&file).unwrap();
                for at in 0..good.len() {
                    let mut bad = good.clone();
                    bad[at] ^= 0x10;
                    fs::write(&file, &bad).unwrap();
                    assert!(check_lists(&path).is_err(), "{file:?} {at}");
                }
                fs::write(&file, &good).unwrap();
            }
        }
        assert!(check_lists(&path).unwrap());
        let open = FjallIndex::open(&path, 1 << 20).unwrap();
        assert!(!check_lists(&path).unwrap(), "somebody has it open");
        drop(open);
        FjallIndex::open(&path, 1 << 20).unwrap();
    }

    #[test]
    fn one_keyspace_without_the_other_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let index = FjallIndex::open(&dir.path().join("index"), 1 << 20).unwrap();
        let segment = IndexedSegment {
            number: 0,
            end_size: TreeSize::new(1),
            end_root: scribe_proof::hash::Hash([1; 32]),
            versions: 0,
        };
        let remembered = Remembered {
            first: LeafIndex::new(0),
            count: 1,
            fingerprint: [1; 16],
            timestamp_ms: 1_000,
        };
        // Keys on both sides of the watermark.
        let hashes = [[0; 16], [9; 16]];
        for _ in 0..2 {
            index
                .ingest(SegmentBatch {
                    segment,
                    versions: &mut std::iter::empty(),
                    remembered: &mut hashes.map(|hash| (hash, remembered)).into_iter(),
                    now_ms: 1_000,
                })
                .unwrap();
        }
        assert_eq!(index.segments().unwrap(), [segment]);
        for hash in &hashes {
            assert_eq!(index.remembered(hash).unwrap(), Some(remembered));
        }
        index.forget_remembered();
        let error = index.segments().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("idempotency keys of segment 0"));
    }

    #[test]
    fn what_an_interrupted_deletion_left_is_deleted_at_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let left = dir.path().join("index.deleting");
        drop(FjallIndex::open(&path, 1 << 20).unwrap());
        std::fs::create_dir_all(left.join("versions")).unwrap();
        FjallIndex::remove(&path).unwrap();
        assert!(!path.exists() && !left.exists());
        std::fs::create_dir_all(left.join("versions")).unwrap();
        let index = FjallIndex::open(&path, 1 << 20).unwrap();
        assert!(path.exists() && !left.exists());
        index.clear().unwrap();
        assert!(path.exists() && !left.exists());
        assert_eq!(index.segments().unwrap(), []);
    }
}
