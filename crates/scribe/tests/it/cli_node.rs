//! The program against itself: a served node, the client verbs, and a ledger carried over to another directory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SCRIBE: &str = env!("CARGO_BIN_EXE_scribe");

/// `scribe serve` in a directory of its own, on a free port; killed when dropped.
pub struct Served {
    dir: tempfile::TempDir,
    child: Child,
    /// Where it says that it is.
    pub url: String,
    vkey: String,
}

/// The program in a directory, with no settings of the environment.
pub fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(SCRIBE);
    command.args(arguments).current_dir(dir);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCRIBE_")) {
        command.env_remove(name);
    }
    command
}

impl Served {
    pub fn start() -> Served {
        Served::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(dir: tempfile::TempDir) -> Served {
        Served::start_with(dir, ".", &["serve", "--http-addr", "127.0.0.1:0"])
    }

    /// Starts it with these arguments in this directory below `dir`, and reads what it says until it runs.
    pub fn start_with(dir: tempfile::TempDir, below: &str, arguments: &[&str]) -> Served {
        let command = command(&dir.path().join(below), arguments);
        Served::start_command(dir, command)
    }

    /// As [`Served::start_with`], with a command that was made already; `dir` goes with the node.
    pub fn start_command(dir: tempfile::TempDir, mut command: Command) -> Served {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut url, mut vkey) = (String::new(), String::new());
        let mut said = Vec::new();
        for line in lines.by_ref().map(|line| line.unwrap()) {
            if let Some(found) = line.trim().strip_prefix("URL ") {
                found.trim().clone_into(&mut url);
            }
            if let Some(found) = line.trim().strip_prefix("public key ") {
                found.trim().clone_into(&mut vkey);
            }
            let is_last = line.contains("curl ");
            said.push(line);
            if is_last {
                break;
            }
        }
        assert!(!url.is_empty() && !vkey.is_empty(), "{said:?}");
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Served {
            dir,
            child,
            url,
            vkey,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a verb against it; the exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = command(self.dir.path(), arguments)
            .env("SCRIBE_SERVER", &self.url)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// As [`Served::ok`], for a verb that answers with one JSON object.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) -> tempfile::TempDir {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn put_get_prove_verify_tamper() {
    let node = Served::start();
    let vkey = node.vkey.clone();
    let first = node.json(&["put", "greeting", "hello"])["index"]
        .as_u64()
        .unwrap();
    assert_eq!(node.ok(&["get", "greeting"]), "hello");
    node.ok(&["prove", "greeting", "--out", "greeting.tlog-proof"]);
    node.ok(&["get", "greeting", "--out", "greeting.txt"]);
    let verify = [
        "verify",
        "greeting.tlog-proof",
        "--value",
        "greeting.txt",
        "--vkey",
        &vkey,
    ];
    let said = node.ok(&verify);
    assert!(said.starts_with("valid\nkey    greeting\n"), "{said}");
    assert!(
        said.contains(&format!("index  {first}\nkind   put\n")),
        "{said}"
    );

    // The node's own policy holds too.
    let policy = node.ok(&["checkpoint", "--print", "policy"]);
    fs::write(node.path("policy"), policy).unwrap();
    let said = node.ok(&["verify", "greeting.tlog-proof", "--policy", "policy"]);
    assert!(said.contains("cosigned by"), "{said}");

    fs::write(node.path("greeting.txt"), "hellp").unwrap();
    let (code, _, stderr) = node.run(&verify);
    assert_eq!(
        (code, stderr.contains("value does not match")),
        (3, true),
        "{stderr}"
    );

    // Versions, a failed condition, a tombstone.
    let index = first.to_string();
    node.ok(&["put", "greeting", "hello again", "--if-index", &index]);
    let (code, _, stderr) = node.run(&["put", "greeting", "late", "--if-index", &index]);
    assert_eq!(
        (code, stderr.contains("condition_failed")),
        (1, true),
        "{stderr}"
    );
    assert_eq!(node.ok(&["get", "greeting", "--index", &index]), "hello");
    node.ok(&["delete", "greeting"]);
    let (code, stdout, stderr) = node.run(&["get", "greeting"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("was deleted at index"), "{stderr}");
    assert_eq!(node.ok(&["history", "greeting"]).lines().count(), 3);
    assert_eq!(node.ok(&["list", "--all"]), "");
    assert_eq!(
        node.ok(&["watch", "--from", &index, "--limit", "3"])
            .lines()
            .count(),
        3
    );

    // What was signed stays consistent.
    let note = node.ok(&["checkpoint", "--vkey", &vkey]);
    assert!(note.lines().count() >= 5, "{note}");
    let (code, _, stderr) = node.run(&["checkpoint", "--vkey", "other.example+1e2a9d64+AeD3"]);
    assert_eq!(code, 1, "{stderr}");
}

#[test]
fn a_ledger_is_carried_over_with_the_same_root_hash() {
    let node = Served::start();
    let mut lines = String::new();
    for n in 0..3_000 {
        lines.push_str(&format!("{:064x}  /usr/file/{}\n", n, n % 2_500));
    }
    fs::write(node.path("sums"), lines).unwrap();
    let import = [
        "import",
        "sums",
        "--format",
        "lines",
        "--delimiter",
        "  ",
        "--key-field",
        "2",
    ];
    assert_eq!(node.json(&import)["failed"], 0);
    node.ok(&["delete", "/usr/file/7"]);
    assert_eq!(node.ok(&["list", "--all"]).lines().count(), 2_499);
    assert_eq!(node.ok(&["history", "/usr/file/3"]).lines().count(), 2);
    let exported = node.json(&["export", "--out", "ledger.ndjson"]);
    let text = fs::read_to_string(node.path("ledger.ndjson")).unwrap();
    assert!(!node.path("ledger.ndjson.partial").exists());

    // A file that was changed, and one that was cut off.
    let changed = text.replacen("\"value\":\"00", "\"value\":\"01", 1);
    fs::write(node.path("changed.ndjson"), changed).unwrap();
    let (code, _, stderr) = node.run(&[
        "import",
        "changed.ndjson",
        "--data-dir",
        "bad",
        "--key-dir",
        "badkeys",
    ]);
    assert_eq!((code, stderr.contains("commitment")), (3, true), "{stderr}");
    let half: String = text
        .lines()
        .take(1_500)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(node.path("half.ndjson"), half).unwrap();
    let carry = |file: &str| {
        node.run(&[
            "import",
            file,
            "--data-dir",
            "copy",
            "--key-dir",
            "copykeys",
            "--output",
            "json",
        ])
    };
    let (code, _, stderr) = carry("half.ndjson");
    assert_eq!((code, stderr.contains("cut off")), (1, true), "{stderr}");

    // The rest goes on where it stopped; once more changes nothing.
    for skipped in [1_499, exported["tree_size"].as_u64().unwrap()] {
        let (code, stdout, stderr) = carry("ledger.ndjson");
        assert_eq!(code, 0, "{stderr}");
        let imported: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(imported["root_hash"], exported["root_hash"]);
        assert_eq!(imported["skipped"], skipped);
    }
    let copy = ["--data-dir", "copy", "--key-dir", "copykeys"];
    node.ok(&[&["export", "--out", "again.ndjson"], &copy[..]].concat());
    let again = fs::read_to_string(node.path("again.ndjson")).unwrap();
    // All but the first line, which names another origin.
    assert!(again.lines().skip(1).eq(text.lines().skip(1)));
    let checked = node.json(&[&["repair", "--check"], &copy[..]].concat());
    let root = exported["root_hash"].as_str().unwrap();
    assert!(
        checked["summary"].as_str().unwrap().contains(root),
        "{checked}"
    );
    for action in ["--rebuild-index", "--accept-loss"] {
        let repaired = node.json(&["repair", action, "--data-dir", "copy"]);
        assert_eq!(repaired["healthy"], true, "{repaired}");
    }

    // Another ledger is not written over, and a directory in use is left alone.
    let other = [
        "import",
        "ledger.ndjson",
        "--data-dir",
        "scribe-data",
        "--key-dir",
        "scribe-keys",
    ];
    let (code, _, stderr) = node.run(&other);
    assert_eq!((code, stderr.contains("locked")), (2, true), "{stderr}");
    let (code, _, stderr) = node.run(&["repair", "--check", "--data-dir", "nowhere"]);
    assert_eq!(
        (code, stderr.contains("no data directory")),
        (1, true),
        "{stderr}"
    );
}

#[test]
fn many_receipts_at_once() {
    let node = Served::start();
    let lines: String = (0..1_203).map(|n| format!("k{n}\tvalue {n}\n")).collect();
    fs::write(node.path("lines"), &lines).unwrap();
    node.ok(&["import", "lines", "--format", "lines"]);
    let keys: String = (0..1_203).map(|n| format!("k{n}\n")).collect();
    fs::write(node.path("keys"), keys + "\n").unwrap();
    let prove = [
        "prove",
        "--keys-from",
        "keys",
        "--out-dir",
        "receipts",
        "--output",
        "json",
    ];
    let proved = node.ok(&prove);
    assert_eq!(proved.lines().count(), 1_203);
    assert_eq!(fs::read_dir(node.path("receipts")).unwrap().count(), 1_203);
    for line in proved.lines().step_by(300) {
        let proved: serde_json::Value = serde_json::from_str(line).unwrap();
        let key = proved["key"].as_str().unwrap();
        let value = node.ok(&["get", key]);
        fs::write(node.path("value"), value).unwrap();
        let file = proved["file"].as_str().unwrap();
        assert_eq!(file, format!("receipts/{}.tlog-proof", proved["index"]));
        let verify = ["verify", file, "--value", "value", "--entry-key", key];
        node.ok(&[&verify[..], &["--vkey", &node.vkey]].concat());
    }
    // Those that are there are written, the others are named.
    let some = ["prove", "k1", "never", "k2", "--out-dir", "some"];
    let (code, stdout, stderr) = node.run(&some);
    assert_eq!((code, stdout.lines().count()), (1, 2), "{stdout}{stderr}");
    assert!(
        stderr.contains("1 of 3 keys have no receipt") && stderr.contains("`never`"),
        "{stderr}"
    );
    for wrong in [
        &["prove", "k1", "k2", "--out", "x"][..],
        &["prove", "k1"],
        &["prove", "--out-dir", "x"],
        &["prove", "k1", "--out-dir", "x", "--index", "5"],
        &["prove", "k1", "--out-dir", "x", "--out", "y"],
    ] {
        assert_eq!(node.run(wrong).0, 1, "{wrong:?}");
    }
}

#[test]
fn a_stopped_node_goes_on_where_it_was() {
    let node = Served::start();
    let vkey = node.vkey.clone();
    node.ok(&["put", "kept", "value", "--wait", "published"]);
    node.ok(&["checkpoint"]);
    let dir = node.stop();
    let node = Served::start_in(dir);
    assert_eq!(node.vkey, vkey);
    assert_eq!(node.ok(&["get", "kept"]), "value");
}

#[test]
fn lines_that_are_refused_are_named_and_the_others_are_in() {
    let node = Served::start();
    fs::write(node.path("bulk"), "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"\",\"value\":\"2\"}\n{\"key\":\"c\",\"value\":\"3\"}\n")
        .unwrap();
    let (code, _, stderr) = node.run(&["import", "bulk", "--format", "bulk"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("line 3: ") && stderr.contains("1 of 3 lines were refused"),
        "{stderr}"
    );
    assert_eq!(node.ok(&["list"]).lines().count(), 2);

    fs::write(node.path("lines"), "d\t4\nno tab here\ne\t5\n").unwrap();
    let (code, _, stderr) = node.run(&["import", "lines", "--format", "lines"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("line 2: "), "{stderr}");
    assert_eq!(node.ok(&["get", "d"]), "4");

    // The same lines under the same idempotency key are appended once.
    fs::write(node.path("once"), "f\t6\n").unwrap();
    for _ in 0..2 {
        node.ok(&[
            "import",
            "once",
            "--format",
            "lines",
            "--idempotency-key",
            "run",
        ]);
    }
    assert_eq!(node.ok(&["history", "f"]).lines().count(), 1);
}
