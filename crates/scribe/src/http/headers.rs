//! Header names and values made once.

use http::{HeaderName, HeaderValue};
use scribe_client::wire;

/// The entry's leaf index.
pub const SCRIBE_INDEX: HeaderName = HeaderName::from_static(wire::HEADER_INDEX);
/// The entry's time in milliseconds.
pub const SCRIBE_TIMESTAMP: HeaderName = HeaderName::from_static(wire::HEADER_TIMESTAMP);
/// The entry's leaf hash.
pub const SCRIBE_LEAF_HASH: HeaderName = HeaderName::from_static(wire::HEADER_LEAF_HASH);
/// The tree size a read saw.
pub const SCRIBE_TREE_SIZE: HeaderName = HeaderName::from_static(wire::HEADER_TREE_SIZE);
/// The answer was remembered.
pub const SCRIBE_REPLAYED: HeaderName = HeaderName::from_static(wire::HEADER_REPLAYED);
/// Read your writes.
pub const SCRIBE_MIN_INDEX: HeaderName = HeaderName::from_static(wire::HEADER_MIN_INDEX);
/// Resume a watch after this event.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Values are what their content type says, never what a browser guesses …
pub const X_CONTENT_TYPE_OPTIONS: HeaderName = http::header::X_CONTENT_TYPE_OPTIONS;
/// … and a page stored as a value must not act in the ledger's own origin.
pub const CONTENT_SECURITY_POLICY: HeaderName = http::header::CONTENT_SECURITY_POLICY;

/// `nosniff`
pub const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// `sandbox`
pub const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
/// `bytes`
pub const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// `true`
pub const TRUE: HeaderValue = HeaderValue::from_static("true");
/// `no-store`
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `no-cache`: keep, but ask whether it is still current.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// `application/json`
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `application/octet-stream`
pub const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Receipts, checkpoints and other signed notes.
pub const NOTE: HeaderValue = HeaderValue::from_static(wire::MEDIA_NOTE);
/// Bulk answers.
pub const NDJSON: HeaderValue = HeaderValue::from_static(wire::MEDIA_NDJSON);
/// Watch streams.
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
