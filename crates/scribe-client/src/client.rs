//! One client for every route. Nothing here is verified; see [`crate::verify`] for that.
//!
//! Each method returns a request that is refined with further methods and sent with `send`.

mod cluster;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ndjson;
mod read;
mod receipts;
mod sse;
mod stream;
mod write;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;

pub use read::{Get, Head, HistoryRequest, KeysGet, List, ReadEntries, ReadEntry, ReceiptRequest};
pub use read::{Value, ValueHead};
pub use receipts::ReceiptBatch;
pub use stream::Watch;
pub(crate) use write::Condition;
pub use write::{Delete, Put, Transact, Wait};

use crate::error::{Error, TransportError, with_causes};
use crate::retry::{self, Effect, Failure, RetryPolicy, Safety};
use crate::wire::Problem;

/// Longest answer read into memory unless set: the largest configurable value as JSON, and a page.
pub const ANSWER_LENGTH_MAX: usize = 64 * 1_024 * 1_024;
/// A body from which nothing arrives for this long is given up.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest body of a refusal that is read.
const PROBLEM_LENGTH_MAX: usize = 64 * 1_024;

/// What a key or a parameter may hold as it is: RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A client of a ledger, cheap to clone. Any node takes any request; with several to ask, the
/// client stays with one and moves on when that cannot be reached or cannot reach the others.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    /// At least one, each without a slash at the end.
    servers: Vec<String>,
    /// Which of them is asked.
    current: AtomicUsize,
    retry: RetryPolicy,
    answer_length_max: usize,
}

/// Settings of a [`Client`]; made by [`Client::builder`].
#[derive(Debug)]
pub struct ClientBuilder {
    servers: Vec<String>,
    ca_pem: Option<Vec<u8>>,
    http: Option<reqwest::Client>,
    retry: RetryPolicy,
    answer_length_max: usize,
}

impl ClientBuilder {
    /// Another node of the same ledger, to be asked when those before it cannot be reached.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> ClientBuilder {
        self.servers.push(url.into());
        self
    }

    /// Believes `https` servers whose certificate one of these certificates (PEM) vouches for, and
    /// no others. Unless set, those count that the operating system believes.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> ClientBuilder {
        self.ca_pem = Some(pem.into());
        self
    }

    /// How long calls are repeated and attempts may take.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> ClientBuilder {
        self.retry = retry;
        self
    }

    /// Longest answer, in bytes, that is read into memory; [`ANSWER_LENGTH_MAX`] unless set.
    #[must_use]
    pub fn answer_length_max(mut self, bytes: usize) -> ClientBuilder {
        self.answer_length_max = bytes;
        self
    }

    /// Uses this HTTP client, for settings such as proxies or headers. It must not set a total
    /// timeout, which would cut watches off, and should not follow redirects. What it believes is
    /// its own: [`ca_pem`](ClientBuilder::ca_pem) does not count.
    #[must_use]
    pub fn http(mut self, http: reqwest::Client) -> ClientBuilder {
        self.http = Some(http);
        self
    }

    /// Makes the client. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no URL, one is not `http[s]://host[:port][/path]`, or
    /// the CA certificates cannot be read, and [`Error::Transport`] if the HTTP client cannot be
    /// made.
    pub fn build(self) -> Result<Client, Error> {
        let servers = self
            .servers
            .iter()
            .map(|url| base(url))
            .collect::<Result<Vec<String>, Error>>()?;
        if servers.is_empty() {
            let text = "a client needs the URL of at least one node, found none";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        let http = match self.http {
            Some(http) => http,
            None => {
                let encrypted = servers.iter().any(|url| url.starts_with("https:"));
                http_client(encrypted, self.ca_pem.as_deref())?
            }
        };
        Ok(Client {
            inner: Arc::new(Inner {
                http,
                servers,
                current: AtomicUsize::new(0),
                retry: self.retry,
                answer_length_max: self.answer_length_max,
            }),
        })
    }
}

/// The URL of a server without a slash at the end.
pub(crate) fn base(text: &str) -> Result<String, Error> {
    let refused = |why: &str| {
        Error::InvalidArgument(format!(
            "a server's URL is http://host[:port] or https://host[:port], found {text:?}: {why}"
        ))
    };
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("only http and https are supported"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it has a query or a fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(crate) fn http_client(
    encrypted: bool,
    ca_pem: Option<&[u8]>,
) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // Notices a node that is gone while a watch or a bulk upload waits for it.
        .tcp_keepalive(Duration::from_secs(15))
        // A redirect would carry a write to a place nobody named.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("scribe-client/", env!("CARGO_PKG_VERSION")))
        // Reading what the system believes takes longer than a request: only where it is needed.
        .tls_built_in_root_certs(encrypted && ca_pem.is_none());
    if let Some(pem) = ca_pem {
        let unreadable = |why: &str| {
            Error::InvalidArgument(format!("CA certificates are a PEM text, but {why}"))
        };
        let certificates = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| unreadable(&with_causes(&error)))?;
        if certificates.is_empty() {
            return Err(unreadable("it holds no certificate"));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    let client = builder.build();
    Ok(client.map_err(|error| TransportError::Connect(with_causes(&error)))?)
}

impl Client {
    /// A client of the node at this URL, such as `http://127.0.0.1:8001`.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        Client::builder_for([url])
    }

    /// A client of the ledger whose nodes are at these URLs. The first is asked until it cannot be
    /// reached or cannot reach the others, then the next. Writes carry an idempotency key unless
    /// told otherwise, so that one that was sent to a node that went away is sent to the next
    /// without being written twice.
    pub fn builder_for<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> ClientBuilder {
        ClientBuilder {
            servers: urls.into_iter().map(Into::into).collect(),
            ca_pem: None,
            http: None,
            retry: RetryPolicy::default(),
            answer_length_max: ANSWER_LENGTH_MAX,
        }
    }

    /// A client with default settings.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn new(url: impl Into<String>) -> Result<Client, Error> {
        Client::builder(url).build()
    }

    /// The URL of the node that is asked next, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server(self.inner.current.load(Ordering::Relaxed))
    }

    /// The URLs of all nodes that can be asked, without a slash at the end.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.inner.servers
    }

    fn server(&self, place: usize) -> &str {
        let servers = &self.inner.servers;
        servers
            .get(place % servers.len().max(1))
            .map_or("", String::as_str)
    }

    /// A request to the node that is asked now, and that node's place.
    fn request(&self, call: &Call) -> (reqwest::RequestBuilder, usize) {
        let place = self.inner.current.load(Ordering::Relaxed);
        let url = format!("{}{}", self.server(place), call.target);
        let request = self.inner.http.request(call.method.clone(), url);
        (request.headers(call.headers.clone()), place)
    }

    /// What the failure of a request to the node at `place` means for the next one.
    fn note(&self, place: usize, mut failure: Failure) -> Failure {
        let servers = self.inner.servers.len();
        if failure.elsewhere && servers > 1 {
            // Another node has another certificate.
            failure.retryable |= failure.effect == Effect::None
                && matches!(
                    failure.error,
                    Error::Transport(TransportError::Certificate(_))
                );
            // Only the first of those that failed there together moves on.
            let _ = self.inner.current.compare_exchange(
                place,
                (place + 1) % servers,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        failure
    }

    /// Sends a call, repeats it as the policy allows, and reads the whole answer.
    async fn call(&self, call: &Call, safety: Safety<'_>) -> Result<Answer, Error> {
        let (policy, nodes) = (&self.inner.retry, self.inner.servers.len());
        retry::run(policy, nodes, safety, || self.attempt(call)).await
    }

    /// [`Client::call`] for JSON.
    async fn call_json<T: DeserializeOwned>(
        &self,
        call: &Call,
        safety: Safety<'_>,
    ) -> Result<T, Error> {
        let answer = self.call(call, safety).await?;
        match (serde_json::from_slice(&answer.body), safety) {
            (Ok(value), _) => Ok(value),
            (Err(error), Safety::Read) => Err(not_understood(call, &error)),
            // It was done, but where is not known.
            (Err(error), Safety::Write(key)) => Err(Error::OutcomeUnknown {
                idempotency_key: key.map(str::to_owned),
                last: Box::new(not_understood(call, &error)),
            }),
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Failure> {
        let (mut request, place) = self.request(call);
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let policy = &self.inner.retry;
        let by_policy = policy.attempt_timeout(call.body.as_ref().map_or(0, Bytes::len));
        let timeout = call.timeout.unwrap_or(by_policy);
        let response = self.open(request, place, timeout).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response, self.inner.answer_length_max)
            .await
            .map_err(|failure| self.note(place, failure))?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends a request once, to the node at `place`, and waits for the head of its answer.
    async fn open(
        &self,
        request: reqwest::RequestBuilder,
        place: usize,
        timeout: Duration,
    ) -> Result<reqwest::Response, Failure> {
        let opened = send(request, timeout).await;
        opened.map_err(|failure| self.note(place, failure))
    }
}

async fn send(
    request: reqwest::RequestBuilder,
    timeout: Duration,
) -> Result<reqwest::Response, Failure> {
    let response = match tokio::time::timeout(timeout, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Failure::transport(transport(&error))),
        Err(_) => return Err(Failure::transport(timed_out(timeout))),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if !status.is_client_error() && !status.is_server_error() {
        return Err(Failure::unexpected(format!("status {status}")));
    }
    let retry_after = seconds(response.headers().get(RETRY_AFTER));
    let body = read_body(response, PROBLEM_LENGTH_MAX)
        .await
        .unwrap_or_default();
    Err(Failure::refused(read_problem(status, &body), retry_after))
}

/// One request, so that it can be sent again.
#[derive(Clone, Debug)]
struct Call {
    method: Method,
    /// Path and query, encoded.
    target: String,
    headers: HeaderMap,
    body: Option<Bytes>,
    has_query: bool,
    /// How long an attempt may wait, where the policy's patience is too short.
    timeout: Option<Duration>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            target: path.into(),
            headers: HeaderMap::new(),
            body: None,
            has_query: false,
            timeout: None,
        }
    }

    fn get(path: impl Into<String>) -> Call {
        Call::new(Method::GET, path)
    }

    /// A call below `/v1/keys/{key}`.
    fn for_key(method: Method, key: &[u8], suffix: &str) -> Call {
        // URLs drop the segments `.` and `..`, even percent-encoded (WHATWG URL section 4.4).
        if matches!(key, b"." | b"..") {
            let key = URL_SAFE_NO_PAD.encode(key);
            let mut call = Call::new(method, format!("/v1/keys/{key}{suffix}"));
            call.query("key_encoding", "base64url");
            return call;
        }
        Call::new(
            method,
            format!("/v1/keys/{}{suffix}", percent_encode(key, ENCODED)),
        )
    }

    fn query(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.target.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        // Writing to a string cannot fail.
        let _ = write!(
            self.target,
            "{name}={}",
            percent_encode(value.as_ref(), ENCODED)
        );
    }

    fn query_some<T: ToString>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.query(name, value.to_string());
        }
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let refused = |what: &str| {
            Error::InvalidArgument(format!(
                "header {name:?} cannot be sent: its {what} is not valid"
            ))
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("name"))?;
        // As bytes: UTF-8 outside ASCII is allowed, control characters are not.
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused("value"))?;
        self.headers.insert(header, value);
        Ok(())
    }

    fn json(&mut self, body: &impl serde::Serialize) -> Result<(), Error> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::InvalidArgument(format!("cannot be written: {error}")))?;
        self.body = Some(body.into());
        self.header("content-type", "application/json")
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// A header that must be there and be read by `T`.
    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, Error> {
        let value = self.header(name);
        value
            .as_deref()
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| {
                Error::UnexpectedAnswer(format!("header {name} is missing or malformed: {value:?}"))
            })
    }

    fn text(self, call: &Call) -> Result<String, Error> {
        String::from_utf8(self.body.into()).map_err(|error| not_understood(call, &error))
    }
}

/// Reads a body whole, refusing one that is longer than `length_max` before it is kept.
async fn read_body(response: reqwest::Response, length_max: usize) -> Result<Bytes, Failure> {
    let mut response = response;
    let mut body = BytesMut::new();
    loop {
        let chunk = match tokio::time::timeout(BODY_IDLE_TIMEOUT, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(error)) => {
                let broken = TransportError::Broken(with_causes(&error));
                return Err(Failure::transport(broken));
            }
            Err(_) => return Err(Failure::transport(timed_out(BODY_IDLE_TIMEOUT))),
        };
        if chunk.len() > length_max - body.len() {
            return Err(Failure::unexpected(format!(
                "an answer may have {length_max} bytes, found more"
            )));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The problem in a refusal's body, or one made from the status (after HEAD, or from a proxy).
fn read_problem(status: StatusCode, body: &[u8]) -> Problem {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        // The status line is what intermediaries acted on.
        return Problem {
            status: status.as_u16(),
            ..problem
        };
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let reason = status.canonical_reason().unwrap_or("unknown status");
    Problem {
        kind: "about:blank".to_owned(),
        title: reason.to_owned(),
        status: status.as_u16(),
        code: format!("status_{}", status.as_u16()),
        detail: if text.trim().is_empty() {
            reason.to_owned()
        } else {
            text.trim().to_owned()
        },
        ..Problem::new(crate::code::ErrorCode::Internal, "")
    }
}

fn not_understood(call: &Call, error: &dyn std::fmt::Display) -> Error {
    let path = call.target.split('?').next().unwrap_or_default();
    Error::UnexpectedAnswer(format!(
        "the answer to {} {path} cannot be read: {error}",
        call.method
    ))
}

pub(crate) fn transport(error: &reqwest::Error) -> TransportError {
    if error.is_connect() || error.is_builder() {
        let text = with_causes(error);
        // The TLS library's words; its types are not in reach here.
        match text.find("invalid peer certificate") {
            Some(at) => TransportError::Certificate(text[at..].to_owned()),
            None => TransportError::Connect(text),
        }
    } else {
        TransportError::Broken(with_causes(error))
    }
}

fn timed_out(timeout: Duration) -> TransportError {
    TransportError::TimedOut {
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    }
}

fn seconds(value: Option<&HeaderValue>) -> Option<Duration> {
    value?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// A random 128-bit idempotency key.
fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_path_that_urls_leave_alone() {
        for (key, path) in [
            (&b"plain"[..], "/v1/keys/plain"),
            (b"a/b", "/v1/keys/a%2Fb"),
            (b"a b?c#d%", "/v1/keys/a%20b%3Fc%23d%25"),
            (b"\x00\xff", "/v1/keys/%00%FF"),
            (b"%2e", "/v1/keys/%252e"),
            (b"...", "/v1/keys/..."),
            (b".", "/v1/keys/Lg?key_encoding=base64url"),
            (b"..", "/v1/keys/Li4?key_encoding=base64url"),
        ] {
            let call = Call::for_key(Method::GET, key, "");
            assert_eq!(call.target, path);
            let url = Url::parse(&format!("http://node{path}")).unwrap();
            assert_eq!(url.as_str(), format!("http://node{path}"));
        }
    }

    #[test]
    fn queries_are_encoded() {
        let mut call = Call::get("/v1/keys");
        call.query("prefix", b"a&b=\xff+ ");
        call.query_some("at", Some("2030-01-01T00:00:00+02:00"));
        call.query_some("limit", None::<u64>);
        assert_eq!(
            call.target,
            "/v1/keys?prefix=a%26b%3D%FF%2B%20&at=2030-01-01T00%3A00%3A00%2B02%3A00"
        );
    }

    #[test]
    fn urls_that_are_refused() {
        for url in ["", "node:8001", "ftp://node", "http://node?x", "http://"] {
            assert!(
                matches!(Client::new(url), Err(Error::InvalidArgument(_))),
                "{url}"
            );
        }
        assert_eq!(
            Client::new("http://node:1/").unwrap().url(),
            "http://node:1"
        );
        assert_eq!(
            Client::new("https://node/ledger/").unwrap().url(),
            "https://node/ledger"
        );
        let none: [&str; 0] = [];
        assert!(Client::builder_for(none).build().is_err());
        let unreadable = Client::builder("https://node").ca_pem("no certificate");
        assert!(matches!(
            unreadable.build(),
            Err(Error::InvalidArgument(text)) if text.contains("PEM")
        ));
    }

    #[test]
    fn refusals_without_a_problem_are_named_by_their_status() {
        let problem = read_problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(
            (problem.code.as_str(), problem.detail.as_str()),
            ("status_502", "<html>")
        );
        assert!(problem.is_retryable());
        assert_eq!(read_problem(StatusCode::NOT_FOUND, b"").detail, "Not Found");
    }
}
