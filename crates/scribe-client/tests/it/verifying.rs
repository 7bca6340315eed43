//! A small ledger that can be told to lie, and a client that must notice.

use std::sync::{Arc, Mutex};

use scribe_client::wire::{Appended, ConsistencyProof, HexHash};
use scribe_client::{Client, Error, FilePin, MemoryPin, VerificationError, VerifyingClient};
use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafIndex, LeafKind, MemoryTree, Metadata, Opening, Prev, Receipt,
    SignedCheckpoint, SigningKey, TreeSize, commitment, consistency, inclusion, leaf_hash,
};

use crate::server::{Request, Response, Server};

const ORIGIN: &str = "example.com/ledger";
const OTHER_ORIGIN: &str = "example.com/other";
const SALT: [u8; 16] = [3; 16];

/// What the node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Another value than the one committed to.
    Value,
    /// The receipt of another entry.
    OtherEntry,
    /// A checkpoint by a key the user does not know.
    OtherKey,
    /// A checkpoint under another name, by the very key the user knows.
    OtherOrigin,
    /// A consistency proof that proves nothing.
    NoConsistency,
    /// Appends other metadata than it was sent.
    Metadata,
    /// Ignores the condition.
    Condition,
}

/// Leaf, key, value, metadata.
type Stored = (Vec<u8>, String, Vec<u8>, Vec<u8>);

struct Ledger {
    tree: MemoryTree,
    entries: Vec<Stored>,
    key: SigningKey,
    lie: Lie,
    /// Receipts use this tree size.
    published: Option<TreeSize>,
}

impl Ledger {
    fn new() -> Ledger {
        Ledger {
            tree: MemoryTree::new(),
            entries: Vec::new(),
            key: SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap(),
            lie: Lie::None,
            published: None,
        }
    }

    fn append(&mut self, key: &str, value: &[u8], metadata: &Metadata, prev: Prev) -> Appended {
        let metadata = metadata.encode().unwrap();
        let leaf = Leaf {
            kind: LeafKind::Put,
            subtype: 0,
            timestamp_ms: 1,
            transaction_position: 0,
            transaction_length: 1,
            prev,
            commitment: commitment(&SALT, &metadata, value),
            key: key.as_bytes(),
            author: b"",
            body: b"",
        };
        let mut bytes = Vec::new();
        leaf.encode_into(&mut bytes).unwrap();
        let hash = leaf_hash(&bytes);
        self.tree.append(hash);
        self.entries
            .push((bytes, key.to_owned(), value.to_vec(), metadata));
        let tree_size = self.tree.size().get();
        Appended {
            index: tree_size - 1,
            timestamp_ms: 1,
            leaf_hash: hash.into(),
            tree_size,
            replayed: false,
        }
    }

    fn root(&self, size: TreeSize) -> Hash {
        scribe_proof::root_at(&self.tree, size).unwrap()
    }

    fn checkpoint(&self) -> SignedCheckpoint {
        let size = self.published.unwrap_or(self.tree.size());
        if self.lie == Lie::OtherOrigin {
            let key = SigningKey::from_seed(OTHER_ORIGIN, &[1; 32]).unwrap();
            let checkpoint = Checkpoint::new(OTHER_ORIGIN, size, self.root(size));
            return SignedCheckpoint::sign(checkpoint, &[&key]).unwrap();
        }
        let checkpoint = Checkpoint::new(ORIGIN, size, self.root(size));
        let other = SigningKey::from_seed(ORIGIN, &[2; 32]).unwrap();
        let key = if self.lie == Lie::OtherKey {
            &other
        } else {
            &self.key
        };
        SignedCheckpoint::sign(checkpoint, &[key]).unwrap()
    }

    fn receipt(&self, index: u64) -> String {
        let index = if self.lie == Lie::OtherEntry {
            index - 1
        } else {
            index
        };
        let (leaf, _, _, metadata) = self.entries[index as usize].clone();
        let checkpoint = self.checkpoint();
        let size = checkpoint.checkpoint().size;
        let index = LeafIndex::new(index);
        Receipt {
            leaf,
            opening: Some(Opening {
                salt: SALT,
                metadata,
            }),
            index,
            proof: inclusion::prove(&self.tree, index, size).unwrap(),
            checkpoint_note: checkpoint.to_text(),
        }
        .to_text()
    }

    fn put(&mut self, key: &str, request: &Request) -> Response {
        let pairs = request.headers.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("scribe-meta-")?.to_owned(), value.clone()))
        });
        let pairs = if self.lie == Lie::Metadata {
            vec![]
        } else {
            pairs.collect()
        };
        let content_type = request
            .headers
            .get("content-type")
            .cloned()
            .unwrap_or_default();
        let last = self.entries.iter().rposition(|entry| entry.1 == key);
        let conditional = request.headers.contains_key("if-match")
            || request.headers.contains_key("if-none-match");
        let prev = match last {
            _ if !conditional || self.lie == Lie::Condition => Prev::NotAsserted,
            None => Prev::None,
            Some(index) => Prev::Version(LeafIndex::new(index as u64)),
        };
        let metadata = Metadata::new(content_type, pairs).unwrap();
        Response::json(201, &self.append(key, &request.body, &metadata, prev))
    }

    fn answer(&mut self, request: &Request) -> Response {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|pair| pair.0 == name)
                .map(|pair| pair.1.parse::<u64>().unwrap())
        };
        let segments: Vec<_> = path.split('/').skip(1).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("PUT", ["v1", "keys", key]) => self.put(key, request),
            ("GET", ["v1", "keys", _, "receipt"]) => {
                Response::text(self.receipt(parameter("index").unwrap()))
            }
            ("GET", ["v1", "keys", key]) => {
                let Some(index) = self.entries.iter().rposition(|entry| entry.1 == *key) else {
                    return Response::problem(scribe_client::ErrorCode::NotFound);
                };
                let (leaf, _, value, _) = &self.entries[index];
                let mut value = value.clone();
                if self.lie == Lie::Value {
                    value.push(b'!');
                }
                let headers = vec![
                    ("scribe-index", index.to_string()),
                    ("scribe-timestamp", "1".to_owned()),
                    ("scribe-leaf-hash", leaf_hash(leaf).to_hex()),
                ];
                Response::Full(200, headers, value)
            }
            ("GET", ["v1", "proofs", "consistency"]) => {
                let (old_size, new_size) = (parameter("old").unwrap(), parameter("new").unwrap());
                let (old, new) = (TreeSize::new(old_size), TreeSize::new(new_size));
                let proof = consistency::prove(&self.tree, old, new).unwrap();
                let mut hashes: Vec<HexHash> = proof.into_iter().map(HexHash::from).collect();
                if self.lie == Lie::NoConsistency {
                    hashes.clear();
                }
                let old_root_hash = self.root(old).into();
                let new_root_hash = self.root(new).into();
                let proof = ConsistencyProof {
                    old_size,
                    new_size,
                    old_root_hash,
                    new_root_hash,
                    hashes,
                };
                Response::json(200, &proof)
            }
            ("GET", ["checkpoint"]) => Response::text(self.checkpoint().to_text()),
            ("GET", ["v1", "ledger"]) => panic!("a verifying client asks nobody whom to believe"),
            _ => Response::problem(scribe_client::ErrorCode::NotFound),
        }
    }
}

struct World {
    ledger: Arc<Mutex<Ledger>>,
    server: Server,
    client: VerifyingClient,
}

impl World {
    async fn start() -> World {
        World::with(Ledger::new(), MemoryPin::default())
            .await
            .unwrap()
    }

    async fn with(ledger: Ledger, pin: impl scribe_client::PinStore) -> Result<World, Error> {
        let ledger = Arc::new(Mutex::new(ledger));
        let answering = Arc::clone(&ledger);
        let server = Server::start(move |request| answering.lock().unwrap().answer(request)).await;
        let signing_key = SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap();
        let key = signing_key.verifier_key();
        let client = VerifyingClient::with_key(Client::new(&server.url)?, key.clone(), pin)?;
        Ok(World {
            ledger,
            server,
            client,
        })
    }

    fn append(&self, key: &str, value: &str) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.append(
            key,
            value.as_bytes(),
            &Metadata::default(),
            Prev::NotAsserted,
        );
    }

    fn lie(&self, lie: Lie) {
        self.ledger.lock().unwrap().lie = lie;
    }

    async fn pinned_size(&self) -> Option<u64> {
        self.client
            .pinned()
            .await
            .map(|pinned| pinned.checkpoint().size.get())
    }

    /// What reading `b` gives: the value, or what was noticed.
    async fn read(&self) -> String {
        match self.client.get_verified("b").await {
            Ok(Some(included)) => String::from_utf8(included.value.to_vec()).unwrap(),
            Ok(None) => "nothing".to_owned(),
            Err(Error::Verification(error)) => error.to_string(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_honest_ledger_is_believed_as_it_grows() {
    let world = World::start().await;
    assert_eq!(world.read().await, "nothing");
    for (value, size) in [("one", 2), ("two", 4), ("three", 6)] {
        world.append("a", "x");
        world.append("b", value);
        assert_eq!(world.read().await, value);
        assert_eq!(world.pinned_size().await, Some(size));
    }
    let included = world.client.get_verified("b").await.unwrap().unwrap();
    assert_eq!(included.index(), LeafIndex::new(5));
    let key = world.client.policy().log_keys().next().unwrap();
    assert!(
        included
            .receipt
            .verify(key)
            .unwrap()
            .check_value(b"three")
            .is_ok()
    );
    // Consistency was asked for once per growth, never for a tree of the same size.
    let asked = world
        .server
        .targets()
        .into_iter()
        .filter(|target| target.contains("consistency"));
    assert_eq!(
        asked.collect::<Vec<_>>(),
        [
            "GET /v1/proofs/consistency?old=2&new=4",
            "GET /v1/proofs/consistency?old=4&new=6"
        ]
    );
}

#[tokio::test]
async fn lies_about_an_entry_are_noticed() {
    for (lie, expected) in [
        (Lie::Value, "value does not match"),
        (
            Lie::OtherEntry,
            "the receipt is for index 1, index 2 was asked for",
        ),
        (Lie::OtherKey, "signature does not match"),
    ] {
        let world = World::start().await;
        for value in ["one", "two", "three"] {
            world.append("b", value);
        }
        world.lie(lie);
        let found = world.read().await;
        assert!(found.contains(expected), "{lie:?}: {found}");
        world.lie(Lie::None);
        assert_eq!(world.read().await, "three");
    }
}

#[tokio::test]
async fn a_receipt_for_another_key_is_refused() {
    let world = World::start().await;
    world.append("a", "x");
    world.append("b", "y");
    let receipt = world
        .client
        .client()
        .receipt("b")
        .index(1)
        .send()
        .await
        .unwrap();
    let error = world
        .client
        .verify_receipt(&receipt, b"a")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("entry key does not match"),
        "{error}"
    );
    assert_eq!(
        world.pinned_size().await,
        None,
        "nothing is remembered of what was refused"
    );
}

/// Whether the error says that two signed checkpoints do not go together, and carries both.
fn is_fork(error: &Error) -> bool {
    let Error::Verification(error) = error else {
        return false;
    };
    let VerificationError::Inconsistent {
        pinned_note,
        found_note,
        ..
    } = &**error
    else {
        return false;
    };
    pinned_note != found_note && pinned_note.starts_with(ORIGIN) && found_note.starts_with(ORIGIN)
}

#[tokio::test]
async fn a_fork_is_noticed_at_every_size() {
    for size in [1, 3, 4, 5, 9] {
        let world = World::start().await;
        for at in 0..4 {
            world.append("b", &format!("value {at}"));
        }
        world.read().await;
        // Another history, under the same key.
        let mut fork = Ledger::new();
        for at in 0..size {
            let value = format!("other {at}");
            fork.append(
                "b",
                value.as_bytes(),
                &Metadata::default(),
                Prev::NotAsserted,
            );
        }
        // The smaller sizes need a tree that can prove something about the larger one.
        let published = fork.tree.size();
        while fork.tree.size().get() < 4 {
            fork.append("b", b"more", &Metadata::default(), Prev::NotAsserted);
        }
        fork.published = Some(published);
        *world.ledger.lock().unwrap() = fork;
        let error = world.client.checkpoint_verified().await.unwrap_err();
        assert!(is_fork(&error), "{size}: {error}");
        assert_eq!(world.pinned_size().await, Some(4));
    }
}

#[tokio::test]
async fn a_checkpoint_must_be_shown_to_be_consistent() {
    let world = World::start().await;
    for at in 0..3 {
        world.append("b", &at.to_string());
    }
    world.read().await;
    world.append("b", "3");
    world.append("b", "4");
    world.lie(Lie::NoConsistency);
    assert!(is_fork(&world.client.get_verified("b").await.unwrap_err()));
    assert_eq!(world.pinned_size().await, Some(3));
}

#[tokio::test]
async fn a_smaller_checkpoint_is_fine_if_it_is_consistent() {
    let world = World::start().await;
    for at in 0..7 {
        world.append("b", &at.to_string());
    }
    world.read().await;
    world.ledger.lock().unwrap().published = Some(TreeSize::new(5));
    assert_eq!(
        world.client.checkpoint_verified().await.unwrap().size,
        TreeSize::new(5)
    );
    assert_eq!(world.pinned_size().await, Some(7));
}

#[tokio::test]
async fn a_put_is_compared_with_what_was_appended() {
    let world = World::start().await;
    let client = world.client.client();
    let put = || {
        client
            .put("b", "value")
            .content_type("text/plain")
            .metadata("unit", "kg")
    };
    let included = world.client.put_verified(put().if_absent()).await.unwrap();
    assert_eq!(included.metadata.get("unit"), Some("kg"));
    assert_eq!(included.entry.prev, Prev::None);
    assert!(world.server.targets()[0].ends_with("?wait=published"));
    let included = world.client.put_verified(put().if_index(0)).await.unwrap();
    assert_eq!(included.entry.prev, Prev::Version(LeafIndex::new(0)));
    world
        .client
        .put_verified(client.put("b", "plain"))
        .await
        .unwrap();

    for (lie, expected) in [
        (Lie::Metadata, "another metadata"),
        (Lie::Condition, "another previous version"),
        (Lie::OtherKey, "signature does not match"),
    ] {
        world.lie(lie);
        let put = put().if_index(world.ledger.lock().unwrap().entries.len() as u64 - 1);
        let error = world.client.put_verified(put).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{lie:?}: {error}");
    }
}

#[tokio::test]
async fn the_checkpoint_is_remembered_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let pin = FilePin::new(directory.path().join("ledger.checkpoint"));
    let world = World::start().await;
    world.append("b", "one");
    let mut ledger = Ledger::new();
    ledger.append("b", b"one", &Metadata::default(), Prev::NotAsserted);
    let first = World::with(ledger, pin.clone()).await.unwrap();
    assert_eq!(first.read().await, "one");
    drop(first);

    let mut fork = Ledger::new();
    fork.append("b", b"other", &Metadata::default(), Prev::NotAsserted);
    let second = World::with(fork, pin).await.unwrap();
    assert_eq!(second.pinned_size().await, Some(1));
    assert!(is_fork(&second.client.get_verified("b").await.unwrap_err()));
}

/// A history that has nothing in common with any other, with so many entries, signed by the same key.
fn rewritten(size: u64) -> Ledger {
    let mut ledger = Ledger::new();
    // The smaller sizes need a tree that can prove something about the larger one.
    for at in 0..size.max(4) {
        let value = format!("other {at}");
        let metadata = Metadata::default();
        ledger.append("b", value.as_bytes(), &metadata, Prev::NotAsserted);
    }
    ledger.published = Some(TreeSize::new(size));
    ledger
}

#[tokio::test]
async fn a_rewritten_history_is_refused_after_a_restart_whatever_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.checkpoint");
    let mut ledger = Ledger::new();
    for at in 0..4 {
        let value = format!("value {at}");
        let metadata = Metadata::default();
        ledger.append("b", value.as_bytes(), &metadata, Prev::NotAsserted);
    }
    let before = World::with(ledger, FilePin::new(&path)).await.unwrap();
    assert_eq!(before.read().await, "value 3");
    drop(before);
    let remembered = std::fs::read(&path).unwrap();

    for size in [1, 3, 4, 5, 9] {
        let start = || World::with(rewritten(size), FilePin::new(&path));
        let after = start().await.unwrap();
        let checkpoint = after.client.checkpoint_verified().await.unwrap_err();
        assert!(is_fork(&checkpoint), "{size}: {checkpoint}");
        let after = start().await.unwrap();
        let version = after.client.get_version_verified("b", 0).await.unwrap_err();
        assert!(is_fork(&version), "{size}: {version}");
        let after = start().await.unwrap();
        let receipt = after
            .client
            .client()
            .receipt("b")
            .index(0)
            .send()
            .await
            .unwrap();
        // By itself it is a valid receipt: the ledger's key signed it.
        receipt.verify(after.client.policy()).unwrap();
        let refused = after
            .client
            .verify_receipt(&receipt, b"b")
            .await
            .unwrap_err();
        assert!(is_fork(&refused), "{size}: {refused}");
        let after = start().await.unwrap();
        after.ledger.lock().unwrap().published = None;
        let put = after
            .client
            .put_verified(after.client.client().put("b", "x"));
        assert!(is_fork(&put.await.unwrap_err()), "{size}");
        // Refused once, refused again, and nothing of it is remembered.
        assert!(is_fork(
            &after.client.checkpoint_verified().await.unwrap_err()
        ));
        assert_eq!(after.pinned_size().await, Some(4));
        assert_eq!(std::fs::read(&path).unwrap(), remembered);
    }
}

#[tokio::test]
async fn no_name_and_no_key_is_taken_from_the_server() {
    // With nothing remembered yet, too: then the policy alone decides.
    for remembered in [false, true] {
        for (lie, expected) in [
            (Lie::OtherKey, "signature does not match"),
            (Lie::OtherOrigin, "origin does not match"),
        ] {
            let world = World::start().await;
            world.append("b", "one");
            if remembered {
                assert_eq!(world.read().await, "one");
            }
            world.append("b", "two");
            world.lie(lie);
            let found = world.read().await;
            assert!(found.contains(expected), "{lie:?}: {found}");
            let refused = world.client.checkpoint_verified().await;
            assert!(
                matches!(refused, Err(Error::Verification(_))),
                "{lie:?}: {refused:?}"
            );
            let put = world
                .client
                .put_verified(world.client.client().put("b", "x"));
            assert!(matches!(put.await, Err(Error::Verification(_))), "{lie:?}");
            assert_eq!(world.pinned_size().await, remembered.then_some(1));
            // The server was never asked who it is.
            let targets = world.server.targets();
            assert!(
                !targets.iter().any(|target| target.contains("/v1/ledger")),
                "{targets:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_remembered_checkpoint_of_another_ledger_is_refused() {
    let other = SigningKey::from_seed("example.com/other", &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new(
        "example.com/other",
        TreeSize::EMPTY,
        scribe_proof::empty_root(),
    );
    let note = SignedCheckpoint::sign(checkpoint, &[&other])
        .unwrap()
        .to_text();
    let refused = World::with(Ledger::new(), MemoryPin::with_note(note))
        .await
        .err()
        .unwrap();
    assert!(
        refused
            .to_string()
            .contains("the policy names no such ledger"),
        "{refused}"
    );
    let damaged = World::with(Ledger::new(), MemoryPin::with_note("x"))
        .await
        .err()
        .unwrap();
    assert!(matches!(damaged, Error::Pin(_)), "{damaged}");
}
