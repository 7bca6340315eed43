//! Changes of signed notes that aim at signatures: borrowed, repeated, re-timed, relabelled, malleated.

use crate::plain::{ANYBODYS_SIGNATURE, Plain, PlainLine, PlainNote, encode_base64, malleate};
use crate::rng::Rng;
use crate::text;
use crate::world::{Document, EVIL, LEDGER_AS_WITNESS, OTHER_ORIGIN, TIME, World};

/// An honest document.
pub fn pick<'a>(rng: &mut Rng, world: &'a World) -> &'a Document {
    rng.pick(&world.documents)
}

/// Changes a note somehow.
pub fn change(rng: &mut Rng, world: &World, note: &mut String) -> &'static str {
    let other = pick(rng, world);
    let plain = Plain { world, flaw: None };
    if rng.one_in(3) {
        return text::change(rng, note, &other.note);
    }
    let Some(mut parts) = plain.note(note) else {
        return text::change(rng, note, &other.note);
    };
    let theirs = plain
        .note(&other.note)
        .map(|note| note.lines)
        .unwrap_or_default();
    let name = change_parts(rng, world, &mut parts, other, &theirs);
    *note = parts.to_text();
    name
}

fn change_parts(
    rng: &mut Rng,
    world: &World,
    note: &mut PlainNote,
    other: &Document,
    theirs: &[PlainLine],
) -> &'static str {
    let at = rng.place(note.lines.len());
    let key = rng.pick(&world.keys);
    match rng.below(28) {
        0 => {
            let line = &mut note.lines[at];
            let byte = rng.place(line.bytes.len().max(1));
            if let Some(byte) = line.bytes.get_mut(byte) {
                *byte ^= 1 << rng.below(8);
            }
            "bit of a signature flipped"
        }
        1 => {
            let bytes = &mut note.lines[at].bytes;
            let half = bytes.len().saturating_sub(32);
            for _ in 0..1 + rng.below(8) {
                malleate(&mut bytes[half..]);
            }
            "signature malleated"
        }
        2 | 3 => {
            if let Some(time) = note.lines[at].bytes.first_chunk_mut::<8>() {
                let now = u64::from_be_bytes(*time);
                let to = match rng.below(6) {
                    0 => now.wrapping_add(1),
                    1 => now.wrapping_sub(1),
                    2 => u64::MAX,
                    3 => 1 << 63,
                    4 => 0,
                    _ => TIME + 60 * rng.below(2),
                };
                *time = to.to_be_bytes();
            }
            "time of a cosignature changed"
        }
        4 => {
            note.lines[at].id = key.id;
            "key id changed"
        }
        5 => {
            note.lines[at].name.clone_from(&key.name);
            "key name changed"
        }
        6 => {
            note.lines[at].name.clone_from(&key.name);
            note.lines[at].id = key.id;
            "signature under another key"
        }
        7 => {
            let line = note.lines[at].clone();
            note.lines.push(line);
            "signature repeated"
        }
        8 => {
            if let Some(line) = (!theirs.is_empty()).then(|| rng.pick(theirs)) {
                note.lines.push(line.clone());
            }
            "signature of another checkpoint put in"
        }
        9 => {
            note.lines = theirs.to_vec();
            "signatures of another checkpoint"
        }
        10 => {
            note.text.clone_from(&other.text);
            "text of another checkpoint"
        }
        11 => {
            // Whatever honest keys signed over this text, also what is not on this note.
            let found: Vec<_> = world
                .signed
                .keys()
                .filter(|(_, _, text)| *text == note.text)
                .collect();
            let mut found: Vec<_> = found.into_iter().collect();
            found.sort();
            if !found.is_empty() {
                let signed = *rng.pick(&found);
                let time = signed.1.map(u64::to_be_bytes);
                let key = world
                    .keys
                    .iter()
                    .find(|key| key.public == signed.0 && (key.kind == 4) == signed.1.is_some());
                if let Some(key) = key {
                    let mut bytes = time.map(Vec::from).unwrap_or_default();
                    bytes.extend(world.signed[signed]);
                    let line = PlainLine {
                        name: key.name.clone(),
                        id: key.id,
                        bytes,
                    };
                    note.lines.push(line);
                }
            }
            "honest signature put in"
        }
        12..=14 => {
            // The attacker's keys, as themselves or as somebody else.
            let evil = *rng.pick(&EVIL);
            let bytes = world.evil_signature(evil, &note.text, TIME + rng.below(100));
            let who = if rng.one_in(2) {
                &world.keys[evil]
            } else {
                key
            };
            let line = PlainLine {
                name: who.name.clone(),
                id: who.id,
                bytes,
            };
            match rng.below(3) {
                0 => note.lines[at] = line,
                1 => note.lines.insert(at, line),
                _ => note.lines.push(line),
            }
            "signed by the attacker"
        }
        15 => {
            let count = *rng.pick(&[1, 2, 14, 100, 128 - note.lines.len() as u64, 128]);
            for _ in 0..count {
                let bytes = match rng.below(4) {
                    0 => vec![1],
                    _ => [rng.bytes(), rng.bytes()].concat(),
                };
                let line = PlainLine {
                    name: "stranger.example".to_string(),
                    id: rng.next() as u32,
                    bytes,
                };
                note.lines.insert(rng.place(note.lines.len() + 1), line);
            }
            "signatures of strangers put in"
        }
        16 => {
            note.lines.remove(at);
            "signature left out"
        }
        17 => {
            note.lines.reverse();
            "signatures in another order"
        }
        18 | 26 | 27 => {
            // The ledger's plain signature as if it were a cosignature, or the other way.
            let line = &mut note.lines[at];
            match line.bytes.len() {
                64 => {
                    let key = &world.keys[LEDGER_AS_WITNESS];
                    let time = TIME.to_be_bytes();
                    let bytes = [&time[..], &line.bytes].concat();
                    let line = PlainLine {
                        name: key.name.clone(),
                        id: key.id,
                        bytes,
                    };
                    note.lines.push(line);
                }
                _ => line.bytes = line.bytes.split_off(8.min(line.bytes.len())),
            }
            "signature of another type"
        }
        19 => {
            let line = &mut note.lines[at];
            let size = line.bytes.len();
            line.bytes = match rng.below(4) {
                0 => vec![0; size],
                1 => ANYBODYS_SIGNATURE.to_vec(),
                2 => [&[1], &[0; 63][..]].concat(),
                _ => line.bytes[..size / 2].to_vec(),
            };
            "signature that fits nothing"
        }
        20..=23 => {
            let mut lines: Vec<String> = note.text.lines().map(String::from).collect();
            lines.resize(lines.len().max(3), String::new());
            match rng.below(6) {
                0 => lines[0] = OTHER_ORIGIN.to_string(),
                1 => {
                    let size: u64 = lines[1].parse().unwrap_or(0);
                    lines[1] = size
                        .wrapping_add(1)
                        .wrapping_sub(2 * rng.below(2))
                        .to_string();
                }
                2 => lines[2] = encode_base64(&rng.bytes()),
                3 => {
                    let theirs: Vec<&str> = other.text.lines().collect();
                    let line = rng.place(3);
                    lines[line] = theirs[line].to_string();
                }
                4 => lines.push("an extension".to_string()),
                _ => lines.truncate(lines.len() - 1),
            }
            note.text = lines.join("\n") + "\n";
            "line of the checkpoint changed"
        }
        24 => {
            note.text = format!("{}\n{}", note.text, other.text);
            "two texts in one note"
        }
        _ => {
            let line = &mut note.lines[at];
            line.bytes.push(0);
            "signature too long"
        }
    }
}
