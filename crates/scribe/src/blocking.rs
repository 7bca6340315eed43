//! Work that waits for a disk, kept off the tasks that serve others.
//!
//! In the simulated world (feature `simulation`) there is no thread but one, and the work is done where it is asked for.

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
