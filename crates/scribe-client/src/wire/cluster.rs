//! Health and the cluster: who its members are, how they are, and what changes them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::HexHash;

/// Answer to `GET /health/live` and `/health/ready` (200 or 503).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `unavailable`.
    pub status: String,
    /// Why not, if unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This node's Raft id.
    pub node_id: u64,
    /// Whether it is the leader.
    pub is_leader: bool,
    /// The leader it knows.
    pub current_leader: Option<u64>,
    /// Its Raft role: `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub state: String,
    /// Raft's last log index; `null` if the log is empty.
    pub last_log_index: Option<u64>,
    /// Raft's last applied log index.
    pub last_applied: Option<u64>,
    /// Raft's term.
    pub current_term: u64,
}

/// Answer to `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// The node that answered, by its own account.
    pub node: Health,
    /// Id of the leader, if the node that answered knows one.
    pub leader: Option<u64>,
    /// Every member the membership names, in the order of their ids.
    pub members: Vec<Member>,
    /// Voters that may fail while writes go on.
    pub failures_tolerated: u64,
    /// What is unwise about this membership, such as two voters, which tolerate no failure.
    pub warning: Option<String>,
}

/// Answer to `GET /v1/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    /// Every member the membership names, in the order of their ids.
    pub members: Vec<Member>,
}

/// One member of a [`Cluster`]: what the membership says of it, and what it says of itself.
///
/// A member that did not answer is not `reachable`, has an `error`, and everything it would have
/// said of itself is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Raft id, never used again.
    pub node_id: u64,
    /// `voter` or `learner`.
    pub role: String,
    /// Where other nodes reach it.
    pub raft_addr: String,
    /// Where clients reach it; empty if it has not said.
    pub http_addr: String,
    /// Whether it answered the node that answers this.
    pub reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// Its Raft role: `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub state: Option<String>,
    /// Raft's term.
    pub term: Option<u64>,
    /// The last log index the leader knows it to have; only the leader knows, ask that one.
    pub matched_log_index: Option<u64>,
    /// The last log index whose entry it has applied; `null` also before the first.
    pub last_applied: Option<u64>,
    /// Log entries that the leader has and it has not applied.
    pub lag: Option<u64>,
    /// Entries of the ledger it has applied.
    pub tree_size: Option<u64>,
    /// Root hash of the tree of that size. Members with the same tree size must have the same.
    pub root: Option<HexHash>,
    /// Why it is not ready; `null` if it is.
    pub not_ready: Option<String>,
    /// The version of Scribe Ledger it runs.
    pub version: Option<String>,
    /// How far it is with taking over sealed segments; `null` if it is not at it.
    pub catch_up: Option<CatchUp>,
    /// How far it is with putting back sealed segments that were damaged on its disk; `null` if none is.
    pub mending: Option<CatchUp>,
}

/// How far a member is with taking over sealed segments of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CatchUp {
    /// Bytes it has taken.
    pub done_bytes: u64,
    /// Bytes there are to take.
    pub total_bytes: u64,
}

/// Answer to `GET /v1/cluster/leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leader {
    /// Id of the leader; `null` if none is known.
    pub node_id: Option<u64>,
    /// Whether the node that answered is the leader.
    pub is_this_node: bool,
    /// Where clients reach the leader; `null` if there is none or it has not said.
    pub http_addr: Option<String>,
}

/// Body of `POST /v1/cluster/tokens`: asks for a token with which one node can join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTokenRequest {
    /// Seconds until the token expires; an hour if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// Answer to `POST /v1/cluster/tokens` (201). The token is a secret: it lets one node in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterToken {
    /// What `scribe serve --join` wants.
    pub token: String,
    /// When it expires, in milliseconds since 1970-01-01 UTC.
    pub expires_ms: u64,
}

// Written by hand so that a token does not reach a log by way of `{:?}`.
impl std::fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterToken")
            .field("token", &"(secret)")
            .field("expires_ms", &self.expires_ms)
            .finish()
    }
}

/// Body of `POST /v1/cluster/members/{id}/replace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// The learner that takes the voter's place.
    pub by: u64,
}

/// Body of `POST /v1/cluster/leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaderRequest {
    /// The voter that is to lead.
    pub node_id: u64,
}

/// Answer to a change of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterChanged {
    /// Always true: a change that was not made is a refusal.
    pub done: bool,
}

/// Answer to `POST /v1/cluster/ledger-key`: the ledger has a new signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyRotated {
    /// The new verifier key.
    pub verifier_key: String,
    /// Leaf index of the entry that both keys signed.
    pub index: u64,
}
