//! Turns a full segment into a sealed one: reads it back, checks every frame, writes the footer.

use std::io;

use scribe_proof::hash::Hash;
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::frame::FrameHeader;
use super::log::Inner;
use super::scan::{Expected, Scanner};
use super::segment::{
    FooterState, MEMBERSHIP_LENGTH_MAX, SEGMENT_HEADER_LENGTH, SealedSegment, SparseBuilder,
    file_path,
};
use super::state::{OpenSegment, invalid};
use super::writer::poisoned;
use crate::planted;

impl Inner {
    pub(crate) fn seal_segment(
        &self,
        segment: u32,
        footer: FooterState,
    ) -> io::Result<SealedSegment> {
        self.queue.check()?;
        let open = self.segment_to_seal(segment, &footer)?;
        self.write_footer(&open, footer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => error,
                _ => poisoned(&self.poison(&error.to_string())),
            })
    }

    /// Waits until the first frame behind the segment is on disk: a footer in the last segment could not be told from
    /// a torn group.
    fn segment_to_seal(&self, segment: u32, footer: &FooterState) -> io::Result<OpenSegment> {
        let mut state = self.state.lock();
        loop {
            if let Some(first) = self.queue.poison() {
                return Err(poisoned(&first));
            }
            let oldest = state.open.front().filter(|open| open.number == segment);
            let (Some(open), Some(next)) = (oldest, state.open.get(1)) else {
                return Err(invalid(format!(
                    "segment {segment} is to be sealed, allowed {:?} once it is full",
                    state.open.front().map(|open| open.number)
                )));
            };
            let last = (open.last_index(), open.frames.last().map(|meta| meta.term));
            if last != (footer.last_log_id.index, Some(footer.last_log_id.term)) {
                return Err(invalid(format!(
                    "footer of segment {segment} ends at {}, its last frame is {}",
                    footer.last_log_id, last.0
                )));
            }
            if footer.membership.len() > MEMBERSHIP_LENGTH_MAX {
                return Err(invalid(format!(
                    "membership has {} bytes, allowed {MEMBERSHIP_LENGTH_MAX}",
                    footer.membership.len()
                )));
            }
            if state
                .flushed
                .is_some_and(|flushed| flushed.index >= next.first)
            {
                return Ok(open.clone());
            }
            self.flushed_changed.wait(&mut state);
        }
    }

    fn write_footer(&self, open: &OpenSegment, footer: FooterState) -> io::Result<SealedSegment> {
        let file = self.file(open.number, open.first)?;
        let path = file_path(&self.log_dir, open.first);
        let end = u64::from(open.end());
        let mut scanner = Scanner::new(&*file, end);
        let mut sha = Sha256::new();
        let mut sparse = SparseBuilder::new(footer.start_size);
        sha.update(scanner.bytes(0, SEGMENT_HEADER_LENGTH)?);
        let mut expected = Expected {
            index: open.first,
            term: 0,
            chain: open.previous_chain,
        };
        let mut offset = SEGMENT_HEADER_LENGTH as u64;
        while offset < end {
            let damage =
                |reason: String| -> io::Error { StoreError::damaged(&path, offset, reason).into() };
            let found = scanner
                .frame(offset)?
                .map_err(|error| damage(error.to_string()))?;
            expected.check(&found).map_err(damage)?;
            let bytes = scanner.bytes(offset, found.length)?;
            sha.update(&bytes);
            if let Ok(header) = FrameHeader::parse(&bytes) {
                sparse.push(&header, offset as u32);
            }
            expected = Expected::after(found.frame.log_id, found.chain);
            offset += found.length as u64;
        }
        let (end_size, sparse) = sparse.finish();
        if end_size != footer.end_size {
            return Err(invalid(format!(
                "segment {} grows the tree from {} to {}, its footer says {}",
                open.number, footer.start_size, end_size, footer.end_size
            )));
        }
        let mut sealed = SealedSegment {
            number: open.number,
            generation: 0,
            first_log_index: open.first,
            last_log_id: footer.last_log_id,
            last_chain: expected.chain,
            frame_count: open.frames.len() as u32,
            body_length: end,
            file_length: end,
            body_sha256: Hash(sha.finalize().into()),
            cluster_id: self.identity.cluster_id,
            footer,
            sparse,
        };
        let bytes = sealed.encode_footer();
        sealed.file_length += bytes.len() as u64;
        // A crash before the sync leaves the frames, which are durable, and any part of the footer behind them. The
        // segment has a successor, so recovery knows where its frames end; sealing is repeated with the same bytes.
        file.set_len(end)?;
        file.write_all_at(&bytes, end)?;
        // planted
        if !planted::has("manifest-before-data") {
            file.sync_all()?;
        }
        Ok(sealed)
    }
}
