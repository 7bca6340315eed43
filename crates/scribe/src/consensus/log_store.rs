//! openraft's log, kept in the ledger's own log files.
//!
//! A thin adapter: entries become frames and back, callbacks become flush notices. Order and durability are the
//! [`Log`]'s: one writer thread takes appends, truncations and votes in the order they are handed over here.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::{EntryPayload, LogId, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use tokio::sync::oneshot;

use super::membership;
use super::type_config::{Proposal, TypeConfig, leader_of};
use crate::limits;
use crate::planted;
use crate::store::frame::{self, Frame, FrameKind, LogIndex};
use crate::store::log::{Flushed, Log};
use crate::store::segment::SealedSegment;

type RaftEntryOf = openraft::type_config::alias::EntryOf<TypeConfig>;

/// The log store: cheap to clone, and its own reader.
#[derive(Debug, Clone)]
pub struct LogStore {
    log: Log,
    /// What openraft may no longer see. The log keeps everything, and remembers on disk only a watermark that sealed
    /// segments cover; this one goes as far as openraft was told.
    purged: Arc<Mutex<Option<LogIdOf<TypeConfig>>>>,
    /// The last log id of each term in the sealed segments that were not purged at the start, as openraft asks for it
    /// then.
    sealed_terms: Arc<[frame::LogId]>,
}

impl LogStore {
    /// Over an open log.
    pub fn new(log: Log) -> Self {
        let sealed = log.sealed().last().map(|segment| segment.last_log_id);
        // What is sealed is applied, too: a start has no need to read it, and damage in it must not stop one. But the
        // newest sealed segments stay readable as entries, so that followers a little behind a restarted leader catch
        // up by entries, and of those openraft asks at start when the term changes. So they are asked here first: if
        // an answer cannot be read, everything sealed counts as purged, and is fetched as files.
        let kept = log.purge_due().max(log.purged());
        let from = kept.map_or_else(|| log.first(), |kept| Some(kept.index.next()));
        let readable = match (from, sealed) {
            (Some(from), Some(sealed)) if from <= sealed.index => {
                last_ids_of_terms(&log, from, sealed)
            }
            _ => Ok(Vec::new()),
        };
        let (purged, sealed_terms) = match readable {
            Ok(terms) => (kept, terms),
            Err(error) => {
                tracing::error!(%error, "sealed segments cannot be read as log entries and are served as files only");
                let unpurged = |segment: &&SealedSegment| kept < Some(segment.last_log_id);
                for segment in log.sealed().iter().filter(unpurged) {
                    log.suspect_at(segment.first_log_index);
                }
                (kept.max(sealed), Vec::new())
            }
        };
        Self {
            log,
            purged: Arc::new(Mutex::new(purged.map(to_raft_id))),
            sealed_terms: sealed_terms.into(),
        }
    }

    /// Some of these entries cannot be read. Sends those before the first bad one; if that is the first, and it is
    /// sealed, this is damage that does not stop a node: nothing is sent, and from now on what the damaged segment
    /// holds is served as a file only ([`Log::purge_due`]).
    fn unreadable(&self, start: u64, error: io::Error) -> io::Result<Vec<RaftEntryOf>> {
        if let Ok(frames) = self.log.read(start..start + 1, 1) {
            return frames.iter().map(entry_of).collect();
        }
        if self.log.poisoned().is_none() && self.log.mark_unreadable(LogIndex(start)) {
            tracing::error!(index = start, %error, "a sealed log entry cannot be sent to a follower");
            return Ok(Vec::new());
        }
        Err(error)
    }

    /// The first log index that openraft may read at or after `start`.
    fn readable_from(&self, start: u64) -> u64 {
        let first = self.log.first().map_or(0, |index| index.0);
        let unpurged = self.purged.lock().map_or(0, |id| id.index + 1);
        start.max(first).max(unpurged)
    }
}

/// The last log id of each term from `first` on up to `last`. Reads one frame per halving where the term changes, and
/// the first.
fn last_ids_of_terms(
    log: &Log,
    first: LogIndex,
    last: frame::LogId,
) -> io::Result<Vec<frame::LogId>> {
    let id_at = |index: u64| -> io::Result<frame::LogId> {
        let frames = log.read(index..index + 1, 1)?;
        let id = frames.first().map(|frame| frame.log_id);
        id.filter(|id| id.index.0 == index).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("log index {index} is not in the log"),
            )
        })
    };
    let mut found: Vec<frame::LogId> = Vec::new();
    // Terms never fall along a log, so a stretch with the same term at both ends has no other in between.
    let mut stretches = vec![(id_at(first.0)?, last)];
    while let Some((low, high)) = stretches.pop() {
        if low.term != high.term && high.index.0 - low.index.0 > 1 {
            let middle = id_at(low.index.0 + (high.index.0 - low.index.0) / 2)?;
            stretches.push((middle, high));
            stretches.push((low, middle));
            continue;
        }
        for id in [low, high] {
            match found.last_mut() {
                Some(newest) if newest.term == id.term => *newest = id,
                _ => found.push(id),
            }
        }
    }
    Ok(found)
}

/// The frame of an entry.
pub(crate) fn frame_of(entry: &RaftEntryOf) -> Frame {
    let log_id = to_store_id(&entry.log_id);
    let empty = Frame {
        log_id,
        kind: FrameKind::Blank,
        sequencing_term: 0,
        first_leaf: LeafIndex::new(0),
        count: 0,
        public: bytes::Bytes::new(),
        private: bytes::Bytes::new(),
    };
    match &entry.payload {
        EntryPayload::Blank => empty,
        EntryPayload::Membership(members) => Frame {
            kind: FrameKind::Membership,
            public: membership::encode(members),
            ..empty
        },
        EntryPayload::Normal(Proposal::Entries {
            sequencing_term,
            first_leaf,
            count,
            public,
            private,
        }) => Frame {
            kind: FrameKind::Entries,
            sequencing_term: *sequencing_term,
            first_leaf: *first_leaf,
            count: *count,
            public: public.clone(),
            private: private.clone(),
            ..empty
        },
        EntryPayload::Normal(Proposal::Publish { size, root }) => {
            let mut public = bytes::BytesMut::with_capacity(40);
            public.extend_from_slice(&size.get().to_be_bytes());
            public.extend_from_slice(root.as_bytes());
            Frame {
                kind: FrameKind::Publish,
                public: public.freeze(),
                ..empty
            }
        }
    }
}

/// The entry of a frame. Fails on a frame whose checksum is right but whose content no version of this program wrote.
pub(crate) fn entry_of(frame: &Frame) -> io::Result<RaftEntryOf> {
    let payload = match frame.kind {
        FrameKind::Blank => EntryPayload::Blank,
        FrameKind::Membership => EntryPayload::Membership(
            membership::decode(&frame.public)
                .map_err(|error| invalid(frame, &error.to_string()))?,
        ),
        FrameKind::Entries => EntryPayload::Normal(Proposal::Entries {
            sequencing_term: frame.sequencing_term,
            first_leaf: frame.first_leaf,
            count: frame.count,
            public: frame.public.clone(),
            private: frame.private.clone(),
        }),
        FrameKind::Publish => {
            let (size, root) = parse_publish(frame)?;
            EntryPayload::Normal(Proposal::Publish { size, root })
        }
    };
    let entry = RaftEntryOf::new(to_raft_id(frame.log_id), payload);
    // A frame without entries has nothing beside its body: what an entry does not keep would be missing when the frame
    // is written again, and the chain of checksums would part.
    if frame.kind != FrameKind::Entries && frame_of(&entry) != *frame {
        return Err(invalid(frame, "a frame of its kind has other fields"));
    }
    Ok(entry)
}

/// Tree size and root hash in a publish frame.
pub(crate) fn parse_publish(frame: &Frame) -> io::Result<(TreeSize, Hash)> {
    if frame.public.len() != 40 {
        return Err(invalid(
            frame,
            &format!(
                "a publish frame has {} bytes, allowed 40",
                frame.public.len()
            ),
        ));
    }
    let (size, root) = frame.public.split_at(8);
    let size = size
        .try_into()
        .map_err(|_| invalid(frame, "no tree size"))?;
    let root: [u8; 32] = root
        .try_into()
        .map_err(|_| invalid(frame, "no root hash"))?;
    Ok((TreeSize::new(u64::from_be_bytes(size)), Hash(root)))
}

fn invalid(frame: &Frame, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("frame at log index {}: {what}", frame.log_id.index),
    )
}

/// openraft's log id as the store's.
pub(crate) fn to_store_id(id: &LogIdOf<TypeConfig>) -> frame::LogId {
    frame::LogId {
        term: id.leader_id.term,
        index: LogIndex(id.index),
    }
}

/// The store's log id as openraft's.
pub(crate) fn to_raft_id(id: frame::LogId) -> LogIdOf<TypeConfig> {
    LogId::new(leader_of(id.term), id.index.0)
}

/// Turns a bounded range of log indexes into a half-open one.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let (start, end) = half_open(&range);
        let mut start = self.readable_from(start);
        let mut entries = Vec::new();
        while start < end {
            let frames = self.log.read(start..end, limits::REPLICATION_BYTES_MAX)?;
            let Some(last) = frames.last() else { break };
            start = last.log_id.index.0 + 1;
            for frame in &frames {
                entries.push(entry_of(frame)?);
            }
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        Ok(self.log.vote().map(|vote| {
            if vote.committed {
                VoteOf::<TypeConfig>::new_committed(vote.term, vote.node_id)
            } else {
                VoteOf::<TypeConfig>::new(vote.term, vote.node_id)
            }
        }))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        // Entries that do not begin where they were asked to would be sent as if they did: none is better.
        if start >= end || self.readable_from(start) != start {
            return Ok(Vec::new());
        }
        match self.log.read(start..end, limits::REPLICATION_BYTES_MAX) {
            Ok(frames) => frames.iter().map(entry_of).collect(),
            Err(error) => self.unreadable(start, error),
        }
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogIdOf<TypeConfig>>,
    ) -> Result<Vec<LogIdOf<TypeConfig>>, io::Error> {
        let (first, last) = (to_store_id(range.start()), to_store_id(range.end()));
        let Some(sealed) = self.sealed_terms.last().copied() else {
            let found = last_ids_of_terms(&self.log, first.index, last)?;
            return Ok(found.into_iter().map(to_raft_id).collect());
        };
        // The sealed part is known already; only the rest is read.
        let mut found: Vec<_> = self.sealed_terms.to_vec();
        if last.index > sealed.index {
            for id in last_ids_of_terms(&self.log, sealed.index.next(), last)? {
                if found.last().is_some_and(|newest| newest.term == id.term) {
                    found.pop();
                }
                found.push(id);
            }
        }
        found.retain(|id| first.index <= id.index);
        Ok(found.into_iter().map(to_raft_id).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = *self.purged.lock();
        let last_log_id = self.log.last().map(to_raft_id).max(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        // A crash before the sync leaves the old vote: this node then has promised nothing yet, because openraft
        // answers a vote request only after this returns.
        let (done, synced) = oneshot::channel();
        let vote = frame::Vote {
            term: vote.leader_id.term,
            node_id: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        self.log
            .save_vote(vote, Flushed::new(move |result| drop(done.send(result))))?;
        synced.await.unwrap_or_else(|_| {
            Err(io::Error::other(
                "the writer stopped before the vote was synced",
            ))
        })
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogIdOf<TypeConfig>>,
    ) -> Result<(), io::Error> {
        // A hint: losing it costs a later re-apply, never a write.
        self.log.save_committed(committed.as_ref().map(to_store_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        Ok(self.log.committed().map(to_raft_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let frames = entries.into_iter().map(|entry| frame_of(&entry)).collect();
        // The callback runs on the writer thread after the sync that covers the frames. A crash before it leaves at
        // most a torn tail nobody was told about.
        // planted
        if planted::has("flushed-early") {
            callback.io_completed(Ok(()));
            return self.log.append(frames, Flushed::ignore());
        }
        self.log.append(
            frames,
            Flushed::new(move |result| callback.io_completed(result)),
        )
    }

    async fn truncate_after(&mut self, keep: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        let keep = keep.as_ref().map(to_store_id);
        if keep.is_some_and(|keep| self.log.last().is_none_or(|last| last.index <= keep.index)) {
            return Ok(());
        }
        let (done, synced) = oneshot::channel();
        self.log
            .truncate_after(keep, Flushed::new(move |result| drop(done.send(result))))?;
        synced.await.unwrap_or_else(|_| {
            Err(io::Error::other(
                "the writer stopped before the cut was synced",
            ))
        })
    }

    async fn purge(&mut self, id: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        {
            let mut purged = self.purged.lock();
            *purged = (*purged).max(Some(id));
        }
        // On disk the watermark never passes what sealed segments hold: a lost one costs nothing.
        let sealed = self.log.sealed().last().map(|segment| segment.last_log_id);
        match sealed {
            Some(sealed) => self.log.purge(sealed.min(to_store_id(&id))),
            None => Ok(()),
        }
    }
}
