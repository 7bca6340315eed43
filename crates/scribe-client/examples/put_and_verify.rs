//! Appends a value, checks that it is in the ledger, and keeps the receipt.
//!
//! `cargo run --example put_and_verify -- http://127.0.0.1:8001 VKEY greeting hello`
//!
//! The public key VKEY is printed when the node starts; get it by a way you trust.

use scribe_client::{Client, FilePin, VerifierKey, VerifyingClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, vkey, key, value] = arguments.as_slice() else {
        return Err("usage: put_and_verify URL VKEY KEY VALUE".into());
    };
    let client = Client::new(url)?;
    let pin = FilePin::new("ledger.checkpoint");
    let ledger = VerifyingClient::with_key(client, VerifierKey::parse(vkey)?, pin)?;

    // Sent, published, and compared with what the signed checkpoint covers.
    let put = ledger.put_verified(|client| {
        client
            .put(key, value.clone())
            .content_type("text/plain; charset=utf-8")
    });
    let included = put.await?;
    println!(
        "{key} is in {} at index {}, below tree size {}",
        included.origin(),
        included.index(),
        included.tree_size()
    );

    // With the value, this shows the same to anyone, offline: `scribe verify`.
    let file = format!("{}.tlog-proof", included.index());
    std::fs::write(&file, included.receipt.to_text())?;
    println!("receipt: {file}");
    Ok(())
}
