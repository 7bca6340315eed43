//! The program with the files of a cluster and of HTTPS: directories that were copied, wrong paths, certificates.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::cli_node::{Served, command};
use crate::http_tls::Certificates;

fn run(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(dir, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Bound and dropped: nobody listens on it.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_printed_start_command_works_where_the_directory_was_copied_to() {
    let made = tempfile::tempdir().unwrap();
    let node = format!("1={},{}", free_address(), free_address());
    let init = ["cluster", "init", "--out", "made here", "--node", &node];
    let (code, stdout, stderr) = run(made.path(), &init);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("secret") && stderr.contains("signing key"),
        "{stderr}"
    );
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(
        made.path().join("made here/node-1"),
        elsewhere.path().join("node-1"),
    )
    .unwrap();

    let (directory, start) = stdout.trim().split_once(" && ").unwrap();
    let directory = directory.strip_prefix("cd ").unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[..3], ["scribe", "serve", "--member"]);
    let served = Served::start_with(elsewhere, directory, &words[1..]);
    assert!(served.path("node-1/data").is_dir());
    // A member of a cluster, not a lone node: others could join it.
    let token = served.json(&["cluster", "token"]);
    assert!(token["token"].is_string(), "{token}");
    served.stop();
}

#[test]
fn a_wrong_path_does_not_start_a_lone_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let serve = [
        "serve",
        "--member",
        "--http-addr",
        "127.0.0.1:0",
        "--key-dir",
        "node-1/keys",
    ];
    let (code, _, stderr) = run(dir.path(), &serve);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("`node-1/keys` is not a member's") && stderr.contains("hint: "),
        "{stderr}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

/// What the unit of a member runs, as systemd reads it: unit file, then drop-in. Its absolute directories are below
/// `root` here.
fn command_of_the_unit(root: &Path) -> Command {
    let unit = include_str!("../../../../packaging/systemd/scribe.service");
    let drop_in = include_str!("../../../../packaging/systemd/scribe-member.conf");
    let (mut start, mut variables, mut directory) = ("", "", "");
    for line in unit.lines().chain(drop_in.lines()) {
        match line.split_once('=') {
            // An empty one forgets those before it.
            Some(("ExecStart", words)) => start = words,
            Some(("Environment", pairs)) => variables = pairs,
            Some(("WorkingDirectory", path)) => directory = path,
            _ => {}
        }
    }
    let below = |path: &str| root.join(path.strip_prefix('/').unwrap());
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/scribe");
    std::fs::create_dir_all(below(directory)).unwrap();
    let mut command = command(&below(directory), &words[1..]);
    for pair in variables.split(' ') {
        let (name, path) = pair.split_once('=').unwrap();
        command.env(name, below(path));
    }
    command
}

#[test]
fn the_unit_of_a_member_starts_that_member_and_no_lone_ledger() {
    let root = tempfile::tempdir().unwrap();
    let output = command_of_the_unit(root.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is not a member's"), "{stderr}");

    let raft = free_address();
    let node = format!("1={raft},{}", free_address());
    let init = ["cluster", "init", "--out", "made", "--node", &node];
    let (code, _, stderr) = run(root.path(), &init);
    assert_eq!(code, 0, "{stderr}");
    std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
    std::fs::rename(
        root.path().join("made/node-1/keys"),
        root.path().join("var/lib/scribe-keys"),
    )
    .unwrap();
    let settings = format!("raft_addr = \"{raft}\"\nhttp_addr = \"127.0.0.1:0\"\n");
    std::fs::write(root.path().join("etc/scribe/scribe.toml"), settings).unwrap();
    let command = command_of_the_unit(root.path());
    let served = Served::start_command(root, command);
    assert!(served.path("var/lib/scribe").is_dir());
    let token = served.json(&["cluster", "token"]);
    assert!(token["token"].is_string(), "{token}");
    served.stop();
}

#[test]
fn verbs_speak_https_and_say_what_is_wrong() {
    let certificates = Certificates::new();
    let (cert, key) = (certificates.certificate(), certificates.key());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &certificates.ca_pem).unwrap();
    let serve = [
        "serve",
        "--http-addr",
        "127.0.0.1:0",
        "--http-tls-cert",
        cert,
        "--http-tls-key",
        key,
    ];
    let served = Served::start_with(dir, ".", &serve);
    assert!(served.url.starts_with("https://"), "{}", served.url);
    served.ok(&["put", "greeting", "hello", "--cacert", "ca.pem"]);
    assert_eq!(
        served.ok(&["get", "greeting", "--cacert", "ca.pem"]),
        "hello"
    );
    served.ok(&["cluster", "status", "--cacert", "ca.pem"]);
    let bench = [
        "bench",
        "--seconds",
        "1",
        "--warmup-seconds",
        "0",
        "--connections",
        "2",
    ];
    let measured = served.json(&[&bench[..], &["--cacert", "ca.pem"]].concat());
    assert_eq!(measured["errors"], 0, "{measured}");
    assert!(measured["operations"].as_u64() > Some(0), "{measured}");
    let (code, _, stderr) = served.run(&bench);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("hint: --cacert FILE"), "{stderr}");

    let (code, _, stderr) = served.run(&["get", "greeting"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("hint: --cacert FILE"), "{stderr}");
    let (code, _, stderr) = served.run(&["get", "greeting", "--cacert", "missing.pem"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("missing.pem"), "{stderr}");
    let plain = served.url.replace("https://", "http://");
    let (code, _, stderr) = served.run(&["get", "greeting", "--server", &plain]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("hint: use https://"), "{stderr}");
    served.stop();
}

#[test]
fn a_whole_cluster_speaks_https() {
    let certificates = Certificates::new();
    let (cert, key) = (certificates.certificate(), certificates.key());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &certificates.ca_pem).unwrap();
    let settings = ["--", "--http-tls-cert", cert, "--http-tls-key", key];
    let up = ["cluster", "up", "--nodes", "1", "--any-port"];
    // Nobody vouches for it: said at once, and nothing is left running.
    let (code, _, stderr) = run(dir.path(), &[&up[..], &settings].concat());
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("hint: --cacert FILE"), "{stderr}");

    let up = [&["cluster", "up", "--cacert", "ca.pem"][..], &settings].concat();
    let mut child = command(dir.path(), &up)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        said.push_str(&line);
        said.push('\n');
        if line == "cluster is ready" {
            break;
        }
    }
    // SIGTERM, so that it stops its nodes.
    let pid = child.id().to_string();
    let asked = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(asked.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(said.contains("  http https://127.0.0.1:"), "{said}");
    assert!(
        said.contains("curl --cacert ca.pem -X PUT --data-binary 'hello' https://"),
        "{said}"
    );
}

#[test]
fn settings_of_a_cluster_are_read_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    for settings in [
        &["--publish-interval", "never"][..],
        &["--no-such-setting"],
        &["--http-tls-cert", "x"],
    ] {
        let up = [&["cluster", "up", "--any-port", "--"][..], settings].concat();
        let (code, stdout, stderr) = run(dir.path(), &up);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    }
}

#[test]
fn a_reload_that_failed_is_not_called_done() {
    let certificates = Certificates::new();
    let (cert, key) = (certificates.certificate(), certificates.key());
    let whole = std::fs::read(&cert).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let serve = ["serve", "--http-addr", "127.0.0.1:0", "--http-tls-cert"];
    let files = [
        cert.to_str().unwrap(),
        "--http-tls-key",
        key.to_str().unwrap(),
    ];
    let mut child = command(dir.path(), &[&serve[..], &files].concat())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args([name, &pid])
            .status();
        assert!(sent.unwrap().success());
    };
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |text: &str| {
        let found = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(text));
        assert!(found.is_some(), "{text}");
    };
    until("curl ");
    std::fs::write(&cert, "nothing").unwrap();
    signal("-HUP");
    until("towards clients the old certificate stays in use");
    std::fs::write(&cert, whole).unwrap();
    signal("-HUP");
    until("certificates were read again");
    signal("-TERM");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(
        !rest.iter().any(|line| line.contains("read again")),
        "{rest:?}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
