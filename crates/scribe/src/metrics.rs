//! The names of all metrics, and their values as Prometheus text.
//!
//! Values are read when somebody asks: nothing on the write path touches a registry, so measuring costs a write
//! nothing. Names end in their unit; counters in `_total`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::node::Node;

/// Renders every metric of a node.
pub fn render(node: &Node) -> String {
    let mut out = String::with_capacity(4_096);
    let health = node.health();
    let log = node.log_stats();
    let sequencer = node.sequencer_stats();
    let published = node
        .checkpoint()
        .map_or(0, |published| published.size.get());
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    };
    metric(
        "scribe_tree_size_leaves",
        "gauge",
        "Leaves applied on this node",
        node.applied_size().get(),
    );
    metric(
        "scribe_published_size_leaves",
        "gauge",
        "Leaves covered by the newest checkpoint",
        published,
    );
    metric(
        "scribe_raft_term",
        "gauge",
        "Current Raft term",
        health.current_term,
    );
    metric(
        "scribe_raft_is_leader",
        "gauge",
        "1 if this node believes it leads",
        u64::from(health.is_leader),
    );
    metric(
        "scribe_raft_last_log_index",
        "gauge",
        "Last Raft log index in the log",
        health.last_log_index.map_or(0, |index| index.0),
    );
    metric(
        "scribe_raft_last_applied_log_index",
        "gauge",
        "Last Raft log index applied",
        health.last_applied.map_or(0, |index| index.0),
    );
    metric(
        "scribe_ready",
        "gauge",
        "1 if the node should be sent traffic",
        u64::from(node.ready().is_ok()),
    );
    metric(
        "scribe_log_written_bytes_total",
        "counter",
        "Bytes written to the log",
        log.bytes_written,
    );
    metric(
        "scribe_log_frames_total",
        "counter",
        "Frames written to the log",
        log.frames_written,
    );
    metric(
        "scribe_log_syncs_total",
        "counter",
        "Syncs of the log",
        log.syncs,
    );
    metric(
        "scribe_log_sync_microseconds_total",
        "counter",
        "Time spent in syncs of the log",
        log.sync_us_total,
    );
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    metric(
        "scribe_sequencer_frames_total",
        "counter",
        "Frames proposed",
        load(&sequencer.frames),
    );
    metric(
        "scribe_sequencer_leaves_total",
        "counter",
        "Leaves proposed",
        load(&sequencer.leaves),
    );
    metric(
        "scribe_sequencer_rewinds_total",
        "counter",
        "Times proposing started over",
        load(&sequencer.rewinds),
    );
    metric(
        "scribe_sequencer_overloaded_total",
        "counter",
        "Writes not admitted",
        load(&sequencer.overloaded),
    );
    metric(
        "scribe_sequencer_refusals_total",
        "counter",
        "Writes whose condition failed",
        load(&sequencer.refusals),
    );
    metric(
        "scribe_sequencer_replays_total",
        "counter",
        "Outcomes replayed by idempotency key",
        load(&sequencer.replays),
    );
    metric(
        "scribe_sequencer_waiting_bytes",
        "gauge",
        "Bytes of writes admitted and not answered",
        node.admitted_bytes() as u64,
    );
    metric(
        "scribe_sealed_segments",
        "gauge",
        "Sealed segments",
        node.sealed_segments() as u64,
    );
    let scrub = node.scrub_stats();
    metric(
        "scribe_scrub_bytes_total",
        "counter",
        "Bytes of sealed segments re-read and re-hashed",
        load(&scrub.bytes),
    );
    metric(
        "scribe_scrub_damaged_total",
        "counter",
        "Times a sealed segment was found damaged",
        load(&scrub.damaged),
    );
    metric(
        "scribe_scrub_unreadable_total",
        "counter",
        "Times a sealed segment could not be read",
        load(&scrub.unreadable),
    );
    metric(
        "scribe_disk_free_bytes",
        "gauge",
        "Free bytes on the data directory's file system",
        node.free_bytes(),
    );
    metric(
        "scribe_disk_full",
        "gauge",
        "1 while writes are refused for lack of space",
        u64::from(node.disk_full()),
    );
    out
}
