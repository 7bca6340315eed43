//! Clusters of real processes: the leader killed under load, a rolling restart, the connections between nodes, and who
//! is refused.
//!
//! Longer by hand, and with a release build: `just failover`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rand::Rng as _;
use scribe_client::wire::{BulkLine, BulkReply};
use scribe_client::{Client, Wait};

use crate::process_load::{Load, Record};
use crate::processes::{
    Processes, command, distribution, impatient, number, patient, signal, timed,
};
use crate::test_cluster::eventually;

/// Within this time of a leader's end writes must be acknowledged through every other node.
const FAILOVER_MAX: Duration = Duration::from_secs(5);
/// Segments that are compared at the end of the kills.
const SEALED_MIN: u64 = 2;

/// How long after `since` a write through this node alone is acknowledged.
async fn acknowledged_after(
    url: String,
    name: String,
    since: Instant,
    record: Arc<Record>,
) -> Duration {
    let client = Client::builder(url).retry(impatient()).build().unwrap();
    eventually("a write through a survivor is acknowledged", async || {
        record
            .put(&client, &name, b"after the kill".to_vec())
            .await
            .is_ok()
    })
    .await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_leader_lose_nothing_and_another_answers_soon() {
    let rounds = number("SCRIBE_FAILOVER_ROUNDS", 3);
    let mut cluster = Processes::start().await;
    let record = Arc::new(Record::default());
    let load = Load::through_each(&cluster, 24, &record);
    let (mut first, mut every, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let leader = cluster.leader().await;
        // The random moment is the test.
        let moment = record.count() + rand::rng().random_range(1..1_500);
        eventually("the load is acknowledged", async || {
            record.count() >= moment
        })
        .await;
        cluster.node_mut(leader).kill();
        let killed = Instant::now();
        let survivors = cluster.all_but(leader);
        let probes = survivors.iter().map(|id| {
            let name = format!("probe/{round}/{id}");
            let (url, record) = (cluster.node(*id).url(), Arc::clone(&record));
            acknowledged_after(url, name, killed, record)
        });
        let times = futures::future::join_all(probes).await;
        let next = cluster.leader().await;
        assert_ne!(next, leader, "a dead node leads");
        cluster.node_mut(leader).start(&[]);
        let ((), ready) = timed(cluster.all_ready()).await;
        println!(
            "round {round}: node {leader} killed, writes through {survivors:?} after {times:.2?}, node {next} leads; \
             all ready {ready:.2?} after the start, {} acknowledged",
            record.count()
        );
        first.push(times[0].min(times[1]));
        every.push(times[0].max(times[1]));
        back.push(ready);
    }
    load.stop().await;
    fill_segments(&cluster, &record).await;

    let seen = cluster.same_everywhere().await;
    let leader = cluster.leader().await;
    let size = record.verify(&cluster.client(leader)).await;
    assert_eq!(seen.members[0].tree_size, Some(size));
    let mut sealed = 0;
    eventually("all have sealed the same", async || {
        let counts = cluster.nodes.values();
        let counts: Vec<u64> = counts
            .map(|node| node.metric("scribe_sealed_segments"))
            .collect();
        sealed = counts[0];
        counts.iter().all(|count| *count == sealed)
    })
    .await;
    cluster.stop_and_check().await;
    let of_first = cluster.segments(1, sealed as usize);
    assert_eq!(of_first.len() as u64, sealed);
    for id in [2, 3] {
        assert_eq!(of_first, cluster.segments(id, sealed as usize), "node {id}");
    }
    println!(
        "{rounds} rounds, {} acknowledged, all present once in a ledger of {size}; {sealed} sealed segments identical\n\
         kill to acknowledged through one survivor: {}\n\
         kill to acknowledged through both:         {}\n\
         start to ready:                            {}",
        record.count(),
        distribution(&first),
        distribution(&every),
        distribution(&back),
    );
    assert!(every.iter().all(|time| *time < FAILOVER_MAX), "{every:.2?}");
}

/// Writes long values until every node has sealed some segments.
async fn fill_segments(cluster: &Processes, record: &Arc<Record>) {
    let client = Client::builder_for(cluster.urls_from(0));
    let client = client.retry(patient()).build().unwrap();
    for batch in 0.. {
        let sealed = cluster.nodes.values();
        let sealed = sealed
            .map(|node| node.metric("scribe_sealed_segments"))
            .min();
        if sealed >= Some(SEALED_MIN) {
            return;
        }
        let puts = (0..8).map(|n| {
            let (record, client) = (Arc::clone(record), client.clone());
            async move {
                let value = vec![b'x'; 1 << 20];
                let name = format!("fill/{batch}/{n}");
                record.put(&client, &name, value).await.unwrap();
            }
        });
        futures::future::join_all(puts).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_under_64_writers_fails_no_call() {
    let cycles = number("SCRIBE_ROLLING_CYCLES", 1);
    let mut cluster = Processes::start().await;
    let record = Arc::new(Record::default());
    let load = Load::through_any(&cluster, 64, &record);
    let (mut stops, mut starts) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        for id in cluster.ids() {
            let before = record.count();
            eventually("the load is acknowledged", async || {
                record.count() > before + 500 || load.any_ended()
            })
            .await;
            let led = cluster.leader().await == id;
            let (status, stopped) = timed(cluster.node_mut(id).terminate()).await;
            assert_eq!(status.code(), Some(0), "{}", cluster.node(id).said());
            cluster.node_mut(id).start(&[]);
            let ((), started) = timed(cluster.all_ready()).await;
            println!(
                "cycle {cycle}: node {id}{} stopped in {stopped:.2?}, ready {started:.2?} after its start; {} \
                 acknowledged",
                if led { ", which led," } else { "" },
                record.count() - before
            );
            assert!(!load.any_ended(), "a writer's call failed");
            stops.push(stopped);
            starts.push(started);
        }
    }
    load.stop().await;
    cluster.same_everywhere().await;
    let size = record.verify(&cluster.client(1)).await;
    println!(
        "{cycles} cycles, no call failed, {} acknowledged, all present once in a ledger of {size}\n\
         stop: {}\nstart to ready: {}",
        record.count(),
        distribution(&stops),
        distribution(&starts)
    );
    cluster.stop_and_check().await;
}

/// Half of these writes one by one through all nodes, half as bulk uploads to all nodes.
async fn write_both_ways(cluster: &Processes, run: &str, writes: usize) {
    let nodes = cluster.ids().len();
    let singles = (0..64).map(|writer| {
        let client = Client::new(&cluster.urls_from(writer)[0]).unwrap();
        let run = run.to_owned();
        async move {
            for n in 0..writes / 2 / 64 {
                let key = format!("{run}/{writer}/{}", n % 100);
                client.put(key, "a value").send().await.unwrap();
            }
        }
    });
    futures::future::join_all(singles).await;
    let uploads = cluster.ids().into_iter().map(|id| {
        let client = cluster.client(id);
        let run = run.to_owned();
        async move {
            let lines = (0..writes / 2 / nodes).map(move |n| {
                let key = format!("{run}/bulk/{id}/{n}");
                BulkLine::put(key.as_bytes(), b"a value").into_owned()
            });
            let lines = futures::stream::iter(lines);
            let mut replies = client.bulk(lines, Wait::Appended).await.unwrap();
            let mut failed = None;
            while let Some(reply) = replies.next().await {
                if let BulkReply::Done(done) = reply.unwrap() {
                    failed = Some(done.failed);
                }
            }
            assert_eq!(failed, Some(0));
        }
    });
    futures::future::join_all(uploads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_connections_stay_while_calls_grow() {
    let writes = number("SCRIBE_POOL_WRITES", 6_000);
    let mut cluster = Processes::start().await;
    // Connections are opened when they are first needed: afterwards all are there.
    write_both_ways(&cluster, "warm", 2_000).await;
    let counted = |name: &str| -> BTreeMap<u64, u64> {
        let nodes = cluster.nodes.iter();
        nodes.map(|(id, node)| (*id, node.metric(name))).collect()
    };
    let (opened, accepted, calls) = (
        "scribe_peer_connections_opened_total",
        "scribe_peer_server_connections_accepted_total",
        "scribe_peer_calls_total",
    );
    let before = (counted(opened), counted(accepted), counted(calls));
    let ((), took) = timed(write_both_ways(&cluster, "run", writes)).await;
    let after = (counted(opened), counted(accepted), counted(calls));
    println!(
        "{writes} writes in {took:.2?}, by node:\nopened   {:?} -> {:?}\naccepted {:?} -> {:?}\ncalls    {:?} -> {:?}",
        before.0, after.0, before.1, after.1, before.2, after.2
    );
    assert_eq!(before.0, after.0, "connections were opened");
    assert_eq!(before.1, after.1, "connections were accepted");
    let grown: u64 = after.2.values().sum::<u64>() - before.2.values().sum::<u64>();
    let open: u64 = after.0.values().sum();
    assert!(
        grown > 5 * open,
        "{grown} calls on {open} connections say nothing about a pool"
    );
    cluster.stop_and_check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_is_gone_or_another_nodes_is_refused() {
    let mut cluster = Processes::start().await;
    let follower = follower(&cluster).await;
    let other = cluster
        .ids()
        .into_iter()
        .find(|id| *id != follower)
        .unwrap();
    cluster.node_mut(follower).kill();
    cluster.node_mut(other).kill();
    let node = cluster.node(follower);
    let kept = node.home.join("kept");
    std::fs::rename(node.data_dir(), &kept).unwrap();
    let (code, said) = node.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is gone"), "{said}");
    assert!(
        said.contains(&format!(
            "hint: check --data-dir; if the disk is lost, remove node {follower}"
        )),
        "{said}"
    );

    let theirs = cluster.node(other).data_dir();
    std::fs::rename(&theirs, node.data_dir()).unwrap();
    let (code, said) = node.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("the data directory is of node {other} of cluster")),
        "{said}"
    );
    assert!(
        said.contains("hint: each node keeps its own two directories"),
        "{said}"
    );

    // With what is theirs, both take their places again.
    std::fs::rename(node.data_dir(), theirs).unwrap();
    std::fs::rename(kept, node.data_dir()).unwrap();
    for id in [follower, other] {
        cluster.node_mut(id).start(&[]);
    }
    cluster.all_ready().await;
    cluster.client(follower).put("k", "v").send().await.unwrap();
    cluster.same_everywhere().await;
    cluster.stop_and_check().await;
}

async fn follower(cluster: &Processes) -> u64 {
    let leader = cluster.leader().await;
    let mut ids = cluster.ids().into_iter();
    ids.find(|id| *id != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_others_are_gone_is_not_ready() {
    let mut cluster = Processes::start().await;
    for leads in [true, false] {
        let left = match leads {
            true => cluster.leader().await,
            false => follower(&cluster).await,
        };
        let gone: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != left).collect();
        for id in &gone {
            cluster.node_mut(*id).kill();
        }
        let client = Client::new(cluster.node(left).url()).unwrap();
        eventually("the node that is left is not ready", async || {
            let health = client.health().await.unwrap();
            health.reason.is_some()
        })
        .await;
        for id in &gone {
            cluster.node_mut(*id).start(&[]);
        }
        cluster.all_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_removed_while_it_was_down_is_refused_and_disturbs_nobody() {
    let mut cluster = Processes::start().await;
    let removed = follower(&cluster).await;
    let leader = cluster.leader().await;
    cluster.node_mut(removed).kill();
    let server = cluster.node(leader).url();
    let id = removed.to_string();
    cluster.ok(&["cluster", "remove", &id, "--server", &server]);
    let term = cluster.node(leader).metric("scribe_raft_term");
    // It believes that it is a voter, hears no leader, and asks the others for their votes.
    cluster.node_mut(removed).start(&[]);
    let others: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != removed)
        .collect();
    // Only the leader refuses connections: a follower may not know the newest member yet. It refuses its vote.
    eventually("the leader refuses the removed node", async || {
        let refused = "scribe_peer_server_refused_total{reason=\"removed\"}";
        let metrics = cluster.node(leader).metrics();
        metrics.get(refused).is_some_and(|count| *count >= 3.0)
    })
    .await;
    let client = Client::builder(cluster.node(removed).url()).retry(impatient());
    let through = client.build().unwrap().put("k", "v").send().await;
    assert!(through.is_err(), "{through:?}");
    for id in others {
        cluster.client(id).put("k", "v").send().await.unwrap();
        assert_eq!(cluster.node(id).metric("scribe_raft_term"), term);
        let known = cluster.client(id).leader().await.unwrap();
        assert_eq!(known.node_id, Some(leader));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_removed_while_it_runs_serves_no_writes_and_disturbs_nobody() {
    let cluster = Processes::start().await;
    let removed = follower(&cluster).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).metric("scribe_raft_term");
    let server = cluster.node(removed).url();
    let id = removed.to_string();
    cluster.ok(&["cluster", "remove", &id, "--server", &server]);
    let client = Client::builder(&server).retry(impatient()).build().unwrap();
    eventually("a write through the removed node is refused", async || {
        client.put("k", "v").send().await.is_err()
    })
    .await;
    eventually("the removed node is not ready", async || {
        let health = client.health().await.unwrap();
        health.reason.is_some()
    })
    .await;
    for id in cluster.ids().into_iter().filter(|id| *id != removed) {
        cluster.client(id).put("k", "v").send().await.unwrap();
        assert_eq!(cluster.node(id).metric("scribe_raft_term"), term);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_one_node_in_until_it_expires() {
    let cluster = Processes::start().await;
    let server = cluster.node(follower(&cluster).await).url();
    let token = cluster.ok(&["cluster", "token", "--server", &server]);
    let mut joined = cluster.new_node("joined");
    std::fs::write(joined.home.join("token"), &token).unwrap();
    joined.start(&["--join", "token"]);
    let client = cluster.client(1);
    eventually("the node that joined has become a voter", async || {
        let members = client.members().await.unwrap();
        let new = members.iter().find(|member| member.node_id > 3);
        new.is_some_and(|member| member.role == "voter")
    })
    .await;
    let through = Client::builder(joined.url()).retry(patient());
    let appended = through.build().unwrap().put("k", "v").send().await.unwrap();
    assert!(appended.index > 0);

    let again = cluster.new_node("again");
    std::fs::write(again.home.join("token"), &token).unwrap();
    let (code, said) = again.refused(&["--join", "token"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("used"), "{said}");
    assert!(
        said.contains("hint: make a new token on a member"),
        "{said}"
    );
    assert!(!again.data_dir().join("log").exists(), "it got no ledger");

    let soon = cluster.ok(&["cluster", "token", "--expires", "1s", "--server", &server]);
    std::fs::write(again.home.join("token"), soon).unwrap();
    let made = Instant::now();
    eventually("the token has expired", async || {
        made.elapsed() > Duration::from_millis(1_100)
    })
    .await;
    let (code, said) = again.refused(&["--join", "token"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("expired"), "{said}");
    assert!(
        said.contains("hint: make a new token on a member"),
        "{said}"
    );
    let members = client.members().await.unwrap();
    assert_eq!(members.len(), 4, "{members:?}");
}

/// `scribe cluster up`; killed when dropped, and its nodes with it: they watch their standard input.
struct Up {
    child: Child,
    /// HTTP URL and process of each node, by id.
    nodes: BTreeMap<u64, (String, u32)>,
}

impl Up {
    fn start(dir: &std::path::Path) -> Up {
        let mut child = command(dir)
            .args(["cluster", "up", "--nodes", "3", "--any-port"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut nodes = BTreeMap::new();
        let mut ready = false;
        for line in lines.map(|line| line.unwrap()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["node", id, "http", url, "raft", _, "pid", pid] = words[..] {
                let process = (url.to_owned(), pid.parse().unwrap());
                nodes.insert(id.parse().unwrap(), process);
            }
            ready = line == "cluster is ready";
            if ready {
                break;
            }
        }
        let up = Up { child, nodes };
        assert!(ready && up.nodes.len() == 3, "{:?}", up.nodes);
        up
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_runs_a_cluster_that_outlives_its_leader() {
    let directory = tempfile::tempdir().unwrap();
    let mut up = Up::start(directory.path());
    let run = |up: &Up, id: u64, arguments: &[&str]| {
        let mut command = command(directory.path());
        command.args(arguments).args(["--server", &up.nodes[&id].0]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&up, 2, &["put", "greeting", "hello"]);
    assert_eq!(run(&up, 3, &["get", "greeting"]), "hello");
    let leader = Client::new(&up.nodes[&1].0).unwrap().leader().await;
    let leader = leader.unwrap().node_id.unwrap();
    signal(up.nodes[&leader].1, "KILL");
    let survivor = up.nodes.keys().copied().find(|id| *id != leader).unwrap();
    run(&up, survivor, &["put", "greeting", "hello again"]);
    assert_eq!(run(&up, survivor, &["get", "greeting"]), "hello again");

    let stop = |up: &mut Up| {
        signal(up.child.id(), "TERM");
        assert!(up.child.wait().unwrap().success());
    };
    stop(&mut up);
    let mut up = Up::start(directory.path());
    assert_eq!(run(&up, leader, &["get", "greeting"]), "hello again");
    let members = Client::new(&up.nodes[&leader].0).unwrap().cluster().await;
    let members = members.unwrap().members;
    assert!(members.iter().all(|member| member.reachable), "{members:?}");
    stop(&mut up);
}

/// Memory the process has now.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_raft_port_cost_no_memory_and_stop_nothing() {
    let cluster = Processes::start().await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader);
    client.put("before", "value").send().await.unwrap();
    let address = cluster.node(leader).raft_addr.clone();
    let pid = cluster.node(leader).pid();
    let before = resident_bytes(pid);
    let random: Vec<u8> = (0..64 * 1_024).map(|_| rand::rng().random()).collect();
    let openings: [Vec<u8>; 5] = [
        random,
        // Half a TLS record.
        vec![0x16, 3, 1, 2, 0, 1],
        // A TLS record, and a message in it, that declare as much as they can.
        vec![0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // A frame of the plain protocol that declares 4 GiB.
        vec![0xff, 0xff, 0xff, 0xff, 1, 1],
    ];
    // Held open, all of them, for as long as the node lets them.
    let mut held = Vec::new();
    for opening in openings.iter().cycle().take(400) {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        // The node may have closed it already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, opening).await;
        held.push(stream);
        if held.len() % 50 == 0 {
            client.put("meanwhile", "value").send().await.unwrap();
        }
    }
    let grown = resident_bytes(pid).saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "{grown} bytes for {} strangers",
        held.len()
    );
    cluster.all_ready().await;
    assert_eq!(cluster.leader().await, leader, "nobody lost touch over it");
}
