//! Work that is done side by side and taken in in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::AuditError;

/// Makes pieces 0 to `count` - 1 with as many threads as there are processors, and takes them in on this thread, in
/// order. No thread is more than a few pieces ahead, so that memory stays bounded.
///
/// # Errors
/// The first error in order, of `make` or of `take`; nothing behind it is taken in.
pub(super) fn in_order<T: Send>(
    count: u64,
    make: impl Fn(u64) -> Result<T, AuditError> + Sync,
    mut take: impl FnMut(u64, T) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    // How many were taken in.
    let (taken, changed) = (Mutex::new(0), Condvar::new());
    thread::scope(|scope| {
        let (sender, made) = mpsc::channel();
        for _ in 0..workers.min(count) {
            let sender = sender.clone();
            scope.spawn({
                let (next, stop, taken, changed, make) = (&next, &stop, &taken, &changed, &make);
                move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        let mut done = taken.lock();
                        while number > *done + 2 * workers && !stop.load(Ordering::Acquire) {
                            changed.wait(&mut done);
                        }
                        drop(done);
                        if stop.load(Ordering::Acquire)
                            || sender.send((number, make(number))).is_err()
                        {
                            return;
                        }
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut take_all = || {
            for at in 0..count {
                let piece = loop {
                    if let Some(piece) = early.remove(&at) {
                        break piece;
                    }
                    let Ok((number, piece)) = made.recv() else {
                        return Err(AuditError::Unexpected(
                            "a thread of the audit stopped".into(),
                        ));
                    };
                    early.insert(number, piece);
                };
                take(at, piece?)?;
                *taken.lock() += 1;
                changed.notify_all();
            }
            Ok(())
        };
        let outcome = take_all();
        stop.store(true, Ordering::Release);
        // Under the lock: a worker between its look at `stop` and its wait must not miss it.
        drop(taken.lock());
        changed.notify_all();
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    #[test]
    fn pieces_come_in_order_and_the_first_error_ends_it() {
        let mut seen = Vec::new();
        in_order(1_000, Ok, |at, piece| {
            assert_eq!(at, piece);
            seen.push(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, (0..1_000).collect::<Vec<_>>());

        let bad = |at: u64| match at {
            // A later piece fails sooner; the earlier one is what counts.
            40..=60 => Err(Finding::new("x", at.to_string()).into()),
            _ => Ok(at),
        };
        let mut last = 0;
        let error = in_order(1_000, bad, |at, _| {
            last = at;
            Ok(())
        })
        .unwrap_err();
        assert_eq!((error.to_string().as_str(), last), ("x: 40", 39));
        in_order(0, Ok, |_, _: u64| Ok(())).unwrap();
    }
}
