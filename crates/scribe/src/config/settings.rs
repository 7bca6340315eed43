//! The table of what can be set. Flags, variables, the sample file and every check read it.

use crate::limits;

/// What a setting's text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, relative to the working directory.
    Path,
    /// A file, likewise.
    File,
    /// An address `host:port`.
    Address,
    /// Any text.
    Text,
    /// A join token, or the path of a file with one.
    Token,
    /// `true` or `false`.
    Flag,
    /// A size such as `64MiB`.
    Bytes,
    /// A duration such as `50ms`.
    Duration,
    /// A whole number.
    Count,
    /// Several texts: an array in the file, a flag for each, lines in a variable.
    List,
}

/// One thing that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Key in `scribe.toml`; the variable is `SCRIBE_` and it in capitals.
    pub name: &'static str,
    /// Command line flag, with its dashes.
    pub flag: &'static str,
    /// What its text means.
    pub kind: Kind,
    /// Default, as a user would write it; empty when there is none.
    pub default: &'static str,
    /// Smallest and largest number allowed (bytes, milliseconds or count).
    pub range: (u64, u64),
    /// What it is for, in one line.
    pub help: &'static str,
}

impl Setting {
    /// The environment variable that sets it: `SCRIBE_DATA_DIR` for `data_dir`.
    pub fn variable(&self) -> String {
        format!("SCRIBE_{}", self.name.to_ascii_uppercase())
    }
}

const ANY: (u64, u64) = (0, u64::MAX);
const MIB: u64 = limits::MIB as u64;
const GIB: u64 = 1 << 30;
const HOUR_MS: u64 = 3_600_000;

const fn setting(
    name: &'static str,
    flag: &'static str,
    kind: Kind,
    default: &'static str,
    range: (u64, u64),
    help: &'static str,
) -> Setting {
    Setting {
        name,
        flag,
        kind,
        default,
        range,
        help,
    }
}

/// Everything that can be set, in the order of the sample file.
pub const SETTINGS: &[Setting] = &[
    setting(
        "data_dir",
        "--data-dir",
        Kind::Path,
        "./scribe-data",
        ANY,
        "where the ledger is stored",
    ),
    setting(
        "key_dir",
        "--key-dir",
        Kind::Path,
        "./scribe-keys",
        ANY,
        "where the private keys and the last signed head are; keep it out of backups of data_dir",
    ),
    setting(
        "http_addr",
        "--http-addr",
        Kind::Address,
        "127.0.0.1:8001",
        ANY,
        "where the HTTP API listens",
    ),
    setting(
        "http_advertise_addr",
        "--http-advertise-addr",
        Kind::Address,
        "",
        ANY,
        "where clients reach the HTTP API, told to other nodes; http_addr when empty",
    ),
    setting(
        "raft_addr",
        "--raft-addr",
        Kind::Address,
        "127.0.0.1:9001",
        ANY,
        "where other nodes of the cluster reach this one; a name or an IP address, and a port",
    ),
    setting(
        "raft_listen",
        "--raft-listen",
        Kind::Address,
        "",
        ANY,
        "where this node listens for the others, such as 0.0.0.0:9001; raft_addr when empty",
    ),
    setting(
        "raft_plaintext",
        "--raft-plaintext",
        Kind::Flag,
        "false",
        ANY,
        "let nodes talk to each other without TLS: whoever reaches the port is believed",
    ),
    setting(
        "insecure",
        "--insecure",
        Kind::Flag,
        "false",
        ANY,
        "allow an http_addr that other machines can reach: whoever reaches it can read and write everything, with TLS or without",
    ),
    setting(
        "http_tls_cert",
        "--http-tls-cert",
        Kind::File,
        "",
        ANY,
        "PEM file with the certificate chain the HTTP API shows; plain HTTP when empty",
    ),
    setting(
        "http_tls_key",
        "--http-tls-key",
        Kind::File,
        "",
        ANY,
        "PEM file with the private key of http_tls_cert",
    ),
    setting(
        "join",
        "--join",
        Kind::Token,
        "",
        ANY,
        "join a cluster with this token, or the file that holds it; a node that is a member ignores it",
    ),
    setting(
        "learner",
        "--learner",
        Kind::Flag,
        "false",
        ANY,
        "stay a learner: follow the ledger and serve reads, never vote",
    ),
    setting(
        "ready_lag_max",
        "--ready-lag-max",
        Kind::Count,
        "4096",
        (1, u64::MAX),
        "log entries received and not applied beyond which the node says that it is not ready",
    ),
    setting(
        "heartbeat_interval",
        "--heartbeat-interval",
        Kind::Duration,
        "250ms",
        (10, 60_000),
        "how often a leader says that it is there",
    ),
    setting(
        "election_timeout_min",
        "--election-timeout-min",
        Kind::Duration,
        "750ms",
        (20, HOUR_MS),
        "shortest time after a silent leader's lease at which another one is elected",
    ),
    setting(
        "election_timeout_max",
        "--election-timeout-max",
        Kind::Duration,
        "1500ms",
        (20, HOUR_MS),
        "longest such time, and the lease: how long after a leader's last word nobody votes for another one",
    ),
    setting(
        "peer_connect_timeout",
        "--peer-connect-timeout",
        Kind::Duration,
        "2s",
        (50, 60_000),
        "how long connecting to another node may take, for each address of its name",
    ),
    setting(
        "peer_request_timeout",
        "--peer-request-timeout",
        Kind::Duration,
        "2s",
        (100, 60_000),
        "how long another node may take to answer a small request, such as a follower's for a linearizable read",
    ),
    setting(
        "peer_progress_timeout",
        "--peer-progress-timeout",
        Kind::Duration,
        "10s",
        (1_000, HOUR_MS),
        "how long entries or segments on their way to another node may stand still before the connection is given up",
    ),
    setting(
        "snapshot_bytes_per_second",
        "--snapshot-bytes-per-second",
        Kind::Bytes,
        "0B",
        ANY,
        "how fast a node that is behind fetches sealed segments from others; 0 means as fast as it can",
    ),
    setting(
        "origin",
        "--origin",
        Kind::Text,
        "",
        ANY,
        "name of a new ledger, the first line of each checkpoint; made from the key when empty",
    ),
    setting(
        "value_length_max",
        "--value-length-max",
        Kind::Bytes,
        "8MiB",
        (1, limits::VALUE_LENGTH_CEILING as u64),
        "longest value accepted",
    ),
    setting(
        "publish_interval",
        "--publish-interval",
        Kind::Duration,
        "1s",
        (10, HOUR_MS),
        "how often a checkpoint is signed while there are new entries",
    ),
    setting(
        "witness",
        "--witness",
        Kind::List,
        "",
        ANY,
        "an outside witness that cosigns checkpoints, as `<verifier key> <URL>`; can be repeated, the same on every node",
    ),
    setting(
        "disk_reserve",
        "--disk-reserve",
        Kind::Bytes,
        "256MiB",
        ANY,
        "free disk space below which writes are refused (507) while reads go on",
    ),
    setting(
        "index_cache",
        "--index-cache",
        Kind::Bytes,
        "64MiB",
        (MIB, 64 * GIB),
        "memory for the key index",
    ),
    setting(
        "entry_cache",
        "--entry-cache",
        Kind::Bytes,
        "48MiB",
        (MIB, 64 * GIB),
        "memory for entries read often",
    ),
    setting(
        "scrub_rate",
        "--scrub-rate",
        Kind::Bytes,
        "8MiB",
        ANY,
        "bytes re-read and re-hashed per second in the background; 0 turns it off",
    ),
    setting(
        "log",
        "--log",
        Kind::Text,
        "info",
        ANY,
        "what is logged to stderr: error, warn, info, debug, trace, or a filter like info,scribe=debug",
    ),
];
