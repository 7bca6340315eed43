//! What a call between nodes costs on loopback: on a connection that stands, and with a new one for each call.
//!
//! `cargo bench -p scribe --bench peer [-- calls]`. Each row is one caller, one call at a time, then 64 callers on the
//! same connection. TLS is that of a cluster: version 1.3, certificates of its own CA on both sides.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use scribe::cluster::files::{ClusterFiles, create_cluster};
use scribe::consensus::PeerAddress;
use scribe::peer::{
    Handler, Lane, NodeId, PeerOptions, PeerTimeouts, Pool, RefusalCode, RemoteError, Request,
    Response, Security, Server, Wait,
};
use scribe::world::World;
use tokio::net::TcpListener;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Answers with what it was asked.
struct Echo;

impl Handler for Echo {
    fn admit(&self, _sender: NodeId) -> Result<(), (RefusalCode, String)> {
        Ok(())
    }

    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Response, RemoteError>> {
        Box::pin(async move { Ok(request.body.into()) })
    }

    fn body_length_max(&self, _lane: Lane, _kind: u8) -> usize {
        1 << 20
    }
}

const WAIT: Wait = Wait::Deadline(Duration::from_secs(10));

fn options(files: &ClusterFiles, tls: bool) -> Outcome<PeerOptions> {
    Ok(PeerOptions {
        cluster_id: files.cluster_id,
        node_id: files.node_id,
        security: if tls {
            Security::Tls(files.tls_identity()?)
        } else {
            Security::Plain
        },
        timeouts: PeerTimeouts::default(),
        forward_connections: 1,
    })
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Outcome<()> {
    let calls: usize = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(5_000);
    let directory = tempfile::tempdir()?;
    let home = |id: u64| directory.path().join(id.to_string());
    let members: BTreeMap<u64, PeerAddress> =
        (1..=2).map(|id| (id, PeerAddress::default())).collect();
    create_cluster(&members, None, &World::real(), home)?;
    println!(
        "{:>6} {:>12} {:>8} {:>9} {:>9} {:>12} {:>12}",
        "", "connection", "callers", "p50", "p99", "calls/s", "connections"
    );
    for tls in [false, true] {
        let files = |id: u64| -> Outcome<ClusterFiles> {
            Ok(ClusterFiles::load(&home(id))?.ok_or("no member")?)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = Server::start(listener, options(&files(1)?, tls)?, Arc::new(Echo)).await?;
        let pool = Pool::new(options(&files(2)?, tls)?);
        for (what, callers) in [("stands", 1), ("stands", 64), ("new", 1)] {
            let before = server.stats().accepted;
            let mut latencies = Vec::with_capacity(calls);
            let rounds = if what == "new" { calls / 10 } else { calls };
            let started = Instant::now();
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let (pool, address) = (pool.clone(), address.clone());
                    tokio::spawn(async move {
                        let mut latencies = Vec::new();
                        for _ in 0..rounds {
                            let body = vec![Bytes::from_static(&[7; 256])];
                            let asked = Instant::now();
                            pool.call(1, &address, Lane::Control, 1, body, WAIT).await?;
                            latencies.push(asked.elapsed());
                            if what == "new" {
                                pool.forget(1);
                            }
                        }
                        Ok::<_, scribe::peer::CallError>(latencies)
                    })
                })
                .collect();
            for task in tasks {
                latencies.extend(task.await??);
            }
            let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
            latencies.sort();
            let at = |share: usize| latencies[latencies.len() * share / 100].as_micros();
            println!(
                "{:>6} {what:>12} {callers:>8} {:>6} us {:>6} us {rate:>12.0} {:>12}",
                if tls { "TLS" } else { "plain" },
                at(50),
                at(99),
                server.stats().accepted - before
            );
        }
        server.shutdown().await;
    }
    Ok(())
}
