//! Writers for clusters of processes, and the record of what they were acknowledged.
//!
//! Every write has a key of its own, so that the ledger can be compared with the record both ways: everything
//! acknowledged is there, unchanged, and nothing is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use scribe_client::wire::{Appended, HexHash};
use scribe_client::{Client, Error};
use tokio::task::JoinHandle;

use crate::processes::{Processes, impatient, patient};

/// Keys of recorded writes begin so.
const PREFIX: &str = "w/";

/// Every this many writes a writer sends a long value, so that segments fill.
const LONG_EVERY: usize = 64;
const LONG_LENGTH: usize = 128 * 1_024;

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Record {
    written: Mutex<BTreeMap<u64, (String, HexHash)>>,
}

impl Record {
    pub fn count(&self) -> usize {
        self.written.lock().len()
    }

    /// Takes in an acknowledged write of a key that was never written before.
    pub fn add(&self, key: &str, appended: &Appended) {
        let entry = (key.to_owned(), appended.leaf_hash);
        let before = self.written.lock().insert(appended.index, entry);
        assert!(before.is_none(), "index {} was given twice", appended.index);
    }

    /// Writes a value under a key of its own and records it.
    pub async fn put(&self, client: &Client, name: &str, value: Vec<u8>) -> Result<(), Error> {
        let key = format!("{PREFIX}{name}");
        // The same for every attempt, also through another client.
        let put = client.put(&key, value).idempotency_key(key.clone());
        let appended = put.send().await?;
        self.add(&key, &appended);
        Ok(())
    }

    /// Reads the whole ledger: all that was acknowledged is in its place, and no write is there that was not, or twice.
    /// To be asked when no write is under way. Returns the tree size.
    pub async fn verify(&self, client: &Client) -> u64 {
        let written = self.written.lock().clone();
        let (mut next, mut found) = (0, 0);
        loop {
            let page = client.entries(next).limit(1_000).send().await.unwrap();
            for entry in &page.entries {
                assert_eq!(entry.index, next, "leaf indexes are contiguous");
                next += 1;
                let key = entry.key.as_deref().unwrap_or_default();
                let Some((expected, leaf_hash)) = written.get(&entry.index) else {
                    assert!(
                        !key.starts_with(PREFIX),
                        "`{key}` at {} was never acknowledged, or is there twice",
                        entry.index
                    );
                    continue;
                };
                assert_eq!((key, entry.leaf_hash), (expected.as_str(), *leaf_hash));
                found += 1;
            }
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(found, written.len(), "acknowledged writes are missing");
        next
    }
}

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writers each of which asks one node. What that leaves open is settled by asking any node under the same
    /// idempotency key: every write is acknowledged in the end.
    pub fn through_each(cluster: &Processes, writers: usize, record: &Arc<Record>) -> Load {
        Load::start(writers, |writer, stop| {
            let own = &cluster.urls_from(writer)[0];
            let own = Client::builder(own).retry(impatient()).build().unwrap();
            let any = Client::builder_for(cluster.urls_from(writer));
            let any = any.retry(patient()).build().unwrap();
            let record = Arc::clone(record);
            async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (name, value) = (format!("each-{writer}/{n}"), value(n));
                    if record.put(&own, &name, value.clone()).await.is_err() {
                        record.put(&any, &name, value).await.unwrap();
                    }
                }
            }
        })
    }

    /// Writers whose client knows all nodes and has its default patience. A call that fails ends the test.
    pub fn through_any(cluster: &Processes, writers: usize, record: &Arc<Record>) -> Load {
        Load::start(writers, |writer, stop| {
            let client = Client::builder_for(cluster.urls_from(writer));
            let client = client.build().unwrap();
            let record = Arc::clone(record);
            async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("any-{writer}/{n}");
                    let written = record.put(&client, &name, value(n)).await;
                    written.unwrap_or_else(|error| panic!("a call failed: {error}"));
                }
            }
        })
    }

    fn start<F>(writers: usize, mut writer: impl FnMut(usize, Arc<AtomicBool>) -> F) -> Load
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..writers).map(|number| tokio::spawn(writer(number, Arc::clone(&stop))));
        let writers = writers.collect();
        Load { stop, writers }
    }

    /// Whether a writer has failed: no need to go on then.
    pub fn any_ended(&self) -> bool {
        self.writers.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every write under way is settled.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
    }
}

fn value(n: usize) -> Vec<u8> {
    let length = if n % LONG_EVERY == LONG_EVERY - 1 {
        LONG_LENGTH
    } else {
        n * 37 % 300
    };
    format!("{n} {}", "x".repeat(length)).into_bytes()
}
