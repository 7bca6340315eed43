//! Refusals: what went wrong inside, as the one stable code a client sees.
//!
//! Every refusal leaves as `application/problem+json`. The inner errors are shaped by operation
//! ([`AppendError`], [`ReadError`], [`PublishError`]); here, and only here, each becomes an [`ErrorCode`], whose status
//! and retryability the client crate defines.

use std::fmt::Display;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use scribe_client::code::ErrorCode;
use scribe_client::wire::bytes::to_members;
use scribe_client::wire::{MEDIA_PROBLEM, Problem};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::LeafError;

use super::body::{ReplyBody, RequestUnread};
use super::headers;
use crate::error::{AppendError, PublishError, ReadError};
use crate::limits;
use crate::node::AdminError;

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: ErrorCode,
    problem: Problem,
    /// For 405.
    allow: Option<HeaderValue>,
    /// For 416: the length of the value.
    value_length: Option<usize>,
    request_unread: bool,
}

impl ApiError {
    /// A refusal with this code; `detail` states the rule, what was found and what is allowed.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> ApiError {
        ApiError(Box::new(Inner {
            code,
            problem: Problem::new(code, detail),
            allow: None,
            value_length: None,
            request_unread: false,
        }))
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The body.
    pub fn into_problem(self) -> Problem {
        self.0.problem
    }

    /// Adds a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.0.problem.hint = Some(hint.into());
        self
    }

    /// Names the key concerned, one of several.
    #[must_use]
    pub fn about_key(mut self, key: &[u8]) -> ApiError {
        (self.0.problem.key, self.0.problem.key_base64) = to_members(key);
        self
    }

    /// Names the operation concerned, from 0.
    #[must_use]
    pub fn about_operation(mut self, operation: usize) -> ApiError {
        self.0.problem.operation = Some(operation as u64);
        self
    }

    /// Says how large the tree is that was looked at.
    #[must_use]
    pub fn about_tree_size(mut self, size: TreeSize) -> ApiError {
        self.0.problem.tree_size = Some(size.get());
        self
    }

    /// Notes that the request's body was not read to its end, so that the connection closes gently.
    #[must_use]
    pub fn leaving_request_unread(mut self) -> ApiError {
        self.0.request_unread = true;
        self
    }

    /// A parameter, header or member has a value outside its range or form.
    pub fn invalid_argument(detail: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::InvalidArgument, detail)
    }

    /// The query or JSON body cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::BadRequest, detail)
    }

    /// The key cannot be decoded.
    pub fn invalid_key(detail: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::InvalidKey, detail)
    }

    /// The key is empty or too long; `None` where it was not even worth decoding.
    pub fn key_length(found: Option<usize>) -> ApiError {
        let allowed = limits::KEY_LENGTH_MAX;
        match found {
            Some(0) => {
                ApiError::invalid_key(format!("key is empty, allowed are 1 to {allowed} bytes"))
            }
            Some(found) => ApiError::new(
                ErrorCode::KeyTooLong,
                format!("key is {found} bytes long, allowed are 1 to {allowed}"),
            ),
            None => ApiError::new(
                ErrorCode::KeyTooLong,
                format!("key is longer than the {allowed} bytes allowed"),
            ),
        }
    }

    /// No such thing.
    pub fn not_found(detail: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::NotFound, detail)
    }

    /// The key's newest version is a tombstone.
    pub fn deleted(index: u64) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::Deleted,
            format!("the key was deleted by the entry at index {index}"),
        )
        .hint("its earlier versions are in its history");
        error.0.problem.current_index = Some(index);
        error
    }

    /// The tombstone's index, if this says that the key is deleted.
    pub fn deleted_index(&self) -> Option<u64> {
        (self.0.code == ErrorCode::Deleted)
            .then_some(self.0.problem.current_index)
            .flatten()
    }

    /// Beyond the end of the ledger.
    pub fn future(detail: impl Into<String>, tree_size: u64) -> ApiError {
        let mut error = ApiError::new(ErrorCode::Future, detail);
        error.0.problem.tree_size = Some(tree_size);
        error
    }

    /// The entry a read is to see was not applied here in time.
    pub fn not_applied(index: LeafIndex, size: TreeSize) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::NotApplied,
            format!(
                "Scribe-Min-Index is {index}, but after {} ms this node has applied {size} entries",
                limits::MIN_INDEX_WAIT_MS
            ),
        )
        .hint("the node lags, or there is no such entry yet: ask another node, or read without the header");
        error.0.problem.tree_size = Some(size.get());
        error.0.problem.retry_after_ms = Some(1_000);
        error
    }

    /// As many requests as the node admits.
    pub fn overloaded(detail: impl Into<String>, retry_after_ms: u64) -> ApiError {
        let mut error = ApiError::new(ErrorCode::Overloaded, detail);
        error.0.problem.retry_after_ms = Some(retry_after_ms);
        error
    }

    /// The value was over its limit.
    pub fn value_too_large(found: Option<u64>, allowed: usize) -> ApiError {
        let detail = match found {
            Some(found) => format!("value is {found} bytes long, allowed are {allowed}"),
            None => format!("value is longer than the {allowed} bytes allowed"),
        };
        ApiError::new(ErrorCode::ValueTooLarge, detail)
    }

    /// A JSON body was over its limit.
    pub fn body_too_large(found: Option<u64>, allowed: usize) -> ApiError {
        let detail = match found {
            Some(found) => format!("body is {found} bytes long, allowed are {allowed}"),
            None => format!("body is longer than the {allowed} bytes allowed"),
        };
        ApiError::new(ErrorCode::BodyTooLarge, detail)
    }

    /// The body ended before its declared end, or its chunks are malformed.
    pub fn body_broken() -> ApiError {
        ApiError::bad_request("the request body ended early or its chunks are malformed")
    }

    /// Who asks may not.
    pub fn forbidden(detail: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::Forbidden, detail)
    }

    /// The path exists, but not with this method.
    pub fn method_not_allowed(method: &http::Method, allow: &'static str) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::MethodNotAllowed,
            format!("{method} is not allowed here, allowed are {allow}"),
        );
        error.0.allow = Some(HeaderValue::from_static(allow));
        error
    }

    /// A `Range` outside the value.
    pub fn range_not_satisfiable(value_length: usize) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::RangeNotSatisfiable,
            format!("the range lies outside the value of {value_length} bytes"),
        );
        error.0.value_length = Some(value_length);
        error
    }

    /// A condition did not hold; `current_index` is the key's newest version, if it has one.
    pub fn condition_failed(current_index: Option<u64>, deleted: bool) -> ApiError {
        let detail = match current_index {
            None => "the key has no version".to_owned(),
            Some(index) if deleted => {
                format!("the key was deleted; its tombstone has index {index}")
            }
            Some(index) => format!("the key's current version has index {index}"),
        };
        let mut error = ApiError::new(ErrorCode::ConditionFailed, detail);
        error.0.problem.current_index = current_index;
        error
    }

    /// A checkpoint did not come in time; `index` is the entry that is safe all the same.
    pub fn not_published(detail: impl Into<String>, index: Option<u64>) -> ApiError {
        let mut error = ApiError::new(ErrorCode::NotPublished, detail);
        error.0.problem.current_index = index;
        error.0.problem.retry_after_ms = Some(1_000);
        error
    }

    /// An append refused, where the request had one operation (`several` is false) or more.
    pub fn from_append(error: AppendError, several: bool) -> ApiError {
        match error {
            AppendError::Invalid { rule, hint } => {
                let refused = ApiError::invalid_argument(rule);
                match hint {
                    Some(hint) => refused.hint(hint),
                    None => refused,
                }
            }
            AppendError::TooLarge {
                what,
                found,
                allowed,
            } => {
                let code = too_large_code(what);
                ApiError::new(
                    code,
                    format!("{what} has {found} bytes, allowed are {allowed}"),
                )
            }
            AppendError::ConditionFailed {
                operation,
                key,
                current_index,
                deleted,
            } => {
                let refused =
                    ApiError::condition_failed(current_index.map(|index| index.get()), deleted);
                if several {
                    refused.about_operation(operation).about_key(&key)
                } else {
                    refused
                }
            }
            AppendError::IdempotencyMismatch => ApiError::new(
                ErrorCode::IdempotencyMismatch,
                "the idempotency key was used before, with another request",
            )
            .hint("use a new idempotency key for each new request, and the same one to retry it"),
            AppendError::Overloaded { retry_after_ms } => ApiError::overloaded(
                "the node has as many writes waiting as it admits; nothing was appended",
                retry_after_ms,
            ),
            AppendError::DiskFull => ApiError::new(
                ErrorCode::DiskFull,
                "the node keeps its last free disk space for replication; nothing was appended",
            )
            .hint("free disk space on the node; reads go on"),
            AppendError::NotLeader { leader } => ApiError::not_leader(leader),
            AppendError::UnknownOutcome => ApiError::new(
                ErrorCode::UnknownOutcome,
                "the write may or may not have been appended",
            )
            .hint("retry with the same Idempotency-Key; without one, read the key first"),
            AppendError::Unavailable(reason) => ApiError::unavailable(reason),
        }
    }

    fn not_leader(leader: Option<String>) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::NotLeader,
            "this node is not the leader and cannot reach it; nothing was done",
        );
        error.0.problem.leader = leader;
        error
    }

    fn unavailable(reason: impl Display) -> ApiError {
        let mut error = ApiError::new(
            ErrorCode::Unavailable,
            format!("the node is unavailable: {reason}"),
        );
        error.0.problem.retry_after_ms = Some(1_000);
        error
    }

    fn internal(what: impl Display) -> ApiError {
        // The cause is for the operator; it may name paths.
        tracing::error!(%what, "a request failed");
        ApiError::new(
            ErrorCode::Internal,
            "the node failed to answer; its log says why",
        )
    }

    /// A task that was to answer died.
    pub fn task_failed(error: tokio::task::JoinError) -> ApiError {
        ApiError::internal(error)
    }

    /// The answer.
    pub fn into_reply(self) -> Response<ReplyBody> {
        let Inner {
            code,
            problem,
            allow,
            value_length,
            request_unread,
        } = *self.0;
        // Text, numbers and options only: writing them as JSON cannot fail.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut reply = Response::new(ReplyBody::full(body));
        *reply.status_mut() =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fields = reply.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_PROBLEM));
        fields.insert(CACHE_CONTROL, headers::NO_STORE);
        fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
        if let Some(allow) = allow {
            fields.insert(ALLOW, allow);
        }
        if let Some(length) = value_length
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            fields.insert(CONTENT_RANGE, range);
        }
        if let Some(wait) = problem.retry_after_ms {
            fields.insert(RETRY_AFTER, HeaderValue::from(wait.div_ceil(1_000)));
        }
        if let Some(index) = problem.current_index {
            fields.insert(headers::SCRIBE_INDEX, HeaderValue::from(index));
        }
        if request_unread {
            reply.extensions_mut().insert(RequestUnread);
        }
        reply
    }
}

fn too_large_code(what: &str) -> ErrorCode {
    match what {
        "value" => ErrorCode::ValueTooLarge,
        "key" => ErrorCode::KeyTooLong,
        "metadata" => ErrorCode::MetadataInvalid,
        what if what.starts_with("transaction") => ErrorCode::TransactionTooLarge,
        _ => ErrorCode::BodyTooLarge,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        self.into_reply().into_response()
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        match error {
            ReadError::Invalid(rule) => ApiError::invalid_argument(rule),
            ReadError::BeyondTree { asked, size } => ApiError::future(
                format!("tree size {asked} was asked for, the ledger has {size} entries"),
                size.get(),
            ),
            ReadError::Unavailable(reason) => ApiError::unavailable(reason),
            ReadError::NotLeader { leader } => ApiError::not_leader(leader),
            ReadError::Damaged(what) => {
                tracing::error!(%what, "a read found damage");
                ApiError::new(
                    ErrorCode::Damaged,
                    "the stored bytes fail their checks on this node",
                )
                .hint("the node's log names them; another node may still have them whole")
            }
            ReadError::Io(what) => ApiError::internal(what),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> ApiError {
        match error {
            PublishError::NotPublished => ApiError::not_published(
                format!(
                    "no checkpoint covers it after {} ms",
                    limits::PUBLISH_WAIT_MS
                ),
                None,
            ),
            PublishError::Unavailable(reason) => ApiError::unavailable(reason),
        }
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> ApiError {
        let refused = match &error {
            AdminError::Refused { rule, .. } => ApiError::new(ErrorCode::ClusterRefused, rule),
            AdminError::Unavailable(reason) => {
                return ApiError::unavailable(reason).hint(
                    "what was asked for may have been done all the same: look at /v1/cluster before asking again",
                );
            }
            AdminError::Token(_) | AdminError::Files(_) => ApiError::internal(&error),
        };
        match error.hint() {
            Some(hint) => refused.hint(hint),
            None => refused,
        }
    }
}

impl From<LeafError> for ApiError {
    fn from(error: LeafError) -> ApiError {
        ApiError::new(ErrorCode::MetadataInvalid, error.to_string())
    }
}

/// A JSON body that is not what the route takes.
pub(super) fn bad_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!(
        "the body is not the JSON this route takes: {error}"
    ))
    .hint("/openapi.json describes every body")
}

/// A reply with a JSON body of the contract.
pub(super) fn json_reply(body: &impl serde::Serialize) -> Response<ReplyBody> {
    json_bytes(StatusCode::OK, serde_json::to_vec(body).unwrap_or_default())
}

/// A reply with JSON that is already written.
pub(super) fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::full(body));
    *reply.status_mut() = status;
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, headers::JSON);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    reply
}
