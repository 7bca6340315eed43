//! Nodes as child processes: each is this program again, `scribe serve`, with what it says passed on under its number.
//!
//! A child watches its standard input and stops in order when that is closed, which is what happens when this process
//! goes away in whatever way. It is in a process group of its own, so that Ctrl-C in a terminal reaches this process
//! alone, which then stops all of them.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::output::{Failure, say};
use crate::consensus::NodeId;

/// A child that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: NodeId,
    pub(super) status: std::io::Result<ExitStatus>,
}

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    id: NodeId,
    pid: u32,
    child: Arc<Mutex<Child>>,
    /// Closing it stops the node.
    stdin: Option<ChildStdin>,
}

impl Node {
    /// Starts `scribe serve` with these flags; `ended` hears when it ends.
    pub(super) fn start(
        id: NodeId,
        flags: &[String],
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Result<Node, Failure> {
        let cannot = |error| Failure::unexpected(format!("cannot start node {id}: {error}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--stop-with-stdin")
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        let (pid, stdin, stderr) = (child.id(), child.stdin.take(), child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let watched = Arc::clone(&child);
        std::thread::Builder::new()
            .name(format!("node-{id}"))
            .spawn(move || {
                if let Some(stderr) = stderr {
                    pass_on(id, stderr);
                }
                // Its stderr is closed, so it has ended or is about to: this wait is short, and nobody waits for the
                // lock for long.
                let status = watched.lock().wait();
                // Nobody listens any more when this process ends first.
                let _ = ended.send(Ended { id, status });
            })
            .map_err(cannot)?;
        Ok(Node {
            id,
            pid,
            child,
            stdin,
        })
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to stop in order.
    pub(super) fn stop(&mut self) {
        drop(self.stdin.take());
    }

    /// Ends it at once. A child that has ended already is left alone.
    pub(super) fn kill(&self) {
        let _ = self.child.lock().kill();
    }
}

/// Prints what a node says, line by line, until it says no more.
fn pass_on(id: NodeId, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => say(format_args!(
                "[{id}] {}",
                String::from_utf8_lossy(&line).trim_end()
            )),
        }
    }
}

/// How a process ended, in words.
pub(super) fn how(status: &std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("cannot be waited for: {error}"),
    }
}
