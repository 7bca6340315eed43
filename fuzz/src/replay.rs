//! Runs fuzz targets over their corpora, each input also cut and changed, for the plain tests on stable.
//!
//! Included by the tests of each crate that has targets. libFuzzer does the real work (`just fuzz`); this keeps what it
//! found, and the targets themselves, from going stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A target: what it is called, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Inputs up to this length are also cut and changed at every place, or at one in seven.
const CHANGED_LENGTH_MAX: usize = 1_500;

/// The directory `fuzz/`.
pub(crate) fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs kept for a target.
pub(crate) fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
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

/// Runs a target, and says with which input if it panics.
fn run(target: fn(&[u8]), path: &Path, what: &str, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(input));
    assert!(outcome.is_ok(), "{} {what}", path.display());
}

/// Every input as it is, and in `changed` ways; `thinned` targets, which are slow, at fewer places.
pub(crate) fn replay(targets: &[Target], name: &str, thinned: bool) {
    let (_, target) = targets.iter().find(|target| target.0 == name).unwrap();
    for (path, input) in corpus(name) {
        run(*target, &path, "as it is", &input);
        if input.len() > CHANGED_LENGTH_MAX {
            continue;
        }
        // Seven is prime to every length of a field, so with time every place is met.
        let step = if input.len() > 300 || thinned { 7 } else { 1 };
        let mut changed = input.clone();
        for at in (0..input.len()).step_by(step) {
            run(*target, &path, &format!("cut at byte {at}"), &input[..at]);
            let all = [input[at] ^ 1, 0xff, 0, 0x0a, 0x20, 0x3d, input[at] ^ 0x80];
            for to in &all[..if thinned { 2 } else { all.len() }] {
                changed[at] = *to;
                run(*target, &path, &format!("{to} at byte {at}"), &changed);
            }
            changed[at] = input[at];
        }
    }
}

/// Every target has its program, which calls it as `module::name`.
pub(crate) fn check_programs(targets: &[Target], module: &str) {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut names = BTreeSet::new();
    for (name, _) in targets {
        let path = fuzz().join("fuzz_targets").join(name).with_extension("rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.contains(&format!("{module}::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(names.insert(name), "{name} is there twice");
    }
}
