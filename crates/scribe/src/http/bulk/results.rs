//! Results of an upload on their way to its reader, who may come late.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use scribe_client::wire::{BulkReply, BulkResult, Problem};
use scribe_proof::index::LeafIndex;
use scribe_proof::leaf::Leaf;
use tokio::sync::Notify;

use crate::http::convert;
use crate::http::error::ApiError;
use crate::limits;
use crate::node::Node;
use crate::sequencer::Appended;

/// Undelivered result lines kept as text; beyond it successes are kept as runs.
const RESULT_TEXT_MAX: usize = 4 * limits::MIB;
/// Undelivered results kept in any form; beyond it (all failures, say) the upload waits for its reader.
const RESULT_BYTES_MAX: usize = 64 * limits::MIB;
/// What a run is counted as.
const RUN_BYTES: usize = 64;
/// Entries read at once to make the lines of a run again.
const RUN_STEP: usize = 512;

/// Line numbers and what became of the lines.
pub(super) type Outcomes = Vec<(u64, Result<Appended, ApiError>)>;

/// Results on their way from the upload to its reader.
#[derive(Default)]
pub(super) struct Results {
    state: Mutex<ResultState>,
    /// There is something to read, or the end.
    readable: Notify,
    /// There is room, or no reader.
    writable: Notify,
}

#[derive(Default)]
struct ResultState {
    chunks: VecDeque<Chunk>,
    byte_length: usize,
    closed: bool,
    cut_off: bool,
    reader_gone: bool,
}

enum Chunk {
    /// Result lines as they are sent.
    Text(Bytes),
    /// Successes on consecutive lines with consecutive indexes.
    Run { line: u64, index: u64, count: u64 },
}

impl Chunk {
    fn byte_length(&self) -> usize {
        match self {
            Chunk::Text(text) => text.len(),
            Chunk::Run { .. } => RUN_BYTES,
        }
    }
}

impl Results {
    /// Adds results, waiting for the reader only if even their short form is too much. `false` if there is no reader.
    pub(super) async fn push(&self, outcomes: Outcomes) -> bool {
        loop {
            let writable = self.writable.notified();
            {
                let state = self.state.lock();
                if state.reader_gone {
                    return false;
                }
                if state.byte_length < RESULT_BYTES_MAX {
                    break;
                }
            }
            writable.await;
        }
        let as_text = self.state.lock().byte_length < RESULT_TEXT_MAX;
        let mut chunks = Vec::new();
        let mut text = Vec::with_capacity(if as_text { outcomes.len() * 160 } else { 0 });
        let mut run: Option<(u64, u64, u64)> = None;
        for (line, outcome) in outcomes {
            if !as_text
                && let Ok(appended) = &outcome
                && can_be_made_again(appended)
            {
                let index = appended.index.get();
                run = match run {
                    Some((first_line, first, count))
                        if first_line + count == line && first + count == index =>
                    {
                        Some((first_line, first, count + 1))
                    }
                    before => {
                        flush_text(&mut chunks, &mut text);
                        flush_run(&mut chunks, before);
                        Some((line, index, 1))
                    }
                };
                continue;
            }
            flush_run(&mut chunks, run.take());
            write_result(&mut text, line, outcome);
        }
        flush_run(&mut chunks, run);
        flush_text(&mut chunks, &mut text);
        let mut state = self.state.lock();
        for chunk in chunks {
            state.add(chunk);
        }
        drop(state);
        self.readable.notify_one();
        true
    }

    pub(super) fn push_text(&self, text: Vec<u8>) {
        self.state.lock().add(Chunk::Text(Bytes::from(text)));
        self.readable.notify_one();
    }

    pub(super) fn close(&self, cut_off: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.cut_off = cut_off;
        drop(state);
        self.readable.notify_one();
    }
}

impl ResultState {
    fn add(&mut self, chunk: Chunk) {
        if let (
            Some(Chunk::Run { line, index, count }),
            Chunk::Run {
                line: next_line,
                index: next_index,
                count: more,
            },
        ) = (self.chunks.back_mut(), &chunk)
            && *line + *count == *next_line
            && *index + *count == *next_index
        {
            *count += more;
            return;
        }
        self.byte_length += chunk.byte_length();
        self.chunks.push_back(chunk);
    }
}

/// Whether a success follows from its entry alone.
fn can_be_made_again(appended: &Appended) -> bool {
    !appended.replayed && appended.tree_size == appended.index.tree_size()
}

fn flush_text(chunks: &mut Vec<Chunk>, text: &mut Vec<u8>) {
    if !text.is_empty() {
        chunks.push(Chunk::Text(Bytes::from(std::mem::take(text))));
    }
}

fn flush_run(chunks: &mut Vec<Chunk>, run: Option<(u64, u64, u64)>) {
    if let Some((line, index, count)) = run {
        chunks.push(Chunk::Run { line, index, count });
    }
}

fn write_result(out: &mut Vec<u8>, line: u64, outcome: Result<Appended, ApiError>) {
    match outcome {
        Ok(appended) => {
            out.extend_from_slice(b"{\"line\":");
            convert::write_number(out, line);
            out.push(b',');
            convert::write_appended_members(out, &appended);
            out.extend_from_slice(b"}\n");
        }
        Err(error) => {
            let problem: Box<Problem> = Box::new(error.into_problem());
            BulkReply::Result(BulkResult {
                line,
                outcome: Err(problem),
            })
            .write_line(out);
        }
    }
}

/// The reply's side of [`Results`].
pub(super) struct ResultReader {
    results: Arc<Results>,
    node: Node,
}

impl Drop for ResultReader {
    fn drop(&mut self) {
        self.results.state.lock().reader_gone = true;
        self.results.writable.notify_one();
    }
}

impl ResultReader {
    pub(super) fn new(results: Arc<Results>, node: Node) -> ResultReader {
        ResultReader { results, node }
    }

    /// The next piece of the answer; `None` at its end, an error if the upload was cut off.
    pub(super) async fn next(self) -> Option<(Result<Bytes, std::io::Error>, ResultReader)> {
        loop {
            let results = Arc::clone(&self.results);
            let readable = results.readable.notified();
            let chunk = {
                let mut state = self.results.state.lock();
                match state.chunks.pop_front() {
                    Some(chunk) => {
                        state.byte_length -= chunk.byte_length();
                        Some(chunk)
                    }
                    None if state.closed && !state.cut_off => return None,
                    None if state.closed => {
                        // An error, not an end: the connection must not look as if the answer were complete.
                        state.cut_off = false;
                        drop(state);
                        let error = std::io::Error::other("the upload was cut off");
                        return Some((Err(error), self));
                    }
                    None => None,
                }
            };
            match chunk {
                None => readable.await,
                Some(Chunk::Text(text)) => {
                    self.results.writable.notify_one();
                    return Some((Ok(text), self));
                }
                Some(Chunk::Run { line, index, count }) => {
                    self.results.writable.notify_one();
                    let made = self.lines_of_run(line, index, count).await;
                    return Some((made, self));
                }
            }
        }
    }

    /// Makes the first lines of a run again from the ledger and puts the rest back.
    async fn lines_of_run(
        &self,
        line: u64,
        index: u64,
        count: u64,
    ) -> Result<Bytes, std::io::Error> {
        let node = self.node.clone();
        let wanted = usize::try_from(count).unwrap_or(RUN_STEP).min(RUN_STEP);
        let made = tokio::task::spawn_blocking(move || {
            let entries =
                node.entries(LeafIndex::new(index), wanted, limits::FRAME_BYTES_TARGET)?;
            let mut text = Vec::with_capacity(entries.len() * 160);
            let mut taken = 0;
            for entry in entries.iter().take(wanted) {
                let Ok(leaf) = Leaf::parse(&entry.leaf) else {
                    break;
                };
                let appended = Appended {
                    index: entry.index,
                    timestamp_ms: leaf.timestamp_ms,
                    leaf_hash: entry.leaf_hash(),
                    tree_size: entry.index.tree_size(),
                    replayed: false,
                };
                write_result(&mut text, line + taken, Ok(appended));
                taken += 1;
            }
            Ok::<_, crate::error::ReadError>((text, taken))
        })
        .await;
        match made {
            Ok(Ok((text, taken))) if taken > 0 => {
                if taken < count {
                    let rest = Chunk::Run {
                        line: line + taken,
                        index: index + taken,
                        count: count - taken,
                    };
                    let mut state = self.results.state.lock();
                    state.byte_length += rest.byte_length();
                    state.chunks.push_front(rest);
                }
                Ok(Bytes::from(text))
            }
            Ok(Ok(_)) => Err(std::io::Error::other("an appended entry cannot be read")),
            Ok(Err(error)) => Err(std::io::Error::other(error)),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scribe_proof::hash::Hash;
    use scribe_proof::index::TreeSize;

    fn success(line: u64, index: u64) -> (u64, Result<Appended, ApiError>) {
        let appended = Appended {
            index: LeafIndex::new(index),
            timestamp_ms: 5,
            leaf_hash: Hash([1; 32]),
            tree_size: TreeSize::new(index + 1),
            replayed: false,
        };
        (line, Ok(appended))
    }

    #[tokio::test]
    async fn results_nobody_reads_shrink_to_runs() {
        let results = Results::default();
        let mut line = 1;
        while results.state.lock().byte_length < RESULT_TEXT_MAX {
            assert!(
                results
                    .push((line..line + 1_000).map(|n| success(n, n + 10)).collect())
                    .await
            );
            line += 1_000;
        }
        let texts = results.state.lock().chunks.len();
        let before = results.state.lock().byte_length;
        for _ in 0..1_000 {
            assert!(
                results
                    .push((line..line + 1_000).map(|n| success(n, n + 10)).collect())
                    .await
            );
            line += 1_000;
        }
        // A million more lines are one run.
        assert_eq!(results.state.lock().chunks.len(), texts + 1);
        assert_eq!(results.state.lock().byte_length, before + RUN_BYTES);
        // A gap in the indexes, or an error, starts another.
        results.push(vec![success(line, line + 500)]).await;
        results
            .push(vec![(line + 1, Err(ApiError::not_found("x")))])
            .await;
        results.push(vec![success(line + 2, line + 502)]).await;
        assert_eq!(results.state.lock().chunks.len(), texts + 4);
    }
}
