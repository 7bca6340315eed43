//! What a judge looked at: so that a run in which nothing happened cannot pass for one in which all was well.

use std::fmt;

/// Defines the counts once, so that none is forgotten where they are shown or compared.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How much was checked, by kind. [`Checked::at_least`] compares with floors.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Checked {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Checked {
            /// Every count with its name.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// The counts of these names, as [`Checked::counts`] has them; 0 where there is none.
            pub fn of(count: impl Fn(&str) -> Option<u64>) -> Self {
                Self { $($name: count(stringify!($name)).unwrap_or_default(),)* }
            }

            /// Every count changed in one way: a floor that grows with the length of a run.
            pub fn map(self, change: impl Fn(u64) -> u64) -> Self {
                Self { $($name: change(self.$name),)* }
            }
        }
    };
}

counts! {
    /// Operations begun.
    operations,
    /// Writes acknowledged, each once.
    acknowledged,
    /// Further acknowledgements of the same write, under its idempotency key.
    replayed,
    /// Writes of which no attempt was appended, and none may be.
    refused,
    /// Writes of unknown outcome that are in the ledger.
    unknown_appended,
    /// Writes of unknown outcome that are not in the ledger.
    unknown_not_appended,
    /// Attempts refused because a condition did not hold.
    conditions_failed,
    /// Conditions of appended writes that were found to hold.
    conditions_held,
    /// Linearizable reads answered.
    linearizable_reads,
    /// Stale reads, and reads of a state in the past, answered.
    stale_reads,
    /// Versions, or their absence, that reads saw.
    versions_read,
    /// Operations whose place in the ledger was compared with real time.
    placed,
    /// Entries seen one by one: in lists, by their index.
    entries_seen,
    /// Whole ledgers compared in the end.
    ledgers,
    /// Entries of these.
    ledger_entries,
    /// Checkpoints and signed heads seen.
    checkpoints,
    /// Pairs of checkpoints thereby shown to be consistent: each one with each.
    checkpoint_pairs,
    /// Node states seen.
    node_states,
    /// Root hashes, of checkpoints and of states, compared with the tree over all entries.
    roots,
    /// Starts of nodes.
    starts,
    /// Watches.
    watches,
    /// Entries they told of.
    watch_events,
    /// Sealed segments seen.
    segments,
    /// Those of them that were seen before, on another node or at another time.
    segments_compared,
}

impl Checked {
    /// Compares with the least that must have been checked; counts that are 0 in `floors` are not asked for.
    ///
    /// # Errors
    /// Every count below its floor, in words.
    pub fn at_least(&self, floors: &Checked) -> Result<(), String> {
        let below: Vec<String> = self
            .counts()
            .zip(floors.counts())
            .filter(|((_, count), (_, floor))| count < floor)
            .map(|((name, count), (_, floor))| format!("{name} {count}, at least {floor}"))
            .collect();
        if below.is_empty() {
            Ok(())
        } else {
            Err(format!("too little was checked: {}", below.join("; ")))
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.counts().filter(|(_, count)| *count > 0);
        for (number, (name, count)) in counted.enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{} {count}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
