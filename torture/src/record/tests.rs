//! A ledger that kept its promises passes; each way of breaking one is found.

use scribe_client::wire::PrevView;
use scribe_proof::hash::leaf_hash;
use scribe_proof::{Checkpoint, SignedCheckpoint, SigningKey, TreeSize};

use super::*;
use crate::trouble::Trouble;

const WRITERS: u32 = 3;
const ENTRIES: u64 = 30;
const NODE: &str = "node 1";

/// What the writers did: each one operation after the other, in turn.
fn operation(index: u64) -> Operation {
    Operation {
        writer: (index % u64::from(WRITERS)) as u32,
        n: index / u64::from(WRITERS),
    }
}

fn entry(index: u64) -> EntryView {
    let operation = operation(index);
    EntryView {
        index,
        kind: Kind::Put,
        subtype: None,
        key: Some(operation.key()),
        key_base64: None,
        timestamp_ms: 1_000 + index,
        prev: PrevView::NotAsserted,
        transaction: None,
        author: None,
        author_base64: None,
        content_type: None,
        metadata: BTreeMap::new(),
        value: Some(operation.value(operation.filler())),
        value_base64: None,
        value_length: 0,
        leaf_hash: HexHash::from(leaf_hash(&index.to_be_bytes())),
        leaf_base64: None,
        salt_base64: None,
        body_base64: None,
    }
}

fn promise(record: &Record, index: u64, at: u64) {
    let operation = operation(index);
    let appended = Appended {
        index: at,
        timestamp_ms: 1_000 + index,
        leaf_hash: entry(index).leaf_hash,
        tree_size: at + 1,
        replayed: false,
    };
    record.promised(operation, operation.filler(), &appended);
}

fn record() -> Record {
    let record = Record::new(WRITERS);
    for index in 0..ENTRIES {
        promise(&record, index, index);
    }
    record
}

/// Holds this ledger against the record.
fn hold(record: &Record, ledger: &[EntryView]) -> Result<()> {
    record.check()?;
    let mut progress = Progress::new(WRITERS);
    for entry in ledger {
        record.hold(&mut progress, NODE, entry)?;
    }
    record.all_held(&progress, NODE)
}

fn ledger() -> Vec<EntryView> {
    (0..ENTRIES).map(entry).collect()
}

/// The same entries with contiguous indexes.
fn numbered(mut ledger: Vec<EntryView>) -> Vec<EntryView> {
    for (index, entry) in ledger.iter_mut().enumerate() {
        entry.index = index as u64;
    }
    ledger
}

#[track_caller]
fn is_found(record: &Record, ledger: &[EntryView], words: &str) {
    match hold(record, ledger) {
        Err(Trouble::Violation(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}, expected a violation with {words:?}"),
    }
}

#[test]
fn a_ledger_that_kept_its_promises_passes() {
    assert_eq!(hold(&record(), &ledger()), Ok(()));
    let filler = operation(7).filler();
    assert_eq!(
        Operation::of_value(&operation(7).value(filler)),
        Some(operation(7))
    );
}

#[test]
fn what_a_watch_gave_must_be_in_the_ledger() {
    let record = record();
    ledger().iter().for_each(|entry| record.watched(entry));
    assert_eq!(hold(&record, &ledger()), Ok(()));
    let breaks: [fn(&mut EntryView); 4] = [
        |entry| entry.value = Some(operation(8).value(operation(8).filler())),
        |entry| entry.value = None,
        |entry| entry.timestamp_ms += 1,
        |entry| entry.leaf_hash = HexHash::from(leaf_hash(b"another")),
    ];
    for change in breaks {
        let record = self::record();
        let mut watched = ledger();
        change(&mut watched[7]);
        watched.iter().for_each(|entry| record.watched(entry));
        is_found(
            &record,
            &ledger(),
            "entry 7 (`w/1/2`) is not what a watch gave",
        );
    }
}

#[test]
fn a_lost_end_is_found() {
    is_found(
        &record(),
        &ledger()[..20],
        "10 acknowledged writes are lost",
    );
}

#[test]
fn an_entry_missing_in_the_middle_is_found() {
    let mut missing = ledger();
    missing.remove(9);
    is_found(&record(), &missing, "where 9 is due");
    is_found(&record(), &numbered(missing), "entry 9 was acknowledged as");
}

#[test]
fn a_changed_value_is_found() {
    let mut changed = ledger();
    let value = changed[11].value.as_mut().unwrap();
    let last = value.pop().unwrap();
    value.push(if last == 'x' { 'y' } else { 'x' });
    is_found(&record(), &changed, "entry 11 was acknowledged as");
    assert_eq!(
        Operation::of_value(changed[11].value.as_deref().unwrap()),
        None
    );
}

#[test]
fn another_leaf_with_the_same_value_is_found() {
    let mut changed = ledger();
    changed[4].leaf_hash = HexHash([7; 32]);
    is_found(&record(), &changed, "entry 4 was acknowledged as");
}

#[test]
fn an_entry_that_is_there_twice_is_found() {
    let mut doubled = ledger();
    doubled.push(entry(ENTRIES - 1));
    is_found(
        &record(),
        &numbered(doubled),
        "was never acknowledged, or is there twice",
    );
}

#[test]
fn an_entry_nobody_wrote_is_found() {
    let mut strange = ledger();
    strange.push(EntryView {
        key: Some("somebody".into()),
        ..entry(ENTRIES)
    });
    is_found(&record(), &strange, "is nobody's");
}

#[test]
fn two_acknowledgements_of_one_index_are_found() {
    let record = record();
    promise(&record, ENTRIES, 5);
    is_found(&record, &ledger(), "leaf index 5 was acknowledged twice");
}

#[test]
fn operations_of_one_writer_out_of_order_are_found() {
    let record = Record::new(WRITERS);
    promise(&record, 3, 0);
    promise(&record, 0, 3);
    let swapped = numbered(vec![entry(3)]);
    is_found(&record, &swapped, "operation 0 is due");
}

#[test]
fn a_time_that_goes_back_is_found() {
    let mut back = ledger();
    back[8].timestamp_ms = 1;
    is_found(&record(), &back, "the one before it of");
}

#[test]
fn a_checkpoint_of_another_history_is_found() {
    let key = SigningKey::from_seed("torture.example/ledger", &[1; 32]).unwrap();
    let note = |size: u64, root: Hash| {
        let checkpoint = Checkpoint::new(key.name(), TreeSize::new(size), root);
        SignedCheckpoint::sign(checkpoint, &[&key])
            .unwrap()
            .to_text()
    };
    let mut frontier = Frontier::default();
    ledger()[..10]
        .iter()
        .for_each(|entry| frontier.append(entry.leaf_hash.into()));
    let verifier = key.verifier_key().clone();

    let record = self::record();
    assert!(record.checkpoint(NODE, &note(10, frontier.root()), &verifier));
    assert!(!record.checkpoint(NODE, &note(10, frontier.root()), &verifier));
    assert_eq!(hold(&record, &ledger()), Ok(()));
    assert!(record.checkpoint(NODE, &note(12, Hash([9; 32])), &verifier));
    is_found(&record, &ledger(), "the entries before 12 have the root");

    let record = self::record();
    record.checkpoint(NODE, &note(10, frontier.root()), &verifier);
    record.checkpoint("node 2", &note(10, Hash([9; 32])), &verifier);
    is_found(&record, &ledger(), "two signed checkpoints of size 10");

    let record = self::record();
    let forged = note(10, frontier.root()).replace("\n10\n", "\n11\n");
    record.checkpoint(NODE, &forged, &verifier);
    is_found(&record, &ledger(), "does not hold");
}
