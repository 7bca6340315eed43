//! Many receipts at once.

use reqwest::Method;
use scribe_proof::Receipt;

use super::{Call, Client, not_understood};
use crate::error::Error;
use crate::retry::Safety;
use crate::wire::bytes::to_members;
use crate::wire::{Problem, ReceiptWanted, ReceiptsRequest, ReceiptsResponse};

impl Client {
    /// Fetches the receipts of many keys at once, all under one checkpoint: see
    /// [`ReceiptBatch::key`] and [`ReceiptBatch::version`]. They are parsed, not verified.
    pub fn receipts(&self) -> ReceiptBatch<'_> {
        ReceiptBatch {
            client: self,
            request: ReceiptsRequest::default(),
        }
    }
}

/// Receipts to be fetched; see [`Client::receipts`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `send`"]
pub struct ReceiptBatch<'a> {
    client: &'a Client,
    request: ReceiptsRequest,
}

impl ReceiptBatch<'_> {
    /// Also the newest version of `key`. One batch takes up to 1,000 versions.
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        self.wanted(key.as_ref(), None)
    }

    /// Also the version of `key` at this index.
    pub fn version(self, key: impl AsRef<[u8]>, index: u64) -> Self {
        self.wanted(key.as_ref(), Some(index))
    }

    fn wanted(mut self, key: &[u8], index: Option<u64>) -> Self {
        let (key, key_base64) = to_members(key);
        self.request.entries.push(ReceiptWanted {
            key,
            key_base64,
            index,
        });
        self
    }

    /// Sends it, again if need be. The answer has a receipt, or why there is none, for each version
    /// asked for, in their order. The node waits some seconds for what is not published yet.
    ///
    /// # Errors
    /// See [`Error`]; what concerns one version alone is in the answer.
    pub async fn send(self) -> Result<Vec<Result<Receipt, Problem>>, Error> {
        let mut call = Call::new(Method::POST, "/v1/receipts");
        call.json(&self.request)?;
        let answer: ReceiptsResponse = self.client.call_json(&call, Safety::Read).await?;
        let (found, wanted) = (answer.receipts.len(), self.request.entries.len());
        if found != wanted {
            return Err(not_understood(
                &call,
                &format!("it has {found} receipts, asked for were {wanted}"),
            ));
        }
        answer
            .receipts
            .into_iter()
            .map(|entry| match (entry.receipt, entry.error) {
                (Some(text), _) => Receipt::parse(&text)
                    .map(Ok)
                    .map_err(|error| not_understood(&call, &error)),
                (None, Some(problem)) => Ok(Err(problem)),
                (None, None) => Err(not_understood(
                    &call,
                    &"a version has neither receipt nor error",
                )),
            })
            .collect()
    }
}
