//! How a node that was away, or is new, gets what the others have already sealed.
//!
//! A snapshot is a list of sealed segments ([`super::SnapshotManifest`]). The leader offers the list; the receiver finds
//! out what it lacks, fetches those files piece by piece, checks each against its hash and against the root after it,
//! and only then lets the Raft core install the list. A transfer that is cut short goes on where it stopped, also after
//! a restart. Nothing is ever serialized but the list.
//!
//! The files themselves are the store's business ([`crate::store`]); this module moves their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use super::answer::AnswerError;
use super::judge::Judge;
use super::rpc::{self, SegmentRequest, kind};
use super::{ConsensusNode, NodeId, SnapshotManifest};
use crate::limits;
use crate::peer::{Lane, ProgressHandle};
use crate::store::Missing;

/// Pieces asked for at once: one is on the wire while another is written.
pub(super) const PIECES_IN_FLIGHT: usize = 2;
/// How often the leader hears that this node is still at it.
const TICK: Duration = Duration::from_secs(1);
/// How often progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);

fn failed(error: impl std::fmt::Display) -> AnswerError {
    AnswerError::Failed(error.to_string())
}

impl ConsensusNode {
    /// Takes a snapshot that a leader offers.
    pub(super) async fn receive_snapshot(
        &self,
        judge: Judge,
        body: Bytes,
        progress: &ProgressHandle,
    ) -> Result<Vec<Bytes>, AnswerError> {
        let sender = judge.sender;
        let (vote, address, segments) = rpc::decode_snapshot_offer(body)?;
        let metrics = self.metrics();
        judge.snapshot(&vote, &segments, metrics.local_committed)?;
        let own = metrics.vote;
        if own > vote {
            // A deposed leader: it hears so before a byte is fetched.
            return Ok(rpc::encode_snapshot_answer(&own));
        }
        // One at a time: a leader that lost patience and offers again waits for its first offer to be done with.
        let _receiving = self.receiving.lock().await;
        // Compares the list with what is sealed here, too, so it is asked also when nothing has to be fetched.
        let missing = {
            let (staging, list) = (self.store.staging(), segments.clone());
            blocking(move || staging.missing(&list)).await?
        };
        let last = segments.last().map(|segment| segment.last_log_id);
        // A log that has the snapshot's last entry has everything before it.
        let has_all = last.is_none_or(|last| self.store.log().id_at(last.index) == Some(last));
        if !has_all {
            self.fetch_segments(sender, &address, missing, progress)
                .await?;
        }
        // While segments were fetched more may have been committed, and openraft ends the node over a snapshot behind
        // that.
        judge.snapshot(&vote, &segments, self.metrics().local_committed)?;
        let manifest = SnapshotManifest {
            segments: Arc::new(segments),
        };
        let snapshot = openraft::Snapshot {
            meta: manifest.meta().map_err(failed)?,
            snapshot: manifest,
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot);
        tokio::pin!(installed);
        let mut tick = tokio::time::interval(TICK);
        let answer = loop {
            tokio::select! {
                answer = &mut installed => break answer,
                // Deriving tree and key index of many segments takes a while.
                _ = tick.tick() => progress.tick(),
            }
        };
        Ok(rpc::encode_snapshot_answer(&answer.map_err(failed)?.vote))
    }

    /// Fetches, checks and stages every segment of the list that this node lacks.
    async fn fetch_segments(
        &self,
        leader: NodeId,
        address: &str,
        missing: Vec<Missing>,
        progress: &ProgressHandle,
    ) -> Result<(), AnswerError> {
        let staging = self.store.staging();
        let total: u64 = missing
            .iter()
            .map(|piece| piece.file_length.saturating_sub(piece.have))
            .sum();
        if missing.is_empty() {
            return Ok(());
        }
        let free = self.store.log().free_bytes();
        if free < total.saturating_add(limits::DISK_RESERVE_BYTES) {
            let list = Vec::new();
            let staging = staging.clone();
            // What was fetched before makes room for the log.
            blocking(move || staging.missing(&list)).await?;
            return Err(failed(format!(
                "{total} bytes of segments do not fit: {free} are free, {} of them are kept back",
                limits::DISK_RESERVE_BYTES
            )));
        }
        tracing::info!(
            leader,
            segments = missing.len(),
            bytes = total,
            "fetching the segments this node lacks"
        );
        let started = Instant::now();
        let mut said = started;
        let mut done = 0;
        self.catch_up.begin(total);
        for wanted in missing {
            let number = wanted.segment.number;
            let offsets = (wanted.have..wanted.file_length).step_by(limits::SEGMENT_PIECE_LENGTH);
            let mut pieces = stream::iter(offsets)
                .map(|offset| self.fetch_piece(leader, address, number, offset, false))
                .buffered(PIECES_IN_FLIGHT);
            while let Some(piece) = pieces.next().await {
                let (offset, bytes) = piece?;
                done += bytes.len() as u64;
                self.catch_up.fetched(bytes.len() as u64);
                {
                    let staging = staging.clone();
                    blocking(move || staging.write(number, offset, &bytes)).await?;
                }
                progress.tick();
                if said.elapsed() >= LOG_EVERY {
                    said = Instant::now();
                    tracing::info!(leader, done, total, "fetching segments");
                }
                self.pace(started, done).await;
            }
            drop(pieces);
            let (staging, ticking) = (staging.clone(), progress.clone());
            let segment = wanted.segment;
            let finished = blocking(move || staging.finish(&segment, |_, _| ticking.tick())).await;
            if finished.is_err() {
                // The leader offers again, and again, until it hears: it may not know that its copy is damaged.
                self.doubt(leader, number).await;
            }
            finished?;
        }
        tracing::info!(
            leader,
            bytes = done,
            seconds = started.elapsed().as_secs_f64(),
            "segments fetched and checked"
        );
        Ok(())
    }

    pub(super) async fn fetch_piece(
        &self,
        leader: NodeId,
        address: &str,
        number: u32,
        offset: u64,
        any_copy: bool,
    ) -> Result<(u64, Bytes), AnswerError> {
        let Some(pool) = &self.transport.pool else {
            return Err(failed("this node runs alone"));
        };
        let request = SegmentRequest {
            number,
            offset,
            length_max: limits::SEGMENT_PIECE_LENGTH as u64,
            doubted: false,
            any_copy,
        };
        let wait = self.transport.progress();
        let bytes = pool
            .call(
                leader,
                address,
                Lane::Bulk,
                kind::SEGMENT,
                rpc::parts(&request),
                wait,
            )
            .await
            .map_err(failed)?;
        if bytes.is_empty() {
            return Err(failed(format!(
                "segment {number} ends at byte {offset} on node {leader}"
            )));
        }
        Ok((offset, bytes))
    }

    /// Waits so long that `bytes` since `started` stay below the configured rate.
    pub(super) async fn pace(&self, started: Instant, bytes: u64) {
        let rate = self.catch_up.bytes_per_second;
        if rate > 0 {
            let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }

    /// Answers a request for bytes of a sealed segment.
    pub(super) async fn segment_bytes(
        &self,
        sender: NodeId,
        request: SegmentRequest,
    ) -> Result<Vec<Bytes>, AnswerError> {
        if request.doubted {
            self.is_doubted(sender, request.number);
        }
        let length = request.length_max.min(limits::SEGMENT_PIECE_LENGTH as u64) as usize;
        let store = self.store.clone();
        let read = move || match request.any_copy {
            true => store.doubtful_bytes(request.number, request.offset, length),
            false => store.segment_bytes(request.number, request.offset, length),
        };
        let bytes = blocking(read).await?;
        Ok(vec![bytes])
    }
}

/// Runs file work off the tasks that serve others.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, AnswerError> {
    crate::blocking::io(work).await.map_err(failed)
}

/// How far this node is with fetching what it lacks, for status and metrics.
#[derive(Debug, Default)]
pub struct CatchUp {
    /// Bytes a second at most; 0 means no limit.
    pub bytes_per_second: u64,
    total: AtomicU64,
    done: AtomicU64,
}

impl CatchUp {
    /// At most this many bytes a second; 0 means no limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            ..Self::default()
        }
    }

    fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn fetched(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes fetched and bytes to fetch of the last or current transfer.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }
}
