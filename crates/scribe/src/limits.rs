//! Every maximum in one place, with the reason for it.
//!
//! A request, a file or a frame is measured against these numbers before memory is set aside for it. Sizes are in
//! bytes, times carry their unit. What a user may change is in [`crate::config`]; this file holds the defaults and
//! the hard ceilings.

/// Longest key. Keys are in the leaf, and a leaf must stay far below the 65,535 bytes of a C2SP entry bundle.
pub const KEY_LENGTH_MAX: usize = scribe_proof::leaf::KEY_LENGTH_MAX;
/// Longest value unless configured otherwise.
pub const VALUE_LENGTH_DEFAULT_MAX: usize = 8 * MIB;
/// Longest value that can be configured: a value travels in one frame, and a frame is held in memory whole.
pub const VALUE_LENGTH_CEILING: usize = 32 * MIB;
/// Encoded metadata (content type and user pairs) of one entry.
pub const METADATA_LENGTH_MAX: usize = scribe_proof::leaf::METADATA_LENGTH_MAX;
/// User pairs in one entry's metadata.
pub const METADATA_PAIRS_MAX: usize = scribe_proof::leaf::METADATA_PAIRS_MAX;
/// Operations in one transaction: a transaction is one frame, and its position is a 16-bit number in the leaf.
pub const TRANSACTION_OPERATIONS_MAX: usize = scribe_client::wire::TRANSACTION_OPERATIONS_MAX;
/// Bytes of keys, metadata and values in one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 16 * MIB;
/// Idempotency key as sent by a client; only its hash is kept.
pub const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;
/// How long a successful write is remembered under its idempotency key, in ledger time (24 hours).
pub const IDEMPOTENCY_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;

/// Operations in one frame. A frame is one Raft entry and one unit of apply.
pub const FRAME_OPERATIONS_MAX: usize = 1_024;
/// Bytes after which the sequencer closes a frame. A bigger operation travels alone.
pub const FRAME_BYTES_TARGET: usize = MIB;
/// Most bytes a frame's public or private part may declare: a transaction of the largest values plus its tables.
pub const FRAME_PART_LENGTH_MAX: usize = 48 * MIB;
/// Frames proposed and not yet answered. Enough to overlap encoding, syncing and applying; few enough to form batches.
pub const FRAMES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of submissions admitted to the sequencer at once; beyond it a write is refused with `overloaded`.
pub const SEQUENCER_BYTES_MAX: usize = 64 * MIB;
/// Submissions admitted to the sequencer at once.
pub const SEQUENCER_SUBMISSIONS_MAX: usize = 65_536;

/// Bytes of frames in one append to a peer, beyond its first frame.
pub const REPLICATION_BYTES_MAX: usize = 4 * MIB;
/// Heads, votes, status and other small messages between nodes.
pub const PEER_CONTROL_LENGTH_MAX: usize = MIB;
/// The list of sealed segments offered as a snapshot: summaries of some hundred bytes each.
pub const SNAPSHOT_OFFER_LENGTH_MAX: usize = 96 * MIB;
/// Segments in that list: 12 TiB of frames.
pub const SNAPSHOT_SEGMENTS_MAX: usize = 200_000;
/// Entries in one append to a peer.
pub const APPEND_FRAMES_MAX: usize = 4_096;
/// New nodes let in at once by one member: each costs a look at the disk and an entry of the log.
pub const JOINS_AT_ONCE_MAX: usize = 2;
/// Piece of a segment file fetched from a peer at once: what is lost when a transfer is cut short.
pub const SEGMENT_PIECE_LENGTH: usize = MIB;
/// How long an append or a piece of a segment may stand still before the connection counts as dead, unless it is set.
pub const PEER_PROGRESS_MS: u64 = 10_000;
/// How long a node waits for another one's answer to a small request, such as a follower for the leader's read index,
/// unless it is set.
pub const PEER_REQUEST_MS: u64 = 2_000;
/// How long connecting to one address of a node may take, unless it is set.
pub const PEER_CONNECT_MS: u64 = 2_000;
/// Addresses of a node's name that are tried, in the order the system gives them.
pub const PEER_ADDRESSES_MAX: usize = 8;
/// How long writes carried to a node may still be answered by it after another node is known to lead: enough for one
/// that handed leadership over to answer what it had, short for one that cannot be reached.
pub const FORMER_LEADER_GRACE_MS: u64 = 1_000;

/// How long a read waits for the index that `Scribe-Min-Index` names.
pub const MIN_INDEX_WAIT_MS: u64 = 5_000;
/// How long `/health/ready` waits for a majority: longer than an election needs, shorter than a probe waits.
pub const READY_BARRIER_MS: u64 = 2_000;
/// How long a join token is good if nobody says: time to carry it to another machine.
pub const JOIN_TOKEN_VALIDITY_DEFAULT_S: u64 = 60 * 60;
/// How long a join token can be good: whoever holds it can become a member.
pub const JOIN_TOKEN_VALIDITY_MAX_S: u64 = 7 * 24 * 60 * 60;
/// JSON body of a change of the cluster: a few numbers.
pub const CLUSTER_BODY_LENGTH_MAX: usize = 4 * 1_024;

/// Ledger keys beside the first one in a key directory: a rotation a year for a long life, and a bound on what another
/// member can write there.
pub const LEDGER_KEYS_MAX: usize = 64;

/// Writes that wait to be carried to the leader; beyond it a write is refused with `overloaded`.
pub const FORWARD_WAITING_MAX: usize = 16_384;
/// Writes in one message to the leader.
pub const FORWARD_JOBS_MAX: usize = 256;
/// Messages to the leader that are not answered yet.
pub const FORWARDS_IN_FLIGHT_MAX: usize = 8;
/// Log entries received and not applied beyond which a node is not ready.
pub const READY_LAG_MAX: u64 = 4_096;
/// A join request: a token, two addresses and a certificate request.
pub const JOIN_LENGTH_MAX: usize = 16 * 1_024;
/// A message with writes for the leader: as much as the largest transaction, or as the largest value.
pub const FORWARD_LENGTH_MAX: usize = 48 * MIB;
/// `host:port` of a node.
pub const ADDRESS_LENGTH_MAX: usize = 255 + 6;
/// Log entries a learner may lag when it becomes a voter: it must not be the one a majority waits for.
pub const PROMOTE_LAG_MAX: u64 = 256;
/// Voters a new cluster can begin with: more only make each write wait for more disks.
pub const BOOTSTRAP_MEMBERS_MAX: usize = 9;

/// A segment is sealed once its frames reach this size …
pub const SEGMENT_BYTES_MAX: u64 = 64 * MIB as u64;
/// … or this many leaves, whichever comes first: 1,024 full level-0 tiles, and a bound on the open index.
pub const SEGMENT_LEAVES_MAX: u64 = 262_144;
/// Full segments that wait to be sealed before apply waits for the sealer. Bounds memory and restart time.
pub const SEGMENTS_UNSEALED_MAX: usize = 2;
/// Sealed segments that are also served as log entries, newest first: a follower that is no further behind catches up
/// by entries instead of files.
pub const SEGMENTS_KEPT_AS_LOG: usize = 2;
/// Bytes of an arriving segment after which they are synced, so that the sync at its end is a short one.
pub const STAGING_SYNC_BYTES: u64 = 8 * MIB as u64;
/// Bytes that checksums are computed over in search of a whole frame behind a torn one, at most: a fraction of a second.
pub const TORN_SEARCH_BYTES_MAX: usize = 256 * MIB;
/// Free disk space that putting a damaged segment back leaves: what the log's next segment takes meanwhile.
pub const MEND_RESERVE_BYTES: u64 = 64 * MIB as u64;
/// Bytes one group of appends may reach before it is synced.
pub const SYNC_GROUP_BYTES_MAX: usize = 4 * MIB;
/// Decoded frames kept in memory for apply, replication and hot reads, on top of those not yet applied.
pub const FRAME_CACHE_BYTES: usize = 48 * MIB;
/// Entries kept in memory for reads.
pub const ENTRY_CACHE_BYTES: u64 = 48 * MIB as u64;
/// Tiles and entry bundles kept in memory: those of the last quarter of a million entries, say.
pub const TILE_CACHE_BYTES: u64 = 32 * MIB as u64;
/// Tiles kept in memory with the hashes between their levels, for receipts: those of a million entries, say.
pub const PROOF_CACHE_BYTES: u64 = 64 * MIB as u64;
/// Threads that read tiles from disk for receipts and for the static read side: more would only wait for each other, and
/// each keeps memory of its own.
pub const TILE_READERS_MAX: usize = 8;
/// Memory the key index may use for its block cache.
pub const INDEX_CACHE_BYTES: u64 = 64 * MIB as u64;

/// Body of a bulk upload line: the largest value in base64, its key and its metadata.
pub const BULK_LINE_LENGTH_MAX: usize = 48 * MIB;
/// Entries, versions or keys in one listing page.
pub const PAGE_LIMIT_MAX: usize = 1_000;
/// Page size when the client names none.
pub const PAGE_LIMIT_DEFAULT: usize = 100;
/// Bytes of entries in one page of `/v1/entries`; the page ends early and says where to go on.
pub const PAGE_BYTES_MAX: usize = 8 * MIB;
/// Keys in one `POST /v1/keys:get`.
pub const KEYS_GET_MAX: usize = scribe_client::wire::KEYS_GET_MAX;
/// Receipts in one `POST /v1/receipts`: some two megabytes, fifteen with the longest metadata.
pub const RECEIPTS_MAX: usize = scribe_client::wire::RECEIPTS_MAX;
/// Values above this size are left out of watch events; the client fetches them by index.
pub const WATCH_VALUE_LENGTH_MAX: usize = 64 * 1_024;
/// Watchers at once on one node.
pub const WATCHERS_MAX: usize = 1_024;
/// Request head: line and headers.
pub const HTTP_HEAD_LENGTH_MAX: usize = 16 * 1_024;
/// Request target (path and query).
pub const HTTP_URI_LENGTH_MAX: usize = 4 * 1_024;
/// Header fields in one request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// JSON body of a transaction or multi-get: base64 grows bytes by a third.
pub const JSON_BODY_LENGTH_MAX: usize = 24 * MIB;
/// How long a client may take to send its request head.
pub const HTTP_HEAD_TIMEOUT_MS: u64 = 5_000;
/// How long a TLS handshake with a client may take.
pub const HTTP_TLS_HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
/// A file with a certificate chain or a private key: some ten certificates have 20 KiB.
pub const PEM_LENGTH_MAX: u64 = MIB as u64;
/// How long a client-facing write or barrier may take before its outcome is reported as unknown.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// How long a receipt or `?wait=published` waits for a checkpoint.
pub const PUBLISH_WAIT_MS: u64 = 5_000;
/// How long a connection may stay open between requests.
pub const HTTP_IDLE_TIMEOUT_MS: u64 = 75_000;
/// How long a request body may stand still.
pub const HTTP_BODY_STALL_MS: u64 = 10_000;
/// How long a client may take nothing of an answer that waits for it.
pub const HTTP_WRITE_STALL_MS: u64 = 30_000;
/// How long requests in progress may take to finish when the node stops.
pub const HTTP_DRAIN_TIMEOUT_MS: u64 = 10_000;
/// Connections at once; more wait in the kernel's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;
/// Request bodies over 64 KiB being received or handled at once, together.
pub const HTTP_BODIES_BYTES_MAX: usize = 128 * MIB;
/// Values in one answer to `POST /v1/keys:get`.
pub const KEYS_GET_BYTES_MAX: usize = 16 * MIB;
/// Bulk uploads at once.
pub const BULK_STREAMS_MAX: usize = 32;
/// Frames' worth of bulk entries handed to the sequencer at once, by all uploads together: less than half of what it
/// admits, so that single writes always find room.
pub const BULK_ROOM_FRAMES: usize = 24;
/// How long a bulk upload may go without a byte.
pub const BULK_IDLE_TIMEOUT_MS: u64 = 600_000;
/// Longest body of a frame between nodes, whatever its kind allows: the largest frame of the log with both parts and
/// room around them. Longer things travel in pieces.
pub const PEER_BODY_LENGTH_MAX: usize = 128 * MIB;
/// Longest request of a node that has no certificate yet.
pub const PEER_JOIN_BODY_LENGTH_MAX: usize = 64 * 1_024;
/// Bytes that wait to be written on one connection between nodes. A longer body waits until it is alone.
pub const PEER_QUEUE_BYTES_MAX: usize = 8 * MIB;
/// Requests at work on one connection between nodes; further ones wait at the sender.
pub const PEER_REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// Bytes of requests at work on one connection; further ones stay in the socket. A longer body is handled alone.
pub const PEER_REQUEST_BYTES_MAX: usize = 64 * MIB;
/// Connections from other nodes at once, all senders together.
pub const PEER_CONNECTIONS_MAX: usize = 512;
/// Connections from one node at once: two full sets, as after a restart that this side has not noticed yet. One more
/// closes the oldest.
pub const PEER_CONNECTIONS_PER_SENDER_MAX: usize = 16;
/// Connections at once of nodes that have no certificate.
pub const PEER_JOINS_MAX: usize = 16;
/// How long a connection without certificate may stay.
pub const PEER_JOIN_LIFETIME_MS: u64 = 60_000;
/// Connections at once that have not said who they are. One more closes the oldest: a good node needs milliseconds.
pub const PEER_HANDSHAKES_MAX: usize = 64;
/// How long requests at work may take to finish when the server stops or a connection ends in order.
pub const PEER_DRAIN_MS: u64 = 2_000;
/// Outside witnesses a node submits to: each costs a request per checkpoint, and a signature line in each receipt.
pub const WITNESSES_MAX: usize = 16;
/// How long an outside witness may take to answer, from the connection to the end of its answer.
pub const WITNESS_TIMEOUT_MS: u64 = 10_000;
/// First pause before a witness that failed is asked again; each further one is twice as long …
pub const WITNESS_BACKOFF_MIN_MS: u64 = 500;
/// … up to this.
pub const WITNESS_BACKOFF_MAX_MS: u64 = 60_000;
/// Logs one witness follows: each has a file and a lock.
pub const WITNESS_LOGS_MAX: usize = 1_024;
/// Keys trusted to sign for one log: two while it replaces its key, and room for another kind.
pub const WITNESS_KEYS_PER_LOG_MAX: usize = 8;
/// Signed requests for one log that a witness holds at once: they are decided one after another.
pub const WITNESS_WAITING_PER_LOG_MAX: usize = 16;
/// Requests a witness holds at once, whoever sent them.
pub const WITNESS_REQUESTS_MAX: usize = 256;
/// `witnessed` beside a witness's key: a line of 86 bytes for every log it ever followed.
pub const WITNESSED_LENGTH_MAX: u64 = MIB as u64;
/// File with the logs a witness follows.
pub const WITNESS_LOGS_LENGTH_MAX: u64 = MIB as u64;

/// Keys an audit of tiles or of a live node remembers the newest version of, about 40 bytes each; with more it stops
/// comparing what entries say about the version before them, and says so.
pub const AUDIT_KEYS_MAX: usize = 1 << 24;

/// Free disk space below which client writes are refused (507) while reads and replication go on.
pub const DISK_RESERVE_BYTES: u64 = 256 * MIB as u64;

/// 1,048,576 bytes.
pub const MIB: usize = 1_024 * 1_024;
