//! For each promise: runs in which it is broken, each of which the judge must find, and one in which it is kept.

mod support;

mod acknowledged;
mod bytes;
mod checkpoints;
mod clean;
mod conditions;
mod linearizable;
mod order;
mod refused;
mod roots;
mod segments;
mod watch;
