//! The fuzz targets of `fuzz/`, run over their corpora on stable, each input also cut and changed.
//!
//! libFuzzer does the real work (`just fuzz`); this keeps what it found, and the targets themselves,
//! from going stale.

#[path = "../../../fuzz/src/proof.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

/// Inputs up to this length are also cut at every place and changed at every byte.
const CHANGED_LENGTH_MAX: usize = 1500;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{target} has hardly any corpus");
    inputs
}

/// Every input as it is, and in `changed` ways.
fn replay(name: &str) {
    let (_, target) = targets::TARGETS
        .iter()
        .find(|target| target.0 == name)
        .unwrap();
    for (path, input) in corpus(name) {
        // Shown if the target panics.
        println!("{}", path.display());
        target(&input);
        if input.len() > CHANGED_LENGTH_MAX {
            continue;
        }
        // Seven is prime to every length of a field, so with time every place is met.
        let places = (0..input.len()).step_by(if input.len() > 300 { 7 } else { 1 });
        let mut changed = input.clone();
        for at in places {
            println!("  at byte {at}");
            target(&input[..at]);
            for to in [0, 0x0a, 0x20, 0x3d, 0xff, input[at] ^ 1, input[at] ^ 0x80] {
                changed[at] = to;
                target(&changed);
            }
            changed[at] = input[at];
        }
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn no_target_is_forgotten() {
            let replayed = [$(stringify!($target)),*];
            let names = targets::TARGETS.map(|target| target.0);
            assert_eq!(names, replayed);
            let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
            for name in names {
                let path = fuzz().join("fuzz_targets").join(name).with_extension("rs");
                let text = fs::read_to_string(path).unwrap();
                assert!(text.contains(&format!("proof::{name}(data)")), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

replayed! {
    leaf metadata note checkpoint cosignature policy receipt tile_path entry_bundle verifier_key
    witness_request witness_answer
}

/// Inputs far beyond every limit are refused, whatever they begin like.
#[test]
fn long_inputs() {
    for (name, target) in targets::TARGETS {
        for (path, input) in corpus(name).iter().take(4) {
            println!("{}", path.display());
            for filler in [
                &b"\n"[..],
                b"A",
                b" ",
                b"x001/",
                b"\xe2\x80\x94 a AAAAAAA=\n",
                b"\0\0",
            ] {
                let mut long = input.clone();
                long.extend(filler.iter().cycle().take(400_000));
                target(&long);
                long.rotate_left(input.len());
                target(&long);
            }
        }
    }
}
