//! The types openraft runs with, written out by hand.
//!
//! Standard leader ids (one leader a term, as in the Raft paper) keep a log id at two numbers and make a segment a pure
//! function of the committed log; the oneshot responder is the leanest. No type of openraft is ever serialized: see
//! [`super::membership`] for what goes to disk.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{
    BoxedErrorSource, InlineBatch, OneshotResponder, TokioRuntime, leader_id_std,
};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};

/// Marker type that names every type openraft needs.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

/// Identifies a node for ever; never reused.
pub type NodeId = u64;

/// Where a node is reached. Replicated with the membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host and port of its Raft listener.
    pub raft_addr: String,
    /// Host and port of its HTTP listener.
    pub http_addr: String,
}

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = AppliedOutcome;
    type NodeId = NodeId;
    type Node = PeerAddress;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, NodeId, PeerAddress>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// What a leader proposes. Cloning counts references; the bytes are encoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// A batch of entries, fixed completely by the sequencer of term `sequencing_term`.
    Entries {
        /// Term of the leader that sequenced it.
        sequencing_term: u64,
        /// Leaf index of its first leaf.
        first_leaf: LeafIndex,
        /// Leaves in it.
        count: u32,
        /// Public part of the frame.
        public: Bytes,
        /// Private part of the frame.
        private: Bytes,
    },
    /// A tree head that a majority of voters agreed on, to be published.
    Publish {
        /// Tree size.
        size: TreeSize,
        /// Root hash at that size.
        root: Hash,
    },
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries {
                first_leaf,
                count,
                sequencing_term,
                ..
            } => {
                write!(
                    formatter,
                    "entries(first {first_leaf}, count {count}, term {sequencing_term})"
                )
            }
            Self::Publish { size, .. } => write!(formatter, "publish({size})"),
        }
    }
}

/// What applying a frame did, told to its proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppliedOutcome {
    /// A frame without leaves (blank, membership).
    Nothing,
    /// The frame no longer fitted and took no leaves: sequence again.
    Void,
    /// The frame's leaves are in the ledger, from `first` on.
    Entries {
        /// Leaf index of the first.
        first: LeafIndex,
        /// Their leaf hashes, in order.
        leaf_hashes: Vec<Hash>,
    },
    /// The tree head is agreed and may be signed.
    Published {
        /// Tree size.
        size: TreeSize,
        /// Root hash.
        root: Hash,
    },
}

/// The committed leader of a term: with standard leader ids, the term itself.
pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

/// The committed leader id of a term.
pub(crate) fn leader_of(term: u64) -> CommittedLeaderId {
    CommittedLeaderId::new(term)
}
