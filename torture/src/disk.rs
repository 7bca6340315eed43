//! A node's own disk: an ext4 image on a loop device, that can lose power and run full.
//!
//! A power cut is ext4's shutdown request without a flush of the journal: from that moment the file system answers
//! nothing but errors, and after it was mounted again it has what was synced, and of the rest whatever the kernel had
//! happened to write. What it does not imitate is the disk's own volatile cache, torn sectors, and writes that overtake
//! each other below the file system.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{must, run, text, which};
use crate::trouble::{Result, Trouble, harness};

/// How long a file system may be busy after the processes on it were killed.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(20);
/// Takes all the space there is.
const FILLER: &str = "somebody-elses-file";
/// Written before each power cut and never synced: that it is gone afterwards shows that there was one.
const UNSYNCED: &str = "never-synced";

/// An image that is mounted; unmounted when dropped. The image stays with the directory it is in, for somebody to look at
/// after a violation, unless it is thrown away.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
    mounted: bool,
    /// Whether the image goes when this is dropped.
    unwanted: bool,
}

impl Disk {
    /// Makes an image of this size and mounts it. It takes no more room than what is written to it.
    pub fn new(directory: &Path, name: &str, size_mib: u64) -> Result<Disk> {
        let image = directory.join(format!("{name}.ext4"));
        let at = directory.join(name);
        std::fs::create_dir_all(&at)?;
        let file = std::fs::File::create(&image)?;
        file.set_len(size_mib << 20)?;
        // Tables are made at once: a background thread of the kernel would do it under the load.
        must(&[
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^resize_inode",
            text(&image),
        ])?;
        let mut disk = Disk {
            image,
            at,
            mounted: false,
            unwanted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it: what the journal has is replayed.
    pub fn mount(&mut self) -> Result<()> {
        must(&[
            "mount",
            "-o",
            "loop,noatime",
            text(&self.image),
            text(&self.at),
        ])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it. No process may be left on it.
    pub fn unmount(&mut self) -> Result<()> {
        let began = Instant::now();
        while let Err(why) = run(&["umount", text(&self.at)], "") {
            if began.elapsed() > UNMOUNT_PATIENCE {
                return Err(Trouble::Harness(why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mounted = false;
        Ok(())
    }

    /// Leaves something on it that nobody syncs.
    pub fn leave_unsynced(&self) -> Result<()> {
        std::fs::write(self.at.join(UNSYNCED), "gone when the power is")?;
        Ok(())
    }

    /// Whether what nobody synced is gone, after a cut. What is left of it is removed.
    pub fn lost_what_was_unsynced(&self) -> Result<bool> {
        let path = self.at.join(UNSYNCED);
        // The kernel may have written the name and not the bytes.
        let left = std::fs::read(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        Ok(left.is_empty())
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at).map_err(std::io::Error::from)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Takes all the space there is.
    pub fn fill(&self) -> Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.at.join(FILLER))?;
        let mut length = file.metadata()?.len();
        let mut step = self.free_bytes()?.max(1 << 20);
        while step >= 4_096 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        while file.write_all(&[b'x'; 512]).is_ok() {}
        match self.free_bytes()? {
            0..16_384 => Ok(()),
            left => harness(format!(
                "{} has {left} bytes free after it was filled",
                self.at.display()
            )),
        }
    }

    /// Nobody will want to look at it any more: its image goes when it is dropped.
    pub fn throw_away(&mut self) {
        self.unwanted = true;
    }

    /// Gives the space back.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.at.join(FILLER))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a run that failed may still have files open.
            let _ = run(&["umount", "-l", text(&self.at)], "");
        }
        if self.unwanted {
            let _ = std::fs::remove_file(&self.image);
        }
    }
}

/// What cuts the power: `unsafe` is forbidden here, and an ioctl needs it, so a few lines of Python do it.
///
/// All file systems of one cut are opened before the first one is shut down, so that they lose power within
/// microseconds.
const HELPER: &str = r#"
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN = 0x8004587d
NOLOGFLUSH = struct.pack("I", 2)
for line in sys.stdin:
    try:
        opened = [os.open(path, os.O_RDONLY) for path in line.rstrip("\n").split("\t")]
        for fd in opened:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)
        for fd in opened:
            os.close(fd)
        print("cut", flush=True)
    except OSError as error:
        print(error, flush=True)
"#;

/// The switch of all disks.
#[derive(Debug)]
pub struct Power {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Power {
    /// Starts the helper.
    pub fn new() -> Result<Power> {
        // The system's own one: a version manager's wrapper takes a quarter of a second.
        let system = PathBuf::from("/usr/bin/python3");
        let python = match system.exists() {
            true => system,
            false => which("python3").ok_or(Trouble::Harness("python3 is not installed".into()))?,
        };
        let mut child = Command::new(python)
            .args(["-u", "-c", HELPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return harness("python3 has no stdin or stdout");
        };
        Ok(Power {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// Cuts the power of all these file systems.
    pub fn cut(&mut self, disks: &[&Path]) -> Result<()> {
        let line: Vec<&str> = disks.iter().map(|path| text(path)).collect();
        writeln!(self.stdin, "{}", line.join("\t"))?;
        self.stdin.flush()?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        match answer.trim() {
            "cut" => Ok(()),
            why => harness(format!("the ext4 shutdown ioctl failed: {why}")),
        }
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
