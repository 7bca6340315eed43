//! [`Disk`] in memory, as bad as a disk may be: it keeps what is written apart from what is durable, and can crash,
//! refuse, flip bits and run full.
//!
//! - A write is durable after a sync of its file; until then each of its 512-byte sectors survives a crash or not, by
//!   the seed.
//! - Names change durably with a sync of their directory; until then a crash keeps the first few changes of each
//!   directory (a journal keeps order), possibly none.
//! - A sync can write its bytes to the wrong place and say that all is well.
//! - A failed sync drops what it should have written: the bytes stay readable, and no later sync makes them durable.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, Open, SECTOR_LENGTH};

/// What an operation on the simulated disk does; reads are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskOperation {
    /// A file or directory comes into being.
    Create,
    /// Bytes are written.
    Write,
    /// A file is synced.
    Sync,
    /// A directory is synced.
    SyncDir,
    /// A file changes its length.
    SetLength,
    /// Space is set aside.
    Allocate,
    /// A range is zeroed.
    Zero,
    /// A file changes its name.
    Rename,
    /// A file is removed.
    Remove,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    Full,
}

impl DiskFault {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("simulated I/O error"),
            Self::Full => io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"),
        }
    }
}

/// A disk in memory. Clone = another handle to the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    live: Names,
    durable: Names,
    /// By directory, changes of names not yet synced.
    pending: BTreeMap<PathBuf, Vec<NameChange>>,
    locked: BTreeSet<PathBuf>,
    operations: u64,
    crash_at: Option<u64>,
    /// (operations it counts, how many succeed before, how it fails)
    faults: Vec<(Vec<DiskOperation>, u64, DiskFault)>,
    capacity: Option<u64>,
    ignore_syncs: bool,
    /// Decides where what the next sync writes goes.
    misdirect: Option<Random>,
    /// Syncs that went to the wrong place.
    misdirected: u64,
    latency: Option<Latency>,
}

/// How long an operation takes, and what decides it.
#[derive(Debug, Clone)]
struct Latency {
    least: Duration,
    most: Duration,
    random: Random,
}

#[derive(Debug, Default, Clone)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Dir(PathBuf),
    File(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default, Clone)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk with the directory `/`.
    pub fn new() -> Self {
        let mut world = World::default();
        world.live.dirs.insert("/".into());
        world.durable.dirs.insert("/".into());
        Self(Arc::new(Mutex::new(world)))
    }

    /// Operations so far; reads are not counted.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Lets `count` operations in all succeed; then everything fails and nothing more becomes durable.
    pub fn crash_at(&self, count: u64) {
        self.0.lock().crash_at = Some(count);
    }

    /// Whether the point given to [`SimDisk::crash_at`] was reached.
    pub fn crashed(&self) -> bool {
        self.0.lock().crashed()
    }

    /// The disk as found after a power cut now; `seed` decides what of the unsynced survives.
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.0.lock();
        let mut random = Random(seed);
        let mut names = world.durable.clone();
        for changes in world.pending.values() {
            let keep = random.below(changes.len() as u64 + 1) as usize;
            changes
                .iter()
                .take(keep)
                .for_each(|change| names.apply(change));
        }
        let mut image = World {
            capacity: world.capacity,
            latency: world.latency.clone(),
            ..World::default()
        };
        image.live.dirs = names.reachable_dirs();
        for (path, inode) in &names.files {
            if path
                .parent()
                .is_some_and(|dir| image.live.dirs.contains(dir))
            {
                let bytes = world.inodes[*inode].survivor(&mut random);
                image.live.files.insert(path.clone(), image.inodes.len());
                image.inodes.push(Inode {
                    durable: bytes.clone(),
                    live: bytes,
                    ..Inode::default()
                });
            }
        }
        image.durable = image.live.clone();
        Self(Arc::new(Mutex::new(image)))
    }

    /// The disk as found after the process was killed but the machine lives on: everything written is there.
    pub fn kill(&self) -> Self {
        let world = self.0.lock();
        let image = World {
            inodes: world.inodes.clone(),
            live: world.live.clone(),
            durable: world.durable.clone(),
            pending: world.pending.clone(),
            capacity: world.capacity,
            latency: world.latency.clone(),
            ..World::default()
        };
        Self(Arc::new(Mutex::new(image)))
    }

    /// Lets `succeed` more operations of these kinds through and fails the next one, once.
    pub fn fail(&self, kinds: &[DiskOperation], succeed: u64, fault: DiskFault) {
        self.0.lock().faults.push((kinds.to_vec(), succeed, fault));
    }

    /// Most bytes all files may have; beyond it writes fail as on a full disk.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes all files have.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used()
    }

    /// Takes back what [`SimDisk::fail`] and [`SimDisk::crash_at`] asked for and has not happened yet.
    pub fn forget_faults(&self) {
        let mut world = self.0.lock();
        world.faults.clear();
        world.misdirect = None;
        if !world.crashed() {
            world.crash_at = None;
        }
    }

    /// A disk that lies: syncs of files report success and make nothing durable.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.0.lock().ignore_syncs = ignore;
    }

    /// What the next sync that has something to write writes goes to another place of the same file, which `seed` decides,
    /// and is reported as done: a disk that mistook an address. Readers have it from memory, until the power is cut.
    pub fn misdirect(&self, seed: u64) {
        self.0.lock().misdirect = Some(Random(seed));
    }

    /// How often that has happened.
    pub fn misdirected(&self) -> u64 {
        self.0.lock().misdirected
    }

    /// From now on everything fails and nothing more becomes durable: the power is gone.
    pub fn cut_power(&self) {
        let mut world = self.0.lock();
        world.crash_at = Some(world.operations);
    }

    /// How long what is done next takes, from `least` to `most`; `seed` decides. Only a simulated world waits for it.
    pub fn set_latency(&self, least: Duration, most: Duration, seed: u64) {
        self.0.lock().latency = Some(Latency {
            least,
            most,
            random: Random(seed),
        });
    }

    /// How long the next operation takes.
    pub fn draw_latency(&self) -> Duration {
        let mut world = self.0.lock();
        world.latency.as_mut().map_or(Duration::ZERO, |latency| {
            let span = latency.most.saturating_sub(latency.least).as_micros() as u64;
            latency.least + Duration::from_micros(latency.random.below(span + 1))
        })
    }

    /// The names of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.lock().live.files.keys().cloned().collect()
    }

    /// Changes one byte of a file, durably: bit rot. Returns whether the file has that byte.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> bool {
        let mut world = self.0.lock();
        let Some(inode) = world.live.files.get(path).copied() else {
            return false;
        };
        let inode = &mut world.inodes[inode];
        let Some(byte) = inode.live.get_mut(offset as usize) else {
            return false;
        };
        *byte ^= mask;
        if let Some(byte) = inode.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
        true
    }

    /// What a read of the whole file gives now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.0.lock();
        Some(world.inodes[*world.live.files.get(path)?].live.clone())
    }

    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            inode,
        })
    }
}

impl World {
    fn crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.operations >= at)
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.crashed() {
            return Err(io::Error::other("simulated power cut"));
        }
        Ok(())
    }

    /// Counts an operation and decides whether it fails.
    fn count(&mut self, kind: DiskOperation) -> io::Result<()> {
        self.check_alive()?;
        self.operations += 1;
        let mut failed = None;
        self.faults.retain_mut(|(kinds, succeed, fault)| {
            if failed.is_some() || !kinds.contains(&kind) {
                return true;
            }
            if *succeed == 0 {
                failed = Some(fault.error());
                return false;
            }
            *succeed -= 1;
            true
        });
        failed.map_or(Ok(()), Err)
    }

    fn change(&mut self, dir: &Path, change: NameChange) {
        self.live.apply(&change);
        self.pending
            .entry(dir.to_path_buf())
            .or_default()
            .push(change);
    }

    fn used(&self) -> u64 {
        self.live
            .files
            .values()
            .map(|inode| self.inodes[*inode].live.len() as u64)
            .sum()
    }

    fn check_growth(&self, inode: usize, end: u64) -> io::Result<()> {
        let growth = end.saturating_sub(self.inodes[inode].live.len() as u64);
        match self.capacity {
            Some(capacity) if growth > 0 && self.used() + growth > capacity => {
                Err(DiskFault::Full.error())
            }
            _ => Ok(()),
        }
    }
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Dir(path) => {
                self.dirs.insert(path.clone());
            }
            NameChange::File(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(path) => {
                self.files.remove(path);
            }
        }
    }

    fn reachable_dirs(&self) -> BTreeSet<PathBuf> {
        let reachable = |dir: &&PathBuf| {
            dir.ancestors()
                .filter(|a| !a.as_os_str().is_empty())
                .all(|a| self.dirs.contains(a))
        };
        self.dirs.iter().filter(reachable).cloned().collect()
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        self.dirty
            .extend(offset / SECTOR_LENGTH..end.div_ceil(SECTOR_LENGTH));
    }

    fn set_len(&mut self, length: usize) {
        let (low, high) = (length.min(self.live.len()), length.max(self.live.len()));
        self.live.resize(length, 0);
        self.dirty
            .extend(low / SECTOR_LENGTH..high.div_ceil(SECTOR_LENGTH));
    }

    fn sync(&mut self) {
        let length = self.live.len();
        self.durable.resize(length, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = (sector * SECTOR_LENGTH).min(length);
            let end = (start + SECTOR_LENGTH).min(length);
            self.durable[start..end].copy_from_slice(&self.live[start..end]);
        }
    }

    /// As [`Inode::sync`], but the sectors go to where others are.
    fn sync_elsewhere(&mut self, random: &mut Random) {
        let length = self.live.len();
        self.durable.resize(length, 0);
        let dirty = std::mem::take(&mut self.dirty);
        let Some(first) = dirty.first().copied() else {
            return;
        };
        let target = random.below(length.div_ceil(SECTOR_LENGTH) as u64) as usize;
        for sector in dirty {
            let from = (sector * SECTOR_LENGTH).min(length);
            let to = ((target + sector - first) * SECTOR_LENGTH).min(length);
            let count = SECTOR_LENGTH.min(length - from).min(length - to);
            self.durable[to..to + count].copy_from_slice(&self.live[from..from + count]);
        }
    }

    fn survivor(&self, random: &mut Random) -> Vec<u8> {
        // Each seed also decides how much is likely to survive, so that "all" and "nothing" are seen too.
        let odds = random.below(5);
        let kept: Vec<usize> = self
            .dirty
            .iter()
            .copied()
            .filter(|_| random.below(4) < odds)
            .collect();
        let length = if random.below(4) < odds {
            self.live.len()
        } else {
            self.durable.len()
        };
        self.merged(kept.into_iter(), length)
    }

    /// The durable bytes with some sectors replaced by the live ones, cut or grown to `length`.
    fn merged(&self, sectors: impl Iterator<Item = usize>, length: usize) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        bytes.resize(self.durable.len().max(self.live.len()), 0);
        for sector in sectors {
            let start = (sector * SECTOR_LENGTH).min(bytes.len());
            let end = (start + SECTOR_LENGTH).min(bytes.len());
            let live = self
                .live
                .get(start..end.min(self.live.len()))
                .unwrap_or_default();
            let (kept, gone) = bytes[start..end].split_at_mut(live.len());
            kept.copy_from_slice(live);
            gone.fill(0);
        }
        bytes.resize(length, 0);
        bytes
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let mut missing: Vec<&Path> = path
            .ancestors()
            .take_while(|dir| !world.live.dirs.contains(*dir))
            .collect();
        while let Some(dir) = missing.pop() {
            world.count(DiskOperation::Create)?;
            world.change(parent(dir), NameChange::Dir(dir.to_path_buf()));
        }
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.0.lock();
        world.check_alive()?;
        match world.live.files.get(path).copied() {
            Some(_) if how.create_new => Err(io::ErrorKind::AlreadyExists.into()),
            Some(inode) => Ok(self.file(inode)),
            None if how.create || how.create_new => {
                if !world.live.dirs.contains(parent(path)) {
                    return Err(not_found(parent(path)));
                }
                world.count(DiskOperation::Create)?;
                let inode = world.inodes.len();
                world.inodes.push(Inode::default());
                world.change(parent(path), NameChange::File(path.to_path_buf(), inode));
                Ok(self.file(inode))
            }
            None => Err(not_found(path)),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.0.lock();
        world.check_alive()?;
        if !world.live.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let names = world.live.files.keys().filter(|path| parent(path) == dir);
        Ok(names
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.count(DiskOperation::Rename)?;
        if !world.live.files.contains_key(from) {
            return Err(not_found(from));
        }
        world.change(
            parent(to),
            NameChange::Rename(from.to_path_buf(), to.to_path_buf()),
        );
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.count(DiskOperation::Remove)?;
        if !world.live.files.contains_key(path) {
            return Err(not_found(path));
        }
        world.change(parent(path), NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.count(DiskOperation::SyncDir)?;
        for change in world.pending.remove(dir).unwrap_or_default() {
            world.durable.apply(&change);
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let world = self.0.lock();
        world.check_alive()?;
        Ok(world.live.files.contains_key(path) || world.live.dirs.contains(path))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let world = self.0.lock();
        world.check_alive()?;
        Ok(world
            .capacity
            .map_or(1 << 50, |capacity| capacity.saturating_sub(world.used())))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let mut world = self.0.lock();
        world.check_alive()?;
        if !world.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        }))
    }

    #[cfg(feature = "simulation")]
    fn latency(&self) -> Duration {
        self.draw_latency()
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.0.lock().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimFile {
    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        let alive = !world.crashed();
        if let Err(error) = world.count(DiskOperation::Sync) {
            if alive {
                // As on Linux: the pages are marked clean, the content never reached the device.
                world.inodes[self.inode].dirty.clear();
            }
            return Err(error);
        }
        if world.ignore_syncs {
            return Ok(());
        }
        let target = match world.inodes[self.inode].dirty.is_empty() {
            true => None,
            false => world.misdirect.take(),
        };
        match target {
            Some(mut random) => {
                world.inodes[self.inode].sync_elsewhere(&mut random);
                world.misdirected += 1;
            }
            None => world.inodes[self.inode].sync(),
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.0.lock();
        world.check_alive()?;
        let live = &world.inodes[self.inode].live;
        let Some(rest) = live.get(offset as usize..) else {
            return Ok(0);
        };
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.count(DiskOperation::Write)?;
        world.check_growth(self.inode, offset + bytes.len() as u64)?;
        world.inodes[self.inode].write(bytes, offset as usize);
        Ok(())
    }

    fn write_all_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.write_all_at(&bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.count(DiskOperation::SetLength)?;
        world.check_growth(self.inode, length)?;
        world.inodes[self.inode].set_len(length as usize);
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.count(DiskOperation::Allocate)?;
        world.check_growth(self.inode, offset + length)?;
        let end = (offset + length) as usize;
        if world.inodes[self.inode].live.len() < end {
            world.inodes[self.inode].set_len(end);
        }
        Ok(())
    }

    fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.count(DiskOperation::Zero)?;
        let inode = &mut world.inodes[self.inode];
        let end = (offset + length).min(inode.live.len() as u64);
        if end > offset {
            inode.write(&vec![0; (end - offset) as usize], offset as usize);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let world = self.disk.0.lock();
        world.check_alive()?;
        Ok(world.inodes[self.inode].live.len() as u64)
    }
}

/// splitmix64: a few lines, the same on every machine and for ever, so that a seed in a bug report stays good.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is small: the bias does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/").join(name)
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let disk = SimDisk::new();
        let file = disk.open(&path("f"), Open::CREATE_NEW).unwrap();
        file.write_all_at(&[1; 2_048], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[2; 1_024], 512).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let bytes = disk.crash(seed).bytes(&path("f")).unwrap();
            assert_eq!(bytes.len(), 2_048);
            assert!(
                bytes[..512]
                    .iter()
                    .chain(&bytes[1_536..])
                    .all(|byte| *byte == 1)
            );
            assert!(bytes[512..1_024].iter().all(|byte| *byte == bytes[512]));
            seen.insert((bytes[512], bytes[1_024]));
        }
        assert_eq!(
            seen.len(),
            4,
            "each sector is kept or lost by itself: {seen:?}"
        );
    }

    #[test]
    fn names_need_a_sync_of_their_directory_and_keep_their_order() {
        let disk = SimDisk::new();
        disk.open(&path("a"), Open::CREATE_NEW).unwrap();
        disk.rename(&path("a"), &path("b")).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            seen.insert(disk.crash(seed).list(Path::new("/")).unwrap());
        }
        let expected = [vec![], vec!["a".to_owned()], vec!["b".to_owned()]];
        assert_eq!(seen, BTreeSet::from(expected));
        disk.sync_dir(Path::new("/")).unwrap();
        assert_eq!(disk.crash(1).list(Path::new("/")).unwrap(), ["b"]);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let disk = SimDisk::new();
        let file = disk.open(&path("f"), Open::CREATE_NEW).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[0; 512], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[9; 512], 0).unwrap();
        disk.fail(&[DiskOperation::Sync], 0, DiskFault::Io);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert!((0..20).all(|seed| disk.crash(seed).bytes(&path("f")).unwrap()[0] == 0));
    }

    #[test]
    fn a_misdirected_sync_shows_after_a_power_cut_only_and_happens_once() {
        let disk = SimDisk::new();
        let file = disk.open(&path("a"), Open::CREATE_NEW).unwrap();
        file.write_all_at(&[b'a'; 4 * SECTOR_LENGTH], 0).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.misdirect(1);
        assert_eq!(disk.misdirected(), 0);
        file.write_all_at(&[b'b'; SECTOR_LENGTH], 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(disk.misdirected(), 1);
        let right = [vec![b'b'; SECTOR_LENGTH], vec![b'a'; 3 * SECTOR_LENGTH]].concat();
        assert_eq!(disk.bytes(&path("a")), Some(right.clone()));
        assert_eq!(disk.kill().bytes(&path("a")), Some(right.clone()));
        let found = disk.crash(1).bytes(&path("a")).unwrap();
        let written = found.iter().filter(|byte| **byte == b'b').count();
        assert_eq!((found.len(), written), (right.len(), SECTOR_LENGTH));
        assert_ne!(found, right, "seed 1 names another sector");
        // What is written again goes where it belongs.
        file.write_all_at(&[b'b'; SECTOR_LENGTH], 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(disk.crash(1).bytes(&path("a")).unwrap()[0], b'b');
    }

    #[test]
    fn after_the_crash_point_nothing_works() {
        let disk = SimDisk::new();
        let file = disk.open(&path("f"), Open::CREATE_NEW).unwrap();
        disk.crash_at(disk.operations() + 1);
        file.write_all_at(b"x", 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(file.read_at(&mut [0], 0).is_err());
        assert!(disk.crashed());
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = SimDisk::new();
        disk.set_capacity(Some(1_000));
        let file = disk.open(&path("f"), Open::CREATE_NEW).unwrap();
        file.write_all_at(&[1; 900], 0).unwrap();
        assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 100);
        let error = file.write_all_at(&[1; 200], 900).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        file.write_all_at(&[2; 900], 0).unwrap();
    }
}
