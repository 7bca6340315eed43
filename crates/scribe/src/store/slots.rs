//! Files of two slots at the same distance, of which the rest is zero: `vote` and `watermarks`.

use std::io;

use super::disk::{DiskFile, read_full_at};

/// Takes away what damage left between and behind the two slots, so that an audit finds the file as it must be. Nothing
/// there counts: a crash here leaves all of it, or less.
pub(super) fn clear_around(
    file: &dyn DiskFile,
    slot_length: usize,
    record_length: usize,
) -> io::Result<()> {
    let end = (slot_length + record_length) as u64;
    let mut between = vec![0; slot_length - record_length];
    read_full_at(file, &mut between, record_length as u64)?;
    let (blank, longer) = (between.iter().all(|byte| *byte == 0), file.len()? > end);
    if blank && !longer {
        return Ok(());
    }
    if longer {
        file.set_len(end)?;
    }
    if !blank {
        between.fill(0);
        file.write_all_at(&between, record_length as u64)?;
    }
    file.sync_all()
}
