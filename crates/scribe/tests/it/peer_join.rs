//! Joining: a token, a certificate for whoever has one, and nothing for anybody else.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bytes::Bytes;
use scribe::peer::pki::{PeerName, fingerprint_of_pem};
use scribe::peer::{
    ClusterCa, JoinToken, Lane, NodeKey, Pool, Redeem, RefusalCode, Security, TlsIdentity,
    TokenBook, TokenError, join_call, join_call_plain,
};
use scribe::world::World;
use tempfile::TempDir;

use crate::peer_support::{CLUSTER, ECHO, Node, WHO, YEAR, ca, call, code, options, timeouts, tls};

const HOUR_MS: u64 = 60 * 60 * 1_000;

fn token(book: &TokenBook) -> JoinToken {
    let addresses = vec!["db1.example:9001".to_owned(), "10.0.0.2:9001".to_owned()];
    book.issue(addresses, [9; 32], HOUR_MS, &World::real())
        .unwrap()
}

#[test]
fn a_token_is_redeemed_once_and_in_time() {
    let dir = TempDir::new().unwrap();
    let book = TokenBook::new(dir.path());
    let now_ms = World::real().now_ms();
    assert_eq!(book.redeem(&[1; 32], now_ms).unwrap(), Redeem::Unknown);
    let (first, second) = (token(&book), token(&book));
    assert_ne!(first.secret, second.secret);
    assert_eq!(book.outstanding(now_ms).unwrap(), 2);
    assert_eq!(book.redeem(&first.secret, now_ms).unwrap(), Redeem::Ok);
    assert_eq!(book.redeem(&first.secret, now_ms).unwrap(), Redeem::Used);
    // The use is on disk: another process knows it, too.
    let again = TokenBook::new(dir.path());
    assert_eq!(again.redeem(&first.secret, now_ms).unwrap(), Redeem::Used);
    let late_ms = now_ms + 2 * HOUR_MS;
    assert_eq!(
        again.redeem(&second.secret, late_ms).unwrap(),
        Redeem::Expired
    );
    assert_eq!(again.redeem(&[1; 32], now_ms).unwrap(), Redeem::Unknown);
    assert_eq!(book.outstanding(late_ms).unwrap(), 0);

    let path = dir.path().join("join-tokens");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let secret = scribe_proof::hash::Hash::from(first.secret).to_hex();
    assert!(!text.contains(&secret), "the book holds a secret");
    std::fs::write(&path, "something else").unwrap();
    assert!(matches!(
        book.redeem(&second.secret, now_ms),
        Err(TokenError::Damaged { .. })
    ));
}

/// Of many who try the same token at once, one gets in.
#[test]
fn a_token_used_by_many_at_once_lets_one_in() {
    let dir = TempDir::new().unwrap();
    let secret = token(&TokenBook::new(dir.path())).secret;
    let now_ms = World::real().now_ms();
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let book = TokenBook::new(dir.path());
            std::thread::spawn(move || book.redeem(&secret, now_ms).unwrap())
        })
        .collect();
    let got_in = tries
        .into_iter()
        .map(|handle| handle.join().unwrap())
        .filter(|outcome| *outcome == Redeem::Ok)
        .count();
    assert_eq!(got_in, 1);
}

#[test]
fn a_token_is_one_line_of_text() {
    let dir = TempDir::new().unwrap();
    let token = token(&TokenBook::new(dir.path()));
    let text = token.to_string();
    assert!(text.starts_with("scribe-join-v1."), "{text}");
    assert_eq!(text.parse::<JoinToken>().unwrap(), token);
    assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
    let debug = format!("{token:?}");
    assert!(
        debug.contains("db1.example") && !debug.contains("secret"),
        "{debug}"
    );

    let mut changed = text.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for wrong in [
        &text[..text.len() - 1],
        &text[..40],
        &changed,
        "scribe-join-v1.",
        "scribe-join-v2.AAAA",
        "",
        &format!("{text}!"),
        &"scribe-join-v1.A".repeat(1_000),
    ] {
        let error = wrong.parse::<JoinToken>().unwrap_err();
        assert!(
            error.to_string().starts_with("not a join token: "),
            "{error}"
        );
    }
    let book = TokenBook::new(dir.path());
    for addresses in [
        vec![],
        vec![String::new()],
        vec!["a".repeat(256)],
        vec!["a".into(); 17],
    ] {
        let issued = book.issue(addresses, [0; 32], HOUR_MS, &World::real());
        assert!(matches!(issued, Err(TokenError::Addresses)));
    }
}

#[test]
fn a_ca_survives_being_written_down() {
    let made = ca();
    let read = ClusterCa::from_pem(made.certificate_pem(), &made.secret_pem()).unwrap();
    assert_eq!(read.cluster_id(), CLUSTER);
    assert_eq!(read.fingerprint(), made.fingerprint());
    assert_eq!(
        fingerprint_of_pem(made.certificate_pem()).unwrap(),
        made.fingerprint()
    );
    // A certificate it issues now is believed by those who know the first.
    let key = NodeKey::generate().unwrap();
    let key = NodeKey::from_pem(&key.secret_pem()).unwrap();
    let request = key.request_pem().unwrap();
    let chain = read.issue(4, &request, &World::real(), YEAR).unwrap();
    let identity =
        TlsIdentity::from_pem(&chain, &key.secret_pem(), made.certificate_pem()).unwrap();
    let name = PeerName {
        cluster_id: CLUSTER,
        node_id: 4,
    };
    assert_eq!(identity.name(), name);
    let year_ms = u64::try_from(YEAR.as_millis()).unwrap();
    assert!(identity.expires_ms() > World::real().now_ms() + year_ms - HOUR_MS);

    // Only together, and only what they are.
    let other = ca();
    assert!(ClusterCa::from_pem(made.certificate_pem(), &other.secret_pem()).is_err());
    assert!(ClusterCa::from_pem(&chain, &key.secret_pem()).is_err());
    assert!(TlsIdentity::from_pem(&chain, &key.secret_pem(), other.certificate_pem()).is_err());
    assert!(TlsIdentity::from_pem(&chain, &other.secret_pem(), made.certificate_pem()).is_err());
    // A request that was changed (here: its signature, at the end) proves nothing.
    let body_end = request.find("-----END").unwrap();
    let mut forged = request.clone().into_bytes();
    let place = body_end - 12;
    forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert!(made.issue(4, &forged, &World::real(), YEAR).is_err());
    for debug in [
        format!("{made:?}"),
        format!("{key:?}"),
        format!("{identity:?}"),
    ] {
        assert!(!debug.contains("PRIVATE") && debug.len() < 200, "{debug}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_joins_with_nothing_but_a_token() {
    let ca = ca();
    let node = Node::start(options(1, tls(&ca, 1))).await;
    let fingerprint = ca.fingerprint();
    let key = NodeKey::generate().unwrap();
    let request = Bytes::from(key.request_pem().unwrap());
    let answer = join_call(&node.address, fingerprint, ECHO, request, &timeouts())
        .await
        .unwrap();
    let who = join_call(&node.address, fingerprint, WHO, Bytes::new(), &timeouts()).await;
    assert_eq!(who.unwrap(), "None Join");

    // What the member would do with the request.
    let request = String::from_utf8(answer.to_vec()).unwrap();
    let chain = ca.issue(2, &request, &World::real(), YEAR).unwrap();
    let identity = TlsIdentity::from_pem(&chain, &key.secret_pem(), ca.certificate_pem()).unwrap();
    let pool = Pool::new(options(2, Security::Tls(Arc::new(identity))));
    let who = call(&pool, 1, &node.address, Lane::Control, WHO, b"").await;
    assert_eq!(who.unwrap(), "Some(2) Control");

    // Another cluster than the token's: nothing is said to it, above all not the secret.
    let requests = node.server.stats().requests;
    let body = Bytes::from_static(b"secret");
    let answer = join_call(&node.address, [1; 32], ECHO, body, &timeouts()).await;
    assert_eq!(code(answer), RefusalCode::Certificate);
    node.refused(RefusalCode::Certificate, 1).await;
    assert_eq!(node.server.stats().requests, requests);
    // A stranger's request may not be long, whatever the handler would take.
    let long = Bytes::from(vec![0; 100_000]);
    assert!(
        join_call(&node.address, fingerprint, ECHO, long, &timeouts())
            .await
            .is_err()
    );
    node.still_serves(&pool).await;

    let plain = Node::start(options(1, Security::Plain)).await;
    let who = join_call_plain(&plain.address, WHO, Bytes::new(), &timeouts()).await;
    assert_eq!(who.unwrap(), "None Join");
}
