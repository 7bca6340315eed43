//! `TestWitness`: a witness of ours with its HTTP face, and a log with as many histories as a test wants.

use std::net::SocketAddr;
use std::path::PathBuf;

use scribe::http::{self, Listener};
use scribe::keys;
use scribe::witness::{FollowedLog, Witness, WitnessOptions, parse_logs};
use scribe::world::World;
use scribe_client::witness::WitnessAddress;
use scribe_proof::hash::leaf_hash;
use scribe_proof::tree::MemoryTree;
use scribe_proof::witness::AddCheckpoint;
use scribe_proof::{Checkpoint, KeyType, SignedCheckpoint, SigningKey, TreeSize, consistency};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Connection, Reply, request};

/// A witness's directories and address; running or not.
pub struct TestWitness {
    pub addr: SocketAddr,
    /// Its key and URL, as nodes are configured with it.
    pub address: WitnessAddress,
    dir: TempDir,
    running: Option<Running>,
    listener: Option<Listener>,
}

struct Running {
    witness: Witness,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl TestWitness {
    /// A witness with a key and an address where it listens, so that nodes can be configured with it before it knows
    /// their ledger. Whoever connects waits until [`TestWitness::start`].
    pub async fn prepare(name: &str) -> TestWitness {
        let dir = tempfile::tempdir().unwrap();
        let key = keys::new_key(name, KeyType::Cosignature).unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        keys::write_new_key(&dir.path().join("keys/witness.key"), &key).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = http::bind_at(any).await.unwrap();
        let addr = listener.local_addr();
        TestWitness {
            addr,
            address: WitnessAddress {
                key: key.verifier_key().clone(),
                url: format!("http://{addr}"),
            },
            dir,
            running: None,
            listener: Some(listener),
        }
    }

    /// Serves, following the logs with these keys.
    pub async fn start(&mut self, vkeys: &[String]) {
        let options = self.options(parse_logs(vkeys.iter().map(String::as_str)).unwrap());
        let witness = Witness::open(options).unwrap();
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => http::bind_at(self.addr).await.unwrap(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = witness.clone();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            http::serve_witness(listener, serving, None, stopped).await
        });
        self.running = Some(Running {
            witness,
            stop,
            served,
        });
    }

    pub fn options(&self, logs: Vec<FollowedLog>) -> WitnessOptions {
        WitnessOptions {
            key_dir: self.dir.path().join("keys"),
            state_dir: self.state_dir(),
            name: None,
            logs,
            accept_lost_state: false,
            world: World::real(),
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The witness that serves.
    pub fn witness(&self) -> &Witness {
        &self.running.as_ref().unwrap().witness
    }

    /// Stops it; nobody listens then.
    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        drop(running.stop);
        running.served.await.unwrap().unwrap();
        running.witness.close().await.unwrap();
    }

    /// One `add-checkpoint` request with exactly this body.
    pub async fn post(&self, body: &[u8]) -> Reply {
        let mut connection = Connection::open(self.addr).await;
        let headers = [("content-type", "text/plain; charset=utf-8")];
        let bytes = request("POST", "/add-checkpoint", &headers, Some(body));
        connection.write(&bytes).await;
        connection.reply(false).await
    }

    pub async fn get(&self, target: &str) -> Reply {
        let mut connection = Connection::open(self.addr).await;
        connection.write(&request("GET", target, &[], None)).await;
        connection.reply(false).await
    }
}

/// A log that signs whatever a test wants. Its histories are the same up to leaf 3.
pub struct ForkingLog {
    pub key: SigningKey,
}

impl ForkingLog {
    pub fn new(origin: &str, seed: u8) -> ForkingLog {
        ForkingLog {
            key: SigningKey::from_seed(origin, &[seed; 32]).unwrap(),
        }
    }

    pub fn vkey(&self) -> String {
        self.key.verifier_key().to_text()
    }

    pub fn tree(size: u64, fork: u8) -> MemoryTree {
        let mut tree = MemoryTree::default();
        for at in 0..size {
            let history = if at < 3 { 0 } else { fork };
            let mut leaf = vec![history];
            leaf.extend_from_slice(&at.to_be_bytes());
            tree.append(leaf_hash(&leaf));
        }
        tree
    }

    pub fn signed(&self, size: u64, fork: u8) -> SignedCheckpoint {
        let root = Self::tree(size, fork).root();
        let checkpoint = Checkpoint::new(self.key.name(), TreeSize::new(size), root);
        SignedCheckpoint::sign(checkpoint, &[&self.key]).unwrap()
    }

    /// The body of an honest request of this history.
    pub fn request(&self, old: u64, size: u64, fork: u8) -> String {
        let tree = Self::tree(size, fork);
        let proof = match old <= size {
            true => consistency::prove(&tree, TreeSize::new(old), TreeSize::new(size)).unwrap(),
            false => Vec::new(),
        };
        AddCheckpoint {
            old: TreeSize::new(old),
            proof,
            checkpoint: self.signed(size, fork),
        }
        .to_text()
        .unwrap()
    }
}
