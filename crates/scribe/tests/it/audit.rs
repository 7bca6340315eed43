//! The audit against real ledgers: healthy ones of every kind, older copies, rewritten histories whose signatures are all
//! good, and a node that shows other entries than it signed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use scribe::audit::{AuditError, AuditOptions, AuditReport, Finding, directory, live, tiles};
use scribe::node::{Condition, Node};
use scribe_client::Client;
use scribe_client::wire::bytes::{from_base64, to_base64};
use scribe_proof::policy::Policy;
use scribe_proof::tree::MemoryTree;
use scribe_proof::{Leaf, LeafIndex, Prev, SignedCheckpoint, TreeSize, leaf_hash};

use crate::audit_support::Kept;
use crate::cli_export_tiles::copy;
use crate::cli_node::command;
use crate::support::TestServer;
use crate::test_cluster::TestCluster;
use crate::test_ledger::{TestLedger, delete, options, put, wait_until};

/// A node behind its HTTP API.
pub async fn serve(node: &Node) -> TestServer {
    TestServer::over(node, ([127, 0, 0, 1], 0).into()).await
}

/// Appends and publishes; the checkpoint.
pub async fn grow(node: &Node, name: &str, count: usize) -> SignedCheckpoint {
    let writes = (0..count)
        .map(|n| put(&format!("{name}/{n}"), &format!("value {n}")))
        .collect();
    for outcome in node.append_many(writes).await {
        outcome.unwrap();
    }
    let published = node.publish(node.applied_size()).await.unwrap();
    SignedCheckpoint::parse(&published.note).unwrap()
}

fn policy(node: &Node) -> Policy {
    Policy::parse(&node.ledger().policy).unwrap()
}

async fn audit_live(addr: SocketAddr, options: &AuditOptions) -> Result<AuditReport, AuditError> {
    let client = Client::new(format!("http://{addr}")).unwrap();
    live::audit(&client, options, &|_, _| ()).await
}

/// The directory of a stopped node. A child of another test, forked and not yet another program, may hold its lock for
/// a moment.
fn audit_directory(path: &Path, options: &AuditOptions) -> Result<AuditReport, AuditError> {
    loop {
        match directory::audit(path, options, &|_, _| ()) {
            Err(AuditError::User { message, .. }) if message.contains("is open") => {
                std::thread::yield_now();
            }
            outcome => return outcome,
        }
    }
}

#[track_caller]
fn finding(outcome: Result<AuditReport, AuditError>) -> Finding {
    match outcome {
        Err(AuditError::Finding(finding)) => *finding,
        other => panic!("expected a finding, got {other:?}"),
    }
}

/// Forwards requests, as `route` says, and changes bytes of answers to bytes of the same length.
fn proxy(
    route: impl Fn(&str) -> SocketAddr + Send + Sync + Clone + 'static,
    lie: Option<(&'static str, &'static str)>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (route, mut stream) = (route.clone(), stream.unwrap());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    lines.push(line);
                }
                let target = lines[0].split(' ').nth(1).unwrap();
                let mut node = TcpStream::connect(route(target)).unwrap();
                let request =
                    format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                node.write_all(request.as_bytes()).unwrap();
                let mut answer = Vec::new();
                node.read_to_end(&mut answer).unwrap();
                if let Some((true_bytes, lie)) = lie {
                    assert_eq!(true_bytes.len(), lie.len());
                    let found = answer
                        .windows(lie.len())
                        .position(|window| window == true_bytes.as_bytes());
                    if let Some(at) = found {
                        answer[at..at + lie.len()].copy_from_slice(lie.as_bytes());
                    }
                }
                // One answer for each connection, as the node says in it.
                let _ = stream.write_all(&answer);
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_node_is_audited_while_it_is_written_to() {
    let ledger = TestLedger::start().await;
    let server = serve(&ledger.node).await;
    let first = grow(&ledger.node, "first", 100).await;
    ledger.node.append(delete("first/3")).await.unwrap();
    let writing = ledger.node.clone();
    let writer = tokio::spawn(async move {
        for round in 0..20 {
            grow(&writing, &format!("round {round}"), 150).await;
        }
    });
    let options = AuditOptions {
        policy: Some(policy(&ledger.node)),
        pinned: Some(first.clone()),
        ..AuditOptions::default()
    };
    let mut sizes = Vec::new();
    while !writer.is_finished() {
        let report = audit_live(server.addr, &options).await.unwrap();
        assert_eq!(report.checkpoint_size, Some(report.tree_size));
        assert_eq!(report.values + report.system_entries, report.tree_size);
        assert_eq!(report.pinned_size, Some(first.checkpoint().size.get()));
        // The ledger's signature and the node's, both of the policy.
        assert_eq!(report.signatures.by_policy.len(), 2);
        sizes.push(report.tree_size);
    }
    writer.await.unwrap();
    let last = audit_live(server.addr, &options).await.unwrap();
    assert_eq!(last.tree_size, ledger.node.applied_size().get());
    assert!(
        sizes.is_sorted() && sizes.first() < Some(&last.tree_size),
        "{sizes:?}"
    );
    let root = ledger.node.root_at(TreeSize::new(last.tree_size)).unwrap();
    assert_eq!(last.root_hash, root.to_hex());

    // Nothing to trust: hashes are checked all the same, and it is said that nothing else was.
    let report = audit_live(server.addr, &AuditOptions::default())
        .await
        .unwrap();
    assert!(!report.signatures.trusted && report.signatures.by_policy.is_empty());
    assert_eq!(report.signatures.by_announced.len(), 2);
    server.stop().await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_shows_another_value_is_caught_at_that_entry() {
    let ledger = TestLedger::start().await;
    let server = serve(&ledger.node).await;
    grow(&ledger.node, "k", 1_200).await;
    let addr = server.addr;
    let lying = proxy(move |_| addr, Some(("\"value 1111\"", "\"value 1112\"")));
    let options = AuditOptions {
        policy: Some(policy(&ledger.node)),
        ..AuditOptions::default()
    };
    audit_live(proxy(move |_| addr, None), &options)
        .await
        .unwrap();
    let found = finding(audit_live(lying, &options).await);
    assert_eq!(found.key.as_deref(), Some("k/1111"));
    let entry = ledger.node.latest(b"k/1111", ledger.node.applied_size());
    assert_eq!(found.index, Some(entry.unwrap().unwrap().index.get()));
    assert_eq!(found.place, "/v1/entries");
    server.stop().await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_hold_together_but_were_not_signed_are_narrowed_down() {
    let mut ledger = TestLedger::start().await;
    grow(&ledger.node, "same", 1_500).await;
    ledger.node.shutdown().await;
    // A copy of data and keys goes on differently.
    let other = tempfile::tempdir().unwrap();
    copy(&ledger.options.data_dir, &other.path().join("data"));
    copy(&ledger.options.key_dir, &other.path().join("keys"));
    for name in ["ledger.key", "node-1.key", "last-signed"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(other.path().join("keys").join(name), mode).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(other.path().join("keys"), mode).unwrap();
    ledger.node = Node::start(ledger.options.clone()).await.unwrap();
    let forged = Node::start(options(other.path())).await.unwrap();
    grow(&ledger.node, "honest", 700).await;
    grow(&forged, "forged", 700).await;
    let (honest, lying) = (serve(&ledger.node).await, serve(&forged).await);
    let (honest_addr, lying_addr) = (honest.addr, lying.addr);
    let between = proxy(
        move |target| match target.starts_with("/v1/entries") {
            true => lying_addr,
            false => honest_addr,
        },
        None,
    );
    let options = AuditOptions {
        policy: Some(policy(&ledger.node)),
        ..AuditOptions::default()
    };
    // Each by itself is sound; who compares them with the signed head sees it.
    audit_live(honest_addr, &options).await.unwrap();
    audit_live(lying_addr, &options).await.unwrap();
    let found = finding(audit_live(between, &options).await);
    assert!(found.reason.contains("one of 1000 to 1999"), "{found:?}");
    assert_eq!(found.index, Some(1_000));

    // And so does who kept a checkpoint of the other history.
    let kept = grow(&ledger.node, "more", 1).await;
    let options = AuditOptions {
        pinned: Some(kept),
        ..options
    };
    let found = finding(audit_live(lying_addr, &options).await);
    assert!(
        found.reason.contains("ends at tree size") || found.reason.contains("no entries"),
        "{found:?}"
    );
    grow(&forged, "catches up", 3).await;
    let found = finding(audit_live(lying_addr, &options).await);
    assert!(found.reason.contains("the checkpoint given"), "{found:?}");
    lying.stop().await;
    forged.shutdown().await;
    // The same in its data directory, with signatures that are all good.
    let found = finding(audit_directory(&other.path().join("data"), &options));
    assert!(found.reason.contains("the checkpoint given"), "{found:?}");
    audit_directory(&other.path().join("data"), &AuditOptions::default()).unwrap();
    honest.stop().await;
    ledger.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_data_does_not_have_what_was_signed() {
    let mut ledger = TestLedger::start().await;
    grow(&ledger.node, "old", 400).await;
    ledger.node.shutdown().await;
    let older = ledger.directory.path().join("older");
    copy(&ledger.options.data_dir, &older);
    ledger.node = Node::start(ledger.options.clone()).await.unwrap();
    let newest = grow(&ledger.node, "new", 40).await;
    let policy = policy(&ledger.node);
    ledger.node.shutdown().await;
    let with_keys = AuditOptions {
        key_dir: Some(ledger.options.key_dir.clone()),
        ..AuditOptions::default()
    };
    let pinned = AuditOptions {
        policy: Some(policy),
        pinned: Some(newest.clone()),
        ..AuditOptions::default()
    };
    for options in [&with_keys, &pinned] {
        let report = audit_directory(&ledger.options.data_dir, options).unwrap();
        assert!(report.tree_size >= newest.checkpoint().size.get());
        assert!(report.agreed_heads > 0);
        let found = finding(audit_directory(&older, options));
        assert!(
            found.reason.contains("the ledger ends at tree size"),
            "{found:?}"
        );
    }
    // By itself the older copy is sound.
    audit_directory(&older, &AuditOptions::default()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_of_a_cluster_has_a_sound_directory_and_the_same_ledger() {
    let mut cluster = TestCluster::with(3, |options| {
        options.segment_bytes_max = 64 * 1_024;
        options.segment_leaves_max = 300;
    })
    .await;
    let leader = cluster.leader().await;
    let published = grow(cluster.node(leader), "k", 1_000).await;
    let joined = cluster.join(leader).await;
    cluster.same_everywhere().await;
    let options = AuditOptions {
        policy: Some(policy(cluster.node(leader))),
        pinned: Some(published.clone()),
        ..AuditOptions::default()
    };
    let directories: Vec<_> = cluster
        .ids()
        .iter()
        .map(|id| cluster.data_dir(*id))
        .collect();
    assert!(cluster.ids().contains(&joined));
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    for directory in directories {
        let report = audit_directory(&directory, &options).unwrap();
        assert!(report.tree_size >= published.checkpoint().size.get());
        assert_eq!(report.pinned_size, Some(published.checkpoint().size.get()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_it_did_and_what_it_did_not() {
    let kept = Kept::make().await;
    let home = kept.ledger.directory.path();
    let vkey = kept.policy.log_keys().next().unwrap().to_text();
    fs::write(home.join("vkey"), &vkey).unwrap();
    fs::write(home.join("policy"), kept.policy.to_text()).unwrap();
    fs::write(home.join("early"), kept.checkpoints[0].to_text()).unwrap();
    let run = |arguments: &[&str]| {
        let arguments = [&["audit"], arguments].concat();
        let output = command(home, &arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    for what in ["data", "tiles"] {
        let (code, stdout, stderr) = run(&[what, "--policy", "policy", "--checkpoint", "early"]);
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stdout.contains("everything that was read holds"),
            "{stdout}"
        );
        assert!(!stderr.contains("nothing you trust"), "{stderr}");
        let (code, _, stderr) = run(&[what]);
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stderr.contains("signatures were checked against nothing you trust"),
            "{stderr}"
        );
    }
    let (code, stdout, _) = run(&[
        "data",
        "--key-dir",
        "keys",
        "--vkey",
        "vkey",
        "--output",
        "json",
    ]);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&json["valid"], &json["source"]),
        (&true.into(), &"directory".into())
    );
    assert!(json["last_signed_size"].as_u64() > Some(0));

    // A key of somebody else.
    let stranger = scribe_proof::SigningKey::from_seed(
        kept.policy.log_keys().next().unwrap().name(),
        &[9; 32],
    );
    fs::write(
        home.join("stranger"),
        stranger.unwrap().verifier_key().to_text(),
    )
    .unwrap();
    let report = home.join("report.json");
    let (code, _, stderr) = run(&["tiles", "--vkey", "stranger", "--report", "report.json"]);
    assert_eq!(code, 3, "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(
        (&json["valid"], &json["finding"]["place"]),
        (&false.into(), &"checkpoint".into())
    );

    // A file that no tree of this size has, wherever it lies.
    for extra in [
        "tile/0/099",
        "tile/9/000",
        "tile/entries/004.p/255",
        "tile/readme",
        "openings/x001/000",
    ] {
        let path = home.join("tiles").join(extra);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"").unwrap();
        let found = finding(tiles::audit(
            &kept.tiles(),
            &kept.options(false),
            &|_, _| (),
        ));
        assert_eq!(found.place, extra);
        fs::remove_file(&path).unwrap();
    }
    for (arguments, expected) in [
        (&["nowhere"][..], "there is no directory"),
        (&["keys"], "neither a data directory nor a tile directory"),
        (
            &["tiles", "--key-dir", "keys"],
            "--key-dir belongs to a data directory",
        ),
        (&["data", "--checkpoint", "vkey"], "is no signed checkpoint"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    // Open in a running node.
    let node = Node::start(kept.ledger.options.clone()).await.unwrap();
    let (code, _, stderr) = run(&["data"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("by its URL"), "{stderr}");
    node.shutdown().await;
    // What was written on the way is sound, too.
    kept.audit_data().unwrap();
}

/// The export with what entry `index` says about the version before it changed, made to hold together again.
fn with_other_prev(export: &str, index: usize, prev: Prev) -> String {
    let mut lines: Vec<serde_json::Value> = export
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut tree = MemoryTree::new();
    let last = lines.len() - 1;
    for line in &mut lines[1..last] {
        let mut leaf = from_base64("leaf", line["leaf_base64"].as_str().unwrap()).unwrap();
        if line["index"] == index {
            let changed = Leaf {
                prev,
                ..Leaf::parse(&leaf).unwrap()
            };
            let mut bytes = Vec::new();
            changed.encode_into(&mut bytes).unwrap();
            leaf = bytes;
            line["leaf_base64"] = to_base64(&leaf).into();
        }
        tree.append(leaf_hash(&leaf));
    }
    lines[last]["root_hash"] = tree.root().to_hex().into();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Every hash and every opening holds, and a writer who trusted what the ledger says of the version before was lied to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_lies_about_the_version_before_it_is_found() {
    let ledger = TestLedger::start().await;
    let version = |index| Prev::Version(LeafIndex::new(index));
    let append = async |key: &str, condition| {
        let mut write = put(key, "value");
        write.condition = condition;
        ledger.node.append(write).await.unwrap().index
    };
    let first = append("a", Condition::Absent).await;
    let second = append("a", Condition::Version(first)).await;
    grow(&ledger.node, "sealed", 600).await;
    wait_until(|| ledger.node.sealed_segments() > 0).await;
    let third = append("a", Condition::Version(second)).await;
    let fourth = append("a", Condition::Version(third)).await;
    ledger.node.shutdown().await;
    let place = ledger.directory.path();
    let exported = command(
        place,
        &[
            "export",
            "--out",
            "export",
            "--data-dir",
            "data",
            "--key-dir",
            "keys",
        ],
    )
    .output()
    .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let export = fs::read_to_string(place.join("export")).unwrap();

    for (at, (lie, prev)) in [
        (None, Prev::None),
        // In a sealed segment, then behind it with the version before in one, then all behind it.
        (Some(first), version(0)),
        (Some(second), Prev::None),
        (Some(third), version(first.get())),
        (Some(fourth), version(second.get())),
        (Some(fourth), Prev::None),
    ]
    .into_iter()
    .enumerate()
    {
        let index = lie.map_or(usize::MAX, |index| index.get() as usize);
        fs::write(place.join("forged"), with_other_prev(&export, index, prev)).unwrap();
        let forged = tempfile::tempdir_in(place).unwrap();
        let forged = options(forged.path());
        let data = forged.data_dir.to_str().unwrap();
        let keys = forged.key_dir.to_str().unwrap();
        let arguments = ["import", "forged", "--data-dir", data, "--key-dir", keys];
        let imported = command(place, &arguments).output().unwrap();
        assert!(imported.status.success(), "{imported:?}");
        let mut outcomes = vec![audit_directory(&forged.data_dir, &AuditOptions::default())];
        // A new owner, whose signatures are as good as any.
        let node = Node::start(forged).await.unwrap();
        let server = serve(&node).await;
        grow(&node, "later", 10).await;
        outcomes.push(audit_live(server.addr, &AuditOptions::default()).await);
        let tiles = format!("tiles-{at}");
        let exported = command(place, &["export", "--tiles", &tiles])
            .env("SCRIBE_SERVER", format!("http://{}", server.addr))
            .output()
            .unwrap();
        assert!(exported.status.success(), "{exported:?}");
        outcomes.push(tiles::audit(
            &place.join(&tiles),
            &AuditOptions::default(),
            &|_, _| (),
        ));
        server.stop().await;
        node.shutdown().await;
        for outcome in outcomes {
            match lie {
                None => assert!(outcome.is_ok(), "{outcome:?}"),
                Some(index) => {
                    let found = finding(outcome);
                    assert_eq!(found.index, Some(index.get()), "{found}");
                    assert!(found.reason.starts_with("it says that"), "{found}");
                }
            }
        }
    }
}
