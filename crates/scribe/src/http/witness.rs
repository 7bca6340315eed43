//! The HTTP face of a witness (<https://c2sp.org/tlog-witness>): `add-checkpoint`, and the note cosigned last.
//!
//! Connections are those of the ledger's API, with the same patience and limits; there is no node behind this. Refusals
//! the specification knows are its status and one line of text; all others are problems like everywhere else.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use scribe_client::code::ErrorCode;
use scribe_proof::witness::{REQUEST_LENGTH_MAX, SIZE_MEDIA_TYPE, size_text};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::body::{BodyBudget, ReplyBody, read_body};
use super::connection::{self, Site, Watch};
use super::error::ApiError;
use super::metrics::{HttpMetrics, metrics_reply};
use super::{HttpTls, Listener, check_head, headers};
use crate::limits;
use crate::witness::{Outcome, Refused, Witness};

/// Serves a witness until `shutdown` resolves; then accepts nothing more and lets requests in progress finish for at
/// most [`limits::HTTP_DRAIN_TIMEOUT_MS`]. The witness is left open.
///
/// # Errors
/// None today: what can fail fails in [`super::bind_at`].
pub async fn serve_witness(
    listener: Listener,
    witness: Witness,
    tls: Option<Arc<HttpTls>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let site = WitnessSite(Arc::new(Inner {
        witness,
        tls,
        budget: BodyBudget::new(),
        room: Semaphore::new(limits::WITNESS_REQUESTS_MAX),
        stopping: CancellationToken::new(),
        metrics: HttpMetrics::default(),
    }));
    connection::serve(listener.inner, site, shutdown).await
}

#[derive(Clone)]
struct WitnessSite(Arc<Inner>);

struct Inner {
    witness: Witness,
    tls: Option<Arc<HttpTls>>,
    budget: BodyBudget,
    /// Requests in progress.
    room: Semaphore,
    stopping: CancellationToken,
    metrics: HttpMetrics,
}

impl Site for WitnessSite {
    async fn answer(&self, request: Request<Incoming>, watch: &Arc<Watch>) -> Response<ReplyBody> {
        let answered = match check_head(&request) {
            Ok(()) => self.0.route(request, watch).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(ApiError::into_reply)
    }

    fn metrics(&self) -> &HttpMetrics {
        &self.0.metrics
    }

    fn tls(&self) -> Option<&Arc<HttpTls>> {
        self.0.tls.as_ref()
    }

    fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

impl Inner {
    async fn route(
        &self,
        request: Request<Incoming>,
        watch: &Watch,
    ) -> Result<Response<ReplyBody>, ApiError> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        let monitored = path
            .strip_prefix('/')
            .and_then(|path| path.strip_suffix("/checkpoint"));
        match path {
            "/add-checkpoint" if request.method() == Method::POST => {
                self.add_checkpoint(request, watch).await
            }
            "/add-checkpoint" => Err(not_allowed(&request, "POST")),
            "/metrics" if reads => Ok(metrics_reply(self.render())),
            "/health/live" if reads => Ok(text(StatusCode::OK, "ok\n".to_owned())),
            "/metrics" | "/health/live" => Err(not_allowed(&request, "GET, HEAD")),
            _ => match monitored {
                Some(id) if reads => self.checkpoint(id),
                Some(_) => Err(not_allowed(&request, "GET, HEAD")),
                None => Err(ApiError::not_found(
                    "a witness has the routes POST /add-checkpoint and GET /{hex of SHA-256 of an origin}/checkpoint",
                )
                .leaving_request_unread()),
            },
        }
    }

    async fn add_checkpoint(
        &self,
        request: Request<Incoming>,
        watch: &Watch,
    ) -> Result<Response<ReplyBody>, ApiError> {
        // Before anything is read: a crowd is turned away for nothing.
        let Ok(_room) = self.room.try_acquire() else {
            return Err(
                ApiError::overloaded("too many requests are in progress", 1_000)
                    .leaving_request_unread(),
            );
        };
        let too_large = |found: Option<u64>| {
            let found = found.map_or_else(String::new, |found| format!(", found {found}"));
            ApiError::new(
                ErrorCode::BodyTooLarge,
                format!("a request may have {REQUEST_LENGTH_MAX} bytes{found}"),
            )
        };
        let mut body = request.into_body();
        let body = read_body(
            &mut body,
            REQUEST_LENGTH_MAX,
            &self.budget,
            watch,
            too_large,
        )
        .await?;
        Ok(match self.witness.add_checkpoint(&body.bytes).await {
            Outcome::Cosigned(signature) => text(StatusCode::OK, signature.to_line()),
            Outcome::Refused(Refused::Conflict { size, .. }) => {
                let mut reply = text(StatusCode::CONFLICT, size_text(size));
                reply
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(SIZE_MEDIA_TYPE));
                reply
            }
            Outcome::Refused(refused) => {
                let status = StatusCode::from_u16(refused.status());
                text(
                    status.unwrap_or(StatusCode::BAD_REQUEST),
                    format!("{refused}\n"),
                )
            }
            Outcome::Busy => {
                let mut reply = text(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!(
                        "{} requests for this log are waiting already\n",
                        limits::WITNESS_WAITING_PER_LOG_MAX
                    ),
                );
                reply
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                reply
            }
            // Why is in the log: paths and disks are the operator's.
            Outcome::Failed(_) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the checkpoint could not be stored and was not cosigned\n".to_owned(),
            ),
        })
    }

    fn checkpoint(&self, id: &str) -> Result<Response<ReplyBody>, ApiError> {
        let note = self.witness.newest(id).ok_or_else(|| {
            ApiError::not_found("nothing was cosigned of a log whose origin has this SHA-256")
                .hint("the path is /{64 lowercase hexadecimal digits}/checkpoint")
        })?;
        let mut reply = text(StatusCode::OK, note.to_string());
        let fields = reply.headers_mut();
        fields.insert(CONTENT_TYPE, headers::NOTE);
        // Monitors may be web pages; there is nothing here that not everybody may see.
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        Ok(reply)
    }

    fn render(&self) -> String {
        let mut out = String::new();
        let stats = self.witness.stats();
        for (name, help, value) in [
            (
                "scribe_witness_cosigned_total",
                "Cosignatures given",
                stats.cosigned.load(Relaxed),
            ),
            (
                "scribe_witness_refused_total",
                "Requests refused, by the rules of tlog-witness",
                stats.refused.load(Relaxed),
            ),
            (
                "scribe_witness_forks_total",
                "Requests refused because the log signed a checkpoint that does not extend the one cosigned",
                stats.forks.load(Relaxed),
            ),
            (
                "scribe_witness_failed_total",
                "Requests not answered for lack of room or because the disk failed",
                stats.failed.load(Relaxed),
            ),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}"
            );
        }
        let name = "scribe_witness_log_size_leaves";
        let _ = writeln!(
            out,
            "# HELP {name} Size cosigned last, by log\n# TYPE {name} gauge"
        );
        for (origin, size) in self.witness.sizes() {
            let _ = writeln!(
                out,
                "{name}{{log=\"{}\"}} {size}",
                crate::metrics::label(&origin)
            );
        }
        self.metrics.render(&mut out);
        out
    }
}

fn not_allowed(request: &Request<Incoming>, allowed: &'static str) -> ApiError {
    ApiError::method_not_allowed(request.method(), allowed).leaving_request_unread()
}

fn text(status: StatusCode, body: String) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::full(body));
    *reply.status_mut() = status;
    let fields = reply.headers_mut();
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    fields.insert(CACHE_CONTROL, headers::NO_STORE);
    fields.insert(headers::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    reply
}
