//! Many receipts at once, and the files of the static read side.

use scribe_client::wire::{EntryReceipt, Problem, ReceiptsResponse};
use scribe_client::{Client, Error, ErrorCode};
use scribe_proof::{
    Checkpoint, Leaf, LeafIndex, LeafKind, Prev, Receipt, SignedCheckpoint, SigningKey, TilePath,
    TreeSize, leaf_hash,
};

use crate::server::{Response, Server};

/// A checkpoint of one entry, signed.
fn note() -> String {
    let origin = "example.com/ledger";
    let key = SigningKey::from_seed(origin, &[7; 32]).unwrap();
    let checkpoint = Checkpoint::new(origin, TreeSize::new(1), leaf_hash(b"leaf"));
    let signed = SignedCheckpoint::sign(checkpoint, &[&key]).unwrap();
    signed.to_text()
}

fn receipt(index: u64) -> Receipt {
    let mut leaf = Vec::new();
    Leaf {
        kind: LeafKind::Put,
        subtype: 0,
        timestamp_ms: 5,
        transaction_position: 0,
        transaction_length: 1,
        prev: Prev::NotAsserted,
        commitment: leaf_hash(b"any"),
        key: b"key",
        author: b"",
        body: b"",
    }
    .encode_into(&mut leaf)
    .unwrap();
    Receipt {
        leaf,
        opening: None,
        index: LeafIndex::new(index),
        proof: Vec::new(),
        checkpoint_note: note(),
    }
}

fn answered(receipt: Option<String>, error: Option<Problem>) -> EntryReceipt {
    EntryReceipt {
        key: None,
        key_base64: None,
        index: None,
        receipt,
        error,
    }
}

async fn batch(receipts: Vec<EntryReceipt>) -> Result<Vec<Result<Receipt, Problem>>, Error> {
    let answer = ReceiptsResponse {
        tree_size: Some(1),
        receipts,
    };
    let server = Server::start(move |_| Response::json(200, &answer)).await;
    let client = Client::new(&server.url).unwrap();
    let answer = client.receipts().key("a").version(b"\xff", 7).send().await;
    assert_eq!(server.targets(), ["POST /v1/receipts"]);
    let requests = server.requests.lock().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&requests[0].body),
        r#"{"entries":[{"key":"a"},{"key_base64":"/w==","index":7}]}"#
    );
    answer
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let refused = Problem::new(ErrorCode::NotFound, "no such version");
    let answer = batch(vec![
        answered(None, Some(refused.clone())),
        answered(Some(receipt(7).to_text()), None),
    ])
    .await
    .unwrap();
    assert_eq!(answer, [Err(refused), Ok(receipt(7))]);
}

#[tokio::test]
async fn a_batch_that_cannot_be_matched_to_what_was_asked_is_no_answer() {
    let good = || answered(Some(receipt(7).to_text()), None);
    for wrong in [
        vec![],
        vec![good()],
        vec![good(), good(), good()],
        vec![good(), answered(None, None)],
        vec![good(), answered(Some("no receipt".to_owned()), None)],
    ] {
        let answer = batch(wrong).await;
        assert!(
            matches!(answer, Err(Error::UnexpectedAnswer(_))),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn tiles_and_checkpoints_come_byte_for_byte() {
    let server = Server::start(|request| match request.target.as_str() {
        "/checkpoint" => Response::text(note()),
        "/tile/0/x001/234.p/5" => Response::Full(200, vec![], vec![0, 1, 0xff]),
        "/tile/entries/000" => Response::Full(200, vec![], vec![9]),
        _ => Response::problem(ErrorCode::NotFound),
    })
    .await;
    let client = Client::new(&server.url).unwrap();
    let tile = |path: &str| TilePath::parse(path).unwrap();
    assert_eq!(client.checkpoint_text().await.unwrap(), note());
    let bytes = client.tile(&tile("tile/0/x001/234.p/5")).await.unwrap();
    assert_eq!(bytes, &[0, 1, 0xff][..]);
    let bytes = client.tile(&tile("tile/entries/000")).await.unwrap();
    assert_eq!(bytes, &[9][..]);
    let refused = client.tile(&tile("tile/1/000")).await.unwrap_err();
    assert!(matches!(refused, Error::Server(problem) if problem.code == "not_found"));
}
