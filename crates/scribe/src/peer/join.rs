//! The one call of a node that has no certificate yet: it asks a member for one.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Dial, Patience};
use super::frame::Totals;
use super::{CallError, Lane, PeerTimeouts, RefusalCode, tls};

/// How long the member may be at work without saying so.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Asks whichever node of the cluster answers at the address, over TLS. It is believed only if its certificate was
/// signed by the CA with this fingerprint, which came with the join token; the request may therefore carry the
/// token's secret.
pub async fn join_call(
    address: &str,
    ca_fingerprint: [u8; 32],
    kind: u8,
    body: Bytes,
    timeouts: &PeerTimeouts,
) -> Result<Bytes, CallError> {
    let config = tls::joining(ca_fingerprint).map_err(|error| CallError::Refused {
        code: RefusalCode::Tls,
        text: error.to_string(),
    })?;
    // The name is sent and not compared; a node answers to its address here.
    let name = "join.scribe.internal".to_owned();
    call(address, Some((config, name)), kind, body, timeouts).await
}

/// The same in a cluster without TLS: nobody is checked, and the secret can be read on the way.
pub async fn join_call_plain(
    address: &str,
    kind: u8,
    body: Bytes,
    timeouts: &PeerTimeouts,
) -> Result<Bytes, CallError> {
    call(address, None, kind, body, timeouts).await
}

async fn call(
    address: &str,
    tls: Option<(Arc<rustls::ClientConfig>, String)>,
    kind: u8,
    body: Bytes,
    timeouts: &PeerTimeouts,
) -> Result<Bytes, CallError> {
    let dial = Dial {
        address: address.to_owned(),
        tls,
        lane: Lane::Join,
        cluster_id: [0; 16],
        sender: 0,
        target: None,
        timeouts: timeouts.clone(),
    };
    let open = Arc::new(AtomicU64::new(0));
    let connection = Connection::dial(&dial, &Arc::new(Totals::default()), open).await?;
    connection
        .call(kind, vec![body], Patience::Progress(ANSWER_WAIT))
        .await
}
