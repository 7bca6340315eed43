//! `GET /checkpoint` and `GET /tile/…`: the static read side (<https://c2sp.org/tlog-tiles>).
//!
//! Everything here but the checkpoint is a file that never changes, so that caches of any kind, and web pages of any
//! origin, may have it. Only what the newest published checkpoint covers is served: what may still be lost must not
//! be in a cache that keeps it for a year. Whole entries are elsewhere (`/v1/entries`); a bundle has the leaves alone.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE,
    ETAG,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use scribe_proof::hash::{Hash, sha256};
use scribe_proof::tile::{Tile, TilePath};

use super::body::ReplyBody;
use super::error::ApiError;
use super::metrics::Route;
use super::request::{self, Query};
use super::{App, convert, headers};
use crate::node::{Published, StoredTile};

/// Paths of tiles and bundles.
const TILE_PREFIX: &str = "/tile/";
const CHECKPOINT: &str = "/checkpoint";

/// What these routes answer to.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// A tile never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// As old as a checkpoint gets by itself: it is made every second when there is something new.
const BRIEFLY: HeaderValue = HeaderValue::from_static("public, max-age=1");
const ANYBODY: HeaderValue = HeaderValue::from_static("*");
/// Headers a page may read besides the few that browsers always show.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("ETag, Content-Length, Retry-After, Scribe-Tree-Size");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");

/// Whether a path is one of these routes.
pub(super) fn serves(path: &str) -> bool {
    path == CHECKPOINT || path.starts_with(TILE_PREFIX)
}

/// Answers a request whose path [`serves`] says is one of these routes.
pub(super) async fn answer(app: &App, request: &Request<Incoming>) -> (Route, Response<ReplyBody>) {
    let path = request.uri().path();
    let route = match path == CHECKPOINT {
        true => Route::Checkpoint,
        false => Route::Tile,
    };
    let answered = match *request.method() {
        Method::GET | Method::HEAD => match Query::parse(request.uri().query(), &[]) {
            Err(error) => Err(error),
            Ok(_) if path == CHECKPOINT => checkpoint(app, request.headers()),
            Ok(_) => tile(app, path, request.headers()).await,
        },
        Method::OPTIONS => Ok(preflight()),
        ref method => Err(ApiError::method_not_allowed(method, METHODS).leaving_request_unread()),
    };
    let mut reply = answered.unwrap_or_else(ApiError::into_reply);
    // A refusal as well: a page must be able to tell "not published yet" from "no such node".
    let fields = reply.headers_mut();
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
    fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    fields.insert(CROSS_ORIGIN_RESOURCE_POLICY, CROSS_ORIGIN);
    (route, reply)
}

/// `GET /checkpoint`: what is newest now.
fn checkpoint(app: &App, fields: &HeaderMap) -> Result<Response<ReplyBody>, ApiError> {
    let published = newest(app)?;
    // By the bytes: late cosignatures change the note and not the tree.
    let tag = etag(&sha256(published.note.as_bytes()));
    let mut reply = file(fields, tag, BRIEFLY, headers::NOTE, || {
        Bytes::from(published.note.clone())
    });
    reply.headers_mut().insert(
        headers::SCRIBE_TREE_SIZE,
        HeaderValue::from(published.size.get()),
    );
    Ok(reply)
}

/// `GET /tile/<L>/<N>[.p/<W>]` and `GET /tile/entries/<N>[.p/<W>]`
async fn tile(app: &App, path: &str, fields: &HeaderMap) -> Result<Response<ReplyBody>, ApiError> {
    let path = TilePath::parse(path.trim_start_matches('/')).map_err(|error| {
        ApiError::not_found(error.to_string()).hint(
            "tile 1234067 of level 0 is /tile/0/x001/x234/067, and the first 5 of its hashes are /tile/0/x001/x234/067.p/5; \
             its entries are at /tile/entries/x001/x234/067",
        )
    })?;
    let tile = match app.node.tile_in_memory(&path) {
        Some(tile) => tile,
        None => Box::pin(stored(app, path)).await?,
    };
    let StoredTile { bytes, identity } = tile;
    Ok(file(
        fields,
        etag(&identity),
        FOR_EVER,
        headers::OCTET_STREAM,
        || bytes,
    ))
}

/// Reads a tile that is not in memory, where waiting for a disk keeps nobody.
async fn stored(app: &App, path: TilePath) -> Result<StoredTile, ApiError> {
    let published = newest(app)?;
    if !path.tile().exists_at(published.size) {
        return Err(beyond(&path, &published));
    }
    let node = app.node.clone();
    Ok(app
        .read_tiles(move || node.tile(&path, &published))
        .await??)
}

fn newest(app: &App) -> Result<std::sync::Arc<Published>, ApiError> {
    app.node.checkpoint().ok_or_else(|| {
        ApiError::not_published("there is no checkpoint yet", None)
            .hint("the first one follows the first entry; ?wait=published on a write waits for it")
    })
}

fn beyond(path: &TilePath, published: &Published) -> ApiError {
    let tile = path.tile();
    let refused = ApiError::not_found(format!(
        "{path} goes beyond the newest checkpoint this node has, of tree size {}; allowed are tiles of the published tree",
        published.size
    ))
    .about_tree_size(published.size);
    match Tile::at(tile.level(), tile.index(), published.size) {
        Some(there) => refused.hint(format!(
            "of this tile {} hashes are published",
            there.width()
        )),
        None => refused.hint("read /checkpoint first: its tree size says which tiles there are"),
    }
}

/// A file, or 304 if the client has it already.
fn file(
    asked: &HeaderMap,
    tag: HeaderValue,
    cache: HeaderValue,
    content_type: HeaderValue,
    bytes: impl FnOnce() -> Bytes,
) -> Response<ReplyBody> {
    let known = request::none_match(asked, |given| given == tag.as_bytes());
    let mut reply = Response::new(match known {
        true => ReplyBody::empty(),
        false => ReplyBody::full(bytes()),
    });
    if known {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = reply.headers_mut();
    if !known {
        fields.insert(CONTENT_TYPE, content_type);
        fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    }
    fields.insert(CACHE_CONTROL, cache);
    fields.insert(ETAG, tag);
    reply
}

/// 128 bits name a file's bytes.
fn etag(identity: &Hash) -> HeaderValue {
    let mut text = Vec::with_capacity(66);
    text.push(b'"');
    convert::write_hex(&mut text, identity);
    text.truncate(33);
    text.push(b'"');
    // Digits in quotes are a valid header value.
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A browser asks first when a page sends a header of its own, such as `If-None-Match`.
fn preflight() -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let fields = reply.headers_mut();
    fields.insert(ALLOW, HeaderValue::from_static(METHODS));
    fields.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD"),
    );
    fields.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("If-None-Match, Cache-Control"),
    );
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    reply
}
