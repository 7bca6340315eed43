//! The fuzz targets of `fuzz/`, run over their corpora on stable, each input also cut and changed.
//!
//! libFuzzer does the real work (`just fuzz`); this keeps what it found, and the targets themselves,
//! from going stale.

#[path = "../../../fuzz/src/proof.rs"]
mod targets;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

macro_rules! replayed {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                replay::replay(&targets::TARGETS, stringify!($target), false);
            }
        )*

        #[test]
        fn no_target_is_forgotten() {
            let replayed = [$(stringify!($target)),*];
            let names = targets::TARGETS.map(|target| target.0);
            assert_eq!(names, replayed);
            replay::check_programs(&targets::TARGETS, "proof");
        }
    };
}

replayed! {
    leaf metadata note checkpoint cosignature policy rotation receipt tile_path entry_bundle verifier_key
    witness_request witness_answer
}

/// Inputs far beyond every limit are refused, whatever they begin like.
#[test]
fn long_inputs() {
    for (name, target) in targets::TARGETS {
        for (path, input) in replay::corpus(name).iter().take(4) {
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
