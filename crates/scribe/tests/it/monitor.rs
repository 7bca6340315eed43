//! The monitor against healthy nodes, which it must leave in peace, and against nodes that hold the ledger's keys and show
//! another history with signatures that are all good.

use std::fs;
use std::path::Path;
use std::time::Duration;

use scribe::monitor::{Event, Kind, Monitor, MonitorOptions, Severity};
use scribe::node::{Node, NodeOptions};
use scribe_client::{Client, FilePin, RetryPolicy};
use scribe_proof::policy::Policy;
use scribe_proof::{Checkpoint, SignedCheckpoint, SigningKey, TreeSize, VerifierKey};
use tempfile::TempDir;

use crate::audit::serve;
use crate::cli_export_tiles::{StaticServer, copy};
use crate::cli_node::command;
use crate::support::TestServer;
use crate::test_cluster::TestCluster;
use crate::test_ledger::{TestLedger, options};

/// A client that does not wait long for who does not answer.
fn client(url: &str) -> Client {
    let retry = RetryPolicy {
        deadline: Duration::ZERO,
        ..RetryPolicy::default()
    };
    Client::builder(url).retry(retry).build().unwrap()
}

fn url(server: &TestServer) -> String {
    format!("http://{}", server.addr)
}

/// A monitor with its state and its evidence in `directory`.
fn monitor(urls: &[String], policy: &Policy, directory: &Path, entries: bool) -> Monitor {
    let options = MonitorOptions {
        clients: urls.iter().map(|url| client(url)).collect(),
        policy: Some(policy.clone()),
        evidence_dir: directory.to_owned(),
        entries,
        stale_after: Duration::from_secs(3_600),
    };
    let pin = FilePin::new(directory.join("state"));
    Monitor::new(options, Box::new(pin)).unwrap()
}

/// Appends and publishes; the tree size.
async fn grow(node: &Node, name: &str, count: usize) -> u64 {
    let signed = crate::audit::grow(node, name, count).await;
    signed.checkpoint().size.get()
}

/// A node that somebody started with the stolen keys of another, on a history of its own.
async fn forger(victim: &NodeOptions, directory: &Path) -> Node {
    let forged = options(directory);
    fs::create_dir_all(&forged.key_dir).unwrap();
    for entry in fs::read_dir(&victim.key_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            fs::copy(&path, forged.key_dir.join(path.file_name().unwrap())).unwrap();
        }
    }
    // A thief makes up the record of what was signed, too: nothing, as it stands in a new directory.
    let ledger_key = fs::read_to_string(forged.key_dir.join("ledger.key")).unwrap();
    let origin = SigningKey::parse(ledger_key.trim())
        .unwrap()
        .name()
        .to_owned();
    let record = format!(
        "scribe-ledger/last-signed/v1\n{origin}\n0\n{}\n",
        scribe_proof::empty_root().to_base64()
    );
    fs::write(forged.key_dir.join("last-signed"), record).unwrap();
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    fs::set_permissions(forged.key_dir.join("last-signed"), mode(0o600)).unwrap();
    fs::set_permissions(&forged.key_dir, mode(0o700)).unwrap();
    Node::start(forged).await.unwrap()
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    events.iter().map(|event| event.kind).collect()
}

fn evidence(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("fork-"))
        .collect();
    found.sort();
    found
}

/// One node and what a monitor of it needs.
struct Followed {
    ledger: TestLedger,
    server: TestServer,
    policy: Policy,
    state: TempDir,
}

impl Followed {
    async fn start() -> Followed {
        let ledger = TestLedger::start().await;
        let server = serve(&ledger.node).await;
        grow(&ledger.node, "first", 10).await;
        Followed {
            policy: Policy::parse(&ledger.node.ledger().policy).unwrap(),
            server,
            ledger,
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn monitor(&self, more: &[String]) -> Monitor {
        let urls = [&[url(&self.server)], more].concat();
        monitor(&urls, &self.policy, self.state.path(), false)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_cluster_is_left_in_peace_while_it_grows() {
    let cluster = TestCluster::new(3).await;
    let mut servers = Vec::new();
    for id in cluster.ids() {
        servers.push(serve(cluster.node(id)).await);
    }
    let urls: Vec<String> = servers.iter().map(url).collect();
    let leader = cluster.leader().await;
    grow(cluster.node(leader), "start", 5).await;
    let policy = Policy::parse(&cluster.node(leader).ledger().policy).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut watching = monitor(&urls, &policy, state.path(), true);
    let mut accepted = 0;
    for round in 0..12 {
        if round == 6 {
            // A restart of the monitor goes on where it stopped.
            watching = monitor(&urls, &policy, state.path(), true);
        }
        let size = grow(cluster.node(leader), &format!("round {round}"), 40).await;
        // Nodes may show different sizes at this moment: all of them belong together.
        let events = watching.round().await.unwrap();
        let bad: Vec<&Event> = events
            .iter()
            .filter(|event| event.severity == Severity::Alert)
            .collect();
        assert!(bad.is_empty(), "{bad:?}");
        accepted += kinds(&events)
            .iter()
            .filter(|kind| **kind == Kind::Accepted)
            .count();
        let largest = watching.accepted().unwrap().checkpoint().size;
        assert!(largest >= TreeSize::new(size), "{largest} {size}");
    }
    assert!(accepted >= 12, "{accepted}");
    assert!(evidence(state.path()).is_empty());
    for server in servers {
        server.stop().await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_history_with_good_signatures_is_a_fork_also_after_a_restart() {
    let followed = Followed::start().await;
    let accepted = grow(&followed.ledger.node, "second", 20).await;
    let mut before = followed.monitor(&[]);
    assert_eq!(kinds(&before.round().await.unwrap()), [Kind::Accepted]);
    drop(before);

    let stolen = tempfile::tempdir().unwrap();
    let forged = forger(&followed.ledger.options, stolen.path()).await;
    let lying = serve(&forged).await;
    // Its signatures are all good: by themselves these checkpoints pass.
    let size = grow(&forged, "other", 3).await;
    let note = forged.checkpoint().unwrap().note.clone();
    followed
        .policy
        .evaluate(&SignedCheckpoint::parse(&note).unwrap())
        .unwrap();
    assert!(size < accepted);

    let only = [url(&lying)];
    let state = followed.state.path();
    // Shorter: it cannot prove anything about what was accepted, and nobody else is asked.
    let events = monitor(&only, &followed.policy, state, false)
        .round()
        .await
        .unwrap();
    assert_eq!(kinds(&events), [Kind::Refused], "{events:?}");
    assert_eq!(events[0].severity, Severity::Alert);

    // As long, and then longer: both are proved to be a fork.
    let missing = (accepted - size) as usize;
    for (count, expected) in [(missing, accepted), (7, accepted + 7)] {
        assert_eq!(grow(&forged, "more", count).await, expected);
        let mut watching = monitor(&only, &followed.policy, state, false);
        let events = watching.round().await.unwrap();
        assert_eq!(kinds(&events), [Kind::Fork], "{events:?}");
        let path = events[0].evidence.clone().unwrap();
        assert_eq!(path, state.join(format!("fork-{expected}.txt")));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&forged.checkpoint().unwrap().note), "{text}");
        assert!(
            text.contains(&fs::read_to_string(state.join("state")).unwrap()),
            "{text}"
        );
        // What was accepted stays.
        let kept = watching.accepted().unwrap().checkpoint().size;
        assert_eq!(kept, TreeSize::new(accepted));
        // The same fork is written once.
        watching.round().await.unwrap();
    }
    assert_eq!(evidence(state).len(), 2);
    lying.stop().await;
    forged.shutdown().await;
    followed.server.stop().await;
    followed.ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_show_two_histories_are_a_fork_at_any_sizes() {
    for (honest, other) in [(5, 5), (3, 9), (9, 3)] {
        let followed = Followed::start().await;
        let stolen = tempfile::tempdir().unwrap();
        let forged = forger(&followed.ledger.options, stolen.path()).await;
        let lying = serve(&forged).await;
        grow(&forged, "first", 10).await;
        grow(&followed.ledger.node, "x", honest).await;
        grow(&forged, "y", other).await;
        let mut watching = followed.monitor(&[url(&lying)]);
        let events = watching.round().await.unwrap();
        // The smaller one is accepted first, as far as its signatures go; the other one contradicts it.
        assert_eq!(kinds(&events), [Kind::Accepted, Kind::Fork], "{events:?}");
        assert_eq!(evidence(followed.state.path()).len(), 1);
        lying.stop().await;
        forged.shutdown().await;
        followed.server.stop().await;
        followed.ledger.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_copies_are_followed_and_each_way_to_be_wrong_has_its_name() {
    let followed = Followed::start().await;
    let node = &followed.ledger.node;
    let home = followed.ledger.directory.path();
    let export = || {
        let output = command(home, &["export", "--tiles", "tiles"])
            .env("SCRIBE_SERVER", url(&followed.server))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    export();
    let first = fs::read_to_string(home.join("tiles/checkpoint")).unwrap();
    let copied = StaticServer::start(home.join("tiles"));
    let urls = [copied.url.clone()];
    let state = followed.state.path();
    let mut watching = monitor(&urls, &followed.policy, state, true);
    assert_eq!(kinds(&watching.round().await.unwrap()), [Kind::Accepted]);
    // Grown over a tile's edge: proof and entries come from plain files.
    grow(node, "more", 600).await;
    export();
    let events = watching.round().await.unwrap();
    assert_eq!(kinds(&events), [Kind::Accepted], "{events:?}");
    assert!(events[0].message.contains("600 new entries"), "{events:?}");
    assert!(watching.round().await.unwrap().is_empty(), "nothing new");

    // Back to the first checkpoint, which is part of the same history.
    let checkpoint = home.join("tiles/checkpoint");
    let second = fs::read_to_string(&checkpoint).unwrap();
    fs::write(&checkpoint, &first).unwrap();
    let events = watching.round().await.unwrap();
    assert!(kinds(&events).contains(&Kind::WentBack), "{events:?}");
    assert!(!kinds(&events).contains(&Kind::Fork), "{events:?}");

    let (text, signatures) = second.split_once("\n\n").unwrap();
    let lines: Vec<&str> = signatures.lines().collect();
    let mut spoiled: Vec<char> = lines[0].chars().collect();
    let at = spoiled.len() - 10;
    spoiled[at] = if spoiled[at] == 'A' { 'B' } else { 'A' };
    let spoiled: String = spoiled.into_iter().collect();
    let stranger = SigningKey::from_seed("example.com/other", &[9; 32]).unwrap();
    let other = Checkpoint::new(
        "example.com/other",
        TreeSize::EMPTY,
        scribe_proof::empty_root(),
    );
    let other = SignedCheckpoint::sign(other, &[&stranger])
        .unwrap()
        .to_text();
    for (note, expected) in [
        (
            format!("{text}\n\n{spoiled}\n{}\n", lines[1]),
            Kind::Signature,
        ),
        (format!("{text}\n\n{}\n", lines[0]), Kind::Policy),
        (format!("{text}\n\n{}\n", lines[1]), Kind::Policy),
        (other, Kind::OtherLedger),
        ("no note\n".to_owned(), Kind::Signature),
    ] {
        fs::write(&checkpoint, &note).unwrap();
        let mut watching = monitor(&urls, &followed.policy, state, true);
        let events = watching.round().await.unwrap();
        assert_eq!(kinds(&events), [expected], "{note}: {events:?}");
    }
    fs::remove_file(&checkpoint).unwrap();
    let events = monitor(&urls, &followed.policy, state, true)
        .round()
        .await
        .unwrap();
    assert_eq!(kinds(&events), [Kind::Unreachable], "{events:?}");
    followed.server.stop().await;
    followed.ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_do_not_give_the_signed_root_are_an_alert() {
    let followed = Followed::start().await;
    let home = followed.ledger.directory.path();
    let export = |to: &str| {
        let output = command(home, &["export", "--tiles", to])
            .env("SCRIBE_SERVER", url(&followed.server))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    export("tiles");
    let copied = StaticServer::start(home.join("tiles"));
    let urls = [copied.url.clone()];
    let state = followed.state.path();
    let mut watching = monitor(&urls, &followed.policy, state, true);
    watching.round().await.unwrap();
    grow(&followed.ledger.node, "more", 30).await;
    export("newer");
    copy(&home.join("newer"), &home.join("tiles"));
    // The last byte of a leaf's commitment in the new bundle.
    let bundles = home.join("tiles/tile/entries/000.p");
    let newest = fs::read_dir(&bundles)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u16>()
                .unwrap()
        })
        .unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&newest, &bytes).unwrap();
    let events = watching.round().await.unwrap();
    assert_eq!(kinds(&events), [Kind::Entries], "{events:?}");
    // The proof alone would have been believed.
    let mut trusting = monitor(&urls, &followed.policy, state, false);
    assert_eq!(kinds(&trusting.round().await.unwrap()), [Kind::Accepted]);
    followed.server.stop().await;
    followed.ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_wait_for_a_checkpoint_are_a_warning() {
    let mut ledger = TestLedger::start().await;
    grow(&ledger.node, "first", 3).await;
    ledger.node.shutdown().await;
    // From now on nothing is published by itself.
    ledger.options.publish_interval_ms = 3_600_000;
    ledger.node = Node::start(ledger.options.clone()).await.unwrap();
    let size = ledger.node.applied_size();
    ledger.node.publish(size).await.unwrap();
    let server = serve(&ledger.node).await;
    let policy = Policy::parse(&ledger.node.ledger().policy).unwrap();
    let state = tempfile::tempdir().unwrap();
    let options = MonitorOptions {
        clients: vec![client(&url(&server))],
        policy: Some(policy),
        evidence_dir: state.path().to_owned(),
        entries: false,
        stale_after: Duration::ZERO,
    };
    let pin = FilePin::new(state.path().join("state"));
    let mut watching = Monitor::new(options, Box::new(pin)).unwrap();
    assert_eq!(kinds(&watching.round().await.unwrap()), [Kind::Accepted]);
    assert!(watching.round().await.unwrap().is_empty());
    ledger.put("waits", "for a checkpoint").await;
    let events = watching.round().await.unwrap();
    assert_eq!(kinds(&events), [Kind::Stale], "{events:?}");
    assert_eq!(events[0].severity, Severity::Warning);
    let size = ledger.node.applied_size();
    ledger.node.publish(size).await.unwrap();
    assert_eq!(kinds(&watching.round().await.unwrap()), [Kind::Accepted]);
    server.stop().await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_exits_with_3_writes_evidence_and_rings_the_bell() {
    let followed = Followed::start().await;
    let state = followed.state.path();
    let vkey: VerifierKey = followed.policy.log_keys().next().unwrap().clone();
    fs::write(state.join("vkey"), vkey.to_text()).unwrap();
    let run = |url: &str, more: &[&str]| {
        let arguments = [
            "monitor", url, "--vkey", "vkey", "--state", "state", "--output", "json",
        ];
        let output = command(state, &[&arguments, more].concat())
            .output()
            .unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (
            output.status.code().unwrap(),
            lines,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let honest = url(&followed.server);
    let (code, lines, stderr) = run(&honest, &["--once"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(lines[0]["kind"], "accepted");

    let stolen = tempfile::tempdir().unwrap();
    let forged = forger(&followed.ledger.options, stolen.path()).await;
    let lying = serve(&forged).await;
    grow(&forged, "other", 25).await;
    let bell = ["--exec", "printf '%s' \"$SCRIBE_ALERT\" > bell"];
    // Without --once, too: a fork ends it.
    for once in [&["--once"][..], &[]] {
        let (code, lines, stderr) = run(&url(&lying), &[&bell, once].concat());
        assert_eq!(code, 3, "{stderr}");
        assert_eq!(lines[0]["kind"], "fork");
        assert_eq!(lines[0]["severity"], "alert");
        let path = lines[0]["evidence"].as_str().unwrap();
        assert!(state.join(path).is_file(), "{path}");
        let rung = fs::read_to_string(state.join("bell")).unwrap();
        assert!(
            rung.starts_with("ALERT: ") && rung.contains("FORK"),
            "{rung}"
        );
        fs::remove_file(state.join("bell")).unwrap();
    }
    let (code, _, stderr) = run("http://127.0.0.1:1", &["--once"]);
    assert_eq!(code, 2, "{stderr}");
    // A state of another ledger is the user's mistake.
    fs::write(
        state.join("vkey"),
        TestLedger::start().await.node.ledger().verifier_keys[0].clone(),
    )
    .unwrap();
    let (code, _, stderr) = run(&honest, &["--once"]);
    assert_eq!(code, 1, "{stderr}");
    lying.stop().await;
    forged.shutdown().await;
    followed.server.stop().await;
    followed.ledger.node.shutdown().await;
}
