//! Reads a whole ledger, checks every entry, and compares the tree with the signed checkpoint.
//!
//! `cargo run --example audit -- http://127.0.0.1:8001 VKEY`

use scribe_client::verify::check_entry;
use scribe_client::{Client, MemoryPin, VerifierKey, VerifyingClient};
use scribe_proof::tree::Frontier;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, vkey] = arguments.as_slice() else {
        return Err("usage: audit URL VKEY".into());
    };
    let client = Client::new(url)?;
    let key = VerifierKey::parse(vkey)?;
    let ledger = VerifyingClient::with_key(client, key, MemoryPin::default())?;
    let checkpoint = ledger.checkpoint_verified().await?;

    let mut tree = Frontier::default();
    while tree.size() < checkpoint.size {
        let left = checkpoint.size.get() - tree.size().get();
        let request = ledger
            .client()
            .entries(tree.size().get())
            .limit(left.min(1_000))
            .raw();
        let page = request.send().await?;
        if page.entries.is_empty() {
            return Err(format!("the node has no entry at index {}", tree.size()).into());
        }
        for entry in page.entries {
            if entry.index != tree.size().get() || tree.size() == checkpoint.size {
                return Err(
                    format!("found index {} after {} entries", entry.index, tree.size()).into(),
                );
            }
            tree.append(check_entry(&entry)?);
        }
        eprintln!("{} of {} entries", tree.size(), checkpoint.size);
    }
    if tree.root() != checkpoint.root {
        return Err(format!(
            "the entries have root {}, signed is {}",
            tree.root(),
            checkpoint.root
        )
        .into());
    }
    println!(
        "{}: {} entries match the signed root hash",
        checkpoint.origin, checkpoint.size
    );
    Ok(())
}
