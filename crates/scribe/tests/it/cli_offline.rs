//! Commands that need no node: what they print, and how they exit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scribe_proof::tree::MemoryTree;
use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafIndex, LeafKind, Metadata, Opening, Prev, Receipt,
    SignedCheckpoint, SigningKey, TreeSize, commitment, consistency, inclusion, leaf_hash,
};

const ORIGIN: &str = "example.com/ledger";

/// A directory to run the program in, and what it holds of a small ledger.
struct Place {
    dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn scribe(&self, arguments: &[&str]) -> Ended {
        self.scribe_with(arguments, &[])
    }

    fn scribe_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scribe"));
        command.args(arguments).current_dir(self.dir.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCRIBE_")) {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        Ended {
            code: output.status.code().expect("exit code"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

fn leaf(key: &[u8], value: &[u8]) -> Vec<u8> {
    let metadata = Metadata::default().encode().unwrap();
    let mut bytes = Vec::new();
    Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 1_700_000_000_123,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::NotAsserted,
        commitment: commitment(&[7; 16], &metadata, value),
        key,
        author: b"",
        body: b"",
    }
    .encode_into(&mut bytes)
    .unwrap();
    bytes
}

fn checkpoint(tree: &MemoryTree, signer: &SigningKey) -> String {
    let checkpoint = Checkpoint::new(ORIGIN, tree.size(), tree.root());
    SignedCheckpoint::sign(checkpoint, &[signer])
        .unwrap()
        .to_text()
}

/// A ledger of five entries, the third of which is `greeting` = `hello`, with its receipt.
fn receipt(place: &Place) -> String {
    let mut tree = MemoryTree::new();
    let leaves: Vec<Vec<u8>> = (0..5u8)
        .map(|n| {
            if n == 2 {
                leaf(b"greeting", b"hello")
            } else {
                leaf(&[b'k', n], b"")
            }
        })
        .collect();
    for leaf in &leaves {
        tree.append(leaf_hash(leaf));
    }
    let receipt = Receipt {
        leaf: leaves[2].clone(),
        opening: Some(Opening {
            salt: [7; 16],
            metadata: Metadata::default().encode().unwrap(),
        }),
        index: LeafIndex::new(2),
        proof: inclusion::prove(&tree, LeafIndex::new(2), tree.size()).unwrap(),
        checkpoint_note: checkpoint(&tree, &key(1)),
    }
    .to_text();
    place.write("greeting.tlog-proof", &receipt);
    place.write("greeting.txt", "hello");
    place.write("vkey", key(1).verifier_key().to_text());
    receipt
}

#[test]
fn a_receipt_is_valid_and_says_what_it_is_about() {
    let place = Place::new();
    receipt(&place);
    let vkey = key(1).verifier_key().to_text();
    let full = [
        "verify",
        "greeting.tlog-proof",
        "--value",
        "greeting.txt",
        "--entry-key",
        "greeting",
    ];
    let ended = place.scribe(&[&full[..], &["--vkey", &vkey]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(ended.stdout, @r"
    valid
    key    greeting
    index  2
    kind   put
    time   2023-11-14T22:13:20.123Z
    ledger example.com/ledger (tree size 5)
    ");
    // The key may be in a file, and the value left out.
    let ended = place.scribe(&["verify", "greeting.tlog-proof", "--vkey", "vkey"]);
    assert_eq!(ended.code, 0);
    assert!(
        ended.stdout.starts_with("valid (existence only"),
        "{}",
        ended.stdout
    );
    let ended = place.scribe(&[&full[..], &["--vkey", "vkey", "--output", "json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&json["valid"], &json["key"], &json["index"]),
        (&true.into(), &"greeting".into(), &2.into())
    );
}

#[test]
fn every_mismatch_is_exit_3_and_names_itself() {
    let place = Place::new();
    receipt(&place);
    place.write("other.txt", "hallo");
    place.write("longer.txt", "hello\n");
    let other_key = key(2).verifier_key().to_text();
    let verify = |more: &[&str]| place.scribe(&[&["verify", "greeting.tlog-proof"], more].concat());
    for (arguments, names) in [
        (
            &["--vkey", "vkey", "--value", "other.txt"][..],
            "value does not match",
        ),
        (
            &["--vkey", "vkey", "--value", "longer.txt"],
            "value does not match",
        ),
        (
            &["--vkey", "vkey", "--entry-key", "greetings"],
            "entry key does not match",
        ),
        (&["--vkey", &other_key], "signature does not match"),
    ] {
        let ended = verify(arguments);
        assert_eq!(ended.code, 3, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(names), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("hint: "), "{arguments:?}: {ended:?}");
    }
    // A valid receipt of somebody else's entry shows whose it is.
    let ended = verify(&["--vkey", "vkey", "--entry-key", "mine"]);
    assert!(ended.stdout.contains("key    greeting"), "{ended:?}");
    assert!(ended.stdout.starts_with("DOES NOT MATCH"), "{ended:?}");
}

#[test]
fn one_flipped_bit_anywhere_in_a_receipt_is_exit_3() {
    let place = Place::new();
    let receipt = receipt(&place).into_bytes();
    // The program is run for some bytes of each line; the proof crate's own tests flip every bit.
    for at in (0..receipt.len()).step_by(receipt.len() / 24) {
        let mut flipped = receipt.clone();
        flipped[at] ^= if at % 2 == 0 { 0x01 } else { 0x80 };
        place.write("flipped", &flipped);
        let ended = place.scribe(&[
            "verify",
            "flipped",
            "--vkey",
            "vkey",
            "--value",
            "greeting.txt",
        ]);
        assert_eq!(ended.code, 3, "byte {at}: {ended:?}");
    }
}

#[test]
fn mistakes_are_exit_1() {
    let place = Place::new();
    receipt(&place);
    for (arguments, says) in [
        (&["verify"][..], "required"),
        (
            &["verify", "missing", "--vkey", "vkey"],
            "cannot read `missing`",
        ),
        (&["verify", "greeting.tlog-proof"], "--vkey or --policy"),
        (
            &["verify", "greeting.tlog-proof", "--vkey", "nonsense"],
            "cannot read --vkey",
        ),
        (
            &[
                "verify",
                "greeting.tlog-proof",
                "--vkey",
                "vkey",
                "--value",
                "missing",
            ],
            "`missing`",
        ),
        (&["nonsense"], "unrecognized subcommand"),
        (&["get", ""], "key must be 1 to 1024 bytes long, found 0"),
        (&["put", "key"], "required"),
    ] {
        let ended = place.scribe(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_node_that_is_not_there_is_exit_2_with_a_hint() {
    let place = Place::new();
    // Bound and dropped: nobody listens on this port.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    for verb in [&["bench", "--seconds", "1"][..], &["checkpoint"]] {
        let ended = place.scribe_with(verb, &[("SCRIBE_SERVER", &url)]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("hint: is "), "{ended:?}");
    }
}

#[test]
fn two_checkpoints_are_checked_against_each_other() {
    let place = Place::new();
    let mut tree = MemoryTree::new();
    let mut notes = Vec::new();
    for n in 0..9u8 {
        tree.append(leaf_hash(&leaf(&[n], b"")));
        notes.push(checkpoint(&tree, &key(1)));
    }
    let (old, new) = (TreeSize::new(3), TreeSize::new(9));
    let proof = consistency::prove(&tree, old, new).unwrap();
    place.write("old", &notes[2]);
    place.write("new", &notes[8]);
    place.write("vkey", key(1).verifier_key().to_text());
    let lines: String = proof.iter().map(|hash| hash.to_base64() + "\n").collect();
    place.write("lines", &lines);
    let hashes: Vec<String> = proof.iter().map(Hash::to_hex).collect();
    let zero = Hash::default().to_hex();
    let json = serde_json::json!({
        "old_size": 3, "new_size": 9, "old_root_hash": zero, "new_root_hash": zero, "hashes": hashes,
    });
    place.write("json", json.to_string());
    let verify = |old: &str, new: &str, proof: &str| {
        place.scribe(&[
            "verify", "--old", old, "--new", new, "--proof", proof, "--vkey", "vkey",
        ])
    };
    for proof in ["lines", "json"] {
        let ended = verify("old", "new", proof);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(
            ended
                .stdout
                .contains("the first 3 entries are the same in the tree of 9"),
            "{ended:?}"
        );
    }
    let unsigned = place.scribe(&["verify", "--old", "old", "--new", "new", "--proof", "lines"]);
    assert!(
        unsigned.stdout.contains("signatures not checked"),
        "{unsigned:?}"
    );

    // Another history of the same size; a proof of something else; another signer; the wrong way round.
    let mut fork = MemoryTree::new();
    (0..9u8).for_each(|n| fork.append(leaf_hash(&leaf(&[n, n], b""))));
    place.write("fork", checkpoint(&fork, &key(1)));
    place.write("stranger", checkpoint(&tree, &key(2)));
    place.write("short", lines.lines().next().unwrap());
    for (old, new, proof, names) in [
        ("old", "fork", "lines", "consistency does not match"),
        ("old", "new", "short", "consistency does not match"),
        ("old", "stranger", "lines", "not signed"),
        ("new", "old", "lines", "consistency does not match"),
    ] {
        let ended = verify(old, new, proof);
        assert_eq!(ended.code, 3, "{old} {new} {proof}: {ended:?}");
        assert!(
            ended.stderr.contains(names),
            "{old} {new} {proof}: {ended:?}"
        );
    }
}

#[test]
fn check_config_shows_where_each_value_comes_from() {
    let place = Place::new();
    place.write(
        "scribe.toml",
        "data_dir = \"from-file\"\npublish_interval = \"1500ms\"\n",
    );
    let ended = place.scribe_with(
        &["check-config", "--value-length-max", "16MiB"],
        &[
            ("SCRIBE_KEY_DIR", "from-variable"),
            ("SCRIBE_KEYDIR", "typo"),
        ],
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    insta::assert_snapshot!(ended.stdout);
    insta::assert_snapshot!(ended.stderr, @"warning: variable `SCRIBE_KEYDIR` means nothing to scribe; closest is `SCRIBE_KEY_DIR`");

    place.write("scribe.toml", "data_dri = \"x\"\n");
    let ended = place.scribe(&["check-config"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(ended.stderr, @r"
    error: unknown setting `data_dri` in `scribe.toml`
    hint: did you mean `data_dir`? `scribe check-config` lists every setting
    ");
    let ended = place.scribe(&["check-config", "--config", "missing.toml"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("cannot read settings file `missing.toml`"),
        "{ended:?}"
    );
}

#[test]
fn another_bind_address_needs_insecure() {
    let place = Place::new();
    for arguments in [&["check-config"][..], &["serve"]] {
        let ended = place.scribe(&[arguments, &["--http-addr", "0.0.0.0:0"]].concat());
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains("--insecure"), "{ended:?}");
    }
    let ended = place.scribe(&["check-config", "--http-addr", "0.0.0.0:0", "--insecure"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!Path::new(&place.path("scribe-data")).exists());
}

#[test]
fn keygen_makes_a_key_once() {
    let place = Place::new();
    let keygen = ["keygen", "--origin", ORIGIN, "--out", "ledger.key"];
    let ended = place.scribe(&keygen);
    assert_eq!(ended.code, 0, "{ended:?}");
    let text = fs::read_to_string(place.path("ledger.key")).unwrap();
    let private = SigningKey::parse(text.trim_end()).unwrap();
    assert_eq!(ended.stdout.trim_end(), private.verifier_key().to_text());
    assert!(!ended.stdout.contains("PRIVATE") && !ended.stderr.contains("PRIVATE"));

    let ended = place.scribe(&keygen);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(fs::read_to_string(place.path("ledger.key")).unwrap(), text);
    assert_eq!(
        place
            .scribe(&["keygen", "--origin", "a b", "--out", "x.key"])
            .code,
        1
    );
}

#[test]
fn the_disk_alone_can_be_measured() {
    let place = Place::new();
    let ended = place.scribe(&[
        "bench",
        "--operation",
        "fdatasync",
        "--seconds",
        "1",
        "--output",
        "json",
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert!(
        report["latency_us"]["p99"].as_u64().unwrap()
            >= report["latency_us"]["p50"].as_u64().unwrap()
    );
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}
