//! Bugs put in on purpose, woken one after the other: how many seeds it takes to find each.
//!
//! A seed has found a bug if it is violated with the bug and all is well with it asleep, in the same build: what fails
//! anyway has found nothing.

use crate::many;
use crate::options::Fault;
use crate::real_time::RealTime;
use crate::{Outcome, PlantedArgs};

/// Bugs that only few kinds of faults bring out: these are given instead of what seeds draw, unless the command names some.
const FAULTS: [(&str, &[Fault]); 7] = [
    (
        "vote-not-synced",
        &[Fault::PowerCut, Fault::PowerCutMany, Fault::IsolateLeader],
    ),
    ("directory-not-synced", CUTS),
    (
        "signed-before-durable",
        &[Fault::PowerCut, Fault::PowerCutMany, Fault::SlowDisk],
    ),
    ("sync-error-retried", &[Fault::DiskError, Fault::PowerCut]),
    (
        "cut-at-first-bad-checksum",
        &[Fault::PowerCut, Fault::Kill, Fault::BitFlips],
    ),
    ("manifest-before-data", CUTS),
    ("manifest-not-synced", CUTS),
];
const CUTS: &[Fault] = &[Fault::PowerCut, Fault::PowerCutMany, Fault::PowerCutInside];
/// Bugs that runs do not show, or hardly ever, each with the test that finds it.
const TESTS: [(&str, &str); 4] = [
    // openraft refuses a proposal of another term before it is in any log: the check that is left out is the second one.
    (
        "void-frame-applied",
        "consensus::tests::a_frame_of_another_term_takes_no_leaves_and_the_next_one_fits",
    ),
    // Bits flip in files only, and while the node is down: hardly ever does a leader's own tree differ afterwards.
    (
        "outvoted-signs",
        "publisher::agree::tests::one_answer_out_of_three_is_too_few_if_it_differs",
    ),
    // It takes a long group of which a later part is on disk and an earlier is not, and then a shorter one over it. The
    // groups of a few clients are short.
    (
        "recovery-keeps-torn-group",
        "store::log_tests::crash::nothing_acknowledged_is_lost_at_any_operation",
    ),
    // The sync of the frames that follow covers the cut: only a power cut between the two shows it, at one operation.
    (
        "cut-not-durable",
        "store::log_tests::crash::nothing_acknowledged_is_lost_at_any_operation",
    ),
];
/// Characters of what was found that the table has.
const WHY_MAX: usize = 110;

struct Found {
    by: String,
    why: String,
}

struct Row {
    bug: &'static str,
    what: &'static str,
    command: String,
    tried: u64,
    seconds: f64,
    found: Option<Found>,
}

/// Wakes each of the wanted bugs until a seed finds it; `false` if one is not found.
pub fn run(args: &PlantedArgs) -> Outcome {
    if !cfg!(feature = "planted-bugs") {
        return Err("no bugs are planted in this build: add `--features planted-bugs`".into());
    }
    let all = scribe::planted::BUGS;
    if let Some(unknown) = args
        .bugs
        .iter()
        .find(|bug| all.iter().all(|(name, _)| name != bug))
    {
        return Err(format!("there is no bug `{unknown}`").into());
    }
    let wanted = |name: &str| args.bugs.is_empty() || args.bugs.iter().any(|bug| bug == name);
    let mut rows = Vec::new();
    for (bug, what) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let row = match TESTS.iter().find(|(name, _)| *name == bug) {
            Some((_, test)) => try_test(bug, what, test)?,
            None => hunt(args, bug, what)?,
        };
        match &row.found {
            Some(Found { by, why }) => eprintln!(
                "{bug}: found after {} seeds, {:.0} s, by {by}: {why}",
                row.tried, row.seconds
            ),
            None => eprintln!(
                "{bug}: NOT FOUND in {} seeds, {:.0} s",
                row.tried, row.seconds
            ),
        }
        rows.push(row);
    }
    println!("| Bug | What it breaks | Command | Found after | By |\n|---|---|---|---|---|");
    for row in &rows {
        println!("{}", line(row));
    }
    let found = rows.iter().filter(|row| row.found.is_some()).count();
    println!("\n{found} of {} found", rows.len());
    Ok(found == rows.len())
}

fn hunt(
    args: &PlantedArgs,
    bug: &'static str,
    what: &'static str,
) -> Result<Row, Box<dyn std::error::Error>> {
    let many = &args.many;
    let mut shape = many.shape.clone();
    let special = FAULTS.iter().find(|(name, _)| *name == bug);
    if let (Some((_, kinds)), true) = (special, shape.faults.is_empty()) {
        shape.faults = kinds.iter().map(|kind| kind.name().to_owned()).collect();
    }
    let pass = shape.arguments();
    let mut command = format!("planted {bug}");
    if !shape.faults.is_empty() {
        command.push_str(&format!(" --faults {}", shape.faults.join(",")));
    }
    let began = RealTime::now();
    let (mut tried, mut found) = (0, None);
    let mut next = many.from;
    let end = many.from + many.seeds;
    while next < end && found.is_none() {
        let mut suspect: Option<(u64, String)> = None;
        many::run(
            next..end,
            many.jobs,
            many.patience,
            &pass,
            Some(bug),
            |finished| {
                tried += 1;
                next = next.max(finished.seed + 1);
                let earlier = suspect
                    .as_ref()
                    .is_none_or(|(seed, _)| finished.seed < *seed);
                if !finished.is_well() && earlier {
                    suspect = Some((finished.seed, finished.why()));
                }
                suspect.is_none()
            },
        )?;
        let Some((seed, why)) = suspect else { break };
        let mut asleep_is_well = false;
        many::run([seed], 1, many.patience, &pass, None, |finished| {
            asleep_is_well = finished.is_well();
            true
        })?;
        match asleep_is_well {
            true => {
                // Of those that ran beside it no matter.
                tried = seed - many.from + 1;
                found = Some(Found {
                    by: format!("seed {seed}"),
                    why,
                });
            }
            false => eprintln!("seed {seed} is violated without {bug}, too"),
        }
    }
    Ok(Row {
        bug,
        what,
        command,
        tried,
        seconds: began.elapsed().as_secs_f64(),
        found,
    })
}

/// Runs a test of the node with the bug asleep, which must pass, and awake, which must not.
fn try_test(
    bug: &'static str,
    what: &'static str,
    test: &str,
) -> Result<Row, Box<dyn std::error::Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let arguments = "test -p scribe --lib --features planted-bugs";
    let run = |awake: &str| {
        let mut command = std::process::Command::new("cargo");
        command
            .current_dir(root)
            .args(arguments.split(' '))
            .arg(test)
            // That of this build is of another workspace.
            .env_remove("CARGO_TARGET_DIR")
            .env("SCRIBE_PLANTED", awake)
            .output()
    };
    let asleep = run("")?;
    let said = String::from_utf8_lossy(&asleep.stdout).into_owned();
    if !asleep.status.success() || !said.contains("1 passed") {
        let errors = String::from_utf8_lossy(&asleep.stderr);
        return Err(format!("{test} does not pass without {bug}: {said}{errors}").into());
    }
    let began = RealTime::now();
    let awake = run(bug)?;
    let seconds = began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&awake.stdout).into_owned();
    let why: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.contains("panicked"))
        .skip(1)
        .take(2)
        .map(str::trim)
        .collect();
    let failed = !awake.status.success() && said.contains("1 failed");
    Ok(Row {
        bug,
        what,
        command: format!("SCRIBE_PLANTED={bug} cargo {arguments} {test}"),
        tried: 0,
        seconds,
        found: failed.then(|| Found {
            by: "this test".to_owned(),
            why: why.join(" "),
        }),
    })
}

fn line(row: &Row) -> String {
    let Row {
        bug,
        what,
        command,
        tried,
        seconds,
        found,
    } = row;
    let (after, by) = match found {
        Some(Found { by, why }) => {
            let why: String = why
                .chars()
                .map(|c| if matches!(c, '|' | '\n') { ' ' } else { c })
                .take(WHY_MAX)
                .collect();
            let after = match tried {
                0 => format!("{seconds:.0} s"),
                1 => format!("1 seed, {seconds:.0} s"),
                _ => format!("{tried} seeds, {seconds:.0} s"),
            };
            (after, format!("{by}: {why}"))
        }
        None => (format!("NOT FOUND in {tried} seeds"), String::new()),
    };
    format!("| {bug} | {what} | `{command}` | {after} | {by} |")
}
