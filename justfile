# Recipes for people. Checks live in .ci/run, which CI calls too, so the two cannot differ.

# List the recipes
default:
    @just --list

# Start a node with ./scribe-data and ./scribe-keys on 127.0.0.1:8001
run *arguments:
    cargo run --release -- {{arguments}}

# Everything a change must pass; changes nothing
check: ci

# What CI runs: fmt, clippy, doc, wasm, deny, walk, interop, test
ci *steps:
    .ci/run {{steps}}

# Format, and apply what clippy can fix by itself
fix:
    cargo fmt --all
    cargo clippy --fix --workspace --all-targets --allow-dirty --allow-staged

# Tests, or those whose name contains the filter
test *filter:
    cargo test --workspace {{filter}}

# The rules of the source tree only, in seconds
tidy:
    cargo test -p scribe --test it tidy

# Benches of the parts; `scribe bench` measures a whole server
bench *arguments:
    cargo bench --workspace {{arguments}}

# The same load on etcd and on scribe, and what HTTP and the disk allow; see --help
peers *arguments:
    benches/peers/compare {{arguments}}

# The leader killed many times under load, rolling restarts, the pool: real processes of a release build, with figures
failover rounds="50":
    cargo build --release
    SCRIBE_BIN="$PWD/target/release/scribe" SCRIBE_FAILOVER_ROUNDS={{rounds}} SCRIBE_ROLLING_CYCLES=3 \
      SCRIBE_POOL_WRITES=100000 cargo test -p scribe --test it cluster_process -- --nocapture --test-threads 1

# Ten million forged proofs, tiles, notes, policies and receipts against the verifier, in a release build
forge cases="10000000" seed="random":
    SCRIBE_FORGE_CASES={{cases}} SCRIBE_FORGE_SEED={{seed}} \
      cargo test --release -p scribe-proof --test forge -- --nocapture

# Change the verifier in every small way: some test must notice (cargo install cargo-mutants; hours)
mutants *arguments:
    SCRIBE_FORGE_CASES=20000 PROPTEST_CASES=32 cargo mutants --package scribe-proof --jobs 1 {{arguments}}

# Fuzz a parser for some seconds, or all of them; the corpora are also plain tests
fuzz target="all" seconds="600":
    scripts/fuzz {{target}} {{seconds}}

# 10,000 bytes of a data directory and of a tile export flipped, each audited; what is not noticed is listed
audit-flips flips="10000":
    SCRIBE_AUDIT_FLIPS={{flips}} cargo test -p scribe --test it audit_flips -- --nocapture

# Whole clusters in a simulated world, each from one seed: faults, then none, and a judge (docs/simulation.md)
sim *arguments="--seeds 1000":
    cd sim && cargo build --locked && target/debug/scribe-sim {{arguments}}

# The bugs put in on purpose, woken one by one in the simulated world: each must be found
planted *arguments="--seeds 60 --jobs 2":
    cd sim && CARGO_TARGET_DIR=target/planted cargo run --locked --features planted-bugs -- planted {{arguments}}

# The real binary under kills, power cuts, partitions, full and failing disks, damage (root; torture/README.md)
torture *arguments="run --lane short":
    cargo build --release -p scribe -p scribe-torture
    target/release/scribe-torture {{arguments}} --bin target/release/scribe

# Documentation of the three crates, opened in a browser
docs:
    cargo doc --workspace --no-deps --open

# Build the verifier for WebAssembly
wasm:
    .ci/run wasm

# The web page that verifies receipts, as one file: target/page/verify.html
page *arguments:
    web/build-page {{arguments}}

# A ledger of three nodes before other people's verifiers (Go, npm, Python) and the page in a real browser
interop *arguments:
    interop/run {{arguments}}

# Licences, advisories, bans and sources of all dependencies
deny:
    .ci/run deny

# Type the README's commands and check what they do (release binary)
walk:
    scripts/readme-walk

# A log and a witness that are not ours (siglog, from the Rust registry) with ours; installs it, which takes a while
siglog *arguments:
    interop/siglog/run {{arguments}}

# Remove the ledger that `just run` made, and its keys. There is no way back
[confirm("Delete ./scribe-data and ./scribe-keys for ever?")]
forget:
    rm -rf scribe-data scribe-keys
