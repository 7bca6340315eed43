//! What a seed draws before anything runs: how many nodes, how fast network and disks are, what clients do, which faults
//! there are. Every value is one a real cluster may have; half of the kinds of faults are left out of each run, because
//! many at once hide what each of them finds.

use std::fmt;

use crate::chance::Chance;

/// Machines that can join in one run.
const SPARES: u64 = 6;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Power cut of one node: unsynced writes are lost or torn.
    PowerCut,
    /// Power cut of several nodes, often all, at one moment.
    PowerCutMany,
    /// Power cut in the middle of a few disk operations.
    PowerCutInside,
    /// The process is killed; what was written stays.
    Kill,
    /// The processes of several nodes are killed.
    KillMany,
    /// Two groups of nodes do not hear each other; what is sent arrives after.
    Partition,
    /// Two groups do not hear each other; what is sent is lost.
    PartitionLossy,
    /// One direction between two nodes is lost.
    OneWay,
    /// The leader hears nobody.
    IsolateLeader,
    /// A few messages in a thousand are lost.
    Loss,
    /// Messages take much longer.
    Delay,
    /// Syncs take up to a second.
    SlowDisk,
    /// A write, sync, rename or directory sync fails.
    DiskError,
    /// The disk is full for a while.
    DiskFull,
    /// Bits of files change while the node is down, on a minority of the nodes.
    BitFlips,
    /// What a sync writes goes to the wrong place, and the power goes soon after, on a minority of the nodes. Only if it is
    /// asked for: see [`Fault::is_drawn`].
    Misdirect,
    /// A wall clock jumps by up to an hour.
    ClockJump,
    /// Leadership is handed to another node.
    Transfer,
    /// A new machine joins, a member is promoted, removed or replaced.
    Membership,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::PowerCut,
        Self::PowerCutMany,
        Self::PowerCutInside,
        Self::Kill,
        Self::KillMany,
        Self::Partition,
        Self::PartitionLossy,
        Self::OneWay,
        Self::IsolateLeader,
        Self::Loss,
        Self::Delay,
        Self::SlowDisk,
        Self::DiskError,
        Self::DiskFull,
        Self::BitFlips,
        Self::Misdirect,
        Self::ClockJump,
        Self::Transfer,
        Self::Membership,
    ];

    /// Whether seeds draw it. A disk that says a sync is done, and did it elsewhere, may lose what its node wrote last
    /// without a trace, and with it what was acknowledged: no seed may fail for what is not promised.
    pub const fn is_drawn(self) -> bool {
        !matches!(self, Self::Misdirect)
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerCut => "power-cut",
            Self::PowerCutMany => "power-cut-many",
            Self::PowerCutInside => "power-cut-inside",
            Self::Kill => "kill",
            Self::KillMany => "kill-many",
            Self::Partition => "partition",
            Self::PartitionLossy => "partition-lossy",
            Self::OneWay => "one-way",
            Self::IsolateLeader => "isolate-leader",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::SlowDisk => "slow-disk",
            Self::DiskError => "disk-error",
            Self::DiskFull => "disk-full",
            Self::BitFlips => "bit-flips",
            Self::Misdirect => "misdirect",
            Self::ClockJump => "clock-jump",
            Self::Transfer => "transfer",
            Self::Membership => "membership",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything below and everything that happens.
    pub seed: u64,
    /// How long the phase with faults takes, simulated seconds.
    pub seconds: u64,
    /// Nodes of the beginning, all of them voters.
    pub nodes: u64,
    /// Machines that can join later.
    pub spares: u64,
    /// Step of the network, milliseconds.
    pub tick_ms: u64,
    /// Whether nodes get their turns in an order of chance.
    pub random_order: bool,
    /// Longest time of a message, milliseconds.
    pub message_ms_max: u64,
    /// Longest time of a disk operation, microseconds.
    pub disk_us_max: u64,
    /// Clients.
    pub clients: u64,
    /// Keys they write to.
    pub keys: u64,
    /// Longest value, bytes.
    pub value_length_max: u64,
    /// Longest pause of a client between operations, milliseconds.
    pub think_ms_max: u64,
    /// Size of a segment, bytes.
    pub segment_bytes_max: u64,
    /// Leaves of a segment.
    pub segment_leaves_max: u64,
    /// Pause between checkpoints, milliseconds.
    pub publish_interval_ms: u64,
    /// Wall clocks differ by up to so much at the start, milliseconds.
    pub skew_ms_max: u64,
    /// Mean time between faults, milliseconds.
    pub fault_every_ms: u64,
    /// Kinds of faults.
    pub faults: Vec<Fault>,
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64, seconds: u64, nodes: Option<u64>, only: &[Fault]) -> Self {
        let mut chance = Chance::new(seed, "options");
        let drawn_nodes = *chance.pick(&[3, 3, 3, 3, 5, 5, 5, 7]);
        let faults = Fault::ALL
            .into_iter()
            .filter(|fault| fault.is_drawn() && chance.percent(50))
            .collect();
        Self {
            seed,
            seconds,
            nodes: nodes.unwrap_or(drawn_nodes),
            spares: SPARES,
            tick_ms: *chance.pick(&[1, 2, 2, 4]),
            random_order: chance.percent(50),
            message_ms_max: *chance.pick(&[2, 5, 20, 60]),
            disk_us_max: *chance.pick(&[200, 2_000, 10_000, 40_000]),
            clients: chance.between(3..=12),
            keys: *chance.pick(&[2, 5, 20]),
            value_length_max: *chance.pick(&[32, 200, 3_000]),
            think_ms_max: *chance.pick(&[10, 50, 200]),
            segment_bytes_max: *chance.pick(&[16, 32, 64]) * 1_024,
            segment_leaves_max: *chance.pick(&[24, 80, 300]),
            publish_interval_ms: *chance.pick(&[50, 300, 1_000]),
            skew_ms_max: *chance.pick(&[0, 100, 60_000]),
            fault_every_ms: *chance.pick(&[700, 1_500, 4_000]),
            faults: if only.is_empty() {
                faults
            } else {
                only.to_vec()
            },
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
