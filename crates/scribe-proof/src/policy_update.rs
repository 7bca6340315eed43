//! A policy follows its ledger: new nodes and a new ledger key, accepted only as far as the old policy
//! vouches for them.
//!
//! The rule, and all of it:
//!
//! 1. the checkpoint satisfies the **old** policy;
//! 2. a node's key, or a rotation of the ledger's, counts only if the system leaf that announces it is
//!    proved *included* under that checkpoint, at the index it names; one that is not is a server's
//!    lie, and the whole update is refused;
//! 3. a node leaves only if the user names it: a server could otherwise shrink the majority to the
//!    nodes it has;
//! 4. the checkpoint satisfies the **new** policy, too.
//!
//! An included announcement says that the members of the ledger wrote it, not that the node is honest:
//! it is the user who accepts the difference. The *text* is edited, not written anew: comments, outside
//! witnesses, other ledgers and groups stay as the user wrote them. Only the group `node-majority`, as
//! [`Policy::majority`](crate::Policy::majority) makes it, is understood.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::checkpoint::SignedCheckpoint;
use crate::error::ProofError;
use crate::hash::{Hash, leaf_hash};
use crate::inclusion;
use crate::index::LeafIndex;
use crate::key::{KeyType, VerifierKey};
use crate::leaf::{Leaf, LeafError, SystemKind};
use crate::policy::{Policy, PolicyError};
use crate::rotation::{Rotation, RotationError};

/// The group of a policy that an update changes.
pub const NODE_GROUP: &str = "node-majority";
/// Length of the body of a node's announcement: `u64 node id ‖ u8 key type ‖ 32-byte public key`.
pub const NODE_KEY_BODY_LENGTH: usize = 41;

/// A system leaf with its inclusion proof under the checkpoint of an update. Nothing in it is believed
/// before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The leaf's canonical bytes.
    pub leaf: Vec<u8>,
    /// Where it is said to be.
    pub index: LeafIndex,
    /// The inclusion proof, nearest the leaf first.
    pub proof: Vec<Hash>,
}

/// What an update changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyChange {
    /// The ledger signs with another key now.
    LedgerKey {
        /// The key in the old policy.
        old: VerifierKey,
        /// The newest key.
        new: VerifierKey,
        /// Leaf index of the last rotation between them.
        index: LeafIndex,
    },
    /// A node joins the group.
    NodeAdded {
        /// Its name in the policy.
        name: String,
        /// Its key.
        key: VerifierKey,
        /// Leaf index of its announcement.
        index: LeafIndex,
    },
    /// A node leaves the group.
    NodeRemoved {
        /// Its name in the policy.
        name: String,
    },
    /// So many of the nodes must cosign.
    Threshold {
        /// Before.
        old: usize,
        /// From now on.
        new: usize,
        /// Nodes there are from now on.
        of: usize,
    },
}

/// What becomes of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyUpdate {
    /// The new policy's text.
    pub text: String,
    /// What is different; empty if nothing is.
    pub changes: Vec<PolicyChange>,
    /// Announced keys that were not taken, each with the reason.
    pub left_out: Vec<(VerifierKey, &'static str)>,
}

/// Why a policy is not updated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyUpdateError {
    /// The old policy is no policy.
    #[error("the old policy is refused: {0}")]
    Old(PolicyError),
    /// The checkpoint does not satisfy the old policy.
    #[error("the checkpoint does not satisfy the old policy: {0}")]
    OldNotSatisfied(PolicyError),
    /// An announcement is not in the ledger.
    #[error("leaf {index} is not included under the checkpoint: {error}")]
    NotIncluded {
        /// Its index.
        index: LeafIndex,
        /// What does not hold.
        error: ProofError,
    },
    /// An announcement is no leaf.
    #[error("leaf {index} is refused: {error}")]
    Leaf {
        /// Its index.
        index: LeafIndex,
        /// The rule.
        error: LeafError,
    },
    /// A leaf announces no key.
    #[error("leaf {index} announces neither a node's key nor a rotation of the ledger's")]
    NoAnnouncement {
        /// Its index.
        index: LeafIndex,
    },
    /// A leaf holds a rotation that does not hold.
    #[error("the rotation in leaf {index} is refused: {error}")]
    Rotation {
        /// Its index.
        index: LeafIndex,
        /// The rule.
        error: RotationError,
    },
    /// The policy is not of the shape an update understands.
    #[error(
        "group node-majority must ask for a majority of nodes of this ledger, found {problem}; hint: change this policy \
         by hand"
    )]
    Shape {
        /// What it is instead.
        problem: &'static str,
    },
    /// A node to be removed is not there.
    #[error("node {name:?} is not a member of the group node-majority")]
    UnknownNode {
        /// The name given.
        name: String,
    },
    /// No node would be left.
    #[error("at least one node must be left in the group node-majority")]
    NoNodeLeft,
    /// The new policy is no policy.
    #[error("the new policy would be refused: {0}")]
    New(PolicyError),
    /// The checkpoint does not satisfy the new policy.
    #[error("the checkpoint does not satisfy the new policy: {0}")]
    NewNotSatisfied(PolicyError),
}

/// The body of a node's announcement: its id and its cosigning key under this origin's name for it.
fn node_key(origin: &str, body: &[u8]) -> Option<(u64, VerifierKey)> {
    if body.len() != NODE_KEY_BODY_LENGTH || body.get(8) != Some(&(KeyType::Cosignature as u8)) {
        return None;
    }
    let id = u64::from_be_bytes(body.get(..8)?.try_into().ok()?);
    let public_key = body.get(9..)?.try_into().ok()?;
    let key = VerifierKey::new(
        &format!("{origin}/node/{id}"),
        KeyType::Cosignature,
        public_key,
    );
    Some((id, key.ok()?))
}

/// What was proved to be announced.
#[derive(Default)]
struct Proved {
    /// By node id, the newest announcement.
    nodes: BTreeMap<u64, (VerifierKey, LeafIndex)>,
    rotations: Vec<Rotation>,
}

impl Proved {
    fn new(
        checkpoint: &SignedCheckpoint,
        announced: &[Announced],
    ) -> Result<Proved, PolicyUpdateError> {
        let head = checkpoint.checkpoint();
        let mut proved = Proved::default();
        for Announced { leaf, index, proof } in announced {
            let index = *index;
            inclusion::verify(&leaf_hash(leaf), index, head.size, proof, &head.root)
                .map_err(|error| PolicyUpdateError::NotIncluded { index, error })?;
            let leaf =
                Leaf::parse(leaf).map_err(|error| PolicyUpdateError::Leaf { index, error })?;
            let nothing = PolicyUpdateError::NoAnnouncement { index };
            // The ledger's own entries have no key: what somebody filed under one is not its word.
            if !leaf.key.is_empty() {
                return Err(nothing);
            }
            match leaf.system_kind() {
                Some(SystemKind::NodeKey) => {
                    let (id, key) = node_key(&head.origin, leaf.body).ok_or(nothing)?;
                    let newer = proved.nodes.get(&id).is_none_or(|(_, at)| *at < index);
                    if newer {
                        proved.nodes.insert(id, (key, index));
                    }
                }
                Some(SystemKind::LedgerKey) => {
                    let note = core::str::from_utf8(leaf.body).map_err(|_| nothing)?;
                    let refused = |error| PolicyUpdateError::Rotation { index, error };
                    let rotation = Rotation::parse(note).map_err(refused)?;
                    if rotation.index() != index {
                        return Err(refused(RotationError::Index {
                            expected: rotation.index(),
                            found: index,
                        }));
                    }
                    if rotation.origin() != head.origin {
                        return Err(refused(RotationError::KeyName {
                            origin: head.origin.clone(),
                            found: rotation.origin().to_owned(),
                        }));
                    }
                    proved.rotations.push(rotation);
                }
                _ => return Err(nothing),
            }
        }
        proved.rotations.sort_by_key(Rotation::index);
        Ok(proved)
    }

    /// The key that took the place of this one, over any number of rotations, and where the last one is.
    fn successor(&self, key: &VerifierKey) -> Option<(&VerifierKey, LeafIndex)> {
        let mut newest = None;
        // In the order of the ledger, so that nothing leads back.
        for rotation in &self.rotations {
            let current = newest.map_or(key, |(current, _)| current);
            if rotation.old() == current {
                newest = Some((rotation.new_key(), rotation.index()));
            }
        }
        newest
    }
}

/// A line of a policy, taken apart as [`Policy::parse`] does. The text has been parsed before.
fn items(line: &str) -> Vec<&str> {
    line.split([' ', '\t'])
        .filter(|item| !item.is_empty())
        .collect()
}

/// The group's line, and its members with their keys.
struct Nodes {
    line: usize,
    threshold: usize,
    members: Vec<(String, VerifierKey)>,
}

impl Nodes {
    fn find(
        lines: &[&str],
        policy: &Policy,
        origin: &str,
    ) -> Result<Option<Nodes>, PolicyUpdateError> {
        let shape = |problem| PolicyUpdateError::Shape { problem };
        for (line, text) in lines.iter().enumerate() {
            let parts = items(text);
            let ["group", NODE_GROUP, threshold, names @ ..] = parts.as_slice() else {
                continue;
            };
            let mut members = Vec::with_capacity(names.len());
            for name in names {
                let key = policy.witness_keys().find(|(known, _)| known == name);
                let (_, key) = key.ok_or(shape("a group among its members"))?;
                if !is_node_of(origin, key) {
                    return Err(shape(
                        "a witness among its members that is no node of this ledger",
                    ));
                }
                members.push(((*name).to_owned(), key.clone()));
            }
            let majority = members.len() / 2 + 1;
            if **threshold != majority.to_string() {
                return Err(shape("another threshold than a majority"));
            }
            return Ok(Some(Nodes {
                line,
                threshold: majority,
                members,
            }));
        }
        Ok(None)
    }
}

fn is_node_of(origin: &str, key: &VerifierKey) -> bool {
    let id = key
        .name()
        .strip_prefix(origin)
        .and_then(|rest| rest.strip_prefix("/node/"));
    id.is_some_and(|id| crate::index::parse_decimal(id).is_some())
}

/// Updates a policy: see the [module](self) for the rule. `remove` names nodes, as the policy does.
///
/// # Errors
/// See [`PolicyUpdateError`]. Nothing but a whole update is ever returned.
pub fn update(
    old: &str,
    checkpoint: &SignedCheckpoint,
    announced: &[Announced],
    remove: &[&str],
) -> Result<PolicyUpdate, PolicyUpdateError> {
    let policy = Policy::parse(old).map_err(PolicyUpdateError::Old)?;
    policy
        .evaluate(checkpoint)
        .map_err(PolicyUpdateError::OldNotSatisfied)?;
    let origin = checkpoint.checkpoint().origin.as_str();
    let proved = Proved::new(checkpoint, announced)?;
    let lines: Vec<&str> = old.split('\n').collect();
    let nodes = Nodes::find(&lines, &policy, origin)?;
    let mut edit = Edit {
        lines: lines.iter().map(|line| Some((*line).to_owned())).collect(),
        changes: Vec::new(),
        left_out: Vec::new(),
    };
    edit.ledger_keys(&policy, &proved, origin);
    match &nodes {
        Some(nodes) => edit.nodes(&policy, nodes, &proved, remove)?,
        None => {
            if let Some(name) = remove.first() {
                return Err(PolicyUpdateError::UnknownNode {
                    name: (*name).to_owned(),
                });
            }
            let without = "the policy has no group node-majority";
            edit.leave_out(&proved, without);
        }
    }
    let text: Vec<String> = edit.lines.into_iter().flatten().collect();
    let text = text.join("\n");
    Policy::parse(&text)
        .map_err(PolicyUpdateError::New)?
        .evaluate(checkpoint)
        .map_err(PolicyUpdateError::NewNotSatisfied)?;
    Ok(PolicyUpdate {
        text,
        changes: edit.changes,
        left_out: edit.left_out,
    })
}

struct Edit {
    /// The lines, in place; `None` for one that goes.
    lines: Vec<Option<String>>,
    changes: Vec<PolicyChange>,
    left_out: Vec<(VerifierKey, &'static str)>,
}

impl Edit {
    fn leave_out(&mut self, proved: &Proved, why: &'static str) {
        for (key, _) in proved.nodes.values() {
            self.left_out.push((key.clone(), why));
        }
    }

    /// Puts the newest key in the place of each of this ledger's that was replaced.
    fn ledger_keys(&mut self, policy: &Policy, proved: &Proved, origin: &str) {
        for line in self.lines.iter_mut().flatten() {
            let ["log", key, ..] = items(line)[..] else {
                continue;
            };
            let old = policy
                .log_keys()
                .find(|known| known.name() == origin && known.to_text() == key);
            let Some((old, (new, index))) = old.and_then(|old| Some((old, proved.successor(old)?)))
            else {
                continue;
            };
            // The user has listed it already.
            if policy.log_keys().any(|known| known == new) {
                continue;
            }
            let (key, new_text) = (key.to_owned(), new.to_text());
            *line = line.replacen(&key, &new_text, 1);
            self.changes.push(PolicyChange::LedgerKey {
                old: old.clone(),
                new: new.clone(),
                index,
            });
        }
    }

    fn nodes(
        &mut self,
        policy: &Policy,
        nodes: &Nodes,
        proved: &Proved,
        remove: &[&str],
    ) -> Result<(), PolicyUpdateError> {
        for name in remove {
            if !nodes.members.iter().any(|(known, _)| known == name) {
                return Err(PolicyUpdateError::UnknownNode {
                    name: (*name).to_owned(),
                });
            }
        }
        let (removed, stay): (Vec<_>, Vec<_>) = nodes
            .members
            .iter()
            .partition(|(name, _)| remove.contains(&name.as_str()));
        let mut names: Vec<String> = stay.into_iter().map(|(name, _)| name.clone()).collect();
        let mut added = Vec::new();
        for (id, (key, index)) in &proved.nodes {
            let removed_here = removed.iter().any(|(_, old)| old == key);
            if removed_here {
                self.left_out.push((key.clone(), "it is being removed"));
                continue;
            }
            let known = |key: &VerifierKey, same: fn(&VerifierKey, &VerifierKey) -> bool| {
                policy
                    .witness_keys()
                    .filter(|(name, _)| !remove.contains(name))
                    .any(|(_, other)| same(other, key))
            };
            if known(key, |other, key| other.public_key() == key.public_key()) {
                continue;
            }
            if known(key, |other, key| other.name() == key.name()) {
                let why = "the policy has another key for this node; remove that one first";
                self.left_out.push((key.clone(), why));
                continue;
            }
            let name = format!("node-{id}");
            added.push(format!("witness {name} {key}"));
            names.push(name.clone());
            self.changes.push(PolicyChange::NodeAdded {
                name,
                key: key.clone(),
                index: *index,
            });
        }
        if names.is_empty() {
            return Err(PolicyUpdateError::NoNodeLeft);
        }
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        for (name, _) in &removed {
            self.changes
                .push(PolicyChange::NodeRemoved { name: name.clone() });
        }
        for slot in &mut self.lines {
            let goes = slot.as_deref().is_some_and(
                |line| matches!(items(line)[..], ["witness", name, ..] if remove.contains(&name)),
            );
            if goes {
                *slot = None;
            }
        }
        let threshold = names.len() / 2 + 1;
        added.push(format!(
            "group {NODE_GROUP} {threshold} {}",
            names.join(" ")
        ));
        if let Some(slot) = self.lines.get_mut(nodes.line) {
            *slot = Some(added.join("\n"));
        }
        if threshold != nodes.threshold {
            self.changes.push(PolicyChange::Threshold {
                old: nodes.threshold,
                new: threshold,
                of: names.len(),
            });
        }
        Ok(())
    }
}
