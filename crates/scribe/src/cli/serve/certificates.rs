//! The certificates of a running node: new ones are taken into use at SIGHUP, and the log says in time that they end.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::Signal;

use crate::cluster::files::CERTIFICATE_FILE;
use crate::http::{HttpOptions, HttpTls, certificate_expires_ms};
use crate::node::{Node, NodeOptions};

/// How often the log repeats that a certificate is about to end.
const LOOK_INTERVAL: Duration = Duration::from_secs(DAY_MS / 1_000);
/// How long before its end a certificate is spoken of.
const WARN_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The certificates in use.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The file of the certificate towards other nodes, for a member of a cluster.
    node: Option<PathBuf>,
    /// When the one in use ends; 0 without one.
    node_expires_ms: Arc<AtomicU64>,
    http: Option<Arc<HttpTls>>,
}

impl Certificates {
    /// Those that a node with these options uses from its start on.
    pub(super) fn of(node: &NodeOptions, http: &HttpOptions) -> Certificates {
        let file = node.key_dir.join(CERTIFICATE_FILE);
        let certificates = Certificates {
            node: (file.exists() && !node.raft_plaintext).then_some(file),
            node_expires_ms: Arc::clone(&http.node_certificate_expires_ms),
            http: http.tls.clone(),
        };
        certificates.read_node();
        certificates
    }

    /// Notes when the certificate of the file, which is the one in use, ends.
    fn read_node(&self) {
        let Some(file) = &self.node else {
            return;
        };
        match certificate_expires_ms(file) {
            Ok(expires_ms) => self.node_expires_ms.store(expires_ms, Relaxed),
            // The node itself has read it a moment ago, or is about to refuse it.
            Err(error) => tracing::warn!(%error, "it is not known when the certificate ends"),
        }
    }

    /// Takes replaced certificates into use at each SIGHUP and warns of those that end, at once and every day. Resolves
    /// when the signal means what it meant originally: the terminal this node was started from is gone.
    pub(super) async fn keep(&self, node: &Node, mut hangup: Signal) {
        let had_terminal = std::io::stdin().is_terminal();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            let received = tokio::select! {
                _ = look.tick() => {
                    self.warn();
                    continue;
                }
                received = hangup.recv() => received,
            };
            if received.is_none() {
                return std::future::pending().await;
            }
            if had_terminal && !std::io::stdin().is_terminal() {
                return;
            }
            self.reload(node);
            self.warn();
        }
    }

    fn reload(&self, node: &Node) {
        let mut all = true;
        match node.reload_certificates() {
            Ok(()) => self.read_node(),
            Err(error) => {
                all = false;
                tracing::error!(%error, "SIGHUP: towards other nodes the old certificate stays in use");
            }
        }
        if let Some(Err(error)) = self.http.as_deref().map(HttpTls::reload) {
            all = false;
            tracing::error!(%error, "SIGHUP: towards clients the old certificate stays in use");
        }
        if all {
            tracing::info!("SIGHUP: certificates were read again");
        }
    }

    fn warn(&self) {
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let node_ms = self.node_expires_ms.load(Relaxed);
        let http_ms = self.http.as_ref().map_or(0, |tls| tls.expires_ms());
        for (certificate, expires_ms, remedy) in [
            (
                "towards other nodes",
                node_ms,
                "run `scribe cluster renew`, then send SIGHUP",
            ),
            (
                "towards clients",
                http_ms,
                "replace the file of http_tls_cert, then send SIGHUP",
            ),
        ] {
            match days_left(expires_ms, now_ms) {
                Some(0) => {
                    tracing::error!(certificate, remedy, "a certificate has ended or ends today")
                }
                Some(days) => tracing::warn!(certificate, days, remedy, "a certificate ends soon"),
                None => {}
            }
        }
    }
}

/// Whole days until then, if they are few. 0 stands for no certificate.
fn days_left(expires_ms: u64, now_ms: u64) -> Option<u64> {
    let left_ms = expires_ms.saturating_sub(now_ms);
    (expires_ms > 0 && left_ms < WARN_MS).then_some(left_ms / DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_spoken_of_in_their_last_days() {
        let now_ms = 1_700_000_000_000;
        let check = |expires_ms, expected| assert_eq!(days_left(expires_ms, now_ms), expected);
        check(0, None);
        check(now_ms + 30 * DAY_MS, None);
        check(now_ms + 30 * DAY_MS - 1, Some(29));
        check(now_ms + DAY_MS, Some(1));
        check(now_ms + 1, Some(0));
        check(now_ms - 1, Some(0));
        check(1, Some(0));
    }
}
