//! Cuts an upload's body into lines.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use scribe_client::code::ErrorCode;

use crate::http::body::next_data;
use crate::http::error::ApiError;
use crate::limits;

/// What is still read and thrown away of an upload that was stopped, so that its sender gets to read why.
const DISCARD_BYTES_MAX: usize = 256 * limits::MIB;

/// Cuts a body into lines.
pub(super) struct LineReader {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to have no newline.
    searched: usize,
    /// Number of the last line taken; the first line is 1.
    pub(super) number: u64,
}

impl LineReader {
    pub(super) fn new(body: Body) -> LineReader {
        LineReader {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            number: 0,
        }
    }

    /// The next complete line without its newline; at the end of the body also what has none.
    pub(super) fn take(&mut self, ended: bool) -> Option<Bytes> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let line = match found {
            Some(place) => {
                let mut line = self.buffer.split_to(self.searched + place + 1);
                line.truncate(line.len() - 1);
                line
            }
            None if ended && !self.buffer.is_empty() => self.buffer.split(),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        self.searched = 0;
        self.number += 1;
        Some(line.freeze())
    }

    /// Reads some more; `false` at the end of the body. Dropping the future loses nothing.
    pub(super) async fn more(&mut self) -> Result<bool, ApiError> {
        if self.buffer.len() > limits::BULK_LINE_LENGTH_MAX {
            return Err(ApiError::new(
                ErrorCode::MalformedLine,
                format!(
                    "line {} is longer than the {} bytes allowed",
                    self.number + 1,
                    limits::BULK_LINE_LENGTH_MAX
                ),
            ));
        }
        let wait = Duration::from_millis(limits::BULK_IDLE_TIMEOUT_MS);
        match tokio::time::timeout(wait, next_data(&mut self.body)).await {
            Ok(Ok(Some(data))) => {
                self.buffer.extend_from_slice(&data);
                Ok(true)
            }
            Ok(Ok(None)) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::new(
                ErrorCode::RequestTimeout,
                format!("no line came for {} ms", limits::BULK_IDLE_TIMEOUT_MS),
            )),
        }
    }

    /// Reads and throws away.
    pub(super) async fn discard(&mut self) {
        self.buffer = BytesMut::new();
        let mut discarded = 0;
        while let Ok(Some(data)) = next_data(&mut self.body).await {
            discarded += data.len();
            if discarded > DISCARD_BYTES_MAX {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_wherever_the_pieces_end() {
        let pieces: Vec<Result<&'static str, std::io::Error>> =
            vec![Ok("a"), Ok("b\n\nc"), Ok("\n"), Ok("\nlast")];
        let mut lines = LineReader::new(Body::from_stream(futures::stream::iter(pieces)));
        let mut found = Vec::new();
        let mut ended = false;
        loop {
            while let Some(line) = lines.take(ended) {
                found.push((lines.number, line));
            }
            if ended {
                break;
            }
            ended = !lines.more().await.unwrap();
        }
        let expected = [(1, "ab"), (2, ""), (3, "c"), (4, ""), (5, "last")];
        assert_eq!(
            found,
            expected.map(|(number, line)| (number, Bytes::from(line)))
        );
    }
}
