//! A policy follows its ledger, and nobody else: honest updates, and servers that lie.

mod common;

use common::{ORIGIN, ledger_key, node_key};
use scribe_proof::policy_update::{self, Announced};
use scribe_proof::{
    Checkpoint, Hash, Leaf, LeafIndex, LeafKind, LedgerKeys, MemoryTree, Policy, PolicyChange,
    PolicyUpdateError, Prev, ROTATION_OVERLAP_MS, Rotation, RotationError, SignedCheckpoint,
    SigningKey, SystemKind, VerifierKey, cosignature, inclusion, leaf_hash,
};

/// A ledger of system leaves, and what a server says about it.
#[derive(Default)]
struct Ledger {
    leaves: Vec<Vec<u8>>,
    tree: MemoryTree,
}

fn leaf(kind: LeafKind, subtype: u16, key: &[u8], body: &[u8]) -> Vec<u8> {
    let leaf = Leaf {
        kind,
        subtype,
        timestamp_ms: 1,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::NotAsserted,
        commitment: Hash::default(),
        key,
        author: b"",
        body,
    };
    let mut bytes = Vec::new();
    leaf.encode_into(&mut bytes).unwrap();
    bytes
}

fn node_body(id: u64, key: &SigningKey) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.push(4);
    body.extend_from_slice(&key.verifier_key().public_key());
    body
}

impl Ledger {
    fn push(&mut self, leaf: Vec<u8>) -> LeafIndex {
        self.tree.append(leaf_hash(&leaf));
        self.leaves.push(leaf);
        LeafIndex::new(self.leaves.len() as u64 - 1)
    }

    fn next(&self) -> LeafIndex {
        LeafIndex::new(self.leaves.len() as u64)
    }

    fn node(&mut self, id: u8) -> LeafIndex {
        let body = node_body(id.into(), &node_key(id));
        self.push(leaf(
            LeafKind::System,
            SystemKind::NodeKey as u16,
            b"",
            &body,
        ))
    }

    fn rotate(&mut self, old: &SigningKey, new: &SigningKey) -> LeafIndex {
        let rotation = Rotation::sign(old, new, self.next()).unwrap();
        let body = rotation.to_text();
        let kind = SystemKind::LedgerKey as u16;
        self.push(leaf(LeafKind::System, kind, b"", body.as_bytes()))
    }

    fn announced(&self, index: LeafIndex) -> Announced {
        Announced {
            leaf: self.leaves[index.get() as usize].clone(),
            index,
            proof: inclusion::prove(&self.tree, index, self.tree.size()).unwrap(),
        }
    }

    fn checkpoint(&self, keys: &[&SigningKey], nodes: &[u8]) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(ORIGIN, self.tree.size(), self.tree.root());
        let mut signed = SignedCheckpoint::sign(checkpoint, keys).unwrap();
        let text = signed.note().text.clone();
        for id in nodes {
            let cosigned = cosignature::sign(&text, &node_key(*id), 7).unwrap();
            signed.add_signature(cosigned).unwrap();
        }
        signed
    }
}

/// Three nodes, two outside witnesses, a group of the user's own, another ledger and comments.
fn rich_policy() -> String {
    let mut text = "# whom I trust\nlog ".to_owned();
    text += &ledger_key().verifier_key().to_text();
    text += "  https://ledger.example\n";
    let other = SigningKey::from_seed("example.com/other", &[9; 32]).unwrap();
    text += &format!("log {}\n\n", other.verifier_key());
    for id in 1..=3 {
        text += &format!("witness node-{id} {}\n", node_key(id).verifier_key());
    }
    for name in ["alice", "bob"] {
        let seed = [name.len() as u8 + 200; 32];
        let key = SigningKey::cosigner_from_seed(&format!("{name}.example"), &seed).unwrap();
        text += &format!(
            "witness {name}\t{} https://{name}.example # \n",
            key.verifier_key()
        )
        .replace(" # ", "");
    }
    text + "group node-majority 2 node-1 node-2 node-3\n# one of them is enough\ngroup friends any alice bob\n\
            group both 1 node-majority friends\nquorum both\n"
}

fn simple_policy(nodes: &[u8]) -> String {
    let named = nodes
        .iter()
        .map(|id| (format!("node-{id}"), node_key(*id).verifier_key().clone()))
        .collect();
    Policy::majority(ledger_key().verifier_key().clone(), named)
        .unwrap()
        .to_text()
}

fn other_ledger_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

#[test]
fn new_nodes_and_a_new_ledger_key_are_taken_and_everything_else_stays() {
    let (old_key, new_key) = (ledger_key(), other_ledger_key(2));
    let mut ledger = Ledger::default();
    let places = [
        ledger.node(1),
        ledger.node(4),
        ledger.rotate(&old_key, &new_key),
        ledger.node(5),
    ];
    let checkpoint = ledger.checkpoint(&[&new_key, &old_key], &[1, 2, 4]);
    let announced: Vec<_> = places.iter().map(|at| ledger.announced(*at)).collect();
    let old = rich_policy();
    let update = policy_update::update(&old, &checkpoint, &announced, &[]).unwrap();
    let expected = old
        .replace(
            &old_key.verifier_key().to_text(),
            &new_key.verifier_key().to_text(),
        )
        .replace(
            "group node-majority 2 node-1 node-2 node-3\n",
            &format!(
                "witness node-4 {}\nwitness node-5 {}\ngroup node-majority 3 node-1 node-2 node-3 node-4 node-5\n",
                node_key(4).verifier_key(),
                node_key(5).verifier_key()
            ),
        );
    assert_eq!(update.text, expected);
    assert_eq!(update.left_out, []);
    assert_eq!(update.changes.len(), 4, "{:?}", update.changes);
    assert_eq!(
        update.changes[3],
        PolicyChange::Threshold {
            old: 2,
            new: 3,
            of: 5
        }
    );
    // Again: nothing is left to do, and the text stays as it is to the byte.
    let again = policy_update::update(&update.text, &checkpoint, &announced, &[]).unwrap();
    assert_eq!(again.text, update.text);
    assert_eq!(again.changes, []);
}

#[test]
fn a_key_in_a_leaf_that_is_not_included_is_a_lie() {
    let mut ledger = Ledger::default();
    let one = ledger.node(1);
    ledger.node(2);
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2]);
    let policy = simple_policy(&[1, 2, 3]);
    // The leaf is of a tree that the ledger never signed.
    let mut forked = Ledger::default();
    forked.node(1);
    let four = forked.node(4);
    let mut lies = vec![forked.announced(four)];
    // A true leaf at another place, with a hash too few, with another leaf's proof.
    let honest = ledger.announced(one);
    lies.push(Announced {
        index: LeafIndex::new(1),
        ..honest.clone()
    });
    lies.push(Announced {
        proof: Vec::new(),
        ..honest.clone()
    });
    lies.push(Announced {
        index: LeafIndex::new(9),
        ..honest.clone()
    });
    for lie in lies {
        let error = policy_update::update(&policy, &checkpoint, &[honest.clone(), lie], &[]);
        let error = error.unwrap_err();
        assert!(
            matches!(error, PolicyUpdateError::NotIncluded { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_leaf_that_announces_nothing_is_a_lie() {
    let mut ledger = Ledger::default();
    let body = node_body(4, &node_key(4));
    let node = SystemKind::NodeKey as u16;
    let mut other_type = body.clone();
    other_type[8] = 1;
    let places = [
        // Somebody's entry, however it is called.
        ledger.push(leaf(LeafKind::Put, 0, &body, b"")),
        ledger.push(leaf(LeafKind::System, node, b"key", &body)),
        ledger.push(leaf(
            LeafKind::System,
            SystemKind::Genesis as u16,
            b"",
            &body,
        )),
        ledger.push(leaf(LeafKind::System, node, b"", &other_type)),
        ledger.push(leaf(LeafKind::System, node, b"", &body[..40])),
        ledger.push(leaf(
            LeafKind::System,
            SystemKind::LedgerKey as u16,
            b"",
            &[0xff; 33],
        )),
    ];
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2]);
    for at in places {
        let error = policy_update::update(
            &simple_policy(&[1, 2, 3]),
            &checkpoint,
            &[ledger.announced(at)],
            &[],
        );
        let error = error.unwrap_err();
        assert!(
            matches!(error, PolicyUpdateError::NoAnnouncement { .. }),
            "{at}: {error}"
        );
    }
}

#[test]
fn a_checkpoint_must_satisfy_the_old_policy_and_the_new_one() {
    let (old_key, new_key) = (ledger_key(), other_ledger_key(2));
    let mut ledger = Ledger::default();
    let at = ledger.rotate(&old_key, &new_key);
    let four = ledger.node(4);
    let five = ledger.node(5);
    let announced = [
        ledger.announced(at),
        ledger.announced(four),
        ledger.announced(five),
    ];
    let policy = simple_policy(&[1, 2, 3]);
    // Signed with the new key only, and by nodes that the old policy does not know.
    for checkpoint in [
        ledger.checkpoint(&[&new_key], &[1, 2, 3, 4, 5]),
        ledger.checkpoint(&[&old_key, &new_key], &[3, 4, 5]),
    ] {
        let error = policy_update::update(&policy, &checkpoint, &announced, &[]).unwrap_err();
        assert!(
            matches!(error, PolicyUpdateError::OldNotSatisfied(_)),
            "{error}"
        );
    }
    // Signed for the old policy only: by the old key, and by too few of the nodes there are to be.
    for checkpoint in [
        ledger.checkpoint(&[&old_key], &[1, 2, 3, 4, 5]),
        ledger.checkpoint(&[&old_key, &new_key], &[1, 2]),
    ] {
        let error = policy_update::update(&policy, &checkpoint, &announced, &[]).unwrap_err();
        assert!(
            matches!(error, PolicyUpdateError::NewNotSatisfied(_)),
            "{error}"
        );
    }
}

#[test]
fn a_server_cannot_take_nodes_away() {
    let mut ledger = Ledger::default();
    let places = [ledger.node(1), ledger.node(2)];
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2]);
    let policy = simple_policy(&[1, 2, 3]);
    // However few nodes it offers, or none at all.
    let announced: Vec<_> = places.iter().map(|at| ledger.announced(*at)).collect();
    for offered in [&announced[..], &announced[..1], &[]] {
        let update = policy_update::update(&policy, &checkpoint, offered, &[]).unwrap();
        assert_eq!(update.text, policy);
        assert_eq!(update.changes, []);
    }
    let removed = policy_update::update(&policy, &checkpoint, &announced, &["node-3"]).unwrap();
    assert_eq!(removed.text, simple_policy(&[1, 2]));
    // The node is offered and removed at once: the user's word counts.
    let policy = simple_policy(&[1, 2]);
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2]);
    let removed = policy_update::update(&policy, &checkpoint, &announced, &["node-2"]).unwrap();
    assert_eq!(removed.text, simple_policy(&[1]));
    assert_eq!(removed.left_out.len(), 1);
    for (names, expected) in [
        (&["node-9"][..], "\"node-9\" is not a member"),
        (&["node-1", "node-2"], "at least one node must be left"),
    ] {
        let error = policy_update::update(&policy, &checkpoint, &announced, names).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn another_key_for_a_known_node_is_not_taken_in_passing() {
    let thief = SigningKey::cosigner_from_seed(&format!("{ORIGIN}/node/3"), &[77; 32]).unwrap();
    let mut ledger = Ledger::default();
    let true_key = ledger.node(3);
    let kind = SystemKind::NodeKey as u16;
    let stolen = ledger.push(leaf(LeafKind::System, kind, b"", &node_body(3, &thief)));
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2]);
    let policy = simple_policy(&[1, 2, 3]);
    let announced = [ledger.announced(stolen), ledger.announced(true_key)];
    let update = policy_update::update(&policy, &checkpoint, &announced, &[]).unwrap();
    assert_eq!(update.text, policy);
    assert_eq!(
        update.left_out,
        [(
            thief.verifier_key().clone(),
            "the policy has another key for this node; remove that one first"
        )]
    );
    // On the user's word the newest announcement takes the place.
    let update = policy_update::update(&policy, &checkpoint, &announced, &["node-3"]).unwrap();
    assert!(update.text.contains(&thief.verifier_key().to_text()));
}

#[test]
fn rotations_are_followed_from_the_policys_own_key_only() {
    let keys: Vec<SigningKey> = [1, 2, 3, 4].map(other_ledger_key).into();
    let mut ledger = Ledger::default();
    let first = ledger.rotate(&keys[0], &keys[1]);
    let second = ledger.rotate(&keys[1], &keys[2]);
    // Of a key that was never this ledger's.
    let foreign = ledger.rotate(&keys[3], &keys[2]);
    let checkpoint = ledger.checkpoint(&[&keys[2], &keys[1], &keys[0]], &[1, 2]);
    let policy = simple_policy(&[1, 2, 3]);
    let newest = |places: &[LeafIndex]| -> VerifierKey {
        let announced: Vec<_> = places.iter().map(|at| ledger.announced(*at)).collect();
        let update = policy_update::update(&policy, &checkpoint, &announced, &[]).unwrap();
        let policy = Policy::parse(&update.text).unwrap();
        policy.log_keys().next().unwrap().clone()
    };
    assert_eq!(&newest(&[second, first]), keys[2].verifier_key());
    assert_eq!(&newest(&[first]), keys[1].verifier_key());
    assert_eq!(&newest(&[second]), keys[0].verifier_key());
    assert_eq!(&newest(&[foreign]), keys[0].verifier_key());
    // A note that is true, in a leaf it was not made for.
    let note = Rotation::sign(&keys[2], &keys[3], LeafIndex::new(99)).unwrap();
    let kind = SystemKind::LedgerKey as u16;
    let mut moved = Ledger::default();
    let at = moved.push(leaf(LeafKind::System, kind, b"", note.to_text().as_bytes()));
    let checkpoint = moved.checkpoint(&[&keys[0]], &[1, 2]);
    let error = policy_update::update(&policy, &checkpoint, &[moved.announced(at)], &[]);
    assert!(matches!(
        error.unwrap_err(),
        PolicyUpdateError::Rotation {
            error: RotationError::Index { .. },
            ..
        }
    ));
}

#[test]
fn policies_of_another_shape_are_left_to_their_owner() {
    let mut ledger = Ledger::default();
    let four = ledger.node(4);
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2, 3, 4]);
    let announced = [ledger.announced(four)];
    let policy = simple_policy(&[1, 2, 3]);
    for (changed, expected) in [
        (
            policy.replace("majority 2", "majority 3"),
            "another threshold",
        ),
        (
            policy.replace("majority 2", "majority all"),
            "another threshold",
        ),
        (
            policy
                .replace("group ", "group inner any node-3\ngroup ")
                .replace("node-2 node-3\n", "node-2 inner\n"),
            "a group among its members",
        ),
        (
            rich_policy()
                .replace("group friends any alice bob", "group friends any bob")
                .replace("2 node-1 node-2 node-3", "3 node-1 node-2 node-3 alice"),
            "no node of this ledger",
        ),
    ] {
        let error = policy_update::update(&changed, &checkpoint, &announced, &[]).unwrap_err();
        assert!(error.to_string().contains(expected), "{changed}{error}");
    }
    // Without the group there is nothing a node could be added to; the ledger's key is followed all the same.
    let new_key = other_ledger_key(2);
    let at = ledger.rotate(&ledger_key(), &new_key);
    let checkpoint = ledger.checkpoint(&[&ledger_key(), &new_key], &[]);
    let announced = [ledger.announced(four), ledger.announced(at)];
    let text = format!("log {}\nquorum none\n", ledger_key().verifier_key());
    let update = policy_update::update(&text, &checkpoint, &announced, &[]).unwrap();
    assert_eq!(
        update.text,
        format!("log {}\nquorum none\n", new_key.verifier_key())
    );
    assert_eq!(update.left_out.len(), 1);
    // A name that is taken by somebody else.
    let stranger = SigningKey::cosigner_from_seed("w.example", &[50; 32]).unwrap();
    let taken = format!("witness node-4 {}\n{policy}", stranger.verifier_key());
    let checkpoint = ledger.checkpoint(&[&ledger_key()], &[1, 2, 3, 4]);
    let announced = [ledger.announced(four)];
    let error = policy_update::update(&taken, &checkpoint, &announced, &[]).unwrap_err();
    assert!(matches!(error, PolicyUpdateError::New(_)), "{error}");
    assert!(error.to_string().contains("\"node-4\""), "{error}");
}

#[test]
fn a_replaced_key_signs_for_thirty_days_of_ledger_time_and_never_comes_back() {
    let keys: Vec<SigningKey> = [1, 2, 3].map(other_ledger_key).into();
    let vkey = |at: usize| keys[at].verifier_key();
    let at = LeafIndex::new;
    let rotation =
        |old: usize, new: usize, index| Rotation::sign(&keys[old], &keys[new], at(index)).unwrap();
    let mut history = LedgerKeys::begin(vkey(0).clone());
    assert_eq!(history.signing(u64::MAX), [vkey(0)]);
    let wrong_place = history.rotate(rotation(0, 1, 5), at(6), 1_000);
    assert!(matches!(wrong_place, Err(RotationError::Index { .. })));
    let wrong_key = history.rotate(rotation(2, 1, 5), at(5), 1_000);
    assert!(matches!(wrong_key, Err(RotationError::NotNewest { .. })));
    assert_eq!(history.newest(), vkey(0));

    history.rotate(rotation(0, 1, 5), at(5), 1_000).unwrap();
    let end = 1_000 + ROTATION_OVERLAP_MS;
    assert_eq!(history.signing(1_000), [vkey(1), vkey(0)]);
    assert_eq!(history.signing(end - 1), [vkey(1), vkey(0)]);
    assert_eq!(history.signing(end), [vkey(1)]);
    // Said twice, it replaces nothing.
    let twice = history.rotate(rotation(0, 1, 5), at(5), 2_000);
    assert!(matches!(twice, Err(RotationError::NotNewest { .. })));

    history.rotate(rotation(1, 2, 9), at(9), end - 10).unwrap();
    assert_eq!(history.signing(end - 1), [vkey(2), vkey(1), vkey(0)]);
    assert_eq!(history.signing(end), [vkey(2), vkey(1)]);
    let back = history.rotate(rotation(2, 0, 12), at(12), end);
    assert!(matches!(back, Err(RotationError::UsedBefore { .. })));
    assert_eq!(history.rotations().len(), 2);
    assert_eq!(
        history.all().collect::<Vec<_>>(),
        [vkey(2), vkey(1), vkey(0)]
    );
}
