//! Private keys stay in their files: not in what `Debug` shows, not in what nodes log at any level.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scribe::cluster::wire::{JoinAnswer, JoinRequest, LedgerKeysMessage};
use scribe::keys::{KeyDir, new_key};
use scribe_client::{Client, Wait};
use scribe_proof::key::{KeyType, SigningKey};

use crate::processes::{NodeProcess, Processes, patient};
use crate::test_cluster::eventually;
use crate::test_ledger::TestLedger;

/// The forms in which a signing key would be recognized.
fn forms(text: &str) -> Vec<String> {
    let text = text.trim_end();
    let (_, encoded) = text.rsplit_once('+').unwrap();
    // Base64 itself may have a `+`: what stands behind the last one is a part of it, and long enough.
    let whole = text.splitn(5, '+').nth(4).unwrap_or(encoded);
    let bytes = STANDARD.decode(whole).unwrap();
    let seed = &bytes[1..];
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{seed:?}");
    vec![
        whole.to_owned(),
        STANDARD.encode(seed).trim_end_matches('=').to_owned(),
        hex.to_uppercase(),
        hex,
        list.trim_matches(['[', ']']).to_owned(),
    ]
}

fn check_absent(what: &str, shown: &str, secrets: &[Vec<String>]) {
    for form in secrets.iter().flatten() {
        assert!(!shown.contains(form), "{what} shows a private key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_holds_a_key_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::open_or_create(dir.path(), Some("example.com/a"), 1, true).unwrap();
    let more = new_key("example.com/a", KeyType::Ed25519).unwrap();
    let text = more.to_text();
    keys.ledger.keep(more).unwrap();
    let mut secrets = vec![forms(&text)];
    for name in ["ledger.key", "node-1.key"] {
        secrets.push(forms(
            &std::fs::read_to_string(dir.path().join(name)).unwrap(),
        ));
    }
    // The test itself would find them.
    assert!(secrets[0].iter().any(|form| text.contains(form)));
    let message = LedgerKeysMessage {
        keys: vec![text.clone()],
        wanted: Vec::new(),
    };
    let answer = JoinAnswer {
        ca_key: text.clone(),
        ledger_key: text.clone(),
        more_ledger_keys: vec![text.clone()],
        ..JoinAnswer::default()
    };
    let request = JoinRequest {
        secret: text.clone().into(),
        ..JoinRequest::default()
    };
    let key = SigningKey::parse(&text).unwrap();
    for (what, shown) in [
        ("Keys", format!("{keys:?} {keys:#?}")),
        ("SigningKey", format!("{key:?} {key:#?}")),
        ("LedgerKeysMessage", format!("{message:?} {message:#?}")),
        ("JoinAnswer", format!("{answer:?} {answer:#?}")),
        ("JoinRequest", format!("{request:?} {request:#?}")),
        (
            "an error of the parser",
            format!(
                "{:?}",
                SigningKey::parse(&text[..text.len() - 5]).unwrap_err()
            ),
        ),
    ] {
        check_absent(what, &shown, &secrets);
    }

    let ledger = TestLedger::start().await;
    let path = &ledger.options.key_dir;
    let secrets: Vec<_> = ["ledger.key", "node-1.key"]
        .iter()
        .map(|name| forms(&std::fs::read_to_string(path.join(name)).unwrap()))
        .collect();
    let shown = format!("{:?} {:?}", ledger.node, ledger.options);
    check_absent("Node", &shown, &secrets);
    ledger.node.shutdown().await;
}

/// Everything that moves keys, with every message of every level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_nodes_log_shows_a_key() {
    let mut cluster = Processes::start().await;
    for id in cluster.ids() {
        cluster.node_mut(id).terminate().await;
    }
    for id in cluster.ids() {
        cluster.node_mut(id).start(&["--member", "--log", "trace"]);
    }
    cluster.all_ready().await;
    let client = Client::builder_for(cluster.urls_from(0))
        .retry(patient())
        .build()
        .unwrap();
    let token = cluster.ok(&["cluster", "token", "--server", &cluster.node(1).url()]);
    client.rotate_ledger_key().await.unwrap();
    let mut joined: NodeProcess = cluster.new_node("joined");
    joined.start(&["--join", token.trim(), "--log", "trace"]);
    eventually("the new node is a voter", async || {
        let members = client.members().await.unwrap();
        members
            .iter()
            .filter(|member| member.role == "voter")
            .count()
            == 4
    })
    .await;
    let put = client.put("key", "value").wait(Wait::Published);
    put.send().await.unwrap();

    let mut secrets = Vec::new();
    let nodes = cluster.nodes.values().chain([&joined]);
    for node in nodes.clone() {
        let mut found = 0;
        for entry in std::fs::read_dir(node.key_dir()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.starts_with("PRIVATE+KEY+") {
                secrets.push(forms(&text));
                found += 1;
            } else if name.ends_with(".key") {
                // PEM of the CA and of TLS: any line of their bodies would be enough.
                let lines = text.lines().filter(|line| !line.starts_with('-'));
                secrets.push(lines.map(str::to_owned).collect());
            }
        }
        assert_eq!(found, 3, "two keys of the ledger and one of the node");
    }
    for node in nodes {
        let said = node.said();
        // Finer ones are not compiled in.
        assert!(said.contains("DEBUG"), "it logs everything there is");
        check_absent("a log", &said, &secrets);
        let secret = token.trim();
        assert!(!said.contains(secret), "a log shows a join token");
    }
}
