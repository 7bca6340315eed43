//! What clients were promised, and whether the ledger has it.
//!
//! Every writer does one operation after the other, each under an idempotency key of its own, and settles what a fault
//! left open by asking again under the same key before it goes on. So in a ledger that kept its promises the entries of
//! one writer are its operations, each once, in order, and each at the index that was acknowledged: any loss, double,
//! change or swap shows in one pass over the ledger.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scribe_client::wire::{Appended, EntryView, HexHash, Kind};
use scribe_proof::tree::Frontier;
use scribe_proof::{Hash, SignedCheckpoint, VerifierKey};

use crate::trouble::{Result, violation};

/// Keys of recorded writes begin so.
const PREFIX: &str = "w/";
/// Keys each writer has.
pub const SLOTS: u64 = 50;
/// Every this many writes one is long.
const LONG_EVERY: u64 = 128;
/// Violations that are kept and shown; one alone ends a run.
const VIOLATIONS_SHOWN: usize = 10;
/// A watch gives values of up to so many bytes.
const WATCHED_VALUE_MAX: u64 = 64 << 10;
/// So long.
const LONG: usize = 8 * 1_024;

/// The n-th operation of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub writer: u32,
    pub n: u64,
}

impl Operation {
    pub fn key(self) -> String {
        format!("{PREFIX}{}/{}", self.writer, self.n % SLOTS)
    }

    /// How many bytes follow the head of its value, unless the load is heavy.
    pub fn filler(self) -> usize {
        match self.n % LONG_EVERY == LONG_EVERY - 1 {
            true => LONG,
            false => (self.n * 37 % 200) as usize,
        }
    }

    /// The value it writes: says whose it is, and has so many bytes behind that.
    pub fn value(self, length: usize) -> String {
        let Operation { writer, n } = self;
        let mut value = format!("{writer} {n} ");
        // Not all alike, so that bytes of one value in the place of another's are seen.
        let filler = (b'a' + (n % 26) as u8) as char;
        value.extend(std::iter::repeat_n(filler, length));
        value
    }

    /// The operation that wrote this value, if one did and no byte of it is another.
    pub fn of_value(value: &str) -> Option<Operation> {
        let mut words = value.splitn(3, ' ');
        let operation = Operation {
            writer: words.next()?.parse().ok()?,
            n: words.next()?.parse().ok()?,
        };
        let filler = words.next()?.len();
        (operation.value(filler) == value).then_some(operation)
    }
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    operation: Operation,
    filler: u32,
    leaf_hash: HexHash,
}

/// The newest acknowledged version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    pub index: u64,
    pub n: u64,
}

/// The longest time without an acknowledgement since it was last asked for.
#[derive(Debug)]
struct Silence {
    last: Instant,
    longest: Duration,
}

/// All that was promised so far.
#[derive(Debug)]
pub struct Record {
    /// By leaf index.
    promises: Mutex<Vec<Option<Promise>>>,
    /// What a watch gave, by leaf index.
    watched: Mutex<Vec<u64>>,
    /// By writer and slot.
    newest: Vec<Mutex<Vec<Option<Newest>>>>,
    acknowledged: AtomicU64,
    silence: Mutex<Silence>,
    /// Root hash by tree size, of every checkpoint ever seen.
    roots: Mutex<BTreeMap<u64, Hash>>,
    /// The largest of them, as it was signed.
    newest_note: Mutex<(u64, String)>,
    violations: Mutex<Vec<String>>,
}

/// Of all that a watch and a page both give of an entry: a watch leaves long values out.
fn fingerprint(entry: &EntryView) -> u64 {
    let mut hasher = DefaultHasher::new();
    let value = entry.value.as_deref();
    let value = value.filter(|_| entry.value_length <= WATCHED_VALUE_MAX);
    (&entry.key, entry.timestamp_ms, entry.leaf_hash.0, value).hash(&mut hasher);
    hasher.finish()
}

/// A lock whose holder panicked still has what was recorded.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Record {
    pub fn new(writers: u32) -> Record {
        Record {
            promises: Mutex::default(),
            watched: Mutex::default(),
            newest: (0..writers)
                .map(|_| Mutex::new(vec![None; SLOTS as usize]))
                .collect(),
            acknowledged: AtomicU64::new(0),
            silence: Mutex::new(Silence {
                last: Instant::now(),
                longest: Duration::ZERO,
            }),
            roots: Mutex::default(),
            newest_note: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub fn writers(&self) -> u32 {
        self.newest.len() as u32
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Something that was promised does not hold.
    pub fn violated(&self, text: String) {
        let mut violations = lock(&self.violations);
        match violations.len() {
            0..VIOLATIONS_SHOWN => eprintln!("!!! VIOLATION: {text}"),
            VIOLATIONS_SHOWN => eprintln!("!!! and more; not shown"),
            _ => return,
        }
        violations.push(text);
    }

    /// All that were seen.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// Ends a run that has seen a violation.
    pub fn check(&self) -> Result<()> {
        match lock(&self.violations).first() {
            Some(text) => violation(text.clone()),
            None => Ok(()),
        }
    }

    /// Takes in an acknowledgement.
    pub fn promised(&self, operation: Operation, filler: usize, appended: &Appended) {
        let promise = Promise {
            operation,
            filler: filler as u32,
            leaf_hash: appended.leaf_hash,
        };
        {
            let mut promises = lock(&self.promises);
            let place = appended.index as usize;
            if promises.len() <= place {
                promises.resize(place + 1, None);
            }
            if let Some(before) = promises[place].replace(promise) {
                self.violated(format!(
                    "leaf index {place} was acknowledged twice: to {:?} and to {operation:?}",
                    before.operation
                ));
            }
        }
        let newest = Newest {
            index: appended.index,
            n: operation.n,
        };
        let slot = (operation.n % SLOTS) as usize;
        let mut slots = lock(&self.newest[operation.writer as usize]);
        if let Some(before) = slots[slot].replace(newest)
            && before.index >= newest.index
        {
            self.violated(format!(
                "{operation:?} was acknowledged at leaf index {}, though the one before it has {}",
                newest.index, before.index
            ));
        }
        drop(slots);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut silence = lock(&self.silence);
        silence.longest = silence.longest.max(silence.last.elapsed());
        silence.last = Instant::now();
    }

    /// The newest acknowledged version in a slot of a writer.
    pub fn newest(&self, writer: u32, slot: u64) -> Option<Newest> {
        lock(&self.newest[writer as usize])[slot as usize]
    }

    /// From now on the longest silence is measured anew.
    pub fn listen(&self) {
        *lock(&self.silence) = Silence {
            last: Instant::now(),
            longest: Duration::ZERO,
        };
    }

    /// The longest time since then without any acknowledgement.
    pub fn longest_silence(&self) -> Duration {
        let silence = lock(&self.silence);
        silence.longest.max(silence.last.elapsed())
    }

    /// Takes in a checkpoint that some node showed. Whether it is a new one.
    pub fn checkpoint(&self, from: &str, note: &str, key: &VerifierKey) -> bool {
        let verified = SignedCheckpoint::parse(note).and_then(|signed| signed.verify(key).cloned());
        let checkpoint = match verified {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.violated(format!(
                    "{from} shows a checkpoint that does not hold: {error}: {note:?}"
                ));
                return false;
            }
        };
        {
            let mut newest = lock(&self.newest_note);
            if newest.0 < checkpoint.size.get() {
                *newest = (checkpoint.size.get(), note.to_owned());
            }
        }
        let mut roots = lock(&self.roots);
        match roots.insert(checkpoint.size.get(), checkpoint.root) {
            None => true,
            Some(before) if before == checkpoint.root => false,
            Some(before) => {
                let text = format!(
                    "two signed checkpoints of size {} have different roots: {before}, and {} from {from}",
                    checkpoint.size, checkpoint.root
                );
                drop(roots);
                self.violated(text);
                true
            }
        }
    }

    /// The largest checkpoint seen so far, as it was signed; empty before the first.
    pub fn newest_note(&self) -> String {
        lock(&self.newest_note).1.clone()
    }

    /// Checkpoints seen so far.
    pub fn checkpoints(&self) -> usize {
        lock(&self.roots).len()
    }

    /// Keeps what a watch gave, to be held against the ledger. To be told in order, from the first entry on.
    pub fn watched(&self, entry: &EntryView) {
        lock(&self.watched).push(fingerprint(entry));
    }

    /// How many entries were watched.
    pub fn watched_size(&self) -> u64 {
        lock(&self.watched).len() as u64
    }

    /// Holds one entry of the ledger against the promises, and against what a watch gave in its place. To be asked in order,
    /// while nobody writes.
    pub fn hold(&self, progress: &mut Progress, through: &str, entry: &EntryView) -> Result<()> {
        let index = progress.next;
        if entry.index != index {
            return violation(format!(
                "{through} gives entry {} where {index} is due",
                entry.index
            ));
        }
        if entry.timestamp_ms < progress.timestamp_ms {
            return violation(format!(
                "{through}: entry {index} is of {} ms, the one before it of {} ms",
                entry.timestamp_ms, progress.timestamp_ms
            ));
        }
        let promise = lock(&self.promises).get(index as usize).copied().flatten();
        if let Some(root) = lock(&self.roots).get(&index).copied()
            && root != progress.frontier.root()
        {
            return violation(format!(
                "{through}: the entries before {index} have the root {}, but a checkpoint signed {root}",
                progress.frontier.root()
            ));
        }
        self.hold_to(promise, progress, through, entry)?;
        let watched = lock(&self.watched).get(index as usize).copied();
        if watched.is_some_and(|watched| watched != fingerprint(entry)) {
            return violation(format!(
                "{through}: entry {index} (`{}`) is not what a watch gave in its place",
                entry.key.as_deref().unwrap_or_default()
            ));
        }
        progress.next += 1;
        progress.timestamp_ms = entry.timestamp_ms;
        progress.frontier.append(entry.leaf_hash.into());
        Ok(())
    }

    fn hold_to(
        &self,
        promise: Option<Promise>,
        progress: &mut Progress,
        through: &str,
        entry: &EntryView,
    ) -> Result<()> {
        let index = entry.index;
        let key = entry.key.as_deref().unwrap_or_default();
        let Some(promise) = promise else {
            return match key.starts_with(PREFIX) {
                true => violation(format!(
                    "{through}: entry {index} (`{key}`, {:?}) was never acknowledged, or is there twice",
                    entry
                        .value
                        .as_deref()
                        .map(|value| value.chars().take(30).collect::<String>())
                )),
                false if entry.kind == Kind::System => Ok(()),
                false => violation(format!("{through}: entry {index} (`{key}`) is nobody's")),
            };
        };
        let Operation { writer, n } = promise.operation;
        if key != promise.operation.key()
            || entry.value.as_deref()
                != Some(promise.operation.value(promise.filler as usize).as_str())
            || entry.leaf_hash != promise.leaf_hash
        {
            return violation(format!(
                "{through}: entry {index} was acknowledged as {:?} with leaf hash {}, but is `{key}` = {:?} with {}",
                promise.operation,
                promise.leaf_hash,
                entry
                    .value
                    .as_deref()
                    .map(|value| value.chars().take(60).collect::<String>()),
                entry.leaf_hash
            ));
        }
        let due = &mut progress.due[writer as usize];
        if *due != n {
            return violation(format!(
                "{through}: entry {index} is operation {n} of writer {writer}, operation {due} is due: lost, doubled or \
                 swapped"
            ));
        }
        *due += 1;
        progress.held += 1;
        Ok(())
    }

    /// Whether all promises below the end of the ledger were held, and none is beyond it.
    pub fn all_held(&self, progress: &Progress, through: &str) -> Result<()> {
        let promises = lock(&self.promises);
        let beyond = promises
            .iter()
            .skip(progress.next as usize)
            .flatten()
            .count();
        let first = promises
            .iter()
            .skip(progress.next as usize)
            .flatten()
            .next();
        if let Some(first) = first {
            return violation(format!(
                "{through}: the ledger ends at {}, {beyond} acknowledged writes are lost, the first is {:?}",
                progress.next, first.operation
            ));
        }
        let promised = promises.iter().flatten().count() as u64;
        match progress.held == promised {
            true => Ok(()),
            false => violation(format!(
                "{through}: {} of {promised} promises held",
                progress.held
            )),
        }
    }
}

/// How far a comparison of the ledger with the record is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Index of the next entry.
    pub next: u64,
    timestamp_ms: u64,
    /// The tree so far.
    pub frontier: Frontier,
    /// By writer: its next operation.
    due: Vec<u64>,
    held: u64,
}

impl Progress {
    /// At the beginning of the ledger.
    pub fn new(writers: u32) -> Progress {
        Progress {
            next: 0,
            timestamp_ms: 0,
            frontier: Frontier::default(),
            due: vec![0; writers as usize],
            held: 0,
        }
    }
}

#[cfg(test)]
mod tests;
