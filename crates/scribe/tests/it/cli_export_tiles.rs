//! `scribe export --tiles`: the files, what a plain web server makes of them, and everything that is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use scribe_proof::tile::{Tile, parse_bundle};
use scribe_proof::tree::{HashReader as _, MemoryTree};
use scribe_proof::{
    Checkpoint, Leaf, LeafKind, SignedCheckpoint, TreeSize, VerifierKey, commitment, leaf_hash,
};

use crate::cli_node::Served;

/// Fills a node with `count` entries, the last of which is deleted.
fn fill(node: &Served, name: &str, count: usize) {
    let mut lines: String = (0..count - 1)
        .map(|n| format!("{{\"key\":\"{name}/{n}\",\"value\":\"value {n}\",\"metadata\":{{\"n\":\"{n}\"}}}}\n"))
        .collect();
    lines.push_str(&format!("{{\"key\":\"{name}/0\",\"delete\":true}}\n"));
    fs::write(node.path("bulk"), lines).unwrap();
    node.ok(&["import", "bulk", "--format", "bulk"]);
    node.ok(&["put", "last", name, "--wait", "published"]);
}

fn checkpoint_in(directory: &Path) -> Checkpoint {
    let note = fs::read_to_string(directory.join("checkpoint")).unwrap();
    SignedCheckpoint::parse(&note).unwrap().checkpoint().clone()
}

/// Every file below a directory with its bytes and its inode.
fn files(directory: &Path) -> BTreeMap<String, (Vec<u8>, u64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            found.insert(name.to_owned(), (fs::read(&path).unwrap(), inode));
        }
    }
    found
}

/// Derives the tree from the leaves in a directory and compares everything in it that its checkpoint covers. With
/// values, what opens each leaf as well. Returns how many files that is.
fn check(directory: &Path, values: bool) -> usize {
    let checkpoint = checkpoint_in(directory);
    let read = |path: &str| fs::read(directory.join(path)).unwrap_or_else(|_| panic!("{path}"));
    let mut tree = MemoryTree::new();
    let mut covered = 1;
    for index in 0..checkpoint.size.get().div_ceil(256) {
        let tile = Tile::at(0, index, checkpoint.size).unwrap();
        let path = tile.entries_path().unwrap();
        let bundle = read(&path);
        let leaves = parse_bundle(&bundle, tile.width()).unwrap();
        leaves.iter().for_each(|leaf| tree.append(leaf_hash(leaf)));
        covered += 1;
        if values {
            let openings = read(&path.replace("tile/entries/", "openings/"));
            check_openings(&leaves, &openings);
            covered += 1;
        }
    }
    assert_eq!(tree.size(), checkpoint.size);
    assert_eq!(tree.root(), checkpoint.root);
    for tile in Tile::all(checkpoint.size) {
        let mut hashes = Vec::new();
        let (level, start) = (tile.level(), tile.start());
        tree.read(level, start, tile.width().into(), &mut hashes)
            .unwrap();
        let expected: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        assert!(read(&tile.path()) == expected, "{}", tile.path());
        covered += 1;
    }
    covered
}

/// As docs/format-export.md describes it, read without the program's own code.
fn check_openings(leaves: &[&[u8]], mut openings: &[u8]) {
    for leaf in leaves {
        let leaf = Leaf::parse(leaf).unwrap();
        let (length, rest) = openings.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (record, rest) = rest.split_at(length);
        openings = rest;
        if leaf.kind == LeafKind::System {
            assert!(record.is_empty());
            continue;
        }
        let (salt, rest) = record.split_at(16);
        let (metadata_length, rest) = rest.split_at(2);
        let metadata_length = u16::from_be_bytes(metadata_length.try_into().unwrap());
        let (metadata, value) = rest.split_at(metadata_length.into());
        assert_eq!(
            commitment(salt.try_into().unwrap(), metadata, value),
            leaf.commitment
        );
        assert_eq!(leaf.kind == LeafKind::Delete, value.is_empty());
    }
    assert!(openings.is_empty());
}

#[test]
fn a_mirror_grows_with_the_ledger() {
    let node = Served::start();
    fill(&node, "a", 700);
    let vkey = node.ok(&["checkpoint", "--print", "vkey"]);
    let mirror = node.path("mirror");
    let export = ["export", "--tiles", "mirror", "--vkey", vkey.trim()];

    let first = node.json(&export);
    assert_eq!(
        (&first["verified"], &first["values"]),
        (&true.into(), &false.into())
    );
    let size = first["tree_size"].as_u64().unwrap();
    assert_eq!(first["old_tree_size"], 0);
    assert_eq!(TreeSize::new(size), checkpoint_in(&mirror).size);
    let covered = check(&mirror, false);
    let before = files(&mirror);
    assert_eq!(before.len(), covered);
    assert_eq!(first["files_written"], covered as u64 - 1);
    // It is the checkpoint the node shows, byte for byte.
    assert_eq!(
        node.ok(&["checkpoint"]).into_bytes(),
        before["checkpoint"].0
    );

    // Once more: nothing to do, and nothing done.
    let again = node.json(&export);
    assert_eq!(
        (
            again["files_written"].as_u64(),
            again["old_tree_size"].as_u64()
        ),
        (Some(0), Some(size))
    );
    assert_eq!(files(&mirror), before);

    // Values are added to leaves that are there.
    let valued = node.json(&[&export[..], &["--values"]].concat());
    assert_eq!(valued["files_written"], size.div_ceil(256));
    assert_eq!(valued["erased"], 0);
    check(&mirror, true);

    fill(&node, "b", 400);
    let before = files(&mirror);
    let grown = node.json(&[&export[..], &["--values"]].concat());
    assert_eq!(grown["old_tree_size"], size);
    check(&mirror, true);
    let after = files(&mirror);
    for (name, file) in &before {
        if name != "checkpoint" {
            assert_eq!(after.get(name), Some(file), "{name} was written again");
        }
    }
    let written = grown["files_written"].as_u64().unwrap() as usize;
    assert_eq!(after.len(), before.len() + written);

    // Without --values they stay behind, and it says so.
    fill(&node, "c", 10);
    let (code, _, stderr) = node.run(&export);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("openings/ was not brought up to date"),
        "{stderr}"
    );
    check(&mirror, false);
    node.ok(&[&export[..], &["--values"]].concat());
    check(&mirror, true);
}

#[test]
fn an_export_that_was_cut_short_is_run_again() {
    let node = Served::start();
    fill(&node, "a", 1_000);
    let export = ["export", "--tiles", "mirror", "--values"];
    node.ok(&export);
    let mirror = node.path("mirror");
    let whole = files(&mirror);
    let torn = |name: &str, bytes: &[u8]| fs::write(mirror.join(name), bytes).unwrap();
    // What a crash can leave, and what only a bad disk can: no checkpoint, missing files, half ones beside their names,
    // files with other bytes.
    fs::remove_file(mirror.join("checkpoint")).unwrap();
    fs::remove_file(mirror.join("tile/0/001")).unwrap();
    fs::remove_file(mirror.join("tile/entries/002")).unwrap();
    fs::remove_file(mirror.join("openings/001")).unwrap();
    torn(
        "tile/entries/002.partial",
        &whole["tile/entries/002"].0[..100],
    );
    torn("tile/0/000", &[0; 8_192]);
    torn("tile/entries/000", &whole["tile/entries/001"].0);
    torn("tile/entries/001", &[0; 300]);
    torn("openings/000", &whole["openings/001"].0);
    torn("openings/002", &[]);
    let repaired = node.json(&export);
    assert_eq!(repaired["old_tree_size"], 0);
    check(&mirror, true);
    let contents = |files: &BTreeMap<String, (Vec<u8>, u64)>| {
        let contents = files
            .iter()
            .map(|(name, file)| (name.clone(), file.0.clone()));
        contents.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(contents(&files(&mirror)), contents(&whole));
    assert_eq!(repaired["files_written"], 8);
}

#[test]
fn another_ledger_or_another_history_is_refused() {
    let (node, other) = (Served::start(), Served::start());
    fill(&node, "a", 300);
    fill(&other, "a", 400);
    node.ok(&["export", "--tiles", "mirror"]);
    let mirror = node.path("mirror");
    let before = files(&mirror);
    let export = ["export", "--tiles", "mirror"];

    let (code, _, stderr) = node.run(&[&export[..], &["--server", &other.url]].concat());
    assert_eq!(code, 3, "{stderr}");
    for ledger in [&node, &other] {
        let origin = ledger.ok(&["checkpoint", "--print", "origin"]);
        assert!(stderr.contains(origin.trim()), "{stderr}");
    }
    assert_eq!(files(&mirror), before);

    // The wrong key, and a policy nobody can fulfil.
    let vkey = other.ok(&["checkpoint", "--print", "vkey"]);
    let (code, _, stderr) = node.run(&[&export[..], &["--vkey", vkey.trim()]].concat());
    assert_eq!(code, 3, "{stderr}");
    assert_eq!(files(&mirror), before);

    // A checkpoint of this ledger that the newest one does not extend: same size, smaller, larger.
    let good = checkpoint_in(&mirror);
    let note = String::from_utf8(before["checkpoint"].0.clone()).unwrap();
    for (size, root) in [
        (good.size.get(), leaf_hash(b"another")),
        (good.size.get() - 40, leaf_hash(b"another")),
        (good.size.get() - 40, good.root),
        (good.size.get() + 40, leaf_hash(b"another")),
    ] {
        let changed = note
            .replacen(&good.root.to_base64(), &root.to_base64(), 1)
            .replacen(&format!("\n{}\n", good.size), &format!("\n{size}\n"), 1);
        fs::write(mirror.join("checkpoint"), &changed).unwrap();
        let (code, _, stderr) = node.run(&export);
        assert_eq!(code, 3, "{size}: {stderr}");
        let named = stderr.contains(&root.to_hex()) && stderr.contains(&good.root.to_hex());
        // Of a larger tree there are no tiles to compare.
        assert!(named || size > good.size.get(), "{size}: {stderr}");
        assert_eq!(
            fs::read_to_string(mirror.join("checkpoint")).unwrap(),
            changed
        );
    }

    let (code, _, stderr) = node.run(&["export", "--tiles", "scribe-data"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("is a data directory"), "{stderr}");
    let (code, _, stderr) = node.run(&["export"]);
    assert_eq!(code, 1, "{stderr}");
}

#[test]
fn a_stopped_node_is_exported_with_its_keys() {
    let node = Served::start();
    fill(&node, "a", 600);
    node.ok(&["export", "--tiles", "online", "--values"]);
    let dir = node.stop();
    let scribe = |arguments: &[&str]| {
        let output = crate::cli_node::command(dir.path(), arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), stderr)
    };
    let export = [
        "export",
        "--tiles",
        "offline",
        "--values",
        "--data-dir",
        "scribe-data",
    ];
    fs::rename(dir.path().join("scribe-keys"), dir.path().join("away")).unwrap();
    let (code, stderr) = scribe(&export);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("key"), "{stderr}");
    let (code, stderr) = scribe(&[&export[..], &["--key-dir", "away"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let (online, offline) = (dir.path().join("online"), dir.path().join("offline"));
    check(&offline, true);
    let (mut online, mut offline) = (files(&online), files(&offline));
    // Signed again, over the same tree.
    let (a, b) = (online.remove("checkpoint"), offline.remove("checkpoint"));
    let text = |file: Option<(Vec<u8>, u64)>| String::from_utf8(file.unwrap().0).unwrap();
    let (a, b) = (text(a), text(b));
    assert_eq!(a.split("\n\n").next(), b.split("\n\n").next());
    assert!(online.keys().eq(offline.keys()));
    for (name, file) in &online {
        assert_eq!(offline[name].0, file.0, "{name}");
    }
}

/// Serves the files below a directory like any web server; a directory is also what a lying node can be made of.
pub struct StaticServer {
    pub url: String,
}

impl StaticServer {
    pub fn start(directory: PathBuf) -> StaticServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let directory = directory.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &directory));
            }
        });
        StaticServer { url }
    }
}

fn answer(mut stream: TcpStream, directory: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut target = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            target = target.or_else(|| line.split(' ').nth(1).map(str::to_owned));
            if line.trim().is_empty() {
                break;
            }
        }
        let path = directory.join(target.unwrap().trim_start_matches('/'));
        let (status, body) = match fs::read(path) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
            return;
        }
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    for (name, (bytes, _)) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_mirror_is_made_of_a_mirror_and_a_liar_is_named() {
    let node = Served::start();
    fill(&node, "a", 800);
    node.ok(&["export", "--tiles", "old"]);
    fill(&node, "b", 100);
    let vkey = node.ok(&["checkpoint", "--print", "vkey"]);
    node.ok(&["export", "--tiles", "mirror"]);
    let good = StaticServer::start(node.path("mirror"));
    let export = |to: &str, server: &StaticServer| {
        node.run(&[
            "export",
            "--tiles",
            to,
            "--vkey",
            vkey.trim(),
            "--server",
            &server.url,
        ])
    };
    let (code, _, stderr) = export("second", &good);
    assert_eq!(code, 0, "{stderr}");
    check(&node.path("second"), false);

    // An older mirror has nothing to add, and says nothing false.
    let lagging = StaticServer::start(node.path("old"));
    let before = files(&node.path("second"));
    let (code, _, stderr) = export("second", &lagging);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("this node lags"), "{stderr}");
    assert_eq!(files(&node.path("second")), before);

    // Any byte of any file that is wrong is found, and where it is.
    let mirror = files(&node.path("mirror"));
    let size = checkpoint_in(&node.path("mirror")).size;
    let mut lies = 0;
    for tile in Tile::all(size) {
        let paths = [Some(tile.path()), tile.entries_path()];
        for path in paths.into_iter().flatten() {
            let length = mirror[&path].0.len();
            for at in [0, length / 2, length - 1] {
                let liar = tempfile::tempdir_in(node.path(".")).unwrap();
                copy(&node.path("mirror"), liar.path());
                let mut bytes = mirror[&path].0.clone();
                bytes[at] ^= 0x10;
                fs::write(liar.path().join(&path), bytes).unwrap();
                let server = StaticServer::start(liar.path().to_owned());
                let to = liar.path().join("to");
                let (code, _, stderr) = export(to.to_str().unwrap(), &server);
                // A full tile of level 0 is derived from its leaves and asked for only when they do not match.
                let is_unasked = tile.level() == 0 && tile.is_full() && path == tile.path();
                if is_unasked {
                    assert_eq!(code, 0, "{path}: {stderr}");
                    check(&to, false);
                } else {
                    assert_eq!(code, 3, "{path} at {at}: {stderr}");
                    let place = match tile.is_full() || path != tile.path() {
                        true => path.clone(),
                        false => "right edge of the tree".to_owned(),
                    };
                    assert!(stderr.contains(&place), "{path} at {at}: {stderr}");
                    assert!(!to.join("checkpoint").exists());
                    lies += 1;
                }
            }
        }
    }
    assert_eq!(lies, 3 * (size.get().div_ceil(256) as usize + 2));
}

/// Ends with the test.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_plain_web_server_serves_what_the_node_serves() {
    let node = Served::start();
    fill(&node, "a", 600);
    node.ok(&["export", "--tiles", "mirror"]);
    let python = Command::new("python3")
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"])
        .current_dir(node.path("mirror"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut python = match python {
        Ok(child) => Python(child),
        Err(error) => {
            eprintln!("SKIPPED: python3 cannot be started: {error}");
            return;
        }
    };
    let mut line = String::new();
    BufReader::new(python.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port: u16 = line
        .split(' ')
        .skip_while(|word| *word != "port")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let plain = format!("127.0.0.1:{port}");
    let get = |address: &str, path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .unwrap();
        let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
        (status, answer.split_off(head + 4))
    };
    let address = node.url.strip_prefix("http://").unwrap();
    let (status, note) = get(&plain, "checkpoint");
    assert_eq!(status, "200");
    let note = String::from_utf8(note).unwrap();
    let signed = SignedCheckpoint::parse(&note).unwrap();
    let vkey = node.ok(&["checkpoint", "--print", "vkey"]);
    let key = VerifierKey::parse(vkey.trim()).unwrap();
    let checkpoint = signed.verify(&key).unwrap();
    let mut compared = 0;
    for tile in Tile::all(checkpoint.size) {
        for path in [Some(tile.path()), tile.entries_path()]
            .into_iter()
            .flatten()
        {
            let (theirs, ours) = (get(&plain, &path), get(address, &path));
            assert_eq!(theirs.0, "200", "{path}");
            assert_eq!(theirs, ours, "{path}");
            compared += 1;
        }
    }
    assert!(compared >= 7, "{compared}");
    assert_eq!(get(&plain, "tile/0/099").0, "404");

    // What people see who look with curl.
    let curl = Command::new("curl")
        .args(["-sSI", &format!("{}/tile/0/000", node.url)])
        .output();
    match curl {
        Ok(output) => {
            let head = String::from_utf8(output.stdout).unwrap().to_lowercase();
            for line in [
                "http/1.1 200 ok",
                "content-type: application/octet-stream",
                "content-length: 8192",
                "cache-control: public, max-age=31536000, immutable",
                "access-control-allow-origin: *",
                "x-content-type-options: nosniff",
                "etag: \"",
            ] {
                assert!(head.contains(line), "{line} in {head}");
            }
        }
        Err(error) => eprintln!("SKIPPED: curl cannot be started: {error}"),
    }
}
