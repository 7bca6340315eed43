//! The wire between nodes: frames over long-lived connections, TLS 1.3 with certificates on both sides, a handshake
//! that refuses strangers, and limits on all of it.
//!
//! ```text
//! caller ─ Pool ─ one connection per (target, lane) ═══════ Server ─ Handler
//!                  handshake, multiplexed requests, back-off         admission, limits, order of a lane
//! ```
//!
//! Knows bytes, connections, certificates. Does not know what a request means, which nodes are members, or what Raft
//! is: that is the [`Handler`]'s and the caller's business. Frames are in docs/format-wire.md. Invariants:
//!
//! - no request is handed on before certificate, cluster, target and lane have been checked;
//! - no length from outside sets memory aside;
//! - every wait on the other side has an end;
//! - an error says whether the request may have been received.

mod connection;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod greeting;
mod hello;
mod join;
pub mod net;
mod outbox;
pub mod pki;
mod pool;
mod server;
mod session;
mod slot;
mod socket;
pub mod tls;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::limits;

pub use self::frame::{PROTOCOL, PROTOCOL_MIN};
pub use self::join::{join_call, join_call_plain};
pub use self::pki::{ClusterCa, NodeKey, PkiError};
pub use self::pool::{PeerStats, Pool};
pub use self::server::{Server, ServerStats};
pub use self::session::ProgressHandle;
pub use self::tls::{TlsError, TlsIdentity};
pub use self::token::{JoinToken, Redeem, TokenBook, TokenError};

/// A node, for as long as the cluster lives: never given to another one.
pub type NodeId = u64;

/// What a connection is for. A large transfer on one lane does not delay a heartbeat on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Log entries. Handled one at a time, in the order they were sent.
    Replication = 0,
    /// Heartbeats, votes, read indexes: small and urgent.
    Control = 1,
    /// Segments and other large transfers.
    Bulk = 2,
    /// Requests of clients passed on to the leader.
    Forward = 3,
    /// A node that has no certificate yet. The only lane open without one.
    Join = 4,
}

impl Lane {
    pub(super) fn from_byte(byte: u8) -> Option<Lane> {
        Some(match byte {
            0 => Lane::Replication,
            1 => Lane::Control,
            2 => Lane::Bulk,
            3 => Lane::Forward,
            4 => Lane::Join,
            _ => return None,
        })
    }
}

/// Who this node is and how it talks.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// The cluster. Nodes of another one are refused.
    pub cluster_id: [u8; 16],
    /// This node.
    pub node_id: NodeId,
    /// Whether connections are encrypted and certificates checked.
    pub security: Security,
    /// How long to wait for what.
    pub timeouts: PeerTimeouts,
    /// Connections per target on the forward lane; every other lane has one.
    pub forward_connections: usize,
}

/// How connections are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all: whoever reaches the port is believed. For tests, and behind an explicit flag of the caller.
    Plain,
    /// TLS 1.3; both sides show a certificate of the cluster's CA.
    Tls(Arc<TlsIdentity>),
}

/// How long to wait for what.
#[derive(Debug, Clone)]
pub struct PeerTimeouts {
    /// Until a TCP connection stands, for each address of a name.
    pub connect_ms: u64,
    /// Until TLS and hello are through.
    pub handshake_ms: u64,
    /// How long a connection may take none of the bytes that wait for it, and an append or a piece of a segment may
    /// stand still.
    pub progress_ms: u64,
    /// How long the answer to a small request may take, such as a follower's for a read.
    pub request_ms: u64,
    /// Pause after the first failed connection; doubles with each further one.
    pub backoff_first_ms: u64,
    /// Longest pause.
    pub backoff_max_ms: u64,
    /// After this long without sending anything, a ping is sent. Three pings' time without receiving anything closes
    /// the connection.
    pub ping_ms: u64,
}

impl Default for PeerTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: limits::PEER_CONNECT_MS,
            handshake_ms: 5_000,
            progress_ms: limits::PEER_PROGRESS_MS,
            request_ms: limits::PEER_REQUEST_MS,
            backoff_first_ms: 100,
            backoff_max_ms: 5_000,
            ping_ms: 15_000,
        }
    }
}

impl PeerTimeouts {
    /// Pause after this many failures in a row.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let doubled = self
            .backoff_first_ms
            .saturating_mul(1_u64 << failures.saturating_sub(1).min(20));
        Duration::from_millis(doubled.min(self.backoff_max_ms))
    }

    pub(super) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }

    /// How long a call whose bytes take their time may stand still.
    pub fn progress(&self) -> Duration {
        Duration::from_millis(self.progress_ms)
    }

    /// How long a small request may take in all.
    pub fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    pub(super) fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms)
    }
}

/// How long a call waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// This long in all, connecting included.
    Deadline(Duration),
    /// As long as something moves: it fails only when for this long no byte of the call was taken by the socket, no
    /// byte came in on the connection (pings aside), and the other side did not say that it is still at work.
    Progress(Duration),
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing of it was sent.
    #[error("node unreachable: {text}")]
    Unreachable {
        /// What went wrong.
        text: String,
    },
    /// The connection ended after the request was (perhaps partly) sent: it may have been received and carried out.
    #[error("connection lost: {text}")]
    Lost {
        /// What went wrong.
        text: String,
    },
    /// No answer in time. It may have been received and carried out.
    #[error("no answer in time")]
    TimedOut,
    /// The nodes do not belong together; trying again will not help until somebody changes something. Nothing was
    /// sent.
    #[error("refused: {text}")]
    Refused {
        /// Why, as a number.
        code: RefusalCode,
        /// Why, for people.
        text: String,
    },
    /// The other side answered with an error.
    #[error("error {code} from the other node: {text}")]
    Remote {
        /// The handler's number, or one of [`remote_code`].
        code: u16,
        /// The handler's words.
        text: String,
    },
}

impl CallError {
    pub(super) fn unreachable(text: impl Into<String>) -> Self {
        Self::Unreachable { text: text.into() }
    }
}

/// Error codes a server gives by itself. Handlers use codes below [`remote_code::RESERVED`].
pub mod remote_code {
    /// Codes from here on are this module's.
    pub const RESERVED: u16 = 0xff00;
    /// The handler panicked. The request may have been carried out in part.
    pub const PANICKED: u16 = 0xff00;
    /// The body is longer than its kind allows. Nothing was done, and the connection closes.
    pub const TOO_LONG: u16 = 0xff01;
    /// The answer is longer than a frame may be. The request was carried out.
    pub const ANSWER_TOO_LONG: u16 = 0xff02;
}

/// Why a handshake was refused. The number is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
#[non_exhaustive]
pub enum RefusalCode {
    /// A reason this build does not know.
    Unknown = 0,
    /// Not a scribe node.
    WrongMagic = 1,
    /// No protocol version in common.
    Protocol = 2,
    /// Another cluster.
    WrongCluster = 3,
    /// Another node than the one meant: addresses were mixed up.
    WrongTarget = 4,
    /// No certificate, one of another CA, an expired one, or one of another node.
    Certificate = 5,
    /// The sender was removed from the cluster.
    Removed = 6,
    /// Too many connections.
    Busy = 7,
    /// Not on this lane, or not by this sender.
    NotAllowed = 8,
    /// The bytes are no hello.
    Malformed = 9,
    /// The handshake took too long.
    TooSlow = 10,
    /// No TLS, or not TLS 1.3.
    Tls = 11,
}

impl RefusalCode {
    /// All of them; the position is the number.
    pub const ALL: [RefusalCode; 12] = [
        RefusalCode::Unknown,
        RefusalCode::WrongMagic,
        RefusalCode::Protocol,
        RefusalCode::WrongCluster,
        RefusalCode::WrongTarget,
        RefusalCode::Certificate,
        RefusalCode::Removed,
        RefusalCode::Busy,
        RefusalCode::NotAllowed,
        RefusalCode::Malformed,
        RefusalCode::TooSlow,
        RefusalCode::Tls,
    ];

    pub(super) fn from_number(number: u16) -> RefusalCode {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(RefusalCode::Unknown)
    }

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            RefusalCode::Unknown => "unknown",
            RefusalCode::WrongMagic => "wrong_magic",
            RefusalCode::Protocol => "protocol",
            RefusalCode::WrongCluster => "wrong_cluster",
            RefusalCode::WrongTarget => "wrong_target",
            RefusalCode::Certificate => "certificate",
            RefusalCode::Removed => "removed",
            RefusalCode::Busy => "busy",
            RefusalCode::NotAllowed => "not_allowed",
            RefusalCode::Malformed => "malformed",
            RefusalCode::TooSlow => "too_slow",
            RefusalCode::Tls => "tls",
        }
    }
}

/// A request as the handler gets it.
#[derive(Debug)]
pub struct Request {
    /// Who asks, as its certificate says (as its hello says, without TLS). `None` on the join lane for a node that has
    /// no certificate.
    pub sender: Option<NodeId>,
    /// The lane it came on.
    pub lane: Lane,
    /// What it asks for; the caller's number.
    pub kind: u8,
    /// Its bytes.
    pub body: Bytes,
    /// Tells the asker that work goes on.
    pub progress: ProgressHandle,
}

/// An answer. Its parts are sent one after another, without being joined in memory first.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The bytes.
    pub parts: Vec<Bytes>,
}

impl From<Bytes> for Response {
    fn from(body: Bytes) -> Self {
        Self { parts: vec![body] }
    }
}

/// An error as answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    /// The handler's number, below [`remote_code::RESERVED`].
    pub code: u16,
    /// For people. Cut at 4,096 bytes.
    pub text: String,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Whether this node may connect. Called in the handshake, after its certificate and hello were found right.
    fn admit(&self, sender: NodeId) -> Result<(), (RefusalCode, String)>;

    /// Answers one request. On the replication lane of one connection the next request waits for this one's answer;
    /// on all others they run side by side.
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Response, RemoteError>>;

    /// Longest body of a kind. Never more than [`crate::limits::PEER_BODY_LENGTH_MAX`] is read.
    fn body_length_max(&self, lane: Lane, kind: u8) -> usize;
}
