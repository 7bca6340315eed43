//! What happens in a run, line by line: the evidence when something is wrong, and what two runs of a seed are compared by.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Lines kept in memory for a failure.
const LAST: usize = 200;

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    now_ms: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    last: VecDeque<String>,
    count: u64,
    /// FNV-1a of all lines.
    hash: u64,
    file: Option<BufWriter<File>>,
    echo: bool,
}

impl Trace {
    /// A trace that also writes every line to a file, or to stderr.
    pub fn new(path: Option<&Path>, echo: bool) -> std::io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self(Arc::new(Inner {
            now_ms: AtomicU64::new(0),
            lines: Mutex::new(Lines {
                last: VecDeque::new(),
                count: 0,
                hash: 0xcbf2_9ce4_8422_2325,
                file,
                echo,
            }),
        })))
    }

    /// Sets the simulated time that lines get, milliseconds.
    pub fn set_now(&self, ms: u64) {
        self.0.now_ms.store(ms, Ordering::Relaxed);
    }

    /// Simulated time, milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Ordering::Relaxed)
    }

    /// Adds a line.
    pub fn line(&self, text: impl std::fmt::Display) {
        let line = format!("{:>7} {text}", self.now_ms());
        let mut lines = self.0.lines.lock();
        lines.count += 1;
        for byte in line.bytes().chain([b'\n']) {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if let Some(file) = &mut lines.file {
            // A trace that cannot be written is noticed when two are compared.
            let _ = writeln!(file, "{line}");
        }
        if lines.echo {
            eprintln!("{line}");
        }
        if lines.last.len() == LAST {
            lines.last.pop_front();
        }
        lines.last.push_back(line);
    }

    /// How many lines there are, and their hash.
    pub fn digest(&self) -> (u64, u64) {
        let mut lines = self.0.lines.lock();
        if let Some(file) = &mut lines.file {
            let _ = file.flush();
        }
        (lines.count, lines.hash)
    }

    /// The last lines.
    pub fn last(&self) -> Vec<String> {
        self.0.lines.lock().last.iter().cloned().collect()
    }
}
