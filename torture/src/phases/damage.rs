//! Bytes that change on the disk of a stopped node, in every kind of file. It must mend itself, or refuse with an error
//! that says what is wrong; what it serves is right. What it does not mend is done as the operator's manual says: a new
//! node takes its place.
//!
//! Helical damage is the same on every node at once, in another part on each: one good copy of everything is left.

use std::time::{Duration, Instant};

use rand::Rng as _;
use scribe_client::ErrorCode;
use scribe_client::wire::HexHash;
use scribe_proof::TreeSize;

use super::Outcome;
use crate::damage::{FileKind, KINDS, files, flip, truncate};
use crate::record::{Operation, Progress, SLOTS};
use crate::trouble::{Result, Trouble, violation};
use crate::world::World;

/// Flips in one round, in a kind of file there is much of …
const FLIPS_LARGE: u64 = 100;
/// … and in one there is little of.
const FLIPS_SMALL: u64 = 10;
/// How long a damaged node may take to be ready or to refuse.
const STARTS_WITHIN: Duration = Duration::from_secs(40);
/// How long it may take to mend itself.
const MENDS_WITHIN: Duration = Duration::from_secs(60);
/// Sealed segments there must be before the first damage.
const SEALED_MIN: usize = 3;
/// Entries asked for at once.
const PAGE: u64 = 1_000;

/// What became of a damaged node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It did not start, and said why.
    Refused(String),
    /// It runs, and refuses to give what is damaged.
    Withheld(String),
    /// It runs, and gives everything as it was.
    Serves,
}

/// Damages so many places, many in one round, of one node after the other.
pub async fn flips(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    fill_segments(world).await?;
    for (round, kind) in KINDS.into_iter().cycle().enumerate() {
        if outcome.injected >= count {
            break;
        }
        // What is compared in a round is what was verified through all nodes before it.
        if round % KINDS.len() == 0 {
            world.verify().await?;
        }
        world.load.grows_by(200).await?;
        let followers = world.cluster.followers().await?;
        let place = world.any(&followers);
        stop(world, place).await?;
        let most = if kind.large { FLIPS_LARGE } else { FLIPS_SMALL };
        let flips = most.min(count - outcome.injected);
        let (done, places) = damage(world, place, kind, flips, round % 4 == 3)?;
        world.record().listen();
        world.cluster.start_node(place)?;
        world.load.grows_by(100).await?;
        let silence = world.record().longest_silence();
        // All that was written is read through the damaged node: not more than there is now.
        world.load.pause().await?;
        let fate = fate(world, place).await?;
        let (what, whole) = mend(world, place, kind, &fate, &places, outcome).await?;
        outcome.count(format!("{}: {what}", kind.name), done);
        if !whole {
            world.cluster.replace(place).await?;
        }
        world.cluster.ready().await?;
        world.load.shared.set_urls(world.cluster.urls());
        world.load.resume();
        outcome.event("rounds", done, silence);
    }
    Ok(())
}

/// Writes until there are enough sealed segments to damage.
async fn fill_segments(world: &mut World) -> Result<()> {
    world.load.heavy(true);
    let sealed = KINDS[0];
    loop {
        world.load.grows_by(200).await?;
        let mut least = usize::MAX;
        for node in world.cluster.nodes.values() {
            least = least.min(files(&node.data_dir(), &node.key_dir(), sealed)?.len());
        }
        if least >= SEALED_MIN {
            break;
        }
    }
    world.load.heavy(false);
    Ok(())
}

/// Stops a node, in order or not.
async fn stop(world: &mut World, place: u64) -> Result<()> {
    match world.rng.random_bool(0.5) {
        true => world.cluster.node_mut(place)?.kill(),
        false => world.cluster.node_mut(place)?.terminate().await,
    }
}

/// Flips bytes, or cuts one of the files short. Returns how many places were damaged, and which.
fn damage(
    world: &mut World,
    place: u64,
    kind: FileKind,
    flips: u64,
    cut: bool,
) -> Result<(u64, Vec<String>)> {
    let node = world.cluster.node(place)?;
    let files = files(&node.data_dir(), &node.key_dir(), kind)?;
    if files.is_empty() {
        return Ok((0, Vec::new()));
    }
    let mut places = Vec::new();
    if cut {
        let file = world.rng.random_range(0..files.len());
        places.push(truncate(&files[file], &mut world.rng)?);
        return Ok((1, places));
    }
    for _ in 0..flips {
        let file = world.rng.random_range(0..files.len());
        places.push(flip(&files[file], &mut world.rng)?);
    }
    Ok((flips, places))
}

/// Waits until a damaged node has ended or is ready, and looks at all it serves.
async fn fate(world: &mut World, place: u64) -> Result<Fate> {
    let began = Instant::now();
    loop {
        if world.cluster.node_mut(place)?.ended()?.is_some() {
            return Ok(Fate::Refused(world.cluster.node(place)?.said_since_start()));
        }
        let health = world.cluster.health(place).await;
        if health.is_some_and(|health| health.reason.is_none()) {
            break;
        }
        if began.elapsed() > STARTS_WITHIN {
            let client = world.cluster.node(place)?.client(&world.cluster.network)?;
            let reason = client.health().await.err().map(|error| error.to_string());
            world.cluster.node_mut(place)?.kill()?;
            return Ok(Fate::Refused(format!(
                "not ready: {}",
                reason.unwrap_or_default()
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.record().check()?;
    match serves(world, place).await? {
        None => Ok(Fate::Serves),
        Some(why) => Ok(Fate::Withheld(why)),
    }
}

/// Reads everything that was verified before through this node. `None` if all of it is as it was, the error if some of
/// it is refused, a violation if any of it is something else.
async fn serves(world: &mut World, place: u64) -> Result<Option<String>> {
    let name = format!("node {place}, damaged,");
    let client = world.cluster.node(place)?.client(&world.cluster.network)?;
    let mut progress = Progress::new(world.record().writers());
    while progress.next < world.verified.next {
        let limit = PAGE.min(world.verified.next - progress.next);
        match client.entries(progress.next).limit(limit).send().await {
            Ok(page) => {
                for entry in &page.entries {
                    world.record().hold(&mut progress, &name, entry)?;
                }
            }
            Err(error) => return Ok(Some(error.to_string())),
        }
    }
    let (root, expected) = (progress.frontier.root(), world.verified.frontier.root());
    if root != expected {
        return violation(format!(
            "{name} gives entries with the root {root}, not {expected}"
        ));
    }
    // What the index answers, and the tree.
    for writer in 0..world.record().writers() {
        let newest: Vec<_> = (0..SLOTS)
            .map(|slot| world.record().newest(writer, slot))
            .collect();
        let keys = (0..SLOTS).map(|n| Operation { writer, n }.key());
        let read = match client.get_many(keys).send().await {
            Ok(read) => read,
            Err(error) => return Ok(Some(error.to_string())),
        };
        for (slot, (entry, newest)) in read.entries.iter().zip(newest).enumerate() {
            let found = entry.entry.as_ref();
            let value = found.and_then(|entry| entry.value.as_deref());
            let wrote = value.and_then(Operation::of_value);
            let due = newest.map_or(0, |newest| newest.n);
            let holds = wrote.is_some_and(|wrote| {
                wrote.writer == writer && wrote.n % SLOTS == slot as u64 && wrote.n >= due
            });
            if newest.is_some() && !holds {
                return violation(format!(
                    "{name} reads key {slot} of writer {writer} as {wrote:?}, not {newest:?}"
                ));
            }
        }
    }
    let (old, new) = (world.verified.next / 2, world.verified.next);
    match client
        .consistency(TreeSize::new(old), TreeSize::new(new))
        .await
    {
        Ok(proof) if proof.new_root_hash == HexHash::from(expected) => Ok(None),
        Ok(proof) => violation(format!(
            "{name} says the root at {new} is {}, not {expected}",
            proof.new_root_hash
        )),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Judges what became of a node: in what words it is counted, and whether the node can stay.
async fn mend(
    world: &mut World,
    place: u64,
    kind: FileKind,
    fate: &Fate,
    places: &[String],
    outcome: &mut Outcome,
) -> Result<(&'static str, bool)> {
    let show = |what: &str, said: &str| {
        let said = said
            .trim()
            .lines()
            .rev()
            .take(3)
            .collect::<Vec<_>>()
            .join(" | ");
        eprintln!(
            "  {} ({} places, first {:?}): {what}: {said}",
            kind.name,
            places.len(),
            places.first()
        );
    };
    match fate {
        Fate::Refused(said) if names(said, kind) => {
            let what = "refused, naming it";
            show(what, said);
            Ok((what, false))
        }
        Fate::Refused(said) => violation(format!(
            "node {place} refuses to start without naming what is damaged, {:?} in its {}: {}",
            places.first(),
            kind.name,
            said.trim().lines().last().unwrap_or_default()
        )),
        Fate::Withheld(why) => {
            let began = Instant::now();
            while began.elapsed() < MENDS_WITHIN {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if world.cluster.node_mut(place)?.ended()?.is_some() {
                    break;
                }
                if serves(world, place).await?.is_none() {
                    eprintln!("  {}: mended itself in {:.1?}", kind.name, began.elapsed());
                    outcome.count(
                        "ms of mending, all in all",
                        began.elapsed().as_millis() as u64,
                    );
                    return Ok(("withheld, then mended by itself", true));
                }
            }
            if world.cluster.node_mut(place)?.ended()?.is_some() {
                let said = world.cluster.node(place)?.said_since_start();
                show("withheld, then ended", &said);
                return Ok(("withheld, then ended", false));
            }
            if !why.contains(ErrorCode::Damaged.as_str()) {
                return violation(format!(
                    "node {place} withholds what is damaged in its {} with another error: {why}",
                    kind.name
                ));
            }
            let what = "withheld as damaged";
            show(what, why);
            Ok((what, false))
        }
        Fate::Serves => {
            // Serving right is not all: what is left on the disk would be missed one day.
            let said = world.cluster.node(place)?.said_since_start();
            world.cluster.node_mut(place)?.terminate().await?;
            match world.audit(place)? {
                Ok(_) => {
                    world.cluster.start_node(place)?;
                    let words = [
                        "mended",
                        "derived again",
                        "everything back",
                        "rebuilt",
                        "made again",
                    ];
                    let mended = words.iter().any(|word| said.to_lowercase().contains(word));
                    Ok((
                        if mended {
                            "mended by itself"
                        } else {
                            "harmless"
                        },
                        true,
                    ))
                }
                Err(finding) => {
                    show("serves what is right, but the audit finds it", &finding);
                    Ok(("served right, damage left on disk", false))
                }
            }
        }
    }
}

/// Whether a refusal says which file, or which kind of file, it is about.
fn names(said: &str, kind: FileKind) -> bool {
    let said = said.to_lowercase();
    let words: &[&str] = match kind.name {
        "sealed segment" | "open segment" => &["segment", ".seg", "log/", "frame"],
        "tree" => &["tree"],
        "index" => &["index"],
        "keys" => &["key", ".pem", "cluster.toml", "certificate"],
        "last-signed" => &["last-signed", "last signed"],
        "vote" => &["vote"],
        "watermarks" => &["watermark"],
        _ => &["manifest"],
    };
    words.iter().any(|word| said.contains(word))
}

/// Damages another part on every node, while all are stopped, so many times.
pub async fn helical(world: &mut World, count: u64, outcome: &mut Outcome) -> Result<()> {
    fill_segments(world).await?;
    while outcome.injected < count {
        world.verify().await?;
        world.load.pause().await?;
        let places = world.cluster.running();
        for place in &places {
            world.cluster.node_mut(*place)?.terminate().await?;
        }
        let turn = world.rng.random_range(0..places.len());
        for (number, place) in places.iter().enumerate() {
            let node = world.cluster.node(*place)?;
            let mut segments = files(&node.data_dir(), &node.key_dir(), KINDS[0])?;
            segments.truncate(SEALED_MIN);
            let part = (number + turn) % places.len();
            let file = segments
                .get(part)
                .ok_or(Trouble::Harness("too few segments".into()))?;
            let said = flip(file, &mut world.rng)?;
            eprintln!("  node {place}: {said}");
        }
        world.record().listen();
        for place in &places {
            world.cluster.start_node(*place)?;
        }
        let mended = all_serve(world, &places).await?;
        world.load.resume();
        match mended {
            true => outcome.event("mended by themselves", 1, world.record().longest_silence()),
            false => {
                outcome.event("withheld, not mended", 1, world.record().longest_silence());
                // No node has a whole copy any more, so none can be replaced: only a backup helps.
                world.abandoned = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Waits until every node serves everything as it was; false if some do not in time.
async fn all_serve(world: &mut World, places: &[u64]) -> Result<bool> {
    let began = Instant::now();
    let mut left = places.to_vec();
    while let Some(place) = left.last().copied() {
        match fate(world, place).await? {
            Fate::Serves => {
                left.pop();
            }
            Fate::Refused(why) => {
                eprintln!(
                    "  node {place} refused: {}",
                    why.trim().lines().last().unwrap_or_default()
                );
                return Ok(false);
            }
            Fate::Withheld(why) if began.elapsed() > MENDS_WITHIN => {
                eprintln!("  node {place} withholds: {why}");
                return Ok(false);
            }
            Fate::Withheld(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
    Ok(true)
}
