//! Options of the TCP sockets between nodes.

use std::time::Duration;

use tokio::net::TcpStream;

/// First keepalive probe after this long without data, and the pause between probes.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Frames are sent whole, so nothing is gained by the kernel waiting for more; and a host that vanished is noticed by
/// the kernel even while nothing is sent.
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
        #[cfg(not(target_os = "linux"))]
        let _ = unacknowledged_max;
        Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "an option of a socket could not be set");
    }
}
