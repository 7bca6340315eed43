//! The machine the nodes run on: its programs, a directory of this run's own, and what earlier runs left behind.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::trouble::{Result, Trouble, harness, violation};

/// Directories, namespaces and mounts of a run begin so, followed by the id of its process.
pub const PREFIX: &str = "scribe-torture";
/// Marks a directory that is left on purpose.
const KEPT: &str = "kept";
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a program to its end; its stdout, or what it said if it failed.
pub fn run(words: &[&str], input: &str) -> std::result::Result<String, String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    finish(command, input)
}

/// Runs a command to its end; its stdout, or what it said if it failed.
pub fn finish(mut command: Command, input: &str) -> std::result::Result<String, String> {
    let name = format!("{command:?}");
    let failed = |why: String| format!("{name}: {why}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that fails early does not read: its exit code says more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// Runs a program that has to succeed for the harness to go on.
pub fn must(words: &[&str]) -> Result<String> {
    run(words, "").map_err(Trouble::Harness)
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or("(not UTF-8)")
}

/// Waits until `such` holds and says how long it took.
///
/// # Errors
/// A violation if it does not hold within this time: what the nodes owe and do not do.
pub async fn until(
    what: &str,
    within: Duration,
    mut such: impl AsyncFnMut() -> bool,
) -> Result<Duration> {
    let began = Instant::now();
    while !such().await {
        if began.elapsed() > within {
            return violation(format!("{what}: not within {within:?}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

/// A directory of this run, with everything in it: images, mounts, what the nodes said.
#[derive(Debug)]
pub struct Workshop {
    path: PathBuf,
    keep: bool,
}

impl Workshop {
    /// Makes it below `parent`, after what dead runs left there was cleared away.
    pub fn new(parent: &Path) -> Result<Workshop> {
        sweep(parent);
        let path = parent.join(format!("{PREFIX}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| {
            Trouble::Harness(format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(Workshop { path, keep: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it there for somebody to look at, also when the next run clears up.
    pub fn keep(&mut self) {
        self.keep = true;
        let _ = std::fs::write(self.path.join(KEPT), "");
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        unmount_below(&self.path);
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The mounts below a directory, innermost first.
fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(directory));
    for at in below.collect::<Vec<_>>().into_iter().rev() {
        let _ = run(&["umount", "-l", at], "");
    }
}

/// Clears away mounts and directories of runs whose process is gone, but no directory that was left on purpose.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'));
        if owner.is_some_and(is_dead) {
            unmount_below(&entry.path());
            if !entry.path().join(KEPT).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Whether no process has this id.
pub fn is_dead(pid: &str) -> bool {
    !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && !Path::new("/proc").join(pid).exists()
}

/// Where a program is, if it is anywhere in PATH.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// A shared library that Debian's packages put into one of these places.
pub fn library(name: &str) -> Result<PathBuf> {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let places = [
        format!("/usr/lib/{machine}/{name}"),
        format!("/usr/lib/{machine}/faketime/{name}"),
        format!("/usr/lib/{name}"),
        format!("/usr/lib/faketime/{name}"),
        format!("/usr/lib64/{name}"),
    ];
    match places.iter().map(PathBuf::from).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => harness(format!("{name} is not installed: looked for {places:?}")),
    }
}
