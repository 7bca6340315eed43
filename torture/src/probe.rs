//! Whether each fault really happens here, found out by trying it on something small. What cannot be injected must not
//! look like something that was survived.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::disk::{Disk, Power};
use crate::host::{finish, library, text, which};
use crate::phases::Kind;
use crate::phases::clock;
use crate::phases::sync_error::fail_sync;
use crate::trouble::Result;

/// Makes every sync of a process do nothing.
pub const NO_SYNC_LIBRARY: &str = "libeatmydata.so";

/// A Python program that syncs a file and says so.
const SYNCS: &str = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n\
                     os.write(fd, b'x')\nos.fdatasync(fd)\nos.fsync(fd)\nprint('synced')";

/// What keeps this fault from being injected here.
pub fn missing(kind: Kind, workshop: &Path) -> Option<String> {
    let tried = match kind {
        // These need nothing but signals and the binary; each pause is seen in /proc.
        Kind::Kill | Kind::Pause | Kind::Rolling | Kind::Churn | Kind::Flip | Kind::Helical => {
            Ok(())
        }
        // Counted packets: each partition is seen to drop some. That there is a network at all was seen before.
        Kind::Partition => program("nft"),
        // Packets seen to overtake each other.
        Kind::Slow => program("python3"),
        Kind::PowerCut | Kind::PowerCutOne => power(workshop),
        Kind::DiskFull => full(workshop),
        Kind::SyncError => sync_error(workshop),
        Kind::Clock => wall_clock(workshop),
    };
    tried.err()
}

fn program(name: &str) -> std::result::Result<(), String> {
    which(name)
        .map(|_| ())
        .ok_or_else(|| format!("{name} is not installed"))
}

fn on_a_disk(
    workshop: &Path,
    name: &str,
    what: impl FnOnce(&mut Disk) -> Result<std::result::Result<(), String>>,
) -> std::result::Result<(), String> {
    let tried = || {
        let mut disk = Disk::new(workshop, name, 64)?;
        disk.throw_away();
        what(&mut disk)
    };
    tried().unwrap_or_else(|trouble| Err(trouble.to_string()))
}

/// A cut keeps what was synced and loses what was not.
fn power(workshop: &Path) -> std::result::Result<(), String> {
    on_a_disk(workshop, "probe-power", |disk| {
        let synced = disk.path().join("synced");
        std::fs::write(&synced, "kept")?;
        std::fs::File::open(&synced)?.sync_all()?;
        std::fs::File::open(disk.path())?.sync_all()?;
        disk.leave_unsynced()?;
        Power::new()?.cut(&[disk.path()])?;
        disk.unmount()?;
        disk.mount()?;
        let kept = std::fs::read(&synced).is_ok_and(|bytes| bytes == b"kept");
        Ok(match (kept, disk.lost_what_was_unsynced()?) {
            (true, true) => Ok(()),
            (false, _) => Err("a power cut lost what was synced".to_owned()),
            (_, false) => Err("a power cut kept what was not synced".to_owned()),
        })
    })
}

fn full(workshop: &Path) -> std::result::Result<(), String> {
    on_a_disk(workshop, "probe-full", |disk| {
        disk.fill()?;
        let more = std::fs::write(disk.path().join("more"), vec![b'x'; 64 * 1_024]);
        let refused = more.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
        Ok(if refused {
            Ok(())
        } else {
            Err("a full disk takes more".to_owned())
        })
    })
}

fn sync_error(workshop: &Path) -> std::result::Result<(), String> {
    program("strace")?;
    let mut command = Command::new("strace");
    command
        .args(fail_sync(1))
        .args(["python3", "-c", SYNCS, text(&workshop.join("probe-sync"))]);
    match finish(command, "") {
        Err(said) if said.contains("Input/output error") => Ok(()),
        Err(said) => Err(said),
        Ok(_) => Err("strace injects nothing".to_owned()),
    }
}

fn wall_clock(workshop: &Path) -> std::result::Result<(), String> {
    let library = library(clock::LIBRARY).map_err(|trouble| trouble.to_string())?;
    let file = workshop.join("probe-clock");
    std::fs::write(&file, "+7200\n").map_err(|error| error.to_string())?;
    let mut command = Command::new("python3");
    command
        .args(["-c", "import time; print(int(time.time()))"])
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &file);
    let told = finish(command, "")?.trim().parse::<u64>().unwrap_or(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    match Duration::from_secs(told).saturating_sub(now) > Duration::from_secs(7_000) {
        true => Ok(()),
        false => Err("libfaketime does not change the time".to_owned()),
    }
}

/// What keeps a node from running without syncs: a file that a process synced must be lost in a power cut.
pub fn no_sync_missing(workshop: &Path) -> Option<String> {
    let tried = on_a_disk(workshop, "probe-no-sync", |disk| {
        let path = disk.path().join("synced");
        let mut command = Command::new("python3");
        command
            .args(["-c", SYNCS, text(&path)])
            .env("LD_PRELOAD", library(NO_SYNC_LIBRARY)?);
        if let Err(said) = finish(command, "") {
            return Ok(Err(said));
        }
        Power::new()?.cut(&[disk.path()])?;
        disk.unmount()?;
        disk.mount()?;
        let kept = std::fs::read(&path).is_ok_and(|bytes| !bytes.is_empty());
        Ok(if kept {
            Err("syncs are done all the same".to_owned())
        } else {
            Ok(())
        })
    });
    tried.err()
}
