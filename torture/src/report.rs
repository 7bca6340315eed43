//! What a run did and saw, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use crate::phases::{Kind, Report};
use crate::world::World;

/// Everything a run prints at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub phases: Vec<Report>,
    /// Why a fault could not be injected here.
    pub skipped: BTreeMap<Kind, String>,
    pub acknowledged: u64,
    /// Attempts whose outcome the client did not learn, and settled.
    pub unknown_outcomes: u64,
    pub linearizable_reads: u64,
    pub reads_refused: u64,
    pub entries_watched: u64,
    pub checkpoints: u64,
    pub violations: Vec<String>,
    /// Floors that were missed: the run does not count.
    pub floors_missed: Vec<String>,
    pub final_comparisons_s: f64,
    pub took_s: f64,
}

impl Summary {
    pub fn add(&mut self, report: Report) {
        self.phases.push(report);
    }

    pub fn skipped(&mut self, kind: Kind, why: &str) {
        if self.skipped.insert(kind, why.to_owned()).is_none() {
            eprintln!("!!! SKIPPED: {}: {why}", kind.name());
        }
    }

    pub fn is_skipped(&self, kind: Kind) -> bool {
        self.skipped.contains_key(&kind)
    }

    /// Takes in what the clients of a world saw.
    pub fn saw(&mut self, world: &World) {
        let shared = &world.load.shared;
        self.acknowledged += shared.record.acknowledged();
        self.unknown_outcomes += shared.unknown.load(Ordering::Relaxed);
        self.linearizable_reads += shared.reads.load(Ordering::Relaxed);
        self.reads_refused += shared.reads_refused.load(Ordering::Relaxed);
        self.entries_watched += shared.record.watched_size();
        self.checkpoints += shared.record.checkpoints() as u64;
        self.violations.extend(shared.record.violations());
    }

    pub fn compared(&mut self, took: Duration) {
        self.final_comparisons_s += took.as_secs_f64();
    }

    /// Faults of this kind that were injected.
    pub fn injected(&self, kind: Kind) -> u64 {
        self.of(kind).map(|report| report.outcome.injected).sum()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Report> {
        self.phases
            .iter()
            .filter(move |report| report.phase == kind)
    }

    /// Acknowledged writes per second of all phases of this kind; infinite if there were none.
    pub fn load_of(&self, kind: Kind) -> f64 {
        let acknowledged: u64 = self.of(kind).map(|report| report.acknowledged).sum();
        let seconds: f64 = self
            .of(kind)
            .map(|report| report.took_s - report.compared_s)
            .sum();
        if seconds == 0.0 {
            f64::INFINITY
        } else {
            acknowledged as f64 / seconds
        }
    }

    /// Notes a floor that was not reached.
    pub fn at_least(&mut self, what: &str, found: f64, floor: f64) {
        if found < floor {
            self.missed(format!(
                "{what}: {found:.0}, at least {floor:.0} are needed"
            ));
        }
    }

    pub fn missed(&mut self, what: String) {
        eprintln!("!!! FLOOR MISSED: {what}");
        self.floors_missed.push(what);
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let head = [
            "phase", "faults", "ack/s", "p50 s", "p99 s", "took s", "what",
        ];
        let _ = writeln!(
            text,
            "{:14} {:>6} {:>7} {:>6} {:>6} {:>7}  {}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6]
        );
        for report in &self.phases {
            let counts = report.outcome.counts.iter();
            let counts: Vec<String> = counts
                .map(|(what, number)| format!("{what} {number}"))
                .collect();
            let _ = writeln!(
                text,
                "{:14} {:>6} {:>7.0} {:>6.2} {:>6.2} {:>7.1}  {}",
                report.phase.name(),
                report.outcome.injected,
                report.acknowledged_per_s,
                report.unavailable_p50_s,
                report.unavailable_p99_s,
                report.took_s,
                counts.join(", ")
            );
        }
        for (kind, why) in &self.skipped {
            let _ = writeln!(text, "{:14} SKIPPED: {why}", kind.name());
        }
        let _ = writeln!(
            text,
            "\np50/p99: longest time without any acknowledged write, per event\n\
             {} writes acknowledged ({} attempts of unknown outcome, all settled), {} linearizable reads ({} refused), \
             {} entries watched, {} checkpoints\n\
             final comparisons and audits {:.1} s, all in all {:.1} s, seed {}",
            self.acknowledged,
            self.unknown_outcomes,
            self.linearizable_reads,
            self.reads_refused,
            self.entries_watched,
            self.checkpoints,
            self.final_comparisons_s,
            self.took_s,
            self.seed
        );
        for floor in &self.floors_missed {
            let _ = writeln!(text, "FLOOR MISSED: {floor}");
        }
        let _ = writeln!(text, "violations: {}", self.violations.len());
        for violation in &self.violations {
            let _ = writeln!(text, "VIOLATION: {violation}");
        }
        text
    }
}
