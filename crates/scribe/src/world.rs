//! The world outside, as two handles: what time it is, and random bytes.
//!
//! Everything that needs a wall clock or randomness takes these handles, so that a simulated world can replace both.
//! Monotonic timers are tokio's, which a simulation replaces as a whole.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore;

/// Wall clock and randomness. Cheap to clone.
#[derive(Debug, Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// A wall clock. It may jump in either direction; the ledger's timestamps never go back all the same.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;
}

/// A source of random bytes fit for salts and identifiers.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

/// A cryptographic generator seeded by the operating system, one per thread.
#[derive(Debug, Clone, Copy)]
pub struct SystemEntropy;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970: timestamps only have to be monotonic, and the last applied one wins.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_millis() as u64)
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        rand::rng().fill_bytes(out);
    }
}

impl World {
    /// The real world.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// A world of the caller's making.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.entropy.fill(&mut out);
        out
    }
}
