//! Tests of the whole node, through its real doors.

mod http_bulk;
mod http_connections;
mod http_keys;
mod http_ledger;
mod http_lists;
mod http_watch;
mod support;
