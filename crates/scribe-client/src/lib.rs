//! How to ask: an HTTP client for Scribe Ledger that verifies what it hears.
//!
//! [`Client`] has every route of the HTTP API, repeats what is safe to repeat, and says so when a
//! write's outcome is unknown. [`VerifyingClient`] returns only what it has checked against a
//! public key or policy that you got another way. [`wire`] and [`code`] are the API's types, which
//! the node uses too.
//!
//! # Quickstart
//!
//! ```no_run
//! use scribe_client::{Client, FilePin, VerifierKey, VerifyingClient};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8001")?;
//! let appended = client.put("greeting", "hello").content_type("text/plain").send().await?;
//! println!("appended at index {}", appended.index);
//!
//! // Known beforehand: the ledger's public key. Kept: the largest checkpoint seen.
//! let key = VerifierKey::parse("example.com/ledger+…")?;
//! let verifying = VerifyingClient::with_key(client, key, FilePin::new("ledger.checkpoint"))?;
//! if let Some(included) = verifying.get_verified("greeting").await? {
//!     println!("{:?} is in the ledger at index {}", included.value, included.index());
//!     std::fs::write("greeting.tlog-proof", included.receipt.to_text())?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A verified version is *included*: it was appended and everyone sees it. That it is its key's
//! latest version is not proved.

#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]
#![warn(clippy::unwrap_used)]

pub mod client;
pub mod code;
pub mod error;
pub mod retry;
pub mod verify;
pub mod wire;
pub mod witness;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use client::fuzzing;
pub use client::{Client, ClientBuilder, Wait};
pub use code::ErrorCode;
pub use error::{Error, TransportError};
pub use retry::RetryPolicy;
#[doc(no_inline)]
pub use scribe_proof::{Included, Policy, VerifierKey};
pub use verify::{FilePin, IncludedValue, MemoryPin, PinStore, VerificationError, VerifyingClient};
