//! `scribe policy` and `scribe cluster rotate-key`, as an auditor and an operator use them.

use std::path::{Path, PathBuf};
use std::process::Output;

use scribe_client::{Client, Wait};
use scribe_proof::policy::Policy;
use scribe_proof::{Checkpoint, Hash, SignedCheckpoint, SigningKey, TreeSize};

use crate::processes::{Processes, patient};
use crate::test_cluster::eventually;

struct Auditor<'a> {
    cluster: &'a Processes,
    dir: PathBuf,
    url: String,
}

impl Auditor<'_> {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["policy"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--server", &self.url]);
        self.cluster.run(&all)
    }

    /// Exit code and what was said.
    fn code(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), told + &said)
    }

    fn update(&self, old: &str, new: &str, more: &[&str]) -> (i32, String) {
        let (old, new) = (self.path(old), self.path(new));
        let mut all = vec!["update", "--policy", &old, "--out", &new];
        all.extend_from_slice(more);
        self.code(&all)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).unwrap();
    }
}

async fn publish(client: &Client, key: &str) -> SignedCheckpoint {
    let put = client.put(key, "value").wait(Wait::Published);
    put.send().await.unwrap();
    client.checkpoint().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_follows_nodes_and_keys_and_believes_nobody() {
    let cluster = Processes::start().await;
    let client = Client::builder_for(cluster.urls_from(0))
        .retry(patient())
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let auditor = Auditor {
        cluster: &cluster,
        dir: dir.path().to_owned(),
        url: cluster.node(1).url(),
    };
    let pinned = publish(&client, "first").await;
    auditor.write("pin", &pinned.to_text());
    let (code, shown) = auditor.code(&["show"]);
    assert_eq!(code, 0, "{shown}");
    let shown = String::from_utf8(auditor.run(&["show"]).stdout).unwrap();
    // The user adds a comment and a witness of their own, whom nobody else may touch.
    let witness = SigningKey::cosigner_from_seed("w.example", &[5; 32]).unwrap();
    let own = format!(
        "# mine\nwitness w {}\n{}",
        witness.verifier_key(),
        shown.replace(
            "quorum node-majority",
            "group all-of-it 1 node-majority w\nquorum all-of-it"
        )
    );
    auditor.write("old", &own);
    let (code, said) = auditor.code(&[
        "check",
        &auditor.path("old"),
        "--checkpoint",
        &auditor.path("pin"),
    ]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("cosigned by  node-1") && said.contains("missing      w"),
        "{said}"
    );

    // A new node, a new key.
    let token = cluster.ok(&["cluster", "token", "--server", &auditor.url]);
    let mut joined = cluster.new_node("joined");
    joined.start(&["--join", token.trim()]);
    eventually("the new node is a voter", async || {
        let members = client.members().await.unwrap();
        members
            .iter()
            .filter(|member| member.role == "voter")
            .count()
            == 4
    })
    .await;
    let printed = cluster.ok(&["cluster", "rotate-key", "--server", &auditor.url]);
    eventually("all four cosign", async || {
        let ledger = client.ledger().await.unwrap();
        let signed = client.checkpoint().await.unwrap();
        let policy = Policy::parse(&ledger.policy).unwrap();
        let _ = publish(&client, "more").await;
        policy
            .evaluate(&signed)
            .is_ok_and(|report| report.cosigners.len() == 4)
    })
    .await;
    let ledger = client.ledger().await.unwrap();
    assert_eq!(ledger.verifier_keys[0], printed.trim());
    assert_eq!(ledger.rotations.len(), 1);

    // Nobody is there to be asked.
    let (code, said) = auditor.update("old", "new", &["--pin", &auditor.path("pin")]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("--yes") && !dir.path().join("new").exists(),
        "{said}"
    );
    let (code, said) = auditor.update("old", "new", &["--yes", "--pin", &auditor.path("pin")]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("is replaced by") && said.contains("3 of 4 nodes must cosign"),
        "{said}"
    );
    let new = auditor.read("new");
    assert!(
        new.starts_with("# mine\nwitness w ")
            && new.contains("group all-of-it 1 node-majority w\n")
    );
    assert!(new.contains(printed.trim()), "{new}");
    // Both the old and the new policy are satisfied, for 30 days.
    for name in ["old", "new"] {
        let (code, said) = auditor.code(&["check", &auditor.path(name)]);
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = auditor.update("new", "new", &["--yes"]);
    assert_eq!((code, auditor.read("new")), (0, new.clone()), "{said}");
    assert!(said.contains("nothing to change"), "{said}");
    let (code, said) = auditor.update("new", "fewer", &["--yes", "--remove", "node-3"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        auditor.read("fewer").contains("group node-majority 2 "),
        "{said}"
    );
    let (code, said) = auditor.update("new", "fewer", &["--yes", "--remove", "w"]);
    assert_eq!(code, 1, "{said}");

    // What the node says does not fit what the user knows.
    let origin = pinned.checkpoint().origin.clone();
    let forged = |size: u64| {
        let key = SigningKey::from_seed(&origin, &[1; 32]).unwrap();
        let head = Checkpoint::new(origin.clone(), TreeSize::new(size), Hash([1; 32]));
        SignedCheckpoint::sign(head, &[&key]).unwrap().to_text()
    };
    for (pin, expected) in [
        (forged(1), "does not extend the pinned one"),
        (forged(1 << 40), "entries are missing"),
    ] {
        auditor.write("other pin", &pin);
        let (code, said) =
            auditor.update("old", "no", &["--yes", "--pin", &auditor.path("other pin")]);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let stranger = SigningKey::from_seed(&origin, &[3; 32]).unwrap();
    let foreign = own.replace(&shown_key(&own), &stranger.verifier_key().to_text());
    auditor.write("foreign", &foreign);
    let (code, said) = auditor.update("foreign", "no", &["--yes"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("does not satisfy the old policy"), "{said}");
    let (code, said) = auditor.code(&["check", &auditor.path("foreign")]);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("NOT satisfied") && said.contains("cosigned by  node-1"),
        "{said}"
    );
    assert!(!Path::new(&auditor.path("no")).exists());
}

/// The verifier key of the first log line.
fn shown_key(policy: &str) -> String {
    let line = policy
        .lines()
        .find(|line| line.starts_with("log "))
        .unwrap();
    line["log ".len()..].to_owned()
}
