//! The disk's own limit: one append and one fdatasync after another.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::output::Failure;
use super::LATENCY_MAX_US;
use super::load::{Measured, random_text};

/// The file is allocated ahead and written around in, as a log is: growing it would measure the file system too.
const FILE_LENGTH: u64 = 256 * 1_024 * 1_024;

/// Removes the file, however the measurement ends.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing better can be done with a file that cannot be removed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Appends `length` bytes (at least 1) and syncs, again and again, in a temporary file in `dir`.
pub(super) fn measure(dir: &Path, length: usize, duration: Duration) -> Result<Measured, Failure> {
    let path = dir.join(format!("scribe-bench-{}.tmp", std::process::id()));
    let failed = |error: std::io::Error| Failure::file("write", &path, &error);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed)?;
    let _temporary = Temporary(path.clone());
    let bytes = random_text(length.max(1));
    let length = bytes.len() as u64;
    let file_length = FILE_LENGTH.max(length);
    if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, file_length).is_err() {
        file.set_len(file_length).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;

    let mut latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
        .map_err(|error| Failure::unexpected(error.to_string()))?;
    let (start, mut operations, mut offset) = (Instant::now(), 0, 0);
    while start.elapsed() < duration {
        let begun = Instant::now();
        file.write_all_at(&bytes, offset).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        latency_us.saturating_record(begun.elapsed().as_micros().max(1) as u64);
        operations += 1;
        offset += length;
        if offset + length > file_length {
            offset = 0;
        }
    }
    Ok(Measured {
        latency_us,
        operations,
        errors: 0,
        first_error: None,
        elapsed: start.elapsed(),
    })
}
