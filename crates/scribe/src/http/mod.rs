//! The HTTP API: routes, limits, and the way from wire types to the node and back.
//!
//! The contract is `docs/api.md`; its types and error codes are in `scribe-client`, so that the node and its clients
//! cannot disagree. This module knows HTTP and nothing of how a ledger works: every decision is the [`Node`]'s.
//!
//! ```text
//! connection  accepts, greets by TLS if there is a certificate, drives hyper, closes what stalls
//!   └─ answer      checks the head, then
//!        ├─ keys        /v1/keys/{key}…: the hot routes, reached without a router
//!        ├─ tiles       /checkpoint and /tile/…: the static read side, likewise
//!        └─ Router      everything else, one module per resource
//! ```
//!
//! Paths of keys are read raw (see `key_path`), which is also why they do not go through the router.

mod body;
mod bulk;
mod cluster;
mod connection;
mod convert;
mod cursor;
mod entries;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod health;
mod key_path;
mod keys;
mod ledger;
mod metrics;
mod openapi;
mod operator;
mod proofs;
mod range;
mod receipts;
mod request;
mod tiles;
mod tls;
mod transactions;
mod watch;
mod witness;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::routing::{delete, get, post};
use http::{Request, Response};
use hyper::body::Incoming;
use scribe_client::code::ErrorCode;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use body::{BodyBudget, ReplyBody};
use connection::{Site, Watch};
use error::ApiError;
use metrics::{HttpMetrics, Route};

use crate::limits;
use crate::node::Node;

pub use tls::{HttpTls, HttpTlsError, TlsTarget, certificate_expires_ms};
pub use witness::serve_witness;

/// Connections the kernel keeps for us while we are busy.
const LISTEN_BACKLOG: u32 = 4_096;

/// How the API is served.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Longest value in bytes; the node's own setting, so that it is refused before it is read.
    pub value_length_max: usize,
    /// The address other nodes reach this one at, for `/v1/cluster`.
    pub raft_addr: String,
    /// The address clients reach this node at, for `/v1/cluster`; empty means the bound one.
    pub http_addr: String,
    /// The certificate to show; plain HTTP without one.
    pub tls: Option<Arc<HttpTls>>,
    /// When the certificate towards other nodes ends, in milliseconds since 1970, for `/metrics`; 0 without one.
    pub node_certificate_expires_ms: Arc<AtomicU64>,
}

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8_001)),
            value_length_max: limits::VALUE_LENGTH_DEFAULT_MAX,
            raft_addr: String::new(),
            http_addr: String::new(),
            tls: None,
            node_certificate_expires_ms: Arc::default(),
        }
    }
}

/// A bound socket that is not served yet.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local_addr: SocketAddr,
}

impl Listener {
    /// Where it listens, with the port it was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

/// Binds the address of `options`. Clients may connect from here on; they are answered by [`serve`].
///
/// # Errors
/// The address is taken or not this machine's.
pub async fn bind(options: &HttpOptions) -> io::Result<Listener> {
    bind_at(options.addr).await
}

/// As [`bind`], for whatever is served there.
///
/// # Errors
/// As [`bind`].
pub async fn bind_at(addr: SocketAddr) -> io::Result<Listener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for the last run's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    let inner = socket.listen(LISTEN_BACKLOG)?;
    let local_addr = inner.local_addr()?;
    Ok(Listener { inner, local_addr })
}

/// Serves until `shutdown` resolves; then accepts nothing more, lets requests in progress finish for at most
/// [`limits::HTTP_DRAIN_TIMEOUT_MS`], and ends watches at once. The node itself is left running.
///
/// # Errors
/// None today: what can fail fails in [`bind`], and a connection's failure is its own.
pub async fn serve(
    listener: Listener,
    node: Node,
    mut options: HttpOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if options.http_addr.is_empty() {
        options.http_addr = listener.local_addr.to_string();
    }
    let app = App(Arc::new(AppInner {
        node,
        options,
        budget: BodyBudget::new(),
        bulk_streams: Arc::new(Semaphore::new(limits::BULK_STREAMS_MAX)),
        bulk_room: Arc::new(Semaphore::new(limits::BULK_ROOM_FRAMES)),
        watchers: Arc::new(Semaphore::new(limits::WATCHERS_MAX)),
        tile_readers: Semaphore::new(limits::TILE_READERS_MAX),
        stopping: CancellationToken::new(),
        metrics: HttpMetrics::default(),
    }));
    let server = Server {
        router: router(app.clone()),
        app,
    };
    connection::serve(listener.inner, server, shutdown).await
}

/// What all requests share.
#[derive(Debug, Clone)]
struct App(Arc<AppInner>);

#[derive(Debug)]
struct AppInner {
    node: Node,
    options: HttpOptions,
    budget: BodyBudget,
    bulk_streams: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    tile_readers: Semaphore,
    stopping: CancellationToken,
    metrics: HttpMetrics,
}

impl App {
    /// Runs what may have to read tiles from disk, beside few others of its kind.
    async fn read_tiles<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // The semaphore is never closed; a request that is given up leaves its place.
        let _reading = self.tile_readers.acquire().await;
        tokio::task::spawn_blocking(read)
            .await
            .map_err(ApiError::task_failed)
    }
}

impl Deref for App {
    type Target = AppInner;

    fn deref(&self) -> &AppInner {
        &self.0
    }
}

/// What a connection needs to answer requests. The router holds the app, so the app cannot hold the router.
#[derive(Debug, Clone)]
struct Server {
    app: App,
    router: Router,
}

impl Site for Server {
    async fn answer(&self, request: Request<Incoming>, watch: &Arc<Watch>) -> Response<ReplyBody> {
        let started = Instant::now();
        let (route, answer) = match check_head(&request) {
            Err(error) => (Route::Other, Err(error)),
            Ok(()) if request.uri().path().starts_with(key_path::KEYS_PREFIX) => {
                keys::answer(&self.app, watch, request).await
            }
            Ok(()) if tiles::serves(request.uri().path()) => {
                let (route, reply) = tiles::answer(&self.app, &request).await;
                (route, Ok(reply))
            }
            Ok(()) => {
                let route = Route::of(request.method(), request.uri().path());
                (route, Ok(self.route(request, watch).await))
            }
        };
        let reply = answer.unwrap_or_else(ApiError::into_reply);
        self.app
            .metrics
            .record(route, reply.status().as_u16(), started.elapsed());
        reply
    }

    fn metrics(&self) -> &HttpMetrics {
        &self.app.metrics
    }

    fn tls(&self) -> Option<&Arc<HttpTls>> {
        self.app.options.tls.as_ref()
    }

    fn stopping(&self) -> &CancellationToken {
        &self.app.stopping
    }
}

impl Server {
    /// Boxed: the router's futures are large, and the hot routes' must not be.
    fn route(
        &self,
        request: Request<Incoming>,
        watch: &Arc<Watch>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(watch));
        let router = self.router.clone();
        Box::pin(async move {
            match router.oneshot(request).await {
                Ok(reply) => reply.map(ReplyBody::streamed),
                Err(never) => match never {},
            }
        })
    }
}

/// Refuses heads over their limits. hyper has refused by itself what is over its larger buffers.
fn check_head(request: &Request<Incoming>) -> Result<(), ApiError> {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits::HTTP_URI_LENGTH_MAX {
        return Err(ApiError::new(
            ErrorCode::UriTooLong,
            format!(
                "the request target is {target} bytes long, allowed are {}",
                limits::HTTP_URI_LENGTH_MAX
            ),
        )
        .hint("long keys fit as base64url: ?key_encoding=base64url")
        .leaving_request_unread());
    }
    let fields = request.headers();
    if fields.len() > limits::HTTP_HEADERS_MAX {
        return Err(ApiError::new(
            ErrorCode::HeadersTooLarge,
            format!(
                "the request has {} header fields, allowed are {}",
                fields.len(),
                limits::HTTP_HEADERS_MAX
            ),
        )
        .leaving_request_unread());
    }
    // Name, value, colon, space and line end.
    let length: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if length + target > limits::HTTP_HEAD_LENGTH_MAX {
        return Err(ApiError::new(
            ErrorCode::HeadersTooLarge,
            format!(
                "the request head is {} bytes long, allowed are {}",
                length + target,
                limits::HTTP_HEAD_LENGTH_MAX
            ),
        )
        .leaving_request_unread());
    }
    Ok(())
}

fn router(app: App) -> Router {
    Router::new()
        .route("/v1/keys", get(transactions::list).fallback(only_get))
        .route(
            "/v1/keys:get",
            post(transactions::keys_get).fallback(only_post),
        )
        .route("/v1/receipts", post(receipts::receipts).fallback(only_post))
        .route(
            "/v1/transactions",
            post(transactions::transaction).fallback(only_post),
        )
        .route(
            "/v1/entries",
            get(entries::page).post(bulk::upload).fallback(get_or_post),
        )
        .route(
            "/v1/entries/{index}",
            get(entries::entry).fallback(only_get),
        )
        .route("/v1/watch", get(watch::watch).fallback(only_get))
        .route(
            "/v1/proofs/inclusion",
            get(proofs::inclusion).fallback(only_get),
        )
        .route(
            "/v1/proofs/consistency",
            get(proofs::consistency).fallback(only_get),
        )
        .route("/v1/ledger", get(ledger::ledger).fallback(only_get))
        .route("/v1/cluster", get(cluster::cluster).fallback(only_get))
        .route(
            "/v1/cluster/leader",
            get(cluster::leader)
                .post(cluster::transfer)
                .fallback(get_or_post),
        )
        .route(
            "/v1/cluster/members",
            get(cluster::members).fallback(only_get),
        )
        .route(
            "/v1/cluster/members/{id}",
            delete(cluster::remove).fallback(only_delete),
        )
        .route(
            "/v1/cluster/members/{id}/promote",
            post(cluster::promote).fallback(only_post),
        )
        .route(
            "/v1/cluster/members/{id}/replace",
            post(cluster::replace).fallback(only_post),
        )
        .route(
            "/v1/cluster/tokens",
            post(cluster::token).fallback(only_post),
        )
        .route(
            "/v1/cluster/ledger-key",
            post(cluster::rotate_key).fallback(only_post),
        )
        .route("/health/live", get(health::live).fallback(only_get))
        .route("/health/ready", get(health::ready).fallback(only_get))
        .route("/metrics", get(metrics::metrics).fallback(only_get))
        .route("/openapi.json", get(openapi::openapi).fallback(only_get))
        .fallback(no_route)
        .with_state(app)
}

async fn only_get(request: axum::extract::Request) -> ApiError {
    ApiError::method_not_allowed(request.method(), "GET, HEAD").leaving_request_unread()
}

async fn only_post(request: axum::extract::Request) -> ApiError {
    ApiError::method_not_allowed(request.method(), "POST").leaving_request_unread()
}

async fn only_delete(request: axum::extract::Request) -> ApiError {
    ApiError::method_not_allowed(request.method(), "DELETE").leaving_request_unread()
}

async fn get_or_post(request: axum::extract::Request) -> ApiError {
    ApiError::method_not_allowed(request.method(), "GET, HEAD, POST").leaving_request_unread()
}

async fn no_route(request: axum::extract::Request) -> ApiError {
    let shown: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!("{shown} is not a route"))
        .hint("/openapi.json lists the routes; keys are at /v1/keys/{key}")
        .leaving_request_unread()
}
