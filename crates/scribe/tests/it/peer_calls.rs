//! Calls between nodes: answers, order, reuse of connections, waiting, cancelling, and what an error says.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use scribe::peer::{CallError, Lane, PeerTimeouts, Pool, Security, Wait, remote_code};

use crate::peer_support::{
    BUSY, ECHO, FAIL, HOLD, LENGTH, Link, Node, PANIC, Proxy, WHO, ca, call, eventually, options,
    tls,
};

const DEADLINE: Wait = Wait::Deadline(Duration::from_secs(20));

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_with_and_without_tls() {
    let ca = ca();
    for (ours, theirs) in [
        (Security::Plain, Security::Plain),
        (tls(&ca, 1), tls(&ca, 2)),
    ] {
        let node = Node::start(options(1, ours)).await;
        let pool = Pool::new(options(2, theirs));
        for lane in [Lane::Replication, Lane::Control, Lane::Bulk, Lane::Forward] {
            let parts = vec![
                Bytes::from_static(b"one "),
                Bytes::new(),
                Bytes::from(vec![b'x'; 300_000]),
                Bytes::from_static(b" end"),
            ];
            let sent = parts.concat();
            let answer = pool
                .call(1, &node.address, lane, ECHO, parts, DEADLINE)
                .await
                .unwrap();
            assert!(answer == sent, "{lane:?}");
            let who = call(&pool, 1, &node.address, lane, WHO, b"").await.unwrap();
            assert_eq!(who, format!("Some(2) {lane:?}"));
        }
        let stats = &pool.stats()[0];
        // Two calls on the forward lane went over two of its connections.
        assert_eq!(stats.connections_open, 5, "{stats:?}");
        assert_eq!((stats.calls, stats.failures), (8, 0));
        assert!(stats.bytes_sent > 1_200_000 && stats.bytes_received > 1_200_000);
        assert!(stats.last_rtt_us > 0);
        assert_eq!(node.server.stats().open, 5);
        node.server.shutdown().await;
        eventually(
            || pool.stats()[0].connections_open == 0,
            || format!("{:?}", pool.stats()),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_share_one_connection() {
    let ca = ca();
    let node = Node::start(options(1, tls(&ca, 1))).await;
    let pool = Pool::new(options(2, tls(&ca, 2)));
    let callers = (0..50_u32).map(|caller| {
        let (pool, address) = (pool.clone(), node.address.clone());
        tokio::spawn(async move {
            for number in 0..200_u32 {
                let body = Bytes::from(format!("{caller}/{number}"));
                let answer = pool
                    .call(
                        1,
                        &address,
                        Lane::Control,
                        ECHO,
                        vec![body.clone()],
                        DEADLINE,
                    )
                    .await
                    .unwrap();
                assert_eq!(answer, body);
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let stats = &pool.stats()[0];
    assert_eq!((stats.connections_opened, stats.calls), (1, 10_000));
    assert_eq!(node.server.stats().accepted, 1);
    assert_eq!(node.server.stats().requests, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_is_handled_in_order_and_one_at_a_time() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    let bodies: Vec<_> = (0..300)
        .map(|number| Bytes::from(format!("{number}")))
        .collect();
    // The first makes the connection; the others are then sent in the order they are polled.
    call(&pool, 1, &node.address, Lane::Replication, WHO, b"")
        .await
        .unwrap();
    let calls = bodies.iter().map(|body| {
        let parts = vec![body.clone()];
        pool.call(1, &node.address, Lane::Replication, ECHO, parts, DEADLINE)
    });
    for (answer, body) in join_all(calls).await.into_iter().zip(&bodies) {
        assert_eq!(answer.unwrap(), body);
    }
    assert_eq!(*node.answers.seen.lock(), bodies);
    assert_eq!(node.answers.running_most.load(SeqCst), 1);
}

/// On every other lane a slow request holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn answers_come_as_they_are_ready() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    let held = tokio::spawn({
        let (pool, address) = (pool.clone(), node.address.clone());
        async move { call(&pool, 1, &address, Lane::Control, HOLD, b"held").await }
    });
    eventually(|| node.answers.running.load(SeqCst) == 1, String::new).await;
    node.still_serves(&pool).await;
    assert!(!held.is_finished());
    node.answers.release.notify_one();
    assert_eq!(held.await.unwrap().unwrap(), b"held"[..]);
    assert_eq!(pool.stats()[0].connections_opened, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_handler_are_answers() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    for lane in [Lane::Control, Lane::Replication] {
        let error = call(&pool, 1, &node.address, lane, FAIL, b"")
            .await
            .unwrap_err();
        let text = "no".to_owned();
        assert_eq!(error, CallError::Remote { code: 42, text });
        let error = call(&pool, 1, &node.address, lane, PANIC, b"")
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                CallError::Remote {
                    code: remote_code::PANICKED,
                    ..
                }
            ),
            "{error:?}"
        );
        let answer = call(&pool, 1, &node.address, lane, ECHO, b"on").await;
        assert_eq!(answer.unwrap(), b"on"[..]);
    }
    assert_eq!(pool.stats()[0].failures, 0);

    // Too long for its kind: told so, and the connection is over; the next call makes another.
    let parts = vec![Bytes::from(vec![0; (1 << 20) + 1])];
    let error = pool
        .call(1, &node.address, Lane::Bulk, ECHO, parts, DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Remote {
                code: remote_code::TOO_LONG,
                ..
            }
        ),
        "{error:?}"
    );
    let answer = call(&pool, 1, &node.address, Lane::Bulk, ECHO, b"on").await;
    assert_eq!(answer.unwrap(), b"on"[..]);
}

/// A call given up locally frees its place; its late answer disturbs nobody.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_calls_leave_nothing_behind() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    call(&pool, 1, &node.address, Lane::Control, WHO, b"")
        .await
        .unwrap();
    // Twice as many as may be in flight.
    for _ in 0..4 {
        let calls = (0..500).map(|_| {
            let wait = Wait::Deadline(Duration::from_millis(50));
            pool.call(1, &node.address, Lane::Control, HOLD, vec![], wait)
        });
        for answer in join_all(calls).await {
            assert!(
                matches!(
                    answer,
                    Err(CallError::TimedOut | CallError::Unreachable { .. })
                ),
                "{answer:?}"
            );
        }
        node.answers.release.notify_waiters();
    }
    let releasing = async {
        loop {
            node.answers.release.notify_waiters();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = releasing => {}
        () = node.still_serves(&pool) => {}
    }
    assert_eq!(pool.stats()[0].connections_opened, 1);
}

/// A large body on a slow link takes longer than anybody waits for a small one. What moves is not cut.
///
/// With `SCRIBE_SLOW_LINK=1` in full size: the longest value by default, over 1 Mbit/s, with the patience nodes have. It
/// takes over a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_is_not_a_dead_one() {
    let ca = ca();
    let node = Node::start(options(1, tls(&ca, 1))).await;
    let pool = Pool::new(options(2, tls(&ca, 2)));
    let (bytes_per_ms, patience) = match std::env::var_os("SCRIBE_SLOW_LINK") {
        Some(_) => (125, PeerTimeouts::default().progress()),
        // 8 MiB at 6 MB/s: over a second, of which the kernel's buffers hide the better part from the sender.
        None => (6_000, Duration::from_millis(500)),
    };
    let proxy = Proxy::start(&node.address, Link::Slow(bytes_per_ms)).await;
    let body = Bytes::from(vec![b'x'; 8 << 20]);
    let started = Instant::now();
    let parts = vec![Bytes::from_static(b"head"), body.clone()];
    let wait = Wait::Progress(patience);
    let answer = pool
        .call(1, &proxy.address(), Lane::Replication, LENGTH, parts, wait)
        .await;
    assert_eq!(answer.unwrap(), (body.len() + 4).to_string());
    assert!(started.elapsed() > 2 * patience, "the link was not slow");

    let wait = Wait::Deadline(patience);
    let answer = pool
        .call(
            1,
            &proxy.address(),
            Lane::Replication,
            LENGTH,
            vec![body],
            wait,
        )
        .await;
    assert_eq!(answer, Err(CallError::TimedOut));
}

/// Without progress a call ends; a handler that says it is at work may take as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_what_the_handler_says() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    let wait = Wait::Progress(Duration::from_millis(400));
    let answer = pool
        .call(1, &node.address, Lane::Bulk, HOLD, vec![], wait)
        .await;
    assert_eq!(answer, Err(CallError::TimedOut));
    node.answers.release.notify_one();

    let busy = tokio::spawn({
        let (pool, address) = (pool.clone(), node.address.clone());
        async move { pool.call(1, &address, Lane::Bulk, BUSY, vec![], wait).await }
    });
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(!busy.is_finished());
    node.answers.release.notify_waiters();
    busy.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_is_unreachable_at_once_and_found_again() {
    let node = Node::start(options(1, Security::Plain)).await;
    let address = node.address.clone();
    let mut slow = options(2, Security::Plain);
    slow.timeouts.backoff_first_ms = 3_600_000;
    slow.timeouts.backoff_max_ms = 3_600_000;
    let pool = Pool::new(slow);
    node.still_serves(&pool).await;

    // Cut while a call is under way: it may have been carried out.
    let held = tokio::spawn({
        let (pool, address) = (pool.clone(), address.clone());
        async move { call(&pool, 1, &address, Lane::Control, HOLD, b"").await }
    });
    eventually(|| node.answers.running.load(SeqCst) == 1, String::new).await;
    drop(node);
    let error = held.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");

    for _ in 0..100 {
        let answer = call(&pool, 1, &address, Lane::Control, ECHO, b"").await;
        assert!(
            matches!(answer, Err(CallError::Unreachable { .. })),
            "{answer:?}"
        );
    }
    assert_eq!(pool.stats()[0].failures, 101);
    assert_eq!(pool.stats()[0].connections_opened, 1);

    let node = Node::start_at(&address, options(1, Security::Plain)).await;
    // The pause is an hour long, unless there is a sign of life.
    let answer = call(&pool, 1, &address, Lane::Control, ECHO, b"").await;
    assert!(
        matches!(answer, Err(CallError::Unreachable { .. })),
        "{answer:?}"
    );
    pool.retry_now(1);
    node.still_serves(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_node_is_disconnected() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    node.still_serves(&pool).await;
    assert_eq!(node.server.stats().open, 1);
    pool.forget(1);
    assert!(pool.stats().is_empty());
    let stats = || format!("{:?}", node.server.stats());
    eventually(|| node.server.stats().open == 0, stats).await;
    // Asked for again, it is connected again.
    node.still_serves(&pool).await;
    drop(pool);
    eventually(|| node.server.stats().open == 0, stats).await;
}

/// Requests at work when the server stops are answered; nothing new is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_finishes_what_it_began() {
    let node = Node::start(options(1, Security::Plain)).await;
    let pool = Pool::new(options(2, Security::Plain));
    let held = tokio::spawn({
        let (pool, address) = (pool.clone(), node.address.clone());
        async move { call(&pool, 1, &address, Lane::Control, HOLD, b"last").await }
    });
    eventually(|| node.answers.running.load(SeqCst) == 1, String::new).await;
    let stopping = tokio::spawn(node.server.shutdown());
    node.answers.release.notify_one();
    assert_eq!(held.await.unwrap().unwrap(), b"last"[..]);
    stopping.await.unwrap();
    let answer = call(&pool, 1, &node.address, Lane::Control, ECHO, b"").await;
    assert!(
        matches!(answer, Err(CallError::Unreachable { .. })),
        "{answer:?}"
    );
}

/// Connections with nothing to say ping; a connection that is silent in spite of that is given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_stays() {
    let mut quick = options(1, Security::Plain);
    quick.timeouts.ping_ms = 150;
    let node = Node::start(quick.clone()).await;
    quick.node_id = 2;
    let pool = Pool::new(quick);
    node.still_serves(&pool).await;
    let before = pool.stats()[0].bytes_received;
    // Longer than three pings' time: six pings of 16 bytes.
    eventually(
        || pool.stats()[0].bytes_received > before + 80,
        || format!("{:?}", pool.stats()),
    )
    .await;
    node.still_serves(&pool).await;
    assert_eq!(pool.stats()[0].connections_opened, 1);

    // A server that never pings, as seen by a client that expects it to.
    let silent = Node::start(options(3, Security::Plain)).await;
    let answer = call(&pool, 3, &silent.address, Lane::Control, ECHO, b"").await;
    answer.unwrap();
    eventually(
        || pool.stats()[1].connections_open == 0,
        || format!("{:?}", pool.stats()),
    )
    .await;
}

/// A node that no longer says anything is given up long before TCP would; one whose handler is slow is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fell_silent_is_given_up() {
    let mut quick = options(2, Security::Plain);
    quick.timeouts.connect_ms = 250;
    let pool = Pool::new(quick);
    let short = Wait::Deadline(Duration::from_millis(300));

    let node = Node::start(options(1, Security::Plain)).await;
    let held = tokio::spawn({
        let (pool, address) = (pool.clone(), node.address.clone());
        async move { call(&pool, 1, &address, Lane::Control, HOLD, b"slow").await }
    });
    eventually(|| node.answers.running.load(SeqCst) == 1, String::new).await;
    for _ in 0..4 {
        let answer = pool
            .call(1, &node.address, Lane::Control, HOLD, vec![], short)
            .await;
        assert_eq!(answer, Err(CallError::TimedOut));
    }
    eventually(
        || {
            node.answers.release.notify_waiters();
            held.is_finished()
        },
        String::new,
    )
    .await;
    assert_eq!(held.await.unwrap().unwrap(), b"slow"[..]);
    assert_eq!(pool.stats()[0].connections_opened, 1);

    // A network that swallows everything, after a good start.
    let proxy = Proxy::start(&node.address, Link::Fast).await;
    let address = proxy.address();
    call(&pool, 1, &address, Lane::Bulk, ECHO, b"")
        .await
        .unwrap();
    proxy.swallow.store(true, SeqCst);
    assert_eq!(pool.stats()[0].connections_open, 2);
    while pool.stats()[0].connections_open == 2 {
        let answer = pool
            .call(1, &address, Lane::Bulk, ECHO, vec![], short)
            .await;
        assert!(answer.is_err());
    }
}
