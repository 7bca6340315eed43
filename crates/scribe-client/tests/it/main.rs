//! The client against a scripted HTTP server, which can lie and hang up as no real node would.

mod receipts;
mod retrying;
mod server;
mod several_nodes;
mod streaming;
mod verifying;
mod witnessing;
