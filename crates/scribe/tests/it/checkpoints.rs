//! `Checkpoints`: every checkpoint that anybody was ever shown, and the comparison of all of them.
//!
//! Notes come from `/checkpoint` of every node, asked for over and over, from receipts, and from nodes of the same process.
//! At the end every pair is compared: one size, one root; a larger tree extends a smaller one. The tree they are compared
//! with is built again from the entries of a healthy node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scribe::node::Node;
use scribe_client::{Client, RetryPolicy};
use scribe_proof::consistency;
use scribe_proof::hash::Hash;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::key::VerifierKey;
use scribe_proof::policy::Policy;
use scribe_proof::tree::MemoryTree;
use scribe_proof::{Receipt, SignedCheckpoint};
use tokio::task::JoinHandle;

/// Pause between two looks at a node.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Clone, Default)]
pub struct Checkpoints {
    /// Each note with who showed it first.
    seen: Arc<Mutex<BTreeMap<String, String>>>,
    watchers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Compared {
    /// Different notes signed by the ledger.
    pub signed: usize,
    /// Different tree sizes among them.
    pub sizes: usize,
    /// Notes that the ledger's keys did not sign.
    pub foreign: usize,
}

impl Checkpoints {
    pub fn add(&self, who: &str, note: &str) {
        let mut seen = self.seen.lock();
        if !seen.contains_key(note) {
            seen.insert(note.to_owned(), who.to_owned());
        }
    }

    pub fn add_receipt(&self, who: &str, receipt: &Receipt) {
        self.add(who, &receipt.checkpoint_note);
    }

    /// Tree sizes seen so far.
    pub fn largest(&self) -> u64 {
        let seen = self.seen.lock();
        let sizes = seen.keys().map(|note| parse(note).checkpoint().size.get());
        sizes.max().unwrap_or_default()
    }

    /// Asks the node at `url` over and over, whoever answers there, until the comparison.
    pub fn watch_url(&self, who: &str, url: &str) {
        let (seen, who) = (self.clone(), who.to_owned());
        let client = Client::builder(url)
            .retry(RetryPolicy {
                deadline: Duration::ZERO,
                attempt_timeout: Duration::from_secs(1),
            })
            .build()
            .unwrap();
        self.watch(async move {
            loop {
                // It may be down, or just starting.
                if let Ok(signed) = client.checkpoint().await {
                    seen.add(&who, &signed.to_text());
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// Looks at what a node of this process shows, at every change of it.
    pub fn watch_node(&self, who: &str, node: &Node) {
        let (seen, who, node) = (self.clone(), who.to_owned(), node.clone());
        self.watch(async move {
            loop {
                if let Some(published) = node.checkpoint() {
                    seen.add(&who, &published.note);
                }
                tokio::time::sleep(LOOK / 5).await;
            }
        });
    }

    fn watch(&self, watcher: impl Future<Output = ()> + Send + 'static) {
        self.watchers.lock().push(tokio::spawn(watcher));
    }

    /// Compares all pairs with each other and with the ledger of `leaf_hashes`. `keys` are the ledger's.
    pub fn compare(&self, keys: &[VerifierKey], leaf_hashes: &[Hash]) -> Compared {
        for watcher in self.watchers.lock().drain(..) {
            watcher.abort();
        }
        let mut tree = MemoryTree::default();
        let mut roots = vec![tree.root()];
        for hash in leaf_hashes {
            tree.append(*hash);
            roots.push(tree.root());
        }
        let mut compared = Compared::default();
        let mut by_size: BTreeMap<u64, (Hash, String)> = BTreeMap::new();
        for (note, who) in self.seen.lock().iter() {
            let signed = parse(note);
            if !keys.iter().any(|key| signed.verify(key).is_ok()) {
                compared.foreign += 1;
                continue;
            }
            compared.signed += 1;
            let head = signed.checkpoint();
            let (size, root) = (head.size.get(), head.root);
            let (first, first_who) = by_size.entry(size).or_insert((root, who.clone()));
            assert_eq!(
                *first, root,
                "two checkpoints for size {size}, by {first_who} and {who}"
            );
            let whole = roots.get(size as usize);
            assert_eq!(
                whole,
                Some(&root),
                "the checkpoint of size {size} by {who} is not of this ledger"
            );
        }
        compared.sizes = by_size.len();
        let heads: Vec<(TreeSize, Hash)> = by_size
            .iter()
            .map(|(size, (root, _))| (TreeSize::new(*size), *root))
            .filter(|(size, _)| !size.is_empty())
            .collect();
        for (at, (old, old_root)) in heads.iter().enumerate() {
            for (new, new_root) in &heads[at + 1..] {
                let proof = consistency::prove(&tree, *old, *new).unwrap();
                consistency::verify(*old, old_root, *new, new_root, &proof).unwrap();
            }
        }
        compared
    }
}

fn parse(note: &str) -> SignedCheckpoint {
    SignedCheckpoint::parse(note).unwrap()
}

/// The leaf hashes of a node's ledger as it is now, and the ledger's keys of its policy.
pub async fn ledger_at(client: &Client) -> (Vec<Hash>, Vec<VerifierKey>) {
    let mut hashes = Vec::new();
    loop {
        let page = client
            .entries(hashes.len() as u64)
            .limit(1_000)
            .send()
            .await
            .unwrap();
        hashes.extend(page.entries.iter().map(|entry| Hash::from(entry.leaf_hash)));
        if page.next.is_none() {
            break;
        }
    }
    let ledger = client.ledger().await.unwrap();
    (hashes, ledger_keys(&ledger.policy))
}

/// As [`ledger_at`], of a node of this process.
pub fn ledger_of(node: &Node) -> (Vec<Hash>, Vec<VerifierKey>) {
    let size = node.applied_size().get();
    let mut hashes = Vec::new();
    while (hashes.len() as u64) < size {
        let from = LeafIndex::new(hashes.len() as u64);
        let entries = node.entries(from, 1_000, usize::MAX).unwrap();
        hashes.extend(entries.iter().map(|entry| entry.leaf_hash()));
    }
    (hashes, ledger_keys(&node.ledger().policy))
}

fn ledger_keys(policy: &str) -> Vec<VerifierKey> {
    let policy = Policy::parse(policy).unwrap();
    policy.log_keys().cloned().collect()
}

#[test]
#[should_panic(expected = "two checkpoints for size 1")]
fn the_comparison_finds_two_roots_for_one_size() {
    use scribe_proof::{Checkpoint, SigningKey, leaf_hash};
    let key = SigningKey::from_seed("example.com/a", &[1; 32]).unwrap();
    let seen = Checkpoints::default();
    for leaf in [b"a", b"b"] {
        let head = Checkpoint::new("example.com/a", TreeSize::new(1), leaf_hash(leaf));
        seen.add(
            "x",
            &SignedCheckpoint::sign(head, &[&key]).unwrap().to_text(),
        );
    }
    // Whichever of the two comes first in the order of the notes is the ledger's: it is the other one that must be found.
    let first = parse(seen.seen.lock().keys().next().unwrap())
        .checkpoint()
        .root;
    let hash = [b"a", b"b"].map(|leaf| leaf_hash(leaf));
    let ledger = hash.into_iter().find(|hash| *hash == first).unwrap();
    seen.compare(&[key.verifier_key().clone()], &[ledger]);
}
