//! One root hash per tree size, in whatever state of whatever node.
//!
//! States are compared with each other, with checkpoints of the same size, and with the tree over the entries, as in
//! [`checkpoints`](super::checkpoints). A state is no claim that anybody keeps; but two nodes whose roots differ at one
//! size have diverged, and the next checkpoint of one of them would be a fork.

use crate::event::{Moment, NodeId, NodeState};
use crate::heads::{Heads, Holder, Shown};

use super::Check;
use super::checkpoints::forked;

/// A node said what it applied.
pub(crate) fn state(at: Moment, heads: &mut Heads, node: NodeId, state: &NodeState) -> Check {
    let Some(root) = state.root_hash else {
        return Ok(());
    };
    let shown = Shown {
        root,
        holder: Holder::Node(node),
        at,
        signed: false,
    };
    heads
        .show(state.tree_size.get(), shown)
        .map_err(|fork| forked(at, &fork))
}
