//! The rules of the source tree that no compiler checks: who may name which library, what the pure part never touches,
//! how long a file may be, and that the documentation can be found and its links lead somewhere.
//!
//! Each rule answers with every place that breaks it, so that one run is enough to mend all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Lines of a source file above which it must be split.
const FILE_LINES_MAX: usize = 900;
/// Directories at any depth that hold nothing written by hand.
const SKIPPED: [&str; 7] = [
    ".git",
    "target",
    "scribe-data",
    "scribe-keys",
    "scribe-cluster",
    "node_modules",
    "snapshots",
];

/// A library, and the places under `crates/scribe/src` that may name it.
struct Fence {
    library: &'static str,
    allowed: &'static [&'static str],
}

const FENCES: [Fence; 9] = [
    Fence {
        library: "openraft",
        allowed: &["consensus/"],
    },
    Fence {
        library: "axum",
        // The load generator's own hello-world server is the yardstick for the API's HTTP stack, so it must be the same.
        allowed: &["http/", "cli/bench/hello.rs"],
    },
    Fence {
        library: "clap",
        allowed: &["cli/"],
    },
    Fence {
        library: "object_store",
        allowed: &["cold/"],
    },
    Fence {
        library: "fjall",
        allowed: &["store/index/"],
    },
    // One module decides what is believed about another node; one shows clients who this node is.
    Fence {
        library: "rustls",
        allowed: &["peer/", "http/tls.rs"],
    },
    Fence {
        library: "tokio_rustls",
        allowed: &["peer/", "http/tls.rs"],
    },
    Fence {
        library: "rcgen",
        allowed: &["peer/"],
    },
    Fence {
        library: "x509_parser",
        allowed: &["peer/", "http/tls.rs"],
    },
];

/// What the pure part never touches: a replica that did could decide differently from another.
const IMPURE: [&str; 9] = [
    "async",
    "await",
    "tokio",
    "rand",
    "std::time",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
];

#[test]
fn libraries_stay_behind_their_fences() {
    let mut broken = Report::new("only these modules may name these libraries (ARCHITECTURE.md)");
    for file in rust_files("crates/scribe/src") {
        for fence in &FENCES {
            if fence
                .allowed
                .iter()
                .any(|place| file.within("crates/scribe/src", place))
            {
                continue;
            }
            for (number, code) in file.code() {
                // The index module for a database may carry the database's name.
                let code = code.replace("index::fjall", "");
                if names(&code, fence.library) {
                    broken.at(
                        &file,
                        number,
                        format!("`{}` outside {:?}", fence.library, fence.allowed),
                    );
                }
            }
        }
    }
    broken.check();
}

#[test]
fn the_ledger_is_pure() {
    let mut broken =
        Report::new("ledger/ decides without a clock, a disk, a socket, chance or waiting");
    let files = rust_files("crates/scribe/src/ledger");
    assert!(!files.is_empty(), "ledger/ has moved: tell this test where");
    for file in &files {
        for (number, code) in file.code() {
            for word in IMPURE {
                if names(&code, word) {
                    broken.at(file, number, format!("`{word}`"));
                }
            }
        }
    }
    broken.check();
}

#[test]
fn the_oracle_is_pure() {
    let mut broken =
        Report::new("scribe-oracle judges without a clock, a disk, a socket, chance or waiting");
    let files = rust_files("crates/scribe-oracle/src");
    assert!(
        !files.is_empty(),
        "the oracle has moved: tell this test where"
    );
    for file in files.iter().filter(|file| !file.is_test()) {
        for (number, code) in file.code() {
            for word in IMPURE {
                if names(&code, word) {
                    broken.at(file, number, format!("`{word}`"));
                }
            }
        }
    }
    broken.check();
}

#[test]
fn only_the_state_machine_asks_the_ledger() {
    let mut broken =
        Report::new("only consensus/state_machine.rs both asks the ledger and writes its effects");
    for file in rust_files("crates/scribe/src") {
        let inside = file.within("crates/scribe/src", "ledger/")
            || file.within("crates/scribe/src", "consensus/state_machine.rs");
        for (number, code) in file.code() {
            if !inside && (code.contains("ledger::apply(") || code.contains("apply::apply(")) {
                broken.at(&file, number, "asks the ledger".to_owned());
            }
        }
    }
    broken.check();
}

#[test]
fn the_arrows_point_one_way() {
    // What each module may never use: arrows in ARCHITECTURE.md, "Direction".
    let rules: [(&str, &[&str]); 6] = [
        (
            "ledger/",
            &[
                "store",
                "consensus",
                "sequencer",
                "publisher",
                "node",
                "http",
                "cli",
                "keys",
                "world",
            ],
        ),
        (
            "store/",
            &[
                "consensus",
                "sequencer",
                "publisher",
                "node",
                "http",
                "cli",
                "keys",
            ],
        ),
        (
            "consensus/",
            &["sequencer", "publisher", "node", "http", "cli", "keys"],
        ),
        (
            "peer/",
            &[
                "ledger",
                "store",
                "consensus",
                "sequencer",
                "publisher",
                "node",
                "http",
                "cli",
                "keys",
            ],
        ),
        ("sequencer/", &["publisher", "node", "http", "cli"]),
        ("http/", &["cli", "store", "consensus"]),
    ];
    let mut broken = Report::new("nothing points back");
    for file in rust_files("crates/scribe/src") {
        let Some((_, never)) = rules
            .iter()
            .find(|(place, _)| file.within("crates/scribe/src", place))
        else {
            continue;
        };
        for (number, code) in file.code() {
            for module in *never {
                if code.contains(&format!("crate::{module}::"))
                    || code.contains(&format!("crate::{module};"))
                {
                    broken.at(&file, number, format!("uses `{module}`"));
                }
            }
        }
    }
    for (package, never) in [
        ("scribe-proof", ["scribe_client", "scribe::"]),
        ("scribe-client", ["scribe::", "openraft"]),
        // What judges the ledger shares no code with it but hashes and tree.
        ("scribe-oracle", ["scribe_client", "scribe::"]),
    ] {
        for file in rust_files(&format!("crates/{package}/src")) {
            for (number, code) in file.code() {
                for name in never {
                    if names(&code, name.trim_end_matches(':')) && code.contains(name) {
                        broken.at(&file, number, format!("uses `{name}`"));
                    }
                }
            }
        }
    }
    broken.check();
}

#[test]
fn time_and_chance_come_through_one_door() {
    // Replaced as a whole in a simulated world; tokio's timers are replaced with them.
    let doors = ["world.rs", "keys/", "cli/", "http/"];
    let mut broken = Report::new(
        "wall clock and randomness come from `world.rs` (keys are made by the system's)",
    );
    for file in rust_files("crates/scribe/src") {
        if file.is_test()
            || doors
                .iter()
                .any(|door| file.within("crates/scribe/src", door))
        {
            continue;
        }
        for (number, code) in file.code() {
            for word in ["SystemTime", "rand"] {
                if names(&code, word) {
                    broken.at(&file, number, format!("`{word}`"));
                }
            }
        }
    }
    broken.check();
}

#[test]
fn the_disk_has_one_door() {
    let mut broken =
        Report::new("store/ reaches files through `Disk` alone (the index database has its own)");
    for file in rust_files("crates/scribe/src/store") {
        if file.is_test() {
            continue;
        }
        let door = ["real_disk.rs", "index/"]
            .iter()
            .any(|door| file.within("crates/scribe/src/store", door));
        for (number, code) in file.code() {
            if !door && (code.contains("std::fs") || code.contains("tokio::fs")) {
                broken.at(&file, number, "opens files by itself".to_owned());
            }
        }
    }
    broken.check();
}

#[test]
fn files_stay_readable() {
    let mut broken = Report::new(&format!(
        "a file has at most {FILE_LINES_MAX} lines: split it along a concept"
    ));
    for file in rust_files(".") {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.at(&file, lines, format!("{lines} lines"));
        }
    }
    broken.check();
}

#[test]
fn nothing_is_left_unfinished() {
    // In two halves, so that this file does not find itself.
    let macros = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
    ];
    let mut broken = Report::new("no unfinished code, no debugging output");
    for file in rust_files(".") {
        for (number, code) in file.code() {
            for name in macros {
                if code.contains(name) {
                    broken.at(&file, number, format!("`{name}…)`"));
                }
            }
        }
    }
    broken.check();
}

#[test]
fn only_the_command_line_prints() {
    let macros = ["print!(", "println!(", "eprint!(", "eprintln!("];
    let mut broken = Report::new(
        "libraries do not print: data goes through cli/output.rs, talk through tracing",
    );
    for package in ["scribe-proof", "scribe-client", "scribe-oracle", "scribe"] {
        let source = format!("crates/{package}/src");
        for file in rust_files(&source) {
            if file.within(&source, "cli/") || file.is_test() {
                continue;
            }
            for (number, code) in file.code() {
                if macros.iter().any(|name| code.contains(name)) {
                    broken.at(&file, number, "prints".to_owned());
                }
            }
        }
    }
    broken.check();
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let paths = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let mut broken = Report::new("no absolute path of somebody's machine");
    for path in tracked(&root(), &|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        ["rs", "toml", "md", "yml", "yaml", "sh", "json", "txt"].contains(&&*extension)
            || ["justfile", "run", "readme-walk", ".gitignore"].contains(&&*name)
    }) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let file = SourceFile { path, text };
        for (number, line) in file.text.lines().enumerate() {
            if paths.iter().any(|path| line.contains(path)) {
                broken.at(&file, number + 1, line.trim().to_owned());
            }
        }
    }
    broken.check();
}

#[test]
fn documents_can_be_found_and_links_lead_somewhere() {
    let mut broken = Report::new(
        "each document is linked from README.md or ARCHITECTURE.md, and each link resolves",
    );
    let root = root();
    let mut linked = BTreeSet::new();
    let documents = tracked(&root, &|path| {
        path.extension().is_some_and(|extension| extension == "md")
    });
    for path in &documents {
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        let entry = ["README.md", "ARCHITECTURE.md"]
            .iter()
            .any(|name| *path == root.join(name));
        let file = SourceFile {
            path: path.clone(),
            text,
        };
        for (number, target) in links(&file.text) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let found = normalized(&path.parent().unwrap_or(&root).join(target));
            if !found.exists() {
                broken.at(
                    &file,
                    number,
                    format!("links to `{target}`, which does not exist"),
                );
            }
            if entry {
                linked.insert(found);
            }
        }
    }
    for path in documents
        .iter()
        .filter(|path| path.starts_with(root.join("docs")))
    {
        if !linked.contains(path) {
            let file = SourceFile {
                path: path.clone(),
                text: String::new(),
            };
            broken.at(
                &file,
                1,
                "is linked from neither README.md nor ARCHITECTURE.md".to_owned(),
            );
        }
    }
    broken.check();
}

#[test]
fn the_readme_and_ci_run_the_same_tests() {
    let root = root();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
    let command = "cargo test --workspace";
    assert!(
        readme.contains(&format!("```sh\n{command}\n```")),
        "README.md no longer says `{command}`"
    );
    assert!(
        ci.lines().any(|line| line.trim() == command),
        ".ci/run no longer runs `{command}`"
    );
}

#[test]
fn a_name_is_a_whole_word() {
    assert!(names("use openraft::Raft;", "openraft"));
    assert!(names("async fn run()", "async"));
    assert!(names("pub(crate) async", "async"));
    assert!(!names("let brand = 1;", "rand"));
    assert!(!names("asynchronous(x)", "async"));
    assert!(!names("rand_like()", "rand"));
    let file = SourceFile {
        path: PathBuf::new(),
        text: "//! says rand\nlet a = 1; // rand\n/// tokio\nlet url = \"http://rand\";\n"
            .to_owned(),
    };
    let code: Vec<_> = file.code().collect();
    assert_eq!(
        code,
        [
            (2, "let a = 1;".to_owned()),
            (4, "let url = \"http://rand\";".to_owned())
        ]
    );
    let found: Vec<_> =
        links("see [a](b.md#c) and [d](https://e)\n```\n[no](link)\n```\n").collect();
    assert_eq!(
        found,
        [(1, "b.md#c".to_owned()), (1, "https://e".to_owned())]
    );
}

struct SourceFile {
    path: PathBuf,
    text: String,
}

impl SourceFile {
    /// Whether it is at or below `place` (a file, or a directory with a slash at its end) of `base`. A module that is
    /// one file (`sequencer.rs`) counts as its directory.
    fn within(&self, base: &str, place: &str) -> bool {
        let base = root().join(base);
        match place.strip_suffix('/') {
            Some(directory) => {
                self.path.starts_with(base.join(directory))
                    || self.path == base.join(format!("{directory}.rs"))
            }
            None => self.path == base.join(place),
        }
    }

    /// Whether it is a module of unit tests: those may open files, draw numbers and print.
    fn is_test(&self) -> bool {
        let names = |name: &std::ffi::OsStr| {
            name == "tests.rs" || name.to_string_lossy().ends_with("tests")
        };
        self.path.iter().any(names)
    }

    /// Numbered lines without comments. Not a parser: a `//` after a space ends a line, block comments are not used.
    fn code(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        self.text.lines().enumerate().filter_map(|(number, line)| {
            let line = line.trim();
            if line.starts_with("//") {
                return None;
            }
            let code = line.split(" // ").next().unwrap_or_default().trim_end();
            (!code.is_empty()).then(|| (number + 1, code.to_owned()))
        })
    }
}

/// Collects what breaks one rule.
struct Report {
    rule: String,
    places: String,
}

impl Report {
    fn new(rule: &str) -> Self {
        Self {
            rule: rule.to_owned(),
            places: String::new(),
        }
    }

    fn at(&mut self, file: &SourceFile, line: usize, what: String) {
        let path = file.path.strip_prefix(root()).unwrap_or(&file.path);
        writeln!(self.places, "  {}:{line}: {what}", path.display()).unwrap();
    }

    fn check(self) {
        assert!(
            self.places.is_empty(),
            "\nthe rule: {}\n{}",
            self.rule,
            self.places
        );
    }
}

fn root() -> PathBuf {
    normalized(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

/// The path without `.` and `..`, without asking the disk.
fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

fn rust_files(below: &str) -> Vec<SourceFile> {
    tracked(&normalized(&root().join(below)), &|path| {
        path.extension().is_some_and(|extension| extension == "rs")
    })
    .into_iter()
    .map(|path| SourceFile {
        text: fs::read_to_string(&path).unwrap(),
        path,
    })
    .collect()
}

/// Files below a directory that somebody wrote, in a stable order.
fn tracked(directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let name = entry.file_name();
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                directories.push(entry.path());
            } else if kind.is_file() && wanted(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Whether `word` stands in `code` as a word of its own.
fn names(code: &str, word: &str) -> bool {
    let part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, found)| {
        let before = code[..start].chars().next_back();
        let after = code[start + found.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

/// Targets of inline links outside code blocks, with their lines.
fn links(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut fenced = false;
    text.lines().enumerate().flat_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return Vec::new();
        }
        if fenced {
            return Vec::new();
        }
        line.match_indices("](")
            .filter_map(|(start, _)| {
                let rest = &line[start + 2..];
                rest.split_once(')')
                    .map(|(target, _)| (number + 1, target.to_owned()))
            })
            .collect()
    })
}
