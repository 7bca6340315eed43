//! Import into a running node: one bulk upload.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use indicatif::ProgressBar;
use scribe_client::wire::{BulkLine, BulkReply};
use scribe_client::{Client, Wait};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::output::{Failure, say};
use super::super::transfer::read_line;
use super::lines::LineReader;
use super::{Arguments, Input, open};

/// Lines read ahead of the upload.
const LINES_AHEAD: usize = 4_096;
/// Refused lines that are reported one by one.
const REPORTED_MAX: u64 = 10;

#[derive(Serialize)]
struct Imported {
    lines: u64,
    failed: u64,
    last_index: Option<u64>,
}

/// Numbers, in the file, of the lines that were sent and not answered yet.
type Sent = Arc<Mutex<VecDeque<u64>>>;

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.client.connect()?;
    // Found out before the file is read: a node that is not there, with a clear message.
    client.ledger().await?;
    let (input, bar) = open(&arguments.file)?;
    let reader = LineReader::new(&arguments);
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let sent = Sent::default();
    let reading = {
        let sent = Arc::clone(&sent);
        tokio::task::spawn_blocking(move || read_all(input, &reader, &sender, &sent))
    };
    let uploaded = upload(&client, lines, &sent, &bar).await;
    // The reader ends when the file does, or when the upload dropped the channel.
    let read = reading
        .await
        .map_err(|error| Failure::unexpected(format!("reading stopped: {error}")))?;
    bar.finish_and_clear();
    let imported = uploaded?;
    say(format_args!(
        "{} entries appended",
        imported.lines - imported.failed
    ));
    if arguments.client.output().is_json() {
        arguments.client.output().print("", &imported)?;
    }
    read?;
    match imported.failed {
        0 => Ok(()),
        failed => Err(Failure::user(format!(
            "{failed} of {} lines were refused",
            imported.lines
        ))),
    }
}

fn read_all(
    mut input: Input,
    reader: &LineReader,
    sender: &mpsc::Sender<BulkLine<'static>>,
    sent: &Sent,
) -> Result<(), Failure> {
    let (mut line, mut number) = (Vec::new(), 1);
    while read_line(&mut input, &mut line, number)? {
        let read = reader.read(number, &line).map_err(|error| {
            Failure::user(format!("line {number}: {error}")).hint("the lines before it are in")
        })?;
        if let Some(read) = read {
            sent.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(number);
            if sender.blocking_send(read).is_err() {
                // The upload failed and tells why.
                return Ok(());
            }
        }
        number += 1;
    }
    Ok(())
}

async fn upload(
    client: &Client,
    lines: mpsc::Receiver<BulkLine<'static>>,
    sent: &Sent,
    bar: &ProgressBar,
) -> Result<Imported, Failure> {
    let mut replies = client
        .bulk(ReceiverStream::new(lines), Wait::Appended)
        .await?;
    let mut imported = Imported {
        lines: 0,
        failed: 0,
        last_index: None,
    };
    while let Some(reply) = replies.next().await {
        match reply? {
            BulkReply::Result(result) => {
                imported.lines += 1;
                let number = sent
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                match result.outcome {
                    Ok(appended) => imported.last_index = Some(appended.index),
                    Err(problem) => {
                        imported.failed += 1;
                        if imported.failed <= REPORTED_MAX {
                            let number = number.unwrap_or(result.line);
                            bar.suspend(|| {
                                say(format_args!(
                                    "line {number}: {} ({})",
                                    problem.detail, problem.code
                                ));
                            });
                        }
                    }
                }
                if imported.lines.is_multiple_of(1_024) {
                    bar.set_message(format!("{} entries", imported.lines));
                }
            }
            BulkReply::Done(_) => return Ok(imported),
        }
    }
    Err(Failure::unexpected(
        "the node's answer ended early: which lines are in is unknown",
    ))
}
