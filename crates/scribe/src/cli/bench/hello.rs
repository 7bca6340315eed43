//! A server that does nothing: what HTTP itself costs on this machine, with this generator.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;

use super::super::output::Failure;

/// What a write is answered: as long as the node's own answer.
const WRITTEN: &str = r#"{"index":1234567,"timestamp_ms":1700000000000,"leaf_hash":"0000000000000000000000000000000000000000000000000000000000000000","tree_size":1234568}"#;
/// What a bulk upload is answered.
const BULK_DONE: &str = "{\"done\":true,\"lines\":0,\"failed\":0}\n";

/// Starts it on a free port, on threads of its own, for as long as the program runs. Reads answer `value_bytes` bytes.
pub(super) fn start(value_bytes: usize) -> Result<SocketAddr, Failure> {
    let failed =
        |error: std::io::Error| Failure::unexpected(format!("cannot start a server: {error}"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let value = Bytes::from(vec![b'x'; value_bytes]);
    let write = |body: Bytes| async move {
        drop(body);
        WRITTEN
    };
    let bulk = |body: Bytes| async move {
        drop(body);
        BULK_DONE
    };
    let read = move || std::future::ready(value.clone());
    let router = Router::new()
        .route("/v1/keys/{key}", get(read).put(write).post(write))
        .route("/v1/entries", post(bulk))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::Builder::new()
        .name("hello".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                let listener = listener.tap_io(|stream| {
                    // Without it answers only come later; the measurement shows it.
                    let _ = stream.set_nodelay(true);
                });
                let _ = axum::serve(listener, router).await;
            });
        })
        .map_err(failed)?;
    Ok(address)
}
