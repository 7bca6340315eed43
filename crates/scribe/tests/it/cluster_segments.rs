//! A fourth node joins a cluster that has much: it fetches what is sealed as files, once, also when it is killed in the
//! middle; becomes a voter; and those it takes the place of can disturb nobody any more. Real processes, real files.
//!
//! `SCRIBE_JOIN_ENTRIES` sets how many entries the cluster has; `--nocapture` shows the figures.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use scribe_client::wire::{BulkLine, BulkReply, CatchUp, Member as MemberInfo};
use scribe_client::{Client, Wait};
use tempfile::TempDir;

use crate::member::{self, Member, same_everywhere};
use crate::test_cluster::{eventually, eventually_within, free_address};

/// Entries unless the environment says otherwise: with the values below, several sealed segments.
const ENTRIES: u64 = 300_000;
/// All values together.
const VALUE_BYTES: u64 = 320_000_000;
/// Lines of one upload.
const UPLOAD_LINES: u64 = 50_000;
/// How long fetching everything is made to take, so that the middle of it can be hit.
const FETCH_SECONDS: u64 = 20;
/// What a transfer that is killed may fetch twice: what was not yet written, and what was written and not yet counted.
const TWICE_MAX: u64 = 16 * 1_024 * 1_024;
/// A joining node takes its hashes and keys into tree and index as well.
const PATIENCE: Duration = Duration::from_secs(300);

struct Cluster {
    members: BTreeMap<u64, Member>,
    directory: TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let addresses = (1..=3).map(|id| (id, (free_address(), free_address())));
        let flags = member::init(&directory.path().join("cluster"), &addresses.collect());
        let members = flags
            .iter()
            .map(|(id, flags)| {
                let name = format!("node {id}");
                (*id, Member::start(&name, directory.path(), flags, None))
            })
            .collect();
        let cluster = Cluster { members, directory };
        for id in cluster.members.keys() {
            cluster.ready(*id).await;
        }
        cluster
    }

    fn client(&self, id: u64) -> Client {
        self.members[&id].client()
    }

    async fn ready(&self, id: u64) {
        let client = self.client(id);
        eventually("the node is ready", async || {
            let health = client.health().await;
            health.is_ok_and(|health| health.reason.is_none())
        })
        .await;
    }

    /// Who leads, as node `through` knows, and in which term.
    async fn leader(&self, through: u64) -> (u64, u64) {
        let mut found = None;
        eventually("there is a leader", async || {
            let health = self.client(through).health().await;
            found = health
                .ok()
                .and_then(|health| Some((health.current_leader?, health.current_term)));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Fills the ledger through its leader.
    async fn fill(&self, through: u64, entries: u64) {
        let length = (VALUE_BYTES / entries).max(100) as usize;
        let started = Instant::now();
        let mut first = 0;
        while first < entries {
            let last = entries.min(first + UPLOAD_LINES);
            let lines = stream::iter(first..last).map(move |n| {
                let value = format!("{n:0>length$}");
                BulkLine::put(format!("key {n}").as_bytes(), value.as_bytes()).into_owned()
            });
            let client = self.client(through);
            let mut replies = client.bulk(lines, Wait::Appended).await.unwrap();
            let mut done = None;
            while let Some(reply) = replies.next().await {
                if let BulkReply::Done(reply) = reply.unwrap() {
                    done = Some((reply.lines, reply.failed));
                }
            }
            assert_eq!(done, Some((last - first, 0)));
            first = last;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{entries} entries with values of {length} bytes in {seconds:.1} s, {:.0} a second",
            entries as f64 / seconds
        );
    }

    /// Starts a node that joins through node `through`. Returns the id it was given.
    async fn join(&mut self, through: u64, name: &str, more: &[String]) -> u64 {
        let token = self.client(through).cluster_token(PATIENCE).await.unwrap();
        let home = self.directory.path().join(name);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("token"), token.token).unwrap();
        let mut flags: Vec<String> = [
            ("--join", home.join("token").display().to_string()),
            ("--data-dir", home.join("data").display().to_string()),
            ("--key-dir", home.join("keys").display().to_string()),
            ("--raft-addr", free_address()),
            ("--http-addr", free_address()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        flags.extend_from_slice(more);
        let known: Vec<u64> = self.members.keys().copied().collect();
        let joined = Member::start(name, self.directory.path(), &flags, None);
        let mut id = None;
        eventually("the new node is a member", async || {
            let members = self.client(through).members().await.unwrap_or_default();
            let ids = members.iter().map(|member| member.node_id);
            id = ids.filter(|id| !known.contains(id)).max();
            id.is_some()
        })
        .await;
        let id = id.unwrap();
        self.members.insert(id, joined);
        id
    }

    /// What node `through` says of member `id`.
    async fn about(&self, through: u64, id: u64) -> Option<MemberInfo> {
        let members = self.client(through).members().await.ok()?;
        members.into_iter().find(|member| member.node_id == id)
    }

    async fn catch_up(&self, through: u64, id: u64) -> Option<CatchUp> {
        self.about(through, id).await?.catch_up
    }
}

/// A metric of a node: the sum of all values with this name.
fn metric(url: &str, name: &str) -> u64 {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let found = rest.starts_with(' ') || rest.starts_with('{');
        found.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    });
    values.sum::<f64>() as u64
}

/// Files of sealed segments, oldest first: all segments but the one that is written to.
fn sealed_files(data: &Path, sealed: u64) -> Vec<PathBuf> {
    let mut directories = vec![data.to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "seg") {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| path.file_name().unwrap().to_owned());
    assert!(
        found.len() as u64 >= sealed,
        "{sealed} are sealed, found {found:?}"
    );
    found.truncate(sealed as usize);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_node_fetches_what_is_sealed_once_although_it_is_killed_half_way() {
    let entries =
        std::env::var("SCRIBE_JOIN_ENTRIES").map_or(ENTRIES, |text| text.parse().unwrap());
    let mut cluster = Cluster::start().await;
    let (leader, _) = cluster.leader(1).await;
    cluster.fill(leader, entries).await;
    same_everywhere(cluster.members.values(), PATIENCE).await;
    let sealed_on = |id: u64| metric(&cluster.members[&id].url, "scribe_sealed_segments");
    eventually_within(PATIENCE, "every node has sealed the same", async || {
        (1..=3).all(|id| sealed_on(id) == sealed_on(leader))
    })
    .await;
    let sealed = sealed_on(leader);
    let data = cluster
        .directory
        .path()
        .join(format!("cluster/node-{leader}/data"));
    let files = sealed_files(&data, sealed);
    let bytes: u64 = files
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    println!("{sealed} sealed segments, {bytes} bytes");
    assert!(
        sealed >= 4,
        "what is not sealed, and two segments more, is sent as log entries"
    );

    // Fetching, slowly; killed in the middle.
    let rate = bytes / FETCH_SECONDS;
    let slowly = [format!("--snapshot-bytes-per-second={rate}B")];
    let new = cluster.join(leader, "fourth", &slowly).await;
    let mut before = None;
    eventually_within(PATIENCE, "some of it is fetched", async || {
        before = cluster.catch_up(leader, new).await;
        before.is_some_and(|at| at.done_bytes * 10 > at.total_bytes * 3)
    })
    .await;
    let before = before.unwrap();
    let wire = |name: &str, id: u64| metric(&cluster.members[&id].url, name);
    let received_before = wire("scribe_peer_received_bytes_total", new);
    assert!(
        before.done_bytes * 10 < before.total_bytes * 8,
        "{before:?}"
    );
    cluster.members.get_mut(&new).unwrap().kill();
    println!(
        "killed when {} of {} bytes were fetched",
        before.done_bytes, before.total_bytes
    );

    // It goes on where it was.
    cluster.members.get_mut(&new).unwrap().restart();
    let started = Instant::now();
    let mut after = None;
    eventually_within(PATIENCE, "the rest is being fetched", async || {
        after = cluster.catch_up(leader, new).await;
        after.is_some()
    })
    .await;
    let after = after.unwrap();
    println!(
        "after its restart {} bytes are left to fetch",
        after.total_bytes
    );
    eventually_within(PATIENCE, "the new node is a voter", async || {
        let about = cluster.about(leader, new).await;
        about.is_some_and(|about| about.role == "voter")
    })
    .await;
    let url = cluster.members[&new].url.clone();
    let fetched = metric(&url, "scribe_catch_up_fetched_bytes");
    println!(
        "voter {:?} after the restart; fetched {} + {fetched} of {bytes} sealed bytes; received {} + {} over all connections",
        started.elapsed(),
        before.done_bytes,
        received_before,
        metric(&url, "scribe_peer_received_bytes_total"),
    );
    assert_eq!(
        before.total_bytes, bytes,
        "all that is sealed, and nothing else"
    );
    assert_eq!(fetched, after.total_bytes);
    assert!(fetched < bytes, "a transfer that was killed goes on");
    let together = before.done_bytes + fetched;
    assert!(together < bytes + TWICE_MAX, "{together} of {bytes} bytes");
    // Two seconds: the figure was asked for before the kill.
    assert!(
        together + 2 * rate + TWICE_MAX > bytes,
        "{together} of {bytes} bytes"
    );

    // The same tree, the same files, and nothing wrong with them.
    same_everywhere(cluster.members.values(), PATIENCE).await;
    let home = cluster.directory.path().join("fourth");
    for (own, other) in sealed_files(&home.join("data"), sealed).iter().zip(&files) {
        assert_eq!(own.file_name(), other.file_name());
        assert!(
            fs::read(own).unwrap() == fs::read(other).unwrap(),
            "{own:?} and {other:?}"
        );
    }
    cluster.members.get_mut(&new).unwrap().stop().await;
    let (data, keys) = (home.join("data"), home.join("keys"));
    let words = ["repair", "--check", "--data-dir", data.to_str().unwrap()];
    let words = [&words[..], &["--key-dir", keys.to_str().unwrap()]].concat();
    println!("{}", member::scribe(&words).trim());
    cluster.members.get_mut(&new).unwrap().restart();
    cluster.ready(new).await;
    those_who_left_disturb_nobody(&mut cluster, new).await;
    for member in cluster.members.values_mut() {
        member.stop().await;
    }
}

/// One node is removed, another replaced; both come back with all they had.
async fn those_who_left_disturb_nobody(cluster: &mut Cluster, through: u64) {
    let (leader, _) = cluster.leader(through).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (removed, replaced) = (others[0], others[1]);
    cluster.client(through).remove(removed).await.unwrap();

    cluster.members.get_mut(&replaced).unwrap().kill();
    let stays = ["--learner".to_owned()];
    let by = cluster.join(through, "fifth", &stays).await;
    assert!(by > through, "ids are never used again");
    eventually_within(PATIENCE, "the dead node is replaced", async || {
        cluster.client(through).replace(replaced, by).await.is_ok()
    })
    .await;
    let members = cluster.client(through).members().await.unwrap();
    let voters: Vec<u64> = members
        .iter()
        .filter(|member| member.role == "voter")
        .map(|member| member.node_id)
        .collect();
    let mut expected = vec![leader, through, by];
    expected.sort_unstable();
    assert_eq!(voters, expected);
    assert_eq!(members.len(), 3);

    let term = cluster.leader(through).await;
    cluster.members.get_mut(&removed).unwrap().kill();
    for gone in [removed, replaced] {
        cluster.members.get_mut(&gone).unwrap().restart();
    }
    let client = cluster.client(through);
    let mut written = 0;
    for gone in [removed, replaced] {
        let url = cluster.members[&gone].url.clone();
        eventually("a node that left is refused", async || {
            client.put("while they ask", "value").send().await.unwrap();
            written += 1;
            TcpStream::connect(url.strip_prefix("http://").unwrap()).is_ok()
                && metric(&url, "scribe_peer_call_failures_total") > 5
        })
        .await;
        let refused = cluster
            .client(gone)
            .put("through one that left", "v")
            .send()
            .await;
        println!(
            "a put through node {gone}, which left: {:?}",
            refused.as_ref().map_err(ToString::to_string)
        );
        refused.unwrap_err();
        let health = cluster.client(gone).health().await.unwrap();
        println!("node {gone} is not ready: {:?}", health.reason);
        assert!(
            health.reason.is_some(),
            "a node that left says that it is not ready"
        );
        let said = cluster.members[&gone].log();
        assert!(said.contains("its id is never used again"), "{said}");
    }
    let refused = metric(
        &cluster.members[&leader].url,
        "scribe_peer_server_refused_total",
    );
    println!("{written} puts meanwhile; the leader refused {refused} connections");
    assert_eq!(cluster.leader(through).await, term, "they made no election");
    let stay = [leader, through, by].map(|id| &cluster.members[&id]);
    same_everywhere(stay, PATIENCE).await;
}
