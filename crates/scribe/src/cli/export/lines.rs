//! `scribe export --out`: the whole ledger as one file that verifies itself.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use scribe_client::wire::HexHash;
use scribe_proof::{Checkpoint, LeafIndex, SignedCheckpoint, TreeSize};
use serde::Serialize;

use super::super::output::{Failure, ProgressUnit, progress, say};
use super::super::transfer::{Carried, Checked, End, Header, VERSION};
use super::{Arguments, offline};
use crate::limits;

#[derive(Serialize)]
struct Exported {
    origin: String,
    tree_size: u64,
    root_hash: String,
    checkpoint_size: Option<u64>,
}

/// Writes the file `path`; `-` is stdout.
///
/// # Errors
/// A node that cannot be reached, a file that cannot be written, or entries that do not hold (exit 3).
pub(super) async fn run(arguments: &Arguments, path: &Path) -> Result<(), Failure> {
    // Written beside the name and renamed at the end: a file of that name is complete.
    let partial = partial_name(path);
    let file: Box<dyn Write + Send> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdout()),
        false => Box::new(
            File::create(&partial).map_err(|error| Failure::file("create", &partial, &error))?,
        ),
    };
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, file), path);
    let exported = match arguments.directory.data_dir.is_some() {
        true => from_directory(arguments, &mut writer).await,
        false => from_server(arguments, &mut writer).await,
    };
    let finished = match exported {
        Ok(exported) => writer.finish().map(|()| exported),
        Err(failure) => Err(failure),
    };
    let exported = match (finished, path.as_os_str() == "-") {
        (Ok(exported), true) => exported,
        (Ok(exported), false) => {
            std::fs::rename(&partial, path)
                .map_err(|error| Failure::file("write", path, &error))?;
            exported
        }
        (Err(failure), to_stdout) => {
            if !to_stdout {
                // A leftover would only be in the way; if it stays, it is named partial.
                let _ = std::fs::remove_file(&partial);
            }
            return Err(failure);
        }
    };
    let shown = match exported.checkpoint_size {
        Some(size) => format!("checked against the checkpoint of tree size {size}"),
        None => "not checked against a checkpoint: there is none yet".to_owned(),
    };
    say(format_args!(
        "{} entries of {}\nroot hash {}\n{shown}",
        exported.tree_size, exported.origin, exported.root_hash
    ));
    match arguments.client.output().is_json() && path.as_os_str() != "-" {
        true => arguments.client.output().print("", &exported),
        false => Ok(()),
    }
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

async fn from_server(arguments: &Arguments, writer: &mut Writer) -> Result<Exported, Failure> {
    let client = arguments.client.connect()?;
    let ledger = client.ledger().await?;
    let size = TreeSize::new(ledger.tree_size);
    writer.begin(&ledger.origin, size, ledger.checkpoint.as_deref())?;
    while writer.checked.size() < size {
        let from = writer.checked.size().get();
        let limit = (size.get() - from).min(limits::PAGE_LIMIT_MAX as u64);
        let mut page = client.entries(from).limit(limit).raw();
        if arguments.stale {
            page = page.stale();
        }
        let page = page.send().await?;
        if page.entries.is_empty() {
            return Err(Failure::unexpected(format!(
                "the node sent no entries from index {from} on"
            )));
        }
        for view in &page.entries {
            let entry = Carried::from_view(view)
                .map_err(|error| Failure::verification(format!("entry {}: {error}", view.index)))?;
            writer.entry(view.index, &entry)?;
        }
    }
    writer.end(ledger.origin)
}

async fn from_directory(arguments: &Arguments, writer: &mut Writer) -> Result<Exported, Failure> {
    let node = offline(&arguments.directory).await?;
    let exported = async {
        let failed = |error: crate::node::ReadError| Failure::unexpected(error.to_string());
        let size = node.applied_size();
        let origin = node.ledger().origin;
        let checkpoint = node.checkpoint();
        writer.begin(
            &origin,
            size,
            checkpoint.as_ref().map(|published| published.note.as_str()),
        )?;
        while writer.checked.size() < size {
            let from = writer.checked.size().next_index();
            let (reader, limit) = (node.clone(), limits::PAGE_LIMIT_MAX);
            let entries = tokio::task::spawn_blocking(move || {
                reader.entries(from, limit, limits::PAGE_BYTES_MAX)
            })
            .await
            .map_err(|error| Failure::unexpected(format!("reading stopped: {error}")))?
            .map_err(failed)?;
            if entries.is_empty() {
                return Err(Failure::unexpected(format!(
                    "the ledger has no entries from index {from} on"
                )));
            }
            for entry in entries
                .into_iter()
                .take_while(|entry| size.contains(entry.index))
            {
                writer.entry(
                    entry.index.get(),
                    &Carried {
                        leaf: entry.leaf,
                        private: entry.private,
                    },
                )?;
            }
        }
        writer.end(origin)
    }
    .await;
    node.shutdown().await;
    exported
}

/// Writes the file and checks what it writes.
struct Writer {
    out: BufWriter<Box<dyn Write + Send>>,
    path: PathBuf,
    checked: Checked,
    /// The newest checkpoint, until the tree reaches it.
    awaited: Option<Checkpoint>,
    reached: Option<TreeSize>,
    bar: indicatif::ProgressBar,
}

impl Writer {
    fn new(out: BufWriter<Box<dyn Write + Send>>, path: &Path) -> Writer {
        Writer {
            out,
            path: path.to_path_buf(),
            checked: Checked::default(),
            awaited: None,
            reached: None,
            bar: progress(Some(0), ProgressUnit::Entries),
        }
    }

    fn begin(&mut self, origin: &str, size: TreeSize, note: Option<&str>) -> Result<(), Failure> {
        if let Some(note) = note {
            let signed = SignedCheckpoint::parse(note).map_err(|error| {
                Failure::verification(format!("the newest checkpoint does not hold: {error}"))
            })?;
            // One that is newer than what is exported says nothing about it.
            self.awaited = Some(signed.checkpoint().clone()).filter(|awaited| awaited.size <= size);
        }
        self.bar.set_length(size.get());
        self.line(&Header {
            scribe_export: VERSION,
            origin: origin.to_owned(),
            tree_size: size.get(),
        })?;
        self.check_root()
    }

    fn entry(&mut self, index: u64, entry: &Carried) -> Result<(), Failure> {
        self.checked
            .add(index, entry)
            .map_err(Failure::verification)?;
        let line = entry
            .to_line(LeafIndex::new(index))
            .map_err(Failure::verification)?;
        self.line(&line)?;
        if index % 256 == 255 {
            self.bar.set_position(index + 1);
        }
        self.check_root()
    }

    /// Compares the roots when the tree is as large as the checkpoint's.
    fn check_root(&mut self) -> Result<(), Failure> {
        let Some(awaited) = self
            .awaited
            .take_if(|awaited| awaited.size == self.checked.size())
        else {
            return Ok(());
        };
        let root = self.checked.root();
        if root != awaited.root {
            return Err(Failure::verification(format!(
                "the entries do not match the checkpoint of tree size {}: their root hash is {root}, the checkpoint has {}",
                awaited.size, awaited.root
            )));
        }
        self.reached = Some(awaited.size);
        Ok(())
    }

    fn end(&mut self, origin: String) -> Result<Exported, Failure> {
        let (size, root) = (self.checked.size(), self.checked.root());
        self.line(&End {
            end: true,
            tree_size: size.get(),
            root_hash: HexHash(root.0),
        })?;
        Ok(Exported {
            origin,
            tree_size: size.get(),
            root_hash: root.to_hex(),
            checkpoint_size: self.reached.map(TreeSize::get),
        })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| Failure::file("write", &self.path, &error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        self.out
            .flush()
            .map_err(|error| Failure::file("write", &self.path, &error))
    }
}
