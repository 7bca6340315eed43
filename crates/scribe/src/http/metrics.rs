//! What the HTTP server counts, and `/metrics`.
//!
//! Counters are plain atomics, rendered on demand behind the node's own metrics: a request costs two relaxed additions.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::{Request, State};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};

use super::App;
use super::body::ReplyBody;
use super::error::ApiError;
use super::request::Query;

/// What a request was about, as a metrics label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `PUT /v1/keys/{key}`
    Put,
    /// `GET /v1/keys/{key}`
    Get,
    /// `DELETE /v1/keys/{key}`
    Delete,
    /// `GET /v1/keys/{key}/history`
    History,
    /// `GET /v1/keys/{key}/receipt`
    Receipt,
    /// `POST /v1/receipts`
    Receipts,
    /// `GET /v1/keys`
    List,
    /// `POST /v1/keys:get`
    KeysGet,
    /// `POST /v1/transactions`
    Transaction,
    /// `POST /v1/entries`
    Bulk,
    /// `GET /v1/entries…`
    Entries,
    /// `GET /v1/watch`
    Watch,
    /// `GET /v1/proofs/…`
    Proof,
    /// `GET /tile/…`
    Tile,
    /// `GET /checkpoint`
    Checkpoint,
    /// Everything else.
    Other,
}

impl Route {
    const ALL: [(Route, &'static str); 16] = [
        (Route::Put, "put"),
        (Route::Get, "get"),
        (Route::Delete, "delete"),
        (Route::History, "history"),
        (Route::Receipt, "receipt"),
        (Route::Receipts, "receipts"),
        (Route::List, "list"),
        (Route::KeysGet, "keys_get"),
        (Route::Transaction, "transaction"),
        (Route::Bulk, "bulk"),
        (Route::Entries, "entries"),
        (Route::Watch, "watch"),
        (Route::Proof, "proof"),
        (Route::Tile, "tile"),
        (Route::Checkpoint, "checkpoint"),
        (Route::Other, "other"),
    ];

    /// The route of a path outside `/v1/keys/`.
    pub fn of(method: &Method, path: &str) -> Route {
        match path {
            "/v1/keys" => Route::List,
            "/v1/keys:get" => Route::KeysGet,
            "/v1/transactions" => Route::Transaction,
            "/v1/receipts" => Route::Receipts,
            "/v1/entries" if *method == Method::POST => Route::Bulk,
            "/v1/watch" => Route::Watch,
            path if path.starts_with("/v1/entries") => Route::Entries,
            path if path.starts_with("/v1/proofs/") => Route::Proof,
            _ => Route::Other,
        }
    }
}

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];
/// Status classes 2xx to 5xx; anything else counts as 5xx.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
struct RouteCounters {
    classes: [AtomicU64; CLASSES.len()],
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    routes: [RouteCounters; Route::ALL.len()],
    /// Connections open now.
    pub connections: AtomicU64,
    /// Watchers connected now.
    pub watchers: AtomicU64,
    /// Connections closed because they stalled.
    pub stalled: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
}

impl HttpMetrics {
    /// Counts one answer. For a streamed one, `elapsed` ends with its head.
    pub fn record(&self, route: Route, status: u16, elapsed: Duration) {
        let Some(counters) = self.routes.get(route as usize) else {
            return;
        };
        let class = match status {
            200..=299 => 0,
            300..=399 => 1,
            400..=499 => 2,
            _ => 3,
        };
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        counters.classes[class].fetch_add(1, Relaxed);
        counters.sum_us.fetch_add(us, Relaxed);
        counters.buckets[BUCKETS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
    }

    /// Appends the counters in the Prometheus text format.
    pub fn render(&self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = self.try_render(out);
    }

    fn try_render(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("# HELP scribe_http_requests_total Answers by route and status class.\n");
        out.push_str("# TYPE scribe_http_requests_total counter\n");
        for (counters, (_, route)) in self.routes.iter().zip(Route::ALL) {
            for (count, class) in counters.classes.iter().zip(CLASSES) {
                let count = count.load(Relaxed);
                if count > 0 {
                    writeln!(
                        out,
                        "scribe_http_requests_total{{route=\"{route}\",status=\"{class}\"}} {count}"
                    )?;
                }
            }
        }
        out.push_str(
            "# HELP scribe_http_request_seconds Time from the request's head to the answer's.\n",
        );
        out.push_str("# TYPE scribe_http_request_seconds histogram\n");
        for (counters, (_, route)) in self.routes.iter().zip(Route::ALL) {
            let total: u64 = counters
                .buckets
                .iter()
                .map(|bucket| bucket.load(Relaxed))
                .sum();
            if total == 0 {
                continue;
            }
            let mut below = 0;
            for (bucket, bound) in counters.buckets.iter().zip(BUCKETS_US) {
                below += bucket.load(Relaxed);
                let bound = bound as f64 / 1e6;
                writeln!(
                    out,
                    "scribe_http_request_seconds_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}"
                )?;
            }
            let sum = counters.sum_us.load(Relaxed) as f64 / 1e6;
            writeln!(
                out,
                "scribe_http_request_seconds_bucket{{route=\"{route}\",le=\"+Inf\"}} {total}\n\
                 scribe_http_request_seconds_sum{{route=\"{route}\"}} {sum}\n\
                 scribe_http_request_seconds_count{{route=\"{route}\"}} {total}"
            )?;
        }
        for (name, help, kind, value) in [
            (
                "scribe_http_connections",
                "Connections open now.",
                "gauge",
                &self.connections,
            ),
            (
                "scribe_http_watchers",
                "Watchers connected now.",
                "gauge",
                &self.watchers,
            ),
            (
                "scribe_http_connections_stalled_total",
                "Connections closed because they stalled.",
                "counter",
                &self.stalled,
            ),
            (
                "scribe_http_tls_handshakes_failed_total",
                "TLS handshakes that failed or took too long.",
                "counter",
                &self.handshakes_failed,
            ),
        ] {
            let value = value.load(Relaxed);
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )?;
        }
        Ok(())
    }
}

/// When the certificates end, in seconds since 1970. Nothing for a certificate that is not there.
fn render_certificates(text: &mut String, app: &App) {
    let node = app.options.node_certificate_expires_ms.load(Relaxed);
    let http = app.options.tls.as_ref().map_or(0, |tls| tls.expires_ms());
    let used = [("node", node), ("http", http)];
    let mut used = used
        .iter()
        .filter(|(_, expires_ms)| *expires_ms > 0)
        .peekable();
    if used.peek().is_none() {
        return;
    }
    let name = "scribe_certificate_expires_timestamp_seconds";
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} When the certificate in use towards nodes or clients ends\n# TYPE {name} gauge"
    );
    for (towards, expires_ms) in used {
        let _ = writeln!(
            text,
            "{name}{{certificate=\"{towards}\"}} {}",
            expires_ms / 1_000
        );
    }
}

/// `GET /metrics`
pub(super) async fn metrics(
    State(app): State<App>,
    request: Request,
) -> Result<Response<ReplyBody>, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let mut text = crate::metrics::render(&app.node);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    app.metrics.render(&mut text);
    render_certificates(&mut text, &app);
    Ok(metrics_reply(text))
}

/// An answer in the Prometheus text format.
pub(super) fn metrics_reply(text: String) -> Response<ReplyBody> {
    let mut reply = Response::new(ReplyBody::full(text));
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_in_the_order_of_their_numbers() {
        for (place, (route, _)) in Route::ALL.iter().enumerate() {
            assert_eq!(*route as usize, place);
        }
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let metrics = HttpMetrics::default();
        metrics.record(Route::Put, 201, Duration::from_micros(100));
        metrics.record(Route::Put, 201, Duration::from_micros(101));
        metrics.record(Route::Put, 412, Duration::from_secs(60));
        let mut text = String::new();
        metrics.render(&mut text);
        for line in [
            "scribe_http_requests_total{route=\"put\",status=\"2xx\"} 2",
            "scribe_http_requests_total{route=\"put\",status=\"4xx\"} 1",
            "scribe_http_request_seconds_bucket{route=\"put\",le=\"0.0001\"} 1",
            "scribe_http_request_seconds_bucket{route=\"put\",le=\"0.00025\"} 2",
            "scribe_http_request_seconds_bucket{route=\"put\",le=\"30\"} 2",
            "scribe_http_request_seconds_bucket{route=\"put\",le=\"+Inf\"} 3",
            "scribe_http_request_seconds_count{route=\"put\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
