//! `scribe cluster status`: every member, and how it is.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use scribe_client::wire::{Cluster, Member};

use super::super::ClientArgs;
use super::super::output::{Failure, print_raw, say};

/// Pause between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// Digits of a root hash that are shown to people.
const ROOT_DIGITS: usize = 16;

/// Show the members of a cluster and how they are
///
/// The node that is asked asks the others, each for a second. APPLIED is the log index a member has applied, LAG how
/// many log entries the leader has and it has not applied. Members with the same SIZE must show the same ROOT: exit 3
/// if they do not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: follow a node that catches up
  $ scribe cluster status --watch

Example: who leads?
  $ scribe cluster status --output json | jq .leader")]
pub struct Arguments {
    /// Show it again each second, until you stop it
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or members hold different ledgers (exit 3).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    let output = arguments.client.output();
    let clear = arguments.watch && !output.is_json() && std::io::stdout().is_terminal();
    loop {
        let cluster = client.cluster().await?;
        if clear {
            print_raw(CLEAR.as_bytes())?;
        }
        output.print(show(&cluster), &cluster)?;
        if !output.is_json() {
            for remark in remarks(&cluster) {
                say(remark);
            }
        }
        if let Some((left, right)) = diverged(&cluster.members) {
            return Err(Failure::verification(format!(
                "nodes {left} and {right} have the same tree size and different roots: one of them is damaged"
            ))
            .hint("stop the one whose `scribe repair --check` fails, and replace it"));
        }
        if !arguments.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// The table, and how many failures are tolerated.
fn show(cluster: &Cluster) -> String {
    let heads = [
        "NODE",
        "ROLE",
        "STATE",
        "TERM",
        "APPLIED",
        "LAG",
        "SIZE",
        "ROOT",
        "REACHABLE",
        "ADDRESS",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(cluster.members.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 10] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let _ = writeln!(text, "failures tolerated: {}", cluster.failures_tolerated);
    text
}

fn row(member: &Member) -> [String; 10] {
    let number =
        |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let root = member.root.as_ref().map(ToString::to_string);
    let root = root.map_or_else(
        || "-".to_owned(),
        |root| root.chars().take(ROOT_DIGITS).collect(),
    );
    [
        member.node_id.to_string(),
        member.role.clone(),
        member.state.clone().unwrap_or_else(|| "-".to_owned()),
        number(member.term),
        number(member.last_applied),
        number(member.lag),
        number(member.tree_size),
        root,
        if member.reachable { "yes" } else { "no" }.to_owned(),
        format!("http {} raft {}", member.http_addr, member.raft_addr),
    ]
}

/// What a table has no place for.
fn remarks(cluster: &Cluster) -> Vec<String> {
    let mut remarks = Vec::new();
    if cluster.leader.is_none() {
        remarks.push(format!(
            "warning: node {} knows no leader: nothing can be written now",
            cluster.node.node_id
        ));
    }
    for member in &cluster.members {
        let id = member.node_id;
        if let Some(error) = &member.error {
            remarks.push(format!("node {id} does not answer: {error}"));
        }
        if let Some(reason) = &member.not_ready {
            remarks.push(format!("node {id} is not ready: {reason}"));
        }
        if let Some(catch_up) = &member.catch_up {
            let percent = catch_up.done_bytes * 100 / catch_up.total_bytes.max(1);
            remarks.push(format!(
                "node {id} fetches sealed segments: {percent} % of {} bytes",
                catch_up.total_bytes
            ));
        }
        if let Some(mending) = &member.mending {
            let percent = mending.done_bytes * 100 / mending.total_bytes.max(1);
            remarks.push(format!(
                "node {id} mends damaged segments: {percent} % of {} bytes",
                mending.total_bytes
            ));
        }
    }
    if let Some(warning) = &cluster.warning {
        remarks.push(format!("warning: {warning}"));
    }
    remarks
}

/// Two members that hold different ledgers.
fn diverged(members: &[Member]) -> Option<(u64, u64)> {
    members.iter().enumerate().find_map(|(at, left)| {
        let other = members[at + 1..].iter().find(|right| {
            left.tree_size.is_some()
                && left.tree_size == right.tree_size
                && left.root.is_some()
                && right.root.is_some()
                && left.root != right.root
        })?;
        Some((left.node_id, other.node_id))
    })
}

#[cfg(test)]
mod tests {
    use scribe_client::wire::Health;

    use super::*;

    fn member(node_id: u64, tree_size: Option<u64>, root: Option<&str>) -> Member {
        let json = serde_json::json!({
            "node_id": node_id, "role": "voter", "raft_addr": format!("10.0.0.{node_id}:9001"),
            "http_addr": format!("10.0.0.{node_id}:8001"), "reachable": tree_size.is_some(),
            "state": tree_size.map(|_| "follower"), "tree_size": tree_size, "root": root, "last_applied": tree_size,
            "lag": tree_size.map(|_| 0), "term": tree_size.map(|_| 3),
            "error": tree_size.is_none().then_some("connection refused"),
        });
        serde_json::from_value(json).unwrap()
    }

    fn cluster(members: Vec<Member>) -> Cluster {
        Cluster {
            node: Health {
                status: "ok".to_owned(),
                reason: None,
                node_id: 1,
                is_leader: false,
                current_leader: None,
                state: "follower".to_owned(),
                last_log_index: None,
                last_applied: None,
                current_term: 3,
            },
            leader: None,
            members,
            failures_tolerated: 1,
            warning: None,
        }
    }

    #[test]
    fn a_member_that_does_not_answer_is_a_row_of_dashes_and_a_remark() {
        let root = "ab".repeat(32);
        let seen = cluster(vec![
            member(1, Some(12), Some(&root)),
            member(2, None, None),
        ]);
        assert_eq!(
            show(&seen),
            "\
NODE  ROLE   STATE     TERM  APPLIED  LAG  SIZE  ROOT              REACHABLE  ADDRESS
1     voter  follower  3     12       0    12    abababababababab  yes        http 10.0.0.1:8001 raft 10.0.0.1:9001
2     voter  -         -     -        -    -     -                 no         http 10.0.0.2:8001 raft 10.0.0.2:9001
failures tolerated: 1
"
        );
        assert_eq!(
            remarks(&seen),
            [
                "warning: node 1 knows no leader: nothing can be written now",
                "node 2 does not answer: connection refused"
            ]
        );
    }

    #[test]
    fn different_roots_at_one_size_are_found() {
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        let (one, other) = (one.as_str(), other.as_str());
        assert_eq!(
            diverged(&[
                member(1, Some(5), Some(one)),
                member(2, Some(6), Some(other))
            ]),
            None
        );
        assert_eq!(
            diverged(&[member(1, None, None), member(2, None, None)]),
            None
        );
        let members = [
            member(1, Some(5), Some(one)),
            member(2, None, None),
            member(3, Some(5), Some(other)),
        ];
        assert_eq!(diverged(&members), Some((1, 3)));
    }
}
