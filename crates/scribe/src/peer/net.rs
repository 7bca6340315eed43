//! The sockets between nodes: the operating system's, or, in the simulated world (feature `simulation`), turmoil's.

#[cfg(not(feature = "simulation"))]
pub use tokio::net::{TcpListener, TcpStream, lookup_host};
#[cfg(feature = "simulation")]
pub use turmoil::net::{TcpListener, TcpStream, lookup_host};
