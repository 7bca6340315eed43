//! Work that waits for a disk, kept off the tasks that serve others.
//!
//! In the simulated world (feature `simulation`) there is no thread but one, and the work is done where it is asked for.

use std::io;

use tokio::task::JoinError;

/// Does the work on a thread that may wait.
///
/// # Errors
/// The work panicked, or the runtime is shutting down.
#[cfg(not(feature = "simulation"))]
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// As [`run`], for file work: one outcome, whether the file or the thread failed.
///
/// # Errors
/// What the work says; that it panicked, or that the runtime is shutting down.
pub(crate) async fn io<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    run(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Does the work at once.
///
/// # Errors
/// None: a panic ends the simulation.
#[cfg(feature = "simulation")]
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // Others may come in between, as they may while a thread works.
    tokio::task::yield_now().await;
    Ok(work())
}
