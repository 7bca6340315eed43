//! Fuzz targets: what a client reads of a node's answers, and of a witness's address. `fuzz/` runs them, and a plain
//! test over their corpora. Only in builds with the feature `fuzzing`, which no release has, and in tests.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ndjson::Lines;
use super::sse::Events;
use crate::verify::check_entry;
use crate::wire;
use crate::witness::WitnessAddress;

/// A target: what it is called, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("answer", answer),
    ("answer_stream", answer_stream),
    ("witness_address", witness_address),
];

/// Reads, writes, and reads again.
fn json<T: DeserializeOwned + Serialize>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&read).expect("JSON");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    Some(read)
}

/// Longest answer read here. An element of a list takes some fifteen bytes of JSON and thirty times as much in memory:
/// what a client reads into memory is bounded by the length of the answer alone, which its user sets.
const ANSWER_LENGTH_MAX: usize = 32 * 1_024;

/// The body of an answer; the first byte says of which.
pub fn answer(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let body = &body[..body.len().min(ANSWER_LENGTH_MAX)];
    match kind % 14 {
        0 => drop(json::<wire::Appended>(body)),
        1 => drop(json::<wire::History>(body)),
        2 => {
            for key in json::<wire::KeyList>(body)
                .into_iter()
                .flat_map(|list| list.keys)
            {
                let _ = key.key_bytes();
            }
        }
        3 => drop(json::<wire::KeysGetResponse>(body)),
        4 => drop(json::<wire::TransactionResponse>(body)),
        5 => {
            let Some(entry) = json::<wire::EntryView>(body) else {
                return;
            };
            if let Ok(hash) = check_entry(&entry) {
                // Nothing holds that a leaf does not say.
                assert_eq!(entry.leaf_hash, hash.into());
                assert!(entry.leaf_base64.is_some());
                let mut other = entry.clone();
                other.timestamp_ms ^= 1;
                assert!(check_entry(&other).is_err(), "a time nobody signed");
            }
        }
        6 => drop(json::<wire::EntryPage>(body)),
        7 => drop(json::<wire::InclusionProof>(body)),
        8 => drop(json::<wire::ConsistencyProof>(body)),
        9 => drop(json::<wire::LedgerInfo>(body)),
        10 => drop(json::<wire::ReceiptsResponse>(body)),
        11 => {
            if let Some(problem) = json::<wire::Problem>(body) {
                assert_eq!(
                    problem.error_code().is_some(),
                    problem.code.parse::<crate::ErrorCode>().is_ok()
                );
                let _ = problem.is_retryable();
            }
        }
        12 => drop(json::<wire::Cluster>(body)),
        _ => drop(json::<wire::ClusterToken>(body)),
    }
}

/// The answer to a bulk upload, or the events of a watch, in pieces: what comes out does not depend on where they end.
pub fn answer_stream(data: &[u8]) {
    let Some((piece, body)) = data.split_first() else {
        return;
    };
    let piece = usize::from(*piece) + 1;
    let (whole, cut) = (lines_of(body, body.len().max(1)), lines_of(body, piece));
    assert_eq!(whole, cut, "lines depend on where pieces end");
    assert!(whole.iter().map(Vec::len).sum::<usize>() <= body.len());
    for line in &whole {
        let Ok(reply) = serde_json::from_slice::<wire::BulkReply>(line) else {
            continue;
        };
        let mut written = Vec::new();
        reply.write_line(&mut written);
        let again: wire::BulkReply =
            serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, reply);
    }
    let (whole, cut) = (events_of(body, body.len().max(1)), events_of(body, piece));
    assert_eq!(whole, cut, "events depend on where pieces end");
    for (_, data) in whole {
        let _ = json::<wire::EntryView>(data.as_bytes());
        let _ = json::<wire::WatchProgress>(data.as_bytes());
    }
}

fn lines_of(body: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in body.chunks(piece) {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next() {
            found.push(line.to_vec());
        }
    }
    found
}

fn events_of(body: &[u8], piece: usize) -> Vec<(String, String)> {
    let mut events = Events::default();
    let mut found = Vec::new();
    for piece in body.chunks(piece) {
        events.push(piece);
        while let Ok(Some(event)) = events.next() {
            found.push((event.name, event.data));
        }
    }
    found
}

/// The address of an outside witness.
pub fn witness_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(address) = text.parse::<WitnessAddress>() {
        let printed = address.to_string();
        let again: WitnessAddress = printed.parse().expect("what was printed can be read");
        assert_eq!(again.to_string(), printed);
    }
}

#[cfg(test)]
mod tests;
