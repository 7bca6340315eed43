//! The error codes of the HTTP API: what a program may branch on.
//!
//! Every refusal carries exactly one code, in the `code` member of an `application/problem+json`
//! body. A code keeps its spelling, its status and its meaning for ever; new codes may be added,
//! so a client treats one it does not know by its HTTP status. Messages are for people and may
//! change at any time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Declares the enum, its spelling, its status and its title in one table, in alphabetical order.
macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal; )+) => {
        /// One stable code per reason a request can be refused.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            Serialize, Deserialize, ToSchema,
        )]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[$doc])* $variant, )+
        }

        impl ErrorCode {
            /// Every code, in alphabetical order of its text.
            pub const ALL: &'static [ErrorCode] = &[ $( ErrorCode::$variant, )+ ];

            /// The code as it is written in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( ErrorCode::$variant => $text, )+ }
            }

            /// The HTTP status sent with this code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $( ErrorCode::$variant => $status, )+ }
            }

            /// A short summary for people, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $( ErrorCode::$variant => $title, )+ }
            }
        }
    };
}

codes! {
    /// The request head, query or JSON body cannot be understood.
    BadRequest = "bad_request", 400, "The request cannot be understood";
    /// The request body is longer than this route takes.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// A change of the cluster breaks a rule of the cluster; nothing was changed.
    ClusterRefused = "cluster_refused", 409, "The cluster refuses the change";
    /// `If-Match`, `If-None-Match` or a transaction's condition does not hold; `current_index`
    /// says what does.
    ConditionFailed = "condition_failed", 412, "The condition does not hold";
    /// The stored bytes fail their checks on this node; another node may still have them.
    Damaged = "damaged", 500, "The stored bytes are damaged";
    /// The key's newest version is a tombstone; `current_index` is its index.
    Deleted = "deleted", 404, "The key is deleted";
    /// The node keeps its last free disk space for replication.
    DiskFull = "disk_full", 507, "The disk is nearly full";
    /// The value was erased; its leaf and its proofs remain. Reserved.
    Erased = "erased", 410, "The value was erased";
    /// Who asks may not: a change of the cluster is taken from the node's own machine alone.
    Forbidden = "forbidden", 403, "Not allowed from here";
    /// `at`, `index` or a tree size lies beyond the end of the ledger.
    Future = "future", 400, "Beyond the end of the ledger";
    /// The request head is longer than the node takes.
    HeadersTooLarge = "headers_too_large", 431, "The headers are too large";
    /// The idempotency key was used before for another request.
    IdempotencyMismatch = "idempotency_mismatch", 422, "The idempotency key was used before";
    /// A fault of the node.
    Internal = "internal", 500, "Internal error";
    /// A parameter, header or member has a value outside its range or form.
    InvalidArgument = "invalid_argument", 400, "An argument is not valid";
    /// The key is empty, or its encoding in the path or the body is wrong.
    InvalidKey = "invalid_key", 400, "The key is not valid";
    /// The key is longer than 1,024 bytes.
    KeyTooLong = "key_too_long", 400, "The key is too long";
    /// A line of a bulk upload is not one operation.
    MalformedLine = "malformed_line", 400, "The line is malformed";
    /// Content type or user metadata break a rule of their form or size.
    MetadataInvalid = "metadata_invalid", 400, "The metadata is not valid";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed";
    /// The entry that `Scribe-Min-Index` names was not applied on this node in time.
    NotApplied = "not_applied", 503, "Not applied here yet";
    /// No such key, version, entry, tile or path.
    NotFound = "not_found", 404, "Not found";
    /// The node cannot reach a leader that takes this request; nothing was done.
    NotLeader = "not_leader", 503, "No leader can be reached";
    /// No checkpoint covers the entry yet. The entry itself is safe.
    NotPublished = "not_published", 503, "Not published yet";
    /// The node does not offer this.
    NotSupported = "not_supported", 501, "Not supported";
    /// The node has as many requests waiting as it admits; nothing was done.
    Overloaded = "overloaded", 503, "The node is overloaded";
    /// The `Range` lies outside the value.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "The range is not satisfiable";
    /// The client took too long to send its request.
    RequestTimeout = "request_timeout", 408, "The request took too long";
    /// A transaction has too many operations or bytes.
    TransactionTooLarge = "transaction_too_large", 413, "The transaction is too large";
    /// Credentials are missing or not accepted. Reserved.
    Unauthorized = "unauthorized", 401, "Not authorized";
    /// The node is starting, stopping, or without a majority; nothing was written.
    Unavailable = "unavailable", 503, "The node is unavailable";
    /// The write may or may not have been appended. Retry it only under the same idempotency key.
    UnknownOutcome = "unknown_outcome", 504, "The outcome is unknown";
    /// A query parameter this route does not have.
    UnknownParameter = "unknown_parameter", 400, "Unknown query parameter";
    /// The request has a Content-Encoding; bodies are taken as they are.
    UnsupportedEncoding = "unsupported_encoding", 415, "The encoding is not supported";
    /// The body is not of the media type this route takes.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
    /// The request target is longer than the node takes.
    UriTooLong = "uri_too_long", 414, "The URI is too long";
    /// The value is longer than the node is configured to take.
    ValueTooLarge = "value_too_large", 413, "The value is too large";
}

impl ErrorCode {
    /// Whether the same request, sent again unchanged, may succeed.
    ///
    /// For a write that is safe only under the same idempotency key: after
    /// [`ErrorCode::UnknownOutcome`] the first attempt may have been appended.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            ErrorCode::NotApplied
            | ErrorCode::NotLeader
            | ErrorCode::NotPublished
            | ErrorCode::Overloaded
            | ErrorCode::RequestTimeout
            | ErrorCode::Unavailable
            | ErrorCode::UnknownOutcome => true,
            ErrorCode::BadRequest
            | ErrorCode::BodyTooLarge
            | ErrorCode::ClusterRefused
            | ErrorCode::ConditionFailed
            | ErrorCode::Damaged
            | ErrorCode::Deleted
            | ErrorCode::DiskFull
            | ErrorCode::Erased
            | ErrorCode::Forbidden
            | ErrorCode::Future
            | ErrorCode::HeadersTooLarge
            | ErrorCode::IdempotencyMismatch
            | ErrorCode::Internal
            | ErrorCode::InvalidArgument
            | ErrorCode::InvalidKey
            | ErrorCode::KeyTooLong
            | ErrorCode::MalformedLine
            | ErrorCode::MetadataInvalid
            | ErrorCode::MethodNotAllowed
            | ErrorCode::NotFound
            | ErrorCode::NotSupported
            | ErrorCode::RangeNotSatisfiable
            | ErrorCode::TransactionTooLarge
            | ErrorCode::Unauthorized
            | ErrorCode::UnknownParameter
            | ErrorCode::UnsupportedEncoding
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::UriTooLong
            | ErrorCode::ValueTooLarge => false,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no code this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code {0:?}")]
pub struct UnknownCode(pub String);

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<ErrorCode, UnknownCode> {
        ErrorCode::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_alphabetical_and_their_json_is_their_text() {
        assert!(
            ErrorCode::ALL
                .windows(2)
                .all(|pair| pair[0].as_str() < pair[1].as_str())
        );
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert_eq!(code.as_str().parse::<ErrorCode>(), Ok(*code));
        }
        assert!("teapot".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn retryable_codes_are_those_where_waiting_helps() {
        for code in ErrorCode::ALL.iter().filter(|code| code.is_retryable()) {
            assert!(matches!(code.status(), 408 | 503 | 504), "{code}");
        }
        assert!(!ErrorCode::ConditionFailed.is_retryable());
        assert!(!ErrorCode::DiskFull.is_retryable());
    }
}
