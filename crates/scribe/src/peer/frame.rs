//! Frames: how one message stands in the byte stream between two nodes. Map in docs/format-wire.md.
//!
//! ```text
//! u32 length of what follows | u8 protocol | u8 kind | u16 flags | u64 request id | body
//! ```
//!
//! Knows lengths, not meanings: `kind` belongs to the caller, except in frames that carry no request. A length is
//! judged before memory is set aside for it, and a body's memory grows only as its bytes arrive, so that a declared
//! gigabyte costs nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::PeerTimeouts;
use super::hello::HELLO_PROTOCOL;

/// The protocol this build speaks. A change that an older node cannot read raises it.
pub const PROTOCOL: u8 = 1;
/// The oldest protocol this build still speaks.
pub const PROTOCOL_MIN: u8 = 1;

/// Bytes before the body.
pub(super) const HEADER_LENGTH: usize = 16;
/// Bytes of the header that the length field counts.
const COUNTED_HEADER: usize = HEADER_LENGTH - 4;
/// Bytes the reader asks the socket for at once while bodies are small.
const READ_BUFFER: usize = 64 * 1_024;
/// Bodies up to this length are copied out of the read buffer; longer ones are read into memory of their own. A copy
/// of a few kilobytes is cheaper than keeping a whole read buffer alive for them.
const COPIED_BODY_MAX: usize = 16 * 1_024;

/// What a frame is, in the low byte of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks for an answer under the same request id.
    Request = 0,
    /// Answers.
    Response = 1,
    /// Answers with an error: u16 code and text.
    Error = 2,
    /// The request is being worked on.
    Progress = 3,
    /// Keeps the connection from looking dead: each side sends its own. One with a request id wants one back.
    Ping = 4,
    /// First frame of each direction.
    Hello = 5,
    /// First and last frame of a server that refuses: u16 code and text.
    Refusal = 6,
}

impl Role {
    fn from_flags(flags: u16) -> Option<Role> {
        Some(match flags {
            0 => Role::Request,
            1 => Role::Response,
            2 => Role::Error,
            3 => Role::Progress,
            4 => Role::Ping,
            5 => Role::Hello,
            6 => Role::Refusal,
            _ => return None,
        })
    }
}

/// Everything of a frame but its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub body_length: usize,
    pub protocol: u8,
    pub kind: u8,
    pub role: Role,
    pub request_id: u64,
}

impl Header {
    /// A header of the protocol in use.
    pub fn new(role: Role, kind: u8, request_id: u64, body_length: usize) -> Header {
        Header {
            body_length,
            protocol: PROTOCOL,
            kind,
            role,
            request_id,
        }
    }

    /// Appends the 16 bytes. The caller keeps bodies far below 4 GiB.
    pub fn put(&self, out: &mut BytesMut) {
        let length = u32::try_from(self.body_length + COUNTED_HEADER).unwrap_or(u32::MAX);
        out.put_u32(length);
        out.put_u8(self.protocol);
        out.put_u8(self.kind);
        out.put_u16(self.role as u16);
        out.put_u64(self.request_id);
    }

    fn parse(mut bytes: &[u8]) -> Result<Header, FrameError> {
        let length = bytes.get_u32() as usize;
        let protocol = bytes.get_u8();
        let kind = bytes.get_u8();
        let flags = bytes.get_u16();
        let request_id = bytes.get_u64();
        let Some(body_length) = length.checked_sub(COUNTED_HEADER) else {
            return Err(FrameError::Malformed("length shorter than the header"));
        };
        let Some(role) = Role::from_flags(flags) else {
            return Err(FrameError::Malformed("unknown flags"));
        };
        let expected = match role {
            Role::Hello | Role::Refusal => protocol == HELLO_PROTOCOL,
            _ => (PROTOCOL_MIN..=PROTOCOL).contains(&protocol),
        };
        if !expected {
            return Err(FrameError::Malformed("another protocol than agreed on"));
        }
        Ok(Header {
            body_length,
            protocol,
            kind,
            role,
            request_id,
        })
    }
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other side closed between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The other side closed within a frame.
    #[error("the connection was closed in the middle of a frame")]
    Half,
    /// These bytes are no frame.
    #[error("not a frame: {0}")]
    Malformed(&'static str),
    /// Nothing came for too long.
    #[error("nothing was received for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// The frame is longer than its kind allows.
    #[error("frame of kind {} has a body of {} bytes, allowed {allowed}", header.kind, header.body_length)]
    TooLong { header: Header, allowed: usize },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// When bytes last moved on a connection, and how many. Shared by its two tasks and its callers; plain atomics, so
/// that a small message pays nothing for it.
#[derive(Debug)]
pub(super) struct Activity {
    started: Instant,
    content_ms: AtomicU64,
    written_ms: AtomicU64,
    /// When the oldest request was written since the other side was last heard, plus one; 0 for none.
    unanswered_ms: AtomicU64,
    totals: Arc<Totals>,
}

/// Bytes of all connections to (or from) one node.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

impl Activity {
    pub fn new(totals: Arc<Totals>) -> Activity {
        Activity {
            started: Instant::now(),
            content_ms: AtomicU64::new(0),
            written_ms: AtomicU64::new(0),
            unanswered_ms: AtomicU64::new(0),
            totals,
        }
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn received(&self, bytes: usize) {
        self.unanswered_ms.store(0, Relaxed);
        self.totals.received.fetch_add(bytes as u64, Relaxed);
    }

    pub fn content(&self) {
        self.content_ms.store(self.now_ms(), Relaxed);
    }

    pub fn wrote(&self, bytes: usize) {
        self.written_ms.store(self.now_ms(), Relaxed);
        self.totals.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub fn asked(&self) {
        // Only the first question after the last sign of life counts.
        let _ = self
            .unanswered_ms
            .compare_exchange(0, self.now_ms() + 1, Relaxed, Relaxed);
    }

    /// When bytes of a frame other than a ping came in.
    pub fn content_ms(&self) -> u64 {
        self.content_ms.load(Relaxed)
    }

    pub fn written_ms(&self) -> u64 {
        self.written_ms.load(Relaxed)
    }

    /// For how long questions have been out without a single byte coming back.
    pub fn silent_for_ms(&self) -> u64 {
        match self.unanswered_ms.load(Relaxed) {
            0 => 0,
            since => (self.now_ms() + 1).saturating_sub(since),
        }
    }
}

/// Takes frames from a byte stream.
pub(super) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    activity: Arc<Activity>,
    /// How long a frame may be waited for.
    idle: Duration,
    /// How long a frame that has begun may stand still.
    stall: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, activity: Arc<Activity>, timeouts: &PeerTimeouts) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            activity,
            idle: timeouts.ping().saturating_mul(3),
            stall: timeouts.progress(),
        }
    }

    /// One read into `into`, at most `most` bytes.
    async fn read(
        io: &mut R,
        into: &mut BytesMut,
        most: usize,
        patience: Duration,
        activity: &Activity,
    ) -> Result<usize, FrameError> {
        let mut limited = io.take(most as u64);
        let count = tokio::time::timeout(patience, limited.read_buf(into))
            .await
            .map_err(|_| FrameError::Stalled(patience))??;
        activity.received(count);
        Ok(count)
    }

    /// Reads until the next header is complete. Cancel-safe: what has arrived stays in the buffer.
    pub async fn header(&mut self) -> Result<Header, FrameError> {
        while self.buffer.len() < HEADER_LENGTH {
            let started = !self.buffer.is_empty();
            let patience = if started { self.stall } else { self.idle };
            self.buffer.reserve(READ_BUFFER);
            let (io, activity) = (&mut self.io, &self.activity);
            let count = Self::read(io, &mut self.buffer, READ_BUFFER, patience, activity).await?;
            if count == 0 {
                return Err(if started {
                    FrameError::Half
                } else {
                    FrameError::Closed
                });
            }
        }
        let header = Header::parse(&self.buffer)?;
        if header.role != Role::Ping {
            self.activity.content();
        }
        self.buffer.advance(HEADER_LENGTH);
        Ok(header)
    }

    /// Reads the body of the header just returned, if it is not longer than `allowed`. `moved` is called each time
    /// bytes of a body arrive that takes more than one read.
    pub async fn body(
        &mut self,
        header: &Header,
        allowed: usize,
        mut moved: impl FnMut(),
    ) -> Result<Bytes, FrameError> {
        let length = header.body_length;
        if length > allowed {
            return Err(FrameError::TooLong {
                header: *header,
                allowed,
            });
        }
        if length <= self.buffer.len() && length <= COPIED_BODY_MAX {
            let body = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(body);
        }
        // Memory follows the bytes that are there: the capacity at most doubles what has arrived.
        let here = length.min(self.buffer.len());
        let mut body = BytesMut::with_capacity(length.min(here.max(READ_BUFFER)));
        body.extend_from_slice(&self.buffer[..here]);
        self.buffer.advance(here);
        while body.len() < length {
            let missing = length - body.len();
            if body.capacity() == body.len() {
                body.reserve(missing.min(body.len().max(READ_BUFFER)));
            }
            // Never past this body: what follows belongs to the next frame.
            let (io, activity) = (&mut self.io, &self.activity);
            if Self::read(io, &mut body, missing, self.stall, activity).await? == 0 {
                return Err(FrameError::Half);
            }
            self.activity.content();
            moved();
        }
        Ok(body.freeze())
    }

    /// Passes over a body nobody waits for.
    pub async fn skip(&mut self, header: &Header, allowed: usize) -> Result<(), FrameError> {
        let mut left = header.body_length;
        if left > allowed {
            return Err(FrameError::TooLong {
                header: *header,
                allowed,
            });
        }
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.buffer.reserve(READ_BUFFER);
            let (io, activity) = (&mut self.io, &self.activity);
            if Self::read(io, &mut self.buffer, READ_BUFFER, self.stall, activity).await? == 0 {
                return Err(FrameError::Half);
            }
            self.activity.content();
        }
    }

    /// Discards what still arrives until the other side closes, so that a last frame is read before the kernel's
    /// reset for unread bytes could overtake it.
    pub async fn linger(&mut self) {
        let mut discarded = [0_u8; 4_096];
        while matches!(self.io.read(&mut discarded).await, Ok(count) if count > 0) {}
    }
}

/// Body of an error or refusal frame.
pub(super) fn put_error(code: u16, text: &str) -> Bytes {
    let mut end = text.len().min(ERROR_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = BytesMut::with_capacity(2 + end);
    out.put_u16(code);
    out.put_slice(&text.as_bytes()[..end]);
    out.freeze()
}

/// Code and text of an error or refusal frame.
pub(super) fn parse_error(mut body: &[u8]) -> (u16, String) {
    if body.len() < 2 {
        return (0, "no reason given".to_owned());
    }
    let code = body.get_u16();
    // The text is for people and logs: control characters of a stranger have no place there.
    let text = String::from_utf8_lossy(body)
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    (code, text)
}

/// Longest error text sent.
const ERROR_TEXT_MAX: usize = 4_096;
/// Longest body of an error frame.
pub(super) const ERROR_BODY_MAX: usize = 2 + ERROR_TEXT_MAX;
