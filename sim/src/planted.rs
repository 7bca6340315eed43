//! Bugs put in on purpose, woken one after the other: how many seeds it takes to find each.
//!
//! A seed has found a bug if it is violated with the bug and all is well with it asleep, in the same build: what fails
//! anyway has found nothing.

use crate::many;
use crate::options::Fault;
use crate::real_time::RealTime;
use crate::{Outcome, PlantedArgs};

/// Bugs that only few kinds of faults bring out: these are given instead of what seeds draw, unless the command names some.
const FAULTS: [(&str, &[Fault]); 0] = [];
/// Characters of what was found that the table has.
const WHY_MAX: usize = 110;

struct Found {
    seed: u64,
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
        let row = hunt(args, bug, what)?;
        match &row.found {
            Some(Found { seed, why }) => eprintln!(
                "{bug}: found after {} seeds, {:.0} s, by seed {seed}: {why}",
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
        let mut suspect: Option<Found> = None;
        many::run(
            next..end,
            many.jobs,
            many.patience,
            &pass,
            Some(bug),
            |finished| {
                tried += 1;
                next = next.max(finished.seed + 1);
                if !finished.is_well()
                    && suspect.as_ref().is_none_or(|old| finished.seed < old.seed)
                {
                    suspect = Some(Found {
                        seed: finished.seed,
                        why: finished.why(),
                    });
                }
                suspect.is_none()
            },
        )?;
        let Some(suspect) = suspect else { break };
        let mut asleep_is_well = false;
        many::run([suspect.seed], 1, many.patience, &pass, None, |finished| {
            asleep_is_well = finished.is_well();
            true
        })?;
        match asleep_is_well {
            true => found = Some(suspect),
            false => eprintln!("seed {} is violated without {bug}, too", suspect.seed),
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
        Some(Found { seed, why }) => {
            let why: String = why
                .chars()
                .map(|c| if matches!(c, '|' | '\n') { ' ' } else { c })
                .take(WHY_MAX)
                .collect();
            (
                format!("{tried} seeds, {seconds:.0} s"),
                format!("seed {seed}: {why}"),
            )
        }
        None => (format!("NOT FOUND in {tried} seeds"), String::new()),
    };
    format!("| {bug} | {what} | `{command}` | {after} | {by} |")
}
