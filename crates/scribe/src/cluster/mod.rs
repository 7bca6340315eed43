//! What the nodes of one ledger say to each other beyond Raft: writes on their way to the leader, tree heads to cosign,
//! checkpoints to show, how each is, and how a new one joins.
//!
//! Here are the messages ([`wire`]), the task that carries writes to the leader ([`forward`]), the files a member keeps
//! beside its keys ([`files`]) and the joining side of a join ([`join`]). Who answers is the node's business
//! ([`crate::node`]); how bytes travel is [`crate::peer`]'s; what Raft says is [`crate::consensus`]'s.

mod counted;
pub mod files;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod join;
pub mod wire;
