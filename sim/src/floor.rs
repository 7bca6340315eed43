//! The least that a run of many seeds must hold. A run in which nothing was broken, or nothing was looked at, has not shown
//! that all is well: it does not pass.
//!
//! Floors are about a fifth of what 20 seeds had, and grow with the simulated time. They are not asked of a run of less than
//! [`MINUTES_MIN`]: a seed has only half of the kinds of faults, so that one alone may well be without partitions.

use std::collections::BTreeMap;
use std::fmt;

use scribe_oracle::Checked;

use crate::options::Fault;

/// Simulated minutes from which on floors are asked for.
pub const MINUTES_MIN: u64 = 5;

/// What must be checked in ten simulated minutes.
const CHECKED: Checked = Checked {
    operations: 4_000,
    acknowledged: 2_000,
    replayed: 20,
    refused: 300,
    conditions_failed: 300,
    conditions_held: 60,
    linearizable_reads: 1_500,
    versions_read: 1_500,
    placed: 4_000,
    entries_seen: 20_000,
    ledgers: 20,
    ledger_entries: 6_000,
    checkpoints: 3_000,
    checkpoint_pairs: 100_000,
    node_states: 2_000,
    roots: 400,
    watches: 5,
    watch_events: 2_000,
    segments: 300,
    segments_compared: 200,
    stale_reads: 200,
    // Outcomes that stay unknown come as they come; starts follow the faults below.
    unknown_appended: 0,
    unknown_not_appended: 0,
    starts: 0,
};

/// What happened in a run, in sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// Power cuts of one node, those among the next included.
    pub power_cuts: u64,
    /// Times that several nodes lost their power at once.
    pub power_cuts_of_many: u64,
    /// Processes killed.
    pub kills: u64,
    /// Partitions, also in one direction.
    pub partitions: u64,
    /// Refused operations, full disks, slow disks and flipped bits.
    pub disk_faults: u64,
    /// Leaders after the first of each seed.
    pub leader_changes: u64,
    /// Members that joined, were promoted, removed or replaced.
    pub membership_changes: u64,
    /// Times that a node was seen to fetch sealed segments because it lacked more than the others' logs hold.
    pub segments_caught_up: u64,
}

impl Happened {
    /// The sums of `seeds` seeds.
    pub fn of(totals: &BTreeMap<String, u64>, seeds: u64) -> Self {
        let sum =
            |names: &[&str]| -> u64 { names.iter().filter_map(|name| totals.get(*name)).sum() };
        Self {
            power_cuts: sum(&["power_cuts"]),
            power_cuts_of_many: sum(&["power_cuts_of_many"]),
            kills: sum(&["kills"]),
            partitions: sum(&["partitions"]),
            disk_faults: sum(&["disk_errors", "disks_full", "slow_disks", "bit_flips"]),
            leader_changes: sum(&["leaders"]).saturating_sub(seeds),
            membership_changes: sum(&[
                "machines_joined",
                "members_promoted",
                "members_removed",
                "members_replaced",
            ]),
            segments_caught_up: sum(&["segments_caught_up"]),
        }
    }

    /// Each sum with its name, what there must be of it in ten simulated minutes, and the kinds of faults it takes.
    fn floors(&self) -> [(&'static str, u64, u64, &'static [Fault]); 6] {
        use Fault::{
            BitFlips, DiskError, DiskFull, IsolateLeader, Kill, KillMany, Membership, OneWay,
            Partition, PartitionLossy, PowerCut, PowerCutInside, PowerCutMany, SlowDisk,
        };
        let crashes = self.power_cuts + self.kills;
        [
            (
                "crashes",
                crashes,
                40,
                &[PowerCut, PowerCutMany, PowerCutInside, Kill, KillMany],
            ),
            (
                "partitions",
                self.partitions,
                10,
                &[Partition, PartitionLossy, OneWay, IsolateLeader],
            ),
            (
                "disk faults",
                self.disk_faults,
                20,
                &[DiskError, DiskFull, SlowDisk, BitFlips],
            ),
            (
                "leader changes",
                self.leader_changes,
                20,
                &[Kill, KillMany, PowerCut, PowerCutMany, IsolateLeader],
            ),
            (
                "changes of the membership",
                self.membership_changes,
                6,
                &[Membership],
            ),
            (
                "nodes that caught up by sealed segments",
                self.segments_caught_up,
                2,
                &[Membership],
            ),
        ]
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crashes {} (power cuts {}, kills {}; {} times power cuts of several nodes at once), partitions {}, disk \
             faults {}, leader changes {}, changes of the membership {}, nodes caught up by sealed segments {}",
            self.power_cuts + self.kills,
            self.power_cuts,
            self.kills,
            self.power_cuts_of_many,
            self.partitions,
            self.disk_faults,
            self.leader_changes,
            self.membership_changes,
            self.segments_caught_up
        )
    }
}

/// Compares the sums of a run with the floors. `asked` are the kinds of faults it was to have: all if `None`.
///
/// # Errors
/// Everything that is below its floor, in words.
pub fn check(
    totals: &BTreeMap<String, u64>,
    seeds: u64,
    simulated_ms: u64,
    asked: Option<&[Fault]>,
) -> Result<(), String> {
    if simulated_ms < MINUTES_MIN * 60_000 {
        return Ok(());
    }
    let grown = |in_ten_minutes: u64| in_ten_minutes * simulated_ms / 600_000;
    let checked = Checked::of(|name| totals.get(&format!("checked_{name}")).copied());
    let mut below: Vec<String> = Vec::new();
    below.extend(checked.at_least(&CHECKED.map(grown)).err());
    for (name, count, in_ten_minutes, kinds) in Happened::of(totals, seeds).floors() {
        // A run that was to have a few kinds only has many of these.
        let wanted = asked.is_none_or(|asked| kinds.iter().all(|kind| asked.contains(kind)));
        let floor = grown(in_ten_minutes);
        if wanted && count < floor {
            below.push(format!("too few {name}: {count}, at least {floor}"));
        }
    }
    match below.is_empty() {
        true => Ok(()),
        false => Err(below.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 10;
    const SIMULATED_MS: u64 = 600_000;

    /// A run that is just above every floor.
    fn enough() -> BTreeMap<String, u64> {
        let mut totals: BTreeMap<String, u64> = CHECKED
            .counts()
            .map(|(name, count)| (format!("checked_{name}"), count))
            .collect();
        for (name, count) in [
            ("power_cuts", 20),
            ("kills", 20),
            ("partitions", 10),
            ("disk_errors", 10),
            ("bit_flips", 10),
            ("leaders", 20 + SEEDS),
            ("members_replaced", 6),
            ("segments_caught_up", 2),
        ] {
            totals.insert(name.to_owned(), count);
        }
        totals
    }

    fn said(totals: &BTreeMap<String, u64>) -> String {
        check(totals, SEEDS, SIMULATED_MS, None).unwrap_err()
    }

    #[test]
    fn a_run_above_every_floor_passes_and_one_below_any_does_not() {
        let totals = enough();
        assert_eq!(check(&totals, SEEDS, SIMULATED_MS, None), Ok(()));
        for (name, count) in totals.iter().filter(|(_, count)| **count > 0) {
            let mut fewer = totals.clone();
            fewer.insert(name.clone(), count - 1);
            let said = said(&fewer);
            assert!(
                said.contains(&(count - 1).to_string()) || said.contains("too few"),
                "{said}"
            );
            fewer.remove(name);
            assert!(check(&fewer, SEEDS, SIMULATED_MS, None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_run_without_any_fault_says_what_is_missing() {
        let mut totals = enough();
        totals.retain(|name, _| name.starts_with("checked_"));
        let said = said(&totals);
        for name in [
            "crashes",
            "partitions",
            "disk faults",
            "leader changes",
            "changes of the membership",
        ] {
            assert!(said.contains(&format!("too few {name}: 0")), "{said}");
        }
        // It was asked for.
        for asked in [&[Fault::ClockJump][..], &[]] {
            assert_eq!(check(&totals, SEEDS, SIMULATED_MS, Some(asked)), Ok(()));
        }
        totals.remove("checked_acknowledged");
        assert!(check(&totals, SEEDS, SIMULATED_MS, Some(&[])).is_err());
    }

    #[test]
    fn floors_grow_with_time_and_begin_after_some() {
        let totals = enough();
        let twice = check(&totals, SEEDS, 2 * SIMULATED_MS, None).unwrap_err();
        assert!(
            twice.contains("acknowledged 2000, at least 4000"),
            "{twice}"
        );
        assert_eq!(check(&BTreeMap::new(), 1, 60_000, None), Ok(()));
        assert!(check(&BTreeMap::new(), 5, 300_000, None).is_err());
    }
}
