//! Tests of the whole store: log and view together, against a naive model.

mod crash;
mod damage;
mod install;
mod mend;
mod model;
mod restore;
mod views;
