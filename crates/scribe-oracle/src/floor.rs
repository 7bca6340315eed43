//! How far the ledger had come when something began: real time, kept as events arrive.

use crate::event::{Moment, OperationId};

/// A place that is known to have been reached, and the operation that showed it. Places are those of
/// [`places`](crate::places).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: u64,
    pub(crate) by: Option<OperationId>,
}

/// The furthest place of what has returned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floor {
    /// Of what returned before `at`: what begins at `at` overlaps whatever returns at `at`.
    before: Mark,
    /// Of what returned until now.
    now: Mark,
    at: Moment,
}

impl Floor {
    /// What had returned before the moment `at`.
    pub(crate) fn at(&mut self, at: Moment) -> Mark {
        self.move_to(at);
        self.before
    }

    /// An operation returned at `at`, and the ledger had come to `place`.
    pub(crate) fn raise(&mut self, at: Moment, place: u64, by: OperationId) {
        self.move_to(at);
        if place > self.now.place {
            self.now = Mark {
                place,
                by: Some(by),
            };
        }
    }

    fn move_to(&mut self, at: Moment) {
        if at > self.at {
            self.before = self.now;
            self.at = at;
        }
    }
}
