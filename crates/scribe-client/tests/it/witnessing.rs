//! The witness client against a scripted server: each answer is taken for what it proves, and for nothing more.

use std::time::Duration;

use scribe_client::TransportError;
use scribe_client::witness::{NoCosignature, Witness, WitnessAddress, for_witnesses};
use scribe_proof::hash::leaf_hash;
use scribe_proof::witness::{ANSWER_LENGTH_MAX, AddCheckpoint, NotCosigned, Refusal, WitnessError};
use scribe_proof::{Checkpoint, SignedCheckpoint, SigningKey, TreeSize, cosignature, sign_note};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::server::{Request, Response, Server};

const NOW_S: u64 = 1_800_000_000;
const ORIGIN: &str = "example.com/ledger";

fn witness_key() -> SigningKey {
    SigningKey::cosigner_from_seed("witness.example/w", &[7; 32]).unwrap()
}

fn request() -> AddCheckpoint {
    let ledger = SigningKey::from_seed(ORIGIN, &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN, TreeSize::new(9), leaf_hash(b"root"));
    AddCheckpoint {
        old: TreeSize::new(5),
        proof: vec![leaf_hash(b"a"), leaf_hash(b"b")],
        checkpoint: SignedCheckpoint::sign(checkpoint, &[&ledger]).unwrap(),
    }
}

fn witness(url: &str) -> Witness {
    let address = format!("{} {url}/sub/", witness_key().verifier_key());
    Witness::new(address.parse().unwrap()).unwrap()
}

/// What comes of it when the witness answers like this.
async fn answered(
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Result<u64, NoCosignature> {
    let server = Server::start(answer).await;
    let cosigned = witness(&server.url)
        .add_checkpoint(&request(), NOW_S)
        .await?;
    Ok(cosigned.timestamp_s)
}

fn full(status: u16, content_type: &str, body: &str) -> Response {
    let headers = vec![("content-type", content_type.to_owned())];
    Response::Full(status, headers, body.as_bytes().to_vec())
}

fn line(key: &SigningKey, timestamp_s: u64) -> String {
    let request = request();
    let text = &request.checkpoint.note().text;
    cosignature::sign(text, key, timestamp_s).unwrap().to_line()
}

#[tokio::test]
async fn what_is_sent_is_the_specifications_request() {
    let server = Server::start(|_| Response::text(line(&witness_key(), NOW_S))).await;
    let cosigned = witness(&server.url).add_checkpoint(&request(), NOW_S).await;
    let cosigned = cosigned.unwrap();
    assert_eq!(cosigned.timestamp_s, NOW_S);
    assert_eq!(cosigned.signature.to_line(), line(&witness_key(), NOW_S));
    let sent = server.requests.lock().unwrap()[0].clone();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/sub/add-checkpoint")
    );
    let expected = format!(
        "old 5\n{}\n{}\n\n{ORIGIN}\n9\n{}\n\n",
        leaf_hash(b"a").to_base64(),
        leaf_hash(b"b").to_base64(),
        leaf_hash(b"root").to_base64(),
    );
    let body = String::from_utf8(sent.body).unwrap();
    assert!(body.starts_with(&expected), "{body}");
    assert_eq!(body, request().to_text().unwrap());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let conflict = answered(|_| full(409, "text/x.tlog.size", "7\n")).await;
    assert!(
        matches!(conflict, Err(NoCosignature::Conflict { size }) if size.get() == 7),
        "{conflict:?}"
    );
    for (status, expected) in [
        (400, Refusal::Malformed),
        (403, Refusal::NotSigned),
        (404, Refusal::UnknownOrigin),
        (409, Refusal::OtherRoot),
        (422, Refusal::Inconsistent),
        (429, Refusal::Busy { status: 429 }),
        (503, Refusal::Busy { status: 503 }),
    ] {
        let error = answered(move |_| full(status, "text/plain", "because\nof this")).await;
        let Err(NoCosignature::Refused { refusal, text }) = error else {
            panic!("{status}: {error:?}");
        };
        assert_eq!((refusal, text.as_str()), (expected, "because"));
    }
    // Nobody is sent elsewhere with a checkpoint.
    let elsewhere = answered(|_| {
        let headers = vec![("location", "http://127.0.0.1:1/".to_owned())];
        Response::Full(307, headers, Vec::new())
    });
    let error = elsewhere.await.unwrap_err();
    assert!(
        matches!(
            error,
            NoCosignature::Refused {
                refusal: Refusal::Other { status: 307 },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_200_counts_only_with_a_cosignature_by_the_configured_key() {
    let stranger = SigningKey::cosigner_from_seed("witness.example/other", &[8; 32]).unwrap();
    let same_name = SigningKey::cosigner_from_seed("witness.example/w", &[9; 32]).unwrap();
    let plain = SigningKey::from_seed("witness.example/w", &[7; 32]).unwrap();
    let text = request().checkpoint.note().text.clone();
    let plainly = sign_note(&text, &[&plain]).unwrap().signatures[0].to_line();
    let mut damaged = line(&witness_key(), NOW_S);
    let at = damaged.len() - 20;
    let other = if &damaged[at..=at] == "A" { "B" } else { "A" };
    damaged.replace_range(at..=at, other);
    for (what, body, expected) in [
        ("nothing", String::new(), "signature lines"),
        ("a page", "<html>".to_owned(), "signature lines"),
        (
            "another's",
            line(&stranger, NOW_S),
            "no signature line is by",
        ),
        (
            "a namesake's",
            line(&same_name, NOW_S),
            "no signature line is by",
        ),
        ("a plain signature", plainly, "is no cosignature/v1"),
        ("a damaged line", damaged, "does not fit"),
        (
            "of another time",
            line(&witness_key(), NOW_S - 7_200),
            "must be within",
        ),
    ] {
        let error = answered(move |_| Response::text(body.clone()))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{what}: {error}");
        let judged = matches!(
            error,
            NoCosignature::NotCosigned(_) | NoCosignature::Malformed(WitnessError::Lines(_))
        );
        assert!(judged, "{what}: {error:?}");
    }
    let both = line(&stranger, NOW_S) + &line(&witness_key(), NOW_S);
    let found = answered(move |_| Response::text(both.clone())).await;
    assert_eq!(found.unwrap(), NOW_S);
}

#[tokio::test]
async fn an_answer_is_given_up_when_it_is_too_long() {
    for status in [200, 409, 503] {
        let long = "x".repeat(ANSWER_LENGTH_MAX + 1);
        let error = answered(move |_| full(status, "text/x.tlog.size", &long)).await;
        let error = error.unwrap_err();
        assert!(
            matches!(
                error,
                NoCosignature::Malformed(WitnessError::TooLong { .. })
            ),
            "{status}: {error:?}"
        );
    }
    // Without an end, too.
    let endless = "x".repeat(4 * ANSWER_LENGTH_MAX).into_bytes();
    let error = answered(move |_| Response::Open(endless.clone()))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            NoCosignature::Malformed(WitnessError::TooLong { .. })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_witness_that_is_away_hangs_up_or_says_nothing_is_an_error_in_time() {
    let error = answered(|_| Response::HangUp).await.unwrap_err();
    assert!(
        matches!(error, NoCosignature::Transport(TransportError::Broken(_))),
        "{error:?}"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        // It listens, and reads all that comes.
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
        sink.len()
    });
    let patience = Duration::from_millis(300);
    let asked = witness(&url)
        .timeout(patience)
        .add_checkpoint(&request(), NOW_S)
        .await;
    assert!(
        matches!(
            asked,
            Err(NoCosignature::Transport(TransportError::TimedOut {
                timeout_ms: 300
            }))
        ),
        "{asked:?}"
    );
    // Giving up closes the connection: nothing is left behind on either side.
    assert!(silent.await.unwrap() > 100);

    let gone = witness("http://127.0.0.1:1")
        .add_checkpoint(&request(), NOW_S)
        .await;
    let error = gone.unwrap_err();
    assert!(
        matches!(error, NoCosignature::Transport(TransportError::Connect(_))),
        "{error:?}"
    );
}

#[test]
fn an_address_is_a_cosigning_key_and_a_url() {
    let vkey = witness_key().verifier_key().to_text();
    let address: WitnessAddress = format!(" {vkey}  https://w.example:8/a/ ").parse().unwrap();
    assert_eq!(address.to_string(), format!("{vkey} https://w.example:8/a"));
    assert_eq!(&address.key, witness_key().verifier_key());
    let plain = SigningKey::from_seed("witness.example/w", &[7; 32]).unwrap();
    let plain = plain.verifier_key();
    for (text, expected) in [
        (String::new(), "`<verifier key> <submission URL>`"),
        (vkey.clone(), "`<verifier key> <submission URL>`"),
        (
            format!("{vkey} http://a b"),
            "`<verifier key> <submission URL>`",
        ),
        (format!("{vkey} a:1"), "http"),
        (format!("{vkey} http://a/?x=1"), "a query"),
        (format!("{plain} http://a"), "type 0x01"),
        ("x+y http://a".to_owned(), "verifier key must be"),
    ] {
        let error = text.parse::<WitnessAddress>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Witnesses ignore lines they do not know; some cannot even read them.
#[test]
fn only_the_ledgers_own_lines_are_submitted() {
    let mut signed = request().checkpoint;
    let text = signed.note().text.clone();
    let node = SigningKey::cosigner_from_seed(&format!("{ORIGIN}/node/1"), &[3; 32]).unwrap();
    let line = cosignature::sign(&text, &node, NOW_S).unwrap();
    signed.add_signature(line).unwrap();
    // The two keys of a ledger that replaces its key.
    let next = SigningKey::from_seed(ORIGIN, &[4; 32]).unwrap();
    let next = sign_note(&text, &[&next]).unwrap().signatures[0].clone();
    signed.add_signature(next).unwrap();
    let sent = for_witnesses(&signed).unwrap();
    let names: Vec<&str> = sent
        .note()
        .signatures
        .iter()
        .map(|line| line.name.as_str())
        .collect();
    assert_eq!(names, [ORIGIN, ORIGIN]);
    assert_eq!(sent.note().text, text);

    let mut unsigned = signed.note().clone();
    unsigned.signatures.retain(|line| line.name != ORIGIN);
    let unsigned = SignedCheckpoint::from_note(unsigned).unwrap();
    assert!(for_witnesses(&unsigned).is_err());
}

#[test]
fn errors_name_what_was_wrong() {
    let error = NoCosignature::from(NotCosigned::Time {
        found: 1,
        now_s: NOW_S,
    });
    assert_eq!(
        error.to_string(),
        "the witness did not cosign: the cosignature is of second 1, it must be within 3600 s before and 300 s after \
         1800000000"
    );
}
