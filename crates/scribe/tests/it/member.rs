//! Members of a cluster as what they are in the field: processes of the real binary.
//!
//! `SCRIBE_BIN` names another binary, such as a release build, to be tested in place of this build's own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use scribe_client::{Client, RetryPolicy};

use crate::test_cluster::eventually_within;

/// How long a node may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a node's log that are shown when its test fails.
const LOG_LINES: usize = 40;

/// The program to test.
pub fn binary() -> PathBuf {
    std::env::var_os("SCRIBE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_scribe").into(), PathBuf::from)
}

/// Runs the program to its end; what it printed.
pub fn scribe(words: &[&str]) -> String {
    let output = Command::new(binary()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scribe {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes the directories of a cluster of nodes with these addresses (Raft, HTTP). Returns what each is started with,
/// behind `scribe serve`.
pub fn init(out: &Path, addresses: &BTreeMap<u64, (String, String)>) -> BTreeMap<u64, Vec<String>> {
    let nodes: Vec<String> = addresses
        .iter()
        .map(|(id, (raft, http))| format!("--node={id}={raft},{http}"))
        .collect();
    let out = out.to_str().unwrap();
    let mut words = vec!["cluster", "init", "--output=json", "--out", out];
    words.extend(nodes.iter().map(String::as_str));
    let made = scribe(&words);
    let start = |line: &str| {
        let made: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = made["node_id"].as_u64().unwrap();
        // It is printed for the directory's own machine; here all are started from where the tests run.
        let (_, flags) = made["start"]
            .as_str()
            .unwrap()
            .split_once(" serve ")
            .unwrap();
        let words = flags.split(' ').map(|word| match word.strip_prefix("./") {
            Some(below) => format!("{out}/node-{id}/{below}"),
            None => word.to_owned(),
        });
        (id, words.collect())
    };
    made.lines().map(start).collect()
}

/// Waits until each of these nodes says that all members have trees of the same size, and checks that they are equal.
pub async fn same_everywhere(members: impl IntoIterator<Item = &Member>, patience: Duration) {
    let clients: Vec<Client> = members.into_iter().map(Member::client).collect();
    let mut trees = Vec::new();
    eventually_within(patience, "every node has applied the same", async || {
        trees.clear();
        for client in &clients {
            let members = client.members().await.unwrap_or_default();
            if members.is_empty() {
                return false;
            }
            trees.extend(members.into_iter().map(|of| (of.tree_size, of.root)));
        }
        trees
            .iter()
            .all(|(size, _)| size.is_some() && *size == trees[0].0)
    })
    .await;
    assert!(
        trees.iter().all(|tree| *tree == trees[0]),
        "roots differ: {trees:?}"
    );
}

/// A node's process; killed when dropped.
pub struct Member {
    name: String,
    command: Vec<String>,
    child: Option<(Child, ChildStdin)>,
    log: PathBuf,
    pub url: String,
}

impl Member {
    /// Starts `scribe serve` with these flags, in a network namespace if one is named.
    pub fn start(name: &str, home: &Path, flags: &[String], space: Option<&str>) -> Member {
        let program = binary().to_str().unwrap().to_owned();
        let mut command = Vec::new();
        if let Some(space) = space {
            command.extend(["ip", "netns", "exec", space].map(str::to_owned));
        }
        command.extend([program, "serve".into(), "--stop-with-stdin".into()]);
        command.extend(flags.iter().cloned());
        // Where it listens may be everywhere, which is no place to connect to.
        let is_told = |name: &str| flags.iter().position(|flag| flag == name);
        let http = is_told("--http-advertise-addr").or_else(|| is_told("--http-addr"));
        let http = http.unwrap();
        let mut member = Member {
            name: name.to_owned(),
            command,
            child: None,
            log: home.join(format!("{name}.log")),
            url: format!("http://{}", flags[http + 1]),
        };
        member.restart();
        member
    }

    /// Starts it again after it was stopped or killed.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log);
        // It stops when its input is closed, which a test that dies cannot forget.
        let mut command = Command::new(&self.command[0]);
        for (name, _) in std::env::vars() {
            // Meant for the tests; what is to be logged is the one setting one may want to pass on.
            if name.starts_with("SCRIBE_") && name != "SCRIBE_LOG" {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        self.child = Some((child, input));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let (mut child, input) = self.child.take().unwrap();
        drop(input);
        let deadline = Instant::now() + STOP_PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{} did not stop within {STOP_PATIENCE:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(status.success(), "{}: {status}", self.name);
    }

    /// A client that asks this node alone, and once.
    pub fn client(&self) -> Client {
        let retry = RetryPolicy {
            deadline: Duration::ZERO,
            // Beyond the node's own deadlines: its answer is what is tested.
            attempt_timeout: Duration::from_secs(30),
        };
        Client::builder(&self.url).retry(retry).build().unwrap()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- {} said in the end:\n{}", self.name, tail.join("\n"));
        }
    }
}
