//! One place in the pool: a connection, the attempt to make one, or the pause after a failed attempt.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::CallError;
use super::connection::{Connection, Dial, Patience};
use super::pool::Target;

#[derive(Debug)]
enum State {
    Empty,
    /// An attempt runs in a task of its own, so that it outlives the caller who started it.
    Connecting(watch::Receiver<()>),
    Open(Arc<Connection>),
    /// After a failure: calls fail at once until this instant.
    Pausing(Instant, CallError),
    /// The pool has forgotten the target.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    address: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    failures: u32,
}

impl Slot {
    pub fn new(address: &str) -> Slot {
        Slot {
            address: address.to_owned(),
            inner: Mutex::new(Inner {
                state: State::Empty,
                failures: 0,
            }),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The standing connection; makes one if there is none, waits for one in the making, fails at once in a pause.
    pub async fn connection(
        self: &Arc<Self>,
        target: &Arc<Target>,
        dial: impl Fn() -> Dial,
        patience: Patience,
    ) -> Result<Arc<Connection>, CallError> {
        loop {
            let mut attempt = match self.step(target, &dial) {
                Ok(Step::Ready(connection)) => return Ok(connection),
                Ok(Step::Wait(attempt)) => attempt,
                Err(error) => return Err(error),
            };
            // An error means that the attempt is over, too.
            if patience.wait(attempt.changed()).await.is_none() {
                return Err(CallError::unreachable(format!(
                    "no connection to {} in time",
                    self.address
                )));
            }
        }
    }

    fn step(
        self: &Arc<Self>,
        target: &Arc<Target>,
        dial: &impl Fn() -> Dial,
    ) -> Result<Step, CallError> {
        let mut inner = self.inner.lock();
        match &inner.state {
            State::Gone => return Err(CallError::unreachable("the node was removed")),
            State::Connecting(attempt) => return Ok(Step::Wait(attempt.clone())),
            State::Pausing(until, error) if Instant::now() < *until => return Err(error.clone()),
            State::Open(connection) if connection.stands() => {
                return Ok(Step::Ready(Arc::clone(connection)));
            }
            State::Open(connection) => {
                let dial = dial();
                if !connection.proved(dial.timeouts.connect()) {
                    let error = CallError::unreachable(connection.reason());
                    inner.failures += 1;
                    let until = Instant::now() + dial.timeouts.backoff(inner.failures);
                    inner.state = State::Pausing(until, error.clone());
                    return Err(error);
                }
                inner.failures = 0;
            }
            State::Empty | State::Pausing(..) => {}
        }
        let (done, attempt) = watch::channel(());
        inner.state = State::Connecting(attempt.clone());
        drop(inner);
        let (slot, target, dial) = (Arc::clone(self), Arc::clone(target), dial());
        tokio::spawn(async move {
            let made = Connection::dial(&dial, &target.totals, Arc::clone(&target.open)).await;
            slot.settle(made, &target, &dial);
            drop(done);
        });
        Ok(Step::Wait(attempt))
    }

    fn settle(&self, made: Result<Connection, CallError>, target: &Target, dial: &Dial) {
        let mut inner = self.inner.lock();
        if matches!(inner.state, State::Gone) {
            return;
        }
        inner.state = match made {
            Ok(connection) => {
                target.opened();
                State::Open(Arc::new(connection))
            }
            Err(error) => {
                inner.failures += 1;
                let until = Instant::now() + dial.timeouts.backoff(inner.failures);
                tracing::debug!(address = self.address, lane = ?dial.lane, %error, "no connection to a node");
                State::Pausing(until, error)
            }
        };
    }

    /// Ends a pause: there is a sign that the node is back.
    pub fn retry_now(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.state, State::Pausing(..)) {
            inner.state = State::Empty;
            inner.failures = 0;
        }
    }

    /// Closes for good.
    pub fn close(&self, reason: &str) {
        let state = std::mem::replace(&mut self.inner.lock().state, State::Gone);
        if let State::Open(connection) = state {
            connection.close(reason);
        }
    }
}

enum Step {
    Ready(Arc<Connection>),
    Wait(watch::Receiver<()>),
}
