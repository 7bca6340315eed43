//! `scribe audit`: everything a ledger promises, derived again from its bytes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{Failure, Output, ProgressUnit, progress, say};
use super::verify::{read_signed, trusted_policy};
use super::{OutputArgs, TrustArgs, expect_listener};
use crate::audit::{self, AuditError, AuditOptions, AuditReport, Finding};

/// Re-read and re-hash a whole ledger: a running node, a data directory, or a tile directory
///
/// Reads every entry, hashes every value against the commitment in its leaf, derives the tree, and compares it with the
/// signed checkpoint and, with --checkpoint, with an earlier one that you kept. Say what you trust with --vkey or
/// --policy, and take both from somewhere other than the ledger. The first thing that does not hold ends it (exit 3):
/// file, byte, entry and key, as exactly as they are known.
///
/// URL is a running node: its raw entries are read, up to its newest checkpoint, while writes go on. DIR is the data
/// directory of a stopped node, in which every file is read, also what is derived (tree files, key index); or a tile
/// directory (`scribe export --tiles`). Nothing in it is changed.
///
/// An audit does not prove that a version is its key's newest, or that an entry nobody showed you does not exist.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: a node, against the key you know and the checkpoint you kept last month
  $ scribe audit http://127.0.0.1:8001 --vkey \"$VKEY\" --checkpoint checkpoint-2030-01-31.txt

Example: the data directory of a stopped node, with the head it signed last
  $ scribe audit ./scribe-data --key-dir ./scribe-keys --checkpoint checkpoint.txt --vkey \"$VKEY\"

Example: a copy for the web, with a report for the file
  $ scribe audit ./tiles --policy policy.txt --report audit.json"
)]
pub struct Arguments {
    /// Node to ask (http:// or https://), data directory, or tile directory
    #[arg(value_name = "URL|DIR")]
    what: String,
    /// Public key of the ledger, or a file that holds it
    #[arg(long, value_name = "VKEY", conflicts_with = "policy")]
    vkey: Option<String>,
    /// File that says whose signatures are needed (c2sp.org/tlog-policy)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Earlier checkpoint that you kept: the ledger must have grown out of it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Key directory that belongs to a data directory: the ledger must have the head signed last
    #[arg(long, value_name = "DIR")]
    key_dir: Option<PathBuf>,
    /// Leave the key index of a data directory out: it is derived, and takes as long as everything else
    #[arg(long)]
    skip_index: bool,
    /// Write what was found as JSON to this file, also when something does not hold
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `--output json` and `--report` show.
#[derive(Serialize)]
struct Shown<'a> {
    valid: bool,
    #[serde(flatten)]
    report: Option<&'a AuditReport>,
    finding: Option<&'a Finding>,
}

/// Runs the command.
///
/// # Errors
/// Something does not hold (exit 3); nothing there to audit, or a node has it open (exit 1).
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.output.output);
    let options = AuditOptions {
        policy: trusted_policy(arguments.vkey.as_deref(), arguments.policy.as_deref())?,
        pinned: arguments
            .checkpoint
            .as_deref()
            .map(read_signed)
            .transpose()?,
        key_dir: arguments.key_dir.clone(),
        skip_index: arguments.skip_index,
    };
    let outcome = audit(&arguments, options).await;
    let shown = match &outcome {
        Ok(report) => Shown {
            valid: true,
            report: Some(report),
            finding: None,
        },
        Err(AuditError::Finding(finding)) => Shown {
            valid: false,
            report: None,
            finding: Some(finding),
        },
        Err(_) => return outcome.map(|_| ()).map_err(failure),
    };
    if let Some(path) = &arguments.report {
        write_report(path, &shown)?;
    }
    match outcome.as_ref() {
        Ok(report) => {
            output.print(text(report), &shown)?;
            for note in &report.notes {
                say(format_args!("note: {note}"));
            }
            if !report.signatures.trusted {
                say(
                    "note: no --vkey or --policy: signatures were checked against nothing you trust, only the hashes were",
                );
            }
            Ok(())
        }
        Err(_) => {
            if output.is_json() {
                output.print("", &shown)?;
            }
            outcome.map(|_| ()).map_err(failure)
        }
    }
}

async fn audit(arguments: &Arguments, options: AuditOptions) -> Result<AuditReport, AuditError> {
    let user = |message: String, hint: &str| AuditError::User {
        message,
        hint: hint.to_owned(),
    };
    let what = arguments.what.as_str();
    let is_url = what.starts_with("http://") || what.starts_with("https://");
    let path = PathBuf::from(what);
    let is_data = |path: &Path| {
        ["MANIFEST", "vote", "log"]
            .iter()
            .any(|name| path.join(name).exists())
    };
    let is_tiles = |path: &Path| {
        ["checkpoint", "tile"]
            .iter()
            .any(|name| path.join(name).exists())
    };
    if !is_url && !path.is_dir() {
        return Err(user(
            format!("there is no directory `{what}`, and it is no http:// or https:// address"),
            "name a running node by its URL, or a data or tile directory",
        ));
    }
    if options.key_dir.is_some() && (is_url || !is_data(&path)) {
        return Err(user(
            "--key-dir belongs to a data directory".to_owned(),
            "leave it out; --checkpoint compares with what was signed earlier",
        ));
    }
    let unit = match is_url {
        true => ProgressUnit::Entries,
        false => ProgressUnit::Bytes,
    };
    let bar = progress(Some(0), unit);
    let told = bar.clone();
    let tell = move |done: u64, total: u64| {
        told.set_length(total);
        told.set_position(done);
    };
    let outcome = if is_url {
        let failed = |failure: Failure| {
            let hint = failure.hints.concat();
            match failure.exit {
                super::output::Exit::User => user(failure.message, &hint),
                _ => AuditError::Unexpected(format!("{}; hint: {hint}", failure.message)),
            }
        };
        let client = arguments.trust.client(what).map_err(failed)?;
        expect_listener(client.url()).map_err(failed)?;
        audit::live::audit(&client, &options, &tell).await
    } else if is_data(&path) || is_tiles(&path) {
        tokio::task::spawn_blocking(move || match is_data(&path) {
            true => audit::directory::audit(&path, &options, &tell),
            false => audit::tiles::audit(&path, &options, &tell),
        })
        .await
        .unwrap_or_else(|error| {
            Err(AuditError::Unexpected(format!(
                "the audit stopped: {error}"
            )))
        })
    } else {
        Err(user(
            format!("`{what}` is neither a data directory nor a tile directory"),
            "a data directory has a MANIFEST; `scribe export --tiles` writes a tile directory",
        ))
    };
    bar.finish_and_clear();
    outcome
}

fn failure(error: AuditError) -> Failure {
    match error {
        AuditError::Finding(finding) => {
            let failure = Failure::verification(format!("does not hold: {finding}"));
            match finding.hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        AuditError::User { message, hint } => Failure::user(message).hint(hint),
        AuditError::Unexpected(message) => Failure::unexpected(message),
        AuditError::Client(error) => error.into(),
    }
}

fn write_report(path: &Path, shown: &Shown<'_>) -> Result<(), Failure> {
    let mut json = serde_json::to_string_pretty(shown)
        .map_err(|error| Failure::unexpected(format!("cannot write JSON: {error}")))?;
    json.push('\n');
    std::fs::write(path, json).map_err(|error| Failure::file("write the report", path, &error))
}

fn text(report: &AuditReport) -> String {
    let mut lines = vec!["everything that was read holds".to_owned()];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<11} {value}"));
    if let Some(origin) = &report.origin {
        line("ledger", origin.clone());
    }
    line(
        "entries",
        format!(
            "{} ({} with a value or tombstone that opens its commitment, {} of the system)",
            report.tree_size, report.values, report.system_entries
        ),
    );
    line("root hash", report.root_hash.clone());
    match report.files {
        0 => line("read", format!("{} bytes", report.bytes)),
        files => line("read", format!("{} bytes in {files} files", report.bytes)),
    }
    if report.agreed_heads > 0 {
        line(
            "agreed",
            format!("{} heads that nodes agreed on", report.agreed_heads),
        );
    }
    if let Some(size) = report.checkpoint_size {
        line("checkpoint", format!("tree size {size}"));
    }
    if let Some(size) = report.pinned_size {
        line(
            "grown from",
            format!("the checkpoint you gave, tree size {size}"),
        );
    }
    if let Some(size) = report.last_signed_size {
        line("last signed", format!("tree size {size}"));
    }
    let signatures = &report.signatures;
    for (name, keys) in [
        ("signed by", &signatures.by_policy),
        ("also by", &signatures.by_announced),
        ("unknown", &signatures.by_unknown),
    ] {
        if !keys.is_empty() {
            let what = match name {
                "signed by" => "",
                "also by" => " (keys that only the ledger itself names)",
                _ => " (not checked: nobody here knows these keys)",
            };
            line(name, format!("{}{what}", keys.join(", ")));
        }
    }
    lines.join("\n")
}
