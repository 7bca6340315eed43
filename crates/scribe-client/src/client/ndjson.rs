//! Lines out of a stream of pieces.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest line of an answer; results are some hundred bytes.
pub(super) const LINE_LENGTH_MAX: usize = 1_024 * 1_024;

/// Cuts pieces of a body into lines, without their newlines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// No newline before this place.
    searched: usize,
}

/// A line is longer than [`LINE_LENGTH_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Lines {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole line, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let length = newline.map_or(self.buffer.len(), |at| self.searched + at);
        if length > LINE_LENGTH_MAX {
            return Err(LineTooLong);
        }
        if newline.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let text = b"a\n\nlong line\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, ["a", "", "long line"]);
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(&[b'x'; LINE_LENGTH_MAX]);
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next(), Err(LineTooLong));
    }
}
