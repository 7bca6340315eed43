//! Forged receipts.

use scribe_proof::{Hash, Policy, Prev, Receipt, ReceiptError, VerifierKey};

use crate::Forger;
use crate::documents;
use crate::flaws::TextFlaw;
use crate::plain::{Plain, encode_base64};
use crate::policies::{PlainPolicy, PlainReport, texts};
use crate::rng::Rng;
use crate::text;
use crate::trees::root_of_inclusion;
use crate::world::{EVIL, Fact, Ledger, TIME, World, line};

/// What a reader is given: whom to trust (a text it wrote itself), a receipt and a value.
#[derive(Clone, PartialEq)]
pub struct ReceiptCase {
    /// A place among the policies; beyond them, among the ledgers' keys.
    trust: usize,
    receipt: String,
    value: Vec<u8>,
}

/// What a reader believes of an entry. All of it.
#[derive(Debug, PartialEq)]
pub struct ReceiptClaim {
    origin: String,
    index: u64,
    size: u64,
    root: [u8; 32],
    report: PlainReport,
    kind: u8,
    key: Vec<u8>,
    author: Vec<u8>,
    body: Vec<u8>,
    timestamp_ms: u64,
    /// 0, or index + 1; `None` if not asserted.
    prev: Option<u64>,
    leaf: [u8; 32],
    redacted: bool,
    /// The encoded metadata, if the value fits.
    value_fits: Option<Vec<u8>>,
}

/// A receipt's parts, to be put together in any way.
#[derive(Clone)]
struct Parts {
    header: String,
    version: u8,
    leaf: Vec<u8>,
    opening: Option<([u8; 16], Vec<u8>)>,
    after: Vec<u8>,
    index: String,
    proof: Vec<Hash>,
    note: String,
}

impl Parts {
    fn to_text(&self) -> String {
        let mut extra = vec![self.version];
        extra.extend((self.leaf.len() as u16).to_be_bytes());
        extra.extend(&self.leaf);
        if let Some((salt, metadata)) = &self.opening {
            extra.extend(salt);
            extra.extend((metadata.len() as u16).to_be_bytes());
            extra.extend(metadata);
        }
        extra.extend(&self.after);
        let hashes: String = self
            .proof
            .iter()
            .map(|hash| format!("{}\n", encode_base64(&hash.0)))
            .collect();
        let extra = encode_base64(&extra);
        format!(
            "{}\nextra {extra}\nindex {}\n{hashes}\n{}",
            self.header, self.index, self.note
        )
    }
}

/// Forger of receipts.
pub struct Receipts {
    world: World,
    policies: Vec<String>,
    keys: Vec<String>,
}

impl Receipts {
    /// An honest receipt, and the entry's value.
    fn honest(&self, rng: &mut Rng, document: usize) -> (Parts, Vec<u8>) {
        let document = &self.world.documents[document];
        let ledger = &self.world.ledgers[document.ledger];
        // From a tree without leaves there is nothing to prove: the first entry's parts, then.
        let index = rng.below(document.size.max(1));
        let fact = &ledger.entries[index as usize];
        let opening = (fact.kind != 3).then(|| (fact.salt, fact.metadata.clone()));
        let parts = Parts {
            header: "c2sp.org/tlog-proof@v1".to_string(),
            version: 1,
            leaf: fact.leaf.clone(),
            opening,
            after: Vec::new(),
            index: index.to_string(),
            proof: match document.size {
                0 => Vec::new(),
                size => ledger.inclusion(index, size),
            },
            note: document.note.clone(),
        };
        (parts, fact.value.clone())
    }

    fn change(&self, rng: &mut Rng, parts: &mut Parts, value: &mut Vec<u8>) -> &'static str {
        let world = &self.world;
        let document = rng.place(world.documents.len());
        let (other, other_value) = self.honest(rng, document);
        let place = |rng: &mut Rng, length: usize| rng.place(length.max(1));
        match rng.below(22) {
            0 => {
                *parts = other;
                "another receipt"
            }
            1 => {
                *value = other_value;
                "another value"
            }
            2 => {
                match place(rng, value.len() + 1) {
                    at if at < value.len() => value[at] ^= 1 << rng.below(8),
                    _ => value.push(0),
                }
                "value changed"
            }
            3 => {
                parts.leaf = other.leaf;
                if rng.one_in(2) {
                    (parts.opening, *value) = (other.opening, other_value);
                }
                "leaf of another entry"
            }
            4 => {
                let at = place(rng, parts.leaf.len());
                match rng.below(4) {
                    0 => parts.leaf.truncate(at),
                    1 => parts.leaf.push(0),
                    _ => {
                        if let Some(byte) = parts.leaf.get_mut(at) {
                            *byte ^= 1 << rng.below(8);
                        }
                    }
                }
                "leaf changed"
            }
            5 => {
                parts.opening = other.opening;
                if rng.one_in(2) {
                    *value = other_value;
                }
                "opening of another entry"
            }
            6 => {
                parts.opening = None;
                "redacted"
            }
            7 => {
                if let Some((salt, _)) = &mut parts.opening {
                    salt[rng.place(16)] ^= 1 << rng.below(8);
                }
                "salt changed"
            }
            8 => {
                if let Some((_, metadata)) = &mut parts.opening {
                    change_metadata(rng, metadata);
                }
                "metadata changed"
            }
            9 => {
                // A byte moves from the value to the metadata, or back.
                if let Some((_, metadata)) = &mut parts.opening {
                    match rng.below(2) {
                        0 if !value.is_empty() => metadata.push(value.remove(0)),
                        _ => value.splice(0..0, metadata.pop()).for_each(drop),
                    }
                }
                "border of the value moved"
            }
            10 => {
                parts.after = rng.pick(&[&[0][..], &[0, 0], &[7; 18]]).to_vec();
                "bytes after the opening"
            }
            11 => {
                let index: u64 = parts.index.parse().unwrap_or(0);
                parts.index = match rng.below(7) {
                    0 => index.wrapping_add(1).to_string(),
                    1 => index.wrapping_sub(1).to_string(),
                    2 => (index ^ 1 << rng.below(64)).to_string(),
                    3 => format!("0{index}"),
                    4 => u64::MAX.to_string(),
                    5 => other.index,
                    _ => format!("{index} "),
                };
                "index changed"
            }
            12 => {
                let at = place(rng, parts.proof.len());
                match rng.below(8) {
                    0 => parts.proof.push(Hash(rng.bytes())),
                    1 => parts.proof.insert(0, Hash::default()),
                    2 => drop(parts.proof.pop()),
                    3 if !parts.proof.is_empty() => drop(parts.proof.remove(at)),
                    4 => parts.proof.reverse(),
                    5 => parts.proof = other.proof,
                    6 => parts
                        .proof
                        .resize(*rng.pick(&[63, 64, 65, 66]), Hash::default()),
                    _ => {
                        if let Some(hash) = parts.proof.get_mut(at) {
                            hash.0[rng.place(32)] ^= 1 << rng.below(8);
                        }
                    }
                }
                "proof changed"
            }
            13 => {
                parts.note = other.note;
                "another checkpoint"
            }
            14..=17 => documents::change(rng, world, &mut parts.note),
            18 => {
                // A tree of the attacker's own, signed by the attacker under an honest name.
                self.own_tree(rng, parts, value);
                "tree of the attacker"
            }
            19 => {
                parts.version = rng.below(4) as u8;
                "version of the extra data changed"
            }
            20 => {
                parts.header = rng
                    .word(&[
                        "c2sp.org/tlog-proof@v2",
                        "c2sp.org/tlog-proof@v1 ",
                        "C2SP.org/tlog-proof@v1",
                        "",
                    ])
                    .to_string();
                "header changed"
            }
            _ => {
                // The parent of the leaf as leaf, one hash nearer to the root.
                if !parts.proof.is_empty() {
                    let sibling = parts.proof.remove(0);
                    let own = scribe_proof::leaf_hash(&parts.leaf);
                    parts.leaf = [&[1][..], &own.0, &sibling.0].concat();
                    let index: u64 = parts.index.parse().unwrap_or(0);
                    parts.index = (index >> 1).to_string();
                }
                "interior node as leaf"
            }
        }
    }

    /// A receipt that is sound in itself, about an entry nobody wrote.
    fn own_tree(&self, rng: &mut Rng, parts: &mut Parts, value: &mut Vec<u8>) {
        let (index, size) = (rng.below(4), 4);
        *value = b"forged".to_vec();
        let (salt, metadata) = ([1; 16], vec![0, 0]);
        let commitment = scribe_proof::commitment(&salt, &metadata, value);
        // The leaf of an honest put, with another commitment.
        parts.leaf = self.world.ledgers[0].entries[1].leaf.clone();
        parts.leaf[24..56].copy_from_slice(&commitment.0);
        parts.opening = Some((salt, metadata));
        parts.index = index.to_string();
        parts.proof = vec![Hash(rng.bytes()), Hash(rng.bytes())];
        let leaf = scribe_proof::leaf_hash(&parts.leaf);
        let root = root_of_inclusion(leaf, index, size, &parts.proof).unwrap_or_default();
        let origin = self.world.ledgers[rng.place(2)].origin;
        let text = format!("{origin}\n{size}\n{}\n", encode_base64(&root.0));
        let mut note = format!("{text}\n");
        for _ in 0..1 + rng.below(3) {
            let evil = *rng.pick(&EVIL);
            let bytes = self.world.evil_signature(evil, &text, TIME);
            let who = match rng.below(2) {
                0 => &self.world.keys[evil],
                _ => rng.pick(&self.world.keys),
            };
            note += &line(&who.name, who.id, &bytes);
        }
        parts.note = note;
    }
}

fn change_metadata(rng: &mut Rng, metadata: &mut Vec<u8>) {
    let at = rng.place(metadata.len().max(1));
    match rng.below(6) {
        0 => metadata.truncate(at),
        1 => metadata.push(0),
        2 => *metadata = vec![0, 0],
        3 => *metadata = b"\x00\x02\x01a\x00\x01x\x01a\x00\x01y".to_vec(),
        4 => *metadata = b"\x00\x02\x01b\x00\x00\x01a\x00\x00".to_vec(),
        _ => {
            if let Some(byte) = metadata.get_mut(at) {
                *byte = byte.wrapping_add(1 + rng.below(200) as u8);
            }
        }
    }
}

/// Whether metadata is well-formed: a content type, and pairs of names in order and values.
fn metadata_is_good(mut bytes: &[u8], loose: bool) -> bool {
    fn text<'a>(bytes: &mut &'a [u8], wide: bool) -> Option<&'a str> {
        let (length, rest) = match (wide, &bytes[..]) {
            (true, [high, low, rest @ ..]) => (usize::from(*high) * 256 + usize::from(*low), rest),
            (false, [length, rest @ ..]) => (usize::from(*length), rest),
            _ => return None,
        };
        *bytes = rest.get(length..)?;
        let text = std::str::from_utf8(&rest[..length]).ok()?;
        (!text.chars().any(char::is_control)).then_some(text)
    }
    let short = bytes.len() <= 8192;
    let mut read = || {
        text(&mut bytes, false)?;
        let (count, rest) = bytes.split_first()?;
        bytes = rest;
        let mut names: Vec<&str> = Vec::new();
        for _ in 0..*count {
            let name = text(&mut bytes, false)?;
            let good = |letter| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
            let in_order = loose || names.last().is_none_or(|last| *last < name);
            if name.is_empty() || !name.chars().all(good) || !in_order {
                return None;
            }
            names.push(name);
            text(&mut bytes, true)?;
        }
        Some(*count <= 16 && bytes.is_empty())
    };
    short && read() == Some(true)
}

impl Receipts {
    fn plain_receipt(&self, plain: &Plain<'_>, case: &ReceiptCase) -> Option<ReceiptClaim> {
        if case.receipt.len() > 131_072 {
            return None;
        }
        let (head, note) = case.receipt.split_once("\n\n")?;
        let trim = |line: &'_ str| match plain.weak(TextFlaw::TrimmedLines) {
            true => line.trim_end_matches([' ', '\r', '\t']).to_string(),
            false => line.to_string(),
        };
        let lines: Vec<String> = head.split('\n').map(trim).collect();
        let [header, extra, index, hashes @ ..] = &lines[..] else {
            return None;
        };
        if header != "c2sp.org/tlog-proof@v1" || hashes.len() > 64 {
            return None;
        }
        let extra = plain.base64(extra.strip_prefix("extra ")?)?;
        let index = plain.number(index.strip_prefix("index ")?)?;
        let mut proof = Vec::new();
        for hash in hashes {
            proof.push(Hash(plain.base64(hash)?.try_into().ok()?));
        }
        // The extra data: version, leaf, and unless redacted salt and metadata.
        let [1, high, low, rest @ ..] = &extra[..] else {
            return None;
        };
        let (leaf, rest) = rest.split_at_checked(usize::from(*high) * 256 + usize::from(*low))?;
        let opening = match rest {
            [] => None,
            _ => {
                let (salt, rest) = rest.split_first_chunk::<16>()?;
                let [high, low, rest @ ..] = rest else {
                    return None;
                };
                let length = usize::from(*high) * 256 + usize::from(*low);
                let (metadata, after) = rest.split_at_checked(length)?;
                if !after.is_empty() && !plain.weak(TextFlaw::ExtraTrailing) {
                    return None;
                }
                let loose = plain.weak(TextFlaw::LooseMetadata);
                if !metadata_is_good(metadata, loose) {
                    return None;
                }
                Some((*salt, metadata.to_vec()))
            }
        };
        // The checkpoint, and who stands for it.
        let note = plain.note(note)?;
        let checkpoint = plain.checkpoint(&note.text)?;
        let report = match self.policies.get(case.trust) {
            Some(policy) => {
                PlainPolicy::parse(plain, policy)?.evaluate(plain, &note, &checkpoint)?
            }
            None => {
                let text = &self.keys[case.trust - self.policies.len()];
                let key = plain.key(text)?;
                let signed = !plain.signatures(&key, &note)?.is_empty();
                let own = key.name == checkpoint.origin || plain.weak(TextFlaw::OriginUnchecked);
                if !(signed && own) {
                    return None;
                }
                (text.clone(), Vec::new())
            }
        };
        // Which entry is it? An honest checkpoint covers the first entries of its ledger.
        let honest = |ledger: &&Ledger| {
            let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
            ledger.roots.get(size) == Some(&Hash(checkpoint.root))
        };
        let ledger = self.world.ledgers.iter().find(honest);
        let Some(ledger) = ledger else {
            // Only a weak verifier believes in another tree; what it believes is false in any case.
            return plain
                .flaw
                .map(|_| self.claim(case, &checkpoint, report, index, None, leaf, None));
        };
        let place = match plain.weak(TextFlaw::IndexUnbound) {
            true => ledger.entries.iter().position(|fact| fact.leaf == leaf)? as u64,
            false => index,
        };
        let fact = ledger
            .entries
            .get(place as usize)
            .filter(|fact| fact.leaf == leaf)?;
        let guessed = plain.weak(TextFlaw::SizeGuessed);
        if place >= checkpoint.size {
            return None;
        }
        let expected = ledger.inclusion(place, checkpoint.size);
        let proof_fits = proof == expected
            || plain.weak(TextFlaw::ProofLeftover) && proof.starts_with(&expected)
            || guessed && proof.len() <= expected.len() && expected.starts_with(&proof);
        if !proof_fits || !fact.understood && !plain.weak(TextFlaw::UnknownLeaf) {
            return None;
        }
        // A system leaf commits to nothing, so nothing opens it.
        if fact.kind == 3 && fact.understood && opening.is_some() {
            return None;
        }
        let redacted_fits = opening.is_none() && plain.weak(TextFlaw::RedactedFits);
        let value_fits = match &opening {
            Some((salt, metadata)) => {
                let same = case.value == fact.value
                    && (*salt == fact.salt && *metadata == fact.metadata
                        || plain.weak(TextFlaw::OpeningUnbound));
                (same || plain.weak(TextFlaw::ValueUnchecked)).then(|| metadata.clone())
            }
            None => redacted_fits.then(Vec::new),
        };
        let mut claim = self.claim(
            case,
            &checkpoint,
            report,
            index,
            Some(fact),
            leaf,
            value_fits,
        );
        claim.redacted = opening.is_none();
        Some(claim)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one part of what is believed"
    )]
    fn claim(
        &self,
        case: &ReceiptCase,
        checkpoint: &crate::plain::PlainCheckpoint,
        report: PlainReport,
        index: u64,
        fact: Option<&Fact>,
        leaf: &[u8],
        value_fits: Option<Vec<u8>>,
    ) -> ReceiptClaim {
        ReceiptClaim {
            origin: checkpoint.origin.clone(),
            index,
            size: checkpoint.size,
            root: checkpoint.root,
            report,
            kind: fact.map_or(0, |fact| fact.kind),
            key: fact.map_or(case.value.clone(), |fact| fact.key.clone()),
            author: fact.map_or(Vec::new(), |fact| fact.author.clone()),
            body: fact.map_or(Vec::new(), |fact| fact.body.clone()),
            timestamp_ms: fact.map_or(0, |fact| fact.timestamp_ms),
            prev: fact.and_then(|fact| fact.prev),
            leaf: scribe_proof::leaf_hash(leaf).0,
            redacted: false,
            value_fits,
        }
    }
}

impl Forger for Receipts {
    const KIND: &'static str = "receipts";
    const SHARE: u64 = 5;
    type Case = ReceiptCase;
    type Claim = ReceiptClaim;
    type Flaw = TextFlaw;
    const FLAWS: &'static [TextFlaw] = &[
        TextFlaw::LooseBase64,
        TextFlaw::TrimmedLines,
        TextFlaw::AnyDash,
        TextFlaw::IdIsEnough,
        TextFlaw::BadSignatureSkipped,
        TextFlaw::MalleableSignature,
        TextFlaw::TimeUnbound,
        TextFlaw::OriginUnchecked,
        TextFlaw::LeadingZeros,
        TextFlaw::CosignaturesCounted,
        TextFlaw::LogUnsigned,
        TextFlaw::ExtraTrailing,
        TextFlaw::ProofLeftover,
        TextFlaw::IndexUnbound,
        TextFlaw::SizeGuessed,
        TextFlaw::OpeningUnbound,
        TextFlaw::ValueUnchecked,
        TextFlaw::RedactedFits,
        TextFlaw::UnknownLeaf,
        TextFlaw::LooseMetadata,
        TextFlaw::SignatureUnchecked,
    ];

    fn new() -> Receipts {
        let world = World::new();
        let policies = texts(&world);
        let keys = [
            crate::world::LEDGER,
            crate::world::ROTATED,
            crate::world::OTHER,
        ]
        .map(|key| world.keys[key].text.clone())
        .to_vec();
        Receipts {
            world,
            policies,
            keys,
        }
    }

    fn forge(&self, rng: &mut Rng, changes: &mut Vec<&'static str>) -> ReceiptCase {
        let document = rng.place(self.world.documents.len());
        let (mut parts, mut value) = self.honest(rng, document);
        let trust = rng.place(self.policies.len() + self.keys.len());
        let honest = ReceiptCase {
            trust,
            receipt: parts.to_text(),
            value: value.clone(),
        };
        let count = rng.changes();
        // Changes of the text come last: they may leave nothing that could be taken apart.
        let of_text = (0..count).filter(|_| rng.one_in(4)).count() as u64;
        for _ in of_text..count {
            changes.push(self.change(rng, &mut parts, &mut value));
        }
        let mut receipt = parts.to_text();
        for _ in 0..of_text {
            let document = rng.place(self.world.documents.len());
            let (other, _) = self.honest(rng, document);
            changes.push(text::change(rng, &mut receipt, &other.to_text()));
        }
        let case = ReceiptCase {
            trust,
            receipt,
            value,
        };
        if case == honest {
            changes.clear();
        }
        case
    }

    fn verify(&self, case: &ReceiptCase) -> Option<ReceiptClaim> {
        let receipt = Receipt::parse(&case.receipt).ok()?;
        let entry = match self.policies.get(case.trust) {
            Some(policy) => receipt.verify(&Policy::parse(policy).ok()?),
            None => {
                let key = &self.keys[case.trust - self.policies.len()];
                receipt.verify(&VerifierKey::parse(key).ok()?)
            }
        }
        .ok()?;
        let value_fits = match entry.check_value(&case.value) {
            Ok(metadata) => Some(metadata.encode().ok()?),
            Err(_) => None,
        };
        let redacted = entry.check_value(&case.value) == Err(ReceiptError::Redacted);
        assert_eq!(redacted, entry.is_redacted());
        let cosigners = entry
            .cosigners()
            .iter()
            .map(|it| (it.name.clone(), it.key_name.clone(), it.timestamp_s))
            .collect();
        Some(ReceiptClaim {
            origin: entry.origin().to_string(),
            index: entry.index().get(),
            size: entry.tree_size().get(),
            root: entry.root().0,
            report: (entry.report().log.to_text(), cosigners),
            kind: entry.kind as u8,
            key: entry.key.clone(),
            author: entry.author.clone(),
            body: entry.body.clone(),
            timestamp_ms: entry.timestamp_ms,
            prev: match entry.prev {
                Prev::None => Some(0),
                Prev::Version(index) => Some(index.get() + 1),
                Prev::NotAsserted => None,
            },
            leaf: entry.leaf_hash.0,
            redacted,
            value_fits,
        })
    }

    fn plain(&self, case: &ReceiptCase, flaw: Option<TextFlaw>) -> Option<ReceiptClaim> {
        let plain = Plain {
            world: &self.world,
            flaw,
        };
        self.plain_receipt(&plain, case)
    }

    fn show(&self, case: &ReceiptCase) -> String {
        let trust = self.policies.iter().chain(&self.keys).nth(case.trust);
        format!(
            "  trust {trust:?}\n  receipt {:?}\n  value {}",
            case.receipt,
            case.value.escape_ascii()
        )
    }
}
