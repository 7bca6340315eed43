//! Fuzz targets for every reader of bytes from outside: what `fuzz/` runs, and what a plain test runs over the corpora.
//!
//! Each area has its bodies beside its parsers, which stay private (`store/fuzzing.rs` and so on); here they are named
//! together, with those for settings. A body does more than not panic: what is accepted is written again as it was read,
//! is within its limits, and is the same the second time. Only in builds with the feature `fuzzing`, which no release
//! has, and in tests.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{self, Flags};
use crate::units;

#[cfg(test)]
mod tests;

/// A target: what it is called, and what it does.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident => $body:path,)*) => {
        $($(#[$doc])* pub fn $name(data: &[u8]) { $body(data) })*

        /// All of them.
        pub const TARGETS: &[Target] = &[$((stringify!($name), $name)),*];
    };
}

targets! {
    /// A frame of the log.
    frame => crate::store::fuzzing::frame,
    /// A segment file.
    segment_file => crate::store::fuzzing::segment_file,
    /// The footer of a segment, and its summary.
    footer => crate::store::fuzzing::footer,
    /// A list of segments from another node.
    segment_list => crate::store::fuzzing::segment_list,
    /// A segment file from another node.
    staged_segment => crate::store::fuzzing::staged_segment,
    /// A whole data directory.
    directory => crate::store::fuzzing::directory,
    /// The vote file.
    vote_file => crate::store::fuzzing::vote_file,
    /// The watermarks.
    watermarks => crate::store::fuzzing::watermarks,
    /// The MANIFEST.
    manifest => crate::store::fuzzing::manifest,
    /// Keys and values of the key index.
    index_record => crate::store::fuzzing::index_record,
    /// The two parts of a frame of entries.
    batch => crate::ledger::fuzzing::batch,
    /// A committed frame.
    applied_frame => crate::ledger::fuzzing::applied_frame,
    /// Raft's small messages.
    raft_message => crate::consensus::fuzzing::raft_message,
    /// Entries from a leader.
    raft_append => crate::consensus::fuzzing::raft_append,
    /// An offer of sealed segments.
    snapshot_offer => crate::consensus::fuzzing::snapshot_offer,
    /// A membership.
    membership => crate::consensus::fuzzing::membership,
    /// The byte stream between two nodes.
    peer_frames => crate::peer::fuzzing::peer_frames,
    /// The first frame on it.
    hello => crate::peer::fuzzing::hello,
    /// A join token, and the book of them.
    join_token => crate::peer::fuzzing::join_token,
    /// Certificates and requests for one.
    certificate => crate::peer::fuzzing::certificate,
    /// Messages between members beyond Raft.
    cluster_message => crate::cluster::fuzzing::cluster_message,
    /// `cluster.toml`.
    cluster_file => crate::cluster::fuzzing::cluster_file,
    /// A query string.
    http_query => crate::http::fuzzing::http_query,
    /// A key in a path.
    http_key => crate::http::fuzzing::http_key,
    /// Request headers.
    http_headers => crate::http::fuzzing::http_headers,
    /// A line of a bulk upload.
    bulk_line => crate::http::fuzzing::bulk_line,
    /// JSON bodies of requests.
    json_body => crate::http::fuzzing::json_body,
    /// `last-signed`.
    last_signed => crate::keys::fuzzing::last_signed,
    /// What a witness remembers of a log.
    witness_state => crate::witness::fuzzing::witness_state,
    /// `witnessed`.
    witness_floors => crate::witness::fuzzing::witness_floors,
    /// The logs a witness follows.
    witness_logs => crate::witness::fuzzing::witness_logs,
    /// A line of a file that is imported.
    import_line => crate::cli::fuzzing::import_line,
    /// The openings beside an exported bundle.
    openings => crate::cli::fuzzing::openings,
    /// `scribe.toml`.
    config_file => self::settings,
    /// Sizes and durations.
    quantities => self::amounts,
}

/// Longest TOML that is parsed here: while it is, it takes thirty times its text in memory. What is read from disk is
/// limited by the length of the file.
pub(crate) const TOML_LENGTH_MAX: usize = 32 * 1_024;

/// A settings file: what it sets is printed in a form that sets the same.
fn settings(data: &[u8]) {
    let data = &data[..data.len().min(TOML_LENGTH_MAX)];
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let path = Path::new("scribe.toml");
    let none = BTreeMap::new();
    let Ok(config) = config::resolve(&Flags::new(), &none, Some((path, text))) else {
        return;
    };
    // As flags, the values say the same: none depends on where it came from.
    let given: Flags = config
        .resolved
        .iter()
        .map(|resolved| (resolved.name, resolved.value.clone()))
        .collect();
    let again = config::resolve(&given, &none, None).expect("what was read can be given again");
    for (one, other) in config.resolved.iter().zip(&again.resolved) {
        assert_eq!((one.name, &one.value), (other.name, &other.value));
    }
}

/// Sizes and durations: a number is printed in a form that is read as the same number.
fn amounts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(bytes) = units::parse_bytes(text) {
        assert_eq!(units::parse_bytes(&units::format_bytes(bytes)), Ok(bytes));
    }
    if let Ok(time_ms) = units::parse_duration_ms(text) {
        let printed = units::format_duration_ms(time_ms);
        assert_eq!(units::parse_duration_ms(&printed), Ok(time_ms));
    }
    if let Ok(count) = units::parse_count(text) {
        assert_eq!(units::parse_count(&count.to_string()), Ok(count));
    }
}
