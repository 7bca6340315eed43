//! The static read side: every tile and bundle against a tree made from the leaves, what caches and browsers are told,
//! and what is refused.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use scribe::node::{Node, Operation, Transaction};
use scribe_proof::checkpoint::SignedCheckpoint;
use scribe_proof::index::{LeafIndex, TreeSize};
use scribe_proof::tile::{Tile, parse_bundle, push_entry};
use scribe_proof::tree::{HashReader as _, MemoryTree};

use crate::support::{Connection, Reply, TestServer, request};
use crate::test_cluster::TestCluster;
use crate::test_ledger::{TestLedger, put, wait_until};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// What every value in these tests has in it, and no bundle may.
const SECRET: &str = "a-value-nobody-reads-from-a-bundle";

/// The tree and the leaves, made from nothing but the entries.
#[derive(Default)]
struct Naive {
    tree: MemoryTree,
    leaves: Vec<Bytes>,
}

impl Naive {
    fn catch_up(&mut self, node: &Node) {
        loop {
            let from = LeafIndex::new(self.leaves.len() as u64);
            let entries = node.entries(from, 1_000, 1 << 24).unwrap();
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                self.tree.append(scribe_proof::leaf_hash(&entry.leaf));
                self.leaves.push(entry.leaf);
            }
        }
    }

    fn tile(&self, tile: &Tile) -> Vec<u8> {
        let mut hashes = Vec::new();
        self.tree
            .read(tile.level(), tile.start(), tile.width().into(), &mut hashes)
            .unwrap();
        hashes.iter().flat_map(|hash| hash.0).collect()
    }

    fn bundle(&self, tile: &Tile) -> Vec<u8> {
        let start = tile.start() as usize;
        let mut bundle = Vec::new();
        for leaf in &self.leaves[start..start + usize::from(tile.width())] {
            push_entry(&mut bundle, leaf).unwrap();
        }
        bundle
    }
}

async fn get(connection: &mut Connection, target: &str) -> Reply {
    connection.write(&request("GET", target, &[], None)).await;
    connection.reply(false).await
}

/// Size and root of the checkpoint a server shows.
async fn shown(server: &TestServer) -> (TreeSize, scribe_proof::Hash) {
    let reply = server.get("/checkpoint").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let checkpoint = SignedCheckpoint::parse(&reply.text()).unwrap();
    let checkpoint = checkpoint.checkpoint();
    (checkpoint.size, checkpoint.root)
}

/// Appends `count` entries, some in transactions and some alone.
async fn grow(node: &Node, count: usize, round: usize) {
    let mut left = count;
    while left > 0 {
        let batch = left.min(1_000);
        if batch < 10 {
            node.append(put(&format!("{round}/alone/{left}"), SECRET))
                .await
                .unwrap();
            left -= 1;
            continue;
        }
        let operations = (0..batch)
            .map(|n| {
                let write = put(&format!("{round}/{left}/{n}"), SECRET);
                Operation::Write {
                    key: write.key,
                    kind: write.kind,
                    condition: write.condition,
                }
            })
            .collect();
        node.append_transaction(Transaction {
            operations,
            idempotency_key: None,
            author: Bytes::new(),
        })
        .await
        .unwrap();
        left -= batch;
    }
}

async fn compare(server: &TestServer, naive: &Naive, tiles: impl Iterator<Item = Tile>) -> usize {
    let mut connection = server.connect().await;
    let mut compared = 0;
    for tile in tiles {
        let reply = get(&mut connection, &format!("/{}", tile.path())).await;
        assert_eq!(reply.status, 200, "{}: {}", tile.path(), reply.text());
        assert!(reply.body == naive.tile(&tile), "{}", tile.path());
        compared += 1;
        if let Some(path) = tile.entries_path() {
            let reply = get(&mut connection, &format!("/{path}")).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            assert!(reply.body == naive.bundle(&tile), "{path}");
            let entries = parse_bundle(&reply.body, tile.width()).unwrap();
            assert_eq!(entries.len(), usize::from(tile.width()));
            assert!(!reply.text().contains(SECRET), "{path} shows a value");
            compared += 1;
        }
    }
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tile_of_a_large_ledger_is_what_its_leaves_make() {
    let cluster = TestCluster::new(3).await;
    let leader = cluster.leader().await;
    let mut servers = Vec::new();
    for id in cluster.ids() {
        servers.push(TestServer::over(cluster.node(id), ANY).await);
    }
    let mut naive = Naive::default();
    let mut sizes = vec![TreeSize::EMPTY];
    // Beyond two full tiles of level 1, and beyond the first full one of level 2.
    for (round, count) in [255, 3, 1_000, 64_500, 4_999].into_iter().enumerate() {
        grow(cluster.node(leader), count, round).await;
        let (size, root) = cluster.same_everywhere().await;
        naive.catch_up(cluster.node(leader));
        assert_eq!(naive.tree.root(), root);
        let old = *sizes.last().unwrap();
        for (server, id) in servers.iter().zip(cluster.ids()) {
            // A follower shows a checkpoint a moment after the leader.
            cluster.node(id).publish(size).await.unwrap();
            assert_eq!(shown(server).await, (size, root));
            compare(server, &naive, Tile::new_since(old, size)).await;
        }
        sizes.push(size);
    }
    let size = *sizes.last().unwrap();
    assert!(size > TreeSize::new(70_000), "{size}");
    for server in &servers {
        // All of the newest tree, and of every tree that was published before.
        let compared = compare(server, &naive, Tile::all(size)).await;
        assert_eq!(compared, 2 * size.get().div_ceil(256) as usize + 3);
        for old in &sizes {
            compare(server, &naive, Tile::all(*old)).await;
        }
    }
    for server in servers {
        server.stop().await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beyond_the_published_size_is_served() {
    let ledger = TestLedger::start_with(|options| options.publish_interval_ms = 3_600_000).await;
    let server = TestServer::over(&ledger.node, ANY).await;
    grow(&ledger.node, 300, 0).await;
    let published = ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap()
        .size;
    grow(&ledger.node, 300, 1).await;
    assert!(ledger.node.applied_size() > published);

    let edge = published.get() - 256;
    for width in 1..256 {
        for path in [
            format!("/tile/0/001.p/{width}"),
            format!("/tile/entries/001.p/{width}"),
        ] {
            let reply = server.get(&path).await;
            if width <= edge {
                assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                if path.starts_with("/tile/0") {
                    assert_eq!(reply.body.len() as u64, width * 32);
                }
            } else {
                let problem = reply.problem(404, "not_found");
                assert_eq!(problem["tree_size"], published.get(), "{path}");
                assert_eq!(reply.header("cache-control"), Some("no-store"));
            }
        }
    }
    for path in [
        "/tile/0/001",
        "/tile/entries/001",
        "/tile/0/002",
        "/tile/0/002.p/1",
        "/tile/entries/002.p/1",
        "/tile/1/000.p/2",
        "/tile/1/000",
        "/tile/2/000.p/1",
        "/tile/8/000.p/1",
        "/tile/63/000.p/1",
        "/tile/0/x001/x000/000",
    ] {
        let problem = server.get(path).await.problem(404, "not_found");
        assert_eq!(problem["tree_size"], published.get(), "{path}");
    }
    let problem = server.get("/tile/0/001").await.problem(404, "not_found");
    assert_eq!(
        problem["hint"],
        format!("of this tile {edge} hashes are published")
    );
    // Once published, it is there.
    ledger
        .node
        .publish(ledger.node.applied_size())
        .await
        .unwrap();
    assert_eq!(server.get("/tile/0/001").await.body.len(), 8_192);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_have_one_form() {
    let server = TestServer::start().await;
    server.put("/v1/keys/k?wait=published", b"v").await;
    for path in [
        "/tile/0/0",
        "/tile/0/0000",
        "/tile/0/x000/000",
        "/tile/0/000.p/0",
        "/tile/0/000.p/01",
        "/tile/0/000.p/256",
        "/tile/0/000.p/",
        "/tile/0/000/",
        "/tile/0/",
        "/tile/",
        "/tile//000",
        "/tile/00/000",
        "/tile/64/000",
        "/tile/256/000",
        "/tile/data/000",
        "/tile/entries/0",
        "/tile/0/%30%30%30",
        "/tile/../checkpoint",
        "/tile//tile/0/000.p/1",
    ] {
        let problem = server.get(path).await.problem(404, "not_found");
        assert!(problem["hint"].is_string(), "{path}: {problem}");
    }
    for path in ["/tile/0/000.p/1?x=1", "/checkpoint?x=1"] {
        server.get(path).await.problem(400, "unknown_parameter");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_and_browsers_are_told_what_they_need() {
    let server = TestServer::start().await;
    server.put("/v1/keys/k?wait=published", b"v").await;
    server.put("/v1/keys/l?wait=published", b"v").await;
    let for_ever = "public, max-age=31536000, immutable";
    let mut tags = Vec::new();
    for (path, media, cache) in [
        (
            "/checkpoint",
            "text/plain; charset=utf-8",
            "public, max-age=1",
        ),
        ("/tile/0/000.p/1", "application/octet-stream", for_ever),
        ("/tile/0/000.p/2", "application/octet-stream", for_ever),
        (
            "/tile/entries/000.p/2",
            "application/octet-stream",
            for_ever,
        ),
    ] {
        // Twice: from disk, then from memory.
        for _ in 0..2 {
            let reply = server.get(path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            assert_eq!(reply.header("content-type"), Some(media), "{path}");
            assert_eq!(reply.header("cache-control"), Some(cache), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
            let exposed = reply.header("access-control-expose-headers").unwrap();
            assert!(exposed.contains("ETag"), "{exposed}");
            assert_eq!(
                reply.header("cross-origin-resource-policy"),
                Some("cross-origin")
            );
            let tag = reply.header("etag").unwrap().to_owned();
            assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");

            let head = server.send("HEAD", path, &[], None).await;
            assert_eq!(head.status, 200);
            assert_eq!(head.header("etag"), Some(&*tag));
            assert_eq!(
                head.header("content-length"),
                Some(&*reply.body.len().to_string())
            );

            let weak = format!("\"x\", W/{tag}");
            for given in [&tag, &weak, "*"] {
                let headers = [("if-none-match", given)];
                let known = server.send("GET", path, &headers, None).await;
                assert_eq!(known.status, 304, "{path} {given}");
                assert_eq!(known.header("etag"), Some(&*tag));
                assert_eq!(known.header("cache-control"), Some(cache));
                assert_eq!(known.header("access-control-allow-origin"), Some("*"));
            }
            let headers = [("if-none-match", "\"0123456789abcdef0123456789abcdef\"")];
            assert_eq!(server.send("GET", path, &headers, None).await.status, 200);
            tags.push(tag);
        }
    }
    tags.dedup();
    // The bundle and the tile of the same leaves have one identity, under two paths.
    assert_eq!(tags.len(), 3, "{tags:?}");

    let old = server.get("/checkpoint").await;
    server.put("/v1/keys/m?wait=published", b"v").await;
    let headers = [("if-none-match", old.header("etag").unwrap())];
    let new = server.send("GET", "/checkpoint", &headers, None).await;
    assert_eq!(new.status, 200, "a new checkpoint is another file");
    assert_ne!(new.header("etag"), old.header("etag"));

    // A page's own header makes the browser ask first; a refusal can be read by the page as well.
    let headers = [
        ("origin", "https://example.com"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "if-none-match"),
    ];
    let preflight = server
        .send("OPTIONS", "/tile/0/000.p/1", &headers, None)
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("GET, HEAD")
    );
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("If-None-Match"), "{allowed}");
    let refused = server.get("/tile/0/999").await;
    refused.problem(404, "not_found");
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    // Nothing else is for pages of other origins.
    for path in ["/v1/keys/k", "/v1/ledger", "/v1/entries"] {
        let reply = server.get(path).await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
    let reply = server.send("POST", "/tile/0/000.p/1", &[], Some(b"")).await;
    reply.problem(405, "method_not_allowed");
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics.contains("scribe_http_requests_total{route=\"tile\",status=\"2xx\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("scribe_http_requests_total{route=\"checkpoint\",status=\"3xx\"}"));
    server.stop().await;
}

/// Changes one bit of a file.
fn flip(path: &std::path::Path, offset: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_hash_is_not_handed_to_a_cache() {
    let mut ledger = TestLedger::start().await;
    // Segments of 300 leaves: the first tile is on disk whole, the second in part.
    grow(&ledger.node, 9 * 45, 0).await;
    for n in 0..40 {
        ledger.put(&format!("more/{n}"), SECRET).await;
    }
    // A restart leaves in memory only what is not sealed.
    ledger.restart().await;
    let server = TestServer::over(&ledger.node, ANY).await;
    let size = ledger.node.applied_size();
    ledger.node.publish(size).await.unwrap();
    let leaf_hashes = ledger.options.data_dir.join("tree/L0");
    let on_disk = std::fs::metadata(&leaf_hashes).unwrap().len();
    assert!(on_disk > 257 * 32 && on_disk < size.get() * 32);
    // A key in its leaf, on disk.
    let log = ledger.options.data_dir.join("log");
    let (segment, at) = std::fs::read_dir(log)
        .unwrap()
        .find_map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(7).position(|key| key == b"0/405/7")?;
            Some((path, at as u64))
        })
        .unwrap();
    flip(&segment, at);
    let reply = server.get("/tile/entries/000").await;
    assert_eq!(reply.status, 500);
    reply.problem(500, "damaged");
    flip(&segment, at);

    let edge = size.get() - 256;
    let partial = format!("/tile/0/001.p/{edge}");
    for (offset, paths) in [
        (
            32 * 7,
            [
                "/tile/0/000",
                "/tile/entries/000",
                "/v1/keys/0%2F405%2F9/receipt",
            ],
        ),
        (
            32 * 256 + 5,
            [
                &*partial,
                "/tile/entries/001.p/1",
                "/v1/keys/more%2F3/receipt",
            ],
        ),
    ] {
        let whole = std::fs::read(&leaf_hashes).unwrap();
        flip(&leaf_hashes, offset);
        let mut served = Vec::new();
        for path in paths {
            let reply = server.get(path).await;
            // The read before may have had the hashes derived again.
            if reply.status == 200 {
                served.push((path, reply.body));
                continue;
            }
            reply.problem(500, "damaged");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        }
        wait_until(|| std::fs::read(&leaf_hashes).unwrap() == whole).await;
        for path in paths {
            let reply = server.get(path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            for (_, before) in served.iter().filter(|(same, _)| *same == path) {
                assert_eq!(*before, reply.body, "{path}");
            }
        }
        // From here on from memory: what was checked once needs no disk.
        flip(&leaf_hashes, offset);
        for path in paths {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
        std::fs::write(&leaf_hashes, &whole).unwrap();
    }
    server.stop().await;
}
