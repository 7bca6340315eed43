//! The real clock, which the simulation takes away from everybody else: asked of the kernel without libc.

use std::time::Duration;

/// A moment of real time.
#[derive(Debug, Clone, Copy)]
pub struct RealTime(Duration);

impl RealTime {
    /// Now.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}
