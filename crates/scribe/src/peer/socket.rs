//! The TCP sockets between nodes: how they are connected, and their options.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::limits;

/// First keepalive probe after this long without data, and the pause between probes.
#[cfg(not(feature = "simulation"))]
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Bytes the kernel takes ahead of what it has sent. Left to itself it takes megabytes, and then nothing until a third of
/// them has left: on a link of 1 Mbit/s that is longer than a connection may stand still. Much less would cost wake-ups
/// on a fast one.
#[cfg(all(target_os = "linux", not(feature = "simulation")))]
const UNSENT_MAX: u32 = 256 * 1_024;

/// A simulated socket has no options.
#[cfg(feature = "simulation")]
pub(super) fn prepare(_stream: &TcpStream, _unacknowledged_max: Duration) {}

/// Frames are sent whole, so nothing is gained by the kernel waiting for more; and a host that vanished is noticed by
/// the kernel even while nothing is sent.
#[cfg(not(feature = "simulation"))]
pub(super) fn prepare(stream: &TcpStream, unacknowledged_max: Duration) {
    let set = || -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(stream, true)?;
        rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
        rustix::net::sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
        // Without it, a connection cut by a partition retransmits at growing intervals, and stays dead for long after
        // the partition has healed.
        #[cfg(target_os = "linux")]
        rustix::net::sockopt::set_tcp_user_timeout(
            stream,
            u32::try_from(unacknowledged_max.as_millis()).unwrap_or(u32::MAX),
        )?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX)?;
        #[cfg(not(target_os = "linux"))]
        let _ = unacknowledged_max;
        Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "an option of a socket could not be set");
    }
}

/// Connects to a host and port. A name may have several addresses, of which some lead nowhere: each gets `patience`, one
/// after another in the order the system gives them, and the first that accepts is taken.
///
/// # Errors
/// Why each address failed, for people.
pub(super) async fn connect(address: &str, patience: Duration) -> Result<TcpStream, String> {
    let found = match timeout(patience, lookup_host(address)).await {
        Ok(Ok(found)) => found.take(limits::PEER_ADDRESSES_MAX).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => {
            let ms = patience.as_millis();
            return Err(format!("its name was not looked up within {ms} ms"));
        }
    };
    connect_any(&found, patience).await
}

async fn connect_any(addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, String> {
    let mut failures = Vec::new();
    for address in addresses {
        let why = match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("did not accept within {} ms", patience.as_millis()),
        };
        // A plain address is named by the caller already.
        failures.push(match addresses {
            [_] => why,
            _ => format!("{address}: {why}"),
        });
    }
    match failures.is_empty() {
        true => Err("the name has no address".to_owned()),
        false => Err(failures.join("; ")),
    }
}

#[cfg(test)]
#[cfg(not(feature = "simulation"))]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that answers nothing, neither yes nor no: a listener whose queue is full.
    async fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(PATIENCE, TcpStream::connect(address)).await {
            waiting.push(stream.unwrap());
        }
        (listener, waiting, address)
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_is_silent_does_not_keep_the_next_from_being_tried() {
        let (_there, good) = listener().await;
        let (_full, _waiting, silent) = silent().await;
        let refusing = {
            let (gone, address) = listener().await;
            drop(gone);
            address
        };
        let stream = connect_any(&[refusing, silent, good], PATIENCE)
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);

        let why = connect_any(&[refusing, silent], PATIENCE)
            .await
            .unwrap_err();
        assert!(why.contains(&format!("{refusing}: ")), "{why}");
        assert!(
            why.contains(&format!("{silent}: did not accept within 300 ms")),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_whichever_address_listens_is_taken() {
        // It has one address or two, of which only the one of IPv4 listens.
        let (_there, good) = listener().await;
        let name = format!("localhost:{}", good.port());
        let stream = connect(&name, PATIENCE).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let why = connect("nowhere.invalid:1", PATIENCE).await.unwrap_err();
        assert!(!why.is_empty());
    }
}
