//! Writes, from the node's handle to the disk and back: order, conditions, transactions, idempotency, restarts.

use std::collections::HashSet;

use bytes::Bytes;
use scribe::node::{AppendError, Condition, Node, Operation, Transaction, Write, WriteKind};
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::leaf::{LeafKind, Metadata, Prev};

use crate::test_ledger::{TestLedger, condition_failed, delete, put, wait_until};

/// Genesis, the ledger's key, the node's key.
const SYSTEM_ENTRIES: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ledger_begins_with_its_keys_and_takes_writes() {
    let ledger = TestLedger::start().await;
    ledger.check_log(SYSTEM_ENTRIES).await;
    let first = ledger.put("a", "one").await;
    assert_eq!(first.index.get(), SYSTEM_ENTRIES);
    assert_eq!(first.tree_size.get(), SYSTEM_ENTRIES + 1);
    let second = ledger.put("a", "two").await;
    assert!(second.index > first.index);
    assert_eq!(ledger.value("a").unwrap(), "two");
    let at_first = ledger.node.latest(b"a", first.tree_size).unwrap().unwrap();
    assert_eq!(at_first.value(), "one", "nothing is overwritten");
    let gone = ledger.node.append(delete("a")).await.unwrap();
    assert_eq!(ledger.value("a"), None);
    let history = ledger.node.history(b"a", gone.tree_size, 10).unwrap();
    let kinds: Vec<_> = history
        .iter()
        .map(|entry| entry.parsed().unwrap().kind)
        .collect();
    assert_eq!(
        kinds,
        [LeafKind::Delete, LeafKind::Put, LeafKind::Put],
        "a tombstone keeps the history"
    );
    ledger.check_log(SYSTEM_ENTRIES + 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_is_there_after_restarts_across_segments() {
    let mut ledger = TestLedger::start().await;
    let mut size = SYSTEM_ENTRIES;
    for round in 0..4 {
        let writes: Vec<Write> = (0..500)
            .map(|n| {
                put(
                    &format!("key {}", n % 97),
                    &format!("round {round} value {n}"),
                )
            })
            .collect();
        for outcome in ledger.node.append_many(writes).await {
            assert_eq!(outcome.unwrap().index.get(), size);
            size += 1;
        }
        ledger.check_log(size).await;
        ledger.restart().await;
        ledger.check_log(size).await;
        assert_eq!(
            ledger.value("key 5").unwrap(),
            format!("round {round} value {}", 5 + 97 * 5)
        );
    }
    // The test must have sealed segments; the sealer works at its own pace.
    wait_until(|| ledger.node.sealed_segments() > 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_get_distinct_indexes_in_one_contiguous_ledger() {
    let ledger = TestLedger::start().await;
    let mut tasks = Vec::new();
    for writer in 0..32 {
        let node = ledger.node.clone();
        tasks.push(tokio::spawn(async move {
            let mut indexes = Vec::new();
            for n in 0..40 {
                let appended = node
                    .append(put(&format!("w{writer}"), &format!("{n}")))
                    .await
                    .unwrap();
                assert!(
                    indexes.last().is_none_or(|last| *last < appended.index),
                    "a writer's own order holds"
                );
                indexes.push(appended.index);
            }
            indexes
        }));
    }
    let mut seen = HashSet::new();
    for task in tasks {
        for index in task.await.unwrap() {
            assert!(seen.insert(index), "index {index} was given twice");
        }
    }
    ledger.check_log(SYSTEM_ENTRIES + 32 * 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_against_the_current_version_and_are_asserted_in_the_leaf() {
    let ledger = TestLedger::start().await;
    let node = &ledger.node;
    let absent = |key: &str| Write {
        condition: Condition::Absent,
        ..put(key, "v")
    };
    let version = |key: &str, index| Write {
        condition: Condition::Version(index),
        ..put(key, "v")
    };

    let first = node.append(absent("k")).await.unwrap();
    let leaf = node.entry(first.index).unwrap().unwrap();
    assert_eq!(leaf.parsed().unwrap().prev, Prev::None);
    assert_eq!(
        condition_failed(node.append(absent("k")).await.unwrap_err()),
        Some(first.index.get())
    );

    let second = node.append(version("k", first.index)).await.unwrap();
    let leaf = node.entry(second.index).unwrap().unwrap();
    assert_eq!(leaf.parsed().unwrap().prev, Prev::Version(first.index));
    assert_eq!(
        condition_failed(node.append(version("k", first.index)).await.unwrap_err()),
        Some(second.index.get())
    );

    let tombstone = node.append(delete("k")).await.unwrap();
    let error = node.append(version("k", second.index)).await.unwrap_err();
    assert!(matches!(
        error,
        AppendError::ConditionFailed { deleted: true, .. }
    ));
    let third = node.append(absent("k")).await.unwrap();
    let leaf = node.entry(third.index).unwrap().unwrap();
    assert_eq!(
        leaf.parsed().unwrap().prev,
        Prev::Version(tombstone.index),
        "absent after a tombstone names it"
    );
    assert_eq!(
        condition_failed(
            node.append(version("never", LeafIndex::new(1)))
                .await
                .unwrap_err()
        ),
        None
    );
    ledger.check_log(SYSTEM_ENTRIES + 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_concurrent_creators_exactly_one_wins() {
    let ledger = TestLedger::start().await;
    for round in 0..20 {
        let mut tasks = Vec::new();
        for writer in 0..16 {
            let node = ledger.node.clone();
            tasks.push(tokio::spawn(async move {
                let write = Write {
                    condition: Condition::Absent,
                    ..put(&format!("round {round}"), &format!("{writer}"))
                };
                node.append(write).await
            }));
        }
        let mut won = Vec::new();
        let mut refused = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(appended) => won.push(appended.index),
                Err(error) => refused.push(condition_failed(error)),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        assert!(
            refused.iter().all(|seen| *seen == Some(won[0].get())),
            "a refusal names the version it saw"
        );
    }
    ledger.check_log(SYSTEM_ENTRIES + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_by_compare_and_set_loses_no_increment() {
    let ledger = TestLedger::start().await;
    ledger.put("counter", "0").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let node = ledger.node.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let size = node.barrier().await.unwrap();
                    let entry = node.latest(b"counter", size).unwrap().unwrap();
                    let value: u64 = std::str::from_utf8(&entry.value())
                        .unwrap()
                        .parse()
                        .unwrap();
                    let write = Write {
                        condition: Condition::Version(entry.index),
                        ..put("counter", &(value + 1).to_string())
                    };
                    match node.append(write).await {
                        Ok(_) => break,
                        Err(AppendError::ConditionFailed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(ledger.value("counter").unwrap(), "200");
    ledger.check_log(SYSTEM_ENTRIES + 201).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_takes_effect_whole_or_not_at_all() {
    let ledger = TestLedger::start().await;
    let base = ledger.put("a", "1").await;
    let write = |key: &str, value: &str, condition| Operation::Write {
        key: Bytes::copy_from_slice(key.as_bytes()),
        kind: WriteKind::Put {
            metadata: Metadata::default(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        },
        condition,
    };
    let check = |key: &str, condition| Operation::Check {
        key: Bytes::copy_from_slice(key.as_bytes()),
        condition,
    };
    let transaction = |operations| Transaction {
        operations,
        idempotency_key: None,
        author: Bytes::new(),
    };

    let done = ledger
        .node
        .append_transaction(transaction(vec![
            check("a", Condition::Version(base.index)),
            write("b", "2", Condition::Absent),
            write("c", "3", Condition::None),
        ]))
        .await
        .unwrap();
    assert_eq!(done.entries.len(), 2);
    assert_eq!(
        done.entries[1].index.get(),
        done.entries[0].index.get() + 1,
        "its leaves are contiguous"
    );
    assert_eq!(done.tree_size.get(), done.entries[1].index.get() + 1);
    for (position, appended) in done.entries.iter().enumerate() {
        let entry = ledger.node.entry(appended.index).unwrap().unwrap();
        let leaf = entry.parsed().unwrap();
        assert_eq!(
            (leaf.transaction_position, leaf.transaction_length),
            (position as u16, 2)
        );
    }

    let error = ledger
        .node
        .append_transaction(transaction(vec![
            write("d", "4", Condition::None),
            write("b", "5", Condition::Absent),
        ]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, AppendError::ConditionFailed { operation: 1, .. }),
        "{error:?}"
    );
    assert_eq!(
        ledger.value("d"),
        None,
        "nothing of a refused transaction is there"
    );

    for (operations, rule) in [
        (vec![], "1 to 1024"),
        (
            vec![
                write("x", "", Condition::None),
                write("x", "", Condition::None),
            ],
            "appears twice",
        ),
        (
            vec![check("a", Condition::Absent)],
            "at least one put or delete",
        ),
        (
            vec![write("", "", Condition::None)],
            "a key has 1 to 1024 bytes",
        ),
    ] {
        let error = ledger
            .node
            .append_transaction(transaction(operations))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(rule),
            "{error} should name the rule `{rule}`"
        );
    }
    ledger.check_log(SYSTEM_ENTRIES + 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_idempotency_key_settles_to_one_outcome() {
    let mut ledger = TestLedger::start().await;
    let keyed = |value: &str| Write {
        idempotency_key: Some("request 1".to_owned()),
        ..put("k", value)
    };

    // In flight together: one is written, the others join it.
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let node = ledger.node.clone();
        let write = keyed("v");
        tasks.push(tokio::spawn(
            async move { node.append(write).await.unwrap() },
        ));
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    assert_eq!(
        outcomes.iter().filter(|outcome| !outcome.replayed).count(),
        1
    );
    let first = outcomes[0].clone();
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.index == first.index && outcome.leaf_hash == first.leaf_hash)
    );

    assert_eq!(
        ledger.node.append(keyed("other")).await.unwrap_err(),
        AppendError::IdempotencyMismatch
    );
    // Another author's key is another key.
    let other = Write {
        author: Bytes::from_static(b"someone"),
        ..keyed("other")
    };
    let other = ledger.node.append(other).await.unwrap();
    assert!(!other.replayed);
    // Checked before preconditions: the replay answers even though the condition would fail now.
    let conditional = Write {
        condition: Condition::Absent,
        idempotency_key: Some("request 2".to_owned()),
        ..put("new", "v")
    };
    let created = ledger.node.append(conditional.clone()).await.unwrap();
    let replayed = ledger.node.append(conditional.clone()).await.unwrap();
    assert_eq!((replayed.index, replayed.replayed), (created.index, true));

    // Remembered across restarts, in open and in sealed segments.
    ledger.restart().await;
    assert_eq!(
        ledger.node.append(keyed("v")).await.unwrap().index,
        first.index
    );
    let filler: Vec<Write> = (0..900).map(|n| put(&format!("filler {n}"), "x")).collect();
    for outcome in ledger.node.append_many(filler).await {
        outcome.unwrap();
    }
    ledger.restart().await;
    wait_until(|| ledger.node.sealed_segments() > 0).await;
    let replayed = ledger.node.append(keyed("v")).await.unwrap();
    assert_eq!(
        (replayed.index, replayed.replayed, replayed.leaf_hash),
        (first.index, true, first.leaf_hash)
    );
    assert_eq!(
        ledger.node.append(keyed("other")).await.unwrap_err(),
        AppendError::IdempotencyMismatch
    );
    ledger.check_log(SYSTEM_ENTRIES + 3 + 900).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_limit_is_refused_and_costs_nothing() {
    let ledger = TestLedger::start().await;
    let long_key = "k".repeat(1_025);
    for (write, text) in [
        (put("", "v"), "a key has 1 to 1024 bytes, found 0"),
        (put(&long_key, "v"), "key is 1025 bytes, allowed 1024"),
        (
            put("k", &"v".repeat(8 * 1_024 * 1_024 + 1)),
            "value is 8388609 bytes, allowed 8388608",
        ),
        (
            Write {
                idempotency_key: Some(String::new()),
                ..put("k", "v")
            },
            "an idempotency key has 1 to 255 bytes",
        ),
    ] {
        let error = ledger.node.append(write).await.unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
    let largest = ledger
        .node
        .append(put("big", &"v".repeat(8 * 1_024 * 1_024)))
        .await
        .unwrap();
    assert_eq!(
        ledger
            .node
            .entry(largest.index)
            .unwrap()
            .unwrap()
            .value_length(),
        8 * 1_024 * 1_024
    );
    ledger.check_log(SYSTEM_ENTRIES + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_grow_consistently_and_survive_a_restart() {
    let mut ledger = TestLedger::start().await;
    let mut published = vec![ledger.node.publish(TreeSize::new(1)).await.unwrap()];
    for n in 0..5 {
        let appended = ledger.put(&format!("{n}"), "v").await;
        published.push(ledger.node.publish(appended.tree_size).await.unwrap());
        if n == 2 {
            ledger.restart().await;
        }
    }
    for pair in published.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        assert!(old.size <= new.size);
        let proof = ledger.node.consistency(old.size, new.size).unwrap();
        scribe_proof::consistency::verify(old.size, &old.root, new.size, &new.root, &proof)
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_cannot_share_a_data_directory() {
    let ledger = TestLedger::start().await;
    let error = Node::start(ledger.options.clone()).await.unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    assert!(
        error.to_string().contains("lock") || error.to_string().contains("another process"),
        "{error}"
    );
    ledger.put("still", "works").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_behind_or_foreign_is_refused_by_its_keys() {
    let ledger = TestLedger::start().await;
    let appended = ledger.put("k", "v").await;
    ledger.node.publish(appended.tree_size).await.unwrap();
    ledger.node.shutdown().await;

    // The keys of this ledger on an empty data directory: signed entries are missing.
    let mut behind = ledger.options.clone();
    behind.data_dir = ledger.directory.path().join("empty");
    let error = Node::start(behind).await.unwrap_err();
    assert!(error.to_string().contains("a checkpoint of"), "{error}");

    // The keys of this ledger on another one's data.
    let other = TestLedger::start().await;
    for n in 0..20 {
        other.put(&format!("{n}"), "v").await;
    }
    other.node.shutdown().await;
    let mut foreign = ledger.options.clone();
    foreign.data_dir = other.options.data_dir.clone();
    let error = Node::start(foreign).await.unwrap_err();
    assert!(error.to_string().contains("of another ledger"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_cannot_sign_with_the_same_keys() {
    let ledger = TestLedger::start().await;
    let mut copy = ledger.options.clone();
    copy.data_dir = ledger.directory.path().join("copy");
    let error = Node::start(copy).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("keys/LOCK is locked by another process"),
        "{error}"
    );
    ledger.put("still", "works").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_writes_answers_old_ones_and_resumes() {
    let mut ledger = TestLedger::start().await;
    let keyed = Write {
        idempotency_key: Some("before".to_owned()),
        ..put("k", "v")
    };
    let first = ledger.node.append(keyed.clone()).await.unwrap();

    // More reserve than any disk has: it is as if it were full.
    ledger.options.disk_reserve_bytes = u64::MAX;
    ledger.restart().await;
    wait_until(|| ledger.node.disk_full()).await;
    assert_eq!(
        ledger.node.append(put("k2", "v")).await.unwrap_err(),
        AppendError::DiskFull
    );
    assert_eq!(ledger.value("k").unwrap(), "v", "reads go on");
    let replayed = ledger.node.append(keyed).await.unwrap();
    assert_eq!(
        (replayed.index, replayed.replayed),
        (first.index, true),
        "the outcome of an earlier write is answered all the same"
    );

    ledger.options.disk_reserve_bytes = 0;
    ledger.restart().await;
    ledger.put("k2", "v").await;
    ledger.check_log(SYSTEM_ENTRIES + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_import_is_not_served() {
    let ledger = TestLedger::start().await;
    ledger.node.shutdown().await;
    let marker = ledger.options.data_dir.join(scribe::node::IMPORTING_FILE);
    std::fs::write(&marker, b"").unwrap();
    let error = Node::start(ledger.options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("is not finished"), "{error}");
    assert!(error.hint().unwrap().contains("scribe import"));
    std::fs::remove_file(&marker).unwrap();
    Node::start(ledger.options.clone())
        .await
        .unwrap()
        .shutdown()
        .await;
}
