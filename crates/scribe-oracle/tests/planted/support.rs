//! A ledger in memory, and a run over it that tells a judge what a caller chooses to tell.

use scribe_oracle::*;
use scribe_proof::{Hash, LeafIndex, LeafKind, MemoryTree, TreeSize, leaf_hash, root_at, sha256};

pub const NODES: u64 = 3;

pub struct Run {
    pub judge: Judge,
    /// What the ledger has.
    pub ledger: Vec<Entry>,
    now: u64,
}

impl Run {
    pub fn new() -> Run {
        Run {
            judge: Judge::new(),
            ledger: Vec::new(),
            now: 0,
        }
    }

    /// The next moment.
    pub fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    /// Appends a put, or a delete if there is no value, that nobody is told of. Returns its index.
    pub fn append(&mut self, key: &str, value: Option<&str>) -> u64 {
        let index = self.ledger.len() as u64;
        self.ledger.push(entry(index, key, value));
        index
    }

    /// Appends an entry of the ledger's own.
    pub fn append_system(&mut self) -> u64 {
        let index = self.append("", None);
        self.ledger[index as usize].kind = LeafKind::System;
        index
    }

    pub fn begin(&mut self, request: Request) -> OperationId {
        let at = self.tick();
        self.judge
            .invoked(at, ClientId(1), Some(NodeId(1)), request)
    }

    pub fn write(&mut self, write: Write) -> OperationId {
        self.begin(Request::Write(write))
    }

    pub fn end(&mut self, id: OperationId, outcome: Outcome) -> Result<(), Violation> {
        let at = self.tick();
        self.judge.returned(at, id, outcome)
    }

    /// A write that is appended and acknowledged as it should be. Returns the index of its first entry.
    pub fn write_well(&mut self, write: Write, values: &[Option<&str>]) -> u64 {
        let keys: Vec<String> = write
            .steps
            .iter()
            .filter(|step| step.change != Change::Check)
            .map(|step| String::from_utf8(step.key.clone()).unwrap())
            .collect();
        let id = self.write(write);
        let first = self.ledger.len();
        for (key, value) in keys.iter().zip(values) {
            self.append(key, *value);
        }
        let outcome = Outcome::Acknowledged(self.ledger[first..].iter().map(appended).collect());
        self.end(id, outcome).unwrap();
        first as u64
    }

    pub fn put(&mut self, key: &str, value: &str) -> u64 {
        self.write_well(Write::put(key, value.as_bytes()), &[Some(value)])
    }

    pub fn delete(&mut self, key: &str) -> u64 {
        self.write_well(Write::delete(key), &[None])
    }

    /// A read of one key, from begin to end.
    pub fn read(
        &mut self,
        read: Read,
        size: Option<u64>,
        saw: Option<Seen>,
    ) -> Result<(), Violation> {
        let id = self.begin(Request::Read(read));
        self.end(id, answer(size, &[saw]))
    }

    pub fn entry_seen(&mut self, entry: &Entry) -> Result<(), Violation> {
        let at = self.tick();
        self.judge.entry_seen(at, NodeId(2), entry)
    }

    /// The root of the ledger at this size.
    pub fn root(&self, size: u64) -> Hash {
        let mut tree = MemoryTree::new();
        for entry in &self.ledger {
            tree.append(entry.leaf_hash.unwrap());
        }
        root_at(&tree, TreeSize::new(size)).unwrap()
    }

    pub fn checkpoint(&mut self, node: u64, size: u64, root: Hash) -> Result<(), Violation> {
        let at = self.tick();
        self.judge
            .checkpoint_seen(at, NodeId(node), TreeSize::new(size), root)
    }

    pub fn state(&mut self, node: u64, size: u64, root: Option<Hash>) -> Result<(), Violation> {
        let state = NodeState {
            tree_size: TreeSize::new(size),
            root_hash: root,
            last_timestamp_ms: None,
        };
        let at = self.tick();
        self.judge.node_state(at, NodeId(node), state)
    }

    /// Gives the judge a node's whole ledger.
    pub fn give(&mut self, node: u64, ledger: &[Entry]) -> Result<(), Violation> {
        let at = self.tick();
        self.judge
            .whole_ledger(at, NodeId(node), ledger.iter().cloned())
    }

    /// The end: every node has the ledger.
    pub fn finish(mut self) -> Result<Checked, Violation> {
        for node in 1..=NODES {
            self.give(node, &self.ledger.clone())?;
        }
        self.judge.finish()
    }
}

pub fn entry(index: u64, key: &str, value: Option<&str>) -> Entry {
    Entry {
        index: LeafIndex::new(index),
        kind: match value {
            Some(_) => LeafKind::Put,
            None => LeafKind::Delete,
        },
        key: key.as_bytes().to_vec(),
        value: value.map(|value| sha256(value.as_bytes())),
        timestamp_ms: Some(1_000 + index / 2),
        leaf_hash: Some(leaf_hash(format!("{index} {key} {value:?}").as_bytes())),
    }
}

pub fn appended(entry: &Entry) -> Appended {
    Appended {
        index: entry.index,
        timestamp_ms: entry.timestamp_ms,
        leaf_hash: entry.leaf_hash,
    }
}

pub fn answer(size: Option<u64>, saw: &[Option<Seen>]) -> Outcome {
    Outcome::Answered(Answer {
        tree_size: size.map(TreeSize::new),
        saw: saw.to_vec(),
    })
}

pub fn seen(index: u64, value: &str) -> Option<Seen> {
    Some(Seen::value(index, value.as_bytes()))
}

pub fn failed(current: Option<u64>) -> Outcome {
    Outcome::ConditionFailed {
        step: 0,
        current: current.map(LeafIndex::new),
    }
}

pub fn only_if_index(key: &str, value: &str, index: u64) -> Write {
    Write::of([Step::put(key, value.as_bytes()).only_if(Condition::Index(LeafIndex::new(index)))])
}

pub fn only_if_absent(key: &str, value: &str) -> Write {
    Write::of([Step::put(key, value.as_bytes()).only_if(Condition::Absent)])
}

/// The judge found this promise broken, and its text has these words.
#[track_caller]
pub fn found<T: std::fmt::Debug>(
    result: Result<T, Violation>,
    invariant: Invariant,
    words: &[&str],
) {
    let violation = result.expect_err("a violation was planted");
    let text = violation.to_string();
    assert_eq!(violation.invariant, invariant, "{text}");
    for word in words
        .iter()
        .chain([&invariant.name(), &invariant.promise()])
    {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}
