//! Fuzz targets over the directory of a small ledger, damaged as the input says: what opens is the ledger that was
//! written, or the beginning of it that was never known to be on disk further; nothing else is ever read from it.
//!
//! ```text
//! input   u8 how it is opened ‖ edits x (u8 what ‖ u8 file ‖ u16 place ‖ u8 from ‖ u16 length)
//! ```
//! An edit that writes bytes of the input itself can forge a checksum, so after one only panics count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use bytes::Bytes;
use scribe_proof::hash::{Hash, empty_root, leaf_hash};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{Leaf, LeafKind, Prev};
use scribe_proof::tree::{Frontier, TreeBuilder};

use super::{CLUSTER, DIR};
use crate::ledger::batch::BatchBuilder;
use crate::store::cache::CacheSizes;
use crate::store::disk::{Disk, Open};
use crate::store::frame::{Frame, FrameKind, LogId, LogIndex, Vote};
use crate::store::index::IndexKind;
use crate::store::log::{Flushed, Log, LogIdentity, LogOptions};
use crate::store::manifest::{MANIFEST_NAME, ManifestRecord};
use crate::store::recovery::{LOG_DIR, repair_accept_loss};
use crate::store::segment::{FooterState, SealedSegment, file_path};
use crate::store::sim_disk::SimDisk;
use crate::store::staging::{check_staged, resume};
use crate::store::watermarks::WATERMARKS_NAME;
use crate::store::{Store, StoreOptions};

const IDENTITY: LogIdentity = LogIdentity {
    cluster_id: CLUSTER,
    node_id: 1,
};
const VOTE: Vote = Vote {
    term: 3,
    node_id: 1,
    committed: true,
};
/// Frames of the ledger; the last few are in no sealed segment.
const FRAMES: u64 = 16;
const EDIT_LENGTH: usize = 7;
/// More edits than that would only make the ledger unreadable in more ways.
const EDITS_MAX: usize = 12;

/// Segments of a few frames, each append a group of its own.
fn log_options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 900,
        segment_leaves_max: 12,
        group_bytes_max: 512,
        cache_bytes: 2_048,
        preallocate: false,
    }
}

fn store_options() -> StoreOptions {
    StoreOptions {
        log: log_options(),
        index: IndexKind::Memory,
        caches: CacheSizes {
            entry_bytes: 4_096,
            latest_bytes: 4_096,
            index_bytes: 4_096,
            tile_bytes: 4_096,
            proof_bytes: 4_096,
        },
        restore: None,
    }
}

/// A ledger as it was written.
pub(super) struct Original {
    /// Every file of the directory.
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
    frames: Vec<Frame>,
    leaves: Vec<Bytes>,
    pub(super) sealed: Vec<SealedSegment>,
    /// What edits can name, in order.
    pub(super) names: Vec<PathBuf>,
}

impl Original {
    pub(super) fn get() -> &'static Self {
        static ORIGINAL: OnceLock<Original> = OnceLock::new();
        ORIGINAL.get_or_init(Self::write)
    }

    fn write() -> Self {
        let disk = SimDisk::new();
        let (dir, shared): (&Path, Arc<dyn Disk>) = (Path::new(DIR), Arc::new(disk.clone()));
        let (log, _) = Log::open(shared.clone(), dir, IDENTITY, log_options()).expect("a new log");
        wait(|done| log.save_vote(VOTE, done));
        let mut frames = Vec::new();
        let mut leaves = Vec::new();
        for index in 0..FRAMES {
            let frame = frame(index, &mut leaves);
            wait(|done| log.append(vec![frame.clone()], done));
            frames.push(frame);
        }
        log.save_committed(frames.last().map(|frame| frame.log_id));
        while let Some((number, footer)) = next_footer(&log, &frames, &leaves) {
            let sealed = log.seal_segment(number, footer).expect("a full segment");
            let record = ManifestRecord::Sealed(Box::new(sealed));
            log.manifest_append(record).expect("room");
        }
        let sealed = log.sealed().to_vec();
        assert!(sealed.len() >= 3, "a ledger of {} segments", sealed.len());
        log.shutdown();
        // The tree files are derived at the first opening.
        let (store, _) = Store::open(shared, dir, IDENTITY, store_options()).expect("a good log");
        assert_eq!(
            store.log().last().map(|last| last.index.0 + 1),
            Some(FRAMES)
        );
        store.shutdown();
        let mut files = BTreeMap::new();
        for directory in [DIR.into(), dir.join(LOG_DIR), dir.join("tree")] {
            for name in disk.list(&directory).expect("a directory") {
                let path = directory.join(name);
                files.extend(disk.bytes(&path).map(|bytes| (path, bytes)));
            }
        }
        let names = files.keys().cloned().collect();
        Self {
            files,
            frames,
            leaves,
            sealed,
            names,
        }
    }

    fn root(&self, size: TreeSize) -> Hash {
        let mut tree = Frontier::default();
        let leaves = self.leaves.iter().take(size.get() as usize);
        leaves.for_each(|leaf| tree.append(leaf_hash(leaf)));
        tree.root()
    }
}

fn wait(ask: impl FnOnce(Flushed) -> std::io::Result<()>) {
    let (sender, outcome) = mpsc::channel();
    ask(Flushed::new(move |result| drop(sender.send(result)))).expect("the log takes it");
    let outcome = outcome.recv().expect("every callback is called");
    outcome.expect("a disk without faults");
}

/// Entries of one to three leaves, with a blank frame, a void one and an agreed head among them.
fn frame(index: u64, leaves: &mut Vec<Bytes>) -> Frame {
    let term = 1 + index / 6;
    let mut frame = Frame {
        log_id: LogId::new(term, index),
        kind: FrameKind::Entries,
        sequencing_term: term,
        first_leaf: LeafIndex::new(leaves.len() as u64),
        count: 0,
        public: Bytes::new(),
        private: Bytes::new(),
    };
    match index {
        0 | 6 => {
            frame.kind = FrameKind::Blank;
            return frame;
        }
        9 => {
            let body = [&0_u64.to_be_bytes()[..], empty_root().as_bytes()].concat();
            frame.kind = FrameKind::Publish;
            frame.public = body.into();
            return frame;
        }
        _ => {}
    }
    let mut batch = BatchBuilder::new();
    for slot in 0..=index % 3 {
        let key = [b'k', slot as u8];
        let value = vec![index as u8 | 1; 10 * (index as usize % 5)];
        let mut bytes = Vec::new();
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 1_000 + index,
            transaction_position: 0,
            transaction_length: 1,
            prev: Prev::NotAsserted,
            commitment: scribe_proof::commitment(&[9; 16], &[0, 0], &value),
            key: &key,
            author: b"",
            body: b"",
        };
        leaf.encode_into(&mut bytes).expect("a good leaf");
        batch.push(&bytes, Some((&[9; 16], &[0, 0], &value)));
        if index != 7 {
            leaves.push(bytes.into());
        }
    }
    frame.count = batch.count() as u32;
    (frame.public, frame.private) = batch.finish();
    if index == 7 {
        // Sequenced by the leader before: void.
        frame.sequencing_term -= 1;
    }
    frame
}

/// The state around the oldest full segment that is not sealed.
fn next_footer(log: &Log, frames: &[Frame], leaves: &[Bytes]) -> Option<(u32, FooterState)> {
    let number = log.sealed().len() as u32;
    let segment_of = |frame: &&Frame| {
        let position = log.position(frame.log_id.index);
        position.map(|position| position.segment)
    };
    // Not the last one: frames may still be added to it.
    frames
        .iter()
        .find(|frame| segment_of(frame) > Some(number))?;
    let mut state = (TreeSize::EMPTY, Frontier::default(), 0);
    let mut start = (state.0, state.1.root());
    let mut last = None;
    let mut published = (TreeSize::EMPTY, empty_root());
    for frame in frames {
        match segment_of(&frame) {
            Some(segment) if segment > number => break,
            // Of a sealed segment.
            Some(segment) if segment < number => {}
            None => {}
            Some(_) if last.is_none() => start = (state.0, state.1.root()),
            Some(_) => {}
        }
        last = (segment_of(&frame) == Some(number)).then_some(frame.log_id);
        if frame.kind == FrameKind::Publish {
            published = (TreeSize::EMPTY, empty_root());
        }
        if frame.kind == FrameKind::Entries && frame.sequencing_term == frame.log_id.term {
            for _ in 0..frame.count {
                state.1.append(leaf_hash(&leaves[state.0.get() as usize]));
                state.0 = state.0.grown_by(1);
            }
            state.2 = 1_000 + frame.log_id.index.0;
        }
    }
    let footer = FooterState {
        start_size: start.0,
        start_root: start.1,
        end_size: state.0,
        end_root: state.1.root(),
        last_log_id: last?,
        membership: Bytes::from_static(b"members"),
        last_timestamp_ms: state.2,
        published,
    };
    Some((number, footer))
}

/// A directory made of the original's files and edits.
struct Edited {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Bytes of the input itself were written.
    forged: bool,
}

impl Edited {
    fn by(mut input: &[u8]) -> Self {
        let original = Original::get();
        let mut edited = Self {
            files: original.files.clone(),
            forged: false,
        };
        for _ in 0..EDITS_MAX {
            let Some((edit, rest)) = input.split_first_chunk::<EDIT_LENGTH>() else {
                break;
            };
            input = edited.apply(edit, rest, &original.names);
        }
        edited
    }

    /// Makes one edit; what is left of the input.
    fn apply<'a>(
        &mut self,
        edit: &[u8; EDIT_LENGTH],
        input: &'a [u8],
        names: &[PathBuf],
    ) -> &'a [u8] {
        let [
            what,
            file,
            place_high,
            place_low,
            from,
            length_high,
            length_low,
        ] = *edit;
        let name = &names[usize::from(file) % names.len()];
        let other = &names[usize::from(from) % names.len()];
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let place = usize::from(u16::from_be_bytes([place_high, place_low]));
        let source = self.files.get(other).cloned().unwrap_or_default();
        if what % 10 == 7 {
            // Beside the others: staged, a later or an earlier segment, leftovers.
            let dir = Path::new(DIR);
            let beside = match place % 6 {
                0 => dir
                    .join("incoming")
                    .join(other.file_name().unwrap_or_default()),
                1 => file_path(&dir.join(LOG_DIR), LogIndex(length as u64)),
                2 => file_path(&dir.join(LOG_DIR), LogIndex(FRAMES)),
                3 => dir.join(LOG_DIR).join("next.seg"),
                4 => dir.join("MANIFEST.new"),
                _ => dir.join("tree/L1"),
            };
            self.files.insert(beside, source);
            return input;
        }
        let Some(bytes) = self.files.get_mut(name) else {
            return input;
        };
        let place = place % (bytes.len() + 1);
        let end = (place + length).min(bytes.len());
        match what % 10 {
            0 => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= from.max(1);
                }
            }
            1 => bytes.truncate(place),
            2 => bytes[place..end].fill(0),
            3 => bytes.resize(bytes.len() + length % 5_000, 0),
            4 => drop(self.files.remove(name)),
            5 => {
                // The same place of another file, or the same file moved.
                let taken = source.get(place..).unwrap_or_default();
                let taken = &taken[..taken.len().min(length)];
                bytes.truncate(place);
                bytes.extend_from_slice(taken);
            }
            6 => *bytes = source,
            8 => {
                let sector = place / 512 * 512;
                let end = (sector + 512).min(bytes.len());
                bytes[sector..end].fill(0);
            }
            _ => {
                let (written, rest) = input.split_at(length.min(input.len()));
                bytes.splice(place..end, written.iter().copied());
                self.forged |= !written.is_empty();
                return rest;
            }
        }
        input
    }

    fn disk(&self) -> SimDisk {
        let disk = SimDisk::new();
        for (path, bytes) in &self.files {
            let dir = path.parent().unwrap_or(path);
            disk.create_dir_all(dir).expect("a disk without faults");
            let file = disk.open(path, Open::CREATE_NEW).expect("a new file");
            file.write_all_at(bytes, 0).expect("room");
        }
        disk.create_dir_all(&Path::new(DIR).join(LOG_DIR))
            .expect("a disk without faults");
        disk
    }

    fn is_intact(&self, path: &Path) -> bool {
        self.files.get(path) == Original::get().files.get(path)
    }

    fn all_intact(&self) -> bool {
        self.files == Original::get().files
    }
}

/// Opens a damaged directory, once as a log and as a store, and perhaps after a repair.
pub(crate) fn directory(data: &[u8]) {
    let Some((how, edits)) = data.split_first() else {
        return;
    };
    let edited = Edited::by(edits);
    let disk = edited.disk();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = Path::new(DIR);
    let repaired = how & 1 == 1;
    if repaired && repair_accept_loss(&shared, dir, &log_options()).is_err() {
        assert!(!edited.all_intact(), "a good log was refused");
        return;
    }
    let log = match Log::open(shared.clone(), dir, IDENTITY, log_options()) {
        Ok((log, _)) => Some(log),
        Err(error) => {
            assert!(!edited.all_intact(), "a good log was refused: {error}");
            None
        }
    };
    let first = log.map(|log| {
        check_log(&log, &edited, repaired);
        let found = (log.last(), log.vote(), log.sealed());
        log.shutdown();
        found
    });
    let opened = Store::open(shared.clone(), dir, IDENTITY, store_options());
    let Ok((store, _)) = opened else {
        assert!(!edited.all_intact(), "a good store was refused");
        return;
    };
    // What was opened once is opened again, and is the same.
    let found = (store.log().last(), store.log().vote(), store.log().sealed());
    assert_eq!(first, Some(found), "two openings find two logs");
    check_store(&store, &edited);
    store.shutdown();
}

/// What the log says is what was written.
fn check_log(log: &Log, edited: &Edited, repaired: bool) {
    let original = Original::get();
    let dir = Path::new(DIR);
    let sealed = log.sealed();
    let end = log.last().map_or(0, |last| last.index.0.saturating_add(1));
    let mut readable = Vec::new();
    for index in 0..end.min(2 * FRAMES) {
        let read = log.read_from_disk(index..index + 1, usize::MAX);
        readable.push(read.ok().and_then(|frames| frames.into_iter().next()));
    }
    if edited.forged {
        return;
    }
    assert!(end <= FRAMES, "frames nobody wrote: the log ends at {end}");
    assert!(sealed.len() <= original.sealed.len());
    for (found, written) in sealed.iter().zip(&original.sealed) {
        assert!(found.is_same(written), "a segment nobody sealed");
    }
    if edited.is_intact(&dir.join(MANIFEST_NAME)) {
        assert_eq!(sealed.len(), original.sealed.len());
    }
    for (index, found) in (0..).zip(&readable) {
        let index = LogIndex(index);
        let in_sealed = sealed.iter().find(|segment| segment.contains(index));
        match (found, in_sealed) {
            (Some(found), _) => assert_eq!(*found, original.frames[index.0 as usize]),
            (None, Some(segment)) => {
                let path = file_path(&dir.join(LOG_DIR), segment.first_log_index);
                assert!(!edited.is_intact(&path), "frame {index} cannot be read");
            }
            (None, None) => panic!("frame {index} was recovered and cannot be read"),
        }
    }
    if edited.is_intact(&dir.join(WATERMARKS_NAME)) && !repaired {
        assert_eq!(end, FRAMES, "acknowledged frames are gone");
    }
    // Without any file but an empty vote file this is a new node.
    let is_gone = |name| !edited.files.contains_key(&dir.join(name));
    let is_new = end == 0 && is_gone(MANIFEST_NAME) && is_gone(WATERMARKS_NAME);
    if !is_new {
        assert_eq!(log.vote(), Some(VOTE), "a vote is forgotten");
    }
}

/// What the store reads is what was written.
fn check_store(store: &Store, edited: &Edited) {
    let original = Original::get();
    let size = store.applied().tree_size;
    let root = store.root_at(size);
    let entries: Vec<_> = (0..size.get().min(1_000))
        .map(|index| store.entry(LeafIndex::new(index)))
        .collect();
    let checked = store.check(|_, _| {});
    if edited.forged {
        return;
    }
    assert_eq!(root.ok(), Some(original.root(size)), "another root");
    for (entry, leaf) in entries.iter().zip(&original.leaves) {
        match entry {
            Ok(Some(entry)) => assert_eq!(entry.leaf, *leaf, "another entry"),
            Ok(None) => panic!("an entry is missing"),
            Err(_) => assert!(!edited.all_intact() && checked.is_err()),
        }
    }
    if edited.all_intact() {
        assert!(checked.is_ok() && size == original.sealed.last().map_or(size, end_size));
    }
}

fn end_size(segment: &SealedSegment) -> TreeSize {
    segment.footer.end_size
}

/// A segment that another node sent: accepted if, and only if, it is the one that was asked for, byte for byte.
pub(crate) fn staged_segment(data: &[u8]) {
    let Some((number, edits)) = data.split_first() else {
        return;
    };
    let original = Original::get();
    let number = usize::from(*number) % original.sealed.len();
    let wanted = &original.sealed[number];
    let previous = number.checked_sub(1).map(|before| &original.sealed[before]);
    let name =
        |segment: &SealedSegment| file_path(&Path::new(DIR).join(LOG_DIR), segment.first_log_index);
    let edited = Edited::by(edits);
    let Some(bytes) = edited.files.get(&name(wanted)) else {
        return;
    };
    let disk = SimDisk::new();
    let incoming = Path::new("/incoming");
    disk.create_dir_all(incoming).expect("a new disk");
    let part = incoming.join(format!("{:016x}.part", wanted.first_log_index.0));
    let file = disk.open(&part, Open::CREATE_NEW).expect("a new file");
    file.write_all_at(bytes, 0).expect("room");
    let mut builder = TreeBuilder::new();
    let before = original
        .leaves
        .iter()
        .take(wanted.footer.start_size.get() as usize);
    before.for_each(|leaf| builder.append(leaf_hash(leaf), |_, _| ()));
    let (mut done, length) = (0, wanted.file_length);
    let checked = check_staged(
        &file,
        wanted,
        previous,
        Some(&mut builder),
        Path::new("incoming"),
        &mut |at, of| {
            assert!(done <= at && at <= of && of == length, "{at} of {of}");
            done = at;
        },
    );
    let same = Some(bytes) == original.files.get(&name(wanted));
    assert_eq!(checked.is_ok(), same, "{checked:?}");
    // Where an interrupted transfer would go on: behind frames that are the ones wanted, as far as they can be told.
    let resumed = resume(&disk, incoming, wanted).expect("a disk without faults");
    let have = resumed.have;
    let kept = disk.bytes(&part).expect("a file");
    assert_eq!(kept.len() as u64, have);
    assert!(have <= wanted.body_length);
    if same {
        assert_eq!(have, wanted.body_length);
    }
}
