//! The names of all metrics, and their values as Prometheus text.
//!
//! Values are read when somebody asks: nothing on the write path touches a registry, so measuring costs a write
//! nothing. Names end in their unit; counters in `_total`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::node::{Node, OutsideStats};
use crate::peer::{PeerStats, ServerStats};

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
    let mended = node.mend_stats();
    metric(
        "scribe_damaged_segments_total",
        "counter",
        "Sealed segments found damaged or missing",
        load(&mended.segments_damaged),
    );
    metric(
        "scribe_mended_segments_total",
        "counter",
        "Sealed segments put back",
        load(&mended.segments_mended),
    );
    metric(
        "scribe_mended_bytes_total",
        "counter",
        "Bytes of sealed segments put back",
        load(&mended.mended_bytes),
    );
    metric(
        "scribe_mended_tree_segments_total",
        "counter",
        "Segments whose tree hashes were derived again",
        load(&mended.tree_segments_mended),
    );
    metric(
        "scribe_mend_failures_total",
        "counter",
        "Attempts to put a damaged segment back that failed",
        load(&mended.failures),
    );
    metric(
        "scribe_restoring",
        "gauge",
        "1 while this node does not vote because the end of its log was damaged",
        u64::from(node.consensus().restoring().is_some()),
    );
    metric(
        "scribe_votes_withheld_total",
        "counter",
        "Votes this node did not give meanwhile",
        load(node.consensus().votes_withheld()),
    );
    let (mending_done, mending_total) = mended.progress();
    metric(
        "scribe_mending_done_bytes",
        "gauge",
        "Bytes that are back of segments damaged now",
        mending_done,
    );
    metric(
        "scribe_mending_bytes",
        "gauge",
        "Bytes of segments damaged now",
        mending_total,
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
    cluster(&mut out, node);
    outside_witnesses(&mut out, node);
    out
}

/// Outside witnesses. What they cosigned is known to every node that has them configured, the rest to the leader.
fn outside_witnesses(out: &mut String, node: &Node) {
    type Read = fn(&OutsideStats) -> u64;
    let families: [(&str, &str, &str, Read); 5] = [
        (
            "scribe_outside_witness_cosigned_size_leaves",
            "gauge",
            "Largest tree size that a witness cosigned",
            |stats| stats.cosigned_size.load(Ordering::Relaxed),
        ),
        (
            "scribe_outside_witness_cosigned_timestamp_seconds",
            "gauge",
            "When it cosigned that, by its own clock",
            |stats| stats.cosigned_at_s.load(Ordering::Relaxed),
        ),
        (
            "scribe_outside_witness_failures_total",
            "counter",
            "Submissions that brought no cosignature",
            |stats| stats.failures.load(Ordering::Relaxed),
        ),
        (
            "scribe_outside_witness_forks_total",
            "counter",
            "Submissions refused because the witness holds another history of this ledger",
            |stats| stats.forks.load(Ordering::Relaxed),
        ),
        (
            "scribe_outside_witness_failing",
            "gauge",
            "1 if the last submission brought no cosignature",
            |stats| u64::from(stats.failing.load(Ordering::Relaxed)),
        ),
    ];
    for (name, kind, help, read) in families {
        let values = node
            .outside_witnesses()
            .map(|(witness, stats)| (label(witness), read(stats)));
        family(out, name, kind, help, "witness", values);
    }
}

/// Who belongs to the cluster, and the connections between its nodes.
fn cluster(out: &mut String, node: &Node) {
    let consensus = node.consensus();
    let own = consensus.node_id();
    let members = consensus.members();
    let voters = members.iter().filter(|member| member.voter).count();
    let is_voter = members
        .iter()
        .any(|member| member.node_id == own && member.voter);
    let is_member = members.iter().any(|member| member.node_id == own);
    let (fetched, to_fetch) = consensus.catch_up().bytes();
    for (name, help, value) in [
        (
            "scribe_cluster_members",
            "Members this node knows of, itself among them",
            members.len() as u64,
        ),
        (
            "scribe_cluster_voters",
            "Voters this node knows of, itself among them",
            voters as u64,
        ),
        (
            "scribe_cluster_is_member",
            "1 if this node is a member",
            u64::from(is_member),
        ),
        (
            "scribe_cluster_is_voter",
            "1 if this node is a voter",
            u64::from(is_voter),
        ),
        (
            "scribe_catch_up_fetched_bytes",
            "Bytes of segments fetched in the current or last transfer",
            fetched,
        ),
        (
            "scribe_catch_up_bytes",
            "Bytes of segments to fetch in the current or last transfer",
            to_fetch,
        ),
    ] {
        family(out, name, "gauge", help, "", [("", value)]);
    }
    let matched = members
        .iter()
        .filter(|member| member.node_id != own)
        .filter_map(|member| Some((member.node_id, member.matched?.0)));
    family(
        out,
        "scribe_peer_matched_log_index",
        "gauge",
        "Last log index a peer is known to have; on the leader alone",
        "peer",
        matched,
    );
    calls(out, &consensus.peer_stats());
    if let Some(stats) = node.peer_server_stats() {
        answers(out, &stats);
    }
}

/// Connections this node opens to each of its peers.
fn calls(out: &mut String, peers: &[PeerStats]) {
    type Read = fn(&PeerStats) -> u64;
    let families: [(&str, &str, &str, Read); 7] = [
        (
            "scribe_peer_connections_opened_total",
            "counter",
            "Connections ever opened to a peer",
            |peer| peer.connections_opened,
        ),
        (
            "scribe_peer_connections_open",
            "gauge",
            "Connections to a peer that stand now",
            |peer| peer.connections_open,
        ),
        (
            "scribe_peer_calls_total",
            "counter",
            "Calls to a peer",
            |peer| peer.calls,
        ),
        (
            "scribe_peer_call_failures_total",
            "counter",
            "Calls to a peer that got no answer",
            |peer| peer.failures,
        ),
        (
            "scribe_peer_sent_bytes_total",
            "counter",
            "Bytes sent to a peer, before encryption",
            |peer| peer.bytes_sent,
        ),
        (
            "scribe_peer_received_bytes_total",
            "counter",
            "Bytes received from a peer, after decryption",
            |peer| peer.bytes_received,
        ),
        (
            "scribe_peer_last_call_microseconds",
            "gauge",
            "How long the last answered call to a peer took",
            |peer| peer.last_rtt_us,
        ),
    ];
    for (name, kind, help, read) in families {
        let values = peers.iter().map(|peer| (peer.target, read(peer)));
        family(out, name, kind, help, "peer", values);
    }
}

/// Connections other nodes open to this one.
fn answers(out: &mut String, stats: &ServerStats) {
    for (name, kind, help, value) in [
        (
            "scribe_peer_server_connections_accepted_total",
            "counter",
            "Connections accepted from other nodes",
            stats.accepted,
        ),
        (
            "scribe_peer_server_connections_open",
            "gauge",
            "Connections from other nodes that stand now",
            stats.open,
        ),
        (
            "scribe_peer_server_handshaking",
            "gauge",
            "Connections that have not said who they are yet",
            stats.handshaking,
        ),
        (
            "scribe_peer_server_requests_total",
            "counter",
            "Requests of other nodes",
            stats.requests,
        ),
        (
            "scribe_peer_server_displaced_total",
            "counter",
            "Connections closed to make room for newer ones",
            stats.displaced,
        ),
        (
            "scribe_peer_server_received_bytes_total",
            "counter",
            "Bytes received on connections from other nodes",
            stats.bytes_received,
        ),
        (
            "scribe_peer_server_sent_bytes_total",
            "counter",
            "Bytes sent on connections from other nodes",
            stats.bytes_sent,
        ),
    ] {
        family(out, name, kind, help, "", [("", value)]);
    }
    let refused = stats
        .refused
        .iter()
        .map(|(code, count)| (code.name(), *count));
    family(
        out,
        "scribe_peer_server_refused_total",
        "counter",
        "Connections refused, by reason",
        "reason",
        refused,
    );
}

/// A label's value, escaped.
pub(crate) fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// One metric with a value for each value of a label, or without a label if that has no name. Nothing at all if there
/// are no values.
fn family<T: std::fmt::Display>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (T, u64)>,
) {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (which, value) in values {
        let _ = match label {
            "" => writeln!(out, "{name} {value}"),
            label => writeln!(out, "{name}{{{label}=\"{which}\"}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_line_under_one_head() {
        let peer = |target, calls| PeerStats {
            target,
            connections_opened: 1,
            connections_open: 1,
            calls,
            failures: 0,
            bytes_sent: 0,
            bytes_received: 0,
            last_rtt_us: 0,
        };
        let mut out = String::new();
        calls(&mut out, &[peer(2, 7), peer(3, 9)]);
        assert!(out.contains(
            "# HELP scribe_peer_calls_total Calls to a peer\n# TYPE scribe_peer_calls_total counter\n\
             scribe_peer_calls_total{peer=\"2\"} 7\nscribe_peer_calls_total{peer=\"3\"} 9\n"
        ));
        let mut none = String::new();
        calls(&mut none, &[]);
        assert_eq!(none, "");
    }
}
