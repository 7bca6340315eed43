//! One node: its place in the network, its disk, and its process while that runs.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use scribe_client::{Client, RetryPolicy};

use crate::disk::Disk;
use crate::host::until;
use crate::network::{HTTP_PORT, Network};
use crate::trouble::{Result, Trouble, harness, violation};

/// How long the threads of a stopped process may take to stand still.
const STAND_STILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A node at its place. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    pub place: u64,
    /// Its id in the cluster; 0 until a node that joins has been told.
    pub id: u64,
    pub disk: Disk,
    /// Beyond what every node is started with.
    pub environment: Vec<(String, String)>,
    pub flags: Vec<String>,
    /// Whether its disk was full since it was started: it may have met that already, and end when there is room again.
    pub was_full: bool,
    said: PathBuf,
    /// How much of what it said was looked at: see [`Node::said_since_start`].
    looked_at: u64,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// A node that is not started. What it says goes to a file off its disk.
    pub fn new(place: u64, id: u64, disk: Disk, directory: &Path) -> Node {
        Node {
            place,
            id,
            disk,
            environment: Vec::new(),
            flags: Vec::new(),
            was_full: false,
            said: directory.join(format!("place-{place}.said")),
            looked_at: 0,
            child: None,
            paused: false,
        }
    }

    pub fn url(network: &Network, place: u64) -> String {
        format!("http://{}", network.http_addr(place))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    pub fn key_dir(&self) -> PathBuf {
        self.disk.path().join("keys")
    }

    /// Starts it with these flags beyond its own.
    pub fn start(&mut self, network: &Network, binary: &Path, more: &[&str]) -> Result<()> {
        if self.child.is_some() {
            return harness(format!("node {} runs already", self.place));
        }
        let said = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.said)?;
        self.looked_at = said.metadata()?.len();
        self.was_full = false;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCRIBE_")) {
            command.env_remove(name);
        }
        command
            .current_dir(self.disk.path())
            // It stops when its input is closed, which a run that dies cannot forget.
            .args(["serve", "--stop-with-stdin"])
            .args(["--data-dir", "data", "--key-dir", "keys"])
            .args(["--raft-addr", &network.raft_addr(self.place)])
            // Everywhere, because the cluster is changed from a member's own loopback address alone.
            .args(["--http-addr", &format!("0.0.0.0:{HTTP_PORT}"), "--insecure"])
            .args(["--http-advertise-addr", &network.http_addr(self.place)])
            .args(&self.flags)
            .args(more)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said);
        self.child = Some(network.spawn(self.place, command)?);
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> Result<u32> {
        match &self.child {
            Some(child) => Ok(child.id()),
            None => harness(format!("node {} does not run", self.place)),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid()? as i32;
        let pid = Pid::from_raw(pid).ok_or(Trouble::Harness("a process has no id".into()))?;
        Ok(kill_process(pid, signal).map_err(std::io::Error::from)?)
    }

    /// `kill -9`, without waiting for the process to be gone.
    pub fn kill_now(&mut self) -> Result<()> {
        match self.child.is_some() {
            true => self.signal(Signal::KILL),
            false => Ok(()),
        }
    }

    /// `kill -9`. The process is gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            self.paused = false;
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has ended in order.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait(STOP_PATIENCE, "ends after SIGTERM").await?;
        match status.success() {
            true => Ok(()),
            false => violation(format!(
                "node {} answered SIGTERM with {status}: {}",
                self.place,
                self.last_words()
            )),
        }
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self, within: Duration, what: &str) -> Result<ExitStatus> {
        let mut status = None;
        until(&format!("node {} {what}", self.place), within, async || {
            status = self.ended().ok().flatten();
            status.is_some()
        })
        .await?;
        status.ok_or(Trouble::Harness("a process ended without a status".into()))
    }

    /// How it ended, if it has since the last time.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Whether it has said, in this life, that a disk is full.
    pub fn names_a_full_disk(&self) -> bool {
        let said = self.said_since_start();
        said.contains("No space left on device") || said.contains("os error 28")
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    /// Waits after [`Node::pause`] until none of its threads runs: each is stopped, or inside a call that it will be
    /// stopped behind.
    pub fn stands_still(&self) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.pid()?);
        let until = Instant::now() + STAND_STILL_PATIENCE;
        loop {
            let mut still = true;
            for task in std::fs::read_dir(&tasks)? {
                // A thread that has just ended has no state.
                let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
                let state = stat
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                still &= matches!(state, None | Some('T' | 't' | 'D' | 'Z' | 'X'));
            }
            if still {
                return Ok(());
            }
            if Instant::now() > until {
                return harness(format!("node {} did not stand still", self.place));
            }
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// The state that the kernel says its process is in: `T` if it is stopped.
    pub fn kernel_state(&self) -> Result<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.ok_or(Trouble::Harness(format!(
            "unexpected /proc/PID/stat: {stat}"
        )))
    }

    /// What it said since it was last started.
    pub fn said_since_start(&self) -> String {
        let said = std::fs::read(&self.said).unwrap_or_default();
        let from = said.len().min(self.looked_at as usize);
        String::from_utf8_lossy(&said[from..]).into_owned()
    }

    /// The last lines of that, for people.
    pub fn last_words(&self) -> String {
        let said = self.said_since_start();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }

    /// A client that asks this node alone, and once.
    pub fn client(&self, network: &Network) -> Result<Client> {
        client(&Node::url(network, self.place), Duration::from_secs(12))
    }
}

/// A client of one node that asks once and waits no longer than this.
pub fn client(url: &str, attempt_timeout: Duration) -> Result<Client> {
    let retry = RetryPolicy {
        deadline: Duration::ZERO,
        attempt_timeout,
    };
    let client = Client::builder(url).retry(retry).build();
    client.map_err(|error| Trouble::Harness(error.to_string()))
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
