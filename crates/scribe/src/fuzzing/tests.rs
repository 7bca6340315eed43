//! The targets over their corpora, on stable; and the corpora themselves, made again from the encoders.

#[path = "../../../../fuzz/src/replay.rs"]
mod replay;

use std::fs;

use super::TARGETS;

/// Opens a ledger, with its threads, for every input.
const SLOW: [&str; 1] = ["directory"];

/// One test for each, so that they run beside each other.
macro_rules! replayed {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                let name = stringify!($target);
                replay::replay(TARGETS, name, SLOW.contains(&name));
            }
        )*

        #[test]
        fn no_target_is_forgotten() {
            let replayed = [$(stringify!($target)),*];
            let names: Vec<&str> = TARGETS.iter().map(|target| target.0).collect();
            assert_eq!(names, replayed);
            replay::check_programs(TARGETS, "scribe::fuzzing");
        }
    };
}

replayed! {
    frame segment_file footer segment_list staged_segment directory vote_file watermarks manifest index_record batch
    applied_frame raft_message raft_append snapshot_offer membership peer_frames hello join_token certificate
    cluster_message cluster_file http_query http_key http_headers bulk_line json_body last_signed witness_state
    witness_floors witness_logs import_line openings config_file quantities
}

/// Inputs for settings: target, name, bytes.
fn settings_seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let sample = fs::read_to_string(replay::fuzz().join("../scribe.toml")).unwrap();
    let mut made = Vec::new();
    for (name, text) in [
        ("sample", &*sample),
        (
            "data",
            "data_dir = \"data\"\nhttp_addr = \"127.0.0.1:7000\"\n",
        ),
        (
            "kinds",
            "learner = true\nready_lag_max = 4096\nheartbeat_interval = \"50ms\"\n",
        ),
        ("list", "witness = [\"https://example.com\"]\n"),
        ("table", "[http]\naddr = \"127.0.0.1:7000\"\n"),
        ("unknown", "data_dri = \"data\"\n"),
    ] {
        made.push(("config_file", name, text.as_bytes().to_vec()));
    }
    for (name, text) in [
        ("mebibytes", "64MiB"),
        ("kilobytes", "10kB"),
        ("milliseconds", "50ms"),
        ("days", "7d"),
        ("grouped", "1_000_000"),
        ("nothing", "0"),
        ("too-large", "99999999999999999999h"),
    ] {
        made.push(("quantities", name, text.as_bytes().to_vec()));
    }
    made
}

/// Writes the corpora again from the encoders: `cargo test -p scribe --lib corpora_from_the_encoders -- --ignored`.
/// Inputs a fuzzer found have names of their own and stay.
#[test]
#[ignore = "writes files"]
fn corpora_from_the_encoders() {
    let mut seeds = settings_seeds();
    seeds.extend(crate::store::fuzzing::seeds());
    seeds.extend(crate::ledger::fuzzing::seeds());
    seeds.extend(crate::consensus::fuzzing::seeds());
    seeds.extend(crate::peer::fuzzing::seeds());
    seeds.extend(crate::cluster::fuzzing::seeds());
    seeds.extend(crate::http::fuzzing::seeds());
    seeds.extend(crate::keys::fuzzing::seeds());
    seeds.extend(crate::witness::fuzzing::seeds());
    seeds.extend(crate::cli::fuzzing::seeds());
    for (target, name, bytes) in seeds {
        assert!(TARGETS.iter().any(|known| known.0 == target), "{target}");
        let directory = replay::fuzz().join("corpus").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes).unwrap();
    }
}
