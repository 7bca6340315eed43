//! Forged policies, and forged checkpoints shown to policies.

use scribe_proof::{Policy, SignedCheckpoint};

use crate::Forger;
use crate::documents;
use crate::flaws::TextFlaw;
use crate::plain::{Plain, PlainCheckpoint, PlainKey, PlainNote, forbidden_keys};
use crate::rng::Rng;
use crate::text;
use crate::world::{
    LEDGER, LEDGER_AS_WITNESS, LEDGER_TWIN, MAIN_ORIGIN, NODE_1, NODE_1_TWIN, NODE_2, NODE_3,
    OTHER, ROTATED, WITNESS, World,
};

/// Policies of honest users.
pub fn texts(world: &World) -> Vec<String> {
    let log = |key: usize| format!("log {}\n", world.keys[key].text);
    let witness = |name: &str, key: usize| format!("witness {name} {}\n", world.keys[key].text);
    let nodes = [("n1", NODE_1), ("n2", NODE_2), ("n3", NODE_3)];
    let nodes: String = nodes
        .iter()
        .map(|(name, key)| witness(name, *key))
        .collect();
    let w = witness("w", WITNESS);
    vec![
        format!(
            "{}{nodes}group nodes 2 n1 n2 n3\nquorum nodes\n",
            log(LEDGER)
        ),
        format!("{}quorum none\n", log(LEDGER)),
        format!(
            "{}{}{}{nodes}{w}group a any n1 n2\ngroup b all a w\nquorum b\n",
            log(LEDGER),
            log(ROTATED),
            log(OTHER)
        ),
        format!(
            "{}{}quorum same\n",
            log(LEDGER),
            witness("same", LEDGER_AS_WITNESS)
        ),
        format!(
            "# ours\n\nlog\t{} https://example.com/\nwitness w  {} https://w.example/ \nquorum w",
            world.keys[LEDGER].text, world.keys[WITNESS].text
        ),
        format!("{}{w}quorum w\n", log(OTHER)),
        format!(
            "{}{nodes}{w}group n all n1 n2 n3\ngroup all-of-it 2 n w\nquorum all-of-it\n",
            log(LEDGER)
        ),
    ]
}

/// What a policy says.
#[derive(Default)]
pub struct PlainPolicy {
    logs: Vec<(PlainKey, String)>,
    witnesses: Vec<(String, PlainKey, String)>,
    groups: Vec<(String, String, Vec<String>)>,
    quorum: Option<String>,
}

/// Who satisfied a policy: the ledger key and the cosigners' names, key names and times.
pub type PlainReport = (String, Vec<(String, String, u64)>);

impl PlainPolicy {
    /// Reads a policy.
    pub fn parse(plain: &Plain<'_>, text: &str) -> Option<PlainPolicy> {
        let mut policy = PlainPolicy::default();
        if text.len() > 262_144 {
            return None;
        }
        for line in text.split('\n') {
            let forbidden = |letter: char| letter.is_ascii_control() && letter != '\t';
            let trimmed = match plain.weak(TextFlaw::TrimmedLines) {
                true => line.trim_end_matches('\r'),
                false => line,
            };
            if trimmed.contains(forbidden) {
                return None;
            }
            let line = trimmed.replace('\t', " ");
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            let Some((keyword, words)) = words.split_first() else {
                continue;
            };
            match *keyword {
                "log" => policy.log(plain, words)?,
                "witness" => policy.witness(plain, words)?,
                "group" => policy.group(plain, words)?,
                "quorum" => policy.set_quorum(plain, words)?,
                comment if comment.starts_with('#') => (),
                _ => return None,
            }
        }
        if policy.quorum.is_none() && plain.weak(TextFlaw::QuorumForgotten) {
            policy.quorum = Some("none".to_string());
        }
        policy.quorum.is_some().then_some(policy)
    }

    fn url(words: &[&str]) -> Option<String> {
        match words {
            [] => Some(String::new()),
            [url] => Some(format!(" {url}")),
            _ => None,
        }
    }

    fn has_key_id(&self, key: &PlainKey) -> bool {
        let same = |other: &PlainKey| (&other.name, other.id) == (&key.name, key.id);
        self.logs.iter().any(|(other, _)| same(other))
            || self.witnesses.iter().any(|(_, other, _)| same(other))
    }

    fn log(&mut self, plain: &Plain<'_>, words: &[&str]) -> Option<()> {
        let key = plain.key(words.first()?)?;
        let url = PlainPolicy::url(&words[1..])?;
        let twice = self
            .logs
            .iter()
            .any(|(other, _)| other.public == key.public);
        let room = self.logs.len() < 128;
        let same_id = self.has_key_id(&key) && !plain.weak(TextFlaw::DuplicateKeyIds);
        if key.kind != 1 || twice || same_id || !room {
            return None;
        }
        self.logs.push((key, url));
        Some(())
    }

    fn is_new(&self, name: &str) -> bool {
        name != "none"
            && self.witnesses.iter().all(|(other, _, _)| other != name)
            && self.groups.iter().all(|(other, _, _)| other != name)
    }

    fn witness(&mut self, plain: &Plain<'_>, words: &[&str]) -> Option<()> {
        let [name, key, url @ ..] = words else {
            return None;
        };
        let key = plain.key(key)?;
        let twice = self
            .witnesses
            .iter()
            .any(|(_, other, _)| other.public == key.public)
            && !plain.weak(TextFlaw::DuplicateKeys);
        let same_id = self.has_key_id(&key)
            && !plain.weak(TextFlaw::DuplicateKeyIds)
            && !plain.weak(TextFlaw::DuplicateKeys);
        let room = self.witnesses.len() < 128;
        let kind_fits = key.kind == 4 || plain.weak(TextFlaw::TypeConfused);
        if !kind_fits || twice || same_id || !room || !self.is_new(name) {
            return None;
        }
        let url = PlainPolicy::url(url)?;
        self.witnesses.push(((*name).to_string(), key, url));
        Some(())
    }

    fn group(&mut self, plain: &Plain<'_>, words: &[&str]) -> Option<()> {
        let [name, threshold, members @ ..] = words else {
            return None;
        };
        if !self.is_new(name) || self.groups.len() >= 128 || members.is_empty() {
            return None;
        }
        let threshold_fits = match *threshold {
            "any" | "all" => true,
            number => {
                let least = u64::from(!plain.weak(TextFlaw::ThresholdZero));
                (least..=members.len() as u64).contains(&plain.number(number)?)
            }
        };
        let mut seen: Vec<&str> = Vec::new();
        for (_, _, members) in &self.groups {
            seen.extend(members.iter().map(String::as_str));
        }
        for member in members {
            let again = seen.contains(member) && !plain.weak(TextFlaw::DuplicateMembers);
            // A name that could be given to something new is nobody's yet.
            if *member == "none" || self.is_new(member) || again {
                return None;
            }
            seen.push(member);
        }
        let members = members.iter().map(|member| (*member).to_string()).collect();
        self.groups
            .push(((*name).to_string(), (*threshold).to_string(), members));
        threshold_fits.then_some(())
    }

    fn set_quorum(&mut self, plain: &Plain<'_>, words: &[&str]) -> Option<()> {
        let [name] = words else {
            return None;
        };
        let again = self.quorum.is_some() && !plain.weak(TextFlaw::LastQuorum);
        if again || *name != "none" && self.is_new(name) {
            return None;
        }
        self.quorum = Some((*name).to_string());
        Some(())
    }

    /// The policy as text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, url) in &self.logs {
            text += &format!("log {}{url}\n", key.to_text());
        }
        for (name, key, url) in &self.witnesses {
            text += &format!("witness {name} {}{url}\n", key.to_text());
        }
        for (name, threshold, members) in &self.groups {
            text += &format!("group {name} {threshold} {}\n", members.join(" "));
        }
        text + &format!("quorum {}\n", self.quorum.as_deref().unwrap_or_default())
    }

    /// Who satisfied the policy with this note.
    pub fn evaluate(
        &self,
        plain: &Plain<'_>,
        note: &PlainNote,
        checkpoint: &PlainCheckpoint,
    ) -> Option<PlainReport> {
        let mut signer = None;
        for (key, _) in &self.logs {
            let signed = !plain.signatures(key, note)?.is_empty();
            let own = key.name == checkpoint.origin || plain.weak(TextFlaw::OriginUnchecked);
            if signed && own && signer.is_none() {
                signer = Some(key.to_text());
            }
        }
        if signer.is_none() && plain.weak(TextFlaw::LogUnsigned) {
            signer = self.logs.first().map(|(key, _)| key.to_text());
        }
        let signer = signer?;
        let (mut cosigners, mut counts) = (Vec::new(), Vec::new());
        for (name, key, _) in &self.witnesses {
            let times = plain.signatures(key, note)?;
            if let Some(time) = times.iter().max() {
                cosigners.push((name.clone(), key.name.clone(), *time));
            }
            let each = match plain.weak(TextFlaw::CosignaturesCounted) {
                true => times.len(),
                false => times.len().min(1),
            };
            counts.push((name.as_str(), each));
        }
        for (name, threshold, members) in &self.groups {
            let of = |name: &str| {
                counts
                    .iter()
                    .find(|(other, _)| *other == name)
                    .map_or(0, |it| it.1)
            };
            let count: usize = members.iter().map(|member| of(member)).sum();
            let needed = match threshold.as_str() {
                "any" => 1,
                "all" => members.len(),
                number => number.parse().ok()?,
            };
            counts.push((name, usize::from(count >= needed)));
        }
        let quorum = self.quorum.as_deref()?;
        let met = quorum == "none" || counts.contains(&(quorum, 1)) || {
            plain.weak(TextFlaw::CosignaturesCounted)
                && counts
                    .iter()
                    .any(|(name, count)| *name == quorum && *count > 1)
        };
        met.then_some((signer, cosigners))
    }
}

/// A policy and a checkpoint.
#[derive(Clone, PartialEq)]
pub struct PolicyCase {
    policy: String,
    note: String,
}

/// What the policy says, the checkpoint, and who satisfied the policy with it.
#[derive(Debug, PartialEq)]
pub struct PolicyClaim {
    policy: String,
    checkpoint: PlainCheckpoint,
    report: PlainReport,
}

/// Forger of policies.
pub struct Policies {
    world: World,
    texts: Vec<String>,
}

impl Policies {
    fn change(&self, rng: &mut Rng, policy: &mut String) -> &'static str {
        let keys = &self.world.keys;
        let other = rng.pick(&self.texts).clone();
        let mut lines: Vec<String> = policy.split('\n').map(String::from).collect();
        let at = rng.place(lines.len());
        let name = match rng.below(13) {
            0 => {
                let key = *rng.pick(&[NODE_1, NODE_1, NODE_2, WITNESS, LEDGER_AS_WITNESS, LEDGER]);
                lines.insert(at, format!("witness again {}", keys[key].text));
                "another witness"
            }
            1 => {
                let line = match rng.below(2) {
                    0 => format!("witness twin {}", keys[NODE_1_TWIN].text),
                    _ => format!("log {}", keys[LEDGER_TWIN].text),
                };
                lines.insert(at, line);
                if rng.one_in(2) {
                    lines.retain(|line| !line.starts_with("quorum"));
                    lines.push("quorum none".to_string());
                }
                "key of the same name and id"
            }
            2 => {
                let public = *rng.pick(&forbidden_keys());
                let line = match rng.below(2) {
                    0 => format!("log {}", PlainKey::new(MAIN_ORIGIN, 1, public).to_text()),
                    _ => format!("witness any {}", PlainKey::new("any", 4, public).to_text()),
                };
                lines.insert(at, line);
                "key that fits everybody"
            }
            3 | 4 => {
                // A threshold, among the words of a group.
                let to = rng.word(&[
                    "0", "1", "2", "3", "4", "00", "01", "any", "all", "-1", "none",
                ]);
                for line in &mut lines {
                    let words: Vec<&str> = line.split(' ').collect();
                    if let ["group", name, _, members @ ..] = &words[..] {
                        *line = format!("group {name} {to} {}", members.join(" "));
                        break;
                    }
                }
                "another threshold"
            }
            5 => {
                for line in &mut lines {
                    if line.starts_with("group ") {
                        line.push_str(rng.word(&[" n1", " n2 n2", " w", " b", " none", " nodes"]));
                        break;
                    }
                }
                "another member"
            }
            6 => {
                let quorum = rng.word(&["none", "n1", "w", "a", "nodes", "nobody"]);
                lines.push(format!("quorum {quorum}"));
                "second quorum"
            }
            7 => {
                lines.retain(|line| !line.starts_with("quorum"));
                if rng.one_in(2) {
                    lines.push(format!(
                        "quorum {}",
                        rng.word(&["n1", "n2", "w", "a", "none", "log"])
                    ));
                }
                "another quorum"
            }
            8 => {
                let group = format!(
                    "group more {} {}",
                    rng.word(&["any", "1", "all"]),
                    rng.word(&["n1", "n1 n1", "w", "a w", "more"])
                );
                lines.insert(lines.len() - 1, group);
                lines.retain(|line| !line.starts_with("quorum"));
                lines.push("quorum more".to_string());
                "another group"
            }
            9 => {
                let log = *rng.pick(&[ROTATED, OTHER, LEDGER, NODE_3, WITNESS]);
                lines.insert(at, format!("log {}", keys[log].text));
                "another log"
            }
            _ => {
                let name = text::change(rng, policy, &other);
                return name;
            }
        };
        *policy = lines.join("\n");
        name
    }
}

impl Forger for Policies {
    const KIND: &'static str = "policies";
    const SHARE: u64 = 5;
    type Case = PolicyCase;
    type Claim = PolicyClaim;
    type Flaw = TextFlaw;
    const FLAWS: &'static [TextFlaw] = &[
        TextFlaw::LooseBase64,
        TextFlaw::TrimmedLines,
        TextFlaw::IdIsEnough,
        TextFlaw::BadSignatureSkipped,
        TextFlaw::FirstSignatureOnly,
        TextFlaw::MalleableSignature,
        TextFlaw::TimeUnbound,
        TextFlaw::TypeConfused,
        TextFlaw::OriginUnchecked,
        TextFlaw::LeadingZeros,
        TextFlaw::KeyIdUnchecked,
        TextFlaw::WeakKeys,
        TextFlaw::CosignaturesCounted,
        TextFlaw::ThresholdZero,
        TextFlaw::DuplicateKeys,
        TextFlaw::DuplicateKeyIds,
        TextFlaw::DuplicateMembers,
        TextFlaw::LastQuorum,
        TextFlaw::QuorumForgotten,
        TextFlaw::LogUnsigned,
    ];

    fn new() -> Policies {
        let world = World::new();
        let texts = texts(&world);
        Policies { world, texts }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> PolicyCase {
        let mut policy = rng.pick(&self.texts).clone();
        let mut note = documents::pick(rng, &self.world).note.clone();
        let honest = PolicyCase {
            policy: policy.clone(),
            note: note.clone(),
        };
        for _ in 0..rng.changes() {
            changes.push(match rng.below(2) {
                0 => self.change(rng, &mut policy),
                _ => documents::change(rng, &self.world, &mut note),
            });
        }
        let case = PolicyCase { policy, note };
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &PolicyCase) -> Option<PolicyClaim> {
        let policy = Policy::parse(&case.policy).ok()?;
        let signed = SignedCheckpoint::parse(&case.note).ok()?;
        let report = policy.evaluate(&signed).ok()?;
        let checkpoint = signed.checkpoint();
        let cosigners = report
            .cosigners
            .into_iter()
            .map(|cosigner| (cosigner.name, cosigner.key_name, cosigner.timestamp_s))
            .collect();
        Some(PolicyClaim {
            policy: policy.to_text(),
            checkpoint: PlainCheckpoint {
                origin: checkpoint.origin.clone(),
                size: checkpoint.size.get(),
                root: checkpoint.root.0,
                extensions: checkpoint.extensions.clone(),
            },
            report: (report.log.to_text(), cosigners),
        })
    }

    fn plain(&self, case: &PolicyCase, flaw: Option<TextFlaw>) -> Option<PolicyClaim> {
        let plain = Plain {
            world: &self.world,
            flaw,
        };
        let policy = PlainPolicy::parse(&plain, &case.policy)?;
        let note = plain.note(&case.note)?;
        let checkpoint = plain.checkpoint(&note.text)?;
        let report = policy.evaluate(&plain, &note, &checkpoint)?;
        Some(PolicyClaim {
            policy: policy.to_text(),
            checkpoint,
            report,
        })
    }

    fn show(&self, case: &PolicyCase) -> String {
        format!("  policy {:?}\n  note {:?}", case.policy, case.note)
    }
}
