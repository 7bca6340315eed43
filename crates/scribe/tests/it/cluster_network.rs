//! Three real processes, each in a network namespace of its own, with TLS between them, while the network between them
//! fails in one way after the other and clients of every node go on reading and writing.
//!
//! What must hold in each: whoever can reach a majority is served within a bound, whoever cannot is refused in time and
//! still gets what it asks for as possibly stale, nobody is told anything that a single ledger in one place could not
//! have told ([`scribe_oracle::history`]), and afterwards all nodes have the same. `--nocapture` shows the figures.
//!
//! Needs root, iproute2 and nftables. Where these are missing the tests say on the terminal that they were skipped;
//! `SCRIBE_NAMESPACES=required` makes that a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scribe_client::wire::{EntryView, Kind};
use scribe_client::{Client, Error, ErrorCode};
use scribe_oracle::history::{self, Action, Condition, Ledger, Operation, Outcome, Version};
use tempfile::TempDir;

use crate::member::{self, Member, same_everywhere};
use crate::namespaces::{Network, skipped};
use crate::test_cluster::eventually;

const NODES: u64 = 3;
const CLIENTS_PER_NODE: u64 = 2;
const KEYS: usize = 6;
/// A client's pause between two operations: the machine also runs three nodes.
const PAUSE: Duration = Duration::from_millis(10);
/// Within this time those who can reach a majority must be served, after a fault and after its end. Elections take
/// 1.5 to 3 s.
const SERVED_WITHIN: Duration = Duration::from_secs(10);
/// Within this time a node that cannot reach a majority must have refused: its own deadline is 10 s.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);
/// A stale read waits for nobody.
const STALE_WITHIN: Duration = Duration::from_secs(2);
/// Operations that are to be served during a fault before it ends.
const SERVED_MIN: usize = 200;
/// Within this time after everything the nodes must have the same.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long packets are lost.
const LOSS_LASTS: Duration = Duration::from_secs(20);

/// One at a time: bounds in seconds mean little on a machine that runs nine nodes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a client did through a node, and how it was refused.
#[derive(Clone, Debug)]
struct Record {
    node: u64,
    operation: Operation,
    idempotency_key: Option<String>,
    refusal: Option<String>,
}

impl Record {
    fn is_put(&self) -> bool {
        matches!(self.operation.action, Action::Put { .. })
    }

    fn is_served(&self) -> bool {
        self.refusal.is_none()
    }

    fn took(&self) -> Duration {
        Duration::from_nanos(self.operation.end - self.operation.start)
    }
}

/// All that clients did, on one clock.
struct Recorder {
    epoch: Instant,
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn add(&self, record: Record) {
        self.records.lock().push(record);
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock()
    }

    /// How many records from `at` on are such.
    fn count(&self, at: u64, such: impl Fn(&Record) -> bool) -> usize {
        let records = self.records();
        let from = records.iter().filter(|record| record.operation.start >= at);
        from.filter(|record| such(record)).count()
    }
}

/// The cluster, and the clients at work.
struct Run {
    what: &'static str,
    // Dropped before the network they live in.
    members: BTreeMap<u64, Member>,
    network: Network,
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    /// What was read as possibly stale: no part of the history, which must not hold with it.
    stale: Mutex<Vec<Operation>>,
    _directory: TempDir,
}

/// Runs `scenario` on a cluster in namespaces, or says that it cannot.
fn in_namespaces(what: &'static str, scenario: impl AsyncFnOnce(&Run) + Send + 'static) {
    let _one = ONE_AT_A_TIME.lock();
    let network = match Network::new(NODES) {
        Ok(network) => network,
        Err(reason) => {
            let required = std::env::var("SCRIBE_NAMESPACES").is_ok_and(|text| text == "required");
            assert!(!required, "network namespaces are required: {reason}");
            return skipped(what, &reason);
        }
    };
    // Its own thread, and the runtime's threads with it, live where the clients are.
    let there = std::thread::spawn(move || {
        network.enter();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut run = Run::start(what, network).await;
            scenario(&run).await;
            run.finish().await;
        });
    });
    if let Err(panic) = there.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Run {
    async fn start(what: &'static str, network: Network) -> Run {
        let directory = tempfile::tempdir().unwrap();
        let addresses = (1..=NODES)
            .map(|id| (id, (network.raft_addr(id), network.http_addr(id))))
            .collect();
        let flags = member::init(&directory.path().join("cluster"), &addresses);
        let members = flags
            .iter()
            .map(|(id, flags)| {
                let space = network.space(*id);
                let name = format!("node {id}");
                let member = Member::start(&name, directory.path(), flags, Some(&space));
                (*id, member)
            })
            .collect();
        let mut run = Run {
            what,
            network,
            members,
            recorder: Arc::new(Recorder {
                epoch: Instant::now(),
                records: Mutex::default(),
            }),
            stop: Arc::default(),
            clients: Vec::new(),
            stale: Mutex::default(),
            _directory: directory,
        };
        for id in 1..=NODES {
            let client = run.members[&id].client();
            eventually("every node is ready", async || {
                client
                    .health()
                    .await
                    .is_ok_and(|health| health.reason.is_none())
            })
            .await;
        }
        for client in 0..NODES * CLIENTS_PER_NODE {
            let worker = run.worker(format!("client {client}"), client % NODES + 1);
            let stop = Arc::clone(&run.stop);
            run.clients.push(tokio::spawn(worker.work(stop)));
        }
        run.served_through(&run.nodes(), 0, "before any fault")
            .await;
        run
    }

    /// A client of one node, with nothing done yet.
    fn worker(&self, name: String, node: u64) -> Worker {
        Worker {
            rng: StdRng::seed_from_u64(self.recorder.now()),
            name,
            node,
            client: self.members[&node].client(),
            recorder: Arc::clone(&self.recorder),
            seen: vec![None; KEYS],
            puts: 0,
        }
    }

    fn nodes(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    async fn leader(&self) -> u64 {
        let client = self.members[&1].client();
        let mut leader = None;
        eventually("there is a leader", async || {
            leader = client.leader().await.ok().and_then(|leader| leader.node_id);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// Waits until a put and a read that began at `at` or later were served by each of these nodes, and checks that it
    /// did not take too long.
    async fn served_through(&self, nodes: &[u64], at: u64, when: &str) {
        for node in nodes {
            for put in [true, false] {
                let served = |record: &Record| {
                    record.node == *node && record.is_put() == put && record.is_served()
                };
                eventually("a put and a read are served", async || {
                    self.recorder.count(at, served) > 0
                })
                .await;
                let records = self.recorder.records();
                let ends = records
                    .iter()
                    .filter(|record| record.operation.start >= at && served(record))
                    .map(|record| record.operation.end - at);
                let took = Duration::from_nanos(ends.min().unwrap());
                let kind = if put { "put" } else { "read" };
                println!(
                    "{}: {when} node {node} serves a {kind} after {took:?}",
                    self.what
                );
                assert!(
                    took < SERVED_WITHIN,
                    "{when} node {node} served no {kind} for {took:?}"
                );
            }
        }
    }

    /// Lets `fault` separate `minority` from the others until enough was seen of it, checks what each side was told,
    /// and heals.
    async fn with_one_apart(&self, minority: u64, fault: impl FnOnce(&Network)) {
        let majority: Vec<u64> = self
            .nodes()
            .into_iter()
            .filter(|id| *id != minority)
            .collect();
        fault(&self.network);
        let at = self.recorder.now();
        self.served_through(&majority, at, "apart from another")
            .await;
        let resumed = self.recorder.now();
        // Its own clients may be at two operations of the same kind.
        let mut puts = self.worker(format!("put apart at {at}"), minority);
        let mut gets = self.worker(format!("get apart at {at}"), minority);
        tokio::join!(puts.put(0, Condition::None), gets.get(0));
        self.stale_reads(minority).await;
        for node in &majority {
            eventually("the majority goes on serving", async || {
                let served = |record: &Record| record.node == *node && record.is_served();
                self.recorder.count(resumed, served) >= SERVED_MIN
            })
            .await;
        }
        let healed = self.heal();
        self.judge_minority(minority, at, healed);
        self.judge_majority(&majority, resumed, healed);
        self.served_through(&self.nodes(), healed, "healed").await;
    }

    /// Ends the fault. Returns when.
    fn heal(&self) -> u64 {
        let healed = self.recorder.now();
        let dropped = self.network.heal();
        println!("{}: {dropped} packets were dropped", self.what);
        assert!(dropped > 0, "no packet was dropped: there was no fault");
        healed
    }

    /// What is applied on a node is told to whoever asks for no more, and at once.
    async fn stale_reads(&self, node: u64) {
        let client = self.members[&node].client();
        for key in (0..KEYS).map(key) {
            let start = self.recorder.now();
            let read = client.get(&key).stale().send().await.unwrap();
            let end = self.recorder.now();
            let took = Duration::from_nanos(end - start);
            assert!(took < STALE_WITHIN, "{took:?}");
            let read = read.expect("every key was written before the fault");
            let version = Version {
                index: read.head.index,
                value: String::from_utf8(read.bytes.to_vec()).unwrap(),
            };
            let action = Action::Read {
                tree_size: read.head.tree_size,
                saw: vec![(key, Some(version))],
            };
            self.stale.lock().push(Operation { start, end, action });
        }
    }

    /// Nothing that began during the fault was served, and every refusal came in time and said why.
    fn judge_minority(&self, minority: u64, at: u64, healed: u64) {
        let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        for record in self.recorder.records().iter() {
            let during = record.operation.start >= at && record.operation.end <= healed;
            if !during || record.node != minority {
                continue;
            }
            let Some(refusal) = &record.refusal else {
                panic!("served by a node without a majority: {record:?}");
            };
            let put = record.is_put();
            let allowed = [ErrorCode::NotLeader, ErrorCode::Unavailable];
            assert!(
                allowed.iter().any(|code| code.as_str() == refusal)
                    || (put && refusal == ErrorCode::UnknownOutcome.as_str()),
                "{record:?}"
            );
            longest = longest.max(record.took());
            let kind = if put { "put" } else { "read" };
            *refusals.entry(format!("{kind} {refusal}")).or_default() += 1;
        }
        println!(
            "{}: the minority refused {refusals:?}, slowest after {longest:?}",
            self.what
        );
        assert!(longest < REFUSED_WITHIN);
        for kind in ["put", "read"] {
            let seen = refusals.keys().any(|refusal| refusal.starts_with(kind));
            assert!(seen, "no {kind} was tried by a node without a majority");
        }
    }

    /// No pause of those who can reach a majority was longer than an election.
    fn judge_majority(&self, majority: &[u64], from: u64, until: u64) {
        for node in majority {
            let longest = self.longest_pause(&[*node], from, until);
            assert!(
                longest < SERVED_WITHIN,
                "node {node} paused for {longest:?}"
            );
        }
    }

    /// The longest time in which none of these nodes served anything.
    fn longest_pause(&self, nodes: &[u64], from: u64, until: u64) -> Duration {
        let records = self.recorder.records();
        let mut ends: Vec<u64> = records
            .iter()
            .filter(|record| nodes.contains(&record.node) && record.is_served())
            .map(|record| record.operation.end)
            .filter(|end| (from..until).contains(end))
            .collect();
        let served = ends.len();
        ends.extend([from, until]);
        ends.sort_unstable();
        let longest = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let longest = Duration::from_nanos(longest);
        let seconds = (until - from) as f64 / 1e9;
        println!(
            "{}: nodes {nodes:?} served {served} in {seconds:.1} s, longest pause {longest:?}",
            self.what
        );
        longest
    }

    /// Ends the clients, settles what can be settled, and checks what the nodes have and what clients were told.
    async fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.unwrap();
        }
        self.settle().await;
        same_everywhere(self.members.values(), PATIENCE).await;
        let (ledger, size) = self.ledger().await;
        let records = self.recorder.records().clone();
        let mut operations: Vec<Operation> = records
            .iter()
            .map(|record| record.operation.clone())
            .collect();
        let checked = history::check(&operations, &ledger).unwrap_or_else(|violations| {
            panic!(
                "{}: the history is not linearizable: {violations}",
                self.what
            )
        });
        // The check would have noticed: with what the minority read as stale, the history does not hold.
        operations.extend(self.stale.lock().drain(..));
        if operations.len() > records.len() {
            history::check(&operations, &ledger).unwrap_err();
        }
        println!("{}: {checked:?} in a ledger of {size}", self.what);
        for member in self.members.values_mut() {
            member.stop().await;
        }
    }

    /// Sends every second put of unknown outcome again under its idempotency key, through another node: the answer is
    /// what became of it. The others stay unknown.
    async fn settle(&self) {
        let mut records = self.recorder.records().clone();
        let unknown = records.iter_mut().filter(|record| {
            matches!(
                record.operation.action,
                Action::Put {
                    outcome: Outcome::Unknown,
                    ..
                }
            )
        });
        let mut settled = 0;
        for record in unknown.step_by(2) {
            let client = self.members[&(record.node % NODES + 1)].client();
            let Action::Put {
                key,
                value,
                condition,
                outcome,
            } = &mut record.operation.action
            else {
                continue;
            };
            let idempotency_key = record.idempotency_key.as_ref().unwrap();
            let sent = send_put(&client, key, value, *condition, idempotency_key).await;
            *outcome = sent.0;
            record.operation.end = self.recorder.now();
            assert!(
                !matches!(outcome, Outcome::Unknown | Outcome::Refused),
                "the network is whole: {record:?} {:?}",
                sent.1
            );
            settled += 1;
        }
        println!("{}: {settled} unknown outcomes settled", self.what);
        *self.recorder.records() = records;
    }

    /// What clients wrote, as the ledger has it, and its size.
    async fn ledger(&self) -> (Ledger, u64) {
        let client = self.members[&1].client();
        let mut ledger = Ledger::new();
        let mut next = 0;
        loop {
            let page = client.entries(next).limit(1_000).send().await.unwrap();
            if page.entries.is_empty() {
                return (ledger, next);
            }
            for entry in page.entries {
                assert_eq!(entry.index, next, "leaf indexes are contiguous");
                next += 1;
                if entry.kind != Kind::System {
                    ledger.insert(entry.index, (entry.key.unwrap(), entry.value.unwrap()));
                }
            }
        }
    }
}

fn key(number: usize) -> String {
    format!("key {number}")
}

/// A client of one node.
struct Worker {
    name: String,
    node: u64,
    client: Client,
    recorder: Arc<Recorder>,
    rng: StdRng,
    /// The newest version of each key it has seen: what a conditional put goes by.
    seen: Vec<Option<u64>>,
    puts: u64,
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>) {
        // Every key has a version before anything else.
        for number in 0..KEYS {
            self.put(number, Condition::None).await;
        }
        while !stop.load(Ordering::Relaxed) {
            let number = self.rng.random_range(0..KEYS);
            let known = self.seen[number];
            match (self.rng.random_range(0..100), known) {
                (0..40, _) => self.get(number).await,
                (40..55, _) => self.get_all().await,
                (55..75, Some(index)) => self.put(number, Condition::Index(index)).await,
                _ => self.put(number, Condition::None).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn put(&mut self, number: usize, condition: Condition) {
        self.puts += 1;
        let (key, value) = (key(number), format!("{} put {}", self.name, self.puts));
        let idempotency_key = value.replace(' ', "-");
        let start = self.recorder.now();
        let (outcome, refusal) =
            send_put(&self.client, &key, &value, condition, &idempotency_key).await;
        let end = self.recorder.now();
        if let Outcome::Acknowledged(index) | Outcome::ConditionFailed(Some(index)) = outcome {
            self.seen[number] = Some(index);
        }
        let action = Action::Put {
            key,
            value,
            condition,
            outcome,
        };
        self.record(start, end, action, Some(idempotency_key), refusal);
    }

    async fn get(&mut self, number: usize) {
        let key = key(number);
        let start = self.recorder.now();
        let answer = self.client.get(&key).send().await;
        let end = self.recorder.now();
        let (tree_size, saw, refusal) = match answer {
            Ok(Some(value)) => {
                self.seen[number] = Some(value.head.index);
                let version = Version {
                    index: value.head.index,
                    value: String::from_utf8(value.bytes.to_vec()).unwrap(),
                };
                (value.head.tree_size, vec![(key, Some(version))], None)
            }
            Ok(None) => (None, vec![(key, None)], None),
            Err(error) => (None, Vec::new(), Some(refusal(&error))),
        };
        self.record(start, end, Action::Read { tree_size, saw }, None, refusal);
    }

    async fn get_all(&mut self) {
        let start = self.recorder.now();
        let answer = self.client.get_many((0..KEYS).map(key)).send().await;
        let end = self.recorder.now();
        let version = |entry: EntryView| Version {
            index: entry.index,
            value: entry.value.unwrap(),
        };
        let (tree_size, saw, refusal) = match answer {
            Ok(answer) => {
                let entries = answer.entries.into_iter();
                let saw = entries.map(|of| (of.key.unwrap(), of.entry.map(version)));
                (Some(answer.tree_size), saw.collect(), None)
            }
            Err(error) => (None, Vec::new(), Some(refusal(&error))),
        };
        self.record(start, end, Action::Read { tree_size, saw }, None, refusal);
    }

    fn record(
        &self,
        start: u64,
        end: u64,
        action: Action,
        idempotency_key: Option<String>,
        refusal: Option<String>,
    ) {
        self.recorder.add(Record {
            node: self.node,
            operation: Operation { start, end, action },
            idempotency_key,
            refusal,
        });
    }
}

/// Sends a put once. The second part is the refusal's code; a condition that failed was decided, not refused.
async fn send_put(
    client: &Client,
    key: &str,
    value: &str,
    condition: Condition,
    idempotency_key: &str,
) -> (Outcome, Option<String>) {
    let mut put = client
        .put(key, value.to_owned())
        .idempotency_key(idempotency_key);
    if let Condition::Index(index) = condition {
        put = put.if_index(index);
    }
    match put.send().await {
        Ok(appended) => (Outcome::Acknowledged(appended.index), None),
        Err(Error::OutcomeUnknown { last, .. }) => (Outcome::Unknown, Some(refusal(&last))),
        Err(error) => match error.problem() {
            Some(problem) if problem.error_code() == Some(ErrorCode::ConditionFailed) => {
                (Outcome::ConditionFailed(problem.current_index), None)
            }
            _ => (Outcome::Refused, Some(refusal(&error))),
        },
    }
}

/// The code of a refusal, or what else went wrong.
fn refusal(error: &Error) -> String {
    error
        .problem()
        .map_or_else(|| error.to_string(), |problem| problem.code.clone())
}

#[test]
fn a_follower_without_the_others() {
    in_namespaces("a follower without the others", async |run| {
        let follower = run.leader().await % NODES + 1;
        run.with_one_apart(follower, |network| {
            for other in (1..=NODES).filter(|id| *id != follower) {
                network.cut(other, follower);
                network.cut(follower, other);
            }
        })
        .await;
    });
}

#[test]
fn a_leader_without_the_others() {
    in_namespaces("a leader without the others", async |run| {
        let leader = run.leader().await;
        run.with_one_apart(leader, |network| {
            for other in (1..=NODES).filter(|id| *id != leader) {
                network.cut(other, leader);
                network.cut(leader, other);
            }
        })
        .await;
        assert_ne!(run.leader().await, leader, "another node leads");
    });
}

#[test]
fn a_leader_that_is_heard_and_hears_nobody() {
    in_namespaces("a leader that is heard and hears nobody", async |run| {
        let leader = run.leader().await;
        run.with_one_apart(leader, |network| {
            for other in (1..=NODES).filter(|id| *id != leader) {
                network.cut(other, leader);
            }
        })
        .await;
    });
}

#[test]
fn a_leader_that_hears_and_is_not_heard() {
    in_namespaces("a leader that hears and is not heard", async |run| {
        let leader = run.leader().await;
        run.with_one_apart(leader, |network| {
            for other in (1..=NODES).filter(|id| *id != leader) {
                network.cut(leader, other);
            }
        })
        .await;
    });
}

/// Nobody is apart: slower, and all of it is served.
#[test]
fn one_packet_of_five_is_lost() {
    in_namespaces("one packet of five is lost", async |run| {
        run.network.lose(20);
        let at = run.recorder.now();
        run.served_through(&run.nodes(), at, "with losses").await;
        let served = |record: &Record| record.is_served();
        eventually("enough is served with losses", async || {
            let lasted = Duration::from_nanos(run.recorder.now() - at);
            lasted > LOSS_LASTS && run.recorder.count(at, served) >= SERVED_MIN
        })
        .await;
        let healed = run.heal();
        for node in run.nodes() {
            run.longest_pause(&[node], at, healed);
        }
        // A follower has one connection to carry writes, and TCP doubles its pause with each loss in a row: five of them,
        // and the requests of that node run into their deadline. The cluster as a whole goes on.
        let longest = run.longest_pause(&run.nodes(), at, healed);
        assert!(longest < SERVED_WITHIN, "all paused for {longest:?}");
        run.served_through(&run.nodes(), healed, "healed").await;
    });
}
