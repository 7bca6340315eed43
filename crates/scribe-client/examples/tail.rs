//! Prints the ledger as it grows.
//!
//! `cargo run --example tail -- http://127.0.0.1:8001 [FROM]`

use futures::StreamExt as _;
use scribe_client::Client;
use scribe_client::wire::WatchEvent;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: tail URL [FROM]")?;
    let client = Client::new(url)?;
    let mut watch = client.watch();
    if let Some(from) = arguments.next() {
        watch = watch.from(from.parse()?);
    }
    // Broken connections are opened again after the last entry seen.
    let mut events = watch.open().await?;
    while let Some(event) = events.next().await {
        if let WatchEvent::Entry(entry) = event? {
            let key = entry.key.or(entry.key_base64).unwrap_or_default();
            println!(
                "{} {:?} {key} ({} bytes)",
                entry.index, entry.kind, entry.value_length
            );
        }
    }
    Ok(())
}
