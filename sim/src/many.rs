//! Many seeds, each in a process of its own: no static, no thread-local and no leak of one run reaches another.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::real_time::RealTime;
use crate::run::Report;

/// What a run says if the world, or a node in it, has panicked: on stderr is where.
pub const PANICKED: &str = "something panicked";
/// How often children are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a child process said.
pub struct Finished {
    /// The seed.
    pub seed: u64,
    /// Its report, if it came that far.
    pub report: Option<Report>,
    /// Everything it said on stderr.
    pub said: String,
}

impl Finished {
    /// Whether all was well.
    pub fn is_well(&self) -> bool {
        let report = self.report.as_ref();
        report.is_some_and(|report| report.violation.is_none())
    }

    /// What was not, in a line.
    pub fn why(&self) -> String {
        let panicked = self
            .said
            .lines()
            .skip_while(|line| !line.contains("panicked"));
        // The line behind says why.
        let panicked: Vec<&str> = panicked.skip(1).take(1).collect();
        match &self.report {
            Some(report) => match report.violation.clone().unwrap_or_default() {
                text if text == PANICKED => format!("{text}: {}", panicked.join(" ")),
                text => text,
            },
            None => format!("the process ended: {}", panicked.join(" ")),
        }
    }
}

struct Running {
    seed: u64,
    child: Child,
    started: RealTime,
    out: std::thread::JoinHandle<(String, String)>,
}

/// Runs seeds, `jobs` at a time, each with the arguments `pass`, with a planted bug awake or none. Calls `each` as they finish; it says whether to go on.
///
/// # Errors
/// Processes cannot be started.
pub fn run(
    seeds: impl IntoIterator<Item = u64>,
    jobs: usize,
    seconds_max: u64,
    pass: &[String],
    planted: Option<&str>,
    mut each: impl FnMut(Finished) -> bool,
) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    let mut seeds = seeds.into_iter();
    let mut running: Vec<Running> = Vec::new();
    let mut going = true;
    loop {
        while going && running.len() < jobs {
            let Some(seed) = seeds.next() else { break };
            running.push(start(&program, seed, pass, planted)?);
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut still = Vec::new();
        for mut run in running {
            let late = run.started.elapsed() > Duration::from_secs(seconds_max);
            if late {
                run.child.kill()?;
            }
            if run.child.try_wait()?.is_none() && !late {
                still.push(run);
                continue;
            }
            let _ = run.child.wait()?;
            let (out, mut said) = run.out.join().unwrap_or_default();
            if late {
                said.push_str("\npanicked: it did not end within its real time\nit hangs");
            }
            let report = serde_json::from_str(out.trim()).ok();
            going &= each(Finished {
                seed: run.seed,
                report,
                said,
            });
        }
        running = still;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn start(
    program: &std::path::Path,
    seed: u64,
    pass: &[String],
    planted: Option<&str>,
) -> std::io::Result<Running> {
    let mut command = Command::new(program);
    command
        .args(["run", "--json", "--seed", &seed.to_string()])
        .args(pass)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(planted) = planted {
        command.env("SCRIBE_PLANTED", planted);
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || {
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stderr) = stderr {
                let _ = stderr.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut text = String::new();
        if let Some(mut stdout) = stdout {
            let _ = stdout.read_to_string(&mut text);
        }
        (text, errors.join().unwrap_or_default())
    });
    Ok(Running {
        seed,
        child,
        started: RealTime::now(),
        out,
    })
}

/// Adds one run to the totals.
pub fn add(totals: &mut BTreeMap<String, u64>, report: &Report) {
    *totals.entry("simulated_ms".to_owned()).or_default() += report.simulated_ms;
    for (name, count) in &report.counts {
        *totals.entry(name.clone()).or_default() += count;
    }
}
