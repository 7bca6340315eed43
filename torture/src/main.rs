//! `scribe-torture`: three nodes of the real release binary under real faults, and a judge of what became of what their
//! clients were promised.
//!
//! It is no simulation: processes, namespaces, file systems, signals. So a run does not replay; its seed decides which
//! faults come in which order, and the machine decides the rest. What it needs (root, Linux, iproute2, nftables,
//! e2fsprogs, strace, python3, libfaketime, libeatmydata) is tried before it is relied on.

mod cluster;
mod damage;
mod disk;
mod host;
mod lane;
mod load;
mod network;
mod node;
mod phases;
mod probe;
mod record;
mod report;
mod slow;
mod trouble;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::host::Workshop;
use crate::lane::{Bench, Episode};
use crate::network::Network;
use crate::phases::Kind;
use crate::report::Summary;
use crate::trouble::{Result, Trouble};

/// Places in the network: three nodes, one that joins, and one to spare.
const PLACES: u64 = 5;

/// Torture three nodes of the real binary, and judge them by what their clients were promised
///
/// Every node is a process in a network namespace and on an ext4 image of its own. Clients write and read through all of
/// them while faults are injected, and settle whatever a fault left open. After each phase everything that was ever
/// acknowledged must be in its place, unchanged, through every node; every checkpoint ever shown must be of the same
/// history; at the end `scribe audit` reads every byte of every node.
///
/// A run counts only if it reached its floors: the faults it was to inject, and the load it was to hold.
#[derive(Debug, Parser)]
#[command(
    name = "scribe-torture",
    version,
    after_help = "Exit codes: 0 held, 1 a floor was missed or a fault could not be injected, 2 the harness failed, 3 a promise was broken

Example: what a release must survive, in a quarter of an hour
  $ cargo build --release -p scribe -p scribe-torture
  $ sudo target/release/scribe-torture run --lane short

Example: whether the harness would notice (nodes that do not sync must lose writes)
  $ sudo target/release/scribe-torture control

Example: one kind of fault alone
  $ sudo target/release/scribe-torture run --phase power-cut --count 5"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Inject faults and judge
    Run(Run),
    /// Cut the power of nodes that do not sync: the run succeeds if lost writes are found
    Control(Control),
    /// Try every fault on something small and say which can be injected here
    Probe(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// The binary to torture
    #[arg(long, value_name = "FILE", default_value_os_t = default_binary())]
    bin: PathBuf,
    /// Where the nodes' disks are put; up to some gigabytes are used
    #[arg(long, value_name = "DIR", default_value_os_t = lane::default_directory())]
    dir: PathBuf,
    /// Decides the order of the faults; a random one if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Clients that write, each through one node
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Args)]
struct Run {
    /// The phases of a lane, with its floors
    #[arg(long, conflicts_with = "phase", required_unless_present = "phase")]
    lane: Option<Lane>,
    /// How long the long lane goes on
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// One phase alone; can be repeated
    #[arg(long, value_name = "NAME")]
    phase: Vec<Kind>,
    /// Faults to inject in each of these
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: u64,
    /// Faults that cannot be injected here do not make the run invalid
    #[arg(long)]
    allow_skips: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Control {
    /// Power cuts within which lost writes must be found
    #[arg(long, value_name = "N", default_value_t = 5)]
    cuts: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lane {
    /// A fixed list of phases, at most 15 minutes
    Short,
    /// Random phases on one new cluster after the other
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs: one JSON object
    Json,
}

/// The `scribe` beside this program, where cargo puts both.
fn default_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("scribe")
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.verb {
        Verb::Probe(common) => on_bench(&common, false, async |bench| Ok(print_probes(&bench))),
        Verb::Control(Control { cuts, common }) => {
            on_bench(&common, false, async move |mut bench| {
                Ok(match bench.control(cuts).await? {
                    Some((cut, what)) => {
                        println!(
                            "the control fails as it must: found after {cut} power cuts without syncs: {what}"
                        );
                        ExitCode::SUCCESS
                    }
                    None => {
                        println!(
                            "{cuts} power cuts without syncs, and nothing was found: this harness finds nothing"
                        );
                        ExitCode::from(3)
                    }
                })
            })
        }
        Verb::Run(run) => {
            let (allow_skips, format) = (run.allow_skips, run.common.output);
            let common = Common { ..run.common };
            let (lane, minutes, phases, count) = (run.lane, run.minutes, run.phase, run.count);
            on_bench(&common, allow_skips, async move |bench| {
                torture(bench, lane, minutes, phases, count, format).await
            })
        }
    };
    match ended {
        Ok(code) => code,
        Err(trouble) => {
            eprintln!("{trouble}");
            match trouble {
                Trouble::Violation(_) => ExitCode::from(3),
                Trouble::Harness(_) => ExitCode::from(2),
            }
        }
    }
}

/// Makes a network and a directory, and runs this where the clients are.
fn on_bench<F>(common: &Common, allow_skips: bool, what: F) -> Result<ExitCode>
where
    F: AsyncFnOnce(Bench) -> Result<ExitCode> + Send + 'static,
{
    if !common.bin.is_file() {
        return Err(Trouble::Harness(format!(
            "{} is not there; hint: cargo build --release -p scribe, or say --bin FILE",
            common.bin.display()
        )));
    }
    let network = Network::new(PLACES).map_err(|trouble| {
        Trouble::Harness(format!(
            "{trouble}; hint: namespaces need root, iproute2 and nftables, and nothing runs without"
        ))
    })?;
    let bench = Bench {
        network: Arc::new(network),
        workshop: Workshop::new(&common.dir)?,
        binary: common.bin.canonicalize()?,
        writers: common.writers,
        seed: common.seed.unwrap_or_else(rand::random),
        allow_skips,
    };
    eprintln!(
        "seed {}, {}, in {}",
        bench.seed,
        bench.binary.display(),
        bench.workshop.path().display()
    );
    // A thread of its own, and the runtime's threads with it, live where the clients are.
    let there = std::thread::spawn(move || -> Result<ExitCode> {
        bench.network.enter_hub()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut told = signal(SignalKind::terminate())?;
            tokio::select! {
                ended = what(bench) => ended,
                _ = tokio::signal::ctrl_c() => Err(Trouble::Harness("interrupted".into())),
                _ = told.recv() => Err(Trouble::Harness("told to end".into())),
            }
        })
    });
    there
        .join()
        .unwrap_or_else(|_| Err(Trouble::Harness("it panicked".into())))
}

async fn torture(
    mut bench: Bench,
    lane: Option<Lane>,
    minutes: u64,
    phases: Vec<Kind>,
    count: u64,
    format: Format,
) -> Result<ExitCode> {
    let began = Instant::now();
    let mut summary = Summary {
        seed: bench.seed,
        ..Summary::default()
    };
    let ended = match lane {
        Some(Lane::Short) => bench.short(&mut summary).await,
        Some(Lane::Long) => {
            bench
                .long(Duration::from_secs(minutes * 60), &mut summary)
                .await
        }
        None => {
            let phases = phases.into_iter().map(|kind| (kind, count)).collect();
            bench.run(vec![Episode { phases }], &mut summary).await
        }
    };
    summary.took_s = began.elapsed().as_secs_f64();
    if let Err(Trouble::Violation(text)) = &ended
        && !summary.violations.contains(text)
    {
        summary.violations.push(text.clone());
    }
    match format {
        Format::Text => print!("{}", summary.text()),
        Format::Json => println!("{}", serde_json::to_string(&summary).unwrap_or_default()),
    }
    if !summary.violations.is_empty() || ended.is_err() {
        bench.workshop.keep();
        eprintln!(
            "left for you to look at: {}",
            bench.workshop.path().display()
        );
    }
    if !summary.violations.is_empty() {
        return Ok(ExitCode::from(3));
    }
    ended?;
    let skipped = !summary.skipped.is_empty() && !bench.allow_skips;
    Ok(match skipped || !summary.floors_missed.is_empty() {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    })
}

/// Says of every fault whether it can be injected here.
fn print_probes(bench: &Bench) -> ExitCode {
    let mut all = true;
    for kind in Kind::value_variants() {
        let missing = probe::missing(*kind, bench.workshop.path());
        all &= missing.is_none();
        println!(
            "{:14} {}",
            kind.name(),
            missing.unwrap_or_else(|| "can be injected".into())
        );
    }
    let missing = probe::no_sync_missing(bench.workshop.path());
    all &= missing.is_none();
    println!(
        "{:14} {}",
        "control",
        missing.unwrap_or_else(|| "can be run".into())
    );
    if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
