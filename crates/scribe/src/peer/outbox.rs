//! The sending half of a connection, the same on both sides: a queue bounded in bytes, and one task that writes it.
//!
//! Small frames that wait together leave in one write. Large parts are handed to the socket (or to TLS) as they are,
//! without being copied into a buffer first. A connection whose other end takes nothing for too long is closed; one
//! that has nothing to say sends a ping.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::PeerTimeouts;
use super::frame::{Activity, HEADER_LENGTH, Header, Role};
use crate::limits;

/// Parts up to this length are copied next to their header; longer ones are written from where they are.
const COPIED_PART_MAX: usize = 4 * 1_024;
/// Bytes after which a write takes no further frame with it.
const BATCH_BYTES: usize = 256 * 1_024;
/// Slices handed to one write.
const SLICES_MAX: usize = 32;

const QUEUED: u8 = 0;
const WRITING: u8 = 1;
const WRITTEN: u8 = 2;
const CANCELLED: u8 = 3;

/// How far a call has got, shared by the caller, the writer and the reader.
#[derive(Debug, Default)]
pub(super) struct CallState {
    sending: AtomicU8,
    progress_ms: AtomicU64,
}

impl CallState {
    /// Takes it back, if not a byte was sent yet. Final either way: `true` means that it never will be.
    pub fn cancel(&self) -> bool {
        match self
            .sending
            .compare_exchange(QUEUED, CANCELLED, Relaxed, Relaxed)
        {
            Ok(_) => true,
            Err(state) => state == CANCELLED,
        }
    }

    pub fn written(&self) -> bool {
        self.sending.load(Relaxed) == WRITTEN
    }

    /// The other side says it is at work.
    pub fn progressed(&self, now_ms: u64) {
        self.progress_ms.store(now_ms, Relaxed);
    }

    pub fn progress_ms(&self) -> u64 {
        self.progress_ms.load(Relaxed)
    }

    fn begin(&self) -> bool {
        self.sending
            .compare_exchange(QUEUED, WRITING, Relaxed, Relaxed)
            .is_ok()
    }
}

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub header: Header,
    pub parts: Vec<Bytes>,
    pub state: Option<Arc<CallState>>,
    /// Its share of the queue, given back once it is written.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// A frame without a body, which needs no room.
    pub fn bare(role: Role, request_id: u64) -> Outgoing {
        Outgoing {
            header: Header::new(role, 0, request_id, 0),
            parts: Vec::new(),
            state: None,
            room: None,
        }
    }
}

/// Where frames are left for the writer.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    sender: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
}

impl Outbox {
    pub fn new() -> (Outbox, mpsc::UnboundedReceiver<Outgoing>) {
        // Unbounded in frames: frames with a body hold room in bytes, the others are few.
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(limits::PEER_QUEUE_BYTES_MAX));
        (Outbox { sender, room }, receiver)
    }

    /// Waits until the queue has room for a body. One that is longer than the whole queue waits until it is alone.
    pub async fn room_for(&self, body_length: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room)
            .acquire_many_owned(share(body_length))
            .await
            .ok()
    }

    /// The same without waiting.
    pub fn try_room_for(&self, body_length: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room)
            .try_acquire_many_owned(share(body_length))
            .ok()
    }

    /// Leaves a frame. Once the writer is gone nothing happens: the connection is over, and its reader says so.
    pub fn push(&self, frame: Outgoing) {
        let _ = self.sender.send(frame);
    }
}

/// A frame's share of the queue.
fn share(body_length: usize) -> u32 {
    let wanted = (body_length + HEADER_LENGTH).min(limits::PEER_QUEUE_BYTES_MAX);
    u32::try_from(wanted).unwrap_or(u32::MAX)
}

/// What one write takes along.
#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    small: BytesMut,
    length: usize,
    states: Vec<Arc<CallState>>,
    rooms: Vec<OwnedSemaphorePermit>,
    asks: bool,
}

impl Batch {
    fn add(&mut self, frame: Outgoing) {
        if let Some(state) = frame.state {
            if !state.begin() {
                return;
            }
            self.states.push(state);
        }
        self.rooms.extend(frame.room);
        self.asks |= frame.header.role == Role::Request;
        self.length += HEADER_LENGTH + frame.header.body_length;
        frame.header.put(&mut self.small);
        for part in frame.parts {
            if part.len() <= COPIED_PART_MAX {
                self.small.extend_from_slice(&part);
            } else {
                self.close_small();
                self.chunks.push(part);
            }
        }
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }
}

/// Writes until the queue's last sender is gone (then closes the socket in order), the connection is cancelled, or the
/// socket fails.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    mut io: W,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    activity: Arc<Activity>,
    timeouts: PeerTimeouts,
    closed: CancellationToken,
) -> io::Result<()> {
    let mut batch = Batch::default();
    loop {
        let first = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(()),
            frame = queue.recv() => frame,
            () = sleep(timeouts.ping()) => Some(Outgoing::bare(Role::Ping, 0)),
        };
        let Some(first) = first else {
            return timeout(timeouts.progress(), io.shutdown()).await?;
        };
        batch.add(first);
        while batch.length < BATCH_BYTES
            && let Ok(next) = queue.try_recv()
        {
            batch.add(next);
        }
        batch.close_small();
        tokio::select! {
            biased;
            written = write_all(&mut io, &mut batch.chunks, &activity, &timeouts) => written?,
            () = closed.cancelled() => return Ok(()),
        }
        if std::mem::take(&mut batch.asks) {
            activity.asked();
        }
        for state in batch.states.drain(..) {
            state.sending.store(WRITTEN, Relaxed);
        }
        batch.rooms.clear();
        batch.length = 0;
    }
}

async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    chunks: &mut Vec<Bytes>,
    activity: &Activity,
    timeouts: &PeerTimeouts,
) -> io::Result<()> {
    let mut next = 0;
    while next < chunks.len() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let waiting = &chunks[next..];
        for (slice, chunk) in slices.iter_mut().zip(waiting) {
            *slice = IoSlice::new(chunk);
        }
        let used = waiting.len().min(SLICES_MAX);
        let mut count = timeout(timeouts.progress(), io.write_vectored(&slices[..used])).await??;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        activity.wrote(count);
        while count > 0 {
            let step = count.min(chunks[next].len());
            chunks[next].advance(step);
            count -= step;
            if chunks[next].is_empty() {
                next += 1;
            }
        }
    }
    chunks.clear();
    timeout(timeouts.progress(), io.flush()).await?
}
