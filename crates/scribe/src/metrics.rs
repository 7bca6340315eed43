//! Stand-in.

use crate::node::Node;

pub fn render(_: &Node) -> String {
    String::new()
}
