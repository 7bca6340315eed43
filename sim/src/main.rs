//! `scribe-sim`: whole nodes of Scribe Ledger in a simulated world.
//!
//! One process, one thread, one seed. Three to seven nodes run their real consensus, sequencer, publisher, store and peer
//! network code over simulated sockets ([turmoil]), simulated disks ([`scribe::store::sim_disk`]) and simulated clocks;
//! randomness comes from the seed, libc's `getrandom` included ([mad_turmoil]). So a seed decides everything, and a
//! failure replays with one command.
//!
//! What is not simulated: TLS between nodes (they talk in plain text here; the handshakes have tests of their own), the
//! HTTP layer (clients call the node's handle), fjall (the key index is in memory; it is derived), and power cuts of the
//! key directories, which are real files: what was written to them stays.

mod chance;
mod clients;
mod cluster;
mod court;
mod faults;
mod floor;
mod kept;
mod machine;
mod many;
mod operator;
mod options;
mod planted;
mod real_time;
mod requests;
mod run;
mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::floor::Happened;
use crate::many::Finished;
use crate::options::{Fault, Options};
use crate::real_time::RealTime;
use crate::run::Report;
use crate::trace::Trace;

/// A promise was broken.
const VIOLATED: u8 = 3;

/// Runs clusters of Scribe Ledger in a simulated world that one number decides.
///
/// Example: `scribe-sim --seeds 100`, then `scribe-sim run --seed 17 --show` for one that failed.
#[derive(Parser)]
#[command(name = "scribe-sim", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command: as `many`.
    #[command(flatten)]
    many: ManyArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed.
    Run(RunArgs),
    /// Runs many seeds, each in a process of its own, and adds up what happened.
    Many(ManyArgs),
    /// Runs seeds twice and compares everything that happened, byte for byte.
    ReplayTwice(ManyArgs),
    /// Wakes one planted bug after the other, and says after how many seeds each is found. Needs a build with
    /// `--features planted-bugs`.
    Planted(PlantedArgs),
}

#[derive(Args, Clone)]
struct Shape {
    /// Length of the phase with faults, simulated seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of nodes, instead of what the seed draws.
    #[arg(long)]
    nodes: Option<u64>,
    /// Kinds of faults, instead of what the seed draws; `none` for none. Example: `--faults power-cut,partition`.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
}

#[derive(Args)]
struct RunArgs {
    /// Decides everything.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: Shape,
    /// Shows everything that happens on stderr.
    #[arg(long)]
    show: bool,
    /// Writes everything that happens into a file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// One line of JSON on stdout, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PlantedArgs {
    /// The bugs, instead of all.
    bugs: Vec<String>,
    #[command(flatten)]
    many: ManyArgs,
}

#[derive(Args)]
struct ManyArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many processes at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Real seconds after which a run counts as hanging.
    #[arg(long, default_value_t = 600)]
    patience: u64,
    #[command(flatten)]
    shape: Shape,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Many(cli.many)) {
        Command::Run(args) => run_one(&args),
        Command::Many(args) => run_many(&args),
        Command::ReplayTwice(args) => replay_twice(&args),
        Command::Planted(args) => planted::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(VIOLATED),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

type Outcome = Result<bool, Box<dyn std::error::Error>>;

impl Shape {
    fn kinds(&self) -> Result<Vec<Fault>, String> {
        let named = self.faults.iter().filter(|name| *name != "none");
        let kind = |name: &String| {
            Fault::parse(name).ok_or_else(|| {
                let all = Fault::ALL.map(Fault::name).join(", ");
                format!("there is no fault `{name}`, there are: {all}, none")
            })
        };
        named.map(kind).collect()
    }

    fn options(&self, seed: u64) -> Result<Options, String> {
        let only = self.kinds()?;
        let none = self.faults.iter().any(|name| name == "none");
        let mut options = Options::draw(seed, self.seconds, self.nodes, &only);
        if none {
            options.faults = only;
        }
        Ok(options)
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--seconds".to_owned(), self.seconds.to_string()];
        if let Some(nodes) = self.nodes {
            arguments.extend(["--nodes".to_owned(), nodes.to_string()]);
        }
        if !self.faults.is_empty() {
            arguments.extend(["--faults".to_owned(), self.faults.join(",")]);
        }
        arguments
    }
}

fn run_one(args: &RunArgs) -> Outcome {
    let options = args.shape.options(args.seed)?;
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    let trace = Trace::new(args.trace.as_deref(), args.show)?;
    let home = tempfile::Builder::new()
        .prefix("scribe-sim-")
        .tempdir_in(memory_dir())?;
    let began = RealTime::now();
    // From here on the seed answers whoever asks the system for randomness or the time. A thread of its own, so that
    // nothing it keeps was seeded before.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(args.seed));
    let clocks = mad_turmoil::time::SimClocksGuard::init();
    let world = {
        let (options, trace, home) = (options.clone(), trace.clone(), home.path().to_owned());
        std::thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(move || run::run(&options, &home, &trace).map_err(|error| error.to_string()))?
    };
    let done = world.join();
    drop(clocks);
    let report = match done {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => failed(&options, &trace, format!("the simulation ended: {error}")),
        Err(_) => failed(&options, &trace, many::PANICKED.to_owned()),
    };
    if let Some(violation) = &report.violation {
        if !args.show {
            eprintln!("the last that happened:");
            for line in trace.last() {
                eprintln!("{line}");
            }
        }
        eprintln!("seed {}: {violation}", args.seed);
        eprintln!("options: {options}");
        let shape = args.shape.arguments().join(" ");
        eprintln!("replay: scribe-sim run --seed {} {shape} --show", args.seed);
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "seed {}: {}, {} simulated s in {seconds:.1} s ({:.0} times real time), {} lines, hash {:016x}",
            args.seed,
            report.violation.as_deref().unwrap_or("all is well"),
            report.simulated_ms / 1_000,
            report.simulated_ms as f64 / 1_000.0 / seconds,
            report.lines,
            report.hash,
        );
        for (name, count) in &report.counts {
            println!("  {name} {count}");
        }
    }
    Ok(report.violation.is_none())
}

fn failed(options: &Options, trace: &Trace, violation: String) -> Report {
    let (lines, hash) = trace.digest();
    Report {
        seed: options.seed,
        violation: Some(violation),
        simulated_ms: trace.now_ms(),
        lines,
        hash,
        ..Report::default()
    }
}

/// Key directories are real files; where there is memory for them, no disk waits for their syncs.
fn memory_dir() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    }
}

fn run_many(args: &ManyArgs) -> Outcome {
    let began = RealTime::now();
    let mut totals = BTreeMap::new();
    let (mut done, mut broken) = (0_u64, Vec::new());
    let seeds = args.from..args.from + args.seeds;
    let pass = args.shape.arguments();
    many::run(seeds, args.jobs, args.patience, &pass, None, |finished| {
        done += 1;
        if let Some(report) = &finished.report {
            many::add(&mut totals, report);
        }
        if !finished.is_well() {
            tell(&finished, args);
            broken.push(finished.seed);
        }
        if done.is_multiple_of(10) {
            eprintln!(
                "{done} of {} seeds, {} violations, {:.0} s",
                args.seeds,
                broken.len(),
                began.elapsed().as_secs_f64()
            );
        }
        args.keep_going || broken.is_empty()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let simulated_ms = totals.remove("simulated_ms").unwrap_or_default();
    let simulated = simulated_ms as f64 / 1_000.0;
    println!("{done} seeds, {} violations {broken:?}", broken.len());
    println!(
        "{simulated:.0} simulated s in {seconds:.0} s: {:.0} times real time with {} processes",
        simulated / seconds,
        args.jobs
    );
    let acknowledged = totals.get("checked_acknowledged");
    println!(
        "{}, acknowledged writes {}",
        Happened::of(&totals, done),
        acknowledged.copied().unwrap_or_default()
    );
    for (name, count) in &totals {
        println!("  {name} {count}");
    }
    if broken.is_empty() {
        let asked = args.shape.kinds()?;
        let asked = (!args.shape.faults.is_empty()).then_some(&asked[..]);
        floor::check(&totals, done, simulated_ms, asked)
            .map_err(|below| format!("the run is not valid, whatever it found: {below}"))?;
    }
    Ok(broken.is_empty())
}

fn tell(finished: &Finished, args: &ManyArgs) {
    let lines: Vec<&str> = finished.said.lines().collect();
    let from = lines
        .len()
        .saturating_sub(if args.keep_going { 3 } else { 60 });
    for line in &lines[from..] {
        eprintln!("    {line}");
    }
    eprintln!("seed {}: {}", finished.seed, finished.why());
    eprintln!(
        "replay: scribe-sim run --seed {} {} --show",
        finished.seed,
        args.shape.arguments().join(" ")
    );
}

fn replay_twice(args: &ManyArgs) -> Outcome {
    let home = tempfile::tempdir_in(memory_dir())?;
    let mut same = 0;
    for seed in args.from..args.from + args.seeds {
        let mut traces = Vec::new();
        for attempt in 0..2 {
            let path = home.path().join(format!("{seed}-{attempt}"));
            let mut pass = args.shape.arguments();
            pass.extend(["--trace".to_owned(), path.display().to_string()]);
            let mut well = false;
            many::run([seed], 1, args.patience, &pass, None, |finished| {
                well = finished.is_well();
                if !well {
                    tell(&finished, args);
                }
                true
            })?;
            if !well {
                return Ok(false);
            }
            traces.push(std::fs::read(&path)?);
        }
        if traces[0] != traces[1] {
            let (first, second) = (text(&traces[0]), text(&traces[1]));
            let lines = first.lines().zip(second.lines()).enumerate();
            let different = lines.into_iter().find(|(_, (a, b))| a != b);
            if let Some((number, (a, b))) = different {
                println!("seed {seed} differs in line {}:\n  {a}\n  {b}", number + 1);
            } else {
                println!("seed {seed}: one trace is longer than the other");
            }
            return Ok(false);
        }
        same += 1;
        println!("seed {seed}: {} bytes, the same twice", traces[0].len());
    }
    println!("{same} seeds, each the same twice");
    Ok(true)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
