//! A cluster, its clients, and what was checked so far: what every phase works on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scribe_client::wire::HexHash;
use scribe_client::{Client, RetryPolicy};
use scribe_proof::VerifierKey;

use crate::cluster::{Cluster, Options, PATIENCE};
use crate::host::{finish, text};
use crate::load::{Clients, Load};
use crate::network::Network;
use crate::node::Node;
use crate::record::{Progress, Record};
use crate::trouble::{Result, Trouble, violation};

/// Entries asked for at once when the ledger is read.
const PAGE: u64 = 1_000;

/// Everything of one episode.
#[derive(Debug)]
pub struct World {
    // The clients end before the nodes do.
    pub load: Load,
    pub cluster: Cluster,
    pub rng: StdRng,
    /// The ledger's key, from its first node before any fault.
    key: VerifierKey,
    /// Where the largest checkpoint is put for audits.
    newest: PathBuf,
    /// What every running node was already compared on.
    pub verified: Progress,
    /// Set when a fault left something that nothing can mend: the rest of the episode is not run.
    pub abandoned: bool,
}

impl World {
    /// Makes a cluster and lets its clients begin.
    pub async fn start(
        network: Arc<Network>,
        directory: &Path,
        options: Options,
        clients: Clients,
        seed: u64,
    ) -> Result<World> {
        let cluster = Cluster::start(network, directory, options).await?;
        let ledger = cluster.node(1)?.client(&cluster.network)?.ledger().await;
        let ledger = ledger.map_err(|error| Trouble::Harness(error.to_string()))?;
        let key: VerifierKey = ledger.verifier_keys[0]
            .parse()
            .map_err(|error| Trouble::Harness(format!("the ledger's key: {error}")))?;
        let file = File::create(directory.join("checkpoints"))?;
        let load = Load::start(
            format!("{seed:x}"),
            clients,
            cluster.urls(),
            key.clone(),
            file,
        );
        Ok(World {
            load,
            cluster,
            rng: StdRng::seed_from_u64(seed),
            key,
            newest: directory.join("newest-checkpoint"),
            verified: Progress::new(clients.writers),
            abandoned: false,
        })
    }

    pub fn record(&self) -> &Record {
        self.load.record()
    }

    /// One of these, at random.
    pub fn any(&mut self, of: &[u64]) -> u64 {
        of[self.rng.random_range(0..of.len())]
    }

    /// The leader every third time, one of the followers otherwise, and which of the two it is.
    pub async fn leader_every_third(&mut self, time: u64) -> Result<(&'static str, u64)> {
        if time % 3 == 2 {
            return Ok(("leader", self.cluster.leader().await?));
        }
        let followers = self.cluster.followers().await?;
        Ok(("follower", self.any(&followers)))
    }

    /// Lets the load run for a random while, counted in writes, so that a fault falls anywhere.
    pub async fn some_load(&mut self, writes_max: u64) -> Result<()> {
        let writes = self.rng.random_range(1..=writes_max);
        self.load.grows_by(writes).await
    }

    /// Waits until all nodes are ready and writes are acknowledged again. Returns the longest silence since
    /// [`Record::listen`].
    pub async fn recovered(&mut self) -> Result<Duration> {
        self.cluster.ready().await?;
        self.load.shared.set_urls(self.cluster.urls());
        self.load.grows_by(1).await?;
        self.record().check()?;
        Ok(self.record().longest_silence())
    }

    /// Compares what was promised since the last time with the ledger, through every node.
    pub async fn verify(&mut self) -> Result<u64> {
        self.load.pause().await?;
        self.cluster.ready().await?;
        self.verified = self.compare(self.verified.clone()).await?;
        self.load.resume();
        Ok(self.verified.next)
    }

    /// Compares the whole ledger with all promises, through every node. The load stays paused.
    pub async fn verify_all(&mut self) -> Result<u64> {
        self.load.pause().await?;
        self.cluster.ready().await?;
        let from = Progress::new(self.record().writers());
        let progress = self.compare(from).await?;
        let size = progress.next;
        self.verified = progress;
        Ok(size)
    }

    /// Waits until the one that watches has seen so many entries.
    async fn watched(&self, due: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            self.record().check()?;
            let seen = self.record().watched_size();
            if seen >= due {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return violation(format!(
                    "a watch has given {seen} entries of {due}, {PATIENCE:?} after all nodes are ready"
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn compare(&self, from: Progress) -> Result<Progress> {
        let agreed = self.cluster.agreed().await?;
        self.watched(agreed.tree_size).await?;
        let through = self.cluster.running();
        let each = through.into_iter().map(|place| {
            let from = from.clone();
            async move {
            let progress = self.read_through(place, from, agreed.tree_size).await?;
            let root = HexHash::from(progress.frontier.root());
            match root == agreed.root {
                true => Ok(progress),
                false => violation(format!(
                    "the first {} entries that node {place} gives have the root {root}, the members say {}",
                    progress.next, agreed.root
                )),
            }
            }
        });
        let mut read = futures::future::try_join_all(each).await?;
        read.pop().ok_or(Trouble::Harness("no node runs".into()))
    }

    /// Holds every entry that a node gives against the record.
    async fn read_through(
        &self,
        place: u64,
        mut progress: Progress,
        size: u64,
    ) -> Result<Progress> {
        let name = format!("node {place}");
        let client = self.patient_client(place)?;
        while progress.next < size {
            // No further than what the members agreed on: a node that has just joined may still announce its key.
            let limit = PAGE.min(size - progress.next);
            let page = client.entries(progress.next).limit(limit).send().await;
            let page = page.map_err(|error| {
                Trouble::Violation(format!(
                    "{name} does not give entries from {} on: {error}",
                    progress.next
                ))
            })?;
            if page.entries.is_empty() {
                return violation(format!(
                    "{name} ends at entry {}, the others at {size}",
                    progress.next
                ));
            }
            for entry in &page.entries {
                self.record().hold(&mut progress, &name, entry)?;
            }
        }
        self.record().all_held(&progress, &name)?;
        Ok(progress)
    }

    /// A client of one node that does not give up soon.
    pub fn patient_client(&self, place: u64) -> Result<Client> {
        let retry = RetryPolicy {
            deadline: PATIENCE,
            ..RetryPolicy::default()
        };
        let client = Client::builder(Node::url(&self.cluster.network, place)).retry(retry);
        client
            .build()
            .map_err(|error| Trouble::Harness(error.to_string()))
    }

    /// Ends the load, stops every node in order, and has `scribe audit` read every byte of each.
    pub async fn stop_and_audit(&mut self) -> Result<Duration> {
        self.load.stop().await;
        for place in self.cluster.running() {
            self.cluster.node_mut(place)?.terminate().await?;
        }
        let began = Instant::now();
        for place in self.cluster.places() {
            if let Err(finding) = self.audit(place)? {
                return violation(format!("the audit of node {place}: {finding}"));
            }
        }
        Ok(began.elapsed())
    }

    /// Audits the directory of a node that does not run, against the newest checkpoint that was seen anywhere.
    pub fn audit(&self, place: u64) -> Result<std::result::Result<String, String>> {
        let node = self.cluster.node(place)?;
        let (data, keys) = (node.data_dir(), node.key_dir());
        let mut command = Command::new(&self.cluster.options.binary);
        command
            .args(["audit", text(&data), "--key-dir", text(&keys)])
            .args(["--vkey", &self.key.to_string()]);
        if let Some(note) = self.newest_note()? {
            command.args(["--checkpoint", text(&note)]);
        }
        Ok(finish(command, ""))
    }

    /// A file with the largest checkpoint that was seen.
    fn newest_note(&self) -> Result<Option<PathBuf>> {
        let note = self.record().newest_note();
        if note.is_empty() {
            return Ok(None);
        }
        std::fs::write(&self.newest, note)?;
        Ok(Some(self.newest.clone()))
    }
}
