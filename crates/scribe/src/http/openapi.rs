//! `/openapi.json`: the routes as a table, the schemas from the wire types themselves.

use std::sync::LazyLock;

use axum::extract::Request;
use bytes::Bytes;
use http::{Response, StatusCode};
use scribe_client::code::ErrorCode;
use scribe_client::wire;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItemBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema,
};

use super::body::ReplyBody;
use super::error::{ApiError, json_bytes};
use super::request::Query;

/// The schemas. Paths are added from [`ROUTES`].
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Scribe Ledger",
        description = "A distributed, immutable, verifiable key-value ledger. docs/api.md explains the routes."
    ),
    components(schemas(
        ErrorCode,
        wire::Appended,
        wire::BulkDone,
        wire::BulkLine<'_>,
        wire::CheckOperation,
        wire::CatchUp,
        wire::Cluster,
        wire::ClusterChanged,
        wire::ClusterToken,
        wire::ClusterTokenRequest,
        wire::ConsistencyProof,
        wire::DeleteOperation,
        wire::EntryPage,
        wire::EntryReceipt,
        wire::EntryView,
        wire::Health,
        wire::HexHash,
        wire::History,
        wire::InclusionProof,
        wire::KeyAnnouncement,
        wire::KeyEntry,
        wire::KeyList,
        wire::KeyRotated,
        wire::KeyVersion,
        wire::KeysGetRequest,
        wire::KeysGetResponse,
        wire::Kind,
        wire::Leader,
        wire::LeaderRequest,
        wire::LedgerInfo,
        wire::Member,
        wire::Members,
        wire::Operation,
        wire::Problem,
        wire::PutOperation,
        wire::ReceiptWanted,
        wire::ReceiptsRequest,
        wire::ReceiptsResponse,
        wire::ReplaceRequest,
        wire::TransactionEntry,
        wire::TransactionPlace,
        wire::TransactionRequest,
        wire::TransactionResponse,
        wire::Version,
        wire::WatchProgress,
    ))
)]
struct Schemas;

/// One operation of the API.
struct RouteSpec {
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Query parameters.
    query: &'static [&'static str],
    /// Request headers.
    headers: &'static [&'static str],
    /// Media type and schema of the request body; an empty schema name means bytes.
    body: Option<(&'static str, &'static str)>,
    status: StatusCode,
    /// Media type and schema of the answer; an empty schema name means bytes.
    answer: (&'static str, &'static str),
}

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const READ_HEADERS: &[&str] = &["Scribe-Min-Index"];
const WRITE_HEADERS: &[&str] = &[
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Content-Type",
    "Scribe-Meta-*",
];

#[rustfmt::skip]
const ROUTES: &[RouteSpec] = &[
    RouteSpec { method: HttpMethod::Put, path: "/v1/keys/{key}", id: "put", summary: "Append a version of a key",
        query: &["wait", "key_encoding"], headers: WRITE_HEADERS, body: Some((BYTES, "")),
        status: StatusCode::CREATED, answer: (JSON, "Appended") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/keys/{key}", id: "get", summary: "Read a key's value",
        query: &["index", "at", "consistency", "key_encoding"],
        headers: &["Scribe-Min-Index", "If-None-Match", "If-Match", "Range", "If-Range"], body: None,
        status: StatusCode::OK, answer: (BYTES, "") },
    RouteSpec { method: HttpMethod::Delete, path: "/v1/keys/{key}", id: "delete", summary: "Append a tombstone",
        query: &["wait", "key_encoding"], headers: &["Idempotency-Key", "If-Match", "If-None-Match"], body: None,
        status: StatusCode::CREATED, answer: (JSON, "Appended") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/keys/{key}/history", id: "history", summary: "List a key's versions, newest first",
        query: &["limit", "cursor", "at", "consistency", "key_encoding"], headers: READ_HEADERS, body: None,
        status: StatusCode::OK, answer: (JSON, "History") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/keys/{key}/receipt", id: "receipt", summary: "The receipt (tlog-proof) of a version",
        query: &["index", "at", "consistency", "key_encoding"], headers: READ_HEADERS, body: None,
        status: StatusCode::OK, answer: ("text/plain", "") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/keys", id: "list_keys", summary: "List keys in byte order",
        query: &["prefix", "start", "end", "at", "limit", "cursor", "consistency", "key_encoding"], headers: READ_HEADERS, body: None,
        status: StatusCode::OK, answer: (JSON, "KeyList") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/keys:get", id: "get_keys", summary: "Read many keys in one consistent read",
        query: &["consistency"], headers: READ_HEADERS, body: Some((JSON, "KeysGetRequest")),
        status: StatusCode::OK, answer: (JSON, "KeysGetResponse") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/receipts", id: "receipts", summary: "The receipts of many versions under one checkpoint",
        query: &["consistency"], headers: READ_HEADERS, body: Some((JSON, "ReceiptsRequest")),
        status: StatusCode::OK, answer: (JSON, "ReceiptsResponse") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/transactions", id: "transact", summary: "Append several entries, all or nothing",
        query: &["wait"], headers: &["Idempotency-Key"], body: Some((JSON, "TransactionRequest")),
        status: StatusCode::CREATED, answer: (JSON, "TransactionResponse") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/entries", id: "upload", summary: "Append many entries, streamed both ways",
        query: &["wait"], headers: &[], body: Some((wire::MEDIA_NDJSON, "BulkLine")),
        status: StatusCode::OK, answer: (wire::MEDIA_NDJSON, "BulkDone") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/entries/{index}", id: "entry", summary: "One entry by its leaf index",
        query: &["raw", "consistency"], headers: READ_HEADERS, body: None,
        status: StatusCode::OK, answer: (JSON, "EntryView") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/entries", id: "entries", summary: "The ledger in order",
        query: &["from", "limit", "raw", "consistency"], headers: READ_HEADERS, body: None,
        status: StatusCode::OK, answer: (JSON, "EntryPage") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/watch", id: "watch", summary: "Entries as server-sent events",
        query: &["from", "prefix", "key_encoding"], headers: &["Last-Event-ID"], body: None,
        status: StatusCode::OK, answer: ("text/event-stream", "") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/proofs/inclusion", id: "inclusion", summary: "An inclusion proof (RFC 6962)",
        query: &["index", "tree_size"], headers: &[], body: None,
        status: StatusCode::OK, answer: (JSON, "InclusionProof") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/proofs/consistency", id: "consistency", summary: "A consistency proof (RFC 6962)",
        query: &["old", "new"], headers: &[], body: None,
        status: StatusCode::OK, answer: (JSON, "ConsistencyProof") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/ledger", id: "ledger", summary: "Origin, verifier keys and policy",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "LedgerInfo") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/cluster", id: "cluster", summary: "Every member of the cluster and how it is",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "Cluster") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/cluster/members", id: "members", summary: "The members alone",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "Members") },
    RouteSpec { method: HttpMethod::Delete, path: "/v1/cluster/members/{id}", id: "remove_member", summary: "Remove a member for good; from the node's own machine alone",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "ClusterChanged") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/cluster/members/{id}/promote", id: "promote_member", summary: "Make a learner a voter; from the node's own machine alone",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "ClusterChanged") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/cluster/members/{id}/replace", id: "replace_member", summary: "Put a learner in a voter's place; from the node's own machine alone",
        query: &[], headers: &[], body: Some((JSON, "ReplaceRequest")),
        status: StatusCode::OK, answer: (JSON, "ClusterChanged") },
    RouteSpec { method: HttpMethod::Get, path: "/v1/cluster/leader", id: "leader", summary: "Who leads",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "Leader") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/cluster/leader", id: "transfer_leader", summary: "Hand leadership to a voter; from the node's own machine alone",
        query: &[], headers: &[], body: Some((JSON, "LeaderRequest")),
        status: StatusCode::OK, answer: (JSON, "ClusterChanged") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/cluster/tokens", id: "join_token", summary: "Make a token with which one node can join; from the node's own machine alone",
        query: &[], headers: &[], body: Some((JSON, "ClusterTokenRequest")),
        status: StatusCode::CREATED, answer: (JSON, "ClusterToken") },
    RouteSpec { method: HttpMethod::Post, path: "/v1/cluster/ledger-key", id: "rotate_ledger_key", summary: "Put a new key in the place of the ledger's; from the node's own machine alone",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "KeyRotated") },
    RouteSpec { method: HttpMethod::Get, path: "/checkpoint", id: "checkpoint", summary: "The newest checkpoint (c2sp.org/tlog-checkpoint)",
        query: &[], headers: &["If-None-Match"], body: None, status: StatusCode::OK, answer: ("text/plain", "") },
    RouteSpec { method: HttpMethod::Get, path: "/tile/{level}/{place}", id: "tile", summary: "256 hashes of a level of the tree, or .p/W of them (c2sp.org/tlog-tiles)",
        query: &[], headers: &["If-None-Match"], body: None, status: StatusCode::OK, answer: (BYTES, "") },
    RouteSpec { method: HttpMethod::Get, path: "/tile/entries/{place}", id: "entry_bundle", summary: "256 leaves, or .p/W of them, each after its length (c2sp.org/tlog-tiles)",
        query: &[], headers: &["If-None-Match"], body: None, status: StatusCode::OK, answer: (BYTES, "") },
    RouteSpec { method: HttpMethod::Get, path: "/health/live", id: "live", summary: "The process answers",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "Health") },
    RouteSpec { method: HttpMethod::Get, path: "/health/ready", id: "ready", summary: "The node takes reads and writes",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "Health") },
    RouteSpec { method: HttpMethod::Get, path: "/metrics", id: "metrics", summary: "Prometheus text",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: ("text/plain", "") },
    RouteSpec { method: HttpMethod::Get, path: "/openapi.json", id: "openapi", summary: "This document",
        query: &[], headers: &[], body: None, status: StatusCode::OK, answer: (JSON, "") },
];

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(document().to_json().unwrap_or_default()));

/// `GET /openapi.json`
pub(super) async fn openapi(request: Request) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    Ok(json_bytes(StatusCode::OK, DOCUMENT.clone()))
}

fn document() -> OpenApi {
    let mut document = Schemas::openapi();
    for route in ROUTES {
        let item = PathItemBuilder::new()
            .operation(route.method.clone(), route.operation())
            .build();
        match document.paths.paths.get_mut(route.path) {
            Some(existing) => existing.merge_operations(item),
            None => {
                document.paths.paths.insert(route.path.to_owned(), item);
            }
        }
    }
    document
}

impl RouteSpec {
    fn operation(&self) -> OperationBuilder {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .summary(Some(self.summary))
            .response(
                self.status.as_str(),
                ResponseBuilder::new()
                    .description(self.status.canonical_reason().unwrap_or_default())
                    .content(self.answer.0, content(self.answer.1)),
            )
            .response(
                "default",
                ResponseBuilder::new()
                    .description("A refusal, with one stable code")
                    .content(wire::MEDIA_PROBLEM, content("Problem")),
            );
        for segment in self.path.split('/') {
            if let Some(name) = segment
                .strip_prefix('{')
                .and_then(|name| name.strip_suffix('}'))
            {
                operation = operation.parameter(
                    ParameterBuilder::new()
                        .name(name)
                        .parameter_in(ParameterIn::Path)
                        .required(Required::True)
                        .schema(Some(text())),
                );
            }
        }
        for (names, place) in [
            (self.query, ParameterIn::Query),
            (self.headers, ParameterIn::Header),
        ] {
            for name in names {
                operation = operation.parameter(
                    ParameterBuilder::new()
                        .name(*name)
                        .parameter_in(place.clone())
                        .required(Required::False)
                        .schema(Some(text())),
                );
            }
        }
        if let Some((media, schema)) = self.body {
            operation = operation.request_body(Some(
                RequestBodyBuilder::new()
                    .content(media, content(schema))
                    .required(Some(Required::True))
                    .build(),
            ));
        }
        operation
    }
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .build()
        .into()
}

fn content(schema: &str) -> utoipa::openapi::Content {
    let schema: RefOr<Schema> = match schema {
        "" => text(),
        name => Ref::from_schema_name(name).into(),
    };
    ContentBuilder::new().schema(Some(schema)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_its_schema() {
        let json: serde_json::Value = serde_json::from_slice(&DOCUMENT).unwrap();
        let schemas = json["components"]["schemas"].as_object().unwrap();
        let text = std::str::from_utf8(&DOCUMENT).unwrap();
        let mut references = 0;
        for rest in text.split("\"#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
            references += 1;
        }
        assert!(references > ROUTES.len());
        let operations: usize = json["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|item| item.as_object().unwrap().len())
            .sum();
        assert_eq!(operations, ROUTES.len());
    }
}
