//! Changes of text that every text format has to withstand: other encodings of the same thing, and
//! pieces of other documents.

use crate::rng::Rng;

/// What looks like an em dash, or passes for one.
pub const DASHES: [&str; 8] = [
    "-",
    "\u{2013}",
    "\u{2012}",
    "\u{2015}",
    "\u{2212}",
    "\u{fe58}",
    "--",
    "\u{2014}\u{fe0e}",
];

/// Letters that look like others.
const LOOKALIKES: [(&str, &str); 10] = [
    ("e", "\u{435}"),
    ("a", "\u{430}"),
    ("o", "\u{43e}"),
    ("1", "\u{661}"),
    ("0", "\u{660}"),
    ("3", "\u{ff13}"),
    (" ", "\u{a0}"),
    (" ", "\u{2009}"),
    ("/", "\u{2044}"),
    ("+", "\u{ff0b}"),
];

/// Changes `text` somehow; `other` is another document of the same sort.
pub fn change(rng: &mut Rng, text: &mut String, other: &str) -> &'static str {
    match rng.below(24) {
        0 => {
            if let Some(at) = boundary(rng, text) {
                let letter = text.remove(at);
                let to = match rng.below(4) {
                    0 => char::from(rng.below(128) as u8),
                    1 => letter.to_ascii_uppercase(),
                    2 => char::from_u32(u32::from(letter) ^ 1).unwrap_or('x'),
                    _ => *rng.pick(&['A', '0', '=', '/', '+', ' ', '\n', '\u{e9}']),
                };
                text.insert(at, to);
            }
            "letter changed"
        }
        1 => {
            if let Some(at) = boundary(rng, text) {
                text.remove(at);
            }
            "letter left out"
        }
        2 => {
            let at = boundary(rng, text).unwrap_or(0);
            let letter = *rng.pick(&[
                ' ', '\n', '\t', '\r', '=', '0', '\u{feff}', '\u{200b}', '\0', '\x7f', 'A',
            ]);
            text.insert(at, letter);
            "letter put in"
        }
        3 => {
            if let Some(at) = boundary(rng, text) {
                text.truncate(at);
            }
            "text cut"
        }
        4 => {
            text.push_str(rng.word(&["\n", "\n\n", " ", "\0", "x", "x\n"]));
            "text extended"
        }
        5 => {
            *text = match rng.below(2) {
                0 => text.replace('\n', "\r\n"),
                _ => text.replacen('\n', "\r\n", 1),
            };
            "carriage returns"
        }
        6 => lines(rng, text, |rng, lines| {
            let at = rng.place(lines.len());
            lines.insert(at, lines[at].clone());
            "line doubled"
        }),
        7 => lines(rng, text, |rng, lines| {
            lines.remove(rng.place(lines.len()));
            "line left out"
        }),
        8 => lines(rng, text, |rng, lines| {
            let (a, b) = (rng.place(lines.len()), rng.place(lines.len()));
            lines.swap(a, b);
            "lines swapped"
        }),
        9 => lines(rng, text, |rng, lines| {
            lines.insert(rng.place(lines.len()), String::new());
            "empty line put in"
        }),
        10 => lines(rng, text, |rng, lines| {
            let at = rng.place(lines.len());
            lines[at].push_str(rng.word(&[" ", "\r", "\t", "=", "\u{a0}"]));
            "end of a line extended"
        }),
        11 => lines(rng, text, |rng, lines| {
            let other: Vec<&str> = other.split('\n').collect();
            let line = rng.pick(&other);
            let at = rng.place(lines.len());
            lines.insert(at, (*line).to_string());
            "line of another text put in"
        }),
        12 => lines(rng, text, |rng, lines| {
            let other: Vec<&str> = other.split('\n').collect();
            let at = rng.place(lines.len());
            let line = if rng.one_in(2) {
                at.min(other.len() - 1)
            } else {
                rng.place(other.len())
            };
            lines[at] = other[line].to_string();
            "line of another text"
        }),
        13 => lines(rng, text, |rng, lines| {
            let other: Vec<String> = other.split('\n').map(String::from).collect();
            let cut = rng.place(lines.len());
            lines.truncate(cut);
            lines.extend_from_slice(&other[cut.min(other.len())..]);
            "spliced with another text"
        }),
        14 => {
            let dash = *rng.pick(&DASHES);
            *text = text.replacen('\u{2014}', dash, 1 + rng.place(2));
            "dash that is none"
        }
        15 => {
            let (from, to) = *rng.pick(&LOOKALIKES);
            *text = replace_one(rng, text, from, to);
            "letter that looks alike"
        }
        16 | 17 => number(rng, text),
        18..=21 => base64(rng, text),
        22 => {
            let to = rng.word(&["  ", "\t", ""]);
            *text = replace_one(rng, text, " ", to);
            "space changed"
        }
        _ => {
            *text = other.to_string();
            "another text"
        }
    }
}

/// A place between two letters, before the last.
fn boundary(rng: &mut Rng, text: &str) -> Option<usize> {
    let places: Vec<usize> = match text.len() {
        0 => return None,
        // The letters around a random byte are enough.
        length => {
            let near = rng.place(length);
            (near.saturating_sub(3)..length.min(near + 4))
                .filter(|at| text.is_char_boundary(*at))
                .collect()
        }
    };
    (!places.is_empty()).then(|| *rng.pick(&places))
}

fn lines(
    rng: &mut Rng,
    text: &mut String,
    change: impl FnOnce(&mut Rng, &mut Vec<String>) -> &'static str,
) -> &'static str {
    let mut lines: Vec<String> = text.split('\n').map(String::from).collect();
    let name = change(rng, &mut lines);
    *text = lines.join("\n");
    name
}

fn replace_one(rng: &mut Rng, text: &str, from: &str, to: &str) -> String {
    let places: Vec<usize> = text.match_indices(from).map(|(at, _)| at).collect();
    if places.is_empty() {
        return text.to_string();
    }
    let at = *rng.pick(&places);
    [&text[..at], to, &text[at + from.len()..]].concat()
}

/// Writes one of the decimal numbers otherwise, or makes it another one.
fn number(rng: &mut Rng, text: &mut String) -> &'static str {
    let is_word = |c: char| c.is_ascii_digit();
    let numbers: Vec<(usize, &str)> = text
        .split([' ', '\n', '/'])
        .filter(|word| !word.is_empty() && word.len() <= 20 && word.chars().all(is_word))
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
        .collect();
    if numbers.is_empty() {
        return "no number to change";
    }
    let (at, word) = *rng.pick(&numbers);
    let value: u64 = word.parse().unwrap_or(0);
    let to = match rng.below(10) {
        0 => format!("0{word}"),
        1 => format!("+{word}"),
        2 => format!("{}", u128::from(value) + (1 << 64)),
        3 => format!("0x{value:x}"),
        4 => format!("{word}.0"),
        5 => u64::MAX.to_string(),
        6 => "0".to_string(),
        7 => value.wrapping_sub(1).to_string(),
        8 => value.wrapping_add(1).to_string(),
        _ => (1_u64 << rng.below(64)).to_string(),
    };
    *text = [&text[..at], &to, &text[at + word.len()..]].concat();
    "number changed"
}

/// Writes one of the base64 words otherwise, or changes what it means.
fn base64(rng: &mut Rng, text: &mut String) -> &'static str {
    let words: Vec<(usize, &str)> = text
        .split([' ', '\n'])
        .map(|word| {
            // A key has it after its last plus sign that can be one of the key's own.
            let tail = word.splitn(3, '+').nth(2).filter(|tail| tail.len() >= 40);
            tail.unwrap_or(word)
        })
        .filter(|word| word.len() >= 40)
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
        .collect();
    if words.is_empty() {
        return "no base64 to change";
    }
    let (at, word) = *rng.pick(&words);
    let mut to = word.to_string();
    let name = match rng.below(8) {
        0 => {
            to = to.trim_end_matches('=').to_string();
            "padding left out"
        }
        1 => {
            to.push('=');
            "padding put in"
        }
        2 | 3 => {
            // Bits that no byte takes.
            let digits = to.trim_end_matches('=').len();
            if digits < to.len() {
                let last = to.as_bytes()[digits - 1];
                let next = match last {
                    b'A'..=b'Y' | b'a'..=b'y' | b'0'..=b'8' => last + 1,
                    _ => b'/',
                };
                to.replace_range(digits - 1..digits, &char::from(next).to_string());
            }
            "bits after the last byte"
        }
        4 => {
            to = to.replace('+', "-").replace('/', "_");
            "other alphabet"
        }
        5 => {
            let place = rng.place(to.len());
            if to.is_char_boundary(place) {
                to.insert_str(place, rng.word(&["\n", " ", "=", "\r\n"]));
            }
            "base64 broken"
        }
        6 => {
            to.push_str(word);
            "base64 doubled"
        }
        _ => {
            let place = rng.place(to.len());
            if to.is_char_boundary(place) && to.is_char_boundary(place + 1) {
                to.replace_range(place..=place, rng.word(&["A", "B", "/", "w", "8"]));
            }
            "base64 digit changed"
        }
    };
    *text = [&text[..at], &to, &text[at + word.len()..]].concat();
    name
}
