//! Bulk uploads and watches.

use futures::StreamExt as _;
use scribe_client::wire::{
    Appended, BulkDone, BulkLine, BulkReply, BulkResult, HexHash, WatchEvent, WatchProgress,
};
use scribe_client::{Client, Error, ErrorCode, Wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::{Response, Server, read_head};

fn result(line: u64) -> BulkReply {
    let leaf_hash = HexHash([1; 32]);
    let (index, tree_size) = (line + 9, line + 10);
    let appended = Appended {
        index,
        timestamp_ms: 1,
        leaf_hash,
        tree_size,
        replayed: false,
    };
    BulkReply::Result(BulkResult {
        line,
        outcome: Ok(appended),
    })
}

fn text(reply: &BulkReply) -> Vec<u8> {
    let mut line = Vec::new();
    reply.write_line(&mut line);
    line
}

#[tokio::test]
async fn results_arrive_while_lines_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (lines, receiver) = futures::channel::mpsc::unbounded::<BulkLine<'static>>();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (request, mut body) = read_head(&mut stream).await.unwrap();
        assert_eq!(request.target, "/v1/entries");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        // One result as soon as there is one more line; the end at the last chunk.
        let mut answered = 0;
        loop {
            while body.iter().filter(|byte| **byte == b'}').count() as u64 > answered {
                answered += 1;
                stream.write_all(&text(&result(answered))).await.unwrap();
            }
            if body.ends_with(b"0\r\n\r\n") {
                break;
            }
            stream.read_buf(&mut body).await.unwrap();
        }
        let done = BulkReply::Done(BulkDone {
            done: true,
            lines: answered,
            failed: 0,
        });
        stream.write_all(&text(&done)).await.unwrap();
        String::from_utf8_lossy(&body).into_owned()
    });
    let mut replies = client.bulk(receiver, Wait::Appended).await.unwrap();
    for line in 1..=3 {
        // The next line is sent only after the last one's result: a client that uploads first
        // would wait here for ever.
        lines.unbounded_send(BulkLine::put(b"k", b"v")).unwrap();
        assert_eq!(replies.next().await.unwrap().unwrap(), result(line));
    }
    drop(lines);
    let done = replies.next().await.unwrap().unwrap();
    assert_eq!(
        done,
        BulkReply::Done(BulkDone {
            done: true,
            lines: 3,
            failed: 0
        })
    );
    assert!(replies.next().await.is_none());
    let body = server.await.unwrap();
    assert_eq!(
        body.matches("{\"key\":\"k\",\"value\":\"v\"}\n").count(),
        3,
        "{body}"
    );
}

#[tokio::test]
async fn an_answer_without_its_last_line_leaves_outcomes_unknown() {
    let server = Server::start(|_| Response::Open(text(&result(1)))).await;
    let client = Client::new(&server.url).unwrap();
    let lines = futures::stream::iter([BulkLine::put(b"a", b"1"), BulkLine::delete(b"b")]);
    let mut replies = client.bulk(lines, Wait::Appended).await.unwrap();
    assert_eq!(replies.next().await.unwrap().unwrap(), result(1));
    let error = replies.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(replies.next().await.is_none());
}

fn entry(index: u64) -> String {
    let leaf_hash = "00".repeat(32);
    format!(
        "id: {index}\nevent: entry\ndata: {{\"index\":{index},\"kind\":\"put\",\"key\":\"k\",\
         \"timestamp_ms\":1,\"value\":\"v\",\"value_length\":1,\"leaf_hash\":\"{leaf_hash}\"}}\n\n"
    )
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke_off() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v1/watch?from=5&prefix=k" => {
            Response::Open(format!(": hello\n\n{}{}id: 7\nev", entry(5), entry(6)).into_bytes())
        }
        // Sends one again, skips some, and hangs up.
        "/v1/watch?from=7&prefix=k" => {
            let progress = "id: 9\nevent: progress\ndata: {\"index\":9}\n\n";
            Response::Open(format!("{}{progress}", entry(6)).into_bytes())
        }
        "/v1/watch?from=10&prefix=k" => Response::HangUp,
        target => panic!("{target}"),
    })
    .await;
    let client = Client::new(&server.url).unwrap();
    let mut events = client.watch().from(5).prefix("k").open().await.unwrap();
    let mut indexes = Vec::new();
    for _ in 0..3 {
        let event = events.next().await.unwrap().unwrap();
        indexes.push(event.index());
        if event.index() == 9 {
            assert_eq!(event, WatchEvent::Progress(WatchProgress { index: 9 }));
        }
    }
    assert_eq!(indexes, [5, 6, 9]);
}

#[tokio::test]
async fn a_watch_that_is_refused_ends() {
    let server = Server::start(|_| Response::problem(ErrorCode::Future)).await;
    let client = Client::new(&server.url).unwrap();
    let mut events = client.watch().from(5).open().await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Future));
    assert!(events.next().await.is_none());
}
