//! A client that knows several nodes: when it moves on, and that a write is never sent twice where that would write twice.

use std::time::Duration;

use futures::StreamExt as _;
use scribe_client::wire::{Appended, BulkReply, HexHash};
use scribe_client::{Client, Error, ErrorCode, RetryPolicy, Wait};

use crate::server::{Response, Server};

const APPENDED: Appended = Appended {
    index: 4,
    timestamp_ms: 5,
    leaf_hash: HexHash([7; 32]),
    tree_size: 5,
    replayed: false,
};

/// A node that answers everything like this.
async fn node(answer: Response) -> Server {
    Server::start(move |_| answer.clone()).await
}

async fn taking_writes() -> Server {
    node(Response::json(201, &APPENDED)).await
}

/// The URL of a node that is not there.
async fn gone() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn key_of(server: &Server, place: usize) -> Option<String> {
    let requests = server.requests.lock().unwrap();
    requests[place].headers.get("idempotency-key").cloned()
}

#[tokio::test]
async fn a_node_that_is_gone_is_left_for_good() {
    let (gone, there) = (gone().await, taking_writes().await);
    let client = Client::builder_for([&gone, &there.url]).build().unwrap();
    assert_eq!(client.url(), gone);
    client.put("k", "v").send().await.unwrap();
    assert_eq!(client.url(), there.url);
    // Also without an idempotency key: nothing was sent to the one that is gone.
    let unkeyed = Client::builder_for([&gone, &there.url]).build().unwrap();
    let put = unkeyed.put("k", "v").no_idempotency_key();
    put.send().await.unwrap();
    assert_eq!(there.targets().len(), 2);
}

#[tokio::test]
async fn a_node_that_cannot_reach_the_others_is_passed_over() {
    for code in [
        ErrorCode::NotLeader,
        ErrorCode::Unavailable,
        ErrorCode::NotApplied,
    ] {
        let (cut_off, there) = (node(Response::problem(code)).await, taking_writes().await);
        let client = Client::builder(&cut_off.url)
            .server(&there.url)
            .build()
            .unwrap();
        let write = client.delete("k").no_idempotency_key();
        assert_eq!(write.send().await.unwrap(), APPENDED);
        assert_eq!(cut_off.targets().len(), 1, "{code}");
        assert_eq!(client.url(), there.url, "{code}");
    }
}

#[tokio::test]
async fn what_another_node_cannot_do_better_stays_where_it_is() {
    let (busy, other) = (
        node(Response::problem(ErrorCode::ConditionFailed)).await,
        taking_writes().await,
    );
    let client = Client::builder_for([&busy.url, &other.url])
        .build()
        .unwrap();
    let error = client.put("k", "v").send().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ConditionFailed));
    assert_eq!(client.url(), busy.url);
    assert!(other.targets().is_empty());
}

#[tokio::test]
async fn an_unknown_outcome_goes_on_elsewhere_only_under_a_key() {
    for broken in [
        Response::HangUp,
        Response::problem(ErrorCode::UnknownOutcome),
    ] {
        let (going, there) = (node(broken).await, taking_writes().await);
        let client = Client::builder_for([&going.url, &there.url])
            .build()
            .unwrap();
        let put = client.put("k", "v");
        assert_eq!(put.send().await.unwrap(), APPENDED);
        assert!(key_of(&going, 0).is_some());
        assert_eq!(key_of(&going, 0), key_of(&there, 0));

        let client = Client::builder_for([&going.url, &there.url])
            .build()
            .unwrap();
        let put = client.put("k", "v").no_idempotency_key();
        let error = put.send().await.unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert_eq!(there.targets().len(), 1);
        // The next call does not go where this one broke off.
        assert_eq!(client.url(), there.url);
    }
}

#[tokio::test]
async fn all_nodes_are_asked_before_giving_up() {
    let first = node(Response::problem(ErrorCode::NotLeader)).await;
    let second = node(Response::problem(ErrorCode::NotLeader)).await;
    let client = Client::builder_for([&first.url, &second.url])
        .server(gone().await)
        .retry(RetryPolicy {
            deadline: Duration::from_millis(500),
            ..RetryPolicy::default()
        })
        .build()
        .unwrap();
    let error = client.put("k", "v").send().await.unwrap_err();
    let told = matches!(&error, Error::Transport(_)) || error.code() == Some(ErrorCode::NotLeader);
    assert!(told, "{error}");
    // At least two rounds.
    assert!(first.targets().len() >= 2 && second.targets().len() >= 2);
}

#[tokio::test]
async fn an_upload_begins_at_a_node_that_is_there() {
    let there = Server::start(|request| match request.method.as_str() {
        "GET" => Response::text("{}"),
        _ => Response::text("{\"done\":true,\"lines\":0,\"failed\":0}\n"),
    })
    .await;
    let client = Client::builder_for([gone().await, there.url.clone()])
        .build()
        .unwrap();
    let lines = futures::stream::empty();
    let mut replies = client.bulk(lines, Wait::Appended).await.unwrap();
    let reply = replies.next().await.unwrap().unwrap();
    assert!(matches!(reply, BulkReply::Done(_)), "{reply:?}");
    assert_eq!(there.targets(), ["GET /health/ready", "POST /v1/entries"]);
}

#[tokio::test]
async fn a_watch_goes_on_at_another_node() {
    let event = |index: u64| {
        format!("id: {index}\nevent: progress\ndata: {{\"index\":{index}}}\n\n").into_bytes()
    };
    let leaving = std::sync::atomic::AtomicBool::new(true);
    // Says one thing and ends; after that it has no leader.
    let first =
        Server::start(
            move |_| match leaving.swap(false, std::sync::atomic::Ordering::SeqCst) {
                true => Response::Open(event(3)),
                false => Response::problem(ErrorCode::Unavailable),
            },
        )
        .await;
    let second = node(Response::Open(event(4))).await;
    let client = Client::builder_for([&first.url, &second.url])
        .build()
        .unwrap();
    let mut events = client.watch().from(0).open().await.unwrap();
    for expected in [3, 4] {
        assert_eq!(events.next().await.unwrap().unwrap().index(), expected);
    }
    assert_eq!(second.targets()[0], "GET /v1/watch?from=4");
}

#[tokio::test]
async fn a_change_of_the_cluster_is_asked_for_once() {
    let done = node(Response::text("{\"done\":true}")).await;
    let client = Client::new(&done.url).unwrap();
    client.promote(3).await.unwrap();
    client.remove(3).await.unwrap();
    client.replace(3, 4).await.unwrap();
    client.transfer(4).await.unwrap();
    assert_eq!(
        done.targets(),
        [
            "POST /v1/cluster/members/3/promote",
            "DELETE /v1/cluster/members/3",
            "POST /v1/cluster/members/3/replace",
            "POST /v1/cluster/leader",
        ]
    );
    let bodies: Vec<String> = done
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).into_owned())
        .collect();
    assert_eq!(bodies, ["{}", "", "{\"by\":4}", "{\"node_id\":4}"]);

    let (going, there) = (node(Response::HangUp).await, taking_writes().await);
    let client = Client::builder_for([&going.url, &there.url])
        .build()
        .unwrap();
    let error = client.promote(3).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(there.targets().is_empty());

    let refusing = node(Response::problem(ErrorCode::ClusterRefused)).await;
    let client = Client::new(&refusing.url).unwrap();
    let error = client.promote(3).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ClusterRefused));
    assert_eq!(refusing.targets().len(), 1);
}
