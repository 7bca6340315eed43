//! Any byte of any file, changed, added or taken away: the audit fails and names the file.
//!
//! What is not noticed must be on a list here, with the reason why nothing promised is in it. `SCRIBE_AUDIT_FLIPS` says
//! how many bytes are flipped (in each of the two directories), `SCRIBE_AUDIT_SEED` which.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use scribe::audit::{AuditError, AuditReport};
use scribe_proof::{Tile, TilePath};

use crate::audit_support::{Kept, files};

/// Bytes flipped in each directory unless the environment says otherwise.
const FLIPS: u64 = 500;
const SEED: u64 = 0x5c71_be1e_d6e7_0004;

type Audit = fn(&Kept) -> Result<AuditReport, AuditError>;

/// Random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Flip,
    Truncate,
    Delete,
    Append,
    Swap,
}

/// Why a change need not be noticed: what it touches is no part of what is promised, and not of what is derived either.
fn unpromised(name: &str, change: Change, zeros_only: bool, stale: bool) -> Option<&'static str> {
    let in_log = name.starts_with("log/");
    if let Some(file) = name.strip_prefix("index/") {
        let (_, last) = file.rsplit_once('/').unwrap_or(("", file));
        return if file == "lock" || file.ends_with(".jnl") {
            // That it is blank is checked.
            (change != Change::Flip)
                .then_some("lock and journal of the index's database, both empty for ever, and made again if need be")
        } else if file == "version" && change == Change::Append {
            Some("bytes behind the mark that says which database this is: it reads four")
        } else if last.starts_with('v') && file.starts_with("keyspaces/") {
            Some(
                "an older list of tables in the index's database: superseded, and deleted when it is opened",
            )
        } else if file.contains("/tables/") {
            Some(
                "a part of a table of the index that no answer comes from (filters, statistics) or of one that is no \
                 longer in use; the index is derived, and what it answers was compared",
            )
        } else {
            None
        };
    }
    if name == "LOCK" && change == Change::Delete {
        return Some("the lock file is empty, and the next start makes it again");
    }
    if name == "log/next.seg" && matches!(change, Change::Truncate | Change::Delete) {
        return Some("the file is allocated ahead and holds nothing");
    }
    if change == Change::Delete && stale {
        return Some(
            "a partial form of a tile that is wider by now: whoever serves tiles may delete it",
        );
    }
    if in_log && zeros_only && matches!(change, Change::Truncate | Change::Append) {
        return Some(
            "zeros behind the last frame of a file that is not full: allocated ahead, they hold nothing",
        );
    }
    None
}

/// Whether a file of a tile directory is a partial form that its newest checkpoint does not need.
fn is_stale(kept: &Kept, name: &str) -> bool {
    let size = kept.checkpoints[2].checkpoint().size;
    let name = name.replacen("openings/", "tile/entries/", 1);
    TilePath::parse(&name).is_ok_and(|path| {
        let tile = path.tile();
        Tile::at(tile.level(), tile.index(), size).is_some_and(|newest| newest != *tile)
    })
}

/// Whether a finding names a file. What the index says is never of one file.
fn names(error: &AuditError, name: &str) -> bool {
    match error {
        AuditError::Finding(finding) if name.starts_with("index/") => {
            finding.place == name || finding.place == "index"
        }
        AuditError::Finding(finding) => finding.place == name,
        _ => false,
    }
}

/// One directory under attack.
struct Attack<'a> {
    kept: &'a Kept,
    directory: PathBuf,
    audit: Audit,
    seed: u64,
    /// What was not noticed, by reason.
    unnoticed: BTreeMap<&'static str, Vec<String>>,
    noticed: u64,
    /// Findings without an entry, byte or key.
    with_entry: u64,
}

impl<'a> Attack<'a> {
    fn new(kept: &'a Kept, directory: PathBuf, audit: Audit) -> Attack<'a> {
        audit(kept).unwrap();
        Attack {
            kept,
            directory,
            audit,
            seed: number("SCRIBE_AUDIT_SEED", SEED),
            unnoticed: BTreeMap::new(),
            noticed: 0,
            with_entry: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Audits the changed directory; either the finding names the file, or the change is on the list.
    fn judge(&mut self, name: &str, change: Change, what: &str, zeros_only: bool) {
        match (self.audit)(self.kept) {
            Err(error) => {
                assert!(
                    names(&error, name),
                    "{what} of {name}: the finding names another place: {error:?} (seed {})",
                    self.seed
                );
                self.noticed += 1;
                if let AuditError::Finding(finding) = &error {
                    self.with_entry += u64::from(finding.index.is_some());
                }
            }
            Ok(report) => {
                // A signature that became one by an unknown key is shown as such.
                let unknown = !report.signatures.by_unknown.is_empty();
                let reason = match unpromised(name, change, zeros_only, is_stale(self.kept, name)) {
                    Some(reason) => reason,
                    None if name == "checkpoint" && unknown => {
                        "a cosignature beyond the policy's quorum became one by a key nobody knows; the report shows it"
                    }
                    None => panic!("{what} of {name} is not noticed (seed {})", self.seed),
                };
                self.unnoticed
                    .entry(reason)
                    .or_default()
                    .push(format!("{what} of {name}"));
            }
        }
    }

    /// Flips one byte, audits, flips it back.
    fn flip(&mut self, name: &str, offset: u64, mask: u8) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
        self.judge(
            name,
            Change::Flip,
            &format!("flip {mask:#04x} at {offset}"),
            false,
        );
        file.write_all_at(&byte, offset).unwrap();
    }

    /// Flips bytes at random places: in three of four cases where a file has content, in the others anywhere.
    fn flips(&mut self) {
        let mut random = Random(self.seed);
        let sizes: Vec<(String, u64, u64)> = files(&self.directory)
            .into_iter()
            .filter_map(|name| {
                let bytes = fs::read(self.path(&name)).unwrap();
                let content = bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last as u64 + 1);
                (!bytes.is_empty()).then_some((name, content, bytes.len() as u64))
            })
            .collect();
        let content: u64 = sizes.iter().map(|(_, content, _)| content).sum();
        for _ in 0..number("SCRIBE_AUDIT_FLIPS", FLIPS) {
            let mask = 1 << random.below(8);
            match random.below(4) {
                // Any file, however small.
                0 => {
                    let (name, _, length) = &sizes[random.below(sizes.len() as u64) as usize];
                    let offset = random.below(*length);
                    self.flip(name, offset, mask);
                }
                // Any byte of content.
                _ => {
                    let mut at = random.below(content);
                    let found = sizes.iter().find(|(_, content, _)| match at < *content {
                        true => true,
                        false => {
                            at -= content;
                            false
                        }
                    });
                    let (name, ..) = found.unwrap();
                    self.flip(name, at, mask);
                }
            }
        }
    }

    /// Cuts, deletes and lengthens every file, and swaps neighbours.
    fn files(&mut self) {
        let all = files(&self.directory);
        for name in &all {
            let path = self.path(name);
            let bytes = fs::read(&path).unwrap();
            for length in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                if length < bytes.len() {
                    fs::write(&path, &bytes[..length]).unwrap();
                    let zeros = bytes[length..].iter().all(|byte| *byte == 0);
                    self.judge(
                        name,
                        Change::Truncate,
                        &format!("cut to {length} bytes"),
                        zeros,
                    );
                }
            }
            for more in [&b"x"[..], &[0; 8]] {
                fs::write(&path, [&bytes, more].concat()).unwrap();
                let zeros = more[0] == 0;
                self.judge(
                    name,
                    Change::Append,
                    &format!("{more:02x?} appended"),
                    zeros,
                );
            }
            fs::remove_file(&path).unwrap();
            self.judge(name, Change::Delete, "deletion", false);
            fs::write(&path, &bytes).unwrap();
        }
        for pair in all.windows(2) {
            let (a, b) = (self.path(&pair[0]), self.path(&pair[1]));
            if fs::read(&a).unwrap() == fs::read(&b).unwrap() || a.parent() != b.parent() {
                continue;
            }
            swap(&a, &b);
            // Both are wrong now: the finding names one of them.
            match (self.audit)(self.kept) {
                Err(error) if names(&error, &pair[1]) => self.noticed += 1,
                _ => self.judge(
                    &pair[0],
                    Change::Swap,
                    &format!("swap with {}", pair[1]),
                    false,
                ),
            }
            swap(&a, &b);
        }
    }

    fn finish(self) {
        (self.audit)(self.kept).unwrap();
        println!(
            "{}: {} changes noticed ({} with the entry named)",
            self.directory.display(),
            self.noticed,
            self.with_entry
        );
        for (reason, changes) in &self.unnoticed {
            println!("  {} not noticed: {reason}", changes.len());
            changes
                .iter()
                .take(5)
                .for_each(|change| println!("    {change}"));
        }
        assert!(self.noticed > 0);
    }
}

fn swap(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(&aside, b).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_flipped_byte_of_a_data_directory_is_named_or_listed() {
    let kept = Kept::make().await;
    let mut attack = Attack::new(&kept, kept.data(), Kept::audit_data);
    attack.flips();
    attack.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_file_of_a_data_directory_cut_or_gone_is_named_or_listed() {
    let kept = Kept::make().await;
    let mut attack = Attack::new(&kept, kept.data(), Kept::audit_data);
    attack.files();
    attack.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_flipped_byte_of_a_tile_directory_is_named() {
    let kept = Kept::make().await;
    let mut attack = Attack::new(&kept, kept.tiles(), Kept::audit_tiles);
    attack.flips();
    attack.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_file_of_a_tile_directory_cut_or_gone_is_named_or_listed() {
    let kept = Kept::make().await;
    let mut attack = Attack::new(&kept, kept.tiles(), Kept::audit_tiles);
    attack.files();
    attack.finish();
}
