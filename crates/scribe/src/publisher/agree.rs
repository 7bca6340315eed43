//! What the other voters say about a tree head: each recomputes its root and cosigns what it found.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use prost::Message as _;
use scribe_proof::hash::Hash;
use scribe_proof::index::TreeSize;
use scribe_proof::note::Signature;

use crate::cluster::wire::{CosignAnswer, CosignRequest, kind, parts};
use crate::consensus::{ConsensusNode, NodeId};
use crate::peer::{Lane, Wait};
use crate::planted;

/// How long a voter has to recompute a root.
const COSIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer the others are waited for once a majority agrees, so that a checkpoint carries all cosignatures when
/// all nodes are well.
const LATE_VOTERS: Duration = Duration::from_millis(100);

/// What one voter found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub root: Hash,
    pub signature: Option<Signature>,
}

/// What the voters found, this node among them.
#[derive(Debug)]
pub(super) enum Agreement {
    /// A majority has the leader's root; these others among them.
    Agreed(BTreeMap<NodeId, Found>),
    /// A majority has another root than the leader, these voters: the leader is wrong.
    Outvoted { root: Hash, by: Vec<NodeId> },
    /// Too few answered.
    Open { answered: usize, voters: usize },
}

/// Judges what was found so far: `own` is the leader's root, `found` the others', `voters` how many there are in all.
pub(super) fn judge(
    own: Hash,
    leader_votes: bool,
    found: &BTreeMap<NodeId, Found>,
    voters: usize,
) -> Agreement {
    let mut majority = voters / 2 + 1;
    // planted
    if planted::has("outvoted-signs") {
        majority = 1;
    }
    let mut roots: BTreeMap<[u8; 32], Vec<NodeId>> = BTreeMap::new();
    for (id, voter) in found {
        roots.entry(voter.root.0).or_default().push(*id);
    }
    let with_leader = roots.get(&own.0).map_or(0, Vec::len) + usize::from(leader_votes);
    if with_leader >= majority {
        let agreeing = found
            .iter()
            .filter(|(_, voter)| voter.root == own)
            .map(|(id, voter)| (*id, voter.clone()))
            .collect();
        return Agreement::Agreed(agreeing);
    }
    for (root, by) in roots {
        if root != own.0 && by.len() >= majority {
            return Agreement::Outvoted {
                root: Hash(root),
                by,
            };
        }
    }
    Agreement::Open {
        answered: found.len(),
        voters,
    }
}

/// Voters that were asked and have not answered yet.
pub(super) type Asked = FuturesUnordered<BoxFuture<'static, (NodeId, Result<Found, String>)>>;

/// What came of asking the voters.
pub(super) struct Answers {
    pub agreement: Agreement,
    /// Those that may still answer.
    pub asked: Asked,
    /// Those that failed to.
    pub missing: Vec<NodeId>,
}

/// Asks nodes for their root at `size`.
pub(super) fn ask(
    consensus: &ConsensusNode,
    nodes: impl Iterator<Item = NodeId>,
    size: TreeSize,
) -> Asked {
    nodes
        .map(|id| {
            let consensus = consensus.clone();
            let asked = async move { (id, ask_one(&consensus, id, size).await) };
            Box::pin(asked) as BoxFuture<'static, _>
        })
        .collect()
}

/// Asks every other voter for its root at `size`, until a majority agrees or all have answered or failed to.
pub(super) async fn ask_voters(consensus: &ConsensusNode, own: Hash, size: TreeSize) -> Answers {
    let voters = consensus.voters();
    let own_id = consensus.node_id();
    let leader_votes = voters.contains(&own_id);
    let others = voters.iter().copied().filter(|id| *id != own_id);
    let mut asked = ask(consensus, others, size);
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    let mut agreed = false;
    loop {
        let next = if agreed {
            match tokio::time::timeout(LATE_VOTERS, asked.next()).await {
                Ok(next) => next,
                Err(_) => break,
            }
        } else {
            asked.next().await
        };
        match next {
            Some((id, Ok(voter))) => {
                if voter.root != own {
                    tracing::error!(
                        node = id, %size, root = %voter.root, own = %own,
                        "a voter has another root hash than this node"
                    );
                }
                found.insert(id, voter);
            }
            Some((id, Err(reason))) => {
                tracing::debug!(node = id, %size, reason, "a voter did not cosign");
                missing.push(id);
            }
            None => break,
        }
        agreed = matches!(
            judge(own, leader_votes, &found, voters.len()),
            Agreement::Agreed(_)
        );
    }
    Answers {
        agreement: judge(own, leader_votes, &found, voters.len()),
        asked,
        missing,
    }
}

async fn ask_one(consensus: &ConsensusNode, id: NodeId, size: TreeSize) -> Result<Found, String> {
    let request = parts(&CosignRequest { size: size.get() });
    let body = consensus
        .call(
            id,
            Lane::Control,
            kind::COSIGN,
            request,
            Wait::Deadline(COSIGN_TIMEOUT),
        )
        .await
        .map_err(|error| error.to_string())?;
    let answer = CosignAnswer::decode(body).map_err(|error| error.to_string())?;
    let root: [u8; 32] = answer
        .root
        .as_ref()
        .try_into()
        .map_err(|_| format!("a root hash is 32 bytes, found {}", answer.root.len()))?;
    Ok(Found {
        root: Hash(root),
        signature: Signature::parse_line(&answer.signature).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(roots: &[(NodeId, u8)]) -> BTreeMap<NodeId, Found> {
        roots
            .iter()
            .map(|(id, root)| {
                let found = Found {
                    root: Hash([*root; 32]),
                    signature: None,
                };
                (*id, found)
            })
            .collect()
    }

    fn verdict(roots: &[(NodeId, u8)], voters: usize) -> Agreement {
        judge(Hash([1; 32]), true, &found(roots), voters)
    }

    #[test]
    fn alone_the_leader_agrees_with_itself() {
        assert!(matches!(verdict(&[], 1), Agreement::Agreed(_)));
    }

    #[test]
    fn a_majority_with_the_leader_agrees_whatever_the_rest_says() {
        match verdict(&[(2, 1), (3, 9)], 3) {
            Agreement::Agreed(agreeing) => {
                assert_eq!(agreeing.keys().copied().collect::<Vec<_>>(), [2])
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_answer_out_of_three_is_too_few_if_it_differs() {
        assert!(matches!(verdict(&[(2, 9)], 3), Agreement::Open { .. }));
        assert!(matches!(verdict(&[], 3), Agreement::Open { .. }));
    }

    #[test]
    fn a_majority_against_the_leader_outvotes_it() {
        match verdict(&[(2, 9), (3, 9)], 3) {
            Agreement::Outvoted { root, by } => {
                assert_eq!(root, Hash([9; 32]));
                assert_eq!(by, [2, 3]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn three_different_roots_settle_nothing() {
        assert!(matches!(
            verdict(&[(2, 8), (3, 9)], 3),
            Agreement::Open { .. }
        ));
    }

    #[test]
    fn a_leader_that_does_not_vote_does_not_count_itself() {
        let voters = found(&[(2, 1)]);
        assert!(matches!(
            judge(Hash([1; 32]), false, &voters, 3),
            Agreement::Open { .. }
        ));
    }
}
